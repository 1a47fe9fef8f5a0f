//! One value, from a parameter or a literal.

use super::{ColumnBuilder, PgType, TimeContext};
use datafusion::scalar::ScalarValue;
use proto::{Error, Result};

/// # Errors
/// What PostgreSQL gives for a text that is no value of the type.
pub fn parse_scalar(ty: &PgType, text: &str, context: &TimeContext) -> Result<ScalarValue> {
    let mut builder = ColumnBuilder::new(ty, *context, 1);
    builder.append_text(text.as_bytes())?;
    only_value(builder)
}

/// # Errors
/// What PostgreSQL gives for bytes that are no value of the type.
pub fn scalar_from_binary(ty: &PgType, bytes: &[u8]) -> Result<ScalarValue> {
    let mut builder = ColumnBuilder::new(ty, TimeContext::UTC, 1);
    builder.append_binary(bytes)?;
    only_value(builder)
}

fn only_value(mut builder: ColumnBuilder) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&builder.finish(), 0).map_err(|error| Error::internal(error.to_string()))
}
