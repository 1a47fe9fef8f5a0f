//! EXPLAIN in the words PostgreSQL and TimescaleDB users know: which node runs what over which chunks, and why the rest
//! runs on the access node.

use super::exchange::{NodePart, RemoteExec};
use super::metrics::{FragmentMetrics, OperatorMetrics, operator_metrics};
use super::scan::ChunkScan;
use super::shards::plain;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use std::time::Duration;

/// What running the plan showed.
pub(super) struct Analyzed {
    pub rows: usize,
    pub planning: Duration,
    pub execution: Duration,
}

/// The lines of a plan that was cut. A filled `analyzed` means it has run.
pub(super) fn lines(plan: &dyn ExecutionPlan, analyzed: Option<&Analyzed>, verbose: bool) -> Vec<String> {
    let mut printer = Printer { lines: Vec::new(), analyze: analyzed.is_some(), verbose };
    printer.coordinator(plan, 0);
    if let (Some(analyzed), Some(first)) = (analyzed, printer.lines.first_mut()) {
        let (ms, rows) = (millis(analyzed.execution), analyzed.rows);
        *first = format!("{} (actual time=0.000..{ms} rows={rows} loops=1)", unmeasured(first));
        printer.lines.push(format!("Planning Time: {} ms", millis(analyzed.planning)));
        printer.lines.push(format!("Execution Time: {ms} ms"));
    }
    printer.lines
}

fn unmeasured(line: &str) -> &str {
    line.split(" (actual").next().unwrap_or(line)
}

fn millis(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

struct Printer {
    lines: Vec<String>,
    analyze: bool,
    verbose: bool,
}

impl Printer {
    /// Adds a node of the plan: `->  Name  (cost…)` below its parent.
    fn node(&mut self, depth: usize, title: &str, plan: &dyn ExecutionPlan, measured: Option<&OperatorMetrics>) {
        let arrow = if depth == 0 { "" } else { "->  " };
        let (cost, rows, width) = estimate(plan);
        let mut line = format!("{}{arrow}{title}  (cost=0.00..{cost:.2} rows={rows} width={width})", indent(depth));
        if let Some(OperatorMetrics { rows: Some(rows), busy_us, .. }) = measured {
            let ms = busy_us.unwrap_or(0) as f64 / 1e3;
            line.push_str(&format!(" (actual time=0.000..{ms:.3} rows={rows} loops=1)"));
        }
        self.lines.push(line);
    }

    fn property(&mut self, depth: usize, text: &str) {
        let inset = if depth == 0 { "  " } else { "      " };
        self.lines.push(format!("{}{inset}{text}", indent(depth)));
    }

    fn coordinator(&mut self, plan: &dyn ExecutionPlan, depth: usize) {
        if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
            return self.remote(remote, depth);
        }
        let children = plan.children();
        if let ([child], true) = (&children[..], silent(plan.name()) && !self.verbose) {
            return self.coordinator(child.as_ref(), depth);
        }
        let measured = self.analyze.then(|| operator_metrics(plan));
        self.node(depth, &operator(plan), plan, measured.as_ref());
        details(plan).iter().for_each(|detail| self.property(depth, detail));
        if let Some(why) = gather_below(plan) {
            self.property(depth, &format!("Not pushed down: {why}"));
        }
        children.iter().for_each(|child| self.coordinator(child.as_ref(), depth + 1));
    }

    fn remote(&mut self, remote: &RemoteExec, depth: usize) {
        let parts = &remote.fragment.parts;
        let measured = self.analyze.then(|| operator_metrics(remote));
        let append = if parts.len() > 1 { 1 } else { 0 };
        if parts.len() > 1 {
            self.node(depth, "Custom Scan (AsyncAppend)", remote, measured.as_ref());
        }
        for (index, part) in parts.iter().enumerate() {
            self.data_node(remote, index, part, depth + append);
        }
    }

    fn data_node(&mut self, remote: &RemoteExec, index: usize, part: &NodePart, depth: usize) {
        let answer = remote.answer(index);
        let total = answer.as_ref().and_then(|answer| {
            let rows = answer.operators.first()?.rows;
            Some(OperatorMetrics { name: String::new(), rows, busy_us: Some(answer.elapsed_us) })
        });
        self.node(depth, "Custom Scan (DataNodeScan)", remote.fragment.plan.as_ref(), total.as_ref());
        self.property(depth, &format!("Data node: {}", part.node));
        let mut at = 0;
        self.pushed(remote.fragment.plan.as_ref(), part, answer.as_ref(), &mut at, depth + 1);
    }

    /// An operator that runs on a node; `at` counts operators in pre-order, as the metrics do.
    fn pushed(
        &mut self,
        plan: &dyn ExecutionPlan,
        part: &NodePart,
        answer: Option<&FragmentMetrics>,
        at: &mut usize,
        depth: usize,
    ) {
        let measured = answer.and_then(|answer| answer.operators.get(*at)).filter(|_| self.analyze);
        *at += 1;
        let children = plan.children();
        let hidden = silent(plan.name()) && !self.verbose && children.len() == 1;
        if !hidden {
            self.node(depth, &operator(plan), plan, measured);
            details(plan).iter().for_each(|detail| self.property(depth, detail));
        }
        if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
            self.chunks(scan, part, depth);
        }
        let depth = if hidden { depth } else { depth + 1 };
        children.iter().for_each(|child| self.pushed(child.as_ref(), part, answer, at, depth));
    }

    fn chunks(&mut self, scan: &ChunkScan, part: &NodePart, depth: usize) {
        let Some(source) = &scan.source else { return };
        let own = part.scans.iter().find(|chunks| chunks.scan == scan.scan);
        let own = own.map(|chunks| &chunks.chunks[..]).unwrap_or_default();
        if let Some(hypertable) = &source.table.hypertable {
            let mine = source.chunks.iter().filter(|chunk| own.contains(&chunk.id));
            let names = mine.map(|chunk| chunk.name(hypertable)).collect::<Vec<_>>();
            self.property(depth, &format!("Chunks: {}", names.join(", ")));
            let excluded = source.chunks_total - source.chunks.len();
            if excluded > 0 {
                self.property(depth, &format!("Chunks excluded during planning: {excluded}"));
            }
        }
    }
}

fn indent(depth: usize) -> String {
    match depth {
        0 => String::new(),
        depth => " ".repeat(depth * 6 - 4),
    }
}

/// Plumbing that says nothing to a user.
fn silent(name: &str) -> bool {
    matches!(
        name,
        "CoalescePartitionsExec" | "CoalesceBatchesExec" | "CooperativeExec" | "RepartitionExec" | "ProjectionExec"
    )
}

/// The operator as PostgreSQL would call it.
pub(super) fn operator(plan: &dyn ExecutionPlan) -> String {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let kind = match aggregate.group_expr().is_empty() {
            true => "Aggregate",
            false => "HashAggregate",
        };
        let step = match aggregate.mode() {
            AggregateMode::Partial => "partial",
            AggregateMode::PartialReduce => "partial, per data node",
            AggregateMode::Final | AggregateMode::FinalPartitioned => "final",
            AggregateMode::Single | AggregateMode::SinglePartitioned => "complete",
        };
        return format!("{kind} ({step})");
    }
    if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
        let table = scan.source.as_ref().map_or("?", |source| &source.table.name);
        return format!("Seq Scan on {table}");
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return format!("Hash {} Join", join.join_type());
    }
    if plan.downcast_ref::<SortExec>().is_some_and(|sort| sort.fetch().is_some()) {
        return "Sort (top-N)".to_owned();
    }
    match plan.name() {
        "BoundedWindowAggExec" | "WindowAggExec" => "WindowAgg".to_owned(),
        "CoalescePartitionsExec" => "Gather".to_owned(),
        "CrossJoinExec" | "NestedLoopJoinExec" => "Nested Loop".to_owned(),
        "DataSourceExec" => "Values Scan".to_owned(),
        "GlobalLimitExec" | "LocalLimitExec" => "Limit".to_owned(),
        "ScalarSubqueryExec" => "InitPlan".to_owned(),
        "SortMergeJoinExec" => "Merge Join".to_owned(),
        "SortPreservingMergeExec" => "Merge Append".to_owned(),
        "UnionExec" => "Append".to_owned(),
        "PlaceholderRowExec" | "EmptyExec" => "Result".to_owned(),
        other => other.strip_suffix("Exec").unwrap_or(other).to_owned(),
    }
}

fn details(plan: &dyn ExecutionPlan) -> Vec<String> {
    let mut details = Vec::new();
    let list = |exprs: Vec<String>| plain(&exprs.join(", "));
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let keys: Vec<_> = aggregate.group_expr().expr().iter().map(|(_, name)| name.clone()).collect();
        if !keys.is_empty() {
            details.push(format!("Group Key: {}", list(keys)));
        }
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        details.push(format!("Filter: {}", plain(&filter.predicate().to_string())));
    }
    let order = plan.downcast_ref::<SortExec>().map(SortExec::expr);
    if let Some(order) = order.or(plan.downcast_ref::<SortPreservingMergeExec>().map(SortPreservingMergeExec::expr)) {
        details.push(format!("Sort Key: {}", plain(&order.to_string())));
    }
    if let Some(rows) = plan.fetch() {
        details.push(format!("Limit: {rows}"));
    }
    details
}

/// Why this operator is not in the fragment right below it, through silent operators only.
fn gather_below(plan: &dyn ExecutionPlan) -> Option<String> {
    plan.children().into_iter().find_map(|child| match child.downcast_ref::<RemoteExec>() {
        Some(remote) => Some(remote.fragment.why.clone()).filter(|why| !why.is_empty()),
        None if silent(child.name()) => gather_below(child.as_ref()),
        None => None,
    })
}

/// Cost, rows and width in the style of PostgreSQL. There are no statistics yet: the numbers only grow with the plan.
fn estimate(plan: &dyn ExecutionPlan) -> (f64, usize, usize) {
    const ROWS_PER_CHUNK: usize = 1000;
    let width = plan.schema().fields().len() * 8;
    if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
        let rows = scan.source.as_ref().map_or(0, |source| source.chunks.len()) * ROWS_PER_CHUNK;
        return (rows as f64 * 0.01, rows, width);
    }
    if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
        let (cost, rows, width) = estimate(remote.fragment.plan.as_ref());
        return (cost + remote.fragment.parts.len() as f64 * 100.0, rows, width);
    }
    let inputs = plan.children().into_iter().map(|child| estimate(child.as_ref()));
    let (cost, rows) = inputs.fold((0.0, 0), |(cost, rows), (more, others, _)| (cost + more, rows.max(others)));
    let grouped = plan.downcast_ref::<AggregateExec>().map(|aggregate| match aggregate.group_expr().is_empty() {
        true => 1,
        false => rows / 10 + 1,
    });
    let rows = grouped.unwrap_or(rows).min(plan.fetch().unwrap_or(usize::MAX));
    (cost + rows as f64 * 0.0025 + 0.01, rows.max(1), width)
}
