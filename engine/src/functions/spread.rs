//! Variances and standard deviations: `numeric` for exact arguments, as PostgreSQL has them. They are computed in double
//! precision all the same, so a `numeric` one has 15 digits.

use super::scalar::{no_function, raise};
use super::types::{Class, NUMERIC, as_decimal, class};
use super::widened::{Wide, WideGroups};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions_aggregate::stddev::{stddev_pop_udaf, stddev_udaf};
use datafusion::functions_aggregate::variance::{var_pop_udaf, var_samp_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    let named: [(&'static str, &[&str], Arc<AggregateUDF>); 4] = [
        ("variance", &["var_samp"], var_samp_udaf()),
        ("var_pop", &[], var_pop_udaf()),
        ("stddev", &["stddev_samp"], stddev_udaf()),
        ("stddev_pop", &[], stddev_pop_udaf()),
    ];
    named
        .into_iter()
        .map(|(name, aliases, inner)| {
            let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(AggregateUDF::new_from_impl(Spread { name, aliases, inner, signature }))
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Spread {
    name: &'static str,
    aliases: Vec<String>,
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

impl Spread {
    /// `(argument, result)`. Coercing a coerced type changes nothing.
    fn types(&self, arguments: &[DataType]) -> Result<(DataType, DataType)> {
        match arguments {
            [ty] if matches!(class(ty), Class::Integer | Class::Numeric) => Ok((as_decimal(ty), NUMERIC)),
            [ty] if matches!(class(ty), Class::Float | Class::Unknown) => Ok((DataType::Float64, DataType::Float64)),
            _ => Err(raise(no_function(self.name, arguments))),
        }
    }
}

/// The call as the inner function sees it.
fn in_double(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(DataType::Float64))
}

impl AggregateUDFImpl for Spread {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
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
        let input_fields: Vec<FieldRef> = args.input_fields.iter().map(in_double).collect();
        let return_field = in_double(&args.return_field);
        self.inner.state_fields(StateFieldsArgs { input_fields: &input_fields, return_field, ..args })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (return_field, result) = (in_double(&args.return_field), args.return_field.data_type().clone());
        let inner = self.inner.accumulator(AccumulatorArgs { return_field, ..args })?;
        Ok(Box::new(Wide { inner, argument: Some(DataType::Float64), result }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let (return_field, result) = (in_double(&args.return_field), args.return_field.data_type().clone());
        let inner = self.inner.create_groups_accumulator(AccumulatorArgs { return_field, ..args })?;
        Ok(Box::new(WideGroups { inner, argument: Some(DataType::Float64), result }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}
