//! Three coordinators that keep one log: any of them may die or stall, and clients that know all three go on.

use crate::cluster::{Cluster, Member, Session, Shape, connect, error_of};
use std::time::{Duration, Instant};

/// Within it another coordinator leads: twice what we promise, for a busy machine.
const FAILOVER_MAX: Duration = Duration::from_secs(10);
/// Of one transfer, where nobody stops.
const ANSWER_MAX: Duration = Duration::from_secs(3);
const ACCOUNTS: usize = 20;
const ROUNDS: usize = 6;

async fn with_accounts() -> Cluster {
    let cluster = Cluster::start(Shape::Group).await;
    let session = cluster.connect().await;
    session
        .run("CREATE TABLE ledger (time timestamptz NOT NULL, account integer, transfer bigint, amount bigint)")
        .await;
    session.run("SELECT create_distributed_hypertable('ledger', 'time', 'account')").await;
    cluster
}

/// Two rows, most of the time on two nodes.
fn transfer(number: usize) -> String {
    let (from, to) = (number % ACCOUNTS, (number * 7 + 3) % ACCOUNTS);
    format!(
        "INSERT INTO ledger VALUES ('2024-01-01', {from}, {number}, -{number}), ('2024-01-01', {to}, {number}, {number})"
    )
}

/// Every snapshot shows both rows of a transfer or none.
async fn check(session: &Session, acknowledged: &[usize]) {
    assert_eq!(session.value("SELECT coalesce(sum(amount), 0) FROM ledger").await, "0");
    let halves = "SELECT transfer FROM ledger GROUP BY transfer HAVING count(*) <> 2";
    assert_eq!(session.lines(halves).await, Vec::<String>::new(), "transfers in part");
    let stored = session.lines("SELECT DISTINCT transfer FROM ledger ORDER BY transfer").await;
    let lost = acknowledged.iter().filter(|number| !stored.contains(&number.to_string())).collect::<Vec<_>>();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_group_outlives_any_of_its_coordinators() {
    let mut cluster = with_accounts().await;
    let (mut number, mut acknowledged, mut slowest) = (0, Vec::new(), Duration::ZERO);
    for round in 0..ROUNDS {
        let mut session = cluster.led().await;
        let enough = acknowledged.len() + 20;
        while acknowledged.len() < enough {
            number += 1;
            match session.try_rows(&transfer(number)).await {
                Ok(_) => acknowledged.push(number),
                // On a busy machine another is elected though nobody stops.
                Err(_) => session = cluster.led().await,
            }
        }
        let leader = Member::Coordinator(cluster.leader().await);
        let stalls = round % 2 == 1;
        match stalls {
            true => cluster.pause(leader, true),
            false => cluster.kill(leader),
        }
        let since = Instant::now();
        drop(session);
        loop {
            assert!(since.elapsed() < FAILOVER_MAX * 2, "round {round}: nobody leads");
            let session = cluster.led().await;
            number += 1;
            // It may have been the one that stops, in its last moment: then it answers no more.
            let asked = tokio::time::timeout(ANSWER_MAX, session.try_rows(&transfer(number))).await;
            if matches!(asked, Ok(Ok(_))) {
                acknowledged.push(number);
                check(&session, &acknowledged).await;
                break;
            }
        }
        slowest = slowest.max(since.elapsed());
        match stalls {
            true => cluster.pause(leader, false),
            false => cluster.restart(leader),
        }
    }
    println!("slowest failover {slowest:?}");
    assert!(slowest < FAILOVER_MAX, "{slowest:?}");
    check(&cluster.settled().await, &acknowledged).await;
}

/// The commit may be durable when the leader dies and the answer with it: the client cannot know, and tries again.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_retry_with_its_key_is_applied_once_whoever_dies() {
    let mut cluster = with_accounts().await;
    let attempt = |number: usize| format!("SET seriatim.idempotency_key = 'transfer {number}'; {}", transfer(number));
    for number in 1..=4 * ROUNDS {
        let mut session = cluster.led().await;
        let leader = Member::Coordinator(cluster.leader().await);
        let dies = number % 4 == 0;
        let (statements, killing) = (attempt(number), async { dies.then(|| cluster.kill(leader)) });
        let (mut done, _) = tokio::join!(session.try_rows(&statements), killing);
        // Once more even if it is known to have happened.
        for _ in 0..2 {
            while dies && done.is_err() {
                session = cluster.led().await;
                done = session.try_rows(&attempt(number)).await;
            }
            done = session.try_rows(&attempt(number)).await;
        }
        done.unwrap();
        assert_eq!(session.value("SHOW seriatim.idempotency_key").await, "", "it is used up");
        if dies {
            cluster.restart(leader);
        }
    }
    check(&cluster.settled().await, &(1..=4 * ROUNDS).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn who_follows_turns_clients_away_and_says_who_leads() {
    let cluster = Cluster::start(Shape::Group).await;
    let leader = cluster.leader().await;
    for follower in (0..3).filter(|coordinator| *coordinator != leader) {
        let error = error_of(&connect(&cluster.config_of(follower)).await.err().expect("refused"));
        assert_eq!(error.code().code(), "57P03");
        let expected =
            format!("this is coordinator {}: connect to coordinator {}, which leads", follower + 1, leader + 1);
        assert_eq!(error.message(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_leader_that_slept_can_neither_commit_nor_read_what_is_out_of_date() {
    let mut cluster = with_accounts().await;
    let leader = cluster.leader().await;
    let (open, one_node, idle) = (cluster.connect().await, cluster.connect().await, cluster.connect().await);
    open.run("BEGIN").await;
    open.run(&transfer(1)).await;
    one_node.run("BEGIN").await;
    one_node.run("INSERT INTO ledger VALUES ('2024-01-01', 1, 100, 0)").await;
    cluster.pause(Member::Coordinator(leader), true);
    let next = cluster.led().await;
    next.run(&transfer(2)).await;
    cluster.pause(Member::Coordinator(leader), false);
    // Whatever they are told, it is not what was before.
    assert!(open.try_rows("COMMIT").await.is_err());
    assert!(one_node.try_rows("COMMIT").await.is_err());
    assert!(idle.try_rows("SELECT count(*) FROM ledger").await.is_err());
    assert_eq!(next.lines("SELECT DISTINCT transfer FROM ledger").await, ["2"]);
    check(&next, &[2]).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn without_a_majority_nobody_leads_and_with_one_again_somebody_does() {
    let mut cluster = with_accounts().await;
    let leader = cluster.leader().await;
    let followers = (0..3).filter(|coordinator| *coordinator != leader).collect::<Vec<_>>();
    let session = cluster.led().await;
    session.run(&transfer(1)).await;
    followers.iter().for_each(|follower| cluster.kill(Member::Coordinator(*follower)));
    let error = session.try_rows(&transfer(2)).await.expect_err("no majority");
    // Cut off before it was proposed, in the middle, or told that nobody knows.
    let code = error.code().map(|code| code.code().to_owned());
    assert!(code.as_deref().is_none_or(|code| ["57P01", "08007"].contains(&code)), "{error:?}");
    let since = Instant::now();
    while connect(&cluster.config_of(leader)).await.is_ok() {
        assert!(since.elapsed() < FAILOVER_MAX, "who has no majority still lets clients in");
    }
    let error = error_of(&connect(&cluster.config_of(leader)).await.err().expect("refused"));
    assert_eq!(error.code().code(), "57P03");
    cluster.restart(Member::Coordinator(followers[0]));
    check(&cluster.settled().await, &[1]).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_coordinator_that_lost_its_disk_is_kept_out_and_the_others_go_on() {
    let mut cluster = with_accounts().await;
    cluster.led().await.run(&transfer(1)).await;
    let leader = cluster.leader().await;
    let lost = Member::Coordinator((leader + 1) % 3);
    cluster.kill(lost);
    std::fs::remove_dir_all(cluster.data_dir(lost)).unwrap();
    cluster.restart(lost);
    let refusal = "has another data directory than the one that joined";
    let since = Instant::now();
    while !cluster.log(lost).contains(refusal) {
        assert!(since.elapsed() < FAILOVER_MAX, "{}", cluster.log(lost));
        tokio::task::yield_now().await;
    }
    let session = cluster.led().await;
    session.run(&transfer(2)).await;
    check(&session, &[1, 2]).await;
}
