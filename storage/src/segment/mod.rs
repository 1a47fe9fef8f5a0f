//! Sealed rows of one chunk: an immutable, sorted Parquet file that any Parquet reader can open.
//!
//! What is ours inside it (all else is plain Parquet):
//! - rows are sorted by the chunk's layout, NULLs last; row groups of `ROW_GROUP_ROWS`, pages of `PAGE_ROWS`, statistics
//!   for both, zstd,
//! - the last column, `__seq`, is the commit sequence of each row; readers skip rows younger than their snapshot, and
//!   do not even read the column when the whole segment is older,
//! - each Arrow field keeps its `PARQUET:field_id`; columns are found by it, never by name. `columns` tells how columns
//!   whose stored type differs (floats as decimals, intervals as bytes) say so,
//! - `packed_column` writes integers in Parquet's own packing, at widths that zstd compresses best,
//! - text columns of many values that rows are not sorted by have bloom filters,
//! - `series` puts a directory of the series between row groups and page index,
//! - `blocks` tells where the checksums are that every read is verified against.
//!
//! A segment is listed in the manifest by its [`SegmentRecord`]; a file nobody lists is not a segment.

mod blocks;
mod columns;
mod hybrid;
mod matching;
mod packed;
mod packed_column;
mod page;
mod pages;
mod prune;
mod read;
mod series;
mod sort;
mod statistics;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use columns::{comparable, storable};
pub(crate) use prune::Selection;
pub(crate) use read::{SegmentScan, last_rows, selected};
pub(crate) use series::check_series;
pub(crate) use sort::check_order;
pub(crate) use statistics::check_statistics;
pub(crate) use write::{SegmentRows, same_seq, write};

use crate::error::{Result, StorageError};
use crate::vfs::Vfs;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use blocks::VerifiedFile;
use bytes::Bytes;
use columns::StoredColumn;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use proto::{ChunkId, ColumnId, ColumnPredicate, ScanTally};
use serde::{Deserialize, Serialize};
use series::Series;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

/// Pages are found by their own index: row groups need not be small.
pub(crate) const ROW_GROUP_ROWS: usize = 256 << 10;
/// Rows that go through memory at once when a whole segment is read.
pub(crate) const READ_ROWS: usize = 64 << 10;
pub(crate) const PAGE_ROWS: usize = 8 << 10;
/// What a byte of metadata or directory becomes in memory, roughly.
const DECODED_FACTOR: u64 = 4;
pub(crate) const SEQ_COLUMN: &str = "__seq";

/// Names `__seq` in a projection. No table has the id.
pub(crate) const SEQ: ColumnId = ColumnId(ColumnId::CHUNK.0 - 1);

/// Columns that rows need to have in common to share a segment.
pub(crate) type Shape = Vec<(ColumnId, DataType)>;

/// How the manifest lists a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
    pub number: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Of the rows as Arrow arrays: what a merge has in memory.
    pub raw_bytes: u64,
    pub seq_min: u64,
    pub seq_max: u64,
    /// Smallest and largest value of the layout's time column, both included.
    pub time: Option<(i64, i64)>,
    /// The columns the rows are sorted by.
    pub sort: Vec<ColumnId>,
    /// Page index and Parquet footer begin here; before it is the body of blocks.
    pub tail_offset: u64,
    /// crc32c of everything from `tail_offset` on.
    pub tail_crc: u32,
}

impl SegmentRecord {
    pub fn file_name(&self, chunk: ChunkId) -> String {
        file_name(chunk, self.number)
    }
}

pub(crate) fn file_name(chunk: ChunkId, number: u64) -> String {
    format!("{chunk}-{number}.parquet")
}

/// A listed segment. Cheap to hold; the file is opened by the first reader.
pub(crate) struct Segment {
    pub(crate) record: SegmentRecord,
    path: PathBuf,
    opened: Mutex<Option<Arc<OpenSegment>>>,
}

/// The open file and its decoded metadata. Readers that hold it are not disturbed when the segment is dropped.
pub(crate) struct OpenSegment {
    pub(crate) record: SegmentRecord,
    file: VerifiedFile,
    metadata: ArrowReaderMetadata,
    /// In file order; `__seq` is the last.
    columns: Vec<StoredColumn>,
    /// The first row of each row group.
    group_starts: Vec<u32>,
    /// Read by the first who asks for a series.
    series: OnceLock<Arc<Series>>,
}

impl Segment {
    pub(crate) fn new(record: SegmentRecord, dir: &Path, chunk: ChunkId) -> Arc<Segment> {
        let path = dir.join(record.file_name(chunk));
        Arc::new(Segment { record, path, opened: Mutex::new(None) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn open(
        self: &Arc<Self>,
        vfs: &dyn Vfs,
        files: &OpenFiles,
        tally: &ScanTally,
    ) -> Result<Arc<OpenSegment>> {
        let mut opened = self.opened.lock();
        let tail_bytes = (self.record.bytes - self.record.tail_offset) as usize;
        if let Some(open) = opened.as_ref() {
            tally.bytes_remembered.add(tail_bytes);
            return Ok(Arc::clone(open));
        }
        tally.bytes_read.add(tail_bytes);
        let open = Arc::new(OpenSegment::open(vfs, &self.path, &self.record)?);
        *opened = Some(Arc::clone(&open));
        drop(opened);
        files.opened(self, open.weight());
        Ok(open)
    }
}

impl OpenSegment {
    pub(crate) fn open(vfs: &dyn Vfs, path: &Path, record: &SegmentRecord) -> Result<OpenSegment> {
        let (mut file, tail) = VerifiedFile::open(vfs, path, record)?;
        let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        let parsed = reader.try_parse(&tail).and_then(|()| reader.finish());
        let metadata = parsed.map_err(|error| parquet_error(path, error))?;
        file.set_block_crcs(&metadata)?;
        let pages = pages::check_index(&metadata);
        pages.map_err(|reason| StorageError::damaged(path, record.tail_offset, reason))?;
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new());
        let metadata = metadata.map_err(|error| parquet_error(path, error))?;
        let columns = metadata.schema().fields().iter().map(|field| StoredColumn::of(field));
        let columns = columns.collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|reason| StorageError::damaged(path, record.tail_offset, reason))?;
        let groups = metadata.metadata().row_groups().iter();
        let group_starts = groups.scan(0, |next, group| Some(std::mem::replace(next, *next + group.num_rows() as u32)));
        let group_starts = group_starts.collect();
        Ok(OpenSegment { record: record.clone(), file, metadata, columns, group_starts, series: OnceLock::new() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// A column's place in the file.
    fn root(&self, id: ColumnId) -> Option<usize> {
        match id {
            SEQ => Some(self.columns.len() - 1),
            id => self.columns.iter().position(|column| column.id == Some(id)),
        }
    }

    /// The column as readers see it.
    pub(crate) fn field(&self, id: ColumnId) -> Option<Field> {
        let at = self.root(id)?;
        let field = self.metadata.schema().field(at);
        Some(field.clone().with_data_type(columns::restored_type(self.columns[at].stored, field.data_type())))
    }

    /// Its columns but `__seq`, as readers see them.
    pub(crate) fn shape(&self) -> Shape {
        let columns = self.columns.iter().zip(self.metadata.schema().fields());
        let shape = columns
            .filter_map(|(column, field)| Some((column.id?, columns::restored_type(column.stored, field.data_type()))));
        shape.collect()
    }

    /// The directory of series, if there is one and a predicate is about their keys.
    fn series(&self, predicates: &[ColumnPredicate], tally: &ScanTally) -> Result<Option<Arc<Series>>> {
        let sort = &self.record.sort;
        let keys = &sort[..sort.len().saturating_sub(1)];
        if !predicates.iter().any(|predicate| keys.contains(&predicate.column)) {
            return Ok(None);
        }
        let Some(place) = series::place(self.parquet()) else { return Ok(None) };
        if let Some(series) = self.series.get() {
            tally.bytes_remembered.add((place.end - place.start) as usize);
            return Ok(Some(Arc::clone(series)));
        }
        let series = Series::read(self.directory(place, tally)?, keys, self.record.rows);
        let series = Arc::new(series.map_err(|error| parquet_error(self.path(), error))?);
        Ok(Some(Arc::clone(self.series.get_or_init(|| series))))
    }

    /// The last row of each series, as it is stored; `None` when there is no directory of them.
    fn last_rows(&self, tally: &ScanTally) -> Result<Option<RecordBatch>> {
        let Some(place) = series::place(self.parquet()) else { return Ok(None) };
        let entries = series::entries(self.directory(place, tally)?);
        Ok(Some(entries.map_err(|error| parquet_error(self.path(), error))?))
    }

    fn directory(&self, place: Range<u64>, tally: &ScanTally) -> Result<Bytes> {
        let bytes = self.file.read(place.clone())?;
        let blocks = self.file.blocks(&place);
        tally.bytes_read.add((blocks.end - blocks.start) as usize);
        Ok(bytes)
    }

    fn parquet(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// About the bytes that metadata, page index and directory take in memory once they are read.
    fn weight(&self) -> u64 {
        let directory = series::place(self.parquet()).map_or(0, |place| place.end - place.start);
        DECODED_FACTOR * (self.record.bytes - self.record.tail_offset + directory)
    }

    /// Reads every block.
    pub(crate) fn verify_blocks(&self) -> Result<()> {
        self.file.verify_blocks()
    }
}

/// Bounds the file handles that segments keep open between scans, and the memory of what was read of them; the first
/// opened is the first closed.
pub(crate) struct OpenFiles {
    max: usize,
    bytes_max: u64,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    segments: VecDeque<(Weak<Segment>, u64)>,
    bytes: u64,
}

impl OpenFiles {
    pub(crate) fn new(max: usize, bytes_max: u64) -> OpenFiles {
        OpenFiles { max, bytes_max, queue: Mutex::default() }
    }

    fn opened(&self, segment: &Arc<Segment>, weight: u64) {
        let mut closing = Vec::new();
        {
            let mut queue = self.queue.lock();
            queue.segments.push_back((Arc::downgrade(segment), weight));
            queue.bytes += weight;
            while queue.segments.len() > self.max || (queue.bytes > self.bytes_max && queue.segments.len() > 1) {
                let (oldest, weight) = queue.segments.pop_front().expect("more than there may be");
                queue.bytes -= weight;
                closing.extend(oldest.upgrade());
            }
        }
        for oldest in closing {
            *oldest.opened.lock() = None;
        }
    }
}

/// Finds our own error, or the disk's, inside what the parquet crate made of it.
fn parquet_error(path: &Path, error: ParquetError) -> StorageError {
    let boxed = match error {
        ParquetError::External(boxed) => boxed,
        other => return StorageError::damaged(path, 0, other.to_string()),
    };
    let boxed = match boxed.downcast::<StorageError>() {
        Ok(ours) => return *ours,
        Err(boxed) => boxed,
    };
    match boxed.downcast::<std::io::Error>() {
        Ok(source) => StorageError::io("access", path)(*source),
        Err(other) => StorageError::damaged(path, 0, other.to_string()),
    }
}
