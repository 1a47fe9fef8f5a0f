//! A client that does not know how its transaction ended tries it again under the same key: it happens once.

use super::{DEVICES, Death, World, begin_insert, devices_of, rows};
use crate::txn::Cluster;
use engine::TableDef;
use futures::future::join;
use proto::{CommitSeq, Result, SqlState};
use std::sync::Arc;
use storage::Fault;

async fn attempt(cluster: &Arc<Cluster>, table: &TableDef, devices: &[i32], key: &str) -> Result<CommitSeq> {
    let mut txn = cluster.begin();
    txn.set_key(&["db"], key).unwrap();
    match txn.write(table, rows(table, [super::NEW_YEAR_US].into_iter(), devices)).await {
        Ok(_) => txn.commit().await,
        Err(error) => {
            txn.abort().await;
            Err(error)
        }
    }
}

#[tokio::test]
async fn whatever_call_was_lost_a_retry_is_applied_once() {
    for devices in [DEVICES.to_vec(), devices_of(0)] {
        for death in [Death::Before, Death::After] {
            for at in 0.. {
                let (world, cluster, table) = World::with_table(at).await;
                world.network.kill_at(at, death);
                let mut answer = attempt(&cluster, &table, &devices, "once").await;
                let died = world.network.calls() > at;
                world.network.restart_all();
                cluster.tick().await;
                for _ in 0..2 {
                    answer = attempt(&cluster, &table, &devices, "once").await;
                }
                answer.unwrap();
                assert_eq!(world.dn1.rows() + world.dn2.rows(), devices.len(), "{death:?} at {at}");
                assert!(world.dn1.is_idle() && world.dn2.is_idle());
                if !died {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn whatever_write_the_coordinator_died_of_a_retry_is_applied_once() {
    for at in 0.. {
        let (world, cluster, table) = World::with_table(at).await;
        world.vfs.set_fault(Fault::Crash(at));
        let first = attempt(&cluster, &table, &DEVICES, "once").await;
        let crashed = world.vfs.crashed();
        drop(cluster);
        world.vfs.restart();
        world.vfs.heal();
        let cluster = world.open().await;
        let again = attempt(&cluster, &table, &DEVICES, "once").await.unwrap();
        assert!(first.is_err() || first == Ok(again), "the same commit");
        assert_eq!(world.dn1.rows() + world.dn2.rows(), DEVICES.len(), "power lost at write {at}");
        if !crashed {
            break;
        }
    }
}

#[tokio::test]
async fn of_two_at_the_same_time_one_happens_and_both_are_right() {
    let (world, cluster, table) = World::with_table(1).await;
    let (mut one, mut other) = (begin_insert(&cluster, &table).await, begin_insert(&cluster, &table).await);
    one.set_key(&["db"], "k").unwrap();
    other.set_key(&["db"], "k").unwrap();
    let (one, other) = join(one.commit(), other.commit()).await;
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(world.dn1.rows() + world.dn2.rows(), DEVICES.len());
    attempt(&cluster, &table, &DEVICES, "another key").await.unwrap();
    assert_eq!(world.dn1.rows() + world.dn2.rows(), 2 * DEVICES.len());
}

#[tokio::test]
async fn a_repeat_of_what_the_log_lost_is_as_unknown_as_the_first() {
    let (world, cluster, table) = World::with_table(2).await;
    let (mut one, mut other) = (begin_insert(&cluster, &table).await, begin_insert(&cluster, &table).await);
    one.set_key(&["db"], "k").unwrap();
    other.set_key(&["db"], "k").unwrap();
    world.vfs.set_fault(Fault::SyncFails(0));
    let (one, other) = join(one.commit(), other.commit()).await;
    assert_eq!(one.unwrap_err().code, SqlState::TRANSACTION_RESOLUTION_UNKNOWN);
    assert!(other.is_err(), "nobody is told that it happened");
}

#[tokio::test]
async fn a_key_that_cannot_be_remembered_is_refused() {
    let (_world, cluster, _table) = World::with_table(3).await;
    let error = cluster.begin().set_key(&["db"], &"k".repeat(65)).unwrap_err();
    assert_eq!(error.code, SqlState::PROGRAM_LIMIT_EXCEEDED);
}
