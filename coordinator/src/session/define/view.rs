//! Views: the query's text, kept as it was written; names are looked up when the view is used.

use super::columns::{checked_name, unserved};
use super::{no_relation, object_name, skip_or};
use crate::catalog::{CatalogChange, Relation, ViewDef};
use crate::session::Session;
use crate::session::parse::fold;
use crate::session::query;
use crate::session::relations::find;
use datafusion::sql::sqlparser::ast::{CreateView, Statement, visit_relations};
use engine::ColumnDef;
use proto::{ColumnId, Error, Result, SqlState, TableId};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

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
    let statement = Statement::Query(create.query.clone());
    let plan = query::prepare(session, &statement, &[]).await?;
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
    let sql = match create.columns.is_empty() {
        true => create.query.to_string(),
        false => {
            let quoted = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect::<Vec<_>>();
            format!("SELECT * FROM ({}) AS named({})", create.query, quoted.join(", "))
        }
    };
    let catalog = session.catalog().await;
    let existing = catalog.relation(&session.database, &schema, &name).map(|found| match found {
        Relation::View(view) => Ok((view.id, view.owner.clone())),
        Relation::Table(_) => Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is not a view"))),
    });
    let search_path = session.variables.search_path(session.current_user());
    let replaced = match (existing, create.or_replace) {
        (Some(existing), true) => Some(existing?),
        _ => None,
    };
    if let Some((_, owner)) = &replaced {
        session.check_owner_of("view", &name, owner).await?;
    }
    let replaces = replaced.is_some();
    let (id, owner) = replaced.unwrap_or_else(|| (TableId(session.new_oid()), session.current_user().to_owned()));
    let view = ViewDef {
        id,
        database: session.database.clone(),
        schema,
        name,
        owner,
        sql,
        columns,
        depends_on: dependencies(session, &catalog, &statement, &search_path),
        search_path,
        comment: None,
    };
    session.change(if replaces { CatalogChange::ReplaceView(view) } else { CatalogChange::CreateView(view) }).await?;
    Ok("CREATE VIEW")
}

fn dependencies(
    session: &Session,
    catalog: &crate::catalog::CatalogState,
    statement: &Statement,
    path: &[String],
) -> BTreeSet<TableId> {
    let mut found = BTreeSet::new();
    let _: ControlFlow<()> = visit_relations(statement, |name| {
        let (schema, name) = object_name(name);
        match find(catalog, &session.database, path, schema.as_deref(), &name) {
            Some(Relation::Table(table)) => found.insert(table.id),
            Some(Relation::View(view)) => found.insert(view.id),
            None => false,
        };
        ControlFlow::Continue(())
    });
    found
}

pub async fn drop(
    session: &mut Session,
    name: &(Option<String>, String),
    if_exists: bool,
    cascade: bool,
) -> Result<()> {
    session.check_writable("DROP VIEW")?;
    let catalog = session.catalog().await;
    let path = session.variables.search_path(session.current_user());
    match find(&catalog, &session.database, &path, name.0.as_deref(), &name.1) {
        Some(Relation::View(view)) => {
            session.check_owner_of("view", &view.name, &view.owner).await?;
            drop_dependants(session, view.id, cascade).await?;
            session.change(CatalogChange::DropView(view.id)).await
        }
        Some(Relation::Table(_)) => {
            Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a view", name.1))
                .hint("Use DROP TABLE to remove a table."))
        }
        None => {
            let mut missing = no_relation(name);
            missing.message = format!("view \"{}\" does not exist", name.1);
            skip_or(session, if_exists, missing)
        }
    }
}

/// With CASCADE, the views that read `relation`, those that read them first. Without it the catalog refuses the drop.
pub async fn drop_dependants(session: &mut Session, relation: TableId, cascade: bool) -> Result<()> {
    if !cascade {
        return Ok(());
    }
    let catalog = session.catalog().await;
    let mut order = vec![relation];
    let mut next = 0;
    while let Some(id) = order.get(next).copied() {
        next += 1;
        for view in catalog.views().filter(|view| view.depends_on.contains(&id)) {
            order.retain(|known| *known != view.id);
            order.push(view.id);
        }
    }
    for id in order.into_iter().skip(1).rev() {
        session.change(CatalogChange::DropView(id)).await?;
    }
    Ok(())
}
