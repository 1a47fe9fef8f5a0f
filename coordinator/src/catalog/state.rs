//! One version of the catalog. Cloning is cheap (shared maps), so that every transaction has its own to change.

use super::chunks::ChunkIndex;
use super::errors;
use super::jobs::{FIRST_USER_JOB, Job, JobRuns};
use super::objects::{ColumnNames, Database, Grantee, Grants, NodeDef, Privilege, Role, Settings, ViewDef};
use engine::TableDef;
use proto::{ChunkId, ClusterId, CommitSeq, NodeName, Result, TableId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Oids below it belong to PostgreSQL's own objects.
pub const FIRST_USER_OID: u32 = 16384;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogState {
    pub(super) cluster: ClusterId,
    pub(super) seq: CommitSeq,
    pub(super) next_oid: u32,
    pub(super) next_hypertable: u32,
    pub(super) next_chunk: u32,
    /// `ALTER SYSTEM SET`.
    pub(super) settings: Arc<Settings>,
    pub(super) databases: Arc<BTreeMap<String, Arc<Database>>>,
    pub(super) roles: Arc<BTreeMap<String, Arc<Role>>>,
    pub(super) nodes: Arc<BTreeMap<NodeName, Arc<NodeDef>>>,
    pub(super) tables: Arc<BTreeMap<TableId, Arc<TableDef>>>,
    pub(super) views: Arc<BTreeMap<TableId, Arc<ViewDef>>>,
    pub(super) grants: Arc<BTreeMap<TableId, Arc<Grants>>>,
    pub(super) chunks: Arc<BTreeMap<TableId, Arc<ChunkIndex>>>,
    /// Dropped chunks whose files a node still has, with the commit that dropped them.
    pub(super) garbage: Arc<BTreeMap<NodeName, BTreeMap<ChunkId, CommitSeq>>>,
    #[serde(default)]
    pub(super) jobs: Arc<BTreeMap<u32, Arc<Job>>>,
    #[serde(default)]
    pub(super) next_job: u32,
    /// Of the jobs that ran.
    #[serde(default)]
    pub(super) job_runs: Arc<BTreeMap<u32, JobRuns>>,
}

/// What a relation's name stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Relation<'a> {
    Table(&'a Arc<TableDef>),
    View(&'a Arc<ViewDef>),
}

impl Relation<'_> {
    pub fn id(&self) -> TableId {
        match self {
            Relation::Table(table) => table.id,
            Relation::View(view) => view.id,
        }
    }

    pub fn column_names(&self) -> ColumnNames {
        let columns = match self {
            Relation::Table(table) => &table.columns,
            Relation::View(view) => &view.columns,
        };
        columns.iter().map(|column| (column.id, column.name.clone())).collect()
    }
}

impl CatalogState {
    /// A new cluster: databases `postgres`, `template0`, `template1` and the superuser `postgres`, who has no password.
    pub fn new(cluster: ClusterId) -> CatalogState {
        let database = |oid, name: &str, is_template, allow_connections, comment: &str| {
            let plain = Database::new(oid, name, "postgres");
            Arc::new(Database { is_template, allow_connections, comment: Some(comment.to_owned()), ..plain })
        };
        let databases = [
            database(1, "template1", true, true, "default template for new databases"),
            database(4, "template0", true, false, "unmodifiable empty database"),
            database(5, "postgres", false, true, "default administrative connection database"),
        ];
        let superuser =
            Role { login: true, superuser: true, create_db: true, create_role: true, ..Role::new(10, "postgres") };
        CatalogState {
            cluster,
            seq: CommitSeq::ZERO,
            next_oid: FIRST_USER_OID,
            next_hypertable: 1,
            next_chunk: 1,
            settings: Arc::default(),
            databases: Arc::new(databases.into_iter().map(|database| (database.name.clone(), database)).collect()),
            roles: Arc::new([("postgres".to_owned(), Arc::new(superuser))].into()),
            nodes: Arc::default(),
            tables: Arc::default(),
            views: Arc::default(),
            grants: Arc::default(),
            chunks: Arc::default(),
            garbage: Arc::default(),
            jobs: Arc::default(),
            next_job: FIRST_USER_JOB,
            job_runs: Arc::default(),
        }
    }

    /// Gives a cluster that has none its identity.
    pub(crate) fn found(&mut self, cluster: ClusterId) {
        self.cluster = cluster;
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The last commit that changed the catalog: its version.
    pub fn seq(&self) -> CommitSeq {
        self.seq
    }

    /// Lowest oid that was never given; likewise the following three.
    pub fn next_oid(&self) -> u32 {
        self.next_oid
    }

    pub fn next_hypertable(&self) -> u32 {
        self.next_hypertable
    }

    pub fn next_chunk(&self) -> u32 {
        self.next_chunk
    }

    pub fn next_job(&self) -> u32 {
        self.next_job.max(FIRST_USER_JOB)
    }

    pub fn system_settings(&self) -> &Settings {
        &self.settings
    }

    pub fn databases(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.databases.values()
    }

    /// # Errors
    /// 3D000, as `schema` 3F000 and so on: PostgreSQL's error for a name that is not there.
    pub fn database(&self, name: &str) -> Result<&Arc<Database>> {
        self.databases.get(name).ok_or_else(|| errors::no_database(name))
    }

    pub fn has_extension(&self, database: &str, extension: &str) -> bool {
        self.databases.get(database).is_some_and(|database| database.extensions.contains_key(extension))
    }

    pub fn roles(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.roles.values()
    }

    pub fn role(&self, name: &str) -> Result<&Arc<Role>> {
        self.roles.get(name).ok_or_else(|| errors::no_role(name))
    }

    /// `role` itself, and all roles it is directly or indirectly a member of.
    pub fn memberships(&self, role: &str) -> Vec<String> {
        let mut held = vec![role.to_owned()];
        let mut next = 0;
        while let Some(name) = held.get(next).cloned() {
            next += 1;
            let above = self.roles.get(&name).map(|role| role.member_of.clone()).unwrap_or_default();
            above.into_iter().for_each(|name| {
                if !held.contains(&name) {
                    held.push(name);
                }
            });
        }
        held
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeDef>> {
        self.nodes.values()
    }

    pub fn node(&self, name: &NodeName) -> Result<&Arc<NodeDef>> {
        self.nodes.get(name).ok_or_else(|| errors::no_node(name))
    }

    /// Whether `role` may place chunks on the node.
    pub fn may_use_node(&self, role: &str, node: &NodeDef) -> bool {
        let held = self.memberships(role);
        let superuser = self.roles.get(role).is_some_and(|role| role.superuser);
        superuser
            || held.contains(&node.owner)
            || node.usage.iter().any(|grantee| match grantee {
                Grantee::Public => true,
                Grantee::Role(name) => held.contains(name),
            })
    }

    /// `None` when the name means nothing; so also for an unknown database or schema.
    pub fn relation(&self, database: &str, schema: &str, name: &str) -> Option<Relation<'_>> {
        let id = self.databases.get(database)?.schemas.get(schema)?.relations.get(name)?;
        self.relation_by_id(*id)
    }

    pub fn relation_by_id(&self, id: TableId) -> Option<Relation<'_>> {
        let table = self.tables.get(&id).map(Relation::Table);
        table.or_else(|| self.views.get(&id).map(Relation::View))
    }

    pub fn table(&self, database: &str, schema: &str, name: &str) -> Option<&Arc<TableDef>> {
        match self.relation(database, schema, name)? {
            Relation::Table(table) => Some(table),
            Relation::View(_) => None,
        }
    }

    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<TableDef>> {
        self.tables.get(&id)
    }

    /// Of all databases, by oid; as `views`.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableDef>> {
        self.tables.values()
    }

    pub fn views(&self) -> impl Iterator<Item = &Arc<ViewDef>> {
        self.views.values()
    }

    pub fn grants(&self, relation: TableId) -> &Grants {
        static NONE: LazyLock<Grants> = LazyLock::new(Grants::default);
        self.grants.get(&relation).map_or(&NONE, |grants| grants)
    }

    /// Whether `role` may do this to the relation: superuser, owner, or granted.
    pub fn may(&self, role: &str, relation: TableId, privilege: Privilege) -> bool {
        let owner = match self.relation_by_id(relation) {
            Some(Relation::Table(table)) => &table.owner,
            Some(Relation::View(view)) => &view.owner,
            None => return false,
        };
        let held = self.memberships(role);
        let grants = self.grants(relation);
        self.roles.get(role).is_some_and(|role| role.superuser)
            || held.contains(owner)
            || held.iter().any(|role| grants.allows(role, privilege))
    }

    /// Empty for a table without chunks, and for a table that is not there.
    pub fn chunks(&self, table: TableId) -> &Arc<ChunkIndex> {
        static NONE: LazyLock<Arc<ChunkIndex>> = LazyLock::new(Arc::default);
        self.chunks.get(&table).unwrap_or(&NONE)
    }

    /// Of all databases, by number.
    pub fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values()
    }

    pub fn job(&self, id: u32) -> Option<&Arc<Job>> {
        self.jobs.get(&id)
    }

    /// By the job's number, as last recorded.
    pub fn job_runs(&self) -> &BTreeMap<u32, JobRuns> {
        &self.job_runs
    }

    /// Per node: chunks to remove, each with the commit that dropped it.
    pub fn garbage(&self) -> &BTreeMap<NodeName, BTreeMap<ChunkId, CommitSeq>> {
        &self.garbage
    }
}
