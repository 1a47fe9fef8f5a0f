//! Syntax that DataFusion plans with another meaning, or not at all, becomes calls of our functions.

use super::{INTEGER_LITERAL, arguments};
use crate::Settings;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, Interval, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr,
    TableAlias, TableAliasColumnDef, TableFactor, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use proto::Error;
use std::ops::ControlFlow;

/// Schemas whose functions are found without a prefix.
const FUNCTION_SCHEMAS: &[&str] = &["pg_catalog", "public", "_timescaledb_functions", "_timescaledb_internal"];

pub fn text(value: impl Into<String>) -> Expr {
    Expr::Value(ValueWithSpan::from(Value::SingleQuotedString(value.into())))
}

pub fn function(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(ValueWithSpan::from(Value::Null)))
}

/// Rewrites one expression whose parts are rewritten already.
pub fn expression(expr: &mut Expr, settings: &Settings) -> Result<(), Error> {
    match expr {
        Expr::Interval(interval) => *expr = interval_cast(interval)?,
        Expr::AtTimeZone { timestamp, time_zone } => {
            *expr = function("timezone", vec![take(time_zone), take(timestamp)]);
        }
        Expr::Extract { field, expr: from, .. } if field.to_string() != INTEGER_LITERAL => {
            let field = field.to_string().trim_matches('\'').to_ascii_lowercase();
            *expr = function("extract", vec![text(field), take(from)]);
        }
        Expr::Position { expr: part, r#in } => *expr = function("strpos", vec![take(r#in), take(part)]),
        Expr::Collate { expr: inner, .. } => *expr = take(inner),
        Expr::UnaryOp { op: UnaryOperator::PGSquareRoot, expr: inner } => *expr = function("sqrt", vec![take(inner)]),
        Expr::UnaryOp { op: UnaryOperator::PGCubeRoot, expr: inner } => *expr = function("cbrt", vec![take(inner)]),
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: inner } => {
            let ones = Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr: Box::new(Expr::Value(ValueWithSpan::from(Value::Number("1".to_owned(), false)))),
            };
            let left = Box::new(take(inner));
            *expr = Expr::Nested(Box::new(Expr::BinaryOp {
                left,
                op: BinaryOperator::PGBitwiseXor,
                right: Box::new(ones),
            }));
        }
        Expr::BinaryOp { left, op: BinaryOperator::PGOverlap, right } => {
            *expr = function("array_has_any", vec![take(left), take(right)]);
        }
        Expr::Substring { expr: value, substring_from: Some(from), substring_for: None, .. } if is_text(from) => {
            *expr = function("regexp_substr", vec![take(value), take(from)]);
        }
        Expr::Like { pattern, escape_char: escape @ Some(_), .. }
        | Expr::ILike { pattern, escape_char: escape @ Some(_), .. } => own_escape(pattern, escape)?,
        Expr::UnaryOp { op: UnaryOperator::PGAbs, expr: inner } => *expr = function("abs", vec![take(inner)]),
        Expr::SimilarTo { negated, expr: value, pattern, escape_char: None } => {
            let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(similar), .. }) = pattern.as_ref() else {
                return Err(Error::unsupported("SIMILAR TO with a pattern that is not a literal"));
            };
            let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
            let right = Box::new(text(similar_regex(similar)));
            *expr = Expr::BinaryOp { left: Box::new(take(value)), op, right };
        }
        Expr::SimilarTo { .. } => return Err(Error::unsupported("SIMILAR TO … ESCAPE")),
        // PostgreSQL reserves the word, so it cannot be a column.
        Expr::Identifier(ident)
            if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("current_schema") =>
        {
            *expr = session_name(settings.search_path.first().map_or("public", String::as_str));
        }
        Expr::Function(call) => {
            unqualify(&mut call.name);
            arguments::position(call)?;
            if let Some(value) = session_value(call, settings) {
                *expr = value;
            }
        }
        _ => {}
    }
    Ok(())
}

/// `interval '1' hour` reads as `'1 hour'::interval`.
fn interval_cast(interval: &mut Interval) -> Result<Expr, Error> {
    let value = take(&mut interval.value);
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(mut body), .. }) = value else {
        return Err(Error::unsupported("an INTERVAL that is not a quoted literal"));
    };
    if let Some(field) = &interval.leading_field
        && body.trim().parse::<f64>().is_ok()
    {
        let unit = interval.last_field.as_ref().unwrap_or(field);
        body = format!("{} {}", body.trim(), unit.to_string().to_ascii_lowercase());
    }
    Ok(cast(text(body), DataType::Interval { fields: None, precision: None }))
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. }))
}

/// LIKE … ESCAPE 'x' with a backslash for the escape.
fn own_escape(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) -> Result<(), Error> {
    let escape_char = match escape.as_ref().map(|escape| &escape.value) {
        Some(Value::SingleQuotedString(text)) => text.clone(),
        _ => return Err(Error::unsupported("ESCAPE that is not a literal")),
    };
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(like), .. }) = pattern else {
        return match escape_char.as_str() {
            "\\" => Ok(()),
            _ => Err(Error::unsupported("LIKE … ESCAPE with a pattern that is not a literal")),
        };
    };
    let mut translated = String::new();
    let mut characters = like.chars();
    while let Some(c) = characters.next() {
        if escape_char.starts_with(c) {
            translated.push('\\');
            translated.extend(characters.next());
        } else if c == '\\' {
            translated.push_str("\\\\");
        } else {
            translated.push(c);
        }
    }
    *like = translated;
    *escape = None;
    Ok(())
}

/// A SIMILAR TO pattern as a regular expression: `%` and `_` are wildcards, all of the value must match.
fn similar_regex(pattern: &str) -> String {
    let mut regex = "^(?:".to_owned();
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '\\' => {
                regex.push('\\');
                regex.extend(characters.next());
            }
            '.' | '^' | '$' => {
                regex.push('\\');
                regex.push(c);
            }
            c => regex.push(c),
        }
    }
    regex + ")$"
}

fn unqualify(name: &mut ObjectName) {
    if let [ObjectNamePart::Identifier(schema), _] = name.0.as_slice()
        && FUNCTION_SCHEMAS.contains(&schema.value.to_ascii_lowercase().as_str())
    {
        name.0.remove(0);
    }
}

/// Values of the session that SQL spells as functions, some without brackets.
fn session_value(call: &Function, settings: &Settings) -> Option<Expr> {
    let no_args = match &call.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    let [ObjectNamePart::Identifier(name)] = call.name.0.as_slice() else { return None };
    let name = name.value.to_ascii_lowercase();
    let local = |ty: DataType| Some(cast(function("now", Vec::new()), ty));
    use datafusion::sql::sqlparser::ast::TimezoneInfo;
    match name.as_str() {
        // A precision in brackets is ignored: now() has microseconds.
        "current_timestamp" => Some(function("now", Vec::new())),
        "localtimestamp" => local(DataType::Timestamp(None, TimezoneInfo::None)),
        "localtime" => local(DataType::Time(None, TimezoneInfo::None)),
        "current_date" if no_args => local(DataType::Date),
        "current_user" | "current_role" | "session_user" | "user" if no_args => Some(session_name(&settings.user)),
        "current_database" | "current_catalog" if no_args => Some(session_name(&settings.database)),
        "current_schema" if no_args => {
            Some(session_name(settings.search_path.first().map_or("public", String::as_str)))
        }
        _ => None,
    }
}

fn session_name(value: &str) -> Expr {
    cast(text(value), DataType::Custom(ObjectName::from(vec![Ident::new("name")]), Vec::new()))
}

/// DataFusion plans EXISTS as a join under WHERE only; in a select list it becomes a count.
struct ExistsAsCount {
    query_depth: usize,
}

impl VisitorMut for ExistsAsCount {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.query_depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.query_depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.query_depth == 0
            && let Expr::Exists { subquery, negated } = expr
            && let SetExpr::Select(select) = subquery.body.as_mut()
            && counts_rows(select)
            && subquery.limit_clause.is_none()
            && subquery.fetch.is_none()
        {
            let op = if *negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
            let zero = Expr::Value(ValueWithSpan::from(Value::Number("0".to_owned(), false)));
            let left = Box::new(function("count", vec![Expr::Value(ValueWithSpan::from(Value::Boolean(true)))]));
            select.projection = vec![SelectItem::UnnamedExpr(Expr::BinaryOp { left, op, right: Box::new(zero) })];
            subquery.order_by = None;
            *expr = Expr::Subquery(subquery.clone());
        }
        ControlFlow::Continue(())
    }
}

/// Does a count over its FROM and WHERE count the rows of this SELECT?
fn counts_rows(select: &Select) -> bool {
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(items, _) if items.is_empty());
    let aggregates = |item: &SelectItem| {
        matches!(
            item,
            SelectItem::UnnamedExpr(Expr::Function(_)) | SelectItem::ExprWithAlias { expr: Expr::Function(_), .. }
        )
    };
    ungrouped && select.having.is_none() && !select.projection.iter().any(aggregates)
}

/// A set-returning function in the select list is the `unnest` of its list form.
pub fn select(select: &mut Select) {
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        let _ = expr.visit(&mut ExistsAsCount { query_depth: 0 });
        if let Expr::Function(call) = expr
            && call.name.to_string().eq_ignore_ascii_case("generate_series")
        {
            call.name = ObjectName::from(vec![Ident::new("generate_series_list")]);
            *expr = function("unnest", vec![take(expr)]);
        }
    }
}

/// `generate_series(…) AS time`: the alias names the table and its one column.
pub fn table_factor(factor: &mut TableFactor) {
    let (name, alias) = match factor {
        TableFactor::Table { name, alias, args: Some(_), .. } | TableFactor::Function { name, alias, .. } => {
            unqualify(name);
            let Some(ident) = name.0.last().and_then(ObjectNamePart::as_ident) else { return };
            (ident.value.to_ascii_lowercase(), alias)
        }
        TableFactor::UNNEST { alias, array_exprs, .. } if array_exprs.len() == 1 => ("unnest".to_owned(), alias),
        _ => return,
    };
    if !matches!(name.as_str(), "generate_series" | "unnest" | "regexp_split_to_table" | "generate_subscripts") {
        return;
    }
    let column = |ident: &Ident| TableAliasColumnDef { name: ident.clone(), data_type: None };
    match alias {
        Some(alias) if alias.columns.is_empty() => alias.columns = vec![column(&alias.name)],
        Some(_) => {}
        None => {
            let name = Ident::new(name);
            *alias = Some(TableAlias { explicit: true, columns: vec![column(&name)], name, at: None });
        }
    }
}
