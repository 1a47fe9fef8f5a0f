//! The store of one node: transactions in, visible rows out. Synchronous; every method may block on the disk.
//!
//! ```text
//! <dir>/LOCK  FORMAT  MANIFEST  log/<start>.log  segments/<chunk>-<number>.parquet  segments/<chunk>-<number>.deletes
//! ```
//! Invariants
//! - A committed row is in exactly one place: in a segment when its commit record lies before the chunk's
//!   `sealed_before`, else in the delta. Likewise a removal is in the chunk's deletes file or in the delta. Recovery
//!   applies the same rule to the log.
//! - Rows that an open transaction removes are not moved; nor are rows whose removal is not to be sealed with them. So
//!   the addresses in the log are good at recovery.
//! - Nothing is applied in memory before it is in the log, and durable there unless the commit was asynchronous; nothing
//!   is removed from the log before it is durable elsewhere (`State::log_needed`). As every fsync covers all that was
//!   appended, a crash takes commits from the end only.
//! - A transaction that was staged and lost in a restart stays refused: its rows could only come in part. One that could
//!   not be given changes is refused until what it was doing then is discarded, or it is aborted.
//! - A chunk of which a listed file is missing, or whose deletes file is damaged, is closed and its files are left alone.
//! - After a failed fsync, or a panic of the sealing thread, the store is poisoned: every call fails.
//!
//! Locks, in the order they are taken: `merging` (one merge at a time), `sealing` (one seal at a time, and none while a
//! merge ends), `durable` (the manifest), `state`. No disk access under `state`.

mod background;
mod chunks;
mod conflicts;
mod discard;
mod merge;
mod open;
mod record;
mod reorder;
mod scan;
mod seal;
mod state;
#[cfg(test)]
mod tests;
mod uniqueness;
mod write;

pub use scan::{ChunkScan, ScanRequest};

use crate::error::{Result, StorageError};
use crate::log::{Log, Lsn};
use crate::manifest::Manifest;
use crate::segment::{OpenFiles, OpenSegment, Segment};
use crate::vfs::{DirLock, Vfs};
use parking_lot::{Condvar, Mutex};
use proto::{ChunkId, Clock, CommitSeq, NodeIdentity, NodeStatus, Rng, ScanTally, TxnId};
use state::State;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

pub const LOG_DIR: &str = "log";
pub const SEGMENTS_DIR: &str = "segments";

#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Staged and unsealed rows and removals of the whole store. `stage` waits when they take more.
    pub delta_bytes_max: usize,
    /// How long `stage` waits for sealing to catch up before it fails.
    pub stage_wait_max: Duration,
    /// How long `stage` waits for other transactions that removed the same rows, or for rows on their way into a segment.
    pub lock_wait_max: Duration,
    /// How long rows stay where they are after a scan asked for their addresses, unless memory runs short.
    pub address_pin: Duration,
    /// A chunk with more unsealed bytes is sealed.
    pub seal_bytes: usize,
    /// A chunk whose oldest unsealed row is older is sealed.
    pub seal_age: Duration,
    /// Rows of one segment, in bytes as they were written; a seal of more makes several segments, and a merge takes no
    /// more.
    pub segment_bytes_max: usize,
    /// Segments of about one size that a chunk gathers before they are merged.
    pub merge_segments_min: usize,
    /// Snapshots that old may be refused: removed rows that only they see are left out by merges.
    pub snapshot_age_max: Duration,
    pub log_segment_bytes_max: u64,
    /// Segment files kept open between scans.
    pub open_files_max: usize,
    /// Memory, about, for what was read of them: metadata, page index, directory of series.
    pub open_bytes_max: u64,
    /// Seal and merge in threads of the store's own; else only `seal`, `seal_due` and `merge_due` do it.
    pub background: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            delta_bytes_max: 512 << 20,
            stage_wait_max: Duration::from_secs(10),
            lock_wait_max: Duration::from_secs(10),
            address_pin: Duration::from_secs(60),
            seal_bytes: 64 << 20,
            seal_age: Duration::from_secs(300),
            segment_bytes_max: 256 << 20,
            merge_segments_min: 4,
            snapshot_age_max: Duration::from_secs(600),
            log_segment_bytes_max: 64 << 20,
            open_files_max: 1000,
            open_bytes_max: 256 << 20,
            background: true,
        }
    }
}

/// Closed when dropped.
pub struct Store {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the store and its sealing thread share.
struct Core {
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    options: StoreOptions,
    log: Log,
    files: OpenFiles,
    merging: Mutex<()>,
    sealing: Mutex<()>,
    /// The next free number of a segment or deletes file.
    numbers: AtomicU64,
    /// The manifest on the disk.
    durable: Mutex<Manifest>,
    state: Mutex<State>,
    /// Where in the log the youngest commit lies that was not waited for; 0 when there is none.
    unsynced: AtomicU64,
    /// A transaction ended, or memory was freed.
    changed: Condvar,
    poison: OnceLock<String>,
    closing: AtomicBool,
    /// Wakes the sealing thread.
    wake: crossbeam::channel::Sender<()>,
    /// Its end wakes the merging thread.
    stopping: Mutex<Option<crossbeam::channel::Sender<()>>>,
    _lock: Box<dyn DirLock>,
}

impl Store {
    /// Opens the store in `dir`, which is made when missing: loads the manifest, removes segment files that nobody
    /// lists, replays the log. Prepared transactions are in doubt afterwards (`status`).
    ///
    /// # Errors
    /// `Locked` when another process has it, `Format` for another version, `Damaged` naming file and offset. Damage to the
    /// files of one chunk is no error here: the chunk is closed, and says so to whoever reads or writes it.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        dir: &Path,
        options: StoreOptions,
    ) -> Result<Store, StorageError> {
        open::open(vfs, clock, rng.as_ref(), dir, options)
    }

    /// `protocol` and `build` are the node's to fill in.
    pub fn status(&self) -> NodeStatus {
        // The first who asks after a start is the coordinator, and settles what is in doubt.
        crate::failpoint::pass("d9");
        let durable = self.core.durable.lock();
        let state = self.core.state.lock();
        NodeStatus {
            protocol: proto::PROTOCOL,
            build: String::new(),
            identity: durable.identity.clone(),
            incarnation: durable.incarnation,
            in_doubt: state.in_doubt(),
            commit_seq_max: state.commit_seq_max,
            epoch_max: state.epoch_max,
        }
    }

    /// Binds the store to a cluster and a name. Durable on return; does nothing when it is bound so already.
    ///
    /// # Errors
    /// `Identity` when it is bound otherwise.
    pub fn attach(&self, identity: NodeIdentity) -> Result<(), StorageError> {
        self.core.check()?;
        let mut durable = self.core.durable.lock();
        match &durable.identity {
            Some(bound) if *bound == identity => return Ok(()),
            Some(bound) if bound.cluster != identity.cluster => {
                return Err(StorageError::Identity("the data node belongs to another cluster".to_owned()));
            }
            Some(bound) => {
                let text = format!("the data node is already part of the cluster under the name \"{}\"", bound.name);
                return Err(StorageError::Identity(text));
            }
            None => {}
        }
        self.core.replace_manifest(&mut durable, None, |manifest| manifest.identity = Some(identity.clone()))?;
        self.core.state.lock().cluster = Some(identity.cluster);
        Ok(())
    }

    /// Ends the sealing thread and marks the log as cleanly closed. Later calls fail. Unsealed rows stay in the log.
    pub fn close(&self) -> Result<(), StorageError> {
        if self.core.closing.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.core.wake.try_send(()).ok();
        self.core.changed.notify_all();
        self.core.stopping.lock().take();
        self.threads.lock().drain(..).for_each(|thread| drop(thread.join()));
        match self.core.poison.get() {
            Some(reason) => Err(StorageError::Poisoned(reason.clone())),
            None => {
                self.core.log.mark()?;
                // The mark vouches for all before it, and the manifest for the mark.
                self.core.replace_manifest(&mut self.core.durable.lock(), None, |_| {})
            }
        }
    }

    /// The reason why the store has stopped, if it has.
    pub fn poisoned(&self) -> Option<&str> {
        self.core.poison.get().map(|reason| reason.as_str())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the store was not closed cleanly; its log will be recovered");
        }
    }
}

impl Core {
    fn check(&self) -> Result<()> {
        match self.poison.get() {
            Some(reason) => Err(StorageError::Poisoned(reason.clone())),
            None if self.closing.load(Ordering::SeqCst) => {
                Err(StorageError::Poisoned("the store is closed".to_owned()))
            }
            None => Ok(()),
        }
    }

    fn poison(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(reason, "the store stops");
        self.poison.set(reason).ok();
        self.changed.notify_all();
    }

    /// Syncs the log; a failure is the end of the store.
    fn sync_log(&self, lsn: Lsn) -> Result<()> {
        self.log.sync(lsn).inspect_err(|error| self.poison(error.to_string()))
    }

    /// Appends to the log; any failure but a full disk is the end of the store.
    fn append_log(&self, parts: &[&[u8]]) -> Result<Lsn> {
        let fatal =
            |error: &StorageError| !error.is_disk_full() && !matches!(error, StorageError::RecordTooLong { .. });
        self.log.append(parts).inspect_err(|error| {
            if fatal(error) {
                self.poison(error.to_string())
            }
        })
    }

    /// Makes a changed manifest durable. `leaving` are the rows that are about to leave the delta: those of the chunk
    /// whose commit record lies before the position.
    fn replace_manifest(
        &self,
        durable: &mut Manifest,
        leaving: Option<(ChunkId, Lsn)>,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<()> {
        let mut manifest = durable.clone();
        manifest.version += 1;
        manifest.segment_next = self.numbers.load(Ordering::SeqCst);
        let log_end = {
            let state = self.state.lock();
            manifest.epoch_max = state.epoch_max;
            manifest.commit_seq_max = state.commit_seq_max;
            manifest.committed = state.ended.committed();
            let log_end = self.log.end();
            manifest.log_needed = state.log_needed(leaving).unwrap_or(log_end).min(log_end);
            manifest.log_end = log_end;
            log_end
        };
        change(&mut manifest);
        // The manifest names positions of the log. Were the log's unsynced tail lost in a power cut, later records would
        // come to lie before them, and be taken for sealed.
        self.sync_log(log_end)?;
        match manifest.save(self.vfs.as_ref(), &self.dir) {
            Ok(()) => *durable = manifest,
            Err(error) => {
                if !error.is_disk_full() {
                    self.poison(error.to_string());
                }
                return Err(error);
            }
        }
        // Not the disk's own error: the manifest is durable, so nobody may take back the files it lists.
        self.log.truncate_before(durable.log_needed).map_err(|error| {
            self.poison(error.to_string());
            StorageError::Poisoned(error.to_string())
        })
    }

    /// Removes a file that nobody lists any more; what cannot be removed now goes at the next start.
    fn remove_later(&self, path: &Path) {
        if let Err(error) = self.vfs.remove(path) {
            tracing::warn!(file = %path.display(), %error, "an unlisted file stays until the next start");
        }
    }

    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    /// Opens segments that the chunk had a moment ago; `None` when it has others by now, and a file may be gone.
    fn open_segments<'a>(
        &self,
        id: ChunkId,
        all: &Arc<Vec<Arc<Segment>>>,
        wanted: impl Iterator<Item = &'a Arc<Segment>>,
        tally: &ScanTally,
    ) -> Result<Option<Vec<Arc<OpenSegment>>>> {
        let opened = wanted.map(|segment| segment.open(self.vfs.as_ref(), &self.files, tally));
        opened.collect::<Result<Vec<_>>>().map(Some).or_else(|error| match error {
            StorageError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                let state = self.state.lock();
                let same = state.chunks.get(&id).is_some_and(|chunk| Arc::ptr_eq(&chunk.segments, all));
                match (same, error) {
                    (true, StorageError::Io { path, .. }) => {
                        Err(StorageError::damaged(&path, 0, "the file is missing"))
                    }
                    _ => Ok(None),
                }
            }
            _ => Err(error),
        })
    }

    fn segments_dir(&self) -> PathBuf {
        self.dir.join(SEGMENTS_DIR)
    }
}

/// A transaction refused, in words that follow its name.
fn refused(txn: TxnId, reason: impl Into<String>) -> StorageError {
    StorageError::Txn { txn, reason: reason.into() }
}

fn committed_otherwise(txn: TxnId, seq: CommitSeq) -> StorageError {
    refused(txn, format!("was committed at {seq}"))
}
