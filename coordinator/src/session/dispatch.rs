//! A statement to whoever runs it.

use super::explain::ExplainPlan;
use super::parse::{Command, Parsed};
use super::query::QueryPlan;
use super::shape::Shape;
use super::{Session, copy, define, explain, query, savepoint, utility, write};
use crate::pg::backend::{Outcome, OutputColumn, Prepared};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::Statement;
use engine::PgType;
use proto::{Error, Result, SqlState};
use std::sync::Arc;

/// What preparing a statement found out, kept for its execution.
pub(super) enum Plan {
    Query(Arc<QueryPlan>),
    /// One that is shared, and the values of its parameters.
    Shared(Arc<Shape>, Arc<[ScalarValue]>),
    Write(Arc<write::WritePlan>),
    Explain(Arc<ExplainPlan>),
    /// Nothing worth keeping.
    Utility,
}

pub(super) struct Typed {
    pub params: Vec<PgType>,
    /// `None` when the statement returns no rows.
    pub columns: Option<Vec<OutputColumn>>,
    pub plan: Plan,
}

impl Typed {
    fn utility(columns: Option<Vec<OutputColumn>>) -> Typed {
        Typed { params: Vec::new(), columns, plan: Plan::Utility }
    }
}

/// A cancel must not make the client doubt whether a transaction ended.
pub(super) fn is_interruptible(command: &Command) -> bool {
    !matches!(command, Command::Sql(Statement::Commit { .. } | Statement::Rollback { .. }))
}

/// What a failed block still accepts: its end, and the way back to a savepoint.
pub(super) fn leaves_failed_block(command: &Command) -> bool {
    matches!(command, Command::Sql(Statement::Commit { .. } | Statement::Rollback { .. }))
}

pub(super) async fn prepare(session: &mut Session, parsed: &Parsed, declared: &[Option<PgType>]) -> Result<Typed> {
    let Command::Sql(statement) = &parsed.command else { return Ok(Typed::utility(None)) };
    if let Some(writing) = write::Write::of(statement)? {
        let plan = write::prepare(session, &writing, declared).await?;
        return Ok(Typed { params: plan.params(), columns: plan.columns(), plan: Plan::Write(Arc::new(plan)) });
    }
    Ok(match statement {
        Statement::Query(_) => {
            let plan = query::prepare(session, statement, declared).await?;
            Typed { params: plan.params(), columns: Some(plan.columns()), plan: Plan::Query(Arc::new(plan)) }
        }
        Statement::Explain { .. } => {
            let plan = explain::prepare(session, statement, declared).await?;
            Typed { params: plan.params(), columns: Some(plan.columns()), plan: Plan::Explain(Arc::new(plan)) }
        }
        Statement::ShowVariable { variable } => Typed::utility(Some(utility::show_columns(variable))),
        Statement::Fetch { name, .. } => Typed::utility(session.cursors.columns(&super::parse::fold(name))),
        Statement::Execute { .. } => Typed::utility(utility::execute_columns(session, statement)),
        _ => Typed::utility(None),
    })
}

pub(super) async fn execute(
    session: &mut Session,
    parsed: &Parsed,
    plan: Option<&Plan>,
    prepared: &Prepared,
    params: Vec<ScalarValue>,
) -> Result<Outcome> {
    match (&parsed.command, plan) {
        (_, Some(Plan::Query(plan))) => query::run(session, plan, &params, prepared.columns.clone()).await,
        (_, Some(Plan::Shared(shape, values))) => {
            query::run(session, &shape.plan, values, prepared.columns.clone()).await
        }
        (Command::Sql(statement), Some(Plan::Write(plan))) => write::run(session, statement, plan, &params).await,
        (Command::Sql(statement), Some(Plan::Explain(plan))) => explain::run(session, statement, plan, &params).await,
        (Command::Sql(statement), _) => execute_sql(session, statement).await,
        (Command::ServerUsage { grant, servers, grantees }, _) => {
            define::grant::server_usage(session, *grant, servers, grantees).await
        }
        (Command::Membership { grant, roles, members }, _) => {
            define::grant::membership(session, *grant, roles, members).await
        }
        (Command::TableOptions { table, if_exists, options }, _) => {
            define::set_table_options(session, table, *if_exists, options).await
        }
        (Command::Maintenance { tag }, _) => done(*tag),
        (Command::Refused { what }, _) => Err(Error::unsupported(what)),
    }
}

pub(super) fn done(tag: impl Into<String>) -> Result<Outcome> {
    Ok(Outcome::Done { tag: tag.into() })
}

async fn execute_sql(session: &mut Session, statement: &Statement) -> Result<Outcome> {
    match statement {
        Statement::StartTransaction { modes, begin, .. } => {
            utility::begin(session, modes, if *begin { "BEGIN" } else { "START TRANSACTION" })
        }
        Statement::Commit { .. } => utility::commit(session).await,
        Statement::Rollback { savepoint: None, .. } => utility::rollback(session).await,
        Statement::Rollback { savepoint: Some(name), .. } => savepoint::rollback_to(session, name).await,
        Statement::Savepoint { name } => savepoint::open(session, name).await,
        Statement::ReleaseSavepoint { name } => savepoint::release(session, name).await,
        Statement::Set(set) => utility::set(session, set).await,
        Statement::ShowVariable { variable } => utility::show(session, variable),
        Statement::Reset(reset) => utility::reset(session, reset),
        Statement::Discard { object_type } => utility::discard(session, object_type).await,
        Statement::Prepare { .. } => utility::prepare(session, statement).await,
        Statement::Execute { .. } => Box::pin(utility::execute(session, statement)).await,
        Statement::Deallocate { name, .. } => utility::deallocate(session, name),
        Statement::Declare { stmts } => utility::declare(session, stmts).await,
        Statement::Fetch { name, direction, .. } => utility::fetch(session, name, direction).await,
        Statement::Close { cursor } => utility::close(session, cursor),
        Statement::Explain { .. } => {
            let plan = explain::prepare(session, statement, &[]).await?;
            explain::run(session, statement, &plan, &[]).await
        }
        Statement::Copy { .. } => copy::run(session, statement).await,
        Statement::Call(_) => query::call(session, statement).await,
        Statement::Lock(_) => done("LOCK TABLE"),
        Statement::Merge(_) => Err(Error::unsupported("MERGE")),
        other => match define::run(session, other).await? {
            Some(outcome) => Ok(outcome),
            None => Err(unknown(other)),
        },
    }
}

fn unknown(statement: &Statement) -> Error {
    let text = statement.to_string();
    let words = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Error::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{words} is not supported yet"))
}
