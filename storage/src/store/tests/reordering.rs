//! Reordering: an order that is asked for is the order of all segments afterwards, and the rows are the same.

use super::merging::{batch, open_with_clock, remove, seal_many, stage_removal};
use super::*;
use crate::vfs::Fault;

const CHUNK: ChunkId = ChunkId(1);

fn by_number() -> ChunkLayout {
    ChunkLayout { sort: vec![NUMBER, TIME], ..layout() }
}

fn at_each_snapshot(store: &Store, last: u64) -> Vec<Vec<Row>> {
    (0..=last).map(|snapshot| read(store, 1, snapshot).unwrap()).collect()
}

#[test]
fn segments_in_another_order_are_written_again_with_what_is_removed_of_them() {
    let vfs = SimVfs::new(1);
    let (store, clock) = open_with_clock(&vfs);
    seal_many(&store, 1..=3);
    remove(&store, 4, |row| row.time < 20);
    insert(&store, 5, 5, 1, &batch(5)).unwrap();
    let expected = at_each_snapshot(&store, 5);
    assert_eq!(expected.iter().map(|rows| rows.len()).collect::<Vec<_>>(), [0, 100, 200, 300, 240, 340]);
    let reading = store.scan(request(1, 3)).unwrap();
    assert!(orders(&vfs, CHUNK).values().all(|sort| *sort == [HOST, TIME]));

    store.seal_sorted(CHUNK, &by_number()).unwrap();
    let sorted = orders(&vfs, CHUNK);
    assert_eq!(sorted.len(), 4, "the unsealed rows came along");
    assert!(sorted.values().all(|sort| *sort == [NUMBER, TIME]));
    assert_eq!(at_each_snapshot(&store, 5), expected);
    assert_eq!(rows_of(reading).unwrap().len(), 300, "who was reading goes on");
    store.seal_sorted(CHUNK, &by_number()).unwrap();
    assert_eq!(orders(&vfs, CHUNK), sorted, "nothing is left to do");
    store.seal_sorted(ChunkId(9), &by_number()).unwrap();

    store.close().unwrap();
    drop(store);
    assert_eq!(crate::verify(&vfs, Path::new(DIR)), []);
    let store = open_at(&vfs, options(), &clock).unwrap();
    assert_eq!(at_each_snapshot(&store, 5), expected);
    assert_eq!(store.merge_due().unwrap(), 1);
    assert_eq!(orders(&vfs, CHUNK).into_values().collect::<Vec<_>>(), [[NUMBER, TIME]], "merges keep the order");
}

#[test]
fn a_segment_that_cannot_take_the_order_now_stays_as_it_is() {
    let vfs = SimVfs::new(1);
    let (store, _) = open_with_clock(&vfs);
    seal_many(&store, 1..=3);
    let before = orders(&vfs, CHUNK);
    let unknown = ChunkLayout { sort: vec![ColumnId(77), TIME], ..layout() };
    store.seal_sorted(CHUNK, &unknown).unwrap();
    assert_eq!(orders(&vfs, CHUNK), before, "no row has that column");

    stage_removal(&store, 4, |row| row.number == Some(2050));
    store.seal_sorted(CHUNK, &by_number()).unwrap();
    let kept = orders(&vfs, CHUNK).into_iter().filter(|(number, sort)| before.get(number) == Some(sort));
    assert_eq!(kept.count(), 1, "rows of it are being removed");
    store.commit(txn(4), CommitSeq(4), CommitMode::OnePhase).unwrap();
    store.seal_sorted(CHUNK, &by_number()).unwrap();
    assert!(orders(&vfs, CHUNK).values().all(|sort| *sort == [NUMBER, TIME]));
    assert_eq!((read(&store, 1, 3).unwrap().len(), read(&store, 1, 4).unwrap().len()), (300, 299));
}

/// Somebody looked for rows to change a moment ago. That is no reason not to do what was asked for.
#[test]
fn rows_move_although_their_addresses_are_held_and_old_ones_are_refused() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    seal_many(&store, 1..=1);
    let old = addressed(&store, request(1, 1)).unwrap();
    store.seal_sorted(CHUNK, &by_number()).unwrap();
    assert_eq!(orders(&vfs, CHUNK).into_values().collect::<Vec<_>>(), [[NUMBER, TIME]]);
    let moved = store.stage(txn(2), SubTxn::FIRST, vec![removal(1, &[old[0].1])]);
    assert!(matches!(moved, Err(StorageError::Conflict(CHUNK))));
    store.abort(txn(2)).unwrap();
    remove(&store, 3, |row| *row == old[0].0);
    assert_eq!(read(&store, 1, 3).unwrap().len(), 99);
}

#[test]
fn rows_that_come_with_the_former_layout_take_it_until_they_are_asked_again() {
    let vfs = SimVfs::new(1);
    let (store, _) = open_with_clock(&vfs);
    seal_many(&store, 1..=1);
    store.seal_sorted(CHUNK, &by_number()).unwrap();
    seal_many(&store, 2..=2);
    let sorts = orders(&vfs, CHUNK).into_values().collect::<Vec<_>>();
    assert_eq!(sorts, [[NUMBER, TIME], [HOST, TIME]]);
    store.seal_sorted(CHUNK, &by_number()).unwrap();
    assert!(orders(&vfs, CHUNK).values().all(|sort| *sort == [NUMBER, TIME]));
    assert_eq!(read(&store, 1, 2).unwrap().len(), 200);
}

/// Power goes at each step on the disk in turn.
#[test]
fn a_crash_leaves_each_segment_in_one_order_or_the_other() {
    let mut halfway = 0;
    for at in 0.. {
        let vfs = SimVfs::new(at);
        let (store, _) = open_with_clock(&vfs);
        seal_many(&store, 1..=3);
        remove(&store, 4, |row| row.number.unwrap() % 10 == 3);
        let expected = at_each_snapshot(&store, 4);
        vfs.set_fault(Fault::Crash(at));
        let done = store.seal_sorted(CHUNK, &by_number()).is_ok();
        vfs.restart();
        drop(store);
        let store = try_open(&vfs).unwrap();
        assert_eq!(at_each_snapshot(&store, 4), expected, "step {at}");
        let moved = orders(&vfs, CHUNK).values().filter(|sort| **sort == [NUMBER, TIME]).count();
        assert!(!done || moved == 3, "step {at}");
        halfway += u32::from(moved == 1 || moved == 2);
        store.close().unwrap();
        drop(store);
        assert_eq!(crate::verify(&vfs, Path::new(DIR)), [], "step {at}");
        if done {
            break;
        }
    }
    assert!(halfway > 1, "{halfway}");
}
