//! Rows of consecutive executions of one prepared INSERT, written together: a client that sends many of them without
//! waiting for answers pays for one write.
//!
//! Values are read and NULLs refused at once, so that these errors belong to their statement. What only a node can find
//! is found when the rows are written, before any of their statements is answered.

use super::assign::Shape;
use super::constants::Rows;
use super::{RETRIES_MAX, WritePlan, inserted, is_unchanged};
use crate::catalog::CatalogState;
use crate::ingest::check_nulls;
use crate::pg::backend::{Gathered, Prepared};
use crate::session::Session;
use crate::session::conversation::parsed_of;
use crate::session::dispatch::Plan;
use crate::session::parse::Command;
use datafusion::scalar::ScalarValue;
use engine::TableDef;
use engine::types::TimeContext;
use proto::{Result, SqlState};
use std::any::Any;
use std::sync::Arc;

/// About a batch of a query's rows. The answers held back for them take 200 KB.
const ROWS_COUNT_MAX: usize = 8192;
/// Of texts among them; numbers take little beside.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// What was gathered and is not written yet.
pub struct Group {
    /// The prepared statement's plan.
    plan: Arc<dyn Any + Send + Sync>,
    table: Arc<TableDef>,
    /// The plan was good for it.
    catalog: Arc<CatalogState>,
    context: TimeContext,
    rows: Rows,
}

/// # Errors
/// Of the values. Rows before them are still to be written.
pub async fn gather(session: &mut Session, prepared: &Prepared, params: &[ScalarValue]) -> Result<Option<Gathered>> {
    let Some(body) = &prepared.body else { return Ok(None) };
    let Some(Plan::Write(plan)) = body.downcast_ref::<Plan>() else { return Ok(None) };
    let WritePlan::Insert(plan) = plan.as_ref() else { return Ok(None) };
    let Some(constants) = plan.constants() else { return Ok(None) };
    let parsed = parsed_of(&prepared.statement);
    let Some(Command::Sql(statement)) = parsed.as_ref().map(|parsed| &parsed.command) else { return Ok(None) };
    let insert = inserted(statement)?;
    if super::constants::rows_count(insert) != 1 {
        return Ok(None);
    }
    session.block.check_usable()?;
    session.refresh().await?;
    session.enter();
    if session.group.is_none() {
        session.note_activity(&prepared.statement.text);
    }
    session.check_writable("INSERT")?;
    let catalog = session.catalog().await;
    let context = TimeContext::of_session(&session.settings())?;
    let table = &plan.target.table;
    match &session.group {
        Some(group) if !Arc::ptr_eq(&group.plan, body) => return Ok(None),
        Some(group) if !Arc::ptr_eq(&group.catalog, &catalog) || group.context != context => return Ok(None),
        None if !is_unchanged(&catalog, table) => return Ok(None),
        _ => {}
    }
    let group = session.group.get_or_insert_with(|| Group {
        plan: Arc::clone(body),
        table: Arc::clone(table),
        catalog,
        context,
        rows: Rows::new(table, context, 0),
    });
    constants.append(insert, table, params, &mut group.rows)?;
    let rows = &mut group.rows;
    if let Err(error) = check_nulls(table, |place| rows.is_null(place)) {
        rows.retract();
        return Err(error);
    }
    let is_full = rows.count() >= ROWS_COUNT_MAX || rows.text_bytes() >= TEXT_BYTES_MAX;
    Ok(Some(Gathered { tag: "INSERT 0 1".to_owned(), is_full }))
}

/// # Errors
/// Of the nodes; the transaction is then to be rolled back.
pub async fn write(session: &mut Session) -> Result<()> {
    let Some(mut group) = session.group.take() else { return Ok(()) };
    let batch = group.rows.take(Shape::new(&group.table, group.context).schema())?;
    let mut retries = 0;
    loop {
        let may_retry = retries < RETRIES_MAX && session.is_fresh().await;
        match super::insert::store(session, &group.table, batch.clone()).await {
            Err(error) if may_retry && is_lost_race(error.code) => {}
            other => return other.map(drop),
        }
        super::begin_anew(session, retries).await?;
        retries += 1;
    }
}

fn is_lost_race(code: SqlState) -> bool {
    matches!(code, SqlState::SERIALIZATION_FAILURE | SqlState::LOCK_NOT_AVAILABLE)
}
