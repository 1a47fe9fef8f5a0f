//! The 15 query types of TSBS devops and a scan of one metric, as statements for each engine. One seed gives every engine the same hosts and the
//! same windows.

use super::data::{Data, METRICS, START_S, time_text};
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng, SeedableRng};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Seriatim and TimescaleDB.
    Timescale,
    Postgres,
    DuckDb,
    ClickHouse,
}

/// One type, with its random instances.
pub struct Kind {
    pub name: &'static str,
    pub statements: Vec<String>,
}

pub fn all(data: &Data, instances: u32, seed: u64, dialect: Dialect) -> Vec<Kind> {
    let mut maker = Maker { rng: StdRng::seed_from_u64(seed), hosts: data.hosts, hours: data.hours, dialect };
    let (many, few) = (instances as usize, (instances as usize / 3).max(3));
    let mut kinds = Vec::new();
    // name, metrics, hosts, hours
    for (name, metrics, hosts, hours) in [
        ("single-groupby-1-1-1", 1, 1, 1),
        ("single-groupby-1-1-12", 1, 1, 12),
        ("single-groupby-1-8-1", 1, 8, 1),
        ("single-groupby-5-1-1", 5, 1, 1),
        ("single-groupby-5-1-12", 5, 1, 12),
        ("single-groupby-5-8-1", 5, 8, 1),
    ] {
        kinds.push(kind(name, many, || maker.single_groupby(metrics, hosts, hours)));
    }
    for (name, hosts) in [("cpu-max-all-1", 1), ("cpu-max-all-8", 8)] {
        kinds.push(kind(name, many, || maker.cpu_max_all(hosts)));
    }
    for (name, metrics) in [("double-groupby-1", 1), ("double-groupby-5", 5), ("double-groupby-all", METRICS.len())] {
        kinds.push(kind(name, few, || maker.double_groupby(metrics)));
    }
    kinds.push(kind("high-cpu-1", many, || maker.high_cpu(Some(1))));
    kinds.push(kind("high-cpu-all", few, || maker.high_cpu(None)));
    kinds.push(kind("lastpoint", few, || maker.lastpoint()));
    kinds.push(kind("groupby-orderby-limit", few, || maker.groupby_orderby_limit()));
    // Not of TSBS. An average, because the largest value is in everybody's statistics.
    kinds.push(kind("scan-1", few, || "SELECT avg(usage_user) FROM cpu".to_owned()));
    kinds
}

fn kind(name: &'static str, count: usize, make: impl FnMut() -> String) -> Kind {
    Kind { name, statements: std::iter::repeat_with(make).take(count).collect() }
}

struct Maker {
    rng: StdRng,
    hosts: u32,
    hours: u32,
    dialect: Dialect,
}

impl Maker {
    fn single_groupby(&mut self, metrics: usize, hosts: usize, hours: u32) -> String {
        let (window, hosts) = (self.window(hours), self.some_hosts(hosts));
        let (bucket, maxima) = (self.bucket(60), aggregates("max", metrics));
        format!(
            "SELECT {bucket} AS minute, {maxima} FROM cpu WHERE hostname IN ({hosts}) AND {window} GROUP BY minute ORDER BY minute ASC"
        )
    }

    fn cpu_max_all(&mut self, hosts: usize) -> String {
        let (window, hosts) = (self.window(8), self.some_hosts(hosts));
        let (bucket, maxima) = (self.bucket(3600), aggregates("max", METRICS.len()));
        format!(
            "SELECT {bucket} AS hour, {maxima} FROM cpu WHERE hostname IN ({hosts}) AND {window} GROUP BY hour ORDER BY hour"
        )
    }

    fn double_groupby(&mut self, metrics: usize) -> String {
        let window = self.window(12);
        let (bucket, means) = (self.bucket(3600), aggregates("avg", metrics));
        format!(
            "SELECT {bucket} AS hour, hostname, {means} FROM cpu WHERE {window} GROUP BY hour, hostname ORDER BY hour, hostname"
        )
    }

    fn high_cpu(&mut self, hosts: Option<usize>) -> String {
        let window = self.window(12);
        let hosts = hosts.map(|count| format!(" AND hostname IN ({})", self.some_hosts(count))).unwrap_or_default();
        format!("SELECT * FROM cpu WHERE usage_user > 90.0 AND {window}{hosts}")
    }

    fn lastpoint(&mut self) -> String {
        "SELECT DISTINCT ON (hostname) * FROM cpu ORDER BY hostname, time DESC".to_owned()
    }

    fn groupby_orderby_limit(&mut self) -> String {
        let (_, end) = self.window_ends(1);
        let bucket = self.bucket(60);
        format!(
            "SELECT {bucket} AS minute, max(usage_user) FROM cpu WHERE time < '{end}' GROUP BY minute ORDER BY minute DESC LIMIT 5"
        )
    }

    fn bucket(&self, seconds: u32) -> String {
        match self.dialect {
            Dialect::Timescale => format!("time_bucket('{seconds} seconds', time)"),
            Dialect::Postgres => format!("date_bin('{seconds} seconds', time, '2000-01-01')"),
            Dialect::DuckDb => format!("time_bucket(INTERVAL '{seconds} seconds', time)"),
            Dialect::ClickHouse => format!("toStartOfInterval(time, INTERVAL {seconds} second)"),
        }
    }

    fn window(&mut self, hours: u32) -> String {
        let (start, end) = self.window_ends(hours);
        format!("time >= '{start}' AND time < '{end}'")
    }

    fn window_ends(&mut self, hours: u32) -> (String, String) {
        let length = i64::from(hours.min(self.hours)) * 3600;
        let start = START_S + self.rng.random_range(0..=i64::from(self.hours) * 3600 - length);
        // ClickHouse does not read a zone in a literal; its column is UTC already.
        let zone = if self.dialect == Dialect::ClickHouse { "" } else { "+00" };
        (format!("{}{zone}", time_text(start)), format!("{}{zone}", time_text(start + length)))
    }

    fn some_hosts(&mut self, count: usize) -> String {
        let all = self.hosts as usize;
        let chosen = index::sample(&mut self.rng, all, count.min(all));
        chosen.iter().map(|host| format!("'host_{host}'")).collect::<Vec<_>>().join(",")
    }
}

fn aggregates(function: &str, metrics: usize) -> String {
    METRICS[..metrics].iter().map(|m| format!("{function}({m}) AS {function}_{m}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_is_asked_for_the_same_hosts_and_windows() {
        let data = Data { hosts: 100, hours: 24, rows: 0, bytes: 0, dir: "".into(), parts: vec![] };
        let [timescale, duckdb] = [Dialect::Timescale, Dialect::DuckDb].map(|dialect| all(&data, 5, 42, dialect));
        assert_eq!(timescale.len(), 16);
        for (a, b) in timescale.iter().zip(&duckdb) {
            assert!((3..=5).contains(&a.statements.len()));
            let conditions = |kind: &Kind| {
                let wheres = kind.statements.iter().map(|s| s.split_once(" WHERE ").map(|(_, tail)| tail.to_owned()));
                wheres.collect::<Vec<_>>()
            };
            assert_eq!(conditions(a), conditions(b), "{}", a.name);
        }
    }
}
