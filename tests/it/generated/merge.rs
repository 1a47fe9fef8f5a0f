//! Aggregates of parts put together to the aggregates of the whole, by the plainest means: the twin that the servers'
//! answers are held against.

use super::place::Row;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// How a column of parts becomes one of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    Sum(Kind),
    Min(Kind),
    Max(Kind),
    And,
    Or,
    /// Of the columns with the sum and the count.
    Average(usize, usize),
    /// It cannot be had from parts.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Float,
    /// Also times of one zone and one format: their texts sort as they do.
    Text,
}

/// Aggregates of `t` that are understood here.
pub const AGGREGATES: [(&str, Merge); 17] = [
    ("count(*)", Merge::Sum(Kind::Int)),
    ("count(t.host)", Merge::Sum(Kind::Int)),
    ("count(t.w)", Merge::Sum(Kind::Int)),
    ("sum(t.n)", Merge::Sum(Kind::Int)),
    ("sum(t.device)", Merge::Sum(Kind::Int)),
    ("sum(t.w)", Merge::Sum(Kind::Float)),
    ("sum(t.v * 2)", Merge::Sum(Kind::Float)),
    ("min(t.v)", Merge::Min(Kind::Float)),
    ("min(t.n)", Merge::Min(Kind::Int)),
    ("max(t.w)", Merge::Max(Kind::Float)),
    ("min(t.w)", Merge::Min(Kind::Float)),
    ("max(t.host)", Merge::Max(Kind::Text)),
    ("min(t.time)", Merge::Min(Kind::Text)),
    ("max(t.time)", Merge::Max(Kind::Text)),
    ("bool_and(t.b)", Merge::And),
    ("bool_or(t.v > 0)", Merge::Or),
    ("count(*) FILTER (WHERE t.b)", Merge::Sum(Kind::Int)),
];

/// Aggregates that only the whole has.
pub const OTHERS: [&str; 4] =
    ["count(DISTINCT t.host)", "round(avg(t.n), 6)", "last(t.v, t.time)", "first(t.host, t.time)"];

/// The groups of the whole: rows with equal keys, which are the first columns, put together.
pub fn merged(parts: Vec<Row>, keys: usize, merges: &[Merge]) -> Vec<Row> {
    let mut groups = BTreeMap::<Row, Row>::new();
    for row in parts {
        let (key, values) = row.split_at(keys);
        match groups.get_mut(key) {
            None => {
                groups.insert(key.to_vec(), values.to_vec());
            }
            Some(known) => {
                let together = merges.iter().zip(known.iter().zip(values));
                *known = together.map(|(merge, (a, b))| merge.two(a, b)).collect();
            }
        }
    }
    let finished = groups.into_iter().map(|(key, values)| {
        let averaged = merges.iter().zip(&values).map(|(merge, value)| match merge {
            Merge::Average(sum, count) => average(&values[*sum], &values[*count]),
            _ => value.clone(),
        });
        [key, averaged.collect()].concat()
    });
    finished.collect()
}

/// Rows without the columns that parts do not tell.
pub fn comparable(rows: Vec<Row>, keys: usize, merges: &[Merge]) -> Vec<Row> {
    let known = |row: Row| {
        let values = row.into_iter().enumerate();
        values.filter(|(at, _)| *at < keys || merges[at - keys] != Merge::Unknown).map(|(_, value)| value).collect()
    };
    rows.into_iter().map(known).collect()
}

fn average(sum: &Option<String>, count: &Option<String>) -> Option<String> {
    let (sum, count) = (float(sum.as_ref()?), float(count.as_ref()?));
    Some(text(sum / count))
}

impl Merge {
    fn two(self, a: &Option<String>, b: &Option<String>) -> Option<String> {
        let (Some(x), Some(y)) = (a, b) else { return a.clone().or_else(|| b.clone()) };
        Some(match self {
            Merge::Sum(Kind::Float) => text(float(x) + float(y)),
            Merge::Sum(_) => (int(x) + int(y)).to_string(),
            Merge::Min(kind) => if kind.order(x, y) == Ordering::Greater { y } else { x }.clone(),
            Merge::Max(kind) => if kind.order(x, y) == Ordering::Less { y } else { x }.clone(),
            Merge::And => if x == "t" && y == "t" { "t" } else { "f" }.to_owned(),
            Merge::Or => if x == "t" || y == "t" { "t" } else { "f" }.to_owned(),
            Merge::Average(..) | Merge::Unknown => x.clone(),
        })
    }
}

impl Kind {
    fn order(self, a: &str, b: &str) -> Ordering {
        match self {
            Kind::Int => int(a).cmp(&int(b)),
            // PostgreSQL: NaN is equal to itself and greater than all others.
            Kind::Float => float(a).partial_cmp(&float(b)).unwrap_or_else(|| float(a).is_nan().cmp(&float(b).is_nan())),
            Kind::Text => a.cmp(b),
        }
    }
}

fn int(text: &str) -> i128 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no integer"))
}

fn float(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no float"))
}

fn text(value: f64) -> String {
    if value.is_infinite() { if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned() } else { value.to_string() }
}

#[test]
fn parts_make_the_whole() {
    let row = |cells: &[&str]| cells.iter().map(|c| (!c.is_empty()).then(|| (*c).to_owned())).collect::<Row>();
    let parts = vec![row(&["a", "1", "NaN", "2.5"]), row(&["b", "1", "", ""]), row(&["a", "2", "Infinity", "0.5"])];
    let merges = [Merge::Sum(Kind::Int), Merge::Min(Kind::Float), Merge::Sum(Kind::Float)];
    let whole = vec![row(&["a", "3", "Infinity", "3"]), row(&["b", "1", "", ""])];
    assert_eq!(merged(parts, 1, &merges), whole);
}
