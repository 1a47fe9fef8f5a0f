//! `sum(bigint)` is `numeric` in PostgreSQL, so that it cannot overflow: its argument becomes a decimal here, once, before
//! DataFusion looks for common types. Deciding it in the aggregate itself would not be stable: small integers arrive
//! there as bigint, too.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, cast};
use datafusion::optimizer::AnalyzerRule;

/// All digits of a bigint.
const WIDE: DataType = DataType::Decimal128(20, 0);

#[derive(Debug)]
pub(super) struct WideSums;

impl AnalyzerRule for WideSums {
    fn name(&self) -> &str {
        "wide_sums"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(widen).data()
    }
}

fn widen(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) {
        return Ok(Transformed::no(plan));
    }
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let changed = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let widened = expr.transform_up(|expr| Ok(widen_sum(expr, &schema)))?;
        Ok(widened.update_data(|expr| name.restore(expr)))
    })?;
    match changed.transformed {
        true => changed.map_data(LogicalPlan::recompute_schema),
        false => Ok(changed),
    }
}

fn widen_sum(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_wide = |args: &[Expr]| matches!(args, [arg] if matches!(arg.get_type(schema), Ok(DataType::Int64 | DataType::UInt32 | DataType::UInt64)));
    match expr {
        Expr::AggregateFunction(mut sum) if sum.func.name() == "sum" && is_wide(&sum.params.args) => {
            sum.params.args = sum.params.args.into_iter().map(|arg| cast(arg, WIDE)).collect();
            Transformed::yes(Expr::AggregateFunction(sum))
        }
        Expr::WindowFunction(mut sum) if sum.fun.name() == "sum" && is_wide(&sum.params.args) => {
            let args = std::mem::take(&mut sum.params.args);
            sum.params.args = args.into_iter().map(|arg| cast(arg, WIDE)).collect();
            Transformed::yes(Expr::WindowFunction(sum))
        }
        other => Transformed::no(other),
    }
}
