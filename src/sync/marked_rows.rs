//! The rows of marked keys: a reader asks Postgres for some while it puts those of the last query into the batch,
//! and finds a key that cannot be read by halving. Writes nothing.

use super::reader::Reader;
use crate::batch::ColumnSet;
use crate::error::{Error, Result};
use crate::letters::{DeadLetter, Refusal};
use crate::message::MarkedKey;
use crate::postgres::Client;
use crate::schema::Table;
use crate::schema::catalog::SourceTable;
use crate::source::{self, Reading};
use std::sync::Arc;
use tokio_postgres::error::SqlState;

/// Parts of a query that took too long: each may take its time again.
const SLOW_PARTS: usize = 8;

/// A query that was sent, and its rows or its failure.
struct Asked<'k> {
    keys: &'k [MarkedKey],
    rows: Result<Reading>,
}

/// Sends the query for `keys`, if there are any.
async fn ask<'k>(
    client: &Client,
    source: &SourceTable,
    keys: Option<&'k [MarkedKey]>,
    may_span: bool,
) -> Option<Asked<'k>> {
    let keys = keys?;
    Some(Asked { keys, rows: source::read(client, source, keys, may_span).await })
}

/// Whether a query of several keys took too long.
fn is_too_slow(error: &Error, keys: &[MarkedKey]) -> bool {
    error.sql_state() == Some(&SqlState::QUERY_CANCELED) && keys.len() > 1
}

impl Reader<'_> {
    /// Reads `keys` and puts their rows into the batch; while the rows of one query are put there, Postgres is at
    /// the next. A key that it cannot even compare is found by halving.
    pub(super) async fn read(&mut self, source: &SourceTable, keys: &[MarkedKey]) -> Result<()> {
        let client = &self.session.client;
        let mut todo = vec![keys];
        // Until a row that nobody asked for is in the way, perhaps.
        let mut may_span = self.session.worker.budget.knows_small(&source.table.name);
        let first = self.cut(source, &mut todo);
        let (opened, mut asked) =
            futures_util::join!(client.batch_execute("savepoint pgflume_read"), ask(client, source, first, may_span));
        opened?;
        while let Some(Asked { keys, rows }) = asked.take() {
            // Only where it is known how large rows are.
            let ahead =
                if self.session.worker.budget.knows(&source.table.name) { self.cut(source, &mut todo) } else { None };
            let (done, next) =
                futures_util::join!(self.put_all(source, keys, rows), ask(client, source, ahead, may_span));
            match done {
                Ok(()) => asked = next,
                Err(e) if may_span && (is_table_error(&e) || is_data_error(&e) || is_too_slow(&e, keys)) => {
                    drop(next);
                    may_span = false;
                    todo.extend(ahead);
                    todo.push(keys);
                    client.batch_execute("rollback to savepoint pgflume_read").await?;
                }
                Err(e) if is_table_error(&e) => return Err(e.of_table(&source.table.name)),
                Err(e) if is_too_slow(&e, keys) || is_data_error(&e) => {
                    drop(next);
                    todo.extend(ahead);
                    client.batch_execute("rollback to savepoint pgflume_read").await?;
                    match keys {
                        [key] => self.bury(&source.table, key, Refusal::Source, &unreadable(&e)),
                        _ if is_too_slow(&e, keys) => todo.extend(keys.chunks(keys.len().div_ceil(SLOW_PARTS)).rev()),
                        _ => {
                            let (left, right) = keys.split_at(keys.len() / 2);
                            todo.extend([right, left]);
                        }
                    }
                }
                Err(e) => return Err(e),
            }
            if asked.is_none() {
                let next = self.cut(source, &mut todo);
                asked = ask(client, source, next, may_span).await;
            }
        }
        client.batch_execute("release savepoint pgflume_read").await?;
        Ok(())
    }

    /// As many keys as one query may read.
    fn cut<'k>(&self, source: &SourceTable, todo: &mut Vec<&'k [MarkedKey]>) -> Option<&'k [MarkedKey]> {
        let part = todo.pop().filter(|part| !part.is_empty())?;
        let (keys, rest) = part.split_at(part.len().min(self.session.worker.budget.query_keys(&source.table.name)));
        if !rest.is_empty() {
            todo.push(rest);
        }
        Some(keys)
    }

    async fn put_all(&mut self, source: &SourceTable, keys: &[MarkedKey], reading: Result<Reading>) -> Result<()> {
        let columns: ColumnSet = (0..source.table.columns.len()).collect();
        let mut reading = reading?;
        let mut rows = 0;
        let limits = self.session.worker.budget.limits();
        while let Some(found) = reading.next(source).await? {
            rows += 1;
            let marked =
                keys.get(found.position).ok_or_else(|| Error::retry("Postgres gave a row that was not asked for"))?;
            self.put(source, &columns, marked, found);
            if self.batch.rows() >= limits.rows || self.batch.bytes() >= limits.bytes {
                self.send(Vec::new(), false).await?;
            }
        }
        self.session.worker.budget.read(&source.table.name, rows, reading.bytes);
        Ok(())
    }

    fn put(&mut self, source: &SourceTable, columns: &ColumnSet, marked: &MarkedKey, found: source::Found) {
        let table = &source.table;
        let (key, cells) = match (found.key, found.cells) {
            (Err(unfit), _) | (_, Some(Err(unfit))) => {
                return self.bury(table, marked, Refusal::Value, &unfit.to_string());
            }
            (Ok(key), None) => return self.batch.set_gone(table, key),
            (Ok(key), Some(Ok(cells))) => (key, cells),
        };
        if table.key.iter().map(|&i| &cells[i]).eq(&key) {
            return self.batch.set_row(table, key, columns, cells);
        }
        self.batch.set_gone(table, key);
        let own = table.key.iter().map(|&i| cells[i].clone()).collect();
        self.batch.set_row(table, own, columns, cells);
    }

    pub(super) fn bury(&mut self, table: &Arc<Table>, key: &MarkedKey, class: Refusal, problem: &str) {
        tracing::error!(table = table.name, ?class, problem, "a marked key becomes a dead letter");
        let key = key.iter().cloned().map(Some).collect();
        self.report.dead.push(DeadLetter::of_key(&table.name, key, class, problem));
    }
}

/// Why a key is a dead letter that Postgres cannot compare or whose row it cannot put out.
pub(super) fn unreadable(error: &Error) -> String {
    let code = error.sql_state().map_or("?", |s| s.code());
    format!("Postgres cannot read the row under this key (SQLSTATE {code}): correct the row")
}

/// What one key's data causes: SQLSTATE classes 22 (data exception), 23 (a domain's check), 54 (program
/// limit exceeded), P0 (raised by a function that `where` calls) and XX (such as a value above 1 GB).
pub(super) fn is_data_error(error: &Error) -> bool {
    let classes = ["22", "23", "54", "P0", "XX"];
    error.sql_state().is_some_and(|s| classes.iter().any(|class| s.code().starts_with(class)))
}

/// What concerns one table and leaves the others alone: classes 42 (a wrong `where`, a missing right,
/// row-level security) and 0A (feature not supported).
pub(super) fn is_table_error(error: &Error) -> bool {
    error.sql_state().is_some_and(|s| s.code().starts_with("42") || s.code().starts_with("0A"))
}
