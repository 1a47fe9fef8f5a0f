//! Sums and differences of times, dates and intervals.

use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, INTERVAL, TIME, TIMESTAMP, class, timestamptz};
use crate::semantics::{Zone, is_finite};
use arrow::array::{ArrayRef, AsArray, Date32Array, Int32Array, Int64Array, IntervalMonthDayNanoArray};
use arrow::array::{PrimitiveArray, Time64MicrosecondArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use chrono::{DateTime, Months};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use proto::{Error, SqlState};
use std::sync::Arc;

pub const DAY_US: i64 = 86_400_000_000;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("time_add", time_and_interval, |call| shift_times(call, 1)).operator("+").follows(0).udf(),
        Function::new("time_sub", time_and_interval, |call| shift_times(call, -1)).operator("-").follows(0).udf(),
        Function::new("time_diff", two_times, time_diff).operator("-").udf(),
        Function::new("date_add_days", date_and_days, |call| shift_dates(call, 1)).operator("+").udf(),
        Function::new("date_sub_days", date_and_days, |call| shift_dates(call, -1)).operator("-").udf(),
        Function::new("date_diff", two_dates, date_diff).operator("-").udf(),
        Function::new("date_add_time", date_and_time, date_add_time).operator("+").udf(),
        Function::new("clock_add", clock_and_interval, |call| shift_clocks(call, 1)).operator("+").udf(),
        Function::new("clock_sub", clock_and_interval, |call| shift_clocks(call, -1)).operator("-").udf(),
        Function::new("clock_diff", two_clocks, clock_diff).operator("-").udf(),
        Function::new("interval_mul", interval_and_float, interval_mul).operator("*").udf(),
        Function::new("interval_div", interval_and_float, interval_div).operator("/").udf(),
        Function::new("interval_key", one_interval, interval_key).udf(),
        Function::new("age", ages, age).stable().udf(),
        Function::new("justify_hours", same_interval, |call| justify(call, justify_hours)).udf(),
        Function::new("justify_days", same_interval, |call| justify(call, justify_days)).udf(),
        Function::new("justify_interval", same_interval, |call| justify(call, justify_interval)).udf(),
        Function::new("make_interval", make_interval_types, make_interval).udf(),
    ]
}

pub fn timestamp_out_of_range() -> Error {
    Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

fn time_and_interval(types: &[DataType]) -> Option<Overload> {
    let [time, _] = types else { return None };
    let time = match class(time) {
        Class::Timestamptz => timestamptz(),
        Class::Timestamp | Class::Date | Class::Unknown => TIMESTAMP,
        _ => return None,
    };
    Some(Overload::new([time.clone(), INTERVAL], time))
}

fn two_times(types: &[DataType]) -> Option<Overload> {
    let [left, right] = types else { return None };
    let ty =
        if class(left) == Class::Timestamptz || class(right) == Class::Timestamptz { timestamptz() } else { TIMESTAMP };
    Some(Overload::new([ty.clone(), ty], INTERVAL))
}

fn date_and_days(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([DataType::Date32, DataType::Int32], DataType::Date32))
}

fn two_dates(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([DataType::Date32, DataType::Date32], DataType::Int32))
}

fn date_and_time(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([DataType::Date32, TIME], TIMESTAMP))
}

fn clock_and_interval(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([TIME, INTERVAL], TIME))
}

fn two_clocks(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([TIME, TIME], INTERVAL))
}

fn interval_and_float(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([INTERVAL, DataType::Float64], INTERVAL))
}

fn one_interval(types: &[DataType]) -> Option<Overload> {
    (types.len() == 1).then(|| Overload::new([INTERVAL], DataType::Int64))
}

fn same_interval(types: &[DataType]) -> Option<Overload> {
    (types.len() == 1).then(|| Overload::new([INTERVAL], INTERVAL))
}

fn ages(types: &[DataType]) -> Option<Overload> {
    match types {
        [one] => {
            let ty = if class(one) == Class::Timestamptz { timestamptz() } else { TIMESTAMP };
            Some(Overload::new([ty], INTERVAL))
        }
        [_, _] => two_times(types),
        _ => None,
    }
}

fn make_interval_types(types: &[DataType]) -> Option<Overload> {
    if types.len() > 7 {
        return None;
    }
    let mut args = vec![DataType::Int32; types.len()];
    if let Some(seconds) = args.get_mut(6) {
        *seconds = DataType::Float64;
    }
    Some(Overload::new(args, INTERVAL))
}

/// Months by the calendar (the day clipped to the month's end), then days, both on the local clock; then the rest as
/// elapsed time.
pub fn shift(us: i64, by: IntervalMonthDayNano, sign: i64, zone: Zone) -> Option<i64> {
    if !is_finite(us) {
        return Some(us);
    }
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(by);
    let mut us = us;
    if months != 0 || days != 0 {
        let mut local = zone.to_local(us);
        if months != 0 {
            local = add_months(local, i64::from(months) * sign)?;
        }
        us = zone.to_utc(local.checked_add((i64::from(days) * sign).checked_mul(DAY_US)?)?);
    }
    us.checked_add((nanos / 1000) * sign)
}

pub fn add_months(local_us: i64, months: i64) -> Option<i64> {
    let time = DateTime::from_timestamp_micros(local_us)?;
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let shifted = if months < 0 { time.checked_sub_months(count)? } else { time.checked_add_months(count)? };
    Some(shifted.timestamp_micros())
}

fn shift_times(call: &Call, sign: i64) -> Result<ArrayRef> {
    let zone = if class(call.result) == Class::Timestamptz { call.zone()? } else { Zone::UTC };
    let (times, intervals) = (call.array(0)?, call.array(1)?);
    let (times, intervals) =
        (times.as_primitive::<TimestampMicrosecondType>(), intervals.as_primitive::<IntervalMonthDayNanoType>());
    let shifted: TimestampMicrosecondArray = arrow::compute::try_binary(times, intervals, |us, by| {
        shift(us, by, sign, zone).ok_or(ArrowError::DivideByZero)
    })
    .map_err(|_| raise(timestamp_out_of_range()))?;
    Ok(Arc::new(shifted.with_data_type(call.result.clone())))
}

/// Days and time between two instants, without regard to months or zones.
pub fn interval_of_us(us: i64) -> IntervalMonthDayNano {
    IntervalMonthDayNanoType::make_value(0, (us / DAY_US) as i32, (us % DAY_US) * 1000)
}

fn time_diff(call: &Call) -> Result<ArrayRef> {
    let (left, right) = (call.array(0)?, call.array(1)?);
    let difference: IntervalMonthDayNanoArray = arrow::compute::try_binary(
        left.as_primitive::<TimestampMicrosecondType>(),
        right.as_primitive::<TimestampMicrosecondType>(),
        |a: i64, b: i64| a.checked_sub(b).map(interval_of_us).ok_or(ArrowError::DivideByZero),
    )
    .map_err(|_| raise(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")))?;
    Ok(Arc::new(difference))
}

fn shift_dates(call: &Call, sign: i32) -> Result<ArrayRef> {
    let (dates, days) = (call.array(0)?, call.array(1)?);
    let shifted: Date32Array = arrow::compute::try_binary(
        dates.as_primitive::<Date32Type>(),
        days.as_primitive::<Int32Type>(),
        |date: i32, days: i32| days.checked_mul(sign).and_then(|d| date.checked_add(d)).ok_or(ArrowError::DivideByZero),
    )
    .map_err(|_| raise(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range")))?;
    Ok(Arc::new(shifted))
}

fn date_diff(call: &Call) -> Result<ArrayRef> {
    let (left, right) = (call.array(0)?, call.array(1)?);
    let days: Int32Array = arrow::compute::binary(
        left.as_primitive::<Date32Type>(),
        right.as_primitive::<Date32Type>(),
        |a: i32, b: i32| a.saturating_sub(b),
    )?;
    Ok(Arc::new(days))
}

fn date_add_time(call: &Call) -> Result<ArrayRef> {
    let (dates, times) = (call.array(0)?, call.array(1)?);
    let sum: TimestampMicrosecondArray = arrow::compute::binary(
        dates.as_primitive::<Date32Type>(),
        times.as_primitive::<Time64MicrosecondType>(),
        |date: i32, us: i64| i64::from(date) * DAY_US + us,
    )?;
    Ok(Arc::new(sum))
}

/// A time of day goes round: only the interval's time part counts.
fn shift_clocks(call: &Call, sign: i64) -> Result<ArrayRef> {
    let (clocks, intervals) = (call.array(0)?, call.array(1)?);
    let shifted: Time64MicrosecondArray = arrow::compute::binary(
        clocks.as_primitive::<Time64MicrosecondType>(),
        intervals.as_primitive::<IntervalMonthDayNanoType>(),
        |us: i64, by| (us + sign * (by.nanoseconds / 1000 % DAY_US)).rem_euclid(DAY_US),
    )?;
    Ok(Arc::new(shifted))
}

fn clock_diff(call: &Call) -> Result<ArrayRef> {
    let (left, right) = (call.array(0)?, call.array(1)?);
    let difference: IntervalMonthDayNanoArray = arrow::compute::binary(
        left.as_primitive::<Time64MicrosecondType>(),
        right.as_primitive::<Time64MicrosecondType>(),
        |a: i64, b: i64| IntervalMonthDayNanoType::make_value(0, 0, (a - b) * 1000),
    )?;
    Ok(Arc::new(difference))
}

fn interval_mul(call: &Call) -> Result<ArrayRef> {
    let (intervals, factors) = (call.array(0)?, call.array(1)?);
    let (intervals, factors) =
        (intervals.as_primitive::<IntervalMonthDayNanoType>(), factors.as_primitive::<Float64Type>());
    let product: IntervalMonthDayNanoArray =
        arrow::compute::binary(intervals, factors, |value, by| scaled_interval(value, |part| part * by))?;
    Ok(Arc::new(product))
}

fn interval_div(call: &Call) -> Result<ArrayRef> {
    let (intervals, divisors) = (call.array(0)?, call.array(1)?);
    let (intervals, divisors) =
        (intervals.as_primitive::<IntervalMonthDayNanoType>(), divisors.as_primitive::<Float64Type>());
    let quotient: IntervalMonthDayNanoArray =
        arrow::compute::try_binary(intervals, divisors, |value, by: f64| match by == 0.0 {
            true => Err(ArrowError::DivideByZero),
            false => Ok(scaled_interval(value, |part| part / by)),
        })
        .map_err(|_| raise(super::arithmetic::division_by_zero()))?;
    Ok(Arc::new(quotient))
}

/// Each part scaled: fractions of a month become days (30 to a month), fractions of a day become time.
pub fn scaled_interval(value: IntervalMonthDayNano, scale: impl Fn(f64) -> f64) -> IntervalMonthDayNano {
    let micros = |value: f64| (value * 1e6).round_ties_even() / 1e6;
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
    let (all_months, all_days) = (scale(f64::from(months)), scale(f64::from(days)));
    let days_of_month = micros((all_months - all_months.trunc()) * 30.0);
    let day_fraction = all_days - all_days.trunc() + days_of_month - days_of_month.trunc();
    let seconds = micros(day_fraction * 86_400.0);
    // Fractions of both may add up to a day.
    let carried_days = (seconds / 86_400.0).trunc();
    let us = scale(nanos as f64 / 1000.0) + (seconds - carried_days * 86_400.0) * 1e6;
    IntervalMonthDayNanoType::make_value(
        all_months.trunc() as i32,
        (all_days.trunc() + days_of_month.trunc() + carried_days) as i32,
        (us.round_ties_even() as i64).saturating_mul(1000),
    )
}

/// A number that orders intervals as PostgreSQL does: a month has 30 days, a day 24 hours.
fn interval_key(call: &Call) -> Result<ArrayRef> {
    let intervals = call.array(0)?;
    let keys: Int64Array = intervals.as_primitive::<IntervalMonthDayNanoType>().unary(|value| {
        let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
        let days = i64::from(months) * 30 + i64::from(days);
        days.saturating_mul(DAY_US).saturating_add(nanos / 1000)
    });
    Ok(Arc::new(keys))
}

fn age(call: &Call) -> Result<ArrayRef> {
    let zone = match class(&call.args[0].data_type()) {
        Class::Timestamptz => call.zone()?,
        _ => Zone::UTC,
    };
    let first = call.array(0)?;
    let first = first.as_primitive::<TimestampMicrosecondType>();
    if call.args.len() == 1 {
        let today = zone.to_local(super::scalar::session_now(call.config)).div_euclid(DAY_US) * DAY_US;
        let ages: PrimitiveArray<IntervalMonthDayNanoType> = first.unary(|us| calendar_age(today, zone.to_local(us)));
        return Ok(Arc::new(ages));
    }
    let second = call.array(1)?;
    let ages: IntervalMonthDayNanoArray =
        arrow::compute::binary(first, second.as_primitive::<TimestampMicrosecondType>(), |a: i64, b: i64| {
            calendar_age(zone.to_local(a), zone.to_local(b))
        })?;
    Ok(Arc::new(ages))
}

/// Years and months by the calendar, then days of the earlier month, then time.
fn calendar_age(later_us: i64, earlier_us: i64) -> IntervalMonthDayNano {
    if later_us < earlier_us {
        let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(calendar_age(earlier_us, later_us));
        return IntervalMonthDayNanoType::make_value(-months, -days, -nanos);
    }
    let (Some(later), Some(earlier)) =
        (DateTime::from_timestamp_micros(later_us), DateTime::from_timestamp_micros(earlier_us))
    else {
        return interval_of_us(later_us.saturating_sub(earlier_us));
    };
    use chrono::Datelike;
    let mut time = later_us.rem_euclid(DAY_US) - earlier_us.rem_euclid(DAY_US);
    let mut days = i64::from(later.day()) - i64::from(earlier.day());
    let mut months = (i64::from(later.year()) * 12 + i64::from(later.month()))
        - (i64::from(earlier.year()) * 12 + i64::from(earlier.month()));
    if time < 0 {
        time += DAY_US;
        days -= 1;
    }
    if days < 0 {
        months -= 1;
        days += i64::from(earlier.num_days_in_month());
    }
    IntervalMonthDayNanoType::make_value(months as i32, days as i32, time * 1000)
}

fn justify(call: &Call, by: fn(IntervalMonthDayNano) -> IntervalMonthDayNano) -> Result<ArrayRef> {
    let intervals = call.array(0)?;
    let justified: IntervalMonthDayNanoArray = intervals.as_primitive::<IntervalMonthDayNanoType>().unary(by);
    Ok(Arc::new(justified))
}

/// As PostgreSQL: whole days out of the time, whole months out of the days, then one sign for all three parts.
fn justify_interval(value: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
    let day = DAY_US * 1000;
    let (mut days, mut nanos) = (i64::from(days) + nanos / day, nanos % day);
    let (mut months, rest) = (i64::from(months) + days / 30, days % 30);
    days = rest;
    if months > 0 && (days < 0 || (days == 0 && nanos < 0)) {
        (months, days) = (months - 1, days + 30);
    } else if months < 0 && (days > 0 || (days == 0 && nanos > 0)) {
        (months, days) = (months + 1, days - 30);
    }
    if days > 0 && nanos < 0 {
        (days, nanos) = (days - 1, nanos + day);
    } else if days < 0 && nanos > 0 {
        (days, nanos) = (days + 1, nanos - day);
    }
    IntervalMonthDayNanoType::make_value(months as i32, days as i32, nanos)
}

fn justify_hours(value: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
    let day = DAY_US * 1000;
    let (mut days, mut nanos) = (days + (nanos / day) as i32, nanos % day);
    if days > 0 && nanos < 0 {
        (days, nanos) = (days - 1, nanos + day);
    } else if days < 0 && nanos > 0 {
        (days, nanos) = (days + 1, nanos - day);
    }
    IntervalMonthDayNanoType::make_value(months, days, nanos)
}

fn justify_days(value: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
    let (mut months, mut days) = (months + days / 30, days % 30);
    if months > 0 && days < 0 {
        (months, days) = (months - 1, days + 30);
    } else if months < 0 && days > 0 {
        (months, days) = (months + 1, days - 30);
    }
    IntervalMonthDayNanoType::make_value(months, days, nanos)
}

/// `make_interval(years, months, weeks, days, hours, mins, secs)`, all optional.
fn make_interval(call: &Call) -> Result<ArrayRef> {
    let arrays = (0..call.args.len()).map(|index| call.array(index)).collect::<Result<Vec<_>>>()?;
    let part = |index: usize, row: usize| -> Option<i64> {
        match arrays.get(index) {
            None => Some(0),
            Some(array) => {
                let array = array.as_primitive::<Int32Type>();
                arrow::array::Array::is_valid(array, row).then(|| i64::from(array.value(row)))
            }
        }
    };
    let interval = |row: usize| {
        let months = part(0, row)? * 12 + part(1, row)?;
        let days = part(2, row)? * 7 + part(3, row)?;
        let seconds = match arrays.get(6) {
            None => 0.0,
            Some(array) if arrow::array::Array::is_null(array.as_ref(), row) => return None,
            Some(array) => array.as_primitive::<Float64Type>().value(row),
        };
        let us = part(4, row)? * 3_600_000_000 + part(5, row)? * 60_000_000 + (seconds * 1e6).round() as i64;
        Some(IntervalMonthDayNanoType::make_value(months as i32, days as i32, us * 1000))
    };
    Ok(Arc::new(IntervalMonthDayNanoArray::from_iter((0..call.rows).map(interval))))
}
