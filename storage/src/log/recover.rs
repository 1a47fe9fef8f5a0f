//! Opening a log: every intact record is visited in order, a torn tail is cut, corruption is an error.
//!
//! Torn tail or corruption? Writes that were not synced may be lost in any pattern, so a bad record may well be followed
//! by a good one after a crash:
//!
//! ```text
//! last file   | A synced | B synced | C lost | D whole, says synced = end of B |      torn: cut at C
//! last file   | A synced | B rotten | C whole, says synced = end of B |               corruption of B
//! other file  | A | B cut off |  next file                                            corruption: files are synced
//!                                                                                     before the next one is made
//! ```
//! A bad record at lsn X in the last file is corruption exactly if some later intact record says that bytes beyond X
//! were durable when it was written; else everything from X on was never acknowledged, and is cut.
//! Another file may know more: nothing before `LogOptions::durable_end` was ever a torn tail, and a log that ends before
//! it is an old version of itself.
//! Limit: rot in the last acknowledged records, after which nothing was written here or elsewhere, looks like a torn
//! tail. A mark written at a clean close (`Log::mark`) covers all but itself.

use super::record::{self, FILE_HEADER_BYTES, FileHeader, VERSION};
use super::{Log, LogOptions, Lsn, State, file_name, new_file, parse_file_name};
use crate::error::{Result, StorageError};
use crate::failpoint;
use crate::vfs::{Vfs, VfsFile, read_all};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The copy of a log file in the making.
const SCRATCH: &str = "copy.new";

type Visit<'a> = &'a mut dyn FnMut(Lsn, Bytes) -> Result<()>;

pub(super) fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: LogOptions, visit: Visit) -> Result<Log> {
    vfs.create_dir(dir).map_err(StorageError::io("create", dir))?;
    remove_scratch(vfs.as_ref(), dir)?;
    let Walked { mut files, last, mut end, chain } = walk(vfs.as_ref(), dir, options.durable_end, visit)?;
    let file = match last {
        Last::Whole { path, file } => written_anew(vfs.as_ref(), &path, file)?,
        Last::Torn { path, file, offset } => {
            tracing::info!(file = %path.display(), offset, "cut the torn tail of the log");
            file.truncate(offset).map_err(StorageError::io("cut", &path))?;
            written_anew(vfs.as_ref(), &path, file)?
        }
        Last::HalfMade { path } => {
            vfs.remove(&path).map_err(StorageError::io("remove", &path))?;
            let file = new_file(vfs.as_ref(), dir, FileHeader { start: end, chain })?;
            end += FILE_HEADER_BYTES;
            file
        }
        Last::None => {
            files.push_back(end);
            let file = new_file(vfs.as_ref(), dir, FileHeader { start: end, chain })?;
            end += FILE_HEADER_BYTES;
            file
        }
    };
    vfs.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    let state = State { file, files, end, synced: end, chain, syncing: false, poison: None };
    Ok(Log { vfs, dir: dir.to_owned(), options, state: Mutex::new(state), sync_ended: Condvar::new() })
}

/// The last file as a durable copy of itself. What was read may be in the page cache only, and after a failed fsync of the
/// process before, another fsync would say that it is on disk when it is not. Files before the last were durable when the
/// next was begun.
fn written_anew(vfs: &dyn Vfs, path: &Path, file: Arc<dyn VfsFile>) -> Result<Arc<dyn VfsFile>> {
    let dir = path.parent().expect("a log file lies in its directory");
    let scratch = dir.join(SCRATCH);
    let bytes = read_all(file.as_ref()).map_err(StorageError::io("read", path))?;
    let copy = vfs.create(&scratch).map_err(StorageError::io("create", &scratch))?;
    copy.append(&[&bytes]).map_err(StorageError::io("write", &scratch))?;
    copy.sync().map_err(StorageError::io("sync", &scratch))?;
    failpoint::pass("d9");
    vfs.rename(&scratch, path).map_err(StorageError::io("rename", path))?;
    Ok(copy)
}

fn remove_scratch(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let scratch = dir.join(SCRATCH);
    match vfs.exists(&scratch).map_err(StorageError::io("look for", &scratch))? {
        true => vfs.remove(&scratch).map_err(StorageError::io("remove", &scratch)),
        false => Ok(()),
    }
}

/// The checks of `open`, without its repairs.
pub(super) fn check_only(vfs: &dyn Vfs, dir: &Path, durable_end: Lsn, visit: Visit) -> Result<Range<Lsn>> {
    let Walked { files, end, .. } = walk(vfs, dir, durable_end, visit)?;
    Ok(Lsn(files.front().copied().unwrap_or(end))..Lsn(end))
}

struct Walked {
    files: VecDeque<u64>,
    last: Last,
    /// Behind the last intact record.
    end: u64,
    chain: u32,
}

/// In what state the last file was found.
enum Last {
    None,
    Whole {
        path: PathBuf,
        file: Arc<dyn VfsFile>,
    },
    /// Nothing intact from `offset` on.
    Torn {
        path: PathBuf,
        file: Arc<dyn VfsFile>,
        offset: u64,
    },
    /// The crash came while it was made; it never held a record.
    HalfMade {
        path: PathBuf,
    },
}

fn walk(vfs: &dyn Vfs, dir: &Path, durable_end: Lsn, visit: Visit) -> Result<Walked> {
    let names = vfs.list(dir).map_err(StorageError::io("list", dir))?;
    let files = names.iter().filter_map(|name| parse_file_name(name)).collect::<VecDeque<u64>>();
    let mut end = files.front().copied().unwrap_or(0);
    let (mut last, mut chain) = (Last::None, None);
    for (index, &start) in files.iter().enumerate() {
        let is_last = index + 1 == files.len();
        let path = dir.join(file_name(start));
        if start != end {
            let reason = format!("the log continues at {end}, but this file starts at {start}");
            return Err(StorageError::damaged(&path, 0, reason));
        }
        let file = vfs.open(&path).map_err(StorageError::io("open", &path))?;
        let bytes = Bytes::from(read_all(file.as_ref()).map_err(StorageError::io("read", &path))?);
        let Some(header) = check_header(&path, &bytes, start, chain, is_last)? else {
            last = Last::HalfMade { path };
            break;
        };
        let torn_from = is_last.then_some(durable_end.0);
        let scanned = scan(&path, &bytes, header, torn_from, visit)?;
        end += scanned.end as u64;
        chain = Some(scanned.chain);
        last = match scanned.end < bytes.len() {
            true => Last::Torn { path, file, offset: scanned.end as u64 },
            false => Last::Whole { path, file },
        };
    }
    if end < durable_end.0 {
        let path = files.back().map_or_else(|| dir.to_owned(), |start| dir.join(file_name(*start)));
        let offset = end - files.back().copied().unwrap_or(end);
        let reason = format!("the log ends at {end}, but was durable up to {} once", durable_end.0);
        return Err(StorageError::damaged(&path, offset, reason));
    }
    Ok(Walked { files, last, end, chain: chain.unwrap_or(0) })
}

/// `None` for a last file whose making was interrupted.
fn check_header(path: &Path, bytes: &Bytes, named: u64, chain: Option<u32>, last: bool) -> Result<Option<FileHeader>> {
    let (header, version) = match FileHeader::decode(bytes) {
        Some(decoded) => decoded,
        // Records are written after the header was synced: a file with records and a bad header is damaged.
        None if last && bytes.len() as u64 <= FILE_HEADER_BYTES => return Ok(None),
        None => return Err(StorageError::damaged(path, 0, "the file header's checksum is wrong")),
    };
    if version != VERSION {
        let (path, found) = (path.to_owned(), version.to_string());
        return Err(StorageError::Format { path, found, expected: VERSION });
    }
    if header.start != named {
        return Err(StorageError::damaged(path, 16, format!("the file says it starts at {}", header.start)));
    }
    match chain {
        Some(chain) if chain != header.chain => {
            Err(StorageError::damaged(path, 12, "the file does not continue the one before it"))
        }
        _ => Ok(Some(header)),
    }
}

struct Scanned {
    /// Offset behind the last intact record.
    end: usize,
    chain: u32,
}

/// `torn_from`: a tail that begins there or later may be torn; `None` in a file that cannot have one.
fn scan(path: &Path, bytes: &Bytes, header: FileHeader, torn_from: Option<u64>, visit: Visit) -> Result<Scanned> {
    let may_be_torn = |offset: usize| torn_from.is_some_and(|from| header.start + offset as u64 >= from);
    let mut scanned = Scanned { end: FILE_HEADER_BYTES as usize, chain: header.chain };
    while scanned.end < bytes.len() {
        let found = record::check(bytes, scanned.end, header.start).and_then(|record| {
            let continues = record.previous == scanned.chain;
            continues.then_some(record).ok_or("the record does not continue the one before it")
        });
        match found {
            Ok(record) => {
                if !record.payload.is_empty() {
                    visit(Lsn(header.start + scanned.end as u64), bytes.slice(record.payload))?;
                }
                scanned = Scanned { end: record.end, chain: record.header_crc };
            }
            Err(_) if may_be_torn(scanned.end) && !was_durable(bytes, scanned.end, header.start) => break,
            Err(reason) => return Err(StorageError::damaged(path, scanned.end as u64, reason)),
        }
    }
    Ok(scanned)
}

/// Whether a record behind the bad one at `bad` proves that the latter was once durable.
fn was_durable(bytes: &Bytes, bad: usize, start: u64) -> bool {
    let later = (bad + 8..bytes.len()).step_by(8);
    later.filter_map(|offset| record::check(bytes, offset, start).ok()).any(|r| r.synced > start + bad as u64)
}
