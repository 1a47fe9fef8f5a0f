//! UPDATE and DELETE: a query over the table and the relations of FROM or USING yields `chunk, part, row` of each row that
//! is meant, for UPDATE then the row as it is to be, and what RETURNING needs beside.

use super::assign::{Shape, check_types, parsed_expr, parsed_query, quoted};
use super::returning::{FromColumn, Returning};
use super::set::{Assigned, assigned, new_row, reads_rows, sets_key};
use super::target::{Target, Writing};
use super::{Done, Kept};
use crate::ingest::{Addresses, Met};
use crate::session::Session;
use crate::session::query::{self, QueryPlan};
use crate::session::relations::Own;
use crate::txn::Transaction;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Delete, Expr, FromTable, Ident, SelectItem, SetExpr, Statement, TableWithJoins, Update, UpdateTableFromKind, With,
};
use engine::plan::{ExplainOptions, Explained, PlanNode, Title};
use engine::types::TimeContext;
use engine::{ColumnDef, PgType};
use futures::StreamExt;
use proto::{Error, Result, SqlState};

/// Columns of an address, in front of all others.
const ADDRESS: usize = 3;

pub struct ChangePlan {
    pub writing: Writing,
    pub target: Target,
    query: QueryPlan,
    /// A row may be met several times.
    joined: bool,
    /// Equal keys may only be looked for when all rows that give theirs up are gone.
    sets_key: bool,
    pub returning: Option<Returning>,
}

impl ChangePlan {
    pub fn params(&self) -> Vec<PgType> {
        self.returning.as_ref().map_or_else(|| self.query.params(), Returning::params)
    }

    /// For EXPLAIN.
    pub fn node(&self) -> PlanNode {
        let table = &self.target.table;
        let verb = if self.writing == Writing::Update { "Update" } else { "Delete" };
        let alias = if self.target.alias == table.name { String::new() } else { format!(" {}", self.target.alias) };
        let mut node = PlanNode::new(Title::new(verb).on(format!("{}{alias}", table.name)));
        node.tell_text("Removals staged", "on the data node of each row's chunk");
        if self.writing == Writing::Update {
            let name = |id| table.column_by_id(id).map(|column| column.name.clone());
            let dimensions = table.hypertable.iter().flat_map(|hypertable| hypertable.dimensions());
            let dimensions = dimensions.filter_map(name).collect::<Vec<_>>().join(", ");
            let place = match dimensions.as_str() {
                "" => "in the table's only chunk".to_owned(),
                of => format!("routed by {of}"),
            };
            node.tell_text("New rows staged", place);
        }
        node
    }

    pub async fn explained_read(&self, session: &mut Session, options: &ExplainOptions) -> Result<Explained> {
        let own = own(session, &self.target).await;
        query::explained(session, &self.query, &[], &own, options).await
    }
}

async fn own(session: &mut Session, target: &Target) -> Own {
    let catalog = session.catalog().await;
    vec![target.relation(&catalog, Vec::new())]
}

/// The relations beside the target, and which rows are meant.
struct Scope<'a> {
    with: Option<&'a With>,
    from: &'a [TableWithJoins],
    selection: Option<&'a Expr>,
}

impl Scope<'_> {
    /// `SELECT <items> FROM <target>, <from> WHERE <selection>`.
    fn query(&self, target: &Target, items: Vec<Expr>) -> Result<Statement> {
        let mut query = parsed_query("SELECT 1")?;
        query.with = self.with.cloned();
        if let SetExpr::Select(select) = &mut *query.body {
            let named = |(n, expr)| SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', format!("c{n}")) };
            select.projection = items.into_iter().enumerate().map(named).collect();
            select.from = target.in_from_clause()?;
            select.from.extend(self.from.iter().cloned());
            select.selection = self.selection.cloned();
        }
        Ok(Statement::Query(Box::new(query)))
    }

    /// What the relations beside the target have.
    async fn columns(&self, session: &mut Session, own: &Own, declared: &[Option<PgType>]) -> Result<Vec<FromColumn>> {
        if self.from.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = parsed_query("SELECT *")?;
        query.with = self.with.cloned();
        if let SetExpr::Select(select) = &mut *query.body {
            select.from = self.from.to_vec();
        }
        let plan = query::prepare_with(session, &Statement::Query(Box::new(query)), declared, own).await?;
        let QueryPlan::Engine { prepared, .. } = plan else { return Ok(Vec::new()) };
        let column = |column: &engine::plan::OutputColumn| FromColumn {
            relation: column.relation.clone(),
            name: column.name.clone(),
            ty: column.ty.clone(),
        };
        Ok(prepared.columns().iter().map(column).collect())
    }
}

fn column_expr(column: &FromColumn) -> Result<Expr> {
    match &column.relation {
        Some(relation) => parsed_expr(&format!("{}.{}", quoted(relation), quoted(&column.name))),
        None => parsed_expr(&quoted(&column.name)),
    }
}

fn address(target: &Target) -> Result<Vec<Expr>> {
    engine::plan::target::ADDRESS.iter().map(|(name, _)| parsed_expr(&target.column(name))).collect()
}

/// # Errors
/// What PostgreSQL reports when it analyses an UPDATE.
pub(super) async fn update(
    session: &mut Session,
    update: &Update,
    with: Option<&With>,
    declared: &[Option<PgType>],
) -> Result<ChangePlan> {
    if update.or.is_some() || !update.order_by.is_empty() || update.limit.is_some() || update.output.is_some() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "ORDER BY, LIMIT and OUTPUT are not part of UPDATE"));
    }
    let from: &[TableWithJoins] = match &update.from {
        None => &[],
        Some(UpdateTableFromKind::AfterSet(from)) => from,
        Some(UpdateTableFromKind::BeforeSet(_)) => {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "FROM comes after SET"));
        }
    };
    let target = Target::of(session, &update.table, Writing::Update).await?;
    let scope = Scope { with, from, selection: update.selection.as_ref() };
    let mut declared = declared.to_vec();
    let assigned = assigned(&target.table, &update.assignments, &mut declared)?;
    if reads_rows(&assigned) || scope.selection.is_some() || update.returning.is_some() || !from.is_empty() {
        target.check_readable(session).await?;
    }
    let own = own(session, &target).await;
    if reads_rows(&assigned) {
        check_assigned(session, &scope, &target, &assigned, &own, &declared).await?;
    }
    let mut items = address(&target)?;
    items.extend(new_row(&target, &assigned)?);
    let sets_key = sets_key(&target.table, &assigned);
    let parts = Parts { writing: Writing::Update, target, own, items, sets_key };
    plan(session, parts, &scope, update.returning.as_deref(), &declared).await
}

/// # Errors
/// `42804` for a value of a type its column cannot take.
async fn check_assigned(
    session: &mut Session,
    scope: &Scope<'_>,
    target: &Target,
    assigned: &[Assigned],
    own: &Own,
    declared: &[Option<PgType>],
) -> Result<()> {
    let columns = assigned.iter().map(|assigned| assigned.column.clone()).collect::<Vec<ColumnDef>>();
    let values = assigned.iter().map(|assigned| assigned.value.clone()).collect();
    let plan = query::prepare_with(session, &scope.query(target, values)?, declared, own).await?;
    check_types(&columns, &plan)
}

/// # Errors
/// What PostgreSQL reports when it analyses a DELETE.
pub(super) async fn delete(
    session: &mut Session,
    delete: &Delete,
    with: Option<&With>,
    declared: &[Option<PgType>],
) -> Result<ChangePlan> {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [item] = &from[..] else { return Err(Error::new(SqlState::SYNTAX_ERROR, "DELETE changes one table")) };
    if !delete.order_by.is_empty() || delete.limit.is_some() || delete.output.is_some() || !delete.tables.is_empty() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "ORDER BY, LIMIT and OUTPUT are not part of DELETE"));
    }
    let target = Target::of(session, item, Writing::Delete).await?;
    let using = delete.using.as_deref().unwrap_or_default();
    let scope = Scope { with, from: using, selection: delete.selection.as_ref() };
    if scope.selection.is_some() || delete.returning.is_some() || !using.is_empty() {
        target.check_readable(session).await?;
    }
    let own = own(session, &target).await;
    let mut items = address(&target)?;
    if delete.returning.is_some() {
        items.extend(new_row(&target, &[])?);
    }
    let parts = Parts { writing: Writing::Delete, target, own, items, sets_key: false };
    plan(session, parts, &scope, delete.returning.as_deref(), declared).await
}

struct Parts {
    writing: Writing,
    target: Target,
    own: Own,
    items: Vec<Expr>,
    sets_key: bool,
}

async fn plan(
    session: &mut Session,
    parts: Parts,
    scope: &Scope<'_>,
    returning: Option<&[SelectItem]>,
    declared: &[Option<PgType>],
) -> Result<ChangePlan> {
    let Parts { writing, target, own, mut items, sets_key } = parts;
    let from = match returning {
        Some(_) => scope.columns(session, &own, declared).await?,
        None => Vec::new(),
    };
    for column in &from {
        items.push(column_expr(column)?);
    }
    let query = query::prepare_with(session, &scope.query(&target, items)?, declared, &own).await?;
    let declared = query.params().into_iter().map(Some).collect::<Vec<_>>();
    let returning = match returning {
        Some(items) => Some(Returning::prepare(session, items, &target, &from, &declared).await?),
        None => None,
    };
    Ok(ChangePlan { writing, target, query, joined: !scope.from.is_empty(), sets_key, returning })
}

/// Rows to be removed and, for UPDATE, their successors.
struct Changed {
    addresses: Addresses,
    rows: Option<RecordBatch>,
}

/// # Errors
/// Of the query and of the nodes; the transaction is then to be rolled back.
pub(super) async fn run(session: &mut Session, plan: &ChangePlan, params: &[ScalarValue]) -> Result<Done> {
    let table = &plan.target.table;
    let transaction = session.transaction();
    let collect = plan.sets_key || transaction.lock().await.has_rows();
    let own = own(session, &plan.target).await;
    let params = &params[..plan.query.params().len()];
    let (_, mut stream) = query::rows_with(session, &plan.query, params, &own).await?;
    let shape = Shape::new(table, TimeContext::of_session(&session.settings())?);
    let mut kept = Kept::new(session, plan.returning.is_some());
    let (mut met, mut waiting, mut rows) = (Met::default(), Vec::new(), 0);
    while let Some(batch) = stream.next().await {
        let mut batch = batch?;
        let mut addresses = Addresses::of(&batch)?;
        if plan.joined {
            let first = met.first(&addresses);
            addresses = addresses.chosen(&first)?;
            batch = taken(&batch, &first)?;
        }
        if addresses.len() == 0 {
            continue;
        }
        rows += addresses.len() as u64;
        let new = split(plan, &shape, &batch, &mut kept)?;
        let changed = Changed { addresses, rows: new };
        match collect {
            true => {
                kept.count(&batch)?;
                waiting.push(changed);
            }
            false => stage(&mut *transaction.lock().await, plan, &[changed]).await?,
        }
    }
    drop(stream);
    let mut transaction = transaction.lock().await;
    stage(&mut transaction, plan, &waiting).await?;
    transaction.settle().await?;
    Ok(Done { rows, kept })
}

/// The new rows of a batch, fit to be stored; what RETURNING shows is kept.
fn split(plan: &ChangePlan, shape: &Shape<'_>, batch: &RecordBatch, kept: &mut Kept) -> Result<Option<RecordBatch>> {
    let width = plan.target.table.columns.len();
    let columns = (ADDRESS..batch.num_columns()).collect::<Vec<_>>();
    let project = |columns: &[usize]| batch.project(columns).map_err(|error| Error::internal(error.to_string()));
    let new = match plan.writing {
        Writing::Update => Some(shape.fit(&project(&columns[..width])?)?),
        Writing::Insert | Writing::Delete => None,
    };
    if plan.returning.is_some() {
        let shown = project(&columns)?;
        kept.keep(&match &new {
            None => shown,
            Some(new) => beside(new, &shown, width)?,
        })?;
    }
    Ok(new)
}

/// The first columns replaced by those of `new`.
fn beside(new: &RecordBatch, shown: &RecordBatch, width: usize) -> Result<RecordBatch> {
    let mut columns = new.columns().to_vec();
    columns.extend(shown.columns()[width..].iter().cloned());
    let mut fields = new.schema().fields().to_vec();
    fields.extend(shown.schema().fields()[width..].iter().cloned());
    let schema = arrow::datatypes::Schema::new(fields);
    RecordBatch::try_new(schema.into(), columns).map_err(|error| Error::internal(error.to_string()))
}

fn taken(batch: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch> {
    take_record_batch(batch, indices).map_err(|error| Error::internal(error.to_string()))
}

/// All removals, then all new rows.
async fn stage(transaction: &mut Transaction, plan: &ChangePlan, changed: &[Changed]) -> Result<()> {
    let table = &plan.target.table;
    for changed in changed {
        transaction.remove(table, &changed.addresses).await?;
    }
    if changed.iter().any(|changed| changed.rows.is_some()) {
        transaction.settle().await?;
    }
    for changed in changed {
        if let Some(rows) = &changed.rows {
            transaction.write(table, rows.clone()).await?;
        }
    }
    Ok(())
}
