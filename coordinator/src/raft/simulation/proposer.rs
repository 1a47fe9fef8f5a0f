//! The raft layer's own app: somebody who proposes bytes, and keeps account of what became of them.

use super::app::App;
use super::member::Member;
use super::network::MEMBERS;
use super::oracle::{Ledger, Oracle, proposal};
use super::tally::Event as Counted;
use super::world::World;
use crate::raft::core::{Decided, Input, Proposal, Refusal, Role};
use bytes::Bytes;

#[derive(Default)]
pub(super) struct Proposer {
    oracle: Oracle,
    proposals_count: u64,
    /// Proposals made since trouble ended begin with this number.
    healed_from: Option<u64>,
    /// One of them was acknowledged.
    recovered: bool,
}

/// Somebody proposes.
pub(super) struct Client;

impl App for Proposer {
    type State = Ledger;
    type Happening = Client;

    const SITES: usize = MEMBERS;
    const LOG_BYTES_MAX: u64 = 6_000;
    /// Small, so that files are closed and removed all the time.
    const SEGMENT_BYTES_MAX: u64 = 4 << 10;

    fn genesis(&self) -> Bytes {
        Ledger::new().encode()
    }

    fn decode(state: &[u8]) -> Ledger {
        Ledger::decode(state)
    }

    fn encode(state: &Ledger) -> Bytes {
        state.encode()
    }

    fn begin(world: &mut World<Proposer>) {
        world.after_app(0, Client);
    }

    /// Proposes to somebody who takes itself for the leader, or to anybody; one thing or many.
    fn happen(world: &mut World<Proposer>, _: Client) {
        let leads = |member: &Member<Proposer>| {
            let process = member.process.as_ref();
            process.is_some_and(|process| matches!(process.core.role(), Role::Leader { .. }))
        };
        let leaders = (0..MEMBERS).filter(|member| leads(&world.members[*member])).collect::<Vec<_>>();
        let anybody = leaders.is_empty() || world.dice.percent(10);
        let to = if anybody { world.dice.between(0, MEMBERS as u64) as usize } else { world.dice.one_of(&leaders) };
        let count = match world.dice.between(0, 100) {
            0..80 => 1,
            80..97 => world.dice.between(2, 12),
            _ => world.dice.between(20, 80),
        };
        for _ in 0..count {
            world.app.proposals_count += 1;
            let id = world.app.proposals_count;
            let padding = world.dice.between(0, 120) as usize;
            world.members[to].receive(Input::Propose(Proposal { id, data: proposal(id, padding) }));
        }
        world.work(to);
        let delay_ms = world.dice.between(1, 2 * world.rates.proposal_ms);
        world.after_app(delay_ms, Client);
    }

    fn apply(world: &mut World<Proposer>, member: usize, index: u64, term: u64, data: Bytes) {
        let ledger = &mut world.process(member).state;
        ledger.apply(index, term, &data);
        let ledger = *ledger;
        world.app.oracle.applied(member, index, term, &data, ledger);
    }

    fn restored(world: &mut World<Proposer>, member: usize) {
        let ledger = world.process(member).state;
        world.app.oracle.restored(member, ledger);
    }

    fn decided(world: &mut World<Proposer>, _: usize, id: u64, decided: Decided) {
        match decided {
            Decided::Committed { index } => {
                world.tally.count(Counted::ProposalAcknowledged);
                world.app.oracle.acknowledged(id, index);
                world.app.recovered |= world.app.healed_from.is_some_and(|from| id >= from);
            }
            Decided::Unknown => world.tally.count(Counted::ProposalUnknown),
        }
    }

    fn refused(world: &mut World<Proposer>, _: usize, _: u64, _: Refusal) {
        world.tally.count(Counted::ProposalRefused);
    }

    fn role(world: &mut World<Proposer>, member: usize, role: Role) {
        if let Role::Leader { term } = role {
            world.app.oracle.leads(member, term);
        }
    }

    fn heal(world: &mut World<Proposer>) {
        world.app.healed_from = Some(world.app.proposals_count + 1);
    }

    fn recovered(world: &World<Proposer>) -> bool {
        world.app.recovered
    }

    fn rest(world: &mut World<Proposer>) {
        world.cancel(|_| true);
    }

    fn conclude(world: &mut World<Proposer>) {
        let ledgers = world.members.iter().map(|member| member.process.as_ref().expect("all were started").state);
        world.app.oracle.conclude(&ledgers.collect::<Vec<_>>());
    }
}
