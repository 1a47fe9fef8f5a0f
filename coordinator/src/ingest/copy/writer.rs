//! Columns to COPY's text and CSV.

use super::{CopyFormat, CopyOptions, HeaderLine};
use arrow::array::RecordBatch;
use engine::PgType;
use engine::types::{ColumnText, Formatter};
use proto::{Error, Result, SqlState};

pub struct CopyWriter {
    options: CopyOptions,
    columns: Vec<(String, PgType)>,
    formatter: Formatter,
    /// Per column.
    force_quote: Vec<bool>,
}

impl CopyWriter {
    /// # Errors
    /// 42703 for a column that an option names and the result does not have, 0A000 for a header to match.
    pub fn new(options: CopyOptions, columns: Vec<(String, PgType)>, formatter: Formatter) -> Result<CopyWriter> {
        if options.header == HeaderLine::Match {
            return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot use \"match\" with HEADER in COPY TO"));
        }
        for name in &options.force_quote {
            if !columns.iter().any(|(column, _)| column == name) {
                return Err(Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist")));
            }
        }
        let force_quote = columns.iter().map(|(name, _)| options.force_quote.contains(name)).collect();
        Ok(CopyWriter { options, columns, formatter, force_quote })
    }

    /// Appends the header line, if there is to be one; comes before all rows.
    pub fn write_header(&self, out: &mut Vec<u8>) {
        if self.options.header == HeaderLine::Absent {
            return;
        }
        for (index, (name, _)) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(self.options.delimiter);
            }
            self.value(name.as_bytes(), false, out);
        }
        out.push(b'\n');
    }

    /// Appends the rows of a batch whose columns are this writer's.
    ///
    /// # Errors
    /// As `ColumnText::new`.
    pub fn write(&self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        self.write_rows(batch, out, &mut Vec::new())
    }

    /// As `write`; appends to `ends` where each row ends in `out`.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_rows(&self, batch: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<()> {
        assert_eq!(batch.num_columns(), self.columns.len(), "a batch has the columns of its query");
        let columns: Vec<ColumnText> = batch
            .columns()
            .iter()
            .zip(&self.columns)
            .map(|(array, (_, ty))| ColumnText::new(array, ty, &self.formatter))
            .collect::<Result<_>>()?;
        let mut text = Vec::new();
        for row in 0..batch.num_rows() {
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    out.push(self.options.delimiter);
                }
                if column.is_null(row) {
                    out.extend_from_slice(self.options.null.as_bytes());
                    continue;
                }
                text.clear();
                column.write(row, &mut text);
                self.value(&text, self.force_quote[index], out);
            }
            out.push(b'\n');
            ends.push(out.len());
        }
        Ok(())
    }

    fn value(&self, text: &[u8], force_quote: bool, out: &mut Vec<u8>) {
        match self.options.format {
            CopyFormat::Text => self.escape(text, out),
            CopyFormat::Csv if force_quote || self.needs_quotes(text) => self.quote(text, out),
            CopyFormat::Csv => out.extend_from_slice(text),
        }
    }

    fn needs_quotes(&self, text: &[u8]) -> bool {
        text == self.options.null.as_bytes()
            // Alone on its line it would end the data.
            || self.columns.len() == 1 && text == b"\\."
            || memchr::memchr3(self.options.delimiter, self.options.quote, b'\n', text).is_some()
            || memchr::memchr(b'\r', text).is_some()
    }

    fn quote(&self, text: &[u8], out: &mut Vec<u8>) {
        let CopyOptions { quote, escape, .. } = self.options;
        out.push(quote);
        for byte in text {
            if *byte == quote || *byte == escape {
                out.push(escape);
            }
            out.push(*byte);
        }
        out.push(quote);
    }

    fn escape(&self, text: &[u8], out: &mut Vec<u8>) {
        for byte in text {
            let letter = match byte {
                8 => b'b',
                12 => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                11 => b'v',
                b'\\' => b'\\',
                byte if *byte == self.options.delimiter => *byte,
                plain => {
                    out.push(*plain);
                    continue;
                }
            };
            out.extend_from_slice(&[b'\\', letter]);
        }
    }
}
