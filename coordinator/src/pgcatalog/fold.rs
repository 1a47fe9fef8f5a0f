//! Calls that only this module knows, in statements that go to the planner: replaced by their value where they read no
//! column (`SELECT current_user, count(*) FROM t`, `WHERE x = current_setting('app.x')`, `'t'::regclass`).

use super::bind::{Binder, column_name};
use super::cast::to_text;
use super::functions;
use super::route::{is_reg_type, is_session_word};
use super::run::{self, Context};
use super::system::{NoFunctions, SystemCatalog};
use super::value::Value;
use datafusion::sql::sqlparser::ast::{
    self, CastKind, DataType, Expr, FunctionArguments, Select, SelectItem, Statement, Visit, VisitMut, Visitor,
    VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use engine::PgType;
use proto::{Error, Result};
use std::ops::ControlFlow;

/// Output columns keep the names they had.
///
/// # Errors
/// What evaluating such a call gives: an unknown setting, an unknown relation in `'t'::regclass`.
pub fn fold_constant_calls(statement: &mut Statement, catalog: &dyn SystemCatalog) -> Result<()> {
    match statement.visit(&mut Folder { catalog }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Folder<'a> {
    catalog: &'a dyn SystemCatalog,
}

impl VisitorMut for Folder<'_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && is_foldable(expr)
            {
                let alias = ast::Ident::with_quote('"', column_name(expr));
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if !is_foldable(expr) {
            return ControlFlow::Continue(());
        }
        match evaluate(expr, self.catalog) {
            Ok(folded) => {
                *expr = folded;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Reads no column and no table, and contains something the planner does not know.
fn is_foldable(expr: &Expr) -> bool {
    let mut survey = Survey { constant: true, ours: false };
    let _ = expr.visit(&mut survey);
    survey.constant && survey.ours
}

struct Survey {
    constant: bool,
    ours: bool,
}

impl Visitor for Survey {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) if is_session_word(name) => self.ours = true,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.constant = false,
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => self.constant = false,
            Expr::Value(value) => self.constant &= !matches!(value.value, ast::Value::Placeholder(_)),
            Expr::Cast { data_type, .. } => self.ours |= is_reg_type(&data_type.to_string()),
            Expr::Function(call) => {
                let name = call.name.0.last().map(|part| part.to_string().to_lowercase()).unwrap_or_default();
                let count = match &call.args {
                    FunctionArguments::List(list) => list.args.len(),
                    _ => 0,
                };
                let known = functions::scalar(&name, count, |_| true).is_some() && call.over.is_none();
                self.constant &= known;
                self.ours |= known && functions::is_catalog_only(&name);
            }
            _ => {}
        }
        if self.constant { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// `SELECT expr`.
pub(super) fn select_of(expr: Expr) -> ast::Query {
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, "SELECT NULL").ok().and_then(|mut parsed| parsed.pop());
    let Some(Statement::Query(mut query)) = parsed else { unreachable!("SELECT NULL is a query") };
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        select.projection = vec![SelectItem::UnnamedExpr(expr)];
    }
    *query
}

fn evaluate(expr: &Expr, catalog: &dyn SystemCatalog) -> Result<Expr> {
    let mut host = NoFunctions;
    let bound = Binder::new(&host, &[]).top(&select_of(expr.clone()))?;
    let mut ctx = Context::new(catalog, &mut host, &[]);
    let value = run::run(&mut ctx, None, &bound)?.pop().and_then(|mut row| row.pop()).unwrap_or(Value::Null);
    literal(&mut ctx, &value, &bound.columns[0].ty)
}

/// A literal of the value, in a type the planner has.
fn literal(ctx: &mut Context, value: &Value, ty: &PgType) -> Result<Expr> {
    let plain = |value: ast::Value| Expr::Value(value.into());
    let cast = |expr: Expr, data_type: DataType| Expr::Cast {
        kind: CastKind::DoubleColon,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    };
    Ok(match (value, ty) {
        (Value::Null, PgType::Int4) => cast(plain(ast::Value::Null), DataType::Int(None)),
        (Value::Null, PgType::Int8) => cast(plain(ast::Value::Null), DataType::BigInt(None)),
        (Value::Null, PgType::Bool) => cast(plain(ast::Value::Null), DataType::Boolean),
        (Value::Null, _) => cast(plain(ast::Value::Null), DataType::Text),
        (Value::Bool(b), _) => plain(ast::Value::Boolean(*b)),
        (Value::Int(n), PgType::Int4 | PgType::Int2) => {
            cast(plain(ast::Value::Number(n.to_string(), false)), DataType::Int(None))
        }
        (Value::Int(n), _) => plain(ast::Value::Number(n.to_string(), false)),
        (Value::Array(values), _) => {
            let inner = super::cast::element(ty).unwrap_or(PgType::Text);
            let elem = values.iter().map(|value| literal(ctx, value, &inner)).collect::<Result<_>>()?;
            Expr::Array(ast::Array { elem, named: true })
        }
        (Value::Timestamp(_), PgType::Timestamptz) => {
            let text = super::time::timestamp_text(timestamp(value), Some("UTC"));
            let zoned = DataType::Timestamp(None, ast::TimezoneInfo::Tz);
            cast(plain(ast::Value::SingleQuotedString(text)), zoned)
        }
        (value, ty) => plain(ast::Value::SingleQuotedString(to_text(ctx, value, ty)?)),
    })
}

fn timestamp(value: &Value) -> i64 {
    match value {
        Value::Timestamp(us) => *us,
        _ => 0,
    }
}
