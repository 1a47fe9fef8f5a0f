//! Jobs: what is done to hypertables again and again, and when; and what became of their runs, as `jobs` records it now and
//! then.

use engine::types::{TimeZone, format_interval};
use proto::TableId;
use serde::{Deserialize, Serialize};

/// TimescaleDB keeps the numbers below for its own jobs.
pub const FIRST_USER_JOB: u32 = 1000;

/// It runs as the owner of its table and goes with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: u32,
    pub table: TableId,
    pub action: Action,
    pub schedule_interval: Span,
    /// Zero: without limit.
    pub max_runtime: Span,
    /// Negative: without limit.
    pub max_retries: i32,
    pub retry_period: Span,
    /// Not paused.
    pub scheduled: bool,
    /// Starts at `initial_start_us` and whole intervals later; else an interval after the last run ended.
    pub fixed_schedule: bool,
    pub initial_start_us: Option<i64>,
    /// Whose clock the days and months of a fixed schedule follow; UTC when none.
    pub time_zone: Option<String>,
    /// As set by hand, for one run; `None` and nothing known of earlier runs: at once.
    pub next_start_us: Option<i64>,
}

impl Job {
    /// As TimescaleDB writes it, in the order of jsonb: shorter keys first.
    pub fn config(&self, hypertable: u32) -> String {
        let span = self.action.age().span();
        let age = format!("\"{}\": \"{}\"", self.age_key(), format_interval(span.months, span.days, span.micros));
        let hypertable = format!("\"hypertable_id\": {hypertable}");
        match self.age_key() {
            "drop_after" => format!("{{{age}, {hypertable}}}"),
            _ => format!("{{{hypertable}, {age}}}"),
        }
    }

    fn age_key(&self) -> &'static str {
        match self.action {
            Action::Retention(Age::OfRows(_)) => "drop_after",
            Action::Retention(Age::SinceMade(_)) => "drop_created_before",
            Action::Compression(Age::OfRows(_)) => "compress_after",
            Action::Compression(Age::SinceMade(_)) => "compress_created_before",
        }
    }

    pub fn application_name(&self) -> String {
        match self.action {
            Action::Retention(_) => format!("Retention Policy [{}]", self.id),
            Action::Compression(_) => format!("Compression Policy [{}]", self.id),
        }
    }

    pub fn procedure(&self) -> &'static str {
        match self.action {
            Action::Retention(_) => "policy_retention",
            Action::Compression(_) => "policy_compression",
        }
    }
}

/// What became of a job's runs that ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobRuns {
    pub last_start_us: Option<i64>,
    pub last_success_us: Option<i64>,
    /// Whether the last run was one.
    pub last_succeeded: Option<bool>,
    pub last_duration_us: Option<i64>,
    pub successes_count: u64,
    pub failures_count: u64,
    pub failures_in_a_row: u32,
    /// After the last run.
    pub next_start_us: Option<i64>,
    /// The job's own next start that it follows; when the job has another one by now, that counts.
    pub follows_us: Option<i64>,
}

impl JobRuns {
    pub fn count(&self) -> u64 {
        self.successes_count + self.failures_count
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Drops the chunks that are older.
    Retention(Age),
    /// Seals the chunks that are older and marks them as compressed.
    Compression(Age),
}

impl Action {
    pub fn age(&self) -> Age {
        match self {
            Action::Retention(age) | Action::Compression(age) => *age,
        }
    }

    pub fn same_kind(&self, other: &Action) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// When a chunk is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Age {
    /// Its rows are.
    OfRows(Span),
    /// It was made that long ago, whatever its rows say.
    SinceMade(Span),
}

impl Age {
    pub fn span(&self) -> Span {
        match self {
            Age::OfRows(span) | Age::SinceMade(span) => *span,
        }
    }
}

/// An interval as PostgreSQL keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

impl Span {
    pub const fn of_micros(micros: i64) -> Span {
        Span { months: 0, days: 0, micros }
    }

    /// Length with months of 30 days, as PostgreSQL compares intervals.
    pub fn length_us(&self) -> i64 {
        const DAY_US: i64 = 86_400_000_000;
        let days = i64::from(self.months) * 30 + i64::from(self.days);
        days.saturating_mul(DAY_US).saturating_add(self.micros)
    }

    /// Saturates.
    pub fn after(&self, us: i64, zone: &TimeZone) -> i64 {
        zone.shift(us, self.months, self.days, self.micros).unwrap_or(i64::MAX)
    }

    /// Saturates.
    pub fn before(&self, us: i64, zone: &TimeZone) -> i64 {
        let (months, days) = (self.months.saturating_neg(), self.days.saturating_neg());
        zone.shift(us, months, days, self.micros.saturating_neg()).unwrap_or(i64::MIN)
    }
}
