//! A leader at work: what `Cluster` has, without tasks and locks. It begins when the leader's own first entry is applied,
//! from the machine alone, and ends with its leadership or its process; nothing is taken along. `calls` reaches its nodes,
//! `visits` looks after them.

use super::app::{Happening, Transactions};
use super::calls::{Call, Link, Purpose};
use super::client::{Open, Read};
use super::node::Request;
use crate::catalog::CatalogState;
use crate::ingest::NewChunks;
use crate::raft::simulation::world::World;
use crate::raft::{Input as RaftInput, Proposal};
use crate::txn::commit::added_chunks;
use crate::txn::commit::core::{Input, Output};
use crate::txn::owed::{Owed, Running};
use crate::txn::planted::InSimulation;
use crate::txn::record::{Machine, Record};
use crate::txn::sequence::Sequence;
use proto::{CommitMode, CommitSeq, NodeName, Result, TxnId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

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
    pub(super) links: BTreeMap<NodeName, Link>,
    pub(super) calls: BTreeMap<u64, Call>,
    /// By proposal.
    proposed: BTreeMap<u64, TxnId>,
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
        reign.tip.apply(&record).inspect_err(|_| reign.sequence.close(seq))?;
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

    pub(super) fn finish_commits(&mut self, member: usize) {
        let Some(reign) = self.reign(member) else { return };
        for txn in reign.owed.told_everybody() {
            let record = Record::Done { txn };
            let Some(reign) = self.reign(member) else { return };
            reign.tip.apply(&record).expect("Done is never refused");
            reign.owed.finished(&txn);
            self.propose(member, &record);
        }
    }
}
