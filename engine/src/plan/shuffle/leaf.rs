//! The leaf of a fragment that stands for rows which other fragments publish. On the coordinator it knows those; on a node
//! `bind` replaces it, and it cannot be executed itself.
//!
//! Invariant: its partitioning is unknown, as a scan's. What its partitions hold, `cut` knows.

use crate::plan::error::hide;
use crate::plan::shards::Shards;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use proto::Error;
use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(in crate::plan) struct ShuffledRows {
    /// Its number in the plan.
    pub input: u32,
    /// `None` on a node.
    pub from: Option<ShuffledFrom>,
    properties: Arc<PlanProperties>,
}

/// The coordinator's side of it.
#[derive(Debug, Clone)]
pub(in crate::plan) struct ShuffledFrom {
    /// A `RemoteExec` whose fragment publishes.
    pub producer: Arc<dyn ExecutionPlan>,
    /// Whom the rows go to.
    pub shards: Shards,
    /// It stands for DataFusion's exchange, too.
    pub exchanges: bool,
    /// A `CollectedExec` over the same rows: if it finds few, they are not shuffled.
    pub few: Option<Arc<dyn ExecutionPlan>>,
}

impl ShuffledRows {
    pub fn new(input: u32, schema: SchemaRef, partitions: usize, from: Option<ShuffledFrom>) -> ShuffledRows {
        let properties = crate::plan::scan::scan_properties(schema, partitions);
        ShuffledRows { input, from, properties: Arc::new(properties) }
    }

    pub fn partitions(&self) -> usize {
        self.properties.partitioning.partition_count()
    }

    /// `plan` with `leaf` in the places of its shuffled rows.
    pub fn replaced(
        plan: Arc<dyn ExecutionPlan>,
        leaf: impl Fn(&ShuffledRows) -> Result<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let replaced = plan.transform_up(|node| match node.downcast_ref::<ShuffledRows>() {
            Some(rows) => Ok(Transformed::yes(leaf(rows)?)),
            None => Ok(Transformed::no(node)),
        });
        Ok(replaced?.data)
    }
}

impl DisplayAs for ShuffledRows {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShuffledRows: input={}", self.input)
    }
}

impl ExecutionPlan for ShuffledRows {
    fn name(&self) -> &str {
        "ShuffledRows"
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
        Err(hide(Error::internal(format!("shuffled rows {} were not bound to those who publish them", self.input))))
    }
}
