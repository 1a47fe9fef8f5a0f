//! What can go wrong below, and how it looks to the callers above.

use crate::log::Lsn;
use proto::{ChunkId, CommitSeq, Reaction, SqlState, TxnId};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("could not {action} \"{}\": {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    #[error("damaged file \"{}\" at offset {offset}: {reason}", path.display())]
    Damaged { path: PathBuf, offset: u64, reason: String },

    #[error("\"{}\" has format version {found}, this build reads version {expected}", path.display())]
    Format { path: PathBuf, found: String, expected: u32 },

    #[error("data directory \"{}\" is in use by another process", path.display())]
    Locked { path: PathBuf },

    /// A write or fsync failed earlier: nothing is known about what the disk holds, so nothing more is promised.
    #[error("storage has stopped after an earlier failure: {0}")]
    Poisoned(String),

    #[error("a log record of {bytes} bytes is longer than the allowed {max}")]
    RecordTooLong { bytes: usize, max: usize },

    #[error("log record at {lsn} cannot be applied: {reason}", lsn = lsn.0)]
    Replay { lsn: Lsn, reason: String },

    #[error("chunk {0} was dropped")]
    ChunkDropped(ChunkId),

    #[error("chunk {chunk} holds rows of transaction {txn}, whose outcome is not known yet")]
    InDoubt { chunk: ChunkId, txn: TxnId },

    #[error("memory for rows that are not in segments yet is used up ({bytes} of {max} bytes)")]
    DeltaFull { bytes: usize, max: usize },

    #[error("transaction {txn} {reason}")]
    Txn { txn: TxnId, reason: String },

    #[error("the coordinator of epoch {epoch} does not lead any more: a later one, of epoch {newest}, was here")]
    Deposed { epoch: u64, newest: u64 },

    /// Rows the snapshot would see are gone for good.
    #[error("snapshot too old")]
    SnapshotTooOld { chunk: ChunkId, snapshot: CommitSeq },

    #[error("duplicate key value violates unique constraint \"{key}\"")]
    Duplicate { key: String, detail: String },

    /// Rows to be removed were removed or moved by somebody else since they were read.
    #[error("could not serialize access due to concurrent update")]
    Conflict(ChunkId),

    #[error("canceling statement due to lock timeout")]
    LockTimeout { chunk: ChunkId, holder: Option<TxnId> },

    #[error("it is not known whether transaction {txn} was committed: {source}")]
    OutcomeUnknown { txn: TxnId, source: Box<StorageError> },

    #[error("{0}")]
    Identity(String),

    #[error("{0}")]
    NotAttached(String),

    #[error("{0}")]
    Unsupported(String),

    #[error("bad write: {0}")]
    BadWrite(String),

    #[error("Arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

pub type Result<T, E = StorageError> = std::result::Result<T, E>;

impl StorageError {
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        move |source| StorageError::Io { action, path: path.to_owned(), source }
    }

    pub fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> StorageError {
        StorageError::Damaged { path: path.to_owned(), offset, reason: reason.into() }
    }

    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, StorageError::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

impl From<StorageError> for proto::Error {
    fn from(error: StorageError) -> proto::Error {
        let (code, reaction) = match &error {
            StorageError::Io { .. } if error.is_disk_full() => (SqlState::DISK_FULL, Reaction::Abort),
            StorageError::Io { .. } => (SqlState::IO_ERROR, Reaction::Abort),
            StorageError::Damaged { .. } | StorageError::Replay { .. } => (SqlState::DATA_CORRUPTED, Reaction::Report),
            StorageError::Format { .. } | StorageError::Locked { .. } => {
                (SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, Reaction::GiveUp)
            }
            StorageError::Poisoned(_) => (SqlState::IO_ERROR, Reaction::GiveUp),
            StorageError::RecordTooLong { .. } => (SqlState::PROGRAM_LIMIT_EXCEEDED, Reaction::Abort),
            StorageError::ChunkDropped(_) => (SqlState::SERIALIZATION_FAILURE, Reaction::Abort),
            StorageError::InDoubt { .. } => (SqlState::CANNOT_CONNECT_NOW, Reaction::Retry),
            StorageError::DeltaFull { .. } => (SqlState::OUT_OF_MEMORY, Reaction::Abort),
            StorageError::Txn { .. } => (SqlState::SERIALIZATION_FAILURE, Reaction::Abort),
            StorageError::Deposed { .. } => (SqlState::ADMIN_SHUTDOWN, Reaction::Abort),
            StorageError::SnapshotTooOld { .. } => (SqlState::SNAPSHOT_TOO_OLD, Reaction::Abort),
            StorageError::Duplicate { .. } => (SqlState::UNIQUE_VIOLATION, Reaction::Report),
            StorageError::Conflict(_) => (SqlState::SERIALIZATION_FAILURE, Reaction::Abort),
            StorageError::LockTimeout { .. } => (SqlState::LOCK_NOT_AVAILABLE, Reaction::Abort),
            StorageError::OutcomeUnknown { .. } => (SqlState::TRANSACTION_RESOLUTION_UNKNOWN, Reaction::Resolve),
            StorageError::Identity(_) => (SqlState::DATA_NODE_ASSIGNMENT, Reaction::Report),
            StorageError::NotAttached(_) => (SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, Reaction::Report),
            StorageError::Unsupported(_) => (SqlState::FEATURE_NOT_SUPPORTED, Reaction::Report),
            StorageError::BadWrite(_) => (SqlState::PROTOCOL_VIOLATION, Reaction::Abort),
            StorageError::Arrow(_) => (SqlState::INTERNAL_ERROR, Reaction::Report),
        };
        let text = proto::Error::new(code, error.to_string()).reaction(reaction);
        match error {
            StorageError::Duplicate { detail, .. } => text.detail(detail),
            _ => text,
        }
    }
}
