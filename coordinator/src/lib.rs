//! The coordinator: SQL over the Postgres wire, the catalog, transactions over nodes.
//!
//! It is not a store of rows (nodes are, behind `proto::DataNode`) and never links the node crate; of `storage` it uses
//! the log and the `Vfs`, for the two-phase log alone, which `raft` keeps.
//!
//! Rooms: `pg` (wire) → `session` (statements) → `engine` (queries) or `ingest` (rows in) → `txn` (commit) over
//! `catalog` (what exists). `jobs` works on chunks unasked. `pgcatalog` answers `\d` and the like, `timescale`
//! TimescaleDB's functions and views.
//!
//! Invariants
//! - pgwire is used in `pg` and nowhere else.
//! - A commit is answered only after its record in the two-phase log is committed, or its only participant has fsynced.
//! - Passwords become SCRAM verifiers when a statement is parsed; the text never reaches the log, a node or a message.

pub mod catalog;
pub mod ingest;
pub mod jobs;
pub mod pg;
pub mod pgcatalog;
pub mod raft;
pub mod session;
pub mod timescale;
pub mod txn;
