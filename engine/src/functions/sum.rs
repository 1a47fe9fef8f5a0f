//! `sum` with PostgreSQL's result types: `integer` and smaller to `bigint`, `bigint` to `numeric`. DataFusion's
//! accumulators do the work, so states merge; small integers are widened a batch at a time, because an argument coerced
//! to `bigint` in the plan could not be told from a `bigint` column.

use super::intervals::IntervalSum;
use super::scalar::{no_function, raise};
use super::types::{Class, INTERVAL, class};
use super::widened::{Wide, WideGroups};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(AggregateUDF::new_from_impl(Sum { signature: Signature::user_defined(Volatility::Immutable) }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    signature: Signature,
}

/// `(argument, result)`. Coercing a coerced type changes nothing.
fn types(ty: &DataType) -> Option<(DataType, DataType)> {
    Some(match class(ty) {
        Class::Integer => match ty {
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => {
                (DataType::Decimal128(20, 0), DataType::Decimal128(30, 0))
            }
            _ => (DataType::Int32, DataType::Int64),
        },
        Class::Float if *ty == DataType::Float32 => (DataType::Float32, DataType::Float32),
        Class::Float | Class::Unknown => (DataType::Float64, DataType::Float64),
        Class::Numeric => {
            let DataType::Decimal128(precision, scale) = ty else { return None };
            (ty.clone(), DataType::Decimal128((precision + 10).min(38), *scale))
        }
        Class::Interval => (INTERVAL, INTERVAL),
        _ => return None,
    })
}

impl Sum {
    fn types(&self, arguments: &[DataType]) -> Result<(DataType, DataType)> {
        let found = match arguments {
            [ty] => types(ty),
            _ => None,
        };
        found.ok_or_else(|| raise(no_function("sum", arguments)))
    }
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![self.types(types)?.0])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(self.types(types)?.1)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let return_field = accumulated(&args.return_field);
        sum_udaf().state_fields(StateFieldsArgs { return_field, ..args })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if let DataType::Interval(_) = args.return_field.data_type() {
            return Ok(Box::new(IntervalSum::default()));
        }
        let (return_field, result) = (accumulated(&args.return_field), args.return_field.data_type().clone());
        let inner = sum_udaf().accumulator(AccumulatorArgs { return_field, ..args })?;
        Ok(Box::new(Wide { inner, argument: argument(&result), result }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !matches!(args.return_field.data_type(), DataType::Interval(_)) && !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let (return_field, result) = (accumulated(&args.return_field), args.return_field.data_type().clone());
        let inner = sum_udaf().create_groups_accumulator(AccumulatorArgs { return_field, ..args })?;
        Ok(Box::new(WideGroups { inner, argument: argument(&result), result }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if let DataType::Interval(_) = args.return_field.data_type() {
            return Ok(Box::new(IntervalSum::default()));
        }
        let (return_field, result) = (accumulated(&args.return_field), args.return_field.data_type().clone());
        let inner = sum_udaf().create_sliding_accumulator(AccumulatorArgs { return_field, ..args })?;
        Ok(Box::new(Wide { inner, argument: argument(&result), result }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// The type that DataFusion's accumulator works in: a `real` sum is gathered in double precision.
fn accumulated(result: &FieldRef) -> FieldRef {
    match result.data_type() {
        DataType::Float32 => Arc::new(result.as_ref().clone().with_data_type(DataType::Float64)),
        _ => Arc::clone(result),
    }
}

/// What the accumulator takes for a result of this type.
fn argument(result: &DataType) -> Option<DataType> {
    match result {
        DataType::Int64 => Some(DataType::Int64),
        DataType::Float32 => Some(DataType::Float64),
        _ => None,
    }
}
