//! Taking back a part of an open transaction: what was staged under some of its sub-transactions.
//!
//! Numbers only grow, so that it is always the end of the transaction that goes. Memory forgets it first and the log
//! learns it then: till the record is there, the transaction cannot vote, and without it it would be lost in a crash as a
//! whole. Who takes the place of a discarded row or removal in between comes earlier in the log, and is not disturbed by
//! it: at recovery the discarded ones are gone before their transaction votes.

use super::record::Kind;
use super::state::{Phase, State, Txn};
use super::{Core, Store, refused};
use crate::error::{Result, StorageError};
use crate::failpoint;
use proto::{SubTxn, TxnId};
use std::ops::Range;

impl Store {
    /// Forgets rows, removals and keys that the transaction staged under these numbers; later ones under them are refused.
    /// A transaction that lacked changes of one of them is whole again. In the log on return, not durable. Idempotent.
    ///
    /// # Errors
    /// For a transaction that is not known here, has voted or is being staged. After a full disk it can be repeated, or
    /// the transaction aborted.
    pub fn discard(&self, txn: TxnId, subs: Range<SubTxn>) -> Result<(), StorageError> {
        let core = &self.core;
        core.check()?;
        core.see_epoch(txn)?;
        let head = {
            let mut state = core.state.lock();
            let entry = core.discardable(&mut state, txn)?;
            entry.staging += 1;
            let head = entry.record(txn, Kind::Discard(subs.clone()));
            state.discard(txn, &subs);
            head
        };
        core.changed.notify_all();
        let appended = core.append_log(&[&head]);
        failpoint::pass("d11");
        let mut state = core.state.lock();
        let Some(entry) = state.txns.get_mut(&txn) else {
            return Err(refused(txn, "was aborted while a part of it was taken back"));
        };
        entry.staging -= 1;
        appended.map(drop).inspect_err(|_| entry.break_at(subs.start, "could not be taken back to a savepoint"))
    }
}

impl Core {
    fn discardable<'a>(&self, state: &'a mut State, txn: TxnId) -> Result<&'a mut Txn> {
        let Some(entry) = state.txns.get_mut(&txn) else {
            return Err(refused(txn, "is not known here (was the node restarted?)"));
        };
        match entry.phase {
            Phase::Staged if entry.staging == 0 => Ok(entry),
            Phase::Staged => Err(refused(txn, "is busy with another call")),
            _ => Err(refused(txn, "has voted already")),
        }
    }
}

impl State {
    /// Forgets what a transaction staged under these numbers, where there is such a transaction.
    pub(super) fn discard(&mut self, txn: TxnId, subs: &Range<SubTxn>) {
        let Some(entry) = self.txns.get_mut(&txn) else { return };
        let before = entry.bytes;
        entry.discard(subs);
        self.bytes -= before - entry.bytes;
    }
}

impl Txn {
    fn discard(&mut self, subs: &Range<SubTxn>) {
        let writes = self.writes.extract_if(.., |write| subs.contains(&write.sub)).map(|write| write.rows.bytes);
        let removals = self.removals.extract_if(.., |staged| subs.contains(&staged.sub));
        self.bytes -= writes.sum::<usize>() + removals.map(|staged| staged.removal.bytes).sum::<usize>();
        self.broken = self.broken.filter(|broken| !subs.contains(&broken.sub));
        self.sub_min = self.sub_min.max(subs.end);
    }
}
