//! FROM items and joins. A relation is read through an index when a conjunct fixes one of its columns; joins hash the
//! right side when they have an equality, and loop where they have none or the right side is lateral.

use super::eval::{eval, eval_all, holds, host_rows};
use super::query::{run, run_cached};
use super::{Context, Env};
use crate::pgcatalog::schema::RelationDef;
use crate::pgcatalog::tree::{Expr, Join, JoinKind, Op, Source, SourceKind, TableCall};
use crate::pgcatalog::value::{Row, Value};
use proto::Result;
use std::collections::HashMap;
use std::sync::Arc;

/// `env` is the level's own: empty at first, then the row of the items to the left.
pub(super) fn rows(ctx: &mut Context, env: &Env, source: &Source) -> Result<Vec<Row>> {
    let all = match &source.kind {
        SourceKind::Relation(def) => return scan(ctx, env, source, def),
        SourceKind::Cte(slot) => ctx.ctes.get(slot).cloned().expect("table expressions run before their readers"),
        SourceKind::Query(query) if source.lateral => Arc::new(run(ctx, Some(env), query)?),
        SourceKind::Query(query) => run_cached(ctx, env, query)?,
        SourceKind::Calls { calls, ordinality } => Arc::new(call_rows(ctx, env, calls, *ordinality)?),
        SourceKind::Join { join: spec, left, right } => Arc::new(join(ctx, env, spec, left, right)?),
    };
    if source.filter.is_empty() {
        return Ok(Arc::unwrap_or_clone(all));
    }
    filter(ctx, env, source, all.iter().cloned())
}

/// The level's row with one more item: what the item's conjuncts may read.
fn with_item<T>(env: &Env, base: usize, row: &[Value], then: impl FnOnce(&Env) -> T) -> T {
    // Items to the left end where this one begins, or the item reads none of them.
    if env.row.is_empty() || env.base + env.row.len() != base {
        return then(&Env { row, base, parent: env.parent });
    }
    let joined: Row = env.row.iter().chain(row).cloned().collect();
    then(&Env { row: &joined, base: env.base, parent: env.parent })
}

fn filter(ctx: &mut Context, env: &Env, source: &Source, rows: impl Iterator<Item = Row>) -> Result<Vec<Row>> {
    let mut kept = Vec::new();
    for row in rows {
        if with_item(env, source.base, &row, |env| holds(ctx, env, &source.filter))? {
            kept.push(row);
        }
    }
    ctx.make(kept.len())?;
    Ok(kept)
}

fn scan(ctx: &mut Context, env: &Env, source: &Source, def: &Arc<RelationDef>) -> Result<Vec<Row>> {
    let fixed = source.filter.iter().find_map(|conjunct| fixed_column(conjunct, source));
    let rows = ctx.relation(def);
    match fixed {
        Some((column, key)) => {
            let key = eval(ctx, env, key)?;
            if key.is_null() {
                return Ok(Vec::new());
            }
            let index = ctx.index(def, column);
            let found = index.get(&key).map_or(&[][..], Vec::as_slice);
            filter(ctx, env, source, found.iter().map(|at| rows[*at as usize].clone()))
        }
        None if source.filter.is_empty() => {
            ctx.make(rows.len())?;
            Ok(rows.to_vec())
        }
        None => filter(ctx, env, source, rows.iter().cloned()),
    }
}

/// `column = expression` where the expression reads nothing of this level.
fn fixed_column<'e>(conjunct: &'e Expr, source: &Source) -> Option<(usize, &'e Expr)> {
    let Expr::Binary { op: Op::Eq, left, right } = conjunct else { return None };
    let own = |expr: &Expr| match expr {
        Expr::Column { up: 0, index } if *index >= source.base => Some(index - source.base),
        _ => None,
    };
    let outside = |expr: &Expr| match expr {
        Expr::Column { up, .. } => *up > 0,
        Expr::Const(_) | Expr::Param(..) => true,
        Expr::Cast { expr, .. } => matches!(**expr, Expr::Const(_) | Expr::Param(..)),
        Expr::Scalar(query) => !query.correlated,
        _ => false,
    };
    match (own(left), own(right)) {
        (Some(column), _) if outside(right) => Some((column, right)),
        (_, Some(column)) if outside(left) => Some((column, left)),
        _ => None,
    }
}

/// Several calls (`ROWS FROM`, `unnest(a, b)`) run side by side; the shorter ones end in NULLs.
fn call_rows(ctx: &mut Context, env: &Env, calls: &[(TableCall, usize)], ordinality: bool) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut width = 0;
    for (call, columns_count) in calls {
        let part = table_call(ctx, env, call)?;
        for at in 0..rows.len().max(part.len()) {
            if at == rows.len() {
                rows.push(vec![Value::Null; width]);
            }
            match part.get(at) {
                Some(values) => rows[at].extend(values.iter().cloned()),
                None => rows[at].extend(std::iter::repeat_n(Value::Null, *columns_count)),
            }
        }
        width += columns_count;
    }
    if ordinality {
        rows.iter_mut().enumerate().for_each(|(at, row)| row.push(Value::Int(at as i64 + 1)));
    }
    Ok(rows)
}

pub(super) fn table_call(ctx: &mut Context, env: &Env, call: &TableCall) -> Result<Vec<Row>> {
    let rows = match call {
        TableCall::Set(function, args) => {
            let args = eval_all(ctx, env, args)?;
            match args.iter().any(Value::is_null) {
                true => Vec::new(),
                false => (function.eval)(ctx, &args)?,
            }
        }
        TableCall::Host(call) => return host_rows(ctx, env, call),
        TableCall::Scalar(expr) => vec![vec![eval(ctx, env, expr)?]],
    };
    ctx.make(rows.len())?;
    Ok(rows)
}

fn join(ctx: &mut Context, env: &Env, spec: &Join, left: &Source, right: &Source) -> Result<Vec<Row>> {
    let left_rows = rows(ctx, env, left)?;
    if right.lateral {
        return loop_lateral(ctx, env, spec, &left_rows, left, right);
    }
    let right_rows = rows(ctx, env, right)?;
    let table = match spec.keys.is_empty() {
        true => None,
        false => Some(hash_right(ctx, env, spec, &right_rows, right.base)?),
    };
    let everything: Vec<u32> = if table.is_none() { (0..right_rows.len() as u32).collect() } else { Vec::new() };
    let mut right_met = vec![false; right_rows.len()];
    let mut joined = Vec::new();
    let keep_left = matches!(spec.kind, JoinKind::Left | JoinKind::Full);
    for left_row in &left_rows {
        let candidates: &[u32] = match &table {
            Some(table) => {
                let keys = || spec.keys.iter().map(|(key, _)| key);
                let key = with_item(env, left.base, left_row, |env| {
                    keys().map(|key| eval(ctx, env, key)).collect::<Result<Row>>()
                })?;
                table.get(&key).map_or(&[][..], Vec::as_slice)
            }
            None => &everything,
        };
        let mut met = false;
        for at in candidates {
            let row: Row = left_row.iter().chain(&right_rows[*at as usize]).cloned().collect();
            if with_item(env, left.base, &row, |env| holds(ctx, env, &spec.rest))? {
                (met, right_met[*at as usize]) = (true, true);
                ctx.make(1)?;
                joined.push(row);
            }
        }
        if !met && keep_left {
            joined.push(padded(left_row, right.width));
        }
    }
    if matches!(spec.kind, JoinKind::Right | JoinKind::Full) {
        let unmet = right_rows.iter().zip(&right_met).filter(|(_, met)| !**met);
        let nulls = || std::iter::repeat_n(Value::Null, left.width);
        joined.extend(unmet.map(|(row, _)| nulls().chain(row.iter().cloned()).collect::<Row>()));
    }
    Ok(joined)
}

fn padded(left: &Row, width: usize) -> Row {
    left.iter().cloned().chain(std::iter::repeat_n(Value::Null, width)).collect()
}

/// Rows with a NULL key match nothing and stay out.
fn hash_right(ctx: &mut Context, env: &Env, spec: &Join, right: &[Row], base: usize) -> Result<HashMap<Row, Vec<u32>>> {
    let mut table: HashMap<Row, Vec<u32>> = HashMap::new();
    for (at, row) in right.iter().enumerate() {
        let env = Env { row, base, parent: env.parent };
        let key = spec.keys.iter().map(|(_, key)| eval(ctx, &env, key)).collect::<Result<Row>>()?;
        if !key.iter().any(Value::is_null) {
            table.entry(key).or_default().push(at as u32);
        }
    }
    Ok(table)
}

fn loop_lateral(
    ctx: &mut Context,
    env: &Env,
    spec: &Join,
    left_rows: &[Row],
    left: &Source,
    right: &Source,
) -> Result<Vec<Row>> {
    let mut joined = Vec::new();
    for left_row in left_rows {
        let mut met = false;
        for right_row in with_item(env, left.base, left_row, |env| rows(ctx, env, right))? {
            let row: Row = left_row.iter().cloned().chain(right_row).collect();
            if with_item(env, left.base, &row, |env| holds(ctx, env, &spec.rest))? {
                met = true;
                ctx.make(1)?;
                joined.push(row);
            }
        }
        if !met && matches!(spec.kind, JoinKind::Left | JoinKind::Full) {
            joined.push(padded(left_row, right.width));
        }
    }
    Ok(joined)
}
