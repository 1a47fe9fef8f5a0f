//! `mode() WITHIN GROUP (ORDER BY x)` and `percentile_disc(p) WITHIN GROUP (ORDER BY x)`: one of the values itself. Both
//! keep all values of a group, so their state is a list.

use super::scalar::{no_function, raise};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortOptions, cast, concat, filter, is_not_null, sort};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<AggregateUDF>> {
    [Pick::Mode, Pick::Percentile]
        .into_iter()
        .map(|pick| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(AggregateUDF::new_from_impl(OrderedSet { pick, signature }))
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pick {
    /// The most frequent value; of several the first in the order.
    Mode,
    /// The first value whose position reaches the fraction.
    Percentile,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderedSet {
    pick: Pick,
    signature: Signature,
}

impl AggregateUDFImpl for OrderedSet {
    fn name(&self) -> &str {
        match self.pick {
            Pick::Mode => "mode",
            Pick::Percentile => "percentile_disc",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    /// The ordered value comes first, then what stands in the brackets.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let known = |ty: &DataType| if ty.is_null() { DataType::Utf8 } else { ty.clone() };
        match (self.pick, types) {
            (Pick::Mode, [value]) => Ok(vec![known(value)]),
            (Pick::Percentile, [value, _]) => Ok(vec![known(value), DataType::Float64]),
            _ => Err(raise(no_function(self.name(), types))),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(self.coerce_types(types)?.swap_remove(0))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let values = Field::new_list(format!("{}[values]", args.name), item(args.input_fields[0].data_type()), true);
        let fraction = Field::new(format!("{}[fraction]", args.name), DataType::Float64, true);
        Ok(vec![Arc::new(values), Arc::new(fraction)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let descending = args.order_bys.first().is_some_and(|order| order.options.descending);
        let ty = args.return_field.data_type().clone();
        Ok(Box::new(Values { pick: self.pick, descending, ty, parts: Vec::new(), fraction: None }))
    }
}

fn item(ty: &DataType) -> Arc<Field> {
    Arc::new(Field::new("item", ty.clone(), true))
}

#[derive(Debug)]
struct Values {
    pick: Pick,
    descending: bool,
    ty: DataType,
    /// Without NULLs.
    parts: Vec<ArrayRef>,
    fraction: Option<f64>,
}

impl Values {
    fn all(&self) -> Result<ArrayRef> {
        let parts: Vec<&dyn Array> = self.parts.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() { Ok(new_empty_array(&self.ty)) } else { Ok(concat(&parts)?) }
    }

    fn set_fraction(&mut self, fractions: &Float64Array) -> Result<()> {
        for fraction in fractions.iter().flatten().take(1) {
            if !(0.0..=1.0).contains(&fraction) {
                let message = format!("percentile value {fraction} is not between 0 and 1");
                return Err(raise(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)));
            }
            self.fraction = Some(fraction);
        }
        Ok(())
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        // What follows the arguments is the value again, as the ordering.
        if let (Pick::Percentile, Some(fractions)) = (self.pick, values.get(1)) {
            self.set_fraction(cast(fractions, &DataType::Float64)?.as_primitive::<Float64Type>())?;
        }
        let known = filter(&values[0], &is_not_null(&values[0])?)?;
        if !known.is_empty() {
            self.parts.push(known);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.set_fraction(states[1].as_primitive::<Float64Type>())?;
        self.parts.extend(states[0].as_list::<i32>().iter().flatten().filter(|list| !list.is_empty()));
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.all()?;
        let list = ListArray::new(item(&self.ty), OffsetBuffer::from_lengths([values.len()]), values, None);
        Ok(vec![ScalarValue::List(Arc::new(list)), ScalarValue::Float64(self.fraction)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let options = SortOptions { descending: self.descending, nulls_first: false };
        let sorted = sort(&self.all()?, Some(options))?;
        if sorted.is_empty() {
            return ScalarValue::try_from(&self.ty);
        }
        let row = match (self.pick, self.fraction) {
            (Pick::Mode, _) => longest_run(&sorted)?,
            (Pick::Percentile, Some(fraction)) => {
                ((fraction * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1
            }
            (Pick::Percentile, None) => return ScalarValue::try_from(&self.ty),
        };
        ScalarValue::try_from_array(&sorted, row)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.parts.iter().map(|part| part.get_array_memory_size()).sum::<usize>()
    }
}

/// Where the first of the longest runs of equal values starts.
fn longest_run(sorted: &ArrayRef) -> Result<usize> {
    let compare = arrow::array::make_comparator(sorted, sorted, SortOptions::default())?;
    let (mut best, mut best_length, mut start) = (0, 0, 0);
    for row in 0..sorted.len() {
        if compare(row, start).is_ne() {
            start = row;
        }
        if row + 1 - start > best_length {
            (best, best_length) = (start, row + 1 - start);
        }
    }
    Ok(best)
}
