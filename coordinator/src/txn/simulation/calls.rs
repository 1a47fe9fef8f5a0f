//! A leader's calls to nodes: on their way, answered in time or lost, and what the answer is for.
//!
//! Links are `txn::link`'s: a call to a node that is down fails, one without an answer takes the node down.

use super::app::{Happening, Transactions};
use super::node::{Letter, Reply, Request};
use crate::raft::simulation::network::MEMBERS;
use crate::raft::simulation::world::World;
use crate::txn::commit::core::Input;
use crate::txn::handshake::core::{self as handshake, Recovery};
use crate::txn::owed::Running;
use proto::{Error, NodeName, Reaction, Result, SqlState, TxnId};
use std::fmt;

const HELLO_MS_MAX: u64 = 500;
const CALL_MS_MAX: u64 = 1_500;

#[derive(Default)]
pub(super) struct Link {
    pub(super) up: bool,
    /// Counts the times it came up.
    pub(super) generation: u64,
    /// A look at it is under way.
    pub(super) checked: bool,
    pub(super) recovery: Option<Recovery>,
}

pub(super) struct Call {
    node: NodeName,
    /// Of the link it went through; handshakes go round it.
    generation: Option<u64>,
    purpose: Purpose,
}

/// What the answer is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Stage(TxnId),
    Vote(TxnId),
    Told(TxnId),
    Committed(TxnId),
    Outcome(TxnId),
    Aborted(TxnId),
    /// Of a node that is up.
    Hello {
        before: Running,
    },
    /// The first of a handshake: who is it?
    Greet {
        before: Running,
    },
    Obey {
        before: Running,
    },
    /// The second: what does it hold?
    Obeyed {
        before: Running,
    },
    Recover(Asked),
    /// An abort that nobody waits for, …
    Stray,
    /// … that was owed, …
    OwedAbort(TxnId),
    /// … or a decision that was.
    Push(TxnId),
    Read(u64),
}

/// By a handshake.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    Abort,
    Outcome,
    Commit,
}

impl World<Transactions> {
    pub(super) fn is_up(&self, member: usize, node: &NodeName) -> bool {
        let reign = self.app.reigns[member].as_ref();
        reign.and_then(|reign| reign.links.get(node)).is_some_and(|link| link.up)
    }

    pub(super) fn call(&mut self, member: usize, node: &NodeName, by_link: bool, request: Request, purpose: Purpose) {
        self.app.calls_count += 1;
        let call = self.app.calls_count;
        let reign = self.app.reigns[member].as_mut().expect("it reigns");
        let link = reign.links.entry(node.clone()).or_default();
        let refused = by_link && !link.up;
        let generation = by_link.then_some(link.generation);
        reign.calls.insert(call, Call { node: node.clone(), generation, purpose });
        if refused {
            let error = Error::new(SqlState::CONNECTION_FAILURE, "the node is down").reaction(Reaction::Abort);
            return self.after_app(0, Happening::Answer { member, call, answer: Err(error) });
        }
        let limit_ms = if matches!(request, Request::Hello) { HELLO_MS_MAX } else { CALL_MS_MAX };
        self.after_app(limit_ms, Happening::Silence { member, call });
        let number = self.app.node_number(node);
        let arrivals = self.network.arrivals((member, MEMBERS + number), self.now_ms, &mut self.dice, &mut self.tally);
        self.note(format_args!("{member} calls {call} node {number}: {}, arriving {arrivals:?}", Brief(&request)));
        let start = self.app.nodes[number].starts_count;
        for (copy, at_ms) in arrivals.into_iter().enumerate() {
            // Rows are taken in as often as they come. What doubles a request is a connection, to one process, and none
            // does so between two blocks of one transaction.
            let start = match &request {
                Request::Stage { continues: true, .. } if copy > 0 => continue,
                Request::Stage { .. } if copy > 0 => Some(start),
                _ => None,
            };
            let letter = Letter { from: member, call, request: request.clone(), start };
            self.after_app(at_ms - self.now_ms, Happening::Letter { node: number, letter });
        }
    }

    pub(super) fn answer(&mut self, member: usize, call: u64, answer: Result<Reply>) {
        let Some(reign) = self.app.reigns[member].as_mut() else { return };
        let Some(Call { node, generation, purpose }) = reign.calls.remove(&call) else { return };
        let link = reign.links.entry(node.clone()).or_default();
        if let Err(error) = &answer {
            let lost = error.code == SqlState::CONNECTION_FAILURE && generation == Some(link.generation);
            if lost && link.up {
                link.up = false;
                self.app.counts.count("node lost");
            }
        }
        self.note(format_args!("{member} hears of {call}: {purpose:?}"));
        self.take(member, node, purpose, answer);
    }

    pub(super) fn take(&mut self, member: usize, node: NodeName, purpose: Purpose, answer: Result<Reply>) {
        let done = answer.as_ref().map(drop).map_err(Error::clone);
        let reign = self.app.reigns[member].as_mut().expect("it was answered");
        match purpose {
            Purpose::Stage(txn) => self.staged(member, txn, &node, done),
            Purpose::Vote(txn) => self.feed(member, txn, Input::Voted(node, done)),
            Purpose::Told(txn) => self.feed(member, txn, Input::Told(node, done)),
            Purpose::Committed(txn) => {
                let node_up = self.is_up(member, &node);
                self.feed(member, txn, Input::Committed { outcome: done, node_up });
            }
            Purpose::Outcome(txn) => self.feed(member, txn, Input::Outcome(answer.map(outcome))),
            Purpose::Aborted(txn) => self.feed(member, txn, Input::Aborted(node, done)),
            Purpose::Read(read) => self.read_answered(member, read, answer),
            Purpose::Stray => {}
            Purpose::OwedAbort(txn) => {
                if done.is_ok() {
                    reign.owed.aborted(&node, &txn);
                }
            }
            Purpose::Push(txn) => match done {
                Ok(()) => {
                    reign.owed.acknowledged(&txn, &node);
                    self.finish_commits(member);
                }
                Err(_) => reign.links.entry(node).or_default().up = false,
            },
            Purpose::Hello { before } => match answer {
                Ok(Reply::Status(status)) => self.settle_up(member, &node, &before, &status),
                _ => self.checked(member, &node),
            },
            Purpose::Greet { before } => match answer {
                Ok(Reply::Status(status)) => self.greet(member, &node, before, &status),
                _ => self.checked(member, &node),
            },
            Purpose::Obey { before } => match done {
                Ok(()) => self.call(member, &node, false, Request::Hello, Purpose::Obeyed { before }),
                Err(_) => self.checked(member, &node),
            },
            Purpose::Obeyed { before } => match answer {
                Ok(Reply::Status(status)) => self.begin_recovery(member, &node, &before, &status),
                _ => self.checked(member, &node),
            },
            Purpose::Recover(asked) => {
                let input = match asked {
                    Asked::Abort => handshake::Input::Aborted(done),
                    Asked::Outcome => handshake::Input::Outcome(answer.map(outcome)),
                    Asked::Commit => handshake::Input::Committed(done),
                };
                self.recover(member, &node, input);
            }
        }
    }
}

fn outcome(reply: Reply) -> proto::TxnOutcome {
    match reply {
        Reply::Outcome(outcome) => outcome,
        other => unreachable!("{other:?} is no outcome"),
    }
}

/// A request in a trace.
struct Brief<'a>(&'a Request);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Request::Stage { txn, continues, writes } => write!(f, "stage {txn}, {continues}, {} writes", writes.len()),
            other => write!(f, "{other:?}"),
        }
    }
}
