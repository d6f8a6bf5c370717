//! The drain: step after step until the queue is empty or the call's budget is spent.

use super::compare::Comparison;
use super::drained::Drained;
use super::patience::{answered, gap, wait_after};
use super::session::Session;
use super::step::Outcome;
use super::worker::Worker;
use crate::core::error::{Error, Result};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// How long one call of `/sync` may drain.
pub(crate) const CALL_BUDGET: Duration = Duration::from_secs(25);

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
        self.figures.succeeded(); // where another worker is at it, too
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
                        && let Some(wait) = wait_after(&e, attempt, left, &self.chance)
                    {
                        tracing::warn!(error = %e, attempt, "the drain failed and is tried again");
                        self.figures.retried();
                        tokio::time::sleep(wait).await;
                        attempt += 1;
                        continue;
                    }
                    return Err(e);
                }
            }
        }
    }

    /// One connection's worth of steps; a second one's, where the first knew of long ago and got nowhere.
    async fn attempt(&self, deadline: Instant, done: &mut Drained) -> Result<u64> {
        loop {
            let mut session = Session::open(self).await?;
            done.queued = answered(session.link.depth()).await?;
            self.gate.set_queued(done.queued);
            session.queued = done.queued;
            let result = self.steps(&mut session, None, deadline, done).await;
            self.told.end();
            if let Err(e) = result {
                session.abandon().await;
                if session.knows_the_past {
                    tracing::debug!(error = %e, "the connection of the last drain serves no more");
                    continue; // none is kept by now
                }
                return Err(e);
            }
            self.count_left(&session, done).await;
            done.stuck = session.tables.stuck();
            let paused = session.tables.problems();
            done.paused = paused.keys().cloned().collect();
            *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
            if done.busy {
                done.busy = done.processed == 0;
            }
            session.end();
            return result;
        }
    }

    /// What is left when the steps are done. They are, and are acknowledged: a count that fails changes nothing of that.
    async fn count_left(&self, session: &Session<'_>, done: &mut Drained) {
        done.queued = session.queued;
        done.rebuilding = session.pending.len() as u64;
        match answered(session.link.counted()).await {
            Ok(counted) => done.queued = counted.unwrap_or(session.queued),
            Err(e) => tracing::warn!(error = %e, "what is left on the queue cannot be counted"),
        }
        self.gate.set_queued(done.queued);
        match answered(session.link.rebuilding()).await {
            Ok(waiting) => done.rebuilding = waiting,
            Err(e) => tracing::warn!(error = %e, "the tables that are to be rebuilt cannot be counted"),
        }
    }

    /// Step after step, as [`next`](Self::next) says; the notes of this process that the last one has seen.
    pub(in crate::sync) async fn steps(
        &self,
        session: &mut Session<'_>,
        mut comparison: Option<&mut Comparison>,
        deadline: Instant,
        done: &mut Drained,
    ) -> Result<u64> {
        let mut has_noted = false;
        loop {
            let calls_here = self.gate.calls();
            let outcome = self.one_step(session, comparison.as_deref_mut(), deadline, done).await?;
            let next = match self.next_compared(session, comparison.as_deref(), &outcome).await? {
                Some(next) => next,
                None => self.next(session, outcome, calls_here, &mut has_noted).await?,
            };
            let goes_on = match next {
                Next::Once => true,
                Next::Step => self.rest(Duration::ZERO, deadline).await,
                Next::Rest(rest) => self.rest(rest, deadline).await,
                Next::End => false,
                Next::GiveUp => {
                    done.busy = true;
                    false
                }
            };
            if !goes_on {
                return Ok(calls_here);
            }
        }
    }

    async fn one_step(
        &self,
        session: &mut Session<'_>,
        comparison: Option<&mut Comparison>,
        deadline: Instant,
        done: &mut Drained,
    ) -> Result<Outcome> {
        let step = Box::pin(session.step(comparison, deadline, done));
        let outcome = tokio::time::timeout(STEP_TIMEOUT, step).await.unwrap_or_else(|_| Err(hung()))?;
        if matches!(outcome, Outcome::Took { .. }) {
            self.circuit.succeeded();
            self.gate.set_queued(session.queued);
        }
        Ok(outcome)
    }

    /// Rests; whether there is time for another step.
    async fn rest(&self, rest: Duration, deadline: Instant) -> bool {
        if Instant::now() + rest >= deadline || self.is_to_end() {
            return false;
        }
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        !self.is_to_end()
    }

    /// What comes after a step that compares, where that decides: others get their turn between two.
    async fn next_compared(
        &self,
        session: &Session<'_>,
        comparison: Option<&Comparison>,
        outcome: &Outcome,
    ) -> Result<Option<Next>> {
        Ok(match comparison {
            None => None,
            Some(comparison) if comparison.is_done() => Some(Next::End),
            Some(_) if matches!(outcome, Outcome::Throttled) => {
                Some(Next::Rest(self.throttle.wait().max(gap(&self.chance))))
            }
            Some(_) if session.is_wanted().await? || matches!(outcome, Outcome::Busy) => {
                Some(Next::Rest(gap(&self.chance)))
            }
            Some(_) => None,
        })
    }

    /// What comes after a step.
    async fn next(
        &self,
        session: &mut Session<'_>,
        outcome: Outcome,
        calls_here: u64,
        has_noted: &mut bool,
    ) -> Result<Next> {
        Ok(match outcome {
            Outcome::Busy if *has_noted => Next::GiveUp,
            Outcome::Busy => {
                // The other drain reads notes after its last step: either it sees this one, or its lock is free now.
                session.link.wake().await?;
                *has_noted = true;
                Next::Once
            }
            Outcome::Throttled => Next::Rest(self.throttle.wait()),
            Outcome::Took { caught_up } if caught_up && session.ends_caught_up => Next::End,
            Outcome::Took { .. } => Next::Step,
            Outcome::Again | Outcome::Empty { .. } if session.waits_for_locks() => Next::Rest(session.tables.rest()),
            Outcome::Again => Next::Step,
            Outcome::Empty { calls } => {
                let is_noticed = session.link.calls().await? != calls || self.gate.calls() != calls_here;
                if is_noticed { Next::Step } else { Next::End }
            }
        })
    }
}

/// What a drain does after a step.
enum Next {
    /// Another step, if there is time.
    Step,
    /// The same after a rest, during which nothing is held: others get their turn.
    Rest(Duration),
    /// Another step, whatever the time: a note was left that another drain may not see any more.
    Once,
    /// Nothing is left.
    End,
    /// Another drain has the queue, and will see the note.
    GiveUp,
}

fn hung() -> Error {
    Error::unknown("a step hangs; its connection is given up")
}
