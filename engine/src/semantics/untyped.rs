//! Literals that SQL leaves untyped get PostgreSQL's types before DataFusion looks for common types: whole numbers are
//! `integer` where they fit, quoted text takes the type of what it is compared with.

use super::operators::{give_type, is_unknown};
use crate::functions::types::{Class, class};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Between, Case, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Values};
use datafusion::optimizer::AnalyzerRule;

#[derive(Debug)]
pub struct UntypedLiterals;

impl AnalyzerRule for UntypedLiterals {
    fn name(&self) -> &str {
        "untyped_literals"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(node)?.data)
    }
}

fn node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Limit(_) => return Ok(Transformed::no(plan)),
        LogicalPlan::Values(values) => return Ok(Transformed::yes(narrow_values(values)?)),
        _ => {}
    }
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let typed = narrow_literals(expr)?.transform_up(|expr| give_types(expr, &schema))?;
        Ok(Transformed::new_transformed(name.restore(typed.data), true))
    })?;
    Ok(Transformed::yes(rewritten.data.recompute_schema()?))
}

/// Whole numbers from -2^31 to 2^31-1 are `integer`; DataFusion reads all as `bigint`.
pub fn narrow_literals(expr: Expr) -> Result<Expr> {
    let narrow = |expr: Expr| {
        Ok(match expr {
            Expr::Literal(ScalarValue::Int64(Some(value)), None) => match i32::try_from(value) {
                Ok(small) => Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(small)), None)),
                Err(_) => Transformed::no(expr),
            },
            other => Transformed::no(other),
        })
    };
    Ok(expr.transform_up(narrow)?.data)
}

/// `VALUES` fixes its schema when it is built; a column of small whole numbers becomes `integer`.
fn narrow_values(values: Values) -> Result<LogicalPlan> {
    let small = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::Int64(value), _) => value.is_none_or(|value| i32::try_from(value).is_ok()),
        Expr::Literal(ScalarValue::Null, _) => true,
        Expr::Cast(cast) => matches!(*cast.expr, Expr::Literal(ScalarValue::Null, _)),
        _ => false,
    };
    let columns = values.schema.fields().len();
    let narrow: Vec<bool> = (0..columns)
        .map(|index| {
            values.schema.field(index).data_type() == &DataType::Int64
                && values.values.iter().all(|row| row.get(index).is_some_and(small))
        })
        .collect();
    if !narrow.contains(&true) {
        return Ok(LogicalPlan::Values(values));
    }
    let fields = values.schema.iter().zip(&narrow).map(|((qualifier, field), narrow)| {
        let ty = if *narrow { DataType::Int32 } else { field.data_type().clone() };
        (qualifier.cloned(), std::sync::Arc::new(field.as_ref().clone().with_data_type(ty)))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), values.schema.metadata().clone())?;
    let rows = values
        .values
        .into_iter()
        .map(|row| row.into_iter().zip(&narrow).map(|(expr, narrow)| narrow_cell(expr, *narrow)).collect())
        .collect();
    Ok(LogicalPlan::Values(Values { schema: std::sync::Arc::new(schema), values: rows }))
}

fn narrow_cell(expr: Expr, narrow: bool) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) if narrow => {
            Expr::Literal(ScalarValue::Int32(i32::try_from(value).ok()), metadata)
        }
        _ if narrow => Expr::Literal(ScalarValue::Int32(None), None),
        expr => expr,
    }
}

/// BETWEEN, IN and CASE, which are not planned as operators.
fn give_types(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Between(Between { expr, negated, low, high }) => {
            let ty = first_known_type([expr.as_ref(), low.as_ref(), high.as_ref()], schema);
            let Some(ty) = ty else {
                return Ok(Transformed::no(Expr::Between(Between { expr, negated, low, high })));
            };
            let give = |side: Box<Expr>| Box::new(give_unknown(*side, &ty));
            let between = Between { expr: give(expr), negated, low: give(low), high: give(high) };
            Ok(Transformed::yes(Expr::Between(between)))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let ty = first_known_type(std::iter::once(expr.as_ref()).chain(&list), schema);
            let Some(ty) = ty else {
                return Ok(Transformed::no(Expr::InList(InList { expr, list, negated })));
            };
            let list = list.into_iter().map(|item| give_unknown(item, &ty)).collect();
            Ok(Transformed::yes(Expr::InList(InList { expr: Box::new(give_unknown(*expr, &ty)), list, negated })))
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let results = when_then_expr.iter().map(|(_, then)| then.as_ref()).chain(else_expr.as_deref());
            let result = first_known_type(results, schema);
            let operand = expr.as_deref().and_then(|expr| first_known_type([expr], schema));
            let give = |expr: Box<Expr>, ty: &Option<DataType>| match ty {
                Some(ty) => Box::new(give_unknown(*expr, ty)),
                None => expr,
            };
            let when_then_expr =
                when_then_expr.into_iter().map(|(when, then)| (give(when, &operand), give(then, &result))).collect();
            let else_expr = else_expr.map(|expr| give(expr, &result));
            Ok(Transformed::yes(Expr::Case(Case { expr, when_then_expr, else_expr })))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn first_known_type<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Option<DataType> {
    exprs.into_iter().filter(|expr| !is_unknown(expr)).find_map(|expr| expr.get_type(schema).ok())
}

fn give_unknown(expr: Expr, ty: &DataType) -> Expr {
    match is_unknown(&expr) && !matches!(class(ty), Class::Text | Class::Unknown | Class::Numeric) {
        true => give_type(expr, ty),
        false => expr,
    }
}
