//! Blocks and files where they do not belong: written to another place, or an older version of what should be there.

use super::*;
use std::collections::BTreeMap;

const SECTOR: usize = 512;
const BLOCK: usize = 64 << 10;

/// Many rows that do not compress: segments of several blocks.
fn blocks_of_rows(seed: u64) -> (SimVfs, Vec<Row>) {
    let vfs = SimVfs::new(seed);
    let store = open(&vfs);
    let mut dice = Dice(seed);
    for number in 1..=2 {
        let row = |i| row(i, "host_1", f64::from_bits(dice.below(u64::MAX) >> 2), number as i64);
        let rows = (0..20_000).map(row).collect::<Vec<_>>();
        insert(&store, number, number, 1, &rows).unwrap();
        store.seal(ChunkId(1)).unwrap();
    }
    let expected = read(&store, 1, u64::MAX).unwrap();
    store.close().unwrap();
    (vfs, expected)
}

/// A life with all versions of its files, oldest first, and its last rows.
struct History {
    vfs: SimVfs,
    versions: BTreeMap<PathBuf, Vec<Vec<u8>>>,
    expected: Vec<Row>,
}

fn history(seed: u64) -> History {
    let vfs = SimVfs::new(seed);
    let mut versions: BTreeMap<PathBuf, Vec<Vec<u8>>> = BTreeMap::new();
    let mut note = |vfs: &SimVfs| {
        for path in files(vfs) {
            let (bytes, known) = (vfs.contents(&path).unwrap(), versions.entry(path).or_default());
            if known.last() != Some(&bytes) {
                known.push(bytes);
            }
        }
    };
    let store = open(&vfs);
    for number in 1..=LAST {
        transact(&store, number).unwrap();
        note(&vfs);
        if number % 3 == 2 {
            store.seal(ChunkId(1)).unwrap();
            note(&vfs);
        }
        if number % 6 == 3 {
            store.merge_due().unwrap();
            note(&vfs);
        }
    }
    let expected = read(&store, 1, u64::MAX).unwrap();
    store.close().unwrap();
    drop(store);
    note(&vfs);
    History { vfs, versions, expected }
}

/// What a block at an index of a file holds; the last may be short.
fn block(bytes: &[u8], at: usize, size: usize) -> &[u8] {
    &bytes[at * size..(at * size + size).min(bytes.len())]
}

/// As if a block had been written to the place of another.
fn with_block(bytes: &[u8], at: usize, size: usize, other: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let place = &mut changed[at * size..(at * size + size).min(bytes.len())];
    let count = place.len().min(other.len());
    place[..count].copy_from_slice(&other[..count]);
    changed
}

/// Changes files, asks whether it is found out, and puts them back.
fn try_out(vfs: &SimVfs, expected: &[Row], changed: &[(&Path, Vec<u8>)], context: &str) -> bool {
    let before = vfs.fork();
    changed.iter().for_each(|(path, bytes)| before.set_contents(path, bytes));
    is_found_out(&before, expected, &changed.iter().map(|(path, _)| *path).collect::<Vec<_>>(), context)
}

#[test]
fn blocks_that_changed_places_are_found() {
    const SWAPS: u64 = 500;
    let mut counts = Counts::new("swapped sectors and blocks, all found");
    for round in 0..rounds() {
        let mut dice = Dice(round);
        for (size, name, (vfs, expected), swaps) in
            [(SECTOR, "sectors", sealed_and_not(round), SWAPS), (BLOCK, "blocks", blocks_of_rows(round), SWAPS / 20)]
        {
            let files = files(&vfs).into_iter().map(|path| (vfs.contents(&path).unwrap(), path)).collect::<Vec<_>>();
            let mut tried = 0;
            while tried < swaps {
                let mut below = |count: usize| dice.below(count as u64) as usize;
                let from = below(files.len());
                let (a, a_path) = &files[from];
                let (b, b_path) = &files[if tried % 2 == 0 { from } else { below(files.len()) }];
                let (a_at, b_at) = (below(a.len().div_ceil(size)), below(b.len().div_ceil(size)));
                let (a_block, b_block) = (block(a, a_at, size), block(b, b_at, size));
                let count = a_block.len().min(b_block.len());
                if a_block[..count] == b_block[..count] {
                    continue;
                }
                let context = format!("{name} {a_at} of {} and {b_at} of {}", a_path.display(), b_path.display());
                let changed = match a_path == b_path {
                    true => {
                        let once = with_block(a, a_at, size, b_block);
                        vec![(a_path.as_path(), with_block(&once, b_at, size, a_block))]
                    }
                    false => vec![
                        (a_path.as_path(), with_block(a, a_at, size, b_block)),
                        (b_path.as_path(), with_block(b, b_at, size, a_block)),
                    ],
                };
                assert!(try_out(&vfs, &expected, &changed, &context), "{context}: went unnoticed");
                let place = if a_path == b_path { "inside a" } else { "from elsewhere into a" };
                counts.add(format!("{name} {place} {}", kind(a_path)));
                tried += 1;
            }
        }
    }
    counts.at_least(SWAPS);
    [
        "inside a log",
        "inside a segment",
        "elsewhere into a segment",
        "elsewhere into a log",
        "elsewhere into a manifest",
    ]
    .iter()
    .for_each(|what| assert!(counts.of(what) > 0, "{what}"));
}

/// All kinds of files, as the end of a life leaves them.
fn sealed_and_not(seed: u64) -> (SimVfs, Vec<Row>) {
    let History { vfs, expected, .. } = history(seed);
    (vfs, expected)
}

#[test]
fn older_versions_of_blocks_and_files_are_found_or_harmless() {
    let mut counts = Counts::new("older versions");
    let found = |found: bool| if found { "found" } else { "harmless: the rows are right" };
    for round in 0..rounds() {
        let History { vfs, versions, expected } = history(round);
        for (path, versions) in &versions {
            let Some(now) = vfs.contents(path) else {
                // A file that was removed is back.
                let back = vfs.fork();
                back.create(path).unwrap();
                back.set_contents(path, versions.last().unwrap());
                let all = files(&back);
                let all = all.iter().map(|path| path.as_path()).collect::<Vec<_>>();
                let outcome = is_found_out(&back, &expected, &all, &format!("{} is back", path.display()));
                counts.add(format!("a removed {} is back, {}", kind(path), found(outcome)));
                continue;
            };
            for old in versions.iter().filter(|old| **old != now) {
                let context = format!("round {round}, an old {}", path.display());
                let whole = vfs.fork();
                whole.set_contents(path, old);
                // An older manifest lists files that are gone: any of them may be named.
                let all = versions_named(&whole, path);
                let all = all.iter().map(|path| path.as_path()).collect::<Vec<_>>();
                let outcome = is_found_out(&whole, &expected, &all, &context);
                assert!(outcome || kind(path) == "manifest", "{context}: went unnoticed");
                counts.add(format!("{} as a whole, {}", kind(path), found(outcome)));
                for at in 0..old.len().min(now.len()).div_ceil(SECTOR) {
                    let changed = with_block(&now, at, SECTOR, block(old, at, SECTOR));
                    if changed != now {
                        let context = format!("{context}, sector {at}");
                        assert!(try_out(&vfs, &expected, &[(path, changed)], &context), "{context}: went unnoticed");
                        counts.add(format!("sector of a {}, found", kind(path)));
                    }
                }
            }
        }
    }
    counts.at_least(30);
    ["manifest as a whole", "log as a whole, found", "sector of a manifest, found", "removed segment is back"]
        .iter()
        .for_each(|what| assert!(counts.of(what) > 0, "{what}"));
}

/// The files an error may name when this one is old.
fn versions_named(vfs: &SimVfs, path: &Path) -> Vec<PathBuf> {
    let mut named = files(vfs);
    if kind(path) == "manifest"
        && let Ok(Some(manifest)) = crate::manifest::Manifest::load(vfs, Path::new(DIR))
    {
        for (id, chunk) in &manifest.chunks {
            named.extend(chunk.segments.iter().map(|segment| segment.file_name(*id).into()));
            named.extend(chunk.deletes.iter().map(|deletes| deletes.file_name(*id).into()));
        }
    }
    named.push(LOG_DIR.into());
    named
}

#[test]
fn a_log_that_ends_before_the_manifest_says_is_refused() {
    let vfs = SimVfs::new(3);
    let store = open(&vfs);
    insert(&store, 1, 1, 1, &rows(1)).unwrap();
    let log = files(&vfs).into_iter().find(|path| kind(path) == "log").unwrap();
    let old = vfs.contents(&log).unwrap();
    // Chunk 1 is not sealed: nothing but the log's length tells that this row is missing.
    insert(&store, 2, 2, 1, &rows(2)).unwrap();
    insert(&store, 3, 3, 2, &rows(3)).unwrap();
    store.seal(ChunkId(2)).unwrap();
    std::mem::forget(store);
    vfs.kill_process();
    let now = vfs.contents(&log).unwrap();
    assert!(now.starts_with(&old) && now.len() > old.len());
    vfs.set_contents(&log, &old);
    let error = try_open(&vfs).err().expect("acknowledged rows are missing");
    assert!(matches!(&error, StorageError::Damaged { path, .. } if *path == log), "{error}");
    vfs.kill_process();
    vfs.set_contents(&log, &now);
    assert_eq!(read(&try_open(&vfs).unwrap(), 1, 9).unwrap().len(), 80);
}

#[test]
fn a_missing_log_file_or_manifest_is_an_error() {
    let vfs = SimVfs::new(3);
    let store = open(&vfs);
    (1..=30).for_each(|number| insert(&store, number, number, 1, &rows(number)).unwrap());
    drop(store);
    let log = Path::new(DIR).join(LOG_DIR);
    let first = log.join(vfs.list(&log).unwrap().remove(0));
    let bytes = vfs.contents(&first).unwrap();
    vfs.remove(&first).unwrap();
    assert!(matches!(try_open(&vfs), Err(StorageError::Damaged { .. } | StorageError::Replay { .. })));
    vfs.create(&first).unwrap();
    vfs.set_contents(&first, &bytes);
    drop(try_open(&vfs).unwrap());
    vfs.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
    assert!(matches!(try_open(&vfs), Err(StorageError::Damaged { .. })));
}
