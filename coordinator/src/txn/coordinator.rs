//! One coordinator of the group: it keeps its copy of the log, follows whoever leads, and when it leads itself opens the
//! cluster for as long as that lasts.

use super::cluster::{Cluster, ClusterOptions};
use super::log::RaftLog;
use super::nodes::Connector;
use super::record::Machine;
use crate::catalog::CatalogState;
use crate::raft::{Driver, DriverOptions, Genesis, Outbox, Standing, StateMachine};
use bytes::Bytes;
use parking_lot::Mutex;
use proto::{Clock, ClusterId, Error, PROTOCOL, PeerIdentity, Result, Rng, SqlState};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use storage::Vfs;

/// Who belongs to the group, decided when the directory is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// This coordinator's number, from 1.
    pub member: u64,
    /// All numbers, ascending.
    pub voters: Vec<u64>,
}

/// A coordinator's place in its group, and the way to the others.
pub struct Seat {
    pub group: Group,
    pub outbox: Arc<dyn Outbox>,
}

impl Seat {
    /// Of the only coordinator.
    pub fn alone() -> Seat {
        Seat { group: Group { member: 1, voters: vec![1] }, outbox: Arc::new(Nobody) }
    }
}

/// Incarnations of members as they introduced themselves.
pub(super) type Met = Arc<Mutex<BTreeMap<u64, u64>>>;

pub struct Coordinator {
    driver: Arc<Driver<Machine>>,
    met: Met,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    connector: Arc<dyn Connector>,
    options: ClusterOptions,
}

/// For who is alone.
struct Nobody;

impl Outbox for Nobody {
    fn send(&self, to: u64, _: Bytes) {
        unreachable!("a message to member {to} of a group of one");
    }
}

impl Coordinator {
    /// Opens the directory, or makes it, and reads the log. Blocks.
    ///
    /// # Errors
    /// 55000 when another process has the directory, its format is another, or it belongs to another place in the group;
    /// XX001 for damage, with file and offset.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        dir: &Path,
        seat: Seat,
        connector: Arc<dyn Connector>,
        options: ClusterOptions,
    ) -> Result<Coordinator> {
        let log_bytes_max = options.log_bytes_max;
        let segment_bytes_max = log_bytes_max.max(1 << 16) / 4;
        let driver_options = DriverOptions { log_bytes_max, segment_bytes_max, tick: options.raft_tick };
        // The same on all members: the first who leads gives the cluster its identity.
        let state = StateMachine::encode(&Machine::new(CatalogState::new(ClusterId::NONE)))?.into();
        let Seat { group, outbox } = seat;
        let Group { member, voters } = group.clone();
        let genesis = || Genesis { member, incarnation: rng.next_u64(), voters, state };
        let driver = Driver::<Machine>::open(vfs, Arc::clone(&clock), dir, driver_options, outbox, genesis)?;
        let found = Group { member: driver.member(), voters: driver.voters().to_vec() };
        if found != group {
            let text = format!(
                "{} belongs to coordinator {} of {}, not to coordinator {} of {}",
                dir.display(),
                found.member,
                found.voters.len(),
                group.member,
                group.voters.len()
            );
            return Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text));
        }
        Ok(Coordinator { driver: Arc::new(driver), met: Met::default(), clock, rng, connector, options })
    }

    /// Waits until this coordinator leads, and opens the cluster: nodes that answer are up.
    ///
    /// # Errors
    /// What ended this coordinator for good.
    pub async fn lead(&self) -> Result<Arc<Cluster>> {
        let mut standing = self.driver.standing();
        loop {
            let now = standing.borrow_and_update().clone();
            let begun = match now {
                Standing::Leading { reign, machine } => machine.take().map(|machine| (reign, machine)),
                Standing::Ended(error) => return Err(error),
                Standing::Following { .. } => None,
            };
            let Some((reign, machine)) = begun else {
                let _ = standing.changed().await;
                continue;
            };
            let epoch = reign.term();
            tracing::info!(member = self.driver.member(), epoch, "this coordinator leads");
            let log = Arc::new(RaftLog { reign: reign.clone(), _driver: Arc::clone(&self.driver) });
            let mut cluster = ClusterId::NONE;
            self.rng.fill(&mut cluster.0);
            let me = (self.driver.member(), self.driver.incarnation());
            let (clock, connector) = (Arc::clone(&self.clock), Arc::clone(&self.connector));
            self.met.lock().insert(me.0, me.1);
            let opened = Cluster::begin_reign(clock, self.options.clone(), log, machine, epoch, cluster, connector);
            match opened.await {
                Ok(cluster) => {
                    cluster.follow_members(Arc::clone(&self.met));
                    return Ok(cluster);
                }
                Err(error) if reign.is_over() => tracing::warn!(%error, "a reign ended before it began"),
                Err(error) => return Err(error),
            }
        }
    }

    /// Who leads, as far as this coordinator knows.
    pub fn leader(&self) -> Option<u64> {
        match &*self.driver.standing().borrow() {
            Standing::Leading { .. } => Some(self.driver.member()),
            Standing::Following { leader } => *leader,
            Standing::Ended(_) => None,
        }
    }

    /// How this coordinator introduces itself to the others.
    pub fn introduce(&self) -> PeerIdentity {
        let cluster = self.driver.look(|machine| machine.catalog.cluster());
        PeerIdentity {
            protocol: PROTOCOL,
            cluster: Some(cluster).filter(|cluster| *cluster != ClusterId::NONE),
            member: self.driver.member(),
            incarnation: self.driver.incarnation(),
            voters: self.driver.voters().to_vec(),
        }
    }

    /// Whether the log may be shared with who introduces itself so.
    ///
    /// # Errors
    /// 55000: it belongs elsewhere, or has lost what it had promised to remember.
    pub fn admit(&self, peer: &PeerIdentity) -> Result<()> {
        let refuse = |text: String| Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text));
        let me = self.introduce();
        let member = peer.member;
        if peer.protocol != PROTOCOL {
            return refuse(format!("coordinator {member} speaks protocol {}, this one {PROTOCOL}", peer.protocol));
        }
        if peer.voters != me.voters || member == me.member || !me.voters.contains(&member) {
            return refuse(format!("coordinator {member} of {} is none of this group", peer.voters.len()));
        }
        if let (Some(theirs), Some(ours)) = (peer.cluster, me.cluster)
            && theirs != ours
        {
            return refuse(format!("coordinator {member} belongs to cluster {theirs}, this one to {ours}"));
        }
        let recorded = self.driver.look(|machine| machine.members.get(&member).copied());
        let mut met = self.met.lock();
        // What was not recorded yet may have voted all the same.
        let known = recorded.or_else(|| met.get(&member).copied());
        if known.is_some_and(|known| known != peer.incarnation) {
            return refuse(format!(
                "coordinator {member} has another data directory than the one that joined: what it voted for is lost"
            ));
        }
        met.insert(member, peer.incarnation);
        Ok(())
    }

    /// Has nobody wait for the log any more, whatever its disk does: commits under way stay open. For a process that is
    /// to stop.
    pub fn abandon(&self) {
        self.driver.abandon();
    }

    /// A message of a member that was admitted.
    ///
    /// # Errors
    /// 08P01 when it is none.
    pub fn receive(&self, message: &[u8]) -> Result<()> {
        self.driver.receive(message)
    }
}
