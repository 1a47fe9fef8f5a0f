//! The node's side of a scan: `ChunkScan` leaves become scans over the store's chunks. Partitions share a queue of
//! chunks, and the last of them piece by piece, so that one large chunk does not hold up the others.

use super::check::scans_declare_no_hash;
use super::error::hide;
use super::leading::Leading;
use super::node::{Lead, Verdict, Window, Windows};
use super::parameter;
use super::scan::{ChunkScan, scan_properties};
use super::shuffle::{FetchExec, ShuffledRows, Sources};
use super::store::{ChunkRequest, ChunkRows, ChunkStore, ScanColumn};
use super::turn::Turn;
use arrow::array::{AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, Time};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::stream;
use parking_lot::Mutex;
use proto::{
    ChunkId, Clock, ColumnId, ColumnPredicate, CommitSeq, Error, FragmentRequest, Latest, ScanChunks, ScanTally,
    ScanTotals, SqlState, TxnId,
};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// About a quarter of a megabyte, which takes a third of `VISIT_TIME` to decode.
const VISIT_CELLS: usize = 32 << 10;
/// A visit that finds few rows ends after this time, so that others have their turn.
const VISIT_TIME: Duration = Duration::from_millis(1);
/// One that takes longer waits for the disk.
const VISIT_TIME_SLOW: Duration = Duration::from_millis(3);
/// A scan for addresses may wait for a chunk that is being sealed.
const ADDRESSES: [ColumnId; 3] = [ColumnId::CHUNK, ColumnId::PART, ColumnId::ROW];

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

/// What no partition has taken yet.
pub(super) struct ChunkQueue {
    work: Mutex<VecDeque<Work>>,
    partitions: usize,
}

enum Work {
    Chunk(ChunkId),
    /// Part of a chunk.
    Piece(ChunkRows),
}

impl ChunkQueue {
    fn new(chunks: impl Iterator<Item = ChunkId>, partitions: usize) -> ChunkQueue {
        ChunkQueue { work: Mutex::new(chunks.map(Work::Chunk).collect()), partitions }
    }

    pub fn add(&self, chunks: impl Iterator<Item = ChunkId>) {
        self.work.lock().extend(chunks.map(Work::Chunk));
    }

    /// The next rows to be read. The last chunks are `shared`: cut into pieces, so that all partitions end at about the
    /// same time.
    fn take(&self, store: &dyn ChunkStore, template: &ChunkRequest, shared: bool) -> Result<Option<ChunkRows>> {
        let mut work = self.work.lock();
        let chunk = match work.pop_front() {
            None => return Ok(None),
            Some(Work::Piece(rows)) => return Ok(Some(rows)),
            Some(Work::Chunk(chunk)) => chunk,
        };
        let request = ChunkRequest { chunk, ..template.clone() };
        let mut pieces = if shared && work.len() < self.partitions {
            // Nobody else is to find the queue empty while the chunk is opened.
            let mut pieces = store.scan(request, self.partitions).map_err(hide)?;
            work.extend(pieces.drain(1..).map(Work::Piece));
            pieces
        } else {
            drop(work);
            store.scan(request, 1).map_err(hide)?
        };
        Ok(pieces.pop())
    }
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
        self.queue.work.lock().clear();
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

/// One partition's place in its chunks. Reads in place as long as the page cache answers, because going to another thread
/// and back costs as much as reading a narrow batch; once a visit is slow, on a blocking thread, and on none while the
/// consumer is busy: threads cannot run out because of slow consumers. Dropping it ends the scan.
struct Cursor {
    store: Arc<dyn ChunkStore>,
    queue: Arc<ChunkQueue>,
    /// Others may have a part of its chunks.
    shares: bool,
    template: ChunkRequest,
    schema: SchemaRef,
    /// Rows at other times are left out; with the place of the time.
    window: Option<(Window, usize)>,
    /// The chunk being read.
    rows: Option<ChunkRows>,
    rows_left: usize,
    /// Values to read in one visit.
    cells: usize,
    /// No chunk is left.
    ended: bool,
    /// The last visit took long, or any may: the next goes to a thread that may wait, ahead of the consumer.
    slow: bool,
    clock: Arc<dyn Clock>,
    turn: Option<Arc<Turn>>,
    windows: Option<Arc<Windows>>,
    /// The statement's; a window adds its own.
    predicates: Vec<ColumnPredicate>,
    /// Time of its visits.
    busy: Time,
}

impl Cursor {
    /// Goes on with the rows of another window.
    fn enter(&mut self, window: Window, time_at: Option<usize>) {
        let windows = self.windows.as_ref().expect("only scans with windows enter one");
        self.ended = false;
        self.window = time_at.map(|at| (window, at));
        self.shares = matches!(*windows.verdict().borrow(), Verdict::Rest(_));
        self.template.predicates.clone_from(&self.predicates);
        self.template.predicates.push(window.predicate(&windows.leading));
    }
}

enum Reading {
    /// Until the first partition has read its windows.
    Waiting(watch::Receiver<Verdict>, Box<Cursor>),
    Idle(Box<Cursor>),
    Ahead(tokio::task::JoinHandle<Result<Visited>>),
}

type Visited = (VecDeque<RecordBatch>, Box<Cursor>);

fn addresses(columns: &[ScanColumn]) -> bool {
    columns.iter().any(|column| ADDRESSES.contains(&column.id))
}

fn joined<T>(outcome: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|error| Err(hide(Error::internal(format!("a chunk reader stopped: {error}")))))
}

fn blocking(cursor: Box<Cursor>) -> tokio::task::JoinHandle<Result<Visited>> {
    tokio::task::spawn_blocking(move || visit(cursor))
}

/// The next batches. One at first, so that whoever needs few rows has them soon; then more.
fn visit(mut cursor: Box<Cursor>) -> Result<Visited> {
    let (mut batches, mut cells) = (VecDeque::new(), 0);
    let started = cursor.clock.elapsed();
    let mut took = Duration::ZERO;
    while cells < cursor.cells && took < VISIT_TIME {
        let Some(batch) = step(&mut cursor)? else {
            cursor.ended = true;
            break;
        };
        if batch.num_rows() > 0 {
            cells += batch.num_rows() * batch.num_columns().max(1);
            batches.push_back(batch);
        }
        took = cursor.clock.elapsed().saturating_sub(started);
    }
    cursor.cells = VISIT_CELLS;
    let took = cursor.clock.elapsed().saturating_sub(started);
    cursor.busy.add_duration(took);
    cursor.slow = took > VISIT_TIME_SLOW || addresses(&cursor.template.columns);
    if let Some(turn) = &cursor.turn {
        turn.ran(took);
    }
    Ok((batches, cursor))
}

/// The next batch, which may be empty, from this chunk or the next in the queue.
fn step(cursor: &mut Cursor) -> Result<Option<RecordBatch>> {
    while cursor.rows_left > 0 {
        let Some(rows) = &mut cursor.rows else {
            let Some(rows) = cursor.queue.take(cursor.store.as_ref(), &cursor.template, cursor.shares)? else { break };
            cursor.rows = Some(rows);
            continue;
        };
        match rows.next().transpose().map_err(hide)? {
            None => cursor.rows = None,
            Some(batch) => {
                let batch = match &cursor.window {
                    Some((window, time_at)) => within(batch, *window, *time_at)?,
                    None => batch,
                };
                if batch.num_rows() == 0 {
                    continue;
                }
                let batch = batch.slice(0, batch.num_rows().min(cursor.rows_left));
                cursor.rows_left -= batch.num_rows();
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = batch.columns().to_vec();
                return Ok(Some(RecordBatch::try_new_with_options(cursor.schema.clone(), columns, &options)?));
            }
        }
    }
    Ok(None)
}

fn times(batch: &RecordBatch, at: usize) -> &[i64] {
    batch.column(at).as_primitive::<TimestampMicrosecondType>().values()
}

/// The rows of the window. Most batches lie in it as a whole: the store has skipped the others.
fn within(batch: RecordBatch, window: Window, time_at: usize) -> Result<RecordBatch> {
    let inside = |us: &i64| window.min <= *us && *us <= window.max;
    let times = times(&batch, time_at);
    if times.iter().fold(true, |all, us| all & inside(us)) {
        return Ok(batch);
    }
    let inside = BooleanArray::from_iter(times.iter().map(|us| Some(inside(us))));
    Ok(filter_record_batch(&batch, &inside)?)
}
