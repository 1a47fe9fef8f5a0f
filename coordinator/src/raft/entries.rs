//! The log as the algorithm reads it: entries in memory behind the last snapshot, and what a start must know. It writes
//! nothing; `disk` fills it at start, `core` keeps it level with what was persisted.
//!
//! ```text
//! … truncated | entries …………………………………… last
//!                   ^ snapshot.index, at or above truncated
//! ```
//! Entries a snapshot already covers stay a while, so that a member that is a little behind gets them, not the snapshot.
//!
//! Memory: all entries since the last snapshot, `ENTRIES_KEPT` before it, and the snapshot itself.

use super::planted::Plan;
use bytes::Bytes;
use raft::prelude::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// Entries before the snapshot that stay for members that lag.
const ENTRIES_KEPT: u64 = 1000;
/// What an entry counts on top of its data where sizes are limited.
const ENTRY_OVERHEAD_BYTES: u64 = 24;

pub struct Entries {
    pub(super) state: HardState,
    pub(super) voters: Vec<u64>,
    snapshot: Snapshot,
    /// Index and term of the entry before the first.
    truncated: (u64, u64),
    entries: VecDeque<Entry>,
    pub(super) plan: Plan,
}

impl Entries {
    /// What a snapshot alone says. `index` at least 1: an index of 0 means "no snapshot" to the algorithm.
    pub(super) fn new(voters: Vec<u64>, index: u64, term: u64, state: Bytes) -> Entries {
        assert!(index > 0 && term > 0, "a group begins with a snapshot");
        let snapshot = snapshot(&voters, index, term, state);
        let state = HardState { term, commit: index, ..HardState::default() };
        Entries { state, voters, snapshot, truncated: (index, term), entries: VecDeque::new(), plan: Plan::default() }
    }

    pub fn voters(&self) -> &[u64] {
        &self.voters
    }

    /// Everything up to here is in the snapshot's state.
    pub fn snapshot_index(&self) -> u64 {
        self.meta().index
    }

    /// The state machine as it was at `snapshot_index`.
    pub fn snapshot_state(&self) -> &Bytes {
        &self.snapshot.data
    }

    /// What a start may apply to the snapshot's state: index and data. Of a member that is alone that is all there is,
    /// else what is known to be committed. Entries of new leaders are left out, they have no data.
    pub fn since_snapshot(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        let until = if self.voters.len() == 1 { self.last() } else { self.state.commit };
        let since =
            self.entries.iter().filter(move |entry| entry.index > self.snapshot_index() && entry.index <= until);
        since.filter(|entry| !entry.data.is_empty()).map(|entry| (entry.index, &entry.data))
    }

    pub fn last(&self) -> u64 {
        self.truncated.0 + self.entries.len() as u64
    }

    pub(super) fn commit(&self) -> u64 {
        self.state.commit
    }

    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.truncated.0)? {
            0 => Some(self.truncated.1),
            offset => self.entries.get(offset as usize - 1).map(|entry| entry.term),
        }
    }

    /// Adds an entry; whatever was at its place and behind it was never committed, and goes.
    pub(super) fn push(&mut self, entry: Entry) {
        assert!(entry.index > self.truncated.0, "entry {} is already in a snapshot", entry.index);
        assert!(entry.index <= self.last() + 1, "entry {} leaves a gap behind {}", entry.index, self.last());
        self.entries.truncate((entry.index - self.truncated.0 - 1) as usize);
        self.entries.push_back(entry);
    }

    /// Drops all entries behind the snapshot.
    pub(super) fn forget_tail(&mut self) {
        self.entries.truncate((self.snapshot_index() - self.truncated.0) as usize);
    }

    /// Another member's snapshot takes the place of everything.
    pub(super) fn install(&mut self, snapshot: Snapshot) {
        let meta = snapshot.get_metadata();
        assert!(meta.index >= self.meta().index, "a snapshot never goes back");
        self.voters = meta.get_conf_state().voters.clone();
        self.truncated = (meta.index, meta.term);
        self.state.commit = self.state.commit.max(meta.index);
        self.entries.clear();
        self.snapshot = snapshot;
    }

    /// A snapshot of our own, of an index that was applied.
    pub(super) fn compact(&mut self, index: u64, state: Bytes) {
        assert!(index >= self.meta().index && index <= self.state.commit, "a snapshot is of what is committed");
        let term = self.term_of(index).expect("an index between the snapshot and the last entry");
        self.snapshot = snapshot(&self.voters, index, term, state);
        let until = index.saturating_sub(ENTRIES_KEPT);
        while self.truncated.0 < until {
            let entry = self.entries.pop_front().expect("entries reach up to the last");
            self.truncated = (entry.index, entry.term);
        }
    }

    fn meta(&self) -> &SnapshotMetadata {
        self.snapshot.get_metadata()
    }
}

fn snapshot(voters: &[u64], index: u64, term: u64, state: Bytes) -> Snapshot {
    let mut snapshot = Snapshot { data: state, ..Snapshot::default() };
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (index, term);
    meta.mut_conf_state().voters = voters.to_vec();
    snapshot
}

impl Storage for Entries {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf = ConfState { voters: self.voters.clone(), ..ConfState::default() };
        Ok(RaftState::new(self.state.clone(), conf))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "entries up to {high} were asked for, the last is {}", self.last());
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let start = (low - self.truncated.0 - 1) as usize;
        let wanted = self.entries.range(start..start + (high - low) as usize);
        let fits = |entry: &&Entry| {
            let first = size == 0;
            size += entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES;
            first || size <= max
        };
        Ok(wanted.take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_of(index) {
            Some(term) => Ok(term),
            None if index < self.truncated.0 => Err(Error::Store(StorageError::Compacted)),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        match self.meta().index >= request_index {
            true => Ok(self.snapshot.clone()),
            false => Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, bytes: usize) -> Entry {
        Entry { index, term, data: vec![7; bytes].into(), ..Entry::default() }
    }

    fn read(entries: &Entries, low: u64, high: u64, max: u64) -> Vec<(u64, u64)> {
        let read = Storage::entries(entries, low, high, max, GetEntriesContext::empty(false)).unwrap();
        read.iter().map(|entry| (entry.index, entry.term)).collect()
    }

    #[test]
    fn an_entry_replaces_its_place_and_all_behind_it() {
        let mut entries = Entries::new(vec![1], 1, 1, Bytes::new());
        (2..6).for_each(|index| entries.push(entry(index, 1, 0)));
        entries.push(entry(3, 2, 0));
        assert_eq!(read(&entries, 2, 4, u64::MAX), [(2, 1), (3, 2)]);
        assert_eq!((entries.last(), entries.term_of(4), entries.term_of(1)), (3, None, Some(1)));
    }

    #[test]
    fn reading_stops_at_the_size_asked_for_but_gives_one_entry_at_least() {
        let mut entries = Entries::new(vec![1], 1, 1, Bytes::new());
        (2..6).for_each(|index| entries.push(entry(index, 1, 100)));
        assert_eq!(read(&entries, 2, 6, 0), [(2, 1)]);
        assert_eq!(read(&entries, 2, 6, 250), [(2, 1), (3, 1)]);
        assert_eq!(read(&entries, 3, 6, u64::MAX), [(3, 1), (4, 1), (5, 1)]);
    }

    #[test]
    fn a_snapshot_keeps_the_youngest_entries_for_those_who_lag() {
        let mut entries = Entries::new(vec![1], 1, 1, Bytes::new());
        let last = ENTRIES_KEPT + 500;
        (2..=last).for_each(|index| entries.push(entry(index, 1, 0)));
        entries.state.commit = last;
        entries.compact(last - 10, Bytes::from_static(b"state"));
        assert_eq!(entries.snapshot_index(), last - 10);
        assert_eq!(entries.first_index().unwrap(), last - 10 - ENTRIES_KEPT + 1);
        assert_eq!(entries.last(), last);
        let compacted = Storage::entries(&entries, 2, 3, None, GetEntriesContext::empty(false));
        assert_eq!(compacted, Err(Error::Store(StorageError::Compacted)));
        assert_eq!(Storage::snapshot(&entries, 5, 2).unwrap().data, "state");
    }
}
