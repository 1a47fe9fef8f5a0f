//! One transaction's rows on their way to the nodes.
//!
//! Invariants
//! - A node's first block is acknowledged before the next is sent, which then says that it continues: so a node that
//!   restarted in between refuses it, and no transaction commits by half.
//! - At most `BLOCKS_IN_FLIGHT` blocks are under way to a node; the client waits for the oldest.
//! - Every call is waited for before the transaction ends, so that none can arrive after its abort.

use crate::txn::Link;
use proto::{ChunkWrite, DataNode, Error, NodeName, Result, TxnId};
use std::collections::{BTreeMap, VecDeque};
use tokio::task::JoinHandle;

/// One being written by the node, one on the wire.
const BLOCKS_IN_FLIGHT: usize = 2;

pub(crate) struct Staging {
    txn: TxnId,
    lanes: BTreeMap<NodeName, Lane>,
}

struct Lane {
    link: Link,
    started: bool,
    under_way: VecDeque<JoinHandle<Result<()>>>,
}

impl Lane {
    async fn wait_oldest(&mut self) -> Result<()> {
        // Taken out only when it has ended: a dropped future leaves it to be waited for.
        let Some(call) = self.under_way.front_mut() else { return Ok(()) };
        let outcome = call.await;
        self.under_way.pop_front();
        outcome.unwrap_or_else(|e| Err(Error::internal(format!("a call to {} ended: {e}", self.link.name()))))
    }
}

impl Staging {
    pub(crate) fn new(txn: TxnId) -> Staging {
        Staging { txn, lanes: BTreeMap::new() }
    }

    /// Whether no node was ever called.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(crate) fn links(&self) -> Vec<Link> {
        self.lanes.values().map(|lane| lane.link.clone()).collect()
    }

    pub(crate) async fn send(&mut self, link: Link, writes: Vec<ChunkWrite>) -> Result<()> {
        let fresh = || Lane { link: link.clone(), started: false, under_way: VecDeque::new() };
        let lane = self.lanes.entry(link.name().clone()).or_insert_with(fresh);
        while lane.under_way.len() >= BLOCKS_IN_FLIGHT {
            lane.wait_oldest().await?;
        }
        let (txn, continues) = (self.txn, lane.started);
        lane.under_way.push_back(tokio::spawn(async move { link.stage(txn, continues, writes).await }));
        if !continues {
            lane.wait_oldest().await?;
            lane.started = true;
        }
        Ok(())
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
