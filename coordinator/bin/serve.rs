//! Each kind of process from its start to its clean stop: open the data, bind the ports, say where, serve until told to
//! stop, close in the opposite order.

use crate::{args, machine};
use anyhow::{Context, bail};
use coordinator::pg::{self, ServeOptions};
use coordinator::session::{Front, FrontOptions};
use coordinator::txn::{self, Connector, NewNode};
use engine::plan::{Engine, EngineOptions};
use node::{Node, NodeOptions};
use proto::wire::{GrpcNode, serve_node};
use proto::{Clock, DataNode, NodeName, Rng, SystemClock, SystemRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use storage::{RealVfs, StoreOptions, Vfs};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Parallel streams of one query in each process.
const QUERY_PARTITIONS: usize = 2;

const SUPERUSER_PASSWORD: &str = "SERIATIM_SUPERUSER_PASSWORD";

/// The wish to stop, shared by everything that runs.
#[derive(Clone)]
pub struct Stop(CancellationToken);

impl Stop {
    /// Ctrl-C and SIGTERM ask for a clean stop.
    pub fn on_signals() -> anyhow::Result<Stop> {
        let token = CancellationToken::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let asked = token.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = asked.cancelled() => {}
            }
            asked.cancel();
        });
        Ok(Stop(token))
    }

    pub fn request(&self) {
        self.0.cancel();
    }

    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    pub async fn requested(&self) {
        self.0.cancelled().await;
    }
}

/// The three doors to the world outside.
#[derive(Clone)]
struct World {
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl World {
    fn real() -> World {
        World { vfs: Arc::new(RealVfs), clock: Arc::new(SystemClock::new()), rng: Arc::new(SystemRng) }
    }
}

pub struct ClusterOptions {
    pub data_dir: PathBuf,
    pub sql_addr: SocketAddr,
    /// Add the built-in nodes at once.
    pub attach: bool,
    pub trust: bool,
    pub insecure: bool,
    pub superuser_password: Option<String>,
    pub connections_max: usize,
    pub query_memory_bytes: usize,
    /// Of all nodes that live in this process together.
    pub write_memory_bytes: usize,
    /// Names of the nodes that live in this process.
    pub local_nodes: Vec<NodeName>,
}

impl ClusterOptions {
    /// Two built-in nodes, no password.
    pub fn new(data_dir: PathBuf, sql_addr: SocketAddr) -> ClusterOptions {
        ClusterOptions {
            data_dir,
            sql_addr,
            attach: true,
            trust: false,
            insecure: false,
            superuser_password: None,
            connections_max: 1000,
            query_memory_bytes: 2 << 30,
            write_memory_bytes: args::default_write_memory_bytes(machine::memory_bytes()),
            local_nodes: vec![NodeName::from("dn1"), NodeName::from("dn2")],
        }
    }

    fn from_args(args: args::Sql) -> anyhow::Result<ClusterOptions> {
        let superuser_password = match &args.superuser_password_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => std::env::var(SUPERUSER_PASSWORD).ok(),
        };
        Ok(ClusterOptions {
            trust: args.trust,
            insecure: args.insecure,
            superuser_password: superuser_password.filter(|password| !password.is_empty()),
            connections_max: args.connections_max,
            query_memory_bytes: args.query_memory_mib << 20,
            ..ClusterOptions::new(args.data_dir, args.sql_addr)
        })
    }
}

/// Reaches built-in nodes directly and all others over gRPC.
struct Nodes {
    local: BTreeMap<NodeName, Arc<Node>>,
}

impl Connector for Nodes {
    fn connect(&self, name: &NodeName, address: &str) -> proto::Result<Arc<dyn DataNode>> {
        match self.local.get(name) {
            Some(node) => Ok(node.clone()),
            None => Ok(Arc::new(GrpcNode::new(address)?)),
        }
    }
}

/// A coordinator with the nodes that live in its process.
pub struct Cluster {
    sql_addr: SocketAddr,
    core: Arc<txn::Cluster>,
    local: BTreeMap<NodeName, Arc<Node>>,
    serving: JoinHandle<()>,
    jobs: JoinHandle<()>,
}

impl Cluster {
    pub async fn start(options: ClusterOptions, stop: Stop) -> anyhow::Result<Cluster> {
        guard_address(options.sql_addr, "--sql-addr", options.insecure)?;
        if options.trust && !options.sql_addr.ip().is_loopback() {
            bail!("--trust is for loopback addresses only; {} is reachable from other machines", options.sql_addr);
        }
        let world = World::real();
        let listener = bind(options.sql_addr, "--sql-addr").await?;
        let sql_addr = listener.local_addr()?;
        let local = open_local(&world, &options)?;
        let nodes = Arc::new(Nodes { local: local.clone() });
        let dir = options.data_dir.join("coordinator");
        let core = txn::Cluster::open(
            world.vfs,
            world.clock.clone(),
            world.rng.clone(),
            &dir,
            nodes,
            txn::ClusterOptions::default(),
        )
        .await
        .with_context(|| format!("cannot open {}", dir.display()))?;
        if options.attach {
            attach_local(&core, &local).await?;
        }
        let engine = Engine::new(&EngineOptions { memory_bytes: options.query_memory_bytes }, world.clock.clone());
        let mut serve_options = ServeOptions::new(world.rng.clone());
        serve_options.connections_max = options.connections_max;
        let front_options = FrontOptions { trust: options.trust, port: sql_addr.port(), partitions: QUERY_PARTITIONS };
        let cancels = serve_options.cancels.clone();
        let front = Front::new(core.clone(), engine, world.clock, world.rng, cancels, front_options);
        front
            .set_superuser_password(options.superuser_password.as_deref())
            .await
            .context("cannot set the password of role postgres")?;
        let jobs = tokio::spawn(front.scheduler().run(stop.0.clone()));
        let serving = tokio::spawn(pg::serve(listener, Arc::new(front), serve_options, stop.0.clone()));
        info!(%sql_addr, trust = options.trust, "serving SQL");
        Ok(Cluster { sql_addr, core, local, serving, jobs })
    }

    pub fn sql_addr(&self) -> SocketAddr {
        self.sql_addr
    }

    /// After the stop was requested: waits for the clients' tasks and the jobs, then closes coordinator and nodes.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.serving.await.context("the SQL server ended badly")?;
        self.jobs.await.context("the scheduler of jobs ended badly")?;
        self.core.close().await;
        for node in self.local.values() {
            node.close().await.context("closing a node")?;
        }
        info!("stopped");
        Ok(())
    }
}

fn open_local(world: &World, options: &ClusterOptions) -> anyhow::Result<BTreeMap<NodeName, Arc<Node>>> {
    let share = options.local_nodes.len().max(1);
    let open = |name: &NodeName| {
        let dir = options.data_dir.join(name.as_str());
        let node_options = NodeOptions {
            engine: EngineOptions { memory_bytes: options.query_memory_bytes / share },
            store: StoreOptions { delta_bytes_max: options.write_memory_bytes / share, ..StoreOptions::default() },
            ..NodeOptions::default()
        };
        let node = Node::open(world.vfs.clone(), world.clock.clone(), world.rng.clone(), &dir, node_options)
            .with_context(|| format!("cannot open {}", dir.display()))?;
        Ok((name.clone(), Arc::new(node)))
    };
    options.local_nodes.iter().map(open).collect()
}

async fn attach_local(core: &Arc<txn::Cluster>, local: &BTreeMap<NodeName, Arc<Node>>) -> anyhow::Result<()> {
    for name in local.keys() {
        if core.catalog().node(name).is_err() {
            let new = NewNode {
                name: name.clone(),
                host: "localhost".to_owned(),
                port: None,
                database: "postgres".to_owned(),
                owner: "postgres".to_owned(),
            };
            core.add_node(new).await.with_context(|| format!("cannot add built-in node {name}"))?;
        }
    }
    Ok(())
}

/// Nothing is encrypted yet, so an address that others can reach must be asked for twice.
fn guard_address(address: SocketAddr, flag: &str, insecure: bool) -> anyhow::Result<()> {
    match (address.ip().is_loopback(), insecure) {
        (true, _) => Ok(()),
        (false, true) => {
            warn!(%address, "listening beyond this machine without encryption");
            Ok(())
        }
        (false, false) => bail!(
            "{flag} {address} is reachable from other machines and nothing is encrypted yet; \
             choose a loopback address or accept it with --insecure"
        ),
    }
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; {flag} HOST:PORT chooses another address"))
}

/// One line on stdout, for people and for scripts that asked for port 0.
#[expect(clippy::print_stdout, reason = "the address is this program's output")]
fn announce(what: &str, address: SocketAddr) {
    println!("{what} listening on {address}");
}

pub async fn embedded(args: args::Embedded) -> anyhow::Result<()> {
    let write_memory_bytes = args.write_memory.bytes();
    let options = ClusterOptions::from_args(args.sql)?;
    serve_sql(ClusterOptions { attach: !args.no_attach, write_memory_bytes, ..options }).await
}

pub async fn coordinator(args: args::Coordinator) -> anyhow::Result<()> {
    let options = ClusterOptions { attach: false, local_nodes: Vec::new(), ..ClusterOptions::from_args(args.sql)? };
    serve_sql(options).await
}

async fn serve_sql(options: ClusterOptions) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let cluster = Cluster::start(options, stop.clone()).await?;
    announce("sql", cluster.sql_addr());
    stop.requested().await;
    info!("stopping");
    cluster.finish().await
}

pub async fn node(args: args::Node) -> anyhow::Result<()> {
    guard_address(args.node_addr, "--node-addr", args.insecure)?;
    let stop = Stop::on_signals()?;
    let world = World::real();
    let listener = bind(args.node_addr, "--node-addr").await?;
    let options = NodeOptions {
        engine: EngineOptions { memory_bytes: args.query_memory_mib << 20 },
        store: StoreOptions { delta_bytes_max: args.write_memory.bytes(), ..StoreOptions::default() },
        ..NodeOptions::default()
    };
    let node = Node::open(world.vfs, world.clock, world.rng, &args.data_dir, options)
        .with_context(|| format!("cannot open {}", args.data_dir.display()))?;
    let node = Arc::new(node);
    let address = listener.local_addr()?;
    announce("node", address);
    info!(%address, "serving chunks");
    let stopped = async move { stop.requested().await };
    serve_node(node.clone(), listener, stopped).await.context("the node's server failed")?;
    info!("stopping");
    node.close().await.context("closing the node")?;
    Ok(())
}
