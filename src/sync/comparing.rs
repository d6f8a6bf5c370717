//! The drain of a comparison: it goes on until every table is compared, and makes way for others between its steps.

use super::compare::Comparison;
use super::drained::Drained;
use super::patience::wait_after;
use super::session::Session;
use super::worker::Worker;
use crate::core::difference::VerifyReport;
use crate::core::error::{Error, Result};
use std::time::Duration;
use tokio::time::Instant;

/// Tries of a comparison without any progress; a page that cannot be read takes some to be narrowed down.
const COMPARE_ATTEMPTS: u32 = 12;

impl Worker {
    /// Drains and compares until all is compared; other drains are waited for.
    pub async fn verify(&self, mut comparison: Comparison, budget: Duration) -> Result<VerifyReport> {
        let turn = self.gate.enter();
        if turn.is_none() {
            return Err(Error::retry("a drain is running in this process; try again when it has ended"));
        }
        let deadline = Instant::now() + budget;
        let mut attempt = 1;
        loop {
            let mut done = Drained::default();
            let before = comparison.place();
            let compared = self.compare(&mut comparison, deadline, &mut done).await;
            if comparison.place() != before {
                attempt = 1;
            }
            match compared {
                Ok(()) => {
                    return match comparison.is_done() {
                        true => Ok(comparison.into_report()),
                        false => Err(Error::retry("the comparison was stopped before its end; run it again")),
                    };
                }
                Err(e) if comparison.is_lost() => return Err(e),
                Err(e) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let wait = wait_after(&e, attempt, left, &self.chance).filter(|_| attempt < COMPARE_ATTEMPTS);
                    let Some(wait) = wait else { return Err(e) };
                    tracing::warn!(error = %e, attempt, "the comparison was interrupted and goes on");
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                }
            }
        }
    }

    async fn compare(&self, comparison: &mut Comparison, deadline: Instant, done: &mut Drained) -> Result<()> {
        self.let_go(); // it asks anew what it compares by
        let mut session = Session::open(self).await?;
        session.compared = comparison.tables().to_vec();
        session.lock_compared();
        let result = self.steps(&mut session, Some(comparison), deadline, done).await;
        if result.is_err() {
            session.abandon().await;
        }
        result.map(|_| ())
    }
}
