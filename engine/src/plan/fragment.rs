//! Cuts a physical plan into the fragments that data nodes run and the rest that the coordinator runs.
//!
//! DataFusion planned for many partitions in one process and put an exchange wherever rows of several partitions must
//! meet. The partitions of all nodes together are just more partitions, so everything between two exchanges may run on
//! the nodes as it is; an exchange either stays inside each node (the rows that must meet are on one node) or becomes a
//! gather. Joins have their own rules (`joining`). Nothing here relies on an operator it does not know: unknown ones run on
//! the coordinator.

use super::check::scans_declare_no_hash;
use super::codec;
use super::context::Scope;
use super::error::reveal;
use super::exchange::{Fragment, NodePart, RemoteExec};
use super::join::Join;
use super::late::{KeyFilter, Late};
use super::parameter;
use super::scan::ChunkScan;
use super::sent::SentRows;
use super::shards::{Shards, home};
use super::shuffle::{LateInput, ShuffledRows};
use super::subquery;
use crate::ChunkDef;
use crate::gapfill::GapFillExec;
use bytes::Bytes;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning, replace_children_if_necessary,
};
use proto::{ChunkId, NodeName, ScanChunks};
use std::collections::BTreeSet;
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// Turns a plan with `ChunkScan` leaves into one the coordinator can execute. With push-down off, nodes return bare
/// rows.
///
/// # Errors
/// When not even the scans can be sent, or DataFusion refuses the cut plan.
pub(super) fn fragment(plan: Plan, scope: &Scope, options: &ConfigOptions) -> Result<Plan> {
    if !scope.context.settings.push_down {
        return cut(plan, Some("enable_partitionwise_aggregate is off".to_owned()), scope, options);
    }
    // A plan that cannot be encoded in part is run with bare scans; both ways give the same rows.
    cut(plan.clone(), None, scope, options).or_else(|error| {
        tracing::debug!(%error, "push-down given up");
        let error = reveal(error).message;
        cut(plan, Some(format!("part of the plan cannot be sent ({error})")), scope, options)
    })
}

/// `bare`: why nodes are to return bare rows.
fn cut(plan: Plan, bare: Option<String>, scope: &Scope, options: &ConfigOptions) -> Result<Plan> {
    let mut cutter = Cutter::new(bare, options.execution.target_partitions, scope);
    let plan = match whole(&plan).filter(|_| cutter.bare.is_none()) {
        Some(shards) => cutter.gather(plan, &shards, false, "")?,
        // Had the statement asked for an order, the plan would end in a merge.
        None => cutter.placed(plan)?,
    };
    scans_declare_no_hash(plan.as_ref())?;
    SanityCheckPlan::new().optimize(plan, options)
}

/// Cuts a fragment's plan anew after it was learnt which of its inputs stay on the coordinator; in one stream.
///
/// # Errors
/// As of cutting.
pub(super) fn recut(plan: Plan, partitions: usize, scope: &Scope) -> Result<Plan> {
    let plan = Cutter::new(None, partitions, scope).placed(plan)?;
    scans_declare_no_hash(plan.as_ref())?;
    Ok(one_stream(plan, true))
}

/// Part of the plan, and where its rows are: `None` is the coordinator.
pub(super) struct Piece {
    pub plan: Plan,
    pub shards: Option<Shards>,
}

impl Piece {
    pub fn local(plan: Plan) -> Piece {
        Piece { plan, shards: None }
    }
}

/// The shards of a plan that can go to one node as it stands.
fn whole(plan: &Plan) -> Option<Shards> {
    let mut scans = Vec::new();
    let mut travels = true;
    plan.apply(|node| {
        match node.downcast_ref::<ChunkScan>() {
            Some(scan) => scans.extend(scan.source.as_ref().and_then(|source| Shards::of(scan, source))),
            None => travels &= can_travel(node.name()) || node.name() == "ScalarSubqueryExec",
        }
        Ok(if travels { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })
    .ok()?;
    let shards = Shards::union(&scans.iter().collect::<Vec<_>>());
    (travels && shards.nodes.len() == 1).then_some(shards)
}

/// Operators whose encoding keeps their meaning. `ChunkScan` is ours.
pub(super) fn can_travel(name: &str) -> bool {
    // A sort with a limit calls itself `SortExec(TopK)`.
    matches!(
        name.split('(').next().unwrap_or(name),
        "AggregateExec"
            | "BoundedWindowAggExec"
            | "CoalesceBatchesExec"
            | "CoalescePartitionsExec"
            | "CooperativeExec"
            | "CrossJoinExec"
            | "EmptyExec"
            | "FilterExec"
            | "GapFillExec"
            | "GlobalLimitExec"
            | "HashJoinExec"
            | "LocalLimitExec"
            | "NestedLoopJoinExec"
            | "PlaceholderRowExec"
            | "ProjectionExec"
            | "RepartitionExec"
            | "SortExec"
            | "SortMergeJoinExec"
            | "SortPreservingMergeExec"
            | "UnionExec"
            | "UnnestExec"
            | "WindowAggExec"
    )
}

pub(super) struct Cutter<'a> {
    pub scope: &'a Scope,
    /// Why nodes are to return bare rows; `None`: they do all they can.
    pub bare: Option<String>,
    pub partitions: usize,
    fragments: u32,
    /// Sides of joins that fragments take along.
    pub sides: Vec<Plan>,
    /// What scans will be told.
    pub filters: Vec<KeyFilter>,
}

impl<'a> Cutter<'a> {
    fn new(bare: Option<String>, partitions: usize, scope: &'a Scope) -> Cutter<'a> {
        Cutter { scope, bare, partitions, fragments: 0, sides: Vec::new(), filters: Vec::new() }
    }

    /// The whole of `plan` as the coordinator runs it.
    fn placed(mut self, plan: Plan) -> Result<Plan> {
        let plan = match self.place(plan)? {
            Piece { plan, shards: Some(shards) } => self.gather(plan, &shards, false, "")?,
            Piece { plan, shards: None } => plan,
        };
        if self.filters.is_empty() {
            return Ok(plan);
        }
        let told = plan.transform_up(|node| {
            let told = node.downcast_ref::<RemoteExec>().and_then(|remote| remote.told(&self.filters));
            Ok(match told {
                Some(remote) => Transformed::yes(Arc::new(remote) as Plan),
                None => Transformed::no(node),
            })
        });
        Ok(told?.data)
    }

    pub fn place(&mut self, plan: Plan) -> Result<Piece> {
        if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
            return self.place_scan(&plan, scan);
        }
        if let Some(join) = Join::of(&plan) {
            return self.place_join(&plan, &join);
        }
        if let Some(rows) = plan.downcast_ref::<ShuffledRows>() {
            let shards = rows.from.as_ref().map(|from| from.shards.clone());
            return Ok(Piece { plan, shards });
        }
        let pieces = plan.children().into_iter().cloned().map(|child| self.place(child)).collect::<Result<Vec<_>>>()?;
        if pieces.iter().all(|piece| piece.shards.is_none()) {
            let children = pieces.into_iter().map(|piece| piece.plan).collect();
            return Ok(Piece::local(replace_children_if_necessary(plan, children)?));
        }
        match judge(&plan, &pieces) {
            Ok(shards) => {
                let children = pieces.into_iter().map(|piece| piece.plan).collect();
                Ok(Piece { plan: replace_children_if_necessary(plan, children)?, shards: Some(shards) })
            }
            Err(why) => Ok(Piece::local(self.split(plan, pieces, &why)?)),
        }
    }

    fn place_scan(&mut self, plan: &Plan, scan: &ChunkScan) -> Result<Piece> {
        let source = scan.source.as_ref().expect("the coordinator's scans know their chunks");
        let Some(shards) = Shards::of(scan, source) else {
            // No chunks are left: it has no rows, wherever it is.
            return Ok(Piece::local(plan.clone()));
        };
        match self.bare.clone() {
            None => Ok(Piece { plan: plan.clone(), shards: Some(shards) }),
            Some(why) => Ok(Piece::local(self.gather(plan.clone(), &shards, false, &why)?)),
        }
    }

    /// `plan` runs on the coordinator; what can be done of it on the nodes is left there.
    fn split(&mut self, plan: Plan, mut pieces: Vec<Piece>, why: &str) -> Result<Plan> {
        if pieces.len() == 1 && cannot_travel(&plan).is_none() {
            let Piece { plan: input, shards: Some(shards) } = pieces.swap_remove(0) else {
                unreachable!("a plan without shards is not split");
            };
            return self.split_exchange(plan, input, &shards, why);
        }
        let ordered = ordered_inputs(&plan);
        let wanted = plan.input_distribution_requirements().into_per_child();
        let mut children = Vec::with_capacity(pieces.len());
        for ((piece, wanted), ordered) in pieces.into_iter().zip(wanted).zip(ordered) {
            let Some(shards) = piece.shards else {
                children.push(piece.plan);
                continue;
            };
            let remote = self.gather(piece.plan, &shards, ordered, why)?;
            children.push(self.redistributed(remote, wanted)?);
        }
        replace_children_if_necessary(plan, children)
    }

    /// An exchange over several nodes: the same inside each node, then once more over what they return.
    fn split_exchange(&mut self, plan: Plan, input: Plan, shards: &Shards, why: &str) -> Result<Plan> {
        if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
            let merged = |input| SortPreservingMergeExec::new(merge.expr().clone(), input).with_fetch(merge.fetch());
            let remote = self.gather(Arc::new(merged(input)), shards, true, why)?;
            return Ok(Arc::new(merged(remote)));
        }
        if plan.is::<CoalescePartitionsExec>() {
            let merged = |input| CoalescePartitionsExec::new(input).with_fetch(plan.fetch());
            let remote = self.gather(Arc::new(merged(input)), shards, true, why)?;
            return Ok(Arc::new(merged(remote)));
        }
        if let Some(exchange) = plan.downcast_ref::<RepartitionExec>() {
            let shipped = match exchange.preserve_order() {
                true => input,
                false => reduced(exchange, input)?,
            };
            let remote = self.gather(shipped, shards, exchange.preserve_order(), why)?;
            let again = RepartitionExec::try_new(remote, exchange.partitioning().clone())?;
            return Ok(match exchange.preserve_order() {
                true => Arc::new(again.with_preserve_order()),
                false => Arc::new(again),
            });
        }
        let wanted = plan.input_distribution_requirements().into_per_child().swap_remove(0);
        let remote = self.gather(input, shards, ordered_inputs(&plan)[0], why)?;
        let child = self.redistributed(remote, wanted)?;
        replace_children_if_necessary(plan, vec![child])
    }

    /// Gives `remote` the distribution its consumer relies on, and keeps its order.
    pub fn redistributed(&self, remote: Plan, wanted: Distribution) -> Result<Plan> {
        let ordering = remote.output_ordering().cloned();
        match wanted {
            Distribution::UnspecifiedDistribution => Ok(remote),
            Distribution::SinglePartition => Ok(match ordering {
                _ if remote.output_partitioning().partition_count() == 1 => remote,
                Some(ordering) => Arc::new(SortPreservingMergeExec::new(ordering, remote)),
                None => Arc::new(CoalescePartitionsExec::new(remote)),
            }),
            keyed => {
                let exchange = RepartitionExec::try_new(remote, keyed.create_partitioning(self.partitions))?;
                Ok(match ordering {
                    Some(_) => Arc::new(exchange.with_preserve_order()),
                    None => Arc::new(exchange),
                })
            }
        }
    }

    /// Ships `plan` to the nodes of `shards`; each returns one stream, `ordered` if the plan's partitions are.
    pub fn gather(&mut self, plan: Plan, shards: &Shards, ordered: bool, why: &str) -> Result<Plan> {
        Ok(Arc::new(self.ship(one_stream(plan, ordered), &shards.nodes, why)?))
    }

    /// Ships `plan` as it is.
    pub fn ship(&mut self, plan: Plan, nodes: &BTreeSet<NodeName>, why: &str) -> Result<RemoteExec> {
        let mut parts: Vec<NodePart> =
            nodes.iter().map(|node| NodePart { node: node.clone(), scans: Vec::new() }).collect();
        let results = subquery::results_used(&plan)?;
        let mut late = Late { partitions: self.partitions, results, ..Late::default() };
        plan.apply(|node| {
            if let Some(scan) = node.downcast_ref::<ChunkScan>() {
                parts.iter_mut().for_each(|part| part.scans.push(chunks_on(scan, &part.node)));
            }
            if let Some(sent) = node.downcast_ref::<SentRows>() {
                late.sides.push((sent.side, self.sides[sent.side as usize].clone()));
            }
            late.inputs.extend(node.downcast_ref().and_then(LateInput::of));
            Ok(TreeNodeRecursion::Continue)
        })?;
        let (bytes, values) = Cutter::encoded(&plan, &late)?;
        let (number, why) = (self.next_fragment(), why.to_owned());
        Ok(RemoteExec::new(Fragment { number, plan, bytes, values, parts, why, late, narrow: false }))
    }

    pub fn next_fragment(&mut self) -> u32 {
        self.fragments += 1;
        self.fragments
    }

    /// The plan and the values of its parameters.
    pub fn encoded(plan: &Plan, late: &Late) -> Result<(Bytes, Bytes)> {
        // With sides that are empty as yet: whether it can travel must be known now.
        let travelling = match late.sides.is_empty() {
            true => plan.clone(),
            false => SentRows::replaced(plan.clone(), |sent| sent.filled(Vec::new()))?,
        };
        let bytes = codec::encode(&parameter::with_slots(&travelling)?).map_err(super::error::hide)?;
        let values = parameter::encode(&parameter::values_in(plan)?)?;
        Ok((bytes, values))
    }
}

/// Whether `plan` stops after some rows and nothing above it will count again.
pub(super) fn limits_all(plan: &Plan) -> bool {
    plan.fetch().is_some() && plan.output_partitioning().partition_count() == 1
}

/// Which inputs of `plan` must keep their order: it needs it, or passes it on to somebody who may.
pub(super) fn ordered_inputs(plan: &Plan) -> Vec<bool> {
    let required = plan.required_input_ordering().into_iter().map(|order| order.is_some());
    required.zip(plan.maintains_input_order()).map(|(required, passed_on)| required || passed_on).collect()
}

fn chunks_on(scan: &ChunkScan, node: &NodeName) -> ScanChunks {
    let chunks = scan.source.as_ref().map_or(&[][..], |source| &source.chunks);
    ScanChunks { scan: scan.scan, chunks: ids_on(chunks, node), predicates: scan.predicates.clone() }
}

/// Those that the node reads.
pub(super) fn ids_on(chunks: &[Arc<ChunkDef>], node: &NodeName) -> Vec<ChunkId> {
    chunks.iter().filter(|chunk| home(chunk) == node).map(|chunk| chunk.id).collect()
}

fn one_stream(plan: Plan, ordered: bool) -> Plan {
    // Spreading rows over partitions just before they are merged is of no use.
    if let Some(exchange) = plan.downcast_ref::<RepartitionExec>() {
        return one_stream(exchange.input().clone(), ordered);
    }
    match plan.output_ordering().filter(|_| ordered) {
        _ if plan.output_partitioning().partition_count() == 1 => plan,
        Some(ordering) => Arc::new(SortPreservingMergeExec::new(ordering.clone(), plan)),
        None => Arc::new(CoalescePartitionsExec::new(plan)),
    }
}

/// Below a hash exchange, the groups of a partial aggregate are united inside each node: one state row per group and
/// node crosses the wire, not one per group and partition.
fn reduced(exchange: &RepartitionExec, input: Plan) -> Result<Plan> {
    let Some(partial) = input.downcast_ref::<AggregateExec>() else { return Ok(input) };
    let states_only = *partial.mode() == AggregateMode::Partial;
    let ordered = partial.aggr_expr().iter().any(|aggregate| !aggregate.order_bys().is_empty());
    if !states_only || ordered || partial.group_expr().is_empty() {
        return Ok(input);
    }
    let groups = partial.group_expr().as_final();
    let (aggregates, schema) = (partial.aggr_expr().to_vec(), partial.input_schema());
    let filters = vec![None; aggregates.len()];
    let spread = Arc::new(RepartitionExec::try_new(input.clone(), exchange.partitioning().clone())?);
    let mode = AggregateMode::PartialReduce;
    Ok(Arc::new(AggregateExec::try_new(mode, groups, aggregates, filters, spread, schema)?))
}

/// Why an operator must stay on the coordinator whatever its inputs are.
pub(super) fn cannot_travel(plan: &Plan) -> Option<String> {
    if !can_travel(plan.name()) {
        return Some(format!("{} runs on the access node only", super::explain::operator(plan.as_ref())));
    }
    None
}

/// Whether `plan` can run on the nodes over the pieces as they lie.
fn judge(plan: &Plan, pieces: &[Piece]) -> Result<Shards, String> {
    if let Some(why) = cannot_travel(plan) {
        return Err(why);
    }
    let inputs = pieces.iter().map(|piece| piece.shards.as_ref()).collect::<Option<Vec<_>>>();
    let inputs = inputs.ok_or("not all of its inputs are on data nodes")?;
    let all = Shards::union(&inputs);
    if plan.name() == "UnionExec" {
        return Ok(all);
    }
    if all.nodes.len() == 1 {
        return Ok(match inputs[..] {
            [input] => input.after(plan.as_ref()),
            _ => Shards { spaces: Default::default(), keys: Vec::new(), ..all },
        });
    }
    let [input] = inputs[..] else {
        return Err("joined rows lie on several data nodes".to_owned());
    };
    judge_unary(plan, input)?;
    Ok(input.after(plan.as_ref()))
}

/// One input on several nodes.
fn judge_unary(plan: &Plan, input: &Shards) -> Result<(), String> {
    let below = plan.children()[0].schema();
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return match aggregate.mode() {
            AggregateMode::Partial => Ok(()),
            AggregateMode::FinalPartitioned => input.together(&aggregate.output_group_expr(), &below),
            AggregateMode::SinglePartitioned => input.together(&aggregate.group_expr().input_exprs(), &below),
            _ => Err("one result over all data nodes is wanted".to_owned()),
        };
    }
    if let Some(exchange) = plan.downcast_ref::<RepartitionExec>() {
        return match exchange.partitioning() {
            Partitioning::Hash(keys, _) => input.together(keys, &below),
            Partitioning::RoundRobinBatch(_) => Ok(()),
            _ => Err("its distribution is not known on data nodes".to_owned()),
        };
    }
    if let Some(window) = plan.downcast_ref::<WindowAggExec>() {
        return input.together(&window.partition_keys(), &below);
    }
    if let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() {
        return input.together(&window.partition_keys(), &below);
    }
    if let Some(gaps) = plan.downcast_ref::<GapFillExec>() {
        let keys = gaps.keys();
        return match keys.is_empty() {
            true => Err("one series over all data nodes is wanted".to_owned()),
            false => input.together(&keys, &below),
        };
    }
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        let parted = sort.preserve_partitioning();
        return parted.then_some(()).ok_or_else(|| "one order over all data nodes is wanted".to_owned());
    }
    match plan.name() {
        // With one stream, a limit is taken for one over all rows.
        _ if limits_all(plan) => Err("one limit over all data nodes is wanted".to_owned()),
        "CoalesceBatchesExec"
        | "CooperativeExec"
        | "FilterExec"
        | "LocalLimitExec"
        | "ProjectionExec"
        | "UnnestExec" => Ok(()),
        _ => Err("rows of all data nodes are wanted together".to_owned()),
    }
}
