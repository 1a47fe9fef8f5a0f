//! The snapshot's file: the state machine, and what of the log it stands for. Replaced whole, under another name first.
//!
//! ```text
//!   0..8     "SERICAT\0"
//!   8..12    format version, u32 little-endian, as all that follow
//!   12..16   CRC32C of the rest, u32
//!   16..24   member, u64
//!   24..32   position: records of the log before it do not count any more, u64
//!   32..40   index of the last entry in the state, u64
//!   40..48   its term, u64
//!   48..72   term, vote and commit index when it was written, 3 × u64
//!   72..80   incarnation, u64
//!   80..84   number of voters, u32
//!   84..     voters, u64 each, then the state to the end
//! ```

use crate::raft::entries::Entries;
use bytes::Bytes;
use raft::prelude::HardState;
use std::path::Path;
use storage::vfs::read_all;
use storage::{Lsn, StorageError, Vfs};

pub const SNAPSHOT_FILE: &str = "CATALOG";
const MAGIC: &[u8; 8] = b"SERICAT\0";
const FORMAT: u32 = 4;
const CHECKED_FROM: usize = 16;
const VOTERS_AT: usize = 84;

pub(super) struct SnapshotFile {
    pub(super) member: u64,
    pub(super) incarnation: u64,
    pub(super) position: Lsn,
    /// Behind the snapshot there are none yet.
    pub(super) entries: Entries,
}

/// Replaces the file. Durable on return.
pub(super) fn write(
    vfs: &dyn Vfs,
    dir: &Path,
    (member, incarnation): (u64, u64),
    position: Lsn,
    entries: &Entries,
) -> Result<(), StorageError> {
    let (index, state) = (entries.snapshot_index(), &entries.state);
    let term = entries.term_of(index).expect("a snapshot knows its own term");
    let mut head = Vec::with_capacity(VOTERS_AT - CHECKED_FROM + 8 * entries.voters().len());
    for word in [member, position.0, index, term, state.term, state.vote, state.commit, incarnation] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    head.extend_from_slice(&(entries.voters().len() as u32).to_le_bytes());
    entries.voters().iter().for_each(|voter| head.extend_from_slice(&voter.to_le_bytes()));
    let body = entries.snapshot_state();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), body).to_le_bytes();
    let (path, scratch) = (dir.join(SNAPSHOT_FILE), dir.join("CATALOG.new"));
    if vfs.exists(&scratch).map_err(StorageError::io("open", &scratch))? {
        vfs.remove(&scratch).map_err(StorageError::io("remove", &scratch))?;
    }
    let written = vfs.create(&scratch).map_err(StorageError::io("create", &scratch))?;
    written.append(&[MAGIC, &FORMAT.to_le_bytes(), &crc, &head, body]).map_err(StorageError::io("write", &scratch))?;
    written.sync().map_err(StorageError::io("sync", &scratch))?;
    vfs.rename(&scratch, &path).map_err(StorageError::io("rename", &path))?;
    vfs.sync_dir(dir).map_err(StorageError::io("sync", dir))
}

/// # Errors
/// 55000 for another format version; XX001 for damage.
pub(super) fn read(vfs: &dyn Vfs, path: &Path) -> Result<SnapshotFile, StorageError> {
    let file = vfs.open(path).map_err(StorageError::io("open", path))?;
    let bytes = Bytes::from(read_all(file.as_ref()).map_err(StorageError::io("read", path))?);
    let u32_at = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let u64_at = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
    let damaged = |at: usize, reason: &str| StorageError::damaged(path, at as u64, reason);
    let short = || damaged(0, "the file is too short");
    let (version, crc) = (u32_at(8).ok_or_else(short)?, u32_at(12).ok_or_else(short)?);
    if !bytes.starts_with(MAGIC) {
        return Err(damaged(0, "not a catalog file"));
    }
    if version != FORMAT {
        return Err(StorageError::Format { path: path.to_owned(), found: version.to_string(), expected: FORMAT });
    }
    if crc32c::crc32c(&bytes[CHECKED_FROM..]) != crc {
        return Err(damaged(CHECKED_FROM, "wrong checksum"));
    }
    let word = |number: usize| u64_at(CHECKED_FROM + 8 * number).ok_or_else(short);
    let voters_count = u32_at(VOTERS_AT - 4).ok_or_else(short)? as usize;
    let state_at = VOTERS_AT + 8 * voters_count;
    if state_at > bytes.len() || voters_count == 0 || word(2)? == 0 || word(3)? == 0 {
        return Err(damaged(CHECKED_FROM, "the snapshot makes no sense"));
    }
    let voters = (0..voters_count).filter_map(|number| u64_at(VOTERS_AT + 8 * number)).collect();
    let mut entries = Entries::new(voters, word(2)?, word(3)?, bytes.slice(state_at..));
    entries.state = HardState { term: word(4)?, vote: word(5)?, ..HardState::default() };
    // Entries that were committed then are committed now, but the log must be read first to have them.
    entries.state.commit = word(6)?;
    Ok(SnapshotFile { member: word(0)?, incarnation: word(7)?, position: Lsn(word(1)?), entries })
}
