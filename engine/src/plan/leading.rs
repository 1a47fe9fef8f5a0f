//! First in time: `ORDER BY time DESC LIMIT n`, and `GROUP BY time_bucket(w, time) ORDER BY 1 DESC LIMIT n`, ascending or
//! descending, need the rows at one end of time only. Their scans are told, and the plan stays as it is: a node reads from
//! that end on and stops when it has enough; one that does not hands out all rows.
//!
//! Why a node may decide for itself: a row (or bucket) that is among the first `n` of all is among the first `n` of the
//! node it lies on, and what a node left out is behind `n` others of that node.

use super::scan::ChunkScan;
use crate::functions::time_bucket::Buckets;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};
use proto::ColumnId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// Of a scan's rows only the first ones in time are of use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Leading {
    pub time: ColumnId,
    /// The latest come first.
    pub descending: bool,
    pub enough: Enough,
    /// Filters right above the scan. Where these are not, because the plan was cut below them, nobody can tell which rows
    /// pass, and all are of use.
    pub filters: usize,
}

/// How many rows are of use; of those that pass the filters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Enough {
    Rows(usize),
    /// All rows of so many buckets.
    Buckets {
        count: usize,
        width_us: i64,
    },
}

/// Tells the scans of such statements. Before the plan is cut.
pub(super) fn mark(plan: Plan) -> Result<Plan> {
    plan.transform_up(|node| {
        let marked = node.downcast_ref::<SortExec>().and_then(|sort| {
            let first = sort.expr().first();
            let key = first.expr.downcast_ref::<Column>()?.index();
            let wanted = Wanted { count: sort.fetch()?, descending: first.options.descending, width_us: None };
            let input = told(sort.input(), key, Path::Whole, wanted)?;
            Some(replace_children_if_necessary(Arc::clone(&node), vec![input]))
        });
        marked.map_or(Ok(Transformed::no(node)), |plan| Ok(Transformed::yes(plan?)))
    })
    .data()
}

/// What the operators above have made of the rows.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    /// Nothing but choosing columns.
    Whole,
    /// States were united: below must be the operator that makes them.
    States,
    /// Groups, of which the key is one.
    Groups,
    /// Rows are left out; from here on nothing else may happen to them.
    Filtered { grouped: bool, filters: usize },
}

#[derive(Clone, Copy)]
struct Wanted {
    count: usize,
    descending: bool,
    /// The key is the start of a bucket of so much time.
    width_us: Option<i64>,
}

/// `plan` with its scan told, if its column `key` is the time of a row, or of a bucket once the key has a width.
fn told(plan: &Plan, key: usize, path: Path, wanted: Wanted) -> Option<Plan> {
    if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
        let leading = leading(scan, key, path, wanted)?;
        return Some(Arc::new(scan.clone().with_leading(Some(leading))));
    }
    let [input] = plan.children()[..] else { return None };
    let filtered = matches!(path, Path::Filtered { .. });
    let below = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let (key, wanted) = step(&projection.expr().get(key)?.expr, wanted)?;
        (!filtered).then(|| told(input, key, path, wanted))??
    } else if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let groups = aggregate.group_expr();
        let states = aggregate.mode().input_mode() == AggregateInputMode::Partial;
        if filtered || path == Path::Groups || !groups.is_single() || aggregate.limit_options().is_some() {
            return None;
        }
        let (key, wanted) = step(&groups.expr().get(key)?.0, wanted)?;
        told(input, key, if states { Path::States } else { Path::Groups }, wanted)?
    } else if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        if path == Path::States || filter.fetch().is_some() {
            return None;
        }
        let key = filter.projection().as_ref().map_or(Some(key), |columns| columns.get(key).copied())?;
        let path = match path {
            Path::Filtered { grouped, filters } => Path::Filtered { grouped, filters: filters + 1 },
            other => Path::Filtered { grouped: other == Path::Groups, filters: 1 },
        };
        told(input, key, path, wanted)?
    } else {
        let passes = matches!(
            plan.name(),
            "CoalesceBatchesExec" | "CoalescePartitionsExec" | "CooperativeExec" | "RepartitionExec"
        );
        if !passes || filtered || plan.fetch().is_some() {
            return None;
        }
        told(input, key, path, wanted)?
    };
    replace_children_if_necessary(Arc::clone(plan), vec![below]).ok()
}

/// The column that `expr` is, or is the bucket of.
fn step(expr: &Arc<dyn PhysicalExpr>, wanted: Wanted) -> Option<(usize, Wanted)> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Some((column.index(), wanted));
    }
    let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
    let ("time_bucket", [width, time], None) = (call.fun().name(), call.args(), wanted.width_us) else { return None };
    let buckets = Buckets::new(width.downcast_ref::<Literal>()?.value())?;
    let width_us = Some(buckets.width_us()?);
    Some((time.downcast_ref::<Column>()?.index(), Wanted { width_us, ..wanted }))
}

fn leading(scan: &ChunkScan, key: usize, path: Path, wanted: Wanted) -> Option<Leading> {
    let table = &scan.source.as_ref()?.table;
    let time = table.column_by_id(table.hypertable.as_ref()?.time_column)?;
    let timestamps = matches!(time.ty.arrow(), DataType::Timestamp(TimeUnit::Microsecond, _));
    if scan.columns.get(key)?.id != time.id || time.nullable || !timestamps {
        return None;
    }
    if scan.latest.is_some() || scan.limit.is_some() || wanted.count == 0 {
        return None;
    }
    let (grouped, filters) = match path {
        Path::Whole => (false, 0),
        Path::Groups => (true, 0),
        Path::Filtered { grouped, filters } => (grouped, filters),
        Path::States => return None,
    };
    let enough = match (grouped, wanted.width_us) {
        (false, None) => Enough::Rows(wanted.count),
        (false, Some(_)) => return None,
        // A time by itself is a bucket of one microsecond.
        (true, width_us) => Enough::Buckets { count: wanted.count, width_us: width_us.unwrap_or(1) },
    };
    Some(Leading { time: time.id, descending: wanted.descending, enough, filters })
}
