//! Joins over rows that nodes send each other: where they run, and what is left behind when they end.

use super::cluster::{Cluster, hypertable, rows, statement, text};
use crate::Shuffling;
use futures::StreamExt;
use proto::{Error, NodeName, SqlState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const JOIN: &str = "SELECT a.time, b.time FROM big a JOIN other b ON a.host = b.host";

/// Two hypertables without a common place for equal hosts.
fn cluster(nodes: &[&str]) -> Arc<Cluster> {
    let cluster = Cluster::empty(nodes);
    for (id, name, count, days) in [(1, "big", 2400, 7), (2, "other", 900, 3), (3, "nothing", 0, 7)] {
        let def = hypertable(id, name, nodes, days);
        cluster.load(def.clone(), &rows(&def, count, 30, id.into()));
    }
    *cluster.shuffle.lock() = Shuffling::On;
    Arc::new(cluster)
}

/// No node reads, publishes or waits any more.
async fn at_rest(cluster: &Cluster) {
    let busy = || {
        let reads = cluster.stores.values().any(|store| store.open.load(Ordering::SeqCst) > 0);
        reads || !cluster.nodes.values().all(|node| node.0.publishes_nothing())
    };
    while busy() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_lie_apart_meet_on_the_nodes() {
    let cluster = cluster(&["dn1", "dn2", "dn3"]);
    let expected = cluster.query(JOIN, false).await.unwrap();
    let found = cluster.query(JOIN, true).await.unwrap();
    assert_eq!(text(&found, false), text(&expected, false));
    let plan = cluster.explain(JOIN, true, false).await;
    assert!(plan.contains("Shuffle"), "{plan}");
    at_rest(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_fails_fails_the_query_and_leaves_nothing() {
    let cluster = cluster(&["dn1", "dn2", "dn3"]);
    let damaged = Error::new(SqlState::DATA_CORRUPTED, "checksum of segment 7 does not match");
    *cluster.stores[&NodeName::from("dn2")].fails.lock() = Some(damaged);
    for sql in [JOIN, "SELECT a.host, count(*) FROM big a FULL JOIN other b ON a.host = b.host GROUP BY a.host"] {
        let error = cluster.query(sql, true).await.unwrap_err();
        assert_eq!(error.code, SqlState::DATA_CORRUPTED);
        assert_eq!(error.message, "[dn2]: checksum of segment 7 does not match", "{sql}");
        at_rest(&cluster).await;
    }
}

/// Before the first row, and amid them; also where one shuffle feeds another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_stream_stops_every_node() {
    let cluster = cluster(&["dn1", "dn2", "dn3"]);
    let twice = "SELECT a.time FROM big a JOIN other b ON a.host = b.host JOIN big c ON c.temp = b.temp";
    for (sql, batches) in [(JOIN, 0), (JOIN, 2), (twice, 0), (twice, 1)] {
        let context = cluster.context(true);
        let prepared = cluster.engine.prepare(&statement(sql), &[], &context).unwrap();
        let mut result = cluster.engine.run(&prepared, &[], &context).await.unwrap();
        for _ in 0..batches {
            result.stream.next().await.unwrap().unwrap();
        }
        drop(result);
        at_rest(&cluster).await;
    }
}

/// All rows go to one node, and those of the other side that go elsewhere are not wanted there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_or_none_is_as_good_as_many() {
    let cluster = cluster(&["dn1", "dn2", "dn3"]);
    for sql in [
        "SELECT count(*), min(a.time), max(b.time) FROM big a JOIN other b ON a.device * 0 = b.device * 0",
        "SELECT count(*), count(a.time), count(b.time) FROM big a FULL JOIN (SELECT * FROM other WHERE host = 'host_1') b ON a.host = b.host",
        "SELECT count(*), count(a.time), count(b.time) FROM (SELECT * FROM big WHERE temp < 1) a FULL JOIN (SELECT * FROM other WHERE temp < 1) b ON a.host = b.host",
        "SELECT count(*), count(b.time) FROM big a LEFT JOIN nothing b ON a.host = b.host",
        "SELECT count(*) FROM nothing a JOIN big b ON a.host = b.host",
        "SELECT count(*) FROM (SELECT * FROM other WHERE temp < 0) a JOIN big b ON a.host = b.host",
    ] {
        let expected = cluster.query(sql, false).await.unwrap();
        assert_eq!(text(&cluster.query(sql, true).await.unwrap(), true), text(&expected, true), "{sql}");
        at_rest(&cluster).await;
    }
}

/// What nobody takes is not read: nodes do not run ahead of a client that is slow. (Unless some of them find no matches, and
/// so read on; rows for the others are kept then.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_the_scans_up() {
    let cluster = cluster(&["dn1", "dn2"]);
    // In more chunks than the other, so that it is the side that is not collected.
    let def = hypertable(7, "many", &["dn1", "dn2"], 3);
    cluster.load(def.clone(), &rows(&def, 400_000, 30, 7));
    let read = || cluster.stores.values().map(|store| store.batches_read.load(Ordering::SeqCst)).sum::<usize>();
    let context = cluster.context(true);
    let sql = statement("SELECT a.time, b.time FROM big a JOIN many b ON a.temp = b.temp");
    let prepared = cluster.engine.prepare(&sql, &[], &context).unwrap();
    let mut result = cluster.engine.run(&prepared, &[], &context).await.unwrap();
    result.stream.next().await.unwrap().unwrap();
    let mut before = 0;
    while read() > before {
        before = read();
        for _ in 0..100_000 {
            tokio::task::yield_now().await;
        }
    }
    drop(result);
    at_rest(&cluster).await;
    let begun = read();
    cluster.query("SELECT count(temp) FROM many", true).await.unwrap();
    let all = read() - begun;
    assert!(before * 4 < all * 3, "{before} of {all} batches were read");
}

/// Without being asked for: one side looked small enough to be sent along and was not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sides_too_large_to_send_are_shuffled() {
    let cluster = cluster(&["dn1", "dn2"]);
    *cluster.shuffle.lock() = Shuffling::Auto;
    for (id, name) in [(7, "many"), (8, "more")] {
        let def = hypertable(id, name, &["dn1", "dn2"], 7);
        cluster.load(def.clone(), &rows(&def, 101_000, 30, id.into()));
    }
    let sql =
        "SELECT count(*), min(a.temp), max(b.temp) FROM many a JOIN more b ON a.time = b.time AND a.host = b.host";
    let expected = cluster.query(sql, false).await.unwrap();
    assert_eq!(text(&cluster.query(sql, true).await.unwrap(), true), text(&expected, true));
    let plan = cluster.explain(sql, true, true).await;
    assert!(plan.contains("Broadcast: given up, the rows were too many; shuffled"), "{plan}");
    at_rest(&cluster).await;
    *cluster.shuffle.lock() = Shuffling::Off;
    let plan = cluster.explain(sql, true, true).await;
    assert!(plan.contains("given up, the rows were too many; joined on the access node"), "{plan}");
}

/// Groups by the keys of the shuffle are whole on their nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_together_after_a_shuffle_is_known() {
    let cluster = cluster(&["dn1", "dn2"]);
    let plan = cluster
        .explain("SELECT a.host, count(*) FROM big a JOIN other b ON a.host = b.host GROUP BY a.host", true, false)
        .await;
    assert!(!plan.contains("Not pushed down"), "{plan}");
    let sql = "SELECT b.device, count(*) FROM big a JOIN other b ON a.host = b.host GROUP BY b.device";
    let plan = cluster.explain(sql, true, false).await;
    assert!(plan.contains("rows lie where the shuffle by (host = host) has put them"), "{plan}");
}

/// What tells the other side's scans which rows can match is worth more than a shuffle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_turns_out_to_be_small_is_gathered() {
    let cluster = cluster(&["dn1", "dn2"]);
    *cluster.shuffle.lock() = Shuffling::Auto;
    // In ever more chunks: that is what the planner takes for ever larger.
    for (id, name, days) in [(7, "many", 3), (8, "more", 2)] {
        let def = hypertable(id, name, &["dn1", "dn2"], days);
        cluster.load(def.clone(), &rows(&def, 101_000, 30, id.into()));
    }
    for (sql, is_done) in [
        ("SELECT count(*), count(b.time) FROM big a LEFT JOIN many b ON a.temp = b.temp", false),
        ("SELECT count(*), count(b.time) FROM many a LEFT JOIN more b ON a.time = b.time", true),
    ] {
        let expected = cluster.query(sql, false).await.unwrap();
        assert_eq!(text(&cluster.query(sql, true).await.unwrap(), true), text(&expected, true), "{sql}");
        let plan = cluster.explain(sql, true, false).await;
        assert!(plan.contains("Sent: if more than 100000 rows or 8 MiB"), "{plan}");
        let plan = cluster.explain(sql, true, true).await;
        assert_eq!(plan.contains("Shuffle: not needed, one side had few rows"), !is_done, "{plan}");
        at_rest(&cluster).await;
    }
}

/// The danger: rows of the small side in one stream, those they meet in many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_turns_out_to_be_small_meets_partitions_made_for_a_shuffle() {
    let cluster = cluster(&["dn1", "dn2"]);
    *cluster.shuffle.lock() = Shuffling::Auto;
    for (id, name, days) in [(7, "many", 3), (8, "more", 2)] {
        let def = hypertable(id, name, &["dn1", "dn2"], days);
        cluster.load(def.clone(), &rows(&def, 101_000, 30, id.into()));
    }
    for sql in [
        "SELECT count(*), count(b.time) FROM (SELECT device, max(temp) FROM many GROUP BY device) a
         LEFT JOIN more b ON a.device = length(b.host)",
        "SELECT count(*) FROM (SELECT device FROM many WHERE device < 2 AND temp < 1) a
         FULL JOIN (SELECT host FROM more WHERE device = 1 AND temp < 1) b ON a.device = length(b.host)",
    ] {
        let expected = cluster.query(sql, false).await.unwrap();
        assert_eq!(text(&cluster.query(sql, true).await.unwrap(), true), text(&expected, true), "{sql}");
        at_rest(&cluster).await;
    }
}
