//! SQL cursors: DECLARE keeps a running query, FETCH takes rows from it, forward only.

use crate::pg::backend::{Outcome, OutputColumn, RowStream, Tag};
use arrow::array::RecordBatch;
use futures::StreamExt;
use proto::{Error, Result, SqlState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Open cursors of one session.
const CURSORS_COUNT_MAX: usize = 1000;

#[derive(Default)]
pub struct Cursors {
    open: BTreeMap<String, Cursor>,
}

struct Cursor {
    /// Of the block, when it was declared.
    era: u64,
    columns: Arc<[OutputColumn]>,
    stream: RowStream,
    /// Rows of the last batch that no FETCH has taken.
    rest: Option<RecordBatch>,
    /// Its query has failed; before a savepoint, so that it is still there.
    failed: bool,
}

impl Cursors {
    /// # Errors
    /// `42P03` when the name is taken, `53400` when there are too many.
    pub fn declare(&mut self, name: String, columns: Arc<[OutputColumn]>, stream: RowStream, era: u64) -> Result<()> {
        if self.open.contains_key(&name) {
            return Err(Error::new(SqlState::new("42P03"), format!("cursor \"{name}\" already exists")));
        }
        if self.open.len() >= CURSORS_COUNT_MAX {
            let message = format!("a session cannot keep more than {CURSORS_COUNT_MAX} cursors");
            return Err(Error::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, message));
        }
        self.open.insert(name, Cursor { era, columns, stream, rest: None, failed: false });
        Ok(())
    }

    pub fn columns(&self, name: &str) -> Option<Vec<OutputColumn>> {
        self.open.get(name).map(|cursor| cursor.columns.to_vec())
    }

    /// The next rows, at most `limit`. They are taken from the query before the client has them.
    ///
    /// # Errors
    /// `34000` for an unknown cursor, `55000` for one that has failed; the query's own.
    pub async fn fetch(&mut self, name: &str, limit: u64) -> Result<Outcome> {
        let cursor = self.open.get_mut(name).ok_or_else(|| no_cursor(name))?;
        if cursor.failed {
            let text = format!("portal \"{name}\" cannot be run");
            return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text));
        }
        let columns = cursor.columns.clone();
        let mut batches = Vec::new();
        let mut wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        while wanted > 0 {
            let next = match cursor.rest.take() {
                Some(rest) => Some(rest),
                None => cursor.stream.next().await.transpose().inspect_err(|_| cursor.failed = true)?,
            };
            let Some(batch) = next else { break };
            let taken = batch.num_rows().min(wanted);
            wanted -= taken;
            if taken < batch.num_rows() {
                cursor.rest = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            batches.push(Ok(batch.slice(0, taken)));
        }
        Ok(Outcome::Rows { columns, stream: futures::stream::iter(batches).boxed(), tag: Tag::Counted("FETCH".into()) })
    }

    /// # Errors
    /// `34000` for an unknown cursor.
    pub fn close(&mut self, name: &str) -> Result<()> {
        self.open.remove(name).map(|_| ()).ok_or_else(|| no_cursor(name))
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Closes those declared in other eras.
    pub fn keep(&mut self, is_alive: impl Fn(u64) -> bool) {
        self.open.retain(|_, cursor| is_alive(cursor.era));
    }

    pub fn close_all(&mut self) {
        self.open.clear();
    }
}

fn no_cursor(name: &str) -> Error {
    Error::new(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}
