//! How a join is cut, together with the exchanges right below it. In this order:
//!
//! 1. Rows that match are on one node: it joins there.
//! 2. One side may go to the nodes of the other: it is sent along if it turns out to be small.
//! 3. Both sides are large: the nodes send each other their rows (`shuffle`), and join what they got.
//! 4. The coordinator joins. If the side it reads first is small, the other is told which rows can match.

use super::collected::CollectedExec;
use super::fragment::{Cutter, Piece, cannot_travel, limits_all, ordered_inputs};
use super::join::{Join, Side};
use super::late::KeyFilter;
use super::sent::SentRows;
use super::shards::column;
use super::trace::traced;
use crate::Shuffling;
use datafusion::common::Result;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{
    Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning, replace_children_if_necessary,
};
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// One input of a join.
pub(super) struct Input {
    /// Where its partitions meet for the join.
    pub exchange: Option<Plan>,
    /// What is below that.
    pub piece: Piece,
    pub wanted: Distribution,
    /// The join needs its order, or passes it on.
    pub ordered: bool,
    /// Of the input as it was planned, as is all below.
    pub partitioning: Partitioning,
    pub is_sorted: bool,
    /// As the planner guesses.
    pub rows_count: Option<usize>,
}

impl Input {
    pub fn partitions(&self) -> usize {
        self.partitioning.partition_count()
    }

    pub fn joined(&self, below: Plan) -> Result<Plan> {
        match &self.exchange {
            Some(exchange) => replace_children_if_necessary(Arc::clone(exchange), vec![below]),
            None => Ok(below),
        }
    }

    /// `below`, which has one partition, as the join wants it.
    fn spread(&self, below: Plan) -> Result<Plan> {
        match (&self.exchange, &self.wanted) {
            (Some(_), _) => self.joined(below),
            (None, Distribution::SinglePartition | Distribution::UnspecifiedDistribution) => Ok(below),
            (None, keyed) => {
                let partitioning = keyed.clone().create_partitioning(self.partitions());
                Ok(Arc::new(RepartitionExec::try_new(below, partitioning)?))
            }
        }
    }
}

impl Cutter<'_> {
    pub fn place_join(&mut self, plan: &Plan, join: &Join) -> Result<Piece> {
        let ordered = ordered_inputs(plan);
        let wanted = plan.input_distribution_requirements().into_per_child();
        let mut inputs = Vec::with_capacity(2);
        for ((child, wanted), ordered) in plan.children().into_iter().zip(wanted).zip(ordered) {
            let exchange = meets(child).then(|| Arc::clone(child));
            let below = exchange.as_ref().map_or(child, |exchange| exchange.children()[0]);
            let piece = self.place(Arc::clone(below))?;
            let (partitioning, is_sorted) = (child.output_partitioning().clone(), child.output_ordering().is_some());
            let statistics = StatisticsContext::new().compute(child.as_ref(), &StatisticsArgs::new())?;
            let rows_count = statistics.num_rows.get_value().copied();
            inputs.push(Input { exchange, piece, wanted, ordered, partitioning, is_sorted, rows_count });
        }
        let inputs: [Input; 2] = inputs.try_into().unwrap_or_else(|_| unreachable!("a join has two inputs"));
        let as_they_are = |[left, right]: [Input; 2]| {
            let inputs = vec![left.joined(left.piece.plan.clone())?, right.joined(right.piece.plan.clone())?];
            replace_children_if_necessary(Arc::clone(plan), inputs)
        };
        let why = match [&inputs[0].piece.shards, &inputs[1].piece.shards] {
            [None, None] => return Ok(Piece::local(as_they_are(inputs)?)),
            _ if let Some(why) = cannot_travel(plan) => why,
            _ if limits_all(plan) => "one limit over all data nodes is wanted".to_owned(),
            _ if self.scope.context.settings.shuffle == Shuffling::On
                && let Some(shuffled) = self.shuffled(plan, join, &inputs, None)? =>
            {
                return Ok(shuffled);
            }
            [left, right] => {
                let together = match (left, right) {
                    (Some(left), Some(right)) => join.together(left, right),
                    _ => Err("not all of its inputs are on data nodes".to_owned()),
                };
                match together {
                    Ok(shards) => return Ok(Piece { plan: as_they_are(inputs)?, shards: Some(shards) }),
                    Err(why) => match [Side::Left, Side::Right].into_iter().find(|side| sendable(join, *side, &inputs))
                    {
                        Some(side) => return self.send(plan, join, side, inputs),
                        None if self.both_large(join, &inputs) => {
                            let few = self.perhaps_few(join, &inputs[0], &why)?;
                            match self.shuffled(plan, join, &inputs, few)? {
                                Some(shuffled) => return Ok(shuffled),
                                None => why,
                            }
                        }
                        None => why,
                    },
                }
            }
        };
        Ok(Piece::local(self.join_above(plan, join, inputs, &why)?))
    }

    /// The rows of `side` go to the nodes of the other, when they are few.
    fn send(&mut self, plan: &Plan, join: &Join, side: Side, inputs: [Input; 2]) -> Result<Piece> {
        let [left, right] = inputs;
        let (sent, mut kept) = match side {
            Side::Left => (left, right),
            Side::Right => (right, left),
        };
        let rows = match &sent.piece.shards {
            Some(shards) => self.gather(sent.piece.plan.clone(), shards, false, "")?,
            None => sent.piece.plan.clone(),
        };
        let collected = match rows.is::<CollectedExec>() {
            true => rows,
            false => Arc::new(CollectedExec::new(rows, join.rows_max())) as Plan,
        };
        self.learn(join, side, &collected, &kept.piece.plan);
        let number = u32::try_from(self.sides.len()).expect("a statement of four billion joins is refused before");
        let leaf = sent.spread(Arc::new(SentRows::new(number, collected.schema())))?;
        self.sides.push(collected);
        let shards = kept.piece.shards.take().map(|shards| join.sent(side, &shards));
        let kept = kept.joined(kept.piece.plan.clone())?;
        let inputs = match side {
            Side::Left => vec![leaf, kept],
            Side::Right => vec![kept, leaf],
        };
        Ok(Piece { plan: replace_children_if_necessary(Arc::clone(plan), inputs)?, shards })
    }

    /// The coordinator joins.
    fn join_above(&mut self, plan: &Plan, join: &Join, inputs: [Input; 2], why: &str) -> Result<Plan> {
        let mut gathered = Vec::with_capacity(2);
        for input in &inputs {
            gathered.push(match &input.piece.shards {
                Some(shards) => self.gather(input.piece.plan.clone(), shards, input.ordered, why)?,
                None => input.piece.plan.clone(),
            });
        }
        let [left, right] = &inputs;
        let single = left.exchange.is_some() || gathered[0].output_partitioning().partition_count() == 1;
        // It is read to its end before the first row of the other side is asked for.
        if self.bare.is_none() && single && cannot_travel(plan).is_none() && !too_many(&gathered[0]) {
            let collected = match gathered[0].is::<CollectedExec>() {
                true => gathered[0].clone(),
                false => Arc::new(CollectedExec::new(gathered[0].clone(), join.rows_max())),
            };
            if self.learn(join, Side::Left, &collected, &gathered[1]) {
                gathered[0] = collected;
            }
        }
        let mut joined = Vec::with_capacity(2);
        for (input, below) in [left, right].into_iter().zip(gathered) {
            joined.push(match (&input.piece.shards, &input.exchange) {
                (Some(_), None) => self.redistributed(below, input.wanted.clone())?,
                _ => input.joined(below)?,
            });
        }
        replace_children_if_necessary(Arc::clone(plan), joined)
    }

    /// The left rows as the coordinator would read them: should they be few, that is better than a shuffle. `None` when
    /// they are known to be many.
    fn perhaps_few(&mut self, join: &Join, left: &Input, why: &str) -> Result<Option<Plan>> {
        let Some(shards) = &left.piece.shards else { return Ok(None) };
        let rows = self.gather(left.piece.plan.clone(), shards, left.ordered, why)?;
        Ok(Some(Arc::new(CollectedExec::new(rows, join.rows_max()))))
    }

    /// Scans below `other` will be told the keys of `rows`, which are those of `side`. Whether there are any.
    fn learn(&mut self, join: &Join, side: Side, rows: &Plan, other: &Plan) -> bool {
        let Some(rows) = rows.downcast_ref::<CollectedExec>().filter(|_| join.wants_matches_only(side.other())) else {
            return false;
        };
        let before = self.filters.len();
        for (left, right) in &join.on {
            let (own, others) = match side {
                Side::Left => (left, right),
                Side::Right => (right, left),
            };
            let (Some(key), Some(column)) = (column(own), column(others)) else { continue };
            let scans = traced(other, column).into_iter();
            self.filters.extend(scans.map(|scanned| KeyFilter { rows: Arc::clone(&rows.collected), key, scanned }));
        }
        self.filters.len() > before
    }
}

/// Whether `side` may go to the nodes of the other.
fn sendable(join: &Join, side: Side, inputs: &[Input; 2]) -> bool {
    let (sent, kept) = match side {
        Side::Left => (&inputs[0], &inputs[1]),
        Side::Right => (&inputs[1], &inputs[0]),
    };
    let larger = matches!((sent.rows_count, kept.rows_count), (Some(sent), Some(kept)) if sent > kept);
    // What is above may rely on its order, or on how its partitions are made.
    let relied_on = side == Side::Right
        && join.is_inner()
        && (sent.joined(sent.piece.plan.clone()).is_ok_and(|plan| plan.output_ordering().is_some())
            || (sent.exchange.is_none()
                && !matches!(sent.piece.plan.output_partitioning(), Partitioning::UnknownPartitioning(_))));
    join.may_send(side) && kept.piece.shards.is_some() && !larger && !relied_on && !too_many(&sent.piece.plan)
}

/// Whether its rows are known to be too many.
fn too_many(plan: &Plan) -> bool {
    plan.downcast_ref::<CollectedExec>().is_some_and(CollectedExec::is_refused)
}

/// Whether this is where rows of several partitions meet for a join.
fn meets(plan: &Plan) -> bool {
    let hashed = plan.downcast_ref::<RepartitionExec>().map(|exchange| exchange.partitioning());
    matches!(hashed, Some(Partitioning::Hash(..))) || (plan.is::<CoalescePartitionsExec>() && plan.fetch().is_none())
}
