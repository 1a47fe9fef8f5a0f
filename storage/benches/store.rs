//! What one node's store does per row, on the real disk: `cargo bench --workspace --bench store`. TSBS-like rows: 100 hosts that report
//! ten metrics every ten seconds.

#![allow(clippy::unwrap_used, reason = "all of this is test code")]

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use proto::data_node::FIELD_ID;
use proto::{
    ChunkId, ChunkLayout, ChunkWrite, ClusterId, ColumnId, CommitMode, CommitSeq, NodeIdentity, SubTxn, SystemClock,
    SystemRng, TableId, TxnId, WriteKind,
};
use std::hint::black_box;
use std::sync::Arc;
use storage::{Log, LogOptions, RealVfs, ScanColumn, ScanRequest, Store, StoreOptions};
use tempfile::TempDir;

const HOSTS: usize = 100;
const METRICS: usize = 10;
const ROWS: usize = 100_000;
const CLUSTER: ClusterId = ClusterId([1; 16]);
const CHUNK: ChunkId = ChunkId(1);
const TIME: ColumnId = ColumnId(1);
const HOST: ColumnId = ColumnId(2);

fn field(id: ColumnId) -> Field {
    let (name, data_type) = match id {
        TIME => ("time".to_owned(), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        HOST => ("hostname".to_owned(), DataType::Utf8),
        metric => (format!("metric_{metric}"), DataType::Float64),
    };
    Field::new(name, data_type, true).with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
}

fn metric(number: usize) -> ColumnId {
    ColumnId(3 + number as u32)
}

/// A walk between 0 and 100 for each host and metric, row after row in the order of time.
fn write() -> ChunkWrite {
    let row_hosts = (0..ROWS).map(|row| row % HOSTS);
    let times = (0..ROWS).map(|row| 1_451_606_400_000_000 + (row / HOSTS) as i64 * 10_000_000);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let hosts = StringArray::from_iter_values(row_hosts.map(|host| format!("host_{host}")));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(hosts)];
    let mut state = 42_u64;
    for _ in 0..METRICS {
        let mut levels = vec![50_i32; HOSTS];
        let values = (0..ROWS).map(|row| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let level = &mut levels[row % HOSTS];
            *level = (*level + (state >> 33) as i32 % 3 - 1).clamp(0, 100);
            f64::from(*level)
        });
        columns.push(Arc::new(Float64Array::from_iter_values(values)));
    }
    let ids = [TIME, HOST].into_iter().chain((0..METRICS).map(metric));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(ids.map(field).collect::<Vec<_>>())), columns).unwrap();
    let layout = ChunkLayout { table: TableId(16384), sort: vec![HOST, TIME], time: Some(TIME), keys: Vec::new() };
    ChunkWrite { chunk: CHUNK, layout, kind: WriteKind::Insert, body: proto::ipc::encode_body(&batch).unwrap() }
}

fn open() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { background: false, ..StoreOptions::default() };
    let store =
        Store::open(Arc::new(RealVfs), Arc::new(SystemClock::new()), Arc::new(SystemRng), dir.path(), options).unwrap();
    store.attach(NodeIdentity { cluster: CLUSTER, name: "dn1".into() }).unwrap();
    (dir, store)
}

fn insert(store: &Store, number: u64, write: &ChunkWrite) {
    let txn = TxnId { cluster: CLUSTER, epoch: 1, number };
    store.stage(txn, SubTxn::FIRST, vec![write.clone()]).unwrap();
    store.commit(txn, CommitSeq(number), CommitMode::OnePhase).unwrap();
}

fn scan(store: &Store, columns: &[ColumnId]) -> usize {
    let columns = columns.iter().map(|id| ScanColumn { id: *id, field: field(*id), missing: None }).collect();
    let request = ScanRequest {
        chunk: CHUNK,
        snapshot: CommitSeq::MAX,
        txn: None,
        columns,
        predicates: Vec::new(),
        latest: None,
        batch_rows: 8192,
        tally: Default::default(),
    };
    store.scan(request).unwrap().map(|batch| black_box(batch.unwrap()).num_rows()).sum()
}

fn writing(criterion: &mut Criterion) {
    let write = write();
    let mut group = criterion.benchmark_group("write");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    group.bench_function("stage and commit", |bencher| {
        let (_dir, store) = open();
        let mut number = 0;
        bencher.iter(|| {
            number += 1;
            insert(&store, number, &write);
            if number % 20 == 0 {
                store.drop_chunks(&[CHUNK]).ok();
            }
        });
    });
    group.bench_function("seal", |bencher| {
        let filled = || {
            let (dir, store) = open();
            insert(&store, 1, &write);
            (dir, store)
        };
        bencher.iter_batched(filled, |(dir, store)| (store.seal(CHUNK).unwrap(), dir), BatchSize::PerIteration);
    });
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let (_dir, store) = open();
    insert(&store, 1, &write());
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("delta, one metric", |bencher| bencher.iter(|| scan(&store, &[metric(0)])));
    store.seal(CHUNK).unwrap();
    group.bench_function("segment, one metric", |bencher| bencher.iter(|| scan(&store, &[metric(0)])));
    group.bench_function("segment, host and time", |bencher| bencher.iter(|| scan(&store, &[HOST, TIME])));
    let all = (0..METRICS).map(metric).chain([HOST, TIME]).collect::<Vec<_>>();
    group.bench_function("segment, all columns", |bencher| bencher.iter(|| scan(&store, &all)));
    group.finish();
}

fn log(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(Arc::new(RealVfs), dir.path(), LogOptions::default(), &mut |_, _| Ok(())).unwrap();
    let record = vec![7; 1 << 20];
    let mut group = criterion.benchmark_group("log");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(record.len() as u64));
    group.bench_function("append 1 MiB", |bencher| {
        bencher.iter(|| {
            let lsn = log.append(&[&record]).unwrap();
            log.truncate_before(lsn).unwrap();
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("append and sync 100 bytes", |bencher| {
        bencher.iter(|| log.sync(log.append(&[&record[..100]]).unwrap()).unwrap());
    });
    group.finish();
}

criterion_group!(benches, writing, reading, log);
criterion_main!(benches);
