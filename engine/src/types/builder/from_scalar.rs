//! A value that was read before, in the Arrow form of the builder's type.

use super::{ColumnBuilder, ListBuilder, Values};
use datafusion::scalar::ScalarValue;
use proto::{Error, Result};

impl ColumnBuilder {
    /// NULL of any type is taken. Text is checked and shaped as `append_text` does it.
    ///
    /// # Errors
    /// As `append_text`; internal for a value of another Arrow type.
    pub fn append_scalar(&mut self, value: &ScalarValue) -> Result<()> {
        if value.is_null() {
            self.append_null();
            return Ok(());
        }
        match (&mut self.values, value) {
            (Values::Bool(builder), ScalarValue::Boolean(value)) => builder.append_option(*value),
            (Values::Int2(builder), ScalarValue::Int16(value)) => builder.append_option(*value),
            (Values::Int4(builder), ScalarValue::Int32(value)) => builder.append_option(*value),
            (Values::Int8(builder), ScalarValue::Int64(value)) => builder.append_option(*value),
            (Values::Oid(builder), ScalarValue::UInt32(value)) => builder.append_option(*value),
            (Values::Float4(builder), ScalarValue::Float32(value)) => builder.append_option(*value),
            (Values::Float8(builder), ScalarValue::Float64(value)) => builder.append_option(*value),
            (Values::Decimal(builder, limits), ScalarValue::Decimal128(value, precision, scale))
                if (limits.precision, limits.scale) == (*precision, *scale) =>
            {
                builder.append_option(*value);
            }
            (Values::Text(_), ScalarValue::Utf8(Some(text))) => self.append_text(text.as_bytes())?,
            (Values::Bytes(builder), ScalarValue::Binary(value)) => builder.append_option(value.as_deref()),
            (Values::Date(builder), ScalarValue::Date32(value)) => builder.append_option(*value),
            (Values::Time(builder), ScalarValue::Time64Microsecond(value)) => builder.append_option(*value),
            (Values::Timestamp(builder), ScalarValue::TimestampMicrosecond(value, _)) => builder.append_option(*value),
            (Values::Interval(builder), ScalarValue::IntervalMonthDayNano(value)) => builder.append_option(*value),
            (Values::List(list), ScalarValue::List(value)) => append_list(list, &value.value(0))?,
            _ => {
                let text = format!("a value of type {} for a column of type {}", value.data_type(), self.ty);
                return Err(Error::internal(text));
            }
        }
        Ok(())
    }
}

fn append_list(list: &mut ListBuilder, elements: &arrow::array::ArrayRef) -> Result<()> {
    for index in 0..elements.len() {
        let element = ScalarValue::try_from_array(elements, index);
        list.elements.append_scalar(&element.map_err(|error| Error::internal(error.to_string()))?)?;
    }
    list.end()
}
