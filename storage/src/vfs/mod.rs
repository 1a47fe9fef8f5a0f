//! The one door to the disk. Everything that touches a file goes through [`Vfs`], so that the same code runs on the real
//! file system and on [`SimVfs`], which loses, tears and damages what was written.
//!
//! Files only grow: bytes are appended, read back at an offset, and cut off at the end; nothing is overwritten in place.
//! What the medium promises, and all that callers may rely on:
//! - appended bytes survive a crash only after `VfsFile::sync`; before it any subset of their sectors may be lost,
//! - a name (created, renamed, removed) survives only after `sync_dir` of its directory,
//! - `rename` replaces the target at once or not at all,
//! - an open file can be read after its name was removed.

mod real;
mod sim;
#[cfg(test)]
mod tests;

pub use real::RealVfs;
pub use sim::{Fault, Loss, SimVfs, Strike};

use std::io;
use std::path::Path;
use std::sync::Arc;

pub trait Vfs: Send + Sync + 'static {
    /// A new, empty file. Its name is durable after `sync_dir`.
    ///
    /// # Errors
    /// `AlreadyExists`, and whatever the disk says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// An existing file, for reading and appending.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Within one directory; replaces `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes a directory and its parents; does nothing when it is there. Durable on return.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks `path` (made when missing) against other processes until the guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when another holds the lock.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
}

pub trait VfsFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Adds the parts at the end, in order. After an error any prefix of them may be there.
    fn append(&self, parts: &[&[u8]]) -> io::Result<()>;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is shorter.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes the contents durable. After an error nothing is known about any byte since the last success.
    fn sync(&self) -> io::Result<()>;
}

/// Releases the lock when dropped.
pub trait DirLock: Send + Sync {}

/// The whole of a file.
pub fn read_all(file: &dyn VfsFile) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}
