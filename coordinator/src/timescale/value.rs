//! Arguments of "any" type as what a time dimension means by them: an interval, a point in time, a number of units.

use crate::catalog::Span;
use crate::pgcatalog::{Argument, Interval, Value};
use datafusion::scalar::ScalarValue;
use engine::PgType;
use engine::types::{TimeContext, parse_interval, parse_scalar};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

const DAY_US: i64 = 86_400_000_000;
/// TimescaleDB's month, where a fixed width is needed.
const DAYS_PER_MONTH: i64 = 30;

/// Default slice widths, in the units of the column.
pub fn default_width(ty: &PgType) -> i64 {
    match ty {
        PgType::Int2 => 10_000,
        PgType::Int4 => 100_000,
        PgType::Int8 => 1_000_000,
        _ => 7 * DAY_US,
    }
}

/// `chunk_time_interval`: an interval, or plain units (microseconds on a time column). `None` when not given.
///
/// # Errors
/// What TimescaleDB says of widths that are not positive or do not fit the column.
pub fn width(argument: Option<&Argument>, ty: &PgType) -> Result<Option<i64>> {
    let Some(argument) = argument.filter(|argument| !argument.value.is_null()) else { return Ok(None) };
    let is_integer = matches!(ty, PgType::Int2 | PgType::Int4 | PgType::Int8);
    let width = match &argument.value {
        Value::Int(units) => *units,
        Value::Interval(_) if is_integer => {
            return Err(invalid("invalid interval type for integer dimension".to_owned()));
        }
        Value::Interval(interval) => interval_us(interval),
        Value::Text(text) => match (text.parse::<i64>(), is_integer) {
            (Ok(units), _) => units,
            (Err(_), true) => return Err(invalid("invalid interval type for integer dimension".to_owned())),
            (Err(_), false) => {
                let (months, days, micros) = parse_interval(text)?;
                interval_us(&Interval { months, days, micros })
            }
        },
        _ => return Err(invalid(format!("invalid interval type for {ty} dimension"))),
    };
    let max = match ty {
        PgType::Int2 => i64::from(i16::MAX),
        PgType::Int4 => i64::from(i32::MAX),
        _ => i64::MAX,
    };
    if width < 1 || width > max {
        let unit = if is_integer { "" } else { " microseconds" };
        return Err(invalid(format!("invalid interval: must be between 1 and {max}{unit}")));
    }
    Ok(Some(width))
}

fn invalid(message: String) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

pub fn interval_us(interval: &Interval) -> i64 {
    let days = i64::from(interval.months) * DAYS_PER_MONTH + i64::from(interval.days);
    days.saturating_mul(DAY_US).saturating_add(interval.micros)
}

/// An argument of type interval. `None` when not given.
///
/// # Errors
/// `22007` for text that is no interval.
pub fn span(argument: Option<&Argument>) -> Result<Option<Span>> {
    Ok(match argument.map(|argument| &argument.value) {
        Some(Value::Interval(interval)) => {
            Some(Span { months: interval.months, days: interval.days, micros: interval.micros })
        }
        Some(Value::Text(text)) => {
            let (months, days, micros) = parse_interval(text)?;
            Some(Span { months, days, micros })
        }
        _ => None,
    })
}

pub fn interval(span: Span) -> Value {
    Value::Interval(Arc::new(Interval { months: span.months, days: span.days, micros: span.micros }))
}

/// An argument of type timestamptz. `None` when not given.
///
/// # Errors
/// `22007` for text that is no time.
pub fn instant(argument: Option<&Argument>, context: &TimeContext) -> Result<Option<i64>> {
    Ok(match argument.map(|argument| &argument.value) {
        Some(Value::Timestamp(us)) => Some(*us),
        Some(Value::Date(days)) => Some(midnight(*days)),
        Some(Value::Text(text)) => match parse_scalar(&PgType::Timestamptz, text, context)? {
            ScalarValue::TimestampMicrosecond(us, _) => us,
            _ => None,
        },
        _ => None,
    })
}

/// `older_than` and its kind: a point in time, or an interval before now, in the units of the time column.
///
/// # Errors
/// A kind of value that the column's type cannot be compared with.
pub fn boundary(argument: Option<&Argument>, ty: &PgType, context: &TimeContext) -> Result<Option<i64>> {
    let Some(argument) = argument.filter(|argument| !argument.value.is_null()) else { return Ok(None) };
    let is_integer = matches!(ty, PgType::Int2 | PgType::Int4 | PgType::Int8);
    let given = &argument.ty;
    let mismatch = || {
        invalid(format!("invalid time argument type \"{given}\""))
            .hint(format!("Try casting the argument to \"{ty}\"."))
    };
    // What PostgreSQL casts without being asked.
    let fits = match given {
        PgType::Unknown | PgType::Interval => true,
        PgType::Date => !is_integer,
        PgType::Timestamp => matches!(ty, PgType::Timestamp | PgType::Timestamptz),
        PgType::Timestamptz => *ty == PgType::Timestamptz,
        PgType::Int2 | PgType::Int4 | PgType::Int8 => is_integer,
        _ => false,
    };
    if !fits {
        return Err(mismatch());
    }
    let ago = |span: Span| before_now(span, ty, context);
    Ok(Some(match &argument.value {
        Value::Interval(_) if is_integer => {
            let message = "can only use an INTERVAL for TIMESTAMP, TIMESTAMPTZ, and DATE types";
            return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        Value::Int(value) => *value,
        Value::Text(text) if is_integer => text.trim().parse().map_err(|_| mismatch())?,
        Value::Timestamp(us) if *given == PgType::Timestamp && *ty == PgType::Timestamptz => at_utc(*us, context),
        Value::Timestamp(us) => *us,
        Value::Date(days) if *ty == PgType::Timestamptz => at_utc(midnight(*days), context),
        Value::Date(days) => midnight(*days),
        Value::Text(text) => match parse_scalar(ty, text, context) {
            Ok(ScalarValue::TimestampMicrosecond(Some(us), _)) => us,
            Ok(ScalarValue::Date32(Some(days))) => midnight(days),
            // TimescaleDB wants a cast here.
            _ => ago(span(Some(argument))?.expect("text is read as an interval")),
        },
        Value::Interval(_) => ago(span(Some(argument))?.expect("an interval was given")),
        _ => return Err(mismatch()),
    }))
}

/// Of a day, in microseconds; infinite dates stay infinite.
fn midnight(days: i32) -> i64 {
    i64::from(days).saturating_mul(DAY_US)
}

fn at_utc(local_us: i64, context: &TimeContext) -> i64 {
    match local_us {
        i64::MIN | i64::MAX => local_us,
        finite => context.zone.to_utc(finite).unwrap_or(finite),
    }
}

/// Now minus an interval, on the clock of the session's zone, as a value of the time column.
fn before_now(span: Span, ty: &PgType, context: &TimeContext) -> i64 {
    let at = span.before(context.now_us, &context.zone);
    match ty {
        _ if at == i64::MIN => at,
        PgType::Timestamptz => at,
        _ => {
            let local = context.zone.to_local(at).unwrap_or(at);
            if *ty == PgType::Date { local.div_euclid(DAY_US) * DAY_US } else { local }
        }
    }
}
