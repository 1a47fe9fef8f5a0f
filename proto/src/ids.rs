//! Identifiers. Each is a newtype, so that a chunk cannot be passed where a table is meant.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A table, view or other relation; also its `oid` in the Postgres catalogs. Starts at 16384, never reused.
    TableId(u32)
);
id!(
    /// A chunk: one time slice of one group of hash slots. Unique in the cluster, never reused.
    ChunkId(u32)
);
id!(
    /// A column within its table. Survives renames; a dropped column's id is never given again.
    ColumnId(u32)
);
id!(
    /// The order of commits. 0 is "before everything". Never a clock.
    CommitSeq(u64)
);
id!(
    /// One running query, for logs and cancellation.
    QueryId(u64)
);

id!(
    /// A part of a transaction that can be taken back by itself: what it does behind a savepoint. Numbered as they are
    /// opened, from 0 for the transaction's beginning; never reused, also when taken back.
    SubTxn(u32)
);

impl SubTxn {
    pub const FIRST: SubTxn = SubTxn(0);
}

impl ColumnId {
    /// Columns that no table stores and every scan can produce: the address of a row, for a later removal
    /// (`data_node::WriteKind::Delete`). The chunk's id, as `bigint`.
    pub const CHUNK: ColumnId = ColumnId(u32::MAX - 2);
    /// The segment or batch that holds the row now: an opaque `bigint`.
    pub const PART: ColumnId = ColumnId(u32::MAX - 1);
    /// The row's position in its part, as `bigint`.
    pub const ROW: ColumnId = ColumnId(u32::MAX);
}

/// A trillion commits per epoch, sixteen million epochs.
const EPOCH_SHIFT: u32 = 40;

impl CommitSeq {
    pub const ZERO: CommitSeq = CommitSeq(0);

    /// Sees everything committed. For maintenance and tests; a query takes a real snapshot.
    pub const MAX: CommitSeq = CommitSeq(u64::MAX);

    /// Above all of earlier epochs, below every commit of this one.
    pub fn before(epoch: u64) -> CommitSeq {
        CommitSeq(epoch << EPOCH_SHIFT)
    }

    /// The epoch of the coordinator that gave it, or took it as its snapshot.
    pub fn epoch(self) -> u64 {
        self.0 >> EPOCH_SHIFT
    }
}

/// The cluster a directory belongs to; drawn once, when the coordinator's directory is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// Of a coordinator whose group has no leader yet.
    pub const NONE: ClusterId = ClusterId([0; 16]);
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A transaction. `epoch` is the reign of the coordinator that began it: later ones have higher numbers, and a node
/// refuses an epoch older than one it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxnId {
    pub cluster: ClusterId,
    pub epoch: u64,
    pub number: u64,
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

/// The name under which a data node was added (`dn1`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeName(pub String);

impl NodeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        NodeName(name.to_owned())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
