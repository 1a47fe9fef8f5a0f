//! PostgreSQL's binary form of values, big-endian throughout, as `typsend` writes it.

use super::PgType;
use super::calendar::{PG_EPOCH_DAYS, PG_EPOCH_US, US_PER_DAY};
use super::decimal::{write_decimal, write_decimal_binary, write_decimal256};
use super::plain::parse_uuid;
use super::text::trims;
use super::values::{Column, Values};
use arrow::array::Array;
use proto::{Error, Result};

const JSONB_VERSION: u8 = 1;

/// One value; the caller has seen that it is not null. For more than one row use `ColumnBinary`.
///
/// # Errors
/// As `ColumnBinary::new`.
pub fn write_binary(array: &dyn Array, row: usize, ty: &PgType, out: &mut Vec<u8>) -> Result<()> {
    ColumnBinary::new(&array.slice(row, 1), ty)?.write(0, out)
}

/// A column made ready to be written in binary, row by row.
pub struct ColumnBinary {
    column: Column,
}

impl ColumnBinary {
    /// # Errors
    /// Internal when the Arrow type cannot hold the Postgres type; 22003 when a value does not fit it.
    pub fn new(array: &dyn Array, ty: &PgType) -> Result<ColumnBinary> {
        Ok(ColumnBinary { column: Column::new(array, ty)? })
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.column.is_null(row)
    }

    /// Appends a row that is not null, without its length.
    ///
    /// # Errors
    /// Internal when a stored text is no value of its type.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        write(&self.column, row, out)
    }
}

fn write(column: &Column, row: usize, out: &mut Vec<u8>) -> Result<()> {
    match &column.values {
        Values::Null => {}
        Values::Bool(values) => out.push(u8::from(values.value(row))),
        Values::Int2(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
        Values::Int4(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
        Values::Int8(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
        Values::Oid(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
        Values::Float4(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
        Values::Float8(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
        Values::Decimal(values) => {
            let mut text = Vec::with_capacity(40);
            write_decimal(values.value(row), values.scale(), trims(&column.ty), &mut text);
            write_decimal_binary(&text, out);
        }
        Values::Decimal256(values) => {
            let mut text = Vec::with_capacity(80);
            write_decimal256(values.value(row), values.scale(), trims(&column.ty), &mut text);
            write_decimal_binary(&text, out);
        }
        Values::Text(values) => write_text(&column.ty, values.value(row), out)?,
        Values::Bytes(values) => out.extend_from_slice(values.value(row)),
        Values::Date(values) => {
            let days = match values.value(row) {
                infinite @ (i32::MAX | i32::MIN) => infinite,
                days => days.saturating_sub(PG_EPOCH_DAYS),
            };
            out.extend_from_slice(&days.to_be_bytes());
        }
        Values::Time(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
        Values::Timestamp(values) => {
            let us = match values.value(row) {
                infinite @ (i64::MAX | i64::MIN) => infinite,
                us => us.saturating_sub(PG_EPOCH_US),
            };
            out.extend_from_slice(&us.to_be_bytes());
        }
        Values::Interval(values) => {
            let value = values.value(row);
            write_interval(value.nanoseconds / 1_000, value.days, value.months, out);
        }
        Values::Difference(values) => {
            let us = values.value(row);
            write_interval(us % US_PER_DAY, (us / US_PER_DAY) as i32, 0, out);
        }
        Values::List(lists, elements) => {
            let offsets = lists.value_offsets();
            write_array(&column.ty, elements, offsets[row] as usize..offsets[row + 1] as usize, out)?;
        }
    }
    Ok(())
}

fn write_interval(us: i64, days: i32, months: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(&us.to_be_bytes());
    out.extend_from_slice(&days.to_be_bytes());
    out.extend_from_slice(&months.to_be_bytes());
}

fn write_text(ty: &PgType, text: &str, out: &mut Vec<u8>) -> Result<()> {
    match ty {
        PgType::Uuid => out.extend_from_slice(&parse_uuid(text).map_err(|error| Error::internal(error.message))?),
        PgType::Jsonb => {
            out.push(JSONB_VERSION);
            out.extend_from_slice(text.as_bytes());
        }
        PgType::Bpchar(Some(n)) => {
            out.extend_from_slice(text.as_bytes());
            out.extend(std::iter::repeat_n(b' ', (*n as usize).saturating_sub(text.chars().count())));
        }
        // A `"char"` is one byte, also when it is empty.
        PgType::Char => out.push(text.bytes().next().unwrap_or(0)),
        PgType::Oid
        | PgType::Xid
        | PgType::Regclass
        | PgType::Regtype
        | PgType::Regproc
        | PgType::Regnamespace
        | PgType::Regrole => {
            // The text stands for a number that is not at hand.
            let oid: u32 = text.parse().map_err(|_| Error::unsupported(format_args!("{ty} by name in binary")))?;
            out.extend_from_slice(&oid.to_be_bytes());
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

/// ```text
/// dimensions i32 | has nulls i32 | element oid u32 | per dimension: length i32, lower bound i32 | per element: length i32, bytes
/// ```
fn write_array(ty: &PgType, elements: &Column, range: std::ops::Range<usize>, out: &mut Vec<u8>) -> Result<()> {
    if matches!(elements.values, Values::List(..)) {
        return Err(Error::unsupported("an array of more than one dimension in binary"));
    }
    let is_vector = matches!(ty, PgType::Int2Vector | PgType::OidVector);
    let dimensions: i32 = if range.is_empty() && !is_vector { 0 } else { 1 };
    let has_nulls = i32::from(range.clone().any(|index| elements.is_null(index)));
    out.extend_from_slice(&dimensions.to_be_bytes());
    out.extend_from_slice(&has_nulls.to_be_bytes());
    out.extend_from_slice(&elements.ty.oid().to_be_bytes());
    if dimensions == 1 {
        let lower_bound: i32 = if is_vector { 0 } else { 1 };
        out.extend_from_slice(&(range.len() as i32).to_be_bytes());
        out.extend_from_slice(&lower_bound.to_be_bytes());
    }
    for index in range {
        if elements.is_null(index) {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            continue;
        }
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        write(elements, index, out)?;
        let length = (out.len() - length_at - 4) as i32;
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}
