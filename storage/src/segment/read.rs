//! Scanning a segment, batch by batch: first what decides which rows are wanted (predicates, visibility, removals), then
//! the other columns of those rows only. `prune` has left out what statistics can tell; visibility and stored forms are
//! undone here.

use super::OpenSegment;
use super::blocks::BlockReader;
use super::columns::restore;
use super::matching::matches;
use super::pages::ColumnPages;
use super::prune::{Selection, select};
use crate::deletes::{PartView, positions_array};
use crate::error::Result;
use crate::projection::Projection;
use arrow::array::{ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int64Array, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{and, concat, filter};
use arrow::datatypes::Int64Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection};
use proto::{ColumnPredicate, CommitSeq, Latest, PredicateKind, ScanTally};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// When fewer than one row in so many is wanted, the others are left out while columns are read.
const NARROW_BELOW: usize = 4;
/// Wanted rows that are closer than this are read in one go.
const NARROW_GAP_ROWS: usize = 128;

pub(crate) struct SegmentScan {
    segment: Arc<OpenSegment>,
    view: PartView,
    projection: Projection,
    /// The rows' visibility is to be checked against this snapshot.
    snapshot: Option<CommitSeq>,
    batch_rows: usize,
    /// Rows of the segment that are still to be read.
    rows: VecDeque<Range<u32>>,
    /// What is to be held against values, with the column's place in the file.
    checks: Vec<(usize, PredicateKind)>,
    /// For each wanted column its place in the file.
    roots: Vec<Option<usize>>,
    pages: BTreeMap<usize, ColumnPages>,
    others: Others,
    input: Arc<BlockReader>,
}

/// Columns that the parquet crate reads, in the order of the file.
struct Others {
    roots: Vec<usize>,
    reader: Option<ParquetRecordBatchReader>,
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
        let tally = Arc::default();
        let selection = selected(&segment, predicates, &tally)?;
        SegmentScan::of(segment, view, projection, predicates, selection, snapshot, batch_rows, tally)
    }

    /// Of the rows that were selected by these predicates.
    #[expect(clippy::too_many_arguments, reason = "`new` with what others have in hand already")]
    pub(crate) fn of(
        segment: Arc<OpenSegment>,
        view: PartView,
        projection: Projection,
        predicates: &[ColumnPredicate],
        selection: Selection,
        snapshot: CommitSeq,
        batch_rows: usize,
        tally: Arc<ScanTally>,
    ) -> Result<SegmentScan> {
        let snapshot = (segment.record.seq_max > snapshot.0).then_some(snapshot);
        let roots = projection.columns.iter().map(|column| segment.root(column.id)).collect::<Vec<_>>();
        let mut read = roots.iter().flatten().copied().collect::<Vec<_>>();
        read.extend(snapshot.map(|_| segment.columns.len() - 1));
        read.sort_unstable();
        read.dedup();

        let input = Arc::new(BlockReader::new(Arc::clone(&segment), tally));
        let mut pages = BTreeMap::new();
        let mut others = Others { roots: Vec::new(), reader: None };
        for root in read {
            match ColumnPages::new(&segment, &input, root) {
                Some(column) => drop(pages.insert(root, column)),
                None => others.roots.push(root),
            }
        }
        let checks = selection.open.iter().filter_map(|at| {
            let root = segment.columns.iter().position(|column| column.id == Some(predicates[*at].column))?;
            pages.contains_key(&root).then(|| (root, predicates[*at].kind.clone()))
        });
        let checks = checks.collect();
        if !others.roots.is_empty() {
            let (row_groups, rows) = in_row_groups(&segment, &selection.rows);
            let mask = ProjectionMask::roots(segment.metadata.parquet_schema(), others.roots.iter().copied());
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(input.another(), segment.metadata.clone())
                .with_batch_size(batch_rows)
                .with_projection(mask)
                .with_row_groups(row_groups)
                .with_row_selection(rows);
            others.reader = Some(builder.build().map_err(|error| input.failure(error))?);
        }
        let rows = selection.rows.into();
        Ok(SegmentScan { segment, view, projection, snapshot, batch_rows, rows, checks, roots, pages, others, input })
    }

    /// The wanted ones of these rows; `others` holds the columns of the parquet crate. `None` when there are none.
    fn batch(&mut self, ranges: &[Range<u32>], others: Option<RecordBatch>) -> Result<Option<RecordBatch>> {
        let mut whole = BTreeMap::new();
        if let Some(others) = others {
            for (root, array) in self.others.roots.iter().zip(others.columns()) {
                whole.insert(*root, restore(self.segment.columns[*root].stored, Arc::clone(array)));
            }
        }
        let shown = self.shown(ranges, &mut whole)?;
        if shown.as_ref().is_some_and(|shown| shown.true_count() == 0) {
            return Ok(None);
        }
        let shown = shown.filter(|shown| shown.true_count() < shown.len());
        let count = ranges.iter().map(|range| range.len()).sum::<usize>();
        // In a sorted segment the shown rows mostly follow each other.
        let stretches = shown.as_ref().map_or(0, |shown| shown.values().set_slices().count());
        let long = stretches * NARROW_GAP_ROWS < count;
        let narrow = match &shown {
            Some(shown) if long || shown.true_count() * NARROW_BELOW < count => narrowed(ranges, shown.values()),
            _ => (ranges.to_vec(), shown.clone()),
        };
        let kept = |array: &ArrayRef, rows: &Option<BooleanArray>| -> Result<ArrayRef> {
            match rows {
                None => Ok(Arc::clone(array)),
                Some(rows) if long => {
                    let parts = rows.values().set_slices().map(|(start, end)| array.slice(start, end - start));
                    let parts = parts.collect::<Vec<_>>();
                    match &parts[..] {
                        [one] => Ok(Arc::clone(one)),
                        parts => Ok(concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>())?),
                    }
                }
                Some(rows) => Ok(filter(array, rows)?),
            }
        };
        let mut columns = BTreeMap::new();
        for root in self.roots.iter().flatten() {
            if !columns.contains_key(root) {
                let column = match whole.get(root) {
                    Some(array) => kept(array, &shown)?,
                    None => kept(&self.pages.get_mut(root).expect("it is read in pages").read(&narrow.0)?, &narrow.1)?,
                };
                columns.insert(*root, column);
            }
        }
        let addresses =
            if self.projection.addresses() { positions_array(ranges) } else { Int64Array::from(vec![0; 0]) };
        let addresses = match &shown {
            Some(shown) if self.projection.addresses() => filter(&addresses, shown)?,
            _ => Arc::new(addresses),
        };
        let count = shown.as_ref().map_or(count, |shown| shown.true_count());
        let batch = self.projection.batch(count, |wanted| match self.roots[wanted] {
            Some(root) => Some(Arc::clone(&columns[&root])),
            None => self.view.address(self.projection.columns[wanted].id, addresses.as_primitive::<Int64Type>()),
        });
        batch.map(Some)
    }

    /// Which of the rows are visible and may match; `None`: all. Columns that were read for it are left in `whole`.
    fn shown(&mut self, ranges: &[Range<u32>], whole: &mut BTreeMap<usize, ArrayRef>) -> Result<Option<BooleanArray>> {
        let mut shown = self.view.shown(ranges);
        let also = |shown: &mut Option<BooleanArray>, more: BooleanArray| -> Result<bool> {
            let both = shown.as_ref().map_or(Ok(more.clone()), |shown| and(shown, &more))?;
            let any = both.true_count() > 0;
            *shown = Some(both);
            Ok(any)
        };
        let mut read = |root: usize, whole: &mut BTreeMap<usize, ArrayRef>| -> Result<ArrayRef> {
            if let Some(array) = whole.get(&root) {
                return Ok(Arc::clone(array));
            }
            let array = self.pages.get_mut(&root).expect("it is read in pages").read(ranges)?;
            whole.insert(root, Arc::clone(&array));
            Ok(array)
        };
        if let Some(snapshot) = self.snapshot {
            let seqs = read(self.segment.columns.len() - 1, whole)?;
            let seqs = seqs.as_primitive::<Int64Type>();
            let committed = seqs.values().iter().map(|seq| *seq as u64 <= snapshot.0).collect::<BooleanBuffer>();
            if !also(&mut shown, BooleanArray::new(committed, None))? {
                return Ok(shown);
            }
        }
        for (root, kind) in &self.checks {
            let Some(found) = matches(kind, &read(*root, whole)?) else { continue };
            if !also(&mut shown, found)? {
                break;
            }
        }
        Ok(shown)
    }
}

/// The rows of a segment that may match.
///
/// # Errors
/// As a scan.
pub(crate) fn selected(
    segment: &Arc<OpenSegment>,
    predicates: &[ColumnPredicate],
    tally: &Arc<ScanTally>,
) -> Result<Selection> {
    select(segment, &BlockReader::new(Arc::clone(segment), Arc::clone(tally)), predicates)
}

/// The last row of each series, when these are all that `latest` wants of the segment and the reader sees it whole.
///
/// # Errors
/// When the directory of series cannot be read.
pub(crate) fn last_rows(
    segment: &OpenSegment,
    view: &PartView,
    projection: &Projection,
    latest: &Latest,
    snapshot: CommitSeq,
    tally: &ScanTally,
) -> Result<Option<RecordBatch>> {
    let by_series = segment
        .record
        .sort
        .split_last()
        .is_some_and(|(time, keys)| *time == latest.time && latest.of.iter().all(|column| keys.contains(column)));
    let whole = segment.record.seq_max <= snapshot.0 && view.hidden.is_none() && !projection.addresses();
    if !by_series || !whole {
        return Ok(None);
    }
    let Some(entries) = segment.last_rows(tally)? else { return Ok(None) };
    tally.rows_read.add(entries.num_rows());
    tally.rows_skipped_by_last.add(segment.record.rows as usize - entries.num_rows());
    last_rows_of(segment, &entries, projection).map(Some)
}

/// Entries of the directory of series as the reader wants them.
pub(super) fn last_rows_of(
    segment: &OpenSegment,
    entries: &RecordBatch,
    projection: &Projection,
) -> Result<RecordBatch> {
    projection.batch(entries.num_rows(), |wanted| {
        let root = segment.root(projection.columns[wanted].id)?;
        Some(restore(segment.columns[root].stored, Arc::clone(entries.column(root))))
    })
}

/// Fewer rows around the shown ones, and which of them are shown; `None`: all.
fn narrowed(ranges: &[Range<u32>], shown: &BooleanBuffer) -> (Vec<Range<u32>>, Option<BooleanArray>) {
    let mut windows: Vec<Range<usize>> = Vec::new();
    for (start, end) in shown.set_slices() {
        match windows.last_mut() {
            Some(last) if start - last.end < NARROW_GAP_ROWS => last.end = end,
            _ => windows.push(start..end),
        }
    }
    let whole = windows.iter().map(|window| window.len()).sum::<usize>() == shown.count_set_bits();
    let mut left = BooleanBufferBuilder::new(windows.iter().map(|window| window.len()).sum());
    let mut rows = Vec::with_capacity(windows.len());
    let mut behind = ranges.iter().cloned().collect::<VecDeque<_>>();
    let mut at = 0;
    for window in windows {
        left.append_buffer(&shown.slice(window.start, window.len()));
        take_ranges(&mut behind, window.start - at);
        rows.extend(take_ranges(&mut behind, window.len()));
        at = window.end;
    }
    (rows, (!whole).then(|| BooleanArray::new(left.finish(), None)))
}

/// The same rows as the parquet crate wants to hear of them: by row group.
fn in_row_groups(segment: &OpenSegment, rows: &[Range<u32>]) -> (Vec<usize>, RowSelection) {
    let (mut groups, mut ranges, mut before) = (Vec::new(), Vec::new(), 0);
    for (number, start) in segment.group_starts.iter().enumerate() {
        let group = *start..*start + segment.parquet().row_group(number).num_rows() as u32;
        let first = rows.partition_point(|range| range.end <= group.start);
        let mut inside = rows[first..].iter().take_while(|range| range.start < group.end).peekable();
        if inside.peek().is_none() {
            continue;
        }
        let place = |row: u32| before + (row.clamp(group.start, group.end) - group.start) as usize;
        ranges.extend(inside.map(|range| place(range.start)..place(range.end)));
        before += group.len();
        groups.push(number);
    }
    (groups, RowSelection::from_consecutive_ranges(ranges.into_iter(), before))
}

/// Takes the first `rows` positions away, or all.
fn take_ranges(positions: &mut VecDeque<Range<u32>>, rows: usize) -> Vec<Range<u32>> {
    let (mut taken, mut missing) = (Vec::new(), rows);
    while missing > 0 {
        let Some(first) = positions.front_mut() else { break };
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

    /// Batches are not empty.
    fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            let others = match self.others.reader.as_mut().map(|reader| reader.next()) {
                None => None,
                Some(None) => return None,
                Some(Some(Ok(others))) => Some(others),
                Some(Some(Err(error))) => return Some(Err(self.input.failure(error.into()))),
            };
            let rows = others.as_ref().map_or(self.batch_rows, |others| others.num_rows());
            let ranges = take_ranges(&mut self.rows, rows);
            if ranges.is_empty() {
                return None;
            }
            let (tally, rows) = (Arc::clone(&self.input.tally), ranges.iter().map(|range| range.len()).sum::<usize>());
            tally.rows_read.add(rows);
            let batch = self.batch(&ranges, others).transpose();
            let shown = batch.as_ref().map_or(0, |batch| batch.as_ref().map_or(0, RecordBatch::num_rows));
            tally.rows_filtered.add(rows - shown);
            if batch.is_some() {
                return batch;
            }
        }
    }
}
