//! How much a batch may hold: as much as the target applies in a time that it bears. A batch that took long,
//! or that the target gave up on, makes the next ones smaller; they grow back slowly. Kept for the life of a
//! worker. No IO.

use crate::core::error::{Error, ErrorKind};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most rows of one libSQL transaction: beyond these its fixed costs have vanished.
const MOST_ROWS: usize = 20_000;

/// Most bytes of one libSQL transaction; bounds the step's memory.
pub(in crate::sync) const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The smallest share of both that a slow target leads to: 50 rows, 20 KiB.
const LEAST_SHARE: f64 = 1.0 / 400.0;

/// Time that applying a batch should take: sqld takes the lock from a transaction after 5 s when another
/// writer waits.
const BATCH_TIME: Duration = Duration::from_secs(2);

/// What a target that answers late is given beside it, at most: no size makes it answer earlier.
const MOST_DELAY: Duration = Duration::from_secs(8);

/// A batch of at most this share shows how late the target answers.
const PROBE_SHARE: f64 = 0.02;

/// Growth after a batch that was quick.
const GROWTH: f64 = 1.25;

/// The same from half the size that failed last.
const CAREFUL_GROWTH: f64 = 1.02;

/// Keys of a table's first query, when nothing is known of its rows.
const FIRST_KEYS: usize = 100;

/// Most keys read by one query.
const MOST_KEYS: usize = 4_000;

/// Rows of which some may be read that nobody asked for.
const SMALL_ROW_BYTES: usize = 8 * 1024;

/// Batches that the marks of one group may fill, and that one query may read: the writer holds both up.
const GROUP_BATCHES: usize = 4;

/// What one batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sync) struct Limits {
    /// Rows.
    pub rows: usize,
    /// Bytes of their cells.
    pub bytes: usize,
}

/// The limits as the target has taught them.
#[derive(Debug)]
pub(in crate::sync) struct Budget(Mutex<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    /// Of the most rows and bytes.
    share: f64,
    /// The smallest that failed, until one as large is applied.
    failed: f64,
    /// How late the target answers, whatever the size.
    delay: Duration,
    /// Bytes of a row of each table, on the large side.
    row_bytes: BTreeMap<String, usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self(Mutex::new(BudgetState {
            share: 1.0,
            failed: f64::INFINITY,
            delay: Duration::ZERO,
            row_bytes: BTreeMap::new(),
        }))
    }
}

impl Budget {
    /// What the next batch may hold.
    pub fn limits(&self) -> Limits {
        let share = self.state().share;
        Limits { rows: (MOST_ROWS as f64 * share) as usize, bytes: (MOST_BYTES as f64 * share) as usize }
    }

    /// A batch of so many rows and bytes was applied, or failed.
    pub fn learn(&self, (rows, bytes): (usize, usize), took: Duration, error: Option<&Error>) {
        match error {
            None => self.applied(rows, bytes, took),
            Some(e) if matches!(e.kind(), ErrorKind::Overload | ErrorKind::TooLarge) => self.failed(rows, bytes, took),
            Some(_) => {}
        }
    }

    fn applied(&self, rows: usize, bytes: usize, took: Duration) {
        let mut state = self.state();
        let share = share_of(rows, bytes);
        if share <= PROBE_SHARE {
            state.delay = took.min(MOST_DELAY);
        }
        let time = BATCH_TIME + state.delay;
        if took > time {
            let fit = share * (time.as_secs_f64() / took.as_secs_f64()).max(0.25);
            state.shrink(fit, took);
        } else if took < state.delay + BATCH_TIME / 2 && share > state.share / 2.0 {
            if share >= state.failed {
                state.failed = f64::INFINITY;
            }
            let growth = if state.share < state.failed / 2.0 { GROWTH } else { CAREFUL_GROWTH };
            state.share = (state.share * growth).min(1.0);
        }
    }

    fn failed(&self, rows: usize, bytes: usize, took: Duration) {
        let mut state = self.state();
        let share = share_of(rows, bytes);
        state.failed = state.failed.min(share);
        state.shrink(share / 2.0, took);
    }

    /// How much of a group so many marks of a table fill.
    pub fn share_of_marks(&self, table: &str, keys: usize) -> f64 {
        keys as f64 / self.group_keys(table) as f64
    }

    /// How much of a group an image fills: all images of one are a single batch.
    pub fn share_of_image(&self, bytes: usize) -> f64 {
        let limits = self.limits();
        (1.0 / limits.rows as f64).max(bytes as f64 / limits.bytes as f64)
    }

    /// How many keys of a table the next query may read.
    pub fn query_keys(&self, table: &str) -> usize {
        self.group_keys(table).min(MOST_KEYS)
    }

    fn group_keys(&self, table: &str) -> usize {
        let limits = self.limits();
        let known = self.state().row_bytes.get(table).copied();
        let fit = known.map_or(FIRST_KEYS, |bytes| GROUP_BATCHES * limits.bytes / bytes.max(1));
        fit.clamp(1, GROUP_BATCHES * limits.rows)
    }

    /// Whether it is known how large rows of a table are.
    pub fn knows(&self, table: &str) -> bool {
        self.state().row_bytes.contains_key(table)
    }

    /// Whether it is known that rows of a table are small.
    pub fn knows_small(&self, table: &str) -> bool {
        self.state().row_bytes.get(table).is_some_and(|bytes| *bytes < SMALL_ROW_BYTES)
    }

    /// Rows of a table were read: so many, and so large.
    pub fn read(&self, table: &str, rows: usize, bytes: usize) {
        let mut state = self.state();
        let mean = bytes / rows.max(1);
        // Large ones are forgotten slowly: they come in heaps.
        let known = state.row_bytes.get(table).map_or(0, |known| known / 2);
        state.row_bytes.insert(table.to_owned(), mean.max(known));
    }

    fn state(&self) -> MutexGuard<'_, BudgetState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BudgetState {
    fn shrink(&mut self, share: f64, took: Duration) {
        let share = share.clamp(LEAST_SHARE, self.share);
        if share < self.share {
            self.share = share;
            let (rows, bytes) = (MOST_ROWS as f64 * share, MOST_BYTES as f64 * share);
            tracing::warn!(
                apply_ms = took.as_millis() as u64,
                batch.rows_most = rows as u64,
                batch.bytes_most = bytes as u64,
                "the target is slow; batches become smaller"
            );
        }
    }
}

/// How much of the largest batch this one was.
fn share_of(rows: usize, bytes: usize) -> f64 {
    (rows as f64 / MOST_ROWS as f64).max(bytes as f64 / MOST_BYTES as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full batches at so many rows a second and with such a delay, until the limits settle.
    fn settled(budget: &Budget, rows_per_second: f64, delay: f64) -> usize {
        for _ in 0..200 {
            let rows = budget.limits().rows;
            budget.applied(rows, 0, Duration::from_secs_f64(delay + rows as f64 / rows_per_second));
        }
        budget.limits().rows
    }

    #[test]
    fn batches_take_about_as_long_as_they_should_and_grow_back() {
        let budget = Budget::default();
        assert_eq!(settled(&budget, 100_000.0, 0.0), MOST_ROWS);
        let slow = settled(&budget, 500.0, 0.0);
        assert!((400..=1_250).contains(&slow), "{slow}");
        assert_eq!(settled(&budget, 0.01, 0.0), 50, "the least");
        assert_eq!(settled(&budget, 100_000.0, 0.0), MOST_ROWS);
    }

    #[test]
    fn a_target_that_only_answers_late_gets_large_batches_all_the_same() {
        let budget = Budget::default();
        assert!(settled(&budget, 20_000.0, 3.0) > MOST_ROWS / 2);
    }

    #[test]
    fn what_failed_is_halved_at_once_by_its_own_size() {
        let budget = Budget::default();
        budget.failed(3_000, 0, Duration::from_secs(30));
        assert_eq!(budget.limits().rows, 1_500);
        budget.failed(10, MOST_BYTES, Duration::from_secs(30));
        assert_eq!(budget.limits().rows, 1_500, "a failure never makes it larger");
    }

    #[test]
    fn fewer_keys_are_read_at_once_where_rows_are_large() {
        let budget = Budget::default();
        assert_eq!(budget.query_keys("t"), FIRST_KEYS);
        budget.read("t", 100, 10_000);
        assert_eq!(budget.query_keys("t"), MOST_KEYS);
        assert_eq!(budget.share_of_marks("t", 80_000), 1.0);
        budget.read("t", 100, 400_000_000);
        assert_eq!(budget.query_keys("t"), 8);
        budget.read("t", 100, 100);
        assert_eq!(budget.query_keys("t"), 16);
    }
}
