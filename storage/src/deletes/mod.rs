//! Rows that were removed: they stay where they are, and sets of their positions hide them.
//!
//! An address is a part and a row. A part is a segment or a batch (one write of one transaction); a row is its position
//! in the part, from 0. Sealing and merging move rows into other parts, so an address is good only as long as its part
//! exists; whoever removes rows by address finds out when it does not (`StorageError::Conflict`).
//!
//! Invariants
//! - No row is removed by two transactions: the second is refused while the first is open or committed.
//! - A removal hides the row from snapshots at or above its commit, and from its own transaction at once.

mod file;

pub use file::DeletesRecord;
pub(crate) use file::{file_name, load, write};

use crate::error::{Result, StorageError};
use crate::log::Lsn;
use crate::segment::SegmentRecord;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use bytes::Bytes;
use proto::data_node::FIELD_ID;
use proto::{ChunkId, ColumnId, CommitSeq};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// What a set costs beyond its serialized size.
const SET_OVERHEAD_BYTES: usize = 256;

/// A segment's number; or, negative, a batch: the log position of its stage record plus its index in the record, which
/// is shorter than the record. The same after recovery. Never given twice, but for a batch that was lost in a power cut
/// before its transaction voted; that transaction has ended, and nobody else knew the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Part(pub(crate) i64);

impl Part {
    pub(crate) fn segment(number: u64) -> Part {
        Part(i64::try_from(number).expect("segments are counted from 1"))
    }

    pub(crate) fn batch(record: Lsn, index: usize) -> Part {
        Part(-i64::try_from(record.0 + index as u64).expect("a log has fewer than 2^63 bytes"))
    }

    pub(crate) fn is_segment(self) -> bool {
        self.0 > 0
    }
}

/// One decoded write of addresses.
#[derive(Debug)]
pub(crate) struct Removal {
    /// Ordered by part.
    pub(crate) parts: Vec<(Part, RoaringBitmap)>,
    pub(crate) bytes: usize,
}

/// A committed removal that no deletes file holds yet.
#[derive(Clone)]
pub(crate) struct DeltaRemoval {
    pub(crate) removal: Arc<Removal>,
    pub(crate) seq: CommitSeq,
    /// The log is needed from here on as long as the removal is not sealed.
    pub(crate) first_lsn: Lsn,
    pub(crate) commit_lsn: Lsn,
}

/// Committed removals of one part.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PartDeletes {
    all: Arc<RoaringBitmap>,
    by_seq: BTreeMap<CommitSeq, Arc<RoaringBitmap>>,
}

/// Committed removals of a chunk. Shared with readers.
pub(crate) type ChunkDeletes = BTreeMap<Part, Arc<PartDeletes>>;

/// One part as a reader sees it: where it is, and which of its rows it must not show.
#[derive(Clone)]
pub(crate) struct PartView {
    pub(crate) chunk: ChunkId,
    pub(crate) part: Part,
    pub(crate) hidden: Option<Arc<RoaringBitmap>>,
}

impl Removal {
    /// # Errors
    /// `BadWrite` for bytes that are no batch of addresses.
    pub(crate) fn decode(body: &Bytes) -> Result<Removal> {
        let batch = proto::ipc::decode_body(body.clone()).map_err(|error| StorageError::BadWrite(error.message))?;
        let (parts, rows) = (address_column(&batch, ColumnId::PART)?, address_column(&batch, ColumnId::ROW)?);
        let mut pairs = Vec::with_capacity(batch.num_rows());
        for (part, row) in parts.values().iter().zip(rows.values()) {
            let row = u32::try_from(*row).map_err(|_| StorageError::BadWrite(format!("{row} is no row of a part")))?;
            pairs.push((Part(*part), row));
        }
        pairs.sort_unstable();
        pairs.dedup();
        let sets = pairs.chunk_by(|a, b| a.0 == b.0).map(|same| {
            let rows = RoaringBitmap::from_sorted_iter(same.iter().map(|(_, row)| *row));
            (same[0].0, rows.expect("they are sorted and differ"))
        });
        let parts = sets.collect::<Vec<_>>();
        let bytes = parts.iter().map(|(_, rows)| rows.serialized_size() + SET_OVERHEAD_BYTES).sum();
        Ok(Removal { parts, bytes })
    }

    pub(crate) fn of(&self, part: Part) -> Option<&RoaringBitmap> {
        let at = self.parts.binary_search_by_key(&part, |(part, _)| *part).ok()?;
        Some(&self.parts[at].1)
    }
}

fn address_column(batch: &RecordBatch, id: ColumnId) -> Result<Int64Array> {
    let bad = |what: &str| StorageError::BadWrite(format!("a removal {what}"));
    let wanted = id.to_string();
    let schema = batch.schema();
    let at = schema.fields().iter().position(|field| field.metadata().get(FIELD_ID) == Some(&wanted));
    let column = batch.column(at.ok_or_else(|| bad(&format!("lacks the column {id}")))?);
    if *column.data_type() != DataType::Int64 || column.null_count() > 0 {
        return Err(bad("has an address that is no bigint"));
    }
    Ok(column.as_primitive::<Int64Type>().clone())
}

impl PartDeletes {
    pub(crate) fn add(&mut self, seq: CommitSeq, rows: &RoaringBitmap) {
        if rows.is_empty() {
            return;
        }
        *Arc::make_mut(&mut self.all) |= rows;
        *Arc::make_mut(self.by_seq.entry(seq).or_default()) |= rows;
    }

    pub(crate) fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    pub(crate) fn by_seq(&self) -> impl Iterator<Item = (CommitSeq, &RoaringBitmap)> {
        self.by_seq.iter().map(|(seq, rows)| (*seq, rows.as_ref()))
    }

    /// The removals that are left when some removed rows are gone for good; positions close the gaps.
    pub(crate) fn leaving_out(&self, gone: &RoaringBitmap) -> PartDeletes {
        let mut left = PartDeletes::default();
        for (seq, rows) in self.by_seq() {
            let rows = rows - gone;
            // A position sinks by the number of rows that go before it.
            left.add(seq, &rows.iter().map(|row| row - gone.rank(row) as u32).collect());
        }
        left
    }

    /// What a snapshot does not see.
    pub(crate) fn hidden(&self, snapshot: CommitSeq) -> Arc<RoaringBitmap> {
        if self.by_seq.last_key_value().is_none_or(|(seq, _)| *seq <= snapshot) {
            return Arc::clone(&self.all);
        }
        let seen = self.by_seq.range(..=snapshot).map(|(_, rows)| rows.as_ref());
        Arc::new(seen.fold(RoaringBitmap::new(), |all, rows| all | rows))
    }
}

/// Adds a committed removal to those of its chunk.
pub(crate) fn add(deletes: &mut ChunkDeletes, seq: CommitSeq, removal: &Removal) {
    for (part, rows) in &removal.parts {
        Arc::make_mut(deletes.entry(*part).or_default()).add(seq, rows);
    }
}

/// Leaves out what was removed by some commits.
pub(crate) fn without(deletes: &ChunkDeletes, seqs: &BTreeSet<CommitSeq>) -> ChunkDeletes {
    let mut kept = ChunkDeletes::new();
    for (part, removed) in deletes {
        if !removed.by_seq.keys().any(|seq| seqs.contains(seq)) {
            kept.insert(*part, Arc::clone(removed));
            continue;
        }
        let mut left = PartDeletes::default();
        removed.by_seq().filter(|(seq, _)| !seqs.contains(seq)).for_each(|(seq, rows)| left.add(seq, rows));
        if !left.all.is_empty() {
            kept.insert(*part, Arc::new(left));
        }
    }
    kept
}

/// Rows that are removed, of all parts.
pub(crate) fn count(deletes: &ChunkDeletes) -> u64 {
    deletes.values().map(|part| part.all.len()).sum()
}

/// Whether every removed row is one of a segment; in words if not.
pub(crate) fn check(deletes: &ChunkDeletes, segments: &[SegmentRecord]) -> Result<(), String> {
    deletes.iter().try_for_each(|(part, removed)| {
        let segment = segments.iter().find(|segment| Part::segment(segment.number) == *part);
        let segment = segment.ok_or_else(|| format!("rows of segment {} are removed, which is not listed", part.0))?;
        match removed.all.max().is_some_and(|row| u64::from(row) >= segment.rows) {
            true => Err(format!("a row behind the last of segment {} is removed", part.0)),
            false => Ok(()),
        }
    })
}

/// What sealing makes of the removals of the parts it moves: `order` lists the old positions, counted through all
/// parts, in their new order; without it they keep their order.
pub(crate) fn carried<'a>(
    parts: impl Iterator<Item = (usize, Option<&'a PartDeletes>)>,
    order: Option<&[u32]>,
) -> PartDeletes {
    let mut moved = PartDeletes::default();
    let mut base = 0;
    let mut removed = Vec::new();
    for (rows, deletes) in parts {
        for (seq, positions) in deletes.into_iter().flat_map(|deletes| deletes.by_seq()) {
            removed.extend(positions.iter().map(|position| (base + position, seq)));
        }
        base += rows as u32;
    }
    if removed.is_empty() {
        return moved;
    }
    let mut new_position = vec![0u32; if order.is_some() { base as usize } else { 0 }];
    order.into_iter().flatten().zip(0..).for_each(|(old, new)| new_position[*old as usize] = new);
    let place = |old: u32| if order.is_some() { new_position[old as usize] } else { old };
    let mut by_seq: BTreeMap<CommitSeq, RoaringBitmap> = BTreeMap::new();
    for (old, seq) in removed {
        by_seq.entry(seq).or_default().insert(place(old));
    }
    by_seq.iter().for_each(|(seq, rows)| moved.add(*seq, rows));
    moved
}

impl PartView {
    /// Shows every row.
    pub(crate) fn whole(chunk: ChunkId, part: Part) -> PartView {
        PartView { chunk, part, hidden: None }
    }

    /// Which of the rows at these positions to show; `None` when all.
    pub(crate) fn shown(&self, positions: &[Range<u32>]) -> Option<BooleanArray> {
        let hidden = self.hidden.as_ref()?;
        if positions.iter().all(|range| hidden.range_cardinality(range.clone()) == 0) {
            return None;
        }
        let mut shown = BooleanBufferBuilder::new(0);
        for range in positions {
            let start = shown.len();
            shown.append_n(range.len(), true);
            for row in hidden.range(range.clone()) {
                shown.set_bit(start + (row - range.start) as usize, false);
            }
        }
        Some(BooleanArray::new(shown.finish(), None))
    }

    /// One of the columns that make an address.
    pub(crate) fn address(&self, id: ColumnId, positions: &Int64Array) -> Option<ArrayRef> {
        let same = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value; positions.len()])) };
        match id {
            ColumnId::CHUNK => Some(same(i64::from(self.chunk.0))),
            ColumnId::PART => Some(same(self.part.0)),
            ColumnId::ROW => Some(Arc::new(positions.clone())),
            _ => None,
        }
    }
}

/// Whether the column is part of an address, and so in no table.
pub(crate) fn is_address(id: ColumnId) -> bool {
    id >= ColumnId::CHUNK
}

pub(crate) fn positions_array(positions: &[Range<u32>]) -> Int64Array {
    positions.iter().flat_map(|range| range.clone().map(i64::from)).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_misses_what_was_removed_up_to_it() {
        let mut deletes = PartDeletes::default();
        deletes.add(CommitSeq(5), &[1, 2].into());
        deletes.add(CommitSeq(3), &[7].into());
        let hidden = |seq| deletes.hidden(CommitSeq(seq)).iter().collect::<Vec<_>>();
        assert_eq!(
            [hidden(2), hidden(3), hidden(4), hidden(5), hidden(9)],
            [vec![], vec![7], vec![7], vec![1, 2, 7], vec![1, 2, 7]]
        );
    }

    #[test]
    fn removals_follow_their_rows() {
        let mut first = PartDeletes::default();
        first.add(CommitSeq(5), &[0].into());
        let mut second = PartDeletes::default();
        second.add(CommitSeq(6), &[1].into());
        let parts = || [(2, Some(&first)), (1, None), (2, Some(&second))].into_iter();
        // Old positions 0 and 4 are removed.
        let kept = carried(parts(), None);
        assert_eq!(kept.by_seq().map(|(seq, rows)| (seq.0, rows.min().unwrap())).collect::<Vec<_>>(), [(5, 0), (6, 4)]);
        let sorted = carried(parts(), Some(&[4, 3, 2, 1, 0]));
        assert_eq!(
            sorted.by_seq().map(|(seq, rows)| (seq.0, rows.min().unwrap())).collect::<Vec<_>>(),
            [(5, 4), (6, 0)]
        );
    }

    #[test]
    fn positions_close_the_gaps_that_rows_leave() {
        let mut deletes = PartDeletes::default();
        deletes.add(CommitSeq(3), &[0, 4].into());
        deletes.add(CommitSeq(9), &[1, 5, 8].into());
        let left = deletes.leaving_out(&[0, 4].into());
        assert_eq!(
            left.by_seq().map(|(seq, rows)| (seq.0, rows.iter().collect())).collect::<Vec<_>>(),
            [(9, vec![0, 3, 6])]
        );
    }

    #[test]
    fn shown_rows_are_those_not_hidden() {
        let view = PartView { chunk: ChunkId(1), part: Part(1), hidden: Some(Arc::new([3, 10, 11].into())) };
        assert!(view.shown(&[0..3, 4..10]).is_none());
        let shown = view.shown(&[2..4, 9..13]).unwrap();
        assert_eq!(shown.iter().flatten().collect::<Vec<_>>(), [true, false, true, false, false, true]);
    }
}
