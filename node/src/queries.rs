//! Fragments at work: each is a task on the node's query runtime, watched by the stream it fills.

use engine::plan::Executor;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use proto::{Error, FragmentMessage, FragmentRequest, FragmentStream, Result, SqlState};
use std::io;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Messages of one fragment that may wait for their receiver: one on its way, one behind it.
const MESSAGES_AHEAD: usize = 2;

/// Ended when dropped: running fragments are cut off.
pub(crate) struct Queries {
    executor: Arc<Executor>,
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl Queries {
    /// `threads` compute; `readers` at most block on the disk at the same time.
    pub(crate) fn new(executor: Executor, threads: usize, readers: usize) -> io::Result<Queries> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .max_blocking_threads(readers.max(1))
            .thread_name("query")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Queries { executor: Arc::new(executor), handle, runtime: Mutex::new(Some(runtime)) })
    }

    pub(crate) fn start(&self, request: FragmentRequest) -> FragmentStream {
        let (messages, received) = mpsc::channel(MESSAGES_AHEAD);
        let executor = Arc::clone(&self.executor);
        let task = Task(self.handle.spawn(async move {
            if let Err(error) = run(&executor, request, &messages).await {
                messages.send(Err(error)).await.ok();
            }
        }));
        let start = Answer { received, task, ended: false };
        stream::unfold(start, |mut answer| async move { Some((answer.next().await?, answer)) }).boxed()
    }

    /// Cuts running fragments off. Does not wait for threads that read from the disk.
    pub(crate) fn stop(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        self.stop();
    }
}

type Message = Result<FragmentMessage>;

async fn run(executor: &Executor, request: FragmentRequest, messages: &mpsc::Sender<Message>) -> Result<()> {
    let mut stream = executor.start(&request)?;
    while let Some(message) = stream.next().await {
        if messages.send(Ok(message?)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The receiving end; dropping it aborts the task, and with it everything the plan runs.
struct Answer {
    received: mpsc::Receiver<Message>,
    task: Task,
    /// The last message was given out.
    ended: bool,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    async fn next(&mut self) -> Option<Message> {
        if self.ended {
            return None;
        }
        let message = match self.received.recv().await {
            Some(message) => message,
            None => Err(self.cut_off().await),
        };
        self.ended = matches!(message, Err(_) | Ok(FragmentMessage::Metrics(_)));
        Some(message)
    }

    /// The task is gone without a last message.
    async fn cut_off(&mut self) -> Error {
        match (&mut self.task.0).await {
            Err(error) if error.is_panic() => Error::internal("a fragment stopped on an internal error"),
            _ => Error::new(SqlState::ADMIN_SHUTDOWN, "the data node is shutting down"),
        }
    }
}
