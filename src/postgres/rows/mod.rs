//! Reads rows of the source at the step's snapshot: by marked keys, or a [`page`] at a time. Every value
//! comes as text under pinned settings, or in binary where that says the same for less. Takes a client inside the step's transaction; changes nothing.

pub mod absent;
mod begin;
mod cells;
mod expression;
pub(crate) mod fault;
mod first;
pub mod listing;
mod marked;
mod marked_row;
pub mod page;
mod size;
mod span;
pub mod versions;

pub(crate) use begin::LONGEST_LOCK_WAIT;
pub use begin::{STATEMENT_TIME, Server, begin, begin_waiting, wait_for};
pub(crate) use begin::{admit, settings_of};
pub(crate) use cells::SourceRow;
pub use cells::Unfit;
pub use marked::read;
pub use marked_row::MarkedRow;
pub(crate) use size::note_large;

use crate::core::error::Result;
use crate::core::value::Cell;
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use cells::{cells, values};
use first::first;
use tokio_postgres::types::Type;

/// All WAL up to now.
pub async fn wal_position(client: &Client) -> Result<String> {
    first(client, "select pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text", &[]).await
}

/// Commits, and so flushes all WAL up to now: a session with `synchronous_commit = off` may have committed what a crash
/// could still undo.
pub async fn flush(client: &Client) -> Result<()> {
    let flush = "set local synchronous_commit = on; select pg_catalog.pg_logical_emit_message(true, 'pgflume', '')";
    Ok(client.batch_execute(flush).await?)
}

/// Whether WAL is on disk up to there.
pub async fn is_flushed(client: &Client, position: &str) -> Result<bool> {
    let flushed = "select pg_catalog.pg_current_wal_flush_lsn() >= $1::pg_catalog.text::pg_catalog.pg_lsn";
    first(client, flushed, &[(&position, Type::TEXT)]).await
}

/// Whether the table has no row that is replicated, at this snapshot.
pub async fn is_empty(client: &Client, source: &SourceTable) -> Result<bool> {
    let filter = source.table.filter.as_ref().map(|f| format!(" where (\n{f}\n)")).unwrap_or_default();
    let sql = format!("select not exists (select from {} as t{filter})", source.table.source.quoted());
    first(client, &sql, &[]).await
}

/// Reads all rows that are replicated.
pub fn scan_sql(source: &SourceTable) -> String {
    let table = &source.table;
    let values: Vec<_> = values(source).collect();
    let filter = table.filter.as_ref().map(|f| format!(" where (\n{f}\n)")).unwrap_or_default();
    format!("select {} from {}", values.join(", "), size::rows(source, &filter, ""))
}

/// Converts one row of [`scan_sql`].
pub fn decode_scan(source: &SourceTable, row: &SourceRow) -> Result<Result<Vec<Cell>, Unfit>> {
    cells(source, row, 0)
}
