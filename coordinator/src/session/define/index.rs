//! CREATE INDEX and DROP INDEX. A unique index is a key of its table; any other index would be of no use, since chunks are
//! kept sorted and carry statistics, and is only acknowledged.

use super::columns::unserved;
use super::table::{column_of, owned};
use super::{keys, object_name, skip_or};
use crate::catalog::CatalogChange;
use crate::pg::backend::Notice;
use crate::session::Session;
use crate::session::parse::fold;
use datafusion::sql::sqlparser::ast::{CreateIndex, Expr};
use engine::{KeyKind, TableDef};
use proto::{Error, Result, SqlState};

pub async fn create(session: &mut Session, create: &CreateIndex) -> Result<&'static str> {
    session.check_writable("CREATE INDEX")?;
    let Some(table) = owned(session, &object_name(&create.table_name), false).await? else {
        return Ok("CREATE INDEX");
    };
    if create.unique {
        return create_unique(session, &table, create).await;
    }
    for column in &create.columns {
        if let Expr::Identifier(ident) = &column.column.expr {
            column_of(&table, &fold(ident))?;
        }
    }
    session.notice(
        Notice::notice(format!("no index was built on \"{}\"", table.name))
            .detail("Chunks are kept sorted by their space column and time, with statistics for everything else."),
    );
    Ok("CREATE INDEX")
}

async fn create_unique(session: &mut Session, table: &TableDef, create: &CreateIndex) -> Result<&'static str> {
    let unserved_parts = [
        (create.predicate.is_some(), "a partial UNIQUE index"),
        (!create.include.is_empty(), "INCLUDE in a UNIQUE index"),
        (create.nulls_distinct == Some(false), "NULLS NOT DISTINCT"),
        (
            create.using.as_ref().is_some_and(|using| !using.to_string().eq_ignore_ascii_case("btree")),
            "this index type",
        ),
    ];
    if let Some((_, what)) = unserved_parts.iter().find(|(given, _)| *given) {
        return Err(unserved(what));
    }
    let catalog = session.catalog().await;
    let name = create.name.as_ref().map(|name| object_name(name).1);
    let exists = |name: &String| {
        catalog.has_key(&table.database, &table.schema, name)
            || catalog.relation(&table.database, &table.schema, name).is_some()
    };
    if let Some(name) = name.as_ref().filter(|name| create.if_not_exists && exists(name)) {
        session.notice(Notice::notice(format!("relation \"{name}\" already exists, skipping")));
        return Ok("CREATE INDEX");
    }
    let wanted = keys::Wanted { name, kind: KeyKind::Index, columns: keys::column_names(&create.columns)? };
    let key = keys::resolved(session, &catalog, table, wanted)?;
    session.change(CatalogChange::AddKey { table: table.id, key }).await?;
    Ok("CREATE INDEX")
}

pub async fn drop(session: &mut Session, name: &(Option<String>, String), if_exists: bool) -> Result<()> {
    session.check_writable("DROP INDEX")?;
    let catalog = session.catalog().await;
    let schemas = match &name.0 {
        Some(schema) => vec![schema.clone()],
        None => session.variables.search_path(session.current_user()),
    };
    let Some((table, key)) = keys::find(&catalog, &session.database, &schemas, &name.1) else {
        let missing = Error::new(SqlState::UNDEFINED_OBJECT, format!("index \"{}\" does not exist", name.1));
        return skip_or(session, if_exists, missing);
    };
    session.check_owner_of("index", &key.name, &table.owner).await?;
    if key.kind != KeyKind::Index {
        let constraint = format!("constraint {} on table {}", key.name, table.name);
        let text = format!("cannot drop index {} because {constraint} requires it", key.name);
        return Err(Error::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, text)
            .hint(format!("You can drop {constraint} instead.")));
    }
    session.change(CatalogChange::DropKey { table: table.id, key: key.name.clone() }).await
}
