//! FROM items.

use super::names::{ident, schema_and_name};
use super::push::{conjuncts, push_on};
use super::scope::{ScopeColumn, ScopeTable};
use super::{Binder, Bound};
use crate::pgcatalog::schema::{self, RelationDef};
use crate::pgcatalog::tree::*;
use crate::pgcatalog::value::Value;
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, JoinConstraint, JoinOperator, TableAlias, TableFactor, TableWithJoins,
};
use engine::PgType;
use proto::{Error, Result, SqlState};
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn from(&mut self, items: &[TableWithJoins]) -> Result<Option<Source>> {
        let mut from: Option<Source> = None;
        for item in items {
            let right = self.joined(item)?;
            from = Some(match from {
                None => right,
                Some(left) => self.join(JoinKind::Inner, left, right, &JoinConstraint::None)?,
            });
        }
        Ok(from)
    }

    fn joined(&mut self, item: &TableWithJoins) -> Result<Source> {
        let mut left = self.factor(&item.relation)?;
        for join in &item.joins {
            let right = self.factor(&join.relation)?;
            let (kind, constraint) = match &join.join_operator {
                JoinOperator::Join(on) | JoinOperator::Inner(on) => (JoinKind::Inner, on),
                JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (JoinKind::Left, on),
                JoinOperator::Right(on) | JoinOperator::RightOuter(on) => (JoinKind::Right, on),
                JoinOperator::FullOuter(on) => (JoinKind::Full, on),
                JoinOperator::CrossJoin(on) => (JoinKind::Inner, on),
                _ => return Err(Error::unsupported("this kind of join over catalogs")),
            };
            left = self.join(kind, left, right, constraint)?;
        }
        Ok(left)
    }

    fn join(&mut self, kind: JoinKind, left: Source, right: Source, constraint: &JoinConstraint) -> Result<Source> {
        let (mut left, mut right) = (left, right);
        if right.lateral && matches!(kind, JoinKind::Right | JoinKind::Full) {
            return Err(Error::new(
                SqlState::new("42P10"),
                "invalid reference to FROM-clause entry for a lateral item",
            ));
        }
        let conditions = match constraint {
            JoinConstraint::None => Vec::new(),
            JoinConstraint::On(on) => conjuncts(self.condition(on, "JOIN/ON")?),
            JoinConstraint::Using(names) => {
                let names = names.iter().map(|name| schema_and_name(name).1).collect();
                self.merge(kind, &left, &right, names)?
            }
            JoinConstraint::Natural => {
                let level = self.level();
                let (before, after) = level.columns.split_at(right.base);
                let shared = before[left.base..].iter().map(|column| column.name.clone());
                let shared = shared.filter(|name| after.iter().any(|column| column.name == *name)).collect();
                self.merge(kind, &left, &right, shared)?
            }
        };
        let mut join = Join { kind, keys: Vec::new(), rest: Vec::new() };
        for condition in conditions {
            push_on(&mut join, &mut left, &mut right, condition);
        }
        let (base, width) = (left.base, left.width + right.width);
        // A lateral item inside may read what stands before the join. To assume that it does is slower, never wrong.
        let lateral = left.lateral || right.lateral && base > 0;
        let kind = SourceKind::Join { join, left: Box::new(left), right: Box::new(right) };
        Ok(Source { base, width, filter: Vec::new(), lateral, kind })
    }

    /// `USING`: equalities, and one of each pair disappears from sight.
    fn merge(&mut self, kind: JoinKind, left: &Source, right: &Source, names: Vec<String>) -> Result<Vec<Expr>> {
        let mut conditions = Vec::new();
        for name in names {
            let find = |columns: &[ScopeColumn], source: &Source| {
                let end = source.base + source.width;
                (source.base..end).find(|at| columns[*at].name == name && !columns[*at].merged_away)
            };
            let level = self.level();
            let pair = find(&level.columns, left).zip(find(&level.columns, right));
            let (a, b) = pair.ok_or_else(|| {
                let message = format!("column \"{name}\" specified in USING clause does not exist in both tables");
                Error::new(SqlState::UNDEFINED_COLUMN, message)
            })?;
            let (hidden, shown) = if kind == JoinKind::Right { (a, b) } else { (b, a) };
            level.columns[hidden].merged_away = true;
            if kind == JoinKind::Full {
                level.columns[shown].coalesce = Some(hidden);
            }
            let sides = [a, b].map(|at| Bound::new(Expr::Column { up: 0, index: at }, level.columns[at].ty.clone()));
            let [a, b] = sides;
            let (left, right, _) = self.unify_pair(a, b, "=")?;
            conditions.push(Expr::Binary { op: Op::Eq, left: Box::new(left), right: Box::new(right) });
        }
        Ok(conditions)
    }

    fn factor(&mut self, factor: &TableFactor) -> Result<Source> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => self.table(name, alias.as_ref()),
            TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => {
                self.function(name, &args.args, alias.as_ref(), *with_ordinality)
            }
            TableFactor::Function { name, args, alias, with_ordinality, .. } => {
                self.function(name, args, alias.as_ref(), *with_ordinality)
            }
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
                let calls = array_exprs.iter().map(|array| ("unnest".to_owned(), vec![array.clone()]));
                self.calls("unnest", calls.collect(), alias.as_ref(), *with_ordinality)
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => self.derived(*lateral, subquery, alias.as_ref()),
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.nested(|binder| binder.joined(table_with_joins))
            }
            other => Err(Error::unsupported(format!("the FROM item {other}"))),
        }
    }

    fn table(&mut self, name: &ast::ObjectName, alias: Option<&TableAlias>) -> Result<Source> {
        let (schema, name) = schema_and_name(name);
        if schema.is_none()
            && let Some(cte) = self.ctes.iter().rev().find(|cte| cte.name == name).cloned()
        {
            self.frames.iter_mut().for_each(|frame| frame.changing = true);
            return Ok(self.item(alias, &name, None, cte.columns, SourceKind::Cte(cte.slot)));
        }
        if let Some(def) = schema::find(schema.as_deref(), &name) {
            let columns = def.columns.iter().map(|column| OutColumn {
                name: column.name.clone(),
                ty: column.ty.clone(),
                fields: None,
            });
            let table = ScopeTable {
                name: name.clone(),
                schema: Some(def.schema.clone()),
                relation: Some(def.oid),
                open: false,
            };
            let columns = columns.collect();
            return Ok(self.item(alias, &name, Some(table), columns, SourceKind::Relation(def)));
        }
        if schema.as_deref().is_some_and(schema::is_system_schema) {
            tracing::warn!(relation = %name, schema = schema.as_deref(), "unknown catalog relation answered with no rows");
            let empty = Arc::new(RelationDef {
                oid: 0,
                schema: schema.clone().unwrap_or_default(),
                name: name.clone(),
                kind: 'v',
                columns: Vec::new(),
            });
            let table = ScopeTable { name: name.clone(), schema, relation: None, open: true };
            return Ok(self.item(alias, &name, Some(table), Vec::new(), SourceKind::Relation(empty)));
        }
        let full = schema.map_or(name.clone(), |schema| format!("{schema}.{name}"));
        Err(Error::new(SqlState::UNDEFINED_TABLE, format!("relation \"{full}\" does not exist")))
    }

    fn derived(&mut self, lateral: bool, query: &ast::Query, alias: Option<&TableAlias>) -> Result<Source> {
        let hidden = std::mem::replace(&mut self.level().hidden, !lateral);
        self.open_frame();
        let bound = self.query_in_frame(query);
        let (correlated, reads_neighbours) = self.close_frame();
        self.level().hidden = hidden;
        let mut bound = bound?;
        bound.correlated = correlated;
        super::types::settle_unknown(&mut bound);
        let columns = bound.columns.clone();
        let mut source = self.item(alias, "", None, columns, SourceKind::Query(Box::new(bound)));
        source.lateral = reads_neighbours;
        Ok(source)
    }

    fn function(
        &mut self,
        name: &ast::ObjectName,
        args: &[FunctionArg],
        alias: Option<&TableAlias>,
        ordinality: bool,
    ) -> Result<Source> {
        let (schema, bare) = schema_and_name(name);
        self.open_frame();
        let call = self.table_call(schema.as_deref(), &bare, args);
        let (_, lateral) = self.close_frame();
        let (call, columns) = call?;
        let width = columns.len();
        Ok(self.call_item(&bare, vec![(call, width)], columns, alias, ordinality, lateral))
    }

    /// Calls side by side: `unnest(a, b)`.
    fn calls(
        &mut self,
        name: &str,
        calls: Vec<(String, Vec<ast::Expr>)>,
        alias: Option<&TableAlias>,
        ordinality: bool,
    ) -> Result<Source> {
        self.open_frame();
        let bound = calls.into_iter().map(|(name, args)| {
            let args = args.into_iter().map(|arg| FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(arg)));
            self.table_call(None, &name, &args.collect::<Vec<_>>())
        });
        let bound = bound.collect::<Result<Vec<_>>>();
        let (_, lateral) = self.close_frame();
        let (mut parts, mut columns) = (Vec::new(), Vec::new());
        for (call, own) in bound? {
            parts.push((call, own.len()));
            columns.extend(own);
        }
        Ok(self.call_item(name, parts, columns, alias, ordinality, lateral))
    }

    fn call_item(
        &mut self,
        name: &str,
        calls: Vec<(TableCall, usize)>,
        mut columns: Vec<OutColumn>,
        alias: Option<&TableAlias>,
        ordinality: bool,
        lateral: bool,
    ) -> Source {
        // A function of one nameless column lends it the alias.
        if let ([only], Some(alias)) = (columns.as_mut_slice(), alias)
            && only.name == name
        {
            only.name = ident(&alias.name);
        }
        if ordinality {
            columns.push(OutColumn { name: "ordinality".to_owned(), ty: PgType::Int8, fields: None });
        }
        let mut source = self.item(alias, name, None, columns, SourceKind::Calls { calls, ordinality });
        source.lateral = lateral;
        source
    }

    /// Enters an item's columns under its alias.
    fn item(
        &mut self,
        alias: Option<&TableAlias>,
        name: &str,
        table: Option<ScopeTable>,
        mut columns: Vec<OutColumn>,
        kind: SourceKind,
    ) -> Source {
        let mut table =
            table.unwrap_or(ScopeTable { name: name.to_owned(), schema: None, relation: None, open: false });
        if let Some(alias) = alias {
            super::query::rename(&mut columns, alias);
            (table.name, table.schema) = (ident(&alias.name), None);
        }
        let level = self.level();
        let (base, width) = (level.columns.len(), columns.len());
        level.columns.extend(columns.into_iter().map(|column| ScopeColumn {
            table: table.name.clone(),
            name: column.name,
            ty: column.ty,
            fields: column.fields,
            merged_away: false,
            coalesce: None,
        }));
        level.tables.push(table);
        Source { base, width, filter: Vec::new(), lateral: false, kind }
    }
}

/// The one value of a scalar call in FROM.
pub(super) fn scalar_in_from(bound: Bound, name: &str) -> (TableCall, Vec<OutColumn>) {
    let column = OutColumn { name: name.to_owned(), ty: bound.ty, fields: bound.fields };
    let expr = if matches!(column.ty, PgType::Unknown) { Expr::Const(Value::Null) } else { bound.expr };
    (TableCall::Scalar(expr), vec![column])
}
