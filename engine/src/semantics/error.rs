//! DataFusion's errors in PostgreSQL's words, with its SQLSTATEs.

use crate::functions::scalar::{no_function_of, type_name};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use proto::{Error, SqlState};

/// What a client is told. An `Error` of ours that travelled inside comes out unchanged.
pub fn to_error(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => external(inner),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => to_error(*inner),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => to_error(first),
            None => Error::internal("an error without a cause"),
        },
        DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(inner) => to_error(inner),
            Err(shared) => borrowed(&shared),
        },
        DataFusionError::ArrowError(inner, _) => arrow(*inner),
        DataFusionError::SchemaError(inner, _) => schema(*inner),
        DataFusionError::SQL(inner, _) => parser(*inner),
        DataFusionError::ResourcesExhausted(text) => out_of_memory(&text),
        DataFusionError::NotImplemented(text) if text.contains("OuterReferenceColumn") => {
            Error::unsupported("a sub-select that refers to columns around it in this way")
        }
        DataFusionError::NotImplemented(text) => {
            Error::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{} (not supported yet)", first_line(&text)))
        }
        DataFusionError::Plan(text) | DataFusionError::Execution(text) => planned(&text),
        DataFusionError::ExecutionJoin(inner) => Error::internal(inner.to_string()),
        other => planned(&other.strip_backtrace()),
    }
}

/// An error that other holders still share: its innermost error of ours, else its text.
fn borrowed(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => planned(&inner.to_string()),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => borrowed(inner),
        DataFusionError::Shared(inner) => borrowed(inner),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::ExternalError(inner) if inner.downcast_ref::<DataFusionError>().is_some() => {
                inner.downcast_ref::<DataFusionError>().map_or_else(|| Error::internal(inner.to_string()), borrowed)
            }
            other => planned(&other.to_string()),
        },
        DataFusionError::ResourcesExhausted(text) => out_of_memory(text),
        other => planned(&other.strip_backtrace()),
    }
}

fn external(inner: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match inner.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(inner) => match inner.downcast::<DataFusionError>() {
            Ok(nested) => to_error(*nested),
            Err(inner) => match inner.downcast::<ArrowError>() {
                Ok(nested) => arrow(*nested),
                Err(other) => planned(&other.to_string()),
            },
        },
    }
}

fn arrow(error: ArrowError) -> Error {
    match error {
        ArrowError::DivideByZero => Error::new(SqlState::DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ExternalError(inner) => external(inner),
        ArrowError::ArithmeticOverflow(text) => overflow(&text),
        ArrowError::CastError(text) | ArrowError::InvalidArgumentError(text) | ArrowError::ComputeError(text) => {
            planned(&text)
        }
        ArrowError::MemoryError(text) => out_of_memory(&text),
        other => planned(&other.to_string()),
    }
}

fn schema(error: SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let name = match &field.relation {
                Some(relation) => format!("{}.{}", relation.table(), field.name),
                None => field.name.clone(),
            };
            let relation_known = field.relation.as_ref().is_none_or(|wanted| {
                valid_fields.iter().any(|f| f.relation.as_ref().is_some_and(|r| r.table() == wanted.table()))
            });
            match (&field.relation, relation_known) {
                (Some(relation), false) => Error::new(
                    SqlState::UNDEFINED_TABLE,
                    format!("missing FROM-clause entry for table \"{}\"", relation.table()),
                ),
                (Some(_), true) => Error::new(SqlState::UNDEFINED_COLUMN, format!("column {name} does not exist")),
                (None, _) => Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist")),
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new(SqlState::AMBIGUOUS_COLUMN, format!("column reference \"{}\" is ambiguous", field.name))
        }
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            Error::new(SqlState::new("42712"), format!("table name \"{}\" specified more than once", qualifier.table()))
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
        }
    }
}

/// `sql parser error: Expected: …, found: x at Line: 1, Column: 8`.
fn parser(error: ParserError) -> Error {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => return super::depth::too_deep(),
    };
    let found = text
        .split_once("found: ")
        .map(|(_, rest)| rest.split_once(" at Line:").map_or(rest, |(token, _)| token).trim().to_owned());
    let message = match found.as_deref() {
        Some("EOF" | "") => "syntax error at end of input".to_owned(),
        Some(token) => format!("syntax error at or near \"{}\"", token.trim_matches('\'')),
        None if text.contains("Unterminated string literal") => "unterminated quoted string".to_owned(),
        None => format!("syntax error: {}", text.split_once(" at Line:").map_or(text.as_str(), |(head, _)| head)),
    };
    Error::new(SqlState::SYNTAX_ERROR, message)
}

/// As [`to_error`] for a parser's error, with the character position in `sql`.
pub fn syntax_error(error: ParserError, sql: &str) -> Error {
    let text = error.to_string();
    let position = line_and_column(&text).and_then(|(line, column)| {
        let before: usize = sql.split('\n').take(line.checked_sub(1)?).map(|l| l.chars().count() + 1).sum();
        u32::try_from(before + column).ok()
    });
    let error = parser(error);
    match position {
        Some(position) => error.position(position),
        None => error,
    }
}

fn line_and_column(text: &str) -> Option<(usize, usize)> {
    let (_, rest) = text.split_once("Line: ")?;
    let (line, rest) = rest.split_once(", Column: ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((line.parse().ok()?, digits.parse().ok()?))
}

/// Division overflows only for the least number over -1, which tells the type.
fn overflow(text: &str) -> Error {
    let ty = [("-9223372036854775808", "bigint"), ("-2147483648", "integer"), ("-32768", "smallint")]
        .into_iter()
        .find(|(least, _)| text.contains(&format!("{least} / -1")));
    let message = match ty {
        Some((_, ty)) => format!("{ty} out of range"),
        None => "value out of range".to_owned(),
    };
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
}

/// PostgreSQL's name of an Arrow type that is known by its text only.
fn arrow_type_name(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    text.parse::<DataType>().map_or_else(|_| text.to_owned(), |ty| type_name(&ty))
}

fn out_of_memory(text: &str) -> Error {
    Error::new(SqlState::OUT_OF_MEMORY, "out of memory")
        .detail(first_line(text))
        .hint("The process that runs out has --query-memory-mib for all its queries together.")
}

/// Of the files that hold what does not fit into memory.
fn spill_full(text: &str) -> Option<Error> {
    let full = |message: &str| Error::new(SqlState::DISK_FULL, message);
    if text.contains("used disk space during the spilling process") {
        let hint = "All queries of a process together may spill --spill-mib to disk.";
        return Some(full("query needs more temporary disk space than is allowed").hint(hint));
    }
    text.contains("No space left on device (os error")
        .then(|| full("could not spill rows of a query: no space left on device"))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn quoted(text: &str, before: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    let end = rest.find(['\'', '"'])?;
    Some(rest[..end].to_owned())
}

/// Errors that DataFusion gives as text only.
fn planned(text: &str) -> Error {
    if let Some(ours) = flattened(text) {
        return ours;
    }
    if let Some(full) = spill_full(text) {
        return full;
    }
    let new = |code: SqlState, message: String| Error::new(code, message);
    if text.contains("Divide by zero") || text.contains("DivideByZero") {
        return new(SqlState::DIVISION_BY_ZERO, "division by zero".to_owned());
    }
    if let Some(name) = quoted(text, "Invalid function '") {
        return new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist"))
            .hint("No function matches the given name and argument types. You might need to add explicit type casts.");
    }
    if let Some(name) = quoted(text, "table function '") {
        return new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist"));
    }
    if text.starts_with("table '") || text.contains("No table named '") || text.contains(": table '") {
        let name = quoted(text, "table '").or_else(|| quoted(text, "No table named '")).unwrap_or_default();
        return new(SqlState::UNDEFINED_TABLE, format!("relation \"{}\" does not exist", bare_relation(&name)));
    }
    if text.contains("must appear in the GROUP BY clause") || text.contains("must be in GROUP BY") {
        let column = quoted(
            text,
            "Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column \"",
        )
        .or_else(|| quoted(text, "column \""))
        .unwrap_or_else(|| first_line(text));
        return new(
            SqlState::GROUPING_ERROR,
            format!("column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"),
        );
    }
    if let Some(target) = text.split_once("to type ").map(|(_, ty)| ty).filter(|_| text.contains("Can't cast value")) {
        let name = if target.starts_with("Int16") {
            "smallint"
        } else if target.starts_with("Int32") {
            "integer"
        } else {
            "bigint"
        };
        return new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"));
    }
    if text.contains("too large to store in a Decimal") || text.contains("too small to store in a Decimal") {
        return new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow".to_owned());
    }
    if text.contains("verflow") {
        return overflow(text);
    }
    if text.contains("DISTINCT ON expressions must match initial ORDER BY expressions") {
        let message = "SELECT DISTINCT ON expressions must match initial ORDER BY expressions";
        return new(SqlState::new("42P10"), message.to_owned());
    }
    if text.contains("The subquery should only return one column") {
        return new(SqlState::SYNTAX_ERROR, "subquery must return only one column".to_owned());
    }
    if let Some((_, ty)) = text
        .split_once("Cannot create filter with non-boolean predicate")
        .and_then(|(_, rest)| rest.split_once("returning "))
    {
        let ty = arrow_type_name(ty);
        return new(SqlState::DATATYPE_MISMATCH, format!("argument of WHERE must be type boolean, not type {ty}"));
    }
    if text.contains("Cannot coerce")
        || text.contains("Cannot infer common argument type")
        || text.contains("No function matches")
        || text.contains("coercion from")
        || text.contains("Error during planning: Function '")
        || text.contains("Function '")
    {
        return no_match(text);
    }
    if text.contains("Scalar subquery returned more than one row") || text.contains("more than one row returned") {
        return new(
            SqlState::CARDINALITY_VIOLATION,
            "more than one row returned by a subquery used as an expression".to_owned(),
        );
    }
    if text.contains("UNION query must have the same number of columns")
        || text.contains("queries have different number of columns")
    {
        return new(SqlState::SYNTAX_ERROR, "each UNION query must have the same number of columns".to_owned());
    }
    if let Some((_, rest)) = text.split_once("Order by column out of bounds, specified: ") {
        let position: String = rest.chars().take_while(char::is_ascii_digit).collect();
        return new(SqlState::new("42P10"), format!("ORDER BY position {position} is not in select list"));
    }
    if text.contains("Aggregate function calls cannot be nested") {
        return new(SqlState::GROUPING_ERROR, "aggregate function calls cannot be nested".to_owned());
    }
    if text.contains("Aggregate functions are not allowed in the WHERE clause") {
        return new(SqlState::GROUPING_ERROR, "aggregate functions are not allowed in WHERE".to_owned());
    }
    if text.contains("Inconsistent data length across values list") {
        return new(SqlState::SYNTAX_ERROR, "VALUES lists must all be the same length".to_owned());
    }
    if text.contains("LIMIT must be >= 0") {
        return new(SqlState::new("2201W"), "LIMIT must not be negative".to_owned());
    }
    if text.contains("OFFSET must be >=0") || text.contains("OFFSET must be >= 0") {
        return new(SqlState::new("2201X"), "OFFSET must not be negative".to_owned());
    }
    if text.contains("This feature is not implemented")
        || text.contains("Unsupported")
        || text.contains("not supported")
    {
        let tail = text.rsplit_once("not implemented: ").map_or(text, |(_, tail)| tail);
        return new(SqlState::FEATURE_NOT_SUPPORTED, first_line(tail));
    }
    if text.contains("Resources exhausted") {
        return out_of_memory(text);
    }
    Error::internal(first_line(text))
}

/// `multinode.public.t` is what the user called `t`.
fn bare_relation(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        [_, "public", table] => (*table).to_owned(),
        [_, schema, table] => format!("{schema}.{table}"),
        _ => name.to_owned(),
    }
}

fn no_match(text: &str) -> Error {
    if let Some((_, call)) = text.split_once("No function matches the given name and argument types '")
        && let Some((name, rest)) = call.split_once('(')
        && let Some(types) = argument_types(rest)
    {
        return no_function_of(name, &types);
    }
    let name = quoted(text, "Function '").or_else(|| quoted(text, "function '"));
    match name.or_else(|| quoted(text, "planning: '")) {
        Some(name) if text.contains("does not support zero arguments") => no_function_of(&name, &[]),
        Some(name) => Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist"))
            .detail(first_line(text))
            .hint("No function matches the given name and argument types. You might need to add explicit type casts."),
        None => Error::new(SqlState::DATATYPE_MISMATCH, first_line(text)),
    }
}

/// `Utf8, Decimal128(38, 16))'…`: PostgreSQL's names of Arrow types up to the closing bracket.
fn argument_types(list: &str) -> Option<Vec<String>> {
    let (mut depth, mut start) = (0, 0);
    let mut types = Vec::new();
    for (at, c) in list.char_indices() {
        let ends = depth == 0 && matches!(c, ',' | ')');
        if ends && !list[start..at].trim().is_empty() {
            types.push(type_name(&list[start..at].trim().parse::<DataType>().ok()?));
            start = at + 1;
        }
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(types),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// One of our errors that DataFusion turned into text on its way: `… External error: message (SQLSTATE 22012)…`.
fn flattened(text: &str) -> Option<Error> {
    let (head, tail) = text.split_once(" (SQLSTATE ")?;
    let code = SqlState::parse(tail.get(..5)?);
    let message = head.rsplit_once("External error: ").map_or(head, |(_, message)| message);
    Some(Error::new(code, message))
}
