//! The directory of a sorted segment: for each series (rows that agree in all sort columns but the time) where it ends,
//! and its last row. A reader of few series finds their rows without looking at the others; who wants the last point of
//! each finds them all in one place.
//!
//! It is a Parquet file of its own, put between the row groups and the page index of the segment, where Parquet readers
//! do not look; the footer's `seriatim.series` tells `offset,length`. Its rows are the last rows of the series, in
//! order, in the stored form of the segment; a further column, `__end`, counts the rows up to and with each.

use super::columns::{StoredColumn, restore};
use super::matching::matches;
use super::read::last_rows_of;
use super::{OpenSegment, READ_ROWS, SEQ, SegmentScan};
use crate::deletes::{Part, PartView};
use crate::error::StorageError;
use crate::projection::{Projection, ScanColumn};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{and, concat_batches, partition, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterProperties;
use proto::{ChunkId, ColumnId, ColumnPredicate, CommitSeq};
use std::ops::Range;
use std::sync::Arc;

const END_COLUMN: &str = "__end";
const SERIES_KEY: &str = "seriatim.series";
/// Series of fewer rows are not worth an entry each.
const SERIES_ROWS_MIN: usize = 16;

/// The directory of the rows of a segment, which are sorted by `keys` first; `None` when they have none, or when series
/// are too short.
pub(super) fn write(rows: &RecordBatch, keys: &[usize], properties: WriterProperties) -> Result<Option<Vec<u8>>> {
    if keys.is_empty() || rows.num_rows() == 0 {
        return Ok(None);
    }
    let columns = keys.iter().map(|key| Arc::clone(rows.column(*key))).collect::<Vec<_>>();
    let ends = partition(&columns)?.ranges().into_iter().map(|range| range.end).collect::<Vec<_>>();
    if ends.len() * SERIES_ROWS_MIN > rows.num_rows() {
        return Ok(None);
    }
    let last = ends.iter().map(|end| *end as u32 - 1).collect::<UInt32Array>();
    let last = take_record_batch(rows, &last)?;
    let mut fields = last.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(END_COLUMN, DataType::Int64, false)));
    let ends: ArrayRef = Arc::new(ends.iter().map(|end| *end as i64).collect::<Int64Array>());
    let arrays = last.columns().iter().cloned().chain([ends]).collect();
    let entries = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), entries.schema(), Some(properties))?;
    writer.write(&entries)?;
    writer.into_inner().map(Some)
}

/// Where the directory lies in the file.
pub(super) fn note(offset: usize, bytes: &[u8]) -> KeyValue {
    KeyValue::new(SERIES_KEY.to_owned(), format!("{offset},{}", bytes.len()))
}

/// The inverse of `note`; `None` when the segment has no directory.
pub(super) fn place(metadata: &ParquetMetaData) -> Option<Range<u64>> {
    let pairs = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let text = pairs.filter(|pair| pair.key == SERIES_KEY).find_map(|pair| pair.value.as_deref())?;
    let (offset, length) = text.split_once(',')?;
    let offset = offset.parse::<u64>().ok()?;
    Some(offset..offset.checked_add(length.parse::<u64>().ok()?)?)
}

/// The last rows of the series, in stored form.
pub(super) fn entries(bytes: Bytes) -> Result<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let schema = Arc::clone(reader.schema());
    let batches = reader.build()?.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// Whether the directory, if there is one, tells the truth about the rows. For `verify`; reads the whole segment.
///
/// # Errors
/// `Damaged` with the row that disagrees; the disk's.
pub(crate) fn check_series(segment: &Arc<OpenSegment>) -> Result<(), StorageError> {
    let Some(entries) = segment.last_rows()? else { return Ok(()) };
    let lie = |row: u64| {
        let reason = format!("the directory of series is wrong about row {row}");
        Err(StorageError::damaged(segment.path(), segment.record.tail_offset, reason))
    };
    let sort = &segment.record.sort;
    let series = Series::of(&entries, &sort[..sort.len() - 1], segment.record.rows);
    let ends = series.map_err(|error| super::parquet_error(segment.path(), error))?.ends;
    let columns = segment.columns.iter().map(|column| column.id.unwrap_or(SEQ));
    let columns = columns.filter_map(|id| Some(ScanColumn { id, field: segment.field(id)?, missing: None }));
    let projection = Projection::new(columns.collect());
    let view = PartView::whole(ChunkId(0), Part::segment(segment.record.number));
    let told = last_rows_of(segment, &entries, &projection)?;
    let keys = (0..projection.columns.len()).filter(|at| sort[..sort.len() - 1].contains(&projection.columns[*at].id));
    let keys = keys.collect::<Vec<_>>();
    let (mut rows, mut series) = (0, 0);
    for batch in SegmentScan::new(Arc::clone(segment), view, projection, &[], CommitSeq::MAX, READ_ROWS)? {
        let batch = batch?;
        let changes = partition(&keys.iter().map(|key| Arc::clone(batch.column(*key))).collect::<Vec<_>>())?.ranges();
        let last = batch.num_rows();
        for end in changes.into_iter().map(|range| range.end).filter(|end| *end < last) {
            if ends.values().binary_search(&((rows + end as u64) as i64)).is_err() {
                return lie(rows + end as u64);
            }
        }
        while series < ends.len() && ends.value(series) as u64 <= rows + last as u64 {
            let at = (ends.value(series) as u64 - 1 - rows) as usize;
            if batch.slice(at, 1) != told.slice(series, 1) {
                return lie(rows + at as u64);
            }
            series += 1;
        }
        rows += last as u64;
    }
    Ok(())
}

/// A directory in memory.
pub(super) struct Series {
    /// The keys of the series, as readers see them.
    keys: Vec<(ColumnId, ArrayRef)>,
    ends: Int64Array,
}

impl Series {
    /// # Errors
    /// For bytes that are no directory of `rows` rows.
    pub(super) fn read(bytes: Bytes, keys: &[ColumnId], rows: u64) -> Result<Series> {
        Series::of(&entries(bytes)?, keys, rows)
    }

    fn of(entries: &RecordBatch, keys: &[ColumnId], rows: u64) -> Result<Series> {
        let schema = entries.schema();
        let wrong = |reason: &str| ParquetError::General(format!("the directory of series {reason}"));
        let stored = schema.fields().iter().map(|field| StoredColumn::of(field)).collect::<Result<Vec<_>, String>>();
        let stored = stored.map_err(ParquetError::General)?;
        let key = |id: &ColumnId| {
            let at = stored.iter().position(|column| column.id == Some(*id)).ok_or_else(|| wrong("lacks a key"))?;
            Ok((*id, restore(stored[at].stored, Arc::clone(entries.column(at)))))
        };
        let keys = keys.iter().map(key).collect::<Result<Vec<_>>>()?;
        let ends = entries.column_by_name(END_COLUMN).ok_or_else(|| wrong("lacks its ends"))?;
        let ends = ends.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong("has ends of another type"))?.clone();
        let ascending = ends.values().windows(2).all(|pair| pair[0] < pair[1]);
        let whole = ends.values().last().is_some_and(|end| *end as u64 == rows) && ends.value(0) > 0;
        if !ascending || !whole {
            return Err(wrong("does not cover the rows"));
        }
        Ok(Series { keys, ends })
    }

    /// The rows of the series that may match, and the predicates, by their place, that all of these rows satisfy. `None`
    /// when no predicate is about the keys.
    pub(super) fn select(&self, predicates: &[ColumnPredicate]) -> Option<(Vec<Range<u32>>, Vec<usize>)> {
        let mut wanted: Option<BooleanArray> = None;
        let mut decided = Vec::new();
        for (at, predicate) in predicates.iter().enumerate() {
            let Some((_, keys)) = self.keys.iter().find(|(id, _)| *id == predicate.column) else { continue };
            let Some(found) = matches(&predicate.kind, keys) else { continue };
            wanted = Some(match &wanted {
                Some(wanted) => and(wanted, &found).expect("there is an answer for each series"),
                None => found,
            });
            decided.push(at);
        }
        let wanted = wanted?;
        let start = |series: usize| series.checked_sub(1).map_or(0, |before| self.ends.value(before) as u32);
        let runs = wanted.values().set_slices();
        let rows = runs.map(|(first, end)| start(first)..self.ends.value(end - 1) as u32).collect();
        Some((rows, decided))
    }
}
