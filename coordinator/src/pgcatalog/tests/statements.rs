//! The language: statements and PostgreSQL 15's answers to them, in the form of the psql fixture; and errors.

use super::*;

const FIXTURE: &str = include_str!("../fixtures/statements.txt");

#[test]
fn statements_give_postgres_rows() {
    let catalog = Tutorial::recorded();
    let mut wrong = Vec::new();
    for entry in FIXTURE.split("### ").skip(1) {
        let (_, rest) = entry.split_once('\n').unwrap();
        let (sql, answer) = rest.split_once("\n---\n").unwrap();
        let expected: Vec<&str> = answer.trim_end_matches('\n').lines().collect();
        match try_run(&catalog, sql) {
            Err(error) => wrong.push(format!("{sql}\n{error}")),
            Ok(set) => {
                let own = lines(&catalog, &set);
                if own != expected {
                    wrong.push(format!("{sql}\nexpected {expected:#?}\ngot {own:#?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn a_users_mistake_is_an_error_with_postgres_code() {
    let catalog = Tutorial::recorded();
    let code = |sql: &str| try_run(&catalog, sql).unwrap_err().code.to_string();
    assert_eq!(code("SELECT nope FROM pg_class"), "42703");
    assert_eq!(code("SELECT c.nope FROM pg_class c"), "42703");
    assert_eq!(code("SELECT d.oid FROM pg_class c"), "42P01");
    assert_eq!(code("SELECT oid FROM pg_class, pg_namespace"), "42702");
    assert_eq!(code("SELECT nope(1) FROM pg_class"), "42883");
    assert_eq!(code("SELECT 'nope'::regclass"), "42P01");
    assert_eq!(code("SELECT 'nope'::regtype"), "42704");
    assert_eq!(code("SELECT oid::nope FROM pg_class"), "42704");
    assert_eq!(code("SELECT * FROM pg_class WHERE oid = 'x'"), "22P02");
    assert_eq!(code("SELECT * FROM pg_class WHERE relname = 1"), "42883");
    assert_eq!(code("SELECT * FROM pg_class WHERE relname"), "42804");
    assert_eq!(code("SELECT (SELECT oid FROM pg_class) FROM pg_am"), "21000");
    assert_eq!(code("SELECT current_setting('no.such')"), "42704");
    assert_eq!(code("SELECT 1 / 0 FROM pg_am"), "22012");
    assert_eq!(code("SELECT oid FROM pg_am WHERE count(*) > 1"), "42803");
    assert_eq!(code("SELECT oid FROM pg_am UNION SELECT oid, amname FROM pg_am"), "42601");
    assert_eq!(
        code("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT current_user FROM r"),
        "54000"
    );
    let sum = "1".to_owned() + &"+1".repeat(300);
    assert_eq!(code(&format!("SELECT {sum} FROM pg_am")), "54001");
}

#[test]
fn what_is_not_known_here_answers_with_no_rows() {
    let catalog = Tutorial::recorded();
    assert_eq!(run_lines(&catalog, "SELECT a, x.b FROM pg_catalog.pg_future x WHERE c > 1"), ["a|b"]);
    assert_eq!(run_lines(&catalog, "SELECT nspname, pg_catalog.pg_future(oid) AS y FROM pg_namespace"), ["nspname|y"]);
    assert_eq!(run_lines(&catalog, "SELECT oid FROM pg_am GROUP BY ROLLUP (oid)"), ["oid"]);
    assert_eq!(run_lines(&catalog, "SELECT * FROM pg_sequences").len(), 1);
    // Nobody's transaction is at stake where nothing is read: that is an error.
    assert_eq!(try_run(&catalog, "SELECT pg_catalog.pg_future(1), current_user").unwrap_err().code.as_str(), "0A000");
}

#[test]
fn long_conjunctions_are_no_depth() {
    let many = (0..1000).map(|n| format!("oid <> {n}")).collect::<Vec<_>>().join(" AND ");
    let sql = format!("SELECT count(*) FROM pg_am WHERE {many}");
    // The depth of the syntax itself is the session's to limit.
    let rows = std::thread::Builder::new().stack_size(64 << 20).spawn(move || run_rows(&Tutorial::recorded(), &sql));
    assert_eq!(rows.unwrap().join().unwrap(), ["3"]);
}

#[test]
fn parameters_take_the_type_of_what_they_meet() {
    let statement =
        parse("SELECT $1::text, relname FROM pg_class WHERE oid = $2 AND relkind = ANY ($3) AND relnatts > $4");
    let calls = fake::Calls::default();
    let described = describe(&statement, &calls, &[]).unwrap();
    let expected = [PgType::Text, PgType::Oid, PgType::Array(Box::new(PgType::Char)), PgType::Int2];
    assert_eq!(described.params, expected);
    let values = [Value::text("x"), Value::text("16433"), Value::texts(["r"]), Value::Int(1)];
    let mut calls = calls;
    let set = execute(&statement, &Tutorial::recorded(), &mut calls, &described.params, &values).unwrap();
    assert_eq!(lines(&Tutorial::recorded(), &set), ["text|relname", "x|conditions"]);
}

#[test]
fn routing_by_what_is_read() {
    let user = |_: Option<&str>, name: &str| name == "conditions";
    let host = |name: &str| name == "add_data_node";
    let ours = |sql: &str| handles(&parse(sql), &user, &host);
    assert!(ours("SELECT * FROM pg_class"));
    assert!(ours("SELECT * FROM information_schema.tables, timescaledb_information.chunks"));
    assert!(ours("WITH x AS (SELECT 1) SELECT * FROM x, pg_am"));
    assert!(ours("SELECT current_user") && ours("SELECT version()") && ours("SELECT user"));
    assert!(ours("SELECT 'conditions'::regclass::oid"));
    assert!(ours("SELECT add_data_node('dn1')") && ours("SELECT * FROM add_data_node('dn1')"));
    assert!(!ours("SELECT * FROM conditions"));
    assert!(!ours("SELECT * FROM conditions JOIN pg_am ON true"));
    assert!(!ours("SELECT * FROM nobody"));
    assert!(!ours("SELECT 1") && !ours("SELECT lower('A')") && !ours("SELECT * FROM generate_series(1, 3)"));
    assert!(!ours("INSERT INTO conditions SELECT oid FROM pg_am"));
}

#[test]
fn constant_calls_fold_into_a_planners_statement() {
    let catalog = Tutorial::recorded();
    let folded = |sql: &str| {
        let mut statement = parse(sql);
        fold_constant_calls(&mut statement, &catalog).unwrap();
        statement.to_string()
    };
    assert_eq!(
        folded("SELECT current_user, count(*) FROM conditions"),
        "SELECT 'postgres' AS \"current_user\", count(*) FROM conditions"
    );
    assert_eq!(
        folded("SELECT 1 FROM t WHERE a = 'conditions'::regclass::oid AND b = current_setting('TimeZone') || 'x'"),
        "SELECT 1 FROM t WHERE a = 16433 AND b = 'UTCx'"
    );
    assert_eq!(
        folded("SELECT pg_backend_pid(), lower(a) FROM t"),
        "SELECT 42::INT AS \"pg_backend_pid\", lower(a) FROM t"
    );
    assert_eq!(folded("SELECT obj_description(a) FROM t"), "SELECT obj_description(a) FROM t");
}

#[test]
fn session_functions_run_once_for_each_row_and_never_for_a_description() {
    let catalog = Tutorial::recorded();
    let mut calls = fake::Calls::default();
    let statement =
        parse("SELECT create_distributed_hypertable('conditions', 'time', partitioning_column => 'device')");
    let described = describe(&statement, &calls, &[]).unwrap();
    assert_eq!(described.columns, [("create_distributed_hypertable".to_owned(), PgType::Record)]);
    assert!(calls.made.is_empty());
    let set = execute(&statement, &catalog, &mut calls, &[], &[]).unwrap();
    assert_eq!(lines(&catalog, &set), ["create_distributed_hypertable", "(1,public,conditions,t)"]);
    assert_eq!(
        calls.made,
        [r#"create_distributed_hypertable(Text("conditions"), Text("time"), partitioning_column=>Text("device"))"#]
    );
    assert_eq!(
        run_lines(&catalog, "SELECT * FROM create_distributed_hypertable('conditions', 'time')"),
        ["hypertable_id|schema_name|table_name|created", "1|public|conditions|t"]
    );
    assert_eq!(
        run_lines(&catalog, "SELECT (create_distributed_hypertable('conditions', 'time')).created"),
        ["created", "t"]
    );
    assert_eq!(
        run_rows(&catalog, "SELECT show_chunks('conditions')"),
        ["_timescaledb_internal._dist_hyper_1_1_chunk", "_timescaledb_internal._dist_hyper_1_2_chunk"]
    );
    assert_eq!(
        run_rows(&catalog, "SELECT current_setting('TimeZone') AS cur, set_config('jit', 'off', false) AS new"),
        ["UTC|off"]
    );
    let called = execute(&parse("CALL distributed_exec($$ SELECT 1 $$)"), &catalog, &mut calls, &[], &[]).unwrap();
    assert!(called.columns.is_empty() && called.rows.is_empty());
    assert_eq!(calls.made.last().unwrap(), r#"distributed_exec(Text(" SELECT 1 "))"#);
}
