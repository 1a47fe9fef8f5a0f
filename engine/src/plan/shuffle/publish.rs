//! Rows a node holds for others: the output of fragments that publish, partition by partition, until it is fetched.

use crate::plan::error::hide;
use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, SendableRecordBatchStream};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use proto::{CommitSeq, Error, SqlState};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Everything that is published at the moment.
#[derive(Default)]
pub(in crate::plan) struct Exchanges {
    open: Mutex<HashMap<Key, Partitions>>,
}

/// Numbers of coordinators of different epochs are different ones.
type Key = (u64, u64);

/// Those nobody has fetched.
type Partitions = HashMap<u32, Published>;

/// One partition. Nothing is computed before the first of all partitions is polled.
struct Published {
    rows: SendableRecordBatchStream,
    /// Dropped with the rows; whoever publishes waits for all of them.
    taken: mpsc::Sender<()>,
    /// Until whoever publishes is gone.
    open: watch::Receiver<()>,
}

pub(in crate::plan) type Rows = BoxStream<'static, Result<RecordBatch>>;

impl Published {
    /// Polled once: an exchange only knows a reader that was there, and keeps rows for one it does not know.
    fn begun(self) -> Rows {
        let Published { mut rows, taken, open } = self;
        let rows = match rows.next().now_or_never() {
            None => rows.boxed(),
            Some(None) => return stream::empty().boxed(),
            Some(Some(first)) => stream::iter([first]).chain(rows).boxed(),
        };
        // What was fetched ends with the query as well, whether its reader has heard of that or not.
        let start = (rows.inspect(move |_| _ = &taken).boxed(), open);
        stream::unfold(start, |(mut rows, mut open)| async move {
            tokio::select! {
                biased;
                batch = rows.next() => Some((batch?, (rows, open))),
                _ = open.changed() => {
                    let ended = Err(hide(Error::internal("the query that published these rows has ended")));
                    Some((ended, (stream::empty().boxed(), open)))
                }
            }
        })
        .boxed()
    }
}

impl Exchanges {
    /// Takes a partition; it can be taken once. The rows of all partitions are computed on the caller's runtime, if this
    /// is the first.
    ///
    /// # Errors
    /// When it is not here (any more).
    pub fn take(&self, snapshot: CommitSeq, exchange: u64, partition: u32) -> proto::Result<Rows> {
        let mut open = self.open.lock();
        let found = open.get_mut(&(snapshot.epoch(), exchange)).and_then(|partitions| partitions.remove(&partition));
        drop(open);
        found
            .map(Published::begun)
            .ok_or_else(|| Error::internal("the rows to be fetched are gone: the query that published them has ended"))
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.open.lock().is_empty()
    }
}

/// Takes back what was published when it is dropped.
struct Open {
    exchanges: Arc<Exchanges>,
    key: Key,
    /// Closed by being dropped.
    _open: watch::Sender<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let partitions = self.exchanges.open.lock().remove(&self.key);
        // Outside the lock: dropping streams ends work.
        drop(partitions);
    }
}

/// Publishes the output of `plan`, an exchange. The returned future ends when all partitions were fetched and read, or
/// dropped; dropping it takes back those that were not fetched.
///
/// # Errors
/// When the plan is none that publishes, or the number is taken.
pub(in crate::plan) fn publish(
    exchanges: &Arc<Exchanges>,
    plan: &Arc<dyn ExecutionPlan>,
    (snapshot, number): (CommitSeq, u64),
    context: &Arc<TaskContext>,
) -> Result<impl Future<Output = ()> + Send + use<>> {
    // Results of subqueries that came along are above it.
    let exchange = if plan.is::<ScalarSubqueryExec>() { plan.children()[0] } else { plan };
    if !exchange.is::<RepartitionExec>() {
        return Err(hide(Error::new(
            SqlState::PROTOCOL_VIOLATION,
            "a fragment that publishes must end in an exchange",
        )));
    }
    let (taken, mut all_taken) = mpsc::channel(1);
    let (_open, open) = watch::channel(());
    let mut partitions = Partitions::new();
    for (number, partition) in (0..).zip(0..plan.output_partitioning().partition_count()) {
        let rows = plan.execute(partition, Arc::clone(context))?;
        partitions.insert(number, Published { rows, taken: taken.clone(), open: open.clone() });
    }
    let key = (snapshot.epoch(), number);
    let mut all = exchanges.open.lock();
    if all.contains_key(&key) {
        return Err(hide(Error::internal(format!("exchange {number} is published already"))));
    }
    all.insert(key, partitions);
    drop(all);
    let open = Open { exchanges: Arc::clone(exchanges), key, _open };
    Ok(async move {
        // Nothing is ever sent: it ends when nobody could.
        all_taken.recv().await;
        drop(open);
    })
}
