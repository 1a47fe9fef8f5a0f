//! Measures Seriatim from outside: `cargo run --release -p bench -- tsbs` generates the TSBS devops data, loads it and
//! times the 15 queries; `--peers` does the same with DuckDB and ClickHouse on the same files, in the same run. `scale` shows
//! how cost grows with the rows, `commits` what a commit costs.
//!
//! It is not a test and depends on none of our crates: it speaks the Postgres wire and nothing else.
//!
//! A run, top-down: `args` → `data` writes CSV files → `cluster` starts processes of the release binary →
//! `load` copies the files → `queries` makes the statements, `timing` runs them → `peers` → `report`.

mod args;
mod cluster;
mod commits;
mod data;
mod load;
mod peers;
mod queries;
mod report;
mod timing;

use anyhow::{Context, Result};
use args::{Args, Command, CommitsArgs, ScaleArgs, ServerArgs, TsbsArgs};
use clap::Parser;
use cluster::Cluster;
use data::Data;
use queries::Dialect;
use report::{EngineResult, Machine, Report, Restart};
use std::path::Path;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Args::parse().command {
        Command::Tsbs(args) => runtime.block_on(tsbs(args)),
        Command::Scale(args) => runtime.block_on(scale(args)),
        Command::Commits(args) => runtime.block_on(commits(args)),
    }
}

async fn tsbs(args: TsbsArgs) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("seriatim-bench-").tempdir_in(&args.run.scratch)?;
    let data = generate(scratch.path(), &args.run, args.hours)?;
    let mut engines = vec![match &args.against {
        Some(url) => measure(url.clone(), None, &args.run, &data, args.plain_postgres).await?,
        None => measure_ours(&args.run, &data, scratch.path()).await?,
    }];
    for peer in if args.peers { &peers::ALL[..] } else { &[] } {
        println!("{}", peer.name);
        match peers::measure(peer, &args, &data, &scratch.path().join(peer.name)) {
            Ok(result) => engines.push(result),
            Err(why) => println!("{} is left out: {why:#}", peer.name),
        }
    }
    let report = report(&args.run, &data, engines);
    print!("\n{}", report.markdown());
    write_json(args.run.json.as_deref(), &report)
}

/// One cluster and one set of data after the other.
async fn scale(args: ScaleArgs) -> Result<()> {
    let mut reports = Vec::new();
    for hours in &args.hours {
        let scratch = tempfile::Builder::new().prefix("seriatim-bench-").tempdir_in(&args.run.scratch)?;
        let data = generate(scratch.path(), &args.run, *hours)?;
        let ours = measure_ours(&args.run, &data, scratch.path()).await?;
        reports.push(report(&args.run, &data, vec![ours]));
    }
    print!("\n{}", report::growth(&reports));
    write_json(args.run.json.as_deref(), &reports)
}

async fn commits(args: CommitsArgs) -> Result<()> {
    let commits = commits::run(&args).await?;
    print!("\n{}", commits.markdown());
    write_json(args.json.as_deref(), &commits)
}

fn generate(scratch: &Path, run: &ServerArgs, hours: u32) -> Result<Data> {
    let data = data::generate(&scratch.join("csv"), run.hosts, hours, run.seed)?;
    println!("{} rows in {} files, {} MB", data.rows, data.parts.len(), data.bytes >> 20);
    Ok(data)
}

async fn measure_ours(run: &ServerArgs, data: &Data, scratch: &Path) -> Result<EngineResult> {
    // Stops its processes when it is dropped.
    let cluster = Cluster::start(&run.binary()?, scratch, run.mode()).await?;
    measure(cluster.url(), Some(cluster), run, data, false).await
}

/// `cluster`: the server is our own, and may be killed.
async fn measure(
    mut url: String,
    mut cluster: Option<Cluster>,
    run: &ServerArgs,
    data: &Data,
    plain_postgres: bool,
) -> Result<EngineResult> {
    let dialect = if plain_postgres { Dialect::Postgres } else { Dialect::Timescale };
    let loaded = load::load(&url, dialect, data, run.clients, &run.chunk).await?;
    println!("loaded {} rows/s", loaded.rows_per_s);
    let peak_mib = cluster.as_ref().map_or_else(Vec::new, |cluster| cluster.peak_mib());
    let mut restart = None;
    if let (true, Some(cluster)) = (run.crash, &mut cluster) {
        let (log_bytes, seconds) = cluster.crash("SELECT count(*) FROM cpu").await?;
        println!("killed with {} MB of log; answered after {seconds:.2} s", log_bytes >> 20);
        restart = Some(Restart { log_mb: log_bytes >> 20, seconds });
        url = cluster.url();
    }
    let settled = load::settle(&url, dialect, data).await?;
    println!("{:.2} bytes/row", settled.bytes_per_row.unwrap_or(f64::NAN));
    let kinds = queries::all(data, run.instances, run.seed, dialect);
    Ok(EngineResult {
        engine: if plain_postgres { "postgres" } else { "seriatim" }.to_owned(),
        version: loaded.version,
        fsync: loaded.fsync,
        rows_per_s: loaded.rows_per_s,
        compress_s: settled.compress_s,
        bytes_per_row: settled.bytes_per_row,
        peak_mib,
        restart,
        queries: timing::run(&url, &kinds).await?,
    })
}

fn report(run: &ServerArgs, data: &Data, engines: Vec<EngineResult>) -> Report {
    Report { machine: Machine::here(), hosts: data.hosts, hours: data.hours, seed: run.seed, rows: data.rows, engines }
}

fn write_json(path: Option<&Path>, report: &impl serde::Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(report)?).with_context(|| path.display().to_string())
}
