//! The file that keeps the removals of a chunk's segments: written as a whole when removals are sealed, and then listed
//! in the manifest in place of the one before. All integers little-endian.
//!
//! ```text
//! 0   "SERIDEL1"
//! 8   format version u32
//! 12  crc32c u32 of bytes 8..12 and 16..
//! 16  chunk u32
//! 20  sets u32
//! 24  sets: segment u64, commit sequence u64, length u64, then the rows as a portable Roaring bitmap of that length
//! ```
//! Sets are ordered by segment and sequence.

use super::{ChunkDeletes, Part};
use crate::error::{Result, StorageError};
use crate::vfs::{Vfs, read_all};
use crc32c::{crc32c, crc32c_append};
use proto::{ChunkId, CommitSeq};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"SERIDEL1";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const SET_HEADER_BYTES: usize = 24;

/// How the manifest lists a deletes file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletesRecord {
    /// Drawn from the same numbers as segments.
    pub number: u64,
    pub bytes: u64,
    /// crc32c of the whole file.
    pub crc: u32,
    /// Rows removed.
    pub rows: u64,
}

impl DeletesRecord {
    pub fn file_name(&self, chunk: ChunkId) -> String {
        file_name(chunk, self.number)
    }
}

pub(crate) fn file_name(chunk: ChunkId, number: u64) -> String {
    format!("{chunk}-{number}.deletes")
}

/// Writes the removals of segments, durable but for the file's name: the caller syncs the directory.
///
/// # Errors
/// The disk's. The file may then be there in part; nobody lists it.
pub(crate) fn write(
    vfs: &dyn Vfs,
    dir: &Path,
    chunk: ChunkId,
    number: u64,
    deletes: &ChunkDeletes,
) -> Result<DeletesRecord> {
    let (bytes, rows) = encode(chunk, deletes);
    let path = dir.join(file_name(chunk, number));
    // Numbers are given again when an earlier try failed before the manifest listed it.
    if vfs.exists(&path).map_err(StorageError::io("look for", &path))? {
        vfs.remove(&path).map_err(StorageError::io("remove", &path))?;
    }
    let file = vfs.create(&path).map_err(StorageError::io("create", &path))?;
    file.append(&[&bytes]).map_err(StorageError::io("write", &path))?;
    file.sync().map_err(StorageError::io("sync", &path))?;
    Ok(DeletesRecord { number, bytes: bytes.len() as u64, crc: crc32c(&bytes), rows })
}

/// # Errors
/// `Damaged` naming the file.
pub(crate) fn load(vfs: &dyn Vfs, dir: &Path, chunk: ChunkId, record: &DeletesRecord) -> Result<ChunkDeletes> {
    let path = dir.join(record.file_name(chunk));
    let file = vfs.open(&path).map_err(StorageError::io("open", &path))?;
    let bytes = read_all(file.as_ref()).map_err(StorageError::io("read", &path))?;
    if bytes.len() as u64 != record.bytes || crc32c(&bytes) != record.crc {
        return Err(StorageError::damaged(&path, 0, "the checksum of the deletes file is wrong"));
    }
    decode(&bytes, chunk).map_err(|(offset, reason)| StorageError::damaged(&path, offset as u64, reason))
}

fn encode(chunk: ChunkId, deletes: &ChunkDeletes) -> (Vec<u8>, u64) {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&chunk.0.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let (mut sets, mut rows_count) = (0u32, 0);
    for (part, removed) in deletes {
        assert!(part.is_segment(), "only removals of segments outlive the log");
        for (seq, rows) in removed.by_seq() {
            bytes.extend_from_slice(&part.0.to_le_bytes());
            bytes.extend_from_slice(&seq.0.to_le_bytes());
            bytes.extend_from_slice(&(rows.serialized_size() as u64).to_le_bytes());
            rows.serialize_into(&mut bytes).expect("a vector takes all bytes");
            sets += 1;
            rows_count += rows.len();
        }
    }
    bytes[20..24].copy_from_slice(&sets.to_le_bytes());
    let crc = checksum(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    (bytes, rows_count)
}

fn decode(bytes: &[u8], chunk: ChunkId) -> Result<ChunkDeletes, (usize, String)> {
    let bad = |at: usize, reason: &str| (at, reason.to_owned());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
        return Err(bad(0, "this is not a deletes file"));
    }
    if u32_at(12) != checksum(bytes) {
        return Err(bad(12, "the checksum is wrong"));
    }
    if u32_at(8) != VERSION {
        return Err(bad(8, "the version is unknown"));
    }
    if u32_at(16) != chunk.0 {
        return Err(bad(16, "the file belongs to another chunk"));
    }
    let mut deletes = ChunkDeletes::new();
    let mut at = HEADER_BYTES;
    for _ in 0..u32_at(20) {
        let body = at + SET_HEADER_BYTES;
        if body > bytes.len() || u64_at(at + 16) > (bytes.len() - body) as u64 {
            return Err(bad(at, "the file ends within a set"));
        }
        let (part, seq, end) = (Part(u64_at(at) as i64), CommitSeq(u64_at(at + 8)), body + u64_at(at + 16) as usize);
        let rows = RoaringBitmap::deserialize_from(&bytes[body..end]).map_err(|error| (body, error.to_string()))?;
        Arc::make_mut(deletes.entry(part).or_default()).add(seq, &rows);
        at = end;
    }
    match at == bytes.len() {
        true => Ok(deletes),
        false => Err(bad(at, "the file is longer than its sets")),
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    [&bytes[8..12], &bytes[16..]].into_iter().fold(0, crc32c_append)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_come_back_and_no_cut_or_foreign_file_does() {
        let mut deletes = ChunkDeletes::new();
        let far: RoaringBitmap = (0..100_000).step_by(7).collect();
        Arc::make_mut(deletes.entry(Part(3)).or_default()).add(CommitSeq(9), &far);
        Arc::make_mut(deletes.entry(Part(3)).or_default()).add(CommitSeq(4), &[1, 2].into());
        Arc::make_mut(deletes.entry(Part(8)).or_default()).add(CommitSeq(4), &[0].into());
        let (bytes, rows) = encode(ChunkId(5), &deletes);
        assert_eq!(rows, far.len() + 3);
        assert_eq!(decode(&bytes, ChunkId(5)).unwrap(), deletes);
        assert!(decode(&bytes, ChunkId(6)).is_err());
        assert!((0..bytes.len()).all(|cut| decode(&bytes[..cut], ChunkId(5)).is_err()));
    }
}
