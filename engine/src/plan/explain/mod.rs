//! EXPLAIN in the words PostgreSQL and TimescaleDB users know: which node runs what over which chunks, why the rest runs on
//! the access node, and with ANALYZE what it cost.
//!
//! `walk` goes through a plan that was cut and makes a [`PlanNode`] of each operator; `words` has their names, `estimate`
//! and `spent` the numbers. `tree` is what comes out, `text` and `json` print it.
//!
//! Times of EXPLAIN ANALYZE include what is below, as PostgreSQL's do: for an operator the work of all threads, for a
//! data node and for the first line the clock on the wall.

mod estimate;
mod json;
mod spent;
mod text;
mod tree;
mod walk;
mod words;

pub use tree::{Explained, PlanNode, Title, Value};
pub(super) use words::operator;

use datafusion::physical_plan::ExecutionPlan;
use std::time::Duration;
use tree::Actual;
use walk::Walk;

/// What is to be shown, as PostgreSQL names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExplainOptions {
    pub analyze: bool,
    pub verbose: bool,
    pub costs: bool,
    /// Times of operators.
    pub timing: bool,
    /// What was read and sent, in bytes.
    pub buffers: bool,
    /// Times of planning and execution.
    pub summary: bool,
}

impl ExplainOptions {
    /// What is shown when nothing more is said.
    pub fn new(analyze: bool, verbose: bool) -> ExplainOptions {
        ExplainOptions { analyze, verbose, costs: true, timing: analyze, buffers: analyze, summary: analyze }
    }
}

/// What running the plan showed.
pub(super) struct Analyzed {
    pub rows: usize,
    pub execution: Duration,
}

/// A plan that was cut. A filled `analyzed` means it has run.
pub(super) fn explained(
    plan: &dyn ExecutionPlan,
    planning: Duration,
    analyzed: Option<&Analyzed>,
    options: &ExplainOptions,
) -> Explained {
    let mut root = Walk { options, analyzed: analyzed.is_some() }.coordinator(plan);
    if let Some(analyzed) = analyzed {
        let time = options.timing.then_some(analyzed.execution);
        root.actual = Some(Actual { time, rows: analyzed.rows as u64 });
    }
    Explained { root, planning, execution: analyzed.map(|analyzed| analyzed.execution) }
}
