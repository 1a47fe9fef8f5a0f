//! Where statements run: a cluster in one process, one on three, or a PostgreSQL; with push-down and without; as a simple
//! query or with parameters. Answers are the text a client sees.

use super::rows::Step;
use super::statement::{Constant, inline, parameters};
use crate::cluster::{Message, RawClient};
use std::net::SocketAddr;

pub type Row = Vec<Option<String>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Simple,
    Extended,
}

/// What the data nodes do of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They send bare rows.
    Bare,
    PushedDown,
    /// Pushed down, and they send each other the rows of every join that can be done so.
    Shuffled,
}

#[derive(Debug, Clone, Copy)]
pub struct Mode {
    pub place: usize,
    pub way: Way,
    pub protocol: Protocol,
}

/// What the server said instead of an answer.
#[derive(Debug)]
pub struct Refusal {
    pub code: String,
    pub text: String,
}

pub struct Place {
    pub name: &'static str,
    pub is_postgres: bool,
    /// One for each way.
    sessions: [RawClient; 3],
}

impl Place {
    pub fn open(name: &'static str, addr: SocketAddr, user: &str, database: &str, is_postgres: bool) -> Place {
        let sessions = [("off", "auto"), ("on", "auto"), ("on", "on")].map(|(push_down, shuffle)| {
            let mut session = RawClient::login(addr, user, database).0;
            let mut settings = vec!["SET TIME ZONE 'UTC'".to_owned()];
            if !is_postgres {
                settings.push(format!("SET enable_partitionwise_aggregate = {push_down}"));
                settings.push(format!("SET seriatim.shuffle = {shuffle}"));
            }
            for setting in settings {
                simple(&mut session, &setting).unwrap_or_else(|refusal| panic!("{setting}: {refusal:?}"));
            }
            session
        });
        Place { name, is_postgres, sessions }
    }

    pub fn make(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Common(text) => self.run(text),
                Step::Timescale(text) if !self.is_postgres => self.run(text),
                Step::Timescale(_) => (),
            }
        }
    }

    pub fn run(&mut self, text: &str) {
        simple(&mut self.sessions[1], text).unwrap_or_else(|refusal| {
            panic!("{}: {}: {refusal:?}", self.name, text.chars().take(200).collect::<String>())
        });
    }

    /// # Errors
    /// When the server refuses the statement.
    pub fn ask(&mut self, mode: Mode, text: &str, constants: &[Constant]) -> Result<Vec<Row>, Refusal> {
        let session = &mut self.sessions[mode.way as usize];
        let text = spelled(text, self.is_postgres);
        match mode.protocol {
            Protocol::Simple => simple(session, &inline(&text, constants)),
            Protocol::Extended => {
                let (text, values) = parameters(&text, constants);
                session.parse("", &text, &[]);
                bound(session, &values)
            }
        }
    }

    /// Prepares once, and runs it with each list of constants.
    ///
    /// # Errors
    /// When the server refuses one.
    pub fn ask_prepared(&mut self, text: &str, all: &[Vec<Constant>]) -> Result<Vec<Vec<Row>>, Refusal> {
        let session = &mut self.sessions[1];
        session.parse("", &parameters(text, &all[0]).0, &[]);
        all.iter().map(|constants| bound(session, &parameters(text, constants).1)).collect()
    }
}

fn simple(session: &mut RawClient, text: &str) -> Result<Vec<Row>, Refusal> {
    session.query(text);
    answer(&session.read_until('Z'))
}

fn bound(session: &mut RawClient, values: &[String]) -> Result<Vec<Row>, Refusal> {
    let values = values.iter().map(|value| Some(value.as_str())).collect::<Vec<_>>();
    session.bind("", "", &values, false);
    session.execute("", 0);
    session.sync();
    answer(&session.read_until('Z'))
}

fn answer(messages: &[Message]) -> Result<Vec<Row>, Refusal> {
    if let Some(error) = messages.iter().find(|message| message.tag == 'E') {
        let field = |code| error.field(code).unwrap_or_default();
        return Err(Refusal { code: field('C'), text: field('M') });
    }
    let text = |value: Vec<u8>| String::from_utf8(value).expect("the client's encoding is UTF-8");
    let rows = messages.iter().filter(|message| message.tag == 'D');
    Ok(rows.map(|row| row.values().into_iter().map(|value| value.map(text).map(plain)).collect()).collect())
}

/// PostgreSQL keeps the zeros at the end of a `numeric`.
fn plain(text: String) -> String {
    let is_decimal = text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    if is_decimal { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// What PostgreSQL has another word for.
fn spelled(text: &str, is_postgres: bool) -> String {
    if !is_postgres {
        return text.to_owned();
    }
    let mut text = text.to_owned();
    for (function, order) in [("first", "ASC"), ("last", "DESC")] {
        while let Some(at) = text.find(&format!("{function}(t.")) {
            let start = at + function.len() + 1;
            let end = start + text[start..].find(", t.time)").expect("both arguments are columns");
            let column = text[start..end].to_owned();
            let by = format!("(array_agg({column} ORDER BY t.time {order}))[1]");
            text.replace_range(at..end + ", t.time)".len(), &by);
        }
    }
    text
}

/// `time_bucket` as TimescaleDB has it, for widths below a month.
pub const TIME_BUCKET: &str = "CREATE FUNCTION time_bucket(width interval, at timestamptz) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$ SELECT date_bin(width, at, '2000-01-03 00:00+00') $$";
