//! `time_bucket`, all sixteen overloads of TimescaleDB 2.13.
//!
//! Buckets of days and less start from Monday 2000-01-03, of months and years from 2000-01-01, unless an origin is
//! given. Without a zone a `timestamptz` is bucketed in UTC, whatever the session's zone; with one, on its wall clock.

use super::date_arithmetic::{DAY_US, shift};
use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, INTERVAL, TIMESTAMP, class, timestamptz, wider_integer};
use crate::semantics::{Zone, is_finite};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, Operator, ScalarUDF};
use proto::{Error, SqlState};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Monday 2000-01-03 00:00, microseconds since 1970.
const ORIGIN_US: i64 = 946_857_600_000_000;
/// January 2000, in months since year 0.
const ORIGIN_MONTH: i64 = 2000 * 12;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("time_bucket", overload, evaluate).follows(1).udf(),
        // The forms with a named argument, which an untyped literal could not be told apart by.
        Function::new("time_bucket_origin", |types| third(types, None), evaluate).follows(1).udf(),
        Function::new("time_bucket_offset", |types| third(types, Some(INTERVAL)), evaluate).follows(1).udf(),
    ]
}

pub(super) fn overload(types: &[DataType]) -> Option<Overload> {
    let (width, time) = (types.first()?, types.get(1)?);
    if class(width) == Class::Integer || (class(time) == Class::Integer && class(width) == Class::Unknown) {
        if class(time) != Class::Integer || types.len() > 3 {
            return None;
        }
        let ty = types.iter().fold(DataType::Int16, |wide, ty| match class(ty) {
            Class::Integer => wider_integer(&wide, ty),
            _ => wide,
        });
        return Some(Overload::new(vec![ty.clone(); types.len()], ty));
    }
    if !matches!(class(width), Class::Interval | Class::Text | Class::Unknown) {
        return None;
    }
    let time = match class(time) {
        Class::Date => DataType::Date32,
        Class::Timestamp => TIMESTAMP,
        // An untyped literal is a timestamptz, as the preferred type of its category.
        Class::Timestamptz | Class::Text | Class::Unknown => timestamptz(),
        _ => return None,
    };
    let mut args = vec![INTERVAL, time.clone()];
    match (&types[2..], class(&time)) {
        ([], _) => {}
        ([third], Class::Timestamptz) if matches!(class(third), Class::Text) => args.push(DataType::Utf8),
        ([third], _) if class(third) == Class::Interval => args.push(INTERVAL),
        ([_], _) => args.push(time.clone()),
        ([_, origin], Class::Timestamptz) if class(origin) == Class::Interval => return None,
        ([_, _], Class::Timestamptz) => args.extend([DataType::Utf8, time.clone()]),
        ([_, _, _], Class::Timestamptz) => args.extend([DataType::Utf8, time.clone(), INTERVAL]),
        _ => return None,
    }
    Some(Overload::new(args, time))
}

/// `(width, time, origin or offset)`.
fn third(types: &[DataType], offset: Option<DataType>) -> Option<Overload> {
    let [width, time, _] = types else { return None };
    let plain = overload(&[width.clone(), time.clone()])?;
    let third = match (&offset, class(&plain.result)) {
        (Some(_), Class::Integer) => plain.result.clone(),
        (Some(interval), _) => interval.clone(),
        (None, _) => plain.result.clone(),
    };
    let mut args = plain.args;
    args.push(third);
    Some(Overload::new(args, plain.result))
}

fn period_error() -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, "period must be greater than 0")
}

fn range_error() -> Error {
    Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

fn mixed_error() -> Error {
    Error::new(SqlState::FEATURE_NOT_SUPPORTED, "month intervals cannot have day or time component")
}

/// A bucket width that has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Width {
    Months(i64),
    Us(i64),
}

impl Width {
    pub fn new(value: IntervalMonthDayNano) -> Result<Width, Error> {
        let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
        match (months, days, nanos) {
            (0, _, _) => {
                let us = i64::from(days) * DAY_US + nanos / 1000;
                if us > 0 { Ok(Width::Us(us)) } else { Err(period_error()) }
            }
            (_, 0, 0) if months > 0 => Ok(Width::Months(i64::from(months))),
            (_, 0, 0) => Err(period_error()),
            _ => Err(mixed_error()),
        }
    }

    /// The start of the bucket that holds `us`; both on the same clock.
    pub fn start(self, us: i64, origin_us: Option<i64>) -> Result<i64, Error> {
        if !is_finite(us) {
            return Ok(us);
        }
        match self {
            Width::Us(period) => bucket(period, us, origin_us.unwrap_or(ORIGIN_US)),
            Width::Months(period) => {
                let origin = match origin_us {
                    None => ORIGIN_MONTH,
                    Some(us) => month_of(us)?,
                };
                let month = bucket(period, month_of(us)?, origin)?;
                month_start(month)
            }
        }
    }

    /// Where the bucket that starts at `us` ends; `None` beyond the range of times.
    pub fn end(self, us: i64) -> Option<i64> {
        match self {
            Width::Us(period) => us.checked_add(period),
            Width::Months(months) => super::date_arithmetic::add_months(us, months),
        }
    }
}

/// The greatest `origin + n * period` that is not beyond `value`.
pub fn bucket(period: i64, value: i64, origin: i64) -> Result<i64, Error> {
    let offset = origin % period;
    let from_offset = value.checked_sub(offset).ok_or_else(range_error)?;
    let start = from_offset.checked_sub(from_offset.rem_euclid(period)).ok_or_else(range_error)?;
    start.checked_add(offset).ok_or_else(range_error)
}

fn month_of(us: i64) -> Result<i64, Error> {
    let date = DateTime::from_timestamp_micros(us).ok_or_else(range_error)?;
    Ok(i64::from(date.year()) * 12 + i64::from(date.month0()))
}

fn month_start(month: i64) -> Result<i64, Error> {
    let year = i32::try_from(month.div_euclid(12)).map_err(|_| range_error())?;
    let date = NaiveDate::from_ymd_opt(year, month.rem_euclid(12) as u32 + 1, 1).ok_or_else(range_error)?;
    Ok(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros())
}

pub(super) fn evaluate(call: &Call) -> Result<ArrayRef> {
    match class(call.result) {
        Class::Integer => match call.result {
            DataType::Int16 => integers::<Int16Type>(call),
            DataType::Int32 => integers::<Int32Type>(call),
            _ => integers::<Int64Type>(call),
        },
        Class::Date => dates(call),
        _ => times(call),
    }
}

fn integers<T: ArrowPrimitiveType>(call: &Call) -> Result<ArrayRef>
where
    T::Native: Into<i64> + TryFrom<i64>,
{
    let (periods, values) = (call.array(0)?, call.array(1)?);
    let (periods, values) = (periods.as_primitive::<T>(), values.as_primitive::<T>());
    let offsets = if call.args.len() == 3 { Some(call.array(2)?) } else { None };
    let offsets = offsets.as_ref().map(|array| array.as_primitive::<T>());
    let start = |row: usize| -> Result<Option<T::Native>> {
        if periods.is_null(row) || values.is_null(row) || offsets.is_some_and(|array| array.is_null(row)) {
            return Ok(None);
        }
        let period: i64 = periods.value(row).into();
        if period <= 0 {
            return Err(raise(period_error()));
        }
        let offset: i64 = offsets.map_or(0, |array| array.value(row).into());
        let start = bucket(period, values.value(row).into(), offset).map_err(raise)?;
        Ok(Some(T::Native::try_from(start).map_err(|_| raise(range_error()))?))
    };
    let starts = (0..call.rows).map(start).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(PrimitiveArray::<T>::from_iter(starts)))
}

fn dates(call: &Call) -> Result<ArrayRef> {
    let (widths, days) = (call.array(0)?, call.array(1)?);
    let (widths, days) = (widths.as_primitive::<IntervalMonthDayNanoType>(), days.as_primitive::<Date32Type>());
    let third = if call.args.len() == 3 { Some(call.array(2)?) } else { None };
    let start = |row: usize| -> Result<Option<i32>> {
        if widths.is_null(row) || days.is_null(row) || third.as_ref().is_some_and(|array| array.is_null(row)) {
            return Ok(None);
        }
        let width = Width::new(widths.value(row)).map_err(raise)?;
        if let Width::Us(us) = width
            && us % DAY_US != 0
        {
            let error = Error::new(SqlState::INVALID_PARAMETER_VALUE, "interval must not have sub-day precision");
            return Err(raise(error));
        }
        let us = i64::from(days.value(row)) * DAY_US;
        let start = match &third {
            Some(array) if class(array.data_type()) == Class::Interval => {
                let offset = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
                with_offset(us, offset, Zone::UTC, |us| width.start(us, None))
            }
            Some(array) => width.start(us, Some(i64::from(array.as_primitive::<Date32Type>().value(row)) * DAY_US)),
            None => width.start(us, None),
        };
        Ok(Some(start.map_err(raise)?.div_euclid(DAY_US) as i32))
    };
    let starts = (0..call.rows).map(start).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(PrimitiveArray::<Date32Type>::from_iter(starts)))
}

/// Shifts back, buckets, shifts forth: a bucket that starts `offset` late.
fn with_offset(
    us: i64,
    offset: IntervalMonthDayNano,
    zone: Zone,
    start: impl Fn(i64) -> Result<i64, Error>,
) -> Result<i64, Error> {
    let shifted = shift(us, offset, -1, zone).ok_or_else(range_error)?;
    shift(start(shifted)?, offset, 1, zone).ok_or_else(range_error)
}

/// What stands behind the width and the time.
struct Options {
    zone: Option<ArrayRef>,
    origin: Option<ArrayRef>,
    offset: Option<ArrayRef>,
}

impl Options {
    fn of(call: &Call) -> Result<Options> {
        let mut options = Options { zone: None, origin: None, offset: None };
        for index in 2..call.args.len() {
            let array = call.array(index)?;
            match class(array.data_type()) {
                Class::Text => options.zone = Some(array),
                Class::Interval => options.offset = Some(array),
                _ => options.origin = Some(array),
            }
        }
        Ok(options)
    }
}

fn times(call: &Call) -> Result<ArrayRef> {
    let times = call.array(1)?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    // The usual call: one width for all rows, nothing else.
    if call.args.len() == 2
        && let Some(ScalarValue::IntervalMonthDayNano(Some(width))) = call.scalar(0)
    {
        let width = Width::new(*width).map_err(raise)?;
        let starts: PrimitiveArray<TimestampMicrosecondType> =
            times.try_unary(|us| width.start(us, None).map_err(raise))?;
        return Ok(Arc::new(starts.with_data_type(call.result.clone())));
    }
    let widths = call.array(0)?;
    let widths = widths.as_primitive::<IntervalMonthDayNanoType>();
    let options = Options::of(call)?;
    let session = if class(call.result) == Class::Timestamptz { call.zone()? } else { Zone::UTC };
    let mut zones = ZoneCache::default();
    let mut starts: Vec<Option<i64>> = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        if times.is_null(row) || widths.is_null(row) || options.zone.as_ref().is_some_and(|array| array.is_null(row)) {
            starts.push(None);
            continue;
        }
        let width = Width::new(widths.value(row)).map_err(raise)?;
        let start = match &options.zone {
            Some(names) => {
                let zone = zones.get(names.as_string::<i32>().value(row)).map_err(raise)?;
                in_zone(width, times.value(row), zone, &options, row).map(Some)
            }
            None => without_zone(width, times.value(row), session, &options, row),
        };
        starts.push(start.map_err(raise)?);
    }
    let array = PrimitiveArray::<TimestampMicrosecondType>::from_iter(starts);
    Ok(Arc::new(array.with_data_type(call.result.clone())))
}

fn value_us(array: &Option<ArrayRef>, row: usize) -> Option<i64> {
    let array = array.as_ref()?.as_primitive::<TimestampMicrosecondType>();
    array.is_valid(row).then(|| array.value(row))
}

fn value_interval(array: &Option<ArrayRef>, row: usize) -> Option<IntervalMonthDayNano> {
    let array = array.as_ref()?.as_primitive::<IntervalMonthDayNanoType>();
    array.is_valid(row).then(|| array.value(row))
}

/// These overloads are strict: a NULL origin or offset gives NULL.
fn without_zone(width: Width, us: i64, session: Zone, options: &Options, row: usize) -> Result<Option<i64>, Error> {
    if options.offset.is_some() {
        let Some(offset) = value_interval(&options.offset, row) else { return Ok(None) };
        return with_offset(us, offset, session, |us| width.start(us, None)).map(Some);
    }
    if options.origin.is_some() {
        let Some(origin) = value_us(&options.origin, row) else { return Ok(None) };
        return width.start(us, Some(origin)).map(Some);
    }
    width.start(us, None).map(Some)
}

/// On the wall clock of `zone`; a NULL origin or offset counts as not given.
fn in_zone(width: Width, us: i64, zone: Zone, options: &Options, row: usize) -> Result<i64, Error> {
    let local = zone.to_local(us);
    let origin = value_us(&options.origin, row).map(|us| zone.to_local(us));
    let start = match value_interval(&options.offset, row) {
        Some(offset) => with_offset(local, offset, Zone::UTC, |us| width.start(us, origin))?,
        None => width.start(local, origin)?,
    };
    Ok(zone.to_utc(start))
}

#[derive(Default)]
struct ZoneCache(Option<(String, Zone)>);

impl ZoneCache {
    fn get(&mut self, name: &str) -> Result<Zone, Error> {
        if let Some((cached, zone)) = &self.0
            && cached == name
        {
            return Ok(*zone);
        }
        let zone = Zone::parse(name)?;
        self.0 = Some((name.to_owned(), zone));
        Ok(zone)
    }
}

/// The buckets of plain calls: a constant width that has buckets, and no further argument.
#[derive(Debug, Clone, Copy)]
pub struct Buckets(Width);

impl Buckets {
    pub fn new(width: &ScalarValue) -> Option<Buckets> {
        let ScalarValue::IntervalMonthDayNano(Some(width)) = width else { return None };
        Width::new(*width).ok().map(Buckets)
    }

    /// `None` when there are no such buckets.
    pub fn of_us(width_us: i64) -> Option<Buckets> {
        (width_us > 0).then_some(Buckets(Width::Us(width_us)))
    }

    /// `None` when some are longer than others.
    pub fn width_us(&self) -> Option<i64> {
        match self.0 {
            Width::Us(us) => Some(us),
            Width::Months(_) => None,
        }
    }

    /// The first and the last microsecond of the bucket that holds `us`. An infinity is alone in its bucket.
    ///
    /// # Errors
    /// As the function.
    pub fn around(&self, us: i64) -> Result<(i64, i64), Error> {
        let start = self.0.start(us, None)?;
        if !is_finite(us) {
            return Ok((us, us));
        }
        let next = match self.0 {
            Width::Us(period) => start.checked_add(period),
            Width::Months(months) => super::date_arithmetic::add_months(start, months),
        };
        // A bucket that reaches beyond the end of time ends before infinity.
        Ok((start, next.unwrap_or(i64::MAX) - 1))
    }
}

/// A comparison of a plain bucket with a constant, as conditions on the time itself: what prunes chunks and row groups.
/// Implied by the comparison, so it may be added to it; `None` when nothing follows.
pub fn implied_range(width: &ScalarValue, time: &Expr, op: Operator, bound: &ScalarValue) -> Option<Expr> {
    let ScalarValue::IntervalMonthDayNano(Some(width)) = width else { return None };
    let ScalarValue::TimestampMicrosecond(Some(bound), zone) = bound else { return None };
    let width = Width::new(*width).ok()?;
    let end = |us: i64| width.end(us);
    let literal = |us: i64| Expr::Literal(ScalarValue::TimestampMicrosecond(Some(us), zone.clone()), None);
    let from = |us: i64| time.clone().gt_eq(literal(us));
    let until = |us: i64| time.clone().lt(literal(us));
    let start = width.start(*bound, None).ok()?;
    // The first bucket that starts at or after the bound.
    let next = if start == *bound { start } else { end(start)? };
    Some(match op {
        Operator::Eq => from(*bound).and(until(end(*bound)?)),
        Operator::GtEq => from(next),
        Operator::Gt => from(end(start)?),
        Operator::Lt => until(next),
        Operator::LtEq => until(end(start)?),
        _ => return None,
    })
}

/// A call that `implied_range` understands: constant width, no further argument.
pub fn plain_call(expr: &Expr) -> Option<(&ScalarValue, &Expr)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    match (call.func.name(), call.args.as_slice()) {
        ("time_bucket", [Expr::Literal(width, _), time]) => Some((width, time)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    fn us(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    #[test]
    fn buckets_start_on_mondays_and_on_firsts() {
        let week = Width::Us(7 * DAY_US);
        assert_eq!(week.start(us("2019-01-01T12:00:00Z"), None), Ok(us("2018-12-31T00:00:00Z")));
        let five_hours = Width::Us(5 * HOUR_US);
        assert_eq!(five_hours.start(ORIGIN_US - 1, None), Ok(ORIGIN_US - 5 * HOUR_US));
        let quarter = Width::Months(3);
        assert_eq!(quarter.start(us("2019-05-17T00:00:00Z"), None), Ok(us("2019-04-01T00:00:00Z")));
        assert_eq!(quarter.start(us("1999-12-31T23:00:00Z"), None), Ok(us("1999-10-01T00:00:00Z")));
    }

    #[test]
    fn widths_that_have_no_buckets_are_refused() {
        let interval = IntervalMonthDayNanoType::make_value;
        assert_eq!(Width::new(interval(0, 0, 0)).unwrap_err(), period_error());
        assert_eq!(Width::new(interval(0, -1, 0)).unwrap_err(), period_error());
        assert_eq!(Width::new(interval(1, 1, 0)).unwrap_err().message, mixed_error().message);
        assert_eq!(bucket(DAY_US, i64::MIN, ORIGIN_US).unwrap_err(), range_error());
    }

    /// A slow twin: count up from far below.
    #[test]
    fn implied_ranges_hold_exactly_the_rows_that_the_comparison_holds() {
        let time = datafusion::prelude::col("t");
        let width = 7 * HOUR_US;
        let interval =
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNanoType::make_value(0, 0, width * 1000)));
        let start = Width::Us(width);
        let base = ORIGIN_US + 1000 * width;
        for bound in [base, base + 1, base + width - 1, base - 1] {
            let scalar = ScalarValue::TimestampMicrosecond(Some(bound), None);
            for op in [Operator::Eq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq] {
                let implied = implied_range(&interval, &time, op, &scalar).unwrap();
                for t in (base - 2 * width..base + 3 * width).step_by((HOUR_US / 2) as usize) {
                    let bucket = start.start(t, None).unwrap();
                    let holds = match op {
                        Operator::Eq => bucket == bound,
                        Operator::Lt => bucket < bound,
                        Operator::LtEq => bucket <= bound,
                        Operator::Gt => bucket > bound,
                        _ => bucket >= bound,
                    };
                    assert!(!holds || truth(&implied, t), "{op} {bound} at {t}: {implied}");
                }
            }
        }
    }

    fn truth(expr: &Expr, t: i64) -> bool {
        let Expr::BinaryExpr(binary) = expr else { panic!("{expr}") };
        if binary.op == Operator::And {
            return truth(&binary.left, t) && truth(&binary.right, t);
        }
        let Expr::Literal(ScalarValue::TimestampMicrosecond(Some(bound), _), _) = binary.right.as_ref() else {
            panic!("{expr}")
        };
        match binary.op {
            Operator::GtEq => t >= *bound,
            Operator::Lt => t < *bound,
            op => panic!("{op}"),
        }
    }
}
