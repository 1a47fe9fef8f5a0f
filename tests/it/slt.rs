//! The scripts of `tests/slt`, each on a fresh cluster: in one process and on three, with push-down and without, and
//! with joins shuffled between the nodes. A statement must answer the same in all six. Expected values come from PostgreSQL 15 or from TimescaleDB, as the head
//! of each script says; `ts_*.slt` are about what PostgreSQL does not have and never run there.
//!
//! A failing record does not end its script: all failures of all scripts are shown together.

use crate::cluster::{Cluster, Session, Shape, connect, reference};
use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, MakeConnection, Record, Runner};
use std::fmt;
use std::path::{Path, PathBuf};
use tokio_postgres::{Config, SimpleQueryMessage};

/// Push-down at the nodes, as the tutorial's setting switches it.
#[derive(Debug, Clone, Copy)]
enum PushDown {
    On,
    Off,
    /// On, and nodes send each other the rows of every join that can be done so.
    Shuffled,
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn scripts_embedded_with_push_down() {
    run_all(Shape::Embedded, PushDown::On).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn scripts_embedded_without_push_down() {
    run_all(Shape::Embedded, PushDown::Off).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn scripts_on_three_processes_with_push_down() {
    run_all(Shape::Processes, PushDown::On).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn scripts_on_three_processes_without_push_down() {
    run_all(Shape::Processes, PushDown::Off).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn scripts_on_three_processes_with_shuffles() {
    run_all(Shape::Processes, PushDown::Shuffled).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn scripts_embedded_with_shuffles() {
    run_all(Shape::Embedded, PushDown::Shuffled).await;
}

/// That the expected values are PostgreSQL's own, whenever a server is at hand.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn scripts_on_postgres() {
    let Some(config) = reference() else {
        println!("skipped: SERIATIM_REFERENCE names no PostgreSQL 15 server");
        return;
    };
    let mut failures = Vec::new();
    for script in scripts().into_iter().filter(|script| !is_timescale(script)) {
        let scratch = crate::cluster::scratch_database(&config).await;
        let database = Database { config: scratch, push_down: None };
        if std::env::var("SERIATIM_RECORD").is_ok_and(|v| v == "1") {
            record(&script, database).await;
        } else {
            failures.extend(run(&script, database).await);
        }
    }
    report(failures);
}

async fn run_all(shape: Shape, push_down: PushDown) {
    if reference().is_some() {
        println!("skipped: SERIATIM_REFERENCE is set");
        return;
    }
    let mut failures = Vec::new();
    for script in scripts() {
        let cluster = Cluster::start(shape).await;
        let database = Database { config: cluster.config("postgres"), push_down: Some(push_down) };
        failures.extend(run(&script, database).await);
    }
    report_against_known(failures);
}

/// A record whose answer was not the expected one.
struct Differing {
    /// `aggregates.slt: SELECT mode() …`, as `not_yet.txt` lists it.
    record: String,
    text: String,
}

fn report(failures: Vec<Differing>) {
    let texts = failures.iter().map(|failure| failure.text.as_str()).collect::<Vec<_>>();
    assert!(texts.is_empty(), "{} records failed\n\n{}", texts.len(), texts.join("\n\n"));
}

/// `not_yet.txt` lists the records in which we still differ from PostgreSQL: all of them must fail, and no other may.
fn report_against_known(failures: Vec<Differing>) {
    let known = include_str!("../slt/not_yet.txt").lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
    let wanted = std::env::var("SERIATIM_SLT").unwrap_or_default();
    let mended = known.iter().filter(|line| line.split(".slt").next().is_some_and(|script| script.contains(&wanted)));
    let mended = mended.filter(|line| !failures.iter().any(|failure| failure.record == **line));
    let mended = mended.map(|line| format!("now as expected, take it out of not_yet.txt: {line}")).collect::<Vec<_>>();
    assert!(mended.is_empty(), "{}", mended.join("\n"));
    report(failures.into_iter().filter(|failure| !known.contains(&failure.record.as_str())).collect());
}

fn scripts() -> Vec<PathBuf> {
    let wanted = std::env::var("SERIATIM_SLT").unwrap_or_default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut scripts = paths
        .filter(|path| path.extension().is_some_and(|e| e == "slt") && stem(path).contains(&wanted))
        .collect::<Vec<_>>();
    scripts.sort();
    scripts
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a script has a name").to_string_lossy().into_owned()
}

fn is_timescale(script: &Path) -> bool {
    stem(script).starts_with("ts_")
}

/// Where a script runs. `push_down` is `None` on PostgreSQL.
#[derive(Clone)]
struct Database {
    config: Config,
    push_down: Option<PushDown>,
}

impl Database {
    fn runner(self) -> Runner<Connection, impl MakeConnection<Conn = Connection>> {
        let mut runner = Runner::new(move || Connection::open(self.clone()));
        runner.with_normalizer(normalize);
        runner
    }
}

async fn run(script: &Path, database: Database) -> Vec<Differing> {
    let records = sqllogictest::parse_file::<DefaultColumnType>(script).unwrap_or_else(|e| panic!("{e}"));
    let mut runner = database.runner();
    let mut failures = Vec::new();
    for record in records {
        let sql = match &record {
            Record::Query { sql, .. } | Record::Statement { sql, .. } => {
                sql.lines().next().unwrap_or_default().to_owned()
            }
            _ => String::new(),
        };
        if let Err(e) = runner.run_async(record).await {
            failures.push(Differing { record: format!("{}.slt: {sql}", stem(script)), text: e.to_string() });
        }
    }
    runner.shutdown_async().await;
    failures
}

async fn record(script: &Path, database: Database) {
    let mut runner = database.runner();
    runner
        .update_test_file(
            script,
            " ",
            sqllogictest::default_validator,
            normalize,
            sqllogictest::default_column_validator,
        )
        .await
        .unwrap_or_else(|e| panic!("{}: {e}", script.display()));
    runner.shutdown_async().await;
}

/// Blanks inside a value count; those at the ends of a line, which editors take away, do not.
#[expect(clippy::ptr_arg, reason = "the type sqllogictest asks for")]
fn normalize(value: &String) -> String {
    value.trim().to_owned()
}

/// One connection of a script: results as text, NULL as `NULL`, an empty string as `(empty)`.
struct Connection {
    session: Session,
    on_postgres: bool,
}

impl Connection {
    async fn open(database: Database) -> Result<Connection, Failure> {
        let session = connect(&database.config).await.map_err(|e| Failure::new(&e, false))?;
        session.run("SET TIME ZONE 'UTC'").await;
        match database.push_down {
            Some(PushDown::On) => session.run("SET enable_partitionwise_aggregate = on").await,
            Some(PushDown::Off) => session.run("SET enable_partitionwise_aggregate = off").await,
            Some(PushDown::Shuffled) => session.run("SET seriatim.shuffle = on").await,
            None => 0,
        };
        Ok(Connection { session, on_postgres: database.push_down.is_none() })
    }
}

#[async_trait]
impl AsyncDB for Connection {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    /// A query that changes nothing runs again and again: its plan is kept and used in another way each time.
    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let first = self.answer(sql).await?;
        if !self.on_postgres && is_repeatable(sql) {
            for round in 1..=4 {
                let again = self.answer(sql).await?;
                if let (DBOutput::Rows { rows: a, .. }, DBOutput::Rows { rows: b, .. }) = (&first, &again) {
                    let (mut a, mut b) = (a.clone(), b.clone());
                    a.sort();
                    b.sort();
                    assert_eq!(a, b, "repetition {round}: {sql}");
                }
            }
        }
        Ok(first)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        if self.on_postgres { "postgres" } else { "seriatim" }
    }

    fn error_sql_state(error: &Failure) -> Option<String> {
        Some(error.code.clone())
    }
}

/// Functions whose answer is another each time, or which do something.
const ONCE: &[&str] = &[
    "insert ",
    "update ",
    "delete ",
    "random",
    "uuid",
    "clock_timestamp",
    "pid",
    "create_",
    "add_",
    "set_",
    "drop_",
    "delete_",
    "attach_",
    "detach_",
    "compress_",
    "remove_",
    "alter_",
    "run_job",
    "distributed_exec",
    "job_stats",
    "pg_stat",
    "transactions",
    "reorder_",
];

fn is_repeatable(sql: &str) -> bool {
    let sql = sql.to_lowercase();
    (sql.starts_with("select") || sql.starts_with("with")) && !ONCE.iter().any(|name| sql.contains(name))
}

impl Connection {
    async fn answer(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let messages = self.session.client.simple_query(sql).await.map_err(|e| Failure::new(&e, self.on_postgres))?;
        let mut columns = None;
        let mut rows = Vec::new();
        let mut affected = 0;
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(described) => columns = Some(described.len()),
                SimpleQueryMessage::Row(row) => rows.push((0..row.len()).map(|i| cell(row.get(i))).collect()),
                SimpleQueryMessage::CommandComplete(count) => affected = count,
                _ => (),
            }
        }
        Ok(match columns {
            Some(count) => DBOutput::Rows { types: vec![DefaultColumnType::Any; count], rows },
            None => DBOutput::StatementComplete(affected),
        })
    }
}

fn cell(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.replace('\n', "\\n"),
    }
}

/// What scripts match errors against: `22012: division by zero`, then DETAIL and HINT if there are any.
#[derive(Debug)]
struct Failure {
    code: String,
    text: String,
}

impl Failure {
    /// `brief` leaves DETAIL and HINT out: PostgreSQL's are not recorded.
    fn new(error: &tokio_postgres::Error, brief: bool) -> Failure {
        let Some(e) = error.as_db_error() else {
            return Failure { code: "-----".to_owned(), text: format!("{error:?}") };
        };
        let mut text = format!("{}: {}", e.code().code(), e.message());
        if !brief {
            e.detail().into_iter().for_each(|detail| text += &format!(" DETAIL: {detail}"));
            e.hint().into_iter().for_each(|hint| text += &format!(" HINT: {hint}"));
        }
        Failure { code: e.code().code().to_owned(), text }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
