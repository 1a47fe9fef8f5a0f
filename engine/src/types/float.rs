//! Floating point as text: the shortest digits that read back as the same value, in PostgreSQL's layout.

use super::digits::push_padded;
use super::plain::trim;
use proto::{Error, Result, SqlState};

/// Appends what `float8out` prints: plain digits from 1e-4 up to below 1e15, `d.ddde±xx` otherwise.
pub fn write_float8(value: f64, out: &mut Vec<u8>) {
    let magnitude = value.abs();
    if magnitude < 1e15 && write_short(value, out) {
        return;
    }
    if (1e-4..1e15).contains(&magnitude) {
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(value);
        out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    } else {
        write_extreme(value, |_| float8_digits(value), out);
    }
}

/// Most measurements have few decimals, and then this is several times as quick. With at most fifteen digits no other
/// decimal of as many reads back as the same float, and division rounds correctly.
fn write_short(value: f64, out: &mut Vec<u8>) -> bool {
    for (places, scale) in [(0, 1.0), (1, 10.0), (2, 100.0)] {
        let scaled = value * scale;
        let whole = (scaled + 0.5_f64.copysign(value)) as i64;
        if whole as f64 / scale != value {
            continue;
        }
        if whole.unsigned_abs() >= 1_000_000_000_000_000 || (whole == 0 && value.is_sign_negative()) {
            return false;
        }
        if whole < 0 {
            out.push(b'-');
        }
        let (units, scale) = (whole.unsigned_abs(), scale as u64);
        push_padded(units / scale, 1, out);
        if places > 0 {
            out.push(b'.');
            push_padded(units % scale, places, out);
        }
        return true;
    }
    false
}

/// Appends what `float4out` prints: plain digits from 1e-4 up to below 1e6.
pub fn write_float4(value: f32, out: &mut Vec<u8>) {
    let magnitude = value.abs();
    if (1e-4..1e6).contains(&magnitude) {
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(value);
        out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    } else {
        write_extreme(f64::from(value), |_| float4_digits(value), out);
    }
}

fn write_extreme(value: f64, exponential: impl Fn(f64) -> String, out: &mut Vec<u8>) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    if value == 0.0 {
        return out.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
    }
    let text = exponential(value);
    let (digits, exponent) = text.split_once('e').expect("the exponential form has an exponent");
    out.extend_from_slice(digits.as_bytes());
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => (b'-', exponent),
        None => (b'+', exponent),
    };
    out.extend_from_slice(&[b'e', sign]);
    if exponent.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(exponent.as_bytes());
}

/// The shortest digits. Rust and ryu take a decimal that lies exactly halfway to the neighbouring float where it would
/// round back to this one; PostgreSQL does not, and goes on to the next longer one.
fn float8_digits(value: f64) -> String {
    let text = format!("{value:e}");
    if !is_halfway(&text, f64::MANTISSA_DIGITS) {
        return text;
    }
    let longer = (0..=f64::DIGITS as usize + 2).map(|digits| format!("{value:.digits$e}"));
    let fits = |text: &String| text.parse() == Ok(value) && !is_halfway(text, f64::MANTISSA_DIGITS);
    longer.into_iter().find(fits).unwrap_or(text)
}

fn float4_digits(value: f32) -> String {
    let text = format!("{value:e}");
    if !is_halfway(&text, f32::MANTISSA_DIGITS) {
        return text;
    }
    let longer = (0..=f32::DIGITS as usize + 3).map(|digits| format!("{value:.digits$e}"));
    let fits = |text: &String| text.parse() == Ok(value) && !is_halfway(text, f32::MANTISSA_DIGITS);
    longer.into_iter().find(fits).unwrap_or(text)
}

/// Halfway between two floats is an odd number of one bit more than the mantissa, times a power of two. With at most 17
/// digits that can only be an integer, and its factor 5^n leaves room for n up to 23.
fn is_halfway(text: &str, mantissa_bits: u32) -> bool {
    let (mantissa, exponent) = text.split_once('e').expect("the exponential form has an exponent");
    let (whole, fraction) = mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.parse::<i32>().expect("the exponent is a number") - fraction.len() as i32;
    let digits: String = [whole.trim_start_matches('-'), fraction].concat();
    let (Ok(digits), Ok(power @ 0..=23)) = (digits.parse::<u128>(), u32::try_from(exponent)) else { return false };
    let product = digits * 5_u128.pow(power);
    product != 0 && (product >> product.trailing_zeros()).ilog2() == mantissa_bits
}

/// # Errors
/// 22P02 for a text that is no number, 22003 where it is beyond the type or rounds to zero.
pub fn parse_float8(text: &str) -> Result<f64> {
    if let Some(value) = short_decimal(text.as_bytes()) {
        return Ok(value);
    }
    let trimmed = trim(text);
    match plain::<f64>(trimmed) {
        Some(value) if (value.is_finite() && value != 0.0) || !lost(trimmed, value) => Ok(value),
        Some(_) => Err(out_of_range(trimmed, "double precision")),
        None => Err(syntax(text, "double precision")),
    }
}

/// Up to 15 digits with a point: both the digits and the power of ten are exact, so one division rounds right
/// (W. Clinger, "How to read floating point numbers accurately"). Most of what is loaded looks like this.
fn short_decimal(bytes: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !(1..=16).contains(&digits.len()) || !digits[0].is_ascii_digit() {
        return None;
    }
    let mut mantissa: u64 = 0;
    let mut point = None;
    for (at, byte) in digits.iter().enumerate() {
        match byte.wrapping_sub(b'0') {
            digit @ 0..=9 => mantissa = mantissa * 10 + u64::from(digit),
            _ if *byte == b'.' && point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    let decimals = match point {
        Some(at) => digits.len() - at - 1,
        None if digits.len() > 15 => return None,
        None => 0,
    };
    let value = mantissa as f64 / POWERS[decimals];
    Some(if negative { -value } else { value })
}

/// # Errors
/// As `parse_float8`.
pub fn parse_float4(text: &str) -> Result<f32> {
    let trimmed = trim(text);
    match plain::<f32>(trimmed) {
        Some(value) if (value.is_finite() && value != 0.0) || !lost(trimmed, f64::from(value)) => Ok(value),
        Some(_) => Err(out_of_range(text, "real")),
        None => Err(syntax(text, "real")),
    }
}

/// Rust reads the same decimal grammar as C, and the same words (`inf`, `infinity`, `nan`, in any case).
fn plain<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Whether a zero or an infinity came from digits that say otherwise.
fn lost(text: &str, value: f64) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    match value == 0.0 {
        true => mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b)),
        false => value.is_infinite() && mantissa.bytes().any(|b| b.is_ascii_digit()),
    }
}

fn out_of_range(text: &str, ty: &str) -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("\"{text}\" is out of range for type {ty}"))
}

fn syntax(text: &str, ty: &str) -> Error {
    Error::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type {ty}: \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float8(text: &str) -> String {
        let mut out = Vec::new();
        write_float8(parse_float8(text).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn float4(text: &str) -> String {
        let mut out = Vec::new();
        write_float4(parse_float4(text).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// The quick way must print what the general one does: the shortest digits, whatever was multiplied.
    #[test]
    fn short_decimals_are_the_shortest_digits() {
        let plain = |value: f64| {
            let text = ryu::Buffer::new().format_finite(value).to_owned();
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        };
        let mut bits = 88_172_645_463_325_252_u64;
        let mut draw = |limit: u64| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            bits % limit
        };
        for round in 0..300_000 {
            let digits = draw(1_000_000_000_000_000) / 10_u64.pow(draw(15) as u32);
            let mut value = digits as f64 / 10_f64.powi(draw(5) as i32);
            value = f64::from_bits(value.to_bits().wrapping_add(draw(3)).wrapping_sub(draw(3)));
            if round % 2 == 0 {
                value = -value;
            }
            if !(1e-4..1e15).contains(&value.abs()) {
                continue;
            }
            let mut out = Vec::new();
            write_float8(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), plain(value), "{value:e}");
        }
    }

    /// Right-hand sides printed by PostgreSQL 15.
    #[test]
    fn digits_and_layout_are_postgres_ones() {
        let cases = [
            ("1e23", "9.999999999999999e+22"),
            ("1e22", "1e+22"),
            ("5e-324", "5e-324"),
            ("1e15", "1e+15"),
            ("1e14", "100000000000000"),
            ("123456789012345", "123456789012345"),
            ("1234567890123456", "1.234567890123456e+15"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("-0", "-0"),
            ("58", "58"),
            ("58.50", "58.5"),
            ("9007199254740993", "9.007199254740992e+15"),
            ("1152921504606846976", "1.152921504606847e+18"),
            ("151115727451828646838272", "1.5111572745182865e+23"),
            ("5.6843418860808015e-14", "5.684341886080802e-14"),
            ("+inf", "Infinity"),
            ("nan", "NaN"),
            (" -Infinity ", "-Infinity"),
            (".5", "0.5"),
            ("5.", "5"),
        ];
        for (text, shown) in cases {
            assert_eq!(float8(text), shown, "{text}");
        }
        let cases = [
            ("1e6", "1e+06"),
            ("123456", "123456"),
            ("1234567", "1.234567e+06"),
            ("9.5367431640625e-7", "9.536743e-07"),
            ("2e-44", "2e-44"),
            ("3.4e38", "3.4e+38"),
            ("8.5899346e9", "8.589935e+09"),
            ("33554432", "3.3554432e+07"),
            ("1.6777216e7", "1.6777216e+07"),
        ];
        for (text, shown) in cases {
            assert_eq!(float4(text), shown, "{text}");
        }
    }

    #[test]
    fn errors_are_postgres_ones() {
        let cases = [
            (parse_float8("1e400").unwrap_err(), "22003", "\"1e400\" is out of range for type double precision"),
            (parse_float8("1e-400").unwrap_err(), "22003", "\"1e-400\" is out of range for type double precision"),
            (parse_float4(" 1e40 ").unwrap_err(), "22003", "\" 1e40 \" is out of range for type real"),
            (parse_float8("abc ").unwrap_err(), "22P02", "invalid input syntax for type double precision: \"abc \""),
            (parse_float8("").unwrap_err(), "22P02", "invalid input syntax for type double precision: \"\""),
        ];
        for (error, code, message) in cases {
            assert_eq!((error.code.as_str(), error.message.as_str()), (code, message));
        }
    }
}
