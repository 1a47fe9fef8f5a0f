//! Cost, rows and width in the style of PostgreSQL. There are no statistics: the numbers only grow with the plan.

use super::super::exchange::RemoteExec;
use super::super::scan::ChunkScan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

const ROWS_PER_CHUNK: usize = 1000;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Estimate {
    pub cost: f64,
    pub rows: usize,
    pub width: usize,
}

impl Estimate {
    pub fn of(plan: &dyn ExecutionPlan) -> Estimate {
        let width = plan.schema().fields().len() * 8;
        if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
            let rows = scan.source.as_ref().map_or(0, |source| source.chunks.len()) * ROWS_PER_CHUNK;
            return Estimate { cost: rows as f64 * 0.01, rows, width };
        }
        if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
            let below = Estimate::of(remote.fragment.plan.as_ref());
            return Estimate { cost: below.cost + remote.fragment.parts.len() as f64 * 100.0, ..below };
        }
        let inputs = plan.children().into_iter().map(|child| Estimate::of(child.as_ref()));
        let (cost, rows) = inputs.fold((0.0, 0), |(cost, rows), input| (cost + input.cost, rows.max(input.rows)));
        let grouped = plan.downcast_ref::<AggregateExec>().map(|aggregate| match aggregate.group_expr().is_empty() {
            true => 1,
            false => rows / 10 + 1,
        });
        let rows = grouped.unwrap_or(rows).min(plan.fetch().unwrap_or(usize::MAX));
        Estimate { cost: cost + rows as f64 * 0.0025 + 0.01, rows: rows.max(1), width }
    }
}
