//! The coordinator's door to all of this: prepare a statement, run it, explain it.

use super::attempt::{self, Rows};
use super::context::{QueryContext, Relation, RelationName, Scope};
use super::error::reveal;
use super::execute::{EngineOptions, PARTITIONS_MAX, runtime, task};
use super::explain::{self, Analyzed, ExplainOptions, Explained};
use super::fragment::fragment;
use super::latest;
use super::leading;
use super::marks::{self, Marks};
use super::output::{OutputColumn, output_columns};
use super::pace::{Pace, paced};
use super::prepare::Planner;
use super::provider::HypertableProvider;
use super::stack::{roomy, roomy_future};
use super::target::narrowed;
use super::template::{Instance, Template, Templates};
use super::workers::Workers;
use crate::semantics::{config, session_state};
use crate::{PgType, TableDef};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNode;
use datafusion::datasource::source_as_provider;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::Statement;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use proto::{Clock, Error, Result, SqlState};
use std::sync::Arc;

/// A statement whose names and types are known. Stays valid while its relations keep their shape; `run` plans it anew
/// when they changed.
#[derive(Clone)]
pub struct Prepared {
    statement: Statement,
    plan: LogicalPlan,
    params: Vec<PgType>,
    columns: Vec<OutputColumn>,
    /// The relations it was prepared with.
    used: Vec<(RelationName, Used)>,
    /// What it looked up, for a run in the same breath.
    fresh: Option<Arc<Scope>>,
    templates: Arc<Templates>,
}

impl Prepared {
    /// The types of `$1 …`.
    pub fn params(&self) -> &[PgType] {
        &self.params
    }

    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    /// Whether its relations are what they were when it was prepared.
    pub fn is_current(&self, context: &QueryContext) -> bool {
        unchanged(self, &Scope::new(context))
    }

    /// For whoever runs it again and again, and from other sessions: it keeps nothing of the one that prepared it. `None`
    /// when the plan holds rows that were made as it was planned, such as those of `generate_series`.
    pub fn shared(self) -> Option<Prepared> {
        let held = self.plan.exists(|node| match node {
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                Ok(provider.downcast_ref::<HypertableProvider>().is_none())
            }
            _ => Ok(false),
        });
        let lasting = matches!(held, Ok(false));
        lasting.then(|| Prepared { fresh: None, templates: Arc::new(Templates::expected()), ..self })
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

#[derive(Clone)]
pub struct Engine {
    runtime: Arc<RuntimeEnv>,
    clock: Arc<dyn Clock>,
    /// `None`: queries are computed where their rows are asked for.
    workers: Option<Arc<Workers>>,
}

impl Engine {
    pub fn new(options: &EngineOptions, clock: Arc<dyn Clock>) -> Engine {
        Engine { runtime: runtime(options), clock, workers: None }
    }

    /// Queries are computed on `workers`.
    pub fn on(self, workers: Arc<Workers>) -> Engine {
        Engine { workers: Some(workers), ..self }
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
            let (used, templates) = (scope.used().into_iter().map(used).collect(), Arc::default());
            let fresh = Some(Arc::clone(&scope));
            Ok(Prepared { statement, plan: planned.plan, params, columns, used, fresh, templates })
        })
    }

    /// Runs it at the context's snapshot.
    ///
    /// # Errors
    /// Of planning. Errors of execution come out of the stream.
    pub async fn run(
        &self,
        prepared: &Prepared,
        params: &[ScalarValue],
        context: &QueryContext,
    ) -> Result<QueryResult> {
        let planned = match self.planned_before(prepared, params, context)? {
            Some(planned) => planned,
            None => roomy_future(self.plan(prepared, params, context, Joins::Hashed)).await?,
        };
        let hashes = attempt::hashes(&planned.plan);
        let light = planned.light && !hashes;
        let mut rows = planned.paced()?.rows();
        if hashes {
            let (engine, prepared, context) = (self.clone(), prepared.clone(), context.clone());
            let params = params.to_vec();
            rows = attempt::or_else(rows, move || async move {
                let planned = roomy_future(engine.plan(&prepared, &params, &context, Joins::Merged)).await?;
                match attempt::merges(&planned.plan).map_err(reveal)? {
                    true => Ok(planned.paced()?.rows()),
                    false => Err(Error::unsupported("a merge join by these keys")),
                }
            });
        }
        Ok(QueryResult { columns: prepared.columns.clone(), stream: self.carried(rows, light) })
    }

    /// The rows as they are computed on the workers, from now on; when they are `light`, from when they are not.
    fn carried(&self, rows: Rows, light: bool) -> Rows {
        match &self.workers {
            Some(workers) if light => workers.carry_if_long(rows, Arc::clone(&self.clock)),
            Some(workers) => workers.carry(rows),
            None => rows,
        }
    }

    fn pace(&self) -> Pace {
        Pace { clock: Arc::clone(&self.clock), turn: None }
    }

    /// What `EXPLAIN` shows; with `analyze`, after running it.
    ///
    /// # Errors
    /// As [`Engine::run`]; with `analyze` also the errors of execution.
    pub async fn explain(
        &self,
        prepared: &Prepared,
        params: &[ScalarValue],
        context: &QueryContext,
        options: &ExplainOptions,
    ) -> Result<Explained> {
        let started = self.clock.elapsed();
        let planned = roomy_future(self.plan(prepared, params, context, Joins::Hashed)).await?;
        let planned = planned.paced()?;
        let plan = Arc::clone(&planned.plan);
        let planning = self.clock.elapsed() - started;
        let mut analyzed = None;
        if options.analyze {
            let started = self.clock.elapsed();
            let mut stream = self.carried(planned.rows(), false);
            let mut rows = 0;
            while let Some(batch) = stream.next().await {
                rows += batch?.num_rows();
            }
            analyzed = Some(Analyzed { rows, execution: self.clock.elapsed() - started });
        }
        Ok(explain::explained(plan.as_ref(), planning, analyzed.as_ref(), options))
    }

    /// The plan of a former run with this run's constants, if there is one that fits.
    fn planned_before(
        &self,
        prepared: &Prepared,
        params: &[ScalarValue],
        context: &QueryContext,
    ) -> Result<Option<Planned>> {
        if prepared.templates.is_empty() {
            return Ok(None);
        }
        let scope = Arc::new(scope_for(prepared, context));
        let params = typed(prepared, params)?;
        let Some((template, values)) = prepared.templates.find(&params, &scope) else { return Ok(None) };
        if !unchanged(prepared, &scope) {
            return Ok(None);
        }
        let config = configured(config(&context.settings), &scope);
        let instance = template.instance(&values, &scope, config.options()).map_err(reveal)?;
        Ok(instance.map(|Instance { plan, light }| {
            let task = task(config, &self.runtime, self.pace());
            Planned { plan, task, light }
        }))
    }

    async fn plan(
        &self,
        prepared: &Prepared,
        params: &[ScalarValue],
        context: &QueryContext,
        joins: Joins,
    ) -> Result<Planned> {
        let scope = Arc::new(scope_for(prepared, context));
        let mut state = state(&scope);
        state.config_mut().options_mut().optimizer.prefer_hash_join = joins == Joins::Hashed;
        if prepared.used.iter().any(|(_, used)| matches!(used, Used::Changed(_))) {
            // RETURNING gives rows in the order in which they were changed.
            let options = state.config_mut().options_mut();
            options.optimizer.enable_round_robin_repartition = false;
            options.optimizer.repartition_file_scans = false;
        }
        let logical = match unchanged(prepared, &scope) {
            true => prepared.plan.clone(),
            false => self.planned_anew(prepared, &state, &scope)?,
        };
        let params = typed(prepared, params)?;
        let marked = match joins == Joins::Hashed && prepared.templates.is_wanted() {
            true => marked(&logical, &params, &state, &scope)?,
            false => None,
        };
        let (plan, marks) = match marked {
            Some((analyzed, marks)) => {
                // Analyzed once is enough, and twice would change it: what it made of casts are constants now.
                let analyzed = filled_in(analyzed, params)?;
                let optimized = state.optimizer().optimize(analyzed, &state, |_, _| {}).map_err(reveal)?;
                (state.query_planner().create_physical_plan(&optimized, &state).await.map_err(reveal)?, Some(marks))
            }
            None => {
                let logical = narrowed(filled_in(logical, params)?, &scope).map_err(reveal)?;
                (state.create_physical_plan(&logical).await.map_err(reveal)?, None)
            }
        };
        let push_down = context.settings.push_down;
        let plan = if push_down { latest::mark(plan).and_then(leading::mark).map_err(reveal)? } else { plan };
        let task = task(state.config().clone(), &self.runtime, self.pace());
        if let Some(marks) = marks
            && let Some(template) = Template::new(Arc::clone(&plan), marks, &context.settings)
        {
            prepared.templates.keep(Arc::new(template));
        }
        let plan = fragment(plan, &scope, state.config_options()).map_err(reveal)?;
        Ok(Planned { plan, task, light: false })
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Joins {
    Hashed,
    /// Slower, and never out of memory: sorts spill.
    Merged,
}

struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    /// It is expected to read little.
    light: bool,
}

impl Planned {
    fn paced(self) -> Result<Planned> {
        Ok(Planned { plan: paced(self.plan).map_err(reveal)?, ..self })
    }

    /// Begins when the first is asked for, on the runtime of whoever asks.
    fn rows(self) -> Rows {
        let begun = async move { Ok(execute_stream(self.plan, self.task).map_err(reveal)?.map_err(reveal)) };
        futures::stream::once(begun).try_flatten().boxed()
    }
}

/// DataFusion under the statement's settings. What the cut relies on is set here, whatever `semantics` chose.
fn state(scope: &Arc<Scope>) -> SessionState {
    let mut state = session_state(&scope.context.settings);
    let config = state.config().clone();
    *state.config_mut() = configured(config, scope);
    state
}

fn configured(mut config: SessionConfig, scope: &Arc<Scope>) -> SessionConfig {
    let settings = &scope.context.settings;
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
    config
}

/// Marks the plan's exchangeable constants, if it is one that can be used again.
fn marked(
    plan: &LogicalPlan,
    params: &[ScalarValue],
    state: &SessionState,
    scope: &Scope,
) -> Result<Option<(LogicalPlan, Marks)>> {
    if marks::names_a_day(plan).map_err(reveal)? {
        return Ok(None);
    }
    let analyzed = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {});
    marks::mark(analyzed.map_err(reveal)?, params, scope).map_err(reveal)
}

fn filled_in(plan: LogicalPlan, params: Vec<ScalarValue>) -> Result<LogicalPlan> {
    match params.is_empty() {
        true => Ok(plan),
        false => plan.with_param_values(params).map_err(reveal),
    }
}

/// A statement that is run as it was prepared keeps what it looked up; a later run looks again.
fn scope_for(prepared: &Prepared, context: &QueryContext) -> Scope {
    let same = |fresh: &&Arc<Scope>| (fresh.context.query, fresh.context.snapshot) == (context.query, context.snapshot);
    match prepared.fresh.as_ref().filter(same) {
        Some(fresh) => fresh.continued(context),
        None => Scope::new(context),
    }
}

/// What of a relation a plan depends on.
#[derive(Clone)]
enum Used {
    Table(Arc<TableDef>),
    Target(Arc<TableDef>),
    Changed(SchemaRef),
    View(String),
    Rows(SchemaRef),
}

fn used((name, relation): (RelationName, Relation)) -> (RelationName, Used) {
    let used = match relation {
        Relation::Table { def, .. } => Used::Table(def),
        Relation::Target { def, .. } => Used::Target(def),
        Relation::Changed { schema, .. } => Used::Changed(schema),
        Relation::View { sql } => Used::View(sql),
        Relation::Rows(rows) => Used::Rows(rows.schema()),
    };
    (name, used)
}

fn unchanged(prepared: &Prepared, scope: &Scope) -> bool {
    let same_table =
        |a: &Arc<TableDef>, b: &Arc<TableDef>| Arc::ptr_eq(a, b) || (a.id == b.id && a.columns == b.columns);
    let same = |(name, before): &(RelationName, Used)| match (before, scope.relation(name)) {
        (Used::Table(a), Some(Relation::Table { def: b, .. })) => same_table(a, &b),
        (Used::Target(a), Some(Relation::Target { def: b, .. })) => same_table(a, &b),
        (Used::Changed(a), Some(Relation::Changed { schema: b, .. })) => *a == b,
        (Used::View(a), Some(Relation::View { sql: b })) => *a == b,
        (Used::Rows(a), Some(Relation::Rows(b))) => *a == b.schema(),
        _ => false,
    };
    prepared.used.iter().all(same)
}

/// Parameters in the types the statement gave them.
fn typed(prepared: &Prepared, values: &[ScalarValue]) -> Result<Vec<ScalarValue>> {
    let types = &prepared.params;
    if values.len() != types.len() {
        let message =
            format!("bind message supplies {} parameters, but the statement requires {}", values.len(), types.len());
        return Err(Error::new(SqlState::PROTOCOL_VIOLATION, message));
    }
    let typed = values.iter().zip(types).map(|(value, ty)| value.cast_to(&ty.arrow()));
    typed.collect::<datafusion::common::Result<Vec<_>>>().map_err(reveal)
}

/// Runs a statement without parameters whose hash joins all collect their build side, which is the planner's choice for
/// small ones only. Also gives the cut plan.
#[cfg(test)]
pub(super) async fn run_collecting_builds(
    engine: &Engine,
    prepared: &Prepared,
    context: &QueryContext,
) -> Result<(Arc<dyn ExecutionPlan>, Vec<RecordBatch>)> {
    let scope = Arc::new(scope_for(prepared, context));
    let mut state = state(&scope);
    let optimizer = &mut state.config_mut().options_mut().optimizer;
    optimizer.hash_join_single_partition_threshold = usize::MAX;
    optimizer.hash_join_single_partition_threshold_rows = usize::MAX;
    let plan = state.create_physical_plan(&prepared.plan).await.map_err(reveal)?;
    let plan = fragment(plan, &scope, state.config_options()).map_err(reveal)?;
    let task = task(state.config().clone(), &engine.runtime, engine.pace());
    let rows = execute_stream(Arc::clone(&plan), task).map_err(reveal)?.try_collect().await.map_err(reveal)?;
    Ok((plan, rows))
}

/// The cut plan of a statement without parameters.
#[cfg(test)]
pub(super) async fn physical_plan(
    engine: &Engine,
    prepared: &Prepared,
    context: &QueryContext,
) -> Arc<dyn ExecutionPlan> {
    engine.plan(prepared, &[], context, Joins::Hashed).await.expect("a test's statement can be planned").plan
}

/// How many templates a statement has.
#[cfg(test)]
pub(super) fn templates_count(prepared: &Prepared) -> usize {
    prepared.templates.count()
}
