//! Scans of random segments against the rows they were made of.

use super::*;
use crate::deletes::{Part, PartView};
use crate::projection::{Projection, ScanColumn};
use crate::vfs::SimVfs;
use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Schema;
use proto::data_node::FIELD_ID;
use proto::{ChunkLayout, ColumnPredicate, CommitSeq, PredicateKind, Scalar, ScanTally, TableId};
use roaring::RoaringBitmap;

const CHUNK: ChunkId = ChunkId(7);
const COLUMNS: u32 = 11;

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// Columns: 1 series, 2 time, 3 short decimals, 4 floats with NaN, 5 single floats, 6 smallint, 7 integer, 8 bigint,
/// 9 date, 10 text of many values, 11 boolean.
fn rows(dice: &mut Dice, count: usize) -> RecordBatch {
    let series = 1 + dice.below(40);
    let null_in = [2, 50, u64::MAX][dice.below(3) as usize];
    let mut column = |id: u32| -> ArrayRef {
        let mut cells =
            (0..count).map(|_| (!dice.one_in(null_in)).then(|| dice.below(1 << 30) as i64)).collect::<Vec<_>>();
        let cells = cells.drain(..);
        match id {
            1 => Arc::new(cells.map(|v| v.map(|v| format!("host_{}", v as u64 % series))).collect::<StringArray>()),
            2 => Arc::new(cells.map(|v| Some(v.unwrap_or(3) % 5000 * 10)).collect::<TimestampMicrosecondArray>()),
            3 => Arc::new(cells.map(|v| v.map(|v| (v % 2001 - 1000) as f64 / 100.0)).collect::<Float64Array>()),
            4 => Arc::new(
                cells.map(|v| v.map(|v| if v % 9 == 0 { f64::NAN } else { v as f64 / 7.0 })).collect::<Float64Array>(),
            ),
            5 => Arc::new(cells.map(|v| v.map(|v| v as f32 / 3.0)).collect::<Float32Array>()),
            6 => Arc::new(cells.map(|v| v.map(|v| v as i16)).collect::<Int16Array>()),
            7 => Arc::new(cells.map(|v| v.map(|v| (v * 977) as i32)).collect::<Int32Array>()),
            8 => Arc::new(
                cells.map(|v| v.map(|v| (v - (1 << 29)).wrapping_mul(0x1234_5678_9abc))).collect::<Int64Array>(),
            ),
            9 => Arc::new(cells.map(|v| v.map(|v| (v % 100_000 - 50_000) as i32)).collect::<Date32Array>()),
            10 => Arc::new(cells.map(|v| v.map(|v| format!("{v:x}-{}", v % 7))).collect::<StringArray>()),
            _ => Arc::new(cells.map(|v| v.map(|v| v % 3 == 0)).collect::<BooleanArray>()),
        }
    };
    let arrays = (1..=COLUMNS).map(&mut column).collect::<Vec<_>>();
    let fields = arrays.iter().zip(1..).map(|(array, id)| field(id, array.data_type())).collect::<Vec<_>>();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn field(id: u32, data_type: &DataType) -> Field {
    Field::new(format!("c{id}"), data_type.clone(), true).with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
}

/// The value of a row as predicates compare it.
fn scalar(rows: &RecordBatch, id: u32, row: usize) -> Option<Scalar> {
    let array = rows.column(id as usize - 1);
    if array.is_null(row) {
        return None;
    }
    let any = array.as_any();
    Some(match id {
        1 | 10 => Scalar::Text(any.downcast_ref::<StringArray>().unwrap().value(row).to_owned()),
        2 => Scalar::Int(any.downcast_ref::<TimestampMicrosecondArray>().unwrap().value(row)),
        3 | 4 => Scalar::Float(any.downcast_ref::<Float64Array>().unwrap().value(row)),
        5 => Scalar::Float(any.downcast_ref::<Float32Array>().unwrap().value(row).into()),
        6 => Scalar::Int(any.downcast_ref::<Int16Array>().unwrap().value(row).into()),
        7 => Scalar::Int(any.downcast_ref::<Int32Array>().unwrap().value(row).into()),
        8 => Scalar::Int(any.downcast_ref::<Int64Array>().unwrap().value(row)),
        9 => Scalar::Int(any.downcast_ref::<Date32Array>().unwrap().value(row).into()),
        _ => return None,
    })
}

fn holds(kind: &PredicateKind, value: Option<&Scalar>) -> bool {
    let Some(value) = value else { return false };
    match kind {
        PredicateKind::Range { min, max } => {
            min.as_ref().is_none_or(|min| min <= value) && max.as_ref().is_none_or(|max| value <= max)
        }
        PredicateKind::OneOf(values) => values.contains(value),
    }
}

fn predicate(dice: &mut Dice, rows: &RecordBatch) -> Option<ColumnPredicate> {
    let id = 1 + dice.below(10) as u32;
    let mut some = || scalar(rows, id, dice.below(rows.num_rows() as u64) as usize);
    let (a, b) = (some()?, some()?);
    let kind = match dice.below(4) {
        0 => PredicateKind::OneOf(vec![a, b]),
        1 => PredicateKind::OneOf(vec![a]),
        2 => PredicateKind::Range { min: Some(a), max: None },
        _ => {
            let (min, max) = if a <= b { (a, b) } else { (b, a) };
            PredicateKind::Range { min: Some(min), max: Some(max) }
        }
    };
    Some(ColumnPredicate { column: ColumnId(id), kind })
}

/// The first and last values of every type, and stretches without any, of whole pages too. Columns as in `rows`.
fn extreme_rows(dice: &mut Dice, count: usize) -> RecordBatch {
    let texts = ["", "a", "host", &"long ".repeat(30), &"\u{10ffff}".repeat(40)].map(|text| text.to_owned());
    let integers = [i64::MIN, i64::MAX, 0, -1, 1];
    let floats = [-0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX];
    let decimals = [0.0, 9_007_199_254_740_992.0, -9_007_199_254_740_992.0, 1.0, -1.0];
    let mut column = |id: u32| -> ArrayRef {
        let (a, b) = (dice.below(count as u64 + 1) as usize, dice.below(count as u64 + 1) as usize);
        let gap = if dice.one_in(4) { 0..count } else { a.min(b)..a.max(b) };
        let cells = (0..count).map(|row| (!gap.contains(&row)).then(|| dice.below(5) as usize)).collect::<Vec<_>>();
        let cells = cells.into_iter();
        match id {
            1 | 10 => Arc::new(cells.map(|v| v.map(|v| texts[v].as_str())).collect::<StringArray>()),
            2 => Arc::new(cells.map(|v| v.map(|v| integers[v])).collect::<TimestampMicrosecondArray>()),
            3 => Arc::new(cells.map(|v| v.map(|v| decimals[v])).collect::<Float64Array>()),
            4 => Arc::new(cells.map(|v| v.map(|v| floats[v])).collect::<Float64Array>()),
            5 => Arc::new(cells.map(|v| v.map(|v| floats[v] as f32)).collect::<Float32Array>()),
            6 => Arc::new(cells.map(|v| v.map(|v| [i16::MIN, i16::MAX, 0, -1, 1][v])).collect::<Int16Array>()),
            7 => Arc::new(cells.map(|v| v.map(|v| [i32::MIN, i32::MAX, 0, -1, 1][v])).collect::<Int32Array>()),
            8 => Arc::new(cells.map(|v| v.map(|v| integers[v])).collect::<Int64Array>()),
            9 => Arc::new(cells.map(|v| v.map(|v| [i32::MIN, i32::MAX, 0, -1, 1][v])).collect::<Date32Array>()),
            _ => Arc::new(cells.map(|v| v.map(|v| v > 2)).collect::<BooleanArray>()),
        }
    };
    let arrays = (1..=COLUMNS).map(&mut column).collect::<Vec<_>>();
    let fields = arrays.iter().zip(1..).map(|(array, id)| field(id, array.data_type())).collect::<Vec<_>>();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// Whether the scan showed the rows it has to, none it must not, and each as it was written.
fn check(dice: &mut Dice, seed: u64, whole: RecordBatch) -> (bool, bool) {
    let count = whole.num_rows();
    let split = dice.below(count as u64 + 1) as usize;
    let vfs = SimVfs::new(seed);
    vfs.create_dir(Path::new("d")).unwrap();
    let sort = [vec![1, 2], vec![2], vec![9, 1, 2], vec![]][dice.below(4) as usize].clone();
    let sort = sort.into_iter().map(ColumnId).collect();
    let layout = ChunkLayout { table: TableId(1), sort, time: Some(ColumnId(2)), keys: Vec::new() };
    let parts = [(whole.slice(0, split), 5), (whole.slice(split, count - split), 9)];
    let parts = parts.into_iter().filter(|(part, _)| part.num_rows() > 0);
    let batches = parts.map(|(part, seq)| (same_seq(CommitSeq(seq), part.num_rows()), part)).collect();
    let ids = (1..=COLUMNS).map(ColumnId).collect();
    let written = write(&vfs, Path::new("d"), CHUNK, 1, &layout, SegmentRows { batches, ids, time: Some((0, 50_000)) });
    let (record, order) = written.unwrap();
    let order = order.unwrap_or_else(|| (0..count as u32).collect::<UInt32Array>());
    let sorted = take_record_batch(&whole, &order).unwrap();
    let segment = OpenSegment::open(&vfs, &Path::new("d").join(record.file_name(CHUNK)), &record).unwrap();
    let (segment, mut narrow) = (Arc::new(segment), false);
    let directory = series::place(segment.parquet()).is_some();
    for _ in 0..4 {
        let predicates = (0..dice.below(4)).filter_map(|_| predicate(dice, &sorted)).collect::<Vec<_>>();
        let snapshot = CommitSeq([5, 9][dice.below(2) as usize]);
        let hidden = (0..count as u32).filter(|_| dice.one_in(7)).collect::<RoaringBitmap>();
        let hidden = dice.one_in(2).then_some(hidden);
        let wanted = (1..=COLUMNS).filter(|_| dice.one_in(3)).collect::<Vec<_>>();
        let column = |id: &u32| {
            let field = field(*id, sorted.column(*id as usize - 1).data_type());
            ScanColumn { id: ColumnId(*id), field, missing: None }
        };
        let row = ScanColumn { id: ColumnId::ROW, field: Field::new("row", DataType::Int64, false), missing: None };
        let projection = Projection::new(wanted.iter().map(column).chain([row]).collect());
        let shown = |row: u32| {
            let seq = if (order.value(row as usize) as usize) < split { 5 } else { 9 };
            seq <= snapshot.0 && hidden.as_ref().is_none_or(|hidden| !hidden.contains(row))
        };
        let view = PartView { chunk: CHUNK, part: Part::segment(1), hidden: hidden.clone().map(Arc::new) };
        let batch_rows = [1000, 8192, 100_000][dice.below(3) as usize];
        let scan = SegmentScan::new(segment.clone(), view, projection.clone(), &predicates, snapshot, batch_rows);
        let batches = scan.unwrap().collect::<Result<Vec<_>>>().unwrap();
        let found = concat_batches(&projection.schema, &batches).unwrap();
        let places = found.column(wanted.len()).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
        assert!(places.is_sorted_by(|a, b| a < b), "seed {seed}: rows come once, in order");
        assert!(places.iter().all(|row| shown(*row as u32)), "seed {seed}: a hidden row");
        let matching =
            |row: &u32| predicates.iter().all(|p| holds(&p.kind, scalar(&sorted, p.column.0, *row as usize).as_ref()));
        let must = (0..count as u32).filter(|row| shown(*row) && matching(row)).collect::<Vec<_>>();
        let missing = must.iter().find(|row| places.binary_search(&i64::from(**row)).is_err());
        assert_eq!(missing, None, "seed {seed}: {predicates:?}");
        narrow |= places.len() < (0..count as u32).filter(|row| shown(*row)).count() && !places.is_empty();
        let expected =
            take_record_batch(&sorted, &places.iter().map(|row| *row as u32).collect::<UInt32Array>()).unwrap();
        for (at, id) in wanted.iter().enumerate() {
            let (found, expected) = (found.column(at), expected.column(*id as usize - 1));
            // Bit by bit: NaN equals itself.
            assert!(found.to_data() == expected.to_data(), "seed {seed}: column {id}");
        }
    }
    (directory, narrow)
}

#[test]
fn a_scan_shows_what_it_must_and_nothing_hidden() {
    let first = std::env::var("SERIATIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let (mut directories, mut narrowed) = (0, 0);
    for seed in first.map_or(0..60, |seed: u64| seed..seed + 1) {
        let mut dice = Dice(seed);
        let count = [1, 40, 900, 9000, 70_000][dice.below(5) as usize];
        let whole = rows(&mut dice, count);
        let (directory, narrow) = check(&mut dice, seed, whole);
        directories += usize::from(directory);
        narrowed += usize::from(narrow);
    }
    assert!(first.is_some() || (directories > 5 && narrowed > 20), "{directories} directories, {narrowed} narrowed");
}

#[test]
fn extremes_pages_without_values_and_a_row_group_of_one_row_come_back() {
    for seed in 0..24 {
        let mut dice = Dice(seed);
        let count = [1, 2, 9000, 30_000][dice.below(4) as usize];
        let count = if seed == 0 { ROW_GROUP_ROWS + 1 } else { count };
        let whole = extreme_rows(&mut dice, count);
        check(&mut dice, seed, whole);
    }
}

/// A segment of the rows, sorted by the first two columns.
fn segment_of(vfs: &SimVfs, batches: Vec<RecordBatch>) -> Result<Arc<OpenSegment>> {
    let dir = Path::new("d");
    vfs.create_dir(dir).unwrap();
    let sort = vec![ColumnId(1), ColumnId(2)];
    let layout = ChunkLayout { table: TableId(1), sort, time: Some(ColumnId(2)), keys: Vec::new() };
    let ids = (1..=batches[0].num_columns() as u32).map(ColumnId).collect();
    let batches = batches.into_iter().map(|batch| (same_seq(CommitSeq(5), batch.num_rows()), batch)).collect();
    let (record, _) = write(vfs, dir, CHUNK, 1, &layout, SegmentRows { batches, ids, time: None })?;
    Ok(Arc::new(OpenSegment::open(vfs, &dir.join(record.file_name(CHUNK)), &record)?))
}

#[test]
fn rows_from_before_and_after_a_column_lost_its_not_null_share_a_segment() {
    let whole = rows(&mut Dice(3), 900);
    let filled = |array: &ArrayRef| {
        let valid = (0..900).find(|row| array.is_valid(*row)).unwrap() as u32;
        arrow::compute::take(array, &UInt32Array::from(vec![valid; 10]), None).unwrap()
    };
    let strict =
        whole.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(false)).collect::<Vec<_>>();
    let arrays = whole.columns().iter().map(filled).collect();
    let strict = RecordBatch::try_new(Arc::new(Schema::new(strict)), arrays).unwrap();
    assert!(whole.columns().iter().any(|column| column.null_count() > 0));
    let segment = segment_of(&SimVfs::new(1), vec![strict, whole]).unwrap();
    assert_eq!(segment.parquet().file_metadata().num_rows(), 910);
    check_statistics(&segment).unwrap();
}

#[test]
fn what_is_read_of_open_segments_is_bounded_in_number_and_in_bytes() {
    let (vfs, dir) = (SimVfs::new(1), Path::new("d"));
    let segment = || {
        let record = segment_of(&vfs, vec![rows(&mut Dice(3), 900)]).unwrap().record.clone();
        vfs.rename(&dir.join(record.file_name(CHUNK)), &dir.join(record.file_name(ChunkId(99)))).unwrap();
        Segment::new(record, dir, ChunkId(99))
    };
    let segments = [segment(), segment(), segment()];
    let open = || segments.iter().map(|segment| segment.opened.lock().is_some()).collect::<Vec<_>>();
    let roomy = OpenFiles::new(2, u64::MAX);
    segments.iter().for_each(|segment| drop(segment.open(&vfs, &roomy, &ScanTally::default()).unwrap()));
    assert_eq!(open(), [false, true, true]);
    let narrow = OpenFiles::new(100, 1);
    drop(segments[0].open(&vfs, &narrow, &ScanTally::default()).unwrap());
    assert_eq!(open(), [true; 3], "one may be as large as it is");
    let other = Segment::new(segments[0].record.clone(), dir, ChunkId(99));
    drop(other.open(&vfs, &narrow, &ScanTally::default()).unwrap());
    assert_eq!(open(), [false, true, true]);
}

#[test]
fn the_directory_is_read_for_who_asks_for_a_series() {
    let segment = segment_of(&SimVfs::new(1), vec![rows(&mut Dice(3), 9000)]).unwrap();
    assert!(series::place(segment.parquet()).is_some());
    let input = blocks::BlockReader::new(Arc::clone(&segment), Arc::default());
    let select = |column, value| {
        let kind = PredicateKind::OneOf(vec![value]);
        prune::select(&segment, &input, &[ColumnPredicate { column: ColumnId(column), kind }]).unwrap();
        segment.series.get().is_some()
    };
    assert!(!select(2, Scalar::Int(30)), "times tell no series");
    assert!(select(1, Scalar::Text("host_0".to_owned())));
}

#[test]
fn a_text_that_is_not_there_is_found_missing_without_reading_it() {
    let (vfs, dir) = (SimVfs::new(1), Path::new("d"));
    vfs.create_dir(dir).unwrap();
    let layout = ChunkLayout { table: TableId(1), sort: vec![ColumnId(2)], time: Some(ColumnId(2)), keys: Vec::new() };
    let whole = rows(&mut Dice(3), 20_000);
    let batches = vec![(same_seq(CommitSeq(5), whole.num_rows()), whole.clone())];
    let ids = (1..=COLUMNS).map(ColumnId).collect();
    let (record, _) = write(&vfs, dir, CHUNK, 1, &layout, SegmentRows { batches, ids, time: None }).unwrap();
    let segment = Arc::new(OpenSegment::open(&vfs, &dir.join(record.file_name(CHUNK)), &record).unwrap());
    let input = blocks::BlockReader::new(Arc::clone(&segment), Arc::default());
    let found = |text: &str| {
        let kind = PredicateKind::OneOf(vec![Scalar::Text(text.to_owned())]);
        prune::select(&segment, &input, &[ColumnPredicate { column: ColumnId(10), kind }]).unwrap().rows
    };
    let texts = whole.column(9).as_any().downcast_ref::<StringArray>().unwrap();
    for text in texts.iter().flatten().step_by(1000) {
        assert!(!found(text).is_empty(), "{text} is there");
    }
    let missing = (0..100).filter(|number| found(&format!("2{number:x}-no")).is_empty()).count();
    assert!(missing > 90, "{missing} of 100 were ruled out");
}
