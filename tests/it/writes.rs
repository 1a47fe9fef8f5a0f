//! UPDATE, DELETE and ON CONFLICT among several sessions, and when something dies under them.

use crate::cluster::{Cluster, Server, Session, Shape};
use tokio_postgres::types::Type;

/// A statement, the types of its parameters, its columns.
type Described = (&'static str, &'static [Type], &'static [(&'static str, Type)]);

async fn code(session: &Session, sql: &str) -> String {
    match session.client.batch_execute(sql).await {
        Ok(()) => String::new(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}

async fn number(session: &Session, sql: &str) -> i64 {
    session.client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn sessions_that_upsert_one_key_lose_no_increment() {
    const SESSIONS: i64 = 4;
    const EACH: i64 = 25;
    let server = Server::start().await;
    let session = server.connect().await;
    session.run("CREATE TABLE counters (id integer PRIMARY KEY, n bigint)").await;
    let mut workers = Vec::new();
    for _ in 0..SESSIONS {
        let session = server.connect().await;
        workers.push(tokio::spawn(async move {
            let mut counted = 0;
            while counted < EACH {
                let sql = "INSERT INTO counters VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = counters.n + 1";
                match code(&session, sql).await.as_str() {
                    "" => counted += 1,
                    // The server gave up repeating it: nothing happened.
                    "40001" => {}
                    other => panic!("{other}"),
                }
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(number(&session, "SELECT n FROM counters").await, SESSIONS * EACH);
    assert_eq!(number(&session, "SELECT count(*) FROM counters").await, 1);
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn sessions_that_insert_one_key_make_one_row() {
    let server = Server::start().await;
    let session = server.connect().await;
    session.run("CREATE TABLE once (id integer PRIMARY KEY, who integer)").await;
    for id in 0..20 {
        let mut workers = Vec::new();
        for who in 0..3 {
            let session = server.connect().await;
            workers.push(tokio::spawn(async move {
                let sql = format!("INSERT INTO once VALUES ({id}, {who}) ON CONFLICT DO NOTHING");
                code(&session, &sql).await
            }));
        }
        for worker in workers {
            assert_eq!(worker.await.unwrap(), "");
        }
    }
    assert_eq!(number(&session, "SELECT count(*) FROM once").await, 20);
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn an_update_is_not_lost_under_another() {
    let cluster = Cluster::start(Shape::Embedded).await;
    let (a, b) = (cluster.connect().await, cluster.connect().await);
    a.run("CREATE TABLE accounts (id integer, amount integer)").await;
    a.run("INSERT INTO accounts VALUES (1, 100)").await;
    // Both read 100 before either has written.
    a.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    b.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert_eq!(number(&a, "SELECT amount::bigint FROM accounts").await, 100);
    assert_eq!(number(&b, "SELECT amount::bigint FROM accounts").await, 100);
    a.run("UPDATE accounts SET amount = amount - 30").await;
    a.run("COMMIT").await;
    assert_eq!(code(&b, "UPDATE accounts SET amount = amount - 50").await, "40001");
    assert_eq!(code(&b, "SELECT 1").await, "25P02");
    b.run("ROLLBACK").await;
    // One statement alone starts anew by itself.
    b.run("UPDATE accounts SET amount = amount - 50").await;
    assert_eq!(number(&a, "SELECT amount::bigint FROM accounts").await, 20);
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn another_session_sees_an_update_whole_or_not_at_all() {
    let cluster = Cluster::start(Shape::Processes).await;
    let (writer, reader) = (cluster.connect().await, cluster.connect().await);
    writer.run("CREATE TABLE t (time timestamptz NOT NULL, device integer NOT NULL, v bigint)").await;
    writer.run("SELECT create_distributed_hypertable('t', 'time', 'device')").await;
    let rows = "INSERT INTO t SELECT timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n % 10, 0 \
                FROM generate_series(1, 500) AS n";
    writer.run(rows).await;
    writer.run("BEGIN").await;
    writer.run("UPDATE t SET v = 1").await;
    writer.run("UPDATE t SET time = time + interval '30 days' WHERE device < 5").await;
    let seen = "SELECT count(*) * 1000 + sum(v) FROM t";
    assert_eq!(reader.lines(seen).await, ["500000"]);
    assert_eq!(writer.lines(seen).await, ["500500"]);
    writer.run("COMMIT").await;
    assert_eq!(reader.lines(seen).await, ["500500"]);
    assert_eq!(number(&reader, "SELECT count(*) FROM t WHERE time >= '2024-01-31 00:00+00'").await, 250);
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_node_killed_under_an_update_leaves_all_of_it_or_nothing() {
    let mut cluster = Cluster::start(Shape::Processes).await;
    let session = cluster.connect().await;
    session.run("CREATE TABLE t (time timestamptz NOT NULL, device integer NOT NULL, v bigint)").await;
    session.run("SELECT create_distributed_hypertable('t', 'time', 'device')").await;
    let rows = "INSERT INTO t SELECT timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n % 10, 0 \
                FROM generate_series(1, 500) AS n";
    session.run(rows).await;
    session.run("BEGIN").await;
    session.run("UPDATE t SET v = v + 1, time = time + interval '10 days'").await;
    session.run("DELETE FROM t WHERE device = 3").await;
    let victim = *cluster.members().last().expect("a cluster has members");
    cluster.kill(victim);
    let committed = code(&session, "COMMIT").await;
    cluster.restart(victim);
    let session = cluster.settled().await;
    let found = (
        number(&session, "SELECT count(*) FROM t").await,
        number(&session, "SELECT count(*) FROM t WHERE v = 1").await,
    );
    // The node had not voted: its death is a no.
    assert_ne!(committed, "");
    assert_eq!(found, (500, 0));
    session.run("UPDATE t SET v = 2").await;
    assert_eq!(number(&session, "SELECT count(*) FROM t WHERE v = 2").await, 500);
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn statements_that_write_describe_their_parameters_and_their_rows() {
    let server = Server::start().await;
    let session = server.connect().await;
    session.run("CREATE TABLE t (id integer PRIMARY KEY, v double precision, at timestamptz, s varchar(10))").await;
    let cases: &[Described] = &[
        ("UPDATE t SET v = $1, s = $2 WHERE id = $3", &[Type::FLOAT8, Type::VARCHAR, Type::INT4], &[]),
        ("DELETE FROM t WHERE at < $1 RETURNING id", &[Type::TIMESTAMPTZ], &[("id", Type::INT4)]),
        (
            "INSERT INTO t (id, v) VALUES ($1, $2) RETURNING *",
            &[Type::INT4, Type::FLOAT8],
            &[("id", Type::INT4), ("v", Type::FLOAT8), ("at", Type::TIMESTAMPTZ), ("s", Type::VARCHAR)],
        ),
        (
            "INSERT INTO t (id, v) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = excluded.v + $3 RETURNING id AS key",
            &[Type::INT4, Type::FLOAT8, Type::FLOAT8],
            &[("key", Type::INT4)],
        ),
    ];
    for (sql, params, columns) in cases {
        let statement = session.client.prepare(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert_eq!(statement.params(), *params, "{sql}");
        let described = statement.columns().iter().map(|column| (column.name(), column.type_().clone()));
        assert_eq!(described.collect::<Vec<_>>(), *columns, "{sql}");
    }
    let insert = "INSERT INTO t (id, v) VALUES ($1, $2) RETURNING id, v";
    let row = session.client.query_one(insert, &[&7_i32, &1.5_f64]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, f64>(1)), (7, 1.5));
    let updated = session.client.execute("UPDATE t SET v = v + $1 WHERE id = $2", &[&1.0_f64, &7_i32]).await.unwrap();
    assert_eq!(updated, 1);
    let upsert =
        "INSERT INTO t (id, v) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = t.v * excluded.v RETURNING v";
    let row = session.client.query_one(upsert, &[&7_i32, &4.0_f64]).await.unwrap();
    assert_eq!(row.get::<_, f64>(0), 10.0);
    let gone = session.client.query("DELETE FROM t WHERE id = $1 RETURNING v", &[&7_i32]).await.unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, 0);
}
