//! Syntax that DataFusion plans with another meaning, or not at all, becomes calls of our functions.

use super::{INTEGER_LITERAL, arguments, calls};
use crate::Settings;
use crate::types::split_array;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, Interval, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr,
    TableAlias, TableAliasColumnDef, TableFactor, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use proto::{Error, SqlState};
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
        Expr::Value(ValueWithSpan { value: Value::UnicodeStringLiteral(escaped), .. }) => {
            *expr = text(std::mem::take(escaped));
        }
        Expr::Value(ValueWithSpan { value: Value::HexStringLiteral(digits), span }) => {
            // `0x1F` is one character shorter than `X'1F'`, a bit string.
            let hex_number = span.end.column - span.start.column == digits.chars().count() as u64 + 2;
            return Err(match hex_number {
                true => Error::new(
                    SqlState::SYNTAX_ERROR,
                    format!("trailing junk after numeric literal at or near \"0x{digits}\""),
                ),
                false => Error::unsupported("a bit string"),
            });
        }
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
            *expr = function("regexp_group", vec![take(value), take(from)]);
        }
        Expr::BinaryOp { left, op: BinaryOperator::Overlaps, right } => {
            if let (Expr::Tuple(first), Expr::Tuple(second)) = (left.as_mut(), right.as_mut())
                && first.len() == 2
                && second.len() == 2
            {
                *expr = function("overlaps", first.drain(..).chain(second.drain(..)).collect());
            }
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            if let Some(column) = column_of_row(root, access_chain) {
                *expr = column;
            }
        }
        Expr::AnyOp { .. } | Expr::AllOp { .. } => any_element(expr)?,
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
            calls::check(call)?;
            if let Some(value) = session_value(call, settings).or_else(|| calls::undefined(call)) {
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

/// `(t).x` is the column `t.x`.
fn column_of_row(root: &Expr, access_chain: &[AccessExpr]) -> Option<Expr> {
    let Expr::Nested(row) = root else { return None };
    match (row.as_ref(), access_chain) {
        (Expr::Identifier(table), [AccessExpr::Dot(Expr::Identifier(column))]) => {
            Some(Expr::CompoundIdentifier(vec![table.clone(), column.clone()]))
        }
        _ => None,
    }
}

/// `x = ANY ('{1,2}')` and `x = ANY (ARRAY[1, 2])` compare `x` with each element; untyped ones take its type.
fn any_element(expr: &mut Expr) -> Result<(), Error> {
    let (left, op, right, any) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, true),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, false),
        _ => return Ok(()),
    };
    let list: Vec<Expr> = match right.as_mut() {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(literal), .. }) => {
            let null = || Expr::Value(ValueWithSpan::from(Value::Null));
            split_array(literal)?.into_iter().map(|value| value.map_or_else(null, text)).collect()
        }
        Expr::Array(array) if !array.elem.is_empty() => std::mem::take(&mut array.elem),
        _ => return Ok(()),
    };
    let left = Box::new(take(left));
    *expr = match (&*op, any) {
        _ if list.is_empty() => Expr::Value(ValueWithSpan::from(Value::Boolean(!any))),
        (BinaryOperator::Eq, true) => Expr::InList { expr: left, list, negated: false },
        (BinaryOperator::NotEq, false) => Expr::InList { expr: left, list, negated: true },
        (op, any) => {
            let joined_by = if any { BinaryOperator::Or } else { BinaryOperator::And };
            each(&left, op, list, &joined_by)
        }
    };
    Ok(())
}

/// `(x < a OR x < b) OR (x < c OR x < d)`: as deep as the logarithm of the list's length.
fn each(left: &Expr, op: &BinaryOperator, mut list: Vec<Expr>, joined_by: &BinaryOperator) -> Expr {
    let binary = |left, op: &BinaryOperator, right| {
        let (left, right) = (Box::new(left), Box::new(right));
        Expr::Nested(Box::new(Expr::BinaryOp { left, op: op.clone(), right }))
    };
    if list.len() == 1 {
        return binary(left.clone(), op, list.remove(0));
    }
    let second = list.split_off(list.len() / 2);
    binary(each(left, op, list, joined_by), joined_by, each(left, op, second, joined_by))
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

/// The function that returns as a list what this one returns as rows.
fn list_form(name: &ObjectName) -> Option<&'static str> {
    match name.0.last()?.as_ident()?.value.to_ascii_lowercase().as_str() {
        "generate_series" => Some("generate_series_list"),
        "regexp_matches" => Some("regexp_matches_list"),
        "regexp_split_to_table" => Some("regexp_split_to_array"),
        _ => None,
    }
}

/// A set-returning function in the select list is the `unnest` of its list form.
pub fn select(select: &mut Select) {
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        let _ = expr.visit(&mut ExistsAsCount { query_depth: 0 });
        if let Expr::Function(call) = expr
            && let Some(list) = list_form(&call.name)
        {
            call.name = ObjectName::from(vec![Ident::new(list)]);
            *expr = function("unnest", vec![take(expr)]);
        }
    }
}

/// `generate_series(…) AS time`: the alias names the table and its one column.
pub fn table_factor(factor: &mut TableFactor) -> Result<(), Error> {
    numbered(factor)?;
    as_unnest(factor);
    name_column(factor);
    Ok(())
}

/// `f(…) WITH ORDINALITY` is a sub-select that counts the rows as they come.
fn numbered(factor: &mut TableFactor) -> Result<(), Error> {
    let (TableFactor::Table { with_ordinality, alias, .. }
    | TableFactor::Function { with_ordinality, alias, .. }
    | TableFactor::UNNEST { with_ordinality, alias, .. }) = factor
    else {
        return Ok(());
    };
    if !std::mem::take(with_ordinality) {
        return Ok(());
    }
    let mut alias = alias.take();
    let mut parser = Parser::new(&PostgreSqlDialect {})
        .try_with_sql("SELECT *, row_number() OVER () AS ordinality FROM numbered")
        .map_err(|error| Error::internal(error.to_string()))?;
    let mut subquery = parser.parse_query().map_err(|error| Error::internal(error.to_string()))?;
    if let SetExpr::Select(select) = subquery.body.as_mut() {
        // Without column names of its own, the alias names the first column too.
        if let Some(alias) = &mut alias
            && alias.columns.is_empty()
        {
            let names = [alias.name.clone(), Ident::new("ordinality")];
            alias.columns = names.map(|name| TableAliasColumnDef { name, data_type: None }).into();
        }
        select.from[0].relation = factor.clone();
    }
    *factor = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
    Ok(())
}

/// Functions in FROM that are the `unnest` of a list.
fn as_unnest(factor: &mut TableFactor) {
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, &*args, alias),
        _ => return,
    };
    let Some(list) = list_form(name).filter(|list| list.starts_with("regexp")) else { return };
    let exprs = args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    let column = name.0.last().and_then(ObjectNamePart::as_ident).cloned().unwrap_or_else(|| Ident::new(list));
    let alias = alias.take().unwrap_or(TableAlias {
        explicit: true,
        name: column.clone(),
        columns: vec![TableAliasColumnDef { name: column, data_type: None }],
        at: None,
    });
    *factor = TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: vec![function(list, exprs.collect())],
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
}

fn name_column(factor: &mut TableFactor) {
    let (name, alias) = match factor {
        TableFactor::Table { name, alias, args: Some(_), .. } | TableFactor::Function { name, alias, .. } => {
            unqualify(name);
            let Some(ident) = name.0.last().and_then(ObjectNamePart::as_ident) else { return };
            (ident.value.to_ascii_lowercase(), alias)
        }
        TableFactor::UNNEST { alias, array_exprs, .. } if array_exprs.len() == 1 => ("unnest".to_owned(), alias),
        _ => return,
    };
    if !matches!(name.as_str(), "generate_series" | "unnest" | "generate_subscripts") {
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
