//! Where numbers stop fitting into the types that held them so far: more than 2^31 rows in a chunk, more than 65,535
//! chunks in a store, 10,000 columns in a table, a million series in a chunk. Each is made through the store's own door,
//! closed, opened again, counted, and sampled.
//!
//! `cargo bench --workspace --bench cliffs` takes some ten minutes and a few gigabytes of `TMPDIR`; a name behind `--` runs
//! one of them. As a test (`cargo test --bench cliffs`) everything is a thousandth of its size.

#![allow(clippy::unwrap_used, reason = "all of this is test code")]

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proto::data_node::FIELD_ID;
use proto::{
    ChunkId, ChunkLayout, ChunkWrite, Clock, ClusterId, ColumnId, ColumnPredicate, CommitMode, CommitSeq, NodeIdentity,
    PredicateKind, Scalar, SubTxn, SystemClock, SystemRng, TableId, TxnId, WriteKind,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::{RealVfs, ScanColumn, ScanRequest, Store, StoreOptions};

const CLUSTER: ClusterId = ClusterId([1; 16]);
const TIME: ColumnId = ColumnId(1);
const SERIES: ColumnId = ColumnId(2);
/// Sealed when this many bytes of rows have come; fewer when everything is smaller.
const SEAL_BYTES: usize = 192 << 20;

fn main() {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let divisor = if arguments.iter().any(|argument| argument == "--bench") { 1 } else { 1000 };
    let wanted = arguments.into_iter().find(|argument| !argument.starts_with('-'));
    println!("cliff    |         made of | write, s | open, s | read, s |  disk, MiB | peak memory, MiB");
    let cliffs: [(&str, Make); 4] = [("columns", columns), ("series", series), ("chunks", chunks), ("rows", rows)];
    for (name, make) in cliffs {
        if wanted.as_ref().is_none_or(|wanted| wanted == name) {
            forget_peak_memory();
            let Cliff { size, write, open, read, disk_bytes } = make(divisor);
            let seconds = [write, open, read].map(|time| time.as_secs_f64());
            println!(
                "{name:8} | {size:>15} | {:8.1} | {:7.1} | {:7.1} | {:10.1} | {:.0}",
                seconds[0],
                seconds[1],
                seconds[2],
                disk_bytes as f64 / f64::from(1 << 20),
                peak_memory_mib()
            );
        }
    }
}

/// How many times smaller than meant.
type Make = fn(u64) -> Cliff;

struct Cliff {
    size: String,
    write: Duration,
    open: Duration,
    read: Duration,
    disk_bytes: u64,
}

/// Writes, closes, opens and reads a store, with the time of each.
fn measured(divisor: u64, size: String, write: impl FnOnce(&mut Writer), read: impl FnOnce(&Store)) -> Cliff {
    let (dir, clock) = (tempfile::tempdir().unwrap(), SystemClock::new());
    let mut writer =
        Writer { store: open(dir.path()), number: 0, unsealed_bytes: 0, seal_bytes: SEAL_BYTES / divisor as usize };
    writer.store.attach(NodeIdentity { cluster: CLUSTER, name: "dn1".into() }).unwrap();
    let started = clock.elapsed();
    write(&mut writer);
    writer.store.close().unwrap();
    drop(writer);
    let written = clock.elapsed();
    let store = open(dir.path());
    let opened = clock.elapsed();
    read(&store);
    let (write, open, read) = (written - started, opened - written, clock.elapsed() - opened);
    let disk_bytes = bytes_below(dir.path());
    Cliff { size, write, open, read, disk_bytes }
}

fn open(dir: &Path) -> Store {
    let options = StoreOptions { background: false, ..StoreOptions::default() };
    Store::open(Arc::new(RealVfs), Arc::new(SystemClock::new()), Arc::new(SystemRng), dir, options).unwrap()
}

struct Writer {
    store: Store,
    number: u64,
    unsealed_bytes: usize,
    seal_bytes: usize,
}

impl Writer {
    /// One transaction.
    fn commit(&mut self, writes: Vec<ChunkWrite>) {
        self.number += 1;
        self.unsealed_bytes += writes.iter().map(|write| write.body.len()).sum::<usize>();
        let txn = TxnId { cluster: CLUSTER, epoch: 1, number: self.number };
        self.store.stage(txn, SubTxn::FIRST, writes).unwrap();
        self.store.commit(txn, CommitSeq(self.number), CommitMode::OnePhase).unwrap();
    }

    fn seal(&mut self, chunk: ChunkId) {
        self.store.seal(chunk).unwrap();
        self.unsealed_bytes = 0;
    }

    fn seal_when_due(&mut self, chunk: ChunkId) {
        if self.unsealed_bytes >= self.seal_bytes {
            self.seal(chunk);
            self.store.merge_due().unwrap();
        }
    }
}

fn field(id: ColumnId) -> Field {
    let data_type = match id {
        TIME => DataType::Int64,
        SERIES => DataType::Utf8,
        _ => DataType::Float64,
    };
    Field::new(format!("column_{id}"), data_type, true).with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
}

fn write(chunk: ChunkId, sort: &[ColumnId], columns: Vec<(ColumnId, ArrayRef)>) -> ChunkWrite {
    let schema = Schema::new(columns.iter().map(|(id, _)| field(*id)).collect::<Vec<_>>());
    let batch = RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
    let layout = ChunkLayout { table: TableId(16384), sort: sort.to_vec(), time: Some(TIME), keys: Vec::new() };
    ChunkWrite { chunk, layout, kind: WriteKind::Insert, body: proto::ipc::encode_body(&batch).unwrap() }
}

fn scan(store: &Store, chunk: ChunkId, ids: &[ColumnId], predicates: Vec<ColumnPredicate>) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    each(store, chunk, ids, predicates, |batch| batches.push(batch));
    batches
}

fn each(
    store: &Store,
    chunk: ChunkId,
    ids: &[ColumnId],
    predicates: Vec<ColumnPredicate>,
    visit: impl FnMut(RecordBatch),
) {
    let columns = ids.iter().map(|id| ScanColumn { id: *id, field: field(*id), missing: None }).collect();
    let (snapshot, batch_rows) = (CommitSeq(u64::MAX), 64 << 10);
    let request = ScanRequest {
        chunk,
        snapshot,
        txn: None,
        columns,
        predicates,
        latest: None,
        batch_rows,
        tally: Arc::default(),
    };
    store.scan(request).unwrap().map(|batch| batch.unwrap()).for_each(visit);
}

fn at(time: i64) -> ColumnPredicate {
    let value = Some(Scalar::Int(time));
    ColumnPredicate { column: TIME, kind: PredicateKind::Range { min: value.clone(), max: value } }
}

/// Positions in a segment, counts of a chunk, and sums over both.
fn rows(divisor: u64) -> Cliff {
    const BATCH: i64 = 1 << 20;
    let total = ((1i64 << 31) / divisor as i64 / BATCH + 2) * BATCH;
    let chunk = ChunkId(1);
    measured(
        divisor,
        format!("{total} rows"),
        |writer| {
            for start in (0..total).step_by(BATCH as usize) {
                let times = Arc::new(Int64Array::from_iter_values(start..start + BATCH));
                writer.commit(vec![write(chunk, &[TIME], vec![(TIME, times)])]);
                writer.seal_when_due(chunk);
            }
        },
        |store| {
            let (mut count, mut sum) = (0i64, 0i128);
            each(store, chunk, &[TIME], vec![], |batch| {
                count += batch.num_rows() as i64;
                let times = batch.column(0).as_primitive::<Int64Type>();
                sum += times.values().iter().map(|time| i128::from(*time)).sum::<i128>();
            });
            assert_eq!((count, sum), (total, i128::from(total) * i128::from(total - 1) / 2));
            assert_eq!(store.chunk_stats(&[chunk]).unwrap()[0].rows, total as u64);
            for time in [0, total / 2, total - BATCH - 1, total - 1] {
                let found = scan(store, chunk, &[TIME], vec![at(time)]);
                let times = found.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().iter());
                assert_eq!(times.filter(|found| **found == time).count(), 1, "time {time}");
            }
        },
    )
}

/// Numbers of chunks, and what a store keeps of each. Most stay in the log: the manifest is replaced with every seal.
fn chunks(divisor: u64) -> Cliff {
    const PER_TXN: u32 = 500;
    let total = (70_000 / divisor as u32 / PER_TXN + 1) * PER_TXN;
    let sealed = |chunk: u32| chunk.is_multiple_of(70);
    measured(
        divisor,
        format!("{total} chunks"),
        |writer| {
            for first in (1..=total).step_by(PER_TXN as usize) {
                let of = |chunk: u32| {
                    let times = Arc::new(Int64Array::from(vec![i64::from(chunk), -i64::from(chunk)]));
                    write(ChunkId(chunk), &[TIME], vec![(TIME, times)])
                };
                writer.commit((first..first + PER_TXN).map(of).collect());
            }
            (1..=total).filter(|chunk| sealed(*chunk)).for_each(|chunk| writer.seal(ChunkId(chunk)));
            writer.store.drop_chunks(&[ChunkId(1), ChunkId(total)]).unwrap();
        },
        |store| {
            assert_eq!(store.chunks().len() as u32, total - 2);
            for chunk in 2..total {
                let found = scan(store, ChunkId(chunk), &[TIME], vec![]);
                let times = found.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().iter());
                let mut times = times.copied().collect::<Vec<_>>();
                times.sort();
                assert_eq!(times, [-i64::from(chunk), i64::from(chunk)], "chunk {chunk}");
            }
            let stats = store.chunk_stats(&[ChunkId(70), ChunkId(71)]).unwrap();
            assert_eq!(stats.iter().map(|stats| stats.segments).collect::<Vec<_>>(), [1, 0]);
        },
    )
}

/// Footers, and everything that is done once per column.
fn columns(divisor: u64) -> Cliff {
    const BATCHES: i64 = 10;
    const BATCH: i64 = 100;
    let total = 10_000 / divisor as u32;
    let chunk = ChunkId(1);
    let ids = || (0..total).map(|column| ColumnId(3 + column));
    let value = |time: i64, id: ColumnId| time as f64 + f64::from(id.0) / 8.0;
    measured(
        divisor,
        format!("{total} columns"),
        |writer| {
            for start in (0..BATCHES * BATCH).step_by(BATCH as usize) {
                let times = start..start + BATCH;
                let values = ids().map(|id| {
                    let values = Float64Array::from_iter_values(times.clone().map(|time| value(time, id)));
                    (id, Arc::new(values) as ArrayRef)
                });
                let time: ArrayRef = Arc::new(Int64Array::from_iter_values(times.clone()));
                writer.commit(vec![write(chunk, &[TIME], [(TIME, time)].into_iter().chain(values).collect())]);
                if start % (2 * BATCH) == 0 {
                    writer.seal(chunk);
                }
            }
            writer.store.merge_due().unwrap();
        },
        |store| {
            let all = [TIME].into_iter().chain(ids()).collect::<Vec<_>>();
            let mut rows = 0;
            each(store, chunk, &all, vec![], |batch| {
                rows += batch.num_rows() as i64;
                let times = batch.column(0).as_primitive::<Int64Type>();
                for (id, column) in all.iter().zip(batch.columns()).skip(1) {
                    let values = column.as_primitive::<arrow::datatypes::Float64Type>();
                    assert!((0..times.len()).all(|row| values.value(row) == value(times.value(row), *id)), "{id}");
                }
            });
            assert_eq!(rows, BATCHES * BATCH);
        },
    )
}

/// Dictionaries, sorting, and finding one series among them.
fn series(divisor: u64) -> Cliff {
    const ROUNDS: i64 = 4;
    const BATCH: u64 = 250_000;
    let (total, chunk) = (1_000_000 / divisor, ChunkId(1));
    let name = |series: u64| format!("series_{:07}", series * 7_919 % total);
    measured(
        divisor,
        format!("{total} series"),
        |writer| {
            for (round, first) in
                (0..ROUNDS).flat_map(|round| (0..total).step_by(BATCH as usize).map(move |at| (round, at)))
            {
                let batch = first..(first + BATCH).min(total);
                let names = StringArray::from_iter_values(batch.clone().map(name));
                let times = Int64Array::from(vec![round; (batch.end - batch.start) as usize]);
                let columns: Vec<(ColumnId, ArrayRef)> = vec![(TIME, Arc::new(times)), (SERIES, Arc::new(names))];
                writer.commit(vec![write(chunk, &[SERIES, TIME], columns)]);
                writer.seal(chunk);
            }
            while writer.store.merge_due().unwrap() > 0 {}
        },
        |store| {
            let mut names = Vec::new();
            each(store, chunk, &[SERIES], vec![], |batch| {
                names.extend(batch.column(0).as_string::<i32>().iter().map(|name| name.unwrap().to_owned()));
            });
            assert_eq!(names.len() as u64, total * ROUNDS as u64);
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len() as u64, total, "every series is there");
            for series in [0, 1, total / 2, total - 1] {
                let wanted = name(series);
                let kind = PredicateKind::OneOf(vec![Scalar::Text(wanted.clone())]);
                let found = scan(store, chunk, &[TIME, SERIES], vec![ColumnPredicate { column: SERIES, kind }]);
                let mut times = Vec::new();
                for batch in &found {
                    let (time, series) =
                        (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
                    times.extend(
                        (0..batch.num_rows()).filter(|row| series.value(*row) == wanted).map(|row| time.value(row)),
                    );
                }
                times.sort_unstable();
                assert_eq!(times, (0..ROUNDS).collect::<Vec<_>>(), "{wanted}");
            }
        },
    )
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let bytes = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => bytes_below(&entry.path()),
        false => entry.metadata().unwrap().len(),
    });
    bytes.sum()
}

/// From here on `peak_memory_mib` counts anew, where the kernel lets us.
fn forget_peak_memory() {
    std::fs::write("/proc/self/clear_refs", "5").ok();
}

fn peak_memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
