//! What became of a job's runs, and when the next one is due. No clock: whoever asks says what time it is.

use crate::catalog::{CatalogState, Job, JobRuns, Span};
use engine::types::TimeZone;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// A failing job waits at most so many schedule intervals.
const BACKOFF_INTERVALS_MAX: i64 = 5;
const BACKOFF_DOUBLINGS_MAX: u32 = 20;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// `None`: it does not run.
    running_since_us: Option<i64>,
    pub ended: JobRuns,
}

impl History {
    pub fn running(&self) -> bool {
        self.running_since_us.is_some()
    }

    pub fn last_start_us(&self) -> Option<i64> {
        self.running_since_us.or(self.ended.last_start_us)
    }

    pub fn runs_count(&self) -> u64 {
        self.ended.count() + u64::from(self.running())
    }

    /// `None`: at once.
    pub fn next_start_us(&self, job: &Job) -> Option<i64> {
        if self.ended.follows_us == job.next_start_us { self.ended.next_start_us } else { job.next_start_us }
    }

    fn start(&mut self, now_us: i64) {
        self.running_since_us = Some(now_us);
    }

    /// Whether it has failed too often to be tried again.
    fn finish(&mut self, job: &Job, now_us: i64, succeeded: bool) -> bool {
        let started_us = self.running_since_us.take();
        let ended = &mut self.ended;
        ended.follows_us = job.next_start_us;
        ended.last_start_us = started_us;
        ended.last_succeeded = Some(succeeded);
        ended.last_duration_us = started_us.map(|start| now_us.saturating_sub(start).max(0));
        if succeeded {
            ended.successes_count += 1;
            ended.failures_in_a_row = 0;
            ended.last_success_us = Some(now_us);
            ended.next_start_us = Some(regular_start(job, now_us));
        } else {
            ended.failures_count += 1;
            ended.failures_in_a_row += 1;
            ended.next_start_us = Some(now_us.saturating_add(backoff_us(job, ended.failures_in_a_row)));
        }
        let given_up = u32::try_from(job.max_retries).is_ok_and(|retries| ended.failures_in_a_row > retries);
        if given_up {
            ended.failures_in_a_row = 0;
        }
        given_up
    }
}

/// The retry period, doubled with each failure after the first.
fn backoff_us(job: &Job, failures_in_a_row: u32) -> i64 {
    let doublings = failures_in_a_row.saturating_sub(1).min(BACKOFF_DOUBLINGS_MAX);
    let wait = job.retry_period.length_us().saturating_mul(1 << doublings);
    wait.min(job.schedule_interval.length_us().saturating_mul(BACKOFF_INTERVALS_MAX))
}

/// The start after a run that ended well.
fn regular_start(job: &Job, now_us: i64) -> i64 {
    let zone = job.time_zone.as_deref().and_then(TimeZone::find).unwrap_or(TimeZone::UTC);
    match job.initial_start_us {
        Some(first) if job.fixed_schedule => slot_after(first, job.schedule_interval, now_us, &zone),
        _ => job.schedule_interval.after(now_us, &zone),
    }
}

/// The first of `first`, `first` + interval, `first` + 2 intervals … that is later than `now_us`.
fn slot_after(first: i64, interval: Span, now_us: i64, zone: &TimeZone) -> i64 {
    let slot = |count: i64| {
        let months = i32::try_from(i64::from(interval.months) * count).ok()?;
        let days = i32::try_from(i64::from(interval.days) * count).ok()?;
        zone.shift(first, months, days, interval.micros.checked_mul(count)?)
    };
    let length_us = interval.length_us().max(1);
    // Months have no fixed length and days an hour more or less: begin early and step.
    let estimate = now_us.saturating_sub(first).max(0) / length_us;
    let early = (estimate - estimate / 25 - 2).max(0);
    let from = if interval.months == 0 && interval.days == 0 { estimate } else { early };
    (from..).map(slot).find(|at| at.is_none_or(|at| at > now_us)).flatten().unwrap_or(i64::MAX)
}

/// Of all jobs that ran: in this process, or in an earlier one as far as that was recorded.
#[derive(Default)]
pub struct Histories(Mutex<BTreeMap<u32, Entry>>);

#[derive(Default)]
struct Entry {
    history: History,
    /// What the catalog has of it.
    recorded: JobRuns,
    /// When this process last tried to record it.
    tried_us: Option<i64>,
}

impl Histories {
    pub fn recorded_in(catalog: &CatalogState) -> Histories {
        let entry = |runs: &JobRuns| {
            let history = History { running_since_us: None, ended: runs.clone() };
            Entry { history, recorded: runs.clone(), tried_us: None }
        };
        Histories(Mutex::new(catalog.job_runs().iter().map(|(job, runs)| (*job, entry(runs))).collect()))
    }

    pub fn of(&self, job: u32) -> Option<History> {
        self.0.lock().get(&job).map(|entry| entry.history.clone())
    }

    /// When it is to start; `None` for one that is paused or running.
    pub fn due_us(&self, job: &Job) -> Option<i64> {
        let entries = self.0.lock();
        let history = entries.get(&job.id).map(|entry| &entry.history);
        let idle = job.scheduled && history.is_none_or(|history| !history.running());
        let next = history.map_or(job.next_start_us, |history| history.next_start_us(job));
        idle.then(|| next.unwrap_or(i64::MIN))
    }

    pub(super) fn start(&self, job: &Job, now_us: i64) {
        self.0.lock().entry(job.id).or_default().history.start(now_us);
    }

    /// Whether the job has failed too often to be tried again.
    pub(super) fn finish(&self, job: &Job, now_us: i64, succeeded: bool) -> bool {
        self.0.lock().entry(job.id).or_default().history.finish(job, now_us, succeeded)
    }

    /// What the catalog does not have yet, of jobs that nobody tried to record in the last `apart_us`. The caller tries
    /// now, and says by `recorded` that it worked.
    pub(super) fn unrecorded(&self, now_us: i64, apart_us: i64) -> Vec<(u32, JobRuns)> {
        let mut entries = self.0.lock();
        // A clock that was set back does not count.
        let waited = |tried_us: i64| now_us < tried_us || now_us - tried_us >= apart_us;
        let due = entries
            .iter_mut()
            .filter(|(_, entry)| entry.history.ended != entry.recorded && entry.tried_us.is_none_or(waited));
        let tried = due.map(|(job, entry)| {
            entry.tried_us = Some(now_us);
            (*job, entry.history.ended.clone())
        });
        tried.collect()
    }

    pub(super) fn recorded(&self, records: Vec<(u32, JobRuns)>) {
        let mut entries = self.0.lock();
        for (job, runs) in records {
            if let Some(entry) = entries.get_mut(&job) {
                entry.recorded = runs;
            }
        }
    }

    /// Forgets jobs that are gone.
    pub(super) fn retain(&self, exists: impl Fn(u32) -> bool) {
        self.0.lock().retain(|job, _| exists(*job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Action, Age};
    use proto::TableId;

    const MINUTE_US: i64 = 60_000_000;
    const HOUR_US: i64 = 60 * MINUTE_US;
    const DAY_US: i64 = 24 * HOUR_US;
    /// 2024-01-31 00:00 UTC.
    const START_US: i64 = 1_706_659_200_000_000;

    fn job(schedule_interval: Span, retry_us: i64) -> Job {
        Job {
            id: 1000,
            table: TableId(20_000),
            action: Action::Retention(Age::OfRows(Span { days: 30, ..Span::default() })),
            schedule_interval,
            max_runtime: Span::default(),
            max_retries: -1,
            retry_period: Span::of_micros(retry_us),
            scheduled: true,
            fixed_schedule: false,
            initial_start_us: None,
            time_zone: None,
            next_start_us: None,
        }
    }

    fn waits(job: &Job, outcomes: &[bool]) -> Vec<i64> {
        let (mut history, mut now_us) = (History::default(), START_US);
        let wait = |succeeded: &bool| {
            history.start(now_us);
            history.finish(job, now_us, *succeeded);
            let next = history.next_start_us(job).unwrap();
            let wait = next - now_us;
            now_us = next;
            wait
        };
        outcomes.iter().map(wait).collect()
    }

    #[test]
    fn a_failing_job_waits_longer_each_time_and_recovers() {
        let job = job(Span::of_micros(HOUR_US), 10 * MINUTE_US);
        let minutes = waits(&job, &[true, false, false, false, false, false, false, false, true, false]);
        let minutes = minutes.into_iter().map(|us| us / MINUTE_US).collect::<Vec<_>>();
        assert_eq!(minutes, [60, 10, 20, 40, 80, 160, 300, 300, 60, 10]);
    }

    #[test]
    fn a_job_without_fixed_schedule_drifts_and_one_with_it_does_not() {
        let mut job = job(Span { days: 1, ..Span::default() }, MINUTE_US);
        assert_eq!(regular_start(&job, START_US + HOUR_US), START_US + DAY_US + HOUR_US);
        (job.fixed_schedule, job.initial_start_us) = (true, Some(START_US));
        assert_eq!(regular_start(&job, START_US + HOUR_US), START_US + DAY_US);
        assert_eq!(regular_start(&job, START_US + DAY_US), START_US + 2 * DAY_US);
        assert_eq!(regular_start(&job, START_US - DAY_US), START_US);
        assert_eq!(regular_start(&job, START_US + 1000 * DAY_US + 1), START_US + 1001 * DAY_US);
    }

    /// 2024-02-29, 2024-03-31 and so on: counted from the first start, not from the slot before.
    #[test]
    fn monthly_slots_follow_the_calendar() {
        let mut job = job(Span { months: 1, ..Span::default() }, MINUTE_US);
        (job.fixed_schedule, job.initial_start_us) = (true, Some(START_US));
        assert_eq!(regular_start(&job, START_US), START_US + 29 * DAY_US);
        assert_eq!(regular_start(&job, START_US + 29 * DAY_US), START_US + 60 * DAY_US);
        assert_eq!(regular_start(&job, START_US + 366 * DAY_US), START_US + (366 + 28) * DAY_US);
    }

    /// Clocks go forward on 2024-03-31 at 01:00 UTC in Berlin.
    #[test]
    fn daily_slots_follow_the_clock_of_their_zone() {
        let mut job = job(Span { days: 1, ..Span::default() }, MINUTE_US);
        (job.fixed_schedule, job.initial_start_us) = (true, Some(START_US));
        job.time_zone = Some("Europe/Berlin".to_owned());
        assert_eq!(regular_start(&job, START_US + 59 * DAY_US), START_US + 60 * DAY_US);
        assert_eq!(regular_start(&job, START_US + 60 * DAY_US), START_US + 61 * DAY_US - HOUR_US);
    }

    #[test]
    fn a_start_set_by_hand_wins_once() {
        let job = job(Span::of_micros(HOUR_US), MINUTE_US);
        let mut history = History::default();
        history.finish(&job, START_US, true);
        let sooner = Job { next_start_us: Some(START_US + 1), ..job };
        assert_eq!(history.next_start_us(&sooner), Some(START_US + 1));
        history.finish(&sooner, START_US + 1, true);
        assert_eq!(history.next_start_us(&sooner), Some(START_US + 1 + HOUR_US));
    }

    #[test]
    fn retries_end_when_the_job_says_so() {
        let job = Job { max_retries: 1, ..job(Span::of_micros(HOUR_US), MINUTE_US) };
        let histories = Histories::default();
        histories.start(&job, START_US);
        assert!(!histories.finish(&job, START_US, false));
        histories.start(&job, START_US);
        assert!(histories.finish(&job, START_US, false));
    }
}
