//! Exchanges that find no memory.

use crate::plan::execute::{EngineOptions, runtime, task};
use crate::plan::pace::Pace;
use crate::plan::spill::Spill;
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use datafusion::prelude::SessionConfig;
use futures::TryStreamExt;
use proto::SystemClock;
use std::sync::Arc;
use std::time::Duration;

const ATTEMPTS: usize = 8;
const BATCHES: i64 = 40;
const ROWS: i64 = 64;
/// One takes milliseconds.
const ENDLESS: Duration = Duration::from_secs(20);

/// Two inputs and two outputs, of which each waited for a file that only the other's progress would have filled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_spills_comes_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let spill = Spill::open(dir.path(), 1 << 30).unwrap();
    let runtime = runtime(&EngineOptions { memory_bytes: 1 << 20, spill: Some(spill) });
    let hog = MemoryConsumer::new("everything").register(&runtime.memory_pool);
    while hog.try_grow(1 << 10).is_ok() {}
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
    let batch = |from: i64| {
        let values = Int64Array::from_iter_values(from..from + ROWS);
        RecordBatch::try_new(schema.clone(), vec![Arc::new(values)]).unwrap()
    };
    let inputs = [0, 1].map(|input| (0..BATCHES).map(|n| batch((input * BATCHES + n) * ROWS)).collect::<Vec<_>>());
    for attempt in 0..ATTEMPTS {
        let rows = MemorySourceConfig::try_new_exec(&inputs, schema.clone(), None).unwrap();
        let by = Partitioning::Hash(vec![Arc::new(Column::new("a", 0))], 2);
        let exchange = RepartitionExec::try_new(rows, by).unwrap();
        let pace = Pace { clock: Arc::new(SystemClock::new()), turn: None };
        // An exchange gathers what it deals out into batches of this size.
        let context = task(SessionConfig::new().with_batch_size(ROWS as usize / 4), &runtime, pace);
        let outputs = [0, 1].map(|output| exchange.execute(output, context.clone()).unwrap());
        let outputs = outputs.map(|output| tokio::spawn(output.try_collect::<Vec<_>>()));
        let all = tokio::time::timeout(ENDLESS, futures::future::join_all(outputs)).await;
        let all = all.unwrap_or_else(|_| panic!("attempt {attempt} hangs"));
        let rows = all.into_iter().flat_map(|output| output.unwrap().unwrap()).map(|batch| batch.num_rows());
        assert_eq!(rows.sum::<usize>() as i64, 2 * BATCHES * ROWS);
        assert!(exchange.metrics().unwrap().spilled_bytes().unwrap_or(0) > 0, "it found memory");
    }
}
