//! Text to dates and times.
//!
//! `YYYY-MM-DD HH:MM:SS[.ffffff][zone offset]` is read in one pass over fixed positions, because loading data is that
//! and little else. Anything else, and anything wrong, takes the general grammar of `fields`.

use super::super::calendar::{
    DATE_MAX, DATE_MIN, TIMESTAMP_MIN, US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND, days_from_civil,
    days_in_month,
};
use super::TimeContext;
use super::fields::{DateTimeFields, Fault, Special, Zone};
use proto::{Error, Result, SqlState};

const TIMESTAMPTZ: &str = "timestamp with time zone";
const TIMESTAMP: &str = "timestamp";
const DATE: &str = "date";
const TIME: &str = "time";

/// Microseconds since 1970-01-01 UTC. A text without a zone is local time in the session's zone.
///
/// # Errors
/// 22007 for a text that is no timestamp, 22008 for fields or values out of range, 22009 and 22023 for zones.
pub fn parse_timestamptz(text: &str, context: &TimeContext) -> Result<i64> {
    if let Some((local_us, east_s)) = iso_timestamp(text.as_bytes()) {
        let utc_us = match east_s {
            Some(east_s) => Some(local_us - i64::from(east_s) * US_PER_SECOND),
            None => context.zone.to_utc(local_us),
        };
        return utc_us.ok_or_else(|| out_of_range(TIMESTAMP, text));
    }
    let fields = read(text, TIMESTAMPTZ)?;
    if let Some(special) = fields.special {
        return special_timestamp(special, &fields, context).ok_or_else(|| out_of_range(TIMESTAMP, text));
    }
    let local_us = local_timestamp(&fields, text, TIMESTAMPTZ)?;
    let utc_us = local_us.and_then(|us| to_utc(us, &fields, context));
    in_range(utc_us).ok_or_else(|| out_of_range(TIMESTAMP, text))
}

/// Microseconds since 1970-01-01 on the local clock; a zone in the text is read and ignored.
///
/// # Errors
/// As `parse_timestamptz`.
pub fn parse_timestamp(text: &str, context: &TimeContext) -> Result<i64> {
    if let Some((local_us, _)) = iso_timestamp(text.as_bytes()) {
        return Ok(local_us);
    }
    let fields = read(text, TIMESTAMP)?;
    let local_us = match fields.special {
        Some(Special::Now) => context.zone.to_local(context.now_us),
        Some(special @ Special::Today(_)) => local_day(special, context).and_then(|day| at_time(day, &fields)),
        Some(special) => {
            return special_timestamp(special, &fields, context).ok_or_else(|| out_of_range(TIMESTAMP, text));
        }
        None => local_timestamp(&fields, text, TIMESTAMP)?,
    };
    in_range(local_us).ok_or_else(|| out_of_range(TIMESTAMP, text))
}

/// Days since 1970-01-01; a time in the text is read and ignored.
///
/// # Errors
/// As `parse_timestamptz`.
pub fn parse_date(text: &str, context: &TimeContext) -> Result<i32> {
    if let (10, Some(days)) = (text.len(), iso_date(text.as_bytes())) {
        return Ok(days as i32);
    }
    let fields = read(text, DATE)?;
    let days = match fields.special {
        Some(Special::Infinity) => return Ok(i32::MAX),
        Some(Special::MinusInfinity) => return Ok(i32::MIN),
        Some(Special::Epoch) => Some(0),
        Some(special) => local_day(special, context),
        None => fields.days(),
    };
    let days = days.ok_or_else(|| syntax(DATE, text))?;
    i32::try_from(days).ok().filter(|days| (DATE_MIN..=DATE_MAX).contains(days)).ok_or_else(|| out_of_range(DATE, text))
}

/// Microseconds since midnight, 24:00:00 included; a date and a zone in the text are read and ignored.
///
/// # Errors
/// As `parse_timestamptz`.
pub fn parse_time(text: &str, context: &TimeContext) -> Result<i64> {
    if let (8, Some(us)) = (text.len(), iso_clock(text.as_bytes())) {
        return Ok(us);
    }
    let fields = read(text, TIME)?;
    match (fields.special, fields.time_us) {
        (Some(Special::Now), _) => {
            let local_us = context.zone.to_local(context.now_us).ok_or_else(|| out_of_range(TIMESTAMP, text))?;
            Ok(local_us.rem_euclid(US_PER_DAY))
        }
        (None, Some(us)) => Ok(us),
        _ => Err(syntax(TIME, text)),
    }
}

/// Local microseconds and the offset, of exactly `YYYY-MM-DD{ |T}HH:MM:SS[.f{1,6}][Z|±hh[:mm]]`.
fn iso_timestamp(bytes: &[u8]) -> Option<(i64, Option<i32>)> {
    if bytes.len() < 19 || !matches!(bytes[10], b' ' | b'T') {
        return None;
    }
    let mut local_us = iso_date(bytes)? * US_PER_DAY + iso_clock(&bytes[11..])?;
    let mut rest = &bytes[19..];
    if rest.is_empty() {
        return Some((local_us, None));
    }
    if rest[0] == b'.' {
        let digits = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=6).contains(&digits) {
            return None;
        }
        let mut fraction = 0;
        for digit in &rest[1..=digits] {
            fraction = fraction * 10 + i64::from(digit - b'0');
        }
        local_us += fraction * 10_i64.pow(6 - digits as u32);
        rest = &rest[digits + 1..];
    }
    let east_s = match rest {
        [] => return Some((local_us, None)),
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), hour_minute @ ..] => {
            let seconds = match hour_minute {
                [a, b] => two(*a, *b)? * 3600,
                [a, b, b':', c, d] => two(*a, *b)? * 3600 + two(*c, *d).filter(|minute| *minute < 60)? * 60,
                _ => return None,
            };
            if seconds >= 16 * 3600 {
                return None;
            }
            if *sign == b'-' { -(seconds as i32) } else { seconds as i32 }
        }
        _ => return None,
    };
    Some((local_us, Some(east_s)))
}

/// Days of `YYYY-MM-DD` at the start; `None` if it is no date of the years 1 to 9999.
fn iso_date(bytes: &[u8]) -> Option<i64> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *bytes.first_chunk::<10>()? else { return None };
    let year = two(y0, y1)? * 100 + two(y2, y3)?;
    let (month, day) = (two(m0, m1)? as u32, two(d0, d1)? as u32);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    Some(days_from_civil(year, month, day))
}

/// Microseconds of `HH:MM:SS` at the start.
fn iso_clock(bytes: &[u8]) -> Option<i64> {
    let [h0, h1, b':', m0, m1, b':', s0, s1] = *bytes.first_chunk::<8>()? else { return None };
    let (hour, minute, second) = (two(h0, h1)?, two(m0, m1)?, two(s0, s1)?);
    (hour < 24 && minute < 60 && second < 60)
        .then_some(hour * US_PER_HOUR + minute * US_PER_MINUTE + second * US_PER_SECOND)
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

fn read(text: &str, ty: &str) -> Result<DateTimeFields> {
    DateTimeFields::read(text, ty == TIME).map_err(|fault| match fault {
        Fault::Syntax => syntax(ty, text),
        Fault::Field => field_out_of_range(text),
        Fault::MonthOrDay => field_out_of_range(text).hint("Perhaps you need a different \"datestyle\" setting."),
        Fault::Displacement => Error::new(
            SqlState::INVALID_TIME_ZONE_DISPLACEMENT,
            format!("time zone displacement out of range: \"{text}\""),
        ),
        Fault::UnknownZone(name) => {
            Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
        }
    })
}

/// `None` inside when the microseconds overflow; an error when the text has no date.
fn local_timestamp(fields: &DateTimeFields, text: &str, ty: &str) -> Result<Option<i64>> {
    let days = fields.days().ok_or_else(|| syntax(ty, text))?;
    Ok(at_time(days, fields))
}

fn at_time(days: i64, fields: &DateTimeFields) -> Option<i64> {
    days.checked_mul(US_PER_DAY)?.checked_add(fields.time_us.unwrap_or(0))
}

fn to_utc(local_us: i64, fields: &DateTimeFields, context: &TimeContext) -> Option<i64> {
    match fields.zone {
        Some(Zone::Offset(east_s)) => local_us.checked_sub(i64::from(east_s) * US_PER_SECOND),
        Some(Zone::Named(zone)) => zone.to_utc(local_us),
        None => context.zone.to_utc(local_us),
    }
}

fn special_timestamp(special: Special, fields: &DateTimeFields, context: &TimeContext) -> Option<i64> {
    match special {
        Special::Infinity => Some(i64::MAX),
        Special::MinusInfinity => Some(i64::MIN),
        Special::Epoch => Some(0),
        Special::Now => Some(context.now_us),
        Special::Today(_) => to_utc(at_time(local_day(special, context)?, fields)?, fields, context),
    }
}

/// The session's current day, moved by what the word says.
fn local_day(special: Special, context: &TimeContext) -> Option<i64> {
    let moved = if let Special::Today(days) = special { days } else { 0 };
    Some(context.zone.to_local(context.now_us)?.div_euclid(US_PER_DAY) + moved)
}

fn in_range(us: Option<i64>) -> Option<i64> {
    us.filter(|us| (TIMESTAMP_MIN..i64::MAX).contains(us))
}

fn syntax(ty: &str, text: &str) -> Error {
    Error::new(SqlState::INVALID_DATETIME_FORMAT, format!("invalid input syntax for type {ty}: \"{text}\""))
}

fn field_out_of_range(text: &str) -> Error {
    Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("date/time field value out of range: \"{text}\""))
}

fn out_of_range(ty: &str, text: &str) -> Error {
    Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("{ty} out of range: \"{text}\""))
}

impl DateTimeFields {
    /// Days since 1970-01-01; `None` when the text gave no whole date.
    fn days(&self) -> Option<i64> {
        self.date.map(|(year, month, day)| days_from_civil(year, month, day))
    }
}
