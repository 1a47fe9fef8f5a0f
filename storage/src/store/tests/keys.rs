//! Unique keys: what collides, what does not, who waits, and what is read for it.

use super::*;
use arrow::array::Int32Array;
use proto::{SqlState, UniqueKey};

fn keyed(chunk: u32, rows: &[Row]) -> ChunkWrite {
    let mut write = write(chunk, rows);
    write.layout.keys = vec![UniqueKey { name: "readings_pkey".to_owned(), columns: vec![HOST, TIME] }];
    write
}

fn add(store: &Store, number: u64, rows: &[Row]) -> Result<()> {
    store.stage(txn(number), SubTxn::FIRST, vec![keyed(1, rows)])?;
    store.commit(txn(number), CommitSeq(number), CommitMode::OnePhase)
}

fn code<T>(result: Result<T>) -> SqlState {
    proto::Error::from(result.err().expect("refused")).code
}

fn address(store: &Store, number: i64) -> Address {
    let found = addressed(store, request(1, u64::MAX)).unwrap();
    found.into_iter().find(|(row, _)| row.number == Some(number)).unwrap().1
}

#[test]
fn a_key_is_there_once_wherever_its_row_is() {
    let vfs = SimVfs::new(1);
    let mut store = open(&vfs);
    add(&store, 1, &[row(1_577_836_800_000_000, "a", 1.0, 1), row(1, "b", 1.0, 2)]).unwrap();
    for (round, number) in [(0, 10), (1, 11), (2, 12)] {
        let error = add(&store, number, &[row(7, "c", 1.0, 3), row(1_577_836_800_000_000, "a", 2.0, 4)]).unwrap_err();
        let error = proto::Error::from(error);
        assert_eq!(error.code, SqlState::UNIQUE_VIOLATION);
        assert_eq!(error.message, "duplicate key value violates unique constraint \"readings_pkey\"");
        assert_eq!(error.detail.unwrap(), "Key (host, time)=(a, 2020-01-01 00:00:00+00) already exists.");
        store.abort(txn(number)).unwrap();
        match round {
            0 => {
                std::mem::forget(store);
                vfs.restart();
                store = try_open(&vfs).unwrap();
            }
            _ => drop(store.seal(ChunkId(1)).unwrap()),
        }
    }
    add(&store, 20, &[row(2, "a", 1.0, 5), row(1, "a", 1.0, 6)]).unwrap();
    let fraction = add(&store, 21, &[row(2, "a", 1.0, 7)]).unwrap_err();
    let detail = proto::Error::from(fraction).detail.unwrap();
    assert_eq!(detail, "Key (host, time)=(a, 1970-01-01 00:00:00.000002+00) already exists.");
}

#[test]
fn null_equals_nothing() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let none = |number| Row { host: None, ..row(1, "", 1.0, number) };
    add(&store, 1, &[none(1), none(2)]).unwrap();
    add(&store, 2, &[none(3)]).unwrap();
    store.seal(ChunkId(1)).unwrap();
    add(&store, 3, &[none(4)]).unwrap();
    assert_eq!(read(&store, 1, 3).unwrap().len(), 4);
}

#[test]
fn rows_of_one_transaction_must_differ_too() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let same = [row(1, "a", 1.0, 1), row(1, "a", 2.0, 2)];
    assert_eq!(code(store.stage(txn(1), SubTxn::FIRST, vec![keyed(1, &same)])), SqlState::UNIQUE_VIOLATION);
    let halves = same.each_ref().map(|row| keyed(1, std::slice::from_ref(row)));
    assert_eq!(code(store.stage(txn(2), SubTxn::FIRST, halves.to_vec())), SqlState::UNIQUE_VIOLATION);
    store.abort(txn(1)).unwrap();
    store.abort(txn(2)).unwrap();
    store.stage(txn(3), SubTxn::FIRST, vec![halves[0].clone()]).unwrap();
    assert_eq!(code(store.stage(txn(3), SubTxn::FIRST, vec![halves[1].clone()])), SqlState::UNIQUE_VIOLATION);
    store.abort(txn(3)).unwrap();
    let elsewhere = ChunkWrite { chunk: ChunkId(2), ..halves[1].clone() };
    store.stage(txn(4), SubTxn::FIRST, vec![halves[0].clone(), elsewhere]).unwrap();
}

#[test]
fn an_update_removes_the_key_it_adds() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    add(&store, 1, &[row(1, "a", 1.0, 1)]).unwrap();
    for (number, old) in [(2, 1), (3, 2), (4, 3)] {
        let gone = removal(1, &[address(&store, old)]);
        let new = keyed(1, &[row(1, "a", number as f64, number as i64)]);
        match number {
            2 => store.stage(txn(number), SubTxn::FIRST, vec![gone, new]).unwrap(),
            _ => {
                store.stage(txn(number), SubTxn::FIRST, vec![gone]).unwrap();
                store.stage(txn(number), SubTxn::FIRST, vec![new]).unwrap();
            }
        }
        store.commit(txn(number), CommitSeq(number), CommitMode::OnePhase).unwrap();
        store.seal(ChunkId(1)).unwrap();
    }
    assert_eq!(read(&store, 1, 4).unwrap(), [row(1, "a", 4.0, 4)]);
    assert_eq!(code(add(&store, 5, &[row(1, "a", 9.0, 9)])), SqlState::UNIQUE_VIOLATION);
}

#[test]
fn an_open_transaction_holds_its_keys_until_it_ends() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    store.stage(txn(1), SubTxn::FIRST, vec![keyed(1, &[row(1, "a", 1.0, 1)])]).unwrap();
    assert_eq!(
        code(store.stage(txn(2), SubTxn::FIRST, vec![keyed(1, &[row(1, "a", 2.0, 2)])])),
        SqlState::LOCK_NOT_AVAILABLE
    );
    store.abort(txn(1)).unwrap();
    add(&store, 3, &[row(1, "a", 3.0, 3)]).unwrap();
    // Whether the key is free depends on how the remover ends.
    store.stage(txn(4), SubTxn::FIRST, vec![removal(1, &[address(&store, 3)])]).unwrap();
    assert_eq!(
        code(store.stage(txn(5), SubTxn::FIRST, vec![keyed(1, &[row(1, "a", 2.0, 2)])])),
        SqlState::LOCK_NOT_AVAILABLE
    );
    store.commit(txn(4), CommitSeq(4), CommitMode::OnePhase).unwrap();
    add(&store, 6, &[row(1, "a", 6.0, 6)]).unwrap();
}

#[test]
fn of_many_that_race_for_a_key_one_wins() {
    let vfs = SimVfs::new(1);
    let options = StoreOptions { lock_wait_max: Duration::from_secs(60), ..options() };
    let store = try_open_with(&vfs, options).unwrap();
    store.attach(identity()).unwrap();
    for key in 0..20 {
        let won = std::thread::scope(|scope| {
            let store = &store;
            let racers = (1..=4).map(|racer| {
                scope.spawn(move || {
                    let number = key * 10 + racer;
                    match store.stage(
                        txn(number),
                        SubTxn::FIRST,
                        vec![keyed(1, &[row(key as i64, "a", 1.0, number as i64)])],
                    ) {
                        Ok(()) => store.commit(txn(number), CommitSeq(number), CommitMode::OnePhase).unwrap(),
                        Err(StorageError::Duplicate { .. }) => return 0,
                        Err(error) => panic!("{error}"),
                    }
                    1
                })
            });
            let racers = racers.collect::<Vec<_>>();
            if key % 5 == 0 {
                store.seal(ChunkId(1)).unwrap();
            }
            racers.into_iter().map(|racer| racer.join().unwrap()).sum::<u32>()
        });
        assert_eq!(won, 1, "key {key}");
    }
    assert_eq!(read(&store, 1, u64::MAX).unwrap().len(), 20);
}

#[test]
fn rows_in_time_order_read_no_segment() {
    let vfs = SimVfs::new(1);
    let store = open(&vfs);
    let hour =
        |hour: i64| (0..500).map(|i| row(hour * 1000 + i, &format!("host_{}", i % 9), 1.0, i)).collect::<Vec<_>>();
    for number in 1..=3 {
        add(&store, number, &hour(number as i64)).unwrap();
        store.seal(ChunkId(1)).unwrap();
    }
    let segments = vfs.list(&Path::new(DIR).join(SEGMENTS_DIR)).unwrap();
    assert_eq!(segments.len(), 3);
    for name in &segments {
        vfs.flip_bit(&Path::new(DIR).join(SEGMENTS_DIR).join(name), 999);
    }
    add(&store, 4, &hour(4)).unwrap();
    assert_eq!(code(add(&store, 5, &hour(2))), SqlState::DATA_CORRUPTED, "out of order it must read");
}

#[test]
fn keys_of_many_types_collide_as_sql_has_it() {
    use crate::keys::KeyRows;
    let rows = |values: Vec<Option<f64>>| KeyRows::new(vec![Arc::new(Float64Array::from(values))]).unwrap();
    let new = rows(vec![Some(0.0), Some(f64::NAN), Some(1.5), None]);
    let old = rows(vec![Some(-0.0), Some(-f64::NAN), Some(2.5), None]);
    let mut same = new.matches(&old).unwrap();
    same.sort();
    assert_eq!(same, [(0, 0), (1, 1)]);
    let narrow = Arc::new(KeyRows::new(vec![Arc::new(Int32Array::from(vec![7, 8]))]).unwrap());
    let wide = KeyRows::new(vec![Arc::new(Int64Array::from(vec![8]))]).unwrap();
    assert_eq!(wide.matches(&narrow.with_types_of(&wide).unwrap()).unwrap(), [(0, 1)]);
}

/// Under memory pressure a transaction loses its removals; its successor of a removed row is no duplicate of that row.
#[test]
fn an_update_that_lost_its_removal_is_told_to_try_again() {
    let vfs = SimVfs::new(1);
    let clock = Arc::new(TestClock(AtomicU64::new(0)));
    let store = open_at(&vfs, StoreOptions { delta_bytes_max: 64 << 10, ..options() }, &clock).unwrap();
    store.attach(identity()).unwrap();
    add(&store, 1, &[row(1, "a", 1.0, 1)]).unwrap();
    store.stage(txn(2), SubTxn::FIRST, vec![removal(1, &[address(&store, 1)])]).unwrap();
    let mut number = 10;
    while store.core.state.lock().bytes <= 32 << 10 {
        number += 1;
        let rows = (0..100).map(|i| row(number as i64 * 1000 + i, "b", 1.0, number as i64 * 1000 + i));
        add(&store, number, &rows.collect::<Vec<_>>()).unwrap();
    }
    assert_eq!(store.seal_due().unwrap(), 1);
    let successor = store.stage(txn(2), SubTxn::FIRST, vec![keyed(1, &[row(1, "a", 2.0, 1)])]);
    assert_eq!(code(successor), SqlState::SERIALIZATION_FAILURE);
}
