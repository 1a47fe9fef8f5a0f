//! GRANT and REVOKE: on tables, on foreign servers (data nodes), of roles.

use super::object_name;
use crate::catalog::{CatalogChange, Grantee, Privilege, Relation};
use crate::pg::backend::Outcome;
use crate::session::Session;
use datafusion::sql::sqlparser::ast::{
    Action, Grant, GrantObjects, Grantee as GranteeAst, GranteesType, ObjectName, Privileges, Revoke,
};
use proto::{Error, NodeName, Result, SqlState, TableId};

pub async fn server_usage(
    session: &mut Session,
    grant: bool,
    servers: &[String],
    grantees: &[String],
) -> Result<Outcome> {
    for server in servers {
        let catalog = session.catalog().await;
        let node = catalog.node(&NodeName(server.clone()))?;
        session.check_owner_of("foreign server", server, &node.owner).await?;
        for grantee in grantees {
            let grantee = checked_grantee(session, grantee).await?;
            let name = NodeName(server.clone());
            session
                .change(match grant {
                    true => CatalogChange::GrantNode { name, grantee },
                    false => CatalogChange::RevokeNode { name, grantee },
                })
                .await?;
        }
    }
    Ok(Outcome::Done { tag: tag(grant).to_owned() })
}

fn tag(grant: bool) -> &'static str {
    if grant { "GRANT" } else { "REVOKE" }
}

async fn checked_grantee(session: &mut Session, name: &str) -> Result<Grantee> {
    let catalog = session.catalog().await;
    match name {
        "public" => Ok(Grantee::Public),
        "current_user" | "current_role" => Ok(Grantee::Role(session.current_user().to_owned())),
        "session_user" => Ok(Grantee::Role(session.session_user.clone())),
        _ => catalog.role(name).map(|role| Grantee::Role(role.name.clone())),
    }
}

pub async fn membership(session: &mut Session, grant: bool, roles: &[String], members: &[String]) -> Result<Outcome> {
    session.check_writable("GRANT")?;
    let catalog = session.catalog().await;
    let user = catalog.role(session.current_user())?;
    for role in roles {
        let target = catalog.role(role)?;
        if !user.superuser && (target.superuser || !user.create_role) {
            let message = format!("must have admin option on role \"{role}\"");
            return Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
        }
        for member in members {
            catalog.role(member)?;
            let (role, member) = (role.clone(), member.clone());
            session
                .change(match grant {
                    true => CatalogChange::GrantRole { role, member },
                    false => CatalogChange::RevokeRole { role, member },
                })
                .await?;
        }
    }
    Ok(Outcome::Done { tag: if grant { "GRANT ROLE" } else { "REVOKE ROLE" }.to_owned() })
}

pub async fn grant(session: &mut Session, grant: &Grant) -> Result<&'static str> {
    on_objects(session, true, &grant.privileges, grant.objects.as_ref(), &grant.grantees).await
}

pub async fn revoke(session: &mut Session, revoke: &Revoke) -> Result<&'static str> {
    on_objects(session, false, &revoke.privileges, revoke.objects.as_ref(), &revoke.grantees).await
}

async fn on_objects(
    session: &mut Session,
    grant: bool,
    privileges: &Privileges,
    objects: Option<&GrantObjects>,
    grantees: &[GranteeAst],
) -> Result<&'static str> {
    session.check_writable(tag(grant))?;
    let mut roles = Vec::new();
    for grantee in grantees {
        roles.push(checked_grantee(session, &grantee_name(grantee)).await?);
    }
    let relations = match objects {
        Some(GrantObjects::Tables(names) | GrantObjects::Views(names)) => relations(session, names).await?,
        Some(GrantObjects::AllTablesInSchema { schemas }) => relations_in(session, schemas).await?,
        // Every role may connect and create where its search path leads; there is nothing to record.
        Some(GrantObjects::Schemas(names)) => {
            for name in names {
                session.target_schema(Some(&object_name(name).1)).await?;
            }
            return Ok(tag(grant));
        }
        Some(GrantObjects::Databases(names)) => {
            let catalog = session.catalog().await;
            names.iter().try_for_each(|name| catalog.database(&object_name(name).1).map(|_| ()))?;
            return Ok(tag(grant));
        }
        _ => return Err(Error::unsupported(format!("{} on this kind of object", tag(grant)))),
    };
    let privileges = privileges_of(privileges)?;
    for relation in relations {
        for grantee in &roles {
            for privilege in &privileges {
                let (grantee, privilege) = (grantee.clone(), *privilege);
                session
                    .change(match grant {
                        true => CatalogChange::Grant { relation, grantee, privilege },
                        false => CatalogChange::Revoke { relation, grantee, privilege },
                    })
                    .await?;
            }
        }
    }
    Ok(tag(grant))
}

fn grantee_name(grantee: &GranteeAst) -> String {
    match (&grantee.grantee_type, &grantee.name) {
        (GranteesType::Public, _) | (_, None) => "public".to_owned(),
        (_, Some(name)) => name.to_string().to_lowercase().replace('"', ""),
    }
}

async fn relations(session: &mut Session, names: &[ObjectName]) -> Result<Vec<TableId>> {
    let catalog = session.catalog().await;
    let mut found = Vec::new();
    for name in names.iter().map(object_name) {
        let (id, kind, owner) = match session.find(&catalog, &name) {
            Some(Relation::Table(table)) => (table.id, "table", table.owner.clone()),
            Some(Relation::View(view)) => (view.id, "view", view.owner.clone()),
            None => return Err(super::no_relation(&name)),
        };
        session.check_owner_of(kind, &name.1, &owner).await?;
        found.push(id);
    }
    Ok(found)
}

async fn relations_in(session: &mut Session, schemas: &[ObjectName]) -> Result<Vec<TableId>> {
    let catalog = session.catalog().await;
    let database = catalog.database(&session.database)?;
    let mut found = Vec::new();
    for schema in schemas {
        let schema = object_name(schema).1;
        let known = database
            .schemas
            .get(&schema)
            .ok_or_else(|| Error::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{schema}\" does not exist")))?;
        found.extend(known.relations.values().copied());
    }
    Ok(found)
}

fn privileges_of(privileges: &Privileges) -> Result<Vec<Privilege>> {
    let Privileges::Actions(actions) = privileges else { return Ok(Privilege::ALL.to_vec()) };
    let one = |action: &Action| match action {
        Action::Select { columns: None } => Ok(Privilege::Select),
        Action::Insert { columns: None } => Ok(Privilege::Insert),
        Action::Update { columns: None } => Ok(Privilege::Update),
        Action::Delete => Ok(Privilege::Delete),
        Action::Truncate => Ok(Privilege::Truncate),
        Action::References { columns: None } => Ok(Privilege::References),
        Action::Trigger => Ok(Privilege::Trigger),
        other => Err(Error::unsupported(format!("privilege {other}"))),
    };
    actions.iter().map(one).collect()
}
