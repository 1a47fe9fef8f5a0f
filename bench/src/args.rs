//! What the user may choose.

use crate::cluster::Mode;
use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Measures Seriatim over the Postgres wire")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// TSBS devops (cpu-only): load, then the 15 queries and a scan.
    Tsbs(TsbsArgs),
    /// The same with more and more rows: how cost grows.
    Scale(ScaleArgs),
    /// Commits per second and their latency, with one coordinator and with three.
    Commits(CommitsArgs),
}

#[derive(Parser)]
pub struct CommitsArgs {
    /// Coordinators of each cluster that is measured.
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    pub coordinators: Vec<u32>,
    /// Connections that commit at the same time.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    pub clients: Vec<u32>,
    /// Seconds for each kind of transaction and number of clients.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// How often the leader of several coordinators is killed.
    #[arg(long, default_value_t = 5)]
    pub failovers: u32,
    /// Also this server, a PostgreSQL without nodes, e.g. `host=127.0.0.1 port=5432 user=postgres`. Its tables `a` and `b`
    /// are dropped.
    #[arg(long)]
    pub against: Option<String>,
    /// What it is called in the table.
    #[arg(long, default_value = "postgres", requires = "against")]
    pub against_name: String,
    /// Where the numbers are written, for machines.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// The seriatim to start; else the one beside this program.
    #[arg(long)]
    pub seriatim: Option<PathBuf>,
    /// Directory for the clusters; it should be on the disk to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub scratch: PathBuf,
}

impl CommitsArgs {
    /// # Errors
    /// When it was not built.
    pub fn binary(&self) -> Result<PathBuf> {
        binary(self.seriatim.as_ref())
    }
}

#[derive(Parser)]
pub struct ScaleArgs {
    /// Hours of data, one run for each; with 1,000 hosts: 1, 10 and 100 million rows.
    #[arg(long, value_delimiter = ',', default_value = "3,28,278")]
    pub hours: Vec<u32>,
    /// Data nodes, a process each beside the coordinator: all hours with each number of them.
    #[arg(long, value_delimiter = ',', default_value = "2", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub nodes: Vec<u32>,
    /// All in one process instead.
    #[arg(long, conflicts_with = "nodes")]
    pub embedded: bool,
    #[command(flatten)]
    pub run: ServerArgs,
}

impl ScaleArgs {
    pub fn modes(&self) -> Vec<Mode> {
        match self.embedded {
            true => vec![Mode::Embedded],
            false => self.nodes.iter().copied().map(Mode::Processes).collect(),
        }
    }
}

#[derive(Parser)]
pub struct TsbsArgs {
    /// Hours of data.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    pub hours: u32,
    /// Data nodes, a process each beside the coordinator.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub nodes: u32,
    /// All in one process instead.
    #[arg(long, conflicts_with = "nodes")]
    pub embedded: bool,
    #[command(flatten)]
    pub run: ServerArgs,
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// Measure this server instead of processes of our own, e.g. `host=127.0.0.1 port=5433 user=postgres`.
    /// Its table `cpu` is dropped.
    #[arg(long)]
    pub against: Option<String>,
    /// The server of `--against` is a PostgreSQL without hypertables.
    #[arg(long, requires = "against")]
    pub plain_postgres: bool,
    /// Also DuckDB and ClickHouse, by their Python packages duckdb and chdb.
    #[arg(long)]
    pub peers: bool,
    /// Threads each peer may use.
    #[arg(long, default_value_t = 2)]
    pub peer_threads: u32,
}

impl TsbsArgs {
    pub fn mode(&self) -> Mode {
        if self.embedded { Mode::Embedded } else { Mode::Processes(self.nodes) }
    }
}

/// Where the time of our processes goes.
#[derive(Parser)]
pub struct ProfileArgs {
    /// After the timing, run each query type under `perf record` and write a flame graph for it and each process there.
    #[arg(long, value_name = "DIR", conflicts_with = "against")]
    pub profile: Option<PathBuf>,
    /// Only types whose median is above this.
    #[arg(long, default_value_t = 0.0, requires = "profile", value_name = "MS")]
    pub profile_above_ms: f64,
    /// For so long each.
    #[arg(long, default_value_t = 3, requires = "profile", value_parser = clap::value_parser!(u64).range(1..))]
    pub profile_seconds: u64,
}

/// A server of our own, and what is asked of it.
#[derive(Parser)]
pub struct ServerArgs {
    /// Hosts that report every 10 seconds.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub hosts: u32,
    /// After the load, kill everything and measure how soon it answers again.
    #[arg(long)]
    pub crash: bool,
    /// Connections that load at the same time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: u32,
    /// Instances of each query type; the heavy types run a third of them, at least 3.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub instances: u32,
    /// Width of a time slice.
    #[arg(long, default_value = "12 hours")]
    pub chunk: String,
    /// For the data and for the choice of hosts and windows in the queries.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Where the numbers are written, for machines.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// The seriatim to start; else the one beside this program.
    #[arg(long)]
    pub seriatim: Option<PathBuf>,
    /// Directory for data and clusters; it should be on the disk to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub scratch: PathBuf,
}

impl ServerArgs {
    /// The program to measure.
    ///
    /// # Errors
    /// When it was not built.
    pub fn binary(&self) -> Result<PathBuf> {
        binary(self.seriatim.as_ref())
    }
}

fn binary(chosen: Option<&PathBuf>) -> Result<PathBuf> {
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("seriatim"));
    let path = chosen.cloned().map_or_else(beside, Ok)?;
    ensure!(path.is_file(), "{} is missing: cargo build --release", path.display());
    path.canonicalize().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_nodes_is_a_run_of_its_own() {
        let parse = |text: &str| match Args::try_parse_from(text.split(' ')).map(|args| args.command) {
            Ok(Command::Scale(args)) => Some(args.modes()),
            _ => None,
        };
        assert_eq!(parse("bench scale"), Some(vec![Mode::Processes(2)]));
        assert_eq!(parse("bench scale --nodes 1,2,4"), Some([1, 2, 4].map(Mode::Processes).to_vec()));
        assert_eq!(parse("bench scale --embedded"), Some(vec![Mode::Embedded]));
        assert_eq!(parse("bench scale --embedded --nodes 1"), None);
    }

    #[test]
    fn only_our_own_processes_are_profiled() {
        let parses = |text: &str| Args::try_parse_from(text.split(' ')).is_ok();
        assert!(parses("bench tsbs --profile out --profile-above-ms 20"));
        assert!(!parses("bench tsbs --profile out --against host=h"));
        assert!(!parses("bench tsbs --profile-above-ms 20"));
    }
}
