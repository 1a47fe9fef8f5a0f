//! The gRPC face of a node: unpack, call the `DataNode` or `Publisher`, pack.

use super::v1::data_node_server::{DataNode as Service, DataNodeServer};
use super::v1::publisher_server::{Publisher as PublisherService, PublisherServer};
use super::{convert, error, v1};
use crate::data_node::{CommitMode, DataNode, FragmentMessage, FragmentStream};
use crate::ipc::BatchEncoder;
use crate::{CommitSeq, Error, MESSAGE_BYTES_MAX, PROTOCOL, Publisher, SqlState, SubTxn};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// More streams than this on one connection wait at the client.
const STREAMS_MAX: u32 = 1024;
const HEADER_BYTES_MAX: u32 = 16 << 10;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A short fragment is done within it.
const FIRST_WAIT: Duration = Duration::from_millis(5);

/// Serves `node` on `listener` until `shutdown` completes; calls under way are finished first.
pub async fn serve_node<N: DataNode + Publisher>(
    node: Arc<N>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let service = DataNodeServer::new(Adapter { node: node.clone() as Arc<dyn DataNode> })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let publisher =
        PublisherServer::new(Adapter { node: node as Arc<dyn Publisher> }).max_encoding_message_size(MESSAGE_BYTES_MAX);
    // The builder's own setting is for listeners that it opens itself: without this every answer waits 40 ms for an
    // acknowledgement.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .add_service(service)
        .add_service(publisher)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
        .map_err(io::Error::other)
}

struct Adapter<N: ?Sized> {
    node: Arc<N>,
}

type Reply<T> = Result<Response<T>, Status>;

fn empty(result: Result<(), Error>) -> Reply<v1::Empty> {
    result.map(|()| Response::new(v1::Empty {})).map_err(error::to_status)
}

#[tonic::async_trait]
impl Service for Adapter<dyn DataNode> {
    async fn hello(&self, request: Request<v1::HelloRequest>) -> Reply<v1::NodeStatus> {
        let request = request.into_inner();
        if request.protocol != PROTOCOL {
            let message = format!("coordinator speaks protocol {}, this node {PROTOCOL}", request.protocol);
            return Err(error::to_status(Error::new(SqlState::DATA_NODE_INVALID_CONFIG, message)));
        }
        let status = self.node.hello().await.map_err(error::to_status)?;
        Ok(Response::new(convert::status_to(status)))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Reply<v1::Empty> {
        let identity = convert::attach_from(request.into_inner()).map_err(error::to_status)?;
        empty(self.node.attach(identity).await)
    }

    async fn obey(&self, request: Request<v1::ObeyRequest>) -> Reply<v1::Empty> {
        let request = request.into_inner();
        let cluster = convert::cluster_from(&request.cluster).map_err(error::to_status)?;
        empty(self.node.obey(cluster, request.epoch).await)
    }

    async fn stage(&self, request: Request<v1::StageRequest>) -> Reply<v1::Empty> {
        let request = request.into_inner();
        let txn = convert::txn_from(request.txn).map_err(error::to_status)?;
        let writes = request.writes.into_iter().map(convert::write_from).collect::<Result<_, _>>();
        let writes = writes.map_err(error::to_status)?;
        empty(self.node.stage(txn, SubTxn(request.sub), request.continues, writes).await)
    }

    async fn discard(&self, request: Request<v1::DiscardRequest>) -> Reply<v1::Empty> {
        let request = request.into_inner();
        let txn = convert::txn_from(request.txn).map_err(error::to_status)?;
        empty(self.node.discard(txn, SubTxn(request.from)..SubTxn(request.until)).await)
    }

    async fn prepare(&self, request: Request<v1::TxnRequest>) -> Reply<v1::Empty> {
        let txn = convert::txn_from(request.into_inner().txn).map_err(error::to_status)?;
        empty(self.node.prepare(txn).await)
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Reply<v1::Empty> {
        let request = request.into_inner();
        let txn = convert::txn_from(request.txn).map_err(error::to_status)?;
        let mode = match (request.one_phase, request.asynchronous) {
            (true, true) => CommitMode::Asynchronous,
            (true, false) => CommitMode::OnePhase,
            (false, _) => CommitMode::Prepared,
        };
        empty(self.node.commit(txn, CommitSeq(request.seq), mode).await)
    }

    async fn abort(&self, request: Request<v1::TxnRequest>) -> Reply<v1::Empty> {
        let txn = convert::txn_from(request.into_inner().txn).map_err(error::to_status)?;
        empty(self.node.abort(txn).await)
    }

    async fn outcome(&self, request: Request<v1::TxnRequest>) -> Reply<v1::OutcomeReply> {
        let txn = convert::txn_from(request.into_inner().txn).map_err(error::to_status)?;
        let outcome = self.node.outcome(txn).await.map_err(error::to_status)?;
        Ok(Response::new(convert::outcome_to(outcome)))
    }

    type ExecuteStream = BoxStream<'static, Result<v1::FragmentMessage, Status>>;

    async fn execute(&self, request: Request<v1::FragmentRequest>) -> Reply<Self::ExecuteStream> {
        let fragment = convert::fragment_from(request.into_inner()).map_err(error::to_status)?;
        let answers = fragment.shuffle.publishes.is_none();
        let stream = self.node.execute(fragment).await.map_err(error::to_status)?;
        let mut answer = Box::pin(encoded(stream).peekable());
        if answers {
            // What is ready by then leaves with the headers, in one piece.
            let _ = tokio::time::timeout(FIRST_WAIT, answer.as_mut().peek()).await;
        }
        Ok(Response::new(answer))
    }

    async fn chunk_stats(&self, request: Request<v1::ChunksRequest>) -> Reply<v1::ChunkStatsReply> {
        let chunks = convert::chunks_from(request.into_inner().chunks);
        let stats = self.node.chunk_stats(chunks).await.map_err(error::to_status)?;
        Ok(Response::new(v1::ChunkStatsReply { chunks: stats.into_iter().map(convert::stats_to).collect() }))
    }

    async fn seal_chunks(&self, request: Request<v1::SealRequest>) -> Reply<v1::Empty> {
        let v1::SealRequest { chunks, layout } = request.into_inner();
        let layout = convert::layout_from(layout).map_err(error::to_status)?;
        empty(self.node.seal_chunks(convert::chunks_from(chunks), layout).await)
    }

    async fn drop_chunks(&self, request: Request<v1::ChunksRequest>) -> Reply<v1::Empty> {
        let chunks = convert::chunks_from(request.into_inner().chunks);
        empty(self.node.drop_chunks(chunks).await)
    }
}

#[tonic::async_trait]
impl PublisherService for Adapter<dyn Publisher> {
    type FetchStream = BoxStream<'static, Result<v1::FragmentMessage, Status>>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Reply<Self::FetchStream> {
        let request = convert::fetch_from(request.into_inner()).map_err(error::to_status)?;
        let stream = self.node.fetch(request).await.map_err(error::to_status)?;
        Ok(Response::new(encoded(stream).boxed()))
    }
}

/// One wire message per batch; the IPC schema rides with the first, the end of the IPC stream with the metrics.
fn encoded(stream: FragmentStream) -> impl Stream<Item = Result<v1::FragmentMessage, Status>> {
    let mut encoder: Option<BatchEncoder> = None;
    stream.map(move |message| {
        let message = match message.map_err(error::to_status)? {
            FragmentMessage::Metrics(metrics, _) => {
                let end = encoder.as_mut().map(BatchEncoder::finish).transpose().map_err(error::to_status)?;
                v1::FragmentMessage { ipc: end.unwrap_or_default(), metrics }
            }
            FragmentMessage::Batch(batch) => {
                let encoder = match &mut encoder {
                    Some(encoder) => encoder,
                    none => none.insert(BatchEncoder::new(&batch.schema()).map_err(error::to_status)?),
                };
                let ipc = encoder.encode(&batch).map_err(error::to_status)?;
                v1::FragmentMessage { ipc, metrics: Bytes::new() }
            }
        };
        Ok(message)
    })
}
