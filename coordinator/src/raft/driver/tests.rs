//! One member, from outside.

use super::stuck::StuckVfs;
use super::*;
use storage::SimVfs;
use storage::vfs::Fault;

/// All entries, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text(pub(super) String);

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

struct Frozen;

impl Clock for Frozen {
    fn now_us(&self) -> i64 {
        0
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Nobody to send to.
struct Void;

impl Outbox for Void {
    fn send(&self, _: u64, _: Bytes) {
        unreachable!("the member is alone");
    }
}

type Open = (Driver<Text>, Reign, String);

fn try_open(vfs: Arc<dyn Vfs>, log_bytes_max: u64, genesis: impl FnOnce() -> Genesis) -> Result<Driver<Text>> {
    let options = DriverOptions { log_bytes_max, segment_bytes_max: 4096, tick: Duration::from_millis(100) };
    Driver::open(vfs, Arc::new(Frozen), Path::new("/c"), options, Arc::new(Void), genesis)
}

fn alone() -> Genesis {
    Genesis { member: 1, incarnation: 5, voters: vec![1], state: Bytes::from_static(b">") }
}

fn open_with(vfs: &SimVfs, log_bytes_max: u64) -> Open {
    leading(try_open(Arc::new(vfs.clone()), log_bytes_max, alone).unwrap())
}

fn open_on(vfs: Arc<dyn Vfs>) -> Open {
    leading(try_open(vfs, 1 << 20, alone).unwrap())
}

fn leading(driver: Driver<Text>) -> Open {
    let standing = driver.standing().borrow().clone();
    let Standing::Leading { reign, machine } = standing else { panic!("who is alone leads at once") };
    (driver, reign, machine.take().unwrap().0)
}

fn open(vfs: &SimVfs) -> Open {
    open_with(vfs, 1 << 20)
}

#[tokio::test]
async fn a_proposal_costs_one_sync_and_a_group_of_them_no_more() {
    let vfs = SimVfs::new(1);
    let (_driver, reign, _) = open(&vfs);
    let before = vfs.files_synced();
    for _ in 0..10 {
        let proposal = reign.propose(b"x".to_vec(), true).unwrap();
        reign.committed(proposal).await.unwrap();
    }
    assert_eq!(vfs.files_synced() - before, 10);
    let noted = (0..100).map(|_| reign.propose(b"y".to_vec(), false).unwrap()).max().unwrap();
    assert_eq!(vfs.files_synced() - before, 10, "nobody waits for them");
    let proposal = reign.propose(b"z".to_vec(), true).unwrap();
    reign.committed(proposal).await.unwrap();
    reign.committed(noted).await.unwrap();
    assert_eq!(vfs.files_synced() - before, 11);
}

#[tokio::test]
async fn what_was_committed_survives_a_power_loss_and_what_was_noted_a_clean_end() {
    let vfs = SimVfs::new(2);
    let (driver, reign, text) = open(&vfs);
    assert_eq!(text, ">");
    let proposal = reign.propose(b"a".to_vec(), true).unwrap();
    reign.committed(proposal).await.unwrap();
    vfs.restart();
    drop(driver);
    let (driver, reign, text) = open(&vfs);
    assert_eq!(text, ">a");
    reign.propose(b"b".to_vec(), false).unwrap();
    drop(driver);
    assert_eq!(open(&vfs).2, ">ab");
}

#[tokio::test]
async fn a_long_log_becomes_a_snapshot() {
    let vfs = SimVfs::new(3);
    let (driver, reign, _) = open_with(&vfs, 10_000);
    for _ in 0..200 {
        let proposal = reign.propose(vec![b'x'; 200], true).unwrap();
        reign.committed(proposal).await.unwrap();
    }
    drop(driver);
    let files = storage::Vfs::list(&vfs, Path::new("/c/log")).unwrap();
    assert!(files.len() <= 4, "40 KB in files of 4 KB, of which the snapshot covers most: {files:?}");
    assert_eq!(open(&vfs).2.len(), 1 + 200 * 200);
}

#[tokio::test]
async fn a_full_disk_delays_what_was_promised_and_refuses_the_rest() {
    let vfs = SimVfs::new(4);
    let (driver, reign, _) = open(&vfs);
    vfs.set_fault(Fault::Full(0));
    let caught = reign.propose(b"a".to_vec(), true).unwrap();
    while !driver.shared.waiting.lock().disk_full {
        tokio::task::yield_now().await;
    }
    assert_eq!(reign.propose(b"b".to_vec(), true).unwrap_err().code, SqlState::DISK_FULL);
    vfs.heal();
    reign.committed(caught).await.unwrap();
    let proposal = reign.propose(b"c".to_vec(), true).unwrap();
    reign.committed(proposal).await.unwrap();
    drop(driver);
    assert_eq!(open(&vfs).2, ">ac");
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_process_that_is_to_stop() {
    let vfs = SimVfs::new(7);
    let (driver, reign, _) = open(&vfs);
    vfs.set_fault(Fault::Full(0));
    let caught = reign.propose(b"a".to_vec(), true).unwrap();
    while !driver.shared.waiting.lock().disk_full {
        tokio::task::yield_now().await;
    }
    driver.abandon();
    assert_eq!(reign.committed(caught).await.unwrap_err().code, SqlState::ADMIN_SHUTDOWN);
    drop(driver);
    vfs.heal();
    assert_eq!(open(&vfs).2, ">", "it was refused whole, every time");
}

#[tokio::test]
async fn a_sync_that_does_not_end_does_not_keep_a_process_that_is_to_stop() {
    let vfs = StuckVfs::new(SimVfs::new(8));
    let (driver, reign, _) = open_on(Arc::new(vfs.clone()));
    vfs.hold(true);
    let caught = reign.propose(b"a".to_vec(), true).unwrap();
    // Nothing tells that the thread sits in it; without the wait it would be abandoned before, which is right as well.
    while !driver.shared.waiting.lock().proposals.is_empty() {
        tokio::task::yield_now().await;
    }
    driver.abandon();
    assert_eq!(reign.committed(caught).await.unwrap_err().code, SqlState::ADMIN_SHUTDOWN);
    drop(driver);
    vfs.hold(false);
}

#[tokio::test]
async fn who_is_alone_and_resigns_ends_to_be_started_again() {
    let vfs = SimVfs::new(9);
    let (driver, reign, _) = open(&vfs);
    reign.resign(&Error::internal("lost track"));
    assert_eq!(reign.ended().await.message, "lost track");
    let mut standing = driver.standing();
    standing.wait_for(|standing| matches!(standing, Standing::Ended(_))).await.unwrap();
}

#[tokio::test]
async fn a_failed_sync_ends_the_member_and_leaves_the_outcome_open() {
    let vfs = SimVfs::new(5);
    let (driver, reign, _) = open(&vfs);
    vfs.set_fault(Fault::SyncFails(0));
    let proposal = reign.propose(b"a".to_vec(), true).unwrap();
    assert_eq!(reign.committed(proposal).await.unwrap_err().code, SqlState::IO_ERROR);
    assert!(reign.propose(b"b".to_vec(), true).is_err(), "nothing more is taken");
    drop(driver);
    vfs.kill_process();
    assert_eq!(open(&vfs).2, ">a", "it was written, and is found by the next start");
}

#[test]
fn a_directory_of_an_older_version_is_refused_with_advice() {
    let vfs = SimVfs::new(6);
    drop(open(&vfs));
    let path = Path::new("/c/CATALOG");
    let mut bytes = vfs.contents(path).unwrap();
    bytes[8] = 3;
    vfs.set_contents(path, &bytes);
    let genesis = || unreachable!("the directory is there");
    let error = try_open(Arc::new(vfs), 1, genesis).err().unwrap();
    assert_eq!(error.code, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(error.message, "\"/c/CATALOG\" has format version 3, this build reads version 4");
    assert!(error.hint.unwrap().contains("not migrated"));
}
