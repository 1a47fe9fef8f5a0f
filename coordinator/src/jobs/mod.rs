//! Jobs at work: when each runs, what it does, and what became of it. Which jobs there are is the catalog's knowledge.
//!
//! `history` a job's runs and when the next one is due · `policy` which chunks a job is about · `scheduler` the one task
//! that runs jobs, one after the other, each in transactions of its own and with the rights of its table's owner.
//!
//! Invariants
//! - What became of runs is in the catalog after a clean stop; while the process lives, it is written there once a minute
//!   for each job at most. After a crash a job may therefore run again before its time, which does no harm.
//! - A job that fails is tried again later and later; it never stops the scheduler.

mod history;
mod policy;
mod scheduler;

pub use history::{Histories, History};
pub(crate) use policy::due_chunks;
pub use scheduler::Scheduler;
