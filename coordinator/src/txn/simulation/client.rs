//! What clients do, one thing at a time each: move amounts between accounts of several nodes, append to one, write to all
//! in several blocks, change the catalog, change their mind, read everything.

use super::app::{Happening, Transactions};
use super::calls::Purpose;
use super::history::Told;
use super::ledger::{PARTITIONS, Row, SLICE_US, TABLE, account, batch, chunks_on};
use super::node::{Reply, Request};
use crate::catalog::{CatalogChange, CatalogState, NodeAlteration, Role};
use crate::ingest::{Site, blocks, route};
use crate::raft::simulation::world::World;
use crate::txn::commit::Claims;
use crate::txn::commit::core::{Commit, Input};
use crate::txn::planted::InSimulation;
use engine::{ChunkDef, KeyDef};
use proto::{ChunkId, ChunkWrite, CommitSeq, NodeName, Result, Slot, SqlState, TableId, TxnId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(super) const CLIENTS: usize = 4;
/// A client that found nobody to talk to.
const RETRY_MS: u64 = 150;
/// Rows go into one slice of time for so long.
const SLICE_MS: u64 = 15_000;
/// 2019-01-01 00:00 UTC.
const BASE_US: i64 = 1_546_300_800_000_000;

/// A transaction that has not ended.
pub(super) struct Open {
    client: usize,
    pub(super) commit: Commit,
    pub(super) participants: BTreeSet<NodeName>,
    pub(super) changes: Vec<CatalogChange>,
    touched: BTreeMap<ChunkId, Arc<ChunkDef>>,
    private: BTreeSet<ChunkId>,
    keys: BTreeMap<TableId, Vec<KeyDef>>,
    pub(super) shared: BTreeSet<(TableId, ChunkId)>,
    /// Blocks still to be sent, by node.
    lanes: BTreeMap<NodeName, VecDeque<Vec<ChunkWrite>>>,
    under_way: usize,
    staged: Result<()>,
    changes_mind: bool,
    asked: bool,
    /// Its catalog, once it is decided.
    pub(super) made: Option<Arc<CatalogState>>,
    /// The snapshot it waits for.
    pub(super) awaits: Option<CommitSeq>,
    begun_healed: bool,
}

pub(super) struct Read {
    pub(super) client: usize,
    begun_ms: u64,
    snapshot: CommitSeq,
    /// What it must see.
    wanted: CommitSeq,
    missing: usize,
    rows: Vec<Row>,
    begun_healed: bool,
}

impl Open {
    pub(super) fn claims(&self) -> Claims<'_> {
        Claims { touched: &self.touched, private: &self.private, keys: &self.keys }
    }
}

impl World<Transactions> {
    pub(super) fn client(&mut self, client: usize) {
        let reigning = |member: &usize| self.app.reigns[*member].is_some() && !self.members[*member].paused;
        let leaders = (0..self.members.len()).filter(reigning).collect::<Vec<_>>();
        if leaders.is_empty() {
            return self.after_app(RETRY_MS, Happening::Client(client));
        }
        // Two, when one of them does not know yet that it was deposed.
        if leaders.len() > 1 {
            self.app.counts.count("two who think they lead");
        }
        let member = self.dice.one_of(&leaders);
        let amount = self.dice.between(1, 1_000) as i64;
        let first = self.dice.between(0, PARTITIONS as u64) as usize;
        let second = (first + self.dice.between(1, PARTITIONS as u64) as usize) % PARTITIONS;
        let (first, second) = (account(first), account(second));
        match self.dice.between(0, 100) {
            0..40 => self.transact(client, member, vec![vec![(first, amount), (second, -amount)]], Vec::new(), false),
            40..65 => self.transact(client, member, vec![vec![(first, amount)]], Vec::new(), false),
            65..75 => {
                let all = (0..PARTITIONS).map(|partition| (account(partition), amount)).collect::<Vec<_>>();
                self.transact(client, member, vec![all.clone(), all], Vec::new(), false);
            }
            75..80 => self.transact(client, member, vec![vec![(first, amount), (second, -amount)]], Vec::new(), true),
            80..84 => {
                let change = self.change(member);
                self.transact(client, member, Vec::new(), vec![change], false);
            }
            _ => self.read(client, member),
        }
    }

    /// The client is done, and thinks for a while.
    pub(super) fn free(&mut self, client: usize) {
        if !self.app.resting {
            let delay_ms = self.dice.between(1, 8 * self.rates.proposal_ms);
            self.after_app(delay_ms, Happening::Client(client));
        }
    }

    /// A node more, a node that is (not) to be used, or a role.
    fn change(&mut self, member: usize) -> CatalogChange {
        let number = self.app.proposals_count as u32;
        let reign = self.app.reigns[member].as_ref().expect("a leader");
        let third = &self.app.nodes[2];
        let known = reign.tip.catalog.node(&third.name).is_ok();
        let assigned = &reign.tip.catalog.table_by_id(TABLE).expect("it is never dropped").hypertable;
        let assigned = assigned.as_ref().expect("a hypertable").data_nodes.len();
        if !known {
            self.app.counts.count("node added");
            return CatalogChange::AddNode(super::ledger::node_def(&third.name, 18_000, third.incarnation));
        }
        if assigned == 2 {
            self.app.counts.count("node given to the table");
            let nodes = self.app.nodes.iter().map(|node| node.name.clone()).collect();
            return CatalogChange::SetDataNodes { table: TABLE, nodes };
        }
        let unavailable = reign.tip.catalog.nodes().find(|node| !node.available).map(|node| node.name.clone());
        let alter = |name, available| {
            let alteration = NodeAlteration { host: None, port: None, database: None, available: Some(available) };
            CatalogChange::AlterNode { name, alteration }
        };
        match unavailable {
            Some(name) => alter(name, true),
            None if !self.healed && self.dice.percent(20) => {
                self.app.counts.count("node marked as not available");
                let number = self.dice.between(0, self.app.nodes.len() as u64) as usize;
                alter(self.app.nodes[number].name.clone(), false)
            }
            None => {
                let name = format!("role{}-{number}", self.now_ms);
                CatalogChange::CreateRole(Role::new(30_000 + number, &name))
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Writing

    /// `bookings`: what is written in one go, a block of it to each node.
    fn transact(
        &mut self,
        client: usize,
        member: usize,
        bookings: Vec<Vec<(i32, i64)>>,
        changes: Vec<CatalogChange>,
        changes_mind: bool,
    ) {
        let slice = (self.now_ms / SLICE_MS).saturating_sub(u64::from(self.dice.percent(20)));
        let time_us = BASE_US + slice as i64 * SLICE_US + 1_000 * self.now_ms as i64 % SLICE_US;
        let (plan, healed) = (self.app.plan, self.healed);
        let reign = self.app.reigns[member].as_mut().expect("a leader");
        reign.running.next += 1;
        reign.running.open.insert(reign.running.next);
        let txn = TxnId { cluster: super::ledger::CLUSTER, epoch: reign.epoch, number: reign.running.next };
        let mut open = Open {
            client,
            commit: Commit::begin(Vec::new(), false, false),
            participants: BTreeSet::new(),
            changes,
            touched: BTreeMap::new(),
            private: BTreeSet::new(),
            keys: BTreeMap::new(),
            shared: BTreeSet::new(),
            lanes: BTreeMap::new(),
            under_way: 0,
            staged: Ok(()),
            changes_mind,
            asked: false,
            made: None,
            awaits: None,
            begun_healed: healed,
        };
        let mut view = Arc::clone(&reign.catalog);
        let table = Arc::clone(view.table_by_id(TABLE).expect("it is never dropped"));
        for bookings in &bookings {
            let rows = batch(&table, time_us, txn, bookings);
            let mut chunk_at = |time: i64, slot: Slot| -> Result<Arc<ChunkDef>> {
                let known = view.chunks(TABLE).find(time, slot).cloned();
                let chunk = match known {
                    Some(chunk) => chunk,
                    None => {
                        let site = Site { table: &table, catalog: &view, time, slot, now_us: 0 };
                        let chunk = reign.new_chunks.open(&site, || Arc::clone(&reign.tip.catalog))?;
                        open.shared.insert((TABLE, chunk.id));
                        let change = CatalogChange::AddChunk(Arc::clone(&chunk));
                        Arc::make_mut(&mut view).apply(&change)?;
                        open.changes.push(change);
                        chunk
                    }
                };
                open.touched.insert(chunk.id, Arc::clone(&chunk));
                Ok(chunk)
            };
            let routed = route(&table, rows, &mut chunk_at).expect("there are nodes");
            for block in blocks(&table.layout(), routed).expect("rows are small") {
                open.lanes.entry(block.node).or_default().push_back(block.writes);
            }
        }
        open.keys.insert(TABLE, table.keys.clone());
        open.participants = open.lanes.keys().cloned().collect();
        if !open.shared.is_empty() {
            self.app.counts.count("transaction with a new chunk");
        }
        let names = open.participants.iter().cloned().collect::<Vec<_>>();
        open.commit = Commit::begin(names.clone(), !open.changes.is_empty(), false).with_plan(plan);
        let amounts = bookings.iter().flatten().map(|booking| booking.1).collect();
        self.app.history.begun(txn, amounts, open.participants.clone());
        reign.open.insert(txn, open);
        self.note(format_args!("client {client} begins {txn} at {member}: {bookings:?} on {names:?}"));
        names.iter().for_each(|node| self.send_block(member, txn, node, false));
        self.settle(member, txn);
    }

    /// The next one waits for the answer to this.
    fn send_block(&mut self, member: usize, txn: TxnId, node: &NodeName, continues: bool) {
        let open = self.open(member, txn);
        let Some(writes) = open.lanes.get_mut(node).and_then(VecDeque::pop_front) else { return };
        open.under_way += 1;
        self.call(member, node, true, Request::Stage { txn, continues, writes }, Purpose::Stage(txn));
    }

    pub(super) fn staged(&mut self, member: usize, txn: TxnId, node: &NodeName, outcome: Result<()>) {
        let open = self.open(member, txn);
        open.under_way -= 1;
        if let Err(error) = outcome {
            open.staged = Err(error);
            open.lanes.clear();
        }
        self.send_block(member, txn, node, true);
        self.settle(member, txn);
    }

    /// All calls are over before the transaction ends.
    fn settle(&mut self, member: usize, txn: TxnId) {
        let open = self.open(member, txn);
        if open.under_way > 0 || open.asked {
            return;
        }
        open.asked = true;
        if open.changes_mind {
            self.app.counts.count("transaction given up");
            let outputs = self.open(member, txn).commit.give_up();
            for input in self.carry_out(member, txn, outputs) {
                self.feed(member, txn, input);
            }
            return;
        }
        let staged = open.staged.clone();
        self.feed(member, txn, Input::Settled(staged));
    }

    fn open(&mut self, member: usize, txn: TxnId) -> &mut Open {
        self.reign(member).and_then(|reign| reign.open.get_mut(&txn)).expect("a transaction outlives its calls")
    }

    pub(super) fn answered(&mut self, member: usize, txn: TxnId, answer: Result<CommitSeq>) {
        let reign = self.app.reigns[member].as_mut().expect("it answered");
        let open = reign.open.remove(&txn).expect("it is answered once");
        let two_phase = open.participants.len() > 1 || !open.changes.is_empty();
        let (told, what) = match answer {
            Ok(seq) if two_phase => (Told::Committed(seq), "two-phase commit"),
            Ok(seq) => (Told::Committed(seq), "one-round commit"),
            Err(error) if error.code == SqlState::TRANSACTION_RESOLUTION_UNKNOWN => {
                (Told::Unknown, if two_phase { "two-phase commit unknown" } else { "one-round commit unknown" })
            }
            Err(_) => (Told::NotCommitted, "transaction refused"),
        };
        self.app.counts.count(what);
        self.app.history.told(txn, told);
        if matches!(told, Told::Committed(_)) && open.begun_healed && open.participants.len() > 1 {
            self.app.committed_again = true;
        }
        self.free(open.client);
    }

    /// Of a process that died.
    pub(super) fn connection_lost(&mut self, member: usize, txn: TxnId) {
        let reign = self.app.reigns[member].as_mut().expect("it reigned");
        let open = reign.open.remove(&txn).expect("it was open");
        let told = if open.asked && !open.changes_mind { Told::Unknown } else { Told::NotCommitted };
        self.app.counts.count("client lost its leader");
        self.app.history.told(txn, told);
        self.free(open.client);
    }

    // ------------------------------------------------------------------------------------------------------------
    // Reading

    /// All rows of all nodes.
    fn read(&mut self, client: usize, member: usize) {
        let early = self.app.planted(InSimulation::SnapshotAboveOpen);
        let reign = self.app.reigns[member].as_ref().expect("a leader");
        // In this order: the catalog must have every chunk that the snapshot shows.
        let snapshot = if early { reign.last } else { reign.sequence.snapshot() };
        let catalog = Arc::clone(&reign.catalog);
        let names = catalog.nodes().map(|node| node.name.clone()).collect::<Vec<_>>();
        if !names.iter().all(|name| self.is_up(member, name)) {
            self.app.counts.count("read without a node");
            return self.free(client);
        }
        let wanted = self.app.history.acknowledged(&names);
        self.app.calls_count += 1;
        let id = self.app.calls_count;
        let read = Read {
            client,
            begun_ms: self.now_ms,
            snapshot,
            wanted,
            missing: names.len(),
            rows: Vec::new(),
            begun_healed: self.healed,
        };
        self.reign(member).expect("a leader").reads.insert(id, read);
        self.note(format_args!("client {client} reads at {snapshot} from {member}"));
        for name in names {
            let chunks = chunks_on(&catalog, &name);
            self.call(member, &name, true, Request::Scan { snapshot, chunks }, Purpose::Read(id));
        }
    }

    pub(super) fn read_answered(&mut self, member: usize, id: u64, answer: Result<Reply>) {
        let reign = self.app.reigns[member].as_mut().expect("it was answered");
        let Some(read) = reign.reads.get_mut(&id) else { return };
        match answer {
            Ok(Reply::Rows(rows)) => {
                read.rows.extend(rows);
                read.missing -= 1;
                if read.missing > 0 {
                    return;
                }
                let read = reign.reads.remove(&id).expect("it was there");
                self.app.counts.count("read");
                self.app.read_again |= read.begun_healed;
                self.app.history.read(read.begun_ms, read.snapshot, read.wanted, read.rows);
                self.free(read.client);
            }
            _ => {
                let read = reign.reads.remove(&id).expect("it was there");
                self.app.counts.count("read that failed");
                self.free(read.client);
            }
        }
    }
}
