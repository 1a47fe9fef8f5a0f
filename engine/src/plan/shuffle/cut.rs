//! Which joins are shuffled, and what becomes of their plan then.

use super::{LateInput, ShuffledFrom, ShuffledRows};
use crate::plan::collected::CollectedExec;
use crate::plan::exchange::{Fragment, RemoteExec};
use crate::plan::fragment::{Cutter, Piece, cannot_travel};
use crate::plan::join::{Join, Side};
use crate::plan::joining::Input;
use crate::plan::shards::{Shards, column, plain};
use crate::settings::Shuffling;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{
    Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning, replace_children_if_necessary,
};
use proto::NodeName;
use std::collections::BTreeSet;
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;
type Keys = Vec<Arc<dyn PhysicalExpr>>;

/// A join of joined rows that were shuffled both times is gathered.
const DEPTH_MAX: usize = 2;

impl Cutter<'_> {
    /// The join, over rows that its nodes send each other; unless those of the left side, which `few` gathers, turn out to
    /// be few. `None` when it cannot be done so.
    pub fn shuffled(
        &mut self,
        plan: &Plan,
        join: &Join,
        inputs: &[Input; 2],
        few: Option<Plan>,
    ) -> Result<Option<Piece>> {
        let [left, right] = inputs;
        let (Some(left_rows), Some(right_rows)) = (Rows::of(left), Rows::of(right)) else { return Ok(None) };
        let (left_keys, right_keys): (Keys, Keys) = join.on.iter().cloned().unzip();
        let nodes = &left_rows.nodes() | &right_rows.nodes();
        let possible = self.bare.is_none()
            && self.scope.context.settings.shuffle != Shuffling::Off
            && cannot_travel(plan).is_none()
            && nodes.len() > 1
            && inputs.iter().all(|input| depth(&input.piece.plan) < DEPTH_MAX)
            && meets_by_hash(join)
            && fits(left, &left_keys)
            && fits(right, &right_keys);
        let names = nodes.iter().cloned().collect::<Vec<_>>();
        if !possible || self.scope.context.nodes.addresses(&names).is_none() {
            return Ok(None);
        }
        let pairs = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect::<Vec<_>>().join(", ");
        let homes = Err(format!("rows lie where the shuffle by ({}) has put them", plain(&pairs)));
        let keys = join.on.iter().map(|(l, r)| join.spaces(&columns(l), &columns(r))).collect();
        let shards = Shards { nodes, homes, spaces: BTreeSet::new(), keys };
        let mut children = Vec::with_capacity(2);
        for (input, rows, keys, few) in [(left, left_rows, left_keys, few), (right, right_rows, right_keys, None)] {
            children.push(self.exchanged(input, rows, keys, few, &shards)?);
        }
        let plan = replace_children_if_necessary(Arc::clone(plan), children)?;
        Ok(Some(Piece { plan, shards: Some(shards) }))
    }

    /// Whether both sides are too large for anything else, as far as the planner can guess.
    pub fn both_large(&self, join: &Join, inputs: &[Input; 2]) -> bool {
        let large = |input: &Input| {
            let guessed = input.rows_count.is_some_and(|rows| rows > join.rows_max());
            guessed || refused(&input.piece.plan).is_some()
        };
        inputs.iter().all(large)
    }

    /// What the join reads in the place of `input`.
    fn exchanged(&mut self, input: &Input, rows: Rows, keys: Keys, few: Option<Plan>, shards: &Shards) -> Result<Plan> {
        let width = self.partitions;
        let count = width * shards.nodes.len();
        let publishing = |plan: Plan| -> Result<Plan> {
            // Partitions that meet just before they are spread need not.
            let coalesced = plan.downcast_ref::<CoalescePartitionsExec>().filter(|_| plan.fetch().is_none());
            let below = coalesced.map_or(&plan, |coalesced| coalesced.input());
            Ok(Arc::new(RepartitionExec::try_new(Arc::clone(below), Partitioning::Hash(keys, count))?))
        };
        let producer = match rows {
            Rows::OnNodes(plan, shards) => self.ship(publishing(plan)?, &shards.nodes, "")?,
            Rows::Gathered(fragment) => self.shipped_again(&fragment, publishing(Arc::clone(&fragment.plan))?)?,
        };
        let schema = producer.schema();
        let wide = |exchange: &Plan| {
            exchange.is::<RepartitionExec>() && exchange.output_partitioning().partition_count() == width
        };
        let exchanges = input.exchange.as_ref().is_some_and(wide);
        let from = ShuffledFrom { producer: Arc::new(producer), shards: shards.clone(), exchanges, few };
        let leaf: Plan = Arc::new(ShuffledRows::new(self.scope.next_scan(), schema, width, Some(from)));
        match (&input.exchange, &input.wanted) {
            (Some(_), _) if exchanges => Ok(leaf),
            (Some(_), _) => input.joined(leaf),
            (None, Distribution::UnspecifiedDistribution) => Ok(leaf),
            (None, Distribution::SinglePartition) => Ok(Arc::new(CoalescePartitionsExec::new(leaf))),
            (None, _) if input.partitions() == width => Ok(leaf),
            (None, _) => Ok(Arc::new(RepartitionExec::try_new(leaf, input.partitioning.clone())?)),
        }
    }

    /// The rows that were gathered by `fragment`, published instead.
    fn shipped_again(&mut self, fragment: &Fragment, plan: Plan) -> Result<RemoteExec> {
        let (bytes, values) = Cutter::encoded(&plan, &fragment.late)?;
        let number = self.next_fragment();
        Ok(RemoteExec::new(Fragment { number, plan, bytes, values, why: String::new(), ..fragment.clone() }))
    }
}

/// One side's rows before they meet those of the other.
enum Rows {
    OnNodes(Plan, Shards),
    /// Were to be sent along, and are too many.
    Gathered(Arc<Fragment>),
}

impl Rows {
    fn of(input: &Input) -> Option<Rows> {
        match &input.piece.shards {
            Some(shards) => Some(Rows::OnNodes(Arc::clone(&input.piece.plan), shards.clone())),
            None => Some(Rows::Gathered(Arc::clone(&refused(&input.piece.plan)?.fragment))),
        }
    }

    fn nodes(&self) -> BTreeSet<NodeName> {
        match self {
            Rows::OnNodes(_, shards) => shards.nodes.clone(),
            Rows::Gathered(fragment) => fragment.parts.iter().map(|part| part.node.clone()).collect(),
        }
    }
}

/// How many shuffles read each other's rows in a plan, and in what it is made of.
fn depth(plan: &Plan) -> usize {
    let own = match (plan.downcast_ref::<ShuffledRows>(), plan.downcast_ref::<RemoteExec>()) {
        (Some(rows), _) => LateInput::of(rows).map_or(0, |input| 1 + below(&input.producer().fragment)),
        (_, Some(remote)) => below(&remote.fragment),
        _ => 0,
    };
    plan.children().into_iter().map(depth).chain([own]).max().unwrap_or(0)
}

fn below(fragment: &Fragment) -> usize {
    let late = &fragment.late;
    let inputs = late.inputs.iter().map(|input| 1 + below(&input.producer().fragment));
    let sides = late.sides.iter().map(|(_, side)| depth(side));
    inputs.chain(sides).chain([depth(&fragment.plan)]).max().unwrap_or(0)
}

/// What gathers rows of which the first have shown that they are too many.
fn refused(plan: &Plan) -> Option<&RemoteExec> {
    let collected = plan.downcast_ref::<CollectedExec>().filter(|collected| collected.is_refused())?;
    collected.children()[0].downcast_ref()
}

fn columns(key: &Arc<dyn PhysicalExpr>) -> BTreeSet<usize> {
    column(key).into_iter().collect()
}

/// Whether rows that match have the same hash. One NULL of `NOT IN` is about all rows.
fn meets_by_hash(join: &Join) -> bool {
    let same = |(left, right): &(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)| {
        let [l, r] = [Side::Left, Side::Right].map(|side| join.input(side).schema());
        matches!((left.data_type(&l), right.data_type(&r)), (Ok(l), Ok(r)) if l == r && hashed_as_compared(&l))
    };
    !join.null_aware && !join.on.is_empty() && join.on.iter().all(same)
}

/// Types of which the hash of equal values is the same whatever their array looks like. Intervals are equal in ways that
/// their bytes do not show.
fn hashed_as_compared(ty: &DataType) -> bool {
    ty.is_numeric()
        || matches!(
            ty,
            DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
                | DataType::FixedSizeBinary(_)
                | DataType::Date32
                | DataType::Date64
                | DataType::Time32(_)
                | DataType::Time64(_)
                | DataType::Timestamp(..)
        )
}

/// Whether nothing above relies on an order of the input, or on other partitions, than a shuffle by `keys` gives.
fn fits(input: &Input, keys: &[Arc<dyn PhysicalExpr>]) -> bool {
    let by_keys = |partitioning: &Partitioning| match partitioning {
        Partitioning::Hash(by, _) => by == keys,
        _ => false,
    };
    let ordered = input.ordered && input.is_sorted;
    let partitioned = match (&input.exchange, &input.wanted) {
        (Some(exchange), _) if exchange.is::<RepartitionExec>() => by_keys(exchange.output_partitioning()),
        (Some(_), _) | (None, Distribution::SinglePartition) => true,
        (None, Distribution::UnspecifiedDistribution) => {
            !matches!(input.partitioning, Partitioning::Hash(..) | Partitioning::Range(..))
        }
        (None, _) => by_keys(&input.partitioning),
    };
    partitioned && !ordered
}

impl LateInput {
    /// `None` when `rows` is a node's.
    pub fn of(rows: &ShuffledRows) -> Option<LateInput> {
        let from = rows.from.as_ref()?;
        Some(LateInput {
            number: rows.input,
            producer: Arc::clone(&from.producer),
            readers: from.shards.nodes.iter().cloned().collect(),
            width: rows.partitions(),
            exchanges: from.exchanges,
            few: from.few.clone(),
        })
    }
}
