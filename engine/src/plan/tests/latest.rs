//! Which statements need last rows only.

use super::cluster::{Cluster, statement};
use crate::plan::engine::physical_plan;
use crate::plan::exchange::RemoteExec;
use crate::plan::scan::ChunkScan;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use std::sync::Arc;

/// For each scan that travels, how many columns tell its series apart, if only their last rows are wanted.
async fn latest(cluster: &Arc<Cluster>, sql: &str) -> Vec<Option<usize>> {
    let context = cluster.context(true);
    let prepared = cluster.engine.prepare(&statement(sql), &[], &context).unwrap();
    let plan = physical_plan(&cluster.engine, &prepared, &context).await;
    let mut found = Vec::new();
    plan.apply(|node| {
        let Some(remote) = node.downcast_ref::<RemoteExec>() else { return Ok(TreeNodeRecursion::Continue) };
        remote.fragment.plan.apply(|node| {
            found.extend(node.downcast_ref::<ChunkScan>().map(|scan| scan.latest.as_ref().map(|l| l.of.len())));
            Ok(TreeNodeRecursion::Continue)
        })
    })
    .unwrap();
    found
}

#[tokio::test]
async fn scans_under_last_points_are_told_and_no_others() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    for (sql, expected) in [
        ("SELECT DISTINCT ON (device) * FROM conditions ORDER BY device, time DESC", Some(1)),
        ("SELECT device, last(temp, time) FROM conditions GROUP BY device", Some(1)),
        ("SELECT device, max(time) FROM conditions WHERE host = 'a' GROUP BY device", Some(2)),
        ("SELECT max(time) FROM conditions", Some(0)),
        ("SELECT device, last(temp, time) FROM conditions WHERE time > '2019-01-03' GROUP BY device", Some(1)),
        // The node finds that no series is told apart by `temp`, and gives all rows.
        ("SELECT device, last(temp, time) FROM conditions WHERE temp > 3 GROUP BY device", Some(2)),
        ("SELECT device, last(temp, time) FROM conditions WHERE time < '2019-01-03' GROUP BY device", None),
        ("SELECT device, last(temp, time), count(*) FROM conditions GROUP BY device", None),
        ("SELECT device, first(temp, time) FROM conditions GROUP BY device", None),
        ("SELECT device, last(time, temp) FROM conditions GROUP BY device", None),
        ("SELECT device, last(temp, time) FILTER (WHERE temp > 3) FROM conditions GROUP BY device", None),
        ("SELECT DISTINCT ON (device) * FROM conditions ORDER BY device, time", None),
        ("SELECT DISTINCT ON (device) * FROM conditions ORDER BY device, time DESC, temp", None),
        ("SELECT device % 2, max(time) FROM conditions GROUP BY 1", None),
        ("SELECT * FROM conditions ORDER BY time DESC LIMIT 1", None),
        // Which rows of a series pass is not told by its last one.
        ("SELECT device, last(temp, time) FROM conditions WHERE random() < 0.5 GROUP BY device", None),
    ] {
        assert_eq!(latest(&cluster, sql).await, [expected], "{sql}");
    }
}
