//! Threads that compute queries, apart from those that keep the cluster alive: a process says hello to others, commits
//! and elects while all of these are busy.

use super::error::reveal;
use arrow::array::RecordBatch;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use proto::{Error, Result, SqlState};
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Batches that may wait for whoever takes them.
const BATCHES_AHEAD: usize = 2;

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

    /// Computes a plan here, for somebody who is elsewhere. Dropping the stream ends it.
    pub(super) fn rows(&self, plan: Arc<dyn ExecutionPlan>, task: Arc<TaskContext>) -> BoxStream<'static, Batch> {
        let (batches, received) = mpsc::channel(BATCHES_AHEAD);
        let running = self.start(async move {
            if let Err(error) = pass_on(plan, task, &batches).await {
                batches.send(Err(error)).await.ok();
            }
        });
        answer(received, running).boxed()
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

type Batch = Result<RecordBatch>;

async fn pass_on(plan: Arc<dyn ExecutionPlan>, task: Arc<TaskContext>, batches: &mpsc::Sender<Batch>) -> Result<()> {
    let mut stream = execute_stream(plan, task).map_err(reveal)?;
    while let Some(batch) = stream.next().await {
        if batches.send(Ok(batch.map_err(reveal)?)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// A task that is cut off must not pass for one that came to its end.
fn answer(received: mpsc::Receiver<Batch>, running: Task) -> impl Stream<Item = Batch> + Send {
    stream::unfold(Some((received, running)), |state| async move {
        let (mut received, mut running) = state?;
        match received.recv().await {
            Some(Ok(batch)) => Some((Ok(batch), Some((received, running)))),
            Some(Err(error)) => Some((Err(error), None)),
            None => running.cut_off().await.map(|error| (Err(error), None)),
        }
    })
}
