//! The coordinator's core: catalog, log, sequence and nodes, opened together and closed together.

use super::link::Timeouts;
use super::log::{DecisionLog, RaftLog};
use super::nodes::{Connector, Nodes};
use super::record::{Machine, Record};
use super::sequence::Sequence;
use super::transaction::Transaction;
use crate::catalog::{Catalog, CatalogState};
use crate::ingest::NewChunks;
use crate::raft::DriverOptions;
use parking_lot::{Mutex, RwLock};
use proto::{Clock, ClusterId, CommitSeq, NodeName, Result, Rng, TxnId};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use storage::Vfs;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How often nodes are asked how they are, and lost ones called again.
    pub check_interval: Duration,
    pub timeouts: Timeouts,
    /// How long a session waits to learn how a one-round commit ended whose answer was lost.
    pub resolve_timeout: Duration,
    /// Bytes of log after which it is replaced by the state it adds up to.
    pub log_bytes_max: u64,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            check_interval: Duration::from_secs(1),
            timeouts: Timeouts::default(),
            resolve_timeout: Duration::from_secs(5),
            log_bytes_max: 16 << 20,
        }
    }
}

pub struct Cluster {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: ClusterOptions,
    pub(super) id: ClusterId,
    pub(super) epoch: u64,
    pub(super) log: Arc<dyn DecisionLog>,
    /// What all appended records add up to, durable or not. Holding it is the commit lock: validate, take a sequence,
    /// append, in one order for all.
    pub(super) tip: Mutex<Machine>,
    /// `tip`'s catalog, for those who must not take the commit lock.
    pub(super) newest: RwLock<Arc<CatalogState>>,
    /// What is durable, hence shown.
    pub(super) catalog: Catalog,
    pub(super) sequence: Sequence,
    pub(super) running: Mutex<Running>,
    pub(super) owed: Mutex<Owed>,
    pub(super) nodes: Nodes,
    pub(super) new_chunks: NewChunks,
    next_oid: AtomicU32,
    next_hypertable: AtomicU32,
    next_job: AtomicU32,
    /// Names in the middle of `add_node`.
    pub(super) joining: Mutex<BTreeSet<NodeName>>,
    tasks: Mutex<JoinSet<()>>,
    stop: CancellationToken,
    /// The log cannot go on: nothing is committed any more, and a commit whose record failed stays open.
    pub(super) failed: CancellationToken,
}

/// Transactions of this epoch that have not ended.
#[derive(Default, Clone)]
pub(super) struct Running {
    pub(super) next: u64,
    pub(super) open: BTreeSet<u64>,
}

/// What nodes must still be told, as far as it is not only in the log.
#[derive(Default)]
pub(super) struct Owed {
    /// Durable decisions, each with the participants that have not acknowledged it.
    pub(super) commits: BTreeMap<TxnId, (CommitSeq, BTreeSet<NodeName>)>,
    /// Transactions to forget that a node could not be told of.
    pub(super) aborts: BTreeMap<NodeName, BTreeSet<TxnId>>,
    /// One-round commits without an answer yet; `false` when nobody waits for it any more.
    pub(super) one_phase: BTreeMap<TxnId, (NodeName, bool)>,
}

impl Cluster {
    /// Opens the directory (or makes a new cluster in it), brings up the nodes that answer, and starts watching them.
    ///
    /// # Errors
    /// Those of `RaftLog::open`. A node that does not answer is none: it stays down and is called again.
    pub async fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        dir: &Path,
        connector: Arc<dyn Connector>,
        options: ClusterOptions,
    ) -> Result<Arc<Cluster>> {
        let log_bytes_max = options.log_bytes_max;
        let log_options = DriverOptions { log_bytes_max, segment_bytes_max: log_bytes_max.max(1 << 16) / 4 };
        let (log, mut machine) = RaftLog::open(vfs, rng.as_ref(), dir, log_options)?;
        let log: Arc<dyn DecisionLog> = Arc::new(log);
        let record = Record::Epoch { epoch: machine.epoch + 1 };
        log.sync(log.append(&record)?).await?;
        machine.apply(&record)?;
        let cluster = Arc::new(Cluster::new(clock, options, log, machine, connector));
        cluster.check_nodes().await;
        cluster.watch();
        Ok(cluster)
    }

    fn new(
        clock: Arc<dyn Clock>,
        options: ClusterOptions,
        log: Arc<dyn DecisionLog>,
        machine: Machine,
        connector: Arc<dyn Connector>,
    ) -> Cluster {
        let catalog = Arc::clone(&machine.catalog);
        let unacknowledged = |(txn, decision): (&TxnId, &super::record::Decision)| {
            (*txn, (decision.seq, decision.participants.iter().cloned().collect()))
        };
        let commits = machine.undone.iter().map(unacknowledged).collect();
        let nodes = Nodes::new(connector, options.timeouts.clone());
        nodes.follow(&catalog);
        Cluster {
            clock,
            id: catalog.cluster(),
            epoch: machine.epoch,
            log,
            newest: RwLock::new(Arc::clone(&catalog)),
            sequence: Sequence::new(machine.epoch),
            running: Mutex::default(),
            owed: Mutex::new(Owed { commits, ..Owed::default() }),
            nodes,
            new_chunks: NewChunks::new(catalog.next_chunk()),
            next_oid: AtomicU32::new(catalog.next_oid()),
            next_hypertable: AtomicU32::new(catalog.next_hypertable()),
            next_job: AtomicU32::new(catalog.next_job()),
            joining: Mutex::default(),
            tasks: Mutex::default(),
            stop: CancellationToken::new(),
            failed: CancellationToken::new(),
            catalog: Catalog::new(catalog),
            tip: Mutex::new(machine),
            options,
        }
    }

    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// The newest durable catalog. A reader who needs rows takes `begin` instead: it reads the snapshot first, so that
    /// the catalog has every chunk the snapshot shows.
    pub fn catalog(&self) -> Arc<CatalogState> {
        self.catalog.current()
    }

    /// Everything committed at or below it can be read on every node that is up.
    pub fn snapshot(&self) -> CommitSeq {
        self.sequence.snapshot()
    }

    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub fn node_up(&self, name: &NodeName) -> bool {
        self.nodes.is_up(name)
    }

    pub fn begin(self: &Arc<Self>) -> Transaction {
        Transaction::begin(Arc::clone(self))
    }

    /// Never given before, in this cluster.
    pub fn new_oid(&self) -> u32 {
        self.next_oid.fetch_add(1, Ordering::Relaxed)
    }

    pub fn new_hypertable_id(&self) -> u32 {
        self.next_hypertable.fetch_add(1, Ordering::Relaxed)
    }

    pub fn new_job_id(&self) -> u32 {
        self.next_job.fetch_add(1, Ordering::Relaxed)
    }

    /// Stops watching nodes and waits for commits and aborts under way. What is not finished is in the log.
    pub async fn close(&self) {
        self.stop.cancel();
        loop {
            let tasks = std::mem::take(&mut *self.tasks.lock());
            if tasks.is_empty() {
                return;
            }
            tasks.join_all().await;
        }
    }

    /// Runs `work` to its end even when the caller goes away; `close` waits for it.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Waits until snapshots show the commit; not behind one that failed, which hides all that follow.
    pub(super) async fn wait_visible(&self, seq: CommitSeq) {
        tokio::select! {
            () = self.sequence.passed(seq) => {}
            () = self.failed.cancelled() => {}
        }
    }

    fn watch(self: &Arc<Self>) {
        let (cluster, stop) = (Arc::downgrade(self), self.stop.clone());
        let interval = self.options.check_interval;
        self.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(interval) => {}
                }
                // A cluster that was dropped without `close` ends its watch too.
                let Some(cluster) = cluster.upgrade() else { return };
                cluster.tick().await;
            }
        });
    }

    /// One round of housekeeping. The watch calls it; tests may.
    pub async fn tick(self: &Arc<Self>) {
        self.nodes.follow(&self.catalog());
        self.check_nodes().await;
        self.finish_commits();
        self.drop_garbage().await;
        self.log.flush();
    }
}
