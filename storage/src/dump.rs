//! A segment file as a page of text, for a human who wants to know what is in it and where its bytes go. Believes the
//! file: it looks at metadata only and checks no block (`verify` does).

use crate::error::{Result, StorageError};
use crate::vfs::{Vfs, read_all};
use bytes::Bytes;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use proto::data_node::FIELD_ID;
use std::fmt::Write;
use std::path::Path;

/// Rows, order, row groups, and for each column its id, types, encodings and bytes.
///
/// # Errors
/// The disk's; `Damaged` for a file that is no Parquet file.
pub fn dump_segment(vfs: &dyn Vfs, path: &Path) -> Result<String, StorageError> {
    let file = vfs.open(path).map_err(StorageError::io("open", path))?;
    let bytes = Bytes::from(read_all(file.as_ref()).map_err(StorageError::io("read", path))?);
    let damaged = |error: parquet::errors::ParquetError| StorageError::damaged(path, 0, error.to_string());
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes).map_err(damaged)?;
    let footer = metadata.file_metadata();
    let pairs = footer.key_value_metadata();
    let schema = parquet::arrow::parquet_to_arrow_schema(footer.schema_descr(), pairs).map_err(damaged)?;

    let name = |leaf: usize| footer.schema_descr().column(leaf).path().string();
    let sorting = metadata.row_groups().first().and_then(|group| group.sorting_columns());
    let sorted = sorting.into_iter().flatten().map(|column| name(column.column_idx as usize)).collect::<Vec<_>>();
    let mut text = String::new();
    let mut line = |words: String| writeln!(text, "{words}").expect("a string takes all text");
    line(format!("{} rows, {} bytes, by {}", footer.num_rows(), bytes.len(), footer.created_by().unwrap_or("?")));
    line(format!("sorted by: {}", if sorted.is_empty() { "nothing".to_owned() } else { sorted.join(", ") }));
    for (number, group) in metadata.row_groups().iter().enumerate() {
        line(format!("row group {number}: {} rows, {} bytes", group.num_rows(), group.compressed_size()));
    }
    line("column | field id | stored as | encodings | bytes | uncompressed".to_owned());
    for leaf in 0..footer.schema_descr().num_columns() {
        let field = schema.field(footer.schema_descr().get_column_root_idx(leaf));
        let id = field.metadata().get(FIELD_ID).map_or("-", |id| id.as_str());
        let (encodings, bytes, uncompressed) = column(&metadata, leaf);
        line(format!("{} | {id} | {} | {encodings} | {bytes} | {uncompressed}", name(leaf), field.data_type()));
    }
    Ok(text)
}

/// Encodings, bytes and uncompressed bytes of a column in all row groups.
fn column(metadata: &ParquetMetaData, leaf: usize) -> (String, i64, i64) {
    let (mut names, mut bytes, mut uncompressed) = (Vec::new(), 0, 0);
    for chunk in metadata.row_groups().iter().map(|group| group.column(leaf)) {
        names.extend(chunk.encodings().map(|encoding| encoding.to_string()));
        bytes += chunk.compressed_size();
        uncompressed += chunk.uncompressed_size();
    }
    names.sort();
    names.dedup();
    (names.join(" "), bytes, uncompressed)
}
