//! The app on the group: leaders that commit transactions, the nodes they commit them on, clients, and the history of it
//! all.

use super::client::CLIENTS;
use super::history::History;
use super::ledger::{self, CLUSTER};
use super::node::{DataNode, Letter, Reply, Request};
use super::reign::Reign;
use crate::catalog::{CatalogChange, CatalogState};
use crate::raft::simulation::app::App;
use crate::raft::simulation::dice::Dice;
use crate::raft::simulation::network::MEMBERS;
use crate::raft::simulation::world::World;
use crate::raft::{Decided, Refusal, Role, StateMachine};
use crate::txn::commit::core::Input;
use crate::txn::planted::{InSimulation, Plan, Planted};
use crate::txn::record::{Machine, Record};
use bytes::Bytes;
use proto::{CommitSeq, Error, NodeName, Result, SqlState, TxnId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use storage::SimVfs;
use storage::vfs::Fault;

pub(super) const NODES: usize = 3;
/// A node's recoveries that may be interrupted in a row.
const INTERRUPTED_STARTS_MAX: u64 = 5;
/// States of members are compared at one index of so many: writing them down takes long.
const STATES_EVERY: u64 = 16;
const HOUSEKEEPING_MS: u64 = 4_000;

pub(super) enum Happening {
    /// A client thinks of something.
    Client(usize),
    /// A request arrives at a node.
    Letter {
        node: usize,
        letter: Letter,
    },
    /// A node's answer arrives.
    Answer {
        member: usize,
        call: u64,
        answer: Result<Reply>,
    },
    /// No answer came.
    Silence {
        member: usize,
        call: u64,
    },
    /// A leader looks after its nodes.
    Watch {
        member: usize,
        epoch: u64,
    },
    /// A member looks at what was proposed to it.
    Work(usize),
    /// It is time to ask again how a transaction ended, …
    Ask {
        member: usize,
        txn: TxnId,
    },
    /// … or to give up asking.
    TimeUp {
        member: usize,
        txn: TxnId,
    },
    StartNode {
        node: usize,
        attempt: u64,
    },
    /// A planted bug's vote, behind its answer.
    LateVote {
        node: usize,
        start: u64,
        txn: TxnId,
    },
    /// A node brings rows into segments; the cluster's nodes change.
    Housekeeping,
}

pub(super) struct Transactions {
    pub(super) plan: Plan,
    pub(super) nodes: Vec<DataNode>,
    pub(super) reigns: Vec<Option<Reign>>,
    pub(super) history: History,
    pub(super) counts: Counts,
    pub(super) calls_count: u64,
    pub(super) proposals_count: u64,
    /// Since trouble ended several nodes have committed something, and somebody has read it.
    pub(super) committed_again: bool,
    pub(super) read_again: bool,
    pub(super) resting: bool,
}

/// How often what happened.
#[derive(Default)]
pub(super) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Counts) {
        other.0.iter().for_each(|(what, times)| *self.0.entry(what).or_default() += times);
    }

    pub(super) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

impl Transactions {
    pub(super) fn new(seed: u64, plan: Plan) -> Transactions {
        let mut dice = Dice::new(!seed);
        Transactions {
            plan,
            nodes: (0..NODES).map(|number| DataNode::new(number, dice.roll(), plan)).collect(),
            reigns: (0..MEMBERS).map(|_| None).collect(),
            history: History::default(),
            counts: Counts::default(),
            calls_count: 0,
            proposals_count: 0,
            committed_again: false,
            read_again: false,
            resting: false,
        }
    }

    pub(super) fn planted(&self, bug: InSimulation) -> bool {
        self.plan.has(Planted::InSimulation(bug))
    }

    pub(super) fn node_number(&self, name: &NodeName) -> usize {
        self.nodes.iter().position(|node| node.name == *name).expect("nodes are never removed")
    }
}

impl App for Transactions {
    type State = Machine;
    type Happening = Happening;

    const SITES: usize = MEMBERS + NODES;
    const LOG_BYTES_MAX: u64 = 40_000;
    const SEGMENT_BYTES_MAX: u64 = 16 << 10;

    /// A table on `dn1` and `dn2`; `dn3` comes later.
    fn genesis(&self) -> Bytes {
        let mut catalog = CatalogState::new(CLUSTER);
        let nodes = &self.nodes[..2];
        let names = nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        let defs = nodes.iter().zip(17_000..).map(|(node, oid)| ledger::node_def(&node.name, oid, node.incarnation));
        let changes = defs.map(CatalogChange::AddNode).chain([CatalogChange::CreateTable(ledger::table(&names))]);
        catalog.apply_commit(CommitSeq(1), &changes.collect::<Vec<_>>()).expect("the changes fit together");
        let machine = Machine { seq: CommitSeq(1), ..Machine::new(catalog) };
        Transactions::encode(&machine)
    }

    fn decode(state: &[u8]) -> Machine {
        <Machine as StateMachine>::decode(state).expect("it was encoded here")
    }

    fn encode(state: &Machine) -> Bytes {
        StateMachine::encode(state).expect("a machine can be written").into()
    }

    fn begin(world: &mut World<Transactions>) {
        (0..CLIENTS).for_each(|client| world.after_app(client as u64, Happening::Client(client)));
        world.after_app(HOUSEKEEPING_MS, Happening::Housekeeping);
    }

    fn happen(world: &mut World<Transactions>, happening: Happening) {
        // A process that does not run now will see to it when it does.
        let of_member = match &happening {
            Happening::Answer { member, .. }
            | Happening::Silence { member, .. }
            | Happening::Watch { member, .. }
            | Happening::Ask { member, .. }
            | Happening::TimeUp { member, .. } => Some(*member),
            _ => None,
        };
        if of_member.is_some_and(|member| world.members[member].paused) {
            return world.after_app(10, happening);
        }
        match happening {
            Happening::Client(client) => world.client(client),
            Happening::Letter { node, letter } => world.letter(node, letter),
            Happening::Answer { member, call, answer } => world.answer(member, call, answer),
            Happening::Silence { member, call } => {
                let silence = Error::new(SqlState::CONNECTION_FAILURE, "no answer").reaction(proto::Reaction::Resolve);
                world.answer(member, call, Err(silence));
            }
            Happening::Watch { member, epoch } => world.watch(member, epoch),
            Happening::Work(member) => world.work(member),
            Happening::Ask { member, txn } => world.ask(member, txn),
            Happening::TimeUp { member, txn } => world.feed(member, txn, Input::TimeUp),
            Happening::StartNode { node, attempt } => world.start_node(node, attempt),
            Happening::LateVote { node, start, txn } => {
                let node = &mut world.app.nodes[node];
                if node.store.is_some() && node.starts_count == start {
                    // The bug has no use for what it says.
                    let _ = node.serve(Request::Prepare(txn));
                }
            }
            Happening::Housekeeping => world.housekeeping(),
        }
    }

    fn apply(world: &mut World<Transactions>, member: usize, index: u64, term: u64, data: Bytes) {
        world.app.history.applied(member, index, term, &data);
        let process = world.process(member);
        if data.is_empty() {
            // All that can ever have been decided before its term is known to the leader from here on.
            if process.core.role() == (Role::Leader { term }) {
                world.begin_reign(member, term);
            }
            return;
        }
        StateMachine::apply(&mut process.state, &data).expect("entries are checked before they are proposed");
        let state = index.is_multiple_of(STATES_EVERY).then(|| Transactions::encode(&process.state));
        if let Some(state) = state {
            world.app.history.state(member, index, state);
        }
        if let Record::Commit { txn, seq, .. } = Record::decode(&data).expect("it was applied") {
            world.app.history.decided(txn, seq);
        }
    }

    fn restored(_: &mut World<Transactions>, _: usize) {}

    fn decided(world: &mut World<Transactions>, member: usize, id: u64, decided: Decided) {
        let recorded = match decided {
            Decided::Committed { .. } => Ok(()),
            Decided::Unknown => Err(Error::new(SqlState::CONNECTION_FAILURE, "another coordinator leads")),
        };
        world.recorded(member, id, recorded);
    }

    fn refused(world: &mut World<Transactions>, member: usize, id: u64, refusal: Refusal) {
        world.recorded(member, id, Err(Error::new(SqlState::CONNECTION_FAILURE, format!("{refusal:?}"))));
    }

    fn role(world: &mut World<Transactions>, member: usize, role: Role) {
        let led = world.app.reigns[member].as_ref().map(|reign| reign.epoch);
        let leads = match role {
            Role::Leader { term } => Some(term),
            _ => None,
        };
        if led.is_some() && led != leads {
            world.app.counts.count("leader deposed with a reign");
            world.end_reign(member, true);
        }
        if let Some(term) = leads {
            world.app.history.leads(member, term);
            if world.app.planted(InSimulation::LeadTooEarly) {
                world.begin_reign(member, term);
            }
        }
    }

    fn stopped(world: &mut World<Transactions>, member: usize) {
        world.end_reign(member, false);
    }

    fn heal(world: &mut World<Transactions>) {
        world.cancel(|happening| matches!(happening, Happening::StartNode { .. }));
        for number in 0..NODES {
            let node = &mut world.app.nodes[number];
            node.vfs.heal();
            node.paused = false;
            match node.store {
                Some(_) => Transactions::pause(world, MEMBERS + number, false),
                None => world.start_node(number, 0),
            }
        }
    }

    fn recovered(world: &World<Transactions>) -> bool {
        world.app.committed_again && world.app.read_again
    }

    fn rest(world: &mut World<Transactions>) {
        world.app.resting = true;
        world.cancel(|happening| matches!(happening, Happening::Client(_) | Happening::Housekeeping));
    }

    fn conclude(world: &mut World<Transactions>) {
        let states = world.members.iter().map(|member| {
            let process = member.process.as_ref().expect("all were started");
            (process.applied, Transactions::encode(&process.state))
        });
        let states = states.collect::<Vec<_>>();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "members differ in the end");
        let machine = Transactions::decode(&states[0].1);
        assert!(machine.undone.is_empty(), "decisions that nobody was told: {:?}", machine.undone);
        let mut rows = Vec::new();
        for node in &world.app.nodes {
            let store = node.store.as_ref().expect("all were started");
            let in_doubt = store.status().in_doubt;
            assert!(in_doubt.is_empty(), "{} is in doubt of {in_doubt:?}", node.name);
            let chunks = ledger::chunks_on(&machine.catalog, &node.name);
            rows.extend(ledger::rows_of(store, CommitSeq(1 << 62), &chunks).expect("the chunks can be read"));
        }
        world.app.history.conclude(rows);
    }

    fn runs(world: &World<Transactions>, site: usize) -> bool {
        world.app.nodes[site - MEMBERS].store.is_some()
    }

    fn vfs(world: &World<Transactions>, site: usize) -> SimVfs {
        world.app.nodes[site - MEMBERS].vfs.clone()
    }

    fn crash(world: &mut World<Transactions>, site: usize, power: bool) {
        world.app.counts.count(if power { "node lost power" } else { "node killed" });
        world.stop_node(site - MEMBERS, power);
    }

    fn pause(world: &mut World<Transactions>, site: usize, paused: bool) {
        let number = site - MEMBERS;
        let node = &mut world.app.nodes[number];
        node.paused = paused;
        if paused {
            return world.app.counts.count("node paused");
        }
        for letter in std::mem::take(&mut node.waiting) {
            world.letter(number, letter);
        }
    }

    fn skew(world: &mut World<Transactions>, site: usize, skewed: bool) {
        let clock = &world.app.nodes[site - MEMBERS].clock;
        // It never goes back: that much a clock promises.
        if skewed {
            clock.wrong_ms.fetch_add(3_600_000, Ordering::Relaxed);
            world.app.counts.count("node's clock jumped");
        }
    }
}

impl World<Transactions> {
    // ------------------------------------------------------------------------------------------------------------
    // A node's life

    pub(super) fn start_node(&mut self, number: usize, attempt: u64) {
        let interrupt = attempt > 0 && attempt < INTERRUPTED_STARTS_MAX && !self.healed;
        let node = &mut self.app.nodes[number];
        if interrupt && self.dice.percent(self.rates.interrupted_start_percent) {
            node.vfs.set_fault(Fault::Crash(self.dice.between(0, 6)));
        }
        match node.start() {
            Ok(()) => {
                node.vfs.heal();
                let in_doubt = node.store.as_ref().expect("just started").status().in_doubt;
                if !in_doubt.is_empty() {
                    self.app.counts.count("node started in doubt");
                }
                self.note(format_args!("node {number} starts, in doubt of {in_doubt:?}"));
            }
            Err(error) => {
                let power = node.vfs.crashed();
                assert!(power || error.is_disk_full(), "node {number} cannot start: {error}");
                node.stop(power);
                self.app.counts.count(if power { "node lost power in recovery" } else { "node's disk full" });
                self.after_app(10, Happening::StartNode { node: number, attempt: attempt + 1 });
            }
        }
    }

    pub(super) fn stop_node(&mut self, number: usize, power: bool) {
        self.note(format_args!("node {number} stops"));
        self.app.nodes[number].stop(power);
        let delay_ms = if self.healed { 1 } else { self.dice.between(1, self.rates.down_ms_max) };
        self.after_app(delay_ms, Happening::StartNode { node: number, attempt: 1 });
    }

    fn letter(&mut self, number: usize, letter: Letter) {
        let node = &mut self.app.nodes[number];
        if node.store.is_none() || letter.start.is_some_and(|start| start != node.starts_count) {
            return;
        }
        if node.paused {
            return node.waiting.push_back(letter);
        }
        node.clock.now_ms.store(self.now_ms, Ordering::Relaxed);
        let Letter { from, call, request, .. } = letter;
        let early_vote = match request {
            Request::Prepare(txn) if self.app.planted(InSimulation::VoteBeforeDurable) => Some(txn),
            _ => None,
        };
        let node = &mut self.app.nodes[number];
        let answer = match early_vote {
            Some(txn) => {
                let start = node.starts_count;
                self.after_app(30, Happening::LateVote { node: number, start, txn });
                Ok(Reply::Done)
            }
            None => node.serve(request),
        };
        if !self.app.nodes[number].is_well() {
            let power = self.app.nodes[number].vfs.crashed();
            self.app.counts.count(if power { "node lost power in write" } else { "node's sync failed" });
            self.app.nodes[number].vfs.heal();
            return self.stop_node(number, power);
        }
        if answer.as_ref().is_err_and(|error| error.code == SqlState::DISK_FULL) {
            self.app.counts.count("node's disk full");
        }
        let takes_ms = self.dice.between(0, self.rates.sync_ms_max + 1);
        let arrivals =
            self.network.arrivals((MEMBERS + number, from), self.now_ms + takes_ms, &mut self.dice, &mut self.tally);
        self.note(format_args!("node {number} answers {call}: {}, arriving {arrivals:?}", Brief(&answer)));
        for at_ms in arrivals {
            let answer = answer.clone();
            self.after_app(at_ms - self.now_ms, Happening::Answer { member: from, call, answer });
        }
    }

    fn housekeeping(&mut self) {
        let delay_ms = self.dice.between(1, 2 * HOUSEKEEPING_MS);
        self.after_app(delay_ms, Happening::Housekeeping);
        let number = self.dice.between(0, NODES as u64) as usize;
        let node = &mut self.app.nodes[number];
        let Some(store) = node.store.as_ref().filter(|_| !node.paused) else { return };
        let mut chunks = store.chunks();
        chunks.sort_unstable();
        if chunks.is_empty() {
            return;
        }
        let chunk = self.dice.one_of(&chunks);
        // A full disk, or the end of the process.
        if store.seal(chunk).is_ok() {
            self.app.counts.count("chunk sealed");
        }
        if !self.app.nodes[number].is_well() {
            let power = self.app.nodes[number].vfs.crashed();
            self.app.nodes[number].vfs.heal();
            self.stop_node(number, power);
        }
    }
}

/// An answer in a trace.
struct Brief<'a>(&'a Result<Reply>);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(Reply::Rows(rows)) => write!(f, "{} rows", rows.len()),
            Ok(Reply::Status(status)) => write!(f, "in doubt of {:?}", status.in_doubt),
            Ok(reply) => write!(f, "{reply:?}"),
            Err(error) => f.write_str(&error.message),
        }
    }
}
