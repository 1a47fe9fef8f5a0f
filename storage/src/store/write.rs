//! Transactions: stage, prepare, commit, abort; `discard` is apart.
//!
//! ```text
//!           stage            prepare              commit(Prepared)
//! (nothing) ─────▶ Staged ─────────────▶ Prepared ───────────────▶ committed
//!                    │ commit(OnePhase)                               ▲
//!                    └────────────────────────────────────────────────┘
//! discard: stays Staged
//! abort: from Staged and Prepared; a restart: from Staged; a newer epoch: from Staged
//! ```

use super::conflicts::Staging;
use super::record::{Kind, Record, encode, stage_parts};
use super::state::{Phase, StagedRemoval, StagedWrite, State, Txn};
use super::{Core, Store, committed_otherwise, refused};
use crate::deletes::{Part, Removal};
use crate::delta::DeltaRows;
use crate::error::{Result, StorageError};
use crate::failpoint;
use crate::log::Lsn;
use parking_lot::MutexGuard;
use proto::{ChunkWrite, ClusterId, CommitMode, CommitSeq, SubTxn, TxnId, TxnOutcome, WriteKind};
use std::sync::Arc;

impl Store {
    /// Refuses coordinators of older epochs from now on. Durable on return.
    ///
    /// # Errors
    /// `Deposed` when a newer coordinator was here; another cluster; a failed fsync.
    pub fn obey(&self, cluster: ClusterId, epoch: u64) -> Result<(), StorageError> {
        self.core.check()?;
        let txn = TxnId { cluster, epoch, number: 0 };
        if !self.core.see_epoch(txn)? {
            // Who saw the epoch first may still be making it durable.
            self.core.log_epoch(txn)?;
        }
        self.core.wait_for_older_commits(epoch)
    }

    /// # Errors
    /// `Deposed` when a newer coordinator was here.
    pub fn check_epoch(&self, epoch: u64) -> Result<(), StorageError> {
        self.core.state.lock().check_epoch(epoch)
    }

    /// Whether something of the open transaction is here: not of one all of which was taken back, or failed.
    pub fn holds_rows_of(&self, txn: TxnId) -> bool {
        let state = self.core.state.lock();
        state.txns.get(&txn).is_some_and(|entry| !entry.writes.is_empty() || !entry.removals.is_empty())
    }

    /// Adds changes to a transaction, which starts with its first `stage`, under the number of a sub-transaction
    /// (`discard`). In the log on return, not durable; visible to scans of the same transaction only. Waits for memory up
    /// to `stage_wait_max`, and up to `lock_wait_max` for other transactions that remove the same rows or add the same
    /// keys.
    ///
    /// # Errors
    /// `BadWrite`, `ChunkDropped`, `Duplicate`, `Conflict`, `LockTimeout`, `DeltaFull`, a full disk, or a transaction
    /// that has ended or voted. The transaction, which now lacks changes, can only be aborted, or the sub-transaction
    /// discarded.
    pub fn stage(&self, txn: TxnId, sub: SubTxn, writes: Vec<ChunkWrite>) -> Result<(), StorageError> {
        self.core.check()?;
        failpoint::pass("d1");
        self.core.see_epoch(txn)?;
        self.add(txn, sub, writes).inspect_err(|_| self.core.note_lack(txn, sub))
    }

    fn add(&self, txn: TxnId, sub: SubTxn, writes: Vec<ChunkWrite>) -> Result<()> {
        let core = &self.core;
        let staging = decode(sub, &writes)?;
        let bytes = staging.bytes;
        core.reserve(&mut core.state.lock(), bytes)?;
        let (first_lsn, written) = core.admit(txn, staging).inspect_err(|_| core.state.lock().bytes -= bytes)?;
        let record = Record { txn, first: first_lsn, kind: Kind::Stage(sub, writes) };
        let head = encode(&record);
        let Kind::Stage(_, writes) = &record.kind else { unreachable!("it was made a stage record above") };
        let appended = core.append_log(&stage_parts(&head, writes));
        let mut state = core.state.lock();
        let Some(entry) = state.txns.get_mut(&txn) else {
            return Err(refused(txn, "was aborted while rows were added to it"));
        };
        entry.staging -= 1;
        let lsn = appended?;
        for (at, index) in written {
            entry.writes[at].part = Some(Part::batch(lsn, index));
        }
        Ok(())
    }

    /// The yes vote. Durable on return: from then on the transaction can only be told how it ends. Idempotent.
    ///
    /// # Errors
    /// A no: the transaction is to be aborted.
    pub fn prepare(&self, txn: TxnId) -> Result<(), StorageError> {
        let core = &self.core;
        core.check()?;
        core.see_epoch(txn)?;
        let head = {
            let mut state = core.state.lock();
            if state.txns.get(&txn).is_some_and(|entry| entry.phase == Phase::Prepared) {
                return Ok(());
            }
            let entry = core.staged(&mut state, txn)?;
            entry.phase = Phase::Preparing;
            entry.record(txn, Kind::Prepare)
        };
        let logged = core.append_log(&[&head]).and_then(|lsn| {
            failpoint::pass("d2");
            core.sync_log(lsn)
        });
        failpoint::pass("d3");
        let mut state = core.state.lock();
        let entry = state.txns.get_mut(&txn).expect("only this call ends the preparing phase");
        entry.phase = if logged.is_ok() { Phase::Prepared } else { Phase::Staged };
        failpoint::soon("d4");
        logged
    }

    /// Makes the rows visible from `seq` on. Durable on return, or with `Asynchronous` about `SYNC_DELAY` later. Idempotent
    /// for the same `seq`.
    ///
    /// # Errors
    /// A one-phase commit that failed before anything was logged is to be aborted; `OutcomeUnknown` when it is not known
    /// whether it is durable.
    pub fn commit(&self, txn: TxnId, seq: CommitSeq, mode: CommitMode) -> Result<(), StorageError> {
        let core = &self.core;
        core.check()?;
        while failpoint::is_dying() {
            // Between its vote and its death a node hears nothing more.
            std::thread::yield_now();
        }
        failpoint::pass("d5");
        if mode != CommitMode::Prepared {
            core.see_epoch(txn)?;
        }
        let mut state = core.state.lock();
        core.wait_while_committing(&mut state, txn)?;
        match state.ended.get(txn) {
            Some(Some(at)) if at == seq => {
                drop(state);
                return if mode == CommitMode::Asynchronous { Ok(()) } else { core.sync_committed() };
            }
            Some(Some(at)) => return Err(committed_otherwise(txn, at)),
            Some(None) => return Err(refused(txn, "has ended without a commit")),
            None => {}
        }
        let floor = core.log.end();
        let entry = match mode {
            CommitMode::OnePhase | CommitMode::Asynchronous => core.staged(&mut state, txn)?,
            CommitMode::Prepared => {
                let entry = state.txns.get_mut(&txn).filter(|entry| entry.phase == Phase::Prepared);
                entry.ok_or_else(|| refused(txn, "was not prepared here"))?
            }
        };
        let before = entry.phase;
        entry.phase = Phase::Committing { floor };
        let head = entry.record(txn, Kind::Commit(seq));
        drop(state);

        let appended = core.append_log(&[&head]);
        let synced = appended.and_then(|lsn| {
            if mode == CommitMode::Asynchronous {
                core.sync_later(lsn);
                return Ok(lsn);
            }
            match core.sync_log(lsn) {
                Ok(()) => Ok(lsn),
                Err(source) => Err(StorageError::OutcomeUnknown { txn, source: Box::new(source) }),
            }
        });
        let mut state = core.state.lock();
        let outcome = match synced {
            Ok(lsn) => {
                state.apply(txn, seq, lsn, core.clock.elapsed());
                Ok(())
            }
            Err(error) => {
                let entry = state.txns.get_mut(&txn).expect("only this call ends the committing phase");
                entry.phase = before;
                Err(error)
            }
        };
        let due = core.any_due(&state);
        drop(state);
        core.changed.notify_all();
        if due {
            core.wake.try_send(()).ok();
        }
        failpoint::pass("d8");
        outcome
    }

    /// Forgets the transaction. Idempotent; fine for one that was never staged. Not synced: when the record is lost, the
    /// transaction is in doubt again and its coordinator says the same.
    ///
    /// # Errors
    /// When it is committed or being committed.
    pub fn abort(&self, txn: TxnId) -> Result<(), StorageError> {
        let core = &self.core;
        core.check()?;
        failpoint::pass("d10");
        core.check_cluster(&core.state.lock(), txn)?;
        let head = {
            let mut state = core.state.lock();
            core.wait_while_committing(&mut state, txn)?;
            if let Some(Some(seq)) = state.ended.get(txn) {
                return Err(committed_otherwise(txn, seq));
            }
            let head = state.txns.get(&txn).map(|entry| entry.record(txn, Kind::Abort));
            if state.txns.get(&txn).is_some_and(|entry| entry.phase == Phase::Preparing) {
                return Err(refused(txn, "is being prepared"));
            }
            state.forget(txn);
            head
        };
        core.changed.notify_all();
        head.map_or(Ok(()), |head| match core.append_log(&[&head]) {
            Err(error) if !error.is_disk_full() => Err(error),
            _ => Ok(()),
        })
    }

    /// How the transaction stands here. `Unknown` also for commits so old that they are no longer remembered.
    pub fn outcome(&self, txn: TxnId) -> Result<TxnOutcome, StorageError> {
        self.core.check()?;
        let mut state = self.core.state.lock();
        self.core.wait_while_committing(&mut state, txn)?;
        if let Some(Some(seq)) = state.ended.get(txn) {
            return Ok(TxnOutcome::Committed(seq));
        }
        Ok(match state.txns.get(&txn).map(|entry| entry.phase) {
            None => TxnOutcome::Unknown,
            Some(Phase::Prepared) => TxnOutcome::Prepared,
            Some(_) => TxnOutcome::Staged,
        })
    }
}

impl Core {
    /// Notes a newer coordinator: durably, and its predecessor's unprepared transactions are over. Whether it was news.
    ///
    /// # Errors
    /// `Deposed` for an older epoch than one seen; another cluster.
    pub(super) fn see_epoch(&self, txn: TxnId) -> Result<bool> {
        let mut state = self.state.lock();
        self.check_cluster(&state, txn)?;
        state.check_epoch(txn.epoch)?;
        if txn.epoch == state.epoch_max {
            return Ok(false);
        }
        state.epoch_max = txn.epoch;
        let stale = state.txns.iter().filter(|(id, entry)| id.epoch < txn.epoch && entry.phase == Phase::Staged);
        let stale = stale.map(|(id, _)| *id).collect::<Vec<_>>();
        stale.into_iter().for_each(|txn| state.forget(txn));
        drop(state);
        self.changed.notify_all();
        self.log_epoch(txn)?;
        Ok(true)
    }

    fn log_epoch(&self, txn: TxnId) -> Result<()> {
        let head = encode(&Record { txn, first: Lsn(0), kind: Kind::Epoch });
        self.append_log(&[&head]).and_then(|lsn| self.sync_log(lsn))
    }

    fn check_cluster(&self, state: &State, txn: TxnId) -> Result<()> {
        match state.cluster {
            Some(cluster) if cluster == txn.cluster => Ok(()),
            Some(_) => Err(StorageError::Identity("the data node belongs to another cluster".to_owned())),
            None => Err(StorageError::NotAttached("the data node is not attached to a cluster yet".to_owned())),
        }
    }

    /// Waits until `bytes` more fit; one write always fits into an empty store.
    fn reserve(&self, state: &mut MutexGuard<State>, bytes: usize) -> Result<()> {
        let max = self.options.delta_bytes_max;
        while state.bytes > 0 && state.bytes + bytes > max {
            self.wake.try_send(()).ok();
            let timed_out = self.changed.wait_for(state, self.options.stage_wait_max).timed_out();
            self.check()?;
            if timed_out && state.bytes > 0 && state.bytes + bytes > max {
                return Err(StorageError::DeltaFull { bytes: state.bytes, max });
            }
        }
        state.bytes += bytes;
        Ok(())
    }

    /// Waits until the changes stand in nobody's way, and registers them: before their record is appended, so that the
    /// log is not cut in between, and nobody else removes the same rows or adds the same keys.
    fn admit(&self, txn: TxnId, staging: Staging) -> Result<(Lsn, Vec<(usize, usize)>)> {
        let since = self.clock.elapsed();
        loop {
            let probes = self.probe(&staging)?;
            let mut state = self.state.lock();
            let mut outdated = false;
            self.wait_while_busy(&mut state, txn, since, |state| {
                self.may_stage(state, txn, &staging)?;
                let removals = staging.removals.iter();
                let busy = removals.map(|(chunk, removal)| self.removal_busy(state, txn, *chunk, removal));
                if let Some(busy) = busy.filter_map(|busy| busy.transpose()).next() {
                    return busy.map(Some);
                }
                outdated = !probes.current(state);
                if outdated { Ok(None) } else { self.keys_busy(state, txn, &staging, &probes) }
            })?;
            if !outdated {
                return Ok(self.register(&mut state, txn, staging));
            }
        }
    }

    fn may_stage(&self, state: &State, txn: TxnId, staging: &Staging) -> Result<()> {
        let chunks = staging.writes.iter().map(|(_, write)| write.chunk);
        let chunks = chunks.chain(staging.removals.iter().map(|(chunk, _)| *chunk));
        for id in chunks {
            if state.dropped.contains(id) {
                return Err(StorageError::ChunkDropped(id));
            }
            state.chunks.get(&id).map_or(Ok(()), |chunk| chunk.check())?;
        }
        if state.ended.get(txn).is_some() {
            return Err(refused(txn, "has ended already, or was lost when the node restarted"));
        }
        state.check_epoch(txn.epoch)?;
        match state.txns.get(&txn) {
            Some(entry) if entry.phase != Phase::Staged => Err(refused(txn, "has voted already")),
            // Its removals are gone: rows that should take their places would meet the old ones.
            Some(Txn { broken: Some(broken), .. }) => Err(refused(txn, broken.reason)),
            Some(entry) if staging.sub < entry.sub_min => Err(refused(txn, "was taken back to a savepoint since")),
            _ => Ok(()),
        }
    }

    /// The transaction's first position in the log, and where its new rows are: in `writes`, and in the log record.
    fn register(&self, state: &mut State, txn: TxnId, staging: Staging) -> (Lsn, Vec<(usize, usize)>) {
        let entry = state.txns.entry(txn).or_insert_with(|| Txn::new(self.log.end()));
        entry.staging += 1;
        entry.bytes += staging.bytes;
        let sub = staging.sub;
        let removals = staging.removals.into_iter().map(|(chunk, removal)| StagedRemoval { sub, chunk, removal });
        entry.removals.extend(removals);
        let mut written = Vec::with_capacity(staging.writes.len());
        for (index, write) in staging.writes {
            written.push((entry.writes.len(), index));
            entry.writes.push(write);
        }
        (entry.first_lsn, written)
    }

    /// Notes that a transaction could not be given changes.
    fn note_lack(&self, txn: TxnId, sub: SubTxn) {
        let mut state = self.state.lock();
        if state.ended.get(txn).is_some() || txn.epoch < state.epoch_max {
            return;
        }
        let entry = state.txns.entry(txn).or_insert_with(|| Txn::new(self.log.end()));
        if entry.phase == Phase::Staged && sub >= entry.sub_min {
            entry.break_at(sub, "lacks changes that could not be added to it");
        }
    }

    /// A transaction that can vote or commit in one round.
    fn staged<'a>(&self, state: &'a mut State, txn: TxnId) -> Result<&'a mut Txn> {
        let State { txns, dropped, .. } = state;
        let entry = txns.get_mut(&txn).ok_or_else(|| refused(txn, "is not known here (was the node restarted?)"))?;
        if entry.phase != Phase::Staged || entry.staging > 0 {
            return Err(refused(txn, "is busy with another call"));
        }
        if let Some(broken) = entry.broken {
            return Err(refused(txn, broken.reason));
        }
        let gone = entry.chunks().find(|chunk| dropped.contains(*chunk));
        gone.map_or(Ok(entry), |chunk| Err(StorageError::ChunkDropped(chunk)))
    }

    /// What an older coordinator is committing would else appear under a snapshot that was read without it.
    fn wait_for_older_commits(&self, epoch: u64) -> Result<()> {
        let mut state = self.state.lock();
        let older = |(id, entry): (&TxnId, &Txn)| id.epoch < epoch && matches!(entry.phase, Phase::Committing { .. });
        while state.txns.iter().any(older) {
            self.changed.wait(&mut state);
            self.check()?;
        }
        Ok(())
    }

    fn wait_while_committing(&self, state: &mut MutexGuard<State>, txn: TxnId) -> Result<()> {
        let committing =
            |state: &State| state.txns.get(&txn).is_some_and(|entry| matches!(entry.phase, Phase::Committing { .. }));
        while committing(state) {
            self.changed.wait(state);
            self.check()?;
        }
        Ok(())
    }
}

fn decode(sub: SubTxn, writes: &[ChunkWrite]) -> Result<Staging> {
    let mut staging = Staging { sub, writes: Vec::new(), removals: Vec::new(), bytes: 0 };
    for (index, write) in writes.iter().enumerate() {
        match write.kind {
            WriteKind::Insert => {
                let rows = Arc::new(DeltaRows::decode(&write.body, &write.layout)?);
                staging.bytes += rows.bytes;
                let (chunk, layout) = (write.chunk, write.layout.clone());
                let staged = StagedWrite { sub, chunk, layout, rows, part: None };
                staging.writes.push((index, staged));
            }
            WriteKind::Delete => {
                let removal = Arc::new(Removal::decode(&write.body)?);
                staging.bytes += removal.bytes;
                staging.removals.push((write.chunk, removal));
            }
        }
    }
    Ok(staging)
}
