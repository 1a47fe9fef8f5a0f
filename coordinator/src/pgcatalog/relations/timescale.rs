//! TimescaleDB's views, in their 2.13 shape and, where the tutorial asks for it, in that of the 2.0 betas.

use crate::pgcatalog::functions::objects::size_pretty;
use crate::pgcatalog::schema::Filler;
use crate::pgcatalog::system::{Bytes, DataNodeServer, SystemCatalog};
use crate::pgcatalog::value::{Interval, Row, Value};
use engine::{ColumnDef, Hypertable, Ordering, PgType, TableDef};
use proto::ColumnId;
use std::sync::Arc;

pub(crate) const TIMESCALEDB_VERSION: &str = "2.13.1";
pub(crate) const TIMESCALEDB_COMMENT: &str =
    "Enables scalable inserts and complex queries for time-series data (Community Edition)";

pub(super) fn rows(schema: &str, name: &str, fill: &Filler, catalog: &dyn SystemCatalog) -> Option<Vec<Row>> {
    Some(match (schema, name) {
        ("timescaledb_information", "hypertables") => hypertables(fill, catalog),
        ("timescaledb_information", "hypertable") => hypertables_beta(fill, catalog),
        ("timescaledb_information", "data_nodes") => data_nodes(fill, catalog),
        ("timescaledb_information", "data_node") => data_nodes_beta(fill, catalog),
        ("timescaledb_information", "chunks") => chunks(fill, catalog),
        ("timescaledb_information", "dimensions") => dimensions(fill, catalog),
        ("timescaledb_information", "compression_settings") => compression_settings(fill, catalog),
        ("timescaledb_information", "jobs") => super::jobs::jobs(fill, catalog),
        ("timescaledb_information", "job_stats") => super::jobs::job_stats(fill, catalog),
        ("seriatim_information", "transactions") => transactions(fill, catalog),
        ("timescaledb_experimental", "chunk_replication_status") => replication(fill, catalog),
        _ => return None,
    })
}

/// `{host=…,port=…,dbname=…}`.
pub(super) fn options(server: &DataNodeServer) -> Value {
    let mut options =
        vec![format!("host={}", server.host), format!("port={}", server.port), format!("dbname={}", server.dbname)];
    if !server.available {
        options.push("available=false".to_owned());
    }
    Value::texts(options)
}

/// Not TimescaleDB's: what is open, prepared or being told, and who is waited for.
fn transactions(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = catalog.transactions().into_iter().map(|transaction| {
        fill.row([
            ("txn", Value::text(transaction.id.to_string())),
            ("state", Value::text(transaction.phase.name())),
            ("started", transaction.since_us.map_or(Value::Null, Value::Timestamp)),
            ("waiting_for", names(transaction.waiting_for.iter().map(|node| node.as_str()))),
        ])
    });
    rows.collect()
}

fn hypertables_of(catalog: &dyn SystemCatalog) -> Vec<(Arc<TableDef>, Hypertable)> {
    let tables = catalog.tables().into_iter();
    let mut found: Vec<_> =
        tables.filter_map(|table| table.hypertable.clone().map(|hypertable| (table, hypertable))).collect();
    found.sort_by_key(|(_, hypertable)| hypertable.id);
    found
}

fn names<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Value {
    Value::texts(names)
}

fn hypertables(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = hypertables_of(catalog).into_iter().map(|(table, hypertable)| {
        let distributed = hypertable.distributed;
        let nodes = names(hypertable.data_nodes.iter().map(|node| node.as_str()));
        fill.row([
            ("hypertable_schema", Value::text(&table.schema)),
            ("hypertable_name", Value::text(&table.name)),
            ("owner", Value::text(&table.owner)),
            ("num_dimensions", Value::Int(1 + hypertable.space.is_some() as i64)),
            ("num_chunks", Value::Int(catalog.chunks(table.id).len() as i64)),
            ("compression_enabled", Value::Bool(hypertable.compression.is_some())),
            ("is_distributed", Value::Bool(distributed)),
            (
                "replication_factor",
                if distributed { Value::Int(hypertable.replication_factor as i64) } else { Value::Null },
            ),
            ("data_nodes", if distributed { nodes } else { Value::Null }),
        ])
    });
    rows.collect()
}

fn hypertables_beta(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = hypertables_of(catalog).into_iter().map(|(table, hypertable)| {
        let chunks = catalog.chunks(table.id).len() as i64;
        let bytes = catalog.table_bytes(table.id);
        // Nothing to measure before the first chunk.
        let size = |bytes: u64| if chunks == 0 { Value::Null } else { Value::text(size_pretty(bytes as i64)) };
        fill.row([
            ("table_schema", Value::text(&table.schema)),
            ("table_name", Value::text(&table.name)),
            ("table_owner", Value::text(&table.owner)),
            ("num_dimensions", Value::Int(1 + hypertable.space.is_some() as i64)),
            ("num_chunks", Value::Int(chunks)),
            ("table_size", size(bytes.table)),
            ("index_size", size(bytes.index)),
            ("toast_size", Value::Null),
            ("total_size", size(bytes.table + bytes.index)),
            ("distributed", Value::Bool(hypertable.distributed)),
        ])
    });
    rows.collect()
}

fn data_nodes(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = catalog.data_nodes().into_iter().map(|server| {
        let options = options(&server);
        fill.row([("node_name", Value::text(server.name)), ("owner", Value::text(server.owner)), ("options", options)])
    });
    rows.collect()
}

fn data_nodes_beta(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = catalog.data_nodes().into_iter().map(|server| {
        let holds = |hypertable: &Hypertable| hypertable.data_nodes.iter().any(|node| node.as_str() == server.name);
        let tables = hypertables_of(catalog).into_iter().filter(|(_, hypertable)| holds(hypertable));
        let tables: Vec<_> = tables.collect();
        let chunks = tables.iter().flat_map(|(table, _)| catalog.chunks(table.id));
        let chunks = chunks.filter(|chunk| chunk.nodes.iter().any(|node| node.as_str() == server.name));
        let (count, bytes) = chunks.fold((0i128, 0u64), |(count, bytes), chunk| {
            let Bytes { table, index } = catalog.chunk_bytes(&chunk);
            (count + 1, bytes + table + index)
        });
        let empty = tables.is_empty();
        let options = options(&server);
        fill.row([
            ("node_name", Value::text(&server.name)),
            ("owner", Value::text(&server.owner)),
            ("options", options),
            ("node_up", Value::Bool(server.up)),
            ("num_dist_tables", Value::Int(tables.len() as i64)),
            ("num_dist_chunks", if empty { Value::Null } else { Value::Numeric(count, 0) }),
            ("total_dist_size", if empty { Value::Null } else { Value::text(size_pretty(bytes as i64)) }),
        ])
    });
    rows.collect()
}

fn time_column<'t>(table: &'t TableDef, hypertable: &Hypertable) -> Option<&'t ColumnDef> {
    table.column_by_id(hypertable.time_column)
}

fn is_time(ty: &PgType) -> bool {
    matches!(ty, PgType::Timestamptz | PgType::Timestamp | PgType::Date)
}

fn chunks(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for (table, hypertable) in hypertables_of(catalog) {
        let Some(time) = time_column(&table, &hypertable) else { continue };
        let timed = is_time(&time.ty);
        for chunk in catalog.chunks(table.id) {
            let bound = |wanted: bool, at: i64| match (wanted, timed) {
                (false, _) => Value::Null,
                (true, true) => Value::Timestamp(at),
                (true, false) => Value::Int(at),
            };
            let (start, end) = (chunk.time.start(), chunk.time.end());
            let nodes = names(chunk.nodes.iter().map(|node| node.as_str()));
            rows.push(fill.row([
                ("hypertable_schema", Value::text(&table.schema)),
                ("hypertable_name", Value::text(&table.name)),
                ("chunk_schema", Value::text(&hypertable.chunk_schema)),
                ("chunk_name", Value::text(chunk.name(&hypertable))),
                ("primary_dimension", Value::text(&time.name)),
                ("primary_dimension_type", Value::Int(time.ty.oid() as i64)),
                ("range_start", bound(timed, start)),
                ("range_end", bound(timed, end)),
                ("range_start_integer", bound(!timed, start)),
                ("range_end_integer", bound(!timed, end)),
                ("is_compressed", Value::Bool(chunk.compressed)),
                ("data_nodes", if hypertable.distributed { nodes } else { Value::Null }),
                ("chunk_creation_time", Value::Timestamp(chunk.created_us)),
            ]));
        }
    }
    rows
}

fn dimensions(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for (table, hypertable) in hypertables_of(catalog) {
        let row = |number: i64, column: &ColumnDef, kind: &str| {
            fill.row([
                ("hypertable_schema", Value::text(&table.schema)),
                ("hypertable_name", Value::text(&table.name)),
                ("dimension_number", Value::Int(number)),
                ("column_name", Value::text(&column.name)),
                ("column_type", Value::Int(column.ty.oid() as i64)),
                ("dimension_type", Value::text(kind)),
            ])
        };
        if let Some(time) = time_column(&table, &hypertable) {
            let mut first = row(1, time, "Time");
            let width = hypertable.slicing.width();
            match is_time(&time.ty) {
                true => fill.set(&mut first, "time_interval", Value::Interval(Arc::new(interval(width)))),
                false => fill.set(&mut first, "integer_interval", Value::Int(width)),
            }
            rows.push(first);
        }
        if let Some(space) = &hypertable.space
            && let Some(column) = table.column_by_id(space.column)
        {
            let mut second = row(2, column, "Space");
            fill.set(&mut second, "num_partitions", Value::Int(space.partitions as i64));
            rows.push(second);
        }
    }
    rows
}

fn compression_settings(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for (table, hypertable) in hypertables_of(catalog) {
        let Some(compression) = &hypertable.compression else { continue };
        let row = |column: ColumnId| {
            fill.row([
                ("hypertable_schema", Value::text(&table.schema)),
                ("hypertable_name", Value::text(&table.name)),
                ("attname", table.column_by_id(column).map_or(Value::Null, |column| Value::text(&column.name))),
            ])
        };
        for (n, column) in compression.segment_by.iter().enumerate() {
            let mut segmenting = row(*column);
            fill.set(&mut segmenting, "segmentby_column_index", Value::Int(n as i64 + 1));
            rows.push(segmenting);
        }
        for (n, Ordering { column, descending, nulls_first }) in compression.order_by.iter().enumerate() {
            let mut ordering = row(*column);
            fill.set(&mut ordering, "orderby_column_index", Value::Int(n as i64 + 1));
            fill.set(&mut ordering, "orderby_asc", Value::Bool(!descending));
            fill.set(&mut ordering, "orderby_nullsfirst", Value::Bool(*nulls_first));
            rows.push(ordering);
        }
    }
    rows
}

/// Whole days as days, the rest as hours.
fn interval(micros: i64) -> Interval {
    const DAY_US: i64 = 86_400_000_000;
    Interval { months: 0, days: (micros / DAY_US) as i32, micros: micros % DAY_US }
}

fn replication(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for (table, hypertable) in hypertables_of(catalog).into_iter().filter(|(_, hypertable)| hypertable.distributed) {
        for chunk in catalog.chunks(table.id) {
            let without = hypertable.data_nodes.iter().filter(|node| !chunk.nodes.contains(node));
            rows.push(fill.row([
                ("hypertable_schema", Value::text(&table.schema)),
                ("hypertable_name", Value::text(&table.name)),
                ("chunk_schema", Value::text(&hypertable.chunk_schema)),
                ("chunk_name", Value::text(chunk.name(&hypertable))),
                ("desired_num_replicas", Value::Int(hypertable.replication_factor as i64)),
                ("num_replicas", Value::Int(chunk.nodes.len() as i64)),
                ("replica_nodes", names(chunk.nodes.iter().map(|node| node.as_str()))),
                ("non_replica_nodes", names(without.map(|node| node.as_str()))),
            ]));
        }
    }
    rows
}
