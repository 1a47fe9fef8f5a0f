//! Bytes as they arrive to blocks of whole records. A record is a line, or more where a line end is quoted (CSV) or
//! escaped (text). Nothing is parsed here: a block costs one copy and a search from its end.

use super::{CopyFormat, CopyOptions};
use proto::{Error, Result, SqlState};

/// Longest record, header included.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Whole records. The last one may lack its line end if it is the last of all.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub bytes: Vec<u8>,
    /// Number of the first line, from 1.
    pub first_line: u64,
    /// Lines end in CR LF, as the first of all did.
    pub crlf: bool,
}

pub struct LineSplitter {
    format: CopyFormat,
    quote: u8,
    escape: u8,
    /// What came after the last whole record, never longer than `RECORD_BYTES_MAX` between calls.
    pending: Vec<u8>,
    /// How much of `pending` has been looked at.
    scanned: usize,
    /// Of the CSV reader, at `scanned`.
    state: CsvState,
    next_line: u64,
    crlf: Option<bool>,
    /// The end-of-data marker has been seen; the rest is ignored.
    ended: bool,
    /// Bytes to gather before a block is cut.
    block_bytes_min: usize,
}

impl LineSplitter {
    pub fn new(options: &CopyOptions) -> LineSplitter {
        LineSplitter {
            format: options.format,
            quote: options.quote,
            escape: options.escape,
            pending: Vec::new(),
            scanned: 0,
            state: CsvState::default(),
            next_line: 1,
            crlf: None,
            ended: false,
            block_bytes_min: 0,
        }
    }

    /// Blocks but the last have at least so many bytes.
    pub fn with_block_bytes_min(self, block_bytes_min: usize) -> LineSplitter {
        LineSplitter { block_bytes_min, ..self }
    }

    /// Takes bytes in and gives the records they complete, all of them in one block.
    ///
    /// # Errors
    /// 54000 for a record that is too long.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Block>> {
        if self.ended {
            return Ok(None);
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() < self.block_bytes_min {
            return Ok(None);
        }
        let end = match self.format {
            CopyFormat::Text => self.last_text_end(),
            CopyFormat::Csv => self.last_csv_end(),
        };
        self.scanned = self.pending.len();
        let block = end.map(|end| {
            let rest = self.pending.split_off(end);
            let bytes = std::mem::replace(&mut self.pending, rest);
            self.scanned = self.pending.len();
            self.block(bytes)
        });
        if self.pending.len() > RECORD_BYTES_MAX {
            let line = self.next_line;
            return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "COPY line is too long")
                .detail(format!("Line {line} is longer than {RECORD_BYTES_MAX} bytes.")));
        }
        Ok(block.filter(|block| !block.bytes.is_empty()))
    }

    /// The last record, if it came without a line end.
    pub fn finish(&mut self) -> Option<Block> {
        let bytes = std::mem::take(&mut self.pending);
        let block = (!self.ended && !bytes.is_empty()).then(|| self.block(bytes));
        self.ended = true;
        block.filter(|block| !block.bytes.is_empty())
    }

    fn block(&mut self, mut bytes: Vec<u8>) -> Block {
        let crlf = *self.crlf.get_or_insert_with(|| match memchr::memchr(b'\n', &bytes) {
            Some(end) => end > 0 && bytes[end - 1] == b'\r',
            None => false,
        });
        if let Some(end) = self.marker(&bytes) {
            bytes.truncate(end);
            self.pending.clear();
            self.ended = true;
        }
        let first_line = self.next_line;
        self.next_line += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        Block { bytes, first_line, crlf }
    }

    /// End of the last record in text format: a line end that no backslash escapes.
    fn last_text_end(&self) -> Option<usize> {
        memchr::memrchr_iter(b'\n', &self.pending[self.scanned..])
            .map(|at| at + self.scanned)
            .find_map(|at| (!ends_escaped(&self.pending[..at])).then_some(at + 1))
    }

    /// End of the last record in CSV: a line end outside of quotes.
    fn last_csv_end(&mut self) -> Option<usize> {
        let new = &self.pending[self.scanned..];
        if !self.state.in_quote && memchr::memchr(self.quote, new).is_none() {
            return memchr::memrchr(b'\n', new).map(|at| self.scanned + at + 1);
        }
        let mut last = None;
        let scanned = self.scanned;
        self.state.scan(new, self.quote, self.escape, |end| last = Some(scanned + end));
        last
    }

    /// Start of the line `\.` that ends the data; it must be a record of its own.
    fn marker(&self, bytes: &[u8]) -> Option<usize> {
        let mut candidates = memchr::memmem::find_iter(bytes, b"\\.").filter(|at| {
            let starts_line = *at == 0 || bytes[at - 1] == b'\n';
            let rest = &bytes[at + 2..];
            starts_line && (rest.is_empty() || rest[0] == b'\n' || rest.starts_with(b"\r\n"))
        });
        if self.format == CopyFormat::Text {
            return candidates.find(|at| !ends_escaped(&bytes[..at.saturating_sub(1)]));
        }
        let mut candidates = candidates.peekable();
        candidates.peek()?;
        // Candidates inside of quotes are data, so the record ends are needed: both ascend.
        let mut found = None;
        let mut check = |record: usize| {
            while candidates.next_if(|at| *at < record).is_some() {}
            if found.is_none() && candidates.peek() == Some(&record) {
                found = Some(record);
            }
        };
        check(0);
        CsvState::default().scan(bytes, self.quote, self.escape, check);
        found
    }
}

/// An odd number of backslashes at the end escapes what follows.
fn ends_escaped(bytes: &[u8]) -> bool {
    bytes.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[derive(Default)]
struct CsvState {
    in_quote: bool,
    after_escape: bool,
}

impl CsvState {
    /// Calls `record_end` with each position behind a line end that no quotes hold.
    fn scan(&mut self, bytes: &[u8], quote: u8, escape: u8, mut record_end: impl FnMut(usize)) {
        // A doubled quote leaves and enters again, so only a distinct escape needs attention.
        let mut escaped_at = std::mem::take(&mut self.after_escape).then_some(0);
        for at in memchr::memchr3_iter(quote, escape, b'\n', bytes) {
            let is_escaped = escaped_at == Some(at);
            match bytes[at] {
                b'\n' if !self.in_quote => record_end(at + 1),
                byte if byte == quote && !is_escaped => self.in_quote = !self.in_quote,
                byte if byte == escape && byte != quote && self.in_quote && !is_escaped => escaped_at = Some(at + 1),
                _ => {}
            }
        }
        self.after_escape = escaped_at == Some(bytes.len());
    }
}
