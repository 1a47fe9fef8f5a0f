//! Literals that SQL leaves untyped take the type of what they stand beside, before DataFusion looks for common types:
//! in BETWEEN, IN, CASE and COALESCE, which are not planned as operators.

use super::operators::{give_type, is_unknown};
use crate::PgType;
use crate::functions::types::{Class, class};
use arrow::datatypes::DataType;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Between, Case, InList, ScalarFunction};
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
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
    if let LogicalPlan::Limit(_) = plan {
        return Ok(Transformed::no(plan));
    }
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let typed = expr.transform_up(|expr| give_types(expr, &schema))?;
        Ok(typed.update_data(|expr| name.restore(expr)))
    })?;
    match rewritten.transformed {
        true => Ok(Transformed::yes(rewritten.data.recompute_schema()?)),
        false => Ok(rewritten),
    }
}

/// The same for one expression that is an operand, whose type is wanted before the plan is complete.
pub fn settled(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    match &expr {
        Expr::Case(_) | Expr::ScalarFunction(_) => Ok(expr.transform_up(|expr| give_types(expr, schema))?.data),
        _ => Ok(expr),
    }
}

/// The functions that PostgreSQL resolves as it resolves CASE: one type for all arguments.
const UNIFORM: &[&str] = &["coalesce", "greatest", "least", "nullif"];

fn give_types(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let typed = match expr {
        Expr::Between(Between { expr, negated, low, high }) => {
            let [expr, low, high] = unified_array([*expr, *low, *high], schema);
            Expr::Between(Between { expr: Box::new(expr), negated, low: Box::new(low), high: Box::new(high) })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mut exprs = list;
            exprs.push(*expr);
            let mut list = unified(exprs, schema);
            let expr = list.pop().expect("the operand was put last");
            Expr::InList(InList { expr: Box::new(expr), list, negated })
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let (whens, mut thens): (Vec<Expr>, Vec<Expr>) =
                when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
            let has_else = else_expr.is_some();
            thens.extend(else_expr.map(|expr| *expr));
            let mut thens = unified(thens, schema);
            let else_expr = if has_else { thens.pop().map(Box::new) } else { None };
            // With an operand the WHENs are values that it is compared with.
            let (expr, whens) = match expr {
                None => (None, whens),
                Some(operand) => {
                    let mut exprs = whens;
                    exprs.push(*operand);
                    let mut whens = unified(exprs, schema);
                    (whens.pop().map(Box::new), whens)
                }
            };
            let when_then_expr =
                whens.into_iter().zip(thens).map(|(when, then)| (Box::new(when), Box::new(then))).collect();
            Expr::Case(Case { expr, when_then_expr, else_expr })
        }
        Expr::ScalarFunction(call) if UNIFORM.contains(&call.func.name()) => {
            let args = unified(call.args, schema);
            Expr::ScalarFunction(ScalarFunction::new_udf(call.func, args))
        }
        Expr::ScalarFunction(call) if call.func.name() == "pg_typeof" && call.args.iter().all(is_unknown) => {
            let field = PgType::Regtype.field("", false);
            let metadata = FieldMetadata::from(field.metadata().clone());
            Expr::Literal(ScalarValue::from(PgType::Unknown.to_string()), Some(metadata))
        }
        other => return Ok(Transformed::no(other)),
    };
    Ok(Transformed::yes(typed))
}

fn unified_array<const N: usize>(exprs: [Expr; N], schema: &DFSchema) -> [Expr; N] {
    let exprs = unified(Vec::from(exprs), schema);
    exprs.try_into().unwrap_or_else(|_| unreachable!("as many come out as went in"))
}

/// Untyped literals get the type of the first typed expression. Beside `double precision` a `numeric` becomes one:
/// DataFusion would go the other way and lose digits.
fn unified(exprs: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let known = |expr: &Expr| if is_unknown(expr) { None } else { expr.get_type(schema).ok() };
    let types: Vec<Option<DataType>> = exprs.iter().map(known).collect();
    let first = types.iter().flatten().find(|ty| !ty.is_null()).cloned();
    let floats = types.iter().flatten().any(|ty| class(ty) == Class::Float);
    let convert = |(expr, ty): (Expr, Option<DataType>)| match (ty.as_ref().map(class), &first) {
        (None, Some(first)) if !matches!(class(first), Class::Text | Class::Unknown | Class::Numeric) => {
            give_type(expr, first)
        }
        (Some(Class::Numeric), _) if floats => cast(expr, DataType::Float64),
        _ => expr,
    };
    exprs.into_iter().zip(types).map(convert).collect()
}
