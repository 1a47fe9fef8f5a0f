//! Values of the catalog executor and rows of them. A value does not know its type: the bound tree does. All integer
//! kinds, `oid` and the `reg*` types are `Int`; their names appear only when they are turned into text.

use engine::PgType;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    /// smallint, integer, bigint, oid, xid and the reg* types.
    Int(i64),
    Float(f64),
    /// An unscaled number and how many of its digits stand behind the point.
    Numeric(i128, u8),
    /// text, varchar, name, "char", json, uuid and whatever else is kept as text.
    Text(Arc<str>),
    /// Microseconds since 1970-01-01 UTC; `timestamp` and `timestamptz`.
    Timestamp(i64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    Interval(Arc<Interval>),
    Array(Arc<[Value]>),
    Record(Arc<[Value]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

impl Interval {
    /// Length with 30-day months, PostgreSQL's order of intervals.
    fn span_us(&self) -> i128 {
        const DAY_US: i128 = 86_400_000_000;
        (self.months as i128 * 30 + self.days as i128) * DAY_US + self.micros as i128
    }
}

pub type Row = Vec<Value>;

impl Value {
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::Text(text.as_ref().into())
    }

    pub fn array(values: impl IntoIterator<Item = Value>) -> Value {
        Value::Array(values.into_iter().collect())
    }

    pub fn texts<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Value {
        Value::array(values.into_iter().map(Value::text))
    }

    pub fn opt_text(text: Option<impl AsRef<str>>) -> Value {
        text.map_or(Value::Null, Value::text)
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub fn as_str(&self) -> &str {
        match self {
            Value::Text(text) => text,
            _ => "",
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            Value::Bool(b) => Some(*b as i64),
            Value::Float(f) => Some(f.round_ties_even() as i64),
            Value::Numeric(n, scale) => {
                let unit = 10i128.checked_pow(*scale as u32)?;
                let (whole, rest) = (n / unit, n % unit);
                let away = if rest.abs() * 2 >= unit { n.signum() } else { 0 };
                i64::try_from(whole + away).ok()
            }
            _ => None,
        }
    }

    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(*n as f64),
            Value::Float(f) => Some(*f),
            Value::Numeric(n, scale) => Some(*n as f64 / 10f64.powi(*scale as i32)),
            _ => None,
        }
    }

    pub fn elements(&self) -> &[Value] {
        match self {
            Value::Array(values) | Value::Record(values) => values,
            _ => &[],
        }
    }

    /// `WHERE` keeps a row only for a true value.
    pub fn is_true(&self) -> bool {
        matches!(self, Value::Bool(true))
    }

    /// Order of two values of one type family, NULL last; numbers of any kind compare with each other.
    pub fn order(&self, other: &Value) -> Ordering {
        use Value::*;
        match (self, other) {
            (Null, Null) => Ordering::Equal,
            (Null, _) => Ordering::Greater,
            (_, Null) => Ordering::Less,
            (Bool(a), Bool(b)) => a.cmp(b),
            (Int(a), Int(b)) => a.cmp(b),
            (Text(a), Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Timestamp(a), Timestamp(b)) | (Time(a), Time(b)) => a.cmp(b),
            (Date(a), Date(b)) => a.cmp(b),
            (Date(a), Timestamp(b)) => (*a as i64 * 86_400_000_000).cmp(b),
            (Timestamp(a), Date(b)) => a.cmp(&(*b as i64 * 86_400_000_000)),
            (Interval(a), Interval(b)) => a.span_us().cmp(&b.span_us()),
            (Array(a), Array(b)) | (Record(a), Record(b)) => {
                let first = a.iter().zip(b.iter()).map(|(a, b)| a.order(b)).find(|order| order.is_ne());
                first.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            _ => match (self.as_float(), other.as_float()) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                // The binder lets no comparison of different families through; keep a total order all the same.
                _ => self.family().cmp(&other.family()),
            },
        }
    }

    fn family(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Int(_) | Value::Float(_) | Value::Numeric(..) => 2,
            Value::Text(_) => 3,
            Value::Timestamp(_) | Value::Date(_) => 4,
            Value::Time(_) => 5,
            Value::Interval(_) => 6,
            Value::Array(_) => 7,
            Value::Record(_) => 8,
        }
    }
}

/// Equality as `GROUP BY`, `DISTINCT` and hash joins see it: NULL equals NULL.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.order(other).is_eq()
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.family());
        match self {
            Value::Null => {}
            Value::Bool(b) => b.hash(state),
            // Numbers of all kinds are equal when their value is, so they hash as the double they compare as.
            Value::Int(_) | Value::Float(_) | Value::Numeric(..) => {
                let number = self.as_float().unwrap_or_default();
                state.write_u64(if number == 0.0 { 0 } else { number.to_bits() });
            }
            Value::Text(text) => text.hash(state),
            Value::Timestamp(us) => us.hash(state),
            Value::Date(days) => (*days as i64 * 86_400_000_000).hash(state),
            Value::Time(us) => us.hash(state),
            Value::Interval(interval) => interval.span_us().hash(state),
            Value::Array(values) | Value::Record(values) => values.iter().for_each(|value| value.hash(state)),
        }
    }
}

/// A finished result, or a whole catalog relation.
#[derive(Debug, Clone)]
pub struct RowSet {
    pub columns: Vec<(String, PgType)>,
    pub rows: Vec<Row>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::DefaultHasher;

    fn hash(value: &Value) -> u64 {
        let mut state = DefaultHasher::new();
        value.hash(&mut state);
        state.finish()
    }

    #[test]
    fn equal_numbers_of_different_kinds_hash_alike() {
        let same = [Value::Int(5), Value::Float(5.0), Value::Numeric(500, 2)];
        for a in &same {
            for b in &same {
                assert_eq!(a, b);
                assert_eq!(hash(a), hash(b));
            }
        }
    }

    #[test]
    fn half_a_numeric_rounds_away_from_zero_and_half_a_float_to_even() {
        assert_eq!(Value::Numeric(25, 1).as_int(), Some(3));
        assert_eq!(Value::Numeric(-25, 1).as_int(), Some(-3));
        assert_eq!(Value::Float(2.5).as_int(), Some(2));
    }
}
