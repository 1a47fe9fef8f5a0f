//! The records of the two-phase log, and the state they add up to. No I/O: the same records give the same state on every
//! coordinator, and a record applied twice counts once.

use super::repeats::Repeats;
use crate::catalog::{CatalogChange, CatalogState};
use proto::{ClusterId, CommitSeq, Error, NodeName, Result, TxnId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Stored as JSON: a variant may be added, never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// The first coordinator that led gave the cluster its identity.
    Found { cluster: ClusterId },
    /// This member of the coordinators' group has this data directory, and may vote with no other.
    Member { member: u64, incarnation: u64 },
    /// The commit point: once durable, the transaction has happened on all participants and in the catalog.
    Commit {
        txn: TxnId,
        seq: CommitSeq,
        participants: Vec<NodeName>,
        changes: Vec<CatalogChange>,
        /// The client's name for it, under which it happens once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// All participants have acknowledged the commit.
    Done { txn: TxnId },
}

impl Record {
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(format!("a log record cannot be written: {e}")))
    }

    pub fn decode(bytes: &[u8]) -> Result<Record, String> {
        serde_json::from_slice(bytes).map_err(|e| format!("not a record of the two-phase log: {e}"))
    }
}

/// A commit that participants may still have to be told of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub seq: CommitSeq,
    pub participants: Vec<NodeName>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Of the last `Commit`.
    pub seq: CommitSeq,
    pub catalog: Arc<CatalogState>,
    /// The incarnation of each coordinator that was met.
    pub members: BTreeMap<u64, u64>,
    pub repeats: Repeats,
    /// Without `Done` yet.
    #[serde(with = "pairs")]
    pub undone: BTreeMap<TxnId, Decision>,
}

impl Machine {
    pub fn new(catalog: CatalogState) -> Machine {
        Machine {
            seq: CommitSeq::ZERO,
            catalog: Arc::new(catalog),
            members: BTreeMap::new(),
            repeats: Repeats::default(),
            undone: BTreeMap::new(),
        }
    }

    /// # Errors
    /// When the record's catalog changes are refused: nothing is changed. Never for a record that was logged, because
    /// it passed here first.
    pub fn apply(&mut self, record: &Record) -> Result<()> {
        self.apply_once(record, || Ok(()))
    }

    /// Applies the record if `append` takes it, in place: what it costs does not grow with the state.
    ///
    /// # Errors
    /// Those of `apply`, before `append` was called, and `append`'s: nothing is changed.
    pub(super) fn apply_once<T>(&mut self, record: &Record, append: impl FnOnce() -> Result<T>) -> Result<T> {
        let catalog = self.catalog_with(record)?;
        let appended = append()?;
        self.take(record, catalog);
        Ok(appended)
    }

    /// What the catalog becomes, if it changes.
    fn catalog_with(&self, record: &Record) -> Result<Option<Arc<CatalogState>>> {
        match record {
            Record::Commit { seq, changes, .. } if *seq > self.seq && !changes.is_empty() => {
                let mut catalog = CatalogState::clone(&self.catalog);
                catalog.apply_commit(*seq, changes)?;
                Ok(Some(Arc::new(catalog)))
            }
            _ => Ok(None),
        }
    }

    fn take(&mut self, record: &Record, catalog: Option<Arc<CatalogState>>) {
        self.catalog = catalog.unwrap_or_else(|| Arc::clone(&self.catalog));
        match record {
            Record::Found { cluster } => {
                if self.catalog.cluster() == ClusterId::NONE {
                    Arc::make_mut(&mut self.catalog).found(*cluster);
                }
            }
            Record::Member { member, incarnation } => {
                self.members.entry(*member).or_insert(*incarnation);
            }
            Record::Commit { seq, .. } if *seq <= self.seq => {}
            Record::Commit { txn, seq, participants, key, .. } => {
                if !participants.is_empty() {
                    let decision = Decision { seq: *seq, participants: participants.clone() };
                    self.undone.insert(*txn, decision);
                }
                if let Some(key) = key {
                    self.repeats.add(key, *seq);
                }
                self.seq = *seq;
            }
            Record::Done { txn } => {
                self.undone.remove(txn);
            }
        }
    }
}

/// JSON's maps have text keys only.
mod pairs {
    use super::{BTreeMap, Decision, TxnId};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(map: &BTreeMap<TxnId, Decision>, to: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<TxnId, Decision>, D::Error> {
        Ok(Vec::deserialize(from)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::KEYS_MAX;
    use proto::SqlState;

    fn commit(number: u64) -> Record {
        let txn = TxnId { cluster: ClusterId::NONE, epoch: 1, number };
        let key = Some(format!("key {number}"));
        Record::Commit { txn, seq: CommitSeq(number), participants: Vec::new(), changes: Vec::new(), key }
    }

    /// Were they copied for each commit, it would take an hour.
    #[test]
    fn a_commit_with_a_key_does_not_pay_for_all_keys_that_are_remembered() {
        let mut machine = Machine::new(CatalogState::new(ClusterId::NONE));
        let count = 2 * KEYS_MAX as u64;
        (1..=count).for_each(|number| machine.apply_once(&commit(number), || Ok(())).unwrap());
        assert_eq!(machine.seq, CommitSeq(count));
        assert_eq!(machine.repeats.of(&format!("key {count}")), Some(CommitSeq(count)));
        assert_eq!(machine.repeats.of("key 1"), None);
    }

    #[test]
    fn what_the_log_does_not_take_leaves_no_trace() {
        let mut machine = Machine::new(CatalogState::new(ClusterId::NONE));
        machine.apply(&commit(1)).unwrap();
        let before = machine.clone();
        let full = || Err::<(), _>(Error::new(SqlState::DISK_FULL, "the disk is full"));
        assert_eq!(machine.apply_once(&commit(2), full).unwrap_err().code, SqlState::DISK_FULL);
        assert_eq!(machine, before);
    }
}
