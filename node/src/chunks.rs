//! The store's chunks as the engine reads them.

use engine::plan::{ChunkRequest, ChunkRows, ChunkStore};
use proto::{Error, Result};
use std::sync::Arc;
use storage::{ScanColumn, ScanRequest, Store};

pub(crate) struct Chunks(pub Arc<Store>);

impl ChunkStore for Chunks {
    fn scan(&self, request: ChunkRequest) -> Result<ChunkRows> {
        let ChunkRequest { chunk, snapshot, txn, columns, predicates, latest, batch_rows } = request;
        let columns =
            columns.into_iter().map(|c| ScanColumn { id: c.id, field: c.field, missing: c.missing }).collect();
        let rows = self.0.scan(ScanRequest { chunk, snapshot, txn, columns, predicates, latest, batch_rows })?;
        Ok(Box::new(rows.map(|batch| batch.map_err(Error::from))))
    }
}
