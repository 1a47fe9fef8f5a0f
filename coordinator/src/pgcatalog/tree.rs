//! The bound statement: names resolved to positions, types known, functions found. The binder writes it, the runner
//! walks it.
//!
//! Every SELECT is a *level*. Its row is the concatenation of its FROM items' columns, then one slot for each aggregate,
//! window function and set-returning call. A column is `(levels up, position in that level's row)`; correlation and
//! LATERAL are nothing but `up > 0`, or a FROM item that reads its neighbours' part of the row.

use super::functions::{ScalarFunction, SetFunction};
use super::schema::RelationDef;
use super::value::Value;
use engine::PgType;
use std::sync::Arc;

/// A composite's columns.
pub(crate) type Fields = Option<Arc<[(String, PgType)]>>;

#[derive(Debug, Clone)]
pub(crate) struct OutColumn {
    pub name: String,
    pub ty: PgType,
    pub fields: Fields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Concat,
    /// `~`, `~*`: negated or not is written around it.
    Match {
        ignore_case: bool,
    },
    Like {
        ignore_case: bool,
    },
    BitAnd,
    BitOr,
    ArrayConcat,
    Overlap,
    Contains,
}

#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Const(Value),
    Param(usize, PgType),
    Column {
        up: usize,
        index: usize,
    },
    Call(&'static ScalarFunction, Vec<Expr>),
    /// A call that only the session can answer; more than one column makes a record.
    Host {
        call: HostCall,
        columns_count: usize,
    },
    Cast {
        expr: Box<Expr>,
        from: PgType,
        to: PgType,
    },
    Binary {
        op: Op,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    IsNull(Box<Expr>),
    /// `IS TRUE`, `IS FALSE`.
    Is(Box<Expr>, bool),
    IsDistinct(Box<Expr>, Box<Expr>),
    InList(Box<Expr>, Vec<Expr>),
    /// `left op ANY (array)`, or `ALL`.
    Quantified {
        op: Op,
        left: Box<Expr>,
        array: Box<Expr>,
        all: bool,
    },
    /// `left op ANY (SELECT …)`, or `ALL`; `IN (SELECT …)` is `= ANY`.
    QuantifiedQuery {
        op: Op,
        left: Box<Expr>,
        query: Box<Query>,
        all: bool,
    },
    Case {
        branches: Vec<(Expr, Expr)>,
        otherwise: Box<Expr>,
    },
    Coalesce(Vec<Expr>),
    Array(Vec<Expr>),
    Record(Vec<Expr>),
    /// `lower` is the index of the first element: 0 for the vector types, else 1.
    Subscript {
        array: Box<Expr>,
        index: Box<Expr>,
        lower: i64,
    },
    Slice {
        array: Box<Expr>,
        start: Option<Box<Expr>>,
        end: Option<Box<Expr>>,
    },
    Field(Box<Expr>, usize),
    Scalar(Box<Query>),
    Exists(Box<Query>),
    ArrayQuery(Box<Query>),
}

#[derive(Debug, Clone)]
pub(crate) struct HostCall {
    pub schema: Option<String>,
    pub name: String,
    pub args: Vec<(Option<String>, Expr, PgType)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// Key of its cached rows when it is not correlated.
    pub id: usize,
    pub ctes: Vec<Cte>,
    pub body: Body,
    /// Over the output columns; a single SELECT sorts inside its own level instead.
    pub order: Vec<SortKey>,
    pub limit: Option<Expr>,
    pub offset: Option<Expr>,
    pub columns: Vec<OutColumn>,
    /// Its rows depend on the row of an outer level, or on a table expression that changes.
    pub correlated: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Cte {
    pub slot: usize,
    pub query: Query,
    /// The second arm of a recursive one, and whether equal rows are kept.
    pub recursive: Option<(Query, bool)>,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Select(Box<Select>),
    Values(Vec<Vec<Expr>>),
    /// One in parentheses.
    Query(Box<Query>),
    Set {
        op: SetOp,
        all: bool,
        left: Box<Query>,
        right: Box<Query>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetOp {
    Union,
    Intersect,
    Except,
}

#[derive(Debug, Clone)]
pub(crate) struct Select {
    pub from: Option<Source>,
    /// Conjuncts that could not be pushed into `from`.
    pub filter: Vec<Expr>,
    /// `None`: rows are not grouped.
    pub group: Option<Vec<Expr>>,
    pub having: Option<Expr>,
    /// Width of a row before the slots.
    pub from_width: usize,
    pub slots: Vec<Slot>,
    pub projection: Vec<Expr>,
    pub distinct: Distinct,
    pub order: Vec<SortKey>,
}

#[derive(Debug, Clone)]
pub(crate) enum Distinct {
    No,
    Yes,
    On(Vec<Expr>),
}

#[derive(Debug, Clone)]
pub(crate) struct SortKey {
    pub by: SortBy,
    pub descending: bool,
    pub nulls_first: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum SortBy {
    Output(usize),
    Expr(Expr),
}

#[derive(Debug, Clone)]
pub(crate) enum Slot {
    Aggregate(Aggregate),
    Window(Window),
    Set { call: TableCall, columns_count: usize },
}

#[derive(Debug, Clone)]
pub(crate) struct Aggregate {
    pub kind: AggregateKind,
    pub args: Vec<Expr>,
    pub distinct: bool,
    pub filter: Option<Expr>,
    pub order: Vec<SortKey>,
    /// Of the first argument.
    pub ty: PgType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AggregateKind {
    CountRows,
    Count,
    Sum,
    Avg,
    Min,
    Max,
    StringAgg,
    ArrayAgg,
    BoolAnd,
    BoolOr,
    JsonAgg,
}

#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub kind: WindowKind,
    pub partition: Vec<Expr>,
    pub order: Vec<SortKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowKind {
    RowNumber,
    Rank,
    DenseRank,
    /// `count(*) OVER (PARTITION BY …)` over the whole partition.
    Count,
}

/// A FROM item. Its rows occupy `[base, base + width)` of the level's row.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub base: usize,
    pub width: usize,
    /// Conjuncts over this item (and earlier ones, where it is the right side of a join).
    pub filter: Vec<Expr>,
    /// Reads columns of items to its left: runs once for each of their rows.
    pub lateral: bool,
    pub kind: SourceKind,
}

#[derive(Debug, Clone)]
pub(crate) enum SourceKind {
    Relation(Arc<RelationDef>),
    Cte(usize),
    Query(Box<Query>),
    Calls { calls: Vec<(TableCall, usize)>, ordinality: bool },
    Join { join: Join, left: Box<Source>, right: Box<Source> },
}

#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub kind: JoinKind,
    /// `left = right` pairs, served by a hash table over the right side.
    pub keys: Vec<(Expr, Expr)>,
    pub rest: Vec<Expr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

/// A call that gives rows.
#[derive(Debug, Clone)]
pub(crate) enum TableCall {
    Set(&'static SetFunction, Vec<Expr>),
    Host(HostCall),
    /// A scalar function in FROM: one row.
    Scalar(Expr),
}

/// Calls `see` with every position that `expr` reads of the level `up` levels above it; queries inside are searched too.
pub(crate) fn each_column(expr: &Expr, up: usize, see: &mut dyn FnMut(usize)) {
    let mut each = |expr: &Expr| each_column(expr, up, see);
    match expr {
        Expr::Column { up: own, index } if *own == up => see(*index),
        Expr::Const(_) | Expr::Param(..) | Expr::Column { .. } => {}
        Expr::Call(_, args) | Expr::And(args) | Expr::Or(args) | Expr::Coalesce(args) => args.iter().for_each(each),
        Expr::Array(args) | Expr::Record(args) => args.iter().for_each(each),
        Expr::Host { call, .. } => call.args.iter().for_each(|(_, expr, _)| each(expr)),
        Expr::Cast { expr, .. } | Expr::Not(expr) | Expr::IsNull(expr) | Expr::Is(expr, _) | Expr::Field(expr, _) => {
            each(expr)
        }
        Expr::Binary { left, right, .. } | Expr::IsDistinct(left, right) => {
            [left, right].into_iter().for_each(|e| each(e))
        }
        Expr::InList(left, list) => {
            each(left);
            list.iter().for_each(each);
        }
        Expr::Quantified { left, array, .. } => [left, array].into_iter().for_each(|e| each(e)),
        Expr::QuantifiedQuery { left, query, .. } => {
            each(left);
            each_column_of_query(query, up, see);
        }
        Expr::Case { branches, otherwise } => {
            for (condition, result) in branches {
                each(condition);
                each(result);
            }
            each(otherwise);
        }
        Expr::Subscript { array, index, .. } => [array, index].into_iter().for_each(|e| each(e)),
        Expr::Slice { array, start, end } => {
            each(array);
            start.iter().chain(end).for_each(|e| each(e));
        }
        Expr::Scalar(query) | Expr::Exists(query) | Expr::ArrayQuery(query) => each_column_of_query(query, up, see),
    }
}

/// `up` counts from outside the query.
fn each_column_of_query(query: &Query, up: usize, see: &mut dyn FnMut(usize)) {
    for cte in &query.ctes {
        each_column_of_query(&cte.query, up, see);
        if let Some((step, _)) = &cte.recursive {
            each_column_of_query(step, up, see);
        }
    }
    query.limit.iter().chain(&query.offset).for_each(|expr| each_column(expr, up, see));
    match &query.body {
        Body::Values(rows) => rows.iter().flatten().for_each(|expr| each_column(expr, up, see)),
        Body::Set { left, right, .. } => {
            each_column_of_query(left, up, see);
            each_column_of_query(right, up, see);
        }
        Body::Query(inner) => each_column_of_query(inner, up, see),
        Body::Select(select) => each_column_of_select(select, up + 1, see),
    }
}

fn each_column_of_select(select: &Select, up: usize, see: &mut dyn FnMut(usize)) {
    let mut each = |expr: &Expr| each_column(expr, up, see);
    let on = match &select.distinct {
        Distinct::On(exprs) => exprs.as_slice(),
        _ => &[],
    };
    let exprs = select.filter.iter().chain(select.group.iter().flatten()).chain(&select.having);
    exprs.chain(&select.projection).chain(on).for_each(&mut each);
    sort_exprs(&select.order).for_each(&mut each);
    for slot in &select.slots {
        match slot {
            Slot::Aggregate(aggregate) => {
                aggregate.args.iter().chain(&aggregate.filter).for_each(&mut each);
                sort_exprs(&aggregate.order).for_each(&mut each);
            }
            Slot::Window(window) => {
                window.partition.iter().for_each(&mut each);
                sort_exprs(&window.order).for_each(&mut each);
            }
            Slot::Set { call, .. } => call_exprs(call).for_each(&mut each),
        }
    }
    if let Some(from) = &select.from {
        each_column_of_source(from, up, see);
    }
}

fn sort_exprs(keys: &[SortKey]) -> impl Iterator<Item = &Expr> {
    keys.iter().filter_map(|key| match &key.by {
        SortBy::Expr(expr) => Some(expr),
        SortBy::Output(_) => None,
    })
}

fn call_exprs(call: &TableCall) -> impl Iterator<Item = &Expr> {
    let (args, host, scalar) = match call {
        TableCall::Set(_, args) => (args.as_slice(), &[][..], None),
        TableCall::Host(call) => (&[][..], call.args.as_slice(), None),
        TableCall::Scalar(expr) => (&[][..], &[][..], Some(expr)),
    };
    args.iter().chain(host.iter().map(|(_, expr, _)| expr)).chain(scalar)
}

fn each_column_of_source(source: &Source, up: usize, see: &mut dyn FnMut(usize)) {
    source.filter.iter().for_each(|expr| each_column(expr, up, see));
    match &source.kind {
        SourceKind::Relation(_) | SourceKind::Cte(_) => {}
        SourceKind::Query(query) => each_column_of_query(query, up, see),
        SourceKind::Calls { calls, .. } => {
            calls.iter().flat_map(|(call, _)| call_exprs(call)).for_each(|expr| each_column(expr, up, see));
        }
        SourceKind::Join { join, left, right } => {
            let keys = join.keys.iter().flat_map(|(a, b)| [a, b]);
            keys.chain(&join.rest).for_each(|expr| each_column(expr, up, see));
            each_column_of_source(left, up, see);
            each_column_of_source(right, up, see);
        }
    }
}
