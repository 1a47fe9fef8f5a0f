//! Statements beside the answers of a real PostgreSQL 15 (`answers/*.txt`), and the check that ours are the same.
//!
//! A case is a statement; then `-- name:type, …` and the rows as `psql -At -P null=NULL` prints them, or
//! `! SQLSTATE message`; then an empty line. `numeric` is compared as a number (ours has 16 digits after the point,
//! PostgreSQL's as many as it likes), and so are floats (the last digit depends on the order of additions). The files were
//! recorded with `\gdesc` and `VERBOSITY verbose`, with `TimeZone` as the file's first line says.
//!
//! `answers/not_yet.txt` has cases of the same form that we do not answer so yet. One that comes right fails the test until
//! it is moved.

use super::{check_depth, output_columns, rewrite, session_state, syntax_error, text_form, to_error};
use crate::functions::scalar::session_zone;
use crate::{PgType, Settings};
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::physical_plan::collect;
use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};
use proto::Error;
use std::fmt::Write;

pub(crate) struct Answer {
    pub names: Vec<String>,
    pub types: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

pub(crate) fn run(sql: &str, settings: &Settings) -> Result<Answer, Error> {
    let (sql, settings) = (sql.to_owned(), settings.clone());
    // As the server does: planning on a large stack.
    std::thread::Builder::new()
        .stack_size(16 << 20)
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(answer(&sql, &settings))
        })
        .unwrap()
        .join()
        .unwrap()
}

async fn answer(sql: &str, settings: &Settings) -> Result<Answer, Error> {
    check_depth(sql)?;
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|error| syntax_error(error, sql))?;
    let mut statement = statements.remove(0);
    rewrite(&mut statement, settings)?;
    let state = session_state(settings);
    let statement = datafusion::sql::parser::Statement::Statement(Box::new(statement));
    let plan = state.statement_to_plan(statement).await.map_err(to_error)?;
    let plan = state.optimize(&plan).map_err(to_error)?;
    let schema = plan.schema().as_arrow().clone();
    let physical = state.create_physical_plan(&plan).await.map_err(to_error)?;
    let batches = collect(physical, state.task_ctx()).await.map_err(to_error)?;
    let zone = session_zone(state.config_options()).map_err(to_error)?;
    let types = schema.fields().iter().map(|field| match PgType::from_field(field) {
        Some(PgType::Numeric(_)) => "numeric".to_owned(),
        Some(ty) => ty.to_string(),
        None => field.data_type().to_string(),
    });
    let mut rows = Vec::new();
    for batch in &batches {
        rows.extend(texts(batch, zone));
    }
    Ok(Answer { names: output_columns(&schema), types: types.collect(), rows })
}

fn texts(batch: &RecordBatch, zone: super::Zone) -> Vec<Vec<Option<String>>> {
    let columns: Vec<ArrayRef> =
        batch.columns().iter().map(|column| text_form::to_text(column, zone).unwrap()).collect();
    let cell = |column: &ArrayRef, row: usize| {
        let column = column.as_string::<i32>();
        arrow::array::Array::is_valid(column, row).then(|| column.value(row).to_owned())
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| cell(column, row)).collect()).collect()
}

fn same(ours: &str, theirs: &str, ty: &str) -> bool {
    if ours == theirs {
        return true;
    }
    if matches!(ty, "numeric" | "double precision")
        && let (Ok(ours), Ok(theirs)) = (ours.parse::<f64>(), theirs.parse::<f64>())
    {
        return (ours - theirs).abs() <= 1e-14 * theirs.abs().max(1.0);
    }
    false
}

/// What differs between `answer` and the recorded lines; `None` when nothing does.
fn difference(answer: Result<Answer, Error>, recorded: &[&str]) -> Option<String> {
    let head = recorded.first().copied().unwrap_or_default();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let ours = format!("! {} {}", error.code, error.message);
            return (ours != head).then_some(ours);
        }
    };
    let columns: Vec<String> =
        answer.names.iter().zip(&answer.types).map(|(name, ty)| format!("{name}:{ty}")).collect();
    let columns = format!("-- {}", columns.join(", "));
    let mut ours = columns.clone();
    let mut equal = columns == head && answer.rows.len() == recorded.len() - 1;
    for (row, theirs) in answer.rows.iter().zip(recorded.iter().skip(1).chain(std::iter::repeat(&""))) {
        let cells: Vec<&str> = theirs.split('|').collect();
        equal &= cells.len() == row.len();
        for ((cell, theirs), ty) in row.iter().zip(cells).zip(&answer.types) {
            equal &= same(cell.as_deref().unwrap_or("NULL"), theirs, ty);
        }
        let texts: Vec<&str> = row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect();
        let _ = write!(ours, "\n{}", texts.join("|"));
    }
    (!equal).then_some(ours)
}

/// The cases that differ, with both answers; and how many agree.
fn compare(file: &str) -> (Vec<String>, Vec<String>) {
    let (zone, body) = file.split_once('\n').unwrap();
    let zone = zone.strip_prefix("zone ").unwrap();
    // The recorded `now()` is of no use; ours is 2019-01-02 03:04:05.678901 UTC.
    let settings = Settings { time_zone: zone.to_owned(), now_us: 1_546_398_245_678_901, ..Settings::default() };
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for case in body.split("\n\n").map(str::trim).filter(|case| !case.is_empty()) {
        let lines: Vec<&str> = case.lines().collect();
        match difference(run(lines[0], &settings), &lines[1..]) {
            None => right.push(lines[0].to_owned()),
            Some(ours) => {
                wrong.push(format!("{}\n  PostgreSQL:\n{}\n  ours:\n{ours}\n", lines[0], lines[1..].join("\n")))
            }
        }
    }
    (right, wrong)
}

fn check(file: &str) {
    let (right, wrong) = compare(file);
    assert!(wrong.is_empty(), "{} differ, {} agree\n\n{}", wrong.len(), right.len(), wrong.join("\n"));
}

#[test]
fn answers_in_utc_are_postgres_answers() {
    check(include_str!("answers/utc.txt"));
}

#[test]
fn answers_in_another_zone_are_postgres_answers() {
    check(include_str!("answers/berlin.txt"));
}

#[test]
fn more_answers_are_postgres_answers() {
    check(include_str!("answers/more.txt"));
}

#[test]
fn answers_of_functions_are_postgres_answers() {
    check(include_str!("answers/functions.txt"));
}

#[test]
fn errors_are_postgres_errors() {
    check(include_str!("answers/errors.txt"));
}

/// TimescaleDB's answers, from its documentation and source.
#[test]
fn time_series_functions_answer_as_timescaledb_does() {
    check(include_str!("answers/timescale.txt"));
}

#[test]
fn what_is_not_yet_right_is_known() {
    let (right, _) = compare(include_str!("answers/not_yet.txt"));
    assert!(right.is_empty(), "these are right now, move them: {right:#?}");
}
