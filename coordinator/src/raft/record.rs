//! The bytes of one record of a member's log. All integers little-endian.
//!
//! ```text
//! record  0  term u64      newest term this member knows
//!         8  vote u64      member it voted for in that term, 0 for none
//!        16  commit u64    index up to which it knows entries to be committed
//!        24  entry*
//! entry   0  index u64
//!         8  term u64
//!        16  length u32
//!        20  data
//! ```
//! An entry replaces those at its index and behind. The frame around a record, and its checksum, are `storage::Log`'s.

use bytes::{Buf, Bytes};
use raft::prelude::{Entry, EntryType, HardState};

const ENTRY_HEADER_BYTES: usize = 20;

pub(super) fn encode(state: &HardState, entries: &[Entry]) -> Vec<u8> {
    let data_bytes = entries.iter().map(|entry| ENTRY_HEADER_BYTES + entry.data.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(24 + data_bytes);
    for word in [state.term, state.vote, state.commit] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for entry in entries {
        assert!(
            entry.get_entry_type() == EntryType::EntryNormal && entry.context.is_empty(),
            "entries of another kind are never proposed"
        );
        bytes.extend_from_slice(&entry.index.to_le_bytes());
        bytes.extend_from_slice(&entry.term.to_le_bytes());
        let length = u32::try_from(entry.data.len()).expect("the log refuses records of that size");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&entry.data);
    }
    bytes
}

/// # Errors
/// Why these bytes are no record.
pub(super) fn decode(mut bytes: Bytes) -> Result<(HardState, Vec<Entry>), String> {
    let cut_off = |_| "a record of the raft log is cut off".to_owned();
    let term = bytes.try_get_u64_le().map_err(cut_off)?;
    let vote = bytes.try_get_u64_le().map_err(cut_off)?;
    let commit = bytes.try_get_u64_le().map_err(cut_off)?;
    let mut entries = Vec::new();
    while bytes.has_remaining() {
        let index = bytes.try_get_u64_le().map_err(cut_off)?;
        let term = bytes.try_get_u64_le().map_err(cut_off)?;
        let length = bytes.try_get_u32_le().map_err(cut_off)? as usize;
        if length > bytes.len() {
            return Err("an entry of the raft log is cut off".to_owned());
        }
        // A copy, so that a small entry does not keep a whole log file in memory.
        let data = Bytes::copy_from_slice(&bytes.split_to(length));
        entries.push(Entry { index, term, data, ..Entry::default() });
    }
    Ok((HardState { term, vote, commit, ..HardState::default() }, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_and_no_part_of_one_passes_for_it() {
        let state = HardState { term: 3, vote: 2, commit: 7, ..HardState::default() };
        let entry = |index, data: &'static [u8]| Entry { index, term: 3, data: data.into(), ..Entry::default() };
        let entries = vec![entry(8, b"one"), entry(9, b"")];
        let bytes = Bytes::from(encode(&state, &entries));
        assert_eq!(bytes.len(), 24 + 20 + 3 + 20);
        assert_eq!(decode(bytes.clone()), Ok((state.clone(), entries.clone())));
        let whole = [24, 24 + 20 + 3, bytes.len()];
        for length in (0..bytes.len()).filter(|length| !whole.contains(length)) {
            assert!(decode(bytes.slice(..length)).is_err(), "{length} bytes");
        }
    }
}
