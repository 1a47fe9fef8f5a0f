//! Checksums of a segment file.
//!
//! ```text
//! 0            block of 64 KiB | block | … | last, shorter block      the row groups, the directory of series
//! tail_offset  page index | Parquet footer                            checked as one, crc32c in the manifest
//! ```
//! The footer's key-value metadata holds `seriatim.blocks`: the crc32c of each block, eight hexadecimal digits each.
//! So nothing is read that is not covered: the manifest vouches for the tail, the tail for the blocks.

use super::SegmentRecord;
use crate::error::{Result, StorageError};
use crate::vfs::{Vfs, VfsFile};
use bytes::{Buf, Bytes};
use crc32c::{crc32c, crc32c_append};
use parking_lot::Mutex;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};
use proto::ScanTally;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BLOCK_BYTES: u64 = 64 << 10;
const BLOCKS_KEY: &str = "seriatim.blocks";
const WRITE_BYTES: usize = 256 << 10;
/// Read at once by who reads a column from end to end; a page by itself takes the blocks it lies in.
const AHEAD_BYTES: u64 = 8 * BLOCK_BYTES;
/// Ranges a scan keeps; it reads its columns side by side, so this is a number of columns.
const CACHED_RANGES_MAX: usize = 64;

/// Appends to the file and sums what passes.
pub(super) struct BlockWriter {
    file: Arc<dyn VfsFile>,
    pending: Vec<u8>,
    bytes: u64,
    block_crcs: Vec<u32>,
    /// Of the block that is not full yet, or of the tail.
    crc: u32,
    tail_offset: Option<u64>,
}

impl BlockWriter {
    pub(super) fn new(file: Arc<dyn VfsFile>) -> BlockWriter {
        let pending = Vec::with_capacity(WRITE_BYTES);
        BlockWriter { file, pending, bytes: 0, block_crcs: Vec::new(), crc: 0, tail_offset: None }
    }

    /// All row groups are written; the rest is the tail. The metadata that vouches for the blocks.
    pub(super) fn end_body(&mut self) -> KeyValue {
        assert!(self.tail_offset.is_none(), "the body ends once");
        if !self.bytes.is_multiple_of(BLOCK_BYTES) {
            self.block_crcs.push(self.crc);
        }
        self.crc = 0;
        self.tail_offset = Some(self.bytes);
        let hex = self.block_crcs.iter().map(|crc| format!("{crc:08x}")).collect::<String>();
        KeyValue::new(BLOCKS_KEY.to_owned(), hex)
    }

    /// `(file length, tail offset, tail checksum)` after everything was written and made durable.
    pub(super) fn finish(mut self) -> io::Result<(u64, u64, u32)> {
        self.write_pending()?;
        self.file.sync()?;
        Ok((self.bytes, self.tail_offset.expect("end_body comes first"), self.crc))
    }

    fn write_pending(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.append(&[&self.pending])?;
            self.pending.clear();
        }
        Ok(())
    }

    fn sum(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = match self.tail_offset {
                Some(_) => bytes.len(),
                None => bytes.len().min((BLOCK_BYTES - self.bytes % BLOCK_BYTES) as usize),
            };
            self.crc = crc32c_append(self.crc, &bytes[..room]);
            self.bytes += room as u64;
            bytes = &bytes[room..];
            if self.tail_offset.is_none() && self.bytes.is_multiple_of(BLOCK_BYTES) {
                self.block_crcs.push(std::mem::take(&mut self.crc));
            }
        }
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sum(bytes);
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= WRITE_BYTES {
            self.write_pending()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An open segment file of which every byte handed out was verified.
pub(super) struct VerifiedFile {
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    tail_offset: u64,
    block_crcs: Vec<u32>,
    /// Byte ranges of the column chunks, ascending.
    column_chunks: Vec<Range<u64>>,
}

/// The verified end of a file, for the parser of Parquet metadata, which asks for nothing else.
pub(super) struct Tail {
    offset: u64,
    bytes: Bytes,
}

impl VerifiedFile {
    /// Blocks can be read after `set_block_crcs`.
    pub(super) fn open(vfs: &dyn Vfs, path: &Path, record: &SegmentRecord) -> Result<(VerifiedFile, Tail)> {
        let file = vfs.open(path).map_err(StorageError::io("open", path))?;
        let bytes = file.len().map_err(StorageError::io("measure", path))?;
        if bytes != record.bytes || record.tail_offset > bytes {
            return Err(StorageError::damaged(path, bytes, format!("the file should have {} bytes", record.bytes)));
        }
        let mut tail = vec![0; (bytes - record.tail_offset) as usize];
        file.read_at(record.tail_offset, &mut tail).map_err(StorageError::io("read", path))?;
        if crc32c(&tail) != record.tail_crc {
            return Err(StorageError::damaged(path, record.tail_offset, "the footer's checksum is wrong"));
        }
        let tail_offset = record.tail_offset;
        let verified = VerifiedFile {
            path: path.to_owned(),
            file,
            tail_offset,
            block_crcs: Vec::new(),
            column_chunks: Vec::new(),
        };
        Ok((verified, Tail { offset: tail_offset, bytes: tail.into() }))
    }

    pub(super) fn set_block_crcs(&mut self, metadata: &ParquetMetaData) -> Result<()> {
        let pairs = metadata.file_metadata().key_value_metadata().into_iter().flatten();
        let hex = pairs.filter(|pair| pair.key == BLOCKS_KEY).find_map(|pair| pair.value.as_deref()).unwrap_or("");
        let crcs = hex
            .as_bytes()
            .chunks(8)
            .map(|digits| std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, 16).ok()));
        self.block_crcs = crcs.collect::<Option<Vec<_>>>().unwrap_or_default();
        if self.block_crcs.len() as u64 != self.tail_offset.div_ceil(BLOCK_BYTES) {
            return Err(StorageError::damaged(&self.path, self.tail_offset, "the list of block checksums is wrong"));
        }
        let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
        let mut ranges =
            columns.map(|column| column.byte_range()).map(|(start, len)| start..start + len).collect::<Vec<_>>();
        ranges.sort_by_key(|range| range.start);
        self.column_chunks = ranges;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn verify_blocks(&self) -> Result<()> {
        let piece = BLOCK_BYTES * 64;
        (0..self.tail_offset.div_ceil(piece))
            .try_for_each(|i| self.read(i * piece..(i * piece + piece).min(self.tail_offset)).map(drop))
    }

    /// The blocks around `range` of the body: what is read for it.
    pub(super) fn blocks(&self, range: &Range<u64>) -> Range<u64> {
        let end = (range.end.div_ceil(BLOCK_BYTES) * BLOCK_BYTES).min(self.tail_offset);
        range.start / BLOCK_BYTES * BLOCK_BYTES..end
    }

    /// Reads and verifies the blocks around `range` of the body.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.tail_offset {
            return Err(StorageError::damaged(&self.path, range.start, "a reference points outside of the file"));
        }
        let first = range.start / BLOCK_BYTES;
        let whole = self.blocks(&range);
        let mut bytes = vec![0; (whole.end.saturating_sub(whole.start)) as usize];
        self.file.read_at(whole.start, &mut bytes).map_err(StorageError::io("read", &self.path))?;
        for (block, index) in bytes.chunks(BLOCK_BYTES as usize).zip(first..) {
            if crc32c(block) != self.block_crcs[index as usize] {
                return Err(StorageError::damaged(&self.path, index * BLOCK_BYTES, "the block's checksum is wrong"));
            }
        }
        let bytes = Bytes::from(bytes);
        Ok(bytes.slice((range.start - whole.start) as usize..(range.end - whole.start) as usize))
    }

    /// What to read when `start` is asked for: the column chunk around it.
    fn column_chunk(&self, start: u64) -> Option<Range<u64>> {
        let after = self.column_chunks.partition_point(|range| range.start <= start);
        let range = self.column_chunks.get(after.checked_sub(1)?)?;
        range.contains(&start).then(|| range.clone())
    }
}

/// One scan's view of a segment file: what the parquet crate reads from.
pub(super) struct BlockReader {
    segment: Arc<super::OpenSegment>,
    cached: Mutex<VecDeque<(Range<u64>, Bytes)>>,
    /// The parquet crate turns errors into text; here is the original.
    failure: Arc<Mutex<Option<StorageError>>>,
    pub(super) tally: Arc<ScanTally>,
}

impl BlockReader {
    pub(super) fn new(segment: Arc<super::OpenSegment>, tally: Arc<ScanTally>) -> BlockReader {
        BlockReader { segment, cached: Mutex::default(), failure: Arc::default(), tally }
    }

    /// Another one on the same segment, whose errors `failure` finds as well.
    pub(super) fn another(&self) -> BlockReader {
        let (failure, tally) = (Arc::clone(&self.failure), Arc::clone(&self.tally));
        BlockReader { segment: Arc::clone(&self.segment), cached: Mutex::default(), failure, tally }
    }

    /// What was the matter when the parquet crate met an error.
    pub(super) fn failure(&self, error: ParquetError) -> StorageError {
        self.failure.lock().take().unwrap_or_else(|| super::parquet_error(self.segment.path(), error))
    }

    fn load(&self, range: Range<u64>) -> ParquetResult<Bytes> {
        let within = |whole: &Range<u64>| whole.start <= range.start && range.end <= whole.end;
        let cut = |whole: &Range<u64>, bytes: &Bytes| {
            bytes.slice((range.start - whole.start) as usize..(range.end - whole.start) as usize)
        };
        let mut cached = self.cached.lock();
        if let Some((whole, bytes)) = cached.iter().find(|(whole, _)| within(whole)) {
            return Ok(cut(whole, bytes));
        }
        let file = &self.segment.file;
        let before = cached.iter().position(|(whole, _)| whole.start <= range.start && range.start <= whole.end);
        let ahead = match (before, file.column_chunk(range.start)) {
            (Some(_), Some(column)) => column.end.min(range.start + AHEAD_BYTES),
            _ => range.end,
        };
        let end = range.end.max(ahead).next_multiple_of(BLOCK_BYTES).min(file.tail_offset).max(range.end);
        let whole = range.start / BLOCK_BYTES * BLOCK_BYTES..end;
        let bytes = file.read(whole.clone()).map_err(|error| {
            let text = error.to_string();
            self.failure.lock().get_or_insert(error);
            ParquetError::General(text)
        })?;
        self.tally.bytes_read.add(bytes.len());
        if let Some(before) = before {
            cached.remove(before);
        } else if cached.len() == CACHED_RANGES_MAX {
            cached.pop_front();
        }
        let part = cut(&whole, &bytes);
        cached.push_back((whole, bytes));
        Ok(part)
    }
}

impl Length for BlockReader {
    fn len(&self) -> u64 {
        self.segment.record.bytes
    }
}

impl ChunkReader for BlockReader {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let end = self.segment.file.column_chunk(start).map_or(start, |range| range.end);
        Ok(self.load(start..end)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.load(start..start + length as u64)
    }
}

impl Length for Tail {
    fn len(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl Tail {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let start = start.checked_sub(self.offset).map(|start| start as usize).filter(|at| *at <= self.bytes.len());
        let outside = || ParquetError::EOF("metadata outside of the segment's tail".to_owned());
        start.map(|start| self.bytes.slice(start..)).ok_or_else(outside)
    }
}

impl ChunkReader for Tail {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.from(start)?;
        match length <= bytes.len() {
            true => Ok(bytes.slice(..length)),
            false => Err(ParquetError::EOF("metadata reaches beyond the end of the segment".to_owned())),
        }
    }
}
