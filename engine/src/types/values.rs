//! A result column in one of few Arrow layouts. Plans produce many (dictionaries, views, other time units); text and
//! binary output know only those below, and the column is brought there as a whole, once.

use super::PgType;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    DurationMicrosecondArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

pub(super) enum Values {
    /// Every row is null, or the type has no values (`void`).
    Null,
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    /// `oid` and the types that are one.
    Oid(UInt32Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Decimal(Decimal128Array),
    Decimal256(Decimal256Array),
    Text(StringArray),
    Bytes(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
    Interval(IntervalMonthDayNanoArray),
    /// The difference of two timestamps: whole days are shown as days, as PostgreSQL subtracts.
    Difference(DurationMicrosecondArray),
    List(ListArray, Box<Column>),
}

/// A column of known Postgres type.
pub(super) struct Column {
    pub(super) ty: PgType,
    pub(super) values: Values,
    nulls: Option<arrow::buffer::NullBuffer>,
}

impl Column {
    /// # Errors
    /// Internal when the Arrow type cannot hold the Postgres type; 22003 when a value does not fit it.
    pub(super) fn new(array: &dyn Array, ty: &PgType) -> Result<Column> {
        let wanted = layout(array.data_type(), ty)?;
        let array: ArrayRef = match &wanted {
            same if same == array.data_type() => array.slice(0, array.len()),
            other => convert(array, other, ty)?,
        };
        let values = match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Bool(array.as_boolean().clone()),
            DataType::Int16 => Values::Int2(array.as_primitive().clone()),
            DataType::Int32 => Values::Int4(array.as_primitive().clone()),
            DataType::Int64 => Values::Int8(array.as_primitive().clone()),
            DataType::UInt32 => Values::Oid(array.as_primitive().clone()),
            DataType::Float32 => Values::Float4(array.as_primitive().clone()),
            DataType::Float64 => Values::Float8(array.as_primitive().clone()),
            DataType::Decimal128(..) => Values::Decimal(array.as_primitive().clone()),
            DataType::Decimal256(..) => Values::Decimal256(array.as_primitive().clone()),
            DataType::Utf8 => Values::Text(array.as_string().clone()),
            DataType::Binary => Values::Bytes(array.as_binary().clone()),
            DataType::Date32 => Values::Date(array.as_primitive().clone()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(array.as_primitive().clone()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Values::Timestamp(array.as_primitive().clone()),
            DataType::Interval(IntervalUnit::MonthDayNano) => Values::Interval(array.as_primitive().clone()),
            DataType::Duration(TimeUnit::Microsecond) => Values::Difference(array.as_primitive().clone()),
            DataType::List(_) => {
                let list = array.as_list::<i32>().clone();
                let element = element_type(ty).ok_or_else(|| mismatch(array.data_type(), ty))?;
                let elements = Column::new(list.values(), &element)?;
                Values::List(list, Box::new(elements))
            }
            other => return Err(mismatch(other, ty)),
        };
        Ok(Column { ty: ty.clone(), values, nulls: array.logical_nulls() })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }
}

pub(super) fn element_type(ty: &PgType) -> Option<PgType> {
    match ty {
        PgType::Array(element) => Some((**element).clone()),
        PgType::Int2Vector => Some(PgType::Int2),
        PgType::OidVector => Some(PgType::Oid),
        _ => None,
    }
}

/// The layout to bring a column of this Arrow type into.
fn layout(arrow: &DataType, ty: &PgType) -> Result<DataType> {
    if let DataType::Dictionary(_, value) = arrow {
        return layout(value, ty);
    }
    Ok(match (ty, arrow) {
        (_, DataType::Null) => DataType::Null,
        (PgType::Numeric(_), DataType::Decimal128(..) | DataType::Decimal256(..)) => arrow.clone(),
        (PgType::Numeric(_), DataType::Decimal32(p, s) | DataType::Decimal64(p, s)) => DataType::Decimal128(*p, *s),
        // Names that a catalog query already resolved.
        (
            PgType::Oid
            | PgType::Xid
            | PgType::Regclass
            | PgType::Regtype
            | PgType::Regproc
            | PgType::Regnamespace
            | PgType::Regrole,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View,
        ) => DataType::Utf8,
        (PgType::Timestamp | PgType::Timestamptz, DataType::Timestamp(_, zone)) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        (PgType::Interval, DataType::Duration(_)) => DataType::Duration(TimeUnit::Microsecond),
        (PgType::Array(_) | PgType::Int2Vector | PgType::OidVector, list) => match list {
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => DataType::List(Arc::clone(item)),
            // A vector or an array that is already text.
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
            other => return Err(mismatch(other, ty)),
        },
        _ => ty.arrow(),
    })
}

fn convert(array: &dyn Array, wanted: &DataType, ty: &PgType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, wanted, &strict).map_err(|error| match error {
        arrow::error::ArrowError::CastError(_) | arrow::error::ArrowError::ComputeError(_) => {
            Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{ty} out of range")).detail(error.to_string())
        }
        other => Error::internal(other.to_string()),
    })
}

fn mismatch(arrow: &DataType, ty: &PgType) -> Error {
    Error::internal(format!("a column of {arrow} cannot be shown as {ty}"))
}
