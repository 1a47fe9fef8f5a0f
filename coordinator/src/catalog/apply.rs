//! `CatalogState::apply`: databases, roles and nodes here, relations and chunks in `apply_tables`, jobs in `apply_jobs`.
//!
//! Every branch checks first and changes last, so that a refused change leaves no trace.

use super::change::{CatalogChange, NodeAlteration, RoleAlteration, SettingScope};
use super::errors;
use super::objects::{Database, Grantee, NodeDef, Role, Settings};
use super::state::{CatalogState, Relation};
use proto::{ChunkId, CommitSeq, Error, NodeName, Result, SqlState, TableId};
use std::collections::BTreeMap;
use std::sync::Arc;

impl CatalogState {
    /// All changes of one commit, or none.
    pub fn apply_commit(&mut self, seq: CommitSeq, changes: &[CatalogChange]) -> Result<()> {
        let mut next = self.clone();
        next.seq = next.seq.max(seq);
        changes.iter().try_for_each(|change| next.apply(change))?;
        *self = next;
        Ok(())
    }

    /// # Errors
    /// PostgreSQL's error for what the change runs into; the state is then as it was.
    pub fn apply(&mut self, change: &CatalogChange) -> Result<()> {
        use CatalogChange as C;
        match change {
            C::CreateDatabase(database) => self.create_database(database),
            C::DropDatabase(name) => self.drop_database(name),
            C::CreateExtension { database, name, extension } => {
                if self.database(database)?.extensions.contains_key(name) {
                    return Err(errors::exists(SqlState::DUPLICATE_OBJECT, "extension", name));
                }
                self.edit_database(database)?.extensions.insert(name.clone(), extension.clone());
                self.oid_taken(extension.oid);
                Ok(())
            }
            C::DropExtension { database, name } => {
                let gone = self.edit_database(database)?.extensions.remove(name);
                gone.map(drop).ok_or_else(|| errors::missing(SqlState::UNDEFINED_OBJECT, "extension", name))
            }
            C::CreateSchema { database, name, schema } => {
                if self.database(database)?.schemas.contains_key(name) {
                    return Err(errors::exists(SqlState::DUPLICATE_SCHEMA, "schema", name));
                }
                self.edit_database(database)?.schemas.insert(name.clone(), schema.clone());
                self.oid_taken(schema.oid);
                Ok(())
            }
            C::DropSchema { database, name } => self.drop_schema(database, name),
            C::SetSetting { scope, name, value } => self.set_setting(scope, name, value.as_ref()),
            C::CreateRole(role) => self.create_role(role),
            C::AlterRole { name, alteration } => self.alter_role(name, alteration),
            C::DropRole(name) => self.drop_role(name),
            C::GrantRole { role, member } => self.grant_role(role, member),
            C::RevokeRole { role, member } => {
                self.role(role)?;
                self.edit_role(member)?.member_of.remove(role);
                Ok(())
            }
            C::AddNode(node) => self.add_node(node),
            C::AlterNode { name, alteration } => self.alter_node(name, alteration),
            C::DropNode(name) => self.drop_node(name),
            C::GrantNode { name, grantee } => {
                self.check_grantee(grantee)?;
                self.edit_node(name)?.usage.insert(grantee.clone());
                Ok(())
            }
            C::RevokeNode { name, grantee } => {
                self.edit_node(name)?.usage.remove(grantee);
                Ok(())
            }
            C::ForgetGarbage { node, chunks } => {
                self.forget_garbage(node, chunks);
                Ok(())
            }
            C::AddJob(job) => self.add_job(job),
            C::AlterJob(job) => self.alter_job(job),
            C::DropJob(id) => self.drop_job(*id),
            C::RecordRuns { job, runs } => {
                self.record_runs(*job, runs);
                Ok(())
            }
            _ => self.apply_to_relations(change),
        }
    }

    pub(super) fn oid_taken(&mut self, oid: u32) {
        self.next_oid = self.next_oid.max(oid.saturating_add(1));
    }

    pub(super) fn edit_database(&mut self, name: &str) -> Result<&mut Database> {
        let database = Arc::make_mut(&mut self.databases).get_mut(name);
        database.map(Arc::make_mut).ok_or_else(|| errors::no_database(name))
    }

    pub(super) fn edit_role(&mut self, name: &str) -> Result<&mut Role> {
        let role = Arc::make_mut(&mut self.roles).get_mut(name);
        role.map(Arc::make_mut).ok_or_else(|| errors::no_role(name))
    }

    fn edit_node(&mut self, name: &NodeName) -> Result<&mut NodeDef> {
        let node = Arc::make_mut(&mut self.nodes).get_mut(name);
        node.map(Arc::make_mut).ok_or_else(|| errors::no_node(name))
    }

    pub(super) fn check_grantee(&self, grantee: &Grantee) -> Result<()> {
        match grantee {
            Grantee::Public => Ok(()),
            Grantee::Role(name) => self.role(name).map(drop),
        }
    }

    fn create_database(&mut self, database: &Database) -> Result<()> {
        if self.databases.contains_key(&database.name) {
            return Err(errors::exists(SqlState::DUPLICATE_DATABASE, "database", &database.name));
        }
        self.role(&database.owner)?;
        Arc::make_mut(&mut self.databases).insert(database.name.clone(), Arc::new(database.clone()));
        self.oid_taken(database.oid);
        Ok(())
    }

    fn drop_database(&mut self, name: &str) -> Result<()> {
        if self.database(name)?.is_template {
            return Err(Error::new(SqlState::WRONG_OBJECT_TYPE, "cannot drop a template database"));
        }
        let of_tables = self.tables.values().filter(|table| table.database == name);
        let tables = of_tables.map(|table| table.id).collect::<Vec<_>>();
        let of_views = self.views.values().filter(|view| view.database == name);
        let views = of_views.map(|view| view.id).collect::<Vec<_>>();
        tables.into_iter().for_each(|id| self.forget_table(id));
        views.into_iter().for_each(|id| self.forget_view(id));
        Arc::make_mut(&mut self.databases).remove(name);
        if self.roles.values().any(|role| role.database_settings.contains_key(name)) {
            Arc::make_mut(&mut self.roles).values_mut().for_each(|role| {
                Arc::make_mut(role).database_settings.remove(name);
            });
        }
        Ok(())
    }

    fn drop_schema(&mut self, database: &str, name: &str) -> Result<()> {
        let schema = self.database(database)?.schemas.get(name).ok_or_else(|| errors::no_schema(name))?;
        let depends = |id: &TableId| match self.relation_by_id(*id) {
            Some(Relation::Table(table)) => format!("table {name}.{} depends on schema {name}", table.name),
            Some(Relation::View(view)) => format!("view {name}.{} depends on schema {name}", view.name),
            None => format!("relation {id} depends on schema {name}"),
        };
        if !schema.relations.is_empty() {
            let detail = schema.relations.values().map(depends).collect::<Vec<_>>().join("\n");
            let error = errors::still_needed(&format!("schema {name}"), detail);
            return Err(error.hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        self.edit_database(database)?.schemas.remove(name);
        Ok(())
    }

    fn set_setting(&mut self, scope: &SettingScope, name: &str, value: Option<&String>) -> Result<()> {
        let settings: &mut Settings = match scope {
            SettingScope::System => Arc::make_mut(&mut self.settings),
            SettingScope::Database(database) => &mut self.edit_database(database)?.settings,
            SettingScope::Role(role) => &mut self.edit_role(role)?.settings,
            SettingScope::RoleInDatabase { role, database } => {
                self.database(database)?;
                self.edit_role(role)?.database_settings.entry(database.clone()).or_default()
            }
        };
        match value {
            Some(value) => settings.insert(name.to_owned(), value.clone()),
            None => settings.remove(name),
        };
        Ok(())
    }

    fn create_role(&mut self, role: &Role) -> Result<()> {
        if self.roles.contains_key(&role.name) {
            return Err(errors::exists(SqlState::DUPLICATE_OBJECT, "role", &role.name));
        }
        role.member_of.iter().try_for_each(|name| self.role(name).map(drop))?;
        Arc::make_mut(&mut self.roles).insert(role.name.clone(), Arc::new(role.clone()));
        self.oid_taken(role.oid);
        Ok(())
    }

    fn alter_role(&mut self, name: &str, alteration: &RoleAlteration) -> Result<()> {
        let role = self.edit_role(name)?;
        let set = |property: &mut bool, value: Option<bool>| *property = value.unwrap_or(*property);
        set(&mut role.login, alteration.login);
        set(&mut role.superuser, alteration.superuser);
        set(&mut role.create_db, alteration.create_db);
        set(&mut role.create_role, alteration.create_role);
        set(&mut role.inherit, alteration.inherit);
        role.connection_limit = alteration.connection_limit.unwrap_or(role.connection_limit);
        role.valid_until_us = alteration.valid_until_us.unwrap_or(role.valid_until_us);
        if let Some(verifier) = &alteration.verifier {
            role.verifier.clone_from(verifier);
        }
        Ok(())
    }

    fn drop_role(&mut self, name: &str) -> Result<()> {
        self.role(name)?;
        let databases = self.databases.values().filter(|database| database.owner == name);
        let mut detail = databases.map(|database| format!("owner of database {}", database.name)).collect::<Vec<_>>();
        for database in self.databases.values() {
            let schemas = database.schemas.iter().filter(|(_, schema)| schema.owner == name);
            detail.extend(schemas.map(|(schema, _)| format!("owner of schema {schema}")));
        }
        let nodes = self.nodes.values();
        detail.extend(nodes.filter(|node| node.owner == name).map(|node| format!("owner of server {}", node.name)));
        let grantee = Grantee::Role(name.to_owned());
        let used = self.nodes.values().filter(|node| node.usage.contains(&grantee));
        detail.extend(used.map(|node| format!("privileges for server {}", node.name)));
        let tables = self.tables.values().filter(|table| table.owner == name);
        detail.extend(tables.map(|table| format!("owner of table {}", table.name)));
        let views = self.views.values().filter(|view| view.owner == name);
        detail.extend(views.map(|view| format!("owner of view {}", view.name)));
        for (id, grants) in self.grants.iter() {
            if grants.0.iter().any(|(held_by, _)| *held_by == grantee) {
                detail.push(match self.relation_by_id(*id) {
                    Some(Relation::View(view)) => format!("privileges for view {}", view.name),
                    Some(Relation::Table(table)) => format!("privileges for table {}", table.name),
                    None => format!("privileges for relation {id}"),
                });
            }
        }
        if !detail.is_empty() {
            let text = format!("role \"{name}\" cannot be dropped because some objects depend on it");
            return Err(Error::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, text).detail(detail.join("\n")));
        }
        let roles = Arc::make_mut(&mut self.roles);
        roles.remove(name);
        roles.values_mut().filter(|role| role.member_of.contains(name)).for_each(|role| {
            Arc::make_mut(role).member_of.remove(name);
        });
        Ok(())
    }

    fn grant_role(&mut self, role: &str, member: &str) -> Result<()> {
        self.role(role)?;
        self.role(member)?;
        if self.memberships(role).iter().any(|name| name == member) {
            let text = format!("role \"{member}\" is a member of role \"{role}\"");
            return Err(Error::new(SqlState::new("0LP01"), text));
        }
        self.edit_role(member)?.member_of.insert(role.to_owned());
        Ok(())
    }

    fn add_node(&mut self, node: &NodeDef) -> Result<()> {
        if self.nodes.contains_key(&node.name) {
            return Err(errors::exists(SqlState::DUPLICATE_OBJECT, "server", node.name.as_str()));
        }
        self.role(&node.owner)?;
        Arc::make_mut(&mut self.nodes).insert(node.name.clone(), Arc::new(node.clone()));
        self.oid_taken(node.oid);
        Ok(())
    }

    fn alter_node(&mut self, name: &NodeName, alteration: &NodeAlteration) -> Result<()> {
        let node = self.edit_node(name)?;
        if let Some(host) = &alteration.host {
            node.host.clone_from(host);
        }
        if let Some(database) = &alteration.database {
            node.database.clone_from(database);
        }
        node.port = alteration.port.unwrap_or(node.port);
        node.available = alteration.available.unwrap_or(node.available);
        Ok(())
    }

    /// Refused while the node has chunks. Takes it from the tables that would use it.
    fn drop_node(&mut self, name: &NodeName) -> Result<()> {
        self.node(name)?;
        for (id, chunks) in self.chunks.iter() {
            if chunks.iter().any(|chunk| chunk.nodes.contains(name)) {
                let table = self.tables.get(id).map_or_else(|| id.to_string(), |table| table.name.clone());
                let text = format!("data node \"{name}\" still holds data for distributed hypertable \"{table}\"");
                return Err(Error::new(SqlState::DATA_NODE_IN_USE, text));
            }
        }
        let uses = |table: &TableId| {
            let hypertable = self.tables.get(table).and_then(|table| table.hypertable.as_ref());
            hypertable.is_some_and(|hypertable| hypertable.data_nodes.contains(name))
        };
        for id in self.tables.keys().copied().filter(|id| uses(id)).collect::<Vec<_>>() {
            let hypertable = self.edit_table(id)?.hypertable.as_mut();
            hypertable.expect("found above").data_nodes.retain(|node| node != name);
        }
        Arc::make_mut(&mut self.nodes).remove(name);
        Arc::make_mut(&mut self.garbage).remove(name);
        Ok(())
    }

    fn forget_garbage(&mut self, node: &NodeName, chunks: &[ChunkId]) {
        let garbage = Arc::make_mut(&mut self.garbage);
        let Some(of_node) = garbage.get_mut(node) else { return };
        chunks.iter().for_each(|chunk| {
            of_node.remove(chunk);
        });
        if of_node.is_empty() {
            garbage.remove(node);
        }
    }

    pub(super) fn add_garbage(&mut self, chunk: ChunkId, nodes: &[NodeName]) {
        let seq = self.seq;
        let garbage: &mut BTreeMap<_, BTreeMap<_, _>> = Arc::make_mut(&mut self.garbage);
        nodes.iter().for_each(|node| {
            garbage.entry(node.clone()).or_default().insert(chunk, seq);
        });
    }
}
