//! Threads that compute queries, apart from those that keep the cluster alive: a process says hello to others, commits
//! and elects while all of these are busy.

use super::attempt::Rows;
use arrow::array::RecordBatch;
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use proto::{Clock, Error, Result, SqlState};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Plans may be hundreds of operators deep.
const STACK_BYTES: usize = 64 << 20;
/// Batches that may wait for whoever takes them.
const BATCHES_AHEAD: usize = 2;
/// Going to another thread and back takes a good part of this.
const BRIEF: Duration = Duration::from_millis(1);

/// Ended when dropped, without waiting.
pub struct Workers {
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl Workers {
    /// `threads` compute; `readers` at most block on the disk at the same time.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(threads: usize, readers: usize) -> io::Result<Workers> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .max_blocking_threads(readers.max(1))
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Workers { handle, runtime: Mutex::new(Some(runtime)) })
    }

    /// Runs until the returned task is dropped.
    pub fn start(&self, work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(self.handle.spawn(work))
    }

    /// Cuts everything off. Does not wait for threads that read from the disk.
    pub fn stop(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    /// Computes rows here, for somebody who is elsewhere. Dropping the stream ends it.
    pub(super) fn carry(&self, mut rows: Rows) -> Rows {
        let (batches, received) = mpsc::channel(BATCHES_AHEAD);
        let running = self.start(async move {
            while let Some(batch) = rows.next().await {
                if batches.send(batch).await.is_err() {
                    break;
                }
            }
        });
        answer(received, running).boxed()
    }

    /// As `carry`, for rows that hardly take any computing: where they are asked for, and here only if that took long.
    pub(super) fn carry_if_long(self: &Arc<Self>, rows: Rows, clock: Arc<dyn Clock>) -> Rows {
        Brief { rows, workers: Some(Arc::clone(self)), spent: Duration::ZERO, clock }.boxed()
    }
}

/// Rows that have not taken long so far.
struct Brief {
    rows: Rows,
    /// `None`: these have them by now.
    workers: Option<Arc<Workers>>,
    spent: Duration,
    clock: Arc<dyn Clock>,
}

impl Stream for Brief {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(workers) = self.workers.clone() else { return self.rows.poll_next_unpin(context) };
        if self.spent > BRIEF {
            let rows = std::mem::replace(&mut self.rows, stream::empty().boxed());
            self.rows = workers.carry(rows);
            self.workers = None;
            return self.rows.poll_next_unpin(context);
        }
        let started = self.clock.elapsed();
        let polled = self.rows.poll_next_unpin(context);
        let took = self.clock.elapsed().saturating_sub(started);
        self.spent += took;
        polled
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Work under way; dropping it ends the work where it next waits.
pub struct Task(JoinHandle<()>);

impl Task {
    /// Why it is gone without having said how it ended; `None` when it came to its end.
    pub async fn cut_off(&mut self) -> Option<Error> {
        match (&mut self.0).await {
            Ok(()) => None,
            Err(error) if error.is_panic() => Some(Error::internal("a query stopped on an internal error")),
            Err(_) => Some(Error::new(SqlState::ADMIN_SHUTDOWN, "the process that ran the query is shutting down")),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A task that is cut off must not pass for one that came to its end.
fn answer(
    received: mpsc::Receiver<Result<RecordBatch>>,
    running: Task,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    stream::unfold(Some((received, running)), |state| async move {
        let (mut received, mut running) = state?;
        match received.recv().await {
            Some(Ok(batch)) => Some((Ok(batch), Some((received, running)))),
            Some(Err(error)) => Some((Err(error), None)),
            None => running.cut_off().await.map(|error| (Err(error), None)),
        }
    })
}
