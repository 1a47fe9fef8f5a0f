//! Measures Seriatim from outside: `cargo run --release -p bench -- tsbs` generates the TSBS devops data, loads it and
//! times the 15 queries; `--peers` does the same with DuckDB and ClickHouse on the same files, in the same run.
//!
//! It is not a test and depends on none of our crates: it speaks the Postgres wire and nothing else.
//!
//! A run, top-down: `args` → `data` writes CSV files → `cluster` starts three processes of the release binary →
//! `load` copies the files → `queries` makes the statements, `timing` runs them → `peers` → `report`.

mod args;
mod cluster;
mod data;
mod load;
mod peers;
mod queries;
mod report;
mod timing;

use anyhow::{Context, Result};
use args::{Args, Command, TsbsArgs};
use clap::Parser;
use queries::Dialect;
use report::{EngineResult, Machine, Report};

fn main() -> Result<()> {
    let Command::Tsbs(args) = Args::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(tsbs(args))
}

async fn tsbs(args: TsbsArgs) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("seriatim-bench-").tempdir_in(&args.scratch)?;
    let data = data::generate(&scratch.path().join("csv"), args.hosts, args.hours, args.seed)?;
    println!("{} rows in {} files, {} MB", data.rows, data.parts.len(), data.bytes >> 20);

    let mut engines = vec![measure_server(&args, &data, scratch.path()).await?];
    for peer in if args.peers { &peers::ALL[..] } else { &[] } {
        println!("{}", peer.name);
        match peers::measure(peer, &args, &data, &scratch.path().join(peer.name)) {
            Ok(result) => engines.push(result),
            Err(why) => println!("{} is left out: {why:#}", peer.name),
        }
    }
    let report = Report {
        machine: Machine::here(),
        hosts: args.hosts,
        hours: args.hours,
        seed: args.seed,
        rows: data.rows,
        engines,
    };
    print!("\n{}", report.markdown());
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Seriatim, or the server `--against` names.
async fn measure_server(args: &TsbsArgs, data: &data::Data, scratch: &std::path::Path) -> Result<EngineResult> {
    // Stops its processes when it is dropped.
    let (url, _cluster) = match &args.against {
        Some(url) => (url.clone(), None),
        None => {
            let cluster = cluster::Cluster::start(&args.binary()?, scratch).await?;
            (cluster.url(), Some(cluster))
        }
    };
    let dialect = if args.plain_postgres { Dialect::Postgres } else { Dialect::Timescale };
    let loaded = load::load(&url, dialect, data, args.clients, &args.chunk).await?;
    println!("loaded {} rows/s, {:.2} bytes/row", loaded.rows_per_s, loaded.bytes_per_row.unwrap_or(f64::NAN));
    let kinds = queries::all(data, args.instances, args.seed, dialect);
    let timings = timing::run(&url, &kinds).await?;
    Ok(EngineResult {
        engine: if args.plain_postgres { "postgres" } else { "seriatim" }.to_owned(),
        version: loaded.version,
        fsync: loaded.fsync,
        rows_per_s: loaded.rows_per_s,
        compress_s: loaded.compress_s,
        bytes_per_row: loaded.bytes_per_row,
        queries: timings,
    })
}
