//! Where decisions become durable: entries of a raft log (`crate::raft`), whose state machine is `Machine`.
//!
//! The directory is `raft::Disk`'s; the state in its snapshot is a `Machine` as JSON, an entry a `Record` as JSON.

use super::record::{Machine, Record};
use crate::raft::{Driver, Reign, StateMachine, explained, read_only};
use async_trait::async_trait;
use proto::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use storage::{StorageError, Vfs};

pub use crate::raft::SNAPSHOT_FILE as CATALOG;

/// A record's place in the order of all records of this reign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

#[async_trait]
pub trait DecisionLog: Send + Sync + 'static {
    /// Gives the record its place in the order. Not yet durable; somebody will `sync` it.
    ///
    /// # Errors
    /// Nothing was added: the transaction may be aborted.
    fn append(&self, record: &Record) -> Result<Position>;

    /// The same for a record that nobody waits for: it is written with the next that is `append`ed, or at `flush`.
    fn note(&self, record: &Record) -> Result<()>;

    /// Durable on return, with all records before it: on a majority of the coordinators.
    ///
    /// # Errors
    /// Whether the record is durable is not known, and nothing more can be logged.
    async fn sync(&self, position: Position) -> Result<()>;

    /// Begins to write what was noted.
    fn flush(&self);

    /// Waits until it is certain that nobody else has decided anything that is not known here: not at all, as a rule.
    ///
    /// # Errors
    /// Nothing more can be logged.
    async fn assured(&self) -> Result<()>;

    /// Logs nothing more: whoever logs next begins with what is durable.
    fn resign(&self, reason: &Error);

    /// Waits until nothing more can be logged, and says why.
    async fn ended(&self) -> Error;
}

/// The log of a coordinator that leads, for as long as it does.
pub struct RaftLog {
    pub(super) reign: Reign,
    /// Lives as long as somebody logs.
    pub(super) _driver: Arc<Driver<Machine>>,
}

#[async_trait]
impl DecisionLog for RaftLog {
    fn append(&self, record: &Record) -> Result<Position> {
        self.reign.propose(record.encode()?, true).map(Position)
    }

    fn note(&self, record: &Record) -> Result<()> {
        self.reign.propose(record.encode()?, false).map(drop)
    }

    async fn sync(&self, position: Position) -> Result<()> {
        self.reign.committed(position.0).await
    }

    fn flush(&self) {
        self.reign.hurry();
    }

    async fn assured(&self) -> Result<()> {
        self.reign.assured().await
    }

    fn resign(&self, reason: &Error) {
        self.reign.resign(reason);
    }

    async fn ended(&self) -> Error {
        self.reign.ended().await
    }
}

impl StateMachine for Machine {
    fn decode(state: &[u8]) -> Result<Machine, String> {
        serde_json::from_slice(state).map_err(|e| e.to_string())
    }

    fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(format!("the catalog cannot be written: {e}")))
    }

    fn apply(&mut self, entry: &[u8]) -> Result<(), String> {
        let record = Record::decode(entry)?;
        Machine::apply(self, &record).map_err(|error| error.to_string())
    }
}

/// Reads the catalog and every record since, and applies them as a start would. Changes nothing.
///
/// # Errors
/// The first thing that a start would stumble over; 55000 while a coordinator runs on the directory.
pub fn verify(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let entries = read_only(vfs, dir).map_err(explained)?;
    let damaged = |reason: String| Error::from(StorageError::damaged(&dir.join(CATALOG), 0, reason));
    let mut machine = <Machine as StateMachine>::decode(entries.snapshot_state()).map_err(damaged)?;
    for (index, data) in entries.since_snapshot() {
        let applied = StateMachine::apply(&mut machine, data);
        applied.map_err(|reason| damaged(format!("entry {index} of the log cannot be applied: {reason}")))?;
    }
    Ok(())
}

/// What a session is told when the log ended under its commit.
pub(super) fn unknown_outcome(error: &Error) -> Error {
    let text = "the coordinator's log ended while the transaction was committed: its outcome is not known";
    Error::new(proto::SqlState::TRANSACTION_RESOLUTION_UNKNOWN, text)
        .detail(error.message.clone())
        .reaction(proto::Reaction::GiveUp)
}
