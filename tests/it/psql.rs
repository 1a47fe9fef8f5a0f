//! psql itself, as people use it: the tutorial with `\c`, the `\d` family, `\copy`, passwords. `tests/psql/describe.out`
//! is what psql 15 printed on PostgreSQL 15 for tables of the same shape, with chunks as inheriting tables and data nodes
//! as foreign servers.
//!
//! Runs where `SERIATIM_CLIENTS=1` says that psql 15 is there; `.ci/run` sees to it.

use crate::cluster::{Cluster, Session, Shape, connect};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn clients_wanted() -> bool {
    let wanted = std::env::var("SERIATIM_CLIENTS").is_ok_and(|value| value == "1");
    if !wanted {
        println!("skipped: needs psql (SERIATIM_CLIENTS=1)");
    }
    wanted
}

/// Feeds `script` to psql as the superuser.
async fn psql(cluster: &Cluster, database: &str, options: &[&str], script: &str) -> Output {
    let mut command = Command::new("psql");
    let (host, port) = (cluster.sql_addr().ip().to_string(), cluster.sql_addr().port().to_string());
    command.args(["-X", "-h", &host, "-p", &port, "-U", "postgres", "-d", database]).args(options);
    command.env("PGTZ", "UTC").env("PGCONNECT_TIMEOUT", "10").env("LC_ALL", "C.UTF-8").env_remove("PGPASSWORD");
    run(command, script.to_owned()).await
}

async fn run(mut command: Command, script: String) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        child.stdin.take().expect("stdin is piped").write_all(script.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    running.await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Both streams in the order psql writes them when each statement is sent alone.
async fn shown(cluster: &Cluster, database: &str, script: &str) -> String {
    let mut shown = String::new();
    for line in script.lines() {
        let output = psql(cluster, database, &[], line).await;
        shown += &text(&output.stdout);
        // psql names the line of its own input.
        shown += &text(&output.stderr).replace("psql:<stdin>:1: ", "");
    }
    shown
}

fn expected(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/psql").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

async fn multinode(shape: Shape) -> (Cluster, Session) {
    let cluster = Cluster::start_bare(shape).await;
    let mut script = "CREATE DATABASE multinode;\n\\c multinode postgres\nCREATE EXTENSION timescaledb;\n".to_owned();
    for (index, address) in cluster.bare_nodes().iter().enumerate() {
        script +=
            &format!("SELECT add_data_node('dn{}', host=>'{}', port=>{});\n", index + 1, address.ip(), address.port());
    }
    script += "SELECT * FROM timescaledb_information.data_node;
CREATE ROLE testuser WITH LOGIN PASSWORD 'testpass';
SELECT * FROM distributed_exec($$ CREATE ROLE testuser WITH LOGIN PASSWORD 'testpass' $$);
GRANT USAGE ON FOREIGN SERVER dn1, dn2 to testuser;
SET ROLE testuser;
CREATE TABLE conditions (time timestamptz NOT NULL, device integer, temp float);
SELECT create_distributed_hypertable('conditions', 'time', 'device');
INSERT INTO conditions
SELECT time, (random()*30)::int, random()*80
FROM generate_series('2019-01-01 00:00:00'::timestamptz, '2019-02-01 00:00:00', '1 min') AS time;
SELECT * FROM timescaledb_information.hypertable;
SELECT count(*) FROM conditions;
";
    let output = psql(&cluster, "postgres", &["-v", "ON_ERROR_STOP=1"], &script).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    for line in [
        "You are now connected to database \"multinode\" as user \"postgres\".",
        " (1,public,conditions,t)",
        "INSERT 0 44641",
        " 44641",
        "CREATE EXTENSION",
        "CREATE ROLE",
        "GRANT",
        "SET",
    ] {
        assert!(out.lines().any(|shown| shown == line), "\"{line}\" is missing from\n{out}");
    }
    let session = connect(&cluster.config("multinode")).await.unwrap();
    session.run("SET TIME ZONE 'UTC'").await;
    (cluster, session)
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn psql_runs_the_tutorial_and_describes_what_is_there() {
    if !clients_wanted() {
        return;
    }
    for shape in [Shape::Embedded, Shape::Processes] {
        let (cluster, session) = multinode(shape).await;
        session.run("SET ROLE testuser").await;
        session.run("CREATE TABLE plain (id integer NOT NULL, name varchar(20) DEFAULT 'x', price numeric(10,2), tags text[])").await;
        session
            .run("CREATE VIEW hot AS SELECT device, count(*) AS n FROM conditions WHERE temp > 30 GROUP BY device")
            .await;
        let shown = shown(&cluster, "multinode", &expected("describe.sql")).await;
        assert_same_lines(&shown, &expected("describe.out"));
    }
}

/// These show names and versions of this server; what must be in them is looked for.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn psql_lists_databases_schemas_extensions_and_the_connection() {
    if !clients_wanted() {
        return;
    }
    let (cluster, _session) = multinode(Shape::Embedded).await;
    let cases: &[(&str, &[&str])] = &[
        ("\\l", &["List of databases", "multinode | postgres | UTF8", "postgres  | postgres | UTF8", "template1"]),
        ("\\dn", &["List of schemas", "public", "pg_database_owner"]),
        ("\\dx", &["List of installed extensions", "timescaledb", "plpgsql"]),
        ("\\conninfo", &["You are connected to database \"multinode\" as user \"postgres\" on host \"127.0.0.1\""]),
        ("\\des+", &["dn1", "timescaledb_fdw", "127.0.0.1"]),
        ("\\dt+", &["conditions", "permanent", "heap"]),
        ("\\df time_bucket", &["List of functions"]),
        ("\\encoding", &["UTF8"]),
        ("\\dp conditions", &["Access privileges"]),
        ("\\sv nowhere", &["relation \"nowhere\" does not exist"]),
    ];
    for (command, parts) in cases {
        let shown = shown(&cluster, "multinode", command).await;
        for part in *parts {
            assert!(shown.contains(part), "{command}: \"{part}\" is missing from\n{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn psql_shows_errors_with_their_place() {
    if !clients_wanted() {
        return;
    }
    let cluster = Cluster::start(Shape::Embedded).await;
    let shown = shown(&cluster, "postgres", "SELECT nope FROM pg_class;\nSELEC 1;\nSELECT 1/0;").await;
    let expected = "ERROR:  column \"nope\" does not exist\nLINE 1: SELECT nope FROM pg_class;\n               ^\n\
                    ERROR:  syntax error at or near \"SELEC\"\nLINE 1: SELEC 1;\n        ^\n\
                    ERROR:  division by zero\n";
    assert_eq!(shown, expected);
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn psql_copies_files_in_and_out() {
    if !clients_wanted() {
        return;
    }
    let cluster = Cluster::start(Shape::Processes).await;
    let dir = tempfile::tempdir().unwrap();
    let (rows, back) = (dir.path().join("rows.csv"), dir.path().join("back.csv"));
    let csv = (0..5000).map(|n| format!("2024-01-{:02} 00:00:00+00,{n},{}.5\n", n % 28 + 1, n)).collect::<String>();
    std::fs::write(&rows, &csv).unwrap();
    let script = format!(
        "CREATE TABLE t (time timestamptz NOT NULL, device integer, v float);
SELECT create_distributed_hypertable('t', 'time', 'device');
\\copy t FROM '{}' csv
\\copy (SELECT * FROM t ORDER BY device) TO '{}' csv
",
        rows.display(),
        back.display()
    );
    let output = psql(&cluster, "postgres", &["-v", "ON_ERROR_STOP=1"], &script).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).matches("COPY 5000").count(), 2, "{}", text(&output.stdout));
    assert_eq!(std::fs::read_to_string(&back).unwrap(), csv);
}

/// TAB completion asks inside the user's transaction: no answer of a catalog may abort it.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn catalog_questions_do_not_end_a_transaction() {
    let cluster = Cluster::start(Shape::Embedded).await;
    let session = cluster.connect().await;
    session.run("CREATE TABLE t (x integer)").await;
    session.run("BEGIN").await;
    session.run("INSERT INTO t VALUES (1)").await;
    for question in [
        "SELECT c.relname, NULL::pg_catalog.text FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'v') AND (c.relname) LIKE 't%' AND pg_catalog.pg_table_is_visible(c.oid) LIMIT 1000",
        "SELECT * FROM pg_catalog.pg_publication",
        "SELECT * FROM pg_catalog.pg_statistic_ext",
        "SELECT srvname FROM pg_catalog.pg_foreign_server WHERE srvname LIKE '%'",
        "SELECT name FROM pg_catalog.pg_settings WHERE name LIKE 'en%'",
    ] {
        session.rows(question).await;
    }
    session.run("COMMIT").await;
    assert_eq!(session.value("SELECT count(*) FROM t").await, "1");
}

/// Shows the first difference with its line, not two walls of text.
fn assert_same_lines(shown: &str, expected: &str) {
    for (number, (shown_line, expected_line)) in (1..).zip(shown.lines().zip(expected.lines())) {
        assert_eq!(shown_line, expected_line, "line {number} of\n{shown}");
    }
    assert_eq!(shown.lines().count(), expected.lines().count(), "{shown}");
}
