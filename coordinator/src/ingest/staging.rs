//! One transaction's rows on their way to the nodes.
//!
//! Invariants
//! - A node's first block is acknowledged before the next is sent, which then says that it continues: so a node that
//!   restarted in between refuses it, and no transaction commits by half.
//! - At most `BLOCKS_IN_FLIGHT` blocks are under way to a node; the client waits for the oldest.
//! - Every call is waited for before the transaction ends or is taken back to a savepoint, so that none can arrive after
//!   its abort or discard. A lane with a call whose answer was lost can only be aborted.

use crate::txn::Link;
use futures::future::join_all;
use proto::{ChunkWrite, DataNode, Error, NodeName, Reaction, Result, SqlState, SubTxn, TxnId};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use storage::failpoint;
use tokio::task::JoinHandle;

/// One being written by the node, one on the wire.
const BLOCKS_IN_FLIGHT: usize = 2;

pub(crate) struct Staging {
    txn: TxnId,
    /// What is sent now belongs to it.
    sub: SubTxn,
    lanes: BTreeMap<NodeName, Lane>,
}

struct Lane {
    link: Link,
    /// The node has acknowledged a block.
    started: bool,
    /// Nobody knows whether a block arrived, or still will.
    lost: bool,
    /// The first and the last sub-transaction that sent a block, of those that were not discarded.
    sent: Option<(SubTxn, SubTxn)>,
    under_way: VecDeque<JoinHandle<Result<()>>>,
}

impl Lane {
    fn new(link: Link) -> Lane {
        Lane { link, started: false, lost: false, sent: None, under_way: VecDeque::new() }
    }

    async fn wait_oldest(&mut self) -> Result<()> {
        // Taken out only when it has ended: a dropped future leaves it to be waited for.
        let Some(call) = self.under_way.front_mut() else { return Ok(()) };
        let outcome = call.await;
        self.under_way.pop_front();
        let ended =
            |e| Error::internal(format!("a call to {} ended: {e}", self.link.name())).reaction(Reaction::Resolve);
        let outcome = outcome.unwrap_or_else(|e| Err(ended(e)));
        match &outcome {
            Ok(()) => self.started = true,
            Err(error) => {
                self.lost |= error.code == SqlState::CONNECTION_FAILURE || error.reaction == Reaction::Resolve;
            }
        }
        outcome
    }

    /// # Errors
    /// The node's; 08006 when it was lost with a block under way.
    async fn discard(&mut self, txn: TxnId, subs: Range<SubTxn>) -> Result<()> {
        if self.sent.is_none_or(|(_, last)| last < subs.start) {
            return Ok(());
        }
        if self.lost {
            let text = format!("connection to data node \"{}\" was lost", self.link.name());
            return Err(Error::new(SqlState::CONNECTION_FAILURE, text)
                .detail("What became of the rows sent to it is not known.")
                .reaction(Reaction::Abort));
        }
        self.link.discard(txn, subs.clone()).await?;
        let kept = self.sent.filter(|(first, _)| *first < subs.start);
        self.sent = kept.map(|(first, _)| (first, SubTxn(subs.start.0 - 1)));
        Ok(())
    }
}

impl Staging {
    pub(crate) fn new(txn: TxnId) -> Staging {
        Staging { txn, sub: SubTxn::FIRST, lanes: BTreeMap::new() }
    }

    /// Whether no node was ever called.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether nodes hold, or are about to hold, changes of the transaction.
    pub(crate) fn holds_changes(&self) -> bool {
        self.lanes.values().any(|lane| lane.sent.is_some())
    }

    /// What is sent from now on can be taken back by itself.
    ///
    /// # Errors
    /// 54000 when there are no more numbers.
    pub(crate) fn open_sub(&mut self) -> Result<SubTxn> {
        let next = self.sub.0.checked_add(1).filter(|next| *next < u32::MAX);
        let next = next.ok_or_else(|| {
            let text = "cannot have more than 2^32-1 subtransactions in a transaction";
            Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, text)
        })?;
        self.sub = SubTxn(next);
        Ok(self.sub)
    }

    /// Takes back what was sent since `from` was opened, also what failed; what is sent from now on belongs to a new
    /// sub-transaction. Waits for all blocks under way.
    ///
    /// # Errors
    /// Of a node that cannot; others may have done it. It can be repeated, or the transaction aborted.
    pub(crate) async fn discard(&mut self, from: SubTxn) -> Result<()> {
        // What failed is not wanted any more.
        let _ = self.flush().await;
        let next = self.open_sub()?;
        let txn = self.txn;
        let told = join_all(self.lanes.values_mut().map(|lane| lane.discard(txn, from..next))).await;
        told.into_iter().collect()
    }

    pub(crate) fn sub(&self) -> SubTxn {
        self.sub
    }

    pub(crate) fn links(&self) -> Vec<Link> {
        self.lanes.values().map(|lane| lane.link.clone()).collect()
    }

    pub(crate) async fn send(&mut self, link: Link, writes: Vec<ChunkWrite>) -> Result<()> {
        let lane = self.lanes.entry(link.name().clone()).or_insert_with(|| Lane::new(link.clone()));
        while lane.under_way.len() >= if lane.started { BLOCKS_IN_FLIGHT } else { 1 } {
            lane.wait_oldest().await?;
        }
        let (txn, sub, continues) = (self.txn, self.sub, lane.started);
        lane.sent = Some((lane.sent.map_or(sub, |(first, _)| first), sub));
        lane.under_way.push_back(tokio::spawn(async move { link.stage(txn, sub, continues, writes).await }));
        match continues {
            true => Ok(()),
            false => {
                lane.wait_oldest().await?;
                failpoint::pass("c2");
                Ok(())
            }
        }
    }

    /// All blocks are on their nodes.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        let mut first_error = Ok(());
        for lane in self.lanes.values_mut() {
            while !lane.under_way.is_empty() {
                first_error = first_error.and(lane.wait_oldest().await);
            }
        }
        first_error
    }
}
