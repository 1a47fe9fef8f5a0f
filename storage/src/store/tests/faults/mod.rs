//! The disk fills up, loses, tears, rots: acknowledged rows stay, damage is an error, nothing is half there.
//!
//! Each test counts how often its fault really struck, prints the counts (`--nocapture`) and fails when there are too few.
//! `SERIATIM_ROUNDS` repeats those that depend on chance with other seeds.

mod closed;
mod failing;
mod misplaced;
mod power;
mod rot;

use super::*;
use crate::vfs::{Fault, Vfs};
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
    store.stage(txn(number), SubTxn::FIRST, writes)?;
    if number % 4 != 2 {
        return store.commit(txn(number), CommitSeq(number), CommitMode::OnePhase);
    }
    store.prepare(txn(number))?;
    store.commit(txn(number), CommitSeq(number), CommitMode::Prepared)
}

/// How far the work came.
#[derive(Debug, Clone)]
struct Lived {
    acknowledged: Vec<u64>,
    /// The last transaction that was begun.
    tried: u64,
    /// What was done last.
    doing: &'static str,
    error: Option<String>,
    code: Option<proto::SqlState>,
}

/// Inserts, removes, seals and merges, until an error.
fn work(store: &Store) -> Lived {
    let mut lived = Lived { acknowledged: vec![], tried: 0, doing: "", error: None, code: None };
    for number in 1..=LAST {
        (lived.tried, lived.doing) = (number, "transaction");
        let mut outcome = transact(store, number);
        if outcome.is_ok() {
            lived.acknowledged.push(number);
        }
        if outcome.is_ok() && number % 3 == 0 {
            lived.doing = "seal";
            outcome = store.seal(ChunkId(1)).map(drop);
        }
        if outcome.is_ok() && number % 6 == 0 {
            lived.doing = "merge";
            outcome = store.merge_due().map(|merges| assert!(merges > 0, "there are two segments"));
        }
        if let Err(error) = outcome {
            lived.error = Some(error.to_string());
            lived.code = Some(proto::Error::from(error).code);
            break;
        }
    }
    lived
}

/// Every acknowledged transaction is there whole, at most the one that was cut off is there too, none is there in part.
fn check(store: &Store, lived: &Lived, context: &str) {
    for txn in store.status().in_doubt {
        store.abort(txn).unwrap();
    }
    let found = read(store, 1, u64::MAX).unwrap_or_else(|error| panic!("{context}: {error}"));
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
        let acknowledged = lived.acknowledged.contains(&number);
        match there(number) {
            true => assert!(!remover && number <= lived.tried, "{context}: transaction {number} came back"),
            false => assert!(remover || !acknowledged, "{context}: transaction {number} is lost"),
        }
    }
}

/// Rows left by acknowledged transactions.
fn left(acknowledged: &[u64]) -> usize {
    let removed = |number: &&u64| **number % 2 == 1 && acknowledged.contains(&(**number + 1));
    acknowledged.iter().filter(|number| !removed(number)).count() * 40
}

/// All files of the directory but the lock.
fn files(vfs: &SimVfs) -> Vec<PathBuf> {
    let dirs = [DIR.to_owned(), format!("{DIR}/{LOG_DIR}"), format!("{DIR}/{SEGMENTS_DIR}")];
    let files = dirs
        .iter()
        .flat_map(|dir| vfs.list(Path::new(dir)).unwrap().into_iter().map(move |name| Path::new(dir).join(name)));
    files.filter(|path| !path.ends_with("LOCK")).collect()
}

fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => "log",
        Some("parquet") => "segment",
        Some("deletes") => "deletes file",
        _ if path.ends_with("FORMAT") => "format file",
        _ => "manifest",
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// What a damaged directory answers: an error that names one of the files, or the rows as they were. Never others.
fn is_found_out(vfs: &SimVfs, expected: &[Row], damaged: &[&Path], context: &str) -> bool {
    let answer = try_open(vfs).and_then(|store| read(&store, 1, u64::MAX));
    match answer {
        Ok(found) => {
            assert_eq!(found, expected, "{context}: other rows");
            false
        }
        Err(error) => {
            let text = error.to_string();
            assert!(damaged.iter().any(|path| text.contains(name(path))), "{context}: {text}");
            let format = matches!(error, StorageError::Format { .. });
            assert!(format || proto::Error::from(error).code == proto::SqlState::DATA_CORRUPTED, "{context}: {text}");
            true
        }
    }
}
