//! What is open, for people: every transaction that has not ended here, and what nodes must still be told.

use super::cluster::Cluster;
use proto::{NodeName, TxnId};
use std::collections::BTreeMap;

/// Where a transaction of this coordinator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its session may still add to it.
    Open,
    /// Its nodes were asked to vote.
    Preparing,
    /// Its record is on its way into the log, or its only node decides.
    Deciding,
    /// It has happened; its nodes are being told.
    Committing,
    /// It does not happen; its nodes are being told.
    Aborting,
    /// How it ended is to be found out: from a node that was lost, or by the next coordinator that leads.
    Unknown,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Open => "open",
            Phase::Preparing => "preparing",
            Phase::Deciding => "deciding",
            Phase::Committing => "committing",
            Phase::Aborting => "aborting",
            Phase::Unknown => "unknown",
        }
    }
}

/// By the transaction's number, those of this reign: since when, and where they are.
pub(super) type Progress = BTreeMap<u64, (i64, Phase)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTransaction {
    pub id: TxnId,
    pub phase: Phase,
    /// `None`: begun under an earlier coordinator.
    pub since_us: Option<i64>,
    /// Nodes that must still be told how it ended, or asked.
    pub waiting_for: Vec<NodeName>,
}

impl Cluster {
    /// By id.
    pub fn transactions(&self) -> Vec<ListedTransaction> {
        let mut listed = BTreeMap::new();
        for (number, (since_us, phase)) in self.progress.lock().iter() {
            let id = TxnId { cluster: self.id, epoch: self.epoch, number: *number };
            listed.insert(id, (*phase, Some(*since_us), Vec::new()));
        }
        for (id, phase, node) in self.owed.lock().everything() {
            // One that is told now says itself where it is.
            let (_, _, waiting) = listed.entry(id).or_insert((phase, None, Vec::new()));
            waiting.push(node);
        }
        let listed = listed.into_iter();
        listed
            .map(|(id, (phase, since_us, waiting_for))| ListedTransaction { id, phase, since_us, waiting_for })
            .collect()
    }
}
