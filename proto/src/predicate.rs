//! What a scan may skip: conjunctive bounds on columns, without any SQL. They are hints. A store may return rows that
//! do not satisfy them; it must never leave out one that does.

use crate::ColumnId;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnPredicate {
    pub column: ColumnId,
    pub kind: PredicateKind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PredicateKind {
    /// `min <= value <= max`, both ends included; NULL never qualifies.
    Range { min: Option<Scalar>, max: Option<Scalar> },
    /// `value = ANY (…)`; NULL never qualifies.
    OneOf(Vec<Scalar>),
}

/// Of rows that agree in all columns of `of`, only one with the largest `time` is wanted. A hint as well: more rows may
/// be returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latest {
    pub of: Vec<ColumnId>,
    pub time: ColumnId,
}

/// A value as it is compared: dates as days, timestamps as microseconds, all integers as i64.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Scalar {
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
}
