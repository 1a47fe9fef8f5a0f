//! `first(value, time)` and `last(value, time)`: the value at the least and at the greatest key.
//!
//! TimescaleDB's rules: a NULL key never beats another key; a group whose keys are all NULL gives NULL; a NULL value at
//! the winning key gives NULL; of equal keys the first seen wins. The state is (value, key), so states merge in any
//! order.

use super::scalar::{no_function, raise};
use arrow::array::{Array, ArrayRef, BooleanArray, UInt64Array, new_null_array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use std::cmp::Ordering;
use std::sync::Arc;

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    [("first", Ordering::Less), ("last", Ordering::Greater)]
        .into_iter()
        .map(|(name, wins)| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(AggregateUDF::new_from_impl(Bookend { name, wins, signature }))
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bookend {
    name: &'static str,
    /// How a key that beats the present one compares with it.
    wins: Ordering,
    signature: Signature,
}

impl AggregateUDFImpl for Bookend {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [value, key] => Ok(vec![known(value), known(key)]),
            _ => Err(raise(no_function(self.name, types))),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(self.coerce_types(types)?.swap_remove(0))
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
        let field = Field::new(self.name, self.return_type(&types)?, true);
        Ok(Arc::new(field.with_metadata(fields[0].metadata().clone())))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let state = |part: &str, field: &FieldRef| {
            Arc::new(Field::new(format!("{}[{part}]", args.name), field.data_type().clone(), true))
        };
        Ok(vec![state("value", &args.input_fields[0]), state("key", &args.input_fields[1])])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (value, key) = (args.exprs[0].data_type(args.schema)?, args.exprs[1].data_type(args.schema)?);
        Ok(Box::new(One { wins: self.wins, value: ScalarValue::try_from(&value)?, key: ScalarValue::try_from(&key)? }))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let (value, key) = (args.exprs[0].data_type(args.schema)?, args.exprs[1].data_type(args.schema)?);
        Ok(Box::new(Groups { wins: self.wins, values: new_null_array(&value, 0), keys: new_null_array(&key, 0) }))
    }
}

fn known(ty: &DataType) -> DataType {
    if ty.is_null() { DataType::Utf8 } else { ty.clone() }
}

/// The row with the winning key; `None` when all keys are NULL.
fn winner(keys: &ArrayRef, wins: Ordering) -> Result<Option<usize>> {
    let compare = arrow::array::make_comparator(keys, keys, arrow::compute::SortOptions::default())?;
    let valid = (0..keys.len()).filter(|row| keys.is_valid(*row));
    Ok(valid.reduce(|best, row| if compare(row, best) == wins { row } else { best }))
}

/// The accumulator without groups, and of windows.
#[derive(Debug)]
struct One {
    wins: Ordering,
    value: ScalarValue,
    key: ScalarValue,
}

impl One {
    fn offer(&mut self, values: &ArrayRef, keys: &ArrayRef) -> Result<()> {
        let Some(row) = winner(keys, self.wins)? else { return Ok(()) };
        let key = ScalarValue::try_from_array(keys, row)?;
        if self.key.is_null() || key.partial_cmp(&self.key) == Some(self.wins) {
            self.value = ScalarValue::try_from_array(values, row)?.compacted();
            self.key = key.compacted();
        }
        Ok(())
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.offer(&values[0], &values[1])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.offer(&states[0], &states[1])
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), self.key.clone()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size() + self.key.size()
    }
}

/// The winning value and key of each group; a NULL key means that the group has none yet.
struct Groups {
    wins: Ordering,
    values: ArrayRef,
    keys: ArrayRef,
}

impl Groups {
    /// Picks, for each group, among its present key and the offered rows, then rebuilds both columns in one gather.
    fn offer(
        &mut self,
        values: &ArrayRef,
        keys: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        groups_count: usize,
    ) -> Result<()> {
        const PRESENT: usize = 0;
        const OFFERED: usize = 1;
        let missing = groups_count - self.keys.len();
        if missing > 0 {
            self.keys = concat(&[&self.keys, &new_null_array(self.keys.data_type(), missing)])?;
            self.values = concat(&[&self.values, &new_null_array(self.values.data_type(), missing)])?;
        }
        let options = arrow::compute::SortOptions::default();
        let with_present = arrow::array::make_comparator(keys, &self.keys, options)?;
        let with_offered = arrow::array::make_comparator(keys, keys, options)?;
        let mut best: Vec<(usize, usize)> = (0..groups_count).map(|group| (PRESENT, group)).collect();
        let mut changed = false;
        for (row, group) in groups.iter().enumerate() {
            let offered = keys.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if !offered {
                continue;
            }
            let beats = match best[*group] {
                (PRESENT, _) => self.keys.is_null(*group) || with_present(row, *group) == self.wins,
                (_, other) => with_offered(row, other) == self.wins,
            };
            if beats {
                best[*group] = (OFFERED, row);
                changed = true;
            }
        }
        if changed {
            self.values = interleave(&[&self.values, values], &best)?;
            self.keys = interleave(&[&self.keys, keys], &best)?;
        }
        Ok(())
    }

    fn emit(&mut self, emit_to: EmitTo) -> Result<(ArrayRef, ArrayRef)> {
        let count = match emit_to {
            EmitTo::All => self.keys.len(),
            EmitTo::First(count) => count,
        };
        let rest = self.keys.len() - count;
        let emitted = (self.values.slice(0, count), self.keys.slice(0, count));
        // A copy, so that what was emitted can be freed.
        let kept = UInt64Array::from_iter_values((count..count + rest).map(|row| row as u64));
        self.values = take(&self.values, &kept, None)?;
        self.keys = take(&self.keys, &kept, None)?;
        Ok(emitted)
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.offer(&values[0], &values[1], group_indices, opt_filter, total_num_groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.offer(&values[0], &values[1], group_indices, None, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(self.emit(emit_to)?.0)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (values, keys) = self.emit(emit_to)?;
        Ok(vec![values, keys])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let Some(filter) = opt_filter else {
            return Ok(values.to_vec());
        };
        // A row that is filtered out has no key.
        let out = arrow::compute::not(&arrow::compute::prep_null_mask_filter(filter))?;
        values.iter().map(|column| Ok(arrow::compute::nullif(column, &out)?)).collect()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.get_array_memory_size() + self.keys.get_array_memory_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::Int32Type;

    fn groups(wins: Ordering) -> Groups {
        let empty = new_null_array(&DataType::Int32, 0);
        Groups { wins, values: Arc::clone(&empty), keys: empty }
    }

    fn ints(values: &[Option<i32>]) -> ArrayRef {
        Arc::new(Int32Array::from(values.to_vec()))
    }

    #[test]
    fn null_keys_lose_and_null_values_at_the_winning_key_are_kept() {
        let mut last = groups(Ordering::Greater);
        let values = ints(&[Some(1), None, Some(3), Some(4), Some(5)]);
        let keys = ints(&[Some(10), Some(20), None, None, Some(7)]);
        last.update_batch(&[values, keys], &[0, 0, 0, 1, 2], None, 3).unwrap();
        let result = last.evaluate(EmitTo::All).unwrap();
        assert_eq!(result.as_primitive::<Int32Type>(), &Int32Array::from(vec![None, None, Some(5)]));
    }

    #[test]
    fn merging_states_in_any_order_is_the_same_as_seeing_all_rows() {
        let rows: Vec<(i32, i32, usize)> = (0..200).map(|i| (i, (i * 7919) % 101, (i % 5) as usize)).collect();
        let expected: Vec<Option<i32>> = (0..5)
            .map(|group| {
                let of_group = rows.iter().filter(|row| row.2 == group);
                of_group.max_by_key(|row| (row.1, std::cmp::Reverse(row.0))).map(|row| row.0)
            })
            .collect();
        let mut final_step = groups(Ordering::Greater);
        for part in rows.chunks(60) {
            let mut partial = groups(Ordering::Greater);
            let values = ints(&part.iter().map(|row| Some(row.0)).collect::<Vec<_>>());
            let keys = ints(&part.iter().map(|row| Some(row.1)).collect::<Vec<_>>());
            let indices: Vec<usize> = part.iter().map(|row| row.2).collect();
            partial.update_batch(&[values, keys], &indices, None, 5).unwrap();
            let state = partial.state(EmitTo::All).unwrap();
            final_step.merge_batch(&state, &[0, 1, 2, 3, 4], 5).unwrap();
        }
        let result = final_step.evaluate(EmitTo::All).unwrap();
        assert_eq!(result.as_primitive::<Int32Type>(), &Int32Array::from(expected));
    }

    #[test]
    fn emitting_the_first_groups_keeps_the_others() {
        let mut first = groups(Ordering::Less);
        let column = ints(&[Some(3), Some(1), Some(2)]);
        first.update_batch(&[Arc::clone(&column), column], &[0, 1, 2], None, 3).unwrap();
        let head = first.evaluate(EmitTo::First(2)).unwrap();
        assert_eq!(head.as_primitive::<Int32Type>().values(), &[3, 1]);
        let tail = first.evaluate(EmitTo::All).unwrap();
        assert_eq!(tail.as_primitive::<Int32Type>().values(), &[2]);
    }
}
