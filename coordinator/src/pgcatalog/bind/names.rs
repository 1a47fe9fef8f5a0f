//! What PostgreSQL calls a column that was not given a name.

use super::types::type_of;
use datafusion::sql::sqlparser::ast::{self, AccessExpr, ObjectName, ObjectNamePart, SelectItem, SetExpr};
use engine::PgType;

/// An identifier as it is looked up: folded to lower case unless quoted.
pub(crate) fn ident(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The parts of a qualified name, without a leading database.
pub(crate) fn object_name(name: &ObjectName) -> Vec<String> {
    let parts = name.0.iter().filter_map(|part| match part {
        ObjectNamePart::Identifier(part) => Some(ident(part)),
        ObjectNamePart::Function(_) => None,
    });
    parts.collect()
}

/// `(schema, name)` of a relation or function.
pub(crate) fn schema_and_name(name: &ObjectName) -> (Option<String>, String) {
    let mut parts = object_name(name);
    let last = parts.pop().unwrap_or_default();
    (parts.pop(), last)
}

pub(crate) fn column_name(expr: &ast::Expr) -> String {
    figure(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// The name and whether it is a good one: a cast's type names a column only where its operand has none.
fn figure(expr: &ast::Expr) -> Option<(String, bool)> {
    use ast::Expr::*;
    let good = |name: &str| Some((name.to_owned(), true));
    match expr {
        Identifier(name) => Some((ident(name), true)),
        CompoundIdentifier(parts) => parts.last().map(|name| (ident(name), true)),
        CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Identifier(name)) => Some((ident(name), true)),
                _ => None,
            });
            field.or_else(|| figure(root))
        }
        Nested(inner) | Collate { expr: inner, .. } => figure(inner),
        Cast { expr, data_type, .. } => match figure(expr) {
            Some((name, true)) => Some((name, true)),
            weak => type_of(data_type).ok().map(|ty| (type_word(ty), false)).or(weak),
        },
        TypedString(typed) => type_of(&typed.data_type).ok().map(|ty| (type_word(ty), false)),
        Function(function) => Some((schema_and_name(&function.name).1, true)),
        Case { else_result, .. } => match else_result.as_deref().and_then(figure) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".to_owned(), false)),
        },
        Exists { .. } => good("exists"),
        Array(_) => good("array"),
        Tuple(_) => good("row"),
        Extract { .. } => good("extract"),
        Substring { .. } => good("substring"),
        Position { .. } => good("position"),
        Trim { .. } => good("btrim"),
        Floor { .. } => good("floor"),
        Ceil { .. } => good("ceil"),
        AtTimeZone { .. } => good("timezone"),
        Interval(_) => Some(("interval".to_owned(), false)),
        Value(value) if matches!(value.value, ast::Value::Boolean(_)) => Some(("bool".to_owned(), false)),
        Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(expr) => figure(expr),
                SelectItem::ExprWithAlias { alias, .. } => Some((ident(alias), true)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// An array's column is named after its element.
fn type_word(ty: PgType) -> String {
    match ty {
        PgType::Array(inner) => type_word(*inner),
        ty => ty.internal_name(),
    }
}
