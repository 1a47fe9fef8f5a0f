//! The store's memory: chunks, open transactions, and the outcomes of recent ones. No disk access in here.

use super::record::{Kind, Record, encode};
use crate::deletes::{self, ChunkDeletes, DeletesRecord, DeltaRemoval, Part, Removal};
use crate::delta::{DeltaBatch, DeltaRows};
use crate::error::{Result, StorageError};
use crate::log::Lsn;
use crate::manifest::ChunkSet;
use crate::segment::Segment;
use proto::{ChunkId, ChunkLayout, ClusterId, CommitSeq, SubTxn, TxnId};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Outcomes remembered in memory. A coordinator asks within seconds; this is a minute of small transactions.
const ENDED_MAX: usize = 64 << 10;
/// Times noted for one `snapshot_age_max`.
const MARKS: u32 = 16;
/// Commits remembered in the manifest, in case the log that holds them is gone.
const COMMITTED_KEPT: usize = 4096;

pub(super) struct State {
    pub(super) cluster: Option<ClusterId>,
    pub(super) chunks: HashMap<ChunkId, Chunk>,
    pub(super) dropped: ChunkSet,
    pub(super) txns: HashMap<TxnId, Txn>,
    pub(super) ended: Ended,
    pub(super) epoch_max: u64,
    pub(super) commit_seq_max: CommitSeq,
    /// Staged and unsealed rows and removals.
    pub(super) bytes: usize,
    /// Which commits were there when, by the store's clock.
    pub(super) marks: VecDeque<(Duration, CommitSeq)>,
}

pub(super) struct Chunk {
    pub(super) layout: ChunkLayout,
    /// In the order in which they were staged: by falling part. Shared with readers; copied when written to under them.
    pub(super) delta: Arc<Vec<DeltaBatch>>,
    /// All committed removals, of segments and of the delta. Shared with readers.
    pub(super) deletes: Arc<ChunkDeletes>,
    /// Those of them that are in no deletes file.
    pub(super) removals: Vec<DeltaRemoval>,
    /// The file that has the others.
    pub(super) deletes_file: Option<DeletesRecord>,
    /// Of `delta` and `removals`.
    pub(super) delta_bytes: usize,
    /// When the oldest unsealed row or removal came, by the store's clock.
    pub(super) delta_since: Duration,
    pub(super) sealed_before: Lsn,
    pub(super) segments: Arc<Vec<Arc<Segment>>>,
    /// Their rows are on the way into other parts, and cannot be removed until they are there.
    pub(super) moving: BTreeSet<Part>,
    /// Somebody may hold addresses of rows; until then, by the store's clock, they are not moved without need.
    pub(super) pinned_until: Duration,
    /// Rows removed up to here may be gone for good.
    pub(super) horizon: CommitSeq,
    /// A segment cannot be read.
    pub(super) unmergeable: bool,
    /// Found when the store was opened.
    pub(super) damage: Option<Damage>,
}

/// A file without which nobody knows a chunk's rows is missing or damaged: the chunk is closed to readers and writers,
/// neither sealed nor merged, so that its files stay as they are, until it is dropped or the file is put back.
pub(super) struct Damage {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) reason: String,
}

pub(super) struct Txn {
    pub(super) phase: Phase,
    /// Nothing of it lies before this position of the log.
    pub(super) first_lsn: Lsn,
    /// Calls of `stage` that are writing.
    pub(super) staging: u32,
    pub(super) writes: Vec<StagedWrite>,
    pub(super) removals: Vec<StagedRemoval>,
    pub(super) bytes: usize,
    /// Nothing is staged under lower numbers any more: some of them were discarded.
    pub(super) sub_min: SubTxn,
    pub(super) broken: Option<Broken>,
    /// Found prepared in the log: in doubt until told.
    pub(super) recovered: bool,
}

/// Why a transaction must not commit, unless the sub-transaction is discarded since which that is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) sub: SubTxn,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Staged,
    Preparing,
    Prepared,
    /// Its commit record lies at or behind `floor`.
    Committing {
        floor: Lsn,
    },
}

#[derive(Clone)]
pub(super) struct StagedWrite {
    pub(super) sub: SubTxn,
    pub(super) chunk: ChunkId,
    pub(super) layout: ChunkLayout,
    pub(super) rows: Arc<DeltaRows>,
    /// `None` until it is in the log: till then nobody reads it.
    pub(super) part: Option<Part>,
}

#[derive(Clone)]
pub(super) struct StagedRemoval {
    pub(super) sub: SubTxn,
    pub(super) chunk: ChunkId,
    pub(super) removal: Arc<Removal>,
}

impl Chunk {
    pub(super) fn new(layout: ChunkLayout) -> Chunk {
        Chunk {
            layout,
            delta: Arc::default(),
            deletes: Arc::default(),
            removals: Vec::new(),
            deletes_file: None,
            delta_bytes: 0,
            delta_since: Duration::ZERO,
            sealed_before: Lsn(0),
            segments: Arc::default(),
            moving: BTreeSet::new(),
            pinned_until: Duration::ZERO,
            horizon: CommitSeq::ZERO,
            unmergeable: false,
            damage: None,
        }
    }

    /// Rows of the part; `None` when the chunk does not have it, or no longer.
    pub(super) fn rows_of(&self, part: Part) -> Option<u64> {
        let mut segments = self.segments.iter().map(|segment| &segment.record);
        match part.is_segment() {
            true => segments.find(|record| Part::segment(record.number) == part).map(|record| record.rows),
            false => self.batch(part).map(|batch| batch.rows.batch.num_rows() as u64),
        }
    }

    /// # Errors
    /// `Damaged` when the chunk is closed.
    pub(super) fn check(&self) -> Result<()> {
        self.damage.as_ref().map_or(Ok(()), |damage| {
            let reason = format!("{}; its chunk is closed", damage.reason);
            Err(StorageError::damaged(&damage.path, damage.offset, reason))
        })
    }

    pub(super) fn batch(&self, part: Part) -> Option<&DeltaBatch> {
        let at = self.delta.binary_search_by(|batch| part.cmp(&batch.part)).ok()?;
        Some(&self.delta[at])
    }

    fn push(&mut self, batch: DeltaBatch) {
        let delta = Arc::make_mut(&mut self.delta);
        let at = delta.partition_point(|before| before.part > batch.part);
        delta.insert(at, batch);
    }

    /// Whether there is anything that only the log keeps.
    pub(super) fn unsealed(&self) -> bool {
        !self.delta.is_empty() || !self.removals.is_empty()
    }

    fn grow(&mut self, bytes: usize, now: Duration) {
        if !self.unsealed() {
            self.delta_since = now;
        }
        self.delta_bytes += bytes;
    }
}

impl Txn {
    pub(super) fn new(first_lsn: Lsn) -> Txn {
        Txn {
            phase: Phase::Staged,
            first_lsn,
            staging: 0,
            writes: Vec::new(),
            removals: Vec::new(),
            bytes: 0,
            sub_min: SubTxn::FIRST,
            broken: None,
            recovered: false,
        }
    }

    /// It was prepared before a restart, and nobody has told yet how it ended.
    pub(super) fn in_doubt(&self) -> bool {
        self.recovered && self.phase != Phase::Staged
    }

    /// It lacks something since the sub-transaction.
    pub(super) fn break_at(&mut self, sub: SubTxn, reason: &'static str) {
        if self.broken.is_none_or(|broken| sub < broken.sub) {
            self.broken = Some(Broken { sub, reason });
        }
    }

    /// The chunks it changes; one may come several times.
    pub(super) fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.writes.iter().map(|write| write.chunk).chain(self.removals.iter().map(|removal| removal.chunk))
    }

    /// The head of a log record of this transaction.
    pub(super) fn record(&self, txn: TxnId, kind: Kind) -> Vec<u8> {
        encode(&Record { txn, first: self.first_lsn, kind })
    }
}

impl State {
    /// # Errors
    /// `Deposed` when a newer coordinator was here.
    pub(super) fn check_epoch(&self, epoch: u64) -> Result<(), StorageError> {
        let newest = self.epoch_max;
        if epoch < newest { Err(StorageError::Deposed { epoch, newest }) } else { Ok(()) }
    }

    /// The log is needed from here on; `None` when nothing in memory needs it. What is `leaving` does not count.
    pub(super) fn log_needed(&self, leaving: Option<(ChunkId, Lsn)>) -> Option<Lsn> {
        let delta = self.chunks.iter().flat_map(|(id, chunk)| {
            let batches = chunk.delta.iter().map(|batch| (batch.commit_lsn, batch.first_lsn));
            let removals = chunk.removals.iter().map(|removal| (removal.commit_lsn, removal.first_lsn));
            let staying = move |commit: Lsn| leaving.is_none_or(|(chunk, before)| *id != chunk || commit >= before);
            batches.chain(removals).filter(move |(commit, _)| staying(*commit)).map(|(_, first)| first)
        });
        self.txns.values().map(|txn| txn.first_lsn).chain(delta).min()
    }

    /// Notes the time of the youngest commit, now and then.
    pub(super) fn mark(&mut self, now: Duration, age_max: Duration) {
        if self.marks.back().is_some_and(|(then, _)| now < *then + age_max / MARKS) {
            return;
        }
        self.marks.push_back((now, self.commit_seq_max));
        while self.marks.get(1).is_some_and(|(then, _)| *then + age_max <= now) {
            self.marks.pop_front();
        }
    }

    /// Commits that were there `age_max` ago: no snapshot in use is older.
    pub(super) fn horizon(&self, now: Duration, age_max: Duration) -> CommitSeq {
        let old = self.marks.iter().take_while(|(then, _)| *then + age_max <= now);
        old.map(|(_, seq)| *seq).last().unwrap_or(CommitSeq::ZERO)
    }

    pub(super) fn in_doubt(&self) -> Vec<TxnId> {
        let prepared = self.txns.iter().filter(|(_, txn)| txn.phase == Phase::Prepared);
        let mut txns = prepared.map(|(id, _)| *id).collect::<Vec<_>>();
        txns.sort();
        txns
    }

    /// A part of which a transaction removes rows that are neither in the delta nor in a listed segment. There is none,
    /// but in a directory whose files do not belong together.
    pub(super) fn lacking(&self, txn: TxnId, commit_lsn: Lsn) -> Option<i64> {
        let removals = &self.txns.get(&txn)?.removals;
        let own = &self.txns.get(&txn)?.writes;
        removals.iter().find_map(|StagedRemoval { chunk: id, removal, .. }| {
            let chunk = self.chunks.get(id);
            if chunk.is_some_and(|chunk| commit_lsn < chunk.sealed_before) || self.dropped.contains(*id) {
                return None;
            }
            let mut parts = removal.parts.iter().map(|(part, _)| *part);
            let staged = |part| own.iter().any(|write| write.chunk == *id && write.part == Some(part));
            let lacking = parts.find(|part| !staged(*part) && chunk.and_then(|chunk| chunk.rows_of(*part)).is_none());
            lacking.map(|part| part.0)
        })
    }

    /// Makes a transaction's changes visible from `seq` on. Those of dropped chunks, and those that are in segments and
    /// deletes files already, go nowhere.
    pub(super) fn apply(&mut self, txn: TxnId, seq: CommitSeq, commit_lsn: Lsn, now: Duration) {
        let Some(ended) = self.txns.remove(&txn) else { return };
        for write in ended.writes {
            let bytes = write.rows.bytes;
            let part = write.part.expect("a transaction whose rows are not in the log cannot commit");
            let chunk = self.chunks.entry(write.chunk);
            let known = !self.dropped.contains(write.chunk);
            let chunk = known.then(|| chunk.or_insert_with(|| Chunk::new(write.layout.clone())));
            match chunk.filter(|chunk| commit_lsn >= chunk.sealed_before) {
                Some(chunk) => {
                    chunk.layout = write.layout;
                    chunk.grow(bytes, now);
                    let first_lsn = ended.first_lsn;
                    let batch = DeltaBatch { rows: write.rows, part, seq, first_lsn, commit_lsn };
                    chunk.push(batch);
                }
                None => self.bytes -= bytes,
            }
        }
        for StagedRemoval { chunk, removal, .. } in ended.removals {
            let chunk = self.chunks.get_mut(&chunk).filter(|chunk| commit_lsn >= chunk.sealed_before);
            let Some(chunk) = chunk else {
                self.bytes -= removal.bytes;
                continue;
            };
            let there = removal.parts.iter().all(|(part, _)| chunk.rows_of(*part).is_some());
            assert!(there, "what a transaction removes stays where it is");
            chunk.grow(removal.bytes, now);
            deletes::add(Arc::make_mut(&mut chunk.deletes), seq, &removal);
            chunk.removals.push(DeltaRemoval { removal, seq, first_lsn: ended.first_lsn, commit_lsn });
        }
        self.commit_seq_max = self.commit_seq_max.max(seq);
        self.ended.insert(txn, Some(seq));
    }

    /// Forgets a transaction that did not commit.
    pub(super) fn forget(&mut self, txn: TxnId) {
        if let Some(ended) = self.txns.remove(&txn) {
            self.bytes -= ended.bytes;
        }
        self.ended.insert(txn, None);
    }
}

/// How recent transactions ended: `Some` committed, `None` aborted or lost. Bounded; the oldest are forgotten first.
#[derive(Default)]
pub(super) struct Ended {
    outcomes: HashMap<TxnId, Option<CommitSeq>>,
    order: VecDeque<TxnId>,
}

impl Ended {
    pub(super) fn insert(&mut self, txn: TxnId, outcome: Option<CommitSeq>) {
        if self.outcomes.insert(txn, outcome).is_some() {
            return;
        }
        self.order.push_back(txn);
        if self.order.len() > ENDED_MAX {
            let oldest = self.order.pop_front().expect("it is not empty");
            self.outcomes.remove(&oldest);
        }
    }

    /// The outer `None`: not remembered.
    pub(super) fn get(&self, txn: TxnId) -> Option<Option<CommitSeq>> {
        self.outcomes.get(&txn).copied()
    }

    /// All of them, oldest first.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (TxnId, Option<CommitSeq>)> {
        let Ended { outcomes, order } = self;
        order.into_iter().map(move |txn| (txn, outcomes[&txn]))
    }

    /// The youngest commits, oldest first.
    pub(super) fn committed(&self) -> Vec<(TxnId, CommitSeq)> {
        let committed = self.order.iter().rev().filter_map(|txn| Some((*txn, self.outcomes[txn]?)));
        let mut kept = committed.take(COMMITTED_KEPT).collect::<Vec<_>>();
        kept.reverse();
        kept
    }
}
