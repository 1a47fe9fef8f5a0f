//! The store's memory: chunks, open transactions, and the outcomes of recent ones. No disk access in here.

use super::record::{Kind, Record, encode};
use crate::delta::{DeltaBatch, DeltaRows};
use crate::log::Lsn;
use crate::manifest::ChunkSet;
use crate::segment::Segment;
use proto::{ChunkId, ChunkLayout, ClusterId, CommitSeq, TxnId};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Outcomes remembered in memory. A coordinator asks within seconds; this is a minute of small transactions.
const ENDED_MAX: usize = 64 << 10;
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
    /// Staged and unsealed rows.
    pub(super) bytes: usize,
}

pub(super) struct Chunk {
    pub(super) layout: ChunkLayout,
    /// Shared with readers; copied when written to under them.
    pub(super) delta: Arc<Vec<DeltaBatch>>,
    pub(super) delta_bytes: usize,
    /// When the oldest unsealed row came, by the store's clock.
    pub(super) delta_since: Duration,
    pub(super) sealed_before: Lsn,
    pub(super) segments: Arc<Vec<Arc<Segment>>>,
}

pub(super) struct Txn {
    pub(super) phase: Phase,
    /// Nothing of it lies before this position of the log.
    pub(super) first_lsn: Lsn,
    /// Calls of `stage` that are writing.
    pub(super) staging: u32,
    pub(super) writes: Vec<StagedWrite>,
    pub(super) bytes: usize,
    /// A `stage` failed: rows are missing, it must not commit.
    pub(super) broken: bool,
    /// Found prepared in the log: in doubt until told.
    pub(super) recovered: bool,
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
    pub(super) chunk: ChunkId,
    pub(super) layout: ChunkLayout,
    pub(super) rows: Arc<DeltaRows>,
}

impl Chunk {
    pub(super) fn new(layout: ChunkLayout) -> Chunk {
        Chunk {
            layout,
            delta: Arc::default(),
            delta_bytes: 0,
            delta_since: Duration::ZERO,
            sealed_before: Lsn(0),
            segments: Arc::default(),
        }
    }
}

impl Txn {
    pub(super) fn new(first_lsn: Lsn) -> Txn {
        Txn {
            phase: Phase::Staged,
            first_lsn,
            staging: 0,
            writes: Vec::new(),
            bytes: 0,
            broken: false,
            recovered: false,
        }
    }

    /// The head of a log record of this transaction.
    pub(super) fn record(&self, txn: TxnId, kind: Kind) -> Vec<u8> {
        encode(&Record { txn, first: self.first_lsn, kind })
    }
}

impl State {
    /// The log is needed from here on; `None` when nothing in memory needs it. `leaving` rows do not count.
    pub(super) fn log_needed(&self, leaving: Option<(ChunkId, Lsn)>) -> Option<Lsn> {
        let staying = |id: ChunkId, batch: &&DeltaBatch| {
            leaving.is_none_or(|(chunk, before)| id != chunk || batch.commit_lsn >= before)
        };
        let delta = self.chunks.iter().flat_map(|(id, chunk)| {
            chunk.delta.iter().filter(move |batch| staying(*id, batch)).map(|batch| batch.first_lsn)
        });
        self.txns.values().map(|txn| txn.first_lsn).chain(delta).min()
    }

    pub(super) fn in_doubt(&self) -> Vec<TxnId> {
        let prepared = self.txns.iter().filter(|(_, txn)| txn.phase == Phase::Prepared);
        let mut txns = prepared.map(|(id, _)| *id).collect::<Vec<_>>();
        txns.sort();
        txns
    }

    /// Makes a transaction's rows visible from `seq` on. Rows of dropped chunks, and rows that are in segments already,
    /// go nowhere.
    pub(super) fn apply(&mut self, txn: TxnId, seq: CommitSeq, commit_lsn: Lsn, now: Duration) {
        let Some(ended) = self.txns.remove(&txn) else { return };
        for write in ended.writes {
            let bytes = write.rows.bytes;
            let chunk = self.chunks.entry(write.chunk);
            let known = !self.dropped.contains(write.chunk);
            let chunk = known.then(|| chunk.or_insert_with(|| Chunk::new(write.layout.clone())));
            match chunk.filter(|chunk| commit_lsn >= chunk.sealed_before) {
                Some(chunk) => {
                    chunk.layout = write.layout;
                    if chunk.delta.is_empty() {
                        chunk.delta_since = now;
                    }
                    chunk.delta_bytes += bytes;
                    let batch = DeltaBatch { rows: write.rows, seq, first_lsn: ended.first_lsn, commit_lsn };
                    Arc::make_mut(&mut chunk.delta).push(batch);
                }
                None => self.bytes -= bytes,
            }
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

    /// Notes that the transaction cannot commit, unless its outcome is known.
    pub(super) fn insert_new(&mut self, txn: TxnId) {
        if !self.outcomes.contains_key(&txn) {
            self.insert(txn, None);
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
