//! A session that understands a dozen words, and writes down what the wire does to it.

use crate::pg::backend::*;
use crate::pg::scram::Verifier;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::scalar::ScalarValue;
use engine::PgType;
use engine::types::TimeContext;
use futures::{Stream, StreamExt, stream};
use proto::{Error, Result, SqlState};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;

pub(super) const BATCH_ROWS: u64 = 1000;

/// What happened, in order.
#[derive(Clone)]
pub(super) struct Log(Arc<watch::Sender<Vec<String>>>);

impl Log {
    fn add(&self, event: impl Into<String>) {
        self.0.send_modify(|events| events.push(event.into()));
    }

    pub(super) async fn wait_for(&self, event: &str) {
        let mut events = self.0.subscribe();
        let seen = events.wait_for(|events| events.iter().any(|seen| seen == event));
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect(event).expect("the sender is held");
    }

    pub(super) fn has(&self, event: &str) -> bool {
        self.0.borrow().iter().any(|seen| seen == event)
    }
}

/// Writes to the log when it goes.
struct Traced(Log, &'static str);

impl Drop for Traced {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}

struct TracedStream(RowStream, #[expect(dead_code, reason = "held for its drop")] Traced);

impl Stream for TracedStream {
    type Item = Result<RecordBatch>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// Roles: `trusty` needs no password, `alice` has `secret`; database `gone` does not exist.
pub(super) struct Front {
    pub(super) log: Log,
    /// Batches taken from the streams of all sessions.
    pub(super) batches_polled: Arc<AtomicU64>,
    alice: Verifier,
}

impl Front {
    pub(super) fn new() -> Arc<Front> {
        let log = Log(Arc::new(watch::Sender::default()));
        let alice = Verifier::from_password("secret", &proto::SystemRng);
        Arc::new(Front { log, batches_polled: Arc::default(), alice })
    }
}

#[async_trait]
impl Frontdoor for Front {
    fn authentication(&self, user: &str, _database: &str, _peer: Option<SocketAddr>) -> Authentication {
        match user {
            "trusty" => Authentication::Trust,
            "alice" => Authentication::Scram { verifier: self.alice.clone(), known: true },
            other => Authentication::Scram { verifier: Verifier::mock(b"cluster secret", other), known: false },
        }
    }

    async fn connect(&self, startup: Startup) -> Result<Box<dyn Conversation>> {
        if startup.database == "gone" {
            return Err(Error::new(SqlState::INVALID_CATALOG_NAME, "database \"gone\" does not exist"));
        }
        let value = |name: &str| match name {
            "application_name" => startup.options.get(name).cloned().unwrap_or_default(),
            "client_encoding" | "server_encoding" => "UTF8".to_owned(),
            "DateStyle" => "ISO, MDY".to_owned(),
            "IntervalStyle" => "postgres".to_owned(),
            "server_version" => "15.13".to_owned(),
            "session_authorization" => startup.user.clone(),
            "TimeZone" => "UTC".to_owned(),
            "integer_datetimes" | "standard_conforming_strings" => "on".to_owned(),
            _ => "off".to_owned(),
        };
        Ok(Box::new(Session {
            log: self.log.clone(),
            batches_polled: Arc::clone(&self.batches_polled),
            status: TransactionStatus::Idle,
            statements: Statements::default(),
            notices: Vec::new(),
            changes: REPORTED_PARAMETERS.iter().map(|name| ((*name).to_owned(), value(name))).collect(),
            timeout: None,
            doomed: false,
        }))
    }
}

struct Session {
    log: Log,
    batches_polled: Arc<AtomicU64>,
    status: TransactionStatus,
    statements: Statements,
    notices: Vec<Notice>,
    changes: Vec<(String, String)>,
    timeout: Option<Duration>,
    /// The next `sync` fails.
    doomed: bool,
}

fn columns() -> Arc<[OutputColumn]> {
    let n = OutputColumn { name: "n".into(), ty: PgType::Int8, table_oid: 16_384, attnum: 1 };
    [n, OutputColumn::computed("s", PgType::Text)].into()
}

fn batch(start: u64, end: u64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values((start..end).map(|n| n as i64));
    let texts = StringArray::from_iter((start..end).map(|n| (n % 10 != 9).then(|| format!("row {n}"))));
    RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef), ("s", Arc::new(texts) as ArrayRef)]).unwrap()
}

impl Session {
    /// Rows 0 to `count`, then an error or the end.
    fn rows(&self, count: u64, error: Option<Error>) -> Outcome {
        let polled = Arc::clone(&self.batches_polled);
        let starts = (0..count).step_by(BATCH_ROWS as usize);
        let batches = starts.map(move |start| {
            polled.fetch_add(1, Ordering::SeqCst);
            Ok(batch(start, (start + BATCH_ROWS).min(count)))
        });
        let stream = stream::iter(batches.chain(error.map(Err))).boxed();
        self.outcome(stream)
    }

    fn outcome(&self, stream: RowStream) -> Outcome {
        let stream = TracedStream(stream, Traced(self.log.clone(), "stream dropped")).boxed();
        Outcome::Rows { columns: columns(), stream, tag: Tag::Counted("SELECT".into()) }
    }

    fn done(&self, tag: &str) -> Outcome {
        Outcome::Done { tag: tag.to_owned() }
    }
}

fn division_by_zero() -> Error {
    Error::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

#[async_trait]
impl Conversation for Session {
    fn parse(&mut self, sql: &str) -> Result<Vec<Statement>> {
        if let Some(place) = sql.find('!') {
            let error = Error::new(SqlState::SYNTAX_ERROR, "syntax error at or near \"!\"");
            return Err(error.position(place as u32 + 1).hint("No shouting."));
        }
        let lower = sql.to_lowercase();
        let texts = lower.split(';').map(str::trim).filter(|text| !text.is_empty());
        let statement = |text: &str| {
            let interruptible = text != "commit slowly";
            Statement { text: text.into(), interruptible, body: Some(Arc::new(())) }
        };
        Ok(texts.map(statement).collect())
    }

    async fn prepare(&mut self, statement: &Statement, _param_types: &[u32]) -> Result<Prepared> {
        let text = &*statement.text;
        if text == "unknown" {
            return Err(Error::new(SqlState::UNDEFINED_TABLE, "relation \"unknown\" does not exist"));
        }
        let params: &[PgType] = if text == "rows $1" { &[PgType::Int8] } else { &[] };
        let returns_rows = ["rows", "forever", "fail after"].iter().any(|word| text.starts_with(word));
        let columns = returns_rows.then(columns);
        Ok(Prepared { statement: statement.clone(), params: params.into(), columns, body: None })
    }

    async fn execute(&mut self, prepared: &Prepared, params: Vec<ScalarValue>) -> Result<Outcome> {
        let text = &*prepared.statement.text;
        if self.status == TransactionStatus::Failed && text != "rollback" {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Error::new(SqlState::IN_FAILED_SQL_TRANSACTION, message));
        }
        let number = || text.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match text {
            "begin" | "start transaction" => self.status = TransactionStatus::Block,
            "commit" | "rollback" => self.status = TransactionStatus::Idle,
            _ => {}
        }
        Ok(match text {
            "begin" | "start transaction" | "commit" | "rollback" => self.done(&text.to_uppercase()),
            "commit slowly" => {
                self.log.add("commit started");
                // Long enough for a cancel request to come in between.
                for _ in 0..10_000 {
                    tokio::task::yield_now().await;
                }
                self.log.add("commit ended");
                self.done("COMMIT")
            }
            "insert doomed" => {
                self.doomed = true;
                self.done("INSERT 0 1")
            }
            "insert noted" => {
                self.log.add("inserted");
                self.done("INSERT 0 1")
            }
            "insert" => self.done("INSERT 0 1"),
            "sleep" => {
                let _traced = Traced(self.log.clone(), "sleep dropped");
                self.log.add("sleep started");
                std::future::pending().await
            }
            "panic" => panic!("as asked"),
            "notice" => {
                self.notices.push(Notice::notice("hear, hear"));
                self.done("NOTICE")
            }
            "set zone" => {
                self.changes.push(("TimeZone".to_owned(), "Europe/Oslo".to_owned()));
                self.done("SET")
            }
            "set timeout" => {
                self.timeout = Some(Duration::from_millis(20));
                self.done("SET")
            }
            "fail" => return Err(division_by_zero()),
            "rows $1" => match params[0] {
                ScalarValue::Int64(Some(count)) => self.rows(count as u64, None),
                _ => self.rows(0, None),
            },
            "forever" => {
                self.log.add("forever started");
                self.outcome(stream::iter([Ok(batch(0, 1))]).chain(stream::pending()).boxed())
            }
            "copy in" => {
                self.log.add("copy started");
                Outcome::CopyIn(Box::new(Sink {
                    log: self.log.clone(),
                    text: Vec::new(),
                    _traced: Traced(self.log.clone(), "sink dropped"),
                }))
            }
            "copy out" => {
                let bytes = Bytes::from_static(b"one\ntwo\nthree\n");
                let block = CopyBlock { bytes, message_ends: vec![4, 8, 14], rows_count: 3 };
                let stream = stream::iter([Ok(block)]).boxed();
                Outcome::CopyOut { columns_count: 1, format: CopyFormat::Text, stream }
            }
            _ if text.starts_with("rows ") => self.rows(number(), None),
            _ if text.starts_with("fail after ") => self.rows(number(), Some(division_by_zero())),
            other => return Err(Error::unsupported(other)),
        })
    }

    async fn sync(&mut self) -> Result<()> {
        self.log.add("sync");
        match std::mem::take(&mut self.doomed) {
            true => Err(Error::new(SqlState::SERIALIZATION_FAILURE, "could not serialize access")),
            false => Ok(()),
        }
    }

    async fn fail(&mut self) {
        self.log.add("fail");
        if self.status == TransactionStatus::Block {
            self.status = TransactionStatus::Failed;
        }
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    fn statements(&mut self) -> &mut Statements {
        &mut self.statements
    }

    fn cursor_columns(&self, name: &str) -> Option<Vec<OutputColumn>> {
        (name == "declared").then(|| columns().to_vec())
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.changes)
    }

    fn time_context(&self) -> TimeContext {
        TimeContext::UTC
    }

    fn statement_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    async fn close(&mut self) {
        self.log.add("close");
    }
}

/// Counts lines; a line `bad` is an error.
struct Sink {
    log: Log,
    text: Vec<u8>,
    _traced: Traced,
}

#[async_trait]
impl CopySink for Sink {
    fn columns_count(&self) -> usize {
        2
    }

    fn format(&self) -> CopyFormat {
        CopyFormat::Text
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.log.add("copy wrote");
        self.text.extend_from_slice(&bytes);
        match self.text.windows(4).any(|window| window == b"bad\n") {
            true => Err(Error::new(SqlState::BAD_COPY_FILE_FORMAT, "missing data for column \"b\"")),
            false => Ok(()),
        }
    }

    async fn finish(self: Box<Self>) -> Result<u64> {
        self.log.add(format!("copy finished with {} bytes", self.text.len()));
        Ok(self.text.iter().filter(|byte| **byte == b'\n').count() as u64)
    }
}
