//! A second attempt for a join that does not fit into memory. Hash joins, which are faster, keep one side in memory and cannot
//! spill; merge joins sort both sides, and sorts spill. So a statement whose hash join fails for lack of memory before its
//! first row is planned once more, at the same snapshot, with merge joins.

use super::exchange::RemoteExec;
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, SortMergeJoinExec};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use proto::{Result, SqlState};
use std::future::Future;
use std::sync::Arc;

pub(super) type Rows = BoxStream<'static, Result<RecordBatch>>;

type Looked = Result<bool, DataFusionError>;

/// Whether the plan, or what it sends to nodes, has a hash join.
pub(super) fn hashes(plan: &Arc<dyn ExecutionPlan>) -> bool {
    // One that looks for NULLs, as NOT IN does, has no other form.
    let hashes =
        |node: &Arc<dyn ExecutionPlan>| Ok(node.downcast_ref::<HashJoinExec>().is_some_and(|join| !join.null_aware));
    any(plan, &hashes).expect("looking does not fail")
}

/// Whether its merge joins, here and on nodes, compare keys as hash joins do.
///
/// # Errors
/// Of a plan whose keys have no type.
pub(super) fn merges(plan: &Arc<dyn ExecutionPlan>) -> Looked {
    let unlike = |node: &Arc<dyn ExecutionPlan>| {
        let Some(join) = node.downcast_ref::<SortMergeJoinExec>() else { return Ok(false) };
        let keys = join.on().iter().map(|(left, _)| left.data_type(&join.left().schema()));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        Ok(match join.join_type() {
            // The sides are sorted with -0 before 0, and compared as if these were equal.
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                keys.split_last().is_some_and(|(_, first)| first.iter().any(DataType::is_floating))
            }
            _ => !keys.iter().all(is_plain),
        })
    };
    Ok(!any(plan, &unlike)?)
}

/// Merge joins that ask whether there is a match compare only these.
fn is_plain(ty: &DataType) -> bool {
    ty.is_integer() || ty.is_string() || matches!(ty, DataType::Boolean | DataType::Date32 | DataType::Decimal128(..))
}

/// Whether some operator of the plan, or of what it sends to nodes, is such.
fn any(plan: &Arc<dyn ExecutionPlan>, such: &dyn Fn(&Arc<dyn ExecutionPlan>) -> Looked) -> Looked {
    let mut found = false;
    plan.apply(|node| {
        found = such(node)?;
        if let (false, Some(remote)) = (found, node.downcast_ref::<RemoteExec>()) {
            found = any(&remote.fragment.plan, such)?;
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// `first`, or what `second` gives if that runs out of memory before its first row. Without a second one, or when that
/// cannot do it at all, it fails as the first did.
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
            let Ok(mut second) = second().await else { return just(Err(error)).boxed() };
            match second.next().await {
                Some(Err(other))
                    if [SqlState::INTERNAL_ERROR, SqlState::FEATURE_NOT_SUPPORTED].contains(&other.code) =>
                {
                    just(Err(error)).boxed()
                }
                Some(item) => just(item).chain(second).boxed(),
                None => stream::empty().boxed(),
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
        let unable = Ok(stream::iter([failed(SqlState::INTERNAL_ERROR)]).boxed());
        assert_eq!(tried(vec![failed(memory)], unable).await, (vec![failed(memory)], true));
        let planless = Err(Error::unsupported("a merge join"));
        assert_eq!(tried(vec![failed(memory)], planless).await, (vec![failed(memory)], true));
    }
}
