//! The filler against a naive twin that has all rows before it: the same whatever batches come in and go out.

use super::filler::Filler;
use super::filling::{Fill, Filling, How, output};
use super::grid::Grid;
use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `(key, time, value)`.
type Row = (i64, i64, Option<i64>);

const WIDTH: i64 = 10;
const START: i64 = 0;
const FINISH: i64 = 60;

/// Columns: key, time, value, and the value again for each way to fill it.
fn filling(keyed: bool) -> Filling {
    let ways =
        [How::Carry { over_null: false, marked: true }, How::Carry { over_null: true, marked: true }, How::Interpolate];
    let fills = ways.into_iter().enumerate().map(|(index, how)| Fill { column: 3 + index, how }).collect();
    let groups = if keyed { vec![0] } else { vec![] };
    Filling { time: 1, groups, grid: Grid::Integers { period: WIDTH }, start: START, finish: FINISH, fills }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let schema = Schema::new(["key", "time", "value", "locf", "over", "line"].map(field).to_vec());
    let values = || Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>());
    let column = |of: fn(&Row) -> i64| Arc::new(rows.iter().map(|row| Some(of(row))).collect::<Int64Array>());
    let columns = vec![column(|row| row.0), column(|row| row.1), values(), values(), values(), values()];
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|c| c as _).collect()).unwrap()
}

type Out = (Option<i64>, i64, [Option<i64>; 4], [bool; 2]);

fn filled(rows: &[Row], keyed: bool, rows_in: usize, rows_out: usize) -> Vec<Out> {
    let filling = Arc::new(filling(keyed));
    let input = batch(&[]).schema();
    let schema = Arc::new(output(&input, &filling.fills));
    let mut filler = Filler::new(filling, &input, schema, rows_out).unwrap();
    let mut out = Vec::new();
    let drain = |filler: &mut Filler, out: &mut Vec<Out>| {
        while let Some(batch) = filler.next_batch().unwrap() {
            assert!(batch.num_rows() <= rows_out);
            let number = |column: usize, row: usize| {
                let array = batch.column(column).as_primitive::<Int64Type>();
                array.is_valid(row).then(|| array.value(row))
            };
            for row in 0..batch.num_rows() {
                let marks = [6, 7].map(|column| batch.column(column).as_boolean().value(row));
                let values = [2, 3, 4, 5].map(|column| number(column, row));
                out.push((number(0, row), number(1, row).unwrap(), values, marks));
            }
        }
    };
    for rows in rows.chunks(rows_in) {
        filler.push(&batch(rows)).unwrap();
        drain(&mut filler, &mut out);
    }
    filler.end();
    drain(&mut filler, &mut out);
    assert!(filler.is_done());
    out
}

/// All buckets and all rows of each key in a map, then each value looked for among its neighbours.
fn twin(rows: &[Row]) -> Vec<Out> {
    let mut keys: BTreeMap<i64, BTreeMap<i64, Option<Option<i64>>>> = BTreeMap::new();
    for (key, time, value) in rows {
        let times = keys
            .entry(*key)
            .or_insert_with(|| (START..FINISH).step_by(WIDTH as usize).map(|bucket| (bucket, None)).collect());
        times.insert(*time, Some(*value));
    }
    let mut out = Vec::new();
    for (key, times) in keys {
        for (time, row) in &times {
            let before = |wanted: fn(&Option<i64>) -> bool| {
                let mut rows = times.range(..*time).rev().filter_map(|(time, row)| row.map(|value| (*time, value)));
                rows.find(|(_, value)| wanted(value))
            };
            let after = times.range(*time + 1..).find_map(|(time, row)| row.map(|value| (*time, value)));
            let (last, last_known) = (before(|_| true), before(Option::is_some));
            // What the first bucket finds of NULLs before it does not count.
            let from_start =
                |found: Option<(i64, Option<i64>)>| found.filter(|(at, value)| *at >= START || value.is_some());
            let carried = match row {
                Some(value) => (*value, false),
                None => match from_start(last) {
                    Some((_, value)) => (value, false),
                    None => (None, true),
                },
            };
            let over = match row {
                Some(Some(value)) => (Some(*value), false),
                _ => match last_known {
                    Some((_, value)) => (value, false),
                    None => (None, *time >= START),
                },
            };
            let line = match (row, last, after) {
                (Some(value), ..) => *value,
                (None, Some((x0, Some(y0))), Some((x1, Some(y1)))) => {
                    let exact = y0 as f64 + (y1 - y0) as f64 * (time - x0) as f64 / (x1 - x0) as f64;
                    Some(exact.round() as i64)
                }
                _ => None,
            };
            out.push((Some(key), *time, [row.flatten(), carried.0, over.0, line], [carried.1, over.1]));
        }
    }
    out
}

/// Multiples of the width, some out of range; values with halves between them.
fn rows(seed: u64) -> Vec<Row> {
    let mut state = seed;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % limit
    };
    let mut rows = BTreeMap::new();
    for _ in 0..below(25) {
        let (key, time) = (below(4) as i64, below(12) as i64 * WIDTH - 30);
        rows.insert((key, time), (below(4) > 0).then(|| below(40) as i64 - 20));
    }
    rows.into_iter().map(|((key, time), value)| (key, time, value)).collect()
}

#[test]
fn gaps_are_filled_as_the_twin_fills_them() {
    for seed in 0..400 {
        let rows = rows(seed);
        let expected = twin(&rows);
        for (rows_in, rows_out) in [(1, 1), (1, 100), (100, 1), (3, 2), (2, 7), (100, 100)] {
            assert_eq!(filled(&rows, true, rows_in, rows_out), expected, "seed {seed}, {rows_in} in, {rows_out} out");
        }
    }
}

#[test]
fn without_keys_there_are_buckets_without_rows() {
    let times = |rows: &[Row]| filled(rows, false, 1, 4).into_iter().map(|row| row.1).collect::<Vec<_>>();
    assert_eq!(times(&[]), [0, 10, 20, 30, 40, 50]);
    assert_eq!(times(&[(0, 70, None)]), [0, 10, 20, 30, 40, 50, 70]);
    assert_eq!(filled(&[], true, 1, 4), []);
}

#[test]
fn a_long_range_is_made_piece_by_piece() {
    let filling = Filling { finish: i64::MAX, grid: Grid::Integers { period: 1 }, ..filling(false) };
    let input = batch(&[]).schema();
    let schema = Arc::new(output(&input, &filling.fills));
    let mut filler = Filler::new(Arc::new(filling), &input, schema, 1000).unwrap();
    filler.end();
    for piece in 0..3 {
        let batch = filler.next_batch().unwrap().unwrap();
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(999), piece * 1000 + 999);
    }
}
