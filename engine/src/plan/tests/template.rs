//! Plans that are used again answer as new ones do.

use super::cluster::{Chance, Cluster, DAY_US, START_US, hypertable, rows, statement, text};
use super::equality::QUERIES;
use crate::PgType;
use crate::plan::engine::templates_count;
use crate::plan::{Prepared, QueryContext, Relation};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use std::sync::Arc;

async fn run(cluster: &Cluster, prepared: &Prepared, values: &[ScalarValue], context: &QueryContext) -> RecordBatch {
    let result = cluster.engine.run(prepared, values, context).await.unwrap();
    let batches = result.stream.try_collect::<Vec<_>>().await.unwrap();
    let Some(first) = batches.first() else { return RecordBatch::new_empty(Arc::new(Schema::empty())) };
    concat_batches(&first.schema(), &batches).unwrap()
}

fn shared(cluster: &Arc<Cluster>, sql: &str) -> Prepared {
    let types = if sql.contains("LIMIT $2") { vec![None, Some(PgType::Int8)] } else { vec![] };
    let prepare = || cluster.engine.prepare(&statement(sql), &types, &cluster.context(true)).unwrap();
    prepare().shared().unwrap_or_else(prepare)
}

fn time(us: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))
}

/// Operators that keep something of a run (a top-k its threshold, a join its table) must begin anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_runs_again_answers_the_same() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let mut templates = 0;
    for (in_order, sql) in QUERIES {
        let prepared = shared(&cluster, sql);
        for push_down in [true, false] {
            let expected = text(&cluster.query(sql, push_down).await.unwrap(), *in_order);
            for round in 0..5 {
                let answer = run(&cluster, &prepared, &[], &cluster.context(push_down)).await;
                assert_eq!(text(&answer, *in_order), expected, "round {round}: {sql}");
            }
        }
        templates += templates_count(&prepared);
    }
    assert!(templates > QUERIES.len() / 2, "only {templates} templates");
}

/// One of `$1 …`: how it is written as a constant, and its value.
type Draw = fn(&mut Chance) -> (String, ScalarValue);

fn device(chance: &mut Chance) -> (String, ScalarValue) {
    let device = chance.below(32) as i32 - 1;
    (format!("({device})"), ScalarValue::Int32(Some(device)))
}

fn host(chance: &mut Chance) -> (String, ScalarValue) {
    let host = format!("host_{}", chance.below(8));
    (format!("'{host}'"), ScalarValue::Utf8(Some(host)))
}

fn moment(chance: &mut Chance) -> (String, ScalarValue) {
    let us = START_US + (chance.below(34) as i64 - 2) * DAY_US;
    let text = chrono::DateTime::from_timestamp_micros(us).unwrap().format("%Y-%m-%dT%H:%M:%SZ");
    (format!("'{text}'::timestamptz"), time(us))
}

fn temp(chance: &mut Chance) -> (String, ScalarValue) {
    let temp = chance.below(400) as f64 / 4.0;
    (format!("{temp}::float8"), ScalarValue::Float64(Some(temp)))
}

fn limit(chance: &mut Chance) -> (String, ScalarValue) {
    let limit = chance.below(4) as i64 + 1;
    (format!("{limit}"), ScalarValue::Int64(Some(limit)))
}

/// With parameters; whether all of them are exchanged, so that one template is enough.
const SHAPES: &[(bool, bool, &str, &[Draw])] = &[
    (true, false, "SELECT count(*), sum(temp) FROM conditions WHERE device = $1 AND time < $2", &[device, moment]),
    (
        true,
        false,
        "SELECT * FROM conditions WHERE time >= $1 AND time < $2 AND device IN ($3, $4, $5, $6, $7)",
        &[moment, moment, device, device, device, device, device],
    ),
    (
        true,
        true,
        "SELECT device, avg(temp) FROM conditions WHERE time BETWEEN $1 AND $2 GROUP BY device ORDER BY 1",
        &[moment, moment],
    ),
    (
        true,
        true,
        "SELECT host, max(temp) FROM conditions WHERE device IN ($1, $2) AND temp > $3 GROUP BY host ORDER BY 1",
        &[device, device, temp],
    ),
    (
        true,
        false,
        "SELECT host, count(*) FROM conditions WHERE NOT (device = $1 OR $2 <> host) GROUP BY host",
        &[device, host],
    ),
    (
        true,
        true,
        "SELECT time, temp FROM conditions WHERE host = $1 AND time > $2 ORDER BY time DESC, temp LIMIT 5",
        &[host, moment],
    ),
    (
        true,
        false,
        "SELECT device, max(temp) FROM conditions WHERE host <> $2 GROUP BY device HAVING max(temp) > $1",
        &[temp, host],
    ),
    (true, false, "SELECT count(*) FROM hot WHERE temp < $1 AND device >= $2", &[temp, device]),
    (
        false,
        false,
        "SELECT c.host, count(*) FROM conditions c JOIN metrics m ON c.device = m.device \
      WHERE c.time > $1 AND m.host = $2 GROUP BY 1",
        &[moment, host],
    ),
    (
        true,
        false,
        "SELECT DISTINCT ON (device) device, time FROM conditions WHERE time > $1 ORDER BY device, time DESC",
        &[moment],
    ),
    (
        false,
        true,
        "SELECT time, device FROM conditions WHERE time > $1 ORDER BY time, device LIMIT $2",
        &[moment, limit],
    ),
    (false, false, "SELECT count(*) FROM conditions WHERE temp + $1 > $2", &[temp, temp]),
    (
        false,
        false,
        "SELECT count(*) FROM conditions WHERE temp > (SELECT avg(temp) FROM metrics WHERE device > $1)",
        &[device],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_values_get_their_own_answer() {
    let cluster = Cluster::new(&["dn1", "dn2", "dn3"]);
    let mut chance = Chance(5);
    for (one_template, in_order, sql, draws) in SHAPES {
        let prepared = shared(&cluster, sql);
        for round in 0..12 {
            let (constants, values): (Vec<_>, Vec<_>) = draws.iter().map(|draw| draw(&mut chance)).unzip();
            let mut literal = (*sql).to_owned();
            for (number, constant) in constants.iter().enumerate().rev() {
                literal = literal.replace(&format!("${}", number + 1), constant);
            }
            let expected = cluster.query(&literal, false).await.unwrap();
            let answer = run(&cluster, &prepared, &values, &cluster.context(round % 5 > 0)).await;
            assert_eq!(text(&answer, *in_order), text(&expected, *in_order), "{literal}");
        }
        // One with push-down, one without.
        assert!(!one_template || templates_count(&prepared) == 2, "{sql}: {}", templates_count(&prepared));
    }
}

/// An optimizer that made use of a value must not be believed for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_depends_on_its_values_is_not_used_for_others() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let int = |value| ScalarValue::Int32(Some(value));
    for (sql, first, then) in [
        ("SELECT count(*) FROM conditions WHERE device > $1 AND device > $2", [int(5), int(3)], [int(3), int(5)]),
        ("SELECT count(*) FROM conditions WHERE device IN ($1, $2)", [int(4), int(4)], [int(4), int(6)]),
        ("SELECT count(*) FROM conditions WHERE device >= $1 AND device <= $2", [int(4), int(4)], [int(2), int(9)]),
        ("SELECT count(*) FROM conditions WHERE device = $1 AND device = $2", [int(4), int(5)], [int(4), int(4)]),
        (
            "SELECT count(*) FROM conditions WHERE device = $1 AND device = 4 AND device <> $2",
            [int(4), int(5)],
            [int(5), int(4)],
        ),
        (
            "SELECT count(*) FROM conditions WHERE device IN ($1, 4) AND device IN (4, $2)",
            [int(4), int(4)],
            [int(5), int(6)],
        ),
        (
            "SELECT count(*) FROM conditions WHERE device > 5 AND device > $1 AND device <> $2",
            [int(10), int(20)],
            [int(1), int(20)],
        ),
        (
            "SELECT count(*) FROM conditions WHERE device > -5 AND device > $1 AND device <> $2",
            [int(10), int(20)],
            [int(-9), int(2)],
        ),
        (
            "SELECT count(*) FROM conditions WHERE device IN ($1, 7) AND device NOT IN (9, $2)",
            [int(4), int(-3)],
            [int(9), int(7)],
        ),
        (
            "SELECT count(*) FROM (SELECT device FROM conditions WHERE device > 7 UNION ALL SELECT device FROM metrics) s WHERE device > $1 AND device <> $2",
            [int(5), int(20)],
            [int(10), int(11)],
        ),
        ("SELECT count(*) FROM conditions WHERE device = $1 OR device = $2", [int(4), int(4)], [int(4), int(5)]),
        ("SELECT count(*) FROM conditions WHERE device < $1 OR device > $2", [int(4), int(4)], [int(9), int(3)]),
        (
            "SELECT count(*) FROM conditions WHERE device = $1 AND device < $2",
            [ScalarValue::Int32(None), int(4)],
            [int(3), int(4)],
        ),
    ] {
        let prepared = shared(&cluster, sql);
        for values in [&first, &then, &first, &then] {
            let answer = run(&cluster, &prepared, values, &cluster.context(true)).await;
            let spelled =
                |value: &ScalarValue| if value.is_null() { "NULL::int".to_owned() } else { value.to_string() };
            let literal = sql.replace("$1", &spelled(&values[0])).replace("$2", &spelled(&values[1]));
            let expected = cluster.query(&literal, false).await.unwrap();
            assert_eq!(text(&answer, true), text(&expected, true), "{literal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn now_is_the_runs_own() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let prepared = shared(&cluster, "SELECT count(*) FROM conditions WHERE time > now() - interval '1 day'");
    let shown = shared(&cluster, "SELECT now() AS n, count(*) FROM conditions WHERE time > now()");
    for days in [3, 20, 7] {
        let mut context = cluster.context(true);
        context.settings.now_us = START_US + days * DAY_US;
        let answer = run(&cluster, &prepared, &[], &context).await;
        let since = START_US + (days - 1) * DAY_US;
        let since = chrono::DateTime::from_timestamp_micros(since).unwrap().to_rfc3339();
        let literal = format!("SELECT count(*) FROM conditions WHERE time > '{since}'::timestamptz");
        assert_eq!(text(&answer, true)[1], text(&cluster.query(&literal, false).await.unwrap(), true)[1]);
        let answer = run(&cluster, &shown, &[], &context).await;
        let day = format!("2019-01-{:02}T00:00:00Z", days + 1);
        assert!(text(&answer, true)[1].contains(&day), "{:?}", text(&answer, true));
    }
    assert_eq!((templates_count(&prepared), templates_count(&shown)), (1, 0));
}

/// A day's name is a constant only for that day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn today_is_not_kept() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let prepared = shared(&cluster, "SELECT count(*) FROM conditions WHERE time > 'today'::timestamptz");
    let mut counts = Vec::new();
    for days in [3, 20] {
        let mut context = cluster.context(true);
        context.settings.now_us = START_US + days * DAY_US + 5;
        counts.push(text(&run(&cluster, &prepared, &[], &context).await, true)[1].clone());
    }
    assert_ne!(counts[0], counts[1]);
    assert_eq!(templates_count(&prepared), 0);
}

/// Chunks are excluded for each run, and one that was made since is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_reads_the_chunks_there_are() {
    let cluster = Cluster::empty(&["dn1", "dn2"]);
    let def = hypertable(1, "conditions", &["dn1", "dn2"], 7);
    cluster.load(def.clone(), &rows(&def, 300, 30, 1));
    let cluster = Arc::new(cluster);
    let prepared = shared(&cluster, "SELECT count(*) FROM conditions WHERE time >= $1");
    for days in [0, 29, 8, 0] {
        let answer = run(&cluster, &prepared, &[time(START_US + days * DAY_US)], &cluster.context(true)).await;
        assert_eq!(text(&answer, true)[1], format!("| {:<5} |", 300 - days * 10));
    }
    cluster.load(def.clone(), &rows(&def, 600, 60, 2));
    let answer = run(&cluster, &prepared, &[time(START_US)], &cluster.context(true)).await;
    assert_eq!(text(&answer, true)[1], "| 600   |");
    assert_eq!(templates_count(&prepared), 1);

    let mut changed = def;
    changed.columns.remove(3);
    let Some(Relation::Table { chunks, .. }) = cluster.relations.lock().remove("conditions") else { panic!("loaded") };
    cluster.relations.lock().insert("conditions".into(), Relation::Table { def: Arc::new(changed), chunks });
    let answer = run(&cluster, &prepared, &[time(START_US)], &cluster.context(true)).await;
    assert_eq!(text(&answer, true)[1], "| 600   |", "planned anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_has_a_template_of_its_own() {
    let cluster = Cluster::new(&["dn1", "dn2"]);
    let sql = "SELECT date_trunc('day', time) AS d, count(*) FROM conditions WHERE time > $1 GROUP BY 1";
    let prepared = shared(&cluster, sql);
    for zone in ["UTC", "Asia/Tokyo", "UTC", "Asia/Tokyo"] {
        let mut context = cluster.context(true);
        context.settings.time_zone = zone.to_owned();
        let answer = run(&cluster, &prepared, &[time(START_US)], &context).await;
        let fresh = cluster.engine.prepare(&statement(sql), &[], &context).unwrap();
        let expected = run(&cluster, &fresh, &[time(START_US)], &context).await;
        assert_eq!(text(&answer, false), text(&expected, false), "{zone}");
    }
    assert_eq!(templates_count(&prepared), 2);
}
