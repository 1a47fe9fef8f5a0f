//! From a plan that was cut to what EXPLAIN shows of it: above the exchanges as the coordinator runs it, below them once
//! for each data node, with what that node reported.

use super::super::collected::{BYTES_MAX, CollectedExec, Seen};
use super::super::exchange::{NodePart, RemoteExec};
use super::super::late::Outcome;
use super::super::metrics::{Answer, OperatorMetrics};
use super::super::pace;
use super::super::scan::ChunkScan;
use super::super::sent::SentRows;
use super::super::shuffle::{LateInput, ShuffledRows};
use super::ExplainOptions;
use super::estimate::Estimate;
use super::spent::{input_rows, input_rows_of, size, subtotal, times, traffic, with_below};
use super::tree::{Actual, PlanNode, Title, Value};
use super::words::{details, operator, plumbing, rows_of, shown, silent, unwrapped};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use proto::{PredicateKind, ScanTotals};
use std::time::Duration;

pub(super) struct Walk<'a> {
    pub options: &'a ExplainOptions,
    /// It has run.
    pub analyzed: bool,
}

impl Walk<'_> {
    fn node(&self, title: Title, plan: &dyn ExecutionPlan, measured: Option<&OperatorMetrics>) -> PlanNode {
        let mut node = PlanNode { estimate: Estimate::of(plan), ..PlanNode::new(title) };
        node.actual = measured.and_then(|measured| {
            let time = measured.busy_us.filter(|_| self.options.timing).map(Duration::from_micros);
            Some(Actual { time, rows: measured.rows? })
        });
        let spilled = measured.and_then(|measured| measured.spilled_bytes).filter(|_| self.options.buffers);
        if let Some(bytes) = spilled {
            node.tell("Spilled to disk", Value::Bytes(bytes));
        }
        node
    }

    fn is_hidden(&self, plan: &dyn ExecutionPlan) -> bool {
        let limits = plumbing(plan.name()) && plan.fetch().is_some();
        let hidden = plan.name() == pace::NAME || (silent(plan.name()) && !self.options.verbose && !limits);
        hidden && plan.children().len() == 1
    }

    pub fn coordinator(&self, plan: &dyn ExecutionPlan) -> PlanNode {
        if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
            return self.remote(remote);
        }
        let children = plan.children();
        if self.is_hidden(plan) {
            return self.coordinator(children[0].as_ref());
        }
        let measured = self.analyzed.then(|| with_below(plan));
        let mut node = self.node(operator(plan), plan, measured.as_ref());
        node.properties.extend(details(plan));
        let removed = measured.as_ref().and_then(|measured| removed(plan, input_rows(plan)?, measured.rows?));
        node.properties.extend(removed);
        if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
            // It has no chunks, or data nodes would read it.
            node.ran(0, None);
            node.actual = node.actual.filter(|_| self.analyzed);
            excluded(scan, &mut node);
        }
        // Rows that data nodes have gathered or sorted are merged here, results of subqueries go along: nothing was left
        // undone.
        if !plumbing(plan.name()) && !plan.is::<ScalarSubqueryExec>() {
            let remains = || reads_nodes(plan).then(|| "the rows below are made on the access node".to_owned());
            let why = self.why_here(plan).or_else(remains);
            why.into_iter().for_each(|why| node.tell_text("Not pushed down", unwrapped(&why)));
        }
        node.children.extend(children.iter().map(|child| self.coordinator(child.as_ref())));
        node
    }

    /// Why an operator is not in the fragment below it. What is hidden on the way is this one's as far as a user can see,
    /// but of a projection it is said that it is what stays behind.
    fn why_here(&self, plan: &dyn ExecutionPlan) -> Option<String> {
        plan.children().into_iter().find_map(|child| {
            if let Some(remote) = child.downcast_ref::<RemoteExec>() {
                return Some(remote.fragment.why.clone()).filter(|why| !why.is_empty());
            }
            // A sort is there for whoever is above it.
            if plumbing(child.name()) || (child.is::<SortExec>() && child.fetch().is_none()) {
                return self.why_here(child.as_ref());
            }
            let projection = child.is::<ProjectionExec>() && self.is_hidden(child.as_ref());
            let why = projection.then(|| self.why_here(child.as_ref())).flatten()?;
            Some(format!("{why} (in the select list below)"))
        })
    }

    fn remote(&self, remote: &RemoteExec) -> PlanNode {
        let measured = self.analyzed.then(|| with_below(remote));
        if let Some(Outcome::Instead(plan)) = remote.settled() {
            let mut node = self.node(Title::new("Gather"), remote, measured.as_ref());
            let (name, why) = instead(remote, plan.as_ref());
            node.tell_text(name, why);
            node.children.push(self.coordinator(plan.as_ref()));
            return node;
        }
        let parts = remote.fragment.parts.iter().enumerate();
        let mut nodes = parts.map(|(index, part)| self.data_node(remote, index, part)).collect::<Vec<_>>();
        let mut node = match nodes.len() {
            1 => nodes.swap_remove(0),
            _ => {
                let append = self.node(Title::custom("AsyncAppend"), remote, measured.as_ref());
                PlanNode { children: nodes, ..append }
            }
        };
        let late = &remote.fragment.late;
        node.children.extend(late.sides.iter().map(|(_, side)| self.broadcast(side.as_ref())));
        node.children.extend(late.inputs.iter().map(|input| self.shuffle(input)));
        node
    }

    /// Rows that data nodes send to those of a fragment, each to one of them.
    fn shuffle(&self, input: &LateInput) -> PlanNode {
        let producer = input.producer();
        let mut node = self.node(Title::new("Shuffle"), producer, None);
        node.tell_text("Shuffle", shuffled(producer));
        let readers = input.readers.iter().map(ToString::to_string).collect();
        node.tell("Each row to one of", Value::Names(readers));
        if let Some(few) = input.few() {
            node.tell_text("Sent", format!("if more than {} rows or {} MiB", few.rows_max, BYTES_MAX >> 20));
        }
        node.children.push(self.remote(producer));
        node
    }

    /// Rows that go to every data node of a fragment.
    fn broadcast(&self, side: &dyn ExecutionPlan) -> PlanNode {
        let mut node = self.node(Title::new("Broadcast"), side, None);
        node.tell_text("Broadcast", rows_of(side));
        let Some(collected) = side.downcast_ref::<CollectedExec>() else { return node };
        let sent = match collected.collected.known() {
            Some(Seen::All(rows)) => format!("{} rows to each data node", rows.num_rows()),
            _ => format!("if at most {} rows and {} MiB", collected.rows_max, BYTES_MAX >> 20),
        };
        node.tell_text("Sent", sent);
        node.children.extend(side.children().into_iter().map(|child| self.coordinator(child.as_ref())));
        node
    }

    fn data_node(&self, remote: &RemoteExec, index: usize, part: &NodePart) -> PlanNode {
        let answer = remote.answer(index).filter(|_| self.analyzed);
        let total = answer.as_ref().and_then(|answer| {
            let first = answer.metrics.operators.first()?;
            Some(OperatorMetrics { busy_us: Some(answer.metrics.elapsed_us), spilled_bytes: None, ..first.clone() })
        });
        let plan = remote.fragment.plan.as_ref();
        let mut node = self.node(Title::custom("DataNodeScan"), plan, total.as_ref());
        node.tell_text("Data node", part.node.as_str());
        match &answer {
            None if self.analyzed => {
                node.tell_text("Actual", "not reported, the rows above were complete before this node was done");
            }
            None => {}
            Some(answer) => {
                if self.options.timing {
                    node.tell("Time", times(answer));
                }
                if self.options.buffers {
                    node.tell("Network", traffic(answer));
                }
            }
        }
        let mut at = 0;
        node.children.push(self.pushed(plan, &Shown { remote, part, answer: answer.as_ref() }, &mut at));
        node
    }

    /// An operator that runs on a node; `at` counts operators in pre-order, as the metrics do.
    fn pushed(&self, plan: &dyn ExecutionPlan, shown: &Shown<'_>, at: &mut usize) -> PlanNode {
        let operators = shown.answer.map(|answer| &answer.metrics.operators[..]);
        let subtree = operators.and_then(|operators| operators.get(*at..*at + size(plan)));
        *at += 1;
        let children = plan.children();
        if self.is_hidden(plan) {
            return self.pushed(children[0].as_ref(), shown, at);
        }
        let measured = subtree.map(subtotal);
        let mut node = self.node(operator(plan), plan, measured.as_ref());
        node.properties.extend(details(plan));
        let removed = subtree.and_then(|subtree| removed(plan, input_rows_of(plan, subtree)?, subtree[0].rows?));
        node.properties.extend(removed);
        if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
            let read = measured.as_ref().and_then(|measured| measured.scan);
            self.chunks(scan, shown.part, &mut node);
            learnt(scan, shown.remote, &mut node);
            if let Some(read) = &read {
                self.read(scan, shown.part, read, &mut node);
            }
        }
        if let Some(sent) = plan.downcast_ref::<SentRows>() {
            let side = shown.remote.fragment.late.sides.iter().find(|(number, _)| *number == sent.side);
            side.into_iter().for_each(|(_, side)| node.tell_text("Broadcast", rows_of(side.as_ref())));
        }
        if let Some(from) = plan.downcast_ref::<ShuffledRows>().and_then(|rows| rows.from.as_ref()) {
            let producer = from.producer.downcast_ref();
            producer.into_iter().for_each(|producer| node.tell_text("Shuffle", shuffled(producer)));
        }
        node.children.extend(children.iter().map(|child| self.pushed(child.as_ref(), shown, at)));
        node
    }

    /// What a scan was given to read.
    fn chunks(&self, scan: &ChunkScan, part: &NodePart, node: &mut PlanNode) {
        let Some((source, hypertable)) =
            scan.source.as_ref().and_then(|source| Some((source, source.table.hypertable.as_ref()?)))
        else {
            return;
        };
        let own = chunks_of(scan, part);
        let mine = source.chunks.iter().filter(|chunk| own.is_some_and(|own| own.contains(&chunk.id)));
        node.tell("Chunks", Value::Names(mine.map(|chunk| chunk.name(hypertable)).collect()));
        if scan.latest.is_some() {
            node.tell_text("Rows", "the last of each series, where segments tell them");
        }
        if scan.leading.is_some() {
            node.tell_text("Rows", "from one end of time on, until there are enough");
        }
        excluded(scan, node);
    }

    /// What a scan had to read of it.
    fn read(&self, scan: &ChunkScan, part: &NodePart, read: &ScanTotals, node: &mut PlanNode) {
        let planned = chunks_of(scan, part).map_or(0, |chunks| chunks.len() as u64);
        let mut parts = vec![("chunks", Value::Of(read.chunks_read, planned))];
        if read.segments_opened > 0 {
            parts.push(("segments", Value::Of(read.segments_read, read.segments_opened)));
            let groups = read.row_groups_read + read.row_groups_skipped;
            parts.push(("row groups", Value::Of(read.row_groups_read, groups)));
        }
        node.tell("Read", Value::Parts(parts));
        let skipped = [
            ("by runtime filters", planned.saturating_sub(read.chunks_wanted)),
            ("by the data node", read.chunks_opened.saturating_sub(read.chunks_read)),
            ("not needed", read.chunks_wanted.saturating_sub(read.chunks_opened)),
        ];
        if let Some(skipped) = Value::counts(&skipped) {
            node.tell("Chunks skipped", skipped);
        }
        if read.segments_opened > 0 {
            // A scan that comes to a segment again, for other times, skips it again.
            let once = |rows| if scan.leading.is_none() { rows } else { 0 };
            node.tell("Rows decoded", Value::Count(read.rows_read));
            let rows = [
                ("by statistics", once(read.rows_skipped_by_statistics)),
                ("by bloom filters", once(read.rows_skipped_by_bloom)),
                ("by the directory of series", once(read.rows_skipped_by_series)),
                ("by their series' last row", once(read.rows_skipped_by_last)),
            ];
            if let Some(rows) = Value::counts(&rows) {
                node.tell("Rows skipped", rows);
            }
        }
        if read.memory_rows > 0 {
            let rows = read.memory_rows - read.memory_rows_skipped;
            node.tell("Rows in memory", Value::Of(rows, read.memory_rows));
        }
        if read.rows_filtered > 0 {
            node.tell("Rows Removed by Scan", Value::Count(read.rows_filtered));
        }
        if self.options.buffers {
            let mut bytes = vec![("read", Value::Bytes(read.bytes_read))];
            if read.bytes_remembered > 0 {
                bytes.push(("from memory", Value::Bytes(read.bytes_remembered)));
            }
            node.tell("Bytes", Value::Parts(bytes));
        }
    }
}

/// How many chunks of its table a scan need not read, on all data nodes.
fn excluded(scan: &ChunkScan, node: &mut PlanNode) {
    let excluded = scan.source.as_ref().map_or(0, |source| source.chunks_total - source.chunks.len());
    if excluded > 0 {
        node.tell("Chunks excluded during planning", Value::Count(excluded as u64));
    }
}

fn reads_nodes(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<RemoteExec>() || plan.children().into_iter().any(|child| reads_nodes(child.as_ref()))
}

/// What became of a fragment that did not leave, and why.
fn instead(remote: &RemoteExec, plan: &dyn ExecutionPlan) -> (&'static str, &'static str) {
    if remote.fragment.late.inputs.iter().any(LateInput::is_few) {
        return ("Shuffle", "not needed, one side had few rows; joined on the access node");
    }
    match shuffles(plan) {
        true => ("Broadcast", "given up, the rows were too many; shuffled"),
        false => ("Broadcast", "given up, the rows were too many; joined on the access node"),
    }
}

fn shuffles(plan: &dyn ExecutionPlan) -> bool {
    let own = plan.downcast_ref::<RemoteExec>().is_some_and(|remote| !remote.fragment.late.inputs.is_empty());
    own || plan.children().into_iter().any(|child| shuffles(child.as_ref()))
}

/// `rows of a by (key)`: what goes from node to node, and what says where.
fn shuffled(producer: &RemoteExec) -> String {
    let keys = match producer.fragment.plan.output_partitioning() {
        Partitioning::Hash(keys, _) => keys.iter().map(shown).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    };
    format!("{} by ({keys})", rows_of(producer))
}

/// One data node's run of a fragment.
struct Shown<'a> {
    remote: &'a RemoteExec,
    part: &'a NodePart,
    answer: Option<&'a Answer>,
}

fn chunks_of<'a>(scan: &ChunkScan, part: &'a NodePart) -> Option<&'a [proto::ChunkId]> {
    part.scans.iter().find(|chunks| chunks.scan == scan.scan).map(|chunks| &chunks.chunks[..])
}

/// As PostgreSQL says it of filters.
fn removed(plan: &dyn ExecutionPlan, input: u64, output: u64) -> Option<(&'static str, Value)> {
    let filter = plan.downcast_ref::<FilterExec>()?;
    let removed = input.saturating_sub(output);
    (removed > 0 && filter.fetch().is_none()).then_some(("Rows Removed by Filter", Value::Count(removed)))
}

/// What the scan is told while the statement runs.
fn learnt(scan: &ChunkScan, remote: &RemoteExec, node: &mut PlanNode) {
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
            let told = format!("{column}, {values}; chunks left on all data nodes: {left}");
            node.tell_text("Runtime Filter", told);
        }
        return;
    }
    for filter in late.filters.iter().filter(|filter| filter.scanned.scan == scan.scan) {
        let column = name(filter.scanned.column).unwrap_or_default();
        node.tell_text("Runtime Filter", format!("{column}, by the rows it is joined with"));
    }
}
