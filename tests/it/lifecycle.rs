//! Starting, stopping, starting again; passwords; what `--help` says.

use crate::cluster::{Cluster, Member, Process, Shape, binary, connect, error_of};
use std::path::Path;
use std::time::Duration;
use tokio_postgres::Config;

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn everything_survives_a_clean_restart() {
    for shape in [Shape::Embedded, Shape::Processes] {
        let mut cluster = Cluster::start(shape).await;
        let session = cluster.connect().await;
        session.run("CREATE TABLE t (time timestamptz NOT NULL, device integer, v integer)").await;
        session.run("SELECT create_distributed_hypertable('t', 'time', 'device')").await;
        session.run("INSERT INTO t SELECT timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n % 50, n FROM generate_series(0, 999) AS n").await;
        session.run("CREATE TABLE plain (x integer)").await;
        session.run("INSERT INTO plain VALUES (42)").await;
        session.run("CREATE VIEW doubled AS SELECT x * 2 AS y FROM plain").await;
        session.run("CREATE ROLE ann LOGIN PASSWORD 'secret'").await;
        session.run("CREATE DATABASE other").await;
        for member in cluster.members() {
            cluster.terminate(member);
        }
        for member in cluster.members().into_iter().rev() {
            cluster.restart(member);
        }
        let session = cluster.settled().await;
        assert_eq!(session.value("SELECT count(*), sum(v) FROM t").await, "1000|499500", "{shape:?}");
        assert_eq!(session.value("SELECT y FROM doubled").await, "84");
        assert_eq!(session.value("SELECT rolname FROM pg_roles WHERE rolname = 'ann'").await, "ann");
        assert_eq!(session.value("SELECT datname FROM pg_database WHERE datname = 'other'").await, "other");
        session.run("INSERT INTO t VALUES ('2024-06-01', 1, 1)").await;
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn what_became_of_a_policy_is_known_after_a_clean_restart() {
    let mut cluster = Cluster::start(Shape::Embedded).await;
    let session = cluster.connect().await;
    session.run("CREATE TABLE t (time timestamptz NOT NULL, v integer)").await;
    session.run("SELECT create_hypertable('t', 'time')").await;
    session.run("SELECT add_retention_policy('t', drop_after => interval '1 year')").await;
    const STATS: &str = "SELECT last_run_started_at, last_successful_finish, last_run_duration, next_start, total_runs, \
         total_successes, total_failures FROM timescaledb_information.job_stats WHERE last_run_status = 'Success'";
    let ran = async {
        loop {
            let stats = session.rows(STATS).await;
            if !stats.is_empty() {
                return stats;
            }
        }
    };
    let before = tokio::time::timeout(Duration::from_secs(60), ran).await.expect("the policy runs at once");
    assert_eq!(before[0][4..], ["1", "1", "0"].map(|count| Some(count.to_owned())));
    cluster.terminate(Member::Coordinator(0));
    cluster.restart(Member::Coordinator(0));
    assert_eq!(cluster.settled().await.rows(STATS).await, before, "and it does not run before its time");
}

/// SIGTERM ends what is under way instead of waiting for it.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_shutdown_does_not_wait_for_idle_sessions() {
    let mut cluster = Cluster::start(Shape::Embedded).await;
    let idle = cluster.connect().await;
    idle.run("BEGIN").await;
    cluster.terminate(Member::Coordinator(0));
    assert!(idle.client.simple_query("SELECT 1").await.is_err());
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_password_opens_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, "open sesame\n").unwrap();
    let process = start_with_password(dir.path(), |command| {
        command.arg("--superuser-password-file").arg(&password_file);
    });
    let mut config = config(&process);
    let session = connect(config.user("postgres").password("open sesame")).await.unwrap();
    session.run("CREATE ROLE ann LOGIN PASSWORD 'secret'").await;
    session.run("CREATE ROLE group_only").await;
    assert!(connect(config.user("ann").password("secret")).await.is_ok());

    // A wrong password and an unknown role must look the same.
    for (user, password) in [("postgres", "wrong"), ("ann", "open sesame"), ("nobody", "secret")] {
        let error = error_of(&connect(config.user(user).password(password)).await.err().expect("refused"));
        assert_eq!(error.code().code(), "28P01");
        assert_eq!(error.message(), format!("password authentication failed for user \"{user}\""));
        assert_eq!((error.severity(), error.detail(), error.hint()), ("FATAL", None, None));
    }
    assert!(connect(config.user("group_only").password("")).await.is_err());
    session.run("ALTER ROLE ann PASSWORD 'changed'").await;
    assert!(connect(config.user("ann").password("secret")).await.is_err());
    assert!(connect(config.user("ann").password("changed")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn the_password_may_come_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let process = start_with_password(dir.path(), |command| {
        command.env("SERIATIM_SUPERUSER_PASSWORD", "from outside");
    });
    let mut config = config(&process);
    assert!(connect(config.user("postgres").password("from outside")).await.is_ok());
    assert!(connect(config.user("postgres").password("else")).await.is_err());
}

/// A password, or an equivalent of it, must not be readable in the data directory.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn passwords_are_not_stored() {
    let cluster = Cluster::start(Shape::Embedded).await;
    let session = cluster.connect().await;
    session.run("CREATE ROLE ann LOGIN PASSWORD 'qwertzuiop'").await;
    session.run("SELECT * FROM distributed_exec($$ CREATE ROLE bob WITH LOGIN PASSWORD 'qwertzuiop' $$)").await;
    let found = files_with(&cluster.data_dir(Member::Coordinator(0)), b"qwertzuiop");
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_server_without_tls_stays_on_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.arg("embedded").arg("--data-dir").arg(dir.path().join("data")).args(["--sql-addr", "0.0.0.0:0"]);
    command.env("SERIATIM_SUPERUSER_PASSWORD", "x");
    let Err(why) = Process::try_start(command, "sql listening on ", &dir.path().join("log")) else {
        panic!("it listens to the world")
    };
    assert!(why.contains("--insecure"), "{why}");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_taken_port_is_named_with_the_flag_that_changes_it() {
    let cluster = Cluster::start(Shape::Embedded).await;
    let dir = tempfile::tempdir().unwrap();
    let mut command = binary();
    let taken = cluster.sql_addr().to_string();
    command.arg("embedded").arg("--data-dir").arg(dir.path().join("data")).args(["--trust", "--sql-addr", &taken]);
    let Err(why) = Process::try_start(command, "sql listening on ", &dir.path().join("log")) else {
        panic!("two servers on one port")
    };
    assert!(why.contains(&taken) && why.contains("--sql-addr"), "{why}");
}

#[test]
fn help_names_every_command_and_flag() {
    let help = |arguments: &[&str]| String::from_utf8(binary().args(arguments).output().unwrap().stdout).unwrap();
    let overview = help(&["--help"]);
    assert!(["demo", "embedded", "coordinator", "node"].iter().all(|word| overview.contains(word)), "{overview}");
    let coordinator = help(&["coordinator", "--help"]);
    for flag in ["--data-dir", "--sql-addr", "--superuser-password-file", "--trust", "127.0.0.1:5433"] {
        assert!(coordinator.contains(flag), "{flag} is missing from\n{coordinator}");
    }
    assert!(help(&["node", "--help"]).contains("--node-addr"));
}

fn start_with_password(dir: &Path, set: impl FnOnce(&mut std::process::Command)) -> Process {
    let mut command = binary();
    command.arg("embedded").arg("--data-dir").arg(dir.join("data")).args(["--sql-addr", "127.0.0.1:0"]);
    set(&mut command);
    Process::try_start(command, "sql listening on ", &dir.join("log")).unwrap_or_else(|why| panic!("{why}"))
}

fn config(process: &Process) -> Config {
    let mut config = Config::new();
    config.host(process.address().ip().to_string()).port(process.address().port()).dbname("postgres");
    config
}

fn files_with(dir: &Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if std::fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle) {
            found.push(path);
        }
    }
    found
}

/// What an operator runs after an accident: it must find a single flipped bit, and nothing in sound files.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn verify_finds_a_flipped_bit_and_dump_segment_shows_the_file() {
    let mut cluster = Cluster::start(Shape::Embedded).await;
    let session = cluster.connect().await;
    session.run("CREATE TABLE t (time timestamptz NOT NULL, device integer, v double precision)").await;
    session.run("SELECT create_distributed_hypertable('t', 'time', 'device')").await;
    session.run("INSERT INTO t SELECT timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n % 50, n / 4.0 FROM generate_series(0, 999) AS n").await;
    session.run("ALTER TABLE t SET (timescaledb.compress, timescaledb.compress_segmentby = 'device')").await;
    session.run("SELECT compress_chunk(c) FROM show_chunks('t') c").await;
    let dir = cluster.data_dir(Member::Coordinator(0));
    let running = inspect(&["verify", "--data-dir"], &dir);
    assert!(!running.status.success(), "a running cluster is not looked at");
    cluster.terminate(Member::Coordinator(0));

    let sound = inspect(&["verify", "--data-dir"], &dir);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));
    let segment = std::fs::read_dir(dir.join("dn1").join("segments")).unwrap().next().unwrap().unwrap().path();
    let shown = inspect(&["dump-segment"], &segment);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("sorted by: device, time"), "{shown}");

    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = inspect(&["verify", "--data-dir"], &dir);
    let found = String::from_utf8(damaged.stdout).unwrap();
    assert!(!damaged.status.success());
    assert!(found.contains(segment.file_name().unwrap().to_str().unwrap()), "{found}");
}

/// A change of `compress_segmentby` reaches what is sealed already with the next `compress_chunk`.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn compress_chunk_sorts_again_after_the_settings_changed() {
    let mut cluster = Cluster::start(Shape::Embedded).await;
    let session = cluster.connect().await;
    session.run("CREATE TABLE t (time timestamptz NOT NULL, device integer, place text, v integer)").await;
    session.run("SELECT create_distributed_hypertable('t', 'time', 'device')").await;
    session.run("ALTER TABLE t SET (timescaledb.compress, timescaledb.compress_segmentby = 'device')").await;
    session.run("INSERT INTO t SELECT timestamptz '2024-01-01 00:00+00' + n * interval '1 minute', n % 50, 'p' || n % 7, n FROM generate_series(0, 999) AS n").await;
    session.run("SELECT compress_chunk(c) FROM show_chunks('t') c").await;
    session.run("DELETE FROM t WHERE v % 10 = 3").await;
    let expected = session.rows("SELECT * FROM t ORDER BY v").await;
    assert_eq!(expected.len(), 900);
    session.run("ALTER TABLE t SET (timescaledb.compress_segmentby = 'place')").await;
    session.run("SELECT compress_chunk(c) FROM show_chunks('t') c").await;
    assert_eq!(session.rows("SELECT * FROM t ORDER BY v").await, expected);
    cluster.terminate(Member::Coordinator(0));

    let dir = cluster.data_dir(Member::Coordinator(0));
    let sound = inspect(&["verify", "--data-dir"], &dir);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stdout));
    let files = ["dn1", "dn2"].map(|node| std::fs::read_dir(dir.join(node).join("segments")).unwrap());
    let files = files.into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    let files = files.collect::<Vec<_>>();
    assert!(files.len() > 1, "{files:?}");
    for file in files {
        let shown = String::from_utf8(inspect(&["dump-segment"], &file).stdout).unwrap();
        assert!(shown.contains("sorted by: place, time"), "{shown}");
    }
}

fn inspect(arguments: &[&str], path: &Path) -> std::process::Output {
    binary().args(arguments).arg(path).output().unwrap()
}
