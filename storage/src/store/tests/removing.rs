//! Removing rows by address: who sees what, who waits, what sealing and restarts keep.

use super::*;
use proto::SqlState;

fn rows(count: i64) -> Vec<Row> {
    (0..count).map(|i| row(i * 7919 % count, &format!("host_{:02}", i % 50), i as f64, i)).collect()
}

/// Removes the rows for which `pick` holds, as the latest snapshot shows them, without committing.
fn stage_removal(store: &Store, number: u64, chunk: u32, pick: impl Fn(&Row) -> bool) -> Result<usize> {
    let found = addressed(store, ScanRequest { txn: Some(txn(number)), ..request(chunk, u64::MAX) })?;
    let addresses = found.into_iter().filter(|(row, _)| pick(row)).map(|(_, at)| at).collect::<Vec<_>>();
    store.stage(txn(number), SubTxn::FIRST, vec![removal(chunk, &addresses)])?;
    Ok(addresses.len())
}

fn remove(store: &Store, number: u64, seq: u64, chunk: u32, pick: impl Fn(&Row) -> bool) -> Result<usize> {
    let count = stage_removal(store, number, chunk, pick)?;
    store.commit(txn(number), CommitSeq(seq), CommitMode::OnePhase)?;
    Ok(count)
}

fn code<T>(result: Result<T>) -> SqlState {
    proto::Error::from(result.err().expect("refused")).code
}

fn numbers(rows: Vec<Row>) -> Vec<i64> {
    let mut numbers = rows.into_iter().map(|row| row.number.unwrap()).collect::<Vec<_>>();
    numbers.sort();
    numbers
}

#[test]
fn a_removal_hides_rows_from_later_snapshots_wherever_the_rows_are() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(100)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    insert(&store, 2, 2, 1, &[row(5, "x", 1.0, 1000), row(6, "x", 1.0, 1001)]).unwrap();
    let odd = |row: &Row| row.number.unwrap() % 2 == 1;
    assert_eq!(remove(&store, 3, 3, 1, odd).unwrap(), 51);
    // Twice as it is, twice sealed, twice after a restart: the second seal finds nothing, and the second restart too.
    let mut store = store;
    for round in 0..6 {
        let counts = (0..5).map(|snapshot| read(&store, 1, snapshot).unwrap().len()).collect::<Vec<_>>();
        assert_eq!(counts, [0, 100, 102, 51, 51], "round {round}");
        assert!(read(&store, 1, 3).unwrap().iter().all(|row| !odd(row)));
        assert_eq!(store.chunk_stats(&[ChunkId(1)]).unwrap()[0].rows, 51);
        match round {
            2 | 3 => assert_eq!(store.seal(ChunkId(1)).unwrap(), round == 2),
            4 | 5 => {
                std::mem::forget(store);
                vfs.restart();
                store = try_open(&vfs).unwrap();
            }
            _ => {}
        }
    }
    store.close().unwrap();
    assert_eq!(crate::verify(&vfs, Path::new(DIR)), []);
}

#[test]
fn removals_in_the_log_come_back_after_a_restart() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(10)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    insert(&store, 2, 2, 1, &[row(5, "x", 1.0, 1000)]).unwrap();
    remove(&store, 3, 3, 1, |row| row.number == Some(1000) || row.number == Some(3)).unwrap();
    std::mem::forget(store);
    vfs.restart();
    let store = try_open(&vfs).unwrap();
    assert_eq!((read(&store, 1, 2).unwrap().len(), read(&store, 1, 3).unwrap().len()), (11, 9));
}

#[test]
fn a_transaction_sees_its_own_removals_and_can_remove_its_own_rows() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(10)).unwrap();
    store.stage(txn(2), SubTxn::FIRST, vec![write(1, &[row(1, "own", 1.0, 50), row(2, "own", 1.0, 51)])]).unwrap();
    let picked = |row: &Row| [Some(4), Some(51)].contains(&row.number);
    assert_eq!(stage_removal(&store, 2, 1, picked).unwrap(), 2);
    let own = ScanRequest { txn: Some(txn(2)), ..request(1, 1) };
    let expected = vec![0, 1, 2, 3, 5, 6, 7, 8, 9, 50];
    assert_eq!(numbers(rows_of(store.scan(own.clone()).unwrap()).unwrap()), expected);
    assert_eq!(read(&store, 1, 1).unwrap().len(), 10, "nobody else does");
    // An update of an update.
    store.stage(txn(2), SubTxn::FIRST, vec![write(1, &[row(1, "own", 2.0, 60)])]).unwrap();
    assert_eq!(stage_removal(&store, 2, 1, |row| row.number == Some(50)).unwrap(), 1);
    store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap();
    for _ in 0..2 {
        assert_eq!(numbers(read(&store, 1, 2).unwrap()), [0, 1, 2, 3, 5, 6, 7, 8, 9, 60]);
        store.seal(ChunkId(1)).unwrap();
    }
}

#[test]
fn positions_are_right_when_pages_and_young_rows_are_skipped() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(90_000)).unwrap();
    insert(&store, 2, 2, 1, &rows(50_000)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    let host = proto::PredicateKind::OneOf(vec![
        proto::Scalar::Text("host_07".to_owned()),
        proto::Scalar::Text("host_31".to_owned()),
    ]);
    let mut pruned = request(1, 1);
    pruned.predicates = vec![ColumnPredicate { column: HOST, kind: host }];
    let found = addressed(&store, pruned).unwrap();
    assert!(found.len() < 60_000, "pages are skipped");
    let all = addressed(&store, request(1, 2)).unwrap().into_iter().map(|(row, at)| (at, row));
    let all = all.collect::<std::collections::HashMap<_, _>>();
    assert_eq!(all.len(), 140_000, "no two rows have one address");
    assert!(found.iter().all(|(row, at)| all[at] == *row));
    let picked = found.iter().filter(|(row, _)| row.host.as_deref() == Some("host_31")).map(|(_, at)| *at);
    let picked = picked.collect::<Vec<_>>();
    assert_eq!(picked.len(), 1800);
    store.stage(txn(3), SubTxn::FIRST, vec![removal(1, &picked)]).unwrap();
    store.commit(txn(3), CommitSeq(3), CommitMode::OnePhase).unwrap();
    let left = read(&store, 1, 3).unwrap();
    assert_eq!(left.len(), 138_200);
    assert_eq!(left.iter().filter(|row| row.host.as_deref() == Some("host_31")).count(), 1000);
    let mut count = request(1, 3);
    count.columns.clear();
    let counted = store.scan(count).unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>();
    assert_eq!(counted, 138_200);
}

#[test]
fn who_comes_second_is_told_so() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(10)).unwrap();
    let three = |row: &Row| row.number == Some(3);
    let at = addressed(&store, request(1, 1)).unwrap().into_iter().find(|(row, _)| three(row)).unwrap().1;
    store.stage(txn(2), SubTxn::FIRST, vec![removal(1, &[at])]).unwrap();
    assert_eq!(code(store.stage(txn(3), SubTxn::FIRST, vec![removal(1, &[at])])), SqlState::LOCK_NOT_AVAILABLE);
    assert!(store.commit(txn(3), CommitSeq(9), CommitMode::OnePhase).is_err(), "it lacks the removal");
    store.abort(txn(3)).unwrap();
    store.abort(txn(2)).unwrap();
    store.stage(txn(4), SubTxn::FIRST, vec![removal(1, &[at])]).unwrap();
    store.commit(txn(4), CommitSeq(2), CommitMode::OnePhase).unwrap();
    assert_eq!(code(store.stage(txn(5), SubTxn::FIRST, vec![removal(1, &[at])])), SqlState::SERIALIZATION_FAILURE);
    store.seal(ChunkId(1)).unwrap();
    let moved = store.stage(txn(6), SubTxn::FIRST, vec![removal(1, &[at])]);
    assert_eq!(code(moved), SqlState::SERIALIZATION_FAILURE, "the batch is gone");
    let nowhere = [(at.0, 1000), (at.0, -1), (1, 1 << 40)];
    assert!(nowhere.iter().all(|at| store.stage(txn(7), SubTxn::FIRST, vec![removal(1, &[*at])]).is_err()));
    assert!(
        store.stage(txn(8), SubTxn::FIRST, vec![ChunkWrite { kind: WriteKind::Delete, ..write(1, &rows(1)) }]).is_err()
    );
}

#[test]
fn a_waiting_removal_goes_on_when_the_other_transaction_ends() {
    for committed in [false, true] {
        let vfs = SimVfs::new(1);
        let store = try_open_with(&vfs, StoreOptions { lock_wait_max: Duration::from_secs(60), ..options() }).unwrap();
        store.attach(identity()).unwrap();
        insert(&store, 1, 1, 1, &rows(10)).unwrap();
        let (_, at) = addressed(&store, request(1, 1)).unwrap()[0].clone();
        store.stage(txn(2), SubTxn::FIRST, vec![removal(1, &[at])]).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.stage(txn(3), SubTxn::FIRST, vec![removal(1, &[at])]));
            match committed {
                true => store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap(),
                false => store.abort(txn(2)).unwrap(),
            }
            match waiting.join().unwrap() {
                Ok(()) => assert!(!committed),
                Err(error) => assert!(committed && matches!(error, StorageError::Conflict(_)), "{error}"),
            }
        });
    }
}

#[test]
fn rows_that_an_open_transaction_removes_are_not_moved() {
    let vfs = SimVfs::new(1);
    let mut store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(10)).unwrap();
    insert(&store, 2, 2, 1, &[row(1, "b", 1.0, 100)]).unwrap();
    insert(&store, 3, 3, 1, &[row(1, "c", 1.0, 200)]).unwrap();
    stage_removal(&store, 4, 1, |row| row.number == Some(100)).unwrap();
    store.prepare(txn(4)).unwrap();
    assert!(store.seal(ChunkId(1)).unwrap(), "the batch before it is sealed");
    assert!(!store.seal(ChunkId(1)).unwrap());
    let stats = store.chunk_stats(&[ChunkId(1)]).unwrap()[0];
    assert_eq!((stats.rows, stats.segments), (12, 1));
    std::mem::forget(store);
    vfs.restart();
    store = try_open(&vfs).unwrap();
    assert!(matches!(read(&store, 1, 3), Err(StorageError::InDoubt { .. })));
    store.commit(txn(4), CommitSeq(4), CommitMode::Prepared).unwrap();
    for _ in 0..2 {
        assert_eq!(numbers(read(&store, 1, 4).unwrap()), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 200]);
        store.seal(ChunkId(1)).unwrap();
    }
}

#[test]
fn addresses_pin_a_chunk_until_memory_runs_short() {
    let vfs = SimVfs::new(1);
    let clock = Arc::new(TestClock(AtomicU64::new(0)));
    let options = StoreOptions { delta_bytes_max: 64 << 10, seal_age: Duration::from_secs(10), ..options() };
    let store = open_at(&vfs, options, &clock).unwrap();
    store.attach(identity()).unwrap();
    insert(&store, 1, 1, 1, &rows(10)).unwrap();
    let (_, at) = addressed(&store, request(1, 1)).unwrap()[0].clone();
    clock.0.store(59, Ordering::SeqCst);
    assert_eq!(store.seal_due().unwrap(), 0, "somebody has addresses");
    clock.0.store(60, Ordering::SeqCst);
    assert_eq!(store.seal_due().unwrap(), 1);

    insert(&store, 2, 2, 1, &rows(10)).unwrap();
    store.stage(txn(3), SubTxn::FIRST, vec![removal(1, &[(1, 0)])]).unwrap();
    stage_removal(&store, 4, 1, |row| row.number == Some(5)).unwrap();
    let mut number = 10;
    while store.core.state.lock().bytes <= 32 << 10 {
        number += 1;
        insert(&store, number, number, 1, &rows(100)).unwrap();
    }
    let before = read(&store, 1, 100).unwrap().len();
    assert_eq!(store.seal_due().unwrap(), 1);
    let error = store.commit(txn(4), CommitSeq(99), CommitMode::OnePhase);
    assert_eq!(code(error), SqlState::SERIALIZATION_FAILURE, "its rows were moved");
    store.commit(txn(3), CommitSeq(100), CommitMode::OnePhase).unwrap();
    assert_eq!(read(&store, 1, 100).unwrap().len(), before - 1);
    assert!(matches!(store.stage(txn(5), SubTxn::FIRST, vec![removal(1, &[at])]), Err(StorageError::Conflict(_))));
}

#[test]
fn a_dropped_chunk_takes_its_removals_along() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(10)).unwrap();
    remove(&store, 2, 2, 1, |row| row.number == Some(1)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    remove(&store, 3, 3, 1, |row| row.number == Some(2)).unwrap();
    stage_removal(&store, 4, 1, |row| row.number == Some(3)).unwrap();
    store.drop_chunks(&[ChunkId(1)]).unwrap();
    assert!(matches!(store.prepare(txn(4)), Err(StorageError::ChunkDropped(_))));
    store.abort(txn(4)).unwrap();
    assert_eq!(store.core.state.lock().bytes, 0);
    assert!(vfs.list(&Path::new(DIR).join(SEGMENTS_DIR)).unwrap().is_empty());
}

#[test]
fn an_older_format_is_refused_by_name() {
    let vfs = SimVfs::new(1);
    drop(open(&vfs));
    vfs.set_contents(&Path::new(DIR).join("FORMAT"), b"seriatim storage 1\n");
    let error = try_open(&vfs).err().unwrap();
    assert!(matches!(&error, StorageError::Format { found, expected: 3, .. } if found == "1"), "{error}");
}

/// Such a chunk kept the log of the whole node: it was pinned again before each pin ended.
#[test]
fn a_chunk_that_is_changed_all_the_time_is_sealed_all_the_same() {
    let vfs = SimVfs::new(1);
    let clock = Arc::new(TestClock(AtomicU64::new(0)));
    let options = StoreOptions { seal_age: Duration::from_secs(10), ..options() };
    let store = open_at(&vfs, options, &clock).unwrap();
    store.attach(identity()).unwrap();
    insert(&store, 1, 1, 1, &rows(10)).unwrap();
    let sealed_at = (0..300).step_by(30).find(|seconds| {
        clock.0.store(*seconds, Ordering::SeqCst);
        addressed(&store, request(1, 1)).unwrap();
        store.seal_due().unwrap() > 0
    });
    assert_eq!(sealed_at, Some(150), "ten seconds of age and twice the pin, at the next look");
}
