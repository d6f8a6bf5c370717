//! A connection whose every statement sees an empty `search_path`. Whoever may create a function in a schema of the
//! login's path could otherwise have it run as us: a better-matching overload wins over Postgres' own, although
//! `pg_catalog` is searched first. Set within each transaction, so that it holds through a transaction pooler, too.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row, RowStream, SimpleQueryMessage};

/// What each transaction begins with.
const PINNED: &str = "set local search_path = ''";

/// A statement's parameters with their types: they are not asked for, which would take a prepared statement.
pub type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// A connection. Inside of [`begin`](Self::begin) … [`commit`](Self::commit) statements run in that transaction; outside, each
/// runs in one of its own, in one round trip. Its driver runs on its own task and ends with it.
pub struct Client {
    inner: tokio_postgres::Client,
    /// Whether a transaction was begun and not ended: then it is pinned already.
    is_open: AtomicBool,
}

impl Client {
    /// Takes a fresh connection.
    pub fn new(inner: tokio_postgres::Client) -> Self {
        Self { inner, is_open: AtomicBool::new(false) }
    }

    /// Begins a transaction: `how` stands behind `begin` (an isolation level, or nothing), `then` are statements that
    /// travel with it.
    pub async fn begin(&self, how: &str, then: &str) -> Result<(), Error> {
        self.is_open.store(true, Ordering::Relaxed);
        self.inner.batch_execute(&format!("begin {how}; {PINNED}; {then}")).await
    }

    /// Ends it.
    pub async fn commit(&self) -> Result<(), Error> {
        self.is_open.store(false, Ordering::Relaxed);
        self.inner.batch_execute("commit").await
    }

    /// Gives it up; does nothing where there is none.
    pub async fn rollback(&self) -> Result<(), Error> {
        self.is_open.store(false, Ordering::Relaxed);
        self.inner.batch_execute("rollback").await
    }

    /// Whether a transaction was begun and not ended.
    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Statements without parameters, which must not begin or end a transaction. Outside of one they make one of
    /// their own: all or nothing.
    pub async fn batch_execute(&self, sql: &str) -> Result<(), Error> {
        match self.is_open() {
            true => self.inner.batch_execute(sql).await,
            false => self.inner.batch_execute(&format!("{PINNED}; {sql}")).await,
        }
    }

    /// A script that begins and ends its transactions itself, each with its own settings. For `setup`, whose
    /// transactions people may also run by hand.
    pub async fn run_script(&self, sql: &str) -> Result<(), Error> {
        self.inner.batch_execute(sql).await
    }

    /// Statements whose rows come as text. Outside of a transaction an error leaves none behind.
    pub async fn simple_query(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        match self.is_open() {
            true => self.inner.simple_query(sql).await,
            false => self.inner.simple_query(&format!("{PINNED}; {sql}")).await,
        }
    }

    /// All rows of one statement.
    pub async fn query_typed(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        self.alone(self.inner.query_typed(sql, parameters)).await
    }

    /// The one row of one statement; an error where it gives another number.
    pub async fn query_typed_one(&self, sql: &str, parameters: Parameters<'_>) -> Result<Row, Error> {
        self.alone(self.inner.query_typed_one(sql, parameters)).await
    }

    /// How many rows one statement wrote.
    pub async fn execute_typed(&self, sql: &str, parameters: Parameters<'_>) -> Result<u64, Error> {
        self.alone(self.inner.execute_typed(sql, parameters)).await
    }

    /// Rows as they come. Inside of a transaction only.
    pub async fn query_typed_raw<'a, I>(&self, sql: &str, parameters: I) -> Result<RowStream, Error>
    where
        I: IntoIterator<Item = (&'a (dyn ToSql + Sync), Type)>,
    {
        debug_assert!(self.is_open(), "rows are read inside of a transaction");
        self.inner.query_typed_raw(sql, parameters).await
    }

    /// Runs one statement in a transaction of its own, unless it stands in one already. All three are sent before the
    /// first answer comes, so that nothing is left open where the caller gives up.
    async fn alone<T>(&self, statement: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.is_open() {
            return statement.await;
        }
        let begin = self.inner.batch_execute("begin; set local search_path = ''");
        let (begun, done, ended) = futures_util::join!(begin, statement, self.inner.batch_execute("commit"));
        begun?;
        let done = done?;
        ended?; // a commit that is refused has changed nothing
        Ok(done)
    }
}
