//! The lines to the other coordinators of the group: one queue and one connection each way. Whatever does not get
//! through is lost; the algorithm behind says it again.

use super::coordinator::Coordinator;
use crate::raft::Outbox;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::wire::share;
use proto::{Error, Peer, PeerIdentity, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Messages to one coordinator that wait for its connection; the algorithm keeps 64 MiB of them under way at most.
const QUEUE_MAX: usize = 1024;
/// Between two attempts to connect.
const CONNECT_INTERVAL: Duration = Duration::from_millis(200);

/// The ends into which the log speaks.
pub struct Peers {
    queues: BTreeMap<u64, mpsc::Sender<Bytes>>,
    lines: Mutex<Vec<Line>>,
}

/// To one coordinator.
struct Line {
    member: u64,
    address: String,
    queue: mpsc::Receiver<Bytes>,
}

impl Peers {
    /// `addresses` (`host:port`) of all other members.
    pub fn new(addresses: BTreeMap<u64, String>) -> Peers {
        let mut queues = BTreeMap::new();
        let line = |(member, address)| {
            let (sender, queue) = mpsc::channel(QUEUE_MAX);
            queues.insert(member, sender);
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
        // A full queue is a network that loses.
        let _ = self.queues.get(&to).map(|queue| queue.try_send(message));
    }
}

async fn speak(mut line: Line, coordinator: Arc<Coordinator>) {
    let (member, address) = (line.member, line.address);
    let mut told: Option<Error> = None;
    loop {
        // What waited for a connection is out of date.
        while line.queue.try_recv().is_ok() {}
        let error = share(&address, member, coordinator.as_ref(), &mut line.queue).await;
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
