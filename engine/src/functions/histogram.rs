//! `histogram(value, min, max, buckets)`: counts per bucket, below and above, as `integer[]` of `buckets + 2`.

use super::scalar::{no_function, raise};
use super::types::{Class, class};
use arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int32Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use proto::{Error, SqlState};
use std::sync::Arc;

/// More buckets than this are a mistake, and a state row per group that no node should send.
const BUCKETS_MAX: i32 = 1 << 16;

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(AggregateUDF::new_from_impl(Histogram { signature: Signature::user_defined(Volatility::Immutable) }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Histogram {
    signature: Signature,
}

fn counts_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Int32, true)))
}

impl AggregateUDFImpl for Histogram {
    fn name(&self) -> &str {
        "histogram"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let number = |ty: &DataType| {
            matches!(class(ty), Class::Integer | Class::Numeric | Class::Float | Class::Unknown | Class::Text)
        };
        match types {
            [_, _, _, buckets] if types[..3].iter().all(number) && matches!(class(buckets), Class::Integer) => {
                Ok(vec![DataType::Float64, DataType::Float64, DataType::Float64, DataType::Int32])
            }
            _ => Err(raise(no_function("histogram", types))),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(counts_type())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[counts]", args.name), counts_type(), true))])
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Counts { counts: None }))
    }
}

#[derive(Debug)]
struct Counts {
    /// Below, each bucket, above; `None` before the first row.
    counts: Option<Vec<i32>>,
}

fn invalid(message: &str) -> datafusion::error::DataFusionError {
    raise(Error::new(SqlState::INVALID_PARAMETER_VALUE, message))
}

impl Counts {
    fn slots(&mut self, slots: usize) -> Result<&mut Vec<i32>> {
        let counts = self.counts.get_or_insert_with(|| vec![0; slots]);
        match counts.len() == slots {
            true => Ok(counts),
            false => Err(invalid("number of buckets must not change between calls")),
        }
    }
}

/// Slot of `value`, counted as `width_bucket` does: 0 is below `min`, `buckets + 1` is at or above `max`.
fn slot(value: f64, min: f64, max: f64, buckets: i32) -> usize {
    if value < min {
        return 0;
    }
    if value >= max {
        return buckets as usize + 1;
    }
    let slot = (f64::from(buckets) * ((value - min) / (max - min))).floor() as usize + 1;
    slot.min(buckets as usize)
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (value, min, max) = (
            values[0].as_primitive::<Float64Type>(),
            values[1].as_primitive::<Float64Type>(),
            values[2].as_primitive::<Float64Type>(),
        );
        let buckets = values[3].as_primitive::<Int32Type>();
        for row in 0..value.len() {
            if value.is_null(row) {
                continue;
            }
            if min.is_null(row) || max.is_null(row) || buckets.is_null(row) {
                return Err(invalid("histogram bounds and number of buckets must not be NULL"));
            }
            let count = buckets.value(row);
            if !(1..=BUCKETS_MAX).contains(&count) {
                return Err(invalid("number of buckets must be greater than zero and at most 65536"));
            }
            if min.value(row) >= max.value(row) {
                return Err(invalid("lower bound must be less than upper bound"));
            }
            let counts = self.slots(count as usize + 2)?;
            let slot = slot(value.value(row), min.value(row), max.value(row), count);
            counts[slot] = counts[slot]
                .checked_add(1)
                .ok_or_else(|| raise(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range")))?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        for list in lists.iter().flatten() {
            let theirs = list.as_primitive::<Int32Type>();
            let ours = self.slots(theirs.len())?;
            for (ours, theirs) in ours.iter_mut().zip(theirs.values()) {
                *ours = ours.saturating_add(*theirs);
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match &self.counts {
            None => ScalarValue::try_from(&counts_type()),
            Some(counts) => {
                let items = Int32Array::from(counts.clone());
                let field = Arc::new(Field::new("item", DataType::Int32, true));
                let offsets = arrow::buffer::OffsetBuffer::from_lengths([items.len()]);
                let list = arrow::array::ListArray::new(field, offsets, Arc::new(items), None);
                Ok(ScalarValue::List(Arc::new(list)))
            }
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.as_ref().map_or(0, |counts| counts.capacity() * size_of::<i32>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_half_open_and_both_tails_are_counted() {
        let slots: Vec<usize> = [-1.0, 0.0, 1.99, 2.0, 9.99, 10.0, 11.0].map(|v| slot(v, 0.0, 10.0, 5)).to_vec();
        assert_eq!(slots, [0, 1, 1, 2, 5, 6, 6]);
    }
}
