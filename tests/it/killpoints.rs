//! Processes that die at named points of two-phase commit, of their logs and of recovery, under a workload of which every
//! snapshot tells whether transactions are whole (`bank`). After each death: nothing is there in part, what was
//! acknowledged is there, what was refused is not, and all of it can be read within `RECOVERY_MAX`, without a human.
//!
//! ```text
//! c2   the first rows are staged on a node          d1   rows have come in
//! c3   before `prepare` is sent to a node           d2   before the vote's fsync
//! c4   `prepare` sent to one of several             d3   behind it
//! c5   all votes are in, nothing is logged          d4   the vote is sent, no more is heard
//! c6   the decision is proposed, not committed      d5   `commit` has come in
//! c7   it is committed, nobody is told              d6   before the manifest is renamed
//! c8   the client is answered                       d7   behind it, before the directory's fsync
//! c9   `commit` told to one of several              d8   committed, not acknowledged
//! c10  all have acknowledged, `Done` is not noted   d9   in recovery: log copied; replayed; asked for what is in doubt
//! c11  own snapshot written, log not cut
//! c12  at a step of a node's handshake              d10  `abort` has come in
//!                                                   d11  ROLLBACK TO SAVEPOINT is logged
//!                                                   r1   a record is appended, before its fsync
//!                                                   r2   half of a record is in the log's file
//!                                                   r3   a snapshot has come in, and is not written
//!                                                   r4   it is written, and the log is not cut
//! ```
//! Two points of the usual list do not exist here: the beginning of a transaction is not logged (c1), and the members of
//! a group never change (r5). c8 usually lies before c9; here the nodes are told before the client is, so that it means
//! a coordinator that dies right behind its answer. r2 is also met by a node's log, which has the same code.

use crate::bank::{Bank, Clients, Fate};
use crate::cluster::{Cluster, Member, Session, Shape, connect};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const WRITERS: usize = 3;
/// From the start of the restart until everything can be read: what is promised. Nine of ten must keep to it …
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// … and all to this: a busy machine's disk stands still for seconds now and then.
const STALLED_MAX: Duration = Duration::from_secs(60);
/// By then an armed process must have died.
const HIT_MAX: Duration = Duration::from_secs(120);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const LEADER_LOOK_MAX: Duration = Duration::from_millis(500);
/// A leader that shall live gives way after this time to those that shall die.
const REIGN_MAX: Duration = Duration::from_secs(3);
/// A definition as long as this: six of them fill a coordinator's log.
const DEFINITION_BYTES: usize = 3 << 20;

/// Points that transactions pass, and the latest passage to die at: it comes within a second or two.
const COMMITS: &[(&str, usize)] = &[
    ("c2", 30),
    ("c3", 30),
    ("c4", 30),
    ("c5", 15),
    ("c6", 15),
    ("c7", 15),
    ("c8", 30),
    ("c9", 30),
    ("c10", 15),
    ("r1", 30),
    ("r2", 30),
];
const ON_NODES: &[(&str, usize)] =
    &[("d1", 20), ("d2", 10), ("d3", 10), ("d4", 10), ("d5", 15), ("d8", 15), ("d10", 3), ("d11", 3), ("r2", 40)];
/// They need chunks to be sealed.
const SEALS: &[(&str, usize)] = &[("d6", 4), ("d7", 4)];

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_coordinator_that_is_alone_dies_at_every_point() {
    let mut trial = Trial::start(Shape::Processes).await;
    let coordinator = Member::Coordinator(0);
    for (point, passage_max) in COMMITS {
        for run in 0..6 {
            let passage = trial.passage(run, *passage_max);
            trial.run(point, &[(coordinator, passage)], Load::Transactions).await;
        }
    }
    // What a dead coordinator left undecided, or decided and told nobody, is what the next one finds.
    for (left_at, passage) in [("c5", 1), ("c5", 3), ("c7", 1), ("c7", 2), ("c7", 3), ("c7", 4)] {
        trial.run(left_at, &[(coordinator, 3)], Load::Transactions).await;
        trial.cluster.kill(coordinator);
        // It dies before anybody writes: what it meets must come from the start before.
        trial.run("c12", &[(coordinator, passage)], Load::Nothing).await;
    }
    for _ in 0..3 {
        trial.run("c11", &[(coordinator, 1)], Load::Definitions).await;
    }
    trial.report();
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_node_dies_at_every_point() {
    let mut trial = Trial::start(Shape::Processes).await;
    for run in 0..8 {
        let node = Member::Node(run % 2);
        for (point, passage_max) in ON_NODES {
            let passage = trial.passage(run / 2, *passage_max);
            trial.run(point, &[(node, passage)], Load::Transactions).await;
        }
        for (point, passage_max) in SEALS {
            let passage = trial.passage(run / 2, *passage_max);
            trial.run(point, &[(node, passage)], Load::Seals).await;
        }
        // What it had in doubt comes from the death before.
        trial.run(["d3", "d5"][run / 4], &[(node, 1)], Load::Transactions).await;
        trial.run("d9", &[(node, 1 + run % 3)], Load::Nothing).await;
    }
    trial.report();
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn every_leader_of_a_group_dies_at_every_point() {
    let mut trial = Trial::start(Shape::Group).await;
    for (point, passage_max) in COMMITS {
        let passages = [0, 1, 2].map(|run| trial.passage(run, *passage_max));
        trial.run(point, &all_coordinators(passages), Load::Transactions).await;
    }
    trial.run("c11", &all_coordinators([1, 1, 1]), Load::Definitions).await;
    trial.run("c12", &all_coordinators([2, 1, 2]), Load::Transactions).await;
    for (point, passage_max) in ON_NODES {
        let passage = trial.passage(1, *passage_max);
        trial.run(point, &[(Member::Node(1), passage)], Load::Transactions).await;
    }
    trial.report();
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_follower_that_was_left_behind_dies_over_the_snapshot_it_is_sent() {
    let mut trial = Trial::start(Shape::Group).await;
    for round in 0..6 {
        trial.follower_behind(["r3", "r4"][round % 2]).await;
    }
    trial.report();
}

fn all_coordinators(passages: [usize; 3]) -> [(Member, usize); 3] {
    [0, 1, 2].map(|coordinator| (Member::Coordinator(coordinator), passages[coordinator]))
}

/// What is done until the victims are dead and everything is well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    Transactions,
    /// Transactions, and chunks that are sealed.
    Seals,
    /// Transactions, and definitions that fill the coordinator's log.
    Definitions,
    /// The death comes by itself.
    Nothing,
}

/// A cluster and what is known of it, over many deaths.
struct Trial {
    cluster: Cluster,
    bank: Arc<Bank>,
    rng: StdRng,
    deaths: BTreeMap<String, usize>,
    recoveries: Vec<Duration>,
    snapshots: usize,
}

impl Trial {
    async fn start(shape: Shape) -> Trial {
        let seed = std::env::var("SERIATIM_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
        println!("SERIATIM_SEED={seed}");
        let cluster = Cluster::start(shape).await;
        let bank = Arc::new(Bank::open(&cluster.connect().await).await);
        let rng = StdRng::seed_from_u64(seed);
        Trial { cluster, bank, rng, deaths: BTreeMap::new(), recoveries: Vec::new(), snapshots: 0 }
    }

    /// The first one in the first run, any later.
    fn passage(&mut self, run: usize, max: usize) -> usize {
        if run == 0 { 1 } else { self.rng.random_range(2..=max) }
    }

    /// The victims are started again to die at `point`, each at its passage of it; then all is checked.
    async fn run(&mut self, point: &str, victims: &[(Member, usize)], load: Load) {
        let when = format!("{point}, {victims:?}");
        let members = victims.iter().map(|(member, _)| *member).collect::<Vec<_>>();
        members.iter().for_each(|member| self.cluster.kill_if_running(*member));
        for (member, passage) in victims {
            self.cluster.restart_armed(*member, point, *passage);
        }
        let mut work = Work::start(&self.bank, &self.cluster, load, &mut self.rng);
        let since_restart = self.await_deaths(point, members, &work).await;
        let session = self.recovered(since_restart, &when).await;
        work.stop().await;
        self.bank.settle(&session, &when).await;
        self.snapshots += self.bank.check_order();
        *self.deaths.entry(point.to_owned()).or_default() += victims.len();
    }

    /// Every victim dies, and is started again without the failpoint: in a group when another one leads, or none can.
    /// The moment of the last start.
    async fn await_deaths(&mut self, point: &str, mut armed: Vec<Member>, work: &Work) -> Instant {
        let since = Instant::now();
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        let (mut dead, mut since_restart, mut since_change) = (Vec::new(), since, since);
        let all_lead = armed.len() > 1;
        while !armed.is_empty() || !dead.is_empty() {
            if since.elapsed() >= HIT_MAX {
                panic!("{point} was not hit by {armed:?}\n{}", self.logs());
            }
            ticks.tick().await;
            if work.has_failed() {
                break;
            }
            let (gone, left) = armed.into_iter().partition(|member| self.cluster.has_died_at(*member, point));
            armed = left;
            dead.extend::<Vec<Member>>(gone);
            let alone = !self.cluster.is_group();
            if !dead.is_empty() && (alone || dead.len() > 1 || self.leading().await.is_some()) {
                (since_restart, since_change) = (Instant::now(), Instant::now());
                dead.drain(..).for_each(|member| self.cluster.restart(member));
            } else if all_lead && since_change.elapsed() > REIGN_MAX {
                since_change = Instant::now();
                self.depose_unarmed(&armed).await;
            }
        }
        since_restart
    }

    /// Whoever leads and will not die by itself makes room for those who shall.
    async fn depose_unarmed(&mut self, armed: &[Member]) {
        let leader = self.leading().await.map(Member::Coordinator);
        if let Some(leader) = leader.filter(|leader| !armed.contains(leader)) {
            self.cluster.kill(leader);
            self.cluster.restart(leader);
        }
    }

    /// What running members have said last.
    fn logs(&mut self) -> String {
        let mut members = self.cluster.members();
        members.retain(|member| self.cluster.is_running(*member));
        let logs = members.into_iter().map(|member| format!("{member:?}\n{}", self.cluster.log(member)));
        logs.collect::<Vec<_>>().join("\n\n")
    }

    async fn leading(&self) -> Option<usize> {
        for (coordinator, config) in self.cluster.configs().iter().enumerate() {
            if let Ok(Ok(_)) = tokio::time::timeout(LEADER_LOOK_MAX, connect(config)).await {
                return Some(coordinator);
            }
        }
        None
    }

    async fn recovered(&mut self, since_restart: Instant, when: &str) -> Session {
        let session = self.bank.readable(&self.cluster).await;
        let took = since_restart.elapsed();
        println!("{when}: whole again after {took:?}");
        if took >= STALLED_MAX {
            panic!("in doubt for {took:?}: {when}\n{}", self.logs());
        }
        self.recoveries.push(took);
        session
    }

    /// A follower that was away while the log was cut behind it dies over the snapshot it is sent, and is needed then.
    async fn follower_behind(&mut self, point: &str) {
        let leader = self.cluster.leader().await;
        let (follower, other) = (Member::Coordinator((leader + 1) % 3), Member::Coordinator((leader + 2) % 3));
        self.cluster.kill(follower);
        let session = self.cluster.led().await;
        for _ in 0..8 {
            session.run(&definition()).await;
        }
        drop(session);
        // They have entries from before the cut in memory for who is late; after a start they have none.
        for member in [Member::Coordinator(leader), other] {
            self.cluster.kill(member);
            self.cluster.restart(member);
        }
        drop(self.bank.readable(&self.cluster).await);
        self.run(point, &[(follower, 1)], Load::Transactions).await;
        // Without it there is no majority now.
        self.cluster.kill(other);
        let session = self.bank.readable(&self.cluster).await;
        session.run(&definition()).await;
        self.bank.settle(&session, "with a follower that was behind").await;
        self.cluster.restart(other);
    }

    fn report(&self) {
        let (deaths, committed) = (self.deaths.values().sum::<usize>(), self.bank.count(Fate::Committed));
        let mut recoveries = self.recoveries.clone();
        recoveries.sort();
        let slow = recoveries.iter().filter(|took| **took > RECOVERY_MAX).count();
        println!("deaths by point: {:?}", self.deaths);
        println!(
            "{} points, {deaths} deaths, {committed} transactions, {} snapshots, breaks 0, recovery: median {:?}, slowest {:?}",
            self.deaths.len(),
            self.snapshots,
            recoveries[recoveries.len() / 2],
            recoveries[recoveries.len() - 1]
        );
        assert!(slow * 10 <= recoveries.len(), "{slow} of {} recoveries took too long", recoveries.len());
    }
}

/// A statement that makes one long record of the coordinators' log.
fn definition() -> String {
    format!("CREATE OR REPLACE VIEW long AS SELECT '{}'::text AS text", "x".repeat(DEFINITION_BYTES))
}

/// A load at work.
struct Work {
    clients: Option<Clients>,
    driver: Option<JoinHandle<()>>,
}

impl Work {
    fn start(bank: &Arc<Bank>, cluster: &Cluster, load: Load, rng: &mut StdRng) -> Work {
        let configs = cluster.configs();
        if load == Load::Nothing {
            return Work { clients: None, driver: None };
        }
        let clients = Some(Clients::start(bank, &configs, WRITERS, 1, rng));
        let statement = match load {
            Load::Seals => Some("SELECT compress_chunk(c, true) FROM show_chunks('ledger') AS c".to_owned()),
            Load::Definitions => Some(definition()),
            Load::Transactions | Load::Nothing => None,
        };
        // Aborted when it is over: what it is told does not matter.
        let driver = statement.map(|statement| tokio::spawn(repeat(configs, statement)));
        Work { clients, driver }
    }

    fn has_failed(&self) -> bool {
        self.clients.as_ref().is_some_and(Clients::has_failed)
    }

    async fn stop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.abort();
            let _ = driver.await;
        }
        if let Some(clients) = self.clients.take() {
            clients.stop().await;
        }
    }
}

/// One session after the other runs the statement until it fails.
async fn repeat(configs: Vec<tokio_postgres::Config>, statement: String) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        for config in &configs {
            ticks.tick().await;
            let Ok(session) = connect(config).await else { continue };
            while session.try_rows(&statement).await.is_ok() {}
        }
    }
}
