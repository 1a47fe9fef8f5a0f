//! What nodes must still be told, and which transactions run: the memory a reign has beside the log. Plain maps, no I/O;
//! `cluster` has them behind locks.

use super::listing::Phase;
use proto::{ClusterId, CommitSeq, NodeName, TxnId};
use std::collections::{BTreeMap, BTreeSet};

/// Aborts a node could not be told of; beyond it the node keeps staged rows until the coordinator's next start.
const ABORTS_OWED_MAX: usize = 10_000;

/// Transactions of this epoch that have not ended.
#[derive(Debug, Default, Clone)]
pub(super) struct Running {
    pub(super) next: u64,
    pub(super) open: BTreeSet<u64>,
}

/// What nodes must still be told, as far as it is not only in the log.
#[derive(Default)]
pub(super) struct Owed {
    /// Durable decisions, each with the participants that have not acknowledged it.
    commits: BTreeMap<TxnId, (CommitSeq, BTreeSet<NodeName>)>,
    /// Transactions to forget that a node could not be told of.
    aborts: BTreeMap<NodeName, BTreeSet<TxnId>>,
    /// One-round commits without an answer yet; `false` when nobody waits for it any more.
    one_phase: BTreeMap<TxnId, (NodeName, bool)>,
}

impl Running {
    /// Of an earlier epoch, or ended before `self` was copied. One that ran then is left to its own session.
    pub(super) fn is_over(&self, cluster: ClusterId, epoch: u64, txn: &TxnId) -> bool {
        txn.cluster == cluster
            && txn.epoch <= epoch
            && (txn.epoch < epoch || (txn.number <= self.next && !self.open.contains(&txn.number)))
    }
}

impl Owed {
    pub(super) fn owe_commit(&mut self, txn: TxnId, seq: CommitSeq, participants: impl IntoIterator<Item = NodeName>) {
        self.commits.insert(txn, (seq, participants.into_iter().collect()));
    }

    pub(super) fn acknowledged(&mut self, txn: &TxnId, node: &NodeName) {
        if let Some((_, waiting)) = self.commits.get_mut(txn) {
            waiting.remove(node);
        }
    }

    pub(super) fn is_decided(&self, txn: &TxnId) -> bool {
        self.commits.contains_key(txn)
    }

    /// Decisions the node has not acknowledged.
    pub(super) fn commits_of(&self, node: &NodeName) -> Vec<(TxnId, CommitSeq)> {
        let waiting = self.commits.iter().filter(|(_, (_, waiting))| waiting.contains(node));
        waiting.map(|(txn, (seq, _))| (*txn, *seq)).collect()
    }

    pub(super) fn told_everybody(&self) -> Vec<TxnId> {
        let told = self.commits.iter().filter(|(_, (_, waiting))| waiting.is_empty());
        told.map(|(txn, _)| *txn).collect()
    }

    /// Nobody needs to remember the decision any more.
    pub(super) fn finished(&mut self, txn: &TxnId) {
        self.commits.remove(txn);
    }

    pub(super) fn owe_abort(&mut self, node: NodeName, txn: TxnId) {
        let aborts = self.aborts.entry(node).or_default();
        if aborts.len() < ABORTS_OWED_MAX {
            aborts.insert(txn);
        }
    }

    pub(super) fn aborts_of(&self, node: &NodeName) -> Vec<TxnId> {
        self.aborts.get(node).into_iter().flatten().copied().collect()
    }

    pub(super) fn aborted(&mut self, node: &NodeName, txn: &TxnId) {
        let Some(left) = self.aborts.get_mut(node) else { return };
        left.remove(txn);
        if left.is_empty() {
            self.aborts.remove(node);
        }
    }

    pub(super) fn owe_outcome(&mut self, txn: TxnId, node: NodeName) {
        self.one_phase.insert(txn, (node, true));
    }

    /// Who waited for it knows it.
    pub(super) fn outcome_known(&mut self, txn: &TxnId) {
        self.one_phase.remove(txn);
    }

    /// Who waited for it has left.
    pub(super) fn outcome_left(&mut self, txn: &TxnId) {
        if let Some((_, waiting)) = self.one_phase.get_mut(txn) {
            *waiting = false;
        }
    }

    /// One-round commits of which the node must be asked how they ended.
    pub(super) fn outcomes_of(&self, node: &NodeName) -> Vec<TxnId> {
        self.one_phase.iter().filter(|(_, (name, _))| name == node).map(|(txn, _)| *txn).collect()
    }

    /// Who must still be told or asked about what.
    pub(super) fn everything(&self) -> Vec<(TxnId, Phase, NodeName)> {
        let commits = self
            .commits
            .iter()
            .flat_map(|(txn, (_, nodes))| nodes.iter().map(|node| (*txn, Phase::Committing, node.clone())));
        let aborts =
            self.aborts.iter().flat_map(|(node, txns)| txns.iter().map(|txn| (*txn, Phase::Aborting, node.clone())));
        let outcomes = self.one_phase.iter().map(|(txn, (node, _))| (*txn, Phase::Unknown, node.clone()));
        commits.chain(aborts).chain(outcomes).collect()
    }

    /// The node was asked. Who still waits for it asks for itself.
    pub(super) fn outcome_asked(&mut self, txn: &TxnId) {
        if self.one_phase.get(txn).is_some_and(|(_, waiting)| !waiting) {
            self.one_phase.remove(txn);
        }
    }
}
