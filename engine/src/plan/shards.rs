//! Where the rows of a subplan are, and which of its columns decide it. The property the fragmenter computes
//! bottom-up.

use super::scan::{ChunkScan, ScanSource};
use arrow::datatypes::{DataType, Schema};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use proto::{NodeName, SlotSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The rows of a subplan, spread over data nodes.
#[derive(Debug, Clone)]
pub(super) struct Shards {
    pub nodes: BTreeSet<NodeName>,
    /// Which slots each node holds; `Err` says why equal space values may lie on several nodes.
    pub homes: Result<Arc<Homes>, String>,
    /// Output columns that hold an unchanged space value: with `homes`, equal values of one of them are on one node.
    pub spaces: BTreeSet<usize>,
    /// After a shuffle: rows that agree in one column of each of these are on one node. Empty when that is not known.
    pub keys: Vec<BTreeSet<usize>>,
}

pub(super) type Homes = BTreeMap<NodeName, SlotSet>;

impl Shards {
    /// `None` when no chunk is left to scan.
    pub fn of(scan: &ChunkScan, source: &ScanSource) -> Option<Shards> {
        let mut sets: BTreeSet<(&NodeName, SlotSet)> = BTreeSet::new();
        for chunk in &source.chunks {
            sets.insert((home(chunk), chunk.slots));
        }
        let nodes: BTreeSet<NodeName> = sets.iter().map(|(node, _)| (*node).clone()).collect();
        if nodes.is_empty() {
            return None;
        }
        let mut homes = Homes::new();
        for (node, slots) in sets {
            let held = homes.entry(node.clone()).or_insert(SlotSet::EMPTY);
            slots.iter().for_each(|slot| held.insert(slot));
        }
        let table = &source.table;
        let space = table.hypertable.as_ref().and_then(|hypertable| hypertable.space.as_ref());
        let Some(space) = space else {
            let homes = Err(format!("\"{}\" has no space column", table.name));
            return Some(Shards { nodes, homes, spaces: BTreeSet::new(), keys: Vec::new() });
        };
        let column = table.column_by_id(space.column).map_or("?", |column| &column.name);
        let homes = match disjoint(&homes, &homes) {
            true => Ok(Arc::new(homes)),
            false => Err(format!("rows of one \"{column}\" may lie on several data nodes")),
        };
        let spaces = scan.columns.iter().enumerate().filter(|(_, c)| c.id == space.column).map(|(i, _)| i);
        Some(Shards { nodes, homes, spaces: spaces.collect(), keys: Vec::new() })
    }

    /// Rows of all of `parts`, column by column.
    pub fn union(parts: &[&Shards]) -> Shards {
        let nodes = parts.iter().flat_map(|part| part.nodes.iter().cloned()).collect();
        let Some((first, rest)) = parts.split_first() else {
            let homes = Err("nothing is united".to_owned());
            return Shards { nodes, homes, spaces: BTreeSet::new(), keys: Vec::new() };
        };
        let (mut homes, mut spaces) = (first.homes.clone(), first.spaces.clone());
        for part in rest {
            spaces = &spaces & &part.spaces;
            homes = match (homes, &part.homes) {
                (Ok(all), Ok(more)) if disjoint(&all, more) => Ok(Arc::new(merged(&all, more))),
                (Ok(_), Ok(_)) => Err("the united tables are placed differently".to_owned()),
                (Err(why), _) => Err(why),
                (_, Err(why)) => Err(why.clone()),
            };
        }
        let keys = if rest.is_empty() { first.keys.clone() } else { Vec::new() };
        Shards { nodes, homes, spaces, keys }
    }

    /// Whether rows that agree on `keys`, over `schema`, are on one node.
    ///
    /// # Errors
    /// Why not.
    pub fn together(&self, keys: &[Arc<dyn PhysicalExpr>], schema: &Schema) -> Result<(), String> {
        let held = |columns: &BTreeSet<usize>| {
            keys.iter().any(|key| copied(key, schema).is_some_and(|column| columns.contains(&column)))
        };
        if !self.keys.is_empty() && self.keys.iter().all(held) {
            return Ok(());
        }
        if let Err(why) = &self.homes {
            return Err(why.clone());
        }
        match keys.iter().any(|key| self.holds(key, schema)) {
            true => Ok(()),
            false => {
                let names = keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Err(format!("keys ({}) do not contain the space column", plain(&names)))
            }
        }
    }

    /// Whether `key` is a space value.
    pub fn holds(&self, key: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
        copied(key, schema).is_some_and(|index| self.spaces.contains(&index))
    }

    /// The shards of `plan`'s output, given those of its input.
    pub fn after(&self, plan: &dyn ExecutionPlan) -> Shards {
        let outputs = match plan {
            _ if plan.is::<ProjectionExec>() || plan.is::<AggregateExec>() || plan.is::<FilterExec>() => outputs(plan),
            _ if same_columns_first(plan.name()) => (0..plan.schema().fields().len()).map(Some).collect(),
            _ => Vec::new(),
        };
        Shards {
            nodes: self.nodes.clone(),
            homes: self.homes.clone(),
            spaces: mapped(&self.spaces, &outputs),
            keys: self.keys.iter().map(|columns| mapped(columns, &outputs)).collect(),
        }
    }
}

/// Those of `outputs` that are one of the input's `columns`.
fn mapped(columns: &BTreeSet<usize>, outputs: &[Option<usize>]) -> BTreeSet<usize> {
    let keeps = |(_, from): &(usize, &Option<usize>)| from.is_some_and(|from| columns.contains(&from));
    outputs.iter().enumerate().filter(keeps).map(|(to, _)| to).collect()
}

/// The node that reads a chunk: its first replica.
pub(super) fn home(chunk: &crate::ChunkDef) -> &NodeName {
    chunk.nodes.first().expect("the catalog gives every chunk a node")
}

/// `name@3` as users know it.
pub(super) fn plain(expr: &str) -> String {
    let mut text = String::with_capacity(expr.len());
    let mut rest = expr;
    while let Some((before, after)) = rest.split_once('@') {
        text.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    text + rest
}

/// The column of `schema` that `expr` is a copy of. In a wider type an integer is the same value, also to the hash that
/// places rows.
pub(super) fn copied(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<usize> {
    use DataType::{Int16, Int32, Int64};
    let Some(cast) = expr.downcast_ref::<CastExpr>() else { return column(expr) };
    let index = column(cast.expr())?;
    let (from, to) = (schema.field(index).data_type(), cast.cast_type());
    matches!((from, to), (Int16, Int32 | Int64) | (Int32, Int64)).then_some(index)
}

pub(super) fn column(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// For each output column, the input column it is a copy of.
pub(super) fn outputs(plan: &dyn ExecutionPlan) -> Vec<Option<usize>> {
    let below = plan.children().first().map_or_else(|| plan.schema(), |input| input.schema());
    let index = |expr: &Arc<dyn PhysicalExpr>| copied(expr, &below);
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return projection.expr().iter().map(|output| index(&output.expr)).collect();
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let groups = aggregate.group_expr();
        // A grouping set replaces keys by NULL: the value no longer tells where the row came from.
        if groups.has_grouping_set() {
            return Vec::new();
        }
        return match aggregate.mode() {
            AggregateMode::Partial | AggregateMode::Single | AggregateMode::SinglePartitioned => {
                groups.expr().iter().map(|(expr, _)| index(expr)).collect()
            }
            // Their input is a partial aggregate's output: the groups come first.
            _ => (0..groups.expr().len()).map(Some).collect(),
        };
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return match filter.projection() {
            Some(projection) => projection.iter().map(|index| Some(*index)).collect(),
            None => (0..filter.schema().fields().len()).map(Some).collect(),
        };
    }
    Vec::new()
}

/// Operators that pass their input's columns on, in place; windows and filled gaps append theirs.
fn same_columns_first(name: &str) -> bool {
    matches!(
        name.split('(').next().unwrap_or(name),
        "CoalesceBatchesExec"
            | "CoalescePartitionsExec"
            | "CooperativeExec"
            | "GapFillExec"
            | "GlobalLimitExec"
            | "LocalLimitExec"
            | "RepartitionExec"
            | "SortExec"
            | "SortPreservingMergeExec"
            | "WindowAggExec"
            | "BoundedWindowAggExec"
    )
}

/// Whether no slot is held by one node in `a` and by another in `b`.
fn disjoint(a: &Homes, b: &Homes) -> bool {
    a.iter().all(|(node, slots)| b.iter().all(|(other, others)| node == other || !slots.overlaps(others)))
}

fn merged(a: &Homes, b: &Homes) -> Homes {
    let mut all = a.clone();
    for (node, slots) in b {
        let held = all.entry(node.clone()).or_insert(SlotSet::EMPTY);
        slots.iter().for_each(|slot| held.insert(slot));
    }
    all
}
