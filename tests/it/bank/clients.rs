//! The bank's clients: sessions that write until they are stopped, whoever dies under them, and sessions that read.

use super::{Bank, Fate, Kind, Number, View};
use crate::cluster::{Session, connect};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Config, Error};

const ACCOUNTS: i64 = 20;
const RECONNECT_INTERVAL: Duration = Duration::from_millis(25);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// No statement takes as long, whoever has died.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(45);

/// Clients at work. They end, and are waited for, with `stop`.
pub struct Clients {
    stopped: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<usize>>,
}

impl Clients {
    /// `configs`: one for each coordinator. Every writer is a session of its own in the bank.
    pub fn start(bank: &Arc<Bank>, configs: &[Config], writers: usize, readers: usize, rng: &mut StdRng) -> Clients {
        static SESSIONS: AtomicUsize = AtomicUsize::new(0);
        let stopped = Arc::new(AtomicBool::new(false));
        let mut client = || Client {
            bank: Arc::clone(bank),
            configs: configs.to_vec(),
            session: None,
            number: SESSIONS.fetch_add(1, Ordering::Relaxed),
            rng: StdRng::seed_from_u64(rng.random()),
            stopped: Arc::clone(&stopped),
        };
        let mut tasks = (0..writers).map(|_| tokio::spawn(client().write())).collect::<Vec<_>>();
        tasks.extend((0..readers).map(|_| tokio::spawn(client().read())));
        Clients { stopped, tasks }
    }

    /// How many statements ended well. Panics with what a client has found.
    pub async fn stop(self) -> usize {
        self.stopped.store(true, Ordering::Relaxed);
        let mut done = 0;
        for task in self.tasks {
            done += task.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        }
        done
    }

    /// Returns when a client has found something; else nobody ends before `stop`.
    pub async fn failed(&self) {
        let mut ticks = tokio::time::interval(RECONNECT_INTERVAL);
        while !self.has_failed() {
            ticks.tick().await;
        }
    }

    pub fn has_failed(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }
}

struct Client {
    bank: Arc<Bank>,
    configs: Vec<Config>,
    session: Option<Session>,
    number: usize,
    rng: StdRng,
    stopped: Arc<AtomicBool>,
}

impl Client {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// `None` when it is time to stop.
    async fn connected(&mut self) -> Option<Session> {
        if let Some(session) = self.session.take().filter(|session| !session.client.is_closed()) {
            return Some(session);
        }
        let mut ticks = tokio::time::interval(RECONNECT_INTERVAL);
        while !self.is_stopped() {
            ticks.tick().await;
            for config in &self.configs {
                if let Ok(Ok(session)) = tokio::time::timeout(CONNECT_TIMEOUT, connect(config)).await {
                    return Some(session);
                }
            }
        }
        None
    }

    async fn write(mut self) -> usize {
        let mut done = 0;
        // Transfers of its own that nobody has tried to remove yet.
        let mut removable = Vec::new();
        while !self.is_stopped() {
            let Some(session) = self.connected().await else { break };
            let kind = self.draw(&mut removable);
            let number = self.bank.begin(self.number, kind);
            let gives_up = self.rng.random_ratio(1, 8) && kind != Kind::Bare && kind != Kind::Append;
            let work = self.transaction(&session, number, kind, gives_up);
            let fate = tokio::time::timeout(STATEMENT_TIMEOUT, work).await;
            let fate = fate.unwrap_or_else(|_| panic!("transaction {number} ({kind:?}) hangs"));
            self.bank.end(number, fate);
            if fate == Fate::Committed {
                done += 1;
                if kind == Kind::Transfer {
                    removable.push(number);
                }
            }
            self.session = Some(session);
        }
        done
    }

    fn draw(&mut self, removable: &mut Vec<Number>) -> Kind {
        match self.rng.random_range(0..10) {
            0..3 => Kind::Bare,
            3..6 => Kind::Transfer,
            6..8 => Kind::Append,
            8 => removable.pop().map_or(Kind::Append, Kind::Remove),
            _ => Kind::Increment,
        }
    }

    async fn transaction(&mut self, session: &Session, number: Number, kind: Kind, gives_up: bool) -> Fate {
        let (from, to) = (self.rng.random_range(0..ACCOUNTS), self.rng.random_range(0..ACCOUNTS));
        // Now and then the rows open a chunk, so that the catalog changes with them.
        let day = if self.rng.random_ratio(1, 20) { self.rng.random_range(1..2000) } else { 0 };
        let time = format!("'2024-01-01'::timestamptz + interval '{day} days'");
        let transfer = format!(
            "INSERT INTO ledger VALUES ({time}, {from}, {number}, -{number}), ({time}, {to}, {number}, {number})"
        );
        let witness = format!("INSERT INTO lists VALUES ('2024-01-01', {}, {number})", self.number);
        // More of both is taken back to a savepoint now and then, and would be found.
        let undone = (number % 4 == 0).then(|| format!("{transfer}; {witness}"));
        let work = match kind {
            Kind::Bare => return ended(session.try_rows(&transfer).await),
            Kind::Append => return ended(session.try_rows(&witness).await),
            Kind::Transfer => transfer,
            Kind::Remove(of) => format!("DELETE FROM ledger WHERE transfer = {of}"),
            Kind::Increment => "UPDATE counters SET n = n + 1 WHERE id = 1".to_owned(),
        };
        match self.block(session, &work, &witness, undone, number).await {
            Ok(()) if gives_up => {
                let _ = session.try_rows("ROLLBACK").await;
                Fate::Refused
            }
            Ok(()) => ended(session.try_rows("COMMIT").await),
            // COMMIT was not said.
            Err(_) => {
                let _ = session.try_rows("ROLLBACK").await;
                Fate::Refused
            }
        }
    }

    /// Everything but the end; a session sees its own writes.
    async fn block(
        &self,
        session: &Session,
        work: &str,
        witness: &str,
        undone: Option<String>,
        number: Number,
    ) -> Result<(), Error> {
        session.try_rows("BEGIN").await?;
        session.try_rows(work).await?;
        if let Some(undone) = undone {
            session.try_rows("SAVEPOINT s").await?;
            session.try_rows(&undone).await?;
            session.try_rows("ROLLBACK TO SAVEPOINT s").await?;
        }
        session.try_rows(witness).await?;
        let own = session.try_rows(&format!("SELECT count(*) FROM lists WHERE number = {number}")).await?;
        assert_eq!(own.concat(), [Some("1".to_owned())], "transaction {number} does not see what it wrote");
        Ok(())
    }

    async fn read(mut self) -> usize {
        let (mut done, mut previous) = (0, BTreeSet::new());
        while !self.is_stopped() {
            let Some(session) = self.connected().await else { break };
            let reading = tokio::time::timeout(STATEMENT_TIMEOUT, read(&self.bank, &session, &previous));
            if let Ok(shown) = reading.await.expect("a reader hangs") {
                previous = shown;
                done += 1;
            }
            self.session = Some(session);
        }
        done
    }
}

/// What a client may believe after an answer. Without one, or when the session was ended, it is not known.
fn ended<T>(answer: Result<T, Error>) -> Fate {
    match answer.as_ref().err().map(Error::code) {
        None => Fate::Committed,
        Some(Some(code)) if !["08007", "57P01"].contains(&code.code()) => Fate::Refused,
        Some(_) => Fate::Open,
    }
}

/// Takes two looks at one snapshot, which must be the same, and checks it; the transactions it shows.
///
/// # Errors
/// Nothing was read: somebody is down.
async fn read(bank: &Bank, session: &Session, previous: &BTreeSet<Number>) -> Result<BTreeSet<Number>, Error> {
    let acknowledged = bank.acknowledged();
    let views = async {
        session.try_rows("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        Ok((look(session).await?, look(session).await?))
    };
    let views: Result<_, Error> = views.await;
    let _ = session.try_rows("ROLLBACK").await;
    let (first, again) = views?;
    assert_eq!(first, again, "one snapshot, two answers");
    let shown = bank.check(&first, &acknowledged, "in a reader's snapshot");
    bank.saw(shown.clone(), previous, "in a reader's next snapshot");
    Ok(shown)
}

/// One snapshot.
///
/// # Errors
/// Somebody is down.
pub(super) async fn snapshot(session: &Session) -> Result<View, Error> {
    session.try_rows("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let view = look(session).await;
    let _ = session.try_rows("ROLLBACK").await;
    view
}

async fn look(session: &Session) -> Result<View, Error> {
    let sum = session.try_rows("SELECT coalesce(sum(amount), 0) FROM ledger").await?;
    let transfers = session.try_rows("SELECT transfer, count(*), sum(amount) FROM ledger GROUP BY transfer").await?;
    let witnesses = session.try_rows("SELECT number FROM lists").await?;
    let counter = session.try_rows("SELECT n FROM counters WHERE id = 1").await?;
    let numbers = |row: Vec<Option<String>>| -> Vec<i64> {
        row.into_iter().map(|cell| cell.expect("no NULL").parse().unwrap()).collect()
    };
    let once = witnesses.len();
    let view = View {
        transfers: transfers.into_iter().map(numbers).map(|row| (row[0], (row[1], row[2]))).collect(),
        witnesses: witnesses.into_iter().map(numbers).map(|row| row[0]).collect(),
        counter: counter.into_iter().map(numbers).next().expect("the counter")[0],
    };
    assert_eq!(sum.concat(), [Some("0".to_owned())], "the bank has gained or lost money");
    assert_eq!(view.witnesses.len(), once, "a witness is there twice");
    Ok(view)
}
