//! A filter over a scan that keeps batches as they are: predicates were held against them already where the store could,
//! so most batches pass whole, and these are not copied. In place of `FilterExec`, which gathers its output into full
//! batches.

use super::windows::Windows;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, future};
use std::fmt;
use std::sync::Arc;

pub(super) struct SieveExec {
    predicate: Arc<dyn PhysicalExpr>,
    /// Places of the input's columns that are passed on.
    projection: Option<Vec<usize>>,
    /// Where to say which rows pass, and the place of their time.
    counted: Option<(Arc<Windows>, usize)>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SieveExec {
    /// In place of `filter`, which has no limit.
    pub fn over(input: Arc<dyn ExecutionPlan>, filter: &FilterExec) -> SieveExec {
        assert!(filter.fetch().is_none(), "a sieve does nothing but leaving rows out");
        SieveExec {
            predicate: Arc::clone(filter.predicate()),
            projection: filter.projection().as_ref().map(|columns| columns.to_vec()),
            counted: None,
            input,
            properties: Arc::clone(filter.properties()),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The same, and rows that pass count by their `time` when the scan decides whether there are enough.
    pub fn counting(&self, windows: &Arc<Windows>, time: &str) -> Result<SieveExec> {
        let at = self.schema().index_of(time)?;
        Ok(self.with(Arc::clone(&self.input), Some((Arc::clone(windows), at))))
    }

    fn with(&self, input: Arc<dyn ExecutionPlan>, counted: Option<(Arc<Windows>, usize)>) -> SieveExec {
        SieveExec {
            predicate: Arc::clone(&self.predicate),
            projection: self.projection.clone(),
            counted,
            input,
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

/// The rows of `batch` for which `predicate` is true, in the columns of `projection`.
fn passed(
    batch: RecordBatch,
    predicate: &Arc<dyn PhysicalExpr>,
    projection: Option<&Vec<usize>>,
) -> Result<RecordBatch> {
    let answer = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
    let answer = answer.as_boolean();
    let batch = projection.map_or(Ok(batch.clone()), |columns| batch.project(columns))?;
    let answer = if answer.null_count() > 0 { prep_null_mask_filter(answer) } else { answer.clone() };
    match answer.true_count() == batch.num_rows() {
        true => Ok(batch),
        false => Ok(filter_record_batch(&batch, &answer)?),
    }
}

impl fmt::Debug for SieveExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SieveExec").field("predicate", &self.predicate).finish_non_exhaustive()
    }
}

impl DisplayAs for SieveExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SieveExec: {}", self.predicate)
    }
}

impl ExecutionPlan for SieveExec {
    fn name(&self) -> &str {
        "SieveExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        look: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        look(&self.predicate)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.with(children.pop().expect("a filter has one input"), self.counted.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (predicate, projection) = (Arc::clone(&self.predicate), self.projection.clone());
        // The first partition reads what counts.
        let counted = self.counted.clone().filter(|_| partition == 0);
        let batches = self.input.execute(partition, context)?.filter_map(move |batch| {
            let busy = metrics.elapsed_compute().timer();
            let batch = batch.and_then(|batch| passed(batch, &predicate, projection.as_ref()));
            busy.done();
            if let Ok(batch) = &batch {
                metrics.record_output(batch.num_rows());
                if let Some((windows, at)) = &counted {
                    windows.count(batch.column(*at).as_primitive::<TimestampMicrosecondType>().values());
                }
            }
            let empty = batch.as_ref().is_ok_and(|batch| batch.num_rows() == 0);
            future::ready((!empty).then_some(batch))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}
