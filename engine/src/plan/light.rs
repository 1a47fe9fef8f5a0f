//! Plans that read little. For a plan over a few thousand rows, dividing the work among partitions costs more than the work
//! itself. How much a plan reads is not known before it has run, but a template is run again and again: what its last runs
//! read tells how the next is best run ([`Load`]). Only the speed depends on the guess.

use super::metrics::FragmentMetrics;
use super::scan::ChunkScan;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use parking_lot::Mutex;
use std::sync::Arc;

/// Answers of nodes that read few rows, one after the other, before the next run is expected to be such.
const ANSWERS_MIN: u32 = 2;
/// One partition reads them within milliseconds.
const FEW_ROWS: u64 = 32_768;

type Plan = Arc<dyn ExecutionPlan>;

/// What the last runs of a plan have read.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Answers of few rows since the last of many.
    light: u32,
    /// The most chunks of a node that were read for one of these.
    chunks: usize,
}

impl Load {
    /// A node has answered, from so many chunks.
    pub fn answered(&self, metrics: &FragmentMetrics, chunks: usize) {
        let mut seen = self.0.lock();
        *seen = match metrics.rows_most() <= FEW_ROWS {
            true => Seen { light: seen.light.saturating_add(1), chunks: seen.chunks.max(chunks) },
            false => Seen::default(),
        };
    }

    /// Whether a run over so many chunks on a node is likely to read few rows.
    pub fn is_light(&self, chunks: usize) -> bool {
        let seen = self.0.lock();
        seen.light >= ANSWERS_MIN && chunks <= seen.chunks
    }
}

/// The same in one partition.
pub(super) fn narrow(plan: Plan) -> Result<Plan> {
    let narrowed = plan.transform_up(|node| {
        if let Some(scan) = node.downcast_ref::<ChunkScan>() {
            return Ok(Transformed::yes(Arc::new(scan.clone().in_one_partition()) as Plan));
        }
        let [input] = node.children()[..] else { return Ok(Transformed::no(node)) };
        let single = input.properties().partitioning.partition_count() == 1;
        if let Some(repartition) = node.downcast_ref::<RepartitionExec>() {
            let order = repartition.preserve_order().then(|| repartition.properties().output_ordering()).flatten();
            return Ok(Transformed::yes(match order {
                _ if single => Arc::clone(input),
                Some(order) => Arc::new(SortPreservingMergeExec::new(order.clone(), Arc::clone(input))),
                None => Arc::new(CoalescePartitionsExec::new(Arc::clone(input))),
            }));
        }
        let unites = node.is::<CoalescePartitionsExec>() || node.is::<SortPreservingMergeExec>();
        if unites && single && node.fetch().is_none() {
            return Ok(Transformed::yes(Arc::clone(input)));
        }
        Ok(Transformed::no(node))
    });
    Ok(narrowed?.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::metrics::OperatorMetrics;

    fn metrics(rows: u64) -> FragmentMetrics {
        let name = "FilterExec".to_owned();
        let operator = OperatorMetrics { name, rows: Some(rows), busy_us: None, spilled_bytes: None, scan: None };
        FragmentMetrics { elapsed_us: 0, operators: vec![operator] }
    }

    #[test]
    fn a_plan_is_light_until_one_of_its_runs_is_not() {
        let load = Load::default();
        for answers in 0..ANSWERS_MIN {
            assert!(!load.is_light(1), "after {answers} answers");
            load.answered(&metrics(FEW_ROWS), 2);
        }
        assert!(load.is_light(2));
        assert!(!load.is_light(3), "more chunks may hold more rows");
        load.answered(&metrics(FEW_ROWS + 1), 2);
        assert!(!load.is_light(1));
    }
}
