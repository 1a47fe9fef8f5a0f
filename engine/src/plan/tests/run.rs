//! Streams, errors, cancellation, parameters.

use super::cluster::{Chance, Cluster, DAY_US, START_US, hypertable, rows, statement, text};
use crate::PgType;
use crate::plan::Relation;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use proto::{Error, NodeName, SqlState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_stream_stops_the_scans() {
    let cluster = Cluster::empty(&["dn1", "dn2"]);
    let def = hypertable(1, "conditions", &["dn1", "dn2"], 400);
    cluster.load(def.clone(), &rows(&def, 200_000, 30, 1));
    let cluster = Arc::new(cluster);
    let context = cluster.context(true);
    let prepared = cluster.engine.prepare(&statement("SELECT * FROM conditions"), &[], &context).unwrap();
    let mut result = cluster.engine.run(&prepared, &[], &context).await.unwrap();
    result.stream.next().await.unwrap().unwrap();
    drop(result);
    let stores = || cluster.stores.values();
    while stores().any(|store| store.open.load(Ordering::SeqCst) > 0) {
        tokio::task::yield_now().await;
    }
    let read: usize = stores().map(|store| store.batches_read.load(Ordering::SeqCst)).sum();
    assert!(read < 1000, "{read} of 2000 batches were read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_names_its_node_and_keeps_its_code() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let damaged = Error::new(SqlState::DATA_CORRUPTED, "checksum of segment 7 does not match");
    *cluster.stores[&NodeName::from("dn2")].fails.lock() = Some(damaged);
    for sql in ["SELECT * FROM conditions", "SELECT host, count(*) FROM conditions GROUP BY host ORDER BY 1"] {
        for push_down in [true, false] {
            let error = cluster.query(sql, push_down).await.unwrap_err();
            assert_eq!(error.code, SqlState::DATA_CORRUPTED);
            assert_eq!(error.message, "[dn2]: checksum of segment 7 does not match");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_bound_for_each_run() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let context = cluster.context(true);
    let sql = "SELECT count(*) FROM conditions WHERE device = $1 AND time < $2";
    let prepared = cluster.engine.prepare(&statement(sql), &[None, Some(PgType::Timestamptz)], &context).unwrap();
    assert_eq!(prepared.params(), [PgType::Int4, PgType::Timestamptz]);
    for device in 0..5 {
        let until = START_US + 10 * DAY_US;
        let values =
            [ScalarValue::Int32(Some(device)), ScalarValue::TimestampMicrosecond(Some(until), Some("UTC".into()))];
        let context = cluster.context(true);
        let result = cluster.engine.run(&prepared, &values, &context).await.unwrap();
        let batches = result.stream.try_collect::<Vec<_>>().await.unwrap();
        let count = batches[0].column(0).as_primitive::<Int64Type>().value(0);
        let literal = format!(
            "SELECT count(*) FROM conditions WHERE device = {device} AND time < '2019-01-11T00:00:00Z'::timestamptz"
        );
        let expected = cluster.query(&literal, false).await.unwrap();
        assert_eq!(count, expected.column(0).as_primitive::<Int64Type>().value(0));
    }
    let error = cluster.engine.run(&prepared, &[], &context).await.err().unwrap();
    assert_eq!(error.code, SqlState::PROTOCOL_VIOLATION);
}

/// A prepared statement must not go on reading the chunks there were when it was prepared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_statement_sees_chunks_made_since() {
    let cluster = Cluster::empty(&["dn1"]);
    let def = hypertable(1, "conditions", &["dn1"], 7);
    cluster.load(def.clone(), &rows(&def, 10, 1, 1));
    let cluster = Arc::new(cluster);
    let sql = statement("SELECT * FROM conditions");
    let prepared = cluster.engine.prepare(&sql, &[], &cluster.context(true)).unwrap();
    cluster.load(def.clone(), &rows(&def, 500, 60, 2));
    let result = cluster.engine.run(&prepared, &[], &cluster.context(true)).await.unwrap();
    let counted: usize =
        result.stream.map_ok(|batch| batch.num_rows()).try_collect::<Vec<_>>().await.unwrap().iter().sum();
    assert_eq!(counted, 500);

    let mut changed = def;
    changed.columns[2].ty = PgType::Text;
    let relation = Relation::Table { def: Arc::new(changed), chunks: Arc::default() };
    cluster.relations.lock().insert("conditions".into(), relation);
    let error = cluster.engine.run(&prepared, &[], &cluster.context(true)).await.err().unwrap();
    assert_eq!(
        (error.code, &*error.message),
        (SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type")
    );
}

/// Rows written before `ADD COLUMN … DEFAULT 5` hold 5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_added_later_has_its_default_in_old_rows() {
    let cluster = Cluster::empty(&["dn1", "dn2"]);
    let mut def = hypertable(1, "conditions", &["dn1", "dn2"], 7);
    cluster.load(def.clone(), &rows(&def, 100, 10, 1));
    let Some(Relation::Table { chunks, .. }) = cluster.relations.lock().remove("conditions") else { panic!("loaded") };
    let mut added = super::cluster::column(5, "level", PgType::Int8);
    added.missing = Some("5".into());
    def.columns.push(added);
    cluster.relations.lock().insert("conditions".into(), Relation::Table { def: Arc::new(def), chunks });
    let cluster = Arc::new(cluster);
    let answer = cluster.query("SELECT sum(level) AS s FROM conditions", true).await.unwrap();
    assert_eq!(text(&answer, true), ["| s   |", "| 500 |"]);
}

/// Random filters: exclusion of chunks must never lose a row. The twin is a scan without a filter that the store
/// could use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exclusion_loses_no_row() {
    let cluster = Cluster::new(&["dn1", "dn2", "dn3"]);
    let mut chance = Chance(99);
    for round in 0..40 {
        let day = |n: u64| format!("'2019-01-{:02}T00:00:00Z'::timestamptz", n + 1);
        let term = |chance: &mut Chance| match chance.below(5) {
            0 => format!("device = {}", chance.below(30)),
            1 => format!("device IN ({}, {})", chance.below(30), chance.below(30)),
            2 => format!("time >= {}", day(chance.below(30))),
            3 => format!("time < {}", day(chance.below(30))),
            _ => format!("time BETWEEN {} AND {}", day(chance.below(15)), day(15 + chance.below(15))),
        };
        let joint = if chance.below(3) == 0 { "OR" } else { "AND" };
        let filter = format!("{} {joint} {}", term(&mut chance), term(&mut chance));
        let pruned = cluster.query(&format!("SELECT time FROM conditions WHERE {filter}"), true).await.unwrap();
        // The same filter over a value no bound can be read from.
        let opaque = filter
            .replace("device", "(device + 0)")
            .replace("time", "(time + INTERVAL '0 day')")
            .replace("::(time + INTERVAL '0 day')", "::time");
        let full = cluster.query(&format!("SELECT time FROM conditions WHERE {opaque}"), true).await.unwrap();
        assert_eq!(text(&pruned, false), text(&full, false), "round {round}: {filter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_beyond_the_memory_limit_fails_alone() {
    let mut small = Cluster::empty(&["dn1"]);
    let def = hypertable(1, "conditions", &["dn1"], 7);
    small.load(def.clone(), &rows(&def, 1000, 10, 1));
    let options = crate::plan::EngineOptions { memory_bytes: 10_000, ..Default::default() };
    small.engine = crate::plan::Engine::new(&options, Arc::new(proto::SystemClock::new()));
    let small = Arc::new(small);
    let error = small.query("SELECT time, temp FROM conditions ORDER BY temp", false).await.unwrap_err();
    assert_eq!(error.code, SqlState::OUT_OF_MEMORY);
    assert_eq!(small.query("SELECT count(*) FROM conditions", true).await.unwrap().num_rows(), 1);
}
