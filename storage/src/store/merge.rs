//! Merging: small segments of a chunk become one, and rows that no snapshot can see any more are left out. Beside
//! sealing, readers and writers; all meet it only when the new segment takes the place of the old ones.
//!
//! Which segments? Four or more of about one size and the same columns; or one of which more than a fifth is removed for
//! good; or one that is asked for (`reorder`). What a merge has in memory is bounded by `segment_bytes_max`.
//!
//! Optimistic: if by then somebody removed a row of the old segments, or may be about to, the new one is thrown away and
//! made again later. A removal whose log record names an old segment is never outlived by it: such segments wait until
//! the removal is sealed.

use super::state::{Chunk, State};
use super::{Core, Store};
use crate::deletes::{self, ChunkDeletes, DeletesRecord, Part, PartDeletes, PartView};
use crate::error::{Result, StorageError};
use crate::projection::{Projection, ScanColumn};
use crate::segment::{self, OpenSegment, READ_ROWS, SEQ, Segment, SegmentRecord, SegmentRows, SegmentScan, Shape};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type};
use proto::{ChunkId, ChunkLayout, ColumnId, CommitSeq, ScanTally};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Segments merge when the largest is at most this many times the smallest.
const SIZE_FACTOR: u64 = 4;
/// Segments below it count as equally small.
const SMALL_BYTES: u64 = 1 << 20;
/// A segment is rewritten when one in so many of its rows is removed for good.
const REMOVED_PART: u64 = 5;
/// A chunk with more segments is merged even if somebody may hold addresses of its rows.
const PINNED_SEGMENTS_MAX: usize = 64;

impl Store {
    /// Merges what is due, and leaves removed rows out; how many merges there were.
    ///
    /// # Errors
    /// A full disk leaves everything as it was; so does a damaged segment, whose chunk is left alone from then on. A
    /// failed fsync stops the store.
    pub fn merge_due(&self) -> Result<usize, StorageError> {
        self.core.check()?;
        self.core.merge_due()
    }
}

/// Segments to merge, as they were when this was decided.
pub(super) struct Merging {
    layout: ChunkLayout,
    /// Somebody asked for it: rows move even if their addresses are held.
    asked: bool,
    inputs: Vec<Arc<OpenSegment>>,
    /// Removals of each.
    deletes: Vec<Option<Arc<PartDeletes>>>,
    /// What was removed up to here is left out.
    horizon: CommitSeq,
}

/// What a merge made. Nobody lists it yet.
struct Merged {
    /// `None`: no row is left.
    segment: Option<SegmentRecord>,
    carried: ChunkDeletes,
    /// The youngest commit whose removals were left out.
    left_out: CommitSeq,
}

impl Core {
    pub(super) fn merge_due(&self) -> Result<usize> {
        let _one_at_a_time = self.merging.lock();
        let chunks = {
            let mut state = self.state.lock();
            state.mark(self.clock.elapsed(), self.options.snapshot_age_max);
            let mut chunks = state.chunks.keys().copied().collect::<Vec<_>>();
            chunks.sort();
            chunks
        };
        let (mut merged, mut failure) = (0, None);
        for id in chunks {
            while !self.closing.load(Ordering::SeqCst) {
                let due = self.mergeable(id);
                match due.and_then(|due| due.map_or(Ok(false), |merging| self.merge(id, &merging))) {
                    Ok(true) => merged += 1,
                    Ok(false) => break,
                    Err(error) => {
                        if let Some(chunk) = self.state.lock().chunks.get_mut(&id) {
                            chunk.unmergeable = !error.is_disk_full();
                        }
                        failure.get_or_insert(error);
                        break;
                    }
                }
            }
        }
        failure.map_or(Ok(merged), Err)
    }

    /// Whether nothing stood in the way.
    pub(super) fn merge(&self, id: ChunkId, merging: &Merging) -> Result<bool> {
        let gathered = merging.gather(id)?;
        let number = self.next_number();
        let merged = gathered.write(self, id, number, &merging.layout);
        merged.and_then(|merged| self.list_merged(id, merging, merged)).inspect_err(|error| {
            // After any other failure the manifest on the disk may list it; an unlisted file goes at the next start.
            if error.is_disk_full() {
                drop(self.vfs.remove(&self.segments_dir().join(segment::file_name(id, number))));
            }
            if matches!(error, StorageError::Io { .. }) && !error.is_disk_full() {
                // Nothing is known about what the disk holds.
                self.poison(error.to_string());
            }
        })
    }

    /// `None` when nothing is due.
    fn mergeable(&self, id: ChunkId) -> Result<Option<Merging>> {
        let now = self.clock.elapsed();
        let (layout, segments, deletes, horizon) = {
            let state = self.state.lock();
            let Some(chunk) = state.chunks.get(&id).filter(|chunk| chunk.damage.is_none() && !chunk.unmergeable) else {
                return Ok(None);
            };
            let horizon = state.horizon(now, self.options.snapshot_age_max);
            if chunk.held(now) || due(&chunk.segments, &chunk.deletes, horizon, &self.options).is_empty() {
                return Ok(None);
            }
            let claimed = claimed(&state, id);
            let free = |segment: &&Arc<Segment>| !claimed.contains(&Part::segment(segment.record.number));
            let segments = chunk.segments.iter().filter(free).cloned().collect::<Vec<_>>();
            (chunk.layout.clone(), segments, Arc::clone(&chunk.deletes), horizon)
        };
        let mut shapes: Vec<(Shape, Vec<Arc<Segment>>)> = Vec::new();
        for segment in segments {
            let shape = segment.open(self.vfs.as_ref(), &self.files, &ScanTally::default())?.shape();
            match shapes.iter_mut().find(|(other, _)| *other == shape) {
                Some((_, same)) => same.push(segment),
                None => shapes.push((shape, vec![segment])),
            }
        }
        let chosen = shapes.iter().map(|(_, same)| due(same, &deletes, horizon, &self.options));
        let Some(chosen) = chosen.into_iter().find(|chosen| !chosen.is_empty()) else { return Ok(None) };
        let inputs = chosen.iter().map(|segment| segment.open(self.vfs.as_ref(), &self.files, &ScanTally::default()));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        Ok(Some(Merging::new(layout, false, inputs, &deletes, horizon)))
    }

    /// Puts the new segment in the place of the old ones; whether nothing stood in the way.
    fn list_merged(&self, id: ChunkId, merging: &Merging, merged: Merged) -> Result<bool> {
        let _no_seal = self.sealing.lock();
        let Some(deletes) = self.claim(id, merging, &merged) else {
            merged.segment.iter().for_each(|record| self.remove_later(&self.segments_dir().join(record.file_name(id))));
            return Ok(false);
        };
        let listed = self.replace_segments(id, merging, merged, deletes);
        if let Some(chunk) = self.state.lock().chunks.get_mut(&id) {
            chunk.moving.clear();
        }
        self.changed.notify_all();
        listed
    }

    /// Keeps everybody off the old segments' rows. All removals of segments that are to be in the chunk's deletes file;
    /// `None` when the merge came too late.
    fn claim(&self, id: ChunkId, merging: &Merging, merged: &Merged) -> Option<ChunkDeletes> {
        let mut state = self.state.lock();
        let claimed = claimed(&state, id);
        let chunk = state.chunks.get_mut(&id)?;
        let unchanged = merging.parts().zip(&merging.deletes).all(|(part, before)| {
            let same = match (chunk.deletes.get(&part), before) {
                (Some(now), Some(before)) => Arc::ptr_eq(now, before),
                (now, before) => now.is_none() && before.is_none(),
            };
            same && !claimed.contains(&part)
        });
        if !unchanged || !merging.asked && chunk.held(self.clock.elapsed()) {
            return None;
        }
        chunk.moving.extend(merging.parts());
        let unsealed = chunk.removals.iter().map(|removal| removal.seq).collect();
        let mut deletes = deletes::without(&chunk.deletes, &unsealed);
        let old = merging.parts().collect::<HashSet<_>>();
        deletes.retain(|part, _| part.is_segment() && !old.contains(part));
        deletes.extend(merged.carried.iter().map(|(part, rows)| (*part, Arc::clone(rows))));
        Some(deletes)
    }

    fn replace_segments(&self, id: ChunkId, merging: &Merging, merged: Merged, all: ChunkDeletes) -> Result<bool> {
        let dir = self.segments_dir();
        let mut durable = self.durable.lock();
        if durable.dropped.contains(id) {
            merged.segment.iter().for_each(|record| self.remove_later(&dir.join(record.file_name(id))));
            return Ok(false);
        }
        let deletes_file = match all.is_empty() {
            true => None,
            false => Some(self.write_deletes(id, &all)?),
        };
        self.vfs.sync_dir(&dir).map_err(StorageError::io("sync", &dir))?;
        let old = merging.inputs.iter().map(|input| input.record.number).collect::<BTreeSet<_>>();
        let replaced = self.replace_manifest(&mut durable, None, |manifest| {
            let chunk = manifest.chunks.get_mut(&id).expect("a chunk with segments is listed");
            if merging.asked {
                chunk.layout = merging.layout.clone();
            }
            chunk.segments.retain(|record| !old.contains(&record.number));
            chunk.segments.extend(merged.segment.clone());
            chunk.deletes = deletes_file.clone();
            chunk.horizon = chunk.horizon.max(merged.left_out);
        });
        if let Err(error) = replaced {
            if error.is_disk_full() {
                deletes_file.iter().for_each(|file| drop(self.vfs.remove(&dir.join(file.file_name(id)))));
            }
            return Err(error);
        }
        let mut state = self.state.lock();
        let chunk = state.chunks.get_mut(&id).expect("a chunk leaves only with the manifest locked");
        let kept = chunk.segments.iter().filter(|segment| !old.contains(&segment.record.number)).cloned();
        let added = merged.segment.into_iter().map(|record| Segment::new(record, &dir, id));
        chunk.segments = Arc::new(kept.chain(added).collect());
        let deletes = Arc::make_mut(&mut chunk.deletes);
        merging.parts().for_each(|part| drop(deletes.remove(&part)));
        deletes.extend(merged.carried);
        chunk.horizon = chunk.horizon.max(merged.left_out);
        let former = std::mem::replace(&mut chunk.deletes_file, deletes_file);
        drop(state);
        drop(durable);
        merging.inputs.iter().for_each(|input| self.remove_later(input.path()));
        former.into_iter().for_each(|file| self.remove_later(&dir.join(file.file_name(id))));
        Ok(true)
    }

    /// A new deletes file; removed again when it cannot be written whole.
    pub(super) fn write_deletes(&self, id: ChunkId, all: &ChunkDeletes) -> Result<DeletesRecord> {
        let (dir, number) = (self.segments_dir(), self.next_number());
        deletes::write(self.vfs.as_ref(), &dir, id, number, all)
            .inspect_err(|_| drop(self.vfs.remove(&dir.join(deletes::file_name(id, number)))))
    }
}

impl Merging {
    pub(super) fn new(
        layout: ChunkLayout,
        asked: bool,
        inputs: Vec<Arc<OpenSegment>>,
        deletes: &ChunkDeletes,
        horizon: CommitSeq,
    ) -> Merging {
        let deletes = inputs.iter().map(|input| deletes.get(&Part::segment(input.record.number)).cloned()).collect();
        Merging { layout, asked, inputs, deletes, horizon }
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        self.inputs.iter().map(|input| Part::segment(input.record.number))
    }

    fn gather(&self, id: ChunkId) -> Result<Gathered> {
        let ids = self.inputs[0].shape().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        let rows = SegmentRows { batches: Vec::new(), ids, time: None };
        let mut gathered = Gathered { rows, deletes: Vec::new(), left_out: CommitSeq::ZERO };
        for (input, deletes) in self.inputs.iter().zip(&self.deletes) {
            let gone = deletes.as_ref().map(|deletes| deletes.hidden(self.horizon)).filter(|gone| !gone.is_empty());
            let seqs = deletes.iter().flat_map(|deletes| deletes.by_seq()).map(|(seq, _)| seq);
            let left_out = seqs.filter(|seq| *seq <= self.horizon).max();
            gathered.left_out = gathered.left_out.max(left_out.unwrap_or(CommitSeq::ZERO));
            let left = deletes.as_ref().map(|deletes| match &gone {
                Some(gone) => deletes.leaving_out(gone),
                None => PartDeletes::clone(deletes),
            });
            let count = input.record.rows - gone.as_ref().map_or(0, |gone| gone.len());
            gathered.deletes.push((count as usize, left));
            let view = PartView { chunk: id, part: Part::segment(input.record.number), hidden: gone };
            read(input, view, &mut gathered.rows)?;
            gathered.rows.time = match (gathered.rows.time, input.record.time) {
                (Some((low, high)), Some((a, b))) => Some((low.min(a), high.max(b))),
                (one, other) => one.or(other),
            };
        }
        Ok(gathered)
    }
}

/// All rows of a merge, in memory.
struct Gathered {
    rows: SegmentRows,
    /// Of each old segment: how many of its rows are left, and which of those are removed.
    deletes: Vec<(usize, Option<PartDeletes>)>,
    left_out: CommitSeq,
}

impl Gathered {
    fn write(self, core: &Core, id: ChunkId, number: u64, layout: &ChunkLayout) -> Result<Merged> {
        let Gathered { rows, deletes, left_out } = self;
        let mut carried = ChunkDeletes::new();
        if rows.batches.is_empty() {
            return Ok(Merged { segment: None, carried, left_out });
        }
        let (record, order) = segment::write(core.vfs.as_ref(), &core.segments_dir(), id, number, layout, rows)?;
        let deletes = deletes.iter().map(|(rows, deletes)| (*rows, deletes.as_ref()));
        let deletes = deletes::carried(deletes, order.as_ref().map(|order| &order.values()[..]));
        if !deletes.all().is_empty() {
            carried.insert(Part::segment(number), Arc::new(deletes));
        }
        Ok(Merged { segment: Some(record), carried, left_out })
    }
}

/// Adds what the view shows of a segment to the rows.
fn read(input: &Arc<OpenSegment>, view: PartView, rows: &mut SegmentRows) -> Result<()> {
    let column = |id: &ColumnId| {
        let field = input.field(*id).expect("segments of one shape have the same columns");
        ScanColumn { id: *id, field, missing: None }
    };
    let mut columns = rows.ids.iter().map(column).collect::<Vec<_>>();
    columns.push(ScanColumn { id: SEQ, field: Field::new("seq", DataType::Int64, false), missing: None });
    let projection = Projection::new(columns);
    for batch in SegmentScan::new(Arc::clone(input), view, projection, &[], CommitSeq::MAX, READ_ROWS)? {
        let mut batch = batch?;
        let seqs = batch.remove_column(rows.ids.len());
        rows.batches.push((seqs.as_primitive::<Int64Type>().clone(), batch));
    }
    Ok(())
}

/// Segments that removals name which are not sealed yet, or not even committed.
pub(super) fn claimed(state: &State, id: ChunkId) -> HashSet<Part> {
    let staged = state.txns.values().flat_map(|txn| &txn.removals).filter(|staged| staged.chunk == id);
    let staged = staged.map(|staged| &staged.removal);
    let unsealed = state.chunks.get(&id).into_iter().flat_map(|chunk| &chunk.removals).map(|removal| &removal.removal);
    staged.chain(unsealed).flat_map(|removal| removal.parts.iter().map(|(part, _)| *part)).collect()
}

/// The segments to merge now, of some that may be merged; none when none are due.
fn due(
    segments: &[Arc<Segment>],
    deletes: &ChunkDeletes,
    horizon: CommitSeq,
    options: &super::StoreOptions,
) -> Vec<Arc<Segment>> {
    let worn = segments.iter().find(|segment| {
        let removed = deletes.get(&Part::segment(segment.record.number));
        let gone = removed.map_or(0, |removed| removed.hidden(horizon).len());
        gone * REMOVED_PART > segment.record.rows
    });
    if let Some(worn) = worn {
        return vec![Arc::clone(worn)];
    }
    let mut sized = segments.iter().collect::<Vec<_>>();
    sized.sort_by_key(|segment| segment.record.raw_bytes);
    for (at, smallest) in sized.iter().enumerate() {
        let (bytes_max, mut bytes) = (smallest.record.raw_bytes.max(SMALL_BYTES) * SIZE_FACTOR, 0);
        let run = sized[at..].iter().take_while(|segment| {
            bytes += segment.record.raw_bytes;
            segment.record.raw_bytes <= bytes_max && bytes <= options.segment_bytes_max as u64
        });
        let run = run.map(|segment| Arc::clone(segment)).collect::<Vec<_>>();
        if run.len() >= options.merge_segments_min {
            return run;
        }
    }
    Vec::new()
}

impl Chunk {
    /// Whether somebody may hold addresses of its rows.
    fn held(&self, now: Duration) -> bool {
        self.pinned_until > now && self.segments.len() <= PINNED_SEGMENTS_MAX
    }
}
