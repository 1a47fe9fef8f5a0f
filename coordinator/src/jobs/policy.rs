//! Which chunks a job is about.

use crate::catalog::{Action, Age, CatalogState, Job};
use engine::types::TimeZone;
use engine::{ChunkDef, Hypertable, TableDef};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

pub(crate) type Due = (Arc<TableDef>, Hypertable, Vec<Arc<ChunkDef>>);

/// The chunks the job would work on now, oldest first: those to drop, or those old enough and not compressed yet.
///
/// # Errors
/// `TS001` when the table is no hypertable any more, `0A000` when its compression was switched off.
pub(crate) fn due_chunks(catalog: &CatalogState, job: &Job, now_us: i64) -> Result<Due> {
    let table = catalog.table_by_id(job.table).cloned();
    let found = table.and_then(|table| table.hypertable.clone().map(|hypertable| (table, hypertable)));
    let Some((table, hypertable)) = found else {
        return Err(Error::new(SqlState::HYPERTABLE_NOT_EXIST, "configuration hypertable id not found"));
    };
    let is_old = |chunk: &ChunkDef| match job.action.age() {
        Age::OfRows(age) => chunk.time.end() <= age.before(now_us, &TimeZone::UTC),
        Age::SinceMade(age) => chunk.created_us < age.before(now_us, &TimeZone::UTC),
    };
    let wanted = |chunk: &ChunkDef| match job.action {
        Action::Retention(_) => is_old(chunk),
        Action::Compression(_) => is_old(chunk) && !chunk.compressed,
    };
    if matches!(job.action, Action::Compression(_)) && hypertable.compression.is_none() {
        let message = format!("compression not enabled on hypertable \"{}\"", table.name);
        return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message));
    }
    let chunks = catalog.chunks(table.id).iter().filter(|chunk| wanted(chunk)).cloned().collect();
    Ok((table, hypertable, chunks))
}
