//! Gap filling through the whole engine, against joins with a series.

use super::cluster::{Cluster, statement, text};
use crate::plan::QueryResult;
use arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use proto::{Result, SqlState};

const RANGE: &str = "time >= '2019-01-03 00:00Z' AND time < '2019-01-08 00:00Z'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bucket_of_every_group_is_there() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let filled = format!(
        "SELECT time_bucket_gapfill('6 hours', time) AS b, device, count(*) AS n, sum(temp) AS s \
         FROM conditions WHERE {RANGE} AND device < 5 GROUP BY b, device"
    );
    let twin = format!(
        "SELECT g.b AS b, g.device AS device, a.n AS n, a.s AS s FROM \
         (SELECT s.b AS b, d.device AS device \
          FROM generate_series('2019-01-03Z'::timestamptz, '2019-01-07 18:00Z'::timestamptz, '6 hours'::interval) AS s(b) \
          CROSS JOIN (SELECT DISTINCT device FROM conditions WHERE {RANGE} AND device < 5) AS d) AS g \
         LEFT JOIN (SELECT time_bucket('6 hours', time) AS b, device, count(*) AS n, sum(temp) AS s \
          FROM conditions WHERE {RANGE} GROUP BY 1, 2) AS a ON a.b = g.b AND a.device = g.device"
    );
    let expected = text(&cluster.query(&twin, true).await.unwrap(), false);
    assert_eq!(expected.len(), 1 + 5 * 20, "header, five devices, twenty buckets");
    for push_down in [true, false] {
        assert_eq!(text(&cluster.query(&filled, push_down).await.unwrap(), false), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_groups_are_filled_on_their_node() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let select = |keys: &str, key: &str| {
        format!("SELECT {keys}, locf(avg(temp)) AS t FROM conditions WHERE {RANGE} GROUP BY b{key}")
    };
    let bucket = "time_bucket_gapfill('6 hours', time) AS b";
    let text = cluster.explain(&select(&format!("{bucket}, device"), ", device"), true, false).await;
    assert!(text.starts_with("Custom Scan (AsyncAppend)"), "{text}");
    assert_eq!(text.matches("Custom Scan (GapFill)").count(), 2, "{text}");
    for select in [select(bucket, ""), select(&format!("{bucket}, host"), ", host")] {
        let text = cluster.explain(&select, true, false).await;
        assert_eq!(text.matches("Custom Scan (GapFill)").count(), 1, "{text}");
        assert!(text.starts_with("Custom Scan (GapFill)"), "{text}");
    }
    let order = select(&format!("{bucket}, device"), ", device ORDER BY device, b");
    let text = cluster.explain(&order, true, false).await;
    assert_eq!(text.matches("Sort  (").count(), 2, "the rows come out in order, per node\n{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_bound_the_range() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let sql = "SELECT time_bucket_gapfill('1 day', time) AS b, count(*) AS n FROM nothing \
               WHERE time >= $1 AND time <= $2 GROUP BY b";
    let context = cluster.context(true);
    let prepared = cluster.engine.prepare(&statement(sql), &[], &context).unwrap();
    let day = |days: i64| {
        let us = super::cluster::START_US + days * super::cluster::DAY_US;
        ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))
    };
    let rows = async |start: i64, finish: i64| -> Result<usize> {
        let result: QueryResult = cluster.engine.run(&prepared, &[day(start), day(finish)], &context).await?;
        let batches: Vec<RecordBatch> = result.stream.try_collect().await?;
        Ok(batches.iter().map(|batch| batch.num_rows()).sum())
    };
    assert_eq!(rows(0, 9).await.unwrap(), 10);
    assert_eq!(rows(1, 1).await.unwrap(), 1);
    let error = rows(5, 4).await.unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (SqlState::INVALID_PARAMETER_VALUE, "invalid time_bucket_gapfill argument: start must be before finish")
    );
}

/// `count(*)` is never NULL but in a gap; nobody above may believe otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_gaps_are_null() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let inner = "SELECT time_bucket_gapfill('1 day', time, '2019-01-01Z'::timestamptz, '2019-01-03Z'::timestamptz) AS b, \
                 count(*) AS n FROM nothing GROUP BY b";
    for (sql, expected) in [
        (format!("SELECT count(*) AS c FROM ({inner}) AS q WHERE n IS NULL"), "| 2 |"),
        (format!("SELECT sum(coalesce(n, 7)) AS c FROM ({inner}) AS q"), "| 14 |"),
        (format!("SELECT count(c) AS c FROM ({inner} UNION ALL SELECT NULL::timestamptz, 1) AS q(b, c)"), "| 1 |"),
    ] {
        let lines = text(&cluster.query(&sql, true).await.unwrap(), true);
        assert_eq!(lines[1].replace("  ", " "), expected, "{sql}");
    }
}
