//! The drain: step after step until the queue is empty or the call's budget is spent. Knows the order
//! of things, and nothing of how any of them is done. `step` is one of them, [`pairing`] what comes
//! before the first.

/// A line in the log for each step, unless there may be a hundred of them a second.
macro_rules! log_step {
    ($session:expr, $($fields:tt)*) => {
        if $session.is_following { tracing::debug!($($fields)*) } else { tracing::info!($($fields)*) }
    };
}

mod alone;
mod apply;
mod beside;
pub mod circuit;
pub mod compare;
mod fault;
mod follow;
mod gate;
mod locks;
pub mod pairing;
mod session;
mod step;
mod take;

use crate::config::Config;
use crate::core::backoff::{Backoff, fraction};
use crate::core::error::{Class, Error, Result};
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::postgres::books::{progress, resyncs};
use crate::postgres::{PgUrl, queue};
use crate::replica::target::Target;
use apply::budget::Budget;
use apply::rejected::Rejected;
use circuit::Circuit;
use compare::Verification;
use compare::report::Report;
use gate::Gate;
use serde::Serialize;
use session::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use take::page_sizes::PageSizes;
use take::slow::SlowKeys;
use take::throttle::Throttle;
use tokio::sync::OwnedMutexGuard;

/// How long one call of `/sync` may drain.
pub const CALL_BUDGET: Duration = Duration::from_secs(25);

/// How long a caller who is turned away waits for the running drain's count of the queue.
const COUNT_PATIENCE: Duration = Duration::from_secs(2);

/// Tries of a drain whose step failed for a passing reason.
const ATTEMPTS: u32 = 3;

/// Tries of a comparison without any progress; a page that cannot be read takes some to be narrowed down.
const COMPARE_ATTEMPTS: u32 = 12;

/// Time for Postgres and the replica to answer before and after the steps.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for one step. Its parts have limits of their own; this one is for a server that hangs.
const STEP_TIMEOUT: Duration = Duration::from_secs(300);

/// Wait between tries.
const BACK_OFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(6));

/// Longest time that a server may ask for and that a call still waits.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// A worker: what it replicates, from where, to where.
pub struct Worker {
    postgres: PgUrl,
    target: Target,
    schema: Arc<Schema>,
    queue: QueueName,
    gate: Gate,
    stopping: AtomicBool,
    /// Nukes that wait for the drain to end.
    nukes: AtomicI64,
    /// How many messages the next take asks for.
    take_messages: AtomicI64,
    page_sizes: PageSizes,
    budget: Budget,
    rejected: Rejected,
    displaced: apply::rivals::Displaced,
    slow: SlowKeys,
    /// How long one statement may read rows.
    statement_time: Duration,
    /// Bytes beyond which a row or a message is not fetched.
    row_bytes: i64,
    throttle: Throttle,
    totals: Mutex<Totals>,
    /// Why the last drain failed.
    failure: Mutex<Option<String>>,
    /// Tables that the last drain left alone, and why.
    paused: Mutex<BTreeMap<String, String>>,
    circuit: Circuit,
    ends_caught_up: bool,
    /// How long acknowledged messages are kept; `None`: not at all.
    retention: Option<Duration>,
    /// Rows of a replica that was never written to may be replaced.
    adopt: bool,
}

/// What a worker did since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Drains that ended well, those that found another running left out.
    pub drains: u64,
    /// Drains that failed.
    pub failures: u64,
    /// See [`Drained`].
    pub processed: u64,
    /// See [`Drained`].
    pub rows: u64,
    /// See [`Drained`].
    pub batches: u64,
    /// See [`Drained`].
    pub skipped: u64,
    /// See [`Drained`].
    pub dead: u64,
}

impl Totals {
    fn add(&mut self, done: &Drained, is_failed: bool) {
        self.drains += u64::from(!is_failed && !done.busy);
        self.failures += u64::from(is_failed);
        self.processed += done.processed;
        self.rows += done.rows;
        self.batches += done.batches;
        self.skipped += done.skipped;
        self.dead += done.dead;
    }
}

/// What a drain did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Drained {
    /// Messages taken off the queue: applied, skipped or dead.
    pub processed: u64,
    /// Messages still on it, hidden ones included.
    pub queued: i64,
    /// Another drain was running, and will look once more before it ends.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub busy: bool,
    /// Keys written or deleted in the replica.
    pub rows: u64,
    /// libSQL transactions.
    pub batches: u64,
    /// Messages for tables that are not replicated.
    pub skipped: u64,
    /// Dead letters written.
    pub dead: u64,
    /// Tables whose changes stay queued, because they cannot be read or the replica does not take them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub paused: BTreeSet<String>,
    /// Tables that are still to be rebuilt.
    pub rebuilding: u64,
    /// Those of them that somebody has to mend first.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub stuck: BTreeSet<String>,
    /// Duration in milliseconds.
    pub elapsed_ms: u64,
}

impl Worker {
    /// A worker for `config`; connects to nothing yet.
    pub fn new(config: Config) -> Self {
        let Config { postgres, target, schema, queue, rows_per_second, retention, row_bytes, adopt } = config;
        Self {
            postgres,
            target,
            schema,
            queue,
            gate: Gate::default(),
            stopping: AtomicBool::new(false),
            nukes: AtomicI64::new(0),
            take_messages: AtomicI64::new(queue::FIRST_TAKE_MESSAGES),
            page_sizes: PageSizes::default(),
            budget: Budget::default(),
            rejected: Rejected::default(),
            displaced: apply::rivals::Displaced::default(),
            slow: SlowKeys::default(),
            statement_time: fault::STATEMENT_TIME,
            row_bytes,
            throttle: Throttle::new(rows_per_second),
            totals: Mutex::default(),
            failure: Mutex::default(),
            paused: Mutex::default(),
            circuit: Circuit::default(),
            ends_caught_up: false,
            retention: Some(retention).filter(|window| !window.is_zero()),
            adopt,
        }
    }

    /// A drain of it ends with the first step that leaves nothing at its snapshot, even if more was written
    /// meanwhile: for commands, which would never end beside writers that go on.
    pub fn ending_caught_up(mut self) -> Self {
        self.ends_caught_up = true;
        self
    }

    /// The statements that read rows may take so long, in place of a minute.
    pub fn reading_within(mut self, time: Duration) -> Self {
        self.statement_time = time.min(fault::STATEMENT_TIME);
        self
    }

    /// The source.
    pub fn postgres(&self) -> &PgUrl {
        &self.postgres
    }
    /// The replica.
    pub fn target(&self) -> &Target {
        &self.target
    }
    /// What is replicated.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }
    /// The queue.
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// Whether acknowledged messages are kept.
    fn keeps(&self) -> bool {
        self.retention.is_some()
    }

    /// Ends drains after the step in hand.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether a running drain should end after its step: the process stops, or a nuke waits.
    fn is_to_end(&self) -> bool {
        self.is_stopping() || self.nukes.load(Ordering::Relaxed) > 0
    }

    /// Waits until no drain runs in this process.
    pub async fn idle(&self) {
        self.gate.idle().await;
    }

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

    /// Whether calls are let through.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
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

    fn count(&self, done: &Drained, is_failed: bool) {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).add(done, is_failed);
    }

    /// Why its last drain failed; `None` where it did not.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tables whose changes its last drain left on the queue, and why.
    pub fn paused(&self) -> BTreeMap<String, String> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_failure(&self, error: Option<&Error>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = error.map(ToString::to_string);
    }

    /// What it did so far.
    pub fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Drains and compares until all is compared; other drains are waited for.
    pub async fn verify(&self, verification: Verification, budget: Duration) -> Result<Report> {
        let turn = self.gate.enter();
        if turn.is_none() {
            return Err(Error::retry("a drain is running in this process; try again when it has ended"));
        }
        let deadline = Instant::now() + budget;
        let mut verification = Some(verification);
        let mut attempt = 1;
        loop {
            let mut done = Drained::default();
            let before = verification.as_ref().map(Verification::place);
            let compared = self.compare(&mut verification, deadline, &mut done).await;
            if verification.as_ref().map(Verification::place) != before {
                attempt = 1;
            }
            let is_lost = verification.is_none();
            match compared {
                Ok(()) => {
                    let done = verification.filter(Verification::is_done).map(Verification::into_report);
                    return done.ok_or_else(|| Error::retry("the comparison was stopped before its end; run it again"));
                }
                Err(e) if is_lost => return Err(e), // the step in which it hung was given up, and it with it
                Err(e) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let wait = wait_after(&e, attempt, left).filter(|_| attempt < COMPARE_ATTEMPTS);
                    let Some(wait) = wait else { return Err(e) };
                    tracing::warn!(error = %e, attempt, "the comparison was interrupted and goes on");
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                }
            }
        }
    }

    async fn compare(
        &self,
        verification: &mut Option<Verification>,
        deadline: Instant,
        done: &mut Drained,
    ) -> Result<()> {
        let mut session = Session::open(self).await?;
        session.verification = verification.take();
        session.lock_compared();
        let result = self.steps(&mut session, deadline, done).await;
        *verification = session.verification.take();
        if result.is_err() {
            session.abandon().await;
        }
        result.map(|_| ())
    }

    /// One connection's worth of steps.
    async fn attempt(&self, deadline: Instant, done: &mut Drained) -> Result<u64> {
        let mut session = Session::open(self).await?;
        done.queued = answered(queue::depth(&session.client, &self.queue)).await?;
        self.gate.set_queued(done.queued);
        session.queued = done.queued;
        let result = self.steps(&mut session, deadline, done).await;
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

    async fn steps(&self, session: &mut Session<'_>, deadline: Instant, done: &mut Drained) -> Result<u64> {
        let is_over = || Instant::now() >= deadline || self.is_to_end();
        let mut noted = false;
        loop {
            let calls_here = self.gate.calls();
            let step = tokio::time::timeout(STEP_TIMEOUT, Box::pin(session.step(deadline, done))).await;
            let outcome = step.unwrap_or_else(|_| Err(Error::unknown("a step hangs; its connection is given up")))?;
            if session.has_compared() {
                return Ok(calls_here);
            }
            if matches!(outcome, step::Outcome::Took { .. }) {
                self.circuit.succeeded();
            }
            // Whoever has found the queue busy gets his turn before the comparison goes on.
            if session.verification.is_some() && session.is_wanted().await? {
                tokio::time::sleep(gap()).await;
            }
            let is_spent = match outcome {
                // A comparison waits for a gap between the steps of others; it holds nothing meanwhile.
                step::Outcome::Busy if session.verification.is_some() => {
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

/// A short wait of random length, so that two who wait do not meet again and again.
fn gap() -> Duration {
    Duration::from_millis(2) + Duration::from_millis(15).mul_f64(fraction())
}

/// How long to wait before the next try; `None` where none is worth it: somebody has to act first, no time is
/// left, or the other side wants to be left alone for longer than a caller should wait.
fn wait_after(error: &Error, attempt: u32, left: Duration) -> Option<Duration> {
    if !matches!(error.class(), Class::Retry | Class::Unknown) || left.is_zero() {
        return None;
    }
    let asked = error.retry_after().unwrap_or_default();
    (asked <= MOST_WAIT.min(left)).then(|| BACK_OFF.wait(attempt, fraction()).max(asked).min(left))
}

/// Gives up on what does not answer.
async fn answered<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || {
        Error::retry(format!(
            "Postgres or the replica gives no answer within {} s; it will be tried again",
            ANSWER_TIMEOUT.as_secs()
        ))
    };
    tokio::time::timeout(ANSWER_TIMEOUT, work).await.unwrap_or_else(|_| Err(late()))
}
