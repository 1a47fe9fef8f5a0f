//! Record batches as DataRow messages: column writers are prepared once per batch, rows are written straight into the
//! outlet, and the stream behind is polled only when the client has taken what was written.

use super::attention::Attention;
use super::backend::{OutputColumn, RowStream, Tag};
use super::connection::Connection;
use super::encode::ColumnWriter;
use super::failure::Failure;
use arrow::array::RecordBatch;
use bytes::BufMut;
use engine::types::TimeContext;
use futures::StreamExt;
use proto::{Error, Result, SqlState};
use std::sync::Arc;

/// Clients refuse larger messages.
const ROW_BYTES_MAX: usize = (1 << 30) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Binary,
}

impl Format {
    pub(super) fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }

    fn from_code(code: i16) -> Result<Format> {
        match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => {
                let message = format!("unsupported format code: {other}");
                Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message))
            }
        }
    }

    /// One format per value from the codes of a Bind: none is text for all, one is for all, else one each. `None` when
    /// the number of codes does not fit.
    pub(super) fn spread(codes: &[i16], values_count: usize) -> Result<Option<Vec<Format>>> {
        match codes {
            [] => Ok(Some(vec![Format::Text; values_count])),
            [code] => Ok(Some(vec![Format::from_code(*code)?; values_count])),
            _ if codes.len() == values_count => {
                codes.iter().map(|code| Format::from_code(*code)).collect::<Result<_>>().map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// A result being sent; kept by a portal between two Executes.
pub(super) struct RowSource {
    pub(super) columns: Arc<[OutputColumn]>,
    stream: RowStream,
    tag: Tag,
    /// A batch of which the rows from the given one on are still to be sent.
    rest: Option<(RecordBatch, usize)>,
    /// By the current Execute.
    sent_count: u64,
    sent_in_all_count: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Finished,
    /// The row limit was reached. As in PostgreSQL this is said even if no row is left.
    Suspended,
}

impl RowSource {
    pub(super) fn new(columns: Arc<[OutputColumn]>, stream: RowStream, tag: Tag) -> RowSource {
        RowSource { columns, stream, tag, rest: None, sent_count: 0, sent_in_all_count: 0 }
    }

    /// A SELECT counts the rows of the last Execute, everything else what was done in all.
    pub(super) fn tag(&self) -> String {
        let is_select = self.tag == Tag::Counted("SELECT".into());
        self.tag.with_count(if is_select { self.sent_count } else { self.sent_in_all_count })
    }

    /// The tag of one more Execute after the last row; `None` where PostgreSQL refuses it.
    pub(super) fn tag_when_finished(&self) -> Option<String> {
        (self.tag == Tag::Counted("SELECT".into())).then(|| self.tag.with_count(0))
    }
}

impl Connection {
    pub(super) async fn send_rows(
        &mut self,
        source: &mut RowSource,
        formats: &[Format],
        rows_max: Option<u64>,
        attention: &mut Attention,
    ) -> Result<Progress, Failure> {
        let context = self.conversation.time_context();
        source.sent_count = 0;
        let left = |source: &RowSource| rows_max.map_or(u64::MAX, |max| max - source.sent_count);
        while left(source) > 0 {
            let (batch, start) = match source.rest.take() {
                Some(rest) => rest,
                None => match attention.watch(&mut self.inlet, source.stream.next()).await? {
                    Some(batch) => (batch?, 0),
                    None => {
                        self.feed_notices()?;
                        return Ok(Progress::Finished);
                    }
                },
            };
            let end = usize::try_from(left(source)).unwrap_or(usize::MAX).saturating_add(start).min(batch.num_rows());
            let rows = Rows::new(&batch, &source.columns, formats, &context)?;
            for row in start..end {
                rows.write(row, self.outlet.output())?;
                if self.outlet.is_full() {
                    attention.watch(&mut self.inlet, self.outlet.flush()).await??;
                }
            }
            source.sent_count += (end - start) as u64;
            source.sent_in_all_count += (end - start) as u64;
            if end < batch.num_rows() {
                source.rest = Some((batch, end));
            }
        }
        Ok(Progress::Suspended)
    }
}

/// The rows of one batch, ready to be written.
struct Rows {
    writers: Vec<ColumnWriter>,
}

impl Rows {
    fn new(batch: &RecordBatch, columns: &[OutputColumn], formats: &[Format], context: &TimeContext) -> Result<Rows> {
        if batch.num_columns() != columns.len() || formats.len() != columns.len() {
            let message = format!("a result of {} columns came with {}", columns.len(), batch.num_columns());
            return Err(Error::internal(message));
        }
        let writers = columns.iter().zip(batch.columns()).zip(formats);
        let writers = writers.map(|((column, array), format)| ColumnWriter::new(&column.ty, array, *format, context));
        Ok(Rows { writers: writers.collect::<Result<_>>()? })
    }

    /// Appends one DataRow, or nothing on an error.
    ///
    /// ```text
    /// 'D' | length i32, itself included | columns i16 | per column: length i32 (-1: NULL), bytes
    /// ```
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.put_u8(b'D');
        out.put_i32(0);
        out.put_u16(self.writers.len() as u16);
        for writer in &self.writers {
            if writer.is_null(row) {
                out.put_i32(-1);
                continue;
            }
            let value_start = out.len();
            out.put_i32(0);
            if let Err(error) = writer.write(row, out) {
                out.truncate(start);
                return Err(error);
            }
            let length = out.len() - value_start - 4;
            put_length(out, value_start, length);
        }
        let length = out.len() - start - 1;
        if length > ROW_BYTES_MAX {
            out.truncate(start);
            let message = format!("a row of {length} bytes exceeds the limit of {ROW_BYTES_MAX} bytes");
            return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
        }
        put_length(out, start + 1, length);
        Ok(())
    }
}

fn put_length(out: &mut [u8], at: usize, length: usize) {
    out[at..at + 4].copy_from_slice(&(length as u32).to_be_bytes());
}
