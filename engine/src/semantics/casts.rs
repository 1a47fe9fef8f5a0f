//! The last step of analysis: every cast, written or implied, whose Arrow meaning is not PostgreSQL's becomes ours.
//! Text literals are read here, in the session's zone, so that a plan carries typed constants only.

use super::{Zone, literal};
use crate::PgType;
use crate::functions::call;
use crate::functions::cast::{cast_function, convert_scalar};
use crate::functions::scalar::{raise, session_now, session_zone};
use crate::functions::types::{Class, class};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;

#[derive(Debug)]
pub struct PgCasts;

impl AnalyzerRule for PgCasts {
    fn name(&self) -> &str {
        "pg_casts"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let session = Session { zone: session_zone(config)?, now_us: session_now(config) };
        Ok(plan.transform_up_with_subqueries(|plan| node(plan, session))?.data)
    }
}

#[derive(Clone, Copy)]
struct Session {
    zone: Zone,
    now_us: i64,
}

fn node(plan: LogicalPlan, session: Session) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| rewrite(expr, &schema, session))?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })?;
    match rewritten.transformed {
        true => Ok(Transformed::yes(rewritten.data.recompute_schema()?)),
        false => Ok(rewritten),
    }
}

fn rewrite(expr: Expr, schema: &DFSchema, session: Session) -> Result<Transformed<Expr>> {
    let Expr::Cast(Cast { expr: inner, field }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let keep = |inner: Box<Expr>| Ok(Transformed::no(Expr::Cast(Cast { expr: inner, field: field.clone() })));
    let (from, to) = (inner.get_type(schema)?, field.data_type());
    if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = inner.as_ref() {
        let value = literal::parse(text, to, session.zone, session.now_us).map_err(raise)?;
        return Ok(Transformed::yes(shape(Expr::Literal(value, None), PgType::from_field(&field))));
    }
    if let Expr::Literal(value, None) = inner.as_ref()
        && ours(&from, to, session.zone)
        && !value.is_null()
    {
        let target = if class(to) == Class::Numeric { crate::functions::types::NUMERIC } else { to.clone() };
        let value = convert_scalar(value, &target, session.zone, session.now_us)?;
        let literal = Expr::Literal(value, None);
        return Ok(Transformed::yes(if target == *to { literal } else { cast(literal, to.clone()) }));
    }
    let declared = PgType::from_field(&field);
    let length = matches!(declared, Some(PgType::Varchar(Some(_)) | PgType::Bpchar(Some(_))));
    if !ours(&from, to, session.zone) && !length {
        return keep(inner);
    }
    let cast_expr = match cast_function(to) {
        _ if from == *to => *inner,
        Some(function) => {
            let ours = call(function, vec![*inner]);
            // numeric(p,s): round from the unconstrained form.
            if ours.get_type(schema)? == *to { ours } else { cast(ours, to.clone()) }
        }
        None => return keep(inner),
    };
    Ok(Transformed::yes(shape(cast_expr, declared)))
}

/// `varchar(n)` and `character(n)` cut what is too long.
fn shape(expr: Expr, declared: Option<PgType>) -> Expr {
    match declared {
        Some(PgType::Varchar(Some(length)) | PgType::Bpchar(Some(length))) => {
            call("left", vec![expr, lit(i64::from(length))])
        }
        _ => expr,
    }
}

/// Does PostgreSQL's cast differ from Arrow's?
fn ours(from: &DataType, to: &DataType, zone: Zone) -> bool {
    if from == to {
        return false;
    }
    match (class(from), class(to)) {
        (Class::Unknown, _) | (Class::Text, Class::Text) => false,
        (Class::Text, _) | (_, Class::Text) => true,
        (Class::Float | Class::Numeric, Class::Integer) | (Class::Float, Class::Numeric) => true,
        (Class::Timestamptz, Class::Timestamp | Class::Date | Class::Time)
        | (Class::Timestamp | Class::Date, Class::Timestamptz) => !zone.is_utc(),
        _ => false,
    }
}
