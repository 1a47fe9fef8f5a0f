//! `numeric` over Arrow decimals: an integer and a scale.
//!
//! What Arrow cannot hold is refused: NaN, the infinities, and more than 38 digits.

use super::digits::push_padded;
use super::plain::trim;
use arrow::datatypes::i256;
use proto::{Error, Result, SqlState};

/// A decimal column's limits, and whether its type was written with them (`numeric(10,2)`) or not (`numeric`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecimalLimits {
    pub precision: u8,
    pub scale: i8,
    pub declared: bool,
}

/// Reads a `numeric`, rounded half away from zero to the scale.
///
/// # Errors
/// 22P02 for a text that is no number, 22003 for one that does not fit, 0A000 for NaN and the infinities.
pub fn parse_decimal(text: &str, limits: DecimalLimits) -> Result<i128> {
    let syntax = || {
        Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type numeric: \"{text}\""))
    };
    let trimmed = trim(text);
    let (negative, body) = match trimmed.as_bytes().first() {
        Some(b'-') => (true, &trimmed[1..]),
        Some(b'+') => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    if ["nan", "inf", "infinity"].iter().any(|word| body.eq_ignore_ascii_case(word)) {
        return Err(Error::unsupported(format_args!("numeric {body}")));
    }
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => {
            let exponent = &body[at + 1..];
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
                return Err(syntax());
            }
            // Clamped: past a million every digit is either zero or out of range.
            let magnitude = unsigned.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000);
            (&body[..at], if exponent.starts_with('-') { -magnitude } else { magnitude })
        }
        None => (body, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits_count = whole.len() + fraction.len();
    if digits_count == 0 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(syntax());
    }
    // How many of the digits stand before the point of the scaled integer.
    let kept = whole.len() as i64 + exponent + i64::from(limits.scale);
    let magnitude = scaled(whole.bytes().chain(fraction.bytes()), kept).filter(|value| fits(*value, limits));
    let magnitude = magnitude.ok_or_else(|| overflow(limits))?;
    Ok(if negative { -magnitude } else { magnitude })
}

/// The first `kept` digits as an integer, zeros added if there are fewer, rounded by the next one.
fn scaled(digits: impl Iterator<Item = u8>, kept: i64) -> Option<i128> {
    let mut value: i128 = 0;
    let mut taken = 0;
    for digit in digits {
        let digit = i128::from(digit - b'0');
        if taken >= kept {
            return if taken == kept && digit >= 5 { value.checked_add(1) } else { Some(value) };
        }
        value = value.checked_mul(10)?.checked_add(digit)?;
        taken += 1;
    }
    if value == 0 {
        return Some(0);
    }
    value.checked_mul(10_i128.checked_pow(u32::try_from((kept - taken).max(0)).ok()?)?)
}

pub(super) fn fits(magnitude: i128, limits: DecimalLimits) -> bool {
    10_i128.checked_pow(u32::from(limits.precision)).is_none_or(|bound| magnitude.abs() < bound)
}

pub(super) fn overflow(limits: DecimalLimits) -> Error {
    if !limits.declared {
        return Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format");
    }
    let DecimalLimits { precision, scale, .. } = limits;
    let bound = match i32::from(precision) - i32::from(scale) {
        0 => "1".to_owned(),
        digits => format!("10^{digits}"),
    };
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than {bound}."
    ))
}

/// Appends the digits of `value * 10^-scale`. With `trim`, zeros at the end of the fraction are left out.
pub fn write_decimal(value: i128, scale: i8, trim: bool, out: &mut Vec<u8>) {
    match u64::try_from(value.unsigned_abs()) {
        Ok(magnitude) => {
            let mut digits = Vec::with_capacity(20);
            push_padded(magnitude, 1, &mut digits);
            write_digits(value < 0, &digits, scale, trim, out);
        }
        Err(_) => write_digits(value < 0, value.unsigned_abs().to_string().as_bytes(), scale, trim, out),
    }
}

pub fn write_decimal256(value: i256, scale: i8, trim: bool, out: &mut Vec<u8>) {
    let text = value.to_string();
    let digits = text.strip_prefix('-').unwrap_or(&text);
    write_digits(value.is_negative(), digits.as_bytes(), scale, trim, out);
}

fn write_digits(negative: bool, digits: &[u8], scale: i8, trim: bool, out: &mut Vec<u8>) {
    if negative {
        out.push(b'-');
    }
    let Ok(scale @ 1..) = usize::try_from(scale) else {
        out.extend_from_slice(digits);
        if digits != b"0" {
            out.extend(std::iter::repeat_n(b'0', usize::from(scale.unsigned_abs())));
        }
        return;
    };
    if digits.len() > scale {
        out.extend_from_slice(&digits[..digits.len() - scale]);
    } else {
        out.push(b'0');
    }
    out.push(b'.');
    out.extend(std::iter::repeat_n(b'0', scale.saturating_sub(digits.len())));
    out.extend_from_slice(&digits[digits.len().saturating_sub(scale)..]);
    if trim {
        while out.last() == Some(&b'0') {
            out.pop();
        }
        if out.last() == Some(&b'.') {
            out.pop();
        }
    }
}

const SIGN_NEGATIVE: u16 = 0x4000;

/// PostgreSQL's binary form of a decimal text: `digits_count, weight, sign, scale` and digits of base 10,000, all
/// 16-bit big-endian; the first digit counts `10000^weight`.
pub(super) fn write_decimal_binary(text: &[u8], out: &mut Vec<u8>) {
    let (sign, body) = match text.strip_prefix(b"-") {
        Some(body) => (SIGN_NEGATIVE, body),
        None => (0, text),
    };
    let point = body.iter().position(|b| *b == b'.').unwrap_or(body.len());
    let (whole, fraction) = (&body[..point], body.get(point + 1..).unwrap_or_default());
    let groups_before = whole.len().div_ceil(4);
    let padding = groups_before * 4 - whole.len();
    let digit_at = |at: usize| -> u16 {
        let digit = match at.checked_sub(padding) {
            Some(at) if at < whole.len() => Some(&whole[at]),
            Some(at) => fraction.get(at - whole.len()),
            None => None,
        };
        digit.map_or(0, |digit| u16::from(digit - b'0'))
    };
    let groups_count = groups_before + fraction.len().div_ceil(4);
    let groups: Vec<u16> =
        (0..groups_count).map(|group| (0..4).fold(0, |sum, i| sum * 10 + digit_at(group * 4 + i))).collect();
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let end = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let is_zero = first == end;
    let weight = if is_zero { 0 } else { groups_before as i16 - 1 - first as i16 };
    out.extend_from_slice(&((end - first) as u16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&if is_zero { 0 } else { sign }.to_be_bytes());
    out.extend_from_slice(&(fraction.len() as u16).to_be_bytes());
    for group in &groups[first..end] {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

/// # Errors
/// 22P03 for bytes that are no numeric, otherwise as `parse_decimal`.
pub(super) fn decimal_from_binary(bytes: &[u8], limits: DecimalLimits) -> Result<i128> {
    let invalid = || Error::new(SqlState::INVALID_BINARY_REPRESENTATION, "invalid digit in external \"numeric\" value");
    let mut words = bytes.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    let (Some(count), Some(weight), Some(sign), Some(_scale)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    if sign != 0 && sign != SIGN_NEGATIVE {
        return Err(Error::unsupported("numeric NaN or infinity"));
    }
    if bytes.len() != 8 + usize::from(count) * 2 {
        return Err(invalid());
    }
    let mut text = if sign == 0 { String::from("0") } else { String::from("-0") };
    for group in words {
        if group > 9_999 {
            return Err(invalid());
        }
        text.push_str(&format!("{group:04}"));
    }
    let exponent = (i32::from(weight as i16) + 1 - i32::from(count)) * 4;
    text.push_str(&format!("e{exponent}"));
    parse_decimal(&text, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONEY: DecimalLimits = DecimalLimits { precision: 5, scale: 2, declared: true };
    const FREE: DecimalLimits = DecimalLimits { precision: 38, scale: 16, declared: false };

    fn shown(text: &str, limits: DecimalLimits) -> String {
        let mut out = Vec::new();
        write_decimal(parse_decimal(text, limits).unwrap(), limits.scale, !limits.declared, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Right-hand sides printed by PostgreSQL 15.
    #[test]
    fn rounding_and_layout_are_postgres_ones() {
        for (text, result) in [("1.005", "1.01"), ("-1.005", "-1.01"), ("0.004", "0.00"), ("999.994", "999.99")] {
            assert_eq!(shown(text, MONEY), result, "{text}");
        }
        for (text, result) in [(" 1.5 ", "1.5"), ("1.5e-3", "0.0015"), ("1e3", "1000"), (".5", "0.5"), ("5.", "5")] {
            assert_eq!(shown(text, FREE), result, "{text}");
        }
        let hundreds = DecimalLimits { precision: 3, scale: -2, declared: true };
        assert_eq!(shown("12345", hundreds), "12300");
        assert_eq!(shown("0.00012", DecimalLimits { precision: 3, scale: 5, declared: true }), "0.00012");
    }

    #[test]
    fn errors_are_postgres_ones() {
        let detail = "A field with precision 5, scale 2 must round to an absolute value less than 10^3.";
        for text in ["12345", "999.995", "-1e30000000000"] {
            let error = parse_decimal(text, MONEY).unwrap_err();
            assert_eq!((error.code.as_str(), error.message.as_str()), ("22003", "numeric field overflow"));
            assert_eq!(error.detail.as_deref(), Some(detail));
        }
        for text in ["abc", "", "1e", " 1_0", "1.2.3", "-"] {
            let error = parse_decimal(text, MONEY).unwrap_err();
            assert_eq!(error.message, format!("invalid input syntax for type numeric: \"{text}\""));
        }
        assert_eq!(parse_decimal("12e9999999", FREE).unwrap_err().message, "value overflows numeric format");
        assert_eq!(parse_decimal("NaN", FREE).unwrap_err().code, SqlState::FEATURE_NOT_SUPPORTED);
    }
}
