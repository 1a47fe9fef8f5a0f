//! Where decisions become durable: entries of a raft log (`crate::raft`), whose state machine is `Machine`. The
//! coordinator is the only member of its group.
//!
//! The directory is `raft::Disk`'s; the state in its snapshot is a `Machine` as JSON, an entry a `Record` as JSON.

use super::record::{Machine, Record};
use crate::catalog::CatalogState;
use crate::raft::{Driver, DriverOptions, Genesis, StateMachine, explained, read_only};
use async_trait::async_trait;
use proto::{ClusterId, Error, Result, Rng};
use std::path::Path;
use std::sync::Arc;
use storage::{StorageError, Vfs};

pub use crate::raft::SNAPSHOT_FILE as CATALOG;

/// Of the only member.
const MEMBER: u64 = 1;

/// A record's place in the order of all records of this start.
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

    /// Durable on return, with all records before it.
    ///
    /// # Errors
    /// Whether the record is durable is not known, and nothing more can be logged.
    async fn sync(&self, position: Position) -> Result<()>;

    /// Begins to write what was noted.
    fn flush(&self);
}

pub struct RaftLog {
    driver: Driver,
}

impl RaftLog {
    /// Opens the directory, or makes a new cluster in it, and replays the log. Blocks.
    ///
    /// # Errors
    /// 55000 when another process has the directory or its format is another; XX001 for damage, with file and offset.
    pub fn open(vfs: Arc<dyn Vfs>, rng: &dyn Rng, dir: &Path, options: DriverOptions) -> Result<(RaftLog, Machine)> {
        let mut cluster = [0; 16];
        rng.fill(&mut cluster);
        let state = StateMachine::encode(&Machine::new(CatalogState::new(ClusterId(cluster))))?.into();
        let genesis = || Genesis { member: MEMBER, voters: vec![MEMBER], state };
        let (driver, machine) = Driver::open(vfs, dir, options, genesis)?;
        Ok((RaftLog { driver }, machine))
    }
}

#[async_trait]
impl DecisionLog for RaftLog {
    fn append(&self, record: &Record) -> Result<Position> {
        self.driver.propose(record.encode()?, true).map(Position)
    }

    fn note(&self, record: &Record) -> Result<()> {
        self.driver.propose(record.encode()?, false).map(drop)
    }

    async fn sync(&self, position: Position) -> Result<()> {
        self.driver.committed(position.0).await
    }

    fn flush(&self) {
        self.driver.hurry();
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

/// What a session is told when the log failed under its commit.
pub(super) fn unknown_outcome(error: &Error) -> Error {
    let text = "the coordinator's log failed while the transaction was committed: its outcome is not known";
    Error::new(proto::SqlState::TRANSACTION_RESOLUTION_UNKNOWN, text)
        .detail(error.message.clone())
        .reaction(proto::Reaction::GiveUp)
}
