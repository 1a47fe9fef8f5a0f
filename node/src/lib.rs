//! A data node: `storage` and `engine` behind `proto::DataNode`.
//!
//! It is not a server (`proto::wire::serve_node` puts it on a socket, embedded mode calls it directly), it knows no SQL
//! text and no catalog, and it never calls a coordinator. Of other nodes it only takes rows they have published for it, as
//! a fragment says.
//!
//! Invariants
//! - Query work runs on the node's own runtime ([`Node`] owns it), so that it cannot hold up prepare and commit.
//! - A stream of a fragment ends with metrics or with an error; an end without either never looks like a result.
//! - `close` leaves a store that opens without recovery work beyond its log.
//!
//! A write: `Node::stage` → a blocking thread → `storage::Store::stage`; the verbs after it alike. A read:
//! `Node::execute` → `queries::Queries::start` → `engine::plan::Executor::start` → `chunks::Chunks::scan` per chunk →
//! `storage::Store::scan`; batches go back through a channel of two. A join of rows
//! that nodes send each other: `queries::Queries::publish` here, `Node::fetch` by the others.

mod chunks;
mod node;
mod peers;
mod queries;

#[cfg(test)]
mod tests;

pub use node::{Node, NodeOptions};
pub use peers::OverGrpc;
