//! The tutorial's state, and what TimescaleDB 2.13.1 printed for it.

use super::*;

#[test]
fn timescaledb_views_show_the_tutorial() {
    let catalog = Tutorial::finished();
    assert_eq!(
        run_lines(&catalog, "SELECT * FROM timescaledb_information.data_nodes"),
        [
            "node_name|owner|options",
            "dn1|postgres|{host=127.0.0.1,port=5501,dbname=multinode}",
            "dn2|postgres|{host=127.0.0.1,port=5502,dbname=multinode}",
        ]
    );
    assert_eq!(
        run_lines(&catalog, "SELECT * FROM timescaledb_information.hypertables"),
        [
            "hypertable_schema|hypertable_name|owner|num_dimensions|num_chunks|compression_enabled|is_distributed|\
             replication_factor|data_nodes|tablespaces",
            "public|conditions|testuser|2|12|f|t|1|{dn1,dn2}|<NULL>",
        ]
    );
    let chunks = "SELECT chunk_name, range_start, range_end, data_nodes FROM timescaledb_information.chunks ORDER BY 1";
    let rows = run_rows(&catalog, chunks);
    assert_eq!(rows.len(), 12);
    assert_eq!(rows[0], "_dist_hyper_1_10_chunk|2019-01-24 00:00:00+00|2019-01-31 00:00:00+00|{dn2}");
    assert_eq!(rows[3], "_dist_hyper_1_1_chunk|2018-12-27 00:00:00+00|2019-01-03 00:00:00+00|{dn1}");
    assert_eq!(
        run_rows(
            &catalog,
            "SELECT dimension_number, column_name, column_type, dimension_type, time_interval, num_partitions FROM timescaledb_information.dimensions"
        ),
        ["1|time|timestamp with time zone|Time|7 days|<NULL>", "2|device|integer|Space|<NULL>|2"]
    );
    for empty in ["jobs", "job_stats", "compression_settings", "continuous_aggregates"] {
        assert_eq!(run_rows(&catalog, &format!("SELECT * FROM timescaledb_information.{empty}")).len(), 0);
    }
    assert_eq!(run_rows(&catalog, "SELECT * FROM timescaledb_experimental.chunk_replication_status").len(), 12);
}

#[test]
fn beta_views_show_the_tutorial() {
    let mut catalog = Tutorial::finished();
    assert_eq!(
        run_lines(
            &catalog,
            "SELECT node_name, node_up, num_dist_tables, num_dist_chunks FROM timescaledb_information.data_node"
        ),
        ["node_name|node_up|num_dist_tables|num_dist_chunks", "dn1|t|1|6", "dn2|t|1|6"]
    );
    catalog.chunks.clear();
    assert_eq!(
        run_lines(&catalog, "SELECT * FROM timescaledb_information.hypertable"),
        [
            "table_schema|table_name|table_owner|num_dimensions|num_chunks|table_size|index_size|toast_size|total_size|distributed",
            "public|conditions|testuser|2|0|<NULL>|<NULL>|<NULL>|<NULL>|t",
        ]
    );
}

/// Grafana turns its TimescaleDB switch on by this row.
#[test]
fn the_extension_is_listed_with_its_version() {
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'";
    assert_eq!(run_rows(&Tutorial::finished(), version), ["2.13.1"]);
    assert!(run_rows(&Tutorial::recorded(), version).is_empty());
    assert_eq!(
        run_rows(&Tutorial::finished(), "SELECT current_setting('server_version_num')::int/100 as version"),
        ["1500"]
    );
    assert_eq!(run_rows(&Tutorial::finished(), "SELECT version()"), ["PostgreSQL 15.18 (Seriatim 0.1.0)"]);
}

/// The last lines of the tutorial's `\d+ conditions`.
#[test]
fn chunks_are_the_hypertables_children() {
    let children = "SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c, pg_catalog.pg_inherits i \
                    WHERE c.oid = i.inhrelid AND i.inhparent = '16433' ORDER BY c.oid::pg_catalog.regclass::pg_catalog.text";
    let rows = run_rows(&Tutorial::finished(), children);
    let numbers = [10, 11, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    let expected = numbers.map(|number| format!("_timescaledb_internal._dist_hyper_1_{number}_chunk"));
    assert_eq!(rows, expected);
}

/// A relation for a statement that the planner runs.
#[test]
fn whole_relations_come_with_names_for_oids() {
    let set = relation(None, "pg_am", &Tutorial::finished()).unwrap().unwrap();
    assert_eq!(set.columns[2], ("amhandler".to_owned(), PgType::Regproc));
    assert_eq!(set.rows.len(), 7);
    assert_eq!(set.to_batch().unwrap().num_rows(), 7);
    assert!(relation(Some("public"), "conditions", &Tutorial::finished()).unwrap().is_none());
    for def in schema::relations() {
        let set = relation(Some(&def.schema), &def.name, &Tutorial::finished()).unwrap().unwrap();
        set.to_batch().unwrap();
    }
}
