//! Savepoints as drivers use them: psql's ON_ERROR_ROLLBACK in simple queries, JDBC's autosave in extended ones. Tags,
//! codes and statuses are PostgreSQL's.

use super::{raw_login, server_with_readings, tags};
use crate::cluster::{Message, RawClient};

/// What each message says, a word each: a tag of a command, an error's code, the status at the end.
fn said(messages: &[Message]) -> String {
    let words = messages.iter().filter_map(|message| match message.tag {
        'C' => Some(message.text()),
        'E' => message.field('C'),
        'Z' => Some(format!("[{}]", message.body[0] as char)),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" ")
}

fn simple(client: &mut RawClient, sql: &str) -> String {
    client.query(sql);
    said(&client.read_until('Z'))
}

fn extended(client: &mut RawClient, sql: &str) -> String {
    client.parse("", sql, &[]);
    client.bind("", "", &[], false);
    client.execute("", 0);
    client.sync();
    said(&client.read_until('Z'))
}

const ROW: &str = "INSERT INTO readings VALUES ('2025-01-01', 1, 1, 'x')";
const COUNT: &str = "SELECT 1 FROM readings WHERE note = 'x'";

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_block_is_mended_over_both_protocols() {
    let server = server_with_readings().await;
    for say in [simple, extended] {
        let (mut client, _) = raw_login(&server);
        let steps = [
            ("SAVEPOINT s", "25P01 [I]"),
            ("ROLLBACK TO s", "25P01 [I]"),
            ("RELEASE s", "25P01 [I]"),
            ("BEGIN", "BEGIN [T]"),
            ("SAVEPOINT s", "SAVEPOINT [T]"),
            (ROW, "INSERT 0 1 [T]"),
            ("SELECT 1 / 0", "22012 [E]"),
            ("SAVEPOINT r", "25P02 [E]"),
            ("ROLLBACK TO r", "3B001 [E]"),
            ("ROLLBACK TO s", "ROLLBACK [T]"),
            (COUNT, "SELECT 0 [T]"),
            (ROW, "INSERT 0 1 [T]"),
            ("RELEASE SAVEPOINT s", "RELEASE [T]"),
            (COUNT, "SELECT 1 [T]"),
            ("nonsense", "42601 [E]"),
            ("ROLLBACK TO s", "3B001 [E]"),
            ("COMMIT", "ROLLBACK [I]"),
            (COUNT, "SELECT 0 [I]"),
        ];
        for (sql, expected) in steps {
            assert_eq!(say(&mut client, sql), expected, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_query_string_may_hold_a_whole_block() {
    let server = server_with_readings().await;
    let (mut client, _) = raw_login(&server);
    let whole = format!("BEGIN; SAVEPOINT s; {ROW}; ROLLBACK TO s; {ROW}; SAVEPOINT s; {ROW}; RELEASE s; COMMIT");
    let answer = "BEGIN SAVEPOINT INSERT 0 1 ROLLBACK INSERT 0 1 SAVEPOINT INSERT 0 1 RELEASE COMMIT [I]";
    assert_eq!(simple(&mut client, &whole), answer);
    assert_eq!(simple(&mut client, COUNT), "SELECT 2 [I]");
    assert_eq!(simple(&mut client, &format!("{ROW}; SAVEPOINT s")), "INSERT 0 1 25P01 [I]");
    assert_eq!(simple(&mut client, COUNT), "SELECT 2 [I]");
    let cut = format!("BEGIN; {ROW}; SAVEPOINT s; {ROW}; SELECT 1/0; ROLLBACK TO s");
    assert_eq!(simple(&mut client, &cut), "BEGIN INSERT 0 1 SAVEPOINT INSERT 0 1 22012 [E]");
    assert_eq!(simple(&mut client, "ROLLBACK TO s; COMMIT"), "ROLLBACK COMMIT [I]");
    assert_eq!(simple(&mut client, COUNT), "SELECT 3 [I]");
}

/// JDBC with autosave sets one of the same name before each statement, and never releases it.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_driver_saves_before_each_statement() {
    let server = server_with_readings().await;
    let (mut client, _) = raw_login(&server);
    client.query("BEGIN");
    client.read_until('Z');
    for number in 0..20 {
        let sql = if number % 3 == 0 { "SELECT 1 / 0" } else { ROW };
        for sql in ["SAVEPOINT autosave", sql] {
            client.parse("", sql, &[]);
            client.bind("", "", &[], false);
            client.execute("", 0);
        }
        client.sync();
        let answer = said(&client.read_until('Z'));
        match number % 3 {
            0 => {
                assert_eq!(answer, "SAVEPOINT 22012 [E]");
                assert_eq!(extended(&mut client, "ROLLBACK TO SAVEPOINT autosave"), "ROLLBACK [T]");
            }
            _ => assert_eq!(answer, "SAVEPOINT INSERT 0 1 [T]"),
        }
    }
    assert_eq!(extended(&mut client, "COMMIT"), "COMMIT [I]");
    assert_eq!(simple(&mut client, COUNT), "SELECT 13 [I]");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn portals_of_before_the_savepoint_stay_open() {
    let server = server_with_readings().await;
    let (mut client, _) = raw_login(&server);
    assert_eq!(simple(&mut client, "BEGIN"), "BEGIN [T]");
    let open = |client: &mut RawClient, portal: &str| {
        client.parse("", "SELECT n FROM generate_series(1, 9) AS n", &[]);
        client.bind(portal, "", &[], false);
        client.execute(portal, 2);
        client.sync();
        assert_eq!(tags(&client.read_until('Z')), "12DDsZ");
    };
    let fetch = |client: &mut RawClient, portal: &str| {
        client.execute(portal, 2);
        client.sync();
        let messages = client.read_until('Z');
        format!("{} {}", tags(&messages), said(&messages))
    };
    open(&mut client, "before");
    assert_eq!(simple(&mut client, "SAVEPOINT s"), "SAVEPOINT [T]");
    open(&mut client, "behind");
    assert_eq!(fetch(&mut client, "behind"), "DDsZ [T]");
    assert_eq!(simple(&mut client, "SELECT 1 / 0"), "22012 [E]");
    assert_eq!(simple(&mut client, "ROLLBACK TO s"), "ROLLBACK [T]");
    assert_eq!(fetch(&mut client, "before"), "DDsZ [T]");
    assert_eq!(fetch(&mut client, "behind"), "EZ 34000 [E]");
    assert_eq!(simple(&mut client, "ROLLBACK TO s"), "ROLLBACK [T]");
    open(&mut client, "behind");
    assert_eq!(simple(&mut client, "ROLLBACK TO s"), "ROLLBACK [T]");
    assert_eq!(fetch(&mut client, "behind"), "EZ 34000 [E]");
    assert_eq!(simple(&mut client, "ROLLBACK TO s"), "ROLLBACK [T]");
    assert_eq!(fetch(&mut client, "before"), "DDsZ [T]");
    assert_eq!(simple(&mut client, "COMMIT"), "COMMIT [I]");
}
