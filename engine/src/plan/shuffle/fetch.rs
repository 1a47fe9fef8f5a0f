//! Where a fragment reads what other fragments publish: from all of them, as it comes.
//!
//! It asks when its rows are wanted and not before, so that a connection carries what is being read. One that ends without
//! having asked says so to those who publish, or they would keep the rows.

use super::publish::{Exchanges, Rows};
use crate::plan::error::hide;
use crate::plan::exchange::{conformed, cut_short};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::stream::{self, select_all};
use futures::{StreamExt, TryStreamExt};
use proto::{
    CommitSeq, Error, FetchRequest, FragmentMessage, FragmentStream, NodeAddress, Publisher, Publishers, ShuffledInput,
    Source, SqlState,
};
use std::fmt;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Where published rows are: here, and on nodes that `publishers` finds.
#[derive(Clone)]
pub(in crate::plan) struct Sources {
    pub exchanges: Arc<Exchanges>,
    pub publishers: Arc<dyn Publishers>,
}

impl Default for Sources {
    /// Of a node that knows no other.
    fn default() -> Self {
        Sources { exchanges: Arc::default(), publishers: Arc::new(Nobody) }
    }
}

struct Nobody;

impl Publishers for Nobody {
    fn publisher(&self, node: &NodeAddress) -> proto::Result<Arc<dyn Publisher>> {
        Err(Error::internal(format!("this node does not know how to find {}", node.identity.name)))
    }
}

/// The published partition behind one partition of a leaf.
#[derive(Clone)]
struct Wanted {
    sources: Sources,
    from: Vec<Source>,
    snapshot: CommitSeq,
    exchange: u64,
    partition: u32,
}

impl Wanted {
    async fn stream(&self, source: &Source, schema: &SchemaRef) -> Result<Rows> {
        match source {
            Source::Here => self.sources.exchanges.take(self.snapshot, self.exchange, self.partition).map_err(hide),
            Source::Peer(node) => {
                let name = node.identity.name.clone();
                let failed = move |error: Error| hide(error.on_node(&name));
                let messages = self.fetch(node).await.map_err(&failed)?;
                Ok(rows(messages, Arc::clone(schema)).map_err(failed).boxed())
            }
        }
    }

    async fn fetch(&self, node: &NodeAddress) -> proto::Result<FragmentStream> {
        let publisher = self.sources.publishers.publisher(node)?;
        let Wanted { snapshot, exchange, partition, .. } = *self;
        publisher.fetch(FetchRequest { from: node.identity.clone(), snapshot, exchange, partition }).await
    }

    /// Takes the rows, to drop them.
    async fn decline(self) {
        for source in &self.from {
            match source {
                Source::Here => drop(self.sources.exchanges.take(self.snapshot, self.exchange, self.partition)),
                Source::Peer(node) => drop(self.fetch(node).await),
            }
        }
    }
}

/// The batches of messages that must not end before their last one.
fn rows(
    messages: FragmentStream,
    schema: SchemaRef,
) -> impl futures::Stream<Item = proto::Result<RecordBatch>> + Send + 'static {
    stream::try_unfold(messages, move |mut messages| {
        let schema = Arc::clone(&schema);
        async move {
            match messages.next().await.transpose()? {
                Some(FragmentMessage::Batch(batch)) => Ok(Some((conformed(batch, &schema)?, messages))),
                Some(FragmentMessage::Metrics(..)) => Ok(None),
                None => Err(cut_short()),
            }
        }
    })
}

/// Rows that were not asked for yet.
struct Claim(Option<Wanted>);

impl Drop for Claim {
    fn drop(&mut self) {
        if let (Some(wanted), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(wanted.decline());
        }
    }
}

impl Claim {
    async fn open(mut self, schema: SchemaRef) -> Result<Rows> {
        let wanted = self.0.clone().expect("it is opened once");
        let opened = wanted.from.iter().map(|source| wanted.stream(source, &schema));
        let opened = futures::future::try_join_all(opened).await?;
        // Until now it would decline what it did not get.
        self.0 = None;
        Ok(select_all(opened).boxed())
    }
}

pub(in crate::plan) struct FetchExec {
    sources: Sources,
    snapshot: CommitSeq,
    input: ShuffledInput,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FetchExec {
    /// # Errors
    /// When the input is not one for the leaf.
    pub fn new(
        leaf: &super::ShuffledRows,
        input: &ShuffledInput,
        snapshot: CommitSeq,
        sources: Sources,
    ) -> Result<FetchExec> {
        if input.partitions.len() != leaf.partitions() && !input.sources.is_empty() {
            let text =
                format!("{} partitions for the {} of input {}", input.partitions.len(), leaf.partitions(), input.input);
            return Err(hide(Error::new(SqlState::PROTOCOL_VIOLATION, text)));
        }
        let (input, properties) = (input.clone(), Arc::clone(leaf.properties()));
        Ok(FetchExec { sources, snapshot, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl fmt::Debug for FetchExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchExec").field("input", &self.input).finish_non_exhaustive()
    }
}

impl DisplayAs for FetchExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FetchExec: exchange={}, sources={}", self.input.exchange, self.input.sources.len())
    }
}

impl ExecutionPlan for FetchExec {
    fn name(&self) -> &str {
        "FetchExec"
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

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let Some(published) = self.input.partitions.get(partition).filter(|_| !self.input.sources.is_empty()) else {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::empty())));
        };
        let claim = Claim(Some(Wanted {
            sources: self.sources.clone(),
            from: self.input.sources.clone(),
            snapshot: self.snapshot,
            exchange: self.input.exchange,
            partition: *published,
        }));
        let counted = BaselineMetrics::new(&self.metrics, partition);
        let rows = stream::once(claim.open(Arc::clone(&schema))).try_flatten();
        let rows = rows.inspect_ok(move |batch| {
            counted.record_output(batch.num_rows());
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows.map_err(DataFusionError::from))))
    }
}
