//! One log on one coordinator or on three: raft, cut so that its rules can be tested without a disk, a network or a clock.
//!
//! It is not the consensus algorithm itself (the `raft` crate is), knows nothing of what entries mean, and does not
//! change its membership: voters are those the directory was made with.
//!
//! `core` decides: messages, ticks and proposals in; what to persist, to send and to apply out, in that order →
//! `disk` persists: one record of `storage::Log` per step (`record`), a snapshot now and then, all of it read back at
//! start into `entries`, the log as the algorithm sees it. `driver` owns both in a thread, and gives who leads a `Reign`,
//! the right to propose. `simulation/` (tests only) runs three of them in one thread, on a disk, a network and a clock that
//! fail; what they replicate there is an app's: proposals of its own, or the transactions of `crate::txn`.
//!
//! Invariants
//! - `Core` has no I/O, no clock and no chance of its own: the same inputs give the same outputs.
//! - What raft wants durable before it is said is behind a [`Durable`], which only `Disk::write` gives out.
//! - Term, vote, commit index and entries of one step are one record: a crash keeps all of them or none.
//! - A member that was told of a failed fsync stops; nothing is retried but a write the full disk refused whole.
//! - Entries are proposed by the leader only, never forwarded, so that an entry's place is known to who proposed it.

mod core;
mod disk;
mod driver;
mod entries;
#[cfg(test)]
mod golden;
pub(crate) mod planted;
mod record;
#[cfg(test)]
pub(crate) mod simulation;

pub use self::core::{
    After, Apply, Core, Decided, ELECTION_TICKS, Input, Options, Persist, Proposal, Refusal, Role, Step,
};
pub use disk::{Disk, Durable, Genesis, SNAPSHOT_FILE, read_only};
pub use driver::{Driver, DriverOptions, Outbox, Reign, Standing, StateMachine, explained};
pub use entries::Entries;
