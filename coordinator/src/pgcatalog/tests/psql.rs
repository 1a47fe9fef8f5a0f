//! What psql 15 sends for its backslash commands, and PostgreSQL 15's rows for it on a server set up as the tutorial's
//! (plain inheritance and foreign tables in TimescaleDB's place). The fixture holds both: `### command #n`, the
//! statement, `---`, then the answer.

use super::*;
use crate::pgcatalog::tests::fake::{CONDITIONS, DEVICES, WARM};

const FIXTURE: &str = include_str!("../fixtures/psql15.txt");

/// The recording server's OID of the first chunk; ours is derived from the chunk's number.
const RECORDED_CHUNK: &str = "16440";
const OWN_CHUNK: &str = "1073741825";

/// Commands whose rows differ for a reason: only names and success are compared.
const ONLY_NAMES: &[(&str, &str)] = &[
    (r"\l+", "database sizes"),
    (r"\sv", "the text of views is kept as it was written"),
    (r"\dC", "casts are not listed"),
    (r"\dc", "conversions are not listed"),
    (r"\dL", "languages have no recorded comments"),
    (r"\dO", "only three collations are listed"),
    (r"\dconfig", "settings are the session's"),
];

struct Recorded<'a> {
    command: &'a str,
    sql: String,
    answer: Vec<String>,
}

fn recorded() -> Vec<Recorded<'static>> {
    let entries = FIXTURE.split("### ").skip(1).map(|entry| {
        let (command, rest) = entry.split_once('\n').unwrap();
        let (sql, answer) = rest.split_once("\n---\n").unwrap();
        let own = |text: &str| text.replace(RECORDED_CHUNK, OWN_CHUNK);
        Recorded { command, sql: own(sql), answer: answer.trim_end_matches('\n').lines().map(own).collect() }
    });
    entries.collect()
}

#[test]
fn psql_sees_what_postgres_shows() {
    let catalog = Tutorial::recorded();
    assert!([CONDITIONS, DEVICES, WARM].iter().all(|oid| FIXTURE.contains(&oid.to_string())));
    let mut wrong = Vec::new();
    for entry in recorded() {
        let exempt = ONLY_NAMES.iter().any(|(command, _)| entry.command.split(' ').next() == Some(command));
        let set = match try_run(&catalog, &entry.sql) {
            Ok(set) => set,
            Err(error) => {
                wrong.push(format!("{}: {error}\n{}", entry.command, entry.sql));
                continue;
            }
        };
        let (mut own, mut expected) = (lines(&catalog, &set), entry.answer.clone());
        if exempt {
            own.truncate(1);
            expected.truncate(1);
        }
        if own != expected {
            wrong.push(format!("{}\n{}\nexpected {expected:#?}\ngot {own:#?}", entry.command, entry.sql));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), recorded().len(), wrong.join("\n\n"));
}

#[test]
fn psql_statements_are_ours_and_described_without_running() {
    let mut calls = fake::Calls::default();
    for entry in recorded() {
        let statement = parse(&entry.sql);
        assert!(handles(&statement, &|_, name| name == "conditions", &|_| false), "{}", entry.sql);
        let described = describe(&statement, &calls, &[]).unwrap();
        let run = execute(&statement, &Tutorial::recorded(), &mut calls, &[], &[]).unwrap();
        assert_eq!(described.columns, run.columns, "{}", entry.sql);
    }
    assert!(calls.made.is_empty());
}
