//! How a column's values are kept in Parquet when its Arrow type alone would keep them badly or not at all.
//!
//! The stored field says so in its metadata under `seriatim.stored`:
//! - `f64/<k>`, `f32/<k>`: every value is a short decimal, kept as the integer value·10^k in a DECIMAL(18,k) INT64.
//!   Reading back divides by 10^k, which gives the very same bits: both numbers are below 2^53 and 10^22, exact as
//!   doubles, and the division rounds once. Values for which it does not (NaN, infinities, -0.0, long fractions) keep
//!   the whole column as floats.
//! - `nan`: a float column that holds a NaN; Parquet statistics leave it out, so they must not be used to skip rows.
//! - `interval`: 16 bytes, little-endian nanoseconds, days, months.

use crate::error::Result;
use arrow::array::{
    Array, ArrayRef, AsArray, Decimal64Array, FixedSizeBinaryArray, FixedSizeBinaryBuilder, IntervalMonthDayNanoArray,
};
use arrow::datatypes::{
    DataType, Decimal64Type, Field, Float32Type, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, TimeUnit,
};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;
use proto::ColumnId;
use proto::data_node::FIELD_ID;
use std::sync::Arc;

const STORED: &str = "seriatim.stored";
/// Decimal places tried; beyond them a column of floats is not made of decimals that someone typed.
const SCALE_MAX: u8 = 12;
const DECIMAL_PRECISION: u8 = 18;
const EXACT_MAX: f64 = (1u64 << 53) as f64;
const POWERS: [f64; SCALE_MAX as usize + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];
const INTERVAL_BYTES: i32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Plain,
    Float64 { scale: u8 },
    Float32 { scale: u8 },
    FloatWithNan,
    Interval,
}

/// A column of an open segment.
pub(super) struct StoredColumn {
    /// `None` for `__seq`.
    pub(super) id: Option<ColumnId>,
    pub(super) stored: Stored,
}

impl StoredColumn {
    pub(super) fn of(field: &Field) -> Result<StoredColumn, String> {
        let id = match field.metadata().get(FIELD_ID) {
            Some(id) => Some(ColumnId(id.parse().map_err(|_| format!("the field id \"{id}\" is not a number"))?)),
            None => None,
        };
        let scale = |text: &str| text.parse::<u8>().ok().filter(|scale| *scale <= SCALE_MAX);
        let stored = match field.metadata().get(STORED).map(|text| text.as_str()) {
            None => Some(Stored::Plain),
            Some("nan") => Some(Stored::FloatWithNan),
            Some("interval") => Some(Stored::Interval),
            Some(text) => match text.split_once('/') {
                Some(("f64", k)) => scale(k).map(|scale| Stored::Float64 { scale }),
                Some(("f32", k)) => scale(k).map(|scale| Stored::Float32 { scale }),
                _ => None,
            },
        };
        let unknown = || format!("column \"{}\" is stored in a way this build does not know", field.name());
        Ok(StoredColumn { id, stored: stored.ok_or_else(unknown)? })
    }
}

/// Whether a column of this type can be sealed.
pub(crate) fn storable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(unit) => *unit == IntervalUnit::MonthDayNano,
        DataType::List(element) => !element.data_type().is_nested() && storable_in_parquet(element.data_type()),
        other => storable_in_parquet(other),
    }
}

fn storable_in_parquet(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(
        data_type,
        Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32 | Float64 | Utf8
    ) || matches!(data_type, LargeUtf8 | Binary | LargeBinary | FixedSizeBinary(_) | Utf8View | BinaryView)
        || matches!(data_type, Date32 | Time32(_) | Time64(_) | Timestamp(..) | Decimal64(..) | Decimal128(..))
        || matches!(data_type, Dictionary(_, value) if matches!(value.as_ref(), Utf8 | LargeUtf8))
}

/// Whether the stored values of the type are ordered and numbered as `proto::Scalar` has them.
pub(crate) fn comparable(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Timestamp(unit, _) | Time64(unit) => *unit == TimeUnit::Microsecond,
        Int8 | Int16 | Int32 | Int64 | Date32 | Float32 | Float64 => true,
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => true,
        _ => false,
    }
}

/// The form in which a column of a whole segment is written.
pub(super) fn store(field: &Field, array: &ArrayRef) -> (Field, ArrayRef) {
    let (text, array) = match field.data_type() {
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            match scaled(values.iter().flatten(), |v, k| (unscale(k.0, k.1)).to_bits() == v.to_bits()) {
                Some(k) => (Some(format!("f64/{k}")), to_decimal(values.iter(), k)),
                None => (values.iter().flatten().any(f64::is_nan).then(|| "nan".to_owned()), Arc::clone(array)),
            }
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            let same = |v: f64, k: (i64, u8)| (unscale(k.0, k.1) as f32).to_bits() == (v as f32).to_bits();
            match scaled(values.iter().flatten().map(f64::from), same) {
                Some(k) => (Some(format!("f32/{k}")), to_decimal(values.iter().map(|v| v.map(f64::from)), k)),
                None => (values.iter().flatten().any(f32::is_nan).then(|| "nan".to_owned()), Arc::clone(array)),
            }
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            (Some("interval".to_owned()), interval_bytes(array.as_primitive::<IntervalMonthDayNanoType>()))
        }
        _ => (None, Arc::clone(array)),
    };
    let mut metadata = field.metadata().clone();
    metadata.remove(STORED);
    metadata.extend(text.map(|text| (STORED.to_owned(), text)));
    (Field::new(field.name(), array.data_type().clone(), field.is_nullable()).with_metadata(metadata), array)
}

/// The inverse of `store`.
pub(super) fn restore(stored: Stored, array: ArrayRef) -> ArrayRef {
    match stored {
        Stored::Plain | Stored::FloatWithNan => array,
        Stored::Float64 { scale } => {
            let integers = array.as_primitive::<Decimal64Type>();
            Arc::new(integers.unary::<_, Float64Type>(|integer| unscale(integer, scale)))
        }
        Stored::Float32 { scale } => {
            let integers = array.as_primitive::<Decimal64Type>();
            Arc::new(integers.unary::<_, Float32Type>(|integer| unscale(integer, scale) as f32))
        }
        Stored::Interval => Arc::new(intervals(array.as_fixed_size_binary())),
    }
}

/// The type `restore` gives.
pub(super) fn restored_type(stored: Stored, data_type: &DataType) -> DataType {
    match stored {
        Stored::Plain | Stored::FloatWithNan => data_type.clone(),
        Stored::Float64 { .. } => DataType::Float64,
        Stored::Float32 { .. } => DataType::Float32,
        Stored::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
    }
}

/// The value an integer of a scaled column stands for.
pub(super) fn unscale(integer: i64, scale: u8) -> f64 {
    integer as f64 / POWERS[scale as usize]
}

/// Encodings that suit the stored column.
pub(super) fn set_properties(properties: WriterPropertiesBuilder, field: &Field) -> WriterPropertiesBuilder {
    use DataType::*;
    let path = || ColumnPath::new(vec![field.name().clone()]);
    let narrow_decimal = matches!(field.data_type(), Decimal128(precision, _) if *precision <= DECIMAL_PRECISION);
    match field.data_type() {
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Date32 | Time32(_) | Time64(_)
        | Timestamp(..) | Decimal64(..) => properties
            .set_column_dictionary_enabled(path(), false)
            .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED),
        Decimal128(..) if narrow_decimal => properties
            .set_column_dictionary_enabled(path(), false)
            .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED),
        Float32 | Float64 => properties
            .set_column_dictionary_enabled(path(), false)
            .set_column_encoding(path(), Encoding::BYTE_STREAM_SPLIT),
        _ => properties,
    }
    .set_column_compression(path(), Compression::ZSTD(ZstdLevel::default()))
}

/// The fewest decimal places at which every value is a whole number that turns back into the same bits.
fn scaled(values: impl Iterator<Item = f64> + Clone, same: impl Fn(f64, (i64, u8)) -> bool) -> Option<u8> {
    let fits = |value: f64, scale: u8| {
        let integer = (value * POWERS[scale as usize]).round();
        integer.abs() <= EXACT_MAX && same(value, (integer as i64, scale))
    };
    let mut scale = 0;
    for value in values.clone() {
        while !fits(value, scale) {
            scale += 1;
            if scale > SCALE_MAX {
                return None;
            }
        }
    }
    // Early values were tried with fewer places only.
    values.clone().all(|value| fits(value, scale)).then_some(scale)
}

fn to_decimal(values: impl Iterator<Item = Option<f64>>, scale: u8) -> ArrayRef {
    let integers = values.map(|value| value.map(|value| (value * POWERS[scale as usize]).round() as i64));
    let array = integers.collect::<Decimal64Array>().with_precision_and_scale(DECIMAL_PRECISION, scale as i8);
    Arc::new(array.expect("precision 18 with up to 12 places is valid"))
}

fn interval_bytes(values: &IntervalMonthDayNanoArray) -> ArrayRef {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(values.len(), INTERVAL_BYTES);
    for value in values {
        match value {
            Some(IntervalMonthDayNano { months, days, nanoseconds }) => {
                let mut bytes = [0; INTERVAL_BYTES as usize];
                bytes[..8].copy_from_slice(&nanoseconds.to_le_bytes());
                bytes[8..12].copy_from_slice(&days.to_le_bytes());
                bytes[12..].copy_from_slice(&months.to_le_bytes());
                builder.append_value(bytes).expect("the builder takes 16 bytes");
            }
            None => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}

fn intervals(bytes: &FixedSizeBinaryArray) -> IntervalMonthDayNanoArray {
    let interval = |bytes: &[u8]| IntervalMonthDayNano {
        nanoseconds: i64::from_le_bytes(bytes[..8].try_into().expect("16 bytes")),
        days: i32::from_le_bytes(bytes[8..12].try_into().expect("16 bytes")),
        months: i32::from_le_bytes(bytes[12..16].try_into().expect("16 bytes")),
    };
    bytes.iter().map(|value| value.map(interval)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, Float64Array};

    fn round_trip(values: Vec<Option<f64>>) -> Stored {
        let field = Field::new("v", DataType::Float64, true);
        let array: ArrayRef = Arc::new(Float64Array::from(values.clone()));
        let (stored_field, stored) = store(&field, &array);
        let column = StoredColumn::of(&stored_field).unwrap();
        let back = restore(column.stored, stored);
        let bits = |v: Option<f64>| v.map(f64::to_bits);
        let back = back.as_primitive::<Float64Type>().iter().map(bits).collect::<Vec<_>>();
        assert_eq!(back, values.into_iter().map(bits).collect::<Vec<_>>());
        column.stored
    }

    #[test]
    fn short_decimals_become_integers_and_come_back_bit_by_bit() {
        assert_eq!(round_trip(vec![Some(1.0), None, Some(-58.0)]), Stored::Float64 { scale: 0 });
        assert_eq!(round_trip(vec![Some(1.5), Some(0.1), Some(20.25)]), Stored::Float64 { scale: 2 });
        assert_eq!(round_trip(vec![Some(0.1 + 0.2), Some(1.0)]), Stored::Plain);
        assert_eq!(round_trip(vec![None, None]), Stored::Float64 { scale: 0 });
        let cents = (-5000..5000).map(|i| Some(i as f64 / 100.0)).collect();
        assert_eq!(round_trip(cents), Stored::Float64 { scale: 2 });
    }

    #[test]
    fn values_that_no_decimal_equals_stay_floats() {
        assert_eq!(round_trip(vec![Some(-0.0), Some(1.0)]), Stored::Plain);
        assert_eq!(round_trip(vec![Some(f64::INFINITY)]), Stored::Plain);
        assert_eq!(round_trip(vec![Some(f64::NAN), Some(1.0)]), Stored::FloatWithNan);
        assert_eq!(round_trip(vec![Some(f64::MIN_POSITIVE)]), Stored::Plain);
        assert_eq!(round_trip(vec![Some(1e300)]), Stored::Plain);
        assert_eq!(round_trip(vec![Some(std::f64::consts::PI)]), Stored::Plain);
    }

    #[test]
    fn single_floats_and_intervals_come_back() {
        let floats: ArrayRef = Arc::new(Float32Array::from(vec![Some(0.1), None, Some(-7.25)]));
        let (field, stored) = store(&Field::new("v", DataType::Float32, true), &floats);
        let column = StoredColumn::of(&field).unwrap();
        assert_eq!(column.stored, Stored::Float32 { scale: 2 });
        assert_eq!(&restore(column.stored, stored), &floats);

        let interval = IntervalMonthDayNano::new(-3, 40, 1_500_000_000);
        let intervals: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![Some(interval), None]));
        let (field, stored) = store(&Field::new("v", intervals.data_type().clone(), true), &intervals);
        assert_eq!(&restore(StoredColumn::of(&field).unwrap().stored, stored), &intervals);
    }
}
