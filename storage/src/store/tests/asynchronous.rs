//! Commits nobody waits for: seen at once, durable soon, and lost from the end only.

use super::*;

/// With room in the log: a new file of it would sync the one before.
fn roomy() -> StoreOptions {
    StoreOptions { log_segment_bytes_max: 1 << 20, ..options() }
}

fn open(vfs: &SimVfs) -> Store {
    let store = try_open_with(vfs, roomy()).unwrap();
    store.attach(identity()).unwrap();
    store
}

/// One row in each of two chunks.
fn commit(store: &Store, number: u64, mode: CommitMode) {
    let rows = [row(number as i64, "a", 1.0, number as i64)];
    store.stage(txn(number), SubTxn::FIRST, vec![write(1, &rows), write(2, &rows)]).unwrap();
    store.commit(txn(number), CommitSeq(number), mode).unwrap();
}

fn numbers(store: &Store, chunk: u32) -> Vec<i64> {
    let mut numbers = read(store, chunk, 1000).unwrap().iter().map(|row| row.number.unwrap()).collect::<Vec<_>>();
    numbers.sort();
    numbers
}

/// Power goes, and comes back.
fn reopened(vfs: &SimVfs, store: Store) -> Store {
    vfs.restart();
    drop(store);
    try_open(vfs).unwrap()
}

#[test]
fn a_crash_takes_asynchronous_commits_from_the_end_and_each_as_a_whole() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let vfs = SimVfs::new(seed);
        let store = open(&vfs);
        (1..=5).for_each(|number| commit(&store, number, CommitMode::OnePhase));
        (6..=20).for_each(|number| commit(&store, number, CommitMode::Asynchronous));
        assert_eq!(numbers(&store, 1), (1..=20).collect::<Vec<_>>(), "readers do not wait for the disk");
        assert_eq!(store.status().commit_seq_max, CommitSeq(20));
        let store = reopened(&vfs, store);
        let left = numbers(&store, 1);
        assert!(left.len() >= 5, "seed {seed}: {left:?}");
        assert_eq!(left, (1..=left.len() as i64).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(numbers(&store, 2), left, "seed {seed}");
        kept.insert(left.len());
        // And the store goes on.
        commit(&store, 30, CommitMode::OnePhase);
        assert_eq!(numbers(&reopened(&vfs, store), 2).last(), Some(&30));
    }
    assert!(kept.len() > 3, "crashes took tails of several lengths: {kept:?}");
}

type Sync = fn(&Store);

#[test]
fn what_is_synced_later_makes_asynchronous_commits_durable() {
    let later: [(&str, Sync); 6] = [
        ("a synchronous commit", |store| commit(store, 50, CommitMode::OnePhase)),
        ("a vote", |store| {
            store.stage(txn(50), SubTxn::FIRST, vec![write(3, &[row(1, "a", 1.0, 1)])]).unwrap();
            store.prepare(txn(50)).unwrap();
        }),
        ("the background", |store| store.sync().unwrap()),
        ("the same commit, asked for again and to be durable", |store| {
            store.commit(txn(10), CommitSeq(10), CommitMode::OnePhase).unwrap();
        }),
        ("a seal", |store| assert!(store.seal(ChunkId(2)).unwrap())),
        ("a clean end", |store| store.close().unwrap()),
    ];
    for (what, sync) in later {
        for seed in 0..10 {
            let vfs = SimVfs::new(seed);
            let store = open(&vfs);
            (1..=10).for_each(|number| commit(&store, number, CommitMode::Asynchronous));
            sync(&store);
            let store = reopened(&vfs, store);
            let expected = (1..=10).collect::<Vec<_>>();
            assert_eq!(numbers(&store, 1)[..10], expected, "{what}, seed {seed}");
            assert_eq!(numbers(&store, 2)[..10], expected, "{what}, seed {seed}");
        }
    }
}

#[test]
fn the_background_syncs_without_being_asked() {
    let vfs = SimVfs::new(3);
    let store = try_open_with(&vfs, StoreOptions { background: true, ..roomy() }).unwrap();
    store.attach(identity()).unwrap();
    (1..=10).for_each(|number| commit(&store, number, CommitMode::Asynchronous));
    while store.core.unsynced.load(Ordering::SeqCst) != 0 {
        std::thread::yield_now();
    }
    assert_eq!(numbers(&reopened(&vfs, store), 2), (1..=10).collect::<Vec<_>>());
}

#[test]
fn asynchronous_commits_share_the_next_fsync() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    commit(&store, 1, CommitMode::OnePhase);
    let before = vfs.files_synced();
    (2..=20).for_each(|number| commit(&store, number, CommitMode::Asynchronous));
    assert_eq!(vfs.files_synced(), before);
    store.sync().unwrap();
    store.sync().unwrap();
    assert_eq!(vfs.files_synced(), before + 1);
}
