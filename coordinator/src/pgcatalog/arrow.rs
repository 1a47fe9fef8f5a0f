//! A finished result as an Arrow batch, for the encoder of query results.
//!
//! reg* columns have become names: they are `Utf8` with `pg.type` saying `regclass` and so on, not the `UInt32` that a
//! stored column of the type would be. `void` is an empty text, as PostgreSQL sends it.

use super::cast::{element, numeric_text};
use super::schema::is_reg;
use super::value::{RowSet, Value};
use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema};
use engine::PgType;
use engine::types::PG_TYPE;
use proto::{Error, Result};
use std::sync::Arc;

impl RowSet {
    /// The batch's schema, known before there are rows.
    pub fn schema(columns: &[(String, PgType)]) -> Arc<Schema> {
        Arc::new(Schema::new(columns.iter().map(|(name, ty)| field(name, ty)).collect::<Vec<_>>()))
    }

    /// # Errors
    /// `XX000` when a value is not of its column's type; never for results of this module.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        let schema = RowSet::schema(&self.columns);
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (index, field) in schema.fields().iter().enumerate() {
            let values: Vec<&Value> = self.rows.iter().map(|row| &row[index]).collect();
            arrays.push(array(&values, &self.columns[index].1, field)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|error| Error::internal(format!("catalog rows do not fit their columns: {error}")))
    }
}

fn field(name: &str, ty: &PgType) -> Field {
    let text = |ty: &PgType| {
        Field::new(name, DataType::Utf8, true).with_metadata([(PG_TYPE.to_owned(), ty.to_string())].into())
    };
    match ty {
        ty if is_reg(ty) || *ty == PgType::Void => text(ty),
        PgType::Array(inner) if is_reg(inner) => {
            let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
            Field::new(name, list, true).with_metadata([(PG_TYPE.to_owned(), ty.to_string())].into())
        }
        ty => ty.field(name, true),
    }
}

fn array(values: &[&Value], ty: &PgType, field: &Field) -> Result<ArrayRef> {
    let ints = || values.iter().map(|value| value.as_int());
    Ok(match field.data_type() {
        DataType::Boolean => Arc::new(BooleanArray::from_iter(values.iter().map(|value| match value {
            Value::Bool(b) => Some(*b),
            _ => None,
        }))),
        DataType::Int16 => Arc::new(Int16Array::from_iter(ints().map(|n| n.map(|n| n as i16)))),
        DataType::Int32 => Arc::new(Int32Array::from_iter(ints().map(|n| n.map(|n| n as i32)))),
        DataType::Int64 => Arc::new(Int64Array::from_iter(ints())),
        DataType::UInt32 => Arc::new(UInt32Array::from_iter(ints().map(|n| n.map(|n| n as u32)))),
        DataType::Float32 => {
            Arc::new(Float32Array::from_iter(values.iter().map(|value| value.as_float().map(|f| f as f32))))
        }
        DataType::Float64 => Arc::new(Float64Array::from_iter(values.iter().map(|value| value.as_float()))),
        DataType::Decimal128(precision, scale) => {
            let rescaled = values.iter().map(|value| decimal(value, *scale));
            let array = Decimal128Array::from_iter(rescaled.collect::<Result<Vec<_>>>()?);
            Arc::new(
                array
                    .with_precision_and_scale(*precision, *scale)
                    .map_err(|error| Error::internal(format!("catalog rows do not fit their columns: {error}")))?,
            )
        }
        DataType::Date32 => Arc::new(Date32Array::from_iter(values.iter().map(|value| match value {
            Value::Date(days) => Some(*days),
            _ => None,
        }))),
        DataType::Time64(_) => Arc::new(Time64MicrosecondArray::from_iter(values.iter().map(|value| match value {
            Value::Time(us) => Some(*us),
            _ => None,
        }))),
        DataType::Timestamp(_, zone) => {
            let times = TimestampMicrosecondArray::from_iter(values.iter().map(|value| match value {
                Value::Timestamp(us) => Some(*us),
                _ => None,
            }));
            Arc::new(times.with_timezone_opt(zone.clone()))
        }
        DataType::Interval(_) => {
            Arc::new(IntervalMonthDayNanoArray::from_iter(values.iter().map(|value| match value {
                Value::Interval(span) => {
                    Some(IntervalMonthDayNano::new(span.months, span.days, span.micros.saturating_mul(1000)))
                }
                _ => None,
            })))
        }
        DataType::List(item) => {
            let inner = element(ty).unwrap_or(PgType::Text);
            let flat: Vec<&Value> = values.iter().flat_map(|value| value.elements()).collect();
            let offsets = OffsetBuffer::from_lengths(values.iter().map(|value| value.elements().len()));
            let nulls = NullBuffer::from_iter(values.iter().map(|value| !value.is_null()));
            Arc::new(ListArray::new(item.clone(), offsets, array(&flat, &inner, item)?, Some(nulls)))
        }
        DataType::Binary => Arc::new(BinaryArray::from_iter(values.iter().map(|value| match value {
            Value::Text(text) => Some(text.as_bytes()),
            _ => None,
        }))),
        _ => Arc::new(StringArray::from_iter(values.iter().map(|value| text(value)))),
    })
}

fn decimal(value: &Value, scale: i8) -> Result<Option<i128>> {
    let overflow = || {
        let code = proto::SqlState::NUMERIC_VALUE_OUT_OF_RANGE;
        Error::new(code, "numeric field overflow")
    };
    let (number, from) = match value {
        Value::Null => return Ok(None),
        Value::Int(n) => (*n as i128, 0),
        Value::Numeric(n, scale) => (*n, *scale as i8),
        other => match other.as_float() {
            Some(f) => ((f * 1e6).round() as i128, 6),
            None => return Ok(None),
        },
    };
    let steps = scale - from;
    let unit = 10i128.checked_pow(steps.unsigned_abs() as u32).ok_or_else(overflow)?;
    Ok(Some(if steps >= 0 { number.checked_mul(unit).ok_or_else(overflow)? } else { number / unit }))
}

/// Records and whatever has lost its type: the text of each value.
fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Text(text) => text.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Bool(b) => if *b { "t" } else { "f" }.to_owned(),
        Value::Float(f) => f.to_string(),
        Value::Numeric(n, scale) => numeric_text(*n, *scale),
        other => format!("{other:?}"),
    })
}
