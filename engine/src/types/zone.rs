//! Time zones as PostgreSQL names them, and the step between local and UTC time.
//!
//! Instants are microseconds since 1970-01-01; offsets are seconds east of Greenwich. `i64::MAX` and `i64::MIN` are the
//! infinities and belong to no zone: the callers keep them away from here.

use super::abbreviations::ABBREVIATIONS;
use super::calendar::{US_PER_DAY, US_PER_SECOND, civil_from_days, days_from_civil, is_leap};
use chrono::{DateTime, MappedLocalTime, Months, NaiveDateTime, Offset, TimeZone as _};
use chrono_tz::Tz;
use proto::{Error, Result, SqlState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeZone {
    /// Seconds east of Greenwich.
    Fixed(i32),
    Named(Tz),
}

/// The zone rules of chrono-tz are spelled out year by year and end; later years borrow a year with the same weekdays.
const RULES_LAST_YEAR: i64 = 2090;
/// Before this year every zone is on its local mean time.
const RULES_FIRST_YEAR: i64 = 1800;
/// Largest displacement PostgreSQL reads: just under 168 hours in a POSIX zone; 15:59:59 in a timestamp.
const POSIX_HOURS_MAX: i32 = 167;

impl TimeZone {
    pub const UTC: TimeZone = TimeZone::Fixed(0);

    /// A zone as `SET TIME ZONE` and `AT TIME ZONE` take it: an IANA name in any case, an abbreviation (`EST`, `CEST`),
    /// or a POSIX offset (`+05:30`, `UTC+3`), which counts *west* of Greenwich.
    ///
    /// # Errors
    /// 22023 when nothing of that name exists.
    pub fn parse(name: &str) -> Result<TimeZone> {
        TimeZone::find(name).ok_or_else(|| {
            Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
        })
    }

    pub fn find(name: &str) -> Option<TimeZone> {
        let name = name.trim();
        TimeZone::abbreviation(name).or_else(|| TimeZone::iana(name)).or_else(|| TimeZone::posix(name))
    }

    /// `EST`, `CEST`, `Z`: PostgreSQL's default set of abbreviations, which have one offset at all times.
    pub fn abbreviation(name: &str) -> Option<TimeZone> {
        let found = ABBREVIATIONS.binary_search_by(|(abbreviation, _)| {
            abbreviation.bytes().cmp(name.bytes().map(|byte| byte.to_ascii_uppercase()))
        });
        found.ok().map(|index| TimeZone::Fixed(ABBREVIATIONS[index].1))
    }

    fn iana(name: &str) -> Option<TimeZone> {
        let tz = name
            .parse::<Tz>()
            .ok()
            .or_else(|| chrono_tz::TZ_VARIANTS.iter().find(|tz| tz.name().eq_ignore_ascii_case(name)).copied())?;
        Some(if tz == Tz::UTC { TimeZone::UTC } else { TimeZone::Named(tz) })
    }

    /// `[letters](+|-)hh[:mm[:ss]]`, positive to the west. Letters and a number without a sign are west too (`EST5`).
    fn posix(name: &str) -> Option<TimeZone> {
        let digits = name.find(|c: char| !c.is_ascii_alphabetic())?;
        let (letters, offset) = name.split_at(digits);
        let (sign, offset) = match offset.as_bytes()[0] {
            b'-' => (1, &offset[1..]),
            b'+' => (-1, &offset[1..]),
            _ if letters.is_empty() => return None,
            _ => (-1, offset),
        };
        let mut parts = offset.split(':').map(|part| match part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse::<i32>().ok(),
            false => None,
        });
        let hours = parts.next()??;
        let minutes = parts.next().unwrap_or(Some(0))?;
        let seconds = parts.next().unwrap_or(Some(0))?;
        if parts.next().is_some() || hours > POSIX_HOURS_MAX || minutes > 59 || seconds > 59 {
            return None;
        }
        Some(TimeZone::Fixed(sign * (hours * 3600 + minutes * 60 + seconds)))
    }

    /// The offset in force at a UTC instant.
    pub fn offset_at_utc(&self, utc_us: i64) -> i32 {
        match self {
            TimeZone::Fixed(east_s) => *east_s,
            TimeZone::Named(tz) => tz.offset_from_utc_datetime(&within_rules(utc_us)).fix().local_minus_utc(),
        }
    }

    /// The offset a local clock reading has. A reading that the clock skips takes the offset before the jump, one that
    /// it shows twice the offset after it, as PostgreSQL decides.
    pub fn offset_at_local(&self, local_us: i64) -> i32 {
        let tz = match self {
            TimeZone::Fixed(east_s) => return *east_s,
            TimeZone::Named(tz) => tz,
        };
        let local = within_rules(local_us);
        match tz.offset_from_local_datetime(&local) {
            MappedLocalTime::Single(offset) => offset.fix().local_minus_utc(),
            MappedLocalTime::Ambiguous(first, second) => {
                first.fix().local_minus_utc().min(second.fix().local_minus_utc())
            }
            MappedLocalTime::None => self.offset_at_utc(local_us.saturating_sub(US_PER_DAY)),
        }
    }

    /// `None` when the instant leaves the range of timestamps.
    pub fn to_utc(&self, local_us: i64) -> Option<i64> {
        local_us.checked_sub(i64::from(self.offset_at_local(local_us)) * US_PER_SECOND)
    }

    /// `None` when the local reading leaves the range of timestamps.
    pub fn to_local(&self, utc_us: i64) -> Option<i64> {
        utc_us.checked_add(i64::from(self.offset_at_utc(utc_us)) * US_PER_SECOND)
    }

    /// The instant an interval later: months by the calendar (the day clipped to the month's end) and days on the local
    /// clock, the rest as elapsed time. `None` when it leaves the range of timestamps.
    pub fn shift(&self, utc_us: i64, months: i32, days: i32, microseconds: i64) -> Option<i64> {
        if months == 0 && days == 0 {
            return utc_us.checked_add(microseconds);
        }
        let local = DateTime::from_timestamp_micros(self.to_local(utc_us)?)?;
        let count = Months::new(months.unsigned_abs());
        let month = if months < 0 { local.checked_sub_months(count)? } else { local.checked_add_months(count)? };
        let day = month.timestamp_micros().checked_add(i64::from(days) * US_PER_DAY)?;
        self.to_utc(day)?.checked_add(microseconds)
    }
}

/// The instant moved into the years that the zone rules cover, to one with the same weekday, month and day.
fn within_rules(us: i64) -> NaiveDateTime {
    let (days, us_of_day) = (us.div_euclid(US_PER_DAY), us.rem_euclid(US_PER_DAY));
    let (year, month, day) = civil_from_days(days);
    let days = match year {
        y if y > RULES_LAST_YEAR => days_from_civil(year_alike(y), month, day),
        y if y < RULES_FIRST_YEAR => days_from_civil(RULES_FIRST_YEAR, 1, 1),
        _ => days,
    };
    let inside = DateTime::from_timestamp_micros(days * US_PER_DAY + us_of_day);
    inside.expect("a year between 1800 and 2090 is one chrono knows").naive_utc()
}

/// A covered year with the same length and the same first weekday; 28 consecutive years hold all 14 kinds.
fn year_alike(year: i64) -> i64 {
    let first_weekday = |y| days_from_civil(y, 1, 1).rem_euclid(7);
    let alike = |y: &i64| is_leap(*y) == is_leap(year) && first_weekday(*y) == first_weekday(year);
    (RULES_LAST_YEAR - 27..=RULES_LAST_YEAR).find(alike).expect("28 years hold every kind of year")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * US_PER_SECOND;

    fn local(year: i64, month: u32, day: u32, hour: i64, minute: i64) -> i64 {
        days_from_civil(year, month, day) * US_PER_DAY + hour * HOUR + minute * 60 * US_PER_SECOND
    }

    #[test]
    fn names_of_every_kind() {
        assert_eq!(TimeZone::parse("utc").unwrap(), TimeZone::UTC);
        assert_eq!(TimeZone::parse("PDT").unwrap(), TimeZone::Fixed(-25_200));
        assert_eq!(TimeZone::parse("america/new_york").unwrap(), TimeZone::Named(Tz::America__New_York));
        assert_eq!(TimeZone::parse("+05:30").unwrap(), TimeZone::Fixed(-19_800), "POSIX counts to the west");
        assert_eq!(TimeZone::parse("UTC+3").unwrap(), TimeZone::Fixed(-10_800));
        let error = TimeZone::parse("foobar").unwrap_err();
        assert_eq!((error.code.as_str(), error.message.as_str()), ("22023", "time zone \"foobar\" not recognized"));
    }

    #[test]
    fn abbreviations_are_sorted_for_the_search() {
        assert!(ABBREVIATIONS.is_sorted_by(|a, b| a.0 < b.0));
    }

    /// Answers of PostgreSQL 15 in Europe/Berlin.
    #[test]
    fn clock_changes_and_far_years() {
        let berlin = TimeZone::parse("Europe/Berlin").unwrap();
        assert_eq!(berlin.offset_at_local(local(2021, 3, 28, 2, 30)), 3600, "skipped: the offset before");
        assert_eq!(berlin.offset_at_local(local(2021, 10, 31, 2, 30)), 3600, "twice: the offset after");
        assert_eq!(berlin.offset_at_local(local(1880, 1, 1, 0, 0)), 53 * 60 + 28, "local mean time");
        assert_eq!(berlin.offset_at_local(local(-43, 3, 15, 0, 0)), 53 * 60 + 28);
        assert_eq!(berlin.offset_at_local(local(2085, 7, 1, 0, 0)), 7200);
        assert_eq!(berlin.offset_at_local(local(2150, 7, 1, 0, 0)), 7200);
        assert_eq!(berlin.offset_at_local(local(2150, 1, 1, 0, 0)), 3600);
    }
}
