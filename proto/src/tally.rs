//! What reading chunks took: whoever reads for one scan adds to its [`ScanTally`], and who wants to know takes the
//! [`ScanTotals`]. Counted per chunk, segment, read and batch, never per row; nobody reads a clock for it.

use crate::ChunkId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Shared by all readers of one scan.
        #[derive(Debug, Default)]
        pub struct ScanTally {
            looked_at: Mutex<LookedAt>,
            $($(#[$doc])* pub $name: Counter,)*
        }

        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct ScanTotals {
            /// Chunks that were opened, and those of them in which there was something to read.
            #[serde(skip_serializing_if = "is_zero")]
            pub chunks_opened: u64,
            #[serde(skip_serializing_if = "is_zero")]
            pub chunks_read: u64,
            /// The same of the segments of opened chunks.
            #[serde(skip_serializing_if = "is_zero")]
            pub segments_opened: u64,
            #[serde(skip_serializing_if = "is_zero")]
            pub segments_read: u64,
            $($(#[$doc])* #[serde(skip_serializing_if = "is_zero")] pub $name: u64,)*
        }

        impl ScanTally {
            pub fn totals(&self) -> ScanTotals {
                let looked_at = self.looked_at.lock();
                let (chunks, segments) = (&looked_at.chunks, &looked_at.segments);
                ScanTotals {
                    chunks_opened: chunks.len() as u64,
                    chunks_read: chunks.values().filter(|read| **read).count() as u64,
                    segments_opened: segments.len() as u64,
                    segments_read: segments.values().filter(|read| **read).count() as u64,
                    $($name: self.$name.get(),)*
                }
            }
        }
    };
}

counters! {
    /// Chunks there were to read.
    chunks_wanted,
    row_groups_read,
    row_groups_skipped,
    /// Rows of segments that were decoded, at least in one column.
    rows_read,
    /// Rows of segments that were not, because smallest and largest values of their segment, row group or page exclude
    /// them,
    rows_skipped_by_statistics,
    /// because the bloom filter of their row group does,
    rows_skipped_by_bloom,
    /// because the directory says where the wanted series lie,
    rows_skipped_by_series,
    /// or because it has the last rows of all series, and no others are wanted.
    rows_skipped_by_last,
    /// Decoded and not handed out: they fail a predicate, were removed, or are younger than the snapshot.
    rows_filtered,
    /// Rows that are in no segment yet, and those of them that bounds exclude.
    memory_rows,
    memory_rows_skipped,
    /// Asked of the file system; whether the operating system had them in memory is not known.
    bytes_read,
    /// Parts of segments that earlier readers left in memory: footers, page indexes, directories.
    bytes_remembered,
}

/// By what they are called, whether there was something to read in them. A scan may come to one several times.
#[derive(Debug, Default)]
struct LookedAt {
    chunks: BTreeMap<ChunkId, bool>,
    segments: BTreeMap<(ChunkId, u64), bool>,
}

impl ScanTally {
    pub fn chunk(&self, chunk: ChunkId, read: bool) {
        let mut looked_at = self.looked_at.lock();
        *looked_at.chunks.entry(chunk).or_default() |= read;
    }

    /// A segment of an opened chunk, by its number.
    pub fn segment(&self, chunk: ChunkId, number: u64, read: bool) {
        let mut looked_at = self.looked_at.lock();
        *looked_at.segments.entry((chunk, number)).or_default() |= read;
        if read {
            looked_at.chunks.insert(chunk, true);
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_met_twice_counts_once() {
        let tally = ScanTally::default();
        tally.chunk(ChunkId(1), false);
        tally.segment(ChunkId(1), 7, false);
        tally.segment(ChunkId(2), 7, true);
        tally.segment(ChunkId(2), 7, false);
        tally.chunk(ChunkId(2), false);
        tally.rows_read.add(3);
        tally.rows_read.add(4);
        let totals = tally.totals();
        let expected = ScanTotals {
            chunks_opened: 2,
            chunks_read: 1,
            segments_opened: 2,
            segments_read: 1,
            rows_read: 7,
            ..ScanTotals::default()
        };
        assert_eq!(totals, expected);
    }

    #[test]
    fn only_what_was_counted_travels() {
        let tally = ScanTally::default();
        tally.bytes_read.add(5);
        let text = serde_json::to_string(&tally.totals()).unwrap();
        assert_eq!(text, r#"{"bytes_read":5}"#);
        assert_eq!(serde_json::from_str::<ScanTotals>(&text).unwrap(), tally.totals());
    }
}
