//! Nodes on a simulated disk, called directly and over gRPC on the loopback: the answers must be the same.

use crate::{Node, NodeOptions, OverGrpc};
use arrow::array::{Float64Array, Int32Array, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::util::pretty::pretty_format_batches;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use engine::placement::slots_of;
use engine::plan::{Engine, EngineOptions, Nodes, QueryContext, Relation, Relations};
use engine::{ChunkDef, ColumnDef, Hypertable, PgType, Settings, SpaceDimension, TableDef};
use futures::{StreamExt, TryStreamExt};
use proto::wire::{GrpcNode, serve_node};
use proto::{
    ChunkId, ChunkWrite, ClusterId, ColumnId, CommitMode, CommitSeq, DataNode, FragmentRequest, NodeIdentity, NodeName,
    QueryId, Result, SlotSet, SqlState, SubTxn, SystemClock, SystemRng, TableId, TimeSlicing, TxnId, WriteKind, ipc,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use storage::{SimVfs, Vfs};

const DAY_US: i64 = 86_400_000_000;
/// 2019-01-01 00:00 UTC.
const START_US: i64 = 1_546_300_800_000_000;
const CLUSTER: ClusterId = ClusterId([7; 16]);
const NAMES: [&str; 2] = ["dn1", "dn2"];

fn options() -> NodeOptions {
    let store = storage::StoreOptions { background: false, ..Default::default() };
    NodeOptions { store, query_threads: 2, ..Default::default() }
}

fn open(vfs: &SimVfs) -> Node {
    let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng));
    let publishers = Arc::new(OverGrpc::on(tokio::runtime::Handle::current()));
    Node::open(Arc::new(vfs.clone()), clock, rng, Path::new("/node"), publishers, options()).unwrap()
}

struct World {
    nodes: BTreeMap<NodeName, Arc<dyn DataNode>>,
    table: Relation,
}

impl Nodes for World {
    fn node(&self, name: &NodeName) -> Result<Arc<dyn DataNode>> {
        Ok(self.nodes[name].clone())
    }
}

impl Relations for World {
    fn relation(&self, _: Option<&str>, name: &str) -> Option<Relation> {
        (name == "conditions").then(|| self.table.clone())
    }
}

fn table() -> TableDef {
    let column = |id: u32, name: &str, ty: PgType| ColumnDef {
        id: ColumnId(id),
        name: name.into(),
        ty,
        nullable: id != 1,
        default: None,
        missing: None,
        comment: None,
    };
    TableDef {
        id: TableId(16384),
        database: "d".into(),
        schema: "public".into(),
        name: "conditions".into(),
        owner: "postgres".into(),
        columns: vec![
            column(1, "time", PgType::Timestamptz),
            column(2, "device", PgType::Int4),
            column(3, "temp", PgType::Float8),
        ],
        next_column: ColumnId(4),
        hypertable: Some(Hypertable {
            id: 1,
            time_column: ColumnId(1),
            slicing: TimeSlicing::new(7 * DAY_US).unwrap(),
            space: Some(SpaceDimension { column: ColumnId(2), partitions: 2 }),
            distributed: true,
            replication_factor: 1,
            data_nodes: NAMES.map(NodeName::from).to_vec(),
            chunk_schema: "_timescaledb_internal".into(),
            chunk_prefix: "_dist_hyper_1".into(),
            default_indexes: true,
            compression: None,
        }),
        keys: Vec::new(),
        comment: None,
    }
}

fn rows(def: &TableDef) -> RecordBatch {
    let times = (0..1000).map(|i| START_US + i * DAY_US / 50);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let devices = Int32Array::from_iter((0..1000).map(|i| (i % 11 != 0).then_some(i % 13)));
    let temps = Float64Array::from_iter_values((0..1000).map(|i| f64::from(i * 7 % 100) / 4.0));
    RecordBatch::try_new(def.schema(), vec![Arc::new(times), Arc::new(devices), Arc::new(temps)]).unwrap()
}

fn txn(number: u64) -> TxnId {
    TxnId { cluster: CLUSTER, epoch: 0, number }
}

/// Cuts the rows into chunks; `(chunk, its rows)`.
fn chunks(def: &TableDef) -> Vec<(ChunkDef, RecordBatch)> {
    let (rows, hypertable) = (rows(def), def.hypertable.clone().unwrap());
    let slots = slots_of(rows.column(1)).unwrap();
    let times = rows.column(0).as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap();
    let mut parts: BTreeMap<(i64, usize), Vec<u64>> = BTreeMap::new();
    for (row, slot) in slots.iter().enumerate() {
        let part = (0..2).find(|part| SlotSet::partition(*part, 2).contains(*slot)).unwrap();
        parts.entry((hypertable.slicing.slice(times.value(row)).start(), part)).or_default().push(row as u64);
    }
    let numbered = parts.into_iter().zip(1..);
    let chunk = |(((start, part), indices), id): (((i64, usize), Vec<u64>), u32)| {
        let def = ChunkDef {
            id: ChunkId(id),
            table: def.id,
            time: hypertable.slicing.slice(start),
            slots: SlotSet::partition(part, 2),
            nodes: vec![NAMES[part].into()],
            epoch: 0,
            created_us: 0,
            compressed: false,
        };
        (def, take_record_batch(&rows, &UInt64Array::from(indices)).unwrap())
    };
    numbered.map(chunk).collect()
}

fn as_nodes<N: DataNode>(nodes: BTreeMap<NodeName, Arc<N>>) -> BTreeMap<NodeName, Arc<dyn DataNode>> {
    nodes.into_iter().map(|(name, node)| (name, node as Arc<dyn DataNode>)).collect()
}

/// Two attached nodes that hold the table, by the verbs of `DataNode`.
async fn load<N: DataNode>(nodes: BTreeMap<NodeName, Arc<N>>) -> Arc<World> {
    let nodes = as_nodes(nodes);
    let def = table();
    let mut writes: BTreeMap<NodeName, Vec<ChunkWrite>> = BTreeMap::new();
    let mut defs = Vec::new();
    for (chunk, rows) in chunks(&def) {
        let body = ipc::encode_body(&rows).unwrap();
        let write = ChunkWrite { chunk: chunk.id, layout: def.layout(), kind: WriteKind::Insert, body };
        writes.entry(chunk.nodes[0].clone()).or_default().push(write);
        defs.push(Arc::new(chunk));
    }
    for (name, writes) in writes {
        let node = &nodes[&name];
        node.attach(NodeIdentity { cluster: CLUSTER, name }).await.unwrap();
        node.stage(txn(1), SubTxn::FIRST, false, writes).await.unwrap();
        node.prepare(txn(1)).await.unwrap();
        node.commit(txn(1), CommitSeq(1), CommitMode::Prepared).await.unwrap();
    }
    let table = Relation::Table { def: Arc::new(def), chunks: Arc::new(defs) };
    Arc::new(World { nodes, table })
}

fn local(disks: &[SimVfs; 2]) -> BTreeMap<NodeName, Arc<Node>> {
    let node = |(name, vfs): (&str, &SimVfs)| (NodeName::from(name), Arc::new(open(vfs)));
    NAMES.into_iter().zip(disks).map(node).collect()
}

fn disks() -> [SimVfs; 2] {
    [SimVfs::new(1), SimVfs::new(2)]
}

fn context(world: &Arc<World>, push_down: bool, snapshot: CommitSeq) -> QueryContext {
    QueryContext {
        settings: Settings { push_down, now_us: START_US, ..Settings::default() },
        relations: world.clone(),
        nodes: world.clone(),
        snapshot,
        txn: None,
        query: QueryId(1),
    }
}

async fn query(world: &Arc<World>, sql: &str, push_down: bool, snapshot: CommitSeq) -> Result<Vec<String>> {
    let engine = Engine::new(&EngineOptions::default(), Arc::new(SystemClock::new()));
    let statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
    let context = context(world, push_down, snapshot);
    let prepared = engine.prepare(&statement, &[], &context)?;
    let batches = engine.run(&prepared, &[], &context).await?.stream.try_collect::<Vec<_>>().await?;
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let table = pretty_format_batches(&[concat_batches(&first.schema(), &batches).unwrap()]).unwrap().to_string();
    let mut lines: Vec<_> = table.lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect();
    lines[1..].sort();
    Ok(lines)
}

const QUERIES: [&str; 7] = [
    "SELECT * FROM conditions",
    "SELECT count(*) FROM conditions",
    "SELECT device, count(*), sum(temp), max(time) FROM conditions GROUP BY device",
    "SELECT temp, count(*) FROM conditions WHERE device = 5 GROUP BY temp",
    "SELECT * FROM conditions ORDER BY time DESC LIMIT 7",
    "SELECT DISTINCT ON (device) device, time FROM conditions ORDER BY device, time DESC",
    "SELECT count(*) FROM conditions a JOIN conditions b ON a.device = b.device AND a.temp = b.temp",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_and_over_grpc_the_answers_are_the_same() {
    let direct = load(local(&disks())).await;
    let mut nodes: BTreeMap<NodeName, Arc<GrpcNode>> = BTreeMap::new();
    let mut servers = Vec::new();
    for (name, node) in local(&disks()) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async move { stopped.await.unwrap_or_default() };
        servers.push((stop, tokio::spawn(serve_node(node, listener, shutdown))));
        nodes.insert(name, Arc::new(GrpcNode::new(&address).unwrap()));
    }
    let remote = load(nodes).await;
    for sql in QUERIES {
        let expected = query(&direct, sql, false, CommitSeq(1)).await.unwrap();
        assert!(expected.len() > 1, "{sql}");
        for (world, push_down) in [(&direct, true), (&remote, true), (&remote, false)] {
            assert_eq!(query(world, sql, push_down, CommitSeq(1)).await.unwrap(), expected, "{sql}");
        }
    }
    let error = query(&remote, "SELECT 1 / (count(*) - 1000) FROM conditions", true, CommitSeq(1)).await;
    assert!(error.is_err());
    drop(remote);
    for (stop, server) in servers {
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_before_the_commit_sees_nothing_and_the_writer_sees_its_own() {
    let world = load(local(&disks())).await;
    let count = "SELECT count(*) AS n FROM conditions";
    assert_eq!(query(&world, count, true, CommitSeq(0)).await.unwrap(), ["| n |", "| 0 |"]);
    assert_eq!(query(&world, count, true, CommitSeq(1)).await.unwrap(), ["| n    |", "| 1000 |"]);

    let Relation::Table { def, chunks } = &world.table else { panic!("a table") };
    let chunk = &chunks[0];
    let rows = self::chunks(def).remove(0).1;
    let write = ChunkWrite {
        chunk: chunk.id,
        layout: def.layout(),
        kind: WriteKind::Insert,
        body: ipc::encode_body(&rows).unwrap(),
    };
    world.nodes[&chunk.nodes[0]].stage(txn(2), SubTxn::FIRST, false, vec![write]).await.unwrap();
    let engine = Engine::new(&EngineOptions::default(), Arc::new(SystemClock::new()));
    let statement = Parser::parse_sql(&PostgreSqlDialect {}, count).unwrap().remove(0);
    for (reader, expected) in [(None, 1000), (Some(txn(2)), 1000 + rows.num_rows())] {
        let context = QueryContext { txn: reader, ..context(&world, true, CommitSeq(1)) };
        let prepared = engine.prepare(&statement, &[], &context).unwrap();
        let batches: Vec<_> = engine.run(&prepared, &[], &context).await.unwrap().stream.try_collect().await.unwrap();
        let found = batches[0].column(0).as_any().downcast_ref::<arrow::array::Int64Array>().unwrap().value(0);
        assert_eq!(found, expected as i64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_there_after_close_and_open() {
    let disks = disks();
    let open_nodes: Vec<_> = disks.iter().map(|vfs| Arc::new(open(vfs))).collect();
    let named = NAMES.into_iter().zip(&open_nodes);
    let world = load(named.map(|(name, node)| (name.into(), node.clone())).collect()).await;
    let before = query(&world, QUERIES[2], true, CommitSeq(1)).await.unwrap();
    for node in &open_nodes {
        node.close().await.unwrap();
        assert!(node.hello().await.is_ok(), "a closed node can still say who it was");
        assert!(node.stage(txn(9), SubTxn::FIRST, false, Vec::new()).await.is_err());
    }
    let error = query(&world, QUERIES[2], true, CommitSeq(1)).await.unwrap_err();
    assert!(error.message.starts_with("[dn"), "{error}");
    let table = world.table.clone();
    drop((world, open_nodes));
    // Reading threads of the queries above may still be on their way out of the stores.
    let in_use = |vfs: &SimVfs| vfs.lock(Path::new("/node/LOCK")).is_err();
    for _ in 0..1_000_000 {
        if !disks.iter().any(in_use) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let again = Arc::new(World { nodes: as_nodes(local(&disks)), table });
    assert_eq!(query(&again, QUERIES[2], true, CommitSeq(1)).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fragment_that_is_no_plan_is_an_error() {
    let node = open(&SimVfs::new(3));
    let request = FragmentRequest {
        query: QueryId(1),
        plan: bytes::Bytes::from_static(b"\xff\xff nonsense"),
        values: bytes::Bytes::new(),
        scans: Vec::new(),
        snapshot: CommitSeq(1),
        txn: None,
        time_zone: "UTC".into(),
        partitions: 2,
        now_us: 0,
        shuffle: Default::default(),
    };
    let mut stream = node.execute(request).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap_err().code, SqlState::INTERNAL_ERROR);
    assert!(stream.next().await.is_none());
}
