//! What a data directory holds: who the node is, which segments each chunk has, which of their rows are
//! removed, and how far this covers the log.
//!
//! One small file, replaced as a whole: written beside, synced, renamed, directory synced. So after a crash there is the
//! old one or the new one.
//!
//! ```text
//! 0   "SERIMAN1"
//! 8   format version u32
//! 12  crc32c u32 of bytes 8..12, 16..24 and the payload
//! 16  payload length u64
//! 24  payload: JSON of `Manifest`, to be read by a human in need
//! ```

use crate::deletes::DeletesRecord;
use crate::error::{Result, StorageError};
use crate::failpoint;
use crate::log::Lsn;
use crate::segment::SegmentRecord;
use crate::vfs::{Vfs, read_all};
use crc32c::crc32c_append;
use proto::{ChunkId, ChunkLayout, CommitSeq, NodeIdentity, TxnId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

pub(crate) const FORMAT_VERSION: u32 = 3;
const MAGIC: &[u8; 8] = b"SERIMAN1";
const HEADER_BYTES: usize = 24;
pub const FILE: &str = "MANIFEST";
const NEW_FILE: &str = "MANIFEST.new";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Counts the replacements.
    pub version: u64,
    pub incarnation: u64,
    pub identity: Option<NodeIdentity>,
    pub epoch_max: u64,
    pub commit_seq_max: CommitSeq,
    /// Segment numbers from here on are free.
    pub segment_next: u64,
    /// The log is complete from here on.
    pub log_needed: Lsn,
    /// The log was durable up to here when this was written: one that ends before it is not the log of this directory,
    /// or an old version of it. A manifest without it says nothing, so both kinds are read by both builds.
    #[serde(default)]
    pub log_end: Lsn,
    pub chunks: BTreeMap<ChunkId, ChunkRecord>,
    pub dropped: ChunkSet,
    /// The youngest commits, whose log records may be gone.
    pub committed: Vec<(TxnId, CommitSeq)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRecord {
    pub layout: ChunkLayout,
    /// Rows whose commit record lies before it are in the segments, and removals in the deletes file.
    pub sealed_before: Lsn,
    pub segments: Vec<SegmentRecord>,
    /// `None` when no row of the segments is removed.
    pub deletes: Option<DeletesRecord>,
    /// Rows removed up to here may be gone for good: older snapshots are refused.
    pub horizon: CommitSeq,
}

impl ChunkRecord {
    /// Of all its files.
    pub(crate) fn file_names(&self, id: ChunkId) -> impl Iterator<Item = String> {
        let segments = self.segments.iter().map(move |segment| segment.file_name(id));
        segments.chain(self.deletes.iter().map(move |deletes| deletes.file_name(id)))
    }
}

/// A set of chunks as half-open ranges: chunks are dropped in the order they were made, mostly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSet(BTreeMap<u32, u32>);

impl Manifest {
    pub(crate) fn new(incarnation: u64) -> Manifest {
        Manifest {
            version: 0,
            incarnation,
            identity: None,
            epoch_max: 0,
            commit_seq_max: CommitSeq::ZERO,
            segment_next: 1,
            log_needed: Lsn(0),
            log_end: Lsn(0),
            chunks: BTreeMap::new(),
            dropped: ChunkSet::default(),
            committed: Vec::new(),
        }
    }

    /// `None` when there is no manifest in `dir`.
    pub(crate) fn load(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Manifest>> {
        let path = dir.join(FILE);
        if !vfs.exists(&path).map_err(StorageError::io("look for", &path))? {
            return Ok(None);
        }
        let file = vfs.open(&path).map_err(StorageError::io("open", &path))?;
        let bytes = read_all(file.as_ref()).map_err(StorageError::io("read", &path))?;
        let header = bytes.get(..HEADER_BYTES).filter(|header| header.starts_with(MAGIC));
        let header = header.ok_or_else(|| StorageError::damaged(&path, 0, "this is not a manifest"))?;
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let payload = &bytes[HEADER_BYTES..];
        let length = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
        if length != payload.len() as u64 || u32_at(12) != checksum(header, payload) {
            return Err(StorageError::damaged(&path, 12, "the manifest's checksum is wrong"));
        }
        if u32_at(8) != FORMAT_VERSION {
            let found = u32_at(8).to_string();
            return Err(StorageError::Format { path, found, expected: FORMAT_VERSION });
        }
        let manifest = serde_json::from_slice(payload);
        manifest.map(Some).map_err(|error| StorageError::damaged(&path, HEADER_BYTES as u64, error.to_string()))
    }

    /// Whether the log holds what is nowhere else.
    pub(crate) fn check_log(&self, dir: &Path, log: Range<Lsn>) -> Result<()> {
        if log.start > self.log_needed || log.end < self.log_needed {
            let (from, to) = (log.start.0, log.end.0);
            let reason =
                format!("the log holds {from}..{to}, but rows from {} on are in no segment", self.log_needed.0);
            return Err(StorageError::damaged(dir, from, reason));
        }
        Ok(())
    }

    /// Replaces the manifest; durable on return.
    ///
    /// # Errors
    /// The disk's. Which of the two manifests is there is then unknown, unless the disk was full: then it is the old one.
    pub(crate) fn save(&self, vfs: &dyn Vfs, dir: &Path) -> Result<()> {
        let payload = serde_json::to_vec(self).expect("a manifest is plain data with integer and text keys");
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[16..].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        let crc = checksum(&header, &payload);
        header[12..16].copy_from_slice(&crc.to_le_bytes());

        let (path, new) = (dir.join(FILE), dir.join(NEW_FILE));
        if vfs.exists(&new).map_err(StorageError::io("look for", &new))? {
            vfs.remove(&new).map_err(StorageError::io("remove", &new))?;
        }
        let file = vfs.create(&new).map_err(StorageError::io("create", &new))?;
        file.append(&[&header, &payload]).map_err(StorageError::io("write", &new))?;
        file.sync().map_err(StorageError::io("sync", &new))?;
        failpoint::pass("d6");
        vfs.rename(&new, &path).map_err(StorageError::io("rename", &new))?;
        failpoint::pass("d7");
        vfs.sync_dir(dir).map_err(StorageError::io("sync", dir))
    }
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    [&header[8..12], &header[16..24], payload].into_iter().fold(0, crc32c_append)
}

impl ChunkSet {
    pub fn contains(&self, chunk: ChunkId) -> bool {
        self.0.range(..=chunk.0).next_back().is_some_and(|(_, end)| chunk.0 < *end)
    }

    pub fn insert(&mut self, chunk: ChunkId) {
        if self.contains(chunk) {
            return;
        }
        let end = self.0.remove(&(chunk.0 + 1)).unwrap_or(chunk.0 + 1);
        match self.0.range_mut(..chunk.0).next_back() {
            Some((_, before)) if *before == chunk.0 => *before = end,
            _ => drop(self.0.insert(chunk.0, end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Fault, SimVfs};
    use std::collections::BTreeSet;

    #[test]
    fn a_chunk_set_is_a_set() {
        let (mut set, mut naive) = (ChunkSet::default(), BTreeSet::new());
        for step in 0..300u32 {
            let chunk = step * 7919 % 64;
            set.insert(ChunkId(chunk));
            naive.insert(chunk);
            assert!((0..70).all(|c| set.contains(ChunkId(c)) == naive.contains(&c)));
            assert!(set.0.len() <= naive.len());
        }
        assert_eq!(set.0.len(), 1);
    }

    #[test]
    fn after_a_crash_there_is_the_old_or_the_new_manifest() {
        let dir = Path::new("/n");
        for seed in 0..200 {
            let vfs = SimVfs::new(seed);
            vfs.create_dir(dir).unwrap();
            let mut manifest = Manifest::new(seed);
            manifest.save(&vfs, dir).unwrap();
            vfs.set_fault(Fault::Crash(seed % 7));
            manifest.version = 1;
            let saved = manifest.save(&vfs, dir).is_ok();
            vfs.restart();
            let loaded = Manifest::load(&vfs, dir).unwrap().unwrap();
            assert!(loaded.version == 1 || !saved && loaded.version == 0, "seed {seed}");
        }
    }
}
