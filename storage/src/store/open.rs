//! Opening: lock, format, manifest, unlisted files, log. In this order, so that each rests on what came before.

use super::background;
use super::record::{Kind, decode};
use super::state::{Chunk, Ended, Phase, StagedRemoval, StagedWrite, State, Txn};
use super::{Core, LOG_DIR, SEGMENTS_DIR, Store, StoreOptions};
use crate::deletes::{self, Part, Removal};
use crate::delta::DeltaRows;
use crate::error::{Result, StorageError};
use crate::log::{Log, LogOptions, Lsn};
use crate::manifest::{FORMAT_VERSION, Manifest};
use crate::segment::{OpenFiles, Segment};
use crate::vfs::{DirLock, Vfs, read_all};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use proto::{Clock, Rng, WriteKind};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

const LOCK_FILE: &str = "LOCK";
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_PREFIX: &str = "seriatim storage ";

pub(super) fn open(
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    rng: &dyn Rng,
    dir: &Path,
    options: StoreOptions,
) -> Result<Store> {
    vfs.create_dir(dir).map_err(StorageError::io("create", dir))?;
    let lock = lock(vfs.as_ref(), dir)?;
    let manifest = load_or_make(vfs.as_ref(), rng, dir)?;
    remove_unlisted(vfs.as_ref(), dir, &manifest)?;

    let mut state = listed(vfs.as_ref(), dir, &manifest)?;
    let log_options = LogOptions { segment_bytes_max: options.log_segment_bytes_max };
    let now = clock.elapsed();
    let log_dir = dir.join(LOG_DIR);
    let log = Log::open(Arc::clone(&vfs), &log_dir, log_options, &mut |lsn, bytes| {
        replay(&mut state, &manifest, lsn, &bytes, now)
    })?;
    if log.start() > manifest.log_needed || log.end() < manifest.log_needed {
        let (from, to) = (log.start().0, log.end().0);
        let reason =
            format!("the log holds {from}..{to}, but rows from {} on are in no segment", manifest.log_needed.0);
        return Err(StorageError::damaged(&log_dir, from, reason));
    }
    end_replay(&mut state, &manifest);

    let (wake, woken) = crossbeam::channel::bounded(1);
    let (stopping, stopped) = crossbeam::channel::bounded(1);
    let core = Arc::new(Core {
        files: OpenFiles::new(options.open_files_max),
        vfs,
        clock,
        dir: dir.to_owned(),
        options,
        log,
        merging: Mutex::new(()),
        sealing: Mutex::new(()),
        numbers: AtomicU64::new(manifest.segment_next),
        durable: Mutex::new(manifest),
        state: Mutex::new(state),
        changed: Condvar::new(),
        poison: OnceLock::new(),
        closing: AtomicBool::new(false),
        wake,
        stopping: Mutex::new(Some(stopping)),
        _lock: lock,
    });
    let threads = match core.options.background {
        true => background::start(&core, woken, stopped)?,
        false => Vec::new(),
    };
    Ok(Store { core, threads: Mutex::new(threads) })
}

fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn DirLock>> {
    let path = dir.join(LOCK_FILE);
    vfs.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => StorageError::Locked { path: dir.to_owned() },
        _ => StorageError::io("lock", &path)(error),
    })
}

/// A directory without a manifest is new, unless it has a log: that is made only after the manifest.
fn load_or_make(vfs: &dyn Vfs, rng: &dyn Rng, dir: &Path) -> Result<Manifest> {
    let format = dir.join(FORMAT_FILE);
    if let Some(manifest) = Manifest::load(vfs, dir)? {
        let file = vfs.open(&format).map_err(StorageError::io("open", &format))?;
        let bytes = read_all(file.as_ref()).map_err(StorageError::io("read", &format))?;
        let text = String::from_utf8_lossy(&bytes);
        if text != format_text() {
            let found = text.trim_end().strip_prefix(FORMAT_PREFIX).unwrap_or(&text).to_owned();
            return Err(StorageError::Format { path: format, found, expected: FORMAT_VERSION });
        }
        return Ok(manifest);
    }
    let (log, segments) = (dir.join(LOG_DIR), dir.join(SEGMENTS_DIR));
    vfs.create_dir(&log).map_err(StorageError::io("create", &log))?;
    vfs.create_dir(&segments).map_err(StorageError::io("create", &segments))?;
    for inner in [&log, &segments] {
        if let Some(name) = vfs.list(inner).map_err(StorageError::io("list", inner))?.first() {
            return Err(StorageError::damaged(&inner.join(name), 0, "the manifest of this data directory is missing"));
        }
    }
    if vfs.exists(&format).map_err(StorageError::io("look for", &format))? {
        vfs.remove(&format).map_err(StorageError::io("remove", &format))?;
    }
    let file = vfs.create(&format).map_err(StorageError::io("create", &format))?;
    file.append(&[format_text().as_bytes()]).map_err(StorageError::io("write", &format))?;
    file.sync().map_err(StorageError::io("sync", &format))?;
    let manifest = Manifest::new(rng.next_u64());
    manifest.save(vfs, dir)?;
    Ok(manifest)
}

fn format_text() -> String {
    format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n")
}

fn remove_unlisted(vfs: &dyn Vfs, dir: &Path, manifest: &Manifest) -> Result<()> {
    let segments_dir = dir.join(SEGMENTS_DIR);
    let listed = manifest.chunks.iter().flat_map(|(id, chunk)| {
        let segments = chunk.segments.iter().map(|segment| segment.file_name(*id));
        segments.chain(chunk.deletes.iter().map(|deletes| deletes.file_name(*id)))
    });
    let listed = listed.collect::<HashSet<_>>();
    for name in vfs.list(&segments_dir).map_err(StorageError::io("list", &segments_dir))? {
        if !listed.contains(&name) {
            let path = segments_dir.join(name);
            vfs.remove(&path).map_err(StorageError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn listed(vfs: &dyn Vfs, dir: &Path, manifest: &Manifest) -> Result<State> {
    let segments_dir = dir.join(SEGMENTS_DIR);
    let chunks = manifest.chunks.iter().map(|(id, record)| {
        let segments = record.segments.iter().map(|segment| Segment::new(segment.clone(), &segments_dir, *id));
        let mut chunk = Chunk::new(record.layout.clone());
        chunk.sealed_before = record.sealed_before;
        chunk.horizon = record.horizon;
        chunk.segments = Arc::new(segments.collect());
        if let Some(file) = &record.deletes {
            chunk.deletes = Arc::new(deletes::load(vfs, &segments_dir, *id, file)?);
            chunk.deletes_file = Some(file.clone());
        }
        Ok((*id, chunk))
    });
    Ok(State {
        cluster: manifest.identity.as_ref().map(|identity| identity.cluster),
        chunks: chunks.collect::<Result<_>>()?,
        dropped: manifest.dropped.clone(),
        txns: HashMap::new(),
        // Only what the log itself says while it is replayed: the manifest also remembers commits that are replayed.
        ended: Ended::default(),
        epoch_max: manifest.epoch_max,
        commit_seq_max: manifest.commit_seq_max,
        bytes: 0,
        marks: VecDeque::new(),
    })
}

fn replay(state: &mut State, manifest: &Manifest, lsn: Lsn, bytes: &Bytes, now: std::time::Duration) -> Result<()> {
    let bad = |reason: String| StorageError::Replay { lsn, reason };
    let record = decode(bytes).map_err(|reason| bad(reason.to_owned()))?;
    let txn = record.txn;
    state.epoch_max = state.epoch_max.max(txn.epoch);
    let ended = state.ended.get(txn).is_some();
    // Records of the transaction may be gone only if it ended and all its rows are elsewhere.
    let complete = state.txns.contains_key(&txn) || ended || record.first < manifest.log_needed;
    match record.kind {
        Kind::Stage(_) if ended => {}
        Kind::Stage(writes) => {
            let entry = state.txns.entry(txn).or_insert_with(|| Txn::new(record.first));
            let before = entry.bytes;
            for (index, write) in writes.into_iter().enumerate() {
                let chunk = write.chunk;
                match write.kind {
                    WriteKind::Insert => {
                        let rows = DeltaRows::decode(&write.body, &write.layout);
                        let rows = Arc::new(rows.map_err(|error| bad(error.to_string()))?);
                        entry.bytes += rows.bytes;
                        let part = Some(Part::batch(lsn, index));
                        entry.writes.push(StagedWrite { chunk, layout: write.layout, rows, part });
                    }
                    WriteKind::Delete => {
                        let removal = Removal::decode(&write.body).map_err(|error| bad(error.to_string()))?;
                        entry.bytes += removal.bytes;
                        entry.removals.push(StagedRemoval { chunk, removal: Arc::new(removal) });
                    }
                }
            }
            state.bytes += entry.bytes - before;
        }
        Kind::Prepare | Kind::Commit(_) if !complete => {
            return Err(bad(format!("the rows of transaction {txn} are missing")));
        }
        Kind::Prepare => {
            if let Some(entry) = state.txns.get_mut(&txn) {
                entry.phase = Phase::Prepared;
                entry.recovered = true;
            }
        }
        Kind::Commit(seq) => {
            state.apply(txn, seq, lsn, now);
            state.commit_seq_max = state.commit_seq_max.max(seq);
            state.ended.insert(txn, Some(seq));
        }
        Kind::Abort => state.forget(txn),
        Kind::Epoch => {}
    }
    Ok(())
}

/// What was staged and not prepared can no longer become whole: later writes may have been lost.
fn end_replay(state: &mut State, manifest: &Manifest) {
    let staged = state.txns.iter().filter(|(_, txn)| txn.phase == Phase::Staged).map(|(id, _)| *id);
    staged.collect::<Vec<_>>().into_iter().for_each(|txn| state.forget(txn));
    let replayed = std::mem::take(&mut state.ended);
    manifest.committed.iter().for_each(|(txn, seq)| state.ended.insert(*txn, Some(*seq)));
    replayed.into_iter().for_each(|(txn, outcome)| state.ended.insert(txn, outcome));
}
