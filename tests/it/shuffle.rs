//! Joins over rows that nodes in processes of their own send each other: that they do, and that a query which is ended, or
//! loses a node, ends everywhere.

use crate::cluster::{Cluster, Member, Session, Shape};

const ROWS: u64 = 200_000;

/// Two hypertables whose values of `k` lie on any node. `heavy` matches in millions of pairs.
async fn cluster() -> (Cluster, Session) {
    let cluster = Cluster::start(Shape::Processes).await;
    let session = cluster.connect().await;
    for name in ["a", "b"] {
        session
            .run(&format!("CREATE TABLE {name} (time timestamptz NOT NULL, device integer, k bigint, heavy integer)"))
            .await;
        session.run(&format!("SELECT create_distributed_hypertable('{name}', 'time', 'device')")).await;
        let insert = format!(
            "INSERT INTO {name} SELECT timestamptz '2024-01-01 00:00+00' + n * interval '10 seconds', n % 50, \
             n * 1009 % {ROWS}, n % 7 FROM generate_series(0, {}) AS n",
            ROWS - 1
        );
        session.run(&insert).await;
    }
    (cluster, session)
}

const JOIN: &str = "SELECT count(*), sum(a.k), sum(b.k) FROM a JOIN b ON a.k = b.k";
const HEAVY: &str = "SELECT max(a.k + b.k) FROM a JOIN b ON a.heavy = b.heavy";

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn nodes_send_each_other_what_they_join_and_stop_when_nobody_wants_it() {
    let (mut cluster, session) = cluster().await;
    let sum = (ROWS * (ROWS - 1) / 2).to_string();
    let expected = vec![vec![Some(ROWS.to_string()), Some(sum.clone()), Some(sum)]];
    for shuffle in ["auto", "on", "off"] {
        session.run(&format!("SET seriatim.shuffle = {shuffle}")).await;
        assert_eq!(session.rows(JOIN).await, expected, "{shuffle}");
    }
    session.run("SET seriatim.shuffle = on").await;
    let plan = session.lines(&format!("EXPLAIN {JOIN}")).await;
    assert!(plan.iter().any(|line| line.contains("Shuffle: rows of a by (k)")), "{plan:#?}");

    // What was begun ends with the statement: the next one has the nodes for itself.
    session.run("SET statement_timeout = 1000").await;
    for _ in 0..3 {
        let error = session.error(HEAVY).await;
        assert_eq!(error.code().code(), "57014", "six billion pairs take longer: {error:?}");
    }
    session.run("SET statement_timeout = 0").await;
    assert_eq!(session.rows(JOIN).await, expected);

    // The node that is left is not taken for lost, and is asked again at once when the other is back.
    cluster.kill(Member::Node(1));
    let error = session.error(JOIN).await;
    assert_eq!(&error.code().code()[..2], "08", "{error:?}");
    cluster.restart(Member::Node(1));
    let session = cluster.settled().await;
    session.run("SET seriatim.shuffle = on").await;
    assert_eq!(session.rows(JOIN).await, expected);
}
