//! Whose turn it is to compute on a node. Short fragments never wait: they read and join freely for a few milliseconds. A
//! fragment that wants more asks for one of few slots, in the order of asking; so no more than these compete for the
//! processors with whatever comes next, and a query for one series stays quick while many read everything.
//!
//! - Whoever holds a slot for longer than a slice while others wait goes to the end of the queue: one that runs for
//!   minutes does not keep out those that need a second. It is asked between visits of scans and between batches of joins;
//!   a sort or an aggregate at the end of its input is not.
//! - A slot is given back while nobody takes the fragment's rows (`park`), and its scans rest. So a slot is only ever held
//!   by work that can go on by itself, and fragments that wait for each other through a join above them cannot
//!   lock each other out.
//! - Waiting is part of the statement's time, ends with it, and has a bound.
//!
//! It is not about memory: those who wait keep what they have.

use parking_lot::Mutex;
use proto::{Clock, Error, Result, SqlState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What a fragment computes before it needs a slot.
const FREE_TIME: Duration = Duration::from_millis(10);
const SLICE: Duration = Duration::from_millis(100);

/// The slots of a node.
pub struct Turns {
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    clock: Arc<dyn Clock>,
}

impl Turns {
    /// At most `waiting_max` fragments wait for one of `slots`.
    pub fn new(slots: usize, waiting_max: usize, clock: Arc<dyn Clock>) -> Turns {
        Turns { slots: Arc::new(Semaphore::new(slots.max(1))), waiting: AtomicUsize::new(0), waiting_max, clock }
    }

    /// The turn of a new fragment.
    pub fn turn(self: &Arc<Self>) -> Turn {
        Turn {
            turns: Arc::clone(self),
            state: Mutex::default(),
            queue: tokio::sync::Mutex::default(),
            resumed: Notify::new(),
        }
    }

    /// Whoever was `admitted` before is not refused in its middle.
    async fn slot(&self, admitted: bool) -> Result<OwnedSemaphorePermit> {
        const OPEN: &str = "the slots are never closed";
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        let _waiting = Waiting::new(self, admitted)?;
        Ok(Arc::clone(&self.slots).acquire_owned().await.expect(OPEN))
    }
}

/// One of those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(turns: &Turns, admitted: bool) -> Result<Waiting<'_>> {
        // First, so that it is taken back whatever comes.
        let waiting = Waiting(&turns.waiting);
        if turns.waiting.fetch_add(1, Ordering::Relaxed) < turns.waiting_max || admitted {
            return Ok(waiting);
        }
        let message = format!("{} queries wait for this data node already", turns.waiting_max);
        Err(Error::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, message).hint("Try again when fewer queries run."))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A fragment's; its scans share it. Dropping it gives its slot back.
pub struct Turn {
    turns: Arc<Turns>,
    state: Mutex<State>,
    /// Held by the one of its scans that waits for a slot.
    queue: tokio::sync::Mutex<()>,
    resumed: Notify,
}

#[derive(Default)]
struct State {
    ran: Duration,
    parked: bool,
    /// It had a slot.
    admitted: bool,
    /// And since when.
    slot: Option<(OwnedSemaphorePermit, Duration)>,
}

enum Next {
    Go,
    /// Nobody takes its rows.
    Rest,
    Queue,
}

impl Turn {
    /// Before a scan goes on reading, or a join goes on joining. A dropped future leaves nothing behind.
    ///
    /// # Errors
    /// `CONFIGURATION_LIMIT_EXCEEDED` when too many wait.
    pub async fn step(&self) -> Result<()> {
        loop {
            let resumed = self.resumed.notified();
            match self.next() {
                Next::Go => return Ok(()),
                Next::Rest => resumed.await,
                Next::Queue => {
                    let _queue = self.queue.lock().await;
                    // Another of its scans may have waited for it.
                    if matches!(self.next(), Next::Queue) {
                        let admitted = self.state.lock().admitted;
                        let slot = self.turns.slot(admitted).await?;
                        self.take(slot);
                    }
                }
            }
        }
    }

    fn next(&self) -> Next {
        let mut state = self.state.lock();
        if state.ran < FREE_TIME {
            return Next::Go;
        }
        if state.parked {
            return Next::Rest;
        }
        let Some((_, since)) = &state.slot else { return Next::Queue };
        let over = self.turns.clock.elapsed().saturating_sub(*since) > SLICE;
        if over && self.turns.waiting.load(Ordering::Relaxed) > 0 {
            state.slot = None;
            return Next::Queue;
        }
        Next::Go
    }

    /// So long did a step take.
    pub fn ran(&self, took: Duration) {
        self.state.lock().ran += took;
    }

    fn take(&self, slot: OwnedSemaphorePermit) {
        let mut state = self.state.lock();
        state.admitted = true;
        if !state.parked {
            state.slot = Some((slot, self.turns.clock.elapsed()));
        }
    }

    /// Its rows are not taken: it has nothing to do until `resume`.
    pub fn park(&self) {
        let mut state = self.state.lock();
        state.parked = true;
        state.slot = None;
    }

    pub fn resume(&self) {
        self.state.lock().parked = false;
        self.resumed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::atomic::AtomicU64;

    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now_us(&self) -> i64 {
            0
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn turns(slots: usize, waiting_max: usize) -> (Arc<Turns>, Arc<Hand>) {
        let clock = Arc::new(Hand::default());
        (Arc::new(Turns::new(slots, waiting_max, clock.clone())), clock)
    }

    /// A fragment that has read enough to need a slot.
    async fn long(turns: &Arc<Turns>) -> Turn {
        let turn = turns.turn();
        turn.step().await.unwrap();
        turn.ran(FREE_TIME);
        turn
    }

    #[tokio::test]
    async fn short_fragments_pass_and_long_ones_come_in_the_order_of_asking() {
        let (turns, _) = turns(1, 10);
        let (first, second, third) = (long(&turns).await, long(&turns).await, long(&turns).await);
        first.step().await.unwrap();
        let (mut second_goes, mut third_goes) = (second.step().boxed(), third.step().boxed());
        assert!((&mut second_goes).now_or_never().is_none());
        assert!((&mut third_goes).now_or_never().is_none());
        assert!(turns.turn().step().now_or_never().is_some(), "a new one reads at once");
        drop(first);
        assert!((&mut third_goes).now_or_never().is_none());
        assert!((&mut second_goes).now_or_never().is_some());
        drop(second_goes);
        drop(second);
        assert!(third_goes.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_slice_ends_only_for_others_and_the_queue_has_a_bound() {
        let (turns, clock) = turns(1, 1);
        let (first, second, third) = (long(&turns).await, long(&turns).await, long(&turns).await);
        first.step().await.unwrap();
        clock.0.store(1000, Ordering::Relaxed);
        assert!(first.step().now_or_never().is_some(), "nobody waits");
        let mut second_goes = second.step().boxed();
        assert!((&mut second_goes).now_or_never().is_none());
        let refused = third.step().now_or_never().unwrap().unwrap_err();
        assert_eq!(refused.code, SqlState::CONFIGURATION_LIMIT_EXCEEDED);
        let mut first_goes = first.step().boxed();
        assert!((&mut first_goes).now_or_never().is_none());
        assert!((&mut second_goes).now_or_never().is_some());
        drop(second_goes);
        drop(second);
        assert!(first_goes.now_or_never().is_some());
    }

    /// The danger: two halves of a join, of which one waits for a slot and the other holds it until that one was read.
    #[tokio::test]
    async fn who_is_not_read_holds_no_slot() {
        let (turns, _) = turns(1, 10);
        let (unread, other) = (long(&turns).await, long(&turns).await);
        unread.step().await.unwrap();
        unread.park();
        assert!(other.step().now_or_never().is_some());
        let mut goes = unread.step().boxed();
        assert!((&mut goes).now_or_never().is_none());
        unread.resume();
        assert!((&mut goes).now_or_never().is_none(), "the other holds it");
        // Parked while it waits: a slot that comes then is for somebody else.
        unread.park();
        drop(other);
        assert!((&mut goes).now_or_never().is_none());
        assert!(long(&turns).await.step().now_or_never().is_some());
        unread.resume();
        assert!(goes.now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_queue() {
        let (turns, _) = turns(1, 1);
        let (first, second, third) = (long(&turns).await, long(&turns).await, long(&turns).await);
        first.step().await.unwrap();
        assert!(second.step().now_or_never().is_none());
        let mut third_goes = third.step().boxed();
        assert!((&mut third_goes).now_or_never().is_none());
        drop(first);
        assert!(third_goes.now_or_never().is_some());
    }
}
