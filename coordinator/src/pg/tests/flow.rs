//! Message by message.

use super::fake::Front;
use super::raw::{Message, Raw, V3, kinds, message, startup};
use super::{start, start_with, within};
use crate::pg::backend::{Frontdoor, Startup};
use crate::pg::connection::Connection;
use crate::pg::wire::{Inlet, Outlet};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio_util::sync::CancellationToken;

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows_max.to_be_bytes()].concat())
}

fn describe(target: &str) -> Vec<u8> {
    message(b'D', format!("{target}\0").as_bytes())
}

fn close(target: &str) -> Vec<u8> {
    message(b'C', format!("{target}\0").as_bytes())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn tag(message: &Message) -> String {
    assert_eq!(message.kind, b'C');
    String::from_utf8(message.body[..message.body.len() - 1].to_vec()).unwrap()
}

async fn exchange(raw: &mut Raw, messages: &[Vec<u8>]) -> Vec<Message> {
    raw.send(&messages.concat()).await;
    raw.until_ready().await
}

#[tokio::test]
async fn a_simple_query_answers_each_statement_and_stops_at_the_first_error() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    let messages = raw.query("rows 2; insert; notice; set zone").await;
    assert_eq!(kinds(&messages), "TDDCCNCCSZ");
    assert_eq!(tag(&messages[3]), "SELECT 2");
    assert_eq!(tag(&messages[4]), "INSERT 0 1");
    assert_eq!(messages[5].field(b'M'), "hear, hear");
    assert_eq!(messages[8].body, b"TimeZone\0Europe/Oslo\0");
    // Two columns: int8 of a table, text of none.
    let columns = b"\0\x02n\0\0\0\x40\0\0\x01\0\0\0\x14\0\x08\xff\xff\xff\xff\0\0s\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
    assert_eq!(messages[0].body, columns);
    assert_eq!(messages[1].body, b"\0\x02\0\0\0\x010\0\0\0\x05row 0");

    let messages = raw.query("insert; fail; insert").await;
    assert_eq!(kinds(&messages), "CEZ");
    assert_eq!(messages[1].field(b'C'), "22012");
    assert_eq!(messages[1].field(b'V'), "ERROR");

    let messages = raw.query("insert !").await;
    assert_eq!(kinds(&messages), "EZ");
    assert_eq!((messages[0].field(b'P'), messages[0].field(b'H')), ("8".into(), "No shouting.".into()));
    for empty in ["", ";", " ; ; "] {
        assert_eq!(kinds(&raw.query(empty).await), "IZ");
    }
    assert_eq!(raw.query("rows $1").await[0].field(b'C'), "42P02");
}

#[tokio::test]
async fn the_transaction_status_follows_the_session() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    for (sql, status) in [("begin", b"T"), ("insert", b"T"), ("fail", b"E"), ("insert", b"E"), ("rollback", b"I")] {
        assert_eq!(raw.query(sql).await.last().unwrap().body, status, "{sql}");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_result_ends_it() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    let messages = raw.query("fail after 3").await;
    assert_eq!(kinds(&messages), "TDDDEZ");
    server.front.log.wait_for("fail").await;
}

#[tokio::test]
async fn a_prepared_statement_is_described_bound_and_executed_in_pieces() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    raw.send(
        &[
            parse("s", "rows 5"),
            describe("Ss"),
            bind("p", "s"),
            describe("Pp"),
            execute("p", 2),
            execute("p", 3),
            execute("p", 0),
            execute("p", 0),
            sync(),
        ]
        .concat(),
    )
    .await;
    let messages = raw.until_ready().await;
    // After five rows by limit the portal is suspended, though nothing is left.
    assert_eq!(kinds(&messages), "1tT2TDDsDDDsCCZ");
    assert_eq!(tag(&messages[12]), "SELECT 0");

    // The transaction has ended: so have its portals, but not its statements.
    let messages = exchange(&mut raw, &[execute("p", 0), sync()]).await;
    assert_eq!((kinds(&messages).as_str(), messages[0].field(b'C').as_str()), ("EZ", "34000"));
    let messages = exchange(&mut raw, &[bind("", "s"), execute("", 0), sync()]).await;
    assert_eq!(kinds(&messages), "2DDDDDCZ");
    assert_eq!(tag(&messages[6]), "SELECT 5");
}

#[tokio::test]
async fn portals_live_through_a_transaction_block() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    raw.query("begin").await;
    let messages = exchange(&mut raw, &[parse("", "rows 5"), bind("p", ""), execute("p", 2), sync()]).await;
    assert_eq!(kinds(&messages), "12DDsZ");
    let messages = exchange(&mut raw, &[execute("p", 2), sync()]).await;
    assert_eq!(kinds(&messages), "DDsZ");
    assert!(!server.front.log.has("stream dropped"));
    let messages =
        exchange(&mut raw, &[parse("", "commit"), bind("", ""), execute("", 0), execute("p", 0), sync()]).await;
    assert_eq!(kinds(&messages), "12CEZ");
    assert_eq!(messages[3].field(b'C'), "34000");
    server.front.log.wait_for("stream dropped").await;
}

#[tokio::test]
async fn errors_of_the_extended_protocol_have_postgres_codes() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    let cases: [(&[Vec<u8>], &str, &str); 13] = [
        (&[bind("", "none")], "26000", "prepared statement \"none\" does not exist"),
        (&[bind("", "")], "26000", "unnamed prepared statement does not exist"),
        (&[describe("Snone")], "26000", "prepared statement \"none\" does not exist"),
        (&[describe("Pnone")], "34000", "portal \"none\" does not exist"),
        (&[execute("none", 0)], "34000", "portal \"none\" does not exist"),
        (&[describe("Xnone")], "08P01", "invalid DESCRIBE message subtype 88"),
        (&[parse("", "insert; insert")], "42601", "cannot insert multiple commands into a prepared statement"),
        (&[parse("", "unknown")], "42P01", "relation \"unknown\" does not exist"),
        (&[parse("a", "insert"), parse("a", "insert")], "42P05", "prepared statement \"a\" already exists"),
        (&[parse("", "insert"), bind("q", ""), bind("q", "")], "42P03", "cursor \"q\" already exists"),
        (
            &[parse("b", "rows $1"), bind("", "b")],
            "08P01",
            "bind message supplies 0 parameters, but prepared statement \"b\" requires 1",
        ),
        (
            &[parse("", "rows 1"), message(b'B', b"\0\0\0\0\0\0\0\x03\0\0\0\0\0\0")],
            "08P01",
            "bind message has 3 result formats but query has 2 columns",
        ),
        (&[parse("", "insert"), bind("", ""), execute("", 0), execute("", 0)], "55000", "portal \"\" cannot be run"),
    ];
    for (messages, code, text) in cases {
        // What follows the error is not answered.
        let tail = [parse("", "rows 1"), message(b'H', b""), sync()];
        let answer = exchange(&mut raw, &[messages, &tail].concat()).await;
        let error = &answer[answer.len() - 2];
        assert_eq!((error.field(b'C').as_str(), error.field(b'M').as_str()), (code, text), "{}", kinds(&answer));
    }
    // Closing what is not there is fine, an empty statement too, and a declared cursor can be described.
    let quiet = [close("Snone"), close("Pnone"), parse("", ""), describe("S"), bind("", ""), execute("", 1)];
    let messages = exchange(&mut raw, &[&quiet[..], &[describe("Pdeclared"), sync()]].concat()).await;
    assert_eq!(kinds(&messages), "331tn2ITZ");
}

/// Recorded from PostgreSQL 15.
#[tokio::test]
async fn a_parameter_that_is_no_value_of_its_type_is_named() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    for (portal, context) in [("", "unnamed portal parameter $1 = '...'"), ("p", "portal \"p\" parameter $1 = '...'")] {
        let bind = [portal.as_bytes(), b"\0\0\0\0\0\x01\0\0\0\x03abc\0\0"].concat();
        let messages = exchange(&mut raw, &[parse("", "rows $1"), message(b'B', &bind), sync()]).await;
        assert_eq!(kinds(&messages), "1EZ");
        assert_eq!(messages[1].field(b'C'), "22P02");
        assert_eq!(messages[1].field(b'M'), "invalid input syntax for type bigint: \"abc\"");
        assert_eq!(messages[1].field(b'W'), context);
    }
}

#[tokio::test]
async fn a_malformed_message_is_an_error_and_not_the_end() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    let messages = exchange(&mut raw, &[message(b'B', b"\0\0\0\x05"), bind("", ""), sync()]).await;
    assert_eq!((kinds(&messages).as_str(), messages[0].field(b'C').as_str()), ("EZ", "08P01"));
    raw.send(&message(b'Q', b"rows \xff 1\0")).await;
    let messages = raw.until_ready().await;
    assert_eq!((kinds(&messages).as_str(), messages[0].field(b'C').as_str()), ("EZ", "22021"));
    raw.send(&message(b'F', b"whatever")).await;
    assert_eq!(kinds(&raw.until_ready().await), "EZ");

    raw.send(b"?\0\0\0\x04").await;
    let messages = raw.until_closed().await;
    assert_eq!(messages[0].field(b'M'), "invalid frontend message type 63");
    server.front.log.wait_for("close").await;
}

/// Two prepared executions and their Sync make one write; so does what comes before a Flush.
#[tokio::test]
async fn answers_are_written_at_flush_and_sync_only() {
    let query = [parse("", "rows 1"), bind("", ""), describe("P"), execute("", 0), bind("", ""), execute("", 0)];
    let flush = [message(b'H', b"")];
    let script = [&query[..], &flush, &query, &[sync(), message(b'X', b"")]].concat().concat();
    let (_open, never_read_from) = tokio::io::duplex(1);
    let writes = Writes::default();
    let (inlet, outlet) =
        (Inlet::new(std::io::Cursor::new(script).chain(never_read_from)), Outlet::new(writes.clone()));
    let startup =
        Startup { user: "trusty".into(), database: "d".into(), options: Default::default(), peer: None, pid: 1 };
    let mut session = Front::new().connect(startup).await.unwrap();
    session.take_parameter_changes();
    let connection = Connection::new(inlet, outlet, session, CancellationToken::new(), Default::default(), 1 << 20);
    within(connection.serve()).await;
    let kinds = |bytes: &[u8]| {
        let (mut kinds, mut rest) = (String::new(), bytes);
        while let [kind, a, b, c, d, ..] = rest {
            kinds.push(*kind as char);
            rest = &rest[1 + u32::from_be_bytes([*a, *b, *c, *d]) as usize..];
        }
        kinds
    };
    let writes = writes.0.lock().iter().map(|bytes| kinds(bytes)).collect::<Vec<_>>();
    assert_eq!(writes, ["Z", "12TDC2DC", "12TDC2DCZ"]);
}

/// Keeps what each write brought.
#[derive(Clone, Default)]
struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

impl AsyncWrite for Writes {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().push(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn copy_in_works_in_both_protocols() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    let data = [message(b'd', b"one\ntw"), message(b'd', b""), message(b'd', b"o\n"), message(b'c', b"")].concat();
    raw.send(&message(b'Q', b"copy in\0")).await;
    let response = raw.read().await.unwrap();
    assert_eq!((response.kind, &response.body[..]), (b'G', &b"\0\0\x02\0\0\0\0"[..]));
    raw.send(&data).await;
    let messages = raw.until_ready().await;
    assert_eq!((kinds(&messages).as_str(), tag(&messages[0]).as_str()), ("CZ", "COPY 2"));
    assert!(server.front.log.has("copy finished with 8 bytes"));

    // As psycopg and tokio-postgres do: Sync before the data, and again behind it.
    raw.send(&[parse("", "copy in"), bind("", ""), execute("", 0), sync(), data, sync()].concat()).await;
    let messages = raw.until_ready().await;
    assert_eq!(kinds(&messages), "12GCZ");
}

#[tokio::test]
async fn a_copy_that_fails_leaves_the_connection_in_step() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    raw.send(
        &[message(b'Q', b"copy in\0"), message(b'd', b"bad\n"), message(b'd', b"more\n"), message(b'c', b"")].concat(),
    )
    .await;
    let messages = raw.until_ready().await;
    assert_eq!((kinds(&messages).as_str(), messages[1].field(b'C').as_str()), ("GEZ", "22P04"));
    assert_eq!(kinds(&raw.query("insert").await), "CZ");

    raw.send(&[message(b'Q', b"copy in\0"), message(b'd', b"one\n"), message(b'f', b"enough\0")].concat()).await;
    let messages = raw.until_ready().await;
    assert_eq!(messages[1].field(b'M'), "COPY from stdin failed: enough");
    assert_eq!(messages[1].field(b'C'), "57014");

    raw.send(&[message(b'Q', b"copy in\0"), message(b'Q', b"insert\0")].concat()).await;
    let messages = raw.until_ready().await;
    assert_eq!(messages[1].field(b'M'), "unexpected message type 0x51 during COPY from stdin");
    assert!(!server.front.log.has("copy finished with 4 bytes"));
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_of_a_copy_aborts_it() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    raw.send(&[message(b'Q', b"copy in\0"), message(b'd', b"one\n")].concat()).await;
    server.front.log.wait_for("copy wrote").await;
    drop(raw);
    server.front.log.wait_for("close").await;
    assert!(server.front.log.has("sink dropped"));
    assert!(!server.front.log.has("copy finished with 4 bytes"));
}

/// CopyData beyond the message limit is passed on in pieces.
#[tokio::test]
async fn copy_data_of_any_size_is_taken_in() {
    let server = start_with(|options| options.message_bytes_max = 100_000).await;
    let mut raw = Raw::trusty(server.addr).await;
    let line = [vec![b'x'; 999_999], vec![b'\n']].concat();
    raw.send(&[message(b'Q', b"copy in\0"), message(b'd', &line), message(b'c', b"")].concat()).await;
    assert_eq!(tag(&raw.until_ready().await[1]), "COPY 1");
    raw.send(&message(b'Q', &[b'x'; 100_000])).await;
    assert_eq!(raw.until_closed().await[0].field(b'C'), "08P01");
}

#[tokio::test]
async fn copy_out_sends_one_message_per_row() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    let messages = raw.query("copy out").await;
    assert_eq!(kinds(&messages), "HdddcCZ");
    assert_eq!((&messages[2].body[..], tag(&messages[5]).as_str()), (&b"two\n"[..], "COPY 3"));
    let messages = exchange(&mut raw, &[parse("", "copy out"), bind("", ""), execute("", 1), sync()]).await;
    assert_eq!(kinds(&messages), "12HdddcCZ");
}

/// A cancel request of `key` (process number and secret), delivered when the server has hung up.
async fn cancel(server: &super::TestServer, key: &[u8]) {
    let mut other = Raw::connect(server.addr).await;
    let packet = [&[0, 0, 0, 8 + key.len() as u8, 0x04, 0xd2, 0x16, 0x2e], key].concat();
    other.send(&packet).await;
    assert_eq!(kinds(&other.until_closed().await), "");
}

async fn connect_with_key(server: &super::TestServer, version: u32) -> (Raw, Vec<u8>) {
    let mut raw = Raw::connect(server.addr).await;
    raw.send(&startup(version, b"user\0trusty\0")).await;
    let messages = raw.until_ready().await;
    let key = messages.into_iter().find(|message| message.kind == b'K').unwrap().body;
    (raw, key)
}

#[tokio::test]
async fn a_cancel_request_stops_the_running_stream() {
    for version in [V3, V3 + 2] {
        let server = start().await;
        let (mut raw, key) = connect_with_key(&server, version).await;
        let mut wrong = key.clone();
        *wrong.last_mut().unwrap() ^= 1;
        for sql in ["forever", "sleep"] {
            cancel(&server, &key).await;
            raw.send(&message(b'Q', format!("{sql}\0").as_bytes())).await;
            server.front.log.wait_for(&format!("{sql} started")).await;
            cancel(&server, &wrong).await;
            cancel(&server, &key).await;
            let messages = raw.until_ready().await;
            let error = &messages[messages.len() - 2];
            assert_eq!(error.field(b'C'), "57014");
            assert_eq!(error.field(b'M'), "canceling statement due to user request");
        }
        assert!(server.front.log.has("stream dropped") && server.front.log.has("sleep dropped"));
        assert_eq!(kinds(&raw.query("insert").await), "CZ");
    }
}

#[tokio::test]
async fn a_commit_is_not_interrupted() {
    let server = start().await;
    let (mut raw, key) = connect_with_key(&server, V3).await;
    raw.send(&message(b'Q', b"commit slowly\0")).await;
    server.front.log.wait_for("commit started").await;
    cancel(&server, &key).await;
    assert_eq!(kinds(&raw.until_ready().await), "CZ");

    raw.send(&message(b'Q', b"commit slowly\0")).await;
    drop(raw);
    server.front.log.wait_for("commit ended").await;
}

#[tokio::test]
async fn the_statement_timeout_stops_the_running_stream() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    raw.query("set timeout").await;
    let messages = raw.query("forever").await;
    assert_eq!(kinds(&messages), "TDEZ");
    assert_eq!(messages[2].field(b'M'), "canceling statement due to statement timeout");
}

#[tokio::test]
async fn work_stops_when_the_client_goes_away() {
    for sql in ["forever", "sleep"] {
        let server = start().await;
        let mut raw = Raw::trusty(server.addr).await;
        raw.send(&message(b'Q', format!("{sql}\0").as_bytes())).await;
        server.front.log.wait_for(&format!("{sql} started")).await;
        drop(raw);
        server.front.log.wait_for("close").await;
        assert!(server.front.log.has("stream dropped") || server.front.log.has("sleep dropped"));
    }
}

/// Ten million rows, of which the client reads some: the server must not run ahead of it by more than the sockets hold.
#[tokio::test]
async fn a_slow_client_slows_the_query() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    raw.send(&message(b'Q', b"rows 10000000\0")).await;
    let mut some = vec![0; 1 << 20];
    within(raw.0.read_exact(&mut some)).await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let polled = server.front.batches_polled.load(Ordering::SeqCst);
    assert!(polled < 2_000, "{polled} of 10000 batches were taken for a client that read a megabyte");
    drop(raw);
    server.front.log.wait_for("stream dropped").await;
}

#[tokio::test]
async fn a_panic_ends_one_connection_only() {
    let server = start().await;
    let mut well = Raw::trusty(server.addr).await;
    let mut ill = Raw::trusty(server.addr).await;
    ill.send(&message(b'Q', b"panic\0")).await;
    assert_eq!(kinds(&ill.until_closed().await), "");
    assert_eq!(kinds(&well.query("insert").await), "CZ");
    Raw::trusty(server.addr).await;
}

#[tokio::test]
async fn shutdown_tells_idle_and_busy_clients_and_ends() {
    let server = start().await;
    let mut idle = Raw::trusty(server.addr).await;
    let mut busy = Raw::trusty(server.addr).await;
    busy.send(&message(b'Q', b"forever\0")).await;
    server.front.log.wait_for("forever started").await;
    server.shutdown.cancel();
    for raw in [&mut idle, &mut busy] {
        let messages = raw.until_closed().await;
        let error = messages.last().unwrap();
        assert_eq!((error.field(b'S').as_str(), error.field(b'C').as_str()), ("FATAL", "57P01"));
        assert_eq!(error.field(b'M'), "terminating connection due to administrator command");
    }
    within(server.task).await.unwrap();
}

/// Some clients take CommandComplete for the commit; whoever reads on learns the same.
#[tokio::test]
async fn nothing_is_answered_that_was_not_committed() {
    let server = start().await;
    let mut raw = Raw::trusty(server.addr).await;
    let both = [parse("", "insert"), bind("", ""), execute("", 0), parse("", "insert doomed"), bind("", "")];
    let messages = exchange(&mut raw, &[both.concat(), execute("", 0), sync()]).await;
    assert_eq!(kinds(&messages), "12EZ", "neither of the two inserts happened");
    assert_eq!(messages[2].field(b'C'), "40001");
    // Nor when the server goes away before the client has asked for the commit.
    raw.send(&[parse("", "insert noted"), bind("", ""), execute("", 0)].concat()).await;
    server.front.log.wait_for("inserted").await;
    server.shutdown.cancel();
    assert_eq!(kinds(&raw.until_closed().await), "12E");
}
