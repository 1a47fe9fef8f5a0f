//! Hash slots: the space dimension is cut once into `SLOTS_COUNT` slots, many more than nodes, and a chunk owns a
//! set of slots. Adding a node later moves slots; it never re-divides the space.
//!
//! The hash is xxh3-64 over the value's canonical bytes, with no seed. It is part of the stored format: the same value
//! must fall into the same slot for ever. Canonical bytes: all integers, dates and times as i64 little-endian; booleans
//! as i64 0 or 1; floats as the f64 bits with -0.0 as 0.0; text and bytes as they are. NULL falls into slot 0.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

pub const SLOTS_COUNT: usize = 256;

/// A slot number below `SLOTS_COUNT`.
pub type Slot = u8;

pub const NULL_SLOT: Slot = 0;

/// The slot of a value's canonical bytes: the top eight bits of its hash.
pub fn slot_of(canonical: &[u8]) -> Slot {
    (xxh3_64(canonical) >> 56) as Slot
}

/// The slot of an integer-like value.
pub fn slot_of_i64(value: i64) -> Slot {
    slot_of(&value.to_le_bytes())
}

/// A set of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotSet([u64; SLOTS_COUNT / 64]);

impl SlotSet {
    pub const EMPTY: SlotSet = SlotSet([0; SLOTS_COUNT / 64]);
    pub const ALL: SlotSet = SlotSet([u64::MAX; SLOTS_COUNT / 64]);

    /// Partition `index` of `count` equal, contiguous groups.
    pub fn partition(index: usize, count: usize) -> SlotSet {
        assert!(index < count && count <= SLOTS_COUNT, "partition {index} of {count}");
        let (start, end) = (index * SLOTS_COUNT / count, (index + 1) * SLOTS_COUNT / count);
        (start..end).map(|slot| slot as Slot).collect()
    }

    pub fn contains(&self, slot: Slot) -> bool {
        self.0[slot as usize / 64] >> (slot % 64) & 1 == 1
    }

    pub fn insert(&mut self, slot: Slot) {
        self.0[slot as usize / 64] |= 1 << (slot % 64);
    }

    pub fn overlaps(&self, other: &SlotSet) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..SLOTS_COUNT).map(|slot| slot as Slot).filter(|slot| self.contains(*slot))
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = SlotSet::EMPTY;
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_cover_all_slots_once() {
        for count in [1, 2, 3, 7, 256] {
            let mut seen = SlotSet::EMPTY;
            for index in 0..count {
                let part = SlotSet::partition(index, count);
                assert!(!part.overlaps(&seen));
                part.iter().for_each(|slot| seen.insert(slot));
            }
            assert_eq!(seen, SlotSet::ALL);
        }
    }

    /// Stored rows depend on these: a change of hash would put new rows of a device on another node than its old ones.
    #[test]
    fn the_hash_of_stored_values_never_changes() {
        // xxh3-64 of the empty input is published as 2d06800538d394c2.
        assert_eq!(slot_of(b""), 0x2d);
    }
}
