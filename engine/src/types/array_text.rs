//! The text of one-dimensional arrays: `{1,2,NULL,"a b"}`. More dimensions and explicit bounds are refused.

use super::plain::{is_space, trim};
use proto::{Error, Result, SqlState};

/// One element: its text without quotes and escapes, or NULL.
pub type Element = Option<String>;

/// # Errors
/// 22P02 for a malformed literal, 0A000 for what has more than one dimension.
pub fn split_array(text: &str) -> Result<Vec<Element>> {
    let malformed = |detail: &str| {
        Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{text}\"")).detail(detail)
    };
    let body = text.trim_start_matches(is_space);
    if body.starts_with('[') {
        return Err(Error::unsupported("an array literal with explicit bounds"));
    }
    let mut rest = body
        .strip_prefix('{')
        .ok_or_else(|| malformed("Array value must start with \"{\" or dimension information."))?;
    let mut elements = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        match rest.as_bytes().first() {
            None => return Err(malformed("Unexpected end of input.")),
            Some(b'{') => return Err(Error::unsupported("an array of more than one dimension")),
            Some(b'}') if elements.is_empty() => break,
            Some(b'}') => return Err(malformed("Unexpected \"}\" character.")),
            Some(b',') => return Err(malformed("Unexpected \",\" character.")),
            Some(b'"') => {
                let (element, tail) = quoted(&rest[1..]).ok_or_else(|| malformed("Unexpected end of input."))?;
                elements.push(Some(element));
                rest = tail.trim_start_matches(is_space);
            }
            Some(_) => {
                let (element, tail) = bare(rest).ok_or_else(|| malformed("Unexpected end of input."))?;
                elements.push(element);
                rest = tail;
            }
        }
        match rest.as_bytes().first() {
            None => return Err(malformed("Unexpected end of input.")),
            Some(b',') => rest = &rest[1..],
            Some(b'}') => break,
            Some(b'{') => return Err(malformed("Unexpected \"{\" character.")),
            Some(_) => return Err(malformed("Unexpected array element.")),
        }
    }
    match trim(&rest[1..]).is_empty() {
        true => Ok(elements),
        false => Err(malformed("Junk after closing right brace.")),
    }
}

/// Reads to the closing quote; `None` when there is none.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut element = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((element, &text[at + 1..])),
            '\\' => element.push(chars.next()?.1),
            c => element.push(c),
        }
    }
    None
}

/// Reads to the next `,`, `}`, `{` or `"`; blanks at the end do not belong to the element.
fn bare(text: &str) -> Option<(Element, &str)> {
    let mut element = String::new();
    let mut escaped_end = 0;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ',' | '}' | '{' | '"' => {
                let kept = element.trim_end_matches(is_space).len().max(escaped_end);
                element.truncate(kept);
                let is_null = escaped_end == 0 && element.eq_ignore_ascii_case("null");
                return Some(((!is_null).then_some(element), &text[at..]));
            }
            '\\' => {
                element.push(chars.next()?.1);
                escaped_end = element.len();
            }
            c => element.push(c),
        }
    }
    None
}

/// Appends an element's text, in quotes where it would otherwise be read as something else.
pub(super) fn write_element(element: &[u8], out: &mut Vec<u8>) {
    let special = |b: &u8| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | b'\t'..=b'\r');
    if !element.is_empty() && !element.eq_ignore_ascii_case(b"null") && !element.iter().any(special) {
        return out.extend_from_slice(element);
    }
    out.push(b'"');
    for byte in element {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = Vec::new();
        for element in split_array(text).unwrap() {
            match element {
                Some(element) => write_element(element.as_bytes(), &mut out),
                None => out.extend_from_slice(b"NULL"),
            }
            out.push(b',');
        }
        out.pop();
        format!("{{{}}}", String::from_utf8(out).unwrap())
    }

    /// Right-hand sides printed by PostgreSQL 15 for `text[]`.
    #[test]
    fn elements_are_read_and_quoted_as_postgres_does() {
        let cases = [
            ("{1,2,NULL,\"a b\"}", "{1,2,NULL,\"a b\"}"),
            ("{ 1 , \"NULL\", null , a b }", "{1,\"NULL\",NULL,\"a b\"}"),
            ("{}", "{}"),
            (r#"{"a\"b","c\\d"}"#, r#"{"a\"b","c\\d"}"#),
        ];
        for (text, result) in cases {
            assert_eq!(shown(text), result, "{text}");
        }
    }

    #[test]
    fn errors_are_postgres_ones() {
        let cases = [
            ("{1,2", "Unexpected end of input."),
            ("1,2", "Array value must start with \"{\" or dimension information."),
            ("{1,,2}", "Unexpected \",\" character."),
            ("{1}x", "Junk after closing right brace."),
            ("{1,\"a\"b}", "Unexpected array element."),
        ];
        for (text, detail) in cases {
            let error = split_array(text).unwrap_err();
            assert_eq!(error.message, format!("malformed array literal: \"{text}\""));
            assert_eq!(error.detail.as_deref(), Some(detail));
        }
        assert_eq!(split_array("{{1}}").unwrap_err().code, SqlState::FEATURE_NOT_SUPPORTED);
    }
}
