//! COPY's binary form, in and out.
//!
//! ```text
//! 0     "PGCOPY\n\xff\r\n\0"
//! 11    flags u32: bit 16 would mean oids, the upper half must be understood, the lower may be ignored
//! 15    length of an extension u32, then the extension, which is skipped
//! …     tuples: count of fields i16, then per field its length i32 (-1 for NULL) and its bytes
//! …     the end: i16 -1; may be missing
//! ```
//! All integers big-endian. A value is as `typsend` writes it (`engine::types`).

use super::RECORD_BYTES_MAX;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use engine::PgType;
use engine::types::{ColumnBinary, ColumnBuilder, TimeContext};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const HEADER_BYTES: usize = 19;
const CRITICAL_FLAGS: u32 = 0xffff_0000;
const OIDS_FLAG: u32 = 1 << 16;
const BATCH_ROWS_MAX: usize = 64 << 10;
const BATCH_BYTES_MAX: usize = 8 << 20;
const ROWS_GUESS: usize = 8 << 10;

/// After an error it is good for nothing but dropping.
pub struct BinaryParser {
    table: String,
    schema: SchemaRef,
    columns: Vec<(String, ColumnBuilder)>,
    /// Bytes that do not make a whole tuple yet.
    pending: Vec<u8>,
    state: State,
    /// Of the tuple in work, from 1.
    line: u64,
    rows_count: usize,
    bytes_count: usize,
}

enum State {
    Header,
    Tuples,
    Ended,
}

impl BinaryParser {
    pub fn new(columns: &[(String, PgType)], context: TimeContext, table: &str) -> BinaryParser {
        let fields: Vec<_> = columns.iter().map(|(name, ty)| ty.field(name, true)).collect();
        let builders = columns.iter().map(|(name, ty)| (name.clone(), ColumnBuilder::new(ty, context, ROWS_GUESS)));
        BinaryParser {
            table: table.to_owned(),
            schema: Arc::new(Schema::new(fields)),
            columns: builders.collect(),
            pending: Vec::new(),
            state: State::Header,
            line: 1,
            rows_count: 0,
            bytes_count: 0,
        }
    }

    /// Takes in bytes, cut anywhere; gives the batches that are full.
    ///
    /// # Errors
    /// What PostgreSQL gives for the data, with its `CONTEXT`.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<RecordBatch>> {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut full = Vec::new();
        let mut at = 0;
        while let Some(length) = self.take(&pending[at..])? {
            at += length;
            if self.rows_count >= BATCH_ROWS_MAX || self.bytes_count >= BATCH_BYTES_MAX {
                full.extend(self.batch()?);
            }
        }
        self.pending = pending;
        self.pending.drain(..at);
        if self.pending.len() > RECORD_BYTES_MAX {
            return Err(self.at_line(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "COPY row is too long")));
        }
        Ok(full)
    }

    /// The end of the data: what is left.
    ///
    /// # Errors
    /// 22P04 when it ends inside the header or a tuple.
    pub fn finish(mut self) -> Result<Option<RecordBatch>> {
        match self.state {
            State::Header => Err(malformed("COPY file signature not recognized")),
            State::Tuples if !self.pending.is_empty() => Err(self.at_line(malformed("unexpected EOF in COPY data"))),
            State::Tuples | State::Ended => self.batch(),
        }
    }

    /// Reads one whole thing from the front and says how long it is; `None` when it is not all there.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        match self.state {
            State::Header => self.header(bytes),
            State::Tuples => self.tuple(bytes),
            State::Ended if bytes.is_empty() => Ok(None),
            State::Ended => Err(self.at_line(malformed("received copy data after EOF marker"))),
        }
    }

    fn header(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let known = bytes.len().min(SIGNATURE.len());
        if bytes[..known] != SIGNATURE[..known] {
            return Err(malformed("COPY file signature not recognized"));
        }
        let (Some(flags), Some(extension)) = (u32_at(bytes, 11), u32_at(bytes, 15)) else { return Ok(None) };
        if flags & OIDS_FLAG != 0 {
            return Err(malformed("invalid COPY file header (WITH OIDS)"));
        }
        if flags & CRITICAL_FLAGS != 0 {
            return Err(malformed("unrecognized critical flags in COPY file header"));
        }
        if extension as usize > RECORD_BYTES_MAX {
            return Err(malformed("invalid COPY file header (wrong length)"));
        }
        let length = HEADER_BYTES + extension as usize;
        if bytes.len() < length {
            return Ok(None);
        }
        self.state = State::Tuples;
        Ok(Some(length))
    }

    fn tuple(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let Some(count) = bytes.get(..2).map(|count| i16::from_be_bytes([count[0], count[1]])) else { return Ok(None) };
        if count == -1 {
            self.state = State::Ended;
            return Ok(Some(2));
        }
        let expected = self.columns.len();
        if count as usize != expected {
            let message = format!("row field count is {count}, expected {expected}");
            return Err(self.at_line(malformed(message)));
        }
        // All of it must be there before a builder takes its first value.
        let mut fields = Vec::with_capacity(expected);
        let mut at = 2;
        for column in 0..expected {
            let Some(length) = u32_at(bytes, at).map(u32::cast_signed) else { return Ok(None) };
            at += 4;
            if length < -1 || length as i64 > RECORD_BYTES_MAX as i64 {
                return Err(self.at_column(malformed("invalid field size"), column));
            }
            let field = (length >= 0).then(|| at..at + length as usize);
            at = field.as_ref().map_or(at, |field| field.end);
            if bytes.len() < at {
                return Ok(None);
            }
            fields.push(field);
        }
        for (column, field) in fields.into_iter().enumerate() {
            let builder = &mut self.columns[column].1;
            let appended = match field {
                None => {
                    builder.append_null();
                    Ok(())
                }
                Some(field) => builder.append_binary(&bytes[field]),
            };
            appended.map_err(|error| self.at_column(error, column))?;
        }
        self.line += 1;
        self.rows_count += 1;
        self.bytes_count += at;
        Ok(Some(at))
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        self.bytes_count = 0;
        if std::mem::take(&mut self.rows_count) == 0 {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> = self.columns.iter_mut().map(|(_, builder)| builder.finish()).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        batch.map(Some).map_err(|error| Error::internal(error.to_string()))
    }

    fn at_line(&self, error: Error) -> Error {
        error.context(format!("COPY {}, line {}", self.table, self.line))
    }

    fn at_column(&self, error: Error, column: usize) -> Error {
        error.context(format!("COPY {}, line {}, column {}", self.table, self.line, self.columns[column].0))
    }
}

pub struct BinaryWriter {
    types: Vec<PgType>,
}

impl BinaryWriter {
    pub fn new(types: Vec<PgType>) -> BinaryWriter {
        BinaryWriter { types }
    }

    /// What comes before all rows.
    pub fn header(&self) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.resize(HEADER_BYTES, 0);
        header
    }

    /// What comes after all rows.
    pub fn trailer(&self) -> Vec<u8> {
        (-1_i16).to_be_bytes().to_vec()
    }

    /// Appends rows, and to `ends` where each ends in `out`.
    ///
    /// # Errors
    /// As `ColumnBinary::new`.
    pub fn write_rows(&self, batch: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<()> {
        assert_eq!(batch.num_columns(), self.types.len(), "a batch has the columns of its query");
        let columns = batch.columns().iter().zip(&self.types).map(|(array, ty)| ColumnBinary::new(array, ty));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            out.extend_from_slice(&(columns.len() as i16).to_be_bytes());
            for column in &columns {
                let start = out.len();
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                if !column.is_null(row) {
                    column.write(row, out)?;
                    let length = (out.len() - start - 4) as i32;
                    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
                }
            }
            ends.push(out.len());
        }
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes)
}

fn malformed(message: impl Into<String>) -> Error {
    Error::new(SqlState::BAD_COPY_FILE_FORMAT, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::compute::concat_batches;

    fn columns() -> Vec<(String, PgType)> {
        vec![("a".to_owned(), PgType::Int4), ("b".to_owned(), PgType::Text)]
    }

    fn parse(bytes: &[u8], piece: usize) -> Result<Vec<RecordBatch>> {
        let mut parser = BinaryParser::new(&columns(), TimeContext::UTC, "t");
        let mut batches = Vec::new();
        for piece in bytes.chunks(piece) {
            batches.extend(parser.push(piece)?);
        }
        batches.extend(parser.finish()?);
        Ok(batches)
    }

    /// What `COPY (SELECT 7, 'x' UNION ALL SELECT NULL, '') TO STDOUT (FORMAT binary)` of PostgreSQL 15 sends.
    const TWO_ROWS: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\
        \0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x01x\
        \0\x02\xff\xff\xff\xff\0\0\0\0\
        \xff\xff";

    #[test]
    fn what_postgres_sends_is_read_and_written_back() {
        for piece in [1, 7, TWO_ROWS.len()] {
            let batches = parse(TWO_ROWS, piece).unwrap();
            let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
            let writer = BinaryWriter::new(vec![PgType::Int4, PgType::Text]);
            let (mut out, mut ends) = (writer.header(), Vec::new());
            writer.write_rows(&batch, &mut out, &mut ends).unwrap();
            out.extend(writer.trailer());
            assert_eq!(out, TWO_ROWS);
            assert_eq!(ends, [34, 44]);
        }
        // The end may be missing.
        assert_eq!(parse(&TWO_ROWS[..TWO_ROWS.len() - 2], 5).unwrap()[0].num_rows(), 2);
    }

    #[test]
    fn errors_are_postgres_ones() {
        let changed = |at: usize, with: &[u8]| {
            let mut bytes = TWO_ROWS.to_vec();
            bytes[at..at + with.len()].copy_from_slice(with);
            bytes
        };
        let integer_of = |bytes: &[u8]| {
            [&TWO_ROWS[..21], &(bytes.len() as u32).to_be_bytes(), bytes, b"\0\0\0\x01x\xff\xff"].concat()
        };
        let cases = [
            (b"1\t2\n".to_vec(), "22P04", "COPY file signature not recognized", None),
            (changed(12, &[1]), "22P04", "invalid COPY file header (WITH OIDS)", None),
            (changed(11, &[1]), "22P04", "unrecognized critical flags in COPY file header", None),
            (changed(20, &[3]), "22P04", "row field count is 3, expected 2", Some("COPY t, line 1")),
            (changed(21, &[255, 255, 255, 0]), "22P04", "invalid field size", Some("COPY t, line 1, column a")),
            (integer_of(b"\0\0\x07"), "08P01", "insufficient data left in message", Some("COPY t, line 1, column a")),
            (integer_of(b"\0\0\0\0\x07"), "22P03", "incorrect binary data format", Some("COPY t, line 1, column a")),
            (TWO_ROWS[..40].to_vec(), "22P04", "unexpected EOF in COPY data", Some("COPY t, line 2")),
            ([TWO_ROWS, b"x"].concat(), "22P04", "received copy data after EOF marker", Some("COPY t, line 3")),
        ];
        for (bytes, code, message, context) in cases {
            let error = parse(&bytes, 9).unwrap_err();
            assert_eq!((error.code.as_str(), error.message.as_str()), (code, message));
            assert_eq!(error.context.as_deref(), context, "{message}");
        }
    }
}
