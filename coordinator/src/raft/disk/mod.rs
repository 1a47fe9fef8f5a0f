//! What a member remembers: its directory, written and read back.
//!
//! ```text
//! LOCK       held while the member runs
//! CATALOG    the last snapshot; replaced whole (see `snapshot`)
//! log/       records since then (`storage::Log`, see `record`)
//! ```
//!
//! Invariants
//! - CATALOG is made before the first record, so that a log without it means a lost file, never a new group.
//! - The log is durable up to CATALOG's position before CATALOG is: positions never come again, and a log that ends
//!   before it, or starts behind it, is refused.
//! - The newest term, vote and commit index are in the last record, or in CATALOG when none counts.

mod snapshot;
#[cfg(test)]
mod tests;

use super::core::Persist;
use super::entries::Entries;
use super::planted::{Plan, Planted};
use super::record;
use bytes::Bytes;
use raft::prelude::HardState;
pub use snapshot::SNAPSHOT_FILE;
use snapshot::SnapshotFile;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage::vfs::DirLock;
use storage::{Log, LogOptions, Lsn, StorageError, Vfs, failpoint};

/// What a new directory begins with. The same for all members of a group but for `member` and
/// `incarnation`.
pub struct Genesis {
    pub member: u64,
    /// Drawn for this directory; another one of the same member has another.
    pub incarnation: u64,
    pub voters: Vec<u64>,
    pub state: Bytes,
}

/// Proof that a step was persisted.
#[derive(Debug)]
#[must_use = "the core waits for it"]
pub struct Durable {
    number: u64,
}

impl Durable {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

pub struct Disk {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    log: Log,
    member: u64,
    incarnation: u64,
    /// The last entry's index and the position of each record that has entries, oldest first.
    records: VecDeque<(u64, Lsn)>,
    /// Records before it do not count.
    position: Lsn,
    plan: Plan,
    _lock: Box<dyn DirLock>,
}

impl Disk {
    /// Opens the directory, or makes it with what `genesis` says. Blocks.
    ///
    /// # Errors
    /// 55000 when another process has the directory, or its format or member is another; XX001 for damage, with file
    /// and offset.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        genesis: impl FnOnce() -> Genesis,
    ) -> Result<(Disk, Entries), StorageError> {
        Disk::open_with(Plan::default(), vfs, dir, options, genesis)
    }

    pub(super) fn open_with(
        plan: Plan,
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        genesis: impl FnOnce() -> Genesis,
    ) -> Result<(Disk, Entries), StorageError> {
        vfs.create_dir(dir).map_err(StorageError::io("create", dir))?;
        let lock = lock(vfs.as_ref(), dir)?;
        let (path, records_dir) = (dir.join(SNAPSHOT_FILE), dir.join("log"));
        if !vfs.exists(&path).map_err(StorageError::io("open", &path))? {
            vfs.create_dir(&records_dir).map_err(StorageError::io("create", &records_dir))?;
            let left = vfs.list(&records_dir).map_err(StorageError::io("list", &records_dir))?;
            if !left.is_empty() {
                let reason = "the directory has a log but no catalog file";
                return Err(StorageError::damaged(&path, 0, reason));
            }
            let Genesis { member, incarnation, voters, state } = genesis();
            let entries = Entries::new(voters, 1, 1, state);
            snapshot::write(vfs.as_ref(), dir, (member, incarnation), Lsn(0), &entries)?;
        }
        let SnapshotFile { member, incarnation, position, mut entries } = snapshot::read(vfs.as_ref(), &path)?;
        entries.plan = plan;
        let mut records = VecDeque::new();
        let options = LogOptions { durable_end: position, ..options };
        let log = Log::open(Arc::clone(&vfs), &records_dir, options, &mut |lsn, bytes| {
            if let Some(last) = replay(&mut entries, position, lsn, bytes)? {
                records.push_back((last, lsn));
            }
            Ok(())
        })?;
        check_commit(&entries, &records_dir)?;
        check_start(&records_dir, log.start(), position)?;
        let dir = dir.to_owned();
        Ok((Disk { vfs, dir, log, member, incarnation, records, position, plan, _lock: lock }, entries))
    }

    pub fn member(&self) -> u64 {
        self.member
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Adds what a step wants persisted, as one record. Durable on return where raft demands it. Blocks.
    ///
    /// # Errors
    /// A full disk refuses the write whole: it may be tried again. Any other error: what is on disk is not known, the
    /// member must stop.
    pub fn write(&mut self, persist: &Persist) -> Result<Durable, StorageError> {
        let durable = Durable { number: persist.number };
        if !persist.changed {
            return Ok(durable);
        }
        let mut state = persist.state.clone();
        if self.plan.has(Planted::ForgetVote) {
            state.vote = 0;
        }
        if self.plan.has(Planted::ForgetTerm) {
            (state.term, state.vote) = (1, 0);
        }
        if let Some(snapshot) = persist.snapshot.as_ref().filter(|_| !self.plan.has(Planted::SnapshotInMemoryOnly)) {
            let meta = snapshot.get_metadata();
            let voters = meta.get_conf_state().voters.clone();
            let mut entries = Entries::new(voters, meta.index, meta.term, snapshot.data.clone());
            // Entries behind the snapshot are in the record below: until then none is known to be committed.
            entries.state = HardState { commit: meta.index, ..state.clone() };
            failpoint::pass("r3");
            self.replace_snapshot(&entries, u64::MAX)?;
        }
        let lsn = self.log.append(&[&record::encode(&state, &persist.entries)])?;
        failpoint::pass("r1");
        if persist.must_sync && !self.plan.has(Planted::SkipSync) {
            self.log.sync(lsn)?;
        }
        if let Some(last) = persist.entries.last() {
            self.records.push_back((last.index, lsn));
        }
        Ok(durable)
    }

    /// Makes `state`, the state machine's at `index`, the snapshot, and removes the part of the log it covers. Durable
    /// on return. Blocks.
    ///
    /// # Errors
    /// A full disk changes nothing. Any other error: the member must stop.
    pub fn compact(&mut self, entries: &Entries, index: u64, state: Bytes) -> Result<(), StorageError> {
        let term = entries.term_of(index).expect("what was applied is in the log");
        let mut snapshot = Entries::new(entries.voters().to_vec(), index, term, state);
        snapshot.state = entries.state.clone();
        self.replace_snapshot(&snapshot, index)
    }

    /// Bytes of log that the snapshot does not cover.
    pub fn bytes(&self) -> u64 {
        self.log.end().0.saturating_sub(self.position.0)
    }

    /// Records whose entries all lie at or below `covered` count no more.
    fn replace_snapshot(&mut self, entries: &Entries, covered: u64) -> Result<(), StorageError> {
        if !self.plan.has(Planted::SnapshotBeforeLog) {
            self.log.mark()?;
        }
        let superfluous = self.records.iter().take_while(|(last, _)| *last <= covered).count();
        let mut position = self.records.get(superfluous).map_or(self.log.end(), |(_, lsn)| *lsn);
        if self.plan.has(Planted::CutTooMuch) {
            position = self.log.end();
        }
        let me = (self.member, self.incarnation);
        snapshot::write(self.vfs.as_ref(), &self.dir, me, position, entries)?;
        failpoint::pass(if covered == u64::MAX { "r4" } else { "c11" });
        self.position = position;
        self.records.drain(..superfluous);
        self.log.truncate_before(position)
    }
}

/// Reads a directory as a start would, and changes nothing.
///
/// # Errors
/// The first thing that a start would stumble over; 55000 while a member runs on the directory.
pub fn read_only(vfs: &dyn Vfs, dir: &Path) -> Result<Entries, StorageError> {
    let _lock = lock(vfs, dir)?;
    let SnapshotFile { position, mut entries, .. } = snapshot::read(vfs, &dir.join(SNAPSHOT_FILE))?;
    let records = dir.join("log");
    let mut visit = |lsn, bytes| replay(&mut entries, position, lsn, bytes).map(drop);
    let held = Log::verify(vfs, &records, position, &mut visit)?;
    check_start(&records, held.start, position)?;
    check_commit(&entries, &records)?;
    Ok(entries)
}

fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn DirLock>, StorageError> {
    let path = dir.join("LOCK");
    vfs.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => StorageError::Locked { path: dir.to_owned() },
        _ => StorageError::Io { action: "lock", path, source },
    })
}

/// Takes a record in that the snapshot does not cover; the index of its last entry, if it has entries.
fn replay(entries: &mut Entries, position: Lsn, lsn: Lsn, bytes: Bytes) -> Result<Option<u64>, StorageError> {
    if lsn < position {
        return Ok(None);
    }
    let (state, recorded) = record::decode(bytes).map_err(|reason| StorageError::Replay { lsn, reason })?;
    // Records from before the snapshot was taken may still count for their entries; they know less than it.
    if state.term >= entries.state.term {
        let commit = state.commit.max(entries.state.commit);
        entries.state = HardState { commit, ..state };
    }
    let last = recorded.last().map(|entry| entry.index);
    for entry in recorded {
        if entry.index <= entries.snapshot_index() {
            // It is in the snapshot; what it replaced behind the snapshot must go all the same.
            if !entries.plan.has(Planted::KeepReplacedTail) {
                entries.forget_tail();
            }
            continue;
        }
        if entry.index > entries.last() + 1 {
            let reason = format!("entry {} does not follow entry {}", entry.index, entries.last());
            return Err(StorageError::Replay { lsn, reason });
        }
        entries.push(entry);
    }
    Ok(last)
}

/// Records that neither the snapshot counts nor the log holds: one of the two is an old version of itself.
fn check_start(records: &Path, start: Lsn, position: Lsn) -> Result<(), StorageError> {
    if start <= position {
        return Ok(());
    }
    let before = position.0;
    let reason = format!("the log starts at {}, but {SNAPSHOT_FILE} counts only what is before {before}", start.0);
    Err(StorageError::damaged(records, start.0, reason))
}

/// Entries are written before they are known to be committed, so that this cannot be but by damage.
fn check_commit(entries: &Entries, dir: &Path) -> Result<(), StorageError> {
    if entries.commit() <= entries.last() {
        return Ok(());
    }
    let reason = format!("entries are committed up to {}, but end at {}", entries.commit(), entries.last());
    Err(StorageError::damaged(dir, 0, reason))
}
