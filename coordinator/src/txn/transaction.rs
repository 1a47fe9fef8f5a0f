//! A transaction as a session holds it: a snapshot, the catalog with its own changes, rows staged on nodes.

use super::cluster::Cluster;
use super::listing::Phase;
use super::log::unknown_outcome;
use super::repeats::KEY_BYTES_MAX;
use super::savepoint::{Journal, Noted};
use crate::catalog::{CatalogChange, CatalogState};
use crate::ingest::{self, Addresses, Staging};
use arrow::array::RecordBatch;
use engine::{ChunkDef, KeyDef, TableDef};
use proto::{ChunkId, ChunkWrite, CommitSeq, Error, NodeName, Result, Slot, SqlState, TableId, TxnId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Chunks one transaction may write to. More is a wrong chunk interval, and would exhaust nodes and catalog.
const CHUNKS_MAX: usize = 10_000;

/// Dropping it aborts it in the background.
pub struct Transaction {
    pub(super) cluster: Arc<Cluster>,
    pub(super) id: TxnId,
    snapshot: CommitSeq,
    /// Kept so that the chunks it lists are not removed under a reader.
    pub(super) base: Arc<CatalogState>,
    /// `base` and the transaction's own changes.
    pub(super) view: Arc<CatalogState>,
    pub(super) changes: Vec<CatalogChange>,
    /// Chunks written to.
    pub(super) touched: BTreeMap<ChunkId, Arc<ChunkDef>>,
    /// The keys that rows were checked against, of tables that others know.
    pub(super) keys: BTreeMap<TableId, Vec<KeyDef>>,
    /// Chunks of `touched` that only this transaction knows.
    pub(super) private: BTreeSet<ChunkId>,
    /// New chunks that concurrent transactions may write to as well.
    pub(super) shared: BTreeSet<(TableId, ChunkId)>,
    /// What of the above goes when the transaction is taken back to a savepoint.
    pub(super) journal: Journal,
    pub(super) staging: Staging,
    /// It need not be durable when `commit` returns.
    pub(super) asynchronous: bool,
    /// Under which it happens once, however often it is tried.
    pub(super) key: Option<String>,
    pub(super) ended: bool,
    /// It was dropped and is being aborted. When that is cut short (the runtime ends), nothing more is tried.
    dropped: bool,
}

impl Transaction {
    pub(super) fn begin(cluster: Arc<Cluster>) -> Transaction {
        let number = {
            let mut running = cluster.running.lock();
            running.next += 1;
            let number = running.next;
            running.open.insert(number);
            number
        };
        let id = TxnId { cluster: cluster.id, epoch: cluster.epoch, number };
        cluster.progress.lock().insert(number, (cluster.clock.now_us(), Phase::Open));
        // In this order: the catalog must have every chunk that the snapshot shows.
        let snapshot = cluster.sequence.snapshot();
        let base = cluster.catalog.current();
        Transaction {
            id,
            snapshot,
            view: Arc::clone(&base),
            base,
            changes: Vec::new(),
            touched: BTreeMap::new(),
            keys: BTreeMap::new(),
            private: BTreeSet::new(),
            shared: BTreeSet::new(),
            journal: Journal::default(),
            staging: Staging::new(id),
            asynchronous: false,
            key: None,
            ended: false,
            dropped: false,
            cluster,
        }
    }

    pub fn id(&self) -> TxnId {
        self.id
    }

    /// The catalog as this transaction sees it: with its own changes and new chunks.
    pub fn catalog(&self) -> &Arc<CatalogState> {
        &self.view
    }

    pub fn snapshot(&self) -> CommitSeq {
        self.snapshot
    }

    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Whether there is anything to commit.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty() || self.staging.holds_changes()
    }

    /// A new snapshot and catalog, for the next statement of a READ COMMITTED transaction.
    ///
    /// # Errors
    /// When another transaction committed what makes this one's changes impossible.
    pub fn refresh(&mut self) -> Result<()> {
        let snapshot = self.cluster.sequence.snapshot();
        let base = self.cluster.catalog.current();
        if !Arc::ptr_eq(&base, &self.base) {
            self.view = match self.changes.is_empty() {
                true => Arc::clone(&base),
                false => {
                    let mut view = CatalogState::clone(&base);
                    view.apply_commit(base.seq(), &self.changes)?;
                    Arc::new(view)
                }
            };
            self.base = base;
        }
        self.snapshot = snapshot;
        Ok(())
    }

    /// Changes the catalog as this transaction sees it; everybody else sees it after the commit.
    ///
    /// # Errors
    /// The change is refused and not recorded; the transaction may go on.
    pub fn change(&mut self, change: CatalogChange) -> Result<()> {
        Arc::make_mut(&mut self.view).apply(&change)?;
        self.changes.push(change);
        Ok(())
    }

    /// Rows for `table`, whose columns the batch has in order. Some may still be on their way to the nodes on return;
    /// how many is bounded, so that a fast client waits for slow nodes. Returns the number of rows.
    ///
    /// # Errors
    /// 23502 for NULL where none may be, the nodes' errors. After one, go back to a savepoint or abort.
    pub async fn write(&mut self, table: &TableDef, batch: RecordBatch) -> Result<u64> {
        let rows = batch.num_rows() as u64;
        let batch = ingest::check(table, batch)?;
        let routed = ingest::route(table, batch, &mut |time, slot| self.chunk_for(table, time, slot))?;
        for block in ingest::blocks(&table.layout(), routed)? {
            let link = self.cluster.nodes.link(&block.node)?;
            self.staging.send(link, block.writes).await?;
        }
        Ok(rows)
    }

    /// Removes rows of `table`, none of them named twice; some may still be on their way on return, as with `write`.
    ///
    /// # Errors
    /// 40001 when a row was changed or moved since it was read. After one, go back to a savepoint or abort.
    pub(crate) async fn remove(&mut self, table: &TableDef, rows: &Addresses) -> Result<()> {
        let mut of_node: BTreeMap<NodeName, Vec<ChunkWrite>> = BTreeMap::new();
        for write in rows.writes(&table.layout())? {
            let chunk = match self.touched.get(&write.chunk) {
                Some(chunk) => Arc::clone(chunk),
                None => {
                    let chunk = self.view.chunks(table.id).get(write.chunk).cloned();
                    let chunk = chunk.ok_or_else(|| Error::internal(format!("there is no chunk {}", write.chunk)))?;
                    self.touch(&chunk)?;
                    chunk
                }
            };
            for node in &chunk.nodes {
                of_node.entry(node.clone()).or_default().push(write.clone());
            }
        }
        for (node, writes) in of_node {
            let link = self.cluster.nodes.link(&node)?;
            self.staging.send(link, writes).await?;
        }
        Ok(())
    }

    /// Whether rows were written, so that reads see more than others do.
    pub fn has_rows(&self) -> bool {
        self.staging.holds_changes()
    }

    /// Waits until the nodes have everything that was written so far, and have found nothing wrong with it.
    pub async fn settle(&mut self) -> Result<()> {
        self.staging.flush().await
    }

    /// Under which id nodes show this transaction its own rows; `None` when it has none. Waits for rows on their way.
    pub async fn read_txn(&mut self) -> Result<Option<TxnId>> {
        self.staging.flush().await?;
        Ok(self.has_rows().then_some(self.id))
    }

    /// A crash of its node just after the commit may undo it, as a whole. Only where a single node decides: what several
    /// must agree on, and every change of the catalog, is durable all the same.
    pub fn set_asynchronous(&mut self) {
        self.asynchronous = true;
    }

    /// A transaction with this key happens once within the scope (names of whoever chose the key): when one was committed before, `commit` applies nothing and is right all
    /// the same. Costs the way of several participants even for one.
    ///
    /// # Errors
    /// 54000 for a key that is too long to be remembered.
    pub fn set_key(&mut self, scope: &[&str], key: &str) -> Result<()> {
        if key.len() > KEY_BYTES_MAX {
            let text = format!("an idempotency key of {} bytes is longer than the {KEY_BYTES_MAX} allowed", key.len());
            return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, text));
        }
        // No name has a zero byte.
        self.key = Some([scope, &[key]].concat().join("\0"));
        Ok(())
    }

    /// On return the transaction has happened, durably and on all nodes, and the next snapshot shows it. Goes on when
    /// the future is dropped.
    ///
    /// # Errors
    /// Nothing happened; except under 08007, where it is not known.
    pub async fn commit(self) -> Result<CommitSeq> {
        if !self.has_changes() {
            let snapshot = self.snapshot;
            // Nodes that hold nothing of it any more are to forget it.
            self.abort().await;
            return Ok(snapshot);
        }
        let cluster = Arc::clone(&self.cluster);
        let (answer, answered) = oneshot::channel();
        cluster.spawn(async move {
            // A session that went away does not take the answer.
            let _ = answer.send(super::commit::run(self).await);
        });
        let cut_short = || unknown_outcome(&Error::internal("the commit was cut short"));
        answered.await.unwrap_or_else(|_| Err(cut_short()))
    }

    /// Forgets everything, here and on the nodes.
    pub async fn abort(mut self) {
        super::commit::abort(&mut self).await;
    }

    /// The chunk a row belongs to; makes it when there is none.
    fn chunk_for(&mut self, table: &TableDef, time: i64, slot: Slot) -> Result<Arc<ChunkDef>> {
        let known = self.view.chunks(table.id).find(time, slot).cloned();
        let (chunk, is_new) = match known {
            Some(chunk) => (chunk, false),
            None => (self.new_chunk(table, time, slot)?, true),
        };
        self.touch(&chunk)?;
        if is_new {
            self.change(CatalogChange::AddChunk(Arc::clone(&chunk)))?;
        }
        Ok(chunk)
    }

    /// Notes that the chunk is written to, and against which keys its rows are checked.
    fn touch(&mut self, chunk: &Arc<ChunkDef>) -> Result<()> {
        if self.touched.len() == CHUNKS_MAX && !self.touched.contains_key(&chunk.id) {
            let text = format!("a transaction cannot write to more than {CHUNKS_MAX} chunks");
            let hint = "Use a longer chunk time interval, or several transactions.";
            return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, text).hint(hint));
        }
        let sub = self.staging.sub();
        if self.touched.insert(chunk.id, Arc::clone(chunk)).is_none() {
            self.journal.push(sub, Noted::Touched(chunk.id));
        }
        if let Some(table) = self.base.table_by_id(chunk.table) {
            self.keys.entry(chunk.table).or_insert_with(|| {
                self.journal.push(sub, Noted::Keys(chunk.table));
                table.keys.clone()
            });
        }
        Ok(())
    }

    fn new_chunk(&mut self, table: &TableDef, time: i64, slot: Slot) -> Result<Arc<ChunkDef>> {
        let cluster = Arc::clone(&self.cluster);
        let now_us = cluster.clock.now_us();
        let site = ingest::Site { table, catalog: &self.view, time, slot, now_us };
        let chunk = cluster.new_chunks.open(&site, || Arc::clone(&cluster.newest.read()))?;
        // What this transaction has dropped must not come back through its own later rows.
        if self.view.garbage().values().any(|of_node| of_node.contains_key(&chunk.id)) {
            cluster.new_chunks.release(&[(table.id, chunk.id)]);
            let chunk = cluster.new_chunks.private(&site)?;
            self.private.insert(chunk.id);
            self.journal.push(self.staging.sub(), Noted::Private(chunk.id));
            return Ok(chunk);
        }
        if self.shared.insert((table.id, chunk.id)) {
            self.journal.push(self.staging.sub(), Noted::Shared(table.id, chunk.id));
        }
        Ok(chunk)
    }

    /// Nothing is left to tell anybody.
    pub(super) fn end(&mut self) {
        self.ended = true;
        let shared = std::mem::take(&mut self.shared).into_iter().collect::<Vec<_>>();
        self.cluster.new_chunks.release(&shared);
        self.cluster.running.lock().open.remove(&self.id.number);
        self.cluster.progress.lock().remove(&self.id.number);
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let staging = std::mem::replace(&mut self.staging, Staging::new(self.id));
        if self.dropped || staging.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return self.end();
        }
        // The same transaction again, so that it stays among the running until the nodes were told.
        let mut rest = Transaction {
            cluster: Arc::clone(&self.cluster),
            id: self.id,
            snapshot: self.snapshot,
            base: Arc::clone(&self.base),
            view: Arc::clone(&self.view),
            changes: Vec::new(),
            touched: BTreeMap::new(),
            keys: BTreeMap::new(),
            private: BTreeSet::new(),
            shared: std::mem::take(&mut self.shared),
            journal: Journal::default(),
            staging,
            asynchronous: false,
            key: None,
            ended: false,
            dropped: true,
        };
        let cluster = Arc::clone(&self.cluster);
        cluster.spawn(async move { super::commit::abort(&mut rest).await });
    }
}
