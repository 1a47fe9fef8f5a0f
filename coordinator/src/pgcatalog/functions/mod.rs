//! The functions the executor knows. Each is one line: a signature in a small notation, and a body.
//!
//! `name(oid, text?, any...) bool`: `?` may be left out, `...` repeats. Types are PostgreSQL's; besides, `any` takes a
//! value as it is, `text*` anything in its text form, `text[]*` any array as an array of texts; a result `$1` has the
//! first argument's type and `$1[]` that type's element. A leading `~` lets NULL arguments in.
//!
//! Rooms: `session` and `objects` exist for the catalogs alone; `text` and `arrays` are general, DataFusion has its own;
//! `sets` return rows.

mod arrays;
pub(crate) mod objects;
mod session;
pub(crate) mod sets;
mod text;

pub(crate) use text::{quote_ident, split_ident};

use super::run::Context;
use super::value::{Row, Value};
use engine::PgType;
use proto::Result;
use std::collections::HashMap;
use std::sync::LazyLock;

type Eval = fn(&mut Context, &[Value]) -> Result<Value>;
type EvalSet = fn(&mut Context, &[Value]) -> Result<Vec<Row>>;

#[derive(Debug)]
pub(crate) struct ScalarFunction {
    pub args: Args,
    pub returns: Returns,
    pub strict: bool,
    /// DataFusion does not have it, or means something else by it.
    pub catalog_only: bool,
    pub eval: Eval,
}

#[derive(Debug)]
pub(crate) struct SetFunction {
    pub args: Args,
    pub columns: Vec<(String, Returns)>,
    pub catalog_only: bool,
    pub eval: EvalSet,
}

#[derive(Debug)]
pub(crate) struct Args {
    pub types: Vec<ArgType>,
    pub required: usize,
    pub variadic: bool,
}

impl Args {
    pub(crate) fn accept(&self, count: usize) -> bool {
        count >= self.required && (count <= self.types.len() || self.variadic)
    }

    pub(crate) fn ty(&self, at: usize) -> &ArgType {
        &self.types[at.min(self.types.len() - 1)]
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ArgType {
    Any,
    AsText,
    AsTexts,
    Type(PgType),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Returns {
    Type(PgType),
    Same(usize),
    Element(usize),
}

impl Returns {
    pub(crate) fn resolve(&self, args: &[PgType]) -> PgType {
        let arg = |at: usize| args.get(at).cloned().unwrap_or(PgType::Text);
        match self {
            Returns::Type(ty) => ty.clone(),
            Returns::Same(at) => match arg(*at) {
                PgType::Unknown => PgType::Text,
                ty => ty,
            },
            Returns::Element(at) => super::cast::element(&arg(*at)).unwrap_or(PgType::Text),
        }
    }
}

static SCALARS: LazyLock<HashMap<&'static str, Vec<ScalarFunction>>> = LazyLock::new(|| {
    let mut functions: HashMap<_, Vec<_>> = HashMap::new();
    for (table, catalog_only) in
        [(session::FUNCTIONS, true), (objects::FUNCTIONS, true), (text::FUNCTIONS, false), (arrays::FUNCTIONS, false)]
    {
        for (signature, eval) in table {
            let (strict, signature) = signature.strip_prefix('~').map_or((true, *signature), |rest| (false, rest));
            let (name, args, returns) = parse_signature(signature);
            let returns = parse_returns(returns);
            let eval = *eval;
            functions.entry(name).or_default().push(ScalarFunction { args, returns, strict, catalog_only, eval });
        }
    }
    functions
});

static SETS: LazyLock<HashMap<&'static str, Vec<SetFunction>>> = LazyLock::new(|| {
    let mut functions: HashMap<_, Vec<_>> = HashMap::new();
    for (signature, catalog_only, eval) in sets::FUNCTIONS {
        let (name, args, returns) = parse_signature(signature);
        let columns = match returns.strip_prefix("table ") {
            Some(columns) => columns
                .split(", ")
                .map(|column| {
                    let (name, ty) = column.split_once(' ').expect("embedded signatures are well formed");
                    (name.to_owned(), parse_returns(ty))
                })
                .collect(),
            None => vec![(name.to_owned(), parse_returns(returns))],
        };
        let (eval, catalog_only) = (*eval, *catalog_only);
        functions.entry(name).or_default().push(SetFunction { args, columns, catalog_only, eval });
    }
    functions
});

fn parse_signature(signature: &'static str) -> (&'static str, Args, &'static str) {
    let (name, rest) = signature.split_once('(').expect("embedded signatures are well formed");
    let (args, returns) = rest.split_once(") ").expect("embedded signatures are well formed");
    let args: Vec<&str> = args.split(", ").filter(|arg| !arg.is_empty()).collect();
    let variadic = args.last().is_some_and(|arg| arg.ends_with("..."));
    let required = args.iter().filter(|arg| !arg.ends_with('?') && !arg.ends_with("...")).count();
    let types = args.iter().map(|arg| match arg.trim_end_matches("...").trim_end_matches('?') {
        "any" => ArgType::Any,
        "text*" => ArgType::AsText,
        "text[]*" => ArgType::AsTexts,
        ty => ArgType::Type(PgType::parse(ty).expect("embedded signatures name known types")),
    });
    (name, Args { types: types.collect(), required, variadic }, returns)
}

fn parse_returns(text: &str) -> Returns {
    match text {
        "$1" => Returns::Same(0),
        "$2" => Returns::Same(1),
        "$1[]" => Returns::Element(0),
        ty => Returns::Type(PgType::parse(ty).expect("embedded signatures name known types")),
    }
}

/// The overload of that many arguments, where `fits` prefers one over another.
pub(crate) fn scalar(name: &str, count: usize, fits: impl Fn(&Args) -> bool) -> Option<&'static ScalarFunction> {
    let overloads = SCALARS.get(name)?;
    let mut candidates = overloads.iter().filter(|function| function.args.accept(count));
    let first = candidates.next()?;
    if fits(&first.args) {
        return Some(first);
    }
    Some(candidates.find(|function| fits(&function.args)).unwrap_or(first))
}

pub(crate) fn set(name: &str, count: usize, fits: impl Fn(&Args) -> bool) -> Option<&'static SetFunction> {
    let overloads = SETS.get(name)?;
    let mut candidates = overloads.iter().filter(|function| function.args.accept(count));
    let first = candidates.next()?;
    if fits(&first.args) {
        return Some(first);
    }
    Some(candidates.find(|function| fits(&function.args)).unwrap_or(first))
}

pub(crate) fn exists(name: &str) -> bool {
    SCALARS.contains_key(name) || SETS.contains_key(name)
}

/// Functions that send a statement without relations to this executor.
pub(crate) fn is_catalog_only(name: &str) -> bool {
    SCALARS.get(name).is_some_and(|overloads| overloads.iter().any(|function| function.catalog_only))
        || SETS.get(name).is_some_and(|overloads| overloads.iter().any(|function| function.catalog_only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_parses() {
        assert!(scalar("format_type", 2, |_| true).is_some());
        assert!(scalar("format_type", 3, |_| true).is_none());
        assert!(set("generate_series", 3, |_| true).is_some());
        assert!(is_catalog_only("pg_get_userbyid") && !is_catalog_only("lower"));
    }
}
