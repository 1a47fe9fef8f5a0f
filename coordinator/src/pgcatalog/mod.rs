//! Answers statements about the catalogs: `\d`, `information_schema`, TimescaleDB's views, `SELECT current_user`.
//!
//! It is a small executor of its own: syntax is bound to a tree (`bind`) and the tree is walked row by row (`run`).
//! Catalogs are small and their queries are full of what a columnar planner finds hard: correlated sub-queries, LATERAL,
//! `'16384'` compared with an oid, `regclass` both ways. It never reads a user's table: a statement that names one goes
//! to the planner, which may ask `relation` for a whole catalog and `fold_constant_calls` for the rest.
//!
//! The life of `\d t`: `handles` says yes → `execute` → `bind::Binder::top` resolves names against `schema` (the recorded
//! columns of every PostgreSQL 15 catalog) → `run::run` pulls rows from `relations`, which makes them from
//! `SystemCatalog` → names replace OIDs in reg* columns → `RowSet`, whose `to_batch` is what the wire encodes.
//!
//! What it does with what it does not know
//! - A relation of a system schema that it never heard of: no rows, any column name, one warning.
//! - A construct it cannot run over catalogs, or a `pg_catalog.` function it lacks: no rows under the statement's column
//!   names, one warning; an error there would abort the transaction in which psql completes a word.
//! - An unknown column, table, type or bare function: PostgreSQL's error. So is everything unsupported in a statement
//!   that reads no catalog or calls a function with effects.

mod arrow;
mod bind;
mod cast;
mod fold;
mod functions;
mod relations;
mod route;
mod run;
mod schema;
mod system;
mod time;
mod tree;
mod value;

#[cfg(test)]
mod tests;

pub use fold::fold_constant_calls;
pub(crate) use functions::objects::size_pretty;
pub use route::handles;
pub use system::{
    Activity, Argument, Bytes, DataNodeServer, Database, Functions, ListedArgument, ListedFunction, NoFunctions, Role,
    Schema, Setting, Signature, SystemCatalog, View,
};
pub use value::{Interval, Row, RowSet, Value};

use bind::Binder;
use datafusion::sql::sqlparser::ast::{self, SelectItem, SetExpr, Statement};
use engine::PgType;
use proto::{Error, Result, SqlState};
use run::Context;

/// What a client is told before a statement runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    pub columns: Vec<(String, PgType)>,
    /// Of `$1…`, those the client gave included.
    pub params: Vec<PgType>,
}

/// The columns and parameters of a statement that `handles` accepts. Calls no function of the session.
///
/// # Errors
/// As `execute`, of names and types.
pub fn describe(statement: &Statement, host: &dyn Functions, param_types: &[PgType]) -> Result<Description> {
    let query = match statement {
        Statement::Query(query) => query,
        Statement::Call(_) => return Ok(Description { columns: Vec::new(), params: param_types.to_vec() }),
        other => return Err(not_ours(other)),
    };
    let mut binder = Binder::new(host, param_types);
    let columns = match binder.top(query) {
        Ok(bound) => bind::out_columns(&bound.columns),
        Err(error) => empty_answer(statement, host, error)?.columns,
    };
    Ok(Description { columns, params: binder.into_params() })
}

/// Runs a statement that `handles` accepts. `CALL` gives no rows. `param_types` are those of the description; values sent
/// as text are read as them.
///
/// # Errors
/// The caller's: names (`42703`, `42883`, `42P01`), types, malformed literals; whatever a function of the session
/// returns; `54000` and `54001` for statements beyond the bounds.
pub fn execute(
    statement: &Statement,
    catalog: &dyn SystemCatalog,
    host: &mut dyn Functions,
    param_types: &[PgType],
    params: &[Value],
) -> Result<RowSet> {
    let wrapped;
    let (query, call) = match statement {
        Statement::Query(query) => (query.as_ref(), false),
        Statement::Call(function) => {
            wrapped = fold::select_of(ast::Expr::Function(function.clone()));
            (&wrapped, true)
        }
        other => return Err(not_ours(other)),
    };
    let bound = match Binder::new(host, param_types).top(query) {
        Ok(bound) => bound,
        Err(error) => return empty_answer(statement, host, error),
    };
    let mut ctx = Context::new(catalog, host, params);
    let mut rows = run::run(&mut ctx, None, &bound)?;
    if call {
        return Ok(RowSet { columns: Vec::new(), rows: Vec::new() });
    }
    cast::name_columns(&mut ctx, &bound.columns, &mut rows)?;
    Ok(RowSet { columns: bind::out_columns(&bound.columns), rows })
}

/// All rows of one catalog relation; `None` when there is no such relation. reg* columns are names.
///
/// # Errors
/// None that a caller can cause.
pub fn relation(schema: Option<&str>, name: &str, catalog: &dyn SystemCatalog) -> Result<Option<RowSet>> {
    let Some(def) = schema::find(schema, name) else { return Ok(None) };
    let mut rows = relations::rows(&def, catalog);
    let columns = def.columns.iter().map(|column| tree::OutColumn {
        name: column.name.clone(),
        ty: column.ty.clone(),
        fields: None,
    });
    let columns: Vec<_> = columns.collect();
    let mut host = NoFunctions;
    cast::name_columns(&mut Context::new(catalog, &mut host, &[]), &columns, &mut rows)?;
    Ok(Some(RowSet { columns: bind::out_columns(&columns), rows }))
}

fn not_ours(statement: &Statement) -> Error {
    Error::internal(format!("not a catalog statement: {statement}"))
}

/// No rows under the names the statement gives its columns, where `error` says that we cannot do better and nobody's
/// transaction shall suffer for it.
fn empty_answer(statement: &Statement, host: &dyn Functions, error: Error) -> Result<RowSet> {
    if error.code != SqlState::FEATURE_NOT_SUPPORTED || !route::reads_catalogs_only(statement, host) {
        return Err(error);
    }
    tracing::warn!(%statement, %error, "catalog query answered with no rows");
    let mut body = match statement {
        Statement::Query(query) => query.body.as_ref(),
        _ => return Err(error),
    };
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(query) => body = &query.body,
            SetExpr::SetOperation { left, .. } => body = left,
            _ => return Err(error),
        }
    };
    let columns = select.projection.iter().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) => Some((bind::column_name(expr), PgType::Text)),
        SelectItem::ExprWithAlias { alias, .. } => Some((bind::ident(alias), PgType::Text)),
        _ => None,
    });
    Ok(RowSet { columns: columns.collect(), rows: Vec::new() })
}
