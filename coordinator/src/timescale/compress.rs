//! `compress_chunk` and its kin. Chunks are columnar anyway: to compress one is to sort and seal its rows now and to note
//! that it was done, to decompress one is to forget the note.
//!
//! The order is that of the hypertable's settings as they are now: what is sealed in another is written again.
//!
//! Sealing is no part of the transaction: after ROLLBACK the rows stay sealed, and the chunk counts as not compressed.

use super::chunks::qualified;
use super::host::Host;
use super::signature::{Bound, Function, may, need, rows, scalar};
use crate::catalog::CatalogChange;
use crate::pg::backend::Notice;
use crate::pgcatalog::{Row, Value};
use engine::{ChunkDef, Compression, Hypertable, PgType, TableDef};
use proto::{Error, NodeName, Result, SqlState};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const FUNCTIONS: &[Function] = &[
    scalar(
        "compress_chunk",
        &[need("uncompressed_chunk", "regclass"), may("if_not_compressed", "boolean", "true")],
        &[("compress_chunk", PgType::Regclass)],
    ),
    scalar(
        "decompress_chunk",
        &[need("uncompressed_chunk", "regclass"), may("if_compressed", "boolean", "true")],
        &[("decompress_chunk", PgType::Regclass)],
    ),
    rows(
        "hypertable_compression_stats",
        &[need("hypertable", "regclass")],
        &[
            ("total_chunks", PgType::Int8),
            ("number_compressed_chunks", PgType::Int8),
            ("before_compression_table_bytes", PgType::Int8),
            ("before_compression_index_bytes", PgType::Int8),
            ("before_compression_toast_bytes", PgType::Int8),
            ("before_compression_total_bytes", PgType::Int8),
            ("after_compression_table_bytes", PgType::Int8),
            ("after_compression_index_bytes", PgType::Int8),
            ("after_compression_toast_bytes", PgType::Int8),
            ("after_compression_total_bytes", PgType::Int8),
            ("node_name", PgType::Name),
        ],
    ),
    rows(
        "chunk_compression_stats",
        &[need("hypertable", "regclass")],
        &[
            ("chunk_schema", PgType::Name),
            ("chunk_name", PgType::Name),
            ("compression_status", PgType::Text),
            ("before_compression_table_bytes", PgType::Int8),
            ("before_compression_index_bytes", PgType::Int8),
            ("before_compression_toast_bytes", PgType::Int8),
            ("before_compression_total_bytes", PgType::Int8),
            ("after_compression_table_bytes", PgType::Int8),
            ("after_compression_index_bytes", PgType::Int8),
            ("after_compression_toast_bytes", PgType::Int8),
            ("after_compression_total_bytes", PgType::Int8),
            ("node_name", PgType::Name),
        ],
    ),
];

/// A chunk that is compressed already is sealed again: rows may have come since, or the order is another.
pub fn compress(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (table, hypertable, chunk) = host.chunk(args.text("uncompressed_chunk"))?;
    host.check_owner(&table)?;
    check_enabled(&table, &hypertable)?;
    let name = chunk.name(&hypertable);
    if chunk.compressed {
        let message = format!("chunk \"{name}\" is already compressed");
        if !args.bool("if_not_compressed", true) {
            return Err(Error::new(SqlState::DUPLICATE_OBJECT, message));
        }
        host.notice(Notice::notice(message));
    }
    seal(host, &table, &chunk)?;
    Ok(vec![vec![Value::text(qualified(&hypertable, &chunk))]])
}

/// Seals the chunk on its nodes, then marks it.
pub(super) fn seal(host: &mut Host<'_>, table: &TableDef, chunk: &ChunkDef) -> Result<()> {
    for name in &chunk.nodes {
        let node = host.session.cluster().nodes().get(name)?;
        host.wait(node.seal_chunks(vec![chunk.id], table.layout()))?;
    }
    match chunk.compressed {
        true => Ok(()),
        false => host.change(CatalogChange::MarkChunk { table: table.id, chunk: chunk.id, compressed: true }),
    }
}

/// The rows stay where they are.
pub fn decompress(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (table, hypertable, chunk) = host.chunk(args.text("uncompressed_chunk"))?;
    host.check_owner(&table)?;
    check_enabled(&table, &hypertable)?;
    if !chunk.compressed {
        let message = format!("chunk \"{}\" is not compressed", chunk.name(&hypertable));
        if !args.bool("if_compressed", true) {
            return Err(Error::new(SqlState::DUPLICATE_OBJECT, message));
        }
        host.notice(Notice::notice(message));
        return Ok(vec![vec![Value::Null]]);
    }
    host.change(CatalogChange::MarkChunk { table: table.id, chunk: chunk.id, compressed: false })?;
    Ok(vec![vec![Value::text(qualified(&hypertable, &chunk))]])
}

fn check_enabled<'a>(table: &TableDef, hypertable: &'a Hypertable) -> Result<&'a Compression> {
    hypertable.compression.as_ref().ok_or_else(|| {
        let message = format!("compression not enabled on \"{}\"", table.name);
        Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .detail(
                "It is not possible to compress chunks on a hypertable or continuous aggregate that does not have \
                 compression enabled.",
            )
            .hint("Enable compression using ALTER TABLE/MATERIALIZED VIEW with the timescaledb.compress option.")
    })
}

/// What a node reports of compressed chunks.
#[derive(Clone, Copy, Default)]
struct Sizes {
    /// What the rows take in memory: they are on disk in no other form than the compressed one.
    before: u64,
    after: u64,
}

impl Sizes {
    fn of(host: &Host<'_>, chunk: &ChunkDef) -> Sizes {
        let stats = host.system.stats().get(&chunk.id);
        stats.map_or(Sizes::default(), |stats| Sizes { before: stats.raw_bytes, after: stats.disk_bytes })
    }

    fn plus(self, other: Sizes) -> Sizes {
        Sizes { before: self.before + other.before, after: self.after + other.after }
    }
}

/// Table, index, TOAST and total, before and after; neither has an index or TOAST.
fn columns(sizes: Option<Sizes>) -> Vec<Value> {
    let number = |bytes: u64| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
    let four = |bytes: u64| [number(bytes), number(0), number(0), number(bytes)];
    match sizes {
        Some(Sizes { before, after }) => four(before).into_iter().chain(four(after)).collect(),
        None => vec![Value::Null; 8],
    }
}

type Chunks = Vec<Arc<ChunkDef>>;

/// Nothing of a hypertable without compression, as in TimescaleDB.
fn chunks_of(host: &mut Host<'_>, args: &Bound<'_>) -> Result<(Hypertable, Chunks)> {
    let (table, hypertable) = host.hypertable(args.text("hypertable"))?;
    let chunks = match hypertable.compression {
        Some(_) => host.catalog().chunks(table.id).iter().cloned().collect(),
        None => Vec::new(),
    };
    Ok((hypertable, chunks))
}

fn node_name(hypertable: &Hypertable, node: &NodeName) -> Value {
    if hypertable.distributed { Value::text(node.as_str()) } else { Value::Null }
}

pub fn hypertable_stats(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (hypertable, chunks) = chunks_of(host, args)?;
    // Chunks, compressed ones, the sizes of these.
    let mut nodes: BTreeMap<&NodeName, (i64, i64, Sizes)> = BTreeMap::new();
    for chunk in &chunks {
        let sizes = if chunk.compressed { Sizes::of(host, chunk) } else { Sizes::default() };
        for node in &chunk.nodes {
            let of_node = nodes.entry(node).or_default();
            *of_node = (of_node.0 + 1, of_node.1 + i64::from(chunk.compressed), of_node.2.plus(sizes));
        }
    }
    let rows = nodes.into_iter().map(|(node, (total, compressed, sizes))| {
        let counts = [Value::Int(total), Value::Int(compressed)];
        let sizes = columns((compressed > 0).then_some(sizes));
        counts.into_iter().chain(sizes).chain([node_name(&hypertable, node)]).collect()
    });
    Ok(rows.collect())
}

pub fn chunk_stats(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (hypertable, chunks) = chunks_of(host, args)?;
    let mut rows = Vec::new();
    for chunk in &chunks {
        let status = if chunk.compressed { "Compressed" } else { "Uncompressed" };
        let sizes = chunk.compressed.then(|| Sizes::of(host, chunk));
        for node in &chunk.nodes {
            let names =
                [Value::text(&hypertable.chunk_schema), Value::text(chunk.name(&hypertable)), Value::text(status)];
            rows.push(names.into_iter().chain(columns(sizes)).chain([node_name(&hypertable, node)]).collect());
        }
    }
    Ok(rows)
}
