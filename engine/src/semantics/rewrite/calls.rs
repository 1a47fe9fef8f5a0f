//! Which calls may stand where: names that nothing answers to, window functions without OVER, and window functions in the
//! clauses that are evaluated before there are windows.

use super::syntax;
use crate::functions::FUNCTIONS;
use crate::functions::undefined::UNDEFINED;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, JoinConstraint, JoinOperator, Query,
    Select, Visit, Visitor,
};
use proto::{Error, SqlState};
use std::ops::ControlFlow;

/// Names that DataFusion's planner knows by itself.
const PLANNED: &[&str] = &["unnest"];

/// # Errors
/// 42809 for a window function without OVER.
pub fn check(call: &Function) -> Result<(), Error> {
    let Some(name) = plain_name(call) else { return Ok(()) };
    // `first_value` and its kin are aggregates too, beyond PostgreSQL.
    if call.over.is_none() && FUNCTIONS.is_window(&name) && FUNCTIONS.aggregate(&name).is_none() {
        let message = format!("window function {name} requires an OVER clause");
        return Err(Error::new(SqlState::new("42809"), message));
    }
    Ok(())
}

/// What takes the place of a call of a name that nothing answers to; its planning is the error.
pub fn undefined(call: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let name = plain_name(call).unwrap_or_else(|| call.name.to_string());
    let known = PLANNED.contains(&name.as_str())
        || FUNCTIONS.is_window(&name)
        || FUNCTIONS.scalar(&name).is_some()
        || FUNCTIONS.aggregate(&name).is_some();
    if known {
        return None;
    }
    let args = list.args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        FunctionArg::Named { arg: FunctionArgExpr::Expr(value), .. } => Some(value.clone()),
        _ => None,
    });
    Some(syntax::function(UNDEFINED, std::iter::once(syntax::text(name)).chain(args).collect()))
}

fn plain_name(call: &Function) -> Option<String> {
    match call.name.0.as_slice() {
        [name] => name.as_ident().map(|name| match name.quote_style {
            Some(_) => name.value.clone(),
            None => name.value.to_ascii_lowercase(),
        }),
        _ => None,
    }
}

/// # Errors
/// 42P20 for a window function in a clause that cannot have one.
pub fn check_windows(select: &Select) -> Result<(), Error> {
    let refuse = |expr: &Expr, clause: &str| match expr.visit(&mut Windows { query_depth: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => {
            Err(Error::new(SqlState::new("42P20"), format!("window functions are not allowed in {clause}")))
        }
    };
    if let Some(condition) = &select.selection {
        refuse(condition, "WHERE")?;
    }
    if let Some(condition) = &select.having {
        refuse(condition, "HAVING")?;
    }
    if let GroupByExpr::Expressions(items, _) = &select.group_by {
        items.iter().try_for_each(|item| refuse(item, "GROUP BY"))?;
    }
    for join in select.from.iter().flat_map(|from| &from.joins) {
        if let Some(condition) = join_condition(&join.join_operator) {
            refuse(condition, "JOIN conditions")?;
        }
    }
    Ok(())
}

fn join_condition(join: &JoinOperator) -> Option<&Expr> {
    let (JoinOperator::Join(constraint)
    | JoinOperator::Inner(constraint)
    | JoinOperator::Left(constraint)
    | JoinOperator::LeftOuter(constraint)
    | JoinOperator::Right(constraint)
    | JoinOperator::RightOuter(constraint)
    | JoinOperator::FullOuter(constraint)) = join
    else {
        return None;
    };
    match constraint {
        JoinConstraint::On(condition) => Some(condition),
        _ => None,
    }
}

/// Looks for a window function outside sub-selects.
struct Windows {
    query_depth: usize,
}

impl Visitor for Windows {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.query_depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.query_depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(call) if self.query_depth == 0 && call.over.is_some() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}
