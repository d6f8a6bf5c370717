//! How many rows a page of each table has: so many that reading and applying it takes a while that is short
//! beside a step and long beside a round trip.

use crate::error::Result;
use crate::postgres::Client;
use crate::schema::catalog::SourceTable;
use crate::source::page;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Time that one page should take.
const PAGE_TIME: Duration = Duration::from_millis(400);

/// Rows of the first page, where they are small.
const FIRST_ROWS: i64 = 2_000;

/// Bytes of the first page.
const FIRST_BYTES: i64 = 16 * 1024 * 1024;

/// Fewest rows that a slow page leads to: each page costs some queries.
const LEAST_ROWS: i64 = 50;

/// Most rows of a page: what a kill makes a worker read again.
const MOST_ROWS: i64 = 100_000;

/// By table.
#[derive(Debug, Default)]
pub(super) struct PageSizes(Mutex<BTreeMap<String, i64>>);

impl PageSizes {
    /// Rows of the next page.
    pub async fn of(&self, client: &Client, source: &SourceTable) -> Result<i64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&source.table.name).copied();
        if let Some(rows) = known {
            return Ok(rows);
        }
        let size = page::size_of(client, source).await?;
        let row_bytes = size.rows.map_or(0, |rows| size.bytes / rows.max(1)).max(1);
        let rows = (FIRST_BYTES / row_bytes).clamp(LEAST_ROWS, FIRST_ROWS);
        self.set(source, rows);
        Ok(rows)
    }

    /// A page of `rows` took so long.
    pub fn tune(&self, source: &SourceTable, rows: i64, took: Duration) {
        let fit = rows as f64 * PAGE_TIME.as_secs_f64() / took.as_secs_f64().max(0.001);
        let least = (rows / 4).max(LEAST_ROWS);
        self.set(source, (fit as i64).clamp(least, rows.saturating_mul(4).max(least)));
    }

    /// The next page has so many.
    pub fn set(&self, source: &SourceTable, rows: i64) {
        let rows = rows.clamp(1, MOST_ROWS);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(source.table.name.clone(), rows);
    }

    /// What stood in the way is behind.
    pub fn forget(&self, source: &SourceTable) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&source.table.name);
    }
}
