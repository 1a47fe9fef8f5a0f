//! What a catalog accepts, refuses and remembers.

use super::*;
use engine::{
    ChunkDef, ColumnDef, Compression, Hypertable, KeyDef, KeyKind, Ordering, PgType, SpaceDimension, TableDef,
};
use proto::{ChunkId, ClusterId, ColumnId, CommitSeq, NodeName, SlotSet, SqlState, TableId, TimeRange, TimeSlicing};
use std::collections::BTreeSet;
use std::sync::Arc;

const WEEK_US: i64 = 7 * 24 * 3600 * 1_000_000;

/// The tutorial's table, split over `nodes`.
pub(crate) fn conditions(oid: u32, nodes: &[&str]) -> TableDef {
    let column = |id, name: &str, ty, nullable| ColumnDef {
        id: ColumnId(id),
        name: name.to_owned(),
        ty,
        nullable,
        default: None,
        missing: None,
        comment: None,
    };
    TableDef {
        id: TableId(oid),
        database: "postgres".to_owned(),
        schema: "public".to_owned(),
        name: "conditions".to_owned(),
        owner: "postgres".to_owned(),
        columns: vec![
            column(1, "time", PgType::Timestamptz, false),
            column(2, "device", PgType::Int4, true),
            column(3, "temp", PgType::Float8, true),
        ],
        next_column: ColumnId(4),
        hypertable: Some(Hypertable {
            id: 1,
            time_column: ColumnId(1),
            slicing: TimeSlicing::new(WEEK_US).unwrap(),
            space: Some(SpaceDimension { column: ColumnId(2), partitions: nodes.len() as u16 }),
            distributed: true,
            replication_factor: 1,
            data_nodes: nodes.iter().map(|name| NodeName::from(*name)).collect(),
            chunk_schema: "_timescaledb_internal".to_owned(),
            chunk_prefix: "_dist_hyper_1".to_owned(),
            default_indexes: true,
            compression: None,
        }),
        keys: Vec::new(),
        comment: None,
    }
}

fn node(name: &str) -> NodeDef {
    NodeDef {
        oid: 16_384,
        name: name.into(),
        owner: "postgres".to_owned(),
        host: "localhost".to_owned(),
        port: 5435,
        database: "postgres".to_owned(),
        incarnation: 1,
        available: true,
        usage: BTreeSet::new(),
    }
}

fn chunk(id: u32, start: i64, partition: usize) -> Arc<ChunkDef> {
    Arc::new(ChunkDef {
        id: ChunkId(id),
        table: TableId(20_000),
        time: TimeRange::new(start, start + WEEK_US).unwrap(),
        slots: SlotSet::partition(partition, 2),
        nodes: vec!["dn1".into()],
        epoch: 1,
        created_us: 0,
        compressed: false,
    })
}

fn view(oid: u32, name: &str, depends_on: &[u32]) -> ViewDef {
    ViewDef {
        id: TableId(oid),
        database: "postgres".to_owned(),
        schema: "public".to_owned(),
        name: name.to_owned(),
        owner: "postgres".to_owned(),
        sql: "SELECT 1".to_owned(),
        bound: "SELECT 1".to_owned(),
        columns: Vec::new(),
        reads: depends_on.iter().map(|oid| (TableId(*oid), Vec::new())).collect(),
        comment: None,
    }
}

fn empty() -> CatalogState {
    CatalogState::new(ClusterId([1; 16]))
}

/// Nodes `dn1`, role `alice`, the tutorial's table with two chunks, a view on it.
fn some_changes() -> Vec<CatalogChange> {
    use CatalogChange as C;
    vec![
        C::AddNode(node("dn1")),
        C::CreateRole(Role { login: true, ..Role::new(16_390, "alice") }),
        C::AlterRole {
            name: "alice".to_owned(),
            alteration: RoleAlteration { verifier: Some(Some("SCRAM".to_owned())), ..RoleAlteration::default() },
        },
        C::GrantNode { name: "dn1".into(), grantee: Grantee::Role("alice".to_owned()) },
        C::CreateDatabase(Database::new(16_400, "metrics", "alice")),
        C::CreateExtension {
            database: "metrics".to_owned(),
            name: "timescaledb".to_owned(),
            extension: Extension { oid: 16_401, version: "2.13.1".to_owned(), schema: "public".to_owned() },
        },
        C::SetSetting {
            scope: SettingScope::RoleInDatabase { role: "alice".to_owned(), database: "metrics".to_owned() },
            name: "timezone".to_owned(),
            value: Some("UTC".to_owned()),
        },
        C::CreateTable(conditions(20_000, &["dn1"])),
        C::AddChunk(chunk(1, 0, 0)),
        C::AddChunk(chunk(2, 0, 1)),
        C::CreateView(view(20_010, "hot", &[20_000])),
        C::Grant { relation: TableId(20_000), grantee: Grantee::Public, privilege: Privilege::Select },
        C::SetComment { target: CommentTarget::Relation(TableId(20_000)), text: Some("readings".to_owned()) },
        C::SetCompression { table: TableId(20_000), compression: Some(by_temp()) },
        C::MarkChunk { table: TableId(20_000), chunk: ChunkId(2), compressed: true },
        C::AddJob(retention(1003)),
        C::RecordRuns { job: 1003, runs: runs(2) },
        C::DropChunk { table: TableId(20_000), chunk: ChunkId(1) },
    ]
}

fn by_temp() -> Compression {
    let by_time = Ordering { column: ColumnId(1), descending: true, nulls_first: true };
    Compression { segment_by: vec![ColumnId(3)], order_by: vec![by_time] }
}

fn retention(id: u32) -> Job {
    Job {
        id,
        table: TableId(20_000),
        action: Action::Retention(Age::OfRows(Span { months: 1, ..Span::default() })),
        schedule_interval: Span { days: 1, ..Span::default() },
        max_runtime: Span::default(),
        max_retries: -1,
        retry_period: Span::of_micros(300_000_000),
        scheduled: true,
        fixed_schedule: false,
        initial_start_us: None,
        time_zone: None,
        next_start_us: Some(7),
    }
}

/// Of which one failed.
fn runs(count: u64) -> JobRuns {
    JobRuns {
        last_start_us: Some(80),
        last_success_us: Some(90),
        last_succeeded: Some(true),
        last_duration_us: Some(10),
        successes_count: count - 1,
        failures_count: 1,
        failures_in_a_row: 0,
        next_start_us: Some(190),
        follows_us: Some(7),
    }
}

#[test]
fn replay_gives_the_same_state_through_json() {
    let changes = some_changes();
    let mut direct = empty();
    direct.apply_commit(CommitSeq(7), &changes).unwrap();
    let json = serde_json::to_string(&changes).unwrap();
    let mut replayed = empty();
    replayed.apply_commit(CommitSeq(7), &serde_json::from_str::<Vec<CatalogChange>>(&json).unwrap()).unwrap();
    assert_eq!(replayed, direct);
    let snapshot: CatalogState = serde_json::from_str(&serde_json::to_string(&direct).unwrap()).unwrap();
    assert_eq!(snapshot, direct);
    assert_eq!(direct.next_oid(), 20_011);
    assert_eq!((direct.next_chunk(), direct.next_hypertable(), direct.next_job()), (3, 2, 1004));
}

/// Texts as PostgreSQL 15 and TimescaleDB 2.13.1 print them.
#[test]
fn refusals_speak_postgres_and_leave_no_trace() {
    use CatalogChange as C;
    let mut state = empty();
    state.apply_commit(CommitSeq(1), &some_changes()).unwrap();
    let before = state.clone();
    let table = TableId(20_000);
    let twice = ColumnDef { id: ColumnId(9), ..conditions(1, &[]).columns[1].clone() };
    let cases: Vec<(C, &str, &str)> = vec![
        (C::CreateTable(conditions(20_050, &["dn1"])), "42P07", "relation \"conditions\" already exists"),
        (C::CreateView(view(20_051, "hot", &[])), "42P07", "relation \"hot\" already exists"),
        (
            C::CreateDatabase(Database::new(20_052, "metrics", "postgres")),
            "42P04",
            "database \"metrics\" already exists",
        ),
        (C::DropDatabase("nope".to_owned()), "3D000", "database \"nope\" does not exist"),
        (C::CreateRole(Role::new(20_053, "alice")), "42710", "role \"alice\" already exists"),
        (C::DropRole("bob".to_owned()), "42704", "role \"bob\" does not exist"),
        (
            C::DropRole("alice".to_owned()),
            "2BP01",
            "role \"alice\" cannot be dropped because some objects depend on it",
        ),
        (C::AddNode(node("dn1")), "42710", "server \"dn1\" already exists"),
        (C::DropNode("dn9".into()), "42704", "server \"dn9\" does not exist"),
        (
            C::DropNode("dn1".into()),
            "TS504",
            "data node \"dn1\" still holds data for distributed hypertable \"conditions\"",
        ),
        (C::AddColumn { table, column: twice }, "42701", "column \"device\" of relation \"conditions\" already exists"),
        (C::DropColumn { table, column: ColumnId(1) }, "0A000", "cannot drop column named in partition key: \"time\""),
        (
            C::DropColumn { table, column: ColumnId(3) },
            "0A000",
            "cannot drop orderby or segmentby column from a hypertable with compression enabled",
        ),
        (
            C::SetCompression { table, compression: None },
            "0A000",
            "cannot disable compression on hypertable with compressed chunks",
        ),
        (C::DropJob(7), "42704", "job 7 not found"),
        (C::AlterJob(retention(7)), "42704", "job 7 not found"),
        (
            C::AddJob(retention(1004)),
            "40001",
            "could not serialize access: the set of policies was changed by another transaction",
        ),
        (C::SetSchema { relation: table, schema: "nope".to_owned() }, "3F000", "schema \"nope\" does not exist"),
        (C::DropTable(table), "2BP01", "cannot drop table conditions because other objects depend on it"),
        (
            C::MakeHypertable { table, hypertable: conditions(1, &[]).hypertable.unwrap() },
            "TS110",
            "table \"conditions\" is already a hypertable",
        ),
    ];
    for (change, code, text) in cases {
        let error = state.apply(&change).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (SqlState::new(code), text));
        assert_eq!(state, before, "{change:?} left a trace");
    }
    // One bad change takes the whole commit with it.
    let mixed = [C::CreateRole(Role::new(20_060, "carol")), C::DropTable(TableId(1))];
    assert_eq!(state.apply_commit(CommitSeq(9), &mixed).unwrap_err().code, SqlState::UNDEFINED_TABLE);
    assert_eq!(state, before);
}

#[test]
fn dropped_chunks_are_garbage_until_the_node_removed_them() {
    let mut state = empty();
    state.apply_commit(CommitSeq(3), &some_changes()).unwrap();
    state.apply_commit(CommitSeq(4), &[CatalogChange::Truncate(TableId(20_000))]).unwrap();
    let of_node = state.garbage().get(&NodeName::from("dn1")).unwrap();
    assert_eq!(of_node.iter().map(|(id, seq)| (id.0, seq.0)).collect::<Vec<_>>(), [(1, 3), (2, 4)]);
    let forget = CatalogChange::ForgetGarbage { node: "dn1".into(), chunks: vec![ChunkId(1), ChunkId(2)] };
    state.apply_commit(CommitSeq(5), &[forget]).unwrap();
    assert!(state.garbage().is_empty());
}

#[test]
fn rights_come_from_ownership_grants_and_membership() {
    let mut state = empty();
    state.apply_commit(CommitSeq(1), &some_changes()).unwrap();
    let table = TableId(20_000);
    let change = |state: &mut CatalogState, change| state.apply(&change).unwrap();
    change(&mut state, CatalogChange::CreateRole(Role::new(20_100, "readers")));
    change(&mut state, CatalogChange::GrantRole { role: "readers".to_owned(), member: "alice".to_owned() });
    assert!(state.may("alice", table, Privilege::Select) && !state.may("alice", table, Privilege::Insert));
    let grantee = Grantee::Role("readers".to_owned());
    change(&mut state, CatalogChange::Grant { relation: table, grantee, privilege: Privilege::Insert });
    assert!(state.may("alice", table, Privilege::Insert));
    assert!(state.may("postgres", table, Privilege::Delete));
    assert!(state.may_use_node("alice", state.node(&"dn1".into()).unwrap()));
    let circle = CatalogChange::GrantRole { role: "alice".to_owned(), member: "readers".to_owned() };
    assert_eq!(state.apply(&circle).unwrap_err().code, SqlState::new("0LP01"));
}

#[test]
fn an_index_finds_what_a_walk_over_all_chunks_finds() {
    let mut index = ChunkIndex::default();
    // A gap between the second and the third slice; partition 1 of the third is missing.
    let chunks = [chunk(1, 0, 0), chunk(2, 0, 1), chunk(4, WEEK_US, 1), chunk(3, WEEK_US, 0), chunk(5, 5 * WEEK_US, 0)];
    chunks.iter().for_each(|chunk| index.insert(Arc::clone(chunk)));
    index.insert(Arc::clone(&chunks[0]));
    assert_eq!(index.len(), 5);
    for time in (-2..13).map(|half| half * WEEK_US / 2) {
        for slot in [0, 127, 128, 255] {
            let naive = chunks.iter().find(|chunk| chunk.time.contains(time) && chunk.slots.contains(slot));
            assert_eq!(index.find(time, slot), naive, "time {time} slot {slot}");
        }
    }
    let wide = TimeRange::new(WEEK_US, 9 * WEEK_US).unwrap();
    assert_eq!(index.free_around(3 * WEEK_US, wide), TimeRange::new(2 * WEEK_US, 5 * WEEK_US).unwrap());
    assert!(index.conflict(&chunk(9, 5 * WEEK_US, 0)).is_some(), "slots");
    assert!(index.conflict(&chunk(9, 5 * WEEK_US, 1)).is_none());
    assert!(index.conflict(&chunk(9, WEEK_US / 2, 1)).is_some(), "time");
    assert_eq!(index.remove(ChunkId(3)).map(|chunk| chunk.id), Some(ChunkId(3)));
    assert!(index.find(WEEK_US, 0).is_none() && index.find(WEEK_US, 200).is_some());
}

#[test]
fn keys_share_the_name_space_of_relations_and_need_the_partitioning_columns() {
    let mut state = empty();
    state.apply_commit(CommitSeq(1), &some_changes()).unwrap();
    let table = TableId(20_000);
    let key = |name: &str, kind, columns: &[u32]| CatalogChange::AddKey {
        table,
        key: KeyDef {
            oid: 30_000,
            name: name.to_owned(),
            kind,
            columns: columns.iter().map(|id| ColumnId(*id)).collect(),
        },
    };
    let refused = |state: &mut CatalogState, change| state.apply(&change).unwrap_err();
    state.apply(&CatalogChange::DropChunk { table, chunk: ChunkId(2) }).unwrap();
    let error = refused(&mut state, key("k", KeyKind::Unique, &[2]));
    assert_eq!(error.code, SqlState::BAD_HYPERTABLE_INDEX);
    assert_eq!(error.message, "cannot create a unique index without the column \"time\" (used in partitioning)");
    assert_eq!(refused(&mut state, key("conditions", KeyKind::Unique, &[1, 2])).code, SqlState::DUPLICATE_TABLE);
    state.apply(&key("k", KeyKind::Primary, &[2, 1])).unwrap();
    assert!(!state.table_by_id(table).unwrap().column("device").unwrap().nullable);
    assert_eq!(refused(&mut state, key("k", KeyKind::Unique, &[1, 2])).code, SqlState::DUPLICATE_TABLE);
    assert_eq!(refused(&mut state, key("k2", KeyKind::Primary, &[1, 2])).code, SqlState::INVALID_TABLE_DEFINITION);
    let rename = CatalogChange::RenameRelation { relation: table, name: "k".to_owned() };
    assert_eq!(refused(&mut state, rename).code, SqlState::DUPLICATE_TABLE);
    assert!(state.next_oid() > 30_000);
    state.apply(&CatalogChange::DropKey { table, key: "k".to_owned() }).unwrap();
    state.apply(&CatalogChange::AddChunk(chunk(3, 0, 0))).unwrap();
    assert_eq!(refused(&mut state, key("k", KeyKind::Unique, &[1, 2])).code, SqlState::FEATURE_NOT_SUPPORTED);
}

#[test]
fn segments_are_ordered_by_compression_and_jobs_go_with_their_table() {
    let mut state = empty();
    state.apply_commit(CommitSeq(1), &some_changes()).unwrap();
    let table = state.table_by_id(TableId(20_000)).unwrap();
    assert_eq!(table.layout().sort, [ColumnId(3), ColumnId(1)]);
    assert_eq!(state.job(1003).unwrap().config(1), "{\"drop_after\": \"1 mon\", \"hypertable_id\": 1}");
    let compressed = state.chunks(table.id).iter().map(|chunk| (chunk.id.0, chunk.compressed)).collect::<Vec<_>>();
    assert_eq!(compressed, [(2, true)]);
    let changes = [CatalogChange::DropView(TableId(20_010)), CatalogChange::DropTable(TableId(20_000))];
    state.apply_commit(CommitSeq(2), &changes).unwrap();
    assert_eq!((state.jobs().count(), state.next_job()), (0, 1004));
    assert!(state.job_runs().is_empty());
}

#[test]
fn a_record_of_runs_never_takes_one_back_and_none_is_kept_of_a_job_that_is_gone() {
    let mut state = empty();
    state.apply_commit(CommitSeq(1), &some_changes()).unwrap();
    let record = |job, runs| CatalogChange::RecordRuns { job, runs };
    let failed = JobRuns { last_succeeded: Some(false), ..runs(4) };
    for (recorded, expected) in [(runs(3), runs(3)), (runs(2), runs(3)), (failed.clone(), failed)] {
        state.apply(&record(1003, recorded)).unwrap();
        assert_eq!(state.job_runs().get(&1003), Some(&expected));
    }
    state.apply(&CatalogChange::DropJob(1003)).unwrap();
    state.apply(&record(1003, runs(5))).unwrap();
    assert!(state.job_runs().is_empty());
}
