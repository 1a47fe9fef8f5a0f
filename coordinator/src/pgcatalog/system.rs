//! What the executor asks of its surroundings: the objects that exist, and the functions that have effects. Both are
//! synchronous; the session gathers what needs a node before it runs a statement.

use super::value::{Row, Value};
use crate::catalog::Job;
use crate::jobs::History;
use crate::txn::ListedTransaction;
use engine::{ChunkDef, PgType, TableDef};
use proto::{Result, TableId};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    pub oid: u32,
    pub name: String,
    pub owner: String,
    pub acl: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub owner: String,
    pub columns: Vec<(String, PgType)>,
    /// The query after `CREATE VIEW … AS`.
    pub sql: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    pub oid: u32,
    pub name: String,
    pub superuser: bool,
    pub inherit: bool,
    pub create_role: bool,
    pub create_db: bool,
    pub login: bool,
    pub connection_limit: i32,
    pub valid_until_us: Option<i64>,
    pub member_of: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    pub oid: u32,
    pub name: String,
    pub owner: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DataNodeServer {
    pub oid: u32,
    pub name: String,
    pub owner: String,
    pub host: String,
    pub port: u16,
    pub dbname: String,
    pub available: bool,
    /// The node answered when last asked.
    pub up: bool,
    /// `role=U/grantor` items.
    pub acl: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub default: String,
    /// `bool`, `integer`, `string`, `enum`, `real`.
    pub vartype: String,
    /// `user`, `superuser`, `postmaster`, `internal`.
    pub context: String,
}

/// One backend, for `pg_stat_activity`.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    pub pid: i32,
    pub user: String,
    pub database: String,
    pub application: String,
    pub client_addr: Option<String>,
    pub client_port: Option<i32>,
    pub backend_start_us: i64,
    pub query_start_us: Option<i64>,
    /// `active`, `idle`, `idle in transaction`.
    pub state: String,
    pub query: String,
}

/// Bytes of a table: heap and index. Zero where nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    pub table: u64,
    pub index: u64,
}

/// What exists in the session's database and cluster, and who asks.
pub trait SystemCatalog {
    fn tables(&self) -> Vec<Arc<TableDef>>;
    fn views(&self) -> Vec<View>;
    /// All but `pg_catalog`, `information_schema`, `pg_toast` and TimescaleDB's own.
    fn schemas(&self) -> Vec<Schema>;
    fn roles(&self) -> Vec<Role>;
    fn databases(&self) -> Vec<Database>;
    fn data_nodes(&self) -> Vec<DataNodeServer>;
    fn chunks(&self, table: TableId) -> Vec<Arc<ChunkDef>>;
    /// Of this database, by number, with what became of their runs.
    fn jobs(&self) -> Vec<(Arc<Job>, Option<History>)>;
    /// Whether `CREATE EXTENSION timescaledb` was run in this database.
    fn timescaledb(&self) -> bool;

    fn session_user(&self) -> String;
    fn current_user(&self) -> String;
    fn current_database(&self) -> String;
    /// As set, without the implicit `pg_catalog`; `"$user"` already replaced.
    fn search_path(&self) -> Vec<String>;
    fn settings(&self) -> Vec<Setting>;
    /// One setting by its lower-case name; also those `settings` does not list.
    fn setting(&self, name: &str) -> Option<String>;
    fn backend_pid(&self) -> i32;
    /// `15.18 (Seriatim 0.1.0)`: what `server_version` shows.
    fn server_version(&self) -> String;
    /// The transaction's `now()`.
    fn now_us(&self) -> i64;
    fn started_us(&self) -> i64;
    fn in_recovery(&self) -> bool {
        false
    }

    fn table_bytes(&self, table: TableId) -> Bytes;
    fn chunk_bytes(&self, chunk: &ChunkDef) -> Bytes;
    fn database_bytes(&self, name: &str) -> u64;
    fn activity(&self) -> Vec<Activity>;
    /// What has not ended everywhere.
    fn transactions(&self) -> Vec<ListedTransaction> {
        Vec::new()
    }
    /// What `pg_proc` lists besides PostgreSQL's own; their oids follow from their order.
    fn functions(&self) -> Vec<ListedFunction> {
        Vec::new()
    }

    /// Privileges: `has_table_privilege` and its family. `object` is `table`, `schema`, `database`, `server`, ….
    fn has_privilege(&self, role: &str, object: &str, name: &str, privilege: &str) -> bool {
        let _ = (role, object, name, privilege);
        true
    }
}

/// A function as `\df` shows it; types are spelled as `format_type` does.
#[derive(Debug, Clone)]
pub struct ListedFunction {
    pub name: &'static str,
    /// `f` function, `a` aggregate, `p` procedure.
    pub kind: char,
    pub arguments: Vec<ListedArgument>,
    /// `SETOF text`, `TABLE(a integer, …)`; empty for a procedure.
    pub result: String,
    pub set: bool,
}

#[derive(Debug, Clone)]
pub struct ListedArgument {
    /// Empty when it has none.
    pub name: &'static str,
    pub ty: &'static str,
    /// Empty when it must be given.
    pub default: &'static str,
}

impl ListedFunction {
    pub fn argument_list(&self, with_defaults: bool) -> String {
        let spelled = self.arguments.iter().map(|argument| {
            let name = match argument.name {
                "" => String::new(),
                name => format!("{} ", super::functions::quote_ident(name)),
            };
            let default = match argument.default {
                default if with_defaults && !default.is_empty() => format!(" DEFAULT {default}"),
                _ => String::new(),
            };
            format!("{name}{}{default}", argument.ty)
        });
        spelled.collect::<Vec<_>>().join(", ")
    }

    pub fn argument_oids(&self) -> Vec<u32> {
        self.arguments.iter().map(|argument| type_oid(argument.ty)).collect()
    }

    pub fn result_oid(&self) -> u32 {
        type_oid(self.result.trim_start_matches("SETOF "))
    }
}

/// Records for tables; 0 for a name that means nothing.
fn type_oid(ty: &str) -> u32 {
    match ty {
        "\"any\"" => 2276,
        "anyelement" => 2283,
        "" => PgType::Void.oid(),
        table if table.starts_with("TABLE(") => PgType::Record.oid(),
        other => PgType::parse(other).map_or(0, |ty| ty.oid()),
    }
}

/// What a function of the session returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// One column is a scalar; several are a record in a select list and columns in FROM.
    pub columns: Vec<(String, PgType)>,
    /// Any number of rows; else exactly one.
    pub set: bool,
    /// More than an answer: it must not be called for rows that nobody gets.
    pub changes: bool,
}

#[derive(Debug, Clone)]
pub struct Argument {
    /// Given as `name => value`.
    pub name: Option<String>,
    pub value: Value,
    /// `Unknown` for a bare string literal.
    pub ty: PgType,
}

/// Functions with effects or cluster state: `add_data_node`, `create_hypertable`, `set_config`, `pg_terminate_backend`.
pub trait Functions {
    /// `None`: there is no such function. Must not have effects: statements are described with it.
    fn signature(&self, schema: Option<&str>, name: &str) -> Option<Signature>;

    /// Called once for each row that evaluates it, only for functions with a signature. reg* arguments come as text.
    fn call(&mut self, schema: Option<&str>, name: &str, args: &[Argument]) -> Result<Vec<Row>>;
}

/// No functions at all.
pub struct NoFunctions;

impl Functions for NoFunctions {
    fn signature(&self, _: Option<&str>, _: &str) -> Option<Signature> {
        None
    }

    fn call(&mut self, _: Option<&str>, name: &str, _: &[Argument]) -> Result<Vec<Row>> {
        Err(proto::Error::internal(format!("function {name} was called without a signature")))
    }
}
