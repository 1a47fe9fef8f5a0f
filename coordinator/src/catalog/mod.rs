//! What the cluster knows durably: databases, roles, nodes, tables, views, chunks.
//!
//! `CatalogState` is plain data; `CatalogChange` is the only way it moves, and `CatalogState::apply` is deterministic:
//! the same changes in the same order give the same state on every coordinator and at every restart. A change therefore
//! carries all it needs (ids, times, verifiers): no clock, no chance, no look at a node. Making changes durable and
//! ordered is `txn`'s business, checking who may make them the session's.
//!
//! Invariants
//! - Oids, hypertable numbers and chunk ids are never given twice.
//! - Two chunks of a table never overlap in both time and slots; time slices of a table are equal or disjoint.
//! - A change that is refused leaves the state as it was.
//! - Dropped chunks stay in `garbage` until their nodes have removed the files.

mod apply;
mod apply_jobs;
mod apply_tables;
mod change;
mod chunks;
pub(crate) mod errors;
mod jobs;
mod objects;
mod publish;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use change::{CatalogChange, ColumnAlteration, CommentTarget, NodeAlteration, RoleAlteration, SettingScope};
pub use chunks::{ChunkIndex, Slice};
pub use jobs::{Action, Age, FIRST_USER_JOB, Job, JobRuns, Span};
pub use objects::{ColumnNames, Database, Extension, Grantee, Grants, NodeDef, Privilege, Role, Schema, ViewDef};
pub use publish::Catalog;
pub use state::{CatalogState, FIRST_USER_OID, Relation};
