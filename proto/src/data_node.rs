//! `trait DataNode`: all that a coordinator may ask of a node. Implemented by the node itself (embedded mode) and by
//! the gRPC client; both must pass the same contract suite.

use crate::{
    ChunkId, ClusterId, ColumnId, ColumnPredicate, CommitSeq, NodeName, QueryId, Result, Shuffle, SubTxn, TableId,
    TxnId,
};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The cluster a node is bound to and the name it has there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    pub cluster: ClusterId,
    pub name: NodeName,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    pub protocol: u32,
    pub build: String,
    /// `None` until the node was attached to a cluster.
    pub identity: Option<NodeIdentity>,
    /// Drawn when the data directory was made: tells a node that lost its disk from one that restarted.
    pub incarnation: u64,
    /// Prepared, and waiting for a decision.
    pub in_doubt: Vec<TxnId>,
    /// Highest commit sequence the node has applied.
    pub commit_seq_max: CommitSeq,
    /// Highest coordinator epoch the node has seen.
    pub epoch_max: u64,
}

/// How a chunk's rows are kept: sorted by `sort`, in that order. A plain table has neither sort nor time column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkLayout {
    pub table: TableId,
    /// Space columns first, then time.
    pub sort: Vec<ColumnId>,
    pub time: Option<ColumnId>,
    /// Checked when rows are staged.
    pub keys: Vec<UniqueKey>,
}

/// No two rows of a table are equal in all these columns, NULL being equal to nothing. They contain the table's
/// partitioning columns, so that equal rows meet in one chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UniqueKey {
    /// The constraint's or index's name, for the error.
    pub name: String,
    pub columns: Vec<ColumnId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// The body has the rows. Each Arrow field carries its `ColumnId` as the metadata `PARQUET:field_id`.
    Insert,
    /// The body has the addresses of rows, as a scan of the same transaction gave them: the columns `ColumnId::PART` and
    /// `ColumnId::ROW`, both `bigint` and never NULL.
    Delete,
}

/// A change of one chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkWrite {
    pub chunk: ChunkId,
    pub layout: ChunkLayout,
    pub kind: WriteKind,
    /// See `ipc::encode_body`. Appended to the node's log as it came.
    pub body: Bytes,
}

/// Metadata key under which an Arrow field names its `ColumnId`; Parquet readers know it as the field id.
pub const FIELD_ID: &str = "PARQUET:field_id";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    /// The node is the only participant: vote and commit at once, durable on return.
    OnePhase,
    /// As `OnePhase`, but durable only a moment after the return. A crash loses the youngest of these: with one of them
    /// all that the node committed after it.
    Asynchronous,
    /// After a yes vote.
    Prepared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Never staged here, aborted, or lost in a crash before it was prepared: it can never commit here.
    Unknown,
    Staged,
    Prepared,
    Committed(CommitSeq),
}

/// The chunks one `ChunkScan` of a fragment reads on this node. `scan` is the leaf's number in the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanChunks {
    pub scan: u32,
    pub chunks: Vec<ChunkId>,
    /// What it may skip of them.
    pub predicates: Vec<ColumnPredicate>,
}

/// The part of a plan one node runs.
#[derive(Debug, Clone, PartialEq)]
pub struct FragmentRequest {
    pub query: QueryId,
    /// A DataFusion physical plan with `ChunkScan` leaves; the same bytes for every node, and every time a statement of
    /// this shape is run.
    pub plan: Bytes,
    /// The constants that differ from run to run, in the engine's encoding; empty when there are none.
    pub values: Bytes,
    pub scans: Vec<ScanChunks>,
    pub snapshot: CommitSeq,
    /// The reader's own open transaction: its staged rows are visible to it.
    pub txn: Option<TxnId>,
    /// The session's time zone, an IANA name.
    pub time_zone: String,
    /// Parallel streams inside the node; at least 1.
    pub partitions: u32,
    /// The statement's `now()`.
    pub now_us: i64,
    pub shuffle: Shuffle,
}

#[derive(Debug, Clone)]
pub enum FragmentMessage {
    Batch(RecordBatch),
    /// Last message: the fragment's metrics, in the engine's encoding, and what came over the network for it; `None`
    /// from a node in the same process.
    Metrics(Bytes, Option<Traffic>),
}

/// Messages of one fragment as they were encoded, without what the connection adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub request_bytes: u64,
    pub messages: u64,
    pub answer_bytes: u64,
}

/// Dropping it cancels the fragment.
pub type FragmentStream = BoxStream<'static, Result<FragmentMessage>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkStats {
    pub chunk: ChunkId,
    pub rows: u64,
    pub disk_bytes: u64,
    pub delta_bytes: u64,
    pub segments: u32,
    /// What the rows of the segments take in memory, neither encoded nor compressed.
    pub raw_bytes: u64,
}

/// # Errors
/// Every method: the node's own error, or `CONNECTION_FAILURE` when it cannot be reached. `Reaction` says whether the
/// call may be repeated, and `Reaction::Resolve` that its effect is not known.
#[async_trait]
pub trait DataNode: Send + Sync + 'static {
    async fn hello(&self) -> Result<NodeStatus>;

    /// Binds an unbound node. Durable on return; repeating it with the same identity does nothing.
    ///
    /// # Errors
    /// `DATA_NODE_ASSIGNMENT` when the node belongs to another cluster or has another name.
    async fn attach(&self, identity: NodeIdentity) -> Result<()>;

    /// From now on only coordinators of this epoch or later ones count: what older ones staged and did not prepare is
    /// forgotten, and their transactions and reads are refused. Durable on return.
    ///
    /// # Errors
    /// `ADMIN_SHUTDOWN` when a newer coordinator was here: who asked does not lead any more.
    async fn obey(&self, cluster: ClusterId, epoch: u64) -> Result<()>;

    /// Adds changes to a transaction, which starts with its first `stage`. Not durable, not visible to others. The first
    /// one says `continues: false` and is waited for; later ones, of which several may be under way, say `true`: a node
    /// that lost the transaction in a restart must refuse them, or the rest would commit without the beginning. A first one
    /// that comes again is refused too, and changes nothing. Numbers of
    /// sub-transactions only grow from call to call.
    ///
    /// # Errors
    /// After one, the sub-transaction is to be discarded, or the transaction aborted: till then the node neither takes
    /// more of it nor votes for it. A node out of memory for staged rows waits before it answers.
    /// `UNIQUE_VIOLATION` names the key and the values; `SERIALIZATION_FAILURE` says that a row to be removed was
    /// changed, or moved by sealing, since it was read.
    async fn stage(&self, txn: TxnId, sub: SubTxn, continues: bool, writes: Vec<ChunkWrite>) -> Result<()>;

    /// Takes back what the transaction staged under these numbers, as if it had never been: its rows, its removals, its
    /// keys. The transaction goes on with higher numbers, also when one of these had failed. Idempotent. Not to be called
    /// while a `stage` of the transaction is under way.
    ///
    /// # Errors
    /// For a transaction the node does not know, as it may have lost it in a restart, or that has voted or ended.
    async fn discard(&self, txn: TxnId, subs: Range<SubTxn>) -> Result<()>;

    /// The yes vote: on `Ok` the transaction's rows are durable and the node can only be told how it ended.
    async fn prepare(&self, txn: TxnId) -> Result<()>;

    /// Makes the rows visible to snapshots from `seq` on. Idempotent. Durable on return, and with it everything that was
    /// committed here before; except under `CommitMode::Asynchronous`.
    async fn commit(&self, txn: TxnId, seq: CommitSeq, mode: CommitMode) -> Result<()>;

    /// Forgets the transaction. Idempotent; fine for one that was never staged.
    async fn abort(&self, txn: TxnId) -> Result<()>;

    async fn outcome(&self, txn: TxnId) -> Result<TxnOutcome>;

    /// Runs a fragment. One that publishes its rows answers with its metrics only, when all were taken; they can be
    /// fetched as soon as this returns.
    ///
    /// # Errors
    /// `ADMIN_SHUTDOWN` for a snapshot of an older coordinator than one that was here.
    async fn execute(&self, fragment: FragmentRequest) -> Result<FragmentStream>;

    /// Chunks the node does not have are left out.
    async fn chunk_stats(&self, chunks: Vec<ChunkId>) -> Result<Vec<ChunkStats>>;

    /// Brings all committed rows of the chunks, which belong to one table, into segments of the layout's order now, and
    /// rewrites those of another order. Chunks the node does not have are left out.
    async fn seal_chunks(&self, chunks: Vec<ChunkId>, layout: ChunkLayout) -> Result<()>;

    /// Removes chunks and their files. Idempotent; durable on return.
    async fn drop_chunks(&self, chunks: Vec<ChunkId>) -> Result<()>;
}
