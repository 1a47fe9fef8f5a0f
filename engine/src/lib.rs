//! The meaning of SQL: Postgres types over Arrow, functions, DataFusion set up to answer as PostgreSQL does, and the
//! distribution of a plan over nodes.
//!
//! It is not a server and not a store: it opens no socket (nodes are reached through `proto::DataNode`), reads no file
//! (chunks are read through `ChunkStore`), and keeps no catalog (relations are looked up through `Relations`).
//!
//! Rooms: `types` (Postgres types and their text and binary forms) · `functions` (what DataFusion lacks) · `semantics`
//! (where DataFusion and PostgreSQL differ, PostgreSQL wins) · `gapfill` (rows for empty buckets) · `plan` (provider, scan, fragmenter, exchange, explain).
//!
//! Invariants
//! - No scan ever declares hash partitioning: DataFusion would take it for its own hash and join wrongly.
//! - Every query returns the same rows with push-down on and off.
//! - Arrow times are microseconds; `timestamptz` columns are `Timestamp(Microsecond, "UTC")`; text is `Utf8`.

pub mod functions;
mod gapfill;
pub mod placement;
pub mod plan;
pub mod semantics;
pub mod settings;
pub mod table;
pub mod types;

pub use settings::{Settings, Shuffling};
pub use table::{ChunkDef, ColumnDef, Compression, Hypertable, KeyDef, KeyKind, Ordering, SpaceDimension, TableDef};
pub use types::PgType;
