//! Sums and averages of intervals, part by part, as PostgreSQL adds and divides them.

use super::date_arithmetic::scaled_interval;
use super::scalar::raise;
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;
use proto::{Error, SqlState};
use std::sync::Arc;

#[derive(Debug, Default)]
pub struct IntervalSum {
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

/// Its state is the sum and how many were added.
#[derive(Debug, Default)]
pub struct IntervalAvg {
    sum: IntervalSum,
    count: i64,
}

impl IntervalAvg {
    pub fn state_fields(name: &str) -> Vec<FieldRef> {
        vec![
            Arc::new(Field::new(format!("{name}[sum]"), super::types::INTERVAL, true)),
            Arc::new(Field::new(format!("{name}[count]"), DataType::Int64, true)),
        ]
    }
}

impl Accumulator for IntervalAvg {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += (values[0].len() - values[0].null_count()) as i64;
        self.sum.add(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count -= (values[0].len() - values[0].null_count()) as i64;
        self.sum.add(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.count += states[1].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        self.sum.add(&states[0], 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.sum.evaluate()?, ScalarValue::Int64(Some(self.count))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let average = match (self.sum.total, self.count) {
            (Some(total), count @ 1..) => Some(scaled_interval(total, |part| part / count as f64)),
            _ => None,
        };
        Ok(ScalarValue::IntervalMonthDayNano(average))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
