//! Random lives of a store against a naive twin: a list of rows with their commit numbers.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const CHUNKS: u64 = 3;

#[derive(Default)]
struct Twin {
    committed: Vec<(u64, u32, Row)>,
    staged: BTreeMap<u64, Vec<(u32, Row)>>,
    prepared: BTreeMap<u64, Vec<(u32, Row)>>,
    /// Prepared before a restart: closed to readers.
    in_doubt: BTreeSet<u64>,
    /// Prepared, then aborted: the abort may be lost in a power cut.
    aborted: BTreeSet<u64>,
    outcomes: BTreeMap<u64, u64>,
    dropped: BTreeSet<u32>,
}

impl Twin {
    fn rows(&self, chunk: u32, snapshot: u64) -> Vec<Row> {
        let visible = self.committed.iter().filter(|(seq, at, _)| *at == chunk && *seq <= snapshot);
        let mut rows = visible.map(|(.., row)| row.clone()).collect::<Vec<_>>();
        rows.sort();
        rows
    }

    fn commit(&mut self, number: u64, seq: u64) {
        let rows = self.staged.remove(&number).or_else(|| self.prepared.remove(&number)).unwrap();
        self.in_doubt.remove(&number);
        self.outcomes.insert(number, seq);
        self.committed.extend(rows.into_iter().map(|(chunk, row)| (seq, chunk, row)));
    }
}

fn pick<V>(dice: &mut Dice, map: &BTreeMap<u64, V>) -> Option<u64> {
    let at = dice.below(map.len().max(1) as u64) as usize;
    map.keys().nth(at).copied()
}

#[test]
fn a_store_is_a_list_of_committed_rows() {
    let seeds = 0..300;
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| live(seed));
        assert!(outcome.is_ok(), "failed with seed {seed}");
    }
}

fn live(seed: u64) {
    let mut dice = Dice(seed);
    let vfs = SimVfs::new(seed);
    let mut store = open(&vfs);
    let mut twin = Twin::default();
    let (mut number, mut seq, mut row_number) = (0, 0, 0);
    for _ in 0..60 {
        match dice.below(20) {
            0..=6 => {
                let chunk = dice.below(CHUNKS) as u32;
                let old = if dice.below(2) == 0 { pick(&mut dice, &twin.staged) } else { None };
                let id = old.unwrap_or_else(|| {
                    number += 1;
                    number
                });
                let rows = (0..1 + dice.below(30)).map(|_| {
                    row_number += 1;
                    dice.row(row_number)
                });
                let rows = rows.collect::<Vec<_>>();
                let staged = store.stage(txn(id), vec![write(chunk, &rows)]);
                if twin.dropped.contains(&chunk) {
                    assert!(matches!(staged, Err(StorageError::ChunkDropped(_))));
                    assert!(store.prepare(txn(id)).is_err(), "it lacks rows");
                    store.abort(txn(id)).unwrap();
                    twin.staged.remove(&id);
                } else {
                    staged.unwrap();
                    twin.staged.entry(id).or_default().extend(rows.into_iter().map(|row| (chunk, row)));
                }
            }
            7..=8 => {
                let Some(id) = pick(&mut dice, &twin.staged) else { continue };
                if twin.staged[&id].iter().any(|(chunk, _)| twin.dropped.contains(chunk)) {
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
                let gone = from[&id].iter().any(|(chunk, _)| twin.dropped.contains(chunk));
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
                twin.committed.retain(|(_, at, _)| *at != chunk);
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
                store = try_open(&vfs).unwrap();
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
        } else if twin.in_doubt.iter().any(|id| twin.prepared[id].iter().any(|(at, _)| *at == chunk)) {
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
        }
    }
}
