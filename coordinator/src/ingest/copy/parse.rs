//! A block of records to columns. The hot path of loading: for each field one search for its end and one append to its
//! column; line numbers are counted only when something is wrong.

use super::fields::{Field, Fields};
use super::{Block, CopyOptions, HeaderLine};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use engine::PgType;
use engine::types::{ColumnBuilder, TimeContext, utf8};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

/// A batch is closed at whichever comes first.
const BATCH_ROWS_MAX: usize = 64 << 10;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Rows that builders make room for at once.
const ROWS_GUESS: usize = 8 << 10;
/// Characters of the data shown in an error's context.
const SHOWN_BYTES_MAX: usize = 100;

/// Parses blocks of one COPY, in any order: of a block it must know only whether it is the first.
pub struct BlockParser {
    options: Arc<CopyOptions>,
    table: String,
    schema: SchemaRef,
    columns: Vec<Column>,
    rows_count: usize,
    bytes_count: usize,
}

struct Column {
    name: String,
    builder: ColumnBuilder,
    force_null: bool,
    force_not_null: bool,
}

impl BlockParser {
    /// `columns` are those of the data, in its order.
    ///
    /// # Errors
    /// 42703 for a column that an option names and the data does not have.
    pub fn new(
        options: Arc<CopyOptions>,
        columns: &[(String, PgType)],
        context: TimeContext,
        table: &str,
    ) -> Result<BlockParser> {
        for name in options.force_null.iter().chain(&options.force_not_null) {
            if !columns.iter().any(|(column, _)| column == name) {
                let message = format!("column \"{name}\" of relation \"{table}\" does not exist");
                return Err(Error::new(SqlState::UNDEFINED_COLUMN, message));
            }
        }
        let fields: Vec<_> = columns.iter().map(|(name, ty)| ty.field(name, true)).collect();
        let columns = columns.iter().map(|(name, ty)| Column {
            name: name.clone(),
            builder: ColumnBuilder::new(ty, context, ROWS_GUESS),
            force_null: options.force_null.contains(name),
            force_not_null: options.force_not_null.contains(name),
        });
        Ok(BlockParser {
            table: table.to_owned(),
            schema: Arc::new(Schema::new(fields)),
            columns: columns.collect(),
            rows_count: 0,
            bytes_count: 0,
            options,
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes in a block; full batches go to `full`.
    ///
    /// # Errors
    /// What PostgreSQL gives, with its `CONTEXT`: the table, the line, the column.
    pub fn parse(&mut self, block: &Block, full: &mut Vec<RecordBatch>) -> Result<()> {
        let options = Arc::clone(&self.options);
        let text = utf8(&block.bytes).map_err(|error| self.at_bad_bytes(error, block))?;
        let mut fields = Fields::new(text, block, &options);
        if block.first_line == 1 && options.header != HeaderLine::Absent {
            self.header(&mut fields, block)?;
        }
        while !fields.is_done() {
            let start = fields.position();
            self.record(&mut fields, block)?;
            self.rows_count += 1;
            self.bytes_count += fields.position() - start;
            if self.rows_count >= BATCH_ROWS_MAX || self.bytes_count >= BATCH_BYTES_MAX {
                full.extend(self.take()?);
            }
        }
        Ok(())
    }

    /// The rows since the last full batch.
    ///
    /// # Errors
    /// Internal, if the columns do not make a batch.
    pub fn take(&mut self) -> Result<Option<RecordBatch>> {
        let rows_count = std::mem::take(&mut self.rows_count);
        self.bytes_count = 0;
        if rows_count == 0 {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> = self.columns.iter_mut().map(|column| column.builder.finish()).collect();
        let shape = RecordBatchOptions::new().with_row_count(Some(rows_count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &shape);
        batch.map(Some).map_err(|error| Error::internal(error.to_string()))
    }

    fn record(&mut self, fields: &mut Fields<'_>, block: &Block) -> Result<()> {
        let start = fields.position();
        let mut ended = false;
        for index in 0..self.columns.len() {
            if ended {
                let name = &self.columns[index].name;
                let error = malformed(format!("missing data for column \"{name}\""));
                return Err(self.at_line(error, block, start, fields.position()));
            }
            let field = match fields.next() {
                Ok(field) => field,
                Err(error) => return Err(self.at_line_or_quote(error, block, start, fields.position())),
            };
            ended = field.ends_record;
            let column = &mut self.columns[index];
            if let Err(error) = column.append(fields, &field) {
                let place = format!(", column {}: \"{}\"", self.columns[index].name, shown(fields.value(&field)));
                return Err(error.context(self.place(block, start, fields.position()) + &place));
            }
        }
        if !ended {
            while !fields.is_done() && !fields.next()?.ends_record {}
            let error = malformed("extra data after last expected column".to_owned());
            return Err(self.at_line(error, block, start, fields.position()));
        }
        Ok(())
    }

    fn header(&mut self, fields: &mut Fields<'_>, block: &Block) -> Result<()> {
        let mut names: Vec<Option<String>> = Vec::new();
        let start = fields.position();
        while !fields.is_done() {
            let field = fields.next()?;
            names.push((!fields.is_null(&field)).then(|| fields.value(&field).to_owned()));
            if field.ends_record {
                break;
            }
        }
        if self.options.header != HeaderLine::Match {
            return Ok(());
        }
        let mismatch = match names.len() == self.columns.len() {
            false => Some(format!(
                "wrong number of fields in header line: got {}, expected {}",
                names.len(),
                self.columns.len()
            )),
            true => names.iter().zip(&self.columns).enumerate().find_map(|(index, (got, column))| {
                let got = match got {
                    Some(name) if *name == column.name => return None,
                    Some(name) => format!("\"{name}\""),
                    None => format!("null value (\"{}\")", self.options.null),
                };
                let (number, expected) = (index + 1, &column.name);
                Some(format!("column name mismatch in header line field {number}: got {got}, expected \"{expected}\""))
            }),
        };
        match mismatch {
            Some(message) => Err(self.at_line(malformed(message), block, start, fields.position())),
            None => Ok(()),
        }
    }

    /// `COPY table, line n`: the line on which the record ends.
    fn place(&self, block: &Block, start: usize, end: usize) -> String {
        let line_ends = memchr::memchr_iter(b'\n', &block.bytes[..end]).count() as u64;
        let is_whole = end > start && block.bytes[end - 1] == b'\n';
        let line = block.first_line + line_ends - u64::from(is_whole);
        format!("COPY {}, line {line}", self.table)
    }

    fn at_line(&self, error: Error, block: &Block, start: usize, position: usize) -> Error {
        // Shown whole, also where reading stopped inside.
        let end = match block.bytes[..position].last() {
            Some(b'\n') if position > start => position,
            _ => memchr::memchr(b'\n', &block.bytes[position..]).map_or(block.bytes.len(), |at| position + at + 1),
        };
        let line = String::from_utf8_lossy(&block.bytes[start..end]);
        let line = line.strip_suffix('\n').unwrap_or(&line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        error.context(format!("{}: \"{}\"", self.place(block, start, end), shown(line)))
    }

    /// Stray line ends are shown with the line's number alone.
    fn at_line_or_quote(&self, error: Error, block: &Block, start: usize, end: usize) -> Error {
        if error.hint.is_some() {
            return error.context(self.place(block, start, end));
        }
        if error.code == SqlState::BAD_COPY_FILE_FORMAT {
            let line = String::from_utf8_lossy(&block.bytes[start..end]).into_owned();
            let first_line_end = start + memchr::memchr(b'\n', &block.bytes[start..]).unwrap_or(end - start);
            let place = self.place(block, start, first_line_end);
            return error.context(format!("{place}: \"{}\"", shown(&line)));
        }
        self.at_line(error, block, start, end)
    }

    fn at_bad_bytes(&self, error: Error, block: &Block) -> Error {
        let good = match std::str::from_utf8(&block.bytes) {
            Ok(_) => memchr::memchr(0, &block.bytes).unwrap_or(0),
            Err(error) => error.valid_up_to(),
        };
        error.context(self.place(block, good, good))
    }
}

impl Column {
    fn append(&mut self, fields: &Fields<'_>, field: &Field) -> Result<()> {
        let is_null = match (self.force_null, self.force_not_null) {
            (true, _) if field.is_quoted => fields.value(field) == fields.null(),
            (_, true) => false,
            _ => fields.is_null(field),
        };
        match is_null {
            true => {
                self.builder.append_null();
                Ok(())
            }
            false => self.builder.append_str(fields.value(field)),
        }
    }
}

fn malformed(message: String) -> Error {
    Error::new(SqlState::BAD_COPY_FILE_FORMAT, message)
}

/// As much of the data as an error shows.
fn shown(text: &str) -> String {
    if text.len() <= SHOWN_BYTES_MAX {
        return text.to_owned();
    }
    let mut end = SHOWN_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}
