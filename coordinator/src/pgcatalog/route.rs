//! Which statements are answered here: those that read catalogs and nothing else, and those that read nothing but call
//! what only we know.

use super::bind::ident;
use super::functions;
use super::schema;
use super::system::Functions;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, Ident, ObjectName, ObjectNamePart, Query, Statement, TableFactor, Visit, Visitor,
};
use std::ops::ControlFlow;

/// What a statement mentions.
#[derive(Default)]
struct Mentions {
    relations: Vec<(Option<String>, String)>,
    functions: Vec<(Option<String>, String)>,
    ctes: Vec<String>,
    reg_casts: bool,
}

impl Visitor for Mentions {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes.extend(tables.map(|cte| ident(&cte.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: None, .. } => self.relations.push(split(name)),
            TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => self.functions.push(split(name)),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(Function { name, .. }) => self.functions.push(split(name)),
            Expr::Cast { data_type, .. } => self.reg_casts |= is_reg_type(&data_type.to_string()),
            Expr::Identifier(name) if is_session_word(name) => self.functions.push((None, name.value.to_lowercase())),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Words that are function calls without parentheses.
pub(super) fn is_session_word(name: &Ident) -> bool {
    const WORDS: [&str; 6] =
        ["user", "current_user", "session_user", "current_role", "current_catalog", "current_schema"];
    name.quote_style.is_none() && WORDS.contains(&name.value.to_lowercase().as_str())
}

pub(super) fn is_reg_type(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.strip_prefix("pg_catalog.").unwrap_or(&lower).starts_with("reg")
}

fn split(name: &ObjectName) -> (Option<String>, String) {
    let parts = name.0.iter().filter_map(|part| match part {
        ObjectNamePart::Identifier(part) => Some(ident(part)),
        ObjectNamePart::Function(_) => None,
    });
    let mut parts: Vec<String> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    (parts.pop(), last)
}

fn mentions(statement: &Statement) -> Mentions {
    let mut mentions = Mentions::default();
    let _ = statement.visit(&mut mentions);
    let ctes = std::mem::take(&mut mentions.ctes);
    mentions.relations.retain(|(schema, name)| schema.is_some() || !ctes.contains(name));
    mentions
}

fn is_catalog(schema: &Option<String>, name: &str) -> bool {
    match schema {
        Some(schema) => schema::is_system_schema(schema),
        None => schema::find(None, name).is_some(),
    }
}

/// Whether `execute` is to answer this statement. `is_user_relation` tells the user's tables and views;
/// `host_functions` the session's functions by name.
pub fn handles(
    statement: &Statement,
    is_user_relation: &dyn Fn(Option<&str>, &str) -> bool,
    host_functions: &dyn Fn(&str) -> bool,
) -> bool {
    match statement {
        Statement::Query(_) => {}
        Statement::Call(function) => return host_functions(&split(&function.name).1),
        _ => return false,
    }
    let mentions = mentions(statement);
    if mentions.relations.is_empty() {
        let ours = |(_, name): &(_, String)| functions::is_catalog_only(name) || host_functions(name);
        return mentions.reg_casts || mentions.functions.iter().any(ours);
    }
    let user = |(schema, name): &(Option<String>, String)| {
        !is_catalog(schema, name) && is_user_relation(schema.as_deref(), name)
    };
    // A name nobody knows is the planner's to refuse.
    !mentions.relations.iter().any(user) && mentions.relations.iter().all(|(schema, name)| is_catalog(schema, name))
}

/// Whether an empty answer does no harm: catalogs are read, and nothing with effects is called.
pub(super) fn reads_catalogs_only(statement: &Statement, host: &dyn Functions) -> bool {
    let mentions = mentions(statement);
    let has_effects = |(schema, name): &(Option<String>, String)| host.signature(schema.as_deref(), name).is_some();
    let catalogs = mentions.relations.iter().all(|(schema, name)| is_catalog(schema, name));
    !mentions.relations.is_empty() && catalogs && !mentions.functions.iter().any(has_effects)
}
