//! A session's zone as expressions use it: `types::TimeZone` with saturating steps between the wall clock and UTC, in
//! which the infinities of time stay where they are.

use crate::types::TimeZone;
use chrono::TimeZone as _;
use proto::Error;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Zone(TimeZone);

impl Zone {
    pub const UTC: Zone = Zone(TimeZone::UTC);

    pub fn of(zone: TimeZone) -> Zone {
        Zone(zone)
    }

    /// # Errors
    /// 22023 when nothing of that name exists.
    pub fn parse(name: &str) -> Result<Zone, Error> {
        Ok(Zone(TimeZone::parse(name)?))
    }

    /// Seconds east of UTC.
    pub fn fixed(east_s: i32) -> Zone {
        Zone(TimeZone::Fixed(east_s))
    }

    pub fn time_zone(self) -> TimeZone {
        self.0
    }

    pub fn is_utc(self) -> bool {
        self.0 == TimeZone::UTC
    }

    /// Microseconds of the wall clock at an absolute time.
    pub fn to_local(self, utc_us: i64) -> i64 {
        match is_finite(utc_us) {
            true => self.0.to_local(utc_us).unwrap_or(utc_us),
            false => utc_us,
        }
    }

    /// Absolute time of a wall clock.
    pub fn to_utc(self, local_us: i64) -> i64 {
        match is_finite(local_us) {
            true => self.0.to_utc(local_us).unwrap_or(local_us),
            false => local_us,
        }
    }

    /// Seconds east of UTC at an absolute time.
    pub fn offset_at(self, utc_us: i64) -> i32 {
        if is_finite(utc_us) { self.0.offset_at_utc(utc_us) } else { 0 }
    }

    /// `CET`, `EDT`, or the offset where the zone has no letters; as `to_char(…, 'TZ')` shows it.
    pub fn abbreviation_at(self, utc_us: i64) -> String {
        match (self.0, chrono::DateTime::from_timestamp_micros(utc_us)) {
            (TimeZone::Fixed(0), _) => "UTC".to_owned(),
            (TimeZone::Named(tz), Some(utc)) => tz.from_utc_datetime(&utc.naive_utc()).format("%Z").to_string(),
            _ => offset_text(self.offset_at(utc_us)),
        }
    }
}

/// `i64::MIN` and `i64::MAX` stand for the infinities.
pub fn is_finite(us: i64) -> bool {
    us != i64::MIN && us != i64::MAX
}

/// `+02`, `-03:30`.
pub fn offset_text(seconds: i32) -> String {
    let (sign, rest) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
    match rest / 60 % 60 {
        0 => format!("{sign}{:02}", rest / 3600),
        minutes => format!("{sign}{:02}:{minutes:02}", rest / 3600),
    }
}
