//! Commit sequences: their allocation, and the snapshot that lies below every commit still under way.
//!
//! Invariants
//! - A sequence is given once. The upper bits are the coordinator's epoch, whose record is durable before the first one
//!   is given: so later epochs are above all earlier ones, although one-round commits leave no record.
//! - `snapshot` never goes back, and no open commit is at or below it.

use parking_lot::Mutex;
use proto::CommitSeq;
use std::collections::BTreeSet;
use tokio::sync::watch;

pub struct Sequence {
    state: Mutex<State>,
    snapshot: watch::Sender<CommitSeq>,
}

struct State {
    last: u64,
    open: BTreeSet<u64>,
}

impl State {
    fn snapshot(&self) -> CommitSeq {
        CommitSeq(self.open.first().map_or(self.last, |first| first - 1))
    }
}

impl Sequence {
    pub fn new(epoch: u64) -> Sequence {
        let CommitSeq(last) = CommitSeq::before(epoch);
        let snapshot = watch::Sender::new(CommitSeq(last));
        Sequence { state: Mutex::new(State { last, open: BTreeSet::new() }), snapshot }
    }

    /// The next commit. Hides it and all that follow until it is closed.
    pub fn open(&self) -> CommitSeq {
        let mut state = self.state.lock();
        state.last += 1;
        let seq = state.last;
        state.open.insert(seq);
        CommitSeq(seq)
    }

    /// Every live participant has the commit, or it was aborted. Closing twice is fine.
    pub fn close(&self, seq: CommitSeq) {
        let mut state = self.state.lock();
        state.open.remove(&seq.0);
        self.snapshot.send_replace(state.snapshot());
    }

    /// A node has seen this sequence: later ones must be above it.
    pub fn raise_to(&self, seq: CommitSeq) {
        let mut state = self.state.lock();
        state.last = state.last.max(seq.0);
        self.snapshot.send_replace(state.snapshot());
    }

    pub fn snapshot(&self) -> CommitSeq {
        *self.snapshot.borrow()
    }

    /// Waits until snapshots include `seq`.
    pub async fn passed(&self, seq: CommitSeq) {
        let mut snapshots = self.snapshot.subscribe();
        // The sender lives in self, so that waiting cannot fail.
        let _ = snapshots.wait_for(|snapshot| *snapshot >= seq).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_stays_below_every_open_commit_and_never_goes_back() {
        let sequence = Sequence::new(3);
        let start = sequence.snapshot();
        let (a, b, c) = (sequence.open(), sequence.open(), sequence.open());
        assert!(start < a && a < b && b < c);
        sequence.close(c);
        assert_eq!(sequence.snapshot(), start, "a is open");
        sequence.close(a);
        assert_eq!(sequence.snapshot(), a, "b is open");
        sequence.close(b);
        sequence.close(b);
        assert_eq!(sequence.snapshot(), c);
        assert!(Sequence::new(4).open() > c);
    }

    #[tokio::test]
    async fn a_session_waits_for_its_own_commit() {
        let sequence = Sequence::new(1);
        let (a, b) = (sequence.open(), sequence.open());
        sequence.close(b);
        let close_a = async { sequence.close(a) };
        tokio::join!(sequence.passed(b), close_a);
        assert_eq!(sequence.snapshot(), b);
    }
}
