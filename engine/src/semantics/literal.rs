//! Text becomes a typed value inside a query: literals of a statement, and text columns that are cast. The reading
//! itself is `types`'; here is what a *cast* does beside it: cut `varchar(n)`, and take the zone and `now()` along.

use super::Zone;
use crate::PgType;
use crate::types::{ColumnBuilder, DecimalLimits, TimeContext, parse_decimal, parse_scalar};
use arrow::array::{Array, ArrayRef, StringArray};
use datafusion::common::ScalarValue;
use proto::Error;
use std::borrow::Cow;

/// Reads text as a value of `ty`; times without an offset are in `zone`, `today` and its kin are around `now_us`.
///
/// # Errors
/// 22P02, 22007, 22008 or 22003, in PostgreSQL's words.
pub fn parse(text: &str, ty: &PgType, zone: Zone, now_us: i64) -> Result<ScalarValue, Error> {
    parse_scalar(ty, &shortened(text, ty), &TimeContext { zone: zone.time_zone(), now_us })
}

/// A whole column of text.
pub fn parse_array(texts: &StringArray, ty: &PgType, zone: Zone, now_us: i64) -> Result<ArrayRef, Error> {
    let context = TimeContext { zone: zone.time_zone(), now_us };
    let mut builder = ColumnBuilder::new(ty, context, texts.len());
    for text in texts.iter() {
        match text {
            Some(text) => builder.append_text(shortened(text, ty).as_bytes())?,
            None => builder.append_null(),
        }
    }
    Ok(builder.finish())
}

/// An explicit cast cuts what is too long, where storing it would be an error.
fn shortened<'a>(text: &'a str, ty: &PgType) -> Cow<'a, str> {
    match ty {
        PgType::Varchar(Some(n)) | PgType::Bpchar(Some(n)) => text.chars().take(*n as usize).collect(),
        _ => Cow::Borrowed(text),
    }
}

/// Digits of an unconstrained `numeric` of this scale; `None` when there is no room.
pub fn decimal_value(text: &str, scale: i8) -> Option<i128> {
    parse_decimal(text, DecimalLimits { precision: 38, scale, declared: false }).ok()
}
