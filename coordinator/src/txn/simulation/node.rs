//! A data node: the real store on a disk that fails, behind messages that may come late, twice or never. Which verb is
//! which call of the store is `node::Node`'s; the coordinator must not see that crate, so that it is said here again.

use super::ledger::{CLUSTER, Row, rows_of};
use crate::txn::planted::{InSimulation, Plan, Planted};
use proto::{
    ChunkId, ChunkWrite, Clock, CommitMode, CommitSeq, NodeIdentity, NodeName, NodeStatus, Result, Rng, SubTxn, TxnId,
    TxnOutcome,
};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage::{SimVfs, StorageError, Store, StoreOptions};

const DIR: &str = "/node";

#[derive(Debug, Clone)]
pub(super) enum Request {
    Hello,
    Obey { epoch: u64 },
    Stage { txn: TxnId, continues: bool, writes: Vec<ChunkWrite> },
    Prepare(TxnId),
    Commit(TxnId, CommitSeq, CommitMode),
    Abort(TxnId),
    Outcome(TxnId),
    Scan { snapshot: CommitSeq, chunks: Vec<ChunkId> },
}

#[derive(Debug, Clone)]
pub(super) enum Reply {
    Done,
    Status(NodeStatus),
    Outcome(TxnOutcome),
    Rows(Vec<Row>),
}

/// A request on its way, and whom to answer.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) from: usize,
    pub(super) call: u64,
    pub(super) request: Request,
    /// The process it must reach, if it matters: a connection that delivers twice delivers to one process.
    pub(super) start: Option<u64>,
}

pub(super) struct DataNode {
    pub(super) name: NodeName,
    pub(super) incarnation: u64,
    pub(super) vfs: SimVfs,
    pub(super) store: Option<Store>,
    pub(super) starts_count: u64,
    pub(super) paused: bool,
    /// What came while it was paused.
    pub(super) waiting: VecDeque<Letter>,
    pub(super) clock: Arc<NodeClock>,
    plan: Plan,
}

/// Milliseconds, and what a wrong clock adds.
#[derive(Default)]
pub(super) struct NodeClock {
    pub(super) now_ms: AtomicU64,
    pub(super) wrong_ms: AtomicU64,
}

impl Clock for NodeClock {
    fn now_us(&self) -> i64 {
        0
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::Relaxed) + self.wrong_ms.load(Ordering::Relaxed))
    }
}

/// All the chance a store needs is its incarnation.
struct Fixed(u64);

impl Rng for Fixed {
    fn next_u64(&self) -> u64 {
        self.0
    }
}

impl DataNode {
    /// Bound to the cluster, and stopped.
    pub(super) fn new(number: usize, seed: u64, plan: Plan) -> DataNode {
        let mut node = DataNode {
            name: format!("dn{}", number + 1).as_str().into(),
            incarnation: number as u64 + 11,
            vfs: SimVfs::new(seed),
            store: None,
            starts_count: 0,
            paused: false,
            waiting: VecDeque::new(),
            clock: Arc::default(),
            plan,
        };
        node.start().expect("the disk is new");
        let identity = NodeIdentity { cluster: CLUSTER, name: node.name.clone() };
        node.store.as_ref().expect("just started").attach(identity).expect("it is not bound yet");
        node
    }

    /// # Errors
    /// Those of a disk that fails in the middle of it.
    pub(super) fn start(&mut self) -> Result<(), StorageError> {
        self.starts_count += 1;
        let options = StoreOptions {
            background: false,
            log_segment_bytes_max: 16 << 10,
            stage_wait_max: Duration::ZERO,
            lock_wait_max: Duration::ZERO,
            ..StoreOptions::default()
        };
        let rng = Arc::new(Fixed(self.incarnation));
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let store = Store::open(Arc::new(self.vfs.clone()), clock, rng, Path::new(DIR), options)?;
        if self.plan.has(Planted::InSimulation(InSimulation::ForgetPrepared)) {
            store.status().in_doubt.into_iter().try_for_each(|txn| store.abort(txn))?;
        }
        self.store = Some(store);
        Ok(())
    }

    /// The process is gone.
    pub(super) fn stop(&mut self, power: bool) {
        match power {
            true => self.vfs.restart(),
            false => self.vfs.kill_process(),
        }
        // Its handles are dead by now: closing it changes nothing on the disk.
        self.store = None;
        self.paused = false;
        self.waiting.clear();
    }

    pub(super) fn serve(&mut self, request: Request) -> Result<Reply> {
        let store = self.store.as_ref().expect("it runs");
        let fences = !self.plan.has(Planted::InSimulation(InSimulation::SkipFence));
        match request {
            Request::Hello => {
                let status = NodeStatus { build: "simulated".to_owned(), ..store.status() };
                return Ok(Reply::Status(status));
            }
            Request::Obey { epoch } if fences => store.obey(CLUSTER, epoch)?,
            Request::Obey { .. } => {}
            Request::Stage { txn, continues, writes } => {
                if continues != (store.outcome(txn)? != TxnOutcome::Unknown) {
                    let reason = "its first rows are not here, or came twice".to_owned();
                    return Err(StorageError::Txn { txn, reason }.into());
                }
                store.stage(txn, SubTxn::FIRST, writes)?;
            }
            Request::Prepare(txn) => store.prepare(txn)?,
            Request::Commit(txn, seq, mode) => store.commit(txn, seq, mode)?,
            Request::Abort(txn) => store.abort(txn)?,
            Request::Outcome(txn) => return Ok(Reply::Outcome(store.outcome(txn)?)),
            Request::Scan { snapshot, chunks } => {
                if fences {
                    store.check_epoch(snapshot.epoch())?;
                }
                return Ok(Reply::Rows(rows_of(store, snapshot, &chunks)?));
            }
        }
        Ok(Reply::Done)
    }

    /// Whether the process can go on.
    pub(super) fn is_well(&self) -> bool {
        !self.vfs.crashed() && self.store.as_ref().is_none_or(|store| store.poisoned().is_none())
    }
}
