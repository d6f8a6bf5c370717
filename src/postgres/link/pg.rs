//! The seam over a real Postgres: each call is a function of this wing on one pinned connection.

use super::connect::{Connect, Link};
use super::journal::{Begun, Bell, Books, Flight, Queue, ReadsMessage, Savepoint, Transaction};
use super::known::{self, Known};
use super::opening::{Opened, Opening};
use super::source::{Page, Pages, Reading, Source};
use crate::core::error::{Error, Result};
use crate::core::event::Event;
use crate::core::message::MarkedKey;
use crate::core::position::{Entry, Fate, Head, Identity};
use crate::core::queue_name::QueueName;
use crate::core::reconcile::RetainedStep;
use crate::core::schema::Schema;
use crate::core::token::Seen;
use crate::postgres::bell::{self, Doze};
use crate::postgres::books::comparisons::{self, Pass};
use crate::postgres::books::dead_letters::{self, Dead, DeadLetter, Refusal, Supersedable, Superseded};
use crate::postgres::books::progress::{self, Snapshot};
use crate::postgres::books::rebuilds::{self, Phase, Reason, Rebuild};
use crate::postgres::books::{outbox, retained};
use crate::postgres::catalog::SourceTable;
use crate::postgres::drift::definition_version::{self, DefinitionVersion, Outgrown};
use crate::postgres::drift::watch::Watch;
use crate::postgres::drift::{self, Drift};
use crate::postgres::error::of_rows;
use crate::postgres::queue::{self, Take, Taken, TakenMessages};
use crate::postgres::rows::page::{self, Cursor, PageReader, Size};
use crate::postgres::rows::{self, Server};
use crate::postgres::{Client, PgUrl, Purpose};
use crate::replica::inventory::Inventory;
use async_trait::async_trait;
use futures_util::TryStreamExt;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio_postgres::types::Type;

/// One queue in one Postgres, and what is replicated of it.
#[derive(Clone)]
pub struct Pg {
    /// Where it is.
    pub url: PgUrl,
    /// Its queue.
    pub queue: QueueName,
    /// What `schema.json` says.
    pub schema: Arc<Schema>,
    /// Bytes beyond which a row is not fetched.
    pub row_bytes: i64,
    /// Whether others are told of events.
    pub has_events: bool,
    /// How one of its connections sees whether the catalog has changed: the same way for all.
    pub watch: Arc<Mutex<Option<Watch>>>,
}

#[async_trait]
impl Connect for Pg {
    async fn connect(&self, purpose: Purpose) -> Result<Box<dyn Link>> {
        let client = self.url.pinned(purpose).await?;
        let (server, source, watch) = (OnceCell::new(), OnceLock::new(), Mutex::default());
        Ok(Box::new(Connection { client, pg: self.clone(), server, source, watch }))
    }
}

/// A connection to it.
struct Connection {
    client: Client,
    pg: Pg,
    server: OnceCell<Server>,
    /// Which Postgres this session is of: system, timeline and database. A session ends before any of them changes.
    source: OnceLock<String>,
    /// How to see whether the catalog has changed since this connection has read it.
    watch: Mutex<Option<Watch>>,
}

impl Connection {
    /// What of this server decides how a step begins. Asked before one, once.
    async fn server(&self) -> Result<Server> {
        self.server.get_or_try_init(|| Server::ask(&self.client)).await.copied()
    }

    /// Which Postgres this is, as far as it need not be asked: a pooler may come to another one.
    fn source(&self) -> Option<&str> {
        self.source.get().filter(|_| self.client.is_claimed()).map(String::as_str)
    }

    fn remember(&self, snapshot: &Snapshot) {
        if self.client.is_claimed() {
            self.source.get_or_init(|| snapshot.identity.source.clone());
        }
    }

    fn watch(&self) -> Result<Watch> {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        watch.ok_or_else(|| Error::retry("the catalog was not read yet; it will be tried again"))
    }
}

#[async_trait]
impl Opening for Connection {
    async fn open(
        &self,
        tables: &[&SourceTable],
        looks: bool,
        take: Take<'_>,
        read: &mut ReadsMessage<'_>,
    ) -> Result<Option<Opened>> {
        // Nothing is to be waited for between what follows. And where the beginning is cancelled before it has begun,
        // each is a transaction of its own: a take that finds itself in one takes nothing.
        let (client, Pg { queue, schema, .. }) = (&self.client, &self.pg);
        let (server, watch) = (self.server().await?, self.watch()?);
        let look = async { if looks { Some(watch.look(client, schema, queue).await) } else { None } };
        // One round trip: each is sent behind the one before, and fails where that one has.
        let (begun, held, locked, fingerprint, placed, taken, measured) = futures_util::join!(
            rows::begin(client, tables, server),
            queue::hold(client, queue),
            progress::lock(client, queue, self.source()),
            look,
            self.savepoint(Savepoint::Take, None),
            queue::take(client, queue, take, read),
            rows::note_large(client, tables.to_vec())
        );
        let snapshot = match (begun, held) {
            (Ok(()), Ok(())) => locked?,
            _ => None, // why is found where there is time for it
        };
        let Some(snapshot) = snapshot else {
            client.rollback().await?;
            return Ok(None);
        };
        self.remember(&snapshot);
        Ok(Some(Opened { snapshot, fingerprint, taken: placed.and(taken), measured }))
    }
}

/// Whether a lock came.
fn unless_locked(waited: Result<()>) -> Result<bool> {
    match waited {
        Err(e) if e.is_locked() => Ok(false),
        waited => waited.map(|()| true),
    }
}

fn name_of(savepoint: Savepoint) -> &'static str {
    match savepoint {
        Savepoint::Take => "pgflume_take",
        Savepoint::Read => "pgflume_read",
    }
}

fn limited(sql: &str, time: Duration) -> String {
    format!("{sql}; set local statement_timeout = {}", time.as_millis())
}

#[async_trait]
impl Transaction for Connection {
    async fn begin(&self, tables: &[&SourceTable]) -> Result<Begun> {
        let server = self.server().await?;
        // One round trip: the second is sent behind the first.
        let holding = queue::hold(&self.client, &self.pg.queue);
        let (begun, held) = futures_util::join!(rows::begin(&self.client, tables, server), holding);
        let how = match (unless_locked(begun), unless_locked(held)) {
            (Ok(true), Ok(true)) => return Ok(Begun::Locked),
            (Ok(true), Ok(false)) => Begun::QueueTaken,
            (Ok(false), _) => Begun::TableTaken,
            (Err(e), _) | (_, Err(e)) => return Err(e),
        };
        self.client.rollback().await?;
        Ok(how)
    }

    async fn begin_waiting(&self, patience: Duration) -> Result<()> {
        rows::begin_waiting(&self.client, patience).await
    }

    async fn commit(&self) -> Result<()> {
        Ok(self.client.commit().await?)
    }

    async fn rollback(&self) -> Result<()> {
        Ok(self.client.rollback().await?)
    }

    async fn savepoint(&self, name: Savepoint, limit: Option<Duration>) -> Result<()> {
        let sql = format!("savepoint {}", name_of(name));
        let sql = limit.map_or(sql.clone(), |limit| limited(&sql, limit));
        Ok(self.client.batch_execute(&sql).await?)
    }

    async fn rollback_to(&self, name: Savepoint) -> Result<()> {
        Ok(self.client.batch_execute(&format!("rollback to savepoint {}", name_of(name))).await?)
    }

    async fn release(&self, name: Savepoint) -> Result<()> {
        let sql = format!("release savepoint {}", name_of(name));
        let sql = if name == Savepoint::Read { limited(&sql, rows::STATEMENT_TIME) } else { sql };
        Ok(self.client.batch_execute(&sql).await?)
    }

    async fn limit(&self, time: Duration) -> Result<()> {
        Ok(self.client.batch_execute(&limited("select", time)).await?)
    }

    fn claim(&self) {
        self.client.claim();
    }

    async fn prepare(&self) -> Result<()> {
        let settings = rows::settings_of(self.server().await?);
        Ok(self.client.prepare(&settings).await?)
    }

    async fn ping(&self) -> Result<()> {
        Ok(self.client.batch_execute("select 1").await?)
    }

    async fn pulse(&self) -> Result<()> {
        Ok(self.client.pulse().await?)
    }

    async fn wal_position(&self) -> Result<String> {
        rows::wal_position(&self.client).await
    }

    async fn is_flushed(&self, position: &str) -> Result<bool> {
        rows::is_flushed(&self.client, position).await
    }

    async fn flush(&self) -> Result<()> {
        rows::flush(&self.client).await
    }
}

#[async_trait]
impl Flight for Connection {
    async fn ensure(&self) -> Result<()> {
        progress::ensure(&self.client, &self.pg.queue).await
    }

    async fn is_ensured(&self) -> Result<bool> {
        progress::is_ensured(&self.client, &self.pg.queue).await
    }

    async fn lock(&self) -> Result<Option<Snapshot>> {
        let snapshot = progress::lock(&self.client, &self.pg.queue, self.source()).await?;
        Ok(snapshot.inspect(|snapshot| self.remember(snapshot)))
    }

    async fn look(&self) -> Result<Snapshot> {
        progress::look(&self.client, &self.pg.queue).await
    }

    async fn wait_for_flight(&self) -> Result<bool> {
        unless_locked(progress::wait_for_lock(&self.client, &self.pg.queue).await)
    }

    fn lock_wait(&self) -> Duration {
        self.server.get().map_or(rows::LONGEST_LOCK_WAIT, |server| server.lock_wait)
    }

    async fn wait_for_table(&self, source: &SourceTable) -> Result<bool> {
        unless_locked(rows::wait_for(&self.client, source, self.lock_wait()).await)
    }

    async fn wait_for_queue(&self) -> Result<bool> {
        unless_locked(queue::wait_for(&self.client, &self.pg.queue, self.lock_wait()).await)
    }

    async fn blocked(&self, tables: &[&SourceTable]) -> Result<Vec<String>> {
        let oids: Vec<u32> = tables.iter().map(|source| source.oid).collect();
        let sql = include_str!("../../../sql/locked_tables.sql");
        let rows = self.client.query_typed(sql, &[(&oids, Type::OID_ARRAY)]).await?;
        let found = rows.iter().map(|row| Ok(row.try_get::<_, u32>(0)?)).collect::<Result<Vec<_>>>()?;
        let is_found = |source: &&&SourceTable| found.contains(&source.oid);
        Ok(tables.iter().filter(is_found).map(|source| source.table.name.clone()).collect())
    }

    async fn is_waited_for(&self, xid: &str) -> Result<bool> {
        let sql = include_str!("../../../sql/waited_for.sql");
        let row = self.client.query_typed_one(sql, &[(&xid, Type::TEXT)]).await?;
        Ok(row.try_get(0)?)
    }

    async fn tell(&self, events: &[Event]) -> Result<()> {
        if self.pg.has_events { outbox::add(&self.client, &self.pg.queue, events).await } else { Ok(()) }
    }

    async fn wake(&self) -> Result<()> {
        progress::wake(&self.client, &self.pg.queue).await
    }

    async fn calls(&self) -> Result<i64> {
        progress::calls(&self.client, &self.pg.queue).await
    }

    async fn advance(&self, head: &Head, identity: &Identity, is_caught_up: bool) -> Result<()> {
        progress::advance(&self.client, &self.pg.queue, head, identity, is_caught_up).await
    }

    async fn announce(&self, epoch: &str, address: &str, refills: bool) -> Result<()> {
        progress::announce(&self.client, &self.pg.queue, epoch, address, refills).await
    }

    async fn pair(&self, head: &Head, identity: &Identity, address: &str) -> Result<()> {
        progress::pair(&self.client, &self.pg.queue, head, identity, address).await
    }

    async fn move_to(&self, address: &str) -> Result<()> {
        progress::move_to(&self.client, &self.pg.queue, address).await
    }

    async fn note_healing(&self, divergence: &str) -> Result<()> {
        progress::note_healing(&self.client, &self.pg.queue, divergence).await?;
        self.tell(&[Event::healed(divergence)]).await
    }

    async fn take_losses(&self) -> Result<Vec<(String, String, i64)>> {
        progress::take_losses(&self.client, &self.pg.queue).await
    }

    async fn fates(&self, entries: &[Entry]) -> Result<Vec<Fate>> {
        progress::fates(&self.client, &self.pg.queue, entries).await
    }

    async fn name_step(&self, name: &str) -> Result<()> {
        progress::name_step(&self.client, &self.pg.queue, name).await
    }

    async fn redeem(&self, id: &str) -> Result<bool> {
        progress::redeem(&self.client, id).await
    }

    async fn is_redeemed(&self, id: &str) -> Result<bool> {
        progress::is_redeemed(&self.client, id).await
    }
}

#[async_trait]
impl Bell for Connection {
    async fn listen(&self) -> Result<bool> {
        bell::listen(&self.client, &self.pg.queue).await
    }

    async fn ring(&self, word: &str) -> Result<()> {
        bell::ring(&self.client, &self.pg.queue, word).await
    }

    async fn doze(&self) -> Result<Doze> {
        bell::doze(&self.client, &self.pg.queue).await
    }

    async fn rung(&self) -> String {
        self.client.rung().await
    }

    async fn is_listening(&self) -> Result<bool> {
        bell::is_listening(&self.client, &self.pg.queue).await
    }

    fn rouse(&self) {
        bell::rouse(&self.client, &self.pg.queue);
    }

    async fn wait_behind(&self) -> Result<bool> {
        bell::wait_behind(&self.client, &self.pg.queue).await
    }

    async fn waiter(&self) -> Result<Option<i32>> {
        bell::waiter(&self.client, &self.pg.queue).await
    }

    async fn doze_behind(&self, waiter: i32) -> Result<Doze> {
        bell::doze_behind(&self.client, &self.pg.queue, waiter).await
    }

    fn call_off(&self, waiter: i32) {
        bell::call_off(&self.client, waiter);
    }
}

#[async_trait]
impl Queue for Connection {
    async fn take(&self, take: Take<'_>, read: &mut ReadsMessage<'_>) -> Result<TakenMessages> {
        queue::take(&self.client, &self.pg.queue, take, read).await
    }

    async fn acknowledge(&self, ids: &[i64], keeps: bool) -> Result<Vec<Taken>> {
        queue::acknowledge(&self.client, &self.pg.queue, ids, keeps).await
    }

    async fn mark(&self, table: &str, keys: &[MarkedKey]) -> Result<i64> {
        queue::mark(&self.client, &self.pg.queue, table, keys).await
    }

    async fn send_again(&self, messages: &[(Option<i64>, String)]) -> Result<()> {
        dead_letters::send_again(&self.client, &self.pg.queue, messages).await
    }

    async fn dead_letter_large(&self, ids: &[i64], reason: &str) -> Result<u64> {
        let made = queue::dead_letter_large(&self.client, &self.pg.queue, ids, reason).await?;
        let events: Vec<Event> = (0..made).map(|_| Event::dead_letter(None, Refusal::Message.name(), reason)).collect();
        self.tell(&events).await?;
        Ok(made)
    }

    async fn has_any(&self) -> Result<bool> {
        queue::has_any(&self.client, &self.pg.queue).await
    }

    async fn peek(&self) -> Result<bool> {
        queue::peek(&self.client, &self.pg.queue).await
    }

    async fn depth(&self) -> Result<i64> {
        queue::depth(&self.client, &self.pg.queue).await
    }

    async fn counted(&self) -> Result<Option<i64>> {
        queue::counted(&self.client, &self.pg.queue).await
    }
}

#[async_trait]
impl Books for Connection {
    async fn schedule(&self, names: &[&str], reason: Reason) -> Result<()> {
        rebuilds::schedule(&self.client, &self.pg.queue, names, reason).await
    }

    async fn schedule_sweep(&self, name: &str) -> Result<()> {
        rebuilds::schedule_sweep(&self.client, &self.pg.queue, name).await
    }

    async fn restart_rebuilds(&self) -> Result<()> {
        rebuilds::restart(&self.client, &self.pg.queue).await
    }

    async fn cancel_rebuilds(&self) -> Result<()> {
        rebuilds::cancel(&self.client, &self.pg.queue).await
    }

    async fn pending(&self) -> Result<Vec<Rebuild>> {
        rebuilds::pending(&self.client, &self.pg.queue).await
    }

    async fn rebuilding(&self) -> Result<u64> {
        rebuilds::waiting(&self.client, &self.pg.queue, &self.pg.schema).await
    }

    async fn record_rebuild(&self, rebuild: &Rebuild) -> Result<()> {
        let is_first = rebuilds::advance(&self.client, &self.pg.queue, rebuild).await?;
        let started = is_first.then(|| Event::copy_started(&rebuild.name));
        let is_done = rebuild.phase == Phase::Done;
        let finished = is_done.then(|| Event::copy_finished(&rebuild.name, rebuild.rows, rebuild.removed));
        self.tell(&started.into_iter().chain(finished).collect::<Vec<_>>()).await
    }

    async fn note_empty(&self, names: &[&str]) -> Result<()> {
        rebuilds::note_empty(&self.client, &self.pg.queue, names).await
    }

    async fn set_problem(&self, name: &str, problem: &str) -> Result<()> {
        rebuilds::set_problem(&self.client, &self.pg.queue, name, problem).await
    }

    async fn retain(&self, after: &Head, tokens: &[String], copied: &BTreeSet<String>, window: Duration) -> Result<()> {
        retained::record(&self.client, &self.pg.queue, after, tokens, copied, window).await
    }

    async fn retained(&self, epoch: &str) -> Result<Vec<RetainedStep>> {
        retained::steps(&self.client, &self.pg.queue, epoch).await
    }

    async fn can_put_back(&self, epoch: &str, seq: i64) -> Result<bool> {
        retained::can_put_back(&self.client, &self.pg.queue, epoch, seq).await
    }

    async fn put_back(&self, epoch: &str, seq: i64) -> Result<u64> {
        retained::put_back(&self.client, &self.pg.queue, epoch, seq).await
    }

    async fn dead_letter(&self, letters: &[DeadLetter], known: &Supersedable) -> Result<()> {
        dead_letters::dead_letter(&self.client, &self.pg.queue, letters, known).await?;
        let event =
            |letter: &DeadLetter| Event::dead_letter(letter.table.as_deref(), letter.class.name(), &letter.reason);
        self.tell(&letters.iter().map(event).collect::<Vec<_>>()).await
    }

    async fn supersede(&self, superseded: &Superseded) -> Result<u64> {
        dead_letters::supersede(&self.client, &self.pg.queue, superseded).await
    }

    async fn supersedable(&self) -> Result<Supersedable> {
        Supersedable::read(&self.client, &self.pg.queue).await
    }

    async fn letters_of(&self, table: &str) -> Result<Vec<Dead>> {
        dead_letters::of_table(&self.client, &self.pg.queue, table).await
    }

    async fn comparison(&self, table: &str, ordering: &str) -> Result<Pass> {
        comparisons::load(&self.client, &self.pg.queue, table, ordering).await
    }

    async fn record_comparison(&self, table: &str, pass: &Pass, ordering: &str) -> Result<()> {
        comparisons::save(&self.client, &self.pg.queue, table, pass, ordering).await
    }

    async fn finish_comparison(&self, table: &str, pass: &Pass, seconds: Option<f64>) -> Result<()> {
        comparisons::finish(&self.client, &self.pg.queue, table, pass, seconds).await?;
        let event = (pass.different > 0).then(|| Event::difference(table, pass.rows, pass.different));
        self.tell(event.as_slice()).await
    }

    async fn forget_compared(&self) -> Result<()> {
        progress::forget_compared(&self.client, &self.pg.queue).await
    }

    async fn recorded_definitions(&self) -> Result<BTreeSet<String>> {
        definition_version::kept(&self.client, &self.pg.queue).await
    }

    async fn record_definitions(&self, definitions: &DefinitionVersion) -> Result<Vec<Outgrown>> {
        definitions.clone().store(&self.client, &self.pg.queue).await
    }
}

#[async_trait]
impl Source for Connection {
    async fn known(&self) -> Result<Known> {
        let Pg { schema, queue, row_bytes, .. } = &self.pg;
        self.client.forget_prepared();
        let (watch, known) = known::read(&self.client, schema, queue, *row_bytes).await?;
        for place in [&self.watch, &*self.pg.watch] {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch.clone());
        }
        Ok(known)
    }

    async fn fingerprint(&self) -> Result<String> {
        self.watch()?.look(&self.client, &self.pg.schema, &self.pg.queue).await
    }

    async fn fingerprint_beside(&self) -> Result<Option<(String, Seen)>> {
        let watch = self.pg.watch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(watch) = watch else { return Ok(None) };
        watch.look_beside(&self.client, &self.pg.schema, &self.pg.queue).await
    }

    async fn drift(&self, replica: Option<&Inventory>) -> Result<Vec<Drift>> {
        drift::check(&self.client, &self.pg.queue, &self.pg.schema, replica).await
    }

    async fn measure(&self, sources: &[&SourceTable]) -> Result<()> {
        rows::note_large(&self.client, sources.to_vec()).await
    }

    async fn read<'a>(&'a self, source: &'a SourceTable, keys: &'a [MarkedKey], may_span: bool) -> Result<Reading<'a>> {
        let rows = rows::read(&self.client, source, keys, may_span).await.map_err(of_rows)?;
        Ok(Box::pin(rows.map_err(of_rows)))
    }

    async fn page<'a>(&'a self, source: &'a SourceTable, after: Option<&'a Cursor>, rows: i64) -> Result<Pages<'a>> {
        Ok(Box::pin(page::read(&self.client, source, after, rows).await.map_err(of_rows)?))
    }

    async fn next_place(&self, source: &SourceTable, after: Option<&Cursor>) -> Result<Option<Cursor>> {
        page::boundary(&self.client, source, after, 1).await
    }

    async fn size(&self, source: &SourceTable) -> Result<Size> {
        page::size_of(&self.client, source).await
    }

    async fn is_empty(&self, source: &SourceTable) -> Result<bool> {
        rows::is_empty(&self.client, source).await.map_err(of_rows)
    }

    async fn absent(&self, source: &SourceTable, keys: &[Vec<String>]) -> Result<Vec<usize>> {
        rows::absent::among(&self.client, source, keys).await.map_err(of_rows)
    }

    async fn absent_by_text(&self, source: &SourceTable, keys: &[Vec<String>], filtered: bool) -> Result<Vec<usize>> {
        rows::absent::among_texts(&self.client, source, keys, filtered).await.map_err(of_rows)
    }

    async fn try_key(&self, source: &SourceTable, key: &[String]) -> Result<()> {
        rows::absent::try_key(&self.client, source, key).await.map_err(of_rows)
    }
}

impl Page for PageReader<'_> {
    fn place(&self) -> Result<Option<Cursor>> {
        Self::place(self)
    }

    fn is_last(&self) -> bool {
        Self::is_last(self)
    }
}
