//! Cancel keys: each connection gets a process number and a random secret; whoever presents both on another connection
//! stops the statement that runs at that moment. A request that names no one, or comes between statements, does nothing.

use parking_lot::Mutex;
use proto::Rng;
use std::collections::HashMap;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// The open connections of a server.
pub struct Cancels {
    rng: Arc<dyn Rng>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    last_pid: i32,
    by_pid: HashMap<i32, Entry>,
}

struct Entry {
    secret: Vec<u8>,
    running: Arc<Running>,
    terminate: CancellationToken,
}

impl Cancels {
    pub fn new(rng: Arc<dyn Rng>) -> Arc<Cancels> {
        Arc::new(Cancels { rng, open: Mutex::default() })
    }

    /// What `pg_cancel_backend` does: stops the running statement. Whether there is such a connection.
    pub fn cancel_backend(&self, pid: i32) -> bool {
        let open = self.open.lock();
        open.by_pid.get(&pid).inspect(|entry| entry.running.cancel()).is_some()
    }

    /// What `pg_terminate_backend` does: ends the connection. Whether there is such a connection.
    pub fn terminate_backend(&self, pid: i32) -> bool {
        let open = self.open.lock();
        open.by_pid.get(&pid).inspect(|entry| entry.terminate.cancel()).is_some()
    }

    /// A CancelRequest. Says nothing about success, as the wire does not either.
    pub(super) fn request(&self, pid: i32, secret: &[u8]) {
        let open = self.open.lock();
        if let Some(entry) = open.by_pid.get(&pid)
            && bool::from(entry.secret.ct_eq(secret))
        {
            entry.running.cancel();
        }
    }

    /// Enters a connection; it leaves when the returned value is dropped.
    pub(super) fn register(self: &Arc<Self>, secret_bytes: usize, terminate: CancellationToken) -> Registration {
        let mut secret = vec![0; secret_bytes];
        self.rng.fill(&mut secret);
        let running = Arc::new(Running::default());
        let mut open = self.open.lock();
        let pid = loop {
            open.last_pid = open.last_pid.checked_add(1).unwrap_or(1);
            if !open.by_pid.contains_key(&open.last_pid) {
                break open.last_pid;
            }
        };
        let entry = Entry { secret: secret.clone(), running: Arc::clone(&running), terminate };
        open.by_pid.insert(pid, entry);
        Registration { cancels: Arc::clone(self), pid, secret, running }
    }
}

/// A connection's place in the registry.
pub(super) struct Registration {
    cancels: Arc<Cancels>,
    pub(super) pid: i32,
    pub(super) secret: Vec<u8>,
    pub(super) running: Arc<Running>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancels.open.lock().by_pid.remove(&self.pid);
    }
}

/// The statement a connection is running, if any.
#[derive(Default)]
pub(super) struct Running(Mutex<Option<CancellationToken>>);

impl Running {
    /// A statement starts; a later cancel reaches the returned token.
    pub(super) fn start(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.0.lock() = Some(token.clone());
        token
    }

    pub(super) fn end(&self) {
        *self.0.lock() = None;
    }

    fn cancel(&self) {
        if let Some(token) = &*self.0.lock() {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::SystemRng;

    #[test]
    fn only_the_right_secret_stops_the_running_statement() {
        let cancels = Cancels::new(Arc::new(SystemRng));
        let one = cancels.register(4, CancellationToken::new());
        let two = cancels.register(32, CancellationToken::new());
        assert_ne!(one.pid, two.pid);
        let statement = one.running.start();
        cancels.request(one.pid, &two.secret);
        cancels.request(two.pid, &one.secret);
        cancels.request(one.pid, &one.secret[..3]);
        assert!(!statement.is_cancelled());
        cancels.request(one.pid, &one.secret.clone());
        assert!(statement.is_cancelled());
    }

    #[test]
    fn a_request_between_statements_does_not_reach_the_next_one() {
        let cancels = Cancels::new(Arc::new(SystemRng));
        let one = cancels.register(4, CancellationToken::new());
        one.running.start();
        one.running.end();
        cancels.request(one.pid, &one.secret.clone());
        assert!(!one.running.start().is_cancelled());
        let pid = one.pid;
        drop(one);
        assert!(!cancels.cancel_backend(pid));
    }
}
