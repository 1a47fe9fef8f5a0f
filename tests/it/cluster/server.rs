//! What the tests of plain PostgreSQL behaviour talk to: an embedded cluster, or, to check the tests themselves, a
//! database of its own on the PostgreSQL server that `SERIATIM_REFERENCE` names.

use super::{Cluster, Session, Shape, connect};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_postgres::Config;

pub struct Server {
    config: Config,
    cluster: Option<Cluster>,
}

/// The server named by `SERIATIM_REFERENCE`.
pub fn reference() -> Option<Config> {
    let text = std::env::var("SERIATIM_REFERENCE").ok()?;
    Some(text.parse().expect("SERIATIM_REFERENCE is a connection string"))
}

impl Server {
    pub async fn start() -> Server {
        match reference() {
            Some(config) => Server { config: scratch_database(&config).await, cluster: None },
            None => {
                let cluster = Cluster::start(Shape::Embedded).await;
                Server { config: cluster.config("postgres"), cluster: Some(cluster) }
            }
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn is_reference(&self) -> bool {
        self.cluster.is_none()
    }

    pub async fn connect(&self) -> Session {
        let session = connect(&self.config).await.expect("the server accepts connections");
        session.run("SET TIME ZONE 'UTC'").await;
        session
    }

    /// Makes a table a distributed hypertable; on PostgreSQL it stays what it is.
    pub async fn distribute(&self, session: &Session, table: &str, time: &str, space: &str) {
        if !self.is_reference() {
            session.run(&format!("SELECT create_distributed_hypertable('{table}', '{time}', '{space}')")).await;
        }
    }
}

/// A new database on the reference server. It is left there: such a server is made for one run.
pub async fn scratch_database(config: &Config) -> Config {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("it_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let session = connect(config).await.expect("SERIATIM_REFERENCE accepts connections");
    session.run(&format!("CREATE DATABASE {name} TEMPLATE template0")).await;
    let mut scratch = config.clone();
    scratch.dbname(name);
    scratch
}
