//! The listener: admits clients within the limits, gives each a task it owns and joins, and ends them all on shutdown.
//! A panic in one connection ends that connection.

use super::backend::{Conversation, Frontdoor};
use super::cancel::{Cancels, Registration};
use super::connection::Connection;
use super::failure::End;
use super::report::{Gravity, error_response};
use super::startup::{self, Greeting, Opening};
use super::wire::{Inlet, Outlet};
use proto::{Error, Rng, SqlState};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Clients that may be on their way in at a time. Each may make us hold about 48 KiB; one more is turned away at once.
const UNKNOWN_CLIENTS_MAX: usize = 256;

/// How long a client has to take in the last message.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long statements that cannot be interrupted may go on after a shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The wait after the listener failed, which it does when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct ServeOptions {
    /// Sessions at a time; cancel requests are answered beyond it.
    pub connections_max: usize,
    /// From the connection to the end of authentication.
    pub auth_timeout: Duration,
    /// Of one message of an authenticated client. COPY data is taken in pieces and has no such bound.
    pub message_bytes_max: usize,
    /// Shared with whoever answers `pg_cancel_backend`.
    pub cancels: Arc<Cancels>,
    /// For nonces; must be fit for secrets.
    pub rng: Arc<dyn Rng>,
}

impl ServeOptions {
    /// 100 connections, 10 seconds, 64 MiB.
    pub fn new(rng: Arc<dyn Rng>) -> ServeOptions {
        ServeOptions {
            connections_max: 100,
            auth_timeout: Duration::from_secs(10),
            message_bytes_max: 64 << 20,
            cancels: Cancels::new(Arc::clone(&rng)),
            rng,
        }
    }
}

/// Serves until `shutdown` fires and every connection has ended. Running statements are stopped, clients told `57P01`.
pub async fn serve(
    listener: TcpListener,
    front: Arc<dyn Frontdoor>,
    options: ServeOptions,
    shutdown: CancellationToken,
) {
    let server = Arc::new(Server {
        front,
        seats: Arc::new(Semaphore::new(options.connections_max)),
        unknown: Arc::new(Semaphore::new(UNKNOWN_CLIENTS_MAX)),
        options,
    });
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = clients.join_next() => report_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    clients.spawn(Arc::clone(&server).client(socket, peer, shutdown.child_token()));
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all_ended = async {
        while let Some(ended) = clients.join_next().await {
            report_panic(ended);
        }
    };
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, all_ended).await.is_err() {
        tracing::warn!(connections = clients.len(), "connections did not end in time and are cut");
        clients.shutdown().await;
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended in a panic");
    }
}

struct Server {
    front: Arc<dyn Frontdoor>,
    options: ServeOptions,
    seats: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
}

impl Server {
    async fn client(self: Arc<Self>, socket: TcpStream, peer: SocketAddr, shutdown: CancellationToken) {
        let Ok(admission) = Arc::clone(&self.unknown).try_acquire_owned() else {
            tracing::warn!(%peer, "too many clients are connecting: one is turned away");
            return;
        };
        // Whole answers are written at once; waiting for more would only delay them.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let (read, write) = socket.into_split();
        let (mut inlet, mut outlet) = (Inlet::new(read), Outlet::new(write));

        let arrival = tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                let message = "the database system is shutting down";
                Err(End::Fatal(Error::new(SqlState::CANNOT_CONNECT_NOW, message)))
            }
            arrival = self.arrive(&mut inlet, &mut outlet, peer, &shutdown) => arrival,
        };
        let (outlet, end) = match arrival {
            Ok(Some(arrived)) => {
                drop(admission);
                let Arrived { conversation, registration, seat } = arrived;
                let running = Arc::clone(&registration.running);
                let message_bytes_max = self.options.message_bytes_max;
                let over = conversation.ended();
                let stop = shutdown.clone();
                let connection = Connection::new(inlet, outlet, conversation, shutdown, running, message_bytes_max);
                let mut serving = pin!(connection.serve());
                let ended = tokio::select! {
                    ended = &mut serving => ended,
                    () = over.cancelled() => {
                        stop.cancel();
                        serving.await
                    }
                };
                drop((registration, seat));
                ended
            }
            Ok(None) => (outlet, End::Gone),
            Err(end) => (outlet, end),
        };
        say_goodbye(outlet, end).await;
    }

    /// From the first byte to an open session. `None` when the client only wanted to cancel another one's statement.
    async fn arrive(
        &self,
        inlet: &mut Inlet,
        outlet: &mut Outlet,
        peer: SocketAddr,
        shutdown: &CancellationToken,
    ) -> Result<Option<Arrived>, End> {
        let identified = self.identify(inlet, outlet, peer);
        let identified = tokio::time::timeout(self.options.auth_timeout, identified).await;
        let Some((greeting, seat)) = identified.map_err(|_| End::Gone)?? else {
            return Ok(None);
        };
        let registration = self.options.cancels.register(greeting.secret_bytes, shutdown.clone());
        let (pid, secret) = (registration.pid, &registration.secret);
        let conversation = startup::welcome(outlet, &*self.front, greeting, Some(peer), pid, secret).await?;
        Ok(Some(Arrived { conversation, registration, seat }))
    }

    /// Who it is, proven; and a seat.
    async fn identify(
        &self,
        inlet: &mut Inlet,
        outlet: &mut Outlet,
        peer: SocketAddr,
    ) -> Result<Option<(Greeting, OwnedSemaphorePermit)>, End> {
        let greeting = match startup::open(inlet, outlet).await? {
            Opening::Session(greeting) => greeting,
            Opening::Cancel { pid, secret } => {
                self.options.cancels.request(pid, &secret);
                return Ok(None);
            }
        };
        let seat = Arc::clone(&self.seats)
            .try_acquire_owned()
            .map_err(|_| End::Fatal(Error::new(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")))?;
        startup::authenticate(inlet, outlet, &*self.front, &greeting, Some(peer), &*self.options.rng).await?;
        Ok(Some((greeting, seat)))
    }
}

/// A client that was let in.
struct Arrived {
    conversation: Box<dyn Conversation>,
    registration: Registration,
    seat: OwnedSemaphorePermit,
}

async fn say_goodbye(mut outlet: Outlet, end: End) {
    let goodbye = async {
        if let End::Fatal(error) = end
            && outlet.feed(&error_response(&error, Gravity::Fatal)).is_ok()
        {
            // A client that cannot be told has left, which is what comes next anyway.
            let _ = outlet.flush().await;
        }
        outlet.shutdown().await;
    };
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
}
