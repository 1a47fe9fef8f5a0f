//! ON CONFLICT: the incoming rows, all of them in memory, are joined with the table on its keys. A row that meets none is
//! inserted; one that does is dropped, or becomes an update of the row it meets. The join reads only rows whose key
//! columns lie where those of the incoming rows do.
//!
//! A concurrent transaction that adds an equal key in between is found by the nodes when the rows are staged; the
//! statement then runs again (see `write::run`).

use super::assign::{Shape, parsed_expr, parsed_query, quoted};
use super::set::{assigned, new_row, sets_key};
use super::target::{Target, Writing, writable_table};
use super::{Done, Kept};
use crate::ingest::{self, Addresses};
use crate::session::Session;
use crate::session::parse::fold;
use crate::session::query::{self, QueryPlan};
use crate::session::relations::Own;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{FieldRef, Int64Type, Schema};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    ConflictTarget, Expr, Ident, OnConflict, OnConflictAction, SelectItem, SetExpr, Statement,
};
use engine::plan::target::{INCOMING, Narrowing};
use engine::plan::{PlanNode, Relation, Value};
use engine::types::TimeContext;
use engine::{KeyDef, KeyKind, PgType, TableDef};
use futures::StreamExt;
use proto::{ColumnId, Error, Result, SqlState};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The incoming row's number, a column that SQL cannot name.
const NUMBER: &str = "\0n";
/// So many different values of a column are looked for one by one; of more, their range.
const VALUES_FEW: usize = 16;
/// Of DO UPDATE's query: number, address, whether WHERE holds; then the row.
const ROW_FROM: usize = 5;

pub struct Conflict {
    /// Each with the query that finds the rows it meets.
    arbiters: Vec<(KeyDef, QueryPlan)>,
    updates: bool,
    sets_key: bool,
}

impl Conflict {
    /// # Errors
    /// `42P10` when no key is meant, and what PostgreSQL reports for SET and WHERE.
    pub async fn prepare(
        session: &mut Session,
        target: &Target,
        on: &OnConflict,
        declared: &[Option<PgType>],
    ) -> Result<Conflict> {
        let keys = arbiters(&target.table, on.conflict_target.as_ref())?;
        let own = own(session, target, empty_rows(&target.table), Vec::new()).await;
        let mut declared = declared.to_vec();
        let mut items = vec![parsed_expr(&format!("excluded.{}", quoted(NUMBER)))?];
        let (updates, sets_key) = match &on.action {
            OnConflictAction::DoNothing => (false, false),
            OnConflictAction::DoUpdate(_) if on.conflict_target.is_none() => {
                let text = "ON CONFLICT DO UPDATE requires inference specification or constraint name";
                return Err(Error::new(SqlState::SYNTAX_ERROR, text).hint("For example, ON CONFLICT (column_name)."));
            }
            OnConflictAction::DoUpdate(update) => {
                let name = (Some(target.table.schema.clone()), target.table.name.clone());
                writable_table(session, &name, Writing::Update).await?;
                let assigned = assigned(&target.table, &update.assignments, &mut declared)?;
                for (name, _) in engine::plan::target::ADDRESS {
                    items.push(parsed_expr(&target.column(name))?);
                }
                items.push(update.selection.clone().map_or_else(|| parsed_expr("TRUE"), Ok)?);
                items.extend(new_row(target, &assigned)?);
                (true, sets_key(&target.table, &assigned))
            }
        };
        if updates || on.conflict_target.is_some() {
            target.check_readable(session).await?;
        }
        let mut arbiters = Vec::with_capacity(keys.len());
        for key in keys {
            let query = query::prepare_with(session, &join(target, &key, items.clone())?, &declared, &own).await?;
            declared = query.params().into_iter().map(Some).collect();
            check_condition(&query)?;
            arbiters.push((key, query));
        }
        Ok(Conflict { arbiters, updates, sets_key })
    }

    /// `None`: no more than the source has.
    pub fn params(&self) -> Option<Vec<PgType>> {
        self.arbiters.last().map(|(_, query)| query.params())
    }

    /// Whether the message of a violation names a key that this looked for. A row that DO UPDATE gave another key may
    /// violate it all the same.
    pub fn arbitrates(&self, message: &str) -> bool {
        let names = |(key, _): &(KeyDef, QueryPlan)| message.contains(&format!("\"{}\"", key.name));
        !self.sets_key && self.arbiters.iter().any(names)
    }

    /// For EXPLAIN.
    pub fn tell(&self, node: &mut PlanNode) {
        node.tell_text("Conflict Resolution", if self.updates { "UPDATE" } else { "NOTHING" });
        let names = self.arbiters.iter().map(|(key, _)| key.name.clone()).collect::<Vec<_>>();
        if !names.is_empty() {
            node.tell("Conflict Arbiter Indexes", Value::List(names));
        }
    }

    /// Writes the rows that are to be written. They have the table's columns.
    pub async fn run(
        &self,
        session: &mut Session,
        target: &Target,
        rows: RecordBatch,
        params: &[ScalarValue],
        mut kept: Kept,
    ) -> Result<Done> {
        let table = &target.table;
        let rows = ingest::check(table, rows)?;
        let written = match self.updates {
            false => {
                let wanted = self.without_conflict(session, target, &rows, params).await?;
                Written { removed: None, rows: taken(&rows, &wanted)? }
            }
            true => self.inserted_or_updated(session, target, &rows, params).await?,
        };
        kept.keep(&written.rows)?;
        let transaction = session.transaction();
        let mut transaction = transaction.lock().await;
        if let Some(removed) = written.removed.filter(|removed| removed.len() > 0) {
            transaction.remove(table, &removed).await?;
            transaction.settle().await?;
        }
        let count = transaction.write(table, written.rows).await?;
        transaction.settle().await?;
        Ok(Done { rows: count, kept })
    }

    /// The rows that meet none in the table and none before them.
    async fn without_conflict(
        &self,
        session: &mut Session,
        target: &Target,
        rows: &RecordBatch,
        params: &[ScalarValue],
    ) -> Result<UInt32Array> {
        let mut meets = vec![false; rows.num_rows()];
        let mut keys = Vec::with_capacity(self.arbiters.len());
        for (key, query) in &self.arbiters {
            for batch in found(session, target, rows, key, query, params).await? {
                numbers(&batch)?.values().iter().for_each(|number| meets[*number as usize] = true);
            }
            keys.push((values(&target.table, rows, key)?, HashSet::new()));
        }
        let mut wanted = Vec::new();
        for (row, meets) in meets.into_iter().enumerate() {
            let before =
                keys.iter().any(|(values, seen)| values[row].as_ref().is_some_and(|value| seen.contains(value)));
            if meets || before {
                continue;
            }
            keys.iter_mut().for_each(|(values, seen)| seen.extend(values[row].clone()));
            wanted.push(row as u32);
        }
        Ok(wanted.into())
    }

    async fn inserted_or_updated(
        &self,
        session: &mut Session,
        target: &Target,
        rows: &RecordBatch,
        params: &[ScalarValue],
    ) -> Result<Written> {
        let table = &target.table;
        let [(key, query), ..] = &self.arbiters[..] else {
            return Err(Error::internal("DO UPDATE has an arbiter"));
        };
        let found = found(session, target, rows, key, query, params).await?;
        let found = match found.first() {
            Some(first) => Some(super::concat(&first.schema(), &found)?),
            None => None,
        };
        let mut met: HashMap<i64, usize> = HashMap::new();
        if let Some(found) = &found {
            met.extend(numbers(found)?.values().iter().enumerate().map(|(at, number)| (*number, at)));
        }
        let applies = found.as_ref().map(|found| found.column(ROW_FROM - 1).as_boolean());
        let values = values(table, rows, key)?;
        // Where each written row is: among the incoming ones or, behind them, among those found.
        let (mut places, mut removed, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for (row, value) in values.into_iter().enumerate() {
            if value.as_ref().is_some_and(|value| seen.contains(value)) {
                let text = "ON CONFLICT DO UPDATE command cannot affect row a second time";
                let hint = "Ensure that no rows proposed for insertion within the same command have duplicate \
                            constrained values.";
                return Err(Error::new(SqlState::CARDINALITY_VIOLATION, text).hint(hint));
            }
            match (met.get(&(row as i64)), &applies) {
                (None, _) => places.push(row as u32),
                (Some(at), Some(applies)) if applies.is_valid(*at) && applies.value(*at) => {
                    places.push((rows.num_rows() + at) as u32);
                    removed.push(*at as u32);
                }
                (Some(_), _) => continue,
            }
            seen.extend(value);
        }
        let Some(found) = found else { return Ok(Written { removed: None, rows: taken(rows, &places.into())? }) };
        let of_address = found.project(&[1, 2, 3]).map_err(internal)?;
        let removed = Addresses::of(&of_address)?.chosen(&removed.into())?;
        let width = ROW_FROM..found.num_columns();
        let new = found.project(&width.collect::<Vec<_>>()).map_err(internal)?;
        let shape = Shape::new(table, TimeContext::of_session(&session.settings())?);
        let all = super::concat(&shape.schema(), &[under(&shape, rows)?, shape.fit(&new)?])?;
        Ok(Written { removed: Some(removed), rows: taken(&all, &places.into())? })
    }
}

/// What WHERE says is a boolean.
fn check_condition(query: &QueryPlan) -> Result<()> {
    match query.columns().get(ROW_FROM - 1) {
        Some(condition) if condition.ty != PgType::Bool => {
            let text = format!("argument of WHERE must be type boolean, not type {}", condition.ty);
            Err(Error::new(SqlState::DATATYPE_MISMATCH, text))
        }
        _ => Ok(()),
    }
}

struct Written {
    removed: Option<Addresses>,
    rows: RecordBatch,
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::internal(error.to_string())
}

fn taken(rows: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch> {
    take_record_batch(rows, indices).map_err(internal)
}

fn under(shape: &Shape<'_>, rows: &RecordBatch) -> Result<RecordBatch> {
    RecordBatch::try_new(shape.schema(), rows.columns().to_vec()).map_err(internal)
}

/// The keys a conflict is looked for in.
///
/// # Errors
/// `42P10`, or `42704` for a constraint that is not there.
fn arbiters(table: &TableDef, target: Option<&ConflictTarget>) -> Result<Vec<KeyDef>> {
    match target {
        None => Ok(table.keys.clone()),
        Some(ConflictTarget::OnConstraint(name)) => {
            let name = crate::session::define::object_name(name).1;
            let key = table.key(&name).filter(|key| key.kind != KeyKind::Index).cloned();
            key.map(|key| vec![key]).ok_or_else(|| {
                let text = format!("constraint \"{name}\" for table \"{}\" does not exist", table.name);
                Error::new(SqlState::UNDEFINED_OBJECT, text)
            })
        }
        Some(ConflictTarget::Columns(columns)) => {
            let mut wanted: Vec<ColumnId> = Vec::new();
            for name in columns.iter().map(fold) {
                let column = table.column(&name).ok_or_else(|| {
                    Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
                })?;
                wanted.push(column.id);
            }
            let same = |key: &&KeyDef| {
                key.columns.iter().all(|id| wanted.contains(id)) && wanted.iter().all(|id| key.columns.contains(id))
            };
            table.keys.iter().find(same).map(|key| vec![key.clone()]).ok_or_else(|| {
                let text = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
                Error::new(SqlState::new("42P10"), text)
            })
        }
    }
}

/// `SELECT <items> FROM <incoming> AS excluded JOIN <target> ON <keys are equal>`.
fn join(target: &Target, key: &KeyDef, items: Vec<Expr>) -> Result<Statement> {
    let names = key.columns.iter().filter_map(|id| target.table.column_by_id(*id)).map(|column| &column.name);
    let equal = names.map(|name| format!("excluded.{} = {}", quoted(name), target.column(name)));
    let equal = equal.collect::<Vec<_>>().join(" AND ");
    let sql = format!("SELECT 1 FROM {} AS excluded JOIN {} ON {equal}", quoted(INCOMING), target.in_from());
    let mut query = parsed_query(&sql)?;
    if let SetExpr::Select(select) = &mut *query.body {
        let named = |(n, expr)| SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', format!("c{n}")) };
        select.projection = items.into_iter().enumerate().map(named).collect();
    }
    Ok(Statement::Query(Box::new(query)))
}

async fn own(session: &mut Session, target: &Target, incoming: RecordBatch, only: Vec<Narrowing>) -> Own {
    let catalog = session.catalog().await;
    vec![target.relation(&catalog, only), ((None, INCOMING.to_owned()), Relation::Rows(incoming))]
}

fn empty_rows(table: &TableDef) -> RecordBatch {
    numbered(&RecordBatch::new_empty(table.schema())).expect("a number for each of no rows")
}

/// The rows with their numbers behind them.
fn numbered(rows: &RecordBatch) -> Result<RecordBatch> {
    let nullable = |field: &FieldRef| field.as_ref().clone().with_nullable(true);
    let mut fields = rows.schema().fields().iter().map(nullable).collect::<Vec<_>>();
    fields.push(PgType::Int8.field(NUMBER, false));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(0..rows.num_rows() as i64)));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(internal)
}

fn numbers(found: &RecordBatch) -> Result<&Int64Array> {
    let numbers = found.column(0).as_primitive_opt::<Int64Type>();
    numbers.ok_or_else(|| Error::internal("a conflicting row came without its number"))
}

fn columns(table: &TableDef, rows: &RecordBatch, key: &KeyDef) -> Vec<(String, ArrayRef)> {
    let column = |id: &ColumnId| {
        let index = table.columns.iter().position(|column| column.id == *id)?;
        Some((table.columns[index].name.clone(), rows.column(index).clone()))
    };
    key.columns.iter().filter_map(column).collect()
}

/// What the arbiter's query finds for the rows.
async fn found(
    session: &mut Session,
    target: &Target,
    rows: &RecordBatch,
    key: &KeyDef,
    query: &QueryPlan,
    params: &[ScalarValue],
) -> Result<Vec<RecordBatch>> {
    let of_key = columns(&target.table, rows, key);
    let only = of_key.iter().filter_map(|(name, values)| Narrowing::to(name, values, VALUES_FEW)).collect();
    let own = own(session, target, numbered(rows)?, only).await;
    let (_, mut stream) = query::rows_with(session, query, &params[..query.params().len()], &own).await?;
    let mut found = Vec::new();
    while let Some(batch) = stream.next().await {
        found.push(batch?);
    }
    Ok(found)
}

/// Each row's key as one value that can be compared; `None` with a NULL in it, which equals nothing.
fn values(table: &TableDef, rows: &RecordBatch, key: &KeyDef) -> Result<Vec<Option<OwnedRow>>> {
    let columns = columns(table, rows, key).into_iter().map(|(_, values)| values).collect::<Vec<_>>();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(internal)?;
    let converted = converter.convert_columns(&columns).map_err(internal)?;
    let value = |row: usize| {
        let has_null = columns.iter().any(|column| column.is_null(row));
        (!has_null).then(|| converted.row(row).owned())
    };
    Ok((0..rows.num_rows()).map(value).collect())
}
