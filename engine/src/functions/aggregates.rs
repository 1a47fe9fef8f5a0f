//! `sum` and `avg` with PostgreSQL's result types: DataFusion's accumulators under another signature, so that their
//! states merge as before.

use super::scalar::{no_function, raise};
use super::types::{Class, INTERVAL, NUMERIC, class};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::{average::avg_udaf, sum::sum_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
    Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::new_from_impl(Retyped::new(sum_udaf(), sum_types))),
        Arc::new(AggregateUDF::new_from_impl(Retyped::new(avg_udaf(), avg_types))),
    ]
}

/// `(argument, result)`; `None` where PostgreSQL has no such aggregate.
type Types = fn(&DataType) -> Option<(DataType, DataType)>;

/// Integers sum to `bigint`; one that is a `bigint` itself arrives as a decimal, see `semantics::wide_sums`.
fn sum_types(ty: &DataType) -> Option<(DataType, DataType)> {
    Some(match class(ty) {
        Class::Integer => (DataType::Int64, DataType::Int64),
        Class::Float | Class::Unknown => (DataType::Float64, DataType::Float64),
        Class::Numeric => {
            let DataType::Decimal128(precision, scale) = ty else { return None };
            (ty.clone(), DataType::Decimal128((precision + 10).min(38), *scale))
        }
        Class::Interval => (INTERVAL, INTERVAL),
        _ => return None,
    })
}

/// Exact types average to `numeric`.
fn avg_types(ty: &DataType) -> Option<(DataType, DataType)> {
    Some(match class(ty) {
        Class::Integer => (DataType::Decimal128(20, 0), NUMERIC),
        Class::Numeric => (ty.clone(), NUMERIC),
        Class::Float | Class::Unknown => (DataType::Float64, DataType::Float64),
        _ => return None,
    })
}

#[derive(Debug)]
struct Retyped {
    inner: Arc<AggregateUDF>,
    types: Types,
    signature: Signature,
}

impl Retyped {
    fn new(inner: Arc<AggregateUDF>, types: Types) -> Retyped {
        Retyped { inner, types, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn types(&self, types: &[DataType]) -> Result<(DataType, DataType)> {
        let found = match types {
            [ty] => (self.types)(ty),
            _ => None,
        };
        found.ok_or_else(|| raise(no_function(self.inner.name(), types)))
    }
}

impl PartialEq for Retyped {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Retyped {}

impl Hash for Retyped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl AggregateUDFImpl for Retyped {
    fn name(&self) -> &str {
        self.inner.name()
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
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
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
