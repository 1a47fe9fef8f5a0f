//! Conjuncts are moved to where they cut the fewest rows off late: into FROM items, and into joins as their keys.

use crate::pgcatalog::tree::{Expr, Join, JoinKind, Op, Source, SourceKind, each_column};

/// The parts of an AND.
pub(super) fn conjuncts(expr: Expr) -> Vec<Expr> {
    match expr {
        Expr::And(parts) => parts.into_iter().flat_map(conjuncts).collect(),
        other => vec![other],
    }
}

/// The lowest and highest position of this level an expression reads.
fn span(expr: &Expr) -> Option<(usize, usize)> {
    let mut span: Option<(usize, usize)> = None;
    each_column(expr, 0, &mut |index| {
        let (low, high) = span.unwrap_or((index, index));
        span = Some((low.min(index), high.max(index)));
    });
    span
}

/// A conjunct of WHERE.
pub(super) fn push(source: &mut Source, conjunct: Expr) {
    let SourceKind::Join { join, left, right } = &mut source.kind else {
        source.filter.push(conjunct);
        return;
    };
    let span = span(&conjunct);
    let left_only = span.is_none_or(|(_, high)| high < right.base);
    let right_only = span.is_some_and(|(low, _)| low >= right.base);
    match join.kind {
        JoinKind::Inner | JoinKind::Left if left_only => push(left, conjunct),
        JoinKind::Inner | JoinKind::Right if right_only => push(right, conjunct),
        JoinKind::Inner => attach(join, right, conjunct),
        _ => source.filter.push(conjunct),
    }
}

/// A conjunct of ON.
pub(super) fn push_on(join: &mut Join, left: &mut Source, right: &mut Source, conjunct: Expr) {
    let span = span(&conjunct);
    let left_only = span.is_none_or(|(_, high)| high < right.base);
    let right_only = span.is_some_and(|(low, _)| low >= right.base);
    match join.kind {
        JoinKind::Inner | JoinKind::Right if left_only && span.is_some() => push(left, conjunct),
        JoinKind::Inner | JoinKind::Left if right_only => push(right, conjunct),
        _ => attach(join, right, conjunct),
    }
}

/// As a key where it is `left = right`, else as a condition on each pair.
fn attach(join: &mut Join, right: &Source, conjunct: Expr) {
    let sides = |a: &Expr, b: &Expr| {
        let is_left = span(a).is_some_and(|(_, high)| high < right.base);
        is_left && span(b).is_some_and(|(low, _)| low >= right.base)
    };
    match conjunct {
        Expr::Binary { op: Op::Eq, left: a, right: b } if !right.lateral && sides(&a, &b) => join.keys.push((*a, *b)),
        Expr::Binary { op: Op::Eq, left: a, right: b } if !right.lateral && sides(&b, &a) => join.keys.push((*b, *a)),
        other => join.rest.push(other),
    }
}
