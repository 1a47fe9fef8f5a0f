//! The text of EXPLAIN.

use super::cluster::Cluster;

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
