//! What one process knows of one queue and its replica, from one drain to the next.

use super::apply::budget::Budget;
use super::apply::displaced::Displaced;
use super::apply::rejected::Rejected;
use super::circuit::Circuit;
use super::drained::{Drained, Totals};
use super::figures::{Counts, Figures};
use super::gate::Gate;
use super::impatience::Impatience;
use super::kept::{KEPT, Kept};
use super::take::page_sizes::PageSizes;
use super::take::slow::SlowKeys;
use super::take::throttle::Throttle;
use super::told::Told;
use crate::config::Config;
use crate::core::chance::Chance;
use crate::core::error::Error;
use crate::core::queue_name::QueueName;
use crate::core::schema::Schema;
use crate::core::token::Seen;
use crate::postgres::link::{Connect, Pg};
use crate::postgres::rows::STATEMENT_TIME;
use crate::postgres::{PgUrl, queue};
use crate::replica::target::Target;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A whole step though the queue is empty: tables to rebuild, losses, changed definitions.
const WHOLE_STEP: Duration = Duration::from_secs(5);

/// A worker: what it replicates, from where, to where.
pub struct Worker {
    pub(in crate::sync) postgres: PgUrl,
    /// How a step comes to it.
    pub(in crate::sync) source: Arc<dyn Connect>,
    /// Where tokens and waits of random length come from.
    pub(in crate::sync) chance: Chance,
    pub(in crate::sync) target: Target,
    pub(in crate::sync) schema: Arc<Schema>,
    pub(in crate::sync) queue: QueueName,
    pub(in crate::sync) gate: Gate,
    /// The connection of its last drain.
    pub(in crate::sync) kept: Kept,
    pub(in crate::sync) stopping: AtomicBool,
    /// Nukes that wait for the drain to end.
    pub(in crate::sync) nukes: AtomicI64,
    /// How many messages the next take asks for.
    pub(in crate::sync) take_messages: AtomicI64,
    pub(in crate::sync) page_sizes: PageSizes,
    pub(in crate::sync) budget: Budget,
    pub(in crate::sync) rejected: Rejected,
    pub(in crate::sync) displaced: Displaced,
    pub(in crate::sync) slow: SlowKeys,
    /// How long one statement may read rows.
    pub(in crate::sync) statement_time: Duration,
    /// Bytes beyond which a row or a message is not fetched.
    pub(in crate::sync) row_bytes: i64,
    pub(in crate::sync) throttle: Throttle,
    pub(in crate::sync) totals: Mutex<Totals>,
    /// What it has measured.
    pub(in crate::sync) figures: Figures,
    /// Why the last drain failed.
    pub(in crate::sync) failure: Mutex<Option<String>>,
    /// Tables that the last drain left alone, and why.
    pub(in crate::sync) paused: Mutex<BTreeMap<String, String>>,
    pub(in crate::sync) circuit: Circuit,
    pub(in crate::sync) ends_caught_up: bool,
    /// How often a follower runs a whole step though nothing has come.
    pub(in crate::sync) whole_step: Duration,
    /// When it last found out that it would not be told.
    pub(in crate::sync) deaf: Mutex<Option<Instant>>,
    /// How often the replica is told that nothing has changed; `None`: never.
    pub(in crate::sync) heartbeat: Option<Duration>,
    /// What its readers were told.
    pub(in crate::sync) told: Told,
    /// How long acknowledged messages are kept; `None`: not at all.
    pub(in crate::sync) retention: Option<Duration>,
    /// Rows of a replica that was never written to may be replaced.
    pub(in crate::sync) adopt: bool,
    /// How long the log of changes is kept.
    pub(in crate::sync) feed_retention: Duration,
    /// When clients are told of what is no consistent cut.
    pub(in crate::sync) impatience: Impatience,
}

impl Worker {
    /// A worker for `config`; connects to nothing yet.
    pub fn new(config: Config) -> Self {
        let Config { postgres, schema, queue, row_bytes, has_events, .. } = &config;
        let (url, schema, queue) = (postgres.clone(), schema.clone(), queue.clone());
        let (row_bytes, has_events) = (*row_bytes, *has_events);
        let source = Arc::new(Pg { url, schema, queue, row_bytes, has_events, watch: Arc::default() });
        Self::over(config, source, Chance::default())
    }

    /// The same over any source, and with these random numbers: for a simulator.
    pub fn over(config: Config, source: Arc<dyn Connect>, chance: Chance) -> Self {
        let Config { postgres, target, schema, queue, rows_per_second, retention, heartbeat, .. } = config;
        let (row_bytes, adopt, feeding) = (config.row_bytes, config.adopt, config.feeding);
        Self {
            postgres,
            source,
            target,
            schema,
            queue,
            gate: Gate::default(),
            kept: Kept::default(),
            stopping: AtomicBool::new(false),
            nukes: AtomicI64::new(0),
            take_messages: AtomicI64::new(queue::FIRST_TAKE_MESSAGES),
            page_sizes: PageSizes::default(),
            budget: Budget::default(),
            rejected: Rejected::default(),
            displaced: Displaced::default(),
            slow: SlowKeys::default(),
            statement_time: STATEMENT_TIME,
            row_bytes,
            throttle: Throttle::new(rows_per_second),
            totals: Mutex::default(),
            figures: Figures::default(),
            failure: Mutex::default(),
            paused: Mutex::default(),
            circuit: Circuit::new(chance.clone()),
            chance,
            ends_caught_up: false,
            whole_step: WHOLE_STEP,
            deaf: Mutex::default(),
            heartbeat,
            told: Told::default(),
            retention: Some(retention).filter(|window| !window.is_zero()),
            adopt,
            feed_retention: feeding.retention,
            impatience: Impatience::new(feeding.patience),
        }
    }

    /// A drain of it ends with the first step that leaves nothing at its snapshot, even if more was written
    /// meanwhile: for commands, which would never end beside writers that go on.
    pub fn ending_caught_up(mut self) -> Self {
        self.ends_caught_up = true;
        self
    }

    /// A drain of it leaves its connection to Postgres to the next one, for somewhat more than a minute: for a process
    /// that is called again and again.
    pub fn keeping_its_connection(self) -> Self {
        self.keeping_for(KEPT)
    }

    /// The same for so long.
    pub fn keeping_for(self, time: Duration) -> Self {
        Self { kept: Kept::lasting(time), ..self }
    }

    /// Closes the connection that waits for the next drain.
    pub fn let_go(&self) {
        self.kept.clear();
    }

    /// A follower of it runs a whole step so often though nothing has come, in place of every five seconds.
    pub fn stepping_every(self, time: Duration) -> Self {
        Self { whole_step: time, ..self }
    }

    /// The statements that read rows may take so long, in place of a minute.
    pub fn reading_within(mut self, time: Duration) -> Self {
        self.statement_time = time.min(STATEMENT_TIME);
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

    /// Bytes beyond which a row is not fetched.
    pub(crate) fn row_bytes(&self) -> i64 {
        self.row_bytes
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
    pub(in crate::sync) fn keeps(&self) -> bool {
        self.retention.is_some()
    }

    /// Ends drains after the step in hand.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.let_go();
    }

    /// Whether [`stop`](Self::stop) was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether a running drain should end after its step: the process stops, or a nuke waits.
    pub(in crate::sync) fn is_to_end(&self) -> bool {
        self.is_stopping() || self.nukes.load(Ordering::Relaxed) > 0
    }

    /// Waits until no drain runs in this process.
    pub async fn idle(&self) {
        self.gate.idle().await;
    }

    /// Messages on the queue, as a drain last counted them.
    pub(crate) fn queued(&self) -> Option<i64> {
        self.gate.last_count()
    }

    /// Whether calls are let through.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    pub(in crate::sync) fn count(&self, done: &Drained, is_failed: bool) {
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

    pub(in crate::sync) fn note_failure(&self, error: Option<&Error>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = error.map(ToString::to_string);
    }

    /// What the replica was at the last snapshot that it equalled, as far as this process knows.
    pub(crate) fn seen(&self) -> watch::Receiver<Option<Seen>> {
        self.told.seen()
    }

    /// Lets a worker that follows look again, though nothing is on the queue: somebody waits for a later snapshot.
    pub(crate) fn ask_for_snapshot(&self) {
        self.told.ask();
    }

    /// What it has measured so far.
    pub(crate) fn counts(&self) -> Counts {
        self.figures.now()
    }

    /// What it did so far.
    pub(crate) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
