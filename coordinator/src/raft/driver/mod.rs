//! The thread that owns a member, and how the rest of the process speaks with it.
//!
//! ```text
//! proposals, messages ─▶ Shared ─▶ rounds (the thread) ─▶ disk, Outbox
//!                                     │
//!                        Standing ◀───┴──▶ Reign: what became of proposals
//! ```
//! Who leads has a [`Reign`]: the right to propose, for as long as it leads. A reign begins when the member has applied
//! an entry of its own term, so that its state has every entry that will ever stand before the reign's own; it ends for
//! good when the member follows, although it may lead again, in another term.
//!
//! Group commit: while one round is in fsync, proposals wait; the next round takes all of them, as one record with one
//! fsync. Proposals are committed in the order in which they were made.
//!
//! Disk full: the write waits and is tried again, new proposals are refused. Any other failure of the disk ends the
//! thread; what was not answered by then is undecided until the next start. In a group nobody waits for the disk longer
//! than the others wait for their leader (`lease`), and nobody at all once the process is to stop (`Driver::abandon`).

#[cfg(test)]
mod group_tests;
mod lease;
mod reign;
mod rounds;
#[cfg(test)]
mod stuck;
#[cfg(test)]
mod tests;

use super::core::{Core, Input, Options, Proposal, Role};
use super::disk::{Disk, Genesis};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use proto::{Clock, Error, Result, SqlState};
use protobuf::Message as _;
use raft::prelude::Message;
pub use reign::Reign;
use rounds::Rounds;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use storage::{LogOptions, StorageError, Vfs};
use tokio::sync::watch;

/// Messages of other members that wait; what comes then is dropped, as a network may. The last may be longer: a
/// snapshot is taken however long it is.
const INBOX_MAX: usize = 4096;
const INBOX_BYTES_MAX: usize = 128 << 20;
/// What a write may take that is under way when the member is dropped; then it is left to the end of the process.
const STOP_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// What entries add up to. The same entries give the same state on every member.
pub trait StateMachine: Clone + Send + Sync + Sized + 'static {
    /// # Errors
    /// The bytes are not what `encode` wrote.
    fn decode(state: &[u8]) -> Result<Self, String>;

    fn encode(&self) -> Result<Vec<u8>>;

    /// # Errors
    /// Entries pass here before they are proposed, so that a refusal means damage.
    fn apply(&mut self, entry: &[u8]) -> Result<(), String>;
}

/// Carries messages to the other members.
pub trait Outbox: Send + Sync + 'static {
    /// Sends or forgets; never waits.
    fn send(&self, to: u64, message: Bytes);
}

#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// Bytes of log after which it is replaced by the state it adds up to.
    pub log_bytes_max: u64,
    /// Of one file of the log.
    pub segment_bytes_max: u64,
    /// See [`Options`]; who is alone needs none.
    pub tick: Duration,
}

/// What a member is at the moment.
#[derive(Debug, Clone)]
pub enum Standing<M> {
    Following {
        leader: Option<u64>,
    },
    Leading {
        reign: Reign,
        machine: Handover<M>,
    },
    /// The member has stopped.
    Ended(Error),
}

/// The state as it was when a reign began, for the first who takes it: whoever holds on to it keeps alive what it shares
/// with later states.
#[derive(Debug, Clone)]
pub struct Handover<M>(Arc<Mutex<Option<M>>>);

impl<M> Handover<M> {
    fn new(machine: M) -> Handover<M> {
        Handover(Arc::new(Mutex::new(Some(machine))))
    }

    /// `None`: somebody has it already.
    pub fn take(&self) -> Option<M> {
        self.0.lock().take()
    }
}

/// A member at work. Dropped, it finishes what waits and lets go of the directory.
pub struct Driver<M> {
    shared: Arc<Shared>,
    machine: Arc<RwLock<M>>,
    standing: watch::Receiver<Standing<M>>,
    member: u64,
    incarnation: u64,
    voters: Vec<u64>,
    thread: Option<JoinHandle<()>>,
    /// `None` for who is alone.
    watchdog: Option<JoinHandle<()>>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// Told when the member has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// In which proposals are taken.
    reign: Option<reign::Throne>,
    /// The term in which the member must not lead any more.
    step_down: Option<u64>,
    proposals: Vec<Proposal>,
    /// Given to the last proposal.
    last_id: u64,
    undecided_bytes: usize,
    hurried: bool,
    messages: Vec<Message>,
    message_bytes: usize,
    disk_full: bool,
    stopped: bool,
    /// The thread does nothing more.
    ended: bool,
}

impl<M: StateMachine> Driver<M> {
    /// Opens the directory, or makes it with what `genesis` says. On return who is alone leads, and others follow.
    /// Blocks.
    ///
    /// # Errors
    /// Those of `Disk::open`, and XX001 for an entry that cannot be applied.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: DriverOptions,
        outbox: Arc<dyn Outbox>,
        genesis: impl FnOnce() -> Genesis,
    ) -> Result<Driver<M>> {
        let log_options = LogOptions { segment_bytes_max: options.segment_bytes_max, ..LogOptions::default() };
        let (disk, entries) = Disk::open(vfs, dir, log_options, genesis).map_err(explained)?;
        let (member, incarnation, voters) = (disk.member(), disk.incarnation(), entries.voters().to_vec());
        let corrupt = |reason| Error::new(SqlState::DATA_CORRUPTED, format!("the catalog cannot be read: {reason}"));
        let machine = Arc::new(RwLock::new(M::decode(entries.snapshot_state()).map_err(corrupt)?));
        let (arrived, ended) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { waiting: Mutex::default(), arrived, ended });
        let (standing, seen) = watch::channel(Standing::Following { leader: None });
        let alone = voters == [member];
        let applied = entries.snapshot_index();
        let core = Core::new(Options::new(member, incarnation), entries);
        let parts = (Arc::clone(&machine), Arc::clone(&shared), standing.clone());
        let mut rounds = Rounds::new(core, disk, applied, parts);
        rounds.log_bytes_max = options.log_bytes_max;
        rounds.outbox = Some(outbox);
        rounds.ticks = (!alone).then(|| rounds::Ticks::new(Arc::clone(&clock), options.tick));
        rounds.run(if alone { vec![Input::Campaign] } else { Vec::new() })?;
        assert!(!alone || matches!(rounds.role(), Role::Leader { .. }), "who is alone is elected at once");
        let thread = Some(spawn("raft", move || rounds.run_all())?);
        let mut driver =
            Driver { shared, machine, standing: seen, member, incarnation, voters, thread, watchdog: None };
        if !alone {
            let (shared, tick) = (Arc::clone(&driver.shared), options.tick);
            let watch = move || lease::watch(&shared, &standing, clock.as_ref(), tick);
            driver.watchdog = Some(spawn("raft watchdog", watch)?);
        }
        Ok(driver)
    }

    /// This member's number, from 1.
    pub fn member(&self) -> u64 {
        self.member
    }

    /// Drawn when the directory was made: tells a member that lost its disk from one that restarted.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub fn voters(&self) -> &[u64] {
        &self.voters
    }

    /// What this member is, and what it becomes.
    pub fn standing(&self) -> watch::Receiver<Standing<M>> {
        self.standing.clone()
    }

    /// Looks at what all entries applied so far add up to.
    pub fn look<T>(&self, look: impl FnOnce(&M) -> T) -> T {
        look(&self.machine.read())
    }

    /// A message of another member; one too many is dropped.
    ///
    /// # Errors
    /// 08P01 when it is none.
    pub fn receive(&self, message: &[u8]) -> Result<()> {
        let parsed = Message::parse_from_bytes(message);
        let parsed = parsed.map_err(|e| {
            Error::new(SqlState::PROTOCOL_VIOLATION, format!("not a message of the replicated log: {e}"))
        })?;
        let mut waiting = self.shared.waiting.lock();
        if waiting.messages.len() < INBOX_MAX && waiting.message_bytes < INBOX_BYTES_MAX {
            waiting.message_bytes += message.len();
            waiting.messages.push(parsed);
            self.shared.arrived.notify_one();
        }
        Ok(())
    }

    /// Has nobody wait for the log any more, although its thread may sit in a write: what was proposed stays open. For a
    /// process that is to stop.
    pub fn abandon(&self) {
        let mut waiting = self.shared.waiting.lock();
        waiting.stopped = true;
        waiting.end_reign(&shutting_down());
        self.shared.arrived.notify_one();
    }
}

impl Waiting {
    /// Nothing more is taken; who waits for something is told why.
    fn end_reign(&mut self, end: &Error) {
        let Some(reign) = self.reign.take() else { return };
        self.proposals.clear();
        self.undecided_bytes = 0;
        reign.progress.send_modify(|progress| progress.end = Some(end.clone()));
    }

    /// The same, and the member is to make way for another as soon as it can.
    fn step_down(&mut self, end: &Error) {
        self.step_down = self.reign.as_ref().map(|reign| reign.term);
        self.end_reign(end);
    }
}

impl<M> Drop for Driver<M> {
    fn drop(&mut self) {
        let mut waiting = self.shared.waiting.lock();
        waiting.stopped = true;
        self.shared.arrived.notify_one();
        let has_ended = |waiting: &mut Waiting| !waiting.ended;
        if self.shared.ended.wait_while_for(&mut waiting, has_ended, STOP_TIMEOUT).timed_out() {
            tracing::error!("a write of the coordinator's log does not end: it is left behind");
            waiting.end_reign(&shutting_down());
            waiting.ended = true;
            self.thread = None;
        }
        drop(waiting);
        self.shared.ended.notify_all();
        for thread in self.thread.take().into_iter().chain(self.watchdog.take()) {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|e| Error::internal(format!("could not start the thread \"{name}\": {e}")))
}

fn shutting_down() -> Error {
    Error::new(SqlState::ADMIN_SHUTDOWN, "the coordinator is shutting down")
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
