//! JSON texts: checked for `json`, brought into PostgreSQL's own order and spacing for `jsonb`.
//!
//! serde_json is not used, because `jsonb` keeps every digit of a number (`2.50` stays so) and its errors are
//! PostgreSQL's.

use proto::{Error, Result, SqlState};

/// Nesting at which a document is refused, so that a hostile one cannot exhaust the stack.
const DEPTH_MAX: usize = 512;
/// Digits a number may have once its exponent is written out.
const NUMBER_DIGITS_MAX: usize = 16_383;

#[derive(Debug, PartialEq)]
enum Json<'a> {
    /// `null`, `true`, `false`.
    Word(&'a str),
    Number(&'a str),
    Text(String),
    Array(Vec<Json<'a>>),
    Object(Vec<(String, Json<'a>)>),
}

/// # Errors
/// 22P02 for a text that is no JSON.
pub fn check_json(text: &str) -> Result<()> {
    Parser { text, at: 0, keep_escapes: true }.document().map(|_| ())
}

/// The text `jsonb` prints: object keys sorted by length and then by bytes, the last of equal keys kept.
///
/// # Errors
/// 22P02 for a text that is no JSON, 22P05 for `\u0000`, 22003 for a number beyond `numeric`.
pub fn normalize_jsonb(text: &str) -> Result<String> {
    let value = Parser { text, at: 0, keep_escapes: false }.document()?;
    let mut out = String::with_capacity(text.len() + 16);
    write(&value, &mut out)?;
    Ok(out)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// `json` stores its text as it came, so escapes that mean no character are left alone.
    keep_escapes: bool,
}

impl<'a> Parser<'a> {
    fn document(mut self) -> Result<Json<'a>> {
        let value = self.value(0)?;
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.unexpected("Expected end of input, but found")),
        }
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(rest.len());
        self.text.as_bytes().get(self.at).copied()
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>> {
        if depth > DEPTH_MAX {
            return Err(Error::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'a'..=b'z' | b'A'..=b'Z') => self.word(),
            _ => Err(self.unexpected("Expected JSON value, but found")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>> {
        self.at += 1;
        let mut members = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.unexpected(match members.is_empty() {
                    true => "Expected string or \"}\", but found",
                    false => "Expected string, but found",
                }));
            }
            let key = self.string()?;
            if self.peek() != Some(b':') {
                return Err(self.unexpected("Expected \":\", but found"));
            }
            self.at += 1;
            members.push((key, self.value(depth + 1)?));
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.unexpected("Expected \",\" or \"}\", but found")),
            }
        }
        self.at += 1;
        Ok(Json::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>> {
        self.at += 1;
        let mut elements = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.unexpected("Expected \",\" or \"]\", but found")),
            }
        }
        self.at += 1;
        Ok(Json::Array(elements))
    }

    fn word(&mut self) -> Result<Json<'a>> {
        match self.token() {
            word @ ("null" | "true" | "false") => {
                self.at += word.len();
                Ok(Json::Word(word))
            }
            other => Err(self.invalid_token(other)),
        }
    }

    fn number(&mut self) -> Result<Json<'a>> {
        let token_end = {
            let rest = &self.text[self.at..];
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')))
                .unwrap_or(rest.len())
        };
        let token = &self.text[self.at..self.at + token_end];
        if !is_number(token) {
            return Err(self.invalid_token(token));
        }
        self.at += token.len();
        Ok(Json::Number(token))
    }

    fn string(&mut self) -> Result<String> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        loop {
            let run = bytes[self.at..].iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20);
            let Some(run) = run else { return Err(self.invalid_token(&self.text[start..])) };
            value.push_str(&self.text[self.at..self.at + run]);
            self.at += run;
            match bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Ok(value);
                }
                b'\\' => self.escape(&mut value)?,
                control => {
                    return Err(invalid(format!("Character with value 0x{control:02x} must be escaped.")));
                }
            }
        }
    }

    fn escape(&mut self, value: &mut String) -> Result<()> {
        let Some(letter) = self.text[self.at + 1..].chars().next() else {
            self.at = self.text.len();
            return Err(self.unexpected(""));
        };
        self.at += 1 + letter.len_utf8();
        let plain = match letter {
            '"' | '\\' | '/' => letter,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.unicode_escape(value),
            other => return Err(invalid(format!("Escape sequence \"\\{other}\" is invalid."))),
        };
        value.push(plain);
        Ok(())
    }

    fn unicode_escape(&mut self, value: &mut String) -> Result<()> {
        let unit = self.four_hex()?;
        if self.keep_escapes {
            return Ok(());
        }
        let surrogate = |message: &str| invalid(message.to_owned());
        let code = match unit {
            0 => {
                return Err(Error::new(SqlState::UNTRANSLATABLE_CHARACTER, "unsupported Unicode escape sequence")
                    .detail("\\u0000 cannot be converted to text."));
            }
            0xD800..=0xDBFF => {
                let low = match self.text[self.at..].starts_with("\\u") {
                    true => {
                        self.at += 2;
                        self.four_hex()?
                    }
                    false => 0,
                };
                if !(0xDC00..=0xDFFF).contains(&low) {
                    return Err(surrogate("Unicode low surrogate must follow a high surrogate."));
                }
                0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
            }
            0xDC00..=0xDFFF => return Err(surrogate("Unicode low surrogate must follow a high surrogate.")),
            unit => unit,
        };
        value.push(char::from_u32(code).expect("surrogates were combined or refused above"));
        Ok(())
    }

    fn four_hex(&mut self) -> Result<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(invalid("\"\\u\" must be followed by four hexadecimal digits.".to_owned()));
        }
        self.at += 4;
        Ok(digits.iter().fold(0, |code, digit| code * 16 + char::from(*digit).to_digit(16).unwrap_or(0)))
    }

    /// The run of word characters here, or the one character.
    fn token(&self) -> &'a str {
        let rest = &self.text[self.at..];
        let run = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        &rest[..run.max(rest.chars().next().map_or(0, char::len_utf8))]
    }

    fn invalid_token(&self, token: &str) -> Error {
        invalid(format!("Token \"{token}\" is invalid."))
    }

    fn unexpected(&mut self, expectation: &str) -> Error {
        match (self.peek(), self.token()) {
            (None, _) => invalid("The input string ended unexpectedly.".to_owned()),
            (Some(b'{' | b'}' | b'[' | b']' | b':' | b',' | b'"' | b'-' | b'0'..=b'9'), token)
            | (_, token @ ("true" | "false" | "null")) => invalid(format!("{expectation} \"{token}\".")),
            (_, token) => self.invalid_token(token),
        }
    }
}

fn invalid(detail: String) -> Error {
    Error::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json").detail(detail)
}

/// `-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?`
fn is_number(token: &str) -> bool {
    let body = token.strip_prefix('-').unwrap_or(token);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let exponent_ok = |part: &str| digits(part.strip_prefix(['+', '-']).unwrap_or(part));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(exponent_ok)
}

fn write(value: &Json<'_>, out: &mut String) -> Result<()> {
    match value {
        Json::Word(word) => out.push_str(word),
        Json::Number(number) => write_number(number, out)?,
        Json::Text(text) => write_string(text, out),
        Json::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write(element, out)?;
            }
            out.push(']');
        }
        Json::Object(members) => {
            // Stable: of equal keys the last stays last and wins.
            let mut sorted: Vec<&(String, Json<'_>)> = members.iter().collect();
            sorted.sort_by(|a, b| (a.0.len(), &a.0).cmp(&(b.0.len(), &b.0)));
            out.push('{');
            let mut first = true;
            for (index, (key, member)) in sorted.iter().enumerate() {
                if sorted.get(index + 1).is_some_and(|next| next.0 == *key) {
                    continue;
                }
                if !std::mem::take(&mut first) {
                    out.push_str(", ");
                }
                write_string(key, out);
                out.push_str(": ");
                write(member, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// A number as `numeric` prints it: no exponent, as many decimals as were written.
fn write_number(number: &str, out: &mut String) -> Result<()> {
    let (negative, body) = match number.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, number),
    };
    let (mantissa, exponent) = body.split_once(['e', 'E']).unwrap_or((body, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let too_wide = || Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format");
    let exponent: i64 = exponent.parse().map_err(|_| too_wide())?;
    if exponent.unsigned_abs() as usize + digits.len() > NUMBER_DIGITS_MAX {
        return Err(too_wide());
    }
    let is_zero = digits.bytes().all(|b| b == b'0');
    if negative && !is_zero {
        out.push('-');
    }
    let point = whole.len() as i64 + exponent;
    let scale = (fraction.len() as i64 - exponent).max(0) as usize;
    let digit_at = |at: i64| usize::try_from(at).ok().and_then(|at| digits.as_bytes().get(at)).copied().unwrap_or(b'0');
    let first = (0..point).find(|at| digit_at(*at) != b'0').unwrap_or(point);
    if first >= point || is_zero {
        out.push('0');
    } else {
        out.extend((first..point).map(|at| char::from(digit_at(at))));
    }
    if scale > 0 {
        out.push('.');
        out.extend((point..point + scale as i64).map(|at| char::from(digit_at(at))));
    }
    Ok(())
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Right-hand sides printed by PostgreSQL 15.
    #[test]
    fn jsonb_prints_as_postgres_does() {
        let cases = [
            (
                r#"{"b":1,"a":[1, 2.50,1e3,-0,1E-2,"x\u00e9\n"],"b":{"zz":true,"c":null},"":{}}"#,
                r#"{"": {}, "a": [1, 2.50, 1000, 0, 0.01, "xé\n"], "b": {"c": null, "zz": true}}"#,
            ),
            ("[]", "[]"),
            (r#" "\ud83d\ude00" "#, "\"😀\""),
        ];
        for (text, shown) in cases {
            assert_eq!(normalize_jsonb(text).unwrap(), shown);
            assert_eq!(normalize_jsonb(shown).unwrap(), shown);
            check_json(text).unwrap();
        }
    }

    #[test]
    fn errors_are_postgres_ones() {
        let cases = [
            ("{bad", "Token \"bad\" is invalid."),
            ("{\"a\":}", "Expected JSON value, but found \"}\"."),
            ("", "The input string ended unexpectedly."),
            ("[1,2", "The input string ended unexpectedly."),
            ("01", "Token \"01\" is invalid."),
            ("\"abc", "Token \"\"abc\" is invalid."),
            ("nul", "Token \"nul\" is invalid."),
            ("[1] x", "Token \"x\" is invalid."),
        ];
        for (text, detail) in cases {
            let error = check_json(text).unwrap_err();
            assert_eq!((error.code.as_str(), error.detail.as_deref()), ("22P02", Some(detail)), "{text}");
        }
        assert_eq!(normalize_jsonb(r#""\u0000""#).unwrap_err().code.as_str(), "22P05");
        check_json(r#""\u0000""#).unwrap();
        assert_eq!(check_json(&"[".repeat(100_000)).unwrap_err().code.as_str(), "54001");
    }
}
