//! The node's side of a plan: `ChunkScan` leaves become scans over the store's chunks, which `cursor` reads. Partitions
//! share a queue of chunks, and the last of them piece by piece, so that one large chunk does not hold up the others.

use super::check::scans_declare_no_hash;
use super::cursor::{ChunkQueue, Cursor, Reading, addresses, blocking, joined, times, visit};
use super::error::hide;
use super::leading::Leading;
use super::node::{Lead, Verdict, Windows, stretches};
use super::parameter;
use super::scan::{ChunkScan, scan_properties};
use super::shuffle::{FetchExec, ShuffledRows, Sources};
use super::store::{ChunkRequest, ChunkStore, ScanColumn};
use super::turn::Turn;
use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::stream;
use proto::{
    ChunkId, Clock, ColumnPredicate, CommitSeq, Error, FragmentRequest, Latest, ScanChunks, ScanTally, ScanTotals,
    SqlState, TxnId,
};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// A plan of the request's own: its chunks under the scans, its values in the place of parameters, and those who publish
/// behind what is fetched.
///
/// # Errors
/// `PROTOCOL_VIOLATION` when the plan has a scan for which the request names no chunks.
pub(super) fn bind(
    plan: &Arc<dyn ExecutionPlan>,
    request: &FragmentRequest,
    store: &Arc<dyn ChunkStore>,
    clock: &Arc<dyn Clock>,
    turn: Option<&Arc<Turn>>,
    published: &Sources,
) -> Result<Arc<dyn ExecutionPlan>> {
    let values = parameter::decode(&request.values)?;
    let bound = parameter::instance(plan, &values, &mut |leaf| {
        if let Some(rows) = leaf.downcast_ref::<ShuffledRows>() {
            let input = request.shuffle.inputs.iter().find(|input| input.input == rows.input).ok_or_else(|| {
                let message = format!("fragment that is not told who publishes rows {}", rows.input);
                hide(Error::new(SqlState::PROTOCOL_VIOLATION, message))
            })?;
            let fetched = FetchExec::new(rows, input, request.snapshot, published.clone())?;
            return Ok(Some(Arc::new(fetched) as Arc<dyn ExecutionPlan>));
        }
        let Some(scan) = leaf.downcast_ref::<ChunkScan>() else { return Ok(None) };
        let Some(chunks) = request.scans.iter().find(|chunks| chunks.scan == scan.scan) else {
            let message = format!("fragment without chunks for scan {}", scan.scan);
            return Err(hide(Error::new(SqlState::PROTOCOL_VIOLATION, message)));
        };
        let mut bound = BoundScan::new(scan, chunks, request, Arc::clone(store), Arc::clone(clock))?;
        bound.tally.chunks_wanted.add(chunks.chunks.len());
        bound.windows = scan.leading.as_ref().and_then(|leading| bound.windows(leading, chunks)).map(Arc::new);
        bound.turn = turn.cloned();
        Ok(Some(Arc::new(bound) as Arc<dyn ExecutionPlan>))
    });
    let bound = bound?;
    scans_declare_no_hash(bound.as_ref())?;
    super::node::replace(bound)
}

pub(super) struct BoundScan {
    store: Arc<dyn ChunkStore>,
    clock: Arc<dyn Clock>,
    turn: Option<Arc<Turn>>,
    columns: Vec<ScanColumn>,
    predicates: Vec<ColumnPredicate>,
    latest: Option<Latest>,
    limit: Option<usize>,
    snapshot: CommitSeq,
    txn: Option<TxnId>,
    chunks: Vec<ChunkId>,
    /// Set when rows are read from one end of time; then chunks come into the queue window by window.
    windows: Option<Arc<Windows>>,
    /// Nobody above leaves rows out: those that are read count.
    counts: bool,
    queue: Arc<ChunkQueue>,
    tally: Arc<ScanTally>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl BoundScan {
    fn new(
        scan: &ChunkScan,
        chunks: &ScanChunks,
        request: &FragmentRequest,
        store: Arc<dyn ChunkStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<BoundScan> {
        let mut columns = Vec::with_capacity(scan.columns.len());
        for (column, field) in scan.columns.iter().zip(scan.fields()) {
            let missing = (!column.missing.is_null()).then(|| column.missing.to_array()).transpose()?;
            columns.push(ScanColumn { id: column.id, field, missing });
        }
        Ok(BoundScan {
            store,
            turn: None,
            columns,
            predicates: chunks.predicates.clone(),
            latest: scan.latest.clone(),
            limit: scan.limit,
            clock,
            snapshot: request.snapshot,
            txn: request.txn,
            chunks: chunks.chunks.clone(),
            windows: None,
            counts: true,
            queue: Arc::new(ChunkQueue::new(chunks.chunks.iter().copied(), scan.partitions())),
            tally: Arc::default(),
            properties: Arc::new(scan_properties(scan.schema(), scan.partitions())),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl BoundScan {
    fn windows(&self, leading: &Leading, chunks: &ScanChunks) -> Option<Windows> {
        let bounds = |chunk: &ChunkId| self.store.time_bounds(*chunk, leading.time, self.snapshot, self.txn);
        let bounds = chunks.chunks.iter().map(|chunk| (*chunk, bounds(chunk)));
        let windows = Windows::new(leading, &self.predicates, bounds)?;
        self.queue.clear();
        Some(windows)
    }

    /// The windows it reads, and the name of the column they are about.
    pub(super) fn read_by(&self) -> Option<(&Arc<Windows>, String)> {
        let windows = self.windows.as_ref()?;
        Some((windows, self.schema().field(self.time_at()?).name().clone()))
    }

    /// As it is, but somebody else counts the rows that are left.
    pub(super) fn counted_above(&self) -> BoundScan {
        BoundScan { counts: false, ..self.again() }
    }

    /// The same rows in as many scans as there are stretches of time in which chunks lie, one after the other by the
    /// column at `time_at`. `None` when there is but one stretch, nobody knows where the rows are, or not all are wanted.
    pub(super) fn in_sequence(&self, time_at: usize, descending: bool) -> Option<Vec<BoundScan>> {
        let time = self.columns.get(time_at)?.id;
        let all = self.windows.is_none() && self.latest.is_none() && self.limit.is_none();
        // A transaction with rows of its own may write more while a cursor reads: what it reads must be opened by then.
        if !all || addresses(&self.columns) || self.txn.is_some() {
            return None;
        }
        let bounds = |chunk: &ChunkId| self.store.time_bounds(*chunk, time, self.snapshot, self.txn);
        let bounds = self.chunks.iter().map(|chunk| Some((*chunk, bounds(chunk)?))).collect::<Option<Vec<_>>>()?;
        let stretches = stretches(bounds, descending);
        let scan = |chunks: Vec<ChunkId>| {
            let queue = ChunkQueue::new(chunks.iter().copied(), self.queue.partitions);
            BoundScan { chunks, queue: Arc::new(queue), ..self.again() }
        };
        (stretches.len() > 1).then(|| stretches.into_iter().map(scan).collect())
    }

    /// The same without windows.
    pub(super) fn at_once(&self) -> BoundScan {
        let queue = ChunkQueue::new(self.chunks.iter().copied(), self.queue.partitions);
        BoundScan { windows: None, queue: Arc::new(queue), ..self.again() }
    }

    fn again(&self) -> BoundScan {
        BoundScan {
            chunks: self.chunks.clone(),
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            columns: self.columns.clone(),
            predicates: self.predicates.clone(),
            latest: self.latest.clone(),
            windows: self.windows.clone(),
            queue: Arc::clone(&self.queue),
            tally: Arc::clone(&self.tally),
            turn: self.turn.clone(),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
            ..*self
        }
    }

    /// What reading took so far.
    pub(super) fn totals(&self) -> ScanTotals {
        self.tally.totals()
    }

    fn time_at(&self) -> Option<usize> {
        let time = self.windows.as_ref()?.leading.time;
        self.columns.iter().position(|column| column.id == time)
    }
}

impl fmt::Debug for BoundScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundScan").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

impl DisplayAs for BoundScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoundScan: chunks={}", self.chunks.len())
    }
}

impl ExecutionPlan for BoundScan {
    fn name(&self) -> &str {
        "BoundScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = BaselineMetrics::new(&self.metrics, partition);
        let cursor = Cursor {
            store: Arc::clone(&self.store),
            queue: Arc::clone(&self.queue),
            shares: self.windows.is_none() && self.limit.is_none(),
            template: ChunkRequest {
                chunk: ChunkId(0),
                snapshot: self.snapshot,
                txn: self.txn,
                columns: self.columns.clone(),
                predicates: self.predicates.clone(),
                latest: self.latest.clone(),
                batch_rows: context.session_config().batch_size(),
                tally: Arc::clone(&self.tally),
            },
            schema: self.schema(),
            window: None,
            rows: None,
            rows_left: self.limit.unwrap_or(usize::MAX),
            cells: 1,
            ended: false,
            slow: addresses(&self.columns),
            clock: Arc::clone(&self.clock),
            turn: self.turn.clone(),
            windows: self.windows.clone(),
            predicates: self.predicates.clone(),
            busy: rows.elapsed_compute().clone(),
        };
        let turn = self.turn.clone();
        let lead = self.windows.as_ref().filter(|_| partition == 0).map(|windows| Lead(Arc::clone(windows)));
        let counted = self.windows.clone().filter(|_| self.counts && partition == 0).zip(self.time_at());
        let reading = match &self.windows {
            Some(windows) if partition > 0 => Reading::Waiting(windows.verdict(), Box::new(cursor)),
            _ => Reading::Idle(Box::new(cursor)),
        };
        let (time_at, start) = (self.time_at(), (VecDeque::new(), reading, lead));
        let batches = stream::try_unfold(start, move |(mut ready, mut reading, lead)| {
            let (rows, counted, turn) = (rows.clone(), counted.clone(), turn.clone());
            async move {
                loop {
                    if let Some(batch) = ready.pop_front() {
                        let batch: RecordBatch = batch;
                        rows.record_output(batch.num_rows());
                        if let Some((windows, time_at)) = &counted {
                            windows.count(times(&batch, *time_at));
                        }
                        return Ok(Some((batch, (ready, reading, lead))));
                    }
                    if let Some(turn) = &turn {
                        turn.step().await.map_err(hide)?;
                    }
                    let (batches, mut cursor) = match reading {
                        Reading::Waiting(mut verdict, mut cursor) => {
                            let verdict = verdict.wait_for(|verdict| *verdict != Verdict::Open).await;
                            let Ok(Verdict::Rest(rest)) = verdict.map(|verdict| *verdict) else { return Ok(None) };
                            cursor.enter(rest, time_at);
                            reading = Reading::Idle(cursor);
                            continue;
                        }
                        Reading::Idle(cursor) if cursor.slow => joined(blocking(cursor).await)?,
                        Reading::Idle(cursor) => {
                            // Whoever waits for the thread, or wants to end this, has a chance between two visits.
                            tokio::task::yield_now().await;
                            visit(cursor)?
                        }
                        Reading::Ahead(task) => joined(task.await)?,
                    };
                    if batches.is_empty() && cursor.ended {
                        // All that came before has been through the filters above, and is counted.
                        let next = lead.as_ref().and_then(|lead| lead.0.next(&cursor.queue));
                        let Some(window) = next else { return Ok(None) };
                        cursor.enter(window, time_at);
                        reading = Reading::Idle(cursor);
                        continue;
                    }
                    ready = batches;
                    reading = if cursor.slow { Reading::Ahead(blocking(cursor)) } else { Reading::Idle(cursor) };
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}
