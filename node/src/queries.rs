//! Fragments at work: each is a task on the node's query threads, watched by the stream it fills. Those that are not
//! short take turns (`engine::plan::Turns`).
//!
//! Calls that write, commit, or ask how the node is, are on other threads and never wait for these.

use engine::plan::{Executor, Task, Turn, Turns, Workers};
use futures::{StreamExt, stream};
use proto::{Clock, Error, FetchRequest, FragmentMessage, FragmentRequest, FragmentStream, Result};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// Messages that leave together when they are ready together: the only batch of a short answer, and its metrics.
const MESSAGES_TOGETHER: usize = 2;
/// How often a fragment's messages may wait for their receiver: once on their way, once behind these.
const MESSAGES_AHEAD: usize = 2;
/// Nobody takes the rows: whoever reads as fast as they come keeps its turn.
const PARK_AFTER: Duration = Duration::from_millis(10);
/// One that waits for the disk shall not keep everybody waiting.
const SLOTS_MIN: usize = 2;

/// Fragments that may wait for their turn to compute.
const WAITING_MAX: usize = 512;

/// Ended when dropped: running fragments are cut off.
pub(crate) struct Queries {
    executor: Arc<Executor>,
    turns: Arc<Turns>,
    workers: Workers,
}

impl Queries {
    /// `threads` compute, and as many fragments that are not short; `readers` at most block on the disk at the same time.
    pub(crate) fn new(
        executor: Executor,
        threads: usize,
        readers: usize,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Queries> {
        let turns = Arc::new(Turns::new(threads.max(SLOTS_MIN), WAITING_MAX, clock));
        Ok(Queries { executor: Arc::new(executor), turns, workers: Workers::new(threads, readers)? })
    }

    pub(crate) fn start(&self, request: FragmentRequest) -> FragmentStream {
        self.run(move |executor, turn| executor.start_in(&request, Some(turn)))
    }

    /// On return the rows can be fetched.
    pub(crate) async fn publish(&self, request: FragmentRequest) -> Result<FragmentStream> {
        self.started(move |executor| executor.start(&request)).await
    }

    /// On return the rows are taken; whoever does not want them drops the stream.
    pub(crate) async fn fetch(&self, request: FetchRequest) -> Result<FragmentStream> {
        self.started(move |executor| executor.fetch(&request)).await
    }

    async fn started(
        &self,
        start: impl FnOnce(&Executor) -> Result<FragmentStream> + Send + 'static,
    ) -> Result<FragmentStream> {
        let (started, waiting) = oneshot::channel();
        let mut stream = self.run(move |executor, _| {
            let stream = start(executor)?;
            // Whoever waited may be gone, and with it the stream.
            started.send(()).ok();
            Ok(stream)
        });
        match waiting.await {
            Ok(()) => Ok(stream),
            Err(_) => match stream.next().await {
                Some(Err(error)) => Err(error),
                _ => Err(Error::internal("a fragment ended before it began")),
            },
        }
    }

    fn run(
        &self,
        start: impl FnOnce(&Executor, &Arc<Turn>) -> Result<FragmentStream> + Send + 'static,
    ) -> FragmentStream {
        let (messages, received) = mpsc::channel(MESSAGES_AHEAD);
        let (executor, turn) = (Arc::clone(&self.executor), Arc::new(self.turns.turn()));
        let task = self.workers.start(async move {
            if let Err(error) = run(&executor, start, &turn, &messages).await {
                messages.send(vec![Err(error)]).await.ok();
            }
        });
        let start = Answer { received, ready: VecDeque::new(), task, ended: false };
        stream::unfold(start, |mut answer| async move { Some((answer.next().await?, answer)) }).boxed()
    }

    /// Cuts running fragments off. Does not wait for threads that read from the disk.
    pub(crate) fn stop(&self) {
        self.workers.stop();
    }
}

type Message = Result<FragmentMessage>;

async fn run(
    executor: &Executor,
    start: impl FnOnce(&Executor, &Arc<Turn>) -> Result<FragmentStream>,
    turn: &Arc<Turn>,
    messages: &mpsc::Sender<Vec<Message>>,
) -> Result<()> {
    let mut stream = start(executor, turn)?.ready_chunks(MESSAGES_TOGETHER);
    while let Some(together) = stream.next().await {
        let failed = together.iter().any(Result::is_err);
        let unsent = match messages.try_send(together) {
            Ok(()) if failed => break,
            Ok(()) => continue,
            Err(TrySendError::Closed(_)) => break,
            Err(TrySendError::Full(together)) => together,
        };
        let mut sent = pin!(messages.send(unsent));
        let taken = match tokio::time::timeout(PARK_AFTER, &mut sent).await {
            Ok(taken) => taken,
            Err(_) => {
                turn.park();
                let taken = sent.await;
                turn.resume();
                taken
            }
        };
        if failed || taken.is_err() {
            break;
        }
    }
    Ok(())
}

/// The receiving end; dropping it aborts the task, and with it everything the plan runs.
struct Answer {
    received: mpsc::Receiver<Vec<Message>>,
    ready: VecDeque<Message>,
    task: Task,
    /// The last message was given out.
    ended: bool,
}

impl Answer {
    async fn next(&mut self) -> Option<Message> {
        if self.ended {
            return None;
        }
        if self.ready.is_empty() {
            self.ready.extend(self.received.recv().await.into_iter().flatten());
        }
        let message = match self.ready.pop_front() {
            Some(message) => message,
            None => Err(self.cut_off().await),
        };
        self.ended = matches!(message, Err(_) | Ok(FragmentMessage::Metrics(..)));
        Some(message)
    }

    /// The task is gone without a last message.
    async fn cut_off(&mut self) -> Error {
        self.task.cut_off().await.unwrap_or_else(|| Error::internal("a fragment ended without its last message"))
    }
}
