//! [`Vfs`] on the operating system's files.

use super::{DirLock, Vfs, VfsFile};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Linux takes at most 1024 slices in one `writev`.
const SLICES_MAX: usize = 1024;

pub struct RealVfs;

/// The lock keeps two appends from interleaving their parts.
struct RealFile {
    file: File,
    append: Mutex<()>,
}

impl RealFile {
    fn shared(file: File) -> Arc<dyn VfsFile> {
        Arc::new(RealFile { file, append: Mutex::new(()) })
    }
}

impl Vfs for RealVfs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(RealFile::shared(OpenOptions::new().read(true).append(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(RealFile::shared(OpenOptions::new().read(true).append(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        std::fs::exists(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(dir)?;
        // The chain of parents is short and this runs once per directory: syncing them all is cheaper than finding out
        // which ones are new.
        dir.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).try_for_each(|parent| match File::open(
            parent,
        ) {
            Ok(parent) => parent.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error),
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(fs4::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs4::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl VfsFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn append(&self, parts: &[&[u8]]) -> io::Result<()> {
        let _one_at_a_time = self.append.lock();
        let mut slices = parts.iter().map(|part| IoSlice::new(part)).collect::<Vec<_>>();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0); // drops leading empty parts
        while !rest.is_empty() {
            let batch = rest.len().min(SLICES_MAX);
            match (&self.file).write_vectored(&rest[..batch]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let _one_at_a_time = self.append.lock();
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

struct RealLock {
    _file: File,
}

impl DirLock for RealLock {}
