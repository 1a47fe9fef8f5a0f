//! Times from their fields: `make_date`, `make_time`, `make_timestamp`, `to_timestamp(number)`.

use super::date_arithmetic::{DAY_US, timestamp_out_of_range};
use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, TIME, TIMESTAMP, class, timestamptz};
use crate::semantics::Zone;
use arrow::array::{Array, ArrayRef, AsArray, Date32Array, PrimitiveArray};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Time64MicrosecondType, TimestampMicrosecondType};
use chrono::{Datelike, NaiveDate};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("make_date", make_date_types, make_date).udf(),
        Function::new("make_timestamp", |types| make_types(types, TIMESTAMP), make_timestamp).udf(),
        Function::new("make_timestamptz", |types| make_types(types, timestamptz()), make_timestamp).udf(),
        Function::new("make_time", make_time_types, make_time).udf(),
        Function::new("to_timestamp", to_timestamp_types, to_timestamp).udf(),
    ]
}

fn make_date_types(types: &[DataType]) -> Option<Overload> {
    (types.len() == 3).then(|| Overload::new(vec![DataType::Int32; 3], DataType::Date32))
}

fn make_date(call: &Call) -> Result<ArrayRef> {
    let arrays = [call.array(0)?, call.array(1)?, call.array(2)?];
    let [years, months, days] = arrays.each_ref().map(|array| array.as_primitive::<Int32Type>());
    let make = |row: usize| -> Result<Option<i32>> {
        if years.is_null(row) || months.is_null(row) || days.is_null(row) {
            return Ok(None);
        }
        let (year, month, day) = (years.value(row), months.value(row), days.value(row));
        date_of(year, month, day).map(Some).map_err(raise)
    };
    Ok(Arc::new(Date32Array::from_iter((0..call.rows).map(make).collect::<Result<Vec<_>>>()?)))
}

fn date_of(year: i32, month: i32, day: i32) -> Result<i32, Error> {
    let out_of_range = || {
        let message = format!("date field value out of range: {year}-{month:02}-{day:02}");
        Error::new(SqlState::DATETIME_FIELD_OVERFLOW, message)
    };
    // A negative year is BC, and there is no year 0.
    let astronomical = match year {
        0 => return Err(out_of_range()),
        year if year < 0 => year + 1,
        year => year,
    };
    let (Ok(month), Ok(day)) = (u32::try_from(month), u32::try_from(day)) else { return Err(out_of_range()) };
    let date = NaiveDate::from_ymd_opt(astronomical, month, day).ok_or_else(out_of_range)?;
    Ok(date.num_days_from_ce() - 719_163)
}

/// `(year, month, day, hour, min, sec [, zone])`.
fn make_types(types: &[DataType], result: DataType) -> Option<Overload> {
    let mut args = vec![DataType::Int32; 5];
    args.push(DataType::Float64);
    match (types.len(), class(&result)) {
        (6, _) => {}
        (7, Class::Timestamptz) => args.push(DataType::Utf8),
        _ => return None,
    }
    Some(Overload::new(args, result))
}

fn make_timestamp(call: &Call) -> Result<ArrayRef> {
    let arrays = (0..call.args.len()).map(|index| call.array(index)).collect::<Result<Vec<_>>>()?;
    let session = if class(call.result) == Class::Timestamptz { call.zone()? } else { Zone::UTC };
    let make = |row: usize| -> Result<Option<i64>> {
        if arrays.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let part = |index: usize| arrays[index].as_primitive::<Int32Type>().value(row);
        let seconds = arrays[5].as_primitive::<Float64Type>().value(row);
        let (hour, minute) = (part(3), part(4));
        if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..=60.0).contains(&seconds) {
            let message = format!("time field value out of range: {hour}:{minute:02}:{seconds:02}");
            return Err(raise(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, message)));
        }
        let days = i64::from(date_of(part(0), part(1), part(2)).map_err(raise)?);
        let clock = i64::from(hour) * 3_600_000_000 + i64::from(minute) * 60_000_000 + (seconds * 1e6).round() as i64;
        let zone = match arrays.get(6) {
            None => session,
            Some(names) => Zone::parse(names.as_string::<i32>().value(row)).map_err(raise)?,
        };
        Ok(Some(zone.to_utc(days * DAY_US + clock)))
    };
    let results = (0..call.rows).map(make).collect::<Result<Vec<_>>>()?;
    let array = PrimitiveArray::<TimestampMicrosecondType>::from_iter(results);
    Ok(Arc::new(array.with_data_type(call.result.clone())))
}

fn make_time_types(types: &[DataType]) -> Option<Overload> {
    (types.len() == 3).then(|| Overload::new([DataType::Int32, DataType::Int32, DataType::Float64], TIME))
}

fn make_time(call: &Call) -> Result<ArrayRef> {
    let arrays = [call.array(0)?, call.array(1)?, call.array(2)?];
    let make = |row: usize| -> Result<Option<i64>> {
        if arrays.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let part = |index: usize| arrays[index].as_primitive::<Int32Type>().value(row);
        let (hour, minute, second) = (part(0), part(1), arrays[2].as_primitive::<Float64Type>().value(row));
        if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..=60.0).contains(&second) {
            let message = format!("time field value out of range: {hour}:{minute:02}:{second:02}");
            return Err(raise(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, message)));
        }
        let us = i64::from(hour) * 3_600_000_000 + i64::from(minute) * 60_000_000 + (second * 1e6).round() as i64;
        Ok(Some(us))
    };
    let clocks = (0..call.rows).map(make).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(PrimitiveArray::<Time64MicrosecondType>::from_iter(clocks)))
}

fn to_timestamp_types(types: &[DataType]) -> Option<Overload> {
    match types {
        [one] if matches!(class(one), Class::Integer | Class::Numeric | Class::Float | Class::Unknown) => {
            Some(Overload::new([DataType::Float64], timestamptz()))
        }
        [_, _] => Some(Overload::new([DataType::Utf8, DataType::Utf8], timestamptz())),
        _ => None,
    }
}

fn to_timestamp(call: &Call) -> Result<ArrayRef> {
    if call.args.len() == 2 {
        return super::to_char::to_timestamp(call);
    }
    let seconds = call.array(0)?;
    let times: PrimitiveArray<TimestampMicrosecondType> =
        seconds.as_primitive::<Float64Type>().try_unary(|seconds| {
            let us = (seconds * 1e6).round_ties_even();
            let fits = (-9.2e18..9.2e18).contains(&us);
            if fits { Ok(us as i64) } else { Err(raise(timestamp_out_of_range())) }
        })?;
    Ok(Arc::new(times.with_timezone("UTC")))
}
