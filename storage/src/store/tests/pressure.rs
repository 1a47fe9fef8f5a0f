//! Memory that runs short: what is sealed for it, and what is not.

use super::*;

fn store(vfs: &SimVfs) -> Store {
    let store = try_open_with(vfs, StoreOptions { delta_bytes_max: 256 << 10, ..options() }).unwrap();
    store.attach(identity()).unwrap();
    store
}

fn rows(count: i64) -> Vec<Row> {
    (0..count).map(|i| row(i, "a", 1.0, i)).collect()
}

/// Stages rows of one transaction until the store has more than `bytes`.
fn fill(store: &Store, number: u64, bytes: usize) {
    while store.core.state.lock().bytes <= bytes {
        store.stage(txn(number), SubTxn::FIRST, vec![write(9, &rows(100))]).unwrap();
    }
}

#[test]
fn a_large_open_transaction_does_not_break_removals_of_others() {
    let vfs = SimVfs::new(1);
    let store = store(&vfs);
    insert(&store, 1, 1, 1, &rows(10)).unwrap();
    let (_, at) = addressed(&store, request(1, 1)).unwrap()[0].clone();
    store.stage(txn(2), SubTxn::FIRST, vec![removal(1, &[at])]).unwrap();
    fill(&store, 3, 200 << 10);
    insert(&store, 4, 2, 5, &rows(10)).unwrap();
    assert_eq!(store.seal_due().unwrap(), 0, "sealing a few rows frees nothing worth it");
    store.commit(txn(2), CommitSeq(3), CommitMode::OnePhase).unwrap();
    assert_eq!(read(&store, 1, 3).unwrap().len(), 9);
}

#[test]
fn rows_are_sealed_when_they_and_open_transactions_fill_the_memory_together() {
    let vfs = SimVfs::new(1);
    let store = store(&vfs);
    let mut number = 10;
    while store.core.state.lock().bytes <= 60 << 10 {
        number += 1;
        insert(&store, number, number, 1, &rows(100)).unwrap();
    }
    assert_eq!(store.seal_due().unwrap(), 0);
    fill(&store, 3, 200 << 10);
    assert_eq!(store.seal_due().unwrap(), 1, "there is less room than they take");
    assert_eq!(store.seal_due().unwrap(), 0);
    store.commit(txn(3), CommitSeq(100), CommitMode::OnePhase).unwrap();
    assert_eq!(store.seal_due().unwrap(), 1, "now they can be sealed");
}
