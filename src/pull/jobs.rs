//! Jobs of a sync: a pass that is asked for, tried again where it fails, and recorded.

use super::passed::Passed;
use super::settings::Pull;
use crate::core::backoff::Backoff;
use crate::core::error::Result;
use crate::replica::Replica;
use crate::replica::jobs::{Job, Leased, Wish};
use serde_json::Value;
use std::time::Duration;

/// Tries of a job.
const TRIES: i64 = 3;

/// Wait between them.
const REST: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));

impl Pull {
    /// The job that is pending, and whether it is a new one.
    pub async fn add_job(&self, team: Option<&str>, payload: &Value) -> Result<(Job, bool)> {
        let id = uuid::Uuid::new_v4().to_string();
        let wish = Wish { id: &id, sync: &self.name, team, provider: "postgres", payload };
        Replica::open(&self.target).await?.add_job(&wish).await
    }

    /// Jobs of its replica, newest first.
    pub async fn jobs(&self, limit: i64) -> Result<Vec<Job>> {
        match Replica::existing(&self.target).await? {
            Some(replica) => replica.jobs(limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// One of them.
    pub async fn job(&self, id: &str) -> Result<Option<Job>> {
        match Replica::existing(&self.target).await? {
            Some(replica) => replica.job(id).await,
            None => Ok(None),
        }
    }

    /// A pass, for the job that is due, if one is.
    pub async fn pass_for_jobs(&self) -> Result<Passed> {
        let Some(replica) = Replica::existing(&self.target).await? else { return self.pass().await };
        let Some(leased) = replica.lease_job(&self.name, &self.chance.token()).await? else { return self.pass().await };
        let mut done = self.pass_for(Some(leased.clone())).await;
        match &mut done {
            // Tables that could not be read keep it from being completed.
            Ok(done) if done.caught_up_at.is_some() => {}
            Ok(done) => done.job_rest = self.fail(&replica, &leased, &said(done)).await,
            Err(_) if self.is_stopping() => {} // whoever is next takes it when its lease has run out
            Err(e) => drop(self.fail(&replica, &leased, &e.to_string()).await),
        }
        done
    }

    /// Until when the job rests; `None`: it is over.
    async fn fail(&self, replica: &Replica, leased: &Leased, error: &str) -> Option<Duration> {
        let failures = leased.retry_count + 1;
        let rest =
            (failures < TRIES).then(|| REST.wait(u32::try_from(failures).unwrap_or(u32::MAX), self.chance.fraction()));
        if let Err(e) = replica.fail_job(leased, error, rest).await {
            tracing::warn!(sync = self.name, error = %e, "how a job ended was not recorded; its lease runs out");
        }
        rest
    }
}

fn said(done: &Passed) -> String {
    let problems: Vec<_> = done.problems.iter().map(|(table, problem)| format!("{table}: {problem}")).collect();
    format!("tables could not be read: {}", problems.join("; "))
}
