//! Operators on values. The binder has brought both sides to one type family; NULL in, NULL out.

use super::TEXT_BYTES_MAX;
use crate::pgcatalog::tree::Op;
use crate::pgcatalog::value::{Interval, Value};
use proto::{Error, Result, SqlState};
use regex::{Regex, RegexBuilder};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

/// `None` when a side is NULL.
pub(crate) fn compare(op: Op, left: &Value, right: &Value) -> Option<bool> {
    if left.is_null() || right.is_null() {
        return None;
    }
    let order = left.order(right);
    Some(match op {
        Op::Eq => order == Ordering::Equal,
        Op::NotEq => order != Ordering::Equal,
        Op::Lt => order == Ordering::Less,
        Op::LtEq => order != Ordering::Greater,
        Op::Gt => order == Ordering::Greater,
        Op::GtEq => order != Ordering::Less,
        _ => return None,
    })
}

pub(super) fn apply(op: Op, left: Value, right: Value) -> Result<Value> {
    if op == Op::ArrayConcat {
        return Ok(array_concat(left, right));
    }
    if left.is_null() || right.is_null() {
        return Ok(Value::Null);
    }
    match op {
        Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq => {
            Ok(compare(op, &left, &right).map_or(Value::Null, Value::Bool))
        }
        Op::Concat => {
            let (left, right) = (left.as_str(), right.as_str());
            if left.len() + right.len() > TEXT_BYTES_MAX {
                return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "text is too long"));
            }
            Ok(Value::text(format!("{left}{right}")))
        }
        Op::Match { ignore_case } => Ok(Value::Bool(regex(right.as_str(), ignore_case)?.is_match(left.as_str()))),
        Op::Like { ignore_case } => Ok(Value::Bool(like(left.as_str(), right.as_str(), ignore_case)?)),
        Op::Overlap => Ok(Value::Bool(left.elements().iter().any(|value| right.elements().contains(value)))),
        Op::Contains => Ok(Value::Bool(right.elements().iter().all(|value| left.elements().contains(value)))),
        _ => arithmetic(op, &left, &right),
    }
}

/// Either side may be an array or one element.
fn array_concat(left: Value, right: Value) -> Value {
    let part = |value: &Value| match value {
        Value::Array(values) => values.to_vec(),
        single => vec![single.clone()],
    };
    match (&left, &right) {
        (Value::Null, Value::Array(_)) => right,
        (Value::Array(_), Value::Null) => left,
        (Value::Null, Value::Null) => Value::Null,
        _ => Value::array(part(&left).into_iter().chain(part(&right))),
    }
}

fn arithmetic(op: Op, left: &Value, right: &Value) -> Result<Value> {
    let range = || Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range");
    let zero = || Error::new(SqlState::DIVISION_BY_ZERO, "division by zero");
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            let result = match op {
                Op::Add => a.checked_add(*b),
                Op::Subtract => a.checked_sub(*b),
                Op::Multiply => a.checked_mul(*b),
                Op::Divide if *b == 0 => return Err(zero()),
                Op::Modulo if *b == 0 => return Err(zero()),
                Op::Divide => a.checked_div(*b),
                Op::Modulo => a.checked_rem(*b),
                Op::BitAnd => Some(a & b),
                Op::BitOr => Some(a | b),
                _ => None,
            };
            result.map(Value::Int).ok_or_else(range)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) if op == Op::Subtract => {
            let micros = a.checked_sub(*b).ok_or_else(range)?;
            let day = super::super::time::DAY_US;
            Ok(Value::Interval(Arc::new(Interval { months: 0, days: (micros / day) as i32, micros: micros % day })))
        }
        (Value::Timestamp(time), Value::Interval(span)) => shift(*time, span, op),
        (Value::Interval(span), Value::Timestamp(time)) => shift(*time, span, op),
        (Value::Date(a), Value::Date(b)) if op == Op::Subtract => Ok(Value::Int(*a as i64 - *b as i64)),
        _ => float_arithmetic(op, left, right),
    }
}

/// Numeric arithmetic goes through doubles but for sums of equal scale: catalogs hold sizes and counts.
fn float_arithmetic(op: Op, left: &Value, right: &Value) -> Result<Value> {
    if let (Value::Numeric(a, scale), Value::Numeric(b, other)) = (left, right)
        && scale == other
        && let Some(sum) = match op {
            Op::Add => a.checked_add(*b),
            Op::Subtract => a.checked_sub(*b),
            _ => None,
        }
    {
        return Ok(Value::Numeric(sum, *scale));
    }
    let (Some(a), Some(b)) = (left.as_float(), right.as_float()) else {
        return Err(Error::new(SqlState::UNDEFINED_FUNCTION, "operator does not exist for these types"));
    };
    Ok(Value::Float(match op {
        Op::Add => a + b,
        Op::Subtract => a - b,
        Op::Multiply => a * b,
        Op::Divide | Op::Modulo if b == 0.0 => {
            return Err(Error::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
        }
        Op::Divide => a / b,
        Op::Modulo => a % b,
        _ => return Err(Error::new(SqlState::UNDEFINED_FUNCTION, "operator does not exist for these types")),
    }))
}

fn shift(time_us: i64, span: &Interval, op: Op) -> Result<Value> {
    let sign = if op == Op::Subtract { -1 } else { 1 };
    let overflow = || Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range");
    let time = chrono::DateTime::from_timestamp_micros(time_us).ok_or_else(overflow)?;
    let months = chrono::Months::new(span.months.unsigned_abs());
    let moved = match span.months * sign < 0 {
        true => time.checked_sub_months(months),
        false => time.checked_add_months(months),
    };
    let micros = moved.ok_or_else(overflow)?.timestamp_micros();
    let days_us = (span.days as i64).checked_mul(super::super::time::DAY_US).ok_or_else(overflow)?;
    let delta = days_us.checked_add(span.micros).and_then(|delta| delta.checked_mul(sign as i64));
    delta.and_then(|delta| micros.checked_add(delta)).map(Value::Timestamp).ok_or_else(overflow)
}

/// Compiled patterns a thread keeps: a query matches every row with the same one.
const PATTERNS_MAX: usize = 64;

thread_local! {
    static PATTERNS: RefCell<HashMap<(String, bool), Regex>> = RefCell::new(HashMap::new());
}

/// The common ground of POSIX and Rust patterns; what only one knows is an error.
///
/// # Errors
/// `2201B`: not a valid pattern here.
pub(crate) fn regex(pattern: &str, ignore_case: bool) -> Result<Regex> {
    PATTERNS.with_borrow_mut(|patterns| {
        let key = (pattern.to_owned(), ignore_case);
        if let Some(regex) = patterns.get(&key) {
            return Ok(regex.clone());
        }
        let regex = RegexBuilder::new(pattern).case_insensitive(ignore_case).size_limit(1 << 20).build();
        let regex = regex.map_err(|error| {
            Error::new(SqlState::new("2201B"), "invalid regular expression").detail(error.to_string())
        })?;
        if patterns.len() >= PATTERNS_MAX {
            patterns.clear();
        }
        patterns.insert(key, regex.clone());
        Ok(regex)
    })
}

/// The binder has rewritten the escape character to a backslash.
fn like(text: &str, pattern: &str, ignore_case: bool) -> Result<bool> {
    let mut anchored = String::from("(?s)^");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => anchored.push_str(".*"),
            '_' => anchored.push('.'),
            '\\' => anchored.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            c => anchored.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    anchored.push('$');
    Ok(regex(&anchored, ignore_case)?.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_escapes_and_wildcards() {
        assert!(like("pg_class", "pg\\_%", false).unwrap());
        assert!(!like("pgclass", "pg\\_%", false).unwrap());
        assert!(like("a.b", "a._", false).unwrap());
        assert!(!like("axb", "a.b", false).unwrap());
        assert!(like("ABC", "a%", true).unwrap());
    }

    #[test]
    fn integers_do_not_wrap() {
        assert!(apply(Op::Add, Value::Int(i64::MAX), Value::Int(1)).is_err());
        assert!(apply(Op::Divide, Value::Int(1), Value::Int(0)).is_err());
        assert_eq!(apply(Op::Divide, Value::Int(-7), Value::Int(2)).unwrap(), Value::Int(-3));
    }
}
