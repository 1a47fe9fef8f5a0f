//! PostgreSQL's words for what a change may be refused for.

use proto::{Error, NodeName, SqlState, TableId};

pub(super) fn exists(code: SqlState, kind: &str, name: &str) -> Error {
    Error::new(code, format!("{kind} \"{name}\" already exists"))
}

pub(super) fn missing(code: SqlState, kind: &str, name: &str) -> Error {
    Error::new(code, format!("{kind} \"{name}\" does not exist"))
}

pub(super) fn no_database(name: &str) -> Error {
    missing(SqlState::INVALID_CATALOG_NAME, "database", name)
}

pub(super) fn no_schema(name: &str) -> Error {
    missing(SqlState::INVALID_SCHEMA_NAME, "schema", name)
}

pub(super) fn no_role(name: &str) -> Error {
    missing(SqlState::UNDEFINED_OBJECT, "role", name)
}

pub(super) fn no_node(name: &NodeName) -> Error {
    missing(SqlState::UNDEFINED_OBJECT, "server", name.as_str())
}

/// A relation that went away under a running transaction is known by its oid only, as in PostgreSQL.
pub(super) fn no_relation(id: TableId) -> Error {
    Error::new(SqlState::UNDEFINED_TABLE, format!("relation with OID {id} does not exist"))
}

pub(super) fn relation_exists(name: &str) -> Error {
    exists(SqlState::DUPLICATE_TABLE, "relation", name)
}

pub(super) fn column_exists(column: &str, table: &str) -> Error {
    let text = format!("column \"{column}\" of relation \"{table}\" already exists");
    Error::new(SqlState::DUPLICATE_COLUMN, text)
}

pub(super) fn still_needed(what: &str, detail: String) -> Error {
    let text = format!("cannot drop {what} because other objects depend on it");
    Error::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, text).detail(detail)
}

pub(crate) fn several_primary_keys(table: &str) -> Error {
    let text = format!("multiple primary keys for table \"{table}\" are not allowed");
    Error::new(SqlState::INVALID_TABLE_DEFINITION, text)
}

pub(super) fn no_job(id: u32) -> Error {
    Error::new(SqlState::UNDEFINED_OBJECT, format!("job {id} not found"))
}

/// Another transaction was quicker.
pub(super) fn changed_meanwhile(what: &str) -> Error {
    let text = format!("could not serialize access: {what} was changed by another transaction");
    Error::new(SqlState::SERIALIZATION_FAILURE, text).hint("The transaction might succeed if retried.")
}
