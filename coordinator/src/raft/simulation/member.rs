//! One member: its disk, which outlives it, and the process that runs on it now and then.

use super::app::App;
use super::network::MEMBERS;
use crate::raft::core::{Core, Input, Options, Persist};
use crate::raft::disk::{Disk, Durable, Genesis};
use crate::raft::entries::Entries;
use crate::raft::planted::Plan;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use storage::{LogOptions, SimVfs, StorageError};

/// Inputs a paused or busy process lets wait; what comes then is dropped, as a full socket would.
const INBOX_MAX: usize = 5_000;

pub(crate) struct Member<A: App> {
    pub(crate) vfs: SimVfs,
    pub(crate) process: Option<Process<A>>,
    /// How often it was started; what was meant for an earlier process does not reach a later one.
    pub(crate) starts_count: u64,
    pub(crate) paused: bool,
    pub(crate) tick_ms: u64,
    /// What an idle process had made durable when it was stopped.
    persisted: Option<Persisted>,
}

/// Term, vote, index and term of the last entry.
type Persisted = (u64, u64, u64, Option<u64>);

pub(crate) struct Process<A: App> {
    pub(crate) core: Core,
    pub(crate) disk: Disk,
    /// What was applied up to here …
    pub(crate) applied: u64,
    /// … and what it adds up to.
    pub(crate) state: A::State,
    pub(crate) inbox: Vec<Input>,
    pub(crate) work: Work,
}

/// Where a process is in its round.
pub(crate) enum Work {
    Idle,
    /// The disk is at it; `Durable` comes when it is done.
    Writing(Option<Durable>),
    /// The disk was full: the same again later.
    Refused(Persist),
}

impl<A: App> Member<A> {
    pub(crate) fn new(seed: u64) -> Member<A> {
        Member { vfs: SimVfs::new(seed), process: None, starts_count: 0, paused: false, tick_ms: 100, persisted: None }
    }

    /// # Errors
    /// Those of a disk that fails in the middle of it.
    pub(crate) fn start(&mut self, member: usize, seed: u64, plan: Plan, genesis: Bytes) -> Result<(), StorageError> {
        self.starts_count += 1;
        let voters = (1..=MEMBERS as u64).collect();
        let genesis = || Genesis { member: member as u64 + 1, incarnation: seed, voters, state: genesis };
        let options = LogOptions { segment_bytes_max: A::SEGMENT_BYTES_MAX, ..LogOptions::default() };
        let vfs = Arc::new(self.vfs.clone());
        let (disk, entries) = Disk::open_with(plan, vfs, Path::new("/raft"), options, genesis)?;
        if let Some(persisted) = self.persisted.take() {
            assert_eq!(durable_part(&entries), persisted, "member {member} starts with what was persisted");
        }
        let (applied, state) = (entries.snapshot_index(), A::decode(entries.snapshot_state()));
        let options = Options { snapshot_ticks: 10, ..Options::new(member as u64 + 1, seed ^ self.starts_count) };
        let core = Core::new(options, entries);
        self.process = Some(Process { core, disk, applied, state, inbox: Vec::new(), work: Work::Idle });
        Ok(())
    }

    /// Before a stop. In the middle of a write nobody knows what will be there.
    pub(crate) fn remember(&mut self) {
        let idle = self.process.as_ref().filter(|process| matches!(process.work, Work::Idle));
        self.persisted = idle.map(|process| durable_part(process.core.entries()));
    }

    pub(crate) fn receive(&mut self, input: Input) {
        if let Some(process) = self.process.as_mut().filter(|process| process.inbox.len() < INBOX_MAX) {
            process.inbox.push(input);
        }
    }
}

fn durable_part(entries: &Entries) -> Persisted {
    (entries.state.term, entries.state.vote, entries.last(), entries.term_of(entries.last()))
}
