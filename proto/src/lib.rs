//! The words the processes share: identifiers, time, hash slots, errors, and `trait DataNode`,
//! the one door between a coordinator and a node, and `trait Publisher`, the one between nodes, with their gRPC forms on
//! both sides.
//!
//! It is not a place for behaviour: nothing here touches a disk, plans a query or decides a commit.
//!
//! Invariants
//! - tonic and prost are used in `wire` and nowhere else in the workspace.
//! - `DataNode` means the same in process and over gRPC: the contract suite in `tests/` runs on both.
//! - Everything sent is bounded: `MESSAGE_BYTES_MAX` for one message, one block of rows per `stage`.
//! - Ranges are half-open; times are i64 microseconds since 1970-01-01 UTC.
//!
//! A write, seen from here: the coordinator calls `DataNode::stage` with Arrow IPC bodies, then either
//! `commit(.., CommitMode::OnePhase)` or `prepare` followed by `commit(.., CommitMode::Prepared)`. In between, `discard`
//! takes back what came behind a savepoint.
//! A read is one `DataNode::execute` per node, whose stream the caller may drop at any time; of a join whose rows go from
//! node to node, some of these publish rows, and other nodes take them by `Publisher::fetch`.

pub mod data_node;
pub mod env;
pub mod error;
pub mod ids;
pub mod ipc;
pub mod peer;
pub mod predicate;
pub mod shuffle;
pub mod slots;
pub mod tally;
pub mod time;
pub mod wire;

pub use data_node::{
    ChunkLayout, ChunkStats, ChunkWrite, CommitMode, DataNode, FragmentMessage, FragmentRequest, FragmentStream,
    NodeIdentity, NodeStatus, ScanChunks, Traffic, TxnOutcome, UniqueKey, WriteKind,
};
pub use env::{Clock, Rng, SystemClock, SystemRng};
pub use error::{Error, Reaction, Result, SqlState};
pub use ids::{ChunkId, ClusterId, ColumnId, CommitSeq, NodeName, QueryId, SubTxn, TableId, TxnId};
pub use peer::{Peer, PeerIdentity};
pub use predicate::{ColumnPredicate, Latest, PredicateKind, Scalar};
pub use shuffle::{FetchRequest, NodeAddress, Publisher, Publishers, Shuffle, ShuffledInput, Source};
pub use slots::{SLOTS_COUNT, Slot, SlotSet};
pub use tally::{ScanTally, ScanTotals};
pub use time::{TimeRange, TimeSlicing};

/// Version of the wire between coordinator and node. Both sides must be equal.
pub const PROTOCOL: u32 = 6;

/// Largest gRPC message either side accepts. Writers cut their blocks well below it.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Largest message between coordinators, the snapshot of a log: it travels in parts.
pub const PEER_MESSAGE_BYTES_MAX: usize = 1 << 30;
