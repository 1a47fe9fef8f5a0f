//! The executor against what PostgreSQL 15 and TimescaleDB 2.13.1 answer.

mod fake;
mod psql;
mod statements;
mod tutorial;

use super::run::Context;
use super::*;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
pub(super) use fake::Tutorial;

pub(super) fn parse(sql: &str) -> Statement {
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(512).try_with_sql(sql);
    let mut statements =
        parser.and_then(|mut parser| parser.parse_statements()).unwrap_or_else(|error| panic!("{error}: {sql}"));
    statements.pop().unwrap()
}

pub(super) fn try_run(catalog: &Tutorial, sql: &str) -> Result<RowSet> {
    let statement = parse(sql);
    execute(&statement, catalog, &mut fake::Calls::default(), &[], &[])
}

/// Column names, then rows, as psql -A prints them.
pub(super) fn lines(catalog: &Tutorial, set: &RowSet) -> Vec<String> {
    set.to_batch().expect("every result has an Arrow form");
    let mut host = NoFunctions;
    let mut ctx = Context::new(catalog, &mut host, &[]);
    let names = set.columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join("|");
    let mut lines = vec![names];
    for row in &set.rows {
        let shown = row.iter().zip(&set.columns).map(|(value, (_, ty))| match value {
            Value::Null => "<NULL>".to_owned(),
            // Names already.
            Value::Text(text) => escape(text),
            value => escape(&cast::output(&mut ctx, value, ty).unwrap()),
        });
        lines.push(shown.collect::<Vec<_>>().join("|"));
    }
    lines
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('|', "\\p")
}

pub(super) fn run_lines(catalog: &Tutorial, sql: &str) -> Vec<String> {
    let set = try_run(catalog, sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    lines(catalog, &set)
}

/// The rows without the line of names.
pub(super) fn run_rows(catalog: &Tutorial, sql: &str) -> Vec<String> {
    run_lines(catalog, sql).split_off(1)
}
