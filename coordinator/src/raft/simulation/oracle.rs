//! What must be true whatever happened. Every check is an assertion: a seed that breaks one fails with its text.

use bytes::Bytes;
use std::collections::BTreeMap;

/// What a member's state machine adds up to: a hash over all entries in their order, so that two are equal if and only
/// if the same was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ledger {
    applied: u64,
    digest: u64,
}

impl Ledger {
    /// Of a new group, whose first snapshot has index 1.
    pub(super) fn new() -> Ledger {
        Ledger { applied: 1, digest: 0xcbf2_9ce4_8422_2325 }
    }

    pub(super) fn apply(&mut self, index: u64, term: u64, data: &[u8]) {
        assert_eq!(index, self.applied + 1, "entries are applied in order, each once");
        self.applied = index;
        for byte in index.to_le_bytes().iter().chain(&term.to_le_bytes()).chain(data) {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        [self.applied.to_le_bytes(), self.digest.to_le_bytes()].concat().into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Ledger {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Ledger { applied: word(0), digest: word(8) }
    }
}

#[derive(Default)]
pub(super) struct Oracle {
    /// What the first to apply it found at each index, and its ledger then.
    committed: BTreeMap<u64, (u64, Bytes, Ledger)>,
    /// Who led in each term.
    leaders: BTreeMap<u64, usize>,
    /// Proposal → index.
    acknowledged: BTreeMap<u64, u64>,
}

impl Oracle {
    pub(super) fn applied(&mut self, member: usize, index: u64, term: u64, data: &Bytes, ledger: Ledger) {
        let (first_term, first_data, first_ledger) =
            self.committed.entry(index).or_insert_with(|| (term, data.clone(), ledger));
        assert!(
            *first_term == term && first_data == data,
            "member {member} applied another entry at {index} than the first who did"
        );
        assert_eq!(*first_ledger, ledger, "member {member} has another state at {index} than the first who had it");
    }

    /// A state that did not come from applying: a snapshot, received or found at start.
    pub(super) fn restored(&self, member: usize, ledger: Ledger) {
        if let Some((_, _, first)) = self.committed.get(&ledger.applied) {
            assert_eq!(*first, ledger, "member {member} restored another state at {}", ledger.applied);
        }
    }

    pub(super) fn leads(&mut self, member: usize, term: u64) {
        let first = *self.leaders.entry(term).or_insert(member);
        assert_eq!(first, member, "two leaders in term {term}");
    }

    pub(super) fn acknowledged(&mut self, proposal: u64, index: u64) {
        self.acknowledged.insert(proposal, index);
    }

    /// At the end, when all members have applied everything.
    pub(super) fn conclude(&self, ledgers: &[Ledger]) {
        let first = ledgers[0];
        assert!(ledgers.iter().all(|ledger| *ledger == first), "members differ in the end: {ledgers:?}");
        for (proposal, index) in &self.acknowledged {
            assert!(*index <= first.applied, "acknowledged proposal {proposal} at {index} was lost");
            let (_, data, _) = &self.committed[index];
            assert_eq!(proposal_of(data), Some(*proposal), "acknowledged proposal {proposal} is not at {index}");
        }
    }
}

/// A proposal's bytes: its number, and something to fill the log with.
pub(super) fn proposal(number: u64, padding: usize) -> Bytes {
    let mut data = number.to_le_bytes().to_vec();
    data.resize(8 + padding, number as u8);
    data.into()
}

fn proposal_of(data: &[u8]) -> Option<u64> {
    data.get(..8).and_then(|number| number.try_into().ok()).map(u64::from_le_bytes)
}
