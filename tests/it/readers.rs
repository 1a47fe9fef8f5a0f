//! Segments are Parquet files that others read: DuckDB and pyarrow see in them what SQL says.
//!
//! Runs where `SERIATIM_CLIENTS=1` says that `SERIATIM_PYTHON` (else `python3`) has both; `.ci/run` sees to it.

use crate::cluster::{Cluster, Member, Shape};
use std::path::{Path, PathBuf};
use std::process::Command;

const COLUMNS: [(&str, &str); 20] = [
    ("id", "bigint"),
    ("time", "timestamptz NOT NULL"),
    ("device", "text"),
    ("float_short", "float8"),
    ("float_long", "float8"),
    ("float_nan", "float8"),
    ("float_small", "real"),
    ("a_smallint", "smallint"),
    ("an_integer", "integer"),
    ("a_bool", "boolean"),
    ("a_numeric", "numeric"),
    ("a_price", "numeric(10,2)"),
    ("a_varchar", "varchar(20)"),
    ("a_date", "date"),
    ("a_time", "time"),
    ("a_timestamp", "timestamp"),
    ("interval_1", "interval"),
    ("a_document", "jsonb"),
    ("some_bytes", "bytea"),
    ("a_list", "integer[]"),
];

/// One row; every third has NULLs wherever it may.
fn row(id: i64) -> String {
    if id % 3 == 0 {
        let nulls = vec!["NULL"; COLUMNS.len() - 2].join(", ");
        return format!("({id}, '2024-05-01 00:00:00+00'::timestamptz + {id} * interval '6 hours', {nulls})");
    }
    let bool = id % 2 == 0;
    format!(
        "({id}, '2024-05-01 00:00:00.25+00'::timestamptz + {id} * interval '6 hours', 'device {n} – ü', \
         {id} / 4.0, sqrt({id}::float8), {nan}, {id} * 0.1, {id} - 20, {id} * 1000, {bool}, {id} * 1.000001, \
         {id} * 0.01, 'v{id}', date '2024-02-28' + {n}, time '23:59:59.5', '1999-12-31 23:59:59'::timestamp, \
         interval '{n} years 2 mons {id} days 04:05:06.789', '{{\"a\": [{id}, null], \"b\": \"x\"}}', \
         '\\x00ff{n:02x}', '{{{id},NULL,-1}}')",
        n = id % 5,
        nan = if id % 4 == 0 { "'NaN'::float8".to_owned() } else { format!("{id} * 1e300") },
    )
}

fn segments(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            segments(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
}

fn read_with(reader: &str, files: &[PathBuf]) -> Vec<String> {
    let python = std::env::var("SERIATIM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let names = COLUMNS.map(|(name, _)| name).join(",");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/read.py");
    let mut command = Command::new(&python);
    command.arg(script).args([reader, &names]).args(files).env("TZ", "UTC").env("PYTHONIOENCODING", "utf-8");
    let output = command.output().unwrap_or_else(|e| panic!("{python}: {e}"));
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{reader}: {errors}");
    text.lines().map(|line| line.to_owned()).collect()
}

#[tokio::test(crate = "crate::watched")]
async fn duckdb_and_pyarrow_read_what_sql_returns() {
    if std::env::var("SERIATIM_CLIENTS").as_deref() != Ok("1") {
        println!("skipped: needs Python with duckdb and pyarrow (SERIATIM_CLIENTS=1)");
        return;
    }
    let cluster = Cluster::start(Shape::Embedded).await;
    let session = cluster.connect().await;
    let columns = COLUMNS.map(|(name, data_type)| format!("{name} {data_type}")).join(", ");
    session.run(&format!("CREATE TABLE everything ({columns})")).await;
    session.run("SELECT create_distributed_hypertable('everything', 'time', 'device')").await;
    session.run("ALTER TABLE everything SET (timescaledb.compress, timescaledb.compress_segmentby = 'device')").await;
    let rows = (1..=100).map(row).collect::<Vec<_>>();
    session.run(&format!("INSERT INTO everything VALUES {}", rows.join(", "))).await;
    session.rows("SELECT compress_chunk(c) FROM show_chunks('everything') c").await;

    let names = COLUMNS.map(|(name, _)| name).join(", ");
    let expected = session.rows(&format!("SELECT {names} FROM everything ORDER BY id")).await;
    let null = || "NULL".to_owned();
    let expected = expected.into_iter().map(|row| {
        let values = row.into_iter().map(|value| value.unwrap_or_else(null)).collect::<Vec<_>>();
        values.join("|")
    });
    let expected = expected.collect::<Vec<_>>();
    assert_eq!(expected.len(), 100);

    let mut files = Vec::new();
    segments(&cluster.data_dir(Member::Coordinator(0)), &mut files);
    assert!(files.len() > 1, "{files:?}");
    for reader in ["duckdb", "pyarrow"] {
        let found = read_with(reader, &files);
        assert_eq!(found.len(), expected.len(), "{reader}");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{reader}");
        }
    }
}
