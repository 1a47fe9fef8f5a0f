//! Text becomes a typed value: literals in a statement, and text columns that are cast. The one place where the
//! semantics layer reads a value's text form.

use super::Zone;
use crate::functions::types::INTERVAL;
use arrow::array::{Array, ArrayRef, StringArray, new_null_array};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, IntervalMonthDayNanoType};
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::common::{Result, ScalarValue};
use proto::{Error, SqlState};
use std::sync::Arc;

/// Reads text as a value of `ty`; times without an offset are in `zone`, `now` and its relatives are `now_us`.
///
/// # Errors
/// 22P02, 22007, 22008 or 22003, in PostgreSQL's words.
pub fn parse(text: &str, ty: &DataType, zone: Zone, now_us: i64) -> Result<ScalarValue, Error> {
    match ty {
        DataType::Boolean => Ok(ScalarValue::Boolean(Some(boolean(text)?))),
        DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::UInt32 => integer(text, ty),
        DataType::Float32 => Ok(ScalarValue::Float32(Some(float(text, "real")? as f32))),
        DataType::Float64 => Ok(ScalarValue::Float64(Some(float(text, "double precision")?))),
        DataType::Decimal128(precision, scale) => decimal(text, *precision, *scale),
        DataType::Utf8 => Ok(ScalarValue::Utf8(Some(text.to_owned()))),
        DataType::Date32 => {
            let local = datetime(text, Zone::UTC, now_us, "date")?;
            Ok(ScalarValue::Date32(Some(local.div_euclid(DAY_US) as i32)))
        }
        DataType::Timestamp(_, None) => {
            let local = datetime(&without_offset(text), Zone::UTC, now_us, "timestamp")?;
            Ok(ScalarValue::TimestampMicrosecond(Some(local), None))
        }
        DataType::Timestamp(_, Some(_)) => {
            let utc = datetime(text, zone, now_us, "timestamp with time zone")?;
            Ok(ScalarValue::TimestampMicrosecond(Some(utc), Some("UTC".into())))
        }
        DataType::Interval(_) => interval(text),
        DataType::List(item) => list(text, item, zone, now_us),
        other => arrow_parse(text, other),
    }
}

const DAY_US: i64 = 86_400_000_000;

fn bad(ty: &str, text: &str) -> Error {
    let code = match ty {
        "date" | "timestamp" | "timestamp with time zone" | "interval" | "time" => SqlState::INVALID_DATETIME_FORMAT,
        _ => SqlState::INVALID_TEXT_REPRESENTATION,
    };
    Error::new(code, format!("invalid input syntax for type {ty}: \"{text}\""))
}

fn boolean(text: &str) -> Result<bool, Error> {
    let lower = text.trim().to_ascii_lowercase();
    let prefix = |word: &str| !lower.is_empty() && word.starts_with(&lower);
    match lower.as_str() {
        "1" | "on" => Ok(true),
        "0" | "off" | "of" => Ok(false),
        _ if prefix("true") || prefix("yes") => Ok(true),
        _ if prefix("false") || prefix("no") => Ok(false),
        _ => Err(bad("boolean", text)),
    }
}

fn integer(text: &str, ty: &DataType) -> Result<ScalarValue, Error> {
    let name = crate::functions::scalar::type_name(ty);
    let digits = text.trim();
    let plain = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad(&name, text));
    }
    let range = || {
        let message = format!("value \"{text}\" is out of range for type {name}");
        Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
    };
    let value: i64 = digits.parse().map_err(|_| range())?;
    Ok(match ty {
        DataType::Int16 => ScalarValue::Int16(Some(value.try_into().map_err(|_| range())?)),
        DataType::Int32 => ScalarValue::Int32(Some(value.try_into().map_err(|_| range())?)),
        DataType::UInt32 => ScalarValue::UInt32(Some(value.try_into().map_err(|_| range())?)),
        _ => ScalarValue::Int64(Some(value)),
    })
}

fn float(text: &str, name: &str) -> Result<f64, Error> {
    let trimmed = text.trim();
    match trimmed.to_ascii_lowercase().as_str() {
        "nan" => Ok(f64::NAN),
        "infinity" | "+infinity" | "inf" | "+inf" => Ok(f64::INFINITY),
        "-infinity" | "-inf" => Ok(f64::NEG_INFINITY),
        lower if lower.bytes().any(|b| b.is_ascii_digit()) => match lower.parse::<f64>() {
            Ok(value) if value.is_infinite() => {
                let message = format!("\"{text}\" is out of range for type {name}");
                Err(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message))
            }
            Ok(value) => Ok(value),
            Err(_) => Err(bad(name, text)),
        },
        _ => Err(bad(name, text)),
    }
}

/// Digits, an optional point, an optional exponent; rounded half away from zero to `scale`.
fn decimal(text: &str, precision: u8, scale: i8) -> Result<ScalarValue, Error> {
    let value = decimal_value(text, i32::from(scale)).ok_or_else(|| bad("numeric", text))?;
    let overflow = || Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow");
    let value = value.ok_or_else(overflow)?;
    if value.unsigned_abs() >= 10u128.pow(u32::from(precision)) {
        return Err(overflow());
    }
    Ok(ScalarValue::Decimal128(Some(value), precision, scale))
}

/// Outer `None`: not a number; inner `None`: too large.
pub fn decimal_value(text: &str, scale: i32) -> Option<Option<i128>> {
    let trimmed = text.trim();
    let (mantissa, exponent) = match trimmed.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (trimmed, 0),
    };
    let (negative, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let keep = i32::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_add(scale)?;
    let mut value: i128 = 0;
    for index in 0..keep.clamp(0, 60_000) {
        let digit = digits.get(index as usize).map_or(0, |b| i128::from(b - b'0'));
        match value.checked_mul(10).and_then(|v| v.checked_add(digit)) {
            Some(next) => value = next,
            None => return Some(None),
        }
    }
    if keep >= 0 && digits.get(keep as usize).is_some_and(|digit| *digit >= b'5') {
        value += 1;
    }
    Some(Some(if negative { -value } else { value }))
}

/// Microseconds since 1970: absolute where text has an offset or `zone` is given, else local.
fn datetime(text: &str, zone: Zone, now_us: i64, name: &str) -> Result<i64, Error> {
    let trimmed = text.trim();
    let midnight = |days: i64| zone.to_utc((zone.to_local(now_us).div_euclid(DAY_US) + days) * DAY_US);
    match trimmed.to_ascii_lowercase().as_str() {
        "epoch" => return Ok(0),
        "now" => return Ok(now_us),
        "today" => return Ok(midnight(0)),
        "tomorrow" => return Ok(midnight(1)),
        "yesterday" => return Ok(midnight(-1)),
        _ => {}
    }
    let looks_dated = trimmed.as_bytes().first().is_some_and(u8::is_ascii_digit) && trimmed.len() >= 8;
    let (text_us, offset) = match looks_dated.then(|| local_and_offset(trimmed)).flatten() {
        Some(found) => found,
        None if looks_dated && trimmed.bytes().filter(|b| *b == b'-').count() == 2 => {
            let message = format!("date/time field value out of range: \"{text}\"");
            return Err(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, message));
        }
        None => return Err(bad(name, text)),
    };
    Ok(match offset {
        Some(seconds) => text_us - i64::from(seconds) * 1_000_000,
        None => zone.to_utc(text_us),
    })
}

/// Local microseconds and, where the text gives one, its offset in seconds.
fn local_and_offset(text: &str) -> Option<(i64, Option<i32>)> {
    // A trailing zone name or offset, after the time.
    let time_at = text.find([' ', 'T', 't']);
    let (body, zone) = match time_at {
        None => (text, None),
        Some(at) => {
            let rest = &text[at + 1..];
            match rest.find(['+', '-', 'Z', 'z']).or_else(|| rest.find(|c: char| c.is_ascii_alphabetic())) {
                Some(cut) => (text[..at + 1 + cut].trim_end(), Some(rest[cut..].trim())),
                None => (text, None),
            }
        }
    };
    let utc: DateTime<Utc> = match body.len() {
        10 => NaiveDate::parse_from_str(body, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc(),
        _ if body.contains(' ') || body.contains('T') => {
            // `24:00:00` ends a day, hours without minutes are not a time.
            let body = if body.matches(':').count() == 1 { format!("{body}:00") } else { body.to_owned() };
            string_to_datetime(&Utc, &body).ok()?.to_utc()
        }
        _ => NaiveDate::parse_from_str(body, "%Y-%m-%d")
            .or_else(|_| NaiveDate::parse_from_str(body, "%Y%m%d"))
            .ok()?
            .and_hms_opt(0, 0, 0)?
            .and_utc(),
    };
    let local = utc.timestamp_micros();
    let offset = match zone {
        None => None,
        Some(name) => Some(match Zone::parse(name).ok()? {
            Zone::Fixed(seconds) => seconds,
            named => {
                let at = named.to_utc(local);
                named.offset_at(at)
            }
        }),
    };
    Some((local, offset))
}

/// A `timestamp` ignores the offset that its text carries.
fn without_offset(text: &str) -> String {
    let trimmed = text.trim();
    let Some(time_at) = trimmed.find([' ', 'T']) else {
        return trimmed.to_owned();
    };
    match trimmed[time_at + 1..].find(['+', '-', 'Z', 'z']) {
        Some(cut) => trimmed[..time_at + 1 + cut].trim_end().to_owned(),
        None => trimmed.to_owned(),
    }
}

fn interval(text: &str) -> Result<ScalarValue, Error> {
    let lower = text.trim().to_ascii_lowercase();
    let (body, ago) = match lower.strip_suffix("ago") {
        Some(body) => (body.trim(), true),
        None => (lower.strip_prefix('@').unwrap_or(&lower).trim(), false),
    };
    let parsed = arrow_parse(body, &INTERVAL).map_err(|_| bad("interval", text))?;
    let ScalarValue::IntervalMonthDayNano(Some(value)) = parsed else {
        return Err(bad("interval", text));
    };
    let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
    let sign = if ago { -1 } else { 1 };
    let value = IntervalMonthDayNanoType::make_value(sign * months, sign * days, i64::from(sign) * nanos);
    Ok(ScalarValue::IntervalMonthDayNano(Some(value)))
}

/// `{1,2,NULL,"a b"}`, one dimension.
fn list(text: &str, item: &arrow::datatypes::FieldRef, zone: Zone, now_us: i64) -> Result<ScalarValue, Error> {
    let malformed =
        || Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{text}\""));
    let inner = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(malformed)?;
    let mut elements: Vec<Option<String>> = Vec::new();
    let mut characters = inner.chars().peekable();
    while characters.peek().is_some() {
        let (mut element, mut quoted, mut closed) = (String::new(), false, false);
        while let Some(c) = characters.next() {
            match c {
                '"' if !quoted => quoted = true,
                '"' if !closed => closed = true,
                '\\' => element.extend(characters.next()),
                ',' if !quoted || closed => break,
                '{' | '}' if !quoted => return Err(malformed()),
                c if quoted && closed && !c.is_whitespace() => return Err(malformed()),
                _ if closed => {}
                c => element.push(c),
            }
        }
        let text = if quoted { element } else { element.trim().to_owned() };
        elements.push(if !quoted && text.eq_ignore_ascii_case("null") { None } else { Some(text) });
    }
    let values = elements
        .iter()
        .map(|element| match element {
            Some(text) => parse(text, item.data_type(), zone, now_us),
            None => ScalarValue::try_from(item.data_type()).map_err(|error| Error::internal(error.to_string())),
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(ScalarValue::List(ScalarValue::new_list(&values, item.data_type(), true)))
}

fn arrow_parse(text: &str, ty: &DataType) -> Result<ScalarValue, Error> {
    let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let failed = || bad(&crate::functions::scalar::type_name(ty), text);
    let value = cast_with_options(&array, ty, &options).map_err(|_| failed())?;
    ScalarValue::try_from_array(&value, 0).map_err(|_| failed())
}

/// A whole column of text.
pub fn parse_array(texts: &StringArray, ty: &DataType, zone: Zone, now_us: i64) -> Result<ArrayRef, Error> {
    if texts.is_empty() {
        return Ok(new_null_array(ty, 0));
    }
    let null = ScalarValue::try_from(ty).map_err(|error| Error::internal(error.to_string()))?;
    let values = texts
        .iter()
        .map(|text| text.map_or_else(|| Ok(null.clone()), |text| parse(text, ty, zone, now_us)))
        .collect::<Result<Vec<_>, Error>>()?;
    ScalarValue::iter_to_array(values).map_err(|error| Error::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::types::{TIMESTAMP, timestamptz};

    #[test]
    fn text_is_read_in_the_sessions_zone() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let us = |text: &str, ty: &DataType| match parse(text, ty, berlin, 0).unwrap() {
            ScalarValue::TimestampMicrosecond(Some(us), _) => us / 1_000_000,
            other => panic!("{other:?}"),
        };
        assert_eq!(us("2019-01-01", &timestamptz()), 1_546_297_200);
        assert_eq!(us("2019-01-01 00:00:00+00", &timestamptz()), 1_546_300_800);
        assert_eq!(us("2019-01-01T00:00:00Z", &timestamptz()), 1_546_300_800);
        assert_eq!(us("2019-01-01 00:00:00 America/New_York", &timestamptz()), 1_546_318_800);
        assert_eq!(us("2019-01-01 00:00:00+05", &TIMESTAMP), 1_546_300_800);
    }

    #[test]
    fn numbers_round_half_away_from_zero() {
        assert_eq!(decimal_value("1.005", 2), Some(Some(101)));
        assert_eq!(decimal_value("-2.5", 0), Some(Some(-3)));
        assert_eq!(decimal_value("1e3", 1), Some(Some(10000)));
        assert_eq!(decimal_value("0.0004", 2), Some(Some(0)));
        assert_eq!(decimal_value("x", 2), None);
    }
}
