//! Function calls: ours, the session's, aggregates, windows, and the few with a grammar of their own.

use super::from::scalar_in_from;
use super::names::{ident, schema_and_name};
use super::{Binder, Bound};
use crate::pgcatalog::functions::{self, ArgType, Args};
use crate::pgcatalog::tree::*;
use crate::pgcatalog::value::Value;
use datafusion::sql::sqlparser::ast::{
    self, DuplicateTreatment, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, WindowType,
};
use engine::PgType;
use proto::{Error, Result, SqlState};
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn function_call(&mut self, call: &ast::Function) -> Result<Bound> {
        let (schema, name) = schema_and_name(&call.name);
        let (args, distinct, clauses) = match &call.args {
            FunctionArguments::None => (&[][..], false, &[][..]),
            FunctionArguments::List(list) => {
                let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
                (list.args.as_slice(), distinct, list.clauses.as_slice())
            }
            FunctionArguments::Subquery(query) => {
                return match name.as_str() {
                    "array" => self.array_query(query),
                    _ => Err(Error::unsupported("a query as a function's argument")),
                };
            }
        };
        if let Some(over) = &call.over {
            return self.window_call(&name, over);
        }
        if let Some(kind) = aggregate_kind(&name, args) {
            let order = clauses.iter().find_map(|clause| match clause {
                FunctionArgumentClause::OrderBy(keys) => Some(keys.as_slice()),
                _ => None,
            });
            return self.aggregate_call(kind, args, distinct, order.unwrap_or(&[]), call.filter.as_deref());
        }
        self.plain_call(schema.as_deref(), &name, args)
    }

    pub(super) fn plain_call(&mut self, schema: Option<&str>, name: &str, args: &[FunctionArg]) -> Result<Bound> {
        let known_schema = schema.is_none_or(|schema| matches!(schema, "pg_catalog" | "information_schema"));
        if known_schema && let Some(bound) = self.special_call(name, args)? {
            return Ok(bound);
        }
        if let Some(signature) = self.host.signature(schema, name) {
            self.changing_calls += usize::from(signature.changes);
            let call = self.host_call(schema, name, args)?;
            let columns_count = signature.columns.len();
            let fields: Arc<[_]> = signature.columns.into();
            if signature.set {
                return self.set_slot(TableCall::Host(call), &fields);
            }
            let ty = if columns_count == 1 { fields[0].1.clone() } else { PgType::Record };
            let fields = (columns_count != 1).then_some(fields);
            return Ok(Bound { expr: Expr::Host { call, columns_count }, ty, fields });
        }
        if known_schema && functions::exists(name) {
            let bounds = self.positional(name, args)?;
            if let Some(function) = functions::scalar(name, bounds.len(), |args| fits(args, &bounds)) {
                return Ok(self.scalar_call(function, bounds));
            }
            if let Some(function) = functions::set(name, bounds.len(), |args| fits(args, &bounds)) {
                let (call, columns) = self.set_call(function, bounds);
                let fields: Arc<[_]> = columns.into_iter().map(|column| (column.name, column.ty)).collect();
                return self.set_slot(call, &fields);
            }
        }
        Err(self.unknown_function(schema, name, args))
    }

    /// A call in FROM: its rows and their columns.
    pub(super) fn table_call(
        &mut self,
        schema: Option<&str>,
        name: &str,
        args: &[FunctionArg],
    ) -> Result<(TableCall, Vec<OutColumn>)> {
        if let Some(signature) = self.host.signature(schema, name) {
            self.changing_calls += usize::from(signature.changes);
            let call = self.host_call(schema, name, args)?;
            let columns = signature.columns.into_iter().map(|(name, ty)| OutColumn { name, ty, fields: None });
            return Ok((TableCall::Host(call), columns.collect()));
        }
        let known_schema = schema.is_none_or(|schema| matches!(schema, "pg_catalog" | "information_schema"));
        if known_schema {
            let bounds = self.positional(name, args)?;
            if let Some(function) = functions::set(name, bounds.len(), |args| fits(args, &bounds)) {
                return Ok(self.set_call(function, bounds));
            }
            if let Some(function) = functions::scalar(name, bounds.len(), |args| fits(args, &bounds)) {
                let bound = self.scalar_call(function, bounds);
                return Ok(scalar_in_from(bound, name));
            }
        }
        Err(self.unknown_function(schema, name, args))
    }

    fn scalar_call(&mut self, function: &'static functions::ScalarFunction, bounds: Vec<Bound>) -> Bound {
        let types: Vec<PgType> = bounds.iter().map(|bound| bound.ty.clone()).collect();
        let args = self.convert_args(&function.args, bounds);
        let ty = function.returns.resolve(&types);
        Bound::new(Expr::Call(function, args), ty)
    }

    fn set_call(
        &mut self,
        function: &'static functions::SetFunction,
        bounds: Vec<Bound>,
    ) -> (TableCall, Vec<OutColumn>) {
        let types: Vec<PgType> = bounds.iter().map(|bound| bound.ty.clone()).collect();
        let columns = function.columns.iter().map(|(name, returns)| OutColumn {
            name: name.clone(),
            ty: returns.resolve(&types),
            fields: None,
        });
        let args = self.convert_args(&function.args, bounds);
        (TableCall::Set(function, args), columns.collect())
    }

    fn convert_args(&mut self, args: &Args, bounds: Vec<Bound>) -> Vec<Expr> {
        let converted = bounds.into_iter().enumerate().map(|(at, bound)| match args.ty(at) {
            ArgType::Type(ty) => self.convert(bound, ty),
            ArgType::AsText => self.output_form(bound),
            ArgType::AsTexts => self.convert(bound, &PgType::Array(Box::new(PgType::Text))),
            ArgType::Any => bound.expr,
        });
        converted.collect()
    }

    /// Binds the arguments of a construct that does not always look at them.
    pub(super) fn inside<T>(
        &mut self,
        construct: &'static str,
        bind: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let outer = self.conditional.replace(construct);
        let bound = bind(self);
        self.conditional = outer;
        bound
    }

    /// # Errors
    /// Where rows may not be asked for: all sets of a select list are computed before its expressions.
    fn set_slot(&mut self, call: TableCall, fields: &Arc<[(String, PgType)]>) -> Result<Bound> {
        if let Some(construct) = self.conditional {
            return Err(Error::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("set-returning functions are not allowed in {construct}"),
            ));
        }
        let columns_count = fields.len();
        let ty = if columns_count == 1 { fields[0].1.clone() } else { PgType::Record };
        let expr = self.slot(Slot::Set { call, columns_count });
        Ok(Bound { expr, ty, fields: (columns_count != 1).then(|| fields.clone()) })
    }

    fn slot(&mut self, slot: Slot) -> Expr {
        let Some(level) = self.levels.last_mut() else {
            // Outside any SELECT there is no row to put it in.
            return Expr::Const(Value::Null);
        };
        level.slots.push(slot);
        Expr::Column { up: 0, index: level.columns.len() + level.slots.len() - 1 }
    }

    fn host_call(&mut self, schema: Option<&str>, name: &str, args: &[FunctionArg]) -> Result<HostCall> {
        let mut bound = Vec::new();
        for arg in args {
            let (arg_name, expr) = named_arg(arg)?;
            let value = self.expr(expr)?;
            let ty = value.ty.clone();
            // Objects are handed over by name.
            let reg = crate::pgcatalog::schema::is_reg(&ty);
            let (expr, ty) = if reg { (self.convert(value, &PgType::Text), ty) } else { (value.expr, ty) };
            bound.push((arg_name, expr, ty));
        }
        Ok(HostCall { schema: schema.map(str::to_owned), name: name.to_owned(), args: bound })
    }

    fn positional(&mut self, name: &str, args: &[FunctionArg]) -> Result<Vec<Bound>> {
        let bounds = args.iter().map(|arg| match named_arg(arg)? {
            (None, expr) => self.expr(expr),
            (Some(_), _) => Err(Error::unsupported(format!("named arguments of {name}"))),
        });
        bounds.collect()
    }

    fn unknown_function(&mut self, schema: Option<&str>, name: &str, args: &[FunctionArg]) -> Error {
        if schema == Some("pg_catalog") && !functions::exists(name) {
            return Error::unsupported(format!("function {name}"));
        }
        let types = args.iter().map(|arg| {
            let bound = named_arg(arg).and_then(|(_, expr)| self.expr(expr));
            bound.map_or_else(|_| "unknown".to_owned(), |bound| bound.ty.to_string())
        });
        let types = types.collect::<Vec<_>>().join(", ");
        let full = schema.map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"));
        let hint = "No function matches the given name and argument types. You might need to add explicit type casts.";
        Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {full}({types}) does not exist")).hint(hint)
    }

    /// Calls whose result type comes from all their arguments.
    fn special_call(&mut self, name: &str, args: &[FunctionArg]) -> Result<Option<Bound>> {
        Ok(Some(match name {
            "coalesce" => {
                let bounds = self.inside("COALESCE", |binder| binder.positional(name, args))?;
                let (exprs, ty) = self.unify_all(bounds, "COALESCE")?;
                Bound::new(Expr::Coalesce(exprs), ty)
            }
            "nullif" if args.len() == 2 => {
                let mut bounds = self.positional(name, args)?.into_iter();
                let (Some(value), Some(other)) = (bounds.next(), bounds.next()) else { return Ok(None) };
                let ty = if value.ty == PgType::Unknown { PgType::Text } else { value.ty.clone() };
                let (left, right, _) = self.unify_pair(value, other, "=")?;
                let equal = Expr::Binary { op: Op::Eq, left: Box::new(left.clone()), right: Box::new(right) };
                let branches = vec![(equal, Expr::Const(Value::Null))];
                Bound::new(Expr::Case { branches, otherwise: Box::new(left) }, ty)
            }
            "greatest" | "least" => {
                let bounds = self.positional(name, args)?;
                let (exprs, ty) = self.unify_all(bounds, &name.to_uppercase())?;
                let op = if name == "greatest" { Op::GtEq } else { Op::LtEq };
                let pick = |best: Expr, next: Expr| {
                    let wins = Expr::Binary { op, left: Box::new(best.clone()), right: Box::new(next.clone()) };
                    let next_null = Expr::IsNull(Box::new(next.clone()));
                    let best_null = Expr::Not(Box::new(Expr::IsNull(Box::new(best.clone()))));
                    let keep = Expr::Or(vec![next_null, Expr::And(vec![best_null, wins])]);
                    Expr::Case { branches: vec![(keep, best)], otherwise: Box::new(next) }
                };
                if exprs.len() > 16 {
                    return Err(Error::unsupported("GREATEST and LEAST of more than 16 values over catalogs"));
                }
                match exprs.into_iter().reduce(pick) {
                    Some(expr) => Bound::new(expr, ty),
                    None => return Ok(None),
                }
            }
            "pg_typeof" if args.len() == 1 => {
                let bound = self.positional(name, args)?;
                let name = bound[0].ty.to_string();
                let text = Bound::new(Expr::Const(Value::text(name)), PgType::Text);
                Bound::new(self.convert(text, &PgType::Regtype), PgType::Regtype)
            }
            "json_build_object" | "jsonb_build_object" => {
                let bounds = self.positional(name, args)?;
                let parts = bounds.into_iter().flat_map(|bound| {
                    let ty = Expr::Const(Value::text(bound.ty.to_string()));
                    [bound.expr, ty]
                });
                let parts: Vec<Expr> = parts.collect();
                let function = functions::scalar("json_build_object_typed", parts.len(), |_| true);
                let function = function.expect("json_build_object_typed is one of ours");
                Bound::new(
                    Expr::Call(function, parts),
                    if name.starts_with("jsonb") { PgType::Jsonb } else { PgType::Json },
                )
            }
            "row" => {
                let bounds = self.positional(name, args)?;
                super::expr::record(bounds)
            }
            _ => return Ok(None),
        }))
    }

    fn aggregate_call(
        &mut self,
        kind: AggregateKind,
        args: &[FunctionArg],
        distinct: bool,
        order: &[ast::OrderByExpr],
        filter: Option<&ast::Expr>,
    ) -> Result<Bound> {
        if self.levels.is_empty() {
            return Err(Error::new(SqlState::GROUPING_ERROR, "aggregate functions are not allowed here"));
        }
        let bounds = match kind {
            AggregateKind::CountRows => Vec::new(),
            _ => self.positional("aggregate", args)?,
        };
        let ty = bounds.first().map_or(PgType::Int8, |bound| bound.ty.clone());
        let returns = match kind {
            AggregateKind::CountRows | AggregateKind::Count => PgType::Int8,
            AggregateKind::Sum => match ty {
                PgType::Int2 | PgType::Int4 => PgType::Int8,
                PgType::Int8 => PgType::Numeric(None),
                _ => ty.clone(),
            },
            AggregateKind::Avg => PgType::Float8,
            AggregateKind::StringAgg => PgType::Text,
            AggregateKind::ArrayAgg => PgType::Array(Box::new(match ty.clone() {
                PgType::Unknown => PgType::Text,
                ty => ty,
            })),
            AggregateKind::BoolAnd | AggregateKind::BoolOr => PgType::Bool,
            AggregateKind::JsonAgg => PgType::Json,
            AggregateKind::Min | AggregateKind::Max if ty == PgType::Unknown => PgType::Text,
            AggregateKind::Min | AggregateKind::Max => ty.clone(),
        };
        let args = match kind {
            AggregateKind::StringAgg => bounds.into_iter().map(|bound| self.convert(bound, &PgType::Text)).collect(),
            _ => bounds.into_iter().map(|bound| bound.expr).collect(),
        };
        let filter = match filter {
            Some(filter) => Some(self.condition(filter, "FILTER")?),
            None => None,
        };
        let order = self.inner_order(order)?;
        let aggregate = Aggregate { kind, args, distinct, filter, order, ty };
        Ok(Bound::new(self.slot(Slot::Aggregate(aggregate)), returns))
    }

    fn window_call(&mut self, name: &str, over: &WindowType) -> Result<Bound> {
        let kind = match name {
            "row_number" => WindowKind::RowNumber,
            "rank" => WindowKind::Rank,
            "dense_rank" => WindowKind::DenseRank,
            "count" => WindowKind::Count,
            _ => return Err(Error::unsupported(format!("the window function {name} over catalogs"))),
        };
        let WindowType::WindowSpec(spec) = over else {
            return Err(Error::unsupported("named windows over catalogs"));
        };
        if kind == WindowKind::Count && !spec.order_by.is_empty() {
            return Err(Error::unsupported("running counts over catalogs"));
        }
        let partition = spec.partition_by.iter().map(|expr| self.expr(expr).map(|bound| bound.expr));
        let partition = partition.collect::<Result<_>>()?;
        let order = self.inner_order(&spec.order_by)?;
        Ok(Bound::new(self.slot(Slot::Window(Window { kind, partition, order })), PgType::Int8))
    }
}

fn aggregate_kind(name: &str, args: &[FunctionArg]) -> Option<AggregateKind> {
    let star = matches!(args, [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]);
    Some(match name {
        "count" if star => AggregateKind::CountRows,
        "count" => AggregateKind::Count,
        "sum" => AggregateKind::Sum,
        "avg" => AggregateKind::Avg,
        "min" => AggregateKind::Min,
        "max" => AggregateKind::Max,
        "string_agg" => AggregateKind::StringAgg,
        "array_agg" => AggregateKind::ArrayAgg,
        "bool_and" | "every" => AggregateKind::BoolAnd,
        "bool_or" => AggregateKind::BoolOr,
        "json_agg" | "jsonb_agg" => AggregateKind::JsonAgg,
        _ => return None,
    })
}

pub(super) fn named_arg(arg: &FunctionArg) -> Result<(Option<String>, &ast::Expr)> {
    let (name, arg) = match arg {
        FunctionArg::Named { name, arg, .. } => (Some(ident(name)), arg),
        FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg, .. } => (Some(ident(name)), arg),
        FunctionArg::ExprNamed { .. } => return Err(Error::unsupported("an expression as an argument's name")),
        FunctionArg::Unnamed(arg) => (None, arg),
    };
    match arg {
        FunctionArgExpr::Expr(expr) => Ok((name, expr)),
        _ => Err(Error::new(SqlState::SYNTAX_ERROR, "* is only allowed as the argument of count")),
    }
}

/// An overload fits when no argument would have to change its kind.
fn fits(args: &Args, bounds: &[Bound]) -> bool {
    use crate::pgcatalog::cast::{is_number, is_text};
    bounds.iter().enumerate().all(|(at, bound)| match args.ty(at) {
        ArgType::Type(ty @ (PgType::Int2Vector | PgType::OidVector)) => *ty == bound.ty,
        ArgType::Type(ty) => {
            bound.ty == PgType::Unknown
                || *ty == bound.ty
                || is_number(ty) && is_number(&bound.ty)
                || is_text(ty) && is_text(&bound.ty)
                || super::types::common(ty, &bound.ty).is_some() && !is_text(ty) && !is_number(ty)
        }
        _ => true,
    })
}
