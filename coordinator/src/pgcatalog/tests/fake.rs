//! The tutorial's cluster as a `SystemCatalog`, with one plain table and one view besides.

use super::super::*;
use engine::{ChunkDef, ColumnDef, Hypertable, PgType, SpaceDimension, TableDef};
use proto::{ChunkId, ColumnId, NodeName, SlotSet, TableId, TimeRange, TimeSlicing};
use std::sync::Arc;

pub(crate) const CONDITIONS: u32 = 16433;
pub(crate) const DEVICES: u32 = 16449;
pub(crate) const WARM: u32 = 16456;
const WEEK_US: i64 = 7 * 86_400_000_000;
/// 2018-12-27, the Thursday before the tutorial's first row.
const FIRST_SLICE_US: i64 = 1_545_868_800_000_000;

pub(crate) struct Tutorial {
    /// `CREATE EXTENSION timescaledb` was run; without it the schemas are plain ones, as in the recording server.
    pub timescaledb: bool,
    /// `(number, slice, partition, node)`.
    pub chunks: Vec<(u32, i64, usize, &'static str)>,
}

impl Tutorial {
    /// As the recording server was set up: a PostgreSQL 15 without the extension.
    pub(crate) fn recorded() -> Tutorial {
        Tutorial { timescaledb: false, chunks: vec![(1, 0, 0, "dn1"), (2, 0, 1, "dn2"), (10, 4, 1, "dn2")] }
    }

    /// As TimescaleDB 2.13.1 left it.
    pub(crate) fn finished() -> Tutorial {
        let nodes = ["dn1", "dn2", "dn1", "dn2", "dn2", "dn1", "dn2", "dn1", "dn1", "dn2", "dn1", "dn2"];
        let chunks = nodes.iter().zip(1..).map(|(node, id)| {
            let slice = (id as i64 - 1) / 2;
            (id, slice, if *node == "dn1" { 0 } else { 1 }, *node)
        });
        Tutorial { timescaledb: true, chunks: chunks.collect() }
    }
}

fn column(id: u32, name: &str, ty: PgType, nullable: bool) -> ColumnDef {
    ColumnDef { id: ColumnId(id), name: name.to_owned(), ty, nullable, default: None, missing: None, comment: None }
}

fn table(id: u32, name: &str, columns: Vec<ColumnDef>) -> TableDef {
    TableDef {
        id: TableId(id),
        database: "multinode".to_owned(),
        schema: "public".to_owned(),
        name: name.to_owned(),
        owner: "testuser".to_owned(),
        next_column: ColumnId(columns.len() as u32 + 1),
        columns,
        hypertable: None,
        keys: Vec::new(),
        comment: None,
    }
}

impl SystemCatalog for Tutorial {
    fn tables(&self) -> Vec<Arc<TableDef>> {
        let mut conditions = table(
            CONDITIONS,
            "conditions",
            vec![
                column(1, "time", PgType::Timestamptz, false),
                column(2, "device", PgType::Int4, true),
                column(3, "temp", PgType::Float8, true),
            ],
        );
        conditions.hypertable = Some(Hypertable {
            id: 1,
            time_column: ColumnId(1),
            slicing: TimeSlicing::new(WEEK_US).unwrap(),
            space: Some(SpaceDimension { column: ColumnId(2), partitions: 2 }),
            distributed: true,
            replication_factor: 1,
            data_nodes: vec![NodeName::from("dn1"), NodeName::from("dn2")],
            chunk_schema: "_timescaledb_internal".to_owned(),
            chunk_prefix: "_dist_hyper_1".to_owned(),
            default_indexes: true,
            compression: None,
        });
        let mut id = column(1, "id", PgType::Int4, false);
        id.default = Some("7".to_owned());
        let mut label = column(2, "label", PgType::Varchar(Some(20)), false);
        label.default = Some("'x'".to_owned());
        label.comment = Some("painted on it".to_owned());
        let price = column(3, "price", PgType::Numeric(Some((10, 2))), true);
        let tags = column(4, "tags", PgType::Array(Box::new(PgType::Text)), true);
        let mut devices = table(DEVICES, "devices", vec![id, label, price, tags]);
        devices.comment = Some("what measures".to_owned());
        vec![Arc::new(conditions), Arc::new(devices)]
    }

    fn views(&self) -> Vec<View> {
        vec![View {
            oid: WARM,
            schema: "public".to_owned(),
            name: "warm".to_owned(),
            owner: "testuser".to_owned(),
            columns: vec![("time".to_owned(), PgType::Timestamptz), ("device".to_owned(), PgType::Int4)],
            sql: "SELECT time, device FROM conditions WHERE temp > 30".to_owned(),
        }]
    }

    fn schemas(&self) -> Vec<Schema> {
        let own = |oid, name: &str, acl: &[&str]| Schema {
            oid,
            name: name.to_owned(),
            owner: "postgres".to_owned(),
            acl: (!acl.is_empty()).then(|| acl.iter().map(|item| item.to_string()).collect()),
        };
        let shared = ["postgres=UC/postgres", "testuser=UC/postgres"];
        let public = ["pg_database_owner=UC/pg_database_owner", "=U/pg_database_owner", "testuser=C/pg_database_owner"];
        let mut schemas = vec![own(2200, "public", &public)];
        schemas[0].owner = "pg_database_owner".to_owned();
        if !self.timescaledb {
            schemas.push(own(16390, "_timescaledb_internal", &shared));
            schemas.push(own(16391, "_timescaledb_functions", &shared));
            schemas.push(own(16392, "timescaledb_information", &[]));
        }
        schemas
    }

    fn roles(&self) -> Vec<Role> {
        let role = |oid, name: &str, all| Role {
            oid,
            name: name.to_owned(),
            superuser: all,
            inherit: true,
            create_role: all,
            create_db: all,
            login: true,
            connection_limit: -1,
            valid_until_us: None,
            member_of: Vec::new(),
        };
        vec![role(10, "postgres", true), role(16384, "testuser", false)]
    }

    fn databases(&self) -> Vec<Database> {
        let database = |oid, name: &str| Database { oid, name: name.to_owned(), owner: "postgres".to_owned() };
        vec![database(5, "postgres"), database(16385, "multinode"), database(1, "template1"), database(4, "template0")]
    }

    fn data_nodes(&self) -> Vec<DataNodeServer> {
        let node = |oid, name: &str, port| DataNodeServer {
            oid,
            name: name.to_owned(),
            owner: "postgres".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            dbname: "multinode".to_owned(),
            available: true,
            up: true,
            acl: Some(vec!["postgres=U/postgres".to_owned(), "testuser=U/postgres".to_owned()]),
        };
        vec![node(16394, "dn1", 5501), node(16395, "dn2", 5502)]
    }

    fn jobs(&self) -> Vec<(Arc<crate::catalog::Job>, Option<crate::jobs::History>)> {
        Vec::new()
    }

    fn chunks(&self, table: TableId) -> Vec<Arc<ChunkDef>> {
        let own = self.chunks.iter().filter(|_| table.0 == CONDITIONS);
        let chunks = own.map(|(id, slice, partition, node)| {
            let start = FIRST_SLICE_US + slice * WEEK_US;
            Arc::new(ChunkDef {
                id: ChunkId(*id),
                table,
                time: TimeRange::new(start, start + WEEK_US).unwrap(),
                slots: SlotSet::partition(*partition, 2),
                nodes: vec![NodeName::from(*node)],
                epoch: 1,
                created_us: 0,
                compressed: false,
            })
        });
        chunks.collect()
    }

    fn timescaledb(&self) -> bool {
        self.timescaledb
    }

    fn session_user(&self) -> String {
        "postgres".to_owned()
    }

    fn current_user(&self) -> String {
        "postgres".to_owned()
    }

    fn current_database(&self) -> String {
        "multinode".to_owned()
    }

    fn search_path(&self) -> Vec<String> {
        vec!["postgres".to_owned(), "public".to_owned()]
    }

    fn settings(&self) -> Vec<Setting> {
        let setting = |name: &str, value: &str, vartype: &str, context: &str| Setting {
            name: name.to_owned(),
            value: value.to_owned(),
            default: value.to_owned(),
            vartype: vartype.to_owned(),
            context: context.to_owned(),
        };
        vec![
            setting("max_index_keys", "32", "integer", "internal"),
            setting("search_path", "\"$user\", public", "string", "user"),
            setting("server_version_num", "150018", "integer", "internal"),
            setting("TimeZone", "UTC", "string", "user"),
        ]
    }

    fn setting(&self, name: &str) -> Option<String> {
        let settings = self.settings().into_iter();
        settings.filter(|setting| setting.name.to_lowercase() == name).map(|setting| setting.value).next()
    }

    fn backend_pid(&self) -> i32 {
        42
    }

    fn server_version(&self) -> String {
        "15.18 (Seriatim 0.1.0)".to_owned()
    }

    /// 2019-02-01 00:00 UTC.
    fn now_us(&self) -> i64 {
        1_548_979_200_000_000
    }

    fn started_us(&self) -> i64 {
        1_548_892_800_000_000
    }

    fn table_bytes(&self, table: TableId) -> Bytes {
        Bytes { table: if table.0 == DEVICES { 8192 } else { 0 }, index: 16384 }
    }

    fn chunk_bytes(&self, chunk: &ChunkDef) -> Bytes {
        Bytes { table: 8192 * chunk.id.0 as u64, index: 0 }
    }

    fn database_bytes(&self, _: &str) -> u64 {
        1 << 20
    }

    fn activity(&self) -> Vec<Activity> {
        vec![Activity {
            pid: 42,
            user: "postgres".to_owned(),
            database: "multinode".to_owned(),
            application: "psql".to_owned(),
            client_addr: Some("127.0.0.1".to_owned()),
            client_port: Some(50000),
            backend_start_us: self.started_us(),
            query_start_us: Some(self.now_us()),
            state: "active".to_owned(),
            query: "SELECT 1".to_owned(),
        }]
    }
}

/// Session functions that only remember that they were called.
#[derive(Default)]
pub(crate) struct Calls {
    pub made: Vec<String>,
}

impl Functions for Calls {
    fn signature(&self, _: Option<&str>, name: &str) -> Option<Signature> {
        let columns = |columns: &[(&str, PgType)]| {
            columns.iter().map(|(name, ty)| (name.to_string(), ty.clone())).collect::<Vec<_>>()
        };
        match name {
            "create_distributed_hypertable" => Some(Signature {
                columns: columns(&[
                    ("hypertable_id", PgType::Int4),
                    ("schema_name", PgType::Name),
                    ("table_name", PgType::Name),
                    ("created", PgType::Bool),
                ]),
                set: false,
                changes: true,
            }),
            "show_chunks" => {
                Some(Signature { columns: columns(&[("show_chunks", PgType::Regclass)]), set: true, changes: false })
            }
            "set_config" => {
                Some(Signature { columns: columns(&[("set_config", PgType::Text)]), set: false, changes: true })
            }
            "distributed_exec" => Some(Signature { columns: Vec::new(), set: false, changes: true }),
            _ => None,
        }
    }

    fn call(&mut self, _: Option<&str>, name: &str, args: &[Argument]) -> Result<Vec<Row>> {
        let args_text = args.iter().map(|arg| {
            let name = arg.name.as_ref().map(|name| format!("{name}=>")).unwrap_or_default();
            format!("{name}{:?}", arg.value)
        });
        self.made.push(format!("{name}({})", args_text.collect::<Vec<_>>().join(", ")));
        Ok(match name {
            "create_distributed_hypertable" => {
                vec![vec![Value::Int(1), Value::text("public"), Value::text("conditions"), Value::Bool(true)]]
            }
            "show_chunks" => vec![vec![Value::Int(0x4000_0001)], vec![Value::Int(0x4000_0002)]],
            "set_config" => vec![vec![args[1].value.clone()]],
            _ => vec![Vec::new()],
        })
    }
}
