//! Sealing: a chunk's delta becomes segments, and its removals a deletes file. Readers and writers go on meanwhile; they
//! meet the change in two short critical sections.
//!
//! Which rows? Those whose commit record lies before a position that no commit in flight can still write behind
//! (`Phase::Committing`). So "commit record before `sealed_before`" names exactly the rows in segments, in memory and at
//! the next recovery. Which removals? The same: and so the position is taken so low that no row before it is removed by
//! a transaction that is open, or commits behind it. While the rows move, who wants to remove one waits.

use super::state::{Chunk, Phase, State};
use super::{Core, Store};
use crate::deletes::{self, ChunkDeletes, DeletesRecord, Part};
use crate::delta::DeltaBatch;
use crate::error::{Result, StorageError};
use crate::log::Lsn;
use crate::manifest::ChunkRecord;
use crate::segment::{self, Segment, SegmentRecord, SegmentRows, Shape, same_seq};
use proto::{ChunkId, ChunkLayout, CommitSeq};
use std::path::PathBuf;
use std::sync::Arc;

impl Store {
    /// Seals what the chunk holds unsealed; whether there was anything.
    ///
    /// # Errors
    /// A full disk leaves everything as it was; a failed fsync stops the store. `Damaged` when the chunk is closed.
    pub fn seal(&self, chunk: ChunkId) -> Result<bool, StorageError> {
        self.core.check()?;
        self.core.seal(chunk, false)
    }
}

/// What one seal moves.
struct Sealing {
    before: Lsn,
    layout: ChunkLayout,
    batches: Vec<DeltaBatch>,
    /// All removals that are to be in the deletes file, those of `batches` still under their old addresses.
    deletes: ChunkDeletes,
    /// There are some that no deletes file holds yet.
    deletes_due: bool,
}

/// Files of a seal, that nobody lists yet.
struct Written {
    segments: Vec<SegmentRecord>,
    /// Removals of the new segments.
    carried: ChunkDeletes,
    deletes_file: Option<DeletesRecord>,
    paths: Vec<PathBuf>,
}

impl Core {
    /// `pressed`: transactions that only staged removals of the rows do not hold them back; they lose.
    pub(super) fn seal(&self, id: ChunkId, pressed: bool) -> Result<bool> {
        let _one_at_a_time = self.sealing.lock();
        self.state.lock().chunks.get(&id).map_or(Ok(()), |chunk| chunk.check())?;
        let Some(sealing) = self.sealable(id, pressed) else { return Ok(false) };
        let sealed = self.write_sealed(id, &sealing).and_then(|written| self.list_sealed(id, &sealing, written));
        if let Some(chunk) = self.state.lock().chunks.get_mut(&id) {
            chunk.moving.clear();
        }
        self.changed.notify_all();
        sealed
    }

    /// `None` when there is nothing to seal.
    fn sealable(&self, id: ChunkId, pressed: bool) -> Option<Sealing> {
        let mut state = self.state.lock();
        if pressed {
            break_removers(&mut state, id);
        }
        let before = self.movable_before(&state, id)?;
        let chunk = state.chunks.get_mut(&id)?;
        let batches = chunk.delta.iter().filter(|batch| batch.commit_lsn < before).cloned().collect::<Vec<_>>();
        let deletes_due = chunk.removals.iter().any(|removal| removal.commit_lsn < before);
        if batches.is_empty() && !deletes_due {
            return None;
        }
        chunk.moving = batches.iter().map(|batch| batch.part).collect();
        let later = chunk.removals.iter().filter(|removal| removal.commit_lsn >= before);
        let deletes = deletes::without(&chunk.deletes, &later.map(|removal| removal.seq).collect());
        Some(Sealing { before, layout: chunk.layout.clone(), batches, deletes, deletes_due })
    }

    /// The log position up to which the chunk's changes can be sealed.
    fn movable_before(&self, state: &State, id: ChunkId) -> Option<Lsn> {
        let chunk = state.chunks.get(&id)?;
        let in_flight = state.txns.values().filter_map(|txn| match txn.phase {
            Phase::Committing { floor } => Some(floor),
            _ => None,
        });
        let mut before = in_flight.min().unwrap_or_else(|| self.log.end());
        let staged = state.txns.values().flat_map(|txn| &txn.removals).filter(|staged| staged.chunk == id);
        let staged = staged.map(|staged| &staged.removal).collect::<Vec<_>>();
        loop {
            let later = chunk.removals.iter().filter(|removal| removal.commit_lsn >= before);
            let later = later.map(|removal| &removal.removal).chain(staged.iter().copied());
            let batches = later.flat_map(|removal| &removal.parts).filter_map(|(part, _)| chunk.batch(*part));
            match batches.map(|batch| batch.commit_lsn).filter(|commit| *commit < before).min() {
                Some(commit) => before = commit,
                None => return Some(before),
            }
        }
    }

    fn write_sealed(&self, id: ChunkId, sealing: &Sealing) -> Result<Written> {
        let mut written = Written { segments: vec![], carried: ChunkDeletes::new(), deletes_file: None, paths: vec![] };
        self.write_files(id, sealing, &mut written).map_err(|error| {
            self.remove_written(&written);
            if matches!(error, StorageError::Io { .. }) && !error.is_disk_full() {
                // A full disk is survived; after any other failure nothing is known about what the disk holds.
                self.poison(error.to_string());
            }
            error
        })?;
        Ok(written)
    }

    fn write_files(&self, id: ChunkId, sealing: &Sealing, written: &mut Written) -> Result<()> {
        let (vfs, dir) = (self.vfs.as_ref(), self.segments_dir());
        for SealedRows { rows, parts } in segments_of(&sealing.batches, self.options.segment_bytes_max) {
            let number = self.next_number();
            written.paths.push(dir.join(segment::file_name(id, number)));
            let (record, order) = segment::write(vfs, &dir, id, number, &sealing.layout, rows)?;
            let parts = parts.iter().map(|(part, rows)| (*rows, sealing.deletes.get(part).map(|part| part.as_ref())));
            let carried = deletes::carried(parts, order.as_ref().map(|order| &order.values()[..]));
            if !carried.all().is_empty() {
                written.carried.insert(Part::segment(number), Arc::new(carried));
            }
            written.segments.push(record);
        }
        if sealing.deletes_due {
            let listed = sealing.deletes.iter().filter(|(part, _)| part.is_segment());
            let mut all = listed.map(|(part, rows)| (*part, Arc::clone(rows))).collect::<ChunkDeletes>();
            all.extend(written.carried.iter().map(|(part, rows)| (*part, Arc::clone(rows))));
            if !all.is_empty() {
                let file = self.write_deletes(id, &all)?;
                written.paths.push(dir.join(file.file_name(id)));
                written.deletes_file = Some(file);
            }
        }
        vfs.sync_dir(&dir).map_err(StorageError::io("sync", &dir))
    }

    /// Makes the files part of the chunk, and the rows leave the delta.
    fn list_sealed(&self, id: ChunkId, sealing: &Sealing, written: Written) -> Result<bool> {
        let before = sealing.before;
        let mut durable = self.durable.lock();
        if durable.dropped.contains(id) {
            self.remove_written(&written);
            return Ok(false);
        }
        let replaced = self.replace_manifest(&mut durable, Some((id, before)), |manifest| {
            let layout = sealing.layout.clone();
            let empty = ChunkRecord {
                layout,
                sealed_before: before,
                segments: Vec::new(),
                deletes: None,
                horizon: CommitSeq::ZERO,
            };
            let chunk = manifest.chunks.entry(id).or_insert(empty);
            chunk.layout = sealing.layout.clone();
            chunk.sealed_before = before;
            chunk.segments.extend(written.segments.iter().cloned());
            if sealing.deletes_due {
                chunk.deletes = written.deletes_file.clone();
            }
        });
        if let Err(error) = replaced {
            if error.is_disk_full() {
                self.remove_written(&written);
            }
            return Err(error);
        }
        let dir = self.segments_dir();
        let mut state = self.state.lock();
        let chunk = state.chunks.get_mut(&id).expect("a chunk leaves only with the manifest locked");
        let former = match sealing.deletes_due {
            true => std::mem::replace(&mut chunk.deletes_file, written.deletes_file),
            false => None,
        };
        let added = written.segments.into_iter().map(|record| Segment::new(record, &dir, id));
        chunk.segments = Arc::new(chunk.segments.iter().cloned().chain(added).collect());
        let bytes = chunk.leave_delta(before, written.carried);
        chunk.delta_since = self.clock.elapsed();
        state.bytes -= bytes;
        drop(state);
        drop(durable);
        former.into_iter().for_each(|file| self.remove_later(&dir.join(file.file_name(id))));
        Ok(true)
    }

    /// Files nobody lists; what stays behind is removed at the next start.
    fn remove_written(&self, written: &Written) {
        written.paths.iter().for_each(|path| drop(self.vfs.remove(path)));
    }
}

impl Chunk {
    /// Forgets what was sealed; the bytes that frees.
    fn leave_delta(&mut self, before: Lsn, carried: ChunkDeletes) -> usize {
        let (sealed, kept) = self.delta.iter().cloned().partition::<Vec<_>, _>(|batch| batch.commit_lsn < before);
        let deletes = Arc::make_mut(&mut self.deletes);
        sealed.iter().for_each(|batch| drop(deletes.remove(&batch.part)));
        deletes.extend(carried);
        let (done, later) = self.removals.drain(..).partition::<Vec<_>, _>(|removal| removal.commit_lsn < before);
        let rows = sealed.iter().map(|batch| batch.rows.bytes).sum::<usize>();
        let bytes = rows + done.iter().map(|removal| removal.removal.bytes).sum::<usize>();
        self.delta = Arc::new(kept);
        self.removals = later;
        self.delta_bytes -= bytes;
        self.sealed_before = before;
        bytes
    }
}

/// Open transactions that staged removals of unsealed rows of the chunk, and have not voted, can no longer commit.
fn break_removers(state: &mut State, id: ChunkId) {
    let State { txns, chunks, bytes, .. } = state;
    let Some(chunk) = chunks.get(&id) else { return };
    for entry in txns.values_mut().filter(|entry| entry.phase == Phase::Staged) {
        let here = entry.removals.iter().filter(|staged| staged.chunk == id);
        let mut parts = here.flat_map(|staged| &staged.removal.parts);
        if parts.any(|(part, _)| chunk.batch(*part).is_some()) {
            let since = entry.removals.iter().map(|staged| staged.sub).min().expect("it removes rows");
            entry.break_at(since, "removes rows that were moved because memory ran short");
            let freed = entry.removals.drain(..).map(|staged| staged.removal.bytes).sum::<usize>();
            entry.bytes -= freed;
            *bytes -= freed;
        }
    }
}

/// Rows of one segment to come, and the batches they come from, with their lengths.
struct SealedRows {
    rows: SegmentRows,
    parts: Vec<(Part, usize)>,
}

/// Batches that can share a segment, in groups up to `bytes_max`: rows without a column that was added later must not be
/// mixed with rows that have it, or they would lose the value they read as.
fn segments_of(batches: &[DeltaBatch], bytes_max: usize) -> Vec<SealedRows> {
    let mut groups: Vec<(Shape, usize, SealedRows)> = Vec::new();
    for batch in batches.iter().filter(|batch| batch.rows.batch.num_rows() > 0) {
        let rows = &batch.rows;
        let types = rows.batch.schema();
        let types = types.fields().iter().map(|field| field.data_type().clone());
        let shape = rows.ids.iter().copied().zip(types).collect::<Shape>();
        let fitting = groups.iter_mut().find(|(other, bytes, _)| *other == shape && bytes + rows.bytes <= bytes_max);
        let (_, bytes, segment) = match fitting {
            Some(group) => group,
            None => {
                let empty = SegmentRows { batches: Vec::new(), ids: rows.ids.clone(), time: None };
                groups.push((shape, 0, SealedRows { rows: empty, parts: Vec::new() }));
                groups.last_mut().expect("just pushed")
            }
        };
        *bytes += rows.bytes;
        let count = rows.batch.num_rows();
        segment.parts.push((batch.part, count));
        segment.rows.batches.push((same_seq(batch.seq, count), rows.batch.clone()));
        segment.rows.time = match (segment.rows.time, rows.time) {
            (Some((low, high)), Some((a, b))) => Some((low.min(a), high.max(b))),
            (one, other) => one.or(other),
        };
    }
    groups.into_iter().map(|(_, _, segment)| segment).collect()
}
