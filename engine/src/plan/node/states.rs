//! Whole runs as states: what an aggregate function's accumulator would have for the rows of a run, made by a loop over
//! consecutive values. Accumulators merge these as they merge states of other nodes, and stay what they are: DataFusion's,
//! and ours over them. Functions without such a loop get their rows.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, NullBufferBuilder, PrimitiveArray, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{
    ArrowNativeTypeOp, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Schema, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use std::ops::Range;
use std::sync::Arc;

/// Values added up side by side: as many as keep the processor's adders busy.
const LANES: usize = 8;

/// Rows of runs: which count (all, when there is no mask), and where each run ends.
pub(super) struct Runs<'a> {
    pub mask: Option<&'a BooleanBuffer>,
    pub ends: &'a [u32],
}

/// The states of the runs, a row for each; `None` when they must be made row by row.
pub(super) type Fold = fn(&ArrayRef, &DataType, &Runs<'_>) -> Option<Vec<ArrayRef>>;

/// The loop for `function`, if it has one. Its states must be what is made here, type by type.
pub(super) fn fold(function: &AggregateFunctionExpr, input: &Schema) -> Option<Fold> {
    let [argument] = &function.expressions()[..] else { return None };
    if function.is_distinct() || !function.order_bys().is_empty() || !function.groups_accumulator_supported() {
        return None;
    }
    let argument = argument.data_type(input).ok()?;
    let states = function.state_fields().ok()?;
    let states = states.iter().map(|field| field.data_type()).collect::<Vec<_>>();
    use DataType::*;
    let fold: Fold = match (function.fun().name(), &argument, &states[..]) {
        ("count", _, [Int64]) => |values, _, runs| Some(vec![counts(values.len(), runs)]),
        ("sum", Int32, [Int64]) => |values, ty, runs| sums::<Int32Type, Int64Type>(values, ty, runs, |v| v.into()),
        ("sum", Float32, [Float64]) => {
            |values, ty, runs| sums::<Float32Type, Float64Type>(values, ty, runs, |v| v.into())
        }
        ("sum", Float64, [Float64]) => |values, ty, runs| sums::<Float64Type, Float64Type>(values, ty, runs, |v| v),
        ("sum", Decimal128(..), [Decimal128(..)]) => {
            |values, ty, runs| sums::<Decimal128Type, Decimal128Type>(values, ty, runs, |v| v)
        }
        ("avg", Float64, [UInt64, Float64]) => |values, ty, runs| averages::<Float64Type>(values, ty, runs),
        ("avg", Decimal128(..), [UInt64, Decimal128(..)]) => {
            |values, ty, runs| averages::<Decimal128Type>(values, ty, runs)
        }
        ("min", ty, [state]) if ty == *state => extreme(ty, false)?,
        ("max", ty, [state]) if ty == *state => extreme(ty, true)?,
        _ => return None,
    };
    Some(fold)
}

/// The loop for `min` or `max`.
fn extreme(ty: &DataType, greatest: bool) -> Option<Fold> {
    macro_rules! of {
        ($type:ty) => {
            match greatest {
                true => |values, ty, runs| extremes::<$type>(values, ty, runs, |a, b| if b > a { b } else { a }),
                false => |values, ty, runs| extremes::<$type>(values, ty, runs, |a, b| if b < a { b } else { a }),
            }
        };
    }
    Some(match ty {
        DataType::Int16 => of!(Int16Type),
        DataType::Int32 => of!(Int32Type),
        DataType::Int64 => of!(Int64Type),
        DataType::Float32 => of!(Float32Type),
        DataType::Float64 => of!(Float64Type),
        DataType::Date32 => of!(Date32Type),
        DataType::Decimal128(..) => of!(Decimal128Type),
        DataType::Time64(TimeUnit::Microsecond) => of!(Time64MicrosecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of!(TimestampMicrosecondType),
        _ => return None,
    })
}

impl Runs<'_> {
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = [0].into_iter().chain(self.ends.iter().map(|end| *end as usize));
        starts.zip(self.ends).map(|(start, end)| start..*end as usize)
    }

    /// Calls `visit` with each stretch of rows of a run that count, and `end` behind each run.
    fn walk<A: Default>(&self, mut visit: impl FnMut(&mut A, Range<usize>), mut end: impl FnMut(A)) {
        for run in self.ranges() {
            let mut state = A::default();
            match self.mask {
                None => visit(&mut state, run),
                Some(mask) => {
                    let part = mask.slice(run.start, run.len());
                    part.set_slices().for_each(|(from, to)| visit(&mut state, run.start + from..run.start + to));
                }
            }
            end(state);
        }
    }
}

fn counts(rows: usize, runs: &Runs<'_>) -> ArrayRef {
    debug_assert_eq!(runs.ends.last().map_or(0, |end| *end as usize), rows);
    let mut counts = Vec::with_capacity(runs.ends.len());
    runs.walk(|count: &mut i64, rows| *count += rows.len() as i64, |count| counts.push(count));
    Arc::new(Int64Array::from(counts))
}

/// The sums of the runs and how many values are in each; wraps around as the accumulators do.
fn added<T: ArrowPrimitiveType, S: ArrowPrimitiveType>(
    values: &ArrayRef,
    runs: &Runs<'_>,
    widen: impl Fn(T::Native) -> S::Native + Copy,
) -> (Vec<S::Native>, Vec<u64>) {
    let values = values.as_primitive::<T>().values();
    let (mut sums, mut counts) = (Vec::with_capacity(runs.ends.len()), Vec::with_capacity(runs.ends.len()));
    let visit = |(sum, count): &mut (S::Native, u64), rows: Range<usize>| {
        *count += rows.len() as u64;
        *sum = sum.add_wrapping(sum_of::<T, S>(&values[rows], widen));
    };
    runs.walk(visit, |(sum, count)| {
        sums.push(sum);
        counts.push(count);
    });
    (sums, counts)
}

fn sum_of<T: ArrowPrimitiveType, S: ArrowPrimitiveType>(
    values: &[T::Native],
    widen: impl Fn(T::Native) -> S::Native,
) -> S::Native {
    let mut lanes = [S::Native::default(); LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = lanes[lane].add_wrapping(widen(chunk[lane]));
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = lane.add_wrapping(widen(*value));
    }
    lanes.into_iter().reduce(|a, b| a.add_wrapping(b)).expect("there are lanes")
}

/// NULL where a run has no value.
fn where_counted(counts: &[u64]) -> Option<NullBuffer> {
    let mut nulls = NullBufferBuilder::new(counts.len());
    counts.iter().for_each(|count| nulls.append(*count > 0));
    nulls.finish()
}

fn sums<T: ArrowPrimitiveType, S: ArrowPrimitiveType>(
    values: &ArrayRef,
    state: &DataType,
    runs: &Runs<'_>,
    widen: impl Fn(T::Native) -> S::Native + Copy,
) -> Option<Vec<ArrayRef>> {
    let (sums, counts) = added::<T, S>(values, runs, widen);
    let sums = PrimitiveArray::<S>::new(sums.into(), where_counted(&counts)).with_data_type(state.clone());
    Some(vec![Arc::new(sums)])
}

fn averages<T: ArrowPrimitiveType>(values: &ArrayRef, state: &DataType, runs: &Runs<'_>) -> Option<Vec<ArrayRef>> {
    let (sums, counts) = added::<T, T>(values, runs, |value| value);
    let nulls = where_counted(&counts);
    let sums = PrimitiveArray::<T>::new(sums.into(), nulls.clone()).with_data_type(state.clone());
    Some(vec![Arc::new(UInt64Array::new(counts.into(), nulls)), Arc::new(sums)])
}

/// What `pick` leaves of each run. `None` when there is a NaN: what the accumulators make of it depends on the order.
fn extremes<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    state: &DataType,
    runs: &Runs<'_>,
    pick: impl Fn(T::Native, T::Native) -> T::Native + Copy,
) -> Option<Vec<ArrayRef>> {
    let values = values.as_primitive::<T>().values();
    let (mut found, mut counts) = (Vec::with_capacity(runs.ends.len()), Vec::with_capacity(runs.ends.len()));
    let mut ordered = true;
    let visit = |best: &mut Option<T::Native>, rows: Range<usize>| {
        let (picked, comparable) = extreme_of(&values[rows], pick);
        ordered &= comparable;
        *best = Some(best.map_or(picked, |best| pick(best, picked)));
    };
    runs.walk(visit, |best| {
        counts.push(best.is_some().into());
        found.push(best.unwrap_or_default());
    });
    let found = PrimitiveArray::<T>::new(found.into(), where_counted(&counts)).with_data_type(state.clone());
    ordered.then(|| vec![Arc::new(found) as ArrayRef])
}

/// The picked value, and whether all of them equal themselves.
#[expect(clippy::eq_op, reason = "a NaN differs from itself")]
fn extreme_of<N: Copy + PartialEq>(values: &[N], pick: impl Fn(N, N) -> N) -> (N, bool) {
    let mut lanes = [values[0]; LANES];
    let mut comparable = [true; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = pick(lanes[lane], chunk[lane]);
            comparable[lane] &= chunk[lane] == chunk[lane];
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        lanes[lane] = pick(lanes[lane], *value);
        comparable[lane] &= *value == *value;
    }
    let best = lanes.into_iter().reduce(pick).expect("there are lanes");
    (best, comparable.into_iter().all(|comparable| comparable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::FUNCTIONS;
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::Field;
    use datafusion::logical_expr::EmitTo;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;

    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) % limit
        }
    }

    /// Columns that the loops are for. Floats are quarters, so that sums are exact; some are no numbers.
    fn columns(rows: usize, nulls: bool, chance: &mut Chance) -> Vec<ArrayRef> {
        let mut values = |limit: u64| {
            let value = |_| (!nulls || chance.below(3) > 0).then(|| chance.below(limit) as i64);
            (0..rows).map(value).collect::<Vec<_>>()
        };
        let quarters = values(4000).into_iter().map(|v| v.map(|v| v as f64 / 4.0)).collect::<Vec<_>>();
        let odd = values(20).into_iter().map(|v| v.map(|v| if v == 7 { f64::NAN } else { v as f64 }));
        let wide = values(u64::MAX).into_iter().map(|v| v.map(|v| v << 33));
        vec![
            Arc::new(quarters.iter().copied().collect::<Float64Array>()),
            Arc::new(odd.collect::<Float64Array>()),
            Arc::new(quarters.iter().map(|v| v.map(|v| v as f32)).collect::<Float32Array>()),
            Arc::new(values(1 << 31).into_iter().map(|v| v.map(|v| v as i32)).collect::<Int32Array>()),
            Arc::new(values(1 << 15).into_iter().map(|v| v.map(|v| v as i16)).collect::<Int16Array>()),
            Arc::new(wide.collect::<Int64Array>()),
            Arc::new(values(90_000).into_iter().map(|v| v.map(|v| v as i32)).collect::<Date32Array>()),
            Arc::new(values(1 << 50).into_iter().collect::<TimestampMicrosecondArray>()),
            Arc::new(values(1 << 50).into_iter().map(|v| v.map(i128::from)).collect::<Decimal128Array>()),
        ]
    }

    /// The twin is the accumulator itself, fed row by row.
    #[test]
    fn runs_make_the_states_that_rows_make() {
        let mut folded = 0;
        for seed in 0..200 {
            let mut chance = Chance(seed);
            let rows = 1 + chance.below(300) as usize;
            let mut ends = (1..rows as u32).filter(|_| chance.below(1 + seed % 40) == 0).collect::<Vec<_>>();
            ends.push(rows as u32);
            // As they are found: each new one has the next number.
            let mut groups_count = 0;
            let groups = ends.iter().map(|_| {
                let group = chance.below(groups_count as u64 + 1).min(5) as usize;
                groups_count = groups_count.max(group + 1);
                group
            });
            let groups = groups.collect::<Vec<_>>();
            let of_rows = (0..rows as u32).map(|row| groups[ends.partition_point(|end| *end <= row)]);
            let of_rows = of_rows.collect::<Vec<_>>();
            let filter = (seed % 3 == 0).then(|| {
                (0..rows).map(|_| (chance.below(9) > 0).then(|| chance.below(2) > 0)).collect::<BooleanArray>()
            });
            for (column, name) in columns(rows, seed % 2 == 0, &mut chance)
                .into_iter()
                .flat_map(|column| ["count", "sum", "avg", "min", "max"].map(|name| (Arc::clone(&column), name)))
            {
                let schema = Arc::new(Schema::new(vec![Field::new("c", column.data_type().clone(), true)]));
                let function = Arc::clone(FUNCTIONS.aggregate(name).unwrap());
                let built = AggregateExprBuilder::new(function, vec![col("c", &schema).unwrap()]);
                let Ok(function) = built.schema(Arc::clone(&schema)).alias(name).build() else { continue };
                let Some(fold) = fold(&function, &schema) else { continue };
                let there = column.logical_nulls().map(|nulls| nulls.into_inner());
                let wanted = filter.as_ref().map(|filter| filter.iter().map(|f| f == Some(true)).collect());
                let mask: Option<BooleanBuffer> = match (there, wanted) {
                    (Some(there), Some(wanted)) => Some(&there & &wanted),
                    (there, wanted) => there.or(wanted),
                };
                let last = function.state_fields().unwrap().last().unwrap().data_type().clone();
                let states = fold(&column, &last, &Runs { mask: mask.as_ref(), ends: &ends });
                let Some(states) = states else { continue };
                folded += 1;
                let mut by_runs = function.create_groups_accumulator().unwrap();
                by_runs.merge_batch(&states, &groups, groups_count).unwrap();
                let mut by_rows = function.create_groups_accumulator().unwrap();
                by_rows.update_batch(&[Arc::clone(&column)], &of_rows, filter.as_ref(), groups_count).unwrap();
                let (by_runs, by_rows) = (by_runs.state(EmitTo::All).unwrap(), by_rows.state(EmitTo::All).unwrap());
                assert_eq!(format!("{by_runs:?}"), format!("{by_rows:?}"), "seed {seed}: {name} of {column:?}");
            }
        }
        assert!(folded > 3000, "{folded}");
    }
}
