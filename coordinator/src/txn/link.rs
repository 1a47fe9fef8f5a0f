//! One data node as the coordinator sees it: up or down. `Link` is itself a `DataNode`, so that everybody above calls a
//! node through it: a call to a node that is down fails at once, a call without an answer takes the node down until the
//! next handshake, and every error names its node.

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::RwLock;
use proto::{
    ChunkId, ChunkLayout, ChunkStats, ChunkWrite, ClusterId, CommitMode, CommitSeq, DataNode, Error, FragmentRequest,
    FragmentStream, NodeIdentity, NodeName, NodeStatus, Reaction, Result, SqlState, SubTxn, TxnId, TxnOutcome,
};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How long a node may take to answer before it counts as lost.
#[derive(Debug, Clone)]
pub struct Timeouts {
    pub hello: Duration,
    /// Long: a node whose memory is full waits before it answers.
    pub stage: Duration,
    /// Fsyncs at the node.
    pub commit: Duration,
    /// Sorting and writing whole chunks.
    pub seal: Duration,
    /// Everything else.
    pub call: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            hello: Duration::from_secs(3),
            stage: Duration::from_secs(60),
            commit: Duration::from_secs(20),
            seal: Duration::from_secs(600),
            call: Duration::from_secs(30),
        }
    }
}

/// A handle; clones share the state.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    name: NodeName,
    timeouts: Timeouts,
    state: RwLock<State>,
}

struct State {
    /// `None`: down, for `reason`.
    node: Option<Arc<dyn DataNode>>,
    reason: Error,
    /// Counts the times it came up, so that a late failure of an earlier connection does not take down a new one.
    generation: u64,
}

impl Link {
    /// Down until the first handshake.
    pub fn new(name: NodeName, timeouts: Timeouts) -> Link {
        let reason = Error::new(SqlState::CONNECTION_FAILURE, "not connected yet");
        Link(Arc::new(Shared { name, timeouts, state: RwLock::new(State { node: None, reason, generation: 0 }) }))
    }

    pub fn name(&self) -> &NodeName {
        &self.0.name
    }

    pub fn timeouts(&self) -> &Timeouts {
        &self.0.timeouts
    }

    pub fn is_up(&self) -> bool {
        self.0.state.read().node.is_some()
    }

    /// Why the node is down; `None` when it is up.
    pub fn down_reason(&self) -> Option<Error> {
        let state = self.0.state.read();
        state.node.is_none().then(|| state.reason.clone())
    }

    pub(super) fn set_up(&self, node: Arc<dyn DataNode>) {
        let mut state = self.0.state.write();
        state.generation += 1;
        state.node = Some(node);
    }

    pub(super) fn set_down(&self, reason: Error) {
        let mut state = self.0.state.write();
        state.node = None;
        state.reason = reason;
    }

    fn up(&self) -> Result<(Arc<dyn DataNode>, u64)> {
        let state = self.0.state.read();
        match &state.node {
            Some(node) => Ok((Arc::clone(node), state.generation)),
            None => {
                Err(Error::new(SqlState::CONNECTION_FAILURE, format!("data node \"{}\" is not available", self.0.name))
                    .detail(state.reason.message.clone())
                    .reaction(Reaction::Abort))
            }
        }
    }

    /// Takes the node down, unless it came up anew since, and says so in the caller's words.
    fn lost(&self, generation: u64, cause: Error) -> Error {
        let mut state = self.0.state.write();
        if state.generation == generation && state.node.is_some() {
            tracing::warn!(node = %self.0.name, %cause, "lost a data node");
            state.node = None;
            state.reason = cause.clone();
        }
        let text = format!("connection to data node \"{}\" was lost", self.0.name);
        let detail = cause.detail.unwrap_or(cause.message);
        Error::new(SqlState::CONNECTION_FAILURE, text).detail(detail).reaction(cause.reaction)
    }

    async fn call<T, F: Future<Output = Result<T>>>(
        &self,
        limit: Duration,
        on_silence: Reaction,
        make: impl FnOnce(Arc<dyn DataNode>) -> F,
    ) -> Result<T> {
        let (node, generation) = self.up()?;
        match tokio::time::timeout(limit, make(node)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.judge(generation, error)),
            Err(_) => {
                let text = format!("no answer within {} seconds", limit.as_secs_f64());
                let silence = Error::new(SqlState::CONNECTION_FAILURE, text).reaction(on_silence);
                Err(self.lost(generation, silence))
            }
        }
    }

    fn judge(&self, generation: u64, error: Error) -> Error {
        // A node that lost another one, in a shuffle, is not lost itself.
        match error.code == SqlState::CONNECTION_FAILURE && !error.names_a_node() {
            true => self.lost(generation, error),
            false => error.on_node(&self.0.name),
        }
    }
}

#[async_trait]
impl DataNode for Link {
    async fn hello(&self) -> Result<NodeStatus> {
        self.call(self.0.timeouts.hello, Reaction::Retry, |node| async move { node.hello().await }).await
    }

    async fn attach(&self, identity: NodeIdentity) -> Result<()> {
        self.call(self.0.timeouts.call, Reaction::Retry, |node| async move { node.attach(identity).await }).await
    }

    async fn obey(&self, cluster: ClusterId, epoch: u64) -> Result<()> {
        self.call(self.0.timeouts.call, Reaction::Retry, |node| async move { node.obey(cluster, epoch).await }).await
    }

    async fn stage(&self, txn: TxnId, sub: SubTxn, continues: bool, writes: Vec<ChunkWrite>) -> Result<()> {
        let limit = self.0.timeouts.stage;
        self.call(limit, Reaction::Abort, |node| async move { node.stage(txn, sub, continues, writes).await }).await
    }

    async fn discard(&self, txn: TxnId, subs: Range<SubTxn>) -> Result<()> {
        self.call(self.0.timeouts.call, Reaction::Abort, |node| async move { node.discard(txn, subs).await }).await
    }

    async fn prepare(&self, txn: TxnId) -> Result<()> {
        self.call(self.0.timeouts.commit, Reaction::Abort, |node| async move { node.prepare(txn).await }).await
    }

    async fn commit(&self, txn: TxnId, seq: CommitSeq, mode: CommitMode) -> Result<()> {
        let limit = self.0.timeouts.commit;
        self.call(limit, Reaction::Resolve, |node| async move { node.commit(txn, seq, mode).await }).await
    }

    async fn abort(&self, txn: TxnId) -> Result<()> {
        self.call(self.0.timeouts.call, Reaction::Retry, |node| async move { node.abort(txn).await }).await
    }

    async fn outcome(&self, txn: TxnId) -> Result<TxnOutcome> {
        self.call(self.0.timeouts.call, Reaction::Retry, |node| async move { node.outcome(txn).await }).await
    }

    async fn execute(&self, fragment: FragmentRequest) -> Result<FragmentStream> {
        let generation = self.up()?.1;
        let limit = self.0.timeouts.call;
        let stream = self.call(limit, Reaction::Retry, |node| async move { node.execute(fragment).await }).await?;
        let link = self.clone();
        Ok(stream.map(move |message| message.map_err(|error| link.judge(generation, error))).boxed())
    }

    async fn chunk_stats(&self, chunks: Vec<ChunkId>) -> Result<Vec<ChunkStats>> {
        self.call(self.0.timeouts.call, Reaction::Retry, |node| async move { node.chunk_stats(chunks).await }).await
    }

    async fn seal_chunks(&self, chunks: Vec<ChunkId>, layout: ChunkLayout) -> Result<()> {
        self.call(self.0.timeouts.seal, Reaction::Retry, |node| async move { node.seal_chunks(chunks, layout).await })
            .await
    }

    async fn drop_chunks(&self, chunks: Vec<ChunkId>) -> Result<()> {
        self.call(self.0.timeouts.call, Reaction::Retry, |node| async move { node.drop_chunks(chunks).await }).await
    }
}
