//! Changes of jobs, and the record of their runs.

use super::errors;
use super::jobs::{Job, JobRuns};
use super::state::CatalogState;
use proto::{Result, TableId};
use std::sync::Arc;

impl CatalogState {
    pub(super) fn add_job(&mut self, job: &Job) -> Result<()> {
        self.existing_table(job.table)?;
        assert!(!self.jobs.contains_key(&job.id), "job number {} was given twice", job.id);
        let of_table = self.jobs.values().filter(|other| other.table == job.table);
        if of_table.into_iter().any(|other| other.action.same_kind(&job.action)) {
            return Err(errors::changed_meanwhile("the set of policies"));
        }
        Arc::make_mut(&mut self.jobs).insert(job.id, Arc::new(job.clone()));
        self.next_job = self.next_job().max(job.id + 1);
        Ok(())
    }

    pub(super) fn alter_job(&mut self, job: &Job) -> Result<()> {
        let jobs = Arc::make_mut(&mut self.jobs);
        let known = jobs.get_mut(&job.id).ok_or_else(|| errors::no_job(job.id))?;
        *known = Arc::new(job.clone());
        Ok(())
    }

    pub(super) fn drop_job(&mut self, id: u32) -> Result<()> {
        Arc::make_mut(&mut self.jobs).remove(&id).ok_or_else(|| errors::no_job(id))?;
        self.forget_runs();
        Ok(())
    }

    /// Those of a table that goes.
    pub(super) fn forget_jobs(&mut self, table: TableId) {
        if self.jobs.values().any(|job| job.table == table) {
            Arc::make_mut(&mut self.jobs).retain(|_, job| job.table != table);
            self.forget_runs();
        }
    }

    fn forget_runs(&mut self) {
        let jobs = Arc::clone(&self.jobs);
        Arc::make_mut(&mut self.job_runs).retain(|job, _| jobs.contains_key(job));
    }

    pub(super) fn record_runs(&mut self, job: u32, runs: &JobRuns) {
        let known = self.job_runs.get(&job).map_or(0, |known| known.count());
        if self.jobs.contains_key(&job) && runs.count() >= known {
            Arc::make_mut(&mut self.job_runs).insert(job, runs.clone());
        }
    }
}
