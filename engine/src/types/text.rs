//! Values as PostgreSQL 15 prints them with `DateStyle = ISO`, `IntervalStyle = postgres`, `bytea_output = hex` and
//! `extra_float_digits = 1`; other settings of these four are not supported.

use super::array_text::write_element;
use super::calendar::US_PER_DAY;
use super::datetime::{write_date, write_time, write_timestamp, write_timestamptz};
use super::decimal::{write_decimal, write_decimal256};
use super::digits::push_integer;
use super::float::{write_float4, write_float8};
use super::interval::write_interval;
use super::plain::write_bytea;
use super::values::{Column, Values};
use super::{PgType, TimeZone};
use arrow::array::Array;
use proto::Result;

/// What of a session changes the text of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formatter {
    pub zone: TimeZone,
}

impl Formatter {
    pub const UTC: Formatter = Formatter { zone: TimeZone::UTC };

    /// One value; the caller has seen that it is not null. For more than one row use `ColumnText`.
    ///
    /// # Errors
    /// As `ColumnText::new`.
    pub fn format(&self, array: &dyn Array, row: usize, ty: &PgType, out: &mut Vec<u8>) -> Result<()> {
        ColumnText::new(&array.slice(row, 1), ty, self)?.write(0, out);
        Ok(())
    }
}

/// A column made ready to be written as text, row by row.
pub struct ColumnText {
    column: Column,
    zone: TimeZone,
}

impl ColumnText {
    /// # Errors
    /// Internal when the Arrow type cannot hold the Postgres type; 22003 when a value does not fit it.
    pub fn new(array: &dyn Array, ty: &PgType, formatter: &Formatter) -> Result<ColumnText> {
        Ok(ColumnText { column: Column::new(array, ty)?, zone: formatter.zone })
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.column.is_null(row)
    }

    /// Appends the text of a row that is not null.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        write(&self.column, row, &self.zone, out);
    }
}

fn write(column: &Column, row: usize, zone: &TimeZone, out: &mut Vec<u8>) {
    match &column.values {
        Values::Null => {}
        Values::Bool(values) => out.push(if values.value(row) { b't' } else { b'f' }),
        Values::Int2(values) => push_integer(i64::from(values.value(row)), out),
        Values::Int4(values) => push_integer(i64::from(values.value(row)), out),
        Values::Int8(values) => push_integer(values.value(row), out),
        Values::Oid(values) => push_integer(i64::from(values.value(row)), out),
        Values::Float4(values) => write_float4(values.value(row), out),
        Values::Float8(values) => write_float8(values.value(row), out),
        Values::Decimal(values) => write_decimal(values.value(row), values.scale(), trims(&column.ty), out),
        Values::Decimal256(values) => write_decimal256(values.value(row), values.scale(), trims(&column.ty), out),
        Values::Text(values) => {
            let text = values.value(row);
            out.extend_from_slice(text.as_bytes());
            if let PgType::Bpchar(Some(n)) = column.ty {
                let padding = (n as usize).saturating_sub(text.chars().count());
                out.extend(std::iter::repeat_n(b' ', padding));
            }
        }
        Values::Bytes(values) => write_bytea(values.value(row), out),
        Values::Date(values) => write_date(values.value(row), out),
        Values::Time(values) => write_time(values.value(row), out),
        Values::Timestamp(values) => match column.ty {
            PgType::Timestamptz => write_timestamptz(values.value(row), zone, out),
            _ => write_timestamp(values.value(row), out),
        },
        Values::Interval(values) => {
            let value = values.value(row);
            write_interval(value.months, value.days, value.nanoseconds / 1_000, out);
        }
        Values::Difference(values) => {
            let us = values.value(row);
            write_interval(0, (us / US_PER_DAY) as i32, us % US_PER_DAY, out);
        }
        Values::List(lists, elements) => {
            let offsets = lists.value_offsets();
            let range = offsets[row] as usize..offsets[row + 1] as usize;
            match column.ty {
                PgType::Int2Vector | PgType::OidVector => write_vector(elements, range, zone, out),
                _ => write_array(elements, range, zone, out),
            }
        }
    }
}

/// A `numeric` without limits is held with many decimals that nobody wrote.
pub(super) fn trims(ty: &PgType) -> bool {
    matches!(ty, PgType::Numeric(None))
}

fn write_array(elements: &Column, range: std::ops::Range<usize>, zone: &TimeZone, out: &mut Vec<u8>) {
    let mut text = Vec::new();
    out.push(b'{');
    for index in range.clone() {
        if index > range.start {
            out.push(b',');
        }
        if elements.is_null(index) {
            out.extend_from_slice(b"NULL");
            continue;
        }
        text.clear();
        write(elements, index, zone, &mut text);
        match elements.values {
            // An array inside an array keeps its braces.
            Values::List(..) => out.extend_from_slice(&text),
            _ => write_element(&text, out),
        }
    }
    out.push(b'}');
}

/// `int2vector`: elements with blanks between.
fn write_vector(elements: &Column, range: std::ops::Range<usize>, zone: &TimeZone, out: &mut Vec<u8>) {
    for index in range.clone() {
        if index > range.start {
            out.push(b' ');
        }
        write(elements, index, zone, out);
    }
}
