//! A COPY stream on all cores: the session splits it into blocks of whole records, blocking threads parse them, and the
//! batches come back in the order of the data, so that the first error is the one PostgreSQL would give.
//!
//! Bounded: no more blocks are under way than there are cores, and the session waits for the oldest before it takes more
//! of the client's bytes. Dropping it leaves at most those blocks to run to their end, for nobody.

use super::{Block, BlockParser, CopyOptions, LineSplitter};
use arrow::array::RecordBatch;
use engine::PgType;
use engine::types::TimeContext;
use proto::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Clients send lines or a few KiB at a time; a block should be worth a thread's while and give a batch of some size.
const BLOCK_BYTES_MIN: usize = 2 << 20;

pub struct ParallelParser {
    splitter: LineSplitter,
    options: Arc<CopyOptions>,
    columns: Vec<(String, PgType)>,
    context: TimeContext,
    table: String,
    workers_max: usize,
    /// Parsers without work; their builders keep their memory.
    idle: Vec<BlockParser>,
    under_way: VecDeque<JoinHandle<Result<Parsed>>>,
}

/// A block's batches, and the parser, free again.
type Parsed = (BlockParser, Vec<RecordBatch>);

impl ParallelParser {
    /// As `CopyParser::new`.
    ///
    /// # Errors
    /// 42703 for a column that an option names and the data does not have.
    pub fn new(
        options: CopyOptions,
        columns: Vec<(String, PgType)>,
        context: TimeContext,
        table: &str,
        workers_max: usize,
    ) -> Result<ParallelParser> {
        assert!(workers_max > 0, "somebody must parse");
        let splitter = LineSplitter::new(&options).with_block_bytes_min(BLOCK_BYTES_MIN);
        let options = Arc::new(options);
        let first = BlockParser::new(Arc::clone(&options), &columns, context, table)?;
        Ok(ParallelParser {
            splitter,
            options,
            columns,
            context,
            table: table.to_owned(),
            workers_max,
            idle: vec![first],
            under_way: VecDeque::new(),
        })
    }

    /// Takes in bytes, cut anywhere; gives the batches that are ready, in the order of the data.
    ///
    /// # Errors
    /// What PostgreSQL gives for the data, with its `CONTEXT`.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<Vec<RecordBatch>> {
        let Some(block) = self.splitter.push(bytes)? else { return Ok(Vec::new()) };
        let ready = match self.under_way.len() < self.workers_max {
            true => Vec::new(),
            false => self.oldest().await?,
        };
        self.start(block)?;
        Ok(ready)
    }

    /// The next batches after the end of the data; empty when there are no more.
    ///
    /// # Errors
    /// As `push`.
    pub async fn finish(&mut self) -> Result<Vec<RecordBatch>> {
        if let Some(block) = self.splitter.finish() {
            self.start(block)?;
        }
        while !self.under_way.is_empty() {
            let ready = self.oldest().await?;
            if !ready.is_empty() {
                return Ok(ready);
            }
        }
        Ok(Vec::new())
    }

    fn start(&mut self, block: Block) -> Result<()> {
        let mut parser = match self.idle.pop() {
            Some(parser) => parser,
            None => BlockParser::new(Arc::clone(&self.options), &self.columns, self.context, &self.table)?,
        };
        self.under_way.push_back(tokio::task::spawn_blocking(move || {
            let mut batches = Vec::new();
            parser.parse(&block, &mut batches)?;
            batches.extend(parser.take()?);
            Ok((parser, batches))
        }));
        Ok(())
    }

    async fn oldest(&mut self) -> Result<Vec<RecordBatch>> {
        let oldest = self.under_way.front_mut().expect("the caller has seen that there is one");
        let parsed = oldest.await;
        self.under_way.pop_front();
        let (parser, batches) = parsed.unwrap_or_else(|e| Err(Error::internal(format!("parsing stopped: {e}"))))?;
        self.idle.push(parser);
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::copy::CopyParser;
    use arrow::compute::concat_batches;

    fn columns() -> Vec<(String, PgType)> {
        vec![("a".to_owned(), PgType::Int4), ("b".to_owned(), PgType::Text)]
    }

    fn lines(count: usize) -> String {
        (0..count).map(|n| format!("{n},\"text of \"\"{n}\"\"\nand more\"\n")).collect()
    }

    async fn parse(text: &str, piece: usize, workers: usize) -> Result<Vec<RecordBatch>> {
        let mut parser = ParallelParser::new(CopyOptions::csv(), columns(), TimeContext::UTC, "t", workers).unwrap();
        let mut batches = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            batches.extend(parser.push(piece).await?);
        }
        loop {
            let more = parser.finish().await?;
            if more.is_empty() {
                return Ok(batches);
            }
            batches.extend(more);
        }
    }

    #[tokio::test]
    async fn many_threads_give_the_rows_of_one_in_its_order() {
        let text = lines(200_000);
        let mut one = CopyParser::new(CopyOptions::csv(), &columns(), TimeContext::UTC, "t").unwrap();
        let mut expected = one.push(text.as_bytes()).unwrap();
        let schema = one.schema().clone();
        expected.extend(one.finish().unwrap());
        let expected = concat_batches(&schema, &expected).unwrap();
        for (piece, workers) in [(8 << 10, 1), (100_003, 2), (text.len(), 4)] {
            let found = parse(&text, piece, workers).await.unwrap();
            assert!(piece == text.len() || found.len() > 1, "it was one block");
            assert_eq!(concat_batches(&schema, &found).unwrap(), expected);
        }
        assert!(parse("", 1, 2).await.unwrap().is_empty());
        assert_eq!(parse("7,x", 1, 2).await.unwrap()[0].num_rows(), 1);
    }

    /// Of two bad blocks the second may be parsed first.
    #[tokio::test]
    async fn the_first_error_in_the_data_is_reported() {
        let good = lines(100_000);
        let text = format!("{good}bad,1\n{good}{good}worse,1\n{good}");
        let error = parse(&text, 64 << 10, 4).await.unwrap_err();
        assert_eq!(error.message, "invalid input syntax for type integer: \"bad\"");
        assert_eq!(error.context.as_deref(), Some("COPY t, line 200001, column a: \"bad\""));
    }
}
