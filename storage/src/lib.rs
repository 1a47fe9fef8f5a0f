//! Bytes on disk: log, delta, segments, manifest, recovery. Synchronous; no SQL, no DataFusion, no sockets, no tokio.
//!
//! What it is: the storage engine of a data node ([`Store`]), and two parts of it that the coordinator uses too: the
//! framed log ([`Log`]) and the door to the disk ([`Vfs`]).
//! What it is not: it does not know SQL types, who may read, or how transactions are decided. It keeps Arrow columns by
//! `ColumnId` and does what a coordinator tells it.
//!
//! Invariants
//! - All disk access goes through `vfs`; the clock and chance come as `proto::Clock` and `proto::Rng`.
//! - Every byte read back was checksummed; damage is an error that names file and offset, never missing rows.
//! - After a failed fsync nothing is retried: the store stops (`store`).
//! - Memory is bounded: `stage` waits, then fails, when unsealed rows take more than `StoreOptions::delta_bytes_max`.
//!   Removals of sealed rows are kept in memory beside it: a bit per row of a segment at most, and merging lets them go.
//!
//! A row's way: `Store::stage` appends the write's bytes to the log as they came and keeps arrays that point into them
//! (`store::write`) → `prepare`, `commit`: fsynced records; the arrays move into the chunk's `delta` with their
//! `CommitSeq` → `seal`: sorted into a Parquet file (`segment::write`), which the `manifest` then lists → the log before
//! it is removed → `merge`: small files become one. A reader (`store::scan`) takes segments and delta in one critical
//! section and needs no lock after it.
//!
//! A row's end: a scan gives its address → `stage` of a removal checks that nobody else removes it (`store::conflicts`)
//! and that it is still there → with the commit, sets of positions hide it (`deletes`) → `seal` writes them to a deletes
//! file → `merge` leaves the row out when no snapshot in use can see it. An update is a removal and a new row; that keys
//! stay unique is looked after when rows are staged (`store::uniqueness`).
//!
//! Choices a successor may wonder about
//! - Parquet with a `__seq` column, instead of an own format: any tool reads our files, and delta-packed commit numbers
//!   take almost nothing. Would change: a measurement that decoding is the bottleneck of single-series queries.
//! - One JSON manifest replaced as a whole: simple to make atomic and to read. Would change: tens of thousands of chunks
//!   on one node, when a seal rewrites megabytes.
//! - Keys are searched in segments by time and value ranges, without an index: rows in time order read nothing. Would
//!   change: many rows added out of order to a table with a key.
//! - Rows are removed where they are, by position, instead of by key: the writer pays nothing while rows are read, and
//!   a moved row is found out (40001). Would change: many conflicts between updates and sealing.

pub mod error;
pub mod failpoint;
pub mod log;
pub mod manifest;
pub mod store;
pub mod verify;
pub mod vfs;

mod deletes;
mod delta;
mod dump;
mod keys;
mod projection;
mod segment;

pub use dump::dump_segment;
pub use error::StorageError;
pub use log::{Log, LogOptions, Lsn};
pub use projection::ScanColumn;
pub use store::{ChunkScan, ScanRequest, Store, StoreOptions};
pub use verify::{Problem, verify};
pub use vfs::{Fault, RealVfs, SimVfs, Vfs};
