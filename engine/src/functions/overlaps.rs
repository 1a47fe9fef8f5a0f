//! OVERLAPS: do two periods have a time in common?

use super::date_arithmetic::{DAY_US, shift, timestamp_out_of_range};
use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, INTERVAL, TIME, TIMESTAMP, class, timestamptz};
use crate::semantics::Zone;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use std::cmp::Ordering;
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new("overlaps", two_periods, overlaps).udf()]
}

/// `(start, end)` or `(start, length)`, twice, all of one kind of time.
fn two_periods(types: &[DataType]) -> Option<Overload> {
    let [first, _, second, _] = types else { return None };
    let point = match (class(first), class(second)) {
        (Class::Timestamptz, _) | (_, Class::Timestamptz) => timestamptz(),
        (Class::Timestamp | Class::Date, _) | (_, Class::Timestamp | Class::Date) => TIMESTAMP,
        (Class::Time, _) | (_, Class::Time) => TIME,
        _ => return None,
    };
    let end = |ty: &DataType| match class(ty) {
        Class::Interval => INTERVAL,
        _ => point.clone(),
    };
    Some(Overload::new([point.clone(), end(&types[1]), point.clone(), end(&types[3])], DataType::Boolean))
}

fn overlaps(call: &Call) -> Result<ArrayRef> {
    let zone = if class(&call.args[0].data_type()) == Class::Timestamptz { call.zone()? } else { Zone::UTC };
    let arrays = (0..4).map(|index| call.array(index)).collect::<Result<Vec<_>>>()?;
    let point = |index: usize, row: usize| match arrays[index].data_type() {
        _ if arrays[index].is_null(row) => None,
        DataType::Time64(_) => Some(arrays[index].as_primitive::<Time64MicrosecondType>().value(row)),
        _ => Some(arrays[index].as_primitive::<TimestampMicrosecondType>().value(row)),
    };
    let period = |index: usize, row: usize| -> Result<(Option<i64>, Option<i64>)> {
        let start = point(index, row);
        let (array, is_clock) = (&arrays[index + 1], class(arrays[index].data_type()) == Class::Time);
        let end = match array.data_type() {
            DataType::Interval(_) if array.is_null(row) => None,
            DataType::Interval(_) => {
                let length = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
                match start {
                    Some(us) if is_clock => Some((us + length.nanoseconds / 1000 % DAY_US).rem_euclid(DAY_US)),
                    Some(us) => Some(shift(us, length, 1, zone).ok_or_else(|| raise(timestamp_out_of_range()))?),
                    None => None,
                }
            }
            _ => point(index + 1, row),
        };
        Ok((start, end))
    };
    let rows = (0..call.rows).map(|row| Ok(periods_overlap(period(0, row)?, period(2, row)?)));
    Ok(Arc::new(rows.collect::<Result<BooleanArray>>()?))
}

/// SQL's OVERLAPS over half-open periods in either direction, where an end may be unknown.
fn periods_overlap(first: (Option<i64>, Option<i64>), second: (Option<i64>, Option<i64>)) -> Option<bool> {
    let ordered = |(start, end): (Option<i64>, Option<i64>)| match (start, end) {
        (Some(a), Some(b)) => Some((a.min(b), Some(a.max(b)))),
        (Some(a), None) | (None, Some(a)) => Some((a, None)),
        (None, None) => None,
    };
    let ((start, end), (other_start, other_end)) = (ordered(first)?, ordered(second)?);
    match start.cmp(&other_start) {
        Ordering::Equal => (end.is_some() && other_end.is_some()).then_some(true),
        Ordering::Greater => match other_end? {
            other_end if start < other_end => Some(true),
            _ => end.map(|_| false),
        },
        Ordering::Less => match end? {
            end if other_start < end => Some(true),
            _ => other_end.map(|_| false),
        },
    }
}
