//! Queries.

use super::names::{column_name, ident, object_name};
use super::push::{conjuncts, push};
use super::scope::{CteName, Level, column_at};
use super::types::{common, retype, settle_unknown};
use super::{Binder, Bound};
use crate::pgcatalog::tree::*;
use crate::pgcatalog::value::Value;
use datafusion::sql::sqlparser::ast::{
    self, Distinct as AstDistinct, GroupByExpr, LimitClause, OrderByExpr, OrderByKind, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier,
};
use engine::PgType;
use proto::{Error, Result, SqlState};

impl Binder<'_> {
    /// A query, with its own frame: knows what it depends on.
    pub(super) fn query(&mut self, query: &ast::Query) -> Result<Query> {
        self.open_frame();
        let conditional = self.conditional.take();
        let bound = self.query_in_frame(query);
        self.conditional = conditional;
        let (correlated, _) = self.close_frame();
        let mut bound = bound?;
        bound.correlated = correlated;
        Ok(bound)
    }

    pub(super) fn query_in_frame(&mut self, query: &ast::Query) -> Result<Query> {
        let outer_ctes = self.ctes.len();
        let bound = self.nested(|binder| {
            let mut ctes = Vec::new();
            if let Some(with) = &query.with {
                for cte in &with.cte_tables {
                    ctes.push(binder.cte(cte, with.recursive)?);
                }
            }
            let order = match query.order_by.as_ref().map(|order| &order.kind) {
                None => &[][..],
                Some(OrderByKind::Expressions(keys)) => keys,
                Some(OrderByKind::All(_)) => return Err(Error::unsupported("ORDER BY ALL")),
            };
            let changing_before = binder.changing_calls;
            let mut bound = binder.body(&query.body, order)?;
            let is_limited = query.limit_clause.is_some() || query.fetch.is_some();
            // All rows are computed before the limit cuts them off.
            if is_limited && binder.changing_calls > changing_before {
                return Err(Error::unsupported("LIMIT or OFFSET on a query that calls a function with effects")
                    .hint("Put the LIMIT into a sub-query in FROM that yields the function's arguments."));
            }
            // What is in parentheses keeps its own table expressions, order and limit.
            if matches!(*query.body, SetExpr::Query(_)) {
                let columns = bound.columns.clone();
                bound = binder.finished(Body::Query(Box::new(bound)), columns);
            }
            bound.ctes = ctes;
            binder.limit(query, &mut bound)?;
            if !matches!(bound.body, Body::Select(_)) {
                bound.order = binder.output_order(order, &bound.columns)?;
            }
            Ok(bound)
        });
        self.ctes.truncate(outer_ctes);
        bound
    }

    fn limit(&mut self, query: &ast::Query, bound: &mut Query) -> Result<()> {
        let (limit, offset) = match &query.limit_clause {
            None => (None, None),
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
        };
        let fetch = query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref());
        let mut count = |expr: Option<&ast::Expr>| match expr {
            Some(expr) => {
                let expr = self.expr(expr)?;
                Ok::<_, Error>(Some(self.convert(expr, &PgType::Int8)))
            }
            None => Ok(None),
        };
        bound.limit = count(limit.or(fetch))?;
        bound.offset = count(offset)?;
        Ok(())
    }

    fn cte(&mut self, cte: &ast::Cte, recursive: bool) -> Result<Cte> {
        let name = ident(&cte.alias.name);
        let slot = self.id();
        if let (true, SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, left, right }) =
            (recursive, cte.query.body.as_ref())
            && mentions(right, &name)
        {
            let outer_ctes = self.ctes.len();
            let mut before = Vec::new();
            if let Some(with) = &cte.query.with {
                for inner in &with.cte_tables {
                    before.push(self.cte(inner, with.recursive)?);
                }
            }
            let mut first = self.framed(|binder| binder.body(left, &[]))?;
            settle_unknown(&mut first);
            rename(&mut first.columns, &cte.alias);
            self.ctes.push(CteName { name: name.clone(), slot, columns: first.columns.clone() });
            let mut step = self.framed(|binder| binder.body(right, &[]))?;
            if step.columns.len() != first.columns.len() {
                return Err(column_counts("UNION"));
            }
            let types: Vec<PgType> = first.columns.iter().map(|column| column.ty.clone()).collect();
            retype(&mut step, &types);
            let columns = first.columns.clone();
            before.append(&mut first.ctes);
            first.ctes = before;
            self.ctes.truncate(outer_ctes);
            self.ctes.push(CteName { name, slot, columns });
            return Ok(Cte { slot, query: first, recursive: Some((step, *set_quantifier == SetQuantifier::All)) });
        }
        let mut query = self.query(&cte.query)?;
        settle_unknown(&mut query);
        rename(&mut query.columns, &cte.alias);
        self.ctes.push(CteName { name, slot, columns: query.columns.clone() });
        Ok(Cte { slot, query, recursive: None })
    }

    fn framed(&mut self, bind: impl FnOnce(&mut Self) -> Result<Query>) -> Result<Query> {
        self.open_frame();
        let bound = bind(self);
        let (correlated, _) = self.close_frame();
        bound.map(|query| Query { correlated, ..query })
    }

    /// `order` is used by a SELECT itself; set operations are sorted outside.
    fn body(&mut self, body: &SetExpr, order: &[OrderByExpr]) -> Result<Query> {
        match body {
            SetExpr::Select(select) => self.nested(|binder| binder.select(select, order)),
            SetExpr::Query(query) => self.query(query),
            SetExpr::Values(values) => {
                let rows = values.rows.iter().map(|row| &row.content);
                self.values(rows.map(|row| row.as_slice()).collect())
            }
            SetExpr::SetOperation { op, set_quantifier, left, right } => {
                let op = match op {
                    SetOperator::Union => SetOp::Union,
                    SetOperator::Intersect => SetOp::Intersect,
                    SetOperator::Except | SetOperator::Minus => SetOp::Except,
                };
                self.nested(|binder| binder.set_operation(op, *set_quantifier == SetQuantifier::All, left, right))
            }
            SetExpr::Table(table) => {
                let name = table.table_name.clone().unwrap_or_default();
                let qualified = table.schema_name.as_ref().map(|schema| format!("{schema}.{name}"));
                Err(Error::unsupported(format!("TABLE {}", qualified.unwrap_or(name))))
            }
            _ => Err(Error::unsupported("a data-modifying statement over catalogs")),
        }
    }

    fn set_operation(&mut self, op: SetOp, all: bool, left: &SetExpr, right: &SetExpr) -> Result<Query> {
        let mut left = self.framed(|binder| binder.body(left, &[]))?;
        let mut right = self.framed(|binder| binder.body(right, &[]))?;
        let word = match op {
            SetOp::Union => "UNION",
            SetOp::Intersect => "INTERSECT",
            SetOp::Except => "EXCEPT",
        };
        if left.columns.len() != right.columns.len() {
            return Err(column_counts(word));
        }
        let types = left.columns.iter().zip(&right.columns).map(|(left, right)| {
            common(&left.ty, &right.ty).ok_or_else(|| {
                let message = format!("{word} types {} and {} cannot be matched", left.ty, right.ty);
                Error::new(SqlState::DATATYPE_MISMATCH, message)
            })
        });
        let types = types.collect::<Result<Vec<_>>>()?;
        retype(&mut left, &types);
        retype(&mut right, &types);
        let columns = left.columns.clone();
        Ok(self.finished(Body::Set { op, all, left: Box::new(left), right: Box::new(right) }, columns))
    }

    fn values(&mut self, rows: Vec<&[ast::Expr]>) -> Result<Query> {
        let width = rows.first().map_or(0, |row| row.len());
        if rows.iter().any(|row| row.len() != width) {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "VALUES lists must all be the same length"));
        }
        let mut columns = Vec::new();
        let mut bound_rows: Vec<Vec<Expr>> = rows.iter().map(|_| Vec::new()).collect();
        for at in 0..width {
            let bounds = rows.iter().map(|row| self.expr(&row[at])).collect::<Result<Vec<_>>>()?;
            let open = bounds.iter().all(|bound| bound.ty == PgType::Unknown);
            let (exprs, ty) = match open {
                true => (bounds.into_iter().map(|bound| bound.expr).collect(), PgType::Unknown),
                false => self.unify_all(bounds, "VALUES")?,
            };
            bound_rows.iter_mut().zip(exprs).for_each(|(row, expr)| row.push(expr));
            columns.push(OutColumn { name: format!("column{}", at + 1), ty, fields: None });
        }
        Ok(self.finished(Body::Values(bound_rows), columns))
    }

    fn finished(&mut self, body: Body, columns: Vec<OutColumn>) -> Query {
        let id = self.id();
        Query { id, ctes: Vec::new(), body, order: Vec::new(), limit: None, offset: None, columns, correlated: false }
    }

    fn select(&mut self, select: &ast::Select, order: &[OrderByExpr]) -> Result<Query> {
        if select.into.is_some() {
            return Err(Error::unsupported("SELECT INTO over catalogs"));
        }
        self.levels.push(Level::default());
        let bound = self.select_in_level(select, order);
        self.levels.pop();
        bound
    }

    fn select_in_level(&mut self, select: &ast::Select, order: &[OrderByExpr]) -> Result<Query> {
        let mut from = self.from(&select.from)?;
        let from_width = self.level().columns.len();
        let mut filter = Vec::new();
        if let Some(selection) = &select.selection {
            let condition = self.condition(selection, "WHERE")?;
            if self.level().slots.iter().any(|slot| matches!(slot, Slot::Aggregate(_))) {
                return Err(Error::new(SqlState::GROUPING_ERROR, "aggregate functions are not allowed in WHERE"));
            }
            for conjunct in conjuncts(condition) {
                match &mut from {
                    Some(from) => push(from, conjunct),
                    None => filter.push(conjunct),
                }
            }
        }
        let mut outputs = Vec::new();
        for item in &select.projection {
            self.select_item(item, &mut outputs)?;
        }
        let group = self.group_by(&select.group_by, &select.projection, &outputs)?;
        let having = match &select.having {
            Some(having) => Some(self.condition(having, "HAVING")?),
            None => None,
        };
        let order = self.select_order(order, &outputs)?;
        let distinct = match &select.distinct {
            None | Some(AstDistinct::All) => Distinct::No,
            Some(AstDistinct::Distinct) => Distinct::Yes,
            Some(AstDistinct::On(exprs)) => {
                let exprs = exprs.iter().map(|expr| self.expr(expr).map(|bound| bound.expr));
                Distinct::On(exprs.collect::<Result<_>>()?)
            }
        };
        let slots = std::mem::take(&mut self.level().slots);
        let aggregated = slots.iter().any(|slot| matches!(slot, Slot::Aggregate(_))) || having.is_some();
        let group = group.or(aggregated.then(Vec::new));
        let columns = outputs.iter().map(|(name, bound)| OutColumn {
            name: name.clone(),
            ty: bound.ty.clone(),
            fields: bound.fields.clone(),
        });
        let columns = columns.collect();
        let projection = outputs.into_iter().map(|(_, bound)| bound.expr).collect();
        let body = Select { from, filter, group, having, from_width, slots, projection, distinct, order };
        Ok(self.finished(Body::Select(Box::new(body)), columns))
    }

    fn select_item(&mut self, item: &SelectItem, outputs: &mut Vec<(String, Bound)>) -> Result<()> {
        match item {
            SelectItem::UnnamedExpr(expr) => outputs.push((column_name(expr), self.expr(expr)?)),
            SelectItem::ExprWithAlias { expr, alias } => outputs.push((ident(alias), self.expr(expr)?)),
            SelectItem::Wildcard(_) => {
                let level = self.level();
                let shown = level.columns.iter().enumerate().filter(|(_, column)| !column.merged_away);
                outputs.extend(shown.map(|(index, column)| (column.name.clone(), column_at(column, 0, index))));
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let table = object_name(name).pop().unwrap_or_default();
                let level = self.level();
                if !level.tables.iter().any(|known| known.name == table) {
                    let message = format!("missing FROM-clause entry for table \"{table}\"");
                    return Err(Error::new(SqlState::UNDEFINED_TABLE, message));
                }
                let own = level.columns.iter().enumerate().filter(|(_, column)| column.table == table);
                outputs.extend(own.map(|(index, column)| (column.name.clone(), column_at(column, 0, index))));
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _) => {
                let bound = self.expr(expr)?;
                let Some(fields) = bound.fields.clone() else {
                    return Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("type {} is not composite", bound.ty)));
                };
                for (at, (name, ty)) in fields.iter().enumerate() {
                    let field = Expr::Field(Box::new(bound.expr.clone()), at);
                    outputs.push((name.clone(), Bound::new(field, ty.clone())));
                }
            }
            other => return Err(Error::unsupported(format!("the select list item {other}"))),
        }
        Ok(())
    }

    fn group_by(
        &mut self,
        group_by: &GroupByExpr,
        projection: &[SelectItem],
        outputs: &[(String, Bound)],
    ) -> Result<Option<Vec<Expr>>> {
        let exprs = match group_by {
            GroupByExpr::Expressions(exprs, modifiers) if modifiers.is_empty() => exprs,
            _ => return Err(Error::unsupported("GROUP BY ALL and grouping sets")),
        };
        if exprs.is_empty() {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for expr in exprs {
            if let Some(at) = ordinal(expr) {
                let output = outputs.get(at.wrapping_sub(1)).ok_or_else(|| not_in_list("GROUP BY", at))?;
                keys.push(output.1.expr.clone());
                continue;
            }
            // A column of the input wins over an output's name.
            match self.expr(expr) {
                Ok(bound) => keys.push(bound.expr),
                Err(error) => match output_named(expr, outputs) {
                    Some(at) if projection.len() == outputs.len() => keys.push(outputs[at].1.expr.clone()),
                    _ => return Err(error),
                },
            }
        }
        Ok(Some(keys))
    }

    /// An output's name wins over an input column; a number is an output's position.
    fn select_order(&mut self, order: &[OrderByExpr], outputs: &[(String, Bound)]) -> Result<Vec<SortKey>> {
        let mut keys = Vec::new();
        for key in order {
            let by = match (ordinal(&key.expr), output_named(&key.expr, outputs)) {
                (Some(at), _) if at == 0 || at > outputs.len() => return Err(not_in_list("ORDER BY", at)),
                (Some(at), _) => SortBy::Output(at - 1),
                (None, Some(at)) => SortBy::Output(at),
                (None, None) => SortBy::Expr(self.expr(&key.expr)?.expr),
            };
            keys.push(sort_key(by, key));
        }
        Ok(keys)
    }

    fn output_order(&mut self, order: &[OrderByExpr], columns: &[OutColumn]) -> Result<Vec<SortKey>> {
        let keys = order.iter().map(|key| {
            let name = match &key.expr {
                ast::Expr::Identifier(name) => Some(ident(name)),
                _ => None,
            };
            let named = name.and_then(|name| columns.iter().position(|column| column.name == name));
            match ordinal(&key.expr).map(|at| at.wrapping_sub(1)).or(named) {
                Some(at) if at < columns.len() => Ok(sort_key(SortBy::Output(at), key)),
                Some(at) => Err(not_in_list("ORDER BY", at.wrapping_add(1))),
                None => {
                    Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "invalid UNION/INTERSECT/EXCEPT ORDER BY clause"))
                }
            }
        });
        keys.collect()
    }

    /// The keys of an aggregate's or window's ORDER BY.
    pub(super) fn inner_order(&mut self, order: &[OrderByExpr]) -> Result<Vec<SortKey>> {
        let keys = order.iter().map(|key| Ok(sort_key(SortBy::Expr(self.expr(&key.expr)?.expr), key)));
        keys.collect()
    }

    pub(super) fn condition(&mut self, expr: &ast::Expr, clause: &str) -> Result<Expr> {
        let bound = self.expr(expr)?;
        match bound.ty {
            PgType::Bool | PgType::Unknown => Ok(self.convert(bound, &PgType::Bool)),
            // An unknown relation's column, or a call only the session understands.
            _ if matches!(bound.expr, Expr::Const(Value::Null)) => Ok(bound.expr),
            other => Err(Error::new(
                SqlState::DATATYPE_MISMATCH,
                format!("argument of {clause} must be type boolean, not type {other}"),
            )),
        }
    }
}

fn column_counts(word: &str) -> Error {
    Error::new(SqlState::SYNTAX_ERROR, format!("each {word} query must have the same number of columns"))
}

fn not_in_list(clause: &str, at: usize) -> Error {
    Error::new(SqlState::new("42P10"), format!("{clause} position {at} is not in select list"))
}

fn sort_key(by: SortBy, key: &OrderByExpr) -> SortKey {
    let descending = key.options.asc == Some(false);
    SortKey { by, descending, nulls_first: key.options.nulls_first.unwrap_or(descending) }
}

fn ordinal(expr: &ast::Expr) -> Option<usize> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

fn output_named(expr: &ast::Expr, outputs: &[(String, Bound)]) -> Option<usize> {
    let ast::Expr::Identifier(name) = expr else { return None };
    let name = ident(name);
    outputs.iter().position(|(output, _)| *output == name)
}

pub(super) fn rename(columns: &mut [OutColumn], alias: &ast::TableAlias) {
    for (column, name) in columns.iter_mut().zip(&alias.columns) {
        column.name = ident(&name.name);
    }
}

/// Whether a query reads the table expression it defines.
fn mentions(body: &SetExpr, name: &str) -> bool {
    use std::ops::ControlFlow;
    let found = ast::visit_relations(body, |relation| match object_name(relation).as_slice() {
        [only] if only == name => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}
