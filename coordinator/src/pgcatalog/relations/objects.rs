//! `pg_class` and what hangs on it.

use super::model::{Class, Names, What, classes, indexes, schemas};
use super::{oids, recorded};
use crate::pgcatalog::schema::{self, Filler, PG_CATALOG};
use crate::pgcatalog::system::SystemCatalog;
use crate::pgcatalog::value::{Row, Value};
use engine::{ColumnDef, KeyKind, PgType, TableDef};

pub(super) fn rows(name: &str, fill: &Filler, catalog: &dyn SystemCatalog) -> Option<Vec<Row>> {
    Some(match name {
        "pg_namespace" => namespaces(fill, catalog),
        "pg_class" => class_rows(fill, catalog),
        "pg_attribute" => attributes(fill, catalog),
        "pg_attrdef" => defaults(fill, catalog),
        "pg_index" => index_rows(fill, catalog),
        "pg_constraint" => constraints(fill, catalog),
        "pg_inherits" => inherits(fill, catalog),
        "pg_trigger" => triggers(fill, catalog),
        "pg_description" => descriptions(fill, catalog),
        "pg_foreign_table" => foreign_tables(fill, catalog),
        "pg_rewrite" => rewrites(fill, catalog),
        "pg_type" => recorded(schema::find(None, "pg_type")?.as_ref()),
        "pg_proc" => procedures(fill, catalog),
        _ => return None,
    })
}

pub(super) fn int(n: impl Into<i64>) -> Value {
    Value::Int(n.into())
}

fn char(c: char) -> Value {
    Value::text(c.to_string())
}

pub(super) fn relation_oid(name: &str) -> Value {
    int(schema::find(None, name).map_or(0, |def| def.oid))
}

fn namespaces(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let roles = Names::roles(catalog);
    let rows = schemas(catalog).into_iter().map(|schema| {
        let acl = schema.acl.map_or(Value::Null, Value::texts);
        let owner = Value::Int(roles.oid(&schema.owner));
        fill.row([
            ("oid", int(schema.oid)),
            ("nspname", Value::text(schema.name)),
            ("nspowner", owner),
            ("nspacl", acl),
        ])
    });
    rows.collect()
}

fn class_rows(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let (schema_oids, roles) = (Names::schemas(catalog), Names::roles(catalog));
    let system =
        schema::relations().iter().filter(|def| catalog.timescaledb() || !schema::comes_with_timescaledb(&def.schema));
    let system = system.map(|def| {
        let mut row = class_row(fill, def.oid, &def.name, def.kind, def.columns.len());
        fill.set(&mut row, "relnamespace", Value::Int(schema_oids.oid(&def.schema)));
        fill.set(&mut row, "relowner", int(10));
        row
    });
    let own = classes(catalog).into_iter().map(|class| {
        let columns = match &class.what {
            What::Table(table) | What::Chunk(table, _) => table.columns.len(),
            What::View(columns) => columns.len(),
            What::Index(_, index) => index.columns.len(),
        };
        let mut row = class_row(fill, class.oid, &class.name, class.kind, columns);
        let (has_index, has_trigger) = match &class.what {
            What::Table(table) => (!indexes(table).is_empty(), table.hypertable.is_some()),
            _ => (false, false),
        };
        let has_children = matches!(&class.what, What::Table(table) if !catalog.chunks(table.id).is_empty());
        let set = [
            ("relnamespace", Value::Int(schema_oids.oid(&class.schema))),
            ("relowner", Value::Int(roles.oid(&class.owner))),
            ("relhasindex", Value::Bool(has_index)),
            ("relhastriggers", Value::Bool(has_trigger)),
            ("relhassubclass", Value::Bool(has_children)),
        ];
        set.into_iter().for_each(|(name, value)| fill.set(&mut row, name, value));
        row
    });
    system.chain(own).collect()
}

fn class_row(fill: &Filler, oid: u32, name: &str, kind: char, columns: usize) -> Row {
    let access = match kind {
        'r' => oids::HEAP,
        'i' => oids::BTREE,
        _ => 0,
    };
    fill.row([
        ("oid", int(oid)),
        ("relname", Value::text(name)),
        ("relam", int(access)),
        ("relfilenode", int(if access == 0 { 0 } else { oid })),
        ("reltuples", Value::Float(-1.0)),
        ("relpersistence", char('p')),
        ("relkind", char(kind)),
        ("relnatts", Value::Int(columns as i64)),
        ("relhasrules", Value::Bool(kind == 'v')),
        ("relispopulated", Value::Bool(true)),
        ("relreplident", char(if kind == 'r' { 'd' } else { 'n' })),
        ("relfrozenxid", int(if kind == 'r' { 1 } else { 0 })),
        ("relminmxid", int(if kind == 'r' { 1 } else { 0 })),
    ])
}

/// One column, as `pg_attribute` needs it.
struct Attribute<'a> {
    name: &'a str,
    ty: &'a PgType,
    not_null: bool,
    has_default: bool,
    inherited: bool,
}

fn attributes(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for def in
        schema::relations().iter().filter(|def| catalog.timescaledb() || !schema::comes_with_timescaledb(&def.schema))
    {
        for (at, column) in def.columns.iter().enumerate() {
            let attribute = Attribute {
                name: &column.name,
                ty: &column.ty,
                not_null: column.not_null,
                has_default: false,
                inherited: false,
            };
            rows.push(attribute_row(fill, def.oid, at, &attribute));
        }
    }
    let stored =
        |column: &ColumnDef, inherited| (column.ty.clone(), !column.nullable, column.default.is_some(), inherited);
    for class in classes(catalog) {
        let columns: Vec<(String, (PgType, bool, bool, bool))> = match &class.what {
            What::Table(table) => {
                table.columns.iter().map(|column| (column.name.clone(), stored(column, false))).collect()
            }
            What::Chunk(table, _) => {
                table.columns.iter().map(|column| (column.name.clone(), stored(column, true))).collect()
            }
            What::View(columns) => {
                columns.iter().map(|(name, ty)| (name.clone(), (ty.clone(), false, false, false))).collect()
            }
            What::Index(table, index) => index
                .columns
                .iter()
                .map(|(position, _)| {
                    let column = &table.columns[position - 1];
                    (column.name.clone(), (column.ty.clone(), false, false, false))
                })
                .collect(),
        };
        for (at, (name, (ty, not_null, has_default, inherited))) in columns.iter().enumerate() {
            let (not_null, has_default, inherited) = (*not_null, *has_default, *inherited);
            let attribute = Attribute { name, ty, not_null, has_default, inherited };
            rows.push(attribute_row(fill, class.oid, at, &attribute));
        }
    }
    rows
}

fn attribute_row(fill: &Filler, relation: u32, at: usize, attribute: &Attribute) -> Row {
    let ty = attribute.ty;
    let by_value = matches!(ty.len(), 1 | 2 | 4 | 8);
    let alignment = match ty.len() {
        1 => 'c',
        2 => 's',
        8 | 16 => 'd',
        _ if *ty == PgType::Name || *ty == PgType::Uuid => 'c',
        _ => 'i',
    };
    let storage = match ty {
        PgType::Numeric(_) => 'm',
        ty if ty.len() == -1 && !matches!(ty, PgType::Int2Vector | PgType::OidVector) => 'x',
        _ => 'p',
    };
    let collation = match ty {
        PgType::Text | PgType::Varchar(_) | PgType::Bpchar(_) => oids::DEFAULT_COLLATION,
        PgType::Name => oids::C_COLLATION,
        PgType::Array(inner) if matches!(**inner, PgType::Text | PgType::Varchar(_) | PgType::Bpchar(_)) => {
            oids::DEFAULT_COLLATION
        }
        _ => 0,
    };
    fill.row([
        ("attrelid", int(relation)),
        ("attname", Value::text(attribute.name)),
        ("atttypid", int(ty.oid())),
        ("attstattarget", int(-1)),
        ("attlen", int(ty.len())),
        ("attnum", Value::Int(at as i64 + 1)),
        ("attndims", int(matches!(ty, PgType::Array(_)) as i32)),
        ("attcacheoff", int(-1)),
        ("atttypmod", int(ty.typmod())),
        ("attbyval", Value::Bool(by_value)),
        ("attalign", char(alignment)),
        ("attstorage", char(storage)),
        ("attnotnull", Value::Bool(attribute.not_null)),
        ("atthasdef", Value::Bool(attribute.has_default)),
        ("attislocal", Value::Bool(!attribute.inherited)),
        ("attinhcount", int(attribute.inherited as i32)),
        ("attcollation", int(collation)),
    ])
}

/// The tables and chunks that have a column default.
fn with_columns(catalog: &dyn SystemCatalog) -> impl Iterator<Item = (Class, std::sync::Arc<TableDef>)> {
    classes(catalog).into_iter().filter_map(|class| {
        let table = match &class.what {
            What::Table(table) | What::Chunk(table, _) => table.clone(),
            _ => return None,
        };
        Some((class, table))
    })
}

/// A default as PostgreSQL stores it: a text literal carries its column's type.
pub(super) fn stored_default(column: &ColumnDef, default: &str) -> String {
    let literal = default.len() >= 2 && default.starts_with('\'') && default.ends_with('\'');
    match literal {
        true => {
            let mut ty = column.ty.clone();
            if matches!(ty, PgType::Varchar(_)) {
                ty = PgType::Varchar(None);
            }
            format!("{default}::{ty}")
        }
        false => default.to_owned(),
    }
}

fn defaults(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for (class, table) in with_columns(catalog) {
        for (at, column) in table.columns.iter().enumerate() {
            if let Some(default) = &column.default {
                let number = at as i64 + 1;
                rows.push(fill.row([
                    ("oid", Value::Int((class.oid as i64) << 11 & 0xffff_ffff | number)),
                    ("adrelid", int(class.oid)),
                    ("adnum", Value::Int(number)),
                    ("adbin", Value::text(stored_default(column, default))),
                ]));
            }
        }
    }
    rows
}

fn index_rows(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    let operators: Vec<(i64, i64)> = recorded_opclasses();
    for table in catalog.tables() {
        for index in indexes(&table) {
            let count = index.columns.len() as i64;
            let types = || index.columns.iter().map(|(position, _)| table.columns[position - 1].ty.oid() as i64);
            let operator = |ty: i64| operators.iter().find(|(input, _)| *input == ty).map_or(0, |(_, oid)| *oid);
            rows.push(fill.row([
                ("indexrelid", int(index.oid)),
                ("indrelid", int(table.id.0)),
                ("indnatts", Value::Int(count)),
                ("indnkeyatts", Value::Int(count)),
                ("indisunique", Value::Bool(index.key.is_some())),
                ("indisprimary", Value::Bool(index.key == Some(KeyKind::Primary))),
                ("indimmediate", Value::Bool(true)),
                ("indisvalid", Value::Bool(true)),
                ("indisready", Value::Bool(true)),
                ("indislive", Value::Bool(true)),
                ("indkey", Value::array(index.columns.iter().map(|(position, _)| Value::Int(*position as i64)))),
                ("indcollation", Value::array(index.columns.iter().map(|_| Value::Int(0)))),
                ("indclass", Value::array(types().map(operator).map(Value::Int))),
                (
                    "indoption",
                    Value::array(index.columns.iter().map(|(_, down)| Value::Int(if *down { 3 } else { 0 }))),
                ),
            ]));
        }
    }
    rows
}

/// PRIMARY KEY and UNIQUE.
fn constraints(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let schemas = Names::schemas(catalog);
    let mut rows = Vec::new();
    for table in catalog.tables() {
        for index in indexes(&table) {
            let kind = match index.key {
                Some(KeyKind::Primary) => 'p',
                Some(KeyKind::Unique) => 'u',
                Some(KeyKind::Index) | None => continue,
            };
            rows.push(fill.row([
                ("oid", int(oids::constraint(index.oid))),
                ("conname", Value::text(&index.name)),
                ("connamespace", Value::Int(schemas.oid(&table.schema))),
                ("contype", char(kind)),
                ("convalidated", Value::Bool(true)),
                ("conrelid", int(table.id.0)),
                ("conindid", int(index.oid)),
                ("conislocal", Value::Bool(true)),
                ("connoinherit", Value::Bool(true)),
                ("conkey", Value::array(index.columns.iter().map(|(position, _)| Value::Int(*position as i64)))),
            ]));
        }
    }
    rows
}

/// `(input type, operator class)` of the B-tree defaults.
fn recorded_opclasses() -> Vec<(i64, i64)> {
    let rows = schema::static_rows("pg_opclass").filter(|row| row[1] == "403");
    rows.filter_map(|row| Some((row[6].parse().ok()?, row[0].parse().ok()?))).collect()
}

fn inherits(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = classes(catalog).into_iter().filter_map(|class| match &class.what {
        What::Chunk(table, _) => {
            Some(fill.row([("inhrelid", int(class.oid)), ("inhparent", int(table.id.0)), ("inhseqno", int(1))]))
        }
        _ => None,
    });
    rows.collect()
}

/// Hypertables show the trigger that keeps rows out of the table itself.
fn triggers(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let hypertables = catalog.tables().into_iter().filter(|table| table.hypertable.is_some());
    let rows = hypertables.map(|table| {
        fill.row([
            ("oid", int(oids::trigger(table.id))),
            ("tgrelid", int(table.id.0)),
            ("tgname", Value::text("ts_insert_blocker")),
            ("tgfoid", int(oids::INSERT_BLOCKER)),
            // ROW, BEFORE, INSERT.
            ("tgtype", int(7)),
            ("tgenabled", char('O')),
        ])
    });
    rows.collect()
}

fn descriptions(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let row = |oid: u32, class: &str, sub: i64, text: &str| {
        fill.row([
            ("objoid", int(oid)),
            ("classoid", relation_oid(class)),
            ("objsubid", Value::Int(sub)),
            ("description", Value::text(text)),
        ])
    };
    let mut rows = vec![
        row(oids::PG_CATALOG, "pg_namespace", 0, "system catalog schema"),
        row(oids::PLPGSQL_EXTENSION, "pg_extension", 0, "PL/pgSQL procedural language"),
    ];
    if catalog.timescaledb() {
        rows.push(row(oids::TIMESCALEDB_EXTENSION, "pg_extension", 0, super::TIMESCALEDB_COMMENT));
    }
    if let Some(public) = catalog.schemas().iter().find(|schema| schema.name == "public") {
        rows.push(row(public.oid, "pg_namespace", 0, "standard public schema"));
    }
    for table in catalog.tables() {
        if let Some(comment) = &table.comment {
            rows.push(row(table.id.0, "pg_class", 0, comment));
        }
        for (at, column) in table.columns.iter().enumerate() {
            if let Some(comment) = &column.comment {
                rows.push(row(table.id.0, "pg_class", at as i64 + 1, comment));
            }
        }
    }
    rows
}

/// A chunk's first replica is its server.
fn foreign_tables(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let servers = catalog.data_nodes();
    let rows = classes(catalog).into_iter().filter(|class| class.kind == 'f').filter_map(|class| {
        let What::Chunk(_, chunk) = &class.what else { return None };
        let node = chunk.nodes.first()?;
        let server = servers.iter().find(|server| server.name == node.as_str())?;
        Some(fill.row([("ftrelid", int(class.oid)), ("ftserver", int(server.oid))]))
    });
    rows.collect()
}

fn rewrites(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let views = classes(catalog).into_iter().filter(|class| class.kind == 'v');
    let rows = views.map(|class| {
        fill.row([
            ("oid", Value::Int(0x2000_0000 | class.oid as i64)),
            ("rulename", Value::text("_RETURN")),
            ("ev_class", int(class.oid)),
            ("ev_type", char('1')),
            ("ev_enabled", char('O')),
            ("is_instead", Value::Bool(true)),
        ])
    });
    rows.collect()
}

/// The recorded input and output functions of types, and TimescaleDB's trigger function.
fn procedures(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let schemas = Names::schemas(catalog);
    let vector = |text: &str| Value::array(text.split_whitespace().filter_map(|oid| oid.parse().ok()).map(Value::Int));
    let number = |text: &str| text.parse().map_or(Value::Null, Value::Int);
    let procedure = |oid: Value, name: &str, schema: &str, language: i32| {
        let values = [
            ("oid", oid),
            ("proname", Value::text(name)),
            ("pronamespace", Value::Int(schemas.oid(schema))),
            ("proowner", int(10)),
            ("prolang", int(language)),
            ("procost", Value::Float(1.0)),
            ("prokind", char('f')),
            ("proparallel", char('s')),
            ("prosrc", Value::text(name)),
        ];
        fill.row(values)
    };
    let mut rows = Vec::new();
    for recorded in schema::static_rows("pg_proc") {
        let mut row = procedure(number(recorded[0]), recorded[1], PG_CATALOG, 12);
        let set = [
            ("pronargs", number(recorded[2])),
            ("prorettype", number(recorded[3])),
            ("proargtypes", vector(recorded[4])),
            ("provolatile", Value::text(recorded[5])),
            ("proisstrict", Value::Bool(recorded[6] == "t")),
        ];
        set.into_iter().for_each(|(name, value)| fill.set(&mut row, name, value));
        rows.push(row);
    }
    if catalog.timescaledb() {
        let mut blocker = procedure(int(oids::INSERT_BLOCKER), "insert_blocker", "_timescaledb_functions", 13);
        // The pseudo-type trigger.
        fill.set(&mut blocker, "prorettype", int(2279));
        fill.set(&mut blocker, "provolatile", char('v'));
        rows.push(blocker);
        for (position, function) in catalog.functions().iter().enumerate() {
            let mut row = procedure(int(oids::function(position)), function.name, "public", 13);
            let (arguments, names) = (&function.arguments, function.arguments.iter().map(|a| Value::text(a.name)));
            let optional = arguments.iter().filter(|argument| !argument.default.is_empty()).count();
            let set = [
                ("prokind", char(function.kind)),
                ("proretset", Value::Bool(function.set)),
                ("provolatile", char('v')),
                ("pronargs", Value::Int(arguments.len() as i64)),
                ("pronargdefaults", Value::Int(optional as i64)),
                ("prorettype", int(function.result_oid())),
                ("proargtypes", Value::array(function.argument_oids().into_iter().map(|oid| Value::Int(oid.into())))),
                ("proargnames", Value::array(names)),
            ];
            set.into_iter().for_each(|(name, value)| fill.set(&mut row, name, value));
            rows.push(row);
        }
    }
    rows
}
