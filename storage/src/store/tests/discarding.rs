//! Parts of a transaction that are taken back: what is left of them, in memory and in the log.

use super::*;
use crate::vfs::Fault;
use proto::{SqlState, TxnOutcome, UniqueKey};

const FIRST: SubTxn = SubTxn::FIRST;
const LATER: SubTxn = SubTxn(1);
const LATEST: SubTxn = SubTxn(2);
const END: SubTxn = SubTxn(3);

fn keyed(rows: &[Row]) -> ChunkWrite {
    let mut write = write(1, rows);
    write.layout.keys = vec![UniqueKey { name: "readings_pkey".to_owned(), columns: vec![HOST, TIME] }];
    write
}

fn code<T>(result: Result<T>) -> SqlState {
    proto::Error::from(result.err().expect("refused")).code
}

/// Numbers of the rows of chunk 1, as the transaction sees them.
fn seen_by(store: &Store, number: u64) -> Vec<i64> {
    let rows = rows_of(store.scan(ScanRequest { txn: Some(txn(number)), ..request(1, u64::MAX) }).unwrap()).unwrap();
    let mut numbers = rows.into_iter().map(|row| row.number.unwrap()).collect::<Vec<_>>();
    numbers.sort();
    numbers
}

fn address(store: &Store, own: u64, number: i64) -> Address {
    let found = addressed(store, ScanRequest { txn: Some(txn(own)), ..request(1, u64::MAX) }).unwrap();
    found.into_iter().find(|(row, _)| row.number == Some(number)).expect("the row is there").1
}

/// That all memory counted is held by chunks and open transactions, and what those count is what they hold.
fn check_memory(store: &Store) {
    let state = store.core.state.lock();
    let chunks = state.chunks.values().map(|chunk| chunk.delta_bytes).sum::<usize>();
    assert_eq!(state.bytes, chunks + state.txns.values().map(|txn| txn.bytes).sum::<usize>());
    for txn in state.txns.values() {
        let rows = txn.writes.iter().map(|write| write.rows.bytes).sum::<usize>();
        assert_eq!(txn.bytes, rows + txn.removals.iter().map(|staged| staged.removal.bytes).sum::<usize>());
    }
}

/// Three rows committed, and in transaction 2 a row each under the numbers 0, 1 and 2.
fn three_parts(vfs: &SimVfs) -> Store {
    let store = open(vfs);
    insert(&store, 1, 1, 1, &[row(1, "a", 1.0, 1), row(2, "a", 1.0, 2), row(3, "a", 1.0, 3)]).unwrap();
    for (sub, number) in [(FIRST, 10), (LATER, 11), (LATEST, 12)] {
        store.stage(txn(2), sub, vec![keyed(&[row(number, "a", 1.0, number)])]).unwrap();
    }
    assert_eq!(seen_by(&store, 2), [1, 2, 3, 10, 11, 12]);
    store
}

#[test]
fn rows_of_a_discarded_part_are_gone_at_once_and_after_the_commit() {
    for restarted in [false, true] {
        let vfs = SimVfs::new(1);
        let mut store = three_parts(&vfs);
        let before = store.core.state.lock().bytes;
        for _ in 0..2 {
            store.discard(txn(2), LATER..END).unwrap();
            assert_eq!(seen_by(&store, 2), [1, 2, 3, 10]);
            check_memory(&store);
        }
        assert!(store.core.state.lock().bytes < before);
        store.stage(txn(2), END, vec![keyed(&[row(12, "a", 1.0, 20)])]).unwrap();
        store.prepare(txn(2)).unwrap();
        assert!(store.discard(txn(2), END..SubTxn(4)).is_err(), "it has voted");
        if restarted {
            std::mem::forget(store);
            vfs.restart();
            store = try_open(&vfs).unwrap();
            check_memory(&store);
        }
        store.commit(txn(2), CommitSeq(2), CommitMode::Prepared).unwrap();
        assert_eq!(seen_by(&store, 99), [1, 2, 3, 10, 20]);
        store.seal(ChunkId(1)).unwrap();
        assert_eq!((seen_by(&store, 99), store.core.state.lock().bytes), (vec![1, 2, 3, 10, 20], 0));
    }
}

#[test]
fn parts_are_taken_back_from_any_savepoint_and_again_from_an_earlier_one() {
    let vfs = SimVfs::new(1);
    let store = three_parts(&vfs);
    store.discard(txn(2), LATEST..END).unwrap();
    assert_eq!(seen_by(&store, 2), [1, 2, 3, 10, 11]);
    store.stage(txn(2), END, vec![keyed(&[row(13, "a", 1.0, 13)])]).unwrap();
    store.discard(txn(2), LATER..SubTxn(4)).unwrap();
    assert_eq!(seen_by(&store, 2), [1, 2, 3, 10]);
    store.discard(txn(2), FIRST..SubTxn(5)).unwrap();
    assert_eq!(seen_by(&store, 2), [1, 2, 3]);
    check_memory(&store);
    assert_eq!(store.outcome(txn(2)).unwrap(), TxnOutcome::Staged);
    store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap();
    assert_eq!(store.outcome(txn(2)).unwrap(), TxnOutcome::Committed(CommitSeq(2)));
    drop(store);
    let store = try_open(&vfs).unwrap();
    assert_eq!(store.outcome(txn(2)).unwrap(), TxnOutcome::Committed(CommitSeq(2)));
    assert_eq!(seen_by(&store, 99), [1, 2, 3]);
}

#[test]
fn a_discarded_removal_leaves_the_row_to_others() {
    for sealed in [false, true] {
        let vfs = SimVfs::new(1);
        let store = three_parts(&vfs);
        if sealed {
            store.seal(ChunkId(1)).unwrap();
        }
        let (first, second) = (address(&store, 2, 1), address(&store, 2, 2));
        store.stage(txn(2), LATEST, vec![removal(1, &[first])]).unwrap();
        store.stage(txn(2), END, vec![removal(1, &[second])]).unwrap();
        let own = address(&store, 2, 10);
        store.stage(txn(2), END, vec![removal(1, &[own])]).unwrap();
        assert_eq!(seen_by(&store, 2), [3, 11, 12]);
        let taken = |store: &Store, number: u64, at| code(store.stage(txn(number), FIRST, vec![removal(1, &[at])]));
        assert_eq!(taken(&store, 3, second), SqlState::LOCK_NOT_AVAILABLE);
        store.abort(txn(3)).unwrap();
        store.discard(txn(2), END..SubTxn(4)).unwrap();
        assert_eq!(seen_by(&store, 2), [2, 3, 10, 11, 12]);
        check_memory(&store);
        store.stage(txn(4), FIRST, vec![removal(1, &[second])]).unwrap();
        assert_eq!(taken(&store, 5, first), SqlState::LOCK_NOT_AVAILABLE, "that one stays removed");
        store.abort(txn(5)).unwrap();
        store.commit(txn(4), CommitSeq(2), CommitMode::OnePhase).unwrap();
        // Nothing holds the row any more: it may move, whatever the log still says of its removal.
        store.seal(ChunkId(1)).unwrap();
        store.prepare(txn(2)).unwrap();
        std::mem::forget(store);
        vfs.restart();
        let store = try_open(&vfs).unwrap();
        store.commit(txn(2), CommitSeq(3), CommitMode::Prepared).unwrap();
        assert_eq!(seen_by(&store, 99), [3, 10, 11, 12]);
        store.close().unwrap();
        assert_eq!(crate::verify(&vfs, Path::new(DIR)), []);
    }
}

#[test]
fn a_discarded_key_is_free_again() {
    let vfs = SimVfs::new(1);
    let store = three_parts(&vfs);
    let twelve = || vec![keyed(&[row(12, "a", 2.0, 30)])];
    assert_eq!(code(store.stage(txn(3), FIRST, twelve())), SqlState::LOCK_NOT_AVAILABLE);
    store.abort(txn(3)).unwrap();
    // An upsert: the old row goes, the new one has its key.
    let old = address(&store, 2, 3);
    store.stage(txn(2), END, vec![removal(1, &[old]), keyed(&[row(3, "a", 9.0, 33)])]).unwrap();
    assert_eq!(seen_by(&store, 2), [1, 2, 10, 11, 12, 33]);
    store.discard(txn(2), LATEST..SubTxn(4)).unwrap();
    assert_eq!(seen_by(&store, 2), [1, 2, 3, 10, 11]);
    store.stage(txn(4), FIRST, twelve()).unwrap();
    assert_eq!(code(store.stage(txn(2), SubTxn(4), twelve())), SqlState::LOCK_NOT_AVAILABLE);
    store.discard(txn(2), SubTxn(4)..SubTxn(5)).unwrap();
    store.abort(txn(4)).unwrap();
    store.stage(txn(2), SubTxn(5), twelve()).unwrap();
    store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap();
    let taken = store.stage(txn(6), FIRST, vec![keyed(&[row(3, "a", 1.0, 60)])]);
    assert_eq!(code(taken), SqlState::UNIQUE_VIOLATION, "the old row has kept its key");
    assert_eq!(seen_by(&store, 99), [1, 2, 3, 10, 11, 30]);
}

#[test]
fn a_transaction_whose_last_part_failed_is_whole_again_without_it() {
    let vfs = SimVfs::new(1);
    let store = three_parts(&vfs);
    let twin = || vec![keyed(&[row(1, "a", 1.0, 40)])];
    assert_eq!(code(store.stage(txn(2), END, twin())), SqlState::UNIQUE_VIOLATION);
    let good = || vec![keyed(&[row(40, "a", 1.0, 40)])];
    assert!(store.stage(txn(2), END, good()).is_err(), "it lacks rows");
    assert!(store.prepare(txn(2)).is_err());
    store.discard(txn(2), SubTxn(4)..SubTxn(5)).unwrap();
    assert!(store.prepare(txn(2)).is_err(), "the part that failed is an earlier one");
    store.discard(txn(2), END..SubTxn(6)).unwrap();
    assert!(store.stage(txn(2), SubTxn(5), good()).is_err(), "rows that come too late");
    store.stage(txn(2), SubTxn(6), good()).unwrap();
    store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap();
    assert_eq!(seen_by(&store, 99), [1, 2, 3, 10, 11, 12, 40]);
}

/// A transaction may begin with what fails, and vote with nothing at all.
#[test]
fn a_transaction_all_parts_of_which_failed_can_vote_and_survives_a_restart() {
    let vfs = SimVfs::new(1);
    let store = three_parts(&vfs);
    let twin = vec![keyed(&[row(1, "a", 1.0, 40)])];
    assert_eq!(code(store.stage(txn(3), FIRST, twin)), SqlState::UNIQUE_VIOLATION);
    assert_eq!(store.outcome(txn(3)).unwrap(), TxnOutcome::Staged);
    store.discard(txn(3), FIRST..LATER).unwrap();
    store.prepare(txn(3)).unwrap();
    std::mem::forget(store);
    vfs.restart();
    let store = try_open(&vfs).unwrap();
    assert_eq!(store.status().in_doubt, [txn(3)]);
    store.commit(txn(3), CommitSeq(2), CommitMode::Prepared).unwrap();
    assert_eq!(seen_by(&store, 99), [1, 2, 3]);
}

#[test]
fn what_is_not_known_cannot_be_taken_back() {
    let vfs = SimVfs::new(1);
    let store = three_parts(&vfs);
    assert_eq!(code(store.discard(txn(7), FIRST..END)), SqlState::SERIALIZATION_FAILURE);
    store.abort(txn(2)).unwrap();
    assert_eq!(code(store.discard(txn(2), FIRST..END)), SqlState::SERIALIZATION_FAILURE);
    store.stage(txn(8), FIRST, vec![write(1, &[row(5, "b", 1.0, 5)])]).unwrap();
    store.discard(txn(8), FIRST..LATER).unwrap();
    store.stage(txn(8), LATER, vec![write(1, &[row(5, "b", 1.0, 5)])]).unwrap();
    vfs.kill_process();
    drop(store);
    let store = try_open(&vfs).unwrap();
    assert!(store.discard(txn(8), LATER..LATEST).is_err(), "its beginning was lost");
    assert!(store.stage(txn(8), LATEST, vec![write(1, &[])]).is_err());
    assert_eq!((seen_by(&store, 8), store.status().in_doubt), (vec![1, 2, 3], vec![]));
    check_memory(&store);
}

#[test]
fn a_part_that_the_log_has_no_room_to_take_back_keeps_the_transaction_from_voting() {
    let vfs = SimVfs::new(1);
    let store = three_parts(&vfs);
    vfs.set_fault(Fault::Full(0));
    assert_eq!(code(store.discard(txn(2), LATEST..END)), SqlState::DISK_FULL);
    vfs.heal();
    assert!(store.prepare(txn(2)).is_err());
    assert!(store.stage(txn(2), END, vec![write(1, &[row(5, "b", 1.0, 5)])]).is_err());
    store.discard(txn(2), LATEST..END).unwrap();
    store.prepare(txn(2)).unwrap();
    std::mem::forget(store);
    vfs.restart();
    let store = try_open(&vfs).unwrap();
    store.commit(txn(2), CommitSeq(2), CommitMode::Prepared).unwrap();
    assert_eq!(seen_by(&store, 99), [1, 2, 3, 10, 11]);
}

/// Memory that runs short moves rows under the feet of those who only staged their removal.
#[test]
fn removals_that_lost_their_rows_go_with_their_part() {
    let vfs = SimVfs::new(1);
    let store = three_parts(&vfs);
    let at = address(&store, 2, 1);
    store.stage(txn(2), END, vec![removal(1, &[at])]).unwrap();
    assert!(store.core.seal(ChunkId(1), true).unwrap());
    check_memory(&store);
    assert!(store.prepare(txn(2)).is_err());
    store.discard(txn(2), END..SubTxn(4)).unwrap();
    let at = address(&store, 2, 1);
    store.stage(txn(2), SubTxn(4), vec![removal(1, &[at])]).unwrap();
    store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap();
    assert_eq!(seen_by(&store, 99), [2, 3, 10, 11, 12]);
}
