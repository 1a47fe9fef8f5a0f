//! How often each fault struck and each rare state was reached: a simulation in which nothing happens proves nothing.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    // Faults of the network.
    MessageLost,
    MessageDuplicated,
    MessageOvertaken,
    MessageCutOff,
    MemberIsolated,
    LinkCut,
    LinkCutOneWay,
    LinkSlowed,
    // Faults of the machine.
    ProcessKilled,
    PowerLost,
    PowerLostInWrite,
    PowerLostInRecovery,
    TailTorn,
    SyncFailed,
    DiskFull,
    MemberPaused,
    ClockSkewed,
    QuorumGone,
    // Rare states.
    LeaderElected,
    LeaderDeposed,
    EntriesReplaced,
    SnapshotTaken,
    SnapshotInstalled,
    ProposalAcknowledged,
    ProposalRefused,
    ProposalUnknown,
    ProposalsGrouped,
}

pub(crate) const EVENTS: [Event; 27] = {
    use Event::*;
    [
        MessageLost,
        MessageDuplicated,
        MessageOvertaken,
        MessageCutOff,
        MemberIsolated,
        LinkCut,
        LinkCutOneWay,
        LinkSlowed,
        ProcessKilled,
        PowerLost,
        PowerLostInWrite,
        PowerLostInRecovery,
        TailTorn,
        SyncFailed,
        DiskFull,
        MemberPaused,
        ClockSkewed,
        QuorumGone,
        LeaderElected,
        LeaderDeposed,
        EntriesReplaced,
        SnapshotTaken,
        SnapshotInstalled,
        ProposalAcknowledged,
        ProposalRefused,
        ProposalUnknown,
        ProposalsGrouped,
    ]
};

#[derive(Default)]
pub(crate) struct Tally(BTreeMap<Event, u64>);

impl Tally {
    pub(crate) fn count(&mut self, event: Event) {
        *self.0.entry(event).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        for (event, times) in &other.0 {
            *self.0.entry(*event).or_default() += times;
        }
    }

    pub(crate) fn of(&self, event: Event) -> u64 {
        self.0.get(&event).copied().unwrap_or(0)
    }
}
