//! What a node must be told before it answers readers, decided without I/O: from the status it gave, from what is owed to
//! it and from what runs. One call at a time; `golden/` shows them.
//!
//! ```text
//! Abort what was never decided → Ask after one-round commits (open: Abort, Ask) → Commit what was decided (refused: Ask)
//!   → Up → Abort what it could not be told of
//! ```
//! The last holds rows that nobody reads, and may be thousands after a long absence: the node need not wait for it.
//!
//! Invariants
//! - `Up` is said in the same look at `Owed` that found nothing left to tell.
//! - Only what cannot be decided any more is aborted: of an earlier epoch, or over here, and without a decision.

use crate::catalog::NodeDef;
use crate::txn::owed::{Owed, Running};
use crate::txn::planted::{Plan, Planted};
use proto::{
    ClusterId, CommitSeq, Error, NodeIdentity, NodeName, NodeStatus, PROTOCOL, Reaction, Result, SqlState, TxnId,
    TxnOutcome,
};
use std::collections::VecDeque;

/// Answers to what `Action` asks for.
#[derive(Debug, Clone)]
pub(in crate::txn) enum Input {
    Aborted(Result<()>),
    Outcome(Result<TxnOutcome>),
    Committed(Result<()>),
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::txn) enum Action {
    Abort(TxnId),
    /// Answered by `Outcome`.
    Ask(TxnId),
    /// Answered by `Committed`.
    Commit(TxnId, CommitSeq),
    /// The node is up from here on.
    Up,
    /// It stays down.
    Stay(Error),
}

pub(in crate::txn) struct Recovery {
    node: NodeName,
    epoch: u64,
    undecided: VecDeque<TxnId>,
    /// One-round commits to be asked after; looked up when it is their turn.
    outcomes: Option<VecDeque<TxnId>>,
    waiting: Waiting,
    plan: Plan,
}

/// For the answer to what.
enum Waiting {
    Nothing,
    AbortUndecided,
    Outcome { txn: TxnId, abort_tried: bool },
    AbortOpen(TxnId),
    Commit(TxnId, CommitSeq),
    Refused(TxnId, CommitSeq, Error),
}

impl Recovery {
    /// Of the node that gave `status`. `before` is what ran before it was asked.
    pub(in crate::txn) fn begin(
        node: &NodeName,
        (cluster, epoch): (ClusterId, u64),
        status: &NodeStatus,
        before: &Running,
        plan: Plan,
    ) -> Recovery {
        Recovery {
            node: node.clone(),
            epoch,
            undecided: over(status, before, cluster, epoch, plan).collect(),
            outcomes: None,
            waiting: Waiting::Nothing,
            plan,
        }
    }

    /// The first thing to do.
    pub(in crate::txn) fn start(&mut self, owed: &mut Owed) -> Action {
        self.next(owed)
    }

    pub(in crate::txn) fn step(&mut self, answer: Input, owed: &mut Owed) -> Action {
        match (std::mem::replace(&mut self.waiting, Waiting::Nothing), answer) {
            (Waiting::AbortUndecided, Input::Aborted(Ok(()))) => {}
            (Waiting::AbortOpen(txn), Input::Aborted(Ok(()))) => return self.ask(txn, true),
            (
                Waiting::Outcome { txn, abort_tried: false },
                Input::Outcome(Ok(TxnOutcome::Staged | TxnOutcome::Prepared)),
            ) => {
                // A request that is still on its way comes too late then.
                self.waiting = Waiting::AbortOpen(txn);
                return Action::Abort(txn);
            }
            (Waiting::Outcome { txn, .. }, Input::Outcome(Ok(_))) => owed.outcome_asked(&txn),
            (Waiting::Commit(txn, _), Input::Committed(Ok(()))) => owed.acknowledged(&txn, &self.node),
            (Waiting::Commit(txn, seq), Input::Committed(Err(error))) => {
                if error.reaction == Reaction::Resolve || error.code == SqlState::CONNECTION_FAILURE {
                    return Action::Stay(error);
                }
                // The log does not say who has acknowledged, so that after a restart all participants are told again;
                // one that committed long ago may not remember. A vote is never forgotten before it is told how it
                // ended.
                self.waiting = Waiting::Refused(txn, seq, error);
                return Action::Ask(txn);
            }
            (Waiting::Refused(txn, seq, error), Input::Outcome(Ok(outcome))) => match outcome {
                TxnOutcome::Committed(at) if at == seq => owed.acknowledged(&txn, &self.node),
                TxnOutcome::Unknown if txn.epoch < self.epoch => owed.acknowledged(&txn, &self.node),
                // It does not know of the vote it gave: it must not serve readers.
                _ => return Action::Stay(error),
            },
            (_, Input::Aborted(Err(error)) | Input::Outcome(Err(error))) => return Action::Stay(error),
            (_, answer) => unreachable!("nobody asked for {answer:?}"),
        }
        self.next(owed)
    }

    fn ask(&mut self, txn: TxnId, abort_tried: bool) -> Action {
        self.waiting = Waiting::Outcome { txn, abort_tried };
        Action::Ask(txn)
    }

    fn next(&mut self, owed: &mut Owed) -> Action {
        while let Some(txn) = self.undecided.pop_front() {
            if self.plan.has(Planted::PresumeCommit) && !owed.is_decided(&txn) {
                let seq = CommitSeq((txn.epoch << 40) + txn.number);
                self.waiting = Waiting::Commit(txn, seq);
                return Action::Commit(txn, seq);
            }
            if !owed.is_decided(&txn) || self.plan.has(Planted::AbortDecided) {
                self.waiting = Waiting::AbortUndecided;
                return Action::Abort(txn);
            }
        }
        let outcomes = self.outcomes.get_or_insert_with(|| owed.outcomes_of(&self.node).into());
        if let Some(txn) = outcomes.pop_front() {
            return self.ask(txn, false);
        }
        match owed.commits_of(&self.node).first().filter(|_| !self.plan.has(Planted::UpBeforeTold)) {
            Some((txn, seq)) => {
                self.waiting = Waiting::Commit(*txn, *seq);
                Action::Commit(*txn, *seq)
            }
            None => Action::Up,
        }
    }
}

/// What a node that is up holds in doubt although nobody will ever decide it: to be aborted.
pub(in crate::txn) fn never_decided(
    status: &NodeStatus,
    before: &Running,
    (cluster, epoch): (ClusterId, u64),
    owed: &Owed,
    plan: Plan,
) -> Vec<TxnId> {
    let over = over(status, before, cluster, epoch, plan);
    over.filter(|txn| !owed.is_decided(txn) || plan.has(Planted::AbortDecided)).collect()
}

/// Of the decisions owed to a node that is up, those that nobody is telling it now. `running` is looked at after them.
pub(in crate::txn) fn overdue(
    mut owed: Vec<(TxnId, CommitSeq)>,
    epoch: u64,
    running: &Running,
) -> Vec<(TxnId, CommitSeq)> {
    owed.retain(|(txn, _)| txn.epoch != epoch || !running.open.contains(&txn.number));
    owed
}

fn over(
    status: &NodeStatus,
    before: &Running,
    cluster: ClusterId,
    epoch: u64,
    plan: Plan,
) -> impl Iterator<Item = TxnId> {
    let is_over = move |txn: &&TxnId| before.is_over(cluster, epoch, txn) || plan.has(Planted::AbortRunning);
    status.in_doubt.iter().filter(is_over).copied()
}

/// # Errors
/// TS174: it is not the node the catalog knows, or obeys a later coordinator.
pub(in crate::txn) fn check_identity(
    def: &NodeDef,
    status: &NodeStatus,
    (cluster, epoch): (ClusterId, u64),
) -> Result<()> {
    check_protocol(&def.name, status)?;
    let refuse = |text: String| Err(Error::new(SqlState::DATA_NODE_INVALID_CONFIG, text).reaction(Reaction::GiveUp));
    let expected = NodeIdentity { cluster, name: def.name.clone() };
    match &status.identity {
        Some(identity) if *identity == expected => {}
        Some(other) => {
            return refuse(format!("{} belongs to cluster {} as \"{}\"", def.address(), other.cluster, other.name));
        }
        None => return refuse(format!("{} has an empty data directory", def.address())),
    }
    if status.incarnation != def.incarnation {
        return refuse(format!("{} has another data directory than the one that was added", def.address()));
    }
    if status.epoch_max > epoch {
        return refuse(format!("{} follows a newer coordinator", def.address()));
    }
    Ok(())
}

pub(in crate::txn) fn check_protocol(name: &NodeName, status: &NodeStatus) -> Result<()> {
    if status.protocol == PROTOCOL {
        return Ok(());
    }
    let text = format!("data node \"{name}\" has an incompatible version");
    Err(Error::new(SqlState::DATA_NODE_INVALID_CONFIG, text)
        .detail(format!("Coordinator protocol: {PROTOCOL}, data node protocol: {}.", status.protocol)))
}
