//! Databases, schemas and extensions.

use super::columns::{checked_name, unserved};
use super::drop::{self, Kind};
use super::{object_name, skip_or};
use crate::catalog::{CatalogChange, Database, Extension, Relation, Schema};
use crate::pg::backend::Notice;
use crate::session::Session;
use crate::session::parse::fold;
use datafusion::sql::sqlparser::ast::{CreateExtension, DropExtension, ObjectName, SchemaName};
use proto::{Error, Result, SqlState};
use std::collections::BTreeMap;

/// The TimescaleDB whose surface we serve; clients switch features on by it.
const TIMESCALEDB_VERSION: &str = "2.13.1";
const PLPGSQL_VERSION: &str = "1.0";

pub async fn create(session: &mut Session, name: &ObjectName, if_not_exists: bool) -> Result<&'static str> {
    session.check_no_block("CREATE DATABASE")?;
    let name = checked_name(object_name(name).1)?;
    let catalog = session.catalog().await;
    let creator = catalog.role(session.current_user())?;
    if !creator.superuser && !creator.create_db {
        return Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, "permission denied to create database"));
    }
    if if_not_exists && catalog.database(&name).is_ok() {
        session.notice(Notice::notice(format!("database \"{name}\" already exists, skipping")));
        return Ok("CREATE DATABASE");
    }
    let oid = session.new_oid();
    let database = Database::new(oid, &name, session.current_user());
    session.change(CatalogChange::CreateDatabase(database)).await?;
    Ok("CREATE DATABASE")
}

pub async fn drop(session: &mut Session, name: &str, if_exists: bool) -> Result<()> {
    session.check_no_block("DROP DATABASE")?;
    let catalog = session.catalog().await;
    let database = match catalog.database(name) {
        Ok(database) => database,
        Err(missing) => return skip_or(session, if_exists, missing),
    };
    session.check_owner_of("database", name, &database.owner).await?;
    if name == session.database {
        return Err(Error::new(SqlState::new("55006"), "cannot drop the currently open database"));
    }
    let others = session.front.activity.lock().values().filter(|other| other.database == name).count();
    if others > 0 {
        let message = format!("database \"{name}\" is being accessed by other users");
        let detail = format!("There {} using the database.", plural(others));
        return Err(Error::new(SqlState::new("55006"), message).detail(detail));
    }
    session.change(CatalogChange::DropDatabase(name.to_owned())).await
}

fn plural(sessions: usize) -> String {
    match sessions {
        1 => "is 1 other session".to_owned(),
        more => format!("are {more} other sessions"),
    }
}

pub async fn create_schema(session: &mut Session, name: &SchemaName, if_not_exists: bool) -> Result<&'static str> {
    session.check_writable("CREATE SCHEMA")?;
    let (name, owner) = match name {
        SchemaName::Simple(name) => (object_name(name).1, session.current_user().to_owned()),
        SchemaName::UnnamedAuthorization(owner) => (fold(owner), fold(owner)),
        SchemaName::NamedAuthorization(name, owner) => (object_name(name).1, fold(owner)),
    };
    let name = checked_name(name)?;
    if name.starts_with("pg_") {
        return Err(Error::new(SqlState::new("42939"), format!("unacceptable schema name \"{name}\""))
            .detail("The prefix \"pg_\" is reserved for system schemas."));
    }
    let catalog = session.catalog().await;
    catalog.role(&owner)?;
    let database = session.database.clone();
    if if_not_exists && catalog.database(&database)?.schemas.contains_key(&name) {
        session.notice(Notice::notice(format!("schema \"{name}\" already exists, skipping")));
        return Ok("CREATE SCHEMA");
    }
    let schema = Schema { oid: session.new_oid(), owner, relations: BTreeMap::new(), comment: None };
    session.change(CatalogChange::CreateSchema { database, name, schema }).await?;
    Ok("CREATE SCHEMA")
}

pub async fn drop_schema(session: &mut Session, name: &str, if_exists: bool, cascade: bool) -> Result<()> {
    session.check_writable("DROP SCHEMA")?;
    let catalog = session.catalog().await;
    let database = session.database.clone();
    let Some(schema) = catalog.database(&database)?.schemas.get(name) else {
        let missing = Error::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"));
        return skip_or(session, if_exists, missing);
    };
    session.check_owner_of("schema", name, &schema.owner).await?;
    if cascade {
        for relation in schema.relations.keys() {
            let relation = (Some(name.to_owned()), relation.clone());
            let now = session.catalog().await;
            let kind = match now.relation(&database, name, &relation.1) {
                Some(Relation::Table(_)) => Kind::Table,
                Some(Relation::View(_)) => Kind::View,
                // Went with another one before it.
                None => continue,
            };
            drop::relation(session, kind, &relation, true, true).await?;
        }
    }
    session.change(CatalogChange::DropSchema { database, name: name.to_owned() }).await
}

pub async fn create_extension(session: &mut Session, create: &CreateExtension) -> Result<&'static str> {
    session.check_writable("CREATE EXTENSION")?;
    let name = fold(&create.name);
    let version = match name.as_str() {
        "timescaledb" => TIMESCALEDB_VERSION,
        "plpgsql" => PLPGSQL_VERSION,
        _ => {
            return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, format!("extension \"{name}\" is not available"))
                .hint("Seriatim serves timescaledb's functions and views itself; other extensions cannot be loaded."));
        }
    };
    let catalog = session.catalog().await;
    let database = session.database.clone();
    if name == "plpgsql" || catalog.has_extension(&database, &name) {
        let message = format!("extension \"{name}\" already exists");
        if !create.if_not_exists {
            return Err(Error::new(SqlState::DUPLICATE_OBJECT, message));
        }
        session.notice(Notice::notice(format!("{message}, skipping")));
        return Ok("CREATE EXTENSION");
    }
    let schema = create.schema.as_ref().map_or_else(|| "public".to_owned(), fold);
    let extension = Extension { oid: session.new_oid(), version: version.to_owned(), schema };
    session.change(CatalogChange::CreateExtension { database, name, extension }).await?;
    Ok("CREATE EXTENSION")
}

pub async fn drop_extension(session: &mut Session, drop: &DropExtension) -> Result<&'static str> {
    session.check_writable("DROP EXTENSION")?;
    for name in drop.names.iter().map(fold) {
        let catalog = session.catalog().await;
        let database = session.database.clone();
        if !catalog.has_extension(&database, &name) {
            let missing = Error::new(SqlState::UNDEFINED_OBJECT, format!("extension \"{name}\" does not exist"));
            skip_or(session, drop.if_exists, missing)?;
            continue;
        }
        let hypertables = catalog.tables().filter(|table| table.database == database && table.hypertable.is_some());
        if hypertables.count() > 0 {
            return Err(unserved("DROP EXTENSION while there are hypertables"));
        }
        session.change(CatalogChange::DropExtension { database, name }).await?;
    }
    Ok("DROP EXTENSION")
}
