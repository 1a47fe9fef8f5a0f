//! What runs on the nodes and what does not.

use super::cluster::{Cluster, statement};
use crate::plan::context::Scope;
use crate::plan::engine::physical_plan;
use crate::plan::exchange::RemoteExec;
use crate::plan::scan::ChunkScan;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
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
