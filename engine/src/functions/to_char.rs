//! Template patterns: `to_char` of times, and the way back in `to_timestamp(text, text)` and `to_date(text, text)`.
//! `to_char` of numbers is in `to_char_number`.

use super::date_arithmetic::DAY_US;
use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, INTERVAL, NUMERIC, TIMESTAMP, class, timestamptz};
use crate::semantics::Zone;
use arrow::array::{Array, ArrayRef, AsArray, Date32Array, PrimitiveArray, StringBuilder};
use arrow::datatypes::{DataType, Decimal128Type, IntervalMonthDayNanoType, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new("to_char", char_types, to_char).udf(), Function::new("to_date", date_types, to_date).udf()]
}

fn char_types(types: &[DataType]) -> Option<Overload> {
    let [value, _] = types else { return None };
    let value = match class(value) {
        Class::Timestamptz => timestamptz(),
        Class::Timestamp | Class::Date => TIMESTAMP,
        Class::Interval => INTERVAL,
        Class::Integer | Class::Numeric | Class::Float => NUMERIC,
        _ => return None,
    };
    Some(Overload::new([value, DataType::Utf8], DataType::Utf8))
}

fn date_types(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([DataType::Utf8, DataType::Utf8], DataType::Date32))
}

/// The longest spelling first where one begins another.
const PATTERNS: &[&str] = &[
    "SSSSS", "SSSS", "YYYY", "IYYY", "Y,YYY", "MONTH", "Month", "month", "A.M.", "P.M.", "a.m.", "p.m.", "HH24",
    "HH12", "IDDD", "YYY", "IYY", "MON", "Mon", "mon", "DAY", "Day", "day", "DDD", "TZH", "TZM", "FF1", "FF2", "FF3",
    "FF4", "FF5", "FF6", "YY", "IY", "MM", "DY", "Dy", "dy", "DD", "ID", "HH", "MI", "SS", "MS", "US", "AM", "PM",
    "am", "pm", "BC", "AD", "WW", "IW", "CC", "TZ", "tz", "OF", "RM", "D", "Y", "I", "Q", "J", "W",
];

#[derive(Debug, PartialEq)]
enum Piece {
    /// A pattern, whether padding is dropped (`FM`), and an ordinal suffix (`TH`, `th`).
    Field(&'static str, bool, Option<bool>),
    Text(String),
}

fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut fill = false;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            fill = true;
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix('"') {
            let end = after.find('"').unwrap_or(after.len());
            pieces.push(Piece::Text(after[..end].to_owned()));
            rest = after.get(end + 1..).unwrap_or("");
            continue;
        }
        // Numbers are the same in either case.
        let found = PATTERNS.iter().find(|pattern| {
            let head = rest.get(..pattern.len());
            let names = pattern.chars().any(|c| c.is_ascii_lowercase())
                || matches!(**pattern, "MONTH" | "MON" | "DAY" | "DY" | "AM" | "PM" | "A.M." | "P.M." | "TZ");
            head.is_some_and(|head| if names { head == **pattern } else { head.eq_ignore_ascii_case(pattern) })
        });
        match found {
            Some(pattern) => {
                rest = &rest[pattern.len()..];
                let suffix = match rest.get(..2) {
                    Some("TH") => Some(true),
                    Some("th") => Some(false),
                    _ => None,
                };
                rest = if suffix.is_some() { &rest[2..] } else { rest };
                pieces.push(Piece::Field(pattern, fill, suffix));
                fill = false;
            }
            None => {
                let text = &rest[..c.len_utf8()];
                rest = &rest[c.len_utf8()..];
                match pieces.last_mut() {
                    Some(Piece::Text(before)) => before.push_str(text),
                    _ => pieces.push(Piece::Text(text.to_owned())),
                }
            }
        }
    }
    pieces
}

fn to_char(call: &Call) -> Result<ArrayRef> {
    let (values, templates) = (call.array(0)?, call.array(1)?);
    let templates = templates.as_string::<i32>();
    let zone = if class(values.data_type()) == Class::Timestamptz { call.zone()? } else { Zone::UTC };
    let zoned = class(values.data_type()) == Class::Timestamptz;
    let mut results = StringBuilder::new();
    let mut last: Option<(&str, Vec<Piece>)> = None;
    for row in 0..call.rows {
        if values.is_null(row) || templates.is_null(row) {
            results.append_null();
            continue;
        }
        let template = templates.value(row);
        if last.as_ref().is_none_or(|(text, _)| *text != template) {
            last = Some((template, pieces(template)));
        }
        let Some((_, pieces)) = &last else { continue };
        let text = match class(values.data_type()) {
            Class::Numeric => {
                let digits = values.as_primitive::<Decimal128Type>().value(row);
                super::to_char_number::number_text(digits, template).map_err(raise)?
            }
            Class::Interval => {
                let value = values.as_primitive::<IntervalMonthDayNanoType>().value(row);
                write(pieces, &Fields::of_interval(value))
            }
            _ => {
                let us = values.as_primitive::<TimestampMicrosecondType>().value(row);
                let zone = zoned.then(|| (zone.offset_at(us), zone.abbreviation_at(us)));
                let local = us + zone.as_ref().map_or(0, |zone| i64::from(zone.0) * 1_000_000);
                write(pieces, &Fields::of_time(local, zone))
            }
        };
        results.append_value(text);
    }
    Ok(Arc::new(results.finish()))
}

/// What patterns show.
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    us: i64,
    /// `None` for an interval, which has no place in the calendar.
    date: Option<NaiveDate>,
    zone: Option<(i32, String)>,
}

impl Fields {
    fn of_time(local_us: i64, zone: Option<(i32, String)>) -> Fields {
        let date = DateTime::<Utc>::from_timestamp_micros(local_us).map(|time| time.date_naive());
        let clock = local_us.rem_euclid(DAY_US);
        Fields {
            year: date.map_or(0, |date| i64::from(date.year())),
            month: date.map_or(0, |date| i64::from(date.month())),
            day: date.map_or(0, |date| i64::from(date.day())),
            hour: clock / 3_600_000_000,
            minute: clock / 60_000_000 % 60,
            second: clock / 1_000_000 % 60,
            us: clock % 1_000_000,
            date,
            zone,
        }
    }

    fn of_interval(value: arrow::datatypes::IntervalMonthDayNano) -> Fields {
        let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
        let us = nanos / 1000;
        Fields {
            year: i64::from(months / 12),
            month: i64::from(months % 12),
            day: i64::from(days),
            hour: us / 3_600_000_000,
            minute: us / 60_000_000 % 60,
            second: us / 1_000_000 % 60,
            us: us % 1_000_000,
            date: None,
            zone: None,
        }
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

fn write(pieces: &[Piece], fields: &Fields) -> String {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(plain) => text.push_str(plain),
            Piece::Field(pattern, fill, suffix) => {
                let (shown, number) = field_text(pattern, *fill, fields);
                text.push_str(&shown);
                if let (Some(upper), Some(number)) = (suffix, number) {
                    text.push_str(ordinal(number, *upper));
                }
            }
        }
    }
    text
}

fn ordinal(number: i64, upper: bool) -> &'static str {
    let index = match (number.abs() % 100, number.abs() % 10) {
        (11..=13, _) => 3,
        (_, 1) => 0,
        (_, 2) => 1,
        (_, 3) => 2,
        _ => 3,
    };
    if upper { ["ST", "ND", "RD", "TH"][index] } else { ["st", "nd", "rd", "th"][index] }
}

/// A name in the pattern's case, blank-padded to nine unless `FM`.
fn name(full: &str, pattern: &str, fill: bool) -> String {
    let short = pattern.len() <= 3 && !pattern.eq_ignore_ascii_case("day");
    let base = if short { &full[..3] } else { full };
    let cased = match pattern.chars().nth(1) {
        Some(c) if c.is_ascii_uppercase() => base.to_ascii_uppercase(),
        _ if pattern.starts_with(|c: char| c.is_ascii_uppercase()) => base.to_owned(),
        _ => base.to_ascii_lowercase(),
    };
    if short || fill { cased } else { format!("{cased:<9}") }
}

fn field_text(pattern: &str, fill: bool, fields: &Fields) -> (String, Option<i64>) {
    let number = |value: i64, width: usize| {
        let text = match (fill, value < 0) {
            (true, _) => value.to_string(),
            (false, true) => format!("-{:0width$}", -value),
            (false, false) => format!("{value:0width$}"),
        };
        (text, Some(value))
    };
    let date = fields.date;
    let from_date = |value: fn(NaiveDate) -> i64| date.map_or(0, value);
    let half_day =
        if fields.hour.rem_euclid(24) < 12 { ["AM", "am", "A.M.", "a.m."] } else { ["PM", "pm", "P.M.", "p.m."] };
    // 1 BC is year 0; it is shown as 1.
    let year = if date.is_some() && fields.year <= 0 { 1 - fields.year } else { fields.year };
    let era = if fields.year <= 0 && date.is_some() { "BC" } else { "AD" };
    let hour12 = if fields.hour % 12 == 0 { 12 } else { fields.hour % 12 };
    match pattern {
        "YYYY" => number(year, 4),
        "Y,YYY" => (format!("{},{:03}", year / 1000, year % 1000), Some(year)),
        "YYY" => number(year % 1000, 3),
        "YY" => number(year % 100, 2),
        "Y" => number(year % 10, 1),
        "IYYY" => number(from_date(|date| i64::from(date.iso_week().year())), 4),
        "IYY" => number(from_date(|date| i64::from(date.iso_week().year())) % 1000, 3),
        "IY" => number(from_date(|date| i64::from(date.iso_week().year())) % 100, 2),
        "I" => number(from_date(|date| i64::from(date.iso_week().year())) % 10, 1),
        "MM" => number(fields.month, 2),
        "MONTH" | "Month" | "month" | "MON" | "Mon" | "mon" => match MONTHS.get((fields.month - 1) as usize) {
            Some(month) => (name(month, pattern, fill), None),
            None => (String::new(), None),
        },
        "DAY" | "Day" | "day" | "DY" | "Dy" | "dy" => match date {
            Some(date) => {
                let day = DAYS[date.weekday().num_days_from_sunday() as usize];
                let short = pattern.len() == 2;
                let text = if short {
                    name(&day[..3], &format!("{pattern}{}", &pattern[1..]), true)
                } else {
                    name(day, pattern, fill)
                };
                (text, None)
            }
            None => (String::new(), None),
        },
        "DD" => number(fields.day, 2),
        "DDD" => number(from_date(|date| i64::from(date.ordinal())), 3),
        "IDDD" => number(
            from_date(|date| i64::from(date.iso_week().week0()) * 7 + i64::from(date.weekday().number_from_monday())),
            3,
        ),
        "D" => number(from_date(|date| i64::from(date.weekday().number_from_sunday())), 1),
        "ID" => number(from_date(|date| i64::from(date.weekday().number_from_monday())), 1),
        "HH24" => number(fields.hour, 2),
        "HH" | "HH12" => number(hour12, 2),
        "MI" => number(fields.minute, 2),
        "SS" => number(fields.second, 2),
        "SSSS" | "SSSSS" => number(fields.hour * 3600 + fields.minute * 60 + fields.second, 1),
        "MS" | "FF3" => number(fields.us / 1000, 3),
        "US" | "FF6" => number(fields.us, 6),
        "FF1" => number(fields.us / 100_000, 1),
        "FF2" => number(fields.us / 10_000, 2),
        "FF4" => number(fields.us / 100, 4),
        "FF5" => number(fields.us / 10, 5),
        "AM" | "PM" => (half_day[0].to_owned(), None),
        "am" | "pm" => (half_day[1].to_owned(), None),
        "A.M." | "P.M." => (half_day[2].to_owned(), None),
        "a.m." | "p.m." => (half_day[3].to_owned(), None),
        "BC" | "AD" => (era.to_owned(), None),
        "WW" => number(from_date(|date| (i64::from(date.ordinal()) - 1) / 7 + 1), 2),
        "IW" => number(from_date(|date| i64::from(date.iso_week().week())), 2),
        "W" => number((fields.day - 1) / 7 + 1, 1),
        "CC" => number((year + 99) / 100, 2),
        "Q" => number((fields.month - 1) / 3 + 1, 1),
        "J" => number(from_date(|date| i64::from(date.num_days_from_ce()) + 1_721_425), 1),
        "RM" => (ROMAN.get((fields.month - 1) as usize).map_or(String::new(), |roman| format!("{roman:<4}")), None),
        "TZ" => (fields.zone.as_ref().map_or(String::new(), |zone| zone.1.clone()), None),
        "tz" => (fields.zone.as_ref().map_or(String::new(), |zone| zone.1.to_ascii_lowercase()), None),
        "OF" => {
            let offset = fields.zone.as_ref().map_or(0, |zone| zone.0);
            (crate::semantics::offset_text(offset), None)
        }
        "TZH" => {
            let offset = fields.zone.as_ref().map_or(0, |zone| zone.0);
            (format!("{}{:02}", if offset < 0 { '-' } else { '+' }, offset.abs() / 3600), None)
        }
        "TZM" => {
            let offset = fields.zone.as_ref().map_or(0, |zone| zone.0);
            (format!("{:02}", offset.abs() / 60 % 60), None)
        }
        other => (other.to_owned(), None),
    }
}

/// Local microseconds and, where the template has a zone, its offset.
fn read(text: &str, pieces: &[Piece]) -> Result<(i64, Option<i32>), Error> {
    let (mut year, mut month, mut day, mut ordinal) = (1i32, 1u32, 1u32, None::<u32>);
    let (mut hour, mut minute, mut second, mut us) = (0i64, 0i64, 0i64, 0i64);
    let (mut afternoon, mut half_days, mut offset) = (false, false, None::<i32>);
    let mut rest = text.trim_start();
    let out_of_range =
        || Error::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("date/time field value out of range: \"{text}\""));
    for (index, piece) in pieces.iter().enumerate() {
        let Piece::Field(pattern, ..) = piece else {
            if let Piece::Text(plain) = piece {
                // Any separator matches any separator.
                for _ in plain.chars() {
                    match rest.chars().next() {
                        Some(c) if !c.is_ascii_alphanumeric() => rest = &rest[c.len_utf8()..],
                        Some(c) if plain.contains(c) => rest = &rest[c.len_utf8()..],
                        _ => break,
                    }
                }
                rest = rest.trim_start();
            }
            continue;
        };
        if rest.is_empty() {
            break;
        }
        let separated = !matches!(pieces.get(index + 1), Some(Piece::Field(..)));
        let mut number = |width: usize| -> Result<(i64, usize), Error> {
            let limit = if separated { rest.len() } else { width };
            let digits: String = rest.chars().take(limit).take_while(char::is_ascii_digit).collect();
            let value = digits.parse::<i64>().map_err(|_| {
                let shown: String = rest.chars().take(width).collect();
                let message = format!("invalid value \"{shown}\" for \"{pattern}\"");
                Error::new(SqlState::INVALID_DATETIME_FORMAT, message).detail("Value must be an integer.")
            })?;
            rest = &rest[digits.len()..];
            Ok((value, digits.len()))
        };
        match *pattern {
            "YYYY" => year = number(4)?.0 as i32,
            "YY" => {
                let short = number(2)?.0 as i32;
                year = if short < 70 {
                    2000 + short
                } else if short < 100 {
                    1900 + short
                } else {
                    short
                };
            }
            "MM" => month = number(2)?.0 as u32,
            "DD" => day = number(2)?.0 as u32,
            "DDD" => ordinal = Some(number(3)?.0 as u32),
            "HH24" => hour = number(2)?.0,
            "HH" | "HH12" => (hour, half_days) = (number(2)?.0, true),
            "MI" => minute = number(2)?.0,
            "SS" => second = number(2)?.0,
            "MS" | "FF3" => {
                let (value, digits) = number(3)?;
                us = scaled(value, digits, 3) * 1000;
            }
            "US" | "FF6" => {
                let (value, digits) = number(6)?;
                us = scaled(value, digits, 6);
            }
            "AM" | "PM" | "am" | "pm" | "A.M." | "P.M." | "a.m." | "p.m." => {
                afternoon = rest.starts_with(['p', 'P']);
                rest = rest.get(pattern.len()..).unwrap_or("");
            }
            "MON" | "Mon" | "mon" | "MONTH" | "Month" | "month" => {
                let short = pattern.len() == 3;
                let found = MONTHS.iter().position(|name| {
                    let name = if short { &name[..3] } else { name };
                    rest.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
                });
                let Some(found) = found else {
                    let message = format!("invalid value \"{rest}\" for \"{pattern}\"");
                    return Err(Error::new(SqlState::INVALID_DATETIME_FORMAT, message));
                };
                month = found as u32 + 1;
                rest = &rest[if short { 3 } else { MONTHS[found].len() }..];
            }
            "DAY" | "Day" | "day" | "DY" | "Dy" | "dy" => {
                rest = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            }
            "TZH" | "OF" | "TZ" | "tz" => {
                let end =
                    rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-:/_".contains(c))).unwrap_or(rest.len());
                offset = Some(match iso_offset(&rest[..end]) {
                    Some(seconds) => seconds,
                    None => Zone::parse(&rest[..end])?.offset_at(0),
                });
                rest = &rest[end..];
            }
            other => return Err(Error::unsupported(format!("the pattern \"{other}\" in to_timestamp"))),
        }
    }
    if half_days {
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    if hour > 24 || minute > 59 || second > 59 {
        return Err(out_of_range());
    }
    let date = match ordinal {
        Some(ordinal) => NaiveDate::from_yo_opt(year, ordinal),
        None => NaiveDate::from_ymd_opt(year, month, day),
    };
    let days = i64::from(date.ok_or_else(out_of_range)?.num_days_from_ce()) - 719_163;
    Ok((days * DAY_US + hour * 3_600_000_000 + minute * 60_000_000 + second * 1_000_000 + us, offset))
}

/// `+02`, `-03:30`: seconds east of UTC.
fn iso_offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
    let (hours, minutes) = (hours.parse::<i32>().ok()?, minutes.parse::<i32>().ok()?);
    (hours <= 15 && (0..60).contains(&minutes)).then_some(sign * (hours * 3600 + minutes * 60))
}

/// `.5` read by `MS` is 500.
fn scaled(value: i64, digits: usize, width: usize) -> i64 {
    match width.checked_sub(digits) {
        Some(missing) => value * 10i64.pow(missing as u32),
        None => value / 10i64.pow((digits - width).min(18) as u32),
    }
}

fn read_all(call: &Call, mut take: impl FnMut(Option<(i64, Option<i32>)>)) -> Result<()> {
    let (texts, templates) = (call.array(0)?, call.array(1)?);
    let (texts, templates) = (texts.as_string::<i32>(), templates.as_string::<i32>());
    for row in 0..call.rows {
        if texts.is_null(row) || templates.is_null(row) {
            take(None);
            continue;
        }
        take(Some(read(texts.value(row), &pieces(templates.value(row))).map_err(raise)?));
    }
    Ok(())
}

/// `to_timestamp(text, text)`; without a zone in the template, in the session's.
pub fn to_timestamp(call: &Call) -> Result<ArrayRef> {
    let zone = call.zone()?;
    let mut results: Vec<Option<i64>> = Vec::with_capacity(call.rows);
    read_all(call, |value| {
        results.push(value.map(|(local, offset)| match offset {
            Some(seconds) => local - i64::from(seconds) * 1_000_000,
            None => zone.to_utc(local),
        }));
    })?;
    Ok(Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from_iter(results).with_timezone("UTC")))
}

fn to_date(call: &Call) -> Result<ArrayRef> {
    let mut results: Vec<Option<i32>> = Vec::with_capacity(call.rows);
    read_all(call, |value| results.push(value.map(|(local, _)| local.div_euclid(DAY_US) as i32)))?;
    Ok(Arc::new(Date32Array::from(results)))
}
