//! What hypertables weigh: the bytes and rows their nodes report. Segments carry their own statistics, so indexes and
//! TOAST weigh nothing.

use super::host::Host;
use super::signature::Bound;
use crate::pg::backend::Notice;
use crate::pgcatalog::{Row, Value, size_pretty};
use crate::session::bytes_of;
use engine::ChunkDef;
use proto::{NodeName, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

fn chunk_bytes(host: &Host<'_>, chunk: &ChunkDef) -> u64 {
    host.system.stats().get(&chunk.id).map_or(0, bytes_of)
}

fn chunks_of(host: &mut Host<'_>, name: Option<&str>) -> Result<Vec<Arc<ChunkDef>>> {
    let table = host.table(name)?;
    Ok(host.catalog().chunks(table.id).iter().cloned().collect())
}

fn number(bytes: u64) -> Value {
    Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// table, index, toast, total.
fn four(bytes: u64) -> [Value; 4] {
    [number(bytes), number(0), number(0), number(bytes)]
}

pub fn hypertable(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let chunks = chunks_of(host, args.text("hypertable"))?;
    Ok(vec![vec![number(chunks.iter().map(|chunk| chunk_bytes(host, chunk)).sum())]])
}

pub fn index() -> Result<Vec<Row>> {
    Ok(vec![vec![number(0)]])
}

/// Bytes and chunks per node, every node of the hypertable included.
fn per_node(host: &mut Host<'_>, name: Option<&str>) -> Result<BTreeMap<NodeName, (u64, i64)>> {
    let (_, hypertable) = host.hypertable(name)?;
    let mut nodes: BTreeMap<NodeName, (u64, i64)> = BTreeMap::new();
    hypertable.data_nodes.into_iter().for_each(|node| nodes.extend([(node, (0, 0))]));
    for chunk in chunks_of(host, name)? {
        let bytes = chunk_bytes(host, &chunk);
        for node in &chunk.nodes {
            let own = nodes.entry(node.clone()).or_default();
            *own = (own.0 + bytes, own.1 + 1);
        }
    }
    Ok(nodes)
}

/// One row per node, and one with no node for the coordinator, which holds no rows.
pub fn detailed(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let nodes = per_node(host, args.text("hypertable"))?;
    let rows = nodes.into_iter().map(|(node, (bytes, _))| (bytes, Value::text(node.as_str())));
    let rows = rows.chain([(0, Value::Null)]);
    Ok(rows.map(|(bytes, node)| four(bytes).into_iter().chain([node]).collect()).collect())
}

/// The beta's form: sizes as text, NULL where there is nothing.
pub fn by_node(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let name = args.text("main_table");
    let table = host.table(name)?;
    if table.hypertable.as_ref().is_none_or(|hypertable| !hypertable.distributed) {
        let message = "calling hypertable_data_node_relation_size on a non-distributed hypertable";
        host.notice(Notice::notice(message));
        return Ok(Vec::new());
    }
    let pretty = |bytes: u64| match bytes {
        0 => Value::Null,
        bytes => Value::text(size_pretty(i64::try_from(bytes).unwrap_or(i64::MAX))),
    };
    let nodes = per_node(host, name)?.into_iter();
    Ok(nodes
        .map(|(node, (bytes, chunks))| {
            vec![Value::text(node.as_str()), Value::Int(chunks), pretty(bytes), Value::Null, Value::Null, pretty(bytes)]
        })
        .collect())
}

pub fn chunks(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let name = args.text("hypertable");
    let (_, hypertable) = host.hypertable(name)?;
    let mut rows = Vec::new();
    for chunk in chunks_of(host, name)? {
        let bytes = chunk_bytes(host, &chunk);
        for node in &chunk.nodes {
            let names = [Value::text(&hypertable.chunk_schema), Value::text(chunk.name(&hypertable))];
            rows.push(names.into_iter().chain(four(bytes)).chain([Value::text(node.as_str())]).collect());
        }
    }
    Ok(rows)
}

/// Exact as of the last commit each node has applied.
pub fn rows(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let chunks = chunks_of(host, args.text("relation"))?;
    let stats = host.system.stats();
    let rows = chunks.iter().filter_map(|chunk| stats.get(&chunk.id)).map(|stats| stats.rows).sum();
    Ok(vec![vec![number(rows)]])
}
