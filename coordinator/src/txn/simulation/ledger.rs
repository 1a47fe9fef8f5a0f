//! The table of the simulation: a double-entry ledger. A transaction's rows carry its name, so that whoever reads them
//! knows which transactions it sees, and how much of each.

use crate::catalog::{CatalogState, NodeDef};
use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use engine::{ColumnDef, Hypertable, PgType, SpaceDimension, TableDef};
use proto::{
    ChunkId, ClusterId, ColumnId, CommitSeq, NodeName, SlotSet, TableId, TimeSlicing, TxnId, data_node::FIELD_ID,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use storage::{ScanColumn, ScanRequest, StorageError, Store};

pub(super) const CLUSTER: ClusterId = ClusterId([7; 16]);
pub(super) const TABLE: TableId = TableId(20_000);
pub(super) const PARTITIONS: usize = 3;
pub(super) const SLICE_US: i64 = 3_600_000_000;
const ENTRY: ColumnId = ColumnId(3);
const AMOUNT: ColumnId = ColumnId(4);

/// Transaction, by epoch and number, and what it books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Row {
    pub(super) entry: Entry,
    pub(super) amount: i64,
}

/// A transaction's name in a row.
pub(super) type Entry = (u64, u64);

/// `epoch * ENTRIES + number`
const ENTRIES: i64 = 1 << 32;

pub(super) fn entry_of(txn: TxnId) -> Entry {
    (txn.epoch, txn.number)
}

pub(super) fn node_def(name: &NodeName, oid: u32, incarnation: u64) -> NodeDef {
    NodeDef {
        oid,
        name: name.clone(),
        owner: "postgres".to_owned(),
        host: name.to_string(),
        port: 5435,
        database: "postgres".to_owned(),
        incarnation,
        available: true,
        usage: BTreeSet::new(),
    }
}

pub(super) fn table(nodes: &[NodeName]) -> TableDef {
    let column = |id, name: &str, ty| ColumnDef {
        id: ColumnId(id),
        name: name.to_owned(),
        ty,
        nullable: false,
        default: None,
        missing: None,
        comment: None,
    };
    TableDef {
        id: TABLE,
        database: "postgres".to_owned(),
        schema: "public".to_owned(),
        name: "ledger".to_owned(),
        owner: "postgres".to_owned(),
        columns: vec![
            column(1, "time", PgType::Timestamptz),
            column(2, "account", PgType::Int4),
            column(3, "entry", PgType::Int8),
            column(4, "amount", PgType::Int8),
        ],
        next_column: ColumnId(5),
        hypertable: Some(Hypertable {
            id: 1,
            time_column: ColumnId(1),
            slicing: TimeSlicing::new(SLICE_US).expect("an hour is a slice"),
            space: Some(SpaceDimension { column: ColumnId(2), partitions: PARTITIONS as u16 }),
            distributed: true,
            replication_factor: 1,
            data_nodes: nodes.to_vec(),
            chunk_schema: "_timescaledb_internal".to_owned(),
            chunk_prefix: "_dist_hyper_1".to_owned(),
            default_indexes: true,
            compression: None,
        }),
        keys: Vec::new(),
        comment: None,
    }
}

/// Some account of the partition.
pub(super) fn account(partition: usize) -> i32 {
    let slots = SlotSet::partition(partition, PARTITIONS);
    (0..).find(|account| slots.contains(proto::slots::slot_of_i64((*account).into()))).expect("accounts fill all slots")
}

/// One row per account and amount.
pub(super) fn batch(table: &TableDef, time_us: i64, txn: TxnId, bookings: &[(i32, i64)]) -> RecordBatch {
    let (epoch, number) = entry_of(txn);
    let entry = epoch as i64 * ENTRIES + number as i64;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(vec![time_us; bookings.len()]).with_timezone("UTC")),
        Arc::new(Int32Array::from_iter_values(bookings.iter().map(|booking| booking.0))),
        Arc::new(Int64Array::from(vec![entry; bookings.len()])),
        Arc::new(Int64Array::from_iter_values(bookings.iter().map(|booking| booking.1))),
    ];
    RecordBatch::try_new(table.schema(), columns).expect("the columns are the table's")
}

/// What these chunks show at a snapshot.
pub(super) fn rows_of(store: &Store, snapshot: CommitSeq, chunks: &[ChunkId]) -> Result<Vec<Row>, StorageError> {
    let column = |id: ColumnId| {
        let field = Field::new(id.to_string(), DataType::Int64, false);
        let field = field.with_metadata([(FIELD_ID.to_owned(), id.to_string())].into());
        ScanColumn { id, field, missing: None }
    };
    let mut rows = Vec::new();
    for chunk in chunks {
        let scan = store.scan(ScanRequest {
            chunk: *chunk,
            snapshot,
            txn: None,
            columns: vec![column(ENTRY), column(AMOUNT)],
            predicates: Vec::new(),
            latest: None,
            batch_rows: 8192,
            tally: Default::default(),
        })?;
        for batch in scan {
            let batch = batch?;
            let (entries, amounts) =
                (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
            rows.extend(entries.values().iter().zip(amounts.values()).map(|(entry, amount)| Row {
                entry: ((entry / ENTRIES) as u64, (entry % ENTRIES) as u64),
                amount: *amount,
            }));
        }
    }
    Ok(rows)
}

/// The chunks of the table, by node.
pub(super) fn chunks_on(catalog: &CatalogState, node: &NodeName) -> Vec<ChunkId> {
    let chunks = catalog.chunks(TABLE);
    chunks.iter().filter(|chunk| chunk.nodes.contains(node)).map(|chunk| chunk.id).collect()
}
