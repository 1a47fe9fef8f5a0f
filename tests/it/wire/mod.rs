//! The Postgres protocol as clients use it. Everything here but the hypertables is plain PostgreSQL, and can be run
//! against one (`SERIATIM_REFERENCE`).

mod extended;
mod savepoints;
mod simple;
mod startup;
mod streams;

use crate::cluster::{Message, RawClient, Server};
use std::net::{SocketAddr, ToSocketAddrs};

/// 1,000 rows over 26 days and seven devices.
const READINGS: &str = "INSERT INTO readings SELECT timestamptz '2024-01-01 00:00:00+00' + n * interval '37 minutes', \
                        n % 7, n / 4.0, 'note ' || n FROM generate_series(0, 999) AS n";

async fn server_with_readings() -> Server {
    let server = Server::start().await;
    let session = server.connect().await;
    session
        .run("CREATE TABLE readings (time timestamptz NOT NULL, device integer, temp double precision, note text)")
        .await;
    server.distribute(&session, "readings", "time", "device").await;
    assert_eq!(session.run(READINGS).await, 1000);
    server
}

fn sql_addr(server: &Server) -> SocketAddr {
    let host = server.config().get_hosts().first().expect("a host");
    let tokio_postgres::config::Host::Tcp(host) = host else { panic!("only TCP servers are tested") };
    let port = server.config().get_ports()[0];
    (host.as_str(), port).to_socket_addrs().unwrap().next().expect("an address")
}

fn raw_login(server: &Server) -> (RawClient, Vec<Message>) {
    RawClient::login(sql_addr(server), "postgres", server.config().get_dbname().expect("a database"))
}

fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| message.tag).collect()
}
