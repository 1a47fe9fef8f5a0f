//! The hash slot of a value of the space column: for whole columns on the way in, for single literals when the planner
//! prunes chunks. Both go through the same code, so that a pruned scan can never miss a stored row.
//!
//! `proto::slots` fixes the canonical bytes of integers, dates, times, booleans, floats, text and bytes. This module
//! adds: all NaNs are one value, as PostgreSQL compares them; a decimal is hashed as the text of its number without
//! trailing zeros (`1.50` and `1.5` are the same value, `-12`, `0`), so that its scale does not matter. A literal must
//! be cast to the column's type before it is hashed: `1` as an integer and `1` as a decimal have different bytes.
//!
//! Part of the stored format: what is written here may be extended to new types, never changed.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::scalar::ScalarValue;
use proto::slots::{NULL_SLOT, slot_of, slot_of_i64};
use proto::{Error, Result, Scalar, Slot};

/// The slot of every row. NULL falls into slot 0.
///
/// # Errors
/// `FEATURE_NOT_SUPPORTED` for types that cannot be a space column (intervals, arrays).
pub fn slots_of(array: &dyn Array) -> Result<Vec<Slot>> {
    use DataType as T;
    Ok(match array.data_type() {
        T::Null => vec![NULL_SLOT; array.len()],
        T::Boolean => array.as_boolean().iter().map(|v| v.map_or(NULL_SLOT, |v| slot_of_i64(v.into()))).collect(),
        T::Int8 => integers(array.as_primitive::<Int8Type>()),
        T::Int16 => integers(array.as_primitive::<Int16Type>()),
        T::Int32 => integers(array.as_primitive::<Int32Type>()),
        T::Int64 => integers(array.as_primitive::<Int64Type>()),
        T::UInt8 => integers(array.as_primitive::<UInt8Type>()),
        T::UInt16 => integers(array.as_primitive::<UInt16Type>()),
        T::UInt32 => integers(array.as_primitive::<UInt32Type>()),
        T::UInt64 => primitives(array.as_primitive::<UInt64Type>(), |v| slot_of_i64(v as i64)),
        T::Date32 => integers(array.as_primitive::<Date32Type>()),
        T::Date64 => {
            primitives(array.as_primitive::<Date64Type>(), |ms| slot_of_i64(ms.div_euclid(MILLISECONDS_PER_DAY)))
        }
        T::Time32(TimeUnit::Second) => scaled(array.as_primitive::<Time32SecondType>(), 1_000_000),
        T::Time32(_) => scaled(array.as_primitive::<Time32MillisecondType>(), 1_000),
        T::Time64(TimeUnit::Microsecond) => integers(array.as_primitive::<Time64MicrosecondType>()),
        T::Time64(_) => nanoseconds(array.as_primitive::<Time64NanosecondType>()),
        T::Timestamp(TimeUnit::Second, _) => scaled(array.as_primitive::<TimestampSecondType>(), 1_000_000),
        T::Timestamp(TimeUnit::Millisecond, _) => scaled(array.as_primitive::<TimestampMillisecondType>(), 1_000),
        T::Timestamp(TimeUnit::Microsecond, _) => integers(array.as_primitive::<TimestampMicrosecondType>()),
        T::Timestamp(TimeUnit::Nanosecond, _) => nanoseconds(array.as_primitive::<TimestampNanosecondType>()),
        T::Float16 => primitives(array.as_primitive::<Float16Type>(), |v| slot_of_f64(v.to_f64())),
        T::Float32 => primitives(array.as_primitive::<Float32Type>(), |v| slot_of_f64(v.into())),
        T::Float64 => primitives(array.as_primitive::<Float64Type>(), slot_of_f64),
        T::Decimal128(_, scale) => {
            let scale = *scale;
            primitives(array.as_primitive::<Decimal128Type>(), |v| slot_of(decimal_text(v, scale).as_bytes()))
        }
        T::Utf8 => bytes(array.as_string::<i32>().iter()),
        T::LargeUtf8 => bytes(array.as_string::<i64>().iter()),
        T::Utf8View => bytes(array.as_string_view().iter()),
        T::Binary => bytes(array.as_binary::<i32>().iter()),
        T::LargeBinary => bytes(array.as_binary::<i64>().iter()),
        T::BinaryView => bytes(array.as_binary_view().iter()),
        T::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary().iter()),
        T::Dictionary(_, _) => dictionary(array)?,
        other => return Err(Error::unsupported(format!("a space column of type {other}"))),
    })
}

/// The slot of a value in the form predicates carry.
pub fn slot_of_value(value: &Scalar) -> Slot {
    match value {
        Scalar::Int(value) => slot_of_i64(*value),
        Scalar::Float(value) => slot_of_f64(*value),
        Scalar::Text(value) => slot_of(value.as_bytes()),
        Scalar::Bytes(value) => slot_of(value),
    }
}

/// The slot of a literal that was cast to the column's type; NULL's is slot 0. `None` for types that have no slot.
pub fn slot_of_scalar(value: &ScalarValue) -> Option<Slot> {
    let array: ArrayRef = value.to_array().ok()?;
    slots_of(&array).ok()?.first().copied()
}

const MILLISECONDS_PER_DAY: i64 = 86_400_000;

fn primitives<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, slot: impl Fn(T::Native) -> Slot) -> Vec<Slot> {
    match array.null_count() {
        0 => array.values().iter().map(|value| slot(*value)).collect(),
        _ => array.iter().map(|value| value.map_or(NULL_SLOT, &slot)).collect(),
    }
}

fn integers<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &PrimitiveArray<T>) -> Vec<Slot> {
    primitives(array, |value| slot_of_i64(value.into()))
}

/// Times of a coarser unit, as microseconds.
fn scaled<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &PrimitiveArray<T>, factor: i64) -> Vec<Slot> {
    primitives(array, |value| slot_of_i64(value.into().wrapping_mul(factor)))
}

/// Times of the finer unit, as microseconds.
fn nanoseconds<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &PrimitiveArray<T>) -> Vec<Slot> {
    primitives(array, |value| slot_of_i64(value.into().div_euclid(1_000)))
}

fn slot_of_f64(value: f64) -> Slot {
    let canonical = match value {
        v if v.is_nan() => f64::NAN,
        // Matches -0.0 too.
        0.0 => 0.0,
        v => v,
    };
    slot_of(&canonical.to_bits().to_le_bytes())
}

fn bytes<V: AsRef<[u8]>>(values: impl Iterator<Item = Option<V>>) -> Vec<Slot> {
    values.map(|value| value.map_or(NULL_SLOT, |value| slot_of(value.as_ref()))).collect()
}

/// Hashes each dictionary value once.
fn dictionary(array: &dyn Array) -> Result<Vec<Slot>> {
    let dictionary = array.as_any_dictionary();
    let of_values = slots_of(dictionary.values())?;
    let keys = cast(dictionary.keys(), &DataType::UInt64).map_err(|e| Error::internal(e.to_string()))?;
    Ok(primitives(keys.as_primitive::<UInt64Type>(), |key| of_values[key as usize]))
}

/// `unscaled / 10^scale` without trailing zeros: `-12`, `0`, `0.05`, `1200`.
fn decimal_text(unscaled: i128, scale: i8) -> String {
    if unscaled == 0 {
        return "0".to_owned();
    }
    let mut digits = unscaled.unsigned_abs().to_string();
    let mut scale = i32::from(scale);
    while scale > 0 && digits.ends_with('0') {
        digits.pop();
        scale -= 1;
    }
    if scale > 0 {
        let fraction = scale as usize;
        if digits.len() <= fraction {
            digits.insert_str(0, &"0".repeat(fraction + 1 - digits.len()));
        }
        digits.insert(digits.len() - fraction, '.');
    } else {
        digits.push_str(&"0".repeat(scale.unsigned_abs() as usize));
    }
    match unscaled < 0 {
        true => format!("-{digits}"),
        false => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BooleanArray, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int16Array, Int64Array,
        StringArray, StringViewArray,
    };
    use std::sync::Arc;

    #[test]
    fn equal_values_of_sister_types_share_a_slot() {
        let values = [-7_i16, 0, 1, 42, i16::MAX];
        let small = slots_of(&Int16Array::from(values.to_vec())).unwrap();
        let big = slots_of(&Int64Array::from(values.iter().map(|v| i64::from(*v)).collect::<Vec<_>>())).unwrap();
        assert_eq!(small, big);
        let halves = slots_of(&Float32Array::from(vec![0.5, -0.0])).unwrap();
        assert_eq!(halves, slots_of(&Float64Array::from(vec![0.5, 0.0])).unwrap());
        let truth = slots_of(&BooleanArray::from(vec![true, false])).unwrap();
        assert_eq!(truth, slots_of(&Int64Array::from(vec![1, 0])).unwrap());
        let text = ["", "host_1", "ü"];
        let plain = slots_of(&StringArray::from(text.to_vec())).unwrap();
        assert_eq!(plain, slots_of(&StringViewArray::from(text.to_vec())).unwrap());
    }

    #[test]
    fn a_dictionary_hashes_like_its_values() {
        let text = StringArray::from(vec![Some("b"), None, Some("a"), Some("b")]);
        let keys: DictionaryArray<Int32Type> = text.iter().collect();
        assert_eq!(slots_of(&keys).unwrap(), slots_of(&text).unwrap());
        assert_eq!(slots_of(&keys).unwrap()[1], NULL_SLOT);
    }

    #[test]
    fn the_scale_of_a_decimal_does_not_matter() {
        for (unscaled, scale, text) in [
            (150, 2, "1.5"),
            (15, 1, "1.5"),
            (-1200, 2, "-12"),
            (5, 2, "0.05"),
            (0, 9, "0"),
            (12, -2, "1200"),
            (1200, 0, "1200"),
        ] {
            assert_eq!(decimal_text(unscaled, scale), text);
        }
        let wide = Decimal128Array::from(vec![1500]).with_precision_and_scale(10, 3).unwrap();
        let narrow = Decimal128Array::from(vec![15]).with_precision_and_scale(10, 1).unwrap();
        assert_eq!(slots_of(&wide).unwrap(), slots_of(&narrow).unwrap());
    }

    #[test]
    fn a_literal_has_the_slot_of_the_stored_value() {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![Some(12), None]));
        let slots = slots_of(&array).unwrap();
        for (row, slot) in slots.into_iter().enumerate() {
            let literal = ScalarValue::try_from_array(&array, row).unwrap();
            assert_eq!(slot_of_scalar(&literal), Some(slot));
        }
        assert_eq!(slot_of_scalar(&ScalarValue::Int32(Some(12))), slot_of_scalar(&ScalarValue::Int64(Some(12))));
        assert_eq!(slot_of_scalar(&ScalarValue::new_interval_mdn(1, 0, 0)), None);
    }
}
