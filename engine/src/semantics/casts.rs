//! The last step of analysis: every cast, written or implied, whose Arrow meaning is not PostgreSQL's becomes ours.
//! Text literals are read here, in the session's zone, so that a plan carries typed constants only.

use super::{Zone, literal, to_error};
use crate::PgType;
use crate::functions::call;
use crate::functions::cast::{cast_function, convert_scalar};
use crate::functions::scalar::{raise, session_now, session_zone, type_name};
use crate::functions::time_bucket::{implied_range, plain_call};
use crate::functions::types::{Class, NUMERIC, class};
use crate::types::TimeContext;
use arrow::datatypes::DataType;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;
use proto::{Error, SqlState};

const CANNOT_COERCE: SqlState = SqlState::new("42846");

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
        true => Ok(Transformed::yes(pruning(rewritten.data.recompute_schema()?))),
        false => Ok(Transformed::yes(pruning(rewritten.data))),
    }
}

/// `time_bucket(w, t) = x` also says something about `t` alone, which chunks and row groups are pruned by.
fn pruning(plan: LogicalPlan) -> LogicalPlan {
    let LogicalPlan::Filter(mut filter) = plan else { return plan };
    for conjunct in split_conjunction_owned(filter.predicate.clone()) {
        let Expr::BinaryExpr(comparison) = &conjunct else { continue };
        let implied = match (comparison.left.as_ref(), comparison.right.as_ref()) {
            (bucket, Expr::Literal(bound, _)) => {
                plain_call(bucket).and_then(|(width, time)| implied_range(width, time, comparison.op, bound))
            }
            (Expr::Literal(bound, _), bucket) => comparison
                .op
                .swap()
                .and_then(|op| plain_call(bucket).and_then(|(width, time)| implied_range(width, time, op, bound))),
            _ => None,
        };
        if let Some(implied) = implied {
            filter.predicate = filter.predicate.and(implied);
        }
    }
    LogicalPlan::Filter(filter)
}

fn rewrite(expr: Expr, schema: &DFSchema, session: Session) -> Result<Transformed<Expr>> {
    let (inner, field) = match expr {
        Expr::Cast(Cast { expr, field }) => (expr, field),
        // A multiplication leaves NaN its sign, which decides where it is sorted.
        Expr::Negative(inner) if class(&inner.get_type(schema)?) == Class::Float => {
            let one = ScalarValue::Float64(Some(-1.0)).cast_to(&inner.get_type(schema)?)?;
            return Ok(Transformed::yes(call("float_mul", vec![*inner, lit(one)])));
        }
        other => return Ok(Transformed::no(other)),
    };
    let keep = |inner: Box<Expr>| Ok(Transformed::no(Expr::Cast(Cast { expr: inner, field: field.clone() })));
    let (from, to) = (inner.get_type(schema)?, field.data_type());
    let Some(declared) = PgType::from_field(&field) else { return keep(inner) };
    if never_cast(class(&from), class(to)) {
        let (from, to) = (type_name(&from), type_name(to));
        return Err(raise(Error::new(CANNOT_COERCE, format!("cannot cast type {from} to {to}"))));
    }
    if let Expr::Literal(value, _) = inner.as_ref()
        && !value.is_null()
    {
        return match constant(value, &declared, to, session)? {
            Some(literal) => Ok(Transformed::yes(literal)),
            None => keep(inner),
        };
    }
    let shaped = class(to) == Class::Text && declared != PgType::Text;
    if !ours(&from, to, session.zone) {
        return match shaped && class(&from) == Class::Text {
            true => Ok(Transformed::yes(typed_text(*inner, &declared))),
            false => keep(inner),
        };
    }
    let Some(function) = cast_function(to) else { return keep(inner) };
    let ours = call(function, vec![*inner]);
    Ok(Transformed::yes(if shaped {
        typed_text(ours, &declared)
    } else if ours.get_type(schema)? == *to {
        ours
    } else {
        // numeric(p,s): rounded from the unconstrained form.
        cast(ours, to.clone())
    }))
}

fn typed_text(text: Expr, ty: &PgType) -> Expr {
    call("typed_text", vec![text, lit(ty.to_string())])
}

/// A cast of a constant, done; `None` where Arrow's own cast will do.
fn constant(value: &ScalarValue, declared: &PgType, to: &DataType, session: Session) -> Result<Option<Expr>> {
    let Session { zone, now_us } = session;
    let text = match value {
        ScalarValue::Utf8(Some(text)) => Some(text.clone()),
        value if class(to) == Class::Text => match convert_scalar(value, &DataType::Utf8, zone, now_us)? {
            ScalarValue::Utf8(text) => text,
            _ => None,
        },
        _ => None,
    };
    if let Some(text) = text {
        let value = literal::parse(&text, declared, zone, now_us).map_err(raise)?;
        let field = declared.field("", true);
        let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(field.metadata().clone()));
        return Ok(Some(Expr::Literal(value, metadata)));
    }
    if !ours(&value.data_type(), to, zone) {
        return Ok(None);
    }
    let target = if class(to) == Class::Numeric { NUMERIC } else { to.clone() };
    let literal = Expr::Literal(convert_scalar(value, &target, zone, now_us)?, None);
    Ok(Some(if target == *to { literal } else { cast(literal, to.clone()) }))
}

/// A value as a cast in a query would bring it to `to`, without a query.
///
/// # Errors
/// 42846 where PostgreSQL has no such cast; 22003 and its kin for a value that does not fit.
pub fn assigned(value: &ScalarValue, to: &PgType, context: &TimeContext) -> std::result::Result<ScalarValue, Error> {
    let (from, wanted, zone) = (value.data_type(), to.arrow(), Zone::of(context.zone));
    if from == wanted {
        return Ok(value.clone());
    }
    if never_cast(class(&from), class(&wanted)) {
        return Err(Error::new(
            CANNOT_COERCE,
            format!("cannot cast type {} to {}", type_name(&from), type_name(&wanted)),
        ));
    }
    let converted = match ours(&from, &wanted, zone) {
        true => {
            let target = if class(&wanted) == Class::Numeric { NUMERIC } else { wanted.clone() };
            convert_scalar(value, &target, zone, context.now_us)
        }
        false => Ok(value.clone()),
    };
    converted.and_then(|value| value.cast_to(&wanted)).map_err(to_error)
}

/// Arrow would take a time for its count of microseconds, and a number for the truth of not being zero.
fn never_cast(from: Class, to: Class) -> bool {
    let number = |class| matches!(class, Class::Integer | Class::Numeric | Class::Float);
    let time =
        |class| matches!(class, Class::Date | Class::Time | Class::Timestamp | Class::Timestamptz | Class::Interval);
    let fraction = |class| matches!(class, Class::Numeric | Class::Float);
    (time(from) && (number(to) || to == Class::Bool))
        || (time(to) && (number(from) || from == Class::Bool))
        || (fraction(from) && to == Class::Bool)
        || (fraction(to) && from == Class::Bool)
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
        // Arrow stumbles over the infinities.
        (Class::Timestamptz | Class::Timestamp, Class::Date | Class::Time) => true,
        (Class::Float, Class::Float) => *from == DataType::Float64 && *to == DataType::Float32,
        (Class::Timestamptz, Class::Timestamp) | (Class::Timestamp | Class::Date, Class::Timestamptz) => !zone.is_utc(),
        _ => false,
    }
}
