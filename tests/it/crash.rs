//! kill -9 at random moments: what was acknowledged is there whole afterwards, nothing is there in part.
//!
//! A writer loads transaction after transaction by COPY, each with rows for both nodes, and says at every step how far
//! it is; at a step drawn from the seed the victim is killed, while the writer goes on. Then the victim starts again on
//! its directory and the table is compared with what the writer was told.

use crate::cluster::{Cluster, Member, Session, Shape, connect};
use bytes::Bytes;
use futures::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;

const ROUNDS: usize = 50;
/// Rows of one transaction: 40 devices over 5 slices, so that both nodes take part.
const ROWS_PER_TXN: usize = 40;
const PIECES_PER_TXN: usize = 4;
/// The kill comes after at most this many steps of the writer; a transaction has `PIECES_PER_TXN` and two more.
const STEPS_MAX: usize = 30;
const WRITER_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn acknowledged_transactions_survive_on_three_processes() {
    rounds(Shape::Processes, ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn acknowledged_transactions_survive_embedded() {
    rounds(Shape::Embedded, ROUNDS / 5).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn acknowledged_transactions_survive_in_a_group() {
    rounds(Shape::Group, ROUNDS / 5).await;
}

async fn rounds(shape: Shape, count: usize) {
    let seed = std::env::var("SERIATIM_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("SERIATIM_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(shape).await;
    let session = cluster.connect().await;
    session.run("CREATE TABLE t (time timestamptz NOT NULL, device integer, txn bigint)").await;
    session.run("SELECT create_distributed_hypertable('t', 'time', 'device')").await;
    drop(session);

    let mut ledger = Ledger::default();
    for round in 0..count {
        let victims = draw_victims(&cluster, &mut rng).await;
        let steps = rng.random_range(1..=STEPS_MAX);
        let (sender, mut progress) = mpsc::channel(1);
        let writer = tokio::spawn(write_until_refused(cluster.config("postgres"), ledger, sender));
        for _ in 0..steps {
            if progress.recv().await.is_none() {
                break;
            }
        }
        // Dropping the receiver lets the writer run freely from here on.
        drop(progress);
        victims.iter().for_each(|victim| cluster.kill(*victim));
        let written = tokio::time::timeout(WRITER_TIMEOUT, writer).await;
        ledger = written.unwrap_or_else(|_| panic!("round {round}: the writer hangs after {victims:?} died")).unwrap();
        victims.iter().rev().for_each(|victim| cluster.restart(*victim));
        let session = cluster.settled().await;
        ledger.compare(&session, &format!("round {round}, {victims:?} after {steps} steps")).await;
    }
    assert!(ledger.acknowledged.len() > count, "only {} transactions: this tested nothing", ledger.acknowledged.len());
}

/// The coordinator that leads, one node, or all: each of them is missed by a writer.
async fn draw_victims(cluster: &Cluster, rng: &mut StdRng) -> Vec<Member> {
    let all = cluster.members();
    let leader = if cluster.is_group() { cluster.leader().await } else { 0 };
    let followed = |member: &Member| matches!(member, Member::Coordinator(index) if *index != leader);
    let members = all.iter().copied().filter(|member| !followed(member)).collect::<Vec<_>>();
    match rng.random_range(0..=members.len()) {
        last if last == members.len() => all,
        one => vec![members[one]],
    }
}

/// What the writer knows.
#[derive(Default)]
struct Ledger {
    next: i64,
    acknowledged: BTreeSet<i64>,
    /// Sent, and neither acknowledged nor refused: there whole or not at all.
    unknown: BTreeSet<i64>,
}

impl Ledger {
    /// Compares the table with what the writer was told, and settles what was unknown.
    async fn compare(&mut self, session: &Session, when: &str) {
        let mut stored = BTreeSet::new();
        for row in session.rows("SELECT txn, count(*), count(DISTINCT device) FROM t GROUP BY txn").await {
            let numbers = row.iter().map(|cell| cell.as_deref().expect("no NULL").parse::<i64>().unwrap());
            let [txn, rows, devices] = numbers.collect::<Vec<_>>()[..] else { panic!("three columns") };
            assert_eq!(
                (rows, devices),
                (ROWS_PER_TXN as i64, ROWS_PER_TXN as i64),
                "transaction {txn} in part: {when}"
            );
            stored.insert(txn);
        }
        let lost = self.acknowledged.difference(&stored).collect::<Vec<_>>();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}: {when}");
        let ghosts = stored.iter().filter(|txn| !self.acknowledged.contains(txn) && !self.unknown.contains(txn));
        assert_eq!(ghosts.collect::<Vec<_>>(), Vec::<&i64>::new(), "never acknowledged and there: {when}");
        // Decided now: a transaction must not come or go later.
        self.acknowledged.extend(self.unknown.intersection(&stored));
        self.unknown.clear();
    }
}

/// Transaction after transaction, until one fails. Every step waits until it is taken from `progress`, as long as
/// anyone takes them.
async fn write_until_refused(config: tokio_postgres::Config, mut ledger: Ledger, progress: mpsc::Sender<()>) -> Ledger {
    let Ok(session) = connect(&config).await else { return ledger };
    loop {
        let txn = ledger.next;
        ledger.next += 1;
        ledger.unknown.insert(txn);
        if write(&session, txn, &progress).await.is_err() {
            return ledger;
        }
        ledger.unknown.remove(&txn);
        ledger.acknowledged.insert(txn);
        let _ = progress.send(()).await;
    }
}

async fn write(session: &Session, txn: i64, progress: &mpsc::Sender<()>) -> Result<(), tokio_postgres::Error> {
    let sink = session.client.copy_in::<_, Bytes>("COPY t FROM STDIN").await?;
    let mut sink = pin!(sink);
    for piece in 0..PIECES_PER_TXN {
        let devices = (piece * ROWS_PER_TXN / PIECES_PER_TXN)..((piece + 1) * ROWS_PER_TXN / PIECES_PER_TXN);
        let rows = devices.map(|device| format!("2024-01-{:02} 00:00:00+00\t{device}\t{txn}\n", 1 + 7 * (device % 5)));
        sink.send(Bytes::from(rows.collect::<String>())).await?;
        sink.flush().await?;
        let _ = progress.send(()).await;
    }
    sink.finish().await?;
    Ok(())
}
