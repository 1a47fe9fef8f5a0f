//! Values to text, text to values, and one type to another, as PostgreSQL's casts do it. Names of the reg* types are
//! looked up in the running statement's catalog.

use super::run::Context;
use super::schema::{is_integer, is_reg};
use super::time;
use super::tree::OutColumn;
use super::value::{Interval, Row, Value};
use datafusion::scalar::ScalarValue;
use engine::PgType;
use engine::types::{TimeContext, TimeZone, parse_interval, parse_scalar};
use proto::{Error, Result, SqlState};

pub(crate) fn is_text(ty: &PgType) -> bool {
    matches!(
        ty,
        PgType::Text
            | PgType::Varchar(_)
            | PgType::Bpchar(_)
            | PgType::Name
            | PgType::Char
            | PgType::Unknown
            | PgType::Json
            | PgType::Jsonb
            | PgType::Uuid
            | PgType::Bytea
    )
}

pub(crate) fn is_number(ty: &PgType) -> bool {
    is_integer(ty) || matches!(ty, PgType::Float4 | PgType::Float8 | PgType::Numeric(_))
}

/// The element type of arrays and of the two vector types.
pub(crate) fn element(ty: &PgType) -> Option<PgType> {
    match ty {
        PgType::Array(element) => Some((**element).clone()),
        PgType::Int2Vector => Some(PgType::Int2),
        PgType::OidVector => Some(PgType::Oid),
        _ => None,
    }
}

/// # Errors
/// `22P02` and its kin for text that is not a `to`; `42846` for types that do not convert.
pub(crate) fn cast(ctx: &mut Context, value: Value, from: &PgType, to: &PgType) -> Result<Value> {
    if value.is_null() || from == to && !is_text(to) {
        return Ok(value);
    }
    // The output function, where that differs from the cast: a boolean is t.
    if *to == PgType::Unknown {
        return Ok(Value::text(output(ctx, &value, from)?));
    }
    if is_text(to) {
        let text = to_text(ctx, &value, from)?;
        return Ok(Value::text(fit(&text, to)));
    }
    match (&value, to) {
        (Value::Text(text), _) if is_text(from) => parse(ctx, &text.clone(), to),
        (Value::Array(values), _) if element(to).is_some() => {
            let (inner, target) = (element(from).unwrap_or(PgType::Unknown), element(to).unwrap_or(PgType::Unknown));
            let values = values.iter().map(|value| cast(ctx, value.clone(), &inner, &target));
            Ok(Value::array(values.collect::<Result<Vec<_>>>()?))
        }
        (Value::Bool(b), PgType::Int4) => Ok(Value::Int(*b as i64)),
        (Value::Int(n), PgType::Bool) => Ok(Value::Bool(*n != 0)),
        (_, PgType::Float4 | PgType::Float8) if is_number(from) => {
            Ok(value.as_float().map_or(Value::Null, Value::Float))
        }
        (_, PgType::Numeric(modifier)) if is_number(from) => numeric(&value, modifier.map(|(_, scale)| scale as u8)),
        (_, to) if is_number(from) && is_integer(to) => in_range(value.as_int(), to),
        (Value::Timestamp(us), PgType::Date) => Ok(Value::Date(us.div_euclid(time::DAY_US) as i32)),
        (Value::Timestamp(us), PgType::Time) => Ok(Value::Time(us.rem_euclid(time::DAY_US))),
        (Value::Timestamp(_), PgType::Timestamp | PgType::Timestamptz) => Ok(value),
        (Value::Date(days), PgType::Timestamp | PgType::Timestamptz) => {
            Ok(Value::Timestamp(*days as i64 * time::DAY_US))
        }
        (Value::Record(_), PgType::Record) => Ok(value),
        // A table function's lone column may stand in for a value whose type only the session knows.
        _ if *from == PgType::Unknown => Ok(value),
        _ => Err(Error::new(SqlState::new("42846"), format!("cannot cast type {from} to {to}"))),
    }
}

fn in_range(number: Option<i64>, to: &PgType) -> Result<Value> {
    let (low, high) = match to {
        PgType::Int2 => (i16::MIN as i64, i16::MAX as i64),
        PgType::Int4 => (i32::MIN as i64, i32::MAX as i64),
        PgType::Int8 => (i64::MIN, i64::MAX),
        // -1 is a spelling of the highest oid.
        _ => (i32::MIN as i64, u32::MAX as i64),
    };
    let number = number.filter(|n| (low..=high).contains(n));
    let number =
        number.ok_or_else(|| Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{to} out of range")))?;
    Ok(Value::Int(if number < 0 && !matches!(to, PgType::Int2 | PgType::Int4 | PgType::Int8) {
        number as u32 as i64
    } else {
        number
    }))
}

fn numeric(value: &Value, scale: Option<u8>) -> Result<Value> {
    let (number, from) = match value {
        Value::Int(n) => (*n as i128, 0),
        Value::Numeric(n, scale) => (*n, *scale),
        other => match parse_numeric(&other.as_float().unwrap_or_default().to_string()) {
            Some(Value::Numeric(n, scale)) => (n, scale),
            _ => return Err(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow")),
        },
    };
    let Some(scale) = scale else { return Ok(Value::Numeric(number, from)) };
    let overflow = || Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow");
    if scale >= from {
        let unit = 10i128.checked_pow((scale - from) as u32).ok_or_else(overflow)?;
        return Ok(Value::Numeric(number.checked_mul(unit).ok_or_else(overflow)?, scale));
    }
    let unit = 10i128.pow((from - scale) as u32);
    let away = if (number % unit).abs() * 2 >= unit { number.signum() } else { 0 };
    Ok(Value::Numeric(number / unit + away, scale))
}

/// A text value under its type's length.
fn fit(text: &str, to: &PgType) -> String {
    let chars = match to {
        PgType::Char => return text.chars().take(1).collect(),
        PgType::Name => return truncate_name(text).to_owned(),
        PgType::Varchar(Some(n)) | PgType::Bpchar(Some(n)) => *n as usize,
        _ => return text.to_owned(),
    };
    text.chars().take(chars).collect()
}

/// Identifiers hold 63 bytes.
fn truncate_name(text: &str) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= 63).last();
    &text[..end.unwrap_or(0)]
}

fn malformed(ty: &PgType, text: &str) -> Error {
    let message = format!("invalid input syntax for type {ty}: \"{text}\"");
    Error::new(SqlState::INVALID_TEXT_REPRESENTATION, message)
}

fn parse(ctx: &mut Context, text: &str, to: &PgType) -> Result<Value> {
    let bad = || malformed(to, text);
    let trimmed = text.trim();
    Ok(match to {
        PgType::Bool => Value::Bool(parse_bool(trimmed).ok_or_else(bad)?),
        to if is_reg(to) => Value::Int(ctx.parse_reg(to, trimmed)?),
        to if is_integer(to) => {
            let number = trimmed.parse::<i64>().map_err(|_| bad())?;
            return in_range(Some(number), to).map_err(|_| {
                let message = format!("value \"{text}\" is out of range for type {to}");
                Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
            });
        }
        PgType::Float4 | PgType::Float8 => Value::Float(trimmed.parse().map_err(|_| bad())?),
        PgType::Numeric(modifier) => {
            return numeric(&parse_numeric(trimmed).ok_or_else(bad)?, modifier.map(|(_, scale)| scale as u8));
        }
        PgType::Timestamptz | PgType::Timestamp | PgType::Date | PgType::Time | PgType::Interval => {
            let context = TimeContext { zone: TimeZone::parse(&ctx.time_zone())?, now_us: ctx.catalog.now_us() };
            match parse_scalar(to, text, &context)? {
                ScalarValue::TimestampMicrosecond(Some(us), _) => Value::Timestamp(us),
                ScalarValue::Date32(Some(days)) => Value::Date(days),
                ScalarValue::Time64Microsecond(Some(us)) => Value::Time(us),
                _ => {
                    let (months, days, micros) = parse_interval(text)?;
                    Value::Interval(Interval { months, days, micros }.into())
                }
            }
        }
        PgType::Int2Vector | PgType::OidVector => {
            let inner = element(to).unwrap_or(PgType::Oid);
            let parts = trimmed.split_whitespace().map(|part| parse(ctx, part, &inner));
            Value::array(parts.collect::<Result<Vec<_>>>()?)
        }
        PgType::Array(inner) => {
            let parts = split_array(trimmed).ok_or_else(|| {
                let error =
                    Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{text}\""));
                error.detail("Array value must start with \"{\" or dimension information.")
            })?;
            let values = parts.into_iter().map(|part| match part {
                Some(part) if is_text(inner) => Ok(Value::text(fit(&part, inner))),
                Some(part) => parse(ctx, &part, inner),
                None => Ok(Value::Null),
            });
            Value::array(values.collect::<Result<Vec<_>>>()?)
        }
        PgType::Void => Value::Null,
        _ => return Err(Error::new(SqlState::new("42846"), format!("cannot cast type text to {to}"))),
    })
}

fn parse_bool(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let is_prefix = |word: &str| !text.is_empty() && word.starts_with(&text);
    match text.as_str() {
        "1" | "on" => Some(true),
        "0" | "off" | "of" => Some(false),
        _ if is_prefix("true") || is_prefix("yes") => Some(true),
        _ if is_prefix("false") || is_prefix("no") => Some(false),
        _ => None,
    }
}

pub(crate) fn parse_numeric(text: &str) -> Option<Value> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction}");
    let number = digits.parse::<i128>().ok()?;
    Some(Value::Numeric(number, u8::try_from(fraction.len()).ok().filter(|scale| *scale <= 30)?))
}

/// The elements of `{a,"b c",NULL}`; nested braces stay inside their element.
fn split_array(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    if inner.trim().is_empty() {
        return Some(elements);
    }
    let (mut current, mut quoted, mut was_quoted, mut depth) = (String::new(), false, false, 0usize);
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => current.push(chars.next()?),
            '"' => {
                if !was_quoted {
                    current.clear();
                }
                quoted = !quoted;
                was_quoted = true;
            }
            // Blanks around a quoted element are not part of it.
            c if was_quoted && !quoted && c.is_whitespace() => {}
            ',' if !quoted && depth == 0 => {
                elements.push(finish_element(&mut current, was_quoted));
                was_quoted = false;
            }
            c => {
                if !quoted {
                    depth = if c == '{' { depth + 1 } else { depth.saturating_sub((c == '}') as usize) };
                }
                current.push(c);
            }
        }
    }
    elements.push(finish_element(&mut current, was_quoted));
    (!quoted).then_some(elements)
}

fn finish_element(current: &mut String, was_quoted: bool) -> Option<String> {
    let text = std::mem::take(current);
    match was_quoted {
        true => Some(text),
        false if text.trim().eq_ignore_ascii_case("null") => None,
        false => Some(text.trim().to_owned()),
    }
}

/// PostgreSQL's output function of the type.
pub(crate) fn to_text(ctx: &mut Context, value: &Value, ty: &PgType) -> Result<String> {
    Ok(match value {
        Value::Null => String::new(),
        Value::Bool(b) => if *b { "true" } else { "false" }.to_owned(),
        Value::Int(n) if is_reg(ty) => ctx.reg_text(ty, *n)?,
        Value::Int(n) => n.to_string(),
        Value::Float(f) => float_text(*f),
        Value::Numeric(n, scale) => numeric_text(*n, *scale),
        Value::Text(text) => text.to_string(),
        Value::Timestamp(us) => {
            let zone = (*ty == PgType::Timestamptz).then(|| ctx.time_zone());
            time::timestamp_text(*us, zone.as_deref())
        }
        Value::Date(days) => time::date_text(*days),
        Value::Time(us) => time::time_text(*us),
        Value::Interval(interval) => time::interval_text(interval),
        Value::Array(values) => {
            let inner = element(ty).unwrap_or(PgType::Text);
            let vector = matches!(ty, PgType::Int2Vector | PgType::OidVector);
            let mut parts = Vec::with_capacity(values.len());
            for value in values.iter() {
                parts.push(match value {
                    Value::Null => "NULL".to_owned(),
                    Value::Array(_) => to_text(ctx, value, ty)?,
                    value => quote_element(&output(ctx, value, &inner)?),
                });
            }
            match vector {
                true => parts.join(" "),
                false => format!("{{{}}}", parts.join(",")),
            }
        }
        Value::Record(values) => record_text(ctx, values, &[])?,
    })
}

/// Fields of unknown type print as their values do.
fn record_text(ctx: &mut Context, values: &[Value], fields: &[(String, PgType)]) -> Result<String> {
    let parts = values.iter().enumerate().map(|(at, value)| match value {
        Value::Null => Ok(String::new()),
        value => {
            let ty = fields.get(at).map_or(PgType::Unknown, |(_, ty)| ty.clone());
            Ok(quote_field(&output(ctx, value, &ty)?))
        }
    });
    Ok(format!("({})", parts.collect::<Result<Vec<_>>>()?.join(",")))
}

/// As `to_text`, but booleans inside arrays and records are `t` and `f`.
pub(crate) fn output(ctx: &mut Context, value: &Value, ty: &PgType) -> Result<String> {
    match value {
        Value::Bool(b) => Ok(if *b { "t" } else { "f" }.to_owned()),
        value => to_text(ctx, value, ty),
    }
}

fn quote_element(text: &str) -> String {
    let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_whitespace();
    match text.is_empty() || text.contains(special) || text.eq_ignore_ascii_case("null") {
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        false => text.to_owned(),
    }
}

fn quote_field(text: &str) -> String {
    let special = |c: char| matches!(c, '(' | ')' | ',' | '"' | '\\') || c.is_whitespace();
    match text.is_empty() || text.contains(special) {
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

fn float_text(f: f64) -> String {
    match f {
        f if f.is_nan() => "NaN".to_owned(),
        f if f.is_infinite() => if f > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        f if f != 0.0 && !(1e-4..1e15).contains(&f.abs()) => {
            let text = format!("{f:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        f => f.to_string(),
    }
}

pub(crate) fn numeric_text(number: i128, scale: u8) -> String {
    if scale == 0 {
        return number.to_string();
    }
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    format!("{}{whole}.{fraction}", if number < 0 { "-" } else { "" })
}

/// What clients see of a finished result: names in reg* columns, the text of records.
pub(crate) fn name_columns(ctx: &mut Context, columns: &[OutColumn], rows: &mut [Row]) -> Result<()> {
    for (index, column) in columns.iter().enumerate() {
        let inner = element(&column.ty);
        let named = is_reg(&column.ty) || inner.as_ref().is_some_and(is_reg);
        if !named && column.ty != PgType::Record {
            continue;
        }
        for row in rows.iter_mut() {
            row[index] = match (&row[index], &inner) {
                (Value::Int(oid), _) => Value::text(ctx.reg_text(&column.ty, *oid)?),
                (Value::Array(values), Some(inner)) => {
                    let values = values.clone();
                    let names = values.iter().map(|value| cast(ctx, value.clone(), inner, &PgType::Text));
                    Value::array(names.collect::<Result<Vec<_>>>()?)
                }
                (Value::Record(fields), _) => {
                    let fields = fields.clone();
                    Value::text(record_text(ctx, &fields, column.fields.as_deref().unwrap_or(&[]))?)
                }
                (other, _) => other.clone(),
            };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_text_splits_as_postgres_reads_it() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(split_array("{a, \"b,c\" ,NULL,\"NULL\"}"), Some(vec![some("a"), some("b,c"), None, some("NULL")]));
        assert_eq!(split_array("{}"), Some(vec![]));
        assert_eq!(split_array("a,b"), None);
    }

    #[test]
    fn numbers_print_as_postgres_prints_them() {
        assert_eq!(numeric_text(-5, 2), "-0.05");
        assert_eq!(numeric_text(1250, 1), "125.0");
        assert_eq!(float_text(1e15), "1e+15");
        assert_eq!(float_text(123456.5), "123456.5");
        assert_eq!(float_text(0.00001), "1e-05");
    }
}
