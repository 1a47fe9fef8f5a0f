//! Groups, aggregates and the few window functions catalog queries use.
//!
//! A group is represented by its first row, with the aggregates in their slots: a column that is not grouped reads that
//! row. PostgreSQL refuses such columns unless a primary key determines them; here they are let through.

use super::eval::{eval, eval_all};
use super::query::order_keys;
use super::{Context, Env};
use crate::pgcatalog::cast::{numeric_text, output, to_text};
use crate::pgcatalog::tree::{Aggregate, AggregateKind, Expr, Select, Slot, SortBy, SortKey, Window, WindowKind};
use crate::pgcatalog::value::{Row, Value};
use engine::PgType;
use proto::{Error, Result, SqlState};
use std::collections::{HashMap, HashSet};

pub(super) fn group(
    ctx: &mut Context,
    outer: Option<&Env>,
    select: &Select,
    keys: &[Expr],
    rows: Vec<Row>,
) -> Result<Vec<Row>> {
    let mut positions: HashMap<Row, usize> = HashMap::new();
    let mut groups: Vec<Vec<Row>> = Vec::new();
    for row in rows {
        let key = eval_all(ctx, &Env { row: &row, base: 0, parent: outer }, keys)?;
        let at = *positions.entry(key).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Vec::new());
        }
        groups[at].push(row);
    }
    if keys.is_empty() && groups.is_empty() {
        groups.push(Vec::new());
    }
    let width = select.from_width + select.slots.len();
    let mut grouped = Vec::with_capacity(groups.len());
    for members in groups {
        let mut row = members.first().cloned().unwrap_or_default();
        row.resize(width, Value::Null);
        for (at, slot) in select.slots.iter().enumerate() {
            if let Slot::Aggregate(aggregate) = slot {
                row[select.from_width + at] = compute(ctx, outer, aggregate, &members)?;
            }
        }
        grouped.push(row);
    }
    Ok(grouped)
}

fn compute(ctx: &mut Context, outer: Option<&Env>, aggregate: &Aggregate, members: &[Row]) -> Result<Value> {
    let mut inputs: Vec<(Row, Row)> = Vec::new();
    for row in members {
        let env = Env { row, base: 0, parent: outer };
        if let Some(filter) = &aggregate.filter
            && !eval(ctx, &env, filter)?.is_true()
        {
            continue;
        }
        let args = eval_all(ctx, &env, &aggregate.args)?;
        inputs.push((args, sort_values(ctx, &env, &aggregate.order)?));
    }
    if !aggregate.order.is_empty() {
        inputs.sort_by(|a, b| order_keys(&a.1, &b.1, &aggregate.order));
    }
    let mut inputs: Vec<Row> = inputs.into_iter().map(|(args, _)| args).collect();
    if aggregate.distinct {
        let mut seen = HashSet::new();
        inputs.retain(|args| seen.insert(args.clone()));
    }
    finish(ctx, aggregate, &inputs)
}

fn finish(ctx: &mut Context, aggregate: &Aggregate, inputs: &[Row]) -> Result<Value> {
    let values = || inputs.iter().filter_map(|args| args.first()).filter(|value| !value.is_null());
    Ok(match aggregate.kind {
        AggregateKind::CountRows => Value::Int(inputs.len() as i64),
        AggregateKind::Count => Value::Int(values().count() as i64),
        AggregateKind::Min => values().min_by(|a, b| a.order(b)).cloned().unwrap_or(Value::Null),
        AggregateKind::Max => values().max_by(|a, b| a.order(b)).cloned().unwrap_or(Value::Null),
        AggregateKind::BoolAnd if values().next().is_some() => Value::Bool(values().all(Value::is_true)),
        AggregateKind::BoolOr if values().next().is_some() => Value::Bool(values().any(Value::is_true)),
        AggregateKind::ArrayAgg if !inputs.is_empty() => Value::array(inputs.iter().map(|args| args[0].clone())),
        AggregateKind::Sum => sum(values(), &aggregate.ty)?,
        AggregateKind::Avg => {
            let (total, count) = values()
                .fold((0.0, 0u64), |(total, count), value| (total + value.as_float().unwrap_or_default(), count + 1));
            if count == 0 { Value::Null } else { Value::Float(total / count as f64) }
        }
        AggregateKind::StringAgg => {
            let mut text: Option<String> = None;
            for args in inputs.iter().filter(|args| !args[0].is_null()) {
                match &mut text {
                    None => text = Some(args[0].as_str().to_owned()),
                    Some(text) => {
                        text.push_str(args.get(1).map_or("", Value::as_str));
                        text.push_str(args[0].as_str());
                    }
                }
            }
            Value::opt_text(text)
        }
        AggregateKind::JsonAgg if !inputs.is_empty() => {
            let parts = inputs.iter().map(|args| json(ctx, &args[0], &aggregate.ty)).collect::<Result<Vec<_>>>()?;
            Value::text(format!("[{}]", parts.join(", ")))
        }
        _ => Value::Null,
    })
}

fn sum<'v>(values: impl Iterator<Item = &'v Value>, ty: &PgType) -> Result<Value> {
    let overflow = || Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range");
    let mut total: Option<Value> = None;
    for value in values {
        total = Some(match (total, value) {
            (None, Value::Int(n)) if *ty == PgType::Int8 => Value::Numeric(*n as i128, 0),
            (None, value) => value.clone(),
            (Some(Value::Int(a)), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(overflow)?),
            (Some(Value::Numeric(a, 0)), Value::Int(b)) => Value::Numeric(a + *b as i128, 0),
            (Some(Value::Numeric(a, scale)), Value::Numeric(b, other)) if scale == *other => {
                Value::Numeric(a + b, scale)
            }
            (Some(a), b) => Value::Float(a.as_float().unwrap_or_default() + b.as_float().unwrap_or_default()),
        });
    }
    Ok(total.unwrap_or(Value::Null))
}

/// A value as JSON text.
pub(crate) fn json(ctx: &mut Context, value: &Value, ty: &PgType) -> Result<String> {
    Ok(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) if !crate::pgcatalog::schema::is_reg(ty) => n.to_string(),
        Value::Numeric(n, scale) => numeric_text(*n, *scale),
        Value::Float(f) if f.is_finite() => to_text(ctx, &Value::Float(*f), &PgType::Float8)?,
        Value::Text(text) if matches!(ty, PgType::Json | PgType::Jsonb) => text.to_string(),
        Value::Array(values) => {
            let inner = crate::pgcatalog::cast::element(ty).unwrap_or(PgType::Text);
            let parts = values.iter().map(|value| json(ctx, value, &inner)).collect::<Result<Vec<_>>>()?;
            format!("[{}]", parts.join(","))
        }
        value => serde_json::Value::String(output(ctx, value, ty)?).to_string(),
    })
}

fn sort_values(ctx: &mut Context, env: &Env, keys: &[SortKey]) -> Result<Row> {
    let exprs = keys.iter().map(|key| match &key.by {
        SortBy::Expr(expr) => eval(ctx, env, expr),
        SortBy::Output(_) => Ok(Value::Null),
    });
    exprs.collect()
}

/// Fills one slot of every row.
pub(super) fn window(
    ctx: &mut Context,
    outer: Option<&Env>,
    window: &Window,
    slot: usize,
    rows: &mut [Row],
) -> Result<()> {
    let mut partitions: HashMap<Row, Vec<(Row, usize)>> = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        let env = Env { row, base: 0, parent: outer };
        let key = eval_all(ctx, &env, &window.partition)?;
        let order = sort_values(ctx, &env, &window.order)?;
        partitions.entry(key).or_default().push((order, at));
    }
    for mut members in partitions.into_values() {
        members.sort_by(|a, b| order_keys(&a.0, &b.0, &window.order));
        let (mut rank, mut dense) = (0, 0);
        for (position, (order, at)) in members.iter().enumerate() {
            if position == 0 || members[position - 1].0 != *order {
                (rank, dense) = (position + 1, dense + 1);
            }
            rows[*at][slot] = Value::Int(match window.kind {
                WindowKind::RowNumber => position + 1,
                WindowKind::Rank => rank,
                WindowKind::DenseRank => dense,
                WindowKind::Count => members.len(),
            } as i64);
        }
    }
    Ok(())
}
