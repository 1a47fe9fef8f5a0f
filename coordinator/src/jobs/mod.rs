//! Jobs at work: when each runs, what it does, and what became of it. Which jobs there are is the catalog's knowledge.
//!
//! `history` a job's runs and when the next one is due · `policy` which chunks a job is about · `scheduler` the one task
//! that runs jobs, one after the other, each in transactions of its own and with the rights of its table's owner.
//!
//! Invariants
//! - What happened is kept in memory: after a restart every job counts as never run, and runs at once unless its
//!   `next_start_us` says otherwise. Jobs may therefore be run again without harm.
//! - A job that fails is tried again later and later; it never stops the scheduler.

mod history;
mod policy;
mod scheduler;

pub use history::{Histories, History};
pub(crate) use policy::due_chunks;
pub use scheduler::Scheduler;
