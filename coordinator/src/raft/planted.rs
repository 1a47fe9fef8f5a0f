//! Bugs that the simulation plants, to prove that it would find them. Outside tests there are none and no way to ask for
//! one: every `plan.has(..)` is then false at compile time.

/// Where each of them strikes is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A follower answers before what it answers for is durable.
    SendBeforePersist,
    /// A proposal is acknowledged when the leader alone has it.
    AcknowledgeBeforeCommit,
    /// Entries are handed out for application when they are written, not when they are committed.
    ApplyBeforeCommit,
    /// Records are written and never synced.
    SkipSync,
    /// Records do not tell for whom was voted.
    ForgetVote,
    /// Records do not tell the newest term.
    ForgetTerm,
    /// At a start, entries behind a replaced one that is in the snapshot stay.
    KeepReplacedTail,
    /// A snapshot cuts the log at its end, not behind the snapshot's index.
    CutTooMuch,
    /// A snapshot's position lies behind what a crash may leave of the log.
    SnapshotBeforeLog,
    /// A received snapshot is taken into memory and not written.
    SnapshotInMemoryOnly,
    /// The algorithm puts messages together that do not belong together: a bug it has, behind a switch that is off.
    BatchAppend,
    /// Each member takes itself for the whole group.
    QuorumOfOne,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan(#[cfg(test)] pub(crate) Option<Planted>);

impl Plan {
    pub(super) fn has(self, bug: Planted) -> bool {
        #[cfg(test)]
        return self.0 == Some(bug);
        #[cfg(not(test))]
        {
            let _ = bug;
            false
        }
    }
}
