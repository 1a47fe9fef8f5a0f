//! The links to all data nodes of the catalog, and how a connection to an address is made.

use super::link::{Link, Timeouts};
use crate::catalog::CatalogState;
use parking_lot::RwLock;
use proto::{DataNode, Error, NodeName, Result, SqlState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Supplied by the binary: gRPC to another process, or the node itself in this one.
pub trait Connector: Send + Sync + 'static {
    /// A handle to the node at `address` (`host:port`); it may connect on first use.
    fn connect(&self, name: &NodeName, address: &str) -> Result<Arc<dyn DataNode>>;

    /// Whether these nodes can reach each other at their addresses.
    fn are_connected(&self, names: &[NodeName]) -> bool {
        _ = names;
        true
    }
}

pub struct Nodes {
    pub(super) connector: Arc<dyn Connector>,
    timeouts: Timeouts,
    links: RwLock<BTreeMap<NodeName, Link>>,
}

impl Nodes {
    pub(super) fn new(connector: Arc<dyn Connector>, timeouts: Timeouts) -> Nodes {
        Nodes { connector, timeouts, links: RwLock::default() }
    }

    /// Links for the nodes the catalog has, and no others.
    pub(super) fn follow(&self, catalog: &CatalogState) {
        let mut links = self.links.write();
        links.retain(|name, _| catalog.node(name).is_ok());
        for node in catalog.nodes() {
            links.entry(node.name.clone()).or_insert_with(|| Link::new(node.name.clone(), self.timeouts.clone()));
        }
    }

    /// # Errors
    /// 42704 for a name that is no data node.
    pub fn link(&self, name: &NodeName) -> Result<Link> {
        let missing = || Error::new(SqlState::UNDEFINED_OBJECT, format!("server \"{name}\" does not exist"));
        self.links.read().get(name).cloned().ok_or_else(missing)
    }

    /// The node, for calls; they fail at once while it is down.
    pub fn get(&self, name: &NodeName) -> Result<Arc<dyn DataNode>> {
        Ok(Arc::new(self.link(name)?))
    }

    /// Whether these nodes can reach each other at the addresses the catalog has.
    pub fn are_connected(&self, names: &[NodeName]) -> bool {
        self.connector.are_connected(names)
    }

    pub fn is_up(&self, name: &NodeName) -> bool {
        self.links.read().get(name).is_some_and(Link::is_up)
    }

    pub(super) fn all(&self) -> Vec<Link> {
        self.links.read().values().cloned().collect()
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }
}
