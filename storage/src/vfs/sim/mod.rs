//! A disk in memory that fails on demand, from one seed.
//!
//! Model: a file has contents, and a durable prefix that `sync` moves forward. At a crash the unsynced tail is cut at a
//! random byte, and each of its 512-byte sectors may have become zeros; or a test says what is lost ([`Loss`]). What a
//! failed sync should have made durable is lost at the next crash even if a later sync succeeds, as on Linux. A directory
//! has names, and durable names that `sync_dir` makes equal; at a crash a random prefix of the changes since then
//! survives. Handles opened before a crash fail for ever after it. Directories themselves are durable at once: a
//! simplification.

mod access;
mod disk;

use disk::{Disk, Inode};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to do at the n-th change of the disk (append, truncate, create, rename, remove, sync, sync_dir), counted from 0
/// since the fault was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The n-th append or create writes a part and reports a full disk; so do all later ones until `heal`.
    Full(u64),
    /// The n-th append or create writes a part and reports a full disk, once.
    FullOnce(u64),
    /// The n-th file sync reports EIO, and what it should have made durable never will be.
    SyncFails(u64),
    /// The n-th directory sync reports EIO. The names in it are as the process left them, until power goes.
    DirSyncFails(u64),
    /// The n-th read reports EIO, once.
    ReadFails(u64),
    /// Power goes at the n-th change, which may be half done; everything fails until `restart`.
    Crash(u64),
}

/// What a power cut does to the bytes that were written and not synced, of every file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Whatever chance says.
    Random,
    /// So many sectors of the tail are there; what is behind them is cut off.
    Behind(usize),
    /// Lengths stay. A sector whose bit is set, counted from the tail's first and modulo 64, was never written: it holds
    /// zeros, or, if `stale`, what else was in the file before.
    Sectors { lost: u64, stale: bool },
}

/// What a fault hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// `append`, `truncate`, `create`, `rename`, `remove`, `sync`, `sync_dir` or `read`.
    pub action: &'static str,
    pub path: PathBuf,
}

/// Clones see the same disk; `fork` makes another.
#[derive(Clone)]
pub struct SimVfs(Arc<Mutex<Disk>>);

impl SimVfs {
    pub fn new(seed: u64) -> SimVfs {
        SimVfs(Arc::new(Mutex::new(Disk::new(seed))))
    }

    /// Another disk with the same contents and the same fate.
    pub fn fork(&self) -> SimVfs {
        SimVfs(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    pub fn set_fault(&self, fault: Fault) {
        let mut disk = self.0.lock();
        disk.fault = Some(fault);
        disk.steps = 0;
        disk.struck.clear();
    }

    /// Where the fault has struck since it was set, in order.
    pub fn struck(&self) -> Vec<Strike> {
        self.0.lock().struck.clone()
    }

    /// No more faults.
    pub fn heal(&self) {
        self.0.lock().fault = None;
    }

    /// Whether a `Fault::Crash` has struck.
    pub fn crashed(&self) -> bool {
        self.0.lock().crashed
    }

    /// Power off and on: unsynced data is lost in part, locks are gone, old handles are dead.
    pub fn restart(&self) {
        self.restart_with(Loss::Random);
    }

    /// As `restart`, and what is lost is no chance.
    pub fn restart_with(&self, loss: Loss) {
        let mut disk = self.0.lock();
        disk.lose_unsynced(loss);
        disk.reboot();
    }

    /// Sectors of the longest unsynced tail.
    pub fn unsynced_sectors(&self) -> usize {
        let disk = self.0.lock();
        let tails = disk.inodes.values().map(|inode| inode.sectors(inode.bytes.len()).len());
        tails.max().unwrap_or(0)
    }

    /// The process was killed and the machine was not: everything written is there.
    pub fn kill_process(&self) {
        self.0.lock().reboot();
    }

    /// Flips one bit, on the platter.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let mut disk = self.0.lock();
        let inode = disk.inode(path).expect("tests damage files that exist");
        let bytes = &mut disk.inodes.get_mut(&inode).expect("a name has an inode").bytes;
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }

    /// The contents of a file as they are now.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.0.lock();
        Some(disk.inodes[&disk.inode(path)?].bytes.clone())
    }

    /// Makes `bytes` the durable contents of a file.
    pub fn set_contents(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.0.lock();
        let inode = disk.inode(path).expect("tests change files that exist");
        disk.inodes.insert(inode, Inode { bytes: bytes.to_vec(), durable_len: bytes.len(), doomed: Vec::new() });
    }

    /// How often a file was synced: to see group commit at work.
    pub fn files_synced(&self) -> u64 {
        self.0.lock().files_synced
    }

    /// How often a file or directory was synced again after its sync had failed, which must never be.
    pub fn syncs_repeated(&self) -> u64 {
        self.0.lock().syncs_repeated
    }
}
