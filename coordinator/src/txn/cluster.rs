//! The coordinator's core: catalog, log, sequence and nodes, opened together and closed together.

use super::coordinator::{Coordinator, Met, Seat};
use super::link::Timeouts;
use super::listing::Progress;
use super::log::DecisionLog;
use super::nodes::{Connector, Nodes};
use super::owed::{Owed, Running};
use super::record::{Machine, Record};
use super::sequence::Sequence;
use super::transaction::Transaction;
use crate::catalog::{Catalog, CatalogState};
use crate::ingest::NewChunks;
use parking_lot::{Mutex, RwLock};
use proto::{Clock, ClusterId, CommitSeq, Error, NodeName, Result, Rng};
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use storage::Vfs;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a new reign waits for its nodes before it serves clients.
const NODES_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How often nodes are asked how they are, and lost ones called again.
    pub check_interval: Duration,
    pub timeouts: Timeouts,
    /// How long a session waits to learn how a one-round commit ended whose answer was lost.
    pub resolve_timeout: Duration,
    /// Bytes of log after which it is replaced by the state it adds up to.
    pub log_bytes_max: u64,
    /// The clock of the coordinators' group: a leader speaks every second tick, and who hears nothing for ten to twenty of
    /// them asks for an election.
    pub raft_tick: Duration,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            check_interval: Duration::from_secs(1),
            timeouts: Timeouts::default(),
            resolve_timeout: Duration::from_secs(5),
            log_bytes_max: 16 << 20,
            raft_tick: Duration::from_millis(100),
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
    pub(super) progress: Mutex<Progress>,
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
    met: OnceLock<Met>,
    /// The log cannot go on, by `end`: nothing is committed any more, and a commit whose record failed stays open.
    pub(super) ended: CancellationToken,
    end: OnceLock<Error>,
}

impl Cluster {
    /// Opens the directory of a coordinator that is alone, or makes a new cluster in it.
    ///
    /// # Errors
    /// Those of `Coordinator::open`.
    pub async fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        dir: &Path,
        connector: Arc<dyn Connector>,
        options: ClusterOptions,
    ) -> Result<Arc<Cluster>> {
        Coordinator::open(vfs, clock, rng, dir, Seat::alone(), connector, options)?.lead().await
    }

    /// Begins where the log ends, as the only one who writes it: brings up the nodes that answer soon, and goes on watching
    /// them all. `identity` is for a cluster that has none yet.
    ///
    /// # Errors
    /// The log's. A node that does not answer is none: it stays down and is called again.
    pub(super) async fn begin_reign(
        clock: Arc<dyn Clock>,
        options: ClusterOptions,
        log: Arc<dyn DecisionLog>,
        mut machine: Machine,
        epoch: u64,
        identity: ClusterId,
        connector: Arc<dyn Connector>,
    ) -> Result<Arc<Cluster>> {
        if machine.catalog.cluster() == ClusterId::NONE {
            let record = Record::Found { cluster: identity };
            log.sync(log.append(&record)?).await?;
            machine.apply(&record)?;
        }
        let cluster = Arc::new(Cluster::new(clock, options, log, machine, epoch, connector));
        let checked = cluster.watch();
        // Who takes longer comes up while clients are served.
        let _ = tokio::time::timeout(NODES_TIMEOUT, checked).await;
        Ok(cluster)
    }

    fn new(
        clock: Arc<dyn Clock>,
        options: ClusterOptions,
        log: Arc<dyn DecisionLog>,
        machine: Machine,
        epoch: u64,
        connector: Arc<dyn Connector>,
    ) -> Cluster {
        let catalog = Arc::clone(&machine.catalog);
        let mut owed = Owed::default();
        for (txn, decision) in &machine.undone {
            owed.owe_commit(*txn, decision.seq, decision.participants.iter().cloned());
        }
        let nodes = Nodes::new(connector, options.timeouts.clone());
        nodes.follow(&catalog);
        Cluster {
            clock,
            id: catalog.cluster(),
            epoch,
            log,
            newest: RwLock::new(Arc::clone(&catalog)),
            sequence: Sequence::new(epoch),
            running: Mutex::default(),
            progress: Mutex::default(),
            owed: Mutex::new(owed),
            nodes,
            new_chunks: NewChunks::new(catalog.next_chunk()),
            next_oid: AtomicU32::new(catalog.next_oid()),
            next_hypertable: AtomicU32::new(catalog.next_hypertable()),
            next_job: AtomicU32::new(catalog.next_job()),
            joining: Mutex::default(),
            tasks: Mutex::default(),
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            end: OnceLock::new(),
            met: OnceLock::new(),
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
        tokio::select! {
            () = self.all_tasks() => return,
            reason = self.log.ended() => self.end(reason),
        }
        self.all_tasks().await;
    }

    async fn all_tasks(&self) {
        while let Some(ended) = poll_fn(|context| self.tasks.lock().poll_join_next(context)).await {
            if let Err(error) = ended {
                tracing::error!(%error, "work of the cluster ended badly");
            }
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
            () = self.ended.cancelled() => {}
        }
    }

    /// Nothing can be committed any more, for this reason.
    pub(super) fn end(&self, reason: Error) {
        if self.end.set(reason.clone()).is_ok() {
            tracing::warn!(%reason, epoch = self.epoch, "the cluster is closed here");
        }
        self.ended.cancel();
    }

    /// # Errors
    /// Why nothing can be committed any more.
    pub(super) fn check(&self) -> Result<()> {
        self.end.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Waits until what is shown here is certain to have all that was committed anywhere: not at all, as a rule.
    ///
    /// # Errors
    /// Why nothing can be committed any more.
    pub async fn assured(&self) -> Result<()> {
        self.check()?;
        self.log.assured().await
    }

    /// Waits until nothing can be committed here any more: another coordinator leads, or the log has failed.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Fires when `ended` returns.
    pub fn ended_token(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// From now on members of the coordinators' group are noted in the log when they are met for the first time.
    pub(super) fn follow_members(&self, met: Met) {
        let _ = self.met.set(met);
    }

    fn note_members(&self) {
        let Some(met) = self.met.get() else { return };
        let met = met.lock().clone();
        let mut tip = self.tip.lock();
        for (member, incarnation) in met {
            let record = Record::Member { member, incarnation };
            if !tip.members.contains_key(&member) && self.log.append(&record).is_ok() {
                tip.apply(&record).expect("a member is never refused");
            }
        }
    }

    /// The answer comes when every node was called once.
    fn watch(self: &Arc<Self>) -> oneshot::Receiver<()> {
        let (cluster, stop, log) = (Arc::downgrade(self), self.stop.clone(), Arc::clone(&self.log));
        self.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                reason = log.ended() => {
                    if let Some(cluster) = cluster.upgrade() {
                        cluster.end(reason);
                    }
                }
            }
        });
        let (cluster, stop) = (Arc::downgrade(self), self.stop.clone());
        let interval = self.options.check_interval;
        let (checked, answer) = oneshot::channel();
        let first = Arc::clone(self);
        self.spawn(async move {
            let watching = async {
                first.check_nodes().await;
                drop(first);
                // Nobody waits for it any more if it took long.
                let _ = checked.send(());
                loop {
                    tokio::time::sleep(interval).await;
                    // A cluster that was dropped without `close` ends its watch too.
                    let Some(cluster) = cluster.upgrade() else { return };
                    cluster.tick().await;
                }
            };
            // A node that was being brought up is brought up again by whoever comes next.
            tokio::select! {
                () = stop.cancelled() => {}
                () = watching => {}
            }
        });
        answer
    }

    /// One round of housekeeping. The watch calls it; tests may.
    pub async fn tick(self: &Arc<Self>) {
        if self.ended.is_cancelled() {
            return;
        }
        self.note_members();
        self.nodes.follow(&self.catalog());
        self.check_nodes().await;
        self.finish_commits();
        self.drop_garbage().await;
        self.log.flush();
    }
}
