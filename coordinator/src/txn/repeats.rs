//! Idempotency keys: which transactions that a client named have happened, so that a retry of one is not applied again.
//! Part of the log's state machine: the same on every coordinator.

use proto::CommitSeq;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Keys that are remembered; beyond it the oldest is forgotten.
pub const KEYS_MAX: usize = 100_000;
/// Of one key, without the names of its database and role.
pub const KEY_BYTES_MAX: usize = 64;

/// Not cheap to clone: once for each reign.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(CommitSeq, String)>", into = "Vec<(CommitSeq, String)>")]
pub struct Repeats {
    by_key: BTreeMap<String, CommitSeq>,
    by_age: BTreeMap<CommitSeq, String>,
}

impl Repeats {
    /// The commit that had this key.
    pub fn of(&self, key: &str) -> Option<CommitSeq> {
        self.by_key.get(key).copied()
    }

    /// A key that was forgotten may come again.
    pub(super) fn add(&mut self, key: &str, seq: CommitSeq) {
        if let Some(former) = self.by_key.insert(key.to_owned(), seq) {
            self.by_age.remove(&former);
        }
        self.by_age.insert(seq, key.to_owned());
        if self.by_age.len() > KEYS_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_key.remove(&oldest);
        }
    }
}

impl From<Vec<(CommitSeq, String)>> for Repeats {
    fn from(pairs: Vec<(CommitSeq, String)>) -> Repeats {
        let by_key = pairs.iter().map(|(seq, key)| (key.clone(), *seq)).collect();
        Repeats { by_key, by_age: pairs.into_iter().collect() }
    }
}

impl From<Repeats> for Vec<(CommitSeq, String)> {
    fn from(repeats: Repeats) -> Self {
        repeats.by_age.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_youngest_keys_are_remembered_through_a_snapshot() {
        let mut repeats = Repeats::default();
        let count = KEYS_MAX as u64 + 10;
        (0..count).for_each(|number| repeats.add(&number.to_string(), CommitSeq(number)));
        repeats.add("12", CommitSeq(count));
        let read: Repeats = serde_json::from_slice(&serde_json::to_vec(&repeats).unwrap()).unwrap();
        assert_eq!(read, repeats);
        let known = ["9", "10", "11", "12"].map(|key| read.of(key).map(|seq| seq.0));
        assert_eq!(known, [None, Some(10), Some(11), Some(count)]);
        repeats.add("new", CommitSeq(count + 1));
        assert_eq!((repeats.of("10"), repeats.of("11").is_some()), (None, true));
    }
}
