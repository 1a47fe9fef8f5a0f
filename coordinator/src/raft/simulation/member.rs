//! One member: its disk, which outlives it, and the process that runs on it now and then.

use super::network::MEMBERS;
use super::oracle::Ledger;
use crate::raft::core::{Core, Input, Options, Persist};
use crate::raft::disk::{Disk, Durable, Genesis};
use crate::raft::entries::Entries;
use crate::raft::planted::Plan;
use std::path::Path;
use std::sync::Arc;
use storage::{LogOptions, SimVfs, StorageError};

/// Small, so that files are closed and removed all the time.
const SEGMENT_BYTES_MAX: u64 = 4 << 10;
/// Inputs a paused or busy process lets wait; what comes then is dropped, as a full socket would.
const INBOX_MAX: usize = 5_000;

pub(super) struct Member {
    pub(super) vfs: SimVfs,
    pub(super) process: Option<Process>,
    /// How often it was started; what was meant for an earlier process does not reach a later one.
    pub(super) starts_count: u64,
    pub(super) paused: bool,
    pub(super) tick_ms: u64,
    /// What an idle process had made durable when it was stopped.
    persisted: Option<Persisted>,
}

/// Term, vote, index and term of the last entry.
type Persisted = (u64, u64, u64, Option<u64>);

pub(super) struct Process {
    pub(super) core: Core,
    pub(super) disk: Disk,
    pub(super) ledger: Ledger,
    pub(super) inbox: Vec<Input>,
    pub(super) work: Work,
}

/// Where a process is in its round.
pub(super) enum Work {
    Idle,
    /// The disk is at it; `Durable` comes when it is done.
    Writing(Option<Durable>),
    /// The disk was full: the same again later.
    Refused(Persist),
}

impl Member {
    pub(super) fn new(seed: u64) -> Member {
        Member { vfs: SimVfs::new(seed), process: None, starts_count: 0, paused: false, tick_ms: 100, persisted: None }
    }

    /// # Errors
    /// Those of a disk that fails in the middle of it.
    pub(super) fn start(&mut self, member: usize, seed: u64, plan: Plan) -> Result<(), StorageError> {
        self.starts_count += 1;
        let voters = (1..=MEMBERS as u64).collect();
        let genesis =
            || Genesis { member: member as u64 + 1, incarnation: seed, voters, state: Ledger::new().encode() };
        let options = LogOptions { segment_bytes_max: SEGMENT_BYTES_MAX, ..LogOptions::default() };
        let vfs = Arc::new(self.vfs.clone());
        let (disk, entries) = Disk::open_with(plan, vfs, Path::new("/raft"), options, genesis)?;
        if let Some(persisted) = self.persisted.take() {
            assert_eq!(durable_part(&entries), persisted, "member {member} starts with what was persisted");
        }
        let ledger = Ledger::decode(entries.snapshot_state());
        let options = Options { snapshot_ticks: 10, ..Options::new(member as u64 + 1, seed ^ self.starts_count) };
        let core = Core::new(options, entries);
        self.process = Some(Process { core, disk, ledger, inbox: Vec::new(), work: Work::Idle });
        Ok(())
    }

    /// Before a stop. In the middle of a write nobody knows what will be there.
    pub(super) fn remember(&mut self) {
        let idle = self.process.as_ref().filter(|process| matches!(process.work, Work::Idle));
        self.persisted = idle.map(|process| durable_part(process.core.entries()));
    }

    pub(super) fn receive(&mut self, input: Input) {
        if let Some(process) = self.process.as_mut().filter(|process| process.inbox.len() < INBOX_MAX) {
            process.inbox.push(input);
        }
    }
}

fn durable_part(entries: &Entries) -> Persisted {
    (entries.state.term, entries.state.vote, entries.last(), entries.term_of(entries.last()))
}
