//! A disk in memory that fails on demand, from one seed.
//!
//! Model: a file has contents, and a durable prefix that `sync` moves forward. At a crash the unsynced tail is cut at a
//! random byte, and each of its 512-byte sectors may have become zeros. A directory has names, and durable names that
//! `sync_dir` makes equal; at a crash a random prefix of the changes since then survives. Handles opened before a crash
//! fail for ever after it. Directories themselves are durable at once: a simplification.

use super::{DirLock, Vfs, VfsFile};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SECTOR_BYTES: usize = 512;

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
    /// Power goes at the n-th change, which may be half done; everything fails until `restart`.
    Crash(u64),
}

#[derive(Clone)]
pub struct SimVfs(Arc<Mutex<Disk>>);

struct Disk {
    random: u64,
    boots_count: u64,
    crashed: bool,
    fault: Option<Fault>,
    /// Changes (or, for `SyncFails`, syncs; for `Full`, writes) since the fault was set.
    steps: u64,
    inodes: HashMap<u64, Inode>,
    inodes_made: u64,
    dirs: BTreeMap<PathBuf, Dir>,
    locks: BTreeSet<PathBuf>,
    files_synced: u64,
}

#[derive(Default)]
struct Inode {
    bytes: Vec<u8>,
    durable_len: usize,
}

#[derive(Default)]
struct Dir {
    names: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    /// Since the last `sync_dir`.
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Change::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
            Change::Unlink(name) => drop(names.remove(name)),
            Change::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl SimVfs {
    pub fn new(seed: u64) -> SimVfs {
        SimVfs(Arc::new(Mutex::new(Disk {
            random: seed,
            boots_count: 0,
            crashed: false,
            fault: None,
            steps: 0,
            inodes: HashMap::new(),
            inodes_made: 0,
            dirs: BTreeMap::new(),
            locks: BTreeSet::new(),
            files_synced: 0,
        })))
    }

    pub fn set_fault(&self, fault: Fault) {
        let mut disk = self.0.lock();
        disk.fault = Some(fault);
        disk.steps = 0;
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
        let mut disk = self.0.lock();
        disk.lose_unsynced();
        disk.reboot();
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
        disk.inodes.insert(inode, Inode { bytes: bytes.to_vec(), durable_len: bytes.len() });
    }

    /// How often a file was synced: to see group commit at work.
    pub fn files_synced(&self) -> u64 {
        self.0.lock().files_synced
    }
}

impl Disk {
    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound as u64) as usize
    }

    fn inode(&self, path: &Path) -> Option<u64> {
        let (dir, name) = split(path);
        self.dirs.get(dir)?.names.get(name).copied()
    }

    fn lose_unsynced(&mut self) {
        let mut ids = self.inodes.keys().copied().collect::<Vec<_>>();
        ids.sort_unstable();
        for id in ids {
            let (len, durable) = (self.inodes[&id].bytes.len(), self.inodes[&id].durable_len);
            let tail = len - durable;
            let kept = match self.below(4) {
                0 => 0,
                1 => tail,
                _ => self.below(tail + 1),
            };
            let holes = self.below(2) == 0;
            let end = durable + kept;
            let mut lost = Vec::new();
            let mut sector = durable;
            while holes && sector < end {
                let next = ((sector / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                if self.below(2) == 0 {
                    lost.push(sector..next);
                }
                sector = next;
            }
            let inode = self.inodes.get_mut(&id).expect("listed above");
            inode.bytes.truncate(end);
            lost.into_iter().for_each(|range| inode.bytes[range].fill(0));
            inode.durable_len = end;
        }
        let dirs = self.dirs.keys().cloned().collect::<Vec<_>>();
        for path in dirs {
            let changes_count = self.dirs[&path].changes.len();
            let kept = self.below(changes_count + 1);
            let dir = self.dirs.get_mut(&path).expect("listed above");
            let changes = std::mem::take(&mut dir.changes);
            changes[..kept].iter().for_each(|change| change.apply(&mut dir.durable));
            dir.names = dir.durable.clone();
        }
    }

    fn reboot(&mut self) {
        self.boots_count += 1;
        self.crashed = false;
        self.fault = None;
        self.locks.clear();
        let named = self.dirs.values().flat_map(|dir| dir.names.values().chain(dir.durable.values()).copied());
        let named = named.collect::<BTreeSet<_>>();
        self.inodes.retain(|id, _| named.contains(id));
    }

    fn alive(&self) -> io::Result<()> {
        match self.crashed {
            true => Err(io::Error::other("the simulated machine is off")),
            false => Ok(()),
        }
    }

    /// Counts a change; true when power goes in the middle of it.
    fn change(&mut self) -> io::Result<bool> {
        self.alive()?;
        if let Some(Fault::Crash(at)) = self.fault {
            self.steps += 1;
            self.crashed = self.steps > at;
        }
        Ok(self.crashed)
    }

    fn full(&mut self) -> bool {
        let (at, once) = match self.fault {
            Some(Fault::Full(at)) => (at, false),
            Some(Fault::FullOnce(at)) => (at, true),
            _ => return false,
        };
        self.steps += 1;
        match once {
            true => self.steps == at + 1,
            false => self.steps > at,
        }
    }

    fn change_name(&mut self, dir: &Path, change: Change) -> io::Result<()> {
        let dying = self.change()?;
        let half = dying && self.below(2) == 0;
        let dir = self.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        if !half {
            change.apply(&mut dir.names);
            dir.changes.push(change);
        }
        match dying {
            true => Err(io::Error::other("the simulated machine went off")),
            false => Ok(()),
        }
    }
}

fn split(path: &Path) -> (&Path, &str) {
    let name = path.file_name().and_then(|name| name.to_str()).expect("simulated paths are UTF-8 and end in a name");
    (path.parent().expect("simulated paths have a directory"), name)
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    boot: u64,
}

impl SimVfs {
    fn handle(&self, disk: &Disk, inode: u64) -> Arc<dyn VfsFile> {
        Arc::new(SimFile { disk: Arc::clone(&self.0), inode, boot: disk.boots_count })
    }
}

impl Vfs for SimVfs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut disk = self.0.lock();
        disk.alive()?;
        let (dir, name) = split(path);
        if disk.inode(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if disk.full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.inodes_made += 1;
        let inode = disk.inodes_made;
        disk.inodes.insert(inode, Inode::default());
        disk.change_name(dir, Change::Link(name.to_owned(), inode))?;
        Ok(self.handle(&disk, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let disk = self.0.lock();
        disk.alive()?;
        let inode = disk.inode(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&disk, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        let ((dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        assert_eq!(dir, to_dir, "renames stay within a directory");
        disk.inode(from).ok_or(io::ErrorKind::NotFound)?;
        disk.change_name(dir, Change::Rename(from_name.to_owned(), to_name.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.alive()?;
        disk.inode(path).ok_or(io::ErrorKind::NotFound)?;
        let (dir, name) = split(path);
        disk.change_name(dir, Change::Unlink(name.to_owned()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.0.lock();
        disk.alive()?;
        Ok(disk.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?.names.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let disk = self.0.lock();
        disk.alive()?;
        Ok(disk.inode(path).is_some())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.alive()?;
        for dir in dir.ancestors() {
            disk.dirs.entry(dir.to_owned()).or_default();
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        if disk.change()? {
            return Err(io::Error::other("the simulated machine went off"));
        }
        if let Some(Fault::DirSyncFails(at)) = disk.fault {
            disk.steps += 1;
            if disk.steps == at + 1 {
                return Err(io::Error::other("simulated EIO"));
            }
        }
        let dir = disk.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        dir.durable = dir.names.clone();
        dir.changes.clear();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut disk = self.0.lock();
        disk.alive()?;
        match disk.locks.insert(path.to_owned()) {
            true => Ok(Box::new(SimLock { disk: Arc::clone(&self.0), path: path.to_owned(), boot: disk.boots_count })),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut Disk, u64) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        match disk.boots_count == self.boot {
            true => act(&mut disk, self.inode),
            false => Err(io::Error::other("a file handle from before the simulated restart")),
        }
    }
}

impl VfsFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|disk, inode| Ok(disk.inodes[&inode].bytes.len() as u64))
    }

    fn append(&self, parts: &[&[u8]]) -> io::Result<()> {
        self.with(|disk, inode| {
            let mut bytes = parts.concat();
            let dying = disk.change()?;
            let full = disk.full();
            if dying || full {
                let written = disk.below(bytes.len() + 1);
                bytes.truncate(written);
            }
            disk.inodes.get_mut(&inode).expect("an open file has an inode").bytes.extend_from_slice(&bytes);
            match (dying, full) {
                (true, _) => Err(io::Error::other("the simulated machine went off")),
                (_, true) => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(()),
            }
        })
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with(|disk, inode| {
            let bytes = &disk.inodes[&inode].bytes;
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let part = start.checked_add(buf.len()).and_then(|end| bytes.get(start..end));
            buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(|disk, inode| {
            if disk.change()? {
                return Err(io::Error::other("the simulated machine went off"));
            }
            let inode = disk.inodes.get_mut(&inode).expect("an open file has an inode");
            inode.bytes.truncate(len as usize);
            inode.durable_len = inode.durable_len.min(len as usize);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|disk, inode| {
            if disk.change()? {
                return Err(io::Error::other("the simulated machine went off"));
            }
            if let Some(Fault::SyncFails(at)) = disk.fault {
                disk.steps += 1;
                if disk.steps == at + 1 {
                    return Err(io::Error::other("simulated EIO"));
                }
            }
            disk.files_synced += 1;
            let inode = disk.inodes.get_mut(&inode).expect("an open file has an inode");
            inode.durable_len = inode.bytes.len();
            Ok(())
        })
    }
}

struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    boot: u64,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.boots_count == self.boot {
            disk.locks.remove(&self.path);
        }
    }
}
