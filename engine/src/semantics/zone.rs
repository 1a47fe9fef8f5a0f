//! Time zones as PostgreSQL names them, and the step between local and absolute time.
//!
//! A local time that does not exist (clocks go forward) is read with the offset before the change; one that exists
//! twice (clocks go back) is read as the later instant, which is standard time. PostgreSQL does the same.

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use proto::{Error, SqlState};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Zone {
    Named(chrono_tz::Tz),
    /// Seconds east of UTC.
    Fixed(i32),
}

impl Zone {
    pub const UTC: Zone = Zone::Fixed(0);

    /// An IANA name (any case), `UTC`, an ISO offset (`+02:00`) or a POSIX one (`UTC+3`, which is west).
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn parse(name: &str) -> Result<Zone, Error> {
        let unknown = || Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"));
        let text = name.trim();
        if matches!(text.to_ascii_uppercase().as_str(), "UTC" | "GMT" | "Z" | "ZULU" | "ETC/UTC" | "UCT") {
            return Ok(Zone::UTC);
        }
        if let Ok(tz) = text.parse::<chrono_tz::Tz>() {
            return Ok(Zone::Named(tz));
        }
        if let Some(tz) = chrono_tz::TZ_VARIANTS.iter().find(|tz| tz.name().eq_ignore_ascii_case(text)) {
            return Ok(Zone::Named(*tz));
        }
        let digits = text.find(['+', '-']).ok_or_else(unknown)?;
        let (prefix, offset) = text.split_at(digits);
        let seconds = offset_seconds(offset).ok_or_else(unknown)?;
        match prefix {
            "" => Ok(Zone::Fixed(seconds)),
            letters if letters.chars().all(|c| c.is_ascii_alphabetic()) => Ok(Zone::Fixed(-seconds)),
            _ => Err(unknown()),
        }
    }

    pub fn is_utc(&self) -> bool {
        matches!(self, Zone::Fixed(0)) || matches!(self, Zone::Named(chrono_tz::UTC))
    }

    /// Microseconds of local wall time for an absolute time. Saturates at the ends of what a calendar can hold.
    pub fn to_local(self, utc_us: i64) -> i64 {
        utc_us.saturating_add(i64::from(self.offset_at(utc_us)) * 1_000_000)
    }

    /// Absolute time of a local wall time.
    pub fn to_utc(self, local_us: i64) -> i64 {
        let Zone::Named(tz) = self else {
            return local_us.saturating_sub(i64::from(self.offset_at(0)) * 1_000_000);
        };
        let Some(local) = DateTime::from_timestamp_micros(local_us).map(|t| t.naive_utc()) else {
            return local_us;
        };
        local_us.saturating_sub(i64::from(local_offset(tz, local)) * 1_000_000)
    }

    /// Seconds east of UTC at an absolute time.
    pub fn offset_at(self, utc_us: i64) -> i32 {
        match self {
            Zone::Fixed(seconds) => seconds,
            Zone::Named(tz) => match DateTime::from_timestamp_micros(utc_us) {
                Some(utc) => tz.offset_from_utc_datetime(&utc.naive_utc()).fix().local_minus_utc(),
                None => 0,
            },
        }
    }

    /// `CET`, `EDT`, or the offset where the zone has no letters; as `to_char(…, 'TZ')` shows it.
    pub fn abbreviation_at(self, utc_us: i64) -> String {
        match (self, DateTime::from_timestamp_micros(utc_us)) {
            (Zone::Fixed(0), _) => "UTC".to_owned(),
            (Zone::Named(tz), Some(utc)) => tz.from_utc_datetime(&utc.naive_utc()).format("%Z").to_string(),
            (zone, _) => offset_text(zone.offset_at(utc_us)),
        }
    }
}

fn local_offset(tz: chrono_tz::Tz, local: NaiveDateTime) -> i32 {
    match tz.offset_from_local_datetime(&local) {
        chrono::LocalResult::Single(offset) => offset.fix().local_minus_utc(),
        chrono::LocalResult::Ambiguous(_, later) => later.fix().local_minus_utc(),
        chrono::LocalResult::None => {
            let before = local - TimeDelta::days(1);
            tz.offset_from_utc_datetime(&before).fix().local_minus_utc()
        }
    }
}

/// `+02`, `-03:30`.
pub fn offset_text(seconds: i32) -> String {
    let (sign, rest) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
    match rest / 60 % 60 {
        0 => format!("{sign}{:02}", rest / 3600),
        minutes => format!("{sign}{:02}:{minutes:02}", rest / 3600),
    }
}

/// `+2`, `-0330`, `+05:30`.
fn offset_seconds(text: &str) -> Option<i32> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let (hours, minutes) = match (rest.split_once(':'), rest.len()) {
        (Some((hours, minutes)), _) => (hours, minutes),
        (None, 4) => rest.split_at(2),
        (None, 1 | 2) => (rest, "0"),
        _ => return None,
    };
    let (hours, minutes) = (hours.parse::<i32>().ok()?, minutes.parse::<i32>().ok()?);
    (hours <= 15 && (0..60).contains(&minutes)).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_at_a_clock_change_are_read_as_postgres_reads_them() {
        let zone = Zone::parse("Europe/Berlin").unwrap();
        let second = 1_000_000;
        // 2019-03-31 02:30 does not exist: PostgreSQL shows 03:30+02, which is 01:30 UTC.
        assert_eq!(zone.to_utc(1_553_999_400 * second), 1_553_995_800 * second);
        // 2019-10-27 02:30 exists twice: PostgreSQL takes +01.
        assert_eq!(zone.to_utc(1_572_143_400 * second), 1_572_139_800 * second);
        assert_eq!(zone.to_local(1_553_995_800 * second), 1_554_003_000 * second);
    }

    #[test]
    fn zone_names_in_every_spelling() {
        assert_eq!(Zone::parse("+05:30").unwrap(), Zone::Fixed(19800));
        assert_eq!(Zone::parse("UTC+3").unwrap(), Zone::Fixed(-10800));
        assert_eq!(Zone::parse("europe/berlin").unwrap(), Zone::parse("Europe/Berlin").unwrap());
        assert!(Zone::parse("utc").unwrap().is_utc());
        assert_eq!(Zone::parse("Mars/Base").unwrap_err().code, SqlState::INVALID_PARAMETER_VALUE);
    }
}
