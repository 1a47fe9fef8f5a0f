//! Aggregation by runs on the nodes gives what DataFusion's gives on the coordinator: every function, over rows in runs and
//! in none, with NULLs everywhere, filters, and no rows at all.

use super::cluster::{Chance, Cluster, DAY_US, START_US, column, hypertable, statement, text};
use crate::PgType;
use crate::functions::FUNCTIONS;
use crate::plan::bind::bind;
use crate::plan::codec::decode;
use crate::plan::engine::physical_plan;
use crate::plan::exchange::RemoteExec;
use crate::plan::execute::runtime;
use crate::plan::shuffle::Sources;
use crate::plan::tests::cluster::Stored;
use crate::plan::{ChunkStore, EngineOptions};
use arrow::array::AsArray;
use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, collect};
use proto::{Clock, CommitSeq, FragmentRequest, NodeName, QueryId, SystemClock};
use std::sync::Arc;

/// A call of every aggregate function there is. Sums are of quarters, so that they are exact in any order.
const CALLS: &[(&str, &str)] = &[
    ("array_agg", "array_agg(temp ORDER BY time)"),
    ("avg", "avg(temp)"),
    ("avg", "avg(n)"),
    ("avg", "avg(amount)"),
    ("avg", "avg(ratio)"),
    ("avg", "avg(DISTINCT temp)"),
    ("bit_and", "bit_and(n)"),
    ("bit_or", "bit_or(n)"),
    ("bit_xor", "bit_xor(n)"),
    ("bool_and", "bool_and(odd)"),
    ("bool_or", "bool_or(odd)"),
    ("every", "every(odd)"),
    ("corr", "corr(temp, n)"),
    ("count", "count(*)"),
    ("count", "count(temp)"),
    ("count", "count(host)"),
    ("count", "count(NULL)"),
    ("count", "count(DISTINCT host)"),
    ("count", "count(DISTINCT n)"),
    ("covar_pop", "covar_pop(temp, n)"),
    ("covar_samp", "covar_samp(temp, n)"),
    ("first", "first(temp, time)"),
    ("first_value", "first_value(temp ORDER BY time)"),
    ("histogram", "histogram(temp, 10, 90, 5)"),
    ("last", "last(host, time)"),
    ("last_value", "last_value(host ORDER BY time)"),
    ("max", "max(temp)"),
    ("max", "max(n)"),
    ("max", "max(amount)"),
    ("max", "max(ratio)"),
    ("max", "max(time)"),
    ("max", "max(day)"),
    ("max", "max(host)"),
    ("max", "max(device)"),
    ("min", "min(temp)"),
    ("min", "min(n)"),
    ("min", "min(amount)"),
    ("min", "min(ratio)"),
    ("min", "min(time)"),
    ("min", "min(day)"),
    ("min", "min(host)"),
    ("min", "min(device)"),
    ("mode", "mode() WITHIN GROUP (ORDER BY device)"),
    ("percentile_cont", "percentile_cont(0.5) WITHIN GROUP (ORDER BY temp)"),
    ("percentile_disc", "percentile_disc(0.25) WITHIN GROUP (ORDER BY temp)"),
    ("regr_avgx", "regr_avgx(temp, n)"),
    ("regr_avgy", "regr_avgy(temp, n)"),
    ("regr_count", "regr_count(temp, n)"),
    ("regr_intercept", "regr_intercept(temp, n)"),
    ("regr_r2", "regr_r2(temp, n)"),
    ("regr_slope", "regr_slope(temp, n)"),
    ("regr_sxx", "regr_sxx(temp, n)"),
    ("regr_sxy", "regr_sxy(temp, n)"),
    ("regr_syy", "regr_syy(temp, n)"),
    ("stddev", "stddev(temp)"),
    ("stddev_pop", "stddev_pop(temp)"),
    ("string_agg", "string_agg(host, ',' ORDER BY time)"),
    ("sum", "sum(temp)"),
    ("sum", "sum(n)"),
    ("sum", "sum(device)"),
    ("sum", "sum(amount)"),
    ("sum", "sum(ratio)"),
    ("sum", "sum(1)"),
    ("sum", "sum(DISTINCT temp)"),
    ("var_pop", "var_pop(temp)"),
    ("variance", "variance(temp)"),
];

/// One is part of grouping sets, which do not go by runs; the other is for windows.
const NOT_CALLED: &[&str] = &["grouping", "nth_value"];

const GROUPS: &[&[&str]] = &[
    &["device"],
    &["host"],
    &["time_bucket('1 day', time)"],
    &["time_bucket('1 month', time)", "host"],
    &["time_bucket('12 hours', time)", "device"],
    &["date_trunc('week', time)", "device", "odd"],
    &["device", "day"],
    &["temp"],
];

#[derive(Clone, Copy, Debug)]
enum Order {
    Series,
    SeriesBackwards,
    Random,
}

/// A cluster whose chunks hold `count` rows over 30 days in that order.
fn cluster(count: usize, order: Order, seed: u64) -> Arc<Cluster> {
    let cluster = Cluster::empty(&["dn1", "dn2"]);
    let mut def = hypertable(1, "conditions", &["dn1", "dn2"], 15);
    let more = [("n", PgType::Int8), ("amount", PgType::Numeric(None)), ("ratio", PgType::Float4)];
    let more = more.into_iter().chain([("day", PgType::Date), ("odd", PgType::Bool)]);
    def.columns.extend((5..).zip(more).map(|(id, (name, ty))| column(id, name, ty)));
    let mut chance = Chance(seed);
    // Times are all different, so that the order of rows within a group is told by them.
    let rows = (0..count).map(|row| {
        let time = START_US + (row as i64 * 30 * DAY_US) / count as i64;
        ((chance.below(20) > 0).then(|| chance.below(12) as i32), time, chance.below(u64::MAX))
    });
    let mut rows = rows.collect::<Vec<_>>();
    match order {
        Order::Series => rows.sort_by_key(|row| (row.0, row.1)),
        Order::SeriesBackwards => rows.sort_by_key(|row| (row.0, -row.1)),
        Order::Random => rows.sort_by_key(|row| row.2),
    }
    // NULLs come alone and in stretches.
    let mut some = |limit: u64, row: usize| {
        let there = chance.below(20) > 0 && row % 500 > 20;
        there.then(|| chance.below(limit) as i64)
    };
    let quarters = |value: Option<i64>| value.map(|value| value as f64 / 4.0);
    let schema = def.schema();
    let numeric = schema.field(5).data_type().clone();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1)).with_timezone("UTC")),
        Arc::new(rows.iter().map(|row| row.0).collect::<Int32Array>()),
        Arc::new((0..count).map(|row| quarters(some(400, row))).collect::<Float64Array>()),
        Arc::new(
            rows.iter().map(|row| row.0.filter(|d| *d > 0).map(|d| format!("host_{}", d / 2))).collect::<StringArray>(),
        ),
        Arc::new((0..count).map(|row| some(1000, row)).collect::<Int64Array>()),
        Arc::new(
            (0..count).map(|row| some(1000, row).map(i128::from)).collect::<Decimal128Array>().with_data_type(numeric),
        ),
        Arc::new((0..count).map(|row| quarters(some(400, row)).map(|v| v as f32)).collect::<Float32Array>()),
        Arc::new(rows.iter().map(|row| Some((row.1 / DAY_US) as i32)).collect::<Date32Array>()),
        Arc::new(rows.iter().map(|row| row.0.map(|device| device % 2 == 1)).collect::<BooleanArray>()),
    ];
    cluster.load(def, &RecordBatch::try_new(schema, columns).unwrap());
    Arc::new(cluster)
}

#[test]
fn every_aggregate_function_is_tried() {
    let tried = |name: &str| CALLS.iter().any(|(call, _)| *call == name) || NOT_CALLED.contains(&name);
    let missing = FUNCTIONS.aggregates().into_iter().filter(|function| !tried(function.name()));
    assert_eq!(missing.map(|function| function.name().to_owned()).collect::<Vec<_>>(), Vec::<String>::new());
}

/// The same but for what the order of additions does to the last digits. Both begin with keys, by which they are sorted.
fn alike(left: &[String], right: &[String]) -> bool {
    let cell = |(left, right): (&str, &str)| match (left.trim(), right.trim()) {
        (left, right) if left == right => true,
        (left, right) => match (left.parse::<f64>(), right.parse::<f64>()) {
            (Ok(left), Ok(right)) => (left - right).abs() <= 1e-9 * left.abs().max(1.0),
            _ => false,
        },
    };
    left.len() == right.len() && left.iter().zip(right).all(|(l, r)| l.split('|').zip(r.split('|')).all(cell))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_change_no_answer() {
    let mut wrong = Vec::new();
    for (order, count) in
        [(Order::Series, 3000), (Order::SeriesBackwards, 3000), (Order::Random, 1000), (Order::Series, 0)]
    {
        let cluster = cluster(count, order, count as u64 + 1);
        let mut chance = Chance(7 + count as u64);
        for groups in GROUPS {
            // A few functions at a time, so that they share what is found out about a batch.
            for calls in CALLS.chunks(8) {
                let filter = ["", " FILTER (WHERE temp > 30)", " FILTER (WHERE odd)"][chance.below(3) as usize];
                let calls = calls.iter().map(|(_, call)| format!("{call}{filter}")).collect::<Vec<_>>().join(", ");
                let filter = ["", " WHERE temp < 80", " WHERE time >= '2019-01-11T00:00:00Z'::timestamptz"];
                let filter = filter[chance.below(3) as usize];
                let keys = groups.join(", ");
                let sql = format!("SELECT {keys}, {calls} FROM conditions{filter} GROUP BY {keys}");
                let expected = cluster.query(&sql, false).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
                match cluster.query(&sql, true).await {
                    Ok(answer) if alike(&text(&answer, false), &text(&expected, false)) => {}
                    Ok(answer) => wrong.push(format!(
                        "{order:?} {count}: {sql}\n{}\nnot\n{}",
                        text(&answer, false)[..8.min(answer.num_rows())].join("\n"),
                        text(&expected, false)[..8.min(expected.num_rows())].join("\n"),
                    )),
                    Err(error) => wrong.push(format!("{order:?} {count}: {sql}: {error}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong, the first: {}", wrong.len(), wrong[0]);
}

/// The operator of that name in what the first node runs for `sql`.
async fn on_first_node(cluster: &Arc<Cluster>, sql: &str, name: &str) -> Option<Arc<dyn ExecutionPlan>> {
    let context = cluster.context(true);
    let prepared = cluster.engine.prepare(&statement(sql), &[], &context).unwrap();
    let plan = physical_plan(&cluster.engine, &prepared, &context).await;
    let mut found = None;
    let store: Arc<dyn ChunkStore> = Arc::new(Stored(cluster.stores[&NodeName::from("dn1")].clone()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    plan.apply(|node| {
        let Some(remote) = node.downcast_ref::<RemoteExec>() else { return Ok(TreeNodeRecursion::Continue) };
        let request = FragmentRequest {
            query: QueryId(1),
            plan: remote.fragment.bytes.clone(),
            values: bytes::Bytes::new(),
            scans: remote.fragment.parts[0].scans.clone(),
            snapshot: CommitSeq::MAX,
            txn: None,
            time_zone: "UTC".into(),
            partitions: 2,
            now_us: START_US,
            shuffle: Default::default(),
        };
        let task = TaskContext::from(&crate::semantics::session_state(&crate::Settings::default()));
        let plan = decode(&request.plan, &task).unwrap();
        let bound = bind(&plan, &request, &store, &clock, None, &Sources::default())?;
        bound.apply(|node| {
            if node.name() == name {
                found = Some(Arc::clone(node));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })
    .unwrap();
    found
}

#[tokio::test]
async fn aggregations_over_scans_go_by_runs_and_no_others() {
    let cluster = cluster(100, Order::Series, 1);
    for (sql, replaced) in [
        ("SELECT device, avg(temp) FROM conditions GROUP BY device", true),
        ("SELECT time_bucket('1 hour', time), host, avg(temp) FROM conditions WHERE temp > 1 GROUP BY 1, 2", true),
        ("SELECT DISTINCT host FROM conditions", true),
        ("SELECT count(*) FROM conditions", false),
        ("SELECT host, device, count(*) FROM conditions GROUP BY ROLLUP (host, device)", false),
    ] {
        let found = on_first_node(&cluster, sql, "RunAggregateExec").await;
        assert_eq!(found.is_some(), replaced, "{sql}");
    }
}

/// States go out early then; each group may have several.
#[tokio::test]
async fn partial_groups_that_do_not_fit_into_memory_go_out_early() {
    let cluster = cluster(3000, Order::Series, 1);
    let sql = "SELECT time_bucket('12 hours', time), host, count(*) FROM conditions GROUP BY 1, 2";
    let mut groups = Vec::new();
    for memory_bytes in [20_000, 1 << 30] {
        let operator = on_first_node(&cluster, sql, "RunAggregateExec").await.unwrap();
        let task = TaskContext::from(&crate::semantics::session_state(&crate::Settings::default()));
        let task = Arc::new(task.with_runtime(runtime(&EngineOptions { memory_bytes, spill: None })));
        let batches = collect(operator, task).await.unwrap();
        let counts = batches.iter().flat_map(|batch| batch.column(2).as_primitive::<Int64Type>().values().to_vec());
        let counts = counts.collect::<Vec<_>>();
        groups.push((counts.len(), counts.iter().sum::<i64>()));
    }
    assert_eq!(groups[0].1, groups[1].1);
    assert!(groups[0].0 > groups[1].0, "{groups:?}");
}
