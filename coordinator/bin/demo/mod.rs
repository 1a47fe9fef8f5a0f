//! `seriatim demo`: an empty embedded cluster, and the tutorial typed into it through its own SQL port, so that what is
//! shown is what psql would get.

mod table;

use crate::args;
use crate::cluster::{Cluster, ClusterOptions};
use crate::serve::Stop;
use anyhow::{Context, bail};
use proto::{Clock, SystemClock};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

/// The tutorial, in its order; `\c multinode postgres` is a new connection.
const TUTORIAL: &[Step] = &[
    Step::Say("Define the topology"),
    Step::Sql("CREATE DATABASE multinode"),
    Step::Connect { database: "multinode", user: "postgres" },
    Step::Sql("CREATE EXTENSION timescaledb"),
    Step::Sql("SELECT add_data_node('dn1', host=>'data1.example.com')"),
    Step::Sql("SELECT add_data_node('dn2', host=>'data2.example.com')"),
    Step::Sql("SELECT * FROM timescaledb_information.data_node"),
    Step::Say("Create a new role"),
    Step::Sql("CREATE ROLE testuser WITH LOGIN PASSWORD 'testpass'"),
    Step::Sql("SELECT * FROM distributed_exec($$ CREATE ROLE testuser WITH LOGIN PASSWORD 'testpass' $$)"),
    Step::Sql("GRANT USAGE ON FOREIGN SERVER dn1, dn2 to testuser"),
    Step::Say("Create the distributed hypertable"),
    Step::Sql("SET ROLE testuser"),
    Step::Sql("CREATE TABLE conditions (time timestamptz NOT NULL, device integer, temp float)"),
    Step::Sql("SELECT create_distributed_hypertable('conditions', 'time', 'device')"),
    Step::Sql(
        "INSERT INTO conditions\nSELECT time, (random()*30)::int, random()*80\n\
         FROM generate_series('2019-01-01 00:00:00'::timestamptz, '2019-02-01 00:00:00', '1 min') AS time",
    ),
    Step::Say("View data distribution"),
    Step::Sql("SELECT * FROM timescaledb_information.hypertable"),
    Step::Sql("SELECT * FROM hypertable_data_node_relation_size('conditions')"),
    Step::Sql("SELECT * FROM timescaledb_information.data_node"),
    Step::Sql("SELECT * FROM conditions"),
    Step::Say("And what it is for"),
    Step::Sql(
        "SELECT time_bucket('1 week', time) AS week, count(*), round(avg(temp)::numeric, 2) AS avg_temp, \
         last(temp, time) AS last_temp\nFROM conditions GROUP BY week ORDER BY week",
    ),
    Step::Sql("EXPLAIN (COSTS OFF) SELECT device, avg(temp) FROM conditions GROUP BY device"),
];

enum Step {
    Say(&'static str),
    Sql(&'static str),
    Connect { database: &'static str, user: &'static str },
}

pub async fn run(args: args::Demo) -> anyhow::Result<()> {
    let started = SystemClock::new();
    let home = Home::new(args.data_dir)?;
    let options =
        ClusterOptions { attach: false, trust: true, ..ClusterOptions::new(home.path.clone(), args.sql_addr) };
    let stop = Stop::on_signals()?;
    let cluster = Cluster::start(options, stop.clone()).await?;
    say(&format!(
        "A cluster of one coordinator and two data nodes (dn1, dn2) runs in this process.\nIts data is in {}\n",
        home.path.display()
    ));

    let tutorial = async { tutorial(cluster.sql_addr().port()).await };
    tokio::select! {
        done = tutorial => done?,
        () = stop.requested() => {}
    }
    if !stop.is_requested() {
        let (host, port) = (cluster.sql_addr().ip(), cluster.sql_addr().port());
        say(&format!("\nThe tutorial took {:.1} s. From another terminal:\n", started.elapsed().as_secs_f64()));
        say(&format!("    psql -h {host} -p {port} -U postgres multinode\n"));
    }
    if !args.exit && !stop.is_requested() {
        say("The cluster stays open until Ctrl-C.");
        stop.requested().await;
    }
    stop.request();
    cluster.finish().await
}

/// The data directory: kept when the user named it, else removed at the end.
struct Home {
    path: PathBuf,
    scratch: bool,
}

impl Home {
    fn new(wanted: Option<PathBuf>) -> anyhow::Result<Home> {
        let scratch = wanted.is_none();
        let path = wanted.unwrap_or_else(|| std::env::temp_dir().join(format!("seriatim-demo-{}", std::process::id())));
        if is_used(&path) {
            bail!("{} is not empty; name a new directory with --data-dir", path.display());
        }
        Ok(Home { path, scratch })
    }
}

fn is_used(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.scratch {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

async fn tutorial(port: u16) -> anyhow::Result<()> {
    let mut client = connect(port, "postgres", "postgres").await?;
    for step in TUTORIAL {
        match step {
            Step::Say(title) => say(&format!("\n-- {title}\n")),
            Step::Connect { database, user } => {
                client = connect(port, database, user).await?;
                say(&format!(
                    "\\c {database} {user}\nYou are now connected to database \"{database}\" as user \"{user}\".\n"
                ));
            }
            Step::Sql(sql) => run_step(&client, sql).await?,
        }
    }
    Ok(())
}

async fn run_step(client: &Client, sql: &str) -> anyhow::Result<()> {
    say(&format!("{sql};"));
    let started = SystemClock::new();
    let messages = client.simple_query(sql).await.with_context(|| format!("the statement failed: {sql}"))?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let rows = rows.collect::<Vec<_>>();
    let columns = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::RowDescription(columns) => Some(columns),
        _ => None,
    });
    match columns {
        Some(columns) => {
            let names = columns.iter().map(|column| column.name().to_owned()).collect::<Vec<_>>();
            let cells =
                rows.iter().map(|row| (0..names.len()).map(|i| row.get(i).map(str::to_owned)).collect()).collect();
            say(&table::render(&names, cells));
        }
        None => say(&tag(sql, &messages)),
    }
    say(&format!("Time: {:.1} ms\n", started.elapsed().as_secs_f64() * 1e3));
    Ok(())
}

/// The command tag psql would show: the client library gives only its count.
fn tag(sql: &str, messages: &[SimpleQueryMessage]) -> String {
    let rows = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
        _ => None,
    });
    let mut words = sql.split_whitespace();
    match (words.next(), words.next()) {
        (Some("INSERT"), _) => format!("INSERT 0 {}", rows.unwrap_or_default()),
        (Some("CREATE"), Some(what)) => format!("CREATE {what}"),
        (first, _) => first.unwrap_or_default().to_owned(),
    }
}

/// Notices are shown as psql shows them.
async fn connect(port: u16, database: &str, user: &str) -> anyhow::Result<Arc<Client>> {
    let config = format!("host=127.0.0.1 port={port} user={user} dbname={database} application_name=demo");
    let (client, mut connection) =
        tokio_postgres::connect(&config, NoTls).await.context("cannot connect to the demo's own port")?;
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message {
                say(&format!("{}:  {}", notice.severity(), notice.message()));
            }
        }
    });
    Ok(Arc::new(client))
}

#[expect(clippy::print_stdout, reason = "the demo speaks to the person at the terminal")]
fn say(text: &str) {
    println!("{text}");
}
