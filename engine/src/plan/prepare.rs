//! Statement → logical plan: names are resolved through the session's relations, views are planned where they are
//! named, parameters get types.

use super::context::{Relation, RelationName, Scope};
use super::error::{hide, reveal};
use super::provider::{HypertableProvider, RowsProvider};
use super::stack::roomy;
use super::target::ChangedRows;
use crate::semantics::rewrite;
use crate::{PgType, Settings};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, TableReference, plan_datafusion_err};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use proto::{Error, SqlState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// Views may name views this deep.
const VIEW_DEPTH_MAX: usize = 32;
/// PostgreSQL's limit on `$n` comes from its 16-bit count.
const PARAMETERS_MAX: usize = u16::MAX as usize;

/// The state's own type planner; a state has no other way to tell.
static TYPES: LazyLock<Option<Arc<dyn TypePlanner>>> = LazyLock::new(|| {
    let state = crate::semantics::session_state(&Settings::default());
    SessionStateBuilder::from(state).type_planner().clone()
});

pub(super) struct Planner<'a> {
    state: &'a SessionState,
    scope: &'a Scope,
    relations: Vec<Arc<dyn RelationPlanner>>,
    /// How many views we are inside of.
    depth: AtomicUsize,
}

/// A plan that may still have parameters, and their types in order.
pub(super) struct Planned {
    pub plan: LogicalPlan,
    pub params: Vec<PgType>,
}

impl<'a> Planner<'a> {
    pub fn new(state: &'a SessionState, scope: &'a Scope) -> Planner<'a> {
        let mut relations = state.relation_planners().to_vec();
        relations.push(Arc::new(ChangedRows));
        Planner { state, scope, relations, depth: AtomicUsize::new(0) }
    }

    /// # Errors
    /// `INDETERMINATE_DATATYPE` for a parameter that appears with a hole in the numbering.
    pub fn plan(&self, statement: Statement, param_types: &[Option<PgType>]) -> proto::Result<Planned> {
        let plan = self.logical(statement, param_types).map_err(reveal)?;
        let params = parameters(&plan, param_types).map_err(reveal)??;
        let plan = typed(plan, &params).map_err(reveal)?;
        Ok(Planned { plan, params })
    }

    fn logical(&self, mut statement: Statement, param_types: &[Option<PgType>]) -> Result<LogicalPlan> {
        rewrite(&mut statement, &self.scope.context.settings).map_err(hide)?;
        let options = ParserOptions::from(&self.state.config_options().sql_parser);
        let types = param_types.iter().map(|ty| ty.as_ref().map(field_of)).collect();
        let mut context = PlannerContext::new().with_prepare_param_data_types(types);
        SqlToRel::new_with_options(self, options).sql_statement_to_plan_with_context(statement, &mut context)
    }

    fn view(&self, name: &RelationName, sql: &str) -> Result<LogicalPlan> {
        if self.depth.fetch_add(1, Ordering::Relaxed) >= VIEW_DEPTH_MAX {
            let message = format!("view \"{}\" is nested more than {VIEW_DEPTH_MAX} deep", name.1);
            return Err(hide(Error::new(SqlState::STATEMENT_TOO_COMPLEX, message)));
        }
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql)?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(hide(Error::internal(format!("view \"{}\" is not one query", name.1))));
        };
        let plan = roomy(|| self.logical(statement, &[]));
        self.depth.fetch_sub(1, Ordering::Relaxed);
        plan
    }
}

fn field_of(ty: &PgType) -> FieldRef {
    Arc::new(ty.field("", true))
}

/// `$1` → 0.
pub(super) fn position(id: &str) -> Option<usize> {
    id.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1).filter(|n| *n < PARAMETERS_MAX)
}

/// The types of `$1 …` as declared, else as the plan implies them, else text, as PostgreSQL resolves `unknown`.
fn parameters(plan: &LogicalPlan, declared: &[Option<PgType>]) -> Result<proto::Result<Vec<PgType>>> {
    let mut types: Vec<Option<PgType>> = declared.to_vec();
    for (id, field) in plan.get_parameter_fields()? {
        let Some(position) = position(&id) else {
            let message = format!("there is no parameter {id}");
            return Ok(Err(Error::new(SqlState::UNDEFINED_PARAMETER, message)));
        };
        if types.len() <= position {
            types.resize(position + 1, None);
        }
        let implied = field.and_then(|field| PgType::from_field(&field));
        let own = &mut types[position];
        *own = own.take().or(Some(implied.unwrap_or(PgType::Text)));
    }
    let hole = types.iter().position(Option::is_none);
    Ok(match hole {
        Some(position) if position >= declared.len() => {
            let message = format!("could not determine data type of parameter ${}", position + 1);
            Err(Error::new(SqlState::INDETERMINATE_DATATYPE, message))
        }
        _ => Ok(types.into_iter().map(|ty| ty.unwrap_or(PgType::Text)).collect()),
    })
}

/// Writes the decided types into the placeholders.
fn typed(plan: LogicalPlan, params: &[PgType]) -> Result<LogicalPlan> {
    if params.is_empty() {
        return Ok(plan);
    }
    let decide = |expr: Expr| match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let ty = position(&id).and_then(|position| params.get(position));
            let field = ty.map(field_of);
            Ok(Transformed::yes(Expr::Placeholder(Placeholder { id, field })))
        }
        other => Ok(Transformed::no(other)),
    };
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let changed = node.map_expressions(|expr| expr.transform_up(decide))?;
        match changed.transformed {
            true => changed.map_data(LogicalPlan::recompute_schema),
            false => Ok(changed),
        }
    });
    Ok(rewritten?.data)
}

impl ContextProvider for Planner<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let relation: RelationName = (name.schema().map(str::to_owned), name.table().to_owned());
        match self.scope.relation(&relation) {
            Some(Relation::Table { def, .. }) => {
                Ok(provider_as_source(Arc::new(HypertableProvider::new(relation, def))))
            }
            Some(Relation::Target { def, .. }) => {
                Ok(provider_as_source(Arc::new(HypertableProvider::with_addresses(relation, def))))
            }
            Some(Relation::Changed { schema, .. }) => {
                Ok(provider_as_source(Arc::new(RowsProvider::new(relation, schema))))
            }
            Some(Relation::Rows(rows)) => Ok(provider_as_source(Arc::new(RowsProvider::new(relation, rows.schema())))),
            Some(Relation::View { sql }) => {
                let plan = self.view(&relation, &sql)?;
                Ok(provider_as_source(Arc::new(datafusion::datasource::ViewTable::new(plan, Some(sql)))))
            }
            None => {
                let full = match &relation.0 {
                    Some(schema) => format!("{schema}.{}", relation.1),
                    None => relation.1,
                };
                let message = format!("relation \"{full}\" does not exist");
                Err(hide(Error::new(SqlState::UNDEFINED_TABLE, message)))
            }
        }
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let function = self.state.table_functions().get(name).cloned();
        let function = function.ok_or_else(|| plan_datafusion_err!("table function '{name}' not found"))?;
        let start = self.state.execution_props().query_execution_start_time;
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(start)
            .build();
        let (simplifier, schema) = (ExprSimplifier::new(context), DFSchema::empty());
        let fold = |arg| simplifier.coerce(arg, &schema).and_then(|arg| simplifier.simplify(arg));
        let args = args.into_iter().map(fold).collect::<Result<Vec<_>>>()?;
        let provider = function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state))?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        TYPES.clone()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
