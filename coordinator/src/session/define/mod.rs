//! Definitions: statements that change the catalog. Each only adds changes to the transaction; what they do is undone by
//! ROLLBACK.
//!
//! `columns` types and column definitions · `keys` PRIMARY KEY and UNIQUE · `index` · `table` CREATE, ALTER, TRUNCATE ·
//! `drop` tables and views · `view` views, `bound` their queries · `database` databases,
//! schemas, extensions · `role` roles and their passwords · `grant` rights.

mod bound;
mod columns;
mod database;
mod drop;
pub mod grant;
mod index;
mod keys;
mod role;
mod table;
mod view;

pub(super) use columns::column_type;

use super::Session;
use super::parse::{TableOption, fold};
use crate::catalog::CatalogChange;
use crate::pg::backend::{Notice, Outcome};
use datafusion::sql::sqlparser::ast::{ObjectName, ObjectNamePart, ObjectType, Statement};
use drop::Kind;
use engine::TableDef;
use proto::{Error, Result, SqlState};

/// `ALTER TABLE … SET (…)`.
pub(super) async fn set_table_options(
    session: &mut Session,
    table: &(Option<String>, String),
    if_exists: bool,
    options: &[TableOption],
) -> Result<Outcome> {
    let tag = table::set_options(session, table, if_exists, options).await?;
    Ok(Outcome::Done { tag: tag.to_owned() })
}

/// `None`: not a definition.
pub(super) async fn run(session: &mut Session, statement: &Statement) -> Result<Option<Outcome>> {
    let tag = match statement {
        Statement::CreateTable(create) => return table::create(session, create).await.map(Some),
        Statement::AlterTable(alter) => table::alter(session, alter).await?,
        Statement::Truncate(truncate) => table::truncate(session, truncate).await?,
        Statement::CreateIndex(create) => index::create(session, create).await?,
        Statement::CreateView(create) => view::create(session, create).await?,
        Statement::CreateSchema { schema_name, if_not_exists, .. } => {
            database::create_schema(session, schema_name, *if_not_exists).await?
        }
        Statement::CreateDatabase { db_name, if_not_exists, .. } => {
            database::create(session, db_name, *if_not_exists).await?
        }
        Statement::CreateExtension(create) => database::create_extension(session, create).await?,
        Statement::DropExtension(drop) => database::drop_extension(session, drop).await?,
        Statement::CreateRole(create) => role::create(session, create).await?,
        Statement::AlterRole { name, operation } => role::alter(session, name, operation).await?,
        Statement::Grant(grant) => grant::grant(session, grant).await?,
        Statement::Revoke(revoke) => grant::revoke(session, revoke).await?,
        Statement::Comment { object_type, object_name, comment, if_exists } => {
            table::comment(session, object_type, object_name, comment.clone(), *if_exists).await?
        }
        Statement::Drop { object_type, if_exists, names, cascade, .. } => {
            drop_objects(session, *object_type, *if_exists, names, *cascade).await?
        }
        _ => return Ok(None),
    };
    Ok(Some(Outcome::Done { tag: tag.to_owned() }))
}

async fn drop_objects(
    session: &mut Session,
    kind: ObjectType,
    if_exists: bool,
    names: &[ObjectName],
    cascade: bool,
) -> Result<&'static str> {
    for name in names {
        let name = object_name(name);
        match kind {
            ObjectType::Table => drop::relation(session, Kind::Table, &name, if_exists, cascade).await?,
            ObjectType::View => drop::relation(session, Kind::View, &name, if_exists, cascade).await?,
            ObjectType::Schema => database::drop_schema(session, &name.1, if_exists, cascade).await?,
            ObjectType::Database => database::drop(session, &name.1, if_exists).await?,
            ObjectType::Role | ObjectType::User => role::drop(session, &name.1, if_exists).await?,
            ObjectType::Index => index::drop(session, &name, if_exists).await?,
            other => return Err(Error::unsupported(format!("DROP {other}"))),
        }
    }
    Ok(match kind {
        ObjectType::Table => "DROP TABLE",
        ObjectType::View => "DROP VIEW",
        ObjectType::Schema => "DROP SCHEMA",
        ObjectType::Database => "DROP DATABASE",
        ObjectType::Index => "DROP INDEX",
        _ => "DROP ROLE",
    })
}

/// `IF EXISTS` turns the error into a notice.
fn skip_or(session: &mut Session, if_exists: bool, missing: Error) -> Result<()> {
    match if_exists {
        true => {
            session.notice(Notice::notice(format!("{}, skipping", missing.message)));
            Ok(())
        }
        false => Err(missing),
    }
}

/// Schema and name as PostgreSQL folds them; a database in front is dropped.
pub(super) fn object_name(name: &ObjectName) -> (Option<String>, String) {
    let mut parts = name.0.iter().map(|part| match part {
        ObjectNamePart::Identifier(ident) => fold(ident),
        other => other.to_string(),
    });
    let mut parts = parts.by_ref().collect::<Vec<_>>();
    let last = parts.pop().unwrap_or_default();
    (parts.pop(), last)
}

pub(super) fn no_relation(name: &(Option<String>, String)) -> Error {
    let full = match &name.0 {
        Some(schema) => format!("{schema}.{}", name.1),
        None => name.1.clone(),
    };
    Error::new(SqlState::UNDEFINED_TABLE, format!("relation \"{full}\" does not exist"))
}

impl Session {
    /// Adds a change to the open transaction.
    pub(crate) async fn change(&mut self, change: CatalogChange) -> Result<()> {
        let transaction = self.transaction();
        let mut transaction = transaction.lock().await;
        transaction.change(change)
    }

    /// The schema new relations go to: the named one, else the first of the search path that exists.
    pub(super) async fn target_schema(&mut self, named: Option<&str>) -> Result<String> {
        let catalog = self.catalog().await;
        let database = catalog.database(&self.database)?;
        let no_schema =
            |name: &str| Error::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"));
        if let Some(name) = named {
            return match database.schemas.contains_key(name) {
                true => Ok(name.to_owned()),
                false => Err(no_schema(name)),
            };
        }
        let path = self.variables.search_path(self.current_user());
        let found = path.into_iter().find(|name| database.schemas.contains_key(name));
        found.ok_or_else(|| Error::new(SqlState::INVALID_SCHEMA_NAME, "no schema has been selected to create in"))
    }

    /// # Errors
    /// `42501 must be owner of table t`.
    pub(crate) async fn check_owner(&mut self, table: &TableDef) -> Result<()> {
        self.check_owner_of("table", &table.name, &table.owner).await
    }

    pub(super) async fn check_owner_of(&mut self, kind: &str, name: &str, owner: &str) -> Result<()> {
        let catalog = self.catalog().await;
        let user = self.current_user();
        let superuser = catalog.role(user).is_ok_and(|role| role.superuser);
        match superuser || catalog.memberships(user).iter().any(|role| role == owner) {
            true => Ok(()),
            false => Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be owner of {kind} {name}"))),
        }
    }

    pub(crate) async fn is_superuser(&mut self) -> bool {
        let catalog = self.catalog().await;
        catalog.role(self.current_user()).is_ok_and(|role| role.superuser)
    }
}
