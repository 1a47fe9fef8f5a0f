//! SQL text to statements. The PostgreSQL grammar is sqlparser's; the few statements it refuses (a `GRANT` on a foreign
//! server, one role to another, …) are read from the same tokens by `own`.

mod own;

use super::shape::Sighting;
use datafusion::sql::sqlparser::ast::{Ident, Statement};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

/// Nested parentheses, sub-queries and operators the parser follows before it gives up.
const RECURSION_MAX: usize = 128;

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly every command is a statement, and each is kept behind one Arc")]
pub enum Command {
    Sql(Statement),
    /// `GRANT|REVOKE USAGE ON FOREIGN SERVER a, b TO|FROM c`; an empty grantee list never occurs.
    ServerUsage {
        grant: bool,
        servers: Vec<String>,
        grantees: Vec<String>,
    },
    /// `GRANT|REVOKE a, b TO|FROM c`.
    Membership {
        grant: bool,
        roles: Vec<String>,
        members: Vec<String>,
    },
    /// `ALTER TABLE t SET (name = value, …)`, whose names may have a dot.
    TableOptions {
        table: (Option<String>, String),
        if_exists: bool,
        options: Vec<TableOption>,
    },
    /// Nothing to do here: CHECKPOINT, VACUUM, REINDEX, … with the tag PostgreSQL answers.
    Maintenance {
        tag: &'static str,
    },
    /// `DO`, `PREPARE TRANSACTION`, …: known, and not served.
    Refused {
        what: &'static str,
    },
}

/// `timescaledb.compress_segmentby = 'device'`; without a value it is switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOption {
    pub name: String,
    pub value: Option<String>,
}

/// One statement and the text it was read from.
#[derive(Debug, Clone)]
pub struct Parsed {
    pub command: Command,
    pub text: String,
    /// Characters before it in the query string.
    pub offset: u32,
    /// Where its plan may be shared.
    pub sighting: Option<Arc<Sighting>>,
}

impl Parsed {
    /// Points an error at the name it is about, as PostgreSQL does, where the name is a token of the statement.
    pub fn locate(&self, error: Error) -> Error {
        let named = [SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_FUNCTION];
        if error.position.is_some() || !named.contains(&error.code) {
            return error;
        }
        match named_token(&self.text, &error.message) {
            Some(position) => error.position(self.offset + position),
            None => error,
        }
    }
}

/// Where the object of `column "x" does not exist` and its kin stands in the text.
fn named_token(text: &str, message: &str) -> Option<u32> {
    let name = match message.strip_prefix("function ") {
        Some(rest) => rest.split('(').next()?,
        None => message.split('"').nth(1).or_else(|| message.split_whitespace().nth(1))?,
    };
    let name = name.rsplit('.').next()?;
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().ok()?;
    let is_named =
        |token: &&TokenWithSpan| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(name));
    let found = tokens.iter().position(|token| is_named(&token))?;
    // `schema.table` begins with the schema.
    let first = match found.checked_sub(2).map(|before| (&tokens[before].token, &tokens[before + 1].token)) {
        Some((Token::Word(_), Token::Period)) => found - 2,
        _ => found,
    };
    Some(position(text, tokens[first].span.start))
}

/// Splits at top-level semicolons and parses each part. Empty statements vanish.
///
/// # Errors
/// `SYNTAX_ERROR` with PostgreSQL's wording and a position in `sql`; `STATEMENT_TOO_COMPLEX` for absurd nesting.
pub fn parse(sql: &str) -> Result<Vec<Parsed>> {
    engine::semantics::check_depth(sql)?;
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|e| syntax(e.message, position(sql, e.location)))?;
    let parts = tokens.split(|token| token.token == Token::SemiColon);
    let parts = parts.filter(|part| part.iter().any(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)));
    parts.map(|part| parse_one(sql, part)).collect()
}

fn parse_one(sql: &str, tokens: &[TokenWithSpan]) -> Result<Parsed> {
    let significant = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
    let significant = significant.collect::<Vec<_>>();
    let text = slice(sql, &significant);
    let offset = significant.first().map_or(0, |first| position(sql, first.span.start) - 1);
    if let Some(command) = own::command(&significant) {
        return Ok(Parsed { command, text, offset, sighting: None });
    }
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(RECURSION_MAX)
        .with_tokens_with_locations(tokens.iter().filter(|t| t.token != Token::EOF).cloned().collect());
    let statement = parser.parse_statement().map_err(|error| parser_error(sql, tokens, error))?;
    match parser.peek_token() {
        TokenWithSpan { token: Token::EOF, .. } => {
            Ok(Parsed { command: Command::Sql(statement), text, offset, sighting: None })
        }
        extra => Err(near(sql, &extra)),
    }
}

/// The statement's own text, from its first to its last token.
fn slice(sql: &str, tokens: &[&TokenWithSpan]) -> String {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return String::new() };
    let start = byte_offset(sql, first.span.start);
    let end = byte_offset(sql, last.span.end);
    sql.get(start..end.max(start)).unwrap_or(sql).to_owned()
}

fn byte_offset(sql: &str, at: Location) -> usize {
    let line_start = match at.line {
        0 | 1 => 0,
        line => sql.match_indices('\n').nth(line as usize - 2).map_or(sql.len(), |(index, _)| index + 1),
    };
    let in_line = sql[line_start..].char_indices().nth((at.column as usize).saturating_sub(1));
    in_line.map_or(sql.len(), |(index, _)| line_start + index)
}

/// Character position from 1, as ErrorResponse counts.
fn position(sql: &str, at: Location) -> u32 {
    (sql[..byte_offset(sql, at)].chars().count() + 1) as u32
}

fn syntax(message: impl Into<String>, position: u32) -> Error {
    Error::new(SqlState::SYNTAX_ERROR, message).position(position)
}

fn near(sql: &str, token: &TokenWithSpan) -> Error {
    match token.token {
        Token::EOF => end_of_input(sql),
        _ => {
            let start = byte_offset(sql, token.span.start);
            let text = sql.get(start..byte_offset(sql, token.span.end)).filter(|text| !text.is_empty());
            let text = text.map_or_else(|| token.token.to_string(), str::to_owned);
            syntax(format!("syntax error at or near \"{text}\""), position(sql, token.span.start))
        }
    }
}

fn end_of_input(sql: &str) -> Error {
    syntax("syntax error at end of input", (sql.chars().count() + 1) as u32)
}

/// sqlparser says where it stopped only in words: `Expected: …, found: x at Line: 1, Column: 8`.
fn parser_error(sql: &str, tokens: &[TokenWithSpan], error: ParserError) -> Error {
    let message = match error {
        ParserError::RecursionLimitExceeded => {
            return Error::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded");
        }
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
    };
    let number = |after: &str| {
        let rest = &message[message.rfind(after)? + after.len()..];
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().ok()
    };
    match (number("at Line: "), number("Column: ")) {
        (Some(line), Some(column)) => {
            let at = Location { line, column };
            match tokens.iter().find(|token| token.span.start == at) {
                Some(token) => near(sql, token),
                None => syntax(format!("syntax error: {message}"), position(sql, at)),
            }
        }
        _ if message.contains("found: EOF") => end_of_input(sql),
        _ => Error::new(SqlState::SYNTAX_ERROR, format!("syntax error: {message}")),
    }
}

/// An identifier as PostgreSQL folds it: lower case unless quoted.
pub fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// What a statement is and whether it reads or writes rows, for those who only need to know that.
pub(crate) struct StatementKind {
    pub words: String,
    pub touches_rows: bool,
}

/// # Errors
/// As [`parse`].
pub(crate) fn statement_kinds(sql: &str) -> Result<Vec<StatementKind>> {
    let kinds = parse(sql)?.into_iter().map(|parsed| StatementKind {
        touches_rows: matches!(
            parsed.command,
            Command::Sql(
                Statement::Query(_)
                    | Statement::Insert(_)
                    | Statement::Update(_)
                    | Statement::Delete(_)
                    | Statement::Copy { .. }
                    | Statement::Truncate(_)
            )
        ),
        words: parsed.text.split_whitespace().next().unwrap_or_default().to_uppercase(),
    });
    Ok(kinds.collect())
}

/// Schema and name out of the text of a `regclass`.
///
/// # Errors
/// `42602 invalid name syntax`.
pub(crate) fn qualified_name(text: &str) -> Result<(Option<String>, String)> {
    let invalid = || Error::new(SqlState::new("42602"), "invalid name syntax");
    let mut parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(text).map_err(|_| invalid())?;
    let name = parser.parse_object_name(false).map_err(|_| invalid())?;
    match parser.peek_token().token {
        Token::EOF => Ok(super::define::object_name(&name)),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_split_outside_quotes_only() {
        let parsed = parse("select ';'; select $$ a;b $$ ;; ; -- ;\n select 3").unwrap();
        let texts = parsed.iter().map(|p| p.text.as_str()).collect::<Vec<_>>();
        assert_eq!(texts, ["select ';'", "select $$ a;b $$", "select 3"]);
        assert!(parse(" ; -- nothing").unwrap().is_empty());
    }

    #[test]
    fn syntax_errors_speak_as_postgres_does() {
        for (sql, message, position) in [
            ("selec 1", "syntax error at or near \"selec\"", 1),
            ("select 1; select * form t", "syntax error at or near \"t\"", 25),
            ("select (1", "syntax error at end of input", 10),
            ("select 1 1", "syntax error at or near \"1\"", 10),
        ] {
            let error = parse(sql).unwrap_err();
            assert_eq!(
                (error.code, error.message.as_str(), error.position),
                (SqlState::SYNTAX_ERROR, message, Some(position)),
                "{sql}"
            );
        }
    }
}
