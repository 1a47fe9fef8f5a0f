//! What EXPLAIN ANALYZE says, held against what was loaded: on a table of known chunks and rows, in one process and on
//! three.

use crate::cluster::{Cluster, Session, Shape};
use serde_json::Value;
use tokio_postgres::types::Type;

const DAYS: u64 = 3;
const DEVICES: u64 = 8;
const PER_DAY: u64 = 1440;
const NODES: u64 = 2;

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn explain_analyze_tells_the_truth_embedded() {
    tells_the_truth(Shape::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn explain_analyze_tells_the_truth_on_three_processes() {
    tells_the_truth(Shape::Processes).await;
}

/// A row per device and minute of three days, a chunk per day and node, all of them sealed and sorted by series; `level`
/// is the number of the day.
async fn load(session: &Session) {
    session.run("CREATE TABLE readings (time timestamptz NOT NULL, device integer, level float, host text)").await;
    let interval = "chunk_time_interval => interval '1 day'";
    session.run(&format!("SELECT create_distributed_hypertable('readings', 'time', 'device', {interval})")).await;
    let rows = session
        .run(
            "INSERT INTO readings SELECT '2024-01-01'::timestamptz + (m || ' minutes')::interval, d, m / 1440 + 1, \
             'host_' || d % 3 FROM generate_series(0, 4319) m, generate_series(1, 8) d",
        )
        .await;
    assert_eq!(rows, DAYS * DEVICES * PER_DAY);
    session
        .run(
            "ALTER TABLE readings SET (timescaledb.compress, timescaledb.compress_segmentby = 'device', \
             timescaledb.compress_orderby = 'time')",
        )
        .await;
    assert_eq!(session.value("SELECT count(compress_chunk(c)) FROM show_chunks('readings') c").await, "6");
}

async fn tells_the_truth(shape: Shape) {
    let cluster = Cluster::start(shape).await;
    let session = cluster.connect().await;
    load(&session).await;

    // Whole days are chunks: planning leaves one chunk to each node, and all of its rows.
    let sql =
        "SELECT device, avg(level) FROM readings WHERE time >= '2024-01-02' AND time < '2024-01-03' GROUP BY device";
    let (first, again) = (analyzed(&session, sql).await, analyzed(&session, sql).await);
    assert_eq!(first["Actual Rows"], DEVICES);
    for run in [&first, &again] {
        let scans = scans(run);
        assert_eq!(scans.len() as u64, NODES);
        assert_eq!(sum(&scans, |scan| &scan["Actual Rows"]), DEVICES * PER_DAY);
        assert_eq!(sum(&scans, |scan| &scan["Rows decoded"]), DEVICES * PER_DAY);
        for scan in scans {
            assert_eq!(scan["Chunks"].as_array().unwrap().len(), 1, "{scan}");
            assert_eq!(scan["Chunks excluded during planning"], (DAYS - 1) * NODES);
            assert_eq!((&scan["Read"]["chunks"]["count"], &scan["Read"]["chunks"]["of"]), (&1.into(), &1.into()));
            assert_eq!((&scan["Read"]["segments"]["count"], &scan["Read"]["segments"]["of"]), (&1.into(), &1.into()));
            assert!(scan["Bytes"]["read"].as_u64().unwrap() > 0, "{scan}");
        }
        nodes(run).into_iter().for_each(|node| times_and_traffic_are_plausible(node, shape));
    }
    // Footers and page indexes of segments that are open by now come from memory.
    for scan in scans(&again) {
        assert!(scan["Bytes"]["from memory"].as_u64().unwrap() > 0, "{scan}");
    }

    // No chunk is known for its levels: the nodes find out, from the segments' statistics, and read the others only.
    let run = analyzed(&session, "SELECT count(*) FROM readings WHERE level >= 3").await;
    let read = scans(&run);
    assert_eq!(sum(&read, |scan| &scan["Actual Rows"]), DEVICES * PER_DAY);
    assert_eq!(sum(&read, |scan| &scan["Rows skipped"]["by statistics"]), (DAYS - 1) * DEVICES * PER_DAY);
    for scan in read {
        assert_eq!((&scan["Read"]["chunks"]["count"], &scan["Read"]["chunks"]["of"]), (&1.into(), &DAYS.into()));
        assert_eq!(scan["Chunks skipped"]["by the data node"], DAYS - 1, "{scan}");
        assert!(scan.get("Chunks excluded during planning").is_none(), "{scan}");
    }

    // One series of those of its node. Its other rows are skipped, by whatever tells where they are.
    let run = analyzed(&session, "SELECT count(*) FROM readings WHERE device = 5").await;
    let [scan] = scans(&run)[..] else { panic!("a device is on one node: {run}") };
    assert_eq!(scan["Rows decoded"], DAYS * PER_DAY);
    let skipped = scan["Rows skipped"].as_object().unwrap().values().map(|rows| rows.as_u64().unwrap()).sum::<u64>();
    // Those of the other devices of its node, which has at least one and not all.
    assert_eq!(skipped % (DAYS * PER_DAY), 0, "{scan}");
    assert!((1..DEVICES - 1).contains(&(skipped / (DAYS * PER_DAY))), "{scan}");

    // What no statistics can tell is left out by a filter, above a scan that reads all.
    let run = analyzed(&session, "SELECT count(*) FROM readings WHERE device % 2 = 0").await;
    let (scanned, removed) = (scans(&run), all(&run, &|node| node["Node Type"] == "Filter"));
    assert_eq!(sum(&scanned, |scan| &scan["Actual Rows"]), DAYS * DEVICES * PER_DAY);
    assert_eq!(sum(&removed, |filter| &filter["Rows Removed by Filter"]), DAYS * DEVICES / 2 * PER_DAY);

    // Rows of its own transaction are read where they are, in memory.
    session.run("BEGIN").await;
    session.run("INSERT INTO readings SELECT '2024-01-01 12:00', d, 1, 'own' FROM generate_series(1, 8) d").await;
    let run = analyzed(&session, "SELECT host, count(*) FROM readings GROUP BY host").await;
    let read = scans(&run);
    session.run("ROLLBACK").await;
    assert_eq!(sum(&read, |scan| &scan["Rows in memory"]["count"]), 8);
    assert_eq!(sum(&read, |scan| &scan["Actual Rows"]), DAYS * DEVICES * PER_DAY + 8);
    let why = "keys (host) do not contain the space column";
    assert_eq!(all(&run, &|node| node["Not pushed down"] == why).len(), 1, "{run}");

    // Nothing is left to read, and it says so.
    let run = analyzed(&session, "SELECT count(*) FROM readings WHERE time > '2030-01-01'").await;
    assert!(nodes(&run).is_empty(), "{run}");
    assert_eq!(sum(&scans(&run), |scan| &scan["Chunks excluded during planning"]), DAYS * NODES);

    by_the_extended_protocol(&session).await;
    options_leave_out_what_they_name(&session).await;
}

/// The plan, from `FORMAT JSON` by the simple protocol.
async fn analyzed(session: &Session, sql: &str) -> Value {
    let text = session.value(&format!("EXPLAIN (ANALYZE, FORMAT JSON) {sql}")).await;
    let explained = serde_json::from_str::<Value>(&text).unwrap();
    explained[0]["Plan"].clone()
}

/// The nodes of a plan that are wanted.
fn all<'a>(plan: &'a Value, wanted: &dyn Fn(&Value) -> bool) -> Vec<&'a Value> {
    let below = plan["Plans"].as_array().into_iter().flatten().flat_map(|child| all(child, wanted));
    wanted(plan).then_some(plan).into_iter().chain(below).collect()
}

fn scans(plan: &Value) -> Vec<&Value> {
    all(plan, &|node| node["Node Type"] == "Seq Scan")
}

fn nodes(plan: &Value) -> Vec<&Value> {
    all(plan, &|node| node["Custom Plan Provider"] == "DataNodeScan")
}

fn sum(nodes: &[&Value], number: fn(&Value) -> &Value) -> u64 {
    nodes.iter().map(|node| number(node).as_u64().unwrap_or(0)).sum()
}

fn times_and_traffic_are_plausible(node: &Value, shape: Shape) {
    let times = &node["Time"];
    let parts = ["decode", "aggregate", "other"].map(|part| times[part].as_f64().unwrap());
    // A partition computes and reads ahead at the same time.
    let threads = 2 * std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let elapsed = node["Actual Total Time"].as_f64().unwrap();
    assert!(parts.iter().sum::<f64>() <= elapsed * threads as f64, "{node}");
    assert!(parts[0] > 0.0 && parts[1] > 0.0, "{node}");
    match shape {
        Shape::Embedded => {
            assert!(times["waiting"].as_f64().is_some(), "{node}");
            assert_eq!(node["Network"], "none, the data node is in this process");
        }
        _ => {
            assert!(times["network"].as_f64().is_some(), "{node}");
            let traffic = &node["Network"];
            // Rows, and at the end the metrics.
            assert!(traffic["messages"].as_u64().unwrap() >= 2, "{node}");
            let rows_bytes = DEVICES / NODES * 12;
            assert!(traffic["received"].as_u64().unwrap() > rows_bytes, "{node}");
            assert!(traffic["sent"].as_u64().unwrap() > 0, "{node}");
        }
    }
}

async fn by_the_extended_protocol(session: &Session) {
    let sql = "EXPLAIN (ANALYZE, COSTS OFF) SELECT count(*) FROM readings WHERE device = $1";
    let prepared = session.client.prepare(sql).await.unwrap();
    assert_eq!((prepared.params(), prepared.columns()[0].type_()), (&[Type::INT4][..], &Type::TEXT));
    let lines = session.client.query(&prepared, &[&5i32]).await.unwrap();
    let lines = lines.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>();
    assert!(lines.iter().any(|line| line.contains("Filter: device = 5")), "{lines:#?}");
    let told = |what: &str| lines.iter().filter(|line| line.trim_start().starts_with(what)).count();
    for what in ["Data node: ", "Time: decode ", "Network: ", "Read: chunks 3 of 3, ", "Rows decoded: 4320", "Bytes: "]
    {
        assert_eq!(told(what), 1, "{what}\n{lines:#?}");
    }
    assert_eq!(told("Execution Time: "), 1, "{lines:#?}");
    let json = session.client.prepare("EXPLAIN (FORMAT JSON) SELECT 1").await.unwrap();
    assert_eq!(json.columns()[0].type_(), &Type::JSON);
}

async fn options_leave_out_what_they_name(session: &Session) {
    let sql = "SELECT count(*) FROM readings";
    let off = "COSTS OFF, TIMING OFF, BUFFERS OFF, SUMMARY OFF";
    let lines = session.lines(&format!("EXPLAIN (ANALYZE, {off}) {sql}")).await;
    assert_eq!(lines[0], "Aggregate (final) (actual rows=1 loops=1)");
    for word in ["cost", "time=", "Time", "Bytes", "Network"] {
        assert!(!lines.iter().any(|line| line.contains(word)), "{word}: {lines:#?}");
    }
    let lines = session.lines(&format!("EXPLAIN (SUMMARY) {sql}")).await;
    assert!(lines.last().unwrap().starts_with("Planning Time: "), "{lines:#?}");
    assert!(lines[0].starts_with("Aggregate (final)  (cost=0.00.."), "{lines:#?}");
    for (options, code) in [("FORMAT XML", "0A000"), ("FORMAT csv", "22023"), ("TIMING", "22023"), ("COST", "42601")] {
        assert_eq!(session.error(&format!("EXPLAIN ({options}) {sql}")).await.code().code(), code, "{options}");
    }
    let refused = session.error("EXPLAIN ANALYZE DELETE FROM readings").await;
    assert_eq!(refused.code().code(), "0A000");
    assert_eq!(session.value(sql).await, (DAYS * DEVICES * PER_DAY).to_string());
}
