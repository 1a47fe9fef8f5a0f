//! Creates the table and loads the files by COPY, several clients at a time.

use crate::data::{Data, METRICS};
use crate::queries::Dialect;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::SinkExt;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::io::AsyncReadExt;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// One CopyData message.
const BLOCK_BYTES: usize = 1 << 20;

pub struct Loaded {
    pub rows_per_s: u64,
    pub version: String,
    pub fsync: String,
}

/// How the rows rest once all is written.
pub struct Settled {
    /// Compressing all chunks, where the server knows how.
    pub compress_s: Option<f64>,
    pub bytes_per_row: Option<f64>,
}

/// # Errors
/// The server's; and when it does not hold as many rows afterwards as were sent.
pub async fn load(url: &str, dialect: Dialect, data: &Data, clients: u32, chunk: &str) -> Result<Loaded> {
    let client = connect(url).await?;
    let metrics = METRICS.map(|metric| format!("{metric} double precision")).join(", ");
    client.batch_execute("DROP TABLE IF EXISTS cpu").await?;
    client.batch_execute(&format!("CREATE TABLE cpu (time timestamptz NOT NULL, hostname text, {metrics})")).await?;
    if dialect == Dialect::Timescale {
        let create = format!(
            "SELECT create_distributed_hypertable('cpu', 'time', 'hostname', chunk_time_interval => INTERVAL '{chunk}')"
        );
        client.batch_execute(&create).await?;
    }

    let started = Instant::now();
    let parts = Arc::new(Mutex::new(data.parts.iter().cloned().collect::<VecDeque<_>>()));
    let loaders = (0..clients).map(|_| tokio::spawn(load_parts(url.to_owned(), parts.clone()))).collect::<Vec<_>>();
    let mut rows = 0;
    for loader in loaders {
        rows += loader.await??;
    }
    let elapsed = started.elapsed();
    ensure!(rows == data.rows, "the server took {rows} of {} rows", data.rows);
    if dialect == Dialect::Postgres {
        client
            .batch_execute("CREATE INDEX ON cpu (hostname, time DESC); CREATE INDEX ON cpu USING brin (time)")
            .await?;
    }

    let count = value(&client, "SELECT count(*) FROM cpu").await?;
    ensure!(count == data.rows.to_string(), "the table holds {count} of {} rows", data.rows);
    Ok(Loaded {
        rows_per_s: (rows as f64 / elapsed.as_secs_f64()) as u64,
        version: value(&client, "SELECT version()").await?,
        fsync: value(&client, "SHOW fsync").await.unwrap_or_else(|_| "on (cannot be switched off)".to_owned()),
    })
}

/// # Errors
/// The server's; and when rows are missing.
pub async fn settle(url: &str, dialect: Dialect, data: &Data) -> Result<Settled> {
    let client = connect(url).await?;
    let compress_s = match dialect {
        Dialect::Timescale => Some(compress(&client).await?),
        _ => None,
    };
    let count = value(&client, "SELECT count(*) FROM cpu").await?;
    ensure!(count == data.rows.to_string(), "the table holds {count} of {} rows", data.rows);
    let size = match dialect {
        Dialect::Postgres => value(&client, "SELECT pg_total_relation_size('cpu')").await?,
        _ => value(&client, "SELECT hypertable_size('cpu')").await?,
    };
    Ok(Settled { compress_s, bytes_per_row: size.parse::<f64>().ok().map(|bytes| bytes / data.rows as f64) })
}

/// As TimescaleDB's users do it; returns how long it took, in seconds.
async fn compress(client: &Client) -> Result<f64> {
    let started = Instant::now();
    let alter = "ALTER TABLE cpu SET (timescaledb.compress, timescaledb.compress_segmentby = 'hostname')";
    client.batch_execute(alter).await.context("ALTER TABLE")?;
    client.simple_query("SELECT compress_chunk(c) FROM show_chunks('cpu') c").await.context("compress_chunk")?;
    Ok(started.elapsed().as_secs_f64())
}

async fn load_parts(url: String, parts: Arc<Mutex<VecDeque<PathBuf>>>) -> Result<u64> {
    let client = connect(&url).await?;
    let mut rows = 0;
    loop {
        let next = parts.lock().expect("no holder panics").pop_front();
        let Some(path) = next else { return Ok(rows) };
        rows += copy_file(&client, &path).await.with_context(|| path.display().to_string())?;
    }
}

async fn copy_file(client: &Client, path: &std::path::Path) -> Result<u64> {
    let mut sink = pin!(client.copy_in::<_, Bytes>("COPY cpu FROM STDIN WITH (FORMAT csv)").await?);
    let mut file = tokio::fs::File::open(path).await?;
    loop {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        if (&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut block).await? == 0 {
            return Ok(sink.finish().await?);
        }
        sink.send(block.into()).await?;
    }
}

/// A connection whose times are UTC.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.with_context(|| url.to_owned())?;
    // Ends with the client; an error reaches whoever waits for an answer.
    tokio::spawn(connection);
    client.batch_execute("SET TIME ZONE 'UTC'").await?;
    Ok(client)
}

async fn value(client: &Client, sql: &str) -> Result<String> {
    let messages = client.simple_query(sql).await.with_context(|| sql.to_owned())?;
    let row = messages.iter().find_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None });
    Ok(row.and_then(|row| row.get(0)).with_context(|| format!("{sql}: no value"))?.to_owned())
}
