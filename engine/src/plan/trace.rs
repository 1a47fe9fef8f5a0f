//! Which scans a column comes from, where leaving out rows by that column below is leaving out the same rows above: a
//! filter on the column, learnt while the statement runs, may then go down to the scans.

use super::exchange::RemoteExec;
use super::join::{Join, Side};
use super::scan::ChunkScan;
use super::shards::{column, outputs};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use proto::ColumnId;
use std::sync::Arc;

/// A column of a scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Traced {
    pub scan: u32,
    pub column: ColumnId,
}

/// The scans behind output column `index` of `plan`, as far as they can be told.
pub(super) fn traced(plan: &Arc<dyn ExecutionPlan>, index: usize) -> Vec<Traced> {
    let mut found = Vec::new();
    trace(plan, index, &mut found);
    found
}

fn trace(plan: &Arc<dyn ExecutionPlan>, index: usize, found: &mut Vec<Traced>) {
    if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
        let column = scan.columns[index].id;
        // The last row of a series among those with other values is not the last row.
        let kept = scan.latest.as_ref().is_none_or(|latest| latest.of.contains(&column));
        if kept && scan.limit.is_none() {
            found.push(Traced { scan: scan.scan, column });
        }
        return;
    }
    if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
        return trace(&remote.fragment.plan, index, found);
    }
    // Other rows would come in the places of those left out.
    if plan.fetch().is_some() {
        return;
    }
    if let Some(join) = Join::of(plan) {
        return trace_join(&join, index, found);
    }
    let below = match plan.name() {
        "ProjectionExec" | "FilterExec" => outputs(plan.as_ref()).get(index).copied().flatten(),
        "AggregateExec" => group_column(plan, index),
        "WindowAggExec" | "BoundedWindowAggExec" => Some(index).filter(|index| partition_column(plan, *index)),
        "CoalesceBatchesExec"
        | "CoalescePartitionsExec"
        | "CooperativeExec"
        | "RepartitionExec"
        | "SortExec"
        | "SortPreservingMergeExec"
        | "UnionExec" => Some(index),
        _ => None,
    };
    if let Some(below) = below {
        plan.children().into_iter().for_each(|child| trace(child, below, found));
    }
}

/// Whole groups are left out, or none.
fn group_column(plan: &Arc<dyn ExecutionPlan>, index: usize) -> Option<usize> {
    let aggregate = plan.downcast_ref::<AggregateExec>()?;
    outputs(aggregate).get(index).copied().flatten().filter(|_| aggregate.limit_options().is_none())
}

fn partition_column(plan: &Arc<dyn ExecutionPlan>, index: usize) -> bool {
    let is_it = |key: &Arc<dyn PhysicalExpr>| column(key) == Some(index);
    let keys = plan.downcast_ref::<WindowAggExec>().map(WindowAggExec::partition_keys);
    let keys = keys.or_else(|| plan.downcast_ref::<BoundedWindowAggExec>().map(BoundedWindowAggExec::partition_keys));
    keys.is_some_and(|keys| keys.iter().any(is_it))
}

fn trace_join(join: &Join, index: usize, found: &mut Vec<Traced>) {
    let Some((side, index)) = join.origin(index) else { return };
    if join.only_loses(side) {
        trace(join.input(side), index, found);
    }
    // What is not on one side of an equation is not wanted on the other.
    for (left, right) in &join.on {
        let (own, other) = match side {
            Side::Left => (left, right),
            Side::Right => (right, left),
        };
        if join.is_inner()
            && column(own) == Some(index)
            && let Some(other) = column(other)
        {
            trace(join.input(side.other()), other, found);
        }
    }
}
