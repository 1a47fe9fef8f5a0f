//! One column of a segment, read by ranges of rows: only the pages with wanted rows are decompressed, and values go
//! straight into the Arrow array the reader gets. Covers the forms in which time series are kept; columns in any other
//! form (`ColumnPages::new` gives none) are left to the parquet crate.

use super::OpenSegment;
use super::blocks::BlockReader;
use super::columns::{Stored, restored_type, unscale};
use super::hybrid::{self, Run};
use super::packed::{self, SLACK_BYTES};
use super::page::{self, Kind};
use crate::error::{Result, StorageError};
use arrow::array::{Array, ArrayData, ArrayRef, StringArray, StringBuilder, make_array};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::concat;
use arrow::datatypes::{ArrowNativeType, DataType, TimeUnit};
use parquet::basic::Encoding;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::reader::ChunkReader;
use std::ops::Range;
use std::sync::Arc;

/// How the values of a column lie in its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Packed {
        narrow: bool,
    },
    /// The bytes of floating-point numbers: all first ones, all second ones, …
    Split {
        bytes: usize,
    },
    Text,
}

pub(super) struct ColumnPages {
    segment: Arc<OpenSegment>,
    input: Arc<BlockReader>,
    root: usize,
    leaf: usize,
    form: Form,
    nullable: bool,
    group: Option<Group>,
    /// The rows of the page that was read last.
    page: Option<(Range<u32>, ArrayRef)>,
    padded: Vec<u8>,
}

/// The row group in work.
struct Group {
    number: usize,
    dictionary: Option<StringArray>,
}

type Decoded<T> = std::result::Result<T, String>;

impl ColumnPages {
    /// `None` when the column must be read by other means.
    pub(super) fn new(segment: &Arc<OpenSegment>, input: &Arc<BlockReader>, root: usize) -> Option<ColumnPages> {
        let schema = segment.metadata.parquet_schema();
        let mut leaves = (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == root);
        let (leaf, None) = (leaves.next()?, leaves.next()) else { return None };
        let column = schema.column(leaf);
        if column.max_rep_level() != 0 || column.max_def_level() > 1 {
            return None;
        }
        let form = form(segment, root)?;
        let readable = |encoding| match form {
            Form::Packed { .. } => encoding == Encoding::DELTA_BINARY_PACKED,
            Form::Split { .. } => encoding == Encoding::BYTE_STREAM_SPLIT,
            Form::Text => matches!(encoding, Encoding::PLAIN | Encoding::RLE_DICTIONARY),
        };
        let groups = segment.parquet().row_groups();
        let mut encodings = groups.iter().flat_map(|group| group.column(leaf).encodings());
        if !encodings.all(|encoding| encoding == Encoding::RLE || readable(encoding)) {
            return None;
        }
        Some(ColumnPages {
            segment: Arc::clone(segment),
            input: Arc::clone(input),
            root,
            leaf,
            form,
            nullable: column.max_def_level() == 1,
            group: None,
            page: None,
            padded: Vec::new(),
        })
    }

    /// The values of these rows, as readers see them. Cheapest in ascending order.
    pub(super) fn read(&mut self, rows: &[Range<u32>]) -> Result<ArrayRef> {
        let mut parts = Vec::with_capacity(rows.len());
        for range in rows {
            let mut start = range.start;
            while start < range.end {
                let (page, values) = self.page_of(start)?;
                let end = range.end.min(page.end);
                parts.push(values.slice((start - page.start) as usize, (end - start) as usize));
                start = end;
            }
        }
        match &parts[..] {
            [one] => Ok(Arc::clone(one)),
            parts => Ok(concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>())?),
        }
    }

    fn page_of(&mut self, row: u32) -> Result<(Range<u32>, &ArrayRef)> {
        if !self.page.as_ref().is_some_and(|(rows, _)| rows.contains(&row)) {
            self.page = Some(self.load(row)?);
        }
        let (rows, values) = self.page.as_ref().expect("it was just loaded");
        Ok((rows.clone(), values))
    }

    fn load(&mut self, row: u32) -> Result<(Range<u32>, ArrayRef)> {
        let segment = Arc::clone(&self.segment);
        let number = segment.group_starts.partition_point(|start| *start <= row) - 1;
        let group_start = segment.group_starts[number];
        let group_end = group_start + segment.parquet().row_group(number).num_rows() as u32;
        let offsets = segment.parquet().offset_index().and_then(|index| index.get(number)?.get(self.leaf));
        let offsets = offsets.ok_or_else(|| self.damaged("the page index misses a column"))?.page_locations();
        let first_row =
            |page: usize| offsets.get(page).map_or(group_end, |location| group_start + location.first_row_index as u32);
        let page = offsets.partition_point(|location| group_start + location.first_row_index as u32 <= row);
        let page = page.checked_sub(1).ok_or_else(|| self.damaged("a row lies in no page"))?;
        let (rows, location) = (first_row(page)..first_row(page + 1), &offsets[page]);

        let group = match self.group.take() {
            Some(group) if group.number == number => group,
            _ => self.open_group(number)?,
        };
        let (kind, bytes) = self.page_at(number, location.offset, i64::from(location.compressed_page_size))?;
        let values = self.decode(&kind, &bytes, rows.len(), group.dictionary.as_ref());
        self.group = Some(group);
        Ok((rows, values.map_err(|reason| self.damaged(reason))?))
    }

    fn open_group(&self, number: usize) -> Result<Group> {
        let column = self.segment.parquet().row_group(number).column(self.leaf);
        let mut dictionary = None;
        if let Some(start) = column.dictionary_page_offset() {
            let (kind, bytes) = self.page_at(number, start, column.data_page_offset() - start)?;
            let Kind::Dictionary { values } = kind else { return Err(self.damaged("a dictionary is missing")) };
            dictionary = Some(plain_texts(&bytes, values).map_err(|reason| self.damaged(reason))?);
        }
        Ok(Group { number, dictionary })
    }

    fn page_at(&self, group: usize, start: i64, length: i64) -> Result<(Kind, Vec<u8>)> {
        let place = u64::try_from(start).ok().zip(usize::try_from(length).ok());
        let (start, length) = place.ok_or_else(|| self.damaged("a page lies outside of the file"))?;
        let bytes = self.input.get_bytes(start, length).map_err(|error| self.input.failure(error))?;
        let compression = self.segment.parquet().row_group(group).column(self.leaf).compression();
        page::read(&bytes, compression).map_err(|reason| self.damaged(reason))
    }

    fn decode(&mut self, kind: &Kind, page: &[u8], rows: usize, texts: Option<&StringArray>) -> Decoded<ArrayRef> {
        let Kind::Data { rows: told, nulls: null_count, encoding, levels } = *kind else {
            return Err("a page of rows is missing".to_owned());
        };
        if told != rows {
            return Err(format!("a page has {told} rows in place of {rows}"));
        }
        let levels = if self.nullable { levels } else { 0 };
        if levels > page.len() || null_count > rows {
            return Err("a page is shorter than its levels".to_owned());
        }
        let (levels, values) = page.split_at(levels);
        let nulls = match null_count {
            0 => None,
            _ => Some(NullBuffer::new(hybrid::decode_validity(levels, rows)?)),
        };
        if nulls.as_ref().is_some_and(|nulls| nulls.null_count() != null_count) {
            return Err("a page has other NULLs than it says".to_owned());
        }
        let there = rows - null_count;
        match self.form {
            Form::Packed { narrow } => self.packed(values, narrow, there, nulls),
            Form::Split { bytes } => self.split(values, bytes, there, nulls),
            Form::Text => texts_of(values, encoding, texts, there, nulls),
        }
    }

    fn packed(&mut self, bytes: &[u8], narrow: bool, there: usize, nulls: Option<NullBuffer>) -> Decoded<ArrayRef> {
        self.padded.clear();
        self.padded.extend_from_slice(bytes);
        self.padded.resize(bytes.len() + SLACK_BYTES, 0);
        let data_type = self.segment.metadata.schema().field(self.root).data_type();
        let stored = self.segment.columns[self.root].stored;
        let wanted = restored_type(stored, data_type);
        let page = PackedPage { padded: &self.padded, there, nulls, wanted: &wanted };
        match (stored, data_type) {
            (Stored::Float64 { scale: 0 }, _) => page.array(|value| value as f64),
            (Stored::Float64 { scale }, _) => page.array(|value| unscale(value, scale)),
            (Stored::Float32 { scale }, _) => page.array(|value| unscale(value, scale) as f32),
            (_, DataType::Int8) => page.array(|value| value as i8),
            (_, DataType::Int16) => page.array(|value| value as i16),
            _ if narrow => page.array(|value| value as i32),
            _ => page.array(|value| value),
        }
    }

    fn split(&self, bytes: &[u8], width: usize, there: usize, nulls: Option<NullBuffer>) -> Decoded<ArrayRef> {
        if bytes.len() != there * width {
            return Err(format!("a page has {} bytes in place of {}", bytes.len(), there * width));
        }
        let stream = |byte: usize| &bytes[byte * there..][..there];
        let data_type = self.segment.metadata.schema().field(self.root).data_type();
        if width == 4 {
            let streams: [&[u8]; 4] = std::array::from_fn(stream);
            let values = (0..there).map(|at| f32::from_le_bytes(std::array::from_fn(|byte| streams[byte][at])));
            return primitive(values.collect(), nulls, data_type);
        }
        let streams: [&[u8]; 8] = std::array::from_fn(stream);
        let values = (0..there).map(|at| f64::from_le_bytes(std::array::from_fn(|byte| streams[byte][at])));
        primitive(values.collect(), nulls, data_type)
    }

    fn damaged(&self, reason: impl Into<String>) -> StorageError {
        StorageError::damaged(self.segment.path(), 0, reason.into())
    }
}

/// Whether the page index has the shape that readers rely on: in each row group the pages of a column follow each other
/// from the first row on, and bounds are told of as many as there are.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_index(metadata: &ParquetMetaData) -> Decoded<()> {
    let (Some(columns), Some(offsets)) = (metadata.column_index(), metadata.offset_index()) else { return Ok(()) };
    for (number, group) in metadata.row_groups().iter().enumerate() {
        for (leaf, (bounds, offsets)) in columns[number].iter().zip(&offsets[number]).enumerate() {
            let starts = offsets.page_locations().iter().map(|page| page.first_row_index).collect::<Vec<_>>();
            let follow = starts.first() == Some(&0) && starts.is_sorted() && starts.last() < Some(&group.num_rows());
            let told = matches!(bounds, ColumnIndexMetaData::NONE) || bounds.num_pages() == starts.len() as u64;
            if !follow || !told {
                return Err(format!("the page index is wrong about column {leaf} of row group {number}"));
            }
        }
    }
    Ok(())
}

struct PackedPage<'a> {
    padded: &'a [u8],
    there: usize,
    nulls: Option<NullBuffer>,
    wanted: &'a DataType,
}

impl PackedPage<'_> {
    fn array<T: ArrowNativeType>(self, value: impl Fn(i64) -> T + Copy) -> Decoded<ArrayRef> {
        let values = packed::decode(self.padded, value)?;
        if values.len() != self.there {
            return Err(format!("a page has {} values in place of {}", values.len(), self.there));
        }
        primitive(values, self.nulls, self.wanted)
    }
}

fn form(segment: &OpenSegment, root: usize) -> Option<Form> {
    use DataType::*;
    let stored = segment.columns[root].stored;
    match segment.metadata.schema().field(root).data_type() {
        Decimal64(..) if matches!(stored, Stored::Float64 { .. } | Stored::Float32 { .. }) => {
            Some(Form::Packed { narrow: false })
        }
        Int64 | Timestamp(..) | Time64(TimeUnit::Microsecond) => Some(Form::Packed { narrow: false }),
        Int8 | Int16 | Int32 | Date32 => Some(Form::Packed { narrow: true }),
        Float64 => Some(Form::Split { bytes: 8 }),
        Float32 => Some(Form::Split { bytes: 4 }),
        Utf8 => Some(Form::Text),
        _ => None,
    }
}

/// An array of the values, with NULLs where there are none.
fn primitive<T: ArrowNativeType>(values: Vec<T>, nulls: Option<NullBuffer>, data_type: &DataType) -> Decoded<ArrayRef> {
    let values = match &nulls {
        None => values,
        Some(nulls) => {
            let mut spread = vec![T::default(); nulls.len()];
            nulls.valid_indices().zip(values).for_each(|(at, value)| spread[at] = value);
            spread
        }
    };
    let data =
        ArrayData::builder(data_type.clone()).len(values.len()).nulls(nulls).add_buffer(Buffer::from_vec(values));
    data.build().map(make_array).map_err(|error| error.to_string())
}

fn texts_of(
    bytes: &[u8],
    encoding: Encoding,
    dictionary: Option<&StringArray>,
    there: usize,
    nulls: Option<NullBuffer>,
) -> Decoded<ArrayRef> {
    let dense = match encoding {
        Encoding::PLAIN => plain_texts(bytes, there)?,
        _ => {
            let dictionary = dictionary.ok_or("a page without its dictionary")?;
            dictionary_texts(bytes, dictionary, there)?
        }
    };
    let Some(nulls) = nulls else { return Ok(Arc::new(dense)) };
    let mut next = dense.iter();
    let spread = nulls.iter().map(|there| if there { next.next().flatten() } else { None });
    Ok(Arc::new(spread.collect::<StringArray>()))
}

fn plain_texts(bytes: &[u8], count: usize) -> Decoded<StringArray> {
    let (mut rest, mut texts) = (bytes, StringBuilder::with_capacity(count.min(bytes.len()), bytes.len()));
    for _ in 0..count {
        let text = rest.split_first_chunk::<4>().and_then(|(length, after)| {
            let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            std::str::from_utf8(text).ok()
        });
        texts.append_value(text.ok_or("a text is cut off, or no UTF-8")?);
    }
    Ok(texts.finish())
}

fn dictionary_texts(bytes: &[u8], dictionary: &StringArray, count: usize) -> Decoded<StringArray> {
    let (width, runs) = bytes.split_first().ok_or("an empty page of a dictionary")?;
    let width = usize::from(*width);
    let outside = |index: u32| format!("entry {index} of a dictionary of {}", dictionary.len());
    let entry = |index: u32| {
        let there = (index as usize) < dictionary.len();
        if there { Ok(dictionary.value(index as usize)) } else { Err(outside(index)) }
    };
    let mut texts = Texts { bytes: Vec::with_capacity(count * 8), offsets: Vec::with_capacity(count + 1) };
    texts.offsets.push(0);
    hybrid::decode(runs, width, count, |run| {
        match run {
            Run::Repeated { value, count } => texts.repeat(entry(value)?, count)?,
            Run::Packed { bytes, count } => {
                for at in 0..count {
                    texts.repeat(entry(hybrid::packed_value(bytes, width, at))?, 1)?;
                }
            }
        }
        Ok(())
    })?;
    let offsets = OffsetBuffer::new(texts.offsets.into());
    StringArray::try_new(offsets, texts.bytes.into(), None).map_err(|error| error.to_string())
}

/// The parts of an array of texts. In a sorted segment one follows itself thousands of times.
struct Texts {
    bytes: Vec<u8>,
    offsets: Vec<i32>,
}

impl Texts {
    fn repeat(&mut self, text: &str, count: usize) -> Decoded<()> {
        let (start, length) = (self.bytes.len(), text.len());
        let end = length.checked_mul(count).and_then(|more| start.checked_add(more));
        let end = end.filter(|end| *end <= i32::MAX as usize).ok_or("a page of more text than an array holds")?;
        self.bytes.extend_from_slice(&text.as_bytes()[..length.min(end - start)]);
        while self.bytes.len() < end {
            let twice = (self.bytes.len() - start).min(end - self.bytes.len());
            self.bytes.extend_from_within(start..start + twice);
        }
        self.offsets.extend((1..=count).map(|n| (start + n * length) as i32));
        Ok(())
    }
}
