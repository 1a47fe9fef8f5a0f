//! A statement whose constants have names: `{0}`, `{1}`, …, so that one text can be sent with its constants in it, with
//! parameters, and again with other constants.

use rand::Rng;
use rand::rngs::StdRng;

/// What a constant is compared with, which says what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    Device,
    Count,
    Quarter,
    /// A float with NaN and the infinities.
    Wild,
    Host,
    Pattern,
    Time,
}

pub const HOSTS: [&str; 9] = ["h0", "h1", "h2", "h3", "", "a%b", "a_b", "Übung", "upd"];
const PATTERNS: [&str; 7] = ["h%", "%1", "a_b", "a\\_b", "%", "_%", "upd"];

impl Domain {
    pub fn draw(self, rng: &mut StdRng) -> String {
        match self {
            Domain::Device => rng.random_range(-1..12).to_string(),
            Domain::Count => match rng.random_range(0..8) {
                0 => (1_i64 << 40).to_string(),
                1 => "0".to_owned(),
                _ => rng.random_range(-1000..1000).to_string(),
            },
            Domain::Quarter => quarters(rng.random_range(-80..80)),
            Domain::Wild => match rng.random_range(0..6) {
                0 => "NaN".to_owned(),
                1 => "Infinity".to_owned(),
                2 => "-Infinity".to_owned(),
                _ => quarters(rng.random_range(-20..20)),
            },
            Domain::Host => one_of(rng, &HOSTS).to_owned(),
            Domain::Pattern => one_of(rng, &PATTERNS).to_owned(),
            Domain::Time => {
                // Often the edge of a chunk, and a little outside of all of them.
                let minute =
                    if rng.random_bool(0.3) { rng.random_range(0..=4) * 360 } else { rng.random_range(-60..1500) };
                moment(minute * 60_000_000)
            }
        }
    }

    fn literal(self, text: &str) -> String {
        match self {
            Domain::Device | Domain::Count | Domain::Quarter => text.to_owned(),
            Domain::Wild => format!("'{text}'::float8"),
            Domain::Host | Domain::Pattern | Domain::Time => format!("'{}'", text.replace('\'', "''")),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Constant {
    domain: Domain,
    text: String,
}

impl Constant {
    pub fn draw(domain: Domain, rng: &mut StdRng) -> Constant {
        Constant { domain, text: domain.draw(rng) }
    }

    /// Another one for the same place.
    pub fn again(&self, rng: &mut StdRng) -> Constant {
        Constant::draw(self.domain, rng)
    }
}

/// The text with its constants written out.
pub fn inline(text: &str, constants: &[Constant]) -> String {
    replaced(text, |index| constants[index].domain.literal(&constants[index].text))
}

/// The text with `$1`, `$2`, … and their values.
pub fn parameters(text: &str, constants: &[Constant]) -> (String, Vec<String>) {
    let mut used = Vec::new();
    let text = replaced(text, |index| {
        let place = used.iter().position(|known| *known == index).unwrap_or_else(|| {
            used.push(index);
            used.len() - 1
        });
        format!("${}", place + 1)
    });
    (text, used.into_iter().map(|index| constants[index].text.clone()).collect())
}

fn replaced(text: &str, mut with: impl FnMut(usize) -> String) -> String {
    let mut pieces = text.split('{');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (index, rest) = piece.split_once('}').expect("braces stand around constants only");
        out += &with(index.parse().expect("constants are numbered"));
        out += rest;
    }
    out
}

pub fn one_of<'a, T: ?Sized>(rng: &mut StdRng, all: &[&'a T]) -> &'a T {
    all[rng.random_range(0..all.len())]
}

/// A float that sums without error.
pub fn quarters(count: i64) -> String {
    format!("{}", count as f64 / 4.0)
}

/// So long after the first of January 2024, UTC.
pub fn moment(micros: i64) -> String {
    let micros = micros + 86_400_000_000;
    let (day, seconds) = (micros / 86_400_000_000, micros / 1_000_000 % 86_400);
    let date = ["2023-12-31", "2024-01-01", "2024-01-02"][usize::try_from(day).expect("a day at most before")];
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{date} {hour:02}:{minute:02}:{second:02}.{:06}+00", micros % 1_000_000)
}
