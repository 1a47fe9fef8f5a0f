//! The two doors to the world outside that are not the disk: time and chance. Everything takes them as a trait, so that
//! a whole cluster can run on a simulated clock from one seed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub trait Clock: Send + Sync + 'static {
    /// Wall time, microseconds since 1970-01-01 UTC. For the user's `now()` and for logs, never for ordering commits.
    fn now_us(&self) -> i64;

    /// Time since an arbitrary start; never goes back. For timeouts and ages.
    fn elapsed(&self) -> Duration;
}

pub trait Rng: Send + Sync + 'static {
    fn next_u64(&self) -> u64;

    fn fill(&self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next_u64().to_le_bytes()[..part.len()]);
        }
    }
}

/// The machine's clock.
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    #[expect(clippy::new_without_default, reason = "starting a clock is an effect, not a default")]
    pub fn new() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The operating system's random numbers; fit for secrets.
pub struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}
