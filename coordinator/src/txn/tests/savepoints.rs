//! Transactions that are taken back in part, over two nodes.

use super::{DEVICES, Death, NEW_YEAR_US, WEEK_US, World, devices_of, insert, rows};
use crate::catalog::CatalogChange;
use crate::txn::{Savepoint, Transaction};
use engine::TableDef;
use proto::{CommitSeq, Error, Result, SqlState};

/// One row of each device, so many weeks after new year.
async fn write(txn: &mut Transaction, table: &TableDef, week: i64, devices: &[i32]) -> Result<u64> {
    txn.write(table, rows(table, [NEW_YEAR_US + week * WEEK_US].into_iter(), devices)).await
}

#[tokio::test]
async fn what_came_after_the_savepoint_goes_on_every_node() {
    let (world, cluster, table) = World::with_table(1).await;
    let mut txn = cluster.begin();
    write(&mut txn, &table, 0, &DEVICES).await.unwrap();
    let savepoint = txn.savepoint().await.unwrap();
    for _ in 0..3 {
        write(&mut txn, &table, 0, &DEVICES).await.unwrap();
        let inner = txn.savepoint().await.unwrap();
        write(&mut txn, &table, 1, &DEVICES).await.unwrap();
        txn.rollback_to(inner).await.unwrap();
        write(&mut txn, &table, 2, &DEVICES).await.unwrap();
        assert_eq!(txn.catalog().chunks(table.id).len(), 4);
        txn.rollback_to(savepoint).await.unwrap();
        assert_eq!(txn.catalog().chunks(table.id).len(), 2);
    }
    write(&mut txn, &table, 3, &devices_of(0)).await.unwrap();
    txn.commit().await.unwrap();
    assert_eq!(world.dn1.rows() + world.dn2.rows(), DEVICES.len() + devices_of(0).len());
    assert_eq!(cluster.catalog().chunks(table.id).len(), 3);
    assert!(world.dn1.is_idle() && world.dn2.is_idle());
}

#[tokio::test]
async fn a_refused_row_goes_with_its_savepoint() {
    for at_first in [true, false] {
        let (world, cluster, table) = World::with_table(2).await;
        let mut txn = cluster.begin();
        if !at_first {
            write(&mut txn, &table, 0, &DEVICES).await.unwrap();
        }
        let savepoint = txn.savepoint().await.unwrap();
        world.dn2.refuse_rows(Error::new(SqlState::UNIQUE_VIOLATION, "a duplicate"));
        let refused = match write(&mut txn, &table, 0, &DEVICES).await {
            Ok(_) => txn.settle().await,
            Err(error) => Err(error),
        };
        assert_eq!(refused.unwrap_err().code, SqlState::UNIQUE_VIOLATION);
        world.dn2.take_rows_again();
        txn.rollback_to(savepoint).await.unwrap();
        assert_eq!(txn.has_changes(), !at_first);
        write(&mut txn, &table, 0, &DEVICES).await.unwrap();
        txn.commit().await.unwrap();
        let times = if at_first { 1 } else { 2 };
        assert_eq!(world.dn1.rows() + world.dn2.rows(), times * DEVICES.len());
    }
}

#[tokio::test]
async fn a_savepoint_answers_for_the_rows_before_it() {
    let (world, cluster, table) = World::with_table(3).await;
    let mut txn = cluster.begin();
    write(&mut txn, &table, 0, &DEVICES).await.unwrap();
    world.dn2.refuse_rows(Error::new(SqlState::DISK_FULL, "no space left on device"));
    write(&mut txn, &table, 0, &DEVICES).await.unwrap();
    assert_eq!(txn.savepoint().await.unwrap_err().code, SqlState::DISK_FULL);
    txn.rollback_to(Savepoint::START).await.unwrap();
    world.dn2.take_rows_again();
    write(&mut txn, &table, 0, &DEVICES).await.unwrap();
    txn.commit().await.unwrap();
    assert_eq!(world.dn1.rows() + world.dn2.rows(), DEVICES.len());
}

#[tokio::test]
async fn a_transaction_that_was_taken_back_to_its_start_leaves_nothing() {
    let (world, cluster, table) = World::with_table(4).await;
    let mut txn = cluster.begin();
    write(&mut txn, &table, 0, &DEVICES).await.unwrap();
    txn.change(CatalogChange::Truncate(table.id)).unwrap();
    txn.rollback_to(Savepoint::START).await.unwrap();
    assert!(!txn.has_changes() && !txn.has_rows());
    assert_eq!(txn.read_txn().await.unwrap(), None);
    let before = cluster.snapshot();
    assert_eq!(txn.commit().await.unwrap(), before, "nothing was committed");
    assert!(world.dn1.is_idle() && world.dn2.is_idle(), "the nodes were told to forget it");
    assert_eq!(cluster.catalog().chunks(table.id).len(), 0);
}

/// A chunk that nobody else uses goes with the savepoint; one that others use stays theirs.
#[tokio::test]
async fn chunks_made_after_the_savepoint_are_given_back() {
    let (world, cluster, table) = World::with_table(5).await;
    let mut first = cluster.begin();
    let mut second = cluster.begin();
    let savepoint = first.savepoint().await.unwrap();
    write(&mut first, &table, 0, &DEVICES).await.unwrap();
    write(&mut second, &table, 0, &DEVICES).await.unwrap();
    write(&mut first, &table, 9, &DEVICES).await.unwrap();
    let alone = first.catalog().chunks(table.id).iter().map(|chunk| chunk.id).max().unwrap();
    first.rollback_to(savepoint).await.unwrap();
    write(&mut first, &table, 9, &DEVICES).await.unwrap();
    let fresh = first.catalog().chunks(table.id).iter().map(|chunk| chunk.id).min().unwrap();
    assert!(fresh > alone, "a chunk that was given back is not given again");
    second.commit().await.unwrap();
    first.rollback_to(savepoint).await.unwrap();
    write(&mut first, &table, 0, &DEVICES).await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(cluster.catalog().chunks(table.id).len(), 2, "the second one's");
    assert_eq!(world.dn1.rows() + world.dn2.rows(), 2 * DEVICES.len());
}

#[tokio::test]
async fn definitions_after_the_savepoint_are_forgotten() {
    let (_world, cluster, table) = World::with_table(6).await;
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
    let other = |name: &str| TableDef {
        name: name.to_owned(),
        ..crate::catalog::tests::conditions(cluster.new_oid(), &["dn1", "dn2"])
    };
    let (kept, forgotten) = (other("kept"), other("forgotten"));
    let mut txn = cluster.begin();
    txn.change(CatalogChange::CreateTable(kept.clone())).unwrap();
    let savepoint = txn.savepoint().await.unwrap();
    txn.change(CatalogChange::CreateTable(forgotten.clone())).unwrap();
    txn.change(CatalogChange::Truncate(table.id)).unwrap();
    // Behind a TRUNCATE rows get chunks that are nobody else's.
    write(&mut txn, &table, 0, &DEVICES).await.unwrap();
    txn.rollback_to(savepoint).await.unwrap();
    assert!(txn.catalog().table_by_id(kept.id).is_some() && txn.catalog().table_by_id(forgotten.id).is_none());
    write(&mut txn, &table, 0, &DEVICES).await.unwrap();
    txn.commit().await.unwrap();
    let catalog = cluster.catalog();
    assert!(catalog.table_by_id(kept.id).is_some() && catalog.table_by_id(forgotten.id).is_none());
    assert_eq!(catalog.chunks(table.id).len(), 2);
    assert!(catalog.garbage().is_empty(), "the TRUNCATE did not happen");
}

#[tokio::test]
async fn a_node_that_lost_the_transaction_cannot_go_back() {
    let (world, cluster, table) = World::with_table(7).await;
    let mut txn = cluster.begin();
    write(&mut txn, &table, 0, &DEVICES).await.unwrap();
    let savepoint = txn.savepoint().await.unwrap();
    // Nothing is asked of nodes that hold nothing to be taken back.
    world.dn2.restart();
    txn.rollback_to(savepoint).await.unwrap();
    write(&mut txn, &table, 0, &devices_of(0)).await.unwrap();
    world.dn1.restart();
    assert_eq!(txn.rollback_to(savepoint).await.unwrap_err().code, SqlState::SERIALIZATION_FAILURE);
    assert!(txn.commit().await.is_err());
    assert_eq!(world.dn1.rows() + world.dn2.rows(), 0);
}

/// Whichever call is lost, on the way or on the way back: the transaction is committed with what it should have, or
/// not at all.
#[tokio::test]
async fn a_call_that_is_lost_anywhere_takes_the_transaction_back_as_a_whole() {
    async fn run(world: &World, kill: Option<(u64, Death)>) -> (Result<CommitSeq>, usize) {
        let (cluster, table) = world.make_table().await;
        let (at, death) = kill.unwrap_or((u64::MAX, Death::Before));
        world.network.kill_at(at, death);
        let mut txn = cluster.begin();
        let outcome = async {
            write(&mut txn, &table, 0, &DEVICES).await?;
            let outer = txn.savepoint().await?;
            write(&mut txn, &table, 0, &DEVICES).await?;
            let inner = txn.savepoint().await?;
            // Fails or not: it is taken back.
            let _ = write(&mut txn, &table, 0, &DEVICES).await;
            txn.rollback_to(inner).await?;
            write(&mut txn, &table, 1, &devices_of(1)).await?;
            txn.rollback_to(outer).await?;
            write(&mut txn, &table, 0, &devices_of(0)).await
        };
        let outcome = match outcome.await {
            Ok(_) => txn.commit().await,
            Err(error) => {
                txn.abort().await;
                Err(error)
            }
        };
        let calls = world.network.calls() as usize;
        world.network.restart_all();
        cluster.tick().await;
        (outcome, calls)
    }
    let whole = DEVICES.len() + devices_of(0).len();
    let world = World::new(8);
    let (outcome, calls) = run(&world, None).await;
    outcome.unwrap();
    assert_eq!(world.dn1.rows() + world.dn2.rows(), whole);
    assert!(calls > 12, "stages, discards, votes and commits on both nodes: {calls}");
    let mut failed = 0;
    for at in 0..calls as u64 {
        for death in [Death::Before, Death::After] {
            let world = World::new(9 + at);
            let (outcome, _) = run(&world, Some((at, death))).await;
            let rows = world.dn1.rows() + world.dn2.rows();
            assert_eq!(rows, if outcome.is_ok() { whole } else { 0 }, "call {at}, {death:?}: {outcome:?}");
            assert!(world.dn1.in_doubt() + world.dn2.in_doubt() == 0, "call {at}, {death:?}");
            failed += usize::from(outcome.is_err());
        }
    }
    assert!(failed > 0);
}
