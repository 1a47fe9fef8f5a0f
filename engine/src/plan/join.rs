//! What a join allows: may it run where its inputs are, and what is known of its output then. Decides, changes nothing.

use super::shards::{Shards, column, plain};
use datafusion::common::{JoinType, NullEquality};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// A join of which one side or both may be on data nodes.
pub(super) struct Join {
    pub kind: JoinType,
    /// Pairs that must be equal.
    pub on: Vec<(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)>,
    /// `NOT IN`: one NULL of the subquery is the answer to all rows.
    pub null_aware: bool,
    /// NULL equals NULL.
    pub nulls_match: bool,
    /// There is a condition beside the pairs.
    filtered: bool,
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    /// Columns of the output, when not all.
    projection: Option<Vec<usize>>,
}

impl Join {
    pub fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Join> {
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            return Some(Join {
                kind: join.join_type,
                on: join.on.clone(),
                null_aware: join.null_aware,
                nulls_match: join.null_equality == NullEquality::NullEqualsNull,
                filtered: join.filter.is_some(),
                left: join.left.clone(),
                right: join.right.clone(),
                projection: join.projection.as_ref().map(|columns| columns.to_vec()),
            });
        }
        let (kind, left, right, filtered, projection) = if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let projection = join.projection().as_ref().map(|columns| columns.to_vec());
            (*join.join_type(), join.left(), join.right(), join.filter().is_some(), projection)
        } else {
            let join = plan.downcast_ref::<CrossJoinExec>()?;
            (JoinType::Inner, join.left(), join.right(), false, None)
        };
        let (left, right) = (left.clone(), right.clone());
        Some(Join { kind, on: vec![], null_aware: false, nulls_match: false, filtered, left, right, projection })
    }

    /// The output's shards, if rows that match are always on one node: then every node joins its own, whatever the kind
    /// of the join. A row without a match has none on any node.
    ///
    /// # Errors
    /// Why not.
    pub fn together(&self, left: &Shards, right: &Shards) -> Result<Shards, String> {
        let all = Shards::union(&[left, right]);
        if all.nodes.len() > 1 {
            if self.null_aware {
                return Err("NOT IN needs all rows of its subquery".to_owned());
            }
            if self.on.is_empty() {
                return Err("joined rows lie on several data nodes, and no keys say on which".to_owned());
            }
            left.homes.as_ref().map_err(String::clone)?;
            right.homes.as_ref().map_err(String::clone)?;
            if all.homes.is_err() {
                return Err("the joined tables are placed differently".to_owned());
            }
            let (left_schema, right_schema) = (self.left.schema(), self.right.schema());
            let same = |l: &Arc<dyn PhysicalExpr>, r: &Arc<dyn PhysicalExpr>| matches!((l.data_type(&left_schema), r.data_type(&right_schema)), (Ok(l), Ok(r)) if l == r);
            let by_space =
                self.on.iter().any(|(l, r)| left.holds(l, &left_schema) && right.holds(r, &right_schema) && same(l, r));
            if !by_space {
                let pairs = self.on.iter().map(|(l, r)| format!("{l} = {r}")).collect::<Vec<_>>().join(", ");
                return Err(format!("join keys ({}) do not contain the space columns of both sides", plain(&pairs)));
            }
        }
        let spaces = self.spaces(&left.spaces, &right.spaces);
        Ok(Shards { spaces, keys: Vec::new(), ..all })
    }

    pub fn input(&self, side: Side) -> &Arc<dyn ExecutionPlan> {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    pub fn is_inner(&self) -> bool {
        self.kind == JoinType::Inner
    }

    /// Whether each node may join its rows of the other side with all rows of `side`: no row of `side` shows by itself, or
    /// it would show once per node.
    pub fn may_send(&self, side: Side) -> bool {
        use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
        match side {
            Side::Left => matches!(self.kind, Inner | Right | RightSemi | RightAnti | RightMark),
            Side::Right => matches!(self.kind, Inner | Left | LeftSemi | LeftAnti | LeftMark),
        }
    }

    /// How many rows of one side are worth sending. Without keys, every one meets every row of the other side.
    pub fn rows_max(&self) -> usize {
        match (&self.on[..], self.filtered) {
            ([], false) => 1,
            ([], true) => 1_000,
            _ => 100_000,
        }
    }

    /// Whether rows of `side` that match nothing may be left out before the join.
    pub fn wants_matches_only(&self, side: Side) -> bool {
        use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
        !self.null_aware
            && !self.nulls_match
            && match side {
                Side::Left => matches!(self.kind, Inner | Right | LeftSemi | RightSemi | RightAnti | RightMark),
                Side::Right => matches!(self.kind, Inner | Left | LeftSemi | RightSemi | LeftAnti | LeftMark),
            }
    }

    /// Whether leaving out rows of `side` only leaves out those rows' own output.
    pub fn only_loses(&self, side: Side) -> bool {
        use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
        match side {
            Side::Left => matches!(self.kind, Inner | Left | LeftSemi | LeftAnti | LeftMark),
            Side::Right => matches!(self.kind, Inner | Right | RightSemi | RightAnti | RightMark),
        }
    }

    /// The input column that an output column is.
    pub fn origin(&self, output: usize) -> Option<(Side, usize)> {
        use JoinType::{LeftAnti, LeftMark, LeftSemi, RightAnti, RightMark, RightSemi};
        let joined = match &self.projection {
            Some(columns) => *columns.get(output)?,
            None => output,
        };
        let (left, right) = (self.left.schema().fields().len(), self.right.schema().fields().len());
        match self.kind {
            LeftSemi | LeftAnti | LeftMark => (joined < left).then_some((Side::Left, joined)),
            RightSemi | RightAnti | RightMark => (joined < right).then_some((Side::Right, joined)),
            _ if joined < left => Some((Side::Left, joined)),
            _ => Some((Side::Right, joined - left)),
        }
    }

    /// The output's shards when all rows of `sent` go to those of the other side.
    pub fn sent(&self, sent: Side, shards: &Shards) -> Shards {
        let none = BTreeSet::new();
        let spaces = match sent {
            Side::Left => self.spaces(&none, &shards.spaces),
            Side::Right => self.spaces(&shards.spaces, &none),
        };
        Shards { spaces, keys: Vec::new(), ..shards.clone() }
    }

    /// Output columns that hold an unchanged space value, given those of the inputs.
    pub fn spaces(&self, left: &BTreeSet<usize>, right: &BTreeSet<usize>) -> BTreeSet<usize> {
        use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
        let width = self.left.schema().fields().len();
        let (mut left, mut right) = (left.clone(), right.clone());
        if self.kind == Inner {
            // Equal values are as good as the same.
            for (l, r) in &self.on {
                let (l, r) = (column(l), column(r));
                let (Some(l), Some(r)) = (l, r) else { continue };
                if left.contains(&l) || right.contains(&r) {
                    left.insert(l);
                    right.insert(r);
                }
            }
        }
        // A side that may be filled up with NULL tells nothing of where a row is.
        let joined: BTreeSet<usize> = match self.kind {
            Inner => left.into_iter().chain(right.into_iter().map(|column| column + width)).collect(),
            Left | LeftSemi | LeftAnti | LeftMark => left,
            Right => right.into_iter().map(|column| column + width).collect(),
            RightSemi | RightAnti | RightMark => right,
            JoinType::Full => BTreeSet::new(),
        };
        match &self.projection {
            None => joined,
            Some(columns) => {
                let kept = columns.iter().enumerate().filter(|(_, from)| joined.contains(from));
                kept.map(|(to, _)| to).collect()
            }
        }
    }
}
