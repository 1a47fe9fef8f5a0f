//! The thread that owns a member which is alone in its group: takes what waits for it, writes, applies, answers.
//!
//! It has no peers to send to and needs no clock: who is alone is elected when it asks to be. The rounds are those of
//! any member (see `core`).
//!
//! Group commit: while one round is in fsync, proposals wait; the next round takes all of them, as one record with one
//! fsync. Proposals are committed in the order in which they were made.
//!
//! Disk full: the write waits and is tried again, new proposals are refused. Any other failure of the disk ends the
//! thread; what was not answered by then is undecided until the next start.

#[cfg(test)]
mod tests;

use super::core::{After, Apply, Core, Decided, Input, Options, Persist, Proposal, Role};
use super::disk::{Disk, Durable, Genesis};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use proto::{Error, Reaction, Result, SqlState};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use storage::{LogOptions, StorageError, Vfs};
use tokio::sync::watch;

/// Proposals that wait or are being written; more are refused.
const UNDECIDED_BYTES_MAX: usize = 32 << 20;
/// Proposals nobody waits for before they are written all the same.
const UNHURRIED_MAX: usize = 1000;
/// How often a write that a full disk refused is tried again.
const FULL_DISK_INTERVAL: Duration = Duration::from_millis(100);

/// What entries add up to. The same entries give the same state on every member.
pub trait StateMachine: Clone + Send + Sized + 'static {
    /// # Errors
    /// The bytes are not what `encode` wrote.
    fn decode(state: &[u8]) -> Result<Self, String>;

    fn encode(&self) -> Result<Vec<u8>>;

    /// # Errors
    /// Entries pass here before they are proposed, so that a refusal means damage.
    fn apply(&mut self, entry: &[u8]) -> Result<(), String>;
}

#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// Bytes of log after which it is replaced by the state it adds up to.
    pub log_bytes_max: u64,
    /// Of one file of the log.
    pub segment_bytes_max: u64,
}

/// A member at work. Dropped, it finishes what waits and lets go of the directory.
pub struct Driver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Waiting {
    proposals: Vec<Proposal>,
    /// Given to the last proposal.
    last_id: u64,
    undecided_bytes: usize,
    hurried: bool,
    disk_full: bool,
    stopped: bool,
}

#[derive(Default, Clone)]
struct Progress {
    /// All proposals up to this one are committed and applied.
    committed: u64,
    /// Nothing more will be.
    failure: Option<Error>,
}

impl Driver {
    /// Opens the directory, or makes it with what `genesis` says; on return the member leads and the state has every
    /// entry of the log. Blocks.
    ///
    /// # Errors
    /// Those of `Disk::open`, and XX001 for an entry that cannot be applied.
    pub fn open<M: StateMachine>(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: DriverOptions,
        genesis: impl FnOnce() -> Genesis,
    ) -> Result<(Driver, M)> {
        let log_options = LogOptions { segment_bytes_max: options.segment_bytes_max, ..LogOptions::default() };
        let (disk, entries) = Disk::open(vfs, dir, log_options, genesis).map_err(explained)?;
        let member = disk.member();
        if entries.voters() != [member] {
            return Err(Error::unsupported("a coordinator in a group of several"));
        }
        let corrupt = |reason| Error::new(SqlState::DATA_CORRUPTED, format!("the catalog cannot be read: {reason}"));
        let machine = M::decode(entries.snapshot_state()).map_err(corrupt)?;
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
        });
        let mut rounds = Rounds {
            applied: entries.snapshot_index(),
            // Alone, its election timeout never matters.
            core: Core::new(Options::new(member, 0), entries),
            disk,
            machine,
            log_bytes_max: options.log_bytes_max,
            shared: Arc::clone(&shared),
        };
        rounds.run(vec![Input::Campaign])?;
        assert!(matches!(rounds.core.role(), Role::Leader { .. }), "who is alone is elected at once");
        let machine = rounds.machine.clone();
        let spawned = std::thread::Builder::new().name("raft".to_owned()).spawn(move || rounds.run_all());
        let thread = spawned.map_err(|e| Error::internal(format!("could not start the raft thread: {e}")))?;
        Ok((Driver { shared, thread: Some(thread) }, machine))
    }

    /// Gives an entry its place in the order, and a number to wait for. Not yet durable. Without `hurried` it is
    /// written together with the next one that is.
    ///
    /// # Errors
    /// Nothing was proposed: 53100 while the disk is full, 53000 when too much waits for it, or what ended the member.
    pub fn propose(&self, entry: Vec<u8>, hurried: bool) -> Result<u64> {
        if let Some(failure) = &self.shared.progress.borrow().failure {
            return Err(failure.clone());
        }
        let mut waiting = self.shared.waiting.lock();
        let refuse = |code, text: &str| Err(Error::new(code, text).reaction(Reaction::Abort));
        if waiting.disk_full {
            return refuse(SqlState::DISK_FULL, "the disk of the coordinator's log is full");
        }
        if waiting.undecided_bytes > 0 && waiting.undecided_bytes + entry.len() > UNDECIDED_BYTES_MAX {
            return refuse(SqlState::new("53000"), "too many commits wait for the coordinator's log");
        }
        if entry.len() > super::core::PROPOSAL_BYTES_MAX {
            let text = format!("a log record of {} bytes is longer than allowed", entry.len());
            return refuse(SqlState::PROGRAM_LIMIT_EXCEEDED, &text);
        }
        waiting.last_id += 1;
        let id = waiting.last_id;
        waiting.undecided_bytes += entry.len();
        waiting.proposals.push(Proposal { id, data: Bytes::from(entry) });
        if hurried || waiting.proposals.len() >= UNHURRIED_MAX {
            waiting.hurried = true;
            self.shared.arrived.notify_one();
        }
        Ok(id)
    }

    /// Waits until the proposal is committed, with all before it.
    ///
    /// # Errors
    /// What ended the member: whether the proposal is committed is not known before the next start.
    pub async fn committed(&self, proposal: u64) -> Result<()> {
        let mut progress = self.shared.progress.subscribe();
        let reached = |progress: &Progress| progress.committed >= proposal || progress.failure.is_some();
        let reached = progress.wait_for(reached).await.expect("the sender lives in self");
        match &reached.failure {
            Some(failure) if reached.committed < proposal => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    /// Has proposals without hurry written too.
    pub fn hurry(&self) {
        self.shared.waiting.lock().hurried = true;
        self.shared.arrived.notify_one();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.waiting.lock().stopped = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits for something to do. `None`: nothing will come any more.
    fn next(&self) -> Option<Vec<Input>> {
        let mut waiting = self.waiting.lock();
        while !waiting.stopped && (!waiting.hurried || waiting.proposals.is_empty()) {
            self.arrived.wait(&mut waiting);
        }
        waiting.hurried = false;
        let proposals = std::mem::take(&mut waiting.proposals);
        (!proposals.is_empty()).then(|| proposals.into_iter().map(Input::Propose).collect())
    }

    /// # Errors
    /// Everybody leaves: nobody waits for the disk any more.
    fn wait_for_room(&self) -> Result<()> {
        let mut waiting = self.waiting.lock();
        waiting.disk_full = true;
        if !waiting.stopped {
            self.arrived.wait_for(&mut waiting, FULL_DISK_INTERVAL);
        }
        match waiting.stopped {
            true => Err(Error::new(SqlState::DISK_FULL, "the disk of the coordinator's log is full")),
            false => Ok(()),
        }
    }
}

struct Rounds<M> {
    core: Core,
    disk: Disk,
    machine: M,
    applied: u64,
    log_bytes_max: u64,
    shared: Arc<Shared>,
}

impl<M: StateMachine> Rounds<M> {
    fn run_all(mut self) {
        // Whoever waits when this thread panics must not wait for ever.
        let alarm = Alarm(Arc::clone(&self.shared));
        while let Some(inputs) = self.shared.next() {
            if let Err(error) = self.run(inputs) {
                tracing::error!(%error, "the coordinator's log has stopped");
                alarm.0.progress.send_modify(|progress| progress.failure = Some(error));
                return;
            }
        }
    }

    /// All rounds that the inputs need, then a snapshot if it is time.
    fn run(&mut self, inputs: Vec<Input>) -> Result<()> {
        let bytes =
            inputs.iter().map(|input| if let Input::Propose(proposal) = input { proposal.data.len() } else { 0 });
        let bytes = bytes.sum::<usize>();
        let mut inputs = Some(inputs);
        let mut committed = None;
        while inputs.is_some() || self.core.has_work() {
            let step = self.core.step(inputs.take().unwrap_or_default());
            if let Some((_, refusal)) = step.refused.first() {
                return Err(Error::internal(format!("a proposal of the only member was refused: {refusal:?}")));
            }
            let durable = self.write(&step.persist)?;
            let After { send, apply, decided, .. } = self.core.persisted(durable);
            assert!(step.send.is_empty() && send.is_empty(), "who is alone has nobody to send to");
            apply.into_iter().try_for_each(|apply| self.apply(apply))?;
            for (id, decided) in decided {
                assert!(matches!(decided, Decided::Committed { .. }), "the only member always leads");
                committed = Some(id);
            }
        }
        self.shared.waiting.lock().undecided_bytes -= bytes;
        if let Some(committed) = committed {
            self.shared.progress.send_modify(|progress| progress.committed = committed);
        }
        match self.disk.bytes() > self.log_bytes_max {
            true => self.take_snapshot(),
            false => Ok(()),
        }
    }

    fn write(&mut self, persist: &Persist) -> Result<Durable> {
        loop {
            match self.disk.write(persist) {
                Ok(durable) => {
                    self.shared.waiting.lock().disk_full = false;
                    return Ok(durable);
                }
                Err(error) if error.is_disk_full() => {
                    tracing::error!(%error, "a commit waits for room on the disk of the coordinator's log");
                    self.shared.wait_for_room()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn apply(&mut self, apply: Apply) -> Result<()> {
        let Apply::Entry { index, data, .. } = apply else { unreachable!("nobody sends snapshots to who is alone") };
        self.applied = index;
        // A new leader's entry has no data.
        let outcome = if data.is_empty() { Ok(()) } else { self.machine.apply(&data) };
        outcome.map_err(|reason| {
            let text = format!("entry {index} of the coordinator's log cannot be applied: {reason}");
            Error::new(SqlState::DATA_CORRUPTED, text)
        })
    }

    /// Commits wait meanwhile: a shortcut that costs some milliseconds per `log_bytes_max`.
    fn take_snapshot(&mut self) -> Result<()> {
        let state = Bytes::from(self.machine.encode()?);
        match self.disk.compact(self.core.entries(), self.applied, state.clone()) {
            Ok(()) => {
                self.core.compact(self.applied, state);
                Ok(())
            }
            Err(error) if error.is_disk_full() => {
                tracing::error!(%error, "could not shorten the coordinator's log");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What to do about a directory that cannot be opened, where there is something.
pub fn explained(error: StorageError) -> Error {
    let hint = match &error {
        StorageError::Format { .. } => {
            "Coordinator directories of another version are not migrated: make a new cluster and load the data again."
        }
        _ => return error.into(),
    };
    Error::from(error).hint(hint)
}

struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.progress.send_if_modified(|progress| {
            let news = progress.failure.is_none();
            progress.failure.get_or_insert_with(|| Error::internal("the thread of the coordinator's log ended"));
            news
        });
    }
}
