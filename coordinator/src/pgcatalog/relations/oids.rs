//! OIDs. Tables, views, schemas, roles, databases and data nodes bring their own, all below 2^29.

use proto::{ChunkId, TableId};

pub(crate) const PG_CATALOG: u32 = 11;
pub(crate) const PG_TOAST: u32 = 99;
pub(crate) const INFORMATION_SCHEMA: u32 = 13_200;
pub(crate) const TIMESCALEDB_INFORMATION: u32 = 15_101;
pub(crate) const TIMESCALEDB_EXPERIMENTAL: u32 = 15_102;
pub(crate) const TIMESCALEDB_INTERNAL: u32 = 15_103;
pub(crate) const TIMESCALEDB_FUNCTIONS: u32 = 15_104;
pub(crate) const SERIATIM_INFORMATION: u32 = 15_105;
pub(crate) const TIMESCALEDB_FDW: u32 = 15_111;
pub(crate) const TIMESCALEDB_EXTENSION: u32 = 15_112;
pub(crate) const PLPGSQL_EXTENSION: u32 = 13_559;
pub(crate) const INSERT_BLOCKER: u32 = 15_121;
/// PostgreSQL's own.
pub(crate) const HEAP: u32 = 2;
pub(crate) const BTREE: u32 = 403;
pub(crate) const DEFAULT_TABLESPACE: u32 = 1663;
pub(crate) const DEFAULT_COLLATION: u32 = 100;
pub(crate) const C_COLLATION: u32 = 950;

/// TimescaleDB's functions, in the order they are listed.
const FUNCTIONS: u32 = 15_200;

pub(crate) fn function(position: usize) -> u32 {
    FUNCTIONS + position as u32
}

pub(crate) fn function_position(oid: i64) -> Option<usize> {
    usize::try_from(oid.checked_sub(i64::from(FUNCTIONS))?).ok()
}

pub(crate) fn chunk(id: ChunkId) -> u32 {
    0x4000_0000 | id.0
}

/// Index `number` of a table, below 4.
pub(crate) fn index(table: TableId, number: u32) -> u32 {
    0x8000_0000 | table.0 << 2 | number
}

pub(crate) fn trigger(table: TableId) -> u32 {
    0x3000_0000 | table.0
}

/// The constraint that an index serves.
pub(crate) fn constraint(index: u32) -> u32 {
    0x5000_0000 | index
}
