//! Walks the bound tree: `eval` for expressions, `query` for SELECTs, `source` for FROM items and joins, `aggregate`
//! for groups and windows, `operators` for the arithmetic of values.
//!
//! Invariants
//! - Whatever a statement makes is counted: at most `ROWS_MAX` rows in all, at most `TEXT_BYTES_MAX` for one text.
//! - A query that depends on nothing outside itself runs once in a statement.

mod aggregate;
mod eval;
mod names;
mod operators;
mod query;
mod source;

pub(crate) use aggregate::json;
pub(crate) use operators::regex;
pub(crate) use query::run;

use super::relations;
use super::schema::{self, RelationDef};
use super::system::{Functions, SystemCatalog};
use super::value::{Row, Value};
use proto::{Error, Result, SqlState};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows one statement may make, intermediate ones included; far above any honest catalog query.
const ROWS_MAX: usize = 4_000_000;
/// Longest text a function may build.
pub(crate) const TEXT_BYTES_MAX: usize = 64 << 20;

/// One running statement.
pub(crate) struct Context<'a> {
    pub catalog: &'a dyn SystemCatalog,
    pub host: &'a mut dyn Functions,
    pub params: &'a [Value],
    relations: HashMap<u32, Arc<Vec<Row>>>,
    indexes: HashMap<(u32, usize), Arc<Index>>,
    /// Rows of the table expressions in force, by slot.
    ctes: HashMap<usize, Arc<Vec<Row>>>,
    /// Rows of queries that are not correlated, by id.
    queries: HashMap<usize, Arc<Vec<Row>>>,
    rows_made: usize,
}

/// Positions of a relation's rows by the value of one column.
type Index = HashMap<Value, Vec<u32>>;

/// The rows in scope: this level's, or the part of it made so far, starting at position `base`.
#[derive(Clone, Copy)]
pub(crate) struct Env<'e> {
    pub row: &'e [Value],
    pub base: usize,
    pub parent: Option<&'e Env<'e>>,
}

impl Env<'_> {
    pub(crate) const EMPTY: Env<'static> = Env { row: &[], base: 0, parent: None };
}

impl<'a> Context<'a> {
    pub(crate) fn new(catalog: &'a dyn SystemCatalog, host: &'a mut dyn Functions, params: &'a [Value]) -> Self {
        Context {
            catalog,
            host,
            params,
            relations: HashMap::new(),
            indexes: HashMap::new(),
            ctes: HashMap::new(),
            queries: HashMap::new(),
            rows_made: 0,
        }
    }

    /// Counts `rows` more.
    fn make(&mut self, rows: usize) -> Result<()> {
        self.rows_made = self.rows_made.saturating_add(rows);
        match self.rows_made > ROWS_MAX {
            true => Err(Error::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("a catalog query may not make more than {ROWS_MAX} rows"),
            )),
            false => Ok(()),
        }
    }

    pub(crate) fn relation(&mut self, def: &Arc<RelationDef>) -> Arc<Vec<Row>> {
        if let Some(rows) = self.relations.get(&def.oid) {
            return rows.clone();
        }
        let rows = Arc::new(relations::rows(def, self.catalog));
        self.relations.insert(def.oid, rows.clone());
        rows
    }

    fn index(&mut self, def: &Arc<RelationDef>, column: usize) -> Arc<Index> {
        if let Some(index) = self.indexes.get(&(def.oid, column)) {
            return index.clone();
        }
        let rows = self.relation(def);
        let mut index = Index::new();
        for (at, row) in rows.iter().enumerate() {
            index.entry(row[column].clone()).or_default().push(at as u32);
        }
        let index = Arc::new(index);
        self.indexes.insert((def.oid, column), index.clone());
        index
    }

    /// The rows of a `pg_catalog` relation whose `column` has a value.
    pub(crate) fn lookup(&mut self, relation: &str, column: &str, key: &Value) -> Vec<Row> {
        let def = schema::find(None, relation).expect("looked-up catalogs are recorded");
        let at = def.index_of(column).expect("looked-up columns are recorded");
        let index = self.index(&def, at);
        let rows = self.relation(&def);
        index.get(key).map_or_else(Vec::new, |found| found.iter().map(|at| rows[*at as usize].clone()).collect())
    }

    /// One column of the first such row.
    pub(crate) fn lookup_value(&mut self, relation: &str, column: &str, key: &Value, wanted: &str) -> Option<Value> {
        let row = self.lookup(relation, column, key).into_iter().next()?;
        Some(row[column_of(relation, wanted)].clone())
    }

    pub(crate) fn time_zone(&self) -> String {
        self.catalog.setting("timezone").unwrap_or_else(|| "UTC".to_owned())
    }
}

/// Position of a `pg_catalog` relation's column.
pub(crate) fn column_of(relation: &str, column: &str) -> usize {
    schema::find(None, relation).and_then(|def| def.index_of(column)).expect("looked-up columns are recorded")
}
