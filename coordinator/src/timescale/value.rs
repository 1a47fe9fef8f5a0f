//! Arguments of "any" type as what a time dimension means by them: an interval, a point in time, a number of units.

use crate::pgcatalog::{Argument, Interval, Value};
use datafusion::scalar::ScalarValue;
use engine::PgType;
use engine::types::{TimeContext, parse_interval, parse_scalar};
use proto::{Error, Result, SqlState};

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

/// `older_than` and its kind: a point in time, or an interval before now, in the units of the time column.
///
/// # Errors
/// A kind of value that the column's type cannot be compared with.
pub fn boundary(argument: Option<&Argument>, ty: &PgType, context: &TimeContext) -> Result<Option<i64>> {
    let Some(argument) = argument.filter(|argument| !argument.value.is_null()) else { return Ok(None) };
    let is_integer = matches!(ty, PgType::Int2 | PgType::Int4 | PgType::Int8);
    let mismatch = || {
        let given = &argument.ty;
        Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid time argument type \"{given}\""))
            .hint(format!("Try casting the argument to \"{ty}\"."))
    };
    Ok(Some(match &argument.value {
        Value::Int(value) if is_integer => *value,
        Value::Text(text) if is_integer => text.parse().map_err(|_| mismatch())?,
        _ if is_integer => return Err(mismatch()),
        Value::Timestamp(us) => *us,
        Value::Date(days) => i64::from(*days) * DAY_US,
        Value::Interval(interval) => context.now_us.saturating_sub(interval_us(interval)),
        Value::Text(text) => match parse_scalar(&PgType::Timestamptz, text, context) {
            Ok(ScalarValue::TimestampMicrosecond(Some(us), _)) => us,
            _ => {
                let (months, days, micros) = parse_interval(text)?;
                context.now_us.saturating_sub(interval_us(&Interval { months, days, micros }))
            }
        },
        _ => return Err(mismatch()),
    }))
}
