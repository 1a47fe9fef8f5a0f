//! What a fragment learns while its statement runs, just before it leaves: rows of a join's other side that go along, results
//! of subqueries, and which values can match in its scans.

use super::bounds;
use super::codec;
use super::collected::{Collected, CollectedExec, Seen, Work};
use super::exchange::{Fragment, NodePart};
use super::pace::paced;
use super::scan::ChunkScan;
use super::sent::SentRows;
use super::subquery;
use super::trace::Traced;
use arrow::array::{Array, ArrayRef};
use bytes::Bytes;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::TaskContext;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::physical_planning_context::ScalarSubqueryResults;
use datafusion::physical_plan::ExecutionPlan;
use futures::future::Shared;
use proto::{ChunkId, ColumnPredicate, PredicateKind, Scalar};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// More distinct values than this say only between what they lie.
const VALUES_MAX: usize = 1_000;
const FLOATS_MAX: usize = 16;
/// Of all sides together: a request must stay well below `proto::MESSAGE_BYTES_MAX`.
const SIDES_BYTES_MAX: usize = 24 << 20;

/// "Only values that are in this column of those rows can match."
#[derive(Debug, Clone)]
pub(super) struct KeyFilter {
    pub rows: Arc<Collected>,
    pub key: usize,
    pub scanned: Traced,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Late {
    /// Rows that go along, by the number their [`SentRows`] has.
    pub sides: Vec<(u32, Arc<dyn ExecutionPlan>)>,
    pub filters: Vec<KeyFilter>,
    /// Results of scalar subqueries the plan uses.
    pub results: Option<ScalarSubqueryResults>,
    /// How wide the coordinator runs what it has to do itself after all.
    pub partitions: usize,
}

/// How a fragment leaves.
pub(super) enum Settled {
    /// To its nodes, with these bytes and chunks.
    Sent { bytes: Bytes, parts: Vec<NodePart>, learnt: Vec<Learnt> },
    /// Not at all: a side has too many rows, and the coordinator runs this in one stream instead. The plan begins with
    /// the rows that are in hand; they are kept here until then.
    Instead { plan: Arc<dyn ExecutionPlan>, _in_hand: Vec<Shared<Work>> },
}

/// How a fragment left, without what it took along: for EXPLAIN.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Sent(Vec<Learnt>),
    Instead(Arc<dyn ExecutionPlan>),
}

impl Settled {
    pub fn outcome(&self) -> Outcome {
        match self {
            Settled::Sent { learnt, .. } => Outcome::Sent(learnt.clone()),
            Settled::Instead { plan, .. } => Outcome::Instead(Arc::clone(plan)),
        }
    }
}

/// What a scan was told.
#[derive(Debug, Clone)]
pub(super) struct Learnt {
    pub predicate: ColumnPredicate,
    pub scan: u32,
    pub chunks_left: usize,
}

impl Late {
    pub fn is_empty(&self) -> bool {
        self.sides.is_empty() && self.filters.is_empty() && self.results.is_none()
    }

    fn side(&self, number: u32) -> &CollectedExec {
        let side = self.sides.iter().find(|(known, _)| *known == number);
        let (_, side) = side.expect("a fragment has all the sides its plan names");
        side.downcast_ref().expect("sides are collected")
    }
}

/// Waits for what the fragment needs.
///
/// # Errors
/// Of the sides' execution.
pub(super) async fn settle(fragment: &Fragment, context: &Arc<TaskContext>) -> Result<Settled> {
    let late = &fragment.late;
    // All sides are worked out at the same time.
    let in_hand = late.sides.iter().map(|(number, _)| late.side(*number).head(Arc::clone(context)));
    let in_hand = in_hand.collect::<Vec<_>>();
    let heads = futures::future::try_join_all(in_hand.iter().cloned()).await.map_err(DataFusionError::Shared)?;
    let heads = late.sides.iter().map(|(number, _)| *number).zip(heads).collect::<BTreeMap<_, _>>();
    let sizes = heads.iter().map(|(number, head)| (head.bytes_count(), *number));
    if sizes.clone().map(|(bytes, _)| bytes).sum::<usize>() > SIDES_BYTES_MAX {
        let (_, largest) = sizes.max().expect("no sides have no bytes");
        late.side(largest).collected.refuse();
    }
    if late.sides.iter().any(|(number, _)| late.side(*number).is_refused()) {
        let collected = |sent: &SentRows| {
            let side = late.sides.iter().find(|(number, _)| *number == sent.side);
            Ok(Arc::clone(&side.expect("a fragment has all the sides its plan names").1))
        };
        let plan = SentRows::replaced(Arc::clone(&fragment.plan), collected)?;
        let plan = paced(super::fragment::recut(plan, late.partitions)?)?;
        return Ok(Settled::Instead { plan, _in_hand: in_hand });
    }
    let plan = SentRows::replaced(Arc::clone(&fragment.plan), |sent| match &heads[&sent.side].seen {
        Seen::All(rows) => sent.filled(vec![rows.clone()]),
        Seen::TooMany => unreachable!("too many rows are refused"),
    })?;
    let mut predicates: BTreeMap<u32, Vec<ColumnPredicate>> = BTreeMap::new();
    for filter in &late.filters {
        let Seen::All(rows) = filter.rows.seen().await else { continue };
        if let Some(kind) = values(rows.column(filter.key)) {
            let predicate = ColumnPredicate { column: filter.scanned.column, kind };
            predicates.entry(filter.scanned.scan).or_default().push(predicate);
        }
    }
    if late.results.is_some() {
        for (scanned, predicate) in subquery::predicates(&plan)? {
            predicates.entry(scanned.scan).or_default().push(predicate);
        }
    }
    let (mut parts, mut learnt) = (fragment.parts.clone(), Vec::new());
    narrow(&plan, &mut parts, &mut learnt, &predicates)?;
    let plan = match &late.results {
        Some(results) => subquery::with_results(plan, results)?,
        None => plan,
    };
    let bytes = codec::encode(&plan).map_err(super::error::hide)?;
    Ok(Settled::Sent { bytes, parts, learnt })
}

/// Tells the scans of `plan` their `predicates`, and leaves in `parts` the chunks that may match.
fn narrow(
    plan: &Arc<dyn ExecutionPlan>,
    parts: &mut [NodePart],
    learnt: &mut Vec<Learnt>,
    predicates: &BTreeMap<u32, Vec<ColumnPredicate>>,
) -> Result<()> {
    let mut left: BTreeMap<u32, BTreeSet<ChunkId>> = BTreeMap::new();
    plan.apply(|node| {
        let scan = node.downcast_ref::<ChunkScan>();
        let told = scan.and_then(|scan| Some((scan, predicates.get(&scan.scan)?, scan.source.as_ref()?)));
        if let Some((scan, more, source)) = told {
            let surviving = bounds::surviving(&source.table, &source.chunks, more);
            let told = more.iter().map(|predicate| Learnt {
                predicate: predicate.clone(),
                scan: scan.scan,
                chunks_left: surviving.len(),
            });
            learnt.extend(told);
            left.insert(scan.scan, surviving.iter().map(|chunk| chunk.id).collect());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    for chunks in parts.iter_mut().flat_map(|part| &mut part.scans) {
        if let Some(left) = left.get(&chunks.scan) {
            chunks.chunks.retain(|chunk| left.contains(chunk));
        }
        chunks.predicates.extend(predicates.get(&chunks.scan).into_iter().flatten().cloned());
    }
    Ok(())
}

/// What is equal to one of `keys`: themselves when they are few, else all between the least and the greatest. NULL
/// equals nothing. `None` when their type has no order that scans know.
pub(super) fn values(keys: &ArrayRef) -> Option<PredicateKind> {
    // Scans compare a float with each of them.
    let values_max = if keys.data_type().is_floating() { FLOATS_MAX } else { VALUES_MAX };
    let mut distinct = HashSet::new();
    for row in 0..keys.len() {
        if keys.is_valid(row) {
            distinct.insert(ScalarValue::try_from_array(keys, row).ok()?);
        }
        if distinct.len() > values_max {
            let min = extreme(MinAccumulator::try_new(keys.data_type()).ok()?, keys)?;
            let max = extreme(MaxAccumulator::try_new(keys.data_type()).ok()?, keys)?;
            return Some(PredicateKind::Range { min: Some(min), max: Some(max) });
        }
    }
    let mut values =
        distinct.iter().map(|value| bounds::scalar(value, &value.data_type())).collect::<Option<Vec<_>>>()?;
    values.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    Some(PredicateKind::OneOf(values))
}

fn extreme(mut of: impl Accumulator, keys: &ArrayRef) -> Option<Scalar> {
    of.update_batch(std::slice::from_ref(keys)).ok()?;
    let value = of.evaluate().ok()?;
    bounds::scalar(&value, &value.data_type())
}
