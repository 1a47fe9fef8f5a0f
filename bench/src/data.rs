//! The TSBS devops data set, cpu-only: every host reports ten metrics every ten seconds. A metric is a random walk with
//! steps from the normal distribution, clamped to [0, 100]; its integer part is reported.

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub const METRICS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
pub const INTERVAL_S: u32 = 10;
/// 2016-01-01 00:00 UTC, as TSBS has it.
pub const START_S: i64 = 1_451_606_400;
/// A file is loaded by one COPY.
const ROWS_PER_PART: u64 = 500_000;

/// What was generated.
pub struct Data {
    pub hosts: u32,
    pub hours: u32,
    pub rows: u64,
    pub bytes: u64,
    pub dir: PathBuf,
    /// CSV files without header: time, hostname, metrics.
    pub parts: Vec<PathBuf>,
}

/// Writes the CSV files into `dir`.
///
/// # Errors
/// When the disk refuses.
pub fn generate(dir: &Path, hosts: u32, hours: u32, seed: u64) -> Result<Data> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let steps = u64::from(hours) * 3600 / u64::from(INTERVAL_S);
    let steps_per_part = (ROWS_PER_PART / u64::from(hosts)).max(1);
    let mut walks = Walks::new(hosts, seed);
    let mut data = Data { hosts, hours, rows: 0, bytes: 0, dir: dir.to_owned(), parts: Vec::new() };
    for first in (0..steps).step_by(steps_per_part as usize) {
        let path = dir.join(format!("cpu_{:04}.csv", data.parts.len()));
        let mut text = String::new();
        let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
        let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
        for step in first..(first + steps_per_part).min(steps) {
            text.clear();
            walks.write_step(step, &mut text);
            file.write_all(text.as_bytes())?;
            data.bytes += text.len() as u64;
            data.rows += u64::from(hosts);
        }
        file.flush()?;
        data.parts.push(path);
    }
    Ok(data)
}

/// All random walks, advanced together.
struct Walks {
    rng: StdRng,
    hosts: u32,
    /// Host by host.
    values: Vec<f64>,
    /// Box and Muller's method makes two normal numbers at a time; the other one.
    spare: Option<f64>,
}

impl Walks {
    fn new(hosts: u32, seed: u64) -> Walks {
        let mut rng = StdRng::seed_from_u64(seed);
        let values = (0..hosts as usize * METRICS.len()).map(|_| rng.random_range(0.0..100.0)).collect();
        Walks { rng, hosts, values, spare: None }
    }

    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u, v) = (1.0 - self.rng.random::<f64>(), self.rng.random::<f64>());
        let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    fn write_step(&mut self, step: u64, text: &mut String) {
        let time = time_text(START_S + step as i64 * i64::from(INTERVAL_S));
        for host in 0..self.hosts as usize {
            write!(text, "{time}.000000,host_{host}").expect("strings take everything");
            for metric in 0..METRICS.len() {
                let step = self.normal();
                let value = &mut self.values[host * METRICS.len() + metric];
                *value = (*value + step).clamp(0.0, 100.0);
                write!(text, ",{}", value.floor() as u32).expect("strings take everything");
            }
            text.push('\n');
        }
    }
}

/// `YYYY-MM-DD HH:MM:SS` in UTC, by counting days from the first of March of year 0.
pub fn time_text(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time_text(START_S), "2016-01-01 00:00:00");
        assert_eq!(time_text(START_S + 59 * 86_400 + 86_399), "2016-02-29 23:59:59");
        assert_eq!(time_text(0), "1970-01-01 00:00:00");
        assert_eq!(time_text(-1), "1969-12-31 23:59:59");
    }

    #[test]
    fn one_seed_makes_one_data_set() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| generate(&dir.path().join(name), 3, 1, 42).unwrap());
        assert_eq!(files[0].rows, 3 * 360);
        let [a, b] = files.map(|data| std::fs::read_to_string(&data.parts[0]).unwrap());
        assert_eq!(a, b);
        let first = a.lines().next().unwrap();
        assert!(first.starts_with("2016-01-01 00:00:00.000000,host_0,"), "{first}");
        assert!(a.lines().all(|line| line.split(',').skip(2).all(|v| v.parse::<u32>().unwrap() <= 100)));
    }
}
