//! Applies changes as they come, with no cron. Looks at the queue often while something comes, and sleeps when nothing
//! has come for a while, until a writer rings ([`bell`](crate::postgres)). Where nobody can ring, through a pooler or by
//! triggers of an earlier `setup`, it goes on looking, ever more seldom.

use super::session::Session;
use crate::core::error::{Error, Result};
use crate::postgres::link::Doze;
use crate::sync::drain::CALL_BUDGET;
use crate::sync::drained::{Drained, Totals};
use crate::sync::patience::{BACK_OFF, answered};
use crate::sync::worker::Worker;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

/// Wait before the next look when the last one found something: what comes meanwhile comes in one step. Where it then
/// sleeps, and writers are at it, each of them would ring sooner.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);

/// The same when nothing has come since.
const LONGEST_WAIT: Duration = Duration::from_millis(25);

/// After so long without anything, [`IDLE_WAIT`] is the longest.
const IDLE: Duration = Duration::from_secs(10);

/// The longest wait of all: an idle worker is to take well under one percent of a processor.
const IDLE_WAIT: Duration = Duration::from_millis(100);

/// The same while messages wait that cannot be taken: another worker drains, or their tables are paused.
const FRUITLESS_WAIT: Duration = Duration::from_millis(500);

/// After so long without anything it sleeps even behind a writer who does not end; where that cannot be, it looks for as
/// long before the next try.
const PATIENT: Duration = Duration::from_secs(1);

/// How long it looks where the second connection, which that takes, has failed.
const ALONE: Duration = Duration::from_secs(60);

/// Time for a word of its own to come back: by that it knows that it will be told.
const ECHO: Duration = Duration::from_secs(1);

/// How long it does not try again where that did not come back: while it waits for it nothing is looked at.
const DEAF: Duration = Duration::from_secs(3600);

/// Growth from one look in vain to the next.
const GROWTH: f64 = 1.2;

/// A step that somebody asks for who waits, or that a heartbeat is due in, comes no sooner after another such.
const ASKED: Duration = Duration::from_millis(250);

/// What a session knows of both sides is looked up again after so long.
const SESSION_TIME: Duration = Duration::from_secs(300);

/// The same while tables are paused: they are tried again, and the log says so again.
const PAUSED_TIME: Duration = Duration::from_secs(20);

/// The same while another worker, a comparison perhaps, has the queue: it lets go of it between two short steps.
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// After so many looks in vain it has the queue for longer, and each look costs Postgres a transaction.
const BUSY_LOOKS: u32 = 50;

/// A step that finds nothing may walk over all that is paused: the wait after it is so many times as long.
const FRUITLESS_SHARE: u32 = 20;

/// But no longer: Postgres ends a session of a sleeper of which it hears nothing.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// How long to wait between two looks.
struct Pace {
    wait: Duration,
    since: Instant,
    /// Looks, one after the other, at which another worker had the queue.
    busy: u32,
    /// Not before that does it sleep behind a writer.
    behind: Instant,
}

/// What came of wanting to sleep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It slept until somebody rang, or until a writer had ended that it slept behind.
    Told,
    /// It slept until there was something else to do.
    Over,
    /// It did not sleep: something is there, or may be.
    Found,
    /// It may not sleep, and looks.
    Refused,
}

impl Pace {
    /// Something was found just now.
    fn fresh() -> Self {
        let now = Instant::now();
        Self { wait: SHORTEST_WAIT, since: now, busy: 0, behind: now + PATIENT }
    }

    /// Waits, each time somewhat longer.
    async fn wait(&mut self) {
        tokio::time::sleep(self.wait).await;
        let longest = if self.since.elapsed() < IDLE { LONGEST_WAIT } else { IDLE_WAIT };
        self.wait = self.wait.mul_f64(GROWTH).min(longest);
    }

    /// Waits for another worker to let go of the queue.
    async fn wait_for_turn(&mut self) {
        self.busy += 1;
        let wait = if self.busy < BUSY_LOOKS { BUSY_WAIT } else { FRUITLESS_WAIT };
        tokio::time::sleep(wait).await;
    }

    /// Waits after a burst that took so long.
    async fn wait_after(&mut self, done: &Drained, took: Duration, is_worth_a_look: bool) {
        if done.batches > 0 {
            *self = Self::fresh();
        }
        if done.busy {
            return self.wait_for_turn().await;
        }
        self.busy = 0;
        match done.batches == 0 && !is_worth_a_look {
            true => self.wait_in_vain(took).await,
            false => self.wait().await,
        }
    }

    /// Waits though messages are there.
    async fn wait_in_vain(&mut self, step: Duration) {
        tokio::time::sleep(self.wait.max(FRUITLESS_SHARE * step).min(LONGEST_REST)).await;
        self.wait = self.wait.mul_f64(GROWTH).min(FRUITLESS_WAIT);
    }
}

impl Worker {
    /// Applies changes as they come, until [`stop`](Self::stop). What fails is tried again, ever more seldom.
    pub async fn follow(&self) {
        tracing::info!("following: changes are applied as they come");
        let mut failures = 0;
        while !self.is_stopping() {
            let tried = match self.circuit.enter() {
                Ok(leave) => {
                    let followed = self.follow_session(&mut failures).await;
                    if let Err(e) = &followed {
                        tracing::error!(error = %e, "following was interrupted; what is not acknowledged is still queued");
                        self.note_failure(Some(e));
                        self.figures.follow_failed();
                        self.count(&Drained::default(), true);
                        self.circuit.failed(e);
                    }
                    drop(leave);
                    followed
                }
                refused => refused.map(drop),
            };
            let Err(e) = tried else { continue };
            failures += 1;
            // Somebody has to act first: no hurry.
            let rest = BACK_OFF.rest(if e.needs_operator() { u32::MAX } else { failures }, self.chance.fraction());
            tokio::time::sleep(e.retry_after().unwrap_or_default().max(rest)).await;
        }
    }

    /// Follows on one connection for [`SESSION_TIME`].
    async fn follow_session(&self, failures: &mut u32) -> Result<()> {
        self.let_go();
        let mut session = Session::open(self).await?;
        (session.is_following, session.ends_caught_up) = (true, true);
        let mut all = Totals::default();
        let followed = self.bursts(&mut session, &mut all, failures).await;
        if followed.is_err() || self.is_stopping() {
            self.told.end();
        }
        if followed.is_err() {
            session.abandon().await;
        }
        if all.processed > 0 {
            let Totals { processed, rows, batches, skipped, dead, .. } = all;
            tracing::info!(processed, rows, batches, skipped, dead, "followed");
        }
        followed
    }

    async fn bursts(&self, session: &mut Session<'_>, all: &mut Totals, failures: &mut u32) -> Result<()> {
        let opened = Instant::now();
        let (mut due, mut asked, mut beaten, mut pace) = (opened, opened, opened, Pace::fresh());
        // Who rings may be anybody: after one who rang for nothing it looks first.
        let (may_sleep, mut believes) = (self.may_sleep(session).await, true);
        if may_sleep {
            session.claim().await?;
        }
        let lifetime = |session: &Session<'_>| if !session.tables.is_any_paused() { SESSION_TIME } else { PAUSED_TIME };
        while opened.elapsed() < lifetime(session) && !self.is_stopping() {
            let is_due = Instant::now() >= due;
            // A beat that tells nobody, because another worker has the queue, is not tried again and again.
            let is_to_beat = self.is_to_beat(beaten);
            if is_to_beat {
                beaten = Instant::now();
            }
            // Anybody may ask: not more often than it is worth.
            let is_asked = is_to_beat || asked.elapsed() >= ASKED && self.told.take_asked();
            if is_asked {
                asked = Instant::now();
            }
            // Not while a nuke waits for its turn.
            let is_wanted = match () {
                () if self.is_to_end() => false,
                () if is_due || is_asked => true,
                () if may_sleep => match self.sleep(session, &mut pace, due, beaten).await? {
                    Rest::Told if !believes => answered(session.link.peek()).await?,
                    Rest::Over => continue,
                    rest => rest != Rest::Refused,
                },
                () => answered(session.link.peek()).await?,
            };
            if !is_wanted {
                pace.busy = 0;
            }
            let turn = if is_wanted { self.gate.try_enter() } else { None };
            let Some(turn) = turn else {
                if is_wanted && may_sleep {
                    answered(session.link.ping()).await?; // one of which nothing is heard is ended
                }
                pace.wait().await;
                continue;
            };
            if is_due {
                session.queued = answered(session.link.depth()).await?;
                self.gate.set_queued(session.queued);
                due = Instant::now() + self.whole_step;
            }
            let begun = Instant::now();
            let done = self.burst(session, all).await;
            drop(turn);
            let done = done?;
            answered(session.prepare()).await?;
            *failures = 0;
            believes = done.batches > 0 || done.busy || is_due || is_asked;
            let is_worth_a_look = is_due || is_asked || session.tables.is_any_aside();
            pace.wait_after(&done, begun.elapsed(), is_worth_a_look).await;
        }
        Ok(())
    }

    /// Whether it may sleep in this session, because it will be told: a word of its own has come back. One that comes
    /// through a transaction pooler does not.
    async fn may_sleep(&self, session: &Session<'_>) -> bool {
        let echoed = async {
            let deaf = *self.deaf.lock().unwrap_or_else(PoisonError::into_inner);
            if deaf.is_some_and(|at| at.elapsed() < DEAF) || !answered(session.link.listen()).await? {
                return Ok(false);
            }
            let word = self.chance.token();
            answered(async { session.other().await?.ring(&word).await }).await?;
            let echo = async { while session.link.rung().await != word {} };
            // A pooler that listens for its clients brings the word, too, and has another session in each transaction.
            let is_heard =
                tokio::time::timeout(ECHO, echo).await.is_ok() && answered(session.link.is_listening()).await?;
            *self.deaf.lock().unwrap_or_else(PoisonError::into_inner) = (!is_heard).then(Instant::now);
            Ok::<_, Error>(is_heard)
        };
        echoed.await.unwrap_or_else(|e| {
            tracing::debug!(error = %e, "the queue is looked at, because nobody can ring");
            false
        })
    }

    /// Sleeps, where nothing can be seen and whoever comes will ring.
    async fn sleep(&self, session: &Session<'_>, pace: &mut Pace, due: Instant, beaten: Instant) -> Result<Rest> {
        let rest = match answered(session.link.doze()).await? {
            Doze::Found => Rest::Found,
            Doze::Asleep => {
                let rest = self.until_told(session, due, beaten).await;
                session.link.rouse();
                rest
            }
            Doze::Refused if Instant::now() < pace.behind => Rest::Refused,
            Doze::Refused => {
                let rested = self.sleep_behind(session, due, beaten).await;
                pace.behind = Instant::now() + if rested.is_ok() { PATIENT } else { ALONE };
                rested.unwrap_or_else(|e| {
                    tracing::debug!(error = %e, "the queue is looked at, because a writer does not end");
                    Rest::Refused
                })
            }
        };
        if matches!(rest, Rest::Told | Rest::Over) {
            (pace.wait, pace.behind) = (SHORTEST_WAIT, pace.since + PATIENT);
        }
        Ok(rest)
    }

    /// Sleeps behind a writer who does not end, as long as he is the only one.
    async fn sleep_behind(&self, session: &Session<'_>, due: Instant, beaten: Instant) -> Result<Rest> {
        let beside = async {
            let link = session.beside.link().await?;
            Ok((link, link.waiter().await?))
        };
        let (link, Some(waiter)) = answered(beside).await? else { return Ok(Rest::Refused) };
        loop {
            let mut waiting = link.wait_behind();
            // Polled first, so that it is sent first.
            let dozed = tokio::select! {
                biased;
                has_ended = &mut waiting => return Ok(if has_ended? { Rest::Found } else { Rest::Refused }),
                dozed = answered(session.link.doze_behind(waiter)) => dozed?,
            };
            let rest = match dozed {
                Doze::Found => Rest::Found,
                Doze::Refused => Rest::Refused,
                Doze::Asleep => tokio::select! {
                    has_ended = &mut waiting => match has_ended? {
                        true => return Ok(Rest::Told),
                        false => continue,
                    },
                    rest = self.until_told(session, due, beaten) => rest,
                },
            };
            session.link.call_off(waiter);
            return Ok(rest);
        }
    }

    /// Until somebody rings or there is something else to do.
    async fn until_told(&self, session: &Session<'_>, due: Instant, beaten: Instant) -> Rest {
        loop {
            tokio::select! {
                _ = session.link.rung() => return Rest::Told,
                () = self.told.news() => return Rest::Over,
                () = tokio::time::sleep(ASKED.min(due.saturating_duration_since(Instant::now()))) => {}
            }
            if Instant::now() >= due || self.is_to_end() || self.is_to_beat(beaten) || self.told.is_asked() {
                return Rest::Over;
            }
        }
    }

    /// Whether readers of the replica have heard nothing for as long as a heartbeat takes, and the last try is as long ago.
    fn is_to_beat(&self, tried: Instant) -> bool {
        self.heartbeat.is_some_and(|every| tried.elapsed() >= every && self.told.is_silent_for(every))
    }

    /// Takes what there is.
    async fn burst(&self, session: &mut Session<'_>, all: &mut Totals) -> Result<Drained> {
        let mut done = Drained::default();
        let result = self.steps(session, None, Instant::now() + CALL_BUDGET, &mut done).await;
        // What it did before it failed; the failure is counted where following is interrupted, whatever by.
        let did = Drained { busy: done.busy || result.is_err(), ..done.clone() };
        self.count(&did, false);
        all.add(&did, false);
        result?;
        self.note_failure(None);
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = session.tables.problems();
        self.figures.succeeded(); // where another worker is at it, too
        if !done.busy {
            self.circuit.succeeded(); // of a side that another worker has to find out about, nothing is known
        }
        Ok(done)
    }
}
