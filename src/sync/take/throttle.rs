//! Bounds how many rows a second rebuilding reads, so that a snapshot leaves the source to its users.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How much is saved up before it is spent on a page.
const SPAN: Duration = Duration::from_millis(250);

/// A bucket of rows; without a limit it is never empty.
#[derive(Debug)]
pub(in crate::sync) struct Throttle {
    rows_per_second: Option<f64>,
    /// Rows that may be read, as of then; negative after a page that was larger.
    bucket: Mutex<(f64, Instant)>,
}

impl Throttle {
    pub fn new(rows_per_second: Option<u32>) -> Self {
        let rows_per_second = rows_per_second.map(f64::from);
        let page = rows_per_second.map_or(0.0, |rate| (rate * SPAN.as_secs_f64()).max(1.0));
        Self { rows_per_second, bucket: Mutex::new((page, Instant::now())) }
    }

    /// Rows that may be read now; `None` until they are worth a page.
    pub fn rows(&self) -> Option<i64> {
        let Some(rate) = self.rows_per_second else { return Some(i64::MAX) };
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let page = (rate * SPAN.as_secs_f64()).max(1.0);
        *bucket = ((bucket.0 + rate * now.duration_since(bucket.1).as_secs_f64()).min(page), now);
        (bucket.0 >= page).then_some(bucket.0 as i64)
    }

    /// Takes rows out that were read.
    pub fn count(&self, rows: i64) {
        if self.rows_per_second.is_some() {
            self.bucket.lock().unwrap_or_else(PoisonError::into_inner).0 -= rows as f64;
        }
    }

    /// How long an empty bucket takes to hold something worth a step.
    pub fn wait(&self) -> Duration {
        let Some(rate) = self.rows_per_second else { return Duration::ZERO };
        let held = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).0;
        let page = (rate * SPAN.as_secs_f64()).max(1.0);
        Duration::from_secs_f64((page - held).max(0.0) / rate).max(Duration::from_millis(1))
    }

    /// How long so many rows take at the limit.
    pub fn time_of(&self, rows: i64) -> Duration {
        self.rows_per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(rows.max(0) as f64 / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_has_to_be_waited_for() {
        let free = Throttle::new(None);
        free.count(1_000_000);
        assert_eq!(free.rows(), Some(i64::MAX));
        let slow = Throttle::new(Some(10));
        assert_eq!(slow.rows(), Some(2));
        slow.count(12);
        assert_eq!(slow.rows(), None);
        assert!(slow.wait() > Duration::from_millis(900));
        assert_eq!(slow.time_of(20), Duration::from_secs(2));
    }
}
