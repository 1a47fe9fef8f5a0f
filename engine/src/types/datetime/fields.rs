//! The general grammar of date and time texts: words in nearly any order (`8 Jan 1999 04:05 PM PST`,
//! `19990108T040506+01`, `tomorrow 12:00`), read as PostgreSQL reads them with `DateStyle = ISO, MDY`.
//!
//! A text is cut into words, each word says which fields it holds, and a field may come once.

use super::super::calendar::{US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND, civil_from_days, days_in_month};
use super::super::zone::TimeZone;

/// Longer texts are no dates; PostgreSQL's own limit is close to it.
const TEXT_BYTES_MAX: usize = 150;
/// Offsets in a text stay below 16 hours.
const DISPLACEMENT_HOURS_MAX: i32 = 15;

#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    Syntax,
    Field,
    /// Like `Field`, where another order of day and month might have worked.
    MonthOrDay,
    Displacement,
    UnknownZone(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Special {
    Infinity,
    MinusInfinity,
    Epoch,
    Now,
    /// Days from today.
    Today(i64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Zone {
    /// Seconds east.
    Offset(i32),
    Named(TimeZone),
}

#[derive(Debug, Default)]
pub(super) struct DateTimeFields {
    pub(super) special: Option<Special>,
    /// Astronomical year, month, day; valid.
    pub(super) date: Option<(i64, u32, u32)>,
    /// 0 to 24 hours inclusive.
    pub(super) time_us: Option<i64>,
    pub(super) zone: Option<Zone>,
}

/// What has been read so far.
#[derive(Default)]
struct Draft {
    fields: DateTimeFields,
    year: Option<i64>,
    /// The year was written with one or two digits.
    short_year: bool,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    julian_day: Option<i64>,
    before_christ: bool,
    afternoon: Option<bool>,
    /// The text is of a time: digits without delimiters are one.
    time_only: bool,
    /// A `T` announced an undelimited time.
    time_next: bool,
    /// A `J` announced a Julian day.
    julian_next: bool,
}

type Step = Result<(), Fault>;

impl DateTimeFields {
    pub(super) fn read(text: &str, time_only: bool) -> Result<DateTimeFields, Fault> {
        if text.len() > TEXT_BYTES_MAX || !text.is_ascii() {
            return Err(Fault::Syntax);
        }
        let mut draft = Draft { time_only, ..Draft::default() };
        let mut rest = text.trim();
        while !rest.is_empty() {
            rest = draft.word(rest)?.trim_start();
        }
        draft.finish()
    }
}

fn set<T>(field: &mut Option<T>, value: T) -> Step {
    if field.is_some() {
        return Err(Fault::Syntax);
    }
    *field = Some(value);
    Ok(())
}

fn leading(text: &str, matches: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|byte| !matches(byte)).unwrap_or(text.len())
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

fn parse<T: std::str::FromStr>(digits: &str) -> Result<T, Fault> {
    match digits.bytes().all(is_digit) && !digits.is_empty() {
        true => digits.parse().map_err(|_| Fault::Field),
        false => Err(Fault::Syntax),
    }
}

impl Draft {
    /// Reads one word and returns what follows it.
    fn word<'a>(&mut self, text: &'a str) -> Result<&'a str, Fault> {
        match text.as_bytes()[0] {
            b'0'..=b'9' => self.starts_with_digit(text),
            b'+' | b'-' => self.starts_with_sign(text),
            b'A'..=b'Z' | b'a'..=b'z' => self.starts_with_letter(text),
            b',' | b';' => Ok(&text[1..]),
            _ => Err(Fault::Syntax),
        }
    }

    fn starts_with_digit<'a>(&mut self, text: &'a str) -> Result<&'a str, Fault> {
        let digits = leading(text, is_digit);
        match text.as_bytes().get(digits) {
            Some(b':') => {
                let end = leading(text, |b| is_digit(b) || b == b':' || b == b'.');
                self.clock(&text[..end])?;
                Ok(&text[end..])
            }
            Some(delimiter @ (b'-' | b'/' | b'.')) if !self.is_number_here(text, digits) => {
                let end = leading(text, |b| b.is_ascii_alphanumeric() || b == *delimiter);
                let (date, rest) = split_date_at_t(text, end);
                if date.as_bytes()[date.len() - 1] == *delimiter {
                    return Err(Fault::Syntax);
                }
                self.delimited_date(&date.split(char::from(*delimiter)).collect::<Vec<_>>())?;
                Ok(rest)
            }
            _ => {
                let end = leading(text, |b| is_digit(b) || b == b'.');
                self.number(&text[..end])?;
                Ok(&text[end..])
            }
        }
    }

    /// Tells `040506.789` or a Julian day from `08.01.1999`, and `20200101-08` (a zone) from `2020-01-01`.
    fn is_number_here(&self, text: &str, digits: usize) -> bool {
        let tail = &text[digits + 1..];
        let more = leading(tail, is_digit);
        let again = tail.as_bytes().get(more) == text.as_bytes().get(digits);
        let letters = tail.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
        let has_date = self.has_date();
        self.time_next || self.julian_next || has_date || !again && !letters && digits >= 6
    }

    fn has_date(&self) -> bool {
        self.day.is_some() || self.day_of_year.is_some() || self.julian_day.is_some()
    }

    fn starts_with_sign<'a>(&mut self, text: &'a str) -> Result<&'a str, Fault> {
        let body = text[1..].trim_start();
        if body.len() >= 8 && body[..8].eq_ignore_ascii_case("infinity") {
            let special = if text.starts_with('-') { Special::MinusInfinity } else { Special::Infinity };
            set(&mut self.fields.special, special)?;
            return Ok(&body[8..]);
        }
        let end = leading(body, |b| is_digit(b) || b == b':');
        if end == 0 {
            return Err(Fault::Syntax);
        }
        let east_s = displacement(&body[..end])?;
        let signed = if text.starts_with('-') { -east_s } else { east_s };
        match self.fields.zone {
            // `UTC+3`: the offset continues the name.
            Some(_) => return Err(Fault::Syntax),
            None => self.fields.zone = Some(Zone::Offset(signed)),
        }
        Ok(&body[end..])
    }

    fn starts_with_letter<'a>(&mut self, text: &'a str) -> Result<&'a str, Fault> {
        let letters = leading(text, |b| b.is_ascii_alphabetic());
        let lower = text[..letters].to_ascii_lowercase();
        let next = text.as_bytes().get(letters).copied();
        let digit_next = next.is_some_and(is_digit);
        if lower == "t" && (digit_next || next.is_none()) {
            self.time_next = true;
            return Ok(&text[1..]);
        }
        if (lower == "j" || lower == "julian" || lower == "jd") && digit_next {
            self.julian_next = true;
            return Ok(&text[letters..]);
        }
        if let (Some(month), Some(delimiter @ (b'-' | b'/' | b'.'))) = (month_number(&lower), next) {
            let end = leading(text, |b| b.is_ascii_alphanumeric() || b == delimiter);
            let parts: Vec<&str> = text[..end].split(char::from(delimiter)).collect();
            if parts.len() == 3 {
                self.delimited_date(&parts)?;
                return Ok(&text[end..]);
            }
            self.month_by_name(month)?;
            return Ok(&text[letters + 1..]);
        }
        if self.keyword(&lower)? {
            return Ok(&text[letters..]);
        }
        let end = leading(text, |b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'+' | b'-' | b':'));
        let name = &text[..end];
        let zone = match TimeZone::find(name) {
            Some(zone) => zone,
            None if end > letters => return Err(Fault::UnknownZone(name.to_ascii_lowercase())),
            None => return Err(Fault::Syntax),
        };
        set(&mut self.fields.zone, Zone::Named(zone))?;
        Ok(&text[end..])
    }

    /// True when the word was one of the grammar's own.
    fn keyword(&mut self, lower: &str) -> Result<bool, Fault> {
        let special = match lower {
            "now" => Special::Now,
            "today" => Special::Today(0),
            "tomorrow" => Special::Today(1),
            "yesterday" => Special::Today(-1),
            "epoch" => Special::Epoch,
            "infinity" => Special::Infinity,
            "allballs" => {
                set(&mut self.fields.time_us, 0)?;
                set(&mut self.fields.zone, Zone::Offset(0))?;
                return Ok(true);
            }
            "am" | "pm" => {
                set(&mut self.afternoon, lower == "pm")?;
                return Ok(true);
            }
            "bc" | "ad" => {
                self.before_christ = lower == "bc";
                return Ok(true);
            }
            "at" | "on" => return Ok(true),
            _ => {
                if let Some(month) = month_number(lower) {
                    self.month_by_name(month)?;
                    return Ok(true);
                }
                return Ok(is_weekday(lower));
            }
        };
        set(&mut self.fields.special, special)?;
        Ok(true)
    }

    /// A lone number before it was the day.
    fn month_by_name(&mut self, month: u32) -> Step {
        if self.day.is_none() && self.year.is_none() {
            self.day = self.month.take();
        }
        set(&mut self.month, month)
    }

    /// Digits without delimiters: a whole date, a whole time, or one field.
    fn number(&mut self, digits: &str) -> Step {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if self.julian_next {
            self.julian_next = false;
            if !fraction.is_empty() {
                let day_fraction: f64 = format!("0.{fraction}").parse().map_err(|_| Fault::Syntax)?;
                set(&mut self.fields.time_us, (day_fraction * US_PER_DAY as f64) as i64)?;
            }
            return set(&mut self.julian_day, parse(whole)?);
        }
        let cut = |from: usize, to: usize| parse::<u32>(&whole[from..to]);
        let has_date = self.time_only || self.has_date() && self.year.is_some();
        if self.time_next || (has_date && self.fields.time_us.is_none() && whole.len() >= 4) {
            self.time_next = false;
            let us = match whole.len() {
                6 => clock_us(cut(0, 2)?, cut(2, 4)?, cut(4, 6)?, fraction)?,
                4 if fraction.is_empty() => clock_us(cut(0, 2)?, cut(2, 4)?, 0, "")?,
                2 if fraction.is_empty() => clock_us(cut(0, 2)?, 0, 0, "")?,
                _ => return Err(Fault::Syntax),
            };
            return set(&mut self.fields.time_us, us);
        }
        if !fraction.is_empty() || digits.ends_with('.') {
            return Err(Fault::Syntax);
        }
        if self.month.is_none() && self.year.is_none() && self.day.is_none() {
            // From the end: two digits of day, two of month, the rest is the year.
            let end = whole.len();
            if end >= 6 {
                return self.civil(parse(&whole[..end - 4])?, end == 6, cut(end - 4, end - 2)?, cut(end - 2, end)?);
            }
        }
        if self.month.is_some() && self.day.is_none() && whole.len() <= 2 {
            return set(&mut self.day, parse(whole)?);
        }
        if self.month.is_none() && self.year.is_some() && self.day_of_year.is_none() && whole.len() == 3 {
            return set(&mut self.day_of_year, parse(whole)?);
        }
        if self.year.is_none() && (whole.len() >= 3 || self.month.is_some()) {
            self.short_year = whole.len() <= 2;
            return set(&mut self.year, parse(whole)?);
        }
        if self.month.is_none() && whole.len() <= 2 {
            return set(&mut self.month, parse(whole)?);
        }
        Err(Fault::Syntax)
    }

    fn civil(&mut self, year: i64, short_year: bool, month: u32, day: u32) -> Step {
        set(&mut self.month, month)?;
        set(&mut self.day, day)?;
        self.short_year = short_year;
        set(&mut self.year, year)
    }

    /// `1999-01-08`, `1/8/1999`, `08-Jan-1999`, `Jan-08-1999`, `1999-Jan-08`, `1999.008`.
    fn delimited_date(&mut self, parts: &[&str]) -> Step {
        if let Some(at) = parts.iter().position(|part| part.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)) {
            let month = month_number(&parts[at].to_ascii_lowercase()).ok_or(Fault::Syntax)?;
            let rest: Vec<&str> = parts.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, part)| *part).collect();
            let [first, second] = rest[..] else { return Err(Fault::Syntax) };
            let (year, day) = if first.len() >= 3 { (first, second) } else { (second, first) };
            return self.civil(parse(year)?, year.len() <= 2, month, parse(day)?);
        }
        match parts {
            [year, month, day] if year.len() >= 3 => self.civil(parse(year)?, false, parse(month)?, parse(day)?),
            [month, day, year] => self.civil(parse(year)?, year.len() <= 2, parse(month)?, parse(day)?),
            [year, day_of_year] if year.len() >= 3 && day_of_year.len() == 3 => {
                set(&mut self.day_of_year, parse(day_of_year)?)?;
                set(&mut self.year, parse(year)?)
            }
            _ => Err(Fault::Syntax),
        }
    }

    /// `h:mm`, `h:mm:ss[.f]`, `mm:ss.f`.
    fn clock(&mut self, text: &str) -> Step {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let parts: Vec<&str> = whole.split(':').collect();
        let us = match parts[..] {
            [minute, second] if text.contains('.') => clock_us(0, parse(minute)?, parse(second)?, fraction)?,
            [hour, minute] => clock_us(parse(hour)?, parse(minute)?, 0, "")?,
            [hour, minute, second] => clock_us(parse(hour)?, parse(minute)?, parse(second)?, fraction)?,
            _ => return Err(Fault::Syntax),
        };
        self.time_next = false;
        set(&mut self.fields.time_us, us)
    }

    fn finish(mut self) -> Result<DateTimeFields, Fault> {
        if self.time_next || self.julian_next {
            return Err(Fault::Syntax);
        }
        if let Some(afternoon) = self.afternoon {
            let us = self.fields.time_us.ok_or(Fault::Syntax)?;
            let hour = us / US_PER_HOUR;
            if hour > 12 {
                return Err(Fault::Field);
            }
            let shift = match (afternoon, hour) {
                (true, 12) | (false, 0..12) => 0,
                (true, _) => 12,
                (false, _) => -12,
            };
            self.fields.time_us = Some(us + shift * US_PER_HOUR);
        }
        self.fields.date = self.date()?;
        let special = self.fields.special;
        if special.is_some() && self.fields.date.is_some()
            || matches!(special, Some(Special::Now | Special::Infinity | Special::MinusInfinity | Special::Epoch))
                && self.fields.time_us.is_some()
            || special.is_none() && self.fields.date.is_none() && self.fields.time_us.is_none()
        {
            return Err(Fault::Syntax);
        }
        Ok(self.fields)
    }

    fn date(&self) -> Result<Option<(i64, u32, u32)>, Fault> {
        if let Some(julian_day) = self.julian_day {
            return Ok(Some(civil_from_days(julian_day - 2_440_588)));
        }
        let Some(year) = self.year else {
            return if self.month.is_some() || self.day.is_some() { Err(Fault::Syntax) } else { Ok(None) };
        };
        let year = match (self.before_christ, self.short_year) {
            (_, false) if year == 0 => return Err(Fault::Field),
            (true, _) if year == 0 => return Err(Fault::Field),
            (true, _) => 1 - year,
            (false, true) if year < 70 => year + 2000,
            (false, true) => year + 1900,
            (false, false) => year,
        };
        if year > 5_874_898 {
            return Err(Fault::Field);
        }
        if let Some(day_of_year) = self.day_of_year {
            let days = super::super::calendar::days_from_civil(year, 1, 1) + i64::from(day_of_year) - 1;
            let date = civil_from_days(days);
            return if date.0 == year { Ok(Some(date)) } else { Err(Fault::Field) };
        }
        let (Some(month), Some(day)) = (self.month, self.day) else { return Err(Fault::Syntax) };
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(Fault::MonthOrDay);
        }
        if day > days_in_month(year, month) {
            return Err(Fault::Field);
        }
        Ok(Some((year, month, day)))
    }
}

/// A `T` between digits ends the date (`2020-01-01T00:00`), one inside a month name does not.
fn split_date_at_t(text: &str, end: usize) -> (&str, &str) {
    let bytes = text.as_bytes();
    let ends_date = |at: usize| {
        matches!(bytes[at], b'T' | b't')
            && bytes[at - 1].is_ascii_digit()
            && bytes.get(at + 1).is_none_or(|next| next.is_ascii_digit())
    };
    let at = (1..end).find(|at| ends_date(*at)).or_else(|| {
        // A zone or an era glued to the date: `2020-01-01Z`, `2020-01-01BC`.
        let last_digit = text[..end].rfind(|c: char| c.is_ascii_digit())?;
        (last_digit + 1 < end && !text[last_digit + 1..end].contains(['-', '/', '.'])).then_some(last_digit + 1)
    });
    let at = at.unwrap_or(end);
    (&text[..at], &text[at..])
}

fn clock_us(hour: u32, minute: u32, second: u32, fraction: &str) -> Result<i64, Fault> {
    if !fraction.bytes().all(is_digit) {
        return Err(Fault::Syntax);
    }
    let fraction_us = match fraction {
        "" => 0,
        digits => (format!("0.{digits}").parse::<f64>().map_err(|_| Fault::Syntax)? * 1e6).round_ties_even() as i64,
    };
    let us = i64::from(hour) * US_PER_HOUR
        + i64::from(minute) * US_PER_MINUTE
        + i64::from(second) * US_PER_SECOND
        + fraction_us;
    if hour > 24 || minute > 59 || second > 60 || us > US_PER_DAY {
        return Err(Fault::Field);
    }
    Ok(us)
}

/// Seconds of `h`, `hh`, `hmm`, `hhmm`, `hh:mm`, `hh:mm:ss`.
fn displacement(text: &str) -> Result<i32, Fault> {
    let parts: Vec<&str> = text.split(':').collect();
    let (hours, minutes, seconds): (i32, i32, i32) = match parts[..] {
        [digits] if digits.len() > 2 => {
            let at = digits.len() - 2;
            if at > 2 {
                let hours_end = digits.len() - 4;
                (parse(&digits[..hours_end])?, parse(&digits[hours_end..at])?, parse(&digits[at..])?)
            } else {
                (parse(&digits[..at])?, parse(&digits[at..])?, 0)
            }
        }
        [hours] => (parse(hours)?, 0, 0),
        [hours, minutes] => (parse(hours)?, parse(minutes)?, 0),
        [hours, minutes, seconds] => (parse(hours)?, parse(minutes)?, parse(seconds)?),
        _ => return Err(Fault::Syntax),
    };
    if hours > DISPLACEMENT_HOURS_MAX || minutes > 59 || seconds > 59 {
        return Err(Fault::Displacement);
    }
    Ok(hours * 3600 + minutes * 60 + seconds)
}

fn month_number(lower: &str) -> Option<u32> {
    const NAMES: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let found =
        NAMES.iter().position(|name| lower == *name || lower == &name[..3] || lower == "sept" && *name == "september");
    found.map(|index| index as u32 + 1)
}

fn is_weekday(lower: &str) -> bool {
    const NAMES: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
    const SHORT: [&str; 6] = ["tues", "wednes", "weds", "thur", "thurs", "tue"];
    NAMES.iter().any(|name| lower == *name || lower == &name[..3]) || SHORT.contains(&lower)
}
