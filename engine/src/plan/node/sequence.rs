//! `ORDER BY time` without a limit: chunks are sorted one after the other in the order of their times, so that the first
//! rows leave when the first chunk is read, and no more than a chunk for each partition is in memory (of more than 64 chunks,
//! some together). A chunk that is dropped while a slow reader is before it ends the query with an error. In place of `SortExec`, which returns
//! nothing before it has read everything.

use super::super::bind::BoundScan;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
    replace_children_if_necessary,
};
use futures::{StreamExt, TryStreamExt, stream};
use proto::ChunkId;
use std::fmt;
use std::sync::Arc;

/// Each is a sort of its own in the plan.
const STRETCHES_MAX: usize = 64;

type Plan = Arc<dyn ExecutionPlan>;

/// One sort for each stretch of time; the stretches do not overlap.
#[derive(Debug)]
pub(in super::super) struct SequenceExec {
    sorts: Vec<Plan>,
    properties: Arc<PlanProperties>,
}

impl SequenceExec {
    /// `None` when the rows are not wanted by their time, or nobody knows in which chunks which times are.
    ///
    /// # Errors
    /// None that a plan which can be executed would cause.
    pub fn in_place_of(sort: &SortExec) -> Result<Option<SequenceExec>> {
        let first = sort.expr().first();
        let column = first.expr.downcast_ref::<Column>().filter(|_| sort.fetch().is_none());
        let Some((scan, at)) = column.and_then(|column| source(sort.input(), column.index())) else { return Ok(None) };
        let Some(scans) = scan.in_sequence(at, first.options.descending) else { return Ok(None) };
        let sorts = scans.into_iter().map(|scan| {
            let again = SortExec::new(sort.expr().clone(), over(sort.input(), Arc::new(scan))?);
            Ok(Arc::new(again.with_preserve_partitioning(sort.preserve_partitioning())) as Plan)
        });
        let sorts = sorts.collect::<Result<_>>()?;
        Ok(Some(SequenceExec { sorts, properties: Arc::clone(sort.properties()) }))
    }

    /// Each does a part of the same work.
    pub fn sorts(&self) -> &[Plan] {
        &self.sorts
    }
}

/// Chunks in the order of their times, with all whose times overlap together.
pub(in super::super) fn stretches(mut bounds: Vec<(ChunkId, (i64, i64))>, descending: bool) -> Vec<Vec<ChunkId>> {
    bounds.sort_by_key(|(_, times)| *times);
    // Where there are many, several follow each other in one.
    let chunks_min = bounds.len().div_ceil(STRETCHES_MAX);
    let (mut stretches, mut end) = (Vec::<Vec<ChunkId>>::new(), i64::MIN);
    for (chunk, (min, max)) in bounds {
        match stretches.last_mut() {
            Some(last) if min <= end || last.len() < chunks_min => last.push(chunk),
            _ => stretches.push(vec![chunk]),
        }
        end = end.max(max);
    }
    if descending {
        stretches.reverse();
    }
    stretches
}

/// The scan whose column `at`, of the scan, is column `at` of `plan`.
fn source(plan: &Plan, at: usize) -> Option<(&BoundScan, usize)> {
    if let Some(scan) = plan.downcast_ref::<BoundScan>() {
        return Some((scan, at));
    }
    let at = if let Some(filter) = plan.downcast_ref::<FilterExec>().filter(|filter| filter.fetch().is_none()) {
        filter.projection().as_ref().map_or(Some(at), |columns| columns.get(at).copied())?
    } else {
        plan.downcast_ref::<ProjectionExec>()?.expr().get(at)?.expr.downcast_ref::<Column>()?.index()
    };
    source(plan.children().first()?, at)
}

/// `plan` over another scan.
fn over(plan: &Plan, scan: Plan) -> Result<Plan> {
    match plan.children()[..] {
        [input] => {
            let below = vec![over(input, scan)?];
            replace_children_if_necessary(Arc::clone(plan), below)?.reset_state()
        }
        _ => Ok(scan),
    }
}

impl DisplayAs for SequenceExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequenceExec: sorts={}", self.sorts.len())
    }
}

impl ExecutionPlan for SequenceExec {
    fn name(&self) -> &str {
        "SequenceExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Plan> {
        self.sorts.iter().collect()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true; self.sorts.len()]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, sorts: Vec<Plan>, _: ReplaceChildrenOptions) -> Result<Plan> {
        Ok(Arc::new(SequenceExec { sorts, properties: Arc::clone(&self.properties) }))
    }

    fn with_new_children(self: Arc<Self>, sorts: Vec<Plan>) -> Result<Plan> {
        self.replace_children(sorts, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        // The next one begins when the one before has handed out its last row.
        let sorts = stream::iter(self.sorts.clone());
        let rows = sorts.map(move |sort| sort.execute(partition, Arc::clone(&context))).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bounds: &[(i64, i64)], descending: bool) -> Vec<Vec<u32>> {
        let chunks = bounds.iter().zip(0..).map(|(times, chunk)| (ChunkId(chunk), *times));
        let stretches = stretches(chunks.collect(), descending);
        stretches.into_iter().map(|chunks| chunks.into_iter().map(|chunk| chunk.0).collect()).collect()
    }

    #[test]
    fn chunks_that_share_a_time_are_sorted_together() {
        let bounds = [(20, 29), (0, 9), (10, 20), (30, 39), (35, 36)];
        assert_eq!(of(&bounds, false), [vec![1], vec![2, 0], vec![3, 4]]);
        assert_eq!(of(&bounds, true), [vec![3, 4], vec![2, 0], vec![1]]);
    }

    #[test]
    fn many_chunks_share_a_few_sorts() {
        let bounds = (0..1000).map(|n| (n * 10, n * 10 + 9)).collect::<Vec<_>>();
        let stretches = of(&bounds, false);
        assert!(stretches.len() <= STRETCHES_MAX);
        assert_eq!(stretches.concat(), (0..1000).collect::<Vec<_>>());
    }
}
