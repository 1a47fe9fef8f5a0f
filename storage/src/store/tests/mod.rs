//! What every test of the store needs: a clock, chance, a table of readings, and a naive reader.

mod asynchronous;
mod discarding;
mod faults;
mod keys;
mod last_rows;
mod merging;
mod model;
mod pressure;
mod reading;
mod removing;
mod reordering;
mod transactions;

use super::*;
use crate::projection::ScanColumn;
use crate::vfs::SimVfs;
use arrow::array::{Array, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use proto::data_node::FIELD_ID;
use proto::{ChunkLayout, ChunkWrite, ClusterId, ColumnId, ColumnPredicate, CommitMode, SubTxn, TableId, WriteKind};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

pub(super) const DIR: &str = "/node";
pub(super) const CLUSTER: ClusterId = ClusterId([9; 16]);
const TIME: ColumnId = ColumnId(1);
const HOST: ColumnId = ColumnId(2);
const VALUE: ColumnId = ColumnId(3);
const NUMBER: ColumnId = ColumnId(4);

pub(super) struct TestClock(pub(super) AtomicU64);

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        0
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

pub(super) struct TestRng(pub(super) AtomicU64);

impl Rng for TestRng {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// One row: time, host, value as bits, number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) time: i64,
    pub(super) host: Option<String>,
    pub(super) value: Option<u64>,
    pub(super) number: Option<i64>,
}

pub(super) fn row(time: i64, host: &str, value: f64, number: i64) -> Row {
    Row { time, host: Some(host.to_owned()), value: Some(value.to_bits()), number: Some(number) }
}

pub(super) fn options() -> StoreOptions {
    StoreOptions {
        background: false,
        log_segment_bytes_max: 8 << 10,
        stage_wait_max: Duration::ZERO,
        lock_wait_max: Duration::ZERO,
        ..Default::default()
    }
}

pub(super) fn try_open(vfs: &SimVfs) -> Result<Store> {
    try_open_with(vfs, options())
}

pub(super) fn try_open_with(vfs: &SimVfs, options: StoreOptions) -> Result<Store> {
    open_at(vfs, options, &Arc::new(TestClock(AtomicU64::new(0))))
}

pub(super) fn open_at(vfs: &SimVfs, options: StoreOptions, clock: &Arc<TestClock>) -> Result<Store> {
    let rng = Arc::new(TestRng(AtomicU64::new(77)));
    Store::open(Arc::new(vfs.clone()), Arc::clone(clock) as Arc<dyn Clock>, rng, Path::new(DIR), options)
}

/// An attached store.
pub(super) fn open(vfs: &SimVfs) -> Store {
    let store = try_open(vfs).unwrap();
    store.attach(identity()).unwrap();
    store
}

pub(super) fn identity() -> NodeIdentity {
    NodeIdentity { cluster: CLUSTER, name: "dn1".into() }
}

pub(super) fn txn(number: u64) -> TxnId {
    TxnId { cluster: CLUSTER, epoch: 1, number }
}

pub(super) fn layout() -> ChunkLayout {
    ChunkLayout { table: TableId(16384), sort: vec![HOST, TIME], time: Some(TIME), keys: Vec::new() }
}

pub(super) fn field(id: ColumnId) -> Field {
    let (name, data_type) = match id {
        TIME => ("time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        HOST => ("host", DataType::Utf8),
        VALUE => ("value", DataType::Float64),
        _ => ("number", DataType::Int64),
    };
    Field::new(name, data_type, true).with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
}

pub(super) fn write(chunk: u32, rows: &[Row]) -> ChunkWrite {
    let schema = Schema::new([TIME, HOST, VALUE, NUMBER].map(field).to_vec());
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time)).with_timezone("UTC");
    let hosts = rows.iter().map(|row| row.host.clone()).collect::<StringArray>();
    let values = rows.iter().map(|row| row.value.map(f64::from_bits)).collect::<Float64Array>();
    let numbers = rows.iter().map(|row| row.number).collect::<Int64Array>();
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(times), Arc::new(hosts), Arc::new(values), Arc::new(numbers)];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    ChunkWrite {
        chunk: ChunkId(chunk),
        layout: layout(),
        kind: WriteKind::Insert,
        body: proto::ipc::encode_body(&batch).unwrap(),
    }
}

pub(super) fn wanted(id: ColumnId) -> ScanColumn {
    ScanColumn { id, field: field(id), missing: None }
}

pub(super) fn request(chunk: u32, snapshot: u64) -> ScanRequest {
    ScanRequest {
        chunk: ChunkId(chunk),
        snapshot: CommitSeq(snapshot),
        txn: None,
        columns: [NUMBER, TIME, HOST, VALUE].map(wanted).to_vec(),
        predicates: Vec::new(),
        latest: None,
        batch_rows: 1000,
        tally: Default::default(),
    }
}

pub(super) fn rows_of(scan: ChunkScan) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for batch in scan {
        let batch = batch?;
        assert!(batch.num_rows() > 0 && batch.num_rows() <= 1000);
        rows.extend(rows_in(&batch));
    }
    Ok(rows)
}

fn rows_in(batch: &RecordBatch) -> Vec<Row> {
    let (numbers, times) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1));
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let (hosts, values) = (batch.column(2).as_string::<i32>(), batch.column(3).as_primitive::<Float64Type>());
    let rows = (0..batch.num_rows()).map(|at| Row {
        time: times.value(at),
        host: hosts.is_valid(at).then(|| hosts.value(at).to_owned()),
        value: values.is_valid(at).then(|| values.value(at).to_bits()),
        number: numbers.is_valid(at).then(|| numbers.value(at)),
    });
    rows.collect()
}

/// The chunk's rows at a snapshot, sorted.
pub(super) fn read(store: &Store, chunk: u32, snapshot: u64) -> Result<Vec<Row>> {
    let mut rows = rows_of(store.scan(request(chunk, snapshot))?)?;
    rows.sort();
    Ok(rows)
}

/// Where a row is: part and position.
pub(super) type Address = (i64, i64);

/// The rows a scan shows, with their addresses.
pub(super) fn addressed(store: &Store, request: ScanRequest) -> Result<Vec<(Row, Address)>> {
    let column = |id| ScanColumn { id, field: Field::new("address", DataType::Int64, false), missing: None };
    let mut wide = request.clone();
    wide.columns.extend([ColumnId::CHUNK, ColumnId::PART, ColumnId::ROW].map(column));
    let (mut rows, mut addresses) = (Vec::new(), Vec::new());
    for batch in store.scan(wide)? {
        let batch = batch?;
        let [chunk, part, row] = [4, 5, 6].map(|at| batch.column(at).as_primitive::<Int64Type>());
        assert!(chunk.values().iter().all(|id| *id == i64::from(request.chunk.0)));
        addresses.extend(part.values().iter().copied().zip(row.values().iter().copied()));
        rows.extend(rows_in(&batch));
    }
    Ok(rows.into_iter().zip(addresses).collect())
}

pub(super) fn removal(chunk: u32, addresses: &[Address]) -> ChunkWrite {
    let field = |id: ColumnId| {
        Field::new("address", DataType::Int64, false).with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
    };
    let schema = Schema::new(vec![field(ColumnId::PART), field(ColumnId::ROW)]);
    let parts = addresses.iter().map(|(part, _)| *part).collect::<Int64Array>();
    let rows = addresses.iter().map(|(_, row)| *row).collect::<Int64Array>();
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(parts), Arc::new(rows)]).unwrap();
    let body = proto::ipc::encode_body(&batch).unwrap();
    ChunkWrite { chunk: ChunkId(chunk), layout: layout(), kind: WriteKind::Delete, body }
}

/// Stages and commits in one round.
pub(super) fn insert(store: &Store, number: u64, seq: u64, chunk: u32, rows: &[Row]) -> Result<()> {
    store.stage(txn(number), SubTxn::FIRST, vec![write(chunk, rows)])?;
    store.commit(txn(number), CommitSeq(seq), CommitMode::OnePhase)
}

/// The chunk's segments on the disk, and the columns each is sorted by.
pub(super) fn orders(vfs: &SimVfs, chunk: ChunkId) -> BTreeMap<u64, Vec<ColumnId>> {
    let manifest = Manifest::load(vfs, Path::new(DIR)).unwrap().unwrap();
    let segments = manifest.chunks.get(&chunk).into_iter().flat_map(|chunk| &chunk.segments);
    segments.map(|segment| (segment.number, segment.sort.clone())).collect()
}

pub(super) fn range(column: ColumnId, min: Option<proto::Scalar>, max: Option<proto::Scalar>) -> ColumnPredicate {
    ColumnPredicate { column, kind: proto::PredicateKind::Range { min, max } }
}

/// splitmix64, for reproducible choices.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(super) fn row(&mut self, number: i64) -> Row {
        let host = Some(self.below(6)).filter(|n| *n > 0).map(|n| format!("host_{n}"));
        let value = match self.below(12) {
            0 => None,
            1 => Some(f64::NAN),
            2 => Some(-0.0),
            3 => Some(0.1 + 0.2),
            n => Some(n as f64 / 4.0),
        };
        let time = self.below(1000) as i64 - 500;
        Row { time, host, value: value.map(f64::to_bits), number: Some(number) }
    }
}

/// How many times as long the tests of faults and of random lives run; 1 but for long runs.
pub(super) fn rounds() -> u64 {
    std::env::var("SERIATIM_ROUNDS").map_or(1, |rounds| rounds.parse().expect("SERIATIM_ROUNDS is a number"))
}

/// How often what happened in a test. Printed at its end: a fault that never struck proves nothing.
pub(super) struct Counts {
    title: &'static str,
    counts: std::collections::BTreeMap<String, u64>,
}

impl Counts {
    pub(super) fn new(title: &'static str) -> Counts {
        Counts { title, counts: Default::default() }
    }

    pub(super) fn add(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    pub(super) fn absorb(&mut self, other: Counts) {
        for (what, count) in other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    /// Of everything whose name contains the words.
    pub(super) fn of(&self, words: &str) -> u64 {
        self.counts.iter().filter(|(what, _)| what.contains(words)).map(|(_, count)| count).sum()
    }

    pub(super) fn kinds(&self) -> usize {
        self.counts.len()
    }

    /// In all, for each round.
    pub(super) fn at_least(&self, least: u64) {
        self.print();
        let total = self.counts.values().sum::<u64>();
        assert!(total >= least * rounds(), "{}: {total} in {} rounds", self.title, rounds());
    }

    /// Of each kind, for each round.
    pub(super) fn each_at_least(&self, least: u64) {
        self.print();
        let rare = self.counts.iter().find(|(_, count)| **count < least * rounds());
        assert!(rare.is_none(), "{}: {rare:?} in {} rounds", self.title, rounds());
    }

    fn print(&self) {
        println!("{}: {}", self.title, self.counts.values().sum::<u64>());
        self.counts.iter().for_each(|(what, count)| println!("  {count:7} {what}"));
    }
}
