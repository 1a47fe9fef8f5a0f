//! The leaf of a fragment that stands for rows which the coordinator sends along. It is put in when the plan is cut, and
//! gives way to the rows when the fragment leaves; it never travels and cannot be executed.

use super::error::hide;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use proto::Error;
use std::fmt;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct SentRows {
    /// Which of the fragment's sides.
    pub side: u32,
    properties: Arc<PlanProperties>,
}

impl SentRows {
    pub fn new(side: u32, schema: SchemaRef) -> SentRows {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        SentRows { side, properties: Arc::new(properties) }
    }

    /// `plan` with `leaf` in the places of its sent rows.
    pub fn replaced(
        plan: Arc<dyn ExecutionPlan>,
        leaf: impl Fn(&SentRows) -> Result<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let replaced = plan.transform_up(|node| match node.downcast_ref::<SentRows>() {
            Some(sent) => Ok(Transformed::yes(leaf(sent)?)),
            None => Ok(Transformed::no(node)),
        });
        Ok(replaced?.data)
    }

    /// The leaf that holds the rows themselves; its encoding is DataFusion's.
    pub fn filled(&self, rows: Vec<RecordBatch>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(MemorySourceConfig::try_new_exec(&[rows], self.schema(), None)?)
    }
}

impl DisplayAs for SentRows {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SentRows: side={}", self.side)
    }
}

impl ExecutionPlan for SentRows {
    fn name(&self) -> &str {
        "SentRows"
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

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Err(hide(Error::internal(format!("the rows of side {} were not sent along", self.side))))
    }
}
