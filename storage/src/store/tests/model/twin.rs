//! What the store should be: a list of rows with the commits that added and removed them, and open transactions.

use super::super::*;
use std::collections::{BTreeMap, BTreeSet};

/// No two rows of this chunk have the same time and host.
pub(super) const KEYED: u32 = 2;

/// What a transaction changes. Rows are known by their number.
#[derive(Default, Clone)]
pub(super) struct Work {
    pub(super) added: Vec<(u32, Row)>,
    pub(super) removed: Vec<(u32, i64)>,
    /// What is staged now belongs to it.
    pub(super) sub: u32,
    /// Sub-transactions, and how much had been added and removed when they began.
    pub(super) savepoints: Vec<(u32, usize, usize)>,
}

impl Work {
    pub(super) fn savepoint(&mut self) {
        self.sub += 1;
        self.savepoints.push((self.sub, self.added.len(), self.removed.len()));
    }

    /// Back to a savepoint, or to the start: the sub-transactions that go.
    pub(super) fn take_back(&mut self, dice: &mut Dice) -> std::ops::Range<SubTxn> {
        let at = dice.below(self.savepoints.len() as u64 + 1) as usize;
        let (from, added, removed) = at.checked_sub(1).map_or((0, 0, 0), |at| self.savepoints[at]);
        self.savepoints.truncate(at);
        self.added.truncate(added);
        self.removed.truncate(removed);
        self.sub += 1;
        SubTxn(from)..SubTxn(self.sub)
    }

    pub(super) fn touches(&self, pick: impl Fn(u32) -> bool) -> bool {
        self.added.iter().any(|(chunk, _)| pick(*chunk)) || self.removed.iter().any(|(chunk, _)| pick(*chunk))
    }

    pub(super) fn removes(&self, row: &Row) -> bool {
        self.removed.iter().any(|(_, number)| Some(*number) == row.number)
    }
}

pub(super) struct Kept {
    pub(super) chunk: u32,
    pub(super) row: Row,
    pub(super) added: u64,
    pub(super) removed: Option<u64>,
}

#[derive(Default)]
pub(super) struct Twin {
    pub(super) committed: Vec<Kept>,
    pub(super) staged: BTreeMap<u64, Work>,
    pub(super) prepared: BTreeMap<u64, Work>,
    /// Prepared before a restart: closed to readers.
    pub(super) in_doubt: BTreeSet<u64>,
    /// Prepared, then aborted: the abort may be lost in a power cut.
    pub(super) aborted: BTreeSet<u64>,
    pub(super) outcomes: BTreeMap<u64, u64>,
    pub(super) dropped: BTreeSet<u32>,
    /// Addresses that a scan gave some time ago: chunk, the row's number, where it was.
    pub(super) remembered: Vec<(u32, i64, Address)>,
    /// Which commits were there when.
    pub(super) marks: Vec<(u64, u64)>,
    /// Snapshots below it may be refused.
    pub(super) floor: u64,
}

impl Twin {
    pub(super) fn rows(&self, chunk: u32, snapshot: u64) -> Vec<Row> {
        self.rows_for(chunk, snapshot, None)
    }

    /// As a transaction sees them.
    pub(super) fn rows_for(&self, chunk: u32, snapshot: u64, own: Option<&Work>) -> Vec<Row> {
        let seen = |kept: &&Kept| {
            let there = kept.added <= snapshot && kept.removed.is_none_or(|seq| seq > snapshot);
            kept.chunk == chunk && there
        };
        let committed = self.committed.iter().filter(seen).map(|kept| &kept.row);
        let added = own.into_iter().flat_map(|own| &own.added).filter(|(at, _)| *at == chunk).map(|(_, row)| row);
        let rows = committed.chain(added).filter(|row| own.is_none_or(|own| !own.removes(row)));
        let mut rows = rows.cloned().collect::<Vec<_>>();
        rows.sort();
        rows
    }

    pub(super) fn commit(&mut self, number: u64, seq: u64) {
        let work = self.staged.remove(&number).or_else(|| self.prepared.remove(&number)).unwrap();
        self.in_doubt.remove(&number);
        self.outcomes.insert(number, seq);
        let added =
            work.added.iter().map(|(chunk, row)| Kept { chunk: *chunk, row: row.clone(), added: seq, removed: None });
        self.committed.extend(added);
        for kept in self.committed.iter_mut().filter(|kept| work.removes(&kept.row)) {
            assert_eq!(kept.removed, None, "removed twice");
            kept.removed = Some(seq);
        }
    }

    /// Whether a row is removed by somebody else than the transaction.
    pub(super) fn taken(&self, id: u64, number: i64) -> bool {
        let open = self.staged.iter().chain(&self.prepared).filter(|(other, _)| **other != id);
        open.into_iter().any(|(_, work)| work.removed.iter().any(|(_, other)| *other == number))
            || self.committed.iter().any(|kept| kept.row.number == Some(number) && kept.removed.is_some())
    }

    /// Whether rows with keys are refused, and whether they have to wait for another transaction. `removing` is what the
    /// same call removes.
    pub(super) fn verdict(&self, id: u64, chunk: u32, rows: &[Row], removing: &[(u32, i64)]) -> (bool, bool) {
        let own = self.staged.get(&id).cloned().unwrap_or_default();
        let own = Work { removed: [own.removed, removing.to_vec()].concat(), ..own };
        let mut locked = removing.iter().any(|(_, number)| self.taken(id, *number));
        if chunk != KEYED {
            return (false, locked);
        }
        let same = |a: &Row, b: &Row| a.host.is_some() && a.host == b.host && a.time == b.time;
        let here = |row: &Row| rows.iter().any(|new| same(new, row));
        let staged = |work: &Work| work.added.iter().any(|(at, row)| *at == chunk && here(row) && !work.removes(row));
        let mut refused = rows.iter().enumerate().any(|(at, row)| rows[..at].iter().any(|other| same(row, other)));
        refused |= staged(&own);
        let others = self.staged.iter().chain(&self.prepared).filter(|(other, _)| **other != id);
        let others = others.map(|(_, work)| work).collect::<Vec<_>>();
        locked |= others.iter().any(|work| staged(work));
        let committed = self.committed.iter().filter(|kept| kept.chunk == chunk && kept.removed.is_none());
        for kept in committed.filter(|kept| here(&kept.row) && !own.removes(&kept.row)) {
            let leaving = others.iter().any(|work| work.removes(&kept.row));
            locked |= leaving;
            refused |= !leaving;
        }
        (refused, locked)
    }

    pub(super) fn closed(&self, chunk: u32) -> bool {
        self.in_doubt.iter().any(|id| self.prepared[id].touches(|at| at == chunk))
    }
}
