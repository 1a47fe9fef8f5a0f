//! The thread's work: what has come in, one round of the core after the other, what they say of proposals and reigns.

use super::lease::{self, Heard};
use super::reign::{Progress, Reign, Throne, deposed};
use super::{Handover, Outbox, Shared, Standing, StateMachine, shutting_down};
use crate::raft::core::{After, Apply, Core, Decided, Input, Persist, Role};
use crate::raft::disk::{Disk, Durable};
use bytes::Bytes;
use parking_lot::RwLock;
use proto::{Clock, Error, Result, SqlState};
use protobuf::Message as _;
use raft::prelude::{Message, MessageType};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often a write that a full disk refused is tried again.
const FULL_DISK_INTERVAL: Duration = Duration::from_millis(100);
/// Ticks that are made up for after a pause: enough that a leader nobody answered in the meantime steps down.
const TICKS_MAX: usize = 25;

pub(super) struct Rounds<M> {
    core: Core,
    disk: Disk,
    machine: Arc<RwLock<M>>,
    /// Index and term of the last entry the machine has.
    applied: (u64, u64),
    pub(super) log_bytes_max: u64,
    shared: Arc<Shared>,
    standing: watch::Sender<Standing<M>>,
    /// Ours, if we lead and may propose.
    reign: Option<Reign>,
    /// Its proposals that are not committed yet: number and bytes.
    undecided: VecDeque<(u64, usize)>,
    /// In our reign.
    heard: Heard,
    pub(super) outbox: Option<Arc<dyn Outbox>>,
    /// `None` for who is alone.
    pub(super) ticks: Option<Ticks>,
}

/// When the next tick is due.
pub(super) struct Ticks {
    clock: Arc<dyn Clock>,
    interval: Duration,
    last: Duration,
}

impl Ticks {
    pub(super) fn new(clock: Arc<dyn Clock>, interval: Duration) -> Ticks {
        let last = clock.elapsed();
        Ticks { clock, interval, last }
    }

    fn until_next(&self) -> Duration {
        (self.last + self.interval).saturating_sub(self.clock.elapsed())
    }

    /// How many are due.
    fn take(&mut self) -> usize {
        let now = self.clock.elapsed();
        let due = now.saturating_sub(self.last).as_nanos() / self.interval.as_nanos().max(1);
        match usize::try_from(due) {
            Ok(due) if due <= TICKS_MAX => {
                self.last += self.interval * due as u32;
                due
            }
            _ => {
                self.last = now;
                TICKS_MAX
            }
        }
    }
}

impl<M: StateMachine> Rounds<M> {
    pub(super) fn new(
        core: Core,
        disk: Disk,
        applied: u64,
        (machine, shared, standing): (Arc<RwLock<M>>, Arc<Shared>, watch::Sender<Standing<M>>),
    ) -> Rounds<M> {
        Rounds {
            core,
            disk,
            machine,
            applied: (applied, 0),
            log_bytes_max: u64::MAX,
            shared,
            standing,
            reign: None,
            undecided: VecDeque::new(),
            heard: Heard::default(),
            outbox: None,
            ticks: None,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.core.role()
    }

    pub(super) fn run_all(mut self) {
        while let Some(inputs) = self.next() {
            if let Err(error) = self.run(inputs) {
                tracing::error!(%error, "the coordinator's log has stopped");
                return self.end(error);
            }
        }
        self.end(shutting_down());
    }

    /// Waits for something to do. `None`: nothing will come any more.
    fn next(&mut self) -> Option<Vec<Input>> {
        let mut waiting = self.shared.waiting.lock();
        loop {
            let proposed = waiting.hurried && !waiting.proposals.is_empty();
            if waiting.stopped || proposed || !waiting.messages.is_empty() || waiting.step_down.is_some() {
                break;
            }
            match self.ticks.as_ref().map(Ticks::until_next) {
                None => self.shared.arrived.wait(&mut waiting),
                Some(Duration::ZERO) => break,
                Some(left) => drop(self.shared.arrived.wait_for(&mut waiting, left)),
            }
        }
        let alone = self.ticks.is_none();
        if waiting.stopped && (waiting.proposals.is_empty() || !alone) {
            return None;
        }
        waiting.hurried = false;
        waiting.message_bytes = 0;
        let messages = std::mem::take(&mut waiting.messages);
        let proposals = std::mem::take(&mut waiting.proposals);
        let step_down = waiting.step_down.take().map(Input::StepDown);
        drop(waiting);
        self.undecided.extend(proposals.iter().map(|proposal| (proposal.id, proposal.data.len())));
        let mut ticks = self.ticks.as_mut().map_or(0, Ticks::take);
        if messages.iter().any(lease::is_leaders) && !matches!(self.core.role(), Role::Leader { .. }) {
            // They were due before the leader's word is heard, and must not count as silence behind it: see `lease`.
            ticks = 0;
        }
        self.renew(&messages);
        // Messages first: an answer that waited while we slept is an answer.
        let messages = messages.into_iter().map(Input::Message);
        let ticks = std::iter::repeat_n(Input::Tick, ticks);
        let proposals = proposals.into_iter().map(Input::Propose);
        Some(step_down.into_iter().chain(messages).chain(ticks).chain(proposals).collect())
    }

    /// The reign's lease, by the answers to heartbeats.
    fn renew(&mut self, messages: &[Message]) {
        let (Some(reign), Some(ticks)) = (&self.reign, &self.ticks) else { return };
        let voters = self.core.entries().voters();
        let is_answer = |message: &&Message| {
            message.get_msg_type() == MessageType::MsgHeartbeatResponse
                && message.term == reign.term
                && voters.contains(&message.from)
        };
        messages.iter().filter(is_answer).for_each(|answer| self.heard.note(answer));
        let Some(end) = self.heard.lease_end(voters.len(), ticks.interval) else { return };
        reign.progress.send_if_modified(|progress| {
            let longer = end > progress.assured_until;
            progress.assured_until = end.max(progress.assured_until);
            longer
        });
    }

    /// All rounds that the inputs need, then a snapshot if it is time.
    pub(super) fn run(&mut self, inputs: Vec<Input>) -> Result<()> {
        let mut inputs = Some(inputs);
        while inputs.is_some() || self.core.has_work() {
            let step = self.core.step(inputs.take().unwrap_or_default());
            self.send(step.send)?;
            let durable = self.write(&step.persist)?;
            let After { send, apply, decided, role } = self.core.persisted(durable);
            self.send(send)?;
            apply.into_iter().try_for_each(|apply| self.apply(apply))?;
            self.answer(&decided);
            if role.is_some() {
                self.follow();
            }
            if let Some((_, refusal)) = step.refused.first().filter(|_| self.reign.is_some()) {
                return Err(Error::internal(format!("a proposal of the leader was refused: {refusal:?}")));
            }
            self.crown();
        }
        let news = self.applied.0 > self.core.entries().snapshot_index();
        if news && self.disk.bytes() > self.log_bytes_max { self.take_snapshot() } else { Ok(()) }
    }

    fn send(&self, messages: Vec<Message>) -> Result<()> {
        for mut message in messages {
            if let Some(ticks) = &self.ticks {
                lease::stamp(&mut message, ticks.clock.elapsed());
            }
            let bytes = message.write_to_bytes();
            let bytes = bytes.map_err(|e| Error::internal(format!("a message cannot be written: {e}")))?;
            let outbox = self.outbox.as_ref().expect("who is alone has nobody to send to");
            outbox.send(message.to, Bytes::from(bytes));
        }
        Ok(())
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
                    self.wait_for_room()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// # Errors
    /// Everybody leaves: nobody waits for the disk any more.
    fn wait_for_room(&self) -> Result<()> {
        let mut waiting = self.shared.waiting.lock();
        waiting.disk_full = true;
        if !waiting.stopped {
            self.shared.arrived.wait_for(&mut waiting, FULL_DISK_INTERVAL);
        }
        match waiting.stopped {
            true => Err(Error::new(SqlState::DISK_FULL, "the disk of the coordinator's log is full")),
            false => Ok(()),
        }
    }

    fn apply(&mut self, apply: Apply) -> Result<()> {
        let corrupted = |what: String| Error::new(SqlState::DATA_CORRUPTED, what);
        match apply {
            Apply::Restore { index, state } => {
                let restored = M::decode(&state);
                let unreadable = |reason| corrupted(format!("the snapshot at entry {index} cannot be read: {reason}"));
                *self.machine.write() = restored.map_err(unreadable)?;
                self.applied = (index, 0);
            }
            Apply::Entry { index, term, data } => {
                self.applied = (index, term);
                // A new leader's entry has no data.
                let outcome = if data.is_empty() { Ok(()) } else { self.machine.write().apply(&data) };
                outcome.map_err(|reason| {
                    corrupted(format!("entry {index} of the coordinator's log cannot be applied: {reason}"))
                })?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, decided: &[(u64, Decided)]) {
        // What is unknown is answered with the end of the reign.
        let committed = decided.iter().filter(|(_, decided)| matches!(decided, Decided::Committed { .. }));
        let Some(last) = committed.map(|(id, _)| *id).max() else { return };
        let Some(reign) = &self.reign else { return };
        let decided = self.undecided.iter().take_while(|(id, _)| *id <= last).count();
        let bytes = self.undecided.drain(..decided).map(|(_, bytes)| bytes).sum::<usize>();
        let mut waiting = self.shared.waiting.lock();
        // Nothing is counted any more when the reign was ended by others.
        waiting.undecided_bytes = waiting.undecided_bytes.saturating_sub(bytes);
        drop(waiting);
        reign.progress.send_modify(|progress| progress.committed = last);
    }

    /// The core's role has changed: a reign that was is over.
    fn follow(&mut self) {
        let leader = match self.core.role() {
            Role::Leader { term } if self.reign.as_ref().is_some_and(|reign| reign.term == term) => return,
            Role::Follower { leader, .. } => leader,
            Role::Leader { .. } | Role::Candidate { .. } => None,
        };
        self.end_reign(&deposed());
        self.standing.send_replace(Standing::Following { leader });
    }

    /// Begins a reign when the machine has all that is before it.
    fn crown(&mut self) {
        let Role::Leader { term } = self.core.role() else { return };
        if self.reign.is_some() || self.applied.1 != term {
            return;
        }
        let clock = self.ticks.as_ref().map(|ticks| Arc::clone(&ticks.clock));
        // Not assured yet: it begins with the first answer.
        let assured_until = clock.as_ref().map(|clock| clock.elapsed()).unwrap_or_default();
        let progress = Arc::new(watch::Sender::new(Progress { assured_until, ..Progress::default() }));
        self.heard = Heard::default();
        let machine = Handover::new(self.machine.read().clone());
        let reign = Reign { term, shared: Arc::clone(&self.shared), progress: Arc::clone(&progress), clock };
        self.reign = Some(reign.clone());
        let mut waiting = self.shared.waiting.lock();
        waiting.reign = Some(Throne { term, progress });
        // Under the lock, so that who ends it speaks later.
        self.standing.send_replace(Standing::Leading { reign, machine });
    }

    /// Commits wait meanwhile: a shortcut that costs some milliseconds per `log_bytes_max`.
    fn take_snapshot(&mut self) -> Result<()> {
        let state = Bytes::from(self.machine.read().encode()?);
        let index = self.applied.0;
        match self.disk.compact(self.core.entries(), index, state.clone()) {
            Ok(()) => {
                self.core.compact(index, state);
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

impl<M> Rounds<M> {
    fn end_reign(&mut self, end: &Error) {
        self.reign = None;
        self.undecided.clear();
        self.shared.waiting.lock().end_reign(end);
    }

    fn end(&mut self, error: Error) {
        self.end_reign(&error);
        self.standing.send_replace(Standing::Ended(error));
        self.shared.waiting.lock().ended = true;
        self.shared.ended.notify_all();
    }
}

/// Whoever waits when the thread panics must not wait for ever.
impl<M> Drop for Rounds<M> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end(Error::internal("the thread of the coordinator's log ended"));
        }
    }
}
