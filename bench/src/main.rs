//! Measures Seriatim from outside: `cargo run --release -p bench -- tsbs` generates the TSBS devops data, loads it and
//! times the 15 queries; `--peers` does the same with DuckDB and ClickHouse on the same files, in the same run. `scale` shows
//! how cost grows with the rows, `commits` what a commit costs.
//!
//! It is not a test and depends on none of our crates: it speaks the Postgres wire and nothing else.
//!
//! A run, top-down: `args` → `data` writes CSV files → `cluster` starts processes of the release binary →
//! `load` copies the files → `queries` makes the statements, `timing` runs them → `profile` looks where their time goes and
//! `flamegraph` draws it → `peers` → `report`.

mod args;
mod cluster;
mod commits;
mod data;
mod flamegraph;
mod load;
mod peers;
mod profile;
mod queries;
mod report;
mod timing;

use anyhow::{Context, Result};
use args::{Args, Command, CommitsArgs, ProfileArgs, ScaleArgs, ServerArgs, TsbsArgs};
use clap::Parser;
use cluster::{Cluster, Mode};
use data::Data;
use profile::Watched;
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
    if args.profile.profile.is_some() {
        profile::ensure_perf()?;
    }
    let scratch = tempfile::Builder::new().prefix("seriatim-bench-").tempdir_in(&args.run.scratch)?;
    let data = generate(scratch.path(), &args.run, args.hours)?;
    let profile = Some(&args.profile);
    let mut engines = vec![match &args.against {
        Some(url) => measure(Server::against(url, args.plain_postgres), &args.run, &data, None).await?,
        None => measure_ours(&args.run, args.mode(), &data, scratch.path(), profile).await?,
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
        for (number, mode) in args.modes().into_iter().enumerate() {
            println!("{mode}");
            let dir = scratch.path().join(format!("cluster{number}"));
            let ours = measure_ours(&args.run, mode, &data, &dir, None).await?;
            // Its room is wanted for the next one.
            std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
            reports.push(report(&args.run, &data, vec![ours]));
        }
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

/// What is measured.
struct Server {
    url: String,
    /// When it is our own, which may be killed and looked into.
    cluster: Option<Cluster>,
    dialect: Dialect,
    layout: String,
}

impl Server {
    fn against(url: &str, plain_postgres: bool) -> Server {
        let dialect = if plain_postgres { Dialect::Postgres } else { Dialect::Timescale };
        Server { url: url.to_owned(), cluster: None, dialect, layout: "a server that was there".to_owned() }
    }
}

async fn measure_ours(
    run: &ServerArgs,
    mode: Mode,
    data: &Data,
    scratch: &Path,
    profile: Option<&ProfileArgs>,
) -> Result<EngineResult> {
    std::fs::create_dir_all(scratch).with_context(|| scratch.display().to_string())?;
    // Stops its processes when it is dropped.
    let cluster = Cluster::start(&run.binary()?, scratch, mode).await?;
    let (url, layout) = (cluster.url(), mode.to_string());
    measure(Server { url, cluster: Some(cluster), dialect: Dialect::Timescale, layout }, run, data, profile).await
}

async fn measure(server: Server, run: &ServerArgs, data: &Data, profile: Option<&ProfileArgs>) -> Result<EngineResult> {
    let Server { mut url, mut cluster, dialect, layout } = server;
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
    let timings = timing::run(&url, &kinds).await?;
    if let (Some(profile), Some(cluster)) = (profile, &cluster) {
        let watched = cluster.processes().map(|(name, id)| Watched { name: name.to_owned(), id }).collect::<Vec<_>>();
        profile::run(&url, &watched, &kinds, &timings, profile).await?;
    }
    Ok(EngineResult {
        engine: if dialect == Dialect::Postgres { "postgres" } else { "seriatim" }.to_owned(),
        version: loaded.version,
        layout,
        fsync: loaded.fsync,
        rows_per_s: loaded.rows_per_s,
        compress_s: settled.compress_s,
        bytes_per_row: settled.bytes_per_row,
        peak_mib,
        restart,
        queries: timings,
    })
}

fn report(run: &ServerArgs, data: &Data, engines: Vec<EngineResult>) -> Report {
    Report { machine: Machine::here(), hosts: data.hosts, hours: data.hours, seed: run.seed, rows: data.rows, engines }
}

fn write_json(path: Option<&Path>, report: &impl serde::Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(report)?).with_context(|| path.display().to_string())
}
