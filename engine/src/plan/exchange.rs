//! The gather: the operator of the coordinator's plan whose partitions are the answers of the data nodes, one each, in the
//! order the fragment gives them. Dropping a stream drops the node's stream, which cancels the work there.
//!
//! Mostly a leaf. A fragment that takes rows along has below it the plans that yield them; it waits for them, and if they
//! are too many it does not leave: the coordinator does its work in its place ([`late`](super::late)). One that reads
//! what others publish has those below it; they are started before it leaves, and are never executed as operators.

use super::context::Scope;
use super::error::hide;
use super::late::{KeyFilter, Late, Outcome, Settled, settle};
use super::light::Load;
use super::metrics::{Answer, FragmentMetrics};
use super::shuffle::LateInput;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, Time};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, Partitioning,
    PlanProperties, SendableRecordBatchStream, execute_stream,
};
use futures::future::{BoxFuture, Shared, WeakShared};
use futures::{FutureExt, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use proto::{Error, FragmentMessage, FragmentRequest, NodeName, Reaction, ScanChunks, Shuffle, SqlState, Traffic};
use std::fmt;
use std::sync::Arc;

/// Batches of one node that may wait for their consumer.
const BATCHES_AHEAD: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Fragment {
    /// Counts from 1 within its plan.
    pub number: u32,
    pub plan: Arc<dyn ExecutionPlan>,
    pub bytes: Bytes,
    /// Of the plan's parameters.
    pub values: Bytes,
    pub parts: Vec<NodePart>,
    /// Why the operator above was not shipped too; empty when there is none.
    pub why: String,
    /// What is known only when it leaves. `bytes` and `parts` are without it.
    pub late: Late,
    /// Nodes run it in one partition, whatever the statement's settings are.
    pub narrow: bool,
}

/// What one node reads for a fragment.
#[derive(Debug, Clone)]
pub(super) struct NodePart {
    pub node: NodeName,
    pub scans: Vec<ScanChunks>,
}

impl NodePart {
    pub fn chunks_count(&self) -> usize {
        self.scans.iter().map(|scan| scan.chunks.len()).sum()
    }
}

#[derive(Debug, Clone)]
pub(super) struct RemoteExec {
    pub fragment: Arc<Fragment>,
    /// What each node reported at its end.
    answers: Arc<Mutex<Vec<Option<Answer>>>>,
    settling: Arc<Settling>,
    /// Of the plan it is an instance of.
    load: Option<Arc<Load>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RemoteExec {
    pub fn new(fragment: Fragment) -> RemoteExec {
        let partitioning = Partitioning::UnknownPartitioning(fragment.parts.len());
        let properties = PlanProperties::clone(fragment.plan.properties()).with_partitioning(partitioning);
        let answers = Arc::new(Mutex::new(vec![None; fragment.parts.len()]));
        RemoteExec {
            fragment: Arc::new(fragment),
            answers,
            settling: Arc::default(),
            load: None,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The same with other late parts.
    pub fn with_late(&self, late: Late) -> RemoteExec {
        RemoteExec::new(Fragment { late, ..self.fragment.as_ref().clone() })
    }

    /// The same with those of `filters` that are about its scans; `None` when none is.
    pub fn told(&self, filters: &[KeyFilter]) -> Option<RemoteExec> {
        let scans = &self.fragment.parts.first()?.scans;
        let own = |filter: &&KeyFilter| scans.iter().any(|chunks| chunks.scan == filter.scanned.scan);
        let filters = filters.iter().filter(own).cloned().collect::<Vec<_>>();
        (!filters.is_empty()).then(|| self.with_late(Late { filters, ..self.fragment.late.clone() }))
    }

    /// How it left, once it has.
    pub fn settled(&self) -> Option<Outcome> {
        self.settling.done.lock().clone()
    }

    /// What one node's run has cost.
    pub fn answered(&self, part: usize, metrics: &Bytes, waited_us: u64, traffic: Option<Traffic>) {
        let metrics = FragmentMetrics::decode(metrics);
        if let (Some(load), Some(metrics)) = (&self.load, &metrics) {
            load.answered(metrics, self.fragment.parts[part].chunks_count());
        }
        let metrics = metrics.map(|metrics| metrics.of_plan(&self.fragment.plan));
        self.answers.lock()[part] = metrics.map(|metrics| Answer { metrics, waited_us, traffic });
    }

    /// Waits for what the fragment needs; once, for all partitions.
    pub fn settle(&self, context: &Arc<TaskContext>) -> Shared<Work> {
        let mut work = self.settling.work.lock();
        if let Some(shuffled) = self.settling.shuffled.lock().clone() {
            return async move { Ok(shuffled) }.boxed().shared();
        }
        if let Some(under_way) = work.as_ref().and_then(WeakShared::upgrade) {
            return under_way;
        }
        let (fragment, settling, context) = (self.fragment.clone(), self.settling.clone(), Arc::clone(context));
        let settle = async move {
            let settled = settle(&fragment, &context).await.map_err(Arc::new)?;
            *settling.done.lock() = Some(settled.outcome());
            let settled = Arc::new(settled);
            if matches!(&*settled, Settled::Sent { inputs, .. } if !inputs.is_empty()) {
                *settling.shuffled.lock() = Some(Arc::clone(&settled));
            }
            Ok(settled)
        };
        let shared = settle.boxed().shared();
        *work = shared.downgrade();
        shared
    }

    /// For another run.
    pub fn again(&self, run: &Run<'_>) -> RemoteExec {
        let (values, narrow) = (run.values.clone(), run.narrow);
        let mut fragment = Fragment { values, narrow, ..self.fragment.as_ref().clone() };
        for part in &mut fragment.parts {
            part.scans.iter_mut().for_each(|scan| *scan = (run.chunks)(scan.scan, &part.node));
        }
        let answers = Arc::new(Mutex::new(vec![None; fragment.parts.len()]));
        let (properties, metrics) = (Arc::clone(&self.properties), ExecutionPlanMetricsSet::new());
        let (fragment, load) = (Arc::new(fragment), Some(Arc::clone(run.load)));
        RemoteExec { fragment, answers, settling: Arc::default(), load, properties, metrics }
    }

    /// How one node answered, once its answer is complete.
    pub fn answer(&self, part: usize) -> Option<Answer> {
        self.answers.lock()[part].clone()
    }
}

/// What differs from one run of a plan to the next.
pub(super) struct Run<'a> {
    pub values: &'a Bytes,
    /// What a node reads for a scan.
    pub chunks: &'a dyn Fn(u32, &NodeName) -> ScanChunks,
    pub narrow: bool,
    pub load: &'a Arc<Load>,
}

/// How a fragment with late parts left, for all partitions and for EXPLAIN.
#[derive(Default)]
struct Settling {
    /// Held by the partitions that wait.
    work: Mutex<Option<WeakShared<Work>>>,
    done: Mutex<Option<Outcome>>,
    /// What it reads of others was published for all of its partitions, also for one that asks when all that waited are
    /// gone.
    shuffled: Mutex<Option<Arc<Settled>>>,
}

pub(super) type Work = BoxFuture<'static, std::result::Result<Arc<Settled>, Arc<DataFusionError>>>;

impl fmt::Debug for Settling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settling").field(&self.done).finish()
    }
}

pub(super) fn request(
    plan: Bytes,
    values: Bytes,
    scans: Vec<ScanChunks>,
    shuffle: Shuffle,
    scope: &Scope,
) -> FragmentRequest {
    let context = &scope.context;
    FragmentRequest {
        query: context.query,
        plan,
        values,
        scans,
        snapshot: context.snapshot,
        txn: context.txn,
        time_zone: context.settings.time_zone.clone(),
        partitions: u32::try_from(context.settings.partitions.max(1)).unwrap_or(u32::MAX),
        now_us: context.settings.now_us,
        shuffle,
    }
}

impl DisplayAs for RemoteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.fragment.parts.iter().map(|part| part.node.as_str()).collect::<Vec<_>>();
        write!(f, "RemoteExec: fragment={}, nodes=[{}]", self.fragment.number, nodes.join(", "))
    }
}

impl ExecutionPlan for RemoteExec {
    fn name(&self) -> &str {
        "RemoteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        let late = &self.fragment.late;
        let few = late.inputs.iter().filter_map(|input| input.few.as_ref());
        let producers = late.inputs.iter().map(|input| &input.producer);
        late.sides.iter().map(|(_, side)| side).chain(producers).chain(few).collect()
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
        let late = self.fragment.late.clone();
        let mut producers = children.split_off(late.sides.len());
        let mut few = producers.split_off(late.inputs.len()).into_iter();
        let sides = late.sides.iter().map(|(number, _)| *number).zip(children).collect();
        let inputs = late.inputs.into_iter().zip(producers);
        let inputs = inputs.map(|(input, producer)| {
            let few = input.few.as_ref().and_then(|_| few.next());
            LateInput { producer, few, ..input }
        });
        let inputs = inputs.collect();
        Ok(Arc::new(self.with_late(Late { sides, inputs, ..late })))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scope = context.session_config().get_extension::<Scope>();
        let scope = scope.expect("the engine executes with its scope in the config");
        // A partition that comes when all others are through.
        if partition > 0 && matches!(self.settled(), Some(Outcome::Instead(_))) {
            return Ok(Box::pin(EmptyRecordBatchStream::new(self.schema())));
        }
        let settle = (!self.fragment.late.is_empty()).then(|| self.settle(&context));
        let (fragment, schema, remote) = (self.fragment.clone(), self.schema(), self.clone());
        let rows = BaselineMetrics::new(&self.metrics, partition);
        let waited = Time::new();

        // The request leaves at once, not when the first batch is asked for: all nodes work at the same time.
        let mut stream = RecordBatchReceiverStream::builder(self.schema(), BATCHES_AHEAD);
        let batches = stream.tx();
        stream.spawn(async move {
            let name = &fragment.parts[partition].node;
            let failed = |error: Error| hide(error.on_node(name));
            let settled = match settle {
                Some(settle) => Some(settle.await.map_err(DataFusionError::Shared)?),
                None => None,
            };
            let (bytes, parts, inputs) = match settled.as_deref() {
                None => (&fragment.bytes, &fragment.parts, Vec::new()),
                Some(Settled::Sent { bytes, parts, inputs, .. }) => {
                    (bytes, parts, inputs.iter().map(|input| input.for_node(name)).collect())
                }
                Some(Settled::Instead { .. }) if partition > 0 => return Ok(()),
                Some(Settled::Instead { plan, .. }) => {
                    let mut instead = execute_stream(Arc::clone(plan), context)?;
                    while let Some(batch) = instead.try_next().await? {
                        rows.record_output(batch.num_rows());
                        if batches.send(Ok(batch)).await.is_err() {
                            break;
                        }
                    }
                    return Ok(());
                }
            };
            let shuffle = Shuffle { publishes: None, inputs };
            let scans = parts[partition].scans.clone();
            let mut request = request(bytes.clone(), fragment.values.clone(), scans, shuffle, &scope);
            if fragment.narrow {
                request.partitions = 1;
            }
            let node = scope.context.nodes.node(name).map_err(failed)?;
            let mut messages = timed(&waited, node.execute(request)).await.map_err(failed)?;
            let mut complete = false;
            while let Some(message) = timed(&waited, messages.next()).await {
                match message.map_err(failed)? {
                    FragmentMessage::Batch(batch) => {
                        let batch = conformed(batch, &schema).map_err(failed)?;
                        rows.record_output(batch.num_rows());
                        if batches.send(Ok(batch)).await.is_err() {
                            return Ok(());
                        }
                    }
                    FragmentMessage::Metrics(bytes, traffic) => {
                        complete = true;
                        let waited_us = waited.value() as u64 / 1_000;
                        remote.answered(partition, &bytes, waited_us, traffic);
                    }
                }
            }
            // A stream that just stops must not pass for a shorter result.
            complete.then_some(()).ok_or_else(|| failed(cut_short()))
        });
        Ok(stream.build())
    }
}

/// Adds the time until `wanted` is there.
async fn timed<T>(waited: &Time, wanted: impl Future<Output = T>) -> T {
    let _waiting = waited.timer();
    wanted.await
}

pub(super) fn cut_short() -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, "the answer ended early").reaction(Reaction::Retry)
}

/// The batch under the fragment's own schema; names and metadata may have changed on the way, types must not.
pub(super) fn conformed(batch: RecordBatch, schema: &SchemaRef) -> proto::Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        .map_err(|error| Error::internal(format!("a fragment answered with other columns than planned: {error}")))
}
