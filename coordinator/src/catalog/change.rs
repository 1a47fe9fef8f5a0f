//! Everything that can happen to a catalog. Stored as JSON in the two-phase log: a variant may be added, never changed.

use super::jobs::{Job, JobRuns};
use super::objects::{Database, Extension, Grantee, NodeDef, Privilege, Role, Schema, ViewDef};
use engine::{ChunkDef, ColumnDef, Compression, Hypertable, KeyDef, PgType, TableDef};
use proto::{ChunkId, ColumnId, NodeName, TableId, TimeSlicing};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CatalogChange {
    CreateDatabase(Database),
    /// Its tables go with it.
    DropDatabase(String),
    CreateExtension {
        database: String,
        name: String,
        extension: Extension,
    },
    DropExtension {
        database: String,
        name: String,
    },
    CreateSchema {
        database: String,
        name: String,
        schema: Schema,
    },
    /// Refused unless empty: what `CASCADE` drops comes in changes of its own before it.
    DropSchema {
        database: String,
        name: String,
    },
    /// `value: None` is `RESET`.
    SetSetting {
        scope: SettingScope,
        name: String,
        value: Option<String>,
    },

    CreateRole(Role),
    AlterRole {
        name: String,
        alteration: RoleAlteration,
    },
    DropRole(String),
    GrantRole {
        role: String,
        member: String,
    },
    RevokeRole {
        role: String,
        member: String,
    },

    AddNode(NodeDef),
    AlterNode {
        name: NodeName,
        alteration: NodeAlteration,
    },
    DropNode(NodeName),
    GrantNode {
        name: NodeName,
        grantee: Grantee,
    },
    RevokeNode {
        name: NodeName,
        grantee: Grantee,
    },

    CreateTable(TableDef),
    /// Its chunks become garbage.
    DropTable(TableId),
    /// All its chunks become garbage.
    Truncate(TableId),
    AddColumn {
        table: TableId,
        column: ColumnDef,
    },
    DropColumn {
        table: TableId,
        column: ColumnId,
    },
    RenameColumn {
        table: TableId,
        column: ColumnId,
        name: String,
    },
    AlterColumn {
        table: TableId,
        column: ColumnId,
        alteration: ColumnAlteration,
    },
    /// A table with chunks takes no new key: nobody has looked whether its rows keep it.
    AddKey {
        table: TableId,
        key: KeyDef,
    },
    /// By name.
    DropKey {
        table: TableId,
        key: String,
    },
    MakeHypertable {
        table: TableId,
        hypertable: Hypertable,
    },
    SetSlicing {
        table: TableId,
        slicing: TimeSlicing,
    },
    SetPartitions {
        table: TableId,
        partitions: u16,
    },
    SetDataNodes {
        table: TableId,
        nodes: Vec<NodeName>,
    },
    /// `None` switches it off.
    SetCompression {
        table: TableId,
        compression: Option<Compression>,
    },

    AddJob(Job),
    /// All of it anew, under its id.
    AlterJob(Job),
    DropJob(u32),
    /// Does nothing when the job is gone, or more of its runs are known.
    RecordRuns {
        job: u32,
        runs: JobRuns,
    },

    CreateView(ViewDef),
    /// `CREATE OR REPLACE VIEW` of one that exists, under its id.
    ReplaceView(ViewDef),
    DropView(TableId),

    /// Of a table or a view, as the following ones.
    RenameRelation {
        relation: TableId,
        name: String,
    },
    SetSchema {
        relation: TableId,
        schema: String,
    },
    SetOwner {
        relation: TableId,
        owner: String,
    },
    Grant {
        relation: TableId,
        grantee: Grantee,
        privilege: Privilege,
    },
    Revoke {
        relation: TableId,
        grantee: Grantee,
        privilege: Privilege,
    },
    SetComment {
        target: CommentTarget,
        text: Option<String>,
    },

    /// Does nothing when the same chunk is there: transactions that share a new chunk all carry it.
    AddChunk(Arc<ChunkDef>),
    DropChunk {
        table: TableId,
        chunk: ChunkId,
    },
    MarkChunk {
        table: TableId,
        chunk: ChunkId,
        compressed: bool,
    },
    /// The node has removed them.
    ForgetGarbage {
        node: NodeName,
        chunks: Vec<ChunkId>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SettingScope {
    /// `ALTER SYSTEM`.
    System,
    Database(String),
    Role(String),
    RoleInDatabase {
        role: String,
        database: String,
    },
}

/// `None` leaves a property as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RoleAlteration {
    /// `Some(None)` is `PASSWORD NULL`.
    #[serde(default, with = "present")]
    pub verifier: Option<Option<String>>,
    pub login: Option<bool>,
    pub superuser: Option<bool>,
    pub create_db: Option<bool>,
    pub create_role: Option<bool>,
    pub inherit: Option<bool>,
    pub connection_limit: Option<i32>,
    #[serde(default, with = "present")]
    pub valid_until_us: Option<Option<i64>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeAlteration {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub database: Option<String>,
    pub available: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnAlteration {
    pub nullable: Option<bool>,
    #[serde(default, with = "present")]
    pub default: Option<Option<String>>,
    pub ty: Option<PgType>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CommentTarget {
    Database(String),
    Schema { database: String, name: String },
    Role(String),
    Relation(TableId),
    Column { table: TableId, column: ColumnId },
}

/// JSON has one null, an `Option` of an `Option` two: the outer one is written as an array of none or one.
mod present {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(value: &Option<Option<T>>, to: S) -> Result<S::Ok, S::Error> {
        value.iter().collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
        Ok(Vec::<Option<T>>::deserialize(from)?.pop())
    }
}
