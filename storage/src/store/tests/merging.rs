//! Merging: fewer segments, the same rows; removed rows go for good when no snapshot in use can see them.

use super::*;
use crate::vfs::Fault;
use proto::SqlState;

const AGE: u64 = 600;

pub(super) fn batch(number: u64) -> Vec<Row> {
    (0..100).map(|i| row(i * 7 % 100, &format!("host_{}", i % 5), number as f64, (number * 1000) as i64 + i)).collect()
}

pub(super) fn open_with_clock(vfs: &SimVfs) -> (Store, Arc<TestClock>) {
    let clock = Arc::new(TestClock(AtomicU64::new(0)));
    let store = open_at(vfs, StoreOptions { address_pin: Duration::ZERO, ..options() }, &clock).unwrap();
    store.attach(identity()).unwrap();
    (store, clock)
}

pub(super) fn seal_many(store: &Store, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        insert(store, number, number, 1, &batch(number)).unwrap();
        store.seal(ChunkId(1)).unwrap();
    }
}

pub(super) fn stage_removal(store: &Store, number: u64, pick: impl Fn(&Row) -> bool) {
    let found = addressed(store, request(1, u64::MAX)).unwrap().into_iter();
    let picked = found.filter(|(row, _)| pick(row)).map(|(_, at)| at).collect::<Vec<_>>();
    store.stage(txn(number), SubTxn::FIRST, vec![removal(1, &picked)]).unwrap();
}

pub(super) fn remove(store: &Store, number: u64, pick: impl Fn(&Row) -> bool) {
    stage_removal(store, number, pick);
    store.commit(txn(number), CommitSeq(number), CommitMode::OnePhase).unwrap();
}

fn stats(store: &Store) -> (u64, u32) {
    let stats = store.chunk_stats(&[ChunkId(1)]).unwrap()[0];
    (stats.rows, stats.segments)
}

#[test]
fn small_segments_become_one_that_says_the_same() {
    let vfs = SimVfs::new(1);
    let (store, _) = open_with_clock(&vfs);
    seal_many(&store, 1..=3);
    assert_eq!(store.merge_due().unwrap(), 0, "three are few");
    seal_many(&store, 4..=5);
    let before = (0..=6).map(|snapshot| read(&store, 1, snapshot).unwrap()).collect::<Vec<_>>();
    let scan = store.scan(request(1, 5)).unwrap();
    assert_eq!(store.merge_due().unwrap(), 1);
    assert_eq!(stats(&store), (500, 1));
    let after = (0..=6).map(|snapshot| read(&store, 1, snapshot).unwrap()).collect::<Vec<_>>();
    assert_eq!(before, after);
    assert_eq!(rows_of(scan).unwrap().len(), 500, "who was reading goes on");
    assert_eq!(vfs.list(&Path::new(DIR).join(SEGMENTS_DIR)).unwrap().len(), 1);
    assert_eq!(store.merge_due().unwrap(), 0);
    store.close().unwrap();
    drop(store);
    assert_eq!(read(&try_open(&vfs).unwrap(), 1, 5).unwrap(), before[5]);
    assert_eq!(crate::verify(&vfs, Path::new(DIR)), []);
}

#[test]
fn removals_move_along_and_old_addresses_are_refused() {
    let vfs = SimVfs::new(1);
    let (store, _) = open_with_clock(&vfs);
    seal_many(&store, 1..=4);
    let old = addressed(&store, request(1, 4)).unwrap();
    remove(&store, 5, |row| row.number.unwrap() % 10 == 3);
    assert_eq!(store.merge_due().unwrap(), 0, "the removal is in the log only");
    store.seal(ChunkId(1)).unwrap();
    assert_eq!(store.merge_due().unwrap(), 1);
    assert_eq!((read(&store, 1, 4).unwrap().len(), read(&store, 1, 5).unwrap().len()), (400, 360));
    assert!(read(&store, 1, 5).unwrap().iter().all(|row| row.number.unwrap() % 10 != 3));
    let moved = store.stage(txn(6), SubTxn::FIRST, vec![removal(1, &[old[0].1])]);
    assert!(matches!(moved, Err(StorageError::Conflict(_))));
    std::mem::forget(store);
    vfs.restart();
    let store = try_open(&vfs).unwrap();
    assert_eq!((read(&store, 1, 4).unwrap().len(), read(&store, 1, 5).unwrap().len()), (400, 360));
    store.close().unwrap();
    assert_eq!(crate::verify(&vfs, Path::new(DIR)), []);
}

#[test]
fn removed_rows_go_when_no_snapshot_in_use_sees_them() {
    let vfs = SimVfs::new(1);
    let (store, clock) = open_with_clock(&vfs);
    seal_many(&store, 1..=1);
    remove(&store, 2, |row| row.number.unwrap() % 4 == 0);
    store.seal(ChunkId(1)).unwrap();
    let rows = store.chunk_stats(&[ChunkId(1)]).unwrap()[0].rows;
    for now in [0, 1, AGE - 1] {
        clock.0.store(now, Ordering::SeqCst);
        assert_eq!(store.merge_due().unwrap(), 0, "at {now} s");
    }
    clock.0.store(AGE, Ordering::SeqCst);
    remove(&store, 3, |row| row.number.unwrap() % 4 == 1);
    store.seal(ChunkId(1)).unwrap();
    assert_eq!(store.merge_due().unwrap(), 1, "a quarter is gone");
    assert!(store.chunk_stats(&[ChunkId(1)]).unwrap()[0].rows < rows);
    let too_old = proto::Error::from(read(&store, 1, 1).unwrap_err());
    assert_eq!((too_old.code, too_old.message.as_str()), (SqlState::SNAPSHOT_TOO_OLD, "snapshot too old"));
    let check = |store: &Store| {
        for (snapshot, gone) in [(2, 1), (3, 2)] {
            let whole = batch(1).into_iter();
            let mut expected = whole.filter(|row| row.number.unwrap() % 4 >= gone).collect::<Vec<_>>();
            expected.sort();
            assert_eq!(read(store, 1, snapshot).unwrap(), expected);
        }
        assert!(matches!(read(store, 1, 1), Err(StorageError::SnapshotTooOld { .. })));
    };
    check(&store);
    std::mem::forget(store);
    vfs.restart();
    check(&try_open(&vfs).unwrap());
}

#[test]
fn a_segment_of_which_nothing_is_left_goes_as_a_whole() {
    let vfs = SimVfs::new(1);
    let (store, clock) = open_with_clock(&vfs);
    seal_many(&store, 1..=2);
    remove(&store, 3, |row| row.number.unwrap() < 2000);
    store.seal(ChunkId(1)).unwrap();
    store.merge_due().unwrap();
    clock.0.store(AGE, Ordering::SeqCst);
    assert_eq!(store.merge_due().unwrap(), 1);
    assert_eq!(stats(&store), (100, 1));
    let files = vfs.list(&Path::new(DIR).join(SEGMENTS_DIR)).unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    std::mem::forget(store);
    vfs.restart();
    assert_eq!(read(&try_open(&vfs).unwrap(), 1, 3).unwrap().len(), 100);
}

#[test]
fn a_removal_in_progress_is_not_overtaken() {
    let vfs = SimVfs::new(1);
    let (store, _) = open_with_clock(&vfs);
    seal_many(&store, 1..=5);
    stage_removal(&store, 6, |row| row.number == Some(1003));
    assert_eq!(store.merge_due().unwrap(), 1, "the other four");
    assert_eq!(stats(&store), (500, 2));
    store.commit(txn(6), CommitSeq(6), CommitMode::OnePhase).unwrap();
    assert_eq!(read(&store, 1, 6).unwrap().len(), 499);
}

#[test]
fn held_addresses_keep_segments_apart() {
    let vfs = SimVfs::new(1);
    let clock = Arc::new(TestClock(AtomicU64::new(0)));
    let store = open_at(&vfs, options(), &clock).unwrap();
    store.attach(identity()).unwrap();
    seal_many(&store, 1..=4);
    addressed(&store, request(1, 4)).unwrap();
    assert_eq!(store.merge_due().unwrap(), 0);
    clock.0.store(60, Ordering::SeqCst);
    assert_eq!(store.merge_due().unwrap(), 1);
}

#[test]
fn a_damaged_segment_stays_and_the_others_of_the_store_are_merged() {
    let vfs = SimVfs::new(1);
    let (store, _) = open_with_clock(&vfs);
    seal_many(&store, 1..=4);
    let file = Path::new(DIR).join(SEGMENTS_DIR).join("1-2.parquet");
    vfs.flip_bit(&file, 800);
    let error = store.merge_due().unwrap_err();
    assert!(error.to_string().contains("1-2.parquet"), "{error}");
    assert_eq!(store.merge_due().unwrap(), 0, "once is enough");
    assert_eq!(store.poisoned(), None);
    assert_eq!(vfs.list(&Path::new(DIR).join(SEGMENTS_DIR)).unwrap().len(), 4);
}

#[test]
fn writers_readers_and_merges_go_on_side_by_side() {
    let vfs = SimVfs::new(1);
    let options = StoreOptions { merge_segments_min: 2, lock_wait_max: Duration::from_secs(60), ..options() };
    let store = try_open_with(&vfs, StoreOptions { address_pin: Duration::ZERO, ..options }).unwrap();
    store.attach(identity()).unwrap();
    std::thread::scope(|scope| {
        let merging = scope.spawn(|| (0..60).map(|_| store.merge_due().unwrap()).sum::<usize>());
        let reading = scope.spawn(|| {
            for _ in 0..60 {
                let rows = read(&store, 1, u64::MAX).unwrap();
                assert_eq!(rows.len() % 100, 0, "transactions are whole");
            }
        });
        for number in 1..=40 {
            let mut writes = vec![write(1, &batch(number))];
            if number % 3 == 0 {
                let before = |row: &Row| row.number.unwrap() / 1000 == number as i64 - 1;
                let found = addressed(&store, request(1, u64::MAX)).unwrap().into_iter();
                writes.push(removal(1, &found.filter(|(row, _)| before(row)).map(|(_, at)| at).collect::<Vec<_>>()));
            }
            match store.stage(txn(number), SubTxn::FIRST, writes) {
                Ok(()) => store.commit(txn(number), CommitSeq(number), CommitMode::OnePhase).unwrap(),
                Err(StorageError::Conflict(_)) => store.abort(txn(number)).unwrap(),
                Err(error) => panic!("{error}"),
            }
            store.seal(ChunkId(1)).unwrap();
        }
        reading.join().unwrap();
        merging.join().unwrap();
    });
    while store.merge_due().unwrap() > 0 {}
    assert_eq!(store.chunk_stats(&[ChunkId(1)]).unwrap()[0].segments, 1);
    store.close().unwrap();
    assert_eq!(crate::verify(&vfs, Path::new(DIR)), []);
}

/// The new manifest may be in force although the disk reported an error: what it lists must still be there.
#[test]
fn a_failed_merge_takes_nothing_back_that_the_manifest_may_list() {
    let mut failed = 0;
    for at in 0..6 {
        let vfs = SimVfs::new(at);
        let (store, _) = open_with_clock(&vfs);
        seal_many(&store, 1..=5);
        remove(&store, 6, |row| row.number.unwrap() % 10 == 3);
        store.seal(ChunkId(1)).unwrap();
        let before = read(&store, 1, 6).unwrap();
        vfs.set_fault(Fault::DirSyncFails(at));
        failed += u32::from(store.merge_due().is_err());
        vfs.heal();
        drop(store);
        vfs.kill_process();
        let store = try_open(&vfs).unwrap();
        assert_eq!(read(&store, 1, 6).unwrap(), before, "directory sync {at}");
        drop(store);
        assert_eq!(crate::verify(&vfs, Path::new(DIR)), [], "directory sync {at}");
    }
    assert!(failed > 1, "the fault struck {failed} times");
}
