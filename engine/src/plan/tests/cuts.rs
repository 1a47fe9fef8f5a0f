//! What runs on the nodes and what does not.

use super::cluster::{Cluster, hypertable, rows, statement};
use crate::Shuffling;
use crate::plan::context::Scope;
use crate::plan::engine::physical_plan;
use crate::plan::exchange::RemoteExec;
use crate::plan::scan::ChunkScan;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use std::sync::Arc;

/// Names of the operators, aggregates with their mode; top-down.
fn operators(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let mut names = Vec::new();
    plan.apply(|node| {
        names.push(match node.downcast_ref::<AggregateExec>() {
            Some(aggregate) => format!("{:?}", aggregate.mode()),
            None => node.name().trim_end_matches("Exec").to_owned(),
        });
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    names
}

struct Cut {
    coordinator: Vec<String>,
    fragments: Vec<Vec<String>>,
    nodes: Vec<Vec<String>>,
    chunks: usize,
    why: Vec<String>,
}

async fn cut(cluster: &Arc<Cluster>, sql: &str) -> Cut {
    cut_with(cluster, sql, true).await
}

async fn cut_with(cluster: &Arc<Cluster>, sql: &str, push_down: bool) -> Cut {
    let context = cluster.context(push_down);
    let prepared = cluster.engine.prepare(&statement(sql), &[], &context).unwrap();
    let plan = physical_plan(&cluster.engine, &prepared, &context).await;
    let mut cut = Cut { coordinator: operators(&plan), fragments: vec![], nodes: vec![], chunks: 0, why: vec![] };
    plan.apply(|node| {
        if let Some(remote) = node.downcast_ref::<RemoteExec>() {
            let fragment = remote.fragment.plan.clone();
            SanityCheckPlan::new().optimize(fragment, &Default::default()).expect("a fragment's operators fit");
            let parts = &remote.fragment.parts;
            cut.fragments.push(operators(&remote.fragment.plan));
            cut.nodes.push(parts.iter().map(|part| part.node.to_string()).collect());
            cut.chunks += parts.iter().flat_map(|p| &p.scans).map(|s| s.chunks.len()).sum::<usize>();
            cut.why.push(remote.fragment.why.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    cut
}

fn has(operators: &[String], name: &str) -> bool {
    operators.iter().any(|operator| operator.starts_with(name))
}

fn aggregates_of(operators: &[String]) -> Vec<&str> {
    let modes = ["Partial", "PartialReduce", "Final", "FinalPartitioned", "Single", "SinglePartitioned"];
    operators.iter().map(String::as_str).filter(|name| modes.contains(name)).collect()
}

#[tokio::test]
async fn groups_by_the_space_column_are_finished_on_the_nodes() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for sql in [
        "SELECT device, avg(temp) FROM conditions GROUP BY device",
        "SELECT date_trunc('day', time), device AS d, avg(temp) FROM conditions GROUP BY 1, 2",
        "SELECT d, count(*) FROM (SELECT device AS d, temp FROM conditions WHERE temp > 3) AS t GROUP BY d",
        "SELECT DISTINCT device FROM conditions",
        "SELECT DISTINCT ON (device) device, time FROM conditions ORDER BY device, time DESC",
    ] {
        let cut = cut(&cluster, sql).await;
        assert_eq!(aggregates_of(&cut.coordinator), Vec::<&str>::new(), "{sql}");
        assert_eq!(aggregates_of(&cut.fragments[0]), ["FinalPartitioned", "Partial"], "{sql}");
        assert_eq!(cut.nodes, [["dn1", "dn2"]], "{sql}");
    }
}

#[tokio::test]
async fn other_groups_are_united_per_node_and_finished_above() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let by_host = cut(&cluster, "SELECT host, avg(temp) FROM conditions GROUP BY host").await;
    assert_eq!(aggregates_of(&by_host.coordinator), ["FinalPartitioned"]);
    assert_eq!(aggregates_of(&by_host.fragments[0]), ["PartialReduce", "Partial"]);
    assert_eq!(by_host.why, ["keys (host) do not contain the space column"]);

    let total = cut(&cluster, "SELECT avg(temp) FROM conditions").await;
    assert_eq!(aggregates_of(&total.coordinator), ["Final"]);
    assert_eq!(aggregates_of(&total.fragments[0]), ["Partial"]);

    // A value computed from the space column may be equal on several nodes.
    let computed = cut(&cluster, "SELECT device % 2, count(*) FROM conditions GROUP BY device % 2").await;
    assert_eq!(aggregates_of(&computed.coordinator), ["FinalPartitioned"]);

    // A grouping set without the space column has its groups on all nodes.
    let sets = cut(&cluster, "SELECT device, count(*) FROM conditions GROUP BY ROLLUP (device)").await;
    assert_eq!(aggregates_of(&sets.coordinator), ["FinalPartitioned"]);
}

/// A chunk of an earlier slice moved: now a device's rows lie on two nodes.
#[tokio::test]
async fn a_slot_on_two_nodes_forbids_complete_groups() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let relation = cluster.relations.lock().get("conditions").cloned().unwrap();
    let crate::plan::Relation::Table { def, chunks } = relation else { panic!("a table") };
    let mut moved: Vec<_> = chunks.iter().map(|chunk| crate::ChunkDef::clone(chunk)).collect();
    let other = if moved[0].nodes[0].as_str() == "dn1" { "dn2" } else { "dn1" };
    let rows = cluster.stores[&moved[0].nodes[0]].chunks.lock().remove(&moved[0].id).unwrap();
    cluster.stores[&other.into()].chunks.lock().insert(moved[0].id, rows);
    moved[0].nodes = vec![other.into()];
    let chunks = Arc::new(moved.into_iter().map(Arc::new).collect::<Vec<_>>());
    cluster.relations.lock().insert("conditions".into(), crate::plan::Relation::Table { def, chunks });

    let sql = "SELECT device, count(*) FROM conditions GROUP BY device";
    let cut = cut(&cluster, sql).await;
    assert_eq!(aggregates_of(&cut.coordinator), ["FinalPartitioned"]);
    assert_eq!(cut.why, ["rows of one \"device\" may lie on several data nodes"]);
    let (on, off) = (cluster.query(sql, true).await.unwrap(), cluster.query(sql, false).await.unwrap());
    assert_eq!(super::cluster::text(&on, false), super::cluster::text(&off, false));
}

#[tokio::test]
async fn a_query_of_one_node_goes_there_whole() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for sql in [
        "SELECT host, avg(temp) FROM placed GROUP BY host ORDER BY 2 LIMIT 3",
        "SELECT host, avg(temp) FROM conditions WHERE device = 7 GROUP BY host ORDER BY 2 LIMIT 3",
        "SELECT count(*) FROM placed a JOIN placed b ON a.device = b.device WHERE a.temp > b.temp",
        "SELECT time, lag(temp) OVER (ORDER BY time) FROM placed",
        "SELECT count(*) FROM placed WHERE temp > (SELECT avg(temp) FROM placed)",
    ] {
        let cut = cut(&cluster, sql).await;
        assert_eq!(cut.coordinator, ["Remote"], "{sql}");
        assert_eq!(cut.nodes[0].len(), 1, "{sql}");
    }
}

#[tokio::test]
async fn sorts_and_limits_go_down_and_are_merged() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let top = cut(&cluster, "SELECT * FROM conditions ORDER BY temp DESC, time LIMIT 5").await;
    assert_eq!(top.coordinator, ["SortPreservingMerge", "Remote"]);
    assert!(has(&top.fragments[0], "Sort") && has(&top.fragments[0], "SortPreservingMerge"));

    let some = cut(&cluster, "SELECT * FROM conditions LIMIT 5").await;
    assert_eq!(some.coordinator, ["CoalescePartitions", "Remote"]);
    assert!(has(&some.fragments[0], "CoalescePartitions"), "{:?}", some.fragments);
}

#[tokio::test]
async fn windows_over_the_space_column_run_on_the_nodes() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let window = "SELECT rank() OVER (PARTITION BY device ORDER BY time) FROM conditions";
    let cut_device = cut(&cluster, window).await;
    assert_eq!(cut_device.coordinator, ["Remote"]);
    let cut_host = cut(&cluster, &window.replace("device", "host")).await;
    assert!(has(&cut_host.coordinator, "BoundedWindowAgg"), "{:?}", cut_host.coordinator);
}

#[tokio::test]
async fn without_push_down_nodes_only_scan() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let sql = "SELECT device, avg(temp) FROM conditions WHERE time < '2019-01-08T00:00:00Z'::timestamptz GROUP BY 1";
    let cut = cut_with(&cluster, sql, false).await;
    assert_eq!(cut.fragments, [["CoalescePartitions", "ChunkScan"]]);
    // Two slices of seven days on two nodes: exclusion works all the same.
    assert_eq!(cut.chunks, 4);
}

#[tokio::test]
async fn chunks_are_excluded_by_time_and_by_space() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    // 30 days from a Tuesday over slices that start on Thursdays: 5 slices, each in two chunks.
    for (filter, chunks) in [
        ("true", 10),
        ("time >= '2019-01-10T00:00:00Z'::timestamptz AND time < '2019-01-17T00:00:00Z'::timestamptz", 2),
        ("time > '2019-01-09T23:59:59.999999Z'::timestamptz AND time <= '2019-01-17T00:00:00Z'::timestamptz", 4),
        ("time BETWEEN '2019-01-10T00:00:00Z'::timestamptz AND '2019-01-12T00:00:00Z'::timestamptz", 2),
        ("time = '2019-01-10T00:00:00Z'::timestamptz", 2),
        ("'2019-01-10T00:00:00Z'::timestamptz > time", 4),
        ("device = 7", 5),
        ("device = 7 AND time < '2019-01-03T00:00:00Z'::timestamptz", 1),
        ("device = 7 OR device = 7", 5),
        ("device IN (7)", 5),
        ("device = 7 OR temp > 3", 10),
        ("device IS NULL", 10),
        ("device = NULL", 0),
        ("time > '2020-01-01T00:00:00Z'::timestamptz", 0),
        ("NOT (time < '2019-01-24T00:00:00Z'::timestamptz)", 2),
    ] {
        let cut = cut(&cluster, &format!("SELECT * FROM conditions WHERE {filter}")).await;
        assert_eq!(cut.chunks, chunks, "{filter}");
    }
}

/// DataFusion would take our slots for its own hash and join wrongly, silently.
#[tokio::test]
async fn no_leaf_declares_hash_partitioning() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for push_down in [true, false] {
        for sql in [
            "SELECT c.device FROM conditions c JOIN metrics m ON c.device = m.device",
            "SELECT device, count(*) FROM conditions GROUP BY device",
        ] {
            let context = cluster.context(push_down);
            let prepared = cluster.engine.prepare(&statement(sql), &[], &context).unwrap();
            let plan = physical_plan(&cluster.engine, &prepared, &context).await;
            check_leaves(&plan);
        }
    }
    fn check_leaves(plan: &Arc<dyn ExecutionPlan>) {
        if plan.children().is_empty() {
            assert!(!matches!(plan.output_partitioning(), Partitioning::Hash(..)), "{}", plan.name());
        }
        if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
            check_leaves(&remote.fragment.plan);
        }
        plan.children().into_iter().for_each(check_leaves);
    }
}

#[tokio::test]
async fn an_unbound_scan_refuses_to_run() {
    let cluster = Cluster::new(&["dn1"]);
    let scope = Arc::new(Scope::new(&cluster.context(true)));
    let scan =
        ChunkScan::new(scope.next_scan(), Arc::new(arrow::datatypes::Schema::empty()), vec![], vec![], None, 2, None);
    let error = Arc::new(scan).execute(0, Arc::default()).err().unwrap();
    assert!(error.to_string().contains("not bound"), "{error}");
}

#[test]
fn states_and_results_are_told_apart() {
    // `cut` reads modes by name; a renamed variant must not make its tests pass emptily.
    assert_eq!(format!("{:?}", AggregateMode::PartialReduce), "PartialReduce");
}

#[tokio::test]
async fn tables_placed_alike_are_joined_on_the_nodes() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for sql in [
        "SELECT c.time, m.temp FROM conditions c JOIN metrics m ON c.device = m.device",
        "SELECT c.time, m.temp FROM conditions c JOIN metrics m ON m.device = c.device AND m.time = c.time",
        "SELECT c.time, m.temp FROM conditions c JOIN metrics m USING (device) WHERE c.temp > m.temp",
        "SELECT c.time, m.temp FROM conditions c LEFT JOIN metrics m ON c.device = m.device AND c.time = m.time",
        "SELECT c.time, m.temp FROM conditions c RIGHT JOIN metrics m ON c.device = m.device",
        "SELECT c.time, m.temp FROM conditions c FULL JOIN metrics m ON c.device = m.device",
        "SELECT time FROM conditions c WHERE EXISTS (SELECT 1 FROM metrics m WHERE m.device = c.device)",
        "SELECT time FROM conditions c WHERE NOT EXISTS (SELECT 1 FROM metrics m WHERE m.device = c.device)",
        "SELECT time FROM conditions WHERE device IN (SELECT device FROM metrics)",
        "SELECT a.time FROM conditions a JOIN conditions b ON a.device = b.device AND a.time = b.time",
        "SELECT c.time FROM conditions c JOIN (SELECT device, max(time) AS t FROM conditions GROUP BY device) l ON l.device = c.device AND l.t = c.time",
        "SELECT device, count(*) FROM conditions c JOIN metrics m USING (device) GROUP BY device",
        "SELECT c.device, max(m.temp) FROM conditions c LEFT JOIN metrics m ON c.device = m.device GROUP BY c.device",
        "SELECT c.time FROM conditions c JOIN metrics m USING (device) JOIN conditions d USING (device)",
    ] {
        let cut = cut(&cluster, sql).await;
        assert_eq!(cut.coordinator, ["Remote"], "{sql}: {:?}", cut.why);
        assert_eq!(cut.nodes, [["dn1", "dn2"]], "{sql}");
    }
}

/// Where a join filled a side up with NULL, its space column no longer tells the node.
#[tokio::test]
async fn a_space_column_filled_up_with_null_groups_above() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for sql in [
        "SELECT m.device, count(*) FROM conditions c LEFT JOIN metrics m ON c.device = m.device GROUP BY m.device",
        "SELECT c.device, count(*) FROM conditions c RIGHT JOIN metrics m ON c.device = m.device GROUP BY c.device",
        "SELECT c.device, count(*) FROM conditions c FULL JOIN metrics m ON c.device = m.device GROUP BY c.device",
    ] {
        let cut = cut(&cluster, sql).await;
        assert_eq!(aggregates_of(&cut.coordinator), ["FinalPartitioned"], "{sql}");
        assert!(has(&cut.fragments[0], "HashJoin"), "{sql}");
    }
}

#[tokio::test]
async fn joins_of_tables_placed_differently_stay_above() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    *cluster.shuffle.lock() = Shuffling::Off;
    for (sql, why) in [
        (
            "SELECT c.time FROM conditions c FULL JOIN placed p ON c.device = p.device",
            "the joined tables are placed differently",
        ),
        (
            "SELECT c.time FROM conditions c FULL JOIN metrics m ON c.host = m.host",
            "join keys (host = host) do not contain the space columns of both sides",
        ),
        (
            "SELECT c.time FROM conditions c FULL JOIN metrics m ON c.device = m.device % 2",
            "join keys (device = m.device % Int32(2)) do not contain the space columns of both sides",
        ),
    ] {
        let cut = cut(&cluster, sql).await;
        assert!(has(&cut.coordinator, "HashJoin"), "{sql}");
        assert!(cut.why.iter().all(|said| said == why), "{sql}: {:?}", cut.why);
    }
}

/// `few` is a plain table on the last node, `conditions` on both.
fn with_plain_table() -> Arc<Cluster> {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    cluster.load_plain(9, "few", &rows(&hypertable(9, "few", &["dn2"], 7), 40, 30, 9), "dn2");
    cluster
}

#[tokio::test]
async fn a_small_side_goes_to_the_nodes_of_the_other() {
    let cluster = with_plain_table();
    for (sql, aggregated) in [
        ("SELECT c.time, f.temp FROM conditions c JOIN few f ON c.device = f.device", false),
        ("SELECT c.time, f.temp FROM few f JOIN conditions c ON c.host = f.host AND c.temp > f.temp", false),
        ("SELECT c.time, f.temp FROM conditions c LEFT JOIN few f ON c.host = f.host", false),
        ("SELECT c.time, f.temp FROM few f RIGHT JOIN conditions c ON c.host = f.host", false),
        ("SELECT c.time, f.temp FROM conditions c JOIN few f ON c.time < f.time", false),
        ("SELECT c.time FROM conditions c WHERE host IN (SELECT host FROM few)", false),
        ("SELECT c.time FROM conditions c WHERE host NOT IN (SELECT host FROM few)", false),
        ("SELECT c.time FROM conditions c WHERE NOT EXISTS (SELECT 1 FROM few f WHERE f.host = c.host)", false),
        ("SELECT c.time, v.n FROM conditions c JOIN (VALUES (1, 2), (3, 4)) v(device, n) USING (device)", false),
        ("SELECT c.time FROM conditions c JOIN metrics m ON c.host = m.host", false),
        ("SELECT f.host, count(*) FROM conditions c JOIN few f USING (device) GROUP BY f.host", true),
        (
            "SELECT c.device, f.n, count(*) FROM conditions c JOIN (SELECT host, max(temp) n FROM few GROUP BY host) f USING (host) GROUP BY 1, 2",
            false,
        ),
        (
            "SELECT a.host, count(*) FROM conditions c JOIN few a USING (device) JOIN placed b ON b.host = c.host GROUP BY a.host",
            true,
        ),
    ] {
        let cut = cut(&cluster, sql).await;
        let below = if aggregated { cut.coordinator.iter().position(|name| name == "Remote").unwrap() } else { 0 };
        assert_eq!(cut.coordinator[below], "Remote", "{sql}: {:?}", cut.coordinator);
        assert!(has(&cut.coordinator, "Collected"), "{sql}: {:?}", cut.coordinator);
        assert!(
            !has(&cut.coordinator, "HashJoin") && !has(&cut.coordinator, "NestedLoop"),
            "{sql}: {:?}",
            cut.coordinator
        );
        assert!(has(&cut.fragments[0], "SentRows"), "{sql}: {:?}", cut.fragments);
        assert_eq!(has(&cut.fragments[0], "Partial"), sql.contains("GROUP BY"), "{sql}: {:?}", cut.fragments);
    }
}

/// Rows of the sent side that match nothing would show once per node.
#[tokio::test]
async fn a_side_that_shows_by_itself_is_not_sent() {
    let cluster = with_plain_table();
    for sql in [
        "SELECT c.time, f.temp FROM few f LEFT JOIN conditions c ON c.device = f.device",
        "SELECT c.time, f.temp FROM few f FULL JOIN conditions c ON c.device = f.device",
        "SELECT f.time FROM few f WHERE NOT EXISTS (SELECT 1 FROM conditions c WHERE c.device = f.device)",
        "SELECT f.time FROM few f WHERE device IN (SELECT device FROM conditions)",
    ] {
        let cut = cut(&cluster, sql).await;
        assert!(has(&cut.coordinator, "HashJoin"), "{sql}: {:?}", cut.coordinator);
    }
}

#[tokio::test]
async fn results_of_subqueries_go_along() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for sql in [
        "SELECT count(*) FROM conditions WHERE temp > (SELECT avg(temp) FROM metrics)",
        "SELECT device, max(temp) - (SELECT min(temp) FROM metrics) FROM conditions GROUP BY device",
    ] {
        let cut = cut(&cluster, sql).await;
        assert_eq!(cut.coordinator[0], "ScalarSubquery", "{sql}: {:?}", cut.coordinator);
        assert!(has(&cut.fragments[0], "Partial"), "{sql}: {:?}", cut.fragments);
    }
}

/// Functions whose states are all their values do not keep others from sending small ones.
#[tokio::test]
async fn every_aggregate_begins_on_the_nodes() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for call in [
        "count(DISTINCT temp)",
        "sum(DISTINCT temp), count(DISTINCT device)",
        "percentile_cont(0.5) WITHIN GROUP (ORDER BY temp)",
        "string_agg(host, ',' ORDER BY time)",
        "array_agg(temp ORDER BY time DESC)",
        "array_agg(DISTINCT device)",
        "first_value(temp ORDER BY time)",
    ] {
        for keys in ["", " GROUP BY host"] {
            let sql = format!("SELECT {call}, avg(temp), count(*) FROM conditions{keys}");
            let cut = cut(&cluster, &sql).await;
            assert!(aggregates_of(&cut.fragments[0]).contains(&"Partial"), "{sql}: {:?}", cut.fragments);
        }
    }
}
