//! The store's own threads: one seals what is due by size, by age, or because memory runs short; one merges; one makes
//! commits durable that nobody waited for.

use super::state::State;
use super::{Core, Store};
use crate::error::{Result, StorageError};
use crate::log::Lsn;
use crossbeam::channel::Receiver;
use proto::ChunkId;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the thread looks for chunks that have come of age.
const TICK: Duration = Duration::from_secs(1);
/// How long an asynchronous commit may wait for its fsync to begin: PostgreSQL's `wal_writer_delay`.
const SYNC_DELAY: Duration = Duration::from_millis(200);
/// Beyond this part of the memory unsealed rows count as much, however little is left.
const PRESSED_PART_MIN: usize = 16;

impl Store {
    /// Seals the chunks that are due by size, by age, or because memory runs short. How many there were.
    pub fn seal_due(&self) -> Result<usize, StorageError> {
        self.core.check()?;
        self.core.seal_due()
    }

    /// Makes everything durable that was committed.
    ///
    /// # Errors
    /// The failed fsync, which is the end of the store.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.core.check()?;
        self.core.sync_committed()
    }
}

/// Three threads, as merging takes long, sealing must not wait for it, and neither may hold up an fsync. `woken` wakes
/// the sealing one; when the sender of `stopped` goes, the others end.
pub(super) fn start(core: &Arc<Core>, woken: Receiver<()>, stopped: Receiver<()>) -> Result<Vec<JoinHandle<()>>> {
    let sealing = thread(core, "seriatim-seal", Core::seal_due, woken, TICK)?;
    let syncing = thread(core, "seriatim-sync", |core| core.sync_committed().map(|()| 0), stopped.clone(), SYNC_DELAY)?;
    let merging = thread(core, "seriatim-merge", Core::merge_due, stopped, TICK)?;
    Ok(vec![sealing, syncing, merging])
}

fn thread(
    core: &Arc<Core>,
    name: &'static str,
    work: fn(&Core) -> Result<usize>,
    woken: Receiver<()>,
    tick: Duration,
) -> Result<JoinHandle<()>> {
    let (core, dir) = (Arc::clone(core), core.dir.clone());
    let run = move || {
        while core.alive() {
            match catch_unwind(AssertUnwindSafe(|| work(&core))) {
                Ok(Ok(_)) => {}
                // Everything is as it was; the next tick tries again.
                Ok(Err(error)) => tracing::warn!(thread = name, %error, "work in the background failed"),
                Err(_) => core.poison(format!("the thread {name} panicked")),
            }
            if core.alive() {
                woken.recv_timeout(tick).ok();
            }
        }
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(StorageError::io("start a thread for", &dir))
}

impl Core {
    pub(super) fn any_due(&self, state: &State) -> bool {
        self.pressed(state) || state.chunks.values().any(|chunk| chunk.delta_bytes >= self.options.seal_bytes)
    }

    fn alive(&self) -> bool {
        !self.closing.load(Ordering::SeqCst) && self.poison.get().is_none()
    }

    /// Notes a commit that nobody waits for.
    pub(super) fn sync_later(&self, lsn: Lsn) {
        self.unsynced.fetch_max(lsn.0 + 1, Ordering::SeqCst);
    }

    /// On return all that `sync_later` was told of before is durable.
    pub(super) fn sync_committed(&self) -> Result<()> {
        let unsynced = self.unsynced.load(Ordering::SeqCst);
        let Some(lsn) = unsynced.checked_sub(1) else { return Ok(()) };
        self.sync_log(Lsn(lsn))?;
        // A younger one stays noted.
        self.unsynced.compare_exchange(unsynced, 0, Ordering::SeqCst, Ordering::SeqCst).ok();
        Ok(())
    }

    /// Memory runs short because of what could be sealed: rows are moved even if somebody may hold their addresses. What
    /// open transactions have staged only leaves less room; no seal frees it.
    fn pressed(&self, state: &State) -> bool {
        let max = self.options.delta_bytes_max;
        let sealable = state.chunks.values().map(|chunk| chunk.delta_bytes).sum::<usize>();
        let room = max.saturating_sub(state.bytes.saturating_sub(sealable));
        sealable > (room / 2).max(max / PRESSED_PART_MIN)
    }

    fn seal_due(&self) -> Result<usize> {
        let (mut sealed, mut tried) = (0, HashSet::new());
        while let Some((chunk, pressed)) = self.most_due(&tried) {
            if self.closing.load(Ordering::SeqCst) {
                break;
            }
            sealed += usize::from(self.seal(chunk, pressed)?);
            tried.insert(chunk);
        }
        Ok(sealed)
    }

    fn most_due(&self, tried: &HashSet<ChunkId>) -> Option<(ChunkId, bool)> {
        let state = self.state.lock();
        let (now, pressed) = (self.clock.elapsed(), self.pressed(&state));
        let due = state.chunks.iter().filter(|(id, chunk)| {
            let aged = now.saturating_sub(chunk.delta_since) >= self.options.seal_age;
            let due = (aged || chunk.delta_bytes >= self.options.seal_bytes) && chunk.pinned_until <= now;
            // A chunk that is changed all the time is pinned all the time: without an end to that, it would keep the log
            // of the whole node for ever.
            let overdue = now.saturating_sub(chunk.delta_since) >= self.options.seal_age + 2 * self.options.address_pin
                || chunk.delta_bytes >= 2 * self.options.seal_bytes;
            chunk.unsealed() && chunk.damage.is_none() && !tried.contains(*id) && (pressed || due || overdue)
        });
        due.max_by_key(|(id, chunk)| (chunk.delta_bytes, **id)).map(|(id, _)| (*id, pressed))
    }
}
