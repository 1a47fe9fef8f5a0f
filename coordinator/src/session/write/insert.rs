//! INSERT: the source becomes a query that yields every column of the table, in its order and of its type; its batches
//! go straight to the transaction, or through `conflict`. VALUES of constants need no query (`constants`).

use super::assign::{
    Shape, check_literal, check_types, parsed_query, sql_type, target_columns, type_literal, type_parameter,
};
use super::conflict::Conflict;
use super::constants::{Constants, Rows, rows_count};
use super::returning::Returning;
use super::target::{Target, Writing, reads, writable_table};
use super::{Done, Kept};
use crate::session::Session;
use crate::session::define::object_name;
use crate::session::parse::fold;
use crate::session::query::{self, QueryPlan};
use arrow::array::RecordBatch;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Insert, OnInsert, Query, SelectItem, SetExpr, Statement, TableFactor, TableObject, With,
};
use engine::plan::{PlanNode, Title};
use engine::types::TimeContext;
use engine::{ColumnDef, PgType, TableDef};
use futures::StreamExt;
use proto::{Error, Result, SqlState};

pub struct InsertPlan {
    pub target: Target,
    source: Source,
    conflict: Option<Conflict>,
    pub returning: Option<Returning>,
}

#[expect(clippy::large_enum_variant, reason = "kept behind one Arc")]
enum Source {
    Constants(Constants),
    Query {
        plan: QueryPlan,
        /// Whether it reads the table it fills.
        reads_target: bool,
    },
}

impl Source {
    fn params(&self) -> Vec<PgType> {
        match self {
            Source::Constants(constants) => constants.params().to_vec(),
            Source::Query { plan, .. } => plan.params(),
        }
    }
}

/// How the rows may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Shortest,
    /// For EXPLAIN, and as the other way's twin.
    Query,
}

impl InsertPlan {
    /// Of all its parts, in the order in which they were typed: each knows those before it.
    pub fn params(&self) -> Vec<PgType> {
        let conflict = self.conflict.as_ref().and_then(Conflict::params);
        let returning = self.returning.as_ref().map(Returning::params);
        returning.or(conflict).unwrap_or_else(|| self.source.params())
    }

    pub fn may_conflict(&self) -> bool {
        self.conflict.is_some()
    }

    /// Whether ON CONFLICT looked for rows of the key that this message names.
    pub fn looked_for(&self, message: &str) -> bool {
        self.conflict.as_ref().is_some_and(|conflict| conflict.arbitrates(message))
    }

    pub fn constants(&self) -> Option<&Constants> {
        match &self.source {
            Source::Constants(constants) => Some(constants),
            Source::Query { .. } => None,
        }
    }

    /// `None` without one.
    pub fn query(&self) -> Option<&QueryPlan> {
        match &self.source {
            Source::Constants(_) => None,
            Source::Query { plan, .. } => Some(plan),
        }
    }

    /// For EXPLAIN.
    pub fn node(&self) -> PlanNode {
        let mut node = PlanNode::new(Title::new("Insert").on(&self.target.table.name));
        if let Some(conflict) = &self.conflict {
            conflict.tell(&mut node);
        }
        node
    }
}

/// # Errors
/// Unknown table or column, a missing right, a source that does not fit.
pub(super) async fn prepare(
    session: &mut Session,
    insert: &Insert,
    with: Option<&With>,
    declared: &[Option<PgType>],
    way: Way,
) -> Result<InsertPlan> {
    if insert.overwrite || insert.replace_into || insert.ignore {
        return Err(Error::unsupported("this form of INSERT"));
    }
    let TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported("INSERT into a function"));
    };
    let table = writable_table(session, &object_name(name), Writing::Insert).await?;
    let alias = insert.table_alias.as_ref().map_or_else(|| table.name.clone(), |alias| fold(&alias.alias));
    let target = Target { table, alias };
    let targets = target_columns(&target.table, insert.columns.iter().map(|name| object_name(name).1).collect())?;
    let mut declared = declared.to_vec();
    let source = typed_source(insert.source.as_deref(), &targets, &mut declared)?;
    let width = match (&source, &insert.source) {
        (_, None) => 0,
        (Some(width), _) => *width,
        (None, Some(query)) => {
            let query = Query { with: query.with.clone().or(with.cloned()), ..(**query).clone() };
            let plan = query::prepare(session, &Statement::Query(Box::new(query)), &declared).await?;
            check_types(&targets, &plan)?;
            plan.columns().len()
        }
    };
    check_width(width, targets.len(), insert)?;
    if way == Way::Shortest
        && (&insert.on, &insert.returning, with) == (&None, &None, None)
        && let Some(constants) = Constants::of(insert, &target.table, &targets[..width], &declared)
    {
        return Ok(InsertPlan { target, source: Source::Constants(constants), conflict: None, returning: None });
    }
    let mut query = full_rows(&target.table, &targets[..width], insert.source.as_deref(), &mut declared)?;
    query.with = with.cloned();
    let reads_target = reads(session, &query, &target.table).await;
    let plan = query::prepare(session, &Statement::Query(Box::new(query)), &declared).await?;
    let source = Source::Query { plan, reads_target };
    let mut declared = source.params().into_iter().map(Some).collect::<Vec<_>>();
    let conflict = match &insert.on {
        None => None,
        Some(OnInsert::OnConflict(on)) => Some(Conflict::prepare(session, &target, on, &declared).await?),
        Some(_) => return Err(Error::new(SqlState::SYNTAX_ERROR, "ON DUPLICATE KEY is not PostgreSQL's")),
    };
    if let Some(params) = conflict.as_ref().and_then(Conflict::params) {
        declared = params.into_iter().map(Some).collect();
    }
    if insert.returning.is_some() {
        target.check_readable(session).await?;
    }
    let returning = match &insert.returning {
        Some(items) => Some(Returning::prepare(session, items, &target, &[], &declared).await?),
        None => None,
    };
    Ok(InsertPlan { target, source, conflict, returning })
}

/// The width of a VALUES source, whose parameters take the types of their columns on the way.
fn typed_source(
    source: Option<&Query>,
    targets: &[ColumnDef],
    declared: &mut Vec<Option<PgType>>,
) -> Result<Option<usize>> {
    let Some(SetExpr::Values(values)) = source.map(|query| &*query.body) else { return Ok(None) };
    let width = values.rows.first().map_or(0, |row| row.content.len());
    for row in &values.rows {
        if row.content.len() != width {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "VALUES lists must all be the same length"));
        }
        for (expr, target) in row.content.iter().zip(targets) {
            type_parameter(expr, &target.ty, declared);
            check_literal(expr, target)?;
        }
    }
    Ok(Some(width))
}

fn check_width(width: usize, targets: usize, insert: &Insert) -> Result<()> {
    let message = match (width > targets, width < targets && !insert.columns.is_empty() && insert.source.is_some()) {
        (true, _) => "INSERT has more expressions than target columns",
        (_, true) => "INSERT has more target columns than expressions",
        _ => return Ok(()),
    };
    Err(Error::new(SqlState::SYNTAX_ERROR, message))
}

/// `SELECT <every column of the table> FROM (<source>) AS source(c0, …)`.
fn full_rows(
    table: &TableDef,
    targets: &[ColumnDef],
    source: Option<&Query>,
    declared: &mut Vec<Option<PgType>>,
) -> Result<Query> {
    let item = |column: &ColumnDef| {
        let value = match targets.iter().position(|target| target.id == column.id) {
            Some(position) => format!("source.c{position}"),
            None => format!("({})", column.default.as_deref().unwrap_or("NULL")),
        };
        format!("CAST({value} AS {}) AS c", sql_type(&column.ty))
    };
    let items = table.columns.iter().enumerate().map(|(n, column)| format!("{}{n}", item(column)));
    let items = items.collect::<Vec<_>>().join(", ");
    let names = (0..targets.len()).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
    let from = if source.is_some() { format!(" FROM (SELECT 1) AS source({names})") } else { String::new() };
    let mut query = parsed_query(&format!("SELECT {items}{from}"))?;
    if let (Some(source), SetExpr::Select(select)) = (source, &mut *query.body)
        && let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|from| &mut from.relation)
    {
        **subquery = with_typed_literals(source.clone(), targets, declared)?;
    }
    Ok(query)
}

/// Literals of unknown type, and DEFAULT, take the type of the column they go to.
fn with_typed_literals(mut source: Query, targets: &[ColumnDef], declared: &mut Vec<Option<PgType>>) -> Result<Query> {
    match &mut *source.body {
        SetExpr::Values(values) => {
            for row in &mut values.rows {
                for (expr, target) in row.content.iter_mut().zip(targets) {
                    type_literal(expr, target)?;
                }
            }
        }
        SetExpr::Select(select) => {
            for (item, target) in select.projection.iter_mut().zip(targets) {
                match item {
                    SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                        type_parameter(expr, &target.ty, declared);
                        type_literal(expr, target)?;
                    }
                    // Behind a wildcard positions are not known.
                    _ => break,
                }
            }
        }
        _ => {}
    }
    Ok(source)
}

/// # Errors
/// Of the source and of the nodes; the transaction is then to be rolled back.
pub(super) async fn run(
    session: &mut Session,
    insert: &Insert,
    plan: &InsertPlan,
    params: &[ScalarValue],
) -> Result<Done> {
    match &plan.source {
        Source::Constants(constants) => {
            let rows = constant_rows(session, insert, plan, constants, params)?;
            let kept = Kept::new(session, false);
            kept.count(&rows)?;
            let rows = store(session, &plan.target.table, rows).await?;
            Ok(Done { rows, kept })
        }
        Source::Query { plan: query, reads_target } => run_query(session, plan, query, *reads_target, params).await,
    }
}

/// All of the statement's rows: a value that does not fit is found before any row is on its way.
fn constant_rows(
    session: &Session,
    insert: &Insert,
    plan: &InsertPlan,
    constants: &Constants,
    params: &[ScalarValue],
) -> Result<RecordBatch> {
    let table = &plan.target.table;
    let context = TimeContext::of_session(&session.settings())?;
    let mut rows = Rows::new(table, context, rows_count(insert));
    constants.append(insert, table, params, &mut rows)?;
    rows.take(Shape::new(table, context).schema())
}

pub(super) async fn store(session: &mut Session, table: &TableDef, rows: RecordBatch) -> Result<u64> {
    let transaction = session.transaction();
    let mut transaction = transaction.lock().await;
    let count = transaction.write(table, rows).await?;
    if !table.keys.is_empty() {
        transaction.settle().await?;
    }
    Ok(count)
}

async fn run_query(
    session: &mut Session,
    plan: &InsertPlan,
    query: &QueryPlan,
    reads_target: bool,
    params: &[ScalarValue],
) -> Result<Done> {
    let table = &plan.target.table;
    let transaction = session.transaction();
    let collect = plan.conflict.is_some() || (reads_target && transaction.lock().await.has_rows());
    let source_params = &params[..query.params().len()];
    let (_, mut stream) = query::rows(session, query, source_params).await?;
    let shape = Shape::new(table, TimeContext::of_session(&session.settings())?);
    let mut kept = Kept::new(session, plan.returning.is_some());
    if collect {
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = shape.fit(&batch?)?;
            kept.count(&batch)?;
            batches.push(batch);
        }
        if let Some(conflict) = &plan.conflict {
            let rows = super::concat(&shape.schema(), &batches)?;
            return conflict.run(session, &plan.target, rows, params, kept).await;
        }
        stream = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
    }
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = shape.fit(&batch?)?;
        kept.keep(&batch)?;
        rows += transaction.lock().await.write(table, batch).await?;
    }
    if !table.keys.is_empty() {
        transaction.lock().await.settle().await?;
    }
    Ok(Done { rows, kept })
}

/// The rows that a statement is about to store, on whichever way it was planned.
#[cfg(test)]
pub(super) async fn values_both_ways(
    session: &mut Session,
    insert: &Insert,
    plan: &InsertPlan,
    params: &[ScalarValue],
) -> Result<RecordBatch> {
    let query = match &plan.source {
        Source::Constants(constants) => return constant_rows(session, insert, plan, constants, params),
        Source::Query { plan, .. } => plan,
    };
    let (_, mut stream) = query::rows(session, query, &params[..query.params().len()]).await?;
    let shape = Shape::new(&plan.target.table, TimeContext::of_session(&session.settings())?);
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        batches.push(shape.fit(&batch?)?);
    }
    super::concat(&shape.schema(), &batches)
}
