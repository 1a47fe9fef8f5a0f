//! Bringing a node up, and keeping it honest while it is: nothing of a transaction may be left open on a node that
//! answers readers.
//!
//! Up means: the node speaks our protocol, is the one the catalog knows, and every transaction it holds in doubt that
//! is not running here was told its outcome. A decision that becomes durable while a node comes up is either seen by
//! the handshake's last look, under the lock of `owed`, or its own commit sees the node up and tells it.

pub(super) mod core;

use self::core::{Action, Input, Recovery, check_identity, never_decided, overdue};
use super::cluster::Cluster;
use super::commit::push;
use super::link::Link;
use super::owed::Running;
use super::planted::Plan;
use crate::catalog::{CatalogChange, NodeDef};
use futures::future::join_all;
use proto::{ChunkId, ClusterId, CommitMode, DataNode, Error, NodeStatus, Reaction, Result, SqlState};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use storage::failpoint;

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
                Ok(status) => match self.check_same(node, &status) {
                    Ok(()) => return self.settle_up(&link, &before, &status).await,
                    Err(error) => {
                        tracing::warn!(node = %link.name(), %error, "a data node is another than it was");
                        link.set_down(error);
                    }
                },
                Err(error) => tracing::warn!(node = %link.name(), %error, "a data node does not answer"),
            }
        }
        match self.bring_up(&link, node).await {
            Ok(()) => self.tell_aborts(&link).await,
            Err(error) => {
                tracing::debug!(node = %link.name(), %error, "a data node stays down");
                if !link.is_up() {
                    link.set_down(error);
                }
            }
        }
    }

    /// Whether who answers is the one that was brought up: a node may have been started anew since, unseen, and from
    /// other files, older ones even.
    fn check_same(&self, def: &NodeDef, status: &NodeStatus) -> Result<()> {
        check_identity(def, status, self.reign())?;
        if status.epoch_max < self.epoch {
            let text = format!("{} does not remember whom it obeys", def.address());
            return Err(Error::new(SqlState::CONNECTION_FAILURE, text).reaction(Reaction::Retry));
        }
        Ok(())
    }

    /// What a commit or abort could not tell an up node, although it never was seen down.
    async fn settle_up(&self, link: &Link, before: &Running, status: &NodeStatus) {
        let undecided = never_decided(status, before, self.reign(), &self.owed.lock(), Plan::default());
        for txn in undecided {
            tracing::info!(node = %link.name(), %txn, "aborting a transaction that was never decided");
            let _ = link.abort(txn).await;
        }
        self.tell_aborts(link).await;
        let commits = self.owed.lock().commits_of(link.name());
        let commits = overdue(commits, self.epoch, &self.running.lock());
        for (txn, seq) in commits {
            push(self, txn, seq, link).await;
        }
    }

    /// What it holds of them takes room, and is seen by nobody.
    async fn tell_aborts(&self, link: &Link) {
        let aborts = self.owed.lock().aborts_of(link.name());
        for txn in aborts {
            if link.abort(txn).await.is_err() {
                return;
            }
            self.owed.lock().aborted(link.name(), &txn);
        }
    }

    async fn bring_up(&self, link: &Link, def: &NodeDef) -> Result<()> {
        let (name, timeouts) = (&def.name, self.nodes.timeouts());
        let before = self.running.lock().clone();
        let node = self.nodes.connector.connect(name, &def.address())?;
        check_identity(def, &within(timeouts.hello, node.hello()).await?, self.reign())?;
        // Whoever led before reaches nothing here from now on: what the node tells below stays true.
        within(timeouts.call, node.obey(self.id, self.epoch)).await?;
        let status = within(timeouts.hello, node.hello()).await?;
        // A directory restored from a backup might be behind its nodes: never give a sequence twice.
        self.sequence.raise_to(status.commit_seq_max);
        let mut recovery = Recovery::begin(name, self.reign(), &status, &before, Plan::default());
        let mut answer = None;
        loop {
            let action = {
                let mut owed = self.owed.lock();
                let action = match answer.take() {
                    Some(answer) => recovery.step(answer, &mut owed),
                    None => recovery.start(&mut owed),
                };
                // Under the lock: a decision from now on finds the node up, and tells it.
                if action == Action::Up {
                    link.set_up(Arc::clone(&node));
                }
                action
            };
            tracing::debug!(node = %name, ?action, "bringing a data node up");
            failpoint::pass("c12");
            answer = Some(match action {
                Action::Abort(txn) => {
                    tracing::info!(node = %name, %txn, "aborting a transaction that was not decided");
                    Input::Aborted(within(timeouts.call, node.abort(txn)).await)
                }
                Action::Ask(txn) => Input::Outcome(within(timeouts.call, node.outcome(txn)).await),
                Action::Commit(txn, seq) => {
                    let outcome = within(timeouts.commit, node.commit(txn, seq, CommitMode::Prepared)).await;
                    if let Err(error) = &outcome {
                        tracing::warn!(node = %name, %txn, %error, "a data node did not take a decision");
                    }
                    Input::Committed(outcome)
                }
                Action::Up => {
                    tracing::info!(node = %name, "data node is up");
                    return Ok(());
                }
                Action::Stay(error) => return Err(error),
            });
        }
    }

    /// Who speaks to the nodes.
    fn reign(&self) -> (ClusterId, u64) {
        (self.id, self.epoch)
    }

    /// Has nodes remove dropped chunks that no reader can reach any more: no older catalog is held, and every commit
    /// from before the drop is over.
    pub(super) async fn drop_garbage(self: &Arc<Self>) {
        let catalog = self.catalog();
        let reachable_from = self.catalog.oldest_in_use().min(self.sequence.snapshot());
        for (name, chunks) in catalog.garbage() {
            let droppable = chunks.iter().filter(|(_, dropped)| **dropped <= reachable_from);
            let chunks = droppable.map(|(chunk, _)| *chunk).take(DROPS_MAX).collect::<Vec<ChunkId>>();
            if chunks.is_empty() || !self.nodes.is_up(name) || !self.owed.lock().commits_of(name).is_empty() {
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

/// A call outside a link, as a handshake makes it.
pub(super) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    let silence = || {
        let text = format!("no answer within {} seconds", limit.as_secs_f64());
        Error::new(SqlState::CONNECTION_FAILURE, text).reaction(Reaction::Retry)
    };
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(silence()))
}
