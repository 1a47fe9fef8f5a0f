//! Processes from their start to their clean stop: what all kinds share, and a data node's. See `cluster` for those with SQL.

use crate::args;
use anyhow::{Context, bail};
use engine::plan::EngineOptions;
use node::{Node, NodeOptions, OverGrpc};
use proto::wire::serve_node;
use proto::{Clock, Rng, SystemClock, SystemRng};
use std::net::SocketAddr;
use std::sync::Arc;
use storage::{RealVfs, StoreOptions, Vfs};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The wish to stop, shared by everything that runs.
#[derive(Clone, Default)]
pub struct Stop(pub CancellationToken);

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
pub struct World {
    pub vfs: Arc<dyn Vfs>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
}

impl World {
    pub fn real() -> World {
        World { vfs: Arc::new(RealVfs), clock: Arc::new(SystemClock::new()), rng: Arc::new(SystemRng) }
    }
}

/// Nothing is encrypted yet, so an address that others can reach must be asked for twice.
pub fn guard_address(address: SocketAddr, flag: &str, insecure: bool) -> anyhow::Result<()> {
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

pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; {flag} HOST:PORT chooses another address"))
}

/// One line on stdout, for people and for scripts that asked for port 0.
#[expect(clippy::print_stdout, reason = "the address is this program's output")]
pub fn announce(what: &str, address: SocketAddr) {
    println!("{what} listening on {address}");
}

pub async fn node(args: args::Node) -> anyhow::Result<()> {
    guard_address(args.node_addr, "--node-addr", args.insecure)?;
    let stop = Stop::on_signals()?;
    let world = World::real();
    let listener = bind(args.node_addr, "--node-addr").await?;
    let options = NodeOptions {
        engine: EngineOptions { memory_bytes: args.query_memory.bytes(), spill: None },
        spill_bytes_max: args.query_memory.spill_bytes_max(),
        store: StoreOptions { delta_bytes_max: args.write_memory.bytes(), ..StoreOptions::default() },
        ..NodeOptions::default()
    };
    let publishers = Arc::new(OverGrpc::on(Handle::current()));
    let node = Node::open(world.vfs, world.clock, world.rng, &args.data_dir, publishers, options)
        .with_context(|| format!("cannot open {}", args.data_dir.display()))?;
    let node = Arc::new(node);
    let address = listener.local_addr()?;
    announce("node", address);
    info!(%address, "serving chunks");
    let running = Arc::clone(&node);
    let stopped = async move {
        stop.requested().await;
        // Whoever holds a cursor open would keep the server alive.
        running.stop_queries();
    };
    serve_node(node.clone(), listener, stopped).await.context("the node's server failed")?;
    info!("stopping");
    node.close().await.context("closing the node")?;
    Ok(())
}
