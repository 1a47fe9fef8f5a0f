//! What must be true whatever happened. Every check is an assertion: a seed that breaks one fails with its text.
//!
//! Known are each transaction's rows, what its client was told, and the sequence it was given; every read with its
//! snapshot; and the decisions of the log. What is on the nodes in the end is the truth the rest is held against.

use super::ledger::{Entry, Row, entry_of};
use bytes::Bytes;
use proto::{CommitSeq, NodeName, TxnId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Committed(CommitSeq),
    NotCommitted,
    Unknown,
}

struct Attempt {
    amounts: Vec<i64>,
    participants: BTreeSet<NodeName>,
    /// The last one it was given.
    seq: Option<CommitSeq>,
    told: Told,
}

struct Read {
    snapshot: CommitSeq,
    rows: Vec<Row>,
    at_ms: u64,
}

#[derive(Default)]
pub(super) struct History {
    attempts: BTreeMap<Entry, Attempt>,
    reads: Vec<Read>,
    /// Of the log, applied by somebody.
    decisions: BTreeMap<Entry, CommitSeq>,
    /// What the first to apply it found at each index, …
    entries: BTreeMap<u64, (u64, Bytes)>,
    /// … and its state then, for some of them.
    states: BTreeMap<u64, Bytes>,
    leaders: BTreeMap<u64, usize>,
    /// By node, the highest acknowledged sequence that has rows there.
    acknowledged: BTreeMap<NodeName, CommitSeq>,
}

impl History {
    // ------------------------------------------------------------------------------------------------------------
    // The log

    pub(super) fn leads(&mut self, member: usize, term: u64) {
        let first = *self.leaders.entry(term).or_insert(member);
        assert_eq!(first, member, "two leaders in term {term}");
    }

    pub(super) fn applied(&mut self, member: usize, index: u64, term: u64, data: &Bytes) {
        let (first_term, first_data) = self.entries.entry(index).or_insert_with(|| (term, data.clone()));
        assert!(
            *first_term == term && first_data == data,
            "member {member} applied another entry at {index} than the first who did"
        );
    }

    pub(super) fn state(&mut self, member: usize, index: u64, state: Bytes) {
        let first = self.states.entry(index).or_insert_with(|| state.clone());
        assert!(*first == state, "member {member} has another state at {index} than the first who had it");
    }

    pub(super) fn decided(&mut self, txn: TxnId, seq: CommitSeq) {
        let first = *self.decisions.entry(entry_of(txn)).or_insert(seq);
        assert_eq!(first, seq, "{txn} was decided twice");
    }

    // ------------------------------------------------------------------------------------------------------------
    // Clients

    pub(super) fn begun(&mut self, txn: TxnId, amounts: Vec<i64>, participants: BTreeSet<NodeName>) {
        let attempt = Attempt { amounts, participants, seq: None, told: Told::Nothing };
        let before = self.attempts.insert(entry_of(txn), attempt);
        assert!(before.is_none(), "{txn} was begun twice");
    }

    pub(super) fn placed(&mut self, txn: TxnId, seq: CommitSeq) {
        self.attempt(txn).seq = Some(seq);
    }

    pub(super) fn told(&mut self, txn: TxnId, told: Told) {
        let attempt = self.attempt(txn);
        assert_eq!(attempt.told, Told::Nothing, "{txn} was answered twice");
        attempt.told = told;
        if let Told::Committed(seq) = told {
            assert_eq!(attempt.seq, Some(seq), "{txn} was committed at its sequence");
            for node in attempt.participants.clone() {
                let highest = self.acknowledged.entry(node).or_insert(seq);
                *highest = seq.max(*highest);
            }
        }
    }

    fn attempt(&mut self, txn: TxnId) -> &mut Attempt {
        self.attempts.get_mut(&entry_of(txn)).expect("it was begun")
    }

    /// What a read of these nodes that begins now must see.
    pub(super) fn acknowledged(&self, nodes: &[NodeName]) -> CommitSeq {
        nodes.iter().filter_map(|node| self.acknowledged.get(node)).copied().max().unwrap_or(CommitSeq::ZERO)
    }

    /// `wanted`: acknowledged before it began.
    pub(super) fn read(&mut self, at_ms: u64, snapshot: CommitSeq, wanted: CommitSeq, mut rows: Vec<Row>) {
        assert!(snapshot >= wanted, "a read at {snapshot} does not see what was acknowledged at {wanted} before it");
        rows.sort_unstable();
        self.check_whole(&rows, "a read");
        self.reads.push(Read { snapshot, rows, at_ms });
    }

    /// Each transaction is there with all its rows or with none.
    fn check_whole(&self, sorted: &[Row], what: &str) {
        for of_one in sorted.chunk_by(|a, b| a.entry == b.entry) {
            let entry = of_one[0].entry;
            let attempt = self
                .attempts
                .get(&entry)
                .unwrap_or_else(|| panic!("{what} sees rows of {entry:?}, which nobody wrote"));
            let mut amounts = attempt.amounts.clone();
            amounts.sort_unstable();
            let seen = of_one.iter().map(|row| row.amount).collect::<Vec<_>>();
            assert_eq!(seen, amounts, "{what} sees other rows of {entry:?} than were written");
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // The end

    pub(super) fn conclude(&self, mut rows: Vec<Row>) {
        rows.sort_unstable();
        self.check_whole(&rows, "the end");
        let happened = rows.iter().map(|row| row.entry).collect::<BTreeSet<_>>();
        for (entry, attempt) in &self.attempts {
            let is_there = happened.contains(entry) || attempt.amounts.is_empty();
            match attempt.told {
                Told::Committed(_) => assert!(is_there, "{entry:?} was acknowledged and is lost"),
                Told::NotCommitted if !attempt.amounts.is_empty() => {
                    assert!(!is_there, "{entry:?} happened, although its client was told it did not");
                }
                Told::NotCommitted => {
                    assert!(!self.decisions.contains_key(entry), "{entry:?} was decided and refused");
                }
                Told::Nothing | Told::Unknown => {}
            }
            if self.decisions.contains_key(entry) {
                assert!(is_there, "{entry:?} was decided and did not happen");
                assert_eq!(attempt.seq, self.decisions.get(entry).copied(), "{entry:?} has the sequence of its record");
            }
        }
        self.check_reads(&happened);
    }

    /// Rows seen = rows whose commit sequence is at or below the snapshot.
    fn check_reads(&self, happened: &BTreeSet<Entry>) {
        let seq_of = |entry: &Entry| self.attempts[entry].seq.expect("what happened has a sequence");
        let mut by_seq = happened.iter().map(|entry| (seq_of(entry), *entry)).collect::<Vec<_>>();
        by_seq.sort_unstable();
        assert!(by_seq.windows(2).all(|pair| pair[0].0 < pair[1].0), "two commits have one sequence");
        for read in &self.reads {
            let at = format!("the read of {} ms at {}", read.at_ms, read.snapshot);
            let visible = by_seq.iter().take_while(|(seq, _)| *seq <= read.snapshot).map(|(_, entry)| *entry);
            let mut visible = visible.collect::<Vec<_>>();
            visible.sort_unstable();
            let mut seen = read.rows.iter().map(|row| row.entry).collect::<Vec<_>>();
            seen.dedup();
            let missed = visible.iter().find(|entry| seen.binary_search(entry).is_err());
            assert_eq!(missed, None, "{at} misses a transaction");
            let early = seen.iter().find(|entry| visible.binary_search(entry).is_err());
            assert_eq!(early, None, "{at} sees a transaction that it must not");
        }
    }
}
