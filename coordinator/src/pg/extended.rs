//! The extended protocol: Parse, Bind, Describe, Execute, Close. Statements by name belong to the session, which shares
//! them with SQL's PREPARE; the unnamed statement and the portals live here.

use super::backend::{Gathered, Outcome, OutputColumn, Prepared, Statement, TransactionStatus};
use super::connection::{Connection, Then};
use super::encode::read_param;
use super::failure::Failure;
use super::frontend::{Bind, Target};
use super::report::row_description;
use super::rows::{Format, Progress, RowSource};
use datafusion::scalar::ScalarValue;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use proto::{Error, Result, SqlState};
use std::collections::HashMap;

/// Portals a connection may keep open.
const PORTALS_COUNT_MAX: usize = 1_000;

const DUPLICATE_CURSOR: SqlState = SqlState::new("42P03");

/// A statement with its parameters and result formats.
pub(super) struct Portal {
    era: u64,
    prepared: Prepared,
    formats: Vec<Format>,
    state: State,
}

enum State {
    Bound(Vec<ScalarValue>),
    Suspended(RowSource),
    /// With the tag of one more Execute, where that is allowed.
    Finished(Option<String>),
}

#[derive(Default)]
pub(super) struct Portals(HashMap<String, Portal>);

impl Portals {
    /// Binding the unnamed portal replaces it.
    fn insert(&mut self, name: String, portal: Portal) -> Result<()> {
        if !name.is_empty() && self.0.contains_key(&name) {
            return Err(Error::new(DUPLICATE_CURSOR, format!("cursor \"{name}\" already exists")));
        }
        if self.0.len() >= PORTALS_COUNT_MAX {
            let message = format!("a connection cannot keep more than {PORTALS_COUNT_MAX} portals open");
            return Err(Error::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, message));
        }
        self.0.insert(name, portal);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Portal> {
        self.0.remove(name)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Closes those of other eras.
    pub(super) fn keep(&mut self, is_alive: impl Fn(u64) -> bool) {
        self.0.retain(|_, portal| is_alive(portal.era));
    }

    /// Inside a transaction block portals stay.
    pub(super) fn end_of_transaction(&mut self, status: TransactionStatus) {
        if status == TransactionStatus::Idle {
            self.clear();
        }
    }
}

/// A parameter as PostgreSQL names it in the context of an error. The dots stand for a value in text, which is not
/// repeated where logs would keep it.
fn place_of_param(portal: &str, number: usize, format: Format) -> String {
    let portal = match portal {
        "" => "unnamed portal".to_owned(),
        name => format!("portal \"{name}\""),
    };
    match format {
        Format::Text => format!("{portal} parameter ${number} = '...'"),
        Format::Binary => format!("{portal} parameter ${number}"),
    }
}

fn no_portal(name: &str) -> Error {
    Error::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

impl Connection {
    pub(super) async fn parse(&mut self, name: String, sql: &str, param_types: &[u32]) -> Result<Then, Failure> {
        match name.is_empty() {
            true => self.unnamed = None,
            false => self.conversation.statements().check_free(&name)?,
        }
        let mut statements = self.conversation.parse(sql)?;
        let statement = statements.pop().unwrap_or_else(Statement::empty);
        if !statements.is_empty() {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(Error::new(SqlState::SYNTAX_ERROR, message).into());
        }
        let prepared = match statement.is_empty() {
            true => Prepared::empty(),
            false => {
                let mut attention = self.attention();
                let preparation = self.conversation.prepare(&statement, param_types);
                attention.watch(&mut self.inlet, preparation).await??
            }
        };
        match name.is_empty() {
            true => self.unnamed = Some(prepared),
            false => self.conversation.statements().insert(&name, prepared)?,
        }
        self.feed_notices()?;
        self.outlet.feed(&ParseComplete::new())?;
        Ok(Then::Continue)
    }

    fn statement(&mut self, name: &str) -> Result<Prepared> {
        if !name.is_empty() {
            return self.conversation.statements().get(name).cloned();
        }
        self.unnamed.clone().ok_or_else(|| {
            Error::new(SqlState::INVALID_SQL_STATEMENT_NAME, "unnamed prepared statement does not exist")
        })
    }

    pub(super) fn bind(&mut self, bind: Bind) -> Result<Then, Failure> {
        let prepared = self.statement(&bind.statement)?;
        let params = self.params(&bind, &prepared)?;
        let columns_count = prepared.columns.as_ref().map_or(0, |columns| columns.len());
        let formats = match (&prepared.columns, Format::spread(&bind.result_formats, columns_count)?) {
            (_, Some(formats)) => formats,
            // Codes for the columns of a statement that has none are no one's business.
            (None, None) => Vec::new(),
            (Some(_), None) => {
                let message = format!(
                    "bind message has {} result formats but query has {columns_count} columns",
                    bind.result_formats.len()
                );
                return Err(Error::new(SqlState::PROTOCOL_VIOLATION, message).into());
            }
        };
        let era = self.conversation.era();
        self.portals.insert(bind.portal, Portal { era, prepared, formats, state: State::Bound(params) })?;
        self.outlet.feed(&BindComplete::new())?;
        Ok(Then::Continue)
    }

    fn params(&mut self, bind: &Bind, prepared: &Prepared) -> Result<Vec<ScalarValue>> {
        let violation = |message| Error::new(SqlState::PROTOCOL_VIOLATION, message);
        let given = bind.params.len();
        let formats = Format::spread(&bind.param_formats, given)?.ok_or_else(|| {
            let codes = bind.param_formats.len();
            violation(format!("bind message has {codes} parameter formats but {given} parameters"))
        })?;
        if given != prepared.params.len() {
            return Err(violation(format!(
                "bind message supplies {given} parameters, but prepared statement \"{}\" requires {}",
                bind.statement,
                prepared.params.len()
            )));
        }
        let context = self.conversation.time_context();
        let values = bind.params.iter().zip(formats).zip(prepared.params.iter()).zip(1..);
        let read = values.map(|(((value, format), ty), number)| {
            let read = read_param(ty, format, value.as_deref(), &context);
            read.map_err(|error| error.context(place_of_param(&bind.portal, number, format)))
        });
        read.collect()
    }

    pub(super) fn describe(&mut self, target: &Target) -> Result<Then, Failure> {
        match target {
            Target::Statement(name) => {
                let prepared = self.statement(name)?;
                let types = prepared.params.iter().map(|ty| ty.oid()).collect();
                self.outlet.feed(&ParameterDescription::new(types))?;
                self.feed_columns(prepared.columns.as_deref(), |_| Format::Text.code())?;
            }
            Target::Portal(name) => match self.portals.0.get(name) {
                Some(portal) => {
                    let (columns, formats) = (portal.prepared.columns.clone(), portal.formats.clone());
                    self.feed_columns(columns.as_deref(), |place| formats[place].code())?;
                }
                None => {
                    let columns = self.conversation.cursor_columns(name).ok_or_else(|| no_portal(name))?;
                    self.feed_columns(Some(&columns), |_| Format::Text.code())?;
                }
            },
        }
        Ok(Then::Continue)
    }

    fn feed_columns(&mut self, columns: Option<&[OutputColumn]>, format: impl Fn(usize) -> i16) -> Result<()> {
        match columns {
            Some(columns) => self.outlet.feed(&row_description(columns, format)),
            None => self.outlet.feed(&NoData::new()),
        }
    }

    pub(super) async fn execute_portal(&mut self, name: String, rows_max: Option<u64>) -> Result<Then, Failure> {
        let Portal { era, prepared, formats, state } = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        if prepared.statement.is_empty() {
            self.outlet.feed(&EmptyQueryResponse::new())?;
            self.portals.insert(name, Portal { era, prepared, formats, state })?;
            return Ok(Then::Continue);
        }
        if let State::Bound(params) = &state
            && let Some(Gathered { tag, is_full }) = self.gather(&prepared, params).await?
        {
            let status = self.conversation.transaction_status();
            self.complete(tag, status)?;
            self.portals.insert(name, Portal { era, prepared, formats, state: State::Finished(None) })?;
            if is_full {
                self.release().await?;
            }
            return Ok(Then::Continue);
        }
        let mut attention = self.attention();
        let status_before = self.conversation.transaction_status();
        let outcome = match state {
            State::Bound(params) => match self.run(&prepared, params, &mut attention).await? {
                Outcome::Rows { columns, stream, tag } => {
                    check_plan_kept(&prepared, &columns)?;
                    Ok(RowSource::new(columns, stream, tag))
                }
                other => Err(self.finish_without_rows(other, &mut attention).await?),
            },
            State::Suspended(source) => Ok(source),
            State::Finished(Some(tag)) => Err(tag),
            State::Finished(None) => {
                let message = format!("portal \"{name}\" cannot be run");
                return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).into());
            }
        };
        let state = match outcome {
            Ok(mut source) => match self.send_rows(&mut source, &formats, rows_max, &mut attention).await? {
                Progress::Suspended => {
                    self.outlet.feed(&PortalSuspended::new())?;
                    State::Suspended(source)
                }
                Progress::Finished => {
                    self.complete(source.tag(), status_before)?;
                    State::Finished(source.tag_when_finished())
                }
            },
            Err(tag) => {
                let is_select = tag == "SELECT 0";
                self.complete(tag.clone(), status_before)?;
                State::Finished(is_select.then_some(tag))
            }
        };
        // COMMIT and ROLLBACK close all portals, this one among them.
        let status = self.conversation.transaction_status();
        match status_before != TransactionStatus::Idle && status == TransactionStatus::Idle {
            true => self.portals.clear(),
            false => self.portals.insert(name, Portal { era, prepared, formats, state })?,
        }
        Ok(Then::Continue)
    }

    /// `None`: the statement is to be run, and nothing is held back.
    async fn gather(&mut self, prepared: &Prepared, params: &[ScalarValue]) -> Result<Option<Gathered>, Failure> {
        let mark = self.outlet.mark();
        let mut gathered = self.conversation.gather(prepared, params).await?;
        if gathered.is_none() && self.held.is_some() {
            self.release().await?;
            gathered = self.conversation.gather(prepared, params).await?;
        }
        if gathered.is_some() {
            self.held.get_or_insert(mark);
        }
        Ok(gathered)
    }

    /// Outside a block before and behind it: what the statement did is not committed yet.
    fn complete(&mut self, tag: String, status_before: TransactionStatus) -> Result<()> {
        self.feed_notices()?;
        match (status_before, self.conversation.transaction_status()) {
            (TransactionStatus::Idle, TransactionStatus::Idle) => {
                let mark = (self.outlet.flushes_count(), self.outlet.mark());
                self.promised.get_or_insert(mark);
            }
            // A COMMIT, also of what came before its BEGIN.
            (_, TransactionStatus::Idle) => self.promised = None,
            _ => {}
        }
        self.outlet.feed(&CommandComplete::new(tag))
    }

    /// Closing what does not exist is no error.
    pub(super) fn close(&mut self, target: &Target) -> Result<Then, Failure> {
        match target {
            Target::Statement(name) if name.is_empty() => self.unnamed = None,
            Target::Statement(name) => drop(self.conversation.statements().remove(name)),
            Target::Portal(name) => drop(self.portals.remove(name)),
        }
        self.outlet.feed(&CloseComplete::new())?;
        Ok(Then::Continue)
    }
}

/// The client was told the columns when the statement was described; a change since then would be misread.
fn check_plan_kept(prepared: &Prepared, columns: &[OutputColumn]) -> Result<()> {
    let told = prepared.columns.as_deref().unwrap_or_default();
    let same = |(told, now): (&OutputColumn, &OutputColumn)| told.ty == now.ty && told.name == now.name;
    match told.len() == columns.len() && told.iter().zip(columns).all(same) {
        true => Ok(()),
        false => Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type")),
    }
}
