//! `trait Peer`: what coordinators of one group ask of each other. They share one replicated log; what travels between
//! them is opaque here.

use crate::{ClusterId, Result};

/// How a coordinator introduces itself when it opens a connection, and when it accepts one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub protocol: u32,
    /// `None` until a first leader gave the cluster its identity.
    pub cluster: Option<ClusterId>,
    /// Its number in the group, from 1.
    pub member: u64,
    /// Drawn when its directory was made: tells one that lost its disk from one that restarted.
    pub incarnation: u64,
    /// All numbers of the group.
    pub voters: Vec<u64>,
}

pub trait Peer: Send + Sync + 'static {
    fn introduce(&self) -> PeerIdentity;

    /// # Errors
    /// Why nothing may be shared with who introduces itself so.
    fn admit(&self, peer: &PeerIdentity) -> Result<()>;

    /// A message of a coordinator that was admitted. May be lost; never waits.
    fn receive(&self, message: &[u8]);
}
