//! Plans made fit to share a process: a join can be stopped in its middle, and one that is refused memory says so. Done
//! to a whole plan just before it runs, on the coordinator and on nodes; such plans do not travel.
//!
//! A task of the runtime ends, and gives way to others, where it waits. Scans see to that by themselves, but a join makes
//! millions of rows of one batch it has read:
//! - above every join, its batches count as steps after which the runtime may turn to another task, and before which it
//!   must be the fragment's turn;
//! - a nested-loop join, and a hash join with a condition that leaves few pairs, holds each batch of its one side against
//!   all rows of the other before it looks up. That side is given to it in slices so small that one takes milliseconds.
//!
//! When the other side does not fit into memory, DataFusion's nested-loop join would read that side again. Here most
//! inputs can be read once only (a scan's partitions share a queue, an exchange its channels), and its outer joins would
//! count rows twice: such a join fails with `OUT_OF_MEMORY` instead.

use super::error::hide;
use super::turn::Turn;
use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, ReplaceChildrenOptions, replace_children_if_necessary,
};
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, stream};
use proto::Clock;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The first slice; the others are made so large that they take between these times.
const SLICE_ROWS: usize = 16;
const SLICE_TIME_MIN: Duration = Duration::from_millis(2);
const SLICE_TIME_MAX: Duration = Duration::from_millis(20);

/// By this name others know that the operator is not one of the plan that was made.
pub(super) const NAME: &str = "PacedExec";

type Plan = Arc<dyn ExecutionPlan>;

/// # Errors
/// None that a plan which can be executed would cause.
pub(super) fn paced(plan: Plan) -> Result<Plan> {
    let pace = |input: &Plan, place| -> Plan { Arc::new(PacedExec::new(Arc::clone(input), place)) };
    let joined = plan.transform_up(|node| {
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            let children = vec![pace(join.left(), Place::Kept), pace(join.right(), Place::Probing)];
            return Ok(Transformed::yes(pace(&replace_children_if_necessary(node, children)?, Place::Joined)));
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>()
            && join.filter().is_some()
        {
            let children = vec![Arc::clone(join.left()), pace(join.right(), Place::Probing)];
            return Ok(Transformed::yes(pace(&replace_children_if_necessary(node, children)?, Place::Joined)));
        }
        let joins = node.is::<HashJoinExec>() || node.is::<CrossJoinExec>() || node.is::<SortMergeJoinExec>();
        Ok(if joins { Transformed::yes(pace(&node, Place::Joined)) } else { Transformed::no(node) })
    });
    Ok(joined?.data)
}

/// What a plan is paced by; an extension of the task's config.
pub(super) struct Pace {
    pub clock: Arc<dyn Clock>,
    /// On nodes.
    pub turn: Option<Arc<Turn>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Above a join.
    Joined,
    /// Below a join: the side that is held against the other, batch by batch.
    Probing,
    /// Below a nested-loop join: the side that is kept in memory.
    Kept,
}

#[derive(Debug)]
struct PacedExec {
    input: Plan,
    place: Place,
    read: AtomicBool,
}

impl PacedExec {
    fn new(input: Plan, place: Place) -> PacedExec {
        PacedExec { input, place, read: AtomicBool::new(false) }
    }
}

impl DisplayAs for PacedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}: {:?}", self.place)
    }
}

impl ExecutionPlan for PacedExec {
    fn name(&self) -> &str {
        NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Plan> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, mut children: Vec<Plan>, _: ReplaceChildrenOptions) -> Result<Plan> {
        let input = children.pop().expect("it has one input");
        Ok(Arc::new(PacedExec::new(input, self.place)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Plan>) -> Result<Plan> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let pace = || {
            let pace = context.session_config().get_extension::<Pace>();
            pace.expect("tasks are made with a clock")
        };
        match self.place {
            Place::Joined => {
                let pace = pace();
                let joined = make_cooperative(self.input.execute(partition, context)?);
                Ok(match &pace.turn {
                    Some(turn) => in_turn(joined, Arc::clone(turn), Arc::clone(&pace.clock)),
                    None => joined,
                })
            }
            Place::Kept if self.read.swap(true, Ordering::Relaxed) => Err(DataFusionError::ResourcesExhausted(
                "No side of a nested-loop join fits into the memory that is left.".to_owned(),
            )),
            Place::Kept => self.input.execute(partition, context),
            Place::Probing => {
                let slices = Slices {
                    clock: Arc::clone(&pace().clock),
                    input: self.input.execute(partition, context)?,
                    rest: None,
                    rows: SLICE_ROWS,
                    given: None,
                };
                let slices = stream::try_unfold(slices, |mut slices| async move {
                    Ok(slices.next().await.transpose()?.map(|slice| (slice, slices)))
                });
                Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), slices)))
            }
        }
    }
}

fn in_turn(joined: SendableRecordBatchStream, turn: Arc<Turn>, clock: Arc<dyn Clock>) -> SendableRecordBatchStream {
    let schema = joined.schema();
    let batches = stream::try_unfold((joined, turn, clock), |(mut joined, turn, clock)| async move {
        turn.step().await.map_err(hide)?;
        let started = clock.elapsed();
        let batch = joined.next().await.transpose()?;
        turn.ran(clock.elapsed().saturating_sub(started));
        Ok(batch.map(|batch| (batch, (joined, turn, clock))))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

struct Slices {
    input: SendableRecordBatchStream,
    rest: Option<RecordBatch>,
    rows: usize,
    /// When the last slice was given out: whoever asks for the next is done with it.
    given: Option<Duration>,
    clock: Arc<dyn Clock>,
}

impl Slices {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        if let Some(given) = self.given.take() {
            self.rows = fitted(self.rows, self.clock.elapsed().saturating_sub(given));
            tokio::task::yield_now().await;
        }
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.input.next().await? {
                Ok(batch) => batch,
                Err(error) => return Some(Err(error)),
            },
        };
        let rows = self.rows.min(batch.num_rows());
        let rest = batch.slice(rows, batch.num_rows() - rows);
        self.rest = (rest.num_rows() > 0).then_some(rest);
        self.given = Some(self.clock.elapsed());
        Some(Ok(batch.slice(0, rows)))
    }
}

fn fitted(rows: usize, took: Duration) -> usize {
    match took {
        took if took > SLICE_TIME_MAX => (rows / 2).max(1),
        took if took < SLICE_TIME_MIN => rows.saturating_mul(2),
        _ => rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_shrink_when_they_take_long_and_never_to_nothing() {
        let mut rows = 8192;
        for _ in 0..20 {
            rows = fitted(rows, Duration::from_secs(1));
        }
        assert_eq!(rows, 1);
        assert_eq!(fitted(1, Duration::ZERO), 2);
        assert_eq!(fitted(100, Duration::from_millis(10)), 100);
    }
}
