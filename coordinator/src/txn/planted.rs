//! Bugs that the simulation plants, to prove that it would find them. Outside tests there are none and no way to ask for
//! one: every `plan.has(..)` is then false at compile time.

/// Where each of them strikes is written there; the last ones strike in the simulated node, reader or leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// A participant whose vote was lost is taken for a yes.
    CommitWithoutVote,
    /// The client is answered when the record is appended, not when it is durable.
    AnswerBeforeDurable,
    /// Participants are told when the record is appended, not when it is durable.
    TellBeforeDurable,
    /// The client is answered, and snapshots show the commit, before participants were told.
    ShowBeforeTold,
    /// A record whose fate is not known is taken for lost, and the transaction aborted.
    AbortUndecided,
    /// A one-round commit whose answer was lost is taken for one that did not happen.
    LostIsNo,
    /// Prepared and never decided: committed, not aborted.
    PresumeCommit,
    /// What a node holds in doubt is aborted although it is running.
    AbortRunning,
    /// What a node holds in doubt is aborted although it was decided.
    AbortDecided,
    /// A node is up before it was told the decisions it missed.
    UpBeforeTold,
    /// A decision counts as told when a participant could not be reached.
    ForgetDecision,
    #[cfg(test)]
    InSimulation(InSimulation),
}

/// Bugs of what the simulation puts around the cores.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InSimulation {
    /// A node votes yes before its vote is durable.
    VoteBeforeDurable,
    /// A node that restarts has forgotten what it prepared.
    ForgetPrepared,
    /// A node obeys coordinators of any epoch.
    SkipFence,
    /// Readers take the last sequence given for their snapshot.
    SnapshotAboveOpen,
    /// A new leader acts before it has applied the first entry of its own term.
    LeadTooEarly,
    /// A new leader does not know the decisions that its predecessor left untold.
    ForgetUndone,
    /// A new leader gives sequences below those of its predecessors.
    ReuseSequences,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Plan(#[cfg(test)] pub(super) Option<Planted>);

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
