//! The node itself: the verbs of `DataNode` on a store, and what other nodes may ask.

use crate::chunks::Chunks;
use crate::queries::Queries;
use async_trait::async_trait;
use engine::plan::{EngineOptions, Executor, Spill};
use proto::{
    ChunkId, ChunkLayout, ChunkStats, ChunkWrite, Clock, ClusterId, CommitMode, CommitSeq, DataNode, Error,
    FetchRequest, FragmentRequest, FragmentStream, NodeIdentity, NodeStatus, Publisher, Publishers, Result, Rng,
    SqlState, SubTxn, TxnId, TxnOutcome,
};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use storage::{StorageError, Store, StoreOptions, Vfs};

#[derive(Debug, Clone)]
pub struct NodeOptions {
    pub store: StoreOptions,
    pub engine: EngineOptions,
    /// What queries may put on disk for lack of memory, in the folder `spill` beside the store. 0: nothing.
    pub spill_bytes_max: u64,
    /// Threads that compute queries.
    pub query_threads: usize,
    /// Threads that may read chunks for queries at the same time.
    pub reader_threads: usize,
}

impl Default for NodeOptions {
    fn default() -> Self {
        NodeOptions {
            store: StoreOptions::default(),
            engine: EngineOptions::default(),
            spill_bytes_max: 0,
            query_threads: std::thread::available_parallelism().map_or(2, usize::from),
            reader_threads: 32,
        }
    }
}

/// Must not be dropped without `close` when its log is to be marked clean; nothing is lost either way.
pub struct Node {
    store: Arc<Store>,
    queries: Queries,
}

impl Node {
    /// Opens the store in `dir` and starts the query threads. Blocks on the disk. `publishers` are the other nodes.
    ///
    /// # Errors
    /// The store's: a locked or damaged directory, another format. The folder for spilled rows cannot be emptied.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        dir: &Path,
        publishers: Arc<dyn Publishers>,
        options: NodeOptions,
    ) -> Result<Node> {
        let store = Arc::new(Store::open(vfs, Arc::clone(&clock), rng, dir, options.store)?);
        let mut engine = options.engine;
        if options.spill_bytes_max > 0 {
            engine.spill = Some(Spill::open(&dir.join("spill"), options.spill_bytes_max)?);
        }
        let executor = Executor::new(Arc::new(Chunks(Arc::clone(&store))), Arc::clone(&clock), &engine);
        let executor = executor.with_publishers(publishers);
        let queries = Queries::new(executor, options.query_threads, options.reader_threads, clock)
            .map_err(|error| Error::new(SqlState::INTERNAL_ERROR, format!("could not start query threads: {error}")))?;
        Ok(Node { store, queries })
    }

    /// Cuts off what runs; no other query begins.
    pub fn stop_queries(&self) {
        self.queries.stop();
    }

    /// Cuts running queries off and closes the store; calls after it fail.
    ///
    /// # Errors
    /// When the store had failed before, or its log cannot be marked.
    pub async fn close(&self) -> Result<()> {
        self.queries.stop();
        self.stored(|store| store.close()).await
    }

    /// Runs a call of the store on a thread that may block. A caller that goes away does not stop it.
    async fn stored<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Store) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.store);
        let called = tokio::task::spawn_blocking(move || call(&store)).await;
        called.map_err(|error| Error::internal(format!("a call of the store stopped: {error}")))?.map_err(Error::from)
    }
}

#[async_trait]
impl DataNode for Node {
    async fn hello(&self) -> Result<NodeStatus> {
        let status = self.stored(|store| Ok(store.status())).await?;
        Ok(NodeStatus { build: env!("CARGO_PKG_VERSION").to_owned(), ..status })
    }

    async fn attach(&self, identity: NodeIdentity) -> Result<()> {
        self.stored(move |store| store.attach(identity)).await
    }

    async fn obey(&self, cluster: ClusterId, epoch: u64) -> Result<()> {
        self.stored(move |store| store.obey(cluster, epoch)).await
    }

    async fn stage(&self, txn: TxnId, sub: SubTxn, continues: bool, writes: Vec<ChunkWrite>) -> Result<()> {
        self.stored(move |store| {
            let reason = match continues {
                true if store.outcome(txn)? == TxnOutcome::Unknown => {
                    "its first rows are not here; the node restarted since they were staged"
                }
                false if store.holds_rows_of(txn) => "its first rows came twice",
                _ => return store.stage(txn, sub, writes),
            };
            Err(StorageError::Txn { txn, reason: reason.to_owned() })
        })
        .await
    }

    async fn discard(&self, txn: TxnId, subs: Range<SubTxn>) -> Result<()> {
        self.stored(move |store| store.discard(txn, subs)).await
    }

    async fn prepare(&self, txn: TxnId) -> Result<()> {
        self.stored(move |store| store.prepare(txn)).await
    }

    async fn commit(&self, txn: TxnId, seq: CommitSeq, mode: CommitMode) -> Result<()> {
        self.stored(move |store| store.commit(txn, seq, mode)).await
    }

    async fn abort(&self, txn: TxnId) -> Result<()> {
        self.stored(move |store| store.abort(txn)).await
    }

    async fn outcome(&self, txn: TxnId) -> Result<TxnOutcome> {
        self.stored(move |store| store.outcome(txn)).await
    }

    async fn execute(&self, fragment: FragmentRequest) -> Result<FragmentStream> {
        self.store.check_epoch(fragment.snapshot.epoch())?;
        match fragment.shuffle.publishes {
            None => Ok(self.queries.start(fragment)),
            Some(_) => self.queries.publish(fragment).await,
        }
    }

    async fn chunk_stats(&self, chunks: Vec<ChunkId>) -> Result<Vec<ChunkStats>> {
        self.stored(move |store| store.chunk_stats(&chunks)).await
    }

    async fn seal_chunks(&self, chunks: Vec<ChunkId>, layout: ChunkLayout) -> Result<()> {
        self.stored(move |store| chunks.into_iter().try_for_each(|chunk| store.seal_sorted(chunk, &layout))).await
    }

    async fn drop_chunks(&self, chunks: Vec<ChunkId>) -> Result<()> {
        self.stored(move |store| store.drop_chunks(&chunks)).await
    }
}

#[async_trait]
impl Publisher for Node {
    async fn fetch(&self, request: FetchRequest) -> Result<FragmentStream> {
        self.store.check_epoch(request.snapshot.epoch())?;
        let identity = self.stored(|store| Ok(store.status().identity)).await?;
        if identity.as_ref() != Some(&request.from) {
            let NodeIdentity { cluster, name } = &request.from;
            let text = format!("this is not data node \"{name}\" of cluster {cluster}");
            return Err(Error::new(SqlState::DATA_NODE_ASSIGNMENT, text));
        }
        self.queries.fetch(request).await
    }
}
