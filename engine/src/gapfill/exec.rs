//! The operator. Wants rows of one series in one partition, ordered by bucket; gives them back in that order.

use super::filler::Filler;
use super::filling::{Filling, output};
use arrow::compute::SortOptions;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements,
    PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, stream};
use std::fmt;
use std::sync::Arc;

#[derive(Debug)]
pub struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    filling: Arc<Filling>,
    /// Group keys, then the bucket.
    ordering: LexOrdering,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl GapFillExec {
    /// # Errors
    /// When the filling names columns that `input` has not.
    pub fn new(input: Arc<dyn ExecutionPlan>, filling: Filling) -> Result<GapFillExec> {
        let columns = input.schema().fields().len();
        let named = filling.groups.iter().chain(filling.fills.iter().map(|fill| &fill.column)).chain([&filling.time]);
        if named.copied().any(|column| column >= columns) {
            return Err(crate::functions::raise(proto::Error::internal("gaps of columns that are not there")));
        }
        let keys = filling.groups.iter().chain([&filling.time]);
        // As ORDER BY has it.
        let options = SortOptions { descending: false, nulls_first: false };
        let ordering = LexOrdering::new(keys.map(|key| PhysicalSortExpr::new(column(&input, *key), options)))
            .expect("the time is always a key");
        let schema = Arc::new(output(&input.schema(), &filling.fills));
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, [ordering.clone()]),
            input.output_partitioning().clone(),
            EmissionType::Incremental,
            input.boundedness(),
        );
        let (filling, properties) = (Arc::new(filling), Arc::new(properties));
        Ok(GapFillExec { input, filling, ordering, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    pub fn filling(&self) -> &Filling {
        &self.filling
    }

    /// What rows of one series have in common.
    pub fn keys(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.filling.groups.iter().map(|key| column(&self.input, *key)).collect()
    }
}

fn column(input: &Arc<dyn ExecutionPlan>, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(input.schema().field(index).name(), index))
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapFillExec: {:?}", self.filling.grid)
    }
}

impl ExecutionPlan for GapFillExec {
    fn name(&self) -> &str {
        "GapFillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        datafusion::physical_plan::apply_expression_roots(self.ordering.iter().map(|key| &key.expr), f)
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![match self.filling.groups.is_empty() {
            true => Distribution::SinglePartition,
            false => Distribution::KeyPartitioned(self.keys()),
        }])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![Some(OrderingRequirements::from(self.ordering.clone()))]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        assert_eq!(children.len(), 1, "gaps of one input are filled");
        Ok(Arc::new(GapFillExec::new(children.swap_remove(0), self.filling.as_ref().clone())?))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        assert_eq!(children.len(), 1, "gaps of one input are filled");
        Ok(Arc::new(GapFillExec::new(children.swap_remove(0), self.filling.as_ref().clone())?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let rows_max = context.session_config().batch_size();
        let filler = Filler::new(Arc::clone(&self.filling), &self.input.schema(), self.schema(), rows_max)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = stream::try_unfold((input, filler), move |(mut input, mut filler)| {
            let metrics = metrics.clone();
            async move {
                loop {
                    let timer = metrics.elapsed_compute().timer();
                    let filled = filler.next_batch()?;
                    drop(timer);
                    if let Some(batch) = filled {
                        metrics.record_output(batch.num_rows());
                        // Gaps can go on for long without a read; whoever wants to end this has a chance here.
                        tokio::task::yield_now().await;
                        return Ok(Some((batch, (input, filler))));
                    }
                    if filler.is_done() {
                        return Ok(None);
                    }
                    match input.next().await {
                        Some(batch) => filler.push(&batch?)?,
                        None => filler.end(),
                    }
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}
