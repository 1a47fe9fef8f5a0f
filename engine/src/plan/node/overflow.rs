//! Where complete groups go that do not fit into memory: as states into DataFusion's final aggregate, which spills.

use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// The schema of the aggregate's states.
pub(super) fn states_schema(aggregate: &AggregateExec) -> Result<SchemaRef> {
    let input = Arc::clone(aggregate.input());
    Ok(of_mode(aggregate, AggregateMode::Partial, input)?.schema())
}

/// The groups whose `states` these are; of one group there may be several.
pub(super) fn merged(
    aggregate: &AggregateExec,
    states: SendableRecordBatchStream,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let schema = states.schema();
    let once = Arc::new(Once { schema: Arc::clone(&schema), states: Mutex::new(Some(states)) });
    let input = StreamingTableExec::try_new(schema, vec![once], None, vec![], false, None)?;
    of_mode(aggregate, AggregateMode::Final, Arc::new(input))?.execute(0, context)
}

fn of_mode(aggregate: &AggregateExec, mode: AggregateMode, input: Arc<dyn ExecutionPlan>) -> Result<AggregateExec> {
    let functions = aggregate.aggr_expr().to_vec();
    let (groups, filters) = match mode {
        AggregateMode::Partial => (aggregate.group_expr().clone(), aggregate.filter_expr().to_vec()),
        _ => (aggregate.group_expr().as_final(), vec![None; functions.len()]),
    };
    AggregateExec::try_new(mode, groups, functions, filters, input, aggregate.input_schema())
}

/// A stream as the only partition of a leaf.
struct Once {
    schema: SchemaRef,
    states: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.states.lock().take().expect("its only reader is run once")
    }
}

#[cfg(test)]
mod tests {
    use super::super::aggregate::RunAggregateExec;
    use super::*;
    use crate::plan::execute::runtime;
    use crate::plan::{EngineOptions, Spill};
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::functions_aggregate::sum::sum_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::aggregates::PhysicalGroupBy;
    use datafusion::physical_plan::collect;
    use std::collections::BTreeMap;

    const GROUPS: i64 = 50_000;

    /// Every group comes three times, and far apart.
    #[tokio::test]
    async fn complete_groups_larger_than_memory_are_merged_from_spilled_states() {
        let schema = Arc::new(Schema::new(["k", "v"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
        let pairs = (0..3 * GROUPS).map(|n| (n * 7919 % GROUPS, n)).collect::<Vec<_>>();
        let batches = pairs.chunks(1000).map(|pairs| {
            let (keys, values): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            let columns = [keys, values].map(|column| Arc::new(Int64Array::from(column)) as _).to_vec();
            RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
        });
        let input = MemorySourceConfig::try_new_exec(&[batches.collect()], Arc::clone(&schema), None).unwrap();
        let sum = AggregateExprBuilder::new(sum_udaf(), vec![col("v", &schema).unwrap()]).schema(Arc::clone(&schema));
        let groups = PhysicalGroupBy::new_single(vec![(col("k", &schema).unwrap(), "k".to_owned())]);
        let sums = vec![Arc::new(sum.alias("sum").build().unwrap())];
        let aggregate =
            AggregateExec::try_new(AggregateMode::Single, groups, sums, vec![None], Arc::clone(&input) as _, schema);
        let aggregate = Arc::new(RunAggregateExec::new(aggregate.unwrap(), input));

        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::open(dir.path(), 1 << 30).unwrap();
        let with = |spill| {
            let runtime = runtime(&EngineOptions { memory_bytes: 1 << 20, spill });
            Arc::new(TaskContext::default().with_runtime(runtime))
        };
        assert!(
            collect(Arc::clone(&aggregate) as _, with(None)).await.is_err(),
            "the memory is too large for this test"
        );
        let mut found = BTreeMap::new();
        for batch in collect(aggregate, with(Some(spill))).await.unwrap() {
            let [keys, sums] = [0, 1].map(|column| batch.column(column).as_primitive::<Int64Type>().clone());
            for (key, sum) in keys.values().iter().zip(sums.values()) {
                assert_eq!(found.insert(*key, *sum), None, "group {key} came twice");
            }
        }
        let mut expected = BTreeMap::new();
        pairs.into_iter().for_each(|(key, value)| *expected.entry(key).or_default() += value);
        assert!(found == expected);
    }
}
