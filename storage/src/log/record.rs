//! The bytes of a log file. All integers little-endian; `lsn` of a byte = the file's start + the byte's offset.
//!
//! ```text
//! file    = header record*                            named by its start, 16 hexadecimal digits + ".log"
//! header  0  "SERILOG1"
//!         8  format version u32
//!        12  chain u32: header_crc of the last record of the file before; 0 in the first
//!        16  start u64: lsn of this file's first byte = start + length of the file before
//!        24  zero u32
//!        28  crc32c of bytes 0..28
//! record  0  header_crc u32: crc32c of bytes 4..24, then of the record's own lsn as u64
//!         4  payload length u32; 0 is a mark, which only says how far the log was synced
//!         8  previous u32: header_crc of the record before (`chain` for a file's first)
//!        12  payload_crc u32: crc32c of payload and padding
//!        16  synced u64: when this record was written, every byte before this lsn was durable
//!        24  payload, padded with zeros to a multiple of 8
//! ```
//! The lsn in the checksum exposes blocks that were written to the wrong place, `previous` exposes a block that is a
//! stale but once valid version of itself, and `synced` tells a torn tail from corruption (see `recover`).

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

pub(super) const VERSION: u32 = 1;
pub(super) const FILE_HEADER_BYTES: u64 = 32;
pub(super) const RECORD_HEADER_BYTES: u64 = 24;
const MAGIC: &[u8; 8] = b"SERILOG1";
const ALIGN: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) start: u64,
    pub(super) chain: u32,
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; FILE_HEADER_BYTES as usize] {
        let mut bytes = [0; FILE_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.chain.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.start.to_le_bytes());
        let crc = crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header and its format version, when the checksum holds.
    pub(super) fn decode(bytes: &[u8]) -> Option<(FileHeader, u32)> {
        let bytes = bytes.get(..FILE_HEADER_BYTES as usize)?;
        let intact = bytes.starts_with(MAGIC) && u32_at(bytes, 28) == crc32c(&bytes[..28]);
        let header = FileHeader { chain: u32_at(bytes, 12), start: u64_at(bytes, 16) };
        intact.then_some((header, u32_at(bytes, 8)))
    }
}

/// An intact record found at some offset of a file.
pub(super) struct Record {
    pub(super) header_crc: u32,
    pub(super) previous: u32,
    pub(super) synced: u64,
    pub(super) payload: std::ops::Range<usize>,
    /// Offset of the byte after the padding.
    pub(super) end: usize,
}

/// The header and the padding that go around `parts`, and the header's checksum.
pub(super) fn frame(parts: &[&[u8]], lsn: u64, previous: u32, synced: u64) -> ([u8; 24], &'static [u8], u32) {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let padding = &[0u8; ALIGN as usize][..padding(len)];
    let payload_crc = parts.iter().chain([&padding]).fold(0, |crc, part| crc32c_append(crc, part));
    let mut header = [0; RECORD_HEADER_BYTES as usize];
    header[4..8].copy_from_slice(&u32::try_from(len).expect("append checks the length").to_le_bytes());
    header[8..12].copy_from_slice(&previous.to_le_bytes());
    header[12..16].copy_from_slice(&payload_crc.to_le_bytes());
    header[16..].copy_from_slice(&synced.to_le_bytes());
    let header_crc = header_crc(&header, lsn);
    header[..4].copy_from_slice(&header_crc.to_le_bytes());
    (header, padding, header_crc)
}

/// Bytes a payload of `len` takes in the file.
pub(super) fn framed_len(len: usize) -> u64 {
    RECORD_HEADER_BYTES + (len + padding(len)) as u64
}

/// The record at `offset` of a file that starts at lsn `start`; else why there is none.
pub(super) fn check(file: &Bytes, offset: usize, start: u64) -> Result<Record, &'static str> {
    let body = offset + RECORD_HEADER_BYTES as usize;
    let header = file.get(offset..body).ok_or("the record header is cut off")?;
    if u32_at(header, 0) != header_crc(header, start + offset as u64) {
        return Err("the record header's checksum is wrong");
    }
    let len = u32_at(header, 4) as usize;
    let end = body + len + padding(len);
    let padded = file.get(body..end).ok_or("the record's payload is cut off")?;
    if u32_at(header, 12) != crc32c(padded) {
        return Err("the record's payload checksum is wrong");
    }
    let (previous, synced) = (u32_at(header, 8), u64_at(header, 16));
    Ok(Record { header_crc: u32_at(header, 0), previous, synced, payload: body..body + len, end })
}

fn header_crc(header: &[u8], lsn: u64) -> u32 {
    crc32c_append(crc32c(&header[4..RECORD_HEADER_BYTES as usize]), &lsn.to_le_bytes())
}

fn padding(len: usize) -> usize {
    len.next_multiple_of(ALIGN as usize) - len
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
