//! One child process: started, awaited by the line it prints, stopped by its id.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// A debug build on a busy machine starts within a second or two; recovery may have a log to replay.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// A server prints a handful of lines; more than this unread ones and it waits for us, which no test lets happen.
const LINES_UNREAD_MAX: usize = 4096;

pub struct Process {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
    address: SocketAddr,
}

impl Process {
    /// Returns when the process has printed `ready` and an address. Its stderr is appended to `log`.
    ///
    /// # Errors
    /// What the process left on stderr, when it ended or kept silent instead of getting ready.
    pub fn try_start(mut command: Command, ready: &str, log: &Path) -> Result<Process, String> {
        let stderr = OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = sync_channel(LINES_UNREAD_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // When nobody listens any more the pipe must still be drained.
                let _ = sender.send(line);
            }
        });
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Process { child, lines, log: log.to_owned(), address: unbound };
        process.address = process.await_address(&command, ready)?;
        Ok(process)
    }

    fn await_address(&mut self, command: &Command, ready: &str) -> Result<SocketAddr, String> {
        loop {
            match self.lines.recv_timeout(START_TIMEOUT) {
                Ok(line) => match line.strip_prefix(ready) {
                    Some(address) => return address.trim().parse().map_err(|e| format!("\"{line}\": {e}")),
                    None => continue,
                },
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("{command:?} did not print \"{ready}\"\n{}", self.log_tail()));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().unwrap();
                    return Err(format!("{command:?} ended with {status}\n{}", self.log_tail()));
                }
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As `kill` spells it: `-STOP`, `-CONT`.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success(), "no process {id}");
    }

    /// SIGTERM; panics unless the process then ends with code 0.
    pub fn terminate(mut self) {
        self.signal("-TERM");
        let status = self.wait();
        assert!(status.success(), "after SIGTERM: {status}\n{}", self.log_tail());
    }

    /// How it ended, if it has.
    #[cfg(feature = "failpoints")]
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The end of stdout is the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        loop {
            match self.lines.recv_timeout(STOP_TIMEOUT) {
                Ok(_) => continue,
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("still running\n{}", self.log_tail()),
            }
        }
    }

    /// Of all its threads, as the system counts it: in hundredths of a second.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name of the program may hold blanks; behind it come the state and, as eleventh and twelfth from there, the times.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>();
        Duration::from_millis(ticks * 10)
    }

    /// The last lines of its stderr.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines().collect::<Vec<_>>();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
