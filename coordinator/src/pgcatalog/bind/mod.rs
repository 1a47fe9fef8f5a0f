//! From syntax to the bound tree: names to positions, literals to the types around them, functions to their bodies.
//! Nothing is run: describing a statement is binding it.
//!
//! Rooms: `scope` (names) · `query` (SELECT, set operations, table expressions) · `from` (FROM items) · `push`
//! (conjuncts towards the rows they judge) · `expr`, `operators`, `calls` (expressions) · `types` (conversions) ·
//! `names` (what PostgreSQL calls an unnamed column).
//!
//! Bounds: `DEPTH_MAX` nested expressions, `LEVELS_MAX` nested queries; more is `54001`.

mod calls;
mod expr;
mod from;
mod names;
mod operators;
mod push;
mod query;
mod scope;
mod types;

pub(crate) use names::{column_name, ident};

use super::system::Functions;
use super::tree::{Expr, Fields, OutColumn, Query};
use engine::PgType;
use proto::{Error, Result, SqlState};
use scope::{CteName, Frame, Level};

const DEPTH_MAX: usize = 120;
const LEVELS_MAX: usize = 32;

pub(crate) struct Binder<'a> {
    host: &'a dyn Functions,
    /// One for each SELECT around the place being bound.
    levels: Vec<Level>,
    /// One for each query around it.
    frames: Vec<Frame>,
    ctes: Vec<CteName>,
    next_id: usize,
    /// Types of `$1…` as far as they are known.
    params: Vec<PgType>,
    depth: usize,
    /// The innermost CASE or COALESCE around the place being bound.
    conditional: Option<&'static str>,
    /// Calls bound so far of functions that change something.
    changing_calls: usize,
}

/// An expression and what is known of its value.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub expr: Expr,
    pub ty: PgType,
    pub fields: Fields,
}

impl Bound {
    pub(crate) fn new(expr: Expr, ty: PgType) -> Bound {
        Bound { expr, ty, fields: None }
    }
}

impl<'a> Binder<'a> {
    /// `params`: the types a client gave; `Unknown` where it left one open.
    pub(crate) fn new(host: &'a dyn Functions, params: &[PgType]) -> Binder<'a> {
        Binder {
            host,
            levels: Vec::new(),
            frames: Vec::new(),
            ctes: Vec::new(),
            next_id: 0,
            params: params.to_vec(),
            depth: 0,
            conditional: None,
            changing_calls: 0,
        }
    }

    pub(crate) fn top(&mut self, query: &datafusion::sql::sqlparser::ast::Query) -> Result<Query> {
        let mut bound = self.query(query)?;
        types::settle_unknown(&mut bound);
        Ok(bound)
    }

    /// Types of the parameters met, text where nothing told.
    pub(crate) fn into_params(self) -> Vec<PgType> {
        let settle = |ty| if ty == PgType::Unknown { PgType::Text } else { ty };
        self.params.into_iter().map(settle).collect()
    }

    fn id(&mut self) -> usize {
        self.next_id += 1;
        self.next_id
    }

    /// Runs `bind` one step deeper.
    fn nested<T>(&mut self, bind: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEPTH_MAX || self.levels.len() >= LEVELS_MAX {
            return Err(Error::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded"));
        }
        self.depth += 1;
        let bound = bind(self);
        self.depth -= 1;
        bound
    }
}

pub(crate) fn out_columns(columns: &[OutColumn]) -> Vec<(String, PgType)> {
    columns.iter().map(|column| (column.name.clone(), column.ty.clone())).collect()
}
