//! ISO output of dates and times.

use super::super::calendar::{US_PER_DAY, US_PER_SECOND, civil_from_days};
use super::super::digits::{push_padded, push_us_fraction};
use super::super::zone::TimeZone;

pub fn write_date(days: i32, out: &mut Vec<u8>) {
    match days {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        days => {
            let year = push_civil(i64::from(days), out);
            push_era(year, out);
        }
    }
}

/// Microseconds since midnight; 24:00:00 is a value.
pub fn write_time(us: i64, out: &mut Vec<u8>) {
    let seconds = (us / US_PER_SECOND) as u64;
    push_padded(seconds / 3600, 2, out);
    out.push(b':');
    push_padded(seconds / 60 % 60, 2, out);
    out.push(b':');
    push_padded(seconds % 60, 2, out);
    push_us_fraction((us % US_PER_SECOND) as u32, out);
}

pub fn write_timestamp(us: i64, out: &mut Vec<u8>) {
    if write_infinity(us, out) {
        return;
    }
    let year = push_local(us, out);
    push_era(year, out);
}

pub fn write_timestamptz(us: i64, zone: &TimeZone, out: &mut Vec<u8>) {
    if write_infinity(us, out) {
        return;
    }
    let east_s = zone.offset_at_utc(us);
    let year = push_local(us.saturating_add(i64::from(east_s) * US_PER_SECOND), out);
    push_offset(east_s, out);
    push_era(year, out);
}

fn write_infinity(us: i64, out: &mut Vec<u8>) -> bool {
    match us {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        _ => return false,
    }
    true
}

fn push_local(us: i64, out: &mut Vec<u8>) -> i64 {
    let year = push_civil(us.div_euclid(US_PER_DAY), out);
    out.push(b' ');
    write_time(us.rem_euclid(US_PER_DAY), out);
    year
}

/// Appends `YYYY-MM-DD` and returns the astronomical year.
fn push_civil(days: i64, out: &mut Vec<u8>) -> i64 {
    let (year, month, day) = civil_from_days(days);
    let shown = if year > 0 { year } else { 1 - year };
    push_padded(shown as u64, 4, out);
    out.push(b'-');
    push_padded(u64::from(month), 2, out);
    out.push(b'-');
    push_padded(u64::from(day), 2, out);
    year
}

fn push_era(year: i64, out: &mut Vec<u8>) {
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

/// `+hh[:mm[:ss]]`.
fn push_offset(east_s: i32, out: &mut Vec<u8>) {
    out.push(if east_s < 0 { b'-' } else { b'+' });
    let seconds = u64::from(east_s.unsigned_abs());
    push_padded(seconds / 3600, 2, out);
    if seconds % 3600 != 0 {
        out.push(b':');
        push_padded(seconds / 60 % 60, 2, out);
    }
    if seconds % 60 != 0 {
        out.push(b':');
        push_padded(seconds % 60, 2, out);
    }
}
