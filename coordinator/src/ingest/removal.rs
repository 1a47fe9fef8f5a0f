//! Addresses of rows to remove, as a scan gave them, as what nodes take: one body per chunk, columns all the way.

use super::blocks::checked_body;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proto::data_node::FIELD_ID;
use proto::ipc::encode_body;
use proto::{ChunkId, ChunkLayout, ChunkWrite, ColumnId, Error, Result, WriteKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Three columns of one length without NULLs: chunk, part, row.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    chunks: Int64Array,
    parts: Int64Array,
    rows: Int64Array,
}

impl Addresses {
    /// Out of the first three columns of a batch.
    pub(crate) fn of(batch: &RecordBatch) -> Result<Addresses> {
        let column = |index: usize| {
            let column = batch.columns().get(index).and_then(|column| column.as_primitive_opt::<Int64Type>());
            let column = column.filter(|column| column.null_count() == 0);
            column.cloned().ok_or_else(|| Error::internal("rows to be changed came without their addresses"))
        };
        Ok(Addresses { chunks: column(0)?, parts: column(1)?, rows: column(2)? })
    }

    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Chunk, part and row of one address.
    pub(crate) fn get(&self, index: usize) -> (i64, i64, i64) {
        (self.chunks.value(index), self.parts.value(index), self.rows.value(index))
    }

    pub(crate) fn chosen(&self, indices: &UInt32Array) -> Result<Addresses> {
        let taken = |array: &Int64Array| -> Result<Int64Array> {
            let taken = take(array, indices, None).map_err(|e| Error::internal(e.to_string()))?;
            Ok(taken.as_primitive::<Int64Type>().clone())
        };
        Ok(Addresses { chunks: taken(&self.chunks)?, parts: taken(&self.parts)?, rows: taken(&self.rows)? })
    }

    /// A write for each chunk.
    pub(crate) fn writes(&self, layout: &ChunkLayout) -> Result<Vec<ChunkWrite>> {
        let mut of_chunk: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (index, chunk) in self.chunks.values().iter().enumerate() {
            of_chunk.entry(*chunk).or_default().push(index as u32);
        }
        let write = |(chunk, indices): (i64, Vec<u32>)| {
            let chunk = u32::try_from(chunk).map_err(|_| Error::internal(format!("there is no chunk {chunk}")))?;
            let chosen = self.chosen(&UInt32Array::from(indices))?;
            let columns: Vec<ArrayRef> = vec![Arc::new(chosen.parts), Arc::new(chosen.rows)];
            let body = RecordBatch::try_new(body_schema(), columns).map_err(|e| Error::internal(e.to_string()))?;
            let body = checked_body(encode_body(&body)?)?;
            Ok(ChunkWrite { chunk: ChunkId(chunk), layout: layout.clone(), kind: WriteKind::Delete, body })
        };
        of_chunk.into_iter().map(write).collect()
    }
}

fn body_schema() -> Arc<Schema> {
    let field = |name: &str, id: ColumnId| {
        let metadata = [(FIELD_ID.to_owned(), id.to_string())];
        Field::new(name, DataType::Int64, false).with_metadata(metadata.into())
    };
    Arc::new(Schema::new(vec![field("part", ColumnId::PART), field("row", ColumnId::ROW)]))
}

/// Rows a statement has met, as one bit each: a row that matches several times counts once.
#[derive(Default)]
pub(crate) struct Met {
    /// By chunk and part, by row.
    parts: BTreeMap<(i64, i64), Vec<u64>>,
}

impl Met {
    /// The positions of the addresses met for the first time.
    pub(crate) fn first(&mut self, addresses: &Addresses) -> UInt32Array {
        let is_new = |index: &u32| {
            let (chunk, part, row) = addresses.get(*index as usize);
            let bits = self.parts.entry((chunk, part)).or_default();
            let (word, bit) = ((row / 64) as usize, 1u64 << (row % 64));
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            let is_new = bits[word] & bit == 0;
            bits[word] |= bit;
            is_new
        };
        (0..addresses.len() as u32).filter(is_new).collect::<Vec<_>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::TableId;
    use proto::ipc::decode_body;

    fn addresses(of: &[(i64, i64, i64)]) -> Addresses {
        let column = |pick: fn(&(i64, i64, i64)) -> i64| of.iter().map(pick).collect::<Vec<_>>().into();
        Addresses { chunks: column(|a| a.0), parts: column(|a| a.1), rows: column(|a| a.2) }
    }

    #[test]
    fn each_chunk_gets_its_own_rows() {
        let layout = ChunkLayout { table: TableId(1), sort: Vec::new(), time: None, keys: Vec::new() };
        let writes = addresses(&[(7, 1, 10), (8, 1, 11), (7, 2, 12)]).writes(&layout).unwrap();
        let rows = |write: &ChunkWrite| {
            let body = decode_body(write.body.clone()).unwrap();
            let column = |index| body.column(index).as_primitive::<Int64Type>().values().to_vec();
            (write.chunk.0, write.kind, column(0), column(1))
        };
        let expected = [(7, WriteKind::Delete, vec![1, 2], vec![10, 12]), (8, WriteKind::Delete, vec![1], vec![11])];
        assert_eq!(writes.iter().map(rows).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_row_met_twice_counts_once() {
        let mut met = Met::default();
        let found = met.first(&addresses(&[(1, 1, 0), (1, 1, 0), (1, 1, 1000), (1, 2, 0), (2, 1, 0)]));
        assert_eq!(found.values(), &[0, 2, 3, 4]);
        assert!(met.first(&addresses(&[(2, 1, 0), (1, 1, 1000)])).is_empty());
    }
}
