//! The coordinator's door to all of this: prepare a statement, run it, explain it.

use super::context::{QueryContext, Relation, RelationName, Scope};
use super::error::reveal;
use super::execute::{EngineOptions, PARTITIONS_MAX, runtime};
use super::explain::{self, Analyzed};
use super::fragment::fragment;
use super::latest;
use super::prepare::Planner;
use super::stack::{roomy, roomy_future};
use super::target::narrowed;
use crate::semantics::session_state;
use crate::{PgType, TableDef};
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, FieldRef};
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::sqlparser::ast::Statement;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use proto::data_node::FIELD_ID;
use proto::{Clock, ColumnId, Error, Result, SqlState, TableId};
use std::sync::Arc;

/// A column of a result, as a RowDescription needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputColumn {
    pub name: String,
    pub ty: PgType,
    /// The name its relation has in the statement; `None` for a computed column.
    pub relation: Option<String>,
    /// Set when the column is one of a table's, unchanged.
    pub table: Option<TableId>,
    pub column: Option<ColumnId>,
}

/// A statement whose names and types are known. Stays valid while its relations keep their shape; `run` plans it anew
/// when they changed.
pub struct Prepared {
    statement: Statement,
    plan: LogicalPlan,
    params: Vec<PgType>,
    columns: Vec<OutputColumn>,
    scope: Arc<Scope>,
}

impl Prepared {
    /// The types of `$1 …`.
    pub fn params(&self) -> &[PgType] {
        &self.params
    }

    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }
}

pub struct QueryResult {
    pub columns: Vec<OutputColumn>,
    /// Dropping it cancels the query on every node.
    pub stream: BoxStream<'static, Result<RecordBatch>>,
}

/// Memory a statement takes beside its plans, out of what all queries of the process share. Given back when dropped.
pub struct Memory(MemoryReservation);

impl Memory {
    /// # Errors
    /// `OUT_OF_MEMORY` when there is not as much left.
    pub fn grow(&self, bytes: usize) -> Result<()> {
        self.0.try_grow(bytes).map_err(reveal)
    }
}

pub struct Engine {
    runtime: Arc<RuntimeEnv>,
    clock: Arc<dyn Clock>,
}

impl Engine {
    pub fn new(options: &EngineOptions, clock: Arc<dyn Clock>) -> Engine {
        Engine { runtime: runtime(options), clock }
    }

    /// `holder` names the memory in an error about its limit.
    pub fn memory(&self, holder: &str) -> Memory {
        Memory(MemoryConsumer::new(holder).register(&self.runtime.memory_pool))
    }

    /// Plans a `SELECT`, `VALUES` or `WITH`. `param_types` are the types the client declared.
    ///
    /// # Errors
    /// What PostgreSQL reports when it analyses a statement: unknown relations, columns, functions, wrong types.
    pub fn prepare(
        &self,
        statement: &Statement,
        param_types: &[Option<PgType>],
        context: &QueryContext,
    ) -> Result<Prepared> {
        if !matches!(statement, Statement::Query(_)) {
            return Err(Error::internal("only queries are planned here"));
        }
        let scope = Arc::new(Scope::new(context));
        let state = state(&scope);
        roomy(|| {
            let planned = Planner::new(&state, &scope).plan(statement.clone(), param_types)?;
            let columns = output_columns(&state, &planned.plan, &scope)?;
            let (statement, params) = (statement.clone(), planned.params);
            Ok(Prepared { statement, plan: planned.plan, params, columns, scope: Arc::clone(&scope) })
        })
    }

    /// Runs it at the context's snapshot, on the calling runtime.
    ///
    /// # Errors
    /// Of planning. Errors of execution come out of the stream.
    pub async fn run(
        &self,
        prepared: &Prepared,
        params: &[ScalarValue],
        context: &QueryContext,
    ) -> Result<QueryResult> {
        let planned = roomy_future(self.plan(prepared, params, context)).await?;
        let stream = execute_stream(planned.plan, planned.task).map_err(reveal)?;
        Ok(QueryResult { columns: prepared.columns.clone(), stream: stream.map_err(reveal).boxed() })
    }

    /// The lines of `EXPLAIN`; with `analyze`, after running it.
    ///
    /// # Errors
    /// As [`Engine::run`]; with `analyze` also the errors of execution.
    pub async fn explain(
        &self,
        prepared: &Prepared,
        params: &[ScalarValue],
        context: &QueryContext,
        analyze: bool,
        verbose: bool,
    ) -> Result<Vec<String>> {
        let started = self.clock.elapsed();
        let planned = roomy_future(self.plan(prepared, params, context)).await?;
        let planning = self.clock.elapsed() - started;
        let mut analyzed = None;
        if analyze {
            let started = self.clock.elapsed();
            let mut stream = execute_stream(Arc::clone(&planned.plan), planned.task).map_err(reveal)?;
            let mut rows = 0;
            while let Some(batch) = stream.next().await {
                rows += batch.map_err(reveal)?.num_rows();
            }
            analyzed = Some(Analyzed { rows, planning, execution: self.clock.elapsed() - started });
        }
        Ok(explain::lines(planned.plan.as_ref(), analyzed.as_ref(), verbose))
    }

    async fn plan(&self, prepared: &Prepared, params: &[ScalarValue], context: &QueryContext) -> Result<Planned> {
        let scope = Arc::new(scope_for(prepared, context));
        let mut state = state(&scope);
        if prepared.scope.used().iter().any(|(_, relation)| matches!(relation, Relation::Changed { .. })) {
            // RETURNING gives rows in the order in which they were changed.
            let options = state.config_mut().options_mut();
            options.optimizer.enable_round_robin_repartition = false;
            options.optimizer.repartition_file_scans = false;
        }
        let logical = match unchanged(prepared, &scope) {
            true => prepared.plan.clone(),
            false => self.planned_anew(prepared, &state, &scope)?,
        };
        let logical = with_values(logical, &prepared.params, params)?;
        let logical = narrowed(logical, &scope).map_err(reveal)?;
        let plan = state.create_physical_plan(&logical).await.map_err(reveal)?;
        let push_down = context.settings.push_down;
        let plan = if push_down { latest::mark(plan).map_err(reveal)? } else { plan };
        let plan = fragment(plan, push_down, state.config_options()).map_err(reveal)?;
        let task = TaskContext::from(&state).with_runtime(Arc::clone(&self.runtime));
        Ok(Planned { plan, task: Arc::new(task) })
    }

    fn planned_anew(&self, prepared: &Prepared, state: &SessionState, scope: &Scope) -> Result<LogicalPlan> {
        let types = prepared.params.iter().cloned().map(Some).collect::<Vec<_>>();
        let planned = Planner::new(state, scope).plan(prepared.statement.clone(), &types)?;
        let same_shape = |a: &OutputColumn, b: &OutputColumn| a.name == b.name && a.ty == b.ty;
        let columns = output_columns(state, &planned.plan, scope)?;
        let same = columns.len() == prepared.columns.len()
            && columns.iter().zip(&prepared.columns).all(|(a, b)| same_shape(a, b));
        match same {
            true => Ok(planned.plan),
            false => Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type")),
        }
    }
}

struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
}

/// DataFusion under the statement's settings. What the cut relies on is set here, whatever `semantics` chose.
fn state(scope: &Arc<Scope>) -> SessionState {
    let settings = &scope.context.settings;
    let mut state = session_state(settings);
    let config = state.config_mut();
    config.set_extension(Arc::clone(scope));
    let options = config.options_mut();
    // At least two, or there would be no exchanges to cut at.
    options.execution.target_partitions = settings.partitions.clamp(2, PARTITIONS_MAX);
    options.optimizer.prefer_existing_union = true;
    // They are filled in while the plan runs, in one process.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    state
}

/// A statement that is run as it was prepared keeps what it looked up; a later run looks again.
fn scope_for(prepared: &Prepared, context: &QueryContext) -> Scope {
    let before = &prepared.scope.context;
    match (before.query, before.snapshot) == (context.query, context.snapshot) {
        true => prepared.scope.continued(context),
        false => Scope::new(context),
    }
}

fn unchanged(prepared: &Prepared, scope: &Scope) -> bool {
    let same_table =
        |a: &Arc<TableDef>, b: &Arc<TableDef>| Arc::ptr_eq(a, b) || (a.id == b.id && a.columns == b.columns);
    let same = |(name, before): (RelationName, Relation)| match (before, scope.relation(&name)) {
        (Relation::Table { def: a, .. }, Some(Relation::Table { def: b, .. })) => same_table(&a, &b),
        (Relation::Target { def: a, .. }, Some(Relation::Target { def: b, .. })) => same_table(&a, &b),
        (Relation::Changed { schema: a, .. }, Some(Relation::Changed { schema: b, .. })) => a == b,
        (Relation::View { sql: a }, Some(Relation::View { sql: b })) => a == b,
        (Relation::Rows(a), Some(Relation::Rows(b))) => a.schema() == b.schema(),
        _ => false,
    };
    prepared.scope.used().into_iter().all(same)
}

fn with_values(plan: LogicalPlan, types: &[PgType], values: &[ScalarValue]) -> Result<LogicalPlan> {
    if values.len() != types.len() {
        let message =
            format!("bind message supplies {} parameters, but the statement requires {}", values.len(), types.len());
        return Err(Error::new(SqlState::PROTOCOL_VIOLATION, message));
    }
    if types.is_empty() {
        return Ok(plan);
    }
    let typed = values.iter().zip(types).map(|(value, ty)| value.cast_to(&ty.arrow()));
    let typed = typed.collect::<datafusion::common::Result<Vec<_>>>().map_err(reveal)?;
    plan.with_param_values(typed).map_err(reveal)
}

/// The schema after type coercion, which is the one the rows will have.
fn output_columns(state: &SessionState, plan: &LogicalPlan, scope: &Scope) -> Result<Vec<OutputColumn>> {
    let analyzed = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {});
    let analyzed = analyzed.map_err(reveal)?;
    let origins = origins(&analyzed, scope);
    let names = crate::semantics::output_columns(analyzed.schema().as_arrow());
    let fields = analyzed.schema().iter().zip(names).zip(origins);
    let output_column = |((qualified, name), origin): (((Option<&TableReference>, &FieldRef), String), _)| {
        let (relation, field) = qualified;
        let ty = PgType::from_field(field);
        let ty = ty.ok_or_else(|| Error::unsupported(format!("a result column of type {}", field.data_type())))?;
        let (table, column) = Option::unzip(origin);
        Ok(OutputColumn { name, ty, relation: relation.map(|relation| relation.table().to_owned()), table, column })
    };
    fields.map(output_column).collect()
}

/// For output columns that are a table's, which one. Only looks through the outermost projections; elsewhere a field
/// that still carries a column id was passed through unchanged, but its table is not told.
fn origins(plan: &LogicalPlan, scope: &Scope) -> Vec<Option<(TableId, ColumnId)>> {
    let tables: Vec<_> = scope.used().into_iter().filter_map(|(_, relation)| relation.table().cloned()).collect();
    let origin = |column: Column, field: &Field| {
        let id = ColumnId(field.metadata().get(FIELD_ID)?.parse().ok()?);
        let [table] = &tables[..] else { return None };
        let known = table.column_by_id(id)?;
        (known.name == column.name || column.relation.is_none()).then_some((table.id, id))
    };
    let columns = plan.schema().columns();
    columns.into_iter().zip(plan.schema().fields()).map(|(column, field)| origin(column, field)).collect()
}

/// The cut plan of a statement without parameters.
#[cfg(test)]
pub(super) async fn physical_plan(
    engine: &Engine,
    prepared: &Prepared,
    context: &QueryContext,
) -> Arc<dyn ExecutionPlan> {
    engine.plan(prepared, &[], context).await.expect("a test's statement can be planned").plan
}
