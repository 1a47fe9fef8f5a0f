//! What exists, as `pg_class` would say it: one `Class` for each table, view, chunk and index.

use super::oids;
use crate::pgcatalog::schema;
use crate::pgcatalog::system::{Schema, SystemCatalog};
use engine::{ChunkDef, ColumnDef, KeyKind, PgType, TableDef};
use proto::ColumnId;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) struct Class {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub owner: String,
    /// `pg_class.relkind`.
    pub kind: char,
    pub what: What,
}

pub(super) enum What {
    Table(Arc<TableDef>),
    View(Vec<(String, PgType)>),
    Chunk(Arc<TableDef>, Arc<ChunkDef>),
    Index(Arc<TableDef>, Index),
}

/// A unique key, or one of the indexes `create_hypertable` shows.
#[derive(Clone)]
pub(super) struct Index {
    pub oid: u32,
    pub name: String,
    /// Column positions from 1, and whether they descend.
    pub columns: Vec<(usize, bool)>,
    pub key: Option<KeyKind>,
}

/// Chunks of distributed hypertables are foreign tables on the access node.
pub(super) fn chunk_kind(table: &TableDef) -> char {
    match table.hypertable.as_ref().is_some_and(|hypertable| hypertable.distributed) {
        true => 'f',
        false => 'r',
    }
}

pub(super) fn indexes(table: &TableDef) -> Vec<Index> {
    let keys = table.keys.iter().map(|key| {
        let columns = key.columns.iter().filter_map(|id| position(table, *id)).map(|at| (at + 1, false));
        Index { oid: key.oid, name: key.name.clone(), columns: columns.collect(), key: Some(key.kind) }
    });
    default_indexes(table).into_iter().chain(keys).collect()
}

fn position(table: &TableDef, id: ColumnId) -> Option<usize> {
    table.columns.iter().position(|column: &ColumnDef| column.id == id)
}

fn default_indexes(table: &TableDef) -> Vec<Index> {
    let Some(hypertable) = table.hypertable.as_ref().filter(|hypertable| hypertable.default_indexes) else {
        return Vec::new();
    };
    let Some(time) = position(table, hypertable.time_column) else { return Vec::new() };
    let time_name = &table.columns[time].name;
    let index = |number, name, columns| Index { oid: oids::index(table.id, number), name, columns, key: None };
    let by_time = index(0, format!("{}_{time_name}_idx", table.name), vec![(time + 1, true)]);
    let by_space = hypertable.space.as_ref().and_then(|space| position(table, space.column)).map(|space| {
        let name = format!("{}_{}_{time_name}_idx", table.name, table.columns[space].name);
        index(1, name, vec![(space + 1, false), (time + 1, true)])
    });
    by_space.into_iter().chain([by_time]).collect()
}

pub(super) fn classes(catalog: &dyn SystemCatalog) -> Vec<Class> {
    let mut classes = Vec::new();
    for table in catalog.tables() {
        let own = |oid, schema: &str, name: String, kind, what| Class {
            oid,
            schema: schema.to_owned(),
            name,
            owner: table.owner.clone(),
            kind,
            what,
        };
        classes.push(own(table.id.0, &table.schema, table.name.clone(), 'r', What::Table(table.clone())));
        for index in indexes(&table) {
            classes.push(own(index.oid, &table.schema, index.name.clone(), 'i', What::Index(table.clone(), index)));
        }
        if let Some(hypertable) = &table.hypertable {
            for chunk in catalog.chunks(table.id) {
                let (oid, name) = (oids::chunk(chunk.id), chunk.name(hypertable));
                let what = What::Chunk(table.clone(), chunk);
                classes.push(own(oid, &hypertable.chunk_schema, name, chunk_kind(&table), what));
            }
        }
    }
    for view in catalog.views() {
        classes.push(Class {
            oid: view.oid,
            schema: view.schema,
            name: view.name,
            owner: view.owner,
            kind: 'v',
            what: What::View(view.columns),
        });
    }
    classes
}

/// All schemas, the system's first.
pub(super) fn schemas(catalog: &dyn SystemCatalog) -> Vec<Schema> {
    let superuser =
        catalog.roles().into_iter().find(|role| role.oid == 10).map_or("postgres".to_owned(), |role| role.name);
    let own = |oid, name: &str| Schema { oid, name: name.to_owned(), owner: superuser.clone(), acl: None };
    let mut schemas = vec![
        own(oids::PG_CATALOG, schema::PG_CATALOG),
        own(oids::PG_TOAST, "pg_toast"),
        own(oids::INFORMATION_SCHEMA, "information_schema"),
    ];
    if catalog.timescaledb() {
        schemas.push(own(oids::SERIATIM_INFORMATION, "seriatim_information"));
        schemas.push(own(oids::TIMESCALEDB_INFORMATION, "timescaledb_information"));
        schemas.push(own(oids::TIMESCALEDB_EXPERIMENTAL, "timescaledb_experimental"));
        schemas.push(own(oids::TIMESCALEDB_INTERNAL, "_timescaledb_internal"));
        schemas.push(own(oids::TIMESCALEDB_FUNCTIONS, "_timescaledb_functions"));
    }
    let known: Vec<String> = schemas.iter().map(|schema| schema.name.clone()).collect();
    schemas.extend(catalog.schemas().into_iter().filter(|schema| !known.contains(&schema.name)));
    schemas
}

/// OIDs by name; 0 where a name is unknown.
pub(super) struct Names(HashMap<String, u32>);

impl Names {
    pub(super) fn schemas(catalog: &dyn SystemCatalog) -> Names {
        Names(schemas(catalog).into_iter().map(|schema| (schema.name, schema.oid)).collect())
    }

    pub(super) fn roles(catalog: &dyn SystemCatalog) -> Names {
        Names(catalog.roles().into_iter().map(|role| (role.name, role.oid)).collect())
    }

    pub(super) fn oid(&self, name: &str) -> i64 {
        let predefined = (name == "pg_database_owner").then_some(6171);
        self.0.get(name).copied().or(predefined).unwrap_or(0) as i64
    }
}
