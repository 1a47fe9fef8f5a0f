//! A plan that would join wrongly is refused.

use crate::plan::check::scans_declare_no_hash;
use crate::plan::error::reveal;
use arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use proto::SqlState;
use std::fmt;
use std::sync::Arc;

/// A leaf of any partitioning.
#[derive(Debug)]
struct Leaf(Arc<PlanProperties>);

impl DisplayAs for Leaf {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leaf")
    }
}

impl ExecutionPlan for Leaf {
    fn name(&self) -> &str {
        "Leaf"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.0
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
        unreachable!("only looked at")
    }
}

fn above(partitioning: Partitioning) -> CoalescePartitionsExec {
    let schema = EquivalenceProperties::new(Arc::new(Schema::empty()));
    let properties = PlanProperties::new(schema, partitioning, EmissionType::Incremental, Boundedness::Bounded);
    CoalescePartitionsExec::new(Arc::new(Leaf(Arc::new(properties))))
}

#[test]
fn a_scan_that_declares_hash_partitioning_is_refused() {
    scans_declare_no_hash(&above(Partitioning::UnknownPartitioning(4))).unwrap();
    let error = reveal(scans_declare_no_hash(&above(Partitioning::Hash(vec![], 4))).unwrap_err());
    assert_eq!(error.code, SqlState::INTERNAL_ERROR);
    assert_eq!(error.message, "Leaf declares hash partitioning");
}
