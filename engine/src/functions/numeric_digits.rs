//! How many digits a `numeric` shows after the point, and `to_number`.
//!
//! An unconstrained `numeric` shows what it needs: its scale is what `min_scale` gives, where PostgreSQL remembers zeros.

use super::scalar::{Call, Function, Overload, raise};
use super::text::text_at;
use super::types::{Class, NUMERIC, NUMERIC_SCALE, as_decimal, class, scale_of};
use crate::semantics::literal;
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int32Array};
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("trim_scale", |types| one_decimal(types, |_| NUMERIC), trim_scale).udf(),
        Function::new("scale", |types| one_decimal(types, |_| DataType::Int32), |call| digits(call, true)).udf(),
        Function::new("min_scale", |types| one_decimal(types, |_| DataType::Int32), |call| digits(call, false)).udf(),
        Function::new("to_number", two_texts, to_number).udf(),
    ]
}

fn one_decimal(types: &[DataType], result: fn(&DataType) -> DataType) -> Option<Overload> {
    let [ty] = types else { return None };
    let exact = matches!(class(ty), Class::Integer | Class::Numeric | Class::Unknown);
    exact.then(|| Overload::new([as_decimal(ty)], result(ty)))
}

fn two_texts(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([DataType::Utf8, DataType::Utf8], NUMERIC))
}

/// The unconstrained form, which never shows zeros at its end.
fn trim_scale(call: &Call) -> Result<ArrayRef> {
    Ok(arrow::compute::cast(&call.array(0)?, &NUMERIC)?)
}

fn digits(call: &Call, declared: bool) -> Result<ArrayRef> {
    let values = call.array(0)?;
    let scale = i32::from(scale_of(values.data_type()));
    let kept = declared && *values.data_type() != NUMERIC;
    let count = |value: i128| match kept {
        true => scale,
        false => needed(value, scale),
    };
    let counts: Int32Array = values.as_primitive::<Decimal128Type>().unary(count);
    Ok(Arc::new(counts))
}

/// Digits after the point without zeros at the end.
fn needed(value: i128, scale: i32) -> i32 {
    let (mut value, mut scale) = (value, scale);
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    scale
}

fn to_number(call: &Call) -> Result<ArrayRef> {
    let (texts, templates) = (call.array(0)?, call.array(1)?);
    let mut results: Vec<Option<i128>> = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        results.push(match (text_at(&texts, row), text_at(&templates, row)) {
            (Some(text), Some(template)) => Some(read(text, template).map_err(raise)?),
            _ => None,
        });
    }
    Ok(Arc::new(Decimal128Array::from(results).with_precision_and_scale(38, NUMERIC_SCALE)?))
}

/// Reads `text` along `template`: each `9` or `0` takes a digit if one is there, `D` or `.` the point, `G`, `,` and
/// anything else a character to be passed over. Text behind the template is not looked at.
fn read(text: &str, template: &str) -> Result<i128, Error> {
    let mut characters = text.chars().peekable();
    let (mut negative, mut number, mut point) = (false, String::new(), false);
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        let two = rest.get(..2).map(str::to_ascii_uppercase);
        let width = match two.as_deref() {
            Some("EE") => {
                return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "\"EEEE\" not supported for input"));
            }
            Some("RN" | "TH" | "PL") => {
                return Err(Error::unsupported(format!("the number pattern in to_number(…, '{template}')")));
            }
            Some("FM") => {
                rest = &rest[2..];
                continue;
            }
            Some("MI" | "SG" | "PR") => 2,
            _ => c.len_utf8(),
        };
        let pattern = rest[..width].to_ascii_uppercase();
        rest = &rest[width..];
        match pattern.as_str() {
            "9" | "0" => {
                // Blanks, signs and brackets may stand before the first digit wherever the template has its sign.
                while number.is_empty()
                    && let Some(c) = characters.next_if(|c| matches!(c, ' ' | '-' | '+' | '<'))
                {
                    negative |= matches!(c, '-' | '<');
                    if c == ' ' {
                        break;
                    }
                }
                if !point && characters.peek() == Some(&'.') && rest.contains(['.', 'd', 'D']) {
                    continue;
                }
                if let Some(digit) = characters.next_if(char::is_ascii_digit) {
                    number.push(digit);
                }
            }
            "." | "D" => {
                point |= characters.next_if_eq(&'.').is_some();
                number.push('.');
            }
            "," | "G" => {
                characters.next_if_eq(&',');
            }
            "V" => return Err(Error::unsupported(format!("the number pattern in to_number(…, '{template}')"))),
            "S" | "MI" | "SG" | "PR" => {
                while characters.next_if_eq(&' ').is_some() {}
                if let Some(c) = characters.next_if(|c| matches!(c, '-' | '+' | '<' | '>')) {
                    negative |= matches!(c, '-' | '<');
                }
            }
            "L" => {
                characters.next_if(|c| !c.is_ascii_digit() && !matches!(c, '-' | '+' | '.' | ','));
            }
            _ => {
                characters.next();
            }
        }
    }
    if !number.bytes().any(|b| b.is_ascii_digit()) {
        let message = "invalid input syntax for type numeric: \" \"";
        return Err(Error::new(SqlState::INVALID_TEXT_REPRESENTATION, message));
    }
    let signed = format!("{}{number}", if negative { "-" } else { "" });
    literal::decimal_value(&signed, NUMERIC_SCALE).ok_or_else(|| super::arithmetic::out_of_range(&NUMERIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Right-hand sides from PostgreSQL 15.
    #[test]
    fn numbers_are_read_along_their_template() {
        let cases = [
            ("12,454.8-", "99G999D9S", "-12454.8"),
            ("-34,338,492.654", "99,999,999.999", "-34338492.654"),
            ("$1,234.50", "L9,999.99", "1234.5"),
            ("<123>", "999PR", "-123"),
            ("0042", "9999", "42"),
            ("-12", "MI99", "-12"),
            ("12-", "99MI", "-12"),
            ("+7", "SG9", "7"),
            ("123", "99", "12"),
            ("1.25", "9", "1"),
            ("5", "999.99", "5"),
        ];
        for (text, template, wanted) in cases {
            let wanted = literal::decimal_value(wanted, NUMERIC_SCALE).unwrap();
            assert_eq!(read(text, template).unwrap(), wanted, "{text} along {template}");
        }
        assert_eq!(read("abc", "999").unwrap_err().code.as_str(), "22P02");
    }
}
