//! Taking a transaction back to a savepoint: on its nodes, and in what the coordinator noted of it.
//!
//! A savepoint is only a place; which ones there are, and how they are called, the session knows. Later ones than that
//! which is gone back to must not be used any more.

use super::transaction::Transaction;
use crate::catalog::CatalogState;
use proto::{ChunkId, Result, SubTxn, TableId};
use std::sync::Arc;

/// A place in a transaction: what came before it stays when the transaction is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Savepoint {
    sub: SubTxn,
    changes_count: usize,
}

impl Savepoint {
    /// Of every transaction.
    pub const START: Savepoint = Savepoint { sub: SubTxn::FIRST, changes_count: 0 };
}

/// What a sub-transaction noted first.
pub(super) enum Noted {
    Touched(ChunkId),
    Keys(TableId),
    Private(ChunkId),
    Shared(TableId, ChunkId),
}

/// Notes of a transaction, in their order, each with its sub-transaction. Nothing is noted twice, so that they are as
/// many as chunks and tables.
#[derive(Default)]
pub(super) struct Journal(Vec<(SubTxn, Noted)>);

impl Journal {
    pub(super) fn push(&mut self, sub: SubTxn, noted: Noted) {
        self.0.push((sub, noted));
    }

    fn take_since(&mut self, sub: SubTxn) -> Vec<(SubTxn, Noted)> {
        let at = self.0.partition_point(|(before, _)| *before < sub);
        self.0.split_off(at)
    }
}

impl Transaction {
    /// What follows can be taken back by itself. Waits until the nodes have everything that came before.
    ///
    /// # Errors
    /// Of what came before.
    pub async fn savepoint(&mut self) -> Result<Savepoint> {
        self.staging.flush().await?;
        Ok(Savepoint { sub: self.staging.open_sub()?, changes_count: self.changes.len() })
    }

    /// Takes back everything that came after the savepoint, also what failed: the transaction goes on as it was there. Its
    /// snapshot stays.
    ///
    /// # Errors
    /// A node was lost, or lost the transaction. It is then neither here nor there: abort it, or try again.
    pub async fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        let changes = self.changes.get(..savepoint.changes_count).unwrap_or(&self.changes);
        let view = match changes.len() == self.changes.len() {
            true => Arc::clone(&self.view),
            false => {
                let mut view = CatalogState::clone(&self.base);
                view.apply_commit(self.base.seq(), changes)?;
                Arc::new(view)
            }
        };
        self.staging.discard(savepoint.sub).await?;
        self.view = view;
        self.changes.truncate(savepoint.changes_count);
        let mut released = Vec::new();
        for (_, noted) in self.journal.take_since(savepoint.sub) {
            match noted {
                Noted::Touched(chunk) => drop(self.touched.remove(&chunk)),
                Noted::Keys(table) => drop(self.keys.remove(&table)),
                Noted::Private(chunk) => drop(self.private.remove(&chunk)),
                Noted::Shared(table, chunk) => {
                    self.shared.remove(&(table, chunk));
                    released.push((table, chunk));
                }
            }
        }
        self.cluster.new_chunks.release(&released);
        Ok(())
    }
}
