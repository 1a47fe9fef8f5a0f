//! The tutorial, statement by statement, in the words of its beta and in those of the releases that followed. Expected
//! values: what TimescaleDB 2.13.1 printed for it.

use crate::cluster::{Cluster, Session, Shape, connect};

/// The statements that name things differently in the two.
struct Names {
    data_nodes: &'static str,
    distributed_exec: &'static str,
    hypertables: &'static str,
    distributed_flag: &'static str,
    sizes: &'static str,
}

const BETA: Names = Names {
    data_nodes: "SELECT * FROM timescaledb_information.data_node;",
    distributed_exec: "SELECT * FROM distributed_exec($$ CREATE ROLE testuser WITH LOGIN PASSWORD 'testpass' $$);",
    hypertables: "SELECT * FROM timescaledb_information.hypertable;",
    distributed_flag: "distributed",
    sizes: "SELECT * FROM hypertable_data_node_relation_size('conditions');",
};

const FINAL: Names = Names {
    data_nodes: "SELECT * FROM timescaledb_information.data_nodes;",
    distributed_exec: "CALL distributed_exec($$ CREATE ROLE testuser WITH LOGIN PASSWORD 'testpass' $$);",
    hypertables: "SELECT * FROM timescaledb_information.hypertables;",
    distributed_flag: "is_distributed",
    sizes: "SELECT * FROM hypertable_detailed_size('conditions');",
};

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn in_one_process_with_beta_names() {
    run(Shape::Embedded, &BETA).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn in_one_process_with_final_names() {
    run(Shape::Embedded, &FINAL).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn on_three_processes_with_beta_names() {
    run(Shape::Processes, &BETA).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn on_three_processes_with_final_names() {
    run(Shape::Processes, &FINAL).await;
}

async fn run(shape: Shape, names: &Names) {
    let cluster = Cluster::start_bare(shape).await;
    let session = multinode(&cluster).await;
    add_data_nodes(&cluster, &session, names).await;
    create_role(&cluster, &session, names).await;
    create_hypertable(&session).await;
    insert(&session).await;
    view_distribution(&session, names).await;
    read_back(&session).await;
}

/// `CREATE DATABASE multinode; \c multinode postgres; CREATE EXTENSION timescaledb;`
async fn multinode(cluster: &Cluster) -> Session {
    let first = cluster.connect().await;
    for (setting, value) in [("max_prepared_transactions", "150"), ("password_encryption", "scram-sha-256")] {
        assert_eq!(first.value(&format!("SHOW {setting};")).await, value);
    }
    first.run("SET password_encryption = 'scram-sha-256';").await;
    first.run("SET enable_partitionwise_aggregate = on;").await;
    first.run("ALTER ROLE postgres PASSWORD 'postgres';").await;
    first.run("CREATE DATABASE multinode;").await;
    assert_eq!(first.error("CREATE DATABASE multinode;").await.code().code(), "42P04");

    let session = connect(&cluster.config("multinode")).await.unwrap();
    session.run("SET TIME ZONE 'UTC'").await;
    session.run("CREATE EXTENSION timescaledb;").await;
    assert_eq!(session.value("SELECT extname FROM pg_extension WHERE extname = 'timescaledb'").await, "timescaledb");
    assert_eq!(session.value("SELECT current_database()").await, "multinode");
    session
}

async fn add_data_nodes(cluster: &Cluster, session: &Session, names: &Names) {
    for (index, address) in cluster.bare_nodes().iter().enumerate() {
        // In the SELECT list as the tutorial has it, and in FROM.
        let (name, place) = (format!("dn{}", index + 1), if index == 0 { "" } else { "* FROM " });
        let (host, port) = (address.ip(), address.port());
        let answer =
            session.lines(&format!("SELECT {place}add_data_node('{name}', host=>'{host}', port=>{port});")).await;
        let values = format!("{name},{host},{port},multinode,t,t,t");
        let expected = if index == 0 { format!("({values})") } else { values.replace(',', "|") };
        assert_eq!(answer, [expected]);
    }
    let listed = session.rows(names.data_nodes).await;
    let listed = listed.iter().map(|row| (row[0].as_deref(), row[1].as_deref())).collect::<Vec<_>>();
    assert_eq!(listed, [(Some("dn1"), Some("postgres")), (Some("dn2"), Some("postgres"))]);
    let up = session
        .lines(
            "SELECT node_up, num_dist_tables, num_dist_chunks, total_dist_size FROM timescaledb_information.data_node",
        )
        .await;
    assert_eq!(up, ["t|0||", "t|0||"]);
}

async fn create_role(cluster: &Cluster, session: &Session, names: &Names) {
    session.run("CREATE ROLE testuser WITH LOGIN PASSWORD 'testpass';").await;
    session.run(names.distributed_exec).await;
    session.run("GRANT USAGE ON FOREIGN SERVER dn1, dn2 to testuser;").await;
    let error = session.error("CREATE ROLE testuser WITH LOGIN PASSWORD 'testpass';").await;
    assert_eq!((error.code().code(), error.message()), ("42710", "role \"testuser\" already exists"));
    let mut config = cluster.config("multinode");
    let testuser = connect(config.user("testuser").password("testpass")).await.unwrap();
    assert_eq!(testuser.value("SELECT current_user").await, "testuser");
}

async fn create_hypertable(session: &Session) {
    session.run("SET ROLE testuser;").await;
    session.run("CREATE TABLE conditions (time timestamptz NOT NULL, device integer, temp float);").await;
    session.take_notices();
    let created = session.lines("SELECT create_distributed_hypertable('conditions', 'time', 'device');").await;
    assert_eq!(created, ["(1,public,conditions,t)"]);
    assert!(session.take_notices().is_empty(), "time is NOT NULL already: nothing to say");
}

async fn insert(session: &Session) {
    let inserted = session
        .run(
            "INSERT INTO conditions
SELECT time, (random()*30)::int, random()*80
FROM generate_series('2019-01-01 00:00:00'::timestamptz, '2019-02-01 00:00:00', '1 min') AS time;",
        )
        .await;
    assert_eq!(inserted, 44_641);
}

async fn view_distribution(session: &Session, names: &Names) {
    let [hypertable] = &session.rows(names.hypertables).await[..] else { panic!("one hypertable") };
    let row = hypertable.iter().map(Option::as_deref).collect::<Vec<_>>();
    assert_eq!(row[..5], [Some("public"), Some("conditions"), Some("testuser"), Some("2"), Some("12")]);
    let flag = names.hypertables.replace('*', names.distributed_flag);
    assert_eq!(session.value(&flag).await, "t");

    let error = session.error("SELECT * FROM hypertable_data_node_relation_size('distributed');").await;
    assert_eq!((error.code().code(), error.message()), ("42P01", "relation \"distributed\" does not exist"));
    let nodes = session.rows(names.sizes).await.concat();
    assert!(["dn1", "dn2"].iter().all(|name| nodes.contains(&Some((*name).to_owned()))), "{nodes:?}");

    let listed = session.rows(names.data_nodes).await;
    assert_eq!(listed.len(), 2);
    let chunks = session.value("SELECT sum(num_dist_chunks) FROM timescaledb_information.data_node").await;
    assert_eq!(chunks, "12");

    let slices = "SELECT range_start, range_end, string_agg(data_nodes::text, '' ORDER BY data_nodes::text) \
                  FROM timescaledb_information.chunks GROUP BY 1, 2 ORDER BY 1";
    let starts = ["2018-12-27", "2019-01-03", "2019-01-10", "2019-01-17", "2019-01-24", "2019-01-31", "2019-02-07"];
    let expected = starts.windows(2).map(|w| format!("{} 00:00:00+00|{} 00:00:00+00|{{dn1}}{{dn2}}", w[0], w[1]));
    assert_eq!(
        session.lines(slices).await,
        expected.collect::<Vec<_>>(),
        "Thursday to Thursday, one chunk on each node"
    );
}

async fn read_back(session: &Session) {
    assert_eq!(session.rows("SELECT * FROM conditions;").await.len(), 44_641);
    let facts = "SELECT count(*), min(time), max(time), min(device) >= 0, max(device) <= 30, count(DISTINCT device) FROM conditions";
    assert_eq!(session.value(facts).await, "44641|2019-01-01 00:00:00+00|2019-02-01 00:00:00+00|t|t|31");
    let order = "SELECT time FROM conditions ORDER BY time LIMIT 2";
    assert_eq!(session.lines(order).await, ["2019-01-01 00:00:00+00", "2019-01-01 00:01:00+00"]);
    let pushed = session
        .rows("SELECT time_bucket('1 day', time) d, device, avg(temp) FROM conditions GROUP BY 1,2 ORDER BY 1,2")
        .await;
    session.run("SET enable_partitionwise_aggregate = off").await;
    let pulled = session
        .rows("SELECT time_bucket('1 day', time) d, device, avg(temp) FROM conditions GROUP BY 1,2 ORDER BY 1,2")
        .await;
    assert_eq!(pushed.len(), pulled.len());
    for (pushed, pulled) in pushed.iter().zip(&pulled) {
        assert_eq!(pushed[..2], pulled[..2]);
        let means = [pushed, pulled].map(|row| row[2].as_deref().expect("a mean").parse::<f64>().unwrap());
        // The order in which floats are added is not fixed; 80 is the largest of them.
        assert!((means[0] - means[1]).abs() < 80.0 * 1e-12, "{pushed:?} {pulled:?}");
    }
}

/// `demo` shows the same statements, and `--exit` ends it after the last.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn the_demo_runs_them_and_shows_what_they_answer() {
    let output = tokio::task::spawn_blocking(|| {
        crate::cluster::binary().args(["demo", "--sql-addr", "127.0.0.1:0", "--exit"]).output().unwrap()
    });
    let output = output.await.unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "create_distributed_hypertable",
        "(1,public,conditions,t)",
        "INSERT 0 44641",
        "timescaledb_information",
        "psql",
    ] {
        assert!(shown.contains(line), "\"{line}\" is missing from\n{shown}");
    }
}
