//! Aggregation that looks a group up once per run of rows, and gives the accumulators whole runs. Stands for an
//! `AggregateExec` over raw rows, of which it has groups, accumulators, schema and states.

use super::keys::{Grouped, Keys};
use super::overflow::{merged, states_schema};
use super::states::{Fold, Runs, fold};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, aggregate_expressions};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties, SendableRecordBatchStream,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::fmt;
use std::sync::Arc;

pub(super) struct RunAggregateExec {
    /// What it stands for.
    aggregate: AggregateExec,
    input: Arc<dyn ExecutionPlan>,
    metrics: ExecutionPlanMetricsSet,
}

impl RunAggregateExec {
    pub fn can_stand_for(aggregate: &AggregateExec) -> bool {
        let raw_input = matches!(
            aggregate.mode(),
            AggregateMode::Partial | AggregateMode::Single | AggregateMode::SinglePartitioned
        );
        let groups = aggregate.group_expr();
        raw_input
            && !groups.is_empty()
            && groups.is_single()
            && aggregate.limit_options().is_none()
            && *aggregate.input_order_mode() == InputOrderMode::Linear
    }

    /// `input` has the schema of the aggregate's own.
    pub fn new(aggregate: AggregateExec, input: Arc<dyn ExecutionPlan>) -> RunAggregateExec {
        RunAggregateExec { aggregate, input, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl fmt::Debug for RunAggregateExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunAggregateExec").field("mode", self.aggregate.mode()).finish_non_exhaustive()
    }
}

impl DisplayAs for RunAggregateExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run")?;
        self.aggregate.fmt_as(format, f)
    }
}

impl ExecutionPlan for RunAggregateExec {
    fn name(&self) -> &str {
        "RunAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregate.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        look: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.aggregate.apply_expressions(look)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().expect("an aggregate has one input");
        Ok(Arc::new(RunAggregateExec::new(self.aggregate.clone(), input)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let options = &context.session_config().options().execution;
        // It does not spill itself, but gives its memory back when there is no more.
        let consumer = MemoryConsumer::new(format!("RunAggregate[{partition}]")).with_can_spill(true);
        let mut work = Work {
            table: Table::new(&self.aggregate)?,
            input: Some(self.input.execute(partition, Arc::clone(&context))?),
            ready: None,
            partial: *self.aggregate.mode() == AggregateMode::Partial,
            aggregate: self.aggregate.clone(),
            bare: Bare::Undecided { rows: 0 },
            bare_rows: options.skip_partial_aggregation_probe_rows_threshold,
            bare_ratio: options.skip_partial_aggregation_probe_ratio_threshold,
            batch_rows: context.session_config().batch_size(),
            reservation: consumer.register(context.memory_pool()),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        if work.partial {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), work.batches())));
        }
        let (schema, aggregate) = (self.schema(), self.aggregate.clone());
        let batches = stream::once(async move {
            let first = work.next().await?;
            let (schema, overflowed) = (Arc::clone(&work.table.schema), work.partial);
            let all = stream::iter(first.map(Ok)).chain(work.batches());
            let all: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, all));
            if overflowed { merged(&aggregate, all, context) } else { Ok(all) }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.try_flatten())))
    }
}

/// One partition at work.
struct Work {
    table: Table,
    /// `None` once it has ended.
    input: Option<SendableRecordBatchStream>,
    /// Groups on their way out.
    ready: Option<RecordBatch>,
    /// States are wanted, of which a group may have several; or complete groups do not fit.
    partial: bool,
    aggregate: AggregateExec,
    bare: Bare,
    /// After so many rows with more groups per row than this, rows go out as they are.
    bare_rows: usize,
    bare_ratio: f64,
    batch_rows: usize,
    reservation: MemoryReservation,
    metrics: BaselineMetrics,
}

/// Nearly every row is its own group: then rows are best passed on, each as the state of its group.
enum Bare {
    Undecided { rows: usize },
    Yes,
}

impl Work {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(ready) = self.ready.take() {
                let rows = ready.num_rows().min(self.batch_rows);
                self.ready = (rows < ready.num_rows()).then(|| ready.slice(rows, ready.num_rows() - rows));
                self.metrics.record_output(rows);
                return Ok(Some(ready.slice(0, rows)));
            }
            let Some(input) = &mut self.input else { return Ok(None) };
            let batch = input.next().await.transpose()?;
            let metrics = self.metrics.clone();
            let _busy = metrics.elapsed_compute().timer();
            match (batch, &self.bare) {
                (None, _) => {
                    self.input = None;
                    self.ready = self.table.emit(self.partial)?;
                }
                (Some(batch), Bare::Yes) => self.ready = Some(self.table.bare(&batch)?).filter(|b| b.num_rows() > 0),
                (Some(batch), Bare::Undecided { .. }) => self.add(&batch)?,
            }
        }
    }

    fn batches(self) -> impl Stream<Item = Result<RecordBatch>> + Send {
        stream::try_unfold(self, |mut work| async move {
            let batch = work.next().await?;
            Ok(batch.map(|batch| (batch, work)))
        })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.table.add(batch)?;
        let Bare::Undecided { rows } = &mut self.bare else { return Ok(()) };
        *rows += batch.num_rows();
        let bare = *rows >= self.bare_rows && self.table.len() as f64 / *rows as f64 > self.bare_ratio;
        if bare && self.partial {
            self.bare = Bare::Yes;
            self.ready = self.table.emit(true)?;
            self.reservation.free();
            return Ok(());
        }
        match self.reservation.try_resize(self.table.size()) {
            Err(DataFusionError::ResourcesExhausted(_)) if self.table.len() > 0 => {
                // Somebody will merge a group's states anyway, or does now.
                if !self.partial {
                    (self.partial, self.table.schema) = (true, states_schema(&self.aggregate)?);
                }
                self.ready = self.table.emit(true)?;
                self.reservation.try_resize(self.table.size())
            }
            outcome => outcome,
        }
    }
}

/// The groups so far.
struct Table {
    keys: Keys,
    groups: Box<dyn GroupValues>,
    functions: Vec<Function>,
    schema: SchemaRef,
    /// The group of each run, or of each row.
    found: Vec<usize>,
    /// The group of each row, if they were found by run.
    of_rows: Vec<usize>,
}

/// An aggregate function and its accumulator.
struct Function {
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    groups: Box<dyn GroupsAccumulator>,
    /// With the type of the last state.
    fold: Option<(Fold, DataType)>,
}

/// What a function gets of a batch.
struct Input {
    arguments: Vec<ArrayRef>,
    filter: Option<BooleanArray>,
}

impl Table {
    fn new(aggregate: &AggregateExec) -> Result<Table> {
        let input = aggregate.input().schema();
        let group_by = aggregate.group_expr();
        let arguments = aggregate_expressions(aggregate.aggr_expr(), aggregate.mode(), group_by.num_group_exprs())?;
        let functions = aggregate.aggr_expr().iter().zip(arguments).zip(aggregate.filter_expr());
        let functions = functions.map(|((function, arguments), filter)| {
            let states = function.state_fields()?;
            let fold = fold(function, &input);
            let fold = fold.and_then(|fold| Some((fold, states.last()?.data_type().clone())));
            Ok(Function { arguments, filter: filter.clone(), groups: accumulator(function)?, fold })
        });
        Ok(Table {
            keys: Keys::new(group_by.input_exprs(), &input),
            groups: new_group_values(group_by.group_schema(&input)?, &GroupOrdering::None)?,
            functions: functions.collect::<Result<_>>()?,
            schema: aggregate.schema(),
            found: Vec::new(),
            of_rows: Vec::new(),
        })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let Grouped { keys, ends } = self.keys.group(batch)?;
        self.groups.intern(&keys, &mut self.found)?;
        self.of_rows.clear();
        let groups_count = self.groups.len();
        for function in &mut self.functions {
            let input = function.input(batch)?;
            if let Some(ends) = &ends {
                if let Some(states) = function.states(&input, ends)? {
                    function.groups.merge_batch(&states, &self.found, groups_count)?;
                    continue;
                }
                if self.of_rows.is_empty() {
                    spread(&self.found, ends, &mut self.of_rows);
                }
            }
            let of_rows = if ends.is_some() { &self.of_rows } else { &self.found };
            function.groups.update_batch(&input.arguments, of_rows, input.filter.as_ref(), groups_count)?;
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.groups.len()
    }

    fn size(&self) -> usize {
        let functions = self.functions.iter().map(|function| function.groups.size()).sum::<usize>();
        let indices = (self.found.capacity() + self.of_rows.capacity()) * size_of::<usize>();
        functions + self.groups.size() + indices
    }

    /// All groups, which it forgets.
    fn emit(&mut self, states: bool) -> Result<Option<RecordBatch>> {
        if self.groups.is_empty() {
            return Ok(None);
        }
        let mut columns = self.groups.emit(EmitTo::All)?;
        for function in &mut self.functions {
            match states {
                true => columns.extend(function.groups.state(EmitTo::All)?),
                false => columns.push(function.groups.evaluate(EmitTo::All)?),
            }
        }
        self.groups.clear_shrink(0);
        (self.found, self.of_rows) = (Vec::new(), Vec::new());
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }

    /// Each row as the state of a group of its own.
    fn bare(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = self.keys.values(batch)?;
        for function in &self.functions {
            let input = function.input(batch)?;
            columns.extend(function.groups.convert_to_state(&input.arguments, input.filter.as_ref())?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Function {
    fn input(&self, batch: &RecordBatch) -> Result<Input> {
        let array = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(batch.num_rows());
        let filter = self.filter.as_ref().map(array).transpose()?;
        Ok(Input {
            arguments: self.arguments.iter().map(array).collect::<Result<_>>()?,
            filter: filter.map(|filter| filter.as_boolean().clone()),
        })
    }

    /// The states of the runs; `None` when there is no loop that makes them.
    fn states(&self, input: &Input, ends: &[u32]) -> Result<Option<Vec<ArrayRef>>> {
        let (Some((fold, state)), [argument]) = (&self.fold, &input.arguments[..]) else { return Ok(None) };
        let there = argument.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let there = there.map(|nulls| nulls.into_inner());
        let wanted = input.filter.as_ref().map(|filter| match filter.nulls() {
            None => filter.values().clone(),
            Some(nulls) => nulls.inner() & filter.values(),
        });
        let mask: Option<BooleanBuffer> = match (there, wanted) {
            (Some(there), Some(wanted)) => Some(&there & &wanted),
            (there, wanted) => there.or(wanted),
        };
        Ok(fold(argument, state, &Runs { mask: mask.as_ref(), ends }))
    }
}

fn accumulator(function: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if function.groups_accumulator_supported() {
        return function.create_groups_accumulator();
    }
    let function = Arc::clone(function);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}

/// The group of each row from those of the runs.
fn spread(groups: &[usize], ends: &[u32], of_rows: &mut Vec<usize>) {
    for (group, end) in groups.iter().zip(ends) {
        of_rows.resize(*end as usize, *group);
    }
}
