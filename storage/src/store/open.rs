//! Opening: lock, format, manifest, log, unlisted files. In this order, so that each rests on what came before. Damage to
//! one of these is an error; damage to a file of one chunk closes that chunk (`Damage`), and the others serve.

use super::background;
use super::record::{Kind, decode};
use super::state::{Chunk, Damage, Ended, Phase, StagedRemoval, StagedWrite, State, Txn};
use super::{Core, LOG_DIR, SEGMENTS_DIR, Store, StoreOptions};
use crate::deletes::{self, Part, Removal};
use crate::delta::DeltaRows;
use crate::error::{Result, StorageError};
use crate::failpoint;
use crate::log::{Log, LogOptions, Lsn};
use crate::manifest::{FORMAT_VERSION, Manifest};
use crate::segment::{OpenFiles, Segment};
use crate::vfs::{DirLock, Vfs, read_all};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use proto::{Clock, Rng, WriteKind};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
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
    let segments_dir = dir.join(SEGMENTS_DIR);
    let there = vfs.list(&segments_dir).map_err(StorageError::io("list", &segments_dir))?;
    let there = there.into_iter().collect::<HashSet<_>>();

    let mut state = listed(vfs.as_ref(), dir, &manifest, &there);
    let log_options = LogOptions { segment_bytes_max: options.log_segment_bytes_max, durable_end: manifest.log_end };
    let now = clock.elapsed();
    let log_dir = dir.join(LOG_DIR);
    let log = Log::open(Arc::clone(&vfs), &log_dir, log_options, &mut |lsn, bytes| {
        replay(&mut state, &manifest, lsn, &bytes, now)
    })?;
    manifest.check_log(&log_dir, log.start()..log.end())?;
    end_replay(&mut state, &manifest);
    failpoint::pass("d9");
    // A manifest that lists files which are not there may be an old one: then the others are not known to be useless.
    if state.chunks.values().all(|chunk| chunk.damage.is_none()) {
        remove_unlisted(vfs.as_ref(), &segments_dir, &manifest, &there)?;
    }

    let (wake, woken) = crossbeam::channel::bounded(1);
    let (stopping, stopped) = crossbeam::channel::bounded(1);
    let core = Arc::new(Core {
        files: OpenFiles::new(options.open_files_max, options.open_bytes_max),
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
        unsynced: AtomicU64::new(0),
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

fn remove_unlisted(vfs: &dyn Vfs, dir: &Path, manifest: &Manifest, there: &HashSet<String>) -> Result<()> {
    let listed = manifest.chunks.iter().flat_map(|(id, chunk)| chunk.file_names(*id)).collect::<HashSet<_>>();
    for name in there.difference(&listed) {
        let path = dir.join(name);
        vfs.remove(&path).map_err(StorageError::io("remove", &path))?;
    }
    Ok(())
}

fn listed(vfs: &dyn Vfs, dir: &Path, manifest: &Manifest, there: &HashSet<String>) -> State {
    let segments_dir = dir.join(SEGMENTS_DIR);
    let chunks = manifest.chunks.iter().map(|(id, record)| {
        let segments = record.segments.iter().map(|segment| Segment::new(segment.clone(), &segments_dir, *id));
        let mut chunk = Chunk::new(record.layout.clone());
        chunk.sealed_before = record.sealed_before;
        chunk.horizon = record.horizon;
        chunk.segments = Arc::new(segments.collect());
        chunk.damage = record.file_names(*id).find(|name| !there.contains(name)).map(|name| {
            let (path, reason) = (segments_dir.join(name), "the file is missing".to_owned());
            Damage { path, offset: 0, reason }
        });
        chunk.deletes_file = record.deletes.clone();
        if let Some(file) = record.deletes.as_ref().filter(|_| chunk.damage.is_none()) {
            match deletes::load(vfs, &segments_dir, *id, file) {
                Ok(deletes) => chunk.deletes = Arc::new(deletes),
                Err(error) => chunk.damage = Some(damage(error, segments_dir.join(file.file_name(*id)))),
            }
        }
        if let Err(error) = chunk.check() {
            tracing::error!(chunk = %id, %error, "a chunk is closed");
        }
        (*id, chunk)
    });
    State {
        cluster: manifest.identity.as_ref().map(|identity| identity.cluster),
        chunks: chunks.collect(),
        dropped: manifest.dropped.clone(),
        txns: HashMap::new(),
        // Only what the log itself says while it is replayed: the manifest also remembers commits that are replayed.
        ended: Ended::default(),
        epoch_max: manifest.epoch_max,
        commit_seq_max: manifest.commit_seq_max,
        bytes: 0,
        marks: VecDeque::new(),
    }
}

fn damage(error: StorageError, path: PathBuf) -> Damage {
    match error {
        StorageError::Damaged { path, offset, reason } => Damage { path, offset, reason },
        other => Damage { path, offset: 0, reason: other.to_string() },
    }
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
        Kind::Stage(..) | Kind::Discard(_) if ended => {}
        Kind::Stage(sub, writes) => {
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
                        entry.writes.push(StagedWrite { sub, chunk, layout: write.layout, rows, part });
                    }
                    WriteKind::Delete => {
                        let removal = Removal::decode(&write.body).map_err(|error| bad(error.to_string()))?;
                        entry.bytes += removal.bytes;
                        entry.removals.push(StagedRemoval { sub, chunk, removal: Arc::new(removal) });
                    }
                }
            }
            state.bytes += entry.bytes - before;
        }
        Kind::Discard(subs) => {
            // The transaction may have nothing else in the log: all that it tried was refused.
            state.txns.entry(txn).or_insert_with(|| Txn::new(record.first));
            state.discard(txn, &subs);
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
            if let Some(part) = state.lacking(txn, lsn) {
                return Err(bad(format!("transaction {txn} removed rows of part {part}, which is not there")));
            }
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
