//! Bits flip on the platter: every one is found, or lies where nobody reads.

use super::*;
use crate::manifest::Manifest;
use std::ops::Range;

/// Segments, removals in a deletes file and in the log, unsealed rows; closed. What a reader sees.
fn closed_store(seed: u64) -> (SimVfs, Vec<Row>) {
    let vfs = SimVfs::new(seed);
    let store = open(&vfs);
    for number in 1..=6 {
        transact(&store, number).unwrap();
        if number == 2 || number == 4 {
            store.seal(ChunkId(1)).unwrap();
        }
    }
    let expected = read(&store, 1, u64::MAX).unwrap();
    store.close().unwrap();
    (vfs, expected)
}

/// What the bytes of a file are.
fn regions(path: &Path, bytes: &[u8], manifest: &Manifest) -> Vec<(&'static str, Range<usize>)> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    match kind(path) {
        "log" => {
            let mut regions = vec![("log file header", 0..32)];
            let mut at = 32;
            while at < bytes.len() {
                let end = at + 24 + u32_at(at + 4).next_multiple_of(8);
                regions.push(("log record header", at..at + 24));
                regions.push(("log record payload", at + 24..end));
                at = end;
            }
            regions.retain(|(_, range)| !range.is_empty());
            regions
        }
        "segment" => {
            let segments = manifest.chunks[&ChunkId(1)].segments.iter();
            let record = segments.clone().find(|record| record.file_name(ChunkId(1)) == name(path)).unwrap();
            let (tail, footer) = (record.tail_offset as usize, bytes.len() - 8 - u32_at(bytes.len() - 8));
            vec![
                ("segment body", 0..tail),
                ("segment page index", tail..footer),
                ("segment footer", footer..bytes.len()),
            ]
        }
        "deletes file" => vec![("deletes header", 0..24), ("deletes sets", 24..bytes.len())],
        "manifest" => vec![("manifest header", 0..24), ("manifest payload", 24..bytes.len())],
        _ => vec![("format file", 0..bytes.len())],
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_never_changes_an_answer() {
    const FLIPS_PER_REGION: u64 = 80;
    let mut counts = Counts::new("flipped bits, all found");
    for round in 0..rounds() {
        let (vfs, expected) = closed_store(round);
        let manifest = Manifest::load(&vfs, Path::new(DIR)).unwrap().unwrap();
        let mut dice = Dice(round);
        let mut flips = Vec::new();
        for path in files(&vfs) {
            let found = regions(&path, &vfs.contents(&path).unwrap(), &manifest);
            for (region, range) in found {
                flips.push((path.clone(), region, range));
            }
        }
        let of = |region: &str| flips.iter().filter(|(_, other, _)| *other == region).count() as u64;
        for (path, region, range) in &flips {
            let whole = vfs.contents(path).unwrap();
            for _ in 0..FLIPS_PER_REGION.div_ceil(of(region)) {
                let bit = range.start as u64 * 8 + dice.below(range.len() as u64 * 8);
                let context = format!("round {round}, bit {bit} of {}", path.display());
                vfs.flip_bit(path, bit);
                assert!(!crate::verify(&vfs, Path::new(DIR)).is_empty() || kind(path) == "format file", "{context}");
                assert!(is_found_out(&vfs, &expected, &[path], &context), "{context}: went unnoticed");
                vfs.kill_process();
                vfs.set_contents(path, &whole);
                counts.add(*region);
            }
        }
        assert_eq!(read(&try_open(&vfs).unwrap(), 1, u64::MAX).unwrap(), expected);
    }
    counts.each_at_least(FLIPS_PER_REGION);
    assert_eq!(counts.kinds(), 11);
}

#[test]
fn a_bit_flipped_where_nobody_reads_harms_nobody() {
    let mut counts = Counts::new("flipped bits in files nobody lists");
    let left_over = ["MANIFEST.new", "segments/1-77.parquet", "segments/1-78.deletes"];
    for (round, left_over) in (0..rounds()).flat_map(|round| left_over.map(|name| (round, name))) {
        let (vfs, expected) = closed_store(round);
        let path = Path::new(DIR).join(left_over);
        vfs.create(&path).unwrap();
        vfs.set_contents(&path, b"half a file");
        vfs.flip_bit(&path, 13);
        assert!(!is_found_out(&vfs, &expected, &[], left_over));
        counts.add(left_over);
    }
    counts.at_least(3);
}
