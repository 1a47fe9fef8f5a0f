//! What the wire asks of the session behind it. The wire knows messages, portals, formats and cancellation; the session
//! knows SQL, transactions and roles. The session implements [`Frontdoor`] and [`Conversation`]; tests put a fake there.
//!
//! Who does what: the wire calls `execute` (or `gather`, for rows that can wait), sends what comes out of the
//! [`Outcome`], then calls [`Conversation::sync`] at the end of a query string or at Sync, and [`Conversation::fail`]
//! after every error, its own included. It never asks what a statement means.

use super::scram::Verifier;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::scalar::ScalarValue;
use engine::PgType;
use engine::types::TimeContext;
use futures::stream::BoxStream;
use proto::{Error, Result, SqlState};
use std::any::Any;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The parameters a client is told at connection and on every change, in PostgreSQL 15's spelling and order.
pub const REPORTED_PARAMETERS: [&str; 13] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// Named statements one connection may keep.
const STATEMENTS_COUNT_MAX: usize = 10_000;

/// One per server: lets clients in.
#[async_trait]
pub trait Frontdoor: Send + Sync + 'static {
    /// How this client proves who it is. Asked before anything about the role may be told: for an unknown role return
    /// `Scram { verifier: Verifier::mock(..), known: false }`.
    fn authentication(&self, user: &str, database: &str, peer: Option<SocketAddr>) -> Authentication;

    /// Opens the session of an authenticated client.
    ///
    /// # Errors
    /// Reported as FATAL: `3D000`, `28000`, a bad start-up parameter.
    async fn connect(&self, startup: Startup) -> Result<Box<dyn Conversation>>;
}

pub enum Authentication {
    Trust,
    /// `known: false` runs the whole exchange and then fails as a wrong password does.
    Scram {
        verifier: Verifier,
        known: bool,
    },
    /// No rule admits the client.
    Refuse(Error),
}

/// What the client said when it connected.
#[derive(Debug, Clone)]
pub struct Startup {
    pub user: String,
    /// The user's name when the client named none.
    pub database: String,
    /// Every other parameter, `application_name` and those of `options=-c name=value` included; names as sent.
    pub options: BTreeMap<String, String>,
    /// `None` on a local socket.
    pub peer: Option<SocketAddr>,
    /// The process number the client was given; unique among open connections.
    pub pid: i32,
}

/// One per connection.
///
/// The futures of `prepare` and `execute`, and the streams of an [`Outcome`], are dropped when the client cancels, goes
/// away or runs out of time; `fail` or `close` follows. `sync`, `fail`, `close` and the execution of a statement that is
/// not `interruptible` always run to their end.
#[async_trait]
pub trait Conversation: Send {
    /// Splits a query string; empty for one without a statement.
    ///
    /// # Errors
    /// `42601` with its position in `sql`.
    fn parse(&mut self, sql: &str) -> Result<Vec<Statement>>;

    /// Finds the types of parameters and result. `param_types` are OIDs; 0, and those beyond its end, are to be inferred.
    async fn prepare(&mut self, statement: &Statement, param_types: &[u32]) -> Result<Prepared>;

    /// Runs a statement inside the transaction block, or inside an implicit transaction that `sync` ends.
    /// `params` has one value per `prepared.params`, of that type.
    async fn execute(&mut self, prepared: &Prepared, params: Vec<ScalarValue>) -> Result<Outcome>;

    /// Takes the row of a statement that adds one and may wait for those of the statements behind it. `None`: the statement
    /// is to be executed, or gathered again after `write_gathered`. The caller tells the client nothing of it, and calls
    /// nothing else that concerns the transaction, before `write_gathered` has returned.
    ///
    /// # Errors
    /// The statement's own. What was gathered before it is still to be written.
    async fn gather(&mut self, prepared: &Prepared, params: &[ScalarValue]) -> Result<Option<Gathered>> {
        let _ = (prepared, params);
        Ok(None)
    }

    /// Runs the statements that were gathered, as one.
    ///
    /// # Errors
    /// Of any of them.
    async fn write_gathered(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ends the implicit transaction, if one is open: commits it, or rolls it back after `fail`.
    ///
    /// # Errors
    /// The commit's; the transaction is then over, and the `fail` that follows finds none.
    async fn sync(&mut self) -> Result<()>;

    /// A statement failed: a transaction block becomes a failed one, an implicit transaction is rolled back.
    async fn fail(&mut self);

    fn transaction_status(&self) -> TransactionStatus;

    /// Fires when there is nothing left that the session could serve: this coordinator does not lead any more.
    fn ended(&self) -> CancellationToken {
        CancellationToken::new()
    }

    /// Changes with every savepoint and way back to one. A portal belongs to the era in which it is bound.
    fn era(&self) -> u64 {
        0
    }

    /// Whether portals of an era stay open behind a failed statement, or behind the way back to a savepoint.
    fn is_alive(&self, era: u64) -> bool {
        let _ = era;
        false
    }

    /// The statements prepared by name, shared by Parse messages and SQL's PREPARE, EXECUTE and DEALLOCATE.
    fn statements(&mut self) -> &mut Statements;

    /// The columns of a cursor made by SQL's DECLARE, for clients that describe it as a portal.
    fn cursor_columns(&self, name: &str) -> Option<Vec<OutputColumn>>;

    /// Notices since the last call.
    fn take_notices(&mut self) -> Vec<Notice>;

    /// The [`REPORTED_PARAMETERS`] that changed since the last call; all of them at the first.
    fn take_parameter_changes(&mut self) -> Vec<(String, String)>;

    /// The zone in which text of `timestamptz` is shown and read, and the `now()` of words such as `today`.
    fn time_context(&self) -> TimeContext;

    /// How long a statement may take from its start to its last row.
    fn statement_timeout(&self) -> Option<Duration>;

    /// The client has gone: roll back and release everything.
    async fn close(&mut self);
}

/// A statement that was gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    pub tag: String,
    /// No more are to be gathered before these are written.
    pub is_full: bool,
}

/// One parsed statement. The wire only passes it back.
#[derive(Clone)]
pub struct Statement {
    pub text: Arc<str>,
    /// False for statements whose effect must be known when they return (COMMIT): a cancel request waits for them.
    pub interruptible: bool,
    /// The session's own form. `None`: an empty statement.
    pub body: Option<Arc<dyn Any + Send + Sync>>,
}

impl Statement {
    pub fn empty() -> Statement {
        Statement { text: "".into(), interruptible: true, body: None }
    }

    pub fn is_empty(&self) -> bool {
        self.body.is_none()
    }
}

/// A statement whose types are known. Cheap to clone.
#[derive(Clone)]
pub struct Prepared {
    pub statement: Statement,
    pub params: Arc<[PgType]>,
    /// `None` when it returns no rows.
    pub columns: Option<Arc<[OutputColumn]>>,
    /// The session's own form (a plan).
    pub body: Option<Arc<dyn Any + Send + Sync>>,
}

impl Prepared {
    pub fn empty() -> Prepared {
        Prepared { statement: Statement::empty(), params: [].into(), columns: None, body: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputColumn {
    pub name: String,
    pub ty: PgType,
    /// 0 unless the column is one of a table.
    pub table_oid: u32,
    /// From 1; 0 unless the column is one of a table.
    pub attnum: i16,
}

impl OutputColumn {
    /// A column that belongs to no table.
    pub fn computed(name: impl Into<String>, ty: PgType) -> OutputColumn {
        OutputColumn { name: name.into(), ty, table_oid: 0, attnum: 0 }
    }
}

/// A command tag, completed by the number of rows where PostgreSQL does so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// `CREATE TABLE`, `SHOW`, `UPDATE 3`.
    Bare(Cow<'static, str>),
    /// `SELECT`, `FETCH`, `INSERT 0`, `COPY`: a blank and the rows sent are added.
    Counted(Cow<'static, str>),
}

impl Tag {
    pub fn with_count(&self, rows_count: u64) -> String {
        match self {
            Tag::Bare(tag) => tag.clone().into_owned(),
            Tag::Counted(tag) => format!("{tag} {rows_count}"),
        }
    }
}

pub type RowStream = BoxStream<'static, Result<RecordBatch>>;
pub type CopyStream = BoxStream<'static, Result<CopyBlock>>;

pub enum Outcome {
    Done {
        tag: String,
    },
    /// `stream` is polled only as fast as the client reads.
    Rows {
        columns: Arc<[OutputColumn]>,
        stream: RowStream,
        tag: Tag,
    },
    CopyIn(Box<dyn CopySink>),
    CopyOut {
        columns_count: usize,
        format: CopyFormat,
        stream: CopyStream,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Text and CSV.
    Text,
    Binary,
}

/// Encoded COPY output. Each message goes to the client as one CopyData; PostgreSQL sends one per row.
#[derive(Debug, Clone)]
pub struct CopyBlock {
    pub bytes: Bytes,
    /// End offsets into `bytes`, ascending; the last one is its length.
    pub message_ends: Vec<usize>,
    /// Rows among the messages: a header or a trailer is none.
    pub rows_count: u64,
}

/// Takes the rows of COPY FROM STDIN. Dropped without `finish` (a cancel, CopyFail, a lost client), it leaves nothing
/// behind once `fail` was called.
#[async_trait]
pub trait CopySink: Send {
    fn columns_count(&self) -> usize;

    fn format(&self) -> CopyFormat;

    /// The next bytes, cut anywhere.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// The client sent everything. Returns the number of rows.
    async fn finish(self: Box<Self>) -> Result<u64>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    Block,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Debug,
    Info,
    Notice,
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub severity: Severity,
    pub code: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Notice {
    /// `NOTICE` with SQLSTATE `00000`.
    #[expect(clippy::self_named_constructors, reason = "a notice is also one of the severities of a Notice")]
    pub fn notice(message: impl Into<String>) -> Notice {
        let code = SqlState::new("00000");
        Notice { severity: Severity::Notice, code, message: message.into(), detail: None, hint: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Notice {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Notice {
        self.hint = Some(hint.into());
        self
    }

    /// `WARNING` with the given SQLSTATE.
    pub fn warning(code: SqlState, message: impl Into<String>) -> Notice {
        Notice { severity: Severity::Warning, code, message: message.into(), detail: None, hint: None }
    }
}

/// Statements prepared by name on one connection.
#[derive(Default)]
pub struct Statements {
    named: HashMap<String, Prepared>,
}

impl Statements {
    /// # Errors
    /// `42P05` when the name is taken, `53400` when the connection keeps too many.
    pub fn insert(&mut self, name: &str, prepared: Prepared) -> Result<()> {
        self.check_free(name)?;
        if self.named.len() >= STATEMENTS_COUNT_MAX {
            return Err(Error::new(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                format!("a connection cannot keep more than {STATEMENTS_COUNT_MAX} prepared statements"),
            )
            .hint("Close statements that are no longer needed, or use DEALLOCATE ALL."));
        }
        self.named.insert(name.to_owned(), prepared);
        Ok(())
    }

    /// # Errors
    /// `42P05` when the name is taken.
    pub fn check_free(&self, name: &str) -> Result<()> {
        match self.named.contains_key(name) {
            true => Err(Error::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            )),
            false => Ok(()),
        }
    }

    /// # Errors
    /// `26000` when there is none of that name.
    pub fn get(&self, name: &str) -> Result<&Prepared> {
        self.named.get(name).ok_or_else(|| {
            Error::new(SqlState::INVALID_SQL_STATEMENT_NAME, format!("prepared statement \"{name}\" does not exist"))
        })
    }

    /// Whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.named.remove(name).is_some()
    }

    pub fn clear(&mut self) {
        self.named.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Prepared)> {
        self.named.iter().map(|(name, prepared)| (name.as_str(), prepared))
    }
}
