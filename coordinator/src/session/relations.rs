//! Names to relations, as one statement sees them: tables and views of the session's database along its search path,
//! then the system's own relations, read as rows.

use crate::catalog::{CatalogState, Privilege, Relation as Found};
use crate::pgcatalog::{self, SystemCatalog};
use engine::plan::{Relation, Relations};
use parking_lot::Mutex;
use proto::TableId;
use std::sync::Arc;

pub(super) struct StatementRelations<S> {
    catalog: Arc<CatalogState>,
    database: String,
    search_path: Vec<String>,
    system: S,
    /// Every table and view the statement named, for the check of its rights.
    named: Mutex<Vec<TableId>>,
}

impl<S: SystemCatalog> StatementRelations<S> {
    pub fn new(catalog: Arc<CatalogState>, database: &str, search_path: Vec<String>, system: S) -> Self {
        StatementRelations { catalog, database: database.to_owned(), search_path, system, named: Mutex::default() }
    }

    /// The first named relation the role may not read.
    pub fn first_denied(&self, role: &str) -> Option<String> {
        let named = self.named.lock();
        let denied = named.iter().find(|id| !self.catalog.may(role, **id, Privilege::Select))?;
        Some(relation_name(&self.catalog, *denied))
    }
}

pub(super) fn relation_name(catalog: &CatalogState, id: TableId) -> String {
    match catalog.relation_by_id(id) {
        Some(Found::Table(table)) => table.name.clone(),
        Some(Found::View(view)) => view.name.clone(),
        None => id.to_string(),
    }
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
        match find(&self.catalog, &self.database, &self.search_path, schema, name) {
            Some(Found::Table(def)) => {
                self.named.lock().push(def.id);
                let chunks = self.catalog.chunks(def.id).iter().cloned().collect();
                Some(Relation::Table { def: def.clone(), chunks: Arc::new(chunks) })
            }
            Some(Found::View(view)) => {
                self.named.lock().push(view.id);
                Some(Relation::View { sql: view.sql.clone() })
            }
            None => {
                let rows = pgcatalog::relation(schema, name, &self.system).ok()??;
                Some(Relation::Rows(rows.to_batch().ok()?))
            }
        }
    }
}
