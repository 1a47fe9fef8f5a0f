//! ISO 8601 durations: with designators (`P1Y2M3DT4H5M6S`) and in the alternative form (`P0001-02-03T04:05:06`).

use super::{Fault, Sum, Unit, clock, number};

/// Parses what follows the `P`.
pub(super) fn parse(text: &str) -> Result<(i32, i32, i64), Fault> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut sum = Sum::default();
    let mut fields_count = 0;
    if date.get(1..).is_some_and(|rest| rest.contains('-')) && !date.ends_with(|c: char| c.is_ascii_alphabetic()) {
        add_calendar_date(date, &mut sum)?;
        fields_count += 1;
    } else {
        let date_units = [('Y', Unit::YEAR), ('M', Unit::MONTH), ('W', Unit::WEEK), ('D', Unit::DAY)];
        fields_count += add_designated(date, &date_units, &mut sum)?;
    }
    match time {
        Some(time) if time.contains(':') => {
            sum.us += i128::from(clock(time)?);
            fields_count += 1;
        }
        Some(time) => {
            let time_units = [('H', Unit::HOUR), ('M', Unit::MINUTE), ('S', Unit::SECOND)];
            fields_count += 1 + add_designated(time, &time_units, &mut sum)?;
        }
        None => {}
    }
    if fields_count == 0 {
        return Err(Fault::Syntax);
    }
    sum.finish()
}

fn add_designated(mut text: &str, units: &[(char, Unit)], sum: &mut Sum) -> Result<usize, Fault> {
    let mut count = 0;
    while !text.is_empty() {
        let end = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(Fault::Syntax)?;
        let designator = char::from(text.as_bytes()[end]);
        let unit = units.iter().find(|(letter, _)| *letter == designator).ok_or(Fault::Syntax)?.1;
        let (value, fraction) = number(&text[..end])?;
        sum.add(unit, value, fraction);
        text = &text[end + 1..];
        count += 1;
    }
    Ok(count)
}

/// `years-months[-days]`; each part keeps its own sign.
fn add_calendar_date(text: &str, sum: &mut Sum) -> Result<(), Fault> {
    let mut rest = text;
    for unit in [Unit::YEAR, Unit::MONTH, Unit::DAY] {
        let end = rest.get(1..).and_then(|tail| tail.find('-')).map_or(rest.len(), |at| at + 1);
        let (value, fraction) = number(&rest[..end])?;
        sum.add(unit, value, fraction);
        match rest.get(end + 1..) {
            Some(tail) => rest = tail,
            None => return Ok(()),
        }
    }
    Err(Fault::Syntax)
}
