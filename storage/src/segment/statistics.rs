//! Whether a segment's Parquet statistics tell the truth: `prune` believes them without looking at a value, and so does
//! every other reader. For `verify`; reads the whole segment, one column of one row group at a time.
//!
//! Compared are, for row groups and pages: the number of NULLs, whether all are, and the smallest and largest value. Those
//! of text and bytes may be shortened, so they have to enclose the values only. NaN is outside of all statistics; columns
//! of arrays have none.

use super::blocks::BlockReader;
use super::{OpenSegment, ROW_GROUP_ROWS};
use crate::error::{Result, StorageError};
use arrow::array::{Array, ArrayRef, AsArray, make_comparator, new_empty_array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::SortingColumn;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// # Errors
/// `Damaged`, with the column and the row group or page whose statistics are wrong; the disk's.
pub(crate) fn check_statistics(segment: &Arc<OpenSegment>) -> Result<()> {
    for group in 0..segment.parquet().num_row_groups() {
        check_sorting(segment, group).map_err(|reason| wrong(segment, reason))?;
        for column in 0..segment.columns.len() {
            let field = segment.metadata.schema().field(column);
            if !field.data_type().is_nested() {
                let values = read(segment, group, column)?;
                let truth = Truth { segment, group, column, values: &values };
                truth.check().map_err(|reason| match reason {
                    Lie::Told(reason) => wrong(segment, format!("column \"{}\", {reason}", field.name())),
                    Lie::Unreadable(error) => error,
                })?;
            }
        }
    }
    Ok(())
}

fn wrong(segment: &OpenSegment, reason: String) -> StorageError {
    StorageError::damaged(segment.path(), segment.record.tail_offset, format!("wrong statistics: {reason}"))
}

/// Whether the row group says of itself what the manifest says of the segment.
fn check_sorting(segment: &OpenSegment, group: usize) -> Result<(), String> {
    let place = |id| segment.columns.iter().position(|column| column.id == Some(id));
    let sorted = segment.record.sort.iter().map(|id| {
        let column_idx = place(*id).map_or(-1, |at| at as i32);
        SortingColumn { column_idx, descending: false, nulls_first: false }
    });
    let (listed, told) = (sorted.collect::<Vec<_>>(), segment.parquet().row_group(group).sorting_columns());
    match told.map_or(&[][..], |told| told) == listed {
        true => Ok(()),
        false => Err(format!("row group {group} is sorted by {told:?}, not by the listed {:?}", segment.record.sort)),
    }
}

/// All values of a column in a row group, as they are stored; read by the parquet crate, which knows nothing of ours.
fn read(segment: &Arc<OpenSegment>, group: usize, column: usize) -> Result<ArrayRef> {
    let input = BlockReader::new(Arc::clone(segment), Arc::default());
    let mask = ProjectionMask::roots(segment.metadata.parquet_schema(), [column]);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(input.another(), segment.metadata.clone())
        .with_batch_size(ROW_GROUP_ROWS)
        .with_projection(mask)
        .with_row_groups(vec![group])
        .build()
        .map_err(|error| input.failure(error))?;
    let mut parts = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| input.failure(error.into()))?;
        parts.push(Arc::clone(batch.column(0)));
    }
    let parts = parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>();
    let data_type = segment.metadata.schema().field(column).data_type();
    Ok(if parts.is_empty() { new_empty_array(data_type) } else { arrow::compute::concat(&parts)? })
}

enum Lie {
    Told(String),
    Unreadable(StorageError),
}

impl From<StorageError> for Lie {
    fn from(error: StorageError) -> Lie {
        Lie::Unreadable(error)
    }
}

impl From<arrow::error::ArrowError> for Lie {
    fn from(error: arrow::error::ArrowError) -> Lie {
        Lie::Unreadable(error.into())
    }
}

/// One column of one row group.
struct Truth<'a> {
    segment: &'a OpenSegment,
    group: usize,
    column: usize,
    values: &'a ArrayRef,
}

/// What is told of some rows.
struct Told {
    rows: Range<usize>,
    nulls: Option<u64>,
    /// All are said to be NULL.
    null: bool,
    /// Both of one element.
    min: ArrayRef,
    max: ArrayRef,
    exact: bool,
}

impl Truth<'_> {
    fn check(&self) -> Result<(), Lie> {
        let (group, metadata) = (self.group, &self.segment.metadata);
        let parquet = self.segment.parquet();
        let rows = parquet.row_group(group).num_rows() as usize;
        if self.values.len() != rows {
            return Err(Lie::Told(format!("row group {group}: {} rows instead of {rows}", self.values.len())));
        }
        let failed = |error| Lie::Unreadable(super::parquet_error(self.segment.path(), error));
        let field = metadata.schema().field(self.column);
        let told = StatisticsConverter::try_new(field.name(), metadata.schema(), metadata.parquet_schema());
        let told = told.map_err(failed)?;
        let whole = [parquet.row_group(group)];
        let exact = |flags: arrow::array::BooleanArray| flags.is_valid(0) && flags.value(0);
        let nulls = told.row_group_null_counts(whole).map_err(failed)?;
        let of_group = Told {
            rows: 0..rows,
            nulls: nulls.is_valid(0).then(|| nulls.value(0)),
            null: false,
            min: told.row_group_mins(whole).map_err(failed)?,
            max: told.row_group_maxes(whole).map_err(failed)?,
            exact: exact(told.row_group_is_min_value_exact(whole).map_err(failed)?)
                && exact(told.row_group_is_max_value_exact(whole).map_err(failed)?),
        };
        self.compare(of_group).map_err(|lie| lie.of(format!("row group {group}")))?;

        let (Some(columns), Some(offsets)) = (parquet.column_index(), parquet.offset_index()) else { return Ok(()) };
        let Some(leaf) = told.parquet_column_index() else { return Ok(()) };
        if matches!(columns[group][leaf], ColumnIndexMetaData::NONE) {
            return Ok(());
        }
        let nulls = told.data_page_null_counts(columns, offsets, &[group]).map_err(failed)?;
        let mins = told.data_page_mins(columns, offsets, &[group]).map_err(failed)?;
        let maxes = told.data_page_maxes(columns, offsets, &[group]).map_err(failed)?;
        let starts = offsets[group][leaf].page_locations().iter().map(|page| page.first_row_index as usize);
        let starts = starts.chain([rows]).collect::<Vec<_>>();
        for (page, bounds) in starts.windows(2).enumerate() {
            if bounds[0] > bounds[1] || bounds[1] > rows {
                return Err(Lie::Told(format!("row group {group}, page {page}: rows {bounds:?} of {rows}")));
            }
            let of_page = Told {
                rows: bounds[0]..bounds[1],
                nulls: nulls.is_valid(page).then(|| nulls.value(page)),
                null: columns[group][leaf].is_null_page(page),
                min: mins.slice(page, 1),
                max: maxes.slice(page, 1),
                exact: !shortened(field.data_type()),
            };
            self.compare(of_page).map_err(|lie| lie.of(format!("row group {group}, page {page}")))?;
        }
        Ok(())
    }

    fn compare(&self, told: Told) -> Result<(), Lie> {
        let values = self.values.slice(told.rows.start, told.rows.len());
        let nulls = values.logical_null_count() as u64;
        if told.nulls.is_some_and(|told| told != nulls) || told.null && nulls < values.len() as u64 {
            let told = if told.null { "all".to_owned() } else { format!("{:?}", told.nulls.unwrap_or(0)) };
            return Err(Lie::Told(format!("{nulls} of {} rows are NULL, not {told}", values.len())));
        }
        for (name, bound, outside) in [("min", &told.min, Ordering::Less), ("max", &told.max, Ordering::Greater)] {
            if bound.is_null(0) {
                continue;
            }
            let (values, bound) = (plain(&cast(&values, bound.data_type())?), plain(bound));
            let against = make_comparator(&values, &bound, SortOptions::default())?;
            let mut reached = false;
            for row in (0..values.len()).filter(|row| values.is_valid(*row) && !is_nan(&values, *row)) {
                match against(row, 0) {
                    Ordering::Equal => reached = true,
                    order if order == outside => {
                        let row = told.rows.start + row;
                        return Err(Lie::Told(format!("the value of row {row} is outside of the {name}")));
                    }
                    _ => {}
                }
            }
            if told.exact && !reached {
                return Err(Lie::Told(format!("no row has the {name}")));
            }
        }
        Ok(())
    }
}

impl Lie {
    fn of(self, place: String) -> Lie {
        match self {
            Lie::Told(reason) => Lie::Told(format!("{place}: {reason}")),
            unreadable => unreadable,
        }
    }
}

/// Page bounds of these types may be shortened, and do not say so.
fn shortened(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Dictionary(_, value) => shortened(value),
        other => matches!(other, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | FixedSizeBinary(_)),
    }
}

/// With one zero: Parquet's statistics have -0.0 below and 0.0 above, whichever there was.
fn plain(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float32 => Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(|v| v + 0.0)),
        DataType::Float64 => Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(|v| v + 0.0)),
        _ => Arc::clone(values),
    }
}

fn is_nan(values: &ArrayRef, row: usize) -> bool {
    match values.data_type() {
        DataType::Float32 => values.as_primitive::<Float32Type>().value(row).is_nan(),
        DataType::Float64 => values.as_primitive::<Float64Type>().value(row).is_nan(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SegmentRecord, SegmentRows, same_seq, write};
    use super::*;
    use crate::vfs::{SimVfs, Vfs};
    use arrow::array::*;
    use arrow::datatypes::{Field, IntervalMonthDayNano, Schema};
    use parquet::data_type::ByteArray;
    use parquet::file::metadata::{ColumnIndexBuilder, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
    use parquet::file::statistics::Statistics;
    use parquet::file::writer::TrackedWrite;
    use proto::data_node::FIELD_ID;
    use proto::{ChunkId, ChunkLayout, ColumnId, CommitSeq, TableId};
    use std::io::Write;
    use std::path::{Path, PathBuf};

    const ROWS: i64 = 20_000;

    /// A column of each kind, with NULLs; two of them sorted.
    fn columns() -> Vec<(&'static str, ArrayRef)> {
        let some = |i: i64| i % 7 != 3;
        let numbers = || (0..ROWS).map(move |i| some(i).then_some(i * 37 % 1009 - 500));
        let list = ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(
            (0..ROWS).map(|i| some(i).then(|| vec![Some(i as i32), None])),
        );
        let interval = |n: i64| IntervalMonthDayNano::new(n as i32, -(n as i32), n * 1000);
        let text = |n: i64| format!("{n:04}{}", "long enough to be shortened in statistics".repeat(2));
        vec![
            ("time", Arc::new(TimestampMicrosecondArray::from_iter_values(0..ROWS).with_timezone("UTC"))),
            ("integer", Arc::new(numbers().collect::<Int64Array>())),
            ("small", Arc::new(numbers().map(|n| n.map(|n| n as i16)).collect::<Int16Array>())),
            ("decimal", Arc::new(numbers().map(|n| n.map(|n| n as f64 / 4.0)).collect::<Float64Array>())),
            ("float", Arc::new(numbers().map(|n| n.map(|n| (n as f64).sqrt())).collect::<Float64Array>())),
            (
                "zero",
                Arc::new(numbers().map(|n| n.map(|n| if n % 2 == 0 { -0.0 } else { 0.0 })).collect::<Float32Array>()),
            ),
            ("nan", Arc::new(Float64Array::from(vec![f64::NAN; ROWS as usize]))),
            ("text", Arc::new(numbers().map(|n| n.map(text)).collect::<StringArray>())),
            ("bytes", Arc::new(numbers().map(|n| n.map(|n| n.to_be_bytes())).collect::<BinaryArray>())),
            ("bool", Arc::new(numbers().map(|n| n.map(|n| n > 0)).collect::<BooleanArray>())),
            (
                "numeric",
                Arc::new(
                    numbers()
                        .map(|n| n.map(i128::from))
                        .collect::<Decimal128Array>()
                        .with_precision_and_scale(30, 2)
                        .unwrap(),
                ),
            ),
            (
                "narrow",
                Arc::new(
                    numbers()
                        .map(|n| n.map(i128::from))
                        .collect::<Decimal128Array>()
                        .with_precision_and_scale(9, 2)
                        .unwrap(),
                ),
            ),
            ("date", Arc::new(numbers().map(|n| n.map(|n| n as i32)).collect::<Date32Array>())),
            ("interval", Arc::new(numbers().map(|n| n.map(interval)).collect::<IntervalMonthDayNanoArray>())),
            ("list", Arc::new(list)),
            ("nothing", Arc::new(Int64Array::new_null(ROWS as usize))),
        ]
    }

    const DIR: &str = "/segments";

    fn sealed(vfs: &SimVfs) -> (SegmentRecord, PathBuf) {
        vfs.create_dir(Path::new(DIR)).unwrap();
        let columns = columns();
        let fields = columns.iter().zip(1..).map(|((name, array), id)| {
            Field::new(*name, array.data_type().clone(), true)
                .with_metadata([(FIELD_ID.to_owned(), format!("{id}"))].into())
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(schema, columns.into_iter().map(|(_, array)| array).collect()).unwrap();
        let ids = (1..=batch.num_columns() as u32).map(ColumnId).collect();
        let rows = SegmentRows {
            batches: vec![(same_seq(CommitSeq(3), batch.num_rows()), batch)],
            ids,
            time: Some((0, ROWS - 1)),
        };
        let layout =
            ChunkLayout { table: TableId(1), sort: vec![ColumnId(1)], time: Some(ColumnId(1)), keys: Vec::new() };
        let (record, _) = write(vfs, Path::new(DIR), ChunkId(1), 7, &layout, rows).unwrap();
        let path = Path::new(DIR).join(record.file_name(ChunkId(1)));
        (record, path)
    }

    /// The same segment with other metadata, and checksums to match.
    fn with_metadata(
        vfs: &SimVfs,
        (record, path): &(SegmentRecord, PathBuf),
        change: impl FnOnce(ParquetMetaData) -> ParquetMetaData,
    ) -> SegmentRecord {
        let bytes = bytes::Bytes::from(vfs.contents(path).unwrap());
        let reader = ParquetMetaDataReader::new();
        let reader = reader.with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Required);
        let metadata = change(reader.parse_and_finish(&bytes).unwrap());
        let mut lying = Vec::new();
        let mut tracked = TrackedWrite::new(&mut lying);
        tracked.write_all(&bytes[..record.tail_offset as usize]).unwrap();
        ParquetMetaDataWriter::new_with_tracked(tracked, &metadata).finish().unwrap();
        vfs.set_contents(path, &lying);
        let tail_crc = crc32c::crc32c(&lying[record.tail_offset as usize..]);
        SegmentRecord { bytes: lying.len() as u64, tail_crc, ..record.clone() }
    }

    fn checked(vfs: &SimVfs, path: &Path, record: &SegmentRecord) -> Result<(), String> {
        let segment = Arc::new(OpenSegment::open(vfs, path, record).unwrap());
        segment.verify_blocks().unwrap();
        check_statistics(&segment).map_err(|error| error.to_string())
    }

    #[test]
    fn the_statistics_of_every_type_are_true() {
        let vfs = SimVfs::new(1);
        let (record, path) = sealed(&vfs);
        checked(&vfs, &path, &record).unwrap();
        let same = with_metadata(&vfs, &(record, path.clone()), |metadata| metadata);
        checked(&vfs, &path, &same).unwrap();
    }

    /// A row group that says other things of one of its columns.
    fn group_says(column: usize, statistics: Statistics) -> String {
        let vfs = SimVfs::new(1);
        let sealed = sealed(&vfs);
        let record = with_metadata(&vfs, &sealed, |metadata| {
            let mut builder = metadata.into_builder();
            let groups = builder.take_row_groups().into_iter().map(|group| {
                let mut group = group.into_builder();
                let mut columns = group.take_columns();
                let changed = columns[column].clone().into_builder().set_statistics(statistics.clone());
                columns[column] = changed.build().unwrap();
                group.set_column_metadata(columns).build().unwrap()
            });
            let groups = groups.collect();
            builder.set_row_groups(groups).build()
        });
        let error = checked(&vfs, &sealed.1, &record).unwrap_err();
        assert!(error.contains("1-7.parquet") && error.contains("row group 0: "), "{error}");
        error
    }

    #[test]
    fn a_row_group_that_lies_is_told_with_its_column() {
        let nulls = columns()[1].1.null_count() as u64;
        let integer = |min, max, nulls| Statistics::int64(Some(min), Some(max), None, Some(nulls), false);
        assert!(group_says(1, integer(-499, 508, nulls)).contains("\"integer\", row group 0: the value of row "));
        assert!(group_says(1, integer(-500, 507, nulls)).ends_with("is outside of the max"));
        assert!(group_says(1, integer(-501, 508, nulls)).ends_with("no row has the min"));
        assert!(group_says(1, integer(-500, 508, nulls + 1)).contains("rows are NULL, not "));
        let text =
            Statistics::byte_array(Some(ByteArray::from("0001")), Some(ByteArray::from("2")), None, Some(nulls), false);
        assert!(group_says(7, text).contains("\"text\", row group 0: the value of row "));
    }

    /// The second page of a column says other things.
    fn page_says(null: bool, min: i64, max: i64, nulls: i64) -> Result<(), String> {
        let vfs = SimVfs::new(1);
        let sealed = sealed(&vfs);
        let record = with_metadata(&vfs, &sealed, |metadata| {
            let mut builder = metadata.into_builder();
            let mut index = builder.take_column_index().unwrap();
            let ColumnIndexMetaData::INT64(old) = &index[0][1] else { panic!("a column of integers") };
            let mut pages = ColumnIndexBuilder::new(parquet::basic::Type::INT64);
            for page in 0..old.num_pages() as usize {
                let (null, min, max, nulls) = match page {
                    1 => (null, min, max, nulls),
                    _ => (
                        false,
                        *old.min_value(page).unwrap(),
                        *old.max_value(page).unwrap(),
                        old.null_count(page).unwrap(),
                    ),
                };
                pages.append(null, min.to_le_bytes().to_vec(), max.to_le_bytes().to_vec(), nulls);
            }
            index[0][1] = pages.build().unwrap();
            builder.set_column_index(Some(index)).build()
        });
        checked(&vfs, &sealed.1, &record)
    }

    #[test]
    fn a_page_that_lies_is_told_with_its_number() {
        let page = columns()[1].1.slice(super::super::PAGE_ROWS, super::super::PAGE_ROWS);
        let nulls = page.null_count() as i64;
        page_says(false, -500, 508, nulls).unwrap();
        let error = page_says(false, -500, 400, nulls).unwrap_err();
        assert!(error.contains("column \"integer\", row group 0, page 1: the value of row "), "{error}");
        assert!(page_says(false, -500, 600, nulls).unwrap_err().ends_with("page 1: no row has the max"));
        assert!(page_says(false, -500, 508, 0).unwrap_err().contains("are NULL, not 0"));
        assert!(page_says(true, -500, 508, nulls).unwrap_err().contains("are NULL, not all"));
    }

    /// The pages of a column are told otherwise; the bounds of its second page are left out, or not.
    fn pages_say(left_out: bool, first_rows: [i64; 3]) -> Result<(), String> {
        let vfs = SimVfs::new(1);
        let sealed = sealed(&vfs);
        let record = with_metadata(&vfs, &sealed, |metadata| {
            let mut builder = metadata.into_builder();
            let (mut index, mut offsets) = (builder.take_column_index().unwrap(), builder.take_offset_index().unwrap());
            let ColumnIndexMetaData::INT64(old) = &index[0][1] else { panic!("a column of integers") };
            let mut pages = ColumnIndexBuilder::new(parquet::basic::Type::INT64);
            for page in (0..3).filter(|page| !left_out || *page != 1) {
                let bounds = [old.min_value(page), old.max_value(page)].map(|bound| bound.unwrap().to_le_bytes());
                pages.append(false, bounds[0].to_vec(), bounds[1].to_vec(), old.null_count(page).unwrap());
            }
            index[0][1] = pages.build().unwrap();
            let pages = offsets[0][1].page_locations.iter_mut();
            pages.zip(first_rows).for_each(|(page, row)| page.first_row_index = row);
            builder.set_column_index(Some(index)).set_offset_index(Some(offsets)).build()
        });
        OpenSegment::open(&vfs, &sealed.1, &record).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_index_that_readers_would_get_lost_in_is_damage() {
        let page = super::super::PAGE_ROWS as i64;
        pages_say(false, [0, page, 2 * page]).unwrap();
        let shapes = [
            (true, [0, page, 2 * page]),
            (false, [0, 2 * page, page]),
            (false, [1, page, 2 * page]),
            (false, [0, page, -1]),
        ];
        for (left_out, first_rows) in shapes {
            let error = pages_say(left_out, first_rows).unwrap_err();
            assert!(error.contains("the page index is wrong about column 1 of row group 0"), "{error}");
        }
        assert!(pages_say(false, [0, page, ROWS]).is_err());
    }

    #[test]
    fn an_order_that_is_not_the_listed_one_is_told() {
        let vfs = SimVfs::new(1);
        let (record, path) = sealed(&vfs);
        let other = SegmentRecord { sort: vec![ColumnId(2)], ..record };
        assert!(checked(&vfs, &path, &other).unwrap_err().contains("row group 0 is sorted by "));
    }
}
