//! A second attempt for a join that does not fit into memory. Hash joins, which are faster, keep one side in memory and cannot
//! spill; merge joins sort both sides, and sorts spill. So a statement whose hash join fails for lack of memory before its
//! first row is planned once more, at the same snapshot, with merge joins.

use super::exchange::RemoteExec;
use arrow::array::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use proto::{Result, SqlState};
use std::future::Future;
use std::sync::Arc;

pub(super) type Rows = BoxStream<'static, Result<RecordBatch>>;

/// Whether the plan, or what it sends to nodes, has a hash join.
pub(super) fn hashes(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut found = false;
    plan.apply(|node| {
        let remote = node.downcast_ref::<RemoteExec>().is_some_and(|remote| hashes(&remote.fragment.plan));
        found |= remote || node.is::<HashJoinExec>();
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .expect("looking does not fail");
    found
}

/// `first`, or what `second` gives if that runs out of memory before its first row. Without a second one it fails as the
/// first did.
pub(super) fn or_else<F>(first: Rows, second: impl FnOnce() -> F + Send + 'static) -> Rows
where
    F: Future<Output = Result<Rows>> + Send + 'static,
{
    stream::once(opened(first, second)).flatten().boxed()
}

async fn opened<F: Future<Output = Result<Rows>>>(mut first: Rows, second: impl FnOnce() -> F) -> Rows {
    match first.next().await {
        Some(Err(error)) if error.code == SqlState::OUT_OF_MEMORY => {
            // What it holds is needed now.
            drop(first);
            match second().await {
                Ok(rows) => rows,
                Err(_) => just(Err(error)).boxed(),
            }
        }
        Some(item) => just(item).chain(first).boxed(),
        None => stream::empty().boxed(),
    }
}

fn just<T: Send>(item: T) -> impl Stream<Item = T> + Send {
    stream::once(std::future::ready(item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;
    use proto::Error;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn row() -> Result<RecordBatch> {
        Ok(RecordBatch::new_empty(Arc::new(Schema::empty())))
    }

    fn failed(code: SqlState) -> Result<RecordBatch> {
        Err(Error::new(code, "failed"))
    }

    async fn tried(first: Vec<Result<RecordBatch>>, second: Result<Rows>) -> (Vec<Result<RecordBatch>>, bool) {
        let asked = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&asked);
        let rows = or_else(stream::iter(first).boxed(), move || {
            told.store(true, Ordering::Relaxed);
            std::future::ready(second)
        });
        (rows.collect().await, asked.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn only_a_lack_of_memory_before_the_first_row_is_tried_again() {
        let memory = SqlState::OUT_OF_MEMORY;
        let two = || Ok(stream::iter([row(), row()]).boxed());
        assert_eq!(tried(vec![failed(memory)], two()).await, (vec![row(), row()], true));
        for first in [vec![], vec![row()], vec![row(), failed(memory)], vec![failed(SqlState::DIVISION_BY_ZERO)]] {
            assert_eq!(tried(first.clone(), two()).await, (first, false));
        }
        let planless = Err(Error::unsupported("a merge join"));
        assert_eq!(tried(vec![failed(memory)], planless).await, (vec![failed(memory)], true));
    }
}
