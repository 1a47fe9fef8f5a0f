//! SELECT: catalog queries go to `pgcatalog`, all others to the engine.

use super::Session;
use super::parse::{Command, Parsed, parse};
use super::relations::{Own, StatementRelations, find, is_bound};
use crate::catalog::{CatalogState, Relation as Found};
use crate::pg::backend::{Outcome, OutputColumn, RowStream, Tag};
use crate::pgcatalog::{self, Functions, Value};
use crate::session::System;
use crate::timescale::{self, Host};
use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Expr, LimitClause, Statement, Value as Literal, visit_expressions, visit_relations,
};
use engine::PgType;
use engine::plan::{ExplainOptions, Explained, Nodes, PlanNode, Prepared, QueryContext, Title};
use futures::StreamExt;
use proto::{DataNode, Error, NodeAddress, NodeIdentity, NodeName, Result, SqlState};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

#[expect(clippy::large_enum_variant, reason = "kept behind one Arc")]
pub(super) enum QueryPlan {
    /// Answered from the catalogs, row by row.
    Catalog {
        statement: Box<Statement>,
        params: Vec<PgType>,
        columns: Vec<OutputColumn>,
    },
    Engine {
        prepared: Prepared,
        columns: Vec<OutputColumn>,
    },
}

impl QueryPlan {
    pub fn params(&self) -> Vec<PgType> {
        match self {
            QueryPlan::Catalog { params, .. } => params.clone(),
            QueryPlan::Engine { prepared, .. } => prepared.params().to_vec(),
        }
    }

    pub fn columns(&self) -> Vec<OutputColumn> {
        match self {
            QueryPlan::Catalog { columns, .. } | QueryPlan::Engine { columns, .. } => columns.clone(),
        }
    }
}

/// # Errors
/// What PostgreSQL reports when it analyses a query.
pub(super) async fn prepare(
    session: &mut Session,
    statement: &Statement,
    declared: &[Option<PgType>],
) -> Result<QueryPlan> {
    prepare_with(session, statement, declared, &Own::default()).await
}

/// With relations of the statement's own.
pub(super) async fn prepare_with(
    session: &mut Session,
    statement: &Statement,
    declared: &[Option<PgType>],
    own: &Own,
) -> Result<QueryPlan> {
    prepared(session, statement, declared, own).await.map(|(plan, _)| plan)
}

/// A plan that does not depend on who asks. `None` for catalog queries, and for those that name the session.
///
/// # Errors
/// As [`prepare`].
pub(super) async fn prepare_shared(
    session: &mut Session,
    statement: &Statement,
    declared: &[Option<PgType>],
) -> Result<Option<QueryPlan>> {
    let (plan, names_session) = prepared(session, statement, declared, &Own::default()).await?;
    Ok(match plan {
        QueryPlan::Engine { prepared, columns } if !names_session => {
            prepared.shared().map(|prepared| QueryPlan::Engine { prepared, columns })
        }
        _ => None,
    })
}

/// Whether a plan's relations are what they were when it was made.
pub(super) async fn is_current(session: &mut Session, catalog: &Arc<CatalogState>, plan: &QueryPlan) -> bool {
    let QueryPlan::Engine { prepared, .. } = plan else { return false };
    let context = context(session, catalog, &Own::default()).await;
    context.is_ok_and(|(context, _)| prepared.is_current(&context))
}

/// Also: whether anything of it was replaced by what it is in this session.
async fn prepared(
    session: &mut Session,
    statement: &Statement,
    declared: &[Option<PgType>],
    own: &Own,
) -> Result<(QueryPlan, bool)> {
    let catalog = session.catalog().await;
    if own.is_empty() && is_catalog_query(session, &catalog, statement) {
        let declared = declared.iter().map(|ty| ty.clone().unwrap_or(PgType::Unknown)).collect::<Vec<_>>();
        let description = pgcatalog::describe(statement, &timescale::Known, &declared)?;
        let params = description.params;
        let columns = description.columns.into_iter().map(|(name, ty)| OutputColumn::computed(name, ty)).collect();
        return Ok((QueryPlan::Catalog { statement: Box::new(statement.clone()), params, columns }, true));
    }
    let (context, relations) = context(session, &catalog, own).await?;
    let mut folded = statement.clone();
    let mut declared = declared.to_vec();
    type_parameters(session, &catalog, own, &folded, &mut declared);
    let system = System::new(session, catalog.clone());
    pgcatalog::fold_constant_calls(&mut folded, &system)?;
    let prepared = session.front.engine.prepare(&folded, &declared, &context)?;
    relations.check_readable(session.current_user())?;
    let columns = prepared.columns().iter().map(|column| output_column(&catalog, column)).collect();
    Ok((QueryPlan::Engine { prepared, columns }, folded != *statement))
}

/// `$1::int` says that the parameter is an integer, `column = ANY ($1)` that it is an array of the column's type; the
/// planner asks for both too late.
fn type_parameters(
    session: &Session,
    catalog: &CatalogState,
    own: &Own,
    statement: &Statement,
    declared: &mut Vec<Option<PgType>>,
) {
    let path = session.variables.search_path(session.current_user());
    let mut columns: BTreeMap<String, PgType> = BTreeMap::new();
    let _: ControlFlow<()> = visit_relations(statement, |name| {
        let (schema, name) = super::define::object_name(name);
        if let Some(Found::Table(table)) = find(catalog, &session.database, &path, schema.as_deref(), &name) {
            columns.extend(table.columns.iter().map(|column| (column.name.clone(), column.ty.clone())));
        }
        ControlFlow::Continue(())
    });
    for table in own.iter().filter_map(|(_, relation)| relation.table()) {
        columns.extend(table.columns.iter().map(|column| (column.name.clone(), column.ty.clone())));
    }
    if let Statement::Query(query) = statement
        && let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause
    {
        limit.iter().for_each(|expr| declare(expr, PgType::Int8, declared));
        offset.iter().for_each(|offset| declare(&offset.value, PgType::Int8, declared));
    }
    let _: ControlFlow<()> = visit_expressions(statement, |expr| {
        if let Expr::Cast { expr, data_type, .. } = expr
            && let Ok(ty) = super::define::column_type(data_type)
        {
            declare(expr, ty, declared);
        }
        let Expr::AnyOp { left, right, .. } = expr else { return ControlFlow::Continue(()) };
        let name = match &**left {
            Expr::Identifier(ident) => Some(super::parse::fold(ident)),
            Expr::CompoundIdentifier(idents) => idents.last().map(super::parse::fold),
            _ => None,
        };
        let right = match &**right {
            Expr::Nested(inner) => inner,
            plain => plain,
        };
        if let Some(ty) = name.and_then(|name| columns.get(&name)) {
            declare(right, PgType::Array(Box::new(ty.clone())), declared);
        }
        ControlFlow::Continue(())
    });
}

pub(super) fn declare(expr: &Expr, ty: PgType, declared: &mut Vec<Option<PgType>>) {
    let Expr::Value(value) = expr else { return };
    let Literal::Placeholder(id) = &value.value else { return };
    let position = id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).filter(|n| (1..=65_535).contains(n));
    let Some(position) = position else { return };
    if declared.len() < position {
        declared.resize(position, None);
    }
    declared[position - 1].get_or_insert(ty);
}

fn is_catalog_query(session: &Session, catalog: &CatalogState, statement: &Statement) -> bool {
    let path = session.variables.search_path(session.current_user());
    let is_user = |schema: Option<&str>, name: &str| {
        schema.is_some_and(is_bound) || find(catalog, &session.database, &path, schema, name).is_some()
    };
    pgcatalog::handles(statement, &is_user, &|name: &str| timescale::Known.signature(None, name).is_some())
}

fn output_column(catalog: &CatalogState, column: &engine::plan::OutputColumn) -> OutputColumn {
    let place = column.table.zip(column.column).and_then(|(table, id)| {
        let Found::Table(def) = catalog.relation_by_id(table)? else { return None };
        def.columns.iter().position(|column| column.id == id)
    });
    OutputColumn {
        name: column.name.clone(),
        ty: column.ty.clone(),
        table_oid: place.and(column.table).map_or(0, |table| table.0),
        attnum: place.map_or(0, |place| place as i16 + 1),
    }
}

/// The nodes as the engine asks for them.
struct ClusterNodes(Arc<crate::txn::Cluster>);

impl Nodes for ClusterNodes {
    fn node(&self, name: &NodeName) -> Result<Arc<dyn DataNode>> {
        self.0.nodes().get(name)
    }

    fn addresses(&self, names: &[NodeName]) -> Option<Vec<NodeAddress>> {
        if !self.0.nodes().are_connected(names) {
            return None;
        }
        let catalog = self.0.catalog();
        let address = |name: &NodeName| {
            let identity = NodeIdentity { cluster: self.0.id(), name: name.clone() };
            Some(NodeAddress { identity, address: catalog.node(name).ok()?.address() })
        };
        names.iter().map(address).collect()
    }
}

/// One statement's view of the world.
async fn context(
    session: &mut Session,
    catalog: &Arc<CatalogState>,
    own: &Own,
) -> Result<(QueryContext, Arc<StatementRelations<System>>)> {
    let settings = session.settings();
    let (snapshot, txn) = session.snapshot().await?;
    let system = System::new(session, catalog.clone());
    let relations = StatementRelations::new(catalog.clone(), &session.database, settings.search_path.clone(), system);
    let relations = Arc::new(relations.with_own(own.clone()));
    let context = QueryContext {
        settings,
        relations: relations.clone(),
        nodes: Arc::new(ClusterNodes(session.front.cluster.clone())),
        snapshot,
        txn,
        query: session.front.next_query(),
    };
    Ok((context, relations))
}

/// # Errors
/// Of planning and of starting; later errors come out of the stream.
pub(super) async fn run(
    session: &mut Session,
    plan: &QueryPlan,
    params: &[ScalarValue],
    columns: Option<Arc<[OutputColumn]>>,
) -> Result<Outcome> {
    let (described, stream) = rows(session, plan, params).await?;
    Ok(Outcome::Rows { columns: columns.unwrap_or(described), stream, tag: Tag::Counted("SELECT".into()) })
}

/// The rows of a prepared query, for whoever consumes them: the client, a cursor, an INSERT, a COPY.
pub(super) async fn rows(
    session: &mut Session,
    plan: &QueryPlan,
    params: &[ScalarValue],
) -> Result<(Arc<[OutputColumn]>, RowStream)> {
    rows_with(session, plan, params, &Own::default()).await
}

/// As [`rows`], of a query prepared with relations of the statement's own.
pub(super) async fn rows_with(
    session: &mut Session,
    plan: &QueryPlan,
    params: &[ScalarValue],
    own: &Own,
) -> Result<(Arc<[OutputColumn]>, RowStream)> {
    match plan {
        QueryPlan::Catalog { statement, columns, params: types } => {
            let values = params.iter().map(value_of).collect::<Result<Vec<_>>>()?;
            let rows = timescale::with_host(session, |system, host: &mut Host<'_>| {
                pgcatalog::execute(statement, system, host, types, &values)
            })
            .await?;
            let batch = rows.to_batch()?;
            Ok((columns.clone().into(), futures::stream::iter([Ok(batch)]).boxed()))
        }
        QueryPlan::Engine { prepared, columns } => {
            let catalog = session.catalog().await;
            let (context, relations) = context(session, &catalog, own).await?;
            let result = session.front.engine.run(prepared, params, &context).await?;
            relations.check_readable(session.current_user())?;
            Ok((columns.clone().into(), result.stream))
        }
    }
}

/// A parameter as the catalog executor takes it.
fn value_of(scalar: &ScalarValue) -> Result<Value> {
    Ok(match scalar {
        scalar if scalar.is_null() => Value::Null,
        ScalarValue::Boolean(Some(value)) => Value::Bool(*value),
        ScalarValue::Int16(Some(value)) => Value::Int(i64::from(*value)),
        ScalarValue::Int32(Some(value)) => Value::Int(i64::from(*value)),
        ScalarValue::Int64(Some(value)) => Value::Int(*value),
        ScalarValue::UInt32(Some(value)) => Value::Int(i64::from(*value)),
        ScalarValue::Float32(Some(value)) => Value::Float(f64::from(*value)),
        ScalarValue::Float64(Some(value)) => Value::Float(*value),
        ScalarValue::Decimal128(Some(value), _, scale) if *scale >= 0 => Value::Numeric(*value, scale.unsigned_abs()),
        ScalarValue::Utf8(Some(text)) => Value::text(text),
        ScalarValue::TimestampMicrosecond(Some(us), _) => Value::Timestamp(*us),
        ScalarValue::Date32(Some(days)) => Value::Date(*days),
        ScalarValue::Time64Microsecond(Some(us)) => Value::Time(*us),
        ScalarValue::List(list) => {
            let items = list.value(0);
            let scalars = (0..items.len()).map(|row| ScalarValue::try_from_array(&items, row));
            let values = scalars.map(|scalar| value_of(&scalar.map_err(|error| Error::internal(error.to_string()))?));
            Value::array(values.collect::<Result<Vec<_>>>()?)
        }
        other => {
            return Err(Error::unsupported(format!("a parameter of type {} in a catalog query", other.data_type())));
        }
    })
}

/// Prepares and runs a query without parameters.
pub(super) async fn rows_of(session: &mut Session, statement: &Statement) -> Result<(Arc<[OutputColumn]>, RowStream)> {
    let plan = prepare(session, statement, &[]).await?;
    if !plan.params().is_empty() {
        return Err(Error::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1"));
    }
    rows(session, &plan, &[]).await
}

/// The types of the columns that a query over tables and views yields, whoever may read them.
///
/// # Errors
/// As [`prepare`].
pub(super) async fn columns_of(session: &mut Session, sql: &str) -> Result<Vec<PgType>> {
    let Some(Parsed { command: Command::Sql(statement), .. }) = parse(sql)?.pop() else {
        return Err(Error::internal("not a query"));
    };
    let catalog = session.catalog().await;
    let (context, _) = context(session, &catalog, &Own::default()).await?;
    let prepared = session.front.engine.prepare(&statement, &[], &context)?;
    Ok(prepared.columns().iter().map(|column| column.ty.clone()).collect())
}

/// `CALL`: the function's effects, and none of its rows.
pub(super) async fn call(session: &mut Session, statement: &Statement) -> Result<Outcome> {
    timescale::with_host(session, |system, host: &mut Host<'_>| {
        pgcatalog::execute(statement, system, host, &[], &[]).map(|_| ())
    })
    .await?;
    Ok(Outcome::Done { tag: "CALL".to_owned() })
}

/// The plan of a query; with `analyze`, after running it.
///
/// # Errors
/// As [`run`].
pub(super) async fn explained(
    session: &mut Session,
    plan: &QueryPlan,
    params: &[ScalarValue],
    own: &Own,
    options: &ExplainOptions,
) -> Result<Explained> {
    if let QueryPlan::Engine { prepared, .. } = plan {
        let catalog = session.catalog().await;
        let (context, _) = context(session, &catalog, own).await?;
        return session.front.engine.explain(prepared, params, &context, options).await;
    }
    let mut explained =
        Explained { root: PlanNode::new(Title::new("Catalog Scan")), planning: Duration::ZERO, execution: None };
    if options.analyze {
        let started = session.front.clock.elapsed();
        let (_, mut stream) = rows_with(session, plan, params, own).await?;
        let mut rows_count = 0;
        while let Some(batch) = stream.next().await {
            rows_count += batch?.num_rows() as u64;
        }
        let took = session.front.clock.elapsed().saturating_sub(started);
        explained.root.ran(rows_count, options.timing.then_some(took));
        explained.execution = Some(took);
    }
    Ok(explained)
}

/// One text column.
pub(super) fn text_rows(name: &str, values: Vec<String>, tag: &'static str) -> Result<Outcome> {
    rows_of_type(name, PgType::Text, values, tag)
}

/// One column of a type that is kept as text.
pub(super) fn rows_of_type(name: &str, ty: PgType, values: Vec<String>, tag: &'static str) -> Result<Outcome> {
    let schema = Schema::new(vec![ty.field(name, true)]);
    let array: ArrayRef = Arc::new(StringArray::from(values));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![array]).map_err(|e| Error::internal(e.to_string()))?;
    let columns = vec![OutputColumn::computed(name, ty)].into();
    Ok(Outcome::Rows { columns, stream: futures::stream::iter([Ok(batch)]).boxed(), tag: Tag::Bare(tag.into()) })
}
