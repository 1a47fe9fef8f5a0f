//! Scans that want the last row of each series only: they show the same last rows as scans of everything.

use super::*;
use proto::Latest;
use std::collections::BTreeMap;

/// The youngest row of each group, by the columns that `of` names.
fn youngest(rows: Vec<Row>, of: &[ColumnId]) -> BTreeMap<(Option<String>, Option<i64>), Row> {
    let mut youngest = BTreeMap::new();
    for row in rows {
        let host = if of.contains(&HOST) { row.host.clone() } else { None };
        let number = if of.contains(&NUMBER) { row.number } else { None };
        let last = youngest.entry((host, number)).or_insert_with(|| row.clone());
        if row.time > last.time {
            *last = row;
        }
    }
    youngest
}

/// Whether the scan left any row out.
fn compare(store: &Store, request: ScanRequest, context: &str) -> bool {
    let Ok(all) = store.scan(request.clone()) else { return false };
    let all = rows_of(all).unwrap();
    let mut left_out = false;
    for of in [vec![HOST], vec![], vec![HOST, NUMBER]] {
        let latest = Some(Latest { of: of.clone(), time: TIME });
        let last = rows_of(store.scan(ScanRequest { latest, ..request.clone() }).unwrap()).unwrap();
        left_out |= last.len() < all.len();
        assert!(last.len() == all.len() || !of.contains(&NUMBER), "{context}: numbers tell no series apart");
        assert_eq!(youngest(last, &of), youngest(all.clone(), &of), "{context}, of {of:?}");
    }
    let latest = Some(Latest { of: vec![HOST], time: NUMBER });
    let other = rows_of(store.scan(ScanRequest { latest, ..request }).unwrap()).unwrap();
    assert_eq!(other.len(), all.len(), "{context}: rows are not sorted by the number");
    left_out
}

#[test]
fn last_rows_are_those_of_all_rows_whatever_happened_to_them() {
    let mut left_out = 0;
    for seed in 0..12 {
        let (vfs, mut dice) = (SimVfs::new(seed), Dice(seed));
        let store = try_open_with(&vfs, StoreOptions { address_pin: Duration::ZERO, ..options() }).unwrap();
        store.attach(identity()).unwrap();
        let (mut made, mut seq) = (0, 0);
        for step in 0..14 {
            let context = format!("seed {seed}, step {step}");
            seq += 1;
            let mut own = None;
            match dice.below(4) {
                0 | 1 => {
                    // Times differ, and come in no order.
                    let rows = (0..1 + dice.below(400)).map(|_| {
                        made += 1;
                        Row { time: made * 7919 % 100_003, ..dice.row(made % 3) }
                    });
                    insert(&store, seq, seq, 1, &rows.collect::<Vec<_>>()).unwrap();
                }
                2 => {
                    let found = addressed(&store, request(1, seq)).unwrap();
                    let last = youngest(found.iter().map(|(row, _)| row.clone()).collect(), &[HOST]);
                    let picked = found.into_iter().filter(|(row, _)| last.values().any(|last| last.time == row.time));
                    let picked = picked.filter(|_| dice.below(2) == 0).map(|(_, at)| at).collect::<Vec<_>>();
                    if !picked.is_empty() {
                        store.stage(txn(seq), SubTxn::FIRST, vec![removal(1, &picked)]).unwrap();
                        own = Some(txn(seq));
                    }
                }
                _ => drop(store.merge_due().unwrap()),
            }
            if let Some(txn) = own {
                let before = ScanRequest { txn: own, ..request(1, seq) };
                left_out += usize::from(compare(&store, before, &format!("{context}, before the commit")));
                store.commit(txn, CommitSeq(seq), CommitMode::OnePhase).unwrap();
            }
            if dice.below(2) == 0 {
                store.seal(ChunkId(1)).unwrap();
            }
            for snapshot in seq.saturating_sub(3)..=seq {
                left_out += usize::from(compare(&store, request(1, snapshot), &context));
            }
        }
    }
    assert!(left_out > 50, "rows were left out of {left_out} scans only");
}

#[test]
fn last_rows_come_in_batches_as_wide_as_the_reader_wants() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let rows = (0..24_000).map(|i| row(i, &format!("host_{:04}", i % 1200), 1.0, i)).collect::<Vec<_>>();
    insert(&store, 1, 1, 1, &rows).unwrap();
    store.seal(ChunkId(1)).unwrap();
    let latest = Some(Latest { of: vec![HOST], time: TIME });
    let last = rows_of(store.scan(ScanRequest { latest, ..request(1, 1) }).unwrap()).unwrap();
    assert_eq!(last.len(), 1200);
    assert!(last.iter().all(|row| row.time >= 22_800));
}
