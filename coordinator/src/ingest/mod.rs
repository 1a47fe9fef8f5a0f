//! Rows on their way in: COPY text to columns, columns to chunks, chunks to nodes.
//!
//! It decides nothing about commits (`txn` does) and never looks at a row as an object: batches are checked, routed and
//! sent as columns.
//!
//! A batch's way: `check` (NOT NULL, the table's schema) → `route` (one pass: time slice × hash slot → chunk) →
//! `blocks` (Arrow IPC bodies, bounded, by node) → `Staging` (to the nodes, a bounded number at a time).
//! Rows to be removed come as the addresses a scan gave them and go the same way (`removal`).
//! Where a row's chunk does not exist yet, `NewChunks` makes it: one for all transactions that need it at once.

mod blocks;
mod check;
pub mod copy;
mod new_chunks;
mod removal;
mod route;
mod staging;

pub(crate) use blocks::blocks;
pub(crate) use check::{check, check_nulls};
pub(crate) use new_chunks::{NewChunks, Site};
pub(crate) use removal::{Addresses, Met};
pub use route::route;
pub(crate) use staging::Staging;
