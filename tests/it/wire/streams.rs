//! Long answers: streamed as they come, cut off when the client says so.

use super::server_with_readings;
use crate::cluster::{Server, error_of};
use futures::StreamExt;
use std::time::Duration;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// 10^12 rows: no server answers that within the time a cancel may take.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000000000) AS i WHERE i % 7 = 8";

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_cancel_ends_the_statement_within_a_second() {
    let server = server_with_readings().await;
    let session = server.connect().await;
    let token = session.client.cancel_token();
    let query = session.client.simple_query(ENDLESS);
    tokio::pin!(query);
    let begun = tokio::time::timeout(Duration::from_millis(300), &mut query).await;
    assert!(begun.is_err(), "the query must still be running");
    token.cancel_query(NoTls).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(1), &mut query).await.expect("cancelled within a second");
    let error = error_of(&ended.expect_err("it was cancelled"));
    assert_eq!(error.code().code(), "57014");
    assert_eq!(error.message(), "canceling statement due to user request");
    assert_eq!(session.value("SELECT count(*) FROM readings").await, "1000", "the session goes on");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn a_cancel_with_nothing_to_cancel_does_nothing() {
    let server = Server::start().await;
    let session = server.connect().await;
    session.client.cancel_token().cancel_query(NoTls).await.unwrap();
    // The client does not wait for its request to be read, so this one may still be met by it.
    let _ = session.client.simple_query("SELECT 1").await;
    assert_eq!(session.value("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn statement_timeout_ends_a_statement() {
    let server = server_with_readings().await;
    let session = server.connect().await;
    session.run("SET statement_timeout = 200").await;
    let error = session.error(ENDLESS).await;
    assert_eq!(error.code().code(), "57014");
    assert_eq!(error.message(), "canceling statement due to statement timeout");
}

/// A reader that stops after the first rows must not make the server produce the rest.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn results_are_streamed() {
    let server = server_with_readings().await;
    let session = server.connect().await;
    let billion = "SELECT a.note, b.note FROM readings a, readings b, readings c";
    let stream = session.client.simple_query_raw(billion).await.unwrap();
    tokio::pin!(stream);
    let mut rows = 0;
    while rows < 10 {
        let message = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("rows come at once");
        rows += usize::from(matches!(message.expect("not the end").unwrap(), SimpleQueryMessage::Row(_)));
    }
    session.client.cancel_token().cancel_query(NoTls).await.unwrap();
    let last = tokio::time::timeout(Duration::from_secs(20), stream.fold(None, async |_, message| Some(message)));
    let error = last.await.expect("the stream ends").expect("an answer").expect_err("it was cancelled");
    assert_eq!(error_of(&error).code().code(), "57014");
}
