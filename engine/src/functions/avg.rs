//! `avg` with PostgreSQL's result types, over DataFusion's accumulators for numbers and our own for intervals.

use super::exact_avg::{ExactAvg, ExactAvgGroups};
use super::intervals::IntervalAvg;
use super::scalar::{no_function, raise};
use super::types::{Class, INTERVAL, NUMERIC, class};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
    Volatility,
};
use proto::Error;
use std::sync::Arc;

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    let signature = Signature::user_defined(Volatility::Immutable);
    vec![Arc::new(AggregateUDF::new_from_impl(Avg { inner: avg_udaf(), signature }))]
}

/// `(argument, result)`: exact types average to `numeric`. Coercing a coerced type changes nothing.
fn types(ty: &DataType) -> Option<(DataType, DataType)> {
    Some(match class(ty) {
        Class::Integer => (DataType::Decimal128(20, 0), NUMERIC),
        Class::Numeric => (ty.clone(), NUMERIC),
        Class::Float | Class::Unknown => (DataType::Float64, DataType::Float64),
        Class::Interval => (INTERVAL, INTERVAL),
        _ => return None,
    })
}

/// What the result type says of the way there.
#[derive(PartialEq)]
enum Averaged {
    Exact,
    Float,
    Interval,
}

impl Averaged {
    fn of(result: &FieldRef) -> Averaged {
        match class(result.data_type()) {
            Class::Numeric => Averaged::Exact,
            Class::Interval => Averaged::Interval,
            _ => Averaged::Float,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Avg {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

impl Avg {
    fn types(&self, arguments: &[DataType]) -> Result<(DataType, DataType)> {
        let found = match arguments {
            [ty] => types(ty),
            _ => None,
        };
        found.ok_or_else(|| raise(no_function("avg", arguments)))
    }
}

impl AggregateUDFImpl for Avg {
    fn name(&self) -> &str {
        "avg"
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

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (averaged, is_distinct) = (Averaged::of(&args.return_field), args.is_distinct);
        Ok(match averaged {
            Averaged::Interval if is_distinct => {
                return Err(raise(Error::unsupported("avg(DISTINCT …) of intervals")));
            }
            Averaged::Interval => Box::new(IntervalAvg::default()),
            Averaged::Exact if !is_distinct => Box::new(ExactAvg { inner: self.inner.accumulator(args)? }),
            _ => self.inner.accumulator(args)?,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match Averaged::of(&args.return_field) {
            Averaged::Interval => Ok(IntervalAvg::state_fields(args.name)),
            _ => self.inner.state_fields(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        Averaged::of(&args.return_field) != Averaged::Interval && self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match Averaged::of(&args.return_field) {
            Averaged::Exact => Box::new(ExactAvgGroups { inner: self.inner.create_groups_accumulator(args)? }),
            _ => self.inner.create_groups_accumulator(args)?,
        })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match Averaged::of(&args.return_field) {
            Averaged::Interval => Box::new(IntervalAvg::default()),
            Averaged::Exact => Box::new(ExactAvg { inner: self.inner.create_sliding_accumulator(args)? }),
            Averaged::Float => self.inner.create_sliding_accumulator(args)?,
        })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn default_value(&self, ty: &DataType) -> Result<ScalarValue> {
        ScalarValue::try_from(ty)
    }

    fn set_monotonicity(&self, _ty: &DataType) -> SetMonotonicity {
        SetMonotonicity::NotMonotonic
    }
}
