//! What filters say about single columns: a conservative extraction of ranges and value lists from logical
//! expressions, and the chunks they exclude. Whatever is not understood says nothing.

use super::parameter;
use crate::placement::slot_of_value;
use crate::{ChunkDef, Hypertable, TableDef};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator, expr::InList};
use proto::{ColumnPredicate, PredicateKind, Scalar, SlotSet, TimeRange};
use std::sync::Arc;

const DAY_US: i64 = 86_400_000_000;
/// Longer lists say nothing: deciding would cost more than it saves.
const LIST_MAX: usize = 10_000;

/// The conjunctive bounds on columns of `table` that `filters` imply.
pub(super) fn predicates(table: &TableDef, filters: &[Expr]) -> Vec<ColumnPredicate> {
    let mut found = Vec::new();
    filters.iter().for_each(|filter| collect(table, filter, &mut found));
    found
}

fn collect(table: &TableDef, filter: &Expr, found: &mut Vec<ColumnPredicate>) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            collect(table, left, found);
            collect(table, right, found);
        }
        Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => found.extend(one_of_several(table, filter)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (literal(left), literal(right)) {
            (None, Some(value)) => found.extend(comparison(table, left, *op, value)),
            (Some(value), None) => found.extend(op.swap().and_then(|op| comparison(table, right, op, value))),
            _ => {}
        },
        Expr::Between(Between { expr, negated: false, low, high }) => {
            found.extend(literal(low).and_then(|low| comparison(table, expr, Operator::GtEq, low)));
            found.extend(literal(high).and_then(|high| comparison(table, expr, Operator::LtEq, high)));
        }
        Expr::InList(InList { expr, list, negated: false }) if list.len() <= LIST_MAX => {
            found.extend(in_list(table, expr, list));
        }
        _ => {}
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// The column behind `expr`, and the type it has there. A cast of a date to a timestamp is looked through.
fn column<'t>(table: &'t TableDef, expr: &Expr) -> Option<(&'t crate::ColumnDef, Exactness)> {
    match expr {
        Expr::Column(column) => Some((table.column(&column.name)?, Exactness::AsIs)),
        Expr::Cast(cast) => match (&*cast.expr, cast.field.data_type()) {
            (Expr::Column(inner), DataType::Timestamp(..)) => {
                let column = table.column(&inner.name)?;
                (column.ty.arrow() == DataType::Date32).then_some((column, Exactness::DateAsTimestamp))
            }
            _ => None,
        },
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Exactness {
    AsIs,
    /// Midnight of the date, in whatever zone the session has: bounds are widened by a day.
    DateAsTimestamp,
}

fn comparison(table: &TableDef, expr: &Expr, op: Operator, value: &ScalarValue) -> Option<ColumnPredicate> {
    let (column, exactness) = column(table, expr)?;
    let kind = match exactness {
        Exactness::AsIs => compared(op, scalar(value, &column.ty.arrow())?)?,
        Exactness::DateAsTimestamp => {
            let Scalar::Int(us) = timestamp_us(value)? else { return None };
            let day = us.div_euclid(DAY_US);
            let (before, after) = (Scalar::Int(day.saturating_sub(1)), Scalar::Int(day.saturating_add(2)));
            match op {
                Operator::Eq => PredicateKind::Range { min: Some(before), max: Some(after) },
                Operator::Gt | Operator::GtEq => PredicateKind::Range { min: Some(before), max: None },
                Operator::Lt | Operator::LtEq => PredicateKind::Range { min: None, max: Some(after) },
                _ => return None,
            }
        }
    };
    Some(ColumnPredicate { column: column.id, kind })
}

pub(super) fn compared(op: Operator, value: Scalar) -> Option<PredicateKind> {
    let step = |by: i64| match &value {
        Scalar::Int(v) => Scalar::Int(v.saturating_add(by)),
        other => other.clone(),
    };
    Some(match op {
        Operator::Eq => PredicateKind::OneOf(vec![value]),
        Operator::Gt => PredicateKind::Range { min: Some(step(1)), max: None },
        Operator::GtEq => PredicateKind::Range { min: Some(value), max: None },
        Operator::Lt => PredicateKind::Range { min: None, max: Some(step(-1)) },
        Operator::LtEq => PredicateKind::Range { min: None, max: Some(value) },
        _ => return None,
    })
}

fn in_list(table: &TableDef, expr: &Expr, list: &[Expr]) -> Option<ColumnPredicate> {
    let (column, Exactness::AsIs) = column(table, expr)? else { return None };
    let ty = column.ty.arrow();
    let values = list.iter().map(literal).collect::<Option<Vec<_>>>()?;
    let values = values.into_iter().filter(|value| !value.is_null()).map(|value| scalar(value, &ty));
    Some(ColumnPredicate { column: column.id, kind: PredicateKind::OneOf(values.collect::<Option<_>>()?) })
}

/// `a = 1 OR a = 2 OR a IN (3, 4)`.
fn one_of_several(table: &TableDef, filter: &Expr) -> Option<ColumnPredicate> {
    let mut terms = vec![filter];
    let mut values = Vec::new();
    let mut of = None;
    while let Some(term) = terms.pop() {
        if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) = term {
            terms.extend([&**left, &**right]);
            continue;
        }
        let mut found = Vec::new();
        match term {
            Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }) | Expr::InList(_) => {
                collect(table, term, &mut found);
            }
            _ => return None,
        }
        let Some(ColumnPredicate { column, kind: PredicateKind::OneOf(more) }) = found.pop() else { return None };
        if *of.get_or_insert(column) != column || values.len() + more.len() > LIST_MAX {
            return None;
        }
        values.extend(more);
    }
    Some(ColumnPredicate { column: of?, kind: PredicateKind::OneOf(values) })
}

/// A literal of exactly the column's type. NULL and NaN say nothing here; a list of nothing but NULL is empty.
pub(super) fn scalar(value: &ScalarValue, ty: &DataType) -> Option<Scalar> {
    let same_kind = match (ty, value.data_type()) {
        (DataType::Timestamp(unit, zone), DataType::Timestamp(other_unit, other_zone)) => {
            *unit == other_unit && zone.is_some() == other_zone.is_some()
        }
        (DataType::Utf8, other) => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        (ty, other) => *ty == other,
    };
    let is_nan = |scalar: &Scalar| matches!(scalar, Scalar::Float(v) if v.is_nan());
    same_kind.then(|| parameter::scalar(value))?.filter(|scalar| !is_nan(scalar))
}

fn timestamp_us(value: &ScalarValue) -> Option<Scalar> {
    Some(Scalar::Int(match value {
        ScalarValue::TimestampSecond(Some(v), _) => v.saturating_mul(1_000_000),
        ScalarValue::TimestampMillisecond(Some(v), _) => v.saturating_mul(1_000),
        ScalarValue::TimestampMicrosecond(Some(v), _) => *v,
        ScalarValue::TimestampNanosecond(Some(v), _) => v.div_euclid(1_000),
        _ => return None,
    }))
}

/// The chunks that may hold rows satisfying all `predicates`.
pub(super) fn surviving(
    table: &TableDef,
    chunks: &[Arc<ChunkDef>],
    predicates: &[ColumnPredicate],
) -> Vec<Arc<ChunkDef>> {
    let Some(hypertable) = &table.hypertable else { return chunks.to_vec() };
    let times = time_bounds(table, hypertable, predicates);
    let slots = slot_bounds(hypertable, predicates);
    let survives = |chunk: &&Arc<ChunkDef>| {
        times.iter().all(|bound| overlaps(*bound, &chunk.time)) && slots.iter().all(|set| set.overlaps(&chunk.slots))
    };
    chunks.iter().filter(survives).cloned().collect()
}

/// Both ends included.
fn overlaps((min, max): (i64, i64), range: &TimeRange) -> bool {
    min <= max && (min < range.end() || range.end() == i64::MAX) && max >= range.start()
}

/// Inclusive bounds on the time dimension, in the units of chunk ranges.
fn time_bounds(table: &TableDef, hypertable: &Hypertable, predicates: &[ColumnPredicate]) -> Vec<(i64, i64)> {
    let days = table.column_by_id(hypertable.time_column).is_some_and(|c| c.ty.arrow() == DataType::Date32);
    let units = |value: &Scalar| match value {
        Scalar::Int(v) if days => Some(v.saturating_mul(DAY_US)),
        Scalar::Int(v) => Some(*v),
        _ => None,
    };
    let bound = |predicate: &ColumnPredicate| match &predicate.kind {
        PredicateKind::Range { min, max } => {
            Some((min.as_ref().map_or(Some(i64::MIN), units)?, max.as_ref().map_or(Some(i64::MAX), units)?))
        }
        PredicateKind::OneOf(values) => {
            let values = values.iter().map(units).collect::<Option<Vec<_>>>()?;
            // An empty list is satisfied by nothing: an empty bound.
            Some((values.iter().min().copied().unwrap_or(1), values.iter().max().copied().unwrap_or(0)))
        }
    };
    predicates.iter().filter(|p| p.column == hypertable.time_column).filter_map(bound).collect()
}

fn slot_bounds(hypertable: &Hypertable, predicates: &[ColumnPredicate]) -> Vec<SlotSet> {
    let Some(space) = &hypertable.space else { return Vec::new() };
    let slots = |predicate: &ColumnPredicate| match &predicate.kind {
        PredicateKind::OneOf(values) => Some(values.iter().map(slot_of_value).collect()),
        PredicateKind::Range { .. } => None,
    };
    predicates.iter().filter(|p| p.column == space.column).filter_map(slots).collect()
}
