//! A COPY stream on one thread: split, then parse.

use super::{BlockParser, CopyOptions, LineSplitter};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use engine::PgType;
use engine::types::TimeContext;
use proto::Result;
use std::sync::Arc;

pub struct CopyParser {
    splitter: LineSplitter,
    blocks: BlockParser,
}

impl CopyParser {
    /// `columns` are those of the data, in its order; `table` is named in errors.
    ///
    /// # Errors
    /// 42703 for a column that an option names and the data does not have.
    pub fn new(
        options: CopyOptions,
        columns: &[(String, PgType)],
        context: TimeContext,
        table: &str,
    ) -> Result<CopyParser> {
        let splitter = LineSplitter::new(&options);
        Ok(CopyParser { splitter, blocks: BlockParser::new(Arc::new(options), columns, context, table)? })
    }

    pub fn schema(&self) -> &SchemaRef {
        self.blocks.schema()
    }

    /// Takes in bytes, cut anywhere; gives the batches that are full.
    ///
    /// # Errors
    /// What PostgreSQL gives for the data, with its `CONTEXT`.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<RecordBatch>> {
        let mut full = Vec::new();
        if let Some(block) = self.splitter.push(bytes)? {
            self.blocks.parse(&block, &mut full)?;
        }
        Ok(full)
    }

    /// The end of the data: what is left.
    ///
    /// # Errors
    /// As `push`.
    pub fn finish(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        if let Some(block) = self.splitter.finish() {
            self.blocks.parse(&block, &mut batches)?;
        }
        batches.extend(self.blocks.take()?);
        Ok(batches)
    }
}
