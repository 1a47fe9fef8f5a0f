//! One client's conversation from the first ReadyForQuery to its end: reads a message, answers it, and decides what an
//! error means for what follows. Simple queries are here; `extended`, `copy` and `rows` add their parts.
//!
//! Invariants
//! - An answer that has not gone out when its implicit transaction fails to commit never does.
//! - Answers of statements whose rows were gathered are held back until the rows are written; nothing flushes till then.
//! - Output is flushed at ReadyForQuery, Flush, before waiting for COPY data, and when much has gathered; never per message.
//! - After an error in an extended message nothing is answered until Sync.
//! - Every error has passed through `Conversation::fail` before the client learns of it.

use super::attention::Attention;
use super::backend::{Conversation, Outcome, Prepared, Statement};
use super::cancel::Running;
use super::extended::Portals;
use super::failure::{End, Failure};
use super::frontend::{Frame, Frontend, is_extended};
use super::report::{Gravity, error_response, notice_response, ready_for_query, row_description};
use super::rows::{Format, Progress, RowSource};
use super::wire::{Inlet, Outlet};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use pgwire::messages::startup::ParameterStatus;
use proto::{Error, SqlState};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(super) struct Connection {
    pub(super) inlet: Inlet,
    pub(super) outlet: Outlet,
    pub(super) conversation: Box<dyn Conversation>,
    /// Ends this connection: the server's shutdown or `pg_terminate_backend`.
    pub(super) shutdown: CancellationToken,
    /// Fired by a cancel request that comes while the current message is worked on.
    cancel: CancellationToken,
    running: Arc<Running>,
    message_bytes_max: usize,
    pub(super) unnamed: Option<Prepared>,
    pub(super) portals: Portals,
    /// Where the answers begin that wait until the rows of their statements are written.
    pub(super) held: Option<usize>,
    /// Where, after how many flushes, the first statement of an implicit transaction was answered that is not committed.
    pub(super) promised: Option<(u64, usize)>,
}

/// What follows an answered message.
pub(super) enum Then {
    Continue,
    Ready,
}

impl Connection {
    pub(super) fn new(
        inlet: Inlet,
        outlet: Outlet,
        conversation: Box<dyn Conversation>,
        shutdown: CancellationToken,
        running: Arc<Running>,
        message_bytes_max: usize,
    ) -> Connection {
        Connection {
            inlet,
            outlet,
            conversation,
            shutdown,
            cancel: CancellationToken::new(),
            running,
            message_bytes_max,
            unnamed: None,
            portals: Portals::default(),
            held: None,
            promised: None,
        }
    }

    /// Serves the client until one of both ends it. The session is closed on return.
    pub(super) async fn serve(mut self) -> (Outlet, End) {
        let end = match self.converse().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.take_promises_back();
        // Streams first: they may hold what `close` wants to release.
        self.portals.clear();
        self.conversation.close().await;
        (self.outlet, end)
    }

    async fn converse(&mut self) -> Result<std::convert::Infallible, End> {
        self.ready().await?;
        let mut skip_to_sync = false;
        loop {
            let frame = self.next_frame().await?;
            let kind = frame.kind;
            match kind {
                // What a client still sends after its COPY failed.
                b'd' | b'c' | b'f' => continue,
                b'S' => skip_to_sync = false,
                b'X' => {}
                _ if skip_to_sync => continue,
                _ => {}
            }
            self.cancel = self.running.start();
            let answered = match Frontend::decode(frame) {
                Ok(message) => self.answer(message).await,
                Err(error) => Err(error.into()),
            };
            let answered = self.after_held(answered).await;
            self.running.end();
            match answered {
                Ok(Then::Continue) => {}
                Ok(Then::Ready) => self.ready().await?,
                Err(Failure::Statement(error)) => {
                    self.failed(&error).await?;
                    match is_extended(kind) {
                        true => skip_to_sync = true,
                        false => self.ready().await?,
                    }
                }
                Err(Failure::End(end)) => return Err(end),
            }
        }
    }

    async fn next_frame(&mut self) -> Result<Frame, End> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(End::shutdown()),
            frame = self.inlet.frame(self.message_bytes_max) => frame,
        }
    }

    async fn answer(&mut self, message: Frontend) -> Result<Then, Failure> {
        // What a pipeline of one statement consists of; Execute looks for itself.
        let goes_on = matches!(
            message,
            Frontend::Bind(_) | Frontend::Describe(_) | Frontend::Close(_) | Frontend::Execute { .. }
        );
        if !goes_on {
            self.release().await?;
        }
        match message {
            Frontend::Query { sql } => self.simple_query(&sql).await.map(|()| Then::Ready),
            Frontend::Parse { name, sql, param_types } => self.parse(name, &sql, &param_types).await,
            Frontend::Bind(bind) => self.bind(bind),
            Frontend::Describe(target) => self.describe(&target),
            Frontend::Execute { portal, rows_max } => self.execute_portal(portal, rows_max).await,
            Frontend::Close(target) => self.close(&target),
            Frontend::Flush => {
                let mut attention = self.attention();
                attention.watch(&mut self.inlet, self.outlet.flush()).await??;
                Ok(Then::Continue)
            }
            Frontend::Sync => {
                self.end_group().await?;
                Ok(Then::Ready)
            }
            Frontend::Terminate => Err(End::Gone.into()),
            Frontend::FunctionCall => Err(Error::unsupported("the function call protocol").into()),
            Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail { .. } => Ok(Then::Continue),
        }
    }

    /// Writes the rows that were gathered; from then on their statements are answered.
    ///
    /// # Errors
    /// None of them is answered: the error takes the place of the first.
    pub(super) async fn release(&mut self) -> Result<(), Failure> {
        let Some(mark) = self.held.take() else { return Ok(()) };
        let mut attention = self.attention();
        let written = attention.watch(&mut self.inlet, self.conversation.write_gathered()).await;
        let written = written.and_then(|written| Ok(written?));
        written.inspect_err(|_| self.outlet.take_back(mark))
    }

    /// A statement that failed does so after those before it.
    async fn after_held(&mut self, answered: Result<Then, Failure>) -> Result<Then, Failure> {
        if let Err(Failure::Statement(_)) = &answered {
            self.release().await?;
        }
        answered
    }

    /// Statement by statement, inside one implicit transaction that ends before the last one's CommandComplete.
    async fn simple_query(&mut self, sql: &str) -> Result<(), Failure> {
        self.unnamed = None;
        self.portals.remove("");
        let statements = self.conversation.parse(sql)?;
        let Some(last) = statements.len().checked_sub(1) else {
            self.end_group().await?;
            self.outlet.feed(&EmptyQueryResponse::new())?;
            return Ok(());
        };
        for (place, statement) in statements.iter().enumerate() {
            let tag = self.simple_statement(statement).await?;
            if place == last {
                self.end_group().await?;
            }
            self.feed_notices()?;
            self.outlet.feed(&CommandComplete::new(tag))?;
        }
        Ok(())
    }

    /// Returns the command tag.
    async fn simple_statement(&mut self, statement: &Statement) -> Result<String, Failure> {
        let mut attention = self.attention();
        let prepared = attention.watch(&mut self.inlet, self.conversation.prepare(statement, &[])).await??;
        if !prepared.params.is_empty() {
            return Err(Error::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1").into());
        }
        match self.run(&prepared, Vec::new(), &mut attention).await? {
            Outcome::Rows { columns, stream, tag } => {
                self.outlet.feed(&row_description(&columns, |_| Format::Text.code()))?;
                let formats = vec![Format::Text; columns.len()];
                let mut source = RowSource::new(columns, stream, tag);
                let progress = self.send_rows(&mut source, &formats, None, &mut attention).await?;
                assert!(progress == Progress::Finished, "rows without a limit are sent to their end");
                Ok(source.tag())
            }
            other => self.finish_without_rows(other, &mut attention).await,
        }
    }

    /// Runs a statement; interrupted unless it must not be.
    pub(super) async fn run(
        &mut self,
        prepared: &Prepared,
        params: Vec<datafusion::scalar::ScalarValue>,
        attention: &mut Attention,
    ) -> Result<Outcome, Failure> {
        let era = self.conversation.era();
        let execution = self.conversation.execute(prepared, params);
        let outcome = match prepared.statement.interruptible {
            true => attention.watch(&mut self.inlet, execution).await??,
            false => execution.await?,
        };
        if self.conversation.era() != era {
            self.close_dead_portals();
        }
        self.feed_notices()?;
        Ok(outcome)
    }

    /// What a statement returned, where that is no rows. Returns the command tag.
    pub(super) async fn finish_without_rows(
        &mut self,
        outcome: Outcome,
        attention: &mut Attention,
    ) -> Result<String, Failure> {
        match outcome {
            Outcome::Done { tag } => Ok(tag),
            Outcome::CopyIn(sink) => self.copy_in(sink, attention).await,
            Outcome::CopyOut { columns_count, format, stream } => {
                self.copy_out(columns_count, format, stream, attention).await
            }
            Outcome::Rows { .. } => unreachable!("rows are sent by the caller"),
        }
    }

    /// The end of a query string or Sync: ends the implicit transaction. Portals do not outlive a transaction.
    async fn end_group(&mut self) -> Result<(), Failure> {
        self.portals.end_of_transaction(self.conversation.transaction_status());
        let committed = self.conversation.sync().await;
        match &committed {
            Ok(()) => self.promised = None,
            Err(_) => self.take_promises_back(),
        }
        Ok(committed?)
    }

    /// Statements of an implicit transaction are answered before it is committed. As far as their answers are still
    /// here, a client never sees those of one that was not: some take the first for the whole.
    fn take_promises_back(&mut self) {
        if let Some((flushes, mark)) = self.promised.take()
            && self.outlet.holds(flushes, mark)
        {
            self.outlet.take_back(mark);
        }
    }

    pub(super) fn attention(&self) -> Attention {
        Attention::start(self.shutdown.clone(), self.cancel.clone(), self.conversation.statement_timeout())
    }

    pub(super) async fn read_frame(&mut self, attention: &mut Attention) -> Result<Frame, Failure> {
        Ok(attention.guard(self.inlet.frame(self.message_bytes_max)).await??)
    }

    pub(super) fn feed_notices(&mut self) -> Result<(), Error> {
        let notices = self.conversation.take_notices();
        notices.iter().try_for_each(|notice| self.outlet.feed(&notice_response(notice)))
    }

    async fn failed(&mut self, error: &Error) -> Result<(), End> {
        self.conversation.fail().await;
        self.close_dead_portals();
        self.feed_notices()?;
        Ok(self.outlet.feed(&error_response(error, Gravity::Error))?)
    }

    fn close_dead_portals(&mut self) {
        let conversation = &self.conversation;
        self.portals.keep(|era| conversation.is_alive(era));
    }

    async fn ready(&mut self) -> Result<(), End> {
        self.feed_notices()?;
        for (name, value) in self.conversation.take_parameter_changes() {
            self.outlet.feed(&ParameterStatus::new(name, value))?;
        }
        self.outlet.feed(&ready_for_query(self.conversation.transaction_status()))?;
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(End::shutdown()),
            flushed = self.outlet.flush() => flushed,
        }
    }
}
