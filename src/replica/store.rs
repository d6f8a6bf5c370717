//! The seam to libSQL: what a database has to do, whether it is a file or a server.

use super::hrana;
use crate::core::batch::Item;
use crate::core::error::Result;
use crate::core::schema::Table;
use crate::core::value::Cell;
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;

/// One SQL statement with its parameters.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Text with `?1`, `?2`, …
    pub sql: String,
    /// The parameters.
    pub args: Vec<Cell>,
}

impl Statement {
    /// A statement with parameters.
    pub fn new(sql: impl Into<String>, args: Vec<Cell>) -> Self {
        Self { sql: sql.into(), args }
    }
}

impl From<String> for Statement {
    fn from(sql: String) -> Self {
        Self::new(sql, Vec::new())
    }
}

/// Rows of a query.
pub type Rows = Vec<Vec<Cell>>;

/// Keys of a table that is fed, which a batch is about to touch.
#[derive(Debug, Clone)]
pub struct Touching {
    /// Their table.
    pub table: Arc<Table>,
    /// The positions of their items among those of the batch's transaction.
    pub items: Vec<usize>,
    /// The rows go: what is not there is not touched.
    pub is_gone: bool,
}

/// One write transaction.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// Run first; a failure of the very first one fails the transaction before anything is written.
    pub before: Vec<Statement>,
    /// Keys that it touches in tables that are fed, which are logged next.
    pub touching: Vec<Touching>,
    /// Tables to empty.
    pub emptied: Vec<Arc<Table>>,
    /// All items of the batch, sorted by table and key.
    pub items: Arc<Vec<Item>>,
    /// Those of them that this transaction applies: deletes first, then upserts.
    pub range: Range<usize>,
    /// What [`Store::encode`] made of all of them.
    pub encoded: Encoded,
    /// Run last.
    pub after: Vec<Statement>,
    /// Tables or indexes are made, copied or dropped, which takes as long as they are large.
    pub is_long: bool,
}

impl Work {
    /// The items of this transaction.
    pub fn items(&self) -> &[Item] {
        &self.items[self.range.clone()]
    }
}

/// Items as a store sends them; empty where it does so as they are.
pub(crate) type Encoded = Arc<Vec<hrana::BatchStep>>;

/// A libSQL database. Every implementation passes `tests/store`.
///
/// An error's kind tells what happened: `Unknown` and `Overload` mean that a transaction may or may not have been
/// committed, all others that nothing was written.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads what the last committed write transaction left (never an older state).
    async fn query(&self, statement: Statement) -> Result<Rows>;
    /// Reads with one SELECT, which sees one committed state; maybe an older one, where the database is a
    /// read replica of another.
    async fn read(&self, statement: Statement) -> Result<Rows>;
    /// The same with several SELECTs, which see one state together.
    async fn read_together(&self, statements: Vec<Statement>) -> Result<Vec<Rows>>;
    /// Runs one `BEGIN IMMEDIATE … COMMIT`: all of it or nothing.
    async fn write(&self, work: Work) -> Result<()>;
    /// Fails where the database is no longer the one that was opened, as far as that shows without asking it.
    async fn look(&self) -> Result<()> {
        Ok(())
    }
    /// Prepares items for [`write`](Self::write), while another write goes on.
    async fn encode(&self, _items: &Arc<Vec<Item>>) -> Encoded {
        Encoded::default()
    }
}

/// Opens stores of one database, for a replica that lies where no URL leads.
#[async_trait]
pub trait Opener: Send + Sync {
    /// A store of it. Its failures have the kinds of a [`Store`]'s.
    async fn open(&self) -> Result<Box<dyn Store>>;
}
