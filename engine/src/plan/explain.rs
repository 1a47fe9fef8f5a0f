//! EXPLAIN in the words PostgreSQL and TimescaleDB users know: which node runs what over which chunks, and why the rest
//! runs on the access node.
//!
//! Times of EXPLAIN ANALYZE include what is below, as PostgreSQL's do: for an operator the work of all threads, for a
//! data node and for the first line the clock on the wall.

use super::collected::{BYTES_MAX, CollectedExec, Seen};
use super::exchange::{NodePart, RemoteExec};
use super::late::Outcome;
use super::metrics::{FragmentMetrics, OperatorMetrics, operator_metrics};
use super::pace;
use super::scan::ChunkScan;
use super::sent::SentRows;
use super::shards::plain;
use chrono::DateTime;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::scalar::ScalarValue;
use proto::PredicateKind;
use std::sync::Arc;
use std::time::Duration;

/// Chunks named on one line; VERBOSE names all.
const CHUNK_NAMES_MAX: usize = 24;

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
        match measured {
            Some(OperatorMetrics { rows: Some(rows), busy_us: Some(us), .. }) => {
                line.push_str(&format!(" (actual time=0.000..{:.3} rows={rows} loops=1)", *us as f64 / 1e3));
            }
            Some(OperatorMetrics { rows: Some(rows), .. }) => {
                line.push_str(&format!(" (actual rows={rows} loops=1)"));
            }
            _ => {}
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
        let hidden = plan.name() == pace::NAME || silent(plan.name()) && !self.verbose;
        if let ([child], true) = (&children[..], hidden) {
            return self.coordinator(child.as_ref(), depth);
        }
        let measured = self.analyze.then(|| with_below(plan));
        self.node(depth, &operator(plan), plan, measured.as_ref());
        details(plan).iter().for_each(|detail| self.property(depth, detail));
        if let Some(why) = self.not_pushed(plan) {
            self.property(depth, &format!("Not pushed down: {}", unwrapped(&why)));
        }
        children.iter().for_each(|child| self.coordinator(child.as_ref(), depth + 1));
    }

    /// Why this operator is not in the fragment below it. Silent operators on the way are this one's as far as a user
    /// can see, but a projection, which is shown here as what stays behind.
    fn not_pushed(&self, plan: &dyn ExecutionPlan) -> Option<String> {
        // Rows that are sorted on every node are merged here, results of subqueries go along: nothing was left undone.
        if plan.is::<SortPreservingMergeExec>() || plan.is::<ScalarSubqueryExec>() {
            return None;
        }
        plan.children().into_iter().find_map(|child| match child.downcast_ref::<RemoteExec>() {
            Some(remote) => Some(remote.fragment.why.clone()).filter(|why| !why.is_empty()),
            None if child.name() == pace::NAME || silent(child.name()) && !self.verbose => {
                let why = self.not_pushed(child.as_ref())?;
                Some(if child.is::<ProjectionExec>() { format!("{why} (in the select list below)") } else { why })
            }
            None => None,
        })
    }

    fn remote(&mut self, remote: &RemoteExec, depth: usize) {
        if let Some(Outcome::Instead(plan)) = remote.settled() {
            let measured = self.analyze.then(|| with_below(remote));
            self.node(depth, "Gather", remote, measured.as_ref());
            self.property(depth, "Broadcast: given up, the rows were too many; joined on the access node");
            return self.coordinator(plan.as_ref(), depth + 1);
        }
        let parts = &remote.fragment.parts;
        let measured = self.analyze.then(|| with_below(remote));
        let append = if parts.len() > 1 { 1 } else { 0 };
        if parts.len() > 1 {
            self.node(depth, "Custom Scan (AsyncAppend)", remote, measured.as_ref());
        }
        for (index, part) in parts.iter().enumerate() {
            self.data_node(remote, index, part, depth + append);
        }
        for side in remote.children() {
            self.node(depth + 1, "Broadcast", side.as_ref(), None);
            self.property(depth + 1, &format!("Broadcast: {}", rows_of(side.as_ref())));
            let Some(collected) = side.downcast_ref::<CollectedExec>() else { continue };
            let limit = match collected.collected.known() {
                Some(Seen::All(rows)) => format!("{} rows were sent to each data node", rows.num_rows()),
                _ => format!("Sent if at most {} rows and {} MiB", collected.rows_max, BYTES_MAX >> 20),
            };
            self.property(depth + 1, &limit);
            side.children().into_iter().for_each(|child| self.coordinator(child.as_ref(), depth + 2));
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
        if self.analyze && answer.is_none() {
            self.property(depth, "Actual: not reported, the rows above were complete before this node was done");
        }
        let mut at = 0;
        let shown = Shown { remote, part, answer: answer.as_ref() };
        self.pushed(remote.fragment.plan.as_ref(), &shown, &mut at, depth + 1);
    }

    /// An operator that runs on a node; `at` counts operators in pre-order, as the metrics do.
    fn pushed(&mut self, plan: &dyn ExecutionPlan, shown: &Shown<'_>, at: &mut usize, depth: usize) {
        let subtree =
            shown.answer.filter(|_| self.analyze).and_then(|answer| answer.operators.get(*at..*at + size(plan)));
        let measured = subtree.map(subtotal);
        *at += 1;
        let children = plan.children();
        let hidden = silent(plan.name()) && !self.verbose && children.len() == 1;
        if !hidden {
            self.node(depth, &operator(plan), plan, measured.as_ref());
            details(plan).iter().for_each(|detail| self.property(depth, detail));
        }
        if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
            self.chunks(scan, shown.part, depth);
            self.learnt(scan, shown.remote, depth);
        }
        if let Some(sent) = plan.downcast_ref::<SentRows>() {
            let side = shown.remote.fragment.late.sides.iter().find(|(number, _)| *number == sent.side);
            side.into_iter()
                .for_each(|(_, side)| self.property(depth, &format!("Broadcast: {}", rows_of(side.as_ref()))));
        }
        let depth = if hidden { depth } else { depth + 1 };
        children.iter().for_each(|child| self.pushed(child.as_ref(), shown, at, depth));
    }

    /// What the scan is told while the statement runs.
    fn learnt(&mut self, scan: &ChunkScan, remote: &RemoteExec, depth: usize) {
        let late = &remote.fragment.late;
        let name = |id| scan.columns.iter().position(|c| c.id == id).map(|at| scan.schema().field(at).name().clone());
        if let Some(Outcome::Sent(learnt)) = remote.settled() {
            for learnt in learnt.iter().filter(|learnt| learnt.scan == scan.scan) {
                let column = name(learnt.predicate.column).unwrap_or_default();
                let values = match &learnt.predicate.kind {
                    PredicateKind::OneOf(values) => format!("{} values", values.len()),
                    PredicateKind::Range { .. } => "a range".to_owned(),
                };
                let left = learnt.chunks_left;
                self.property(
                    depth,
                    &format!("Runtime Filter: {column}, {values}; chunks left on all data nodes: {left}"),
                );
            }
            return;
        }
        for filter in late.filters.iter().filter(|filter| filter.scanned.scan == scan.scan) {
            let column = name(filter.scanned.column).unwrap_or_default();
            self.property(depth, &format!("Runtime Filter: {column}, by the rows it is joined with"));
        }
    }

    fn chunks(&mut self, scan: &ChunkScan, part: &NodePart, depth: usize) {
        let Some(source) = &scan.source else { return };
        let own = part.scans.iter().find(|chunks| chunks.scan == scan.scan);
        let own = own.map(|chunks| &chunks.chunks[..]).unwrap_or_default();
        if let Some(hypertable) = &source.table.hypertable {
            let mine = source.chunks.iter().filter(|chunk| own.contains(&chunk.id));
            let mut names = mine.map(|chunk| chunk.name(hypertable)).collect::<Vec<_>>();
            if names.len() > CHUNK_NAMES_MAX && !self.verbose {
                let more = names.split_off(CHUNK_NAMES_MAX).len();
                names.push(format!("and {more} more"));
            }
            self.property(depth, &format!("Chunks: {}", names.join(", ")));
            if scan.latest.is_some() {
                self.property(depth, "Rows: the last of each series, where segments tell them");
            }
            if scan.leading.is_some() {
                self.property(depth, "Rows: from one end of time on, until there are enough");
            }
            let excluded = source.chunks_total - source.chunks.len();
            if excluded > 0 {
                self.property(depth, &format!("Chunks excluded during planning: {excluded}"));
            }
        }
    }
}

/// One data node's run of a fragment.
struct Shown<'a> {
    remote: &'a RemoteExec,
    part: &'a NodePart,
    answer: Option<&'a FragmentMetrics>,
}

/// `rows of a, b`: the tables a side of a join is made of.
fn rows_of(plan: &dyn ExecutionPlan) -> String {
    fn tables(plan: &dyn ExecutionPlan, names: &mut Vec<String>) {
        if let Some(source) = plan.downcast_ref::<ChunkScan>().and_then(|scan| scan.source.as_ref()) {
            names.push(source.table.name.clone());
        }
        if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
            tables(remote.fragment.plan.as_ref(), names);
        }
        plan.children().into_iter().for_each(|child| tables(child.as_ref(), names));
    }
    let mut names = Vec::new();
    tables(plan, &mut names);
    names.sort();
    names.dedup();
    match names.is_empty() {
        true => "rows of the access node".to_owned(),
        false => format!("rows of {}", names.join(", ")),
    }
}

/// Operators of `plan`, itself included.
fn size(plan: &dyn ExecutionPlan) -> usize {
    1 + plan.children().iter().map(|child| size(child.as_ref())).sum::<usize>()
}

/// The first operator with the time of all; without a time when nothing measured any.
fn subtotal(subtree: &[OperatorMetrics]) -> OperatorMetrics {
    let first = &subtree[0];
    let busy_us = subtree.iter().filter_map(|operator| operator.busy_us).reduce(|sum, us| sum + us);
    OperatorMetrics { busy_us, ..first.clone() }
}

/// An operator on the access node with the time of those below; of data nodes that work side by side, the slowest.
fn with_below(plan: &dyn ExecutionPlan) -> OperatorMetrics {
    let own = operator_metrics(plan);
    let below = match plan.downcast_ref::<RemoteExec>() {
        Some(remote) => {
            let answers = (0..remote.fragment.parts.len()).filter_map(|part| remote.answer(part));
            answers.map(|answer| answer.elapsed_us).max()
        }
        None => {
            let children = plan.children();
            children.iter().filter_map(|child| with_below(child.as_ref()).busy_us).reduce(|sum, us| sum + us)
        }
    };
    let busy_us = own.busy_us.into_iter().chain(below).reduce(|sum, us| sum + us);
    OperatorMetrics { busy_us, ..own }
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
        "CoalescePartitionsExec"
            | "CoalesceBatchesExec"
            | "CollectedExec"
            | "CooperativeExec"
            | "RepartitionExec"
            | "ProjectionExec"
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
        return match join.join_type() {
            JoinType::Inner => "Hash Join".to_owned(),
            other => format!("Hash {other} Join"),
        };
    }
    if plan.downcast_ref::<SortExec>().is_some_and(|sort| sort.fetch().is_some()) {
        return "Sort (top-N)".to_owned();
    }
    match plan.name() {
        "BoundedWindowAggExec" | "WindowAggExec" => "WindowAgg".to_owned(),
        "CoalescePartitionsExec" => "Gather".to_owned(),
        "CrossJoinExec" | "NestedLoopJoinExec" => "Nested Loop".to_owned(),
        "DataSourceExec" => "Values Scan".to_owned(),
        "GapFillExec" => "Custom Scan (GapFill)".to_owned(),
        "GlobalLimitExec" | "LocalLimitExec" => "Limit".to_owned(),
        "ScalarSubqueryExec" => "InitPlan".to_owned(),
        "SentRows" => "Broadcast Scan".to_owned(),
        "SortMergeJoinExec" => "Merge Join".to_owned(),
        "SortPreservingMergeExec" => "Merge Append".to_owned(),
        "UnionExec" => "Append".to_owned(),
        "PlaceholderRowExec" | "EmptyExec" => "Result".to_owned(),
        other => other.strip_suffix("Exec").unwrap_or(other).to_owned(),
    }
}

fn details(plan: &dyn ExecutionPlan) -> Vec<String> {
    let mut details = Vec::new();
    let list = |exprs: Vec<String>| unwrapped(&plain(&exprs.join(", ")));
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let keys: Vec<_> = aggregate.group_expr().expr().iter().map(|(_, name)| name.clone()).collect();
        if !keys.is_empty() {
            details.push(format!("Group Key: {}", list(keys)));
        }
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        details.push(format!("Filter: {}", shown(filter.predicate())));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let pairs = join.on().iter().map(|(left, right)| format!("({} = {})", shown(left), shown(right)));
        details.push(format!("Hash Cond: {}", pairs.collect::<Vec<_>>().join(" AND ")));
        if let Some(filter) = join.filter() {
            details.push(format!("Join Filter: {}", shown(filter.expression())));
        }
    }
    let order = plan.downcast_ref::<SortExec>().map(SortExec::expr);
    if let Some(order) = order.or(plan.downcast_ref::<SortPreservingMergeExec>().map(SortPreservingMergeExec::expr)) {
        let keys = order.iter().map(|key| {
            let options = match (key.options.descending, key.options.nulls_first) {
                (false, false) => "",
                (true, true) => " DESC",
                (false, true) => " NULLS FIRST",
                (true, false) => " DESC NULLS LAST",
            };
            format!("{}{options}", shown(&key.expr))
        });
        details.push(format!("Sort Key: {}", keys.collect::<Vec<_>>().join(", ")));
    }
    if let Some(rows) = plan.fetch() {
        details.push(format!("Limit: {rows}"));
    }
    details
}

/// An expression with its constants as SQL spells them.
fn shown(expr: &Arc<dyn PhysicalExpr>) -> String {
    let spelled = Arc::clone(expr).transform_down(|part| {
        let Some(literal) = part.downcast_ref::<Literal>() else { return Ok(Transformed::no(part)) };
        let text = match literal.value() {
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                text.clone()
            }
            ScalarValue::TimestampMicrosecond(Some(us), zone) => match DateTime::from_timestamp_micros(*us) {
                Some(time) => {
                    let zone = if zone.is_some() { "+00" } else { "" };
                    format!("{}{zone}", time.format("%Y-%m-%d %H:%M:%S%.f"))
                }
                None => return Ok(Transformed::no(part)),
            },
            _ => return Ok(Transformed::no(part)),
        };
        let quoted = format!("'{}'", text.replace('\'', "''"));
        Ok(Transformed::yes(Arc::new(Literal::new(ScalarValue::Utf8(Some(quoted)))) as Arc<dyn PhysicalExpr>))
    });
    unwrapped(&plain(&spelled.map_or_else(|_| expr.to_string(), |spelled| spelled.data.to_string())))
}

/// Names of computed columns keep the planner's spelling of constants: `Utf8("1 day")` becomes `'1 day'`, `Int64(1)`
/// becomes `1`.
fn unwrapped(name: &str) -> String {
    let mut text = name.to_owned();
    for (open, close, quote) in [("Utf8(\"", "\")", "'"), ("Int64(", ")", "")] {
        let mut from = 0;
        while let Some(start) = text[from..].find(open).map(|at| from + at) {
            let inner = start + open.len();
            let Some(end) = text[inner..].find(close).map(|at| inner + at) else { break };
            let constant = format!("{quote}{}{quote}", &text[inner..end]);
            text.replace_range(start..end + close.len(), &constant);
            from = start + constant.len();
        }
    }
    text
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
