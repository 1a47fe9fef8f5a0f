//! A file of one chunk is damaged or missing: that chunk is closed, all others serve, and nothing makes it worse.

use super::*;

/// Chunk 1 with segments, a deletes file, unsealed rows and a prepared transaction; chunk 2 with everything too.
fn two_chunks() -> (SimVfs, Vec<Row>) {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    for number in 1..=5 {
        transact(&store, number).unwrap();
        insert(&store, 20 + number, 20 + number, 2, &rows(20 + number)).unwrap();
        if number == 2 || number == 4 {
            store.seal(ChunkId(1)).unwrap();
            store.seal(ChunkId(2)).unwrap();
        }
    }
    store.stage(txn(6), SubTxn::FIRST, vec![write(1, &rows(6))]).unwrap();
    store.prepare(txn(6)).unwrap();
    let mut expected = read(&store, 1, u64::MAX).unwrap();
    expected.extend(rows(6));
    expected.sort();
    std::mem::forget(store);
    vfs.kill_process();
    (vfs, expected)
}

fn of_chunk_1(vfs: &SimVfs, kind_wanted: &str) -> PathBuf {
    let mut found = files(vfs).into_iter().filter(|path| kind(path) == kind_wanted && name(path).starts_with("1-"));
    found.next_back().unwrap()
}

type Harm = (&'static str, &'static str, fn(&SimVfs, &Path));

const HARMS: [Harm; 5] = [
    ("flipped bit", "deletes file", |vfs, path| vfs.flip_bit(path, 777)),
    ("cut off", "deletes file", |vfs, path| vfs.set_contents(path, &vfs.contents(path).unwrap()[..30])),
    ("another file", "deletes file", |vfs, path| vfs.set_contents(path, b"SERIDEL1 but not really")),
    ("missing", "deletes file", |vfs, path| vfs.remove(path).unwrap()),
    ("missing", "segment", |vfs, path| vfs.remove(path).unwrap()),
];

#[test]
fn a_damaged_or_missing_file_closes_its_chunk_and_no_other() {
    for (what, kind_of_file, harm) in HARMS {
        let (vfs, expected) = two_chunks();
        let path = of_chunk_1(&vfs, kind_of_file);
        let whole = vfs.contents(&path).unwrap();
        harm(&vfs, &path);
        let damaged = vfs.contents(&path);
        let context = format!("{kind_of_file}, {what}");
        for _ in 0..2 {
            let store = try_open(&vfs).unwrap_or_else(|error| panic!("{context}: {error}"));
            if store.status().in_doubt == [txn(6)] {
                store.commit(txn(6), CommitSeq(30), CommitMode::Prepared).unwrap();
            }
            let mut keyed = write(1, &rows(7));
            keyed.layout.keys = vec![proto::UniqueKey { name: "key".to_owned(), columns: vec![TIME, HOST, NUMBER] }];
            let refusals = [
                read(&store, 1, u64::MAX).err(),
                read(&store, 1, 1).err(),
                store.stage(txn(70), SubTxn::FIRST, vec![write(2, &rows(7)), write(1, &rows(7))]).err(),
                store.stage(txn(71), SubTxn::FIRST, vec![removal(1, &[(1, 0)])]).err(),
                store.stage(txn(72), SubTxn::FIRST, vec![keyed]).err(),
                store.seal(ChunkId(1)).err(),
            ];
            for error in refusals {
                let error = proto::Error::from(error.unwrap_or_else(|| panic!("{context}: served")));
                assert_eq!(error.code, proto::SqlState::DATA_CORRUPTED, "{context}");
                assert!(error.message.contains(name(&path)), "{context}: {error}");
            }
            assert!(store.commit(txn(70), CommitSeq(70), CommitMode::OnePhase).is_err(), "no half of it is taken");

            let numbers = store.status().commit_seq_max.0.max(100) + 1;
            insert(&store, numbers, numbers, 2, &rows(40)).unwrap();
            store.seal(ChunkId(2)).unwrap();
            store.seal_due().unwrap();
            store.merge_due().unwrap();
            assert_eq!(read(&store, 2, 25).unwrap().len(), 200, "{context}");
            assert_eq!(store.poisoned(), None);
            store.close().unwrap();
            assert_eq!(vfs.contents(&path), damaged, "{context}: the evidence is as it was");
            let problems = crate::verify(&vfs, Path::new(DIR));
            assert_eq!(problems.iter().map(|problem| &problem.path).collect::<Vec<_>>(), [&path], "{context}");
        }
        let healed = vfs.fork();
        if damaged.is_none() {
            healed.create(&path).unwrap();
        }
        healed.set_contents(&path, &whole);
        let store = try_open(&healed).unwrap();
        assert_eq!(
            read(&store, 1, u64::MAX).unwrap(),
            expected,
            "{context}: put back, nothing is lost and nothing is back"
        );
        store.seal(ChunkId(1)).unwrap();
        store.merge_due().unwrap();
        assert_eq!(read(&store, 1, u64::MAX).unwrap(), expected, "{context}");

        let store = try_open(&vfs).unwrap();
        store.drop_chunks(&[ChunkId(1)]).unwrap();
        assert!(matches!(read(&store, 1, u64::MAX), Err(StorageError::ChunkDropped(_))), "{context}");
        store.close().unwrap();
        assert!(files(&vfs).iter().all(|path| !name(path).starts_with("1-")), "{context}: its files are gone");
        assert_eq!(crate::verify(&vfs, Path::new(DIR)), [], "{context}");
    }
}

#[test]
fn a_segment_that_goes_missing_under_a_running_store_is_named() {
    let (vfs, _) = two_chunks();
    let store = try_open(&vfs).unwrap();
    store.commit(txn(6), CommitSeq(30), CommitMode::Prepared).unwrap();
    let path = of_chunk_1(&vfs, "segment");
    vfs.remove(&path).unwrap();
    let error = proto::Error::from(read(&store, 1, u64::MAX).unwrap_err());
    assert_eq!(error.code, proto::SqlState::DATA_CORRUPTED);
    assert!(error.message.contains(name(&path)), "{error}");
    assert_eq!(read(&store, 2, u64::MAX).unwrap().len(), 200);
}
