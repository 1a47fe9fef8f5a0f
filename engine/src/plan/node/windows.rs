//! Reading from one end of time: window by window, each larger than the one before, until enough rows have passed the
//! filters above the scan (`Leading`). The first windows are read by one partition, while the others wait: it will mostly
//! have enough. What is left after some windows is read at once, by all partitions.
//!
//! Windows lie next to each other and have no gap, so that every row belongs to one. Where rows lie is only used to choose
//! how large they are, and which chunks have rows in them.

use super::super::cursor::ChunkQueue;
use super::super::leading::{Enough, Leading};
use crate::functions::time_bucket::Buckets;
use parking_lot::Mutex;
use proto::{ChunkId, ColumnPredicate, PredicateKind, Scalar};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// Windows that one partition reads by itself.
const WINDOWS_MAX: u32 = 4;
/// How much larger each is than the one before.
const GROWTH: i64 = 8;
/// The first window for a number of rows, as a part of the chunk it begins in.
const FIRST_PART: i64 = 64;

/// A range of times, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Window {
    pub min: i64,
    pub max: i64,
}

impl Window {
    /// What a store may skip by.
    pub fn predicate(self, leading: &Leading) -> ColumnPredicate {
        let bound = |us| Some(Scalar::Int(us)).filter(|_| us != i64::MIN && us != i64::MAX);
        let kind = PredicateKind::Range { min: bound(self.min), max: bound(self.max) };
        ColumnPredicate { column: leading.time, kind }
    }
}

/// What the partitions that wait are to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Verdict {
    Open,
    /// Nothing is left to be read.
    Enough,
    /// All partitions share this one.
    Rest(Window),
}

/// The windows of one scan. Times are turned into ranks, of which the greatest is the first in time.
pub(in super::super) struct Windows {
    pub leading: Leading,
    buckets: Option<Buckets>,
    /// The ranks between which each chunk's rows lie: the last one in time, and the first.
    chunks: Vec<(ChunkId, i64, i64)>,
    progress: Mutex<Progress>,
    verdict: watch::Sender<Verdict>,
}

struct Progress {
    /// Ranks above this were read.
    unread: Option<i64>,
    number: u32,
    rows: usize,
    /// The first ranks of buckets with rows.
    buckets: BTreeSet<i64>,
}

impl Windows {
    /// `bounds` tells between which times each chunk's rows lie; those that fail a predicate are of no use. `None` when
    /// windows make no sense: nobody knows where some chunk's rows are.
    pub fn new(
        leading: &Leading,
        predicates: &[ColumnPredicate],
        bounds: impl Iterator<Item = (ChunkId, Option<(i64, i64)>)>,
    ) -> Option<Windows> {
        let buckets = match leading.enough {
            Enough::Rows(_) => None,
            Enough::Buckets { width_us, .. } => Some(Buckets::of_us(width_us)?),
        };
        let of_time = predicates.iter().filter(|predicate| predicate.column == leading.time);
        let (from, until) = of_time.fold((i64::MIN, i64::MAX), |(from, until), predicate| {
            let (min, max) = range(&predicate.kind);
            (from.max(min), until.min(max))
        });
        let mut chunks = Vec::new();
        for (chunk, bounds) in bounds {
            let (min, max) = bounds?;
            let (min, max) = (min.max(from), max.min(until));
            if min <= max {
                let (a, b) = (rank(leading, min), rank(leading, max));
                chunks.push((chunk, a.min(b), a.max(b)));
            }
        }
        // The first in time are read first.
        chunks.sort_by_key(|(_, _, first)| Reverse(*first));
        let progress = Progress { unread: Some(i64::MAX), number: 0, rows: 0, buckets: BTreeSet::new() };
        let verdict = watch::Sender::new(Verdict::Open);
        Some(Windows { leading: leading.clone(), buckets, chunks, progress: Mutex::new(progress), verdict })
    }

    /// Rows at these times have passed the filters.
    pub fn count(&self, times: &[i64]) {
        if *self.verdict.borrow() != Verdict::Open {
            return;
        }
        let mut progress = self.progress.lock();
        let Some(buckets) = &self.buckets else {
            progress.rows += times.len();
            return;
        };
        let mut within = (i64::MAX, i64::MIN);
        for us in times {
            if within.0 <= *us && *us <= within.1 {
                continue;
            }
            if self.is_enough(&progress) {
                return;
            }
            // A time that has no bucket fails where the bucket is asked for.
            let Ok(bucket) = buckets.around(*us) else { continue };
            within = bucket;
            progress.buckets.insert(bucket.0);
        }
    }

    fn is_enough(&self, progress: &Progress) -> bool {
        match self.leading.enough {
            Enough::Rows(count) => progress.rows >= count,
            Enough::Buckets { count, .. } => progress.buckets.len() >= count,
        }
    }

    /// The window to be read after those before were: by the first partition alone, until there is a verdict. Its chunks
    /// are put into `queue`.
    pub fn next(&self, queue: &ChunkQueue) -> Option<Window> {
        if *self.verdict.borrow() != Verdict::Open {
            return None;
        }
        let mut progress = self.progress.lock();
        let enough = self.is_enough(&progress);
        let Some((top, first)) =
            progress.unread.and_then(|top| Some((top, self.first_below(top)?))).filter(|_| !enough)
        else {
            self.verdict.send_replace(Verdict::Enough);
            return None;
        };
        if progress.number == WINDOWS_MAX {
            progress.unread = None;
            let rest = self.window(i64::MIN, top, queue);
            self.verdict.send_replace(Verdict::Rest(rest));
            return Some(rest);
        }
        let bottom = self.bottom(first, progress.number);
        progress.number += 1;
        progress.unread = bottom.checked_sub(1);
        Some(self.window(bottom, top, queue))
    }

    /// The chunk rows of which come first from rank `top` on, and at which rank.
    fn first_below(&self, top: i64) -> Option<(i64, i64, i64)> {
        let left = self.chunks.iter().filter(|(_, last, _)| *last <= top);
        left.map(|(_, last, first)| ((*first).min(top), *last, *first)).max_by_key(|(at, ..)| *at)
    }

    /// Where the window that begins with the rows at `at` ends.
    fn bottom(&self, (at, last, first): (i64, i64, i64), number: u32) -> i64 {
        let growth = GROWTH.saturating_pow(number);
        let part = first.saturating_sub(last) / FIRST_PART + 1;
        let Some(buckets) = &self.buckets else { return at.saturating_sub(part.saturating_mul(growth)) };
        let Enough::Buckets { count, width_us } = self.leading.enough else { unreachable!("there are buckets") };
        let others = (count as i64).saturating_sub(1).saturating_mul(width_us);
        // With the bucket it ends in as a whole.
        let end = at.saturating_sub(others.max(part).saturating_mul(growth));
        match buckets.around(rank(&self.leading, end)) {
            Ok((start, _)) if self.leading.descending => start,
            Ok((_, end)) => rank(&self.leading, end),
            Err(_) => i64::MIN,
        }
    }

    fn window(&self, bottom: i64, top: i64, queue: &ChunkQueue) -> Window {
        let inside = self.chunks.iter().filter(|(_, last, first)| *last <= top && *first >= bottom);
        queue.add(inside.map(|(chunk, ..)| *chunk));
        let (a, b) = (rank(&self.leading, bottom), rank(&self.leading, top));
        Window { min: a.min(b), max: a.max(b) }
    }

    /// Waits for the first partition.
    pub fn verdict(&self) -> watch::Receiver<Verdict> {
        self.verdict.subscribe()
    }
}

/// Between which times the rows lie that may pass.
fn range(kind: &PredicateKind) -> (i64, i64) {
    let us = |scalar: &Scalar, open| if let Scalar::Int(us) = scalar { *us } else { open };
    match kind {
        PredicateKind::Range { min, max } => (
            min.as_ref().map_or(i64::MIN, |min| us(min, i64::MIN)),
            max.as_ref().map_or(i64::MAX, |max| us(max, i64::MAX)),
        ),
        PredicateKind::OneOf(values) => (
            values.iter().map(|value| us(value, i64::MIN)).min().unwrap_or(i64::MAX),
            values.iter().map(|value| us(value, i64::MAX)).max().unwrap_or(i64::MIN),
        ),
    }
}

/// Its own inverse.
fn rank(leading: &Leading, us: i64) -> i64 {
    if leading.descending { us } else { !us }
}

/// The partition that reads the windows. When it goes, nobody waits for it.
pub(in super::super) struct Lead(pub Arc<Windows>);

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.verdict.send_if_modified(|verdict| {
            let open = *verdict == Verdict::Open;
            if open {
                *verdict = Verdict::Enough;
            }
            open
        });
    }
}
