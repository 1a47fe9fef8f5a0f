//! The session and its cluster as catalog queries see them: one statement's version of the catalog, and sizes asked from
//! the nodes when a query wants them.

use super::front::Shared;
use super::variables::SERVER_VERSION;
use super::{Session, Variables};
use crate::catalog::{CatalogState, Grantee, Job, Privilege};
use crate::jobs::History;
use crate::pgcatalog::{
    Activity, Bytes, DataNodeServer, Database, ListedFunction, Role, Schema, Setting, SystemCatalog, View,
};
use crate::txn::ListedTransaction;
use engine::{ChunkDef, TableDef};
use proto::{ChunkId, ChunkStats, NodeName, TableId};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

pub(crate) struct System {
    catalog: Arc<CatalogState>,
    front: Arc<Shared>,
    session_user: String,
    current_user: String,
    database: String,
    variables: Variables,
    pid: i32,
    now_us: i64,
    stats: OnceLock<BTreeMap<ChunkId, ChunkStats>>,
}

impl System {
    pub(crate) fn new(session: &Session, catalog: Arc<CatalogState>) -> System {
        System {
            catalog,
            front: session.front.clone(),
            session_user: session.session_user.clone(),
            current_user: session.current_user().to_owned(),
            database: session.database.clone(),
            variables: session.variables.clone(),
            pid: session.pid,
            now_us: session.block.now_us,
            stats: OnceLock::new(),
        }
    }

    /// What the nodes say of this database's chunks; those of a node that is down are missing. Asked once a statement.
    pub(crate) fn stats(&self) -> &BTreeMap<ChunkId, ChunkStats> {
        self.stats.get_or_init(|| {
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(self.ask_nodes()))
        })
    }

    async fn ask_nodes(&self) -> BTreeMap<ChunkId, ChunkStats> {
        let mut by_node: BTreeMap<&NodeName, Vec<ChunkId>> = BTreeMap::new();
        let tables = self.catalog.tables().filter(|table| table.database == self.database);
        for chunk in tables.flat_map(|table| self.catalog.chunks(table.id).iter()) {
            chunk.nodes.iter().for_each(|node| by_node.entry(node).or_default().push(chunk.id));
        }
        let answers = by_node.into_iter().map(|(name, chunks)| async move {
            match self.front.cluster.nodes().get(name) {
                Ok(node) => node.chunk_stats(chunks).await.unwrap_or_default(),
                Err(_) => Vec::new(),
            }
        });
        let answers = futures::future::join_all(answers).await;
        answers.into_iter().flatten().map(|stats| (stats.chunk, stats)).collect()
    }
}

pub(crate) fn bytes_of(stats: &ChunkStats) -> u64 {
    stats.disk_bytes + stats.delta_bytes
}

fn grantee_text(grantee: &Grantee) -> &str {
    match grantee {
        Grantee::Public => "",
        Grantee::Role(name) => name,
    }
}

impl SystemCatalog for System {
    fn tables(&self) -> Vec<Arc<TableDef>> {
        self.catalog.tables().filter(|table| table.database == self.database).cloned().collect()
    }

    fn views(&self) -> Vec<View> {
        let own = self.catalog.views().filter(|view| view.database == self.database);
        own.map(|view| View {
            oid: view.id.0,
            schema: view.schema.clone(),
            name: view.name.clone(),
            owner: view.owner.clone(),
            columns: view.columns.iter().map(|column| (column.name.clone(), column.ty.clone())).collect(),
            sql: view.sql.clone(),
        })
        .collect()
    }

    fn functions(&self) -> Vec<ListedFunction> {
        crate::timescale::listed()
    }

    fn schemas(&self) -> Vec<Schema> {
        let Ok(database) = self.catalog.database(&self.database) else { return Vec::new() };
        let schemas = database.schemas.iter();
        schemas
            .map(|(name, schema)| Schema {
                oid: schema.oid,
                name: name.clone(),
                owner: schema.owner.clone(),
                acl: (name == "public")
                    .then(|| vec![format!("{0}=UC/{0}", schema.owner), format!("=UC/{}", schema.owner)]),
            })
            .collect()
    }

    fn roles(&self) -> Vec<Role> {
        let roles = self.catalog.roles();
        roles
            .map(|role| Role {
                oid: role.oid,
                name: role.name.clone(),
                superuser: role.superuser,
                inherit: role.inherit,
                create_role: role.create_role,
                create_db: role.create_db,
                login: role.login,
                connection_limit: role.connection_limit,
                valid_until_us: role.valid_until_us,
                member_of: role.member_of.iter().cloned().collect(),
            })
            .collect()
    }

    fn databases(&self) -> Vec<Database> {
        let databases = self.catalog.databases();
        databases
            .map(|database| Database { oid: database.oid, name: database.name.clone(), owner: database.owner.clone() })
            .collect()
    }

    fn data_nodes(&self) -> Vec<DataNodeServer> {
        let nodes = self.catalog.nodes();
        nodes
            .map(|node| DataNodeServer {
                oid: node.oid,
                name: node.name.0.clone(),
                owner: node.owner.clone(),
                host: node.host.clone(),
                port: node.port,
                dbname: node.database.clone(),
                available: node.available,
                up: self.front.cluster.node_up(&node.name),
                acl: (!node.usage.is_empty()).then(|| {
                    let granted =
                        node.usage.iter().map(|grantee| format!("{}=U/{}", grantee_text(grantee), node.owner));
                    [format!("{0}=U/{0}", node.owner)].into_iter().chain(granted).collect()
                }),
            })
            .collect()
    }

    fn chunks(&self, table: TableId) -> Vec<Arc<ChunkDef>> {
        self.catalog.chunks(table).iter().cloned().collect()
    }

    fn jobs(&self) -> Vec<(Arc<Job>, Option<History>)> {
        let own =
            |job: &&Arc<Job>| self.catalog.table_by_id(job.table).is_some_and(|table| table.database == self.database);
        let jobs = self.catalog.jobs().filter(own);
        jobs.map(|job| (job.clone(), self.front.histories.of(job.id))).collect()
    }

    fn timescaledb(&self) -> bool {
        self.catalog.has_extension(&self.database, "timescaledb")
    }

    fn session_user(&self) -> String {
        self.session_user.clone()
    }

    fn current_user(&self) -> String {
        self.current_user.clone()
    }

    fn current_database(&self) -> String {
        self.database.clone()
    }

    fn search_path(&self) -> Vec<String> {
        self.variables.search_path(&self.current_user)
    }

    fn settings(&self) -> Vec<Setting> {
        self.variables
            .all()
            .into_iter()
            .map(|shown| Setting {
                context: shown.context.to_owned(),
                vartype: shown.vartype.to_owned(),
                default: shown.default,
                name: shown.name,
                value: shown.value,
            })
            .collect()
    }

    fn setting(&self, name: &str) -> Option<String> {
        self.variables.show(name).ok()
    }

    fn backend_pid(&self) -> i32 {
        self.pid
    }

    fn server_version(&self) -> String {
        format!("{SERVER_VERSION} (Seriatim {})", env!("CARGO_PKG_VERSION"))
    }

    fn now_us(&self) -> i64 {
        self.now_us
    }

    fn started_us(&self) -> i64 {
        self.front.started_us
    }

    fn table_bytes(&self, table: TableId) -> Bytes {
        let chunks = self.catalog.chunks(table).iter();
        let table = chunks.filter_map(|chunk| self.stats().get(&chunk.id)).map(bytes_of).sum();
        Bytes { table, index: 0 }
    }

    fn chunk_bytes(&self, chunk: &ChunkDef) -> Bytes {
        Bytes { table: self.stats().get(&chunk.id).map_or(0, bytes_of), index: 0 }
    }

    fn database_bytes(&self, name: &str) -> u64 {
        if name == self.database { self.stats().values().map(bytes_of).sum() } else { 0 }
    }

    fn transactions(&self) -> Vec<ListedTransaction> {
        self.front.cluster.transactions()
    }

    fn activity(&self) -> Vec<Activity> {
        let activity = self.front.activity.lock();
        activity
            .iter()
            .map(|(pid, session)| Activity {
                pid: *pid,
                user: session.user.clone(),
                database: session.database.clone(),
                application: session.application_name.clone(),
                client_addr: session.peer.map(|peer| peer.ip().to_string()),
                client_port: session.peer.map(|peer| i32::from(peer.port())),
                backend_start_us: session.started_us,
                query_start_us: Some(session.query_started_us),
                state: if session.active { "active" } else { "idle" }.to_owned(),
                query: session.query.clone(),
            })
            .collect()
    }

    fn has_privilege(&self, role: &str, object: &str, name: &str, privilege: &str) -> bool {
        let wanted = match privilege.to_ascii_uppercase().as_str() {
            "SELECT" => Privilege::Select,
            "INSERT" => Privilege::Insert,
            "UPDATE" => Privilege::Update,
            "DELETE" => Privilege::Delete,
            "TRUNCATE" => Privilege::Truncate,
            "REFERENCES" => Privilege::References,
            "TRIGGER" => Privilege::Trigger,
            "USAGE" if object == "server" => {
                let node = self.catalog.node(&NodeName(name.to_owned()));
                return node.is_ok_and(|node| self.catalog.may_use_node(role, node));
            }
            _ => return true,
        };
        let (schema, table) = match name.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, name),
        };
        let path = self.search_path();
        let found = super::relations::find(&self.catalog, &self.database, &path, schema, table);
        match found {
            Some(crate::catalog::Relation::Table(table)) => self.catalog.may(role, table.id, wanted),
            Some(crate::catalog::Relation::View(view)) => self.catalog.may(role, view.id, wanted),
            None => true,
        }
    }
}
