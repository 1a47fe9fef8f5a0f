//! The analyzer rule that finds aggregations by `time_bucket_gapfill`. It comes last, when every name and type is known
//! and WHERE still stands where it was written.

use super::filling::{Fill, How};
use super::node::{Bound, GapFill};
use super::range::{bounds, column_of, is_null, is_simple};
use super::{RANGE_HINT, invalid};
use crate::functions::gapfill::{BUCKET, BUCKET_WITHIN, INTERPOLATE, LOCF, zone_and_range};
use crate::functions::{call, raise};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Extension, Filter, LogicalPlan, Projection, Sort, Union, Window, when,
};
use datafusion::optimizer::AnalyzerRule;
use proto::{Error, SqlState};
use std::sync::Arc;

#[derive(Debug)]
pub struct FillGaps;

impl AnalyzerRule for FillGaps {
    fn name(&self) -> &str {
        "fill_gaps"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut any = false;
        plan.apply_with_subqueries(|node| {
            any |= matches!(node, LogicalPlan::Aggregate(aggregate)
                if aggregate.group_expr.iter().chain(&aggregate.aggr_expr).any(|expr| calls(expr, is_bucket) > 0));
            Ok(if any { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !any {
            return Ok(plan);
        }
        let mut filled = false;
        plan.transform_up_with_subqueries(|node| {
            let node = rewritten(node)?;
            filled |= node.transformed;
            // What could not be NULL can be in a gap.
            match filled {
                true => Ok(Transformed::yes(with_schema_anew(node.data)?)),
                false => Ok(node),
            }
        })
        .data()
    }
}

fn with_schema_anew(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Union(union) => Ok(LogicalPlan::Union(Union::try_new(union.inputs)?)),
        other => other.recompute_schema(),
    }
}

fn is_bucket(call: &ScalarFunction) -> bool {
    matches!(call.name(), BUCKET | BUCKET_WITHIN)
}

fn is_marker(call: &ScalarFunction) -> bool {
    matches!(call.name(), LOCF | INTERPOLATE)
}

/// How many calls of a kind there are in `expr`.
fn calls(expr: &Expr, kind: fn(&ScalarFunction) -> bool) -> usize {
    let mut count = 0;
    let counted = expr.apply(|part| {
        count += usize::from(matches!(part, Expr::ScalarFunction(call) if kind(call)));
        Ok(TreeNodeRecursion::Continue)
    });
    counted.map_or(0, |_| count)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(SqlState::FEATURE_NOT_SUPPORTED, message.into())
}

fn rewritten(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate),
        LogicalPlan::Filter(filter) => match gap_fill(&filter.input) {
            // HAVING: groups it drops are gaps.
            Some(fill) => {
                let having = Filter::try_new(filter.predicate, Arc::new(fill.input.clone()))?;
                Ok(Transformed::yes(extension(fill.clone().over(LogicalPlan::Filter(having), Vec::new())?)))
            }
            None => Ok(Transformed::no(LogicalPlan::Filter(filter))),
        },
        LogicalPlan::Window(window) if over_gap_fill(&window.input) => {
            let (exprs, columns) = replaced(window.window_expr, &window.input)?;
            let input = with_columns(Arc::unwrap_or_clone(window.input), &columns)?;
            Ok(Transformed::yes(LogicalPlan::Window(Window::try_new(exprs, Arc::new(input))?)))
        }
        LogicalPlan::Projection(projection) if over_gap_fill(&projection.input) => {
            let (exprs, columns) = replaced(projection.expr, &projection.input)?;
            let input = with_columns(Arc::unwrap_or_clone(projection.input), &columns)?;
            Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?)))
        }
        LogicalPlan::Sort(sort) if sort.expr.iter().any(|key| calls(&key.expr, is_marker) > 0) => sorted(sort),
        other => Ok(Transformed::no(other)),
    }
}

fn extension(fill: GapFill) -> LogicalPlan {
    LogicalPlan::Extension(Extension { node: Arc::new(fill) })
}

fn gap_fill(plan: &LogicalPlan) -> Option<&GapFill> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

/// In the query that groups, below its select list: only windows lie between.
fn over_gap_fill(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Window(window) => over_gap_fill(&window.input),
        other => gap_fill(other).is_some(),
    }
}

/// An aggregation by the bucket becomes one by `time_bucket` whose gaps are filled.
fn grouped(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let count = |exprs: &[Expr], kind| exprs.iter().map(|expr| calls(expr, kind)).sum::<usize>();
    let all = count(&aggregate.group_expr, is_bucket) + count(&aggregate.aggr_expr, is_bucket);
    if all == 0 || aggregate.group_expr.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    if all > 1 {
        return Err(raise(unsupported("multiple time_bucket_gapfill calls not allowed")));
    }
    if matches!(aggregate.group_expr[..], [Expr::GroupingSet(_)]) {
        return Err(raise(unsupported("time_bucket_gapfill with GROUPING SETS is not supported")));
    }
    let position = aggregate.group_expr.iter().position(|expr| bucket_call(expr).is_some());
    let Some(time) = position else {
        return Err(raise(unsupported("no top level time_bucket_gapfill in group by clause")));
    };
    if let Some(marker) = aggregate.aggr_expr.iter().find_map(marker_of) {
        return Err(raise(unsupported(format!("aggregate functions must be below {marker}"))));
    }
    let call_of_bucket = bucket_call(&aggregate.group_expr[time]).expect("found at this position").clone();
    let Aggregate { input, mut group_expr, aggr_expr, schema, .. } = aggregate;
    let types = call_of_bucket.args.iter().map(|arg| arg.get_type(input.schema())).collect::<Result<Vec<_>>>()?;
    let (zone, range) = zone_and_range(&types);
    let args = &call_of_bucket.args;
    let (width, ts, zone) = (args[0].clone(), args[1].clone(), zone.map(|zone| args[zone].clone()));
    simple(&width, "bucket_width")?;
    zone.iter().try_for_each(|zone| simple(zone, "timezone"))?;
    let (start, finish) = range_of(&args[range], &ts, &input)?;

    let bucket = call("time_bucket", [width.clone(), ts].into_iter().chain(zone.clone()).collect());
    let (qualifier, field) = schema.qualified_field(time);
    group_expr[time] = bucket.alias_qualified(qualifier.cloned(), field.name());
    let groups = (0..group_expr.len()).filter(|index| *index != time).collect();
    let inner = LogicalPlan::Aggregate(Aggregate::try_new(input, group_expr, aggr_expr)?);
    let mut fill = GapFill::new(inner, time, groups, width, zone)?;
    (fill.start, fill.finish) = (start, finish);
    Ok(Transformed::yes(extension(fill)))
}

/// The call that a group key is.
fn bucket_call(expr: &Expr) -> Option<&ScalarFunction> {
    match expr {
        Expr::Alias(alias) => bucket_call(&alias.expr),
        Expr::ScalarFunction(call) if is_bucket(call) => Some(call),
        _ => None,
    }
}

fn marker_of(expr: &Expr) -> Option<String> {
    let mut found = None;
    let looked = expr.apply(|part| match part {
        Expr::ScalarFunction(call) if is_marker(call) => {
            found = Some(call.name().to_owned());
            Ok(TreeNodeRecursion::Stop)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    });
    looked.ok().and(found)
}

fn simple(expr: &Expr, what: &str) -> Result<()> {
    match is_simple(expr) {
        true => Ok(()),
        false => Err(raise(invalid(format!("{what} must be a simple expression")))),
    }
}

/// Start and finish as they are given, else as WHERE implies them.
fn range_of(args: &[Expr], ts: &Expr, input: &LogicalPlan) -> Result<(Vec<Bound>, Vec<Bound>)> {
    let given = |index: usize, what: &str| -> Result<Option<Vec<Bound>>> {
        let Some(value) = args.get(index).filter(|arg| !is_null(arg)) else { return Ok(None) };
        simple(value, what)?;
        Ok(Some(vec![Bound { value: value.clone(), next: false }]))
    };
    let (start, finish) = (given(0, "start")?, given(1, "finish")?);
    if let (Some(start), Some(finish)) = (start.clone(), finish.clone()) {
        return Ok((start, finish));
    }
    let Some(column) = column_of(ts) else {
        let what = "ts needs to refer to a single column if no start or finish is supplied";
        return Err(raise(invalid(what).hint(RANGE_HINT)));
    };
    let found = bounds(input, column);
    let inferred = |given: Option<Vec<Bound>>, found: Vec<Bound>, what: &str| match given.unwrap_or(found) {
        bounds if bounds.is_empty() => {
            let message = format!("missing time_bucket_gapfill argument: could not infer {what} from WHERE clause");
            Err(raise(Error::new(SqlState::INVALID_PARAMETER_VALUE, message).hint(RANGE_HINT)))
        }
        bounds => Ok(bounds),
    };
    Ok((inferred(start, found.start, "start")?, inferred(finish, found.finish, "finish")?))
}

/// A column that `locf` or `interpolate` asks for.
struct Wanted {
    name: String,
    value: Expr,
    how: How,
}

/// `exprs` over `input` with columns in the place of calls, and these columns. An expression keeps its name: others refer
/// to it by that.
fn replaced(exprs: Vec<Expr>, input: &LogicalPlan) -> Result<(Vec<Expr>, Vec<Wanted>)> {
    let mut wanted = Vec::new();
    let mut replace = |expr: Expr| {
        expr.transform_down(|part| match part {
            Expr::ScalarFunction(call) if is_marker(&call) => {
                let named = Expr::ScalarFunction(call.clone()).schema_name().to_string();
                let column = column_for(&call, input, &mut wanted)?;
                Ok(Transformed::new(column.alias(named), true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    };
    let exprs = exprs.into_iter().map(&mut replace).collect::<Result<_>>()?;
    Ok((exprs, wanted))
}

fn column_for(call: &ScalarFunction, input: &LogicalPlan, wanted: &mut Vec<Wanted>) -> Result<Expr> {
    let marker = call.name();
    // Unlike the name of an expression, its text tells casts.
    let name = Expr::ScalarFunction(call.clone()).to_string();
    if call.args.iter().any(|arg| calls(arg, is_marker) > 0) {
        let message = "multiple interpolate/locf function calls per resultset column not supported";
        return Err(raise(unsupported(message)));
    }
    let rows = innermost(input);
    let value = call.args[0].clone();
    if value.column_refs().iter().any(|column| !rows.schema().has_column(column)) {
        return Err(raise(unsupported(format!("window functions must not be below {marker}"))));
    }
    let options = &call.args[1..];
    if marker == INTERPOLATE {
        if !options.iter().all(is_null) {
            return Err(raise(unsupported("interpolate with prev or next is not supported")));
        }
        wanted.push(Wanted { name: name.clone(), value, how: How::Interpolate });
        return Ok(Expr::Column(Column::new_unqualified(name)));
    }
    let over_null = match options.get(1) {
        None | Some(Expr::Literal(ScalarValue::Boolean(None) | ScalarValue::Null, _)) => false,
        Some(Expr::Literal(ScalarValue::Boolean(Some(flag)), _)) => *flag,
        Some(flag) if is_null(flag) => false,
        Some(_) => {
            let message = "invalid locf argument: treat_null_as_missing must be a BOOL literal";
            return Err(raise(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)));
        }
    };
    let Some(prev) = options.first().filter(|prev| !is_null(prev)) else {
        wanted.push(Wanted { name: name.clone(), value, how: How::Carry { over_null, marked: false } });
        return Ok(Expr::Column(Column::new_unqualified(name)));
    };
    let how = How::Carry { over_null, marked: true };
    let carried = format!("{name} carried");
    let mark = Fill { column: 0, how }.mark(&carried).expect("it was asked for");
    let column = |name: String| Expr::Column(Column::new_unqualified(name));
    let first_known = when(column(mark), prev.clone()).otherwise(column(carried.clone()))?;
    wanted.push(Wanted { name: carried, value, how });
    Ok(first_known)
}

fn innermost(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Window(window) => innermost(&window.input),
        other => other,
    }
}

/// `plan` with further columns of its `GapFill`.
fn with_columns(plan: LogicalPlan, wanted: &[Wanted]) -> Result<LogicalPlan> {
    if let LogicalPlan::Window(window) = plan {
        let input = with_columns(Arc::unwrap_or_clone(window.input), wanted)?;
        return Ok(LogicalPlan::Window(Window::try_new(window.window_expr, Arc::new(input))?));
    }
    let mut fill = gap_fill(&plan).expect("the caller looked").clone();
    for column in wanted {
        let known = Column::new_unqualified(&column.name);
        if fill.input.schema().has_column(&known) {
            continue;
        }
        let mut exprs: Vec<Expr> = fill.input.schema().columns().into_iter().map(Expr::Column).collect();
        exprs.push(column.value.clone().alias(&column.name));
        let mut fills = fill.fills.clone();
        fills.push(Fill { column: exprs.len() - 1, how: column.how });
        let input = Projection::try_new(exprs, Arc::new(fill.input.clone()))?;
        fill = fill.over(LogicalPlan::Projection(input), fills)?;
    }
    Ok(extension(fill))
}

/// ORDER BY a call that the select list has not: its column passes through the select list and is dropped again.
fn sorted(sort: Sort) -> Result<Transformed<LogicalPlan>> {
    let below = match sort.input.as_ref() {
        LogicalPlan::Projection(projection) if over_gap_fill(&projection.input) => projection.clone(),
        _ => return Ok(Transformed::no(LogicalPlan::Sort(sort))),
    };
    let columns: Vec<Expr> = sort.input.schema().columns().into_iter().map(Expr::Column).collect();
    let keys = sort.expr.iter().map(|key| with_selected(key.expr.clone(), &below)).collect::<Result<_>>()?;
    let (keys, wanted) = replaced(keys, &below.input)?;
    let input = Arc::new(with_columns(Arc::unwrap_or_clone(below.input), &wanted)?);
    let mut exprs = below.expr;
    for column in keys.iter().flat_map(Expr::column_refs).filter(|column| innermost(&input).schema().has_column(column))
    {
        let further = Expr::Column(column.clone());
        if !sort.input.schema().has_column(column) && !exprs.contains(&further) {
            exprs.push(further);
        }
    }
    let input = Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, input)?));
    let order = sort.expr.into_iter().zip(keys).map(|(key, expr)| key.with_expr(expr)).collect();
    let sort = LogicalPlan::Sort(Sort { expr: order, input, fetch: sort.fetch });
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(sort))?)))
}

/// Inside of calls, what the select list computed in the place of its columns.
fn with_selected(key: Expr, list: &Projection) -> Result<Expr> {
    let selected = |part: Expr| match &part {
        Expr::Column(column) => Ok(match list.schema.maybe_index_of_column(column) {
            Some(index) => Transformed::yes(list.expr[index].clone().unalias()),
            None => Transformed::no(part),
        }),
        _ => Ok(Transformed::no(part)),
    };
    key.transform_down(|part| match part {
        Expr::ScalarFunction(call) if is_marker(&call) => {
            let call = Expr::ScalarFunction(call).transform_up(selected)?;
            Ok(Transformed::new(call.data, true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}
