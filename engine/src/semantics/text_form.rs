//! A value becomes text inside a query: `x::text`, `||`, `concat`, `format`. Results that leave the server are encoded
//! elsewhere.

use super::Zone;
use super::zone::offset_text;
use crate::functions::types::{Class, class};
use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Timelike};
use datafusion::common::Result;
use std::fmt::Write;
use std::sync::Arc;

/// Each value as PostgreSQL prints it, in `zone`; NULL stays NULL.
pub fn to_text(array: &ArrayRef, zone: Zone) -> Result<ArrayRef> {
    let texts: StringArray = match (class(array.data_type()), array.data_type()) {
        (Class::Float, DataType::Float32) => {
            let text = |v: f32| float_text(f64::from(v), v.to_string(), &format!("{v:e}"), 6);
            array.as_primitive::<Float32Type>().iter().map(|v| v.map(text)).collect()
        }
        (Class::Float, _) => {
            let text = |v: f64| float_text(v, v.to_string(), &format!("{v:e}"), 15);
            array.as_primitive::<Float64Type>().iter().map(|v| v.map(text)).collect()
        }
        (Class::Timestamptz, _) => times(array, |us| {
            let offset = zone.offset_at(us);
            format!("{}{}", timestamp_text(us + i64::from(offset) * 1_000_000), offset_text(offset))
        }),
        (Class::Timestamp, _) => times(array, timestamp_text),
        (Class::Date, _) => {
            let days = cast(array, &DataType::Date32)?;
            days.as_primitive::<Date32Type>().iter().map(|day| day.map(|day| date_text(i64::from(day)))).collect()
        }
        (Class::Time, _) => array.as_primitive::<Time64MicrosecondType>().iter().map(|us| us.map(clock_text)).collect(),
        (Class::Interval, _) => {
            array.as_primitive::<IntervalMonthDayNanoType>().iter().map(|value| value.map(interval_text)).collect()
        }
        (Class::Numeric, _) => {
            let plain = cast(array, &DataType::Utf8)?;
            plain.as_string::<i32>().iter().map(|text| text.map(trim_numeric(array.data_type()))).collect()
        }
        (Class::Bytes, _) => {
            let bytes = cast(array, &DataType::Binary)?;
            let hex = |value: &[u8]| {
                value.iter().fold("\\x".to_owned(), |mut text, byte| {
                    let _ = write!(text, "{byte:02x}");
                    text
                })
            };
            bytes.as_binary::<i32>().iter().map(|value| value.map(hex)).collect()
        }
        (Class::List, _) => return list_text(array, zone),
        _ => return Ok(cast(array, &DataType::Utf8)?),
    };
    Ok(Arc::new(texts))
}

fn times(array: &ArrayRef, text: impl Fn(i64) -> String) -> StringArray {
    array.as_primitive::<TimestampMicrosecondType>().iter().map(|us| us.map(&text)).collect()
}

/// `2019-01-01 00:00:00.5`.
pub fn timestamp_text(local_us: i64) -> String {
    let Some(time) = DateTime::from_timestamp_micros(local_us) else {
        return if local_us < 0 { "-infinity".to_owned() } else { "infinity".to_owned() };
    };
    format!("{} {}", date_text(local_us.div_euclid(86_400_000_000)), {
        let us = i64::from(time.num_seconds_from_midnight()) * 1_000_000 + i64::from(time.nanosecond() / 1000);
        clock_text(us)
    })
}

fn date_text(days: i64) -> String {
    match DateTime::from_timestamp(days * 86_400, 0) {
        Some(date) => format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
        None if days < 0 => "-infinity".to_owned(),
        None => "infinity".to_owned(),
    }
}

/// `00:00:00`, with as many digits of a second as are not zero.
pub fn clock_text(us: i64) -> String {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match fraction {
        0 => clock,
        _ => format!("{clock}.{}", format!("{fraction:06}").trim_end_matches('0')),
    }
}

/// IntervalStyle `postgres`: `1 year 2 mons 3 days 04:05:06`.
pub fn interval_text(value: arrow::datatypes::IntervalMonthDayNano) -> String {
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
    let mut parts: Vec<String> = Vec::new();
    let mut negative_before = false;
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            let plus = if negative_before && count > 0 { "+" } else { "" };
            parts.push(format!("{plus}{count} {unit}{}", if count == 1 { "" } else { "s" }));
            negative_before = count < 0;
        }
    }
    let us = nanos / 1000;
    if us != 0 || parts.is_empty() {
        let sign = match us {
            us if us < 0 => "-",
            _ if negative_before => "+",
            _ => "",
        };
        parts.push(format!("{sign}{}", clock_text(us.saturating_abs())));
    }
    parts.join(" ")
}

/// PostgreSQL's shortest-exact form: plain digits below 10^`digits`, then an exponent of at least two digits.
fn float_text(value: f64, plain: String, scientific: &str, digits: i32) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-Infinity".to_owned() } else { "Infinity".to_owned() };
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..digits).contains(&exponent) {
        return plain;
    }
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Unconstrained `numeric` has no fixed scale: drop the zeros that our fixed one adds.
fn trim_numeric(ty: &DataType) -> impl Fn(&str) -> String {
    let unconstrained = *ty == crate::functions::types::NUMERIC;
    move |text: &str| match unconstrained && text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    }
}

fn list_text(array: &ArrayRef, zone: Zone) -> Result<ArrayRef> {
    let lists = array.as_list::<i32>();
    let mut texts = StringBuilder::new();
    for row in 0..lists.len() {
        if lists.is_null(row) {
            texts.append_null();
            continue;
        }
        let items = to_text(&lists.value(row), zone)?;
        let items: Vec<String> = items.as_string::<i32>().iter().map(element_text).collect();
        texts.append_value(format!("{{{}}}", items.join(",")));
    }
    Ok(Arc::new(texts.finish()))
}

fn element_text(item: Option<&str>) -> String {
    let Some(text) = item else { return "NULL".to_owned() };
    let special = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ',' | '"' | '\\');
    match text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special) {
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        false => text.to_owned(),
    }
}
