//! The session as the wire talks to it: parse, prepare, execute, and the ends of transactions.

use super::block::{Ending, State};
use super::dispatch::{self, Plan, Typed};
use super::parse::Parsed;
use super::shape::{self, Sighting};
use super::{Session, parse, write};
use crate::pg::backend::{
    Conversation, Gathered, Notice, Outcome, OutputColumn, Prepared, Statement, Statements, TransactionStatus,
};
use crate::session::variables::IDEMPOTENCY_KEY;
use crate::txn::Transaction;
use async_trait::async_trait;
use datafusion::scalar::ScalarValue;
use engine::PgType;
use engine::types::TimeContext;
use proto::{Error, Result, SqlState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[async_trait]
impl Conversation for Session {
    fn ended(&self) -> CancellationToken {
        self.cluster().ended_token()
    }

    fn parse(&mut self, sql: &str) -> Result<Vec<Statement>> {
        let mut sighting = shape::sight(self, sql);
        if let Some(sighting) = sighting.take_if(|sighting| sighting.any_shape().is_some()) {
            let text = sql.trim().trim_end_matches(';').into();
            return Ok(vec![Statement { text, interruptible: true, body: Some(Arc::new(sighting)) }]);
        }
        let mut parsed = parse::parse(sql)?;
        if let [only] = &mut parsed[..] {
            only.sighting = sighting.map(Arc::new);
        }
        let statements = parsed.into_iter().map(|parsed| Statement {
            text: parsed.text.as_str().into(),
            interruptible: dispatch::is_interruptible(&parsed.command),
            body: Some(Arc::new(parsed)),
        });
        Ok(statements.collect())
    }

    async fn prepare(&mut self, statement: &Statement, param_types: &[u32]) -> Result<Prepared> {
        let Some(parsed) = parsed_of(statement) else { return Ok(Prepared::empty()) };
        if !dispatch::leaves_failed_block(&parsed.command) {
            self.block.check_usable()?;
            self.refresh().await?;
        }
        let started_here = self.block.state == State::Idle;
        self.enter();
        let declared = param_types.iter().map(|oid| PgType::from_oid(*oid)).collect::<Vec<_>>();
        // What may write has not written yet.
        let wrote = self.wrote.load(Ordering::Relaxed);
        let prepared = match self.shared(statement, &parsed, &declared).await {
            Some(shared) => Ok(shared),
            None => {
                let parsed = parsed_anew(statement, &parsed)?;
                dispatch::prepare(self, &parsed, &declared).await.map_err(|error| parsed.locate(error))
            }
        };
        self.wrote.store(wrote, Ordering::Relaxed);
        if started_here && prepared.is_ok() {
            // Preparing reads the catalog and changes nothing: the transaction it needed ends with it.
            self.end(Ending::Commit).await?;
        }
        let prepared = prepared?;
        Ok(Prepared {
            statement: statement.clone(),
            params: prepared.params.into(),
            columns: prepared.columns.map(Into::into),
            body: Some(Arc::new(prepared.plan)),
        })
    }

    async fn execute(&mut self, prepared: &Prepared, params: Vec<ScalarValue>) -> Result<Outcome> {
        let Some(parsed) = parsed_of(&prepared.statement) else {
            return Err(Error::internal("an empty statement cannot be executed"));
        };
        if !dispatch::leaves_failed_block(&parsed.command) {
            self.block.check_usable()?;
            self.cluster().assured().await?;
            self.refresh().await?;
        }
        self.enter();
        self.note_activity(&prepared.statement.text);
        assert!(self.group.is_none(), "what was gathered is written before anything else");
        let mut plan = prepared.body.as_ref().and_then(|body| body.downcast_ref::<Plan>());
        let (mut own, mut own_plan) = (parsed, None);
        if let Some(Plan::Shared(shape, _)) = plan
            && !shape.is_valid(self).await
        {
            // Its constants may have other types now.
            own = parsed_anew(&prepared.statement, &own)?;
            let typed = dispatch::prepare(self, &own, &[]).await.map_err(|error| own.locate(error))?;
            if typed.columns.as_deref() != prepared.columns.as_deref() {
                return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type"));
            }
            plan = Some(own_plan.insert(typed.plan));
        }
        let outcome = dispatch::execute(self, &own, plan, prepared, params).await;
        outcome.map_err(|error| located(&prepared.statement, &own, error))
    }

    async fn gather(&mut self, prepared: &Prepared, params: &[ScalarValue]) -> Result<Option<Gathered>> {
        write::gather::gather(self, prepared, params).await
    }

    async fn write_gathered(&mut self) -> Result<()> {
        write::gather::write(self).await
    }

    async fn sync(&mut self) -> Result<()> {
        self.rest();
        match self.block.state {
            State::Implicit => self.end(Ending::Commit).await,
            State::Idle | State::Open | State::Failed => Ok(()),
        }
    }

    async fn fail(&mut self) {
        self.group = None;
        match self.block.state {
            State::Implicit => {
                // Rolling back asks nothing of anyone: what is left behind on nodes is aborted in the background.
                let _ = self.end(Ending::Rollback).await;
            }
            State::Open => {
                self.block.fail();
                // With savepoints a part of the transaction may be wanted still.
                if !self.block.has_savepoints() {
                    self.abandon().await;
                }
            }
            State::Idle | State::Failed => {}
        }
    }

    fn transaction_status(&self) -> TransactionStatus {
        match self.block.state {
            State::Idle | State::Implicit => TransactionStatus::Idle,
            State::Open => TransactionStatus::Block,
            State::Failed => TransactionStatus::Failed,
        }
    }

    fn era(&self) -> u64 {
        self.block.era()
    }

    fn is_alive(&self, era: u64) -> bool {
        self.block.is_alive(era)
    }

    fn statements(&mut self) -> &mut Statements {
        &mut self.statements
    }

    fn cursor_columns(&self, name: &str) -> Option<Vec<OutputColumn>> {
        self.cursors.columns(name)
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        let changes = match &self.told {
            Some(told) => self.variables.reported_changes(told),
            None => self.variables.reported(),
        };
        if self.told.is_none() || !changes.is_empty() {
            self.told = Some(self.variables.clone());
        }
        changes
    }

    fn time_context(&self) -> TimeContext {
        // SET let no zone in that cannot be read.
        TimeContext::of_session(&self.settings()).unwrap_or(TimeContext::UTC)
    }

    fn statement_timeout(&self) -> Option<Duration> {
        let millis = self.variables.raw("statement_timeout").parse::<u64>().unwrap_or(0);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    async fn close(&mut self) {
        self.abandon().await;
        self.front.activity.lock().remove(&self.pid);
    }
}

/// A statement as it was parsed; of one whose plan is shared, the one it was made of.
pub(super) fn parsed_of(statement: &Statement) -> Option<Arc<Parsed>> {
    match statement.body.clone()?.downcast::<Parsed>() {
        Ok(parsed) => Some(parsed),
        Err(body) => body.downcast_ref::<Sighting>()?.any_shape().map(|shape| shape.parsed.clone()),
    }
}

fn located(statement: &Statement, parsed: &Parsed, error: Error) -> Error {
    match statement.body.as_ref().and_then(|body| body.downcast_ref::<Sighting>()) {
        Some(sighting) => sighting.locate(&statement.text, error),
        None => parsed.locate(error),
    }
}

/// The statement itself, not the one its plan was made of.
fn parsed_anew(statement: &Statement, parsed: &Arc<Parsed>) -> Result<Arc<Parsed>> {
    match statement.body.as_ref().is_some_and(|body| body.is::<Sighting>()) {
        false => Ok(parsed.clone()),
        true => {
            let parsed = parse::parse(&statement.text)?.pop();
            parsed.map(Arc::new).ok_or_else(|| Error::internal("a statement that was read once is none any more"))
        }
    }
}

impl Session {
    /// The plan that statements of this shape share, with the values of this one.
    async fn shared(
        &mut self,
        statement: &Statement,
        parsed: &Arc<Parsed>,
        declared: &[Option<PgType>],
    ) -> Option<Typed> {
        let body = statement.body.as_ref()?;
        let sighting = body.downcast_ref::<Sighting>().or(parsed.sighting.as_deref())?;
        // Types for parameters that it does not have.
        if !sighting.is_parameterised() && !declared.is_empty() {
            return None;
        }
        let shape = match sighting.shape(declared) {
            Some(shape) => shape.clone(),
            None => sighting.learn(self, &*parsed_anew(statement, parsed).ok()?, declared).await?,
        };
        if !sighting.is_valid(self, &shape).await {
            return None;
        }
        let columns = Some(shape.columns.to_vec());
        if sighting.is_parameterised() {
            return Some(Typed { params: shape.plan.params(), columns, plan: Plan::Query(shape.plan.clone()) });
        }
        let values = sighting.values(&shape, &self.time_context())?;
        Some(Typed { params: Vec::new(), columns, plan: Plan::Shared(shape, values) })
    }

    /// A transaction begins, unless there is one.
    pub(super) fn enter(&mut self) {
        self.block.enter(&self.variables, self.front.clock.now_us());
    }

    /// Ends the transaction. Its settings are taken back or kept whatever becomes of its rows.
    pub(super) async fn end(&mut self, ending: Ending) -> Result<()> {
        self.cursors.close_all();
        let wrote = self.wrote.swap(false, Ordering::Relaxed);
        match ending {
            Ending::Rollback => {
                self.abandon().await;
                self.block.end(Ending::Rollback, &mut self.variables);
                Ok(())
            }
            Ending::Commit => {
                let committed = match self.transaction.take().map(Arc::into_inner) {
                    Some(Some(transaction)) => {
                        let mut transaction = transaction.into_inner();
                        if self.variables.raw("synchronous_commit") == "off" {
                            transaction.set_asynchronous();
                        }
                        self.commit(transaction, wrote).await
                    }
                    Some(None) => Err(Error::internal("a COPY still writes to the transaction that is to commit")),
                    None => Ok(()),
                };
                let ended = if committed.is_ok() { Ending::Commit } else { Ending::Rollback };
                self.block.end(ended, &mut self.variables);
                committed
            }
        }
    }

    /// An idempotency key is used up by the first transaction that may write, whether or not it found anything to change:
    /// else it would name the next one, which is another.
    async fn commit(&mut self, mut transaction: Transaction, wrote: bool) -> Result<()> {
        let key = self.variables.raw(IDEMPOTENCY_KEY).to_owned();
        if key.is_empty() || !wrote {
            return transaction.commit().await.map(drop);
        }
        if transaction.has_changes()
            && let Err(error) = transaction.set_key(&[&self.database, &self.session_user], &key)
        {
            transaction.abort().await;
            return Err(error);
        }
        transaction.commit().await?;
        self.variables.set(IDEMPOTENCY_KEY, "")
    }

    /// Rolls the open transaction's rows and definitions back; the block's state is the caller's.
    pub(super) async fn abandon(&mut self) {
        self.cursors.close_all();
        if let Some(transaction) = self.take_transaction() {
            transaction.abort().await;
        }
    }

    /// `None` also when a sink that was dropped late still holds the transaction: dropping that handle aborts it.
    fn take_transaction(&mut self) -> Option<crate::txn::Transaction> {
        self.transaction.take().and_then(Arc::into_inner).map(tokio::sync::Mutex::into_inner)
    }

    pub(super) fn note_activity(&self, text: &str) {
        if let Some(activity) = self.front.activity.lock().get_mut(&self.pid) {
            text.clone_into(&mut activity.query);
            activity.query_started_us = self.front.clock.now_us();
            activity.active = true;
        }
    }

    fn rest(&self) {
        if let Some(activity) = self.front.activity.lock().get_mut(&self.pid) {
            activity.active = false;
        }
    }
}
