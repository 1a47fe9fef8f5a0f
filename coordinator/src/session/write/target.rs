//! The table a statement writes to: whether it may, and how the statement's query names it.

use super::assign::{parsed_query, quoted};
use crate::catalog::{CatalogState, Privilege, Relation as Found};
use crate::session::Session;
use crate::session::define::{no_relation, object_name};
use crate::session::parse::fold;
use crate::session::relations::find;
use datafusion::sql::sqlparser::ast::{Query, SetExpr, TableFactor, TableWithJoins, visit_relations};
use engine::TableDef;
use engine::plan::Relation;
use engine::plan::target::{Narrowing, TARGET};
use proto::{Error, Result, SqlState};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What is done to a table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    Insert,
    Update,
    Delete,
}

impl Writing {
    pub fn command(self) -> &'static str {
        match self {
            Writing::Insert => "INSERT",
            Writing::Update => "UPDATE",
            Writing::Delete => "DELETE",
        }
    }

    fn privilege(self) -> Privilege {
        match self {
            Writing::Insert => Privilege::Insert,
            Writing::Update => Privilege::Update,
            Writing::Delete => Privilege::Delete,
        }
    }

    fn view(self) -> &'static str {
        match self {
            Writing::Insert => "insert into",
            Writing::Update => "update",
            Writing::Delete => "delete from",
        }
    }
}

/// A table that the session's role may write to.
///
/// # Errors
/// `42P01`, `55000` for a view, `42501`, `25006`.
pub async fn writable_table(
    session: &mut Session,
    name: &(Option<String>, String),
    writing: Writing,
) -> Result<Arc<TableDef>> {
    session.check_writable(writing.command())?;
    let catalog = session.catalog().await;
    let path = session.variables.search_path(session.current_user());
    let table = match find(&catalog, &session.database, &path, name.0.as_deref(), &name.1) {
        Some(Found::Table(table)) => table.clone(),
        Some(Found::View(_)) => {
            let text = format!("cannot {} view \"{}\"", writing.view(), name.1);
            return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text));
        }
        None => return Err(no_relation(name)),
    };
    check_right(session, &catalog, &table, writing.privilege())?;
    Ok(table)
}

fn check_right(session: &Session, catalog: &CatalogState, table: &TableDef, privilege: Privilege) -> Result<()> {
    match catalog.may(session.current_user(), table.id, privilege) {
        true => Ok(()),
        false => {
            let text = format!("permission denied for table {}", table.name);
            Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, text))
        }
    }
}

/// The table a statement changes, under the name it has there.
#[derive(Debug, Clone)]
pub struct Target {
    pub table: Arc<TableDef>,
    pub alias: String,
}

impl Target {
    /// Out of `t`, `s.t`, `t AS x`.
    pub async fn of(session: &mut Session, item: &TableWithJoins, writing: Writing) -> Result<Target> {
        let (TableFactor::Table { name, alias, args: None, .. }, []) = (&item.relation, &item.joins[..]) else {
            let text = format!("{} changes one table", writing.command());
            return Err(Error::new(SqlState::SYNTAX_ERROR, text));
        };
        let table = writable_table(session, &object_name(name), writing).await?;
        let alias = alias.as_ref().map_or_else(|| table.name.clone(), |alias| fold(&alias.name));
        Ok(Target { table, alias })
    }

    /// Rows are looked at before they are changed: that takes the right to read them.
    pub async fn check_readable(&self, session: &mut Session) -> Result<()> {
        let catalog = session.catalog().await;
        check_right(session, &catalog, &self.table, Privilege::Select)
    }

    /// One of its columns in SQL.
    pub fn column(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.alias), quoted(name))
    }

    /// Itself in FROM.
    pub fn in_from(&self) -> String {
        format!("{}.{} AS {}", quoted(TARGET), quoted(&self.table.name), quoted(&self.alias))
    }

    pub fn in_from_clause(&self) -> Result<Vec<TableWithJoins>> {
        let query = parsed_query(&format!("SELECT 1 FROM {}", self.in_from()))?;
        match *query.body {
            SetExpr::Select(select) => Ok(select.from),
            _ => Err(Error::internal("a SELECT reads back as one")),
        }
    }

    /// What that means, with the chunks of the transaction's view of the catalog.
    pub fn relation(&self, catalog: &CatalogState, only: Vec<Narrowing>) -> ((Option<String>, String), Relation) {
        let chunks = catalog.chunks(self.table.id).iter().cloned().collect();
        let relation = Relation::Target { def: self.table.clone(), chunks: Arc::new(chunks), only: Arc::new(only) };
        ((Some(TARGET.to_owned()), self.table.name.clone()), relation)
    }
}

/// Whether a query may read the table; a view may.
pub async fn reads(session: &mut Session, query: &Query, table: &TableDef) -> bool {
    let catalog = session.catalog().await;
    let path = session.variables.search_path(session.current_user());
    let read = visit_relations(query, |name| {
        let (schema, name) = object_name(name);
        match find(&catalog, &session.database, &path, schema.as_deref(), &name) {
            Some(Found::Table(found)) if found.id != table.id => ControlFlow::Continue(()),
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    });
    read.is_break()
}
