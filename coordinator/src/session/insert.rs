//! INSERT: the source becomes a query that yields every column of the table, in its order and of its type; its batches
//! go straight to the transaction.

use super::Session;
use super::dispatch::done;
use super::parse::fold;
use super::query::{self, QueryPlan};
use super::relations::find;
use crate::catalog::{Privilege, Relation};
use crate::pg::backend::Outcome;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Expr, Insert, Query, SelectItem, SetExpr, Statement, TableFactor, TableObject, Value as Literal,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use engine::types::{ColumnBuilder, TimeContext};
use engine::{ColumnDef, PgType, TableDef};
use futures::StreamExt;
use proto::{Error, Result, SqlState, TableId};
use std::sync::Arc;

pub(super) struct InsertPlan {
    table: TableId,
    source: QueryPlan,
}

impl InsertPlan {
    pub fn params(&self) -> Vec<PgType> {
        self.source.params()
    }
}

/// # Errors
/// Unknown table or column, a missing right, a source that does not fit.
pub(super) async fn prepare(session: &mut Session, insert: &Insert, declared: &[Option<PgType>]) -> Result<InsertPlan> {
    refuse_unserved(insert)?;
    let TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported("INSERT into a function"));
    };
    let table = writable_table(session, &super::define::object_name(name)).await?;
    let columns = insert.columns.iter().map(|column| column.to_string().to_lowercase().replace('"', ""));
    let targets = target_columns(&table, columns.collect())?;
    let mut declared = declared.to_vec();
    let source = typed_source(insert.source.as_deref(), &targets, &mut declared)?;
    let width = match (&source, &insert.source) {
        (_, None) => 0,
        (Some(width), _) => *width,
        (None, Some(query)) => {
            let plan = query::prepare(session, &Statement::Query(query.clone()), &declared).await?;
            check_types(&targets, &plan)?;
            plan.columns().len()
        }
    };
    check_width(width, targets.len(), insert)?;
    let query = full_rows(&table, &targets[..width], insert.source.as_deref(), &mut declared)?;
    let source = query::prepare(session, &Statement::Query(Box::new(query)), &declared).await?;
    Ok(InsertPlan { table: table.id, source })
}

fn refuse_unserved(insert: &Insert) -> Result<()> {
    let unserved = [
        (insert.on.is_some(), "ON CONFLICT"),
        (insert.returning.is_some(), "INSERT … RETURNING"),
        (insert.overwrite || insert.replace_into || insert.ignore, "this form of INSERT"),
    ];
    match unserved.iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(Error::unsupported(what)),
        None => Ok(()),
    }
}

/// A table the session's role may insert into.
///
/// # Errors
/// `42P01`, `42809` for a view, `42501`, `25006`.
pub(super) async fn writable_table(session: &mut Session, name: &(Option<String>, String)) -> Result<Arc<TableDef>> {
    session.check_writable("INSERT")?;
    let catalog = session.catalog().await;
    let path = session.variables.search_path(session.current_user());
    let table = match find(&catalog, &session.database, &path, name.0.as_deref(), &name.1) {
        Some(Relation::Table(table)) => table.clone(),
        Some(Relation::View(_)) => {
            return Err(Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot insert into view \"{}\"", name.1),
            ));
        }
        None => return Err(super::define::no_relation(name)),
    };
    match catalog.may(session.current_user(), table.id, Privilege::Insert) {
        true => Ok(table),
        false => {
            let message = format!("permission denied for table {}", table.name);
            Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, message))
        }
    }
}

/// # Errors
/// `42703` for a column the table does not have, `42701` for one named twice.
pub(super) fn target_columns(table: &TableDef, names: Vec<String>) -> Result<Vec<ColumnDef>> {
    if names.is_empty() {
        return Ok(table.columns.clone());
    }
    let mut targets: Vec<ColumnDef> = Vec::with_capacity(names.len());
    for name in names {
        let column = table.column(&name).ok_or_else(|| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
            Error::new(SqlState::UNDEFINED_COLUMN, message)
        })?;
        if targets.iter().any(|target| target.id == column.id) {
            return Err(Error::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")));
        }
        targets.push(column.clone());
    }
    Ok(targets)
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

/// A boolean is no number and a number no time; strings and NULL fit everywhere until they are read.
fn check_literal(expr: &Expr, target: &ColumnDef) -> Result<()> {
    let Expr::Value(value) = expr else { return Ok(()) };
    let is_text = matches!(target.ty, PgType::Text | PgType::Varchar(_) | PgType::Bpchar(_) | PgType::Name);
    let is_number = matches!(
        target.ty,
        PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Float4 | PgType::Float8 | PgType::Numeric(_) | PgType::Oid
    );
    let given = match &value.value {
        Literal::Boolean(_) if target.ty != PgType::Bool && !is_text => "boolean",
        Literal::Number(digits, _) if !is_number && !is_text => match digits.parse::<i32>() {
            Ok(_) => "integer",
            Err(_) => "numeric",
        },
        _ => return Ok(()),
    };
    Err(mismatch(target, given))
}

fn mismatch(target: &ColumnDef, given: &str) -> Error {
    let message = format!("column \"{}\" is of type {} but expression is of type {given}", target.name, target.ty);
    Error::new(SqlState::DATATYPE_MISMATCH, message).hint("You will need to rewrite or cast the expression.")
}

fn type_parameter(expr: &Expr, ty: &PgType, declared: &mut Vec<Option<PgType>>) {
    let (expr, ty) = match expr {
        Expr::Cast { expr, data_type, .. } => match super::define::column_type(data_type) {
            Ok(cast) => (&**expr, cast),
            Err(_) => return,
        },
        plain => (plain, ty.clone()),
    };
    let Expr::Value(value) = expr else { return };
    let Literal::Placeholder(id) = &value.value else { return };
    let Some(position) =
        id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).filter(|n| (1..=65_535).contains(n))
    else {
        return;
    };
    if declared.len() < position {
        declared.resize(position, None);
    }
    declared[position - 1].get_or_insert(ty);
}

fn check_width(width: usize, targets: usize, insert: &Insert) -> Result<()> {
    let message = match (width > targets, width < targets && !insert.columns.is_empty() && insert.source.is_some()) {
        (true, _) => "INSERT has more expressions than target columns",
        (_, true) => "INSERT has more target columns than expressions",
        _ => return Ok(()),
    };
    Err(Error::new(SqlState::SYNTAX_ERROR, message))
}

/// Text is no time and no number unless it is a literal: PostgreSQL has no assignment cast for it.
fn check_types(targets: &[ColumnDef], source: &QueryPlan) -> Result<()> {
    let is_text = |ty: &PgType| matches!(ty, PgType::Text | PgType::Varchar(_) | PgType::Bpchar(_) | PgType::Name);
    for (target, given) in targets.iter().zip(source.columns()) {
        let both_times = |ty: &PgType| matches!(ty, PgType::Timestamp | PgType::Timestamptz | PgType::Date);
        let fits = match (&target.ty, &given.ty) {
            (target, given) if is_text(target) || target == given => !matches!(given, PgType::Void),
            // A literal's type is still text here.
            (_, given) if is_text(given) => given == &PgType::Text,
            (target, given) if both_times(given) => both_times(target) || *target == PgType::Time,
            (PgType::Bool, _) | (_, PgType::Bool) => false,
            _ => true,
        };
        if !fits {
            let message =
                format!("column \"{}\" is of type {} but expression is of type {}", target.name, target.ty, given.ty);
            return Err(Error::new(SqlState::DATATYPE_MISMATCH, message)
                .hint("You will need to rewrite or cast the expression."));
        }
    }
    Ok(())
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

/// The name under which a cast finds the type; array and modified types print as SQL reads them.
fn sql_type(ty: &PgType) -> String {
    match ty {
        // The length is checked afterwards: a cast would cut silently.
        PgType::Varchar(_) | PgType::Bpchar(_) => "text".to_owned(),
        other => other.to_string(),
    }
}

fn parsed_query(sql: &str) -> Result<Query> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql)
        .map_err(|error| Error::internal(format!("cannot read back {sql}: {error}")))?;
    match statements.pop() {
        Some(Statement::Query(query)) => Ok(*query),
        _ => Err(Error::internal("a SELECT reads back as a query")),
    }
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

fn type_literal(expr: &mut Expr, target: &ColumnDef) -> Result<()> {
    let is_default = matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && fold(ident) == "default");
    let is_unknown = matches!(expr, Expr::Value(value) if matches!(value.value,
        Literal::SingleQuotedString(_) | Literal::EscapedStringLiteral(_) | Literal::DollarQuotedString(_) | Literal::Null));
    let text = match (is_default, is_unknown) {
        (true, _) => format!("({})", target.default.as_deref().unwrap_or("NULL")),
        (_, true) => expr.to_string(),
        _ => return Ok(()),
    };
    let sql = format!("CAST({text} AS {})", sql_type(&target.ty));
    let mut parser = Parser::new(&PostgreSqlDialect {})
        .try_with_sql(&sql)
        .map_err(|error| Error::internal(format!("cannot read back {sql}: {error}")))?;
    *expr = parser.parse_expr().map_err(|error| Error::internal(format!("cannot read back {sql}: {error}")))?;
    Ok(())
}

/// # Errors
/// Of the source and of the nodes; the transaction is then to be rolled back.
pub(super) async fn run(session: &mut Session, plan: &InsertPlan, params: &[ScalarValue]) -> Result<Outcome> {
    session.check_writable("INSERT")?;
    let catalog = session.catalog().await;
    let table = catalog.table_by_id(plan.table).cloned().ok_or_else(|| {
        Error::new(SqlState::UNDEFINED_TABLE, format!("relation with OID {} does not exist", plan.table))
    })?;
    let (_, mut stream) = query::rows(session, &plan.source, params).await?;
    let shape = Shape::new(&table, TimeContext::of_session(&session.settings())?);
    let transaction = session.transaction();
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = shape.fit(&batch?)?;
        rows += transaction.lock().await.write(&table, batch).await?;
    }
    done(format!("INSERT 0 {rows}"))
}

/// Brings batches to the form in which a table's rows are stored.
pub(super) struct Shape<'a> {
    table: &'a TableDef,
    context: TimeContext,
}

impl Shape<'_> {
    pub fn new(table: &TableDef, context: TimeContext) -> Shape<'_> {
        Shape { table, context }
    }

    /// # Errors
    /// `22001`, `22P02`, … where a value does not fit its column.
    pub fn fit(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.table.columns.iter().zip(batch.columns());
        let columns = columns.map(|(column, array)| self.column(column, array)).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(arrow::datatypes::Schema::new(
            self.table.columns.iter().map(|column| column.field().with_nullable(true)).collect::<Vec<_>>(),
        ));
        RecordBatch::try_new(schema, columns).map_err(|error| Error::internal(error.to_string()))
    }

    fn column(&self, column: &ColumnDef, array: &ArrayRef) -> Result<ArrayRef> {
        let wanted = column.ty.arrow();
        let array = match array.data_type() == &wanted {
            true => array.clone(),
            false => cast(array, &wanted).map_err(|error| {
                Error::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!("column \"{}\" is of type {}: {error}", column.name, column.ty),
                )
            })?,
        };
        match column.ty {
            PgType::Varchar(Some(_)) | PgType::Bpchar(_) | PgType::Uuid | PgType::Json | PgType::Jsonb => {
                let mut builder = ColumnBuilder::new(&column.ty, self.context, array.len());
                for text in array.as_string::<i32>() {
                    match text {
                        Some(text) => builder.append_str(text)?,
                        None => builder.append_null(),
                    }
                }
                Ok(builder.finish())
            }
            _ => Ok(array),
        }
    }
}
