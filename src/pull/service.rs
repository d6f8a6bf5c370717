//! Runs syncs at their intervals, each with its own rests and figures, a few at a time: one whose source or replica is
//! down keeps no other back.

use super::follow::Ended;
use super::limiter::Limiter;
use super::nuke::Asked;
use super::passed::Passed;
use super::settings::Pull;
use crate::core::backoff::Backoff;
use crate::core::chance::Chance;
use crate::core::error::{Error, Result};
use crate::core::event::Event;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Syncs that run at once.
const AT_ONCE: usize = 4;

/// The longest rest of one that fails, unless its interval is longer.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Within this share of its interval the first pass begins, so that many do not begin together.
const FIRST_SHARE: f64 = 0.1;

/// And within this time.
const LATEST_FIRST: Duration = Duration::from_secs(5);

/// After a fault of its own.
const AGAIN: Duration = Duration::from_secs(10);

/// What part of its interval a pass may begin sooner.
const JITTER: f64 = 0.1;

/// A sync and how often it runs.
pub struct Scheduled {
    /// What runs.
    pub pull: Pull,
    /// Between two passes.
    pub every: Duration,
    /// After a failure, at first.
    pub retry_delay: Duration,
    /// What bounds its passes, together with those of other syncs.
    pub limiter: Option<Arc<Limiter>>,
}

/// What a sync is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Doing {
    /// It waits for its time.
    #[default]
    Waiting,
    /// It runs.
    Running,
    /// It failed, and waits to be tried again.
    Failing,
}

/// How a sync stands, as this process knows it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// What it is doing.
    pub state: Doing,
    /// When its last pass ended well.
    pub looked_at: Option<String>,
    /// The source's clock when all of its tables last equalled the source.
    pub caught_up_at: Option<String>,
    /// What a pass promises, of the table of which it promises least.
    pub promise: Option<&'static str>,
    /// Passes that ended well.
    pub passes: u64,
    /// Passes that failed.
    pub failures: u64,
    /// Rows written.
    pub rows: u64,
    /// Rows deleted.
    pub removed: u64,
    /// libSQL transactions.
    pub batches: u64,
    /// Dead letters written.
    pub dead: u64,
    /// Failures since the last pass that ended well.
    pub failures_in_a_row: u32,
    /// Why the last pass failed, if it did.
    pub error: Option<String>,
    /// Tables that are left as they are, and why.
    pub problems: BTreeMap<String, String>,
    /// Tables that the source no longer has.
    pub kept: BTreeSet<String>,
    /// Seconds until the next pass.
    pub next_seconds: Option<f64>,
    /// Seconds since the Epoch of the last pass that ended well.
    #[serde(skip)]
    pub succeeded_at: Option<f64>,
    /// How long ago that was, or this process began to run it.
    #[serde(skip)]
    pub silent_for: Option<Duration>,
}

struct Lane {
    scheduled: Scheduled,
    wake: Notify,
    /// One pass at a time in this process.
    turn: tokio::sync::Mutex<()>,
    report: Mutex<(Report, Option<Instant>)>,
    /// When a pass last ended well, or this process began to run it.
    heard_at: Mutex<Instant>,
    /// That a side is down was told from memory.
    down_in_memory: AtomicBool,
}

/// All syncs of a process.
pub struct Service {
    lanes: BTreeMap<String, Arc<Lane>>,
    slots: Semaphore,
    chance: Chance,
    observer: OnceLock<Observer>,
}

/// Who is told of events, with the sync's name.
type Observer = Box<dyn Fn(&str, Event) + Send + Sync>;

/// Failures in a row after which a side is taken for down.
const DOWN: u32 = 3;

impl Service {
    /// Of these syncs.
    pub fn new(syncs: Vec<Scheduled>) -> Self {
        let lane = |scheduled: Scheduled| {
            let name = scheduled.pull.name().to_owned();
            let (wake, turn, report) = (Notify::new(), tokio::sync::Mutex::new(()), Mutex::default());
            let heard_at = Mutex::new(Instant::now());
            (name, Arc::new(Lane { scheduled, wake, turn, report, heard_at, down_in_memory: AtomicBool::new(false) }))
        };
        let lanes = syncs.into_iter().map(lane).collect();
        Self { lanes, slots: Semaphore::new(AT_ONCE), chance: Chance::default(), observer: OnceLock::new() }
    }

    /// Events are told to this one from now on.
    pub fn observed_by(&self, observer: impl Fn(&str, Event) + Send + Sync + 'static) {
        if self.observer.set(Box::new(observer)).is_err() {
            tracing::debug!("somebody is told of events already");
        }
    }

    fn tell(&self, lane: &Lane, events: impl IntoIterator<Item = Event>) {
        if let Some(observer) = self.observer.get() {
            events.into_iter().for_each(|event| observer(lane.scheduled.pull.name(), event));
        }
    }

    /// Keeps an event where it outlives this process, if the replica can be written.
    async fn keep(&self, lane: &Lane, event: Event) {
        let (pull, is_down) = (&lane.scheduled.pull, event.kind == Event::SIDE_DOWN);
        // What comes up goes the way of what went down, and not past it.
        let is_kept = !lane.down_in_memory.load(Ordering::Relaxed) && {
            let kept = pull.keep_event(event.clone()).await;
            kept.inspect_err(|e| tracing::debug!(sync = pull.name(), error = %e, "an event waits in memory")).is_ok()
        };
        if !is_kept {
            self.tell(lane, [event]);
        }
        lane.down_in_memory.store(is_down && !is_kept, Ordering::Relaxed);
    }

    /// The names of its syncs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.lanes.keys().map(String::as_str)
    }

    /// How each stands.
    pub fn reports(&self) -> BTreeMap<String, Report> {
        self.lanes.iter().map(|(name, lane)| (name.clone(), lane.report())).collect()
    }

    /// How one stands.
    pub fn report(&self, name: &str) -> Option<Report> {
        self.lanes.get(name).map(|lane| lane.report())
    }

    /// How often one runs.
    pub fn every(&self, name: &str) -> Option<Duration> {
        self.lanes.get(name).map(|lane| lane.scheduled.every)
    }

    /// One sync.
    pub fn pull(&self, name: &str) -> Option<&Pull> {
        self.lanes.get(name).map(|lane| &lane.scheduled.pull)
    }

    /// All of them.
    pub fn pulls(&self) -> impl Iterator<Item = &Pull> {
        self.lanes.values().map(|lane| &lane.scheduled.pull)
    }

    /// A pass of one at once; `None` where there is none of that name. One that runs already is waited for first.
    pub async fn call(&self, name: &str) -> Option<Result<Passed>> {
        let lane = self.lanes.get(name)?;
        Some(self.pass(lane).await)
    }

    /// Makes the tables of one anew, and lets it fill them; whether the request's `id` was not used before. `None` where
    /// there is none of that name.
    pub async fn nuke(&self, name: &str, id: Option<&str>) -> Option<Result<bool>> {
        let lane = self.lanes.get(name)?;
        let _turn = lane.turn.lock().await;
        lane.scheduled.pull.see(None);
        let done = lane.scheduled.pull.nuke(id).await;
        lane.wake.notify_one();
        Some(done)
    }

    /// Has rows of one compared after its next pass, which begins as soon as it may.
    pub async fn resync(&self, name: &str, tables: &[String], id: Option<&str>) -> Option<Result<Asked>> {
        let lane = self.lanes.get(name)?;
        let asked = lane.scheduled.pull.ask_to_compare(tables, id).await;
        lane.wake.notify_one();
        Some(asked)
    }

    /// Lets one run as soon as it may; whether there is one of that name.
    pub fn hint(&self, name: &str) -> bool {
        self.lanes.get(name).inspect(|lane| lane.wake.notify_one()).is_some()
    }

    /// Ends passes after the batch in hand, and begins none.
    pub fn stop(&self) {
        for lane in self.lanes.values() {
            lane.scheduled.pull.stop();
            lane.wake.notify_one();
        }
    }

    /// Waits until no pass runs.
    pub async fn idle(&self) {
        for lane in self.lanes.values() {
            drop(lane.turn.lock().await);
        }
    }

    /// Runs all of them until [`stop`](Self::stop).
    pub async fn run(self: &Arc<Self>) {
        futures_util::future::join_all(self.lanes.values().map(|lane| self.run_always(lane))).await;
    }

    /// Runs one in a task of its own: a fault of it must not end the others, nor itself for good.
    async fn run_always(self: &Arc<Self>, lane: &Arc<Lane>) {
        while !lane.scheduled.pull.is_stopping() {
            let (service, running) = (self.clone(), lane.clone());
            // Ended with whoever runs this.
            let mut task = JoinSet::new();
            task.spawn(async move { service.run_lane(&running).await });
            if let Some(Err(e)) = task.join_next().await {
                let name = lane.scheduled.pull.name();
                tracing::error!(sync = name, error = %e, "a sync broke off by a fault of its own, and begins again in ten seconds: please report this");
                lane.note(&Err(Error::retry(format!("it broke off by a fault of its own ({e})"))));
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    async fn run_lane(&self, lane: &Lane) {
        let every = lane.scheduled.every;
        let mut wait = every.mul_f64(FIRST_SHARE).min(LATEST_FIRST).mul_f64(self.chance.fraction());
        let mut tells = false;
        loop {
            lane.set_next(wait);
            tokio::select! {
                () = tokio::time::sleep(wait), if !tells => {}
                () = self.follow(lane, Instant::now() + wait), if tells => {}
                () = lane.wake.notified(), if !tells => {}
            }
            if lane.scheduled.pull.is_stopping() {
                return;
            }
            let began = Instant::now();
            let done = self.pass(lane).await;
            let took = began.elapsed();
            tells = done.as_ref().is_ok_and(|done| done.tells);
            wait = match done {
                // From begin to begin, so that a change is there within the interval; but half of the time is rest.
                Ok(done) => {
                    let rest = every.mul_f64(1.0 - JITTER * self.chance.fraction()).saturating_sub(took).max(took);
                    done.job_rest.map_or(rest, |job| rest.min(job))
                }
                Err(_) => {
                    let backoff = Backoff::new(lane.scheduled.retry_delay, every.max(LONGEST_REST));
                    backoff.rest(lane.report().failures_in_a_row, self.chance.fraction())
                }
            };
        }
    }

    /// Brings changes as the source tells of them, until then, or until a pass is asked for.
    async fn follow(&self, lane: &Lane, until: Instant) {
        let pull = &lane.scheduled.pull;
        while Instant::now() < until && !pull.is_stopping() {
            let rest = match self.follow_once(lane, until).await {
                Ok(Ended::Over) => continue,
                Ok(Ended::Asked) => return,
                Ok(Ended::Silent) => until,
                Err(e) => {
                    tracing::warn!(sync = pull.name(), error = %e, "the source is not followed any more; the next pass begins soon");
                    lane.note(&Err(e));
                    until.min(Instant::now() + lane.scheduled.retry_delay)
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(rest) => {}
                () = lane.wake.notified() => {}
            }
            return;
        }
    }

    async fn follow_once(&self, lane: &Lane, until: Instant) -> Result<Ended> {
        let mut follower = lane.scheduled.pull.follower().await?;
        loop {
            let done = {
                let _turn = lane.turn.lock().await;
                if let Some(limiter) = &lane.scheduled.limiter {
                    limiter.take().await;
                }
                let closed = |_| Error::retry("the service is stopping; try again");
                let _slot = self.slots.acquire().await.map_err(closed)?;
                lane.known().state = Doing::Running;
                follower.pass().await?
            };
            // What it did not look at is as it was.
            let before = lane.report();
            let (mut problems, kept) = (before.problems, before.kept);
            problems.extend(done.problems.clone());
            lane.note(&Ok(Passed { problems, kept, ..done }));
            tokio::select! {
                ended = follower.changed(until) => if let Some(ended) = ended? {
                    return Ok(ended);
                },
                () = lane.wake.notified() => return Ok(Ended::Asked),
            }
        }
    }

    async fn pass(&self, lane: &Lane) -> Result<Passed> {
        let _turn = lane.turn.lock().await;
        if let Some(limiter) = &lane.scheduled.limiter {
            limiter.take().await;
        }
        let closed = |_| Error::retry("the service is stopping; try again");
        let slot = self.slots.acquire().await.map_err(closed)?;
        lane.known().state = Doing::Running;
        self.tell(lane, [Event::before()]);
        let done = lane.scheduled.pull.pass_for_jobs().await;
        if let Ok(Passed { seen: Some(seen), .. }) = &done {
            lane.scheduled.pull.see(Some(seen.clone()));
        }
        drop(slot);
        let before = lane.report().failures_in_a_row;
        lane.note(&done);
        let after = lane.report();
        let side = match &done {
            Ok(_) => (before >= DOWN).then(Event::side_up),
            Err(e) => (after.failures_in_a_row == DOWN).then(|| Event::side_down(&e.to_string())),
        };
        if let Some(event) = side {
            self.keep(lane, event).await;
        }
        let said = done.as_ref().map(|done| serde_json::json!(done)).map_err(ToString::to_string);
        self.tell(lane, [Event::after(said)]);
        if let Err(e) = &done {
            tracing::error!(sync = lane.scheduled.pull.name(), error = %e, "the sync failed; it is tried again");
        }
        done
    }
}

/// What is known of a sync, behind its lock.
struct KnownReport<'a>(MutexGuard<'a, (Report, Option<Instant>)>);

impl std::ops::Deref for KnownReport<'_> {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.0.0
    }
}

impl std::ops::DerefMut for KnownReport<'_> {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.0.0
    }
}

impl Lane {
    fn known(&self) -> KnownReport<'_> {
        KnownReport(self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_next(&self, wait: Duration) {
        self.known().0.1 = Some(Instant::now() + wait);
    }

    fn report(&self) -> Report {
        let known = self.known();
        let next = known.0.1.map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64());
        let heard_at = *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner);
        let silent_for = Some(heard_at.elapsed());
        Report { next_seconds: next.filter(|_| known.state != Doing::Running), silent_for, ..known.clone() }
    }

    fn note(&self, done: &Result<Passed>) {
        let mut report = self.known();
        match done {
            Ok(done) => {
                let now = SystemTime::now();
                *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                report.state = Doing::Waiting;
                report.looked_at = Some(humantime::format_rfc3339_millis(now).to_string());
                report.succeeded_at = now.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
                report.passes += 1;
                report.failures_in_a_row = 0;
                report.error = None;
                report.promise = done.promise;
                report.rows += done.rows;
                report.removed += done.removed;
                report.batches += done.batches;
                report.dead += done.dead;
                report.problems.clone_from(&done.problems);
                report.kept.clone_from(&done.kept);
                if done.caught_up_at.is_some() {
                    report.caught_up_at.clone_from(&done.caught_up_at);
                }
            }
            Err(e) => {
                report.state = Doing::Failing;
                report.failures += 1;
                report.failures_in_a_row += 1;
                report.error = Some(e.to_string());
            }
        }
    }
}
