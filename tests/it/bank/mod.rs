//! A workload whose every snapshot tells whether transactions are whole, and the checker that looks.
//!
//! Tables: `ledger` has two rows per transfer, mostly on two nodes, that add up to zero; `lists` one row per transaction
//! that has anything else to show, its witness, so that a session's rows there are the list it has appended to;
//! `counters` one row that many sessions raise.
//!
//! Of a snapshot this must hold, whoever has died:
//! - transfers have both rows or none, and all of them add up to zero;
//! - what a transaction did is there exactly if its witness is: its transfer, its removal of another, its increment;
//! - what was acknowledged before the snapshot is in it, what was refused or given up is not;
//! - of a session's transactions the snapshot has a beginning;
//! - of any two snapshots one has all that the other has, and a session's next one never has less.

mod clients;

pub use clients::Clients;
use clients::snapshot;

use crate::cluster::{Cluster, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

const ASK_INTERVAL: Duration = Duration::from_millis(20);
const ASKS_MAX: usize = 1000;

/// Transactions are numbered through; a transfer has its transaction's number.
pub type Number = i64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One INSERT of both rows, without a witness.
    Bare,
    /// A transfer and its witness, in a block.
    Transfer,
    /// A witness alone: one node.
    Append,
    /// Removes the transfer of another transaction.
    Remove(Number),
    Increment,
}

/// What is known of how a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Under way, or nobody said.
    Open,
    Committed,
    Refused,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    session: usize,
    kind: Kind,
    fate: Fate,
}

/// Everything the clients know together.
#[derive(Default)]
pub struct Bank {
    entries: Mutex<BTreeMap<Number, Entry>>,
    /// Snapshots that readers took, for the order of all of them.
    seen: Mutex<Vec<BTreeSet<Number>>>,
}

/// What one snapshot showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Number of each transfer, how many rows it has and what they add up to.
    transfers: BTreeMap<Number, (i64, i64)>,
    witnesses: BTreeSet<Number>,
    counter: i64,
}

impl Bank {
    pub async fn open(session: &Session) -> Bank {
        session
            .run("CREATE TABLE ledger (time timestamptz NOT NULL, account integer, transfer bigint, amount bigint)")
            .await;
        session.run("SELECT create_distributed_hypertable('ledger', 'time', 'account')").await;
        session.run("ALTER TABLE ledger SET (timescaledb.compress, timescaledb.compress_segmentby = 'account')").await;
        session.run("CREATE TABLE lists (time timestamptz NOT NULL, session integer, number bigint)").await;
        session.run("SELECT create_distributed_hypertable('lists', 'time', 'session')").await;
        session.run("CREATE TABLE counters (id integer, n bigint)").await;
        session.run("INSERT INTO counters VALUES (1, 0)").await;
        Bank::default()
    }

    fn begin(&self, session: usize, kind: Kind) -> Number {
        let mut entries = self.entries.lock().unwrap();
        let number = entries.last_key_value().map_or(1, |(last, _)| last + 1);
        entries.insert(number, Entry { session, kind, fate: Fate::Open });
        number
    }

    fn end(&self, number: Number, fate: Fate) {
        self.entries.lock().unwrap().get_mut(&number).expect("it was begun").fate = fate;
    }

    pub fn count(&self, fate: Fate) -> usize {
        self.entries.lock().unwrap().values().filter(|entry| entry.fate == fate).count()
    }

    fn acknowledged(&self) -> BTreeSet<Number> {
        let entries = self.entries.lock().unwrap();
        entries.iter().filter(|(_, entry)| entry.fate == Fate::Committed).map(|(number, _)| *number).collect()
    }

    /// The transactions a view shows, which must be as this module's head says. `acknowledged`: before it was taken.
    fn check(&self, view: &View, acknowledged: &BTreeSet<Number>, when: &str) -> BTreeSet<Number> {
        let entries = self.entries.lock().unwrap().clone();
        let is_bare = |number: &Number| entries.get(number).is_some_and(|entry| entry.kind == Kind::Bare);
        let bare = view.transfers.keys().copied().filter(is_bare);
        let shown = view.witnesses.iter().copied().chain(bare).collect::<BTreeSet<_>>();

        let halves = view.transfers.iter().filter(|(_, rows)| **rows != (2, 0)).collect::<Vec<_>>();
        assert!(halves.is_empty(), "transfers in part (number, rows and sum): {halves:?}: {when}");
        let lost = acknowledged.difference(&shown).collect::<Vec<_>>();
        assert!(lost.is_empty(), "acknowledged and not shown: {lost:?}: {when}");

        let (mut transfers, mut removed, mut increments) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut last_shown = BTreeMap::new();
        for number in &shown {
            let entry = entries.get(number).unwrap_or_else(|| panic!("nobody wrote {number}: {when}"));
            assert_ne!(entry.fate, Fate::Refused, "{number} ({:?}) was refused and is shown: {when}", entry.kind);
            last_shown.insert(entry.session, *number);
            match entry.kind {
                Kind::Bare | Kind::Transfer => {
                    transfers.insert(*number);
                }
                Kind::Remove(of) => {
                    removed.insert(of);
                }
                Kind::Increment => increments += 1,
                Kind::Append => {}
            }
        }
        let expected = transfers.difference(&removed).copied().collect::<BTreeSet<_>>();
        let found = view.transfers.keys().copied().collect::<BTreeSet<_>>();
        let wrong = expected.symmetric_difference(&found).collect::<Vec<_>>();
        assert!(wrong.is_empty(), "transfers and witnesses differ: {wrong:?}: {when}");
        assert_eq!(view.counter, increments, "increments lost or doubled: {when}");
        for (number, entry) in &entries {
            let before_shown = last_shown.get(&entry.session).is_some_and(|last| number < last);
            let skipped = before_shown && entry.fate == Fate::Committed && !shown.contains(number);
            assert!(!skipped, "session {} shows a later transaction than {number}, but not it: {when}", entry.session);
        }
        shown
    }

    /// A reader has seen it: `previous` is what it saw before.
    fn saw(&self, shown: BTreeSet<Number>, previous: &BTreeSet<Number>, when: &str) {
        let gone = previous.difference(&shown).collect::<Vec<_>>();
        assert!(gone.is_empty(), "a session saw {gone:?}, and then it did not: {when}");
        self.seen.lock().unwrap().push(shown);
    }

    /// Snapshots are points of one order: of any two, one has all that the other has. Forgets them.
    pub fn check_order(&self) -> usize {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.sort_by_key(BTreeSet::len);
        for pair in seen.windows(2) {
            assert!(pair[0].is_subset(&pair[1]), "snapshots that no order has: {:?}", pair[0].difference(&pair[1]));
        }
        seen.len()
    }

    /// A session on a cluster of which everything can be read again; asks until it is so.
    pub async fn readable(&self, cluster: &Cluster) -> Session {
        let mut ticks = tokio::time::interval(ASK_INTERVAL);
        for _ in 0..ASKS_MAX {
            ticks.tick().await;
            let session = cluster.settled().await;
            if snapshot(&session).await.is_ok() {
                return session;
            }
        }
        panic!("not readable")
    }

    /// With nobody writing any more: the tables against everything that clients were told. What was open is decided now,
    /// and must not come or go later.
    pub async fn settle(&self, session: &Session, when: &str) {
        let view = snapshot(session).await.unwrap_or_else(|e| panic!("{e:?}: {when}"));
        let shown = self.check(&view, &self.acknowledged(), when);
        for (number, entry) in self.entries.lock().unwrap().iter_mut().filter(|(_, entry)| entry.fate == Fate::Open) {
            entry.fate = if shown.contains(number) { Fate::Committed } else { Fate::Refused };
        }
    }
}
