//! Votes, outcomes, epochs, restarts.

use super::*;
use proto::{Reaction, SqlState, TxnOutcome};

#[test]
fn a_store_is_bound_once() {
    let vfs = SimVfs::new(1);
    let store = try_open(&vfs).unwrap();
    let unbound = store.stage(txn(1), SubTxn::FIRST, vec![write(1, &[row(1, "a", 1.0, 1)])]).unwrap_err();
    assert!(matches!(unbound, StorageError::NotAttached(_)));
    store.attach(identity()).unwrap();
    store.attach(identity()).unwrap();
    let incarnation = store.status().incarnation;
    drop(store);
    vfs.restart();
    let store = try_open(&vfs).unwrap();
    assert_eq!(store.status().identity, Some(identity()));
    assert_eq!(store.status().incarnation, incarnation);
    let other = NodeIdentity { cluster: ClusterId([1; 16]), name: "dn1".into() };
    let error = proto::Error::from(store.attach(other).unwrap_err());
    assert_eq!(error.code, SqlState::DATA_NODE_ASSIGNMENT);
    assert!(store.attach(NodeIdentity { cluster: CLUSTER, name: "dn2".into() }).is_err());
}

#[test]
fn a_second_process_is_refused() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    assert!(matches!(try_open(&vfs), Err(StorageError::Locked { .. })));
    drop(store);
    open(&vfs);
}

#[test]
fn prepared_rows_are_invisible_do_not_block_readers_and_survive() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 5, 1, &[row(1, "a", 1.0, 1)]).unwrap();
    store.stage(txn(2), SubTxn::FIRST, vec![write(1, &[row(2, "a", 2.0, 2)])]).unwrap();
    assert_eq!(store.outcome(txn(2)).unwrap(), TxnOutcome::Staged);
    store.prepare(txn(2)).unwrap();
    store.prepare(txn(2)).unwrap();
    assert_eq!(store.outcome(txn(2)).unwrap(), TxnOutcome::Prepared);
    assert_eq!(read(&store, 1, 100).unwrap().len(), 1);
    vfs.restart();
    let store = try_open(&vfs).unwrap();
    assert_eq!(store.status().in_doubt, [txn(2)]);
    assert_eq!((store.status().commit_seq_max, store.status().epoch_max), (CommitSeq(5), 1));
    let error = proto::Error::from(read(&store, 1, 100).unwrap_err());
    assert_eq!((error.code, error.reaction), (SqlState::CANNOT_CONNECT_NOW, Reaction::Retry));
    assert!(read(&store, 2, 100).unwrap().is_empty(), "other chunks are open");
    store.commit(txn(2), CommitSeq(6), CommitMode::Prepared).unwrap();
    assert_eq!(read(&store, 1, 100).unwrap().len(), 2);
    assert_eq!(read(&store, 1, 5).unwrap().len(), 1);
}

#[test]
fn staged_rows_lost_in_a_restart_cannot_come_back_in_part() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    store.stage(txn(1), SubTxn::FIRST, vec![write(1, &[row(1, "a", 1.0, 1)])]).unwrap();
    vfs.kill_process();
    drop(store);
    let store = try_open(&vfs).unwrap();
    assert_eq!(store.outcome(txn(1)).unwrap(), TxnOutcome::Unknown);
    let error =
        proto::Error::from(store.stage(txn(1), SubTxn::FIRST, vec![write(1, &[row(2, "a", 2.0, 2)])]).unwrap_err());
    assert_eq!(error.reaction, Reaction::Abort);
    assert!(store.prepare(txn(1)).is_err());
    assert!(store.commit(txn(1), CommitSeq(9), CommitMode::OnePhase).is_err());
    store.abort(txn(1)).unwrap();
}

#[test]
fn a_commit_is_idempotent_and_remembered_over_seals_and_restarts() {
    let vfs = SimVfs::new(1);
    let mut store = open(&vfs);
    insert(&store, 1, 5, 1, &[row(1, "a", 1.0, 1)]).unwrap();
    for _ in 0..3 {
        store.commit(txn(1), CommitSeq(5), CommitMode::Prepared).unwrap();
        assert!(store.commit(txn(1), CommitSeq(6), CommitMode::Prepared).is_err(), "another number is a bug");
        assert!(store.abort(txn(1)).is_err());
        assert_eq!(store.outcome(txn(1)).unwrap(), TxnOutcome::Committed(CommitSeq(5)));
        assert_eq!(read(&store, 1, 5).unwrap().len(), 1);
        store.seal(ChunkId(1)).unwrap();
        store.close().unwrap();
        drop(store);
        store = try_open(&vfs).unwrap();
    }
}

#[test]
fn aborts_are_idempotent_and_late_rows_are_refused() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    store.abort(txn(7)).unwrap();
    assert!(store.stage(txn(7), SubTxn::FIRST, vec![write(1, &[row(1, "a", 1.0, 1)])]).is_err());
    store.stage(txn(8), SubTxn::FIRST, vec![write(1, &[row(1, "a", 1.0, 1)])]).unwrap();
    store.prepare(txn(8)).unwrap();
    assert!(store.stage(txn(8), SubTxn::FIRST, vec![write(1, &[row(1, "a", 1.0, 1)])]).is_err(), "it has voted");
    store.abort(txn(8)).unwrap();
    store.abort(txn(8)).unwrap();
    assert_eq!(store.outcome(txn(8)).unwrap(), TxnOutcome::Unknown);
    assert!(store.commit(txn(8), CommitSeq(1), CommitMode::Prepared).is_err());
    assert_eq!(store.core.state.lock().bytes, 0);
}

#[test]
fn an_older_coordinator_can_only_end_what_it_prepared() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let old = |number| TxnId { epoch: 1, ..txn(number) };
    let new = |number| TxnId { epoch: 2, ..txn(number) };
    store.stage(old(1), SubTxn::FIRST, vec![write(1, &[row(1, "a", 1.0, 1)])]).unwrap();
    store.prepare(old(1)).unwrap();
    store.stage(old(2), SubTxn::FIRST, vec![write(1, &[row(2, "a", 1.0, 2)])]).unwrap();
    store.stage(new(1), SubTxn::FIRST, vec![write(1, &[row(3, "a", 1.0, 3)])]).unwrap();
    assert!(store.stage(old(3), SubTxn::FIRST, vec![write(1, &[row(4, "a", 1.0, 4)])]).is_err());
    assert!(store.prepare(old(2)).is_err());
    assert_eq!(store.outcome(old(2)).unwrap(), TxnOutcome::Unknown, "it can never be prepared now");
    store.commit(old(1), CommitSeq(1), CommitMode::Prepared).unwrap();
    vfs.restart();
    let store = try_open(&vfs).unwrap();
    assert_eq!(store.status().epoch_max, 2);
    assert!(
        store.stage(old(4), SubTxn::FIRST, vec![write(1, &[row(4, "a", 1.0, 4)])]).is_err(),
        "also after a power cut"
    );
    assert!(store.stage(TxnId { cluster: ClusterId([0; 16]), ..new(9) }, SubTxn::FIRST, vec![]).is_err());
}

#[test]
fn a_transaction_that_lacks_rows_cannot_commit() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let bad = || ChunkWrite { body: bytes::Bytes::from_static(b"noise"), ..write(1, &[]) };
    let good = || write(1, &[row(1, "a", 1.0, 1)]);
    store.stage(txn(1), SubTxn::FIRST, vec![good()]).unwrap();
    for number in [1, 2] {
        assert!(store.stage(txn(number), SubTxn::FIRST, vec![bad()]).is_err());
        store.stage(txn(number), SubTxn::FIRST, vec![good()]).ok();
        assert!(store.prepare(txn(number)).is_err());
        assert!(store.commit(txn(number), CommitSeq(1), CommitMode::OnePhase).is_err());
        store.abort(txn(number)).unwrap();
    }
    assert_eq!(store.core.state.lock().bytes, 0);
}

#[test]
fn own_staged_rows_are_visible_to_their_transaction_only() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    store
        .stage(txn(1), SubTxn::FIRST, vec![write(1, &[row(1, "a", 1.0, 1)]), write(2, &[row(2, "b", 1.0, 2)])])
        .unwrap();
    let mut own = request(1, 0);
    own.txn = Some(txn(1));
    assert_eq!(rows_of(store.scan(own.clone()).unwrap()).unwrap(), [row(1, "a", 1.0, 1)]);
    own.txn = Some(txn(2));
    assert!(rows_of(store.scan(own).unwrap()).unwrap().is_empty());
}

#[test]
fn memory_is_bounded_and_sealing_frees_it() {
    let vfs = SimVfs::new(1);
    let store = try_open_with(&vfs, StoreOptions { delta_bytes_max: 10_000, ..options() }).unwrap();
    store.attach(identity()).unwrap();
    let mut number = 0;
    let error = loop {
        number += 1;
        if let Err(error) = insert(&store, number, number, 1, &[row(number as i64, "a", 1.0, 1)]) {
            break proto::Error::from(error);
        }
        assert!(number < 100);
    };
    assert_eq!(error.code, SqlState::OUT_OF_MEMORY);
    assert!(store.seal(ChunkId(1)).unwrap());
    assert_eq!(store.core.state.lock().bytes, 0);
    insert(&store, number + 1, number + 1, 1, &[row(0, "a", 1.0, 1)]).unwrap();
    assert_eq!(read(&store, 1, u64::MAX).unwrap().len(), number as usize);
}

#[test]
fn the_log_is_cut_when_its_rows_are_sealed_but_not_below_an_open_transaction() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    store.stage(txn(1), SubTxn::FIRST, vec![write(1, &[row(1, "a", 1.0, 1)])]).unwrap();
    store.prepare(txn(1)).unwrap();
    let rows = (0..100).map(|i| row(i, "b", 1.0, i)).collect::<Vec<_>>();
    for number in 2..20 {
        insert(&store, number, number, 2, &rows).unwrap();
    }
    store.seal(ChunkId(2)).unwrap();
    assert_eq!(store.core.log.start(), Lsn(0));
    store.commit(txn(1), CommitSeq(20), CommitMode::Prepared).unwrap();
    store.seal(ChunkId(1)).unwrap();
    assert!(store.core.log.start() > Lsn(0));
    drop(store);
    let store = try_open(&vfs).unwrap();
    assert_eq!(read(&store, 1, 100).unwrap().len(), 1);
    assert_eq!(read(&store, 2, 100).unwrap().len(), 1800);
    assert_eq!(store.outcome(txn(1)).unwrap(), TxnOutcome::Committed(CommitSeq(20)));
}

#[test]
fn threads_commit_while_chunks_are_sealed() {
    let vfs = SimVfs::new(1);
    let settings = StoreOptions { background: true, seal_bytes: 1, seal_age: Duration::ZERO, ..options() };
    let store = try_open_with(&vfs, settings).unwrap();
    store.attach(identity()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..40 {
                    let number = thread * 1000 + i + 1;
                    insert(store, number, number, 1 + (i % 2) as u32, &[row(i as i64, "a", 1.0, number as i64)])
                        .unwrap();
                    assert!(read(store, 1, u64::MAX).is_ok());
                }
            });
        }
    });
    assert_eq!(read(&store, 1, u64::MAX).unwrap().len() + read(&store, 2, u64::MAX).unwrap().len(), 160);
    vfs.restart();
    let store = try_open(&vfs).unwrap();
    assert_eq!(read(&store, 1, u64::MAX).unwrap().len() + read(&store, 2, u64::MAX).unwrap().len(), 160);
}
