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
use proto::{ChunkId, ColumnId, ColumnPredicate, CommitSeq, ScanTally};
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
    let Some(entries) = segment.last_rows(&ScanTally::default())? else { return Ok(()) };
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
        // The next batch goes on with the series of the last row, or begins with another one.
        let ended = series > 0 && ends.value(series - 1) as u64 == rows;
        let key_of = |rows: &RecordBatch, row| Ok::<_, StorageError>(rows.project(&keys)?.slice(row, 1));
        let goes_on = series < ends.len() && key_of(&batch, last - 1)? == key_of(&told, series)?;
        if !ended && !goes_on {
            return lie(rows - 1);
        }
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
        // By its place: a column of the table may have its name.
        let ends = entries.columns().last().ok_or_else(|| wrong("lacks its ends"))?;
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

#[cfg(test)]
mod tests {
    use super::super::blocks::BlockWriter;
    use super::super::{SegmentRecord, SegmentRows, check_statistics, same_seq};
    use super::*;
    use crate::log::Lsn;
    use crate::manifest::{ChunkRecord, Manifest};
    use crate::store::SEGMENTS_DIR;
    use crate::vfs::{SimVfs, Vfs};
    use arrow::array::{Array, StringArray, TimestampMicrosecondArray};
    use parquet::file::metadata::{
        FileMetaData, PageIndexPolicy, ParquetMetaDataBuilder, ParquetMetaDataReader, ParquetMetaDataWriter,
    };
    use parquet::file::writer::TrackedWrite;
    use proto::data_node::FIELD_ID;
    use proto::{ChunkLayout, PredicateKind, Scalar, TableId};
    use std::io::Write;
    use std::path::{Path, PathBuf};

    const CHUNK: ChunkId = ChunkId(7);
    /// Rows of each host. The second ends where a reader of the whole segment ends a batch.
    const HOSTS: [(&str, usize); 4] = [("a", 100), ("b", READ_ROWS - 100), ("c", 50), ("d", 70)];

    fn layout() -> ChunkLayout {
        let sort = vec![ColumnId(1), ColumnId(2)];
        ChunkLayout { table: TableId(1), sort, time: Some(ColumnId(2)), keys: Vec::new() }
    }

    /// Columns: 1 host, 2 time, 3 number, of that name.
    fn sealed(vfs: &SimVfs, name: &str) -> (SegmentRecord, PathBuf) {
        let dir = Path::new("/node").join(SEGMENTS_DIR);
        vfs.create_dir(Path::new("/node")).unwrap();
        vfs.create_dir(&dir).unwrap();
        let hosts = HOSTS.iter().flat_map(|(host, rows)| std::iter::repeat_n(*host, *rows));
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(hosts.map(Some).collect::<StringArray>()),
            Arc::new(
                HOSTS.iter().flat_map(|(_, rows)| 0..*rows as i64).map(Some).collect::<TimestampMicrosecondArray>(),
            ),
            Arc::new((0..READ_ROWS as i64 + 120).map(Some).collect::<Int64Array>()),
        ];
        let fields = arrays.iter().zip(["host", "time", name]).zip(1..).map(|((array, name), id)| {
            Field::new(name, array.data_type().clone(), true)
                .with_metadata([(FIELD_ID.to_owned(), format!("{id}"))].into())
        });
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), arrays).unwrap();
        let ids = (1..=3).map(ColumnId).collect();
        let batches = vec![(same_seq(CommitSeq(5), batch.num_rows()), batch)];
        let rows = SegmentRows { batches, ids, time: Some((0, READ_ROWS as i64)) };
        let (record, _) = super::super::write(vfs, &dir, CHUNK, 1, &layout(), rows).unwrap();
        let path = dir.join(record.file_name(CHUNK));
        (record, path)
    }

    /// The same segment with another directory, and checksums to match.
    fn with_directory(
        vfs: &SimVfs,
        (record, path): &(SegmentRecord, PathBuf),
        change: impl FnOnce(RecordBatch) -> RecordBatch,
    ) -> SegmentRecord {
        let bytes = Bytes::from(vfs.contents(path).unwrap());
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        let metadata = reader.parse_and_finish(&bytes).unwrap();
        let place = place(&metadata).unwrap();
        assert_eq!(place.end, record.tail_offset);
        let told = change(entries(bytes.slice(place.start as usize..place.end as usize)).unwrap());
        let mut directory = ArrowWriter::try_new(Vec::new(), told.schema(), None).unwrap();
        directory.write(&told).unwrap();
        let directory = directory.into_inner().unwrap();

        vfs.remove(path).unwrap();
        let mut file = BlockWriter::new(vfs.create(path).unwrap());
        let mut tracked = TrackedWrite::new(&mut file);
        tracked.write_all(&bytes[..place.start as usize]).unwrap();
        tracked.write_all(&directory).unwrap();
        tracked.flush().unwrap();
        let changed = [note(place.start as usize, &directory), tracked.inner_mut().end_body()];
        let footer = metadata.file_metadata();
        let pairs = footer.key_value_metadata().unwrap().iter();
        let pairs = pairs.filter(|pair| changed.iter().all(|other| other.key != pair.key)).cloned();
        let footer = FileMetaData::new(
            footer.version(),
            footer.num_rows(),
            footer.created_by().map(str::to_owned),
            Some(pairs.chain(changed.clone()).collect()),
            footer.schema_descr_ptr(),
            footer.column_orders().cloned(),
        );
        let mut parts = metadata.into_builder();
        let metadata = ParquetMetaDataBuilder::new(footer)
            .set_row_groups(parts.take_row_groups())
            .set_column_index(parts.take_column_index())
            .set_offset_index(parts.take_offset_index())
            .build();
        ParquetMetaDataWriter::new_with_tracked(tracked, &metadata).finish().unwrap();
        let (bytes, tail_offset, tail_crc) = file.finish().unwrap();
        SegmentRecord { bytes, tail_offset, tail_crc, ..record.clone() }
    }

    /// What is said of a segment whose directory was changed, by the check and by `verify` alike.
    fn told_of(change: impl FnOnce(RecordBatch) -> RecordBatch) -> Option<String> {
        let vfs = SimVfs::new(1);
        let sealed = sealed(&vfs, "number");
        let record = with_directory(&vfs, &sealed, change);
        let path = &sealed.1;
        let segment = Arc::new(OpenSegment::open(&vfs, path, &record).unwrap());
        segment.verify_blocks().unwrap();
        check_statistics(&segment).unwrap();
        let told = check_series(&segment).err().map(|error| error.to_string());

        let mut manifest = Manifest::new(1);
        let chunk = ChunkRecord {
            layout: layout(),
            sealed_before: Lsn(0),
            segments: vec![record],
            deletes: None,
            horizon: CommitSeq::ZERO,
        };
        manifest.chunks.insert(CHUNK, chunk);
        manifest.save(&vfs, Path::new("/node")).unwrap();
        let problems = crate::verify(&vfs, Path::new("/node"));
        let problems = problems.into_iter().filter(|problem| problem.path == *path).collect::<Vec<_>>();
        assert_eq!(problems.first().map(|problem| problem.message.clone()), told);
        told
    }

    /// The entries with another value in a column.
    fn with_value(entries: RecordBatch, column: usize, change: impl FnOnce(&ArrayRef) -> ArrayRef) -> RecordBatch {
        let mut columns = entries.columns().to_vec();
        columns[column] = change(&columns[column]);
        RecordBatch::try_new(entries.schema(), columns).unwrap()
    }

    fn with_end(entries: RecordBatch, series: usize, by: i64) -> RecordBatch {
        let last = entries.num_columns() - 1;
        with_value(entries, last, |ends| {
            let mut ends = ends.as_primitive::<Int64Type>().values().to_vec();
            ends[series] += by;
            Arc::new(Int64Array::from(ends))
        })
    }

    fn without(entries: RecordBatch, series: u32) -> RecordBatch {
        let kept = (0..HOSTS.len() as u32).filter(|at| *at != series).collect::<UInt32Array>();
        take_record_batch(&entries, &kept).unwrap()
    }

    #[test]
    fn a_directory_that_lies_is_named_with_the_row() {
        assert_eq!(told_of(|entries| entries), None);
        let lie = |told: Option<String>, row: usize| {
            let told = told.expect("the lie is found");
            let row = format!("the directory of series is wrong about row {row}");
            assert!(told.contains("7-1.parquet") && told.ends_with(&row), "{told} instead of: {row}");
        };
        let number = |entries| with_value(entries, 2, |_| Arc::new(Int64Array::from(vec![99, 65_535, 65_585, 0])));
        lie(told_of(number), READ_ROWS + 119);
        let host = |entries| with_value(entries, 0, |_| Arc::new(StringArray::from(vec!["a", "b", "x", "d"])));
        lie(told_of(host), READ_ROWS + 49);
        lie(told_of(|entries| with_end(entries, 0, -1)), 100);
        lie(told_of(|entries| with_end(entries, 2, 1)), READ_ROWS + 50);
        lie(told_of(|entries| without(entries, 0)), 100);
        // Its rows end together with a batch of the reader.
        lie(told_of(|entries| without(entries, 1)), READ_ROWS - 1);
        for told in [told_of(|entries| with_end(entries, 3, 1)), told_of(|entries| without(entries, 3))] {
            let told = told.expect("the lie is found");
            assert!(told.contains("7-1.parquet") && told.contains("does not cover the rows"), "{told}");
        }
    }

    #[test]
    fn a_column_may_be_named_as_the_directory_names_its_own() {
        let vfs = SimVfs::new(1);
        let (record, path) = sealed(&vfs, END_COLUMN);
        let segment = Arc::new(OpenSegment::open(&vfs, &path, &record).unwrap());
        check_series(&segment).unwrap();
        let kind = PredicateKind::OneOf(vec![Scalar::Text("c".to_owned())]);
        let predicates = [ColumnPredicate { column: ColumnId(1), kind }];
        let series = segment.series(&predicates, &ScanTally::default()).unwrap().unwrap();
        let start = READ_ROWS as u32;
        let (rows, decided) = series.select(&predicates).unwrap();
        assert_eq!((rows.len(), &rows[0], decided), (1, &(start..start + 50), vec![0]));
    }
}
