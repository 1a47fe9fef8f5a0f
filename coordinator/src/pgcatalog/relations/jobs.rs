//! TimescaleDB's views of jobs, in their 2.13 shape.

use crate::catalog::Job;
use crate::jobs::History;
use crate::pgcatalog::schema::Filler;
use crate::pgcatalog::system::SystemCatalog;
use crate::pgcatalog::value::{Interval, Row, Value};
use engine::TableDef;
use std::sync::Arc;

const FUNCTIONS: &str = "_timescaledb_functions";

type Entry = (Arc<Job>, Option<History>, Arc<TableDef>);

fn entries(catalog: &dyn SystemCatalog) -> Vec<Entry> {
    let tables = catalog.tables();
    let table_of = |job: &Job| tables.iter().find(|table| table.id == job.table).cloned();
    let jobs = catalog.jobs().into_iter();
    jobs.filter_map(|(job, history)| table_of(&job).map(|table| (job, history, table))).collect()
}

fn interval(months: i32, days: i32, micros: i64) -> Value {
    Value::Interval(Arc::new(Interval { months, days, micros }))
}

fn at(us: Option<i64>) -> Value {
    us.map_or(Value::Null, Value::Timestamp)
}

/// `None`: it starts as soon as it is seen.
fn next_start(job: &Job, history: &Option<History>) -> Option<i64> {
    history.as_ref().map_or(job.next_start_us, |history| history.next_start_us(job))
}

pub(super) fn jobs(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let rows = entries(catalog).into_iter().map(|(job, history, table)| {
        let hypertable = table.hypertable.as_ref().map_or(0, |hypertable| hypertable.id);
        let span = |span: crate::catalog::Span| interval(span.months, span.days, span.micros);
        fill.row([
            ("job_id", Value::Int(job.id.into())),
            ("application_name", Value::text(job.application_name())),
            ("schedule_interval", span(job.schedule_interval)),
            ("max_runtime", span(job.max_runtime)),
            ("max_retries", Value::Int(job.max_retries.into())),
            ("retry_period", span(job.retry_period)),
            ("proc_schema", Value::text(FUNCTIONS)),
            ("proc_name", Value::text(job.procedure())),
            ("owner", Value::text(&table.owner)),
            ("scheduled", Value::Bool(job.scheduled)),
            ("fixed_schedule", Value::Bool(job.fixed_schedule)),
            ("config", Value::text(job.config(hypertable))),
            ("next_start", at(next_start(&job, &history))),
            ("initial_start", at(job.initial_start_us)),
            ("hypertable_schema", Value::text(&table.schema)),
            ("hypertable_name", Value::text(&table.name)),
            ("check_schema", Value::text(FUNCTIONS)),
            ("check_name", Value::text(format!("{}_check", job.procedure()))),
        ])
    });
    rows.collect()
}

/// Jobs that ran or know when they will.
pub(super) fn job_stats(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let known = |(job, history, _): &Entry| history.is_some() || job.next_start_us.is_some();
    let rows = entries(catalog).into_iter().filter(known).map(|(job, history, table)| {
        let next_start = next_start(&job, &history);
        let history = history.unwrap_or_default();
        let status = match (history.running(), job.scheduled) {
            (true, _) => "Running",
            (false, true) => "Scheduled",
            (false, false) => "Paused",
        };
        let ended = &history.ended;
        let outcome = ended.last_succeeded.map(|succeeded| if succeeded { "Success" } else { "Failed" });
        let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
        let idle = job.scheduled && !history.running();
        // TimescaleDB's "never".
        let moment = |us: Option<i64>| Value::Timestamp(us.unwrap_or(i64::MIN));
        fill.row([
            ("hypertable_schema", Value::text(&table.schema)),
            ("hypertable_name", Value::text(&table.name)),
            ("job_id", Value::Int(job.id.into())),
            ("last_run_started_at", moment(history.last_start_us())),
            ("last_successful_finish", moment(ended.last_success_us)),
            ("last_run_status", Value::opt_text(outcome)),
            ("job_status", Value::text(status)),
            ("last_run_duration", ended.last_duration_us.map_or(Value::Null, |us| interval(0, 0, us))),
            ("next_start", if idle { at(next_start) } else { Value::Null }),
            ("total_runs", count(history.runs_count())),
            ("total_successes", count(ended.successes_count)),
            ("total_failures", count(ended.failures_count)),
        ])
    });
    rows.collect()
}
