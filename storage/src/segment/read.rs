//! Scanning a segment: projection and pruning go down to Parquet; visibility and stored forms are undone here.

use super::blocks::BlockReader;
use super::columns::restore;
use super::prune::{Selection, select};
use super::{OpenSegment, SEQ, SEQ_COLUMN};
use crate::deletes::{PartView, positions_array};
use crate::error::{Result, StorageError};
use crate::projection::Projection;
use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{and, filter, filter_record_batch};
use arrow::datatypes::Int64Type;
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use proto::{ColumnPredicate, CommitSeq};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

pub(crate) struct SegmentScan {
    segment: Arc<OpenSegment>,
    view: PartView,
    /// Where the rows to come lie in the segment; kept only if somebody asks.
    positions: Option<VecDeque<Range<u32>>>,
    projection: Projection,
    /// The rows' visibility is to be checked against this snapshot.
    snapshot: Option<CommitSeq>,
    /// For each wanted column its place among the columns read, and among all columns of the segment.
    places: Vec<Option<(usize, usize)>>,
    reader: ParquetRecordBatchReader,
    failure: Arc<Mutex<Option<StorageError>>>,
}

impl SegmentScan {
    pub(crate) fn new(
        segment: Arc<OpenSegment>,
        view: PartView,
        projection: Projection,
        predicates: &[ColumnPredicate],
        snapshot: CommitSeq,
        batch_rows: usize,
    ) -> Result<SegmentScan> {
        let snapshot = (segment.record.seq_max > snapshot.0).then_some(snapshot);
        let roots = projection.columns.iter().map(|column| match column.id {
            SEQ => Some(segment.columns.len() - 1),
            id => segment.columns.iter().position(|stored| stored.id == Some(id)),
        });
        let roots = roots.collect::<Vec<_>>();
        let mut read = roots.iter().flatten().copied().collect::<Vec<_>>();
        read.extend(snapshot.map(|_| segment.columns.len() - 1));
        read.sort_unstable();
        read.dedup();
        let place = |root: usize| read.binary_search(&root).expect("every wanted column is read");
        let places = roots.iter().map(|root| root.map(|root| (place(root), root))).collect();

        let failure = Arc::new(Mutex::new(None));
        let input = BlockReader::new(Arc::clone(&segment), Arc::clone(&failure));
        let selection = select(&segment, predicates);
        let located = view.hidden.is_some() || projection.addresses();
        let positions = located.then(|| positions(&segment, &selection));
        let mask = ProjectionMask::roots(segment.metadata.parquet_schema(), read);
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(input, segment.metadata.clone())
            .with_batch_size(batch_rows)
            .with_projection(mask)
            .with_row_groups(selection.row_groups);
        if let Some(rows) = selection.rows {
            builder = builder.with_row_selection(rows);
        }
        let reader = builder.build().map_err(|error| super::parquet_error(segment.path(), error))?;
        Ok(SegmentScan { segment, view, positions, projection, snapshot, places, reader, failure })
    }

    /// The stored batch as the reader wants it; rows that the snapshot does not see are left out, and removed ones.
    fn conform(&mut self, stored: RecordBatch) -> Result<RecordBatch> {
        let ranges = self.positions.as_mut().map(|positions| take_ranges(positions, stored.num_rows()));
        let committed = self.snapshot.map(|snapshot| {
            let seqs = stored.column_by_name(SEQ_COLUMN).expect("the column was asked for");
            let seqs = seqs.as_primitive::<Int64Type>().values();
            BooleanArray::from(seqs.iter().map(|seq| *seq as u64 <= snapshot.0).collect::<Vec<_>>())
        });
        let shown = match (committed, ranges.as_ref().and_then(|ranges| self.view.shown(ranges))) {
            (Some(a), Some(b)) => Some(and(&a, &b)?),
            (one, other) => one.or(other),
        };
        let mut rows = match (&ranges, self.projection.addresses()) {
            (Some(ranges), true) => positions_array(ranges),
            _ => Int64Array::from(Vec::<i64>::new()),
        };
        let mut visible = stored;
        if let Some(shown) = shown {
            visible = filter_record_batch(&visible, &shown)?;
            if self.projection.addresses() {
                rows = filter(&rows, &shown)?.as_primitive::<Int64Type>().clone();
            }
        }
        self.projection.batch(visible.num_rows(), |wanted| match self.places[wanted] {
            Some((place, root)) => Some(restore(self.segment.columns[root].stored, Arc::clone(visible.column(place)))),
            None => self.view.address(self.projection.columns[wanted].id, &rows),
        })
    }
}

/// Positions in the segment of the rows that the selection reads, in the order in which it does.
fn positions(segment: &OpenSegment, selection: &Selection) -> VecDeque<Range<u32>> {
    let rows = segment.parquet().row_groups().iter().map(|group| group.num_rows() as u32);
    let starts = rows.scan(0u32, |next, rows| {
        let start = *next;
        *next += rows;
        Some(start..*next)
    });
    let groups = starts.collect::<Vec<_>>();
    let mut read = selection.row_groups.iter().map(|group| groups[*group].clone()).collect::<VecDeque<_>>();
    let Some(selectors) = &selection.rows else { return read };
    let mut kept = VecDeque::new();
    for selector in selectors.iter() {
        let ranges = take_ranges(&mut read, selector.row_count);
        if !selector.skip {
            kept.extend(ranges);
        }
    }
    kept
}

/// Takes the first `rows` positions away.
fn take_ranges(positions: &mut VecDeque<Range<u32>>, rows: usize) -> Vec<Range<u32>> {
    let (mut taken, mut missing) = (Vec::new(), rows);
    while missing > 0 {
        let first = positions.front_mut().expect("a scan returns no more rows than it selects");
        let count = first.len().min(missing);
        let end = first.start + count as u32;
        taken.push(first.start..end);
        first.start = end;
        missing -= count;
        if first.start == first.end {
            positions.pop_front();
        }
    }
    taken
}

impl Iterator for SegmentScan {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            let batch = match self.reader.next()? {
                Ok(stored) => self.conform(stored),
                Err(error) => Err(self
                    .failure
                    .lock()
                    .take()
                    .unwrap_or_else(|| StorageError::damaged(self.segment.path(), 0, error.to_string()))),
            };
            match batch {
                Ok(batch) if batch.num_rows() == 0 => {}
                other => return Some(other),
            }
        }
    }
}
