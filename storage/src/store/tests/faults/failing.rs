//! The disk says no: it is full, cannot sync, cannot read.

use super::*;
use proto::{Reaction, SqlState};

#[test]
fn a_full_disk_at_every_write_is_53100_and_work_goes_on_when_space_returns() {
    let mut counts = Counts::new("full disks");
    for (round, once) in (0..rounds()).flat_map(|round| [(round, false), (round, true)]) {
        for step in 0..200 {
            let vfs = SimVfs::new(round * 200 + step);
            let store = open(&vfs);
            vfs.set_fault(if once { Fault::FullOnce(step) } else { Fault::Full(step) });
            let lived = work(&store);
            let context = format!("round {round}, step {step}, once {once}");
            let struck = vfs.struck();
            if let Some(first) = struck.first() {
                counts.add(format!(
                    "{} {}, {}",
                    first.action,
                    kind(&first.path),
                    if once { "once" } else { "lasting" }
                ));
            }
            if let Some(code) = lived.code {
                assert_eq!(code, SqlState::DISK_FULL, "{context}: {:?}", lived.error);
                store.abort(txn(lived.tried)).ok();
            }
            assert_eq!(store.poisoned(), None, "{context}");
            assert_eq!(read(&store, 1, u64::MAX).unwrap().len(), left(&lived.acknowledged), "{context}: reads go on");
            vfs.heal();
            insert(&store, 90, 90, 2, &rows(90)).unwrap();
            store.seal(ChunkId(1)).unwrap();
            store.seal(ChunkId(2)).unwrap();
            check(&store, &lived, &context);
            vfs.restart();
            let store = try_open(&vfs).unwrap();
            check(&store, &lived, &format!("{context}, restarted"));
            assert_eq!(read(&store, 2, u64::MAX).unwrap().len(), 40);
            store.close().unwrap();
            assert_eq!(crate::verify(&vfs, Path::new(DIR)), []);
            if struck.is_empty() {
                break;
            }
        }
    }
    counts.at_least(60);
    ["log", "segment", "deletes file", "manifest"].iter().for_each(|file| assert!(counts.of(file) > 0, "{file}"));
}

/// Whatever else is asked of a store that has stopped.
fn refuses_everything(store: &Store, context: &str) {
    let error = proto::Error::from(read(store, 1, 1).unwrap_err());
    assert_eq!(error.reaction, Reaction::GiveUp, "{context}");
    let answers = [
        insert(store, 90, 90, 1, &rows(90)),
        store.prepare(txn(90)),
        store.commit(txn(10), CommitSeq(10), CommitMode::Prepared),
        store.abort(txn(90)),
        store.seal(ChunkId(1)).map(drop),
        store.seal_due().map(drop),
        store.merge_due().map(drop),
        store.drop_chunks(&[ChunkId(2)]),
        store.outcome(txn(1)).map(drop),
        store.close(),
    ];
    assert!(answers.iter().all(|answer| matches!(answer, Err(StorageError::Poisoned(_)))), "{context}: {answers:?}");
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged_or_tried_again() {
    let mut counts = Counts::new("failed fsyncs");
    for (round, of_files) in (0..rounds()).flat_map(|round| [(round, true), (round, false)]) {
        let fault = |step| if of_files { Fault::SyncFails(step) } else { Fault::DirSyncFails(step) };
        for step in 0.. {
            let vfs = SimVfs::new(round * 200 + step);
            let store = open(&vfs);
            vfs.set_fault(fault(step));
            let lived = work(&store);
            let context = format!("round {round}, step {step}, files {of_files}");
            let Some(strike) = vfs.struck().pop() else {
                assert_eq!(lived.error, None);
                break;
            };
            let directory = if strike.path.ends_with(SEGMENTS_DIR) { "of segments" } else { "above" };
            counts.add(format!("{}, {}", lived.doing, if of_files { kind(&strike.path) } else { directory }));
            assert!(store.poisoned().is_some() && lived.error.is_some(), "{context}");
            refuses_everything(&store, &context);
            drop(store);
            assert_eq!(vfs.syncs_repeated(), 0, "{context}: a second fsync would lie");
            vfs.restart();
            let store = try_open(&vfs).unwrap_or_else(|error| panic!("{context}: {error}"));
            check(&store, &lived, &context);
        }
    }
    counts.at_least(60);
    ["log", "segment", "deletes file", "manifest", "of segments", "above"]
        .iter()
        .for_each(|file| assert!(counts.of(file) > 0, "{file}"));
}

#[test]
fn a_commit_in_one_round_whose_fsync_failed_has_an_unknown_outcome() {
    let vfs = SimVfs::new(3);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(1)).unwrap();
    store.stage(txn(2), SubTxn::FIRST, vec![write(1, &rows(2))]).unwrap();
    vfs.set_fault(Fault::SyncFails(0));
    let error = proto::Error::from(store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap_err());
    assert_eq!((error.code, error.reaction), (SqlState::TRANSACTION_RESOLUTION_UNKNOWN, Reaction::Resolve));
}

/// Segments, removals and unsealed rows, after a restart: no segment is open yet.
fn half_sealed(seed: u64) -> (SimVfs, Vec<Row>) {
    let vfs = SimVfs::new(seed);
    let store = open(&vfs);
    for number in 1..=5 {
        transact(&store, number).unwrap();
        if number % 2 == 0 {
            store.seal(ChunkId(1)).unwrap();
        }
    }
    let expected = read(&store, 1, u64::MAX).unwrap();
    store.close().unwrap();
    (vfs, expected)
}

#[test]
fn a_read_that_fails_fails_its_query_and_no_other() {
    let mut counts = Counts::new("failed reads");
    let key = |host: &str| {
        let mut keyed = write(1, &[row(7, host, 1.0, 99)]);
        keyed.layout.keys = vec![proto::UniqueKey { name: "key".to_owned(), columns: vec![TIME, HOST, NUMBER] }];
        vec![keyed]
    };
    type Act = (&'static str, fn(&Store, Vec<ChunkWrite>) -> Result<usize>);
    let acts: [Act; 3] = [
        ("query", |store, _| Ok(read(store, 1, u64::MAX)?.len())),
        ("key", |store, keyed| store.stage(txn(70), SubTxn::FIRST, keyed).map(|()| 0)),
        ("merge", |store, _| store.merge_due()),
    ];
    for (round, (what, act)) in (0..rounds()).flat_map(|round| acts.map(|act| (round, act))) {
        for step in 0.. {
            let (vfs, expected) = half_sealed(round * 100 + step);
            let store = try_open(&vfs).unwrap();
            vfs.set_fault(Fault::ReadFails(step));
            let outcome = act(&store, key("host_1"));
            let Some(strike) = vfs.struck().pop() else {
                outcome.unwrap();
                break;
            };
            counts.add(what);
            let error = outcome.expect_err("a part of the rows is not all of them");
            assert!(error.to_string().contains(name(&strike.path)), "{what}: {error}");
            assert_eq!(proto::Error::from(error).code, SqlState::IO_ERROR, "{what}");
            assert_eq!(store.poisoned(), None, "{what}");
            store.abort(txn(70)).unwrap();
            assert_eq!(read(&store, 1, u64::MAX).unwrap(), expected, "{what}, step {step}");
            insert(&store, 80, 80, 2, &rows(80)).unwrap();
        }
    }
    for step in 0.. {
        let (vfs, expected) = half_sealed(step);
        vfs.set_fault(Fault::ReadFails(step));
        let opened = try_open(&vfs);
        let Some(strike) = vfs.struck().pop() else { break };
        counts.add("open");
        let answer = opened.and_then(|store| read(&store, 1, u64::MAX));
        assert!(answer.unwrap_err().to_string().contains(name(&strike.path)), "open, step {step}");
        assert_eq!(read(&try_open(&vfs).unwrap(), 1, u64::MAX).unwrap(), expected);
    }
    counts.at_least(15);
    ["query", "key", "merge", "open"].iter().for_each(|what| assert!(counts.of(what) > 0, "{what}"));
}
