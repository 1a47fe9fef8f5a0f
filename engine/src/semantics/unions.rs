//! The columns of a UNION have one type: an untyped literal on one side takes the type of the other, and types that
//! PostgreSQL does not bring together are an error instead of a silent cast.

use super::operators::{give_type, is_unknown};
use crate::functions::scalar::{raise, type_name};
use crate::functions::types::{Class, class};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Union};
use datafusion::optimizer::AnalyzerRule;
use proto::{Error, SqlState};
use std::sync::Arc;

#[derive(Debug)]
pub struct UnionTypes;

impl AnalyzerRule for UnionTypes {
    fn name(&self) -> &str {
        "union_types"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut changed = false;
        let analyzed = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Union(union) => {
                let united = unite(union)?;
                changed |= united.transformed;
                Ok(united)
            }
            // The types below may be others now.
            plan if changed => Ok(Transformed::yes(plan.recompute_schema()?)),
            plan => Ok(Transformed::no(plan)),
        });
        Ok(analyzed?.data)
    }
}

fn unite(union: Union) -> Result<Transformed<LogicalPlan>> {
    let columns_count = union.inputs.iter().map(|input| input.schema().fields().len()).min().unwrap_or(0);
    let mut inputs = union.inputs.clone();
    let mut changed = false;
    for column in 0..columns_count {
        let types: Vec<Option<DataType>> = inputs.iter().map(|input| known_type(input, column)).collect();
        let mut known = types.iter().flatten();
        let Some(first) = known.next().cloned() else { continue };
        if let Some(other) = known.find(|ty| !match_up(&first, ty)) {
            let message = format!("UNION types {} and {} cannot be matched", type_name(&first), type_name(other));
            return Err(raise(Error::new(SqlState::DATATYPE_MISMATCH, message)));
        }
        if class(&first) == Class::Text {
            continue;
        }
        for (input, ty) in inputs.iter_mut().zip(&types) {
            if ty.is_none()
                && let LogicalPlan::Projection(projection) = input.as_ref()
            {
                *input = Arc::new(typed(projection, column, &first)?);
                changed = true;
            }
        }
    }
    Ok(match changed {
        true => Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)),
        false => Transformed::no(LogicalPlan::Union(union)),
    })
}

/// `None` for an untyped literal.
fn known_type(input: &LogicalPlan, column: usize) -> Option<DataType> {
    match input {
        LogicalPlan::Projection(projection) if projection.expr.get(column).is_some_and(|e| is_unknown(bare(e))) => None,
        input => Some(input.schema().field(column).data_type().clone()),
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => &alias.expr,
        expr => expr,
    }
}

fn typed(projection: &Projection, column: usize, ty: &DataType) -> Result<LogicalPlan> {
    let mut exprs = projection.expr.clone();
    let name = projection.schema.field(column).name().clone();
    exprs[column] = give_type(bare(&exprs[column]).clone(), ty).alias(name);
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&projection.input))?))
}

fn match_up(left: &DataType, right: &DataType) -> bool {
    let number = |class| matches!(class, Class::Integer | Class::Numeric | Class::Float);
    let time = |class| matches!(class, Class::Date | Class::Timestamp | Class::Timestamptz);
    match (class(left), class(right)) {
        (Class::Unknown | Class::Other, _) | (_, Class::Unknown | Class::Other) => true,
        (left, right) => left == right || (number(left) && number(right)) || (time(left) && time(right)),
    }
}
