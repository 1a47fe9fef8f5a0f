//! Room for recursion: planners and optimizers descend into expressions and subqueries, and threads of a runtime have
//! small stacks.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

/// Grown when less than this is left: more than one descent through a planner's unguarded functions takes.
const RED_ZONE_BYTES: usize = 4 << 20;
/// Only pages that are touched cost anything.
const STACK_BYTES: usize = 32 << 20;

pub(super) fn roomy<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(RED_ZONE_BYTES, STACK_BYTES, work)
}

/// Every poll of `work` has room.
pub(super) async fn roomy_future<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    std::future::poll_fn(|context| -> Poll<T> { roomy(|| work.as_mut().poll(context)) }).await
}
