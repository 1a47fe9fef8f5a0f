//! The group keys of a batch: which rows follow each other with equal keys, and the keys of each such run. Rows of one run
//! agree in every key; neighbouring runs may agree too, so that a comparison may err on the side of more runs.

use crate::functions::time_bucket::Buckets;
use crate::plan::error::hide;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, TimestampMicrosecondArray, UInt32Array,
    downcast_primitive_array,
};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::take;
use arrow::datatypes::{ArrowNativeTypeOp, DataType, Schema, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use std::sync::Arc;

/// Batches with shorter runs, on average, are better looked up row by row.
const RUN_ROWS_MIN: usize = 4;
/// Rows that are compared with their predecessors before anybody asks for the answer.
const BLOCK_ROWS: usize = 64;

/// The keys of a batch.
pub(super) struct Grouped {
    /// A row per run, or a row per row.
    pub keys: Vec<ArrayRef>,
    /// Where each run ends; `None` when every row stands for itself.
    pub ends: Option<Vec<u32>>,
}

/// How a key is had.
enum Key {
    Any(Arc<dyn PhysicalExpr>),
    /// `time_bucket` of a constant width: constant between two points in time, and need not be called for each row.
    Bucket {
        time: Arc<dyn PhysicalExpr>,
        buckets: Buckets,
        whole: Arc<dyn PhysicalExpr>,
        data_type: DataType,
    },
}

pub(super) struct Keys(Vec<Key>);

impl Keys {
    pub fn new(keys: impl IntoIterator<Item = Arc<dyn PhysicalExpr>>, input: &Schema) -> Keys {
        Keys(keys.into_iter().map(|expr| bucket(&expr, input).unwrap_or(Key::Any(expr))).collect())
    }

    pub fn group(&self, batch: &RecordBatch) -> Result<Grouped> {
        let inputs = self.0.iter().map(|key| {
            let (Key::Any(expr) | Key::Bucket { time: expr, .. }) = key;
            expr.evaluate(batch)?.into_array(batch.num_rows())
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        match self.runs(&inputs, batch.num_rows())? {
            Some(grouped) => Ok(grouped),
            None => Ok(Grouped { keys: self.values(batch)?, ends: None }),
        }
    }

    /// The keys of each row.
    pub fn values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let exprs = self.0.iter().map(|key| match key {
            Key::Any(expr) | Key::Bucket { whole: expr, .. } => expr,
        });
        exprs.map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
    }

    /// `None` when there are too many.
    fn runs(&self, inputs: &[ArrayRef], rows: usize) -> Result<Option<Grouped>> {
        let mut ends = vec![rows as u32];
        for (key, input) in self.0.iter().zip(inputs) {
            if let Key::Any(_) = key {
                ends = split(input, &ends);
            }
            if ends.len() * RUN_ROWS_MIN > rows {
                return Ok(None);
            }
        }
        for (key, input) in self.0.iter().zip(inputs) {
            let Key::Bucket { buckets, .. } = key else { continue };
            let times = input.as_primitive::<TimestampMicrosecondType>();
            if times.null_count() > 0 {
                return Ok(None);
            }
            ends = split_buckets(times.values(), buckets, &ends)?;
            if ends.len() * RUN_ROWS_MIN > rows {
                return Ok(None);
            }
        }
        let first = UInt32Array::from_iter_values([0].into_iter().chain(ends.iter().copied()).take(ends.len()));
        let keys = self.0.iter().zip(inputs).map(|(key, input)| {
            let firsts = take(input, &first, None)?;
            let Key::Bucket { buckets, data_type, .. } = key else { return Ok(firsts) };
            let starts = firsts.as_primitive::<TimestampMicrosecondType>();
            let starts: TimestampMicrosecondArray =
                starts.try_unary(|us| buckets.around(us).map(|(start, _)| start).map_err(hide))?;
            Ok(Arc::new(starts.with_data_type(data_type.clone())) as ArrayRef)
        });
        Ok(Some(Grouped { keys: keys.collect::<Result<_>>()?, ends: Some(ends) }))
    }
}

fn bucket(expr: &Arc<dyn PhysicalExpr>, input: &Schema) -> Option<Key> {
    let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
    let ("time_bucket", [width, time]) = (call.fun().name(), call.args()) else { return None };
    let buckets = Buckets::new(width.downcast_ref::<Literal>()?.value())?;
    let data_type = time.data_type(input).ok()?;
    let timestamps = matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _));
    (timestamps && *call.return_type() == data_type).then(|| Key::Bucket {
        time: Arc::clone(time),
        buckets,
        whole: Arc::clone(expr),
        data_type,
    })
}

/// Runs of equal values within the runs that end at `ends`.
fn split(array: &ArrayRef, ends: &[u32]) -> Vec<u32> {
    if array.null_count() > 0 {
        return split_any(array, ends);
    }
    downcast_primitive_array!(
        array => split_primitive(array, ends),
        DataType::Utf8 => {
            let texts = array.as_string::<i32>();
            let (offsets, bytes) = (texts.value_offsets(), texts.value_data());
            let block = |from, to| same_texts(offsets, bytes, from, to);
            split_by(ends, block, |row| texts.value(row) == texts.value(row - 1))
        }
        _ => split_any(array, ends)
    )
}

fn split_primitive<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, ends: &[u32]) -> Vec<u32> {
    let values = array.values();
    let block = |from: usize, to: usize| {
        let before = &values[from - 1..to - 1];
        before.iter().zip(&values[from..to]).fold(true, |same, (a, b)| same & a.is_eq(*b))
    };
    split_by(ends, block, |row| values[row].is_eq(values[row - 1]))
}

/// Whether the texts `from - 1..to` are all the same: they are as long as each other, and the bytes repeat.
fn same_texts(offsets: &[i32], bytes: &[u8], from: usize, to: usize) -> bool {
    let offsets = &offsets[from - 1..=to];
    let length = offsets[1] - offsets[0];
    let regular = offsets.iter().zip(&offsets[1..]).fold(true, |regular, (a, b)| regular & (b - a == length));
    let bytes = &bytes[offsets[0] as usize..offsets[offsets.len() - 1] as usize];
    regular && bytes[length as usize..] == bytes[..bytes.len() - length as usize]
}

/// `block(from, to)`: is each of these rows like the one before it? `row`: is this one?
fn split_by(ends: &[u32], block: impl Fn(usize, usize) -> bool, row: impl Fn(usize) -> bool) -> Vec<u32> {
    let (mut split, mut start) = (Vec::with_capacity(ends.len()), 0);
    for end in ends.iter().map(|end| *end as usize) {
        let mut at = start + 1;
        while at < end {
            let next = (at + BLOCK_ROWS).min(end);
            if !block(at, next) {
                split.extend((at..next).filter(|at| !row(*at)).map(|at| at as u32));
            }
            at = next;
        }
        split.push(end as u32);
        start = end;
    }
    split
}

/// Any type, with NULLs.
fn split_any(array: &ArrayRef, ends: &[u32]) -> Vec<u32> {
    let rows = array.len();
    let last = ends.last().copied().unwrap_or(0);
    if rows < 2 {
        return ends.to_vec();
    }
    match distinct(&array.slice(1, rows - 1), &array.slice(0, rows - 1)) {
        Ok(changes) => {
            let mut split = changes.values().set_indices().map(|row| row as u32 + 1).collect::<Vec<_>>();
            split.extend(ends);
            split.sort_unstable();
            split.dedup();
            split
        }
        // Nested values: every row for itself.
        Err(_) => (1..=last).collect(),
    }
}

fn split_buckets(times: &[i64], buckets: &Buckets, ends: &[u32]) -> Result<Vec<u32>> {
    let (mut split, mut at) = (Vec::with_capacity(ends.len()), 0);
    for end in ends.iter().map(|end| *end as usize) {
        while at < end {
            let (first, last) = buckets.around(times[at]).map_err(hide)?;
            at += within(&times[at..end], first, last);
            split.push(at as u32);
        }
    }
    Ok(split)
}

/// How many of the first `times` lie in `first..=last`.
fn within(times: &[i64], first: i64, last: i64) -> usize {
    let inside = |us: &i64| first <= *us && *us <= last;
    for (number, block) in times.chunks(BLOCK_ROWS).enumerate() {
        if !block.iter().fold(true, |all, us| all & inside(us)) {
            let outside = block.iter().position(|us| !inside(us)).expect("the block has one");
            return number * BLOCK_ROWS + outside;
        }
    }
    times.len()
}
