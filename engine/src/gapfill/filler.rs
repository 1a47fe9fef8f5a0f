//! Sorted rows in, rows with their gaps filled out; without I/O. A batch of output is made when asked for: what is kept
//! is the batch being read, and of rows before it the few that later gaps look back at.

use super::filling::{Filling, How};
use super::grid::Starts;
use super::made::{Made, Point};
use crate::functions::raise;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::common::Result;
use std::iter::Peekable;
use std::sync::Arc;

pub struct Filler {
    filling: Arc<Filling>,
    /// Of every series.
    starts: Starts,
    schema: SchemaRef,
    rows_max: usize,
    converter: RowConverter,
    work: Option<Work>,
    series: Option<Series>,
    input_ended: bool,
    any_series: bool,
}

/// The rows being read; those before `at` are history.
pub struct Work {
    pub batch: RecordBatch,
    pub times: Int64Array,
    keys: Rows,
    at: usize,
}

/// The group that rows are being made for.
struct Series {
    key: Option<OwnedRow>,
    /// One of its rows, which has its keys; none in a series without rows.
    member: Option<u32>,
    /// The last row that came.
    row: Option<u32>,
    buckets: Peekable<Starts>,
    /// By fill: the row whose value goes on.
    carried: Vec<Option<u32>>,
}

impl Series {
    /// The next bucket that has no row, if it is due before `time`.
    fn gap_before(&mut self, time: i64, finish: i64) -> Option<i64> {
        self.buckets.next_if(|bucket| *bucket < time && *bucket < finish)
    }
}

impl Filler {
    /// `input` and `schema` are what comes in and what goes out.
    ///
    /// # Errors
    /// When the zone is unknown here, or group keys cannot be compared.
    pub fn new(filling: Arc<Filling>, input: &SchemaRef, schema: SchemaRef, rows_max: usize) -> Result<Filler> {
        let zone = filling.grid.zone().map_err(raise)?;
        let starts = filling.grid.starts(filling.start, zone).map_err(raise)?;
        let fields = filling.groups.iter().map(|key| SortField::new(input.field(*key).data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        let (work, series) = (None, None);
        let rows_max = rows_max.max(1);
        Ok(Filler { filling, starts, schema, rows_max, converter, work, series, input_ended: false, any_series: false })
    }

    /// Takes the next rows, once `next_batch` has none left.
    ///
    /// # Errors
    /// When rows are not of the input's schema.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let (batch, at) = match (self.work.take(), &mut self.series) {
            (Some(work), Some(series)) => {
                let history = series.moved();
                let kept = take_record_batch(&work.batch, &UInt32Array::from(history))?;
                (concat_batches(batch.schema_ref(), [&kept, batch])?, kept.num_rows())
            }
            _ => (batch.clone(), 0),
        };
        let keys: Vec<ArrayRef> = self.filling.groups.iter().map(|key| Arc::clone(batch.column(*key))).collect();
        let keys = match keys.is_empty() {
            true => self.converter.empty_rows(0, 0),
            false => self.converter.convert_columns(&keys)?,
        };
        let times = as_numbers(batch.column(self.filling.time))?;
        self.work = Some(Work { batch, times, keys, at });
        Ok(())
    }

    /// No rows are to come.
    pub fn end(&mut self) {
        self.input_ended = true;
        // Without keys there is one series, rows or not.
        if self.filling.groups.is_empty() && !self.any_series {
            self.series = Some(self.series_of(None, None));
        }
    }

    /// All rows have been given out.
    pub fn is_done(&self) -> bool {
        self.input_ended && self.series.is_none()
    }

    /// The next rows, at most `rows_max`; `None` when it takes further input, or at the end.
    ///
    /// # Errors
    /// When a column cannot be filled as it is to be.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut made = Made::new(self.filling.fills.len());
        while made.len() < self.rows_max && self.step(&mut made) {}
        if made.len() == 0 {
            return Ok(None);
        }
        made.batch(&self.filling, self.work.as_ref(), &self.schema).map(Some)
    }

    /// Makes at most one row. `false` when there is nothing to go on with.
    fn step(&mut self, made: &mut Made) -> bool {
        let finish = self.filling.finish;
        let row = self.work.as_ref().and_then(Work::row);
        let Some(row) = row else {
            let Some(series) = self.series.as_mut().filter(|_| self.input_ended) else { return false };
            match series.gap_before(i64::MAX, finish) {
                Some(bucket) => gap(made, series, &self.filling, &self.starts, self.work.as_ref(), bucket, None),
                None => self.series = None,
            }
            return true;
        };
        let work = self.work.as_ref().expect("the row is one of its rows");
        let keyed = !self.filling.groups.is_empty();
        let same = self.series.as_ref().is_some_and(|series| match &series.key {
            Some(key) => key.row() == work.keys.row(row as usize),
            None => !keyed,
        });
        if !same {
            if let Some(series) = &mut self.series
                && let Some(bucket) = series.gap_before(i64::MAX, finish)
            {
                gap(made, series, &self.filling, &self.starts, Some(work), bucket, None);
                return true;
            }
            let key = keyed.then(|| work.keys.row(row as usize).owned());
            self.series = Some(self.series_of(key, Some(row)));
            self.any_series = true;
            return true;
        }
        let series = self.series.as_mut().expect("a row of it was found");
        let time = work.times.is_valid(row as usize).then(|| work.times.value(row as usize));
        // NULL comes last.
        if let Some(bucket) = series.gap_before(time.unwrap_or(i64::MAX), finish) {
            gap(made, series, &self.filling, &self.starts, Some(work), bucket, time.and(Some(row)));
            return true;
        }
        let _ = series.buckets.next_if(|bucket| Some(*bucket) == time);
        passed(made, series, &self.filling, work, row, time);
        self.work.as_mut().expect("the row is one of its rows").at += 1;
        true
    }

    fn series_of(&self, key: Option<OwnedRow>, member: Option<u32>) -> Series {
        let carried = vec![None; self.filling.fills.len()];
        Series { key, member, row: None, buckets: self.starts.clone().peekable(), carried }
    }
}

impl Work {
    fn row(&self) -> Option<u32> {
        (self.at < self.batch.num_rows()).then_some(self.at as u32)
    }

    fn is_null(&self, column: usize, row: u32) -> bool {
        self.batch.column(column).is_null(row as usize)
    }
}

impl Series {
    /// The rows it still looks at, which become the first ones of the next batch.
    fn moved(&mut self) -> Vec<u32> {
        let mut kept = Vec::new();
        let mut keep = |row: &mut Option<u32>| {
            if let Some(row) = row {
                kept.push(*row);
                *row = kept.len() as u32 - 1;
            }
        };
        keep(&mut self.member);
        keep(&mut self.row);
        self.carried.iter_mut().for_each(keep);
        kept
    }
}

/// A row for a bucket that has none; `next` is the row behind the gap.
fn gap(
    made: &mut Made,
    series: &mut Series,
    filling: &Filling,
    starts: &Starts,
    work: Option<&Work>,
    bucket: i64,
    next: Option<u32>,
) {
    made.gap(bucket, series.member);
    for (index, fill) in filling.fills.iter().enumerate() {
        match fill.how {
            How::Carry { marked, .. } => {
                let carried = &mut series.carried[index];
                // A NULL from before the start is no last value.
                let unknown = |row: u32| work.is_none_or(|work| work.is_null(fill.column, row));
                if marked && carried.is_some_and(unknown) && starts.is_first(bucket) {
                    *carried = None;
                }
                made.carry(index, *carried, carried.is_none());
            }
            How::Interpolate => made.point(
                index,
                match (series.row, next) {
                    (Some(before), Some(after)) => Point::Between { before, at: bucket, after },
                    _ => Point::Unknown,
                },
            ),
        }
    }
}

/// A row as it came, but for values that `locf` puts over NULL.
fn passed(made: &mut Made, series: &mut Series, filling: &Filling, work: &Work, row: u32, time: Option<i64>) {
    made.row(row, time);
    series.row = Some(row);
    for (index, fill) in filling.fills.iter().enumerate() {
        match fill.how {
            How::Carry { over_null: true, .. } if work.is_null(fill.column, row) => {
                let carried = series.carried[index];
                made.carry(index, carried, carried.is_none() && time.is_some_and(|time| time >= filling.start));
            }
            How::Carry { .. } => {
                series.carried[index] = Some(row);
                made.carry(index, Some(row), false);
            }
            How::Interpolate => made.point(index, Point::Row(row)),
        }
    }
}

/// Times in the units of their type.
fn as_numbers(times: &ArrayRef) -> Result<Int64Array> {
    let numbers = match times.data_type() {
        DataType::Date32 => cast(&cast(times, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(times, &DataType::Int64)?,
    };
    Ok(Int64Array::from(numbers.to_data()))
}
