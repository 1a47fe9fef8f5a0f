//! Seriatim as its users run it: processes on scratch directories, on loopback, on ports of their own choosing. Dropping
//! a cluster kills its processes and removes its files.
//!
//! Invariants
//! - Only processes started here are ever signalled, by their own id.
//! - Nothing waits for time to pass: a process is ready when it has printed its address.

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

/// How a cluster is spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Coordinator, `dn1` and `dn2` in one process.
    Embedded,
    /// Three processes, the nodes added over SQL.
    Processes,
}

/// Which process a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// With `Shape::Embedded` the whole cluster.
    Coordinator,
    /// 0 is `dn1`.
    Node(usize),
}

const NODES_COUNT: usize = 2;

/// Recovery ends within seconds; a debug build on a busy machine is given a minute.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
const ASKS_MAX: usize = 1200;

pub struct Cluster {
    shape: Shape,
    /// What the coordinator was started with besides.
    options: Vec<String>,
    coordinator: Option<Process>,
    nodes: Vec<Option<Process>>,
    sql_addr: SocketAddr,
    node_addrs: Vec<SocketAddr>,
    // Last, so that files go after the processes.
    dir: TempDir,
}

impl Cluster {
    /// A new, empty cluster with both nodes attached, whose superuser needs no password.
    pub async fn start(shape: Shape) -> Cluster {
        let cluster = Cluster::launch(shape, &[]);
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
            cluster.nodes =
                (0..NODES_COUNT).map(|index| Some(started(start_node(cluster.dir.path(), index, None)))).collect();
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
            Shape::Processes => {
                (0..NODES_COUNT).map(|i| Some(started(start_node(dir.path(), i, None)))).collect::<Vec<_>>()
            }
        };
        let node_addrs = nodes.iter().flatten().map(Process::address).collect();
        let options = options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
        let coordinator = started(start_coordinator(dir.path(), shape, &options, None));
        let sql_addr = coordinator.address();
        Cluster { shape, options, coordinator: Some(coordinator), nodes, sql_addr, node_addrs, dir }
    }

    pub fn sql_addr(&self) -> SocketAddr {
        self.sql_addr
    }

    pub fn data_dir(&self, member: Member) -> PathBuf {
        match member {
            Member::Coordinator => coordinator_dir(self.dir.path()),
            Member::Node(index) => node_dir(self.dir.path(), index),
        }
    }

    /// As the superuser, in the database `postgres`, with the session's zone set to UTC.
    pub async fn connect(&self) -> Session {
        let session = connect(&self.config("postgres")).await.expect("a running cluster accepts connections");
        session.run("SET TIME ZONE 'UTC'").await;
        session
    }

    pub fn config(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host(self.sql_addr.ip().to_string()).port(self.sql_addr.port()).user("postgres").dbname(database);
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
        let process = match member {
            Member::Coordinator => start_coordinator(self.dir.path(), self.shape, &self.options, Some(self.sql_addr)),
            Member::Node(index) => start_node(self.dir.path(), index, Some(self.node_addrs[index])),
        }?;
        let slot = self.slot(member);
        assert!(slot.is_none(), "only a member that was stopped is started again");
        *slot = Some(process);
        Ok(())
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
        std::iter::once(Member::Coordinator).chain((0..self.nodes.len()).map(Member::Node)).collect()
    }

    fn slot(&mut self, member: Member) -> &mut Option<Process> {
        match member {
            Member::Coordinator => &mut self.coordinator,
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
    command.env_remove("SERIATIM_SUPERUSER_PASSWORD");
    command
}

fn started(process: Result<Process, String>) -> Process {
    process.unwrap_or_else(|why| panic!("{why}"))
}

fn start_coordinator(
    dir: &Path,
    shape: Shape,
    options: &[String],
    addr: Option<SocketAddr>,
) -> Result<Process, String> {
    let mut command = binary();
    command.arg(match shape {
        Shape::Embedded => "embedded",
        Shape::Processes => "coordinator",
    });
    command.arg("--data-dir").arg(coordinator_dir(dir)).arg("--trust").args(options);
    command.args(["--sql-addr", &addr_or_any(addr)]);
    Process::try_start(command, "sql listening on ", &dir.join("coordinator.log"))
}

fn start_node(dir: &Path, index: usize, addr: Option<SocketAddr>) -> Result<Process, String> {
    let mut command = binary();
    command.arg("node").arg("--data-dir").arg(node_dir(dir, index));
    command.args(["--node-addr", &addr_or_any(addr)]);
    Process::try_start(command, "node listening on ", &dir.join(format!("{}.log", node_name(index))))
}

fn addr_or_any(addr: Option<SocketAddr>) -> String {
    addr.map_or_else(|| "127.0.0.1:0".to_owned(), |addr| addr.to_string())
}

fn coordinator_dir(dir: &Path) -> PathBuf {
    dir.join("coordinator")
}

fn node_dir(dir: &Path, index: usize) -> PathBuf {
    dir.join(node_name(index))
}
