//! Regular expressions in functions. The operators `~` and its kin are DataFusion's.

use super::scalar::{Call, Function, Overload, raise};
use super::text::text_at;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field, Int32Type};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use proto::{Error, SqlState};
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("regexp_replace", regexp_types, regexp_replace).udf(),
        Function::new("regexp_group", two_texts, regexp_group).udf(),
        Function::new("regexp_matches_list", matches_types, regexp_matches).udf(),
        Function::new("regexp_substr", substr_types, regexp_substr).udf(),
        Function::new("regexp_instr", instr_types, regexp_instr).udf(),
        Function::new("regexp_split_to_array", split_types, regexp_split).udf(),
    ]
}

fn two_texts(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([DataType::Utf8, DataType::Utf8], DataType::Utf8))
}

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", element, true)))
}

/// One list of groups for each match.
fn matches_types(types: &[DataType]) -> Option<Overload> {
    let result = list_of(list_of(DataType::Utf8));
    matches!(types.len(), 2 | 3).then(|| Overload::new(vec![DataType::Utf8; types.len()], result))
}

/// `(text, pattern, start, n, flags, group)`, all but two optional.
fn substr_types(types: &[DataType]) -> Option<Overload> {
    const ARGS: [DataType; 6] =
        [DataType::Utf8, DataType::Utf8, DataType::Int32, DataType::Int32, DataType::Utf8, DataType::Int32];
    (2..=6).contains(&types.len()).then(|| Overload::new(&ARGS[..types.len()], DataType::Utf8))
}

/// As `substr_types`, with "the end?" before the flags.
fn instr_types(types: &[DataType]) -> Option<Overload> {
    const ARGS: [DataType; 7] = [
        DataType::Utf8,
        DataType::Utf8,
        DataType::Int32,
        DataType::Int32,
        DataType::Int32,
        DataType::Utf8,
        DataType::Int32,
    ];
    (2..=7).contains(&types.len()).then(|| Overload::new(&ARGS[..types.len()], DataType::Int32))
}

fn split_types(types: &[DataType]) -> Option<Overload> {
    let result = list_of(DataType::Utf8);
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
fn regexp_group(call: &Call) -> Result<ArrayRef> {
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

/// The groups of the first match, or of each with the flag `g`; all of a match where there are no groups.
fn regexp_matches(call: &Call) -> Result<ArrayRef> {
    let arrays = (0..call.args.len()).map(|index| call.array(index)).collect::<Result<Vec<_>>>()?;
    let mut compiled = Compiled::default();
    let item = |element: DataType| Arc::new(Field::new("item", element, true));
    let groups = ListBuilder::new(StringBuilder::new()).with_field(item(DataType::Utf8));
    let mut results = ListBuilder::new(groups).with_field(item(list_of(DataType::Utf8)));
    for row in 0..call.rows {
        let values: Option<Vec<&str>> = arrays.iter().map(|array| text_at(array, row)).collect();
        let Some(values) = values else {
            results.append(true);
            continue;
        };
        let flags = values.get(2).copied().unwrap_or("");
        let regex = compiled.get(values[1], flags)?;
        let first = if regex.captures_len() > 1 { 1 } else { 0 };
        for found in regex.captures_iter(values[0]).take(if flags.contains('g') { usize::MAX } else { 1 }) {
            for group in first..regex.captures_len() {
                results.values().values().append_option(found.get(group).map(|m| m.as_str()));
            }
            results.values().append(true);
        }
        results.append(true);
    }
    Ok(Arc::new(results.finish()))
}

/// The arguments that `regexp_substr` and `regexp_instr` share; `None` when one is NULL.
struct Search<'a> {
    text: &'a str,
    pattern: &'a str,
    /// In characters, from one.
    start: i32,
    /// Which match, from one.
    nth: i32,
    end: bool,
    flags: &'a str,
    /// 0: all of the match.
    group: i32,
}

impl<'a> Search<'a> {
    fn read(arrays: &'a [ArrayRef], row: usize, has_end: bool) -> Result<Option<Search<'a>>> {
        if arrays.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let number = |index: usize, default: i32| match arrays.get(index) {
            Some(array) => array.as_primitive::<Int32Type>().value(row),
            None => default,
        };
        let text = |index: usize| arrays.get(index).and_then(|array| text_at(array, row)).unwrap_or("");
        let (end, flags_at) = if has_end { (number(4, 0), 5) } else { (0, 4) };
        let search = Search {
            text: text(0),
            pattern: text(1),
            start: number(2, 1),
            nth: number(3, 1),
            end: end == 1,
            flags: text(flags_at),
            group: number(flags_at + 1, 0),
        };
        let limits = [
            ("start", search.start, 1, i32::MAX),
            ("n", search.nth, 1, i32::MAX),
            ("endoption", end, 0, 1),
            ("subexpr", search.group, 0, i32::MAX),
        ];
        for (name, value, least, most) in limits {
            if !(least..=most).contains(&value) {
                let message = format!("invalid value for parameter \"{name}\": {value}");
                return Err(raise(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)));
            }
        }
        if search.flags.contains('g') {
            let name = if has_end { "regexp_instr" } else { "regexp_substr" };
            let message = format!("{name}() does not support the \"global\" option");
            return Err(raise(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)));
        }
        Ok(Some(search))
    }

    /// The bytes of the text that were asked for.
    fn find(&self, compiled: &mut Compiled) -> Result<Option<std::ops::Range<usize>>> {
        let regex = compiled.get(self.pattern, self.flags)?;
        let Some((offset, _)) = self.text.char_indices().nth(self.start as usize - 1) else { return Ok(None) };
        let mut from = offset;
        for nth in 1.. {
            let Some(found) = regex.captures_at(self.text, from) else { break };
            let whole = found.get(0).map_or(from..from, |m| m.range());
            if nth == self.nth {
                return Ok(found.get(self.group as usize).map(|m| m.range()));
            }
            let next = self.text[whole.end..].chars().next().map_or(1, char::len_utf8);
            from = if whole.is_empty() { whole.end + next } else { whole.end };
            if from > self.text.len() {
                break;
            }
        }
        Ok(None)
    }
}

fn regexp_substr(call: &Call) -> Result<ArrayRef> {
    let arrays = (0..call.args.len()).map(|index| call.array(index)).collect::<Result<Vec<_>>>()?;
    let mut compiled = Compiled::default();
    let mut results = StringBuilder::new();
    for row in 0..call.rows {
        match Search::read(&arrays, row, false)? {
            None => results.append_null(),
            Some(search) => {
                let found = search.find(&mut compiled)?;
                results.append_option(found.map(|range| &search.text[range]));
            }
        }
    }
    Ok(Arc::new(results.finish()))
}

/// Where a match begins, or what follows it begins; 0 for none.
fn regexp_instr(call: &Call) -> Result<ArrayRef> {
    let arrays = (0..call.args.len()).map(|index| call.array(index)).collect::<Result<Vec<_>>>()?;
    let mut compiled = Compiled::default();
    let mut results: Vec<Option<i32>> = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        results.push(match Search::read(&arrays, row, true)? {
            None => None,
            Some(search) => Some(match search.find(&mut compiled)? {
                None => 0,
                Some(range) => {
                    let offset = if search.end { range.end } else { range.start };
                    search.text[..offset].chars().count() as i32 + 1
                }
            }),
        });
    }
    Ok(Arc::new(Int32Array::from(results)))
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
