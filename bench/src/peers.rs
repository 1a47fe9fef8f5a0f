//! DuckDB and ClickHouse on the same files, in this run: a small Python program drives their packages.

use crate::args::TsbsArgs;
use crate::data::{Data, METRICS};
use crate::queries::{self, Dialect};
use crate::report::{EngineResult, Timing};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

pub struct Peer {
    pub name: &'static str,
    dialect: Dialect,
}

pub const ALL: [Peer; 2] =
    [Peer { name: "duckdb", dialect: Dialect::DuckDb }, Peer { name: "clickhouse", dialect: Dialect::ClickHouse }];

const SCRIPT: &str = include_str!("peers.py");

/// What the script prints.
#[derive(Deserialize)]
struct Measured {
    version: String,
    load_s: f64,
    bytes: u64,
    queries: Vec<MeasuredQuery>,
}

#[derive(Deserialize)]
struct MeasuredQuery {
    name: String,
    times_ms: Vec<f64>,
    rows: u64,
    error: Option<String>,
}

/// # Errors
/// When Python or the peer's package is missing, or the peer fails as a whole.
pub fn measure(peer: &Peer, args: &TsbsArgs, data: &Data, store: &Path) -> Result<EngineResult> {
    let kinds = queries::all(data, args.run.instances, args.run.seed, peer.dialect);
    let order = json!({
        "engine": peer.name,
        "csv": data.dir.join("cpu_*.csv"),
        "store": store,
        "threads": args.peer_threads,
        "metrics": METRICS,
        "queries": kinds.iter().map(|kind| json!([kind.name, kind.statements])).collect::<Vec<_>>(),
    });
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("python3")?;
    child.stdin.take().expect("stdin is piped").write_all(order.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}", stderr.lines().last().unwrap_or("no reason given"));
    }
    let measured: Measured = serde_json::from_slice(&output.stdout).context("what peers.py printed")?;
    let timings = measured.queries.into_iter().map(|query| match query.error {
        Some(error) => Timing::failed(&query.name, &error),
        None => Timing::new(&query.name, query.times_ms, query.rows),
    });
    let queries = timings.inspect(|timing| println!("{}", timing.line())).collect();
    Ok(EngineResult {
        engine: peer.name.to_owned(),
        version: measured.version,
        layout: format!("{} threads of its process", args.peer_threads),
        fsync: "as the package has it".to_owned(),
        compress_s: None,
        rows_per_s: (data.rows as f64 / measured.load_s) as u64,
        peak_mib: Vec::new(),
        restart: None,
        bytes_per_row: Some(measured.bytes as f64 / data.rows as f64),
        queries,
    })
}
