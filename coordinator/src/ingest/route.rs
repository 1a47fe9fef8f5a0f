//! Which chunk each row belongs to: one pass over time and slot, then one copy per chunk; no copy when all rows go into
//! one chunk.

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use engine::{ChunkDef, TableDef};
use proto::slots::NULL_SLOT;
use proto::{ChunkId, Error, Result, SLOTS_COUNT, Slot, TimeRange};
use std::collections::BTreeMap;
use std::sync::Arc;

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// The rows of each chunk, in the batch's order. `chunk_at` finds or makes the chunk of a time and slot. The batch has
/// the table's schema and no NULL in the time column.
///
/// # Errors
/// Those of `chunk_at`; `FEATURE_NOT_SUPPORTED` for a dimension of a type that cannot be one.
pub fn route(
    table: &TableDef,
    batch: RecordBatch,
    chunk_at: &mut dyn FnMut(i64, Slot) -> Result<Arc<ChunkDef>>,
) -> Result<Vec<(Arc<ChunkDef>, RecordBatch)>> {
    if batch.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let Some(hypertable) = &table.hypertable else {
        return Ok(vec![(chunk_at(0, NULL_SLOT)?, batch)]);
    };
    let column_of = |id| {
        let index = table.columns.iter().position(|column| column.id == id);
        batch.column(index.expect("a dimension is a column of its table"))
    };
    let times = times(column_of(hypertable.time_column))?;
    let slots = match &hypertable.space {
        Some(space) => Some(engine::placement::slots_of(column_of(space.column))?),
        None => None,
    };
    let mut found = Found { slices: Vec::new(), chunks: Vec::new(), numbers: BTreeMap::new(), last: 0 };
    let mut number_of_row = Vec::with_capacity(times.len());
    for (row, time) in times.iter().enumerate() {
        let slot = slots.as_ref().map_or(NULL_SLOT, |slots| slots[row]);
        number_of_row.push(found.number(*time, slot, chunk_at)?);
    }
    split(batch, found.chunks, &number_of_row)
}

/// The chunks met so far, numbered as they came.
struct Found {
    slices: Vec<FoundSlice>,
    chunks: Vec<Arc<ChunkDef>>,
    numbers: BTreeMap<ChunkId, u32>,
    /// Where the row before fell: mostly the next one falls there too.
    last: usize,
}

struct FoundSlice {
    time: TimeRange,
    number_by_slot: Box<[u32; SLOTS_COUNT]>,
}

const UNKNOWN: u32 = u32::MAX;

impl Found {
    fn number(
        &mut self,
        time: i64,
        slot: Slot,
        chunk_at: &mut dyn FnMut(i64, Slot) -> Result<Arc<ChunkDef>>,
    ) -> Result<u32> {
        if let Some(slice) = self.slice_at(time) {
            let number = slice.number_by_slot[slot as usize];
            if number != UNKNOWN {
                return Ok(number);
            }
        }
        let chunk = chunk_at(time, slot)?;
        assert!(chunk.time.contains(time) && chunk.slots.contains(slot), "chunk {} is not the row's", chunk.id);
        let next = self.chunks.len() as u32;
        let number = *self.numbers.entry(chunk.id).or_insert(next);
        if number == next {
            self.chunks.push(Arc::clone(&chunk));
        }
        if self.slice_at(time).is_none() {
            let empty = FoundSlice { time: chunk.time, number_by_slot: Box::new([UNKNOWN; SLOTS_COUNT]) };
            let position = self.slices.partition_point(|slice| slice.time.start() < chunk.time.start());
            self.slices.insert(position, empty);
            self.last = position;
        }
        let slice = &mut self.slices[self.last];
        chunk.slots.iter().for_each(|slot| slice.number_by_slot[slot as usize] = number);
        Ok(number)
    }

    /// Leaves its position in `last`.
    fn slice_at(&mut self, time: i64) -> Option<&FoundSlice> {
        let holds = |slice: &FoundSlice| slice.time.contains(time);
        if !self.slices.get(self.last).is_some_and(holds) {
            let after = self.slices.partition_point(|slice| slice.time.start() <= time);
            let position = after.checked_sub(1)?;
            if !holds(&self.slices[position]) {
                return None;
            }
            self.last = position;
        }
        self.slices.get(self.last)
    }
}

/// The time column in the units of its slices.
fn times(column: &Arc<dyn Array>) -> Result<Vec<i64>> {
    let cast_to = |ty: &DataType| cast(column, ty).map_err(|e| Error::internal(e.to_string()));
    let (integers, factor) = match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            return Ok(column.as_primitive::<TimestampMicrosecondType>().values().to_vec());
        }
        DataType::Int16 | DataType::Int32 | DataType::Int64 => (cast_to(&DataType::Int64)?, 1),
        DataType::Date32 => (cast_to(&DataType::Int32)?, MICROSECONDS_PER_DAY),
        other => return Err(Error::unsupported(format!("a time column of type {other}"))),
    };
    let integers = cast(&integers, &DataType::Int64).map_err(|e| Error::internal(e.to_string()))?;
    Ok(integers.as_primitive::<Int64Type>().values().iter().map(|value| value.saturating_mul(factor)).collect())
}

fn split(
    batch: RecordBatch,
    chunks: Vec<Arc<ChunkDef>>,
    number_of_row: &[u32],
) -> Result<Vec<(Arc<ChunkDef>, RecordBatch)>> {
    if chunks.len() == 1 {
        return Ok(chunks.into_iter().map(|chunk| (chunk, batch.clone())).collect());
    }
    let mut rows_of_chunk = vec![Vec::new(); chunks.len()];
    for (row, number) in number_of_row.iter().enumerate() {
        rows_of_chunk[*number as usize].push(row as u32);
    }
    let rows_of = |(chunk, rows): (Arc<ChunkDef>, Vec<u32>)| {
        let is_run =
            rows.last().zip(rows.first()).is_some_and(|(last, first)| (last - first) as usize + 1 == rows.len());
        let part = match is_run {
            true => batch.slice(rows[0] as usize, rows.len()),
            false => {
                let taken = take_record_batch(&batch, &UInt32Array::from(rows));
                taken.map_err(|e| Error::internal(e.to_string()))?
            }
        };
        Ok((chunk, part))
    };
    chunks.into_iter().zip(rows_of_chunk).map(rows_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::conditions;
    use crate::txn::tests::{NEW_YEAR_US, WEEK_US, readings};
    use arrow::array::Int32Array;
    use arrow::datatypes::Int32Type;
    use proto::SlotSet;
    use proto::slots::slot_of_i64;

    /// What `route` must do, a row at a time.
    fn naive(table: &TableDef, pairs: &[(i64, i32)]) -> BTreeMap<(i64, bool), Vec<i32>> {
        let slicing = table.hypertable.as_ref().unwrap().slicing;
        let mut expected = BTreeMap::<_, Vec<i32>>::new();
        for (time, device) in pairs {
            let upper = slot_of_i64((*device).into()) >= 128;
            expected.entry((slicing.slice(*time).start(), upper)).or_default().push(*device);
        }
        expected
    }

    fn routed(table: &TableDef, pairs: &[(i64, i32)]) -> (BTreeMap<(i64, bool), Vec<i32>>, usize) {
        let slicing = table.hypertable.as_ref().unwrap().slicing;
        let mut asked = 0;
        let mut chunk_at = |time: i64, slot: Slot| {
            asked += 1;
            let (time, partition) = (slicing.slice(time), usize::from(slot >= 128));
            Ok(Arc::new(ChunkDef {
                id: ChunkId((time.start() / WEEK_US) as u32 * 2 + partition as u32),
                table: table.id,
                time,
                slots: SlotSet::partition(partition, 2),
                nodes: vec!["dn1".into()],
                epoch: 1,
                created_us: 0,
                compressed: false,
            }))
        };
        let parts = route(table, readings(table, pairs), &mut chunk_at).unwrap();
        let devices_of = |rows: &RecordBatch| {
            let devices: &Int32Array = rows.column(1).as_primitive::<Int32Type>();
            devices.values().to_vec()
        };
        let by_chunk =
            parts.iter().map(|(chunk, rows)| ((chunk.time.start(), chunk.slots.contains(255)), devices_of(rows)));
        (by_chunk.collect(), asked)
    }

    #[test]
    fn every_row_goes_where_a_walk_row_by_row_sends_it() {
        let table = conditions(20_000, &["dn1", "dn2"]);
        let mut random = 42_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for weeks in [1, 3, 20] {
            let mut pair = || (NEW_YEAR_US + (draw(weeks * WEEK_US as u64)) as i64, draw(50) as i32);
            let pairs = (0..2000).map(|_| pair()).collect::<Vec<_>>();
            let expected = naive(&table, &pairs);
            let (found, asked) = routed(&table, &pairs);
            assert_eq!(found, expected, "over {weeks} weeks");
            assert_eq!(asked, expected.len(), "each chunk is looked up once");
        }
        assert!(routed(&table, &[]).0.is_empty());
    }
}
