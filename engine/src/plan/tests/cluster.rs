//! Two tables over a few nodes that keep chunks as record batches.

use crate::placement::slots_of;
use crate::plan::target::{Narrowing, TARGET};
use crate::plan::{
    ChunkRequest, ChunkRows, ChunkStore, Engine, EngineOptions, Executor, ExplainOptions, Explained, Nodes,
    QueryContext, Relation, Relations,
};
use crate::{ChunkDef, ColumnDef, Hypertable, PgType, Settings, Shuffling, SpaceDimension, TableDef};
use arrow::array::{
    Array, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::array::{TimestampMicrosecondArray, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Schema;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::TryStreamExt;
use parking_lot::Mutex;
use proto::data_node::FIELD_ID;
use proto::{
    ChunkId, ChunkLayout, ChunkStats, ChunkWrite, ClusterId, ColumnId, CommitMode, CommitSeq, DataNode, Error,
    FetchRequest, FragmentRequest, FragmentStream, NodeAddress, NodeIdentity, NodeName, NodeStatus, Publisher,
    Publishers, QueryId, Result, SlotSet, SubTxn, SystemClock, TableId, TimeRange, TimeSlicing, TxnId, TxnOutcome,
};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

pub const DAY_US: i64 = 86_400_000_000;
/// 2019-01-01 00:00 UTC.
pub const START_US: i64 = 1_546_300_800_000_000;

/// Push-down and shuffles: every statement answers the same in all of these.
pub const WAYS: [(bool, Shuffling); 3] = [(true, Shuffling::Auto), (true, Shuffling::On), (false, Shuffling::Auto)];

#[derive(Default)]
pub struct MemoryStore {
    pub chunks: Mutex<HashMap<ChunkId, RecordBatch>>,
    /// Batches handed out, over all scans.
    pub batches_read: AtomicUsize,
    /// Iterators alive.
    pub open: Arc<AtomicUsize>,
    pub fails: Mutex<Option<Error>>,
}

struct Rows {
    batches: std::vec::IntoIter<RecordBatch>,
    store: Arc<MemoryStore>,
}

impl Iterator for Rows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        self.store.batches_read.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.store.fails.lock().clone() {
            return Some(Err(error));
        }
        Some(Ok(batch))
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.store.open.fetch_sub(1, Ordering::SeqCst);
    }
}

pub struct Stored(pub Arc<MemoryStore>);

impl ChunkStore for Stored {
    fn scan(&self, request: ChunkRequest, pieces: usize) -> Result<Vec<ChunkRows>> {
        let chunks = self.0.chunks.lock();
        let rows = chunks.get(&request.chunk).map(|all| {
            request.tally.chunk(request.chunk, true);
            request.tally.memory_rows.add(all.num_rows());
            let columns = request.columns.iter().map(|wanted| {
                let id = wanted.id.to_string();
                let found = all.schema().fields().iter().position(|f| f.metadata().get(FIELD_ID) == Some(&id));
                let rows = 0..all.num_rows() as i64;
                match (found, &wanted.missing) {
                    _ if wanted.id == ColumnId::CHUNK => repeated_int(request.chunk.0.into(), all.num_rows()),
                    _ if wanted.id == ColumnId::PART => repeated_int(1, all.num_rows()),
                    _ if wanted.id == ColumnId::ROW => Arc::new(Int64Array::from_iter_values(rows)),
                    (Some(index), _) => all.column(index).clone(),
                    (None, Some(value)) => repeated(value, all.num_rows()),
                    (None, None) => arrow::array::new_null_array(wanted.field.data_type(), all.num_rows()),
                }
            });
            let schema = Schema::new(request.columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>());
            let options = RecordBatchOptions::new().with_row_count(Some(all.num_rows()));
            RecordBatch::try_new_with_options(Arc::new(schema), columns.collect(), &options).unwrap()
        });
        let batches = rows.into_iter().flat_map(|rows| {
            let size = 100.min(request.batch_rows);
            (0..rows.num_rows()).step_by(size).map(move |at| rows.slice(at, size.min(rows.num_rows() - at)))
        });
        let batches = batches.collect::<Vec<_>>();
        let rows = |batches: Vec<RecordBatch>| {
            self.0.open.fetch_add(1, Ordering::SeqCst);
            Box::new(Rows { batches: batches.into_iter(), store: self.0.clone() }) as ChunkRows
        };
        match batches.len().div_ceil(pieces) {
            0 => Ok(vec![rows(Vec::new())]),
            most => Ok(batches.chunks(most).map(|part| rows(part.to_vec())).collect()),
        }
    }

    fn time_bounds(&self, chunk: ChunkId, time: ColumnId, _: CommitSeq, _: Option<TxnId>) -> Option<(i64, i64)> {
        let chunks = self.0.chunks.lock();
        let Some(rows) = chunks.get(&chunk) else { return Some((i64::MAX, i64::MIN)) };
        let id = time.to_string();
        let at = rows.schema().fields().iter().position(|f| f.metadata().get(FIELD_ID) == Some(&id))?;
        let times = rows.column(at).as_any().downcast_ref::<TimestampMicrosecondArray>()?;
        Some((arrow::compute::min(times)?, arrow::compute::max(times)?))
    }
}

fn repeated_int(value: i64, rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from_value(value, rows))
}

fn repeated(value: &ArrayRef, rows: usize) -> ArrayRef {
    arrow::compute::take(value, &UInt64Array::from(vec![0; rows]), None).unwrap()
}

/// A data node of which only `execute` is ever called, and `fetch` by others.
pub struct MemoryNode(pub Executor);

/// All nodes, once they are there.
#[derive(Default)]
pub struct Neighbours(OnceLock<BTreeMap<NodeName, Weak<MemoryNode>>>);

impl Publishers for Neighbours {
    fn publisher(&self, node: &NodeAddress) -> Result<Arc<dyn Publisher>> {
        Ok(self.0.get().unwrap()[&node.identity.name].upgrade().unwrap())
    }
}

#[async_trait]
impl Publisher for MemoryNode {
    async fn fetch(&self, request: FetchRequest) -> Result<FragmentStream> {
        self.0.fetch(&request)
    }
}

#[async_trait]
impl DataNode for MemoryNode {
    async fn execute(&self, fragment: FragmentRequest) -> Result<FragmentStream> {
        self.0.start(&fragment)
    }
    async fn hello(&self) -> Result<NodeStatus> {
        Err(Error::unsupported("hello"))
    }
    async fn attach(&self, _: NodeIdentity) -> Result<()> {
        Err(Error::unsupported("attach"))
    }
    async fn obey(&self, _: ClusterId, _: u64) -> Result<()> {
        Err(Error::unsupported("obey"))
    }
    async fn stage(&self, _: TxnId, _: SubTxn, _: bool, _: Vec<ChunkWrite>) -> Result<()> {
        Err(Error::unsupported("stage"))
    }
    async fn discard(&self, _: TxnId, _: Range<SubTxn>) -> Result<()> {
        Err(Error::unsupported("discard"))
    }
    async fn prepare(&self, _: TxnId) -> Result<()> {
        Err(Error::unsupported("prepare"))
    }
    async fn commit(&self, _: TxnId, _: CommitSeq, _: CommitMode) -> Result<()> {
        Err(Error::unsupported("commit"))
    }
    async fn abort(&self, _: TxnId) -> Result<()> {
        Err(Error::unsupported("abort"))
    }
    async fn outcome(&self, _: TxnId) -> Result<TxnOutcome> {
        Err(Error::unsupported("outcome"))
    }
    async fn chunk_stats(&self, _: Vec<ChunkId>) -> Result<Vec<ChunkStats>> {
        Err(Error::unsupported("chunk_stats"))
    }
    async fn seal_chunks(&self, _: Vec<ChunkId>, _: ChunkLayout) -> Result<()> {
        Err(Error::unsupported("seal_chunks"))
    }
    async fn drop_chunks(&self, _: Vec<ChunkId>) -> Result<()> {
        Err(Error::unsupported("drop_chunks"))
    }
}

pub struct Cluster {
    pub engine: Engine,
    pub stores: BTreeMap<NodeName, Arc<MemoryStore>>,
    pub nodes: BTreeMap<NodeName, Arc<MemoryNode>>,
    pub shuffle: Mutex<Shuffling>,
    pub relations: Mutex<HashMap<String, Relation>>,
    /// What targets are narrowed to.
    pub only: Mutex<Vec<Narrowing>>,
    next_query: AtomicUsize,
}

struct World(Arc<Cluster>);

impl Nodes for World {
    fn node(&self, name: &NodeName) -> Result<Arc<dyn DataNode>> {
        Ok(self.0.nodes[name].clone())
    }

    fn addresses(&self, names: &[NodeName]) -> Option<Vec<NodeAddress>> {
        let address = |name: &NodeName| {
            let identity = NodeIdentity { cluster: ClusterId([7; 16]), name: name.clone() };
            NodeAddress { identity, address: String::new() }
        };
        Some(names.iter().map(address).collect())
    }
}

impl Relations for World {
    fn relation(&self, schema: Option<&str>, name: &str) -> Option<Relation> {
        if schema == Some(TARGET) {
            let Some(Relation::Table { def, chunks }) = self.relation(None, name) else { return None };
            let only = self.0.only.lock().clone();
            return Some(Relation::Target { def, chunks, only: Arc::new(only) });
        }
        let visible = matches!(schema, None | Some("public"));
        self.0.relations.lock().get(name).filter(|_| visible).cloned()
    }
}

pub fn column(id: u32, name: &str, ty: PgType) -> ColumnDef {
    ColumnDef { id: ColumnId(id), name: name.into(), ty, nullable: true, default: None, missing: None, comment: None }
}

pub fn hypertable(id: u32, name: &str, nodes: &[&str], days: i64) -> TableDef {
    let columns = vec![
        column(1, "time", PgType::Timestamptz),
        column(2, "device", PgType::Int4),
        column(3, "temp", PgType::Float8),
        column(4, "host", PgType::Text),
    ];
    TableDef {
        id: TableId(id),
        database: "d".into(),
        schema: "public".into(),
        name: name.into(),
        owner: "postgres".into(),
        columns,
        next_column: ColumnId(5),
        hypertable: Some(Hypertable {
            id,
            time_column: ColumnId(1),
            slicing: TimeSlicing::new(days * DAY_US).unwrap(),
            space: Some(SpaceDimension { column: ColumnId(2), partitions: nodes.len() as u16 }),
            distributed: true,
            replication_factor: 1,
            data_nodes: nodes.iter().map(|n| NodeName::from(*n)).collect(),
            chunk_schema: "_timescaledb_internal".into(),
            chunk_prefix: format!("_dist_hyper_{id}"),
            default_indexes: true,
            compression: None,
        }),
        keys: Vec::new(),
        comment: None,
    }
}

/// A small deterministic generator; the seed is the test's.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// Rows over `days` days, quarters as temperatures so that sums are exact in any order; a few NULLs.
pub fn rows(def: &TableDef, count: usize, days: u64, seed: u64) -> RecordBatch {
    let mut chance = Chance(seed);
    let mut some = |limit: u64| (chance.below(20) > 0).then(|| chance.below(limit));
    let time = (0..count).map(|i| START_US + (i as i64 * days as i64 * DAY_US) / count as i64);
    let time = TimestampMicrosecondArray::from_iter_values(time).with_timezone("UTC");
    let device = Int32Array::from((0..count).map(|_| some(30).map(|v| v as i32)).collect::<Vec<_>>());
    let temp = Float64Array::from((0..count).map(|_| some(400).map(|v| v as f64 / 4.0)).collect::<Vec<_>>());
    let host = StringArray::from((0..count).map(|_| some(7).map(|v| format!("host_{v}"))).collect::<Vec<_>>());
    RecordBatch::try_new(def.schema(), vec![Arc::new(time), Arc::new(device), Arc::new(temp), Arc::new(host)]).unwrap()
}

impl Cluster {
    pub fn empty(nodes: &[&str]) -> Cluster {
        let clock = Arc::new(SystemClock::new());
        let options = EngineOptions::default();
        let stores: BTreeMap<NodeName, Arc<MemoryStore>> =
            nodes.iter().map(|name| (NodeName::from(*name), Arc::default())).collect();
        let neighbours = Arc::new(Neighbours::default());
        let node = |store: &Arc<MemoryStore>| {
            let executor = Executor::new(Arc::new(Stored(store.clone())), clock.clone(), &options);
            Arc::new(MemoryNode(executor.with_publishers(neighbours.clone())))
        };
        let nodes: BTreeMap<_, _> = stores.iter().map(|(name, store)| (name.clone(), node(store))).collect();
        let known = nodes.iter().map(|(name, node)| (name.clone(), Arc::downgrade(node))).collect();
        assert!(neighbours.0.set(known).is_ok());
        let engine = Engine::new(&options, clock.clone());
        Cluster {
            engine,
            stores,
            nodes,
            shuffle: Mutex::default(),
            relations: Mutex::default(),
            only: Mutex::default(),
            next_query: AtomicUsize::new(1),
        }
    }

    /// Cuts `rows` into chunks of `def` and places them as TimescaleDB would: one space partition per node.
    pub fn load(&self, def: TableDef, rows: &RecordBatch) {
        let hypertable = def.hypertable.clone().unwrap();
        let names = &hypertable.data_nodes;
        let slots = slots_of(rows.column(1)).unwrap();
        let times = rows.column(0).as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap();
        let mut parts: BTreeMap<(i64, usize), Vec<u64>> = BTreeMap::new();
        for (row, slot) in slots.iter().enumerate() {
            let slice = hypertable.slicing.slice(times.value(row));
            let part = (0..names.len()).find(|p| SlotSet::partition(*p, names.len()).contains(*slot)).unwrap();
            parts.entry((slice.start(), part)).or_default().push(row as u64);
        }
        let mut chunks = Vec::new();
        for (number, ((start, part), indices)) in parts.into_iter().enumerate() {
            let id = ChunkId(def.id.0 * 1000 + number as u32 + 1);
            let batch = take_record_batch(rows, &UInt64Array::from(indices)).unwrap();
            self.stores[&names[part]].chunks.lock().insert(id, batch);
            chunks.push(Arc::new(ChunkDef {
                id,
                table: def.id,
                time: hypertable.slicing.slice(start),
                slots: SlotSet::partition(part, names.len()),
                nodes: vec![names[part].clone()],
                epoch: 1,
                created_us: 0,
                compressed: false,
            }));
        }
        let relation = Relation::Table { def: Arc::new(def.clone()), chunks: Arc::new(chunks) };
        self.relations.lock().insert(def.name, relation);
    }

    /// A table that is one chunk on `node`.
    pub fn load_plain(&self, id: u32, name: &str, rows: &RecordBatch, node: &str) {
        let def = TableDef { hypertable: None, ..hypertable(id, name, &[node], 7) };
        let chunk = ChunkDef {
            id: ChunkId(id * 1000 + 1),
            table: def.id,
            time: TimeRange::ALL,
            slots: SlotSet::ALL,
            nodes: vec![node.into()],
            epoch: 1,
            created_us: 0,
            compressed: false,
        };
        self.stores[&node.into()].chunks.lock().insert(chunk.id, rows.clone());
        let relation = Relation::Table { def: Arc::new(def), chunks: Arc::new(vec![Arc::new(chunk)]) };
        self.relations.lock().insert(name.to_owned(), relation);
    }

    /// `conditions` and `metrics` over `nodes`, with the same devices; `placed` lies on the first node only.
    pub fn new(nodes: &[&str]) -> Arc<Cluster> {
        let cluster = Cluster::empty(nodes);
        let def = hypertable(1, "conditions", nodes, 7);
        cluster.load(def.clone(), &rows(&def, 3000, 30, 1));
        let def = hypertable(2, "metrics", nodes, 7);
        cluster.load(def.clone(), &rows(&def, 300, 30, 2));
        let def = hypertable(3, "placed", &nodes[..1], 7);
        cluster.load(def.clone(), &rows(&def, 200, 30, 3));
        let def = hypertable(4, "nothing", nodes, 7);
        cluster.load(def.clone(), &rows(&def, 0, 30, 4));
        let view = "SELECT device, temp FROM conditions WHERE temp > 50".to_owned();
        cluster.relations.lock().insert("hot".into(), Relation::View { sql: view });
        Arc::new(cluster)
    }

    pub fn context(self: &Arc<Self>, push_down: bool) -> QueryContext {
        QueryContext {
            settings: Settings { push_down, shuffle: *self.shuffle.lock(), now_us: START_US, ..Settings::default() },
            relations: Arc::new(World(self.clone())),
            nodes: Arc::new(World(self.clone())),
            snapshot: CommitSeq::MAX,
            txn: None,
            query: QueryId(self.next_query.fetch_add(1, Ordering::Relaxed) as u64),
        }
    }

    pub async fn query(self: &Arc<Self>, sql: &str, push_down: bool) -> Result<RecordBatch> {
        let context = self.context(push_down);
        let prepared = self.engine.prepare(&statement(sql), &[], &context)?;
        let result = self.engine.run(&prepared, &[], &context).await?;
        let batches = result.stream.try_collect::<Vec<_>>().await?;
        let Some(first) = batches.first() else { return Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))) };
        Ok(concat_batches(&first.schema(), &batches).unwrap())
    }

    pub async fn explain(self: &Arc<Self>, sql: &str, push_down: bool, analyze: bool) -> String {
        let options = ExplainOptions::new(analyze, false);
        self.explained(sql, push_down, &options).await.lines(&options).join("\n")
    }

    pub async fn explained(self: &Arc<Self>, sql: &str, push_down: bool, options: &ExplainOptions) -> Explained {
        let context = self.context(push_down);
        let prepared = self.engine.prepare(&statement(sql), &[], &context).unwrap();
        self.engine.explain(&prepared, &[], &context, options).await.unwrap()
    }
}

pub fn statement(sql: &str) -> datafusion::sql::sqlparser::ast::Statement {
    Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0)
}

/// The rows as text, sorted unless `in_order`.
pub fn text(batch: &RecordBatch, in_order: bool) -> Vec<String> {
    let table = pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string();
    let mut lines: Vec<_> = table.lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect();
    if !in_order && !lines.is_empty() {
        lines[1..].sort();
    }
    lines
}
