//! A leader at work: what `Cluster` has, without tasks and locks. It begins when the leader's own first entry is applied,
//! from the machine alone, and ends with its leadership or its process; nothing is taken along.
//!
//! Links are `txn::link`'s: a call to a node that is down fails, one without an answer takes the node down.

use super::app::{Happening, Transactions};
use super::client::{Open, Read};
use super::ledger::CLUSTER;
use super::node::{Letter, Reply, Request};
use crate::catalog::CatalogState;
use crate::ingest::NewChunks;
use crate::raft::simulation::network::MEMBERS;
use crate::raft::simulation::world::World;
use crate::raft::{Input as RaftInput, Proposal};
use crate::txn::commit::added_chunks;
use crate::txn::commit::core::{Input, Output};
use crate::txn::handshake::core::{self as handshake, Action, Recovery, check_identity, never_decided, overdue};
use crate::txn::owed::{Owed, Running};
use crate::txn::planted::InSimulation;
use crate::txn::record::{Machine, Record};
use crate::txn::sequence::Sequence;
use proto::{CommitMode, CommitSeq, Error, NodeName, NodeStatus, Reaction, Result, SqlState, TxnId};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

const WATCH_MS: u64 = 300;
const HELLO_MS_MAX: u64 = 500;
const CALL_MS_MAX: u64 = 1_500;
const ASK_AGAIN_MS: u64 = 50;
const RESOLVE_MS_MAX: u64 = 2_000;

pub(super) struct Reign {
    pub(super) epoch: u64,
    pub(super) tip: Machine,
    /// What is durable, hence shown.
    pub(super) catalog: Arc<CatalogState>,
    pub(super) sequence: Sequence,
    /// The last one given.
    pub(super) last: CommitSeq,
    pub(super) running: Running,
    pub(super) owed: Owed,
    pub(super) new_chunks: NewChunks,
    pub(super) open: BTreeMap<TxnId, Open>,
    pub(super) reads: BTreeMap<u64, Read>,
    links: BTreeMap<NodeName, Link>,
    calls: BTreeMap<u64, Call>,
    /// By proposal.
    proposed: BTreeMap<u64, TxnId>,
}

#[derive(Default)]
struct Link {
    up: bool,
    /// Counts the times it came up.
    generation: u64,
    /// A look at it is under way.
    checked: bool,
    recovery: Option<Recovery>,
}

struct Call {
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
    // ------------------------------------------------------------------------------------------------------------
    // Its beginning and end

    pub(super) fn begin_reign(&mut self, member: usize, epoch: u64) {
        if self.app.reigns[member].as_ref().is_some_and(|reign| reign.epoch == epoch) {
            return;
        }
        self.app.counts.count("reign begun");
        let machine = self.process(member).state.clone();
        let mut owed = Owed::default();
        if !self.app.planted(InSimulation::ForgetUndone) {
            for (txn, decision) in &machine.undone {
                self.app.counts.count("decision inherited");
                owed.owe_commit(*txn, decision.seq, decision.participants.iter().cloned());
            }
        }
        let sequence = match self.app.planted(InSimulation::ReuseSequences) {
            true => Sequence::new(0),
            false => Sequence::new(epoch),
        };
        sequence.raise_to(machine.seq);
        self.note(format_args!("{member} reigns in epoch {epoch}, owes {:?}", machine.undone.keys()));
        let catalog = Arc::clone(&machine.catalog);
        self.app.reigns[member] = Some(Reign {
            epoch,
            last: sequence.snapshot(),
            sequence,
            new_chunks: NewChunks::new(catalog.next_chunk()),
            tip: machine,
            catalog,
            running: Running::default(),
            owed,
            open: BTreeMap::new(),
            reads: BTreeMap::new(),
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            proposed: BTreeMap::new(),
        });
        self.after_app(0, Happening::Watch { member, epoch });
    }

    /// `deposed`: its process lives, and tells its clients what it knows. Else they hear nothing.
    pub(super) fn end_reign(&mut self, member: usize, deposed: bool) {
        let Some(reign) = &mut self.app.reigns[member] else { return };
        let open = reign.open.keys().copied().collect::<Vec<_>>();
        let reads = std::mem::take(&mut reign.reads);
        for txn in open {
            match deposed {
                true => self.feed(member, txn, Input::Deposed),
                false => self.connection_lost(member, txn),
            }
        }
        reads.into_values().for_each(|read| self.free(read.client));
        self.app.reigns[member] = None;
    }

    pub(super) fn reign(&mut self, member: usize) -> Option<&mut Reign> {
        self.app.reigns[member].as_mut()
    }

    // ------------------------------------------------------------------------------------------------------------
    // The core of a commit, and what it wants done

    pub(super) fn feed(&mut self, member: usize, txn: TxnId, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(open) = self.reign(member).and_then(|reign| reign.open.get_mut(&txn)) else { return };
            let outputs = open.commit.step(input);
            inputs.extend(self.carry_out(member, txn, outputs));
        }
    }

    /// Answers that are there at once.
    pub(super) fn carry_out(&mut self, member: usize, txn: TxnId, outputs: Vec<Output>) -> Vec<Input> {
        outputs.into_iter().filter_map(|output| self.perform(member, txn, output)).collect()
    }

    fn perform(&mut self, member: usize, txn: TxnId, output: Output) -> Option<Input> {
        self.note(format_args!("{txn} at {member}: {output:?}"));
        let reign = self.app.reigns[member].as_mut()?;
        let open = reign.open.get_mut(&txn)?;
        match output {
            Output::Prepare(node) => self.call(member, &node, true, Request::Prepare(txn), Purpose::Vote(txn)),
            Output::Abort(node) => self.call(member, &node, true, Request::Abort(txn), Purpose::Aborted(txn)),
            Output::Decide => return Some(Input::Placed(self.decide(member, txn))),
            Output::TakeSequence => {
                let placed = open.claims().check(&reign.tip.catalog, &reign.new_chunks).map(|()| reign.sequence.open());
                if let Ok(seq) = placed {
                    reign.last = seq;
                    self.app.history.placed(txn, seq);
                }
                return Some(Input::Placed(placed));
            }
            // `recorded` is told when it is.
            Output::Sync => {}
            Output::Owe(seq) => reign.owed.owe_commit(txn, seq, open.participants.iter().cloned()),
            Output::Publish => {
                let made = open.made.take().expect("it was decided");
                if made.seq() > reign.catalog.seq() {
                    reign.catalog = made;
                }
            }
            Output::Commit(node, seq, mode) => {
                let purpose = if mode == CommitMode::Prepared { Purpose::Told(txn) } else { Purpose::Committed(txn) };
                self.call(member, &node, true, Request::Commit(txn, seq, mode), purpose);
            }
            Output::Acknowledged(node) => reign.owed.acknowledged(&txn, &node),
            Output::TakeDown(node, _) => reign.links.entry(node).or_default().up = false,
            Output::OweOutcome(node) => reign.owed.owe_outcome(txn, node),
            Output::OutcomeKnown => reign.owed.outcome_known(&txn),
            Output::OutcomeLeft => reign.owed.outcome_left(&txn),
            Output::Ask { later: true, .. } => self.after_app(ASK_AGAIN_MS, Happening::Ask { member, txn }),
            Output::Ask { node, later: false } => {
                self.app.counts.count("one-round commit asked after");
                self.call(member, &node, true, Request::Outcome(txn), Purpose::Outcome(txn));
            }
            Output::LimitAsking => self.after_app(RESOLVE_MS_MAX, Happening::TimeUp { member, txn }),
            Output::OweAbort(node) => {
                reign.owed.owe_abort(node, txn);
                self.app.counts.count("abort owed");
            }
            Output::LogFailed(_) => {}
            Output::Close(seq) => {
                reign.sequence.close(seq);
                let snapshot = reign.sequence.snapshot();
                let waiting = reign.open.iter().filter(|(_, open)| open.awaits.is_some_and(|seq| seq <= snapshot));
                let waiting = waiting.map(|(txn, _)| *txn).collect::<Vec<_>>();
                waiting.into_iter().for_each(|txn| self.feed(member, txn, Input::Visible));
            }
            Output::End => {
                reign.running.open.remove(&txn.number);
                let shared = std::mem::take(&mut open.shared).into_iter().collect::<Vec<_>>();
                reign.new_chunks.release(&shared);
                self.finish_commits(member);
            }
            Output::Await(seq) if reign.sequence.snapshot() >= seq => return Some(Input::Visible),
            Output::Await(seq) => {
                self.app.counts.count("commit waited for earlier ones");
                open.awaits = Some(seq);
            }
            Output::Answer(answer) => self.answered(member, txn, answer),
        }
        None
    }

    pub(super) fn ask(&mut self, member: usize, txn: TxnId) {
        let Some(open) = self.reign(member).and_then(|reign| reign.open.get(&txn)) else { return };
        let node = open.participants.first().expect("it has one participant").clone();
        self.call(member, &node, true, Request::Outcome(txn), Purpose::Outcome(txn));
    }

    /// As `Cluster::decide`.
    fn decide(&mut self, member: usize, txn: TxnId) -> Result<CommitSeq> {
        let reign = self.app.reigns[member].as_mut().expect("it decides");
        let open = reign.open.get_mut(&txn).expect("it is being decided");
        open.claims().check(&reign.tip.catalog, &reign.new_chunks)?;
        let seq = reign.sequence.open();
        reign.last = seq;
        let participants = open.participants.iter().cloned().collect();
        let record = Record::Commit { txn, seq, participants, changes: open.changes.clone(), key: None };
        let mut next = reign.tip.clone();
        next.apply(&record).inspect_err(|_| reign.sequence.close(seq))?;
        reign.tip = next;
        open.made = Some(Arc::clone(&reign.tip.catalog));
        reign.new_chunks.published(added_chunks(&open.changes));
        self.app.history.placed(txn, seq);
        let id = self.propose(member, &record);
        self.reign(member).expect("it decides").proposed.insert(id, txn);
        Ok(seq)
    }

    fn propose(&mut self, member: usize, record: &Record) -> u64 {
        self.app.proposals_count += 1;
        let id = self.app.proposals_count;
        let data = record.encode().expect("records can be written").into();
        self.members[member].receive(RaftInput::Propose(Proposal { id, data }));
        self.after_app(0, Happening::Work(member));
        id
    }

    pub(super) fn recorded(&mut self, member: usize, proposal: u64, recorded: Result<()>) {
        let Some(txn) = self.reign(member).and_then(|reign| reign.proposed.remove(&proposal)) else { return };
        if recorded.is_err() {
            self.app.counts.count("record with unknown fate");
        }
        self.feed(member, txn, Input::Recorded(recorded));
    }

    fn finish_commits(&mut self, member: usize) {
        let Some(reign) = self.reign(member) else { return };
        for txn in reign.owed.told_everybody() {
            let record = Record::Done { txn };
            let Some(reign) = self.reign(member) else { return };
            reign.tip.apply(&record).expect("Done is never refused");
            reign.owed.finished(&txn);
            self.propose(member, &record);
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Calls

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

    fn take(&mut self, member: usize, node: NodeName, purpose: Purpose, answer: Result<Reply>) {
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

    // ------------------------------------------------------------------------------------------------------------
    // Its nodes

    pub(super) fn watch(&mut self, member: usize, epoch: u64) {
        let Some(reign) = self.reign(member).filter(|reign| reign.epoch == epoch) else { return };
        let nodes = reign.catalog.nodes().cloned().collect::<Vec<_>>();
        for def in nodes {
            let Some(reign) = self.reign(member) else { return };
            let link = reign.links.entry(def.name.clone()).or_default();
            if !def.available {
                link.up = false;
            }
            if link.checked || !def.available {
                continue;
            }
            link.checked = true;
            let (up, before) = (link.up, reign.running.clone());
            let purpose = if up { Purpose::Hello { before } } else { Purpose::Greet { before } };
            self.call(member, &def.name, up, Request::Hello, purpose);
        }
        self.finish_commits(member);
        self.after_app(WATCH_MS, Happening::Watch { member, epoch });
    }

    fn checked(&mut self, member: usize, node: &NodeName) {
        let reign = self.app.reigns[member].as_mut().expect("it looked");
        let link = reign.links.entry(node.clone()).or_default();
        (link.checked, link.recovery) = (false, None);
    }

    /// As `Cluster::settle_up`.
    fn settle_up(&mut self, member: usize, node: &NodeName, before: &Running, status: &NodeStatus) {
        let plan = self.app.plan;
        let reign = self.app.reigns[member].as_mut().expect("it looked");
        let strays = never_decided(status, before, (CLUSTER, reign.epoch), &reign.owed, plan);
        let owed = reign.owed.aborts_of(node);
        let pushed = overdue(reign.owed.commits_of(node), reign.epoch, &reign.running);
        for txn in strays {
            self.app.counts.count("in doubt at a node that is up");
            self.call(member, node, true, Request::Abort(txn), Purpose::Stray);
        }
        for txn in owed {
            self.call(member, node, true, Request::Abort(txn), Purpose::OwedAbort(txn));
        }
        for (txn, seq) in pushed {
            self.call(member, node, true, Request::Commit(txn, seq, CommitMode::Prepared), Purpose::Push(txn));
        }
        self.checked(member, node);
    }

    /// As `Cluster::bring_up`, from here on.
    fn greet(&mut self, member: usize, node: &NodeName, before: Running, status: &NodeStatus) {
        let reign = self.app.reigns[member].as_mut().expect("it looked");
        let epoch = reign.epoch;
        let def = Arc::clone(reign.catalog.node(node).expect("nodes are not removed"));
        if check_identity(&def, status, (CLUSTER, epoch)).is_err() {
            self.app.counts.count("node follows a newer coordinator");
            return self.checked(member, node);
        }
        self.call(member, node, false, Request::Obey { epoch }, Purpose::Obey { before });
    }

    fn begin_recovery(&mut self, member: usize, node: &NodeName, before: &Running, status: &NodeStatus) {
        let (plan, reuse) = (self.app.plan, self.app.planted(InSimulation::ReuseSequences));
        let reign = self.app.reigns[member].as_mut().expect("it looked");
        if !reuse {
            reign.sequence.raise_to(status.commit_seq_max);
        }
        let mut recovery = Recovery::begin(node, (CLUSTER, reign.epoch), status, before, plan);
        let action = recovery.start(&mut reign.owed);
        reign.links.entry(node.clone()).or_default().recovery = Some(recovery);
        self.act(member, node, action);
    }

    fn recover(&mut self, member: usize, node: &NodeName, input: handshake::Input) {
        let reign = self.app.reigns[member].as_mut().expect("it asked");
        let link = reign.links.entry(node.clone()).or_default();
        let action = link.recovery.as_mut().expect("it is under way").step(input, &mut reign.owed);
        self.act(member, node, action);
    }

    fn act(&mut self, member: usize, node: &NodeName, action: Action) {
        self.note(format_args!("{member} to {node}: {action:?}"));
        let (request, asked) = match action {
            Action::Abort(txn) => {
                self.app.counts.count("aborted by a handshake");
                (Request::Abort(txn), Asked::Abort)
            }
            Action::Ask(txn) => (Request::Outcome(txn), Asked::Outcome),
            Action::Commit(txn, seq) => {
                self.app.counts.count("decision told by a handshake");
                (Request::Commit(txn, seq, CommitMode::Prepared), Asked::Commit)
            }
            Action::Up => {
                self.app.counts.count("node came up");
                let reign = self.app.reigns[member].as_mut().expect("it looked");
                let link = reign.links.entry(node.clone()).or_default();
                link.up = true;
                link.generation += 1;
                for txn in reign.owed.aborts_of(node) {
                    self.call(member, node, true, Request::Abort(txn), Purpose::OwedAbort(txn));
                }
                return self.checked(member, node);
            }
            Action::Stay(_) => return self.checked(member, node),
        };
        self.call(member, node, false, request, Purpose::Recover(asked));
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
