//! Runs the statements one after another on one connection and keeps their times. The first instance of a type runs once
//! more before the clock counts, as in TSBS's own warm runs.

use crate::load::connect;
use crate::queries::Kind;
use crate::report::Timing;
use anyhow::Result;
use futures::StreamExt;
use std::pin::pin;
use std::time::Instant;
use tokio_postgres::{Client, SimpleQueryMessage};

/// A type whose statement fails is reported as such; the others still run.
///
/// # Errors
/// When the connection cannot be made.
pub async fn run(url: &str, kinds: &[Kind]) -> Result<Vec<Timing>> {
    let mut timings = Vec::new();
    for kind in kinds {
        let client = connect(url).await?;
        let timing = match time(&client, kind).await {
            Ok((times_ms, rows)) => Timing::new(kind.name, times_ms, rows),
            Err(e) => Timing::failed(kind.name, &format!("{e:#}")),
        };
        println!("{}", timing.line());
        timings.push(timing);
    }
    Ok(timings)
}

async fn time(client: &Client, kind: &Kind) -> Result<(Vec<f64>, u64)> {
    fetch(client, &kind.statements[0]).await?;
    let (mut times_ms, mut rows) = (Vec::new(), 0);
    for statement in &kind.statements {
        let started = Instant::now();
        rows += fetch(client, statement).await?;
        times_ms.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok((times_ms, rows))
}

/// Receives every row as text and drops it; returns how many there were.
///
/// # Errors
/// The server's.
pub async fn fetch(client: &Client, statement: &str) -> Result<u64> {
    let mut stream = pin!(client.simple_query_raw(statement).await?);
    let mut rows = 0;
    while let Some(message) = stream.next().await {
        rows += u64::from(matches!(message?, SimpleQueryMessage::Row(_)));
    }
    Ok(rows)
}
