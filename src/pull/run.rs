//! Runs passes: what fails for a passing reason is tried again.

use super::passed::Passed;
use super::session::Session;
use super::settings::Pull;
use crate::core::backoff::Backoff;
use crate::core::difference::VerifyReport;
use crate::core::error::{Error, Result};
use crate::replica::jobs::Leased;
use std::time::Duration;

/// Wait between them.
const BACK_OFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(6));

impl Pull {
    /// Brings the tables to a moment of the source after this call began. What fails for a passing reason is tried again.
    pub async fn pass(&self) -> Result<Passed> {
        self.pass_for(None).await
    }

    /// The same for a job, which is completed by the last batch.
    pub(super) async fn pass_for(&self, job: Option<Leased>) -> Result<Passed> {
        let mut attempt = 1;
        let mut done = Passed::default();
        loop {
            match self.try_pass(&mut done, job.as_ref()).await {
                Ok(()) => {
                    self.tell(&done);
                    return Ok(done);
                }
                Err(e) if e.is_passing() && attempt <= self.retries && !self.is_stopping() => {
                    tracing::warn!(sync = self.name, error = %e, attempt, "the pass failed and is tried again");
                    let wait = BACK_OFF.wait(attempt, self.chance.fraction());
                    tokio::time::sleep(wait.max(e.retry_after().unwrap_or_default())).await;
                    attempt += 1;
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn try_pass(&self, done: &mut Passed, job: Option<&Leased>) -> Result<()> {
        let mut session = Session::open(self).await?;
        session.writer.job = job.cloned();
        let passed = async {
            session.pass().await?;
            session.writer.job = None;
            let due = session.due(self.compare).await?;
            let compared = session.compare(&due, true).await?;
            session.writer.done.compared.extend(compared);
            if due.is_empty() { Ok(()) } else { session.pass_after_comparing().await }
        };
        let passed = passed.await;
        done.add(session.take_done());
        passed
    }

    /// Compares all rows of these tables, all where none is named; with `repair`, writes what should be there.
    pub async fn verify(&self, tables: &[String], repair: bool) -> Result<VerifyReport> {
        self.pass().await?;
        let mut session = Session::open(self).await?;
        let known: Vec<String> = session.description.tables.keys().cloned().collect();
        if let Some(unknown) = tables.iter().find(|table| !known.contains(table)) {
            return Err(Error::halt(format!(
                "the sync {:?} has no table {unknown:?}: it has {}",
                self.name,
                known.join(", ")
            )));
        }
        let names = if tables.is_empty() { &known[..] } else { tables };
        let report = VerifyReport { tables: session.compare(names, repair).await? };
        session.pass_after_comparing().await?;
        Ok(report)
    }

    fn tell(&self, done: &Passed) {
        tracing::info!(
            sync = self.name,
            rows = done.rows,
            removed = done.removed,
            batches = done.batches,
            dead = done.dead,
            problems = done.problems.len(),
            "pass done"
        );
    }
}
