//! Nodes that come, are refused, go and come back.

use super::{DEVICES, World, add, insert};
use proto::{ClusterId, DataNode, NodeIdentity, NodeName, SqlState};
use std::path::Path;
use storage::Vfs;

#[tokio::test]
async fn a_node_is_refused_for_the_right_reason() {
    let (world, cluster, _) = World::with_table(1).await;
    let error = add(&cluster, "dn2", 7002).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (SqlState::DUPLICATE_OBJECT, "server \"dn2\" already exists"));
    let error = add(&cluster, "dn3", 7002).await.unwrap_err();
    assert_eq!(error.code, SqlState::DATA_NODE_ASSIGNMENT);
    assert_eq!(error.message, "cannot add \"dn3\" as a data node");
    let error = add(&cluster, "dn3", 7009).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (SqlState::CANNOT_CONNECT, "could not connect to \"dn3\""));
    let foreign = world.network.add("127.0.0.1:7003", 13);
    foreign.attach(NodeIdentity { cluster: ClusterId([9; 16]), name: NodeName::from("dn3") }).await.unwrap();
    let error = add(&cluster, "dn3", 7003).await.unwrap_err();
    assert_eq!(error.code, SqlState::DATA_NODE_ASSIGNMENT);
    assert_eq!(error.detail.as_deref(), Some("database is already a member of a distributed database"));
    let error = add(&cluster, "dn3", 65536).await.unwrap_err();
    assert_eq!(error.message, "invalid port number 65536");
    assert_eq!(cluster.catalog().nodes().count(), 2);
}

#[tokio::test]
async fn a_dead_node_fails_calls_at_once_and_comes_back() {
    let (world, cluster, table) = World::with_table(2).await;
    world.dn2.kill();
    cluster.tick().await;
    assert!(cluster.node_up(&"dn1".into()) && !cluster.node_up(&"dn2".into()));
    let error = insert(&cluster, &table, &DEVICES).await.1.unwrap_err();
    assert_eq!(error.code, SqlState::CONNECTION_FAILURE);
    assert_eq!(error.message, "data node \"dn2\" is not available");
    world.dn2.restart();
    cluster.tick().await;
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
}

#[tokio::test]
async fn a_node_that_lost_its_directory_stays_down() {
    let (world, cluster, table) = World::with_table(3).await;
    world.dn2.kill();
    cluster.tick().await;
    world.dn2.set_incarnation(99);
    world.dn2.restart();
    cluster.tick().await;
    assert!(!cluster.node_up(&"dn2".into()));
    let error = insert(&cluster, &table, &DEVICES).await.1.unwrap_err();
    assert!(error.detail.unwrap().contains("another data directory"));
}

#[tokio::test]
async fn a_second_coordinator_cannot_have_the_directory() {
    let (world, cluster, _) = World::with_table(4).await;
    let error = world.try_open().await.err().unwrap();
    assert_eq!(error.code, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    cluster.close().await;
}

#[tokio::test]
async fn the_catalog_survives_a_restart_and_a_shortened_log() {
    let mut world = World::new(5);
    world.log_bytes_max = 32 << 10;
    let (cluster, table) = world.make_table().await;
    for _ in 0..150 {
        insert(&cluster, &table, &DEVICES).await.1.unwrap();
    }
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
    let (before, id, last) = (cluster.catalog(), cluster.id(), cluster.snapshot());
    cluster.close().await;
    drop(cluster);
    let files = world.vfs.list(Path::new("/coordinator/log")).unwrap();
    assert_ne!(files[0], format!("{:016x}.log", 0), "replaced by the state it adds up to");
    world.vfs.kill_process();
    let cluster = world.open().await;
    assert_eq!(*cluster.catalog(), *before);
    assert_eq!(cluster.id(), id);
    assert!(cluster.snapshot() > last, "later epochs are above earlier ones");
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
}
