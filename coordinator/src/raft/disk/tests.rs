//! What comes back after a start. Crashes in the middle are the simulation's.

use super::*;
use raft::prelude::Entry;
use storage::SimVfs;

const DIR: &str = "/raft";

fn open(vfs: &SimVfs) -> (Disk, Entries) {
    let genesis = || Genesis { member: 2, incarnation: 5, voters: vec![1, 2, 3], state: Bytes::from_static(b"new") };
    Disk::open(Arc::new(vfs.clone()), Path::new(DIR), LogOptions::default(), genesis).unwrap()
}

fn persist(term: u64, commit: u64, indexes: std::ops::Range<u64>) -> Persist {
    let entry = |index| Entry { index, term, data: format!("{index} of {term}").into(), ..Entry::default() };
    Persist {
        number: 1,
        state: HardState { term, vote: 2, commit, ..HardState::default() },
        entries: indexes.map(entry).collect(),
        snapshot: None,
        must_sync: true,
        changed: true,
    }
}

/// Writes it as a member would, and keeps `entries` level.
fn write(disk: &mut Disk, entries: &mut Entries, persist: &Persist) {
    let _ = disk.write(persist).unwrap();
    persist.entries.iter().for_each(|entry| entries.push(entry.clone()));
    entries.state = persist.state.clone();
}

#[test]
fn everything_written_comes_back() {
    let vfs = SimVfs::new(1);
    let (mut disk, mut entries) = open(&vfs);
    assert_eq!(
        (entries.voters(), entries.snapshot_index(), &entries.snapshot_state()[..]),
        (&[1, 2, 3][..], 1, &b"new"[..])
    );
    write(&mut disk, &mut entries, &persist(4, 1, 2..8));
    write(&mut disk, &mut entries, &persist(5, 5, 6..7));
    drop(disk);
    vfs.restart();
    let (disk, found) = open(&vfs);
    assert_eq!((disk.member(), found.last(), found.term_of(5), found.term_of(6)), (2, 6, Some(4), Some(5)));
    assert_eq!(found.state, entries.state);
}

#[test]
fn a_snapshot_takes_the_place_of_its_entries_and_of_those_they_replaced() {
    let vfs = SimVfs::new(2);
    let (mut disk, mut entries) = open(&vfs);
    // A long tail of term 4 that another leader's entries replace at its beginning.
    write(&mut disk, &mut entries, &persist(4, 1, 2..20));
    write(&mut disk, &mut entries, &persist(5, 5, 3..6));
    disk.compact(&entries, 5, Bytes::from_static(b"five")).unwrap();
    drop(disk);
    vfs.kill_process();
    let (mut disk, mut found) = open(&vfs);
    assert_eq!((found.snapshot_index(), &found.snapshot_state()[..], found.last()), (5, &b"five"[..], 5));
    write(&mut disk, &mut found, &persist(6, 5, 6..8));
    drop(disk);
    vfs.kill_process();
    let (_, found) = open(&vfs);
    assert_eq!((found.last(), found.term_of(6), found.term_of(5)), (7, Some(6), Some(5)));
}

#[test]
fn a_member_has_its_directory_for_itself_and_reads_its_own_format_only() {
    let vfs = SimVfs::new(3);
    let (disk, _) = open(&vfs);
    let genesis = || unreachable!("the directory is there");
    let again = || Disk::open(Arc::new(vfs.clone()), Path::new(DIR), LogOptions::default(), genesis).err().unwrap();
    assert!(matches!(again(), StorageError::Locked { .. }));
    drop(disk);
    let path = Path::new(DIR).join(SNAPSHOT_FILE);
    let whole = vfs.contents(&path).unwrap();
    let mut older = whole.clone();
    older[8] = 3;
    vfs.set_contents(&path, &older);
    assert_eq!(again().to_string(), "\"/raft/CATALOG\" has format version 3, this build reads version 4");
    // Every bit behind the version is checked.
    for bit in (12 * 8)..(whole.len() as u64 * 8) {
        vfs.set_contents(&path, &whole);
        vfs.flip_bit(&path, bit);
        assert!(matches!(again(), StorageError::Damaged { .. }), "bit {bit}");
    }
    vfs.set_contents(&path, &whole);
    vfs.remove(&path).unwrap();
    assert!(again().to_string().contains("a log but no catalog file"));
}
