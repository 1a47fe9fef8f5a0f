//! What every `DataNode` promises, as sentences. Each runs on the node itself and on the gRPC client in front of one;
//! a coordinator must not be able to tell them apart. How fragments are computed is tested beside the code of `node`.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use node::{Node, NodeOptions, OverGrpc};
use proto::data_node::FIELD_ID;
use proto::wire::{GrpcNode, serve_node};
use proto::{
    ChunkId, ChunkLayout, ChunkWrite, ClusterId, ColumnId, CommitMode, CommitSeq, DataNode, Error, FragmentRequest,
    NodeIdentity, PROTOCOL, QueryId, Reaction, SqlState, SubTxn, SystemClock, SystemRng, TableId, TxnId, TxnOutcome,
    UniqueKey, WriteKind, ipc,
};
use std::path::Path;
use std::sync::Arc;
use storage::{SimVfs, Store, StoreOptions, Vfs};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const SEED: u64 = 11;

/// One node on a simulated disk, seen as the implementation under test shows it.
struct Subject {
    node: Arc<dyn DataNode>,
    vfs: SimVfs,
    over_grpc: bool,
    /// Dropping it ends the gRPC server.
    _server: Option<oneshot::Sender<()>>,
}

impl Subject {
    async fn open(over_grpc: bool) -> Subject {
        Subject::open_on(SimVfs::new(SEED), over_grpc).await
    }

    async fn open_on(vfs: SimVfs, over_grpc: bool) -> Subject {
        let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng));
        let publishers = Arc::new(OverGrpc::on(tokio::runtime::Handle::current()));
        let (dir, options) = (Path::new("/node"), NodeOptions::default());
        let opened = Node::open(Arc::new(vfs.clone()), clock, rng, dir, publishers, options);
        let local = Arc::new(opened.unwrap());
        if !over_grpc {
            return Subject { node: local, vfs, over_grpc, _server: None };
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(serve_node(local, listener, async move {
            let _ = stopped.await;
        }));
        let node = Arc::new(GrpcNode::new(&address.to_string()).unwrap());
        Subject { node, vfs, over_grpc, _server: Some(stop) }
    }

    async fn attached(over_grpc: bool) -> Subject {
        let subject = Subject::open(over_grpc).await;
        subject.node.attach(identity("dn1")).await.unwrap();
        subject
    }

    async fn rows(&self, chunk: u32) -> Option<u64> {
        let stats = self.node.chunk_stats(vec![ChunkId(chunk)]).await.unwrap();
        assert!(stats.iter().all(|stats| stats.chunk == ChunkId(chunk)));
        stats.first().map(|stats| stats.rows)
    }
}

fn identity(name: &str) -> NodeIdentity {
    NodeIdentity { cluster: CLUSTER, name: name.into() }
}

fn txn(number: u64) -> TxnId {
    txn_of_epoch(1, number)
}

fn txn_of_epoch(epoch: u64, number: u64) -> TxnId {
    TxnId { cluster: CLUSTER, epoch, number }
}

/// `count` rows for a chunk of a table with time and one number.
fn write(chunk: u32, count: i64) -> ChunkWrite {
    let field = |id: u32, name: &str, ty: DataType| {
        Field::new(name, ty, true).with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
    };
    let timestamptz = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![field(1, "time", timestamptz), field(2, "v", DataType::Int64)]);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(0..count).with_timezone("UTC"));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![times, values]).unwrap();
    let layout =
        ChunkLayout { table: TableId(16384), sort: vec![ColumnId(1)], time: Some(ColumnId(1)), keys: Vec::new() };
    ChunkWrite { chunk: ChunkId(chunk), layout, kind: WriteKind::Insert, body: ipc::encode_body(&batch).unwrap() }
}

/// One that is refused or not, but computes nothing.
fn fragment(snapshot: CommitSeq) -> FragmentRequest {
    FragmentRequest {
        query: QueryId(1),
        plan: bytes::Bytes::from_static(b"no plan"),
        values: bytes::Bytes::new(),
        scans: Vec::new(),
        snapshot,
        txn: None,
        time_zone: "UTC".into(),
        partitions: 1,
        now_us: 0,
        shuffle: Default::default(),
    }
}

fn assert_code(result: Result<(), Error>, code: SqlState) {
    let error = result.expect_err("refused");
    assert_eq!(error.code, code, "{}", error.message);
}

/// Each sentence becomes two tests: on the node, and through gRPC.
macro_rules! contract {
    ($($sentence:ident),* $(,)?) => {
        mod on_the_node {
            $(#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
            async fn $sentence() {
                super::$sentence(false).await;
            })*
        }
        mod over_grpc {
            $(#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
            async fn $sentence() {
                super::$sentence(true).await;
            })*
        }
    };
}

contract! {
    a_new_node_belongs_to_nobody,
    an_attached_node_stays_with_its_cluster,
    one_phase_commit_makes_rows_countable,
    a_prepared_transaction_waits_for_its_decision,
    an_aborted_transaction_leaves_nothing,
    a_first_block_that_comes_twice_counts_once,
    verbs_may_be_repeated,
    an_unknown_transaction_can_never_commit,
    an_older_epoch_is_refused,
    who_obeys_a_new_coordinator_forgets_and_refuses_the_old_one,
    a_transaction_of_another_cluster_is_refused,
    damaged_rows_are_refused,
    dropped_chunks_are_gone,
    chunks_are_sealed_in_the_order_that_is_asked_for,
    removed_rows_are_gone_with_the_commit,
    a_row_is_removed_once,
    a_removal_waits_for_another_of_the_same_row,
    addresses_of_nothing_are_refused,
    a_key_is_there_once,
    prepared_transactions_survive_a_restart_and_staged_ones_do_not,
    a_discarded_part_leaves_nothing,
    a_part_that_failed_can_be_discarded,
    a_node_that_does_not_know_a_transaction_cannot_discard_of_it,
}

async fn a_new_node_belongs_to_nobody(over_grpc: bool) {
    let subject = Subject::open(over_grpc).await;
    let status = subject.node.hello().await.unwrap();
    assert_eq!((status.protocol, status.identity, status.in_doubt), (PROTOCOL, None, vec![]));
    assert_eq!(status.commit_seq_max, CommitSeq::ZERO);
    assert!(subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 1)]).await.is_err(), "rows of no cluster");
}

async fn an_attached_node_stays_with_its_cluster(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    subject.node.attach(identity("dn1")).await.unwrap();
    assert_code(subject.node.attach(identity("dn2")).await, SqlState::DATA_NODE_ASSIGNMENT);
    let stranger = NodeIdentity { cluster: ClusterId([8; 16]), name: "dn1".into() };
    assert_code(subject.node.attach(stranger).await, SqlState::DATA_NODE_ASSIGNMENT);
    let (status, again) = (subject.node.hello().await.unwrap(), subject.node.hello().await.unwrap());
    assert_eq!(status.identity, Some(identity("dn1")));
    assert_eq!(status.incarnation, again.incarnation);
}

async fn one_phase_commit_makes_rows_countable(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10), write(2, 5)]).await.unwrap();
    subject.node.stage(txn(1), SubTxn::FIRST, true, vec![write(1, 7)]).await.unwrap();
    assert_eq!(subject.node.outcome(txn(1)).await.unwrap(), TxnOutcome::Staged);
    assert_eq!(subject.rows(1).await.unwrap_or(0), 0, "not before the commit");
    subject.node.commit(txn(1), CommitSeq(5), CommitMode::OnePhase).await.unwrap();
    assert_eq!(subject.node.outcome(txn(1)).await.unwrap(), TxnOutcome::Committed(CommitSeq(5)));
    assert_eq!((subject.rows(1).await, subject.rows(2).await, subject.rows(3).await), (Some(17), Some(5), None));
    assert_eq!(subject.node.hello().await.unwrap().commit_seq_max, CommitSeq(5));
}

async fn a_prepared_transaction_waits_for_its_decision(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    subject.node.prepare(txn(1)).await.unwrap();
    assert_eq!(subject.node.outcome(txn(1)).await.unwrap(), TxnOutcome::Prepared);
    assert_eq!(subject.node.hello().await.unwrap().in_doubt, vec![txn(1)]);
    subject.node.commit(txn(1), CommitSeq(2), CommitMode::Prepared).await.unwrap();
    assert_eq!(subject.node.hello().await.unwrap().in_doubt, vec![]);
    assert_eq!(subject.rows(1).await, Some(10));
}

async fn an_aborted_transaction_leaves_nothing(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    subject.node.abort(txn(1)).await.unwrap();
    subject.node.stage(txn(2), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    subject.node.prepare(txn(2)).await.unwrap();
    subject.node.abort(txn(2)).await.unwrap();
    assert_eq!(subject.rows(1).await.unwrap_or(0), 0);
    for number in [1, 2] {
        assert_eq!(subject.node.outcome(txn(number)).await.unwrap(), TxnOutcome::Unknown);
    }
    assert_eq!(subject.node.hello().await.unwrap().in_doubt, vec![]);
}

async fn a_first_block_that_comes_twice_counts_once(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    assert_code(
        subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10)]).await,
        SqlState::SERIALIZATION_FAILURE,
    );
    subject.node.stage(txn(1), SubTxn::FIRST, true, vec![write(1, 5)]).await.unwrap();
    subject.node.commit(txn(1), CommitSeq(2), CommitMode::OnePhase).await.unwrap();
    assert_eq!(subject.rows(1).await, Some(15));
}

async fn verbs_may_be_repeated(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    subject.node.abort(txn(9)).await.unwrap();
    subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    subject.node.prepare(txn(1)).await.unwrap();
    subject.node.prepare(txn(1)).await.unwrap();
    for _ in 0..3 {
        subject.node.commit(txn(1), CommitSeq(2), CommitMode::Prepared).await.unwrap();
    }
    assert_eq!(subject.rows(1).await, Some(10), "committed once, however often it was said");
}

async fn an_unknown_transaction_can_never_commit(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    assert_eq!(subject.node.outcome(txn(1)).await.unwrap(), TxnOutcome::Unknown);
    assert!(subject.node.prepare(txn(1)).await.is_err());
    assert!(subject.node.commit(txn(1), CommitSeq(1), CommitMode::OnePhase).await.is_err());
    let refused = subject.node.commit(txn(1), CommitSeq(1), CommitMode::Prepared).await.expect_err("never staged");
    assert_ne!(refused.reaction, Reaction::Resolve, "the node did answer: {}", refused.message);
}

async fn an_older_epoch_is_refused(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    subject.node.stage(txn_of_epoch(3, 1), SubTxn::FIRST, false, vec![write(1, 1)]).await.unwrap();
    assert_eq!(subject.node.hello().await.unwrap().epoch_max, 3);
    assert!(subject.node.stage(txn_of_epoch(2, 9), SubTxn::FIRST, false, vec![write(1, 1)]).await.is_err());
}

async fn who_obeys_a_new_coordinator_forgets_and_refuses_the_old_one(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    let (open, voted) = (txn_of_epoch(2, 1), txn_of_epoch(2, 2));
    subject.node.stage(open, SubTxn::FIRST, false, vec![write(1, 1)]).await.unwrap();
    subject.node.stage(voted, SubTxn::FIRST, false, vec![write(1, 2)]).await.unwrap();
    subject.node.prepare(voted).await.unwrap();
    subject.node.obey(CLUSTER, 3).await.unwrap();
    subject.node.obey(CLUSTER, 3).await.unwrap();
    let status = subject.node.hello().await.unwrap();
    assert_eq!((status.epoch_max, status.in_doubt), (3, vec![voted]), "a vote is kept, whoever leads");
    assert_eq!(subject.node.outcome(open).await.unwrap(), TxnOutcome::Unknown);
    let refused = [
        subject.node.obey(CLUSTER, 2).await.err(),
        subject.node.stage(txn_of_epoch(2, 3), SubTxn::FIRST, false, vec![write(1, 1)]).await.err(),
        subject.node.execute(fragment(CommitSeq::before(2))).await.err(),
    ];
    for error in refused {
        assert_eq!(error.expect("it comes from a coordinator that was replaced").code, SqlState::ADMIN_SHUTDOWN);
    }
    assert!(subject.node.commit(open, CommitSeq(5), CommitMode::OnePhase).await.is_err(), "too late");
    subject.node.execute(fragment(CommitSeq::before(3))).await.map(drop).unwrap();
    subject.node.commit(voted, CommitSeq::before(3), CommitMode::Prepared).await.unwrap();
    assert!(subject.node.obey(ClusterId([9; 16]), 9).await.is_err(), "a coordinator of another cluster");
}

async fn a_transaction_of_another_cluster_is_refused(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    let stranger = TxnId { cluster: ClusterId([9; 16]), epoch: 1, number: 1 };
    assert!(subject.node.stage(stranger, SubTxn::FIRST, false, vec![write(1, 1)]).await.is_err());
}

async fn damaged_rows_are_refused(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    let mut cut = write(1, 100);
    cut.body = cut.body.slice(..cut.body.len() / 2);
    assert!(subject.node.stage(txn(1), SubTxn::FIRST, false, vec![cut]).await.is_err());
    subject.node.abort(txn(1)).await.unwrap();
    subject.node.stage(txn(2), SubTxn::FIRST, false, vec![write(1, 100)]).await.unwrap();
    subject.node.commit(txn(2), CommitSeq(1), CommitMode::OnePhase).await.unwrap();
    assert_eq!(subject.rows(1).await, Some(100));
}

async fn dropped_chunks_are_gone(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10), write(2, 10)]).await.unwrap();
    subject.node.commit(txn(1), CommitSeq(1), CommitMode::OnePhase).await.unwrap();
    for _ in 0..2 {
        subject.node.drop_chunks(vec![ChunkId(1), ChunkId(77)]).await.unwrap();
    }
    assert_eq!((subject.rows(1).await, subject.rows(2).await), (None, Some(10)));
}

async fn chunks_are_sealed_in_the_order_that_is_asked_for(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    subject.node.commit(txn(1), CommitSeq(1), CommitMode::OnePhase).await.unwrap();
    for (sort, order) in [(vec![ColumnId(1)], "time"), (vec![ColumnId(2), ColumnId(1)], "v, time")] {
        let layout = ChunkLayout { sort, ..write(1, 0).layout };
        subject.node.seal_chunks(vec![ChunkId(1), ChunkId(77)], layout).await.unwrap();
        let dir = Path::new("/node/segments");
        let files = subject.vfs.list(dir).unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        let shown = storage::dump_segment(&subject.vfs, &dir.join(&files[0])).unwrap();
        assert!(shown.contains(&format!("sorted by: {order}\n")), "{shown}");
        assert_eq!(subject.rows(1).await, Some(10));
    }
}

/// Ten rows in a segment: the first one of a store, so that their addresses are known here.
async fn sealed(over_grpc: bool) -> Subject {
    let subject = Subject::attached(over_grpc).await;
    subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    subject.node.commit(txn(1), CommitSeq(1), CommitMode::OnePhase).await.unwrap();
    let vfs = subject.vfs.clone();
    vfs.kill_process();
    let (clock, rng, options) = (Arc::new(SystemClock::new()), Arc::new(SystemRng), StoreOptions::default());
    let store = Store::open(Arc::new(vfs.clone()), clock, rng, Path::new("/node"), options).unwrap();
    assert!(store.seal(ChunkId(1)).unwrap());
    store.close().unwrap();
    drop(store);
    Subject::open_on(vfs, over_grpc).await
}

/// Removes rows of the sealed chunk.
fn removal(part: i64, rows: &[i64]) -> ChunkWrite {
    let field = |id: ColumnId, name: &str| {
        Field::new(name, DataType::Int64, false).with_metadata([(FIELD_ID.to_owned(), id.to_string())].into())
    };
    let schema = Schema::new(vec![field(ColumnId::PART, "part"), field(ColumnId::ROW, "row")]);
    let parts: ArrayRef = Arc::new(Int64Array::from(vec![part; rows.len()]));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![parts, Arc::new(Int64Array::from(rows.to_vec()))]);
    ChunkWrite { kind: WriteKind::Delete, body: ipc::encode_body(&batch.unwrap()).unwrap(), ..write(1, 0) }
}

async fn removed_rows_are_gone_with_the_commit(over_grpc: bool) {
    let subject = sealed(over_grpc).await;
    subject.node.stage(txn(2), SubTxn::FIRST, false, vec![removal(1, &[0, 3]), write(1, 1)]).await.unwrap();
    assert_eq!(subject.rows(1).await, Some(10), "not before the commit");
    subject.node.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).await.unwrap();
    assert_eq!(subject.rows(1).await, Some(9), "two of ten are gone, and one came");
    subject.node.stage(txn(3), SubTxn::FIRST, false, vec![removal(1, &[4])]).await.unwrap();
    subject.node.prepare(txn(3)).await.unwrap();
    subject.vfs.restart();
    let subject = Subject::open_on(subject.vfs.clone(), subject.over_grpc).await;
    assert_eq!(subject.rows(1).await, Some(9));
    subject.node.commit(txn(3), CommitSeq(3), CommitMode::Prepared).await.unwrap();
    assert_eq!(subject.rows(1).await, Some(8));
}

async fn a_row_is_removed_once(over_grpc: bool) {
    let subject = sealed(over_grpc).await;
    subject.node.stage(txn(2), SubTxn::FIRST, false, vec![removal(1, &[5])]).await.unwrap();
    subject.node.commit(txn(2), CommitSeq(2), CommitMode::OnePhase).await.unwrap();
    let again = subject.node.stage(txn(3), SubTxn::FIRST, false, vec![removal(1, &[4, 5])]).await;
    assert_code(again, SqlState::SERIALIZATION_FAILURE);
    assert!(subject.node.commit(txn(3), CommitSeq(3), CommitMode::OnePhase).await.is_err(), "it lacks a change");
    subject.node.abort(txn(3)).await.unwrap();
    assert_eq!(subject.rows(1).await, Some(9));
}

async fn a_removal_waits_for_another_of_the_same_row(over_grpc: bool) {
    let subject = sealed(over_grpc).await;
    subject.node.stage(txn(2), SubTxn::FIRST, false, vec![removal(1, &[5])]).await.unwrap();
    let node = subject.node.clone();
    let waiting = tokio::spawn(async move { node.stage(txn(3), SubTxn::FIRST, false, vec![removal(1, &[5])]).await });
    subject.node.stage(txn(4), SubTxn::FIRST, false, vec![removal(1, &[6])]).await.unwrap();
    subject.node.abort(txn(2)).await.unwrap();
    waiting.await.unwrap().unwrap();
    subject.node.commit(txn(3), CommitSeq(2), CommitMode::OnePhase).await.unwrap();
    assert_eq!(subject.rows(1).await, Some(9));
}

async fn addresses_of_nothing_are_refused(over_grpc: bool) {
    let subject = sealed(over_grpc).await;
    assert_code(
        subject.node.stage(txn(2), SubTxn::FIRST, false, vec![removal(77, &[0])]).await,
        SqlState::SERIALIZATION_FAILURE,
    );
    assert!(
        subject.node.stage(txn(3), SubTxn::FIRST, false, vec![removal(1, &[10])]).await.is_err(),
        "it has ten rows"
    );
    let rows = ChunkWrite { kind: WriteKind::Delete, ..write(1, 3) };
    assert!(subject.node.stage(txn(4), SubTxn::FIRST, false, vec![rows]).await.is_err(), "rows are no addresses");
    assert_eq!(subject.rows(1).await, Some(10));
}

async fn a_key_is_there_once(over_grpc: bool) {
    let subject = sealed(over_grpc).await;
    let keyed = |count: i64| {
        let mut write = write(1, count);
        write.layout.keys = vec![UniqueKey { name: "t_pkey".into(), columns: vec![ColumnId(1)] }];
        write
    };
    let refused = subject.node.stage(txn(2), SubTxn::FIRST, false, vec![keyed(1)]).await.unwrap_err();
    assert_eq!((refused.code, refused.reaction), (SqlState::UNIQUE_VIOLATION, Reaction::Report));
    assert_eq!(refused.message, "duplicate key value violates unique constraint \"t_pkey\"");
    assert_eq!(refused.detail.as_deref(), Some("Key (time)=(1970-01-01 00:00:00+00) already exists."));
    subject.node.abort(txn(2)).await.unwrap();
    subject.node.stage(txn(3), SubTxn::FIRST, false, vec![removal(1, &[0]), keyed(1)]).await.unwrap();
    subject.node.commit(txn(3), CommitSeq(3), CommitMode::OnePhase).await.unwrap();
    assert_eq!(subject.rows(1).await, Some(10), "one went, one came");
}

async fn prepared_transactions_survive_a_restart_and_staged_ones_do_not(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    let incarnation = subject.node.hello().await.unwrap().incarnation;
    subject.node.stage(txn(1), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    subject.node.commit(txn(1), CommitSeq(1), CommitMode::OnePhase).await.unwrap();
    subject.node.stage(txn(2), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    subject.node.prepare(txn(2)).await.unwrap();
    subject.node.stage(txn(3), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();

    // What a power cut at this moment leaves on the disk.
    subject.vfs.restart();
    let subject = Subject::open_on(subject.vfs.clone(), subject.over_grpc).await;
    let status = subject.node.hello().await.unwrap();
    assert_eq!((status.identity, status.incarnation), (Some(identity("dn1")), incarnation));
    assert_eq!(status.in_doubt, vec![txn(2)]);
    assert_eq!(subject.node.outcome(txn(1)).await.unwrap(), TxnOutcome::Committed(CommitSeq(1)));
    assert_eq!(subject.node.outcome(txn(3)).await.unwrap(), TxnOutcome::Unknown);
    subject.node.commit(txn(2), CommitSeq(2), CommitMode::Prepared).await.unwrap();
    assert_eq!(subject.rows(1).await, Some(20));
}

async fn a_discarded_part_leaves_nothing(over_grpc: bool) {
    let subject = sealed(over_grpc).await;
    let later = SubTxn(1)..SubTxn(3);
    subject.node.stage(txn(2), SubTxn::FIRST, false, vec![write(1, 1)]).await.unwrap();
    subject.node.stage(txn(2), SubTxn(1), true, vec![removal(1, &[4]), write(2, 5)]).await.unwrap();
    subject.node.stage(txn(2), SubTxn(2), true, vec![removal(1, &[5]), write(1, 7)]).await.unwrap();
    for _ in 0..2 {
        subject.node.discard(txn(2), later.clone()).await.unwrap();
    }
    assert_eq!(subject.node.outcome(txn(2)).await.unwrap(), TxnOutcome::Staged);
    assert!(subject.node.stage(txn(2), SubTxn(2), true, vec![write(1, 7)]).await.is_err(), "its number is gone");
    subject.node.stage(txn(3), SubTxn::FIRST, false, vec![removal(1, &[4])]).await.unwrap();
    subject.node.abort(txn(3)).await.unwrap();
    subject.node.stage(txn(2), SubTxn(3), true, vec![removal(1, &[6])]).await.unwrap();
    subject.node.prepare(txn(2)).await.unwrap();
    assert!(subject.node.discard(txn(2), SubTxn(3)..SubTxn(4)).await.is_err(), "it has voted");
    subject.vfs.restart();
    let subject = Subject::open_on(subject.vfs.clone(), subject.over_grpc).await;
    subject.node.commit(txn(2), CommitSeq(2), CommitMode::Prepared).await.unwrap();
    assert_eq!((subject.rows(1).await, subject.rows(2).await), (Some(10), None), "one went, one came");
}

async fn a_part_that_failed_can_be_discarded(over_grpc: bool) {
    let subject = sealed(over_grpc).await;
    let gone = || vec![removal(77, &[0])];
    for (number, begun) in [(2, false), (3, true)] {
        if begun {
            subject.node.stage(txn(number), SubTxn::FIRST, false, vec![write(1, 1)]).await.unwrap();
        }
        let failed = subject.node.stage(txn(number), SubTxn(1), begun, gone()).await;
        assert_code(failed, SqlState::SERIALIZATION_FAILURE);
        assert!(
            subject.node.stage(txn(number), SubTxn(1), true, vec![write(1, 1)]).await.is_err(),
            "it lacks a change"
        );
        subject.node.discard(txn(number), SubTxn(1)..SubTxn(2)).await.unwrap();
        subject.node.stage(txn(number), SubTxn(2), begun, vec![write(1, 2)]).await.unwrap();
        subject.node.commit(txn(number), CommitSeq(number), CommitMode::OnePhase).await.unwrap();
    }
    assert_eq!(subject.rows(1).await, Some(15));
}

async fn a_node_that_does_not_know_a_transaction_cannot_discard_of_it(over_grpc: bool) {
    let subject = Subject::attached(over_grpc).await;
    assert_code(subject.node.discard(txn(1), SubTxn(1)..SubTxn(2)).await, SqlState::SERIALIZATION_FAILURE);
    subject.node.stage(txn(2), SubTxn::FIRST, false, vec![write(1, 10)]).await.unwrap();
    subject.vfs.restart();
    let subject = Subject::open_on(subject.vfs.clone(), subject.over_grpc).await;
    let refused = subject.node.discard(txn(2), SubTxn(1)..SubTxn(2)).await.expect_err("its beginning is lost");
    assert_eq!((refused.code, refused.reaction), (SqlState::SERIALIZATION_FAILURE, Reaction::Abort));
}
