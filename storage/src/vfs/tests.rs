//! What every `Vfs` does alike, and what a simulated crash may do.

use super::*;
use std::collections::BTreeSet;

fn contract(vfs: &dyn Vfs, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    vfs.create_dir(dir).unwrap();
    vfs.create_dir(dir).unwrap();
    let file = vfs.create(&a).unwrap();
    assert_eq!(vfs.create(&a).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(vfs.open(&b).err().unwrap().kind(), io::ErrorKind::NotFound);
    file.append(&[b"", b"one", b"", b"two"]).unwrap();
    file.append(&[]).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(dir).unwrap();
    assert_eq!(read_all(vfs.open(&a).unwrap().as_ref()).unwrap(), b"onetwo");
    assert_eq!(file.read_at(4, &mut [0; 3]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    file.truncate(4).unwrap();
    file.append(&[b"!"]).unwrap();
    assert_eq!(read_all(file.as_ref()).unwrap(), b"onet!");

    vfs.create(&b).unwrap();
    vfs.rename(&a, &b).unwrap();
    assert_eq!(vfs.list(dir).unwrap(), ["b"]);
    assert_eq!((vfs.exists(&a).unwrap(), vfs.exists(&b).unwrap()), (false, true));
    vfs.remove(&b).unwrap();
    assert_eq!(vfs.remove(&b).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(read_all(file.as_ref()).unwrap(), b"onet!", "an open file outlives its name");

    let lock = vfs.lock(&dir.join("LOCK")).unwrap();
    assert_eq!(vfs.lock(&dir.join("LOCK")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    drop(vfs.lock(&dir.join("LOCK")).unwrap());
}

#[test]
fn the_real_and_the_simulated_disk_agree() {
    let scratch = tempfile::tempdir().unwrap();
    contract(&RealVfs, &scratch.path().join("deep/er"));
    contract(&SimVfs::new(1), Path::new("/deep/er"));
}

fn dir() -> &'static Path {
    Path::new("/d")
}

#[test]
fn synced_bytes_with_a_synced_name_survive_every_crash() {
    for seed in 0..200 {
        let vfs = SimVfs::new(seed);
        vfs.create_dir(dir()).unwrap();
        let file = vfs.create(&dir().join("a")).unwrap();
        file.append(&[b"kept"]).unwrap();
        file.sync().unwrap();
        vfs.sync_dir(dir()).unwrap();
        file.append(&[&[1u8; 4000]]).unwrap();
        vfs.restart();
        assert!(file.len().is_err(), "old handles are dead");
        assert!(vfs.contents(&dir().join("a")).unwrap().starts_with(b"kept"), "seed {seed}");
    }
}

#[test]
fn unsynced_bytes_and_names_are_lost_in_some_crashes() {
    let mut tails = BTreeSet::new();
    let mut names = BTreeSet::new();
    for seed in 0..200 {
        let vfs = SimVfs::new(seed);
        vfs.create_dir(dir()).unwrap();
        let file = vfs.create(&dir().join("a")).unwrap();
        vfs.sync_dir(dir()).unwrap();
        file.append(&[&[1u8; 40]]).unwrap();
        vfs.rename(&dir().join("a"), &dir().join("b")).unwrap();
        vfs.restart();
        let name = vfs.list(dir()).unwrap().pop().unwrap();
        tails.insert(vfs.contents(&dir().join(&name)).unwrap());
        names.insert(name);
    }
    assert_eq!(names.len(), 2, "the rename may or may not survive");
    assert!(tails.len() > 20 && tails.contains(&Vec::new()) && tails.contains(&vec![1u8; 40]));
}

#[test]
fn what_a_failed_sync_left_behind_is_lost_though_a_later_one_succeeds() {
    let vfs = SimVfs::new(1);
    vfs.create_dir(dir()).unwrap();
    let file = vfs.create(&dir().join("a")).unwrap();
    vfs.sync_dir(dir()).unwrap();
    file.append(&[b"lost"]).unwrap();
    vfs.set_fault(Fault::SyncFails(0));
    assert!(file.sync().is_err());
    file.append(&[b"kept"]).unwrap();
    file.sync().unwrap();
    assert_eq!((vfs.syncs_repeated(), vfs.struck().len()), (1, 1));
    vfs.restart();
    assert_eq!(vfs.contents(&dir().join("a")).unwrap(), b"\0\0\0\0kept");
}

#[test]
fn a_test_says_which_sectors_a_power_cut_takes() {
    let vfs = SimVfs::new(1);
    vfs.create_dir(dir()).unwrap();
    let path = dir().join("a");
    let file = vfs.create(&path).unwrap();
    vfs.sync_dir(dir()).unwrap();
    (1..=3).for_each(|byte| file.append(&[&[byte; 512]]).unwrap());
    assert_eq!(vfs.unsynced_sectors(), 3);
    let after = |loss| {
        let cut = vfs.fork();
        cut.restart_with(loss);
        cut.contents(&path).unwrap().chunks(512).map(|sector| sector[0]).collect::<Vec<_>>()
    };
    assert_eq!(after(Loss::Behind(2)), [1, 2]);
    assert_eq!(after(Loss::Sectors { lost: 0b010, stale: false }), [1, 0, 3]);
    assert_eq!(after(Loss::Sectors { lost: 0b100, stale: true }), [1, 2, 2]);
}
