//! What a scan returns: projection, columns that came later, pruning, counts, drops.

use super::*;
use arrow::array::Int32Array;
use proto::{PredicateKind, Scalar, WriteKind};

fn many(rows_count: i64) -> Vec<Row> {
    (0..rows_count).map(|i| row(i * 7919 % rows_count, &format!("host_{:02}", i % 50), (i % 100) as f64, i)).collect()
}

#[test]
fn sealed_rows_respect_snapshots() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    for seq in [3, 1, 2] {
        insert(&store, seq, seq, 1, &[row(seq as i64, "a", 0.5, seq as i64)]).unwrap();
    }
    for sealed in [false, true] {
        let counts = (0..5).map(|snapshot| read(&store, 1, snapshot).unwrap().len()).collect::<Vec<_>>();
        assert_eq!(counts, [0, 1, 2, 3, 3], "sealed: {sealed}");
        store.seal(ChunkId(1)).unwrap();
    }
}

#[test]
fn a_segment_is_sorted_by_host_and_time_with_nulls_last() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let mut rows = many(3000);
    rows.push(Row { time: 1, host: None, value: None, number: None });
    insert(&store, 1, 1, 1, &rows).unwrap();
    store.seal(ChunkId(1)).unwrap();
    let found = rows_of(store.scan(request(1, 1)).unwrap()).unwrap();
    rows.sort_by_key(|row| (row.host.is_none(), row.host.clone(), row.time));
    assert_eq!(found, rows);
}

#[test]
fn a_scan_without_columns_counts_rows() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &many(2500)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    insert(&store, 2, 2, 1, &many(1500)).unwrap();
    for (snapshot, expected) in [(2, 4000), (1, 2500), (0, 0)] {
        let mut count = request(1, snapshot);
        count.columns.clear();
        let batches = store.scan(count).unwrap().collect::<Result<Vec<_>>>().unwrap();
        assert!(batches.iter().all(|batch| batch.num_columns() == 0));
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), expected);
    }
}

#[test]
fn many_small_writes_make_few_batches() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    (1..=300).for_each(|n| insert(&store, n, n, 1, &many(10)).unwrap());
    let batches = store.scan(request(1, 300)).unwrap().collect::<Result<Vec<_>>>().unwrap();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).collect::<Vec<_>>(), [1000, 1000, 1000]);
}

#[test]
fn columns_are_matched_by_id_cast_and_filled_in() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let added = ColumnId(9);
    insert(&store, 1, 1, 1, &[row(1, "a", 1.5, 1)]).unwrap();
    let schema = Schema::new(vec![
        field(TIME),
        Field::new("added", DataType::Int32, true).with_metadata([(FIELD_ID.to_owned(), "9".to_owned())].into()),
    ]);
    let times = TimestampMicrosecondArray::from(vec![2]).with_timezone("UTC");
    let batch =
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times), Arc::new(Int32Array::from(vec![7]))]).unwrap();
    let newer = ChunkWrite {
        chunk: ChunkId(1),
        layout: layout(),
        kind: WriteKind::Insert,
        body: proto::ipc::encode_body(&batch).unwrap(),
    };
    store.stage(txn(2), SubTxn::FIRST, vec![newer]).unwrap();
    store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap();

    for sealed in [false, true] {
        let mut scan = request(1, 2);
        let renamed = Field::new("renamed", DataType::Int64, true);
        let missing: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![42]));
        scan.columns = vec![
            ScanColumn { id: added, field: renamed, missing: Some(missing) },
            ScanColumn { id: VALUE, field: Field::new("v", DataType::Float32, true), missing: None },
        ];
        let batches = store.scan(scan).unwrap().collect::<Result<Vec<_>>>().unwrap();
        let schema = batches[0].schema();
        assert_eq!(schema.field(0).name(), "renamed");
        let mut pairs = batches.iter().flat_map(|batch| {
            let (a, b) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1));
            let b = b.as_primitive::<arrow::datatypes::Float32Type>();
            (0..batch.num_rows()).map(move |at| (a.value(at), b.is_valid(at).then(|| b.value(at)))).collect::<Vec<_>>()
        });
        let mut pairs = pairs.by_ref().collect::<Vec<_>>();
        pairs.sort_by_key(|pair| pair.0);
        assert_eq!(pairs, [(7, None), (42, Some(1.5))], "sealed: {sealed}");
        store.seal(ChunkId(1)).unwrap();
    }
}

#[test]
fn predicates_skip_pages_and_never_a_matching_row() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let rows = many(100_000);
    insert(&store, 1, 1, 1, &rows).unwrap();
    store.seal(ChunkId(1)).unwrap();
    let scan = |predicates: Vec<ColumnPredicate>| {
        rows_of(store.scan(ScanRequest { predicates, ..request(1, 1) }).unwrap()).unwrap()
    };
    let one_of = |column, values| ColumnPredicate { column, kind: PredicateKind::OneOf(values) };
    let host = one_of(HOST, vec![Scalar::Text("host_07".to_owned())]);
    let found = scan(vec![host.clone()]);
    assert_eq!(found.iter().filter(|row| row.host.as_deref() == Some("host_07")).count(), 2000);
    assert!(found.len() < 20_000, "{} rows read for one host of 50", found.len());

    let float = |value| Some(Scalar::Float(value));
    assert!(scan(vec![range(VALUE, float(99.5), None)]).is_empty());
    let found = scan(vec![range(VALUE, float(99.0), None)]);
    assert_eq!(found.iter().filter(|row| f64::from_bits(row.value.unwrap()) >= 99.0).count(), 1000);
    assert!(scan(vec![one_of(HOST, vec![Scalar::Text("zebra".to_owned())])]).is_empty());
    let early = range(TIME, None, Some(Scalar::Int(99)));
    let found = scan(vec![host, early]);
    let inside = |row: &&Row| row.host.as_deref() == Some("host_07") && row.time <= 99;
    assert_eq!(found.iter().filter(inside).count(), rows.iter().filter(inside).count());
    assert_eq!(scan(vec![range(TIME, Some(Scalar::Float(1e9)), None)]).len(), 100_000, "an unlike value skips nothing");
}

/// Cut anywhere, a chunk's rows are each in one piece: sealed, removed, and not sealed yet.
#[test]
fn pieces_of_a_scan_are_the_scan() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &many(50_000)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    let addresses = addressed(&store, request(1, 1)).unwrap().into_iter().map(|(_, at)| at);
    let removed = addresses.step_by(7).collect::<Vec<_>>();
    store.stage(txn(2), SubTxn::FIRST, vec![removal(1, &removed)]).unwrap();
    store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap();
    insert(&store, 3, 3, 1, &many(3000)).unwrap();
    insert(&store, 4, 4, 1, &many(9000)).unwrap();
    let text = |text: &str| Some(Scalar::Text(text.to_owned()));
    for predicates in [vec![], vec![range(HOST, text("host_1"), text("host_3"))], vec![range(HOST, text("z"), None)]] {
        let scan = || store.scan(ScanRequest { predicates: predicates.clone(), ..request(1, 4) }).unwrap();
        let mut whole = rows_of(scan()).unwrap();
        whole.sort();
        for (most, rows_min) in [(1, 1), (2, 1), (3, 10_000), (5, 1), (64, 1000)] {
            let pieces = scan().cut(most, rows_min).unwrap();
            assert!(pieces.len() <= most && (pieces.len() == most || rows_min > 1 || whole.is_empty()));
            let mut rows = pieces.into_iter().flat_map(|piece| rows_of(piece).unwrap()).collect::<Vec<_>>();
            rows.sort();
            assert!(rows == whole, "{most} pieces: {} rows in place of {}", rows.len(), whole.len());
        }
    }
}

/// Every row of a chunk is either skipped for one reason, or left out after a look at it, or returned; whatever pieces
/// the scan is read in.
#[test]
fn what_a_scan_counts_adds_up() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &many(100_000)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    let addresses = addressed(&store, request(1, 1)).unwrap().into_iter().map(|(_, at)| at);
    store.stage(txn(2), SubTxn::FIRST, vec![removal(1, &addresses.step_by(9).collect::<Vec<_>>())]).unwrap();
    store.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).unwrap();
    insert(&store, 3, 3, 1, &[row(1, "new", 0.5, 1), row(2, "new", 1000.0, 2)]).unwrap();
    let text = |text: &str| Scalar::Text(text.to_owned());
    let one_host = ColumnPredicate { column: HOST, kind: PredicateKind::OneOf(vec![text("host_07")]) };
    for (predicates, least_skipped) in [
        (vec![], 0),
        (vec![range(HOST, Some(text("host_10")), Some(text("host_11")))], 90_000),
        (vec![one_host], 90_000),
        (vec![range(VALUE, Some(Scalar::Float(500.0)), None)], 100_000),
        (vec![range(TIME, Some(Scalar::Int(90_000)), None)], 0),
    ] {
        for most in [1, 3] {
            let scan = ScanRequest { predicates: predicates.clone(), ..request(1, 3) };
            let tally = Arc::clone(&scan.tally);
            let pieces = store.scan(scan).unwrap().cut(most, 1).unwrap();
            let returned = pieces.into_iter().map(|piece| rows_of(piece).unwrap().len() as u64).sum::<u64>();
            let totals = tally.totals();
            let skipped =
                totals.rows_skipped_by_statistics + totals.rows_skipped_by_bloom + totals.rows_skipped_by_series;
            assert_eq!(totals.rows_read + skipped, 100_000, "{totals:?}");
            assert!(skipped >= least_skipped, "{totals:?}");
            let in_memory = totals.memory_rows - totals.memory_rows_skipped;
            assert_eq!(totals.rows_read - totals.rows_filtered + in_memory, returned, "{totals:?}");
            assert_eq!((totals.memory_rows, totals.segments_opened, totals.chunks_opened), (2, 1, 1));
            assert_eq!(totals.segments_read, u64::from(totals.rows_read > 0));
            assert_eq!(totals.bytes_read > 0, totals.rows_read > 0, "{totals:?}");
            assert!(totals.bytes_remembered > 0, "the segment is open: {totals:?}");
        }
    }
}

#[test]
fn a_nan_is_above_every_bound() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &[row(1, "a", f64::NAN, 1), row(2, "a", 1.0, 2)]).unwrap();
    store.seal(ChunkId(1)).unwrap();
    let predicates = vec![range(VALUE, Some(Scalar::Float(5.0)), None)];
    let found = rows_of(store.scan(ScanRequest { predicates, ..request(1, 1) }).unwrap()).unwrap();
    assert!(found.iter().any(|row| row.number == Some(1)));
}

#[test]
fn a_drop_does_not_disturb_a_scan_and_closes_the_chunk() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &many(5000)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    insert(&store, 2, 2, 1, &many(100)).unwrap();
    let scan = store.scan(request(1, 2)).unwrap();
    store.drop_chunks(&[ChunkId(1), ChunkId(77)]).unwrap();
    store.drop_chunks(&[ChunkId(1)]).unwrap();
    assert_eq!(rows_of(scan).unwrap().len(), 5100);
    let error = proto::Error::from(store.scan(request(1, 2)).err().unwrap());
    assert_eq!((error.code, error.message.as_str()), (proto::SqlState::SERIALIZATION_FAILURE, "chunk 1 was dropped"));
    assert!(store.stage(txn(3), SubTxn::FIRST, vec![write(1, &many(1))]).is_err());
    assert!(store.chunk_stats(&[ChunkId(1)]).unwrap().is_empty());
    assert!(vfs.list(&Path::new(DIR).join(SEGMENTS_DIR)).unwrap().is_empty());
    vfs.restart();
    let store = try_open(&vfs).unwrap();
    assert!(matches!(store.scan(request(1, 2)), Err(StorageError::ChunkDropped(_))));
}

#[test]
fn the_real_disk_keeps_what_the_simulated_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let (clock, rng) = (Arc::new(TestClock(AtomicU64::new(0))), Arc::new(TestRng(AtomicU64::new(77))));
        Store::open(Arc::new(crate::RealVfs), clock, rng, dir.path(), options())
    };
    let store = open().unwrap();
    assert!(matches!(open(), Err(StorageError::Locked { .. })));
    store.attach(identity()).unwrap();
    insert(&store, 1, 1, 1, &many(3000)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    insert(&store, 2, 2, 1, &many(200)).unwrap();
    let before = read(&store, 1, 2).unwrap();
    drop(store);
    assert_eq!(read(&open().unwrap(), 1, 2).unwrap(), before);
    assert_eq!(crate::verify(&crate::RealVfs, dir.path()), []);
}

#[test]
fn stats_count_rows_and_bytes() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &many(1000)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    insert(&store, 2, 2, 1, &many(10)).unwrap();
    let stats = store.chunk_stats(&[ChunkId(1), ChunkId(2)]).unwrap();
    let file = vfs.list(&Path::new(DIR).join(SEGMENTS_DIR)).unwrap().remove(0);
    let bytes = vfs.contents(&Path::new(DIR).join(SEGMENTS_DIR).join(file)).unwrap().len() as u64;
    assert_eq!(stats.len(), 1);
    assert_eq!((stats[0].rows, stats[0].segments, stats[0].disk_bytes), (1010, 1, bytes));
    assert!(stats[0].delta_bytes > 0);
}

#[test]
fn a_column_that_cannot_be_sealed_is_refused_at_once() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let id = |id: &str| [(FIELD_ID.to_owned(), id.to_owned())].into();
    let fields =
        vec![field(TIME), Field::new("d", DataType::Duration(TimeUnit::Microsecond), true).with_metadata(id("5"))];
    let times = TimestampMicrosecondArray::from(vec![2]).with_timezone("UTC");
    let durations = arrow::array::DurationMicrosecondArray::from(vec![2]);
    let batch =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(times), Arc::new(durations)]).unwrap();
    let bad = ChunkWrite {
        chunk: ChunkId(1),
        layout: layout(),
        kind: WriteKind::Insert,
        body: proto::ipc::encode_body(&batch).unwrap(),
    };
    assert!(matches!(store.stage(txn(1), SubTxn::FIRST, vec![bad]), Err(StorageError::Unsupported(_))));
    let noise = ChunkWrite {
        chunk: ChunkId(1),
        layout: layout(),
        kind: WriteKind::Insert,
        body: bytes::Bytes::from_static(b"no batch"),
    };
    assert!(matches!(store.stage(txn(1), SubTxn::FIRST, vec![noise]), Err(StorageError::BadWrite(_))));
}

#[test]
fn a_segment_can_be_told_as_text() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &many(1000)).unwrap();
    store.seal(ChunkId(1)).unwrap();
    let path = Path::new(DIR).join(SEGMENTS_DIR).join("1-1.parquet");
    let text = crate::dump_segment(&vfs, &path).unwrap();
    let lines = text.lines().collect::<Vec<_>>();
    assert!(lines[0].starts_with("1000 rows, "), "{text}");
    assert_eq!(lines[1], "sorted by: host, time");
    assert!(lines[2].starts_with("row group 0: 1000 rows, "), "{text}");
    let ids = lines[4..].iter().map(|line| line.split(" | ").take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(ids, ["time 1", "host 2", "value 3", "number 4", "__seq -"]);
    vfs.set_contents(&path, b"no segment");
    assert!(matches!(crate::dump_segment(&vfs, &path), Err(StorageError::Damaged { .. })));
}
