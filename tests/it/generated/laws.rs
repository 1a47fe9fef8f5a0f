//! What must be true of answers whatever the rows are, so that nobody needs to know the right answer: the three parts of a
//! query make the whole (ternary logic partitioning), a condition that is counted is one that is read row by row, the first
//! rows of an order are its beginning, and two ways of asking for the last row of each series are one.

use super::merge::{AGGREGATES, Kind, Merge, OTHERS, comparable, merged};
use super::place::{Refusal, Row};
use super::query::{Generator, Query, named};
use super::statement::{Constant, one_of};
use rand::Rng;
use rand::rngs::StdRng;

/// A question and what its answers must fulfil.
pub struct Case {
    pub law: Law,
    /// The statement that is asked everywhere.
    pub whole: String,
    pub constants: Vec<Constant>,
    /// Whether the order of its rows is part of the answer.
    pub is_ordered: bool,
    /// The statements whose answers the law is about, after the whole.
    others: Vec<String>,
    check: Check,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    Rows,
    Distinct,
    Aggregates,
    Groups,
    Having,
    FirstRows,
    FirstGroups,
    Counted,
    LastOfSeries,
    /// Only that it is the same everywhere.
    Anything,
}

const LAWS: [Law; 10] = [
    Law::Rows,
    Law::Distinct,
    Law::Aggregates,
    Law::Groups,
    Law::Having,
    Law::FirstRows,
    Law::FirstGroups,
    Law::Counted,
    Law::LastOfSeries,
    Law::Anything,
];

enum Check {
    /// The others' rows together are the whole's.
    Union,
    /// So are they when each is kept once.
    UnionOnce,
    Merged {
        keys: usize,
        merges: Vec<Merge>,
    },
    /// The whole is this part of the other one.
    Slice {
        offset: usize,
        limit: usize,
    },
    /// The whole's number is how many rows of the other one are true.
    CountOfTrue,
    Equal,
    Nothing,
}

/// Asks in one way.
pub type Ask<'a> = dyn FnMut(&str) -> Result<Vec<Row>, Refusal> + 'a;

impl Case {
    pub fn draw(rng: &mut StdRng) -> Case {
        let law = LAWS[rng.random_range(0..LAWS.len())];
        match law {
            Law::Rows | Law::Distinct => rows(law, rng),
            Law::Aggregates | Law::Groups => aggregates(law, rng),
            Law::Having => having(rng),
            Law::FirstRows => first_rows(rng),
            Law::FirstGroups => first_groups(rng),
            Law::Counted => counted(rng),
            Law::LastOfSeries => last_of_series(rng),
            Law::Anything => anything(rng),
        }
    }

    /// The answer to the whole; and why the law does not hold, if so.
    ///
    /// # Errors
    /// When a statement is refused.
    pub fn hold(&self, ask: &mut Ask) -> Result<(Vec<Row>, Option<String>), Refusal> {
        let whole = ask(&self.whole)?;
        let mut others = Vec::new();
        for statement in &self.others {
            others.push(ask(statement)?);
        }
        let (left, right) = match &self.check {
            Check::Nothing => return Ok((whole, None)),
            Check::Union => (sorted(whole.clone()), sorted(others.concat())),
            Check::UnionOnce => {
                let mut all = sorted(others.concat());
                all.dedup();
                (sorted(whole.clone()), all)
            }
            Check::Merged { keys, merges } => {
                let parts = comparable(merged(others.concat(), *keys, merges), *keys, merges);
                (sorted(comparable(whole.clone(), *keys, merges)), sorted(parts))
            }
            Check::Slice { offset, limit } => {
                (whole.clone(), others.concat().into_iter().skip(*offset).take(*limit).collect())
            }
            Check::CountOfTrue => {
                let all = others.concat();
                let count = all.iter().filter(|row| row[0].as_deref() == Some("t")).count();
                (whole.clone(), vec![vec![Some(count.to_string())]])
            }
            Check::Equal => (sorted(whole.clone()), sorted(others.concat())),
        };
        Ok((whole, difference(&left, &right)))
    }

    /// All of its statements.
    pub fn statements(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.whole).chain(&self.others)
    }
}

/// In which rows two answers differ.
pub fn difference(left: &[Row], right: &[Row]) -> Option<String> {
    if left == right {
        return None;
    }
    let only = |a: &[Row], b: &[Row]| {
        let mut rest = b.to_vec();
        let missing = a.iter().filter(|row| match rest.iter().position(|other| other == *row) {
            Some(at) => {
                rest.swap_remove(at);
                false
            }
            None => true,
        });
        missing.take(3).map(|row| format!("{row:?}")).collect::<Vec<_>>().join(" ")
    };
    let (a, b) = (only(left, right), only(right, left));
    Some(format!("{} rows against {}; only there: {a}; only here: {b}", left.len(), right.len()))
}

pub fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

fn case(law: Law, query: &Query, others: Vec<String>, check: Check) -> Case {
    Case { law, whole: query.whole(), constants: query.constants.clone(), is_ordered: false, others, check }
}

fn rows(law: Law, rng: &mut StdRng) -> Case {
    let mut generator = Generator::new(rng);
    let from = generator.from();
    let (word, check) = match law {
        Law::Distinct => ("DISTINCT ", Check::UnionOnce),
        _ => ("", Check::Union),
    };
    let head = format!("SELECT {word}{} FROM {from}", generator.items());
    let query = generator.finish(head, String::new());
    case(law, &query, query.parts().to_vec(), check)
}

fn aggregates(law: Law, rng: &mut StdRng) -> Case {
    let mut generator = Generator::new(rng);
    let from = generator.from();
    let keys = if law == Law::Groups { generator.keys() } else { Vec::new() };
    let (items, merges) = some_aggregates(&mut generator);
    let head = format!("SELECT {} FROM {from}", named(&[&keys[..], &items].concat()));
    let tail = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
    let query = generator.finish(head, tail);
    case(law, &query, query.parts().to_vec(), Check::Merged { keys: keys.len(), merges })
}

fn some_aggregates(generator: &mut Generator) -> (Vec<String>, Vec<Merge>) {
    let (mut items, mut merges) = (Vec::new(), Vec::new());
    let mut push = |text: &str, merge| {
        items.push(text.to_owned());
        merges.push(merge);
    };
    if generator.rng.random_bool(0.4) {
        push("sum(t.v)", Merge::Sum(Kind::Float));
        push("count(t.v)", Merge::Sum(Kind::Int));
        push("avg(t.v)", Merge::Average(0, 1));
    }
    for _ in 0..generator.rng.random_range(1..5) {
        let (text, merge) = AGGREGATES[generator.rng.random_range(0..AGGREGATES.len())];
        push(text, merge);
    }
    // Two rows of a join may have one time.
    if !generator.is_joined() && generator.rng.random_bool(0.3) {
        push(one_of(generator.rng, &OTHERS), Merge::Unknown);
    }
    (items, merges)
}

fn having(rng: &mut StdRng) -> Case {
    let mut generator = Generator::new(rng);
    let from = generator.from();
    let keys = generator.keys();
    let items = some_aggregates(&mut generator).0;
    let head = format!("SELECT {} FROM {from}", named(&[&keys[..], &items].concat()));
    let tail = format!(" GROUP BY {}", keys.join(", "));
    let mut condition = || {
        let op = one_of(generator.rng, &["<", ">", "=", "<>"]);
        let number = generator.rng.random_range(-30..60);
        let all = ["count(*)", "sum(t.v)", "max(t.n)", "min(t.device)", "avg(t.v)", "sum(t.device)", "count(t.w)"];
        format!("{} {op} {number}", one_of(generator.rng, &all))
    };
    let (a, b) = (condition(), condition());
    let predicate = match generator.rng.random_range(0..4) {
        0 => a,
        1 => format!("{a} AND {b}"),
        2 => format!("{a} OR NOT {b}"),
        _ => format!("({a}) = ({b})"),
    };
    let query = generator.finish(head, tail);
    let whole = query.whole();
    let parts = [format!("({predicate})"), format!("NOT ({predicate})"), format!("({predicate}) IS NULL")];
    case(Law::Having, &query, parts.map(|part| format!("{whole} HAVING {part}")).to_vec(), Check::Union)
}

fn limited(law: Law, mut query: Query, (limit, offset): (usize, usize)) -> Case {
    let full = query.whole();
    query.tail += &format!(" LIMIT {limit}");
    if offset > 0 {
        query.tail += &format!(" OFFSET {offset}");
    }
    Case { is_ordered: true, ..case(law, &query, vec![full], Check::Slice { offset, limit }) }
}

fn limits(rng: &mut StdRng) -> (usize, usize) {
    let limit = [0, 1, 1, 3, 5, 10, 100, 5000][rng.random_range(0..8)];
    (limit, if rng.random_bool(0.3) { rng.random_range(0..40) } else { 0 })
}

fn direction(rng: &mut StdRng) -> &'static str {
    one_of(rng, &["", "", " DESC", " DESC", " NULLS FIRST", " DESC NULLS LAST"])
}

fn first_rows(rng: &mut StdRng) -> Case {
    let mut generator = Generator::new(rng);
    let from = generator.from();
    let head = format!("SELECT {} FROM {from}", generator.items());
    let mut order = Vec::new();
    for _ in 0..generator.rng.random_range(0..3) {
        let key =
            one_of(generator.rng, &["t.device", "t.host", "t.v", "t.n", "t.b", "t.w", "time_bucket('1 hour', t.time)"]);
        order.push(format!("{key}{}", direction(generator.rng)));
    }
    order.push(format!("t.time{}", direction(generator.rng)));
    if generator.is_joined() {
        order.push("d.name".to_owned());
    }
    let limits = limits(generator.rng);
    let query = generator.finish(head, format!(" ORDER BY {}", order.join(", ")));
    limited(Law::FirstRows, query, limits)
}

fn first_groups(rng: &mut StdRng) -> Case {
    let mut generator = Generator::new(rng);
    let from = generator.from();
    let keys = generator.keys();
    let items = some_aggregates(&mut generator).0;
    let mut order = Vec::new();
    if generator.rng.random_bool(0.3) {
        order.push(format!(
            "{}{}",
            one_of(generator.rng, &["count(*)", "max(t.v)", "sum(t.n)"]),
            direction(generator.rng)
        ));
    }
    order.extend(keys.iter().map(|key| format!("{key}{}", direction(generator.rng))));
    let head = format!("SELECT {} FROM {from}", named(&[&keys[..], &items].concat()));
    let tail = format!(" GROUP BY {} ORDER BY {}", keys.join(", "), order.join(", "));
    let limits = limits(generator.rng);
    let query = generator.finish(head, tail);
    limited(Law::FirstGroups, query, limits)
}

fn counted(rng: &mut StdRng) -> Case {
    let mut generator = Generator::new(rng);
    let from = generator.from();
    let query = generator.finish(format!("SELECT count(*) AS first_column FROM {from}"), String::new());
    let read =
        Query { head: format!("SELECT ({}) IS TRUE AS first_column FROM {from}", query.predicate), ..query.clone() };
    let counted = query.filtered(&format!("({})", query.predicate));
    Case { whole: counted, ..case(Law::Counted, &query, vec![read.whole()], Check::CountOfTrue) }
}

fn last_of_series(rng: &mut StdRng) -> Case {
    let mut generator = Generator::new(rng);
    let from = generator.table();
    let key = one_of(generator.rng, &["t.device", "t.device", "t.host", "t.n % 3"]);
    let (function, order) = one_of(generator.rng, &[&("last", "DESC"), &("last", "DESC"), &("first", "")]);
    let column = one_of(generator.rng, &["v", "host", "n", "b"]);
    let time = if *function == "last" { "max(t.time)" } else { "min(t.time)" };
    let head = format!("SELECT {key} AS first_column, {function}(t.{column}, t.time), {time} FROM {from}");
    // As dashboards ask; only then the directories of sealed series can answer.
    let is_recent = generator.rng.random_bool(0.3);
    let mut query = generator.finish(head, format!(" GROUP BY {key}"));
    if is_recent {
        query.base = Some("t.time >= '2024-01-01 06:00+00'".to_owned());
    }
    let twin = Query {
        head: format!("SELECT DISTINCT ON ({key}) {key} AS first_column, t.{column}, t.time FROM {from}"),
        tail: format!(" ORDER BY {key}, t.time {order}"),
        ..query.clone()
    };
    case(Law::LastOfSeries, &query, vec![twin.whole()], Check::Equal)
}

/// Shapes that the laws above do not reach.
fn anything(rng: &mut StdRng) -> Case {
    let mut generator = Generator::new(rng);
    let from = generator.table();
    let a = generator.predicate(1);
    let head = match generator.rng.random_range(0..6) {
        0 => format!(
            "SELECT t.time AS first_column, lag(t.n) OVER w, row_number() OVER w, sum(t.v) OVER w FROM (SELECT * FROM t WHERE {a}) AS t WINDOW w AS (PARTITION BY t.device ORDER BY t.time)"
        ),
        1 => format!(
            "SELECT t.host AS first_column FROM t WHERE {a} {} SELECT t.host FROM t",
            one_of(generator.rng, &["UNION", "UNION ALL", "EXCEPT", "INTERSECT"])
        ),
        2 => format!(
            "WITH x AS (SELECT t.device, time_bucket('4 hours', t.time) AS bucket, count(*) AS c FROM t WHERE {a} GROUP BY 1, 2) SELECT t.bucket AS first_column, max(t.c), count(t.device), sum(t.c) FROM x AS t GROUP BY t.bucket"
        ),
        3 => format!(
            "SELECT t.device AS first_column, string_agg(t.host, ',' ORDER BY t.time) FROM {from} WHERE {a} GROUP BY t.device"
        ),
        4 => format!(
            "SELECT t.device AS first_column, count(DISTINCT t.host), count(DISTINCT t.v), min(t.v), count(*) FROM {from} WHERE {a} GROUP BY t.device"
        ),
        _ => format!(
            "SELECT count(*) AS first_column, sum(t.v), max(u.n) FROM t JOIN t AS u ON t.device = u.device AND t.time = u.time WHERE {a}"
        ),
    };
    let mut query = generator.finish(head, String::new());
    query.base = None;
    case(Law::Anything, &query, Vec::new(), Check::Nothing)
}
