//! How the engine reads chunks without knowing what a segment is. The node implements it over its store.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Field;
use proto::{ChunkId, ColumnId, ColumnPredicate, CommitSeq, Latest, Result, ScanTally, TxnId};
use std::sync::Arc;

/// One column to read.
#[derive(Debug, Clone)]
pub struct ScanColumn {
    pub id: ColumnId,
    /// The field the batches are to carry at this place.
    pub field: Field,
    /// The value (one row) of rows written before the column existed; `None` is NULL.
    pub missing: Option<ArrayRef>,
}

/// What one chunk is read for.
#[derive(Debug, Clone)]
pub struct ChunkRequest {
    pub chunk: ChunkId,
    pub snapshot: CommitSeq,
    pub txn: Option<TxnId>,
    pub columns: Vec<ScanColumn>,
    /// Hints, see `proto::predicate`.
    pub predicates: Vec<ColumnPredicate>,
    /// A hint too.
    pub latest: Option<Latest>,
    pub batch_rows: usize,
    /// Where to count what it takes.
    pub tally: Arc<ScanTally>,
}

pub type ChunkRows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Synchronous: the engine calls it on threads that may block, one batch at a time, and drops the iterator when it has
/// enough.
pub trait ChunkStore: Send + Sync + 'static {
    /// The chunk's rows visible at the snapshot, in any order, `columns` in their order. A chunk the store does not
    /// have is empty. They come in at least one and at most `pieces` parts, which may be read side by side.
    ///
    /// # Errors
    /// When the chunk cannot be read.
    fn scan(&self, request: ChunkRequest, pieces: usize) -> Result<Vec<ChunkRows>>;

    /// Between which times the rows lie that such a scan may return, both ends included; when there are none, the first is
    /// above the second. `None`: not known without reading. Cheap; does not wait for the disk.
    fn time_bounds(
        &self,
        chunk: ChunkId,
        time: ColumnId,
        snapshot: CommitSeq,
        txn: Option<TxnId>,
    ) -> Option<(i64, i64)>;
}
