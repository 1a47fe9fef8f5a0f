//! Output rows being made: each column's values by where they come from, then all of them at once as arrays.

use super::filler::Work;
use super::filling::{Filling, How};
use crate::functions::raise;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray, RecordBatch, UInt32Array,
    new_null_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, SchemaRef};
use datafusion::common::Result;
use proto::Error;
use std::sync::Arc;

/// Rows are named by their place in the `Work` they were made from.
pub struct Made {
    times: Vec<Option<i64>>,
    /// The input row; none in a gap.
    rows: Vec<Option<u32>>,
    /// A row of the same series.
    members: Vec<Option<u32>>,
    fills: Vec<Filled>,
}

/// The values of a filled column, one a row.
#[derive(Default)]
struct Filled {
    carried: Vec<Option<u32>>,
    marks: Vec<bool>,
    points: Vec<Point>,
}

/// A value of an interpolated column.
#[derive(Debug, Clone, Copy)]
pub enum Point {
    Row(u32),
    /// On the line between two rows.
    Between {
        before: u32,
        at: i64,
        after: u32,
    },
    Unknown,
}

impl Made {
    pub fn new(fills: usize) -> Made {
        let fills = (0..fills).map(|_| Filled::default()).collect();
        Made { times: Vec::new(), rows: Vec::new(), members: Vec::new(), fills }
    }

    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn row(&mut self, row: u32, time: Option<i64>) {
        self.times.push(time);
        self.rows.push(Some(row));
        self.members.push(Some(row));
    }

    pub fn gap(&mut self, bucket: i64, member: Option<u32>) {
        self.times.push(Some(bucket));
        self.rows.push(None);
        self.members.push(member);
    }

    pub fn carry(&mut self, fill: usize, from: Option<u32>, mark: bool) {
        self.fills[fill].carried.push(from);
        self.fills[fill].marks.push(mark);
    }

    pub fn point(&mut self, fill: usize, point: Point) {
        self.fills[fill].points.push(point);
    }

    /// `work` may be missing when there are no rows at all.
    pub fn batch(self, filling: &Filling, work: Option<&Work>, schema: &SchemaRef) -> Result<RecordBatch> {
        let marks = filling.fills.iter().filter(|fill| fill.mark("").is_some()).count();
        let inputs = schema.fields().len() - marks;
        let (rows, members) = (UInt32Array::from(self.rows), UInt32Array::from(self.members));
        let times = Int64Array::from(self.times);
        let mut columns = Vec::with_capacity(schema.fields().len());
        for index in 0..inputs {
            let ty = schema.field(index).data_type();
            let picked = |indices: &UInt32Array| -> Result<ArrayRef> {
                Ok(match work {
                    Some(work) => take(work.batch.column(index), indices, None)?,
                    None => new_null_array(ty, indices.len()),
                })
            };
            let fill = filling.fills.iter().zip(&self.fills).find(|(fill, _)| fill.column == index);
            columns.push(match fill {
                _ if index == filling.time => as_times(&times, ty)?,
                Some((fill, filled)) => match (fill.how, work) {
                    (How::Carry { .. }, _) => picked(&UInt32Array::from(filled.carried.clone()))?,
                    (How::Interpolate, Some(work)) => interpolated(work, index, &filled.points)?,
                    (How::Interpolate, None) => new_null_array(ty, times.len()),
                },
                None if filling.groups.contains(&index) => picked(&members)?,
                None => picked(&rows)?,
            });
        }
        for (fill, filled) in filling.fills.iter().zip(&self.fills) {
            if fill.mark("").is_some() {
                columns.push(Arc::new(BooleanArray::from(filled.marks.clone())));
            }
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

fn as_times(numbers: &Int64Array, ty: &DataType) -> Result<ArrayRef> {
    Ok(match ty {
        DataType::Date32 => cast(&cast(numbers, &DataType::Int32)?, ty)?,
        _ => cast(numbers, ty)?,
    })
}

fn interpolated(work: &Work, column: usize, points: &[Point]) -> Result<ArrayRef> {
    let (values, times) = (work.batch.column(column), &work.times);
    let numbers = Numbers { times, points };
    Ok(match values.data_type() {
        DataType::Int16 => numbers.between::<Int16Type>(values, whole),
        DataType::Int32 => numbers.between::<Int32Type>(values, whole),
        DataType::Int64 => numbers.between::<Int64Type>(values, whole),
        DataType::Float32 => numbers.between::<Float32Type>(values, |y0, y1, line| {
            let (done, left) = (line.done as f32, line.left as f32);
            Some((y0 * left + y1 * done) / (done + left))
        }),
        DataType::Float64 => numbers.between::<Float64Type>(values, |y0, y1, line| {
            let (done, left) = (line.done as f64, line.left as f64);
            Some((y0 * left + y1 * done) / (done + left))
        }),
        other => return Err(raise(Error::internal(format!("interpolation of {other}")))),
    })
}

/// Where on its way from one row's time to the next one's a bucket is.
#[derive(Clone, Copy)]
struct Line {
    done: i128,
    left: i128,
}

/// Integers are rounded as PostgreSQL rounds `numeric`: halves away from zero.
fn whole<N: Into<i64> + TryFrom<i128>>(y0: N, y1: N, line: Line) -> Option<N> {
    let (y0, y1): (i64, i64) = (y0.into(), y1.into());
    // Beyond any calendar, but not beyond bigint: without the last bits, which decide nothing there.
    let far = line.done + line.left > 1 << 62;
    let line = if far { Line { done: line.done >> 3, left: line.left >> 3 } } else { line };
    let length = line.done + line.left;
    let sum = i128::from(y0) * line.left + i128::from(y1) * line.done;
    N::try_from((2 * sum + sum.signum() * length) / (2 * length)).ok()
}

struct Numbers<'a> {
    times: &'a Int64Array,
    points: &'a [Point],
}

impl Numbers<'_> {
    fn between<T: ArrowPrimitiveType>(
        &self,
        values: &ArrayRef,
        line_at: impl Fn(T::Native, T::Native, Line) -> Option<T::Native>,
    ) -> ArrayRef {
        let values = values.as_primitive::<T>();
        let known = |row: u32| values.is_valid(row as usize).then(|| values.value(row as usize));
        let value = |point: &Point| match *point {
            Point::Row(row) => known(row),
            Point::Between { before, at, after } => {
                let time = |row: u32| i128::from(self.times.value(row as usize));
                let line = Line { done: i128::from(at) - time(before), left: time(after) - i128::from(at) };
                line_at(known(before)?, known(after)?, line)
            }
            Point::Unknown => None,
        };
        Arc::new(self.points.iter().map(value).collect::<PrimitiveArray<T>>())
    }
}
