//! A member's right to propose, while it leads in one term.

use super::Shared;
use crate::raft::core::{PROPOSAL_BYTES_MAX, Proposal};
use bytes::Bytes;
use proto::{Clock, Error, Reaction, Result, SqlState};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Proposals that wait or are being written; more are refused.
const UNDECIDED_BYTES_MAX: usize = 32 << 20;
/// Proposals nobody waits for before they are written all the same.
const UNHURRIED_MAX: usize = 1000;

/// A handle; clones are the same reign.
#[derive(Clone)]
pub struct Reign {
    pub(super) term: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) progress: Arc<watch::Sender<Progress>>,
    /// `None` for who is alone.
    pub(super) clock: Option<Arc<dyn Clock>>,
}

/// A reign as those see it who may end it.
pub(super) struct Throne {
    pub(super) term: u64,
    pub(super) progress: Arc<watch::Sender<Progress>>,
}

#[derive(Default, Clone)]
pub(super) struct Progress {
    /// All proposals up to this one are committed and applied.
    pub(super) committed: u64,
    /// On the leader's clock: until then nobody else leads. See `lease`.
    pub(super) assured_until: Duration,
    /// The reign is over: nothing more will be known here.
    pub(super) end: Option<Error>,
}

impl fmt::Debug for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reign({})", self.term)
    }
}

impl Reign {
    /// No other reign of the group has it, and later ones have higher ones.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Gives an entry its place in the order, and a number to wait for. Not yet durable. Without `hurried` it is
    /// written together with the next one that is.
    ///
    /// # Errors
    /// Nothing was proposed: 53100 while the disk is full, 53000 when too much waits for it, or what ended the reign.
    pub fn propose(&self, entry: Vec<u8>, hurried: bool) -> Result<u64> {
        if let Some(end) = &self.progress.borrow().end {
            return Err(end.clone());
        }
        let mut waiting = self.shared.waiting.lock();
        let refuse = |code, text: &str| Err(Error::new(code, text).reaction(Reaction::Abort));
        if waiting.reign.as_ref().is_none_or(|reign| reign.term != self.term) {
            return Err(deposed());
        }
        if waiting.disk_full {
            return refuse(SqlState::DISK_FULL, "the disk of the coordinator's log is full");
        }
        if waiting.undecided_bytes > 0 && waiting.undecided_bytes + entry.len() > UNDECIDED_BYTES_MAX {
            return refuse(SqlState::new("53000"), "too many commits wait for the coordinator's log");
        }
        if entry.len() > PROPOSAL_BYTES_MAX {
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
    /// What ended the reign: whether the proposal is committed, or will be, is not known here.
    pub async fn committed(&self, proposal: u64) -> Result<()> {
        let mut progress = self.progress.subscribe();
        let reached = |progress: &Progress| progress.committed >= proposal || progress.end.is_some();
        let reached = progress.wait_for(reached).await.expect("the sender lives in self");
        match &reached.end {
            Some(end) if reached.committed < proposal => Err(end.clone()),
            _ => Ok(()),
        }
    }

    /// Waits until it is certain that no other member leads, as it is most of the time: whatever was acknowledged by
    /// anybody until this was called is in this reign's state.
    ///
    /// # Errors
    /// What ended the reign. It ends soon if that cannot be had.
    pub async fn assured(&self) -> Result<()> {
        let is_assured = |progress: &Progress| {
            let in_time = |clock: &Arc<dyn Clock>| clock.elapsed() < progress.assured_until;
            progress.end.is_some() || self.clock.as_ref().is_none_or(in_time)
        };
        let known = |progress: &Progress| progress.end.clone().map_or(Ok(()), Err);
        {
            let progress = self.progress.borrow();
            if is_assured(&progress) {
                return known(&progress);
            }
        }
        let mut progress = self.progress.subscribe();
        let progress = progress.wait_for(is_assured).await.expect("the sender lives in self");
        known(&progress)
    }

    /// Gives the reign up, so that another begins: one that has lost track of what it did.
    pub fn resign(&self, reason: &Error) {
        let mut waiting = self.shared.waiting.lock();
        if waiting.reign.as_ref().is_some_and(|reign| reign.term == self.term) {
            waiting.step_down(reason);
            // There is nobody else: the member ends, to be started again.
            waiting.stopped |= self.clock.is_none();
            self.shared.arrived.notify_one();
        }
    }

    /// Waits until the reign is over, and says why.
    pub async fn ended(&self) -> Error {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|progress| progress.end.is_some()).await.expect("the sender lives in self");
        ended.end.clone().expect("that is what was waited for")
    }

    pub fn is_over(&self) -> bool {
        self.progress.borrow().end.is_some()
    }

    /// Has proposals without hurry written too.
    pub fn hurry(&self) {
        self.shared.waiting.lock().hurried = true;
        self.shared.arrived.notify_one();
    }
}

pub(super) fn deposed() -> Error {
    Error::new(SqlState::ADMIN_SHUTDOWN, "this coordinator does not lead any more").reaction(Reaction::Abort)
}
