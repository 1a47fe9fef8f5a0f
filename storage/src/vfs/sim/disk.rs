//! The state of the simulated disk, and what a power cut makes of it.

use super::{Fault, Loss, Strike};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

const SECTOR_BYTES: usize = 512;

#[derive(Clone)]
pub(super) struct Disk {
    pub(super) random: u64,
    pub(super) boots_count: u64,
    pub(super) crashed: bool,
    pub(super) fault: Option<Fault>,
    /// Changes (or, for `SyncFails`, syncs; for `Full`, writes) since the fault was set.
    pub(super) steps: u64,
    pub(super) inodes: HashMap<u64, Inode>,
    pub(super) inodes_made: u64,
    pub(super) dirs: BTreeMap<PathBuf, Dir>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) files_synced: u64,
    pub(super) syncs_repeated: u64,
    pub(super) struck: Vec<Strike>,
}

#[derive(Default, Clone)]
pub(super) struct Inode {
    pub(super) bytes: Vec<u8>,
    pub(super) durable_len: usize,
    /// Bytes that a failed sync left behind: the next crash takes them.
    pub(super) doomed: Vec<Range<usize>>,
}

#[derive(Default, Clone)]
pub(super) struct Dir {
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable: BTreeMap<String, u64>,
    /// Since the last `sync_dir`.
    pub(super) changes: Vec<Change>,
    pub(super) sync_failed: bool,
}

#[derive(Clone)]
pub(super) enum Change {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

impl Change {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Change::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
            Change::Unlink(name) => drop(names.remove(name)),
            Change::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl Inode {
    /// The sectors, and parts of one, between what is durable and `end`.
    pub(super) fn sectors(&self, end: usize) -> Vec<Range<usize>> {
        let mut sectors = Vec::new();
        let mut start = self.durable_len;
        while start < end {
            let next = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            sectors.push(start..next);
            start = next;
        }
        sectors
    }
}

impl Disk {
    pub(super) fn new(seed: u64) -> Disk {
        Disk {
            random: seed,
            boots_count: 0,
            crashed: false,
            fault: None,
            steps: 0,
            inodes: HashMap::new(),
            inodes_made: 0,
            dirs: BTreeMap::new(),
            locks: BTreeSet::new(),
            files_synced: 0,
            syncs_repeated: 0,
            struck: Vec::new(),
        }
    }

    /// splitmix64.
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound as u64) as usize
    }

    pub(super) fn inode(&self, path: &Path) -> Option<u64> {
        let (dir, name) = split(path);
        self.dirs.get(dir)?.names.get(name).copied()
    }

    pub(super) fn lose_unsynced(&mut self, loss: Loss) {
        let mut ids = self.inodes.keys().copied().collect::<Vec<_>>();
        ids.sort_unstable();
        for id in ids {
            let end = self.tail_end(id, loss);
            let sectors = self.inodes[&id].sectors(end);
            let holes = loss == Loss::Random && self.below(2) == 0;
            let lost = sectors.into_iter().enumerate().filter(|(number, _)| match loss {
                Loss::Random => holes && self.below(2) == 0,
                Loss::Behind(_) => false,
                Loss::Sectors { lost, .. } => lost >> (number % 64) & 1 == 1,
            });
            let lost = lost.map(|(_, sector)| sector).collect::<Vec<_>>();
            let inode = self.inodes.get_mut(&id).expect("listed above");
            inode.bytes.truncate(end);
            for sector in lost {
                match (loss, sector.start.checked_sub(SECTOR_BYTES)) {
                    (Loss::Sectors { stale: true, .. }, Some(before)) => {
                        inode.bytes.copy_within(before..before + sector.len(), sector.start);
                    }
                    _ => inode.bytes[sector].fill(0),
                }
            }
            for range in std::mem::take(&mut inode.doomed) {
                inode.bytes[range.start.min(end)..range.end.min(end)].fill(0);
            }
            inode.durable_len = end;
        }
        let dirs = self.dirs.keys().cloned().collect::<Vec<_>>();
        for path in dirs {
            let changes_count = self.dirs[&path].changes.len();
            let kept = self.below(changes_count + 1);
            let dir = self.dirs.get_mut(&path).expect("listed above");
            let changes = std::mem::take(&mut dir.changes);
            changes[..kept].iter().for_each(|change| change.apply(&mut dir.durable));
            dir.names = dir.durable.clone();
        }
    }

    /// How much of a file a power cut leaves, holes aside.
    pub(super) fn tail_end(&mut self, inode: u64, loss: Loss) -> usize {
        let (len, durable) = (self.inodes[&inode].bytes.len(), self.inodes[&inode].durable_len);
        match loss {
            Loss::Sectors { .. } => len,
            Loss::Behind(sectors_count) => match sectors_count {
                0 => durable,
                _ => ((durable / SECTOR_BYTES + sectors_count) * SECTOR_BYTES).min(len),
            },
            Loss::Random => match self.below(4) {
                0 => durable,
                1 => len,
                _ => durable + self.below(len - durable + 1),
            },
        }
    }

    pub(super) fn reboot(&mut self) {
        self.boots_count += 1;
        self.crashed = false;
        self.fault = None;
        self.locks.clear();
        self.dirs.values_mut().for_each(|dir| dir.sync_failed = false);
        let named = self.dirs.values().flat_map(|dir| dir.names.values().chain(dir.durable.values()).copied());
        let named = named.collect::<BTreeSet<_>>();
        self.inodes.retain(|id, _| named.contains(id));
    }

    pub(super) fn alive(&self) -> io::Result<()> {
        match self.crashed {
            true => Err(io::Error::other("the simulated machine is off")),
            false => Ok(()),
        }
    }

    /// Counts a change; true when power goes in the middle of it.
    pub(super) fn change(&mut self, action: &'static str, path: &Path) -> io::Result<bool> {
        self.alive()?;
        if let Some(Fault::Crash(at)) = self.fault {
            self.steps += 1;
            self.crashed = self.steps > at;
        }
        if self.crashed {
            self.strike(action, path);
        }
        Ok(self.crashed)
    }

    pub(super) fn full(&mut self, action: &'static str, path: &Path) -> bool {
        let (at, once) = match self.fault {
            Some(Fault::Full(at)) => (at, false),
            Some(Fault::FullOnce(at)) => (at, true),
            _ => return false,
        };
        self.steps += 1;
        let full = if once { self.steps == at + 1 } else { self.steps > at };
        if full {
            self.strike(action, path);
        }
        full
    }

    /// Whether the fault, which strikes once, strikes now.
    pub(super) fn fails(&mut self, at: u64, action: &'static str, path: &Path) -> io::Result<()> {
        self.steps += 1;
        if self.steps == at + 1 {
            self.strike(action, path);
            return Err(io::Error::other("simulated EIO"));
        }
        Ok(())
    }

    pub(super) fn strike(&mut self, action: &'static str, path: &Path) {
        self.struck.push(Strike { action, path: path.to_owned() });
    }

    /// One of the file's names; none when it was removed while open.
    pub(super) fn path_of(&self, inode: u64) -> PathBuf {
        let mut dirs = self.dirs.iter();
        let found = dirs.find_map(|(dir, held)| {
            let name = held.names.iter().find(|(_, other)| **other == inode)?;
            Some(dir.join(name.0))
        });
        found.unwrap_or_default()
    }

    pub(super) fn change_name(
        &mut self,
        dir: &Path,
        action: &'static str,
        name: &str,
        change: Change,
    ) -> io::Result<()> {
        let dying = self.change(action, &dir.join(name))?;
        let half = dying && self.below(2) == 0;
        let dir = self.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        if !half {
            change.apply(&mut dir.names);
            dir.changes.push(change);
        }
        match dying {
            true => Err(io::Error::other("the simulated machine went off")),
            false => Ok(()),
        }
    }
}

pub(super) fn split(path: &Path) -> (&Path, &str) {
    let name = path.file_name().and_then(|name| name.to_str()).expect("simulated paths are UTF-8 and end in a name");
    (path.parent().expect("simulated paths have a directory"), name)
}
