//! Transactions over nodes: the two-phase log, commit sequences, recovery.
//!
//! It is the only writer of the catalog and the only one who tells nodes how a transaction ended; it knows no SQL.
//!
//! A commit, file by file: `transaction` stages rows and collects changes (`savepoint` takes some back) → `commit` votes, decides and tells →
//! `record` and `log` hold the decision, in the log `crate::raft` keeps → `sequence` lets readers see it. What could not
//! be told is `owed`, and is told by `handshake`, the one way by which a node becomes available (`link`, `nodes`), on a
//! watch that `cluster` owns.
//!
//! What comes next is decided without I/O, in `commit::core` and `handshake::core`: inputs in, what is to be done out
//! (`golden/` has scripts of both). The files beside them carry it out. `simulation/` (tests only) runs the same cores with
//! three coordinators and three stores in one thread, on a disk, a network and a clock that fail; `planted` are bugs that
//! it must find.
//!
//! Invariants
//! - A transaction has happened if and only if its `Commit` record is durable or, when it has one participant and
//!   changes no catalog, that participant committed it. No record: it did not happen (presumed abort).
//! - A record is logged only after its changes passed `CatalogState::apply` on the newest state, so that replay never
//!   fails.
//! - Snapshots lie below every commit that a node which is up does not know yet.
//! - Lock order: `tip`, `new_chunks`, `newest`; `owed`, a link. Never across an await.

mod cluster;
mod commit;
mod coordinator;
#[cfg(test)]
mod golden;
mod handshake;
mod link;
mod listing;
mod log;
mod membership;
mod nodes;
mod owed;
mod peers;
mod planted;
mod record;
mod repeats;
mod savepoint;
mod sequence;
#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod tests;
mod transaction;

pub use cluster::{Cluster, ClusterOptions};
pub use coordinator::{Coordinator, Group, Seat};
pub use link::{Link, Timeouts};
pub use listing::{ListedTransaction, Phase};
pub use log::{CATALOG, DecisionLog, Position, RaftLog, verify};
pub use membership::{DEFAULT_NODE_PORT, NewNode};
pub use nodes::{Connector, Nodes};
pub use peers::Peers;
pub use record::{Decision, Machine, Record};
pub use repeats::{KEY_BYTES_MAX, KEYS_MAX};
pub use savepoint::Savepoint;
pub use sequence::Sequence;
pub use transaction::Transaction;
