//! What concurrent clients were told while members died, held against what snapshots show: see `bank` for what must be
//! true of every one of them.

use crate::bank::{Bank, Clients, Fate};
use crate::cluster::{Cluster, Shape};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::Duration;

const WRITERS: usize = 4;
const READERS: usize = 3;
/// Between a start and the next death.
const LIFE_MAX_MS: u64 = 900;

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn every_read_is_a_point_of_one_history_on_three_processes() {
    history(Shape::Processes, 8).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn every_read_is_a_point_of_one_history_in_a_group() {
    history(Shape::Group, 5).await;
}

async fn history(shape: Shape, deaths: usize) {
    let seed = std::env::var("SERIATIM_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("SERIATIM_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(shape).await;
    let bank = Arc::new(Bank::open(&cluster.connect().await).await);
    let clients = Clients::start(&bank, &cluster.configs(), WRITERS, READERS, &mut rng);
    for death in 0..deaths {
        let life = Duration::from_millis(rng.random_range(0..LIFE_MAX_MS));
        tokio::time::timeout(life, clients.failed()).await.ok();
        let members = cluster.members();
        let victim = members[rng.random_range(0..members.len())];
        println!("death {death}: {victim:?}");
        cluster.kill(victim);
        if cluster.is_group() {
            drop(cluster.led().await);
        }
        cluster.restart(victim);
        drop(bank.readable(&cluster).await);
    }
    let done = clients.stop().await;
    bank.settle(&bank.readable(&cluster).await, "at the end").await;
    let snapshots = bank.check_order();
    let committed = bank.count(Fate::Committed);
    println!("{done} answers, {committed} transactions, {snapshots} snapshots of one order");
    assert!(committed > 20 && snapshots > 5, "{committed} transactions, {snapshots} snapshots: this tested nothing");
}
