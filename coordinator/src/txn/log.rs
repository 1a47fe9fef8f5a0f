//! Where decisions become durable. `FileLog` is one coordinator's own directory; a replicated log takes the same place.
//!
//! ```text
//! LOCK       held while the coordinator runs
//! CATALOG    a `Machine` and the log position up to which it counts; replaced whole
//!   0..8     "SERICAT\0"
//!   8..12    format version, u32 little-endian
//!   12..16   CRC32C of the rest, u32 little-endian
//!   16..     JSON
//! log/       records since then (`storage::Log`)
//! ```
//!
//! Invariants
//! - CATALOG is made before the first record, so that a log without it means a lost file, never a new cluster.
//! - Records before CATALOG's position are never applied again; all of them were durable when it was written. A log
//!   that ends before it, or starts behind it, is refused.

use super::record::{Machine, Record};
use crate::catalog::CatalogState;
use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{ClusterId, Error, Result, Rng};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage::vfs::{DirLock, read_all};
use storage::{Log, LogOptions, Lsn, StorageError, Vfs};

const MAGIC: &[u8; 8] = b"SERICAT\0";
const FORMAT: u32 = 2;
const HEADER_BYTES: usize = 16;
pub const CATALOG: &str = "CATALOG";

#[async_trait]
pub trait DecisionLog: Send + Sync + 'static {
    /// Gives the record its place in the order. Not yet durable.
    ///
    /// # Errors
    /// Nothing was added: the transaction may be aborted.
    fn append(&self, record: &Record) -> Result<Lsn>;

    /// Durable on return, with all records before it.
    ///
    /// # Errors
    /// Whether the record is durable is not known, and nothing more can be logged.
    async fn sync(&self, position: Lsn) -> Result<()>;

    /// Replaces all records so far by the state they add up to, which the caller must have taken while nothing was
    /// appended.
    async fn compact(&self, machine: Machine, position: Lsn) -> Result<()>;

    /// Where the next record goes.
    fn end(&self) -> Lsn;

    /// Bytes of records since the last `compact`.
    fn bytes(&self) -> u64;
}

pub struct FileLog {
    log: Arc<Log>,
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    compacted: Mutex<Lsn>,
    _lock: Box<dyn DirLock>,
}

#[derive(Serialize, Deserialize)]
struct CatalogFile {
    position: Lsn,
    machine: Machine,
}

impl FileLog {
    /// Opens the directory, or makes a new cluster in it, and replays the log. Blocks.
    ///
    /// # Errors
    /// 55000 when another process has the directory or its format is another; XX001 for damage, with file and offset.
    pub fn open(vfs: Arc<dyn Vfs>, rng: &dyn Rng, dir: &Path, options: LogOptions) -> Result<(FileLog, Machine)> {
        vfs.create_dir(dir).map_err(StorageError::io("create", dir))?;
        let lock = lock(vfs.as_ref(), dir)?;
        let records = dir.join("log");
        let path = dir.join(CATALOG);
        if !vfs.exists(&path).map_err(StorageError::io("open", &path))? {
            vfs.create_dir(&records).map_err(StorageError::io("create", &records))?;
            let left = vfs.list(&records).map_err(StorageError::io("list", &records))?;
            if !left.is_empty() {
                let reason = "the directory has a log but no catalog file";
                return Err(StorageError::damaged(&path, 0, reason).into());
            }
            let mut cluster = [0; 16];
            rng.fill(&mut cluster);
            let machine = Machine::new(CatalogState::new(ClusterId(cluster)));
            write_catalog(vfs.as_ref(), dir, &CatalogFile { position: Lsn(0), machine })?;
        }
        let CatalogFile { position, mut machine } = read_catalog(vfs.as_ref(), &path)?;
        let options = LogOptions { durable_end: position, ..options };
        let log = Log::open(Arc::clone(&vfs), &records, options, &mut |lsn, bytes| {
            replay(&mut machine, position, lsn, &bytes)
        })?;
        check_start(&records, log.start(), position)?;
        let log =
            FileLog { log: Arc::new(log), vfs, dir: dir.to_owned(), compacted: Mutex::new(position), _lock: lock };
        Ok((log, machine))
    }
}

/// Reads the catalog and every record since, and applies them as a start would. Changes nothing.
///
/// # Errors
/// The first thing that a start would stumble over; 55000 while a coordinator runs on the directory.
pub fn verify(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let _lock = lock(vfs, dir)?;
    let CatalogFile { position, mut machine } = read_catalog(vfs, &dir.join(CATALOG))?;
    let records = dir.join("log");
    let held = Log::verify(vfs, &records, position, &mut |lsn, bytes| replay(&mut machine, position, lsn, &bytes))?;
    Ok(check_start(&records, held.start, position)?)
}

/// Records that neither `CATALOG` counts nor the log holds: one of the two is an old version of itself.
fn check_start(records: &Path, start: Lsn, position: Lsn) -> Result<(), StorageError> {
    if start > position {
        let reason = format!("the log starts at {}, but {CATALOG} counts only what is before {}", start.0, position.0);
        return Err(StorageError::damaged(records, start.0, reason));
    }
    Ok(())
}

fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn DirLock>, StorageError> {
    let path = dir.join("LOCK");
    vfs.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => StorageError::Locked { path: dir.to_owned() },
        _ => StorageError::Io { action: "lock", path, source },
    })
}

/// Applies a record that `CATALOG` does not count yet.
fn replay(machine: &mut Machine, position: Lsn, lsn: Lsn, bytes: &[u8]) -> Result<(), StorageError> {
    if lsn < position {
        return Ok(());
    }
    let record = Record::decode(bytes).map_err(|reason| StorageError::Replay { lsn, reason })?;
    machine.apply(&record).map_err(|error| StorageError::Replay { lsn, reason: error.to_string() })
}

#[async_trait]
impl DecisionLog for FileLog {
    fn append(&self, record: &Record) -> Result<Lsn> {
        Ok(self.log.append(&[&record.encode()?])?)
    }

    async fn sync(&self, position: Lsn) -> Result<()> {
        let log = Arc::clone(&self.log);
        Ok(blocking(move || log.sync(position)).await?)
    }

    async fn compact(&self, machine: Machine, position: Lsn) -> Result<()> {
        let (log, vfs, dir) = (Arc::clone(&self.log), Arc::clone(&self.vfs), self.dir.clone());
        blocking(move || {
            log.mark()?;
            write_catalog(vfs.as_ref(), &dir, &CatalogFile { position, machine })?;
            log.truncate_before(position)
        })
        .await?;
        *self.compacted.lock() = position;
        Ok(())
    }

    fn end(&self) -> Lsn {
        self.log.end()
    }

    fn bytes(&self) -> u64 {
        self.log.end().0.saturating_sub(self.compacted.lock().0)
    }
}

/// The one bridge from async to the synchronous log.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(StorageError::Poisoned(format!("a thread of the two-phase log ended: {e}"))))
}

fn write_catalog(vfs: &dyn Vfs, dir: &Path, file: &CatalogFile) -> Result<(), StorageError> {
    let json = serde_json::to_vec(file).map_err(|e| StorageError::Poisoned(format!("catalog as JSON: {e}")))?;
    let (path, scratch) = (dir.join(CATALOG), dir.join("CATALOG.new"));
    if vfs.exists(&scratch).map_err(StorageError::io("open", &scratch))? {
        vfs.remove(&scratch).map_err(StorageError::io("remove", &scratch))?;
    }
    let written = vfs.create(&scratch).map_err(StorageError::io("create", &scratch))?;
    let crc = crc32c::crc32c(&json).to_le_bytes();
    written.append(&[MAGIC, &FORMAT.to_le_bytes(), &crc, &json]).map_err(StorageError::io("write", &scratch))?;
    written.sync().map_err(StorageError::io("sync", &scratch))?;
    vfs.rename(&scratch, &path).map_err(StorageError::io("rename", &path))?;
    vfs.sync_dir(dir).map_err(StorageError::io("sync", dir))
}

fn read_catalog(vfs: &dyn Vfs, path: &Path) -> Result<CatalogFile, StorageError> {
    let file = vfs.open(path).map_err(StorageError::io("open", path))?;
    let bytes = read_all(file.as_ref()).map_err(StorageError::io("read", path))?;
    let word = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let (Some(version), Some(crc)) = (word(8), word(12)) else {
        return Err(StorageError::damaged(path, 0, "the file is too short"));
    };
    if !bytes.starts_with(MAGIC) {
        return Err(StorageError::damaged(path, 0, "not a catalog file"));
    }
    if version != FORMAT {
        return Err(StorageError::Format { path: path.to_owned(), found: version.to_string(), expected: FORMAT });
    }
    let json = &bytes[HEADER_BYTES..];
    if crc32c::crc32c(json) != crc {
        return Err(StorageError::damaged(path, HEADER_BYTES as u64, "wrong checksum"));
    }
    serde_json::from_slice(json).map_err(|e| StorageError::damaged(path, HEADER_BYTES as u64, e.to_string()))
}

/// What a session is told when the log failed under its commit.
pub(super) fn unknown_outcome(error: &Error) -> Error {
    let text = "the coordinator's log failed while the transaction was committed: its outcome is not known";
    Error::new(proto::SqlState::TRANSACTION_RESOLUTION_UNKNOWN, text)
        .detail(error.message.clone())
        .reaction(proto::Reaction::GiveUp)
}
