//! An accumulator of DataFusion's behind another argument and result type. Its state stays as it is, so states merge.

use super::cast::{convert, convert_scalar};
use crate::semantics::Zone;
use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use std::sync::Arc;

fn widened(values: &[ArrayRef], argument: &Option<DataType>) -> Result<Vec<ArrayRef>> {
    let widen = |array: &ArrayRef| match argument {
        Some(ty) if array.data_type() != ty => Ok(cast(array, ty)?),
        _ => Ok(Arc::clone(array)),
    };
    values.iter().map(widen).collect()
}

#[derive(Debug)]
pub struct Wide {
    pub inner: Box<dyn Accumulator>,
    /// `None`: as it comes.
    pub argument: Option<DataType>,
    pub result: DataType,
}

impl Accumulator for Wide {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&widened(values, &self.argument)?)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&widened(values, &self.argument)?)
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
        convert_scalar(&self.inner.evaluate()?, &self.result, Zone::UTC, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

pub struct WideGroups {
    pub inner: Box<dyn GroupsAccumulator>,
    pub argument: Option<DataType>,
    pub result: DataType,
}

impl GroupsAccumulator for WideGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(&widened(values, &self.argument)?, group_indices, opt_filter, total_num_groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        convert(&self.inner.evaluate(emit_to)?, &self.result, Zone::UTC, 0)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&widened(values, &self.argument)?, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}
