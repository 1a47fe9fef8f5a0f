//! The command line. Each flag is also an environment variable `SERIATIM_<FLAG>` and a key of the TOML file given by
//! `--config`; a flag wins over the environment, the environment over the file.

use crate::machine;
use anyhow::{Context, bail};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use coordinator::txn;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// Where the system does not say how much memory there is.
const WRITE_MEMORY_BYTES_UNKNOWN: usize = 512 << 20;

pub const SPILL_MIB: u64 = 8192;

/// Of every interval and timeout.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);

/// More make every commit slower and hardly anything safer.
const GROUP_MAX: usize = 5;

/// A distributed time-series database: hypertables over several plain machines, SQL through Postgres clients.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
pub struct Args {
    /// What to log, to stderr: `error`, `warn`, `info`, `debug`, or per module as `info,storage=debug`
    #[arg(long, global = true, default_value = "info", env = "SERIATIM_LOG")]
    pub log: String,

    /// A TOML file whose keys are the long flags, e.g. `sql-addr = "127.0.0.1:5433"`
    #[arg(long, global = true, env = "SERIATIM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// A whole cluster in one process, the tutorial run into it before your eyes, then open for psql
    Demo(Demo),
    /// Coordinator and two data nodes in one process, durable: the default for one machine
    Embedded(Embedded),
    /// SQL, catalog, planner and transactions; rows live on the data nodes added with add_data_node()
    Coordinator(Coordinator),
    /// A data node: stores chunks and runs its part of each query
    Node(Node),
    /// Reads all files of a stopped node, coordinator or embedded cluster and names what is damaged
    Verify(Verify),
    /// Shows a segment file: rows, order, row groups, and per column the encodings and bytes
    DumpSegment(DumpSegment),
}

#[derive(clap::Args)]
pub struct Verify {
    /// The directory that the stopped process was given
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
}

#[derive(clap::Args)]
pub struct DumpSegment {
    /// A file of a node's `segments` directory
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(clap::Args)]
pub struct Demo {
    /// Where psql connects
    #[arg(long, default_value = "127.0.0.1:5433", env = "SERIATIM_SQL_ADDR", value_name = "HOST:PORT")]
    pub sql_addr: SocketAddr,

    /// Keep the data here instead of in a scratch directory that is removed at the end; must be empty or new
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Stop after the tutorial instead of waiting for psql
    #[arg(long)]
    pub exit: bool,
}

#[derive(clap::Args)]
pub struct Sql {
    /// Where the catalog and the two-phase log live (with `embedded`, the chunks too); made if it does not exist
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Where Postgres clients connect; port 0 takes a free one and prints it
    #[arg(long, default_value = "127.0.0.1:5433", env = "SERIATIM_SQL_ADDR", value_name = "HOST:PORT")]
    pub sql_addr: SocketAddr,

    /// The password of role `postgres`, in a file; read at each start (also: the environment variable
    /// SERIATIM_SUPERUSER_PASSWORD)
    #[arg(long, env = "SERIATIM_SUPERUSER_PASSWORD_FILE", value_name = "FILE")]
    pub superuser_password_file: Option<PathBuf>,

    /// Let every role in without a password; only on a loopback address
    #[arg(long, env = "SERIATIM_TRUST")]
    pub trust: bool,

    /// Listen on an address that other machines reach although nothing is encrypted yet
    #[arg(long, env = "SERIATIM_INSECURE")]
    pub insecure: bool,

    /// Client connections served at once
    #[arg(long, default_value_t = 1000, env = "SERIATIM_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: usize,

    #[command(flatten)]
    pub query_memory: QueryMemory,

    #[command(flatten)]
    pub timeouts: Timeouts,
}

/// With units: `500ms`, `3s`, `10min`.
#[derive(clap::Args)]
pub struct Timeouts {
    /// How often data nodes are asked how they are, and lost ones called again
    #[arg(long, default_value = "1s", env = "SERIATIM_NODE_CHECK_INTERVAL", value_name = "TIME", value_parser = duration)]
    node_check_interval: Duration,

    /// A node that does not say hello for so long is down
    #[arg(long, default_value = "3s", env = "SERIATIM_NODE_HELLO_TIMEOUT", value_name = "TIME", value_parser = duration)]
    node_hello_timeout: Duration,

    /// A node that does not take rows for so long is down; one whose memory is full waits before it does
    #[arg(long, default_value = "60s", env = "SERIATIM_NODE_STAGE_TIMEOUT", value_name = "TIME", value_parser = duration)]
    node_stage_timeout: Duration,

    /// A node that does not prepare or commit for so long is down
    #[arg(long, default_value = "20s", env = "SERIATIM_NODE_COMMIT_TIMEOUT", value_name = "TIME", value_parser = duration)]
    node_commit_timeout: Duration,

    /// A node that does not begin its part of a query, or answer anything else, for so long is down
    #[arg(long, default_value = "30s", env = "SERIATIM_NODE_CALL_TIMEOUT", value_name = "TIME", value_parser = duration)]
    node_call_timeout: Duration,

    /// How long COMMIT waits to learn how it ended when the only node it wrote to was lost; then it says 08007
    #[arg(long, default_value = "5s", env = "SERIATIM_RESOLVE_TIMEOUT", value_name = "TIME", value_parser = duration)]
    resolve_timeout: Duration,

    /// Coordinators of a group that hear nothing from a leader for so long, and up to twice as long, elect another
    #[arg(long, default_value = "1s", env = "SERIATIM_ELECTION_TIMEOUT", value_name = "TIME", value_parser = duration)]
    election_timeout: Duration,
}

impl Timeouts {
    pub fn options(&self) -> txn::ClusterOptions {
        let timeouts = txn::Timeouts {
            hello: self.node_hello_timeout,
            stage: self.node_stage_timeout,
            commit: self.node_commit_timeout,
            call: self.node_call_timeout,
            ..txn::Timeouts::default()
        };
        txn::ClusterOptions {
            check_interval: self.node_check_interval,
            timeouts,
            resolve_timeout: self.resolve_timeout,
            raft_tick: self.election_timeout / coordinator::raft::ELECTION_TICKS,
            ..txn::ClusterOptions::default()
        }
    }
}

/// # Errors
/// What is no time, or too short for anybody to answer within.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration = humantime::parse_duration(text)?;
    if duration < TIMEOUT_MIN {
        bail!("shorter than {TIMEOUT_MIN:?}");
    }
    Ok(duration)
}

#[derive(clap::Args)]
pub struct Embedded {
    #[command(flatten)]
    pub sql: Sql,

    #[command(flatten)]
    pub write_memory: WriteMemory,

    /// Do not add the two built-in nodes to the cluster: add_data_node('dn1', host => …) does it
    #[arg(long, env = "SERIATIM_NO_ATTACH")]
    pub no_attach: bool,
}

#[derive(clap::Args)]
pub struct QueryMemory {
    /// Memory for sorts, joins and aggregates of all queries of this process, in MiB
    #[arg(long, default_value_t = 2048, env = "SERIATIM_QUERY_MEMORY_MIB", value_name = "MIB")]
    query_memory_mib: usize,

    /// What these queries may put into the data directory's folder `spill` when that memory is used up, in MiB; 0: nothing,
    /// they fail
    #[arg(long, default_value_t = SPILL_MIB, env = "SERIATIM_SPILL_MIB", value_name = "MIB")]
    spill_mib: u64,
}

impl QueryMemory {
    pub fn bytes(&self) -> usize {
        self.query_memory_mib << 20
    }

    pub fn spill_bytes_max(&self) -> u64 {
        self.spill_mib << 20
    }
}

#[derive(clap::Args)]
pub struct WriteMemory {
    /// Memory for rows that are not in segment files yet, those of open transactions included, in MiB; `embedded` shares
    /// it among its nodes [default: an eighth of the machine's memory, at least 64, at most 1024]
    #[arg(long, env = "SERIATIM_WRITE_MEMORY_MIB", value_name = "MIB", value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    write_memory_mib: Option<u32>,
}

impl WriteMemory {
    pub fn bytes(&self) -> usize {
        match self.write_memory_mib {
            Some(mib) => (mib as usize) << 20,
            None => default_write_memory_bytes(machine::memory_bytes()),
        }
    }
}

/// Of a machine with this much memory, as far as it is known.
pub fn default_write_memory_bytes(machine_bytes: Option<u64>) -> usize {
    let eighth = machine_bytes.map_or(WRITE_MEMORY_BYTES_UNKNOWN, |bytes| (bytes / 8) as usize);
    eighth.clamp(64 << 20, 1 << 30)
}

#[derive(clap::Args)]
pub struct Coordinator {
    #[command(flatten)]
    pub sql: Sql,

    #[command(flatten)]
    pub group: GroupArgs,
}

/// Several coordinators that keep one log, so that any of them may be lost.
#[derive(clap::Args)]
pub struct GroupArgs {
    /// Where the coordinators of a group reach each other, three addresses in the same order for all of them; without it
    /// the coordinator is alone. Decided when the directory is made
    #[arg(long, env = "SERIATIM_PEERS", value_name = "HOST:PORT,…", value_delimiter = ',', requires = "member")]
    peers: Vec<String>,

    /// Which of the peers this coordinator is, from 1
    #[arg(long, env = "SERIATIM_MEMBER", value_name = "NUMBER", requires = "peers")]
    member: Option<usize>,

    /// Where this coordinator listens to the others [default: its own address among the peers]
    #[arg(long, env = "SERIATIM_RAFT_ADDR", value_name = "HOST:PORT", requires = "peers")]
    raft_addr: Option<SocketAddr>,
}

impl GroupArgs {
    /// # Errors
    /// A group that cannot be one.
    pub fn group(self) -> anyhow::Result<Option<Group>> {
        let Some(member) = self.member.filter(|_| !self.peers.is_empty()) else { return Ok(None) };
        let count = self.peers.len();
        if count.is_multiple_of(2) || count > GROUP_MAX {
            bail!("--peers names {count} coordinators; a group has 3 or 5, so that a majority can outlive the rest");
        }
        let own = member.checked_sub(1).and_then(|index| self.peers.get(index));
        let own = own.with_context(|| format!("--member {member} is none of the {count} coordinators of --peers"))?;
        let raft_addr = match self.raft_addr {
            Some(address) => address,
            None => resolve(own).with_context(|| format!("cannot listen on {own}; --raft-addr chooses an address"))?,
        };
        Ok(Some(Group { member: member as u64, peers: self.peers, raft_addr }))
    }
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    address.to_socket_addrs()?.next().context("the name has no address")
}

/// A group of several coordinators, as one of them sees it.
#[derive(Debug)]
pub struct Group {
    member: u64,
    peers: Vec<String>,
    pub raft_addr: SocketAddr,
}

impl Group {
    pub fn group(&self) -> txn::Group {
        txn::Group { member: self.member, voters: (1..=self.peers.len() as u64).collect() }
    }

    /// The addresses of the others.
    pub fn others(&self) -> BTreeMap<u64, String> {
        let all = (1..).zip(self.peers.iter().cloned());
        all.filter(|(member, _)| *member != self.member).collect()
    }
}

#[derive(clap::Args)]
pub struct Node {
    /// Where the chunks live; made if it does not exist
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Where the coordinator connects; port 0 takes a free one and prints it
    #[arg(long, default_value = "127.0.0.1:5435", env = "SERIATIM_NODE_ADDR", value_name = "HOST:PORT")]
    pub node_addr: SocketAddr,

    /// Listen on an address that other machines reach although nothing is encrypted yet
    #[arg(long, env = "SERIATIM_INSECURE")]
    pub insecure: bool,

    #[command(flatten)]
    pub query_memory: QueryMemory,

    #[command(flatten)]
    pub write_memory: WriteMemory,
}

/// # Errors
/// A configuration file that cannot be read. A wrong flag prints its own message and ends the process.
pub fn parse() -> anyhow::Result<Args> {
    let given = given_or_help(std::env::args_os().collect());
    let given = match config_of(&given).unwrap_or_else(|wrong| wrong.exit()) {
        Some(file) => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let table = text.parse().with_context(|| format!("cannot understand {}", file.display()))?;
            with_file(&given, &table)?
        }
        None => given,
    };
    Ok(args(given).unwrap_or_else(|wrong| wrong.exit()))
}

/// The configuration file's name, read before anything that the file may give is asked for.
fn config_of(given: &[OsString]) -> Result<Option<PathBuf>, clap::Error> {
    let command = Args::command().mut_subcommands(|sub| sub.mut_args(|arg| arg.required(false)));
    Ok(command.try_get_matches_from(given)?.get_one::<PathBuf>("config").cloned())
}

fn args(given: Vec<OsString>) -> Result<Args, clap::Error> {
    let command = Args::command().args_override_self(true).mut_subcommands(|sub| sub.args_override_self(true));
    Args::from_arg_matches(&command.try_get_matches_from(given)?)
}

/// Without any argument the help is more useful than a complaint.
fn given_or_help(mut given: Vec<OsString>) -> Vec<OsString> {
    if given.len() == 1 {
        given.push("--help".into());
    }
    given
}

/// The file's keys as flags right behind the subcommand, so that later flags win; keys that the environment sets are
/// left out, so that it wins too.
fn with_file(given: &[OsString], table: &toml::Table) -> anyhow::Result<Vec<OsString>> {
    let names = ["demo", "embedded", "coordinator", "node", "verify", "dump-segment"];
    let at = given.iter().position(|arg| names.iter().any(|name| arg == name)).context("which command?")?;
    let mut merged = given[..=at].to_vec();
    for (key, value) in table {
        let variable = format!("SERIATIM_{}", key.replace('-', "_").to_uppercase());
        if std::env::var_os(&variable).is_some() {
            continue;
        }
        match value {
            toml::Value::Boolean(true) => merged.push(format!("--{key}").into()),
            toml::Value::Boolean(false) => {}
            toml::Value::String(text) => merged.push(format!("--{key}={text}").into()),
            toml::Value::Integer(number) => merged.push(format!("--{key}={number}").into()),
            _ => bail!("key \"{key}\" of the configuration file must be a string, a number or a boolean"),
        }
    }
    merged.extend_from_slice(&given[at + 1..]);
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn merged(line: &str, file: &str) -> Args {
        let merged = with_file(&words(line), &file.parse().unwrap()).unwrap();
        args(merged).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    #[test]
    fn a_required_flag_may_stand_in_the_file_alone() {
        for line in ["seriatim embedded --config s.toml", "seriatim --config s.toml embedded"] {
            assert_eq!(config_of(&words(line)).unwrap(), Some(PathBuf::from("s.toml")), "{line}");
            let Command::Embedded(embedded) = merged(line, "data-dir = \"d\"\ntrust = true").command else {
                panic!("another command");
            };
            assert_eq!((embedded.sql.data_dir, embedded.sql.trust), (PathBuf::from("d"), true));
        }
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = "data-dir = \"d\"\nnode-addr = \"127.0.0.1:1\"\nlog = \"warn\"";
        let args = merged("seriatim --config s.toml node --data-dir e", file);
        let Command::Node(node) = args.command else { panic!("another command") };
        assert_eq!((node.data_dir, node.node_addr.port(), args.log.as_str()), (PathBuf::from("e"), 1, "warn"));
    }

    #[test]
    fn write_memory_is_told_or_an_eighth_of_the_machine() {
        let Command::Node(node) = merged("seriatim node --data-dir d", "write-memory-mib = 100").command else {
            panic!("another command");
        };
        assert_eq!(node.write_memory.bytes(), 100 << 20);
        assert!(args(words("seriatim node --data-dir d --write-memory-mib 1")).is_err());
        for (machine, expected) in
            [(None, 512 << 20), (Some(256 << 20), 64 << 20), (Some(4 << 30), 512 << 20), (Some(1 << 40), 1 << 30)]
        {
            assert_eq!(default_write_memory_bytes(machine), expected);
        }
    }

    #[test]
    fn times_have_units_and_the_defaults_are_those_of_the_cluster() {
        let Command::Coordinator(given) =
            merged("seriatim coordinator --data-dir d --node-hello-timeout 500ms", "election-timeout = \"2s\"").command
        else {
            panic!("another command");
        };
        let options = given.sql.timeouts.options();
        assert_eq!((options.timeouts.hello.as_millis(), options.raft_tick.as_millis()), (500, 200));
        let Command::Coordinator(plain) = merged("seriatim coordinator --data-dir d", "").command else {
            panic!("another command");
        };
        let expected = format!("{:?}", txn::ClusterOptions::default());
        assert_eq!(format!("{:?}", plain.sql.timeouts.options()), expected);
        for wrong in ["5", "0s", "soon"] {
            let line = format!("seriatim coordinator --data-dir d --resolve-timeout {wrong}");
            assert!(args(words(&line)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_group_is_given_whole_or_not_at_all() {
        let group = |flags: &str| {
            let Command::Coordinator(given) =
                args(words(&format!("seriatim coordinator --data-dir d {flags}")))?.command
            else {
                panic!("another command");
            };
            anyhow::Ok(given.group.group()?)
        };
        assert!(group("").unwrap().is_none());
        let peers = "--peers 127.0.0.1:1,127.0.0.1:2,127.0.0.1:3";
        let second = group(&format!("{peers} --member 2")).unwrap().unwrap();
        assert_eq!((second.raft_addr.port(), second.group().voters), (2, vec![1, 2, 3]));
        assert_eq!(second.others().into_keys().collect::<Vec<_>>(), [1, 3]);
        let elsewhere = group(&format!("{peers} --member 2 --raft-addr 127.0.0.1:9")).unwrap().unwrap();
        assert_eq!(elsewhere.raft_addr.port(), 9);
        for wrong in [peers, "--member 1", &format!("{peers} --member 4"), &format!("{peers} --member 0")] {
            assert!(group(wrong).is_err(), "{wrong}");
        }
        assert!(group("--peers 127.0.0.1:1,127.0.0.1:2 --member 1").is_err(), "no majority can outlive one of two");
    }

    #[test]
    fn without_a_file_a_required_flag_is_asked_for() {
        assert_eq!(config_of(&words("seriatim node")).unwrap(), None);
        let missing = args(words("seriatim node")).err().map(|wrong| wrong.kind());
        assert_eq!(missing, Some(clap::error::ErrorKind::MissingRequiredArgument));
    }
}
