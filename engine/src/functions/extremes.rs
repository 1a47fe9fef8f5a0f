//! `min` and `max` of floating-point numbers by group, where NaN is greater than all others and equal to itself, as
//! PostgreSQL has it. DataFusion's, which do everything else here, let it depend on the order of rows, and know nothing
//! beyond the finite numbers. States are theirs.

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
    StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;
use std::sync::Arc;

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    let of = |inner: Arc<AggregateUDF>, greatest| Arc::new(AggregateUDF::new_from_impl(Extreme { inner, greatest }));
    vec![of(min_udaf(), false), of(max_udaf(), true)]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    inner: Arc<AggregateUDF>,
    greatest: bool,
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match (args.return_field.data_type(), self.greatest) {
            (DataType::Float32, true) => of::<Float32Type>(f32::NEG_INFINITY, |best, v| *v > *best || v.is_nan()),
            (DataType::Float32, false) => of::<Float32Type>(f32::NAN, |best, v| *v < *best || best.is_nan()),
            (DataType::Float64, true) => of::<Float64Type>(f64::NEG_INFINITY, |best, v| *v > *best || v.is_nan()),
            (DataType::Float64, false) => of::<Float64Type>(f64::NAN, |best, v| *v < *best || best.is_nan()),
            _ => return self.inner.create_groups_accumulator(args),
        })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.inner.value_from_stats(args)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_udf()
    }

    fn set_monotonicity(&self, ty: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(ty)
    }
}

/// Begins with `worst`, which every value that `beats` it replaces.
fn of<T: ArrowPrimitiveType + Send>(
    worst: T::Native,
    beats: impl Fn(&T::Native, &T::Native) -> bool + Send + Sync + 'static,
) -> Box<dyn GroupsAccumulator> {
    let pick = move |best: &mut T::Native, value: T::Native| {
        if beats(best, &value) {
            *best = value;
        }
    };
    Box::new(PrimitiveGroupsAccumulator::<T, _>::new(&T::DATA_TYPE, pick).with_starting_value(worst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Float64Array};
    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::EmitTo;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;

    /// By group: the extremes PostgreSQL 15 gives, in both orders of rows.
    #[test]
    fn no_number_is_above_all_numbers_in_any_order() {
        let inf = f64::INFINITY;
        let groups: [(&[f64], f64, f64); 5] = [
            (&[1.0, f64::NAN, 2.0], 1.0, f64::NAN),
            (&[f64::NAN, f64::NAN], f64::NAN, f64::NAN),
            (&[-inf, -inf], -inf, -inf),
            (&[inf, inf], inf, inf),
            (&[inf, f64::NAN], inf, f64::NAN),
        ];
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Float64, true)]));
        for (function, greatest) in functions().into_iter().zip([false, true]) {
            for backwards in [false, true] {
                let mut rows = groups
                    .iter()
                    .enumerate()
                    .flat_map(|(group, (values, ..))| values.iter().map(move |value| (group, *value)));
                let mut rows = rows.by_ref().collect::<Vec<_>>();
                if backwards {
                    rows.reverse();
                }
                let (indices, values): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
                let arguments = vec![col("v", &schema).unwrap()];
                let expr = AggregateExprBuilder::new(Arc::clone(&function), arguments).schema(Arc::clone(&schema));
                let mut found = expr.alias("x").build().unwrap().create_groups_accumulator().unwrap();
                let values: ArrayRef = Arc::new(Float64Array::from(values));
                found.update_batch(&[values], &indices, None, groups.len()).unwrap();
                let found = found.evaluate(EmitTo::All).unwrap();
                for ((_, least, most), found) in groups.iter().zip(found.as_primitive::<Float64Type>().values()) {
                    let expected = if greatest { most } else { least };
                    assert_eq!(found.total_cmp(expected), std::cmp::Ordering::Equal, "{found} for {expected}");
                }
            }
        }
    }
}
