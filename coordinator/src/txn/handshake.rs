//! Bringing a node up, and keeping it honest while it is: nothing of a transaction may be left open on a node that
//! answers readers.
//!
//! Up means: the node speaks our protocol, is the one the catalog knows, and every transaction it holds in doubt that
//! is not running here was told its outcome. A decision that becomes durable while a node comes up is either seen by
//! the handshake's last look, under the lock of `owed`, or its own commit sees the node up and tells it.

use super::cluster::{Cluster, Running};
use super::commit::{push, settle_one_phase};
use super::link::Link;
use crate::catalog::{CatalogChange, NodeDef};
use futures::future::join_all;
use proto::{
    ChunkId, CommitMode, CommitSeq, DataNode, Error, NodeIdentity, NodeName, NodeStatus, PROTOCOL, Reaction, Result,
    SqlState, TxnId, TxnOutcome,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Chunks removed by one call.
const DROPS_MAX: usize = 1000;

impl Cluster {
    /// Asks every node how it is; calls those that are down.
    pub(super) async fn check_nodes(&self) {
        join_all(self.nodes.all().into_iter().map(|link| self.check_node(link))).await;
    }

    pub(super) async fn check_node(&self, link: Link) {
        let catalog = self.catalog();
        let Ok(node) = catalog.node(link.name()) else { return };
        if !node.available {
            return link.set_down(Error::new(SqlState::CONNECTION_FAILURE, "the node was marked as not available"));
        }
        let before = self.running.lock().clone();
        if link.is_up() {
            match link.hello().await {
                Ok(status) => return self.settle_up(&link, &before, &status).await,
                Err(error) => tracing::warn!(node = %link.name(), %error, "a data node does not answer"),
            }
        }
        if let Err(error) = self.bring_up(&link, node).await {
            tracing::debug!(node = %link.name(), %error, "a data node stays down");
            if !link.is_up() {
                link.set_down(error);
            }
        }
    }

    /// What a commit or abort could not tell an up node, although it never was seen down.
    async fn settle_up(&self, link: &Link, before: &Running, status: &NodeStatus) {
        for txn in status.in_doubt.iter().filter(|txn| self.is_over(before, txn)) {
            if self.owed_commit(txn).is_none() {
                tracing::info!(node = %link.name(), %txn, "aborting a transaction that was never decided");
                let _ = link.abort(*txn).await;
            }
        }
        let _ = self.tell_aborts(link.name(), link).await;
        for (txn, seq) in self.commits_owed_to(link.name()) {
            if !self.is_running(&txn) {
                push(self, txn, seq, vec![link.clone()]).await;
            }
        }
    }

    async fn bring_up(&self, link: &Link, def: &NodeDef) -> Result<()> {
        let limit = self.nodes.timeouts().call;
        let before = self.running.lock().clone();
        let node = self.nodes.connector.connect(&def.name, &def.address())?;
        self.check_identity(def, &within(self.nodes.timeouts().hello, node.hello()).await?)?;
        // Whoever led before reaches nothing here from now on: what the node tells below stays true.
        within(limit, node.obey(self.id, self.epoch)).await?;
        let status = within(self.nodes.timeouts().hello, node.hello()).await?;
        // Again: what a newer coordinator has done meanwhile must not raise our sequence to its own.
        self.check_identity(def, &status)?;
        // A directory restored from a backup might be behind its nodes: never give a sequence twice.
        self.sequence.raise_to(status.commit_seq_max);
        for txn in status.in_doubt.iter().filter(|txn| self.is_over(&before, txn)) {
            if self.owed_commit(txn).is_none() {
                tracing::info!(node = %def.name, %txn, "aborting a transaction that was never decided");
                within(limit, node.abort(*txn)).await?;
            }
        }
        self.tell_aborts(&def.name, node.as_ref()).await?;
        let of_node = |(_, (name, _)): &(&TxnId, &(NodeName, bool))| *name == def.name;
        let one_phase = self.owed.lock().one_phase.iter().filter(of_node).map(|(txn, _)| *txn).collect::<Vec<_>>();
        for txn in one_phase {
            within(limit, settle_one_phase(node.as_ref(), txn)).await?;
            let mut owed = self.owed.lock();
            if owed.one_phase.get(&txn).is_some_and(|(_, waiting)| !waiting) {
                owed.one_phase.remove(&txn);
            }
        }
        loop {
            let commits = {
                let owed = self.owed.lock();
                let commits = owed.owed_to(&def.name);
                if commits.is_empty() {
                    link.set_up(Arc::clone(&node));
                    tracing::info!(node = %def.name, "data node is up");
                    return Ok(());
                }
                commits
            };
            for (txn, seq) in commits {
                self.tell_commit(node.as_ref(), &def.name, txn, seq).await?;
                if let Some((_, waiting)) = self.owed.lock().commits.get_mut(&txn) {
                    waiting.remove(&def.name);
                }
            }
        }
    }

    /// # Errors
    /// The node does not know of the vote it gave: it must not serve readers.
    async fn tell_commit(&self, node: &dyn DataNode, name: &NodeName, txn: TxnId, seq: CommitSeq) -> Result<()> {
        let limit = self.nodes.timeouts().commit;
        let Err(error) = within(limit, node.commit(txn, seq, CommitMode::Prepared)).await else { return Ok(()) };
        if error.reaction == Reaction::Resolve || error.code == SqlState::CONNECTION_FAILURE {
            return Err(error);
        }
        // The log does not say who has acknowledged, so that after a restart all participants are told again; one that
        // committed long ago may not remember. A vote is never forgotten before it is told how it ended.
        match within(limit, node.outcome(txn)).await? {
            TxnOutcome::Committed(at) if at == seq => Ok(()),
            TxnOutcome::Unknown if txn.epoch < self.epoch => {
                tracing::warn!(node = %name, %txn, "a committed transaction is not remembered any more");
                Ok(())
            }
            _ => Err(error),
        }
    }

    async fn tell_aborts(&self, name: &NodeName, node: &dyn DataNode) -> Result<()> {
        let aborts = self.owed.lock().aborts.get(name).cloned().unwrap_or_default();
        for txn in aborts {
            within(self.nodes.timeouts().call, node.abort(txn)).await?;
            let mut owed = self.owed.lock();
            let left = owed.aborts.entry(name.clone()).or_default();
            left.remove(&txn);
            if left.is_empty() {
                owed.aborts.remove(name);
            }
        }
        Ok(())
    }

    fn check_identity(&self, def: &NodeDef, status: &NodeStatus) -> Result<()> {
        check_protocol(&def.name, status)?;
        let refuse =
            |text: String| Err(Error::new(SqlState::DATA_NODE_INVALID_CONFIG, text).reaction(Reaction::GiveUp));
        let expected = NodeIdentity { cluster: self.id, name: def.name.clone() };
        match &status.identity {
            Some(identity) if *identity == expected => {}
            Some(other) => {
                return refuse(format!("{} belongs to cluster {} as \"{}\"", def.address(), other.cluster, other.name));
            }
            None => return refuse(format!("{} has an empty data directory", def.address())),
        }
        if status.incarnation != def.incarnation {
            return refuse(format!("{} has another data directory than the one that was added", def.address()));
        }
        if status.epoch_max > self.epoch {
            return refuse(format!("{} follows a newer coordinator", def.address()));
        }
        Ok(())
    }

    /// Of an earlier epoch, or ended before `before` was taken. One that ran then is left to its own session.
    fn is_over(&self, before: &Running, txn: &TxnId) -> bool {
        txn.cluster == self.id
            && txn.epoch <= self.epoch
            && (txn.epoch < self.epoch || (txn.number <= before.next && !before.open.contains(&txn.number)))
    }

    fn is_running(&self, txn: &TxnId) -> bool {
        txn.epoch == self.epoch && self.running.lock().open.contains(&txn.number)
    }

    fn owed_commit(&self, txn: &TxnId) -> Option<CommitSeq> {
        self.owed.lock().commits.get(txn).map(|(seq, _)| *seq)
    }

    fn commits_owed_to(&self, node: &NodeName) -> Vec<(TxnId, CommitSeq)> {
        self.owed.lock().owed_to(node)
    }

    /// Has nodes remove dropped chunks that no reader can reach any more: no older catalog is held, and every commit
    /// from before the drop is over.
    pub(super) async fn drop_garbage(self: &Arc<Self>) {
        let catalog = self.catalog();
        let reachable_from = self.catalog.oldest_in_use().min(self.sequence.snapshot());
        for (name, chunks) in catalog.garbage() {
            let droppable = chunks.iter().filter(|(_, dropped)| **dropped <= reachable_from);
            let chunks = droppable.map(|(chunk, _)| *chunk).take(DROPS_MAX).collect::<Vec<ChunkId>>();
            if chunks.is_empty() || !self.nodes.is_up(name) || !self.commits_owed_to(name).is_empty() {
                continue;
            }
            let Ok(node) = self.nodes.get(name) else { continue };
            let mut txn = self.begin();
            let forget = CatalogChange::ForgetGarbage { node: name.clone(), chunks: chunks.clone() };
            let outcome = match node.drop_chunks(chunks).await.and_then(|()| txn.change(forget)) {
                Ok(()) => txn.commit().await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::warn!(node = %name, %error, "could not remove dropped chunks");
            }
        }
    }
}

impl super::cluster::Owed {
    fn owed_to(&self, node: &NodeName) -> Vec<(TxnId, CommitSeq)> {
        let waiting = self.commits.iter().filter(|(_, (_, waiting))| waiting.contains(node));
        waiting.map(|(txn, (seq, _))| (*txn, *seq)).collect()
    }
}

pub(super) fn check_protocol(name: &NodeName, status: &NodeStatus) -> Result<()> {
    if status.protocol == PROTOCOL {
        return Ok(());
    }
    let text = format!("data node \"{name}\" has an incompatible version");
    Err(Error::new(SqlState::DATA_NODE_INVALID_CONFIG, text)
        .detail(format!("Coordinator protocol: {PROTOCOL}, data node protocol: {}.", status.protocol)))
}

/// A call outside a link, as a handshake makes it.
pub(super) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    let silence = || {
        let text = format!("no answer within {} seconds", limit.as_secs_f64());
        Error::new(SqlState::CONNECTION_FAILURE, text).reaction(Reaction::Retry)
    };
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(silence()))
}
