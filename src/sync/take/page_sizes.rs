//! How many rows a page of each table has: so many that reading and applying it takes a while that is short
//! beside a step and long beside a round trip.

use crate::core::error::Result;
use crate::postgres::catalog::SourceTable;
use crate::postgres::link::Link;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Time that one page should take.
const PAGE_TIME: Duration = Duration::from_millis(400);

/// The longest that a page is meant to take.
const MOST_TIME: Duration = Duration::from_secs(5);

/// Rows of the first page, where they are small.
const FIRST_ROWS: i64 = 2_000;

/// Bytes of the first page.
const FIRST_BYTES: i64 = 16 * 1024 * 1024;

/// Fewest rows that a slow page leads to: each page costs some queries.
const LEAST_ROWS: i64 = 50;

/// Most rows of a page: what a kill makes a worker read again.
const MOST_ROWS: i64 = 100_000;

/// What a page may take beside what it costs however few rows it has: so many times as long.
const FIXED_SHARE: u32 = 2;

/// The pages of one table.
#[derive(Debug, Clone, Copy)]
struct Pages {
    /// Rows of the next one.
    rows: i64,
    /// Rows of the last one, and its time.
    last: Option<(i64, Duration)>,
}

impl Pages {
    /// What a page costs that has no rows: planning over thousands of partitions takes seconds, and smaller pages
    /// would only make that worse. From two pages of different size.
    fn fixed(&self, rows: i64, took: Duration) -> Duration {
        let Some((other, took_then)) = self.last.filter(|(other, _)| *other != rows) else { return Duration::ZERO };
        let a_row = (took_then.as_secs_f64() - took.as_secs_f64()) / (other - rows) as f64;
        Duration::from_secs_f64((took.as_secs_f64() - a_row.max(0.0) * rows as f64).max(0.0)).min(took)
    }
}

/// By table.
#[derive(Debug, Default)]
pub(in crate::sync) struct PageSizes(Mutex<BTreeMap<String, Pages>>);

impl PageSizes {
    /// Rows of the next page.
    pub async fn of(&self, link: &dyn Link, source: &SourceTable) -> Result<i64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&source.table.name).copied();
        if let Some(pages) = known {
            return Ok(pages.rows);
        }
        let size = link.size(source).await?;
        let row_bytes = size.rows.map_or(0, |rows| size.bytes / rows.max(1)).max(1);
        let rows = (FIRST_BYTES / row_bytes).clamp(LEAST_ROWS, FIRST_ROWS);
        self.set(source, rows);
        Ok(rows)
    }

    /// A page of `rows` took so long.
    pub fn tune(&self, source: &SourceTable, rows: i64, took: Duration) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&source.table.name).copied();
        let fixed = known.map_or(Duration::ZERO, |pages| pages.fixed(rows, took));
        let time = PAGE_TIME.max(fixed * FIXED_SHARE).min(MOST_TIME);
        let fit = rows as f64 * time.as_secs_f64() / (took - fixed).as_secs_f64().max(0.001);
        let least = (rows / 4).max(LEAST_ROWS);
        let next = (fit as i64).clamp(least, rows.saturating_mul(4).max(least)).clamp(1, MOST_ROWS);
        let pages = Pages { rows: next, last: Some((rows, took)) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(source.table.name.clone(), pages);
    }

    /// The next page has so many.
    pub fn set(&self, source: &SourceTable, rows: i64) {
        let pages = Pages { rows: rows.clamp(1, MOST_ROWS), last: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(source.table.name.clone(), pages);
    }

    /// What stood in the way is behind.
    pub fn forget(&self, source: &SourceTable) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&source.table.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_page_costs_is_told_from_what_its_rows_cost() {
        let ms = Duration::from_millis;
        let pages = |last| Pages { rows: 1, last };
        assert_eq!(pages(None).fixed(500, ms(2000)), ms(0), "unknown");
        assert_eq!(pages(Some((500, ms(1000)))).fixed(500, ms(2000)), ms(0), "nothing to tell it from");
        assert_eq!(pages(Some((1000, ms(1000)))).fixed(500, ms(500)), ms(0), "all of it is rows");
        assert_eq!(pages(Some((2000, ms(2200)))).fixed(500, ms(2050)), ms(2000), "hardly any of it");
        assert_eq!(pages(Some((500, ms(3000)))).fixed(2000, ms(1000)), ms(1000), "more rows in less time");
    }
}
