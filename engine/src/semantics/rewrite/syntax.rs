//! Syntax that DataFusion plans with another meaning, or not at all, becomes calls of our functions.

use crate::Settings;
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    Interval, ObjectName, ObjectNamePart, Select, SelectItem, TableAlias, TableAliasColumnDef, TableFactor, Value,
    ValueWithSpan,
};
use proto::Error;

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
        Expr::Extract { field, expr: from, .. } => {
            let field = field.to_string().trim_matches('\'').to_ascii_lowercase();
            *expr = function("extract", vec![text(field), take(from)]);
        }
        Expr::Position { expr: part, r#in } => *expr = function("strpos", vec![take(r#in), take(part)]),
        Expr::Collate { expr: inner, .. } => *expr = take(inner),
        Expr::Function(call) => {
            unqualify(&mut call.name);
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
        "current_user" | "current_role" | "session_user" | "user" if no_args => {
            Some(cast(text(&settings.user), DataType::Custom(ObjectName::from(vec![Ident::new("name")]), Vec::new())))
        }
        "current_database" | "current_catalog" if no_args => Some(cast(
            text(&settings.database),
            DataType::Custom(ObjectName::from(vec![Ident::new("name")]), Vec::new()),
        )),
        "current_schema" if no_args => {
            let schema = settings.search_path.first().map_or("public", String::as_str);
            Some(cast(text(schema), DataType::Custom(ObjectName::from(vec![Ident::new("name")]), Vec::new())))
        }
        _ => None,
    }
}

/// A set-returning function in the select list is the `unnest` of its list form.
pub fn select(select: &mut Select) {
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
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
