//! The simulated disk behind the door that everybody else uses.

use super::Fault;
use super::SimVfs;
use super::disk::{Change, Disk, Inode, split};
use crate::vfs::{DirLock, Vfs, VfsFile};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        if disk.full("create", path) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.inodes_made += 1;
        let inode = disk.inodes_made;
        disk.inodes.insert(inode, Inode::default());
        disk.change_name(dir, "create", name, Change::Link(name.to_owned(), inode))?;
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
        disk.change_name(dir, "rename", to_name, Change::Rename(from_name.to_owned(), to_name.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.alive()?;
        disk.inode(path).ok_or(io::ErrorKind::NotFound)?;
        let (dir, name) = split(path);
        disk.change_name(dir, "remove", name, Change::Unlink(name.to_owned()))
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
        if disk.change("sync_dir", dir)? {
            return Err(io::Error::other("the simulated machine went off"));
        }
        disk.syncs_repeated += u64::from(disk.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?.sync_failed);
        if let Some(Fault::DirSyncFails(at)) = disk.fault {
            let outcome = disk.fails(at, "sync_dir", dir);
            disk.dirs.get_mut(dir).expect("looked up above").sync_failed |= outcome.is_err();
            outcome?;
        }
        let dir = disk.dirs.get_mut(dir).expect("looked up above");
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
            let path = disk.path_of(inode);
            let dying = disk.change("append", &path)?;
            let full = disk.full("append", &path);
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
            if let Some(Fault::ReadFails(at)) = disk.fault {
                disk.fails(at, "read", &disk.path_of(inode))?;
            }
            let bytes = &disk.inodes[&inode].bytes;
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let part = start.checked_add(buf.len()).and_then(|end| bytes.get(start..end));
            buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(|disk, inode| {
            if disk.change("truncate", &disk.path_of(inode))? {
                return Err(io::Error::other("the simulated machine went off"));
            }
            let inode = disk.inodes.get_mut(&inode).expect("an open file has an inode");
            inode.bytes.truncate(len as usize);
            inode.doomed.retain_mut(|range| {
                range.end = range.end.min(len as usize);
                range.start < range.end
            });
            inode.durable_len = inode.durable_len.min(len as usize);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|disk, inode| {
            let path = disk.path_of(inode);
            if disk.change("sync", &path)? {
                return Err(io::Error::other("the simulated machine went off"));
            }
            disk.syncs_repeated += u64::from(!disk.inodes[&inode].doomed.is_empty());
            if let Some(Fault::SyncFails(at)) = disk.fault {
                let outcome = disk.fails(at, "sync", &path);
                if outcome.is_err() {
                    let inode = disk.inodes.get_mut(&inode).expect("an open file has an inode");
                    inode.doomed.push(inode.durable_len..inode.bytes.len());
                }
                outcome?;
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
