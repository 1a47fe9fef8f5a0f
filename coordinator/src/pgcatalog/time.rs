//! Times of the catalogs as text and back: ISO style, `postgres` intervals.

use super::value::Interval;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

pub(crate) const DAY_US: i64 = 86_400_000_000;

/// `None` zone: a timestamp without one.
pub(crate) fn timestamp_text(us: i64, zone: Option<&str>) -> String {
    if us == i64::MAX || us == i64::MIN {
        return if us > 0 { "infinity" } else { "-infinity" }.to_owned();
    }
    let Some(utc) = DateTime::<Utc>::from_timestamp_micros(us) else { return us.to_string() };
    let Some(zone) = zone else { return clock_text(utc.naive_utc()) };
    let (local, offset_s) = match zone.parse::<Tz>() {
        Ok(tz) => {
            let local = utc.with_timezone(&tz);
            (local.naive_local(), local.offset().fix().local_minus_utc())
        }
        Err(_) => (utc.naive_utc(), 0),
    };
    let (sign, offset_s) = (if offset_s < 0 { '-' } else { '+' }, offset_s.abs());
    let minutes = offset_s / 60 % 60;
    let minutes = if minutes == 0 { String::new() } else { format!(":{minutes:02}") };
    format!("{}{sign}{:02}{minutes}", clock_text(local), offset_s / 3600)
}

fn clock_text(time: NaiveDateTime) -> String {
    format!("{}{}", time.format("%Y-%m-%d %H:%M:%S"), fraction_text((time.nanosecond() / 1000) as i64))
}

fn fraction_text(us: i64) -> String {
    match us {
        0 => String::new(),
        us => format!(".{us:06}").trim_end_matches('0').to_owned(),
    }
}

pub(crate) fn date_text(days: i32) -> String {
    let date = NaiveDate::from_num_days_from_ce_opt(days.saturating_add(719_163));
    date.map_or_else(|| days.to_string(), |date| date.format("%Y-%m-%d").to_string())
}

pub(crate) fn time_text(us: i64) -> String {
    let seconds = us / 1_000_000;
    let fraction = fraction_text(us % 1_000_000);
    format!("{:02}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

pub(crate) fn interval_text(interval: &Interval) -> String {
    let plural = |n: i32, unit: &str| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    let mut parts = Vec::new();
    let (years, months) = (interval.months / 12, interval.months % 12);
    for (n, unit) in [(years, "year"), (months, "mon"), (interval.days, "day")] {
        if n != 0 {
            parts.push(plural(n, unit));
        }
    }
    if interval.micros != 0 || parts.is_empty() {
        let sign = if interval.micros < 0 { "-" } else { "" };
        parts.push(format!("{sign}{}", time_text(interval.micros.saturating_abs())));
    }
    parts.join(" ")
}

/// ISO 8601 in its usual spellings, `now`, and the infinities; without an offset it is read in `zone`.
pub(crate) fn parse_timestamp(text: &str, zone: &str, now_us: i64) -> Option<i64> {
    match text.to_ascii_lowercase().as_str() {
        "now" => return Some(now_us),
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        "epoch" => return Some(0),
        _ => {}
    }
    let text = text.strip_suffix('Z').map_or_else(|| text.to_owned(), |head| format!("{head}+00"));
    for format in ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z"] {
        if let Ok(time) = DateTime::parse_from_str(&text, format) {
            return Some(time.timestamp_micros());
        }
    }
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M"];
    let local = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(&text, format).ok());
    let date = || NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok();
    let local = local.or_else(|| date().map(|date| date.and_time(NaiveTime::MIN)))?;
    match zone.parse::<Tz>() {
        Ok(tz) => tz.from_local_datetime(&local).earliest().map(|time| time.timestamp_micros()),
        Err(_) => Some(local.and_utc().timestamp_micros()),
    }
}

pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let formats = ["%H:%M:%S%.f", "%H:%M"];
    let time = formats.iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok())?;
    Some(time.num_seconds_from_midnight() as i64 * 1_000_000 + time.nanosecond() as i64 / 1000)
}

/// `1 day 02:00:00`, `7 days`, `3 mons -4 hours`.
pub(crate) fn parse_interval(text: &str) -> Option<Interval> {
    let mut interval = Interval::default();
    let mut words = text.split_whitespace();
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        if word.contains(':') {
            let (sign, clock) = word.strip_prefix('-').map_or((1, word), |clock| (-1, clock));
            interval.micros = interval.micros.checked_add(sign * parse_clock(clock)?)?;
            continue;
        }
        let split = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (number, unit) = word.split_at(split);
        let number: f64 = number.parse().ok()?;
        let unit = if unit.is_empty() { words.next()? } else { unit };
        let micros = match unit.to_ascii_lowercase().trim_end_matches('s') {
            "year" | "yr" | "y" => {
                interval.months = interval.months.checked_add((number * 12.0) as i32)?;
                continue;
            }
            "month" | "mon" => {
                interval.months = interval.months.checked_add(number as i32)?;
                continue;
            }
            "week" | "w" => {
                interval.days = interval.days.checked_add((number * 7.0) as i32)?;
                continue;
            }
            "day" | "d" => {
                interval.days = interval.days.checked_add(number as i32)?;
                continue;
            }
            "hour" | "h" | "hr" => 3.6e9,
            "minute" | "min" | "m" => 6e7,
            "second" | "sec" | "" => 1e6,
            "millisecond" | "m_" => 1e3,
            "microsecond" | "u" => 1.0,
            _ => return None,
        };
        interval.micros = interval.micros.checked_add((number * micros) as i64)?;
    }
    any.then_some(interval)
}

/// Hours may exceed a day.
fn parse_clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hours, minutes) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    let seconds = parts.next().map_or(Some(0.0), |seconds| seconds.parse::<f64>().ok())?;
    hours.checked_mul(3_600_000_000)?.checked_add(minutes * 60_000_000 + (seconds * 1e6).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_in_their_zone() {
        let new_year_2019 = 1_546_300_800_000_000;
        assert_eq!(timestamp_text(new_year_2019, Some("UTC")), "2019-01-01 00:00:00+00");
        assert_eq!(timestamp_text(new_year_2019 + 1500, Some("Asia/Kolkata")), "2019-01-01 05:30:00.0015+05:30");
        assert_eq!(parse_timestamp("2019-01-01 00:00:00+00", "Europe/Berlin", 0), Some(new_year_2019));
        assert_eq!(parse_timestamp("2019-01-01T01:00:00", "Europe/Berlin", 0), Some(new_year_2019));
        assert_eq!(parse_timestamp("2019-01-01", "UTC", 0), Some(new_year_2019));
    }

    #[test]
    fn intervals_print_in_postgres_style() {
        let text = |text: &str| interval_text(&parse_interval(text).unwrap());
        assert_eq!(text("7 days"), "7 days");
        assert_eq!(text("1 day 02:00:00"), "1 day 02:00:00");
        assert_eq!(text("14 months"), "1 year 2 mons");
        assert_eq!(text("90 min"), "01:30:00");
        assert_eq!(interval_text(&Interval::default()), "00:00:00");
    }
}
