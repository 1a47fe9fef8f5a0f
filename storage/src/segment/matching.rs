//! Predicates held against values: what `prune` cannot tell from statistics. They are hints, so that whatever is not
//! certain counts as a match.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use proto::{PredicateKind, Scalar};

/// The rows that may match; `None` when nothing can be said about values of the type.
pub(super) fn matches(kind: &PredicateKind, values: &ArrayRef) -> Option<BooleanArray> {
    match values.data_type() {
        DataType::Int8 => integers(kind, values.as_primitive::<Int8Type>()),
        DataType::Int16 => integers(kind, values.as_primitive::<Int16Type>()),
        DataType::Int32 => integers(kind, values.as_primitive::<Int32Type>()),
        DataType::Int64 => integers(kind, values.as_primitive::<Int64Type>()),
        DataType::Date32 => integers(kind, values.as_primitive::<Date32Type>()),
        DataType::Time64(TimeUnit::Microsecond) => integers(kind, values.as_primitive::<Time64MicrosecondType>()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            integers(kind, values.as_primitive::<TimestampMicrosecondType>())
        }
        DataType::Float32 => floats(kind, values.as_primitive::<Float32Type>()),
        DataType::Float64 => floats(kind, values.as_primitive::<Float64Type>()),
        DataType::Utf8 => texts(kind, values),
        _ => None,
    }
}

fn integers<T: ArrowPrimitiveType<Native: Into<i64>>>(
    kind: &PredicateKind,
    values: &PrimitiveArray<T>,
) -> Option<BooleanArray> {
    let integer = |scalar: &Scalar| if let Scalar::Int(value) = scalar { Some(*value) } else { None };
    let bound = |scalar: &Option<Scalar>, open: i64| scalar.as_ref().map_or(Some(open), integer);
    match kind {
        PredicateKind::Range { min, max } => {
            let (min, max) = (bound(min, i64::MIN)?, bound(max, i64::MAX)?);
            Some(each(values, |value| (min..=max).contains(&value.into())))
        }
        PredicateKind::OneOf(wanted) => {
            let mut wanted = wanted.iter().map(integer).collect::<Option<Vec<_>>>()?;
            wanted.sort_unstable();
            Some(each(values, |value| wanted.binary_search(&value.into()).is_ok()))
        }
    }
}

fn floats<T: ArrowPrimitiveType<Native: Into<f64>>>(
    kind: &PredicateKind,
    values: &PrimitiveArray<T>,
) -> Option<BooleanArray> {
    let float = |scalar: &Scalar| if let Scalar::Float(value) = scalar { Some(*value) } else { None };
    let bound = |scalar: &Option<Scalar>, open: f64| scalar.as_ref().map_or(Some(open), float);
    // NaN is above all in SQL and compares to nothing here: as a value and as a bound it leaves the row in.
    match kind {
        PredicateKind::Range { min, max } => {
            let (min, max) = (bound(min, f64::NEG_INFINITY)?, bound(max, f64::INFINITY)?);
            Some(each(values, |value| {
                let value = value.into();
                !(value < min || value > max)
            }))
        }
        PredicateKind::OneOf(wanted) => {
            let wanted = wanted.iter().map(float).collect::<Option<Vec<_>>>()?;
            Some(each(values, |value| {
                let value = value.into();
                value.is_nan() || wanted.iter().any(|wanted| *wanted == value || wanted.is_nan())
            }))
        }
    }
}

fn texts(kind: &PredicateKind, values: &ArrayRef) -> Option<BooleanArray> {
    let values = values.as_string::<i32>();
    let text = |scalar: &Scalar| match scalar {
        Scalar::Text(text) => Some(text.clone().into_bytes()),
        Scalar::Bytes(bytes) => Some(bytes.clone()),
        _ => None,
    };
    let bytes = |at: usize| values.value(at).as_bytes();
    let found = match kind {
        PredicateKind::Range { min, max } => {
            let (min, max) = (min.as_ref().map(text), max.as_ref().map(text));
            let (min, max) =
                (min.map_or(Some(None), |min| min.map(Some))?, max.map_or(Some(None), |max| max.map(Some))?);
            let within = |value: &[u8]| {
                min.as_ref().is_none_or(|min| min.as_slice() <= value)
                    && max.as_ref().is_none_or(|max| value <= max.as_slice())
            };
            BooleanBuffer::collect_bool(values.len(), |at| within(bytes(at)))
        }
        PredicateKind::OneOf(wanted) => {
            let mut wanted = wanted.iter().map(text).collect::<Option<Vec<_>>>()?;
            wanted.sort_unstable();
            let found = |value: &[u8]| wanted.binary_search_by(|wanted| wanted.as_slice().cmp(value)).is_ok();
            BooleanBuffer::collect_bool(values.len(), |at| found(bytes(at)))
        }
    };
    Some(without_nulls(found, values))
}

fn each<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, matches: impl Fn(T::Native) -> bool) -> BooleanArray {
    let found = BooleanBuffer::collect_bool(values.len(), |at| matches(values.values()[at]));
    without_nulls(found, values)
}

/// NULL never qualifies.
fn without_nulls(found: BooleanBuffer, values: &dyn Array) -> BooleanArray {
    BooleanArray::new(values.nulls().map_or_else(|| found.clone(), |nulls| &found & nulls.inner()), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array, StringArray};
    use std::sync::Arc;

    fn matching(kind: PredicateKind, values: impl Array + 'static) -> Vec<bool> {
        let found = matches(&kind, &(Arc::new(values) as ArrayRef)).unwrap();
        found.iter().map(|row| row.unwrap()).collect()
    }

    fn range(min: Option<Scalar>, max: Option<Scalar>) -> PredicateKind {
        PredicateKind::Range { min, max }
    }

    #[test]
    fn both_ends_belong_to_a_range_and_null_to_none() {
        let values = Int32Array::from(vec![Some(1), Some(2), None, Some(5), Some(6)]);
        let found = matching(range(Some(Scalar::Int(2)), Some(Scalar::Int(5))), values.clone());
        assert_eq!(found, [false, true, false, true, false]);
        assert_eq!(matching(range(None, None), values.clone()), [true, true, false, true, true]);
        let one_of = PredicateKind::OneOf(vec![Scalar::Int(6), Scalar::Int(1)]);
        assert_eq!(matching(one_of, values), [true, false, false, false, true]);
    }

    #[test]
    fn what_compares_to_nothing_stays() {
        let values = Float64Array::from(vec![1.0, f64::NAN, -0.0, f64::INFINITY]);
        let found = matching(range(Some(Scalar::Float(0.0)), Some(Scalar::Float(1.0))), values.clone());
        assert_eq!(found, [true, true, true, false]);
        assert_eq!(
            matching(PredicateKind::OneOf(vec![Scalar::Float(0.0)]), values.clone()),
            [false, true, true, false]
        );
        assert!(matches(&range(Some(Scalar::Int(1)), None), &(Arc::new(values) as ArrayRef)).is_none());
    }

    #[test]
    fn texts_compare_as_bytes() {
        let values = StringArray::from(vec![Some("b"), None, Some("ä"), Some("a")]);
        let text = |text: &str| Scalar::Text(text.to_owned());
        assert_eq!(matching(range(Some(text("b")), None), values.clone()), [true, false, true, false]);
        assert_eq!(matching(PredicateKind::OneOf(vec![text("a"), text("x")]), values), [false, false, false, true]);
    }
}
