//! What a node runs in place of DataFusion's operators over its own scans, whose rows lie in runs: a segment is sorted by
//! series and time, so the rows of one group mostly follow each other.
//!
//! Each operator here stands for one of DataFusion's and has its schema, its output and its place in the plan, so that
//! neither its consumer nor EXPLAIN sees a difference. None relies on the order: rows that come in no runs are
//! aggregated as DataFusion would.

mod aggregate;
mod keys;
mod overflow;
mod sequence;
mod sieve;
mod states;
mod windows;

pub(super) use sequence::{SequenceExec, stretches};
pub(super) use windows::{Lead, Verdict, Window, Windows};

use super::bind::BoundScan;
use aggregate::RunAggregateExec;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::sorts::sort::SortExec;
use sieve::SieveExec;
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// Puts our operators into a plan whose scans are bound.
pub(super) fn replace(plan: Plan) -> Result<Plan> {
    counted(plan)?
        .transform_up(|node| {
            if let Some(sort) = node.downcast_ref::<SortExec>() {
                let sequence = SequenceExec::in_place_of(sort)?;
                return Ok(
                    sequence.map_or(Transformed::no(node), |sequence| Transformed::yes(Arc::new(sequence) as Plan))
                );
            }
            let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return Ok(Transformed::no(node)) };
            if !over_scan(aggregate.input()) || !RunAggregateExec::can_stand_for(aggregate) {
                return Ok(Transformed::no(node));
            }
            let input = sieved(aggregate.input())?;
            Ok(Transformed::yes(Arc::new(RunAggregateExec::new(aggregate.clone(), input)) as Plan))
        })
        .data()
}

/// Filters over a scan that reads by windows count what they leave. A scan without the filters it was told of reads all
/// at once.
fn counted(plan: Plan) -> Result<Plan> {
    plan.transform_down(|node| {
        let (mut filters, mut leaf) = (Vec::new(), &node);
        while let Some(filter) = leaf.downcast_ref::<FilterExec>() {
            filters.push(filter);
            leaf = filter.input();
        }
        let scan = leaf.downcast_ref::<BoundScan>();
        let Some((scan, (windows, time))) = scan.and_then(|scan| Some((scan, scan.read_by()?))) else {
            return Ok(Transformed::no(node));
        };
        if windows.leading.filters != filters.len() {
            let at_once: Plan = Arc::new(scan.at_once());
            let above = filters.iter().rev().try_fold(at_once, |below, filter| {
                Ok::<_, DataFusionError>(Arc::new(FilterExecBuilder::from(*filter).with_input(below).build()?) as Plan)
            });
            return Ok(Transformed::new(above?, true, TreeNodeRecursion::Jump));
        }
        if filters.is_empty() {
            return Ok(Transformed::no(node));
        }
        let mut below: Plan = Arc::new(scan.counted_above());
        for filter in filters.iter().rev() {
            below = Arc::new(SieveExec::over(below, filter));
        }
        let top = below.downcast_ref::<SieveExec>().expect("there is a filter").counting(windows, &time)?;
        Ok(Transformed::new(Arc::new(top) as Plan, true, TreeNodeRecursion::Jump))
    })
    .data()
}

/// Whether the rows of `plan` are those of a scan, in its order but for some that are left out.
fn over_scan(plan: &Plan) -> bool {
    if plan.is::<BoundScan>() {
        return true;
    }
    let passes = matches!(
        plan.name(),
        "CoalesceBatchesExec" | "CooperativeExec" | "FilterExec" | "ProjectionExec" | "RepartitionExec" | "SieveExec"
    );
    passes && plan.children().iter().all(|child| over_scan(child))
}

/// `plan` with its filters replaced, down to the scan.
fn sieved(plan: &Plan) -> Result<Plan> {
    Arc::clone(plan)
        .transform_up(|node| {
            let filter = node.downcast_ref::<FilterExec>().filter(|filter| filter.fetch().is_none());
            let sieve = filter.map(|filter| SieveExec::over(Arc::clone(filter.input()), filter));
            Ok(sieve.map_or(Transformed::no(node), |sieve| Transformed::yes(Arc::new(sieve) as Plan)))
        })
        .data()
}
