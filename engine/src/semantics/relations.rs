//! Functions in FROM: `generate_series` as a stream, any scalar function as one row.
//!
//! A stream of this kind is made where the plan is made: it cannot be shipped to a node.

use super::casts::PgCasts;
use super::operators::is_unknown;
use super::untyped::UntypedLiterals;
use crate::functions::scalar::{cast_to, no_function, raise, session_zone};
use crate::functions::series::{Series, series_types};
use crate::functions::undefined::UNDEFINED;
use crate::functions::{FUNCTIONS, call};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::sql::sqlparser::ast::{FunctionArg, FunctionArgExpr, TableAlias, TableFactor};
use std::sync::Arc;

#[derive(Debug)]
pub struct SetReturningFunctions;

impl RelationPlanner for SetReturningFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some((name, args, alias)) = function_in_from(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let known = name == "generate_series" || FUNCTIONS.scalar(&name).is_some();
        let empty = DFSchema::empty();
        let args =
            args.into_iter().map(|arg| context.sql_expr_to_logical_expr(arg, &empty)).collect::<Result<Vec<_>>>()?;
        let plan = match name.as_str() {
            "generate_series" => generate_series(args, context.context_provider().options())?,
            _ if !known => {
                let args = std::iter::once(lit(name.as_str())).chain(args).collect();
                return Err(match call(UNDEFINED, args).get_type(&empty) {
                    Err(error) => error,
                    Ok(_) => raise(no_function(&name, &[])),
                });
            }
            _ => LogicalPlanBuilder::empty(true).project([call(&name, args).alias(&name)])?.build()?,
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

type Parts = (String, Vec<datafusion::sql::sqlparser::ast::Expr>, Option<TableAlias>);

/// `f(a, b) AS x`, unnamed arguments only.
fn function_in_from(relation: &TableFactor) -> Option<Parts> {
    let (name, args, alias) = match relation {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
        TableFactor::Function { name, args, alias, with_ordinality: false, .. } => (name, args, alias),
        _ => return None,
    };
    let [name] = name.0.as_slice() else { return None };
    let exprs = args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    Some((name.as_ident()?.value.to_ascii_lowercase(), exprs.collect::<Option<Vec<_>>>()?, alias.clone()))
}

fn generate_series(args: Vec<Expr>, options: &ConfigOptions) -> Result<LogicalPlan> {
    let empty = DFSchema::empty();
    let types = args
        .iter()
        .map(|arg| if is_unknown(arg) { Ok(DataType::Null) } else { arg.get_type(&empty) })
        .collect::<Result<Vec<_>>>()?;
    let Some(wanted) = series_types(&types) else {
        return Err(raise(no_function("generate_series", &types)));
    };
    let typed: Vec<Expr> =
        args.iter().zip(types.iter().zip(&wanted)).map(|(arg, (from, to))| cast_to(arg.clone(), from, to)).collect();
    match constants(&typed, options)? {
        Some(values) => {
            let zone = session_zone(options)?;
            let series = Series::new(&values, &wanted[0], zone).map_err(raise)?;
            let schema = Arc::new(Schema::new(vec![Field::new("generate_series", wanted[0].clone(), false)]));
            let stream = Arc::new(SeriesStream { series, schema: Arc::clone(&schema) });
            let table = StreamingTable::try_new(schema, vec![stream])?;
            LogicalPlanBuilder::scan("generate_series", provider_as_source(Arc::new(table)), None)?.build()
        }
        // Parameters and sub-selects are known at execution only.
        None => {
            let list = call("generate_series_list", args);
            let column = "generate_series";
            let input = LogicalPlanBuilder::empty(true).project([list.alias(column)])?;
            input.unnest_column(column)?.build()
        }
    }
}

/// The values of constant expressions; `None` when one is not constant.
fn constants(exprs: &[Expr], options: &ConfigOptions) -> Result<Option<Vec<ScalarValue>>> {
    let named = exprs.iter().enumerate().map(|(index, expr)| expr.clone().alias(index.to_string()));
    let mut plan = LogicalPlanBuilder::empty(true).project(named)?.build()?;
    for rule in [&UntypedLiterals as &dyn AnalyzerRule, &TypeCoercion::new(), &PgCasts] {
        plan = rule.analyze(plan, options)?;
    }
    let simplifier =
        ExprSimplifier::new(SimplifyContext::builder().with_config_options(Arc::new(options.clone())).build());
    let mut values = Vec::with_capacity(exprs.len());
    for expr in plan.expressions() {
        match simplifier.simplify(expr.unalias())? {
            Expr::Literal(value, _) => values.push(value),
            _ => return Ok(None),
        }
    }
    Ok(Some(values))
}

#[derive(Debug)]
struct SeriesStream {
    series: Series,
    schema: SchemaRef,
}

impl PartitionStream for SeriesStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows_max = context.session_config().batch_size();
        let schema = Arc::clone(&self.schema);
        let batches = futures::stream::try_unfold(self.series.clone(), move |mut series| {
            let schema = Arc::clone(&schema);
            async move {
                match series.next_array(rows_max)? {
                    Some(array) => Ok(Some((RecordBatch::try_new(schema, vec![array])?, series))),
                    None => Ok(None),
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}
