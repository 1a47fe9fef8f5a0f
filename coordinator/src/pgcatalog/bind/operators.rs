//! Operators: their operands brought together, their many spellings reduced to a few.

use super::{Binder, Bound};
use crate::pgcatalog::cast::{element, is_number, is_text};
use crate::pgcatalog::functions;
use crate::pgcatalog::tree::{Expr, Op};
use crate::pgcatalog::value::Value;
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, UnaryOperator};
use engine::PgType;
use proto::{Error, Result, SqlState};

impl Binder<'_> {
    pub(super) fn binary(&mut self, left: &ast::Expr, op: &BinaryOperator, right: &ast::Expr) -> Result<Bound> {
        if let BinaryOperator::And | BinaryOperator::Or = op {
            // A long chain leans to the left; it is taken apart in a loop.
            let mut parts = vec![self.truth(right)?];
            let mut rest = left;
            while let ast::Expr::BinaryOp { left, op: inner, right } = rest
                && inner == op
            {
                parts.push(self.truth(right)?);
                rest = left;
            }
            parts.push(self.truth(rest)?);
            parts.reverse();
            let expr = if *op == BinaryOperator::And { Expr::And(parts) } else { Expr::Or(parts) };
            return Ok(Bound::new(expr, PgType::Bool));
        }
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        self.operator(op, left, right)
    }

    fn operator(&mut self, op: &BinaryOperator, left: Bound, right: Bound) -> Result<Bound> {
        let (negated, plain, symbol) = operator_of(op)?;
        let bound = match plain {
            Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq => {
                Bound::new(self.comparison(plain, symbol, left, right)?, PgType::Bool)
            }
            Op::Match { .. } | Op::Like { .. } => {
                for side in [&left, &right] {
                    if !is_text(&side.ty) {
                        let message = format!("operator does not exist: {} {symbol} {}", left.ty, right.ty);
                        return Err(Error::new(SqlState::UNDEFINED_FUNCTION, message));
                    }
                }
                let (left, right) = (self.convert(left, &PgType::Text), self.convert(right, &PgType::Text));
                Bound::new(Expr::Binary { op: plain, left: Box::new(left), right: Box::new(right) }, PgType::Bool)
            }
            Op::Concat => self.concat(left, right)?,
            Op::Overlap | Op::Contains => {
                let (left, right, _) = self.unify_pair(left, right, symbol)?;
                Bound::new(Expr::Binary { op: plain, left: Box::new(left), right: Box::new(right) }, PgType::Bool)
            }
            _ => self.arithmetic(plain, symbol, left, right)?,
        };
        Ok(match negated {
            true => Bound::new(Expr::Not(Box::new(bound.expr)), PgType::Bool),
            false => bound,
        })
    }

    pub(super) fn comparison(&mut self, op: Op, symbol: &str, left: Bound, right: Bound) -> Result<Expr> {
        let (left, right, _) = self.unify_pair(left, right, symbol)?;
        Ok(Expr::Binary { op, left: Box::new(left), right: Box::new(right) })
    }

    fn concat(&mut self, left: Bound, right: Bound) -> Result<Bound> {
        let array =
            [&left, &right].into_iter().find_map(|side| element(&side.ty).map(|inner| (side.ty.clone(), inner)));
        let Some((ty, inner)) = array else {
            let (left, right) = (self.convert(left, &PgType::Text), self.convert(right, &PgType::Text));
            let expr = Expr::Binary { op: Op::Concat, left: Box::new(left), right: Box::new(right) };
            return Ok(Bound::new(expr, PgType::Text));
        };
        let mut side = |side: Bound| {
            let target = if element(&side.ty).is_some() || side.ty == PgType::Unknown { &ty } else { &inner };
            self.convert(side, target)
        };
        let (left, right) = (side(left), side(right));
        let expr = Expr::Binary { op: Op::ArrayConcat, left: Box::new(left), right: Box::new(right) };
        Ok(Bound::new(expr, ty))
    }

    fn arithmetic(&mut self, op: Op, symbol: &str, left: Bound, right: Bound) -> Result<Bound> {
        use PgType::*;
        let time = |ty: &PgType| matches!(ty, Timestamptz | Timestamp | Date);
        let (ty, left, right) = match (&left.ty, &right.ty) {
            (at, Interval) if time(at) => (at.clone(), left.expr, right.expr),
            (Interval, at) if time(at) => (at.clone(), left.expr, right.expr),
            (at, Unknown) if time(at) && op == Op::Add => (at.clone(), left.expr, self.convert(right, &Interval)),
            (Date, Date) => (Int4, left.expr, right.expr),
            (a, b) if time(a) && time(b) => (Interval, left.expr, right.expr),
            _ => {
                let (left, right, ty) = self.unify_pair(left, right, symbol)?;
                if !is_number(&ty) {
                    let message = format!("operator does not exist: {ty} {symbol} {ty}");
                    return Err(Error::new(SqlState::UNDEFINED_FUNCTION, message));
                }
                (ty, left, right)
            }
        };
        let float = matches!(ty, Numeric(_)) && matches!(op, Op::Multiply | Op::Divide | Op::Modulo);
        let expr = Expr::Binary { op, left: Box::new(left), right: Box::new(right) };
        // Products of numerics are computed as doubles, and shown as such.
        Ok(Bound::new(expr, if float { Float8 } else { ty }))
    }

    pub(super) fn unary(&mut self, op: UnaryOperator, expr: &ast::Expr) -> Result<Bound> {
        match op {
            UnaryOperator::Not => {
                let inner = self.truth(expr)?;
                Ok(Bound::new(Expr::Not(Box::new(inner)), PgType::Bool))
            }
            UnaryOperator::Plus => self.expr(expr),
            UnaryOperator::Minus => {
                let bound = self.expr(expr)?;
                match bound.expr {
                    Expr::Const(Value::Int(n)) => Ok(Bound::new(Expr::Const(Value::Int(n.wrapping_neg())), bound.ty)),
                    Expr::Const(Value::Numeric(n, scale)) => {
                        Ok(Bound::new(Expr::Const(Value::Numeric(-n, scale)), bound.ty))
                    }
                    expr => {
                        let zero = Bound::new(Expr::Const(Value::Int(0)), bound.ty.clone());
                        self.arithmetic(Op::Subtract, "-", zero, Bound { expr, ..bound })
                    }
                }
            }
            other => Err(Error::unsupported(format!("the operator {other} over catalogs"))),
        }
    }

    pub(super) fn distinct_from(&mut self, left: &ast::Expr, right: &ast::Expr, negated: bool) -> Result<Bound> {
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let (left, right, _) = self.unify_pair(left, right, "=")?;
        let expr = Expr::IsDistinct(Box::new(left), Box::new(right));
        Ok(Bound::new(if negated { Expr::Not(Box::new(expr)) } else { expr }, PgType::Bool))
    }

    pub(super) fn like(
        &mut self,
        expr: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<ast::Value>,
        ignore_case: bool,
    ) -> Result<Expr> {
        let (left, right) = (self.expr(expr)?, self.expr(pattern)?);
        let (left, mut right) = (self.convert(left, &PgType::Text), self.convert(right, &PgType::Text));
        let escape = match escape {
            Some(ast::Value::SingleQuotedString(escape)) => Some(escape),
            _ => None,
        };
        if let Some(escape) = escape.filter(|escape| escape != "\\") {
            // The runner knows the backslash only.
            let replace = functions::scalar("replace", 3, |_| true).expect("replace is one of ours");
            let constant = |text: &str| Expr::Const(Value::text(text));
            right = Expr::Call(replace, vec![right, constant("\\"), constant("\\\\")]);
            if !escape.is_empty() {
                right = Expr::Call(replace, vec![right, constant(&escape), constant("\\")]);
            }
        }
        Ok(Expr::Binary { op: Op::Like { ignore_case }, left: Box::new(left), right: Box::new(right) })
    }

    pub(super) fn quantified(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        right: &ast::Expr,
        all: bool,
    ) -> Result<Bound> {
        let (negated, plain, symbol) = operator_of(op)?;
        let left = self.expr(left)?;
        let mut right = right;
        while let ast::Expr::Nested(inner) = right {
            right = inner;
        }
        // `<> ANY` is a plain operator; only the negated matches need their quantifier turned round.
        let all_inside = all != negated;
        let expr = match right {
            ast::Expr::Subquery(query) => self.quantified_query(plain, symbol, left, query, all_inside)?,
            right => {
                let array = self.expr(right)?;
                let inner = element(&array.ty).unwrap_or(PgType::Unknown);
                let ty = super::types::common(&left.ty, &inner).ok_or_else(|| {
                    let message = format!("operator does not exist: {} {symbol} {inner}", left.ty);
                    Error::new(SqlState::UNDEFINED_FUNCTION, message)
                })?;
                let ty = if ty == PgType::Unknown { PgType::Text } else { ty };
                let left = self.convert(left, &ty);
                let array = self.convert(array, &PgType::Array(Box::new(ty)));
                Expr::Quantified { op: plain, left: Box::new(left), array: Box::new(array), all: all_inside }
            }
        };
        let expr = if negated { Expr::Not(Box::new(expr)) } else { expr };
        Ok(Bound::new(expr, PgType::Bool))
    }

    pub(super) fn quantified_query(
        &mut self,
        op: Op,
        symbol: &str,
        left: Bound,
        query: &ast::Query,
        all: bool,
    ) -> Result<Expr> {
        let mut query = self.query(query)?;
        if left.ty == PgType::Record {
            return Ok(Expr::QuantifiedQuery { op, left: Box::new(left.expr), query: Box::new(query), all });
        }
        self.one_column(&query)?;
        let inner = query.columns[0].ty.clone();
        let ty = super::types::common(&left.ty, &inner).ok_or_else(|| {
            Error::new(SqlState::UNDEFINED_FUNCTION, format!("operator does not exist: {} {symbol} {inner}", left.ty))
        })?;
        let settled = |own: &PgType| match is_number(own) && is_number(&ty) || is_text(own) && is_text(&ty) {
            true => own.clone(),
            false => ty.clone(),
        };
        let (left_ty, inner_ty) = (settled(&left.ty), settled(&inner));
        super::types::retype(&mut query, &[inner_ty]);
        let left = self.convert(left, &left_ty);
        Ok(Expr::QuantifiedQuery { op, left: Box::new(left), query: Box::new(query), all })
    }
}

/// Whether it is negated, what it is, how it is written.
fn operator_of(op: &BinaryOperator) -> Result<(bool, Op, &'static str)> {
    use BinaryOperator as B;
    let matches = |ignore_case| Op::Match { ignore_case };
    let like = |ignore_case| Op::Like { ignore_case };
    let name = match op {
        B::PGCustomBinaryOperator(parts) => parts.last().map_or("", String::as_str),
        _ => "",
    };
    Ok(match (op, name) {
        (B::Eq, _) | (_, "=") => (false, Op::Eq, "="),
        (B::NotEq, _) | (_, "<>" | "!=") => (false, Op::NotEq, "<>"),
        (B::Lt, _) | (_, "<") => (false, Op::Lt, "<"),
        (B::LtEq, _) | (_, "<=") => (false, Op::LtEq, "<="),
        (B::Gt, _) | (_, ">") => (false, Op::Gt, ">"),
        (B::GtEq, _) | (_, ">=") => (false, Op::GtEq, ">="),
        (B::Plus, _) | (_, "+") => (false, Op::Add, "+"),
        (B::Minus, _) | (_, "-") => (false, Op::Subtract, "-"),
        (B::Multiply, _) | (_, "*") => (false, Op::Multiply, "*"),
        (B::Divide, _) | (_, "/") => (false, Op::Divide, "/"),
        (B::Modulo, _) => (false, Op::Modulo, "%"),
        (B::StringConcat, _) | (_, "||") => (false, Op::Concat, "||"),
        (B::PGRegexMatch, _) | (_, "~") => (false, matches(false), "~"),
        (B::PGRegexIMatch, _) | (_, "~*") => (false, matches(true), "~*"),
        (B::PGRegexNotMatch, _) | (_, "!~") => (true, matches(false), "!~"),
        (B::PGRegexNotIMatch, _) | (_, "!~*") => (true, matches(true), "!~*"),
        (B::PGLikeMatch, _) | (_, "~~") => (false, like(false), "~~"),
        (B::PGILikeMatch, _) | (_, "~~*") => (false, like(true), "~~*"),
        (B::PGNotLikeMatch, _) | (_, "!~~") => (true, like(false), "!~~"),
        (B::PGNotILikeMatch, _) | (_, "!~~*") => (true, like(true), "!~~*"),
        (B::BitwiseAnd, _) | (_, "&") => (false, Op::BitAnd, "&"),
        (B::BitwiseOr, _) | (_, "|") => (false, Op::BitOr, "|"),
        (B::PGOverlap, _) | (_, "&&") => (false, Op::Overlap, "&&"),
        (B::AtArrow, _) | (_, "@>") => (false, Op::Contains, "@>"),
        (other, _) => return Err(Error::unsupported(format!("the operator {other} over catalogs"))),
    })
}
