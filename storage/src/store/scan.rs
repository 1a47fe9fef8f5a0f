//! Reading a chunk at a snapshot: its segments, then its delta, then the reader's own staged rows.

use super::Store;
use super::state::Phase;
use crate::delta::DeltaRows;
use crate::error::{Result, StorageError};
use crate::projection::{Projection, ScanColumn};
use crate::segment::{OpenSegment, SegmentScan};
use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use proto::{ChunkId, ColumnPredicate, CommitSeq, TxnId};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct ScanRequest {
    pub chunk: ChunkId,
    /// Rows of commits up to and with this one are visible.
    pub snapshot: CommitSeq,
    /// The reader's own transaction: its staged rows are visible to it.
    pub txn: Option<TxnId>,
    /// May be empty: the batches then have rows and no columns.
    pub columns: Vec<ScanColumn>,
    /// Rows that fail one may be left out, or not.
    pub predicates: Vec<ColumnPredicate>,
    /// Largest batch returned.
    pub batch_rows: usize,
}

/// The rows of one chunk, in no order across batches. Holds what it reads: dropping the chunk does not disturb it.
pub struct ChunkScan {
    projection: Projection,
    predicates: Vec<ColumnPredicate>,
    snapshot: CommitSeq,
    batch_rows: usize,
    segments: VecDeque<Arc<OpenSegment>>,
    current: Option<SegmentScan>,
    delta: VecDeque<Arc<DeltaRows>>,
    /// Rows of the batch in work that were returned already.
    delta_offset: usize,
    small: Option<BatchCoalescer>,
}

impl Store {
    /// A chunk that got no rows yet has an empty scan.
    ///
    /// # Errors
    /// `ChunkDropped`; `InDoubt` while a transaction that was prepared before a restart touches the chunk; `Damaged`
    /// with the segment's name, here or from the scan.
    pub fn scan(&self, request: ScanRequest) -> Result<ChunkScan, StorageError> {
        assert!(request.batch_rows > 0, "a batch has rows");
        let core = &self.core;
        core.check()?;
        let (segments, delta) = {
            let state = core.state.lock();
            if state.dropped.contains(request.chunk) {
                return Err(StorageError::ChunkDropped(request.chunk));
            }
            for (id, txn) in state.txns.iter().filter(|(_, txn)| txn.recovered && txn.phase != Phase::Staged) {
                if txn.writes.iter().any(|write| write.chunk == request.chunk) {
                    return Err(StorageError::InDoubt { chunk: request.chunk, txn: *id });
                }
            }
            let own = request.txn.and_then(|txn| state.txns.get(&txn)).into_iter().flat_map(|txn| &txn.writes);
            let own = own.filter(|write| write.chunk == request.chunk).map(|write| Arc::clone(&write.rows));
            let chunk = state.chunks.get(&request.chunk);
            let visible = chunk.into_iter().flat_map(|chunk| chunk.delta.iter());
            let visible = visible.filter(|batch| batch.seq <= request.snapshot).map(|batch| Arc::clone(&batch.rows));
            let delta = visible.chain(own).collect::<VecDeque<_>>();
            (chunk.map(|chunk| Arc::clone(&chunk.segments)).unwrap_or_default(), delta)
        };
        let visible = segments.iter().filter(|segment| segment.record.seq_min <= request.snapshot.0);
        let opened = visible.map(|segment| segment.open(core.vfs.as_ref(), &core.files));
        let segments = opened.collect::<Result<VecDeque<_>>>().map_err(|error| match &error {
            StorageError::Io { source, .. }
                if source.kind() == io::ErrorKind::NotFound && core.state.lock().dropped.contains(request.chunk) =>
            {
                StorageError::ChunkDropped(request.chunk)
            }
            _ => error,
        })?;
        let delta = delta.into_iter().filter(|rows| rows.may_match(&request.predicates)).collect();
        let projection = Projection::new(request.columns);
        let small = (!projection.columns.is_empty()).then(|| {
            let limit = Some(request.batch_rows / 4);
            BatchCoalescer::new(Arc::clone(&projection.schema), request.batch_rows)
                .with_biggest_coalesce_batch_size(limit)
        });
        Ok(ChunkScan {
            projection,
            predicates: request.predicates,
            snapshot: request.snapshot,
            batch_rows: request.batch_rows,
            segments,
            current: None,
            delta,
            delta_offset: 0,
            small,
        })
    }
}

impl ChunkScan {
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.projection.schema)
    }

    fn next_segment_batch(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            if let Some(batch) = self.current.as_mut().and_then(|scan| scan.next()) {
                return Some(batch);
            }
            let segment = self.segments.pop_front()?;
            let (projection, batch_rows) = (self.projection.clone(), self.batch_rows);
            match SegmentScan::new(segment, projection, &self.predicates, self.snapshot, batch_rows) {
                Ok(scan) => self.current = Some(scan),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next slice of the delta, as wide as the reader wants it.
    fn next_delta_slice(&mut self) -> Option<Result<RecordBatch>> {
        let rows = Arc::clone(self.delta.front()?);
        let (offset, total) = (self.delta_offset, rows.batch.num_rows());
        let count = (total - offset).min(self.batch_rows);
        if offset + count == total {
            self.delta.pop_front();
            self.delta_offset = 0;
        } else {
            self.delta_offset += count;
        }
        let columns = Arc::clone(&self.projection.columns);
        Some(self.projection.batch(count, |wanted| {
            let at = rows.ids.iter().position(|id| *id == columns[wanted].id)?;
            Some(rows.batch.column(at).slice(offset, count))
        }))
    }

    /// Many small writes make few batches.
    fn next_delta_batch(&mut self) -> Option<Result<RecordBatch>> {
        let Some(mut small) = self.small.take() else { return self.next_delta_slice() };
        let batch = loop {
            if let Some(batch) = small.next_completed_batch() {
                break Some(Ok(batch));
            }
            let pushed = match self.next_delta_slice() {
                None if small.is_empty() => break None,
                None => small.finish_buffered_batch(),
                Some(Ok(batch)) => small.push_batch(batch),
                Some(Err(error)) => break Some(Err(error)),
            };
            if let Err(error) = pushed {
                break Some(Err(error.into()));
            }
        };
        self.small = Some(small);
        batch
    }
}

impl Iterator for ChunkScan {
    type Item = Result<RecordBatch, StorageError>;

    /// Batches are never empty. After an error the scan is over.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let batch = self.next_segment_batch().or_else(|| self.next_delta_batch())?;
            match &batch {
                Ok(rows) if rows.num_rows() == 0 => continue,
                Ok(_) => {}
                Err(_) => {
                    self.segments.clear();
                    self.current = None;
                    self.delta.clear();
                    self.small = None;
                }
            }
            return Some(batch);
        }
    }
}
