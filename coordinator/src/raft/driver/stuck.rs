//! A disk that stops answering: syncs wait until it is let go.

use parking_lot::{Condvar, Mutex};
use std::io;
use std::path::Path;
use std::sync::Arc;
use storage::vfs::{DirLock, VfsFile};
use storage::{SimVfs, Vfs};

#[derive(Clone)]
pub(super) struct StuckVfs {
    pub(super) disk: SimVfs,
    hold: Arc<Hold>,
}

#[derive(Default)]
struct Hold {
    held: Mutex<bool>,
    freed: Condvar,
}

struct StuckFile {
    file: Arc<dyn VfsFile>,
    hold: Arc<Hold>,
}

impl StuckVfs {
    pub(super) fn new(disk: SimVfs) -> StuckVfs {
        StuckVfs { disk, hold: Arc::default() }
    }

    pub(super) fn hold(&self, held: bool) {
        *self.hold.held.lock() = held;
        self.hold.freed.notify_all();
    }

    fn wrap(&self, file: Arc<dyn VfsFile>) -> Arc<dyn VfsFile> {
        Arc::new(StuckFile { file, hold: Arc::clone(&self.hold) })
    }
}

impl Vfs for StuckVfs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.disk.create(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.disk.open(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        self.disk.lock(path)
    }
}

impl VfsFile for StuckFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn append(&self, parts: &[&[u8]]) -> io::Result<()> {
        self.file.append(parts)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut held = self.hold.held.lock();
        self.hold.freed.wait_while(&mut held, |held| *held);
        drop(held);
        self.file.sync()
    }
}
