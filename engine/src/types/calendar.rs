//! The proleptic Gregorian calendar and the clock's units, as PostgreSQL counts them: astronomical years (year 0 is
//! 1 BC), days since 1970-01-01, microseconds of a day.

pub const US_PER_SECOND: i64 = 1_000_000;
pub const US_PER_MINUTE: i64 = 60 * US_PER_SECOND;
pub const US_PER_HOUR: i64 = 60 * US_PER_MINUTE;
pub const US_PER_DAY: i64 = 24 * US_PER_HOUR;

/// Days from 1970-01-01 to 2000-01-01, the zero of PostgreSQL's binary dates.
pub const PG_EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds, for binary timestamps.
pub const PG_EPOCH_US: i64 = PG_EPOCH_DAYS as i64 * US_PER_DAY;

/// 4714-11-24 BC, Julian day 0: the first date and the first timestamp.
pub const DATE_MIN: i32 = -2_440_588;
/// 5874897-12-31, the last date.
pub const DATE_MAX: i32 = 2_145_042_905;
/// First microsecond of `DATE_MIN`. The last timestamp is `i64::MAX - 1`, in January 294247: 30 years before
/// PostgreSQL's, because Arrow counts from 1970 and not from 2000.
pub const TIMESTAMP_MIN: i64 = DATE_MIN as i64 * US_PER_DAY;

pub fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. A year is taken to begin in March, so that the leap day is its last; then 400 years have
/// 146,097 days and the month lengths follow (153 m + 2) / 5 (H. Hinnant, "chrono-compatible low-level date
/// algorithms").
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `(year, month, day)` of a day since 1970-01-01; the inverse of `days_from_civil`.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = ((month_from_march + 2) % 12 + 1) as u32;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2000, 1, 1), i64::from(PG_EPOCH_DAYS));
        assert_eq!(days_from_civil(-4713, 11, 24), i64::from(DATE_MIN));
        assert_eq!(days_from_civil(5_874_897, 12, 31), i64::from(DATE_MAX));
    }

    #[test]
    fn days_and_dates_are_inverse_and_consecutive() {
        let mut previous = civil_from_days(-800_001);
        for days in -800_000..800_000 {
            let date = civil_from_days(days);
            assert_eq!(days_from_civil(date.0, date.1, date.2), days);
            assert!(date.2 <= days_in_month(date.0, date.1) && date > previous);
            previous = date;
        }
    }
}
