//! Data nodes: adding, removing, asking; and `distributed_exec`, which has little to do where nodes hold no definitions.

use super::host::Host;
use super::signature::{Bound, void};
use crate::catalog::CatalogChange;
use crate::pg::backend::Notice;
use crate::pgcatalog::{Row, Value};
use crate::session::statement_kinds;
use crate::txn::NewNode;
use proto::{Error, NodeName, Result, SqlState};

pub fn add(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    host.session.check_no_block("add_data_node()")?;
    host.check_superuser()?;
    let name = args.text("node_name");
    let name = name.ok_or_else(|| Error::new(SqlState::INVALID_PARAMETER_VALUE, "data node name cannot be NULL"))?;
    let address = args.text("host").ok_or_else(|| {
        Error::new(SqlState::INVALID_PARAMETER_VALUE, "a host needs to be specified")
            .hint("Provide a host name or IP address of a data node to add.")
    })?;
    let port = args.int("port")?.map(checked_port).transpose()?;
    let name = NodeName(name.to_owned());
    if args.bool("if_not_exists", false) {
        let catalog = host.catalog();
        if let Ok(node) = catalog.node(&name) {
            let row = row(&node.name, &node.host, node.port, &node.database, false);
            host.notice(Notice::notice(format!("data node \"{name}\" already exists, skipping")));
            return Ok(vec![row]);
        }
    }
    let database = args.text("database").unwrap_or(host.session.database()).to_owned();
    let owner = host.session.current_user().to_owned();
    let new = NewNode { name, host: address.to_owned(), port, database, owner };
    let cluster = host.session.cluster().clone();
    let node = host.wait(cluster.add_node(new))?;
    Ok(vec![row(&node.name, &node.host, node.port, &node.database, true)])
}

fn checked_port(port: i64) -> Result<i32> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(i32::from(port)),
        _ => Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid port number {port}"))
            .hint("The port number must be between 1 and 65535.")),
    }
}

fn row(name: &NodeName, host: &str, port: u16, database: &str, created: bool) -> Row {
    let created = Value::Bool(created);
    vec![
        Value::text(name.as_str()),
        Value::text(host),
        Value::Int(i64::from(port)),
        Value::text(database),
        created.clone(),
        created.clone(),
        created,
    ]
}

/// A node goes when nothing refers to it: chunks are not moved yet.
pub fn delete(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    host.check_superuser()?;
    let name = NodeName(args.text("node_name").unwrap_or_default().to_owned());
    let catalog = host.catalog();
    if let Err(missing) = catalog.node(&name) {
        if !args.bool("if_exists", false) {
            return Err(missing);
        }
        host.notice(Notice::notice(format!("data node \"{name}\" does not exist, skipping")));
        return Ok(vec![vec![Value::Bool(false)]]);
    }
    for table in catalog.tables() {
        if catalog.chunks(table.id).iter().any(|chunk| chunk.nodes.contains(&name)) {
            return Err(Error::new(SqlState::INSUFFICIENT_DATA_NODES, "insufficient number of data nodes")
                .detail(format!(
                    "Distributed hypertable \"{}\" would lose data if data node \"{name}\" is deleted.",
                    table.name
                ))
                .hint("Ensure all chunks on the data node are fully replicated before deleting it."));
        }
    }
    for table in catalog.tables() {
        let Some(hypertable) = &table.hypertable else { continue };
        let nodes = hypertable.data_nodes.iter().filter(|node| **node != name).cloned().collect::<Vec<_>>();
        if nodes.len() < hypertable.data_nodes.len() {
            host.change(CatalogChange::SetDataNodes { table: table.id, nodes })?;
        }
    }
    host.change(CatalogChange::DropNode(name))?;
    Ok(vec![vec![Value::Bool(true)]])
}

pub fn ping(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let name = NodeName(args.text("node_name").unwrap_or_default().to_owned());
    host.catalog().node(&name)?;
    let node = host.session.cluster().nodes().get(&name);
    let answered = match node {
        Ok(node) => host.wait(node.hello()).is_ok(),
        Err(_) => false,
    };
    Ok(vec![vec![Value::Bool(answered)]])
}

/// Roles, databases and definitions belong to the whole cluster, so a statement that would make them alike on the nodes
/// has nothing left to do. It is parsed all the same, and whatever would read or write rows is refused.
pub fn distributed_exec(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let query = args.text("query").unwrap_or_default();
    if query.trim().is_empty() {
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "empty command string"));
    }
    if !args.bool("transactional", true) {
        host.session.check_no_block("distributed_exec()")?;
    }
    let catalog = host.catalog();
    if let Some(names) = args.names("node_list") {
        if names.is_empty() {
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "invalid data nodes list")
                .hint("Must specify a non-empty list of data nodes."));
        }
        for name in names {
            catalog.node(&NodeName(name))?;
        }
    }
    for kind in statement_kinds(query)? {
        if kind.touches_rows {
            return Err(Error::unsupported(format!("{} by distributed_exec()", kind.words))
                .hint("Data nodes hold chunks only: run the statement here and it reaches all of them."));
        }
    }
    host.notice(Notice::notice("nothing to do on the data nodes: definitions belong to the whole cluster"));
    Ok(vec![void()])
}
