//! What runs on the group: the state machine its members keep, who proposes, and what must be true of it all. It may have
//! machines of its own beside the members, which then fail as they do.

use super::world::World;
use crate::raft::core::{Decided, Refusal, Role};
use bytes::Bytes;
use storage::SimVfs;

pub(crate) trait App: Sized {
    /// Of a member, as far as it is applied.
    type State;
    /// What the app has happen, beside what happens to members.
    type Happening;

    /// Members, and the app's own machines behind them.
    const SITES: usize;
    /// Of a member's log, after which a snapshot is taken; now and then it is taken earlier.
    const LOG_BYTES_MAX: u64;
    /// Of one file of it.
    const SEGMENT_BYTES_MAX: u64;

    /// The state a new group begins with.
    fn genesis(&self) -> Bytes;
    fn decode(state: &[u8]) -> Self::State;
    fn encode(state: &Self::State) -> Bytes;

    /// Everything is new.
    fn begin(world: &mut World<Self>);
    fn happen(world: &mut World<Self>, happening: Self::Happening);

    fn apply(world: &mut World<Self>, member: usize, index: u64, term: u64, data: Bytes);
    /// The member's state is a snapshot's, received or found at its start.
    fn restored(world: &mut World<Self>, member: usize);
    fn decided(world: &mut World<Self>, member: usize, id: u64, decided: Decided);
    fn refused(world: &mut World<Self>, member: usize, id: u64, refusal: Refusal);
    fn role(world: &mut World<Self>, member: usize, role: Role);
    /// Its process is gone.
    fn stopped(_: &mut World<Self>, _member: usize) {}
    /// It goes on after a pause.
    fn resumed(_: &mut World<Self>, _member: usize) {}

    /// Nothing fails from now on. Said before members are started that are down.
    fn heal(world: &mut World<Self>);
    /// Service has come back since.
    fn recovered(world: &World<Self>) -> bool;
    /// Nobody asks for anything new: what is under way comes to its end.
    fn rest(world: &mut World<Self>);
    /// All must be well in the end.
    fn conclude(world: &mut World<Self>);

    fn runs(_: &World<Self>, _site: usize) -> bool {
        false
    }

    fn vfs(_: &World<Self>, _site: usize) -> SimVfs {
        unreachable!("an app without machines")
    }

    fn crash(_: &mut World<Self>, _site: usize, _power: bool) {
        unreachable!("an app without machines")
    }

    fn pause(_: &mut World<Self>, _site: usize, _paused: bool) {
        unreachable!("an app without machines")
    }

    /// Its clock goes wrong, or right again.
    fn skew(_: &mut World<Self>, _site: usize, _skewed: bool) {
        unreachable!("an app without machines")
    }

    /// Its disk has room again.
    fn relieved(_: &mut World<Self>, _site: usize) {}
}
