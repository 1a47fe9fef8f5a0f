//! `Peer` over gRPC. Each coordinator opens one connection to each other one and speaks on it; what it hears comes on the
//! connections that others opened. Both sides introduce themselves first, and either may refuse the other.

use super::v1::coordinator_client::CoordinatorClient;
use super::v1::coordinator_server::{Coordinator as Service, CoordinatorServer};
use super::{convert, error, v1};
use crate::{Error, MESSAGE_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, Peer, PeerIdentity, Reaction, Result, SqlState};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pings find a peer that is gone without a word.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A snapshot of megabytes must not wait for an answer now and then.
const WINDOW_BYTES: u32 = 4 << 20;
/// Longer messages are sent in parts of it.
const PART_BYTES: usize = 2 << 20;
/// Parts between the sender and the connection.
const PARTS_AHEAD: usize = 16;

/// Hears what other coordinators say on `listener`, until `shutdown` completes.
pub async fn serve_peer(
    peer: Arc<dyn Peer>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let service = CoordinatorServer::new(Ear { peer }).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(service)
        .serve_with_incoming(incoming);
    // Streams between coordinators have no end of their own to wait for.
    tokio::select! {
        served = serving => served.map_err(io::Error::other),
        () = shutdown => Ok(()),
    }
}

struct Ear {
    peer: Arc<dyn Peer>,
}

#[tonic::async_trait]
impl Service for Ear {
    type ShareStream = BoxStream<'static, Result<v1::PeerIdentity, Status>>;

    async fn share(&self, request: Request<Streaming<v1::PeerMessage>>) -> Result<Response<Self::ShareStream>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|first| first.identity);
        let caller = first.ok_or_else(|| Status::invalid_argument("a coordinator introduces itself first"))?;
        let caller = convert::peer_from(caller).map_err(error::to_status)?;
        self.peer.admit(&caller).map_err(error::to_status)?;
        let introduction = convert::peer_to(self.peer.introduce());
        let peer = Arc::clone(&self.peer);
        // The answer's second half never comes: it ends when the caller stops speaking.
        let listening = async move {
            let mut heard = Heard::default();
            while let Ok(Some(part)) = messages.message().await {
                match heard.add(part) {
                    Ok(None) => {}
                    Ok(Some(whole)) => peer.receive(&whole),
                    // The connection ends with it.
                    Err(TooLong) => return,
                }
            }
        };
        let answer = stream::once(async move { Ok(introduction) });
        let silence = stream::once(listening).filter_map(|()| async { None });
        Ok(Response::new(answer.chain(silence).boxed()))
    }
}

/// The parts of one message that have come.
#[derive(Default)]
struct Heard(Vec<u8>);

struct TooLong;

impl Heard {
    /// The message, when this was its last part.
    fn add(&mut self, part: v1::PeerMessage) -> Result<Option<Bytes>, TooLong> {
        if self.0.is_empty() && !part.continues {
            return Ok(Some(part.log));
        }
        if self.0.len() + part.log.len() > PEER_MESSAGE_BYTES_MAX {
            return Err(TooLong);
        }
        self.0.extend_from_slice(&part.log);
        Ok((!part.continues).then(|| std::mem::take(&mut self.0).into()))
    }
}

/// At least one, in order.
fn parts(mut log: Bytes) -> impl Iterator<Item = v1::PeerMessage> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let part = log.split_to(log.len().min(PART_BYTES));
        is_over = log.is_empty();
        Some(v1::PeerMessage { identity: None, log: part, continues: !is_over })
    })
}

/// Speaks to coordinator `member` at `address` (`host:port`) whatever comes out of `messages`, until the connection is
/// lost. Those that wait when a connection is made go out on it.
///
/// # Errors
/// Always: why it was lost, or why one side refused the other.
pub async fn share(
    address: &str,
    member: u64,
    peer: &dyn Peer,
    messages: &mut (impl Stream<Item = Bytes> + Unpin),
) -> Error {
    match try_share(address, member, peer, messages).await {
        Ok(()) => Error::new(SqlState::CONNECTION_FAILURE, "the connection was closed").reaction(Reaction::Retry),
        Err(error) => error,
    }
}

async fn try_share(
    address: &str,
    member: u64,
    peer: &dyn Peer,
    messages: &mut (impl Stream<Item = Bytes> + Unpin),
) -> Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| {
        Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid coordinator address \"{address}\": {e}"))
    })?;
    let lost = |status: Status| match status.details().is_empty() {
        // It broke; a refusal has details.
        true => Error::new(SqlState::CONNECTION_FAILURE, "the connection was lost")
            .detail(status.message().to_owned())
            .reaction(Reaction::Retry),
        false => error::from_status(status, Reaction::Retry),
    };
    let channel = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(|e| Error::new(SqlState::CANNOT_CONNECT, e.to_string()).reaction(Reaction::Retry))?;
    let mut client = CoordinatorClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (outgoing, queue) = mpsc::channel(PARTS_AHEAD);
    let hello =
        v1::PeerMessage { identity: Some(convert::peer_to(peer.introduce())), log: Bytes::new(), continues: false };
    outgoing.try_send(hello).expect("the channel is empty");
    let mut answers = client.share(ReceiverStream::new(queue)).await.map_err(lost)?.into_inner();
    let answer = answers.message().await.map_err(lost)?;
    let answer = answer.ok_or_else(|| Error::new(SqlState::PROTOCOL_VIOLATION, "no introduction"))?;
    let other: PeerIdentity = convert::peer_from(answer)?;
    if other.member != member {
        let text = format!("{address} is coordinator {}, not {member}", other.member);
        return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text));
    }
    peer.admit(&other)?;
    loop {
        tokio::select! {
            // Nothing comes but the end.
            ended = answers.message() => return ended.map(drop).map_err(lost),
            message = messages.next() => {
                let Some(log) = message else { return Ok(()) };
                for part in parts(log) {
                    if outgoing.send(part).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_any_length_comes_back_from_its_parts() {
        let mut heard = Heard::default();
        for length in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES] {
            let log = Bytes::from((0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>());
            let parts = parts(log.clone()).collect::<Vec<_>>();
            assert_eq!(parts.len(), length.div_ceil(PART_BYTES).max(1));
            let mut wholes = parts.into_iter().filter_map(|part| heard.add(part).ok().expect("not too long"));
            assert!(wholes.next() == Some(log) && wholes.next().is_none(), "{length} bytes");
        }
    }

    #[test]
    fn a_message_without_end_does_not_fill_the_memory() {
        let mut heard = Heard::default();
        let part = v1::PeerMessage { identity: None, log: vec![7; 64 << 20].into(), continues: true };
        let taken = (0..1000).take_while(|_| heard.add(part.clone()).is_ok()).count();
        assert_eq!(taken * part.log.len(), PEER_MESSAGE_BYTES_MAX);
    }
}
