//! Expressions.

use super::names::ident;
use super::types::type_of;
use super::{Binder, Bound};
use crate::pgcatalog::cast::{element, is_number, is_text};
use crate::pgcatalog::functions;
use crate::pgcatalog::route::is_session_word;
use crate::pgcatalog::tree::{Expr, Fields, Op, Query};
use crate::pgcatalog::value::Value;
use datafusion::sql::sqlparser::ast::{self, AccessExpr, BinaryOperator, Subscript, UnaryOperator};
use engine::PgType;
use proto::{Error, Result, SqlState};

impl Binder<'_> {
    pub(super) fn expr(&mut self, expr: &ast::Expr) -> Result<Bound> {
        self.nested(|binder| binder.expr_inside(expr))
    }

    fn boxed(&mut self, expr: &ast::Expr) -> Result<Box<Expr>> {
        Ok(Box::new(self.expr(expr)?.expr))
    }

    fn truth(&mut self, expr: &ast::Expr) -> Result<Expr> {
        let bound = self.expr(expr)?;
        Ok(self.convert(bound, &PgType::Bool))
    }

    fn expr_inside(&mut self, expr: &ast::Expr) -> Result<Bound> {
        use ast::Expr as E;
        let boolean = |expr: Expr| Ok(Bound::new(expr, PgType::Bool));
        let negated_if = |negated: bool, expr: Expr| if negated { Expr::Not(Box::new(expr)) } else { expr };
        match expr {
            E::Identifier(name) => self.identifier(name),
            E::CompoundIdentifier(parts) => self.resolve(&parts.iter().map(ident).collect::<Vec<_>>()),
            E::Nested(inner) | E::Collate { expr: inner, .. } => self.expr(inner),
            E::Value(value) => self.literal(&value.value),
            E::TypedString(typed) => {
                let bound = self.literal(&typed.value.value)?;
                let ty = type_of(&typed.data_type)?;
                Ok(Bound::new(self.convert(bound, &ty), ty))
            }
            E::Interval(interval) => {
                let bound = self.expr(&interval.value)?;
                let unit = interval.leading_field.as_ref().map(|unit| unit.to_string().to_lowercase());
                let bound = match (&bound.expr, unit) {
                    (Expr::Const(Value::Text(text)), Some(unit)) => {
                        Bound::new(Expr::Const(Value::text(format!("{text} {unit}"))), PgType::Unknown)
                    }
                    _ => bound,
                };
                Ok(Bound::new(self.convert(bound, &PgType::Interval), PgType::Interval))
            }
            E::Cast { expr, data_type, .. } => {
                let bound = self.expr(expr)?;
                let ty = type_of(data_type)?;
                let fields = bound.fields.clone().filter(|_| ty == PgType::Record);
                Ok(Bound { expr: self.convert(bound, &ty), ty, fields })
            }
            E::BinaryOp { left, op, right } => self.binary(left, op, right),
            E::UnaryOp { op, expr } => self.unary(*op, expr),
            E::IsNull(inner) => boolean(Expr::IsNull(self.boxed(inner)?)),
            E::IsNotNull(inner) => boolean(negated_if(true, Expr::IsNull(self.boxed(inner)?))),
            E::IsTrue(inner) => boolean(Expr::Is(Box::new(self.truth(inner)?), true)),
            E::IsNotTrue(inner) => boolean(negated_if(true, Expr::Is(Box::new(self.truth(inner)?), true))),
            E::IsFalse(inner) => boolean(Expr::Is(Box::new(self.truth(inner)?), false)),
            E::IsNotFalse(inner) => boolean(negated_if(true, Expr::Is(Box::new(self.truth(inner)?), false))),
            E::IsUnknown(inner) => boolean(Expr::IsNull(self.boxed(inner)?)),
            E::IsNotUnknown(inner) => boolean(negated_if(true, Expr::IsNull(self.boxed(inner)?))),
            E::IsDistinctFrom(left, right) => self.distinct_from(left, right, false),
            E::IsNotDistinctFrom(left, right) => self.distinct_from(left, right, true),
            E::InList { expr, list, negated } => {
                let left = self.expr(expr)?;
                let (mut plain, mut any) = (Vec::new(), None);
                for item in list {
                    let item = self.expr(item)?;
                    let (own, item, _) = self.unify_pair(left.clone(), item, "=")?;
                    any = Some(own);
                    plain.push(item);
                }
                let left = any.unwrap_or(left.expr);
                boolean(negated_if(*negated, Expr::InList(Box::new(left), plain)))
            }
            E::InSubquery { expr, subquery, negated } => {
                let left = self.expr(expr)?;
                boolean(negated_if(*negated, self.quantified_query(Op::Eq, "=", left, subquery, false)?))
            }
            E::Between { expr, negated, low, high } => {
                let value = self.expr(expr)?;
                let (low, high) = (self.expr(low)?, self.expr(high)?);
                let low = self.comparison(Op::GtEq, ">=", value.clone(), low)?;
                let high = self.comparison(Op::LtEq, "<=", value, high)?;
                boolean(negated_if(*negated, Expr::And(vec![low, high])))
            }
            E::Like { negated, expr, pattern, escape_char, any: false } => {
                let escape = escape_char.as_ref().map(|escape| escape.value.clone());
                boolean(negated_if(*negated, self.like(expr, pattern, escape, false)?))
            }
            E::ILike { negated, expr, pattern, escape_char, any: false } => {
                let escape = escape_char.as_ref().map(|escape| escape.value.clone());
                boolean(negated_if(*negated, self.like(expr, pattern, escape, true)?))
            }
            E::AnyOp { left, compare_op, right, .. } => self.quantified(left, compare_op, right, false),
            E::AllOp { left, compare_op, right } => self.quantified(left, compare_op, right, true),
            E::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            E::Exists { subquery, negated } => {
                let query = self.query(subquery)?;
                boolean(negated_if(*negated, Expr::Exists(Box::new(query))))
            }
            E::Subquery(query) => {
                let query = self.query(query)?;
                self.one_column(&query)?;
                let (ty, fields) = (query.columns[0].ty.clone(), query.columns[0].fields.clone());
                Ok(Bound { expr: Expr::Scalar(Box::new(query)), ty, fields })
            }
            E::Array(array) => {
                let bounds = array.elem.iter().map(|element| self.expr(element)).collect::<Result<Vec<_>>>()?;
                let (exprs, ty) = self.unify_all(bounds, "ARRAY")?;
                Ok(Bound::new(Expr::Array(exprs), PgType::Array(Box::new(ty))))
            }
            E::Tuple(parts) => {
                let bounds = parts.iter().map(|part| self.expr(part)).collect::<Result<Vec<_>>>()?;
                Ok(record(bounds))
            }
            E::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            E::Function(call) => self.function_call(call),
            E::Substring { expr, substring_from, substring_for, .. } => {
                let mut args = vec![self.expr(expr)?];
                for part in [substring_from, substring_for].into_iter().flatten() {
                    args.push(self.expr(part)?);
                }
                let pattern = args.len() == 2 && is_text(&args[1].ty);
                self.named_call(if pattern { "substring_pattern" } else { "substring" }, args)
            }
            E::Position { expr, r#in } => {
                let args = vec![self.expr(r#in)?, self.expr(expr)?];
                self.named_call("strpos", args)
            }
            E::Trim { expr, trim_where, trim_what, .. } => {
                let mut args = vec![self.expr(expr)?];
                if let Some(what) = trim_what {
                    args.push(self.expr(what)?);
                }
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                self.named_call(name, args)
            }
            E::Floor { expr, .. } => {
                let args = vec![self.expr(expr)?];
                self.named_call("floor", args)
            }
            E::Ceil { expr, .. } => {
                let args = vec![self.expr(expr)?];
                self.named_call("ceil", args)
            }
            E::Extract { field: ast::DateTimeField::Epoch, expr, .. } => {
                let args = vec![self.expr(expr)?];
                self.named_call("extract_epoch", args)
            }
            E::AtTimeZone { timestamp, .. } => {
                // Shown in UTC: catalogs hold start times only.
                let bound = self.expr(timestamp)?;
                Ok(Bound::new(bound.expr, PgType::Timestamp))
            }
            other => Err(Error::unsupported(format!("the expression {other} over catalogs"))),
        }
    }

    /// A column, or one of the words that call a function without parentheses.
    fn identifier(&mut self, name: &ast::Ident) -> Result<Bound> {
        let resolved = self.resolve(&[ident(name)]);
        match resolved.is_err() && is_session_word(name) {
            true => self.named_call(&name.value.to_lowercase(), Vec::new()),
            false => resolved,
        }
    }

    fn named_call(&mut self, name: &str, args: Vec<Bound>) -> Result<Bound> {
        let function = functions::scalar(name, args.len(), |_| true);
        let function = function.ok_or_else(|| Error::internal(format!("function {name} is not registered")))?;
        let ty = function.returns.resolve(&args.iter().map(|arg| arg.ty.clone()).collect::<Vec<_>>());
        let converted = args.into_iter().enumerate().map(|(at, arg)| match function.args.ty(at) {
            functions::ArgType::Type(ty) => self.convert(arg, ty),
            functions::ArgType::AsText => self.convert(arg, &PgType::Text),
            _ => arg.expr,
        });
        Ok(Bound::new(Expr::Call(function, converted.collect()), ty))
    }

    fn literal(&mut self, value: &ast::Value) -> Result<Bound> {
        use ast::Value as V;
        Ok(match value {
            V::Number(text, _) => number(text)?,
            V::Boolean(b) => Bound::new(Expr::Const(Value::Bool(*b)), PgType::Bool),
            V::Null => Bound::new(Expr::Const(Value::Null), PgType::Unknown),
            V::SingleQuotedString(text) | V::EscapedStringLiteral(text) | V::UnicodeStringLiteral(text) => {
                Bound::new(Expr::Const(Value::text(text)), PgType::Unknown)
            }
            V::DollarQuotedString(text) => Bound::new(Expr::Const(Value::text(&text.value)), PgType::Unknown),
            V::Placeholder(name) => {
                let number = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
                let index = number.filter(|number| (1..=65535).contains(number)).ok_or_else(|| {
                    Error::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {name}"))
                })? - 1;
                if self.params.len() <= index {
                    self.params.resize(index + 1, PgType::Unknown);
                }
                let ty = self.params[index].clone();
                Bound::new(Expr::Param(index, ty.clone()), ty)
            }
            other => return Err(Error::unsupported(format!("the literal {other} over catalogs"))),
        })
    }

    fn binary(&mut self, left: &ast::Expr, op: &BinaryOperator, right: &ast::Expr) -> Result<Bound> {
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

    fn comparison(&mut self, op: Op, symbol: &str, left: Bound, right: Bound) -> Result<Expr> {
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

    fn unary(&mut self, op: UnaryOperator, expr: &ast::Expr) -> Result<Bound> {
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

    fn distinct_from(&mut self, left: &ast::Expr, right: &ast::Expr, negated: bool) -> Result<Bound> {
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let (left, right, _) = self.unify_pair(left, right, "=")?;
        let expr = Expr::IsDistinct(Box::new(left), Box::new(right));
        Ok(Bound::new(if negated { Expr::Not(Box::new(expr)) } else { expr }, PgType::Bool))
    }

    fn like(
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

    fn quantified(&mut self, left: &ast::Expr, op: &BinaryOperator, right: &ast::Expr, all: bool) -> Result<Bound> {
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

    fn quantified_query(&mut self, op: Op, symbol: &str, left: Bound, query: &ast::Query, all: bool) -> Result<Expr> {
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

    fn one_column(&self, query: &Query) -> Result<()> {
        match query.columns.len() {
            1 => Ok(()),
            _ => Err(Error::new(SqlState::SYNTAX_ERROR, "subquery must return only one column")),
        }
    }

    pub(super) fn array_query(&mut self, query: &ast::Query) -> Result<Bound> {
        let mut query = self.query(query)?;
        super::types::settle_unknown(&mut query);
        self.one_column(&query)?;
        let ty = PgType::Array(Box::new(query.columns[0].ty.clone()));
        Ok(Bound::new(Expr::ArrayQuery(Box::new(query)), ty))
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&ast::Expr>,
    ) -> Result<Bound> {
        let operand = operand.map(|operand| self.expr(operand)).transpose()?;
        let (mut whens, mut results) = (Vec::new(), Vec::new());
        for branch in conditions {
            whens.push(match &operand {
                Some(operand) => {
                    let value = self.expr(&branch.condition)?;
                    self.comparison(Op::Eq, "=", operand.clone(), value)?
                }
                None => self.truth(&branch.condition)?,
            });
            results.push(self.expr(&branch.result)?);
        }
        results.push(match otherwise {
            Some(otherwise) => self.expr(otherwise)?,
            None => Bound::new(Expr::Const(Value::Null), PgType::Unknown),
        });
        let (mut results, ty) = self.unify_all(results, "CASE")?;
        let otherwise = Box::new(results.pop().expect("the last result is ELSE's"));
        Ok(Bound::new(Expr::Case { branches: whens.into_iter().zip(results).collect(), otherwise }, ty))
    }

    /// `a[1]`, `(f(x)).field`, `(t).*` is handled by the select list.
    fn access(&mut self, root: &ast::Expr, chain: &[AccessExpr]) -> Result<Bound> {
        // `t.a[1]` comes as a root `t` with the column in its chain.
        let mut names = Vec::new();
        let mut chain = chain.iter().peekable();
        if let ast::Expr::Identifier(first) = root {
            names.push(ident(first));
            while let Some(AccessExpr::Dot(ast::Expr::Identifier(name))) = chain.peek() {
                names.push(ident(name));
                chain.next();
            }
        }
        let mut bound = match names.is_empty() {
            true => self.expr(root)?,
            false => self.resolve(&names)?,
        };
        for access in chain {
            bound = match access {
                AccessExpr::Dot(ast::Expr::Identifier(name)) => field(bound, &ident(name))?,
                AccessExpr::Subscript(Subscript::Index { index }) => {
                    let lower = if matches!(bound.ty, PgType::Int2Vector | PgType::OidVector) { 0 } else { 1 };
                    let ty = element(&bound.ty).ok_or_else(|| {
                        let message =
                            format!("cannot subscript type {} because it does not support subscripting", bound.ty);
                        Error::new(SqlState::DATATYPE_MISMATCH, message)
                    })?;
                    let index = self.expr(index)?;
                    let index = Box::new(self.convert(index, &PgType::Int4));
                    Bound::new(Expr::Subscript { array: Box::new(bound.expr), index, lower }, ty)
                }
                AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. }) => {
                    let mut end = |bound: &Option<ast::Expr>| match bound {
                        Some(expr) => Ok::<_, Error>(Some(self.boxed(expr)?)),
                        None => Ok(None),
                    };
                    let (start, end) = (end(lower_bound)?, end(upper_bound)?);
                    Bound::new(Expr::Slice { array: Box::new(bound.expr), start, end }, bound.ty)
                }
                AccessExpr::Dot(other) => return Err(Error::unsupported(format!("the field {other}"))),
            };
        }
        Ok(bound)
    }
}

fn field(bound: Bound, name: &str) -> Result<Bound> {
    let fields: Fields = bound.fields.clone();
    let at = fields.as_ref().and_then(|fields| fields.iter().position(|(field, _)| field == name));
    match (fields, at) {
        (Some(fields), Some(at)) => Ok(Bound::new(Expr::Field(Box::new(bound.expr), at), fields[at].1.clone())),
        (Some(_), None) => {
            Err(Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" not found in data type record")))
        }
        (None, _) => Err(Error::new(
            SqlState::WRONG_OBJECT_TYPE,
            format!("column notation .{name} applied to type {}, which is not a composite type", bound.ty),
        )),
    }
}

pub(super) fn record(bounds: Vec<Bound>) -> Bound {
    let named = bounds.iter().enumerate().map(|(at, bound)| (format!("f{}", at + 1), bound.ty.clone()));
    let fields = Some(named.collect());
    Bound { expr: Expr::Record(bounds.into_iter().map(|bound| bound.expr).collect()), ty: PgType::Record, fields }
}

fn number(text: &str) -> Result<Bound> {
    if let Ok(n) = text.parse::<i64>() {
        let ty = if i32::try_from(n).is_ok() { PgType::Int4 } else { PgType::Int8 };
        return Ok(Bound::new(Expr::Const(Value::Int(n)), ty));
    }
    if let Some(numeric) = crate::pgcatalog::cast::parse_numeric(text) {
        return Ok(Bound::new(Expr::Const(numeric), PgType::Numeric(None)));
    }
    let float = text.parse::<f64>();
    let float = float.map_err(|_| Error::new(SqlState::SYNTAX_ERROR, format!("invalid number {text}")))?;
    Ok(Bound::new(Expr::Const(Value::Float(float)), PgType::Float8))
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
