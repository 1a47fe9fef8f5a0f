//! `sum` with PostgreSQL's result types: `integer` and smaller to `bigint`, `bigint` to `numeric`. DataFusion's
//! accumulators do the work, so states merge; small integers are widened a batch at a time, because an argument coerced
//! to `bigint` in the plan could not be told from a `bigint` column.

use super::scalar::{no_function, raise};
use super::types::{Class, INTERVAL, class};
use super::widened::{Wide, WideGroups};
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};
use proto::{Error, SqlState};
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
            return Ok(Box::new(IntervalSum { total: None }));
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
            return Ok(Box::new(IntervalSum { total: None }));
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

/// Part by part, as PostgreSQL adds intervals.
#[derive(Debug)]
struct IntervalSum {
    total: Option<IntervalMonthDayNano>,
}

impl IntervalSum {
    fn add(&mut self, values: &ArrayRef, sign: i32) -> Result<()> {
        for value in values.as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(value);
            let (total_months, total_days, total_nanos) =
                self.total.map_or((0, 0, 0), IntervalMonthDayNanoType::to_parts);
            let sum = (|| {
                Some(IntervalMonthDayNanoType::make_value(
                    total_months.checked_add(months.checked_mul(sign)?)?,
                    total_days.checked_add(days.checked_mul(sign)?)?,
                    total_nanos.checked_add(nanos.checked_mul(i64::from(sign))?)?,
                ))
            })();
            let out_of_range = || raise(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range"));
            self.total = Some(sum.ok_or_else(out_of_range)?);
        }
        Ok(())
    }
}

impl Accumulator for IntervalSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.add(&states[0], 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::IntervalMonthDayNano(self.total))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
