//! Start and finish out of WHERE: comparisons of the time column with constants, joined by AND, in the query that
//! groups, in inner joins of its FROM, and in sub-queries that pass the column on.

use super::node::Bound;
use crate::functions::types::{Class, class};
use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, JoinType, LogicalPlan, Operator};

/// All bounds found.
#[derive(Debug, Default)]
pub struct Bounds {
    pub start: Vec<Bound>,
    pub finish: Vec<Bound>,
}

/// The bounds on `column` that hold for the rows of `plan`.
pub fn bounds(plan: &LogicalPlan, column: &Column) -> Bounds {
    let mut found = Bounds::default();
    collect(plan, column, &mut found);
    found
}

/// The column that a time is, perhaps brought to a wider type for a comparison.
pub fn column_of(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => column_of(&alias.expr),
        Expr::Cast(cast) => match class(cast.field.data_type()) {
            Class::Integer | Class::Timestamp | Class::Timestamptz => column_of(&cast.expr),
            _ => None,
        },
        Expr::ScalarFunction(call) => match call.args.as_slice() {
            [inner] if matches!(call.name(), "cast_timestamp" | "cast_timestamptz") => column_of(inner),
            _ => None,
        },
        _ => None,
    }
}

/// Known before the first row is read: constants, parameters, `now()`.
pub fn is_simple(expr: &Expr) -> bool {
    let mut simple = !expr.is_volatile() && !expr.any_column_refs();
    expr.apply(|part| {
        simple &= !matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
        );
        Ok(TreeNodeRecursion::Continue)
    })
    .is_ok()
        && simple
}

pub fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Cast(cast) => is_null(&cast.expr),
        _ => false,
    }
}

fn collect(plan: &LogicalPlan, column: &Column, found: &mut Bounds) {
    match plan {
        LogicalPlan::Filter(filter) => {
            split_conjunction(&filter.predicate).into_iter().for_each(|part| compare(part, column, found));
            collect(&filter.input, column, found);
        }
        LogicalPlan::Join(join) => {
            if let (JoinType::Inner, Some(filter)) = (join.join_type, &join.filter) {
                split_conjunction(filter).into_iter().for_each(|part| compare(part, column, found));
            }
            // The side that may be padded with NULLs is not bound.
            let sides = [
                (&join.left, matches!(join.join_type, JoinType::Inner | JoinType::Left)),
                (&join.right, matches!(join.join_type, JoinType::Inner | JoinType::Right)),
            ];
            let own = sides.into_iter().filter(|(side, kept)| *kept && side.schema().has_column(column));
            own.for_each(|(side, _)| collect(side, column, found));
        }
        LogicalPlan::SubqueryAlias(alias) => {
            if let Some(index) = alias.schema.maybe_index_of_column(column) {
                let inner = Column::from(alias.input.schema().qualified_field(index));
                collect(&alias.input, &inner, found);
            }
        }
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column);
            if let Some(Expr::Column(inner)) = index.map(|index| projection.expr[index].clone().unalias()) {
                collect(&projection.input, &inner, found);
            }
        }
        _ => {}
    }
}

fn compare(condition: &Expr, column: &Column, found: &mut Bounds) {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if column_of(left) == Some(column) {
                bound(*op, right, found);
            } else if column_of(right) == Some(column)
                && let Some(op) = op.swap()
            {
                bound(op, left, found);
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) if column_of(expr) == Some(column) => {
            bound(Operator::GtEq, low, found);
            bound(Operator::LtEq, high, found);
        }
        _ => {}
    }
}

fn bound(op: Operator, value: &Expr, found: &mut Bounds) {
    let (list, next) = match op {
        Operator::GtEq => (&mut found.start, false),
        Operator::Gt => (&mut found.start, true),
        Operator::Lt => (&mut found.finish, false),
        Operator::LtEq => (&mut found.finish, true),
        _ => return,
    };
    if is_simple(value) {
        list.push(Bound { value: value.clone(), next });
    }
}
