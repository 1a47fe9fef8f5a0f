//! The chunks of one table by time slice: "which chunk takes this row?" for the way in, "which chunks can hold rows of
//! this range?" for the planner.

use engine::ChunkDef;
use proto::{ChunkId, Slot, TimeRange};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Slices never overlap: each is a time range that one or more chunks share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Arc<ChunkDef>>", into = "Vec<Arc<ChunkDef>>")]
pub struct ChunkIndex {
    /// By the slice's start.
    slices: BTreeMap<i64, Slice>,
    count: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    pub time: TimeRange,
    /// By id; their slots are disjoint.
    pub chunks: Vec<Arc<ChunkDef>>,
}

impl Slice {
    pub fn find(&self, slot: Slot) -> Option<&Arc<ChunkDef>> {
        self.chunks.iter().find(|chunk| chunk.slots.contains(slot))
    }
}

impl ChunkIndex {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.values()
    }

    /// By time, then id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ChunkDef>> {
        self.slices.values().flat_map(|slice| &slice.chunks)
    }

    pub fn get(&self, id: ChunkId) -> Option<&Arc<ChunkDef>> {
        self.iter().find(|chunk| chunk.id == id)
    }

    /// `get` for one who knows the chunk's time.
    pub fn contains(&self, chunk: &ChunkDef) -> bool {
        let slice = self.slices.get(&chunk.time.start());
        slice.is_some_and(|slice| slice.chunks.iter().any(|other| other.id == chunk.id))
    }

    pub fn slice_at(&self, time: i64) -> Option<&Slice> {
        let (_, slice) = self.slices.range(..=time).next_back()?;
        slice.time.contains(time).then_some(slice)
    }

    pub fn find(&self, time: i64, slot: Slot) -> Option<&Arc<ChunkDef>> {
        self.slice_at(time)?.find(slot)
    }

    /// The part of `wanted` around `time` that no slice covers; `time` itself must not be covered.
    pub fn free_around(&self, time: i64, wanted: TimeRange) -> TimeRange {
        let before = self.slices.range(..=time).next_back().map(|(_, slice)| slice.time.end());
        let after = self.slices.range(time..).next().map(|(start, _)| *start);
        let start = before.map_or(wanted.start(), |end| end.max(wanted.start()));
        let end = after.map_or(wanted.end(), |start| start.min(wanted.end()));
        TimeRange::new(start, end).expect("a time without a slice lies between its neighbours")
    }

    /// Why the chunk cannot be added; `None` when it can, or is there already.
    pub fn conflict(&self, chunk: &ChunkDef) -> Option<String> {
        let before = self.slices.range(..chunk.time.end()).next_back().map(|(_, slice)| slice);
        let slice = before.filter(|slice| slice.time.overlaps(&chunk.time))?;
        if slice.time != chunk.time {
            return Some(format!("the time range of chunk {} cuts that of chunk {}", chunk.id, slice.chunks[0].id));
        }
        let mut others = slice.chunks.iter().filter(|other| other.id != chunk.id);
        let other = others.find(|other| other.slots.overlaps(&chunk.slots))?;
        Some(format!("chunks {} and {} would share hash slots", other.id, chunk.id))
    }

    /// The chunk must not be in conflict. Does nothing when it is there.
    pub fn insert(&mut self, chunk: Arc<ChunkDef>) {
        assert_eq!(self.conflict(&chunk), None, "overlapping chunks would hold a row twice");
        let empty = Slice { time: chunk.time, chunks: Vec::new() };
        let slice = self.slices.entry(chunk.time.start()).or_insert(empty);
        if let Err(position) = slice.chunks.binary_search_by_key(&chunk.id, |other| other.id) {
            slice.chunks.insert(position, chunk);
            self.count += 1;
        }
    }

    pub fn remove(&mut self, id: ChunkId) -> Option<Arc<ChunkDef>> {
        let start = self.get(id)?.time.start();
        let slice = self.slices.get_mut(&start)?;
        let position = slice.chunks.iter().position(|chunk| chunk.id == id)?;
        let chunk = slice.chunks.remove(position);
        if slice.chunks.is_empty() {
            self.slices.remove(&start);
        }
        self.count -= 1;
        Some(chunk)
    }
}

impl From<Vec<Arc<ChunkDef>>> for ChunkIndex {
    fn from(chunks: Vec<Arc<ChunkDef>>) -> ChunkIndex {
        let mut index = ChunkIndex::default();
        chunks.into_iter().for_each(|chunk| index.insert(chunk));
        index
    }
}

impl From<ChunkIndex> for Vec<Arc<ChunkDef>> {
    fn from(index: ChunkIndex) -> Vec<Arc<ChunkDef>> {
        index.iter().cloned().collect()
    }
}
