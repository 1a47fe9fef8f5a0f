//! `to_char` of numbers: `9 0 . , D G S MI FM` and `%`-free literals. `EEEE`, `RN`, `PR`, `V`, `L` are refused.

use super::types::NUMERIC_SCALE;
use proto::Error;

struct Template {
    fill: bool,
    /// `9`, `0` and `,` before the point.
    whole: Vec<char>,
    /// `9` and `0` after it.
    fraction: Vec<char>,
    point: bool,
    sign: Sign,
    before: String,
    after: String,
}

#[derive(PartialEq)]
enum Sign {
    Plain,
    /// `S` in front or behind.
    Before,
    After,
    /// `MI`: a trailing minus or blank.
    Minus,
}

fn parse(template: &str) -> Result<Template, Error> {
    let mut parsed = Template {
        fill: false,
        whole: Vec::new(),
        fraction: Vec::new(),
        point: false,
        sign: Sign::Plain,
        before: String::new(),
        after: String::new(),
    };
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        let upper = c.to_ascii_uppercase();
        let started = !parsed.whole.is_empty() || parsed.point;
        let two = rest.get(..2).map(str::to_ascii_uppercase);
        match (two.as_deref(), upper) {
            (Some("FM"), _) => (parsed.fill, rest) = (true, &rest[2..]),
            (Some("MI"), _) => (parsed.sign, rest) = (Sign::Minus, &rest[2..]),
            (Some("EE" | "RN" | "PR" | "TH" | "PL" | "SG"), _) | (_, 'L' | 'V') => {
                return Err(Error::unsupported(format!("the number pattern in to_char(…, '{template}')")));
            }
            (_, '9' | '0') if parsed.point => {
                parsed.fraction.push(c);
                rest = &rest[1..];
            }
            (_, '9' | '0') => {
                parsed.whole.push(c);
                rest = &rest[1..];
            }
            (_, ',' | 'G') => {
                parsed.whole.push(',');
                rest = &rest[1..];
            }
            (_, '.' | 'D') => (parsed.point, rest) = (true, &rest[1..]),
            (_, 'S') => (parsed.sign, rest) = (if started { Sign::After } else { Sign::Before }, &rest[1..]),
            _ => {
                let (text, tail) = match rest.strip_prefix('"') {
                    Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                    None => rest.split_at(c.len_utf8()),
                };
                if started {
                    parsed.after.push_str(text)
                } else {
                    parsed.before.push_str(text)
                }
                rest = tail;
            }
        }
    }
    Ok(parsed)
}

/// `value` counts in units of the unconstrained numeric's last digit.
pub fn number_text(value: i128, template: &str) -> Result<String, Error> {
    let template = parse(template)?;
    let cut = 10i128.pow((NUMERIC_SCALE as u32).saturating_sub(template.fraction.len() as u32));
    let rounded = (value.unsigned_abs() + cut.unsigned_abs() / 2) / cut.unsigned_abs();
    let places = template.fraction.len().min(NUMERIC_SCALE as usize);
    let unit = 10u128.pow(places as u32);
    let (whole, fraction) = (rounded / unit, rounded % unit);
    let negative = value < 0 && rounded != 0;
    let digits = if whole == 0 { String::new() } else { whole.to_string() };
    let slots = template.whole.iter().filter(|c| **c != ',').count();
    let overflow = digits.len() > slots;
    let shown = if overflow { "#".repeat(slots) } else { digits };
    let mut text = whole_text(&template, &shown, slots);
    // A number below one shows its zero when there is nothing else to see.
    if whole == 0
        && !text.contains('0')
        && slots > 0
        && (!template.point || template.fill && template.fraction.is_empty())
    {
        let blank = text.rfind(' ').unwrap_or(0);
        text.replace_range(blank..(blank + 1).min(text.len()), "0");
    }
    if template.point {
        let mut places_text = if overflow { "#".repeat(places) } else { format!("{fraction:0places$}") };
        if template.fill {
            let keep = template.fraction.iter().rposition(|c| *c == '0').map_or(0, |at| at + 1);
            while places_text.len() > keep && places_text.ends_with('0') {
                places_text.pop();
            }
        }
        text.push('.');
        text.push_str(&places_text);
    }
    Ok(signed(&template, text, negative))
}

fn whole_text(template: &Template, digits: &str, slots: usize) -> String {
    let mut text = String::new();
    let blanks = slots - digits.len();
    let first_zero = template.whole.iter().filter(|c| **c != ',').position(|c| *c == '0').unwrap_or(slots);
    let mut digits = digits.chars();
    let mut slot = 0;
    for c in &template.whole {
        if *c == ',' {
            let visible = slot > blanks.min(first_zero);
            text.push(if visible { ',' } else { ' ' });
            continue;
        }
        text.push(match slot < blanks {
            true if slot >= first_zero => '0',
            true => ' ',
            false => digits.next().unwrap_or('0'),
        });
        slot += 1;
    }
    text
}

fn signed(template: &Template, text: String, negative: bool) -> String {
    let body = text.trim_start_matches(' ');
    let padding = if template.fill { "" } else { &text[..text.len() - body.len()] };
    let number = match template.sign {
        Sign::Plain if negative => format!("{padding}-{body}"),
        Sign::Plain if template.fill => body.to_owned(),
        Sign::Plain => format!("{padding} {body}"),
        Sign::Before => format!("{padding}{}{body}", if negative { '-' } else { '+' }),
        Sign::After => format!("{padding}{body}{}", if negative { '-' } else { '+' }),
        Sign::Minus if negative => format!("{padding}{body}-"),
        Sign::Minus if template.fill => body.to_owned(),
        Sign::Minus => format!("{padding}{body} "),
    };
    format!("{}{number}{}", template.before, template.after)
}
