//! PostgreSQL's names of result columns, given as aliases before planning, so that DataFusion's own never show.

use super::COUNTER;
use crate::semantics::pg_type;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Ident, ObjectName, Select, SelectItem, SetExpr, TrimWhereField,
};
use std::collections::HashSet;

/// Gives each unnamed expression PostgreSQL's name, and each second column of a name a counter.
pub fn name_columns(select: &mut Select, outermost: bool) {
    let wildcard = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut taken: HashSet<String> = HashSet::new();
    for (index, item) in select.projection.iter_mut().enumerate() {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let name = column_name(expr);
                // `current_schema` is a word that becomes a value.
                let plain =
                    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) && name != "current_schema";
                let again = !taken.insert(name.clone()) || (plain && wildcard && outermost);
                if plain && !again {
                    continue;
                }
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: unique(&name, index, again) };
            }
            SelectItem::ExprWithAlias { alias, .. } => {
                let name = folded(alias);
                if !taken.insert(name.clone()) {
                    *alias = unique(&name, index, true);
                }
            }
            _ => {}
        }
    }
}

fn unique(name: &str, index: usize, again: bool) -> Ident {
    Ident::with_quote('"', if again { format!("{name}{COUNTER}{index}") } else { name.to_owned() })
}

fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

fn column_name(expr: &Expr) -> String {
    name(expr).map_or_else(|| "?column?".to_owned(), |name| name.text)
}

struct Name {
    text: String,
    /// A type or `case`: gives way to a better name around it.
    weak: bool,
}

fn strong(text: impl Into<String>) -> Option<Name> {
    Some(Name { text: text.into(), weak: false })
}

fn weak(text: impl Into<String>) -> Option<Name> {
    Some(Name { text: text.into(), weak: true })
}

fn last_part(name: &ObjectName) -> Option<Name> {
    strong(folded(name.0.last()?.as_ident()?))
}

fn name(expr: &Expr) -> Option<Name> {
    match expr {
        Expr::Identifier(ident) => strong(folded(ident)),
        Expr::CompoundIdentifier(parts) => strong(folded(parts.last()?)),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(field)) => Some(folded(field)),
                _ => None,
            });
            field.map_or_else(|| name(root), strong)
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name(inner),
        Expr::Function(function) => last_part(&function.name),
        Expr::Cast { expr, data_type, .. } => match name(expr) {
            Some(name) if !name.weak => Some(name),
            _ => weak(type_name(data_type)),
        },
        Expr::TypedString(typed) => weak(type_name(&typed.data_type)),
        Expr::Interval(_) => weak("interval"),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(name) {
            Some(name) if !name.weak => Some(name),
            _ => weak("case"),
        },
        Expr::Extract { .. } => strong("extract"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { shorthand, .. } => strong(if *shorthand { "substr" } else { "substring" }),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::BinaryOp { op: BinaryOperator::Overlaps, .. } => strong("overlaps"),
        Expr::Exists { negated: false, .. } => strong("exists"),
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(expr) => name(expr),
                SelectItem::ExprWithAlias { alias, .. } => strong(folded(alias)),
                _ => None,
            },
            SetExpr::Values(_) => strong("column1"),
            _ => None,
        },
        _ => None,
    }
}

/// `int4` for `integer`; the element's name for an array.
fn type_name(ty: &datafusion::sql::sqlparser::ast::DataType) -> String {
    match pg_type(ty) {
        Ok(crate::PgType::Array(element)) => element.internal_name(),
        Ok(ty) => ty.internal_name(),
        Err(_) => ty.to_string().to_ascii_lowercase(),
    }
}
