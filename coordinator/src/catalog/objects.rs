//! The things a catalog holds besides tables and chunks, which are the engine's words.

use engine::ColumnDef;
use proto::{ColumnId, NodeName, TableId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub type Settings = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Database {
    pub oid: u32,
    pub name: String,
    pub owner: String,
    pub is_template: bool,
    /// `template0` is the one that nobody may connect to.
    pub allow_connections: bool,
    pub extensions: BTreeMap<String, Extension>,
    pub schemas: BTreeMap<String, Schema>,
    /// `ALTER DATABASE … SET`.
    pub settings: Settings,
    pub comment: Option<String>,
}

impl Database {
    /// With an empty schema `public`, whose oid is PostgreSQL's in every database.
    pub fn new(oid: u32, name: &str, owner: &str) -> Database {
        let public = Schema {
            oid: 2200,
            owner: "pg_database_owner".to_owned(),
            relations: BTreeMap::new(),
            comment: Some("standard public schema".to_owned()),
        };
        Database {
            oid,
            name: name.to_owned(),
            owner: owner.to_owned(),
            is_template: false,
            allow_connections: true,
            extensions: BTreeMap::new(),
            schemas: [("public".to_owned(), public)].into(),
            settings: Settings::new(),
            comment: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    pub oid: u32,
    pub version: String,
    pub schema: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    pub oid: u32,
    pub owner: String,
    /// Tables and views share one name space. Kept by `apply`; empty in a `CreateSchema`.
    pub relations: BTreeMap<String, TableId>,
    pub comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    pub oid: u32,
    pub name: String,
    /// SCRAM-SHA-256 verifier text, never a password.
    pub verifier: Option<String>,
    pub login: bool,
    pub superuser: bool,
    pub create_db: bool,
    pub create_role: bool,
    pub inherit: bool,
    /// -1: no limit.
    pub connection_limit: i32,
    /// Microseconds since 1970-01-01 UTC.
    pub valid_until_us: Option<i64>,
    pub member_of: BTreeSet<String>,
    /// `ALTER ROLE … SET`.
    pub settings: Settings,
    /// `ALTER ROLE … IN DATABASE … SET`, by database.
    pub database_settings: BTreeMap<String, Settings>,
    pub comment: Option<String>,
}

impl Role {
    /// As `CREATE ROLE name` makes it: no login, no rights, inherits.
    pub fn new(oid: u32, name: &str) -> Role {
        Role {
            oid,
            name: name.to_owned(),
            verifier: None,
            login: false,
            superuser: false,
            create_db: false,
            create_role: false,
            inherit: true,
            connection_limit: -1,
            valid_until_us: None,
            member_of: BTreeSet::new(),
            settings: Settings::new(),
            database_settings: BTreeMap::new(),
            comment: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDef {
    pub oid: u32,
    pub name: NodeName,
    pub owner: String,
    /// As the user gave it.
    pub host: String,
    pub port: u16,
    pub database: String,
    /// What the node said of its directory when it was added; another one means that it lost its disk.
    pub incarnation: u64,
    /// `alter_data_node(available => …)`.
    pub available: bool,
    /// `GRANT USAGE ON FOREIGN SERVER`.
    pub usage: BTreeSet<Grantee>,
}

impl NodeDef {
    pub fn address(&self) -> String {
        match self.host.contains(':') && !self.host.starts_with('[') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// The columns of a relation at one time.
pub type ColumnNames = Vec<(ColumnId, String)>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewDef {
    pub id: TableId,
    pub database: String,
    pub schema: String,
    pub name: String,
    pub owner: String,
    /// The query after `AS`, as it was written.
    pub sql: String,
    /// The same with relations named by their oids, in a schema of one NUL character.
    pub bound: String,
    pub columns: Vec<ColumnDef>,
    /// Tables and views it reads, with the columns they had: they cannot be dropped before it.
    pub reads: BTreeMap<TableId, ColumnNames>,
    pub comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Grantee {
    Public,
    Role(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Privilege {
    Select,
    Insert,
    Update,
    Delete,
    Truncate,
    References,
    Trigger,
}

impl Privilege {
    pub const ALL: [Privilege; 7] = [
        Privilege::Select,
        Privilege::Insert,
        Privilege::Update,
        Privilege::Delete,
        Privilege::Truncate,
        Privilege::References,
        Privilege::Trigger,
    ];
}

/// What was granted on a table or view. The owner needs no grant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Grants(pub BTreeSet<(Grantee, Privilege)>);

impl Grants {
    pub fn allows(&self, role: &str, privilege: Privilege) -> bool {
        let mut held = self.0.iter().filter(|(_, granted)| *granted == privilege);
        held.any(|(grantee, _)| match grantee {
            Grantee::Public => true,
            Grantee::Role(name) => name == role,
        })
    }
}
