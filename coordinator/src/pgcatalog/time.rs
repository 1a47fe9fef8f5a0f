//! Times of the catalogs as text: ISO style, `postgres` intervals. They are read by `engine::types`.

use super::value::Interval;
use chrono::{DateTime, NaiveDate, NaiveDateTime, Offset, Timelike, Utc};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_in_their_zone() {
        let new_year_2019 = 1_546_300_800_000_000;
        assert_eq!(timestamp_text(new_year_2019, Some("UTC")), "2019-01-01 00:00:00+00");
        assert_eq!(timestamp_text(new_year_2019 + 1500, Some("Asia/Kolkata")), "2019-01-01 05:30:00.0015+05:30");
    }

    #[test]
    fn intervals_print_in_postgres_style() {
        let text = |months, days, micros| interval_text(&Interval { months, days, micros });
        assert_eq!(text(0, 7, 0), "7 days");
        assert_eq!(text(0, 1, 7_200_000_000), "1 day 02:00:00");
        assert_eq!(text(14, 0, 0), "1 year 2 mons");
        assert_eq!(text(0, 0, 5_400_000_000), "01:30:00");
        assert_eq!(interval_text(&Interval::default()), "00:00:00");
    }
}
