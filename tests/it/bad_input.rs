//! What bad input gets: a clear error with PostgreSQL's SQLSTATE, nothing changed, the process alive. Malformed COPY rows
//! are in `copy`, failing disks beside the code of `storage`.

use crate::cluster::{Cluster, Member, Process, RawClient, Session, Shape, binary, error_of};
use bytes::Bytes;
use futures::SinkExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

/// A node that is gone is noticed within this time.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

async fn table(cluster: &Cluster) -> Session {
    let session = cluster.connect().await;
    session.run("CREATE TABLE t (time timestamptz NOT NULL, device integer, v integer)").await;
    session.run("SELECT create_distributed_hypertable('t', 'time', 'device')").await;
    session.run("INSERT INTO t SELECT timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n % 50, n FROM generate_series(0, 999) AS n").await;
    session
}

async fn assert_whole(session: &Session) {
    assert_eq!(session.value("SELECT count(*), sum(v) FROM t").await, "1000|499500");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn wrong_rows_are_refused_and_change_nothing() {
    let cluster = Cluster::start(Shape::Embedded).await;
    let session = table(&cluster).await;
    let cases = [
        ("INSERT INTO t VALUES (NULL, 1, 1)", "23502"),
        ("INSERT INTO t (device) VALUES (1)", "23502"),
        ("INSERT INTO t VALUES ('300000-01-01', 1, 1)", "22008"),
        ("INSERT INTO t VALUES ('2024-01-01', 'one', 1)", "22P02"),
        ("INSERT INTO t VALUES ('2024-01-01', 1, 3000000000)", "22003"),
        ("INSERT INTO t VALUES ('2024-01-01', 1, true)", "42804"),
        ("INSERT INTO t (nope) VALUES (1)", "42703"),
        ("INSERT INTO nowhere VALUES (1)", "42P01"),
        ("INSERT INTO t SELECT time, device, 1 / (v - 700) FROM t", "22012"),
    ];
    for (sql, code) in cases {
        let error = session.error(sql).await;
        assert_eq!(error.code().code(), code, "{sql}: {}", error.message());
        assert_whole(&session).await;
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_deep_or_long_expression_does_not_bring_the_server_down() {
    let cluster = Cluster::start(Shape::Embedded).await;
    let session = cluster.connect().await;
    let cases = [
        format!("SELECT 1{}", "+1".repeat(5000)),
        format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000)),
        format!("SELECT {}1", "- ".repeat(5000)),
        format!("SELECT 1 WHERE {} 1 = 1", "1 = 1 AND ".repeat(5000)),
        format!("SELECT 1 WHERE {} 1 = 1", "NOT ".repeat(5000)),
        format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(5000), " END".repeat(5000)),
        format!("{}SELECT 1{}", "SELECT * FROM (".repeat(2000), ") s".repeat(2000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5000)),
        format!("SELECT 1 IN ({}1)", "2,".repeat(50_000)),
    ];
    for sql in cases {
        match session.client.simple_query(&sql).await {
            Ok(_) => (),
            Err(e) => {
                let code = error_of(&e).code().code().to_owned();
                assert!(["54001", "54000", "42601"].contains(&code.as_str()), "{code}: {}", &sql[..60]);
            }
        }
        assert_eq!(session.value("SELECT 1").await, "1", "alive after {}", &sql[..60]);
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn nonsense_before_login_is_refused_without_memory() {
    let cluster = Cluster::start(Shape::Embedded).await;
    let packets: [&[u8]; 5] = [
        // a start-up packet that says it is 2 GB long
        &[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        // one shorter than its own length field
        &[0, 0, 0, 3, 0, 3, 0, 0],
        // another protocol
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        // protocol 2
        &[0, 0, 0, 9, 0, 2, 0, 0, 0],
        // a key without a value
        &[0, 0, 0, 13, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0],
    ];
    for packet in packets {
        let mut client = RawClient::open(cluster.sql_addr());
        client.send_bytes(packet);
        let answer = client.read_to_end();
        assert!(answer.iter().all(|m| m.tag == 'E'), "{packet:?}: {answer:?}");
    }
    let mut client = RawClient::open(cluster.sql_addr());
    client.send_startup(&[("user", "postgres"), ("filler", &"x".repeat(20_000))]);
    assert!(client.read_to_end().iter().all(|m| m.tag == 'E'));
    assert_eq!(cluster.connect().await.value("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn broken_messages_after_login_end_that_session_only() {
    let cluster = Cluster::start(Shape::Embedded).await;
    let (mut client, _) = RawClient::login(cluster.sql_addr(), "postgres", "postgres");
    client.send('~', b"what is this");
    assert!(client.read_to_end().iter().any(|m| m.field('C').as_deref() == Some("08P01")));
    let (mut client, _) = RawClient::login(cluster.sql_addr(), "postgres", "postgres");
    client.send_bytes(&[b'Q', 0x7f, 0xff, 0xff, 0xff]);
    client.read_to_end();
    let (mut client, _) = RawClient::login(cluster.sql_addr(), "postgres", "postgres");
    client.send('Q', b"SELECT 'not utf8: \xff\xfe'\0");
    let answer = client.read_until('Z');
    assert_eq!(answer[0].field('C').as_deref(), Some("22021"));
    assert_eq!(cluster.connect().await.value("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_client_that_vanishes_in_a_copy_leaves_nothing() {
    let cluster = Cluster::start(Shape::Processes).await;
    let session = table(&cluster).await;
    let doomed = cluster.connect().await;
    {
        let mut sink = pin!(doomed.client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap());
        let rows = (0..20_000).map(|n| format!("2024-02-{:02} 00:00+00\t{n}\t1\n", n % 28 + 1)).collect::<String>();
        sink.send(Bytes::from(rows)).await.unwrap();
        sink.flush().await.unwrap();
        doomed.vanish().await;
    }
    assert_whole(&session).await;
    // What it held is given back: the table can be dropped.
    session.run("DROP TABLE t").await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn data_nodes_that_cannot_be_added_are_refused() {
    let cluster = Cluster::start(Shape::Processes).await;
    let session = cluster.connect().await;
    let error = session.error("SELECT add_data_node('dn1', host => '127.0.0.1', port => 1)").await;
    assert_eq!((error.code().code(), error.message()), ("42710", "server \"dn1\" already exists"));
    let again = session
        .lines("SELECT * FROM add_data_node('dn1', host => '127.0.0.1', port => 1, if_not_exists => true)")
        .await;
    assert!(again[0].starts_with("dn1|") && again[0].ends_with("|f|f|f"), "{again:?}");
    let error = session.error("SELECT add_data_node('dn3', host => '127.0.0.1', port => 1)").await;
    assert_eq!(error.message(), "could not connect to \"dn3\"");
    assert!(error.code().code().starts_with("08"), "{:?}", error.code());

    let stranger = Cluster::start(Shape::Processes).await;
    let taken = stranger.bare_nodes()[0];
    let error =
        session.error(&format!("SELECT add_data_node('dn3', host => '127.0.0.1', port => {})", taken.port())).await;
    assert_eq!(error.code().code(), "TS171", "{}", error.message());
    assert_eq!(session.value("SELECT count(*) FROM timescaledb_information.data_nodes").await, "2");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_node_that_dies_in_a_query_fails_the_query_and_nothing_else() {
    let mut cluster = Cluster::start(Shape::Processes).await;
    let session = table(&cluster).await;
    let endless = "SELECT a.v, b.v FROM t a, t b, t c";
    let stream = session.client.simple_query_raw(endless).await.unwrap();
    let mut stream = pin!(stream);
    futures::StreamExt::next(&mut stream).await.expect("it has begun").unwrap();
    cluster.kill(Member::Node(1));
    session.client.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
    while let Some(message) = futures::StreamExt::next(&mut stream).await {
        if message.is_err() {
            break;
        }
    }
    let counted = tokio::time::timeout(NOTICED_WITHIN, session.client.simple_query("SELECT count(*) FROM t")).await;
    let error = error_of(&counted.expect("noticed in time").expect_err("half of the rows are gone"));
    assert!(error.code().code().starts_with("08"), "{}: {}", error.code().code(), error.message());
    assert!(error.message().contains("dn2"), "it is named: {}", error.message());
    cluster.restart(Member::Node(1));
    assert_whole(&cluster.settled().await).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_node_that_is_dead_at_insert_makes_it_fail_whole() {
    let mut cluster = Cluster::start(Shape::Processes).await;
    let session = table(&cluster).await;
    cluster.kill(Member::Node(0));
    let insert = "INSERT INTO t SELECT timestamptz '2024-02-15 00:00+00', n, n FROM generate_series(0, 199) AS n";
    let ended = tokio::time::timeout(NOTICED_WITHIN, session.client.simple_query(insert)).await;
    let error = error_of(&ended.expect("noticed in time").expect_err("one of two nodes is dead"));
    assert!(error.code().code().starts_with("08"), "{}: {}", error.code().code(), error.message());
    cluster.restart(Member::Node(0));
    assert_whole(&cluster.settled().await).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_directory_serves_one_process() {
    let cluster = Cluster::start(Shape::Processes).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    for (member, role, flag) in
        [(Member::Coordinator(0), "coordinator", "--sql-addr"), (Member::Node(0), "node", "--node-addr")]
    {
        let mut command = binary();
        command.arg(role).arg("--data-dir").arg(cluster.data_dir(member)).args([flag, "127.0.0.1:0"]);
        if role == "coordinator" {
            command.arg("--trust");
        }
        let Err(why) = Process::try_start(command, "", log.path()) else { panic!("two processes on one directory") };
        assert!(why.contains("in use") || why.contains("locked"), "{why}");
    }
}

/// Damage in the middle of a file is told from a torn tail: it is an error with file and offset, never a silent loss.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_damaged_log_is_named_and_not_skipped() {
    let mut cluster = Cluster::start(Shape::Processes).await;
    let session = table(&cluster).await;
    session.run("INSERT INTO t SELECT timestamptz '2024-02-15 00:00+00' + n * interval '1 second', n, 0 FROM generate_series(1, 5000) AS n").await;
    drop(session);
    let member = Member::Node(0);
    cluster.kill(member);
    let log = largest_file(&cluster.data_dir(member)).expect("a node's directory holds files");
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle] ^= 0x40;
    std::fs::write(&log, bytes).unwrap();

    let name = log.file_name().expect("a file").to_string_lossy().into_owned();
    match cluster.try_restart(member) {
        Err(why) => assert!(why.contains(&name), "\"{name}\" is not named in\n{why}"),
        Ok(()) => {
            let session = cluster.connect().await;
            let ended = tokio::time::timeout(NOTICED_WITHIN, session.client.simple_query("SELECT sum(v) FROM t")).await;
            let error = error_of(&ended.expect("an answer").expect_err("a damaged file was read as if nothing were"));
            assert_eq!(error.code().code(), "XX001", "{}", error.message());
            assert!(error.message().contains(&name), "{}", error.message());
        }
    }
}

/// Folders may hold none.
fn largest_file(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter_map(|path| if path.is_dir() { largest_file(&path) } else { Some(path) });
    files.max_by_key(|path| path.metadata().unwrap().len())
}
