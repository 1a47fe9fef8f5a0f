//! Sealing: a chunk's delta becomes segments. Readers and writers go on meanwhile; they meet the change in two short
//! critical sections.
//!
//! Which rows? Those whose commit record lies before a position that no commit in flight can still write behind
//! (`Phase::Committing`). So "commit record before `sealed_before`" names exactly the rows in segments, in memory and at
//! the next recovery.

use super::state::{Phase, State};
use super::{Core, Store};
use crate::delta::DeltaBatch;
use crate::error::{Result, StorageError};
use crate::log::Lsn;
use crate::manifest::ChunkRecord;
use crate::segment::{self, Segment, SegmentRecord, SegmentRows};
use arrow::datatypes::DataType;
use proto::{ChunkId, ChunkLayout, ColumnId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the thread looks for chunks that have come of age.
const TICK: Duration = Duration::from_secs(1);

impl Store {
    /// Seals what the chunk holds unsealed; whether there was anything.
    ///
    /// # Errors
    /// A full disk leaves everything as it was; a failed fsync stops the store.
    pub fn seal(&self, chunk: ChunkId) -> Result<bool, StorageError> {
        self.core.check()?;
        self.core.seal(chunk)
    }

    /// Seals the chunks that are due by size, by age, or because memory runs short. How many there were.
    pub fn seal_due(&self) -> Result<usize, StorageError> {
        self.core.check()?;
        self.core.seal_due()
    }
}

pub(super) fn start(core: Arc<Core>, woken: crossbeam::channel::Receiver<()>) -> Result<JoinHandle<()>> {
    let dir = core.dir.clone();
    let run = move || {
        while !core.closing.load(Ordering::SeqCst) && core.poison.get().is_none() {
            match catch_unwind(AssertUnwindSafe(|| core.seal_due())) {
                Ok(Ok(_)) => {}
                // The rows stay in the delta and the log; the next tick tries again.
                Ok(Err(error)) => tracing::warn!(%error, "sealing failed"),
                Err(_) => core.poison("the sealing thread panicked"),
            }
            woken.recv_timeout(TICK).ok();
        }
    };
    let thread = std::thread::Builder::new().name("seriatim-seal".to_owned()).spawn(run);
    thread.map_err(StorageError::io("start the sealing thread of", &dir))
}

impl Core {
    pub(super) fn any_due(&self, state: &State) -> bool {
        state.bytes > self.options.delta_bytes_max / 2
            || state.chunks.values().any(|chunk| chunk.delta_bytes >= self.options.seal_bytes)
    }

    fn seal_due(&self) -> Result<usize> {
        let mut sealed = 0;
        while let Some(chunk) = self.most_due() {
            if self.closing.load(Ordering::SeqCst) || !self.seal(chunk)? {
                break;
            }
            sealed += 1;
        }
        Ok(sealed)
    }

    fn most_due(&self) -> Option<ChunkId> {
        let state = self.state.lock();
        let (now, pressed) = (self.clock.elapsed(), state.bytes > self.options.delta_bytes_max / 2);
        let due = state.chunks.iter().filter(|(_, chunk)| {
            let aged = now.saturating_sub(chunk.delta_since) >= self.options.seal_age;
            !chunk.delta.is_empty() && (pressed || aged || chunk.delta_bytes >= self.options.seal_bytes)
        });
        due.max_by_key(|(id, chunk)| (chunk.delta_bytes, **id)).map(|(id, _)| *id)
    }

    fn seal(&self, id: ChunkId) -> Result<bool> {
        let _one_at_a_time = self.sealing.lock();
        let Some((before, layout, batches)) = self.sealable(id) else { return Ok(false) };
        let mut number = self.durable.lock().segment_next;
        let dir = self.segments_dir();
        let mut records = Vec::new();
        for rows in segments_of(batches, self.options.segment_bytes_max) {
            match segment::write(self.vfs.as_ref(), &dir, id, number, &layout, rows) {
                Ok(record) => records.push(record),
                Err(error) => {
                    self.remove_segments(id, &records);
                    return Err(self.failed_seal(error));
                }
            }
            number += 1;
        }
        self.vfs.sync_dir(&dir).map_err(StorageError::io("sync", &dir)).map_err(|error| self.failed_seal(error))?;

        let mut durable = self.durable.lock();
        if durable.dropped.contains(id) {
            self.remove_segments(id, &records);
            return Ok(false);
        }
        let replaced = self.replace_manifest(&mut durable, Some((id, before)), |manifest| {
            manifest.segment_next = number;
            let empty = ChunkRecord { layout: layout.clone(), sealed_before: before, segments: Vec::new() };
            let chunk = manifest.chunks.entry(id).or_insert(empty);
            chunk.layout = layout.clone();
            chunk.sealed_before = before;
            chunk.segments.extend(records.iter().cloned());
        });
        if let Err(error) = replaced {
            if error.is_disk_full() {
                self.remove_segments(id, &records);
            }
            return Err(error);
        }
        let mut state = self.state.lock();
        let chunk = state.chunks.get_mut(&id).expect("a chunk leaves only with the manifest locked");
        let (sealed, kept) = chunk.delta.iter().cloned().partition::<Vec<_>, _>(|batch| batch.commit_lsn < before);
        let bytes = sealed.iter().map(|batch| batch.rows.bytes).sum::<usize>();
        chunk.delta = Arc::new(kept);
        chunk.delta_bytes -= bytes;
        chunk.delta_since = self.clock.elapsed();
        chunk.sealed_before = before;
        let added = records.into_iter().map(|record| Segment::new(record, &dir, id));
        chunk.segments = Arc::new(chunk.segments.iter().cloned().chain(added).collect());
        state.bytes -= bytes;
        drop(state);
        self.changed.notify_all();
        Ok(true)
    }

    /// The rows to seal, and the log position before which their commits lie. `None` when there are none.
    fn sealable(&self, id: ChunkId) -> Option<(Lsn, ChunkLayout, Vec<DeltaBatch>)> {
        let state = self.state.lock();
        let in_flight = state.txns.values().filter_map(|txn| match txn.phase {
            Phase::Committing { floor } => Some(floor),
            _ => None,
        });
        let before = in_flight.min().unwrap_or_else(|| self.log.end());
        let chunk = state.chunks.get(&id)?;
        let batches = chunk.delta.iter().filter(|batch| batch.commit_lsn < before).cloned().collect::<Vec<_>>();
        (!batches.is_empty()).then(|| (before, chunk.layout.clone(), batches))
    }

    /// A full disk is survived; after any other failure nothing is known about what the disk holds.
    fn failed_seal(&self, error: StorageError) -> StorageError {
        if matches!(error, StorageError::Io { .. }) && !error.is_disk_full() {
            self.poison(error.to_string());
        }
        error
    }

    /// Files nobody lists; what stays behind is removed at the next start.
    fn remove_segments(&self, id: ChunkId, records: &[SegmentRecord]) {
        let dir = self.segments_dir();
        records.iter().for_each(|record| drop(self.vfs.remove(&dir.join(record.file_name(id)))));
    }
}

/// Batches that can share a segment, in groups up to `bytes_max`: rows without a column that was added later must not be
/// mixed with rows that have it, or they would lose the value they read as.
fn segments_of(batches: Vec<DeltaBatch>, bytes_max: usize) -> Vec<SegmentRows> {
    type Shape = Vec<(ColumnId, DataType)>;
    let mut groups: Vec<(Shape, usize, SegmentRows)> = Vec::new();
    for batch in batches.into_iter().filter(|batch| batch.rows.batch.num_rows() > 0) {
        let rows = &batch.rows;
        let types = rows.batch.schema();
        let types = types.fields().iter().map(|field| field.data_type().clone());
        let shape = rows.ids.iter().copied().zip(types).collect::<Shape>();
        let fitting = groups.iter_mut().find(|(other, bytes, _)| *other == shape && bytes + rows.bytes <= bytes_max);
        let (_, bytes, segment) = match fitting {
            Some(group) => group,
            None => {
                let empty = SegmentRows { batches: Vec::new(), ids: rows.ids.clone(), time: None };
                groups.push((shape, 0, empty));
                groups.last_mut().expect("just pushed")
            }
        };
        *bytes += rows.bytes;
        segment.batches.push((batch.seq, rows.batch.clone()));
        segment.time = match (segment.time, rows.time) {
            (Some((low, high)), Some((a, b))) => Some((low.min(a), high.max(b))),
            (one, other) => one.or(other),
        };
    }
    groups.into_iter().map(|(_, _, segment)| segment).collect()
}
