//! A value becomes text inside a query: `x::text`, `||`, `concat`, `format`.

use super::Zone;
use crate::PgType;
use crate::functions::raise;
use crate::types::{ColumnText, Formatter};
use arrow::array::{ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use proto::Error;
use std::sync::Arc;

/// Each value as PostgreSQL prints it, in `zone`; NULL stays NULL.
pub fn to_text(array: &ArrayRef, zone: Zone) -> Result<ArrayRef> {
    match PgType::from_arrow(array.data_type()) {
        Some(ty) => to_text_as(array, &ty, zone),
        None => Ok(cast(array, &DataType::Utf8)?),
    }
}

/// The same for a column of a known Postgres type.
pub fn to_text_as(array: &ArrayRef, ty: &PgType, zone: Zone) -> Result<ArrayRef> {
    let column = ColumnText::new(array.as_ref(), ty, &Formatter { zone: zone.time_zone() }).map_err(raise)?;
    let mut texts = StringBuilder::new();
    let mut bytes = Vec::new();
    for row in 0..array.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        bytes.clear();
        column.write(row, &mut bytes);
        let text = std::str::from_utf8(&bytes).map_err(|error| raise(Error::internal(error.to_string())))?;
        texts.append_value(text);
    }
    Ok(Arc::new(texts.finish()))
}

/// As a cast shows it: booleans are spelled out.
pub fn cast_to_text(array: &ArrayRef, zone: Zone) -> Result<ArrayRef> {
    if *array.data_type() != DataType::Boolean {
        return to_text(array, zone);
    }
    let word = |value: bool| if value { "true" } else { "false" };
    let words: StringArray = array.as_boolean().iter().map(|value| value.map(word)).collect();
    Ok(Arc::new(words))
}
