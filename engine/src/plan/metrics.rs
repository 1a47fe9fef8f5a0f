//! What a fragment's run cost on its node, for EXPLAIN ANALYZE. Travels as JSON in the stream's last message.

use super::bind::BoundScan;
use super::node::SequenceExec;
use super::pace;
use bytes::Bytes;
use datafusion::physical_plan::ExecutionPlan;
use proto::{ScanTotals, Traffic};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a node answered, as the coordinator saw it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub metrics: FragmentMetrics,
    /// The coordinator had nothing to do with this answer but to wait for more of it.
    pub waited_us: u64,
    /// `None` from a node in the same process.
    pub traffic: Option<Traffic>,
}

impl Answer {
    /// What of the waiting the node's own work does not explain.
    pub fn network_us(&self) -> u64 {
        self.waited_us.saturating_sub(self.metrics.elapsed_us)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FragmentMetrics {
    /// From the request's arrival to its last row.
    pub elapsed_us: u64,
    /// In pre-order, as `explain` walks the fragment's plan.
    pub operators: Vec<OperatorMetrics>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OperatorMetrics {
    pub name: String,
    pub rows: Option<u64>,
    /// Summed over partitions.
    pub busy_us: Option<u64>,
    /// What did not fit into memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spilled_bytes: Option<u64>,
    /// Of a scan, what it read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<ScanTotals>,
}

impl OperatorMetrics {
    /// What another instance did of the same work. Scans count together already.
    fn add(&mut self, other: OperatorMetrics) {
        let sum = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a + b.unwrap_or(0)));
        self.rows = sum(self.rows, other.rows);
        self.busy_us = sum(self.busy_us, other.busy_us);
        self.spilled_bytes = sum(self.spilled_bytes, other.spilled_bytes);
    }
}

impl FragmentMetrics {
    pub fn of(plan: &dyn ExecutionPlan, elapsed_us: u64) -> FragmentMetrics {
        let mut operators = Vec::new();
        visit(plan, &mut operators);
        FragmentMetrics { elapsed_us, operators }
    }

    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers and strings always encode").into()
    }

    /// Without the operator that the plan was sent below, if it was: what is left matches `plan`.
    pub fn of_plan(mut self, plan: &Arc<dyn ExecutionPlan>) -> FragmentMetrics {
        if self.operators.first().is_some_and(|first| first.name != plan.name() && first.name == "ScalarSubqueryExec") {
            self.operators.remove(0);
        }
        self
    }

    /// The most rows that one operator read or returned.
    pub fn rows_most(&self) -> u64 {
        let read = self.operators.iter().filter_map(|operator| Some(operator.scan.as_ref()?.rows_read));
        self.operators.iter().filter_map(|operator| operator.rows).chain(read).max().unwrap_or(0)
    }

    /// Metrics are not worth failing a query for.
    pub fn decode(bytes: &[u8]) -> Option<FragmentMetrics> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The totals of one operator.
pub(super) fn operator_metrics(plan: &dyn ExecutionPlan) -> OperatorMetrics {
    let metrics = plan.metrics();
    OperatorMetrics {
        name: plan.name().to_owned(),
        rows: metrics.as_ref().and_then(|m| m.output_rows()).map(|rows| rows as u64),
        busy_us: metrics.as_ref().and_then(|m| m.elapsed_compute()).map(|ns| ns as u64 / 1_000),
        spilled_bytes: metrics.as_ref().and_then(|m| m.spilled_bytes()).map(|bytes| bytes as u64).filter(|b| *b > 0),
        scan: plan.downcast_ref::<BoundScan>().map(BoundScan::totals),
    }
}

fn visit(plan: &dyn ExecutionPlan, operators: &mut Vec<OperatorMetrics>) {
    if let Some(sequence) = plan.downcast_ref::<SequenceExec>() {
        let of_sort = |sort: &Arc<dyn ExecutionPlan>| {
            let mut operators = Vec::new();
            visit(sort.as_ref(), &mut operators);
            operators
        };
        let together = sequence.sorts().iter().map(of_sort).reduce(|mut all, more| {
            all.iter_mut().zip(more).for_each(|(all, more)| all.add(more));
            all
        });
        operators.extend(together.unwrap_or_default());
        return;
    }
    if plan.name() != pace::NAME {
        operators.push(operator_metrics(plan));
    }
    plan.children().iter().for_each(|child| visit(child.as_ref(), operators));
}
