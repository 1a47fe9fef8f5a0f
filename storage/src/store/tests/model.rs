//! Random lives of a store against a naive twin: a list of rows with the commits that added and removed them.
//! `SERIATIM_SEED` replays one.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const CHUNKS: u64 = 3;
/// No two rows of this one have the same time and host.
const KEYED: u32 = 2;

/// What must have happened in a run, or it says nothing about it.
static DUPLICATES: AtomicU64 = AtomicU64::new(0);
static WAITS: AtomicU64 = AtomicU64::new(0);
static MERGES: AtomicU64 = AtomicU64::new(0);
static REFUSALS: AtomicU64 = AtomicU64::new(0);

/// What a transaction changes. Rows are known by their number.
#[derive(Default, Clone)]
struct Work {
    added: Vec<(u32, Row)>,
    removed: Vec<(u32, i64)>,
}

impl Work {
    fn touches(&self, pick: impl Fn(u32) -> bool) -> bool {
        self.added.iter().any(|(chunk, _)| pick(*chunk)) || self.removed.iter().any(|(chunk, _)| pick(*chunk))
    }

    fn removes(&self, row: &Row) -> bool {
        self.removed.iter().any(|(_, number)| Some(*number) == row.number)
    }
}

struct Kept {
    chunk: u32,
    row: Row,
    added: u64,
    removed: Option<u64>,
}

#[derive(Default)]
struct Twin {
    committed: Vec<Kept>,
    staged: BTreeMap<u64, Work>,
    prepared: BTreeMap<u64, Work>,
    /// Prepared before a restart: closed to readers.
    in_doubt: BTreeSet<u64>,
    /// Prepared, then aborted: the abort may be lost in a power cut.
    aborted: BTreeSet<u64>,
    outcomes: BTreeMap<u64, u64>,
    dropped: BTreeSet<u32>,
    /// Addresses that a scan gave some time ago: chunk, the row's number, where it was.
    remembered: Vec<(u32, i64, Address)>,
    /// Which commits were there when.
    marks: Vec<(u64, u64)>,
    /// Snapshots below it may be refused.
    floor: u64,
}

impl Twin {
    fn rows(&self, chunk: u32, snapshot: u64) -> Vec<Row> {
        self.rows_for(chunk, snapshot, None)
    }

    /// As a transaction sees them.
    fn rows_for(&self, chunk: u32, snapshot: u64, own: Option<&Work>) -> Vec<Row> {
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

    fn commit(&mut self, number: u64, seq: u64) {
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
    fn taken(&self, id: u64, number: i64) -> bool {
        let open = self.staged.iter().chain(&self.prepared).filter(|(other, _)| **other != id);
        open.into_iter().any(|(_, work)| work.removed.iter().any(|(_, other)| *other == number))
            || self.committed.iter().any(|kept| kept.row.number == Some(number) && kept.removed.is_some())
    }

    /// Whether rows with keys are refused, and whether they have to wait for another transaction. `removing` is what the
    /// same call removes.
    fn verdict(&self, id: u64, chunk: u32, rows: &[Row], removing: &[(u32, i64)]) -> (bool, bool) {
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

    fn closed(&self, chunk: u32) -> bool {
        self.in_doubt.iter().any(|id| self.prepared[id].touches(|at| at == chunk))
    }
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

#[test]
fn a_store_is_a_list_of_committed_rows() {
    let replayed = std::env::var("SERIATIM_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = replayed.map_or(0..400, |seed| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| live(seed));
        assert!(outcome.is_ok(), "failed with SERIATIM_SEED={seed}");
    }
    let counts = [&DUPLICATES, &WAITS, &MERGES, &REFUSALS].map(|count| count.load(Ordering::SeqCst));
    let happened = counts.iter().all(|count| *count > 0);
    assert!(replayed.is_some() || happened, "duplicate keys, waits, merges, snapshots too old: {counts:?}");
}

fn live(seed: u64) {
    let mut dice = Dice(seed);
    let vfs = SimVfs::new(seed);
    let clock = Arc::new(TestClock(AtomicU64::new(0)));
    let reopen = || open_at(&vfs, StoreOptions { merge_segments_min: 2, ..options() }, &clock);
    let mut store = reopen().unwrap();
    store.attach(identity()).unwrap();
    let mut twin = Twin::default();
    let (mut number, mut seq, mut row_number) = (0, 0, 0);
    for _ in 0..80 {
        match dice.below(29) {
            0..=6 => {
                let chunk = dice.below(CHUNKS) as u32;
                let old = if dice.below(2) == 0 { pick(&mut dice, &twin.staged) } else { None };
                let id = old.unwrap_or_else(|| {
                    number += 1;
                    number
                });
                let most = if chunk == KEYED { 4 } else { 30 };
                let rows = (0..1 + dice.below(most)).map(|_| {
                    row_number += 1;
                    dice.row(row_number)
                });
                let mut rows = rows.collect::<Vec<_>>();
                let mut writes = Vec::new();
                let mut removed = Vec::new();
                if chunk == KEYED && dice.below(2) == 0 && !twin.dropped.contains(&chunk) && !twin.closed(chunk) {
                    // As an update does: a row goes, and one with its key comes.
                    let scan = ScanRequest { txn: Some(txn(id)), ..request(chunk, seq) };
                    let found = addressed(&store, scan).unwrap();
                    if !found.is_empty() {
                        let (old, at) = &found[dice.below(found.len() as u64) as usize];
                        rows.truncate(1);
                        (rows[0].time, rows[0].host) = (old.time, old.host.clone());
                        writes.push(removal(chunk, &[*at]));
                        removed.push((chunk, old.number.unwrap()));
                    }
                }
                writes.push(keyed(chunk, &rows));
                let (refused, locked) = twin.verdict(id, chunk, &rows, &removed);
                match store.stage(txn(id), writes) {
                    Ok(()) => {
                        assert!(!refused && !locked && !twin.dropped.contains(&chunk));
                        let work = twin.staged.entry(id).or_default();
                        work.added.extend(rows.into_iter().map(|row| (chunk, row)));
                        work.removed.extend(removed);
                    }
                    Err(error) => {
                        let expected = match &error {
                            StorageError::ChunkDropped(_) => twin.dropped.contains(&chunk),
                            StorageError::Duplicate { .. } => refused,
                            StorageError::LockTimeout { .. } => locked,
                            StorageError::Conflict(_) => removed.iter().any(|(_, row)| twin.taken(id, *row)),
                            _ => false,
                        };
                        assert!(expected, "{error}");
                        DUPLICATES
                            .fetch_add(u64::from(matches!(error, StorageError::Duplicate { .. })), Ordering::SeqCst);
                        WAITS.fetch_add(u64::from(matches!(error, StorageError::LockTimeout { .. })), Ordering::SeqCst);
                        assert!(store.prepare(txn(id)).is_err(), "it lacks rows");
                        store.abort(txn(id)).unwrap();
                        twin.staged.remove(&id);
                    }
                }
            }
            26..=28 => {
                clock.0.fetch_add(dice.below(400), Ordering::SeqCst);
                let now = clock.0.load(Ordering::SeqCst);
                let old = twin.marks.iter().filter(|(then, _)| then + 600 <= now).map(|(_, seq)| *seq);
                twin.floor = old.max().unwrap_or(0).max(twin.floor);
                twin.marks.push((now, seq));
                MERGES.fetch_add(store.merge_due().unwrap() as u64, Ordering::SeqCst);
            }
            20..=25 => {
                let old = if dice.below(3) > 0 { pick(&mut dice, &twin.staged) } else { None };
                let id = old.unwrap_or_else(|| {
                    number += 1;
                    number
                });
                remove(&store, &mut twin, &mut dice, id, seq);
            }
            7..=8 => {
                let Some(id) = pick(&mut dice, &twin.staged) else { continue };
                if twin.staged[&id].touches(|chunk| twin.dropped.contains(&chunk)) {
                    assert!(store.prepare(txn(id)).is_err());
                    store.abort(txn(id)).unwrap();
                    twin.staged.remove(&id);
                } else {
                    store.prepare(txn(id)).unwrap();
                    let rows = twin.staged.remove(&id).unwrap();
                    twin.prepared.insert(id, rows);
                }
            }
            9..=11 => {
                let (from, mode) = match dice.below(2) {
                    0 => (&twin.staged, CommitMode::OnePhase),
                    _ => (&twin.prepared, CommitMode::Prepared),
                };
                let Some(id) = pick(&mut dice, from) else { continue };
                seq += 1;
                let gone = from[&id].touches(|chunk| twin.dropped.contains(&chunk));
                let committed = store.commit(txn(id), CommitSeq(seq), mode);
                if mode == CommitMode::OnePhase && gone {
                    assert!(matches!(committed, Err(StorageError::ChunkDropped(_))));
                    continue;
                }
                committed.unwrap();
                twin.commit(id, seq);
                store.commit(txn(id), CommitSeq(seq), mode).unwrap();
            }
            12 => {
                let from = if dice.below(2) == 0 { &mut twin.staged } else { &mut twin.prepared };
                let Some(id) = pick(&mut dice, from) else { continue };
                store.abort(txn(id)).unwrap();
                from.remove(&id);
                twin.in_doubt.remove(&id);
                twin.aborted.insert(id);
            }
            13..=15 => {
                let chunk = dice.below(CHUNKS) as u32;
                store.seal(ChunkId(chunk)).unwrap();
            }
            16 if dice.below(4) == 0 => {
                let chunk = dice.below(CHUNKS) as u32;
                store.drop_chunks(&[ChunkId(chunk)]).unwrap();
                twin.dropped.insert(chunk);
                twin.committed.retain(|kept| kept.chunk != chunk);
            }
            17 | 18 => {
                match dice.below(3) {
                    0 => {
                        store.close().unwrap();
                        drop(store);
                    }
                    killed => {
                        // A process that was killed does not run its destructors.
                        std::mem::forget(store);
                        if killed == 1 { vfs.kill_process() } else { vfs.restart() }
                    }
                }
                store = reopen().unwrap();
                twin.staged.clear();
                twin.in_doubt = twin.prepared.keys().copied().collect();
                let in_doubt = store.status().in_doubt.iter().map(|txn| txn.number).collect::<BTreeSet<_>>();
                for id in twin.aborted.intersection(&in_doubt) {
                    store.abort(txn(*id)).unwrap();
                }
                let in_doubt = in_doubt.difference(&twin.aborted).copied().collect::<BTreeSet<_>>();
                assert_eq!(in_doubt, twin.in_doubt);
            }
            _ => {}
        }
        check(&store, &twin, &mut dice, seq);
    }
    for (id, seq) in &twin.outcomes {
        assert_eq!(store.outcome(txn(*id)).unwrap(), proto::TxnOutcome::Committed(CommitSeq(*seq)));
    }
    store.close().unwrap();
    assert_eq!(crate::verify(&vfs, Path::new(DIR)), []);
}

fn check(store: &Store, twin: &Twin, dice: &mut Dice, seq: u64) {
    for chunk in 0..CHUNKS as u32 {
        let snapshot = dice.below(seq + 2);
        let found = read(store, chunk, snapshot);
        if twin.dropped.contains(&chunk) {
            assert!(matches!(found, Err(StorageError::ChunkDropped(_))));
        } else if snapshot < twin.floor && matches!(found, Err(StorageError::SnapshotTooOld { .. })) {
            REFUSALS.fetch_add(1, Ordering::SeqCst);
        } else if twin.closed(chunk) {
            assert!(matches!(found, Err(StorageError::InDoubt { .. })));
        } else {
            assert_eq!(found.unwrap(), twin.rows(chunk, snapshot));
            let (low, high) = (dice.below(1000) as i64 - 500, dice.below(1000) as i64 - 500);
            let mut pruned = request(chunk, snapshot);
            let int = |value| Some(proto::Scalar::Int(value));
            pruned.predicates.push(range(TIME, int(low), int(high)));
            let inside = |row: &Row| row.time >= low && row.time <= high;
            let mut found = rows_of(store.scan(pruned).unwrap()).unwrap();
            found.retain(inside);
            found.sort();
            let mut expected = twin.rows(chunk, snapshot);
            expected.retain(inside);
            assert_eq!(found, expected);
            if let Some(id) = pick(dice, &twin.staged) {
                let own = ScanRequest { txn: Some(txn(id)), ..request(chunk, snapshot) };
                let mut found = rows_of(store.scan(own).unwrap()).unwrap();
                found.sort();
                assert_eq!(found, twin.rows_for(chunk, snapshot, Some(&twin.staged[&id])));
            }
            let stats = store.chunk_stats(&[ChunkId(chunk)]).unwrap();
            assert_eq!(stats.first().map_or(0, |stats| stats.rows), twin.rows(chunk, seq).len() as u64);
        }
    }
}

/// Removes a few rows: those a scan shows now, or at addresses that may have become outdated.
fn remove(store: &Store, twin: &mut Twin, dice: &mut Dice, id: u64, seq: u64) {
    let chunk = dice.below(CHUNKS) as u32;
    let remembered = dice.below(3) == 0;
    let mut picked = if remembered {
        twin.remembered.iter().filter(|(at, ..)| *at == chunk).map(|(_, row, at)| (*row, *at)).collect::<Vec<_>>()
    } else if twin.dropped.contains(&chunk) || twin.closed(chunk) {
        return;
    } else {
        let scan = ScanRequest { txn: Some(txn(id)), ..request(chunk, seq) };
        let found = addressed(store, scan).unwrap();
        found.into_iter().map(|(row, at)| (row.number.unwrap(), at)).collect()
    };
    picked.retain(|_| dice.below(4) == 0);
    if !remembered && dice.below(2) == 0 {
        // Nobody but its own transaction has a use for the address of an uncommitted row.
        picked.retain(|(row, _)| twin.committed.iter().any(|kept| kept.row.number == Some(*row)));
        twin.remembered.extend(picked.iter().map(|(row, at)| (chunk, *row, *at)));
        return;
    }
    if picked.is_empty() {
        return;
    }
    let addresses = picked.iter().map(|(_, at)| *at).collect::<Vec<_>>();
    let taken = picked.iter().any(|(row, _)| twin.taken(id, *row));
    match store.stage(txn(id), vec![removal(chunk, &addresses)]) {
        Ok(()) => {
            assert!(!taken && !twin.dropped.contains(&chunk), "rows {picked:?}");
            let work = twin.staged.entry(id).or_default();
            let fresh = picked.iter().filter(|(row, _)| !work.removed.contains(&(chunk, *row)));
            let fresh = fresh.map(|(row, _)| (chunk, *row)).collect::<Vec<_>>();
            work.removed.extend(fresh);
        }
        Err(error) => {
            let outdated = matches!(error, StorageError::Conflict(_)) && remembered;
            let locked = matches!(error, StorageError::LockTimeout { .. } | StorageError::Conflict(_)) && taken;
            let dropped = matches!(error, StorageError::ChunkDropped(_)) && twin.dropped.contains(&chunk);
            assert!(outdated || locked || dropped, "{error}");
            assert!(store.commit(txn(id), CommitSeq(seq + 1), CommitMode::OnePhase).is_err());
            store.abort(txn(id)).unwrap();
            twin.staged.remove(&id);
        }
    }
}
