//! The rows of each catalog relation, made from what exists. A relation nobody fills has none.
//!
//! OIDs: tables and views have their own; chunks, indexes and triggers are derived from a table's or chunk's number, in
//! ranges that tables never reach.

mod cluster;
mod jobs;
mod model;
mod objects;
pub(crate) mod oids;
mod standard;
mod timescale;
mod views;

pub(crate) use timescale::{TIMESCALEDB_COMMENT, TIMESCALEDB_VERSION};

use super::schema::{self, Filler, RelationDef, is_integer};
use super::system::SystemCatalog;
use super::value::{Row, Value};
use engine::PgType;
use std::sync::Arc;

pub(crate) fn rows(def: &Arc<RelationDef>, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let fill = Filler::new(def.clone());
    match (def.schema.as_str(), def.name.as_str()) {
        ("pg_catalog", name) => objects::rows(name, &fill, catalog)
            .or_else(|| cluster::rows(name, &fill, catalog))
            .or_else(|| views::rows(name, &fill, catalog))
            .unwrap_or_else(|| recorded(def)),
        ("information_schema", name) => standard::rows(name, &fill, catalog).unwrap_or_default(),
        (schema, name) => timescale::rows(schema, name, &fill, catalog).unwrap_or_default(),
    }
}

/// Rows as PostgreSQL 15 has them in every database.
pub(crate) fn recorded(def: &RelationDef) -> Vec<Row> {
    let names: Vec<(&str, i64)> = match def.name.as_str() {
        // Functions are named by their OIDs inside.
        "pg_type" | "pg_am" | "pg_language" | "pg_range" => function_oids(),
        _ => Vec::new(),
    };
    let rows = schema::static_rows(&def.name).map(|texts| {
        let values = def.columns.iter().zip(&texts).map(|(column, text)| recorded_value(text, &column.ty, &names));
        let mut row: Row = values.collect();
        row.resize(def.columns.len(), Value::Null);
        row
    });
    rows.collect()
}

fn function_oids() -> Vec<(&'static str, i64)> {
    let rows = schema::static_rows("pg_proc").filter_map(|row| Some((row[1], row[0].parse().ok()?)));
    rows.collect()
}

fn recorded_value(text: &str, ty: &PgType, functions: &[(&str, i64)]) -> Value {
    match ty {
        _ if text == "\\N" => Value::Null,
        PgType::Bool => Value::Bool(text == "t"),
        PgType::Regproc => {
            let found = functions.iter().find(|(name, _)| *name == text);
            Value::Int(found.map_or(0, |(_, oid)| *oid))
        }
        ty if is_integer(ty) => text.parse().map_or(Value::Null, Value::Int),
        PgType::Float4 | PgType::Float8 => text.parse().map_or(Value::Null, Value::Float),
        PgType::OidVector | PgType::Int2Vector => {
            Value::array(text.split_whitespace().filter_map(|part| part.parse().ok()).map(Value::Int))
        }
        _ => Value::text(text),
    }
}
