//! Whoever dies at whatever point: a transaction has happened everywhere or nowhere, and nothing stays in doubt.

use super::{DEVICES, Death, World, begin_insert, devices_of, insert};
use futures::future::join_all;
use proto::{CommitSeq, Result, SqlState, TxnId};
use storage::Fault;

/// The sentence above, once all are back.
fn check(world: &World, txn: TxnId, answer: &Result<CommitSeq>, nodes_wanted: usize, what: &str) {
    let committed = [&world.dn1, &world.dn2].iter().filter(|node| node.committed(txn).is_some()).count();
    assert!(committed == 0 || committed == nodes_wanted, "{what}: committed on {committed} of {nodes_wanted} nodes");
    match answer {
        Ok(_) => assert_eq!(committed, nodes_wanted, "{what}: an acknowledged transaction is lost"),
        Err(error) if error.code == SqlState::TRANSACTION_RESOLUTION_UNKNOWN => {}
        Err(error) => assert_eq!(committed, 0, "{what}: happened although refused with {error}"),
    }
    assert_eq!((world.dn1.in_doubt(), world.dn2.in_doubt()), (0, 0), "{what}: in doubt");
}

#[tokio::test]
async fn one_no_aborts_everywhere() {
    let (world, cluster, table) = World::with_table(1).await;
    world.dn2.vote_no();
    let (txn, answer) = insert(&cluster, &table, &DEVICES).await;
    let error = answer.clone().unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (SqlState::DISK_FULL, "[dn2]: no space left on device"));
    check(&world, txn, &answer, 2, "vote no");
    assert!(world.dn1.is_idle() && world.dn2.is_idle());
    assert!(cluster.catalog().chunks(table.id).is_empty(), "its new chunks went with it");
}

#[tokio::test]
async fn a_node_dies_at_any_call() {
    for devices in [DEVICES.to_vec(), devices_of(0), devices_of(1)] {
        for death in [Death::Before, Death::After] {
            // The second transaction finds its chunks made, so that one node alone commits in one round.
            for at in 0.. {
                let (world, cluster, table) = World::with_table(at).await;
                let nodes_wanted = if devices.len() == DEVICES.len() { 2 } else { 1 };
                insert(&cluster, &table, &DEVICES).await.1.unwrap();
                world.network.kill_at(at, death);
                let (txn, answer) = insert(&cluster, &table, &devices).await;
                let died = world.network.calls() > at;
                world.network.restart_all();
                cluster.tick().await;
                check(&world, txn, &answer, nodes_wanted, &format!("death {death:?} at call {at} of {devices:?}"));
                assert!(cluster.node_up(&"dn1".into()) && cluster.node_up(&"dn2".into()));
                assert!(world.dn1.is_idle() && world.dn2.is_idle(), "{death:?} at {at}: staged rows left behind");
                insert(&cluster, &table, &DEVICES).await.1.expect("service goes on");
                if !died {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn the_coordinator_loses_power_at_any_write() {
    for at in 0.. {
        let (world, cluster, table) = World::with_table(at).await;
        world.vfs.set_fault(Fault::Crash(at));
        let (txn, answer) = insert(&cluster, &table, &DEVICES).await;
        let crashed = world.vfs.crashed();
        drop(cluster);
        world.vfs.restart();
        world.vfs.heal();
        let cluster = world.open().await;
        check(&world, txn, &answer, 2, &format!("power lost at write {at}"));
        let chunks = cluster.catalog().chunks(table.id).len();
        assert_eq!(chunks, if world.dn1.committed(txn).is_some() { 2 } else { 0 }, "chunks come with their rows");
        insert(&cluster, &table, &DEVICES).await.1.expect("service goes on");
        if !crashed {
            break;
        }
    }
}

#[tokio::test]
async fn a_failed_fsync_of_the_log_leaves_the_outcome_to_the_next_start() {
    let (world, cluster, table) = World::with_table(5).await;
    world.vfs.set_fault(Fault::SyncFails(0));
    let (txn, answer) = insert(&cluster, &table, &DEVICES).await;
    assert_eq!(answer.clone().unwrap_err().code, SqlState::TRANSACTION_RESOLUTION_UNKNOWN);
    cluster.tick().await;
    assert_eq!((world.dn1.in_doubt(), world.dn2.in_doubt()), (1, 1), "nobody may decide it now");
    assert!(insert(&cluster, &table, &DEVICES).await.1.is_err(), "and nothing more is committed");
    drop(cluster);
    world.vfs.kill_process();
    world.vfs.heal();
    let _cluster = world.open().await;
    check(&world, txn, &answer, 2, "fsync failed");
}

#[tokio::test]
async fn a_commit_on_two_nodes_costs_the_coordinator_one_fsync() {
    let (world, cluster, table) = World::with_table(9).await;
    let before = world.vfs.files_synced();
    for _ in 0..20 {
        insert(&cluster, &table, &DEVICES).await.1.unwrap();
    }
    assert_eq!(world.vfs.files_synced() - before, 20, "what is noted as done goes along with the next commit");
    let before = world.vfs.files_synced();
    for (_, answer) in join_all((0..50).map(|_| insert(&cluster, &table, &DEVICES))).await {
        answer.unwrap();
    }
    assert!(world.vfs.files_synced() - before <= 50, "those that wait at the same time share one");
}

#[tokio::test]
async fn a_decision_that_no_node_heard_of_is_told_after_a_restart() {
    let (world, cluster, table) = World::with_table(2).await;
    let txn = begin_insert(&cluster, &table).await;
    let id = txn.id();
    // Calls from here: two prepares, then the first commit kills its node; the other node is told.
    world.network.kill_at(2, Death::Before);
    let answer = txn.commit().await;
    assert!(answer.is_ok(), "the decision was durable");
    assert_eq!(world.dn1.in_doubt() + world.dn2.in_doubt(), 1);
    let seq = answer.clone().unwrap();
    assert!(cluster.snapshot() >= seq, "live nodes show it");
    drop(cluster);
    world.vfs.kill_process();
    world.network.restart_all();
    let cluster = world.open().await;
    check(&world, id, &answer, 2, "restart");
    assert_eq!(world.dn1.committed(id), Some(seq), "under the same sequence");
    assert_eq!(world.dn2.committed(id), Some(seq));
    assert!(cluster.snapshot() > seq);
}

#[tokio::test]
async fn prepared_and_never_decided_is_aborted_after_a_restart() {
    use proto::DataNode;
    let (world, cluster, table) = World::with_table(3).await;
    let mut txn = begin_insert(&cluster, &table).await;
    let id = txn.read_txn().await.unwrap().unwrap();
    world.dn1.prepare(id).await.unwrap();
    world.dn2.prepare(id).await.unwrap();
    cluster.tick().await;
    assert_eq!((world.dn1.in_doubt(), world.dn2.in_doubt()), (1, 1), "it is running here");
    std::mem::forget(txn);
    let cluster_lost = cluster;
    world.vfs.kill_process();
    world.vfs.restart();
    let _cluster = world.open().await;
    assert_eq!((world.dn1.in_doubt(), world.dn2.in_doubt()), (0, 0));
    assert_eq!((world.dn1.committed(id), world.dn2.committed(id)), (None, None));
    drop(cluster_lost);
}

#[tokio::test]
async fn a_node_that_restarted_between_two_blocks_refuses_the_second() {
    let (world, cluster, table) = World::with_table(4).await;
    let mut txn = begin_insert(&cluster, &table).await;
    // Unseen by the coordinator.
    world.dn1.restart();
    let id = txn.id();
    let rest = txn.write(&table, super::rows(&table, [super::NEW_YEAR_US + 1].into_iter(), &DEVICES)).await;
    let answer = match rest {
        Ok(_) => txn.commit().await,
        Err(error) => Err(error),
    };
    assert!(answer.is_err());
    cluster.close().await;
    check(&world, id, &answer, 2, "silent restart");
}

#[tokio::test]
async fn a_dropped_transaction_is_aborted() {
    let (world, cluster, table) = World::with_table(6).await;
    drop(begin_insert(&cluster, &table).await);
    cluster.close().await;
    assert!(world.dn1.is_idle() && world.dn2.is_idle());
    assert_eq!(world.dn1.rows() + world.dn2.rows(), 0);
}

#[tokio::test]
async fn snapshots_never_go_back_and_show_what_was_acknowledged() {
    let (_world, cluster, table) = World::with_table(8).await;
    let writers = (0..8).map(|_| {
        let (cluster, table) = (cluster.clone(), table.clone());
        tokio::spawn(async move {
            let mut last = cluster.snapshot();
            for _ in 0..10 {
                let seq = insert(&cluster, &table, &DEVICES).await.1.unwrap();
                let snapshot = cluster.snapshot();
                assert!(snapshot >= seq && snapshot >= last);
                last = snapshot;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(cluster.catalog().chunks(table.id).len(), 2);
}

#[tokio::test]
async fn what_is_open_is_listed_with_whom_it_waits_for() {
    use crate::txn::Phase;
    let (world, cluster, table) = World::with_table(11).await;
    assert_eq!(cluster.transactions(), []);
    let txn = begin_insert(&cluster, &table).await;
    let id = txn.id();
    let listed = cluster.transactions();
    assert_eq!(listed.iter().map(|one| (one.id, one.phase)).collect::<Vec<_>>(), [(id, Phase::Open)]);
    assert_eq!((listed[0].since_us, listed[0].waiting_for.len()), (Some(super::NEW_YEAR_US), 0));
    // Two votes, then the first that is told of the decision dies.
    world.network.kill_at(2, Death::Before);
    txn.commit().await.unwrap();
    let listed = cluster.transactions();
    assert_eq!(
        (listed.len(), listed[0].id, listed[0].phase, listed[0].waiting_for.len()),
        (1, id, Phase::Committing, 1)
    );
    assert!(!cluster.node_up(&listed[0].waiting_for[0]));
    world.network.restart_all();
    cluster.tick().await;
    cluster.tick().await;
    assert_eq!(cluster.transactions(), []);
}
