//! A coordinator over nodes in memory that fail on demand, on a disk that does too.

mod atomicity;
mod chunks;
mod damage;
mod membership;
mod network;
mod reigns;
mod retries;
mod savepoints;

use super::{Cluster, ClusterOptions, Connector, NewNode, Timeouts, Transaction};
use crate::catalog::CatalogChange;
use crate::catalog::tests::conditions;
use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, TimestampMicrosecondArray};
use engine::TableDef;
pub(crate) use network::FakeNode;
use network::{Death, Network};
use proto::{Clock, CommitSeq, NodeName, Result, Rng, TxnId};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage::SimVfs;

pub(crate) const WEEK_US: i64 = 7 * 24 * 3600 * 1_000_000;
/// 2019-01-01 00:00 UTC.
pub(crate) const NEW_YEAR_US: i64 = 1_546_300_800_000_000;

struct FixedClock;

impl Clock for FixedClock {
    fn now_us(&self) -> i64 {
        NEW_YEAR_US
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

struct SeededRng(AtomicU64);

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }
}

/// A disk, a network with `dn1` and `dn2`, and a coordinator that comes and goes.
pub(crate) struct World {
    pub(crate) vfs: SimVfs,
    network: Arc<Network>,
    pub(crate) dn1: Arc<FakeNode>,
    pub(crate) dn2: Arc<FakeNode>,
    pub(super) log_bytes_max: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let network = Arc::new(Network::default());
        let (dn1, dn2) = (network.add("127.0.0.1:7001", 11), network.add("127.0.0.1:7002", 12));
        World { vfs: SimVfs::new(seed), network, dn1, dn2, log_bytes_max: 1 << 20 }
    }

    pub(super) async fn try_open(&self) -> Result<Arc<Cluster>> {
        let options = ClusterOptions {
            // Tests call `tick`.
            check_interval: Duration::from_secs(3600),
            timeouts: Timeouts::default(),
            resolve_timeout: Duration::from_millis(120),
            log_bytes_max: self.log_bytes_max,
            raft_tick: Duration::from_millis(100),
        };
        let (vfs, rng) = (Arc::new(self.vfs.clone()), Arc::new(SeededRng(AtomicU64::new(7))));
        let connector = Arc::clone(&self.network) as Arc<dyn Connector>;
        Cluster::open(vfs, Arc::new(FixedClock), rng, Path::new("/coordinator"), connector, options).await
    }

    pub(crate) async fn open(&self) -> Arc<Cluster> {
        self.try_open().await.unwrap()
    }

    /// With both nodes and the tutorial's table.
    pub(crate) async fn with_table(seed: u64) -> (World, Arc<Cluster>, TableDef) {
        let world = World::new(seed);
        let (cluster, table) = world.make_table().await;
        (world, cluster, table)
    }

    pub(super) async fn make_table(&self) -> (Arc<Cluster>, TableDef) {
        let cluster = self.open().await;
        add(&cluster, "dn1", 7001).await.unwrap();
        add(&cluster, "dn2", 7002).await.unwrap();
        let table = conditions(cluster.new_oid(), &["dn1", "dn2"]);
        let mut txn = cluster.begin();
        txn.change(CatalogChange::CreateTable(table.clone())).unwrap();
        txn.commit().await.unwrap();
        (cluster, table)
    }
}

pub(super) async fn add(cluster: &Arc<Cluster>, name: &str, port: i32) -> Result<()> {
    let new = NewNode {
        name: NodeName::from(name),
        host: "127.0.0.1".to_owned(),
        port: Some(port),
        database: "postgres".to_owned(),
        owner: "postgres".to_owned(),
    };
    cluster.add_node(new).await.map(drop)
}

/// One row per device at each time.
pub(super) fn rows(table: &TableDef, times: impl Iterator<Item = i64>, devices: &[i32]) -> RecordBatch {
    let pairs = times.flat_map(|time| devices.iter().map(move |device| (time, *device)));
    readings(table, &pairs.collect::<Vec<_>>())
}

/// One row per time and device.
pub(crate) fn readings(table: &TableDef, pairs: &[(i64, i32)]) -> RecordBatch {
    let times = TimestampMicrosecondArray::from(pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_timezone("UTC")),
        Arc::new(Int32Array::from(pairs.iter().map(|pair| pair.1).collect::<Vec<_>>())),
        Arc::new(Float64Array::from(vec![20.5; pairs.len()])),
    ];
    RecordBatch::try_new(table.schema(), columns).unwrap()
}

/// A device of each partition: together they reach both nodes.
pub(super) const DEVICES: [i32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// The devices of one node only.
pub(super) fn devices_of(partition: usize) -> Vec<i32> {
    let set = proto::SlotSet::partition(partition, 2);
    DEVICES.into_iter().filter(|device| set.contains(proto::slots::slot_of_i64((*device).into()))).collect()
}

pub(super) async fn insert(cluster: &Arc<Cluster>, table: &TableDef, devices: &[i32]) -> (TxnId, Result<CommitSeq>) {
    let mut txn = cluster.begin();
    let id = txn.id();
    let outcome = match txn.write(table, rows(table, [NEW_YEAR_US].into_iter(), devices)).await {
        Ok(_) => txn.commit().await,
        Err(error) => {
            txn.abort().await;
            Err(error)
        }
    };
    (id, outcome)
}

pub(super) async fn begin_insert(cluster: &Arc<Cluster>, table: &TableDef) -> Transaction {
    let mut txn = cluster.begin();
    txn.write(table, rows(table, [NEW_YEAR_US].into_iter(), &DEVICES)).await.unwrap();
    txn
}
