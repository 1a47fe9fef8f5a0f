//! The numbers, for people and for machines, with what one must know to judge them.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub hosts: u32,
    pub hours: u32,
    pub seed: u64,
    pub rows: u64,
    pub engines: Vec<EngineResult>,
}

#[derive(Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gb: u64,
    pub kernel: String,
}

#[derive(Serialize, Deserialize)]
pub struct EngineResult {
    pub engine: String,
    pub version: String,
    /// Which processes it was.
    pub layout: String,
    pub fsync: String,
    pub rows_per_s: u64,
    pub compress_s: Option<f64>,
    pub bytes_per_row: Option<f64>,
    /// The most memory each process had resident while loading.
    pub peak_mib: Vec<(String, u64)>,
    pub restart: Option<Restart>,
    pub queries: Vec<Timing>,
}

/// After all processes were killed right after the load.
#[derive(Serialize, Deserialize)]
pub struct Restart {
    pub log_mb: u64,
    /// From the start of the processes to the first answer about all rows.
    pub seconds: f64,
}

#[derive(Serialize, Deserialize)]
pub struct Timing {
    pub name: String,
    pub instances: usize,
    /// All instances together: the same for every engine, or one of them is wrong.
    pub rows: u64,
    pub min_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub error: Option<String>,
}

impl Timing {
    pub fn new(name: &str, mut times_ms: Vec<f64>, rows: u64) -> Timing {
        assert!(!times_ms.is_empty(), "{name} ran at least once");
        times_ms.sort_by(f64::total_cmp);
        Timing {
            name: name.to_owned(),
            instances: times_ms.len(),
            rows,
            min_ms: times_ms[0],
            p50_ms: percentile(&times_ms, 0.5),
            p90_ms: percentile(&times_ms, 0.9),
            p99_ms: percentile(&times_ms, 0.99),
            max_ms: times_ms[times_ms.len() - 1],
            error: None,
        }
    }

    pub fn failed(name: &str, error: &str) -> Timing {
        let error = Some(error.to_owned());
        Timing {
            name: name.to_owned(),
            instances: 0,
            rows: 0,
            min_ms: 0.0,
            p50_ms: 0.0,
            p90_ms: 0.0,
            p99_ms: 0.0,
            max_ms: 0.0,
            error,
        }
    }

    /// In a table: what the cells are medians of.
    fn label(&self) -> String {
        format!("{} (median of {}), ms", self.name, self.instances)
    }

    pub fn line(&self) -> String {
        match &self.error {
            Some(error) => format!("{:<24} {error}", self.name),
            None => format!(
                "{:<24} {:>10.2} ms  p90 {:>10.2}  p99 {:>10.2}  {:>9} rows of {} instances",
                self.name, self.p50_ms, self.p90_ms, self.p99_ms, self.rows, self.instances
            ),
        }
    }
}

/// Of sorted values, interpolated between neighbours.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

impl Report {
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_markdown(&mut text).expect("strings take everything");
        text
    }

    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        let Machine { cpu, cores, memory_gb, kernel } = &self.machine;
        writeln!(
            text,
            "TSBS cpu-only, {} hosts, {} hours, {} rows, seed {}",
            self.hosts, self.hours, self.rows, self.seed
        )?;
        writeln!(text, "{cpu}, {cores} cores, {memory_gb} GB, {kernel}\n")?;
        for engine in &self.engines {
            writeln!(text, "- {}: {}; {}; fsync {}", engine.engine, engine.version, engine.layout, engine.fsync)?;
        }
        let names = self.engines.iter().map(|engine| engine.engine.as_str()).collect::<Vec<_>>();
        writeln!(text, "\n| | {} |\n|---|{}", names.join(" | "), "---:|".repeat(names.len()))?;
        self.write_row(text, "load, rows/s", |engine| engine.rows_per_s.to_string())?;
        self.write_row(text, "compress after the load, s", |engine| {
            engine.compress_s.map_or("-".into(), |seconds| format!("{seconds:.1}"))
        })?;
        self.write_row(text, "bytes/row", |engine| {
            engine.bytes_per_row.map_or("-".into(), |bytes| format!("{bytes:.2}"))
        })?;
        self.write_row(text, "peak memory while loading, MiB", |engine| engine.peak_text())?;
        self.write_row(text, "first answer after kill -9, s (log, MB)", |engine| {
            engine.restart.as_ref().map_or("-".into(), |restart| format!("{:.1} ({})", restart.seconds, restart.log_mb))
        })?;
        for (index, timing) in self.engines[0].queries.iter().enumerate() {
            self.write_row(text, &timing.label(), |engine| cell(&engine.queries[index], timing))?;
        }
        Ok(())
    }

    fn write_row(&self, text: &mut String, name: &str, cell: impl Fn(&EngineResult) -> String) -> std::fmt::Result {
        writeln!(text, "| {name} | {} |", self.engines.iter().map(cell).collect::<Vec<_>>().join(" | "))
    }
}

impl EngineResult {
    fn peak_text(&self) -> String {
        let peaks = self.peak_mib.iter().map(|(name, mib)| format!("{name} {mib}")).collect::<Vec<_>>();
        if peaks.is_empty() { "-".to_owned() } else { peaks.join(", ") }
    }
}

/// One column for each run.
pub fn growth(reports: &[Report]) -> String {
    let ours = reports.iter().map(|report| &report.engines[0]).collect::<Vec<_>>();
    let mut lines = vec![
        format!("| rows | {} |", reports.iter().map(|report| report.rows.to_string()).collect::<Vec<_>>().join(" | ")),
        format!("|---|{}", "---:|".repeat(reports.len())),
        format!("| processes | {} |", ours.iter().map(|engine| engine.layout.as_str()).collect::<Vec<_>>().join(" | ")),
    ];
    let mut row = |name: &str, cell: &dyn Fn(&EngineResult) -> String| {
        lines.push(format!("| {name} | {} |", ours.iter().map(|engine| cell(engine)).collect::<Vec<_>>().join(" | ")));
    };
    row("load, rows/s", &|engine| engine.rows_per_s.to_string());
    row("bytes/row", &|engine| engine.bytes_per_row.map_or("-".into(), |bytes| format!("{bytes:.2}")));
    row("peak memory while loading, MiB", &|engine| engine.peak_text());
    for (index, timing) in ours[0].queries.iter().enumerate() {
        row(&timing.label(), &|engine| format!("{:.2}", engine.queries[index].p50_ms));
    }
    lines.join("\n") + "\n"
}

/// The median, and a warning where an engine answered with another number of rows than the first.
fn cell(timing: &Timing, first: &Timing) -> String {
    match &timing.error {
        Some(_) => "failed".to_owned(),
        None if first.error.is_none() && timing.rows != first.rows => {
            format!("{:.2} ({} rows!)", timing.p50_ms, timing.rows)
        }
        None => format!("{:.2}", timing.p50_ms),
    }
}

impl Machine {
    pub fn here() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kb = memory.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        Machine {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gb: memory_kb >> 20,
            kernel: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_neighbours() {
        let timing = Timing::new("x", vec![4.0, 1.0, 3.0, 2.0], 7);
        assert_eq!((timing.min_ms, timing.p50_ms, timing.max_ms), (1.0, 2.5, 4.0));
        assert!((timing.p99_ms - 3.97).abs() < 1e-9);
        assert_eq!(Timing::new("x", vec![5.0], 1).p90_ms, 5.0);
    }
}
