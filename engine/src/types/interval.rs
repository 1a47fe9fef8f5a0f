//! Intervals: months, days and microseconds that are never converted into each other, except for the fractions of a
//! text (`1.5 days`). Read as PostgreSQL reads them, printed in its `postgres` style.
//!
//! Arrow holds the time part in nanoseconds, so a time part beyond ±292 years is refused where it is stored; everything
//! here counts microseconds.

use super::calendar::{US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND};
use super::digits::{push_integer, push_padded, push_us_fraction};
use super::plain::trim;
use proto::{Error, Result, SqlState};

mod iso8601;
mod units;

use units::{Unit, UnitOf};

/// Words of an interval text; PostgreSQL stops at 25.
const WORDS_MAX: usize = 25;

/// `(months, days, microseconds)` of an interval text in any of PostgreSQL's forms: verbose units, `@ … ago`,
/// `HH:MM:SS`, `years-months`, ISO 8601 with and without designators.
///
/// # Errors
/// 22007 for a text that is no interval, 22015 when a field overflows.
pub fn parse_interval(text: &str) -> Result<(i32, i32, i64)> {
    let trimmed = trim(text);
    let parsed = match trimmed.strip_prefix('P') {
        Some(designated) => iso8601::parse(designated),
        None => parse_words(trimmed),
    };
    parsed.map_err(|fault| match fault {
        Fault::Syntax => {
            Error::new(SqlState::INVALID_DATETIME_FORMAT, format!("invalid input syntax for type interval: \"{text}\""))
        }
        Fault::Range => {
            Error::new(SqlState::INTERVAL_FIELD_OVERFLOW, format!("interval field value out of range: \"{text}\""))
        }
        Fault::Total => Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range"),
    })
}

/// Appends the `postgres` style: `1 year 2 mons -3 days +04:05:06.789`.
pub fn write_interval(months: i32, days: i32, microseconds: i64, out: &mut Vec<u8>) {
    let start = out.len();
    let mut after_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        if out.len() > start {
            out.push(b' ');
        }
        if after_negative && value > 0 {
            out.push(b'+');
        }
        push_integer(i64::from(value), out);
        out.push(b' ');
        out.extend_from_slice(unit.as_bytes());
        if value != 1 {
            out.push(b's');
        }
        after_negative = value < 0;
    }
    if microseconds == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.push(b' ');
    }
    match (microseconds < 0, after_negative) {
        (true, _) => out.push(b'-'),
        (false, true) => out.push(b'+'),
        (false, false) => {}
    }
    let total = microseconds.unsigned_abs();
    let seconds = total / US_PER_SECOND as u64;
    push_padded(seconds / 3600, 2, out);
    out.push(b':');
    push_padded(seconds / 60 % 60, 2, out);
    out.push(b':');
    push_padded(seconds % 60, 2, out);
    push_us_fraction((total % US_PER_SECOND as u64) as u32, out);
}

pub fn format_interval(months: i32, days: i32, microseconds: i64) -> String {
    let mut out = Vec::new();
    write_interval(months, days, microseconds, &mut out);
    String::from_utf8(out).expect("an interval is written in ASCII")
}

enum Fault {
    Syntax,
    /// A field does not fit.
    Range,
    /// All fields fit, but not their sum.
    Total,
}

/// The sum of the fields read so far. Wide enough that no single field overflows it; checked at the end.
#[derive(Default)]
struct Sum {
    months: i128,
    days: i128,
    us: i128,
}

impl Sum {
    /// `value + fraction` units; the fraction spills into the smaller fields (a month is 30 days, a day 24 hours).
    fn add(&mut self, unit: Unit, value: i64, fraction: f64) {
        let count = i128::from(unit.count);
        match unit.of {
            UnitOf::Microseconds => {
                self.us += i128::from(value) * count + rounded(fraction * unit.count as f64);
            }
            UnitOf::Days => {
                self.days += i128::from(value) * count;
                self.add_days(fraction * unit.count as f64);
            }
            UnitOf::Months if unit.count == 1 => {
                self.months += i128::from(value);
                self.add_days(fraction * 30.0);
            }
            UnitOf::Months => {
                let months = (fraction * unit.count as f64).round_ties_even();
                self.months += i128::from(value) * count + months as i128;
            }
        }
    }

    fn add_days(&mut self, days: f64) {
        self.days += days.trunc() as i128;
        self.us += rounded(days.fract() * US_PER_DAY as f64);
    }

    fn negate(&mut self) {
        (self.months, self.days, self.us) = (-self.months, -self.days, -self.us);
    }

    fn finish(self) -> std::result::Result<(i32, i32, i64), Fault> {
        let months = i32::try_from(self.months).map_err(|_| Fault::Total)?;
        let days = i32::try_from(self.days).map_err(|_| Fault::Range)?;
        Ok((months, days, i64::try_from(self.us).map_err(|_| Fault::Range)?))
    }
}

/// Microseconds of a fraction: a half goes towards zero.
fn rounded(us: f64) -> i128 {
    let whole = us.trunc();
    let rest = us - whole;
    whole as i128 + i128::from(rest > 0.5) - i128::from(rest < -0.5)
}

/// A number with what is behind its point; the sign belongs to both.
fn number(text: &str) -> std::result::Result<(i64, f64), Fault> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || whole.len() + fraction.len() == 0 {
        return Err(Fault::Syntax);
    }
    let value = if whole.is_empty() { 0 } else { whole.parse::<i64>().map_err(|_| Fault::Range)? };
    let fraction: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().unwrap_or(0.0) };
    Ok((sign * value, sign as f64 * fraction))
}

/// `[sign]h:m[:s[.f]]`, or `m:s.f`.
fn clock(text: &str) -> std::result::Result<i64, Fault> {
    let (negative, body) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let parts: Vec<&str> = body.split(':').collect();
    let whole = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
        true if !part.is_empty() => part.parse::<i64>().map_err(|_| Fault::Range),
        _ => Err(Fault::Syntax),
    };
    let (hours, minutes, (seconds, fraction)) = match parts[..] {
        [minutes, seconds] if seconds.contains('.') => (0, whole(minutes)?, number(seconds)?),
        [hours, minutes] => (whole(hours)?, whole(minutes)?, (0, 0.0)),
        [hours, minutes, seconds] => (whole(hours)?, whole(minutes)?, number(seconds)?),
        _ => return Err(Fault::Syntax),
    };
    let fraction_us = (fraction * 1e6).round_ties_even() as i64;
    if !(0..60).contains(&minutes) || !(0..=60).contains(&seconds) {
        return Err(Fault::Range);
    }
    let rest = minutes * US_PER_MINUTE + seconds * US_PER_SECOND + fraction_us;
    let us = hours.checked_mul(US_PER_HOUR).and_then(|us| us.checked_add(rest)).ok_or(Fault::Range)?;
    Ok(if negative { -us } else { us })
}

/// Words, right to left: a unit says what the number before it counts, a bare number counts the next smaller unit after
/// the one to its right (`1 2:03:04` is a day), or seconds at the very end.
fn parse_words(text: &str) -> std::result::Result<(i32, i32, i64), Fault> {
    let words = split_words(text)?;
    let mut sum = Sum::default();
    let mut seen: u32 = 0;
    let mut ago = false;
    let mut unit: Option<Unit> = None;
    let mut bare_unit = Unit::SECOND;
    let mut unit_waits = false;
    for word in words.iter().rev() {
        let first = word.as_bytes()[0];
        if first.is_ascii_alphabetic() {
            if word == "ago" {
                ago = true;
                continue;
            }
            if unit_waits {
                return Err(Fault::Syntax);
            }
            unit = Some(Unit::find(word).ok_or(Fault::Syntax)?);
            unit_waits = true;
            continue;
        }
        if word.contains(':') {
            let us = clock(word)?;
            mark(&mut seen, Unit::HOUR.class | Unit::MINUTE.class | Unit::SECOND.class)?;
            if unit_waits && !unit.is_some_and(|u| u == Unit::HOUR) {
                return Err(Fault::Syntax);
            }
            sum.us += i128::from(us);
            (unit_waits, unit, bare_unit) = (false, None, Unit::DAY);
            continue;
        }
        if let Some(dash) = word[1..].find('-').map(|at| at + 1) {
            let (years, months) = (number(&word[..dash])?, number(&word[dash + 1..])?);
            if unit_waits && !unit.is_some_and(|u| u == Unit::YEAR) || years.1 != 0.0 || months.1 != 0.0 {
                return Err(Fault::Syntax);
            }
            if !(0..12).contains(&months.0) {
                return Err(Fault::Range);
            }
            mark(&mut seen, Unit::YEAR.class | Unit::MONTH.class)?;
            let sign = if word.starts_with('-') { -1 } else { 1 };
            sum.months += i128::from(years.0) * 12 + i128::from(sign * months.0);
            (unit_waits, unit, bare_unit) = (false, None, Unit::YEAR);
            continue;
        }
        let (value, fraction) = number(word)?;
        let counted = unit.take().unwrap_or(bare_unit);
        mark(&mut seen, counted.class)?;
        sum.add(counted, value, fraction);
        unit_waits = false;
        bare_unit = counted;
    }
    if seen == 0 || unit_waits {
        return Err(Fault::Syntax);
    }
    if ago {
        sum.negate();
    }
    sum.finish()
}

/// A field may come once.
fn mark(seen: &mut u32, class: u32) -> std::result::Result<(), Fault> {
    if *seen & class != 0 {
        return Err(Fault::Syntax);
    }
    *seen |= class;
    Ok(())
}

/// Lower-case words; a number ends where letters begin (`3h20m`), a sign may stand apart from its number.
fn split_words(text: &str) -> std::result::Result<Vec<String>, Fault> {
    let lower = text.to_ascii_lowercase();
    let bytes = lower.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let mut word = String::new();
        match bytes[at] {
            b if b.is_ascii_whitespace() || b == b'@' || b == b',' => {
                at += 1;
                continue;
            }
            sign @ (b'+' | b'-') => {
                word.push(char::from(sign));
                at += 1;
                while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
                    at += 1;
                }
                if !bytes.get(at).is_some_and(|b| b.is_ascii_digit() || *b == b'.') {
                    return Err(Fault::Syntax);
                }
            }
            b if b.is_ascii_alphanumeric() || b == b'.' => {}
            _ => return Err(Fault::Syntax),
        }
        let letters = bytes[at].is_ascii_alphabetic();
        let start = at;
        while at < bytes.len() && (if letters { bytes[at].is_ascii_alphabetic() } else { is_number_byte(bytes, at) }) {
            at += 1;
        }
        word.push_str(&lower[start..at]);
        if words.len() == WORDS_MAX {
            return Err(Fault::Syntax);
        }
        words.push(word);
    }
    Ok(words)
}

fn is_number_byte(bytes: &[u8], at: usize) -> bool {
    match bytes[at] {
        b'0'..=b'9' | b'.' | b':' => true,
        b'-' => bytes.get(at + 1).is_some_and(u8::is_ascii_digit),
        _ => false,
    }
}
