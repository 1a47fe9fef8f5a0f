//! Adding data nodes.

use super::cluster::Cluster;
use super::handshake::core::check_protocol;
use super::handshake::within;
use crate::catalog::{CatalogChange, CatalogState, NodeDef};
use proto::{DataNode, Error, NodeIdentity, NodeName, NodeStatus, Result, SqlState};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where `seriatim node` listens unless told otherwise.
pub const DEFAULT_NODE_PORT: u16 = 5435;

/// The arguments of `add_data_node`.
#[derive(Debug, Clone)]
pub struct NewNode {
    pub name: NodeName,
    pub host: String,
    /// `None`: `DEFAULT_NODE_PORT`.
    pub port: Option<i32>,
    pub database: String,
    pub owner: String,
}

impl Cluster {
    /// Binds the node to this cluster and puts it into the catalog, in a transaction of its own. Durable on return.
    ///
    /// # Errors
    /// 42710 for a name that is taken (with `IF NOT EXISTS` the caller looks first), 08001 for a node that does not
    /// answer, TS171 for one that belongs elsewhere, TS174 for one of another version.
    pub async fn add_node(self: &Arc<Self>, new: NewNode) -> Result<Arc<NodeDef>> {
        let port = check_address(&new)?;
        let _joining = Joining::enter(self, &new.name)?;
        let mut def = NodeDef {
            oid: 0,
            name: new.name,
            owner: new.owner,
            host: new.host,
            port,
            database: new.database,
            incarnation: 0,
            available: true,
            usage: BTreeSet::new(),
        };
        check_free(&self.catalog(), &def)?;
        let node = self.nodes.connector.connect(&def.name, &def.address()).map_err(|e| unreachable(&def, e))?;
        let hello = within(self.nodes.timeouts().hello, node.hello()).await;
        let status = hello.map_err(|e| unreachable(&def, e))?;
        check_protocol(&def.name, &status)?;
        self.bind(&def, node.as_ref(), &status).await?;
        def.incarnation = status.incarnation;
        def.oid = self.new_oid();
        let def = Arc::new(def);
        let mut txn = self.begin();
        txn.change(CatalogChange::AddNode(NodeDef::clone(&def)))?;
        txn.commit().await?;
        self.nodes.follow(&self.catalog());
        self.check_node(self.nodes.link(&def.name)?).await;
        Ok(def)
    }

    async fn bind(&self, def: &NodeDef, node: &dyn DataNode, status: &NodeStatus) -> Result<()> {
        let identity = NodeIdentity { cluster: self.id, name: def.name.clone() };
        let refuse = |detail: String| {
            let text = format!("cannot add \"{}\" as a data node", def.name);
            Err(Error::new(SqlState::DATA_NODE_ASSIGNMENT, text).detail(detail))
        };
        match &status.identity {
            // Bound by an attempt that ended before it reached the catalog.
            Some(bound) if *bound == identity => {}
            Some(bound) if bound.cluster == self.id => {
                return refuse(format!("It is already a data node of this cluster, named \"{}\".", bound.name));
            }
            Some(_) => return refuse("database is already a member of a distributed database".to_owned()),
            None => {
                let attached = within(self.nodes.timeouts().call, node.attach(identity)).await;
                if let Err(error) = attached {
                    return match error.code == SqlState::CONNECTION_FAILURE {
                        true => Err(unreachable(def, error)),
                        false => refuse(error.message),
                    };
                }
            }
        }
        let catalog = self.catalog();
        let mut others = catalog.nodes();
        match others.find(|other| other.incarnation == status.incarnation) {
            Some(other) => refuse(format!("It is already a data node of this cluster, named \"{}\".", other.name)),
            None => Ok(()),
        }
    }
}

fn check_address(new: &NewNode) -> Result<u16> {
    let invalid = |text: String, hint: &str| Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, text).hint(hint));
    if new.host.is_empty() {
        let hint = "Provide a host name or IP address of a data node to add.";
        return invalid("a host needs to be specified".to_owned(), hint);
    }
    let port = new.port.unwrap_or(DEFAULT_NODE_PORT.into());
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => invalid(format!("invalid port number {port}"), "The port number must be between 1 and 65535."),
    }
}

fn check_free(catalog: &CatalogState, def: &NodeDef) -> Result<()> {
    match catalog.node(&def.name) {
        Err(_) => Ok(()),
        Ok(_) => Err(Error::new(SqlState::DUPLICATE_OBJECT, format!("server \"{}\" already exists", def.name))),
    }
}

fn unreachable(def: &NodeDef, cause: Error) -> Error {
    let text = format!("could not connect to \"{}\"", def.name);
    let cause = cause.detail.unwrap_or(cause.message);
    Error::new(SqlState::CANNOT_CONNECT, text).detail(format!("{}: {cause}", def.address()))
}

/// One `add_node` per name at a time: two would bind two directories under one name.
struct Joining<'a> {
    cluster: &'a Cluster,
    name: NodeName,
}

impl<'a> Joining<'a> {
    fn enter(cluster: &'a Cluster, name: &NodeName) -> Result<Joining<'a>> {
        if cluster.joining.lock().insert(name.clone()) {
            return Ok(Joining { cluster, name: name.clone() });
        }
        let text = format!("server \"{name}\" is being added by another session");
        Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text))
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.cluster.joining.lock().remove(&self.name);
    }
}
