//! Runs fragments on a node: decode, bind, execute, stream.

use super::bind::bind;
use super::codec;
use super::error::reveal;
use super::light::narrow;
use super::marks::is_lasting;
use super::memory::SharedMemory;
use super::metrics::FragmentMetrics;
use super::pace::{Pace, paced};
use super::shuffle::{Sources, publish};
use super::spill::Spill;
use super::store::ChunkStore;
use super::turn::Turn;
use crate::Settings;
use crate::semantics::{config, session_state};
use arrow::array::{Array, RecordBatch};
use bytes::Bytes;
use datafusion::common::Result;
use datafusion::config::ConfigNonZeroUsize;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::{Stream, StreamExt, stream};
use lru::LruCache;
use parking_lot::Mutex;
use proto::{Clock, FetchRequest, FragmentMessage, FragmentRequest, FragmentStream, Publishers, Shuffle};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Answers are cut into batches of at most about this size, well below `proto::MESSAGE_BYTES_MAX`.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Each sort sets memory aside for the merge of what it spills: one part of all memory in so many, and not more than this.
/// More of it makes merges wider, and is missing where many sort a few rows at the same time.
const MERGE_PART: usize = 512;
const MERGE_BYTES_MAX: usize = 1 << 20;
/// Spilled files that one merge reads at a time. It would take all memory there is for buffers, and leave nothing to what is
/// above it; so there is one for each part of memory of this size.
const FAN_IN_MAX: usize = 16;
const FAN_IN_BYTES: usize = 16 << 20;
/// What an exchange spills is read file by file. DataFusion (apache/datafusion#24883) waits for more of the oldest file even
/// when the batch that is wanted was written to another one, for ever if nothing more comes. With a file for each batch
/// there is nothing to wait for.
const SPILL_FILE_BYTES: usize = 1;
/// Plans kept as they were decoded, and the largest of them.
const DECODED_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");
const DECODED_BYTES_MAX: usize = 64 << 10;
/// No process plans or runs wider than this, whatever it is asked.
pub(super) const PARTITIONS_MAX: usize = 64;

/// Limits of a process's query work.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Sorts, aggregates and joins of all running queries together. Beyond it they spill, or the query fails with
    /// `OUT_OF_MEMORY`.
    pub memory_bytes: usize,
    /// `None`: nothing is spilled.
    pub spill: Option<Spill>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { memory_bytes: 1 << 30, spill: None }
    }
}

pub(super) fn runtime(options: &EngineOptions) -> Arc<RuntimeEnv> {
    let pool = Arc::new(SharedMemory::new(options.memory_bytes));
    let build = |disk| RuntimeEnvBuilder::new().with_memory_pool(pool.clone()).with_disk_manager_builder(disk).build();
    let disabled = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = options.spill.as_ref().and_then(|spill| {
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![spill.dir().to_owned()]))
            .with_max_temp_directory_size(spill.bytes_max())
            .with_max_spill_merge_fan_in((options.memory_bytes / FAN_IN_BYTES).clamp(2, FAN_IN_MAX));
        let built = build(disk);
        built.inspect_err(|error| tracing::error!(%error, "queries cannot spill")).ok()
    });
    Arc::new(runtime.unwrap_or_else(|| build(disabled).expect("a runtime without files has nothing to fail on")))
}

/// A node's query engine.
pub struct Executor {
    store: Arc<dyn ChunkStore>,
    clock: Arc<dyn Clock>,
    runtime: Arc<RuntimeEnv>,
    published: Sources,
    /// By bytes and by the settings that functions take from their session.
    decoded: Mutex<LruCache<(Bytes, String, u32), Plan>>,
}

type Plan = Arc<dyn ExecutionPlan>;

impl Executor {
    pub fn new(store: Arc<dyn ChunkStore>, clock: Arc<dyn Clock>, options: &EngineOptions) -> Executor {
        let published = Sources::default();
        Executor { store, clock, runtime: runtime(options), published, decoded: Mutex::new(LruCache::new(DECODED_MAX)) }
    }

    /// Finds the nodes that fragments fetch rows from.
    pub fn with_publishers(self, publishers: Arc<dyn Publishers>) -> Executor {
        Executor { published: Sources { publishers, ..self.published }, ..self }
    }

    /// Starts a fragment. The work happens where the stream is polled, and on that runtime's threads; dropping the
    /// stream ends it. The last message holds the metrics.
    ///
    /// # Errors
    /// When the plan cannot be decoded or does not fit the request. Later errors come out of the stream.
    pub fn start(&self, request: &FragmentRequest) -> proto::Result<FragmentStream> {
        self.start_in(request, None)
    }

    /// As `start`, for one of many fragments. Those that nodes send each other rows for take no turns: one that waits for
    /// another must not keep it from working.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_in(&self, request: &FragmentRequest, turn: Option<&Arc<Turn>>) -> proto::Result<FragmentStream> {
        let started = self.clock.elapsed();
        let turn = turn.filter(|_| request.shuffle == Shuffle::default());
        let context = task(
            config(&settings_of(request)),
            &self.runtime,
            Pace { clock: Arc::clone(&self.clock), turn: turn.cloned() },
        );
        let plan = self.decoded(request)?;
        let plan = bind(&plan, request, &self.store, &self.clock, turn, &self.published).map_err(reveal)?;
        let plan = paced(plan).map_err(reveal)?;
        let batches = match request.shuffle.publishes {
            None => messages(execute_stream(Arc::clone(&plan), context).map_err(reveal)?).boxed(),
            Some(number) => {
                let key = (request.snapshot, number);
                let taken = publish(&self.published.exchanges, &plan, key, &context).map_err(reveal)?;
                stream::once(taken).filter_map(|()| async { None }).boxed()
            }
        };
        let clock = Arc::clone(&self.clock);
        let metrics = stream::once(async move {
            let elapsed_us = (clock.elapsed() - started).as_micros() as u64;
            Ok(FragmentMessage::Metrics(FragmentMetrics::of(plan.as_ref(), elapsed_us).encode(), None))
        });
        Ok(batches.chain(metrics).boxed())
    }

    /// A partition of what a fragment publishes here. The work of that fragment happens where the stream is polled.
    ///
    /// # Errors
    /// When there is none (any more).
    pub fn fetch(&self, request: &FetchRequest) -> proto::Result<FragmentStream> {
        let FetchRequest { snapshot, exchange, partition, .. } = *request;
        let published = self.published.exchanges.take(snapshot, exchange, partition)?;
        let end = FragmentMetrics { elapsed_us: 0, operators: Vec::new() };
        let end = stream::once(async move { Ok(FragmentMessage::Metrics(end.encode(), None)) });
        Ok(messages(published).chain(end).boxed())
    }

    /// Whether no rows wait to be fetched.
    #[cfg(test)]
    pub(super) fn publishes_nothing(&self) -> bool {
        self.published.exchanges.is_empty()
    }

    /// Statements come again, and decoding their plan costs as much as running it. What is kept was never executed.
    fn decoded(&self, request: &FragmentRequest) -> proto::Result<Plan> {
        let decode = || {
            let context = TaskContext::from(&session_state(&settings_of(request)));
            let plan = codec::decode(&request.plan, &context)?;
            // One that publishes ends in an exchange, which must stay.
            let narrows = request.partitions == 1 && request.shuffle.publishes.is_none();
            if narrows { narrow(plan).map_err(reveal) } else { Ok(plan) }
        };
        if request.plan.len() > DECODED_BYTES_MAX {
            return decode();
        }
        let key = (request.plan.clone(), request.time_zone.clone(), request.partitions);
        if let Some(plan) = self.decoded.lock().get(&key) {
            return Ok(Arc::clone(plan));
        }
        let plan = decode()?;
        if is_lasting(&plan) {
            self.decoded.lock().put(key, Arc::clone(&plan));
        }
        Ok(plan)
    }
}

fn settings_of(request: &FragmentRequest) -> Settings {
    Settings {
        time_zone: request.time_zone.clone(),
        now_us: request.now_us,
        partitions: (request.partitions as usize).clamp(1, PARTITIONS_MAX),
        ..Settings::default()
    }
}

/// What operators ask for while they run. Finished plans hold their functions: none is looked up by its name any more.
pub(super) fn task(mut config: SessionConfig, runtime: &Arc<RuntimeEnv>, pace: Pace) -> Arc<TaskContext> {
    config.set_extension(Arc::new(pace));
    let execution = &mut config.options_mut().execution;
    if let MemoryLimit::Finite(bytes) = runtime.memory_pool.memory_limit() {
        execution.sort_spill_reservation_bytes = (bytes / MERGE_PART).min(MERGE_BYTES_MAX);
    }
    execution.max_spill_file_size_bytes = ConfigNonZeroUsize::try_new(SPILL_FILE_BYTES).expect("it is not zero");
    let (scalar, higher) = (HashMap::new(), HashMap::new());
    let (aggregate, window) = (HashMap::new(), HashMap::new());
    Arc::new(TaskContext::new(None, String::new(), config, scalar, higher, aggregate, window, Arc::clone(runtime)))
}

fn messages(
    batches: impl Stream<Item = Result<RecordBatch>> + Send,
) -> impl Stream<Item = proto::Result<FragmentMessage>> + Send {
    batches.flat_map(|batch| match batch {
        Ok(batch) => stream::iter(cut(batch).into_iter().map(|b| Ok(FragmentMessage::Batch(b))).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(reveal(error))]),
    })
}

/// Pieces that fit into a message each. A single row is never cut.
fn cut(batch: RecordBatch) -> Vec<RecordBatch> {
    let bytes: usize = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum();
    let pieces = bytes.div_ceil(BATCH_BYTES_MAX).clamp(1, batch.num_rows().max(1));
    let rows = batch.num_rows().div_ceil(pieces).max(1);
    (0..batch.num_rows()).step_by(rows).map(|at| batch.slice(at, rows.min(batch.num_rows() - at))).collect()
}
