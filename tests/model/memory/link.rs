//! The seam over the server in memory: connections, their transactions, and the row beside the queue.

use super::bell::Rings;
use super::engine::{Failure, Isolation, Key, Lock, Session, Wait};
use super::postgres::Postgres;
use super::tables::{
    Access, CATALOG, Calls, DEAD, DEFINITIONS, KEPT, Kept, LOSSES, Loss, Message, Noted, PROGRESS, ProgressRow, QUEUE,
    REDEEMED, RESYNCS, Resync, STEPS, Value, Verified, WAKEUP, named, number, numbered, only, rows_of,
};
use async_trait::async_trait;
use pgflume::core::error::{Cause, Error, ErrorKind, Result};
use pgflume::core::position::{Entry, Fate, Head, Identity, Progress};
use pgflume::core::queue_name::QueueName;
use pgflume::postgres::Purpose;
use pgflume::postgres::books::progress::Snapshot;
use pgflume::postgres::books::rebuilds::Phase;
use pgflume::postgres::catalog::SourceTable;
use pgflume::postgres::link::{Begun, Connect, Flight, Link, Opening, Savepoint, Transaction};
use pgflume::postgres::queue::{Taken, provenance};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// Longest wait for a lock within a step.
const WAIT_WITHIN: Duration = Duration::from_millis(10);

/// Longest wait for a lock of a look.
const WAIT_OF_LOOK: Duration = Duration::from_secs(2);

/// Longest wait for a lock while nothing is held.
const LOCK_WAIT: Duration = Duration::from_millis(200);

/// How long one statement may run.
const STATEMENT_TIME: Duration = Duration::from_secs(60);

/// The day on which the server was made, in seconds since 1970.
const FIRST_DAY: u64 = 1_767_225_600;

/// How long a redeemed id is remembered.
const HOUR: Duration = Duration::from_secs(3_600);

/// How long a step's name is remembered.
const DAY: Duration = Duration::from_secs(86_400);

/// Epochs that are remembered.
const PAST_EPOCHS: usize = 98;

/// What lies between a worker and the server. An error is a connection that is lost: before the statement ran, or after.
#[async_trait]
pub trait Network: Send + Sync {
    /// A statement is on its way. The next one of its connection comes behind it.
    async fn request(&self, purpose: Purpose, call: &'static str) -> Result<()>;

    /// Its answer is.
    async fn answer(&self, purpose: Purpose, call: &'static str) -> Result<()>;
}

/// Opens connections to it.
#[derive(Clone)]
pub struct Memory {
    pub postgres: Postgres,
    pub queue: QueueName,
    /// Bytes beyond which a row or a message is not fetched.
    pub row_bytes: i64,
    /// What the planner believes a row to have, on which the first page's length depends.
    pub planned_row_bytes: i64,
    pub network: Option<Arc<dyn Network>>,
}

impl Memory {
    /// One without a network.
    pub fn new(postgres: Postgres) -> Self {
        let queue = QueueName::parse(pgflume::core::queue_name::DEFAULT_QUEUE).unwrap();
        let row_bytes = pgflume::postgres::catalog::DEFAULT_ROW_BYTES;
        Self { postgres, queue, row_bytes, planned_row_bytes: 100, network: None }
    }

    /// A connection, with what a simulator may do to it.
    pub fn open(&self, purpose: Purpose) -> Connection {
        let session = self.postgres.engine().session();
        let local = Mutex::new(Local::default());
        let (turn, rings, holder) = (tokio::sync::Mutex::new(()), Arc::default(), Mutex::default());
        Connection { memory: self.clone(), purpose, session, turn, local, rings, holder }
    }
}

#[async_trait]
impl Connect for Memory {
    async fn connect(&self, purpose: Purpose) -> Result<Box<dyn Link>> {
        if let Some(network) = &self.network {
            network.request(purpose, "connect").await?;
            network.answer(purpose, "connect").await?;
        }
        Ok(Box::new(self.open(purpose)))
    }
}

/// What a connection knows of its transaction.
#[derive(Default)]
struct Local {
    /// When it began.
    begun_at: Duration,
    /// How long a statement waits for a lock; without a transaction, as long as its caller is patient.
    lock_wait: Option<Duration>,
    /// How long a statement may run, and how long before each savepoint.
    limit: Duration,
    limits: Vec<(Savepoint, Duration)>,
    has_catalog: bool,
}

/// A connection to it. Its statements run one after the other.
pub struct Connection {
    pub(super) memory: Memory,
    purpose: Purpose,
    pub(super) session: Session<Value>,
    turn: tokio::sync::Mutex<()>,
    local: Mutex<Local>,
    /// What it was notified of.
    pub(super) rings: Arc<Rings>,
    /// The lock of one who sleeps, which outlives transactions.
    holder: Mutex<Option<Session<Value>>>,
}

/// What Postgres says when a statement failed so.
pub(super) fn said(failure: Failure) -> Error {
    match failure {
        Failure::Locked => of_code(ErrorKind::Locked, "55P03", Cause::Other),
        Failure::Conflict => of_code(ErrorKind::Overtaken, "40001", Cause::Other),
        Failure::Aborted => of_code(ErrorKind::Retry, "25P02", Cause::Other),
        Failure::Gone => lost(),
    }
}

fn of_code(kind: ErrorKind, code: &str, cause: Cause) -> Error {
    let text = format!("Postgres: SQLSTATE {code}; it will be tried again, nothing is lost");
    Error::new(kind, text).of_postgres(code, cause)
}

fn lost() -> Error {
    Error::retry("Postgres: connection closed; it will be tried again, nothing is lost")
}

/// A statement that runs. Dropped before its end it has failed, as one that is cancelled.
struct Running<'a> {
    connection: &'a Connection,
    is_alone: bool,
    is_done: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        match (self.is_done, self.is_alone) {
            (true, _) => {}
            (false, true) => self.connection.session.rollback(),
            (false, false) => drop(self.connection.session.abort_with(Failure::Aborted)),
        }
    }
}

impl Connection {
    pub(super) fn holder(&self) -> MutexGuard<'_, Option<Session<Value>>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a statement, in a transaction of its own unless one is open.
    pub(super) async fn run<T>(&self, call: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let alone = async {
            let is_alone = !self.session.is_open();
            match is_alone {
                true => self.open(Isolation::ReadCommitted, None)?,
                false => self.session.ping().map_err(said)?,
            }
            let mut running = Running { connection: self, is_alone, is_done: false };
            let done = work.await;
            running.is_done = true;
            if is_alone { self.end_alone(done) } else { done }
        };
        self.control(call, alone).await
    }

    fn end_alone<T>(&self, done: Result<T>) -> Result<T> {
        match done {
            // A failure that the work has looked at has undone it.
            Ok(done) => match self.session.commit(true) {
                Ok(_) | Err(Failure::Aborted) => Ok(done),
                Err(failure) => Err(said(failure)),
            },
            // Nobody waits for longer for an answer.
            Err(e) if e.is_locked() => {
                self.memory.postgres.engine().end(self.session.id());
                Err(lost())
            }
            Err(e) => {
                self.session.rollback();
                Err(e)
            }
        }
    }

    /// Runs a statement as it is, in its turn.
    async fn control<T>(&self, call: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let turn = self.turn.lock().await;
        if let Some(network) = &self.memory.network {
            self.unless_lost(network.request(self.purpose, call).await)?;
        }
        let done = if self.session.is_gone() { Err(lost()) } else { work.await };
        drop(turn);
        if let Some(network) = &self.memory.network {
            self.unless_lost(network.answer(self.purpose, call).await)?;
        }
        done
    }

    fn unless_lost(&self, passed: Result<()>) -> Result<()> {
        passed.inspect_err(|_| self.memory.postgres.engine().end(self.session.id()))
    }

    fn open(&self, isolation: Isolation, lock_wait: Option<Duration>) -> Result<()> {
        self.session.begin(isolation).map_err(said)?;
        self.session.set_lock_timeout(lock_wait.unwrap_or(self.purpose.patience())).map_err(said)?;
        let (begun_at, has_catalog) = (self.memory.postgres.clock(), self.local().has_catalog);
        *self.local() = Local { begun_at, lock_wait, limit: STATEMENT_TIME, limits: Vec::new(), has_catalog };
        Ok(())
    }

    /// How long a statement waits for a lock now.
    pub(super) fn wait(&self) -> Wait {
        Wait::For(self.local().lock_wait.unwrap_or(self.purpose.patience()))
    }

    /// How long a statement may run now.
    pub(super) fn time(&self) -> Duration {
        self.local().limit
    }

    pub(super) fn access(&self) -> Access<'_> {
        Access { session: &self.session, wait: self.wait() }
    }

    /// When the transaction began.
    pub(super) fn at(&self) -> Duration {
        self.local().begun_at
    }

    pub(super) fn clock(&self) -> Duration {
        self.memory.postgres.clock()
    }

    /// The statement fails with this.
    pub(super) fn raise(&self, code: &str, cause: Cause) -> Error {
        match self.session.abort_with(Failure::Conflict) {
            Failure::Gone => lost(),
            _ => of_code(ErrorKind::Retry, code, cause),
        }
    }

    /// Waits for whoever shuts readers out.
    pub(super) async fn share(&self, relation: &str) -> Result<()> {
        self.session.lock_relation(relation, Lock::AccessShare, self.wait()).await.map_err(said)
    }

    /// An error where the worker may not read this table: of the newest catalog, whatever the snapshot.
    pub(super) fn check_rights(&self, source: &SourceTable) -> Result<()> {
        let state = self.memory.postgres.state(&source.table.name);
        if !state.is_readable {
            return Err(self.raise("42501", Cause::Table));
        }
        if state.columns.len() < source.table.columns.len() {
            return Err(self.raise("42703", Cause::Table));
        }
        Ok(())
    }

    pub(super) fn progress(&self) -> Result<Option<Arc<ProgressRow>>> {
        self.access().get(PROGRESS, &only()).map_err(said)
    }

    pub(super) async fn change_progress(&self, change: impl FnOnce(&mut ProgressRow)) -> Result<()> {
        self.access().update(PROGRESS, &only(), change).await.map(drop).map_err(said)
    }

    pub(super) fn any(&self, relation: &str) -> Result<bool> {
        Ok(!self.session.scan(relation).map_err(said)?.is_empty())
    }

    pub(super) async fn forget<T: super::tables::Stored>(&self, relation: &str) -> Result<()> {
        self.access().delete_where::<T>(relation, |_| true).await.map(drop).map_err(said)
    }

    /// The catalog as the transaction sees it.
    pub(super) fn catalog_text(&self) -> Result<String> {
        let state = |(key, value): &(Key, Value)| match value {
            Value::Table(table) => format!("{}={};", key[0], table.version),
            Value::Queue(queue) => format!("{};", queue.0),
            _ => String::new(),
        };
        Ok(self.session.scan(CATALOG).map_err(said)?.iter().map(state).collect())
    }

    pub(super) fn remember_catalog(&self) {
        self.local().has_catalog = true;
    }

    pub(super) fn knows_catalog(&self) -> Result<()> {
        match self.local().has_catalog {
            true => Ok(()),
            false => Err(Error::retry("the catalog was not read yet; it will be tried again")),
        }
    }

    fn position(&self) -> String {
        let now = self.memory.postgres.now();
        format!("{:X}/{:X}", now >> 32, now & 0xffff_ffff)
    }

    /// Whether WAL is on disk up to a position.
    pub(super) fn flushed(&self, position: &str) -> Result<bool> {
        let part = |text: &str| u64::from_str_radix(text, 16).ok();
        let place = position.split_once('/').and_then(|(high, low)| Some((part(high)? << 32) | part(low)?));
        let place = place.ok_or_else(|| self.raise("22P02", Cause::Row))?;
        Ok(self.memory.postgres.engine().flushed() >= place)
    }

    /// What a step or a look sees of the books.
    async fn snapshot(&self) -> Result<Snapshot> {
        let missing = || Error::retry("the progress row is not there yet; it will be tried again");
        let found = self.progress()?.ok_or_else(missing)?;
        let progress = (*found).clone();
        self.share(DEAD).await?;
        let scan = |relation| self.session.scan(relation).map_err(said);
        let calls = self.access().get::<Calls>(WAKEUP, &only()).map_err(said)?.map_or(0, |calls| calls.0);
        let resyncs = self.access().scan::<Resync>(RESYNCS).map_err(said)?;
        let last_dead = scan(DEAD)?.last().map_or(0, |(key, _)| number(key));
        let postgres = &self.memory.postgres;
        Ok(Snapshot {
            identity: postgres.identity(),
            owner: postgres.owner(self.memory.queue.as_str()),
            xid: self.session.xid().map_err(said)?.to_string(),
            lsn: self.position(),
            at: time_text(self.clock()),
            seen: None,
            calls,
            is_rebuilding: resyncs.iter().any(|(_, resync)| resync.rebuild.phase != Phase::Done),
            dead: vec![0, last_dead],
            has_losses: self.any(LOSSES)?,
            definition_version: progress.shape.clone().filter(|_| self.has_definitions()),
            progress: progress_of(progress),
        })
    }

    fn has_definitions(&self) -> bool {
        self.any(DEFINITIONS).unwrap_or(false)
    }

    async fn knows_step(&self, name: &str) -> Result<bool> {
        Ok(self.access().get::<Noted>(STEPS, &named(name)).map_err(said)?.is_some())
    }

    /// Waits for a lock on a relation outside of a transaction; whether it came.
    async fn wait_for(&self, relation: &str, lock: Lock) -> Result<bool> {
        match self.session.lock_relation(relation, lock, Wait::For(LOCK_WAIT)).await {
            Err(Failure::Locked) => Ok(false),
            done => done.map(|()| true).map_err(said),
        }
    }

    async fn try_begin(&self, tables: &[&SourceTable]) -> Result<Begun> {
        self.open(Isolation::RepeatableRead, Some(WAIT_WITHIN))?;
        for source in tables {
            self.check_rights(source)?;
            let locked = self.session.lock_relation(&rows_of(&source.table.name), Lock::AccessShare, Wait::No).await;
            if locked == Err(Failure::Locked) {
                return Ok(Begun::TableTaken);
            }
            locked.map_err(said)?;
        }
        match self.session.lock_relation(QUEUE, Lock::RowExclusive, Wait::No).await {
            Err(Failure::Locked) => Ok(Begun::QueueTaken),
            done => done.map(|()| Begun::Locked).map_err(said),
        }
    }

    async fn insert_step(&self, name: &str) -> Result<()> {
        self.open(Isolation::ReadCommitted, None)?;
        let (access, at) = (self.access(), self.at());
        access.put(STEPS, named(name), Noted(at)).await.map_err(said)?;
        access.delete_where(STEPS, |noted: &Noted| noted.0 + DAY < at).await.map_err(said)?;
        self.session.commit(true).map(drop).map_err(said)
    }
}

fn progress_of(row: ProgressRow) -> Progress {
    let ProgressRow { epoch, seq, token, next_epoch, source_id, queue_id, past_epochs, address, next_refills, .. } =
        row;
    Progress {
        head: epoch.map(|epoch| Head { epoch, seq, token }),
        next_epoch,
        paired_with: source_id.zip(queue_id).map(|(source, queue)| Identity { source, queue }),
        refills: next_refills,
        address,
        past_epochs: past_epochs.into_iter().flatten().collect(),
    }
}

fn time_text(clock: Duration) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(FIRST_DAY) + clock;
    humantime::format_rfc3339_micros(time).to_string().replace('Z', "+00:00")
}

fn name_of(savepoint: Savepoint) -> &'static str {
    match savepoint {
        Savepoint::Take => "take",
        Savepoint::Read => "read",
    }
}

#[async_trait]
impl Transaction for Connection {
    async fn begin(&self, tables: &[&SourceTable]) -> Result<Begun> {
        let begin = async {
            let begun = self.try_begin(tables).await?;
            if begun != Begun::Locked {
                self.session.rollback();
            }
            Ok(begun)
        };
        self.control("begin", begin).await
    }

    async fn begin_waiting(&self, patience: Duration) -> Result<()> {
        self.control("begin_waiting", async { self.open(Isolation::ReadCommitted, Some(patience)) }).await
    }

    async fn commit(&self) -> Result<()> {
        let commit = async {
            match self.session.commit(true) {
                Err(Failure::Aborted) => Ok(()), // Postgres says ROLLBACK, and no error
                done => done.map(drop).map_err(said),
            }
        };
        self.control("commit", commit).await
    }

    async fn rollback(&self) -> Result<()> {
        let rollback = async {
            self.session.rollback();
            Ok(())
        };
        self.control("rollback", rollback).await
    }

    async fn savepoint(&self, name: Savepoint, limit: Option<Duration>) -> Result<()> {
        let set = async {
            self.session.savepoint(name_of(name)).map_err(said)?;
            let mut local = self.local();
            let before = local.limit;
            local.limits.push((name, before));
            local.limit = limit.unwrap_or(before);
            Ok(())
        };
        self.control("savepoint", set).await
    }

    async fn rollback_to(&self, name: Savepoint) -> Result<()> {
        let back = async {
            self.session.rollback_to(name_of(name)).map_err(said)?;
            let mut local = self.local();
            if let Some(place) = local.limits.iter().rposition(|(of, _)| *of == name) {
                local.limit = local.limits[place].1;
                local.limits.truncate(place + 1);
            }
            Ok(())
        };
        self.control("rollback_to", back).await
    }

    async fn release(&self, name: Savepoint) -> Result<()> {
        let release = async {
            self.session.release(name_of(name)).map_err(said)?;
            let mut local = self.local();
            if let Some(place) = local.limits.iter().rposition(|(of, _)| *of == name) {
                local.limits.truncate(place);
            }
            if name == Savepoint::Read {
                local.limit = STATEMENT_TIME;
            }
            Ok(())
        };
        self.control("release", release).await
    }

    async fn limit(&self, time: Duration) -> Result<()> {
        let limit = async {
            self.local().limit = time;
            Ok(())
        };
        self.run("limit", limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.run("ping", async { Ok(()) }).await
    }

    async fn pulse(&self) -> Result<()> {
        self.control("pulse", async { Ok(()) }).await
    }

    async fn wal_position(&self) -> Result<String> {
        self.run("wal_position", async { Ok(self.position()) }).await
    }

    async fn is_flushed(&self, position: &str) -> Result<bool> {
        self.run("is_flushed", async { self.flushed(position) }).await
    }

    async fn flush(&self) -> Result<()> {
        let flush = async {
            if !self.session.is_open() {
                self.memory.postgres.engine().flush();
            }
            Ok(())
        };
        self.control("flush", flush).await
    }
}

impl Opening for Connection {}

#[async_trait]
impl Flight for Connection {
    async fn ensure(&self) -> Result<()> {
        let ensure = async {
            if self.progress()?.is_none() {
                let row = ProgressRow { next_refills: true, ..ProgressRow::default() };
                self.access().put(PROGRESS, only(), row).await.map_err(said)?;
            }
            Ok(())
        };
        self.run("ensure", ensure).await
    }

    async fn lock(&self) -> Result<Option<Snapshot>> {
        let lock = async {
            self.session.lock_row(PROGRESS, &only(), Wait::No).await.map_err(said)?;
            self.snapshot().await
        };
        match self.run("lock", lock).await {
            Err(e) if e.is_locked() => Ok(None),
            done => done.map(Some),
        }
    }

    async fn look(&self) -> Result<Snapshot> {
        let look = async {
            if self.session.is_open() {
                return self.snapshot().await;
            }
            self.open(Isolation::ReadCommitted, Some(WAIT_OF_LOOK))?;
            let running = Running { connection: self, is_alone: true, is_done: false };
            let seen = self.snapshot().await;
            drop(running);
            seen
        };
        self.control("look", look).await
    }

    async fn wait_for_flight(&self) -> Result<bool> {
        let wait = async { self.session.lock_row(PROGRESS, &only(), self.wait()).await.map_err(said) };
        match self.run("wait_for_flight", wait).await {
            Err(e) if e.is_locked() => Ok(false),
            done => done.map(|_| true),
        }
    }

    fn lock_wait(&self) -> Duration {
        LOCK_WAIT
    }

    async fn wait_for_table(&self, source: &SourceTable) -> Result<bool> {
        let wait = async {
            self.check_rights(source)?;
            self.wait_for(&rows_of(&source.table.name), Lock::AccessShare).await
        };
        self.run("wait_for_table", wait).await
    }

    async fn wait_for_queue(&self) -> Result<bool> {
        self.run("wait_for_queue", self.wait_for(QUEUE, Lock::RowExclusive)).await
    }

    async fn blocked(&self, tables: &[&SourceTable]) -> Result<Vec<String>> {
        let is_blocked = |source: &&&SourceTable| {
            let relation = rows_of(&source.table.name);
            self.session.is_locked_by_others(&relation, Lock::AccessExclusive)
                || self.session.is_wanted_by_others(&relation, Lock::AccessExclusive)
        };
        let blocked = async { Ok(tables.iter().filter(is_blocked).map(|source| source.table.name.clone()).collect()) };
        self.run("blocked", blocked).await
    }

    async fn is_waited_for(&self, xid: &str) -> Result<bool> {
        let look = async {
            let xid = xid.parse().map_err(|_| self.raise("22P02", Cause::Row))?;
            Ok(self.memory.postgres.engine().is_waited_for(xid))
        };
        self.run("is_waited_for", look).await
    }

    async fn wake(&self) -> Result<()> {
        let wake = async {
            let (access, more) = (self.access(), |calls: &mut Calls| calls.0 += 1);
            if !access.update(WAKEUP, &only(), more).await.map_err(said)? {
                access.put(WAKEUP, only(), Calls(1)).await.map_err(said)?;
            }
            Ok(())
        };
        self.run("wake", wake).await
    }

    async fn calls(&self) -> Result<i64> {
        let calls = async { Ok(self.access().get::<Calls>(WAKEUP, &only()).map_err(said)?.map_or(0, |calls| calls.0)) };
        self.run("calls", calls).await
    }

    async fn advance(&self, head: &Head, identity: &Identity, is_caught_up: bool) -> Result<()> {
        let advance = async {
            let at = self.at();
            let change = |row: &mut ProgressRow| {
                set_head(row, head, identity);
                row.synced_at = Some(at);
                row.caught_up_at = if is_caught_up { Some(at) } else { row.caught_up_at };
            };
            self.change_progress(change).await
        };
        self.run("advance", advance).await
    }

    async fn announce(&self, epoch: &str, address: &str, refills: bool) -> Result<()> {
        let change = |row: &mut ProgressRow| {
            (row.next_epoch, row.address) = (Some(epoch.to_owned()), Some(address.to_owned()));
            row.next_refills = refills;
        };
        self.run("announce", self.change_progress(change)).await
    }

    async fn pair(&self, head: &Head, identity: &Identity, address: &str) -> Result<()> {
        let pair = async {
            let change = |row: &mut ProgressRow| {
                leave_epoch(row);
                set_head(row, head, identity);
                (row.queue_id, row.next_epoch, row.caught_up_at) = (Some(identity.queue), None, None);
                row.address = Some(address.to_owned());
            };
            self.change_progress(change).await?;
            self.forget::<Kept>(KEPT).await?;
            self.forget::<Verified>(super::tables::VERIFIED).await
        };
        self.run("pair", pair).await
    }

    async fn move_to(&self, address: &str) -> Result<()> {
        self.run("move_to", self.change_progress(|row| row.address = Some(address.to_owned()))).await
    }

    async fn note_healing(&self, divergence: &str) -> Result<()> {
        let note = async {
            let at = self.at();
            let note = |row: &mut ProgressRow| {
                (row.healed_at, row.healed_from) = (Some(at), Some(divergence.to_owned()));
            };
            self.change_progress(note).await
        };
        self.run("note_healing", note).await
    }

    async fn take_losses(&self) -> Result<Vec<(String, String, i64)>> {
        let take = async {
            let gone = self.access().delete_where::<Loss>(LOSSES, |_| true).await.map_err(said)?;
            let mut counted = std::collections::BTreeMap::new();
            for (_, loss) in gone {
                *counted.entry((loss.0.clone(), loss.1.clone())).or_insert(0) += 1;
            }
            Ok(counted.into_iter().map(|((how, who), times)| (how, who, times)).collect())
        };
        self.run("take_losses", take).await
    }

    async fn fates(&self, entries: &[Entry]) -> Result<Vec<Fate>> {
        let mut fates: Vec<Fate> = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            fates.push(match i.checked_sub(1) {
                Some(before) if entries[before].provenance == entry.provenance => fates[before],
                _ => self.run("fates", self.fate(entry)).await?,
            });
        }
        Ok(fates)
    }

    async fn name_step(&self, name: &str) -> Result<()> {
        let insert = async {
            let mut running = Running { connection: self, is_alone: true, is_done: false };
            let done = self.insert_step(name).await;
            running.is_done = done.is_ok();
            done
        };
        self.control("name_step", insert).await
    }

    async fn redeem(&self, id: &str) -> Result<bool> {
        let redeem = async {
            let (access, at) = (self.access(), self.at());
            access.delete_where(REDEEMED, |noted: &Noted| noted.0 + HOUR < at).await.map_err(said)?;
            let is_new = access.get::<Noted>(REDEEMED, &named(id)).map_err(said)?.is_none();
            if is_new {
                access.put(REDEEMED, named(id), Noted(at)).await.map_err(said)?;
            }
            Ok(is_new)
        };
        self.run("redeem", redeem).await
    }

    async fn is_redeemed(&self, id: &str) -> Result<bool> {
        let look = async { Ok(self.access().get::<Noted>(REDEEMED, &named(id)).map_err(said)?.is_some()) };
        self.run("is_redeemed", look).await
    }
}

impl Connection {
    async fn fate(&self, entry: &Entry) -> Result<Fate> {
        if entry.provenance.is_empty() {
            let is_known = self.knows_step(&entry.provenance.digest).await?;
            return Ok(if is_known { Fate::Known } else { Fate::Lost });
        }
        let mut queued = Vec::new();
        for &msg_id in &entry.provenance.messages {
            if let Some(message) = self.access().get::<Message>(QUEUE, &numbered(msg_id)).map_err(said)? {
                queued.push(Taken { msg_id, text: message.text.clone(), is_damaged: false, age_seconds: 0.0 });
            }
        }
        queued.sort_unstable_by_key(|message| message.msg_id);
        Ok(if provenance(queued.iter()) == *entry.provenance { Fate::Queued } else { Fate::Lost })
    }
}

fn set_head(row: &mut ProgressRow, head: &Head, identity: &Identity) {
    (row.epoch, row.seq, row.token) = (Some(head.epoch.clone()), head.seq, head.token.clone());
    row.source_id = Some(identity.source.clone());
}

/// The epoch becomes a past one, and the oldest of many is forgotten.
fn leave_epoch(row: &mut ProgressRow) {
    let first = row.past_epochs.len().saturating_sub(PAST_EPOCHS).max(1) - 1;
    let mut past = std::mem::take(&mut row.past_epochs);
    past.retain(|epoch| *epoch != row.epoch);
    past.push(row.epoch.clone());
    row.past_epochs = past.split_off(first.min(past.len()));
}
