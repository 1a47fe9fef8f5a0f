//! The views of `pg_catalog` over tables, views and indexes.

use super::model::{What, classes, indexes};
use super::objects::int;
use crate::pgcatalog::functions::quote_ident;
use crate::pgcatalog::schema::Filler;
use crate::pgcatalog::system::SystemCatalog;
use crate::pgcatalog::value::{Row, Value};

pub(super) fn rows(name: &str, fill: &Filler, catalog: &dyn SystemCatalog) -> Option<Vec<Row>> {
    Some(match name {
        "pg_tables" => tables(fill, catalog),
        "pg_views" => views(fill, catalog),
        "pg_indexes" => index_rows(fill, catalog),
        "pg_stat_user_tables" | "pg_stat_all_tables" => statistics(fill, catalog),
        _ => return None,
    })
}

fn tables(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = classes(catalog).into_iter().filter(|class| class.kind == 'r').map(|class| {
        let (has_index, has_trigger) = match &class.what {
            What::Table(table) => (!indexes(table).is_empty(), table.hypertable.is_some()),
            _ => (false, false),
        };
        fill.row([
            ("schemaname", Value::text(class.schema)),
            ("tablename", Value::text(class.name)),
            ("tableowner", Value::text(class.owner)),
            ("hasindexes", Value::Bool(has_index)),
            ("hasrules", Value::Bool(false)),
            ("hastriggers", Value::Bool(has_trigger)),
            ("rowsecurity", Value::Bool(false)),
        ])
    });
    rows.collect()
}

fn views(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = catalog.views().into_iter().map(|view| {
        fill.row([
            ("schemaname", Value::text(view.schema)),
            ("viewname", Value::text(view.name)),
            ("viewowner", Value::text(view.owner)),
            ("definition", Value::text(format!(" {};", view.sql.trim().trim_end_matches(';')))),
        ])
    });
    rows.collect()
}

fn index_rows(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for table in catalog.tables() {
        for index in indexes(&table) {
            let columns = index.columns.iter().map(|(position, down)| {
                let name = quote_ident(&table.columns[position - 1].name);
                if *down { format!("{name} DESC") } else { name }
            });
            let columns = columns.collect::<Vec<_>>().join(", ");
            let relation = format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name));
            let (name, unique) = (quote_ident(&index.name), if index.key.is_some() { "UNIQUE " } else { "" });
            rows.push(fill.row([
                ("schemaname", Value::text(&table.schema)),
                ("tablename", Value::text(&table.name)),
                ("indexname", Value::text(&index.name)),
                ("indexdef", Value::text(format!("CREATE {unique}INDEX {name} ON {relation} USING btree ({columns})"))),
            ]));
        }
    }
    rows
}

/// Nothing is counted yet: the tables with zeros, which is what a fresh PostgreSQL shows.
fn statistics(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let counters = [
        "seq_scan",
        "seq_tup_read",
        "idx_scan",
        "idx_tup_fetch",
        "n_tup_ins",
        "n_tup_upd",
        "n_tup_del",
        "n_tup_hot_upd",
        "n_live_tup",
        "n_dead_tup",
        "n_mod_since_analyze",
        "n_ins_since_vacuum",
        "vacuum_count",
        "autovacuum_count",
        "analyze_count",
        "autoanalyze_count",
    ];
    let rows = classes(catalog).into_iter().filter(|class| class.kind == 'r').map(|class| {
        let mut row = fill.row([
            ("relid", int(class.oid)),
            ("schemaname", Value::text(class.schema)),
            ("relname", Value::text(class.name)),
        ]);
        counters.iter().for_each(|counter| fill.set(&mut row, counter, int(0)));
        row
    });
    rows.collect()
}
