//! Casts that differ from Arrow's: floats round half to even, numerics half away from zero, text is read and shown as
//! PostgreSQL does, and steps between `timestamptz` and local types go through the session's zone.

use super::arithmetic::out_of_range;
use super::date_arithmetic::DAY_US;
use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, INTERVAL, NUMERIC, NUMERIC_SCALE, TIME, TIMESTAMP, class, scale_of, timestamptz};
use crate::PgType;
use crate::semantics::{Zone, is_finite, literal, text_form};
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int16Array, Int32Array, Int64Array, PrimitiveArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;
use proto::Error;
use std::sync::Arc;

macro_rules! casts {
    ($(($name:literal, $ty:expr)),* $(,)?) => {
        &[$(($name, || $ty, |types| (types.len() == 1).then(|| Overload::new(types, $ty)))),*]
    };
}

type Target = (&'static str, fn() -> DataType, fn(&[DataType]) -> Option<Overload>);

const CASTS: &[Target] = casts![
    ("cast_bool", DataType::Boolean),
    ("cast_int2", DataType::Int16),
    ("cast_int4", DataType::Int32),
    ("cast_int8", DataType::Int64),
    ("cast_oid", DataType::UInt32),
    ("cast_float4", DataType::Float32),
    ("cast_float8", DataType::Float64),
    ("cast_numeric", NUMERIC),
    ("cast_text", DataType::Utf8),
    ("cast_date", DataType::Date32),
    ("cast_time", TIME),
    ("cast_timestamp", TIMESTAMP),
    ("cast_timestamptz", timestamptz()),
    ("cast_interval", INTERVAL),
];

/// The function that casts to `ty` as PostgreSQL does; modifiers of `numeric` are applied by a plain cast above it.
pub fn cast_function(ty: &DataType) -> Option<&'static str> {
    let ty = if class(ty) == Class::Numeric { NUMERIC } else { ty.clone() };
    CASTS.iter().find(|row| (row.1)() == ty).map(|row| row.0)
}

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    CASTS.iter().map(|row| Function::new(row.0, row.2, evaluate).udf()).collect()
}

fn evaluate(call: &Call) -> Result<ArrayRef> {
    let value = call.array(0)?;
    let zone = call.zone()?;
    convert(&value, call.result, zone, super::scalar::session_now(call.config))
}

/// One array, cast as PostgreSQL does in `zone`.
pub fn convert(value: &ArrayRef, to: &DataType, zone: Zone, now_us: i64) -> Result<ArrayRef> {
    // DataFusion's own coercion of a date and a timestamp counts in nanoseconds.
    let value = &match class(value.data_type()) {
        Class::Timestamp => cast(value, &TIMESTAMP)?,
        Class::Timestamptz => cast(value, &timestamptz())?,
        _ => Arc::clone(value),
    };
    match (class(value.data_type()), class(to)) {
        (Class::Text, Class::Text) => Ok(cast(value, to)?),
        (Class::Text, _) => {
            let texts = cast(value, &DataType::Utf8)?;
            let ty = PgType::from_arrow(to).ok_or_else(|| raise(Error::internal(format!("a cast to {to}"))))?;
            literal::parse_array(texts.as_string::<i32>(), &ty, zone, now_us).map_err(raise)
        }
        (_, Class::Text) => text_form::cast_to_text(value, zone),
        (Class::Float, Class::Integer) => float_to_integer(value, to),
        (Class::Numeric, Class::Integer) => decimal_to_integer(value, to),
        (Class::Float, Class::Numeric) => float_to_decimal(value),
        (Class::Timestamptz, Class::Timestamp) => Ok(local_times(value, zone)?),
        (Class::Timestamptz, Class::Date | Class::Time) => Ok(date_or_clock(&local_times(value, zone)?, to)),
        (Class::Timestamp, Class::Date | Class::Time) => Ok(date_or_clock(value, to)),
        (Class::Float, Class::Float) if *to == DataType::Float32 => to_single(value),
        (Class::Timestamp, Class::Timestamptz) => absolute_times(value, zone),
        (Class::Date, Class::Timestamptz) => absolute_times(&cast(value, &TIMESTAMP)?, zone),
        _ => Ok(cast_with_options(value, to, &CastOptions { safe: false, ..CastOptions::default() })?),
    }
}

/// `timestamptz` as the `timestamp` that a clock in `zone` shows.
pub fn local_times(value: &ArrayRef, zone: Zone) -> Result<ArrayRef> {
    let times = value.as_primitive::<TimestampMicrosecondType>();
    let local: PrimitiveArray<TimestampMicrosecondType> = times.unary(|us| zone.to_local(us));
    Ok(Arc::new(local.with_timezone_opt(None::<Arc<str>>)))
}

/// The day or the time of day; an infinity is an infinite date and has no time of day.
fn date_or_clock(local: &ArrayRef, to: &DataType) -> ArrayRef {
    let times = local.as_primitive::<TimestampMicrosecondType>();
    match to {
        DataType::Date32 => Arc::new(times.unary::<_, Date32Type>(|us| match us {
            i64::MIN => i32::MIN,
            i64::MAX => i32::MAX,
            us => us.div_euclid(DAY_US) as i32,
        })),
        _ => {
            let clock = |us: i64| is_finite(us).then(|| us.rem_euclid(DAY_US));
            Arc::new(times.unary_opt::<_, Time64MicrosecondType>(clock))
        }
    }
}

fn to_single(value: &ArrayRef) -> Result<ArrayRef> {
    let single = cast(value, &DataType::Float32)?;
    let doubles = value.as_primitive::<Float64Type>().iter();
    let overflow = single
        .as_primitive::<Float32Type>()
        .iter()
        .zip(doubles)
        .any(|(single, double)| single.is_some_and(f32::is_infinite) && double.is_some_and(f64::is_finite));
    if overflow { Err(raise(out_of_range(&DataType::Float32))) } else { Ok(single) }
}

/// The inverse of [`local_times`].
pub fn absolute_times(value: &ArrayRef, zone: Zone) -> Result<ArrayRef> {
    let times = value.as_primitive::<TimestampMicrosecondType>();
    let utc: PrimitiveArray<TimestampMicrosecondType> = times.unary(|us| zone.to_utc(us));
    Ok(Arc::new(utc.with_timezone("UTC")))
}

fn integer_array(values: impl Iterator<Item = Option<Option<i64>>>, to: &DataType) -> Result<ArrayRef> {
    let range = || raise(out_of_range(to));
    let values = values
        .map(|value| match value {
            None => Ok(None),
            Some(None) => Err(range()),
            Some(Some(value)) => Ok(Some(value)),
        })
        .collect::<Result<Vec<_>>>()?;
    let narrow = |fits: fn(i64) -> bool| match values.iter().flatten().all(|value| fits(*value)) {
        true => Ok(()),
        false => Err(range()),
    };
    Ok(match to {
        DataType::Int16 => {
            narrow(|value| i16::try_from(value).is_ok())?;
            Arc::new(Int16Array::from_iter(values.iter().map(|value| value.map(|v| v as i16))))
        }
        DataType::Int32 => {
            narrow(|value| i32::try_from(value).is_ok())?;
            Arc::new(Int32Array::from_iter(values.iter().map(|value| value.map(|v| v as i32))))
        }
        _ => Arc::new(Int64Array::from(values)),
    })
}

fn float_to_integer(value: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let floats = cast(value, &DataType::Float64)?;
    let floats = floats.as_primitive::<Float64Type>();
    let round = |value: f64| {
        let rounded = value.round_ties_even();
        let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded);
        fits.then_some(rounded as i64)
    };
    integer_array(floats.iter().map(|value| value.map(round)), to)
}

fn decimal_to_integer(value: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let unit = 10i128.pow(u32::from(scale_of(value.data_type()).unsigned_abs()));
    let decimals = value.as_primitive::<Decimal128Type>();
    let round = |value: i128| {
        let half = if value < 0 { -(unit / 2) } else { unit / 2 };
        i64::try_from((value + half) / unit).ok()
    };
    integer_array(decimals.iter().map(|value| value.map(round)), to)
}

/// PostgreSQL keeps 15 significant digits of a float8.
fn float_to_decimal(value: &ArrayRef) -> Result<ArrayRef> {
    let digits = if *value.data_type() == DataType::Float32 { 5 } else { 14 };
    let floats = cast(value, &DataType::Float64)?;
    let mut decimals: Vec<Option<i128>> = Vec::with_capacity(floats.len());
    for float in floats.as_primitive::<Float64Type>().iter() {
        decimals.push(match float {
            None => None,
            Some(float) => match literal::decimal_value(&format!("{float:.digits$e}"), NUMERIC_SCALE) {
                Some(value) => Some(value),
                None => return Err(raise(out_of_range(&NUMERIC))),
            },
        });
    }
    Ok(Arc::new(Decimal128Array::from(decimals).with_precision_and_scale(38, NUMERIC_SCALE)?))
}

/// A constant, cast as PostgreSQL does.
pub fn convert_scalar(value: &ScalarValue, to: &DataType, zone: Zone, now_us: i64) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&convert(&value.to_array()?, to, zone, now_us)?, 0)
}
