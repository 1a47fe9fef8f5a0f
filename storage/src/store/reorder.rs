//! Reordering: segments in another order than the one asked for are written again, each by a merge of its own. Nothing
//! reorders by itself: segments written under an earlier layout keep its order until somebody asks.
//!
//! Rows move even if somebody may hold their addresses, as with every seal that is asked for: who comes with an old
//! address is refused, and finds the row again. A crash leaves each segment in the old order or in the new one.

use super::merge::{Merging, claimed};
use super::{Core, Store};
use crate::deletes::Part;
use crate::error::{Result, StorageError};
use proto::{ChunkId, ChunkLayout, ScanTally};
use std::sync::Arc;

impl Store {
    /// Seals what the chunk holds unsealed, and rewrites its segments that are in another order than the layout's. What is
    /// sealed and merged from now on has the layout's order too, until a write brings another layout.
    ///
    /// Left as they are: segments of which a transaction is removing rows, and those without a column of the order.
    ///
    /// # Errors
    /// Those of `seal`; a damaged segment. What was rewritten before stays so.
    pub fn seal_sorted(&self, chunk: ChunkId, layout: &ChunkLayout) -> Result<(), StorageError> {
        let core = &self.core;
        core.check()?;
        if let Some(chunk) = core.state.lock().chunks.get_mut(&chunk) {
            chunk.layout = layout.clone();
        }
        core.seal(chunk, false)?;
        let _one_at_a_time = core.merging.lock();
        for number in core.missorted(chunk, layout) {
            core.check()?;
            if let Some(merging) = core.reorderable(chunk, number, layout)? {
                core.merge(chunk, &merging)?;
            }
        }
        Ok(())
    }
}

impl Core {
    fn missorted(&self, id: ChunkId, layout: &ChunkLayout) -> Vec<u64> {
        let state = self.state.lock();
        let segments = state.chunks.get(&id).into_iter().flat_map(|chunk| chunk.segments.iter());
        segments.map(|segment| &segment.record).filter(|one| one.sort != layout.sort).map(|one| one.number).collect()
    }

    /// `None` when the segment is to stay as it is.
    fn reorderable(&self, id: ChunkId, number: u64, layout: &ChunkLayout) -> Result<Option<Merging>> {
        let (segment, deletes, horizon) = {
            let state = self.state.lock();
            let Some(chunk) = state.chunks.get(&id).filter(|chunk| chunk.damage.is_none()) else { return Ok(None) };
            let segment = chunk.segments.iter().find(|segment| segment.record.number == number);
            let segment = segment.filter(|_| !claimed(&state, id).contains(&Part::segment(number)));
            let Some(segment) = segment.cloned() else { return Ok(None) };
            (segment, Arc::clone(&chunk.deletes), state.horizon(self.clock.elapsed(), self.options.snapshot_age_max))
        };
        let input = segment.open(self.vfs.as_ref(), &self.files, &ScanTally::default())?;
        let sortable = layout.sort.iter().all(|column| input.field(*column).is_some());
        Ok(sortable.then(|| Merging::new(layout.clone(), true, vec![input], &deletes, horizon)))
    }
}
