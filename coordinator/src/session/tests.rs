//! Pipelines of prepared INSERTs on the wire: what is answered in which order, and how many writes they cost. Savepoints
//! when nodes refuse rows or are lost.

use super::{Front, FrontOptions};
use crate::pg::tests::raw::{Message, Raw, V3, kinds, message, startup};
use crate::pg::{Cancels, ServeOptions, serve};
use crate::txn::tests::World;
use engine::plan::{Engine, EngineOptions};
use proto::{Error, SqlState, SystemClock, SystemRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A client of a coordinator over two nodes that only count.
async fn client() -> (World, Raw) {
    let (world, cluster, _) = World::with_table(1).await;
    let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng));
    let engine = Engine::new(&EngineOptions::default(), clock.clone());
    let options = FrontOptions { trust: true, port: 0, partitions: 1 };
    let cancels = Cancels::new(rng.clone());
    let front = Front::new(cluster, engine, clock, rng.clone(), cancels, options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::new(front), ServeOptions::new(rng), CancellationToken::new()));
    let mut raw = Raw::connect(addr).await;
    raw.send(&startup(V3, b"user\0postgres\0")).await;
    raw.until_ready().await;
    let made = raw.query("CREATE TABLE p (id int4 NOT NULL, note varchar(3)); CREATE TABLE q (id int4)").await;
    assert_eq!(kinds(&made), "CCZ");
    (world, raw)
}

fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = format!("{name}\0{sql}\0").into_bytes();
    body.extend((types.len() as u16).to_be_bytes());
    types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    message(b'P', &body)
}

/// Parameters as text, to the unnamed portal.
fn bind(statement: &str, params: &[Option<&str>]) -> Vec<u8> {
    let mut body = format!("\0{statement}\0").into_bytes();
    body.extend(0_u16.to_be_bytes());
    body.extend((params.len() as u16).to_be_bytes());
    for param in params {
        match param {
            Some(text) => {
                body.extend((text.len() as u32).to_be_bytes());
                body.extend(text.as_bytes());
            }
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    body.extend(0_u16.to_be_bytes());
    message(b'B', &body)
}

fn execute() -> Vec<u8> {
    message(b'E', b"\0\0\0\0\0")
}

fn run(statement: &str, params: &[Option<&str>]) -> Vec<u8> {
    [bind(statement, params), execute()].concat()
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

const INT8: u32 = 20;
const INSERT: &str = "INSERT INTO p VALUES ($1, $2)";

fn error(messages: &[Message]) -> String {
    messages.iter().find(|message| message.kind == b'E').map(|message| message.field(b'C')).unwrap_or_default()
}

fn rows(world: &World) -> usize {
    world.dn1.rows() + world.dn2.rows()
}

fn blocks(world: &World) -> usize {
    world.dn1.blocks_count() + world.dn2.blocks_count()
}

#[tokio::test]
async fn a_pipeline_of_one_insert_is_one_write() {
    let (world, mut raw) = client().await;
    let mut pipeline = parse("i", INSERT, &[]);
    for number in 0..1000 {
        pipeline.extend(bind("i", &[Some(&number.to_string()), Some("abc")]));
        pipeline.extend(message(b'D', b"P\0"));
        pipeline.extend(execute());
    }
    pipeline.extend(sync());
    raw.send(&pipeline).await;
    let answers = raw.until_ready().await;
    assert_eq!(kinds(&answers), format!("1{}Z", "2nC".repeat(1000)));
    assert!(answers.iter().filter(|answer| answer.kind == b'C').all(|answer| answer.body == b"INSERT 0 1\0"));
    assert_eq!((rows(&world), blocks(&world)), (1000, 1));
}

#[tokio::test]
async fn a_long_pipeline_is_written_in_pieces() {
    let (world, mut raw) = client().await;
    let mut pipeline = parse("i", INSERT, &[]);
    (0..20_000).for_each(|number| pipeline.extend(run("i", &[Some(&number.to_string()), None])));
    pipeline.extend(sync());
    raw.send(&pipeline).await;
    assert_eq!(kinds(&raw.until_ready().await), format!("1{}Z", "2C".repeat(20_000)));
    assert_eq!((rows(&world), blocks(&world)), (20_000, 3));
}

#[tokio::test]
async fn a_value_that_does_not_fit_fails_its_own_statement() {
    let (world, mut raw) = client().await;
    let good: [Option<&str>; 2] = [Some("1"), Some("abc")];
    for (bad, code, answered) in [
        // Too large for the column; NULL; text that is too long; no number, which Bind finds.
        ([Some("3000000000"), None], "22003", "22E"),
        ([None, None], "23502", "22E"),
        ([Some("1"), Some("abcd")], "22001", "22E"),
        ([Some("x"), None], "22P02", "22E"),
    ] {
        let parts =
            [parse("", INSERT, &[INT8, 25]), run("", &good), run("", &good), run("", &bad), run("", &good), sync()];
        raw.send(&parts.concat()).await;
        let answers = raw.until_ready().await;
        let expected = match code {
            "22P02" => "12C2CEZ".to_owned(),
            _ => format!("12C2C{}Z", &answered[1..]),
        };
        assert_eq!((kinds(&answers), error(&answers)), (expected, code.to_owned()));
        assert_eq!(rows(&world), 0, "all of the pipeline is undone");
    }
    // The session goes on.
    raw.send(&[parse("", INSERT, &[]), run("", &good), sync()].concat()).await;
    assert_eq!(kinds(&raw.until_ready().await), "12CZ");
    assert_eq!(rows(&world), 1);
}

#[tokio::test]
async fn rows_that_a_node_refuses_were_never_answered() {
    let (world, mut raw) = client().await;
    for node in [&world.dn1, &world.dn2] {
        node.refuse_rows(Error::new(SqlState::UNIQUE_VIOLATION, "duplicate key"));
    }
    let good: [Option<&str>; 2] = [Some("1"), None];
    let many = run("i", &good).repeat(10);
    raw.send(&[parse("i", INSERT, &[]), many.clone(), sync()].concat()).await;
    let answers = raw.until_ready().await;
    assert_eq!((kinds(&answers), error(&answers)), ("12EZ".to_owned(), "23505".to_owned()));
    // The statement that cannot be gathered is not even looked at; nor is a later error told.
    let bad = run("i", &[Some("x"), None]);
    raw.send(&[many.clone(), bad, sync()].concat()).await;
    let answers = raw.until_ready().await;
    assert_eq!((kinds(&answers), error(&answers)), ("2EZ".to_owned(), "23505".to_owned()));
    // Between BEGIN and COMMIT the block fails.
    raw.query("BEGIN").await;
    raw.send(&[many, sync()].concat()).await;
    let answers = raw.until_ready().await;
    assert_eq!(kinds(&answers), "2EZ");
    assert_eq!(answers.last().unwrap().body, b"E");
    raw.send(&[run("i", &good), sync()].concat()).await;
    assert_eq!(error(&raw.until_ready().await), "25P02");
    assert_eq!(kinds(&raw.query("ROLLBACK").await), "CZ");
    assert_eq!(rows(&world), 0);
}

#[tokio::test]
async fn other_statements_come_in_their_place() {
    let (world, mut raw) = client().await;
    let parts = [
        parse("p", INSERT, &[]),
        parse("q", "INSERT INTO q VALUES ($1)", &[]),
        parse("s", "SHOW TimeZone", &[]),
        parse("b", "BEGIN", &[]),
        parse("c", "COMMIT", &[]),
        run("b", &[]),
        run("p", &[Some("1"), None]),
        run("p", &[Some("2"), None]),
        run("q", &[Some("3")]),
        run("s", &[]),
        run("q", &[Some("4")]),
        run("q", &[Some("5")]),
        run("c", &[]),
        sync(),
    ];
    raw.send(&parts.concat()).await;
    let answers = raw.until_ready().await;
    assert_eq!(kinds(&answers), "111112C2C2C2C2DC2C2C2CZ");
    assert_eq!((rows(&world), blocks(&world)), (5, 3));
}

#[tokio::test]
async fn flush_answers_what_was_gathered() {
    let (world, mut raw) = client().await;
    let parts = [parse("i", INSERT, &[]), run("i", &[Some("1"), None]).repeat(3), message(b'H', b"")];
    raw.send(&parts.concat()).await;
    let mut answers = Vec::new();
    for _ in 0..7 {
        answers.push(raw.read().await.unwrap());
    }
    assert_eq!(kinds(&answers), "12C2C2C");
    assert_eq!((rows(&world), blocks(&world)), (0, 1), "written, not committed");
    raw.send(&[run("i", &[Some("1"), None]), sync()].concat()).await;
    assert_eq!(kinds(&raw.until_ready().await), "2CZ");
    assert_eq!(rows(&world), 4);
}

#[tokio::test]
async fn an_error_of_another_message_comes_behind_what_was_gathered() {
    let (world, mut raw) = client().await;
    let parts = [
        parse("i", INSERT, &[]),
        run("i", &[Some("1"), None]).repeat(2),
        parse("bad", "SELEC 1", &[]),
        run("i", &[Some("1"), None]),
        sync(),
    ];
    raw.send(&parts.concat()).await;
    let answers = raw.until_ready().await;
    assert_eq!((kinds(&answers), error(&answers)), ("12C2CEZ".to_owned(), "42601".to_owned()));
    assert_eq!(rows(&world), 0);
    let parts = [run("i", &[Some("1"), None]), bind("nobody", &[]), run("i", &[Some("1"), None]), sync()];
    raw.send(&parts.concat()).await;
    let answers = raw.until_ready().await;
    assert_eq!((kinds(&answers), error(&answers)), ("2CEZ".to_owned(), "26000".to_owned()));
}

/// Nodes that take a block and then none: a COPY of 100 MB must not go on by more than what sockets and buffers hold.
#[tokio::test]
async fn slow_nodes_slow_a_copy() {
    const LINE: &[u8] = b"2019-01-01 00:00:00+00\t1\t20.5\n";
    const TOTAL_BYTES: usize = 100 << 20;
    let (world, mut raw) = client().await;
    let gate = Arc::new(Semaphore::new(0));
    world.dn1.wait_at(&gate);
    world.dn2.wait_at(&gate);
    raw.send(&message(b'Q', b"COPY conditions FROM STDIN\0")).await;
    raw.until(b'G').await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let piece = message(b'd', &LINE.repeat((64 << 10) / LINE.len()));
    let sending = tokio::spawn(async move {
        while counted.load(Ordering::SeqCst) < TOTAL_BYTES {
            raw.0.write_all(&piece).await.unwrap();
            counted.fetch_add(piece.len(), Ordering::SeqCst);
        }
        raw
    });
    for round in 0..3 {
        // Until the client stands still.
        let mut before = usize::MAX;
        while sent.load(Ordering::SeqCst) != before {
            before = sent.load(Ordering::SeqCst);
            for _ in 0..20_000 {
                tokio::task::yield_now().await;
            }
        }
        assert!(before < TOTAL_BYTES / 2, "{before} bytes were taken while the nodes took {round} blocks");
        gate.add_permits(1);
    }
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    let mut raw = sending.await.unwrap();
    raw.send(&message(b'c', b"")).await;
    assert_eq!(kinds(&raw.until_ready().await), "CZ");
    let count = sent.load(Ordering::SeqCst) / (5 + (64 << 10) / LINE.len() * LINE.len()) * ((64 << 10) / LINE.len());
    assert_eq!(rows(&world), count);
}

/// The error's code, if there is one, and the status at the end.
async fn said(raw: &mut Raw, sql: &str) -> (String, char) {
    let messages = raw.query(sql).await;
    (error(&messages), messages.last().unwrap().body[0] as char)
}

#[tokio::test]
async fn a_savepoint_on_a_node_that_was_lost_cannot_be_gone_back_to() {
    for (restarted, code) in [(true, "40001"), (false, "08006")] {
        let (world, mut raw) = client().await;
        let all = [("BEGIN", "", 'T'), ("INSERT INTO p VALUES (1, 'a')", "", 'T'), ("SAVEPOINT s", "", 'T')];
        for (sql, code, status) in all.into_iter().chain([("INSERT INTO p VALUES (2, 'b')", "", 'T')]) {
            assert_eq!(said(&mut raw, sql).await, (code.to_owned(), status), "{sql}");
        }
        for node in [&world.dn1, &world.dn2] {
            match restarted {
                true => node.restart(),
                false => node.kill(),
            }
        }
        for _ in 0..2 {
            assert_eq!(said(&mut raw, "ROLLBACK TO s").await, (code.to_owned(), 'E'));
        }
        assert_eq!(said(&mut raw, "SELECT 1").await, ("25P02".to_owned(), 'E'));
        assert_eq!(said(&mut raw, "COMMIT").await, (String::new(), 'I'));
        assert_eq!(rows(&world), 0);
    }
}

#[tokio::test]
async fn a_row_that_its_node_refused_goes_with_the_savepoint() {
    let (world, mut raw) = client().await;
    assert_eq!(kinds(&raw.query("BEGIN; INSERT INTO p VALUES (1, 'a'); SAVEPOINT s").await), "CCCZ");
    for node in [&world.dn1, &world.dn2] {
        node.refuse_rows(Error::new(SqlState::DISK_FULL, "no space left on device"));
    }
    // Rows without a key are on their way when the statement returns; RELEASE waits for them.
    raw.query("INSERT INTO p VALUES (2, 'b')").await;
    let (code, status) = said(&mut raw, "RELEASE s").await;
    assert!(["53100", "25P02"].contains(&code.as_str()) && status == 'E', "{code}");
    [&world.dn1, &world.dn2].into_iter().for_each(|node| node.take_rows_again());
    assert_eq!(said(&mut raw, "ROLLBACK TO s").await, (String::new(), 'T'));
    assert_eq!(said(&mut raw, "INSERT INTO p VALUES (3, 'c'); COMMIT").await, (String::new(), 'I'));
    assert_eq!(rows(&world), 2);
}
