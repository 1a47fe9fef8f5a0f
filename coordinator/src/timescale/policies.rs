//! `add_retention_policy`, `add_compression_policy` and their removal: jobs on one hypertable.

use super::host::Host;
use super::signature::{Bound, Function, may, need, scalar, void};
use super::value::{instant, span};
use crate::catalog::{Action, Age, CatalogChange, Job, Span};
use crate::pg::backend::{Notice, Severity};
use crate::pgcatalog::{Row, Value};
use engine::types::{TimeContext, TimeZone};
use engine::{Hypertable, PgType, TableDef};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

const MINUTE_US: i64 = 60_000_000;

pub(super) const FUNCTIONS: &[Function] = &[
    scalar(
        "add_retention_policy",
        &[
            need("relation", "regclass"),
            may("drop_after", "\"any\"", "NULL::unknown"),
            may("if_not_exists", "boolean", "false"),
            may("schedule_interval", "interval", "NULL::interval"),
            may("initial_start", "timestamp with time zone", "NULL::timestamp with time zone"),
            may("timezone", "text", "NULL::text"),
            may("drop_created_before", "interval", "NULL::interval"),
        ],
        &[("add_retention_policy", PgType::Int4)],
    ),
    scalar(
        "remove_retention_policy",
        &[need("relation", "regclass"), may("if_exists", "boolean", "false")],
        &[("remove_retention_policy", PgType::Void)],
    ),
    scalar(
        "add_compression_policy",
        &[
            need("hypertable", "regclass"),
            may("compress_after", "\"any\"", "NULL::unknown"),
            may("if_not_exists", "boolean", "false"),
            may("schedule_interval", "interval", "NULL::interval"),
            may("initial_start", "timestamp with time zone", "NULL::timestamp with time zone"),
            may("timezone", "text", "NULL::text"),
            may("compress_created_before", "interval", "NULL::interval"),
        ],
        &[("add_compression_policy", PgType::Int4)],
    ),
    scalar(
        "remove_compression_policy",
        &[need("hypertable", "regclass"), may("if_exists", "boolean", "false")],
        &[("remove_compression_policy", PgType::Bool)],
    ),
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Retention,
    Compression,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Retention => "retention",
            Kind::Compression => "compression",
        }
    }

    fn after(self) -> &'static str {
        match self {
            Kind::Retention => "drop_after",
            Kind::Compression => "compress_after",
        }
    }

    fn created_before(self) -> &'static str {
        match self {
            Kind::Retention => "drop_created_before",
            Kind::Compression => "compress_created_before",
        }
    }

    fn action(self, age: Age) -> Action {
        match self {
            Kind::Retention => Action::Retention(age),
            Kind::Compression => Action::Compression(age),
        }
    }

    fn is_of(self, job: &Job) -> bool {
        matches!(
            (self, &job.action),
            (Kind::Retention, Action::Retention(_)) | (Kind::Compression, Action::Compression(_))
        )
    }
}

pub fn add(host: &mut Host<'_>, args: &Bound<'_>, kind: Kind) -> Result<Vec<Row>> {
    let parameter = if kind == Kind::Retention { "relation" } else { "hypertable" };
    let (table, hypertable) = policy_table(host, args.text(parameter))?;
    host.check_owner(&table)?;
    if kind == Kind::Compression && hypertable.compression.is_none() {
        let message = format!("compression not enabled on hypertable \"{}\"", table.name);
        return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message)
            .hint("Enable compression before adding a compression policy."));
    }
    let age = age(args, kind, &table, &hypertable)?;
    if let Some(existing) = existing(host, &table, kind) {
        return already(host, args, &table, kind, existing.action.age() == age);
    }
    let context = TimeContext::of_session(&host.session.settings())?;
    let schedule_interval = match span(args.argument("schedule_interval"))? {
        Some(given) => given,
        None => default_interval(kind, &table, &hypertable),
    };
    check_interval(schedule_interval)?;
    let initial_start_us = instant(args.argument("initial_start"), &context)?;
    let time_zone = time_zone(args)?;
    let job = Job {
        id: host.session.cluster().new_job_id(),
        table: table.id,
        action: kind.action(age),
        schedule_interval,
        max_runtime: Span::of_micros(if kind == Kind::Retention { 5 * MINUTE_US } else { 0 }),
        max_retries: -1,
        retry_period: Span::of_micros(if kind == Kind::Retention { 5 } else { 60 } * MINUTE_US),
        scheduled: true,
        fixed_schedule: initial_start_us.is_some(),
        initial_start_us,
        time_zone,
        next_start_us: initial_start_us,
    };
    let id = job.id;
    host.change(CatalogChange::AddJob(job))?;
    Ok(vec![vec![Value::Int(id.into())]])
}

fn policy_table(host: &mut Host<'_>, name: Option<&str>) -> Result<(Arc<TableDef>, Hypertable)> {
    let table = host.table(name)?;
    match table.hypertable.clone() {
        Some(hypertable) => Ok((table, hypertable)),
        None => {
            let message = format!("\"{}\" is not a hypertable or a continuous aggregate", table.name);
            Err(Error::new(SqlState::HYPERTABLE_NOT_EXIST, message))
        }
    }
}

fn age(args: &Bound<'_>, kind: Kind, table: &TableDef, hypertable: &Hypertable) -> Result<Age> {
    let (after, created_before) = (kind.after(), kind.created_before());
    let (of_rows, made) = (args.argument(after), args.argument(created_before));
    let of_rows = of_rows.filter(|argument| !argument.value.is_null());
    let made = span(made)?;
    match (of_rows, made) {
        (Some(_), Some(_)) | (None, None) => {
            let message = format!("need to specify one of \"{after}\" or \"{created_before}\"");
            Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message))
        }
        (None, Some(span)) => Ok(Age::SinceMade(span)),
        (Some(_), None) if is_integer(table, hypertable) => {
            Err(Error::new(SqlState::UNDEFINED_FUNCTION, "integer_now function not set")
                .detail(format!("\"{after}\" is counted from now, which an integer time column does not tell."))
                .hint(format!("Use \"{created_before}\"; set_integer_now_func is not supported yet.")))
        }
        (Some(argument), None) => match span(Some(argument))? {
            Some(span) => Ok(Age::OfRows(span)),
            None if kind == Kind::Retention => {
                let message = format!("invalid value for parameter {after}");
                Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
                    .hint("Interval duration is required for hypertables with timestamp-based time dimension."))
            }
            None => {
                let message = format!("unsupported {after} argument type, expected type : interval");
                Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message))
            }
        },
    }
}

fn is_integer(table: &TableDef, hypertable: &Hypertable) -> bool {
    let time = table.column_by_id(hypertable.time_column).expect("a hypertable keeps its time column");
    matches!(time.ty, PgType::Int2 | PgType::Int4 | PgType::Int8)
}

/// Chunks become old one interval after the other; half of it is soon enough to compress them.
fn default_interval(kind: Kind, table: &TableDef, hypertable: &Hypertable) -> Span {
    match kind {
        Kind::Retention => Span { days: 1, ..Span::default() },
        Kind::Compression if is_integer(table, hypertable) => Span { days: 1, ..Span::default() },
        Kind::Compression => Span::of_micros(hypertable.slicing.width() / 2),
    }
}

/// # Errors
/// `22023` for an interval that is not positive, `0A000` for months and days together.
pub(super) fn check_interval(interval: Span) -> Result<()> {
    if interval.length_us() <= 0 {
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "schedule interval must be positive"));
    }
    if interval.months != 0 && (interval.days != 0 || interval.micros != 0) {
        return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "month intervals cannot have day or time component"));
    }
    Ok(())
}

/// # Errors
/// `22023` for a zone nobody knows.
pub(super) fn time_zone(args: &Bound<'_>) -> Result<Option<String>> {
    let name = args.text("timezone");
    match name.filter(|name| TimeZone::find(name).is_none()) {
        None => Ok(name.map(str::to_owned)),
        Some(name) => {
            Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized")))
        }
    }
}

fn existing(host: &mut Host<'_>, table: &TableDef, kind: Kind) -> Option<Arc<Job>> {
    let catalog = host.catalog();
    catalog.jobs().find(|job| job.table == table.id && kind.is_of(job)).cloned()
}

fn already(host: &mut Host<'_>, args: &Bound<'_>, table: &TableDef, kind: Kind, same: bool) -> Result<Vec<Row>> {
    let what = format!("{} policy already exists for hypertable", kind.name());
    let name = &table.name;
    if !args.bool("if_not_exists", false) {
        let aggregate = if kind == Kind::Compression { " or continuous aggregate" } else { "" };
        return Err(Error::new(SqlState::DUPLICATE_OBJECT, format!("{what}{aggregate} \"{name}\""))
            .hint("Set option \"if_not_exists\" to true to avoid error."));
    }
    host.notice(match same {
        true => Notice::notice(format!("{what} \"{name}\", skipping")),
        false => Notice { severity: Severity::Warning, ..Notice::notice(format!("{what} \"{name}\"")) }
            .detail("A policy already exists with different arguments.")
            .hint("Remove the existing policy before adding a new one."),
    });
    Ok(vec![vec![Value::Int(-1)]])
}

pub fn remove_retention(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    remove(host, args, "relation", Kind::Retention)?;
    Ok(vec![void()])
}

pub fn remove_compression(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    Ok(vec![vec![Value::Bool(remove(host, args, "hypertable", Kind::Compression)?)]])
}

/// Whether there was one.
fn remove(host: &mut Host<'_>, args: &Bound<'_>, parameter: &str, kind: Kind) -> Result<bool> {
    let (table, _) = policy_table(host, args.text(parameter))?;
    host.check_owner(&table)?;
    if let Some(job) = existing(host, &table, kind) {
        host.change(CatalogChange::DropJob(job.id))?;
        return Ok(true);
    }
    let message = format!("{} policy not found for hypertable \"{}\"", kind.name(), table.name);
    if !args.bool("if_exists", false) {
        return Err(Error::new(SqlState::UNDEFINED_OBJECT, message));
    }
    host.notice(Notice::notice(format!("{message}, skipping")));
    Ok(false)
}
