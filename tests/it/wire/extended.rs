//! The extended protocol: parameters, described and binary results, portals, pipelines.

use super::{raw_login, server_with_readings, tags};
use crate::cluster::Server;
use std::time::Duration;
use tokio_postgres::types::{ToSql, Type};

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn parameters_get_their_types_from_their_place() {
    let server = server_with_readings().await;
    let session = server.connect().await;
    let cases: &[(&str, &[Type])] = &[
        ("SELECT * FROM readings WHERE device = $1", &[Type::INT4]),
        ("SELECT * FROM readings WHERE time >= $1 AND time < $2", &[Type::TIMESTAMPTZ, Type::TIMESTAMPTZ]),
        ("SELECT * FROM readings WHERE temp > $1 AND note = $2", &[Type::FLOAT8, Type::TEXT]),
        ("SELECT * FROM readings WHERE device = ANY ($1)", &[Type::INT4_ARRAY]),
        ("SELECT $1::int + $2", &[Type::INT4, Type::INT4]),
        ("INSERT INTO readings VALUES ($1, $2, $3, $4)", &[Type::TIMESTAMPTZ, Type::INT4, Type::FLOAT8, Type::TEXT]),
        ("SELECT * FROM readings LIMIT $1", &[Type::INT8]),
        ("SELECT upper($1)", &[Type::TEXT]),
        ("SELECT $1", &[Type::TEXT]),
    ];
    for (sql, types) in cases {
        let statement = session.client.prepare(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert_eq!(statement.params(), *types, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn typed_and_untyped_parameters_select_the_same_rows() {
    let server = server_with_readings().await;
    let session = server.connect().await;
    let typed = "SELECT count(*) FROM readings WHERE device = $1 AND temp < $2";
    let rows = session.client.query_typed(typed, &[(&3_i16, Type::INT2), (&100.0_f64, Type::FLOAT8)]).await.unwrap();
    let from_int2 = rows[0].get::<_, i64>(0);
    let from_int4 = session.client.query_one(typed, &[&3_i32, &100.0_f64]).await.unwrap().get::<_, i64>(0);
    // device = 3 and n / 4.0 < 100: n of 3, 10, … below 400
    assert_eq!((from_int2, from_int4), (57, 57));

    let (mut client, _) = raw_login(&server);
    client.parse("", "SELECT count(*) FROM readings WHERE device = $1 AND time < $2", &[]);
    client.bind("", "", &[Some("3"), Some("2024-01-02T00:00:00.000+00:00")], false);
    client.execute("", 0);
    client.sync();
    let messages = client.read_until('Z');
    assert_eq!(tags(&messages), "12DCZ", "{messages:?}");
    assert_eq!(messages[2].values(), vec![Some(b"6".to_vec())]);
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn results_are_described_with_postgres_types() {
    let server = server_with_readings().await;
    let session = server.connect().await;
    let cases: &[(&str, &[(&str, Type)])] = &[
        (
            "SELECT * FROM readings",
            &[("time", Type::TIMESTAMPTZ), ("device", Type::INT4), ("temp", Type::FLOAT8), ("note", Type::TEXT)],
        ),
        (
            "SELECT count(*), sum(device), avg(device), avg(temp) FROM readings",
            &[("count", Type::INT8), ("sum", Type::INT8), ("avg", Type::NUMERIC), ("avg", Type::FLOAT8)],
        ),
        (
            "SELECT 1, 'a', 1.5, now(), true, NULL",
            &[
                ("?column?", Type::INT4),
                ("?column?", Type::TEXT),
                ("?column?", Type::NUMERIC),
                ("now", Type::TIMESTAMPTZ),
                ("?column?", Type::BOOL),
                ("?column?", Type::TEXT),
            ],
        ),
        (
            "SELECT 1::int2, 1::int8, 1::float4, '1 day'::interval, '2024-01-01'::date",
            &[
                ("int2", Type::INT2),
                ("int8", Type::INT8),
                ("float4", Type::FLOAT4),
                ("interval", Type::INTERVAL),
                ("date", Type::DATE),
            ],
        ),
        (
            "SELECT '12:00'::time, now()::timestamp, '\\x00'::bytea, ARRAY[1], ARRAY['a']",
            &[
                ("time", Type::TIME),
                ("now", Type::TIMESTAMP),
                ("bytea", Type::BYTEA),
                ("array", Type::INT4_ARRAY),
                ("array", Type::TEXT_ARRAY),
            ],
        ),
        (
            "SELECT CASE WHEN true THEN 1 END, coalesce(1, 2), 1::bigint::text, EXISTS (SELECT 1)",
            &[("case", Type::INT4), ("coalesce", Type::INT4), ("text", Type::TEXT), ("exists", Type::BOOL)],
        ),
    ];
    for (sql, columns) in cases {
        let statement = session.client.prepare(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let described = statement.columns().iter().map(|c| (c.name(), c.type_().clone())).collect::<Vec<_>>();
        assert_eq!(described, *columns, "{sql}");
    }
}

/// The bytes PostgreSQL 15 sends: recorded with this test against one.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn binary_results_have_postgres_bytes() {
    let server = Server::start().await;
    let (mut client, _) = raw_login(&server);
    let cases: &[(&str, &str)] = &[
        ("true", "01"),
        ("1::int2", "0001"),
        ("-2::int4", "fffffffe"),
        ("3::int8", "0000000000000003"),
        ("1.5::float4", "3fc00000"),
        ("-0.25::float8", "bfd0000000000000"),
        ("12345.678::numeric", "000300010000000300010929 1a7c"),
        ("-0.0001::numeric", "0001ffff400000040001"),
        ("0::numeric", "0000000000000000"),
        ("'héllo'::text", "68c3a96c6c6f"),
        ("'ab'::varchar", "6162"),
        ("'2000-01-02 00:00:00.000001+00'::timestamptz", "000000141dd76001"),
        ("'1999-12-31 00:00:00'::timestamp", "ffffffebe228a000"),
        ("'2000-01-02'::date", "00000001"),
        ("'12:34:56'::time", "0000000a8bda1c00"),
        ("'1 year 2 days 3 seconds'::interval", "00000000002dc6c0000000020000000c"),
        ("ARRAY[1, NULL]::int4[]", "0000000100000001000000170000000200000001000000040000 0001ffffffff"),
        ("'{}'::text[]", "000000000000000000000019"),
    ];
    for (expression, bytes) in cases {
        client.parse("", &format!("SELECT {expression}"), &[]);
        client.bind("", "", &[], true);
        client.execute("", 0);
        client.sync();
        let messages = client.read_until('Z');
        let row = messages.iter().find(|m| m.tag == 'D').unwrap_or_else(|| panic!("{expression}: {messages:?}"));
        let value = row.values().remove(0).expect("not NULL");
        let hex = value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex, bytes.replace(' ', ""), "{expression}");
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn values_survive_the_way_in_and_out_in_binary() {
    let server = Server::start().await;
    let session = server.connect().await;
    session
        .run("CREATE TABLE every (a boolean, b int2, c int4, d int8, e float4, f float8, g text, h bytea, i int4[], j text[], t timestamptz NOT NULL)")
        .await;
    server.distribute(&session, "every", "t", "c").await;
    let when = std::time::UNIX_EPOCH + Duration::from_micros(1_704_164_645_123_456);
    let (texts, bytes) = (vec![Some("x".to_owned()), None], vec![0_u8, 255]);
    let insert = "INSERT INTO every VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let values: [&(dyn ToSql + Sync); 11] =
        [&true, &-1_i16, &7_i32, &i64::MAX, &1.5_f32, &-2.25_f64, &"ü", &bytes, &vec![1, 2], &texts, &when];
    assert_eq!(session.client.execute(insert, &values).await.unwrap(), 1);
    let row = session.client.query_one("SELECT * FROM every", &[]).await.unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, i16>(1), row.get::<_, i32>(2)), (true, -1, 7));
    assert_eq!((row.get::<_, i64>(3), row.get::<_, f32>(4), row.get::<_, f64>(5)), (i64::MAX, 1.5, -2.25));
    assert_eq!((row.get::<_, String>(6), row.get::<_, Vec<u8>>(7)), ("ü".to_owned(), bytes));
    assert_eq!((row.get::<_, Vec<i32>>(8), row.get::<_, Vec<Option<String>>>(9)), (vec![1, 2], texts));
    assert_eq!(row.get::<_, std::time::SystemTime>(10), when);
    let nothing: [Option<i32>; 2] = [None, None];
    let some = "INSERT INTO every (t, c, b) VALUES ($1, $2, $3::int4)";
    assert_eq!(session.client.execute(some, &[&when, &nothing[0], &nothing[1]]).await.unwrap(), 1);
    assert_eq!(session.value("SELECT count(*) FROM every WHERE c IS NULL").await, "1");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_portal_hands_out_its_rows_in_pieces() {
    let server = server_with_readings().await;
    let (mut client, _) = raw_login(&server);
    client.query("BEGIN");
    client.read_until('Z');
    client.parse("s", "SELECT note FROM readings ORDER BY time", &[]);
    client.bind("p", "s", &[], false);
    client.sync();
    assert_eq!(tags(&client.read_until('Z')), "12Z");
    let mut notes = Vec::new();
    for end in ["s", "s", "C"] {
        client.execute("p", 400);
        client.sync();
        let messages = client.read_until('Z');
        assert_eq!(messages[messages.len() - 2].tag.to_string(), end);
        notes.extend(messages.iter().filter(|m| m.tag == 'D').map(|m| m.values().remove(0).expect("a note")));
    }
    assert_eq!(notes, (0..1000).map(|n| format!("note {n}").into_bytes()).collect::<Vec<_>>());
    client.query("COMMIT");
    client.read_until('Z');
    client.execute("p", 1);
    client.sync();
    let messages = client.read_until('Z');
    assert_eq!(messages[0].field('C').as_deref(), Some("34000"), "a portal ends with its transaction");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn an_error_skips_to_sync_and_flush_answers_without_one() {
    let server = Server::start().await;
    let (mut client, _) = raw_login(&server);
    client.parse("", "SELECT 1/0", &[]);
    client.bind("", "", &[], false);
    client.execute("", 0);
    client.parse("", "SELECT 2", &[]);
    client.sync();
    let messages = client.read_until('Z');
    assert_eq!(tags(&messages).trim_start_matches(['1', '2']), "EZ", "what follows the error is not answered");
    client.parse("again", "SELECT $1::int4", &[]);
    client.describe_statement("again");
    client.flush();
    assert_eq!(tags(&client.read_until('T')), "1tT");
    client.bind("", "again", &[Some("5")], false);
    client.execute("", 0);
    client.sync();
    assert_eq!(tags(&client.read_until('Z')), "2DCZ");
    client.parse("again", "SELECT 1", &[]);
    client.sync();
    assert_eq!(client.read_until('Z')[0].field('C').as_deref(), Some("42P05"));
    client.bind("", "never", &[], false);
    client.sync();
    assert_eq!(client.read_until('Z')[0].field('C').as_deref(), Some("26000"));
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn many_executions_share_one_sync() {
    let server = server_with_readings().await;
    let (mut client, _) = raw_login(&server);
    client.parse("i", "INSERT INTO readings (time, device) VALUES ($1, $2)", &[]);
    for n in 1..=20 {
        client.bind("", "i", &[Some(&format!("2024-05-{n:02} 00:00+00")), Some(&n.to_string())], false);
        client.execute("", 0);
    }
    client.sync();
    assert_eq!(tags(&client.read_until('Z')), format!("1{}Z", "2C".repeat(20)));
    assert_eq!(server.connect().await.value("SELECT count(*) FROM readings").await, "1020");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_prepared_statement_lives_through_ddl() {
    let server = server_with_readings().await;
    let session = server.connect().await;
    let count = session.client.prepare("SELECT count(*) FROM readings WHERE device = $1").await.unwrap();
    let rows = async |device: i32| session.client.query_one(&count, &[&device]).await.unwrap().get::<_, i64>(0);
    assert_eq!(rows(0).await, 143);
    session.run("ALTER TABLE readings ADD COLUMN extra text").await;
    session.run("INSERT INTO readings VALUES ('2024-05-01', 0, 1, 'n', 'e')").await;
    assert_eq!(rows(0).await, 144);
}

/// Clients that parse each time share a plan; it must be theirs: with their types, their values, and the table's columns.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_statement_that_is_prepared_again_and_again_stays_right() {
    let server = server_with_readings().await;
    let sessions = [server.connect().await, server.connect().await];
    let sql = "SELECT count(*) FROM readings WHERE device = $1 AND temp < $2 AND note <> 'nothing'";
    for round in 0..6 {
        let session = &sessions[round % 2];
        for device in 0..4 {
            let limit = [100.0, 12.5, 50.0][round % 3];
            let literal = format!("SELECT count(*) FROM readings WHERE device = {device} AND temp + 0 < {limit}");
            let expected = session.value(&literal).await;
            let rows = match round % 3 {
                0 => session.client.query(sql, &[&device, &limit]).await,
                1 => {
                    let typed: [(&(dyn ToSql + Sync), Type); 2] =
                        [(&(device as i16), Type::INT2), (&limit, Type::FLOAT8)];
                    session.client.query_typed(sql, &typed).await
                }
                _ => {
                    let typed: [(&(dyn ToSql + Sync), Type); 2] =
                        [(&i64::from(device), Type::INT8), (&limit, Type::FLOAT8)];
                    session.client.query_typed(sql, &typed).await
                }
            };
            let count = rows.unwrap()[0].get::<_, i64>(0);
            assert_eq!(count.to_string(), expected, "round {round}, device {device}");
        }
    }
    let all = "SELECT * FROM readings WHERE device = $1 LIMIT 1";
    for _ in 0..4 {
        assert_eq!(sessions[0].client.query(all, &[&3_i32]).await.unwrap()[0].len(), 4);
    }
    sessions[1].run("ALTER TABLE readings ADD COLUMN later int DEFAULT 7").await;
    for _ in 0..4 {
        let row = &sessions[0].client.query(all, &[&3_i32]).await.unwrap()[0];
        assert_eq!((row.len(), row.get::<_, i32>("later")), (5, 7));
    }
    sessions[1].run("ALTER TABLE readings DROP COLUMN note").await;
    assert!(sessions[0].client.query(sql, &[&3_i32, &100.0_f64]).await.is_err());
}
