//! A whole cluster in one thread: three coordinators and three data nodes on a disk, a network and a clock that fail as one
//! seed says. Under test are the real `raft::Core` and `Disk`, `Machine`, the cores of commit and handshake, `Sequence`,
//! `NewChunks` and `storage::Store`; made up is what carries them: `reign` (a leader, as `Cluster` is one), `node` (as
//! `node::Node`), and `crate::raft::simulation`'s world around them.
//!
//! Each seed lives through 45 simulated seconds of trouble, then everything is mended. `history` is held against what is
//! on the nodes in the end: a transaction has happened whole or not at all, and as its client was told; a read saw the
//! rows whose commit sequence is at or below its snapshot, and no others; it saw what was acknowledged before it began;
//! members agree byte by byte. And: within ten seconds after the last fault several nodes commit something again, somebody
//! reads it, and in the end nothing is in doubt.
//!
//! Simplified: a node's call of its store takes no time, its answer does. A connection never delivers a block of rows
//! twice, but for the first of a transaction.
//!
//! A seed that fails is run again with `SERIATIM_TXN_SEED=n`, which prints its trace; `SERIATIM_TXN_FIRST_SEED=n` tries
//! others than the first, `SERIATIM_ROUNDS=n` so many times as many.

mod app;
mod calls;
mod client;
mod history;
mod ledger;
mod node;
mod reign;
mod visits;

use super::planted::{InSimulation, Plan, Planted};
use crate::raft::simulation::tally::{EVENTS, Event, Tally};
use crate::raft::simulation::world::World;
use app::{Counts, Transactions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 200;
/// Within so many seeds each planted bug must show; a node that obeys everybody takes more than half of them.
const SEEDS_PER_BUG: u64 = 400;
const THREADS: usize = 2;

/// What happens to proposals is the other simulation's; of everything else all must have happened, or the run says nothing
/// about it.
const NOT_COUNTED: [Event; 5] = {
    use Event::*;
    [EntriesReplaced, ProposalAcknowledged, ProposalRefused, ProposalUnknown, ProposalsGrouped]
};
const SEEN: [&str; 38] = [
    "node killed",
    "node lost power",
    "node lost power in write",
    "node lost power in recovery",
    "node's sync failed",
    "node's disk full",
    "node paused",
    "node's clock jumped",
    "node lost",
    "node came up",
    "node started in doubt",
    "node follows a newer coordinator",
    "node added",
    "node given to the table",
    "node marked as not available",
    "reign begun",
    "leader deposed with a reign",
    "two who think they lead",
    "decision inherited",
    "decision told by a handshake",
    "aborted by a handshake",
    "in doubt at a node that is up",
    "record with unknown fate",
    "abort owed",
    "one-round commit asked after",
    "commit waited for earlier ones",
    "two-phase commit",
    "two-phase commit unknown",
    "one-round commit",
    "one-round commit unknown",
    "transaction refused",
    "transaction given up",
    "transaction with a new chunk",
    "client lost its leader",
    "read",
    "read that failed",
    "read without a node",
    "chunk sealed",
];

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().expect("a number"))
}

fn world(seed: u64, plan: Plan, traced: bool) -> World<Transactions> {
    World::new(seed, Default::default(), Transactions::new(seed, plan), traced)
}

/// # Errors
/// Which promise was broken.
fn run(seed: u64, plan: Plan, traced: bool) -> Result<World<Transactions>, String> {
    let mut world = world(seed, plan, traced);
    let ended = catch_unwind(AssertUnwindSafe(|| world.live()));
    ended.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
        format!("seed {seed}: {text}")
    })?;
    Ok(world)
}

/// Calls `work` for all numbers below `count`, on all threads at once.
fn for_each(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let take = || (Some(next.fetch_add(1, Ordering::Relaxed))).filter(|number| *number < count);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(number) = take() {
                    work(number)
                }
            });
        }
    });
}

#[test]
fn promises_hold_whatever_fails() {
    let first = from_environment("SERIATIM_TXN_FIRST_SEED").unwrap_or(0);
    let seeds = SEEDS * from_environment("SERIATIM_ROUNDS").unwrap_or(1);
    let sums = Mutex::new((Tally::default(), Counts::default(), 0));
    let broken = Mutex::new(Vec::new());
    for_each(seeds, |number| match run(first + number, Plan::default(), false) {
        Ok(world) => {
            let mut sums = sums.lock().expect("nobody panics with it");
            sums.0.add(&world.tally);
            sums.1.add(&world.app.counts);
            sums.2 += world.now_ms;
        }
        Err(text) => {
            println!("{text}");
            broken.lock().expect("nobody panics with it").push(text);
        }
    });
    let broken = broken.into_inner().expect("all threads have ended");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let (tally, counts, simulated_ms) = sums.into_inner().expect("all threads have ended");
    println!("{seeds} seeds, {} simulated seconds", simulated_ms / 1000);
    let faults = EVENTS.into_iter().filter(|event| !NOT_COUNTED.contains(event)).collect::<Vec<_>>();
    faults.iter().for_each(|event| println!("{:>9} {event:?}", tally.of(*event)));
    SEEN.iter().for_each(|what| println!("{:>9} {what}", counts.of(what)));
    let never = faults.iter().filter(|event| tally.of(**event) == 0).collect::<Vec<_>>();
    assert!(never.is_empty(), "never happened: {never:?}");
    let never = SEEN.iter().filter(|what| counts.of(what) == 0).collect::<Vec<_>>();
    assert!(never.is_empty(), "never happened: {never:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for_each(10, |number| {
        let seed = 1000 + number;
        let worlds = [(); 2].map(|()| run(seed, Plan::default(), true).unwrap_or_else(|broken| panic!("{broken}")));
        let traces = [worlds[0].trace(), worlds[1].trace()];
        assert!(traces[0].len() > 10_000, "seed {seed} has something to tell");
        let differ = traces[0].lines().zip(traces[1].lines()).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}");
        assert!(traces[0] == traces[1], "seed {seed}: one trace is longer");
    });
}

#[test]
fn every_planted_bug_is_found() {
    let in_simulation = [
        InSimulation::VoteBeforeDurable,
        InSimulation::ForgetPrepared,
        InSimulation::SkipFence,
        InSimulation::SnapshotAboveOpen,
        InSimulation::LeadTooEarly,
        InSimulation::ForgetUndone,
        InSimulation::ReuseSequences,
    ];
    let in_cores = [
        Planted::CommitWithoutVote,
        Planted::AnswerBeforeDurable,
        Planted::TellBeforeDurable,
        Planted::ShowBeforeTold,
        Planted::AbortUndecided,
        Planted::LostIsNo,
        Planted::PresumeCommit,
        Planted::AbortRunning,
        Planted::AbortDecided,
        Planted::UpBeforeTold,
        Planted::ForgetDecision,
    ];
    let bugs = in_cores.into_iter().chain(in_simulation.map(Planted::InSimulation)).collect::<Vec<_>>();
    let missed = Mutex::new(Vec::new());
    for_each(bugs.len() as u64, |number| {
        let bug = bugs[number as usize];
        match (0..SEEDS_PER_BUG).find_map(|seed| run(seed, Plan(Some(bug)), false).err()) {
            Some(broken) => println!("{bug:?}: {broken}"),
            None => missed.lock().expect("nobody panics with it").push(bug),
        }
    });
    let missed = missed.into_inner().expect("all threads have ended");
    assert!(missed.is_empty(), "not found within {SEEDS_PER_BUG} seeds: {missed:?}");
}

/// Does nothing unless asked for a seed.
#[test]
fn one_seed() {
    let Some(seed) = from_environment("SERIATIM_TXN_SEED") else { return };
    let mut world = world(seed, Plan::default(), true);
    let ended = catch_unwind(AssertUnwindSafe(|| world.live()));
    print!("{}", world.trace());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
