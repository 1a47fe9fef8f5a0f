//! The 15 query types of TSBS, the very statements `bench` times, over a small data set of its making: their answers are those
//! of a naive program that goes through all rows, in one process and on three, with push-down and without, from the
//! delta and from sealed chunks, the first time and, by a kept plan, the third. With `SERIATIM_REFERENCE` PostgreSQL 15 must
//! agree too.

#[path = "../../bench/src/data.rs"]
#[allow(dead_code, reason = "the bench uses more of it")]
mod data;
#[path = "../../bench/src/queries.rs"]
#[allow(dead_code, reason = "the bench uses more of it")]
mod queries;

use crate::cluster::{Cluster, Session, Shape, connect, reference, scratch_database};
use bytes::Bytes;
use data::{Data, METRICS, START_S, time_text};
use futures::SinkExt;
use queries::{Dialect, Kind};
use std::collections::BTreeMap;
use std::pin::pin;

const HOSTS: u32 = 20;
const HOURS: u32 = 3;
const SEED: u64 = 7;
/// Of each type.
const INSTANCES: usize = 2;

type Row = Vec<Option<String>>;

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn tsbs_in_one_process() {
    on_cluster(Shape::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn tsbs_on_three_processes() {
    on_cluster(Shape::Processes).await;
}

/// That the naive program is right, whenever a server is at hand.
#[tokio::test(flavor = "multi_thread", crate = "crate::watched")]
async fn tsbs_on_postgres() {
    let Some(config) = reference() else {
        println!("skipped: SERIATIM_REFERENCE names no PostgreSQL 15 server");
        return;
    };
    let session = connect(&scratch_database(&config).await).await.unwrap();
    session.run("SET TIME ZONE 'UTC'").await;
    let set = Set::generate();
    set.load(&session, Dialect::Postgres).await;
    set.check(&session, Dialect::Postgres, 1, "on PostgreSQL").await;
}

async fn on_cluster(shape: Shape) {
    let cluster = Cluster::start(shape).await;
    let session = cluster.connect().await;
    let set = Set::generate();
    set.load(&session, Dialect::Timescale).await;
    for state in ["delta", "sealed"] {
        if state == "sealed" {
            session
                .run("ALTER TABLE cpu SET (timescaledb.compress, timescaledb.compress_segmentby = 'hostname')")
                .await;
            session.run("SELECT compress_chunk(c) FROM show_chunks('cpu') c").await;
        }
        for push_down in ["on", "off"] {
            session.run(&format!("SET enable_partitionwise_aggregate = {push_down}")).await;
            let times = if push_down == "on" { 3 } else { 1 };
            set.check(&session, Dialect::Timescale, times, &format!("{state}, push-down {push_down}")).await;
        }
    }
}

struct Set {
    data: Data,
    samples: Vec<Sample>,
    // Last, for `data` names files in it.
    _dir: tempfile::TempDir,
}

/// A row of `cpu`.
struct Sample {
    time: String,
    host: String,
    metrics: Vec<f64>,
}

impl Set {
    fn generate() -> Set {
        let dir = tempfile::tempdir().unwrap();
        let data = data::generate(dir.path(), HOSTS, HOURS, SEED).unwrap();
        let text = data.parts.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>();
        let sample = |line: &str| {
            let mut fields = line.split(',');
            let time = fields.next().unwrap().trim_end_matches(".000000").to_owned();
            let host = fields.next().unwrap().to_owned();
            Sample { time, host, metrics: fields.map(|value| value.parse().unwrap()).collect() }
        };
        let samples = text.lines().map(sample).collect::<Vec<_>>();
        assert_eq!(samples.len() as u32, HOSTS * HOURS * 3600 / data::INTERVAL_S);
        Set { data, samples, _dir: dir }
    }

    /// In chunks of one hour, so that windows begin and end within chunks and between them.
    async fn load(&self, session: &Session, dialect: Dialect) {
        let metrics = METRICS.map(|metric| format!("{metric} double precision")).join(", ");
        session.run(&format!("CREATE TABLE cpu (time timestamptz NOT NULL, hostname text, {metrics})")).await;
        if dialect == Dialect::Timescale {
            let make = "SELECT create_distributed_hypertable('cpu', 'time', 'hostname', chunk_time_interval => interval '1 hour')";
            session.run(make).await;
        }
        for path in &self.data.parts {
            let copy = "COPY cpu FROM STDIN WITH (FORMAT csv)";
            let mut sink = pin!(session.client.copy_in::<_, Bytes>(copy).await.unwrap());
            sink.send(std::fs::read(path).unwrap().into()).await.unwrap();
            sink.finish().await.unwrap();
        }
    }

    async fn check(&self, session: &Session, dialect: Dialect, times: usize, when: &str) {
        let kinds = queries::all(&self.data, INSTANCES as u32, SEED, dialect);
        assert_eq!(kinds.len(), 16, "15 types and a scan");
        for kind in &kinds {
            for statement in kind.statements.iter().take(INSTANCES) {
                let expected = self.expected(kind, statement);
                for time in 1..=times {
                    let rows = session.rows(statement).await;
                    let rows = if is_ordered(statement) { rows } else { sorted(rows) };
                    let differs = rows.iter().zip(&expected).find(|(found, wanted)| found != wanted);
                    assert!(
                        rows == expected,
                        "{}, time {time}, {when}: {statement}\n{} rows, {} expected; {differs:?}",
                        kind.name,
                        rows.len(),
                        expected.len()
                    );
                }
            }
        }
    }

    /// The answer, by going through all rows.
    fn expected(&self, kind: &Kind, statement: &str) -> Vec<Row> {
        let asked = Conditions::of(statement);
        let samples = self.samples.iter().filter(|sample| asked.hold(sample)).collect::<Vec<_>>();
        match kind.name {
            name if name.starts_with("single-groupby") => grouped(&samples, 60, metrics_in(statement), Fold::Max),
            name if name.starts_with("cpu-max-all") => grouped(&samples, 3600, METRICS.len(), Fold::Max),
            name if name.starts_with("double-groupby") => by_host(&samples, metrics_in(statement)),
            "high-cpu-1" | "high-cpu-all" => {
                sorted(samples.iter().filter(|sample| sample.metrics[0] > 90.0).map(|sample| sample.row()).collect())
            }
            "lastpoint" => {
                let mut last = BTreeMap::new();
                for sample in &samples {
                    // The rows come in the order of their times.
                    last.insert(&sample.host, *sample);
                }
                last.values().map(|sample| sample.row()).collect()
            }
            "groupby-orderby-limit" => {
                let groups = grouped(&samples, 60, 1, Fold::Max);
                groups.into_iter().rev().take(5).collect()
            }
            "scan-1" => {
                let values = samples.iter().map(|sample| sample.metrics[0]).collect::<Vec<_>>();
                vec![vec![Some(Fold::Mean.of(&values))]]
            }
            other => panic!("{other} is not known here"),
        }
    }
}

impl Sample {
    fn row(&self) -> Row {
        let metrics = self.metrics.iter().map(|value| Some(value.to_string()));
        [Some(format!("{}+00", self.time)), Some(self.host.clone())].into_iter().chain(metrics).collect()
    }

    /// The start of its bucket, as text.
    fn bucket(&self, width_s: i64) -> String {
        let digits = |from: usize| self.time[from..from + 2].parse::<i64>().unwrap();
        let (day, second) = (digits(8) - 1, digits(11) * 3600 + digits(14) * 60 + digits(17));
        let seconds = day * 86_400 + second;
        time_text(START_S + seconds - seconds % width_s)
    }
}

/// What a statement asks of rows, read from its text.
struct Conditions {
    hosts: Option<Vec<String>>,
    start: Option<String>,
    end: Option<String>,
}

impl Conditions {
    fn of(statement: &str) -> Conditions {
        let after = |words: &str, until: char| {
            let (_, rest) = statement.split_once(words)?;
            rest.split(until).next().map(str::to_owned)
        };
        let hosts = after("hostname IN (", ')');
        Conditions {
            hosts: hosts.map(|list| list.split(',').map(|host| host.trim_matches('\'').to_owned()).collect()),
            start: after("time >= '", '+'),
            end: after("time < '", '+'),
        }
    }

    fn hold(&self, sample: &Sample) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.contains(&sample.host))
            && self.start.as_ref().is_none_or(|start| sample.time >= *start)
            && self.end.as_ref().is_none_or(|end| sample.time < *end)
    }
}

#[derive(Clone, Copy)]
enum Fold {
    Max,
    Mean,
}

impl Fold {
    fn of(self, values: &[f64]) -> String {
        match self {
            Fold::Max => values.iter().copied().fold(f64::MIN, f64::max).to_string(),
            Fold::Mean => (values.iter().sum::<f64>() / values.len() as f64).to_string(),
        }
    }
}

fn grouped(samples: &[&Sample], width_s: i64, metrics: usize, fold: Fold) -> Vec<Row> {
    groups(samples, metrics, |sample| vec![Some(format!("{}+00", sample.bucket(width_s)))], fold)
}

fn by_host(samples: &[&Sample], metrics: usize) -> Vec<Row> {
    let key = |sample: &Sample| vec![Some(format!("{}+00", sample.bucket(3600))), Some(sample.host.clone())];
    groups(samples, metrics, key, Fold::Mean)
}

/// In the order of their keys.
fn groups(samples: &[&Sample], metrics: usize, key: impl Fn(&Sample) -> Row, fold: Fold) -> Vec<Row> {
    let mut groups = BTreeMap::<Row, Vec<&Sample>>::new();
    for sample in samples {
        groups.entry(key(sample)).or_default().push(sample);
    }
    let row = |(key, members): (Row, Vec<&Sample>)| {
        let folded = (0..metrics).map(|metric| {
            let values = members.iter().map(|sample| sample.metrics[metric]).collect::<Vec<_>>();
            Some(fold.of(&values))
        });
        key.into_iter().chain(folded).collect()
    };
    groups.into_iter().map(row).collect()
}

fn metrics_in(statement: &str) -> usize {
    METRICS.iter().filter(|metric| statement.contains(&format!("({metric})"))).count()
}

fn is_ordered(statement: &str) -> bool {
    statement.contains("ORDER BY")
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}
