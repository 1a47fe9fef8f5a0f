//! How a transaction ends.
//!
//! 1. All rows are on their nodes (`Staging::flush`).
//! 2. One participant, no change of the catalog and no idempotency key: the participant decides alone.
//! 3. Else every participant votes; one no, or no answer: abort everywhere, nothing was logged.
//! 4. Under the commit lock: the changes are checked against the newest catalog, a sequence is taken, `Commit` is
//!    appended (`Cluster::decide`). Durable, it is the commit point.
//! 5. The catalog is shown, participants are told; who cannot be told is down, and is told before it comes up.
//! 6. The sequence is closed: snapshots show the transaction from here on.
//!
//! `core` decides which of these comes next; this file carries out what it says, with links, log, sequence and catalog.

pub(super) mod core;

use self::core::{Commit, Input, Output};
use super::cluster::Cluster;
use super::link::Link;
use super::listing::Phase;
use super::log::{Position, unknown_outcome};
use super::record::{Machine, Record};
use super::transaction::Transaction;
use crate::catalog::{CatalogChange, CatalogState};
use crate::ingest::NewChunks;
use engine::{ChunkDef, KeyDef};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use proto::{ChunkId, CommitMode, CommitSeq, DataNode, Error, NodeName, Reaction, Result, SqlState, TableId, TxnId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use storage::failpoint;

/// How often a session looks whether a lost node is back to tell how a commit ended.
const RESOLVE_INTERVAL: Duration = Duration::from_millis(50);

pub(super) async fn run(mut txn: Transaction) -> Result<CommitSeq> {
    let settled = settle(&mut txn).await;
    let mut ending = Ending::new(&mut txn);
    let outputs = ending.commit.step(settled);
    let repeated = Arc::clone(&ending.repeated);
    let cluster = Arc::clone(&ending.cluster);
    let ended = ending.carry_out(outputs).await;
    match repeated.get() {
        Some(former) => cluster.happened_before(*former).await,
        None => ended,
    }
}

/// Tells all participants to forget the transaction. One that cannot be told now is told when it comes up.
pub(super) async fn abort(txn: &mut Transaction) {
    let settled = settle(txn).await;
    let mut ending = Ending::new(txn);
    let outputs = match settled {
        Input::Deposed => ending.commit.step(settled),
        _ => ending.commit.give_up(),
    };
    // It says that the transaction was aborted.
    let _ = ending.carry_out(outputs).await;
}

/// Waits until its rows are on their nodes: not on a node that hangs when there is nothing more to commit here.
async fn settle(txn: &mut Transaction) -> Input {
    let cluster = Arc::clone(&txn.cluster);
    tokio::select! {
        biased;
        settled = txn.staging.flush() => Input::Settled(settled),
        () = cluster.ended.cancelled() => {
            txn.ended = true;
            Input::Deposed
        }
    }
}

/// The end of a transaction, and what it needs to come about.
struct Ending<'a> {
    commit: Commit,
    txn: &'a mut Transaction,
    cluster: Arc<Cluster>,
    links: BTreeMap<NodeName, Link>,
    /// Where its record is, and the catalog with it.
    decided: Option<(Position, Arc<CatalogState>)>,
    /// The commit that had its key: this one was given up.
    repeated: Arc<OnceLock<CommitSeq>>,
    calls: FuturesUnordered<BoxFuture<'static, Input>>,
    /// Answers that were there at once.
    inputs: VecDeque<Input>,
}

impl<'a> Ending<'a> {
    fn new(txn: &'a mut Transaction) -> Ending<'a> {
        let links = txn.staging.links().into_iter().map(|link| (link.name().clone(), link)).collect::<BTreeMap<_, _>>();
        Ending {
            commit: Commit::begin(
                links.keys().cloned().collect(),
                !txn.changes.is_empty() || txn.key.is_some(),
                txn.asynchronous,
            ),
            cluster: Arc::clone(&txn.cluster),
            txn,
            links,
            decided: None,
            repeated: Arc::default(),
            calls: FuturesUnordered::new(),
            inputs: VecDeque::new(),
        }
    }

    async fn carry_out(mut self, mut outputs: Vec<Output>) -> Result<CommitSeq> {
        loop {
            for output in outputs {
                match output {
                    Output::Answer(answer) => {
                        failpoint::soon("c8");
                        return answer;
                    }
                    output => self.perform(output),
                }
            }
            let input = match self.inputs.pop_front() {
                Some(input) => input,
                None => tokio::select! {
                    biased;
                    input = self.calls.next() => input.expect("until it answers, the core waits for something"),
                    () = self.cluster.ended.cancelled() => {
                        // Whoever leads next finds out, and tells; nothing may be told from here any more.
                        self.txn.ended = true;
                        Input::Deposed
                    }
                },
            };
            outputs = self.commit.step(input);
        }
    }

    fn perform(&mut self, output: Output) {
        let (cluster, id) = (Arc::clone(&self.cluster), self.txn.id);
        if let Some(phase) = phase_of(&output)
            && let Some((_, now)) = cluster.progress.lock().get_mut(&id.number)
        {
            *now = phase;
        }
        match output {
            Output::Prepare(node) => {
                let link = self.links[&node].clone();
                self.call(async move {
                    failpoint::pass("c3");
                    the_living().await;
                    failpoint::soon("c4");
                    Input::Voted(node, link.prepare(id).await)
                });
            }
            Output::Abort(node) => {
                let link = self.links[&node].clone();
                self.call(async move { Input::Aborted(node, link.abort(id).await) });
            }
            Output::Decide => {
                failpoint::pass("c5");
                let participants = self.links.keys().cloned().collect();
                // From here on the log says how it ended, and nobody may abort it, not even a panic.
                self.txn.ended = true;
                let placed = cluster.decide(self.txn, participants, &self.repeated).map(|(seq, position, catalog)| {
                    self.decided = Some((position, catalog));
                    seq
                });
                self.txn.ended = placed.is_ok();
                self.inputs.push_back(Input::Placed(placed));
            }
            Output::TakeSequence => {
                let tip = cluster.tip.lock();
                let placed = cluster.check_commit(&tip, self.txn).map(|()| cluster.sequence.open());
                self.inputs.push_back(Input::Placed(placed));
            }
            Output::Sync => {
                let position = self.decided().0;
                failpoint::pass("c6");
                self.call(async move {
                    let recorded = cluster.log.sync(position).await;
                    failpoint::pass("c7");
                    Input::Recorded(recorded)
                });
            }
            Output::Owe(seq) => cluster.owed.lock().owe_commit(id, seq, self.links.keys().cloned()),
            Output::Publish => cluster.catalog.publish(Arc::clone(&self.decided().1)),
            Output::Commit(node, seq, mode) => {
                let link = self.links[&node].clone();
                self.call(async move {
                    the_living().await;
                    failpoint::soon("c9");
                    let outcome = link.commit(id, seq, mode).await;
                    match mode {
                        CommitMode::Prepared => Input::Told(node, outcome),
                        _ => Input::Committed { outcome, node_up: link.is_up() },
                    }
                });
            }
            Output::Acknowledged(node) => cluster.owed.lock().acknowledged(&id, &node),
            Output::TakeDown(node, error) => take_down(&self.links[&node], id, error),
            Output::OweOutcome(node) => cluster.owed.lock().owe_outcome(id, node),
            Output::OutcomeKnown => cluster.owed.lock().outcome_known(&id),
            Output::OutcomeLeft => cluster.owed.lock().outcome_left(&id),
            Output::Ask { node, later } => {
                let link = self.links[&node].clone();
                self.call(async move {
                    if later {
                        tokio::time::sleep(RESOLVE_INTERVAL).await;
                    }
                    Input::Outcome(link.outcome(id).await)
                });
            }
            Output::LimitAsking => {
                let limit = cluster.options.resolve_timeout;
                self.call(async move {
                    tokio::time::sleep(limit).await;
                    Input::TimeUp
                });
            }
            Output::OweAbort(node) => cluster.owed.lock().owe_abort(node, id),
            Output::LogFailed(error) => {
                tracing::error!(%error, txn = %id, "the two-phase log failed");
                // It stays among the running.
                self.txn.ended = true;
                cluster.end(error);
            }
            Output::Close(seq) => cluster.sequence.close(seq),
            Output::End => {
                self.txn.end();
                if self.decided.is_some() {
                    failpoint::pass("c10");
                    cluster.finish_commits();
                }
            }
            Output::Await(seq) => self.call(async move {
                cluster.wait_visible(seq).await;
                Input::Visible
            }),
            Output::Answer(_) => unreachable!("it ends the loop"),
        }
    }

    fn call(&self, call: impl Future<Output = Input> + Send + 'static) {
        self.calls.push(Box::pin(call));
    }

    fn decided(&self) -> &(Position, Arc<CatalogState>) {
        self.decided.as_ref().expect("the record was appended")
    }
}

impl Drop for Ending<'_> {
    /// A bug must not leave a sequence open, behind which no commit would be seen any more. Who leads next begins from the
    /// log, and finds out how this one ended.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cluster.log.resign(&Error::internal("a commit ended in a panic"));
        }
    }
}

/// A coordinator that dies at a failpoint sends nothing more.
async fn the_living() {
    if failpoint::is_dying() {
        std::future::pending().await
    }
}

/// Where a transaction is from this output on.
fn phase_of(output: &Output) -> Option<Phase> {
    match output {
        Output::Prepare(_) => Some(Phase::Preparing),
        Output::Decide | Output::Commit(_, _, CommitMode::OnePhase | CommitMode::Asynchronous) => Some(Phase::Deciding),
        Output::Commit(_, _, CommitMode::Prepared) => Some(Phase::Committing),
        Output::Abort(_) => Some(Phase::Aborting),
        Output::Ask { .. } | Output::LogFailed(_) => Some(Phase::Unknown),
        _ => None,
    }
}

/// Tells an up node of a durable decision, as the transaction itself would.
pub(super) async fn push(cluster: &Cluster, txn: TxnId, seq: CommitSeq, link: &Link) {
    match link.commit(txn, seq, CommitMode::Prepared).await {
        Ok(()) => cluster.owed.lock().acknowledged(&txn, link.name()),
        Err(error) => take_down(link, txn, error),
    }
}

fn take_down(link: &Link, txn: TxnId, error: Error) {
    if link.is_up() {
        tracing::error!(node = %link.name(), %txn, %error, "a prepared transaction was not committed");
        link.set_down(error);
    }
}

/// What a session is told of a one-round commit that its node did not answer for.
fn unknown(node: &NodeName) -> Error {
    let text = format!("connection to data node \"{node}\" was lost while it committed");
    Error::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, text)
        .detail("Whether the transaction was committed is not known.")
        .reaction(Reaction::Resolve)
}

/// The same, when the node was no longer waited for.
fn deposed_meanwhile() -> Error {
    let text = "this coordinator does not lead any more: whether the transaction was committed is not known";
    Error::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, text).reaction(Reaction::Resolve)
}

/// What a transaction rests on, and what must still hold when it commits.
pub(super) struct Claims<'a> {
    /// Chunks written to.
    pub(super) touched: &'a BTreeMap<ChunkId, Arc<ChunkDef>>,
    /// Those of them that only this transaction knows.
    pub(super) private: &'a BTreeSet<ChunkId>,
    /// The keys that rows were checked against.
    pub(super) keys: &'a BTreeMap<TableId, Vec<KeyDef>>,
}

impl Claims<'_> {
    /// Every chunk the transaction wrote to must still be there, or become one with this commit.
    pub(super) fn check(&self, newest: &CatalogState, new_chunks: &NewChunks) -> Result<()> {
        let is_live = |chunk: &Arc<ChunkDef>| {
            self.private.contains(&chunk.id)
                || newest.chunks(chunk.table).contains(chunk)
                || new_chunks.is_pending(chunk)
        };
        let lost = |text: &str| Err(Error::new(SqlState::SERIALIZATION_FAILURE, text).reaction(Reaction::Abort));
        if !self.touched.values().all(is_live) {
            return lost("could not serialize access due to a concurrent drop of chunks");
        }
        // Rows that are committed were checked against the keys their table has.
        let same_keys = |(table, keys): (&TableId, &Vec<KeyDef>)| {
            newest.table_by_id(*table).is_none_or(|table| table.keys == *keys)
        };
        match self.keys.iter().all(same_keys) {
            true => Ok(()),
            false => lost("could not serialize access due to a concurrent change of a unique key"),
        }
    }
}

impl Cluster {
    /// Takes the transaction's place in the order of commits. The record is appended, not durable. One whose key a commit
    /// has had is refused, and `repeated` says which that was.
    fn decide(
        &self,
        txn: &Transaction,
        participants: Vec<NodeName>,
        repeated: &OnceLock<CommitSeq>,
    ) -> Result<(CommitSeq, Position, Arc<CatalogState>)> {
        let mut tip = self.tip.lock();
        if let Some(former) = txn.key.as_deref().and_then(|key| tip.repeats.of(key)) {
            let _ = repeated.set(former);
            let text = "a transaction with this idempotency key was committed before";
            return Err(Error::new(SqlState::SERIALIZATION_FAILURE, text));
        }
        self.check_commit(&tip, txn)?;
        let seq = self.sequence.open();
        let (changes, key) = (txn.changes.clone(), txn.key.clone());
        let record = Record::Commit { txn: txn.id, seq, participants, changes, key };
        let appended = tip.apply_once(&record, || self.log.append(&record));
        let position = appended.inspect_err(|_| self.sequence.close(seq))?;
        *self.newest.write() = Arc::clone(&tip.catalog);
        self.new_chunks.published(added_chunks(&txn.changes));
        Ok((seq, position, Arc::clone(&tip.catalog)))
    }

    /// What a transaction answers whose key was committed before, as soon as that is certain.
    async fn happened_before(&self, former: CommitSeq) -> Result<CommitSeq> {
        self.wait_visible(former).await;
        match self.check() {
            Err(end) if self.sequence.snapshot() < former => Err(unknown_outcome(&end)),
            _ => Ok(former),
        }
    }

    fn check_commit(&self, tip: &Machine, txn: &Transaction) -> Result<()> {
        self.check()?;
        let claims = Claims { touched: &txn.touched, private: &txn.private, keys: &txn.keys };
        claims.check(&tip.catalog, &self.new_chunks)
    }

    /// Notes the decisions that everybody has acknowledged. Nobody waits for it: a lost `Done` is told again.
    pub(super) fn finish_commits(&self) {
        let done = self.owed.lock().told_everybody();
        for txn in done {
            let record = Record::Done { txn };
            let mut tip = self.tip.lock();
            if let Err(error) = self.log.note(&record) {
                tracing::warn!(%error, "could not note a finished transaction");
                return;
            }
            tip.apply(&record).expect("Done is never refused");
            drop(tip);
            self.owed.lock().finished(&txn);
        }
    }
}

pub(super) fn added_chunks(changes: &[CatalogChange]) -> impl Iterator<Item = (TableId, ChunkId)> {
    changes.iter().filter_map(|change| match change {
        CatalogChange::AddChunk(chunk) => Some((chunk.table, chunk.id)),
        _ => None,
    })
}
