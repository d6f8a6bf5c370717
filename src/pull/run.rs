//! Runs passes: what fails for a passing reason is tried again.

use super::passed::Passed;
use super::pull::Pull;
use super::session::Session;
use crate::core::backoff::Backoff;
use crate::core::error::Result;
use std::time::Duration;

/// Wait between them.
const BACK_OFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(6));

impl Pull {
    /// Brings the tables to a moment of the source after this call began. What fails for a passing reason is tried again.
    pub async fn pass(&self) -> Result<Passed> {
        let mut attempt = 1;
        let mut done = Passed::default();
        loop {
            match self.try_pass(&mut done).await {
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

    async fn try_pass(&self, done: &mut Passed) -> Result<()> {
        let mut session = Session::open(self).await?;
        let passed = session.pass().await;
        done.add(session.finish());
        passed
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
