//! The rows of marked keys: a reader asks Postgres for some while it puts those of the last query into the batch,
//! and finds a key that cannot be read by halving. Writes nothing.

use super::intake::of_marked;
use super::reader::{Reader, leave};
use crate::core::batch::ColumnSet;
use crate::core::error::{Error, Result, Side};
use crate::core::halving::Search;
use crate::core::message::MarkedKey;
use crate::core::schema::Table;
use crate::postgres::books::dead_letters::Refusal;
use crate::postgres::catalog::SourceTable;
use crate::postgres::link::{Link, Reading, Savepoint};
use crate::postgres::rows::MarkedRow;
use crate::postgres::rows::fault::{Fault, PART_TIME, too_slow, unreadable};
use futures_util::TryStreamExt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Parts of a query that took too long: each may take its time again.
const SLOW_PARTS: usize = 8;

/// A query that was sent, and its rows or its failure.
struct Asked<'k> {
    part: Range<usize>,
    rows: Result<Reading<'k>>,
    since: Instant,
}

/// Sends the query for this part of `keys`, if there is one.
async fn ask<'k>(
    link: &'k dyn Link,
    source: &'k SourceTable,
    keys: &'k [MarkedKey],
    part: Option<Range<usize>>,
    may_span: bool,
) -> Option<Asked<'k>> {
    let (part, since) = (part?, Instant::now());
    let rows = link.read(source, &keys[part.clone()], may_span).await;
    Some(Asked { part, rows, since })
}

/// What is still to be read of a table's marked keys, and how.
struct Todo<'k> {
    keys: &'k [MarkedKey],
    search: Search,
    /// Until a row that nobody asked for is in the way, perhaps.
    may_span: bool,
    /// Something takes too long: parts are given less time, and nothing is asked ahead.
    is_narrowing: bool,
    /// A row is looked for that is at fault: giving up would only begin the search anew.
    is_searching: bool,
}

impl<'s> Reader<'s> {
    /// Reads `keys` and puts their rows into the batch; while the rows of one query are put there, Postgres is at the
    /// next. A key that it cannot even compare is found by halving. The place before them is left to be forgotten with
    /// what comes next ([`leave`]).
    pub(in crate::sync) async fn read(&mut self, source: &SourceTable, keys: &[MarkedKey]) -> Result<()> {
        let quick = self.dead_letter_slow(source, keys);
        let keys = quick.as_deref().unwrap_or(keys);
        let session = self.session;
        let link = session.link.as_ref();
        let may_span = self.session.worker.budget.knows_small(&source.table.name);
        let search = Search::of(keys.len(), usize::MAX);
        let mut todo = Todo { keys, search, may_span, is_narrowing: false, is_searching: false };
        let first = self.next_part(source, &mut todo);
        let leaving = leave(link, std::mem::replace(&mut self.has_place, true));
        let opening = link.savepoint(Savepoint::Read, Some(session.worker.statement_time));
        let asking = ask(link, source, keys, first, may_span);
        let (left, opened, mut asked) = futures_util::join!(leaving, opening, asking);
        left.and(opened)?;
        while let Some(Asked { part, rows, since }) = asked.take() {
            // Only where it is known how large rows are.
            let is_late = self.is_late();
            let is_ahead = self.session.worker.budget.knows(&source.table.name) && !todo.is_narrowing && !is_late;
            let ahead = if is_ahead { self.next_part(source, &mut todo) } else { None };
            let next = ask(link, source, keys, ahead.clone(), todo.may_span);
            let (done, next) = futures_util::join!(self.put_all(source, &keys[part.clone()], rows), next);
            match done {
                Ok(()) => asked = next,
                Err(e) => {
                    drop(next);
                    ahead.into_iter().for_each(|part| todo.search.again(part));
                    self.narrow(source, &mut todo, part, e, since).await?;
                }
            }
            if asked.is_none() && !self.postpone(&mut todo) {
                asked = self.ask_next(source, &mut todo).await?;
            }
        }
        Ok(())
    }

    /// Whether the step has had its time: then the keys that are left are put aside.
    fn postpone(&mut self, todo: &mut Todo<'_>) -> bool {
        if !self.is_late() || todo.is_searching || todo.is_narrowing || todo.search.is_done() {
            return false;
        }
        self.postponed.extend(todo.search.leave().map(|i| todo.keys[i].clone()));
        true
    }

    /// The next query, with as much time as its keys are given.
    async fn ask_next<'k>(&self, source: &'k SourceTable, todo: &mut Todo<'k>) -> Result<Option<Asked<'k>>>
    where
        's: 'k,
    {
        let session = self.session;
        let link = session.link.as_ref();
        let next = self.next_part(source, todo);
        if let (true, Some(part)) = (todo.is_narrowing, &next) {
            link.limit(self.time_for(part.len(), true)).await?;
        }
        Ok(ask(link, source, todo.keys, next, todo.may_span).await)
    }

    fn time_for(&self, keys: usize, is_narrowing: bool) -> Duration {
        let most = self.session.worker.statement_time;
        if is_narrowing && keys > 1 { most.min(PART_TIME) } else { most }
    }

    /// Reading a part of the keys failed: they are read again in smaller parts, until the one at fault stands alone and becomes a
    /// dead letter; an error where none of them is at fault.
    async fn narrow(
        &mut self,
        source: &SourceTable,
        todo: &mut Todo<'_>,
        part: Range<usize>,
        error: Error,
        since: Instant,
    ) -> Result<()> {
        let fault = Fault::of(&error, since, self.time_for(part.len(), todo.is_narrowing));
        match fault {
            Fault::Other => return Err(error),
            Fault::Table if !todo.may_span => return Err(error.of_table(&source.table.name, Side::Source)),
            _ => self.session.link.rollback_to(Savepoint::Read).await?,
        }
        todo.is_narrowing |= fault == Fault::Slow;
        // A range may have failed at a row that nobody asked for.
        todo.is_searching |= !todo.may_span || self.is_late();
        if std::mem::take(&mut todo.may_span) {
            todo.search.again(part);
            return Ok(());
        }
        match &todo.keys[part.clone()] {
            [key] => {
                if fault == Fault::Slow {
                    self.note_slow(source, key)?;
                }
                self.dead_letter(&source.table, key, Refusal::Source, &unreadable(&error, fault));
                todo.is_searching = false; // what is left may wait
            }
            keys if fault == Fault::Slow => todo.search.put_back(part, keys.len().div_ceil(SLOW_PARTS)),
            _ => todo.search.halve(&part),
        }
        Ok(())
    }

    /// A step has time for one of them: the table waits, and the next one goes on behind those that are known.
    fn note_slow(&mut self, source: &SourceTable, key: &MarkedKey) -> Result<()> {
        self.session.worker.slow.note(&source.table.name, key);
        if std::mem::replace(&mut self.has_slow, true) {
            let seconds = self.session.worker.statement_time.as_secs_f64();
            return Err(Error::halt(format!(
                "several rows take longer than {seconds} s each to be read: make them or `where` cheaper; each becomes a dead letter, step by step"
            ))
            .of_table(&source.table.name, Side::Source));
        }
        Ok(())
    }

    /// Makes dead letters of keys that earlier steps have waited for; the others, if there were any.
    fn dead_letter_slow(&mut self, source: &SourceTable, keys: &[MarkedKey]) -> Option<Vec<MarkedKey>> {
        let slow = &self.session.worker.slow;
        if slow.is_empty() {
            return None;
        }
        let (late, quick): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| slow.take(&source.table.name, key));
        late.iter().for_each(|key| self.dead_letter(&source.table, key, Refusal::Source, &too_slow()));
        Some(quick)
    }

    /// As many keys as one query may read.
    fn next_part(&self, source: &SourceTable, todo: &mut Todo<'_>) -> Option<Range<usize>> {
        todo.search.take(self.session.worker.budget.query_keys(&source.table.name))
    }

    async fn put_all(&mut self, source: &SourceTable, keys: &[MarkedKey], reading: Result<Reading<'_>>) -> Result<()> {
        let columns: ColumnSet = (0..source.table.columns.len()).collect();
        let mut reading = reading?;
        let (mut rows, mut bytes) = (0, 0);
        let limits = self.session.worker.budget.limits();
        while let Some(found) = reading.try_next().await? {
            (rows, bytes) = (rows + 1, bytes + found.bytes);
            let marked =
                keys.get(found.position).ok_or_else(|| Error::retry("Postgres gave a row that was not asked for"))?;
            self.put(source, &columns, marked, found);
            if self.batch.rows() >= limits.rows || self.batch.bytes() >= limits.bytes {
                self.send(Vec::new(), false).await?;
            }
        }
        self.session.worker.budget.read(&source.table.name, rows, bytes);
        Ok(())
    }

    fn put(&mut self, source: &SourceTable, columns: &ColumnSet, marked: &MarkedKey, found: MarkedRow) {
        let table = &source.table;
        let (key, cells) = match (found.key, found.cells) {
            (Err(unfit), _) | (_, Some(Err(unfit))) => {
                return self.dead_letter(table, marked, Refusal::Value, &unfit.to_string());
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

    pub(in crate::sync) fn dead_letter(&mut self, table: &Arc<Table>, key: &MarkedKey, class: Refusal, problem: &str) {
        self.dead_letters.add(of_marked(table, key, class, problem));
    }
}
