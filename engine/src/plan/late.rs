//! What a fragment learns while its statement runs, just before it leaves: rows of a join's other side that go along, results
//! of subqueries, and which values can match in its scans.

use super::bounds;
use super::codec;
use super::collected::{Collected, CollectedExec, Head, Seen, Work};
use super::context::Scope;
use super::exchange::{Fragment, NodePart};
use super::pace::paced;
use super::scan::ChunkScan;
use super::sent::SentRows;
use super::shuffle::{self, LateInput, ShuffledRows, Started};
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
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
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
    /// What it reads of other fragments, which are to publish it.
    pub inputs: Vec<LateInput>,
    /// How wide the coordinator runs what it has to do itself after all.
    pub partitions: usize,
}

/// How a fragment leaves.
pub(super) enum Settled {
    /// To its nodes, with these bytes and chunks.
    Sent { bytes: Bytes, parts: Vec<NodePart>, learnt: Vec<Learnt>, inputs: Vec<Started> },
    /// Not at all: a side has too many rows, of this fragment or of one that was to publish for it, or rows that were to be
    /// shuffled are few; and the coordinator runs this in one stream instead. Where the plan still takes the rows that are in hand, they are kept here until
    /// then.
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
        self.is_known() && self.inputs.is_empty()
    }

    /// Whether plan and chunks are as they were encoded.
    fn is_known(&self) -> bool {
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
    let refused = late.sides.iter().any(|(number, _)| late.side(*number).is_refused());
    let in_hand = late.sides.iter().filter(|_| !refused);
    let in_hand = in_hand.map(|(number, _)| late.side(*number).head(Arc::clone(context))).collect::<Vec<_>>();
    let heads = futures::future::try_join_all(in_hand.iter().cloned()).await.map_err(DataFusionError::Shared)?;
    let heads = late.sides.iter().map(|(number, _)| *number).zip(heads).collect::<BTreeMap<_, _>>();
    let sizes = heads.iter().map(|(number, head)| (head.bytes_count(), *number));
    if sizes.clone().map(|(bytes, _)| bytes).sum::<usize>() > SIDES_BYTES_MAX {
        let (_, largest) = sizes.max().expect("no sides have no bytes");
        late.side(largest).collected.refuse();
    }
    let mut stays = late.sides.iter().any(|(number, _)| late.side(*number).is_refused());
    let mut below = Vec::new();
    if !stays {
        let few = late.inputs.iter().filter_map(LateInput::few).filter(|few| !few.is_refused());
        let few = few.map(|few| few.head(Arc::clone(context)));
        let heads = futures::future::try_join_all(few).await.map_err(DataFusionError::Shared)?;
        stays = heads.iter().any(|head| matches!(head.seen, Seen::All(_)));
    }
    if !stays {
        let settling = late.inputs.iter().map(|input| input.producer().settle(context));
        below = futures::future::try_join_all(settling).await.map_err(DataFusionError::Shared)?;
        stays = below.iter().any(|settled| matches!(**settled, Settled::Instead { .. }));
    }
    let scope = context.session_config().get_extension::<Scope>();
    let scope = scope.expect("the engine executes with its scope in the config");
    if stays {
        drop(below);
        let plan = whole(Arc::clone(&fragment.plan), late)?;
        let plan = paced(super::fragment::recut(plan, late.partitions, &scope)?)?;
        let sides = late.sides.iter().map(|(number, _)| late.side(*number));
        let _in_hand = sides.zip(in_hand).filter(|(side, _)| side.is_in(&plan)).map(|(_, rows)| rows).collect();
        return Ok(Settled::Instead { plan, _in_hand });
    }
    let (bytes, parts, learnt) = match late.is_known() {
        true => (fragment.bytes.clone(), fragment.parts.clone(), Vec::new()),
        false => completed(fragment, &heads).await?,
    };
    let started = late.inputs.iter().zip(below).map(|(input, settled)| shuffle::start(input, settled, &scope));
    let inputs = futures::future::try_join_all(started).await?;
    Ok(Settled::Sent { bytes, parts, learnt, inputs })
}

/// The plan of a fragment that does not leave, with all that it was to be sent or to read from others below it.
fn whole(plan: Arc<dyn ExecutionPlan>, late: &Late) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = SentRows::replaced(plan, |sent| {
        let side = late.sides.iter().find(|(number, _)| *number == sent.side);
        Ok(Arc::clone(&side.expect("a fragment has all the sides its plan names").1))
    })?;
    ShuffledRows::replaced(plan, |rows| {
        let input = late.inputs.iter().find(|input| input.number == rows.input);
        let input = input.expect("a fragment has all the inputs its plan names");
        let published = &input.producer().fragment;
        let exchange = published.plan.downcast_ref::<RepartitionExec>().expect("what is published ends in an exchange");
        let below = match input.is_few() {
            true => Arc::clone(input.few.as_ref().expect("it was collected")),
            false => whole(Arc::clone(exchange.input()), &published.late)?,
        };
        match exchange.partitioning() {
            // Rows in one stream are to have as many partitions as those they meet.
            Partitioning::Hash(keys, _) if input.exchanges || (input.is_few() && rows.partitions() > 1) => {
                let again = Partitioning::Hash(keys.clone(), rows.partitions());
                Ok(Arc::new(RepartitionExec::try_new(below, again)?))
            }
            _ => Ok(below),
        }
    })
}

/// The fragment with what it has waited for.
async fn completed(fragment: &Fragment, heads: &BTreeMap<u32, Head>) -> Result<(Bytes, Vec<NodePart>, Vec<Learnt>)> {
    let late = &fragment.late;
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
    Ok((bytes, parts, learnt))
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
