//! The algorithm with everything but its decisions taken out.
//!
//! One round: [`Core::step`] takes what has happened and says what may be sent at once and what must be persisted;
//! [`Core::persisted`] takes the proof that it was, and says what may be sent and applied now. A round that is not
//! finished by `persisted` must be finished by a restart: nothing else may be asked of the core in between.
//!
//! ```text
//! inputs → step → send (a leader's entries may travel while they are being written)
//!                 persist → Disk::write → Durable → persisted → send, apply, decided
//! ```

use super::disk::Durable;
use super::entries::Entries;
use super::planted::{Plan, Planted};
use bytes::Bytes;
use raft::prelude::{Config, Entry, EntryType, HardState, Message, MessageType, RawNode, Ready, Snapshot};
use raft::{INVALID_ID, ProgressState, SnapshotStatus, StateRole};
use std::collections::BTreeMap;

/// Longest entry; its record must fit into the log.
pub const PROPOSAL_BYTES_MAX: usize = 32 << 20;
/// Entries of one message, unless a single one is longer.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages with entries on their way to one member: with `MESSAGE_BYTES_MAX`, 64 MiB.
const MESSAGES_IN_FLIGHT_MAX: usize = 64;
/// Entries that are proposed and not committed; more are refused.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Entries handed out for application by one round.
const APPLIED_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Clone)]
pub struct Options {
    /// This member, from 1.
    pub member: u64,
    /// Without word from a leader for this long, and up to twice as long, a member asks for an election.
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// A snapshot that was sent and not acknowledged for this long counts as lost.
    pub snapshot_ticks: u32,
    /// What a member's election timeouts are drawn from; no two members should have the same.
    pub seed: u64,
}

/// See `Options::election_ticks`.
pub const ELECTION_TICKS: u32 = 10;

impl Options {
    /// For a tick of 100 milliseconds: elections after one to two seconds of silence.
    pub fn new(member: u64, seed: u64) -> Options {
        Options { member, election_ticks: ELECTION_TICKS as usize, heartbeat_ticks: 2, snapshot_ticks: 30, seed }
    }
}

#[derive(Debug, Clone)]
pub enum Input {
    Tick,
    /// From another member.
    Message(Message),
    Propose(Proposal),
    /// Ask for an election now: who is alone need not wait for silence.
    Campaign,
    /// Stop leading, if in this term: who was out of step for long enough was replaced.
    StepDown(u64),
}

#[derive(Debug, Clone)]
pub struct Proposal {
    /// The proposer's name for it, unique while it is undecided.
    pub id: u64,
    /// Not empty: an empty entry is a new leader's.
    pub data: Bytes,
}

/// Why a proposal did not become an entry. It never will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotLeader {
        leader: Option<u64>,
    },
    /// Too much is undecided.
    Busy,
    TooLong,
}

#[derive(Debug)]
pub struct Step {
    pub refused: Vec<(u64, Refusal)>,
    /// May be sent before `persist` is durable.
    pub send: Vec<Message>,
    pub persist: Persist,
}

/// What one step adds to what a member must remember.
#[derive(Debug, Clone)]
pub struct Persist {
    pub(super) number: u64,
    pub(super) state: HardState,
    pub(super) entries: Vec<Entry>,
    pub(super) snapshot: Option<Snapshot>,
    /// Something is said behind it that must not be forgotten; else it may as well be lost.
    pub(super) must_sync: bool,
    pub(super) changed: bool,
}

#[derive(Debug, Default)]
pub struct After {
    pub send: Vec<Message>,
    /// In this order, before the next step.
    pub apply: Vec<Apply>,
    pub decided: Vec<(u64, Decided)>,
    /// When it changed.
    pub role: Option<Role>,
}

#[derive(Debug)]
pub enum Apply {
    /// The state machine as it is at `index`, whatever it was before.
    Restore { index: u64, state: Bytes },
    /// Empty when it is a new leader's own.
    Entry { index: u64, term: u64, data: Bytes },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    Committed {
        index: u64,
    },
    /// This member does not lead any more: it may have happened, or happen yet.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Leader { term: u64 },
    Follower { term: u64, leader: Option<u64> },
    Candidate { term: u64 },
}

/// The algorithm draws election timeouts from the thread's own chance. Ours come from the seed, one for each term and
/// for each change between leading and not, and are put over its own after each input.
struct Timeout {
    seed: u64,
    draws: u64,
    ticks: usize,
    /// The term, and whether we led, when it was drawn.
    drawn_for: (u64, bool),
}

pub struct Core {
    node: RawNode<Entries>,
    options: Options,
    /// The round that `persisted` will finish.
    under_way: Option<Ready>,
    /// Proposals of ours that may still be committed: index → term and id.
    undecided: BTreeMap<u64, (u64, u64)>,
    role: Role,
    timeout: Timeout,
    /// Members a snapshot is on its way to, and for how many ticks.
    snapshots_sent: BTreeMap<u64, u32>,
    plan: Plan,
}

impl Core {
    /// Begins as a follower. Committed entries behind the snapshot come out of the first rounds.
    pub fn new(options: Options, mut entries: Entries) -> Core {
        let plan = entries.plan;
        if plan.has(Planted::QuorumOfOne) {
            entries.voters = vec![options.member];
        }
        let config = Config {
            id: options.member,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            applied: entries.snapshot_index(),
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: APPLIED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            // Stays off: an append without entries takes up any that come later, whether or not they follow its index.
            batch_append: plan.has(Planted::BatchAppend),
            ..Config::default()
        };
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, entries, &silent).expect("the configuration is constant, the entries checked");
        let mut core = Core {
            role: Role::Follower { term: node.raft.term, leader: None },
            // Another term than any, so that the first is drawn now.
            timeout: Timeout { seed: options.seed, draws: 0, ticks: 0, drawn_for: (u64::MAX, false) },
            node,
            options,
            under_way: None,
            undecided: BTreeMap::new(),
            snapshots_sent: BTreeMap::new(),
            plan,
        };
        core.hold_timeout();
        core
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn entries(&self) -> &Entries {
        self.node.store()
    }

    /// Whether a step without inputs would yield something.
    pub fn has_work(&self) -> bool {
        self.node.has_ready()
    }

    /// Takes in what has happened. Many inputs make one record and one fsync.
    pub fn step(&mut self, inputs: impl IntoIterator<Item = Input>) -> Step {
        assert!(self.under_way.is_none(), "a step comes after the one before it was persisted");
        let mut refused = Vec::new();
        let mut proposals = Vec::new();
        for input in inputs {
            match input {
                Input::Propose(proposal) => proposals.push(proposal),
                other => {
                    self.propose(std::mem::take(&mut proposals), &mut refused);
                    self.take_in(other);
                }
            }
        }
        self.propose(proposals, &mut refused);
        let mut ready = self.node.ready();
        let mut send = ready.take_messages();
        if self.plan.has(Planted::SendBeforePersist) {
            send.extend(ready.take_persisted_messages());
        }
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        let persist = Persist {
            number: ready.number(),
            state: ready.hs().cloned().unwrap_or_else(|| self.node.raft.hard_state()),
            entries: ready.entries().clone(),
            changed: ready.hs().is_some() || !ready.entries().is_empty() || snapshot.is_some(),
            must_sync: ready.must_sync(),
            snapshot,
        };
        self.under_way = Some(ready);
        self.note_snapshots(&send);
        Step { refused, send, persist }
    }

    /// Ends the round.
    pub fn persisted(&mut self, durable: Durable) -> After {
        let mut ready = self.under_way.take().expect("a step comes first");
        assert_eq!(durable.number(), ready.number(), "each step is persisted for itself");
        let mut after = After { send: ready.take_persisted_messages(), ..After::default() };
        let store = self.node.raft.mut_store();
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            let (index, state) = (snapshot.get_metadata().index, snapshot.data.clone());
            store.install(snapshot);
            after.apply.push(Apply::Restore { index, state });
        }
        let early = match self.plan.has(Planted::ApplyBeforeCommit) {
            true => ready.entries().clone(),
            false => Vec::new(),
        };
        ready.take_entries().into_iter().for_each(|entry| store.push(entry));
        if let Some(state) = ready.hs() {
            store.state = state.clone();
        }
        let mut committed = ready.take_committed_entries();
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.raft.mut_store().state.commit = commit;
        }
        committed.extend(light.take_committed_entries());
        after.send.extend(light.take_messages());
        self.node.advance_apply();
        if self.plan.has(Planted::ApplyBeforeCommit) {
            committed = early;
        }
        self.hand_out(committed, &mut after);
        self.follow_role(&mut after);
        self.hold_timeout();
        self.note_snapshots(&after.send);
        after
    }

    /// The state machine's state at `index`, which was applied, is durable as a snapshot.
    pub fn compact(&mut self, index: u64, state: Bytes) {
        self.node.raft.mut_store().compact(index, state);
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Propose(_) => unreachable!("proposals are taken in together"),
            Input::Tick => {
                self.node.tick();
                self.give_up_snapshots();
            }
            // The algorithm answers a message it cannot use with an error and forgets it.
            Input::Message(message) if self.accepts(&message) => drop(self.node.step(message)),
            Input::Message(_) => {}
            Input::Campaign => drop(self.node.campaign()),
            Input::StepDown(term) => {
                let raft = &mut self.node.raft;
                if raft.state == StateRole::Leader && raft.term == term {
                    raft.become_follower(term, INVALID_ID);
                }
            }
        }
        self.hold_timeout();
    }

    /// All at once, so that they travel in one message.
    fn propose(&mut self, mut proposals: Vec<Proposal>, refused: &mut Vec<(u64, Refusal)>) {
        let too_long = |proposal: &Proposal| proposal.data.len() > PROPOSAL_BYTES_MAX;
        refused.extend(proposals.extract_if(.., |p| too_long(p)).map(|proposal| (proposal.id, Refusal::TooLong)));
        if proposals.is_empty() {
            return;
        }
        let raft = &self.node.raft;
        let refusal = match raft.state == StateRole::Leader {
            true => {
                let entry = |proposal: &Proposal| {
                    assert!(!proposal.data.is_empty(), "an empty entry is a new leader's");
                    Entry { data: proposal.data.clone(), ..Entry::default() }
                };
                let mut message = Message { from: self.options.member, ..Message::default() };
                message.set_msg_type(MessageType::MsgPropose);
                message.set_entries(proposals.iter().map(entry).collect::<Vec<_>>().into());
                self.node.step(message).err().map(|_| Refusal::Busy)
            }
            false => Some(Refusal::NotLeader { leader: Some(raft.leader_id).filter(|leader| *leader != 0) }),
        };
        let ids = proposals.iter().map(|proposal| proposal.id);
        match refusal {
            Some(refusal) => refused.extend(ids.map(|id| (id, refusal))),
            None => {
                let raft = &self.node.raft;
                let first = raft.raft_log.last_index() + 1 - proposals.len() as u64;
                self.undecided.extend((first..).zip(ids.map(|id| (raft.term, id))));
            }
        }
    }

    /// From a voter to us, of a kind members send: no proposals, no transfer of leadership, nothing local.
    fn accepts(&self, message: &Message) -> bool {
        use MessageType::*;
        let known = matches!(
            message.get_msg_type(),
            MsgAppend
                | MsgAppendResponse
                | MsgRequestVote
                | MsgRequestVoteResponse
                | MsgRequestPreVote
                | MsgRequestPreVoteResponse
                | MsgSnapshot
                | MsgHeartbeat
                | MsgHeartbeatResponse
        );
        let member = self.options.member;
        known && message.to == member && message.from != member && self.entries().voters().contains(&message.from)
    }

    /// Committed entries, and what they say of proposals.
    fn hand_out(&mut self, committed: Vec<Entry>, after: &mut After) {
        for entry in committed {
            assert_eq!(entry.get_entry_type(), EntryType::EntryNormal, "the membership never changes");
            if let Some((term, id)) = self.undecided.remove(&entry.index) {
                let decided = match term == entry.term {
                    true => Decided::Committed { index: entry.index },
                    // A later leader's entry has its place.
                    false => Decided::Unknown,
                };
                after.decided.push((id, decided));
            }
            after.apply.push(Apply::Entry { index: entry.index, term: entry.term, data: entry.data });
        }
        if self.plan.has(Planted::AcknowledgeBeforeCommit) {
            let last = self.entries().last();
            let early = self.undecided.iter().filter(|(index, _)| **index <= last);
            let early = early.map(|(index, (_, id))| (*id, Decided::Committed { index: *index })).collect::<Vec<_>>();
            self.undecided.retain(|index, _| *index > last);
            after.decided.extend(early);
        }
    }

    fn follow_role(&mut self, after: &mut After) {
        let raft = &self.node.raft;
        let term = raft.term;
        let role = match raft.state {
            StateRole::Leader => Role::Leader { term },
            StateRole::Follower => Role::Follower { term, leader: Some(raft.leader_id).filter(|leader| *leader != 0) },
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate { term },
        };
        if role == self.role {
            return;
        }
        self.role = role;
        after.role = Some(role);
        self.snapshots_sent.clear();
        let undecided = std::mem::take(&mut self.undecided);
        after.decided.extend(undecided.into_values().map(|(_, id)| (id, Decided::Unknown)));
    }

    fn hold_timeout(&mut self) {
        let raft = &self.node.raft;
        let drawn_for = (raft.term, raft.state == StateRole::Leader);
        if self.timeout.drawn_for != drawn_for {
            self.timeout.drawn_for = drawn_for;
            self.timeout.ticks = self.options.election_ticks + self.timeout.draw(self.options.election_ticks);
        }
        self.node.raft.set_randomized_election_timeout(self.timeout.ticks);
    }

    fn note_snapshots(&mut self, sent: &[Message]) {
        let snapshots = sent.iter().filter(|message| message.get_msg_type() == MessageType::MsgSnapshot);
        self.snapshots_sent.extend(snapshots.map(|message| (message.to, 0)));
    }

    /// A member that was sent a snapshot gets nothing else until it answers; a lost one must be noticed.
    fn give_up_snapshots(&mut self) {
        let limit = self.options.snapshot_ticks;
        let mut lost = Vec::new();
        self.snapshots_sent.retain(|member, ticks| {
            *ticks += 1;
            if *ticks >= limit {
                lost.push(*member);
            }
            *ticks < limit
        });
        for member in lost {
            let progress = self.node.raft.prs().get(member);
            if progress.is_some_and(|progress| progress.state == ProgressState::Snapshot) {
                self.node.report_snapshot(member, SnapshotStatus::Failure);
            }
        }
    }
}

impl Timeout {
    /// Below `bound`; the finalizer of splitmix64.
    fn draw(&mut self, bound: usize) -> usize {
        self.draws += 1;
        let mut z = self.seed.wrapping_add(self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
