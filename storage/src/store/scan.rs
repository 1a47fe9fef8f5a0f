//! Reading a chunk at a snapshot: its segments, then its delta, then the reader's own staged rows.

use super::state::State;
use super::{Core, Store};
use crate::deletes::{ChunkDeletes, Part, PartView, Removal, positions_array};
use crate::delta::DeltaRows;
use crate::error::{Result, StorageError};
use crate::projection::{Projection, ScanColumn};
use crate::segment::{OpenSegment, PAGE_ROWS, Segment, SegmentScan, Selection, last_rows, selected};
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{BatchCoalescer, filter};
use arrow::datatypes::{Int64Type, SchemaRef};
use parking_lot::MutexGuard;
use proto::{ChunkId, ColumnId, ColumnPredicate, CommitSeq, Latest, ScanTally, TxnId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Smaller pieces of a chunk are not worth a reader each.
const PIECE_ROWS_MIN: usize = 8 * PAGE_ROWS;

#[derive(Debug, Clone)]
pub struct ScanRequest {
    pub chunk: ChunkId,
    /// Rows of commits up to and with this one are visible.
    pub snapshot: CommitSeq,
    /// The reader's own transaction: its staged rows are visible to it.
    pub txn: Option<TxnId>,
    /// May be empty: the batches then have rows and no columns. `ColumnId::CHUNK`, `PART` and `ROW` give the rows'
    /// addresses, for a removal in the near future (`StoreOptions::address_pin`).
    pub columns: Vec<ScanColumn>,
    /// Rows that fail one may be left out, or not.
    pub predicates: Vec<ColumnPredicate>,
    /// Rows that are not the last of their series may be left out, or not.
    pub latest: Option<Latest>,
    /// Largest batch returned.
    pub batch_rows: usize,
    /// Where to count what it takes.
    pub tally: Arc<ScanTally>,
}

/// The rows of one chunk, in no order across batches. Holds what it reads: dropping the chunk does not disturb it.
pub struct ChunkScan {
    projection: Projection,
    predicates: Vec<ColumnPredicate>,
    latest: Option<Latest>,
    snapshot: CommitSeq,
    batch_rows: usize,
    tally: Arc<ScanTally>,
    segments: VecDeque<SegmentPart>,
    current: Option<SegmentScan>,
    /// Last rows of series that are still to be returned.
    last: Option<RecordBatch>,
    delta: VecDeque<(Arc<DeltaRows>, PartView)>,
    /// Rows of the batch in work that were returned already.
    delta_offset: usize,
    small: Option<BatchCoalescer>,
}

/// A segment to be read.
struct SegmentPart {
    segment: Arc<OpenSegment>,
    view: PartView,
    /// Some rows of it; `None`: nobody has looked yet which may match.
    selection: Option<Selection>,
}

impl SegmentPart {
    /// Which rows may match.
    fn select(&self, predicates: &[ColumnPredicate], tally: &Arc<ScanTally>) -> Result<Selection> {
        let selection = selected(&self.segment, predicates, tally)?;
        tally.segment(self.view.chunk, self.segment.record.number, !selection.rows.is_empty());
        Ok(selection)
    }
}

impl Store {
    /// A chunk that got no rows yet has an empty scan.
    ///
    /// # Errors
    /// `ChunkDropped`; `SnapshotTooOld` when a merge left out rows it would see; `InDoubt` while a transaction that was prepared before a restart touches the chunk; `Damaged`
    /// with the segment's name, here or from the scan.
    pub fn scan(&self, request: ScanRequest) -> Result<ChunkScan, StorageError> {
        assert!(request.batch_rows > 0, "a batch has rows");
        let core = &self.core;
        core.check()?;
        let projection = Projection::new(request.columns.clone());
        let (segments, delta, hidden) = loop {
            let (segments, delta, hidden) = self.visible(&request, &projection)?;
            let old_enough = segments.iter().filter(|segment| segment.record.seq_min <= request.snapshot.0);
            if let Some(opened) = core.open_segments(request.chunk, &segments, old_enough, &request.tally)? {
                break (opened, delta, hidden);
            }
        };
        let tally = request.tally;
        let segments = segments.into_iter().map(|segment| {
            let view = hidden.view(Part::segment(segment.record.number));
            SegmentPart { segment, view, selection: None }
        });
        let delta = delta.into_iter().filter(|(_, rows)| {
            let may_match = rows.may_match(&request.predicates);
            tally.memory_rows.add(rows.batch.num_rows());
            tally.memory_rows_skipped.add(if may_match { 0 } else { rows.batch.num_rows() });
            may_match
        });
        let delta = delta.map(|(part, rows)| (rows, hidden.view(part))).collect::<VecDeque<_>>();
        tally.chunk(request.chunk, !delta.is_empty());
        Ok(ChunkScan {
            small: small(&projection, request.batch_rows),
            projection,
            predicates: request.predicates,
            latest: request.latest,
            snapshot: request.snapshot,
            batch_rows: request.batch_rows,
            tally,
            segments: segments.collect(),
            current: None,
            last: None,
            delta,
            delta_offset: 0,
        })
    }
}

/// Where small batches are gathered.
fn small(projection: &Projection, batch_rows: usize) -> Option<BatchCoalescer> {
    (!projection.columns.is_empty()).then(|| {
        let limit = Some(batch_rows / 4);
        BatchCoalescer::new(Arc::clone(&projection.schema), batch_rows).with_biggest_coalesce_batch_size(limit)
    })
}

impl Store {
    /// Between which times the rows lie that a scan of the chunk may return, both ends included; when there are none, the
    /// first is above the second. `None`: only a scan can tell, or fail.
    pub fn time_bounds(
        &self,
        chunk: ChunkId,
        time: ColumnId,
        snapshot: CommitSeq,
        txn: Option<TxnId>,
    ) -> Option<(i64, i64)> {
        let state = self.core.state.lock();
        let in_doubt = state.txns.values().any(|txn| txn.in_doubt() && txn.chunks().any(|other| other == chunk));
        if in_doubt || state.dropped.contains(chunk) {
            return None;
        }
        let mut bounds = (i64::MAX, i64::MIN);
        let mut also =
            |more: Option<(i64, i64)>| more.map(|(min, max)| bounds = (bounds.0.min(min), bounds.1.max(max)));
        let of_rows = |rows: &DeltaRows| rows.time.filter(|_| rows.time_column == Some(time));
        let own = txn.and_then(|txn| state.txns.get(&txn)).into_iter().flat_map(|txn| &txn.writes);
        for write in own.filter(|write| write.chunk == chunk) {
            also(of_rows(&write.rows))?;
        }
        if let Some(chunk) = state.chunks.get(&chunk) {
            if chunk.layout.time != Some(time) || chunk.check().is_err() || snapshot < chunk.horizon {
                return None;
            }
            for segment in chunk.segments.iter() {
                also(segment.record.time)?;
            }
            for batch in chunk.delta.iter() {
                also(of_rows(&batch.rows))?;
            }
        }
        Some(bounds)
    }
}

type Visible = (Arc<Vec<Arc<Segment>>>, Vec<(Part, Arc<DeltaRows>)>, Hidden);

/// What a reader must not show.
struct Hidden {
    chunk: ChunkId,
    snapshot: CommitSeq,
    deletes: Arc<ChunkDeletes>,
    /// By the reader's own transaction.
    removed: Vec<Arc<Removal>>,
}

impl Hidden {
    fn view(&self, part: Part) -> PartView {
        let committed = self.deletes.get(&part).map(|deletes| deletes.hidden(self.snapshot));
        let own = self.removed.iter().filter_map(|removal| removal.of(part));
        let hidden = own.fold(committed, |hidden, rows| {
            let mut hidden = hidden.unwrap_or_default();
            *Arc::make_mut(&mut hidden) |= rows;
            Some(hidden)
        });
        PartView { chunk: self.chunk, part, hidden: hidden.filter(|rows| !rows.is_empty()) }
    }
}

impl Core {
    /// The reader may come back with the addresses it sees: they are to stay true for a while.
    fn pin(&self, state: &mut MutexGuard<State>, id: ChunkId) -> Result<()> {
        let since = self.clock.elapsed();
        while state.chunks.get(&id).is_some_and(|chunk| !chunk.moving.is_empty()) {
            let left = self.options.lock_wait_max.saturating_sub(self.clock.elapsed().saturating_sub(since));
            // Who waited in vain gets addresses that may be outdated when they are used, and is told so then.
            if left == Duration::ZERO || self.changed.wait_for(state, left).timed_out() {
                break;
            }
            self.check()?;
        }
        let until = self.clock.elapsed() + self.options.address_pin;
        if let Some(chunk) = state.chunks.get_mut(&id) {
            chunk.pinned_until = chunk.pinned_until.max(until);
        }
        Ok(())
    }
}

impl Store {
    /// What the reader sees now, in one look: segments, batches of the delta and of its own, and what is removed.
    fn visible(&self, request: &ScanRequest, projection: &Projection) -> Result<Visible> {
        let core = &self.core;
        let mut state = core.state.lock();
        if projection.addresses() {
            core.pin(&mut state, request.chunk)?;
        }
        if state.dropped.contains(request.chunk) {
            return Err(StorageError::ChunkDropped(request.chunk));
        }
        let voted = state.txns.iter().filter(|(_, txn)| txn.in_doubt());
        let here = voted.filter(|(_, txn)| txn.chunks().any(|chunk| chunk == request.chunk));
        // The oldest, so that the same state says the same.
        if let Some(txn) = here.map(|(id, _)| *id).min() {
            return Err(StorageError::InDoubt { chunk: request.chunk, txn });
        }
        let own = request.txn.and_then(|txn| state.txns.get(&txn));
        let staged = own.into_iter().flat_map(|txn| &txn.writes).filter(|write| write.chunk == request.chunk);
        let staged = staged.filter_map(|write| Some((write.part?, Arc::clone(&write.rows))));
        let removed = own.into_iter().flat_map(|txn| &txn.removals).filter(|staged| staged.chunk == request.chunk);
        let removed = removed.map(|staged| Arc::clone(&staged.removal)).collect::<Vec<_>>();
        let chunk = state.chunks.get(&request.chunk);
        chunk.map_or(Ok(()), |chunk| chunk.check())?;
        if chunk.is_some_and(|chunk| request.snapshot < chunk.horizon) {
            return Err(StorageError::SnapshotTooOld { chunk: request.chunk, snapshot: request.snapshot });
        }
        let visible = chunk.into_iter().flat_map(|chunk| chunk.delta.iter());
        let visible = visible.filter(|batch| batch.seq <= request.snapshot);
        let delta = visible.map(|batch| (batch.part, Arc::clone(&batch.rows))).chain(staged).collect::<Vec<_>>();
        let segments = chunk.map(|chunk| Arc::clone(&chunk.segments)).unwrap_or_default();
        let deletes = chunk.map(|chunk| Arc::clone(&chunk.deletes)).unwrap_or_default();
        Ok((segments, delta, Hidden { chunk: request.chunk, snapshot: request.snapshot, deletes, removed }))
    }
}

impl ChunkScan {
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.projection.schema)
    }

    /// The same rows in at most so many pieces of about the same size, for as many readers; in fewer when there are few rows.
    ///
    /// # Errors
    /// When directories or bloom filters of segments cannot be read.
    pub fn pieces(self, most: usize) -> Result<Vec<ChunkScan>> {
        self.cut(most, PIECE_ROWS_MIN)
    }

    pub(super) fn cut(mut self, most: usize, rows_min: usize) -> Result<Vec<ChunkScan>> {
        assert!(self.current.is_none() && self.last.is_none() && self.delta_offset == 0, "it was not read from");
        if most < 2 || self.latest.is_some() {
            return Ok(vec![self]);
        }
        let mut rows = self.delta.iter().map(|(rows, _)| rows.batch.num_rows()).sum::<usize>();
        for part in &mut self.segments {
            let selection = part.select(&self.predicates, &self.tally)?;
            rows += selection.rows_count();
            part.selection = Some(selection);
        }
        let count = (rows / rows_min).clamp(1, most);
        let mut pieces = Vec::with_capacity(count);
        for number in 1..count {
            pieces.push(self.split_off(rows * number / count - rows * (number - 1) / count));
        }
        pieces.push(self);
        Ok(pieces)
    }

    /// About the first `rows` that were selected.
    fn split_off(&mut self, rows: usize) -> ChunkScan {
        let mut first = ChunkScan {
            projection: self.projection.clone(),
            predicates: self.predicates.clone(),
            latest: None,
            snapshot: self.snapshot,
            batch_rows: self.batch_rows,
            tally: Arc::clone(&self.tally),
            segments: VecDeque::new(),
            current: None,
            last: None,
            delta: VecDeque::new(),
            delta_offset: 0,
            small: small(&self.projection, self.batch_rows),
        };
        let mut left = rows;
        while left > 0 {
            if let Some(part) = self.segments.front_mut() {
                let all = part.selection.as_mut().expect("rows were selected");
                let selection = all.take(left);
                left = left.saturating_sub(selection.rows_count());
                let (segment, view) = (Arc::clone(&part.segment), part.view.clone());
                if all.rows.is_empty() {
                    self.segments.pop_front();
                }
                if !selection.rows.is_empty() {
                    first.segments.push_back(SegmentPart { segment, view, selection: Some(selection) });
                }
            } else if let Some((rows, view)) = self.delta.pop_front() {
                left = left.saturating_sub(rows.batch.num_rows());
                first.delta.push_back((rows, view));
            } else {
                break;
            }
        }
        first
    }

    fn next_segment_batch(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            if let Some(rows) = self.last.take() {
                let count = rows.num_rows().min(self.batch_rows);
                self.last = (count < rows.num_rows()).then(|| rows.slice(count, rows.num_rows() - count));
                return Some(Ok(rows.slice(0, count)));
            }
            if let Some(batch) = self.current.as_mut().and_then(|scan| scan.next()) {
                return Some(batch);
            }
            let mut part = self.segments.pop_front()?;
            let (projection, batch_rows) = (self.projection.clone(), self.batch_rows);
            if let Some(latest) = &self.latest {
                match last_rows(&part.segment, &part.view, &projection, latest, self.snapshot, &self.tally) {
                    Ok(None) => {}
                    Ok(Some(rows)) => {
                        self.tally.segment(part.view.chunk, part.segment.record.number, true);
                        self.last = Some(rows);
                        continue;
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
            let selection = part.selection.take().map_or_else(|| part.select(&self.predicates, &self.tally), Ok);
            let scan = selection.and_then(|rows| {
                let SegmentPart { segment, view, .. } = part;
                let (predicates, tally) = (&self.predicates, Arc::clone(&self.tally));
                SegmentScan::of(segment, view, projection, predicates, rows, self.snapshot, batch_rows, tally)
            });
            match scan {
                Ok(scan) => self.current = Some(scan),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next slice of the delta, as wide as the reader wants it.
    fn next_delta_slice(&mut self) -> Option<Result<RecordBatch>> {
        let (rows, view) = self.delta.front()?.clone();
        let (offset, total) = (self.delta_offset, rows.batch.num_rows());
        let count = (total - offset).min(self.batch_rows);
        if offset + count == total {
            self.delta.pop_front();
            self.delta_offset = 0;
        } else {
            self.delta_offset += count;
        }
        Some(self.conform(&rows, &view, offset, count))
    }

    fn conform(&self, rows: &DeltaRows, view: &PartView, offset: usize, count: usize) -> Result<RecordBatch> {
        let range = offset as u32..(offset + count) as u32;
        let shown = view.shown(std::slice::from_ref(&range));
        let kept = |array: ArrayRef| shown.as_ref().map_or(Ok(Arc::clone(&array)), |shown| filter(&array, shown));
        let located = self.projection.addresses();
        let positions: ArrayRef = Arc::new(positions_array(&if located { vec![range] } else { vec![] }));
        let positions = if located { kept(positions)? } else { positions };
        let columns = self.projection.columns.iter().map(|column| -> Result<Option<ArrayRef>> {
            match rows.ids.iter().position(|id| *id == column.id) {
                Some(at) => Ok(Some(kept(rows.batch.column(at).slice(offset, count))?)),
                None => Ok(view.address(column.id, positions.as_primitive::<Int64Type>())),
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let count = shown.as_ref().map_or(count, |shown| shown.true_count());
        self.projection.batch(count, |wanted| columns[wanted].clone())
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
                    self.last = None;
                    self.delta.clear();
                    self.small = None;
                }
            }
            return Some(batch);
        }
    }
}
