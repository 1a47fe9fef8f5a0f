//! Joins of every kind against a naive twin, and where they run.

use super::cluster::{Cluster, WAYS, hypertable, rows, statement, text};
use crate::Shuffling;
use crate::plan::engine::run_collecting_builds;
use crate::plan::exchange::RemoteExec;
use crate::plan::late::values;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int32Type, TimestampMicrosecondType};
use datafusion::physical_plan::displayable;
use futures::StreamExt;
use proto::{Error, NodeName, SqlState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
    Semi,
    Anti,
    In,
    NotIn,
}

const KINDS: [Kind; 8] =
    [Kind::Inner, Kind::Left, Kind::Right, Kind::Full, Kind::Semi, Kind::Anti, Kind::In, Kind::NotIn];

/// One row of a test table; `time` tells it from all others of its table.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    time: i64,
    device: Option<i32>,
    temp: Option<f64>,
    host: Option<String>,
}

fn table(batch: &RecordBatch) -> Vec<Row> {
    let time = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let device = batch.column(1).as_primitive::<Int32Type>();
    let temp = batch.column(2).as_primitive::<Float64Type>();
    let host = batch.column(3).as_string::<i32>();
    let row = |i: usize| Row {
        time: time.value(i),
        device: device.is_valid(i).then(|| device.value(i)),
        temp: temp.is_valid(i).then(|| temp.value(i)),
        host: host.is_valid(i).then(|| host.value(i).to_owned()),
    };
    (0..batch.num_rows()).map(row).collect()
}

/// What two rows must agree on; NULL agrees with nothing.
#[derive(Debug, Clone, Copy)]
struct On {
    device: bool,
    host: bool,
    earlier: bool,
}

impl On {
    fn matches(self, a: &Row, b: &Row) -> bool {
        (!self.device || (a.device.is_some() && a.device == b.device))
            && (!self.host || (a.host.is_some() && a.host == b.host))
            && (!self.earlier || a.time < b.time)
    }

    fn sql(self) -> String {
        let terms =
            [(self.device, "a.device = b.device"), (self.host, "a.host = b.host"), (self.earlier, "a.time < b.time")];
        let terms = terms.iter().filter(|(wanted, _)| *wanted).map(|(_, term)| *term).collect::<Vec<_>>();
        if terms.is_empty() { "true".to_owned() } else { terms.join(" AND ") }
    }
}

type Pair = (Option<i64>, Option<i64>);

/// Times of the rows that the join yields, by the book.
fn naive(kind: Kind, a: &[Row], b: &[Row], on: On) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = match kind {
        Kind::Inner | Kind::Left | Kind::Right | Kind::Full => {
            let all = a.iter().flat_map(|x| b.iter().map(move |y| (x, y)));
            all.filter(|(x, y)| on.matches(x, y)).map(|(x, y)| (Some(x.time), Some(y.time))).collect()
        }
        Kind::Semi => a.iter().filter(|x| b.iter().any(|y| on.matches(x, y))).map(|x| (Some(x.time), None)).collect(),
        Kind::Anti => a.iter().filter(|x| !b.iter().any(|y| on.matches(x, y))).map(|x| (Some(x.time), None)).collect(),
        Kind::In => {
            let found = |x: &&Row| x.device.is_some() && b.iter().any(|y| y.device == x.device);
            a.iter().filter(found).map(|x| (Some(x.time), None)).collect()
        }
        Kind::NotIn => {
            // Unknown as soon as a NULL is compared, and nothing is compared with an empty set.
            let missed = |x: &&Row| {
                b.is_empty() || (x.device.is_some() && b.iter().all(|y| y.device.is_some() && y.device != x.device))
            };
            a.iter().filter(missed).map(|x| (Some(x.time), None)).collect()
        }
    };
    if matches!(kind, Kind::Left | Kind::Full) {
        pairs.extend(a.iter().filter(|x| !b.iter().any(|y| on.matches(x, y))).map(|x| (Some(x.time), None)));
    }
    if matches!(kind, Kind::Right | Kind::Full) {
        pairs.extend(b.iter().filter(|y| !a.iter().any(|x| on.matches(x, y))).map(|y| (None, Some(y.time))));
    }
    pairs.sort_unstable();
    pairs
}

fn sql(kind: Kind, a: &str, b: &str, on: On) -> String {
    let on = on.sql();
    match kind {
        Kind::Inner => format!("SELECT a.time, b.time FROM {a} a JOIN {b} b ON {on}"),
        Kind::Left => format!("SELECT a.time, b.time FROM {a} a LEFT JOIN {b} b ON {on}"),
        Kind::Right => format!("SELECT a.time, b.time FROM {a} a RIGHT JOIN {b} b ON {on}"),
        Kind::Full => format!("SELECT a.time, b.time FROM {a} a FULL JOIN {b} b ON {on}"),
        Kind::Semi => format!("SELECT a.time FROM {a} a WHERE EXISTS (SELECT 1 FROM {b} b WHERE {on})"),
        Kind::Anti => format!("SELECT a.time FROM {a} a WHERE NOT EXISTS (SELECT 1 FROM {b} b WHERE {on})"),
        Kind::In => format!("SELECT time FROM {a} WHERE device IN (SELECT device FROM {b})"),
        Kind::NotIn => format!("SELECT time FROM {a} WHERE device NOT IN (SELECT device FROM {b})"),
    }
}

fn pairs(batch: &RecordBatch) -> Vec<Pair> {
    let time = |column: usize, row: usize| {
        let times = batch.columns().get(column)?.as_primitive::<TimestampMicrosecondType>();
        times.is_valid(row).then(|| times.value(row))
    };
    let mut pairs: Vec<Pair> = (0..batch.num_rows()).map(|row| (time(0, row), time(1, row))).collect();
    pairs.sort_unstable();
    pairs
}

/// Hypertables `big`, `other` (of other slices) and `nothing`, plain tables `few` and `none`; every third device is
/// missing in `few`, which has no NULL, so that NOT IN finds something.
struct World {
    cluster: Arc<Cluster>,
    tables: Vec<(&'static str, Vec<Row>)>,
}

fn world(nodes: &[&str]) -> World {
    let cluster = Cluster::empty(nodes);
    let mut tables = Vec::new();
    for (id, name, count, days) in [(1, "big", 240, 7), (2, "other", 90, 3), (3, "nothing", 0, 7)] {
        let def = hypertable(id, name, nodes, days);
        let batch = rows(&def, count, 30, id.into());
        cluster.load(def, &batch);
        tables.push((name, table(&batch)));
    }
    let all = rows(&hypertable(4, "few", nodes, 7), 60, 30, 4);
    let kept = all.column(1).as_primitive::<Int32Type>().iter().map(|device| device.map(|device| device % 3 > 0));
    let few = arrow::compute::filter_record_batch(&all, &kept.collect()).unwrap();
    for (id, name, batch) in [(4, "few", &few), (5, "none", &few.slice(0, 0))] {
        cluster.load_plain(id, name, batch, nodes[nodes.len() - 1]);
        tables.push((name, table(batch)));
    }
    World { cluster: Arc::new(cluster), tables }
}

const ONS: [On; 4] = [
    On { device: true, host: false, earlier: false },
    On { device: true, host: true, earlier: true },
    On { device: false, host: true, earlier: false },
    On { device: false, host: false, earlier: true },
];

impl World {
    /// All kinds of joins of `a` and `b`, with what they yield.
    fn joins(&self, a: &str, b: &str) -> Vec<(String, Vec<Pair>)> {
        let rows_of = |name: &str| &self.tables.iter().find(|(known, _)| *known == name).unwrap().1[..];
        let mut joins = Vec::new();
        for kind in KINDS {
            let ons = if matches!(kind, Kind::In | Kind::NotIn) { &ONS[..1] } else { &ONS[..] };
            joins.extend(ons.iter().map(|on| (sql(kind, a, b, *on), naive(kind, rows_of(a), rows_of(b), *on))));
        }
        joins
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_join_is_what_a_naive_one_is() {
    let world = world(&["dn1", "dn2", "dn3"]);
    let mut wrong = Vec::new();
    for (a, b) in [
        ("big", "big"),
        ("big", "other"),
        ("other", "big"),
        ("big", "few"),
        ("few", "big"),
        ("big", "nothing"),
        ("nothing", "big"),
        ("big", "none"),
        ("none", "big"),
        ("few", "few"),
    ] {
        for (sql, expected) in world.joins(a, b) {
            for (push_down, shuffle) in WAYS {
                *world.cluster.shuffle.lock() = shuffle;
                match world.cluster.query(&sql, push_down).await.map(|batch| pairs(&batch)) {
                    Ok(found) if found == expected => {}
                    Ok(found) => {
                        wrong.push(format!(
                            "{push_down}, {shuffle:?}: {sql}: {} rows, not {}",
                            found.len(),
                            expected.len()
                        ));
                    }
                    Err(error) => wrong.push(format!("{push_down}, {shuffle:?}: {sql}: {error}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

/// Each node's build side holds the node's rows, and only those may show by themselves there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_that_collect_their_build_side_are_right_too() {
    let world = world(&["dn1", "dn2", "dn3"]);
    for (a, b) in [("big", "other"), ("big", "few"), ("nothing", "big")] {
        for (sql, expected) in world.joins(a, b) {
            let context = world.cluster.context(true);
            let prepared = world.cluster.engine.prepare(&statement(&sql), &[], &context).unwrap();
            let run = run_collecting_builds(&world.cluster.engine, &prepared, &context).await;
            let (plan, batches) = run.unwrap_or_else(|error| panic!("{sql}: {error}"));
            let found = batches.first().map(|first| pairs(&concat_batches(&first.schema(), &batches).unwrap()));
            assert_eq!(found.unwrap_or_default(), expected, "{sql}");
            if (a, b) == ("big", "other") && sql.contains("a.device = b.device") {
                let remote = plan.downcast_ref::<RemoteExec>();
                let fragment = remote.map(|remote| remote.fragment.plan.clone()).unwrap_or_else(|| panic!("{sql}"));
                let shown = displayable(fragment.as_ref()).indent(false).to_string();
                assert!(shown.contains("mode=CollectLeft"), "{sql}\n{shown}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_a_side_names_its_node() {
    let World { cluster, .. } = world(&["dn1", "dn2"]);
    let damaged = Error::new(SqlState::DATA_CORRUPTED, "checksum of segment 7 does not match");
    *cluster.stores[&NodeName::from("dn2")].fails.lock() = Some(damaged);
    for sql in [
        "SELECT a.time FROM big a JOIN few f ON a.host = f.host",
        "SELECT f.time FROM few f LEFT JOIN big a ON a.host = f.host",
        "SELECT a.time FROM big a JOIN other b USING (device)",
    ] {
        let error = cluster.query(sql, true).await.unwrap_err();
        assert_eq!(
            (error.code, &*error.message),
            (SqlState::DATA_CORRUPTED, "[dn2]: checksum of segment 7 does not match")
        );
    }
}

/// Whether a side is still being collected, or too large and waiting for its turn: nothing goes on without a reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_stream_stops_the_sides() {
    let World { cluster, .. } = world(&["dn1", "dn2"]);
    let many = rows(&hypertable(7, "many", &["dn1"], 7), 150_000, 30, 7);
    cluster.load_plain(7, "many", &many, "dn2");
    let sql = statement("SELECT a.time, m.time FROM big a JOIN many m ON a.host = m.host");
    for batches in 0..2 {
        let context = cluster.context(true);
        let prepared = cluster.engine.prepare(&sql, &[], &context).unwrap();
        let mut result = cluster.engine.run(&prepared, &[], &context).await.unwrap();
        for _ in 0..batches {
            result.stream.next().await.unwrap().unwrap();
        }
        drop(result);
        while cluster.stores.values().any(|store| store.open.load(Ordering::SeqCst) > 0) {
            tokio::task::yield_now().await;
        }
    }
}

/// Three tables, aggregates over joins, joins of aggregates, orders and limits: the same with push-down and without, on
/// one node and on three.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_inside_larger_statements_change_no_answer() {
    let (one, three) = (world(&["dn1"]), world(&["dn1", "dn2", "dn3"]));
    let mut wrong = Vec::new();
    for (in_order, sql) in [
        (false, "SELECT a.time, b.time, c.time FROM big a JOIN other b USING (device) JOIN few c USING (device)"),
        (
            false,
            "SELECT a.time, b.time, c.time FROM big a LEFT JOIN few b ON a.host = b.host LEFT JOIN other c ON c.device = b.device",
        ),
        (
            false,
            "SELECT a.time, b.time, c.time FROM few a LEFT JOIN big b ON a.device = b.device LEFT JOIN other c ON c.device = b.device",
        ),
        (
            false,
            "SELECT a.time, b.time FROM big a FULL JOIN few b ON a.device = b.device JOIN other c ON c.time = a.time",
        ),
        (false, "SELECT device, count(*), sum(b.temp) FROM big a JOIN other b USING (device) GROUP BY device"),
        (false, "SELECT b.host, count(*), sum(a.temp) FROM big a JOIN few b USING (device) GROUP BY b.host"),
        (
            false,
            "SELECT a.device, b.device, count(*) FROM big a FULL JOIN other b ON a.device = b.device GROUP BY 1, 2",
        ),
        (
            false,
            "SELECT b.device, count(*) FROM big a LEFT JOIN other b ON a.device = b.device AND b.temp > 50 GROUP BY b.device",
        ),
        (
            false,
            "SELECT a.device, a.n, b.m FROM (SELECT device, count(*) n FROM big GROUP BY device) a JOIN (SELECT device, max(temp) m FROM other GROUP BY device) b ON a.device = b.device",
        ),
        (
            false,
            "SELECT a.host, a.n, b.m FROM (SELECT host, count(*) n FROM big GROUP BY host) a LEFT JOIN (SELECT host, max(temp) m FROM few GROUP BY host) b ON a.host = b.host",
        ),
        (false, "SELECT DISTINCT a.device FROM big a, few b WHERE a.temp = b.temp"),
        (true, "SELECT a.time, b.time FROM big a JOIN other b USING (device) ORDER BY a.time, b.time LIMIT 7"),
        (
            true,
            "SELECT a.time, b.time FROM big a JOIN few b ON a.host = b.host ORDER BY b.time DESC, a.time LIMIT 7 OFFSET 3",
        ),
        (
            true,
            "SELECT a.time, b.time FROM (SELECT * FROM big ORDER BY time LIMIT 20) a LEFT JOIN few b ON a.host = b.host ORDER BY 1, 2",
        ),
        (
            true,
            "SELECT a.time, t.time FROM big a JOIN (SELECT * FROM few ORDER BY temp, time LIMIT 5) t ON a.host = t.host ORDER BY t.temp, t.time, a.time",
        ),
        (false, "SELECT count(*) FROM (SELECT 1 FROM big a JOIN few b ON a.host = b.host LIMIT 10) t"),
        (false, "SELECT count(*) FROM (SELECT 1 FROM big a JOIN other b ON a.device = b.device LIMIT 10) t"),
        (false, "SELECT a.time, b.time FROM few a, none b"),
        (false, "SELECT count(*), min(a.time), max(b.time) FROM big a CROSS JOIN few b"),
        (false, "SELECT a.time, m.m FROM big a CROSS JOIN (SELECT max(temp) m FROM few) m WHERE a.temp > m.m / 2"),
        (false, "SELECT a.time FROM big a WHERE a.temp > (SELECT avg(temp) FROM other)"),
        (false, "SELECT a.time FROM big a WHERE a.time > (SELECT max(time) - interval '9 days' FROM few)"),
        (
            false,
            "SELECT a.time FROM big a WHERE (SELECT min(time) + interval '9 days' FROM few) >= a.time AND device = (SELECT min(device) FROM few)",
        ),
        (false, "SELECT a.time FROM big a WHERE a.time > (SELECT max(time) FROM none)"),
        (
            false,
            "SELECT a.device, a.temp - (SELECT avg(temp) FROM big) FROM big a JOIN few b USING (device) WHERE b.temp < (SELECT max(temp) FROM other)",
        ),
        (
            false,
            "SELECT device, (SELECT count(*) FROM few f WHERE f.device = a.device) FROM (SELECT DISTINCT device FROM big) a",
        ),
        (
            false,
            "SELECT a.time FROM big a WHERE device IN (SELECT device FROM few WHERE temp > 50) OR host IN (SELECT host FROM other WHERE temp > 90)",
        ),
        (
            false,
            "SELECT a.time FROM big a WHERE device NOT IN (SELECT device FROM few WHERE device < 7) AND host IN (SELECT host FROM other)",
        ),
        (
            false,
            "SELECT a.time, b.time FROM big a JOIN other b ON a.device = b.device AND b.time BETWEEN a.time AND a.time + interval '1 day'",
        ),
        (false, "SELECT a.time, b.time FROM big a JOIN few b ON a.device IS NOT DISTINCT FROM b.device"),
        (
            false,
            "SELECT a.time, b.time FROM big a JOIN other b ON (a.device IS NOT DISTINCT FROM b.device) AND a.host = b.host",
        ),
        (
            false,
            "SELECT a.time, v.n FROM (VALUES (1, 'x'), (2, 'y'), (NULL, 'z')) v(device, n) LEFT JOIN big a USING (device)",
        ),
        (false, "SELECT a.time, b.time FROM big a JOIN few b ON a.device::bigint = b.device::bigint"),
        (false, "SELECT a.time, b.time FROM big a JOIN other b ON a.device::bigint = b.device::bigint"),
        (false, "SELECT device FROM big INTERSECT SELECT device FROM other"),
        (false, "SELECT device FROM big EXCEPT SELECT device FROM few"),
        (
            false,
            "SELECT a.time, r FROM (SELECT time, device, rank() OVER (PARTITION BY device ORDER BY time) r FROM big) a JOIN few b ON a.device = b.device",
        ),
        (false, "SELECT a.time FROM (SELECT * FROM big UNION ALL SELECT * FROM other) a JOIN few b USING (device)"),
        (
            false,
            "SELECT a.d, b.time FROM (SELECT DISTINCT ON (device) device AS d, time FROM big ORDER BY device, time DESC) a JOIN few b ON a.d = b.device",
        ),
        (
            false,
            "SELECT b.time, a.t FROM few b LEFT JOIN (SELECT device, max(time) t FROM big GROUP BY device) a ON a.device = b.device",
        ),
        (
            false,
            "WITH RECURSIVE r(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r WHERE n < 4) SELECT n, count(a.time) FROM r LEFT JOIN big a ON a.device = r.n GROUP BY n",
        ),
    ] {
        let expected = one.cluster.query(sql, false).await.map(|batch| text(&batch, in_order));
        for (push_down, shuffle) in WAYS {
            *three.cluster.shuffle.lock() = shuffle;
            let found = three.cluster.query(sql, push_down).await.map(|batch| text(&batch, in_order));
            if found != expected || found.is_err() {
                wrong.push(format!(
                    "{push_down}, {shuffle:?}: {sql}\n{:?}\nnot\n{:?}",
                    found.map(|f| f.len()),
                    expected.as_ref().map(Vec::len)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A side that turns out to be too large is joined above, and none of its rows is lost or seen twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_too_large_to_send_is_joined_above() {
    let world = world(&["dn1", "dn2"]);
    *world.cluster.shuffle.lock() = Shuffling::Off;
    let many = rows(&hypertable(7, "many", &["dn1"], 7), 100_100, 30, 7);
    world.cluster.load_plain(7, "many", &many, "dn2");
    let explained = |sql: &'static str| {
        let cluster = Arc::clone(&world.cluster);
        async move { cluster.explain(sql, true, true).await }
    };
    for sql in [
        "SELECT count(*), min(a.time), max(m.time) FROM big a JOIN many m ON a.device = m.device AND a.host = m.host",
        "SELECT count(*), min(a.time), max(f.time) FROM big a, few f",
        "SELECT f.host, count(*) FROM big a JOIN many m ON a.time = m.time JOIN few f ON f.host = a.host GROUP BY f.host",
    ] {
        let on = world.cluster.query(sql, true).await.unwrap();
        let off = world.cluster.query(sql, false).await.unwrap();
        assert_eq!(text(&on, false), text(&off, false), "{sql}");
        let plan = explained(sql).await;
        assert!(plan.contains("Broadcast: given up, the rows were too many; joined on the access node"), "{plan}");
    }
    // What is small beside it is sent all the same.
    let plan =
        explained("SELECT count(*) FROM big a JOIN many m ON a.time = m.time JOIN few f ON f.host = a.host").await;
    assert!(plan.contains("rows to each data node"), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_tells_what_is_sent_and_what_scans_learn() {
    let World { cluster, .. } = world(&["dn1", "dn2"]);
    let sent =
        "SELECT a.time FROM big a JOIN few f ON a.device = f.device WHERE f.device = 7 AND f.time < '2019-01-20'";
    let plan = cluster.explain(&sent.replace("f.device = 7", "f.temp < 3"), true, false).await;
    for part in
        ["->  Broadcast  (cost", "Broadcast: rows of few", "Sent: if at most 100000 rows and 8 MiB", "Broadcast Scan"]
    {
        assert!(plan.contains(part), "no {part:?} in\n{plan}");
    }
    assert!(plan.contains("Runtime Filter: device, by the rows it is joined with"), "{plan}");

    // The coordinator joins, but asks only for rows that can match.
    let above = "SELECT v.n, a.time FROM (VALUES (7, 1)) v(device, n) LEFT JOIN big a USING (device)";
    let plan = cluster.explain(above, true, true).await;
    assert!(plan.contains("Runtime Filter: device, 1 values; chunks left on all data nodes: 5"), "{plan}");
    let subquery = "SELECT count(*) FROM big WHERE time > (SELECT max(time) - interval '1 day' FROM few)";
    let plan = cluster.explain(subquery, true, true).await;
    assert!(plan.contains("Runtime Filter: time, a range; chunks left on all data nodes: 2"), "{plan}");
}

#[test]
fn many_keys_tell_their_range_and_few_tell_themselves() {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
    use proto::PredicateKind::{OneOf, Range};
    use proto::Scalar::{Int, Text};
    let keys = |keys: Vec<Option<i64>>| values(&(Arc::new(Int64Array::from(keys)) as ArrayRef));
    assert_eq!(keys(vec![]), Some(OneOf(vec![])));
    assert_eq!(keys(vec![None, None]), Some(OneOf(vec![])));
    assert_eq!(keys(vec![Some(3), None, Some(1), Some(3)]), Some(OneOf(vec![Int(1), Int(3)])));
    let thousand = (0..1000).map(Some).collect::<Vec<_>>();
    assert_eq!(keys([thousand.clone(), thousand.clone()].concat()), Some(OneOf((0..1000).map(Int).collect())));
    let more = [vec![None, Some(-7)], thousand].concat();
    assert_eq!(keys(more), Some(Range { min: Some(Int(-7)), max: Some(Int(999)) }));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "b"]));
    assert_eq!(values(&texts), Some(OneOf(vec![Text("a".into()), Text("b".into())])));
    // NaN equals itself in PostgreSQL, and no bound says so.
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN]));
    assert_eq!(values(&floats), None);
}
