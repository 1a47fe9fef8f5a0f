//! Values on the wire: result columns in text or binary, parameters in both. The forms themselves are `engine::types`'.

use super::rows::Format;
use arrow::array::ArrayRef;
use datafusion::scalar::ScalarValue;
use engine::PgType;
use engine::types::{ColumnBinary, ColumnText, Formatter, TimeContext, parse_scalar, scalar_from_binary, utf8};
use proto::{Error, Result};

/// Writes the values of one column of one batch.
pub(super) enum ColumnWriter {
    Text(ColumnText),
    Binary(ColumnBinary),
}

impl ColumnWriter {
    pub(super) fn new(ty: &PgType, array: &ArrayRef, format: Format, context: &TimeContext) -> Result<ColumnWriter> {
        match format {
            Format::Text => ColumnText::new(array, ty, &Formatter { zone: context.zone }).map(ColumnWriter::Text),
            Format::Binary => ColumnBinary::new(array, ty).map(ColumnWriter::Binary),
        }
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        match self {
            ColumnWriter::Text(column) => column.is_null(row),
            ColumnWriter::Binary(column) => column.is_null(row),
        }
    }

    /// Appends the value alone, without its length. The row is not NULL.
    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        match self {
            ColumnWriter::Text(column) => {
                column.write(row, out);
                Ok(())
            }
            ColumnWriter::Binary(column) => column.write(row, out),
        }
    }
}

/// The value of one parameter of a Bind; `None` is NULL.
pub(super) fn read_param(
    ty: &PgType,
    format: Format,
    value: Option<&[u8]>,
    context: &TimeContext,
) -> Result<ScalarValue> {
    match (value, format) {
        (None, _) => ScalarValue::try_from(ty.arrow()).map_err(|error| Error::internal(error.to_string())),
        (Some(bytes), Format::Text) => parse_scalar(ty, utf8(bytes)?, context),
        (Some(bytes), Format::Binary) => scalar_from_binary(ty, bytes),
    }
}
