//! How one transaction ends, with everything but the decisions taken out: no I/O, no clock, no lock. The same inputs give
//! the same outputs; `golden/` shows them.
//!
//! ```text
//! several nodes, or a change of the catalog          one node                              given up
//! Settled → Prepare… → Voted…                        Settled → TakeSequence → Placed       Abort… → Aborted…
//!   → Decide → Placed → Sync → Recorded                → Owe → Commit → Committed            → End → Answer
//!   → Owe → Publish → Commit… → Told…                  (lost: Ask → Outcome, again and
//!   → Close → End → Await → Visible → Answer            again until TimeUp)
//!                                                      → Close → End → Await → Visible → Answer
//! ```
//! Invariants
//! - Outputs are carried out in their order; those that are answered may then be under way together.
//! - `Answer` is the last output. Inputs behind it, and inputs that the state does not wait for, change nothing.
//! - Nobody is told `Commit` of a decision before `Recorded`, and nobody `Abort` behind `Decide`, unless `Placed` says no.
//! - No sequence is closed while a participant that is up may still be undecided.

use super::{deposed_meanwhile, unknown};
use crate::txn::log::unknown_outcome;
use crate::txn::planted::{Plan, Planted};
use proto::{CommitMode, CommitSeq, Error, NodeName, Reaction, Result, SqlState, TxnOutcome};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
pub(in crate::txn) enum Input {
    /// All rows are on their nodes, or could not be brought there.
    Settled(Result<()>),
    Voted(NodeName, Result<()>),
    /// The transaction has its place in the order of commits. An error: nothing was appended.
    Placed(Result<CommitSeq>),
    /// The record is durable. An error: that is not known.
    Recorded(Result<()>),
    /// A participant of a decision has it, or could not be told.
    Told(NodeName, Result<()>),
    /// What the only participant answered.
    Committed {
        outcome: Result<()>,
        /// Whether the node still counts as up.
        node_up: bool,
    },
    /// What the only participant says now.
    Outcome(Result<TxnOutcome>),
    Aborted(NodeName, Result<()>),
    /// The time is over in which an outcome is asked for.
    TimeUp,
    /// Snapshots show the commit.
    Visible,
    /// This coordinator commits nothing any more: others decide what was left open.
    Deposed,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::txn) enum Output {
    /// Answered by `Voted`.
    Prepare(NodeName),
    /// Answered by `Aborted`.
    Abort(NodeName),
    /// Check the changes against the newest catalog, take a sequence, append the record. Answered by `Placed`.
    Decide,
    /// Check, and take a sequence: there will be no record. Answered by `Placed`.
    TakeSequence,
    /// Answered by `Recorded`.
    Sync,
    /// The participants must be told of the decision, now or when they come up.
    Owe(CommitSeq),
    /// Show the catalog the transaction made.
    Publish,
    /// Answered by `Told`, or by `Committed` unless the mode is `Prepared`.
    Commit(NodeName, CommitSeq, CommitMode),
    /// The node was told, and owes nothing any more.
    Acknowledged(NodeName),
    /// The node must not serve readers: it holds the transaction undecided.
    TakeDown(NodeName, Error),
    /// The node may commit on its own, and must be asked how that ended before it is up again.
    OweOutcome(NodeName),
    /// How it ended is known, …
    OutcomeKnown,
    /// … or left to the node's next handshake.
    OutcomeLeft,
    /// Answered by `Outcome`; not at once if it is `later`.
    Ask {
        node: NodeName,
        later: bool,
    },
    /// Begin the time that `TimeUp` ends.
    LimitAsking,
    /// Take the node's abort as still to be told.
    OweAbort(NodeName),
    /// The log is not to be trusted any more.
    LogFailed(Error),
    /// Snapshots may show the sequence, or will never have it.
    Close(CommitSeq),
    /// It is not running any more.
    End,
    /// Answered by `Visible`.
    Await(CommitSeq),
    Answer(Result<CommitSeq>),
}

pub(in crate::txn) struct Commit {
    participants: Vec<NodeName>,
    /// The catalog changes with it.
    has_changes: bool,
    asynchronous: bool,
    state: State,
    plan: Plan,
}

enum State {
    Settling,
    Voting(BTreeMap<NodeName, Result<()>>),
    Placing,
    Recording(CommitSeq),
    Telling {
        seq: CommitSeq,
        waiting: BTreeSet<NodeName>,
    },
    /// In one round, by its only participant.
    Committing(CommitSeq),
    Resolving {
        seq: CommitSeq,
        cause: Error,
        abort_tried: bool,
    },
    Showing(CommitSeq),
    Aborting {
        waiting: BTreeSet<NodeName>,
        cause: Error,
    },
    Over,
}

impl Commit {
    /// Waits for `Settled`. Each participant is named once.
    pub(in crate::txn) fn begin(participants: Vec<NodeName>, has_changes: bool, asynchronous: bool) -> Commit {
        Commit { participants, has_changes, asynchronous, state: State::Settling, plan: Plan::default() }
    }

    #[cfg(test)]
    pub(in crate::txn) fn with_plan(self, plan: Plan) -> Commit {
        Commit { plan, ..self }
    }

    /// Tells the participants of a transaction that was not asked to commit.
    pub(in crate::txn) fn give_up(&mut self) -> Vec<Output> {
        assert!(matches!(self.state, State::Settling), "what was asked to commit ends by its own rules");
        self.abort(Error::new(SqlState::SERIALIZATION_FAILURE, "the transaction was aborted"))
    }

    pub(in crate::txn) fn step(&mut self, input: Input) -> Vec<Output> {
        if let Input::Deposed = input {
            return self.deposed();
        }
        match (std::mem::replace(&mut self.state, State::Over), input) {
            (State::Settling, Input::Settled(Err(error))) => self.abort(error),
            (State::Settling, Input::Settled(Ok(()))) => self.ask_for_votes(),
            (State::Voting(votes), Input::Voted(node, vote)) => self.voted(votes, node, vote),
            (State::Placing, Input::Placed(Err(error))) => self.abort(error),
            (State::Placing, Input::Placed(Ok(seq))) => self.placed(seq),
            (State::Recording(seq), Input::Recorded(Ok(()))) => self.recorded(seq),
            (State::Recording(_), Input::Recorded(Err(error))) => self.record_lost(error),
            (State::Telling { seq, waiting }, Input::Told(node, told)) => self.told(seq, waiting, node, told),
            (State::Committing(seq), Input::Committed { outcome, node_up }) => self.committed(seq, outcome, node_up),
            (State::Resolving { seq, cause, abort_tried }, input) => self.resolve(seq, cause, abort_tried, input),
            (State::Showing(seq), Input::Visible) => self.answer(Ok(seq)),
            (State::Aborting { waiting, cause }, Input::Aborted(node, told)) => {
                self.aborted(waiting, cause, node, told)
            }
            (state, _) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    fn answer(&mut self, answer: Result<CommitSeq>) -> Vec<Output> {
        self.state = State::Over;
        vec![Output::Answer(answer)]
    }

    // ------------------------------------------------------------------------------------------------------------
    // Several participants, or a change of the catalog

    fn ask_for_votes(&mut self) -> Vec<Output> {
        if self.only_participant().is_some() {
            self.state = State::Placing;
            return vec![Output::TakeSequence];
        }
        match self.participants.is_empty() {
            true => self.decide(),
            false => {
                self.state = State::Voting(BTreeMap::new());
                self.participants.iter().cloned().map(Output::Prepare).collect()
            }
        }
    }

    /// Decides alone, because there is nothing to agree on.
    fn only_participant(&self) -> Option<&NodeName> {
        match self.participants.as_slice() {
            [only] if !self.has_changes => Some(only),
            _ => None,
        }
    }

    /// All votes are waited for: a node that is being asked cannot be told to abort.
    fn voted(&mut self, mut votes: BTreeMap<NodeName, Result<()>>, node: NodeName, vote: Result<()>) -> Vec<Output> {
        let lost_is_yes = self.plan.has(Planted::CommitWithoutVote);
        let vote = vote.or_else(|error| match lost_is_yes && error.code == SqlState::CONNECTION_FAILURE {
            true => Ok(()),
            false => Err(error),
        });
        votes.insert(node, vote);
        if votes.len() < self.participants.len() {
            self.state = State::Voting(votes);
            return Vec::new();
        }
        match votes.into_values().collect::<Result<Vec<()>>>() {
            Ok(_) => self.decide(),
            Err(no) => self.abort(no),
        }
    }

    fn decide(&mut self) -> Vec<Output> {
        self.state = State::Placing;
        vec![Output::Decide]
    }

    fn placed(&mut self, seq: CommitSeq) -> Vec<Output> {
        if let Some(only) = self.only_participant().cloned() {
            self.state = State::Committing(seq);
            let mode = if self.asynchronous { CommitMode::Asynchronous } else { CommitMode::OnePhase };
            return vec![Output::OweOutcome(only.clone()), Output::Commit(only, seq, mode)];
        }
        if self.plan.has(Planted::AnswerBeforeDurable) {
            return self.answer(Ok(seq));
        }
        if self.plan.has(Planted::TellBeforeDurable) {
            return self.recorded(seq);
        }
        self.state = State::Recording(seq);
        vec![Output::Sync]
    }

    /// Owed before any node is looked at (see `handshake`), shown before the sequence is closed.
    fn recorded(&mut self, seq: CommitSeq) -> Vec<Output> {
        let mut outputs = Vec::new();
        if !self.participants.is_empty() {
            outputs.push(Output::Owe(seq));
        }
        outputs.push(Output::Publish);
        outputs.extend(self.participants.iter().map(|node| Output::Commit(node.clone(), seq, CommitMode::Prepared)));
        if self.participants.is_empty() || self.plan.has(Planted::ShowBeforeTold) {
            outputs.extend(self.show(seq));
            return outputs;
        }
        self.state = State::Telling { seq, waiting: self.participants.iter().cloned().collect() };
        outputs
    }

    /// Neither commit nor abort may be told: what the log says later, here or elsewhere, is how it ended. Until then the
    /// transaction stays among the running, so that nobody aborts it.
    fn record_lost(&mut self, error: Error) -> Vec<Output> {
        if self.plan.has(Planted::AbortUndecided) {
            return self.abort(error);
        }
        let answer = Err(unknown_outcome(&error));
        self.state = State::Over;
        vec![Output::LogFailed(error), Output::Answer(answer)]
    }

    /// One that does not acknowledge is down, so that no reader meets it undecided, and is told before it is up.
    fn told(
        &mut self,
        seq: CommitSeq,
        mut waiting: BTreeSet<NodeName>,
        node: NodeName,
        told: Result<()>,
    ) -> Vec<Output> {
        let known = waiting.remove(&node);
        let mut outputs = match told {
            _ if !known => Vec::new(),
            Ok(()) => vec![Output::Acknowledged(node)],
            Err(_) if self.plan.has(Planted::ForgetDecision) => vec![Output::Acknowledged(node)],
            Err(error) => vec![Output::TakeDown(node, error)],
        };
        match waiting.is_empty() {
            true => outputs.extend(self.show(seq)),
            false => self.state = State::Telling { seq, waiting },
        }
        outputs
    }

    fn show(&mut self, seq: CommitSeq) -> Vec<Output> {
        self.state = State::Showing(seq);
        vec![Output::Close(seq), Output::End, Output::Await(seq)]
    }

    // ------------------------------------------------------------------------------------------------------------
    // One participant

    fn committed(&mut self, seq: CommitSeq, outcome: Result<()>, node_up: bool) -> Vec<Output> {
        let Err(cause) = outcome else { return self.happened(seq) };
        if self.plan.has(Planted::LostIsNo) {
            return self.did_not_happen(seq, cause);
        }
        let mut outputs = Vec::new();
        // A node that is down answers readers only after a handshake, which settles this transaction first.
        if !node_up {
            outputs.push(Output::Close(seq));
        }
        outputs.push(Output::LimitAsking);
        outputs.extend(self.ask(seq, cause, false, false));
        outputs
    }

    fn ask(&mut self, seq: CommitSeq, cause: Error, abort_tried: bool, later: bool) -> Vec<Output> {
        self.state = State::Resolving { seq, cause, abort_tried };
        vec![Output::Ask { node: self.participants[0].clone(), later }]
    }

    /// One that is still open is aborted, so that a request that is still on its way comes too late.
    fn resolve(&mut self, seq: CommitSeq, cause: Error, abort_tried: bool, input: Input) -> Vec<Output> {
        match input {
            Input::Outcome(Ok(TxnOutcome::Committed(_))) => self.happened(seq),
            Input::Outcome(Ok(TxnOutcome::Unknown)) => self.did_not_happen(seq, cause),
            Input::Outcome(Ok(TxnOutcome::Staged | TxnOutcome::Prepared)) if !abort_tried => {
                self.state = State::Resolving { seq, cause, abort_tried: true };
                vec![Output::Abort(self.participants[0].clone())]
            }
            Input::Outcome(_) => self.ask(seq, cause, false, true),
            Input::Aborted(_, Ok(())) => self.ask(seq, cause, true, false),
            Input::Aborted(_, Err(_)) => self.ask(seq, cause, false, true),
            Input::TimeUp => {
                let answer = self.answer(Err(unknown(&self.participants[0])));
                [vec![Output::Close(seq), Output::OutcomeLeft, Output::End], answer].concat()
            }
            _ => {
                self.state = State::Resolving { seq, cause, abort_tried };
                Vec::new()
            }
        }
    }

    fn happened(&mut self, seq: CommitSeq) -> Vec<Output> {
        self.state = State::Showing(seq);
        vec![Output::Close(seq), Output::OutcomeKnown, Output::End, Output::Await(seq)]
    }

    fn did_not_happen(&mut self, seq: CommitSeq, cause: Error) -> Vec<Output> {
        [vec![Output::Close(seq), Output::OutcomeKnown], self.abort(cause)].concat()
    }

    // ------------------------------------------------------------------------------------------------------------
    // What does not happen

    fn abort(&mut self, cause: Error) -> Vec<Output> {
        let waiting = self.participants.iter().cloned().collect::<BTreeSet<_>>();
        if waiting.is_empty() {
            self.state = State::Over;
            return vec![Output::End, Output::Answer(Err(cause))];
        }
        self.state = State::Aborting { waiting, cause };
        self.participants.iter().cloned().map(Output::Abort).collect()
    }

    /// One that cannot be told now is told when it comes up.
    fn aborted(
        &mut self,
        mut waiting: BTreeSet<NodeName>,
        cause: Error,
        node: NodeName,
        told: Result<()>,
    ) -> Vec<Output> {
        let known = waiting.remove(&node);
        let mut outputs = Vec::new();
        if known && told.is_err() {
            outputs.push(Output::OweAbort(node));
        }
        if waiting.is_empty() {
            outputs.extend([Output::End, Output::Answer(Err(cause))]);
        } else {
            self.state = State::Aborting { waiting, cause };
        }
        outputs
    }

    /// Others find out what they do not know, and tell who must be told; the client hears what is certain.
    fn deposed(&mut self) -> Vec<Output> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Over => Vec::new(),
            State::Settling | State::Voting(_) | State::Placing => {
                let text = "the coordinator lost its leadership before the transaction was decided";
                self.answer(Err(Error::new(SqlState::SERIALIZATION_FAILURE, text).reaction(Reaction::Abort)))
            }
            State::Recording(_) => {
                let text = "another coordinator leads";
                self.answer(Err(unknown_outcome(&Error::new(SqlState::CONNECTION_FAILURE, text))))
            }
            State::Telling { seq, .. } | State::Showing(seq) => self.answer(Ok(seq)),
            State::Committing(_) | State::Resolving { .. } => self.answer(Err(deposed_meanwhile())),
            State::Aborting { cause, .. } => self.answer(Err(cause)),
        }
    }
}
