//! What must hold for every plan, or results would be wrong without a word.

use super::error::hide;
use super::exchange::RemoteExec;
use datafusion::common::Result;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use proto::Error;

/// No leaf of a plan, nor of its fragments, may claim that its rows are spread by hash: DataFusion would take our slots
/// for its own hash, leave an exchange out, and join or group rows that never met.
///
/// # Errors
/// `XX000` that names the leaf.
pub(super) fn scans_declare_no_hash(plan: &dyn ExecutionPlan) -> Result<()> {
    if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
        scans_declare_no_hash(remote.fragment.plan.as_ref())?;
    }
    let children = plan.children();
    if children.is_empty() && matches!(plan.output_partitioning(), Partitioning::Hash(..)) {
        return Err(hide(Error::internal(format!("{} declares hash partitioning", plan.name()))));
    }
    children.into_iter().try_for_each(|child| scans_declare_no_hash(child.as_ref()))
}
