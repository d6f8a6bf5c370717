//! What a step asks of the source.

use super::known::Known;
use crate::core::error::Result;
use crate::core::message::MarkedKey;
use crate::core::token::Seen;
use crate::core::value::{Cell, Key};
use crate::postgres::catalog::SourceTable;
use crate::postgres::drift::Drift;
use crate::postgres::rows::page::{Cursor, Size};
use crate::postgres::rows::{MarkedRow, Unfit};
use crate::replica::inventory::Inventory;
use async_trait::async_trait;
use futures_util::Stream;
use std::pin::Pin;

/// What was found under marked keys, as it comes; in any order, one for each key.
pub type Reading<'a> = Pin<Box<dyn Stream<Item = Result<MarkedRow>> + Send + 'a>>;

/// A page as it comes.
pub type Pages<'a> = Pin<Box<dyn Page + 'a>>;

/// Rows of a table in the order of its key's index: key and cells of each that fits.
pub trait Page: Stream<Item = Result<Result<(Key, Vec<Cell>), Unfit>>> + Send {
    /// The place of the row that came last; when all have come, the place behind which the next page begins. `None`
    /// where none came.
    ///
    /// # Errors
    /// As of a row that cannot be read.
    fn place(&self) -> Result<Option<Cursor>>;

    /// Whether the table ends with it. Asked when all rows have come.
    fn is_last(&self) -> bool;
}

/// Rows of the source. Within a step's transaction all of it is read at one snapshot, which is taken by the
/// transaction's first statement after its locks ([`Flight::lock`](super::Flight::lock)).
///
/// An error that concerns a row or a table says so by its cause; after it, nothing but a roll-back to a savepoint works.
/// Words of Postgres that may quote a value are left out.
#[async_trait]
pub trait Source: Send + Sync {
    /// What the catalog says of the tables. Outside of a transaction.
    async fn known(&self) -> Result<Known>;

    /// A text that any change of the catalog makes another which concerns a table of
    /// [`known`](Self::known) or its capture. Within a step.
    async fn fingerprint(&self) -> Result<String>;

    /// The same outside of a step, and which transactions it has seen; once the catalog was read, on any connection.
    /// `None` where that cannot be told.
    async fn fingerprint_beside(&self) -> Result<Option<(String, Seen)>> {
        Ok(None)
    }

    /// What has drifted since the set-up. Outside of a transaction. `replica`: what it has, if it is to be looked at.
    async fn drift(&self, replica: Option<&Inventory>) -> Result<Vec<Drift>>;

    /// Notes which of these tables may have large rows, so that each is measured before it is fetched. Within a step.
    async fn measure(&self, sources: &[&SourceTable]) -> Result<()>;

    /// What is under `keys`. With `may_span` rows between them may be read, too, and what is wrong with one of those
    /// is an error: without, it can be read otherwise.
    async fn read<'a>(&'a self, source: &'a SourceTable, keys: &'a [MarkedKey], may_span: bool) -> Result<Reading<'a>>;

    /// The next rows after the place `after`, replicated ones, at most `rows` of the table's.
    async fn page<'a>(&'a self, source: &'a SourceTable, after: Option<&'a Cursor>, rows: i64) -> Result<Pages<'a>>;

    /// The place of the very next row, whether or not it is replicated or can be read; `None` if there is none.
    async fn next_place(&self, source: &SourceTable, after: Option<&Cursor>) -> Result<Option<Cursor>>;

    /// How large a table is, as far as the planner knows.
    async fn size(&self, source: &SourceTable) -> Result<Size>;

    /// Whether the table has no row that is replicated.
    async fn is_empty(&self, source: &SourceTable) -> Result<bool>;

    /// The positions of those `keys`, as texts, that no replicated row has.
    async fn absent(&self, source: &SourceTable, keys: &[Vec<String>]) -> Result<Vec<usize>>;

    /// The same by the texts of all rows, for keys that the source does not take as such. With `filtered` among the
    /// rows that are replicated, without among all.
    async fn absent_by_text(&self, source: &SourceTable, keys: &[Vec<String>], filtered: bool) -> Result<Vec<usize>>;

    /// An error of a row where the source does not even take this key as one.
    async fn try_key(&self, source: &SourceTable, key: &[String]) -> Result<()>;
}
