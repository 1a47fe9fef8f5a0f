//! Expressions.

use super::names::ident;
use super::types::type_of;
use super::{Binder, Bound};
use crate::pgcatalog::cast::{element, is_text};
use crate::pgcatalog::functions;
use crate::pgcatalog::route::is_session_word;
use crate::pgcatalog::tree::{Expr, Fields, Op, Query};
use crate::pgcatalog::value::Value;
use datafusion::sql::sqlparser::ast::{self, AccessExpr, Subscript};
use engine::PgType;
use proto::{Error, Result, SqlState};

impl Binder<'_> {
    /// The expressions that nest deep come first, so that a level of them costs little stack.
    pub(super) fn expr(&mut self, expr: &ast::Expr) -> Result<Bound> {
        use ast::Expr as E;
        self.nested(|binder| match expr {
            E::Identifier(name) => binder.identifier(name),
            E::BinaryOp { left, op, right } => binder.binary(left, op, right),
            E::UnaryOp { op, expr } => binder.unary(*op, expr),
            E::Nested(inner) | E::Collate { expr: inner, .. } => binder.expr(inner),
            E::Function(call) => binder.function_call(call),
            E::Cast { expr, data_type, .. } => binder.cast(expr, data_type),
            E::Case { operand, conditions, else_result, .. } => {
                binder.inside("CASE", |binder| binder.case(operand.as_deref(), conditions, else_result.as_deref()))
            }
            other => binder.other(other),
        })
    }

    fn cast(&mut self, expr: &ast::Expr, data_type: &ast::DataType) -> Result<Bound> {
        let bound = self.expr(expr)?;
        let ty = type_of(data_type)?;
        let fields = bound.fields.clone().filter(|_| ty == PgType::Record);
        Ok(Bound { expr: self.convert(bound, &ty), ty, fields })
    }

    pub(super) fn boxed(&mut self, expr: &ast::Expr) -> Result<Box<Expr>> {
        Ok(Box::new(self.expr(expr)?.expr))
    }

    pub(super) fn truth(&mut self, expr: &ast::Expr) -> Result<Expr> {
        let bound = self.expr(expr)?;
        Ok(self.convert(bound, &PgType::Bool))
    }

    fn other(&mut self, expr: &ast::Expr) -> Result<Bound> {
        use ast::Expr as E;
        let boolean = |expr: Expr| Ok(Bound::new(expr, PgType::Bool));
        let negated_if = |negated: bool, expr: Expr| if negated { Expr::Not(Box::new(expr)) } else { expr };
        match expr {
            E::CompoundIdentifier(parts) => self.resolve(&parts.iter().map(ident).collect::<Vec<_>>()),
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

    pub(super) fn one_column(&self, query: &Query) -> Result<()> {
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
