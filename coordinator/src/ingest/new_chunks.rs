//! Chunks that do not exist yet. The first transaction that needs one makes it here; others that need the same one
//! before it is committed share it. The commit of any of them publishes it; when all abort, it is forgotten.
//!
//! Placement: partition i of a time slice goes to data node i modulo their number; without a space dimension, slices
//! go round the nodes; a plain table's only chunk goes where its oid falls. A slice that exists keeps its time range
//! and the slots its chunks took, whatever the table's settings became since.

use crate::catalog::{CatalogState, ChunkIndex};
use engine::{ChunkDef, TableDef};
use parking_lot::Mutex;
use proto::{ChunkId, Error, NodeName, Result, SLOTS_COUNT, Slot, SlotSet, SqlState, TableId, TimeRange};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) struct NewChunks {
    state: Mutex<State>,
}

struct State {
    next: u32,
    tables: BTreeMap<TableId, Pending>,
}

#[derive(Default)]
struct Pending {
    index: ChunkIndex,
    /// How many transactions use it.
    users: BTreeMap<ChunkId, usize>,
}

/// Where a chunk is missing, as one transaction sees it.
pub(crate) struct Site<'a> {
    pub(crate) table: &'a TableDef,
    pub(crate) catalog: &'a CatalogState,
    pub(crate) time: i64,
    pub(crate) slot: Slot,
    pub(crate) now_us: i64,
}

impl NewChunks {
    pub(crate) fn new(next: u32) -> NewChunks {
        NewChunks { state: Mutex::new(State { next, tables: BTreeMap::new() }) }
    }

    /// The chunk for the site: another transaction's, or a new one. `newest` is called under the lock and must show
    /// every chunk that `published` was told of.
    pub(crate) fn open(&self, site: &Site<'_>, newest: impl FnOnce() -> Arc<CatalogState>) -> Result<Arc<ChunkDef>> {
        let mut state = self.state.lock();
        let newest = newest();
        let id = ChunkId(state.next);
        let pending = state.tables.entry(site.table.id).or_default();
        if let Some(chunk) = pending.index.find(site.time, site.slot).cloned() {
            *pending.users.entry(chunk.id).or_default() += 1;
            return Ok(chunk);
        }
        let existing = newest.chunks(site.table.id);
        if let Some(chunk) = existing.find(site.time, site.slot) {
            return Ok(Arc::clone(chunk));
        }
        let chunk = Arc::new(plan(site, id, &[&pending.index, existing])?);
        pending.index.insert(Arc::clone(&chunk));
        pending.users.insert(id, 1);
        state.next += 1;
        Ok(chunk)
    }

    /// A chunk nobody else may use: for rows behind a TRUNCATE or DROP of the same transaction.
    pub(crate) fn private(&self, site: &Site<'_>) -> Result<Arc<ChunkDef>> {
        let mut state = self.state.lock();
        let chunk = plan(site, ChunkId(state.next), &[site.catalog.chunks(site.table.id)])?;
        state.next += 1;
        Ok(Arc::new(chunk))
    }

    /// Whether it was neither committed nor given up.
    pub(crate) fn is_pending(&self, chunk: &ChunkDef) -> bool {
        let state = self.state.lock();
        state.tables.get(&chunk.table).is_some_and(|pending| pending.index.contains(chunk))
    }

    /// The catalog has these now.
    pub(crate) fn published(&self, chunks: impl Iterator<Item = (TableId, ChunkId)>) {
        let mut state = self.state.lock();
        chunks.for_each(|(table, chunk)| state.forget(table, chunk));
    }

    /// One transaction less uses them.
    pub(crate) fn release(&self, chunks: &[(TableId, ChunkId)]) {
        let mut state = self.state.lock();
        for (table, chunk) in chunks {
            let Some(pending) = state.tables.get_mut(table) else { continue };
            let Some(users) = pending.users.get_mut(chunk) else { continue };
            *users -= 1;
            if *users == 0 {
                state.forget(*table, *chunk);
            }
        }
        state.tables.retain(|_, pending| !pending.index.is_empty());
    }
}

impl State {
    fn forget(&mut self, table: TableId, chunk: ChunkId) {
        let Some(pending) = self.tables.get_mut(&table) else { return };
        pending.index.remove(chunk);
        pending.users.remove(&chunk);
        if pending.index.is_empty() {
            self.tables.remove(&table);
        }
    }
}

/// The chunk to make for a site that none of `existing` covers.
fn plan(site: &Site<'_>, id: ChunkId, existing: &[&ChunkIndex]) -> Result<ChunkDef> {
    let (table, time) = (site.table, site.time);
    let nodes = data_nodes(site)?;
    let node_at = |number: i64| nodes[number.rem_euclid(nodes.len() as i64) as usize].clone();
    let (wanted, partitions) = match &table.hypertable {
        None => (TimeRange::ALL, 1),
        Some(hypertable) => {
            let partitions = hypertable.space.as_ref().map_or(1, |space| usize::from(space.partitions));
            (hypertable.slicing.slice(time), partitions.clamp(1, SLOTS_COUNT))
        }
    };
    let slices = existing.iter().filter_map(|index| index.slice_at(time)).collect::<Vec<_>>();
    let range = match slices.first() {
        Some(slice) => slice.time,
        None => existing.iter().fold(wanted, |range, index| index.free_around(time, range)),
    };
    let group = (0..partitions).find(|index| SlotSet::partition(*index, partitions).contains(site.slot));
    let group = group.expect("the partitions cover all slots");
    let taken = |slot: &Slot| slices.iter().any(|slice| slice.find(*slot).is_some());
    let slots = SlotSet::partition(group, partitions).iter().filter(|slot| !taken(slot)).collect();
    let node = match &table.hypertable {
        None => node_at(table.id.0.into()),
        Some(hypertable) if hypertable.space.is_some() => node_at(group as i64),
        Some(hypertable) => node_at(range.start().div_euclid(hypertable.slicing.width())),
    };
    Ok(ChunkDef {
        id,
        table: table.id,
        time: range,
        slots,
        nodes: vec![node],
        epoch: 1,
        created_us: site.now_us,
        compressed: false,
    })
}

/// The hypertable's nodes; for a table without any, all of the cluster.
fn data_nodes(site: &Site<'_>) -> Result<Vec<NodeName>> {
    let assigned = site.table.hypertable.as_ref().map(|hypertable| hypertable.data_nodes.clone()).unwrap_or_default();
    let nodes = match assigned.is_empty() {
        false => assigned,
        true => site.catalog.nodes().map(|node| node.name.clone()).collect(),
    };
    match nodes.is_empty() {
        false => Ok(nodes),
        true => Err(Error::new(SqlState::INSUFFICIENT_DATA_NODES, "insufficient number of data nodes")
            .detail(format!("No data node can take rows of \"{}\".", site.table.name))
            .hint("Add data nodes to the database.")),
    }
}
