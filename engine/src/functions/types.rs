//! The Arrow types of the Postgres types that functions take, and the classes that overloads are chosen by.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

pub const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
pub const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
pub const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
/// Digits after the point of an unconstrained `numeric`.
pub const NUMERIC_SCALE: i8 = 16;
pub const NUMERIC: DataType = DataType::Decimal128(38, NUMERIC_SCALE);

pub fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The classes of types that PostgreSQL's operators tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// An untyped literal or parameter.
    Unknown,
    Bool,
    Integer,
    Numeric,
    Float,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    List,
    Other,
}

pub fn class(ty: &DataType) -> Class {
    match ty {
        DataType::Null => Class::Unknown,
        DataType::Boolean => Class::Bool,
        ty if ty.is_integer() => Class::Integer,
        DataType::Decimal128(..) | DataType::Decimal256(..) => Class::Numeric,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Class::Float,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Class::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Class::Bytes,
        DataType::Date32 | DataType::Date64 => Class::Date,
        DataType::Time32(_) | DataType::Time64(_) => Class::Time,
        DataType::Timestamp(_, None) => Class::Timestamp,
        DataType::Timestamp(_, Some(_)) => Class::Timestamptz,
        DataType::Interval(_) | DataType::Duration(_) => Class::Interval,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => Class::List,
        DataType::Dictionary(_, value) => class(value),
        _ => Class::Other,
    }
}

/// int2, int4 or int8: the narrowest that holds both.
pub fn wider_integer(left: &DataType, right: &DataType) -> DataType {
    let width = |ty: &DataType| match ty {
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => 2,
        DataType::Int32 | DataType::UInt16 => 4,
        _ => 8,
    };
    match width(left).max(width(right)) {
        2 => DataType::Int16,
        4 => DataType::Int32,
        _ => DataType::Int64,
    }
}

/// Whole digits an integer type can need.
pub fn integer_digits(ty: &DataType) -> u8 {
    match ty {
        DataType::Int8 | DataType::UInt8 | DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        _ => 20,
    }
}

/// The decimal type of a number that is to be treated as `numeric`.
pub fn as_decimal(ty: &DataType) -> DataType {
    match ty {
        DataType::Decimal128(..) => ty.clone(),
        ty if ty.is_integer() => DataType::Decimal128(integer_digits(ty), 0),
        _ => NUMERIC,
    }
}

pub fn scale_of(ty: &DataType) -> i8 {
    match ty {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

/// Untyped or text, so that a literal of it may be read as any other type.
pub fn is_textual(ty: &DataType) -> bool {
    matches!(class(ty), Class::Text | Class::Unknown)
}
