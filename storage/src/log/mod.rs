//! An append-only log of records in a directory of files: the node's write-ahead log and the coordinator's two-phase
//! log. It knows nothing of what the records mean.
//!
//! Invariants
//! - Records come back in the order of `append`, each exactly as it was, or opening fails with the file and offset.
//! - A record is durable once `sync` of its `Lsn` returned; one fsync serves all who wait (group commit).
//! - After a failed write or fsync the log is poisoned: every call fails, nothing is retried. The one exception is a
//!   full disk: the part written is cut off again, and only if that fails too is the log poisoned.
//! - A file is synced before the next one is made; `recover` rests on it. The bytes: see `record`.

mod record;
mod recover;
#[cfg(test)]
mod tests;

use crate::error::{Result, StorageError};
use crate::failpoint;
use crate::vfs::{Vfs, VfsFile};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use record::{FILE_HEADER_BYTES, FileHeader};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest payload of one record: a whole wire message and room for its frame.
pub const RECORD_BYTES_MAX: usize = 128 << 20;

/// Where a record begins: its byte position in the log since the beginning of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Lsn(pub u64);

#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A file that would grow beyond it is closed and the next one begun. A longer record gets a file of its own.
    pub segment_bytes_max: u64,
    /// The log was durable up to here, as another file says: what is missing or bad before it is damage, no torn tail.
    pub durable_end: Lsn,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { segment_bytes_max: 64 << 20, durable_end: Lsn(0) }
    }
}

pub struct Log {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    options: LogOptions,
    state: Mutex<State>,
    sync_ended: Condvar,
}

struct State {
    /// The last of `files`.
    file: Arc<dyn VfsFile>,
    /// Starts of all files, oldest first.
    files: VecDeque<u64>,
    end: u64,
    /// Everything before it is durable.
    synced: u64,
    /// `header_crc` of the last record.
    chain: u32,
    /// A thread is inside fsync.
    syncing: bool,
    poison: Option<String>,
}

impl Log {
    /// Opens the log in `dir`, which is made when missing. `visit` gets every intact record in order; its `Bytes` are
    /// slices of the file, 8-byte aligned within it. A torn tail of the last file is cut.
    ///
    /// # Errors
    /// Damage anywhere else (file and offset named), the disk's errors, and those of `visit`.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        visit: &mut dyn FnMut(Lsn, Bytes) -> Result<(), StorageError>,
    ) -> Result<Log, StorageError> {
        recover::open(vfs, dir, options, visit)
    }

    /// Like `open`, but changes nothing. Where the log starts and ends.
    pub fn verify(
        vfs: &dyn Vfs,
        dir: &Path,
        durable_end: Lsn,
        visit: &mut dyn FnMut(Lsn, Bytes) -> Result<(), StorageError>,
    ) -> Result<Range<Lsn>, StorageError> {
        recover::check_only(vfs, dir, durable_end, visit)
    }

    /// Adds one record, the concatenation of `parts`, which must not be empty. Ordered, not yet durable.
    ///
    /// # Errors
    /// A full disk (nothing was added), a record beyond `RECORD_BYTES_MAX`, or a poisoned log.
    pub fn append(&self, parts: &[&[u8]]) -> Result<Lsn, StorageError> {
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        assert!(bytes > 0, "an empty record is a mark");
        if bytes > RECORD_BYTES_MAX {
            return Err(StorageError::RecordTooLong { bytes, max: RECORD_BYTES_MAX });
        }
        self.write(parts)
    }

    /// Adds a record that nobody visits, durable on return: it proves that all before it was durable.
    pub fn mark(&self) -> Result<(), StorageError> {
        self.sync(self.end())?;
        let lsn = self.write(&[])?;
        self.sync(lsn)
    }

    /// Blocks until the record at `lsn` and all before it are durable.
    ///
    /// # Errors
    /// The failed fsync, which poisons the log: whether the record is durable is then unknown.
    pub fn sync(&self, lsn: Lsn) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        let wanted = lsn.0.saturating_add(1).min(state.end);
        loop {
            state.check()?;
            if state.synced >= wanted {
                return Ok(());
            }
            if state.syncing {
                self.sync_ended.wait(&mut state);
                continue;
            }
            let (target, file) = (state.end, Arc::clone(&state.file));
            state.syncing = true;
            let outcome = MutexGuard::unlocked(&mut state, || file.sync());
            state.syncing = false;
            self.sync_ended.notify_all();
            match outcome {
                Ok(()) => state.synced = state.synced.max(target),
                Err(source) => return Err(self.poison(&mut state, "sync", source)),
            }
        }
    }

    /// The position behind the last record; the next one begins there, or behind a file header.
    pub fn end(&self) -> Lsn {
        Lsn(self.state.lock().end)
    }

    /// Everything before it was removed.
    pub fn start(&self) -> Lsn {
        Lsn(*self.state.lock().files.front().expect("a log has a file"))
    }

    /// Removes the files that hold only records before `lsn`; never the last file.
    pub fn truncate_before(&self, lsn: Lsn) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.check()?;
        while state.files.len() > 1 && state.files[1] <= lsn.0 {
            let path = self.dir.join(file_name(state.files[0]));
            self.vfs.remove(&path).map_err(StorageError::io("remove", &path))?;
            state.files.pop_front();
            // One at a time, so that a crash cannot bring back an older file without a younger one.
            self.vfs.sync_dir(&self.dir).map_err(|source| self.poison(&mut state, "sync", source))?;
        }
        Ok(())
    }

    fn write(&self, parts: &[&[u8]]) -> Result<Lsn, StorageError> {
        let mut state = self.state.lock();
        state.check()?;
        let framed = record::framed_len(parts.iter().map(|part| part.len()).sum());
        let file_start = *state.files.back().expect("a log has a file");
        let file_bytes = state.end - file_start;
        if file_bytes > FILE_HEADER_BYTES && file_bytes + framed > self.options.segment_bytes_max {
            self.rotate(&mut state)?;
        }
        let lsn = state.end;
        let (header, padding, chain) = record::frame(parts, lsn, state.chain, state.synced);
        let mut whole = Vec::with_capacity(parts.len() + 2);
        whole.push(header.as_slice());
        whole.extend_from_slice(parts);
        whole.push(padding);
        if failpoint::is_next("r2") {
            // Half of the record reaches the file, as when the machine stops in the middle.
            let torn = whole.concat();
            state.file.append(&[&torn[..torn.len() / 2]]).ok();
        }
        failpoint::pass("r2");
        if let Err(source) = state.file.append(&whole) {
            return Err(self.undo_write(&mut state, source));
        }
        state.end += framed;
        state.chain = chain;
        Ok(Lsn(lsn))
    }

    /// After a failed append: a full disk is survived if the file can be cut to what it was.
    fn undo_write(&self, state: &mut State, source: std::io::Error) -> StorageError {
        let file_start = *state.files.back().expect("a log has a file");
        let path = self.dir.join(file_name(file_start));
        let error = StorageError::Io { action: "write", path, source };
        if error.is_disk_full() && state.file.truncate(state.end - file_start).is_ok() {
            return error;
        }
        state.poison = Some(error.to_string());
        error
    }

    fn rotate(&self, state: &mut State) -> Result<(), StorageError> {
        if state.synced < state.end {
            state.file.sync().map_err(|source| self.poison(state, "sync", source))?;
            state.synced = state.end;
            self.sync_ended.notify_all();
        }
        let header = FileHeader { start: state.end, chain: state.chain };
        match new_file(self.vfs.as_ref(), &self.dir, header) {
            Ok(file) => {
                state.files.push_back(state.end);
                state.end += FILE_HEADER_BYTES;
                state.synced = state.end;
                state.file = file;
                Ok(())
            }
            Err(error) => {
                if !error.is_disk_full() || self.remove_leftover(state.end).is_err() {
                    state.poison = Some(error.to_string());
                }
                Err(error)
            }
        }
    }

    /// A file that could not be made must not come back after a crash, when the file before it has grown past its start.
    fn remove_leftover(&self, start: u64) -> std::io::Result<()> {
        let path = self.dir.join(file_name(start));
        match self.vfs.exists(&path)? {
            true => self.vfs.remove(&path).and_then(|()| self.vfs.sync_dir(&self.dir)),
            false => Ok(()),
        }
    }

    fn poison(&self, state: &mut State, action: &'static str, source: std::io::Error) -> StorageError {
        let path = self.dir.join(file_name(*state.files.back().expect("a log has a file")));
        let error = StorageError::Io { action, path, source };
        state.poison = Some(error.to_string());
        error
    }
}

impl State {
    fn check(&self) -> Result<(), StorageError> {
        self.poison.as_ref().map_or(Ok(()), |reason| Err(StorageError::Poisoned(reason.clone())))
    }
}

/// An empty log file, durable with its name.
fn new_file(vfs: &dyn Vfs, dir: &Path, header: FileHeader) -> Result<Arc<dyn VfsFile>> {
    let path = dir.join(file_name(header.start));
    let file = vfs.create(&path).map_err(StorageError::io("create", &path))?;
    file.append(&[&header.encode()]).map_err(StorageError::io("write", &path))?;
    file.sync().map_err(StorageError::io("sync", &path))?;
    vfs.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    Ok(file)
}

fn file_name(start: u64) -> String {
    format!("{start:016x}.log")
}

fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
