//! Other data nodes, as a node finds them: over gRPC. In a process that has several, they are in it.

use parking_lot::Mutex;
use proto::wire::GrpcPublisher;
use proto::{NodeAddress, NodeName, Publisher, Publishers, Result};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::runtime::Handle;

/// One connection to each. What keeps it alive runs where this was made, not on the threads that compute.
pub struct OverGrpc {
    runtime: Handle,
    known: Mutex<HashMap<NodeName, Connection>>,
}

/// To the address a node had when it was made; nodes move.
struct Connection {
    address: String,
    publisher: Arc<dyn Publisher>,
}

impl OverGrpc {
    /// Connections will live on `runtime`.
    pub fn on(runtime: Handle) -> OverGrpc {
        OverGrpc { runtime, known: Mutex::default() }
    }
}

impl Publishers for OverGrpc {
    fn publisher(&self, node: &NodeAddress) -> Result<Arc<dyn Publisher>> {
        let mut known = self.known.lock();
        let connection = known.get(&node.identity.name).filter(|connection| connection.address == node.address);
        if let Some(connection) = connection {
            return Ok(Arc::clone(&connection.publisher));
        }
        let _entered = self.runtime.enter();
        let publisher: Arc<dyn Publisher> = Arc::new(GrpcPublisher::new(&node.address)?);
        let connection = Connection { address: node.address.clone(), publisher: Arc::clone(&publisher) };
        known.insert(node.identity.name.clone(), connection);
        Ok(publisher)
    }
}
