//! Whether rows may be removed: nobody else removes them, and they are where the remover saw them.
//!
//! Looked at under the state lock, with the removal registered before the lock is given up. Who finds a row removed by a
//! transaction that is still open waits for its end, and looks again.

use super::Core;
use super::state::{StagedWrite, State};
use crate::deletes::{Part, Removal};
use crate::error::{Result, StorageError};
use parking_lot::MutexGuard;
use proto::{ChunkId, SubTxn, TxnId};
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What one `stage` adds.
pub(super) struct Staging {
    pub(super) sub: SubTxn,
    /// With their index in the log record.
    pub(super) writes: Vec<(usize, StagedWrite)>,
    pub(super) removals: Vec<(ChunkId, Arc<Removal>)>,
    pub(super) bytes: usize,
}

/// Why a change cannot be registered yet.
pub(super) struct Busy {
    pub(super) chunk: ChunkId,
    /// `None`: rows are on their way into segments.
    pub(super) holder: Option<TxnId>,
}

impl Core {
    /// Waits until the changes stand in nobody's way.
    ///
    /// # Errors
    /// The look's own; `LockTimeout` after `lock_wait_max` since the given time.
    pub(super) fn wait_while_busy(
        &self,
        state: &mut MutexGuard<State>,
        txn: TxnId,
        since: Duration,
        mut look: impl FnMut(&State) -> Result<Option<Busy>>,
    ) -> Result<()> {
        loop {
            let Some(Busy { chunk, holder }) = look(state)? else { return Ok(()) };
            assert_ne!(holder, Some(txn), "no transaction waits for itself");
            let left = self.options.lock_wait_max.saturating_sub(self.clock.elapsed().saturating_sub(since));
            let timed_out = left == Duration::ZERO || self.changed.wait_for(state, left).timed_out();
            self.check()?;
            if timed_out {
                return match look(state)? {
                    Some(_) => Err(StorageError::LockTimeout { chunk, holder }),
                    None => Ok(()),
                };
            }
        }
    }

    /// `None`: all rows can be removed.
    pub(super) fn removal_busy(
        &self,
        state: &State,
        txn: TxnId,
        id: ChunkId,
        removal: &Removal,
    ) -> Result<Option<Busy>> {
        let own = state.txns.get(&txn).into_iter().flat_map(|entry| &entry.writes);
        let own = own.filter(|write| write.chunk == id);
        let own = own.filter_map(|write| Some((write.part?, write.rows.batch.num_rows() as u64)));
        let own = own.collect::<HashMap<_, _>>();
        let chunk = state.chunks.get(&id);
        for (part, rows) in &removal.parts {
            let held = own.get(part).copied().or_else(|| chunk?.rows_of(*part));
            let held = held.ok_or(StorageError::Conflict(id))?;
            if rows.max().is_some_and(|row| u64::from(row) >= held) {
                return Err(StorageError::BadWrite(format!("part {} of chunk {id} has {held} rows", part.0)));
            }
            if chunk.is_some_and(|chunk| chunk.moving.contains(part)) {
                return Ok(Some(Busy { chunk: id, holder: None }));
            }
            let removed = chunk.and_then(|chunk| chunk.deletes.get(part));
            if removed.is_some_and(|removed| !removed.all().is_disjoint(rows)) {
                return Err(StorageError::Conflict(id));
            }
            if let Some(holder) = remover(state, txn, id, *part, rows) {
                return Ok(Some(Busy { chunk: id, holder: Some(holder) }));
            }
        }
        Ok(None)
    }
}

/// Another open transaction that removes one of the rows.
fn remover(state: &State, txn: TxnId, id: ChunkId, part: Part, rows: &RoaringBitmap) -> Option<TxnId> {
    let others = state.txns.iter().filter(|(other, _)| **other != txn);
    let mut removing = others.filter(|(_, entry)| {
        let here = entry.removals.iter().filter(|staged| staged.chunk == id);
        here.filter_map(|staged| staged.removal.of(part)).any(|other| !other.is_disjoint(rows))
    });
    removing.next().map(|(other, _)| *other)
}
