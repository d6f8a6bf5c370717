//! The drain: step after step until the queue is empty or the call's budget is spent.

use super::compare::Verification;
use super::drained::Drained;
use super::patience::{answered, gap, wait_after};
use super::session::Session;
use super::step;
use super::worker::Worker;
use crate::core::error::{Error, Result};
use crate::postgres::books::{progress, resyncs};
use crate::postgres::queue;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

/// How long one call of `/sync` may drain.
pub const CALL_BUDGET: Duration = Duration::from_secs(25);

/// How long a caller who is turned away waits for the running drain's count of the queue.
const COUNT_PATIENCE: Duration = Duration::from_secs(2);

/// Tries of a drain whose step failed for a passing reason.
const ATTEMPTS: u32 = 3;

/// Time for one step. Its parts have limits of their own; this one is for a server that hangs.
const STEP_TIMEOUT: Duration = Duration::from_secs(300);

impl Worker {
    /// [`drain`](Self::drain) for callers who come again and again: refused while a side is down.
    pub async fn call(&self, budget: Duration) -> Result<Drained> {
        let leave = self.circuit.enter()?;
        let Some(turn) = self.gate.enter() else {
            drop(leave); // another has to find out
            return self.turned_away().await;
        };
        let done = self.drain_in(turn, budget).await;
        match &done {
            Ok(done) if done.busy => {} // another has to find out
            Ok(_) => self.circuit.succeeded(),
            Err(e) => {
                tracing::error!(error = %e, "the drain failed; what is not acknowledged is still queued");
                self.circuit.failed(e);
            }
        }
        drop(leave);
        done
    }

    /// Drains the queue until it is empty or `budget` is spent. While another drain runs, here or
    /// elsewhere, it returns at once with `busy`, and that drain looks once more before it ends.
    pub async fn drain(&self, budget: Duration) -> Result<Drained> {
        match self.gate.enter() {
            Some(turn) => self.drain_in(turn, budget).await,
            None => self.turned_away().await,
        }
    }

    /// For a caller who finds a drain running. Opens no connection: there may be many such callers, and just when
    /// Postgres is slow.
    async fn turned_away(&self) -> Result<Drained> {
        match self.gate.counted(COUNT_PATIENCE).await {
            Some(queued) => Ok(Drained { busy: true, queued, ..Drained::default() }),
            None => Err(Error::retry("a drain is running and has not counted the queue yet; try again")),
        }
    }

    async fn drain_in(&self, mut turn: OwnedMutexGuard<()>, budget: Duration) -> Result<Drained> {
        let started = Instant::now();
        let mut done = Drained::default();
        loop {
            let tried = self.tried(started, budget, &mut done).await;
            drop(turn);
            let Ok(seen) = tried else {
                self.count(&done, true);
                return tried.map(|_| done);
            };
            // Whoever was turned away since the last step was promised one more look.
            let is_spent = started.elapsed() >= budget || self.is_to_end();
            match self.gate.try_enter() {
                Some(next) if self.gate.calls() != seen && !is_spent => turn = next,
                _ => break,
            }
        }
        done.elapsed_ms = started.elapsed().as_millis() as u64;
        self.count(&done, false);
        tracing::info!(
            drain.processed = done.processed,
            drain.queued = done.queued,
            drain.busy = done.busy,
            drain.rows = done.rows,
            drain.batches = done.batches,
            drain.skipped = done.skipped,
            drain.dead = done.dead,
            drain.rebuilding = done.rebuilding,
            elapsed_ms = done.elapsed_ms,
            "drain done"
        );
        Ok(done)
    }

    /// Attempts until one succeeds; the notes of this process that its last step has seen.
    async fn tried(&self, started: Instant, budget: Duration, done: &mut Drained) -> Result<u64> {
        let mut attempt = 1;
        loop {
            let before = (done.processed, done.batches, self.budget.limits());
            let outcome = self.attempt(started + budget, done).await;
            if (done.processed, done.batches, self.budget.limits()) != before {
                attempt = 1;
            }
            self.note_failure(outcome.as_ref().err());
            match outcome {
                Ok(seen) => return Ok(seen),
                Err(e) => {
                    let left = budget.saturating_sub(started.elapsed());
                    if attempt < ATTEMPTS
                        && let Some(wait) = wait_after(&e, attempt, left)
                    {
                        tracing::warn!(error = %e, attempt, "the drain failed and is tried again");
                        tokio::time::sleep(wait).await;
                        attempt += 1;
                        continue;
                    }
                    return Err(e);
                }
            }
        }
    }

    /// One connection's worth of steps.
    async fn attempt(&self, deadline: Instant, done: &mut Drained) -> Result<u64> {
        let mut session = Session::open(self).await?;
        done.queued = answered(queue::depth(&session.client, &self.queue)).await?;
        self.gate.set_queued(done.queued);
        session.queued = done.queued;
        let result = self.steps(&mut session, None, deadline, done).await;
        if result.is_err() {
            session.abandon().await;
            return result;
        }
        self.count_left(&session, done).await;
        done.stuck = session.stuck.clone();
        let paused = session.all_paused();
        done.paused = paused.keys().cloned().collect();
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
        if done.busy {
            done.busy = done.processed == 0;
        }
        result
    }

    /// What is left when the steps are done. They are, and are acknowledged: a count that fails changes nothing of that.
    async fn count_left(&self, session: &Session<'_>, done: &mut Drained) {
        done.queued = session.queued;
        done.rebuilding = session.pending.len() as u64;
        match answered(queue::counted(&session.client, &self.queue)).await {
            Ok(counted) => done.queued = counted.unwrap_or(session.queued),
            Err(e) => tracing::warn!(error = %e, "what is left on the queue cannot be counted"),
        }
        self.gate.set_queued(done.queued);
        match answered(resyncs::waiting(&session.client, &self.queue, &self.schema)).await {
            Ok(waiting) => done.rebuilding = waiting,
            Err(e) => tracing::warn!(error = %e, "the tables that are to be rebuilt cannot be counted"),
        }
    }

    pub(in crate::sync) async fn steps(
        &self,
        session: &mut Session<'_>,
        mut comparison: Option<&mut Verification>,
        deadline: Instant,
        done: &mut Drained,
    ) -> Result<u64> {
        let is_over = || Instant::now() >= deadline || self.is_to_end();
        let mut noted = false;
        loop {
            let calls_here = self.gate.calls();
            let step =
                tokio::time::timeout(STEP_TIMEOUT, Box::pin(session.step(comparison.as_deref_mut(), deadline, done)))
                    .await;
            let outcome = step.unwrap_or_else(|_| Err(Error::unknown("a step hangs; its connection is given up")))?;
            if comparison.as_ref().is_some_and(|comparison| comparison.is_done()) {
                return Ok(calls_here);
            }
            if matches!(outcome, step::Outcome::Took { .. }) {
                self.circuit.succeeded();
            }
            // Whoever has found the queue busy gets his turn before the comparison goes on.
            if comparison.is_some() && session.is_wanted().await? {
                tokio::time::sleep(gap()).await;
            }
            let is_spent = match outcome {
                // A comparison waits for a gap between the steps of others; it holds nothing meanwhile.
                step::Outcome::Busy if comparison.is_some() => {
                    if is_over() {
                        return Err(Error::retry("other drains left no gap for the comparison; try again"));
                    }
                    tokio::time::sleep(gap()).await;
                    false
                }
                step::Outcome::Busy if noted => {
                    done.busy = true;
                    true
                }
                step::Outcome::Busy => {
                    // Leave a note and try once more: the other drain reads notes after its last
                    // step, so either it sees this one, or its lock is free now.
                    progress::wake(&session.client, &self.queue).await?;
                    noted = true;
                    false
                }
                step::Outcome::Throttled => {
                    let wait = self.throttle.wait();
                    let is_spent = Instant::now() + wait >= deadline || self.is_to_end();
                    if !is_spent {
                        tokio::time::sleep(wait).await;
                    }
                    is_spent
                }
                step::Outcome::Took { caught_up } => {
                    self.gate.set_queued(session.queued);
                    (caught_up && session.ends_caught_up) || is_over()
                }
                step::Outcome::Again | step::Outcome::Empty { .. } if session.waits_for_locks() => {
                    tokio::time::sleep(session.aside.rest()).await;
                    is_over()
                }
                step::Outcome::Again => is_over(),
                step::Outcome::Empty { calls } => {
                    let noticed = progress::calls(&session.client, &self.queue).await? != calls
                        || self.gate.calls() != calls_here;
                    !noticed || is_over()
                }
            };
            if is_spent {
                return Ok(calls_here);
            }
        }
    }
}
