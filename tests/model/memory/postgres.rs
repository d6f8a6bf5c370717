//! The server: its tables, what happens to it, and what a judge may look at.

use super::bell::Listeners;
use super::engine::{Engine, Failure, Isolation, Key, Lock, Session, Wait};
use super::tables::{
    Access, CATALOG, DEAD, LOSSES, Letter, Loss, Message, PROGRESS, ProgressRow, QUEUE, QueueState, RESYNCS, Resync,
    Row, Stored, TableState, Value, named, number, only, rows_of, typed,
};
use super::writer::Writer;
use futures_util::FutureExt;
use pgflume::core::position::Identity;
use pgflume::core::schema::{Column, Schema, Table};
use pgflume::core::value::Cell;
use pgflume::postgres::books::rebuilds::{Phase, Rebuild};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The OID of the database.
const DATABASE: u32 = 16_384;

/// The first OID that something gets.
const FIRST_OID: u32 = 20_000;

/// A server with one database and one queue. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Postgres(Arc<Server>);

struct Server {
    engine: Engine<Value>,
    schema: Arc<Schema>,
    captured: BTreeSet<String>,
    started: Instant,
    /// System identifier and timeline.
    system: Mutex<(u64, u32)>,
    listeners: Listeners,
}

/// What a server is that was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// The same: its files were put back.
    Same,
    /// The same system on another timeline, as after a recovery to a point in time or a promotion.
    Timeline,
    /// Another system with a copy of the database.
    Other,
}

/// A lock that another session holds until this is dropped.
pub struct Held(Session<Value>);

impl Held {
    /// Lets go.
    pub fn release(self) {
        self.0.rollback();
    }
}

impl Postgres {
    /// One with the tables of `schema`, whose changes are marked where they are `captured`, and else sent as images.
    /// Nothing is scheduled: see [`schedule_setup`](Self::schedule_setup).
    pub fn new(schema: Arc<Schema>, captured: &[&str]) -> Self {
        let captured = captured.iter().map(|name| (*name).to_owned()).collect();
        let system = Mutex::new((1, 1));
        let (engine, listeners) = (Engine::new(), Listeners::default());
        let postgres = Self(Arc::new(Server { engine, schema, captured, started: Instant::now(), system, listeners }));
        postgres.create().now_or_never().unwrap().unwrap();
        postgres
    }

    async fn create(&self) -> Result<(), Failure> {
        let session = self.engine().session();
        session.begin(Isolation::ReadCommitted)?;
        let access = Access { session: &session, wait: Wait::No };
        for table in self.schema().tables() {
            let columns =
                (1..).zip(&table.columns).map(|(number, column)| (column.clone(), number, Cell::Null)).collect();
            let (oid, version) = (self.next_oid(&session)?, session.next("ddl")?);
            access.put(CATALOG, named(&table.name), TableState { oid, version, is_readable: true, columns }).await?;
        }
        let oid = self.next_oid(&session)?;
        access.put(CATALOG, only(), QueueState(oid)).await?;
        session.commit(true).map(drop)
    }

    fn next_oid(&self, session: &Session<Value>) -> Result<u32, Failure> {
        Ok(FIRST_OID + session.next("oid")? as u32)
    }

    /// Who is notified.
    pub fn listeners(&self) -> &Listeners {
        &self.0.listeners
    }

    pub fn engine(&self) -> &Engine<Value> {
        &self.0.engine
    }

    pub fn schema(&self) -> &Arc<Schema> {
        &self.0.schema
    }

    pub fn is_captured(&self, table: &str) -> bool {
        self.0.captured.contains(table)
    }

    /// The definition of a table. One that there is not is the caller's mistake.
    pub fn table(&self, name: &str) -> &Arc<Table> {
        self.0.schema.get(name).unwrap()
    }

    /// Time since the server was made.
    pub fn clock(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// A table as the newest catalog has it.
    pub fn state(&self, table: &str) -> Arc<TableState> {
        let state = self.0.engine.committed_row(CATALOG, &named(table)).unwrap();
        TableState::unwrap(&state).unwrap().clone()
    }

    /// The queue's OID in the newest catalog.
    pub fn queue_oid(&self) -> u32 {
        let state = self.0.engine.committed_row(CATALOG, &only());
        state.as_ref().and_then(QueueState::unwrap).map_or(0, |queue| queue.0)
    }

    /// The sequence of the queue's ids.
    pub fn ids(&self) -> String {
        format!("msg_id/{}", self.queue_oid())
    }

    /// What this server is now.
    pub fn identity(&self) -> Identity {
        let (system, timeline) = *self.0.system.lock().unwrap_or_else(PoisonError::into_inner);
        Identity { source: format!("{system}/{timeline:08X}/{DATABASE}"), queue: self.queue_oid() }
    }

    /// What a replica says that it belongs to.
    pub fn owner(&self, queue: &str) -> String {
        let (system, _) = *self.0.system.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{system}-{DATABASE}/{queue}/memory")
    }

    /// An application's transaction.
    pub fn writer(&self) -> Writer {
        Writer::new(self.clone())
    }

    /// Inserts or updates a row in a transaction of its own.
    pub async fn put(&self, table: &str, row: Row) -> Result<u64, Failure> {
        let mut writer = self.writer();
        writer.put(table, row).await?;
        writer.commit(true)
    }

    /// Deletes a row in a transaction of its own.
    pub async fn delete(&self, table: &str, key: &[String]) -> Result<u64, Failure> {
        let mut writer = self.writer();
        writer.delete(table, key).await?;
        writer.commit(true)
    }

    /// Puts a message on the queue in a transaction of its own; its id.
    pub async fn send(&self, text: Option<&str>) -> Result<i64, Failure> {
        let mut writer = self.writer();
        let id = writer.send(text).await?;
        writer.commit(true).map(|_| id)
    }

    /// Deletes all messages that are there, as others do; how many.
    pub async fn purge(&self) -> Result<usize, Failure> {
        let mut writer = self.writer();
        let ids: Vec<i64> = self.queue().into_iter().map(|(id, _)| id).collect();
        let mut gone = 0;
        for id in ids {
            gone += usize::from(writer.delete_message(id).await?);
        }
        writer.commit(true).map(|_| gone)
    }

    /// Locks a table, the queue ([`QUEUE`]) or the dead letters ([`DEAD`]) until what comes back is dropped.
    pub async fn lock(&self, place: &str, lock: Lock, wait: Wait) -> Result<Held, Failure> {
        let session = self.engine().session();
        session.begin(Isolation::ReadCommitted)?;
        let is_table = self.schema().get(place).is_some();
        let relation = if is_table { rows_of(place) } else { place.to_owned() };
        session.lock_relation(&relation, lock, wait).await?;
        Ok(Held(session))
    }

    /// Asks for the copies that `setup` asks for.
    pub async fn schedule_setup(&self) -> Result<(), Failure> {
        let session = self.engine().session();
        session.begin(Isolation::ReadCommitted)?;
        let access = Access { session: &session, wait: Wait::For(Duration::from_secs(1)) };
        for name in &self.0.captured {
            access.put(RESYNCS, named(name), asked(name, "setup", self.clock())).await?;
        }
        session.commit(true).map(drop)
    }

    /// Adds a column that old rows have this value of.
    pub async fn add_column(&self, table: &str, column: Column, value: Cell, wait: Wait) -> Result<(), Failure> {
        let add = |state: &mut TableState| {
            let number = state.columns.iter().map(|(_, number, _)| *number).max().unwrap_or(0) + 1;
            state.columns.push((column, number, value));
        };
        self.alter(table, wait, add, |_| false).await
    }

    /// Drops a column and makes it anew, with this value in all rows: nothing marks that.
    pub async fn alter_type(&self, table: &str, column: &str, value: Cell, wait: Wait) -> Result<(), Failure> {
        let position = self.table(table).position(column).unwrap();
        let renumber = |state: &mut TableState| {
            let number = state.columns.iter().map(|(_, number, _)| *number).max().unwrap_or(0) + 1;
            state.columns[position].1 = number;
        };
        let change = |row: &mut Row| {
            row.cells[position] = value.clone();
            true
        };
        self.alter(table, wait, renumber, change).await
    }

    /// Revokes the worker's right to read a table. Locks nothing.
    pub async fn drop_access(&self, table: &str) -> Result<(), Failure> {
        self.change_catalog(table, |state| state.is_readable = false).await
    }

    /// Grants it again.
    pub async fn restore_access(&self, table: &str) -> Result<(), Failure> {
        self.change_catalog(table, |state| state.is_readable = true).await
    }

    async fn change_catalog(&self, table: &str, change: impl FnOnce(&mut TableState)) -> Result<(), Failure> {
        let session = self.engine().session();
        session.begin(Isolation::ReadCommitted)?;
        self.write_catalog(&session, table, change).await?;
        session.commit(true).map(drop)
    }

    async fn write_catalog(
        &self,
        session: &Session<Value>,
        table: &str,
        change: impl FnOnce(&mut TableState),
    ) -> Result<(), Failure> {
        let access = Access { session, wait: Wait::For(Duration::from_secs(1)) };
        let version = session.next("ddl")?;
        let change = |state: &mut TableState| {
            change(state);
            state.version = version;
        };
        access.update(CATALOG, &named(table), change).await.map(drop)
    }

    /// An ALTER TABLE, which shuts everybody out, and changes rows without marks.
    async fn alter(
        &self,
        table: &str,
        wait: Wait,
        change: impl FnOnce(&mut TableState),
        change_row: impl Fn(&mut Row) -> bool,
    ) -> Result<(), Failure> {
        let (session, relation) = (self.engine().session(), rows_of(table));
        session.begin(Isolation::ReadCommitted)?;
        session.lock_relation(&relation, Lock::AccessExclusive, wait).await?;
        self.write_catalog(&session, table, change).await?;
        let access = Access { session: &session, wait };
        for (key, row) in access.scan::<Row>(&relation)? {
            let mut row = (*row).clone();
            if change_row(&mut row) {
                access.put(&relation, key, row).await?;
            }
        }
        session.commit(true).map(drop)
    }

    /// Drops the queue and makes another one of its name.
    pub async fn recreate_queue(&self, wait: Wait) -> Result<(), Failure> {
        let session = self.engine().session();
        session.begin(Isolation::ReadCommitted)?;
        session.truncate(QUEUE, wait).await?;
        let oid = self.next_oid(&session)?;
        Access { session: &session, wait }.put(CATALOG, only(), QueueState(oid)).await?;
        session.commit(true).map(drop)
    }

    /// The server stops and starts: what was not flushed is lost, and all sessions are gone.
    pub fn crash(&self) {
        self.engine().crash();
    }

    /// The server is put back to a commit; says to which. All sessions are gone.
    pub fn restore(&self, to: u64, how: Restored) -> u64 {
        let mut system = self.0.system.lock().unwrap_or_else(PoisonError::into_inner);
        match how {
            Restored::Same => {}
            Restored::Timeline => system.1 += 1,
            Restored::Other => *system = (system.0 + 1, 1),
        }
        self.engine().restore(to)
    }

    /// A standby takes over that has all that was flushed.
    pub fn promote(&self) -> u64 {
        self.restore(self.engine().flushed(), Restored::Timeline)
    }

    /// Rows of a table that are committed, in the order of their keys.
    pub fn rows(&self, table: &str) -> Vec<Arc<Row>> {
        self.rows_at(table, u64::MAX)
    }

    /// The same as a commit left them.
    pub fn rows_at(&self, table: &str, commit: u64) -> Vec<Arc<Row>> {
        self.at(&rows_of(table), commit)
    }

    fn at<T: Stored>(&self, relation: &str, commit: u64) -> Vec<Arc<T>> {
        typed(self.engine().read_at(relation, commit)).into_iter().map(|(_, row)| row).collect()
    }

    /// Messages that are committed, in the order of their ids.
    pub fn queue(&self) -> Vec<(i64, Arc<Message>)> {
        by_number(self.engine().committed(QUEUE))
    }

    /// Dead letters.
    pub fn letters(&self) -> Vec<(i64, Arc<Letter>)> {
        by_number(self.engine().committed(DEAD))
    }

    /// Where the replica is, as acknowledged.
    pub fn progress(&self) -> Option<Arc<ProgressRow>> {
        self.at(PROGRESS, u64::MAX).pop()
    }

    /// What others took off the queue.
    pub fn losses(&self) -> Vec<Arc<Loss>> {
        self.at(LOSSES, u64::MAX)
    }

    /// The newest commit.
    pub fn now(&self) -> u64 {
        self.engine().now()
    }
}

fn by_number<T: Stored>(rows: Vec<(Key, Value)>) -> Vec<(i64, Arc<T>)> {
    typed(rows).into_iter().map(|(key, value)| (number(&key), value)).collect()
}

/// A copy that was asked for and not begun.
pub fn asked(name: &str, reason: &str, at: Duration) -> Resync {
    let rebuild = Rebuild {
        name: name.to_owned(),
        phase: Phase::Copy,
        cursor: None,
        fresh: false,
        rows: 0,
        removed: 0,
        estimated: None,
        busy_ms: 0,
        problem: None,
        unfit: 0,
        ordered_by: None,
    };
    Resync { rebuild, reason: reason.to_owned(), requested_at: at, started_at: None, finished_at: None }
}
