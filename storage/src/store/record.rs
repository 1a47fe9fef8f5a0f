//! What the store writes to its log. All integers little-endian.
//!
//! ```text
//! 0   kind u8, 7 zero bytes
//! 8   transaction: cluster 16 bytes, epoch u64, number u64
//! 40  first u64: the log position before the transaction's first record; for kind 5 zero
//! 48  kind 1 stage    writes u32, sub-transaction u32, then per write
//!                       chunk u32, table u32, flags u32 (1 has time, 2 removes rows), time u32, body length u64,
//!                       sort columns u32, sort u32 each
//!                     padded to 8; then the bodies, each padded to 8
//!     kind 2 prepare  nothing
//!     kind 3 commit   seq u64
//!     kind 4 abort    nothing
//!     kind 5 epoch    nothing; the transaction's epoch is the highest seen
//!     kind 6 discard  from u32, until u32: what was staged under these sub-transactions is taken back
//! ```
//! Unique keys are not kept: they are checked before the record is written. Each write takes more than eight bytes, so
//! that the record's position plus a write's index names the write (`deletes::Part`). Bodies are 8-byte aligned so that
//! the arrays of a replayed record can point into the file's bytes.

use crate::log::Lsn;
use bytes::Bytes;
use proto::{ChunkId, ChunkLayout, ChunkWrite, ClusterId, ColumnId, CommitSeq, SubTxn, TableId, TxnId, WriteKind};
use std::ops::Range;

const FIXED_BYTES: usize = 48;
const HAS_TIME: u32 = 1;
const REMOVES: u32 = 2;

pub(crate) struct Record {
    pub(crate) txn: TxnId,
    /// Nothing of the transaction lies before it.
    pub(crate) first: Lsn,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Stage(SubTxn, Vec<ChunkWrite>),
    Discard(Range<SubTxn>),
    Prepare,
    Commit(CommitSeq),
    Abort,
    Epoch,
}

/// Everything but the bodies of a stage record.
pub(crate) fn encode(record: &Record) -> Vec<u8> {
    let number = match record.kind {
        Kind::Stage(..) => 1,
        Kind::Prepare => 2,
        Kind::Commit(_) => 3,
        Kind::Abort => 4,
        Kind::Epoch => 5,
        Kind::Discard(_) => 6,
    };
    let mut bytes = vec![number, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&record.txn.cluster.0);
    bytes.extend_from_slice(&record.txn.epoch.to_le_bytes());
    bytes.extend_from_slice(&record.txn.number.to_le_bytes());
    bytes.extend_from_slice(&record.first.0.to_le_bytes());
    match &record.kind {
        Kind::Stage(sub, writes) => {
            let mut u32 = |value: u32| bytes.extend_from_slice(&value.to_le_bytes());
            u32(writes.len() as u32);
            u32(sub.0);
            for write in writes {
                u32(write.chunk.0);
                u32(write.layout.table.0);
                let removes = if write.kind == WriteKind::Delete { REMOVES } else { 0 };
                u32(removes | if write.layout.time.is_some() { HAS_TIME } else { 0 });
                u32(write.layout.time.map_or(0, |column| column.0));
                u32(write.body.len() as u32);
                u32(0);
                u32(write.layout.sort.len() as u32);
                write.layout.sort.iter().for_each(|column| u32(column.0));
            }
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        Kind::Commit(seq) => bytes.extend_from_slice(&seq.0.to_le_bytes()),
        Kind::Discard(subs) => {
            bytes.extend_from_slice(&subs.start.0.to_le_bytes());
            bytes.extend_from_slice(&subs.end.0.to_le_bytes());
        }
        Kind::Prepare | Kind::Abort | Kind::Epoch => {}
    }
    bytes
}

/// The parts of a whole stage record, given its `encode`d head.
pub(crate) fn stage_parts<'a>(head: &'a [u8], writes: &'a [ChunkWrite]) -> Vec<&'a [u8]> {
    const ZEROS: [u8; 8] = [0; 8];
    let bodies = writes.iter().flat_map(|write| {
        let padding = write.body.len().next_multiple_of(8) - write.body.len();
        [&write.body[..], &ZEROS[..padding]]
    });
    [head].into_iter().chain(bodies).collect()
}

/// # Errors
/// In words, when the bytes are not a record of this version.
pub(crate) fn decode(bytes: &Bytes) -> Result<Record, &'static str> {
    let mut cursor = Cursor { bytes, at: 0 };
    let kind = cursor.take(8)?[0];
    let cluster = ClusterId(cursor.take(16)?.try_into().expect("16 bytes"));
    let txn = TxnId { cluster, epoch: cursor.u64()?, number: cursor.u64()? };
    let first = Lsn(cursor.u64()?);
    debug_assert_eq!(cursor.at, FIXED_BYTES);
    let kind = match kind {
        1 => {
            let (count, sub) = (cursor.u32()?, SubTxn(cursor.u32()?));
            Kind::Stage(sub, decode_writes(&mut cursor, count)?)
        }
        2 => Kind::Prepare,
        3 => Kind::Commit(CommitSeq(cursor.u64()?)),
        4 => Kind::Abort,
        5 => Kind::Epoch,
        6 => Kind::Discard(SubTxn(cursor.u32()?)..SubTxn(cursor.u32()?)),
        _ => return Err("unknown kind of record"),
    };
    match cursor.at == bytes.len() {
        true => Ok(Record { txn, first, kind }),
        false => Err("the record is longer than its contents"),
    }
}

fn decode_writes(cursor: &mut Cursor, count: u32) -> Result<Vec<ChunkWrite>, &'static str> {
    let mut heads = Vec::new();
    for _ in 0..count {
        let (chunk, table) = (ChunkId(cursor.u32()?), TableId(cursor.u32()?));
        let (flags, time) = (cursor.u32()?, cursor.u32()?);
        if flags & !(HAS_TIME | REMOVES) != 0 {
            return Err("a write has unknown flags");
        }
        let length = cursor.u64()? as usize;
        let sort = (0..cursor.u32()?).map(|_| cursor.u32().map(ColumnId)).collect::<Result<Vec<_>, _>>()?;
        let time = (flags & HAS_TIME != 0).then_some(ColumnId(time));
        let kind = if flags & REMOVES != 0 { WriteKind::Delete } else { WriteKind::Insert };
        heads.push((chunk, ChunkLayout { table, sort, time, keys: Vec::new() }, kind, length));
    }
    cursor.align()?;
    let writes = heads.into_iter().map(|(chunk, layout, kind, length)| {
        let start = cursor.at;
        cursor.take(length)?;
        let body = cursor.bytes.slice(start..cursor.at);
        cursor.align()?;
        Ok(ChunkWrite { chunk, layout, kind, body })
    });
    writes.collect()
}

struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let end = self.at.checked_add(count).ok_or("a length is out of range")?;
        let part = self.bytes.get(self.at..end).ok_or("the record is too short")?;
        self.at = end;
        Ok(part)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    fn align(&mut self) -> Result<(), &'static str> {
        self.take(self.at.next_multiple_of(8) - self.at).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_record_comes_back_with_aligned_bodies() {
        let txn = TxnId { cluster: ClusterId([7; 16]), epoch: 3, number: 9 };
        let layout = ChunkLayout {
            table: TableId(1),
            sort: vec![ColumnId(2), ColumnId(1)],
            time: Some(ColumnId(1)),
            keys: Vec::new(),
        };
        let plain = ChunkLayout { table: TableId(2), sort: vec![], time: None, keys: Vec::new() };
        let writes = vec![
            ChunkWrite { chunk: ChunkId(5), layout, kind: WriteKind::Insert, body: Bytes::from_static(b"hello") },
            ChunkWrite {
                chunk: ChunkId(6),
                layout: plain,
                kind: WriteKind::Delete,
                body: Bytes::from_static(b"12345678"),
            },
        ];
        let record = Record { txn, first: Lsn(40), kind: Kind::Stage(SubTxn(3), writes.clone()) };
        let head = encode(&record);
        assert!(head.len().is_multiple_of(8));
        let bytes = Bytes::from(stage_parts(&head, &writes).concat());
        let back = decode(&bytes).unwrap();
        assert_eq!((back.txn, back.first), (txn, Lsn(40)));
        assert!(matches!(back.kind, Kind::Stage(SubTxn(3), back) if back == writes));
        assert!((0..bytes.len()).all(|cut| decode(&bytes.slice(..cut)).is_err()));
    }
}
