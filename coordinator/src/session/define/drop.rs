//! DROP TABLE and DROP VIEW, and the views that go with what is dropped.

use super::skip_or;
use crate::catalog::{CatalogChange, Relation};
use crate::pg::backend::Notice;
use crate::session::Session;
use proto::{Error, Result, SqlState, TableId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Table,
    View,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Table => "table",
            Kind::View => "view",
        }
    }
}

/// # Errors
/// `2BP01` when a view reads it and `cascade` is not given; `42809` when it is of the other kind.
pub async fn relation(
    session: &mut Session,
    kind: Kind,
    name: &(Option<String>, String),
    if_exists: bool,
    cascade: bool,
) -> Result<()> {
    session.check_writable(&format!("DROP {}", kind.name().to_uppercase()))?;
    let catalog = session.catalog().await;
    let (found, owner, change) = match session.find(&catalog, name) {
        Some(Relation::Table(table)) => (Kind::Table, table.owner.clone(), CatalogChange::DropTable(table.id)),
        Some(Relation::View(view)) => (Kind::View, view.owner.clone(), CatalogChange::DropView(view.id)),
        None => {
            let message = format!("{} \"{}\" does not exist", kind.name(), name.1);
            return skip_or(session, if_exists, Error::new(SqlState::UNDEFINED_TABLE, message));
        }
    };
    if found != kind {
        let (kind, found) = (kind.name(), found.name());
        return Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a {kind}", name.1))
            .hint(format!("Use DROP {} to remove a {found}.", found.to_uppercase())));
    }
    session.check_owner_of(kind.name(), &name.1, &owner).await?;
    let (CatalogChange::DropTable(id) | CatalogChange::DropView(id)) = change else { return Ok(()) };
    drop_dependants(session, id, cascade).await?;
    session.change(change).await
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
        for view in catalog.views().filter(|view| view.reads.contains_key(&id)) {
            order.retain(|known| *known != view.id);
            order.push(view.id);
        }
    }
    for id in order.into_iter().skip(1).rev() {
        if let Some(Relation::View(view)) = catalog.relation_by_id(id) {
            session.notice(Notice::notice(format!("drop cascades to view {}", view.name)));
        }
        session.change(CatalogChange::DropView(id)).await?;
    }
    Ok(())
}
