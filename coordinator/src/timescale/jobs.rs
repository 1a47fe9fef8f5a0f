//! `alter_job`, `delete_job`, `run_job`.

use super::compress::seal;
use super::host::Host;
use super::policies::{check_interval, time_zone};
use super::signature::{Bound, Function, may, need, rows, scalar, void};
use super::value::{instant, interval, span};
use crate::catalog::{Action, Age, CatalogChange, Job};
use crate::jobs::due_chunks;
use crate::pg::backend::Notice;
use crate::pgcatalog::{Row, Value};
use engine::types::TimeContext;
use engine::{PgType, TableDef};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

pub(super) const FUNCTIONS: &[Function] = &[
    rows(
        "alter_job",
        &[
            need("job_id", "integer"),
            may("schedule_interval", "interval", "NULL::interval"),
            may("max_runtime", "interval", "NULL::interval"),
            may("max_retries", "integer", "NULL::integer"),
            may("retry_period", "interval", "NULL::interval"),
            may("scheduled", "boolean", "NULL::boolean"),
            may("config", "jsonb", "NULL::jsonb"),
            may("next_start", "timestamp with time zone", "NULL::timestamp with time zone"),
            may("if_exists", "boolean", "false"),
            may("check_config", "regproc", "NULL::regproc"),
            may("fixed_schedule", "boolean", "NULL::boolean"),
            may("initial_start", "timestamp with time zone", "NULL::timestamp with time zone"),
            may("timezone", "text", "NULL::text"),
        ],
        &[
            ("job_id", PgType::Int4),
            ("schedule_interval", PgType::Interval),
            ("max_runtime", PgType::Interval),
            ("max_retries", PgType::Int4),
            ("retry_period", PgType::Interval),
            ("scheduled", PgType::Bool),
            ("config", PgType::Jsonb),
            ("next_start", PgType::Timestamptz),
            ("check_config", PgType::Text),
            ("fixed_schedule", PgType::Bool),
            ("initial_start", PgType::Timestamptz),
            ("timezone", PgType::Text),
        ],
    ),
    scalar("delete_job", &[need("job_id", "integer")], &[("delete_job", PgType::Void)]),
    scalar("run_job", &[need("job_id", "integer")], &[("run_job", PgType::Void)]),
];

/// `None` when there is no such job in this database.
fn find(host: &mut Host<'_>, id: i64) -> Option<(Arc<Job>, Arc<TableDef>)> {
    let catalog = host.catalog();
    let job = catalog.job(u32::try_from(id).ok()?)?.clone();
    let table = catalog.table_by_id(job.table)?.clone();
    (table.database == host.session.database()).then_some((job, table))
}

fn not_found(id: i64) -> Error {
    Error::new(SqlState::UNDEFINED_OBJECT, format!("job {id} not found"))
}

/// The job, which the session's role may do this to.
fn owned(host: &mut Host<'_>, id: i64, verb: &str) -> Result<(Arc<Job>, Arc<TableDef>)> {
    let (job, table) = find(host, id).ok_or_else(|| not_found(id))?;
    host.session.check_writable("this function")?;
    if host.check_owner(&table).is_err() {
        let user = host.session.current_user();
        let detail =
            format!("Job {id} is owned by role \"{}\" but user \"{user}\" does not belong to that role.", table.owner);
        let message = format!("insufficient permissions to {verb} job {id}");
        return Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, message).detail(detail));
    }
    Ok((job, table))
}

pub fn delete(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    if let Some(id) = args.int("job_id")? {
        let (job, _) = owned(host, id, "delete")?;
        host.change(CatalogChange::DropJob(job.id))?;
    }
    Ok(vec![void()])
}

/// Inside the caller's transaction, and without a trace in the job's statistics; as in TimescaleDB.
pub fn run(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (job, _) = owned(host, job_id(args)?, "run")?;
    let now_us = host.session.settings().now_us;
    let (table, _, chunks) = due_chunks(&host.catalog(), &job, now_us)?;
    for chunk in chunks {
        match job.action {
            Action::Retention(_) => host.change(CatalogChange::DropChunk { table: table.id, chunk: chunk.id })?,
            Action::Compression(_) => seal(host, &table, &chunk)?,
        }
    }
    Ok(vec![void()])
}

fn job_id(args: &Bound<'_>) -> Result<i64> {
    let missing = || Error::new(SqlState::INVALID_PARAMETER_VALUE, "job ID cannot be NULL");
    args.int("job_id")?.ok_or_else(missing)
}

pub fn alter(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let if_exists = args.bool("if_exists", false);
    let id = if if_exists { args.int("job_id")?.unwrap_or_default() } else { job_id(args)? };
    if if_exists && find(host, id).is_none() {
        host.notice(Notice::notice(format!("job {id} not found, skipping")));
        return Ok(Vec::new());
    }
    let (job, table) = owned(host, id, "alter")?;
    let hypertable = table.hypertable.as_ref().map_or(0, |hypertable| hypertable.id);
    let job = altered(host, args, &job, hypertable)?;
    host.change(CatalogChange::AlterJob(job.clone()))?;
    let history = host.session.histories().of(job.id).unwrap_or_default();
    let at = |us: Option<i64>| us.map_or(Value::Null, Value::Timestamp);
    Ok(vec![vec![
        Value::Int(job.id.into()),
        interval(job.schedule_interval),
        interval(job.max_runtime),
        Value::Int(job.max_retries.into()),
        interval(job.retry_period),
        Value::Bool(job.scheduled),
        Value::text(job.config(hypertable)),
        at(history.next_start_us(&job)),
        Value::text(format!("_timescaledb_functions.{}_check", job.procedure())),
        Value::Bool(job.fixed_schedule),
        at(job.initial_start_us),
        Value::opt_text(job.time_zone),
    ]])
}

/// The job with what the arguments say; what they leave out stays.
fn altered(host: &mut Host<'_>, args: &Bound<'_>, job: &Job, hypertable: u32) -> Result<Job> {
    let context = TimeContext::of_session(&host.session.settings())?;
    let mut job = job.clone();
    if !args.value("check_config").is_null() {
        return Err(Error::unsupported("a check function of one's own"));
    }
    if let Some(interval) = span(args.argument("schedule_interval"))? {
        check_interval(interval)?;
        job.schedule_interval = interval;
    }
    job.max_runtime = span(args.argument("max_runtime"))?.unwrap_or(job.max_runtime);
    if let Some(retries) = args.int("max_retries")? {
        let invalid = |_| Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range");
        job.max_retries = i32::try_from(retries).map_err(invalid)?;
    }
    job.retry_period = span(args.argument("retry_period"))?.unwrap_or(job.retry_period);
    job.scheduled = args.bool("scheduled", job.scheduled);
    if let Some(config) = args.text("config") {
        job.action = configured(&job, config, hypertable)?;
    }
    job.initial_start_us = instant(args.argument("initial_start"), &context)?.or(job.initial_start_us);
    job.fixed_schedule = args.bool("fixed_schedule", job.fixed_schedule);
    job.time_zone = time_zone(args)?.or(job.time_zone);
    job.next_start_us = instant(args.argument("next_start"), &context)?.or(job.next_start_us);
    Ok(job)
}

/// The action with the age that a configuration names. The hypertable stays.
fn configured(job: &Job, config: &str, hypertable: u32) -> Result<Action> {
    let invalid = |message: String| Error::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let config: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(config).map_err(|_| invalid("config must be a JSON object".to_owned()))?;
    let (after, created_before) = match job.action {
        Action::Retention(_) => ("drop_after", "drop_created_before"),
        Action::Compression(_) => ("compress_after", "compress_created_before"),
    };
    let mut age = None;
    for (key, value) in &config {
        let span = || match value.as_str() {
            Some(text) => {
                let (months, days, micros) = engine::types::parse_interval(text)?;
                Ok(crate::catalog::Span { months, days, micros })
            }
            None => Err(invalid(format!("invalid value for \"{key}\" in config for job"))),
        };
        match key.as_str() {
            "hypertable_id" if value.as_u64() == Some(hypertable.into()) => {}
            "hypertable_id" => return Err(Error::unsupported("moving a job to another hypertable")),
            key if key == after => age = Some(Age::OfRows(span()?)),
            key if key == created_before => age = Some(Age::SinceMade(span()?)),
            other => return Err(Error::unsupported(format!("\"{other}\" in the config of a job"))),
        }
    }
    let age = age.ok_or_else(|| invalid(format!("could not find \"{after}\" in config for job")))?;
    Ok(match job.action {
        Action::Retention(_) => Action::Retention(age),
        Action::Compression(_) => Action::Compression(age),
    })
}
