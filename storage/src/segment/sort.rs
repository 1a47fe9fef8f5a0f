//! The order of a segment's rows: by the layout's columns ascending, NULLs last, text by its bytes.

use crate::error::Result;
use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, cast, lexsort_to_indices};
use arrow::datatypes::{DataType, Int64Type};
use std::collections::HashMap;

const ORDER: SortOptions = SortOptions { descending: false, nulls_first: false };

/// The row numbers in sorted order; `None` when the rows are sorted as they are. Equal rows keep their order where the
/// columns have keys (see `keys`).
pub(super) fn sorted_rows(columns: &[ArrayRef]) -> Result<Option<UInt32Array>> {
    let Some(first) = columns.first() else { return Ok(None) };
    let rows = u32::try_from(first.len()).expect("a segment has fewer than 2^32 rows");
    let keys = columns.iter().take(3).map(keys).collect::<Result<Option<Vec<_>>>>()?;
    let order = match keys.as_deref() {
        Some([a]) => sort_by(rows, |row| a[row as usize]),
        Some([a, b]) => sort_by(rows, |row| (a[row as usize], b[row as usize])),
        Some([a, b, c]) if columns.len() == 3 => {
            sort_by(rows, |row| (a[row as usize], b[row as usize], c[row as usize]))
        }
        _ => Some(lexsort_to_indices(&sort_columns(columns), None)?),
    };
    Ok(order)
}

/// The number of the first row that is smaller than the one before it.
pub(crate) fn check_order(columns: &[ArrayRef]) -> Result<Option<usize>> {
    let Some(first) = columns.first() else { return Ok(None) };
    let compare = arrow::compute::LexicographicalComparator::try_new(&sort_columns(columns))?;
    Ok((1..first.len()).find(|row| compare.compare(row - 1, *row).is_gt()))
}

fn sort_columns(columns: &[ArrayRef]) -> Vec<SortColumn> {
    columns.iter().map(|values| SortColumn { values: values.clone(), options: Some(ORDER) }).collect()
}

/// Sorts row numbers by a key that is cheap to compare; many times quicker than comparing the columns.
fn sort_by<K: Ord + Copy>(rows: u32, key: impl Fn(u32) -> K) -> Option<UInt32Array> {
    if (1..rows).all(|row| key(row - 1) <= key(row)) {
        return None;
    }
    let mut keyed = (0..rows).map(|row| (key(row), row)).collect::<Vec<_>>();
    keyed.sort_unstable();
    Some(keyed.into_iter().map(|(_, row)| row).collect::<Vec<_>>().into())
}

/// Numbers that are ordered as the values are; `None` where there are none.
fn keys(column: &ArrayRef) -> Result<Option<Vec<u64>>> {
    match column.data_type() {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => integer_keys(column),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Time64(_) => integer_keys(column),
        DataType::Utf8 => Ok(Some(text_keys(column))),
        _ => Ok(None),
    }
}

fn integer_keys(column: &ArrayRef) -> Result<Option<Vec<u64>>> {
    let integers = cast(column, &DataType::Int64)?;
    let integers = integers.as_primitive::<Int64Type>();
    let key = |value: i64| value as u64 ^ (1 << 63);
    if integers.null_count() == 0 {
        return Ok(Some(integers.values().iter().map(|value| key(*value)).collect()));
    }
    // i64::MAX has the key that NULL takes.
    match integers.iter().flatten().any(|value| value == i64::MAX) {
        true => Ok(None),
        false => Ok(Some(integers.iter().map(|value| value.map_or(u64::MAX, key)).collect())),
    }
}

/// The rank of each text among the distinct ones.
fn text_keys(column: &ArrayRef) -> Vec<u64> {
    let texts = column.as_string::<i32>();
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut distinct: Vec<&str> = Vec::new();
    let mut before: Option<(&str, u32)> = None;
    let numbered = texts.iter().map(|text| {
        let text = text?;
        if let Some((same, number)) = before
            && same == text
        {
            return Some(number);
        }
        let number = *numbers.entry(text).or_insert_with(|| {
            distinct.push(text);
            distinct.len() as u32 - 1
        });
        before = Some((text, number));
        Some(number)
    });
    let numbered = numbered.collect::<Vec<_>>();
    let mut order = (0..distinct.len() as u32).collect::<Vec<_>>();
    order.sort_unstable_by_key(|number| distinct[*number as usize]);
    let mut ranks = vec![0u64; distinct.len()];
    order.iter().zip(0..).for_each(|(number, rank)| ranks[*number as usize] = rank);
    numbered.into_iter().map(|number| number.map_or(u64::MAX, |number| ranks[number as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::compute::take;
    use std::sync::Arc;

    #[test]
    fn keyed_sorting_agrees_with_comparing_the_columns() {
        let mut random = 7u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        for round in 0..200 {
            let rows = below(60);
            let texts = (0..rows).map(|_| Some(below(7)).filter(|n| *n > 0).map(|n| format!("h{}", n * 7 % 10)));
            let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
            let extremes = [i64::MIN, -1, 0, 1, 5, i64::MAX - round % 2];
            let times = (0..rows).map(|_| Some(below(7)).filter(|n| *n < 6).map(|n| extremes[n as usize]));
            let times: ArrayRef = Arc::new(times.collect::<Int64Array>());
            for columns in [vec![texts.clone()], vec![texts.clone(), times.clone()], vec![times, texts]] {
                let sorted = match sorted_rows(&columns).unwrap() {
                    Some(order) => columns.iter().map(|c| take(c, &order, None).unwrap()).collect(),
                    None => columns,
                };
                assert_eq!(check_order(&sorted).unwrap(), None, "round {round}");
            }
        }
    }
}
