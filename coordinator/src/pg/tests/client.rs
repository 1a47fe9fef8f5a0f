//! A real client: tokio-postgres.

use super::{TestServer, start, within};
use futures::{SinkExt, StreamExt};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

async fn connect(server: &TestServer, user: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(server.addr.port()).user(user).password(password).dbname("d");
    let (client, connection) = within(config.connect(NoTls)).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test]
async fn the_right_password_opens_and_a_wrong_one_does_not() {
    let server = start().await;
    connect(&server, "alice", "secret").await.unwrap();
    for (user, password) in [("alice", "wrong"), ("nobody", "secret"), ("alice", "")] {
        let Err(error) = connect(&server, user, password).await else { panic!("{user} came in") };
        if !password.is_empty() {
            assert_eq!(error.code().unwrap().code(), "28P01");
        }
    }
}

#[tokio::test]
async fn simple_queries_return_text() {
    let server = start().await;
    let client = connect(&server, "alice", "secret").await.unwrap();
    let messages = within(client.simple_query("rows 10; insert")).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0).map(str::to_owned), row.get(1).map(str::to_owned))),
        _ => None,
    });
    let rows = rows.collect::<Vec<_>>();
    assert_eq!(rows.len(), 10);
    assert_eq!(rows[8], (Some("8".into()), Some("row 8".into())));
    assert_eq!(rows[9], (Some("9".into()), None));
    let error = within(client.simple_query("fail")).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22012");
}

/// tokio-postgres sends parameters and asks for results in binary.
#[tokio::test]
async fn prepared_statements_take_and_return_binary() {
    let server = start().await;
    let client = connect(&server, "alice", "secret").await.unwrap();
    let statement = within(client.prepare("rows $1")).await.unwrap();
    assert_eq!(statement.params(), [tokio_postgres::types::Type::INT8]);
    for count in [0_i64, 1, 25_000] {
        let rows = within(client.query(&statement, &[&count])).await.unwrap();
        assert_eq!(rows.len() as i64, count);
        if let Some(row) = rows.last() {
            assert_eq!(row.get::<_, i64>("n"), count - 1);
        }
    }
    let none: Option<i64> = None;
    assert!(within(client.query(&statement, &[&none])).await.unwrap().is_empty());
}

#[tokio::test]
async fn portals_return_a_result_in_pieces() {
    let server = start().await;
    let mut client = connect(&server, "alice", "secret").await.unwrap();
    let transaction = within(client.transaction()).await.unwrap();
    let portal = within(transaction.bind("rows 2500", &[])).await.unwrap();
    let mut pieces = Vec::new();
    for _ in 0..4 {
        let rows = within(transaction.query_portal(&portal, 1000)).await.unwrap();
        pieces.push((rows.len(), rows.first().map(|row| row.get::<_, i64>(0))));
    }
    assert_eq!(pieces, [(1000, Some(0)), (1000, Some(1000)), (500, Some(2000)), (0, None)]);
    within(transaction.commit()).await.unwrap();
}

#[tokio::test]
async fn copy_goes_in_and_out() {
    let server = start().await;
    let client = connect(&server, "alice", "secret").await.unwrap();
    let sink = within(client.copy_in::<_, bytes::Bytes>("copy in")).await.unwrap();
    futures::pin_mut!(sink);
    for _ in 0..1000 {
        sink.send(bytes::Bytes::from_static(b"a\tb\n")).await.unwrap();
    }
    assert_eq!(within(sink.finish()).await.unwrap(), 1000);

    let sink = within(client.copy_in::<_, bytes::Bytes>("copy in")).await.unwrap();
    futures::pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"bad\n")).await.unwrap();
    assert_eq!(within(sink.finish()).await.unwrap_err().code().unwrap().code(), "22P04");

    let stream = within(client.copy_out("copy out")).await.unwrap();
    let rows = within(stream.map(|row| row.unwrap()).collect::<Vec<_>>()).await;
    assert_eq!(rows, ["one\n", "two\n", "three\n"]);
}

#[tokio::test]
async fn many_clients_at_once_are_all_answered() {
    let server = start().await;
    let clients = (0..20).map(|_| async {
        let client = connect(&server, "alice", "secret").await.unwrap();
        within(client.query("rows 2000", &[])).await.unwrap().len()
    });
    assert!(futures::future::join_all(clients).await.iter().all(|count| *count == 2000));
}

#[tokio::test]
async fn cancel_by_token_stops_a_query() {
    let server = start().await;
    let client = connect(&server, "alice", "secret").await.unwrap();
    let token = client.cancel_token();
    let canceled = async {
        server.front.log.wait_for("forever started").await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (answer, ()) = within(futures::future::join(client.query("forever", &[]), canceled)).await;
    assert_eq!(answer.unwrap_err().code().unwrap().code(), "57014");
    assert_eq!(within(client.query("rows 3", &[])).await.unwrap().len(), 3);
}
