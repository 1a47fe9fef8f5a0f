//! A coordinator and two nodes as processes of the release binary, killed when dropped.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tokio_postgres::NoTls;

const NODES_COUNT: usize = 2;

pub struct Cluster {
    processes: Vec<Child>,
    sql_addr: SocketAddr,
}

impl Cluster {
    /// # Errors
    /// When a process does not get ready; its stderr is shown.
    pub async fn start(binary: &Path, scratch: &Path) -> Result<Cluster> {
        let mut cluster = Cluster { processes: Vec::new(), sql_addr: ([127, 0, 0, 1], 0).into() };
        let mut node_addrs = Vec::new();
        for number in 1..=NODES_COUNT {
            let dir = scratch.join(format!("dn{number}"));
            node_addrs.push(cluster.spawn(binary, "node", &dir, &["--node-addr", "127.0.0.1:0"])?);
        }
        let dir = scratch.join("coordinator");
        cluster.sql_addr = cluster.spawn(binary, "coordinator", &dir, &["--trust", "--sql-addr", "127.0.0.1:0"])?;
        let (client, connection) = tokio_postgres::connect(&cluster.url(), NoTls).await?;
        let connection = tokio::spawn(connection);
        for (number, addr) in (1..).zip(node_addrs) {
            let add = format!("SELECT add_data_node('dn{number}', host => '{}', port => {})", addr.ip(), addr.port());
            client.simple_query(&add).await.context("add_data_node")?;
        }
        drop(client);
        connection.await??;
        Ok(cluster)
    }

    pub fn url(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.sql_addr.ip(), self.sql_addr.port())
    }

    /// Returns the address the process prints when it is ready.
    fn spawn(&mut self, binary: &Path, role: &str, dir: &Path, arguments: &[&str]) -> Result<SocketAddr> {
        let mut command = Command::new(binary);
        command.arg(role).arg("--data-dir").arg(dir).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| binary.display().to_string())?;
        let stdout = child.stdout.take().expect("stdout is piped");
        self.processes.push(child);
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines
            .by_ref()
            .map_while(|line| line.ok())
            .find_map(|line| line.split_once(" listening on ").and_then(|(_, address)| address.trim().parse().ok()));
        let Some(address) = ready else { bail!("{role} ended before it was ready") };
        // A full pipe would stop the process.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(address)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Both fail only when it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
