//! The text of EXPLAIN.

use super::cluster::Cluster;
use crate::plan::ExplainOptions;
use serde_json::Value;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_nodes_chunks_and_what_is_pushed_down() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let sql =
        "SELECT device, avg(temp) FROM conditions WHERE time < '2019-01-08T00:00:00Z'::timestamptz GROUP BY device";
    let text = cluster.explain(sql, true, false).await;
    for part in [
        "Custom Scan (AsyncAppend)  (cost=0.00..",
        "->  Custom Scan (DataNodeScan)",
        "Data node: dn1",
        "Data node: dn2",
        "HashAggregate (final)",
        "HashAggregate (partial)",
        "Group Key: device",
        "Seq Scan on conditions",
        "Chunks: _dist_hyper_1_1001_chunk, _dist_hyper_1_1003_chunk",
        "Chunks excluded during planning: 6",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("Not pushed down"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_why_something_is_not_pushed_down() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let text = cluster.explain("SELECT host, count(*) FROM conditions GROUP BY host", true, false).await;
    assert!(text.starts_with("HashAggregate (final)  (cost="), "{text}");
    assert!(text.contains("Not pushed down: keys (host) do not contain the space column"), "{text}");
    let text = cluster.explain("SELECT host, count(*) FROM conditions GROUP BY host", false, false).await;
    assert!(text.contains("Not pushed down: enable_partitionwise_aggregate is off"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn analyze_adds_rows_and_times_of_every_node() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let text = cluster.explain("SELECT count(*) FROM conditions", true, true).await;
    assert!(text.lines().next().unwrap().contains("rows=1 loops=1"), "{text}");
    assert_eq!(text.matches("Custom Scan (DataNodeScan)").count(), 2, "{text}");
    let scanned: usize = text
        .lines()
        .filter(|line| line.contains("Seq Scan"))
        .map(|line| line.rsplit_once("rows=").unwrap().1.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(scanned, 3000, "{text}");
    assert!(text.contains("Execution Time: "), "{text}");
}

/// The plan as a program reads it.
async fn plan(cluster: &Arc<Cluster>, sql: &str, push_down: bool) -> Value {
    let options = ExplainOptions::new(true, false);
    let json = cluster.explained(sql, push_down, &options).await.json(&options);
    serde_json::from_str::<Value>(&json).unwrap()[0]["Plan"].clone()
}

fn below(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
}

fn is_data_node(node: &Value) -> bool {
    node["Custom Plan Provider"] == "DataNodeScan"
}

fn reads_nodes(node: &Value) -> bool {
    is_data_node(node) || below(node).any(reads_nodes)
}

/// Operators of the access node that say nothing about why they are there, and are no mere merge.
fn silent(node: &Value, found: &mut Vec<String>) {
    if is_data_node(node) {
        return below(node).filter(|child| child["Node Type"] == "Broadcast").for_each(|child| silent(child, found));
    }
    let name = node["Node Type"].as_str().unwrap();
    let brings = matches!(name, "Broadcast" | "Gather" | "InitPlan" | "Shuffle" | "Merge Append")
        || node["Custom Plan Provider"] == "AsyncAppend";
    if !brings && reads_nodes(node) && node["Not pushed down"].as_str().is_none_or(str::is_empty) {
        found.push(name.to_owned());
    }
    below(node).for_each(|child| silent(child, found));
}

/// Of the nodes of this type.
fn sum(plan: &Value, node_type: &str, number: fn(&Value) -> &Value) -> u64 {
    let own = if plan["Node Type"] == node_type { number(plan).as_u64().unwrap() } else { 0 };
    own + below(plan).map(|child| sum(child, node_type, number)).sum::<u64>()
}

/// The promise is to everybody who wonders why a query is slow: nothing that has rows of data nodes below it runs on the
/// access node without a reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_on_the_access_node_in_silence() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for sql in [
        "SELECT host, count(*) FROM conditions GROUP BY host HAVING count(*) > 3 ORDER BY 2 DESC LIMIT 3",
        "SELECT count(DISTINCT host) FROM conditions",
        "SELECT DISTINCT host FROM conditions",
        "SELECT * FROM conditions ORDER BY temp LIMIT 5 OFFSET 2",
        "SELECT * FROM conditions LIMIT 5",
        "SELECT host, row_number() OVER (PARTITION BY host ORDER BY time) FROM conditions",
        "SELECT sum(temp) OVER () FROM conditions",
        "SELECT g, count(*) FROM generate_series(1, 10) g LEFT JOIN conditions c ON c.device = g GROUP BY g",
        "SELECT count(*) FROM conditions a FULL JOIN metrics b ON a.host = b.host",
        "SELECT * FROM conditions a JOIN metrics b ON a.time = b.time AND a.temp < b.temp",
        "SELECT count(*) FROM conditions WHERE temp > (SELECT avg(temp) FROM metrics)",
        "SELECT host FROM conditions UNION ALL VALUES ('x')",
        "SELECT host FROM conditions EXCEPT SELECT host FROM metrics",
        "SELECT string_agg(host, ',' ORDER BY host) FROM conditions",
        "SELECT avg(temp) FROM conditions GROUP BY GROUPING SETS ((host), (device))",
        "SELECT time_bucket_gapfill('1 day', time) b, avg(temp) FROM conditions
         WHERE time >= '2019-01-01' AND time < '2019-01-09' GROUP BY b",
        "WITH c AS (SELECT * FROM conditions ORDER BY time LIMIT 10) SELECT max(temp) FROM c",
    ] {
        for push_down in [true, false] {
            let plan = plan(&cluster, sql, push_down).await;
            let mut found = Vec::new();
            silent(&plan, &mut found);
            assert!(found.is_empty(), "{found:?} say nothing in {sql}\n{plan:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_filter_leaves_out_are_counted_on_the_node_that_does() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let passed = cluster.query("SELECT device FROM conditions WHERE temp > 50", true).await.unwrap().num_rows() as u64;
    let plan = plan(&cluster, "SELECT count(*) FROM conditions WHERE temp > 50", true).await;
    assert_eq!(sum(&plan, "Filter", |node| &node["Rows Removed by Filter"]), 3000 - passed);
    assert_eq!(sum(&plan, "Filter", |node| &node["Actual Rows"]), passed);
    assert_eq!(sum(&plan, "Seq Scan", |node| &node["Rows in memory"]["count"]), 3000);
    // Five weeks on two nodes, each of which has rows.
    assert_eq!(sum(&plan, "Seq Scan", |node| &node["Read"]["chunks"]["count"]), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_without_chunks_is_shown_with_what_excluded_them() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let plan = plan(&cluster, "SELECT time FROM conditions WHERE time > '2030-01-01'", true).await;
    let scan = below(&plan).next().unwrap_or(&plan);
    assert_eq!(scan["Node Type"], "Seq Scan", "{plan:#}");
    assert_eq!((&scan["Actual Rows"], &scan["Chunks excluded during planning"]), (&0.into(), &10.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_are_honoured() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let all = ExplainOptions::new(true, false);
    let sql = "SELECT host, count(*) FROM conditions GROUP BY host";
    let text = cluster.explained(sql, true, &all).await.lines(&all).join("\n");
    for word in ["(cost=", "(actual time=", "Time: decode ", "Network: none", "Bytes: read", "Planning Time"] {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
    let none = ExplainOptions { costs: false, timing: false, buffers: false, summary: false, ..all };
    let text = cluster.explained(sql, true, &none).await.lines(&none).join("\n");
    assert!(text.starts_with("HashAggregate (final) (actual rows=8 loops=1)"), "{text}");
    for word in ["cost=", "time=", "Time", "Network", "Bytes"] {
        assert!(!text.contains(word), "{word} in\n{text}");
    }
}
