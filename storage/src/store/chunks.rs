//! Whole chunks: their sizes, and their end.

use super::Store;
use crate::deletes;
use crate::error::{Result, StorageError};
use proto::{ChunkId, ChunkStats};
use std::collections::HashSet;

impl Store {
    /// Sizes of chunks; those that never had rows here are left out. Rows are those that the latest commit left.
    pub fn chunk_stats(&self, chunks: &[ChunkId]) -> Result<Vec<ChunkStats>, StorageError> {
        self.core.check()?;
        let state = self.core.state.lock();
        let stats = chunks.iter().filter_map(|id| {
            let chunk = state.chunks.get(id)?;
            let records = chunk.segments.iter().map(|segment| &segment.record);
            let unsealed = chunk.delta.iter().map(|batch| batch.rows.batch.num_rows() as u64).sum::<u64>();
            let raw_bytes = records.clone().map(|record| record.raw_bytes).sum();
            let rows = records.clone().map(|record| record.rows).sum::<u64>() + unsealed;
            let deletes_bytes = chunk.deletes_file.as_ref().map_or(0, |file| file.bytes);
            Some(ChunkStats {
                chunk: *id,
                rows: rows - deletes::count(&chunk.deletes),
                disk_bytes: records.map(|record| record.bytes).sum::<u64>() + deletes_bytes,
                delta_bytes: chunk.delta_bytes as u64,
                segments: chunk.segments.len() as u32,
                raw_bytes,
            })
        });
        Ok(stats.collect())
    }

    /// All chunks that hold rows here.
    pub fn chunks(&self) -> Vec<ChunkId> {
        let mut chunks = self.core.state.lock().chunks.keys().copied().collect::<Vec<_>>();
        chunks.sort();
        chunks
    }

    /// Removes chunks for ever: later writes and scans are refused, scans in progress go on, staged rows go nowhere.
    /// Idempotent; durable on return.
    pub fn drop_chunks(&self, chunks: &[ChunkId]) -> Result<(), StorageError> {
        let core = &self.core;
        core.check()?;
        let mut durable = core.durable.lock();
        let fresh = chunks.iter().copied().filter(|id| !durable.dropped.contains(*id)).collect::<HashSet<_>>();
        if fresh.is_empty() {
            return Ok(());
        }
        core.replace_manifest(&mut durable, None, |manifest| {
            fresh.iter().for_each(|id| {
                manifest.dropped.insert(*id);
                manifest.chunks.remove(id);
            });
        })?;
        let mut files = Vec::new();
        {
            let mut state = core.state.lock();
            state.dropped = durable.dropped.clone();
            for id in &fresh {
                if let Some(chunk) = state.chunks.remove(id) {
                    state.bytes -= chunk.delta_bytes;
                    files.extend(chunk.segments.iter().map(|segment| segment.path().to_owned()));
                    let deletes = chunk.deletes_file.map(|file| core.segments_dir().join(file.file_name(*id)));
                    files.extend(deletes);
                }
            }
        }
        drop(durable);
        core.changed.notify_all();
        for file in files {
            core.remove_later(&file);
        }
        Ok(())
    }
}
