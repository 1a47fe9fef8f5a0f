//! Whether rows may be added: none has the key of a row that is there, or that an open transaction may make be there.
//!
//! Segments are read without a lock, before the state is looked at: a row found there stays where it is as long as the
//! chunk has the same segments, else they are read again. Everything else is decided under the state lock, and the new
//! rows are registered before it is given up. Rows in time order touch no segment: their time bounds are apart.
//!
//! What rows a key can collide with:
//! - rows of the same write and of the same transaction: a violation, unless the transaction removes them,
//! - committed rows: the same; when another open transaction removes one, wait for its end,
//! - rows of another open transaction: wait for its end.

use super::Core;
use super::conflicts::{Busy, Staging};
use super::state::{Chunk, StagedWrite, State, Txn};
use crate::deletes::{ChunkDeletes, Part, PartView, Removal};
use crate::delta::DeltaRows;
use crate::error::{Result, StorageError};
use crate::keys::KeyRows;
use crate::projection::{Projection, ScanColumn};
use crate::segment::{READ_ROWS, Segment, SegmentScan};
use arrow::array::AsArray;
use arrow::datatypes::{Field, Int64Type};
use proto::{ChunkId, ColumnId, CommitSeq, ScanTally, TxnId, UniqueKey};
use std::sync::Arc;

/// The rows of one write under one key, and where segments have the same.
struct Probe {
    /// Index in `Staging::writes`.
    write: usize,
    key: UniqueKey,
    /// Names of the key's columns.
    names: Vec<String>,
    rows: Arc<KeyRows>,
    /// New row, and the row of a segment with its key.
    hits: Vec<(u32, Part, u32)>,
}

/// What the segments of the chunks say, and which segments that were.
#[derive(Default)]
pub(super) struct Probes {
    probes: Vec<Probe>,
    segments: Vec<(ChunkId, Arc<Vec<Arc<Segment>>>)>,
    /// Some could not be read, as they are gone.
    outdated: bool,
}

impl Probes {
    /// Whether the chunks still have the segments that were read.
    pub(super) fn current(&self, state: &State) -> bool {
        !self.outdated
            && self.segments.iter().all(|(id, read)| match state.chunks.get(id) {
                Some(chunk) => Arc::ptr_eq(&chunk.segments, read),
                None => read.is_empty(),
            })
    }
}

impl Core {
    /// Looks for the new rows' keys among themselves and in segments. No lock is held.
    pub(super) fn probe(&self, staging: &Staging) -> Result<Probes> {
        let mut found = Probes::default();
        for (at, (_, write)) in staging.writes.iter().enumerate() {
            if write.layout.keys.is_empty() {
                continue;
            }
            let (segments, deletes) = {
                let state = self.state.lock();
                let chunk = state.chunks.get(&write.chunk);
                chunk.map_or(Ok(()), |chunk| chunk.check())?;
                let segments = chunk.map(|chunk| Arc::clone(&chunk.segments)).unwrap_or_default();
                (segments, chunk.map(|chunk| Arc::clone(&chunk.deletes)).unwrap_or_default())
            };
            for key in &write.layout.keys {
                let Some(rows) = write.rows.key_rows(&key.columns)? else { continue };
                let mut probe =
                    Probe { write: at, key: key.clone(), names: names(&write.rows, key), rows, hits: vec![] };
                if let Some((_, row)) = probe.rows.twins()? {
                    return Err(probe.rows.violation(key, &probe.names, row));
                }
                found.outdated |= !self.search(write, &segments, &deletes, &mut probe)?;
                found.probes.push(probe);
            }
            found.segments.push((write.chunk, segments));
        }
        found.within_writes(staging)?;
        Ok(found)
    }

    /// Looks for the keys in segments; false when those are gone.
    fn search(
        &self,
        write: &StagedWrite,
        segments: &Arc<Vec<Arc<Segment>>>,
        deletes: &ChunkDeletes,
        probe: &mut Probe,
    ) -> Result<bool> {
        let time = write.layout.time.filter(|time| probe.key.columns.contains(time));
        let near = segments.iter().filter(|segment| time.is_none() || overlap(segment.record.time, write.rows.time));
        let near = near.collect::<Vec<_>>();
        if near.is_empty() {
            return Ok(true);
        }
        let near = self.open_segments(write.chunk, segments, near.into_iter(), &ScanTally::default())?;
        let Some(near) = near else { return Ok(false) };
        let predicates = probe.rows.predicates(&probe.key.columns)?;
        let schema = write.rows.batch.schema();
        let field = |id: &ColumnId| {
            let at = write.rows.ids.iter().position(|other| other == id).expect("the key rows have the column");
            ScanColumn { id: *id, field: schema.field(at).clone(), missing: None }
        };
        let position = Field::new("row", arrow::datatypes::DataType::Int64, false);
        let mut columns = probe.key.columns.iter().map(field).collect::<Vec<_>>();
        columns.push(ScanColumn { id: ColumnId::ROW, field: position, missing: None });
        let projection = Projection::new(columns);
        for open in near {
            let part = Part::segment(open.record.number);
            // What is removed stays removed.
            let hidden = deletes.get(&part).map(|deletes| deletes.hidden(CommitSeq::MAX));
            let view = PartView { chunk: write.chunk, part, hidden };
            let scan = SegmentScan::new(open, view, projection.clone(), &predicates, CommitSeq::MAX, READ_ROWS)?;
            for batch in scan {
                let batch = batch?;
                let (keys, positions) = batch.columns().split_at(probe.key.columns.len());
                let positions = positions[0].as_primitive::<Int64Type>();
                let there = KeyRows::new(keys.to_vec())?;
                let same = probe.rows.matches(&there)?.into_iter();
                probe.hits.extend(same.map(|(new, old)| (new, part, positions.value(old as usize) as u32)));
            }
        }
        Ok(true)
    }

    /// `None`: no key stands in the way. The probes are current.
    pub(super) fn keys_busy(
        &self,
        state: &State,
        txn: TxnId,
        staging: &Staging,
        probes: &Probes,
    ) -> Result<Option<Busy>> {
        for probe in &probes.probes {
            let (_, write) = &staging.writes[probe.write];
            let look = Look { state, txn, staging, write, probe };
            if let Some(busy) = look.staged()? {
                return Ok(Some(busy));
            }
            if let Some(busy) = look.committed()? {
                return Ok(Some(busy));
            }
        }
        Ok(None)
    }
}

impl Probes {
    /// Writes of one `stage` call may meet in a chunk.
    fn within_writes(&self, staging: &Staging) -> Result<()> {
        for (at, probe) in self.probes.iter().enumerate() {
            let chunk = staging.writes[probe.write].1.chunk;
            let before = self.probes[..at].iter().filter(|other| other.write != probe.write && other.key == probe.key);
            for other in before.filter(|other| staging.writes[other.write].1.chunk == chunk) {
                if let Some((row, _)) = probe.rows.matches(&*other.rows.with_types_of(&probe.rows)?)?.first() {
                    return Err(probe.rows.violation(&probe.key, &probe.names, *row));
                }
            }
        }
        Ok(())
    }
}

/// One key of one write, against everything in memory.
struct Look<'a> {
    state: &'a State,
    txn: TxnId,
    staging: &'a Staging,
    write: &'a StagedWrite,
    probe: &'a Probe,
}

impl Look<'_> {
    /// Against rows that open transactions add.
    fn staged(&self) -> Result<Option<Busy>> {
        for (id, entry) in &self.state.txns {
            for other in entry.writes.iter().filter(|other| other.chunk == self.write.chunk) {
                for (row, old) in self.same_as(&other.rows)? {
                    let gone = other.part.is_some_and(|part| self.removed_by(entry, part, old));
                    match *id == self.txn {
                        true if gone || self.removed_now(other.part, old) => {}
                        true => return Err(self.violation(row)),
                        false if gone => {}
                        false => return Ok(Some(self.busy(*id))),
                    }
                }
            }
        }
        Ok(None)
    }

    /// Against committed rows, of the delta and of segments.
    fn committed(&self) -> Result<Option<Busy>> {
        let Some(chunk) = self.state.chunks.get(&self.write.chunk) else { return Ok(None) };
        for batch in chunk.delta.iter() {
            for (row, old) in self.same_as(&batch.rows)? {
                if let Some(busy) = self.standing(chunk, row, batch.part, old)? {
                    return Ok(Some(busy));
                }
            }
        }
        for (row, part, old) in &self.probe.hits {
            if let Some(busy) = self.standing(chunk, *row, *part, *old)? {
                return Ok(Some(busy));
            }
        }
        Ok(None)
    }

    /// A committed row with the key of a new one.
    fn standing(&self, chunk: &Chunk, row: u32, part: Part, old: u32) -> Result<Option<Busy>> {
        let removed = chunk.deletes.get(&part).is_some_and(|deletes| deletes.all().contains(old));
        if removed || self.removed_now(Some(part), old) {
            return Ok(None);
        }
        let mut removers = self.state.txns.iter().filter(|(_, entry)| self.removed_by(entry, part, old));
        match removers.next() {
            Some((id, _)) if *id == self.txn => Ok(None),
            Some((id, _)) => Ok(Some(self.busy(*id))),
            None => Err(self.violation(row)),
        }
    }

    /// Pairs of a new row and one of these with its key.
    fn same_as(&self, rows: &DeltaRows) -> Result<Vec<(u32, u32)>> {
        let timed = self.write.layout.time.filter(|time| self.probe.key.columns.contains(time));
        if timed.is_some() && rows.time_column == timed && !overlap(rows.time, self.write.rows.time) {
            return Ok(Vec::new());
        }
        match rows.key_rows(&self.probe.key.columns)? {
            Some(rows) => self.probe.rows.matches(&*rows.with_types_of(&self.probe.rows)?),
            None => Ok(Vec::new()),
        }
    }

    fn removed_by(&self, entry: &Txn, part: Part, row: u32) -> bool {
        let mut here = entry.removals.iter().filter(|staged| staged.chunk == self.write.chunk);
        here.any(|staged| has(&staged.removal, part, row))
    }

    /// By the same `stage` call.
    fn removed_now(&self, part: Option<Part>, row: u32) -> bool {
        let mut here = self.staging.removals.iter().filter(|(chunk, _)| *chunk == self.write.chunk);
        part.is_some_and(|part| here.any(|(_, removal)| has(removal, part, row)))
    }

    fn busy(&self, holder: TxnId) -> Busy {
        Busy { chunk: self.write.chunk, holder: Some(holder) }
    }

    fn violation(&self, row: u32) -> StorageError {
        self.probe.rows.violation(&self.probe.key, &self.probe.names, row)
    }
}

fn has(removal: &Removal, part: Part, row: u32) -> bool {
    removal.of(part).is_some_and(|rows| rows.contains(row))
}

fn overlap(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> bool {
    a.zip(b).is_some_and(|((a_low, a_high), (b_low, b_high))| a_low <= b_high && b_low <= a_high)
}

fn names(rows: &DeltaRows, key: &UniqueKey) -> Vec<String> {
    let schema = rows.batch.schema();
    let at = |id: &ColumnId| rows.ids.iter().position(|other| other == id);
    key.columns.iter().filter_map(at).map(|at| schema.field(at).name().clone()).collect()
}
