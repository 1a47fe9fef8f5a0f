//! Routed rows as what a node takes: bodies of bounded size, several chunks of one node together.

use arrow::array::{Array, RecordBatch};
use bytes::Bytes;
use engine::ChunkDef;
use proto::ipc::encode_body;
use proto::{ChunkLayout, ChunkWrite, Error, MESSAGE_BYTES_MAX, NodeName, Result, SqlState, WriteKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows in one `stage` call, as columns. Large enough that a call's cost vanishes, small enough that a few of them on
/// their way do not fill memory.
const BLOCK_BYTES: usize = 8 << 20;

/// What is left of a message for one body beside its frame.
const BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (1 << 20);

pub(crate) struct Block {
    pub(crate) node: NodeName,
    pub(crate) writes: Vec<ChunkWrite>,
}

/// # Errors
/// 54000 for a single row that no message can carry.
pub(crate) fn blocks(layout: &ChunkLayout, routed: Vec<(Arc<ChunkDef>, RecordBatch)>) -> Result<Vec<Block>> {
    let mut done = Vec::new();
    let mut open: BTreeMap<NodeName, (Vec<ChunkWrite>, usize)> = BTreeMap::new();
    for (chunk, rows) in routed {
        for piece in pieces(&rows) {
            let body = checked_body(encode_body(&piece)?)?;
            for node in &chunk.nodes {
                let (writes, bytes) = open.entry(node.clone()).or_default();
                if *bytes + body.len() > BLOCK_BYTES && !writes.is_empty() {
                    done.push(Block { node: node.clone(), writes: std::mem::take(writes) });
                    *bytes = 0;
                }
                writes.push(ChunkWrite {
                    chunk: chunk.id,
                    layout: layout.clone(),
                    kind: WriteKind::Insert,
                    body: body.clone(),
                });
                *bytes += body.len();
            }
        }
    }
    done.extend(open.into_iter().map(|(node, (writes, _))| Block { node, writes }));
    Ok(done)
}

/// # Errors
/// 54000 for a body that no message can carry.
pub(super) fn checked_body(body: Bytes) -> Result<Bytes> {
    match body.len() > BODY_BYTES_MAX {
        true => {
            let text = format!("row is too big: {} bytes, maximum {BODY_BYTES_MAX} bytes", body.len());
            Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, text))
        }
        false => Ok(body),
    }
}

/// The rows cut so that each piece is about a block at most, or a single row.
fn pieces(rows: &RecordBatch) -> Vec<RecordBatch> {
    let bytes = slice_bytes(rows);
    if bytes <= BLOCK_BYTES || rows.num_rows() < 2 {
        return vec![rows.clone()];
    }
    let (first, second) = (rows.num_rows() / 2, rows.num_rows() - rows.num_rows() / 2);
    let mut halves = pieces(&rows.slice(0, first));
    halves.extend(pieces(&rows.slice(first, second)));
    halves
}

fn slice_bytes(rows: &RecordBatch) -> usize {
    let of_column = |column: &Arc<dyn Array>| column.to_data().get_slice_memory_size();
    rows.columns().iter().map(|column| of_column(column).unwrap_or_else(|_| column.get_array_memory_size())).sum()
}
