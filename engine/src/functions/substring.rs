//! Parts of text and of `bytea`: `substring(… FROM … FOR …)`, and how `bytea` are joined.

use super::scalar::{Call, Function, Overload, raise};
use super::text::text_at;
use super::types::{Class, class};
use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Int32Array, StringBuilder};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use proto::{Error, SqlState};
use std::ops::Range;
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new("substr", substr_types, substr).alias("substring").udf(),
        Function::new("bytea_concat", two_byteas, concat).operator("||").udf(),
        Function::new("get_byte", byte_types, get_byte).udf(),
    ]
}

fn substr_types(types: &[DataType]) -> Option<Overload> {
    let [value, positions @ ..] = types else { return None };
    let value = match class(value) {
        Class::Bytes => DataType::Binary,
        Class::Text | Class::Unknown => DataType::Utf8,
        _ => return None,
    };
    let whole = |ty: &DataType| matches!(class(ty), Class::Integer | Class::Unknown);
    if !matches!(positions.len(), 1 | 2) || !positions.iter().all(whole) {
        return None;
    }
    let mut args = vec![DataType::Int64; types.len()];
    args[0] = value.clone();
    Some(Overload::new(args, value))
}

fn two_byteas(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([DataType::Binary, DataType::Binary], DataType::Binary))
}

fn byte_types(types: &[DataType]) -> Option<Overload> {
    let [value, _] = types else { return None };
    let bytes = matches!(class(value), Class::Bytes | Class::Unknown);
    bytes.then(|| Overload::new([DataType::Binary, DataType::Int64], DataType::Int32))
}

fn substr(call: &Call) -> Result<ArrayRef> {
    let (values, starts) = (call.array(0)?, call.array(1)?);
    let counts = if call.args.len() == 3 { Some(call.array(2)?) } else { None };
    let at = |array: &ArrayRef, row: usize| {
        let array = array.as_primitive::<Int64Type>();
        array.is_valid(row).then(|| array.value(row))
    };
    let wanted = |row: usize| -> Result<Option<Range<usize>>> {
        let count = match &counts {
            None => i64::MAX,
            Some(counts) => match at(counts, row) {
                Some(count) => count,
                None => return Ok(None),
            },
        };
        at(&starts, row).filter(|_| values.is_valid(row)).map(|start| range(start, count).map_err(raise)).transpose()
    };
    if *values.data_type() == DataType::Binary {
        let mut results = BinaryBuilder::new();
        for row in 0..call.rows {
            results.append_option(wanted(row)?.map(|range| {
                let value = values.as_binary::<i32>().value(row);
                &value[range.start.min(value.len())..range.end.min(value.len())]
            }));
        }
        return Ok(Arc::new(results.finish()));
    }
    let mut results = StringBuilder::new();
    for row in 0..call.rows {
        results.append_option(wanted(row)?.zip(text_at(&values, row)).map(|(range, text)| part(text, range)));
    }
    Ok(Arc::new(results.finish()))
}

/// From a position that counts from one and a length: what of it lies behind the beginning, counted from zero.
fn range(start: i64, count: i64) -> Result<Range<usize>, Error> {
    if count < 0 {
        return Err(Error::new(SqlState::new("22011"), "negative substring length not allowed"));
    }
    let end = start.saturating_add(count).max(1) - 1;
    let start = start.max(1) - 1;
    let index = |position: i64| usize::try_from(position).unwrap_or(usize::MAX);
    Ok(index(start)..index(end.max(start)))
}

fn part(text: &str, characters: Range<usize>) -> &str {
    if text.is_ascii() {
        return &text[characters.start.min(text.len())..characters.end.min(text.len())];
    }
    let offset = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(offset, _)| offset);
    &text[offset(characters.start)..offset(characters.end)]
}

fn concat(call: &Call) -> Result<ArrayRef> {
    let (left, right) = (call.array(0)?, call.array(1)?);
    let mut results = BinaryBuilder::new();
    for (left, right) in left.as_binary::<i32>().iter().zip(right.as_binary::<i32>()) {
        results.append_option(left.zip(right).map(|(left, right)| [left, right].concat()));
    }
    Ok(Arc::new(results.finish()))
}

fn get_byte(call: &Call) -> Result<ArrayRef> {
    let (values, positions) = (call.array(0)?, call.array(1)?);
    let at = |(value, position): (Option<&[u8]>, Option<i64>)| -> Result<Option<i32>> {
        let (Some(value), Some(position)) = (value, position) else { return Ok(None) };
        let byte = usize::try_from(position).ok().and_then(|position| value.get(position));
        let out_of_range = || {
            let last = value.len() as i64 - 1;
            raise(Error::new(SqlState::new("2202E"), format!("index {position} out of valid range, 0..{last}")))
        };
        byte.map(|byte| Some(i32::from(*byte))).ok_or_else(out_of_range)
    };
    let bytes = values.as_binary::<i32>().iter().zip(positions.as_primitive::<Int64Type>()).map(at);
    Ok(Arc::new(bytes.collect::<Result<Int32Array>>()?))
}
