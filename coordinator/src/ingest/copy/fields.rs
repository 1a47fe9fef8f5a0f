//! The fields of a block, one after another. A field that is its own bytes is found with one search and not copied;
//! quotes and escapes are decoded aside.

use super::{Block, CopyFormat, CopyOptions};
use engine::types::utf8;
use proto::{Error, Result, SqlState};
use std::ops::Range;

pub(super) struct Fields<'a> {
    text: &'a str,
    options: &'a CopyOptions,
    /// Third byte to stop at, besides delimiter and line end.
    special: u8,
    crlf: bool,
    has_cr: bool,
    at: usize,
    decoded: String,
}

/// One field; its bytes are behind `Fields::value`.
pub(super) struct Field {
    /// As written, without delimiter and line end.
    raw: Range<usize>,
    is_decoded: bool,
    pub(super) is_quoted: bool,
    pub(super) ends_record: bool,
}

impl<'a> Fields<'a> {
    /// `text` is the block's, known to be UTF-8.
    pub(super) fn new(text: &'a str, block: &Block, options: &'a CopyOptions) -> Fields<'a> {
        let special = if options.format == CopyFormat::Csv { options.quote } else { b'\\' };
        let has_cr = memchr::memchr(b'\r', text.as_bytes()).is_some();
        Fields { text, options, special, crlf: block.crlf, has_cr, at: 0, decoded: String::new() }
    }

    /// True when every record has been read.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Where the next field begins.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn raw(&self, field: &Field) -> &str {
        &self.text[field.raw.clone()]
    }

    pub(super) fn value(&self, field: &Field) -> &str {
        match field.is_decoded {
            true => &self.decoded,
            false => &self.text[field.raw.clone()],
        }
    }

    pub(super) fn null(&self) -> &str {
        &self.options.null
    }

    pub(super) fn is_null(&self, field: &Field) -> bool {
        !field.is_quoted && self.raw(field) == self.options.null
    }

    /// Reads the next field of this record.
    ///
    /// # Errors
    /// 22P04 for stray line ends and quotes without their end, 22021 for escapes that give no text.
    pub(super) fn next(&mut self) -> Result<Field> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let found = memchr::memchr3(self.options.delimiter, b'\n', self.special, &bytes[start..]);
        let end = found.map_or(bytes.len(), |found| start + found);
        if end < bytes.len() && bytes[end] == self.special {
            return match self.options.format {
                CopyFormat::Text => self.escaped(start, end),
                CopyFormat::Csv => self.quoted(start, end),
            };
        }
        self.field(start, end, false, false)
    }

    /// A field whose raw bytes end at a delimiter, a line end, or the end of the block.
    fn field(&mut self, start: usize, end: usize, is_decoded: bool, is_quoted: bool) -> Result<Field> {
        let bytes = self.text.as_bytes();
        let ends_record = bytes.get(end) != Some(&self.options.delimiter);
        self.at = (end + 1).min(bytes.len());
        let mut raw = start..end;
        if ends_record && self.crlf {
            match bytes[start..end].last() {
                Some(b'\r') => raw.end -= 1,
                // The last line of all may end anywhere.
                _ if end == bytes.len() => {}
                _ => return Err(self.stray("newline", "n")),
            }
            if is_decoded && raw.end < end && self.decoded.ends_with('\r') {
                self.decoded.pop();
            }
        }
        if self.has_cr && !is_quoted && memchr::memchr(b'\r', &bytes[raw.clone()]).is_some() {
            return Err(self.stray("carriage return", "r"));
        }
        Ok(Field { raw, is_decoded, is_quoted, ends_record })
    }

    fn stray(&self, what: &str, letter: &str) -> Error {
        let (kind, hint) = match self.options.format {
            CopyFormat::Text => ("literal", format!("Use \"\\{letter}\" to represent {what}.")),
            CopyFormat::Csv => ("unquoted", format!("Use quoted CSV field to represent {what}.")),
        };
        Error::new(SqlState::BAD_COPY_FILE_FORMAT, format!("{kind} {what} found in data")).hint(hint)
    }

    /// Text format from the first backslash on.
    fn escaped(&mut self, start: usize, first: usize) -> Result<Field> {
        let bytes = self.text.as_bytes();
        let mut value = bytes[start..first].to_vec();
        let mut at = first;
        while at < bytes.len() && bytes[at] == b'\\' {
            at += 1;
            let Some(letter) = bytes.get(at) else { break };
            at += 1;
            match letter {
                b'b' => value.push(8),
                b'f' => value.push(12),
                b'n' => value.push(b'\n'),
                b'r' => value.push(b'\r'),
                b't' => value.push(b'\t'),
                b'v' => value.push(11),
                b'0'..=b'7' => at += push_number(&bytes[at - 1..], 3, 8, &mut value) - 1,
                b'x' => match push_number(&bytes[at..], 2, 16, &mut value) {
                    0 => value.push(b'x'),
                    digits_count => at += digits_count,
                },
                other => value.push(*other),
            }
            let run = memchr::memchr3(self.options.delimiter, b'\n', b'\\', &bytes[at..]).unwrap_or(bytes.len() - at);
            value.extend_from_slice(&bytes[at..at + run]);
            at += run;
        }
        self.decoded.clear();
        if self.text[start..at] != self.options.null {
            self.decoded.push_str(utf8(&value)?);
        }
        self.field(start, at, true, false)
    }

    /// CSV from the first quote on. Quotes may open and close anywhere in a field.
    fn quoted(&mut self, start: usize, first: usize) -> Result<Field> {
        let bytes = self.text.as_bytes();
        let CopyOptions { delimiter, quote, escape, .. } = *self.options;
        self.decoded.clear();
        self.decoded.push_str(&self.text[start..first]);
        let mut at = first;
        while at < bytes.len() && bytes[at] == quote {
            at += 1;
            loop {
                let Some(run) = memchr::memchr2(quote, escape, &bytes[at..]) else {
                    self.at = bytes.len();
                    let message = "unterminated CSV quoted field";
                    return Err(Error::new(SqlState::BAD_COPY_FILE_FORMAT, message));
                };
                self.decoded.push_str(&self.text[at..at + run]);
                at += run;
                match (bytes[at], bytes.get(at + 1)) {
                    (byte, Some(next)) if byte == escape && (*next == quote || *next == escape) => {
                        self.decoded.push(char::from(*next));
                        at += 2;
                    }
                    (byte, _) if byte == quote => break,
                    (byte, _) => {
                        self.decoded.push(char::from(byte));
                        at += 1;
                    }
                }
            }
            at += 1;
            let run = memchr::memchr3(delimiter, b'\n', quote, &bytes[at..]).unwrap_or(bytes.len() - at);
            self.decoded.push_str(&self.text[at..at + run]);
            at += run;
        }
        self.field(start, at, true, true)
    }
}

/// Appends the byte that up to `digits_max` digits give; returns how many there were.
fn push_number(bytes: &[u8], digits_max: usize, radix: u32, value: &mut Vec<u8>) -> usize {
    let digits = bytes.iter().take(digits_max).map_while(|byte| char::from(*byte).to_digit(radix));
    let (count, number) = digits.fold((0, 0), |(count, number), digit| (count + 1, number * radix + digit));
    if count > 0 {
        value.push(number as u8);
    }
    count
}
