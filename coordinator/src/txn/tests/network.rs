//! Nodes in memory, reached by their addresses, that fail on demand.

use crate::txn::Connector;
use async_trait::async_trait;
use parking_lot::Mutex;
use proto::ipc::decode_body;
use proto::{
    ChunkId, ChunkLayout, ChunkStats, ChunkWrite, ClusterId, CommitMode, CommitSeq, DataNode, Error, FragmentRequest,
    FragmentStream, NodeIdentity, NodeName, NodeStatus, PROTOCOL, Reaction, Result, SqlState, SubTxn, TxnId,
    TxnOutcome,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::Semaphore;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Death {
    /// The request arrives at nobody.
    Before,
    /// The request has its effect, the answer is lost.
    After,
}

/// All nodes by address, and the next death.
#[derive(Default)]
pub(super) struct Network {
    nodes: Mutex<BTreeMap<String, Arc<FakeNode>>>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    /// Calls that change a transaction, over all nodes.
    calls: u64,
    death: Option<(u64, Death)>,
}

impl Connector for Network {
    fn connect(&self, _: &NodeName, address: &str) -> Result<Arc<dyn DataNode>> {
        let node = self.nodes.lock().get(address).cloned();
        node.map(|node| node as Arc<dyn DataNode>).ok_or_else(|| lost(Reaction::Retry))
    }
}

impl Network {
    pub(super) fn add(&self, address: &str, incarnation: u64) -> Arc<FakeNode> {
        let disk = Disk { incarnation, ..Disk::default() };
        let state = State { disk, ..State::default() };
        let node =
            Arc::new(FakeNode { state: Mutex::new(state), gate: Mutex::default(), faults: Arc::clone(&self.faults) });
        self.nodes.lock().insert(address.to_owned(), Arc::clone(&node));
        node
    }

    /// The node that gets call number `at` from now dies of it.
    pub(super) fn kill_at(&self, at: u64, death: Death) {
        *self.faults.lock() = Faults { calls: 0, death: Some((at, death)) };
    }

    pub(super) fn calls(&self) -> u64 {
        self.faults.lock().calls
    }

    pub(super) fn restart_all(&self) {
        self.faults.lock().death = None;
        self.nodes.lock().values().for_each(|node| node.restart());
    }
}

fn lost(reaction: Reaction) -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, "connection refused").reaction(reaction)
}

#[derive(Default)]
struct Disk {
    incarnation: u64,
    identity: Option<NodeIdentity>,
    epoch_max: u64,
    prepared: BTreeMap<TxnId, Rows>,
    committed: BTreeMap<TxnId, (CommitSeq, Rows)>,
    dropped: BTreeSet<ChunkId>,
}

type Rows = Vec<(ChunkId, usize)>;

#[derive(Default)]
struct Staged {
    rows: Vec<(SubTxn, ChunkId, usize)>,
    /// The first sub-transaction some rows of which were refused.
    broken: Option<SubTxn>,
}

impl Staged {
    /// What can be voted for.
    fn whole(self) -> Result<Rows> {
        match self.broken {
            None => Ok(self.rows.into_iter().map(|(_, chunk, rows)| (chunk, rows)).collect()),
            Some(_) => Err(Error::new(SqlState::SERIALIZATION_FAILURE, "lacks rows")),
        }
    }
}

#[derive(Default)]
struct State {
    disk: Disk,
    staged: BTreeMap<TxnId, Staged>,
    dead: bool,
    silent: bool,
    votes_no: bool,
    refuses_rows: Option<Error>,
    blocks_count: usize,
}

pub(crate) struct FakeNode {
    state: Mutex<State>,
    /// Where there is one, rows wait for a permit each time.
    gate: Mutex<Option<Arc<Semaphore>>>,
    faults: Arc<Mutex<Faults>>,
}

impl FakeNode {
    pub(crate) fn restart(&self) {
        let mut state = self.state.lock();
        state.dead = false;
        state.staged.clear();
    }

    pub(crate) fn kill(&self) {
        self.state.lock().dead = true;
    }

    /// It takes calls for its status, and does not answer them.
    pub(super) fn set_silent(&self, silent: bool) {
        self.state.lock().silent = silent;
    }

    pub(super) fn epoch_max(&self) -> u64 {
        self.state.lock().disk.epoch_max
    }

    pub(super) fn forget_epoch(&self) {
        self.state.lock().disk.epoch_max = 0;
    }

    pub(super) fn vote_no(&self) {
        self.state.lock().votes_no = true;
    }

    /// Rows are answered with this from now on.
    pub(crate) fn refuse_rows(&self, error: Error) {
        self.state.lock().refuses_rows = Some(error);
    }

    pub(crate) fn take_rows_again(&self) {
        self.state.lock().refuses_rows = None;
    }

    /// From now on rows are taken when the gate has a permit.
    pub(crate) fn wait_at(&self, gate: &Arc<Semaphore>) {
        *self.gate.lock() = Some(Arc::clone(gate));
    }

    /// How often rows came.
    pub(crate) fn blocks_count(&self) -> usize {
        self.state.lock().blocks_count
    }

    pub(super) fn set_incarnation(&self, incarnation: u64) {
        self.state.lock().disk.incarnation = incarnation;
    }

    pub(super) fn committed(&self, txn: TxnId) -> Option<CommitSeq> {
        self.state.lock().disk.committed.get(&txn).map(|(seq, _)| *seq)
    }

    pub(crate) fn rows(&self) -> usize {
        self.state.lock().disk.committed.values().flat_map(|(_, rows)| rows).map(|(_, rows)| rows).sum()
    }

    pub(super) fn in_doubt(&self) -> usize {
        self.state.lock().disk.prepared.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.staged.is_empty() && state.disk.prepared.is_empty()
    }

    pub(super) fn dropped(&self) -> BTreeSet<ChunkId> {
        self.state.lock().disk.dropped.clone()
    }

    fn call<T>(&self, on_loss: Reaction, effect: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        if state.dead {
            return Err(lost(on_loss));
        }
        let death = {
            let mut faults = self.faults.lock();
            let number = faults.calls;
            faults.calls += 1;
            faults.death.filter(|(at, _)| *at == number).map(|(_, death)| death)
        };
        state.dead = death.is_some();
        match death {
            None => effect(&mut state),
            Some(Death::Before) => Err(lost(on_loss)),
            Some(Death::After) => {
                let _ = effect(&mut state);
                Err(lost(on_loss))
            }
        }
    }
}

#[async_trait]
impl DataNode for FakeNode {
    async fn hello(&self) -> Result<NodeStatus> {
        let silent = self.state.lock().silent;
        if silent {
            std::future::pending::<()>().await;
        }
        let state = self.state.lock();
        if state.dead {
            return Err(lost(Reaction::Retry));
        }
        let seqs = state.disk.committed.values().map(|(seq, _)| *seq);
        Ok(NodeStatus {
            protocol: PROTOCOL,
            build: "test".to_owned(),
            identity: state.disk.identity.clone(),
            incarnation: state.disk.incarnation,
            in_doubt: state.disk.prepared.keys().copied().collect(),
            commit_seq_max: seqs.max().unwrap_or(CommitSeq::ZERO),
            epoch_max: state.disk.epoch_max,
        })
    }

    async fn attach(&self, identity: NodeIdentity) -> Result<()> {
        let mut state = self.state.lock();
        assert!(state.disk.identity.is_none() || state.disk.identity == Some(identity.clone()));
        state.disk.identity = Some(identity);
        Ok(())
    }

    async fn obey(&self, cluster: ClusterId, epoch: u64) -> Result<()> {
        self.call(Reaction::Retry, |state| {
            assert_eq!(state.disk.identity.as_ref().map(|identity| identity.cluster), Some(cluster));
            assert!(epoch >= state.disk.epoch_max, "an older coordinator than one that was here");
            state.disk.epoch_max = epoch;
            state.staged.retain(|txn, _| txn.epoch >= epoch);
            Ok(())
        })
    }

    async fn stage(&self, txn: TxnId, sub: SubTxn, continues: bool, writes: Vec<ChunkWrite>) -> Result<()> {
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        self.call(Reaction::Abort, |state| {
            if continues && !state.staged.contains_key(&txn) {
                return Err(Error::new(SqlState::SERIALIZATION_FAILURE, "unknown transaction"));
            }
            state.blocks_count += 1;
            state.disk.epoch_max = state.disk.epoch_max.max(txn.epoch);
            let staged = state.staged.entry(txn).or_default();
            if let Some(error) = &state.refuses_rows {
                staged.broken.get_or_insert(sub);
                return Err(error.clone());
            }
            assert!(staged.broken.is_none(), "rows are sent to a transaction that lacks some");
            assert!(staged.rows.last().is_none_or(|(before, ..)| *before <= sub), "numbers only grow");
            for write in writes {
                staged.rows.push((sub, write.chunk, decode_body(write.body)?.num_rows()));
            }
            Ok(())
        })
    }

    async fn discard(&self, txn: TxnId, subs: Range<SubTxn>) -> Result<()> {
        self.call(Reaction::Abort, |state| {
            let staged = state.staged.get_mut(&txn);
            let staged = staged.ok_or_else(|| Error::new(SqlState::SERIALIZATION_FAILURE, "unknown transaction"))?;
            staged.rows.retain(|(sub, ..)| !subs.contains(sub));
            staged.broken = staged.broken.filter(|sub| !subs.contains(sub));
            Ok(())
        })
    }

    async fn prepare(&self, txn: TxnId) -> Result<()> {
        self.call(Reaction::Abort, |state| {
            if state.votes_no {
                return Err(Error::new(SqlState::DISK_FULL, "no space left on device").reaction(Reaction::Abort));
            }
            let staged = state.staged.remove(&txn);
            let staged = staged.ok_or_else(|| Error::new(SqlState::SERIALIZATION_FAILURE, "unknown transaction"))?;
            state.disk.prepared.insert(txn, staged.whole()?);
            Ok(())
        })
    }

    async fn commit(&self, txn: TxnId, seq: CommitSeq, mode: CommitMode) -> Result<()> {
        self.call(Reaction::Resolve, |state| {
            if let Some((earlier, _)) = state.disk.committed.get(&txn) {
                assert_eq!(*earlier, seq, "a transaction has one sequence");
                return Ok(());
            }
            let rows = match mode {
                CommitMode::OnePhase | CommitMode::Asynchronous => {
                    state.staged.remove(&txn).map(Staged::whole).transpose()?
                }
                CommitMode::Prepared => state.disk.prepared.remove(&txn),
            };
            let rows = rows.ok_or_else(|| Error::new(SqlState::SERIALIZATION_FAILURE, "unknown transaction"))?;
            state.disk.committed.insert(txn, (seq, rows));
            Ok(())
        })
    }

    async fn abort(&self, txn: TxnId) -> Result<()> {
        self.call(Reaction::Retry, |state| {
            assert!(!state.disk.committed.contains_key(&txn), "a committed transaction was aborted");
            state.staged.remove(&txn);
            state.disk.prepared.remove(&txn);
            Ok(())
        })
    }

    async fn outcome(&self, txn: TxnId) -> Result<TxnOutcome> {
        self.call(Reaction::Retry, |state| {
            Ok(match state.disk.committed.get(&txn) {
                Some((seq, _)) => TxnOutcome::Committed(*seq),
                None if state.disk.prepared.contains_key(&txn) => TxnOutcome::Prepared,
                None if state.staged.contains_key(&txn) => TxnOutcome::Staged,
                None => TxnOutcome::Unknown,
            })
        })
    }

    async fn execute(&self, _: FragmentRequest) -> Result<FragmentStream> {
        Err(Error::unsupported("a query on a fake node"))
    }

    async fn chunk_stats(&self, _: Vec<ChunkId>) -> Result<Vec<ChunkStats>> {
        Ok(Vec::new())
    }

    async fn seal_chunks(&self, _: Vec<ChunkId>, _: ChunkLayout) -> Result<()> {
        Ok(())
    }

    async fn drop_chunks(&self, chunks: Vec<ChunkId>) -> Result<()> {
        self.state.lock().disk.dropped.extend(chunks);
        Ok(())
    }
}
