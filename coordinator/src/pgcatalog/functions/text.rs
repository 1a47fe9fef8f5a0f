//! Text, numbers, JSON: general functions that catalog queries use.

use super::super::run::{TEXT_BYTES_MAX, regex};
use super::super::schema;
use super::super::value::Value;
use super::Eval;
use engine::PgType;
use proto::{Error, Result, SqlState};

pub(super) const FUNCTIONS: &[(&str, Eval)] = &[
    ("lower(text) text", |_, args| Ok(Value::text(args[0].as_str().to_lowercase()))),
    ("upper(text) text", |_, args| Ok(Value::text(args[0].as_str().to_uppercase()))),
    ("length(text) int4", |_, args| Ok(Value::Int(args[0].as_str().chars().count() as i64))),
    ("char_length(text) int4", |_, args| Ok(Value::Int(args[0].as_str().chars().count() as i64))),
    ("octet_length(text) int4", |_, args| Ok(Value::Int(args[0].as_str().len() as i64))),
    ("substring(text, int4, int4?) text", |_, args| substring(args)),
    ("substr(text, int4, int4?) text", |_, args| substring(args)),
    ("substring_pattern(text, text) text", |_, args| {
        let regex = regex(args[1].as_str(), false)?;
        let found = regex.captures(args[0].as_str());
        Ok(Value::opt_text(found.and_then(|found| found.get(1).or(found.get(0)).map(|part| part.as_str()))))
    }),
    ("replace(text, text, text) text", |_, args| {
        let (text, from, to) = (args[0].as_str(), args[1].as_str(), args[2].as_str());
        if from.is_empty() {
            return Ok(args[0].clone());
        }
        let grown = text.matches(from).count() * to.len() + text.len();
        bounded(grown)?;
        Ok(Value::text(text.replace(from, to)))
    }),
    ("split_part(text, text, int4) text", |_, args| {
        let (text, by) = (args[0].as_str(), args[1].as_str());
        let parts: Vec<&str> = if by.is_empty() { vec![text] } else { text.split(by).collect() };
        let at = match args[2].as_int().unwrap_or(0) {
            0 => return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "field position must not be zero")),
            n if n > 0 => usize::try_from(n - 1).ok(),
            n => usize::try_from(parts.len() as i64 + n).ok(),
        };
        Ok(Value::text(at.and_then(|at| parts.get(at)).unwrap_or(&"")))
    }),
    ("left(text, int4) text", |_, args| {
        let chars = args[0].as_str().chars().count() as i64;
        let count = args[1].as_int().unwrap_or(0);
        let count = if count < 0 { (chars + count).max(0) } else { count };
        Ok(Value::text(args[0].as_str().chars().take(count as usize).collect::<String>()))
    }),
    ("right(text, int4) text", |_, args| {
        let chars = args[0].as_str().chars().count() as i64;
        let count = args[1].as_int().unwrap_or(0);
        let skip = if count < 0 { -count } else { (chars - count).max(0) };
        Ok(Value::text(args[0].as_str().chars().skip(skip as usize).collect::<String>()))
    }),
    ("btrim(text, text?) text", |_, args| Ok(trim(args, true, true))),
    ("trim(text, text?) text", |_, args| Ok(trim(args, true, true))),
    ("ltrim(text, text?) text", |_, args| Ok(trim(args, true, false))),
    ("rtrim(text, text?) text", |_, args| Ok(trim(args, false, true))),
    ("strpos(text, text) int4", |_, args| Ok(Value::Int(position(args[0].as_str(), args[1].as_str())))),
    ("starts_with(text, text) bool", |_, args| Ok(Value::Bool(args[0].as_str().starts_with(args[1].as_str())))),
    ("reverse(text) text", |_, args| Ok(Value::text(args[0].as_str().chars().rev().collect::<String>()))),
    ("repeat(text, int4) text", |_, args| {
        let count = args[1].as_int().unwrap_or(0).max(0) as usize;
        bounded(args[0].as_str().len().saturating_mul(count))?;
        Ok(Value::text(args[0].as_str().repeat(count)))
    }),
    ("chr(int4) text", |_, args| {
        let c = args[0].as_int().and_then(|n| u32::try_from(n).ok()).and_then(char::from_u32);
        Ok(Value::opt_text(c.map(String::from)))
    }),
    ("ascii(text) int4", |_, args| Ok(Value::Int(args[0].as_str().chars().next().map_or(0, |c| c as i64)))),
    ("~concat(text*...) text", |_, args| Ok(Value::text(args.iter().map(Value::as_str).collect::<String>()))),
    ("~concat_ws(text*, text*...) text", |_, args| {
        if args[0].is_null() {
            return Ok(Value::Null);
        }
        let parts: Vec<&str> = args[1..].iter().filter(|part| !part.is_null()).map(Value::as_str).collect();
        Ok(Value::text(parts.join(args[0].as_str())))
    }),
    ("~format(text, text*...) text", |_, args| format(args)),
    ("quote_ident(text) text", |_, args| Ok(Value::text(quote_ident(args[0].as_str())))),
    ("quote_literal(text*) text", |_, args| Ok(Value::text(quote_literal(args[0].as_str())))),
    ("~quote_nullable(text*) text", |_, args| {
        Ok(Value::text(if args[0].is_null() { "NULL".to_owned() } else { quote_literal(args[0].as_str()) }))
    }),
    ("parse_ident(text, bool?) text[]", |_, args| {
        let strict = args.get(1).is_none_or(Value::is_true);
        Ok(Value::texts(split_ident(args[0].as_str(), strict)?))
    }),
    ("regexp_replace(text, text, text, text?) text", |_, args| {
        let flags = args.get(3).map_or("", Value::as_str);
        let regex = regex(args[1].as_str(), flags.contains('i'))?;
        let with = replacement(args[2].as_str());
        let text = args[0].as_str();
        let replaced = if flags.contains('g') { regex.replace_all(text, with) } else { regex.replace(text, with) };
        bounded(replaced.len())?;
        Ok(Value::text(replaced))
    }),
    ("regexp_match(text, text, text?) text[]", |_, args| {
        let flags = args.get(2).map_or("", Value::as_str);
        let regex = regex(args[1].as_str(), flags.contains('i'))?;
        Ok(regex.captures(args[0].as_str()).map_or(Value::Null, |found| captures(&found)))
    }),
    ("md5(text) text", |_, _| Err(Error::unsupported("md5 over catalogs"))),
    ("abs(any) $1", |_, args| {
        Ok(match &args[0] {
            Value::Int(n) => Value::Int(n.saturating_abs()),
            Value::Numeric(n, scale) => Value::Numeric(n.saturating_abs(), *scale),
            other => other.as_float().map_or(Value::Null, |f| Value::Float(f.abs())),
        })
    }),
    ("round(any) $1", |_, args| {
        Ok(match &args[0] {
            // A numeric's half goes away from zero, a double's to the even side.
            Value::Numeric(..) => args[0].as_int().map_or(Value::Null, |n| Value::Numeric(n as i128, 0)),
            value => rounded(value, f64::round_ties_even),
        })
    }),
    ("floor(any) $1", |_, args| Ok(rounded(&args[0], f64::floor))),
    ("ceil(any) $1", |_, args| Ok(rounded(&args[0], f64::ceil))),
    ("now() timestamptz", |ctx, _| Ok(Value::Timestamp(ctx.catalog.now_us()))),
    ("current_timestamp() timestamptz", |ctx, _| Ok(Value::Timestamp(ctx.catalog.now_us()))),
    ("statement_timestamp() timestamptz", |ctx, _| Ok(Value::Timestamp(ctx.catalog.now_us()))),
    ("transaction_timestamp() timestamptz", |ctx, _| Ok(Value::Timestamp(ctx.catalog.now_us()))),
    ("clock_timestamp() timestamptz", |ctx, _| Ok(Value::Timestamp(ctx.catalog.now_us()))),
    ("extract_epoch(any) numeric", |_, args| {
        Ok(match &args[0] {
            Value::Timestamp(us) => Value::Numeric(*us as i128, 6),
            Value::Date(days) => Value::Numeric(*days as i128 * 86_400_000_000, 6),
            Value::Interval(span) => {
                const MONTH_S: i128 = 30 * 86_400;
                let seconds = span.months as i128 * MONTH_S + span.days as i128 * 86_400;
                Value::Numeric(seconds * 1_000_000 + span.micros as i128, 6)
            }
            _ => Value::Null,
        })
    }),
    // Ages of transaction ids mean nothing here.
    ("age(xid) int4", |_, _| Ok(Value::Int(0))),
    // The binder passes each value with its type's name.
    ("~json_build_object_typed(any...) json", |ctx, args| {
        let mut parts = Vec::new();
        for pair in args.chunks(4) {
            let [key, _, value, ty] = pair else {
                return Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "argument list must have even number of elements",
                ));
            };
            let ty = PgType::parse(ty.as_str()).unwrap_or(PgType::Text);
            let key = super::super::cast::to_text(ctx, key, &PgType::Text)?;
            let key = serde_json::Value::String(key);
            parts.push(format!("{key} : {}", super::super::run::json(ctx, value, &ty)?));
        }
        Ok(Value::text(format!("{{{}}}", parts.join(", "))))
    }),
    ("pg_typeof_name(text) regtype", |ctx, args| Ok(ctx.find_type(args[0].as_str())?.map_or(Value::Null, Value::Int))),
];

fn bounded(bytes: usize) -> Result<()> {
    match bytes > TEXT_BYTES_MAX {
        true => Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "text is too long")),
        false => Ok(()),
    }
}

fn substring(args: &[Value]) -> Result<Value> {
    let start = args[1].as_int().unwrap_or(1);
    let end = match args.get(2).and_then(Value::as_int) {
        Some(length) if length < 0 => {
            return Err(Error::new(SqlState::new("22011"), "negative substring length not allowed"));
        }
        Some(length) => start.saturating_add(length),
        None => i64::MAX,
    };
    let chars = args[0].as_str().chars().zip(1i64..).filter(|(_, at)| *at >= start && *at < end);
    Ok(Value::text(chars.map(|(c, _)| c).collect::<String>()))
}

fn trim(args: &[Value], start: bool, end: bool) -> Value {
    let set = args.get(1).map_or(" ", Value::as_str);
    let mut text = args[0].as_str();
    if start {
        text = text.trim_start_matches(|c| set.contains(c));
    }
    if end {
        text = text.trim_end_matches(|c| set.contains(c));
    }
    Value::text(text)
}

fn position(text: &str, part: &str) -> i64 {
    text.find(part).map_or(0, |at| text[..at].chars().count() as i64 + 1)
}

fn rounded(value: &Value, how: fn(f64) -> f64) -> Value {
    match value {
        Value::Int(_) => value.clone(),
        Value::Numeric(n, scale) => {
            let whole = how(*n as f64 / 10f64.powi(*scale as i32));
            Value::Numeric(whole as i128, 0)
        }
        other => other.as_float().map_or(Value::Null, |f| Value::Float(how(f))),
    }
}

/// `\1` and `\&` of POSIX replacements in the notation of the regex crate.
fn replacement(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some(digit @ '0'..='9') => out.push_str(&format!("${{{digit}}}")),
                Some('&') => out.push_str("${0}"),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

/// The groups of a match, or all of it where the pattern has none.
pub(super) fn captures(found: &regex::Captures) -> Value {
    match found.len() {
        1 => Value::texts([&found[0]]),
        _ => Value::array(found.iter().skip(1).map(|group| Value::opt_text(group.map(|group| group.as_str())))),
    }
}

/// `%s`, `%I`, `%L`, with positions (`%1$s`).
fn format(args: &[Value]) -> Result<Value> {
    if args[0].is_null() {
        return Ok(Value::Null);
    }
    let bad = |message: &str| Error::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let mut out = String::new();
    let mut chars = args[0].as_str().chars().peekable();
    let mut next = 1;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        if !digits.is_empty() {
            chars.next_if_eq(&'$').ok_or_else(|| bad("width is not supported in format()"))?;
            next = digits.parse().map_err(|_| bad("number is out of range"))?;
        }
        let kind = chars.next().ok_or_else(|| bad("unterminated format() type specifier"))?;
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = args.get(next).ok_or_else(|| bad("too few arguments for format()"))?;
        next += 1;
        match (kind, value) {
            ('s', value) => out.push_str(value.as_str()),
            ('I', Value::Null) => {
                return Err(Error::new(SqlState::new("22004"), "null values cannot be formatted as an SQL identifier"));
            }
            ('I', value) => out.push_str(&quote_ident(value.as_str())),
            ('L', Value::Null) => out.push_str("NULL"),
            ('L', value) => out.push_str(&quote_literal(value.as_str())),
            (other, _) => return Err(bad(&format!("unrecognized format() type specifier \"{other}\""))),
        }
        bounded(out.len())?;
    }
    Ok(Value::text(out))
}

/// Quotes what would not read back as itself: capitals, odd characters, key words that are not unreserved.
pub(crate) fn quote_ident(name: &str) -> String {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    match starts && plain && !is_quoted_keyword(name) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

fn is_quoted_keyword(name: &str) -> bool {
    let mut lines = schema::KEYWORDS.lines().filter_map(|line| line.split_once(' '));
    lines.any(|(word, rest)| word == name && !rest.starts_with('U'))
}

fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// `"Schema".table` into its names; bare ones are lower-cased. Not strict: what follows a name is ignored.
pub(crate) fn split_ident(text: &str, strict: bool) -> Result<Vec<String>> {
    let bad = || Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("string is not a valid identifier: \"{text}\""));
    let mut names = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut chars = quoted.char_indices().peekable();
            let mut end = None;
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' if chars.next_if(|(_, next)| *next == '"').is_some() => name.push('"'),
                    '"' => {
                        end = Some(at + 1);
                        break;
                    }
                    c => name.push(c),
                }
            }
            rest = &quoted[end.ok_or_else(bad)?..];
            names.push(name);
        } else {
            let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            if end == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(bad());
            }
            names.push(rest[..end].to_lowercase());
            rest = &rest[end..];
        }
        rest = rest.trim_start();
        match rest.strip_prefix('.') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() || !strict => return Ok(names),
            None => return Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_quote_and_split_as_postgres_does() {
        assert_eq!(quote_ident("time"), "\"time\"");
        assert_eq!(quote_ident("name"), "name");
        assert_eq!(quote_ident("Mixed\"x"), "\"Mixed\"\"x\"");
        assert_eq!(split_ident("public.\"A\"\"b\"", true).unwrap(), ["public", "A\"b"]);
        assert_eq!(split_ident("Foo", true).unwrap(), ["foo"]);
        assert!(split_ident("a b", true).is_err());
        assert_eq!(split_ident("f(int)", false).unwrap(), ["f"]);
    }

    #[test]
    fn formats() {
        let args = [Value::text("%I.%I=%L %2$s"), Value::text("public"), Value::text("time"), Value::Null];
        assert_eq!(format(&args).unwrap(), Value::text("public.\"time\"=NULL time"));
    }
}
