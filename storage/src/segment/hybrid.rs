//! Parquet's mix of runs and packed groups of eight, in which definition levels and dictionary indices are written.
//!
//! ```text
//! varint n, even: n / 2 times the value that follows, in as few whole bytes as its bits need
//! varint n, odd:  n / 2 groups of eight values, packed
//! ```

use super::packed::put_varint;
use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

/// Bytes of eight equal bits each that are worth a run of their own.
const RUN_BYTES_MIN: usize = 4;
/// No page has more; beyond it is damage.
const VALUES_MAX: usize = 1 << 24;

/// A stretch of values.
pub(super) enum Run<'a> {
    Repeated {
        value: u32,
        count: usize,
    },
    /// `count` values of the width, least significant bit first.
    Packed {
        bytes: &'a [u8],
        count: usize,
    },
}

/// Gives the first `count` values, run by run.
///
/// # Errors
/// What is wrong with the bytes.
pub(super) fn decode(
    mut bytes: &[u8],
    width: usize,
    count: usize,
    mut take: impl FnMut(Run<'_>) -> Result<(), String>,
) -> Result<(), String> {
    if width > 32 || count > VALUES_MAX {
        return Err(format!("{count} values of {width} bits"));
    }
    let short = || "the page ends within a run".to_owned();
    let mut left = count;
    while left > 0 {
        let header = varint(&mut bytes).ok_or_else(short)?;
        let length = usize::try_from(header >> 1).map_err(|_| short())?;
        if length == 0 {
            return Err("an empty run".to_owned());
        }
        let taken = if header & 1 == 0 {
            let (value, rest) = bytes.split_at_checked(width.div_ceil(8)).ok_or_else(short)?;
            bytes = rest;
            let value = value.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            let count = length.min(left);
            take(Run::Repeated { value, count })?;
            count
        } else {
            let count = length.saturating_mul(8).min(left);
            let packed = length.saturating_mul(width).min(bytes.len());
            if packed * 8 < count * width {
                return Err(short());
            }
            let (packed, rest) = bytes.split_at(packed);
            bytes = rest;
            take(Run::Packed { bytes: packed, count })?;
            count
        };
        left -= taken;
    }
    Ok(())
}

/// The value at a place among packed ones.
pub(super) fn packed_value(bytes: &[u8], width: usize, at: usize) -> u32 {
    let bit = at * width;
    let last = bytes.len().min(bit / 8 + 5);
    let word = bytes[bit / 8..last].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    (word >> (bit % 8) & ((1 << width) - 1)) as u32
}

/// Definition levels of a column that may be NULL and has no other levels: which values are there.
pub(super) fn decode_validity(bytes: &[u8], count: usize) -> Result<BooleanBuffer, String> {
    let mut valid = BooleanBufferBuilder::new(count);
    decode(bytes, 1, count, |run| {
        match run {
            Run::Repeated { value, count } => valid.append_n(count, value != 0),
            Run::Packed { bytes, count } => valid.append_packed_range(0..count, bytes),
        }
        Ok(())
    })?;
    Ok(valid.finish())
}

/// The inverse of `decode_validity`.
pub(super) fn encode_validity(valid: &BooleanBuffer, out: &mut Vec<u8>) {
    let packed = valid.sliced();
    let bytes = &packed.as_slice()[..valid.len().div_ceil(8)];
    let mut at = 0;
    while at < bytes.len() {
        let run = run_length(&bytes[at..]);
        let last = at + run == bytes.len();
        if run >= RUN_BYTES_MIN || (last && run > 0) {
            let values = if last { valid.len() - at * 8 } else { run * 8 };
            put_varint(out, (values as u64) << 1);
            out.push(u8::from(bytes[at] & 1 != 0));
            at += run;
            continue;
        }
        let start = at;
        while at < bytes.len() && run_length(&bytes[at..]) < RUN_BYTES_MIN {
            at += 1;
        }
        put_varint(out, ((at - start) as u64) << 1 | 1);
        out.extend_from_slice(&bytes[start..at]);
    }
}

/// Bytes from the start on that are all ones, or all zeros. What is behind the last value counts as whatever fits.
fn run_length(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(first @ (0 | 0xff)) => bytes.iter().take_while(|byte| *byte == first).count(),
        _ => 0,
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn validity_comes_back(runs in prop::collection::vec((any::<bool>(), 1usize..120), 0..12), offset in 0usize..9) {
            let bits = runs.iter().flat_map(|(bit, count)| std::iter::repeat_n(*bit, *count)).collect::<Vec<_>>();
            let offset = offset.min(bits.len());
            let valid = BooleanBuffer::from(bits.clone()).slice(offset, bits.len() - offset);
            let mut bytes = Vec::new();
            encode_validity(&valid, &mut bytes);
            prop_assert_eq!(decode_validity(&bytes, valid.len()).unwrap(), valid);
        }

        #[test]
        fn any_bytes_are_values_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100), width in 0usize..34) {
            let _ = decode(&bytes, width, 500, |run| {
                if let Run::Packed { bytes, count } = run {
                    let largest = (0..count).map(|at| packed_value(bytes, width, at)).max().unwrap();
                    assert!(u64::from(largest) < 1 << width);
                }
                Ok(())
            });
        }
    }

    #[test]
    fn packed_values_are_found_by_their_place() {
        // 0, 1, … 7 in three bits each, the example of Parquet's documentation.
        let bytes = [0b1000_1000, 0b1100_0110, 0b1111_1010];
        let values = (0..8).map(|at| packed_value(&bytes, 3, at)).collect::<Vec<_>>();
        assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
