//! `information_schema`.

use super::model::{Class, What, classes, schemas};
use super::objects::stored_default;
use crate::pgcatalog::schema::Filler;
use crate::pgcatalog::system::SystemCatalog;
use crate::pgcatalog::value::{Row, Value};
use engine::{KeyKind, PgType};

pub(super) fn rows(name: &str, fill: &Filler, catalog: &dyn SystemCatalog) -> Option<Vec<Row>> {
    Some(match name {
        "schemata" => schemata(fill, catalog),
        "tables" => tables(fill, catalog),
        "columns" => columns(fill, catalog),
        "views" => views(fill, catalog),
        "table_constraints" => table_constraints(fill, catalog),
        "key_column_usage" => key_columns(fill, catalog),
        "information_schema_catalog_name" => {
            vec![fill.row([("catalog_name", Value::text(catalog.current_database()))])]
        }
        "enabled_roles" | "applicable_roles" if name == "enabled_roles" => {
            vec![fill.row([("role_name", Value::text(catalog.current_user()))])]
        }
        _ => return None,
    })
}

fn yes_or_no(yes: bool) -> Value {
    Value::text(if yes { "YES" } else { "NO" })
}

fn schemata(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = schemas(catalog).into_iter().map(|schema| {
        fill.row([
            ("catalog_name", Value::text(catalog.current_database())),
            ("schema_name", Value::text(schema.name)),
            ("schema_owner", Value::text(schema.owner)),
        ])
    });
    rows.collect()
}

/// Tables, chunks and views; indexes are no tables.
fn tabular(catalog: &dyn SystemCatalog) -> impl Iterator<Item = Class> {
    classes(catalog).into_iter().filter(|class| class.kind != 'i')
}

fn tables(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = tabular(catalog).map(|class| {
        let kind = match class.kind {
            'v' => "VIEW",
            'f' => "FOREIGN",
            _ => "BASE TABLE",
        };
        fill.row([
            ("table_catalog", Value::text(catalog.current_database())),
            ("table_schema", Value::text(class.schema)),
            ("table_name", Value::text(class.name)),
            ("table_type", Value::text(kind)),
            ("is_insertable_into", yes_or_no(class.kind != 'v')),
            ("is_typed", yes_or_no(false)),
        ])
    });
    rows.collect()
}

/// PRIMARY KEY and UNIQUE.
fn table_constraints(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for table in catalog.tables() {
        for key in table.keys.iter().filter(|key| key.kind != KeyKind::Index) {
            let kind = if key.kind == KeyKind::Primary { "PRIMARY KEY" } else { "UNIQUE" };
            rows.push(fill.row([
                ("constraint_catalog", Value::text(catalog.current_database())),
                ("constraint_schema", Value::text(&table.schema)),
                ("constraint_name", Value::text(&key.name)),
                ("table_catalog", Value::text(catalog.current_database())),
                ("table_schema", Value::text(&table.schema)),
                ("table_name", Value::text(&table.name)),
                ("constraint_type", Value::text(kind)),
                ("is_deferrable", yes_or_no(false)),
                ("initially_deferred", yes_or_no(false)),
                ("enforced", yes_or_no(true)),
                ("nulls_distinct", if key.kind == KeyKind::Unique { yes_or_no(true) } else { Value::Null }),
            ]));
        }
    }
    rows
}

fn key_columns(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for table in catalog.tables() {
        for key in table.keys.iter().filter(|key| key.kind != KeyKind::Index) {
            for (at, column) in key.columns.iter().filter_map(|id| table.column_by_id(*id)).enumerate() {
                rows.push(fill.row([
                    ("constraint_catalog", Value::text(catalog.current_database())),
                    ("constraint_schema", Value::text(&table.schema)),
                    ("constraint_name", Value::text(&key.name)),
                    ("table_catalog", Value::text(catalog.current_database())),
                    ("table_schema", Value::text(&table.schema)),
                    ("table_name", Value::text(&table.name)),
                    ("column_name", Value::text(&column.name)),
                    ("ordinal_position", Value::Int(at as i64 + 1)),
                ]));
            }
        }
    }
    rows
}

fn views(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = catalog.views().into_iter().map(|view| {
        fill.row([
            ("table_catalog", Value::text(catalog.current_database())),
            ("table_schema", Value::text(view.schema)),
            ("table_name", Value::text(view.name)),
            ("view_definition", Value::text(format!(" {};", view.sql.trim().trim_end_matches(';')))),
            ("check_option", Value::text("NONE")),
            ("is_updatable", yes_or_no(false)),
            ("is_insertable_into", yes_or_no(false)),
            ("is_trigger_updatable", yes_or_no(false)),
            ("is_trigger_deletable", yes_or_no(false)),
            ("is_trigger_insertable_into", yes_or_no(false)),
        ])
    });
    rows.collect()
}

/// One column of one relation.
struct Column {
    name: String,
    ty: PgType,
    nullable: bool,
    default: Option<String>,
}

fn columns(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for class in tabular(catalog) {
        let columns: Vec<Column> = match &class.what {
            What::Table(table) | What::Chunk(table, _) => {
                let stored = table.columns.iter().map(|column| Column {
                    name: column.name.clone(),
                    ty: column.ty.clone(),
                    nullable: column.nullable,
                    default: column.default.as_ref().map(|default| stored_default(column, default)),
                });
                stored.collect()
            }
            What::View(columns) => {
                let shown = columns.iter().map(|(name, ty)| Column {
                    name: name.clone(),
                    ty: ty.clone(),
                    nullable: true,
                    default: None,
                });
                shown.collect()
            }
            What::Index(..) => Vec::new(),
        };
        rows.extend(columns.iter().enumerate().map(|(at, column)| column_row(fill, catalog, &class, at, column)));
    }
    rows
}

fn column_row(fill: &Filler, catalog: &dyn SystemCatalog, class: &Class, at: usize, column: &Column) -> Row {
    let database = || Value::text(catalog.current_database());
    let optional = |n: Option<i64>| n.map_or(Value::Null, Value::Int);
    let (precision, radix, scale) = match &column.ty {
        PgType::Int2 => (Some(16), Some(2), Some(0)),
        PgType::Int4 => (Some(32), Some(2), Some(0)),
        PgType::Int8 => (Some(64), Some(2), Some(0)),
        PgType::Float4 => (Some(24), Some(2), None),
        PgType::Float8 => (Some(53), Some(2), None),
        PgType::Numeric(None) => (None, Some(10), None),
        PgType::Numeric(Some((precision, scale))) => (Some(*precision as i64), Some(10), Some(*scale as i64)),
        _ => (None, None, None),
    };
    let (length, octets) = match &column.ty {
        PgType::Varchar(Some(n)) | PgType::Bpchar(Some(n)) => (Some(*n as i64), Some(*n as i64 * 4)),
        PgType::Text | PgType::Varchar(None) => (None, Some(1 << 30)),
        _ => (None, None),
    };
    let fraction = match &column.ty {
        PgType::Timestamptz | PgType::Timestamp | PgType::Time | PgType::Interval => Some(6),
        PgType::Date => Some(0),
        _ => None,
    };
    let shown = match &column.ty {
        PgType::Array(_) => "ARRAY".to_owned(),
        // Without its modifier.
        PgType::Varchar(_) => PgType::Varchar(None).to_string(),
        PgType::Bpchar(_) => PgType::Bpchar(None).to_string(),
        PgType::Numeric(_) => PgType::Numeric(None).to_string(),
        ty => ty.to_string(),
    };
    fill.row([
        ("table_catalog", database()),
        ("table_schema", Value::text(&class.schema)),
        ("table_name", Value::text(&class.name)),
        ("column_name", Value::text(&column.name)),
        ("ordinal_position", Value::Int(at as i64 + 1)),
        ("column_default", Value::opt_text(column.default.as_ref())),
        ("is_nullable", yes_or_no(column.nullable)),
        ("data_type", Value::text(shown)),
        ("character_maximum_length", optional(length)),
        ("character_octet_length", optional(octets)),
        ("numeric_precision", optional(precision)),
        ("numeric_precision_radix", optional(radix)),
        ("numeric_scale", optional(scale)),
        ("datetime_precision", optional(fraction)),
        ("udt_catalog", database()),
        ("udt_schema", Value::text("pg_catalog")),
        ("udt_name", Value::text(column.ty.internal_name())),
        ("dtd_identifier", Value::text((at + 1).to_string())),
        ("is_self_referencing", yes_or_no(false)),
        ("is_identity", yes_or_no(false)),
        ("identity_cycle", yes_or_no(false)),
        ("is_generated", Value::text("NEVER")),
        ("is_updatable", yes_or_no(class.kind != 'v')),
    ])
}
