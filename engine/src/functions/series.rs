//! `generate_series`: the series itself, made piece by piece, and its list form for the select list.
//!
//! In FROM it is a stream (`semantics::relations`), so that 10^8 rows need no more memory than one batch.

use super::date_arithmetic::{shift, timestamp_out_of_range};
use super::scalar::{Call, Function, Overload, raise};
use super::types::{Class, INTERVAL, NUMERIC, TIMESTAMP, class, scale_of, timestamptz, wider_integer};
use crate::semantics::Zone;
use arrow::array::new_empty_array;
use arrow::array::{Array, ArrayRef, Decimal128Array, Int32Array, Int64Array, ListArray, TimestampMicrosecondArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;
use proto::{Error, SqlState};
use std::sync::Arc;

/// Elements of one list; beyond that the series belongs into FROM.
const LIST_MAX: usize = 1 << 22;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new("generate_series_list", list_types, list).stable().udf()]
}

/// The argument types that `generate_series(…)` coerces to; its element type is the first of them.
pub fn series_types(types: &[DataType]) -> Option<Vec<DataType>> {
    if !(2..=3).contains(&types.len()) {
        return None;
    }
    let known = types[..2].iter().filter(|ty| !matches!(class(ty), Class::Unknown | Class::Text));
    let classes: Vec<Class> = known.clone().map(class).collect();
    let time = |class: &Class| matches!(class, Class::Timestamp | Class::Timestamptz | Class::Date);
    let step_is_interval = types.get(2).is_some_and(|ty| class(ty) == Class::Interval);
    if classes.iter().any(time) || (classes.is_empty() && step_is_interval) {
        let zoned = !classes.contains(&Class::Timestamp) || classes.contains(&Class::Timestamptz);
        let ty = if zoned { timestamptz() } else { TIMESTAMP };
        return (types.len() == 3).then(|| vec![ty.clone(), ty, INTERVAL]);
    }
    let numbers: Vec<&DataType> =
        types.iter().filter(|ty| !matches!(class(ty), Class::Unknown | Class::Text)).collect();
    let element = match numbers.iter().map(|ty| class(ty)).collect::<Vec<_>>().as_slice() {
        [] => return None,
        classes if classes.iter().all(|class| *class == Class::Integer) => {
            numbers.iter().fold(DataType::Int32, |wide, ty| wider_integer(&wide, ty))
        }
        classes if classes.iter().all(|class| matches!(class, Class::Integer | Class::Numeric)) => {
            let scale = numbers.iter().map(|ty| scale_of(ty)).max().unwrap_or(0);
            if numbers.contains(&&NUMERIC) { NUMERIC } else { DataType::Decimal128(38, scale) }
        }
        _ => return None,
    };
    Some(vec![element; types.len()])
}

/// A series that has not ended, at its next value.
#[derive(Debug, Clone)]
pub struct Series {
    kind: Kind,
    element: DataType,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Integers, and decimals as their digits.
    Whole {
        next: Option<i128>,
        stop: i128,
        step: i128,
    },
    Times {
        next: Option<i64>,
        stop: i64,
        step: IntervalMonthDayNano,
        forward: bool,
        zone: Zone,
    },
}

fn zero_step() -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, "step size cannot equal zero")
}

fn digits(value: &ScalarValue) -> Option<i128> {
    match value {
        ScalarValue::Int16(value) => value.map(i128::from),
        ScalarValue::Int32(value) => value.map(i128::from),
        ScalarValue::Int64(value) => value.map(i128::from),
        ScalarValue::Decimal128(value, ..) => *value,
        _ => None,
    }
}

impl Series {
    /// From arguments of the types that [`series_types`] gave. Any NULL makes an empty series.
    ///
    /// # Errors
    /// 22023 for a step of zero.
    pub fn new(args: &[ScalarValue], element: &DataType, zone: Zone) -> Result<Series, Error> {
        let empty = || Kind::Whole { next: None, stop: 0, step: 1 };
        let kind = match (class(element), args) {
            (_, args) if args.iter().any(ScalarValue::is_null) => empty(),
            (Class::Timestamp | Class::Timestamptz, [start, stop, step]) => {
                let (
                    ScalarValue::TimestampMicrosecond(Some(start), _),
                    ScalarValue::TimestampMicrosecond(Some(stop), _),
                    ScalarValue::IntervalMonthDayNano(Some(step)),
                ) = (start, stop, step)
                else {
                    return Err(Error::internal("a time series of arguments that are no times"));
                };
                let zone = if class(element) == Class::Timestamptz { zone } else { Zone::UTC };
                let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(*step);
                let length = (i128::from(months) * 30 + i128::from(days)) * 86_400_000_000_000 + i128::from(nanos);
                if length == 0 {
                    return Err(zero_step());
                }
                Kind::Times { next: Some(*start), stop: *stop, step: *step, forward: length > 0, zone }
            }
            (_, args) => {
                let one = 10i128.pow(u32::from(scale_of(element).unsigned_abs()));
                let numbers: Option<Vec<i128>> = args.iter().map(digits).collect();
                let Some(numbers) = numbers else {
                    return Err(Error::internal("a series of arguments that are no numbers"));
                };
                let step = numbers.get(2).copied().unwrap_or(one);
                if step == 0 {
                    return Err(zero_step());
                }
                Kind::Whole { next: Some(numbers[0]), stop: numbers[1], step }
            }
        };
        Ok(Series { kind, element: element.clone() })
    }

    /// Up to `rows_max` further values; `None` at the end.
    pub fn next_array(&mut self, rows_max: usize) -> Result<Option<ArrayRef>> {
        match &mut self.kind {
            Kind::Whole { next, stop, step } => {
                let mut values: Vec<i128> = Vec::new();
                while values.len() < rows_max {
                    let Some(value) = *next else { break };
                    if (*step > 0 && value > *stop) || (*step < 0 && value < *stop) {
                        *next = None;
                        break;
                    }
                    values.push(value);
                    *next = value.checked_add(*step);
                }
                (!values.is_empty()).then(|| whole_array(&values, &self.element)).transpose()
            }
            Kind::Times { next, stop, step, forward, zone } => {
                let mut values: Vec<i64> = Vec::new();
                while values.len() < rows_max {
                    let Some(value) = *next else { break };
                    if (*forward && value > *stop) || (!*forward && value < *stop) {
                        *next = None;
                        break;
                    }
                    values.push(value);
                    *next = Some(shift(value, *step, 1, *zone).ok_or_else(|| raise(timestamp_out_of_range()))?);
                }
                let array = || {
                    let array = TimestampMicrosecondArray::from(values.clone());
                    Arc::new(array.with_data_type(self.element.clone())) as ArrayRef
                };
                Ok((!values.is_empty()).then(array))
            }
        }
    }
}

fn whole_array(values: &[i128], element: &DataType) -> Result<ArrayRef> {
    // Start, stop and step are of the element's type, and values lie between start and stop.
    Ok(match element {
        DataType::Int32 => Arc::new(Int32Array::from_iter_values(values.iter().map(|value| *value as i32))),
        DataType::Int64 => Arc::new(Int64Array::from_iter_values(values.iter().map(|value| *value as i64))),
        other => Arc::new(Decimal128Array::from_iter_values(values.iter().copied()).with_data_type(other.clone())),
    })
}

fn list_types(types: &[DataType]) -> Option<Overload> {
    let args = series_types(types)?;
    let element = Field::new("item", args[0].clone(), true);
    Some(Overload::new(args, DataType::List(Arc::new(element))))
}

fn list(call: &Call) -> Result<ArrayRef> {
    let DataType::List(field) = call.result else {
        return Err(raise(Error::internal("a series list that is no list")));
    };
    let zone = call.zone()?;
    let arrays = (0..call.args.len()).map(|index| call.array(index)).collect::<Result<Vec<_>>>()?;
    let mut parts: Vec<ArrayRef> = Vec::new();
    let mut lengths: Vec<usize> = Vec::with_capacity(call.rows);
    let mut total = 0usize;
    for row in 0..call.rows {
        let args = arrays.iter().map(|array| ScalarValue::try_from_array(array, row)).collect::<Result<Vec<_>>>()?;
        let mut series = Series::new(&args, field.data_type(), zone).map_err(raise)?;
        let mut length = 0;
        while let Some(part) = series.next_array(8192)? {
            length += part.len();
            total += part.len();
            if total > LIST_MAX {
                let message = format!("generate_series in a select list may have {LIST_MAX} values; put it into FROM");
                return Err(raise(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message)));
            }
            parts.push(part);
        }
        lengths.push(length);
    }
    let values = match parts.is_empty() {
        true => new_empty_array(field.data_type()),
        false => {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            arrow::compute::concat(&parts)?
        }
    };
    let nulls: Option<NullBuffer> = None;
    Ok(Arc::new(ListArray::new(Arc::clone(field), OffsetBuffer::from_lengths(lengths), values, nulls)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;

    fn ints(args: &[i32]) -> Vec<i32> {
        let args: Vec<ScalarValue> = args.iter().map(|value| ScalarValue::Int32(Some(*value))).collect();
        let mut series = Series::new(&args, &DataType::Int32, Zone::UTC).unwrap();
        let mut values = Vec::new();
        while let Some(array) = series.next_array(2).unwrap() {
            values.extend(array.as_primitive::<Int32Type>().values());
        }
        values
    }

    #[test]
    fn series_end_where_postgres_ends_them() {
        assert_eq!(ints(&[1, 3]), [1, 2, 3]);
        assert_eq!(ints(&[1, 6, 2]), [1, 3, 5]);
        assert_eq!(ints(&[3, 1]), [] as [i32; 0]);
        assert_eq!(ints(&[3, 1, -1]), [3, 2, 1]);
        assert_eq!(ints(&[i32::MAX - 1, i32::MAX]), [i32::MAX - 1, i32::MAX]);
        let zero = [ScalarValue::Int32(Some(1)), ScalarValue::Int32(Some(2)), ScalarValue::Int32(Some(0))];
        assert!(Series::new(&zero, &DataType::Int32, Zone::UTC).is_err());
    }
}
