//! What operators and what they do are called.

use super::super::exchange::RemoteExec;
use super::super::pace;
use super::super::scan::ChunkScan;
use super::super::shards::plain;
use super::tree::{Title, Value};
use chrono::DateTime;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

/// What only brings rows from here to there.
pub(super) fn plumbing(name: &str) -> bool {
    matches!(name, pace::NAME | "SortPreservingMergeExec") || (silent(name) && name != "ProjectionExec")
}

/// What says nothing to a user.
pub(super) fn silent(name: &str) -> bool {
    matches!(
        name,
        "CoalescePartitionsExec"
            | "CoalesceBatchesExec"
            | "CollectedExec"
            | "CooperativeExec"
            | "RepartitionExec"
            | "ProjectionExec"
    )
}

/// The operator as PostgreSQL would call it.
pub(in super::super) fn operator(plan: &dyn ExecutionPlan) -> Title {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let kind = match aggregate.group_expr().is_empty() {
            true => "Aggregate",
            false => "HashAggregate",
        };
        let step = match aggregate.mode() {
            AggregateMode::Partial => "partial",
            AggregateMode::PartialReduce => "partial, per data node",
            AggregateMode::Final | AggregateMode::FinalPartitioned => "final",
            AggregateMode::Single | AggregateMode::SinglePartitioned => "complete",
        };
        return Title::new(kind).with("Partial Mode", step);
    }
    if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
        let table = scan.source.as_ref().map_or("?", |source| &source.table.name);
        return Title::new("Seq Scan").on(table);
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return match join.join_type() {
            JoinType::Inner => Title::new("Hash Join"),
            other => Title::new(format!("Hash {other} Join")),
        };
    }
    if plan.downcast_ref::<SortExec>().is_some_and(|sort| sort.fetch().is_some()) {
        return Title::new("Sort").with("Sort Method", "top-N");
    }
    Title::new(match plan.name() {
        "BoundedWindowAggExec" | "WindowAggExec" => "WindowAgg",
        "CoalescePartitionsExec" => "Gather",
        "CrossJoinExec" | "NestedLoopJoinExec" => "Nested Loop",
        "DataSourceExec" => "Values Scan",
        "LazyMemoryExec" | "StreamingTableExec" => "Function Scan",
        "RecursiveQueryExec" => "Recursive Union",
        "UnnestExec" => "ProjectSet",
        "WorkTableExec" => "WorkTable Scan",
        "GapFillExec" => return Title::custom("GapFill"),
        "GlobalLimitExec" | "LocalLimitExec" => "Limit",
        "ScalarSubqueryExec" => "InitPlan",
        "SentRows" => "Broadcast Scan",
        "ShuffledRows" => "Shuffle Scan",
        "SortMergeJoinExec" => "Merge Join",
        "SortPreservingMergeExec" => "Merge Append",
        "InterleaveExec" | "UnionExec" => "Append",
        "PlaceholderRowExec" | "EmptyExec" => "Result",
        other => other.strip_suffix("Exec").unwrap_or(other),
    })
}

/// What the operator does in particular.
pub(super) fn details(plan: &dyn ExecutionPlan) -> Vec<(&'static str, Value)> {
    let mut details = Vec::new();
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let keys = aggregate.group_expr().expr().iter().map(|(_, name)| unwrapped(&plain(name)));
        let keys = keys.collect::<Vec<_>>();
        if !keys.is_empty() {
            details.push(("Group Key", Value::List(keys)));
        }
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        details.push(("Filter", Value::Text(shown(filter.predicate()))));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let pairs = join.on().iter().map(|(left, right)| format!("({} = {})", shown(left), shown(right)));
        details.push(("Hash Cond", Value::Text(pairs.collect::<Vec<_>>().join(" AND "))));
        if let Some(filter) = join.filter() {
            details.push(("Join Filter", Value::Text(shown(filter.expression()))));
        }
    }
    let order = plan.downcast_ref::<SortExec>().map(SortExec::expr);
    if let Some(order) = order.or(plan.downcast_ref::<SortPreservingMergeExec>().map(SortPreservingMergeExec::expr)) {
        let keys = order.iter().map(|key| {
            let options = match (key.options.descending, key.options.nulls_first) {
                (false, false) => "",
                (true, true) => " DESC",
                (false, true) => " NULLS FIRST",
                (true, false) => " DESC NULLS LAST",
            };
            format!("{}{options}", shown(&key.expr))
        });
        details.push(("Sort Key", Value::List(keys.collect())));
    }
    if let Some(rows) = plan.fetch() {
        details.push(("Limit", Value::Count(rows as u64)));
    }
    details
}

/// `rows of a, b`: the tables a side of a join is made of.
pub(super) fn rows_of(plan: &dyn ExecutionPlan) -> String {
    fn tables(plan: &dyn ExecutionPlan, names: &mut Vec<String>) {
        if let Some(source) = plan.downcast_ref::<ChunkScan>().and_then(|scan| scan.source.as_ref()) {
            names.push(source.table.name.clone());
        }
        if let Some(remote) = plan.downcast_ref::<RemoteExec>() {
            tables(remote.fragment.plan.as_ref(), names);
        }
        plan.children().into_iter().for_each(|child| tables(child.as_ref(), names));
    }
    let mut names = Vec::new();
    tables(plan, &mut names);
    names.sort();
    names.dedup();
    match names.is_empty() {
        true => "rows of the access node".to_owned(),
        false => format!("rows of {}", names.join(", ")),
    }
}

/// An expression with its constants as SQL spells them.
pub(super) fn shown(expr: &Arc<dyn PhysicalExpr>) -> String {
    let spelled = Arc::clone(expr).transform_down(|part| {
        let Some(literal) = part.downcast_ref::<Literal>() else { return Ok(Transformed::no(part)) };
        let text = match literal.value() {
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                text.clone()
            }
            ScalarValue::TimestampMicrosecond(Some(us), zone) => match DateTime::from_timestamp_micros(*us) {
                Some(time) => {
                    let zone = if zone.is_some() { "+00" } else { "" };
                    format!("{}{zone}", time.format("%Y-%m-%d %H:%M:%S%.f"))
                }
                None => return Ok(Transformed::no(part)),
            },
            _ => return Ok(Transformed::no(part)),
        };
        let quoted = format!("'{}'", text.replace('\'', "''"));
        Ok(Transformed::yes(Arc::new(Literal::new(ScalarValue::Utf8(Some(quoted)))) as Arc<dyn PhysicalExpr>))
    });
    let text = spelled.map_or_else(|_| expr.to_string(), |spelled| spelled.data.to_string());
    // Its value, once there is one.
    let text = text.replace("scalar_subquery(<pending>)", "(InitPlan)").replace("scalar_subquery(", "(");
    unwrapped(&plain(&text))
}

/// Names of computed columns keep the planner's spelling of constants: `Utf8("1 day")` becomes `'1 day'`, `Int64(1)`
/// becomes `1`.
pub(super) fn unwrapped(name: &str) -> String {
    let mut text = name.to_owned();
    for (open, close, quote) in [("Utf8(\"", "\")", "'"), ("Int64(", ")", "")] {
        let mut from = 0;
        while let Some(start) = text[from..].find(open).map(|at| from + at) {
            let inner = start + open.len();
            let Some(end) = text[inner..].find(close).map(|at| inner + at) else { break };
            let constant = format!("{quote}{}{quote}", &text[inner..end]);
            text.replace_range(start..end + close.len(), &constant);
            from = start + constant.len();
        }
    }
    text
}
