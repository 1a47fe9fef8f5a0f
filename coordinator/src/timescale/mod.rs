//! TimescaleDB's functions over our catalog, in their beta and final names. Its views are relations of `pgcatalog`.
//!
//! `signature` which functions there are and how their arguments bind · `listing` the same for `\df` · `nodes` data nodes
//! and distributed_exec · `hypertable` making and changing hypertables · `chunks` showing and dropping chunks · `sizes`
//! what they weigh · `compression` its table options · `compress` compressing chunks · `policies` adding and removing
//! them · `jobs` changing and running jobs · `server` the few functions of PostgreSQL itself that change or ask the
//! session.
//!
//! Invariants
//! - A function only adds changes to the statement's transaction; whatever it did is undone by ROLLBACK. Adding a data
//!   node is the exception, and refused inside a transaction block. Sealing rows (`compress`) changes no answer.

mod chunks;
mod compress;
mod compression;
mod host;
mod hypertable;
mod jobs;
mod listing;
mod nodes;
mod policies;
mod server;
mod signature;
mod sizes;
mod value;

pub(crate) use compression::CompressionOptions;
pub(crate) use host::{Host, Known, with_host};
pub(crate) use listing::listed;
