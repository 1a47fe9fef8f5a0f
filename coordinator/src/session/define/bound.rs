//! A view's query bound to what it reads: the names of tables and views in it are replaced by their oids, in a schema
//! that no client can name, so that neither a rename nor another search path changes what the view means.
//!
//! It is not a change of the query: every replaced name stays as an alias, so that columns are found as they were.

use super::object_name;
use crate::catalog::{CatalogState, ColumnNames, Relation};
use crate::session::parse::fold;
use crate::session::relations::{bound_name, find};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, TableAlias, TableFactor, VisitMut, VisitorMut, With};
use datafusion::sql::sqlparser::ast::{ObjectName, visit_relations};
use proto::{Error, Result, TableId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

pub(super) struct Bound {
    pub query: Query,
    /// What it reads, with the columns that there are now.
    pub reads: BTreeMap<TableId, ColumnNames>,
}

/// # Errors
/// `0A000` for a WITH query that has the name of the relation it reads.
pub(super) fn bind(catalog: &CatalogState, database: &str, path: &[String], query: &Query) -> Result<Bound> {
    let mut query = query.clone();
    let mut binder = Binder { catalog, database, path, with: Vec::new(), reads: BTreeMap::new(), columns: Vec::new() };
    match query.visit(&mut binder) {
        ControlFlow::Continue(()) => Ok(Bound { query, reads: binder.reads }),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Binder<'a> {
    catalog: &'a CatalogState,
    database: &'a str,
    path: &'a [String],
    /// Names that WITH gives in the queries around.
    with: Vec<BTreeSet<String>>,
    reads: BTreeMap<TableId, ColumnNames>,
    /// Schema and name of what was replaced so far: columns spelled with both lose the schema.
    columns: Vec<(String, String)>,
}

impl<'a> Binder<'a> {
    fn find(&self, name: &ObjectName) -> Option<Relation<'a>> {
        let (schema, name) = object_name(name);
        find(self.catalog, self.database, self.path, schema.as_deref(), &name)
    }

    /// `WITH t AS (SELECT … FROM t)`: inside, `t` is the table, and behind it the query.
    fn check_own_names(&self, with: &With) -> ControlFlow<Error> {
        for (n, table) in with.cte_tables.iter().enumerate().filter(|_| !with.recursive) {
            let later = with.cte_tables[n..].iter().map(|table| fold(&table.alias.name)).collect::<BTreeSet<_>>();
            visit_relations(&table.query, |name| {
                let bare = object_name(name);
                match bare.0.is_none() && later.contains(&bare.1) && self.find(name).is_some() {
                    true => ControlFlow::Break(Error::unsupported(format!(
                        "a view with a WITH query \"{}\" that has the name of a relation in use",
                        bare.1
                    ))),
                    false => ControlFlow::Continue(()),
                }
            })?;
        }
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Binder<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let mut names = BTreeSet::new();
        if let Some(with) = &query.with {
            self.check_own_names(with)?;
            names.extend(with.cte_tables.iter().map(|table| fold(&table.alias.name)));
        }
        self.with.push(names);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.with.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return ControlFlow::Continue(()) };
        let (schema, bare) = object_name(name);
        if schema.is_none() && self.with.iter().any(|names| names.contains(&bare)) {
            return ControlFlow::Continue(());
        }
        let Some(found) = self.find(name) else { return ControlFlow::Continue(()) };
        *name = bound_name(found.id());
        self.reads.insert(found.id(), found.column_names());
        if alias.is_none() {
            self.columns.extend(schema.map(|schema| (schema, bare.clone())));
            let name = Ident::with_quote('"', bare);
            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [.., schema, table, _] = &parts[..]
            && self.columns.contains(&(fold(schema), fold(table)))
        {
            parts.drain(..parts.len() - 2);
        }
        ControlFlow::Continue(())
    }
}
