//! Which rows of a segment a scan can skip, from statistics, bloom filters and the directory of series. Skips only what
//! certainly fails a predicate.

use super::blocks::BlockReader;
use super::columns::{Stored, comparable, restored_type, unscale};
use super::{OpenSegment, PAGE_ROWS, StoredColumn};
use crate::error::Result;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;
use proto::{ColumnPredicate, PredicateKind, Scalar};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;

/// What to read.
#[derive(Clone)]
pub(crate) struct Selection {
    /// Positions in the segment, ascending.
    pub(crate) rows: Vec<Range<u32>>,
    /// Predicates that some of these rows may fail, by their place.
    pub(super) open: Vec<usize>,
}

impl Selection {
    pub(crate) fn rows_count(&self) -> usize {
        self.rows.iter().map(|range| range.len()).sum()
    }

    /// Takes about the first `rows` of them away: pages stay whole.
    pub(crate) fn take(&mut self, rows: usize) -> Selection {
        let (mut taken, mut left) = (Vec::new(), rows);
        let mut behind = std::mem::take(&mut self.rows).into_iter();
        for range in behind.by_ref() {
            let cut = (range.start as usize + left).next_multiple_of(PAGE_ROWS).min(range.end as usize) as u32;
            if left > 0 {
                taken.push(range.start..cut);
                left = left.saturating_sub((cut - range.start) as usize);
                if cut < range.end {
                    self.rows.push(cut..range.end);
                    break;
                }
            } else {
                self.rows.push(range);
                break;
            }
        }
        self.rows.extend(behind);
        Selection { rows: taken, open: self.open.clone() }
    }
}

/// The values of a column in some range of rows lie in `min..=max`.
enum Bounds {
    Unknown,
    /// Every row is NULL.
    Null,
    Within(Scalar, Scalar),
}

/// # Errors
/// When the directory of series or a bloom filter cannot be read.
pub(super) fn select(segment: &OpenSegment, input: &BlockReader, predicates: &[ColumnPredicate]) -> Result<Selection> {
    let parquet = segment.parquet();
    // Statistics belong to Parquet's leaf columns; one of ours that has several has no bounds.
    let usable = predicates.iter().enumerate().filter_map(|(at, predicate)| {
        let root = segment.columns.iter().position(|column| column.id == Some(predicate.column))?;
        let schema = segment.metadata.parquet_schema();
        let mut leaves = (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == root);
        let leaf = leaves.next()?;
        let flat = leaves.next().is_none() && schema.column(leaf).max_rep_level() == 0;
        let stored = segment.columns[root].stored;
        let data_type = restored_type(stored, segment.metadata.schema().field(root).data_type());
        let bounded = comparable(&data_type) && stored != Stored::FloatWithNan;
        (flat && bounded).then_some((at, predicate, leaf, root))
    });
    let usable = usable.collect::<Vec<_>>();
    let mut certain = usable.iter().map(|(at, ..)| *at).collect::<BTreeSet<_>>();
    let tally = &input.tally;
    let series = segment.series(predicates, tally)?.and_then(|series| series.select(predicates));
    let mut selected = Vec::new();
    for (number, group) in parquet.row_groups().iter().enumerate() {
        let rows = group.num_rows() as usize;
        let bounds = usable.iter().map(|(at, predicate, leaf, root)| {
            let statistics = group.column(*leaf).statistics();
            let complete = statistics.is_some_and(|statistics| statistics.null_count_opt() == Some(0));
            let bounds = statistics
                .map_or(Bounds::Unknown, |statistics| of_row_group(statistics, rows, &segment.columns[*root]));
            (*at, &predicate.kind, bounds, complete)
        });
        let bounds = bounds.collect::<Vec<_>>();
        if !bounds.iter().all(|(_, kind, bounds, _)| may_match(kind, bounds)) {
            tally.rows_skipped_by_statistics.add(rows);
            continue;
        }
        if !filters_match(input, group, &usable)? {
            tally.rows_skipped_by_bloom.add(rows);
            continue;
        }
        let mut kept = whole(rows);
        for (_, predicate, leaf, root) in &usable {
            kept = intersect(&kept, &pages(segment, number, rows, predicate, *leaf, *root));
        }
        tally.rows_skipped_by_statistics.add(rows - rows_in(&kept));
        if kept.is_empty() {
            continue;
        }
        for (at, kind, bounds, complete) in &bounds {
            if !(*complete && must_match(kind, bounds)) {
                certain.remove(at);
            }
        }
        let start = segment.group_starts[number];
        selected.extend(kept.iter().map(|range| start + range.start as u32..start + range.end as u32));
    }
    if let Some((rows, decided)) = series {
        let before = selected.iter().map(|range| range.len()).sum::<usize>();
        selected = intersect(&selected, &rows);
        tally.rows_skipped_by_series.add(before - selected.iter().map(|range| range.len()).sum::<usize>());
        certain.extend(decided);
    }
    let groups_read = groups_of(segment, &selected);
    tally.row_groups_read.add(groups_read);
    tally.row_groups_skipped.add(segment.group_starts.len() - groups_read);
    let open = (0..predicates.len()).filter(|at| !certain.contains(at)).collect();
    Ok(Selection { rows: selected, open })
}

fn rows_in(ranges: &[Range<usize>]) -> usize {
    ranges.iter().map(|range| range.len()).sum()
}

/// In how many row groups these rows lie.
fn groups_of(segment: &OpenSegment, rows: &[Range<u32>]) -> usize {
    let ends = segment.group_starts.iter().skip(1).copied().chain([u32::MAX]);
    let groups = segment.group_starts.iter().zip(ends);
    let read = groups.filter(|(start, end)| {
        let first = rows.partition_point(|range| range.end <= **start);
        rows.get(first).is_some_and(|range| range.start < *end)
    });
    read.count()
}

/// A predicate with its place, and the leaf and the column it is about.
type Usable<'a> = (usize, &'a ColumnPredicate, usize, usize);

/// Whether the bloom filters of a row group leave any value of each predicate that names some.
fn filters_match(input: &BlockReader, group: &RowGroupMetaData, predicates: &[Usable<'_>]) -> Result<bool> {
    for (_, predicate, leaf, _) in predicates {
        let PredicateKind::OneOf(values) = &predicate.kind else { continue };
        let filter = Sbbf::read_from_column_chunk(group.column(*leaf), input).map_err(|error| input.failure(error))?;
        let Some(filter) = filter else { continue };
        let may = |value: &Scalar| match value {
            Scalar::Text(text) => filter.check(text.as_str()),
            Scalar::Bytes(bytes) => filter.check(bytes.as_slice()),
            _ => true,
        };
        if !values.iter().any(may) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Row ranges of the pages of one column that may hold a match.
fn pages(
    segment: &OpenSegment,
    group: usize,
    rows: usize,
    predicate: &ColumnPredicate,
    leaf: usize,
    root: usize,
) -> Vec<Range<usize>> {
    let parquet = segment.parquet();
    let (Some(columns), Some(offsets)) = (parquet.column_index(), parquet.offset_index()) else { return whole(rows) };
    let (index, locations) = (&columns[group][leaf], offsets[group][leaf].page_locations());
    let column = &segment.columns[root];
    let starts = locations.iter().map(|page| page.first_row_index as usize);
    let ends = starts.clone().skip(1).chain([rows]);
    let kept =
        starts.zip(ends).enumerate().filter(|(page, _)| may_match(&predicate.kind, &of_page(index, *page, column)));
    kept.fold(Vec::new(), |mut ranges: Vec<Range<usize>>, (_, (start, end))| {
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
        ranges
    })
}

fn whole(rows: usize) -> Vec<Range<usize>> {
    std::iter::once(0..rows).collect()
}

/// What two ascending lists of ranges have in common.
fn intersect<T: Copy + Ord>(a: &[Range<T>], b: &[Range<T>]) -> Vec<Range<T>> {
    let (mut both, mut i, mut j) = (Vec::new(), 0, 0);
    while let (Some(left), Some(right)) = (a.get(i), b.get(j)) {
        let common = left.start.max(right.start)..left.end.min(right.end);
        if common.start < common.end {
            both.push(common);
        }
        if left.end < right.end { i += 1 } else { j += 1 }
    }
    both
}

fn of_row_group(statistics: &Statistics, rows: usize, column: &StoredColumn) -> Bounds {
    if statistics.null_count_opt() == Some(rows as u64) {
        return Bounds::Null;
    }
    let bounds = match statistics {
        Statistics::Int32(v) => v.min_opt().zip(v.max_opt()).map(|(a, b)| (i64::from(*a), i64::from(*b))).map(Raw::Int),
        Statistics::Int64(v) => v.min_opt().zip(v.max_opt()).map(|(a, b)| (*a, *b)).map(Raw::Int),
        Statistics::Float(v) => {
            v.min_opt().zip(v.max_opt()).map(|(a, b)| (f64::from(*a), f64::from(*b))).map(Raw::Float)
        }
        Statistics::Double(v) => v.min_opt().zip(v.max_opt()).map(|(a, b)| (*a, *b)).map(Raw::Float),
        Statistics::ByteArray(v) => v.min_opt().zip(v.max_opt()).map(|(a, b)| (a.data(), b.data())).map(Raw::Bytes),
        _ => None,
    };
    bounds.map_or(Bounds::Unknown, |raw| raw.bounds(column))
}

fn of_page(index: &ColumnIndexMetaData, page: usize, column: &StoredColumn) -> Bounds {
    if matches!(index, ColumnIndexMetaData::NONE) {
        return Bounds::Unknown;
    }
    if index.is_null_page(page) {
        return Bounds::Null;
    }
    let bounds = match index {
        ColumnIndexMetaData::INT32(v) => {
            v.min_value(page).zip(v.max_value(page)).map(|(a, b)| Raw::Int((i64::from(*a), i64::from(*b))))
        }
        ColumnIndexMetaData::INT64(v) => v.min_value(page).zip(v.max_value(page)).map(|(a, b)| Raw::Int((*a, *b))),
        ColumnIndexMetaData::FLOAT(v) => {
            v.min_value(page).zip(v.max_value(page)).map(|(a, b)| Raw::Float((f64::from(*a), f64::from(*b))))
        }
        ColumnIndexMetaData::DOUBLE(v) => v.min_value(page).zip(v.max_value(page)).map(|(a, b)| Raw::Float((*a, *b))),
        ColumnIndexMetaData::BYTE_ARRAY(v) => v.min_value(page).zip(v.max_value(page)).map(Raw::Bytes),
        _ => None,
    };
    bounds.map_or(Bounds::Unknown, |raw| raw.bounds(column))
}

/// Bounds as Parquet keeps them.
enum Raw<'a> {
    Int((i64, i64)),
    Float((f64, f64)),
    Bytes((&'a [u8], &'a [u8])),
}

impl Raw<'_> {
    fn bounds(&self, column: &StoredColumn) -> Bounds {
        match (self, column.stored) {
            (Raw::Int((a, b)), Stored::Float64 { scale } | Stored::Float32 { scale }) => {
                let single = matches!(column.stored, Stored::Float32 { .. });
                let value =
                    |integer| if single { f64::from(unscale(integer, scale) as f32) } else { unscale(integer, scale) };
                Bounds::Within(Scalar::Float(value(*a)), Scalar::Float(value(*b)))
            }
            (Raw::Int((a, b)), ..) => Bounds::Within(Scalar::Int(*a), Scalar::Int(*b)),
            (Raw::Float((a, b)), ..) => Bounds::Within(Scalar::Float(*a), Scalar::Float(*b)),
            (Raw::Bytes((a, b)), ..) => Bounds::Within(Scalar::Bytes(a.to_vec()), Scalar::Bytes(b.to_vec())),
        }
    }
}

/// Whether a value within the bounds may satisfy the predicate.
fn may_match(kind: &PredicateKind, bounds: &Bounds) -> bool {
    let (low, high) = match bounds {
        Bounds::Unknown => return true,
        Bounds::Null => return false,
        Bounds::Within(low, high) => (low, high),
    };
    let not_below = |value: &Scalar| compare(value, low) != Some(Ordering::Less);
    let not_above = |value: &Scalar| compare(value, high) != Some(Ordering::Greater);
    match kind {
        PredicateKind::Range { min, max } => min.as_ref().is_none_or(not_above) && max.as_ref().is_none_or(not_below),
        PredicateKind::OneOf(values) => values.iter().any(|value| not_below(value) && not_above(value)),
    }
}

/// Whether every value within the bounds satisfies the predicate.
fn must_match(kind: &PredicateKind, bounds: &Bounds) -> bool {
    let Bounds::Within(low, high) = bounds else { return false };
    let reaches = |value: &Scalar, bound: &Scalar, far: Ordering| {
        compare(value, bound).is_some_and(|order| order == far || order == Ordering::Equal)
    };
    match kind {
        PredicateKind::Range { min, max } => {
            min.as_ref().is_none_or(|min| reaches(min, low, Ordering::Less))
                && max.as_ref().is_none_or(|max| reaches(max, high, Ordering::Greater))
        }
        PredicateKind::OneOf(values) => values.iter().any(|value| {
            let equals = |bound| compare(value, bound) == Some(Ordering::Equal);
            equals(low) && equals(high)
        }),
    }
}

/// `None` for values of different kinds, and for NaN: nothing is known then.
fn compare(a: &Scalar, b: &Scalar) -> Option<Ordering> {
    match (a, b) {
        (Scalar::Int(a), Scalar::Int(b)) => Some(a.cmp(b)),
        // NaN is above all in SQL and outside of the statistics: it compares to nothing here.
        (Scalar::Float(a), Scalar::Float(b)) => a.partial_cmp(b),
        (Scalar::Text(a), Scalar::Bytes(b)) => Some(a.as_bytes().cmp(b)),
        (Scalar::Bytes(a), Scalar::Bytes(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
