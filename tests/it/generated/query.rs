//! Random queries over `t`, alone or joined with `d`: what they select, from where, and a predicate that parts their rows.
//! Nothing in them may fail while it runs (no division by a column, no overflow), so that an error is never right.

use super::statement::{Constant, Domain, one_of};
use rand::Rng;
use rand::rngs::StdRng;

/// The name of the first output column. Another name makes the statement one that no cache of plans knows.
const FIRST: &str = " AS first_column";
const DEPTH_MAX: u32 = 3;

/// `head [WHERE base] tail`. `predicate` parts its rows.
#[derive(Debug, Clone)]
pub struct Query {
    pub head: String,
    pub base: Option<String>,
    pub tail: String,
    pub predicate: String,
    pub constants: Vec<Constant>,
}

impl Query {
    pub fn whole(&self) -> String {
        self.filtered("")
    }

    /// The rows for which the predicate is true, false and NULL.
    pub fn parts(&self) -> [String; 3] {
        let p = &self.predicate;
        [format!("({p})"), format!("NOT ({p})"), format!("({p}) IS NULL")].map(|part| self.filtered(&part))
    }

    pub fn filtered(&self, condition: &str) -> String {
        let base = self.base.as_deref().unwrap_or_default();
        let filter = match (base.is_empty(), condition.is_empty()) {
            (true, true) => String::new(),
            (false, true) => format!(" WHERE ({base})"),
            (true, false) => format!(" WHERE {condition}"),
            (false, false) => format!(" WHERE ({base}) AND {condition}"),
        };
        format!("{}{filter}{}", self.head, self.tail)
    }
}

/// The same statement under a name it never had.
pub fn renamed(text: &str, number: usize) -> String {
    text.replace(FIRST, &format!(" AS column_{number}"))
}

/// What rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    One,
    Joined,
}

pub struct Generator<'a> {
    pub rng: &'a mut StdRng,
    pub constants: Vec<Constant>,
    source: Source,
}

impl<'a> Generator<'a> {
    pub fn new(rng: &'a mut StdRng) -> Generator<'a> {
        Generator { rng, constants: Vec::new(), source: Source::One }
    }

    /// `head` and `tail` are made by the caller, after `from`.
    pub fn finish(mut self, head: String, tail: String) -> Query {
        let base = self.rng.random_bool(0.4).then(|| self.predicate(1));
        let predicate = self.predicate(DEPTH_MAX);
        Query { head, base, tail, predicate, constants: self.constants }
    }

    pub fn is_joined(&self) -> bool {
        self.source == Source::Joined
    }

    pub fn table(&mut self) -> String {
        self.source = Source::One;
        "t".to_owned()
    }

    pub fn from(&mut self) -> String {
        self.source = Source::One;
        let choice = self.rng.random_range(0..16);
        if choice < 9 {
            return match choice {
                0 => format!("(SELECT * FROM t WHERE {}) AS t", self.atom()),
                1 => "(SELECT * FROM t ORDER BY time DESC LIMIT 700) AS t".to_owned(),
                _ => "t".to_owned(),
            };
        }
        let besides = if self.rng.random_bool(0.3) { format!(" AND {}", self.atom()) } else { String::new() };
        self.source = Source::Joined;
        match choice {
            9 | 10 => format!("t JOIN d ON t.device = d.id{besides}"),
            11 | 12 => format!("t LEFT JOIN d ON t.device = d.id{besides}"),
            13 => format!("d LEFT JOIN t ON t.device = d.id{besides}"),
            14 => "t FULL JOIN d ON t.device = d.id".to_owned(),
            _ => "d JOIN (SELECT device, max(time) AS time, max(host) AS host, sum(v) AS v, sum(n)::int8 AS n, bool_or(b) AS b, max(v) AS w FROM t GROUP BY device) AS t ON t.device = d.id".to_owned(),
        }
    }

    /// Output columns, the first with its name.
    pub fn items(&mut self) -> String {
        let count = self.rng.random_range(1..5);
        let items = (0..count).map(|_| self.scalar()).collect::<Vec<_>>();
        named(&items)
    }

    fn scalar(&mut self) -> String {
        if self.is_joined() && self.rng.random_bool(0.4) {
            return one_of(
                self.rng,
                &["d.id", "d.name", "d.factor", "d.since", "t.n + d.factor", "coalesce(d.name, t.host)"],
            )
            .to_owned();
        }
        let all = [
            "t.time",
            "t.device",
            "t.host",
            "t.v",
            "t.n",
            "t.b",
            "t.w",
            "t.n + 1",
            "t.v * 2",
            "t.v / 3",
            "t.n % 7",
            "-t.n",
            "-t.w",
            "t.b IS NOT TRUE",
            "upper(t.host)",
            "coalesce(t.host, '-')",
            "t.host || '/' || t.device",
            "time_bucket('1 hour', t.time)",
            "date_trunc('hour', t.time)",
            "extract(hour FROM t.time)",
            // Alone it is called `n`, and `ORDER BY t.n` is refused as ambiguous: a known fault.
            "(CASE WHEN t.b THEN t.v ELSE t.n END) + 1",
            "nullif(t.device, 3)",
            "greatest(t.v, t.n)",
            "t.time + interval '90 minutes'",
        ];
        one_of(self.rng, &all).to_owned()
    }

    /// What rows are grouped by.
    pub fn keys(&mut self) -> Vec<String> {
        let all = [
            "t.device",
            "t.host",
            "t.b",
            "t.w",
            "t.n % 3",
            "time_bucket('3 hours', t.time)",
            "time_bucket('20 minutes', t.time)",
            "date_trunc('hour', t.time)",
            "coalesce(t.device, -1)",
            "upper(t.host)",
            "t.v > 0",
        ];
        let mut keys = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let key = match self.is_joined() && self.rng.random_bool(0.4) {
                true => one_of(self.rng, &["d.name", "d.factor", "d.since IS NULL"]).to_owned(),
                false => one_of(self.rng, &all).to_owned(),
            };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    pub fn constant(&mut self, domain: Domain) -> String {
        self.constants.push(Constant::draw(domain, self.rng));
        format!("{{{}}}", self.constants.len() - 1)
    }

    fn comparison(&mut self) -> &'static str {
        one_of(self.rng, &["=", "=", "<", ">", "<=", ">=", "<>"])
    }

    pub fn predicate(&mut self, depth: u32) -> String {
        if depth == 0 || self.rng.random_bool(0.25) {
            return self.atom();
        }
        let a = self.predicate(depth - 1);
        match self.rng.random_range(0..12) {
            0..4 => format!("({a}) AND ({})", self.predicate(depth - 1)),
            4..8 => format!("({a}) OR ({})", self.predicate(depth - 1)),
            8 => format!("NOT ({a})"),
            9 => format!(
                "({a}) {}",
                one_of(self.rng, &["IS TRUE", "IS NOT TRUE", "IS FALSE", "IS NOT FALSE", "IS UNKNOWN"])
            ),
            10 => {
                format!("({a}) {} ({})", one_of(self.rng, &["=", "<>", "IS DISTINCT FROM"]), self.predicate(depth - 1))
            }
            _ => format!("CASE WHEN {a} THEN {} ELSE {} END", self.predicate(depth - 1), self.atom()),
        }
    }

    /// A condition on one or two columns.
    pub fn atom(&mut self) -> String {
        if self.is_joined() && self.rng.random_bool(0.25) {
            return self.atom_beside();
        }
        let op = self.comparison();
        let other = self.rng.random_range(0..60);
        match other {
            0..6 => format!("t.device {op} {}", self.constant(Domain::Device)),
            6..9 => self.list("t.device", Domain::Device),
            9 => format!("t.device BETWEEN {} AND {}", self.constant(Domain::Device), self.constant(Domain::Device)),
            10 => format!("t.device % 3 {op} 1"),
            11 => format!("t.device IS DISTINCT FROM {}", self.constant(Domain::Device)),
            12..15 => format!("t.n {op} {}", self.constant(Domain::Count)),
            15 => format!("t.n + t.device {op} 17"),
            16 => format!("t.n {op} t.v"),
            17..20 => format!("t.v {op} {}", self.constant(Domain::Quarter)),
            20 => format!("t.v * 2 {op} t.w"),
            21 => format!("t.v BETWEEN {} AND {}", self.constant(Domain::Quarter), self.constant(Domain::Quarter)),
            22..25 => format!("t.w {op} {}", self.constant(Domain::Wild)),
            25 => format!("t.w + 1 {op} {}", self.constant(Domain::Wild)),
            26..29 => format!("t.host {op} {}", self.constant(Domain::Host)),
            29 => self.list("t.host", Domain::Host),
            30 => format!("t.host LIKE {}", self.constant(Domain::Pattern)),
            31 => format!("t.host NOT LIKE {}", self.constant(Domain::Pattern)),
            32 => format!("length(t.host) {op} 2"),
            33 => format!("t.host || 'x' {op} {}", self.constant(Domain::Host)),
            34..40 => format!("t.time {op} {}", self.constant(Domain::Time)),
            40 => format!("t.time BETWEEN {} AND {}", self.constant(Domain::Time), self.constant(Domain::Time)),
            41 => format!("t.time >= {} AND t.time < {}", self.constant(Domain::Time), self.constant(Domain::Time)),
            42 => format!("time_bucket('2 hours', t.time) {op} {}", self.constant(Domain::Time)),
            43 => format!("t.time + interval '1 hour' {op} {}", self.constant(Domain::Time)),
            44 => format!("date_trunc('hour', t.time) {op} {}", self.constant(Domain::Time)),
            45 => format!("extract(hour FROM t.time) {op} 7"),
            46 => "t.b".to_owned(),
            47 => "NOT t.b".to_owned(),
            48 => format!("t.b {op} true"),
            49..52 => {
                format!("{} IS NULL", one_of(self.rng, &["t.device", "t.host", "t.v", "t.n", "t.b", "t.w", "t.time"]))
            }
            52 => format!("{} IS NOT NULL", one_of(self.rng, &["t.device", "t.host", "t.v", "t.n", "t.b", "t.w"])),
            53 => format!("coalesce(t.v, 3) {op} {}", self.constant(Domain::Quarter)),
            54 => format!("nullif(t.device, 3) {op} {}", self.constant(Domain::Device)),
            55 => one_of(self.rng, &["NULL::bool", "true", "false", "t.device = NULL"]).to_owned(),
            56 => format!("t.device IN (SELECT id FROM d WHERE factor {op} 6)"),
            57 => "EXISTS (SELECT 1 FROM d WHERE d.id = t.device AND d.factor > 0)".to_owned(),
            58 => format!("t.v {op} (SELECT avg(v) FROM t)"),
            _ => format!("t.time {op} (SELECT since FROM d WHERE name = 'twenty')"),
        }
    }

    /// One that has columns of `d` in it.
    fn atom_beside(&mut self) -> String {
        let op = self.comparison();
        match self.rng.random_range(0..6) {
            0 => format!("d.factor {op} {}", self.constant(Domain::Count)),
            1 => format!("d.id {op} t.n"),
            2 => format!("t.time {op} d.since"),
            3 => "d.name IS NULL".to_owned(),
            4 => format!("d.id {op} {}", self.constant(Domain::Device)),
            _ => format!("d.factor + t.n {op} 10"),
        }
    }

    fn list(&mut self, column: &str, domain: Domain) -> String {
        let mut values = (0..self.rng.random_range(1..5)).map(|_| self.constant(domain)).collect::<Vec<_>>();
        if self.rng.random_bool(0.15) {
            values.push("NULL".to_owned());
        }
        format!("{column} {} ({})", one_of(self.rng, &["IN", "IN", "NOT IN"]), values.join(", "))
    }
}

/// Output columns as text.
pub fn named(items: &[String]) -> String {
    format!("{}{FIRST}{}", items[0], items[1..].iter().map(|item| format!(", {item}")).collect::<String>())
}
