//! The types whose text needs no calendar and no decimals: booleans, integers, strings, bytes, uuids.

use proto::{Error, Result, SqlState};
use std::borrow::Cow;
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;

/// Bytes of a `name`, without PostgreSQL's terminating zero.
const NAME_BYTES_MAX: usize = 63;

pub(super) fn syntax(ty: &str, text: &str) -> Error {
    Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type {ty}: \"{text}\""))
}

/// C's `isspace`; blanks beyond ASCII are text.
pub(super) fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Text from a client is UTF-8 without zero bytes.
///
/// # Errors
/// 22021 naming the first bytes that are not.
pub fn utf8(bytes: &[u8]) -> Result<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0) => Ok(text),
        Ok(_) => Err(invalid_bytes(&[0])),
        Err(error) => {
            let rest = &bytes[error.valid_up_to()..];
            // PostgreSQL shows as many bytes as the first one announces.
            let announced = match rest[0] {
                0xC0..=0xDF => 2,
                0xE0..=0xEF => 3,
                0xF0..=0xF7 => 4,
                _ => 1,
            };
            Err(invalid_bytes(&rest[..announced.min(rest.len())]))
        }
    }
}

fn invalid_bytes(bytes: &[u8]) -> Error {
    let shown: Vec<String> = bytes.iter().map(|byte| format!("0x{byte:02x}")).collect();
    Error::new(
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")),
    )
}

/// `true`, `yes`, `on`, `1` and their opposites, or an unambiguous beginning of the word.
pub fn parse_bool(text: &str) -> Result<bool> {
    let word = trim(text);
    let starts =
        |full: &str| !word.is_empty() && full.len() >= word.len() && full[..word.len()].eq_ignore_ascii_case(word);
    if !word.is_ascii() {
        return Err(syntax("boolean", text));
    }
    if word == "1" || starts("true") || starts("yes") || word.eq_ignore_ascii_case("on") {
        return Ok(true);
    }
    if word == "0" || starts("false") || starts("no") || (word.len() > 1 && starts("off")) {
        return Ok(false);
    }
    Err(syntax("boolean", text))
}

pub(super) fn parse_integer<T: FromStr<Err = ParseIntError>>(text: &str, ty: &str) -> Result<T> {
    text.parse().or_else(|_| trim(text).parse()).map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
            Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value \"{text}\" is out of range for type {ty}"))
        }
        _ => syntax(ty, text),
    })
}

/// 32 bits, written signed or unsigned.
pub(super) fn parse_oid(text: &str, ty: &str) -> Result<u32> {
    let value: i64 = parse_integer(text, ty)?;
    u32::try_from(value).or_else(|_| i32::try_from(value).map(|signed| signed as u32)).map_err(|_| {
        Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value \"{text}\" is out of range for type {ty}"))
    })
}

/// The text cut to `n` characters, if only blanks are lost.
fn limited<'a>(text: &'a str, n: u32, ty: &str) -> Result<&'a str> {
    if text.len() <= n as usize {
        return Ok(text);
    }
    let Some((end, _)) = text.char_indices().nth(n as usize) else { return Ok(text) };
    match text[end..].bytes().all(|b| b == b' ') {
        true => Ok(&text[..end]),
        false => Err(Error::new(SqlState::STRING_DATA_RIGHT_TRUNCATION, format!("value too long for type {ty}({n})"))),
    }
}

pub(super) fn varchar(text: &str, n: u32) -> Result<&str> {
    limited(text, n, "character varying")
}

/// Stored without its padding, which output adds again.
pub(super) fn bpchar(text: &str, n: u32) -> Result<&str> {
    Ok(limited(text, n, "character")?.trim_end_matches(' '))
}

pub(super) fn name(text: &str) -> &str {
    let mut end = text.len().min(NAME_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The one byte of a `"char"`; bytes above 127 are shown in octal.
pub(super) fn one_char(text: &str) -> Cow<'_, str> {
    match text.as_bytes().first() {
        None => Cow::Borrowed(""),
        Some(byte) if byte.is_ascii() => Cow::Borrowed(&text[..1]),
        Some(byte) => Cow::Owned(format!("\\{byte:03o}")),
    }
}

/// 32 hex digits, a hyphen allowed after every four, braces around.
pub fn parse_uuid(text: &str) -> Result<[u8; 16]> {
    let body = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(|| syntax("uuid", text))?,
        None => text,
    };
    let mut bytes = [0; 16];
    let mut digits_count = 0;
    let mut hyphen_before = true;
    for byte in body.bytes() {
        if byte == b'-' && digits_count % 4 == 0 && digits_count < 32 && !hyphen_before {
            hyphen_before = true;
            continue;
        }
        let digit = hex_digit(byte).filter(|_| digits_count < 32).ok_or_else(|| syntax("uuid", text))?;
        bytes[digits_count / 2] = bytes[digits_count / 2] << 4 | digit;
        digits_count += 1;
        hyphen_before = false;
    }
    if digits_count != 32 || hyphen_before {
        return Err(syntax("uuid", text));
    }
    Ok(bytes)
}

/// The lower-case text with hyphens in which a uuid is stored and printed.
pub fn uuid_text(bytes: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes(*bytes).hyphenated().to_string()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// `\x` and hex digits, or the older escape form (`\\`, `\ooo`).
pub fn parse_bytea(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(hex) => parse_bytea_hex(hex),
        None => parse_bytea_escape(text),
    }
}

fn parse_bytea_hex(hex: &str) -> Result<Vec<u8>> {
    let invalid = |message: String| Error::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let mut bytes = Vec::with_capacity(hex.len() / 2);
    let mut high = None;
    for c in hex.chars() {
        if matches!(c, ' ' | '\n' | '\t' | '\r') && high.is_none() {
            continue;
        }
        let digit = c.to_digit(16).ok_or_else(|| invalid(format!("invalid hexadecimal digit: \"{c}\"")))? as u8;
        match high.take() {
            Some(high) => bytes.push(high << 4 | digit),
            None => high = Some(digit),
        }
    }
    match high {
        Some(_) => Err(invalid("invalid hexadecimal data: odd number of digits".to_owned())),
        None => Ok(bytes),
    }
}

fn parse_bytea_escape(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                tail
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            (b'\\', _) => {
                let message = "invalid input syntax for type bytea";
                return Err(Error::new(SqlState::INVALID_TEXT_REPRESENTATION, message));
            }
            (plain, tail) => {
                bytes.push(*plain);
                tail
            }
        };
    }
    Ok(bytes)
}

pub(super) fn write_bytea(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + bytes.len() * 2);
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}
