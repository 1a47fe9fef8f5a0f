//! The gather: an ordinary leaf of the coordinator's plan whose partitions are the answers of the data nodes, one each,
//! in the order the fragment gives them. Dropping a stream drops the node's stream, which cancels the work there.

use super::context::Scope;
use super::error::hide;
use super::metrics::FragmentMetrics;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;
use parking_lot::Mutex;
use proto::{ColumnPredicate, Error, FragmentMessage, FragmentRequest, NodeName, Reaction, ScanChunks, SqlState};
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
}

/// What one node reads for a fragment.
#[derive(Debug, Clone)]
pub(super) struct NodePart {
    pub node: NodeName,
    pub scans: Vec<ScanChunks>,
}

#[derive(Debug)]
pub(super) struct RemoteExec {
    pub fragment: Fragment,
    /// What each node reported at its end.
    answers: Arc<Mutex<Vec<Option<FragmentMetrics>>>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RemoteExec {
    pub fn new(fragment: Fragment) -> RemoteExec {
        let partitioning = Partitioning::UnknownPartitioning(fragment.parts.len());
        let properties = PlanProperties::clone(fragment.plan.properties()).with_partitioning(partitioning);
        let answers = Arc::new(Mutex::new(vec![None; fragment.parts.len()]));
        RemoteExec { fragment, answers, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    /// For another run: with other values, and what scans may skip then.
    pub fn again(&self, values: &Bytes, predicates: &dyn Fn(u32) -> Vec<ColumnPredicate>) -> RemoteExec {
        let mut fragment = Fragment { values: values.clone(), ..self.fragment.clone() };
        for scan in fragment.parts.iter_mut().flat_map(|part| &mut part.scans) {
            scan.predicates = predicates(scan.scan);
        }
        let answers = Arc::new(Mutex::new(vec![None; fragment.parts.len()]));
        let (properties, metrics) = (Arc::clone(&self.properties), ExecutionPlanMetricsSet::new());
        RemoteExec { fragment, answers, properties, metrics }
    }

    /// The metrics of one node's run, once it has ended.
    pub fn answer(&self, part: usize) -> Option<FragmentMetrics> {
        self.answers.lock()[part].clone()
    }

    fn request(&self, part: &NodePart, scope: &Scope) -> FragmentRequest {
        let context = &scope.context;
        FragmentRequest {
            query: context.query,
            plan: self.fragment.bytes.clone(),
            values: self.fragment.values.clone(),
            scans: part.scans.clone(),
            snapshot: context.snapshot,
            txn: context.txn,
            time_zone: context.settings.time_zone.clone(),
            partitions: u32::try_from(context.settings.partitions.max(1)).unwrap_or(u32::MAX),
            now_us: context.settings.now_us,
        }
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
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scope = context.session_config().get_extension::<Scope>();
        let scope = scope.expect("the engine executes with its scope in the config");
        let part = &self.fragment.parts[partition];
        let (request, name) = (self.request(part, &scope), part.node.clone());
        let (schema, answers) = (self.schema(), Arc::clone(&self.answers));
        let rows = BaselineMetrics::new(&self.metrics, partition);

        // The request leaves at once, not when the first batch is asked for: all nodes work at the same time.
        let mut stream = RecordBatchReceiverStream::builder(self.schema(), BATCHES_AHEAD);
        let batches = stream.tx();
        stream.spawn(async move {
            let failed = |error: Error| hide(error.on_node(&name));
            let node = scope.context.nodes.node(&name).map_err(failed)?;
            let mut messages = node.execute(request).await.map_err(failed)?;
            let mut complete = false;
            while let Some(message) = messages.next().await {
                match message.map_err(failed)? {
                    FragmentMessage::Batch(batch) => {
                        let batch = conformed(batch, &schema).map_err(failed)?;
                        rows.record_output(batch.num_rows());
                        if batches.send(Ok(batch)).await.is_err() {
                            return Ok(());
                        }
                    }
                    FragmentMessage::Metrics(bytes) => {
                        complete = true;
                        answers.lock()[partition] = FragmentMetrics::decode(&bytes);
                    }
                }
            }
            // A stream that just stops must not pass for a shorter result.
            complete.then_some(()).ok_or_else(|| failed(cut_short()))
        });
        Ok(stream.build())
    }
}

fn cut_short() -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, "the answer ended early").reaction(Reaction::Retry)
}

/// The batch under the fragment's own schema; names and metadata may have changed on the way, types must not.
fn conformed(batch: RecordBatch, schema: &SchemaRef) -> proto::Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        .map_err(|error| Error::internal(format!("a fragment answered with other columns than planned: {error}")))
}
