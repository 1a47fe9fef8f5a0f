//! For how long who leads may take itself for the only one, and who ends its reign when that is over.
//!
//! A heartbeat carries the leader's clock, and its answer brings it back. Who answered votes for nobody else until an
//! election timeout later; when a majority did, nobody else leads for so long. Time counts from when the heartbeat was
//! sent, on the leader's clock, however long the answer took. It is what catalogs may be read on (`Reign::assured`);
//! rows need none of it, because nodes refuse who was replaced.
//!
//! The watchdog has a thread of its own: that of the rounds may sit in a write which does not end, on a disk that is full
//! or does not answer, while the others, who hear nothing, elect another.
//!
//! Not covered: who restarts has forgotten whom it heard, and may vote at once; a clock that stands still while a machine
//! is suspended.

use super::{Shared, Standing, reign};
use crate::raft::core::ELECTION_TICKS;
use bytes::Bytes;
use proto::Clock;
use raft::prelude::{Message, MessageType};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;

/// Less than an election timeout: a member's first tick may come at once, and its clock may be the faster one.
const LEASE_TICKS: u32 = ELECTION_TICKS - 2;
/// Behind the end of a lease, until the reign ends: by then the others have elected another, if they can.
const SILENCE_TICKS: u32 = 2 * ELECTION_TICKS - LEASE_TICKS;

/// When the last heartbeat was sent that a member has answered, by member.
#[derive(Default)]
pub(super) struct Heard(BTreeMap<u64, Duration>);

impl Heard {
    /// Of an answer in this term.
    pub(super) fn note(&mut self, answer: &Message) {
        let sent = <[u8; 8]>::try_from(&answer.context[..]).map(u64::from_le_bytes).map(Duration::from_nanos);
        let Ok(sent) = sent else { return };
        let last = self.0.entry(answer.from).or_default();
        *last = sent.max(*last);
    }

    /// Until when nobody else leads.
    pub(super) fn lease_end(&self, voters: usize, tick: Duration) -> Option<Duration> {
        let mut sent = self.0.values().copied().collect::<Vec<_>>();
        sent.sort_unstable();
        // So many others are a majority with us.
        let others = voters / 2;
        let oldest = sent.len().checked_sub(others).and_then(|at| sent.get(at));
        oldest.map(|sent| *sent + tick * LEASE_TICKS)
    }
}

/// Has a heartbeat say when it was sent.
pub(super) fn stamp(message: &mut Message, now: Duration) {
    if message.get_msg_type() == MessageType::MsgHeartbeat {
        let now_ns = u64::try_from(now.as_nanos()).expect("a process does not run for centuries");
        message.context = Bytes::copy_from_slice(&now_ns.to_le_bytes());
    }
}

/// Whether it is a leader's word, which ends a member's silence.
pub(super) fn is_leaders(message: &Message) -> bool {
    use MessageType::{MsgAppend, MsgHeartbeat, MsgSnapshot};
    matches!(message.get_msg_type(), MsgHeartbeat | MsgAppend | MsgSnapshot)
}

/// Ends reigns whose lease was not renewed for too long, until the member has ended.
pub(super) fn watch<M>(shared: &Shared, standing: &watch::Sender<Standing<M>>, clock: &dyn Clock, tick: Duration) {
    let mut waiting = shared.waiting.lock();
    while !waiting.ended {
        shared.ended.wait_for(&mut waiting, tick);
        let lapsed =
            |reign: &reign::Throne| clock.elapsed() > reign.progress.borrow().assured_until + tick * SILENCE_TICKS;
        if waiting.reign.as_ref().is_some_and(lapsed) {
            tracing::warn!("this coordinator led and was not heard for too long: its reign ends");
            waiting.step_down(&reign::deposed());
            // Under the lock, so that it cannot hide a later reign.
            standing.send_replace(Standing::Following { leader: None });
            shared.arrived.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn a_lease_counts_from_the_oldest_word_that_a_majority_has_answered() {
        let mut heard = Heard::default();
        let lease = Duration::from_millis(800);
        assert_eq!(heard.lease_end(3, TICK), None, "nobody has answered");
        let mut answer = |member, ms| {
            let mut message = Message { from: member, ..Message::default() };
            message.set_msg_type(MessageType::MsgHeartbeat);
            stamp(&mut message, Duration::from_millis(ms));
            heard.note(&message);
            (heard.lease_end(3, TICK), heard.lease_end(5, TICK))
        };
        assert_eq!(answer(2, 500), (Some(Duration::from_millis(500) + lease), None));
        assert_eq!(answer(2, 300).0, Some(Duration::from_millis(500) + lease), "an answer that came late");
        let (of_three, of_five) = answer(3, 700);
        assert_eq!(of_three, Some(Duration::from_millis(700) + lease), "one of the others is enough");
        assert_eq!(of_five, Some(Duration::from_millis(500) + lease), "two must have answered");
    }
}
