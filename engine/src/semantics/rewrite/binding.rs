//! `a IS DISTINCT FROM b AND c`: the parser takes all that follows for the right operand. Here AND, OR and NOT go where
//! PostgreSQL's precedence has them.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};
use std::collections::VecDeque;
use std::mem;

/// Binds the operators of `expr` anew, up to the next parentheses, if one of them has taken too much.
pub fn rebind(expr: &mut Expr) {
    if !takes_too_much(expr) {
        return;
    }
    let (taken, mut pieces) = (mem::replace(expr, Expr::value(Value::Null)), VecDeque::new());
    unbind(taken, &mut pieces);
    *expr = disjunction(&mut pieces);
}

fn takes_too_much(expr: &Expr) -> bool {
    match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => logical(right).is_some(),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => takes_too_much(expr),
        _ => logical(expr).is_some_and(|(left, right)| takes_too_much(left) || takes_too_much(right)),
    }
}

fn logical(expr: &Expr) -> Option<(&Expr, &Expr)> {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => Some((left, right)),
        _ => None,
    }
}

enum Piece {
    Operand(Box<Expr>),
    And,
    Or,
    Not,
    Distinct,
    NotDistinct,
}

/// The pieces as they were written.
fn unbind(expr: Expr, pieces: &mut VecDeque<Piece>) {
    match expr {
        Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
            unbind(*left, pieces);
            pieces.push_back(if op == BinaryOperator::And { Piece::And } else { Piece::Or });
            unbind(*right, pieces);
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
            pieces.push_back(Piece::Not);
            unbind(*expr, pieces);
        }
        Expr::IsDistinctFrom(left, right) => {
            pieces.extend([Piece::Operand(left), Piece::Distinct]);
            unbind(*right, pieces);
        }
        Expr::IsNotDistinctFrom(left, right) => {
            pieces.extend([Piece::Operand(left), Piece::NotDistinct]);
            unbind(*right, pieces);
        }
        operand => pieces.push_back(Piece::Operand(Box::new(operand))),
    }
}

fn disjunction(pieces: &mut VecDeque<Piece>) -> Expr {
    let mut left = conjunction(pieces);
    while let Some(Piece::Or) = pieces.front() {
        pieces.pop_front();
        left = binary(left, BinaryOperator::Or, conjunction(pieces));
    }
    left
}

fn conjunction(pieces: &mut VecDeque<Piece>) -> Expr {
    let mut left = negation(pieces);
    while let Some(Piece::And) = pieces.front() {
        pieces.pop_front();
        left = binary(left, BinaryOperator::And, negation(pieces));
    }
    left
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn negation(pieces: &mut VecDeque<Piece>) -> Expr {
    match pieces.pop_front() {
        Some(Piece::Not) => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(negation(pieces)) },
        Some(Piece::Operand(left)) => distinction(*left, pieces),
        _ => unreachable!("operators stand between operands"),
    }
}

fn distinction(left: Expr, pieces: &mut VecDeque<Piece>) -> Expr {
    let distinct = match pieces.front() {
        Some(Piece::Distinct) => Expr::IsDistinctFrom,
        Some(Piece::NotDistinct) => Expr::IsNotDistinctFrom,
        _ => return left,
    };
    pieces.pop_front();
    distinct(Box::new(left), Box::new(negation(pieces)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    fn parsed(sql: &str) -> Expr {
        Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).unwrap().parse_expr().unwrap()
    }

    /// Without its parentheses.
    fn bare(expr: Expr) -> Expr {
        match expr {
            Expr::Nested(inner) => bare(*inner),
            Expr::BinaryOp { left, op, right } => binary(bare(*left), op, bare(*right)),
            Expr::UnaryOp { op, expr } => Expr::UnaryOp { op, expr: Box::new(bare(*expr)) },
            other => other,
        }
    }

    #[test]
    fn what_follows_a_distinction_is_not_its_operand() {
        for (written, meant) in [
            ("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c"),
            ("a IS NOT DISTINCT FROM b AND c = d", "(a IS NOT DISTINCT FROM b) AND c = d"),
            ("x AND a IS DISTINCT FROM b OR c AND d", "(x AND (a IS DISTINCT FROM b)) OR (c AND d)"),
            ("NOT a IS DISTINCT FROM b AND c", "(NOT (a IS DISTINCT FROM b)) AND c"),
            (
                "a IS DISTINCT FROM b OR c IS DISTINCT FROM d AND e",
                "(a IS DISTINCT FROM b) OR ((c IS DISTINCT FROM d) AND e)",
            ),
            ("a IS DISTINCT FROM NOT b AND c", "(a IS DISTINCT FROM NOT b) AND c"),
        ] {
            let mut expr = parsed(written);
            rebind(&mut expr);
            assert_eq!(expr, bare(parsed(meant)), "{written}");
        }
        let mut nested = parsed("a IS DISTINCT FROM (b AND c)");
        rebind(&mut nested);
        assert_eq!(nested, parsed("a IS DISTINCT FROM (b AND c)"));
    }
}
