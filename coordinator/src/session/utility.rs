//! Statements about the session itself: transaction control, settings, prepared statements, cursors.

use super::Session;
use super::block::{Ending, Isolation, State};
use super::conversation::parsed_of;
use super::dispatch::{self, Plan, done};
use super::parse::{Command, Parsed, fold};
use super::query::{rows_of, text_rows};
use crate::pg::backend::{Conversation, Notice, Outcome, OutputColumn, Prepared, Statement as WireStatement};
use crate::session::variables::DEFINITIONS;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    CloseCursor, ContextModifier, Declare, DeclareType, DiscardObject, Expr, FetchDirection, Ident, Reset,
    ResetStatement, Set, SetSessionAuthorizationParamKind, Statement, TransactionAccessMode, TransactionIsolationLevel,
    TransactionMode, Value as Literal,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use engine::PgType;
use futures::StreamExt;
use proto::{Error, Result, SqlState};
use std::sync::Arc;

pub(super) fn begin(session: &mut Session, modes: &[TransactionMode], tag: &'static str) -> Result<Outcome> {
    let now_us = session.front.clock.now_us();
    if !session.block.begin(&session.variables, now_us) {
        let code = SqlState::ACTIVE_SQL_TRANSACTION;
        session.notice(Notice::warning(code, "there is already a transaction in progress"));
    }
    set_modes(session, modes)?;
    done(tag)
}

fn set_modes(session: &mut Session, modes: &[TransactionMode]) -> Result<()> {
    for mode in modes {
        match mode {
            TransactionMode::AccessMode(TransactionAccessMode::ReadOnly) => session.block.read_only = true,
            TransactionMode::AccessMode(TransactionAccessMode::ReadWrite) => session.block.read_only = false,
            TransactionMode::IsolationLevel(level) => {
                let level = isolation(*level)?;
                if level != session.block.isolation && session.block.has_savepoints() {
                    let text = "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction";
                    return Err(Error::new(SqlState::ACTIVE_SQL_TRANSACTION, text));
                }
                session.block.isolation = level;
            }
        }
    }
    Ok(())
}

fn isolation(level: TransactionIsolationLevel) -> Result<Isolation> {
    match level {
        TransactionIsolationLevel::ReadUncommitted | TransactionIsolationLevel::ReadCommitted => {
            Ok(Isolation::ReadCommitted)
        }
        TransactionIsolationLevel::RepeatableRead | TransactionIsolationLevel::Snapshot => {
            Ok(Isolation::RepeatableRead)
        }
        TransactionIsolationLevel::Serializable => Err(Error::unsupported("isolation level SERIALIZABLE")
            .hint("REPEATABLE READ gives one snapshot of all nodes to a whole transaction.")),
    }
}

pub(super) async fn commit(session: &mut Session) -> Result<Outcome> {
    let ending = session.block.ending_of_commit();
    warn_outside_block(session);
    session.end(ending).await?;
    done(if ending == Ending::Commit { "COMMIT" } else { "ROLLBACK" })
}

pub(super) async fn rollback(session: &mut Session) -> Result<Outcome> {
    warn_outside_block(session);
    session.end(Ending::Rollback).await?;
    done("ROLLBACK")
}

fn warn_outside_block(session: &mut Session) {
    if matches!(session.block.state, State::Idle | State::Implicit) {
        let code = SqlState::NO_ACTIVE_SQL_TRANSACTION;
        session.notice(Notice::warning(code, "there is no transaction in progress"));
    }
}

pub(super) async fn set(session: &mut Session, set: &Set) -> Result<Outcome> {
    match set {
        Set::SingleAssignment { scope, variable, values, .. } => {
            let name = variable.to_string().to_lowercase().replace('"', "");
            let value = values.iter().map(setting_text).collect::<Vec<_>>().join(", ");
            assign(session, &name, value, *scope == Some(ContextModifier::Local)).await?;
        }
        Set::SetTimeZone { local, value } => assign(session, "timezone", setting_text(value), *local).await?,
        Set::SetRole { context_modifier, role_name } => {
            let role = role_name.as_ref().map_or("none".to_owned(), fold);
            assign(session, "role", role, *context_modifier == Some(ContextModifier::Local)).await?;
        }
        Set::SetNames { charset_name, .. } => {
            assign(session, "client_encoding", charset_name.value.clone(), false).await?;
        }
        Set::SetTransaction { modes, session: for_session, .. } => {
            if *for_session {
                set_defaults(session, modes)?;
            } else {
                set_modes(session, modes)?;
            }
        }
        Set::SetSessionAuthorization(param) => match &param.kind {
            SetSessionAuthorizationParamKind::Default => session.variables.reset("role")?,
            SetSessionAuthorizationParamKind::User(user) if fold(user) == session.session_user => {}
            SetSessionAuthorizationParamKind::User(_) => return Err(Error::unsupported("SET SESSION AUTHORIZATION")),
        },
        _ => {
            return Err(Error::unsupported(format!("\"SET {set}\"")));
        }
    }
    done("SET")
}

fn set_defaults(session: &mut Session, modes: &[TransactionMode]) -> Result<()> {
    for mode in modes {
        match mode {
            TransactionMode::AccessMode(access) => {
                let on = if *access == TransactionAccessMode::ReadOnly { "on" } else { "off" };
                session.variables.set("default_transaction_read_only", on)?;
            }
            TransactionMode::IsolationLevel(level) => {
                isolation(*level)?;
                let name = level.to_string().to_lowercase();
                session.variables.set("default_transaction_isolation", &name)?;
            }
        }
    }
    Ok(())
}

/// `SET x = 'a'`, `= a`, `= 5`, `= on`, `= DEFAULT` as one text.
fn setting_text(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Literal::SingleQuotedString(text) | Literal::EscapedStringLiteral(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(ident) => fold(ident),
        Expr::Interval(interval) => setting_text(&interval.value),
        other => other.to_string(),
    }
}

/// One setting, with the checks that need the catalog.
///
/// # Errors
/// Of the setting's domain; `42501` and `22023` for a role that may not be taken or does not exist.
pub(crate) async fn assign(session: &mut Session, name: &str, value: String, local: bool) -> Result<()> {
    if local && matches!(session.block.state, State::Idle | State::Implicit) {
        let message = "SET LOCAL can only be used in transaction blocks";
        session.notice(Notice::warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, message));
    }
    if local {
        session.block.remember_local(name, &session.variables);
    }
    if value.eq_ignore_ascii_case("default") {
        return session.variables.reset(name);
    }
    match name {
        "role" if value != "none" => check_role(session, &value).await?,
        "transaction_isolation" => {
            session.block.isolation = match value.to_lowercase().as_str() {
                "repeatable read" => Isolation::RepeatableRead,
                "serializable" => isolation(TransactionIsolationLevel::Serializable)?,
                _ => Isolation::ReadCommitted,
            };
        }
        "default_transaction_isolation" if value.eq_ignore_ascii_case("serializable") => {
            isolation(TransactionIsolationLevel::Serializable)?;
        }
        "transaction_read_only" => session.block.read_only = matches!(value.as_str(), "on" | "true" | "1"),
        _ => {}
    }
    session.variables.set(name, &value)?;
    if name == "role" {
        let catalog = session.catalog().await;
        let superuser = catalog.role(session.current_user()).is_ok_and(|role| role.superuser);
        session.variables.set_base("is_superuser", if superuser { "on" } else { "off" });
    }
    Ok(())
}

async fn check_role(session: &mut Session, role: &str) -> Result<()> {
    let catalog = session.catalog().await;
    if catalog.role(role).is_err() {
        let message = format!("role \"{role}\" does not exist");
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    let own = &session.session_user;
    let superuser = catalog.role(own).is_ok_and(|role| role.superuser);
    match superuser || catalog.memberships(own).iter().any(|member| member == role) {
        true => Ok(()),
        false => {
            let message = format!("permission denied to set role \"{role}\"");
            Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, message))
        }
    }
}

/// `SHOW TIME ZONE`, `SHOW transaction isolation level` and plain names.
fn shown_name(variable: &[Ident]) -> String {
    let words = variable.iter().map(|ident| ident.value.to_lowercase()).collect::<Vec<_>>();
    match words.join(" ").as_str() {
        "time zone" => "TimeZone".to_owned(),
        "transaction isolation level" => "transaction_isolation".to_owned(),
        "session authorization" => "session_authorization".to_owned(),
        _ => words.join("."),
    }
}

/// The column is named as the setting is spelled in its definition.
fn shown_column(name: &str) -> String {
    let known = DEFINITIONS.iter().find(|definition| definition.name.eq_ignore_ascii_case(name));
    known.map_or_else(|| name.to_owned(), |definition| definition.name.to_owned())
}

pub(super) fn show_columns(variable: &[Ident]) -> Vec<OutputColumn> {
    let names = match shown_name(variable).as_str() {
        "all" => vec!["name".to_owned(), "setting".to_owned(), "description".to_owned()],
        name => vec![shown_column(name)],
    };
    names.into_iter().map(|name| OutputColumn::computed(name, PgType::Text)).collect()
}

pub(super) fn show(session: &mut Session, variable: &[Ident]) -> Result<Outcome> {
    let name = shown_name(variable);
    if name != "all" {
        let value = match name.as_str() {
            "transaction_isolation" if session.block.isolation == Isolation::RepeatableRead => {
                "repeatable read".to_owned()
            }
            "transaction_read_only" if session.block.read_only => "on".to_owned(),
            _ => session.variables.show(&name)?,
        };
        return text_rows(&shown_column(&name), vec![value], "SHOW");
    }
    let all = session.variables.all();
    let texts: [Vec<String>; 3] = [
        all.iter().map(|shown| shown.name.clone()).collect(),
        all.iter().map(|shown| shown.value.clone()).collect(),
        all.iter().map(|shown| shown.description.to_owned()).collect(),
    ];
    let columns = show_columns(variable);
    let fields = columns.iter().map(|column| PgType::Text.field(&column.name, true)).collect::<Vec<_>>();
    let arrays = texts.into_iter().map(|text| Arc::new(StringArray::from(text)) as ArrayRef).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays);
    let batch = batch.map_err(|e| Error::internal(e.to_string()))?;
    let stream = futures::stream::iter([Ok(batch)]).boxed();
    Ok(Outcome::Rows { columns: columns.into(), stream, tag: crate::pg::backend::Tag::Bare("SHOW".into()) })
}

pub(super) fn reset(session: &mut Session, reset: &ResetStatement) -> Result<Outcome> {
    match &reset.reset {
        Reset::ALL => session.variables.reset_all(),
        Reset::ConfigurationParameter(name) => session.variables.reset(&name.to_string().replace('"', ""))?,
    }
    done("RESET")
}

pub(super) async fn discard(session: &mut Session, object: &DiscardObject) -> Result<Outcome> {
    if *object == DiscardObject::ALL {
        if matches!(session.block.state, State::Open) {
            let message = "DISCARD ALL cannot run inside a transaction block";
            return Err(Error::new(SqlState::ACTIVE_SQL_TRANSACTION, message));
        }
        session.cursors.close_all();
        session.statements.clear();
        session.variables.reset("role")?;
        session.variables.reset_all();
    }
    done(format!("DISCARD {object}"))
}

pub(super) async fn prepare(session: &mut Session, statement: &Statement) -> Result<Outcome> {
    let Statement::Prepare { name, data_types, statement } = statement else {
        return Err(Error::internal("not a PREPARE"));
    };
    let name = fold(name);
    session.statements.check_free(&name)?;
    let types = data_types.iter().map(|ty| super::define::column_type(ty).map(|ty| ty.oid()));
    let types = types.collect::<Result<Vec<_>>>()?;
    let text = statement.to_string();
    let parsed = Parsed { command: Command::Sql((**statement).clone()), text, offset: 0, sighting: None };
    let wire = WireStatement {
        text: parsed.text.as_str().into(),
        interruptible: dispatch::is_interruptible(&parsed.command),
        body: Some(Arc::new(parsed)),
    };
    let prepared = Box::pin(session.prepare(&wire, &types)).await?;
    session.statements.insert(&name, prepared)?;
    done("PREPARE")
}

fn executed<'a>(session: &'a Session, statement: &Statement) -> Result<&'a Prepared> {
    let Statement::Execute { name: Some(name), .. } = statement else {
        return Err(Error::unsupported("EXECUTE without a name"));
    };
    session.statements.get(&name.to_string().to_lowercase().replace('"', ""))
}

pub(super) fn execute_columns(session: &Session, statement: &Statement) -> Option<Vec<OutputColumn>> {
    executed(session, statement).ok()?.columns.as_ref().map(|columns| columns.to_vec())
}

pub(super) async fn execute(session: &mut Session, statement: &Statement) -> Result<Outcome> {
    let prepared = executed(session, statement)?.clone();
    let Statement::Execute { parameters, name, .. } = statement else { return Err(Error::internal("not an EXECUTE")) };
    if parameters.len() != prepared.params.len() {
        let name = name.as_ref().map(ToString::to_string).unwrap_or_default();
        let message = format!("wrong number of parameters for prepared statement \"{name}\"");
        let detail = format!("Expected {} parameters but got {}.", prepared.params.len(), parameters.len());
        return Err(Error::new(SqlState::SYNTAX_ERROR, message).detail(detail));
    }
    let values = constants(session, parameters, &prepared.params).await?;
    let Some(parsed) = parsed_of(&prepared.statement) else {
        return Err(Error::internal("a prepared statement keeps its text"));
    };
    let plan = prepared.body.clone();
    let plan = plan.as_ref().and_then(|body| body.downcast_ref::<Plan>());
    dispatch::execute(session, &parsed, plan, &prepared, values).await
}

/// What constant expressions evaluate to, each as a value of its parameter's type.
async fn constants(session: &mut Session, exprs: &[Expr], types: &[PgType]) -> Result<Vec<ScalarValue>> {
    if exprs.is_empty() {
        return Ok(Vec::new());
    }
    let items = exprs.iter().zip(types).map(|(expr, ty)| format!("CAST({expr} AS {ty})")).collect::<Vec<_>>();
    let mut parsed = super::parse::parse(&format!("SELECT {}", items.join(", ")))?;
    let Some(Parsed { command: Command::Sql(statement), .. }) = parsed.pop() else {
        return Err(Error::internal("a SELECT reads back as a statement"));
    };
    let (_, mut stream) = rows_of(session, &statement).await?;
    let batch = stream.next().await.transpose()?.ok_or_else(|| Error::internal("constants make one row"))?;
    let scalars = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0));
    scalars.collect::<Result<Vec<_>, _>>().map_err(|error| Error::internal(error.to_string()))
}

/// One constant expression, given as text.
pub(super) async fn constant(session: &mut Session, text: &str, ty: &PgType) -> Result<ScalarValue> {
    let expr = Parser::new(&PostgreSqlDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr());
    let expr = expr.map_err(|error| Error::internal(error.to_string()))?;
    let mut values = constants(session, &[expr], std::slice::from_ref(ty)).await?;
    values.pop().ok_or_else(|| Error::internal("one expression has one value"))
}

pub(super) fn deallocate(session: &mut Session, name: &Ident) -> Result<Outcome> {
    let folded = fold(name);
    if name.quote_style.is_none() && folded == "all" {
        session.statements.clear();
        return done("DEALLOCATE ALL");
    }
    session.statements.get(&folded)?;
    session.statements.remove(&folded);
    done("DEALLOCATE")
}

pub(super) async fn declare(session: &mut Session, declarations: &[Declare]) -> Result<Outcome> {
    let [declare] = declarations else { return Err(Error::unsupported("several cursors in one DECLARE")) };
    let (Some(DeclareType::Cursor), Some(query), [name]) =
        (&declare.declare_type, &declare.for_query, &declare.names[..])
    else {
        return Err(Error::unsupported("this form of DECLARE"));
    };
    if declare.hold == Some(true) {
        return Err(Error::unsupported("a cursor WITH HOLD"));
    }
    if declare.scroll == Some(true) {
        return Err(Error::unsupported("a SCROLL cursor"));
    }
    if session.block.state != State::Open {
        let message = "DECLARE CURSOR can only be used in transaction blocks";
        return Err(Error::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, message));
    }
    let (columns, stream) = rows_of(session, &Statement::Query(query.clone())).await?;
    session.cursors.declare(fold(name), columns, stream, session.block.era())?;
    done("DECLARE CURSOR")
}

pub(super) async fn fetch(session: &mut Session, name: &Ident, direction: &FetchDirection) -> Result<Outcome> {
    let count = |text: String| {
        let invalid = || Error::new(SqlState::SYNTAX_ERROR, format!("invalid FETCH count \"{text}\""));
        text.parse::<u64>().map_err(|_| invalid())
    };
    let limit = match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => 1,
        FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => count(limit.to_string())?,
        FetchDirection::All | FetchDirection::ForwardAll => u64::MAX,
        _ => {
            return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
                .hint("Declare it with SCROLL option to enable backward scan."));
        }
    };
    session.cursors.fetch(&fold(name), limit).await
}

pub(super) fn close(session: &mut Session, cursor: &CloseCursor) -> Result<Outcome> {
    match cursor {
        CloseCursor::All => session.cursors.close_all(),
        CloseCursor::Specific { name } => session.cursors.close(&fold(name))?,
    }
    done(if *cursor == CloseCursor::All { "CLOSE CURSOR ALL" } else { "CLOSE CURSOR" })
}
