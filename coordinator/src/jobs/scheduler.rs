//! Runs jobs when they are due.

use super::{Histories, due_chunks};
use crate::catalog::{Action, CatalogChange, Job};
use crate::txn::Cluster;
use proto::{Clock, Error, Result, SqlState};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How late a job may start.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// What became of a job's runs is recorded so often at most: each record costs an fsync, and a job may run every second.
const RECORD_INTERVAL_US: i64 = 60_000_000;
/// How long a stop waits for the last record.
const LAST_RECORD_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Scheduler {
    cluster: Arc<Cluster>,
    clock: Arc<dyn Clock>,
    histories: Arc<Histories>,
}

impl Scheduler {
    pub fn new(cluster: Arc<Cluster>, clock: Arc<dyn Clock>, histories: Arc<Histories>) -> Scheduler {
        Scheduler { cluster, clock, histories }
    }

    /// Until stopped. A job under way is given up then; what it committed stays.
    pub async fn run(self, stop: CancellationToken) {
        self.run_jobs(stop).await;
        if tokio::time::timeout(LAST_RECORD_TIMEOUT, self.record(0)).await.is_err() {
            tracing::warn!("the last runs of jobs could not be recorded in time");
        }
    }

    async fn run_jobs(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.tick() => {}
            }
        }
    }

    /// Runs what is due, the longest waiting first.
    pub(crate) async fn tick(&self) {
        let now_us = self.clock.now_us();
        let catalog = self.cluster.catalog();
        self.histories.retain(|job| catalog.job(job).is_some());
        let starts = catalog.jobs().filter_map(|job| Some((self.histories.due_us(job)?, Arc::clone(job))));
        let mut due = starts.filter(|(start, _)| *start <= now_us).collect::<Vec<_>>();
        // Nobody reads a catalog this old while jobs run.
        drop(catalog);
        due.sort_by_key(|(start, job)| (*start, job.id));
        for (_, job) in due {
            // As it is now: the jobs before may have taken long.
            if let Some(job) = self.cluster.catalog().job(job.id).filter(|job| job.scheduled).cloned() {
                self.start(&job).await;
                self.record(RECORD_INTERVAL_US).await;
            }
        }
        self.record(RECORD_INTERVAL_US).await;
    }

    async fn start(&self, job: &Job) {
        self.histories.start(job, self.clock.now_us());
        let outcome = self.within_runtime(job).await;
        let given_up = self.histories.finish(job, self.clock.now_us(), outcome.is_ok());
        match outcome {
            Ok(()) => tracing::debug!(job = job.id, "job done"),
            Err(error) => tracing::warn!(job = job.id, %error, "job failed"),
        }
        if given_up {
            tracing::warn!(job = job.id, "job failed too often and is paused");
            // As it is now: somebody may have altered it while it ran.
            let Some(current) = self.cluster.catalog().job(job.id).cloned() else { return };
            let paused = CatalogChange::AlterJob(Job { scheduled: false, ..Job::clone(&current) });
            if let Err(error) = self.commit(vec![paused]).await {
                tracing::warn!(job = job.id, %error, "could not pause the job");
            }
        }
    }

    /// Brings into the catalog what became of jobs of which it was not tried in the last `apart_us`.
    pub(crate) async fn record(&self, apart_us: i64) {
        let records = self.histories.unrecorded(self.clock.now_us(), apart_us);
        if records.is_empty() {
            return;
        }
        let changes = records.iter().map(|(job, runs)| CatalogChange::RecordRuns { job: *job, runs: runs.clone() });
        match self.commit(changes.collect()).await {
            Ok(()) => self.histories.recorded(records),
            Err(error) => tracing::warn!(%error, "the runs of jobs could not be recorded"),
        }
    }

    async fn within_runtime(&self, job: &Job) -> Result<()> {
        let limit_us = u64::try_from(job.max_runtime.length_us()).unwrap_or_default();
        if limit_us == 0 {
            return self.work(job).await;
        }
        match tokio::time::timeout(Duration::from_micros(limit_us), self.work(job)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(SqlState::QUERY_CANCELED, "canceling job due to its max_runtime")),
        }
    }

    async fn work(&self, job: &Job) -> Result<()> {
        let (table, _, chunks) = due_chunks(&self.cluster.catalog(), job, self.clock.now_us())?;
        match job.action {
            Action::Retention(_) if chunks.is_empty() => Ok(()),
            Action::Retention(_) => {
                let drop =
                    |chunk: &Arc<engine::ChunkDef>| CatalogChange::DropChunk { table: table.id, chunk: chunk.id };
                self.commit(chunks.iter().map(drop).collect()).await
            }
            // Each on its own: a failure loses no work.
            Action::Compression(_) => {
                for chunk in chunks {
                    for node in &chunk.nodes {
                        self.cluster.nodes().get(node)?.seal_chunks(vec![chunk.id], table.layout()).await?;
                    }
                    let mark = CatalogChange::MarkChunk { table: table.id, chunk: chunk.id, compressed: true };
                    self.commit(vec![mark]).await?;
                }
                Ok(())
            }
        }
    }

    async fn commit(&self, changes: Vec<CatalogChange>) -> Result<()> {
        let mut transaction = self.cluster.begin();
        changes.into_iter().try_for_each(|change| transaction.change(change))?;
        transaction.commit().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Age, Span};
    use crate::txn::tests::{NEW_YEAR_US, WEEK_US, World, readings};
    use engine::{Compression, TableDef};
    use std::sync::atomic::{AtomicI64, Ordering};

    const DAY_US: i64 = 86_400_000_000;
    const MINUTE_US: i64 = 60_000_000;

    struct TestClock(AtomicI64);

    impl TestClock {
        fn advance(&self, us: i64) {
            self.0.fetch_add(us, Ordering::Relaxed);
        }
    }

    impl Clock for TestClock {
        fn now_us(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }

        fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// A cluster whose table has rows in six weeks, a scheduler at the end of the sixth, and its clock.
    async fn world(seed: u64) -> (World, Scheduler, Arc<TestClock>, TableDef) {
        let (world, cluster, table) = World::with_table(seed).await;
        let weeks = (0..6).flat_map(|week| (0..31).map(move |device| (NEW_YEAR_US + week * WEEK_US, device)));
        let mut txn = cluster.begin();
        txn.write(&table, readings(&table, &weeks.collect::<Vec<_>>())).await.unwrap();
        txn.commit().await.unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(NEW_YEAR_US + 6 * WEEK_US)));
        let scheduler = Scheduler::new(cluster, clock.clone(), Arc::default());
        (world, scheduler, clock, table)
    }

    fn job(id: u32, table: &TableDef, action: Action) -> Job {
        Job {
            id,
            table: table.id,
            action,
            schedule_interval: Span { days: 1, ..Span::default() },
            max_runtime: Span::default(),
            max_retries: -1,
            retry_period: Span::of_micros(5 * MINUTE_US),
            scheduled: true,
            fixed_schedule: false,
            initial_start_us: None,
            time_zone: None,
            next_start_us: None,
        }
    }

    fn weeks(count: i32) -> Age {
        Age::OfRows(Span { days: 7 * count, ..Span::default() })
    }

    impl Scheduler {
        fn chunks_count(&self, table: &TableDef) -> usize {
            self.cluster.catalog().chunks(table.id).len()
        }

        fn compressed_count(&self, table: &TableDef) -> usize {
            self.cluster.catalog().chunks(table.id).iter().filter(|chunk| chunk.compressed).count()
        }
    }

    #[tokio::test]
    async fn retention_drops_what_became_old_when_it_is_due() {
        let (_world, scheduler, clock, table) = world(11).await;
        assert_eq!(scheduler.chunks_count(&table), 12);
        let retention = job(1000, &table, Action::Retention(weeks(3)));
        scheduler.commit(vec![CatalogChange::AddJob(retention)]).await.unwrap();
        // Slices end on Thursdays, two days after the clock's Tuesday.
        scheduler.tick().await;
        assert_eq!(scheduler.chunks_count(&table), 6);
        clock.advance(DAY_US - 1);
        scheduler.tick().await;
        assert_eq!(scheduler.histories.of(1000).unwrap().runs_count(), 1);
        clock.advance(1 + 7 * DAY_US);
        scheduler.tick().await;
        assert_eq!(scheduler.chunks_count(&table), 4);
        let history = scheduler.histories.of(1000).unwrap();
        assert_eq!((history.ended.successes_count, history.ended.failures_count), (2, 0));
        assert_eq!(history.ended.last_success_us, Some(clock.now_us()));
    }

    #[tokio::test]
    async fn compression_marks_old_chunks_and_is_tried_again_after_a_node_was_away() {
        let (world, scheduler, clock, table) = world(12).await;
        let by_device = Compression { segment_by: vec![table.columns[1].id, table.columns[0].id], order_by: vec![] };
        let settings = CatalogChange::SetCompression { table: table.id, compression: Some(by_device) };
        let compression = job(1000, &table, Action::Compression(weeks(3)));
        scheduler.commit(vec![settings, CatalogChange::AddJob(compression)]).await.unwrap();
        world.dn1.kill();
        scheduler.cluster.tick().await;
        scheduler.tick().await;
        let history = scheduler.histories.of(1000).unwrap();
        assert_eq!((history.ended.last_succeeded, history.ended.failures_count), (Some(false), 1));
        world.dn1.restart();
        scheduler.cluster.tick().await;
        scheduler.tick().await;
        assert_eq!(scheduler.histories.of(1000).unwrap().runs_count(), 1, "not before the retry period is over");
        clock.advance(5 * MINUTE_US);
        scheduler.tick().await;
        assert_eq!(scheduler.histories.of(1000).unwrap().ended.last_succeeded, Some(true));
        assert_eq!(scheduler.compressed_count(&table), 6);
    }

    #[tokio::test]
    async fn a_job_that_fails_too_often_is_paused_and_others_go_on() {
        let (_world, scheduler, clock, table) = world(13).await;
        // Compression was never switched on.
        let failing = Job { max_retries: 1, ..job(1000, &table, Action::Compression(weeks(1))) };
        let retention = job(1001, &table, Action::Retention(weeks(3)));
        let changes = vec![CatalogChange::AddJob(failing), CatalogChange::AddJob(retention)];
        scheduler.commit(changes).await.unwrap();
        for _ in 0..5 {
            scheduler.tick().await;
            clock.advance(DAY_US / 2);
        }
        assert_eq!(scheduler.histories.of(1000).unwrap().ended.failures_count, 2);
        assert!(!scheduler.cluster.catalog().job(1000).unwrap().scheduled);
        assert_eq!(scheduler.histories.of(1001).unwrap().ended.successes_count, 3);
    }

    #[tokio::test]
    async fn a_job_goes_with_its_table_and_waits_for_its_first_start() {
        let (_world, scheduler, clock, table) = world(14).await;
        let later = Job { next_start_us: Some(clock.now_us() + 1), ..job(1000, &table, Action::Retention(weeks(3))) };
        scheduler.commit(vec![CatalogChange::AddJob(later)]).await.unwrap();
        scheduler.tick().await;
        assert_eq!(scheduler.histories.of(1000), None);
        clock.advance(1);
        scheduler.tick().await;
        assert!(scheduler.histories.of(1000).is_some());
        scheduler.commit(vec![CatalogChange::DropTable(table.id)]).await.unwrap();
        scheduler.tick().await;
        assert_eq!(scheduler.histories.of(1000), None);
        assert_eq!(scheduler.cluster.catalog().jobs().count(), 0);
        assert_eq!(scheduler.cluster.catalog().next_job(), 1001);
    }

    const SECOND_US: i64 = 1_000_000;

    /// A scheduler of the same clock, as it comes up with what the log has kept.
    async fn come_back(world: &World, clock: &Arc<TestClock>) -> Scheduler {
        let cluster = world.open().await;
        let histories = Arc::new(Histories::recorded_in(&cluster.catalog()));
        Scheduler::new(cluster, clock.clone(), histories)
    }

    impl Scheduler {
        /// A job's runs, successes and failures; its last start, last success and next start, in seconds after `from_us`.
        fn stats(&self, id: u32, from_us: i64) -> ([u64; 3], [Option<i64>; 3]) {
            let history = self.histories.of(id).unwrap();
            let next_us = history.next_start_us(self.cluster.catalog().job(id).unwrap());
            let ended = &history.ended;
            let times = [history.last_start_us(), ended.last_success_us, next_us];
            let seconds = times.map(|at| at.map(|us| (us - from_us) / SECOND_US));
            ([history.runs_count(), ended.successes_count, ended.failures_count], seconds)
        }

        fn recorded_count(&self, id: u32) -> u64 {
            self.cluster.catalog().job_runs().get(&id).map_or(0, |runs| runs.count())
        }
    }

    /// A job of every second, and one that fails and is tried again after five minutes.
    #[tokio::test]
    async fn what_became_of_runs_is_known_after_a_crash_a_minute_behind_and_after_a_stop_whole() {
        let (world, scheduler, clock, table) = world(15).await;
        let from_us = clock.now_us();
        let every_second = Span::of_micros(SECOND_US);
        let retention = Job { schedule_interval: every_second, ..job(1000, &table, Action::Retention(weeks(3))) };
        let failing = job(1001, &table, Action::Compression(weeks(1)));
        scheduler.commit(vec![CatalogChange::AddJob(retention), CatalogChange::AddJob(failing)]).await.unwrap();
        for second in 0..=90 {
            scheduler.tick().await;
            assert_eq!(scheduler.recorded_count(1000), if second < 60 { 1 } else { 61 }, "second {second}");
            clock.advance(SECOND_US);
        }
        assert_eq!(scheduler.stats(1000, from_us), ([91, 91, 0], [Some(90), Some(90), Some(91)]));

        drop(scheduler);
        world.vfs.restart();
        let scheduler = come_back(&world, &clock).await;
        assert_eq!(scheduler.stats(1000, from_us), ([61, 61, 0], [Some(60), Some(60), Some(61)]));
        assert_eq!(scheduler.stats(1001, from_us), ([1, 0, 1], [Some(0), None, Some(300)]));
        assert_eq!(scheduler.histories.of(1001).unwrap().ended.last_succeeded, Some(false));
        for _ in 91..=120 {
            scheduler.tick().await;
            clock.advance(SECOND_US);
        }
        assert_eq!(scheduler.recorded_count(1000), 62, "the first run of a start is recorded at once");
        let stopped = CancellationToken::new();
        stopped.cancel();
        let cluster = Arc::clone(&scheduler.cluster);
        scheduler.run(stopped).await;
        cluster.close().await;

        drop(cluster);
        world.vfs.kill_process();
        let scheduler = come_back(&world, &clock).await;
        assert_eq!(scheduler.stats(1000, from_us), ([91, 91, 0], [Some(120), Some(120), Some(121)]));
        assert_eq!(scheduler.stats(1001, from_us), ([1, 0, 1], [Some(0), None, Some(300)]));
        clock.advance(179 * SECOND_US);
        scheduler.tick().await;
        assert_eq!(scheduler.stats(1001, from_us), ([2, 0, 2], [Some(300), None, Some(900)]));
    }
}
