//! `DataNode` as seen by a coordinator in another process, and `Publisher` as seen by a node. The connection is made on
//! first use and remade after a loss.

use super::v1::data_node_client::DataNodeClient;
use super::v1::publisher_client::PublisherClient;
use super::{convert, error, v1};
use crate::data_node::{CommitMode, FragmentMessage, FragmentStream, Traffic};
use crate::ipc::BatchDecoder;
use crate::{
    ChunkId, ChunkLayout, ChunkStats, ChunkWrite, ClusterId, CommitSeq, DataNode, Error, FetchRequest, FragmentRequest,
    MESSAGE_BYTES_MAX, NodeIdentity, NodeStatus, PROTOCOL, Publisher, Reaction, Result, SqlState, SubTxn, TxnId,
    TxnOutcome,
};
use async_trait::async_trait;
use futures::StreamExt;
use prost::Message;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// How long a connection attempt may take before the node counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pings find a peer that is gone without a word; a call on it fails after interval plus timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Receive window of one result stream: what a slow reader lets a node send ahead.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The most there can be. Streams have their own bound, and those that nobody reads must not stop the others.
const CONNECTION_WINDOW_BYTES: u32 = i32::MAX as u32;
/// The same between nodes, where many streams wait, for their reader is busy with others.
const PUBLISHED_WINDOW_BYTES: u32 = 256 << 10;

/// Two connections: rows of queries, which may be read slowly, never hold up what keeps a cluster alive.
pub struct GrpcNode {
    client: DataNodeClient<Channel>,
    queries: DataNodeClient<Channel>,
}

impl GrpcNode {
    /// `address` is `host:port`. Does not connect yet; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `INVALID_PARAMETER_VALUE` when the address is not one.
    pub fn new(address: &str) -> Result<GrpcNode> {
        let endpoint = endpoint(address, STREAM_WINDOW_BYTES)?;
        let client = || {
            DataNodeClient::new(endpoint.connect_lazy())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        };
        Ok(GrpcNode { client: client(), queries: client() })
    }

    /// A channel is a handle; cloning it shares the connection.
    fn client(&self) -> DataNodeClient<Channel> {
        self.client.clone()
    }
}

/// A node that publishes, in another process.
pub struct GrpcPublisher {
    client: PublisherClient<Channel>,
}

impl GrpcPublisher {
    /// As [`GrpcNode::new`].
    ///
    /// # Errors
    /// `INVALID_PARAMETER_VALUE` when the address is not one.
    pub fn new(address: &str) -> Result<GrpcPublisher> {
        let channel = endpoint(address, PUBLISHED_WINDOW_BYTES)?.connect_lazy();
        Ok(GrpcPublisher { client: PublisherClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX) })
    }
}

#[async_trait]
impl Publisher for GrpcPublisher {
    async fn fetch(&self, request: FetchRequest) -> Result<FragmentStream> {
        let mut client = self.client.clone();
        let messages = client.fetch(convert::fetch_to(request)).await.map_err(retry)?.into_inner();
        Ok(decoded(messages, Traffic::default()).boxed())
    }
}

fn endpoint(address: &str, stream_window_bytes: u32) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| {
        Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid node address \"{address}\": {e}"))
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(stream_window_bytes)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true))
}

fn resolve(status: Status) -> Error {
    error::from_status(status, Reaction::Resolve)
}

fn retry(status: Status) -> Error {
    error::from_status(status, Reaction::Retry)
}

#[async_trait]
impl DataNode for GrpcNode {
    async fn hello(&self) -> Result<NodeStatus> {
        let request = v1::HelloRequest { protocol: PROTOCOL, build: env!("CARGO_PKG_VERSION").to_owned() };
        let status = self.client().hello(request).await.map_err(retry)?.into_inner();
        convert::status_from(status)
    }

    async fn attach(&self, identity: NodeIdentity) -> Result<()> {
        self.client().attach(convert::attach_to(identity)).await.map_err(retry)?;
        Ok(())
    }

    async fn obey(&self, cluster: ClusterId, epoch: u64) -> Result<()> {
        let request = v1::ObeyRequest { cluster: cluster.0.to_vec().into(), epoch };
        self.client().obey(request).await.map_err(retry)?;
        Ok(())
    }

    async fn stage(&self, txn: TxnId, sub: SubTxn, continues: bool, writes: Vec<ChunkWrite>) -> Result<()> {
        let writes = writes.into_iter().map(convert::write_to).collect();
        let request = v1::StageRequest { txn: Some(convert::txn_to(txn)), sub: sub.0, continues, writes };
        self.client().stage(request).await.map_err(|s| error::from_status(s, Reaction::Abort))?;
        Ok(())
    }

    async fn discard(&self, txn: TxnId, subs: Range<SubTxn>) -> Result<()> {
        let (from, until) = (subs.start.0, subs.end.0);
        let request = v1::DiscardRequest { txn: Some(convert::txn_to(txn)), from, until };
        self.client().discard(request).await.map_err(|s| error::from_status(s, Reaction::Abort))?;
        Ok(())
    }

    async fn prepare(&self, txn: TxnId) -> Result<()> {
        let request = v1::TxnRequest { txn: Some(convert::txn_to(txn)) };
        self.client().prepare(request).await.map_err(|s| error::from_status(s, Reaction::Abort))?;
        Ok(())
    }

    async fn commit(&self, txn: TxnId, seq: CommitSeq, mode: CommitMode) -> Result<()> {
        let (one_phase, asynchronous) = (mode != CommitMode::Prepared, mode == CommitMode::Asynchronous);
        let request = v1::CommitRequest { txn: Some(convert::txn_to(txn)), seq: seq.0, one_phase, asynchronous };
        self.client().commit(request).await.map_err(resolve)?;
        Ok(())
    }

    async fn abort(&self, txn: TxnId) -> Result<()> {
        let request = v1::TxnRequest { txn: Some(convert::txn_to(txn)) };
        self.client().abort(request).await.map_err(retry)?;
        Ok(())
    }

    async fn outcome(&self, txn: TxnId) -> Result<TxnOutcome> {
        let request = v1::TxnRequest { txn: Some(convert::txn_to(txn)) };
        convert::outcome_from(self.client().outcome(request).await.map_err(retry)?.into_inner())
    }

    async fn execute(&self, fragment: FragmentRequest) -> Result<FragmentStream> {
        let request = convert::fragment_to(fragment);
        let traffic = Traffic { request_bytes: request.encoded_len() as u64, ..Traffic::default() };
        let messages = self.queries.clone().execute(request).await.map_err(retry)?.into_inner();
        Ok(decoded(messages, traffic).boxed())
    }

    async fn chunk_stats(&self, chunks: Vec<ChunkId>) -> Result<Vec<ChunkStats>> {
        let request = v1::ChunksRequest { chunks: convert::chunks_to(chunks) };
        let reply = self.client().chunk_stats(request).await.map_err(retry)?.into_inner();
        Ok(reply.chunks.into_iter().map(convert::stats_from).collect())
    }

    async fn seal_chunks(&self, chunks: Vec<ChunkId>, layout: ChunkLayout) -> Result<()> {
        let layout = Some(convert::layout_to(layout));
        let request = v1::SealRequest { chunks: convert::chunks_to(chunks), layout };
        self.client().seal_chunks(request).await.map_err(retry)?;
        Ok(())
    }

    async fn drop_chunks(&self, chunks: Vec<ChunkId>) -> Result<()> {
        let request = v1::ChunksRequest { chunks: convert::chunks_to(chunks) };
        self.client().drop_chunks(request).await.map_err(retry)?;
        Ok(())
    }
}

struct Decoding {
    messages: Streaming<v1::FragmentMessage>,
    decoder: BatchDecoder,
    ready: VecDeque<FragmentMessage>,
    traffic: Traffic,
}

/// The fragment's batches out of its messages. Ends after the first error.
fn decoded(
    messages: Streaming<v1::FragmentMessage>,
    traffic: Traffic,
) -> impl futures::Stream<Item = Result<FragmentMessage>> {
    let start = Decoding { messages, decoder: BatchDecoder::default(), ready: VecDeque::new(), traffic };
    futures::stream::try_unfold(start, |mut state| async move {
        loop {
            if let Some(message) = state.ready.pop_front() {
                return Ok(Some((message, state)));
            }
            match state.messages.message().await.map_err(retry)? {
                None => return Ok(None),
                Some(message) => {
                    state.traffic.messages += 1;
                    state.traffic.answer_bytes += message.encoded_len() as u64;
                    let batches = state.decoder.decode(message.ipc)?;
                    state.ready.extend(batches.into_iter().map(FragmentMessage::Batch));
                    if !message.metrics.is_empty() {
                        state.ready.push_back(FragmentMessage::Metrics(message.metrics, Some(state.traffic)));
                    }
                }
            }
        }
    })
}
