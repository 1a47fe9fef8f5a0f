//! `ORDER BY time` without a limit, chunk by chunk.

use super::cluster::{Cluster, START_US, hypertable, rows, statement, text};
use arrow::array::{Int32Array, RecordBatch, TimestampMicrosecondArray};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `conditions` over two nodes and so many chunks of three days each; every third row shares its time with another.
fn cluster(count: usize, chunks: usize) -> Arc<Cluster> {
    let cluster = Cluster::empty(&["dn1", "dn2"]);
    let mut def = hypertable(1, "conditions", &["dn1", "dn2"], 3);
    def.columns[0].nullable = false;
    let mut columns = rows(&def, count, 1, 7).columns().to_vec();
    let span = chunks * 3 * 86_400_000_000 / count;
    let times = (0..count).map(|n| START_US + ((n * 7919 % count) / 3 * 3 * span) as i64);
    columns[0] = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
    columns[1] = Arc::new(Int32Array::from_iter_values(0..count as i32));
    cluster.load(def.clone(), &RecordBatch::try_new(def.schema(), columns).unwrap());
    Arc::new(cluster)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_is_that_of_one_sort() {
    let cluster = cluster(6_000, 10);
    for sql in [
        "SELECT time, device FROM conditions ORDER BY time, device",
        "SELECT device, time FROM conditions ORDER BY time DESC, device",
        "SELECT device, temp * 2, time AS t FROM conditions WHERE device % 7 < 3 ORDER BY t DESC, device DESC",
        "SELECT * FROM conditions WHERE time > '2019-01-05' AND time < '2019-01-20' ORDER BY time, device, host",
    ] {
        // Without push-down the coordinator sorts bare rows.
        let expected = text(&cluster.query(sql, false).await.unwrap(), true);
        assert_eq!(text(&cluster.query(sql, true).await.unwrap(), true), expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_rows_leave_before_the_last_chunks_are_read() {
    let cluster = cluster(300_000, 20);
    let context = cluster.context(true);
    for order in ["time, device", "time DESC, device"] {
        let sql = format!("SELECT time, device FROM conditions ORDER BY {order}");
        let read = || cluster.stores.values().map(|store| store.batches_read.load(Ordering::SeqCst)).sum::<usize>();
        let prepared = cluster.engine.prepare(&statement(&sql), &[], &context).unwrap();
        let before = read();
        let mut result = cluster.engine.run(&prepared, &[], &context).await.unwrap();
        assert!(result.stream.next().await.unwrap().unwrap().num_rows() > 0);
        drop(result);
        // A batch of the store has 100 rows.
        assert!((read() - before) * 2 < 300_000 / 100, "{} of 3000 batches were read", read() - before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_counts_all_pieces() {
    let cluster = cluster(6_000, 10);
    let text = cluster.explain("SELECT time, device FROM conditions ORDER BY time", true, true).await;
    for operator in ["->  Sort ", "->  Seq Scan "] {
        let of_nodes = text.lines().filter(|line| line.contains(operator));
        let rows = of_nodes.map(|line| {
            let (_, actual) = line.split_once("actual time").unwrap();
            actual.split_once("rows=").unwrap().1.split(' ').next().unwrap().parse::<usize>().unwrap()
        });
        assert_eq!(rows.sum::<usize>(), 6_000, "{operator}: {text}");
    }
}
