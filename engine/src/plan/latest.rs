//! Last points: an aggregation that takes one row of each group, the one with the largest time, needs no other rows. Such
//! are `DISTINCT ON (k) … ORDER BY k, time DESC`, `last(v, time) … GROUP BY k` and `max(time) … GROUP BY k`. Their
//! scans are told, and the plan stays as it is: a store that keeps the last row of each series hands out these alone,
//! any other hands out all.

use super::scan::ChunkScan;
use arrow::compute::SortOptions;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::utils::{collect_columns, split_conjunction};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};
use proto::{ColumnId, Latest};
use std::collections::BTreeSet;
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// Tells the scans of such aggregations. Before the plan is cut.
pub(super) fn mark(plan: Plan) -> Result<Plan> {
    plan.transform_up(|node| {
        let marked = node.downcast_ref::<AggregateExec>().and_then(|aggregate| {
            let input = told(aggregate.input(), aggregate)?;
            Some(replace_children_if_necessary(Arc::clone(&node), vec![input]))
        });
        marked.map_or(Ok(Transformed::no(node)), |plan| Ok(Transformed::yes(plan?)))
    })
    .data()
}

/// `input` with its scan told what `aggregate` needs; `None` when that is more than last rows.
fn told(input: &Plan, aggregate: &AggregateExec) -> Option<Plan> {
    let raw_input =
        matches!(aggregate.mode(), AggregateMode::Partial | AggregateMode::Single | AggregateMode::SinglePartitioned);
    if !raw_input
        || !aggregate.group_expr().is_single()
        || aggregate.filter_expr().iter().any(|filter| filter.is_some())
    {
        return None;
    }
    let (mut path, mut leaf) = (Vec::new(), input);
    while !leaf.is::<ChunkScan>() {
        let passes =
            matches!(leaf.name(), "FilterExec" | "CoalesceBatchesExec" | "CooperativeExec" | "RepartitionExec");
        let [below] = leaf.children()[..] else { return None };
        path.push(leaf);
        leaf = below;
        if !passes {
            return None;
        }
    }
    let scan = leaf.downcast_ref::<ChunkScan>()?;
    let time = scan.source.as_ref()?.table.hypertable.as_ref()?.time_column;
    // Operators on the path pass columns on under their names.
    let column = |expr: &Arc<dyn PhysicalExpr>| column_of(scan, expr.downcast_ref::<Column>()?);
    let mut of = aggregate.group_expr().input_exprs().iter().map(column).collect::<Option<BTreeSet<_>>>()?;
    if !aggregate.aggr_expr().iter().all(|function| takes_last(function, time, &of, &column)) {
        return None;
    }
    for filter in path.iter().filter_map(|operator| operator.downcast_ref::<FilterExec>()) {
        for part in split_conjunction(filter.predicate()) {
            if is_volatile(part) {
                return None;
            }
            if !is_lower_bound(part, time, &column) {
                let columns = collect_columns(part);
                of.extend(columns.iter().map(|column| column_of(scan, column)).collect::<Option<Vec<_>>>()?);
            }
        }
    }
    if of.contains(&time) || scan.limit.is_some() {
        return None;
    }
    let latest = Latest { of: of.into_iter().collect(), time };
    let told: Plan = Arc::new(scan.clone().with_latest(Some(latest)));
    path.into_iter()
        .rev()
        .try_fold(told, |below, operator| replace_children_if_necessary(Arc::clone(operator), vec![below]).ok())
}

fn column_of(scan: &ChunkScan, column: &Column) -> Option<ColumnId> {
    let at = scan.schema().index_of(column.name()).ok()?;
    Some(scan.columns[at].id)
}

/// Whether the function's result comes from a row with the largest time alone.
fn takes_last(
    function: &AggregateFunctionExpr,
    time: ColumnId,
    groups: &BTreeSet<ColumnId>,
    column: &impl Fn(&Arc<dyn PhysicalExpr>) -> Option<ColumnId>,
) -> bool {
    let arguments = function.expressions();
    let is_time = |expr: &Arc<dyn PhysicalExpr>| column(expr) == Some(time);
    let ordered_by_time = |descending: bool| {
        // Within a group, its own columns order nothing. Behind the time, ties would matter.
        let in_group = |sort: &&PhysicalSortExpr| column(&sort.expr).is_some_and(|id| groups.contains(&id));
        let order = function.order_bys().iter().skip_while(in_group).collect::<Vec<_>>();
        matches!(order[..], [sort] if is_time(&sort.expr) && sort.options.descending == descending)
    };
    // A NULL in the last row would make way for an earlier value.
    if function.ignore_nulls() {
        return false;
    }
    match function.fun().name() {
        "first_value" => ordered_by_time(SortOptions::default().desc().descending),
        "last_value" => ordered_by_time(SortOptions::default().asc().descending),
        "last" => arguments.get(1).is_some_and(is_time),
        "max" => arguments.first().is_some_and(is_time),
        _ => false,
    }
}

/// `time > constant`: when the last row of a series fails it, all do.
fn is_lower_bound(
    expr: &Arc<dyn PhysicalExpr>,
    time: ColumnId,
    column: &impl Fn(&Arc<dyn PhysicalExpr>) -> Option<ColumnId>,
) -> bool {
    let Some(comparison) = expr.downcast_ref::<BinaryExpr>() else { return false };
    matches!(comparison.op(), Operator::Gt | Operator::GtEq)
        && column(comparison.left()) == Some(time)
        && comparison.right().is::<Literal>()
}
