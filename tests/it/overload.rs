//! More than the cluster has: queries larger than their memory, larger than the disk they may use, many at once, and
//! heavy ones that nobody wants any more. They end with the right rows or a clear error, and everybody else goes on.

use crate::cluster::{Cluster, Member, Session, Shape};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROWS: u64 = 200_000;
const SMALL: [&str; 4] = ["--query-memory-mib", "24", "--spill-mib", "512"];
/// About twice what a sort, a join or groups of them may have in memory; each node has half of it.
const ROWS_LARGE: u64 = 600_000;
const MIDDLING: [&str; 2] = ["--query-memory-mib", "64"];
const TICK: Duration = Duration::from_millis(100);
/// Of a debug build on a busy machine.
const TICKS_MAX: usize = 1200;

/// `k` is a permutation of `0..rows`, `pad` the same as text that takes room.
async fn table(session: &Session, rows: u64) {
    session.run("CREATE TABLE t (time timestamptz NOT NULL, device integer, v bigint, k bigint, pad text)").await;
    session.run("SELECT create_distributed_hypertable('t', 'time', 'device')").await;
    let insert = format!(
        "INSERT INTO t SELECT timestamptz '2024-01-01 00:00+00' + n * interval '10 seconds', n % 50, n, n * 1009 % {rows}, \
         lpad((n * 1009 % {rows})::text, 120, '0') FROM generate_series(0, {}) AS n",
        rows - 1
    );
    session.run(&insert).await;
}

/// Queries larger than memory over so many rows, and their only row.
fn large(rows: u64) -> [(&'static str, String); 5] {
    let sum = rows * (rows - 1) / 2;
    [
        (
            "SELECT count(*), sum(r * k) FROM (SELECT k, row_number() OVER (ORDER BY pad) - 1 AS r FROM t) s",
            format!("{rows}|{}", (0..rows).map(|k| k * k).sum::<u64>()),
        ),
        (
            "SELECT count(*), sum(c), sum(m) FROM (SELECT pad, count(*) AS c, max(v) AS m FROM t GROUP BY pad) s",
            format!("{rows}|{rows}|{sum}"),
        ),
        ("SELECT count(DISTINCT pad) FROM t", rows.to_string()),
        ("SELECT count(*), sum(a.v), sum(b.k) FROM t a JOIN t b ON a.pad = b.pad", format!("{rows}|{sum}|{sum}")),
        ("SELECT count(*), sum(s) FROM (SELECT sum(v) OVER (PARTITION BY pad) AS s FROM t) s", format!("{rows}|{sum}")),
    ]
}

/// The right rows, or else how the query ran out of memory.
async fn right_or_out_of_memory(session: &Session, sql: &str, expected: &str) -> Result<(), String> {
    match session.try_rows(sql).await {
        Ok(rows) => {
            let row = rows.concat().into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("|");
            assert_eq!(row, expected, "{sql}");
            Ok(())
        }
        Err(error) => {
            let error = crate::cluster::error_of(&error);
            assert_eq!(error.code().code(), "53200", "{sql}: {error:?}");
            assert!(error.hint().unwrap_or_default().contains("--query-memory-mib"), "{error:?}");
            Err(format!("{sql}: {}", error.detail().unwrap_or_default()))
        }
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn queries_larger_than_memory_give_right_rows_and_four_at_once_do_or_say_so() {
    let cluster = Cluster::start_with(Shape::Embedded, &MIDDLING).await;
    let session = cluster.connect().await;
    table(&session, ROWS_LARGE).await;
    for (sql, expected) in large(ROWS_LARGE) {
        right_or_out_of_memory(&session, sql, &expected).await.unwrap();
    }
    let mut at_once = Vec::new();
    for first in 0..4 {
        let session = cluster.connect().await;
        at_once.push(tokio::spawn(async move {
            for (sql, expected) in large(ROWS_LARGE).into_iter().cycle().skip(first).take(2) {
                // What they hold together may be too much.
                let _ = right_or_out_of_memory(&session, sql, &expected).await;
            }
        }));
    }
    for queries in at_once {
        queries.await.unwrap();
    }
    assert_eq!(session.value("SELECT count(*) FROM t WHERE device = 7").await, (ROWS_LARGE / 50).to_string());
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn without_room_to_spill_a_query_fails_and_says_which_flag_bounds_it() {
    const SORT: &str = "SELECT sum(r * k) FROM (SELECT k, row_number() OVER (ORDER BY pad) AS r FROM t) s";
    for (spill, code, flag) in [("0", "53200", "--query-memory-mib"), ("1", "53100", "--spill-mib")] {
        let options = ["--query-memory-mib", "24", "--spill-mib", spill];
        let cluster = Cluster::start_with(Shape::Embedded, &options).await;
        let session = cluster.connect().await;
        table(&session, ROWS).await;
        let error = session.error(SORT).await;
        assert_eq!(error.code().code(), code, "{error:?}");
        assert!(error.hint().unwrap_or_default().contains(flag), "{error:?}");
        assert_eq!(session.value("SELECT count(*) FROM t").await, ROWS.to_string());
    }
}

/// A nested-loop join keeps one side in memory and does not spill.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_nested_loop_join_larger_than_memory_fails_alone() {
    let cluster = Cluster::start_with(Shape::Embedded, &SMALL).await;
    let session = cluster.connect().await;
    table(&session, ROWS).await;
    let error = session.error("SELECT count(*) FROM t a JOIN t b ON a.pad < b.pad AND a.v > b.k").await;
    assert_eq!(error.code().code(), "53200", "{error:?}");
    assert_eq!(session.value("SELECT count(*) FROM t").await, ROWS.to_string());
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_start_removes_what_was_spilled_before_a_crash() {
    let mut cluster = Cluster::start(Shape::Embedded).await;
    let dir = cluster.data_dir(Member::Coordinator(0));
    let places = ["coordinator/spill", "dn1/spill", "dn2/spill"].map(|place| dir.join(place));
    cluster.kill(Member::Coordinator(0));
    for place in &places {
        assert!(place.is_dir(), "{place:?}");
        std::fs::create_dir(place.join("left")).unwrap();
        std::fs::write(place.join("left").join("rows"), "rows").unwrap();
    }
    cluster.restart(Member::Coordinator(0));
    assert!(places.iter().all(|place| !place.join("left").exists()));
    let session = cluster.settled().await;
    assert_eq!(session.value("SELECT 1").await, "1");
    assert_eq!(files_count(&places[0]), 0);
}

fn files_count(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_count(&path) } else { 1 }).sum()
}

/// Half of the small queries must be quick, however many large ones there are. The bound is for a debug build on a
/// machine that does other things as well; behind four scans in a queue they would take many times as long.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_query_for_one_device_is_quick_while_four_read_everything() {
    const POINT: &str = "SELECT max(v) FROM t WHERE device = 7 AND time >= '2024-01-01' AND time < '2024-01-01 01:00'";
    const SCAN: &str = "SELECT count(DISTINCT pad), sum(v * k), max(pad || device::text) FROM t";
    let cluster = Cluster::start(Shape::Embedded).await;
    let session = cluster.connect().await;
    table(&session, ROWS).await;
    let expected = session.value(POINT).await;
    let enough = Arc::new(AtomicBool::new(false));
    let mut scans = Vec::new();
    for _ in 0..4 {
        let (session, enough) = (cluster.connect().await, Arc::clone(&enough));
        scans.push(tokio::spawn(async move {
            let mut runs = 0;
            while runs == 0 || !enough.load(Ordering::Relaxed) {
                session.rows(SCAN).await;
                runs += 1;
            }
            runs
        }));
    }
    let mut times = Vec::new();
    for _ in 0..41 {
        let started = Instant::now();
        assert_eq!(session.value(POINT).await, expected);
        times.push(started.elapsed());
    }
    enough.store(true, Ordering::Relaxed);
    for scan in scans {
        assert!(scan.await.unwrap() > 0);
    }
    times.sort();
    assert!(times[20] < Duration::from_secs(1), "{times:?}");
}

/// Whoever wants a result goes away in one of these ways.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Cancel,
    Timeout,
    Terminate,
    Vanish,
}

/// It is the processors' time that counts: what is still computed after the client was told, however busy the machine is.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn nobody_computes_what_nobody_waits_for() {
    let cluster = Cluster::start(Shape::Processes).await;
    let session = cluster.connect().await;
    session.run("CREATE TABLE plain (x integer, few integer)").await;
    session.run("INSERT INTO plain SELECT n, n % 3 FROM generate_series(0, 79999) AS n").await;
    table(&session, ROWS).await;
    // The first two are one node's, the third is made of the rows of both.
    let nested = "SELECT count(*) FROM plain a JOIN plain b ON a.x * 2 > b.x * 3 + 100000";
    let hashed = "SELECT count(*) FROM plain a JOIN plain b ON a.few = b.few";
    let gathered = "SELECT count(*) FROM t a JOIN t b ON a.device % 2 = b.device % 2 AND a.v <> b.k";
    let cases = [
        (nested, Leaving::Cancel),
        (hashed, Leaving::Timeout),
        (gathered, Leaving::Cancel),
        (nested, Leaving::Terminate),
        (gathered, Leaving::Vanish),
    ];
    for (sql, leaving) in cases {
        let before = cluster.processor_time();
        let heavy = cluster.connect().await;
        let pid = heavy.value("SELECT pg_backend_pid()").await;
        if let Leaving::Timeout = leaving {
            heavy.run("SET statement_timeout = '2s'").await;
        }
        let cancel = heavy.client.cancel_token();
        let (left, leave) = tokio::sync::oneshot::channel();
        let asking = tokio::spawn(async move {
            let code = tokio::select! {
                answer = heavy.client.simple_query(sql) => {
                    answer.err().map(|error| error.code().map(|code| code.code().to_owned()))
                }
                _ = leave => None,
            };
            heavy.vanish().await;
            code
        });
        let at_work = |since| move |now: Duration| now.saturating_sub(since) > Duration::from_millis(500);
        reached(&cluster, at_work(before)).await;
        match leaving {
            Leaving::Cancel => cancel.cancel_query(tokio_postgres::NoTls).await.unwrap(),
            Leaving::Terminate => drop(session.rows(&format!("SELECT pg_terminate_backend({pid})")).await),
            Leaving::Vanish => left.send(()).unwrap(),
            Leaving::Timeout => {}
        }
        let code = asking.await.unwrap().flatten();
        let expected = match leaving {
            Leaving::Cancel | Leaving::Timeout => Some("57014"),
            Leaving::Terminate => Some("57P01"),
            Leaving::Vanish => None,
        };
        assert_eq!(code.as_deref(), expected, "{sql} {leaving:?}");
        let told = cluster.processor_time();
        let mut last = told;
        // Quiet is a tick without more than what keeps a cluster alive.
        reached(&cluster, |now| {
            let quiet = now.saturating_sub(last) < Duration::from_millis(30);
            last = now;
            quiet
        })
        .await;
        let after = cluster.processor_time() - told;
        assert!(after < Duration::from_secs(2), "{after:?} were spent after {leaving:?} on {sql}");
    }
    assert_eq!(session.value("SELECT count(*) FROM plain").await, "80000");
}

/// Looks every tick, first after one.
async fn reached(cluster: &Cluster, mut condition: impl FnMut(Duration) -> bool) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.tick().await;
    for _ in 0..TICKS_MAX {
        ticks.tick().await;
        if condition(cluster.processor_time()) {
            return;
        }
    }
    panic!("the processors' time does not come to what is expected");
}
