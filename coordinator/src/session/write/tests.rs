//! VALUES of constants both ways: straight into columns, and through a query. Whatever the statement, the rows and the
//! errors must be the same.

use super::insert::{Way, values_both_ways};
use super::{Write, WritePlan, prepare_by};
use crate::pg::Cancels;
use crate::pg::backend::{Conversation, Startup};
use crate::session::parse::{Command, parse};
use crate::session::{Front, FrontOptions, Session};
use crate::txn::tests::World;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::Statement;
use engine::PgType;
use engine::plan::{Engine, EngineOptions};
use engine::types::{TimeContext, parse_scalar};
use proto::{Clock, Error, Result, Rng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

struct StoppedClock;

impl Clock for StoppedClock {
    fn now_us(&self) -> i64 {
        1_700_000_000_123_456
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

struct NoRng;

impl Rng for NoRng {
    fn next_u64(&self) -> u64 {
        7
    }
}

async fn session() -> (World, Session) {
    let (world, cluster, _) = World::with_table(1).await;
    let clock = Arc::new(StoppedClock);
    let engine = Engine::new(&EngineOptions::default(), clock.clone());
    let options = FrontOptions { trust: true, port: 0, partitions: 1 };
    let cancels = Cancels::new(Arc::new(NoRng));
    let front = Front::new(cluster, engine, clock, Arc::new(NoRng), cancels, options);
    let startup = Startup {
        user: "postgres".to_owned(),
        database: "postgres".to_owned(),
        options: BTreeMap::new(),
        peer: None,
        pid: 1,
    };
    let mut session = front.open(startup).unwrap();
    run(
        &mut session,
        "CREATE TABLE t (b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, n52 numeric(5,2), s text,
                         v varchar(3), c char(3), y bytea, u uuid, j json, jb jsonb, d date, h time, ts timestamp,
                         tz timestamptz, iv interval, a int4[], sa text[]);
         CREATE TABLE d (id int NOT NULL DEFAULT 7, at timestamptz DEFAULT now(), note text DEFAULT 'none',
                         short varchar(4) DEFAULT 'abcd', share numeric(4,1) DEFAULT -2.25, of date DEFAULT '2024-02-29',
                         plain float8);
         CREATE TABLE r (id int, chance float8 DEFAULT random(), len int DEFAULT length('abc'))",
    )
    .await;
    (world, session)
}

async fn run(session: &mut Session, sql: &str) {
    for statement in session.parse(sql).unwrap() {
        let prepared = session.prepare(&statement, &[]).await.unwrap();
        session.execute(&prepared, Vec::new()).await.map(drop).unwrap();
    }
    session.sync().await.unwrap();
}

fn parsed(sql: &str) -> Statement {
    let Some(Command::Sql(statement)) = parse(sql).unwrap().pop().map(|parsed| parsed.command) else { panic!("{sql}") };
    statement
}

/// What became of a statement: the types of its parameters, its rows.
type Made = Result<(Vec<PgType>, RecordBatch)>;

/// Parameters as the client types them (`None` leaves it to the server), and their values as text.
type Params<'a> = &'a [(Option<PgType>, Option<&'a str>)];

async fn made(session: &mut Session, sql: &str, params: Params<'_>, way: Way) -> (bool, Made) {
    let statement = parsed(sql);
    let write = Write::of(&statement).unwrap().unwrap();
    let variables = session.variables.clone();
    session.block.enter(&variables, StoppedClock.now_us());
    let declared = params.iter().map(|(ty, _)| ty.clone()).collect::<Vec<_>>();
    let plan = match prepare_by(session, &write, &declared, way).await {
        Ok(WritePlan::Insert(plan)) => plan,
        Ok(WritePlan::Change(_)) => panic!("{sql}"),
        Err(error) => return (false, Err(error)),
    };
    let is_direct = plan.query().is_none();
    let types = plan.params();
    let context = TimeContext::of_session(&session.settings()).unwrap();
    let values = types.iter().zip(params).map(|(ty, (_, text))| match text {
        Some(text) => parse_scalar(ty, text, &context),
        None => ScalarValue::try_from(ty.arrow()).map_err(|error| Error::internal(error.to_string())),
    });
    let values = values.collect::<Result<Vec<_>>>().unwrap();
    let rows = values_both_ways(session, super::inserted(&statement).unwrap(), &plan, &values).await;
    (is_direct, rows.map(|rows| (types, rows)))
}

/// What keeps a query from rows that PostgreSQL takes: it finds one type for each column of VALUES, where PostgreSQL
/// brings each value to its column.
const QUERY_DEFECTS: [&str; 2] = ["value overflows numeric format", "Inconsistent metadata across values list"];

/// Whether the statement took the short way.
async fn check(session: &mut Session, sql: &str, params: Params<'_>) -> bool {
    let (is_direct, short) = made(session, sql, params, Way::Shortest).await;
    let (by_query, long) = made(session, sql, params, Way::Query).await;
    assert!(!by_query);
    match (short, long) {
        (_, Err(error)) if QUERY_DEFECTS.iter().any(|text| error.message.starts_with(text)) => {}
        (Ok(short), Ok(long)) => assert_eq!(short, long, "{sql}"),
        (Err(short), Err(long)) => {
            let told = |error: Error| (error.code, error.message, error.detail, error.hint);
            assert_eq!(told(short), told(long), "{sql}");
        }
        (short, long) => panic!("{sql}: {short:?} is not {long:?}"),
    }
    is_direct
}

/// Per column: cells that need no query, and cells of all kinds.
const CELLS: &[(&str, &[&str], &[&str])] = &[
    (
        "b",
        &["true", "FALSE", "'t'", "'off'", "NULL", "DEFAULT", "'yes'::bool"],
        &["1", "0", "'x'", "1.5", "1::bool", "-1", "now()", "(true)"],
    ),
    (
        "i2",
        &["1", "-1", "'7'", "' 8 '", "32767", "-32768", "'5'::int2", "6::smallint", "007"],
        &["32768", "1.5", "'x'", "true", "1e2", "-1.5", "'99999'", "1+1", "3000000000", "now()", "+4", "''"],
    ),
    (
        "i4",
        &["2147483647", "-2147483648", "'1'", "INT '9'", "'5'::integer", "NULL::int"],
        &[
            "2147483648",
            "2.5",
            "3.5",
            "-2.5",
            "'1.5'",
            "'5'::int8",
            "'x'::int",
            "1e1",
            "99999999999999999999",
            "5::numeric",
            "2.5::float8",
            "false",
        ],
    ),
    (
        "i8",
        &["9223372036854775807", "-9223372036854775808", "'12'", "3"],
        &["9223372036854775808", "1e3", "0.5", "'5'::int4", "1::int4", "1_000"],
    ),
    (
        "f4",
        &["1", "-1.5", "'1e10'", "1.25e3", "'NaN'", "'-Infinity'", "0.1", "16777217", "-0.0"],
        &["1e39", "1e-60", "'x'", "'1e50'", "true", "1.5::float8", "DATE '2024-01-01'"],
    ),
    (
        "f8",
        &[
            "1",
            "-1.5",
            "'1e300'",
            "1.25e3",
            "'inf'",
            "0.1",
            "123456.789012",
            "9007199254740993",
            "-0.0",
            "5::float8",
            "1.5::float8",
        ],
        &["'x'", "'1e999'", "true", "1/3.0", "now()", "1.5::float4", "1.5::numeric"],
    ),
    (
        "n",
        &["1", "1.5", "-1.50", "'123.456'", "0.0000000000000001", "12345678901234567890", "1e3", "1.5e-3"],
        &["'NaN'", "'x'", "99999999999999999999999999", "true", "1.5::numeric(5,1)", "now()"],
    ),
    (
        "n52",
        &["1", "1.555", "-1.555", "1.005", "'999.99'", "123.456", "'5.5'::numeric(5,2)", "1e2"],
        &["1000", "999.995", "'1e5'", "'x'", "123456.7"],
    ),
    (
        "s",
        &["'a'", "''", "E'a\\nb'", "$$x$$", "$q$it's$q$", "5", "'it''s'", "'ü'::text", "TEXT 'y'"],
        &["1.50", "-5", "true", "007", "now()", "'2024-01-01'::date", "U&'\\0041'", "1e3", "X'1F'", "'a' || 'b'"],
    ),
    ("v", &["'abc'", "'ab   '", "''", "123"], &["'abcd'", "'abcdef'::varchar(3)", "1234", "true", "'a'::text"]),
    ("c", &["'a'", "'abc  '", "12"], &["'abcd'", "'abcd'::char(3)", "'a'::text"]),
    ("y", &["'\\x00ff'", "'abc'", "'\\\\'", "'\\x41'::bytea"], &["'\\xq'", "1", "true"]),
    (
        "u",
        &[
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'",
            "UUID 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        ],
        &["'x'", "1", "lower('X')"],
    ),
    ("j", &["'{\"a\":  1}'", "'[1, 2]'", "'null'"], &["'{'", "1", "'{\"a\": 1}'::jsonb"]),
    ("jb", &["'{\"b\":  1, \"a\": 2}'", "'[1,2]'", "'{\"x\":1}'::jsonb"], &["'{'", "true"]),
    (
        "d",
        &["'2024-01-31'", "'Jan 8, 1999'", "'infinity'", "DATE '2024-02-29'", "'today'", "'2024-03-01'::date"],
        &["'2024-02-30'", "1", "now()", "'2024-01-01'::timestamp", "'x'", "CURRENT_DATE"],
    ),
    ("h", &["'12:34:56.789'", "'04:05 PM'", "TIME '01:02'"], &["'25:00'", "1", "'x'", "'2024-01-01 10:00'::timestamp"]),
    (
        "ts",
        &[
            "'2024-01-31 12:00:00.5'",
            "'-infinity'",
            "TIMESTAMP '2024-01-01'",
            "'2024-01-01'::timestamp",
            "'2024-03-31 02:30'",
        ],
        &[
            "'x'",
            "1",
            "now()",
            "'2024-01-01'::date",
            "'2024-01-01'::timestamptz",
            "'2024-13-01'",
            "'2024-01-01 00:00:00.6'::timestamp(0)",
        ],
    ),
    (
        "tz",
        &[
            "'2024-01-31 12:00:00+02'",
            "'2024-07-01'",
            "now()",
            "CURRENT_TIMESTAMP",
            "transaction_timestamp()",
            "'now'",
            "'yesterday'",
            "TIMESTAMPTZ '2024-01-01 00:00+01'",
            "'2024-01-01'::timestamptz",
            "'infinity'",
            "'2024-01-01'::timestamp with time zone",
            "'1999-01-08 04:05:06 America/New_York'",
        ],
        &[
            "'x'",
            "1",
            "-1",
            "1.5",
            "true",
            "now() - interval '1 day'",
            "'2024-01-01'::date",
            "'2024-01-01'::timestamp",
            "now()::date",
            "CURRENT_TIMESTAMP(0)",
            "'0000-01-01'",
        ],
    ),
    (
        "iv",
        &["'1 day'", "INTERVAL '1 hour 30 min'", "'P1DT2H'", "'1 mon -3 days'::interval"],
        &["'x'", "1", "INTERVAL '1' HOUR", "interval '1 day' * 2"],
    ),
    ("a", &["'{1,2,NULL}'", "'{}'", "NULL", "'{3}'::int[]"], &["ARRAY[1,2]", "'{1,x}'", "'1'", "1", "ARRAY[]::int[]"]),
    ("sa", &["'{a,\"b c\"}'", "'{}'"], &["ARRAY['a']", "'{'"]),
];

/// Beside texts: a query would make numbers of them all.
fn stands_beside(column: &str, cell: &str) -> bool {
    !matches!(column, "s" | "v" | "c") || cell.parse::<f64>().is_err()
}

#[tokio::test]
async fn a_constant_comes_out_as_a_query_would_bring_it() {
    let (_world, mut session) = session().await;
    for zone in ["UTC", "Europe/Berlin"] {
        run(&mut session, &format!("SET TimeZone = '{zone}'")).await;
        for (column, direct, others) in CELLS {
            for cell in *direct {
                let sql = format!("INSERT INTO t ({column}) VALUES ({cell})");
                assert!(check(&mut session, &sql, &[]).await, "{sql} takes a query");
            }
            for cell in *others {
                check(&mut session, &format!("INSERT INTO t ({column}) VALUES ({cell})"), &[]).await;
                if !stands_beside(column, cell) {
                    continue;
                }
                // After one that fits, and before it.
                let first = direct[0];
                check(&mut session, &format!("INSERT INTO t ({column}) VALUES ({first}), ({cell})"), &[]).await;
                check(&mut session, &format!("INSERT INTO t ({column}) VALUES ({cell}), ({first})"), &[]).await;
            }
            let all = direct.iter().filter(|cell| stands_beside(column, cell));
            let all = all.map(|cell| format!("({cell})")).collect::<Vec<_>>().join(", ");
            check(&mut session, &format!("INSERT INTO t ({column}) VALUES {all}"), &[]).await;
        }
    }
}

#[tokio::test]
async fn statements_of_all_shapes_come_out_the_same_both_ways() {
    let (_world, mut session) = session().await;
    for (sql, is_direct) in [
        ("INSERT INTO d VALUES (1)", true),
        ("INSERT INTO d DEFAULT VALUES", true),
        ("INSERT INTO d (note, id) VALUES ('x', 1), (DEFAULT, 2), (NULL, DEFAULT)", true),
        ("INSERT INTO d (id, at, share) VALUES (1, DEFAULT, DEFAULT)", true),
        ("INSERT INTO d AS x (id) VALUES (1)", true),
        ("INSERT INTO public.d (id, plain) VALUES (1, 2.5)", true),
        ("INSERT INTO d (id, id) VALUES (1, 2)", false),
        ("INSERT INTO d (id, nope) VALUES (1, 2)", false),
        ("INSERT INTO d (id) VALUES (1, 2)", false),
        ("INSERT INTO d (id, note) VALUES (1)", false),
        ("INSERT INTO d VALUES (1, now(), 'a', 'b', 1, NULL, 1, 2)", false),
        ("INSERT INTO d (id) VALUES (1), (2, 3)", false),
        ("INSERT INTO d (id) VALUES (1) LIMIT 1", false),
        ("INSERT INTO d (id) VALUES (2), (1) ORDER BY 1", false),
        ("INSERT INTO d (id) SELECT 1", false),
        ("WITH x AS (SELECT 1) INSERT INTO d (id) VALUES (1)", false),
        ("INSERT INTO d (id) VALUES (1) RETURNING id", false),
        ("INSERT INTO d (short) VALUES ('abcde')", true),
        ("INSERT INTO r (id, chance) VALUES (1, 0.5)", false),
        ("INSERT INTO r (id, chance, len) VALUES (1, 0.5, 3)", true),
        ("INSERT INTO d (id, note) VALUES (NULL, NULL)", true),
        // The first value at fault, row by row.
        ("INSERT INTO t (i4, d) VALUES (1, '2024-01-01'), ('x', 'y'), (2, 'z')", true),
        ("INSERT INTO t (d, i4) VALUES ('y', 'x')", true),
    ] {
        assert_eq!(check(&mut session, sql, &[]).await, is_direct, "{sql}");
    }
}

#[tokio::test]
async fn parameters_come_out_the_same_both_ways() {
    use PgType::{Date, Float4, Float8, Int2, Int4, Int8, Numeric, Text, Timestamp, Timestamptz, Varchar};
    let (_world, mut session) = session().await;
    let one = |ty: Option<PgType>, text| vec![(ty, text)];
    let mut cases = Vec::new();
    for column in ["i2", "i4", "i8", "f4", "f8", "n", "n52", "s", "v"] {
        for ty in [None, Some(Int2), Some(Int4), Some(Int8), Some(Numeric(None)), Some(Float4), Some(Float8)] {
            cases.extend(["7", "0"].map(|text| (column, one(ty.clone(), Some(text)))));
            cases.push((column, one(ty, None)));
        }
        cases.push((column, one(Some(Int4), Some("70000"))));
        cases.push((column, one(Some(Int8), Some("3000000000"))));
        cases.push((column, one(Some(Float8), Some("2.5"))));
        cases.push((column, one(Some(Float8), Some("1e300"))));
    }
    for column in ["s", "v", "c", "d", "i4", "u", "jb"] {
        cases.extend([Text, Varchar(None)].map(|ty| (column, one(Some(ty), Some("ab")))));
        cases.extend([Text, Varchar(None)].map(|ty| (column, one(Some(ty), Some("abcd ")))));
    }
    for column in ["d", "ts", "tz"] {
        for ty in [None, Some(Date), Some(Timestamp), Some(Timestamptz)] {
            cases.extend(["2024-07-01", "infinity", "1000-01-01"].map(|text| (column, one(ty.clone(), Some(text)))));
        }
    }
    for (column, text) in [
        ("b", "t"),
        ("y", "\\x00"),
        ("a", "{1,NULL}"),
        ("sa", "{x}"),
        ("iv", "1 day"),
        ("j", "{}"),
        ("c", "ab"),
        ("h", "10:00"),
    ] {
        cases.extend([Some(text), None].map(|text| (column, one(None, text))));
    }
    let mut direct = 0;
    for zone in ["UTC", "Asia/Tokyo"] {
        run(&mut session, &format!("SET TimeZone = '{zone}'")).await;
        for (column, params) in &cases {
            direct += usize::from(check(&mut session, &format!("INSERT INTO t ({column}) VALUES ($1)"), params).await);
            check(&mut session, &format!("INSERT INTO t ({column}) VALUES ($1), (NULL)"), params).await;
            check(&mut session, &format!("INSERT INTO t ({column}) VALUES ($1), (DEFAULT), ($1)"), params).await;
        }
    }
    assert!(direct > cases.len(), "{direct} of {} need no query", 2 * cases.len());
    for (sql, params, is_direct) in [
        (
            "INSERT INTO d (id, at, note) VALUES ($1, $2, $3)",
            vec![(None, Some("1")), (None, Some("2024-01-01")), (None, None)],
            true,
        ),
        ("INSERT INTO d (note, id) VALUES ($2, $1)", vec![(None, Some("1")), (None, Some("a"))], true),
        (
            "INSERT INTO d (id, at) VALUES ($1, $2::timestamptz)",
            vec![(None, Some("1")), (None, Some("2024-01-01"))],
            true,
        ),
        ("INSERT INTO d (id, at) VALUES ($1::int, now())", vec![(None, Some("1"))], true),
        ("INSERT INTO d (id, note) VALUES ($1, $1)", vec![(None, Some("1"))], false),
        ("INSERT INTO d (id, plain) VALUES ($1, $1)", vec![(Some(Int4), Some("1"))], true),
        ("INSERT INTO d (id) VALUES ($1 + 1)", vec![(None, Some("1"))], false),
        ("INSERT INTO d (id) VALUES ($2)", vec![], false),
        ("INSERT INTO d (id) VALUES ($1)", vec![(None, Some("1")), (Some(Int8), Some("2"))], true),
    ] {
        let params = match params.is_empty() {
            true => vec![(None, Some("1")), (None, Some("2"))],
            false => params,
        };
        assert_eq!(check(&mut session, sql, &params).await, is_direct, "{sql}");
    }
}

/// A query divides numbers of many digits by a power of ten; PostgreSQL reads their digits, and so does the short way.
#[tokio::test]
async fn a_float_of_many_digits_is_read_as_postgres_reads_it() {
    let (_world, mut session) = session().await;
    let sql = "INSERT INTO t (f8) VALUES (0.30000000000000004), (2.2250738585072014e-308), (81.29327586206897), (-0.0)";
    let (is_direct, rows) = made(&mut session, sql, &[], Way::Shortest).await;
    assert!(is_direct);
    let (_, rows) = rows.unwrap();
    let column = rows.column_by_name("f8").unwrap().as_primitive::<Float64Type>();
    let expected: [f64; 4] = [0.300_000_000_000_000_04, 2.225_073_858_507_201_4e-308, 81.293_275_862_068_97, 0.0];
    assert_eq!(column.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>(), expected.map(f64::to_bits));
}
