//! What data nodes ask of each other, and it is one thing: rows of a query that one of them has published for another. Who
//! publishes what, and who is to fetch it, the coordinator says in the fragments it sends; a node starts nothing by
//! itself.
//!
//! Published rows lie in numbered partitions, each fetched once by one node. They are there as long as the fragment that
//! publishes them runs: dropping its stream ends it, and with it every claim to its rows.

use crate::data_node::{FragmentStream, NodeIdentity};
use crate::{CommitSeq, Result};
use async_trait::async_trait;
use std::sync::Arc;

/// A node as other nodes find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    pub identity: NodeIdentity,
    /// `host:port`; nodes in one process know each other by name.
    pub address: String,
}

/// What a fragment has to do with rows on their way from node to node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shuffle {
    /// Its rows are not the answer: they are there under this number, for those who fetch them. The number is the
    /// coordinator's; one of another epoch may use it too.
    pub publishes: Option<u64>,
    /// What its plan reads of published rows.
    pub inputs: Vec<ShuffledInput>,
}

/// Rows for one leaf of a plan, `input` being the leaf's number.
#[derive(Debug, Clone, PartialEq)]
pub struct ShuffledInput {
    pub input: u32,
    pub exchange: u64,
    /// For each of the leaf's own partitions, the published partition it reads.
    pub partitions: Vec<u32>,
    /// All who publish; empty when there is nothing for this node.
    pub sources: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The node itself.
    Here,
    Peer(NodeAddress),
}

/// Which rows.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchRequest {
    /// Whom the caller takes the node for.
    pub from: NodeIdentity,
    /// The snapshot of the fragment that publishes them.
    pub snapshot: CommitSeq,
    pub exchange: u64,
    pub partition: u32,
}

/// A node as another node sees it.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// The rows of one partition as they come; behind the last a `FragmentMessage::Metrics`, which says that they were
    /// all. Dropping the stream tells that no more are wanted.
    ///
    /// # Errors
    /// `DATA_NODE_ASSIGNMENT` when it is another node, `CONNECTION_FAILURE` when it cannot be reached or has no such rows
    /// any more; its own.
    async fn fetch(&self, request: FetchRequest) -> Result<FragmentStream>;
}

/// How a node finds others. Supplied by the binary: gRPC to another process, or a node in this one.
pub trait Publishers: Send + Sync + 'static {
    /// A handle, which may connect on first use.
    ///
    /// # Errors
    /// When the address is not one.
    fn publisher(&self, node: &NodeAddress) -> Result<Arc<dyn Publisher>>;
}
