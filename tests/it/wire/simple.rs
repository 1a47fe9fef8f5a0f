//! The simple protocol: tags, several statements at once, errors, blocks, notices.

use super::{raw_login, server_with_readings, tags};
use crate::cluster::{Message, Server};

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn command_tags_are_postgres_own() {
    let server = Server::start().await;
    let (mut client, _) = raw_login(&server);
    let cases = [
        ("CREATE TABLE tags (x integer)", "CREATE TABLE"),
        ("INSERT INTO tags VALUES (1), (2)", "INSERT 0 2"),
        ("SELECT * FROM tags", "SELECT 2"),
        ("VALUES (1)", "SELECT 1"),
        ("BEGIN", "BEGIN"),
        ("COMMIT", "COMMIT"),
        ("START TRANSACTION", "START TRANSACTION"),
        ("ROLLBACK", "ROLLBACK"),
        ("SET application_name = 'x'", "SET"),
        ("SHOW application_name", "SHOW"),
        ("RESET application_name", "RESET"),
        ("TRUNCATE tags", "TRUNCATE TABLE"),
        ("ALTER TABLE tags ADD COLUMN y integer", "ALTER TABLE"),
        ("CREATE VIEW tags_view AS SELECT 1 AS one", "CREATE VIEW"),
        ("DROP VIEW tags_view", "DROP VIEW"),
        ("CREATE SCHEMA tags_schema", "CREATE SCHEMA"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("EXECUTE p", "SELECT 1"),
        ("DEALLOCATE p", "DEALLOCATE"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("DISCARD ALL", "DISCARD ALL"),
        ("DROP TABLE tags", "DROP TABLE"),
    ];
    for (sql, tag) in cases {
        client.query(sql);
        let messages = client.read_until('Z');
        let complete = messages.iter().find(|m| m.tag == 'C').unwrap_or_else(|| panic!("{sql}: {messages:?}"));
        assert_eq!(complete.text(), tag, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn several_statements_answer_in_order_and_stop_at_the_first_error() {
    let server = Server::start().await;
    let (mut client, _) = raw_login(&server);
    client.query("SELECT 1; SELECT 2 WHERE false; SELECT 3");
    assert_eq!(tags(&client.read_until('Z')), "TDCTCTDCZ");
    client.query("");
    assert_eq!(tags(&client.read_until('Z')), "IZ");
    client.query(" ; -- nothing\n ;");
    assert_eq!(tags(&client.read_until('Z')), "IZ");
    client.query("SELECT 1; SELECT 1/0; SELECT 2");
    let messages = client.read_until('Z');
    assert_eq!(tags(&messages).replace('T', ""), "DCEZ");
    assert_eq!(messages[messages.len() - 2].field('C').as_deref(), Some("22012"));
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn statements_sent_together_are_one_transaction() {
    let server = server_with_readings().await;
    let session = server.connect().await;
    let two = "INSERT INTO readings VALUES ('2024-06-01', 1, 1, 'x'); INSERT INTO readings VALUES (NULL, 1, 1, 'y')";
    assert_eq!(session.error(two).await.code().code(), "23502");
    assert_eq!(session.value("SELECT count(*) FROM readings").await, "1000");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn errors_carry_severity_code_message_and_position() {
    let server = Server::start().await;
    let (mut client, _) = raw_login(&server);
    let cases = [
        ("SELECT nope", "42703", "column \"nope\" does not exist", Some("8")),
        ("SELECT * FROM nowhere", "42P01", "relation \"nowhere\" does not exist", Some("15")),
        ("SELEC 1", "42601", "syntax error at or near \"SELEC\"", Some("1")),
        ("SELECT 1/0", "22012", "division by zero", None),
    ];
    for (sql, code, message, position) in cases {
        client.query(sql);
        let messages = client.read_until('Z');
        let error = messages.iter().find(|m| m.tag == 'E').unwrap_or_else(|| panic!("{sql}: {messages:?}"));
        assert_eq!(error.field('S').as_deref(), Some("ERROR"), "{sql}");
        assert_eq!(error.field('V').as_deref(), Some("ERROR"), "{sql}");
        assert_eq!(error.field('C').as_deref(), Some(code), "{sql}");
        assert_eq!(error.field('M').as_deref(), Some(message), "{sql}");
        assert_eq!(error.field('P').as_deref(), position, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_failed_block_refuses_statements_until_it_ends() {
    let server = Server::start().await;
    let (mut client, _) = raw_login(&server);
    let mut state_after = |sql: &str| {
        client.query(sql);
        let messages = client.read_until('Z');
        let code = messages.iter().find(|m| m.tag == 'E').and_then(|m| m.field('C'));
        let tag = messages.iter().find(|m| m.tag == 'C').map(Message::text);
        (code.or(tag).expect("an answer"), messages.last().expect("ReadyForQuery").body[0] as char)
    };
    assert_eq!(state_after("BEGIN"), ("BEGIN".to_owned(), 'T'));
    assert_eq!(state_after("SELECT 1/0"), ("22012".to_owned(), 'E'));
    assert_eq!(state_after("SELECT 1"), ("25P02".to_owned(), 'E'));
    assert_eq!(state_after("COMMIT"), ("ROLLBACK".to_owned(), 'I'));
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn notices_come_before_the_result() {
    let server = Server::start().await;
    let session = server.connect().await;
    session.run("DROP TABLE IF EXISTS nowhere").await;
    let notices = session.take_notices();
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].message(), "table \"nowhere\" does not exist, skipping");
    assert_eq!((notices[0].severity(), notices[0].code().code()), ("NOTICE", "00000"));
    session.run("COMMIT").await;
    let notices = session.take_notices();
    assert_eq!(notices[0].message(), "there is no transaction in progress");
    assert_eq!((notices[0].severity(), notices[0].code().code()), ("WARNING", "25P01"));
}
