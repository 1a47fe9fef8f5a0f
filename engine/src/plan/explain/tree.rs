//! A plan as EXPLAIN shows it, whatever the format.

use super::estimate::Estimate;
use std::fmt;
use std::time::Duration;

/// A plan and what it took as a whole.
#[derive(Debug, Clone)]
pub struct Explained {
    pub root: PlanNode,
    pub planning: Duration,
    /// `None` when it did not run.
    pub execution: Option<Duration>,
}

/// An operator with those below it.
#[derive(Debug, Clone)]
pub struct PlanNode {
    pub(super) title: Title,
    pub(super) estimate: Estimate,
    pub(super) actual: Option<Actual>,
    /// In the order they are shown. A name may come again.
    pub(super) properties: Vec<(&'static str, Value)>,
    pub(super) children: Vec<PlanNode>,
}

/// What an operator is called: `name (detail) on relation`.
#[derive(Debug, Clone)]
pub struct Title {
    pub(super) name: String,
    /// What the detail tells, for formats in which everything has a name.
    pub(super) detail: Option<(&'static str, String)>,
    pub(super) relation: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Actual {
    /// `None`: nobody measured it, or nobody wants to know.
    pub time: Option<Duration>,
    pub rows: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    List(Vec<String>),
    /// A list of which text shows the beginning only.
    Names(Vec<String>),
    Count(u64),
    /// So many of so many.
    Of(u64, u64),
    Bytes(u64),
    Time(Duration),
    Parts(Vec<(&'static str, Value)>),
}

impl Title {
    pub fn new(name: impl Into<String>) -> Title {
        Title { name: name.into(), detail: None, relation: None }
    }

    pub fn on(self, relation: impl Into<String>) -> Title {
        Title { relation: Some(relation.into()), ..self }
    }

    pub(super) fn with(self, what: &'static str, detail: impl Into<String>) -> Title {
        Title { detail: Some((what, detail.into())), ..self }
    }

    /// An operator that PostgreSQL leaves to an extension.
    pub(super) fn custom(provider: &str) -> Title {
        Title::new("Custom Scan").with("Custom Plan Provider", provider)
    }
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some((_, detail)) = &self.detail {
            write!(f, " ({detail})")?;
        }
        self.relation.as_ref().map_or(Ok(()), |relation| write!(f, " on {relation}"))
    }
}

impl PlanNode {
    /// An operator nothing is known of yet.
    pub fn new(title: Title) -> PlanNode {
        let estimate = Estimate::default();
        PlanNode { title, estimate, actual: None, properties: Vec::new(), children: Vec::new() }
    }

    pub fn tell(&mut self, name: &'static str, value: Value) {
        self.properties.push((name, value));
    }

    pub fn tell_text(&mut self, name: &'static str, text: impl Into<String>) {
        self.tell(name, Value::Text(text.into()));
    }

    /// It has run, and gave so many rows.
    pub fn ran(&mut self, rows: u64, time: Option<Duration>) {
        self.actual = Some(Actual { time, rows });
    }

    pub fn over(mut self, child: PlanNode) -> PlanNode {
        self.children.push(child);
        self
    }
}

impl Value {
    /// Those that are not zero.
    pub(super) fn counts(counts: &[(&'static str, u64)]) -> Option<Value> {
        let shown = counts.iter().filter(|(_, count)| *count > 0);
        let shown = shown.map(|(name, count)| (*name, Value::Count(*count))).collect::<Vec<_>>();
        (!shown.is_empty()).then_some(Value::Parts(shown))
    }
}
