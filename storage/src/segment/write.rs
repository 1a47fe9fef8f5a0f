//! Making a segment: rows of several commits in, one sorted, durable file out.

use super::blocks::BlockWriter;
use super::columns::{set_properties, store};
use super::packed_column::{ColumnPacker, packable};
use super::sort::sorted_rows;
use super::{PAGE_ROWS, ROW_GROUP_ROWS, SEQ_COLUMN, SegmentRecord, file_name, parquet_error, series};
use crate::error::{Result, StorageError};
use crate::vfs::Vfs;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat, max, min, take};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use proto::{ChunkId, ChunkLayout, ColumnId, CommitSeq};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// Rows of a column that are looked at before it gets a bloom filter, and values they must have.
const DIVERSE_SAMPLE_ROWS: usize = 4096;
const DIVERSE_VALUES_MIN: usize = 512;

/// Rows to seal. All batches have the same columns (ids and types), in the same order; at least one row in all.
pub(crate) struct SegmentRows {
    /// With the commit sequence of each row.
    pub(crate) batches: Vec<(Int64Array, RecordBatch)>,
    /// One per column.
    pub(crate) ids: Vec<ColumnId>,
    /// Smallest and largest time, when the layout has a time column.
    pub(crate) time: Option<(i64, i64)>,
}

/// The sequences of rows that were committed together.
pub(crate) fn same_seq(seq: CommitSeq, rows: usize) -> Int64Array {
    vec![seq.0 as i64; rows].into()
}

/// Writes a segment file, durable but for its name: the caller syncs the directory. Gives the former positions of its
/// rows, counted through all batches, in their new order; `None` when that is the order they had.
///
/// # Errors
/// The disk's. The file may then be there in part; nobody lists it.
pub(crate) fn write(
    vfs: &dyn Vfs,
    dir: &Path,
    chunk: ChunkId,
    number: u64,
    layout: &ChunkLayout,
    rows: SegmentRows,
) -> Result<(SegmentRecord, Option<UInt32Array>)> {
    let seqs = rows.batches.iter().flat_map(|(seqs, _)| min(seqs).into_iter().chain(max(seqs)));
    let (seq_min, seq_max) = seqs.fold((u64::MAX, 0), |(min, max), seq| (min.min(seq as u64), max.max(seq as u64)));
    let columns = rows.batches.iter().flat_map(|(_, batch)| batch.columns());
    let raw_bytes =
        columns.map(|column| column.to_data().get_slice_memory_size().map_or(0, |bytes| bytes as u64)).sum();
    let positions =
        layout.sort.iter().map(|id| rows.ids.iter().position(|other| other == id)).collect::<Option<Vec<_>>>();
    // A chunk whose batch lacks a sort column (it was added later) is not sorted: every row counts as NULL there.
    let positions = positions.unwrap_or_default();
    let sort = positions.iter().map(|position| rows.ids[*position]).collect::<Vec<_>>();
    let (rows_count, time) = (rows.batches.iter().map(|(_, batch)| batch.num_rows() as u64).sum(), rows.time);
    let (batch, order) = stored_batch(rows, &positions)?;

    let path = dir.join(file_name(chunk, number));
    let series_properties = properties(&batch.schema(), &[]).set_statistics_enabled(EnabledStatistics::None).build();
    let diverse = (0..batch.num_columns()).filter(|at| !positions.contains(at) && is_diverse(batch.column(*at)));
    let properties = diverse.fold(properties(&batch.schema(), &positions), |properties, at| {
        let path = || ColumnPath::new(vec![batch.schema().field(at).name().clone()]);
        let properties = properties.set_column_bloom_filter_enabled(path(), true);
        properties.set_column_bloom_filter_max_ndv(path(), ROW_GROUP_ROWS as u64)
    });
    let properties = properties.build();
    // Numbers are given again when an earlier try failed before the manifest listed it.
    if vfs.exists(&path).map_err(StorageError::io("look for", &path))? {
        vfs.remove(&path).map_err(StorageError::io("remove", &path))?;
    }
    let file = vfs.create(&path).map_err(StorageError::io("create", &path))?;
    let failed = |error| parquet_error(&path, error);
    let writer = ArrowWriter::try_new(BlockWriter::new(file), batch.schema(), Some(properties)).map_err(failed)?;
    let (mut writer, others) = writer.into_serialized_writer().map_err(failed)?;
    let mut packer = ColumnPacker::new().map_err(StorageError::io("compress", &path))?;
    for start in (0..batch.num_rows()).step_by(ROW_GROUP_ROWS) {
        let rows = batch.slice(start, ROW_GROUP_ROWS.min(batch.num_rows() - start));
        write_row_group(&mut writer, &others, &mut packer, &rows).map_err(failed)?;
    }
    let keys = match (layout.time, sort.split_last()) {
        (Some(time), Some((last, keys))) if *last == time => &positions[..keys.len()],
        _ => &[],
    };
    if let Some(directory) = series::write(&batch, keys, series_properties).map_err(failed)? {
        let offset = writer.bytes_written();
        writer.write_all(&directory).map_err(StorageError::io("write", &path))?;
        writer.append_key_value_metadata(series::note(offset, &directory));
    }
    writer.flush().map_err(StorageError::io("write", &path))?;
    let blocks = writer.inner_mut().end_body();
    writer.append_key_value_metadata(blocks);
    let writer = writer.into_inner().map_err(failed)?;
    let (bytes, tail_offset, tail_crc) = writer.finish().map_err(StorageError::io("write", &path))?;
    let rows = rows_count;
    let record = SegmentRecord { number, rows, bytes, raw_bytes, seq_min, seq_max, time, sort, tail_offset, tail_crc };
    Ok((record, order))
}

/// Integers in our packing, all other columns as the parquet crate writes them.
fn write_row_group(
    writer: &mut SerializedFileWriter<BlockWriter>,
    others: &ArrowRowGroupWriterFactory,
    packer: &mut ColumnPacker,
    rows: &RecordBatch,
) -> Result<(), ParquetError> {
    let leaves = writer.schema_descr().columns().to_vec();
    let mut leaves = leaves.iter().zip(others.create_column_writers(writer.flushed_row_groups().len())?);
    let mut next = || leaves.next().expect("every array has its leaves in the schema");
    let mut group = writer.next_row_group()?;
    for (field, array) in rows.schema().fields().iter().zip(rows.columns()) {
        if packable(field.data_type()) {
            let (bytes, close) = packer.column(next().0, array)?;
            group.append_column(&bytes, close)?;
            continue;
        }
        for leaf in compute_leaves(field, array)? {
            let (_, mut column) = next();
            column.write(&leaf)?;
            column.close()?.append_to_row_group(&mut group)?;
        }
    }
    group.close().map(drop)
}

/// All rows in one batch: sorted, in stored form, with `__seq`; and their order.
fn stored_batch(rows: SegmentRows, sort: &[usize]) -> Result<(RecordBatch, Option<UInt32Array>)> {
    let schema = rows.batches[0].1.schema();
    let whole = |column: usize| -> Result<ArrayRef> {
        let parts = rows.batches.iter().map(|(_, batch)| batch.column(column).as_ref()).collect::<Vec<_>>();
        Ok(if let [_] = parts[..] { Arc::clone(rows.batches[0].1.column(column)) } else { concat(&parts)? })
    };
    let keys = sort.iter().map(|column| whole(*column)).collect::<Result<Vec<_>>>()?;
    let order = sorted_rows(&keys)?;
    let ordered = |array: ArrayRef, order: &Option<UInt32Array>| -> Result<ArrayRef> {
        Ok(order.as_ref().map_or(Ok(Arc::clone(&array)), |order| take(&array, order, None))?)
    };
    let mut names = HashSet::from([SEQ_COLUMN.to_owned()]);
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (column, id) in rows.ids.iter().enumerate() {
        let (mut field, array) = store(schema.field(column), &ordered(whole(column)?, &order)?);
        // A column that some of the rows were written to when it could not be NULL may have lost that constraint since.
        field.set_nullable(rows.batches.iter().any(|(_, batch)| batch.schema_ref().field(column).is_nullable()));
        if !names.insert(field.name().clone()) {
            field.set_name(format!("{}#{id}", field.name()));
        }
        fields.push(field);
        arrays.push(array);
    }
    let seqs = rows.batches.iter().map(|(seqs, _)| seqs as &dyn Array).collect::<Vec<_>>();
    let seqs = concat(&seqs)?;
    fields.push(Field::new(SEQ_COLUMN, DataType::Int64, false));
    arrays.push(ordered(seqs, &order)?);
    Ok((RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?, order))
}

/// Whether a column of texts has so many values that statistics do not find one among them: a bloom filter does.
fn is_diverse(array: &ArrayRef) -> bool {
    let Some(texts) = array.as_string_opt::<i32>() else { return false };
    let sample = texts.len().min(DIVERSE_SAMPLE_ROWS);
    let distinct = texts.iter().take(sample).flatten().collect::<HashSet<_>>().len();
    distinct >= DIVERSE_VALUES_MIN && distinct * 2 > sample
}

fn properties(schema: &Schema, sort: &[usize]) -> WriterPropertiesBuilder {
    let sorted_by =
        |column: &usize| SortingColumn { column_idx: *column as i32, descending: false, nulls_first: false };
    let sorting = sort.iter().map(sorted_by).collect::<Vec<_>>();
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_created_by(concat!("seriatim ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting).filter(|columns| !columns.is_empty()));
    schema.fields().iter().fold(properties, |properties, field| set_properties(properties, field))
}
