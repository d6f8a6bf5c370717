//! A sync that pulls, as one process knows it.

use crate::core::chance::Chance;
use crate::core::error::Error;
use crate::core::schema::{Schema, Table};
use crate::core::token::Seen;
use crate::provider::{Limits, Provider};
use crate::replica::FEED_RETENTION;
use crate::replica::target::Target;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Retries where nothing else is said.
const RETRIES: u32 = 3;

/// A sync that pulls.
pub struct Pull {
    pub(super) name: String,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) target: Target,
    /// Whether rows of tables that no sync has written may be replaced.
    pub(super) adopt: bool,
    /// Whether tables go that the source no longer has.
    pub(super) allow_drop: bool,
    pub(super) chance: Chance,
    pub(super) pace: Pace,
    /// How often a pass that fails for a passing reason is tried again.
    pub(super) retries: u32,
    /// How often all rows are compared.
    pub(super) compare: Option<Duration>,
    /// How often the replica is told that nothing has changed; `None`: never.
    heartbeat: Option<Duration>,
    /// When it was last told anything.
    told_at: Mutex<Option<Instant>>,
    /// What its replica was at the last view that it equalled, as far as this process knows. Told of each that it equals.
    seen: watch::Sender<Option<Seen>>,
    /// Its tables that clients are fed.
    fed: Vec<Arc<Table>>,
    /// How long the log of changes is kept that they are fed from.
    pub(super) feed_retention: Duration,
    /// Told when there are new events; `None`: nobody is to be told of any.
    pub(super) news: Option<Arc<Notify>>,
    is_stopping: AtomicBool,
}

/// How much is done at once.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// What a closing transaction may hold: more is brought in parts first.
    pub closing: Limits,
    /// What one of these parts holds.
    pub part: Limits,
    /// How long one view is kept open where another may go on: it holds back vacuum, and its locks hold back DDL.
    pub view_time: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            closing: Limits { rows: 20_000, bytes: 8 * 1024 * 1024 },
            part: Limits { rows: 10_000, bytes: 4 * 1024 * 1024 },
            view_time: Duration::from_secs(2),
        }
    }
}

impl Pull {
    /// A sync by this name.
    pub fn new(name: String, provider: Arc<dyn Provider>, target: Target, adopt: bool) -> Self {
        Self {
            name,
            provider,
            heartbeat: target.default_heartbeat(),
            told_at: Mutex::default(),
            seen: watch::Sender::default(),
            fed: Vec::new(),
            feed_retention: FEED_RETENTION,
            target,
            adopt,
            allow_drop: false,
            chance: Chance::default(),
            pace: Pace::default(),
            retries: RETRIES,
            compare: None,
            news: None,
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Tables go that the source no longer has, or that are no longer asked for.
    pub fn dropping(self) -> Self {
        Self { allow_drop: true, ..self }
    }

    /// A pass that fails for a passing reason is tried again so often.
    pub fn with_retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// All rows are compared so often, after a pass.
    pub fn comparing(self, every: Option<Duration>) -> Self {
        Self { compare: every, ..self }
    }

    /// Of its tables, clients are fed those of which these definitions say so.
    #[must_use]
    pub fn feeding(self, schema: &Schema) -> Self {
        Self { fed: schema.tables().filter(|table| table.feed.is_some()).cloned().collect(), ..self }
    }

    /// The log that they are fed from is kept for so long.
    #[must_use]
    pub fn logging_for(self, retention: Duration) -> Self {
        Self { feed_retention: retention, ..self }
    }

    /// Its tables that clients are fed.
    pub(crate) fn fed(&self) -> &[Arc<Table>] {
        &self.fed
    }

    /// What happens is kept in the replica, for [`Events`](crate::http::Events) to deliver.
    #[must_use]
    pub fn telling(self) -> Self {
        Self { news: Some(Arc::default()), ..self }
    }

    /// The replica is told so often that nothing has changed; `None`: never.
    pub fn beating(self, heartbeat: Option<Duration>) -> Self {
        Self { heartbeat, ..self }
    }

    /// How often the replica is told that nothing has changed; `None`: never.
    pub(super) fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat
    }

    /// What the replica was at the last view that it equalled, as far as this process knows.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.seen.borrow().clone()
    }

    /// Tells when this process has brought it somewhere.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.subscribe()
    }

    /// It was brought to a moment of its source.
    pub(super) fn has_brought(&self) {
        self.seen.send_modify(|_| {});
    }

    /// It is that by now; `None`: nothing is known.
    pub(super) fn see(&self, seen: Option<Seen>) {
        self.seen.send_replace(seen);
    }

    /// The replica was told something.
    pub(super) fn has_told(&self) {
        *self.told_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it was told nothing for as long as a heartbeat takes.
    pub(super) fn is_to_beat(&self) -> bool {
        let told_at = *self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.heartbeat.is_some_and(|every| told_at.is_none_or(|at| at.elapsed() >= every))
    }

    /// At another pace.
    pub fn at_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Its replica.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends passes after the batch in hand.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// The failure of a pass that was told to end.
    pub(super) fn stopped(&self) -> Error {
        Error::retry(format!("the sync {:?} was stopped; it goes on where it was", self.name))
    }
}
