//! Random lives of a store against a naive twin: inserts, updates, upserts, deletes, savepoints and ways back, votes, commits,
//! aborts, seals, merges, changes of order, drops, clean restarts, kills, and power cuts between and within all of these.
//! Every life counts what it did.
//!
//! `SERIATIM_SEED` replays one life, `SERIATIM_ROUNDS` makes more of them.

mod interruption;
mod twin;

use super::*;
use twin::{KEYED, Twin};

const LIVES: u64 = 2000;
const STEPS: usize = 80;
const CHUNKS: u64 = 3;

/// All that must have happened in a run, or it says nothing about it.
const SEEN: [&str; 36] = [
    "insert",
    "update",
    "upsert that inserts",
    "upsert that updates",
    "delete",
    "delete at an outdated address",
    "duplicate key",
    "lock wait",
    "prepare",
    "one-phase commit",
    "commit of a prepared transaction",
    "commit after a restart",
    "abort of a staged transaction",
    "abort of a prepared transaction",
    "abort after a restart",
    "savepoint",
    "discard",
    "discard of what failed",
    "read in doubt",
    "read of a snapshot too old",
    "read of one's own changes",
    "time bounds",
    "seal",
    "reorder",
    "merge",
    "drop",
    "clean restart",
    "kill",
    "power cut",
    "power cut within stage",
    "power cut within prepare",
    "power cut within discard",
    "power cut within commit",
    "power cut within seal",
    "power cut within reorder",
    "power cut within merge",
];

#[test]
fn a_store_is_a_list_of_committed_rows() {
    let replayed = std::env::var("SERIATIM_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = replayed.map_or(0..LIVES * rounds(), |seed| seed..seed + 1);
    let mut counts = Counts::new("random lives");
    for seed in seeds {
        let lived = std::panic::catch_unwind(|| Life::new(seed).live());
        counts.absorb(lived.unwrap_or_else(|_| panic!("failed with SERIATIM_SEED={seed}")));
    }
    counts.at_least(0);
    let missed = SEEN.iter().filter(|what| counts.of(what) == 0).collect::<Vec<_>>();
    assert!(replayed.is_some() || missed.is_empty(), "never happened: {missed:?}");
}

fn keyed(chunk: u32, rows: &[Row]) -> ChunkWrite {
    let mut write = write(chunk, rows);
    if chunk == KEYED {
        write.layout.keys = vec![proto::UniqueKey { name: "key".to_owned(), columns: vec![TIME, HOST] }];
    }
    write
}

fn pick<V>(dice: &mut Dice, map: &BTreeMap<u64, V>) -> Option<u64> {
    let at = dice.below(map.len().max(1) as u64) as usize;
    map.keys().nth(at).copied()
}

struct Life {
    dice: Dice,
    vfs: SimVfs,
    clock: Arc<TestClock>,
    /// `None` only while it is closed.
    store: Option<Store>,
    twin: Twin,
    counts: Counts,
    number: u64,
    seq: u64,
    row_number: i64,
}

impl Life {
    fn new(seed: u64) -> Life {
        let (vfs, clock) = (SimVfs::new(seed), Arc::new(TestClock(AtomicU64::new(0))));
        let mut life = Life {
            dice: Dice(seed),
            vfs,
            clock,
            store: None,
            twin: Twin::default(),
            counts: Counts::new("a life"),
            number: 0,
            seq: 0,
            row_number: 0,
        };
        life.open();
        life.store().attach(identity()).unwrap();
        life
    }

    fn live(mut self) -> Counts {
        for _ in 0..STEPS {
            match self.dice.below(35) {
                0..=6 => self.insert(),
                7..=8 => self.prepare(),
                9..=11 => self.commit(),
                12 => self.abort(),
                13..=15 => self.seal(),
                16 if self.dice.below(4) == 0 => self.drop_chunk(),
                17 => self.restart(),
                18 => self.cut_power_within(),
                20..=25 => self.delete(),
                26..=28 => self.merge(),
                29..=30 => self.savepoint(),
                31 => self.discard(),
                32..=33 => self.reorder(),
                _ => {}
            }
            if self.dice.below(2) == 0 {
                let chunk = self.any_chunk();
                self.check(chunk);
            }
        }
        (0..CHUNKS as u32).for_each(|chunk| self.check(chunk));
        for (id, seq) in &self.twin.outcomes {
            let outcome = self.store().outcome(txn(*id)).unwrap();
            assert_eq!(outcome, proto::TxnOutcome::Committed(CommitSeq(*seq)));
        }
        self.store().close().unwrap();
        assert_eq!(crate::verify(&self.vfs, Path::new(DIR)), []);
        self.counts
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open between two steps")
    }

    fn open(&mut self) {
        self.store =
            Some(open_at(&self.vfs, StoreOptions { merge_segments_min: 2, ..options() }, &self.clock).unwrap());
    }

    fn any_chunk(&mut self) -> u32 {
        self.dice.below(CHUNKS) as u32
    }

    /// An open transaction, so many times `of` so many; else, or if there is none, a new one.
    fn any_txn(&mut self, times: u64, of: u64) -> u64 {
        let old = if self.dice.below(of) < times { pick(&mut self.dice, &self.twin.staged) } else { None };
        old.unwrap_or_else(|| {
            self.number += 1;
            self.number
        })
    }

    /// The number under which the transaction stages now.
    fn sub(&self, id: u64) -> SubTxn {
        SubTxn(self.twin.staged.get(&id).map_or(0, |work| work.sub))
    }

    fn savepoint(&mut self) {
        let Some(id) = pick(&mut self.dice, &self.twin.staged) else { return };
        self.twin.staged.get_mut(&id).expect("just picked").savepoint();
        self.counts.add("savepoint");
    }

    fn discard(&mut self) {
        let Some(id) = pick(&mut self.dice, &self.twin.staged) else { return };
        self.take_back(id);
        self.counts.add("discard");
    }

    fn take_back(&mut self, id: u64) {
        let subs = self.twin.staged.entry(id).or_default().take_back(&mut self.dice);
        self.store().discard(txn(id), subs.clone()).unwrap();
        if self.dice.below(2) == 0 {
            self.store().discard(txn(id), subs).unwrap();
        }
    }

    /// After a change that was refused.
    fn give_up(&mut self, id: u64) {
        match self.dice.below(2) {
            0 => {
                self.store().abort(txn(id)).unwrap();
                self.twin.staged.remove(&id);
            }
            _ => {
                self.take_back(id);
                self.counts.add("discard of what failed");
            }
        }
    }

    /// New rows; in the chunk with a key sometimes in the place of old ones.
    fn insert(&mut self) {
        let chunk = self.any_chunk();
        let id = self.any_txn(1, 2);
        let most = if chunk == KEYED { 4 } else { 30 };
        let rows = (0..1 + self.dice.below(most)).map(|_| {
            self.row_number += 1;
            self.dice.row(self.row_number)
        });
        let mut rows = rows.collect::<Vec<_>>();
        let (mut writes, mut removed) = (Vec::new(), Vec::new());
        let mut what = "insert";
        let readable = !self.twin.dropped.contains(&chunk) && !self.twin.closed(chunk);
        if chunk == KEYED && readable && self.dice.below(2) == 0 {
            let scan = ScanRequest { txn: Some(txn(id)), ..request(chunk, self.seq) };
            let found = addressed(self.store(), scan).unwrap();
            rows.truncate(1);
            let update = self.dice.below(2) == 0 && !found.is_empty();
            if update {
                let (old, _) = &found[self.dice.below(found.len() as u64) as usize];
                (rows[0].time, rows[0].host) = (old.time, old.host.clone());
            }
            let same = |row: &Row| row.time == rows[0].time && row.host == rows[0].host;
            let old = found.iter().find(|(row, _)| same(row)).filter(|(row, _)| row.host.is_some() || update);
            if let Some((row, at)) = old {
                writes.push(removal(chunk, &[*at]));
                removed.push((chunk, row.number.unwrap()));
            }
            what = match (update, old) {
                (true, _) if self.dice.below(2) == 0 => "update",
                (true, _) => "upsert that updates",
                (false, Some(_)) => "upsert that updates",
                (false, None) => "upsert that inserts",
            };
        }
        if chunk == KEYED && writes.is_empty() && self.dice.below(3) == 0 {
            // A key that somebody has, or had.
            let kept = self.twin.committed.iter().filter(|kept| kept.chunk == KEYED).collect::<Vec<_>>();
            if !kept.is_empty() {
                let old = &kept[self.dice.below(kept.len() as u64) as usize].row;
                (rows[0].time, rows[0].host) = (old.time, old.host.clone());
                what = "insert";
            }
        }
        writes.push(keyed(chunk, &rows));
        let (refused, locked) = self.twin.verdict(id, chunk, &rows, &removed);
        match self.store().stage(txn(id), self.sub(id), writes) {
            Ok(()) => {
                assert!(!refused && !locked && !self.twin.dropped.contains(&chunk));
                self.counts.add(what);
                let work = self.twin.staged.entry(id).or_default();
                work.added.extend(rows.into_iter().map(|row| (chunk, row)));
                work.removed.extend(removed);
            }
            Err(error) => {
                let expected = match &error {
                    StorageError::ChunkDropped(_) => self.twin.dropped.contains(&chunk),
                    StorageError::Duplicate { .. } => refused,
                    StorageError::LockTimeout { .. } => locked,
                    StorageError::Conflict(_) => removed.iter().any(|(_, row)| self.twin.taken(id, *row)),
                    _ => false,
                };
                assert!(expected, "{error}");
                match error {
                    StorageError::Duplicate { .. } => self.counts.add("duplicate key"),
                    StorageError::LockTimeout { .. } => self.counts.add("lock wait"),
                    _ => {}
                }
                assert!(self.store().prepare(txn(id)).is_err(), "it lacks rows");
                self.give_up(id);
            }
        }
    }

    /// Removes a few rows: those a scan shows now, or at addresses that may have become outdated.
    fn delete(&mut self) {
        let id = self.any_txn(2, 3);
        let chunk = self.any_chunk();
        let remembered = self.dice.below(3) == 0;
        let mut picked = if remembered {
            let known = self.twin.remembered.iter().filter(|(at, ..)| *at == chunk);
            known.map(|(_, row, at)| (*row, *at)).collect::<Vec<_>>()
        } else if self.twin.dropped.contains(&chunk) || self.twin.closed(chunk) {
            return;
        } else {
            let scan = ScanRequest { txn: Some(txn(id)), ..request(chunk, self.seq) };
            let found = addressed(self.store(), scan).unwrap();
            found.into_iter().map(|(row, at)| (row.number.unwrap(), at)).collect()
        };
        picked.retain(|_| self.dice.below(4) == 0);
        if !remembered && self.dice.below(2) == 0 {
            // Nobody but its own transaction has a use for the address of an uncommitted row.
            picked.retain(|(row, _)| self.twin.committed.iter().any(|kept| kept.row.number == Some(*row)));
            self.twin.remembered.extend(picked.iter().map(|(row, at)| (chunk, *row, *at)));
            return;
        }
        if picked.is_empty() {
            return;
        }
        let addresses = picked.iter().map(|(_, at)| *at).collect::<Vec<_>>();
        let taken = picked.iter().any(|(row, _)| self.twin.taken(id, *row));
        match self.store().stage(txn(id), self.sub(id), vec![removal(chunk, &addresses)]) {
            Ok(()) => {
                assert!(!taken && !self.twin.dropped.contains(&chunk), "rows {picked:?}");
                self.counts.add("delete");
                let work = self.twin.staged.entry(id).or_default();
                let fresh = picked.iter().filter(|(row, _)| !work.removed.contains(&(chunk, *row)));
                let fresh = fresh.map(|(row, _)| (chunk, *row)).collect::<Vec<_>>();
                work.removed.extend(fresh);
            }
            Err(error) => {
                let outdated = matches!(error, StorageError::Conflict(_)) && remembered;
                let locked = matches!(error, StorageError::LockTimeout { .. } | StorageError::Conflict(_)) && taken;
                let dropped = matches!(error, StorageError::ChunkDropped(_)) && self.twin.dropped.contains(&chunk);
                assert!(outdated || locked || dropped, "{error}");
                if outdated && !taken {
                    self.counts.add("delete at an outdated address");
                }
                assert!(self.store().commit(txn(id), CommitSeq(self.seq + 1), CommitMode::OnePhase).is_err());
                self.give_up(id);
            }
        }
    }

    fn prepare(&mut self) {
        let Some(id) = pick(&mut self.dice, &self.twin.staged) else { return };
        if self.twin.staged[&id].touches(|chunk| self.twin.dropped.contains(&chunk)) {
            assert!(self.store().prepare(txn(id)).is_err());
            self.store().abort(txn(id)).unwrap();
            self.twin.staged.remove(&id);
        } else {
            self.store().prepare(txn(id)).unwrap();
            self.counts.add("prepare");
            let work = self.twin.staged.remove(&id).unwrap();
            self.twin.prepared.insert(id, work);
        }
    }

    fn commit(&mut self) {
        let (from, mode) = match self.dice.below(2) {
            0 => (&self.twin.staged, CommitMode::OnePhase),
            _ => (&self.twin.prepared, CommitMode::Prepared),
        };
        let Some(id) = pick(&mut self.dice, from) else { return };
        self.seq += 1;
        let gone = from[&id].touches(|chunk| self.twin.dropped.contains(&chunk));
        let committed = self.store().commit(txn(id), CommitSeq(self.seq), mode);
        if mode == CommitMode::OnePhase && gone {
            assert!(matches!(committed, Err(StorageError::ChunkDropped(_))));
            return;
        }
        committed.unwrap();
        self.counts.add(match mode {
            CommitMode::OnePhase | CommitMode::Asynchronous => "one-phase commit",
            CommitMode::Prepared if self.twin.in_doubt.contains(&id) => "commit after a restart",
            CommitMode::Prepared => "commit of a prepared transaction",
        });
        self.twin.commit(id, self.seq);
        self.store().commit(txn(id), CommitSeq(self.seq), mode).unwrap();
    }

    fn abort(&mut self) {
        let staged = self.dice.below(2) == 0;
        let from = if staged { &self.twin.staged } else { &self.twin.prepared };
        let Some(id) = pick(&mut self.dice, from) else { return };
        self.store().abort(txn(id)).unwrap();
        self.twin.staged.remove(&id);
        self.twin.prepared.remove(&id);
        let in_doubt = self.twin.in_doubt.remove(&id);
        self.twin.aborted.insert(id);
        self.counts.add(match (staged, in_doubt) {
            (true, _) => "abort of a staged transaction",
            (_, true) => "abort after a restart",
            _ => "abort of a prepared transaction",
        });
    }

    fn seal(&mut self) {
        let chunk = ChunkId(self.any_chunk());
        if self.store().seal(chunk).unwrap() {
            self.counts.add("seal");
        }
    }

    fn reorder(&mut self) {
        let (chunk, wanted) = (ChunkId(self.any_chunk()), self.any_layout());
        let before = orders(&self.vfs, chunk);
        self.store().seal_sorted(chunk, &wanted).unwrap();
        let after = orders(&self.vfs, chunk);
        for (number, sort) in after.iter().filter(|(_, sort)| **sort != wanted.sort) {
            assert_eq!(before.get(number), Some(sort), "what is written is in the new order");
        }
        if before.keys().any(|number| !after.contains_key(number)) {
            self.counts.add("reorder");
        }
    }

    fn any_layout(&mut self) -> ChunkLayout {
        let sorts = [vec![HOST, TIME], vec![TIME], vec![NUMBER, TIME], vec![VALUE, HOST, TIME]];
        let at = self.dice.below(sorts.len() as u64) as usize;
        ChunkLayout { sort: sorts[at].clone(), ..layout() }
    }

    fn drop_chunk(&mut self) {
        let chunk = self.any_chunk();
        self.store().drop_chunks(&[ChunkId(chunk)]).unwrap();
        if self.twin.dropped.insert(chunk) {
            self.counts.add("drop");
        }
        self.twin.committed.retain(|kept| kept.chunk != chunk);
    }

    /// Time goes on, and snapshots become too old.
    fn age(&mut self) {
        self.clock.0.fetch_add(self.dice.below(400), Ordering::SeqCst);
        let now = self.clock.0.load(Ordering::SeqCst);
        let old = self.twin.marks.iter().filter(|(then, _)| then + 600 <= now).map(|(_, seq)| *seq);
        self.twin.floor = old.max().unwrap_or(0).max(self.twin.floor);
        self.twin.marks.push((now, self.seq));
    }

    fn merge(&mut self) {
        self.age();
        for _ in 0..self.store().merge_due().unwrap() {
            self.counts.add("merge");
        }
    }

    /// One chunk, at some snapshot, and at another through pruning, and as an open transaction sees it.
    fn check(&mut self, chunk: u32) {
        let snapshot = self.dice.below(self.seq + 2);
        let found = read(self.store(), chunk, snapshot);
        if self.twin.dropped.contains(&chunk) {
            assert!(matches!(found, Err(StorageError::ChunkDropped(_))));
        } else if snapshot < self.twin.floor && matches!(found, Err(StorageError::SnapshotTooOld { .. })) {
            self.counts.add("read of a snapshot too old");
        } else if self.twin.closed(chunk) {
            assert!(matches!(found, Err(StorageError::InDoubt { .. })));
            self.counts.add("read in doubt");
        } else {
            assert_eq!(found.unwrap(), self.twin.rows(chunk, snapshot));
            let (low, high) = (self.dice.below(1000) as i64 - 500, self.dice.below(1000) as i64 - 500);
            let mut pruned = request(chunk, snapshot);
            let int = |value| Some(proto::Scalar::Int(value));
            pruned.predicates.push(range(TIME, int(low), int(high)));
            let inside = |row: &Row| row.time >= low && row.time <= high;
            let mut found = rows_of(self.store().scan(pruned).unwrap()).unwrap();
            found.retain(inside);
            found.sort();
            let mut expected = self.twin.rows(chunk, snapshot);
            self.check_time_bounds(chunk, snapshot, None, &expected);
            expected.retain(inside);
            assert_eq!(found, expected);
            if let Some(id) = pick(&mut self.dice, &self.twin.staged) {
                let own = ScanRequest { txn: Some(txn(id)), ..request(chunk, snapshot) };
                let mut found = rows_of(self.store().scan(own).unwrap()).unwrap();
                found.sort();
                assert_eq!(found, self.twin.rows_for(chunk, snapshot, Some(&self.twin.staged[&id])));
                self.check_time_bounds(chunk, snapshot, Some(txn(id)), &found);
                self.counts.add("read of one's own changes");
            }
            let stats = self.store().chunk_stats(&[ChunkId(chunk)]).unwrap();
            let rows = self.twin.rows(chunk, self.seq).len() as u64;
            assert_eq!(stats.first().map_or(0, |stats| stats.rows), rows);
        }
    }

    /// No row lies outside of where the store says that they lie.
    fn check_time_bounds(&mut self, chunk: u32, snapshot: u64, own: Option<TxnId>, rows: &[Row]) {
        let bounds = self.store().time_bounds(ChunkId(chunk), TIME, CommitSeq(snapshot), own);
        if let Some((min, max)) = bounds {
            assert!(rows.iter().all(|row| min <= row.time && row.time <= max), "{min} {max}: {rows:?}");
            self.counts.add("time bounds");
        }
    }
}
