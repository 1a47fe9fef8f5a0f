//! The door while leadership comes and goes: open when this coordinator leads, else it says who does.

use super::Front;
use crate::pg::backend::{Authentication, Conversation, Frontdoor, Startup};
use crate::txn::Coordinator;
use async_trait::async_trait;
use parking_lot::RwLock;
use proto::{Error, Result, SqlState};
use std::net::SocketAddr;
use std::sync::Arc;

pub struct Gate {
    coordinator: Arc<Coordinator>,
    front: RwLock<Option<Arc<Front>>>,
}

impl Gate {
    /// Closed.
    pub fn new(coordinator: Arc<Coordinator>) -> Gate {
        Gate { coordinator, front: RwLock::new(None) }
    }

    /// Clients come in through `front` from now on.
    pub fn open(&self, front: Arc<Front>) {
        *self.front.write() = Some(front);
    }

    /// Turns clients away from now on; those inside are the front's.
    pub fn close(&self) {
        *self.front.write() = None;
    }

    fn front(&self) -> Result<Arc<Front>> {
        self.front.read().clone().ok_or_else(|| self.refusal())
    }

    /// Clients that know several coordinators try the next one on 57P03.
    fn refusal(&self) -> Error {
        let me = self.coordinator.introduce().member;
        let text = match self.coordinator.leader() {
            Some(leader) if leader != me => {
                format!("this is coordinator {me}: connect to coordinator {leader}, which leads")
            }
            Some(_) => "the database system is starting up".to_owned(),
            None => format!("this is coordinator {me}: no coordinator leads at the moment"),
        };
        Error::new(SqlState::CANNOT_CONNECT_NOW, text)
    }
}

#[async_trait]
impl Frontdoor for Gate {
    fn authentication(&self, user: &str, database: &str, peer: Option<SocketAddr>) -> Authentication {
        match self.front() {
            Ok(front) => front.authentication(user, database, peer),
            Err(refusal) => Authentication::Refuse(refusal),
        }
    }

    async fn connect(&self, startup: Startup) -> Result<Box<dyn Conversation>> {
        self.front()?.connect(startup).await
    }
}
