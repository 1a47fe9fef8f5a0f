//! The disk fills up, loses, tears, rots: acknowledged rows stay, damage is an error, nothing is half there.

use super::*;
use crate::vfs::{Fault, Vfs};
use proto::{Reaction, SqlState};
use std::path::PathBuf;

fn rows(number: u64) -> Vec<Row> {
    (0..40).map(|i| row(i, &format!("host_{}", i % 3), (number * 100) as f64 + i as f64 / 2.0, number as i64)).collect()
}

const LAST: u64 = 12;

/// Merges early, and lets removed rows go at once.
fn eager() -> StoreOptions {
    let (address_pin, snapshot_age_max) = (Duration::ZERO, Duration::ZERO);
    StoreOptions { merge_segments_min: 2, address_pin, snapshot_age_max, ..options() }
}

fn try_open(vfs: &SimVfs) -> Result<Store> {
    try_open_with(vfs, eager())
}

fn open(vfs: &SimVfs) -> Store {
    let store = try_open(vfs).unwrap();
    store.attach(identity()).unwrap();
    store
}

/// One transaction: 40 rows, and an even one removes those of the one before it. Some vote first.
fn transact(store: &Store, number: u64) -> Result<()> {
    let mut writes = vec![write(1, &rows(number))];
    if number.is_multiple_of(2) {
        let found = addressed(store, request(1, number))?.into_iter();
        let before = found.filter(|(row, _)| row.number == Some(number as i64 - 1)).map(|(_, at)| at);
        writes.push(removal(1, &before.collect::<Vec<_>>()));
    }
    store.stage(txn(number), writes)?;
    if number % 4 != 2 {
        return store.commit(txn(number), CommitSeq(number), CommitMode::OnePhase);
    }
    store.prepare(txn(number))?;
    store.commit(txn(number), CommitSeq(number), CommitMode::Prepared)
}

/// Inserts, removes, seals and merges, until an error: the transactions acknowledged, those tried, and the first error.
fn work(store: &Store) -> (Vec<u64>, u64, Option<StorageError>) {
    let mut acknowledged = Vec::new();
    for number in 1..=LAST {
        if let Err(error) = transact(store, number) {
            return (acknowledged, number, Some(error));
        }
        acknowledged.push(number);
        let sealed = if number % 3 == 0 { store.seal(ChunkId(1)).map(drop) } else { Ok(()) };
        let merged = sealed.and_then(|()| if number % 6 == 0 { store.merge_due() } else { Ok(0) });
        match merged {
            Ok(merges) => assert!(number % 6 > 0 || merges > 0, "there are two segments"),
            Err(error) => return (acknowledged, number, Some(error)),
        }
    }
    (acknowledged, LAST, None)
}

/// Every acknowledged transaction is there whole, at most the one that was cut off is there too, none is there in part.
fn check(store: &Store, acknowledged: &[u64], tried: u64, context: &str) {
    for txn in store.status().in_doubt {
        store.abort(txn).unwrap();
    }
    let found = read(store, 1, u64::MAX).unwrap();
    let there = |number: u64| {
        let mut own = found.iter().filter(|row| row.number == Some(number as i64)).cloned().collect::<Vec<_>>();
        own.sort();
        let mut whole = rows(number);
        whole.sort();
        assert!(own == whole || own.is_empty(), "{context}: transaction {number}, {} rows", own.len());
        !own.is_empty()
    };
    for number in 1..=LAST {
        let remover = number % 2 == 1 && there(number + 1);
        let acknowledged = acknowledged.contains(&number);
        match there(number) {
            true => assert!(!remover && number <= tried, "{context}: transaction {number} came back"),
            false => assert!(remover || !acknowledged, "{context}: transaction {number} is lost"),
        }
    }
}

/// Rows left by acknowledged transactions.
fn left(acknowledged: &[u64]) -> usize {
    let removed = |number: &&u64| **number % 2 == 1 && acknowledged.contains(&(**number + 1));
    acknowledged.iter().filter(|number| !removed(number)).count() * 40
}

#[test]
fn power_cut_at_every_step_of_work_and_of_recovery() {
    let (mut cuts, mut cuts_in_recovery) = (0, 0);
    for step in 0..400 {
        let vfs = SimVfs::new(step);
        let store = open(&vfs);
        vfs.set_fault(Fault::Crash(step));
        let (acknowledged, tried, _) = work(&store);
        if !vfs.crashed() {
            assert_eq!(acknowledged.len(), LAST as usize);
            break;
        }
        cuts += 1;
        for again in 0..4 {
            vfs.restart();
            vfs.set_fault(Fault::Crash(again));
            drop(try_open(&vfs));
            cuts_in_recovery += u64::from(vfs.crashed());
        }
        vfs.restart();
        let store = try_open(&vfs).unwrap_or_else(|error| panic!("step {step}: {error}"));
        check(&store, &acknowledged, tried, &format!("step {step}"));
        insert(&store, 90, 90, 1, &rows(90)).unwrap();
        store.seal(ChunkId(1)).unwrap();
        assert_eq!(read(&store, 1, u64::MAX).unwrap().iter().filter(|row| row.number == Some(90)).count(), 40);
        store.close().unwrap();
        assert_eq!(crate::verify(&vfs, Path::new(DIR)), [], "step {step}");
    }
    assert!((100..400).contains(&cuts) && cuts_in_recovery > 0, "{cuts} cuts, {cuts_in_recovery} in recovery");
}

#[test]
fn power_cut_while_a_directory_is_made() {
    for step in 0..25 {
        let vfs = SimVfs::new(step);
        vfs.set_fault(Fault::Crash(step));
        let attached = try_open(&vfs).is_ok_and(|store| store.attach(identity()).is_ok());
        vfs.restart();
        let store = try_open(&vfs).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert!(!attached || store.status().identity.is_some(), "step {step}");
    }
}

#[test]
fn a_full_disk_at_every_write_is_53100_and_work_goes_on_when_space_returns() {
    let mut refusals = 0;
    for step in 0..100 {
        let vfs = SimVfs::new(step);
        let store = open(&vfs);
        vfs.set_fault(Fault::Full(step));
        let (acknowledged, tried, error) = work(&store);
        if let Some(error) = error {
            refusals += 1;
            assert_eq!(proto::Error::from(error).code, SqlState::DISK_FULL, "step {step}");
            store.abort(txn(tried)).ok();
        }
        assert_eq!(store.poisoned(), None, "step {step}");
        assert_eq!(read(&store, 1, u64::MAX).unwrap().len(), left(&acknowledged), "reads go on");
        vfs.heal();
        insert(&store, 90, 90, 2, &rows(90)).unwrap();
        store.seal(ChunkId(1)).unwrap();
        store.seal(ChunkId(2)).unwrap();
        check(&store, &acknowledged, tried, &format!("step {step}"));
        vfs.restart();
        let store = try_open(&vfs).unwrap();
        check(&store, &acknowledged, tried, &format!("step {step}, restarted"));
        assert_eq!(read(&store, 2, u64::MAX).unwrap().len(), 40);
        store.close().unwrap();
        assert_eq!(crate::verify(&vfs, Path::new(DIR)), []);
    }
    assert!((20..100).contains(&refusals), "{refusals} full disks");
}

#[test]
fn after_a_failed_fsync_the_store_stops() {
    for step in 0..200 {
        let vfs = SimVfs::new(step);
        let store = open(&vfs);
        vfs.set_fault(Fault::SyncFails(step));
        let (acknowledged, tried, error) = work(&store);
        if error.is_none() {
            assert!(step > 30, "{step} syncs");
            return;
        }
        assert!(store.poisoned().is_some(), "step {step}");
        let error = proto::Error::from(read(&store, 1, 1).unwrap_err());
        assert_eq!(error.reaction, Reaction::GiveUp);
        assert!(insert(&store, 90, 90, 1, &rows(90)).is_err());
        vfs.restart();
        let store = try_open(&vfs).unwrap();
        check(&store, &acknowledged, tried, &format!("step {step}"));
    }
    panic!("the work never came to its end");
}

#[test]
fn a_commit_in_one_round_whose_fsync_failed_has_an_unknown_outcome() {
    let vfs = SimVfs::new(3);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(1)).unwrap();
    store.stage(txn(2), vec![write(1, &rows(2))]).unwrap();
    vfs.set_fault(Fault::SyncFails(0));
    let error = proto::Error::from(store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap_err());
    assert_eq!((error.code, error.reaction), (SqlState::TRANSACTION_RESOLUTION_UNKNOWN, Reaction::Resolve));
}

fn files(vfs: &SimVfs) -> Vec<PathBuf> {
    let dirs = [DIR.to_owned(), format!("{DIR}/{LOG_DIR}"), format!("{DIR}/{SEGMENTS_DIR}")];
    let files = dirs
        .iter()
        .flat_map(|dir| vfs.list(Path::new(dir)).unwrap().into_iter().map(move |name| Path::new(dir).join(name)));
    files.collect()
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_never_changes_an_answer() {
    let vfs = SimVfs::new(3);
    let store = open(&vfs);
    for number in 1..=4 {
        transact(&store, number).unwrap();
        if number == 2 {
            store.seal(ChunkId(1)).unwrap();
        }
    }
    let expected = read(&store, 1, 10).unwrap();
    store.close().unwrap();
    drop(store);
    let mut dice = Dice(5);
    assert!(files(&vfs).iter().any(|path| path.extension().is_some_and(|extension| extension == "deletes")));
    for path in files(&vfs).into_iter().filter(|path| !path.ends_with("LOCK")) {
        let whole = vfs.contents(&path).unwrap();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        // The mark of the clean close is the one record that nothing vouches for, and that nobody needs.
        let bits = (whole.len() - if is_log { 24 } else { 0 }) as u64 * 8;
        for _ in 0..150 {
            let bit = dice.below(bits);
            vfs.flip_bit(&path, bit);
            let error = try_open(&vfs).and_then(|store| read(&store, 1, 10)).err();
            let error = error.unwrap_or_else(|| panic!("bit {bit} of {} went unnoticed", path.display()));
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(error.to_string().contains(name), "{error} does not name {name}");
            let format = path.ends_with("FORMAT");
            assert!(format || proto::Error::from(error).code == SqlState::DATA_CORRUPTED);
            assert!(format || !crate::verify(&vfs, Path::new(DIR)).is_empty());
            vfs.set_contents(&path, &whole);
        }
    }
    assert_eq!(read(&try_open(&vfs).unwrap(), 1, 10).unwrap(), expected);
}

#[test]
fn a_missing_log_file_or_manifest_is_an_error() {
    let vfs = SimVfs::new(3);
    let store = open(&vfs);
    (1..=30).for_each(|number| insert(&store, number, number, 1, &rows(number)).unwrap());
    drop(store);
    let log = Path::new(DIR).join(LOG_DIR);
    let first = log.join(vfs.list(&log).unwrap().remove(0));
    let bytes = vfs.contents(&first).unwrap();
    vfs.remove(&first).unwrap();
    assert!(matches!(try_open(&vfs), Err(StorageError::Damaged { .. } | StorageError::Replay { .. })));
    vfs.create(&first).unwrap();
    vfs.set_contents(&first, &bytes);
    drop(try_open(&vfs).unwrap());
    vfs.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
    assert!(matches!(try_open(&vfs), Err(StorageError::Damaged { .. })));
}
