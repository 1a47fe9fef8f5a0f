//! COPY in both directions, text, CSV and binary. Plain PostgreSQL but for the hypertable; expected texts are PostgreSQL's.

use crate::cluster::{Server, Session, error_of};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use std::pin::pin;

async fn table() -> (Server, Session) {
    let server = Server::start().await;
    let session = server.connect().await;
    session.run("CREATE TABLE t (time timestamptz NOT NULL, device integer, note text, v double precision)").await;
    server.distribute(&session, "t", "time", "device").await;
    (server, session)
}

/// Sends the pieces one by one; the row count.
async fn copy_in(session: &Session, sql: &str, pieces: &[&str]) -> Result<u64, tokio_postgres::Error> {
    let sink = session.client.copy_in::<_, Bytes>(sql).await?;
    let mut sink = pin!(sink);
    for piece in pieces {
        sink.send(Bytes::copy_from_slice(piece.as_bytes())).await?;
    }
    sink.finish().await
}

async fn copy_out(session: &Session, sql: &str) -> String {
    let stream = session.client.copy_out(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let pieces = stream.map(|piece| piece.unwrap()).collect::<Vec<_>>().await;
    String::from_utf8(pieces.concat()).unwrap()
}

const ROWS: &str = "SELECT * FROM t ORDER BY time";

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn text_comes_in_and_goes_out_as_it_was() {
    let (_server, session) = table().await;
    let text = "2024-01-01 00:00:00+00\t1\tplain\t1.5\n\
                2024-01-09 00:00:00+00\t\\N\ttab\\there, back\\\\slash, new\\nline\t-0.25\n\
                2024-01-17 00:00:00+00\t3\t\t\\N\n\
                2024-01-25 00:00:00+00\t4\t\\N\tNaN\n";
    assert_eq!(copy_in(&session, "COPY t FROM STDIN", &[text]).await.unwrap(), 4);
    assert_eq!(copy_out(&session, &format!("COPY ({ROWS}) TO STDOUT")).await, text);
    assert_eq!(session.value("SELECT count(*) FROM t WHERE note = ''").await, "1");
    assert_eq!(session.value("SELECT count(*) FROM t WHERE note IS NULL").await, "1");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn csv_comes_in_and_goes_out_as_it_was() {
    let (_server, session) = table().await;
    let text = "time,device,note,v\n\
                2024-01-01 00:00:00+00,1,plain,1.5\n\
                2024-01-09 00:00:00+00,,\"comma, \"\"quote\"\"\nand line\",-0.25\n\
                2024-01-17 00:00:00+00,3,\"\",\n\
                2024-01-25 00:00:00+00,4,,NaN\n";
    let sql = "COPY t FROM STDIN WITH (FORMAT csv, HEADER true)";
    assert_eq!(copy_in(&session, sql, &[text]).await.unwrap(), 4);
    assert_eq!(copy_out(&session, &format!("COPY ({ROWS}) TO STDOUT WITH (FORMAT csv, HEADER)")).await, text);
    assert_eq!(session.value("SELECT count(*) FROM t WHERE note = ''").await, "1");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn pieces_may_be_cut_anywhere() {
    let (_server, session) = table().await;
    let line = "2024-01-01 00:00:00+00,1,\"é,\"\"x\"\"\",1.5\n";
    let text = line.repeat(3);
    for cut in (1..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
        let pieces = [&text[..cut], &text[cut..]];
        assert_eq!(copy_in(&session, "COPY t FROM STDIN CSV", &pieces).await.unwrap(), 3, "cut at {cut}");
    }
    let distinct = session.lines("SELECT DISTINCT note, v FROM t").await;
    assert_eq!(distinct, ["é,\"x\"|1.5"]);
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn options_and_columns_are_obeyed() {
    let (_server, session) = table().await;
    let sql = "COPY t (v, time, note) FROM STDIN WITH (DELIMITER '|', NULL 'nil')";
    assert_eq!(copy_in(&session, sql, &["1.5|2024-01-01 00:00+00|nil\n"]).await.unwrap(), 1);
    assert_eq!(
        copy_in(&session, "COPY t FROM STDIN WITH DELIMITER AS '\t' NULL AS '\\N'", &["2024-02-01\t1\t\\N\t2\n"])
            .await
            .unwrap(),
        1
    );
    assert_eq!(copy_in(&session, "COPY t FROM STDIN", &["2024-03-01\t1\tx\t2\n\\.\n"]).await.unwrap(), 1);
    assert_eq!(copy_in(&session, "COPY t FROM STDIN", &["2024-04-01\t1\tno newline\t2"]).await.unwrap(), 1);
    assert_eq!(copy_in(&session, "COPY t FROM STDIN", &[]).await.unwrap(), 0);
    assert_eq!(copy_in(&session, "COPY t FROM STDIN", &["2024-05-01\t1\tcr\t2\r\n"]).await.unwrap(), 1);
    let lines = session.lines("SELECT * FROM t ORDER BY time").await;
    let expected = [
        "2024-01-01 00:00:00+00|||1.5",
        "2024-02-01 00:00:00+00|1||2",
        "2024-03-01 00:00:00+00|1|x|2",
        "2024-04-01 00:00:00+00|1|no newline|2",
        "2024-05-01 00:00:00+00|1|cr|2",
    ];
    assert_eq!(lines, expected);
    let out = copy_out(&session, "COPY (SELECT note, v FROM t WHERE v < 2) TO STDOUT WITH (FORMAT csv, NULL 'nil', DELIMITER ';', FORCE_QUOTE (v))").await;
    assert_eq!(out, "nil;\"1.5\"\n");
    assert_eq!(copy_out(&session, "COPY (SELECT 1, true, 'x' WHERE false) TO STDOUT").await, "");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_bad_row_is_named_and_nothing_of_the_copy_stays() {
    let (_server, session) = table().await;
    let good = "2024-01-01 00:00:00+00\t1\tok\t1\n".repeat(5000);
    let cases = [
        ("2024-01-01\t1\tok\n", "22P04", "missing data for column \"v\"", "COPY t, line 5001"),
        ("2024-01-01\t1\tok\t1\t2\n", "22P04", "extra data after last expected column", "COPY t, line 5001"),
        (
            "2024-01-01\tx\tok\t1\n",
            "22P02",
            "invalid input syntax for type integer: \"x\"",
            "COPY t, line 5001, column device: \"x\"",
        ),
        (
            "yesteryear\t1\tok\t1\n",
            "22007",
            "invalid input syntax for type timestamp with time zone: \"yesteryear\"",
            "COPY t, line 5001, column time: \"yesteryear\"",
        ),
        (
            "2024-13-01\t1\tok\t1\n",
            "22008",
            "date/time field value out of range: \"2024-13-01\"",
            "COPY t, line 5001, column time: \"2024-13-01\"",
        ),
        (
            "300000-01-01\t1\tok\t1\n",
            "22008",
            "timestamp out of range: \"300000-01-01\"",
            "COPY t, line 5001, column time: \"300000-01-01\"",
        ),
        (
            "2024-01-01\t99999999999\tok\t1\n",
            "22003",
            "value \"99999999999\" is out of range for type integer",
            "COPY t, line 5001, column device: \"99999999999\"",
        ),
    ];
    for (bad, code, message, place) in cases {
        let error = error_of(&copy_in(&session, "COPY t FROM STDIN", &[&good, bad, &good]).await.unwrap_err());
        assert_eq!((error.code().code(), error.message()), (code, message), "{bad}");
        assert!(error.where_().unwrap_or_default().starts_with(place), "{bad}: {:?}", error.where_());
        assert_eq!(session.value("SELECT count(*) FROM t").await, "0", "{bad}");
    }
    let error = error_of(&copy_in(&session, "COPY t FROM STDIN", &[&good, "\\N\t1\tok\t1\n"]).await.unwrap_err());
    assert_eq!(error.code().code(), "23502");
    assert_eq!(session.value("SELECT count(*) FROM t").await, "0");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_copy_that_cannot_begin_is_refused() {
    let (_server, session) = table().await;
    let cases = [
        ("COPY nowhere FROM STDIN", "42P01"),
        ("COPY t (nope) FROM STDIN", "42703"),
        ("COPY t (time, time) FROM STDIN", "42701"),
        ("COPY t FROM STDIN WITH (FORMAT nonsense)", "22023"),
        ("COPY t FROM STDIN WITH (NONSENSE)", "42601"),
    ];
    for (sql, code) in cases {
        let error = session.error(sql).await;
        assert_eq!(error.code().code(), code, "{sql}: {}", error.message());
    }
    assert_eq!(session.value("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_copy_is_part_of_its_transaction() {
    let (server, session) = table().await;
    let (other, rows) = (server.connect().await, "2024-01-01\t1\ta\t1\n2024-01-20\t2\tb\t2\n");
    session.run("BEGIN").await;
    copy_in(&session, "COPY t FROM STDIN", &[rows]).await.unwrap();
    assert_eq!(session.value("SELECT count(*) FROM t").await, "2");
    assert_eq!(other.value("SELECT count(*) FROM t").await, "0");
    session.run("ROLLBACK").await;
    assert_eq!(session.value("SELECT count(*) FROM t").await, "0");
    session.run("BEGIN").await;
    copy_in(&session, "COPY t FROM STDIN", &[rows]).await.unwrap();
    session.run("COMMIT").await;
    assert_eq!(other.value("SELECT count(*) FROM t").await, "2");
}

/// Dropping the sink before `finish` sends CopyFail.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_copy_given_up_by_its_client_leaves_nothing() {
    let (_server, session) = table().await;
    {
        let mut sink = pin!(session.client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap());
        sink.send(Bytes::from("2024-01-01\t1\ta\t1\n".repeat(1000))).await.unwrap();
    }
    assert_eq!(session.value("SELECT count(*) FROM t").await, "0");
}

/// The binary form must carry every value over unchanged, also through a server that did not write it.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn binary_goes_out_and_comes_in_again() {
    let (_server, session) = table().await;
    let text = "2024-01-01 00:00:00+00\t1\tplain\t1.5\n\
                2024-01-09 00:00:00.000001+00\t\\N\t\t-0.25\n\
                2024-01-25 00:00:00+00\t-4\t\\N\tNaN\n";
    copy_in(&session, "COPY t FROM STDIN", &[text]).await.unwrap();
    let sql = format!("COPY ({ROWS}) TO STDOUT (FORMAT binary)");
    let stream = session.client.copy_out(&sql).await.unwrap();
    let bytes = stream.map(|piece| piece.unwrap()).collect::<Vec<_>>().await.concat();
    assert!(bytes.starts_with(b"PGCOPY\n\xff\r\n\0"));
    session.run("TRUNCATE t").await;
    let mut sink = pin!(session.client.copy_in::<_, Bytes>("COPY t FROM STDIN BINARY").await.unwrap());
    for piece in bytes.chunks(10) {
        sink.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 3);
    assert_eq!(copy_out(&session, &format!("COPY ({ROWS}) TO STDOUT")).await, text);
}
