//! A chunk's recent rows: immutable Arrow batches as they were written, each with the commit that made it visible.
//! Unsorted; sealing sorts them. The arrays point into the bytes of the write, nothing is copied.

use crate::deletes::{Part, is_address};
use crate::error::{Result, StorageError};
use crate::keys::KeyRows;
use crate::log::Lsn;
use crate::segment::{SEQ, comparable, storable};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, Int64Type};
use bytes::Bytes;
use parking_lot::Mutex;
use proto::data_node::FIELD_ID;
use proto::{ChunkLayout, ColumnId, ColumnPredicate, CommitSeq, PredicateKind, Scalar};
use std::sync::Arc;

/// What a batch costs beyond its body: schema, arrays, list entries.
const BATCH_OVERHEAD_BYTES: usize = 2 << 10;
/// What a row costs beyond it in each unique key: its hash and number.
const KEY_ROW_BYTES: usize = 16;

/// A key's columns, and the rows by it; `None` when they lack a column.
type KnownKey = (Vec<ColumnId>, Option<Arc<KeyRows>>);

/// One decoded write.
pub(crate) struct DeltaRows {
    pub(crate) batch: RecordBatch,
    /// One per column of `batch`.
    pub(crate) ids: Vec<ColumnId>,
    pub(crate) time_column: Option<ColumnId>,
    /// Smallest and largest value of the time column, both included.
    pub(crate) time: Option<(i64, i64)>,
    pub(crate) bytes: usize,
    /// Made when a key is first asked for.
    keys: Mutex<Vec<KnownKey>>,
}

/// Committed rows of a chunk that are in no segment yet.
#[derive(Clone)]
pub(crate) struct DeltaBatch {
    pub(crate) rows: Arc<DeltaRows>,
    pub(crate) part: Part,
    pub(crate) seq: CommitSeq,
    /// The log is needed from here on as long as the batch is not sealed.
    pub(crate) first_lsn: Lsn,
    pub(crate) commit_lsn: Lsn,
}

impl DeltaRows {
    /// # Errors
    /// `BadWrite` for bytes that are no batch, or a batch that does not fit the layout; `Unsupported` for a column type
    /// that cannot be sealed.
    pub(crate) fn decode(body: &Bytes, layout: &ChunkLayout) -> Result<DeltaRows> {
        let batch = proto::ipc::decode_body(body.clone()).map_err(|error| StorageError::BadWrite(error.message))?;
        let schema = batch.schema();
        let ids = schema.fields().iter().map(|field| {
            if !storable(field.data_type()) {
                let column = format!("storing column \"{}\" of type {}", field.name(), field.data_type());
                return Err(StorageError::Unsupported(format!("{column} is not supported yet")));
            }
            let id = field.metadata().get(FIELD_ID).and_then(|id| id.parse().ok()).map(ColumnId);
            id.ok_or_else(|| StorageError::BadWrite(format!("column \"{}\" has no field id", field.name())))
        });
        let ids = ids.collect::<Result<Vec<_>>>()?;
        if let Some(id) = ids.iter().find(|id| is_address(**id) || **id == SEQ) {
            return Err(StorageError::BadWrite(format!("{id} is no column of a table")));
        }
        if let Some(twice) = ids.iter().enumerate().find_map(|(at, id)| ids[..at].contains(id).then_some(id)) {
            return Err(StorageError::BadWrite(format!("column {twice} comes twice")));
        }
        let time = layout.time.map(|time| time_bounds(&batch, &ids, time)).transpose()?.flatten();
        let bytes = body.len() + BATCH_OVERHEAD_BYTES + batch.num_rows() * KEY_ROW_BYTES * layout.keys.len();
        Ok(DeltaRows { batch, ids, time_column: layout.time, time, bytes, keys: Mutex::default() })
    }

    /// `None` when the rows lack a column of the key: no row has a key then.
    pub(crate) fn key_rows(&self, key: &[ColumnId]) -> Result<Option<Arc<KeyRows>>> {
        let mut keys = self.keys.lock();
        if let Some((_, rows)) = keys.iter().find(|(other, _)| other == key) {
            return Ok(rows.clone());
        }
        let rows = KeyRows::of(&self.batch, &self.ids, key)?.map(Arc::new);
        keys.push((key.to_vec(), rows.clone()));
        Ok(rows)
    }

    /// Whether any row can satisfy the predicates: looks at the time column's bounds only.
    pub(crate) fn may_match(&self, predicates: &[ColumnPredicate]) -> bool {
        let Some((low, high)) = self.time else { return true };
        predicates.iter().filter(|predicate| Some(predicate.column) == self.time_column).all(|predicate| {
            let below = |value: &Scalar| matches!(value, Scalar::Int(value) if *value < low);
            let above = |value: &Scalar| matches!(value, Scalar::Int(value) if *value > high);
            match &predicate.kind {
                PredicateKind::Range { min, max } => {
                    !min.as_ref().is_some_and(above) && !max.as_ref().is_some_and(below)
                }
                PredicateKind::OneOf(values) => !values.iter().all(|value| below(value) || above(value)),
            }
        })
    }
}

/// `None` when there is no row with a time.
fn time_bounds(batch: &RecordBatch, ids: &[ColumnId], time: ColumnId) -> Result<Option<(i64, i64)>> {
    let at = ids.iter().position(|id| *id == time);
    let at = at.ok_or_else(|| StorageError::BadWrite(format!("the time column {time} is missing")))?;
    if comparable(batch.column(at).data_type()) { bounds(batch.column(at)) } else { Ok(None) }
}

/// Smallest and largest value of a column of times; `None` when all are NULL.
pub(crate) fn bounds(times: &ArrayRef) -> Result<Option<(i64, i64)>> {
    let integers = cast(times, &DataType::Int64)?;
    let integers = integers.as_primitive::<Int64Type>();
    Ok(min(integers).zip(max(integers)))
}
