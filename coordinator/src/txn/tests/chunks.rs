//! Where rows go, and chunks that several transactions make at once.

use super::{DEVICES, NEW_YEAR_US, WEEK_US, World, begin_insert, insert, readings, rows};
use crate::catalog::CatalogChange;
use proto::{NodeName, SqlState};
use std::collections::BTreeMap;

const MINUTE_US: i64 = 60_000_000;

#[tokio::test]
async fn the_tutorial_makes_twelve_chunks_one_per_node_and_slice() {
    let (world, cluster, table) = World::with_table(1).await;
    // generate_series('2019-01-01', '2019-02-01', '1 min') with 31 devices.
    let reading = |minute: i64| (NEW_YEAR_US + minute * MINUTE_US, (minute % 31) as i32);
    let pairs = (0..44_641).map(reading).collect::<Vec<_>>();
    let mut txn = cluster.begin();
    let mut written = 0;
    for part in pairs.chunks(8192) {
        written += txn.write(&table, readings(&table, part)).await.unwrap();
    }
    assert_eq!(written, 44_641);
    txn.commit().await.unwrap();
    let catalog = cluster.catalog();
    let chunks = catalog.chunks(table.id);
    assert_eq!(chunks.len(), 12);
    let mut by_slice = BTreeMap::<i64, Vec<NodeName>>::new();
    for chunk in chunks.iter() {
        by_slice.entry(chunk.time.start()).or_default().extend(chunk.nodes.clone());
        assert_eq!(chunk.time.end() - chunk.time.start(), WEEK_US);
    }
    // Thursdays 2018-12-27 to 2019-01-31, as TimescaleDB 2.13.1 prints them.
    let starts = (0..6).map(|week| 1_545_868_800_000_000 + week * WEEK_US).collect::<Vec<_>>();
    assert_eq!(by_slice.keys().copied().collect::<Vec<_>>(), starts);
    for nodes in by_slice.values_mut() {
        nodes.sort();
        assert_eq!(*nodes, [NodeName::from("dn1"), NodeName::from("dn2")]);
    }
    assert_eq!(chunks.iter().map(|chunk| chunk.id.0).max(), Some(12));
    assert_eq!(world.dn1.rows() + world.dn2.rows(), 44_641);
}

#[tokio::test]
async fn transactions_that_need_the_same_new_chunk_share_it() {
    let (world, cluster, table) = World::with_table(2).await;
    let first = begin_insert(&cluster, &table).await;
    let second = begin_insert(&cluster, &table).await;
    let third = begin_insert(&cluster, &table).await;
    third.abort().await;
    second.commit().await.unwrap();
    first.commit().await.unwrap();
    let fourth = insert(&cluster, &table, &DEVICES).await.1;
    fourth.unwrap();
    assert_eq!(cluster.catalog().chunks(table.id).len(), 2);
    assert_eq!(world.dn1.rows() + world.dn2.rows(), 3 * DEVICES.len());
}

#[tokio::test]
async fn rows_for_a_chunk_that_was_dropped_meanwhile_are_refused() {
    let (world, cluster, table) = World::with_table(3).await;
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
    let late = begin_insert(&cluster, &table).await;
    let mut truncate = cluster.begin();
    truncate.change(CatalogChange::Truncate(table.id)).unwrap();
    truncate.commit().await.unwrap();
    assert_eq!(late.commit().await.unwrap_err().code, SqlState::SERIALIZATION_FAILURE);
    assert!(world.dn1.is_idle() && world.dn2.is_idle());
    cluster.tick().await;
    assert_eq!(world.dn1.dropped().len() + world.dn2.dropped().len(), 2, "the nodes removed the files");
    assert!(cluster.catalog().garbage().is_empty());
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
    let fresh = cluster.catalog().chunks(table.id).iter().map(|chunk| chunk.id.0).min();
    assert_eq!(fresh, Some(3), "chunk ids are never given twice");
}

/// The state a reign began with must not be held by whoever handed it over.
#[tokio::test]
async fn chunks_dropped_after_a_restart_go_too() {
    let (world, cluster, table) = World::with_table(12).await;
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
    drop(cluster);
    world.vfs.kill_process();
    let cluster = world.open().await;
    let mut truncate = cluster.begin();
    truncate.change(CatalogChange::Truncate(table.id)).unwrap();
    truncate.commit().await.unwrap();
    cluster.tick().await;
    assert_eq!(world.dn1.dropped().len() + world.dn2.dropped().len(), 2);
}

#[tokio::test]
async fn a_reader_keeps_the_chunks_of_its_catalog() {
    let (world, cluster, table) = World::with_table(4).await;
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
    let reader = cluster.begin();
    let mut drop_table = cluster.begin();
    drop_table.change(CatalogChange::DropTable(table.id)).unwrap();
    drop_table.commit().await.unwrap();
    cluster.tick().await;
    assert!(world.dn1.dropped().is_empty() && world.dn2.dropped().is_empty());
    assert_eq!(reader.catalog().chunks(table.id).len(), 2);
    drop(reader);
    cluster.tick().await;
    assert_eq!(world.dn1.dropped().len() + world.dn2.dropped().len(), 2);
}

#[tokio::test]
async fn rows_behind_a_truncate_of_the_same_transaction_stay() {
    let (_world, cluster, table) = World::with_table(5).await;
    insert(&cluster, &table, &DEVICES).await.1.unwrap();
    let before = cluster.catalog().chunks(table.id).iter().map(|chunk| chunk.id).collect::<Vec<_>>();
    let mut txn = cluster.begin();
    txn.change(CatalogChange::Truncate(table.id)).unwrap();
    txn.write(&table, rows(&table, [NEW_YEAR_US].into_iter(), &DEVICES)).await.unwrap();
    txn.commit().await.unwrap();
    let catalog = cluster.catalog();
    let after = catalog.chunks(table.id);
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|chunk| after.get(*chunk).is_none()));
}

#[tokio::test]
async fn a_slice_keeps_its_partitions_when_their_number_changes() {
    let (_world, cluster, table) = World::with_table(6).await;
    let mut txn = cluster.begin();
    txn.write(&table, rows(&table, [NEW_YEAR_US].into_iter(), &super::devices_of(0))).await.unwrap();
    txn.commit().await.unwrap();
    let mut txn = cluster.begin();
    txn.change(CatalogChange::SetPartitions { table: table.id, partitions: 5 }).unwrap();
    txn.commit().await.unwrap();
    let table = cluster.catalog().table_by_id(table.id).unwrap().clone();
    insert(&cluster, &table, &(0..200).collect::<Vec<_>>()).await.1.unwrap();
    let catalog = cluster.catalog();
    let chunks = catalog.chunks(table.id);
    let covered = chunks.iter().map(|chunk| chunk.slots.iter().count()).sum::<usize>();
    assert_eq!(covered, 256, "disjoint (checked on insert), and complete");
    assert_eq!(chunks.iter().next().unwrap().slots, proto::SlotSet::partition(0, 2));
}

#[tokio::test]
async fn null_is_refused_where_none_may_be() {
    use arrow::array::{ArrayRef, RecordBatch, new_null_array};
    use arrow::datatypes::Schema;
    let (_world, cluster, table) = World::with_table(7).await;
    let full = rows(&table, [NEW_YEAR_US].into_iter(), &[1]);
    let nullable =
        table.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    let with_null = |index: usize| {
        let mut columns = full.columns().to_vec();
        let null: ArrayRef = new_null_array(columns[index].data_type(), 1);
        columns[index] = null;
        RecordBatch::try_new(Schema::new(nullable.clone()).into(), columns).unwrap()
    };
    let mut txn = cluster.begin();
    let error = txn.write(&table, with_null(0)).await.unwrap_err();
    assert_eq!(error.message, "NULL value in column \"time\" violates not-null constraint");
    assert_eq!(error.hint.as_deref(), Some("Columns used for time partitioning cannot be NULL."));
    assert_eq!(error.code, SqlState::NOT_NULL_VIOLATION);
    // TimescaleDB takes NULL in the space column.
    txn.write(&table, with_null(1)).await.unwrap();
    let mut strict = table.clone();
    strict.columns[2].nullable = false;
    let error = txn.write(&strict, with_null(2)).await.unwrap_err();
    let text = "null value in column \"temp\" of relation \"conditions\" violates not-null constraint";
    assert_eq!(error.message, text);
}
