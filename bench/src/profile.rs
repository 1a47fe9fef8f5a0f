//! Where the time of a query type goes: its statements again and again for a few seconds, under `perf record` of each of our
//! processes, and a flame graph for each type and process.
//!
//! What it measures is not what `timing` measured: perf costs time itself.

use crate::args::ProfileArgs;
use crate::flamegraph::Frame;
use crate::load::connect;
use crate::queries::Kind;
use crate::report::Timing;
use crate::timing::fetch;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Samples per second and thread; not in step with anything that happens a hundred times a second.
const FREQUENCY: &str = "197";

/// For perf to get ready.
const BEGIN_MAX: Duration = Duration::from_secs(30);

/// A process to look at.
pub struct Watched {
    pub name: String,
    pub id: u32,
}

/// # Errors
/// When perf is missing, or may not look at other processes.
pub fn ensure_perf() -> Result<()> {
    let found = Command::new("perf").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(
        found.is_ok_and(|status| status.success()),
        "--profile needs the program `perf` (Debian: package linux-perf); install it, or leave --profile out"
    );
    Ok(())
}

/// Writes `TYPE.PROCESS.svg` for all types that are slow enough.
///
/// # Errors
/// perf's, and the server's.
pub async fn run(url: &str, watched: &[Watched], kinds: &[Kind], timings: &[Timing], args: &ProfileArgs) -> Result<()> {
    let Some(dir) = &args.profile else { return Ok(()) };
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for (kind, _) in kinds.iter().zip(timings).filter(|(_, timing)| is_slow(timing, args.profile_above_ms)) {
        let recordings = watched.iter().map(|process| Recording::start(process, kind.name, dir));
        let mut recordings = recordings.collect::<Result<Vec<_>>>()?;
        for recording in &mut recordings {
            recording.begun().await?;
        }
        let runs = repeat(url, kind, Duration::from_secs(args.profile_seconds)).await?;
        for recording in recordings {
            let (path, samples) = recording.finish(kind.name, runs)?;
            println!("{:<24} {runs} runs, {samples} samples: {}", kind.name, path.display());
        }
    }
    Ok(())
}

fn is_slow(timing: &Timing, above_ms: f64) -> bool {
    timing.error.is_none() && timing.p50_ms > above_ms
}

/// Returns how often a statement of the type ran.
async fn repeat(url: &str, kind: &Kind, length: Duration) -> Result<u64> {
    let client = connect(url).await?;
    let (started, mut runs) = (Instant::now(), 0);
    for statement in kind.statements.iter().cycle() {
        if started.elapsed() >= length {
            break;
        }
        fetch(&client, statement).await?;
        runs += 1;
    }
    Ok(runs)
}

/// perf at work on one process.
struct Recording {
    process: String,
    perf: Child,
    samples: PathBuf,
}

impl Recording {
    fn start(process: &Watched, kind: &str, dir: &Path) -> Result<Recording> {
        let samples = dir.join(format!("{kind}.{}.perf", process.name));
        let mut command = Command::new("perf");
        // The binary has no frame pointers.
        command.args(["record", "-q", "-F", FREQUENCY, "--call-graph", "dwarf,16384", "-p", &process.id.to_string()]);
        command.arg("-o").arg(&samples).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let perf = command.spawn().context("perf record")?;
        Ok(Recording { process: process.name.clone(), perf, samples })
    }

    /// Waits until perf has found all threads: then it has written the head of its file.
    async fn begun(&mut self) -> Result<()> {
        let started = Instant::now();
        while std::fs::metadata(&self.samples).map_or(0, |file| file.len()) == 0 {
            let waits = self.perf.try_wait()?.is_none() && started.elapsed() < BEGIN_MAX;
            ensure!(waits, "perf does not record {} (see /proc/sys/kernel/perf_event_paranoid)", self.process);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Returns the picture's path and the number of its samples.
    fn finish(mut self, kind: &str, runs: u64) -> Result<(PathBuf, u64)> {
        // On SIGINT it writes what it has; `Child::kill` would lose that.
        let id = self.perf.id().to_string();
        Command::new("kill").args(["-INT", &id]).stderr(Stdio::null()).status().context("kill")?;
        let mut said = String::new();
        if let Some(mut stderr) = self.perf.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut said)?;
        }
        self.perf.wait()?;
        if !self.samples.is_file() {
            bail!(
                "perf recorded nothing of {}: {} (see /proc/sys/kernel/perf_event_paranoid)",
                self.process,
                said.trim()
            );
        }
        let mut command = Command::new("perf");
        command.args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(&self.samples).stderr(Stdio::null());
        let script = command.output().context("perf script")?;
        let root = Frame::of_script(&String::from_utf8_lossy(&script.stdout));
        let path = self.samples.with_extension("svg");
        std::fs::write(&path, root.svg(&format!("{kind}, {}, {runs} runs", self.process)))?;
        std::fs::remove_file(&self.samples)?;
        Ok((path, root.samples))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Fails only when it has ended, which is as it should be.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slow_types_that_work_are_looked_at() {
        let timing = Timing::new("x", vec![5.0], 1);
        assert!(is_slow(&timing, 0.0) && is_slow(&timing, 4.9));
        assert!(!is_slow(&timing, 5.0));
        assert!(!is_slow(&Timing::failed("x", "no"), 0.0));
    }
}
