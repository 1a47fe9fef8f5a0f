//! A column of integers as the pages of one row group, ready to be spliced into a Parquet file: what the parquet crate
//! would write, but packed as `packed` chooses and compressed for symbols instead of repetitions.

use super::PAGE_ROWS;
use super::hybrid::encode_validity;
use super::packed::{Packing, encode};
use arrow::array::{Array, ArrayRef};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use std::io;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, Strategy};

/// Short repetitions cost more than the symbols they replace.
const MATCH_BYTES_MIN: u32 = 7;
/// How many repetitions are looked for: hardly any, because differences of measurements do not repeat; or many.
const HASH_LOG_SYMBOLS: u32 = 6;
const HASH_LOG_REPETITIONS: u32 = 13;

/// Packs columns one after another, with the same compressors.
pub(super) struct ColumnPacker {
    symbols: Compressor<'static>,
    repetitions: Compressor<'static>,
}

/// How the pages of a column are written.
#[derive(Debug, Clone, Copy)]
struct Manner {
    packing: Packing,
    repeats: bool,
}

const MANNERS: [Manner; 3] = [
    Manner { packing: Packing::Bytes, repeats: false },
    Manner { packing: Packing::Bytes, repeats: true },
    Manner { packing: Packing::Bits, repeats: true },
];

/// Whether a column of the stored type can be packed.
pub(super) fn packable(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Int8 | Int16 | Int32 | Int64 | Date32 | Time64(_) | Timestamp(..) => true,
        // Narrower ones are kept in 32 bits, or in bytes.
        Decimal64(precision, _) => *precision > 9,
        _ => false,
    }
}

/// What the pages of one column add up to.
struct Pages {
    bytes: Vec<u8>,
    uncompressed: usize,
    range: Option<(i64, i64)>,
    nulls: usize,
    column_index: ColumnIndexBuilder,
    offset_index: OffsetIndexBuilder,
}

impl ColumnPacker {
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new() -> io::Result<ColumnPacker> {
        let compressor = |hash_log| -> io::Result<Compressor<'static>> {
            let mut compressor = Compressor::new(1)?;
            compressor.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
            compressor.set_parameter(CParameter::MinMatch(MATCH_BYTES_MIN))?;
            compressor.set_parameter(CParameter::HashLog(hash_log))?;
            Ok(compressor)
        };
        Ok(ColumnPacker { symbols: compressor(HASH_LOG_SYMBOLS)?, repetitions: compressor(HASH_LOG_REPETITIONS)? })
    }

    /// The rows of one row group.
    pub(super) fn column(
        &mut self,
        description: &ColumnDescPtr,
        array: &ArrayRef,
    ) -> Result<(Bytes, ColumnCloseResult)> {
        let narrow = description.physical_type() == Type::INT32;
        let mut pages = Pages {
            bytes: Vec::new(),
            uncompressed: 0,
            range: None,
            nulls: 0,
            column_index: ColumnIndexBuilder::new(description.physical_type()),
            offset_index: OffsetIndexBuilder::new(),
        };
        let mut manner = None;
        for start in (0..array.len()).step_by(PAGE_ROWS) {
            let rows = array.slice(start, PAGE_ROWS.min(array.len() - start));
            let values = integers(&rows);
            let manner = match manner {
                Some(manner) => manner,
                None => *manner.insert(self.best_manner(&values, narrow)?),
            };
            let page = self.pack(&values, narrow, manner)?;
            add_page(&mut pages, description, &rows, &values, page)?;
        }
        let statistics = match pages.range {
            _ if narrow => {
                let range = pages.range.map(|(min, max)| (min as i32, max as i32));
                Statistics::int32(range.map(|r| r.0), range.map(|r| r.1), None, Some(pages.nulls as u64), false)
            }
            range => Statistics::int64(range.map(|r| r.0), range.map(|r| r.1), None, Some(pages.nulls as u64), false),
        };
        let metadata = ColumnChunkMetaData::builder(description.clone())
            .set_encodings(vec![Encoding::RLE, Encoding::DELTA_BINARY_PACKED])
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_num_values(array.len() as i64)
            .set_total_compressed_size(pages.bytes.len() as i64)
            .set_total_uncompressed_size(pages.uncompressed as i64)
            .set_data_page_offset(0)
            .set_statistics(statistics)
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: pages.bytes.len() as u64,
            rows_written: array.len() as u64,
            metadata,
            bloom_filter: None,
            column_index: Some(pages.column_index.build()?),
            offset_index: Some(pages.offset_index.build()),
        };
        Ok((pages.bytes.into(), close))
    }

    /// The one that takes the fewest bytes for these values.
    fn best_manner(&mut self, values: &[i64], narrow: bool) -> Result<Manner> {
        let mut best = (usize::MAX, MANNERS[0]);
        for manner in MANNERS {
            let bytes = self.pack(values, narrow, manner)?.bytes.len();
            if bytes < best.0 {
                best = (bytes, manner);
            }
        }
        Ok(best.1)
    }

    fn pack(&mut self, values: &[i64], narrow: bool, manner: Manner) -> Result<PackedValues> {
        let mut packed = Vec::new();
        encode(values, narrow, manner.packing, &mut packed);
        let compressor = if manner.repeats { &mut self.repetitions } else { &mut self.symbols };
        let external = |error| ParquetError::External(Box::new(error));
        let compressed = compressor.compress(&packed).map_err(external)?;
        let uncompressed = packed.len();
        let is_compressed = compressed.len() < uncompressed;
        Ok(PackedValues { bytes: if is_compressed { compressed } else { packed }, uncompressed, is_compressed })
    }
}

struct PackedValues {
    bytes: Vec<u8>,
    uncompressed: usize,
    is_compressed: bool,
}

fn add_page(
    pages: &mut Pages,
    description: &ColumnDescPtr,
    rows: &ArrayRef,
    values: &[i64],
    packed: PackedValues,
) -> Result<()> {
    let mut buffer = Vec::new();
    if description.max_def_level() > 0 {
        let all = || BooleanBuffer::new_set(rows.len());
        encode_validity(&rows.nulls().map_or_else(all, |nulls| nulls.inner().clone()), &mut buffer);
    }
    let (levels, uncompressed) = (buffer.len(), buffer.len() + packed.uncompressed);
    buffer.extend_from_slice(&packed.bytes);
    let page = Page::DataPageV2 {
        buf: buffer.into(),
        num_values: rows.len() as u32,
        encoding: Encoding::DELTA_BINARY_PACKED,
        num_nulls: rows.null_count() as u32,
        num_rows: rows.len() as u32,
        def_levels_byte_len: levels as u32,
        rep_levels_byte_len: 0,
        is_compressed: packed.is_compressed,
        statistics: None,
    };
    let offset = pages.bytes.len();
    let mut sink = TrackedWrite::new(&mut pages.bytes);
    let written = SerializedPageWriter::new(&mut sink).write_page(CompressedPage::new(page, uncompressed))?;
    sink.into_inner()?;
    pages.uncompressed += written.uncompressed_size;
    pages.nulls += rows.null_count();
    pages.offset_index.append_offset_and_size(offset as i64, written.compressed_size as i32);
    pages.offset_index.append_row_count(rows.len() as i64);
    let range = values.iter().min().zip(values.iter().max()).map(|(min, max)| (*min, *max));
    let bytes = |value: i64| match description.physical_type() {
        Type::INT32 => (value as i32).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    let (min, max) = range.map_or_else(Default::default, |(min, max)| (bytes(min), bytes(max)));
    pages.column_index.append(range.is_none(), min, max, rows.null_count() as i64);
    pages.range = match (pages.range, range) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (one, other) => one.or(other),
    };
    Ok(())
}

/// The values that are there.
fn integers(array: &ArrayRef) -> Vec<i64> {
    let data = array.to_data();
    let (buffer, range) = (&data.buffers()[0], data.offset()..data.offset() + data.len());
    let all = match array.data_type().primitive_width() {
        Some(1) => buffer.typed_data::<i8>()[range].iter().map(|value| i64::from(*value)).collect::<Vec<_>>(),
        Some(2) => buffer.typed_data::<i16>()[range].iter().map(|value| i64::from(*value)).collect(),
        Some(4) => buffer.typed_data::<i32>()[range].iter().map(|value| i64::from(*value)).collect(),
        _ => buffer.typed_data::<i64>()[range].to_vec(),
    };
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => all,
        Some(nulls) => nulls.valid_indices().map(|at| all[at]).collect(),
    }
}
