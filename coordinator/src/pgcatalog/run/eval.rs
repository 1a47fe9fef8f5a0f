//! Expressions.

use super::query::run_cached;
use super::{Context, Env, operators};
use crate::pgcatalog::cast::cast;
use crate::pgcatalog::functions::ScalarFunction;
use crate::pgcatalog::system::Argument;
use crate::pgcatalog::tree::{Expr, HostCall, Op, Query};
use crate::pgcatalog::value::{Row, Value};
use engine::PgType;
use proto::{Error, Result, SqlState};

/// The expressions that nest deep come first, so that a level of them costs little stack.
pub(crate) fn eval(ctx: &mut Context, env: &Env, expr: &Expr) -> Result<Value> {
    match expr {
        Expr::Const(value) => Ok(value.clone()),
        Expr::Column { up, index } => Ok(column(env, *up, *index)),
        Expr::Binary { op, left, right } => binary(ctx, env, *op, left, right),
        Expr::Cast { expr, from, to } => {
            let value = eval(ctx, env, expr)?;
            cast(ctx, value, from, to)
        }
        Expr::Call(function, args) => call(ctx, env, function, args),
        Expr::And(parts) => connective(ctx, env, parts, false),
        Expr::Or(parts) => connective(ctx, env, parts, true),
        Expr::Case { branches, otherwise } => case(ctx, env, branches, otherwise),
        other => eval_other(ctx, env, other),
    }
}

fn binary(ctx: &mut Context, env: &Env, op: Op, left: &Expr, right: &Expr) -> Result<Value> {
    let left = eval(ctx, env, left)?;
    let right = eval(ctx, env, right)?;
    operators::apply(op, left, right)
}

fn call(ctx: &mut Context, env: &Env, function: &ScalarFunction, args: &[Expr]) -> Result<Value> {
    let args = eval_all(ctx, env, args)?;
    match function.strict && args.iter().any(Value::is_null) {
        true => Ok(Value::Null),
        false => (function.eval)(ctx, &args),
    }
}

fn case(ctx: &mut Context, env: &Env, branches: &[(Expr, Expr)], otherwise: &Expr) -> Result<Value> {
    for (condition, result) in branches {
        if eval(ctx, env, condition)?.is_true() {
            return eval(ctx, env, result);
        }
    }
    eval(ctx, env, otherwise)
}

fn eval_other(ctx: &mut Context, env: &Env, expr: &Expr) -> Result<Value> {
    Ok(match expr {
        Expr::Param(index, ty) => param(ctx, *index, ty)?,
        Expr::Host { call, columns_count } => match (host_rows(ctx, env, call)?.into_iter().next(), columns_count) {
            (None, _) => Value::Null,
            (Some(mut row), 1) => row.pop().unwrap_or(Value::Null),
            (Some(row), _) => Value::Record(row.into()),
        },
        Expr::Not(inner) => match eval(ctx, env, inner)? {
            Value::Bool(b) => Value::Bool(!b),
            _ => Value::Null,
        },
        Expr::IsNull(inner) => match eval(ctx, env, inner)? {
            // A composite is null when all its fields are.
            Value::Record(fields) => Value::Bool(fields.iter().all(Value::is_null)),
            value => Value::Bool(value.is_null()),
        },
        Expr::Is(inner, wanted) => Value::Bool(matches!(eval(ctx, env, inner)?, Value::Bool(b) if b == *wanted)),
        Expr::IsDistinct(left, right) => Value::Bool(eval(ctx, env, left)? != eval(ctx, env, right)?),
        Expr::InList(left, list) => {
            let left = eval(ctx, env, left)?;
            let mut truth = Some(false);
            for item in list {
                let item = eval(ctx, env, item)?;
                truth = or(truth, operators::compare(Op::Eq, &left, &item));
                if truth == Some(true) {
                    break;
                }
            }
            from_truth(truth)
        }
        Expr::Quantified { op, left, array, all } => {
            let (left, array) = (eval(ctx, env, left)?, eval(ctx, env, array)?);
            match array {
                Value::Null => Value::Null,
                array => quantified(*op, &left, array.elements().iter().cloned(), *all)?,
            }
        }
        Expr::QuantifiedQuery { op, left, query, all } => {
            let left = eval(ctx, env, left)?;
            let rows = run_cached(ctx, env, query)?;
            // A row on the left meets rows of as many columns, else there is one column.
            let wide = matches!(left, Value::Record(_));
            let values =
                rows.iter().map(|row| if wide { Value::Record(row.as_slice().into()) } else { row[0].clone() });
            quantified(*op, &left, values, *all)?
        }
        Expr::Coalesce(parts) => {
            for part in parts {
                let value = eval(ctx, env, part)?;
                if !value.is_null() {
                    return Ok(value);
                }
            }
            Value::Null
        }
        Expr::Array(parts) => Value::Array(eval_all(ctx, env, parts)?.into()),
        Expr::Record(parts) => Value::Record(eval_all(ctx, env, parts)?.into()),
        Expr::Subscript { array, index, lower } => {
            let (array, index) = (eval(ctx, env, array)?, eval(ctx, env, index)?);
            let at = index.as_int().and_then(|index| usize::try_from(index.checked_sub(*lower)?).ok());
            at.and_then(|at| array.elements().get(at)).cloned().unwrap_or(Value::Null)
        }
        Expr::Slice { array, start, end } => slice(ctx, env, array, start.as_deref(), end.as_deref())?,
        Expr::Field(record, index) => {
            let record = eval(ctx, env, record)?;
            record.elements().get(*index).cloned().unwrap_or(Value::Null)
        }
        Expr::Scalar(query) => {
            let rows = run_cached(ctx, env, query)?;
            if rows.len() > 1 {
                let message = "more than one row returned by a subquery used as an expression";
                return Err(Error::new(SqlState::CARDINALITY_VIOLATION, message));
            }
            rows.first().map_or(Value::Null, |row| row[0].clone())
        }
        Expr::Exists(query) => Value::Bool(!run_cached(ctx, env, query)?.is_empty()),
        Expr::ArrayQuery(query) => Value::array(first_column(ctx, env, query)?),
        Expr::Const(_) | Expr::Column { .. } | Expr::Binary { .. } | Expr::Cast { .. } => {
            unreachable!("evaluated above")
        }
        Expr::Call(..) | Expr::And(_) | Expr::Or(_) | Expr::Case { .. } => unreachable!("evaluated above"),
    })
}

pub(super) fn eval_all(ctx: &mut Context, env: &Env, exprs: &[Expr]) -> Result<Row> {
    exprs.iter().map(|expr| eval(ctx, env, expr)).collect()
}

/// All of them true.
pub(super) fn holds(ctx: &mut Context, env: &Env, conjuncts: &[Expr]) -> Result<bool> {
    for conjunct in conjuncts {
        if !eval(ctx, env, conjunct)?.is_true() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn column(env: &Env, up: usize, index: usize) -> Value {
    let mut env = env;
    for _ in 0..up {
        env = env.parent.expect("the binder counts levels");
    }
    assert!(index >= env.base && index - env.base < env.row.len(), "column {index} is outside its level's row");
    env.row[index - env.base].clone()
}

fn param(ctx: &mut Context, index: usize, ty: &PgType) -> Result<Value> {
    let missing = || Error::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${}", index + 1));
    let value = ctx.params.get(index).cloned().ok_or_else(missing)?;
    match (&value, ty) {
        // Sent as text where its type was left open.
        (Value::Text(_), ty) => cast(ctx, value, &PgType::Unknown, ty),
        (Value::Array(_), PgType::Array(_)) => cast(ctx, value, &PgType::Array(Box::new(PgType::Unknown)), ty),
        _ => Ok(value),
    }
}

pub(super) fn host_rows(ctx: &mut Context, env: &Env, call: &HostCall) -> Result<Vec<Row>> {
    let mut args = Vec::with_capacity(call.args.len());
    for (name, expr, ty) in &call.args {
        let value = eval(ctx, env, expr)?;
        args.push(Argument { name: name.clone(), value, ty: ty.clone() });
    }
    let rows = ctx.host.call(call.schema.as_deref(), &call.name, &args)?;
    ctx.make(rows.len())?;
    Ok(rows)
}

fn first_column(ctx: &mut Context, env: &Env, query: &Query) -> Result<Vec<Value>> {
    Ok(run_cached(ctx, env, query)?.iter().map(|row| row[0].clone()).collect())
}

fn slice(ctx: &mut Context, env: &Env, array: &Expr, start: Option<&Expr>, end: Option<&Expr>) -> Result<Value> {
    let array = eval(ctx, env, array)?;
    let len = array.elements().len() as i64;
    let mut bound = |expr: Option<&Expr>, default: i64| match expr {
        Some(expr) => Ok::<_, Error>(eval(ctx, env, expr)?.as_int().unwrap_or(default)),
        None => Ok(default),
    };
    let start = bound(start, 1)?.max(1);
    let end = bound(end, len)?.min(len);
    Ok(match array {
        Value::Null => Value::Null,
        _ if start > end => Value::array([]),
        array => Value::array(array.elements()[start as usize - 1..end as usize].iter().cloned()),
    })
}

/// Three-valued AND (`decisive` false) or OR (`decisive` true).
fn connective(ctx: &mut Context, env: &Env, parts: &[Expr], decisive: bool) -> Result<Value> {
    let mut unknown = false;
    for part in parts {
        match eval(ctx, env, part)? {
            Value::Bool(b) if b == decisive => return Ok(Value::Bool(decisive)),
            Value::Bool(_) => {}
            _ => unknown = true,
        }
    }
    Ok(if unknown { Value::Null } else { Value::Bool(!decisive) })
}

fn or(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

fn from_truth(truth: Option<bool>) -> Value {
    truth.map_or(Value::Null, Value::Bool)
}

fn quantified(op: Op, left: &Value, values: impl Iterator<Item = Value>, all: bool) -> Result<Value> {
    let mut truth = Some(false);
    for value in values {
        let one = match operators::apply(op, left.clone(), value)? {
            Value::Bool(b) => Some(b),
            _ => None,
        };
        // ALL is "none does not".
        truth = or(truth, if all { one.map(|b| !b) } else { one });
        if truth == Some(true) {
            break;
        }
    }
    Ok(from_truth(if all { truth.map(|b| !b) } else { truth }))
}
