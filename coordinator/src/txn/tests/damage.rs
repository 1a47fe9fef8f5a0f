//! Damaged and outdated files of the coordinator's own directory: refused with their names, or they change nothing.

use super::FixedClock;
use crate::catalog::CatalogState;
use crate::raft::{Driver, DriverOptions, Genesis, Outbox, Standing, StateMachine};
use crate::txn::log::{CATALOG, DecisionLog, RaftLog, verify};
use crate::txn::record::{Machine, Record};
use bytes::Bytes;
use proto::{ClusterId, CommitSeq, Result, SqlState, TxnId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use storage::{SimVfs, Vfs};

const DIR: &str = "/coordinator";
const COMMITS: u64 = 40;
/// Of the catalog file, before the state: header, positions, one voter.
const STATE_AT: usize = 92;

/// Nobody to send to.
struct Void;

impl Outbox for Void {
    fn send(&self, _: u64, _: Bytes) {
        unreachable!("the coordinator is alone");
    }
}

fn open_with(vfs: &SimVfs, log_bytes_max: u64) -> Result<(RaftLog, Machine)> {
    let options = DriverOptions { log_bytes_max, segment_bytes_max: 600, tick: Duration::from_millis(100) };
    let state = StateMachine::encode(&Machine::new(CatalogState::new(ClusterId([7; 16])))).unwrap().into();
    let genesis = || Genesis { member: 1, incarnation: 5, voters: vec![1], state };
    let driver = Driver::<Machine>::open(
        Arc::new(vfs.clone()),
        Arc::new(FixedClock),
        Path::new(DIR),
        options,
        Arc::new(Void),
        genesis,
    )?;
    let standing = driver.standing().borrow().clone();
    let Standing::Leading { reign, machine } = standing else { panic!("who is alone leads at once") };
    Ok((RaftLog { reign, _driver: Arc::new(driver) }, machine.take().unwrap()))
}

/// Compacts every ten commits or so.
fn open(vfs: &SimVfs) -> Result<(RaftLog, Machine)> {
    open_with(vfs, 2000)
}

fn files(vfs: &SimVfs) -> Vec<PathBuf> {
    let log = Path::new(DIR).join("log");
    let names = vfs.list(&log).unwrap().into_iter().map(|name| log.join(name));
    names.chain([Path::new(DIR).join(CATALOG)]).collect()
}

/// A coordinator that commits and compacts: its disk, all versions of its files, and the state at the end.
async fn life() -> (SimVfs, BTreeMap<PathBuf, Vec<Vec<u8>>>, Machine) {
    let vfs = SimVfs::new(1);
    let (log, mut machine) = open(&vfs).unwrap();
    let mut versions: BTreeMap<PathBuf, Vec<Vec<u8>>> = BTreeMap::new();
    for number in 1..=COMMITS {
        let txn = TxnId { cluster: machine.catalog.cluster(), epoch: 1, number };
        let participants = vec!["dn1".into()];
        let record = Record::Commit { txn, seq: CommitSeq(number), participants, changes: Vec::new(), key: None };
        machine.apply(&record).unwrap();
        log.sync(log.append(&record).unwrap()).await.unwrap();
        for path in files(&vfs) {
            // Files come and go while the log is at work.
            let Some(bytes) = vfs.contents(&path) else { continue };
            let known = versions.entry(path).or_default();
            if known.last() != Some(&bytes) {
                known.push(bytes);
            }
        }
    }
    drop(log);
    (vfs, versions, machine)
}

/// Whether the directory is refused, with the name of one of the files; else it is what it was.
fn is_found_out(vfs: &SimVfs, machine: &Machine, names: &[&str], context: &str) -> bool {
    let verified = verify(vfs, Path::new(DIR));
    match open(vfs) {
        Ok((_, found)) => {
            assert_eq!(&found, machine, "{context}: another state");
            assert!(verified.is_ok(), "{context}: verify sees what a start does not");
            false
        }
        Err(error) => {
            assert!(names.iter().any(|name| error.message.contains(name)), "{context}: {error}");
            let format = error.code == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
            assert!(format || error.code == SqlState::DATA_CORRUPTED, "{context}: {error}");
            assert!(verified.is_err(), "{context}: verify misses what a start sees");
            true
        }
    }
}

#[tokio::test]
async fn every_flipped_bit_of_the_catalog_file_is_found() {
    let (vfs, _, machine) = life().await;
    let path = Path::new(DIR).join(CATALOG);
    let whole = vfs.contents(&path).unwrap();
    let (mut header, mut body) = (0, 0);
    for bit in (0..16 * 8).chain((16 * 8..whole.len() as u64 * 8).step_by(7)) {
        let rotten = vfs.fork();
        rotten.flip_bit(&path, bit);
        assert!(is_found_out(&rotten, &machine, &[CATALOG], &format!("bit {bit}")), "bit {bit} went unnoticed");
        *if bit < 16 * 8 { &mut header } else { &mut body } += 1;
    }
    println!("flipped bits, all found: {header} in the header, {body} behind it");
    assert!(header == 128 && body > 300);
}

#[tokio::test]
async fn an_old_catalog_or_log_is_found_or_changes_nothing() {
    let (vfs, versions, machine) = life().await;
    let counted = counted(&vfs);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (path, versions) in &versions {
        let name = path.file_name().unwrap().to_str().unwrap();
        let kind = if name == CATALOG { "catalog" } else { "log" };
        let now = vfs.contents(path);
        for old in versions.iter().filter(|old| Some(*old) != now.as_ref()) {
            let outdated = vfs.fork();
            if now.is_none() {
                outdated.create(path).unwrap();
            }
            outdated.set_contents(path, old);
            // Of decisions since the last compaction no other file knows: a log without the last of them looks torn.
            let outcome = match open(&outdated).map(|(_, machine)| machine) {
                Ok(found) if kind == "log" && found != machine => {
                    assert!(found.seq >= counted, "{name}: decisions that the catalog counts are given again");
                    "looks torn"
                }
                _ if is_found_out(&outdated, &machine, &[CATALOG, "log"], name) => "found",
                _ => "changes nothing",
            };
            let there = if now.is_some() { "older" } else { "removed" };
            *counts.entry(format!("{there} {kind}: {outcome}")).or_default() += 1;
        }
    }
    println!("older versions: {counts:#?}");
    assert!(counts["older catalog: found"] > 0 && counts.keys().any(|what| what.starts_with("removed log")));
}

/// The last decision that the catalog file counts.
fn counted(vfs: &SimVfs) -> CommitSeq {
    let bytes = vfs.contents(&Path::new(DIR).join(CATALOG)).unwrap();
    serde_json::from_slice::<Machine>(&bytes[STATE_AT..]).unwrap().seq
}

#[tokio::test]
async fn a_log_that_ends_before_the_catalog_says_is_refused() {
    let vfs = SimVfs::new(2);
    let (log, _) = open_with(&vfs, 1 << 20).unwrap();
    let path = files(&vfs).remove(0);
    let old = vfs.contents(&path).unwrap();
    drop(log);
    // The next start compacts at once.
    let (log, _) = open_with(&vfs, 0).unwrap();
    log.sync(log.append(&Record::Member { member: 1, incarnation: 5 }).unwrap()).await.unwrap();
    drop(log);
    let path = files(&vfs).into_iter().find(|left| *left == path).expect("the log goes on in its file");
    // What would be logged from here on lies before the catalog's position, and would be skipped at the next start.
    vfs.set_contents(&path, &old);
    for error in [open(&vfs).err(), verify(&vfs, Path::new(DIR)).err()] {
        let error = error.expect("acknowledged decisions are missing");
        assert_eq!(error.code, SqlState::DATA_CORRUPTED);
        assert!(error.message.contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
    }
}
