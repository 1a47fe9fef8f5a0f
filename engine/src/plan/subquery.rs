//! Scalar subqueries in fragments. The coordinator works a subquery out before anything that uses it; a fragment that
//! does takes the result along: above its plan goes an operator that yields the result as DataFusion's own subqueries do,
//! from a row that is already there.

use super::bounds;
use super::error::hide;
use super::trace::{Traced, traced};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Operator;
use datafusion::logical_expr::physical_planning_context::{ScalarSubqueryResults, SubqueryIndex};
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::scalar_subquery::{ScalarSubqueryExec, ScalarSubqueryLink};
use datafusion::scalar::ScalarValue;
use proto::{ColumnPredicate, Error};
use std::sync::Arc;

/// Where the results are that `plan` uses and does not compute itself.
///
/// # Errors
/// When they are of several statements' levels, which no plan of DataFusion's has.
pub(super) fn results_used(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<ScalarSubqueryResults>> {
    let mut used: Option<ScalarSubqueryResults> = None;
    plan.apply(|node| {
        if node.is::<ScalarSubqueryExec>() {
            // What is below has its own.
            return Ok(TreeNodeRecursion::Jump);
        }
        node.apply_expressions(&mut |expr| {
            expr.apply(|part| {
                if let Some(subquery) = part.downcast_ref::<ScalarSubqueryExpr>() {
                    let results = subquery.results();
                    if used.as_ref().is_some_and(|known| !ScalarSubqueryResults::ptr_eq(known, results)) {
                        return Err(hide(Error::internal("a fragment uses subqueries of several levels")));
                    }
                    used = Some(results.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(used)
}

/// `plan` with the results it uses, which must be there.
///
/// # Errors
/// When a value has no column form.
pub(super) fn with_results(
    plan: Arc<dyn ExecutionPlan>,
    results: &ScalarSubqueryResults,
) -> Result<Arc<dyn ExecutionPlan>> {
    let values = (0..).map(SubqueryIndex::new).map_while(|index| Some((index, results.get(index)?)));
    let link = |(index, value): (SubqueryIndex, ScalarValue)| {
        let schema = Arc::new(Schema::new(vec![Field::new("result", value.data_type(), true)]));
        let row = RecordBatch::try_new(Arc::clone(&schema), vec![value.to_array()?])?;
        Ok(ScalarSubqueryLink { plan: MemorySourceConfig::try_new_exec(&[vec![row]], schema, None)?, index })
    };
    let links = values.map(link).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ScalarSubqueryExec::new(plan, links, results.clone())))
}

/// What comparisons with results say about scans: `time > (SELECT …)`.
pub(super) fn predicates(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<(Traced, ColumnPredicate)>> {
    let mut found = Vec::new();
    plan.apply(|node| {
        if let Some(filter) = node.downcast_ref::<FilterExec>() {
            let terms = split_conjunction(filter.predicate());
            terms.into_iter().for_each(|term| found.extend(compared(filter, term)));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn compared(filter: &FilterExec, term: &Arc<dyn PhysicalExpr>) -> Vec<(Traced, ColumnPredicate)> {
    let Some(comparison) = term.downcast_ref::<BinaryExpr>() else { return Vec::new() };
    let swapped = |op: &Operator| op.swap();
    let (column, op, value) =
        match (super::shards::column(comparison.left()), super::shards::column(comparison.right())) {
            (Some(column), None) => (column, Some(*comparison.op()), constant(comparison.right())),
            (None, Some(column)) => (column, swapped(comparison.op()), constant(comparison.left())),
            _ => return Vec::new(),
        };
    let input = filter.input();
    let ty = input.schema().field(column).data_type().clone();
    let kind = value.and_then(|value| bounds::compared(op?, bounds::scalar(&value, &ty)?));
    let Some(kind) = kind else { return Vec::new() };
    let told = |scanned: Traced| (scanned, ColumnPredicate { column: scanned.column, kind: kind.clone() });
    traced(input, column).into_iter().map(told).collect()
}

/// The value of an expression that uses results and no column.
fn constant(expr: &Arc<dyn PhysicalExpr>) -> Option<ScalarValue> {
    let mut uses = false;
    expr.apply(|part| {
        uses |= part.is::<ScalarSubqueryExpr>();
        Ok(TreeNodeRecursion::Continue)
    })
    .ok()?;
    if !uses || !collect_columns(expr).is_empty() {
        return None;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).ok()?;
    ScalarValue::try_from_array(&expr.evaluate(&row).ok()?.into_array(1).ok()?, 0).ok()
}
