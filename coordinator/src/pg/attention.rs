//! What a connection listens to while it works for its client: the server's shutdown, a cancel request, the statement
//! timeout, and the client going away. Whichever comes first ends the work by dropping its future.

use super::failure::{End, Failure};
use super::wire::Inlet;
use proto::{Error, SqlState};
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// For one statement.
pub(super) struct Attention {
    shutdown: CancellationToken,
    cancel: CancellationToken,
    timeout: Option<Pin<Box<Sleep>>>,
}

impl Attention {
    /// The timeout runs from here.
    pub(super) fn start(shutdown: CancellationToken, cancel: CancellationToken, timeout: Option<Duration>) -> Self {
        let timeout = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        Attention { shutdown, cancel, timeout }
    }

    /// Work that reads the client's messages itself.
    pub(super) async fn guard<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let expired = async {
            match &mut self.timeout {
                Some(timeout) => timeout.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(End::shutdown().into()),
            () = self.cancel.cancelled() => Err(canceled("canceling statement due to user request").into()),
            () = expired => Err(canceled("canceling statement due to statement timeout").into()),
            done = work => Ok(done),
        }
    }

    /// Work during which the client has nothing to say; what it sends is kept for later.
    pub(super) async fn watch<T>(&mut self, inlet: &mut Inlet, work: impl Future<Output = T>) -> Result<T, Failure> {
        let watched = async {
            tokio::select! {
                biased;
                end = inlet.watch() => Err(Failure::End(end)),
                done = work => Ok(done),
            }
        };
        self.guard(watched).await?
    }
}

fn canceled(message: &str) -> Error {
    Error::new(SqlState::QUERY_CANCELED, message)
}
