//! Commits per second and their latency: transactions of one node and of two, of one row and of a thousand, by more and
//! more clients, with one coordinator and with three; and how long clients wait when a coordinator dies.
//!
//! A transaction is one message of INSERTs, so that it costs the client one round trip. Every client has rows of its own:
//! nobody waits for another's.

use crate::args::CommitsArgs;
use crate::cluster::{Cluster, Mode};
use crate::load::connect;
use crate::report::{Machine, percentile};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[derive(Serialize)]
pub struct Commits {
    machine: Machine,
    seconds: u64,
    /// Median of appending a block to a file and syncing it, where the clusters live.
    fsync_ms: f64,
    engines: Vec<Engine>,
}

#[derive(Serialize)]
struct Engine {
    name: String,
    cells: Vec<Cell>,
    /// From the death of the leader to the next commit, one for each time.
    failovers_s: Vec<f64>,
}

#[derive(Serialize)]
struct Cell {
    workload: String,
    clients: u32,
    commits_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Clone, Copy)]
struct Workload {
    name: &'static str,
    /// Of each table; the second is on the other node.
    rows: [usize; 2],
}

const WORKLOADS: [Workload; 4] = [
    Workload { name: "one node, 1 row", rows: [1, 0] },
    Workload { name: "two nodes, 1 row each", rows: [1, 1] },
    Workload { name: "one node, 1,000 rows", rows: [1000, 0] },
    Workload { name: "two nodes, 500 rows each", rows: [500, 500] },
];

/// # Errors
/// A server's, and that of a cluster that does not start.
pub async fn run(args: &CommitsArgs) -> Result<Commits> {
    let scratch = tempfile::Builder::new().prefix("seriatim-bench-").tempdir_in(&args.scratch)?;
    let fsync_ms = fsync_ms(scratch.path())?;
    println!("one fsync: {fsync_ms:.2} ms");
    let mut engines = Vec::new();
    for coordinators in &args.coordinators {
        let name = format!("{coordinators} coordinator{}", if *coordinators == 1 { "" } else { "s" });
        println!("{name}");
        let dir = scratch.path().join(format!("c{coordinators}"));
        let mode = Mode::Group { nodes: 2, coordinators: *coordinators };
        let mut cluster = Cluster::start(&args.binary()?, &dir, mode).await?;
        let cells = measure(&cluster.url(), args, ["create_distributed_hypertable", "dn1", "dn2"]).await?;
        let failovers_s = match *coordinators > 1 {
            true => failovers(&mut cluster, args.failovers).await?,
            false => Vec::new(),
        };
        engines.push(Engine { name, cells, failovers_s });
    }
    if let Some(url) = &args.against {
        println!("{url}");
        let cells = measure(url, args, ["", "", ""]).await?;
        engines.push(Engine { name: args.against_name.clone(), cells, failovers_s: Vec::new() });
    }
    Ok(Commits { machine: Machine::here(), seconds: args.seconds, fsync_ms, engines })
}

/// `hypertable`: the function that makes one, and the node of each table; empty for a server without nodes.
async fn measure(url: &str, args: &CommitsArgs, hypertable: [&str; 3]) -> Result<Vec<Cell>> {
    let client = connect(url).await?;
    let [create, nodes @ ..] = hypertable;
    for (table, node) in ["a", "b"].iter().zip(nodes) {
        client.batch_execute(&format!("DROP TABLE IF EXISTS {table}")).await?;
        client
            .batch_execute(&format!("CREATE TABLE {table} (time timestamptz NOT NULL, client integer, value float)"))
            .await?;
        if !create.is_empty() {
            let make = format!("SELECT {create}('{table}', 'time', data_nodes => '{{{node}}}')");
            client.batch_execute(&make).await.with_context(|| make.clone())?;
        }
        // The chunk is there before anything is measured.
        client.batch_execute(&format!("INSERT INTO {table} VALUES ('2024-01-01', 0, 0)")).await?;
    }
    let mut cells = Vec::new();
    for workload in WORKLOADS {
        for clients in &args.clients {
            let cell = cell(url, workload, *clients, Duration::from_secs(args.seconds)).await?;
            println!(
                "{:<26} {clients:>3} clients {:>9.0} /s  p50 {:>7.2} ms  p99 {:>7.2} ms",
                cell.workload, cell.commits_per_s, cell.p50_ms, cell.p99_ms
            );
            cells.push(cell);
        }
    }
    Ok(cells)
}

async fn cell(url: &str, workload: Workload, clients: u32, length: Duration) -> Result<Cell> {
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let (client, over) = (connect(url).await?, Arc::clone(&over));
        let statement = workload.statement(number);
        tasks.spawn(async move {
            let mut times_ms = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let started = Instant::now();
                client.batch_execute(&statement).await?;
                times_ms.push(started.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(times_ms)
        });
    }
    let started = Instant::now();
    tokio::time::sleep(length).await;
    over.store(true, Ordering::Relaxed);
    let mut times_ms = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times_ms.extend(done??);
    }
    let elapsed = started.elapsed().as_secs_f64();
    ensure!(!times_ms.is_empty(), "{}: not one commit", workload.name);
    times_ms.sort_by(f64::total_cmp);
    Ok(Cell {
        workload: workload.name.to_owned(),
        clients,
        commits_per_s: times_ms.len() as f64 / elapsed,
        p50_ms: percentile(&times_ms, 0.5),
        p99_ms: percentile(&times_ms, 0.99),
    })
}

impl Workload {
    /// One message; several statements of it are one transaction.
    fn statement(self, client: u32) -> String {
        let mut text = String::new();
        for (table, rows) in ["a", "b"].iter().zip(self.rows).filter(|(_, rows)| *rows > 0) {
            let values =
                (0..rows).map(|row| format!("('2024-01-01 00:{:02}:{:02}', {client}, {row})", row / 60, row % 60));
            let values = values.collect::<Vec<_>>().join(", ");
            write!(text, "INSERT INTO {table} VALUES {values};").expect("strings take everything");
        }
        text
    }
}

/// Kills whoever leads, as often as asked, while a client commits whenever it may.
async fn failovers(cluster: &mut Cluster, times: u32) -> Result<Vec<f64>> {
    let committed = Arc::new(AtomicU64::new(0));
    let url = cluster.url();
    let writer = {
        let committed = Arc::clone(&committed);
        let statement = WORKLOADS[1].statement(0);
        tokio::spawn(async move {
            loop {
                if let Ok(client) = connect(&url).await {
                    while client.batch_execute(&statement).await.is_ok() {
                        committed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let mut seconds = Vec::new();
    for _ in 0..times {
        let leader = cluster.kill_leader().await?;
        let (started, before) = (Instant::now(), committed.load(Ordering::Relaxed));
        while committed.load(Ordering::Relaxed) <= before + 1 {
            ensure!(started.elapsed().as_secs() < 60, "nobody leads a minute after the leader died");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        seconds.push(started.elapsed().as_secs_f64());
        println!("failover {:.2} s", seconds[seconds.len() - 1]);
        cluster.start_again(leader)?;
        // All three must be level again before the next one may die.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    writer.abort();
    Ok(seconds)
}

fn fsync_ms(dir: &Path) -> Result<f64> {
    let mut file = std::fs::File::create(dir.join("fsync"))?;
    let mut times_ms = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        times_ms.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times_ms.sort_by(f64::total_cmp);
    Ok(percentile(&times_ms, 0.5))
}

impl Commits {
    /// One row for each workload and number of clients.
    pub fn markdown(&self) -> String {
        let Machine { cpu, cores, memory_gb, kernel } = &self.machine;
        let mut lines = vec![
            format!("{cpu}, {cores} cores, {memory_gb} GB, {kernel}; one fsync {:.2} ms\n", self.fsync_ms),
            format!(
                "| commits/s (p50, p99 ms) | {} |",
                self.engines.iter().map(|engine| engine.name.clone()).collect::<Vec<_>>().join(" | ")
            ),
            format!("|---|{}", "---:|".repeat(self.engines.len())),
        ];
        for (index, first) in self.engines[0].cells.iter().enumerate() {
            let cells = self.engines.iter().map(|engine| {
                let Cell { commits_per_s, p50_ms, p99_ms, .. } = &engine.cells[index];
                format!("{commits_per_s:.0} ({p50_ms:.2}, {p99_ms:.2})")
            });
            let cells = cells.collect::<Vec<_>>().join(" | ");
            lines.push(format!("| {}, {} clients | {cells} |", first.workload, first.clients));
        }
        let failover = |engine: &Engine| match engine.failovers_s.as_slice() {
            [] => "-".to_owned(),
            all => {
                let mut sorted = all.to_vec();
                sorted.sort_by(f64::total_cmp);
                format!("{:.1} ({:.1})", percentile(&sorted, 0.5), sorted[sorted.len() - 1])
            }
        };
        let cells = self.engines.iter().map(failover).collect::<Vec<_>>().join(" | ");
        lines.push(format!(
            "| kill -9 of the leader to the next commit, s (worst of {}) | {cells} |",
            self.engines.iter().map(|engine| engine.failovers_s.len()).max().unwrap_or(0)
        ));
        lines.join("\n") + "\n"
    }
}
