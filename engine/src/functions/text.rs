//! Text: functions that take any type, quoting, and those whose types DataFusion sees otherwise.

use super::scalar::{Call, Function, Overload, raise, type_name};
use super::types::{Class, class};
use crate::PgType;
use crate::semantics::text_form::{cast_to_text, to_text};
use crate::types::PG_TYPE;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("concat", any_types, |call| joined(call, 0)).udf(),
        Function::new("concat_ws", separated_types, |call| joined(call, 1)).udf(),
        Function::new("format", separated_types, format).udf(),
        Function::new("length", text_to_int, length).alias("char_length").udf(),
        Function::new("quote_ident", text_to_text, |call| map_text(call, |text| Ok(quote_ident(text)))).udf(),
        Function::new("quote_literal", one_any, quote_literal).udf(),
        Function::new("quote_nullable", one_any, quote_nullable).udf(),
        Function::new("pg_typeof", one_unchanged, pg_typeof).field(regtype).udf(),
    ]
}

fn any_types(types: &[DataType]) -> Option<Overload> {
    let args: Vec<DataType> = types.iter().map(printable).collect();
    (!types.is_empty()).then(|| Overload::new(args, DataType::Utf8))
}

fn separated_types(types: &[DataType]) -> Option<Overload> {
    let mut args: Vec<DataType> = types.iter().map(printable).collect();
    *args.first_mut()? = DataType::Utf8;
    Some(Overload::new(args, DataType::Utf8))
}

/// Anything but an untyped value stays as it is: its text form depends on its type.
fn printable(ty: &DataType) -> DataType {
    match class(ty) {
        Class::Unknown | Class::Text => DataType::Utf8,
        _ => ty.clone(),
    }
}

fn text_to_text(types: &[DataType]) -> Option<Overload> {
    (types.len() == 1).then(|| Overload::new([DataType::Utf8], DataType::Utf8))
}

fn one_any(types: &[DataType]) -> Option<Overload> {
    let [ty] = types else { return None };
    Some(Overload::new([printable(ty)], DataType::Utf8))
}

fn one_unchanged(types: &[DataType]) -> Option<Overload> {
    let [ty] = types else { return None };
    Some(Overload::new([ty.clone()], DataType::Utf8))
}

fn text_to_int(types: &[DataType]) -> Option<Overload> {
    let [ty] = types else { return None };
    let ty = match class(ty) {
        Class::Bytes => DataType::Binary,
        Class::Text | Class::Unknown => DataType::Utf8,
        _ => return None,
    };
    Some(Overload::new([ty], DataType::Int32))
}

fn map_text(call: &Call, map: impl Fn(&str) -> Result<String, Error>) -> Result<ArrayRef> {
    let texts = call.array(0)?;
    let mapped =
        texts.as_string::<i32>().iter().map(|text| text.map(&map).transpose()).collect::<Result<StringArray, Error>>();
    Ok(Arc::new(mapped.map_err(raise)?))
}

fn length(call: &Call) -> Result<ArrayRef> {
    let values = call.array(0)?;
    let lengths: Int32Array = match values.data_type() {
        DataType::Binary => {
            values.as_binary::<i32>().iter().map(|value| value.map(|value| value.len() as i32)).collect()
        }
        _ => values.as_string::<i32>().iter().map(|text| text.map(|text| text.chars().count() as i32)).collect(),
    };
    Ok(Arc::new(lengths))
}

fn all_texts(call: &Call) -> Result<Vec<ArrayRef>> {
    let zone = call.zone()?;
    (0..call.args.len()).map(|index| to_text(&call.array(index)?, zone)).collect()
}

pub fn text_at(array: &ArrayRef, row: usize) -> Option<&str> {
    let array = array.as_string::<i32>();
    array.is_valid(row).then(|| array.value(row))
}

/// NULL arguments are left out; only a NULL separator gives NULL.
fn joined(call: &Call, separator_count: usize) -> Result<ArrayRef> {
    let texts = all_texts(call)?;
    let mut results = StringBuilder::new();
    for row in 0..call.rows {
        let separator = match separator_count {
            0 => Some(""),
            _ => text_at(&texts[0], row),
        };
        match separator {
            None => results.append_null(),
            Some(separator) => {
                let parts: Vec<&str> = texts[separator_count..].iter().filter_map(|text| text_at(text, row)).collect();
                results.append_value(parts.join(separator));
            }
        }
    }
    Ok(Arc::new(results.finish()))
}

/// `%s`, `%I`, `%L`, `%%`, with optional `n$` and width.
fn format(call: &Call) -> Result<ArrayRef> {
    let texts = all_texts(call)?;
    let mut results = StringBuilder::new();
    for row in 0..call.rows {
        match text_at(&texts[0], row) {
            None => results.append_null(),
            Some(template) => {
                let values: Vec<Option<&str>> = texts[1..].iter().map(|text| text_at(text, row)).collect();
                results.append_value(fill(template, &values).map_err(raise)?);
            }
        }
    }
    Ok(Arc::new(results.finish()))
}

fn fill(template: &str, values: &[Option<&str>]) -> Result<String, Error> {
    let bad = |message: String| Error::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let mut text = String::new();
    let mut rest = template;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut spec = rest.chars();
        let mut position = None;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if !digits.is_empty() && rest[digits.len()..].starts_with('$') {
            position = digits.parse::<usize>().ok();
            spec = rest[digits.len() + 1..].chars();
        }
        let after = spec.as_str();
        let left = after.starts_with('-');
        let after = after.strip_prefix('-').unwrap_or(after);
        let width: String = after.chars().take_while(char::is_ascii_digit).collect();
        let after = &after[width.len()..];
        let Some(kind) = after.chars().next() else {
            return Err(bad("unterminated format() type specifier".to_owned()));
        };
        rest = &after[kind.len_utf8()..];
        if kind == '%' {
            text.push('%');
            continue;
        }
        let index = match position {
            Some(0) => return Err(bad("format specifies argument 0, but arguments are numbered from 1".to_owned())),
            Some(position) => position - 1,
            None => next,
        };
        next = index + 1;
        let value = *values.get(index).ok_or_else(|| bad("too few arguments for format()".to_owned()))?;
        let shown = match (kind, value) {
            ('s', value) => value.unwrap_or_default().to_owned(),
            ('I', Some(value)) => quote_ident(value),
            ('I', None) => {
                let message = "null values cannot be formatted as an SQL identifier";
                return Err(Error::new(SqlState::new("22004"), message));
            }
            ('L', Some(value)) => quoted(value),
            ('L', None) => "NULL".to_owned(),
            (other, _) => return Err(bad(format!("unrecognized format() type specifier \"{other}\""))),
        };
        let padding = width.parse::<usize>().unwrap_or(0).saturating_sub(shown.chars().count());
        let spaces = " ".repeat(padding.min(1 << 20));
        if left {
            text.push_str(&shown);
            text.push_str(&spaces);
        } else {
            text.push_str(&spaces);
            text.push_str(&shown);
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// Words that PostgreSQL quotes although they look like plain names.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

pub fn quote_ident(name: &str) -> String {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    let other = |c: char| first(c) || c.is_ascii_digit();
    let plain = name.chars().next().is_some_and(first) && name.chars().all(other) && !RESERVED.contains(&name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn quoted(text: &str) -> String {
    let body = text.replace('\'', "''");
    match body.contains('\\') {
        true => format!("E'{}'", body.replace('\\', "\\\\")),
        false => format!("'{body}'"),
    }
}

fn quote_literal(call: &Call) -> Result<ArrayRef> {
    let texts = cast_to_text(&call.array(0)?, call.zone()?)?;
    let quoted: StringArray = texts.as_string::<i32>().iter().map(|text| text.map(quoted)).collect();
    Ok(Arc::new(quoted))
}

fn quote_nullable(call: &Call) -> Result<ArrayRef> {
    let texts = cast_to_text(&call.array(0)?, call.zone()?)?;
    let quote = |text: Option<&str>| Some(text.map_or_else(|| "NULL".to_owned(), quoted));
    let quoted: StringArray = texts.as_string::<i32>().iter().map(quote).collect();
    Ok(Arc::new(quoted))
}

fn regtype(_args: &ReturnFieldArgs) -> Result<Option<FieldRef>> {
    let field = Field::new("pg_typeof", DataType::Utf8, true);
    Ok(Some(Arc::new(field.with_metadata([(PG_TYPE.to_owned(), PgType::Regtype.to_string())].into()))))
}

/// The type's name without modifiers. An untyped literal became `unknown` before, while it could be told apart.
fn pg_typeof(call: &Call) -> Result<ArrayRef> {
    let name = match PgType::from_field(&call.fields[0]) {
        Some(PgType::Varchar(_)) => PgType::Varchar(None).to_string(),
        Some(PgType::Bpchar(_)) => PgType::Bpchar(None).to_string(),
        Some(ty @ (PgType::Name | PgType::Uuid | PgType::Json | PgType::Jsonb)) => ty.to_string(),
        _ => type_name(call.fields[0].data_type()),
    };
    Ok(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, call.rows))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_fills_as_postgres_does() {
        assert_eq!(fill("%s-%s", &[Some("a"), None]).unwrap(), "a-");
        assert_eq!(fill("%I.%I = %L", &[Some("a b"), Some("c"), Some("it's")]).unwrap(), "\"a b\".c = 'it''s'");
        assert_eq!(fill("%2$s %1$s %%", &[Some("a"), Some("b")]).unwrap(), "b a %");
        assert_eq!(fill("|%5s|%-5s|", &[Some("a"), Some("b")]).unwrap(), "|    a|b    |");
        assert!(fill("%s %s", &[Some("a")]).is_err());
    }

    #[test]
    fn names_are_quoted_when_they_must_be() {
        let quoted = ["a", "A", "a b", "select", "a\"b", "_x1", "1a", ""].map(quote_ident);
        assert_eq!(quoted, ["a", "\"A\"", "\"a b\"", "\"select\"", "\"a\"\"b\"", "_x1", "\"1a\"", "\"\""]);
    }
}
