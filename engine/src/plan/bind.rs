//! The node's side of a scan: `ChunkScan` leaves become scans over the store's chunks. Partitions share a queue of
//! chunks, so that one large chunk does not hold up the others.

use super::error::hide;
use super::scan::{ChunkScan, scan_properties};
use super::store::{ChunkRequest, ChunkRows, ChunkStore, ScanColumn};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
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
use proto::{ChunkId, ColumnPredicate, CommitSeq, Error, FragmentRequest, ScanChunks, SqlState, TxnId};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// Puts the request's chunks under the plan's scans.
///
/// # Errors
/// `PROTOCOL_VIOLATION` when the plan has a scan for which the request names no chunks.
pub(super) fn bind(
    plan: Arc<dyn ExecutionPlan>,
    request: &FragmentRequest,
    store: &Arc<dyn ChunkStore>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let bound = plan.transform_up(|node| {
        let Some(scan) = node.downcast_ref::<ChunkScan>() else { return Ok(Transformed::no(node)) };
        let Some(chunks) = request.scans.iter().find(|chunks| chunks.scan == scan.scan) else {
            let message = format!("fragment without chunks for scan {}", scan.scan);
            return Err(hide(Error::new(SqlState::PROTOCOL_VIOLATION, message)));
        };
        let bound = BoundScan::new(scan, chunks, request.snapshot, request.txn, Arc::clone(store))?;
        Ok(Transformed::yes(Arc::new(bound) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(bound.data)
}

struct BoundScan {
    store: Arc<dyn ChunkStore>,
    columns: Vec<ScanColumn>,
    predicates: Vec<ColumnPredicate>,
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
        snapshot: CommitSeq,
        txn: Option<TxnId>,
        store: Arc<dyn ChunkStore>,
    ) -> Result<BoundScan> {
        let mut columns = Vec::with_capacity(scan.columns.len());
        for (column, field) in scan.columns.iter().zip(scan.fields()) {
            let missing = (!column.missing.is_null()).then(|| column.missing.to_array()).transpose()?;
            columns.push(ScanColumn { id: column.id, field, missing });
        }
        Ok(BoundScan {
            store,
            columns,
            predicates: scan.predicates.clone(),
            limit: scan.limit,
            snapshot,
            txn,
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
                batch_rows: context.session_config().batch_size(),
            },
            schema: self.schema(),
            rows: None,
            rows_left: self.limit.unwrap_or(usize::MAX),
        };
        let rows = BaselineMetrics::new(&self.metrics, partition);
        let batches = stream::try_unfold(Reading::Idle(cursor), move |reading| {
            let rows = rows.clone();
            async move {
                let (batch, cursor) = match reading {
                    Reading::Idle(cursor) => read(cursor).await?,
                    Reading::Ahead(task) => joined(task.await)?,
                };
                let Some(batch) = batch else { return Ok(None) };
                rows.record_output(batch.num_rows());
                // The next batch is read while the consumer works on this one.
                let ahead = tokio::task::spawn_blocking(move || step(cursor));
                Ok(Some((batch, Reading::Ahead(ahead))))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// One partition's place in its chunks. Lives on one blocking thread at a time, and on none while the consumer is
/// busy: threads cannot run out because of slow consumers. Dropping it ends the scan.
struct Cursor {
    store: Arc<dyn ChunkStore>,
    queue: Arc<Mutex<VecDeque<ChunkId>>>,
    template: ChunkRequest,
    schema: SchemaRef,
    /// The chunk being read.
    rows: Option<ChunkRows>,
    rows_left: usize,
}

enum Reading {
    Idle(Cursor),
    Ahead(tokio::task::JoinHandle<Result<(Option<RecordBatch>, Cursor)>>),
}

async fn read(cursor: Cursor) -> Result<(Option<RecordBatch>, Cursor)> {
    joined(tokio::task::spawn_blocking(move || step(cursor)).await)
}

fn joined<T>(outcome: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|error| Err(hide(Error::internal(format!("a chunk reader stopped: {error}")))))
}

/// The next batch with rows, from this chunk or the next in the queue.
fn step(mut cursor: Cursor) -> Result<(Option<RecordBatch>, Cursor)> {
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
                let batch = RecordBatch::try_new_with_options(cursor.schema.clone(), columns, &options)?;
                return Ok((Some(batch), cursor));
            }
        }
    }
    Ok((None, cursor))
}
