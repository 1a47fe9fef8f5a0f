//! Names to relations, as one statement sees them: tables and views of the session's database along its search path,
//! then the system's own relations, read as rows.
//!
//! Inside a view, relations are named by oid in a private schema: `"\0<view>"."<oid>"`. A NUL ends a string on the wire,
//! so no client can name one. What a view reads is read with the rights of its owner, and under the names its columns
//! had when it was made.

use crate::catalog::{CatalogState, Privilege, Relation as Found};
use crate::pgcatalog::{self, SystemCatalog};
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart};
use engine::plan::{Relation, Relations};
use parking_lot::Mutex;
use proto::{Error, Result, SqlState, TableId};
use std::sync::Arc;

/// Relations that only one statement knows, by their names (`engine::plan::target`).
pub(super) type Own = Vec<((Option<String>, String), Relation)>;

pub(super) struct StatementRelations<S> {
    own: Own,
    catalog: Arc<CatalogState>,
    database: String,
    search_path: Vec<String>,
    system: S,
    /// Every table and view the statement named, for the check of its rights; those a view named with its owner.
    named: Mutex<Vec<(TableId, Option<String>)>>,
}

impl<S: SystemCatalog> StatementRelations<S> {
    pub fn new(catalog: Arc<CatalogState>, database: &str, search_path: Vec<String>, system: S) -> Self {
        let (own, named) = (Own::default(), Mutex::default());
        StatementRelations { own, catalog, database: database.to_owned(), search_path, system, named }
    }

    pub fn with_own(self, own: Own) -> Self {
        StatementRelations { own, ..self }
    }

    /// # Errors
    /// `42501` for the first named relation that the role, or the owner of the view around it, may not read.
    pub fn check_readable(&self, role: &str) -> Result<()> {
        let named = self.named.lock();
        let may = |id: TableId, reader: &str| self.catalog.may(reader, id, Privilege::Select);
        match named.iter().find(|(id, owner)| !may(*id, owner.as_deref().unwrap_or(role))) {
            None => Ok(()),
            Some((id, _)) => {
                let what = match self.catalog.relation_by_id(*id) {
                    Some(Found::Table(table)) => format!("table {}", table.name),
                    Some(Found::View(view)) => format!("view {}", view.name),
                    None => format!("relation {id}"),
                };
                Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for {what}")))
            }
        }
    }

    fn found(&self, found: Found<'_>, reader: Option<String>) -> Relation {
        self.named.lock().push((found.id(), reader));
        match found {
            Found::Table(def) => {
                let chunks = self.catalog.chunks(def.id).iter().cloned().collect();
                Relation::Table { def: def.clone(), chunks: Arc::new(chunks) }
            }
            Found::View(view) => Relation::View { sql: view.bound.replace(PRIVATE, &private_schema(Some(view.id))) },
        }
    }

    /// What a view names. While it is made, it is not known and its maker reads.
    fn bound(&self, schema: &str, name: &str) -> Option<Relation> {
        let view = schema.strip_prefix(PRIVATE)?.parse().ok().and_then(|id| self.catalog.relation_by_id(TableId(id)));
        let now = name.strip_suffix(NOW);
        let found = self.catalog.relation_by_id(TableId(now.unwrap_or(name).parse().ok()?))?;
        let Some(Found::View(view)) = view else { return Some(self.found(found, None)) };
        let (then, current) = (view.reads.get(&found.id())?, found.column_names());
        if now.is_some() || *then == current {
            return Some(self.found(found, Some(view.owner.clone())));
        }
        let quoted = |name: &str| Ident::with_quote('"', name).to_string();
        let kept = then.iter().filter_map(|(id, name)| {
            let (_, now) = current.iter().find(|(other, _)| other == id)?;
            Some(format!("{} AS {}", quoted(now), quoted(name)))
        });
        let kept = kept.collect::<Vec<_>>().join(", ");
        Some(Relation::View {
            sql: format!("SELECT {kept} FROM {}.{}", quoted(schema), quoted(&format!("{name}{NOW}"))),
        })
    }
}

/// No statement that a client sends can hold it.
const PRIVATE: char = '\0';
/// Behind an oid: with the columns there are now.
const NOW: &str = " now";

fn private_schema(view: Option<TableId>) -> String {
    view.map_or_else(|| PRIVATE.to_string(), |view| format!("{PRIVATE}{}", view.0))
}

/// How the query of a view names a relation.
pub(super) fn bound_name(relation: TableId) -> ObjectName {
    let part = |text: String| ObjectNamePart::Identifier(Ident::with_quote('"', text));
    ObjectName(vec![part(private_schema(None)), part(relation.0.to_string())])
}

pub(super) fn is_bound(schema: &str) -> bool {
    schema.starts_with(PRIVATE)
}

/// The table or view that a name means.
pub(super) fn find<'a>(
    catalog: &'a CatalogState,
    database: &str,
    search_path: &[String],
    schema: Option<&str>,
    name: &str,
) -> Option<Found<'a>> {
    match schema {
        Some(schema) => catalog.relation(database, schema, name),
        None => search_path.iter().find_map(|schema| catalog.relation(database, schema, name)),
    }
}

impl<S: SystemCatalog + Send + Sync> Relations for StatementRelations<S> {
    fn relation(&self, schema: Option<&str>, name: &str) -> Option<Relation> {
        let is_named = |(of, own): &(Option<String>, String)| of.as_deref() == schema && own == name;
        if let Some((_, own)) = self.own.iter().find(|(own, _)| is_named(own)) {
            return Some(own.clone());
        }
        if let Some(schema) = schema.filter(|schema| is_bound(schema)) {
            return self.bound(schema, name);
        }
        match find(&self.catalog, &self.database, &self.search_path, schema, name) {
            Some(found) => Some(self.found(found, None)),
            None => {
                let rows = pgcatalog::relation(schema, name, &self.system).ok()??;
                Some(Relation::Rows(rows.to_batch().ok()?))
            }
        }
    }
}
