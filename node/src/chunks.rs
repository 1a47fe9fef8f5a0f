//! The store's chunks as the engine reads them.

use engine::plan::{ChunkRequest, ChunkRows, ChunkStore};
use proto::{ChunkId, ColumnId, CommitSeq, Error, Result, TxnId};
use std::sync::Arc;
use storage::{ChunkScan, ScanColumn, ScanRequest, Store};

pub(crate) struct Chunks(pub Arc<Store>);

impl ChunkStore for Chunks {
    fn scan(&self, request: ChunkRequest, pieces: usize) -> Result<Vec<ChunkRows>> {
        let ChunkRequest { chunk, snapshot, txn, columns, predicates, latest, batch_rows, tally } = request;
        let columns =
            columns.into_iter().map(|c| ScanColumn { id: c.id, field: c.field, missing: c.missing }).collect();
        let rows = self.0.scan(ScanRequest { chunk, snapshot, txn, columns, predicates, latest, batch_rows, tally })?;
        let piece = |rows: ChunkScan| Box::new(rows.map(|batch| batch.map_err(Error::from))) as ChunkRows;
        Ok(rows.pieces(pieces)?.into_iter().map(piece).collect())
    }

    fn time_bounds(
        &self,
        chunk: ChunkId,
        time: ColumnId,
        snapshot: CommitSeq,
        txn: Option<TxnId>,
    ) -> Option<(i64, i64)> {
        self.0.time_bounds(chunk, time, snapshot, txn)
    }
}
