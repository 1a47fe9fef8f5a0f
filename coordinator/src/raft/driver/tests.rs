//! One member, from outside.

use super::*;
use storage::SimVfs;
use storage::vfs::Fault;

/// All entries, one after the other.
#[derive(Clone, Debug, PartialEq)]
struct Text(String);

impl StateMachine for Text {
    fn decode(state: &[u8]) -> Result<Text, String> {
        String::from_utf8(state.to_vec()).map(Text).map_err(|e| e.to_string())
    }

    fn encode(&self) -> Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }

    fn apply(&mut self, entry: &[u8]) -> Result<(), String> {
        self.0.push_str(std::str::from_utf8(entry).map_err(|e| e.to_string())?);
        Ok(())
    }
}

fn open_with(vfs: &SimVfs, log_bytes_max: u64) -> (Driver, String) {
    let genesis = || Genesis { member: 1, voters: vec![1], state: Bytes::from_static(b">") };
    let options = DriverOptions { log_bytes_max, segment_bytes_max: 4096 };
    let (driver, text) = Driver::open::<Text>(Arc::new(vfs.clone()), Path::new("/c"), options, genesis).unwrap();
    (driver, text.0)
}

fn open(vfs: &SimVfs) -> (Driver, String) {
    open_with(vfs, 1 << 20)
}

#[tokio::test]
async fn a_proposal_costs_one_sync_and_a_group_of_them_no_more() {
    let vfs = SimVfs::new(1);
    let (driver, _) = open(&vfs);
    let before = vfs.files_synced();
    for _ in 0..10 {
        let proposal = driver.propose(b"x".to_vec(), true).unwrap();
        driver.committed(proposal).await.unwrap();
    }
    assert_eq!(vfs.files_synced() - before, 10);
    let noted = (0..100).map(|_| driver.propose(b"y".to_vec(), false).unwrap()).max().unwrap();
    assert_eq!(vfs.files_synced() - before, 10, "nobody waits for them");
    let proposal = driver.propose(b"z".to_vec(), true).unwrap();
    driver.committed(proposal).await.unwrap();
    driver.committed(noted).await.unwrap();
    assert_eq!(vfs.files_synced() - before, 11);
}

#[tokio::test]
async fn what_was_committed_survives_a_power_loss_and_what_was_noted_a_clean_end() {
    let vfs = SimVfs::new(2);
    let (driver, text) = open(&vfs);
    assert_eq!(text, ">");
    let proposal = driver.propose(b"a".to_vec(), true).unwrap();
    driver.committed(proposal).await.unwrap();
    vfs.restart();
    drop(driver);
    let (driver, text) = open(&vfs);
    assert_eq!(text, ">a");
    driver.propose(b"b".to_vec(), false).unwrap();
    drop(driver);
    assert_eq!(open(&vfs).1, ">ab");
}

#[tokio::test]
async fn a_long_log_becomes_a_snapshot() {
    let vfs = SimVfs::new(3);
    let (driver, _) = open_with(&vfs, 10_000);
    for _ in 0..200 {
        let proposal = driver.propose(vec![b'x'; 200], true).unwrap();
        driver.committed(proposal).await.unwrap();
    }
    drop(driver);
    let files = storage::Vfs::list(&vfs, Path::new("/c/log")).unwrap();
    assert!(files.len() <= 4, "40 KB in files of 4 KB, of which the snapshot covers most: {files:?}");
    assert_eq!(open(&vfs).1.len(), 1 + 200 * 200);
}

#[tokio::test]
async fn a_full_disk_delays_what_was_promised_and_refuses_the_rest() {
    let vfs = SimVfs::new(4);
    let (driver, _) = open(&vfs);
    vfs.set_fault(Fault::Full(0));
    let caught = driver.propose(b"a".to_vec(), true).unwrap();
    while !driver.shared.waiting.lock().disk_full {
        tokio::task::yield_now().await;
    }
    assert_eq!(driver.propose(b"b".to_vec(), true).unwrap_err().code, SqlState::DISK_FULL);
    vfs.heal();
    driver.committed(caught).await.unwrap();
    let proposal = driver.propose(b"c".to_vec(), true).unwrap();
    driver.committed(proposal).await.unwrap();
    drop(driver);
    assert_eq!(open(&vfs).1, ">ac");
}

#[tokio::test]
async fn a_failed_sync_ends_the_member_and_leaves_the_outcome_open() {
    let vfs = SimVfs::new(5);
    let (driver, _) = open(&vfs);
    vfs.set_fault(Fault::SyncFails(0));
    let proposal = driver.propose(b"a".to_vec(), true).unwrap();
    assert_eq!(driver.committed(proposal).await.unwrap_err().code, SqlState::IO_ERROR);
    assert!(driver.propose(b"b".to_vec(), true).is_err(), "nothing more is taken");
    drop(driver);
    vfs.kill_process();
    assert_eq!(open(&vfs).1, ">a", "it was written, and is found by the next start");
}

#[test]
fn a_directory_of_an_older_version_is_refused_with_advice() {
    let vfs = SimVfs::new(6);
    drop(open(&vfs));
    let path = Path::new("/c/CATALOG");
    let mut bytes = vfs.contents(path).unwrap();
    bytes[8] = 2;
    vfs.set_contents(path, &bytes);
    let genesis = || unreachable!("the directory is there");
    let options = DriverOptions { log_bytes_max: 1, segment_bytes_max: 1 };
    let opened = Driver::open::<Text>(Arc::new(vfs.clone()), Path::new("/c"), options, genesis);
    let error = opened.err().unwrap();
    assert_eq!(error.code, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(error.message, "\"/c/CATALOG\" has format version 2, this build reads version 3");
    assert!(error.hint.unwrap().contains("not migrated"));
}
