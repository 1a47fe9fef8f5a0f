//! INSERT, UPDATE, DELETE. Each becomes a query of the engine's whose rows say what is to be written; the session stages
//! it. Batches stay columns all the way.
//!
//! `target` the table and its rights · `insert`, `constants` (VALUES without a query), `gather` (many of them in one
//! write) · `set` SET lists · `change` UPDATE and DELETE · `conflict` ON CONFLICT ·
//! `returning` · `assign` values to columns.
//!
//! Invariants
//! - A statement does not see what it writes itself. Its queries read with the view of the transaction at its start: a
//!   transaction without rows of its own reads only what is committed, so its first writing statement stages while it
//!   reads; a later one, which must see the rows of those before it, reads to the end before it stages.
//! - Rows are removed before their successors are added.
//! - A statement returns when the nodes have taken all of its removals, and all of its rows where keys are checked.
//! - A statement that lost against a concurrent transaction runs again on a new snapshot, where it is the first of its
//!   transaction to write and has told the client nothing yet.

mod assign;
mod change;
mod conflict;
mod constants;
pub(super) mod gather;
mod insert;
mod returning;
mod set;
mod target;
#[cfg(test)]
mod tests;

pub(super) use assign::{Shape, target_columns};
pub(super) use target::{Writing, writable_table};

use super::block::{Isolation, State};
use super::dispatch::done;
use super::{Session, query};
use crate::catalog::CatalogState;
use crate::pg::backend::{Outcome, OutputColumn, Tag};
use crate::txn::Savepoint;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use change::ChangePlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{Delete, Insert, Query, SetExpr, Statement, Update, With};
use engine::plan::{ExplainOptions, Explained, Memory};
use engine::{PgType, TableDef};
use futures::StreamExt;
use insert::{InsertPlan, Way};
use proto::{Error, Result, SqlState};
use returning::Returning;
use std::borrow::Cow;
use std::time::Duration;

/// How often a statement that lost against another transaction runs again.
const RETRIES_MAX: u32 = 12;

/// A statement that writes, and the WITH in front of it.
pub(super) struct Write<'a> {
    with: Option<&'a With>,
    body: Body<'a>,
}

enum Body<'a> {
    Insert(&'a Insert),
    Update(&'a Update),
    Delete(&'a Delete),
}

impl<'a> Write<'a> {
    /// `None`: it does not write.
    ///
    /// # Errors
    /// 0A000 for a WITH that does.
    pub fn of(statement: &'a Statement) -> Result<Option<Write<'a>>> {
        let (with, statement) = match statement {
            Statement::Query(query) => {
                refuse_writing_with(query)?;
                match &*query.body {
                    SetExpr::Insert(body) | SetExpr::Update(body) | SetExpr::Delete(body) => {
                        (query.with.as_ref(), body)
                    }
                    _ => return Ok(None),
                }
            }
            other => (None, other),
        };
        Ok(match statement {
            Statement::Insert(insert) => Some(Write { with, body: Body::Insert(insert) }),
            Statement::Update(update) => Some(Write { with, body: Body::Update(update) }),
            Statement::Delete(delete) => Some(Write { with, body: Body::Delete(delete) }),
            _ => None,
        })
    }
}

fn refuse_writing_with(query: &Query) -> Result<()> {
    let mut tables = query.with.iter().flat_map(|with| &with.cte_tables);
    let writes = |query: &Query| {
        matches!(*query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_))
    };
    match tables.any(|table| writes(&table.query)) {
        true => Err(Error::unsupported("a data-modifying statement in WITH")),
        false => Ok(()),
    }
}

pub(super) enum WritePlan {
    Insert(InsertPlan),
    Change(ChangePlan),
}

impl WritePlan {
    pub fn params(&self) -> Vec<PgType> {
        match self {
            WritePlan::Insert(plan) => plan.params(),
            WritePlan::Change(plan) => plan.params(),
        }
    }

    /// `None` without RETURNING.
    pub fn columns(&self) -> Option<Vec<OutputColumn>> {
        self.returning().map(Returning::columns)
    }

    fn returning(&self) -> Option<&Returning> {
        match self {
            WritePlan::Insert(plan) => plan.returning.as_ref(),
            WritePlan::Change(plan) => plan.returning.as_ref(),
        }
    }

    fn table(&self) -> &TableDef {
        match self {
            WritePlan::Insert(plan) => &plan.target.table,
            WritePlan::Change(plan) => &plan.target.table,
        }
    }

    fn command(&self) -> &'static str {
        match self {
            WritePlan::Insert(_) => "INSERT",
            WritePlan::Change(plan) => plan.writing.command(),
        }
    }

    fn tag(&self, rows: u64) -> String {
        match self {
            WritePlan::Insert(_) => format!("INSERT 0 {rows}"),
            WritePlan::Change(plan) => format!("{} {rows}", plan.writing.command()),
        }
    }

    /// Whether another run may end otherwise.
    fn is_lost_race(&self, error: &Error) -> bool {
        let upsert = matches!(self, WritePlan::Insert(plan) if plan.may_conflict());
        match error.code {
            // Two that wait for each other: the first to give up lets the other go on.
            SqlState::SERIALIZATION_FAILURE | SqlState::LOCK_NOT_AVAILABLE => true,
            SqlState::UNIQUE_VIOLATION => upsert,
            _ => false,
        }
    }

    /// An equal key that ON CONFLICT did not find was added by a transaction it could not see.
    fn blamed(&self, error: Error) -> Error {
        match self {
            WritePlan::Insert(plan) if error.code == SqlState::UNIQUE_VIOLATION && plan.looked_for(&error.message) => {
                let text = "could not serialize access due to concurrent update";
                Error::new(SqlState::SERIALIZATION_FAILURE, text).hint("The transaction might succeed if retried.")
            }
            _ => error,
        }
    }
}

/// # Errors
/// What PostgreSQL reports when it analyses the statement.
pub(super) async fn prepare(
    session: &mut Session,
    write: &Write<'_>,
    declared: &[Option<PgType>],
) -> Result<WritePlan> {
    prepare_by(session, write, declared, Way::Shortest).await
}

async fn prepare_by(
    session: &mut Session,
    write: &Write<'_>,
    declared: &[Option<PgType>],
    way: Way,
) -> Result<WritePlan> {
    Ok(match write.body {
        Body::Insert(insert) => WritePlan::Insert(insert::prepare(session, insert, write.with, declared, way).await?),
        Body::Update(update) => WritePlan::Change(change::update(session, update, write.with, declared).await?),
        Body::Delete(delete) => WritePlan::Change(change::delete(session, delete, write.with, declared).await?),
    })
}

/// # Errors
/// The transaction is then to be rolled back.
pub(super) async fn run(
    session: &mut Session,
    statement: &Statement,
    plan: &WritePlan,
    params: &[ScalarValue],
) -> Result<Outcome> {
    session.check_writable(plan.command())?;
    let renewed = renewed(session, statement, plan).await?;
    let plan = renewed.as_ref().unwrap_or(plan);
    let mut retries = 0;
    loop {
        let may_retry = retries < RETRIES_MAX && session.is_fresh().await;
        let done = match plan {
            WritePlan::Insert(plan) => insert::run(session, inserted(statement)?, plan, params).await,
            WritePlan::Change(plan) => change::run(session, plan, params).await,
        };
        match done {
            Ok(done) => return outcome(session, plan, params, done).await,
            Err(error) if may_retry && plan.is_lost_race(&error) => {}
            Err(error) => return Err(plan.blamed(error)),
        }
        begin_anew(session, retries).await?;
        retries += 1;
    }
}

/// After a race that was lost: a new transaction, after a while that grows. One with savepoints stays, as it was at its
/// start, with a new snapshot.
///
/// # Errors
/// Of a node that was lost.
async fn begin_anew(session: &mut Session, retries: u32) -> Result<()> {
    match &session.transaction {
        Some(transaction) if session.block.has_savepoints() => {
            transaction.lock().await.rollback_to(Savepoint::START).await?;
        }
        _ => session.abandon().await,
    }
    tokio::time::sleep(Duration::from_millis(1 << retries.min(6))).await;
    session.refresh().await
}

fn inserted(statement: &Statement) -> Result<&Insert> {
    match Write::of(statement)? {
        Some(Write { body: Body::Insert(insert), .. }) => Ok(insert),
        _ => Err(Error::internal("a plan to insert of a statement that does not")),
    }
}

/// The statement planned anew, if its table has another shape than when it was prepared.
async fn renewed(session: &mut Session, statement: &Statement, plan: &WritePlan) -> Result<Option<WritePlan>> {
    let catalog = session.catalog().await;
    if is_unchanged(&catalog, plan.table()) {
        return Ok(None);
    }
    let write = Write::of(statement)?.ok_or_else(|| Error::internal("a plan to write of a statement that does not"))?;
    let declared = plan.params().into_iter().map(Some).collect::<Vec<_>>();
    let renewed = prepare(session, &write, &declared).await?;
    match renewed.columns() == plan.columns() {
        true => Ok(Some(renewed)),
        false => Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type")),
    }
}

/// Whether a plan for the table as it was is good for it as it is.
fn is_unchanged(catalog: &CatalogState, before: &TableDef) -> bool {
    let is_same = |now: &TableDef| {
        (&now.columns, &now.keys, &now.hypertable) == (&before.columns, &before.keys, &before.hypertable)
    };
    catalog.table_by_id(before.id).is_some_and(|now| is_same(now))
}

async fn outcome(session: &mut Session, plan: &WritePlan, params: &[ScalarValue], written: Done) -> Result<Outcome> {
    let tag = plan.tag(written.rows);
    let Some(returning) = plan.returning() else { return done(tag) };
    let Kept { memory, batches } = written.kept;
    let stream = returning.rows(session, params, batches.unwrap_or_default()).await?;
    // The memory is taken until the last row has gone out.
    let stream = stream.map(move |batch| {
        let _ = &memory;
        batch
    });
    let columns = returning.columns().into();
    Ok(Outcome::Rows { columns, stream: stream.boxed(), tag: Tag::Bare(Cow::Owned(tag)) })
}

/// What a run has written.
struct Done {
    rows: u64,
    kept: Kept,
}

/// Rows a statement keeps beyond their batch, counted against the memory of queries.
struct Kept {
    memory: Memory,
    /// For RETURNING; `None` when nobody asks.
    batches: Option<Vec<RecordBatch>>,
}

impl Kept {
    fn new(session: &Session, returning: bool) -> Kept {
        Kept { memory: session.front.engine.memory("changed rows"), batches: returning.then(Vec::new) }
    }

    /// # Errors
    /// 53200 when there is no memory left for them.
    fn count(&self, batch: &RecordBatch) -> Result<()> {
        self.memory.grow(batch.get_array_memory_size())
    }

    /// Rows as RETURNING shows them.
    fn keep(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(batches) = &mut self.batches else { return Ok(()) };
        self.memory.grow(batch.get_array_memory_size())?;
        batches.push(batch.clone());
        Ok(())
    }
}

fn concat(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    concat_batches(schema, batches).map_err(|error| Error::internal(error.to_string()))
}

impl Session {
    /// Whether the transaction could begin anew without anybody noticing: nothing was written, no cursor reads, and each
    /// statement has its own snapshot anyway.
    async fn is_fresh(&mut self) -> bool {
        let snapshot_free = self.block.isolation == Isolation::ReadCommitted || self.block.state == State::Implicit;
        let transaction = self.transaction();
        let unchanged = !transaction.lock().await.has_changes();
        snapshot_free && unchanged && self.cursors.is_empty()
    }
}

/// For EXPLAIN: what is read, and what is then staged where.
///
/// # Errors
/// As of preparing it; `0A000` with ANALYZE.
pub(super) async fn explained(
    session: &mut Session,
    statement: &Statement,
    options: &ExplainOptions,
) -> Result<Explained> {
    let write = Write::of(statement)?.ok_or_else(|| Error::internal("not a statement that writes"))?;
    if options.analyze {
        return Err(Error::unsupported("EXPLAIN ANALYZE of a statement that writes"));
    }
    let plan = prepare_by(session, &write, &[], Way::Query).await?;
    let (node, read) = match &plan {
        WritePlan::Insert(plan) => {
            let source = plan.query().ok_or_else(|| Error::internal("an INSERT was planned without a query"))?;
            (plan.node(), query::explained(session, source, &[], &Vec::new(), options).await?)
        }
        WritePlan::Change(plan) => (plan.node(), plan.explained_read(session, options).await?),
    };
    Ok(Explained { root: node.over(read.root), ..read })
}
