//! The first rows of one side of a join, gathered on the coordinator before the other side is asked: when they turn out to
//! be all and few, they are sent to the data nodes, or at least tell them which rows can match. Bounded; of more rows it
//! is the ordinary beginning of a stream.
//!
//! As an operator it yields its input's rows, in one partition. Whoever else wants the rows awaits [`CollectedExec::head`];
//! whoever only wants to learn them, and must not start the work, [`Collected::seen`].

use super::error::hide;
use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    SendableRecordBatchStream, execute_stream,
};
use futures::future::{BoxFuture, Shared, WeakShared};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use proto::Error;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// More than this is not collected. Every data node gets a copy, and keeps it in memory.
pub(super) const BYTES_MAX: usize = 8 << 20;

/// What a look at the first rows showed.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    All(RecordBatch),
    TooMany,
}

/// The collected rows, shared by all who wait for them.
pub(super) struct Collected {
    /// Held by those who wait: when all are gone, the work ends.
    work: Mutex<Option<WeakShared<Work>>>,
    seen: watch::Sender<Option<Seen>>,
}

pub(super) type Work = BoxFuture<'static, Result<Head, Arc<DataFusionError>>>;

/// The first rows.
#[derive(Clone)]
pub(super) struct Head {
    pub seen: Seen,
    /// When there were too many. The first to take them has them.
    begun: Arc<Mutex<Option<Begun>>>,
    _memory: Arc<MemoryReservation>,
}

/// Rows in hand and, behind them, the others.
struct Begun {
    batches: Vec<RecordBatch>,
    rest: SendableRecordBatchStream,
}

impl Collected {
    /// What was seen so far, without waiting.
    pub fn known(&self) -> Option<Seen> {
        self.seen.borrow().clone()
    }

    /// For all who ask from now on, these are too many rows.
    pub fn refuse(&self) {
        self.seen.send_replace(Some(Seen::TooMany));
    }

    /// Waits until somebody has collected the rows. Does not do it.
    pub async fn seen(&self) -> Seen {
        let mut seen = self.seen.subscribe();
        let found = seen.wait_for(Option::is_some).await.expect("the sender is in `self`");
        found.clone().expect("waited for it")
    }
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected")
    }
}

#[derive(Debug)]
pub(super) struct CollectedExec {
    input: Arc<dyn ExecutionPlan>,
    pub rows_max: usize,
    pub collected: Arc<Collected>,
    properties: Arc<PlanProperties>,
}

impl CollectedExec {
    pub fn new(input: Arc<dyn ExecutionPlan>, rows_max: usize) -> CollectedExec {
        let collected = Arc::new(Collected { work: Mutex::new(None), seen: watch::Sender::new(None) });
        CollectedExec::over(input, rows_max, collected)
    }

    fn over(input: Arc<dyn ExecutionPlan>, rows_max: usize, collected: Arc<Collected>) -> CollectedExec {
        let properties = PlanProperties::clone(input.properties());
        // Several partitions are read side by side: their order is lost.
        let properties = match input.properties().partitioning.partition_count() {
            1 => properties,
            _ => PlanProperties::new(
                EquivalenceProperties::new(input.schema()),
                Partitioning::UnknownPartitioning(1),
                properties.emission_type,
                properties.boundedness,
            ),
        };
        let properties = Arc::new(properties.with_partitioning(Partitioning::UnknownPartitioning(1)));
        CollectedExec { input, rows_max, collected, properties }
    }

    /// Whether its rows are known to be too many.
    pub fn is_refused(&self) -> bool {
        matches!(self.collected.known(), Some(Seen::TooMany))
    }

    /// Whether `plan` takes its rows.
    pub fn is_in(&self, plan: &Arc<dyn ExecutionPlan>) -> bool {
        let mut found = false;
        let look = plan.apply(|node| {
            let collected = node.downcast_ref::<CollectedExec>();
            found |= collected.is_some_and(|other| Arc::ptr_eq(&other.collected, &self.collected));
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        look.is_ok() && found
    }

    /// Collects the first rows, or joins those who do.
    pub fn head(&self, context: Arc<TaskContext>) -> Shared<Work> {
        let mut work = self.collected.work.lock();
        if let Some(under_way) = work.as_ref().and_then(WeakShared::upgrade) {
            return under_way;
        }
        let (input, rows_max, collected) = (self.input.clone(), self.rows_max, Arc::clone(&self.collected));
        let collecting = async move {
            let head = match collected.known() {
                // Done, and those who waited are gone.
                Some(Seen::All(rows)) => Head::of(Seen::All(rows), None, &context),
                _ => head(input, rows_max, &context).await,
            };
            let seen = head.as_ref().map_or(Seen::TooMany, |head| head.seen.clone());
            collected.seen.send_replace(Some(seen));
            head.map_err(Arc::new)
        };
        let shared = collecting.boxed().shared();
        *work = shared.downgrade();
        shared
    }
}

impl Head {
    /// Of rows that are all there are.
    pub fn bytes_count(&self) -> usize {
        match &self.seen {
            Seen::All(rows) => bytes(rows),
            Seen::TooMany => 0,
        }
    }

    fn of(seen: Seen, begun: Option<Begun>, context: &TaskContext) -> Result<Head> {
        let memory = MemoryConsumer::new("JoinSide").register(context.memory_pool());
        let in_hand = begun.iter().flat_map(|begun| &begun.batches);
        let all = match &seen {
            Seen::All(rows) => Some(rows),
            Seen::TooMany => None,
        };
        memory.try_grow(in_hand.chain(all).map(bytes).sum())?;
        Ok(Head { seen, begun: Arc::new(Mutex::new(begun)), _memory: Arc::new(memory) })
    }
}

async fn head(input: Arc<dyn ExecutionPlan>, rows_max: usize, context: &Arc<TaskContext>) -> Result<Head> {
    let schema = input.schema();
    let mut stream = execute_stream(input, Arc::clone(context))?;
    let (mut batches, mut rows_count, mut bytes_count) = (Vec::new(), 0, 0);
    while let Some(batch) = stream.try_next().await? {
        rows_count += batch.num_rows();
        bytes_count += bytes(&batch);
        batches.push(batch);
        if rows_count > rows_max || bytes_count > BYTES_MAX {
            return Head::of(Seen::TooMany, Some(Begun { batches, rest: stream }), context);
        }
    }
    Head::of(Seen::All(concat_batches(&schema, &batches)?), None, context)
}

fn bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

impl DisplayAs for CollectedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CollectedExec: rows_max={}", self.rows_max)
    }
}

impl ExecutionPlan for CollectedExec {
    fn name(&self) -> &str {
        "CollectedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().expect("it has one child");
        Ok(Arc::new(CollectedExec::over(input, self.rows_max, Arc::clone(&self.collected))))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    /// Those who wait for the rows know them by `collected`, so that it stays.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        *self.collected.work.lock() = None;
        self.collected.seen.send_replace(None);
        Ok(self)
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let head = self.head(context);
        let rows = async move {
            let head = head.await.map_err(DataFusionError::Shared)?;
            let rows = match &head.seen {
                Seen::All(rows) => stream::iter([Ok(rows.clone())]).boxed(),
                Seen::TooMany => {
                    let begun = head.begun.lock().take();
                    let begun = begun.ok_or_else(|| hide(Error::internal("a join's side was read twice")))?;
                    stream::iter(begun.batches.into_iter().map(Ok)).chain(begun.rest).boxed()
                }
            };
            // The rows count as memory in use until the last is handed on.
            Ok::<_, DataFusionError>(rows.inspect(move |_| _ = &head))
        };
        let rows = stream::once(rows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
