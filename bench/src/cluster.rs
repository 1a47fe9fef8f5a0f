//! Processes of the release binary: a coordinator and its nodes, or all in one. Killed when dropped.

use anyhow::{Context, Result, bail};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Connection, NoTls, Socket};

/// What a run is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A coordinator and so many nodes, a process each.
    Processes(u32),
    /// The same with several coordinators.
    Group { nodes: u32, coordinators: u32 },
    /// All in one process.
    Embedded,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (coordinators, nodes) = match self {
            Mode::Processes(nodes) => (1, *nodes),
            Mode::Group { nodes, coordinators } => (*coordinators, *nodes),
            Mode::Embedded => return f.write_str("one process"),
        };
        write!(f, "{coordinators} coordinator{}, {nodes} node{}", plural(coordinators), plural(nodes))
    }
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

pub struct Cluster {
    binary: PathBuf,
    scratch: PathBuf,
    mode: Mode,
    processes: Vec<(String, Child)>,
    node_addrs: Vec<SocketAddr>,
    sql_addrs: Vec<SocketAddr>,
    /// Where the coordinators of a group reach each other.
    peers: String,
}

impl Cluster {
    /// An empty one.
    ///
    /// # Errors
    /// When a process does not get ready; its stderr is shown.
    pub async fn start(binary: &Path, scratch: &Path, mode: Mode) -> Result<Cluster> {
        let mut cluster = Cluster {
            binary: binary.to_owned(),
            scratch: scratch.to_owned(),
            mode,
            processes: Vec::new(),
            node_addrs: Vec::new(),
            sql_addrs: Vec::new(),
            peers: String::new(),
        };
        let node_addrs = cluster.spawn_all(&[])?;
        let (client, connection) = cluster.connect().await?;
        let connection = tokio::spawn(connection);
        for (number, addr) in (1..).zip(node_addrs) {
            let add = format!("SELECT add_data_node('dn{number}', host => '{}', port => {})", addr.ip(), addr.port());
            client.simple_query(&add).await.context("add_data_node")?;
        }
        drop(client);
        connection.await??;
        Ok(cluster)
    }

    /// Kills every process without warning and starts them again where they were; returns the bytes their logs had, and
    /// how long it took from the start to the answer to `query`, in seconds.
    ///
    /// # Errors
    /// When a process does not come back, or the query fails.
    pub async fn crash(&mut self, query: &str) -> Result<(u64, f64)> {
        let addrs = self.node_addrs.clone();
        self.kill();
        let log_bytes = bytes_under(&self.scratch, "log")?;
        let started = Instant::now();
        self.spawn_all(&addrs)?;
        loop {
            let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
            tokio::spawn(connection);
            match client.simple_query(query).await {
                Ok(_) => return Ok((log_bytes, started.elapsed().as_secs_f64())),
                // Nodes that are still replaying are not available.
                Err(error) if started.elapsed().as_secs() > 120 => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Names and process ids.
    pub fn processes(&self) -> impl Iterator<Item = (&str, u32)> {
        self.processes.iter().map(|(name, process)| (name.as_str(), process.id()))
    }

    /// The most memory each process has had resident so far, in MiB.
    pub fn peak_mib(&self) -> Vec<(String, u64)> {
        let peak = |(name, process): &(String, Child)| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("VmHWM:"));
            let kib = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse::<u64>().ok());
            (name.clone(), kib.unwrap_or(0) >> 10)
        };
        self.processes.iter().map(peak).collect()
    }

    /// Returns the addresses of the nodes, when they are processes. They keep those of an earlier start.
    fn spawn_all(&mut self, former: &[SocketAddr]) -> Result<Vec<SocketAddr>> {
        let (nodes, coordinators) = match self.mode {
            Mode::Processes(nodes) => (nodes, 1),
            Mode::Group { nodes, coordinators } => (nodes, coordinators),
            Mode::Embedded => {
                let dir = self.scratch.join("embedded");
                self.sql_addrs = vec![self.spawn("embedded", &dir, &["--trust", "--sql-addr", "127.0.0.1:0"])?];
                return Ok(Vec::new());
            }
        };
        let mut addrs = Vec::new();
        for number in 0..nodes as usize {
            let dir = self.scratch.join(format!("dn{}", number + 1));
            let addr = former.get(number).map_or_else(|| "127.0.0.1:0".to_owned(), |addr| addr.to_string());
            addrs.push(self.spawn("node", &dir, &["--node-addr", &addr])?);
        }
        self.node_addrs = addrs.clone();
        self.peers = match coordinators {
            1 => String::new(),
            _ => free_addrs(coordinators)?.join(","),
        };
        self.sql_addrs = vec![([127, 0, 0, 1], 0).into(); coordinators as usize];
        (0..coordinators as usize).try_for_each(|index| self.start_again(index))?;
        Ok(addrs)
    }

    /// A coordinator, on its directory and its address.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_again(&mut self, coordinator: usize) -> Result<()> {
        let number = (coordinator + 1).to_string();
        let dir = self.scratch.join(if self.peers.is_empty() {
            "coordinator".to_owned()
        } else {
            coordinator_name(coordinator)
        });
        let (addr, peers) = (self.sql_addrs[coordinator].to_string(), self.peers.clone());
        let mut arguments = vec!["--trust", "--sql-addr", &addr];
        if !peers.is_empty() {
            arguments.extend(["--peers", &peers, "--member", &number]);
        }
        self.sql_addrs[coordinator] = self.spawn("coordinator", &dir, &arguments)?;
        Ok(())
    }

    /// Kills the coordinator that lets clients in, and tells which it was.
    ///
    /// # Errors
    /// When there is none.
    pub async fn kill_leader(&mut self) -> Result<usize> {
        let (client, connection) = self.connect().await?;
        tokio::spawn(connection);
        let port: String = client.query_one("SELECT current_setting('port')", &[]).await?.get(0);
        let leader = self.sql_addrs.iter().position(|addr| addr.port().to_string() == port).context("not ours")?;
        let name = coordinator_name(leader);
        let place = self.processes.iter().position(|(process, _)| *process == name).context("not running")?;
        let (_, mut process) = self.processes.remove(place);
        process.kill()?;
        process.wait()?;
        Ok(leader)
    }

    /// As soon as somebody leads.
    async fn connect(&self) -> Result<(Client, Connection<Socket, NoTlsStream>)> {
        let started = Instant::now();
        loop {
            match tokio_postgres::connect(&self.url(), NoTls).await {
                Ok(connected) => return Ok(connected),
                Err(error) if started.elapsed().as_secs() > 30 => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn kill(&mut self) {
        for (_, process) in &mut self.processes {
            // Both fail only when it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
        self.processes.clear();
    }

    pub fn url(&self) -> String {
        let list = |part: &dyn Fn(&SocketAddr) -> String| self.sql_addrs.iter().map(part).collect::<Vec<_>>().join(",");
        let (hosts, ports) = (list(&|addr| addr.ip().to_string()), list(&|addr| addr.port().to_string()));
        format!("host={hosts} port={ports} user=postgres dbname=postgres")
    }

    /// Returns the address the process prints when it is ready.
    fn spawn(&mut self, role: &str, dir: &Path, arguments: &[&str]) -> Result<SocketAddr> {
        let mut command = Command::new(&self.binary);
        command.arg(role).arg("--data-dir").arg(dir).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| self.binary.display().to_string())?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let name = dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        self.processes.push((name, child));
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
        self.kill();
    }
}

fn coordinator_name(coordinator: usize) -> String {
    format!("coordinator{}", coordinator + 1)
}

/// Free at the moment: coordinators are told of each other before any of them listens.
fn free_addrs(count: u32) -> Result<Vec<String>> {
    let listeners = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}

/// Of the files in all folders of this name.
fn bytes_under(dir: &Path, folder: &str) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name() == folder {
            for file in std::fs::read_dir(entry.path())? {
                bytes += file?.metadata()?.len();
            }
        } else {
            bytes += bytes_under(&entry.path(), folder)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_says_how_many_processes_there_are() {
        assert_eq!(Mode::Processes(2).to_string(), "1 coordinator, 2 nodes");
        assert_eq!(Mode::Group { nodes: 1, coordinators: 3 }.to_string(), "3 coordinators, 1 node");
        assert_eq!(Mode::Embedded.to_string(), "one process");
    }
}
