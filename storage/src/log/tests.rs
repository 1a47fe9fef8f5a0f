//! The log by itself: what survives a power cut, what is told from damage, who waits for whom.

use super::*;
use crate::vfs::{Fault, SimVfs};

const DIR: &str = "/log";

fn open(vfs: &SimVfs, segment_bytes_max: u64) -> Result<(Log, Vec<Vec<u8>>)> {
    let mut seen = Vec::new();
    let log = Log::open(
        Arc::new(vfs.clone()),
        Path::new(DIR),
        LogOptions { segment_bytes_max, ..Default::default() },
        &mut |_, bytes| {
            seen.push(bytes.to_vec());
            Ok(())
        },
    )?;
    Ok((log, seen))
}

fn payload(number: usize) -> Vec<u8> {
    vec![number as u8 + 1; 1 + number * 37 % 300]
}

fn last_file(vfs: &SimVfs) -> PathBuf {
    Path::new(DIR).join(vfs.list(Path::new(DIR)).unwrap().pop().unwrap())
}

#[test]
fn records_come_back_in_order_over_many_files() {
    let vfs = SimVfs::new(1);
    let (log, seen) = open(&vfs, 1000).unwrap();
    assert!(seen.is_empty());
    let lsns = (0..50).map(|i| log.append(&[&payload(i)[..1], &payload(i)[1..]]).unwrap()).collect::<Vec<_>>();
    assert!(lsns.is_sorted());
    log.sync(lsns[49]).unwrap();
    drop(log);
    assert!(vfs.list(Path::new(DIR)).unwrap().len() > 5);
    vfs.restart();
    let (log, seen) = open(&vfs, 1000).unwrap();
    assert_eq!(seen, (0..50).map(payload).collect::<Vec<_>>());

    log.truncate_before(lsns[30]).unwrap();
    assert!(log.start() <= lsns[30] && log.start() > lsns[10]);
    let (_, seen) = open(&vfs, 1000).unwrap();
    assert!(seen.ends_with(&(30..50).map(payload).collect::<Vec<_>>()));
}

#[test]
fn whatever_was_synced_survives_any_crash_and_the_rest_is_a_prefix() {
    for seed in 0..400 {
        let vfs = SimVfs::new(seed);
        let (log, _) = open(&vfs, 2000).unwrap();
        let mut acknowledged = 0;
        vfs.set_fault(Fault::Crash(seed % 60));
        for i in 0..40 {
            let Ok(lsn) = log.append(&[&payload(i)]) else { break };
            if i % 3 == 0 {
                if log.sync(lsn).is_err() {
                    break;
                }
                acknowledged = i + 1;
            }
        }
        // Power may go again while the log recovers.
        for again in 0..3 {
            vfs.restart();
            vfs.set_fault(Fault::Crash(again));
            drop(open(&vfs, 2000));
        }
        vfs.restart();
        let (log, seen) = open(&vfs, 2000).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(seen.len() >= acknowledged, "seed {seed}: {} of {acknowledged}", seen.len());
        assert_eq!(seen, (0..seen.len()).map(payload).collect::<Vec<_>>(), "seed {seed}");
        let lsn = log.append(&[b"after"]).unwrap();
        log.sync(lsn).unwrap();
        assert_eq!(open(&vfs, 2000).unwrap().1.last().unwrap(), b"after");
    }
}

#[test]
fn a_file_torn_at_any_byte_keeps_the_whole_records_before() {
    let vfs = SimVfs::new(7);
    let (log, _) = open(&vfs, 1 << 20).unwrap();
    let ends = (0..8).map(|i| log.append(&[&payload(i)]).map(|_| log.end().0).unwrap()).collect::<Vec<_>>();
    let path = last_file(&vfs);
    let whole = vfs.contents(&path).unwrap();
    for cut in 0..whole.len() {
        vfs.set_contents(&path, &whole[..cut]);
        let (_, seen) = open(&vfs, 1 << 20).unwrap();
        assert_eq!(seen.len(), ends.iter().filter(|end| **end <= cut as u64).count(), "cut at {cut}");
    }
}

#[test]
fn every_flipped_bit_in_synced_records_is_an_error_that_names_the_file() {
    let vfs = SimVfs::new(7);
    let (log, _) = open(&vfs, 600).unwrap();
    (0..8).for_each(|i| assert!(log.append(&[&payload(i)]).is_ok()));
    log.mark().unwrap();
    let names = vfs.list(Path::new(DIR)).unwrap();
    assert!(names.len() > 2);
    for name in &names {
        let path = Path::new(DIR).join(name);
        let whole = vfs.contents(&path).unwrap();
        let protected = if name == names.last().unwrap() { whole.len() - 24 } else { whole.len() };
        for bit in 0..protected as u64 * 8 {
            vfs.flip_bit(&path, bit);
            let error = open(&vfs, 600).err().unwrap_or_else(|| panic!("bit {bit} of {name} went unnoticed"));
            assert!(error.to_string().contains(name.as_str()), "{error}");
            vfs.set_contents(&path, &whole);
        }
    }
}

#[test]
fn a_missing_or_swapped_file_is_an_error() {
    let vfs = SimVfs::new(7);
    let (log, _) = open(&vfs, 300).unwrap();
    (0..20).for_each(|i| assert!(log.append(&[&[i as u8; 100]]).is_ok()));
    log.mark().unwrap();
    let names = vfs.list(Path::new(DIR)).unwrap();
    let paths = names.iter().map(|name| Path::new(DIR).join(name)).collect::<Vec<_>>();
    let (first, second) = (vfs.contents(&paths[1]).unwrap(), vfs.contents(&paths[2]).unwrap());
    vfs.set_contents(&paths[1], &second);
    vfs.set_contents(&paths[2], &first);
    assert!(matches!(open(&vfs, 300), Err(StorageError::Damaged { .. })));
    vfs.set_contents(&paths[1], &first);
    vfs.set_contents(&paths[2], &second);
    open(&vfs, 300).unwrap();
    vfs.remove(&paths[1]).unwrap();
    assert!(matches!(open(&vfs, 300), Err(StorageError::Damaged { .. })));
}

#[test]
fn an_unsynced_record_lost_before_a_later_one_is_a_torn_tail() {
    let vfs = SimVfs::new(7);
    let (log, _) = open(&vfs, 1 << 20).unwrap();
    let kept = log.append(&[b"kept"]).unwrap();
    log.sync(kept).unwrap();
    let lost = log.append(&[&[1; 100]]).unwrap();
    log.append(&[&[2; 100]]).unwrap();
    vfs.flip_bit(&last_file(&vfs), (lost.0 + 40) * 8);
    assert_eq!(open(&vfs, 1 << 20).unwrap().1, [b"kept"]);
}

#[test]
fn a_failed_fsync_poisons() {
    let vfs = SimVfs::new(7);
    let (log, _) = open(&vfs, 1 << 20).unwrap();
    let lsn = log.append(&[b"x"]).unwrap();
    vfs.set_fault(Fault::SyncFails(0));
    assert!(matches!(log.sync(lsn), Err(StorageError::Io { .. })));
    assert!(matches!(log.sync(lsn), Err(StorageError::Poisoned(_))), "a second fsync would lie");
    assert!(matches!(log.append(&[b"y"]), Err(StorageError::Poisoned(_))));
    assert!(matches!(log.truncate_before(lsn), Err(StorageError::Poisoned(_))));
}

#[test]
fn what_a_failed_fsync_left_in_the_cache_does_not_vanish_under_later_records() {
    let vfs = SimVfs::new(8);
    let (log, _) = open(&vfs, 1 << 20).unwrap();
    log.sync(log.append(&[&payload(0)]).unwrap()).unwrap();
    vfs.set_fault(Fault::SyncFails(0));
    log.sync(log.append(&[&payload(1)]).unwrap()).unwrap_err();
    drop(log);
    vfs.heal();
    vfs.kill_process();
    // The process comes back and finds the record, which is not on disk.
    let (log, seen) = open(&vfs, 1 << 20).unwrap();
    assert_eq!(seen, (0..2).map(payload).collect::<Vec<_>>());
    log.sync(log.append(&[&payload(2)]).unwrap()).unwrap();
    drop(log);
    vfs.restart();
    assert_eq!(open(&vfs, 1 << 20).unwrap().1, (0..3).map(payload).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_adds_nothing_and_the_log_goes_on_when_space_returns() {
    for step in 0..30 {
        let vfs = SimVfs::new(step);
        let (log, _) = open(&vfs, 600).unwrap();
        vfs.set_fault(Fault::FullOnce(step));
        let mut written = Vec::new();
        let mut refused = 0;
        for i in 0..30 {
            match log.append(&[&payload(i)]) {
                Ok(_) => written.push(payload(i)),
                Err(error) => {
                    assert!(error.is_disk_full(), "{error}");
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 1, "step {step}");
        log.sync(log.end()).unwrap();
        vfs.restart();
        assert_eq!(open(&vfs, 600).unwrap().1, written, "step {step}");
    }
}

#[test]
fn one_fsync_serves_all_who_wait() {
    let vfs = SimVfs::new(7);
    let (log, _) = open(&vfs, 1 << 20).unwrap();
    let lsns = (0..100).map(|i| log.append(&[&payload(i)]).unwrap()).collect::<Vec<_>>();
    let before = vfs.files_synced();
    lsns.iter().rev().for_each(|lsn| log.sync(*lsn).unwrap());
    assert_eq!(vfs.files_synced() - before, 1);
}

#[test]
fn threads_append_and_sync_together() {
    let vfs = SimVfs::new(7);
    let (log, _) = open(&vfs, 4000).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let log = &log;
            scope.spawn(move || {
                for i in 0..100u8 {
                    let lsn = log.append(&[&[thread + 1, i]]).unwrap();
                    log.sync(lsn).unwrap();
                }
            });
        }
    });
    vfs.restart();
    let seen = open(&vfs, 4000).unwrap().1;
    for thread in 0..4u8 {
        let own = seen.iter().filter(|r| r[0] == thread + 1).map(|r| r[1]).collect::<Vec<_>>();
        assert_eq!(own, (0..100).collect::<Vec<_>>());
    }
}
