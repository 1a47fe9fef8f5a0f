//! The memory that all queries of a process share. Operators ask before they keep rows; who is refused and can spill
//! writes what it has to disk and goes on, who cannot fails with `OUT_OF_MEMORY`.
//!
//! Why neither of DataFusion's pools. The greedy one lets the first sort take everything: the next query finds nothing,
//! has nothing to spill yet, and fails. The fair one gives everybody an equal part from the start, also to the many who
//! need almost nothing (every exchange counts), so that a sort spills while most of the memory lies idle. Here memory is
//! given freely while there is room; when there is none left, those above their equal part are refused, which makes them
//! spill, and those below may still grow.
//!
//! Invariants
//! - What was granted never exceeds `bytes_max`, but for what an operator takes without asking (`grow`), which is small, and
//!   the little that others may have then.
//! - Those that can spill leave a part to the others: a hash join that begins while sorts fill the memory, and the merge of
//!   what was spilled, find something.

use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

/// One part in so many is not for those that can spill: a sort by text needs as much again for its keys while it merges
/// what it has in memory.
const RESERVED_PART: usize = 2;

/// Who cannot spill and wants no more than one part in so many has it while others are no more than this part beyond the
/// limit: a count's only state must not fail because a merge join took what it needs.
const LITTLE_PART: usize = 1024;
const BEYOND_PART: usize = 8;

/// How many of the largest an error names.
const NAMED: usize = 5;

#[derive(Debug)]
pub(super) struct SharedMemory {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// Of `used`, what can be spilled.
    spillable: usize,
    /// What each consumer holds, by its id; several reservations may belong to one.
    held: HashMap<usize, Held>,
    /// How many of those that can spill hold anything.
    holders: usize,
}

#[derive(Debug)]
struct Held {
    name: String,
    bytes: usize,
}

impl SharedMemory {
    pub fn new(bytes_max: usize) -> SharedMemory {
        SharedMemory { bytes_max, state: Mutex::default() }
    }

    /// What those that can spill may fill together.
    fn room(&self) -> usize {
        self.bytes_max - self.bytes_max / RESERVED_PART
    }

    fn may_grow(&self, state: &State, reservation: &MemoryReservation, additional: usize) -> bool {
        let consumer = reservation.consumer();
        let used = state.used.saturating_add(additional);
        if !consumer.can_spill() {
            let little = additional <= self.bytes_max / LITTLE_PART;
            return used <= self.bytes_max + if little { self.bytes_max / BEYOND_PART } else { 0 };
        }
        if used > self.bytes_max {
            return false;
        }
        let held = state.held.get(&consumer.id()).map_or(0, |held| held.bytes);
        let holders = state.holders + usize::from(held == 0);
        let others = state.used - state.spillable;
        let part = self.room().saturating_sub(others) / holders;
        // With little in its hands it would not spill, but fail; so would a merge of what it has spilled, for which it has
        // another reservation.
        let little = reservation.size() == 0 || reservation.size() < part / 2;
        used <= self.room() || held < part || little
    }
}

impl State {
    fn grow(&mut self, consumer: &MemoryConsumer, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let new = || Held { name: consumer.name().to_owned(), bytes: 0 };
        let held = self.held.entry(consumer.id()).or_insert_with(new);
        if consumer.can_spill() {
            self.spillable += bytes;
            self.holders += usize::from(held.bytes == 0);
        }
        held.bytes += bytes;
        self.used += bytes;
    }

    fn shrink(&mut self, consumer: &MemoryConsumer, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let held = self.held.get_mut(&consumer.id()).expect("it grew before it shrinks");
        held.bytes -= bytes;
        self.used -= bytes;
        if consumer.can_spill() {
            self.spillable -= bytes;
            self.holders -= usize::from(held.bytes == 0);
        }
    }

    /// Who holds most, for an error.
    fn largest(&self) -> String {
        let mut held = self.held.values().filter(|held| held.bytes > 0).collect::<Vec<_>>();
        held.sort_by_key(|held| Reverse(held.bytes));
        let held = held.iter().take(NAMED).map(|held| format!("{} {} kB", held.name, held.bytes >> 10));
        held.collect::<Vec<_>>().join(", ")
    }
}

impl MemoryPool for SharedMemory {
    fn name(&self) -> &str {
        "shared"
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.state.lock().held.remove(&consumer.id());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.state.lock().grow(reservation.consumer(), additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.state.lock().shrink(reservation.consumer(), shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let (mut state, consumer) = (self.state.lock(), reservation.consumer());
        if self.may_grow(&state, reservation, additional) {
            state.grow(consumer, additional);
            return Ok(());
        }
        // By this kind of error operators know that it is time to spill.
        Err(DataFusionError::ResourcesExhausted(format!(
            "{} holds {} kB and wants {} kB more; queries use {} of {} kB, most of it {}.",
            consumer.name(),
            reservation.size() >> 10,
            additional.div_ceil(1 << 10),
            state.used >> 10,
            self.bytes_max >> 10,
            state.largest(),
        )))
    }

    fn reserved(&self) -> usize {
        self.state.lock().used
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}

impl fmt::Display for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kB for all queries", self.bytes_max >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn pool(bytes_max: usize) -> Arc<dyn MemoryPool> {
        Arc::new(SharedMemory::new(bytes_max))
    }

    fn spiller(pool: &Arc<dyn MemoryPool>) -> MemoryReservation {
        MemoryConsumer::new("sort").with_can_spill(true).register(pool)
    }

    #[test]
    fn one_sort_may_have_all_but_the_reserve_however_many_idle_ones_there_are() {
        let pool = pool(1000);
        let (busy, _idle) = (spiller(&pool), (0..100).map(|_| spiller(&pool)).collect::<Vec<_>>());
        assert!(busy.try_grow(500).is_ok());
        let refused = busy.try_grow(1).unwrap_err();
        assert!(matches!(refused, DataFusionError::ResourcesExhausted(_)), "{refused}");
    }

    /// The danger: the second query fails for what the first one holds.
    #[test]
    fn a_newcomer_grows_to_its_part_while_the_first_must_spill() {
        let pool = pool(1000);
        let (first, second) = (spiller(&pool), spiller(&pool));
        first.try_grow(500).unwrap();
        second.try_grow(200).unwrap();
        assert!(first.try_grow(1).is_err());
        assert!(second.try_grow(301).is_err(), "not beyond all there is");
        first.free();
        second.try_grow(175).unwrap();
        assert_eq!(pool.reserved(), 375);
        second.try_grow(125).unwrap();
        first.try_grow(249).unwrap();
        first.try_grow(1).unwrap();
        assert!(first.try_grow(1).is_err());
        assert!(second.try_grow(1).is_err(), "it is above its part now");
    }

    #[test]
    fn who_cannot_spill_may_have_the_reserve_too_and_the_rest_is_shared() {
        let pool = pool(1000);
        let (join, sort) = (MemoryConsumer::new("join").register(&pool), spiller(&pool));
        sort.try_grow(400).unwrap();
        join.try_grow(600).unwrap();
        assert!(join.try_grow(1).is_err());
        sort.free();
        join.shrink(300);
        sort.try_grow(200).unwrap();
        assert!(sort.try_grow(1).is_err());
        drop((join, sort));
        assert_eq!(pool.reserved(), 0);
    }

    /// The danger: a count fails for the key columns that a merge join keeps of batches it has spilled.
    #[test]
    fn a_little_is_to_be_had_although_somebody_took_more_than_there_is() {
        let pool = pool(1 << 20);
        let join = MemoryConsumer::new("join").register(&pool);
        join.grow((1 << 20) + 1000);
        let count = MemoryConsumer::new("count").register(&pool);
        count.try_grow(1 << 10).unwrap();
        assert!(count.try_grow(1 << 11).is_err());
        join.grow(1 << 17);
        assert!(count.try_grow(1).is_err());
    }

    /// But for one that holds little: it merges what the others have spilled.
    #[test]
    fn reservations_of_one_consumer_count_together() {
        let pool = pool(1000);
        let whole = spiller(&pool);
        whole.try_grow(400).unwrap();
        let half = whole.split(300);
        whole.try_grow(100).unwrap();
        assert!(half.try_grow(1).is_err());
        let empty = half.new_empty();
        empty.try_grow(100).unwrap();
        drop((whole, half, empty));
        assert_eq!(pool.reserved(), 0);
        let after = spiller(&pool);
        after.try_grow(500).unwrap();
        assert!(after.try_grow(1).is_err());
    }
}
