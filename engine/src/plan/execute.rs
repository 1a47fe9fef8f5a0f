//! Runs fragments on a node: decode, bind, execute, stream.

use super::bind::bind;
use super::codec;
use super::error::reveal;
use super::metrics::FragmentMetrics;
use super::store::ChunkStore;
use crate::Settings;
use crate::semantics::session_state;
use arrow::array::{Array, RecordBatch};
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use futures::stream;
use proto::{Clock, FragmentMessage, FragmentRequest, FragmentStream};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Answers are cut into batches of at most about this size, well below `proto::MESSAGE_BYTES_MAX`.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How many of the largest memory users an out-of-memory error names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");
/// No process plans or runs wider than this, whatever it is asked.
pub(super) const PARTITIONS_MAX: usize = 64;

/// Limits of a process's query work.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Sorts, aggregates and joins of all running queries together; beyond it a query fails with `OUT_OF_MEMORY`.
    /// Nothing is spilled to disk.
    pub memory_bytes: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { memory_bytes: 1 << 30 }
    }
}

pub(super) fn runtime(options: &EngineOptions) -> Arc<RuntimeEnv> {
    let pool = TrackConsumersPool::new(GreedyMemoryPool::new(options.memory_bytes), CONSUMERS_NAMED);
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk);
    Arc::new(builder.build().expect("a runtime without files has nothing to fail on"))
}

/// A node's query engine.
pub struct Executor {
    store: Arc<dyn ChunkStore>,
    clock: Arc<dyn Clock>,
    runtime: Arc<RuntimeEnv>,
}

impl Executor {
    pub fn new(store: Arc<dyn ChunkStore>, clock: Arc<dyn Clock>, options: &EngineOptions) -> Executor {
        Executor { store, clock, runtime: runtime(options) }
    }

    /// Starts a fragment. The work happens where the stream is polled, and on that runtime's threads; dropping the
    /// stream ends it. The last message holds the metrics.
    ///
    /// # Errors
    /// When the plan cannot be decoded or does not fit the request. Later errors come out of the stream.
    pub fn start(&self, request: &FragmentRequest) -> proto::Result<FragmentStream> {
        let started = self.clock.elapsed();
        let context = self.context(request);
        let plan = codec::decode(&request.plan, &context)?;
        let plan = bind(plan, request, &self.store, &self.clock).map_err(reveal)?;
        let batches = execute_stream(Arc::clone(&plan), context).map_err(reveal)?;
        let batches = batches.flat_map(|batch| match batch {
            Ok(batch) => {
                stream::iter(cut(batch).into_iter().map(|b| Ok(FragmentMessage::Batch(b))).collect::<Vec<_>>())
            }
            Err(error) => stream::iter(vec![Err(reveal(error))]),
        });
        let clock = Arc::clone(&self.clock);
        let metrics = stream::once(async move {
            let elapsed_us = (clock.elapsed() - started).as_micros() as u64;
            Ok(FragmentMessage::Metrics(FragmentMetrics::of(plan.as_ref(), elapsed_us).encode()))
        });
        Ok(batches.chain(metrics).boxed())
    }

    fn context(&self, request: &FragmentRequest) -> Arc<TaskContext> {
        let settings = Settings {
            time_zone: request.time_zone.clone(),
            now_us: request.now_us,
            partitions: (request.partitions as usize).clamp(1, PARTITIONS_MAX),
            ..Settings::default()
        };
        let context = TaskContext::from(&session_state(&settings));
        Arc::new(context.with_runtime(Arc::clone(&self.runtime)))
    }
}

/// Pieces that fit into a message each. A single row is never cut.
fn cut(batch: RecordBatch) -> Vec<RecordBatch> {
    let bytes: usize = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum();
    let pieces = bytes.div_ceil(BATCH_BYTES_MAX).clamp(1, batch.num_rows().max(1));
    let rows = batch.num_rows().div_ceil(pieces).max(1);
    (0..batch.num_rows()).step_by(rows).map(|at| batch.slice(at, rows.min(batch.num_rows() - at))).collect()
}
