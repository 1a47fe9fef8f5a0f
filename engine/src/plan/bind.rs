//! The node's side of a scan: `ChunkScan` leaves become scans over the store's chunks. Partitions share a queue of
//! chunks, so that one large chunk does not hold up the others.

use super::error::hide;
use super::parameter;
use super::scan::{ChunkScan, scan_properties};
use super::store::{ChunkRequest, ChunkRows, ChunkStore, ScanColumn};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
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
use parking_lot::Mutex;
use proto::{
    ChunkId, Clock, ColumnId, ColumnPredicate, CommitSeq, Error, FragmentRequest, Latest, ScanChunks, SqlState, TxnId,
};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// About a quarter of a megabyte, which takes a tenth of `VISIT_TIME` to decode.
const VISIT_CELLS: usize = 32 << 10;
/// A visit that takes longer waits for the disk.
const VISIT_TIME: Duration = Duration::from_millis(3);
/// A scan for addresses may wait for a chunk that is being sealed.
const ADDRESSES: [ColumnId; 3] = [ColumnId::CHUNK, ColumnId::PART, ColumnId::ROW];

/// A plan of the request's own: its chunks under the scans, its values in the place of parameters.
///
/// # Errors
/// `PROTOCOL_VIOLATION` when the plan has a scan for which the request names no chunks.
pub(super) fn bind(
    plan: &Arc<dyn ExecutionPlan>,
    request: &FragmentRequest,
    store: &Arc<dyn ChunkStore>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let values = parameter::decode(&request.values)?;
    parameter::instance(plan, &values, &mut |leaf| {
        let Some(scan) = leaf.downcast_ref::<ChunkScan>() else { return Ok(None) };
        let Some(chunks) = request.scans.iter().find(|chunks| chunks.scan == scan.scan) else {
            let message = format!("fragment without chunks for scan {}", scan.scan);
            return Err(hide(Error::new(SqlState::PROTOCOL_VIOLATION, message)));
        };
        let bound = BoundScan::new(scan, chunks, request, Arc::clone(store), Arc::clone(clock))?;
        Ok(Some(Arc::new(bound) as Arc<dyn ExecutionPlan>))
    })
}

struct BoundScan {
    store: Arc<dyn ChunkStore>,
    clock: Arc<dyn Clock>,
    columns: Vec<ScanColumn>,
    predicates: Vec<ColumnPredicate>,
    latest: Option<Latest>,
    limit: Option<usize>,
    snapshot: CommitSeq,
    txn: Option<TxnId>,
    chunks_count: usize,
    /// Chunks no partition has taken yet.
    queue: Arc<Mutex<VecDeque<ChunkId>>>,
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
            columns,
            predicates: chunks.predicates.clone(),
            latest: scan.latest.clone(),
            limit: scan.limit,
            clock,
            snapshot: request.snapshot,
            txn: request.txn,
            chunks_count: chunks.chunks.len(),
            queue: Arc::new(Mutex::new(chunks.chunks.iter().copied().collect())),
            properties: Arc::new(scan_properties(scan.schema(), scan.partitions())),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl fmt::Debug for BoundScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundScan").field("chunks", &self.chunks_count).finish_non_exhaustive()
    }
}

impl DisplayAs for BoundScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoundScan: chunks={}", self.chunks_count)
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
        let cursor = Cursor {
            store: Arc::clone(&self.store),
            queue: Arc::clone(&self.queue),
            template: ChunkRequest {
                chunk: ChunkId(0),
                snapshot: self.snapshot,
                txn: self.txn,
                columns: self.columns.clone(),
                predicates: self.predicates.clone(),
                latest: self.latest.clone(),
                batch_rows: context.session_config().batch_size(),
            },
            schema: self.schema(),
            rows: None,
            rows_left: self.limit.unwrap_or(usize::MAX),
            cells: 1,
            slow: self.columns.iter().any(|column| ADDRESSES.contains(&column.id)),
            clock: Arc::clone(&self.clock),
        };
        let rows = BaselineMetrics::new(&self.metrics, partition);
        let start = (VecDeque::new(), Reading::Idle(Box::new(cursor)));
        let batches = stream::try_unfold(start, move |(mut ready, mut reading)| {
            let rows = rows.clone();
            async move {
                loop {
                    if let Some(batch) = ready.pop_front() {
                        let batch: RecordBatch = batch;
                        rows.record_output(batch.num_rows());
                        return Ok(Some((batch, (ready, reading))));
                    }
                    let (batches, cursor) = match reading {
                        Reading::Idle(cursor) if cursor.slow => joined(blocking(cursor).await)?,
                        Reading::Idle(cursor) => {
                            // Whoever waits for the thread, or wants to end this, has a chance between two visits.
                            tokio::task::yield_now().await;
                            visit(cursor)?
                        }
                        Reading::Ahead(task) => joined(task.await)?,
                    };
                    if batches.is_empty() {
                        return Ok(None);
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
    queue: Arc<Mutex<VecDeque<ChunkId>>>,
    template: ChunkRequest,
    schema: SchemaRef,
    /// The chunk being read.
    rows: Option<ChunkRows>,
    rows_left: usize,
    /// Values to read in one visit.
    cells: usize,
    /// The last visit took long: the next goes to a thread that may wait, ahead of the consumer.
    slow: bool,
    clock: Arc<dyn Clock>,
}

enum Reading {
    Idle(Box<Cursor>),
    Ahead(tokio::task::JoinHandle<Result<Visited>>),
}

/// No batches: the partition is at its end.
type Visited = (VecDeque<RecordBatch>, Box<Cursor>);

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
    while cells < cursor.cells {
        let Some(batch) = step(&mut cursor)? else { break };
        cells += batch.num_rows() * batch.num_columns().max(1);
        batches.push_back(batch);
    }
    cursor.cells = VISIT_CELLS;
    cursor.slow = cursor.clock.elapsed().saturating_sub(started) > VISIT_TIME;
    Ok((batches, cursor))
}

/// The next batch with rows, from this chunk or the next in the queue.
fn step(cursor: &mut Cursor) -> Result<Option<RecordBatch>> {
    while cursor.rows_left > 0 {
        let Some(rows) = &mut cursor.rows else {
            let Some(chunk) = cursor.queue.lock().pop_front() else { break };
            let request = ChunkRequest { chunk, ..cursor.template.clone() };
            cursor.rows = Some(cursor.store.scan(request).map_err(hide)?);
            continue;
        };
        match rows.next().transpose().map_err(hide)? {
            None => cursor.rows = None,
            Some(batch) if batch.num_rows() == 0 => {}
            Some(batch) => {
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
