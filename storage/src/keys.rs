//! Unique keys: finding rows of two batches whose key columns are equal, by hashes first and by value then.
//!
//! Equal means what SQL's `=` means for the types a key can have: NULL equals nothing, -0.0 equals 0.0, NaN equals NaN.
//! Values of different types are compared in the type of the rows to be added.

use crate::error::{Result, StorageError};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_comparator};
use arrow::compute::{SortOptions, cast, max, min};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use proto::{ColumnId, ColumnPredicate, PredicateKind, Scalar, UniqueKey};
use std::collections::BTreeSet;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Values of a text column that a search in segments names one by one; with more it goes by their range.
const VALUES_MAX: usize = 64;

/// The key columns of a batch, and their rows by hash.
pub(crate) struct KeyRows {
    columns: Vec<ArrayRef>,
    /// Rows without NULL, ordered by hash.
    hashes: Vec<(u64, u32)>,
}

impl KeyRows {
    /// `None` when the batch lacks a column: every row is NULL there.
    pub(crate) fn of(batch: &RecordBatch, ids: &[ColumnId], key: &[ColumnId]) -> Result<Option<KeyRows>> {
        let places = key.iter().map(|id| ids.iter().position(|other| other == id)).collect::<Option<Vec<_>>>();
        let columns = places.map(|places| places.iter().map(|at| Arc::clone(batch.column(*at))).collect());
        columns.map(KeyRows::new).transpose()
    }

    pub(crate) fn new(columns: Vec<ArrayRef>) -> Result<KeyRows> {
        let columns = columns.iter().map(|column| comparable(column)).collect::<Vec<_>>();
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        let whole = |row: usize| columns.iter().all(|column| column.is_valid(row));
        let hashes = (0..rows.num_rows()).filter(|row| whole(*row));
        let mut hashes = hashes.map(|row| (xxh3_64(rows.row(row).as_ref()), row as u32)).collect::<Vec<_>>();
        hashes.sort_unstable();
        Ok(KeyRows { columns, hashes })
    }

    /// The same rows in the types of others.
    pub(crate) fn with_types_of(self: &Arc<Self>, others: &KeyRows) -> Result<Arc<KeyRows>> {
        let mut pairs = self.columns.iter().zip(&others.columns);
        if pairs.all(|(a, b)| a.data_type() == b.data_type()) {
            return Ok(Arc::clone(self));
        }
        let columns = self.columns.iter().zip(&others.columns).map(|(a, b)| Ok(cast(a, b.data_type())?));
        Ok(Arc::new(KeyRows::new(columns.collect::<Result<Vec<_>>>()?)?))
    }

    /// Two rows with one key, if there are any.
    pub(crate) fn twins(&self) -> Result<Option<(u32, u32)>> {
        if self.hashes.windows(2).all(|pair| pair[0].0 != pair[1].0) {
            return Ok(None);
        }
        let equal = self.equality(self)?;
        let runs = self.hashes.chunk_by(|a, b| a.0 == b.0);
        let mut pairs = runs
            .flat_map(|run| run.iter().enumerate().flat_map(|(at, a)| run[at + 1..].iter().map(move |b| (a.1, b.1))));
        Ok(pairs.find(|(a, b)| equal(*a as usize, *b as usize)))
    }

    /// Pairs of rows, one of each side, with one key. The types are the same on both sides.
    pub(crate) fn matches(&self, other: &KeyRows) -> Result<Vec<(u32, u32)>> {
        if self.hashes.len() > other.hashes.len() {
            return Ok(other.matches(self)?.into_iter().map(|(b, a)| (a, b)).collect());
        }
        let mut candidates = Vec::new();
        for (hash, row) in &self.hashes {
            let first = other.hashes.partition_point(|(before, _)| before < hash);
            let same = other.hashes[first..].iter().take_while(|(other, _)| other == hash);
            candidates.extend(same.map(|(_, other)| (*row, *other)));
        }
        if !candidates.is_empty() {
            let equal = self.equality(other)?;
            candidates.retain(|(a, b)| equal(*a as usize, *b as usize));
        }
        Ok(candidates)
    }

    fn equality(&self, other: &KeyRows) -> Result<impl Fn(usize, usize) -> bool> {
        let pairs = self.columns.iter().zip(&other.columns);
        let compare = pairs.map(|(a, b)| make_comparator(a.as_ref(), b.as_ref(), SortOptions::default()));
        let compare = compare.collect::<Result<Vec<_>, _>>()?;
        Ok(move |a: usize, b: usize| compare.iter().all(|compare| compare(a, b).is_eq()))
    }

    /// What rows with one of these keys satisfy.
    pub(crate) fn predicates(&self, key: &[ColumnId]) -> Result<Vec<ColumnPredicate>> {
        let kinds = key.iter().zip(&self.columns).filter_map(|(id, values)| {
            let kind = bounds(values).transpose()?;
            Some(kind.map(|kind| ColumnPredicate { column: *id, kind }))
        });
        kinds.collect()
    }

    /// The violation that a row of these would be.
    pub(crate) fn violation(&self, key: &UniqueKey, names: &[String], row: u32) -> StorageError {
        let values = self.columns.iter().map(|column| shown(column, row as usize)).collect::<Vec<_>>().join(", ");
        let detail = format!("Key ({})=({values}) already exists.", names.join(", "));
        StorageError::Duplicate { key: key.name.clone(), detail }
    }
}

/// A column in which equal values have equal bits.
fn comparable(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let canonical = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical))
        }
        DataType::Float32 => {
            let canonical = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(canonical))
        }
        _ => Arc::clone(column),
    }
}

/// Bounds of a column's values as scans prune by them; `None` for types they do not prune by.
fn bounds(values: &ArrayRef) -> Result<Option<PredicateKind>> {
    use DataType::*;
    match values.data_type() {
        Int8 | Int16 | Int32 | Int64 | Date32 | Timestamp(..) | Time64(_)
            if crate::segment::comparable(values.data_type()) =>
        {
            let integers = cast(values, &Int64)?;
            let integers = integers.as_primitive::<Int64Type>();
            let (low, high) = (min(integers).map(Scalar::Int), max(integers).map(Scalar::Int));
            Ok(Some(PredicateKind::Range { min: low, max: high }))
        }
        Utf8 => {
            let mut distinct = BTreeSet::new();
            for text in values.as_string::<i32>().iter().flatten() {
                distinct.insert(text);
                if distinct.len() > VALUES_MAX {
                    let (low, high) = (
                        arrow::compute::min_string(values.as_string::<i32>()),
                        arrow::compute::max_string(values.as_string::<i32>()),
                    );
                    let text = |text: &str| Scalar::Text(text.to_owned());
                    return Ok(Some(PredicateKind::Range { min: low.map(text), max: high.map(text) }));
                }
            }
            Ok(Some(PredicateKind::OneOf(distinct.into_iter().map(|text| Scalar::Text(text.to_owned())).collect())))
        }
        _ => Ok(None),
    }
}

/// A value as PostgreSQL prints it where that is simple; `timestamptz` in UTC.
fn shown(column: &ArrayRef, row: usize) -> String {
    use arrow::datatypes::{Date32Type, TimeUnit::Microsecond, TimestampMicrosecondType};
    match column.data_type() {
        DataType::Timestamp(Microsecond, zone) => {
            let at = column.as_primitive::<TimestampMicrosecondType>().value_as_datetime(row);
            let text = at.map(|at| at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()).unwrap_or_default();
            let text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
            if zone.is_some() { text + "+00" } else { text }
        }
        DataType::Date32 => {
            let at = column.as_primitive::<Date32Type>().value_as_date(row);
            at.map(|at| at.format("%Y-%m-%d").to_string()).unwrap_or_default()
        }
        DataType::Boolean => if column.as_boolean().value(row) { "t" } else { "f" }.to_owned(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).to_string(),
        _ => arrow::util::display::array_value_to_string(column, row).unwrap_or_default(),
    }
}
