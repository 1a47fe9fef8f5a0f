//! Queries: table expressions, then the body, then order and limit. A SELECT goes FROM, WHERE, GROUP BY, HAVING, windows,
//! set-returning calls, ORDER BY with projection, DISTINCT.

use super::eval::{eval, eval_all, holds};
use super::{Context, Env, aggregate, source};
use crate::pgcatalog::tree::{Body, Cte, Distinct, Query, Select, SetOp, Slot, SortBy, SortKey};
use crate::pgcatalog::value::{Row, Value};
use proto::{Error, Result, SqlState};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// `outer` is the row of the level around the query, when there is one.
pub(crate) fn run(ctx: &mut Context, outer: Option<&Env>, query: &Query) -> Result<Vec<Row>> {
    for cte in &query.ctes {
        run_cte(ctx, outer, cte)?;
    }
    let env = outer.unwrap_or(&Env::EMPTY);
    let mut rows = match &query.body {
        Body::Select(body) => select(ctx, outer, body)?,
        Body::Values(rows) => rows.iter().map(|row| eval_all(ctx, env, row)).collect::<Result<_>>()?,
        Body::Query(inner) => run(ctx, outer, inner)?,
        Body::Set { op, all, left, right } => {
            let (left, right) = (run(ctx, outer, left)?, run(ctx, outer, right)?);
            set_operation(*op, *all, left, right)
        }
    };
    ctx.make(rows.len())?;
    if !query.order.is_empty() {
        rows.sort_by(|a, b| order_rows(a, b, &query.order));
    }
    let mut count = |expr: &Option<_>, what: &str| match expr {
        Some(expr) => match eval(ctx, env, expr)?.as_int() {
            Some(n) if n < 0 => Err(Error::new(SqlState::new("2201W"), format!("{what} must not be negative"))),
            n => Ok(n.map(|n| n as usize)),
        },
        None => Ok(None),
    };
    let offset = count(&query.offset, "OFFSET")?.unwrap_or(0);
    let limit = count(&query.limit, "LIMIT")?.unwrap_or(usize::MAX);
    if offset > 0 {
        rows.drain(..offset.min(rows.len()));
    }
    rows.truncate(limit);
    Ok(rows)
}

/// Runs a query once in the statement, unless it depends on what is around it.
pub(super) fn run_cached(ctx: &mut Context, env: &Env, query: &Query) -> Result<Arc<Vec<Row>>> {
    if query.correlated {
        return Ok(Arc::new(run(ctx, Some(env), query)?));
    }
    if let Some(rows) = ctx.queries.get(&query.id) {
        return Ok(rows.clone());
    }
    let rows = Arc::new(run(ctx, Some(env), query)?);
    ctx.queries.insert(query.id, rows.clone());
    Ok(rows)
}

fn run_cte(ctx: &mut Context, outer: Option<&Env>, cte: &Cte) -> Result<()> {
    let mut all = run(ctx, outer, &cte.query)?;
    if let Some((step, keep_equal)) = &cte.recursive {
        let mut seen = HashSet::new();
        if !keep_equal {
            all.retain(|row| seen.insert(row.clone()));
        }
        let mut working = all.clone();
        while !working.is_empty() {
            ctx.ctes.insert(cte.slot, Arc::new(working));
            working = run(ctx, outer, step)?;
            if !keep_equal {
                working.retain(|row| seen.insert(row.clone()));
            }
            ctx.make(working.len())?;
            all.extend(working.iter().cloned());
        }
    }
    ctx.ctes.insert(cte.slot, Arc::new(all));
    Ok(())
}

fn set_operation(op: SetOp, all: bool, left: Vec<Row>, right: Vec<Row>) -> Vec<Row> {
    if op == SetOp::Union {
        let mut rows = left;
        rows.extend(right);
        if !all {
            distinct(&mut rows);
        }
        return rows;
    }
    let mut counts: HashMap<Row, usize> = HashMap::new();
    right.into_iter().for_each(|row| *counts.entry(row).or_default() += 1);
    let mut rows = left;
    if !all {
        distinct(&mut rows);
    }
    rows.retain(|row| {
        let count = counts.get_mut(row);
        let found = count.as_ref().is_some_and(|count| **count > 0);
        if let (true, true, Some(count)) = (all, found, count) {
            *count -= 1;
        }
        found == (op == SetOp::Intersect)
    });
    rows
}

fn distinct(rows: &mut Vec<Row>) {
    let mut seen = HashSet::new();
    rows.retain(|row| seen.insert(row.clone()));
}

fn select(ctx: &mut Context, outer: Option<&Env>, select: &Select) -> Result<Vec<Row>> {
    let start = Env { row: &[], base: 0, parent: outer };
    let mut rows = match &select.from {
        Some(from) => source::rows(ctx, &start, from)?,
        None => vec![Vec::new()],
    };
    retain(ctx, outer, &mut rows, &select.filter)?;
    let width = select.from_width + select.slots.len();
    match &select.group {
        Some(keys) => rows = aggregate::group(ctx, outer, select, keys, rows)?,
        None => rows.iter_mut().for_each(|row| row.resize(width, Value::Null)),
    }
    if let Some(having) = &select.having {
        retain(ctx, outer, &mut rows, std::slice::from_ref(having))?;
    }
    for (at, slot) in select.slots.iter().enumerate() {
        if let Slot::Window(window) = slot {
            aggregate::window(ctx, outer, window, select.from_width + at, &mut rows)?;
        }
    }
    let rows = expand_sets(ctx, outer, select, rows)?;
    project(ctx, outer, select, rows)
}

fn retain(
    ctx: &mut Context,
    outer: Option<&Env>,
    rows: &mut Vec<Row>,
    conjuncts: &[super::super::tree::Expr],
) -> Result<()> {
    if conjuncts.is_empty() {
        return Ok(());
    }
    let mut failure = None;
    rows.retain(|row| {
        failure.is_none()
            && holds(ctx, &Env { row, base: 0, parent: outer }, conjuncts).unwrap_or_else(|error| {
                failure = Some(error);
                false
            })
    });
    failure.map_or(Ok(()), Err)
}

/// Set-returning calls of one select list run side by side; the row is repeated as often as the longest has rows.
fn expand_sets(ctx: &mut Context, outer: Option<&Env>, select: &Select, rows: Vec<Row>) -> Result<Vec<Row>> {
    let sets = || {
        let slots = select.slots.iter().enumerate();
        slots.filter_map(|(at, slot)| match slot {
            Slot::Set { call, columns_count } => Some((select.from_width + at, call, *columns_count)),
            _ => None,
        })
    };
    if sets().next().is_none() {
        return Ok(rows);
    }
    let mut expanded = Vec::new();
    for row in rows {
        let mut parts = Vec::new();
        for (at, call, columns_count) in sets() {
            let env = Env { row: &row, base: 0, parent: outer };
            parts.push((at, source::table_call(ctx, &env, call)?, columns_count));
        }
        let longest = parts.iter().map(|(_, rows, _)| rows.len()).max().unwrap_or(0);
        for step in 0..longest {
            let mut copy = row.clone();
            for (at, values, columns_count) in &parts {
                copy[*at] = match values.get(step) {
                    None => Value::Null,
                    Some(values) if *columns_count == 1 => values[0].clone(),
                    Some(values) => Value::Record(values.as_slice().into()),
                };
            }
            expanded.push(copy);
        }
    }
    ctx.make(expanded.len())?;
    Ok(expanded)
}

fn project(ctx: &mut Context, outer: Option<&Env>, select: &Select, rows: Vec<Row>) -> Result<Vec<Row>> {
    let mut keyed: Vec<(Row, Row, Row)> = Vec::with_capacity(rows.len());
    for row in rows {
        let env = Env { row: &row, base: 0, parent: outer };
        let output = eval_all(ctx, &env, &select.projection)?;
        let keys = select.order.iter().map(|key| match &key.by {
            SortBy::Output(index) => Ok(output[*index].clone()),
            SortBy::Expr(expr) => eval(ctx, &env, expr),
        });
        let keys = keys.collect::<Result<Row>>()?;
        let on = match &select.distinct {
            Distinct::On(exprs) => eval_all(ctx, &env, exprs)?,
            _ => Vec::new(),
        };
        keyed.push((output, keys, on));
    }
    if !select.order.is_empty() {
        keyed.sort_by(|a, b| order_keys(&a.1, &b.1, &select.order));
    }
    let mut seen = HashSet::new();
    match select.distinct {
        Distinct::No => {}
        Distinct::Yes => keyed.retain(|(output, ..)| seen.insert(output.clone())),
        Distinct::On(_) => keyed.retain(|(.., on)| seen.insert(on.clone())),
    }
    Ok(keyed.into_iter().map(|(output, ..)| output).collect())
}

fn order_rows(a: &Row, b: &Row, keys: &[SortKey]) -> Ordering {
    let at = |row: &Row, key: &SortKey| match key.by {
        SortBy::Output(index) => row[index].clone(),
        SortBy::Expr(_) => Value::Null,
    };
    let order = keys.iter().map(|key| order_one(&at(a, key), &at(b, key), key));
    order.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Two rows' sort keys, already evaluated.
pub(super) fn order_keys(a: &[Value], b: &[Value], keys: &[SortKey]) -> Ordering {
    let order = a.iter().zip(b).zip(keys).map(|((a, b), key)| order_one(a, b, key));
    order.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn order_one(a: &Value, b: &Value, key: &SortKey) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) if key.nulls_first => Ordering::Less,
        (true, false) => Ordering::Greater,
        (false, true) if key.nulls_first => Ordering::Greater,
        (false, true) => Ordering::Less,
        _ if key.descending => b.order(a),
        _ => a.order(b),
    }
}
