//! Regular expressions in functions. The operators `~` and its kin are DataFusion's.

use super::scalar::{Call, Function, Overload, raise};
use super::text::text_at;
use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("regexp_replace", regexp_types, regexp_replace).udf(),
        Function::new("regexp_substr", substr_types, regexp_substr).udf(),
        Function::new("regexp_split_to_array", split_types, regexp_split).udf(),
    ]
}

fn substr_types(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([DataType::Utf8, DataType::Utf8], DataType::Utf8))
}

fn split_types(types: &[DataType]) -> Option<Overload> {
    let result = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    matches!(types.len(), 2 | 3).then(|| Overload::new(vec![DataType::Utf8; types.len()], result))
}

/// A pattern compiled once for as long as it stays the same from row to row.
#[derive(Default)]
struct Compiled(Option<(String, String, regex::Regex)>);

impl Compiled {
    fn get(&mut self, pattern: &str, flags: &str) -> Result<&regex::Regex> {
        if self.0.as_ref().is_none_or(|(of, with, _)| of != pattern || with != flags) {
            let regex = compile(pattern, flags).map_err(raise)?;
            self.0 = Some((pattern.to_owned(), flags.to_owned(), regex));
        }
        let (.., regex) = self.0.as_ref().expect("it was set above");
        Ok(regex)
    }
}

/// `substring(text from pattern)`: the first group of the first match, or all of it where there are no groups.
fn regexp_substr(call: &Call) -> Result<ArrayRef> {
    let (texts, patterns) = (call.array(0)?, call.array(1)?);
    let mut compiled = Compiled::default();
    let mut results = StringBuilder::new();
    for row in 0..call.rows {
        let (Some(text), Some(pattern)) = (text_at(&texts, row), text_at(&patterns, row)) else {
            results.append_null();
            continue;
        };
        let found = compiled.get(pattern, "")?.captures(text);
        results
            .append_option(found.as_ref().and_then(|found| found.get(1).or_else(|| found.get(0))).map(|m| m.as_str()));
    }
    Ok(Arc::new(results.finish()))
}

fn regexp_split(call: &Call) -> Result<ArrayRef> {
    let arrays = (0..call.args.len()).map(|index| call.array(index)).collect::<Result<Vec<_>>>()?;
    let mut compiled = Compiled::default();
    let mut results =
        ListBuilder::new(StringBuilder::new()).with_field(Arc::new(Field::new("item", DataType::Utf8, true)));
    for row in 0..call.rows {
        let values: Option<Vec<&str>> = arrays.iter().map(|array| text_at(array, row)).collect();
        let Some(values) = values else {
            results.append_null();
            continue;
        };
        for part in compiled.get(values[1], values.get(2).copied().unwrap_or(""))?.split(values[0]) {
            results.values().append_value(part);
        }
        results.append(true);
    }
    Ok(Arc::new(results.finish()))
}

fn regexp_types(types: &[DataType]) -> Option<Overload> {
    matches!(types.len(), 3 | 4).then(|| Overload::new(vec![DataType::Utf8; types.len()], DataType::Utf8))
}

/// `\1` and `\&` in the replacement; the first match only, unless the flags have `g`.
fn regexp_replace(call: &Call) -> Result<ArrayRef> {
    let arrays = (0..call.args.len()).map(|index| call.array(index)).collect::<Result<Vec<_>>>()?;
    let mut compiled = Compiled::default();
    let mut results = StringBuilder::new();
    for row in 0..call.rows {
        let values: Option<Vec<&str>> = arrays.iter().map(|array| text_at(array, row)).collect();
        let Some(values) = values else {
            results.append_null();
            continue;
        };
        let flags = values.get(3).copied().unwrap_or("");
        let regex = compiled.get(values[1], flags)?;
        let replacement = replacement(values[2]);
        let limit = if flags.contains('g') { 0 } else { 1 };
        results.append_value(regex.replacen(values[0], limit, replacement.as_str()));
    }
    Ok(Arc::new(results.finish()))
}

fn compile(pattern: &str, flags: &str) -> Result<regex::Regex, Error> {
    let mut builder = regex::RegexBuilder::new(pattern);
    builder.size_limit(1 << 20);
    for flag in flags.chars() {
        match flag {
            'g' => {}
            'i' => {
                builder.case_insensitive(true);
            }
            'c' => {
                builder.case_insensitive(false);
            }
            's' => {
                builder.dot_matches_new_line(true);
            }
            'n' | 'm' => {
                builder.multi_line(true);
            }
            'x' => {
                builder.ignore_whitespace(true);
            }
            other => {
                let message = format!("invalid regular expression option: \"{other}\"");
                return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
        }
    }
    builder.build().map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Error::new(SqlState::new("2201B"), format!("invalid regular expression: {reason}"))
    })
}

/// PostgreSQL's `\1` as the regex crate's `${1}`.
fn replacement(text: &str) -> String {
    let mut result = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '$' => result.push_str("$$"),
            '\\' => match characters.next() {
                Some('&') => result.push_str("${0}"),
                Some(digit) if digit.is_ascii_digit() => {
                    result.push_str("${");
                    result.push(digit);
                    result.push('}');
                }
                Some(other) => result.push(other),
                None => result.push('\\'),
            },
            c => result.push(c),
        }
    }
    result
}
