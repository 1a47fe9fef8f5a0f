//! How a transaction ends.
//!
//! 1. All rows are on their nodes (`Staging::flush`).
//! 2. One participant and no change of the catalog: the participant decides alone (`one_phase`).
//! 3. Else every participant votes (`prepare_all`); one no, or no answer: abort everywhere, nothing was logged.
//! 4. Under the commit lock: the changes are checked against the newest catalog, a sequence is taken, `Commit` is
//!    appended (`Cluster::decide`). Durable, it is the commit point.
//! 5. The catalog is shown, participants are told (`push`); who cannot be told is down, and is told before it comes up.
//! 6. The sequence is closed: snapshots show the transaction from here on.

use super::cluster::Cluster;
use super::link::Link;
use super::log::{Position, unknown_outcome};
use super::record::{Machine, Record};
use super::transaction::Transaction;
use crate::catalog::CatalogChange;
use engine::KeyDef;
use futures::future::join_all;
use proto::{
    ChunkId, CommitMode, CommitSeq, DataNode, Error, NodeName, Reaction, Result, SqlState, TableId, TxnId, TxnOutcome,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Aborts a node could not be told of; beyond it the node keeps staged rows until the coordinator's next start.
const ABORTS_OWED_MAX: usize = 10_000;
/// How often a session looks whether a lost node is back to tell how a commit ended.
const RESOLVE_INTERVAL: Duration = Duration::from_millis(50);

pub(super) async fn run(mut txn: Transaction) -> Result<CommitSeq> {
    if let Err(error) = txn.staging.flush().await {
        abort(&mut txn).await;
        return Err(error);
    }
    let links = txn.staging.links();
    match links.as_slice() {
        [only] if txn.changes.is_empty() => one_phase(txn, only.clone()).await,
        _ => two_phase(txn, links).await,
    }
}

/// Tells all participants to forget the transaction. One that cannot be told now is told when it comes up.
pub(super) async fn abort(txn: &mut Transaction) {
    let _ = txn.staging.flush().await;
    let (cluster, id) = (Arc::clone(&txn.cluster), txn.id);
    let tell = |link: Link| async move { (link.name().clone(), link.abort(id).await) };
    for (node, outcome) in join_all(txn.staging.links().into_iter().map(tell)).await {
        if outcome.is_err() {
            let mut owed = cluster.owed.lock();
            let aborts = owed.aborts.entry(node).or_default();
            if aborts.len() < ABORTS_OWED_MAX {
                aborts.insert(id);
            }
        }
    }
    txn.end();
}

async fn two_phase(mut txn: Transaction, links: Vec<Link>) -> Result<CommitSeq> {
    if let Err(error) = prepare_all(txn.id, &links).await {
        abort(&mut txn).await;
        return Err(error);
    }
    let cluster = Arc::clone(&txn.cluster);
    let participants = links.iter().map(|link| link.name().clone()).collect::<Vec<_>>();
    let decided = cluster.decide(&txn, participants.clone());
    let (seq, position, tip) = match decided {
        Ok(decided) => decided,
        Err(error) => {
            abort(&mut txn).await;
            return Err(error);
        }
    };
    if let Err(error) = cluster.log.sync(position).await {
        // Neither commit nor abort may be told: the next start reads from the log which it was. Until then the
        // transaction stays among the running, so that nobody aborts it.
        tracing::error!(%error, txn = %txn.id, "the two-phase log failed");
        txn.ended = true;
        cluster.end(error.clone());
        return Err(unknown_outcome(&error));
    }
    // The order matters: owed before any node is looked at (see `handshake`), shown before the sequence is closed.
    if !participants.is_empty() {
        cluster.owed.lock().commits.insert(txn.id, (seq, participants.into_iter().collect()));
    }
    cluster.catalog.publish(tip.catalog);
    push(&cluster, txn.id, seq, links).await;
    cluster.sequence.close(seq);
    txn.end();
    cluster.finish_commits();
    cluster.wait_visible(seq).await;
    Ok(seq)
}

async fn prepare_all(txn: TxnId, links: &[Link]) -> Result<()> {
    let votes = join_all(links.iter().map(|link| link.prepare(txn))).await;
    votes.into_iter().collect()
}

/// Tells the participants of a durable decision. One that does not acknowledge is taken down, so that no reader meets
/// it undecided.
pub(super) async fn push(cluster: &Cluster, txn: TxnId, seq: CommitSeq, links: Vec<Link>) {
    let tell = |link: Link| async move {
        match link.commit(txn, seq, CommitMode::Prepared).await {
            Ok(()) => Some(link.name().clone()),
            Err(error) => {
                if link.is_up() {
                    tracing::error!(node = %link.name(), %txn, %error, "a prepared transaction was not committed");
                    link.set_down(error);
                }
                None
            }
        }
    };
    let told = join_all(links.into_iter().map(tell)).await;
    let mut owed = cluster.owed.lock();
    if let Some((_, waiting)) = owed.commits.get_mut(&txn) {
        told.into_iter().flatten().for_each(|node| {
            waiting.remove(&node);
        });
    }
}

async fn one_phase(mut txn: Transaction, link: Link) -> Result<CommitSeq> {
    let (cluster, id) = (Arc::clone(&txn.cluster), txn.id);
    let taken = {
        let tip = cluster.tip.lock();
        cluster.check_commit(&tip, &txn).map(|()| cluster.sequence.open())
    };
    let seq = match taken {
        Ok(seq) => seq,
        Err(error) => {
            abort(&mut txn).await;
            return Err(error);
        }
    };
    cluster.owed.lock().one_phase.insert(id, (link.name().clone(), true));
    let mode = if txn.asynchronous { CommitMode::Asynchronous } else { CommitMode::OnePhase };
    let outcome = match link.commit(id, seq, mode).await {
        Ok(()) => Ok(()),
        Err(error) => {
            // A node that is down answers readers only after a handshake, which settles this transaction first.
            if !link.is_up() {
                cluster.sequence.close(seq);
            }
            resolve(&cluster, id, &link, error).await
        }
    };
    cluster.sequence.close(seq);
    match outcome {
        Err(error) if error.code == SqlState::TRANSACTION_RESOLUTION_UNKNOWN => {
            if let Some((_, waiting)) = cluster.owed.lock().one_phase.get_mut(&id) {
                *waiting = false;
            }
            txn.end();
            Err(error)
        }
        Err(error) => {
            cluster.owed.lock().one_phase.remove(&id);
            abort(&mut txn).await;
            Err(error)
        }
        Ok(()) => {
            cluster.owed.lock().one_phase.remove(&id);
            txn.end();
            cluster.wait_visible(seq).await;
            Ok(seq)
        }
    }
}

/// Asks the participant of a one-round commit how it ended, for a bounded time. `Err(error)`: it did not happen.
async fn resolve(cluster: &Cluster, txn: TxnId, link: &Link, error: Error) -> Result<()> {
    let ask = async {
        loop {
            match settle_one_phase(link, txn).await {
                Ok(TxnOutcome::Committed(_)) => return Ok(()),
                Ok(TxnOutcome::Unknown) => return Err(error.clone()),
                Ok(TxnOutcome::Staged | TxnOutcome::Prepared) | Err(_) => tokio::time::sleep(RESOLVE_INTERVAL).await,
            }
        }
    };
    let unknown = || {
        let text = format!("connection to data node \"{}\" was lost while it committed", link.name());
        Err(Error::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, text)
            .detail("Whether the transaction was committed is not known.")
            .reaction(Reaction::Resolve))
    };
    tokio::time::timeout(cluster.options.resolve_timeout, ask).await.unwrap_or_else(|_| unknown())
}

/// How a one-round commit whose answer was lost has ended. One that is still open is aborted, so that a request that
/// is still on its way comes too late.
pub(super) async fn settle_one_phase(node: &dyn DataNode, txn: TxnId) -> Result<TxnOutcome> {
    match node.outcome(txn).await? {
        TxnOutcome::Staged | TxnOutcome::Prepared => {
            node.abort(txn).await?;
            node.outcome(txn).await
        }
        ended => Ok(ended),
    }
}

impl Cluster {
    /// Takes the transaction's place in the order of commits. The record is appended, not durable.
    fn decide(&self, txn: &Transaction, participants: Vec<NodeName>) -> Result<(CommitSeq, Position, Machine)> {
        let mut tip = self.tip.lock();
        self.check_commit(&tip, txn)?;
        let seq = self.sequence.open();
        let record = Record::Commit { txn: txn.id, seq, participants, changes: txn.changes.clone() };
        let mut next = tip.clone();
        let appended = next.apply(&record).and_then(|()| self.log.append(&record));
        let position = appended.inspect_err(|_| self.sequence.close(seq))?;
        *tip = next;
        *self.newest.write() = Arc::clone(&tip.catalog);
        self.new_chunks.published(added_chunks(&txn.changes));
        Ok((seq, position, tip.clone()))
    }

    /// Every chunk the transaction wrote to must still be there, or become one with this commit.
    fn check_commit(&self, tip: &Machine, txn: &Transaction) -> Result<()> {
        self.check()?;
        let is_live = |chunk: &ChunkId| {
            let chunk = &txn.touched[chunk];
            txn.private.contains(&chunk.id)
                || tip.catalog.chunks(chunk.table).contains(chunk)
                || self.new_chunks.is_pending(chunk)
        };
        let lost = |text: &str| Err(Error::new(SqlState::SERIALIZATION_FAILURE, text).reaction(Reaction::Abort));
        if !txn.touched.keys().all(is_live) {
            return lost("could not serialize access due to a concurrent drop of chunks");
        }
        // Rows that are committed were checked against the keys their table has.
        let same_keys = |(table, keys): (&TableId, &Vec<KeyDef>)| {
            tip.catalog.table_by_id(*table).is_none_or(|table| table.keys == *keys)
        };
        match txn.keys.iter().all(same_keys) {
            true => Ok(()),
            false => lost("could not serialize access due to a concurrent change of a unique key"),
        }
    }

    /// Notes the decisions that everybody has acknowledged. Nobody waits for it: a lost `Done` is told again.
    pub(super) fn finish_commits(&self) {
        let done = {
            let owed = self.owed.lock();
            let acknowledged = owed.commits.iter().filter(|(_, (_, waiting))| waiting.is_empty());
            acknowledged.map(|(txn, _)| *txn).collect::<BTreeSet<_>>()
        };
        for txn in done {
            let record = Record::Done { txn };
            let mut tip = self.tip.lock();
            if let Err(error) = self.log.note(&record) {
                tracing::warn!(%error, "could not note a finished transaction");
                return;
            }
            tip.apply(&record).expect("Done is never refused");
            drop(tip);
            self.owed.lock().commits.remove(&txn);
        }
    }
}

fn added_chunks(changes: &[CatalogChange]) -> impl Iterator<Item = (TableId, ChunkId)> {
    changes.iter().filter_map(|change| match change {
        CatalogChange::AddChunk(chunk) => Some((chunk.table, chunk.id)),
        _ => None,
    })
}
