//! Where queries put rows for which there is no memory. The files are DataFusion's: it makes, writes, reads and removes
//! them with the system's calls and not through a `Vfs`. That is allowed here because nothing in them outlives the process: no
//! answer after a crash depends on what became of them.

use proto::{Error, Result, SqlState};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A directory for one process, and how much may be in it.
#[derive(Debug, Clone)]
pub struct Spill {
    dir: PathBuf,
    bytes_max: u64,
}

impl Spill {
    /// Makes the directory, or empties it of what a crash left behind. Its owner holds the lock of the data directory.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn open(dir: &Path, bytes_max: u64) -> Result<Spill> {
        emptied(dir).map_err(|error| {
            let message = format!("could not empty the directory \"{}\" of spilled rows: {error}", dir.display());
            Error::new(SqlState::IO_ERROR, message)
        })?;
        Ok(Spill { dir: dir.to_owned(), bytes_max })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

/// It may itself be a link to another disk, and stays one.
fn emptied(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
