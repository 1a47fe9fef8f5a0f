//! Processes that clients speak SQL with: a coordinator, alone or in a group, with the data nodes that live beside it.
//! Open the data, bind the ports, say where, lead whenever this coordinator may, close in the opposite order.

use crate::serve::{Stop, World, announce, bind, guard_address};
use crate::{args, machine};
use anyhow::{Context, bail};
use coordinator::pg::{self, Cancels, ServeOptions};
use coordinator::session::{Front, FrontOptions, Gate};
use coordinator::txn::{self, Connector, Coordinator, NewNode, Peers, Seat};
use engine::plan::{Engine, EngineOptions, Spill, Workers};
use node::{Node, NodeOptions};
use proto::wire::{GrpcNode, serve_peer};
use proto::{DataNode, NodeAddress, NodeName, Publisher, Publishers, SqlState};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use storage::StoreOptions;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};

/// Parallel streams of one query in each process.
const QUERY_PARTITIONS: usize = 2;

/// Threads of the coordinator that may read spilled rows at the same time.
const SPILL_READERS: usize = 16;

/// Between attempts to open the door of a new reign.
const OPEN_INTERVAL: Duration = Duration::from_secs(1);

/// What commits under way may take at a clean stop. Then whoever starts next finds out how they ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

const SUPERUSER_PASSWORD: &str = "SERIATIM_SUPERUSER_PASSWORD";

pub struct ClusterOptions {
    pub data_dir: PathBuf,
    pub sql_addr: SocketAddr,
    /// `None`: this coordinator is alone.
    pub group: Option<args::Group>,
    /// Add the built-in nodes at once.
    pub attach: bool,
    pub trust: bool,
    pub insecure: bool,
    pub superuser_password: Option<String>,
    pub connections_max: usize,
    pub query_memory_bytes: usize,
    /// 0: queries do not spill.
    pub spill_bytes_max: u64,
    /// Of all nodes that live in this process together.
    pub write_memory_bytes: usize,
    /// Names of the nodes that live in this process.
    pub local_nodes: Vec<NodeName>,
    pub core: txn::ClusterOptions,
}

impl ClusterOptions {
    /// Two built-in nodes, no password.
    pub fn new(data_dir: PathBuf, sql_addr: SocketAddr) -> ClusterOptions {
        ClusterOptions {
            data_dir,
            sql_addr,
            group: None,
            attach: true,
            trust: false,
            insecure: false,
            superuser_password: None,
            connections_max: 1000,
            query_memory_bytes: 2 << 30,
            spill_bytes_max: args::SPILL_MIB << 20,
            write_memory_bytes: args::default_write_memory_bytes(machine::memory_bytes()),
            local_nodes: vec![NodeName::from("dn1"), NodeName::from("dn2")],
            core: txn::ClusterOptions::default(),
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
            query_memory_bytes: args.query_memory.bytes(),
            spill_bytes_max: args.query_memory.spill_bytes_max(),
            core: args.timeouts.options(),
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

    /// Built-in nodes listen nowhere.
    fn are_connected(&self, names: &[NodeName]) -> bool {
        let local = names.iter().filter(|name| self.local.contains_key(name)).count();
        local == 0 || local == names.len()
    }
}

/// Built-in nodes as they find each other, once all are open.
#[derive(Default)]
struct Neighbours(OnceLock<BTreeMap<NodeName, Weak<Node>>>);

impl Publishers for Neighbours {
    fn publisher(&self, node: &NodeAddress) -> proto::Result<Arc<dyn Publisher>> {
        let name = &node.identity.name;
        let neighbour = self.0.get().and_then(|nodes| nodes.get(name)?.upgrade());
        let gone = || proto::Error::internal(format!("data node \"{name}\" is not in this process"));
        Ok(neighbour.ok_or_else(gone)?)
    }
}

/// A coordinator with the nodes that live in its process.
pub struct Cluster {
    sql_addr: SocketAddr,
    coordinator: Arc<Coordinator>,
    local: BTreeMap<NodeName, Arc<Node>>,
    serving: JoinHandle<()>,
    group: Option<(JoinHandle<()>, Stop)>,
    reigning: JoinHandle<anyhow::Result<Option<Arc<txn::Cluster>>>>,
}

impl Cluster {
    /// On return who is alone serves clients; a member of a group turns them away while it does not lead.
    pub async fn start(options: ClusterOptions, stop: Stop) -> anyhow::Result<Cluster> {
        guard_address(options.sql_addr, "--sql-addr", options.insecure)?;
        if options.trust && !options.sql_addr.ip().is_loopback() {
            bail!("--trust is for loopback addresses only; {} is reachable from other machines", options.sql_addr);
        }
        let world = World::real();
        let listener = bind(options.sql_addr, "--sql-addr").await?;
        let sql_addr = listener.local_addr()?;
        let local = open_local(&world, &options)?;
        let (coordinator, group) = open_coordinator(&world, &options, local.clone()).await?;
        // Only now the directory is ours alone.
        let spill = match options.spill_bytes_max {
            0 => None,
            bytes_max => Some(Spill::open(&options.data_dir.join("coordinator").join("spill"), bytes_max)?),
        };
        let threads = std::thread::available_parallelism().map_or(QUERY_PARTITIONS, usize::from);
        let workers = Workers::new(threads, SPILL_READERS).context("cannot start query threads")?;
        let mut serve_options = ServeOptions::new(world.rng.clone());
        serve_options.connections_max = options.connections_max;
        let gate = Arc::new(Gate::new(Arc::clone(&coordinator)));
        let (opened, first_open) = oneshot::channel();
        let alone = options.group.is_none();
        let throne = Throne {
            coordinator: Arc::clone(&coordinator),
            gate: Arc::clone(&gate),
            local: local.clone(),
            cancels: serve_options.cancels.clone(),
            front_options: FrontOptions { trust: options.trust, port: sql_addr.port(), partitions: QUERY_PARTITIONS },
            world,
            spill,
            workers: Arc::new(workers),
            options,
            stop: stop.clone(),
        };
        let reigning = tokio::spawn(throne.reign(opened));
        if alone && first_open.await.is_err() {
            // It says why.
            reigning.await.context("the coordinator ended badly")??;
            bail!("the coordinator was stopped before it could start");
        }
        let serving = tokio::spawn(pg::serve(listener, gate, serve_options, stop.0.clone()));
        info!(%sql_addr, "serving SQL");
        Ok(Cluster { sql_addr, coordinator, local, serving, group, reigning })
    }

    pub fn sql_addr(&self) -> SocketAddr {
        self.sql_addr
    }

    /// After the stop was requested: waits for the clients' tasks and the jobs, then closes coordinator and nodes.
    ///
    /// # Errors
    /// What made the coordinator stop by itself.
    pub async fn finish(self) -> anyhow::Result<()> {
        let coordinator = Arc::clone(&self.coordinator);
        let mut closing = pin!(self.close());
        if let Ok(closed) = tokio::time::timeout(CLOSE_TIMEOUT, &mut closing).await {
            return closed;
        }
        warn!("commits under way did not end in time: their outcome is left open");
        coordinator.abandon();
        closing.await
    }

    async fn close(self) -> anyhow::Result<()> {
        let reigned = self.reigning.await.context("the coordinator ended badly")?;
        self.serving.await.context("the SQL server ended badly")?;
        if let Ok(Some(core)) = &reigned {
            core.close().await;
        }
        // Only now: commits under way needed the others.
        if let Some((group, lines)) = self.group {
            lines.request();
            group.await.context("the lines to other coordinators ended badly")?;
        }
        for node in self.local.values() {
            node.close().await.context("closing a node")?;
        }
        info!("stopped");
        reigned.map(drop)
    }
}

/// What it takes to lead, again and again.
struct Throne {
    coordinator: Arc<Coordinator>,
    gate: Arc<Gate>,
    local: BTreeMap<NodeName, Arc<Node>>,
    cancels: Arc<Cancels>,
    front_options: FrontOptions,
    world: World,
    spill: Option<Spill>,
    workers: Arc<Workers>,
    options: ClusterOptions,
    stop: Stop,
}

impl Throne {
    /// Until stopped: the cluster that was open then.
    ///
    /// # Errors
    /// What ends this coordinator for good; the whole process is asked to stop.
    async fn reign(self, opened: oneshot::Sender<()>) -> anyhow::Result<Option<Arc<txn::Cluster>>> {
        let mut opened = Some(opened);
        let mut closing = JoinSet::new();
        let outcome = loop {
            let core = tokio::select! {
                () = self.stop.requested() => break Ok(None),
                core = self.coordinator.lead() => match core {
                    Ok(core) => core,
                    Err(error) => break Err(error).context("the coordinator cannot go on"),
                }
            };
            let front = match self.open_front(&core).await {
                Ok(Some(front)) => Arc::new(front),
                Ok(None) => continue,
                Err(error) => break Err(error),
            };
            let over = self.stop.0.child_token();
            let jobs = tokio::spawn(front.scheduler().run(over.clone()));
            self.gate.open(front);
            opened.take().map(|opened| opened.send(()));
            let stopped = tokio::select! {
                () = self.stop.requested() => true,
                () = core.ended() => false,
            };
            self.gate.close();
            over.cancel();
            jobs.await.context("the scheduler of jobs ended badly")?;
            if stopped {
                break Ok(Some(core));
            }
            // Its commits under way learn that they are lost, while this coordinator may lead again.
            closing.spawn(async move { core.close().await });
            while closing.try_join_next().is_some() {}
        };
        if outcome.is_err() {
            self.stop.request();
        }
        closing.join_all().await;
        outcome
    }

    /// As soon as it can be had; `None` when the reign or the process ends before.
    async fn open_front(&self, core: &Arc<txn::Cluster>) -> anyhow::Result<Option<Front>> {
        loop {
            match self.front(core).await {
                Ok(front) => return Ok(Some(front)),
                Err(error) if self.options.group.is_none() || is_final(&error) => return Err(error),
                Err(error) => warn!(%error, "this coordinator leads and cannot open yet"),
            }
            tokio::select! {
                () = self.stop.requested() => return Ok(None),
                () = core.ended() => return Ok(None),
                () = tokio::time::sleep(OPEN_INTERVAL) => {}
            }
        }
    }

    /// The door of a new reign.
    async fn front(&self, core: &Arc<txn::Cluster>) -> anyhow::Result<Front> {
        if self.options.attach {
            attach_local(core, &self.local).await?;
        }
        let World { clock, rng, .. } = &self.world;
        let engine_options = EngineOptions { memory_bytes: self.options.query_memory_bytes, spill: self.spill.clone() };
        let engine = Engine::new(&engine_options, clock.clone()).on(self.workers.clone());
        let (cancels, front_options) = (self.cancels.clone(), self.front_options.clone());
        let front = Front::new(core.clone(), engine, clock.clone(), rng.clone(), cancels, front_options);
        let password = self.options.superuser_password.as_deref();
        front.set_superuser_password(password).await.context("cannot set the password of role postgres")?;
        Ok(front)
    }
}

/// Whether leading again would end the same way: what the command line asks for cannot be had.
fn is_final(error: &anyhow::Error) -> bool {
    error.downcast_ref::<proto::Error>().is_some_and(|error| error.code == SqlState::INVALID_PASSWORD)
}

/// The coordinator, and the task that carries what it says to its group and hears the others.
async fn open_coordinator(
    world: &World,
    options: &ClusterOptions,
    local: BTreeMap<NodeName, Arc<Node>>,
) -> anyhow::Result<(Arc<Coordinator>, Option<(JoinHandle<()>, Stop)>)> {
    let dir = options.data_dir.join("coordinator");
    let peers = options.group.as_ref().map(|group| Arc::new(Peers::new(group.others())));
    let seat = match (&options.group, &peers) {
        (Some(group), Some(peers)) => Seat { group: group.group(), outbox: peers.clone() },
        _ => Seat::alone(),
    };
    let raft = match &options.group {
        Some(group) => {
            guard_address(group.raft_addr, "--raft-addr", options.insecure)?;
            Some(bind(group.raft_addr, "--raft-addr").await?)
        }
        None => None,
    };
    let (vfs, clock, rng) = (world.vfs.clone(), world.clock.clone(), world.rng.clone());
    let nodes = Arc::new(Nodes { local });
    let coordinator = Coordinator::open(vfs, clock, rng, &dir, seat, nodes, options.core.clone())
        .with_context(|| format!("cannot open {}", dir.display()))?;
    let coordinator = Arc::new(coordinator);
    let (Some(peers), Some(listener)) = (peers, raft) else { return Ok((coordinator, None)) };
    let (ours, lines) = (Arc::clone(&coordinator), Stop::default());
    let stop = lines.clone();
    let group = tokio::spawn(async move {
        let speaking = peers.run(Arc::clone(&ours), stop.0.clone());
        let hearing = serve_peer(ours, listener, stop.requested());
        if let ((), Err(error)) = tokio::join!(speaking, hearing) {
            warn!(%error, "this coordinator does not hear the others any more");
        }
    });
    Ok((coordinator, Some((group, lines))))
}

fn open_local(world: &World, options: &ClusterOptions) -> anyhow::Result<BTreeMap<NodeName, Arc<Node>>> {
    let share = options.local_nodes.len().max(1);
    let neighbours = Arc::new(Neighbours::default());
    let open = |name: &NodeName| {
        let dir = options.data_dir.join(name.as_str());
        let node_options = NodeOptions {
            engine: EngineOptions { memory_bytes: options.query_memory_bytes / share, spill: None },
            spill_bytes_max: options.spill_bytes_max / share as u64,
            store: StoreOptions { delta_bytes_max: options.write_memory_bytes / share, ..StoreOptions::default() },
            ..NodeOptions::default()
        };
        let node = Node::open(
            world.vfs.clone(),
            world.clock.clone(),
            world.rng.clone(),
            &dir,
            neighbours.clone(),
            node_options,
        )
        .with_context(|| format!("cannot open {}", dir.display()))?;
        Ok((name.clone(), Arc::new(node)))
    };
    let nodes = options.local_nodes.iter().map(open).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let known = nodes.iter().map(|(name, node)| (name.clone(), Arc::downgrade(node))).collect();
    neighbours.0.set(known).expect("it is set here only");
    Ok(nodes)
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

pub async fn embedded(args: args::Embedded) -> anyhow::Result<()> {
    let write_memory_bytes = args.write_memory.bytes();
    let options = ClusterOptions::from_args(args.sql)?;
    serve_sql(ClusterOptions { attach: !args.no_attach, write_memory_bytes, ..options }).await
}

pub async fn coordinator(args: args::Coordinator) -> anyhow::Result<()> {
    let group = args.group.group()?;
    let options = ClusterOptions::from_args(args.sql)?;
    let options = ClusterOptions { group, attach: false, local_nodes: Vec::new(), ..options };
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
