//! The wire against a fake session: real sockets, a real client (tokio-postgres), and a client that breaks the rules.

mod client;
mod fake;
mod flow;
mod login;
pub(crate) mod raw;

use super::{ServeOptions, serve};
use fake::Front;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct TestServer {
    addr: SocketAddr,
    front: Arc<Front>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start() -> TestServer {
    start_with(|_| {}).await
}

async fn start_with(change: impl FnOnce(&mut ServeOptions)) -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut options = ServeOptions::new(Arc::new(proto::SystemRng));
    change(&mut options);
    let (front, shutdown) = (Front::new(), CancellationToken::new());
    let task = tokio::spawn(serve(listener, Arc::clone(&front) as _, options, shutdown.clone()));
    TestServer { addr, front, shutdown, task }
}

/// A test that hangs is a test that fails.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it ends in time")
}
