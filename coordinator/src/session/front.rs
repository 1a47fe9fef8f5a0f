//! Lets clients in: who they are, whether their database exists, what their role and database set for them.

use super::block::Block;
use super::cursor::Cursors;
use super::shape::Shapes;
use super::{Session, Variables};
use crate::catalog::{CatalogChange, RoleAlteration};
use crate::jobs::{Histories, Scheduler};
use crate::pg::Cancels;
use crate::pg::backend::{Authentication, Conversation, Frontdoor, Startup, Statements};
use crate::pg::scram::Verifier;
use crate::txn::Cluster;
use async_trait::async_trait;
use engine::plan::Engine;
use parking_lot::Mutex;
use proto::{Clock, Error, QueryId, Result, Rng, SqlState};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Exists from the start.
const SUPERUSER: &str = "postgres";

#[derive(Debug, Clone)]
pub struct FrontOptions {
    /// Let every known role in without a password.
    pub trust: bool,
    /// The SQL port, for `SHOW port`.
    pub port: u16,
    /// Parallel streams of one query per process.
    pub partitions: usize,
}

/// What all sessions of a server share.
pub(crate) struct Shared {
    pub(super) cluster: Arc<Cluster>,
    pub(super) engine: Engine,
    pub(super) shapes: Shapes,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) options: FrontOptions,
    pub(super) partitions: usize,
    pub(super) cancels: Arc<Cancels>,
    pub(super) histories: Arc<Histories>,
    pub(super) started_us: i64,
    next_query: AtomicU64,
    /// Open sessions by process number, for `pg_stat_activity`.
    pub(super) activity: Mutex<BTreeMap<i32, Activity>>,
    /// Makes the salt of a role that does not exist look like one that does.
    mock_secret: [u8; 32],
}

#[derive(Debug, Clone)]
pub struct Activity {
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub peer: Option<SocketAddr>,
    pub started_us: i64,
    pub query: String,
    pub query_started_us: i64,
    pub active: bool,
}

impl Shared {
    pub(super) fn next_query(&self) -> QueryId {
        QueryId(self.next_query.fetch_add(1, Ordering::Relaxed))
    }
}

pub struct Front {
    shared: Arc<Shared>,
}

impl Front {
    pub fn new(
        cluster: Arc<Cluster>,
        engine: Engine,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        cancels: Arc<Cancels>,
        options: FrontOptions,
    ) -> Front {
        let histories = Arc::new(Histories::recorded_in(&cluster.catalog()));
        let mut mock_secret = [0; 32];
        rng.fill(&mut mock_secret);
        let partitions = options.partitions;
        let activity = Mutex::default();
        let started_us = clock.now_us();
        let next_query = AtomicU64::new(1);
        Front {
            shared: Arc::new(Shared {
                cluster,
                engine,
                shapes: Shapes::default(),
                clock,
                rng,
                options,
                partitions,
                cancels,
                histories,
                started_us,
                next_query,
                activity,
                mock_secret,
            }),
        }
    }

    /// To be run beside the sessions, which see what it did.
    pub fn scheduler(&self) -> Scheduler {
        let Shared { cluster, clock, histories, .. } = &*self.shared;
        Scheduler::new(cluster.clone(), clock.clone(), histories.clone())
    }

    /// Gives role `postgres` this password, durably. With `None` nothing changes.
    ///
    /// # Errors
    /// Without `trust`, when role `postgres` would be left without any password: nobody could ever log in.
    pub async fn set_superuser_password(&self, password: Option<&str>) -> Result<()> {
        let cluster = &self.shared.cluster;
        let catalog = cluster.catalog();
        let superuser = catalog.role(SUPERUSER)?;
        let Some(password) = password else {
            return match superuser.verifier.is_some() || self.shared.options.trust {
                true => Ok(()),
                false => Err(Error::new(
                    SqlState::INVALID_PASSWORD,
                    "role postgres has no password yet: give --superuser-password-file FILE or set \
                     SERIATIM_SUPERUSER_PASSWORD (on a loopback address, --trust does without)",
                )),
            };
        };
        let known = superuser.verifier.as_deref().and_then(Verifier::parse);
        if known.is_some_and(|verifier| verifier.matches(password)) {
            return Ok(());
        }
        let verifier = Some(Some(Verifier::from_password(password, &*self.shared.rng).to_string()));
        let alteration = RoleAlteration { verifier, ..RoleAlteration::default() };
        let mut transaction = cluster.begin();
        transaction.change(CatalogChange::AlterRole { name: SUPERUSER.to_owned(), alteration })?;
        transaction.commit().await?;
        Ok(())
    }
}

#[async_trait]
impl Frontdoor for Front {
    fn authentication(&self, user: &str, _database: &str, _peer: Option<SocketAddr>) -> Authentication {
        if self.shared.options.trust {
            return Authentication::Trust;
        }
        let catalog = self.shared.cluster.catalog();
        let now_us = self.shared.clock.now_us();
        let usable = catalog.role(user).ok().filter(|role| role.valid_until_us.is_none_or(|until| now_us < until));
        let verifier = usable.and_then(|role| Verifier::parse(role.verifier.as_deref()?));
        match verifier {
            Some(verifier) => Authentication::Scram { verifier, known: true },
            None => Authentication::Scram { verifier: Verifier::mock(&self.shared.mock_secret, user), known: false },
        }
    }

    async fn connect(&self, startup: Startup) -> Result<Box<dyn Conversation>> {
        Ok(Box::new(self.open(startup)?))
    }
}

impl Front {
    /// The session of an authenticated client.
    pub(super) fn open(&self, startup: Startup) -> Result<Session> {
        let catalog = self.shared.cluster.catalog();
        let role =
            catalog.role(&startup.user).map_err(|error| Error::new(SqlState::INVALID_AUTHORIZATION, error.message))?;
        if !role.login {
            let message = format!("role \"{}\" is not permitted to log in", startup.user);
            return Err(Error::new(SqlState::INVALID_AUTHORIZATION, message));
        }
        let database = catalog.database(&startup.database)?;
        if !database.allow_connections {
            let message = format!("database \"{}\" is not currently accepting connections", startup.database);
            return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        }
        let mut variables = Variables::default();
        variables.set_base("session_authorization", &startup.user);
        variables.set_base("is_superuser", if role.superuser { "on" } else { "off" });
        variables.set_base("port", &self.shared.options.port.to_string());
        let own_database = role.database_settings.get(&startup.database);
        let layers = [Some(&database.settings), Some(&role.settings), own_database];
        for (name, value) in layers.into_iter().flatten().flatten() {
            variables.set_base(name, value);
        }
        for (name, value) in &startup.options {
            if !matches!(name.as_str(), "user" | "database" | "replication") && !name.starts_with("_pq_.") {
                variables.set(name, value)?;
            }
        }
        let now_us = self.shared.clock.now_us();
        let activity = Activity {
            user: startup.user.clone(),
            database: startup.database.clone(),
            application_name: variables.raw("application_name").to_owned(),
            peer: startup.peer,
            started_us: now_us,
            query: String::new(),
            query_started_us: now_us,
            active: false,
        };
        self.shared.activity.lock().insert(startup.pid, activity);
        Ok(Session {
            front: self.shared.clone(),
            session_user: startup.user,
            database: startup.database,
            pid: startup.pid,
            variables,
            told: None,
            block: Block::default(),
            transaction: None,
            statements: Statements::default(),
            cursors: Cursors::default(),
            group: None,
            wrote: AtomicBool::new(false),
            notices: Vec::new(),
        })
    }
}
