//! `avg` of exact numbers: DataFusion's accumulators gather sum and count, and the quotient is taken here, rounded half
//! away from zero where theirs is cut off. Their state stays as it is, so states merge.

use super::arithmetic::{divide_rounding, out_of_range, power_of_ten};
use super::scalar::raise;
use super::types::{NUMERIC, NUMERIC_SCALE};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, UInt64Type, i256};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use proto::Error;
use std::sync::Arc;

/// Quotients of a state: counts, then sums.
fn quotients(state: &[ArrayRef]) -> Result<ArrayRef> {
    let [counts, sums] = state else {
        return Err(raise(Error::internal("the state of an average is a count and a sum")));
    };
    let counts = counts.as_primitive::<UInt64Type>();
    let (sum_at, scale): (Box<dyn Fn(usize) -> i256>, i8) = match sums.data_type() {
        DataType::Decimal128(_, scale) => {
            let sums = sums.as_primitive::<Decimal128Type>();
            (Box::new(|row| i256::from_i128(sums.value(row))), *scale)
        }
        DataType::Decimal256(_, scale) => {
            let sums = sums.as_primitive::<Decimal256Type>();
            (Box::new(|row| sums.value(row)), *scale)
        }
        other => return Err(raise(Error::internal(format!("an exact average over {other}")))),
    };
    let shift = i32::from(NUMERIC_SCALE) - i32::from(scale);
    let quotient = |row: usize| -> Option<i128> {
        let (mut sum, mut count) = (sum_at(row), i256::from_i128(i128::from(counts.value(row))));
        match shift {
            0.. => sum = sum.checked_mul(power_of_ten(shift)?)?,
            _ => count = count.checked_mul(power_of_ten(-shift)?)?,
        }
        divide_rounding(sum, count).to_i128()
    };
    let mut results: Vec<Option<i128>> = Vec::with_capacity(counts.len());
    for row in 0..counts.len() {
        let empty = counts.is_null(row) || counts.value(row) == 0 || sums.is_null(row);
        results.push(match empty {
            true => None,
            false => Some(quotient(row).ok_or_else(|| raise(out_of_range(&NUMERIC)))?),
        });
    }
    Ok(Arc::new(Decimal128Array::from(results).with_precision_and_scale(38, NUMERIC_SCALE)?))
}

#[derive(Debug)]
pub struct ExactAvg {
    pub inner: Box<dyn Accumulator>,
}

impl Accumulator for ExactAvg {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.inner.state()?.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
        ScalarValue::try_from_array(&quotients(&state)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

pub struct ExactAvgGroups {
    pub inner: Box<dyn GroupsAccumulator>,
}

impl GroupsAccumulator for ExactAvgGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(values, group_indices, opt_filter, total_num_groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        quotients(&self.inner.state(emit_to)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}
