//! Seriatim as its users run it: processes on scratch directories, on loopback, on ports of their own choosing. Dropping
//! a cluster kills its processes and removes its files.
//!
//! Invariants
//! - Only processes started here are ever signalled, by their own id.
//! - Nothing waits for time to pass: a process is ready when it has printed its address.

#[cfg(feature = "failpoints")]
mod failpoints;
mod process;
mod raw;
mod server;
mod session;

pub use process::Process;
pub use raw::{Message, RawClient};
pub use server::{Server, reference, scratch_database};
pub use session::{Session, connect, error_of};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio_postgres::config::TargetSessionAttrs;

/// How a cluster is spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Coordinator, `dn1` and `dn2` in one process.
    Embedded,
    /// Three processes, the nodes added over SQL.
    Processes,
    /// As `Processes`, but with three coordinators that keep one log.
    Group,
}

/// Which process a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// With `Shape::Embedded` the whole cluster; 0 is the only one, unless there is a group.
    Coordinator(usize),
    /// 0 is `dn1`.
    Node(usize),
}

const NODES_COUNT: usize = 2;
/// Only binaries with the feature `failpoints` read it.
const FAILPOINT: &str = "SERIATIM_FAILPOINT";
const COORDINATORS_COUNT: usize = 3;
/// Of one coordinator among several, which may have stopped.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Recovery ends within seconds; a debug build on a busy machine is given a minute.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
const ASKS_MAX: usize = 1200;

pub struct Cluster {
    shape: Shape,
    /// What the coordinator was started with besides.
    options: Vec<String>,
    coordinators: Vec<Option<Process>>,
    nodes: Vec<Option<Process>>,
    sql_addrs: Vec<SocketAddr>,
    /// Where the coordinators of a group reach each other.
    peers: Vec<SocketAddr>,
    node_addrs: Vec<SocketAddr>,
    // Last, so that files go after the processes.
    dir: TempDir,
}

impl Cluster {
    /// A new, empty cluster with both nodes attached, whose superuser needs no password.
    pub async fn start(shape: Shape) -> Cluster {
        Cluster::start_with(shape, &[]).await
    }

    /// With flags for the coordinator, which with `Shape::Embedded` is the whole cluster.
    pub async fn start_with(shape: Shape, options: &[&str]) -> Cluster {
        let cluster = Cluster::launch(shape, options);
        let session = cluster.connect().await;
        for (index, addr) in cluster.node_addrs.iter().enumerate() {
            let name = node_name(index);
            session
                .run(&format!("SELECT add_data_node('{name}', host => '{}', port => {})", addr.ip(), addr.port()))
                .await;
        }
        cluster
    }

    /// As `start`, but no node is attached yet: the tutorial does that. With `Shape::Embedded` its own two nodes, which
    /// have no address, are left out, and two node processes stand beside it.
    pub async fn start_bare(shape: Shape) -> Cluster {
        let mut cluster = Cluster::launch(shape, if shape == Shape::Embedded { &["--no-attach"] } else { &[] });
        if shape == Shape::Embedded {
            cluster.nodes = (0..NODES_COUNT)
                .map(|index| Some(started(start_node(cluster.dir.path(), index, None, None))))
                .collect();
            cluster.node_addrs = cluster.nodes.iter().flatten().map(Process::address).collect();
        }
        cluster
    }

    /// Where the nodes of `start_bare` listen.
    pub fn bare_nodes(&self) -> &[SocketAddr] {
        &self.node_addrs
    }

    fn launch(shape: Shape, options: &[&str]) -> Cluster {
        let dir = tempfile::Builder::new().prefix("seriatim-it-").tempdir().unwrap();
        let nodes = match shape {
            Shape::Embedded => Vec::new(),
            Shape::Processes | Shape::Group => {
                (0..NODES_COUNT).map(|i| Some(started(start_node(dir.path(), i, None, None)))).collect::<Vec<_>>()
            }
        };
        let node_addrs = nodes.iter().flatten().map(Process::address).collect();
        let options = options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
        let peers = if shape == Shape::Group { free_addrs(COORDINATORS_COUNT) } else { Vec::new() };
        let start = |index| started(start_coordinator(dir.path(), shape, index, &peers, &options, None, None));
        let coordinators = (0..peers.len().max(1)).map(start).collect::<Vec<_>>();
        let sql_addrs = coordinators.iter().map(Process::address).collect();
        let coordinators = coordinators.into_iter().map(Some).collect();
        Cluster { shape, options, coordinators, nodes, sql_addrs, peers, node_addrs, dir }
    }

    pub fn sql_addr(&self) -> SocketAddr {
        self.sql_addrs[0]
    }

    pub fn data_dir(&self, member: Member) -> PathBuf {
        match member {
            Member::Coordinator(index) => coordinator_dir(self.dir.path(), index),
            Member::Node(index) => node_dir(self.dir.path(), index),
        }
    }

    /// As the superuser, in the database `postgres`, with the session's zone set to UTC.
    pub async fn connect(&self) -> Session {
        let session = match self.shape {
            Shape::Embedded | Shape::Processes => connect(&self.config("postgres")).await,
            Shape::Group => Ok(self.led().await),
        };
        let session = session.expect("a running cluster accepts connections");
        session.run("SET TIME ZONE 'UTC'").await;
        session
    }

    pub fn config(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.user("postgres").dbname(database);
        for addr in &self.sql_addrs {
            config.host(addr.ip().to_string()).port(addr.port());
        }
        if self.shape == Shape::Group {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite).connect_timeout(CONNECT_TIMEOUT);
        }
        config
    }

    /// SIGKILL: the process gets no chance to write anything more.
    pub fn kill(&mut self, member: Member) {
        self.slot(member).take().expect("only a running member is killed").kill();
    }

    /// SIGTERM; panics unless the process ends with exit code 0.
    pub fn terminate(&mut self, member: Member) {
        self.slot(member).take().expect("only a running member is terminated").terminate();
    }

    /// Starts a member again on its directory and its address.
    pub fn restart(&mut self, member: Member) {
        self.try_restart(member).unwrap_or_else(|why| panic!("{why}"));
    }

    /// # Errors
    /// What the process said when it ended instead of getting ready.
    pub fn try_restart(&mut self, member: Member) -> Result<(), String> {
        let process = self.start_again(member, None)?;
        *self.slot(member) = Some(process);
        Ok(())
    }

    fn start_again(&mut self, member: Member, failpoint: Option<&str>) -> Result<Process, String> {
        assert!(self.slot(member).is_none(), "only a member that was stopped is started again");
        match member {
            Member::Coordinator(index) => {
                let addr = Some(self.sql_addrs[index]);
                let (shape, peers, options) = (self.shape, &self.peers, &self.options);
                start_coordinator(self.dir.path(), shape, index, peers, options, addr, failpoint)
            }
            Member::Node(index) => start_node(self.dir.path(), index, Some(self.node_addrs[index]), failpoint),
        }
    }

    /// A session with whoever leads the group, as soon as somebody does; panics when that takes longer than it may.
    pub async fn led(&self) -> Session {
        let mut ticks = tokio::time::interval(ASK_INTERVAL);
        let mut last = String::new();
        for _ in 0..ASKS_MAX {
            ticks.tick().await;
            // One after the other: who has stopped takes the connection and never speaks, and a client that tries them by
            // itself waits there.
            for coordinator in 0..self.sql_addrs.len() {
                match tokio::time::timeout(CONNECT_TIMEOUT, connect(&self.config_of(coordinator))).await {
                    Ok(Ok(session)) => return session,
                    Ok(Err(e)) => last = format!("{e:?}"),
                    Err(_) => last = format!("coordinator {} is silent", coordinator + 1),
                }
            }
        }
        panic!("nobody leads: {last}");
    }

    /// The running coordinator that lets clients in.
    pub async fn leader(&self) -> usize {
        let port = self.led().await.value("SHOW port").await.parse::<u16>().unwrap();
        self.sql_addrs.iter().position(|addr| addr.port() == port).expect("one of ours")
    }

    /// A connection string for one coordinator alone.
    pub fn config_of(&self, coordinator: usize) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        let addr = self.sql_addrs[coordinator];
        config.host(addr.ip().to_string()).port(addr.port()).user("postgres").dbname("postgres");
        config
    }

    /// Stops the process in the middle of whatever it does, or lets it go on.
    pub fn pause(&mut self, member: Member, paused: bool) {
        let signal = if paused { "-STOP" } else { "-CONT" };
        self.slot(member).as_ref().expect("only a running member is paused").signal(signal);
    }

    /// A connection string for each coordinator.
    pub fn configs(&self) -> Vec<tokio_postgres::Config> {
        (0..self.sql_addrs.len()).map(|coordinator| self.config_of(coordinator)).collect()
    }

    /// What the process said on stderr.
    pub fn log(&mut self, member: Member) -> String {
        self.slot(member).as_ref().expect("a running member").log_tail()
    }

    /// A session on a cluster that has just been started again and may still be settling what it left in doubt. Asks
    /// until every node answers; panics when that takes longer than recovery may.
    pub async fn settled(&self) -> Session {
        let mut ticks = tokio::time::interval(ASK_INTERVAL);
        let mut last = String::new();
        for _ in 0..ASKS_MAX {
            ticks.tick().await;
            match self.ask_all_nodes().await {
                Ok(session) => return session,
                Err(e) => last = format!("{e:?}"),
            }
        }
        panic!("not settled: {last}");
    }

    async fn ask_all_nodes(&self) -> Result<Session, tokio_postgres::Error> {
        let session = connect(&self.config("postgres")).await?;
        session.try_rows("SET TIME ZONE 'UTC'").await?;
        let tables = session.try_rows("SELECT hypertable_name FROM timescaledb_information.hypertables").await?;
        for table in tables.concat().into_iter().flatten() {
            session.try_rows(&format!("SELECT count(*) FROM {table}")).await?;
        }
        Ok(session)
    }

    pub fn members(&self) -> Vec<Member> {
        let coordinators = (0..self.coordinators.len()).map(Member::Coordinator);
        coordinators.chain((0..self.nodes.len()).map(Member::Node)).collect()
    }

    /// What all processes together have computed so far.
    pub fn processor_time(&self) -> Duration {
        self.coordinators.iter().chain(&self.nodes).flatten().map(Process::processor_time).sum()
    }

    pub fn is_group(&self) -> bool {
        self.shape == Shape::Group
    }

    fn slot(&mut self, member: Member) -> &mut Option<Process> {
        match member {
            Member::Coordinator(index) => &mut self.coordinators[index],
            Member::Node(index) => &mut self.nodes[index],
        }
    }
}

pub fn node_name(index: usize) -> String {
    format!("dn{}", index + 1)
}

/// The binary, with nothing of the developer's environment that it would read.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seriatim"));
    command.env_remove("SERIATIM_SUPERUSER_PASSWORD").env_remove(FAILPOINT);
    command
}

fn started(process: Result<Process, String>) -> Process {
    process.unwrap_or_else(|why| panic!("{why}"))
}

fn start_coordinator(
    dir: &Path,
    shape: Shape,
    index: usize,
    peers: &[SocketAddr],
    options: &[String],
    addr: Option<SocketAddr>,
    failpoint: Option<&str>,
) -> Result<Process, String> {
    let mut command = binary();
    command.envs(failpoint.map(|failpoint| (FAILPOINT, failpoint)));
    command.arg(match shape {
        Shape::Embedded => "embedded",
        Shape::Processes | Shape::Group => "coordinator",
    });
    command.arg("--data-dir").arg(coordinator_dir(dir, index)).arg("--trust").args(options);
    if !peers.is_empty() {
        let all = peers.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        command.args(["--peers", &all, "--member", &(index + 1).to_string()]);
    }
    command.args(["--sql-addr", &addr_or_any(addr)]);
    Process::try_start(command, "sql listening on ", &coordinator_dir(dir, index).with_extension("log"))
}

fn start_node(dir: &Path, index: usize, addr: Option<SocketAddr>, failpoint: Option<&str>) -> Result<Process, String> {
    let mut command = binary();
    command.envs(failpoint.map(|failpoint| (FAILPOINT, failpoint)));
    command.arg("node").arg("--data-dir").arg(node_dir(dir, index));
    command.args(["--node-addr", &addr_or_any(addr)]);
    Process::try_start(command, "node listening on ", &dir.join(format!("{}.log", node_name(index))))
}

fn addr_or_any(addr: Option<SocketAddr>) -> String {
    addr.map_or_else(|| "127.0.0.1:0".to_owned(), |addr| addr.to_string())
}

fn coordinator_dir(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("coordinator{}", index + 1))
}

/// Free at the moment: others are told of them before anybody listens there.
fn free_addrs(count: usize) -> Vec<SocketAddr> {
    let listeners = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect::<Vec<_>>();
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

fn node_dir(dir: &Path, index: usize) -> PathBuf {
    dir.join(node_name(index))
}
