//! A reign's beginning, its end, and what it notices in between.

use super::{DEVICES, FixedClock, World, begin_insert, insert, rows};
use crate::raft::{Driver, DriverOptions, Outbox, Standing};
use crate::txn::log::{DecisionLog, Position, RaftLog};
use crate::txn::record::{Machine, Record};
use crate::txn::{Cluster, ClusterOptions};
use async_trait::async_trait;
use bytes::Bytes;
use proto::{ClusterId, Error, Result, SqlState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

#[tokio::test]
async fn a_node_that_does_not_answer_does_not_keep_the_others_clients_waiting() {
    let (world, cluster, table) = World::with_table(1).await;
    cluster.close().await;
    drop(cluster);
    world.dn2.set_silent(true);
    // Less than a hello may take.
    let opened = tokio::time::timeout(Duration::from_millis(2_500), world.open()).await;
    let cluster = opened.expect("it opened before the silent node's time was over");
    assert!(cluster.node_up(&"dn1".into()) && !cluster.node_up(&"dn2".into()));
    let (_, refused) = insert(&cluster, &table, &DEVICES).await;
    assert_eq!(refused.unwrap_err().code, SqlState::CONNECTION_FAILURE, "at once, as of any node that is down");
    world.dn2.set_silent(false);
    cluster.tick().await;
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
}

#[tokio::test]
async fn a_node_that_came_back_unseen_with_other_files_is_not_taken_for_the_one_that_was() {
    let (world, cluster, table) = World::with_table(2).await;
    // As from a copy made before this coordinator led: it would obey the one before.
    world.dn1.forget_epoch();
    cluster.tick().await;
    assert_eq!(world.dn1.epoch_max(), cluster.epoch, "it was told again whom it obeys");
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
    world.dn1.set_incarnation(99);
    cluster.tick().await;
    assert!(!cluster.node_up(&"dn1".into()), "another directory than the one that was added");
}

#[tokio::test]
async fn a_commit_does_not_wait_for_a_node_that_hangs_once_another_leads() {
    for commits in [true, false] {
        let (world, cluster, table) = World::with_table(3).await;
        let mut txn = begin_insert(&cluster, &table).await;
        let gate = Arc::new(Semaphore::new(0));
        world.dn1.wait_at(&gate);
        txn.write(&table, rows(&table, [super::NEW_YEAR_US].into_iter(), &DEVICES)).await.unwrap();
        let deposed = Error::new(SqlState::ADMIN_SHUTDOWN, "this coordinator does not lead any more");
        cluster.end(deposed);
        // Staging may take a minute.
        let ending = async {
            match commits {
                true => assert_eq!(txn.commit().await.unwrap_err().code, SqlState::SERIALIZATION_FAILURE),
                false => txn.abort().await,
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ending).await.expect("nobody waits for the node");
    }
}

/// Takes a record, and has whoever waits for it panic.
struct PanickingLog(RaftLog);

#[async_trait]
impl DecisionLog for PanickingLog {
    fn append(&self, record: &Record) -> Result<Position> {
        self.0.append(record)
    }

    fn note(&self, record: &Record) -> Result<()> {
        self.0.note(record)
    }

    async fn sync(&self, position: Position) -> Result<()> {
        self.0.sync(position).await?;
        panic!("a bug, as far as this test is concerned");
    }

    fn flush(&self) {
        self.0.flush();
    }

    async fn assured(&self) -> Result<()> {
        self.0.assured().await
    }

    fn resign(&self, reason: &Error) {
        self.0.resign(reason);
    }

    async fn ended(&self) -> Error {
        self.0.ended().await
    }
}

/// Nobody to send to.
struct Void;

impl Outbox for Void {
    fn send(&self, to: u64, _: Bytes) {
        unreachable!("a message to member {to} of a group of one");
    }
}

async fn with_panicking_log(world: &World) -> Arc<Cluster> {
    let tick = Duration::from_millis(100);
    let options = DriverOptions { log_bytes_max: 1 << 20, segment_bytes_max: 1 << 18, tick };
    let genesis = || unreachable!("the directory is there");
    let (vfs, dir) = (Arc::new(world.vfs.clone()), Path::new("/coordinator"));
    let driver = Driver::<Machine>::open(vfs, Arc::new(FixedClock), dir, options, Arc::new(Void), genesis).unwrap();
    let standing = driver.standing().borrow().clone();
    let Standing::Leading { reign, machine } = standing else { panic!("who is alone leads at once") };
    let (epoch, machine) = (reign.term(), machine.take().unwrap());
    let log = Arc::new(PanickingLog(RaftLog { reign, _driver: Arc::new(driver) }));
    let options = ClusterOptions { check_interval: Duration::from_secs(3600), ..ClusterOptions::default() };
    let connector = Arc::clone(&world.network) as _;
    let cluster = Cluster::begin_reign(Arc::new(FixedClock), options, log, machine, epoch, ClusterId::NONE, connector);
    cluster.await.unwrap()
}

#[tokio::test]
async fn a_panic_behind_the_decision_aborts_nothing_that_is_in_the_log() {
    let (world, cluster, table) = World::with_table(4).await;
    cluster.close().await;
    drop(cluster);
    let cluster = with_panicking_log(&world).await;
    let (txn, answer) = insert(&cluster, &table, &DEVICES).await;
    assert_eq!(answer.unwrap_err().code, SqlState::TRANSACTION_RESOLUTION_UNKNOWN);
    cluster.ended().await;
    assert_eq!(world.dn1.in_doubt() + world.dn2.in_doubt(), 2, "nobody was told anything");
    cluster.close().await;
    drop(cluster);
    let cluster = world.open().await;
    assert!(world.dn1.committed(txn).is_some() && world.dn2.committed(txn).is_some(), "as the log says");
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
}
