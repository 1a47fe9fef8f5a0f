//! One DataFusion state for the whole process, made once; a statement gets a clone with its session's settings.
//!
//! It has no file formats, no table factories and no object stores: no statement can reach a file or an address.

use super::casts::PgCasts;
use super::distincts::optimizer_rules;
use super::operators::PgOperators;
use super::relations::SetReturningFunctions;
use super::type_names::PgTypes;
use super::unions::UnionTypes;
use super::untyped::UntypedLiterals;
use crate::Settings;
use crate::functions::FUNCTIONS;
use crate::gapfill::{FillGaps, Planner};
use chrono::DateTime;
use datafusion::common::extensions_options;
use datafusion::config::{ConfigExtension, ConfigOptions};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::prelude::SessionConfig;
use std::sync::{Arc, LazyLock};

extensions_options! {
    /// What functions need to know of the session beside its time zone (`execution.time_zone`). Travels with a plan.
    pub struct SqlOptions {
        /// The transaction's `now()`, microseconds since 1970-01-01 UTC (an i64, bit for bit).
        pub now_us: u64, default = 0
    }
}

impl ConfigExtension for SqlOptions {
    const PREFIX: &'static str = "seriatim";
}

static BASE: LazyLock<SessionState> = LazyLock::new(base);

/// A state with all functions, planners and rules, for one statement under `settings`.
pub fn session_state(settings: &Settings) -> SessionState {
    let mut state = BASE.clone();
    *state.config_mut() = config(settings);
    let now = DateTime::from_timestamp_micros(settings.now_us).unwrap_or(DateTime::UNIX_EPOCH);
    // Functions see the configuration that the physical planner finds here.
    let options = Arc::clone(state.config().options());
    let props = state.execution_props_mut();
    props.mark_start_execution(options);
    props.query_execution_start_time = Some(now);
    state
}

/// The configuration of a statement. A node that runs a part of the plan needs the time zone and `SqlOptions` of it.
pub fn config(settings: &Settings) -> SessionConfig {
    static CONFIG: LazyLock<SessionConfig> = LazyLock::new(base_config);
    let mut config = CONFIG.clone();
    let options = config.options_mut();
    options.execution.target_partitions = settings.partitions.max(1);
    options.execution.time_zone = Some(settings.time_zone.clone());
    if let Some(ours) = options.extensions.get_mut::<SqlOptions>() {
        ours.now_us = settings.now_us.cast_unsigned();
    }
    if let Some(schema) = settings.search_path.first() {
        options.catalog.default_schema = schema.clone();
    }
    options.catalog.default_catalog = settings.database.clone();
    config
}

fn base_config() -> SessionConfig {
    let mut options = ConfigOptions::new();
    options.extensions.insert(SqlOptions::default());
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.enable_ident_normalization = true;
    options.catalog.information_schema = false;
    options.catalog.create_default_catalog_and_schema = false;
    options.sql_parser.collect_spans = true;
    // It refuses `SELECT DISTINCT b IS TRUE`: plans disagree about whether that may be NULL.
    options.execution.skip_physical_aggregate_schema_check = true;
    // Rows of one stream stay in their order, as in PostgreSQL: chunks are numbered as an INSERT meets them.
    options.optimizer.enable_round_robin_repartition = false;
    SessionConfig::from(options)
}

fn base() -> SessionState {
    let mut expr_planners: Vec<Arc<dyn datafusion::logical_expr::planner::ExprPlanner>> = vec![Arc::new(PgOperators)];
    expr_planners.extend(SessionStateDefaults::default_expr_planners());
    let analyzer: Vec<Arc<dyn datafusion::optimizer::AnalyzerRule + Send + Sync>> = vec![
        Arc::new(ResolveGroupingFunction::new()),
        Arc::new(UnionTypes),
        Arc::new(UntypedLiterals),
        Arc::new(TypeCoercion::new()),
        Arc::new(PgCasts),
        Arc::new(FillGaps),
    ];
    SessionStateBuilder::new()
        .with_config(base_config())
        .with_runtime_env(runtime())
        .with_expr_planners(expr_planners)
        .with_relation_planners(vec![Arc::new(SetReturningFunctions)])
        .with_type_planner(Arc::new(PgTypes))
        .with_analyzer_rules(analyzer)
        .with_optimizer_rules(optimizer_rules())
        .with_query_planner(Arc::new(Planner))
        .with_scalar_functions(FUNCTIONS.scalars())
        .with_aggregate_functions(FUNCTIONS.aggregates())
        .with_window_functions(FUNCTIONS.windows())
        .build()
}

/// A runtime without any object store.
fn runtime() -> Arc<RuntimeEnv> {
    let runtime = RuntimeEnvBuilder::new().build().expect("the default runtime takes no resource that could fail");
    let files = ObjectStoreUrl::local_filesystem();
    runtime.deregister_object_store(files.as_ref()).expect("the default registry has a file store");
    Arc::new(runtime)
}
