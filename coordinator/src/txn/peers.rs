//! The lines to the other coordinators of the group: one queue and one connection each way. Whatever does not get
//! through is lost; the algorithm behind says it again.

use super::coordinator::Coordinator;
use crate::raft::Outbox;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use proto::wire::share;
use proto::{Error, PEER_MESSAGE_BYTES_MAX, Peer, PeerIdentity, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Messages to one coordinator that wait for its connection.
const QUEUE_MAX: usize = 1024;
/// What they add up to; the algorithm keeps no more under way. A snapshot that is longer takes all of it for itself.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Between two attempts to connect.
const CONNECT_INTERVAL: Duration = Duration::from_millis(200);

/// The ends into which the log speaks.
pub struct Peers {
    queues: BTreeMap<u64, Queue>,
    lines: Mutex<Vec<Line>>,
}

/// A message with the room it takes.
type Waiting = (Bytes, OwnedSemaphorePermit);

struct Queue {
    messages: mpsc::Sender<Waiting>,
    room_bytes: Arc<Semaphore>,
}

/// To one coordinator.
struct Line {
    member: u64,
    address: String,
    queue: mpsc::Receiver<Waiting>,
}

impl Peers {
    /// `addresses` (`host:port`) of all other members.
    pub fn new(addresses: BTreeMap<u64, String>) -> Peers {
        let mut queues = BTreeMap::new();
        let line = |(member, address)| {
            let (messages, queue) = mpsc::channel(QUEUE_MAX);
            queues.insert(member, Queue { messages, room_bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)) });
            Line { member, address, queue }
        };
        let lines = addresses.into_iter().map(line).collect();
        Peers { queues, lines: Mutex::new(lines) }
    }

    /// Carries messages until `stop`. Once.
    pub async fn run(&self, coordinator: Arc<Coordinator>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for line in std::mem::take(&mut *self.lines.lock()) {
            tasks.spawn(speak(line, Arc::clone(&coordinator)));
        }
        stop.cancelled().await;
        tasks.shutdown().await;
    }
}

impl Outbox for Peers {
    fn send(&self, to: u64, message: Bytes) {
        let Some(queue) = self.queues.get(&to) else { return };
        if message.len() > PEER_MESSAGE_BYTES_MAX {
            tracing::error!(member = to, bytes = message.len(), "a snapshot of the log is too long to be sent");
            return;
        }
        let bytes = u32::try_from(message.len().min(QUEUE_BYTES_MAX)).expect("a limit of 64 MiB");
        // A full queue is a network that loses.
        if let Ok(room) = Arc::clone(&queue.room_bytes).try_acquire_many_owned(bytes) {
            let _ = queue.messages.try_send((message, room));
        }
    }
}

async fn speak(mut line: Line, coordinator: Arc<Coordinator>) {
    let (member, address) = (line.member, line.address);
    let mut messages = stream::poll_fn(move |context| line.queue.poll_recv(context)).map(|(message, _)| message);
    let mut told: Option<Error> = None;
    loop {
        // What waited for a connection is out of date.
        while let Some(Some(_)) = messages.next().now_or_never() {}
        let error = share(&address, member, coordinator.as_ref(), &mut messages).await;
        if told.as_ref().is_none_or(|told| told.message != error.message) {
            tracing::warn!(member, address, %error, "no connection to another coordinator");
            told = Some(error);
        }
        tokio::time::sleep(CONNECT_INTERVAL).await;
    }
}

impl Peer for Coordinator {
    fn introduce(&self) -> PeerIdentity {
        Coordinator::introduce(self)
    }

    fn admit(&self, peer: &PeerIdentity) -> Result<()> {
        Coordinator::admit(self, peer)
    }

    fn receive(&self, message: &[u8]) {
        if let Err(error) = Coordinator::receive(self, message) {
            tracing::warn!(%error, "a coordinator said something that is not understood");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_connection_is_bounded_by_its_bytes() {
        let peers = Peers::new(BTreeMap::from([(2, "127.0.0.1:1".to_owned())]));
        let mut line = peers.lines.lock().pop().unwrap();
        let waiting =
            |line: &mut Line| std::iter::from_fn(|| line.queue.try_recv().ok()).map(|(m, _)| m.len()).sum::<usize>();
        let message = Bytes::from(vec![7; 1 << 20]);
        (0..QUEUE_MAX).for_each(|_| peers.send(2, message.clone()));
        assert_eq!(waiting(&mut line), QUEUE_BYTES_MAX);
        let snapshot = Bytes::from(vec![7; 2 * QUEUE_BYTES_MAX]);
        (0..2).for_each(|_| peers.send(2, snapshot.clone()));
        peers.send(2, message.clone());
        assert_eq!(waiting(&mut line), snapshot.len(), "longer than the queue, and alone in it");
        peers.send(2, message.clone());
        assert_eq!(waiting(&mut line), message.len(), "there is room again");
    }
}
