//! Where time and rows went, out of what operators measured.

use super::super::exchange::RemoteExec;
use super::super::metrics::{Answer, FragmentMetrics, OperatorMetrics, operator_metrics};
use super::tree::Value;
use datafusion::physical_plan::ExecutionPlan;
use std::time::Duration;

/// Operators of `plan`, itself included.
pub(super) fn size(plan: &dyn ExecutionPlan) -> usize {
    1 + plan.children().iter().map(|child| size(child.as_ref())).sum::<usize>()
}

/// The first operator with the time of all; without a time when nothing measured any.
pub(super) fn subtotal(subtree: &[OperatorMetrics]) -> OperatorMetrics {
    let first = &subtree[0];
    let busy_us = subtree.iter().filter_map(|operator| operator.busy_us).reduce(|sum, us| sum + us);
    OperatorMetrics { busy_us, ..first.clone() }
}

/// An operator on the access node with the time of those below; of data nodes that work side by side, the slowest.
pub(super) fn with_below(plan: &dyn ExecutionPlan) -> OperatorMetrics {
    let own = operator_metrics(plan);
    let below = match plan.downcast_ref::<RemoteExec>() {
        Some(remote) => {
            let answers = (0..remote.fragment.parts.len()).filter_map(|part| remote.answer(part));
            answers.map(|answer| answer.metrics.elapsed_us).max()
        }
        None => {
            let children = plan.children();
            children.iter().filter_map(|child| with_below(child.as_ref()).busy_us).reduce(|sum, us| sum + us)
        }
    };
    let busy_us = own.busy_us.into_iter().chain(below).reduce(|sum, us| sum + us);
    OperatorMetrics { busy_us, ..own }
}

/// The rows that reached an operator with one input: those of the first operator below it that counted any.
pub(super) fn input_rows(plan: &dyn ExecutionPlan) -> Option<u64> {
    let children = plan.children();
    let [child] = children[..] else { return None };
    operator_metrics(child.as_ref()).rows.or_else(|| input_rows(child.as_ref()))
}

/// The same of an operator on a data node; `subtree` begins with it.
pub(super) fn input_rows_of(plan: &dyn ExecutionPlan, subtree: &[OperatorMetrics]) -> Option<u64> {
    let children = plan.children();
    let [child] = children[..] else { return None };
    let below = subtree.get(1..)?;
    below.first()?.rows.or_else(|| input_rows_of(child.as_ref(), below))
}

/// What a data node's time went into: the work of all its threads, and what of the waiting was not the node's.
pub(super) fn times(answer: &Answer) -> Value {
    let FragmentMetrics { operators, .. } = &answer.metrics;
    let sum = |wanted: &dyn Fn(&OperatorMetrics) -> bool| {
        let busy = operators.iter().filter(|operator| wanted(operator)).filter_map(|operator| operator.busy_us);
        Value::Time(Duration::from_micros(busy.sum()))
    };
    let scans = |operator: &OperatorMetrics| operator.scan.is_some();
    let aggregates = |operator: &OperatorMetrics| operator.name.contains("Aggregate");
    // In one process it is the wait for a thread.
    let away = if answer.traffic.is_some() { "network" } else { "waiting" };
    Value::Parts(vec![
        ("decode", sum(&scans)),
        ("aggregate", sum(&aggregates)),
        ("other", sum(&|operator| !scans(operator) && !aggregates(operator))),
        (away, Value::Time(Duration::from_micros(answer.network_us()))),
    ])
}

/// What went over the network.
pub(super) fn traffic(answer: &Answer) -> Value {
    match answer.traffic {
        None => Value::Text("none, the data node is in this process".to_owned()),
        Some(traffic) => Value::Parts(vec![
            ("sent", Value::Bytes(traffic.request_bytes)),
            ("received", Value::Bytes(traffic.answer_bytes)),
            ("messages", Value::Count(traffic.messages)),
        ]),
    }
}
