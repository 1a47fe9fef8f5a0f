//! One page of a column: its header, which Parquet writes in Thrift's compact protocol, and its bytes without compression.
//! The parquet crate makes a decompressor for every column of every reader, which costs short scans more than their pages;
//! here a thread has one. Files were written by us and their blocks are verified: this is no reader of foreign files.

use parquet::basic::{Compression, Encoding};
use std::cell::RefCell;
use zstd::bulk::Decompressor;

type Decoded<T> = Result<T, String>;

const DICTIONARY: i64 = 2;
const DATA_V2: i64 = 3;
/// Parquet counts the bytes of a page in 31 bits.
const PAGE_BYTES_MAX: usize = i32::MAX as usize;
/// Statistics hold lists of no structures; nobody nests deeper.
const DEPTH_MAX: usize = 8;

/// What a page holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Dictionary { values: usize },
    Data { rows: usize, nulls: usize, encoding: Encoding, levels: usize },
}

#[derive(Debug, Default)]
struct Header {
    kind: i64,
    plain: i64,
    stored: i64,
    dictionary: Option<Fields>,
    data: Option<Fields>,
}

/// The numbers of a structure by their id: none that we need has a larger one.
type Fields = [Option<i64>; 9];

/// The page that `bytes` begin with.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(bytes: &[u8], compression: Compression) -> Decoded<(Kind, Vec<u8>)> {
    let mut input = Thrift(bytes);
    let header = input.header()?;
    let size = |size: i64| usize::try_from(size).map_err(|_| "a page of a negative size".to_owned());
    let (plain, stored) = (size(header.plain)?, size(header.stored)?);
    if plain > PAGE_BYTES_MAX {
        return Err(format!("a page of {plain} bytes"));
    }
    let stored = input.0.get(..stored).ok_or("a page is cut off")?;
    let of = |fields: &Option<Fields>, id: usize| fields.and_then(|fields| fields[id]);
    let need = |fields: &Option<Fields>, id: usize| {
        size(of(fields, id).ok_or_else(|| format!("a page's header without field {id}"))?)
    };
    match header.kind {
        DICTIONARY => {
            let kind = Kind::Dictionary { values: need(&header.dictionary, 1)? };
            Ok((kind, decompressed(&[], stored, plain, compression)?))
        }
        DATA_V2 => {
            let data = &header.data;
            let (levels, repetition) = (need(data, 5)?, need(data, 6)?);
            if repetition != 0 || levels > stored.len() || levels > plain {
                return Err("a page is shorter than its levels".to_owned());
            }
            let encoding = encoding(of(data, 4))?;
            let kind = Kind::Data { rows: need(data, 3)?, nulls: need(data, 2)?, encoding, levels };
            // Levels are never compressed; values are unless the header says otherwise.
            let compression = if of(data, 7) == Some(0) { Compression::UNCOMPRESSED } else { compression };
            Ok((kind, decompressed(&stored[..levels], &stored[levels..], plain, compression)?))
        }
        _ => Err("a page of another version".to_owned()),
    }
}

fn encoding(number: Option<i64>) -> Decoded<Encoding> {
    Ok(match number {
        Some(0) => Encoding::PLAIN,
        Some(5) => Encoding::DELTA_BINARY_PACKED,
        Some(8) => Encoding::RLE_DICTIONARY,
        Some(9) => Encoding::BYTE_STREAM_SPLIT,
        other => return Err(format!("a page in encoding {other:?}")),
    })
}

thread_local! {
    static ZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// `before` as it is, and `stored` without compression: together `plain` bytes.
fn decompressed(before: &[u8], stored: &[u8], plain: usize, compression: Compression) -> Decoded<Vec<u8>> {
    let wanted = plain - before.len();
    let values = match compression {
        // Nothing may be stored as nothing.
        _ if wanted == 0 => Vec::new(),
        Compression::UNCOMPRESSED => stored.to_vec(),
        Compression::ZSTD(_) => ZSTD.with_borrow_mut(|own| {
            let own = match own {
                Some(own) => own,
                none => none.insert(Decompressor::new().map_err(|error| error.to_string())?),
            };
            own.decompress(stored, wanted).map_err(|error| format!("a page does not decompress: {error}"))
        })?,
        other => return Err(format!("a page in {other}")),
    };
    if values.len() != wanted {
        return Err(format!("a page has {} bytes in place of {wanted}", values.len()));
    }
    Ok(if before.is_empty() { values } else { [before, &values].concat() })
}

struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    fn header(&mut self) -> Decoded<Header> {
        let mut header = Header::default();
        let mut last = 0;
        while let Some((id, ty)) = self.field(&mut last)? {
            match (id, ty) {
                (1, 5) => header.kind = self.zigzag()?,
                (2, 5) => header.plain = self.zigzag()?,
                (3, 5) => header.stored = self.zigzag()?,
                (7, 12) => header.dictionary = Some(self.numbers()?),
                (8, 12) => header.data = Some(self.numbers()?),
                (_, ty) => self.skip(ty, DEPTH_MAX)?,
            }
        }
        Ok(header)
    }

    fn numbers(&mut self) -> Decoded<Fields> {
        let (mut fields, mut last) = (Fields::default(), 0);
        while let Some((id, ty)) = self.field(&mut last)? {
            let value = match ty {
                1 => Some(1),
                2 => Some(0),
                5 => Some(self.zigzag()?),
                _ => {
                    self.skip(ty, DEPTH_MAX)?;
                    None
                }
            };
            if let Some(field) = usize::try_from(id).ok().and_then(|id| fields.get_mut(id)) {
                *field = value;
            }
        }
        Ok(fields)
    }

    /// The next field's id and type; `None` at the end of the structure.
    fn field(&mut self, last: &mut i64) -> Decoded<Option<(i64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *last = match byte >> 4 {
            0 => self.zigzag()?,
            more => last.checked_add(i64::from(more)).ok_or("a page's header with an endless number")?,
        };
        Ok(Some((*last, byte & 15)))
    }

    fn skip(&mut self, ty: u8, depth: usize) -> Decoded<()> {
        let depth = depth.checked_sub(1).ok_or("a page's header nests too deeply")?;
        match ty {
            1 | 2 => {}
            3 => self.advance(1)?,
            4..=6 => {
                self.varint()?;
            }
            7 => self.advance(8)?,
            8 => {
                let length = self.varint()?;
                self.advance(usize::try_from(length).map_err(|_| CUT.to_owned())?)?;
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                for _ in 0..count {
                    // In a list a boolean is a byte.
                    if matches!(byte & 15, 1 | 2) { self.advance(1)? } else { self.skip(byte & 15, depth)? }
                }
            }
            12 => {
                let mut last = 0;
                while let Some((_, ty)) = self.field(&mut last)? {
                    self.skip(ty, depth)?;
                }
            }
            _ => return Err(format!("a page's header with a field of type {ty}")),
        }
        Ok(())
    }

    fn zigzag(&mut self) -> Decoded<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn varint(&mut self) -> Decoded<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err("a page's header with an endless number".to_owned())
    }

    fn byte(&mut self) -> Decoded<u8> {
        let (first, rest) = self.0.split_first().ok_or(CUT)?;
        self.0 = rest;
        Ok(*first)
    }

    fn advance(&mut self, bytes: usize) -> Decoded<()> {
        self.0 = self.0.get(bytes..).ok_or(CUT)?;
        Ok(())
    }
}

const CUT: &str = "a page's header is cut off";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the specification of Parquet and of Thrift's compact protocol say: a page of four rows, one NULL, with
    /// statistics (a field of no interest), uncompressed.
    fn page() -> Vec<u8> {
        let zigzag = |value: u8| value << 1;
        let mut page = vec![0x15, zigzag(3), 0x15, zigzag(7), 0x15, zigzag(7)];
        page.extend([0x5c, 0x15, zigzag(4), 0x15, zigzag(1), 0x15, zigzag(4), 0x15, zigzag(5), 0x15, zigzag(2)]);
        page.extend([0x15, 0, 0x12, 0x1c, 0x18, 2, b'a', b'b', 0, 0, 0]);
        page.extend([9, 9, 1, 2, 3, 4, 5]);
        page
    }

    #[test]
    fn a_page_is_read_as_the_specification_has_it() {
        let kind = Kind::Data { rows: 4, nulls: 1, encoding: Encoding::DELTA_BINARY_PACKED, levels: 2 };
        let read = read(&page(), Compression::ZSTD(Default::default()));
        assert_eq!(read, Ok((kind, vec![9, 9, 1, 2, 3, 4, 5])));
    }

    #[test]
    fn a_page_that_is_cut_off_says_so() {
        let page = page();
        for length in 0..page.len() {
            assert!(read(&page[..length], Compression::UNCOMPRESSED).is_err(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_more_than_they_are(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((_, page)) = read(&bytes, Compression::UNCOMPRESSED) {
                prop_assert!(page.len() <= bytes.len());
            }
        }
    }
}
