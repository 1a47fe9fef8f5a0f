//! EXPLAIN: its options, as PostgreSQL reads them, and its answer as text or JSON. What is shown is made by the engine.

use super::Session;
use super::query::{self, QueryPlan};
use super::relations::Own;
use crate::pg::backend::{Outcome, OutputColumn};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{Statement, UtilityOption};
use engine::PgType;
use engine::plan::ExplainOptions;
use proto::{Error, Result, SqlState};
use std::sync::Arc;

const COLUMN: &str = "QUERY PLAN";

/// An EXPLAIN that was prepared.
pub(super) struct ExplainPlan {
    options: ExplainOptions,
    format: Format,
    /// `None`: it is about a statement that writes.
    query: Option<Arc<QueryPlan>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

impl Format {
    fn column_type(self) -> PgType {
        match self {
            Format::Text => PgType::Text,
            Format::Json => PgType::Json,
        }
    }
}

impl ExplainPlan {
    pub fn params(&self) -> Vec<PgType> {
        self.query.as_ref().map(|query| query.params()).unwrap_or_default()
    }

    pub fn columns(&self) -> Vec<OutputColumn> {
        vec![OutputColumn::computed(COLUMN, self.format.column_type())]
    }
}

/// # Errors
/// Of its options; `0A000` for a statement that neither reads nor writes rows; what its query is refused for.
pub(super) async fn prepare(
    session: &mut Session,
    statement: &Statement,
    declared: &[Option<PgType>],
) -> Result<ExplainPlan> {
    let Statement::Explain { analyze, verbose, statement, format, options, .. } = statement else {
        return Err(Error::internal("not an EXPLAIN"));
    };
    if format.is_some() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "a format is given in parentheses: EXPLAIN (FORMAT …)"));
    }
    let (options, format) = read_options(*analyze, *verbose, options.as_deref().unwrap_or_default())?;
    let query = match &**statement {
        inner @ Statement::Query(_) if super::write::Write::of(inner)?.is_none() => {
            Some(Arc::new(query::prepare(session, inner, declared).await?))
        }
        inner if super::write::Write::of(inner)?.is_some() => None,
        _ => return Err(Error::unsupported("EXPLAIN of a statement that is not a query")),
    };
    Ok(ExplainPlan { options, format, query })
}

/// # Errors
/// Of planning; with ANALYZE those of execution.
pub(super) async fn run(
    session: &mut Session,
    statement: &Statement,
    plan: &ExplainPlan,
    params: &[ScalarValue],
) -> Result<Outcome> {
    let explained = match (&plan.query, statement) {
        (Some(query), _) => query::explained(session, query, params, &Own::default(), &plan.options).await?,
        (None, Statement::Explain { statement, .. }) => {
            super::write::explained(session, statement, &plan.options).await?
        }
        _ => return Err(Error::internal("not an EXPLAIN")),
    };
    let lines = match plan.format {
        Format::Text => explained.lines(&plan.options),
        Format::Json => vec![explained.json(&plan.options)],
    };
    query::rows_of_type(COLUMN, plan.format.column_type(), lines, "EXPLAIN")
}

/// The last of several options of one name counts.
fn read_options(analyze: bool, verbose: bool, options: &[UtilityOption]) -> Result<(ExplainOptions, Format)> {
    let (mut wanted, mut format) = (ExplainOptions::new(analyze, verbose), Format::Text);
    let (mut timing, mut buffers, mut summary, mut wal) = (None, None, None, false);
    for option in options {
        let name = option.name.value.to_lowercase();
        let value = option.arg.as_ref().map(|arg| arg.to_string().trim_matches('\'').to_owned());
        let on = || is_on(&name, value.as_deref());
        match name.as_str() {
            "analyze" => wanted.analyze = on()?,
            "verbose" => wanted.verbose = on()?,
            "costs" => wanted.costs = on()?,
            "timing" => timing = Some(on()?),
            "buffers" => buffers = Some(on()?),
            "summary" => summary = Some(on()?),
            "wal" => wal = on()?,
            // Settings that are not the defaults: none has a part in planning.
            "settings" => drop(on()?),
            "format" => format = format_of(value.as_deref().unwrap_or_default())?,
            _ => {
                let message = format!("unrecognized EXPLAIN option \"{name}\"");
                return Err(Error::new(SqlState::SYNTAX_ERROR, message));
            }
        }
    }
    for (name, asked) in [("WAL", wal), ("TIMING", timing == Some(true))] {
        if asked && !wanted.analyze {
            let message = format!("EXPLAIN option {name} requires ANALYZE");
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
        }
    }
    wanted.timing = timing.unwrap_or(wanted.analyze);
    wanted.buffers = buffers.unwrap_or(wanted.analyze);
    wanted.summary = summary.unwrap_or(wanted.analyze);
    Ok((wanted, format))
}

fn is_on(name: &str, value: Option<&str>) -> Result<bool> {
    match value.map(str::to_lowercase).as_deref() {
        None | Some("true" | "on" | "1") => Ok(true),
        Some("false" | "off" | "0") => Ok(false),
        Some(_) => Err(Error::new(SqlState::SYNTAX_ERROR, format!("{name} requires a Boolean value"))),
    }
}

fn format_of(value: &str) -> Result<Format> {
    match value.to_lowercase().as_str() {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        "xml" | "yaml" => Err(Error::unsupported("EXPLAIN in another format than TEXT or JSON")),
        "" => Err(Error::new(SqlState::SYNTAX_ERROR, "format requires a parameter")),
        _ => {
            let message = format!("unrecognized value for EXPLAIN option \"format\": \"{value}\"");
            Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn read(text: &str) -> Result<(ExplainOptions, Format)> {
        let statement =
            Parser::parse_sql(&PostgreSqlDialect {}, &format!("EXPLAIN {text} SELECT 1")).unwrap().remove(0);
        let Statement::Explain { analyze, verbose, options, .. } = statement else { panic!("{text}") };
        read_options(analyze, verbose, options.as_deref().unwrap_or_default())
    }

    #[test]
    fn options_mean_what_postgres_says() {
        let plain = ExplainOptions::new(false, false);
        assert_eq!(read("").unwrap(), (plain, Format::Text));
        assert_eq!(read("ANALYZE VERBOSE").unwrap(), (ExplainOptions::new(true, true), Format::Text));
        let all = ExplainOptions::new(true, false);
        assert_eq!(read("(ANALYZE)").unwrap().0, all);
        let less = ExplainOptions { costs: false, timing: false, summary: false, buffers: false, ..all };
        assert_eq!(read("(ANALYZE true, COSTS off, TIMING 0, SUMMARY false, BUFFERS OFF)").unwrap().0, less);
        assert_eq!(read("(SUMMARY)").unwrap().0, ExplainOptions { summary: true, ..plain });
        assert_eq!(read("(ANALYZE, ANALYZE off)").unwrap().0, plain);
        for format in ["JSON", "json", "'json'"] {
            assert_eq!(read(&format!("(FORMAT {format})")).unwrap().1, Format::Json);
        }
    }

    #[test]
    fn refusals_are_those_of_postgres() {
        let refused = |text: &str| {
            let error = read(text).unwrap_err();
            (error.code.as_str().to_owned(), error.message)
        };
        for (text, code, message) in [
            ("(COST off)", "42601", "unrecognized EXPLAIN option \"cost\""),
            ("(TIMING)", "22023", "EXPLAIN option TIMING requires ANALYZE"),
            ("(WAL on)", "22023", "EXPLAIN option WAL requires ANALYZE"),
            ("(COSTS 2)", "42601", "costs requires a Boolean value"),
            ("(FORMAT csv)", "22023", "unrecognized value for EXPLAIN option \"format\": \"csv\""),
        ] {
            assert_eq!(refused(text), (code.to_owned(), message.to_owned()), "{text}");
        }
        assert_eq!(refused("(FORMAT yaml)").0, "0A000");
    }
}
