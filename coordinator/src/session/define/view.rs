//! Views: the query's text as it was written, and the same bound to what it reads.

use super::bound::bind;
use super::columns::{checked_name, unserved};
use super::drop::drop_dependants;
use super::object_name;
use crate::catalog::{CatalogChange, CatalogState, Relation, ViewDef};
use crate::pg::backend::Notice;
use crate::session::Session;
use crate::session::parse::fold;
use crate::session::query;
use crate::session::relations::bound_name;
use datafusion::sql::sqlparser::ast::{CreateView, Query, Statement};
use engine::{ColumnDef, TableDef};
use proto::{ColumnId, Error, Result, SqlState, TableId};
use std::collections::BTreeSet;

pub async fn create(session: &mut Session, create: &CreateView) -> Result<&'static str> {
    session.check_writable("CREATE VIEW")?;
    if create.materialized {
        return Err(unserved("a materialized view"));
    }
    if create.temporary {
        return Err(unserved("a temporary view"));
    }
    let (schema, name) = object_name(&create.name);
    let schema = session.target_schema(schema.as_deref()).await?;
    let name = checked_name(name)?;
    let catalog = session.catalog().await;
    let search_path = session.variables.search_path(session.current_user());
    let bound = bind(&catalog, &session.database, &search_path, &create.query)?;
    let plan = query::prepare(session, &Statement::Query(Box::new(bound.query.clone())), &[]).await?;
    if !plan.params().is_empty() {
        return Err(Error::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1"));
    }
    let output = plan.columns();
    if create.columns.len() > output.len() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "CREATE VIEW specifies more column names than columns"));
    }
    let names = output.iter().enumerate().map(|(n, column)| match create.columns.get(n) {
        Some(given) => fold(&given.name),
        None => column.name.clone(),
    });
    let names = names.collect::<Vec<_>>();
    let columns = output.iter().zip(&names).enumerate().map(|(n, (column, name))| ColumnDef {
        id: ColumnId(n as u32 + 1),
        name: name.clone(),
        ty: column.ty.clone(),
        nullable: true,
        default: None,
        missing: None,
        comment: None,
    });
    let columns = columns.collect::<Vec<_>>();
    let named = |query: &Query| match create.columns.is_empty() {
        true => query.to_string(),
        false => {
            let quoted = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect::<Vec<_>>();
            format!("SELECT * FROM ({query}) AS named({})", quoted.join(", "))
        }
    };
    let (sql, bound, reads) = (named(&create.query), named(&bound.query), bound.reads);
    let existing = catalog.relation(&session.database, &schema, &name).map(|found| match found {
        Relation::View(view) => Ok(view.clone()),
        Relation::Table(_) => Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is not a view"))),
    });
    let replaced = match (existing, create.or_replace) {
        (Some(existing), true) => Some(existing?),
        _ => None,
    };
    if let Some(replaced) = &replaced {
        session.check_owner_of("view", &name, &replaced.owner).await?;
        check_replacement(&replaced.columns, &columns)?;
        check_not_circular(&catalog, replaced, reads.keys().copied().collect())?;
    }
    let replaces = replaced.is_some();
    let (id, owner) = match replaced {
        Some(replaced) => (replaced.id, replaced.owner.clone()),
        None => (TableId(session.new_oid()), session.current_user().to_owned()),
    };
    let view = ViewDef {
        id,
        database: session.database.clone(),
        schema,
        name,
        owner,
        sql,
        bound,
        columns,
        reads,
        comment: None,
    };
    session.change(if replaces { CatalogChange::ReplaceView(view) } else { CatalogChange::CreateView(view) }).await?;
    Ok("CREATE VIEW")
}

/// What uses the view keeps working: the columns there were stay as they are, and new ones come behind them.
fn check_replacement(before: &[ColumnDef], after: &[ColumnDef]) -> Result<()> {
    let refused = |message: String| Err(Error::new(SqlState::INVALID_TABLE_DEFINITION, message));
    if after.len() < before.len() {
        return refused("cannot drop columns from view".to_owned());
    }
    for (old, new) in before.iter().zip(after) {
        if old.name != new.name {
            return refused(format!("cannot change name of view column \"{}\" to \"{}\"", old.name, new.name));
        }
        if old.ty != new.ty {
            let (column, from, to) = (&old.name, &old.ty, &new.ty);
            return refused(format!("cannot change data type of view column \"{column}\" from {from} to {to}"));
        }
    }
    Ok(())
}

fn check_not_circular(catalog: &CatalogState, view: &ViewDef, mut reads: Vec<TableId>) -> Result<()> {
    let mut seen = BTreeSet::new();
    while let Some(id) = reads.pop() {
        if id == view.id {
            let message = format!("infinite recursion detected in rules for relation \"{}\"", view.name);
            return Err(Error::new(SqlState::new("42P17"), message));
        }
        if let (true, Some(Relation::View(read))) = (seen.insert(id), catalog.relation_by_id(id)) {
            reads.extend(read.reads.keys());
        }
    }
    Ok(())
}

/// The views that read a column which is gone now: with CASCADE they go too, without they keep it from going.
pub async fn check_readers(session: &mut Session, table: &TableDef, column: &str, cascade: bool) -> Result<()> {
    let catalog = session.catalog().await;
    let readers = catalog.views().filter(|view| view.reads.contains_key(&table.id)).cloned().collect::<Vec<_>>();
    for view in readers {
        if is_whole(session, &view).await? {
            continue;
        }
        let what = format!("column {column} of table {}", table.name);
        if !cascade {
            let message = format!("cannot drop {what} because other objects depend on it");
            return Err(Error::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                .detail(format!("view {} depends on {what}", view.name))
                .hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        drop_dependants(session, view.id, true).await?;
        session.change(CatalogChange::DropView(view.id)).await?;
        session.notice(Notice::notice(format!("drop cascades to view {}", view.name)));
    }
    Ok(())
}

/// Whether the view still has all its columns, as the catalog is now.
async fn is_whole(session: &mut Session, view: &ViewDef) -> Result<bool> {
    match query::columns_of(session, &format!("SELECT * FROM {}", bound_name(view.id))).await {
        Ok(types) => Ok(types.len() == view.columns.len()),
        Err(error) if error.code == SqlState::UNDEFINED_COLUMN => Ok(false),
        Err(error) => Err(error),
    }
}
