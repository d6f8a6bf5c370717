//! Reads views, foreign tables, and what else has no versions to tell by: at each look its rows are counted, and those
//! are read whose stamps are new; of a small one without stamps all.

use super::dialect::Postgres;
use super::mark::text;
use super::reading::found;
use crate::core::error::{Error, Result, Side};
use crate::postgres::Client;
use crate::postgres::catalog::SourceTable;
use crate::postgres::rows::STATEMENT_TIME;
use crate::postgres::rows::fault::Fault;
use crate::postgres::rows::listing::{self, Counted};
use crate::postgres::rows::versions::Versions;
use crate::provider::stamps::{Dialect, Listed, StampMark};
use crate::provider::{Limits, Look, Part};
use futures_util::TryStreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

/// Up to so many rows a table without stamps is read whole at each look.
const MOST_ROWS: i64 = 10_000;

/// Rows of one FETCH.
const FETCH_ROWS: u32 = 1_000;

/// The rows of one table, as they are read.
pub(super) struct Listing {
    source: Arc<SourceTable>,
    cursor: String,
    running: Option<(Versions, Instant)>,
    /// Rows of this FETCH so far.
    rows: u32,
}

/// Makes the names of cursors: each is closed with its transaction.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Listing {
    /// Begins to read what has changed since a mark.
    pub async fn begin(
        client: &Client,
        source: Arc<SourceTable>,
        listed: &Listed,
        since: Option<&str>,
    ) -> Result<(Self, Look)> {
        let Listed { stamps, ladder, .. } = listed;
        let since = since.and_then(|text| StampMark::read(text, stamps));
        let began = Instant::now();
        let now = now(client).await?;
        let rung = since.as_ref().map_or(0, |mark| ladder.rung(mark, now));
        let condition = match &since {
            Some(mark) if !stamps.is_empty() => ladder.condition::<Postgres>(stamps, mark, rung),
            _ => "true".to_owned(),
        };
        let newest: Vec<String> = stamps.iter().map(Postgres::newest).collect();
        let counted = listing::count(client, &source, &condition, &newest).await;
        let counted = counted.map_err(|e| of_table(&source, e, began))?;
        if let Some(problem) = problem(&source, listed, &counted) {
            return Err(Error::halt(problem).of_table(&source.table.name, Side::Source));
        }
        let is_small = counted.rows <= MOST_ROWS;
        // Of a large one without stamps a look only counts, unless other rows are there than before.
        let is_other = stamps.is_empty() && since.as_ref().is_some_and(|mark| mark.digest != counted.digest);
        let since = since.filter(|_| is_small || !is_other);
        let is_read = since.is_none() || !stamps.is_empty() || is_small;
        let condition = if is_read { condition } else { "false".to_owned() };
        let changed = since.as_ref().map(|_| match is_read {
            true => usize::try_from(counted.chosen).unwrap_or(usize::MAX),
            false => 0,
        });
        let mark = match &since {
            Some(mark) => mark.after(counted.more, now, rung, counted.digest),
            None => StampMark::begin(stamps, counted.more, now, counted.digest),
        };
        let look = Look {
            mark: text(&mark),
            changed,
            count: Some(counted.rows),
            tells_gone: false,
            is_far: rung > 0,
            ..Look::default()
        };
        let cursor = format!("_pgflume_rows_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        listing::open(client, &source, &condition, &cursor).await.map_err(|e| of_table(&source, e, began))?;
        Ok((Self { source, cursor, running: None, rows: 0 }, look))
    }

    /// The next part. It has no place: another view begins anew.
    pub async fn next(&mut self, client: &Client, limits: Limits) -> Result<Part> {
        let mut part = Part::default();
        while part.found.len() < limits.rows && part.bytes < limits.bytes {
            let (mut versions, began) = match self.running.take() {
                Some(running) => running,
                None => {
                    (self.rows, part.is_end) = (0, false);
                    let began = Instant::now();
                    let fetched = listing::fetch(client, &self.source, &self.cursor, FETCH_ROWS).await;
                    (fetched.map_err(|e| of_table(&self.source, e, began))?, began)
                }
            };
            match versions.try_next().await.map_err(|e| of_table(&self.source, e, began))? {
                Some((version, bytes)) => {
                    self.rows += 1;
                    part.bytes += bytes;
                    part.found.push(found(version));
                    self.running = Some((versions, began));
                }
                None if self.rows < FETCH_ROWS => {
                    if listing::is_moved(client).await? {
                        let problem = "what it shows was truncated, refreshed or given partitions while it was read; it follows with the next pass";
                        return Err(Error::retry(problem).of_table(&self.source.table.name, Side::Source));
                    }
                    part.is_end = true;
                    return Ok(part);
                }
                None => {}
            }
        }
        Ok(part)
    }
}

/// Why what was counted cannot be pulled, with the remedy.
fn problem(source: &SourceTable, listed: &Listed, counted: &Counted) -> Option<String> {
    let (name, Counted { rows, keyless, keys, .. }) = (source.table.source.quoted(), counted);
    if *keyless > 0 {
        return Some(format!(
            "{keyless} rows of {name} have no key: leave them out by `where`, or choose another primaryKey"
        ));
    }
    if keys < rows {
        return Some(format!(
            "{name} shows several rows under one key ({rows} rows, {keys} keys): choose another primaryKey, or leave rows out by `where`"
        ));
    }
    let is_too_large = listed.stamps.is_empty() && *rows > MOST_ROWS && !listed.is_compared;
    is_too_large.then(|| {
        format!(
            "{name} has {rows} rows and no column that says when one was written last: name one in `changed`, or say in `compare` how often all rows are to be compared"
        )
    })
}

/// Of which row it is cannot be told where they come from a query.
fn of_table(source: &SourceTable, error: Error, since: Instant) -> Error {
    if error.is_locked() {
        let problem = "another session keeps a lock on what it shows that shuts readers out (see pg_locks); it follows when that ends";
        return Error::retry(problem).of_table(&source.table.name, Side::Source);
    }
    if error.sqlstate() == Some("25006") {
        let problem = "it writes while it is read (a sequence, a function): what writes cannot be pulled";
        return Error::halt(problem).of_table(&source.table.name, Side::Source);
    }
    match Fault::of(&error, since, STATEMENT_TIME) {
        Fault::Other => error,
        Fault::Row | Fault::Table | Fault::Slow => error.of_table(&source.table.name, Side::Source),
    }
}

/// The snapshot's time: milliseconds since 1970.
async fn now(client: &Client) -> Result<i64> {
    let sql = "select (extract(epoch from pg_catalog.now()) * 1000)::pg_catalog.int8";
    Ok(client.query_typed_one(sql, &[]).await?.try_get(0)?)
}
