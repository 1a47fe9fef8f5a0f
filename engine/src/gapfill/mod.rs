//! `time_bucket_gapfill`: after an aggregation by it, per combination of the other group keys a row for each bucket from
//! start to finish; `locf` and `interpolate` give those rows values.
//!
//! The life of such a statement: `rewrite` (the last analyzer rule) finds the aggregation, makes it one by `time_bucket`
//! and puts a `GapFill` (`node`) over it and its HAVING; calls of `locf` and `interpolate` above become columns of that
//! node. `range` reads start and finish out of WHERE. `planner` evaluates the constants into a `Filling` (`filling`) and plans a
//! [`GapFillExec`] (`exec`), which a data node may run as well (`plan::codec`). There `filler` decides which rows come
//! next and `made` turns them into arrays; `grid` knows where buckets start.
//!
//! It is not a join with a series: gaps are made while sorted groups pass, a batch at a time and only when somebody asks
//! for it, so that a tiny width over a long range takes time and no memory.
//!
//! Invariants
//! - The rows of the aggregation all come out again, those outside of start and finish too.
//! - Output is ordered by the other group keys, then by bucket.
//! - A filled row says nothing of the order in which its neighbours were read: it depends on the group's rows alone.

mod exec;
mod filler;
mod filling;
mod grid;
mod made;
mod node;
mod planner;
mod range;
mod rewrite;
#[cfg(test)]
mod tests;

pub use exec::GapFillExec;
pub use planner::Planner;
pub use rewrite::FillGaps;

use proto::{Error, SqlState};

/// What TimescaleDB says of an argument it cannot use.
fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid time_bucket_gapfill argument: {what}"))
}

const RANGE_HINT: &str = "Specify start and finish as arguments or in the WHERE clause.";
