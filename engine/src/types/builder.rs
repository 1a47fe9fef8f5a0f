//! Text and binary input, one value at a time, into an Arrow column of the type's own layout.
//!
//! After a failed append the builder is good for nothing but dropping. Columns of text are bounded by their caller: Arrow's offsets end at
//! 2 GiB, and no batch is meant to come near that.

use super::array_text::split_array;
use super::datetime::{parse_date, parse_time, parse_timestamp, parse_timestamptz};
use super::decimal::{DecimalLimits, decimal_from_binary, parse_decimal};
use super::float::{parse_float4, parse_float8};
use super::interval::parse_interval;
use super::json::{check_json, normalize_jsonb};
use super::plain::{
    bpchar, name, one_char, parse_bool, parse_bytea, parse_integer, parse_oid, parse_uuid, utf8, uuid_text, varchar,
};
use super::values::element_type;
use super::{PgType, TimeContext};
use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray, NullBufferBuilder, StringBuilder,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt32Builder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

mod from_binary;
mod from_scalar;

pub struct ColumnBuilder {
    ty: PgType,
    context: TimeContext,
    values: Values,
}

enum Values {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(UInt32Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal(Decimal128Builder, DecimalLimits),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    /// Both kinds; the type says which.
    Timestamp(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    List(Box<ListBuilder>),
}

struct ListBuilder {
    elements: ColumnBuilder,
    /// Ends of the lists so far, with a zero in front.
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

/// Bytes set aside per text value.
const TEXT_BYTES_GUESS: usize = 16;

impl ColumnBuilder {
    /// Room is made for `capacity` values. Times without a zone are read in the context's.
    pub fn new(ty: &PgType, context: TimeContext, capacity: usize) -> ColumnBuilder {
        let values = match ty {
            PgType::Bool => Values::Bool(BooleanBuilder::with_capacity(capacity)),
            PgType::Int2 => Values::Int2(Int16Builder::with_capacity(capacity)),
            PgType::Int4 => Values::Int4(Int32Builder::with_capacity(capacity)),
            PgType::Int8 => Values::Int8(Int64Builder::with_capacity(capacity)),
            PgType::Float4 => Values::Float4(Float32Builder::with_capacity(capacity)),
            PgType::Float8 => Values::Float8(Float64Builder::with_capacity(capacity)),
            PgType::Numeric(declared) => {
                let DataType::Decimal128(precision, scale) = ty.arrow() else {
                    unreachable!("numeric is held in Decimal128");
                };
                let builder = Decimal128Builder::with_capacity(capacity).with_data_type(ty.arrow());
                Values::Decimal(builder, DecimalLimits { precision, scale, declared: declared.is_some() })
            }
            PgType::Bytea => Values::Bytes(BinaryBuilder::with_capacity(capacity, capacity * TEXT_BYTES_GUESS)),
            PgType::Date => Values::Date(Date32Builder::with_capacity(capacity)),
            PgType::Time => Values::Time(Time64MicrosecondBuilder::with_capacity(capacity)),
            PgType::Timestamp | PgType::Timestamptz => {
                let builder = TimestampMicrosecondBuilder::with_capacity(capacity).with_data_type(ty.arrow());
                Values::Timestamp(builder)
            }
            PgType::Interval => Values::Interval(IntervalMonthDayNanoBuilder::with_capacity(capacity)),
            PgType::Oid
            | PgType::Xid
            | PgType::Regclass
            | PgType::Regtype
            | PgType::Regproc
            | PgType::Regnamespace
            | PgType::Regrole => Values::Oid(UInt32Builder::with_capacity(capacity)),
            PgType::Array(_) | PgType::Int2Vector | PgType::OidVector => {
                let element = element_type(ty).expect("the three types above have elements");
                Values::List(Box::new(ListBuilder {
                    elements: ColumnBuilder::new(&element, context, capacity),
                    offsets: vec![0],
                    nulls: NullBufferBuilder::new(capacity),
                }))
            }
            PgType::Text
            | PgType::Void
            | PgType::Varchar(_)
            | PgType::Bpchar(_)
            | PgType::Name
            | PgType::Char
            | PgType::Uuid
            | PgType::Json
            | PgType::Jsonb
            | PgType::Record
            | PgType::Unknown => Values::Text(StringBuilder::with_capacity(capacity, capacity * TEXT_BYTES_GUESS)),
        };
        ColumnBuilder { ty: ty.clone(), context, values }
    }

    pub fn ty(&self) -> &PgType {
        &self.ty
    }

    pub fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        match &self.values {
            Values::Bool(builder) => builder.len(),
            Values::Int2(builder) => builder.len(),
            Values::Int4(builder) => builder.len(),
            Values::Int8(builder) => builder.len(),
            Values::Oid(builder) => builder.len(),
            Values::Float4(builder) => builder.len(),
            Values::Float8(builder) => builder.len(),
            Values::Decimal(builder, _) => builder.len(),
            Values::Text(builder) => builder.len(),
            Values::Bytes(builder) => builder.len(),
            Values::Date(builder) => builder.len(),
            Values::Time(builder) => builder.len(),
            Values::Timestamp(builder) => builder.len(),
            Values::Interval(builder) => builder.len(),
            Values::List(list) => list.offsets.len() - 1,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn append_null(&mut self) {
        match &mut self.values {
            Values::Bool(builder) => builder.append_null(),
            Values::Int2(builder) => builder.append_null(),
            Values::Int4(builder) => builder.append_null(),
            Values::Int8(builder) => builder.append_null(),
            Values::Oid(builder) => builder.append_null(),
            Values::Float4(builder) => builder.append_null(),
            Values::Float8(builder) => builder.append_null(),
            Values::Decimal(builder, _) => builder.append_null(),
            Values::Text(builder) => builder.append_null(),
            Values::Bytes(builder) => builder.append_null(),
            Values::Date(builder) => builder.append_null(),
            Values::Time(builder) => builder.append_null(),
            Values::Timestamp(builder) => builder.append_null(),
            Values::Interval(builder) => builder.append_null(),
            Values::List(list) => {
                list.offsets.push(list.elements.len() as i32);
                list.nulls.append_null();
            }
        }
    }

    /// Reads a value as its `typinput` would.
    ///
    /// # Errors
    /// 22021 for bytes that are no text, otherwise what PostgreSQL gives for the type.
    pub fn append_text(&mut self, bytes: &[u8]) -> Result<()> {
        self.append_str(utf8(bytes)?)
    }

    /// As `append_text`, for what is known to be text without zero bytes.
    ///
    /// # Errors
    /// As `append_text`.
    pub fn append_str(&mut self, text: &str) -> Result<()> {
        match &mut self.values {
            Values::Bool(builder) => builder.append_value(match text {
                "t" => true,
                "f" => false,
                other => parse_bool(other)?,
            }),
            Values::Int2(builder) => builder.append_value(parse_integer(text, "smallint")?),
            Values::Int4(builder) => builder.append_value(parse_integer(text, "integer")?),
            Values::Int8(builder) => builder.append_value(parse_integer(text, "bigint")?),
            Values::Oid(builder) => builder.append_value(match self.ty {
                // `regproc` of nothing.
                _ if text == "-" && self.ty != PgType::Oid => 0,
                _ => parse_oid(text, "oid")?,
            }),
            Values::Float4(builder) => builder.append_value(parse_float4(text)?),
            Values::Float8(builder) => builder.append_value(parse_float8(text)?),
            Values::Decimal(builder, limits) => builder.append_value(parse_decimal(text, *limits)?),
            Values::Text(builder) => append_string(&self.ty, text, builder)?,
            Values::Bytes(builder) => builder.append_value(parse_bytea(text)?),
            Values::Date(builder) => builder.append_value(parse_date(text, &self.context)?),
            Values::Time(builder) => builder.append_value(parse_time(text, &self.context)?),
            Values::Timestamp(builder) => builder.append_value(match self.ty {
                PgType::Timestamptz => parse_timestamptz(text, &self.context)?,
                _ => parse_timestamp(text, &self.context)?,
            }),
            Values::Interval(builder) => builder.append_value(arrow_interval(parse_interval(text)?)?),
            Values::List(list) => {
                let elements = match self.ty {
                    PgType::Int2Vector | PgType::OidVector => text
                        .split_ascii_whitespace()
                        .map(|element| Some(element.to_owned()))
                        .collect::<Vec<Option<String>>>(),
                    _ => split_array(text)?,
                };
                list.append(elements, |builder, element| builder.append_str(&element))?;
            }
        }
        Ok(())
    }

    /// The column; the builder is empty afterwards. Its Arrow type is `ty.arrow()`.
    pub fn finish(&mut self) -> ArrayRef {
        let array: ArrayRef = match &mut self.values {
            Values::Bool(builder) => Arc::new(builder.finish()),
            Values::Int2(builder) => Arc::new(builder.finish()),
            Values::Int4(builder) => Arc::new(builder.finish()),
            Values::Int8(builder) => Arc::new(builder.finish()),
            Values::Oid(builder) => Arc::new(builder.finish()),
            Values::Float4(builder) => Arc::new(builder.finish()),
            Values::Float8(builder) => Arc::new(builder.finish()),
            Values::Decimal(builder, _) => Arc::new(builder.finish()),
            Values::Text(builder) => Arc::new(builder.finish()),
            Values::Bytes(builder) => Arc::new(builder.finish()),
            Values::Date(builder) => Arc::new(builder.finish()),
            Values::Time(builder) => Arc::new(builder.finish()),
            Values::Timestamp(builder) => Arc::new(builder.finish()),
            Values::Interval(builder) => Arc::new(builder.finish()),
            Values::List(list) => list.finish(&self.ty),
        };
        debug_assert_eq!(*array.data_type(), self.ty.arrow());
        array
    }
}

impl ListBuilder {
    fn append<T>(
        &mut self,
        elements: impl IntoIterator<Item = Option<T>>,
        append: impl Fn(&mut ColumnBuilder, T) -> Result<()>,
    ) -> Result<()> {
        for element in elements {
            match element {
                Some(element) => append(&mut self.elements, element)?,
                None => self.elements.append_null(),
            }
        }
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let too_large =
            |_| Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "array size exceeds the maximum allowed (134217727)");
        self.offsets.push(i32::try_from(self.elements.len()).map_err(too_large)?);
        self.nulls.append_non_null();
        Ok(())
    }

    fn finish(&mut self, ty: &PgType) -> ArrayRef {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let DataType::List(field) = ty.arrow() else { unreachable!("only types with elements have a list builder") };
        let offsets = OffsetBuffer::new(offsets.into());
        Arc::new(ListArray::new(field, offsets, self.elements.finish(), self.nulls.finish()))
    }
}

fn append_string(ty: &PgType, text: &str, builder: &mut StringBuilder) -> Result<()> {
    match ty {
        PgType::Varchar(Some(n)) => builder.append_value(varchar(text, *n)?),
        PgType::Bpchar(Some(n)) => builder.append_value(bpchar(text, *n)?),
        PgType::Name => builder.append_value(name(text)),
        PgType::Char => builder.append_value(one_char(text)),
        PgType::Uuid => builder.append_value(uuid_text(&parse_uuid(text)?)),
        PgType::Json => {
            check_json(text)?;
            builder.append_value(text);
        }
        PgType::Jsonb => builder.append_value(normalize_jsonb(text)?),
        PgType::Record => return Err(Error::unsupported("input of type record")),
        _ => builder.append_value(text),
    }
    Ok(())
}

/// # Errors
/// 22008 when the time part is beyond ±292 years, where Arrow's nanoseconds end.
pub(super) fn arrow_interval((months, days, us): (i32, i32, i64)) -> Result<IntervalMonthDayNano> {
    match us.checked_mul(1_000) {
        Some(nanoseconds) => Ok(IntervalMonthDayNano::new(months, days, nanoseconds)),
        None => Err(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")),
    }
}
