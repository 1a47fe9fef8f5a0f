//! Idempotency keys: which transactions that a client named have happened, so that a retry of one is not applied again.
//! Part of the log's state machine: the same on every coordinator.

use proto::CommitSeq;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keys that are remembered; beyond it the oldest is forgotten.
pub const KEYS_MAX: usize = 100_000;
/// Of one key, without the names of its database and role.
pub const KEY_BYTES_MAX: usize = 64;

/// Cheap to clone: commits take a copy of the state each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(CommitSeq, String)>", into = "Vec<(CommitSeq, String)>")]
pub struct Repeats(Arc<Keys>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Keys {
    by_key: BTreeMap<String, CommitSeq>,
    by_age: BTreeMap<CommitSeq, String>,
}

impl Repeats {
    /// The commit that had this key.
    pub fn of(&self, key: &str) -> Option<CommitSeq> {
        self.0.by_key.get(key).copied()
    }

    /// A key that was forgotten may come again.
    pub(super) fn add(&mut self, key: &str, seq: CommitSeq) {
        let keys = Arc::make_mut(&mut self.0);
        if let Some(former) = keys.by_key.insert(key.to_owned(), seq) {
            keys.by_age.remove(&former);
        }
        keys.by_age.insert(seq, key.to_owned());
        if keys.by_age.len() > KEYS_MAX
            && let Some((_, oldest)) = keys.by_age.pop_first()
        {
            keys.by_key.remove(&oldest);
        }
    }
}

impl From<Vec<(CommitSeq, String)>> for Repeats {
    fn from(pairs: Vec<(CommitSeq, String)>) -> Repeats {
        let by_key = pairs.iter().map(|(seq, key)| (key.clone(), *seq)).collect();
        Repeats(Arc::new(Keys { by_key, by_age: pairs.into_iter().collect() }))
    }
}

impl From<Repeats> for Vec<(CommitSeq, String)> {
    fn from(repeats: Repeats) -> Self {
        repeats.0.by_age.iter().map(|(seq, key)| (*seq, key.clone())).collect()
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
