//! Tables as the planner, the catalog and the ingest path see them: columns, partitioning, chunks. Plain descriptions;
//! who may change them is the catalog's business.

use crate::types::PgType;
use arrow::datatypes::{Field, Schema, SchemaRef};
use proto::data_node::{FIELD_ID, UniqueKey};
use proto::{ChunkId, ChunkLayout, ColumnId, NodeName, SlotSet, TableId, TimeRange, TimeSlicing};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnDef {
    pub id: ColumnId,
    pub name: String,
    pub ty: PgType,
    pub nullable: bool,
    /// `DEFAULT` as SQL text.
    pub default: Option<String>,
    /// What rows written before `ADD COLUMN … DEFAULT constant` hold, in the type's text form.
    pub missing: Option<String>,
    pub comment: Option<String>,
}

impl ColumnDef {
    /// The Arrow field under which the column is stored and scanned: carries the column's id and Postgres type.
    pub fn field(&self) -> Field {
        let field = self.ty.field(&self.name, self.nullable);
        let mut metadata = field.metadata().clone();
        metadata.insert(FIELD_ID.to_owned(), self.id.to_string());
        field.with_metadata(metadata)
    }
}

/// How a hypertable is cut into chunks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hypertable {
    /// The number users see (`hypertable_id`, chunk names); counts from 1.
    pub id: u32,
    pub time_column: ColumnId,
    /// Slice width: microseconds for time types (dates too), plain units for integers.
    pub slicing: TimeSlicing,
    pub space: Option<SpaceDimension>,
    pub distributed: bool,
    pub replication_factor: u16,
    pub data_nodes: Vec<NodeName>,
    pub chunk_schema: String,
    /// `_dist_hyper_1` or `_hyper_1`; a chunk is `<prefix>_<chunk id>_chunk`.
    pub chunk_prefix: String,
    /// Which columns carry the default indexes, for the catalogs only.
    pub default_indexes: bool,
    /// `None`: not asked for. Rows are columnar all the same; it decides their order.
    #[serde(default)]
    pub compression: Option<Compression>,
}

/// `timescaledb.compress_segmentby` and `timescaledb.compress_orderby`. No column is in both or twice in one, and the
/// time column is in one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compression {
    pub segment_by: Vec<ColumnId>,
    pub order_by: Vec<Ordering>,
}

/// Direction and place of NULLs are what the user said; segments keep rows ascending with NULLs last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordering {
    pub column: ColumnId,
    pub descending: bool,
    pub nulls_first: bool,
}

impl Compression {
    /// Those of `segment_by`, then those of `order_by`.
    pub fn columns(&self) -> impl Iterator<Item = ColumnId> {
        self.segment_by.iter().copied().chain(self.order_by.iter().map(|ordering| ordering.column))
    }
}

impl Hypertable {
    /// The space column first, then time.
    pub fn dimensions(&self) -> impl Iterator<Item = ColumnId> {
        self.space.as_ref().map(|space| space.column).into_iter().chain([self.time_column])
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpaceDimension {
    pub column: ColumnId,
    /// What users see; chunks of new slices are cut into this many groups of hash slots.
    pub partitions: u16,
}

/// No two rows may be equal in all of its columns. On a hypertable these contain the partitioning columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDef {
    /// Of its index.
    pub oid: u32,
    /// Of the index and, where it is one, of the constraint.
    pub name: String,
    pub kind: KeyKind,
    pub columns: Vec<ColumnId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// `PRIMARY KEY`: its columns are NOT NULL.
    Primary,
    /// `UNIQUE`.
    Unique,
    /// `CREATE UNIQUE INDEX`: no constraint.
    Index,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableDef {
    pub id: TableId,
    pub database: String,
    pub schema: String,
    pub name: String,
    pub owner: String,
    /// In the order users see; dropped columns are gone.
    pub columns: Vec<ColumnDef>,
    pub next_column: ColumnId,
    /// `None` for a plain table, which is one chunk without bounds.
    pub hypertable: Option<Hypertable>,
    /// In the order of their definition.
    #[serde(default)]
    pub keys: Vec<KeyDef>,
    pub comment: Option<String>,
}

impl TableDef {
    pub fn column(&self, name: &str) -> Option<&ColumnDef> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn column_by_id(&self, id: ColumnId) -> Option<&ColumnDef> {
        self.columns.iter().find(|column| column.id == id)
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(ColumnDef::field).collect::<Vec<_>>()))
    }

    pub fn key(&self, name: &str) -> Option<&KeyDef> {
        self.keys.iter().find(|key| key.name == name)
    }

    pub fn primary_key(&self) -> Option<&KeyDef> {
        self.keys.iter().find(|key| key.kind == KeyKind::Primary)
    }

    /// How the nodes keep this table's chunks: sorted as its compression says, else by (space columns, time).
    pub fn layout(&self) -> ChunkLayout {
        let unique = |key: &KeyDef| UniqueKey { name: key.name.clone(), columns: key.columns.clone() };
        let keys = self.keys.iter().map(unique).collect();
        let Some(hypertable) = &self.hypertable else {
            return ChunkLayout { table: self.id, sort: Vec::new(), time: None, keys };
        };
        let sort = match &hypertable.compression {
            Some(compression) => compression.columns().collect(),
            None => hypertable.dimensions().collect(),
        };
        ChunkLayout { table: self.id, sort, time: Some(hypertable.time_column), keys }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChunkDef {
    pub id: ChunkId,
    pub table: TableId,
    /// In the units of the time column: microseconds for time types.
    pub time: TimeRange,
    pub slots: SlotSet,
    /// Replicas; one for now.
    pub nodes: Vec<NodeName>,
    /// Rises with each change of placement.
    pub epoch: u64,
    pub created_us: i64,
    /// `compress_chunk` was here: its rows of that time are sealed, those that came later need not be.
    #[serde(default)]
    pub compressed: bool,
}

impl ChunkDef {
    pub fn name(&self, hypertable: &Hypertable) -> String {
        format!("{}_{}_chunk", hypertable.chunk_prefix, self.id)
    }
}
