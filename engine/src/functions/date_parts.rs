//! Fields of times: `extract`, `date_part`, `date_trunc`, `date_bin`. The way back is in `date_makers`.

use super::date_arithmetic::{DAY_US, timestamp_out_of_range};
use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, INTERVAL, NUMERIC, TIME, TIMESTAMP, class, scale_of, timestamptz};
use crate::semantics::{Zone, is_finite};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("extract", |types| part_types(types, NUMERIC), extract).field(extracted).udf(),
        Function::new("date_part", |types| part_types(types, DataType::Float64), date_part).udf(),
        Function::new("date_trunc", trunc_types, date_trunc).follows(1).udf(),
        Function::new("date_bin", bin_types, date_bin).follows(1).udf(),
        Function::new("isfinite", finite_types, isfinite).udf(),
    ]
}

const US: i128 = 1_000_000;

fn part_types(types: &[DataType], result: DataType) -> Option<Overload> {
    let [_, value] = types else { return None };
    let value = match class(value) {
        Class::Timestamptz => timestamptz(),
        Class::Timestamp | Class::Text | Class::Unknown => TIMESTAMP,
        Class::Date => DataType::Date32,
        Class::Time => TIME,
        Class::Interval => INTERVAL,
        _ => return None,
    };
    Some(Overload::new([DataType::Utf8, value], result))
}

fn unknown_field(field: &str, ty: &DataType) -> Error {
    let ty = super::scalar::type_name(ty);
    Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("unit \"{field}\" not recognized for type {ty}"))
}

fn unsupported_field(field: &str, ty: &DataType) -> Error {
    let ty = super::scalar::type_name(ty);
    Error::new(SqlState::FEATURE_NOT_SUPPORTED, format!("unit \"{field}\" not supported for type {ty}"))
}

/// One spelling for each field.
fn canonical(field: &str) -> String {
    let lower = field.trim().to_ascii_lowercase();
    match lower.as_str() {
        "years" | "y" | "yr" | "yrs" => "year",
        "months" | "mon" | "mons" => "month",
        "days" | "d" => "day",
        "hours" | "h" | "hr" | "hrs" => "hour",
        "minutes" | "m" | "min" | "mins" => "minute",
        "seconds" | "s" | "sec" | "secs" => "second",
        "milliseconds" | "ms" | "msec" | "msecs" => "milliseconds",
        "millisecond" => "milliseconds",
        "microsecond" | "us" | "usec" | "usecs" => "microseconds",
        "weeks" | "w" => "week",
        "decades" => "decade",
        "centuries" | "c" => "century",
        "millennium" | "millennia" | "mil" => "millennium",
        other => return other.to_owned(),
    }
    .to_owned()
}

/// Fields as millionths, exact.
fn parts(call: &Call) -> Result<Decimal128Array> {
    let (fields, values) = (call.array(0)?, call.array(1)?);
    let fields = fields.as_string::<i32>();
    let zone = if class(values.data_type()) == Class::Timestamptz { call.zone()? } else { Zone::UTC };
    let mut results: Vec<Option<i128>> = Vec::with_capacity(call.rows);
    let mut last: Option<(&str, String)> = None;
    for row in 0..call.rows {
        if fields.is_null(row) || values.is_null(row) {
            results.push(None);
            continue;
        }
        let name = fields.value(row);
        if last.as_ref().is_none_or(|(text, _)| *text != name) {
            last = Some((name, canonical(name)));
        }
        let field = last.as_ref().map_or("", |(_, field)| field.as_str());
        let millionths = part(field, &values, row, zone).map_err(raise)?;
        results.push(Some(millionths));
    }
    Ok(Decimal128Array::from(results))
}

/// Fields that can have a fraction show all of it: six digits of seconds, three of milliseconds.
fn extracted(args: &ReturnFieldArgs) -> Result<Option<FieldRef>> {
    let (Some(Some(ScalarValue::Utf8(Some(name)))), Some(value)) =
        (args.scalar_arguments.first(), args.arg_fields.get(1))
    else {
        return Ok(None);
    };
    let scale = match canonical(name).as_str() {
        "epoch" if class(value.data_type()) == Class::Date => 0,
        "epoch" | "second" => 6,
        "milliseconds" => 3,
        "julian" => return Ok(None),
        _ => 0,
    };
    Ok(Some(Arc::new(Field::new("extract", DataType::Decimal128(38, scale), true))))
}

fn extract(call: &Call) -> Result<ArrayRef> {
    let scale = i32::from(scale_of(call.result));
    let unit = 10i128.pow(scale.abs_diff(6));
    let scaled: Decimal128Array = match scale >= 6 {
        true => parts(call)?.unary(|millionths| millionths * unit),
        false => parts(call)?.unary(|millionths| millionths / unit),
    };
    Ok(Arc::new(scaled.with_data_type(call.result.clone())))
}

fn date_part(call: &Call) -> Result<ArrayRef> {
    let floats: Float64Array = parts(call)?.unary(|millionths| millionths as f64 / 1e6);
    Ok(Arc::new(floats))
}

fn part(field: &str, values: &ArrayRef, row: usize, zone: Zone) -> Result<i128, Error> {
    let ty = values.data_type();
    match class(ty) {
        Class::Interval => interval_part(field, values.as_primitive::<IntervalMonthDayNanoType>().value(row)),
        Class::Time => clock_part(field, values.as_primitive::<Time64MicrosecondType>().value(row))
            .ok_or_else(|| unknown_field(field, ty)),
        Class::Date => {
            let us = i64::from(values.as_primitive::<Date32Type>().value(row)) * DAY_US;
            match field {
                "hour" | "minute" | "second" | "milliseconds" | "microseconds" | "timezone" => {
                    Err(unsupported_field(field, ty))
                }
                _ => time_part(field, us, us, 0).ok_or_else(|| unknown_field(field, ty)),
            }
        }
        class => {
            let us = values.as_primitive::<TimestampMicrosecondType>().value(row);
            let offset = zone.offset_at(us);
            if class == Class::Timestamp && field.starts_with("timezone") {
                return Err(unsupported_field(field, ty));
            }
            time_part(field, us, zone.to_local(us), offset).ok_or_else(|| unknown_field(field, ty))
        }
    }
}

fn clock_part(field: &str, us: i64) -> Option<i128> {
    Some(match field {
        "hour" => i128::from(us / 3_600_000_000) * US,
        "minute" => i128::from(us / 60_000_000 % 60) * US,
        "second" => i128::from(us % 60_000_000),
        "milliseconds" => i128::from(us % 60_000_000) * 1000,
        "microseconds" => i128::from(us % 60_000_000) * US,
        "epoch" => i128::from(us),
        _ => return None,
    })
}

fn time_part(field: &str, utc_us: i64, local_us: i64, offset: i32) -> Option<i128> {
    if field == "epoch" {
        return Some(i128::from(utc_us));
    }
    let clock = local_us.rem_euclid(DAY_US);
    if let Some(value) = clock_part(field, clock) {
        return Some(value);
    }
    let date = DateTime::<Utc>::from_timestamp_micros(local_us)?.date_naive();
    let year = i128::from(date.year());
    // Year 0 is 1 BC: centuries and millennia count from 1 away from zero.
    let ages = |length: i128| if year > 0 { (year + length - 1) / length } else { -((length - year) / length) };
    let whole = match field {
        "year" => {
            if year > 0 {
                year
            } else {
                year - 1
            }
        }
        "month" => i128::from(date.month()),
        "day" => i128::from(date.day()),
        "dow" => i128::from(date.weekday().num_days_from_sunday()),
        "isodow" => i128::from(date.weekday().number_from_monday()),
        "doy" => i128::from(date.ordinal()),
        "week" => i128::from(date.iso_week().week()),
        "isoyear" => i128::from(date.iso_week().year()),
        "quarter" => i128::from(date.month0() / 3 + 1),
        "decade" => year.div_euclid(10),
        "century" => ages(100),
        "millennium" => ages(1000),
        "timezone" => i128::from(offset),
        "timezone_hour" => i128::from(offset / 3600),
        "timezone_minute" => i128::from(offset / 60 % 60),
        // 4713-11-24 BC is day 0.
        "julian" => {
            let days = i128::from(date.num_days_from_ce()) + 1_721_425;
            return Some(days * US + i128::from(clock) * US / i128::from(DAY_US));
        }
        _ => return None,
    };
    Some(whole * US)
}

fn interval_part(field: &str, value: IntervalMonthDayNano) -> Result<i128, Error> {
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
    let us = i128::from(nanos / 1000);
    let (months, days) = (i128::from(months), i128::from(days));
    Ok(match field {
        "year" => months / 12 * US,
        "month" => months % 12 * US,
        "day" => days * US,
        "hour" => us / 3_600_000_000 * US,
        "minute" => us / 60_000_000 % 60 * US,
        "second" => us % 60_000_000,
        "milliseconds" => us % 60_000_000 * 1000,
        "microseconds" => us % 60_000_000 * US,
        "quarter" => (months % 12 / 3 + 1) * US,
        "decade" => months / 120 * US,
        "century" => months / 1200 * US,
        "millennium" => months / 12_000 * US,
        // A year has 365.25 days here, a month 30.
        "epoch" => (months / 12 * 31_557_600 + months % 12 * 2_592_000 + days * 86_400) * US + us,
        "week" | "dow" | "doy" | "isodow" | "isoyear" | "julian" | "timezone" => {
            return Err(unsupported_field(field, &INTERVAL));
        }
        _ => return Err(unknown_field(field, &INTERVAL)),
    })
}

fn trunc_types(types: &[DataType]) -> Option<Overload> {
    let time = match class(types.get(1)?) {
        Class::Timestamptz | Class::Date | Class::Text | Class::Unknown => timestamptz(),
        Class::Timestamp => TIMESTAMP,
        Class::Interval => INTERVAL,
        _ => return None,
    };
    match (types.len(), class(&time)) {
        (2, _) => Some(Overload::new([DataType::Utf8, time.clone()], time)),
        (3, Class::Timestamptz) => Some(Overload::new([DataType::Utf8, time.clone(), DataType::Utf8], time)),
        _ => None,
    }
}

fn date_trunc(call: &Call) -> Result<ArrayRef> {
    let (fields, values) = (call.array(0)?, call.array(1)?);
    let fields = fields.as_string::<i32>();
    let ty = values.data_type().clone();
    let zones = if call.args.len() == 3 { Some(call.array(2)?) } else { None };
    let zone = match (&zones, class(&ty)) {
        (None, Class::Timestamptz) => call.zone()?,
        _ => Zone::UTC,
    };
    if class(&ty) == Class::Interval {
        let intervals = values.as_primitive::<IntervalMonthDayNanoType>();
        let rows = (0..call.rows).map(|row| {
            if fields.is_null(row) || intervals.is_null(row) {
                return Ok(None);
            }
            trunc_interval(&canonical(fields.value(row)), intervals.value(row)).map(Some).map_err(raise)
        });
        let array = PrimitiveArray::<IntervalMonthDayNanoType>::from_iter(rows.collect::<Result<Vec<_>>>()?);
        return Ok(Arc::new(array));
    }
    let times = values.as_primitive::<TimestampMicrosecondType>();
    let mut results: Vec<Option<i64>> = Vec::with_capacity(call.rows);
    let mut last: Option<(&str, String)> = None;
    for row in 0..call.rows {
        let zone = match &zones {
            None => zone,
            Some(zones) if zones.is_null(row) => {
                results.push(None);
                continue;
            }
            Some(zones) => Zone::parse(zones.as_string::<i32>().value(row)).map_err(raise)?,
        };
        if fields.is_null(row) || times.is_null(row) {
            results.push(None);
            continue;
        }
        let name = fields.value(row);
        if last.as_ref().is_none_or(|(text, _)| *text != name) {
            last = Some((name, canonical(name)));
        }
        let field = last.as_ref().map_or("", |(_, field)| field.as_str());
        let us = times.value(row);
        let local = zone.to_local(us);
        let start = match is_finite(us) {
            true => truncate(field, local).ok_or_else(|| raise(unknown_field(field, &ty)))?,
            false => us,
        };
        // Up to an hour the offset stays; from a day on the start is looked up on the clock.
        let within_hour = local.saturating_sub(start) < 3_600_000_000 && field != "day";
        results.push(Some(if within_hour { us - (local - start) } else { zone.to_utc(start) }));
    }
    let array = PrimitiveArray::<TimestampMicrosecondType>::from_iter(results);
    Ok(Arc::new(array.with_data_type(call.result.clone())))
}

/// The start of the field's unit on a wall clock; `None` for an unknown field.
fn truncate(field: &str, local_us: i64) -> Option<i64> {
    let unit = match field {
        "microseconds" => return Some(local_us),
        "milliseconds" => 1000,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => DAY_US,
        _ => 0,
    };
    if unit != 0 {
        return Some(local_us - local_us.rem_euclid(unit));
    }
    let date = DateTime::<Utc>::from_timestamp_micros(local_us)?.date_naive();
    let years = |length: i32| NaiveDate::from_ymd_opt(date.year().div_euclid(length) * length, 1, 1);
    let ages = |length: i32| NaiveDate::from_ymd_opt((date.year() - 1).div_euclid(length) * length + 1, 1, 1);
    let start = match field {
        "week" => date.checked_sub_days(chrono::Days::new(u64::from(date.weekday().num_days_from_monday())))?,
        "month" => date.with_day(1)?,
        "quarter" => date.with_day(1)?.checked_sub_months(Months::new(date.month0() % 3))?,
        "year" => date.with_day(1)?.with_month(1)?,
        "decade" => years(10)?,
        "century" => ages(100)?,
        "millennium" => ages(1000)?,
        _ => return None,
    };
    Some(start.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
}

fn trunc_interval(field: &str, value: IntervalMonthDayNano) -> Result<IntervalMonthDayNano, Error> {
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
    let cut = |unit: i64| nanos - nanos % unit;
    let (months, days, nanos) = match field {
        "microseconds" => (months, days, cut(1000)),
        "milliseconds" => (months, days, cut(1_000_000)),
        "second" => (months, days, cut(1_000_000_000)),
        "minute" => (months, days, cut(60_000_000_000)),
        "hour" => (months, days, cut(3_600_000_000_000)),
        "day" => (months, days, 0),
        "month" => (months, 0, 0),
        "quarter" => (months - months % 3, 0, 0),
        "year" => (months - months % 12, 0, 0),
        "decade" => (months - months % 120, 0, 0),
        "century" => (months - months % 1200, 0, 0),
        "millennium" => (months - months % 12_000, 0, 0),
        "week" => return Err(unsupported_field(field, &INTERVAL)),
        _ => return Err(unknown_field(field, &INTERVAL)),
    };
    Ok(IntervalMonthDayNanoType::make_value(months, days, nanos))
}

fn bin_types(types: &[DataType]) -> Option<Overload> {
    let [_, time, origin] = types else { return None };
    let zoned = [time, origin].into_iter().any(|ty| class(ty) == Class::Timestamptz);
    let plain = [time, origin].into_iter().any(|ty| class(ty) == Class::Timestamp);
    let time = if zoned || !plain { timestamptz() } else { TIMESTAMP };
    Some(Overload::new([INTERVAL, time.clone(), time.clone()], time))
}

fn date_bin(call: &Call) -> Result<ArrayRef> {
    let (strides, times, origins) = (call.array(0)?, call.array(1)?, call.array(2)?);
    let strides = strides.as_primitive::<IntervalMonthDayNanoType>();
    let (times, origins) =
        (times.as_primitive::<TimestampMicrosecondType>(), origins.as_primitive::<TimestampMicrosecondType>());
    let bin = |row: usize| -> Result<Option<i64>, Error> {
        if strides.is_null(row) || times.is_null(row) || origins.is_null(row) {
            return Ok(None);
        }
        let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(strides.value(row));
        if months != 0 {
            let message = "timestamps cannot be binned into intervals containing months or years";
            return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        let stride = i64::from(days) * DAY_US + nanos / 1000;
        if stride <= 0 {
            return Err(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "stride must be greater than zero"));
        }
        let distance = times.value(row).checked_sub(origins.value(row)).ok_or_else(timestamp_out_of_range)?;
        let start = origins.value(row).checked_add(distance - distance.rem_euclid(stride));
        start.map(Some).ok_or_else(timestamp_out_of_range)
    };
    let starts = (0..call.rows).map(|row| bin(row).map_err(raise)).collect::<Result<Vec<_>>>()?;
    let array = PrimitiveArray::<TimestampMicrosecondType>::from_iter(starts);
    Ok(Arc::new(array.with_data_type(call.result.clone())))
}

fn finite_types(types: &[DataType]) -> Option<Overload> {
    let [ty] = types else { return None };
    let ty = match class(ty) {
        Class::Timestamptz | Class::Text | Class::Unknown => timestamptz(),
        Class::Timestamp => TIMESTAMP,
        Class::Date => DataType::Date32,
        Class::Interval => INTERVAL,
        _ => return None,
    };
    Some(Overload::new([ty], DataType::Boolean))
}

fn isfinite(call: &Call) -> Result<ArrayRef> {
    let values = call.array(0)?;
    let finite = |row: usize| {
        values.is_valid(row).then(|| match class(values.data_type()) {
            Class::Date => !matches!(values.as_primitive::<Date32Type>().value(row), i32::MIN | i32::MAX),
            Class::Interval => true,
            _ => is_finite(values.as_primitive::<TimestampMicrosecondType>().value(row)),
        })
    };
    Ok(Arc::new(BooleanArray::from_iter((0..call.rows).map(finite))))
}
