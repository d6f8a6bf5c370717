//! A connection whose every statement sees an empty `search_path`. Whoever may create a function in a schema of the
//! login's path could otherwise have it run as us: a better-matching overload wins over Postgres' own, although
//! `pg_catalog` is searched first. Set within each transaction, so that it holds through a transaction pooler, too.

use super::prepared::Prepared;
use super::purpose::Purpose;
use futures_util::{FutureExt as _, Stream};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Sleep;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row, SimpleQueryMessage};
use uuid::Uuid;

/// What each transaction begins with. Names within types and definitions are compared with what was written down earlier.
pub(crate) const PINNED: &str = "set local search_path = ''; set local quote_all_identifiers = off";

/// How values are written as text, and read from it. What a client is told of a row that it wrote is compared with what it was
/// fed of it, so both are written alike.
pub(crate) const WRITTEN_ALIKE: &str = "set local timezone = 'UTC';
set local datestyle = 'ISO, YMD';
set local intervalstyle = 'postgres';
set local bytea_output = 'hex';
set local extra_float_digits = 3;
set local lc_monetary = 'C';
set local xmloption = 'content';
set local array_nulls = on;
set local standard_conforming_strings = on";

/// Postgres ends a transaction of which it has heard nothing for so long: its process is stopped, or its connection is,
/// and others wait for what it holds. Longer than one question to the replica may take; see the module `awake`.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);

/// A statement's parameters with their types: they are not asked for, which would take a prepared statement.
pub(crate) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

fn types<'a>(parameters: Parameters<'a>) -> impl Iterator<Item = &'a Type> {
    parameters.iter().map(|(_, of)| of)
}

fn values<'a>(parameters: Parameters<'a>) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters.iter().map(|(value, _)| *value).collect()
}

/// A connection. Inside of [`begin`](Self::begin) … [`commit`](Self::commit) statements run in that transaction; outside, each
/// runs in one of its own, in one round trip. Its driver runs on its own task and ends with it.
pub struct Client {
    inner: tokio_postgres::Client,
    /// Whether a transaction was begun and not ended: then it is pinned already.
    is_open: AtomicBool,
    /// What the transaction at hand was begun with: nobody else can say it. See [`begun`](Self::begun).
    begun: Mutex<String>,
    limit: Limit,
    rings: Arc<Rings>,
    prepared: Prepared,
}

/// What others have notified a connection of.
#[derive(Default)]
pub(crate) struct Rings {
    last: Mutex<String>,
    any: Notify,
}

impl Rings {
    /// Somebody notified, with this word; or the connection has ended.
    pub(super) fn hear(&self, word: &str) {
        word.clone_into(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner));
        self.any.notify_one();
    }
}

/// How long an answer may take. Whoever gets none closes the connection, so that whatever else waits for it ends, too.
#[derive(Clone)]
struct Limit {
    purpose: Purpose,
    driver: AbortHandle,
}

impl Limit {
    fn close(&self) {
        let (connection, seconds) = (self.purpose.name(), self.purpose.patience().as_secs());
        tracing::warn!(connection, seconds, "Postgres does not answer: the connection is given up");
        self.driver.abort();
    }

    /// The answer, or that the connection is closed.
    async fn answer<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut call = pin!(call);
        match tokio::time::timeout(self.purpose.patience(), &mut call).await {
            Ok(answer) => answer,
            Err(_) => {
                self.close();
                call.await
            }
        }
    }
}

/// Rows as they come. Each has as long as an answer has; a caller who takes his time is not counted.
pub(crate) struct RowStream {
    rows: Pin<Box<tokio_postgres::RowStream>>,
    limit: Limit,
    late: Option<Pin<Box<Sleep>>>,
}

impl Stream for RowStream {
    type Item = Result<Row, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.rows.as_mut().poll_next(context);
        if next.is_ready() {
            self.late = None;
            return next;
        }
        let this = &mut *self;
        let patience = this.limit.purpose.patience();
        let late = this.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if late.as_mut().poll(context).is_ready() {
            this.limit.close();
            *late = Box::pin(tokio::time::sleep(patience));
        }
        Poll::Pending
    }
}

impl Client {
    /// Takes a fresh connection.
    pub(super) fn new(inner: tokio_postgres::Client, driver: AbortHandle, rings: Arc<Rings>, purpose: Purpose) -> Self {
        let (is_open, begun, prepared) = (AtomicBool::new(false), Mutex::default(), Prepared::default());
        Self { inner, is_open, begun, limit: Limit { purpose, driver }, rings, prepared }
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Comes back when this connection was notified since it was last asked, or has ended; the last word.
    pub(crate) async fn rung(&self) -> String {
        self.rings.any.notified().await;
        self.rings.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets that it was notified until now.
    pub(crate) fn hush(&self) {
        while self.rings.any.notified().now_or_never().is_some() {}
    }

    /// Sends a statement and does not wait for its answer: whatever is sent later runs behind it. Outside of a
    /// transaction, and with nothing in it that a `search_path` decides. Where the connection is gone, the next one says
    /// so.
    pub(crate) fn send(&self, sql: &str) {
        let _sent = self.inner.batch_execute(sql).now_or_never();
    }

    /// The session is this connection's alone: statements that recur may be kept in it.
    pub(crate) fn claim(&self) {
        self.prepared.begin();
    }

    /// Whether it is.
    pub(crate) fn is_claimed(&self) -> bool {
        self.prepared.has_begun()
    }

    /// Prepares those that have recurred, outside of a transaction, under the settings of a step: a constant in a text is
    /// read when it is prepared, and `where` stands in none that runs outside of one.
    pub(crate) async fn prepare(&self, settings: &str) -> Result<(), Error> {
        for (sql, types) in self.prepared.take_due() {
            self.begin("read only", settings).await?;
            match self.limit.answer(self.inner.prepare_typed(&sql, &types)).await {
                Ok(statement) => self.prepared.add(sql, statement),
                Err(e) if e.as_db_error().is_some() => {} // what is wrong is told where it runs
                Err(e) => return Err(e),
            }
            self.rollback().await?;
        }
        Ok(())
    }

    /// Forgets what was prepared: the catalog has changed.
    pub(crate) fn forget_prepared(&self) {
        self.prepared.forget();
    }

    /// A sign of life within a transaction. Without a limit of its own: it stands behind rows that nobody takes yet.
    pub async fn pulse(&self) -> Result<(), Error> {
        self.inner.batch_execute("").await
    }

    /// Begins a transaction: `how` stands behind `begin` (an isolation level, or nothing), `then` are statements that
    /// travel with it.
    pub async fn begin(&self, how: &str, then: &str) -> Result<(), Error> {
        self.is_open.store(true, Ordering::Relaxed);
        let (silence, begun) = (SILENCE.as_millis(), Uuid::new_v4().simple().to_string());
        let sql = format!(
            "begin {how}; {PINNED}; set local pgflume.begun = '{begun}'; set local idle_in_transaction_session_timeout = {silence}; {then}"
        );
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        self.limit.answer(self.inner.batch_execute(&sql)).await
    }

    /// Ends it.
    pub async fn commit(&self) -> Result<(), Error> {
        self.is_open.store(false, Ordering::Relaxed);
        self.limit.answer(self.inner.batch_execute("commit")).await
    }

    /// Gives it up; does nothing where there is none.
    pub async fn rollback(&self) -> Result<(), Error> {
        self.is_open.store(false, Ordering::Relaxed);
        self.limit.answer(self.inner.batch_execute("rollback")).await
    }

    /// The value of `pgflume.begun` within the transaction at hand. Where its beginning was cancelled before Postgres had
    /// begun, statements that are sent behind it run each for itself: one that must not, asks for this.
    pub(crate) fn begun(&self) -> String {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a transaction was begun and not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Statements without parameters, which must not begin or end a transaction. Outside of one they make one of
    /// their own: all or nothing.
    pub async fn batch_execute(&self, sql: &str) -> Result<(), Error> {
        match self.is_open() {
            true => self.limit.answer(self.inner.batch_execute(sql)).await,
            false => self.limit.answer(self.inner.batch_execute(&format!("{PINNED}; {sql}"))).await,
        }
    }

    /// A script that begins and ends its transactions itself, each with its own settings. For `setup`, whose
    /// transactions people may also run by hand.
    pub(crate) async fn run_script(&self, sql: &str) -> Result<(), Error> {
        self.limit.answer(self.inner.batch_execute(sql)).await
    }

    /// Statements whose rows come as text. Outside of a transaction an error leaves none behind.
    pub(crate) async fn simple_query(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        match self.is_open() {
            true => self.limit.answer(self.inner.simple_query(sql)).await,
            false => self.limit.answer(self.inner.simple_query(&format!("{PINNED}; {sql}"))).await,
        }
    }

    /// All rows of one statement.
    pub(crate) async fn query_typed(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        match self.prepared.find(sql, types(parameters)) {
            Some(statement) => self.alone(self.inner.query(&statement, &values(parameters))).await,
            None => self.alone(self.inner.query_typed(sql, parameters)).await,
        }
    }

    /// The one row of one statement; an error where it gives another number.
    pub(crate) async fn query_typed_one(&self, sql: &str, parameters: Parameters<'_>) -> Result<Row, Error> {
        match self.prepared.find(sql, types(parameters)) {
            Some(statement) => self.alone(self.inner.query_one(&statement, &values(parameters))).await,
            None => self.alone(self.inner.query_typed_one(sql, parameters)).await,
        }
    }

    /// How many rows one statement wrote.
    pub(crate) async fn execute_typed(&self, sql: &str, parameters: Parameters<'_>) -> Result<u64, Error> {
        match self.prepared.find(sql, types(parameters)) {
            Some(statement) => self.alone(self.inner.execute(&statement, &values(parameters))).await,
            None => self.alone(self.inner.execute_typed(sql, parameters)).await,
        }
    }

    /// Rows as they come. Inside of a transaction only.
    pub(crate) async fn query_typed_raw(&self, sql: &str, parameters: Parameters<'_>) -> Result<RowStream, Error> {
        debug_assert!(self.is_open(), "rows are read inside of a transaction");
        let rows = match self.prepared.find(sql, types(parameters)) {
            Some(statement) => self.limit.answer(self.inner.query_raw(&statement, values(parameters))).await?,
            None => self.limit.answer(self.inner.query_typed_raw(sql, parameters.to_vec())).await?,
        };
        Ok(RowStream { rows: Box::pin(rows), limit: self.limit.clone(), late: None })
    }

    /// The same of a statement that does not recur, because there are constants in its text.
    pub(crate) async fn query_once(&self, sql: &str, parameters: Parameters<'_>) -> Result<RowStream, Error> {
        debug_assert!(self.is_open(), "rows are read inside of a transaction");
        let rows = self.limit.answer(self.inner.query_typed_raw(sql, parameters.to_vec())).await?;
        Ok(RowStream { rows: Box::pin(rows), limit: self.limit.clone(), late: None })
    }

    /// Runs one statement in a transaction of its own, unless it stands in one already. All three are sent before the
    /// first answer comes, so that nothing is left open where the caller gives up.
    async fn alone<T>(&self, statement: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.is_open() {
            return self.limit.answer(statement).await;
        }
        let pinned = format!("begin; {PINNED}");
        let begin = self.inner.batch_execute(&pinned);
        let all = async {
            let (begun, done, ended) = futures_util::join!(begin, statement, self.inner.batch_execute("commit"));
            begun?;
            let done = done?;
            ended?; // a commit that is refused has changed nothing
            Ok(done)
        };
        self.limit.answer(all).await
    }
}
