//! DataFusion's rewriting of `count(DISTINCT x)` into a count over groups, where the other aggregates allow it. They are
//! taken of their own results then, and `sum` of a `sum` is of another type than `sum` wherever PostgreSQL widens it.

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::sync::Arc;

#[derive(Debug, Default)]
struct DistinctsByGroup(SingleDistinctToGroupBy);

/// DataFusion's rules, with this one in the place of its own.
pub fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let ours: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(DistinctsByGroup::default());
    let rules = Optimizer::new().rules.into_iter();
    rules.map(|rule| if rule.name() == ours.name() { Arc::clone(&ours) } else { rule }).collect()
}

impl OptimizerRule for DistinctsByGroup {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Aggregate(aggregate) if widens(aggregate)? => Ok(Transformed::no(plan)),
            _ => self.0.rewrite(plan, config),
        }
    }
}

fn widens(aggregate: &Aggregate) -> Result<bool> {
    for expr in &aggregate.aggr_expr {
        if let Expr::AggregateFunction(call) = expr
            && call.func.name() == "sum"
            && !call.params.distinct
            && expr.get_type(aggregate.input.schema())? != DataType::Float64
        {
            return Ok(true);
        }
    }
    Ok(false)
}
