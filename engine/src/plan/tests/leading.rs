//! Rows and buckets at one end of time: which statements ask for them, and that reading from that end on changes no answer.

use super::cluster::{Chance, Cluster, DAY_US, START_US, hypertable, rows, statement, text};
use crate::plan::engine::physical_plan;
use crate::plan::exchange::RemoteExec;
use crate::plan::leading::{Enough, Leading};
use crate::plan::scan::ChunkScan;
use arrow::array::{Int32Array, RecordBatch, TimestampMicrosecondArray};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use proto::ColumnId;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `conditions` over two nodes and 30 days, in chunks of seven. Some rows share their time; the device of each is its own.
fn cluster(count: usize, seed: u64) -> Arc<Cluster> {
    let cluster = Cluster::empty(&["dn1", "dn2"]);
    let mut def = hypertable(1, "conditions", &["dn1", "dn2"], 7);
    def.columns[0].nullable = false;
    let mut columns = rows(&def, count, 30, seed).columns().to_vec();
    let mut chance = Chance(seed);
    // A few days have no rows.
    let times = (0..count)
        .map(|_| START_US + ((chance.below(30) | 4) as i64 * DAY_US) + chance.below(5000) as i64 * 17_280_000);
    columns[0] = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
    columns[1] = Arc::new(Int32Array::from_iter_values(0..count as i32));
    cluster.load(def.clone(), &RecordBatch::try_new(def.schema(), columns).unwrap());
    Arc::new(cluster)
}

async fn leading(cluster: &Arc<Cluster>, sql: &str) -> Vec<Option<Leading>> {
    let context = cluster.context(true);
    let prepared = cluster.engine.prepare(&statement(sql), &[], &context).unwrap();
    let plan = physical_plan(&cluster.engine, &prepared, &context).await;
    let mut found = Vec::new();
    plan.apply(|node| {
        let Some(remote) = node.downcast_ref::<RemoteExec>() else { return Ok(TreeNodeRecursion::Continue) };
        remote.fragment.plan.apply(|node| {
            found.extend(node.downcast_ref::<ChunkScan>().map(|scan| scan.leading.clone()));
            Ok(TreeNodeRecursion::Continue)
        })
    })
    .unwrap();
    found
}

#[tokio::test]
async fn scans_under_the_first_in_time_are_told_and_no_others() {
    let cluster = cluster(100, 1);
    let rows = |count, descending| Some((Enough::Rows(count), descending));
    let buckets =
        |count, hours: i64, descending| Some((Enough::Buckets { count, width_us: hours * 3_600_000_000 }, descending));
    for (sql, expected) in [
        ("SELECT * FROM conditions ORDER BY time DESC LIMIT 5", rows(5, true)),
        ("SELECT device, time FROM conditions WHERE temp > 3 ORDER BY time, device LIMIT 5 OFFSET 10", rows(15, false)),
        ("SELECT time AS t, temp + 1 FROM conditions ORDER BY t DESC NULLS LAST LIMIT 2", rows(2, true)),
        (
            "SELECT time_bucket('1 hour', time) AS b, max(temp) FROM conditions WHERE temp > 1 GROUP BY b ORDER BY b DESC LIMIT 5",
            buckets(5, 1, true),
        ),
        (
            "SELECT time_bucket('2 hours', time) AS b, host, count(*) FROM conditions GROUP BY b, host ORDER BY b, host LIMIT 4",
            buckets(4, 2, false),
        ),
        // It keeps no more groups than it needs by itself.
        ("SELECT DISTINCT time_bucket('1 hour', time) AS b FROM conditions ORDER BY b LIMIT 3", None),
        ("SELECT * FROM conditions ORDER BY time DESC", None),
        ("SELECT * FROM conditions ORDER BY device, time DESC LIMIT 5", None),
        ("SELECT * FROM conditions LIMIT 5", None),
        ("SELECT time_bucket('1 month', time) AS b, count(*) FROM conditions GROUP BY b ORDER BY b LIMIT 3", None),
        ("SELECT time_bucket('1 hour', time) AS b, count(*) AS n FROM conditions GROUP BY b ORDER BY n LIMIT 3", None),
        (
            "SELECT time_bucket('1 hour', time) AS b, count(*) FROM conditions GROUP BY b HAVING count(*) > 1 ORDER BY b LIMIT 3",
            None,
        ),
        ("SELECT * FROM (SELECT time, lag(temp) OVER (ORDER BY temp) FROM conditions) t ORDER BY time LIMIT 3", None),
        ("SELECT device, max(time) AS m FROM conditions GROUP BY device ORDER BY m DESC LIMIT 3", None),
        ("SELECT * FROM (SELECT * FROM conditions LIMIT 50) t ORDER BY time DESC LIMIT 5", None),
    ] {
        let filters = sql.matches("WHERE").count();
        let expected = expected.map(|(enough, descending)| Leading { time: ColumnId(1), descending, enough, filters });
        assert_eq!(leading(&cluster, sql).await, [expected], "{sql}");
    }
    let join = "SELECT a.time FROM conditions a JOIN conditions b USING (device) ORDER BY a.time DESC LIMIT 3";
    assert_eq!(leading(&cluster, join).await, [None, None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_from_one_end_changes_no_answer() {
    for seed in 0..25 {
        let mut chance = Chance(seed);
        let count = [0, 3, 200, 4000][chance.below(4) as usize];
        let cluster = cluster(count, seed + 1);
        for _ in 0..12 {
            let direction = ["", " DESC"][chance.below(2) as usize];
            let limit = 1 + [chance.below(3), chance.below(40), chance.below(4000)][chance.below(3) as usize];
            let filter = match chance.below(6) {
                0 => format!(" WHERE temp > {}", chance.below(100)),
                1 => " WHERE host = 'host_3' AND temp > 98".to_owned(),
                2 => format!(" WHERE time < '2019-01-{:02}T07:11:00Z'::timestamptz", 1 + chance.below(31)),
                3 => format!(" WHERE time >= '2019-01-{:02}T07:11:00Z'::timestamptz", 1 + chance.below(31)),
                4 => " WHERE temp > 1000".to_owned(),
                _ => String::new(),
            };
            let width = ["1 minute", "1 hour", "7 hours", "10 days"][chance.below(4) as usize];
            let sql = match chance.below(4) {
                0 => format!("SELECT * FROM conditions{filter} ORDER BY time{direction}, device LIMIT {limit}"),
                1 => format!(
                    "SELECT device FROM conditions{filter} ORDER BY time{direction}, device LIMIT 2 OFFSET {limit}"
                ),
                2 => format!(
                    "SELECT time_bucket('{width}', time) AS b, count(*), sum(temp), min(device) FROM conditions{filter} GROUP BY b ORDER BY b{direction} LIMIT {limit}"
                ),
                _ => format!(
                    "SELECT time_bucket('{width}', time) AS b, host, count(*), sum(temp) FROM conditions{filter} GROUP BY b, host ORDER BY b{direction}, host LIMIT {limit}"
                ),
            };
            let expected = cluster.query(&sql, false).await.unwrap();
            let answer = cluster.query(&sql, true).await.unwrap();
            assert_eq!(text(&answer, true), text(&expected, true), "seed {seed}: {sql}");
        }
    }
}

/// The filter stays on the coordinator: a node must not stop after rows that fail it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_does_not_travel_is_not_counted_on() {
    let cluster = cluster(2000, 5);
    for order in ["time DESC", "time"] {
        let sql = format!(
            "SELECT * FROM conditions WHERE temp > (SELECT 0.9 * max(temp) FROM conditions) ORDER BY {order}, device LIMIT 7"
        );
        let expected = cluster.query(&sql, false).await.unwrap();
        assert_eq!(expected.num_rows(), 7);
        assert_eq!(text(&cluster.query(&sql, true).await.unwrap(), true), text(&expected, true), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_behind_the_first_in_time_are_not_read() {
    let cluster = cluster(20_000, 3);
    let read = || cluster.stores.values().map(|store| store.batches_read.load(Ordering::SeqCst)).sum::<usize>();
    for (sql, part) in [
        ("SELECT * FROM conditions ORDER BY time DESC LIMIT 10", 3),
        ("SELECT * FROM conditions WHERE temp > 10 ORDER BY time LIMIT 10", 3),
        (
            "SELECT time_bucket('1 minute', time) AS b, max(temp) FROM conditions WHERE temp > 3 GROUP BY b ORDER BY b DESC LIMIT 5",
            3,
        ),
        // Nothing passes: all is read, but not again and again.
        ("SELECT * FROM conditions WHERE temp + device < -1 ORDER BY time LIMIT 10", 0),
    ] {
        let before = read();
        cluster.query(sql, true).await.unwrap();
        let batches = read() - before;
        match part {
            0 => assert!((200..400).contains(&batches), "{sql}: {batches} of 200 batches"),
            part => assert!(batches <= 200 / part, "{sql}: {batches} of 200 batches"),
        }
    }
}
